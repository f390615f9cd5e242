"""The status of days: how far each is, from what is in the store alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from vendor_assets.errors import ObjectNotFoundError, RecordError, StorageError, StorageUnavailableError
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.failures import Failure, failures_of
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.logs import get_logger
from vendor_assets.states import COUNTED, state_of_table
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_metadata
from vendor_assets.storage.roster import Roster, Troop

logger = get_logger(__name__)

_READERS: Final = 16


@dataclass(frozen=True)
class DayStatus:
    """How far one day is.

    Attributes:
        roster: Whether the day's troops are known.
        complete: Troops with all their performance data.
        partial: Troops with performance data of which something is missing.
        failed: Troops whose newest harvest failed, whatever is there from before; and those with nothing but dead
            letters.
        unfinished: Troops whose harvest has begun, without performance data so far, or was stopped.
        left_out: Troops that a filter leaves out and that have no data from before.
        report_at: When the day's report was made.
        problems: How the newest harvests ended that did not succeed, the roster's too, a line each.
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
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class TroopStatus:
    """How one troop's day stands; whoever tells it, the command, the UI or a report, asks :func:`standing_of_troops`.

    Attributes:
        state: ``complete``, ``empty``, ``partial``, ``failed``, ``unfinished``, ``missing`` or ``left_out``.
        published: Whether there is a table of performance data.
    """

    state: str
    published: bool


def status_of_troops(
    store: ObjectStore,
    day: date,
    filters: Filters,
    failures: Mapping[str | None, Sequence[Failure]] | None = None,
    dead: Collection[str | None] | None = None,
) -> dict[str, TroopStatus]:
    """How each troop of a day's roster stands, by partition key.

    Args:
        failures: :func:`failures_by_troop`, where the caller knows them.
        dead: Troops with open dead letters, where the caller knows them.

    Raises:
        ObjectNotFoundError: The day has no roster.
    """
    roster = Roster.read(store, day).troops
    failed = failures_by_troop(store, day) if failures is None else failures
    if dead is None:
        dead = {each.troop_key for each in DeadLetters(store).of_day(day) if each.letters}
    there = _troops(store, layout.table_prefix("performance_data", day))
    begun = {troop for asset in CHAIN for troop in _troops(store, layout.harvest_prefix(asset, day))}

    def stands(troop: Troop) -> TroopStatus:
        key = troop.key
        ends = {failure.state for failure in failed.get(key, ())}
        table = _table_state(store, day, key) if key in there else None
        taken = filters.takes_troop(troop)
        if table == "empty" and not taken:
            state = "left_out"
        elif "failed" in ends:
            state = "failed"
        elif table is not None:
            state = "partial" if ends or key in dead else table
        elif not taken:
            state = "left_out"
        elif "partial" in ends or key in dead:
            state = "failed"
        else:
            state = "unfinished" if key in begun else "missing"
        return TroopStatus(state, published=table is not None)

    found = map_concurrently(stands, roster, at_once=_READERS)
    return {troop.key: each for troop, each in zip(roster, found, strict=True)}


def failures_by_troop(store: ObjectStore, day: date) -> dict[str | None, list[Failure]]:
    """How the newest harvests of a day ended that did not succeed, by troop; None is the roster."""
    found: dict[str | None, list[Failure]] = {}
    for asset in ("troops", *CHAIN):
        for failure in failures_of(store, asset, day):
            found.setdefault(failure.troop_key, []).append(failure)
    return found


def _table_state(store: ObjectStore, day: date, troop_key: str) -> str | None:
    try:
        metadata, rows = read_metadata(store, layout.table_key("performance_data", day, troop_key))
    except ObjectNotFoundError:
        return None
    except StorageUnavailableError:
        raise
    except StorageError as error:
        logger.warning("%s", error)
        return "failed"  # a damaged table is nobody's success
    return state_of_table(metadata, rows)


def status_of_day(store: ObjectStore, day: date, filters: Filters) -> DayStatus:
    """How far a day is; costs a few listings, and the end of each troop's table."""
    partitions = [each for each in DeadLetters(store).of_day(day) if each.letters]
    dead_letters = sum(len(each.letters) for each in partitions)
    report = store.head(layout.report_key(day, "html"))
    problems: list[str] = []
    try:
        failures = failures_by_troop(store, day)
        problems += (
            f"{failure.asset} {failure.troop_key or ''}".rstrip() + f" {failure.state}: {failure.message}"
            for ends in failures.values()
            for failure in ends
        )
        dead = {each.troop_key for each in partitions}
        troops = status_of_troops(store, day, filters, failures, dead)
    except StorageUnavailableError:
        raise
    except (StorageError, RecordError) as error:
        if not isinstance(error, ObjectNotFoundError):
            problems.append(str(error))
        return DayStatus(day, roster=False, dead_letters=dead_letters, problems=tuple(problems))
    counts = dict.fromkeys(COUNTED, 0)
    for troop in troops.values():
        counts["complete" if troop.state == "empty" else troop.state] += 1
    return DayStatus(
        day,
        roster=True,
        dead_letters=dead_letters,
        report_at=report.modified if report else None,
        problems=tuple(problems),
        **counts,
    )


def _troops(store: ObjectStore, prefix: str) -> set[str]:
    names = store.folders(prefix)
    return {key for key in map(layout.troop_of_folder, names) if key is not None}
