"""Planning: the requests of a partition, from the tables above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

from vendor_assets.days import Window
from vendor_assets.harvest.context import HarvestContext
from vendor_assets.harvest.filters import still_to_ask, values_known, with_values
from vendor_assets.harvest.plans import Plan
from vendor_assets.harvest.upstream import Upstream
from vendor_assets.vendors.base import Asset, DataGroup, Leaf, PlannedRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Planner:
    """Plans one partition, from the tables above it."""

    context: HarvestContext
    asset: Asset
    window: Window
    upstream: Upstream

    def plan(self, bases: tuple[str, ...] = (), known: set[str] | frozenset[str] = frozenset()) -> Plan:
        """The work of the partition, without what is answered already.

        Args:
            bases: Folders of the older harvests that have answers.
            known: Keys of the leaves whose answers have landed there.

        Raises:
            HarvestError: An upstream table does not exist.
        """
        left_out: Counter[str] = Counter()
        troop_id, upstream_partial = "", False
        requests: Iterator[PlannedRequest]
        if self.asset == "troops":
            requests = iter([self.context.vendor.troops(self.window)])
        else:
            troop_id = self.upstream.troop_id()
            if self.upstream.troop_is_left_out():
                left_out["troops"] = 1
                requests = iter([])
            elif self.asset == "warriors":
                on_roster = self.upstream.troop() is not None
                requests = iter([self.context.vendor.warriors(troop_id, self.window)] if on_roster else [])
                upstream_partial = self.upstream.roster().state == "partial"
            elif self.asset == "data_groups":
                upstream_partial = self.upstream.state("warriors") == "partial"
                warriors = self._warriors_taken(left_out)
                requests = (
                    planned
                    for some in in_batches(warriors, self.context.vendor.warriors_at_once)
                    for planned in self.context.vendor.data_groups_of(troop_id, some, self.window)
                )
            else:
                upstream_partial = self.upstream.state("data_groups") == "partial"
                requests = self._performance_requests(troop_id, known, left_out)
        plan = Plan(
            asset=self.asset,
            day=self.upstream.day,
            troop_key=self.upstream.troop_key,
            troop_id=troop_id,
            resolution_seconds=self.context.resolution_seconds,
            created_at=self.context.now(),
            bases=bases,
            upstream_partial=upstream_partial,
            filters=self.context.filters.texts,
            left_out=left_out,
        )
        return plan.freeze(planned for planned in requests if any_not_in(known, planned))

    def _warriors_taken(self, left_out: Counter[str]) -> Iterator[str]:
        for row in self.upstream.rows("warriors", "warrior_id", "name"):
            if self.context.filters.warriors.takes(row["warrior_id"], row["name"]):
                yield row["warrior_id"]
            else:
                left_out["warriors"] += 1

    def _performance_requests(
        self, troop_id: str, known: set[str] | frozenset[str], left_out: Counter[str]
    ) -> Iterator[PlannedRequest]:
        vendor = self.context.vendor

        def plan(groups: dict[str, list[DataGroup]]) -> list[PlannedRequest]:
            if not groups:
                return []
            return vendor.performance_data_of(troop_id, groups, self.window, self.context.resolution_seconds)

        values = values_known(known)
        for some in in_batches(self._groups_taken(left_out), vendor.warriors_at_once):
            groups = dict(some)
            requests = plan(groups)
            if known:
                # Grouped anew, so that a batch does not ask again for what has landed beside what has not.
                leaves: dict[str, list[Leaf]] = {warrior_id: [] for warrior_id in groups}
                for planned in requests:
                    for leaf in planned.leaves:
                        leaves[leaf.warrior_id].append(leaf)
                left = {
                    warrior_id: still_to_ask(of_warrior, leaves[warrior_id], known, values)
                    for warrior_id, of_warrior in groups.items()
                }
                groups = {warrior_id: of_warrior for warrior_id, of_warrior in left.items() if of_warrior}
                requests = plan(groups)
            by_name = {
                (warrior_id, group.name): group
                for warrior_id, of_warrior in groups.items()
                for group in of_warrior
            }
            for planned in requests:
                yield with_values(planned, by_name)

    def _groups_taken(self, left_out: Counter[str]) -> Iterator[tuple[str, list[DataGroup]]]:
        """Each warrior that is asked for, with those of its data groups and values that are."""
        filters = self.context.filters
        taken = set(self._warriors_taken(left_out)) if filters.warriors else None
        # The table is sorted by warrior, so that few warriors' groups are in memory at a time.
        rows = self.upstream.rows("data_groups", "warrior_id", "data_group", "value_names")
        for warrior_id, of_warrior in groupby(rows, key=lambda row: str(row["warrior_id"])):
            if taken is not None and warrior_id not in taken:
                continue
            groups: list[DataGroup] = []
            for row in of_warrior:
                whole = DataGroup(row["data_group"], tuple(row["value_names"]))
                group = filters.narrow(whole)
                left_out["data_groups"] += group is None
                if group is not None:
                    left_out["values"] += len(whole.value_names) - len(group.value_names)
                    groups.append(group)
            if groups:
                yield warrior_id, groups


def in_batches(each: Iterable[T], size: int) -> Iterator[list[T]]:
    """Some at a time, in order."""
    left = iter(each)
    while some := list(islice(left, size)):
        yield some


def any_not_in(leaves: set[str] | frozenset[str], planned: PlannedRequest) -> bool:
    """Whether a request asks for a leaf that is none of these."""
    return not leaves or any(leaf.key not in leaves for leaf in planned.leaves)
