"""Costs: how many calls a day will take, from the last known shape of the hierarchy and from what has landed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain, groupby
from statistics import median
from threading import RLock
from types import MappingProxyType
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from vendor_assets.budget import Team, unit_of
from vendor_assets.days import Window, day_window
from vendor_assets.errors import (
    ObjectNotFoundError,
    RecordError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.harvest.filters import DATA_GROUPS, TROOPS, Filters
from vendor_assets.harvest.harvests import (
    Finish,
    HarvestFolder,
    list_harvests,
    list_harvests_of_day,
    load_finish,
    newest_finished,
)
from vendor_assets.harvest.landing import SPLIT_PAGE, read_index
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.harvest.planning import in_batches
from vendor_assets.harvest.plans import load_plan
from vendor_assets.harvest.weights import Weights
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.vendors.base import Asset, DataGroup, PlannedRequest, Vendor

logger = get_logger(__name__)

DAY_SECONDS: Final = 86_400
UNKNOWN_CALLS: Final = 60
"""What a troop is taken to cost while nothing is known of any troop."""
_NO_FILTERS: Final = Filters()
_LEFT_OUT: Final = frozenset({"troops_left_out", "warriors_left_out"})
_READERS: Final = 16
"""Troops whose shape is read at once: of a store far away each object takes a moment."""


@dataclass(frozen=True)
class DayPlan:
    """What harvesting one day will cost.

    Attributes:
        roster_from: The day whose roster was taken: the day's own where it is known, else the nearest; None
            while no roster is known at all.
        shape_from: The oldest of the days whose lists of warriors and data groups were taken for this one; None
            where none is known of any troop.
        unknown: Those of the troops of which no list is known; they are taken to cost the median of the others.
        calls: Calls to come, by asset; estimates where the day has not been planned yet.
        done: Calls that are answered already and cost nothing, by asset.
        saved: Calls that the filters save.
        by_troop: All calls of a troop's day, answered or not, by its name, the largest first.
        whole_by_key: The same by partition key and asset.
        to_come: Calls to come by troop's partition key, the largest first.
        per_call: What a call counts on average of other units than requests, by unit: ``{"queries": 4.2}``.
    """

    day: date
    roster_from: date | None
    shape_from: date | None
    troops: int
    unknown: int
    left_out: int
    calls: dict[str, int]
    done: dict[str, int]
    saved: int
    by_troop: dict[str, int]
    whole_by_key: dict[str, dict[str, int]]
    to_come: dict[str, int]
    per_call: dict[str, float]

    @property
    def foreseen(self) -> bool:
        """Whether the lists of most of its troops are known; otherwise the calls are a guess."""
        return self.shape_from is not None and self.unknown * 2 <= self.troops

    @property
    def total(self) -> int:
        """All calls to come."""
        return sum(self.calls.values())

    @property
    def whole(self) -> int:
        """All calls of the day, those that are answered included."""
        return self.total + sum(self.done.values())


class Wanted(Protocol):
    """What of a vendor is asked for."""

    @property
    def vendor(self) -> Vendor:
        """Builds the requests that are counted."""

    @property
    def zone(self) -> ZoneInfo:
        """Time zone of days."""

    @property
    def resolution_seconds(self) -> int:
        """Wanted length of a timeslice."""

    @property
    def filters(self) -> Filters:
        """What of the hierarchy is asked for."""


@dataclass
class _Cost:
    """Calls of one troop's day."""

    calls: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    saved: int = 0
    known: bool = False


