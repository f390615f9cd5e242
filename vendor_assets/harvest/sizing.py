"""Sizing: how many calls a troop's day will cost, and how work is cut into runs of some minutes of quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from statistics import median
from typing import Final

from vendor_assets.harvest.landing import list_harvests, load_finish
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore

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
