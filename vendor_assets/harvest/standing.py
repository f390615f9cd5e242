"""Standing: how far days are, from listings of the store alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table


@dataclass(frozen=True)
class Standing:
    """How far one day is.

    Attributes:
        roster: Whether the day's troops are known.
        complete: Troops with performance data and no dead letter.
        partial: Troops with performance data and dead letters.
        failed: Troops without performance data, with dead letters.
        unfinished: Troops whose harvest has begun, without performance data or dead letters so far.
        missing: Troops of which nothing has been asked.
        left_out: Troops that a filter leaves out and that have no data from before.
        dead_letters: Open ones.
        report_at: When the day's report was made.
    """

    day: date
    roster: bool
    complete: int = 0
    partial: int = 0
    failed: int = 0
    unfinished: int = 0
    missing: int = 0
    left_out: int = 0
    dead_letters: int = 0
    report_at: datetime | None = None


def standing_of(store: ObjectStore, day: date, filters: Filters) -> Standing:
    """How far a day is; costs a few listings, however many troops there are."""
    open_letters: dict[str | None, int] = {}
    letters = DeadLetters(store)
    for partition in letters.of_day(day):
        count = len(partition.letters)
        open_letters[partition.troop_key] = open_letters.get(partition.troop_key, 0) + count
    report = store.head(layout.report_key(day, "html"))
    try:
        columns = ["troop_id", "troop_key", "name"]
        roster = read_table(store, layout.table_key("troops", day), columns=columns).to_pylist()
    except ObjectNotFoundError:
        return Standing(day, roster=False, dead_letters=sum(open_letters.values()))
    there = _troops(store, layout.table_prefix("performance_data", day))
    begun = {troop for asset in CHAIN for troop in _troops(store, layout.harvest_prefix(asset, day))}
    counts = dict.fromkeys(("complete", "partial", "failed", "unfinished", "missing", "left_out"), 0)
    for row in roster:
        key = row["troop_key"]
        dead = open_letters.get(key, 0)
        if key in there:
            state = "partial" if dead else "complete"
        elif not filters.takes_troop(row):
            state = "left_out"
        elif dead:
            state = "failed"
        else:
            state = "unfinished" if key in begun else "missing"
        counts[state] += 1
    return Standing(
        day,
        roster=True,
        dead_letters=sum(open_letters.values()),
        report_at=report.modified if report else None,
        **counts,
    )


def _troops(store: ObjectStore, prefix: str) -> set[str]:
    names = store.folders(prefix)
    return {name.removeprefix("troop=") for name in names if name.startswith("troop=")}