class Costs:
    """Estimates days; what it reads of the store it keeps, so that a year costs little more than a day.

    Args:
        hurry: Asked before each troop; once it says yes, those to come are taken to be as the others are.
        learnt: What calls really counted of late, as a part of what they were taken to count, by unit.

    Attributes:
        cut_short: Whether there was no time for all troops of the day that was estimated last.
    """

    def __init__(
        self,
        store: ObjectStore,
        wanted: Wanted,
        hurry: Callable[[], bool] = lambda: False,
        *,
        learnt: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._vendor = wanted.vendor
        self._zone = wanted.zone
        self._resolution_seconds = wanted.resolution_seconds
        self._filters = wanted.filters
        self.hurry = hurry
        self.cut_short = False
        self._learnt = learnt
        self._listing = RLock()
        self._days: dict[str, list[date]] = {}
        self._folders: dict[str, set[str]] = {}
        self._landed: dict[tuple[Asset, date], dict[str | None, list[HarvestFolder]]] = {}
        self._rosters: dict[date, Roster] = {}
        self._finishes: dict[tuple[Asset, date, str | None], Finish | None] = {}
        self._counted: dict[tuple[str, date, Filters, tuple[tuple[int, int], ...]], int] = {}
        self._built: Counter[str] = Counter()
        self._units: dict[str, dict[str, float]] = {}
        self._shaped: set[tuple[Asset, str]] = set()
        self._nearness: dict[tuple[str, date], list[date]] = {}
        self._signatures: dict[Window, tuple[tuple[int, int], ...]] = {}
        self._plans: dict[Hashable, DayPlan] = {}

    @property
    def shapes(self) -> int:
        """How many lists have been read: a measure of what it knows by now."""
        return len(self._counted)

    def day(self, day: date, only: Sequence[str] = ()) -> DayPlan:
        """What one day will cost.

        Args:
            only: Ids, partition keys or names of troops; none means all.

        Raises:
            ConfigurationError: A troop is not on the roster, or left out.
        """
        self.cut_short = False
        window = day_window(day, self._zone)
        follows_from = None if self._has_harvests(day) else (tuple(only), *self._models(day, window))
        plan = self._plans.get(follows_from) if follows_from else None
        if plan is None:
            plan = self._estimate(day, window, only)
            if follows_from and not self.cut_short:
                self._plans[follows_from] = plan
        return replace(plan, day=day)

    def _has_harvests(self, day: date) -> bool:
        """Whether there is a harvest of any of a day's partitions."""
        return any(any(self._harvests_of_day(asset, day).values()) for asset in ("troops", *CHAIN))

    def _models(self, day: date, window: Window) -> tuple[Hashable, ...]:
        """All that the estimate of a day without harvests follows from: most of a year's days have it in common."""
        roster = self._roster(day)
        nearest = (tuple(self._known_days(table, day)) for table in ("warriors", "data_groups"))
        return (roster and roster.day, *nearest, self._signature(window))

    def _estimate(self, day: date, window: Window, only: Sequence[str]) -> DayPlan:
        roster = self._roster(day)
        roster_from = roster.day if roster else None
        taken = self._filters.choose(roster, only) if roster else []
        chosen = taken if only or not roster else roster.troops
        self._used: set[date] = set()
        # Some at a time: most of a year's days need nothing read, and handing troops over one by one takes longer.
        several = list(in_batches(taken, max(1, len(taken) // _READERS)))
        counted = map_concurrently(
            lambda some: [self._troop(each, day, window) for each in some], several, at_once=_READERS
        )
        found = dict(zip((each.key for each in taken), chain.from_iterable(counted), strict=True))
        self._take_the_median(found)
        answered = self._answered("troops", day, None)
        calls = {"troops": 0 if answered else self._pages("troops", roster_from, None)}
        done = {"troops": answered}
        for asset in CHAIN:
            calls[asset] = sum(troop.calls[asset] for troop in found.values())
            done[asset] = sum(troop.done[asset] for troop in found.values())
        names = {each.key: each.title for each in chosen}
        whole: dict[str, dict[str, int]] = {
            key: {asset: troop.calls[asset] + troop.done[asset] for asset in CHAIN}
            for key, troop in found.items()
        }
        by_troop = Counter[str]()
        for key, of_troop in whole.items():
            by_troop[names[key]] += sum(of_troop.values())
        to_come = Counter({key: sum(troop.calls.values()) for key, troop in found.items()})
        return DayPlan(
            day,
            roster_from,
            min(self._used, default=None),
            troops=len(taken),
            unknown=sum(1 for troop in found.values() if not troop.known),
            left_out=len(chosen) - len(taken),
            calls=calls,
            done=done,
            saved=sum(troop.saved for troop in found.values()) + self._of_left_out(chosen, window, found),
            by_troop=dict(by_troop.most_common()),
            whole_by_key=whole,
            to_come=dict(to_come.most_common()),
            per_call=self._per_call({asset: calls[asset] + done[asset] for asset in calls}, window),
        )

    def _per_call(self, whole: Mapping[str, int], window: Window) -> dict[str, float]:
        """What a call counts on average, by the requests that were built to count them and what answers told."""
        self._build("troops", [self._vendor.troops(window)])
        self._build("warriors", [self._vendor.warriors("0", window)])
        units: dict[str, float] = defaultdict(float)
        for asset, counted in self._units.items():
            for unit, number in counted.items():
                units[unit] += number * whole[asset] / self._built[asset]
        calls = max(1, sum(whole.values()))
        return {unit: self._learnt.get(unit, 1.0) * number / calls for unit, number in units.items()}

    def _build(self, asset: Asset, planned: Sequence[PlannedRequest]) -> int:
        """How many requests these are; what they count is noted."""
        units = self._units.setdefault(asset, defaultdict(float))
        self._built[asset] += len(planned)
        for each in planned:
            for unit, number in self._vendor.counts(each.request).items():
                units[unit_of(unit)] += number
        return len(planned)

    # One troop

    def _troop(self, troop: Troop, day: date, window: Window) -> _Cost:
        unknown = _Cost(calls=dict.fromkeys(CHAIN, -1), done=dict.fromkeys(CHAIN, 0))
        if self.hurry():
            self.cut_short = True
            return unknown
        try:
            return self._known_troop(troop, day, window)
        except StorageUnavailableError:
            raise
        except (StorageError, RecordError) as error:
            logger.warning("nothing is known of troop %s, so it is taken for a new one: %s", troop.key, error)
            return unknown

    def _known_troop(self, troop: Troop, day: date, window: Window) -> _Cost:
        key = troop.key
        cost = _Cost()
        for asset in CHAIN:
            # Of others too a shape is read once, for what its calls count.
            is_shaped = asset == "warriors" or (asset, key) in self._shaped
            if is_shaped and self._is_finished(asset, day, key):
                cost.done[asset], cost.calls[asset] = self._answered(asset, day, key), 0
                if asset != "warriors":
                    cost.known = True
                    self._used.add(day)
                continue
            whole = self._whole(asset, troop, day, window, self._filters)
            cost.known |= whole is not None and asset != "warriors"
            if self._harvests(asset, day, key):
                cost.done[asset] = answered = self._answered(asset, day, key)
                cost.calls[asset] = self._left(asset, troop, day, window, whole, answered)
            else:
                cost.done[asset], cost.calls[asset] = 0, -1 if whole is None else whole
            if self._filters and whole is not None:
                without = self._whole(asset, troop, day, window, _NO_FILTERS)
                cost.saved += max(0, (without or 0) - whole)
        return cost

    def _is_finished(self, asset: Asset, day: date, key: str) -> bool:
        """Whether nothing is to come of a partition, for certain: neither was a filter in force then nor is one now."""
        harvests = () if self._filters else self._harvests(asset, day, key)
        finish = self._finish(asset, day, key) if harvests and harvests[-1].finish_etag else None
        return finish is not None and not {"filters", *_LEFT_OUT} & finish.details.keys()

    def _left(
        self,
        asset: Asset,
        troop: Troop,
        day: date,
        window: Window,
        whole: int | None,
        answered: int,
    ) -> int:
        """Calls to come; -1 where nothing is known of the troop."""
        harvests = self._harvests(asset, day, troop.key)
        if harvests and harvests[-1].finish_etag:
            then = load_plan(self._store, harvests[-1].folder).filters
            if then == self._filters.texts or whole is None:
                return 0
            before = self._whole(asset, troop, day, window, Filters.parse(then)) or 0
            return max(0, whole - before)
        if harvests and harvests[-1].has_plan:
            plan = load_plan(self._store, harvests[-1].folder)
            if plan.filters == self._filters.texts:
                return max(0, plan.request_count - answered)
        return -1 if whole is None else max(0, whole - answered)

    @staticmethod
    def _take_the_median(found: Mapping[str, _Cost]) -> None:
        """Troops of which nothing is known are taken to be as the others are."""
        for asset in CHAIN:
            # Of one that was cut off the warriors may be known alone.
            known = [
                troop.calls[asset] + troop.done[asset]
                for troop in found.values()
                if troop.known and troop.calls[asset] >= 0
            ]
            default = UNKNOWN_CALLS if asset == "performance_data" else 1
            typical = int(median(known)) if known else default
            for troop in found.values():
                if troop.calls[asset] < 0:
                    troop.calls[asset] = typical

    def _of_left_out(self, chosen: Sequence[Troop], window: Window, found: Mapping[str, _Cost]) -> int:
        """Calls that troops would cost that are left out; the others' median where nothing is known of one."""
        taken = [sum(troop.calls.values()) + sum(troop.done.values()) for troop in found.values()]
        typical = int(median(taken)) if taken else UNKNOWN_CALLS
        day = window.start.astimezone(self._zone).date()
        saved = 0
        for troop in chosen:
            if troop.key not in found:
                assets = () if self.hurry() else CHAIN[1:]
                counts = [self._whole(asset, troop, day, window, _NO_FILTERS) for asset in assets]
                saved += 1 + sum(count or 0 for count in counts) if any(counts) else typical
        return saved

    # Requests by the last known shape

    def _whole(self, asset: Asset, troop: Troop, day: date, window: Window, filters: Filters) -> int | None:
        """Calls of a troop's asset on a day, by its nearest list; None where no list is known."""
        key = troop.key
        if asset == "warriors":
            return self._pages("warriors", self._nearest("warriors", key, day), key)
        upstream: Asset = "warriors" if asset == "data_groups" else "data_groups"
        source = self._nearest(upstream, key, day)
        if source is None:
            return None
        self._used.add(source)
        signature = self._signature(window) if asset == "performance_data" else ()
        known = (f"{asset} {key}", source, filters, signature)
        if known not in self._counted:
            count = self._lists if asset == "data_groups" else self._data
            self._counted[known] = count(troop, source, window, filters)
            self._shaped.add((asset, key))
        return self._counted[known]

    def _lists(self, troop: Troop, source: date, window: Window, filters: Filters) -> int:
        if self._vendor.one_list:
            return 0
        warriors = self._read("warriors", source, troop.key, "warrior_id", "name")
        taken = [
            each["warrior_id"]
            for each in warriors
            if filters.warriors.takes(each["warrior_id"], each["name"])
        ]
        lists = sum(
            self._build("data_groups", self._vendor.data_groups_of(troop.id, some, window))
            for some in in_batches(taken, self._vendor.warriors_at_once)
        )
        return self._pages("data_groups", source, troop.key, lists=lists)

    def _data(self, troop: Troop, source: date, window: Window, filters: Filters) -> int:
        requests = 0
        at_once = self._vendor.warriors_at_once
        several: dict[str, Sequence[DataGroup]] = {}
        names: dict[str, str] = {}
        if filters.warriors:
            warriors = self._read("warriors", source, troop.key, "warrior_id", "name")
            names = {each["warrior_id"]: each["name"] for each in warriors}
        rows = self._read("data_groups", source, troop.key, "warrior_id", "data_group", "value_names")
        shapes: dict[tuple[DataGroup, ...], int] = {}
        for warrior_id, of_warrior in groupby(rows, key=lambda each: str(each["warrior_id"])):
            if filters.warriors and not filters.warriors.takes(warrior_id, names.get(warrior_id)):
                continue
            wholes = (DataGroup(each["data_group"], tuple(each["value_names"])) for each in of_warrior)
            groups = tuple(group for whole in wholes if (group := filters.narrow(whole)) is not None)
            # Warriors of a troop mostly have the same data groups: built once, counted for each.
            if at_once > 1:
                several |= {warrior_id: groups} if groups else {}
                continue
            if groups and groups not in shapes:
                of_day = (groups, window, self._resolution_seconds)
                planned = self._vendor.performance_data(troop.id, warrior_id, *of_day)
                shapes[groups] = self._build("performance_data", planned)
            requests += shapes.get(groups, 0)
        for some in in_batches(several.items(), at_once):
            of_some = (dict(some), window, self._resolution_seconds)
            planned = self._vendor.performance_data_of(troop.id, *of_some)
            requests += self._build("performance_data", planned)
        return requests

    def _signature(self, window: Window) -> tuple[tuple[int, int], ...]:
        """How the vendor cuts this day: two days that are cut alike cost alike."""
        if window in self._signatures:
            return self._signatures[window]
        probe = self._vendor.performance_data(
            "0", "0", [DataGroup("x", ("x",))], window, self._resolution_seconds
        )
        start = int(window.start.timestamp())
        cuts = tuple(
            (int(leaf.window.start.timestamp()) - start, int(leaf.window.end.timestamp()) - start)
            for planned in probe
            for leaf in planned.leaves
            if leaf.window
        )
        self._signatures[window] = cuts
        return cuts

    def _pages(self, asset: Asset, source: date | None, key: str | None, *, lists: int = 1) -> int:
        """Calls that some lists take, by the pages in which they came on another day."""
        finish = self._finish(asset, source, key) if source else None
        if finish is None or not finish.answers:
            return lists
        return round(lists * finish.answers / (finish.answers - finish.later_pages))

    # What the store says

    def teams(self, day: date, weights: Weights) -> dict[str, Team]:
        """The teams of a day's troops, by their partition keys; empty without weights."""
        roster = self._roster(day) if weights else None
        return weights.by_key(roster.troops) if roster else {}

    def _roster(self, day: date) -> Roster | None:
        for nearest in self._known_days("troops", day):
            if nearest not in self._rosters:
                try:
                    self._rosters[nearest] = Roster.read(self._store, nearest)
                except ObjectNotFoundError:
                    continue
            return self._rosters[nearest]
        return None

    def _known_days(self, table: str, day: date) -> list[date]:
        """Days that have a table, the nearest first; of two the earlier."""
        with self._listing:
            if table not in self._days:
                days = map(layout.day_of_folder, self._names(layout.table_prefix(table)))
                self._days[table] = [day for day in days if day is not None]
            if (table, day) not in self._nearness:
                self._nearness[table, day] = sorted(
                    self._days[table], key=lambda other: (abs((other - day).days), other > day)
                )
            return self._nearness[table, day]

    def _nearest(self, table: Asset, key: str, day: date) -> date | None:
        """The nearest day with a troop's list: one of which no filter left anything out, if there is one."""
        nearest: date | None = None
        for other in self._known_days(table, day):
            if f"troop={key}" in self._names(layout.table_prefix(table, other)):
                nearest = nearest or other
                finish = self._finish(table, other, key)
                if finish is None or _LEFT_OUT.isdisjoint(finish.details):
                    return other
        return nearest

    def _finish(self, asset: Asset, day: date, key: str | None) -> Finish | None:
        """What came of a partition's newest finished harvest."""
        if (asset, day, key) not in self._finishes:
            newest = newest_finished(self._harvests(asset, day, key))
            found = load_finish(self._store, newest.folder) if newest else None
            self._finishes[asset, day, key] = found
        return self._finishes[asset, day, key]

    def _names(self, prefix: str) -> set[str]:
        if prefix not in self._folders:
            with self._listing:
                if prefix not in self._folders:
                    self._folders[prefix] = {name for name in self._store.folders(prefix) if "=" in name}
        return self._folders[prefix]

    def _read(self, table: str, source: date, key: str, *columns: str) -> list[dict[str, Any]]:
        found = read_table(self._store, layout.table_key(table, source, key), columns=list(columns))
        rows: list[dict[str, Any]] = found.to_pylist()
        return rows

    def _harvests(self, asset: Asset, day: date, key: str | None) -> list[HarvestFolder]:
        return self._harvests_of_day(asset, day).get(key, [])

    def _harvests_of_day(self, asset: Asset, day: date) -> Mapping[str | None, list[HarvestFolder]]:
        """A day's harvests by partition key, which is None for those of the day as such."""
        if (asset, day) not in self._landed:
            with self._listing:
                if (asset, day) not in self._landed:
                    found: dict[str | None, list[HarvestFolder]] = {}
                    if asset == "troops":
                        found[None] = list_harvests(self._store, asset, day, None)
                    else:
                        found.update(list_harvests_of_day(self._store, asset, day))
                    self._landed[asset, day] = found
        return self._landed[asset, day]

    def _answered(self, asset: Asset, day: date, key: str | None) -> int:
        """Calls of a partition that have been answered and landed."""
        harvests = self._harvests(asset, day, key)
        finish = self._finish(asset, day, key)
        if finish is not None and harvests[-1].finish_etag:
            return finish.answers or finish.requests
        chunks = [chunk for each in harvests for chunk in each.chunks]
        landed = read_index(self._store, chunks)
        return len({(entry.request, entry.page) for entry in landed if entry.page != SPLIT_PAGE})


def quota_warning(plan: DayPlan, permitted_rate: float | None, resolution_seconds: int) -> str | None:
    """What to change where one day's harvest needs more calls than the quota gives in a day; None where it does not.

    Args:
        plan: A day with all of its troops.
        permitted_rate: Such calls per second that quota and share permit; None where the quota is not known.
    """
    if permitted_rate is None:
        return None
    given = permitted_rate * DAY_SECONDS
    if plan.whole <= given:
        return None
    largest = ", ".join(f"{name} ({calls:,})" for name, calls in list(plan.by_troop.items())[:3])
    return (
        f"a day needs {plan.whole:,} calls, the quota gives {given:,.0f} a day "
        f"({plan.whole / given:.0%}): the harvest falls behind every day. Largest troops: {largest}. "
        f"Leave troops out ({TROOPS}), ask for fewer data groups ({DATA_GROUPS}) or for longer timeslices "
        f"(VENDOR_ASSETS_RESOLUTION={resolution_seconds})"
    )
