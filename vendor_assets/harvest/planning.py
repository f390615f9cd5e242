"""Planning: the requests of a partition, from the tables above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from vendor_assets.days import Window
from vendor_assets.harvest.context import HarvestContext
from vendor_assets.harvest.filters import still_to_ask, values_known, with_values
from vendor_assets.harvest.plans import Plan
from vendor_assets.harvest.upstream import Upstream
from vendor_assets.vendors.base import Asset, DataGroup, PlannedRequest


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
                    self.context.vendor.data_groups(troop_id, warrior, self.window) for warrior in warriors
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
        def plan(warrior_id: str, chosen: list[DataGroup]) -> list[PlannedRequest]:
            return self.context.vendor.performance_data(
                troop_id, warrior_id, chosen, self.window, self.context.resolution_seconds
            )

        filters = self.context.filters
        taken = set(self._warriors_taken(left_out)) if filters.warriors else None
        values = values_known(known)
        # The table is sorted by warrior, so that one warrior's groups are in memory at a time.
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
            requests = plan(warrior_id, groups) if groups else []
            if known and groups:
                # Grouped anew, so that a batch does not ask again for what has landed beside what has not.
                groups = still_to_ask(groups, requests, known, values)
                requests = plan(warrior_id, groups) if groups else []
            by_name = {group.name: group for group in groups}
            for planned in requests:
                yield with_values(planned, by_name)


def any_not_in(leaves: set[str] | frozenset[str], planned: PlannedRequest) -> bool:
    """Whether a request asks for a leaf that is none of these."""
    return not leaves or any(leaf.key not in leaves for leaf in planned.leaves)
