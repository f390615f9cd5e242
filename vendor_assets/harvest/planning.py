"""Planning: the requests of a partition, from the tables above it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from vendor_assets.days import Window
from vendor_assets.harvest.filters import still_to_ask, values_known, with_values
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.harvest.plans import Plan
from vendor_assets.harvest.tools import Tools
from vendor_assets.harvest.upstream import Upstream
from vendor_assets.vendors.base import DataGroup, PlannedRequest


class Planner:
    """Plans one partition.

    Args:
        tools: What the run gives to all of its partitions.
        base: The outcome so far: which partition it is.
        window: The day.
        upstream: The tables above it.
    """

    def __init__(self, tools: Tools, base: Outcome, window: Window, upstream: Upstream) -> None:
        self._tools = tools
        self._asset = base.asset
        self._day = base.day
        self._troop_key = base.troop_key
        self._window = window
        self._upstream = upstream

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
        if self._asset == "troops":
            requests = iter([self._tools.vendor.troops(self._window)])
        else:
            troop_id = self._upstream.troop_id()
            if self._upstream.troop_is_left_out():
                left_out["troops"] = 1
                requests = iter([])
            elif self._asset == "warriors":
                on_roster = self._upstream.troop() is not None
                requests = iter([self._tools.vendor.warriors(troop_id, self._window)] if on_roster else [])
                upstream_partial = self._upstream.roster().state == "partial"
            elif self._asset == "data_groups":
                upstream_partial = self._upstream.state("warriors") == "partial"
                warriors = self._warriors_taken(left_out)
                requests = (
                    self._tools.vendor.data_groups(troop_id, warrior, self._window) for warrior in warriors
                )
            else:
                upstream_partial = self._upstream.state("data_groups") == "partial"
                requests = self._performance_requests(troop_id, known, left_out)
        plan = Plan(
            asset=self._asset,
            day=self._day,
            troop_key=self._troop_key,
            troop_id=troop_id,
            resolution_seconds=self._tools.resolution_seconds,
            created_at=self._tools.now(),
            bases=bases,
            upstream_partial=upstream_partial,
            filters=self._tools.filters.texts,
            left_out=left_out,
        )
        return plan.freeze(planned for planned in requests if any_not_in(known, planned))

    def _warriors_taken(self, left_out: Counter[str]) -> Iterator[str]:
        for row in self._upstream.rows("warriors", "warrior_id", "name"):
            if self._tools.filters.warriors.takes(row["warrior_id"], row["name"]):
                yield row["warrior_id"]
            else:
                left_out["warriors"] += 1

    def _performance_requests(
        self, troop_id: str, known: set[str] | frozenset[str], left_out: Counter[str]
    ) -> Iterator[PlannedRequest]:
        def plan(warrior_id: str, chosen: list[DataGroup]) -> list[PlannedRequest]:
            return self._tools.vendor.performance_data(
                troop_id, warrior_id, chosen, self._window, self._tools.resolution_seconds
            )

        filters = self._tools.filters
        taken = set(self._warriors_taken(left_out)) if filters.warriors else None
        values = values_known(known)
        # The table is sorted by warrior, so that one warrior's groups are in memory at a time.
        rows = self._upstream.rows("data_groups", "warrior_id", "data_group", "value_names")
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
