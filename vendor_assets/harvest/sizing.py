"""Sizing: how many calls a troop's day will cost, and how work is cut into runs of some minutes of quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Final

from vendor_assets.harvest.landing import list_harvests, load_finish
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table

RUN_SECONDS: Final = 600.0
"""A run covers about this much of the quota."""
RUN_PARTITIONS: Final = 200
"""A run covers at most this many troops."""
LOOK_BACK_DAYS: Final = 7
UNKNOWN_CALLS: Final = 60
"""What a troop is taken to cost while nothing is known of any troop."""


def estimate_calls(store: ObjectStore, day: date, troop_keys: Sequence[str]) -> dict[str, int]:
    """Calls that each troop's chain will cost, from the last harvest that is known of it.

    A troop without a known harvest is taken to cost the median of the others.
    """
    known: dict[str, int] = {}
    for back in range(LOOK_BACK_DAYS + 1):
        earlier = day - timedelta(days=back)
        unknown = [key for key in troop_keys if key not in known]
        if not unknown:
            break
        there = set(store.folders(layout.harvest_prefix("performance_data", earlier)))
        for key in unknown:
            if f"troop={key}" in there:
                counts = [
                    _requests(store, asset, earlier, key) for asset in ("data_groups", "performance_data")
                ]
                calls = sum(count or 0 for count in counts)
                if calls:
                    known[key] = calls + 1
    default = int(median(known.values())) if known else UNKNOWN_CALLS
    return {key: known.get(key, default) for key in troop_keys}


def _requests(store: ObjectStore, asset: str, day: date, troop_key: str | None) -> int | None:
    """Requests of a partition's newest finished harvest, those of its bases included; None if there is none."""
    finished = [harvest for harvest in list_harvests(store, asset, day, troop_key) if harvest.finish_etag]
    finishes = [load_finish(store, harvest.folder) for harvest in finished]
    return max((finish.requests for finish in finishes if finish), default=None)


def cut(calls: Mapping[str, int], permitted_rate: float | None) -> list[list[str]]:
    """Cut partitions into runs: small ones first, each about ten minutes of quota or 200 partitions.

    Args:
        calls: Partition to the calls that it will cost.
        permitted_rate: Calls per second; None where the quota is not known, then only the number counts.
    """
    runs: list[list[str]] = []
    spent = 0.0
    for key in sorted(calls, key=lambda name: (calls[name], name)):
        seconds = calls[key] / permitted_rate if permitted_rate else 0.0
        if not runs or len(runs[-1]) >= RUN_PARTITIONS or (spent + seconds > RUN_SECONDS and runs[-1]):
            runs.append([])
            spent = 0.0
        runs[-1].append(key)
        spent += seconds
    return runs


@dataclass(frozen=True)
class DayPlan:
    """What harvesting one day will cost.

    Attributes:
        roster_from: The day whose roster was taken: the day's own where it is known, else the nearest; None
            while no roster is known at all.
        troops: Number of troops.
        calls: Calls to come, by asset; estimates where the day has not been planned yet.
        done: Requests that are answered already and cost nothing, by asset.
        by_troop: Calls to come by troop's partition key, the largest first.
    """

    day: date
    roster_from: date | None
    troops: int
    calls: dict[str, int]
    done: dict[str, int]
    by_troop: dict[str, int]

    @property
    def total(self) -> int:
        """All calls to come."""
        return sum(self.calls.values())


def plan_day(store: ObjectStore, day: date, only: Sequence[str] = ()) -> DayPlan:
    """Estimate a day's calls from the last known shape of the hierarchy and from what has landed.

    Args:
        only: Ids, partition keys or names of troops; none means all.
    """
    roster_from, rows = _roster_near(store, day)
    chosen = [row for row in rows if not only or not {*row.values()}.isdisjoint(only)]
    keys = [row["troop_key"] for row in chosen]
    calls: dict[str, int] = dict.fromkeys(("troops", *CHAIN), 0)
    done: dict[str, int] = dict.fromkeys(("troops", *CHAIN), 0)
    finished = _requests(store, "troops", day, None)
    calls["troops"], done["troops"] = (0, finished) if finished else (1, 0)
    shapes = {asset: _shape(store, asset, day, keys) for asset in CHAIN}
    by_troop = dict.fromkeys(keys, 0)
    for asset, shape in shapes.items():
        for key, (requests, is_done) in shape.items():
            if is_done:
                done[asset] += requests
            else:
                calls[asset] += requests
                by_troop[key] += requests
    ranked = dict(sorted(by_troop.items(), key=lambda item: -item[1]))
    return DayPlan(day, roster_from, len(keys), calls, done, ranked)


def _roster_near(store: ObjectStore, day: date) -> tuple[date | None, list[dict[str, str]]]:
    names = [name for name in store.folders("processed/troops/") if name.startswith("day=")]
    known = sorted(date.fromisoformat(name.removeprefix("day=")) for name in names)
    if not known:
        return None, []
    nearest = min(known, key=lambda other: (abs((other - day).days), other > day))
    table = read_table(store, layout.table_key("troops", nearest), columns=["troop_id", "troop_key", "name"])
    rows: list[dict[str, str]] = table.to_pylist()
    return nearest, rows


def _shape(store: ObjectStore, asset: str, day: date, keys: Sequence[str]) -> dict[str, tuple[int, bool]]:
    """Requests of each troop, and whether they are answered already, from the day itself or the nearest known."""
    found: dict[str, tuple[int, bool]] = {}
    nearby = [day] + [
        day + timedelta(days=step * sign) for step in range(1, LOOK_BACK_DAYS + 1) for sign in (-1, 1)
    ]
    for other in nearby:
        unknown = [key for key in keys if key not in found]
        if not unknown:
            break
        there = set(store.folders(layout.harvest_prefix(asset, other)))
        for key in unknown:
            requests = _requests(store, asset, other, key) if f"troop={key}" in there else None
            if requests is not None:
                found[key] = (requests, other == day)
    typical = int(median(count for count, _ in found.values())) if found else 1
    return {key: found.get(key, (typical, False)) for key in keys}
