"""Dead letters as an asset with one partition a day, observed when they change."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from typing import Any, Final

import dagster as dg

from vendor_assets.errors import LONGEST_MESSAGE, ObjectNotFoundError, Reason, VendorAssetsError
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.metadata import FAILED_REQUESTS
from vendor_assets.orchestration.names import Names
from vendor_assets.presentable import counted, presentable
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.roster import Roster

logger = get_logger(__name__)

DEAD_LETTERS: Final = "dead_letters"
NONE_OPEN: Final = "none_open"
MOST_ROWS: Final = 200
"""Rows of the table in the UI; the command lists all."""
MOST_REASONS: Final = 20
"""Rows of the table of a partition that failed, which is kept with each attempt."""

DEAD_LETTERS_TEXT: Final = """One partition a day: the requests of that day that have failed for good, each with its
reason, until they are redriven or discarded.

`dead_letters_sensor` observes them when they change. The check `none_open` fails while one is open. Transient ones are
redriven automatically after 10, 40 and 160 minutes (`redrive_sensor`). Permanent ones wait for you: fix the cause, then
materialize the partition of the asset that is named, or

    vendor-assets dead-letters redrive --day 2026-11-20
    vendor-assets dead-letters discard --day 2026-11-20 --status 404 --why "retired service"

The tables are under *Events*, the days with open ones under *Checks*. Nothing to materialize; observing costs no
calls."""

_COLUMNS: Final = {
    "day": "string",
    "troop": "string",
    "asset": "string",
    "status": "string",
    "reason": "string",
    "transient": "bool",
    "attempts": "int",
    "first": "string",
    "last": "string",
    "leaves": "int",
    "request": "string",
}


def versions(store: ObjectStore) -> dict[str, str]:
    """A digest of each day's dead letters, from one listing of the store."""
    found: dict[str, Any] = {}
    for info in store.list(layout.dead_letters_prefix()):
        day = next((part for part in info.key.split("/") if part.startswith("day=")), "")
        digest = found.setdefault(day.removeprefix("day="), hashlib.sha256())
        digest.update(f"{info.key} {info.etag}\n".encode())
    return {day: digest.hexdigest()[:12] for day, digest in found.items() if day}


def events_of_day(
    store: ObjectStore, names: Names, day: date
) -> tuple[dg.AssetObservation, dg.AssetCheckEvaluation]:
    """The observation of a day's dead letters, and the evaluation of the check ``none_open``."""
    partitions = DeadLetters(store).of_day(day)
    letters = [letter for partition in partitions for letter in partition.letters]
    transient = sum(1 for letter in letters if letter.retryable)
    discarded = sum(len(partition.discarded) for partition in partitions)
    numbers: dict[str, Any] = {
        "dead_letters": len(letters),
        "transient": transient,
        "permanent": len(letters) - transient,
        "discarded": discarded,
        "leaves": sum(len(letter.leaves) for letter in letters),
        "partitions": sum(1 for partition in partitions if partition.letters),
        "attempts": sum(letter.attempts for letter in letters),
    }
    if letters:
        numbers["oldest"] = dg.MetadataValue.timestamp(min(letter.first_at for letter in letters))
    text = _text(len(letters), transient, discarded)
    observation = dg.AssetObservation(
        names.key(DEAD_LETTERS),
        partition=day.isoformat(),
        description=text,
        metadata=numbers | ({"table": _table(partitions, names_of(store, day))} if letters else {}),
    )
    none_open = dg.AssetCheckEvaluation(
        asset_key=names.key(DEAD_LETTERS),
        check_name=NONE_OPEN,
        passed=not letters,
        partition=day.isoformat(),
        # Transient ones are redriven automatically.
        severity=dg.AssetCheckSeverity.WARN if transient == len(letters) else dg.AssetCheckSeverity.ERROR,
        description=text,
        metadata={name: numbers[name] for name in ("dead_letters", "transient", "discarded")},
    )
    return observation, none_open


def failed_requests(store: ObjectStore, outcome: Outcome) -> dict[str, dg.TableMetadataValue]:
    """Metadata of a partition that did not become complete: its dead letters by reason; empty if it has none.

    Narrow enough for the pane that Dagster shows beside a partition.
    """
    if outcome.succeeded or not outcome.dead:
        return {}
    try:
        letters = DeadLetters(store).load(outcome.asset, outcome.day, outcome.troop_key).letters
    except VendorAssetsError as error:
        # What failed is told without it.
        logger.warning("no table of the dead letters: %s", error)
        return {}
    alike: dict[tuple[Reason, bool], list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        alike[letter.why, letter.retryable].append(letter)
    rows: list[dict[str, str | int]] = [
        {
            "requests": len(same),
            "status": str(why.status or "none"),
            "reason": presentable(why.what),
            "transient": transient,
            "attempts": sum(letter.attempts for letter in same),
            "last": f"{max(letter.last_at for letter in same):%Y-%m-%d %H:%M:%S}",
        }
        for (why, transient), same in list(alike.items())[:MOST_REASONS]
    ]
    return (
        {FAILED_REQUESTS: dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])} if rows else {}
    )


def _text(count: int, transient: int, discarded: int) -> str:
    given_up = f"; {discarded} were discarded" if discarded else ""
    if not count:
        return f"no dead letter is open{given_up}"
    waits = count - transient
    parts = [f"{transient} transient, redriven automatically"] if transient else []
    parts += [f"{waits} permanent, waiting for you"] if waits else []
    return f"{counted(count, 'dead letter')}: {', '.join(parts)}{given_up}"


def names_of(store: ObjectStore, day: date) -> dict[str, str]:
    """Display name of each troop, by its partition key."""
    try:
        return {troop.key: troop.name or "" for troop in Roster.read(store, day).troops}
    except ObjectNotFoundError:
        return {}


def _table(partitions: Iterable[DeadPartition], names: dict[str, str]) -> dg.TableMetadataValue:
    rows: list[dict[str, str | int | bool]] = [
        {
            "day": partition.day.isoformat(),
            "troop": _troop(partition.troop_key, names),
            "asset": partition.asset,
            "status": str(letter.status or "none"),
            "reason": presentable(letter.why.what),
            "transient": letter.retryable,
            "attempts": letter.attempts,
            "first": f"{letter.first_at:%Y-%m-%d %H:%M:%S}",
            "last": f"{letter.last_at:%Y-%m-%d %H:%M:%S}",
            "leaves": len(letter.leaves),
            "request": presentable(letter.request, LONGEST_MESSAGE),
        }
        for partition in partitions
        for letter in partition.letters
    ]
    rows.sort(key=lambda row: (bool(row["transient"]), str(row["asset"]), str(row["troop"])))
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in _COLUMNS.items()])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows[:MOST_ROWS]], schema)


def _troop(troop_key: str | None, names: dict[str, str]) -> str:
    if troop_key is None:
        return "all"
    name = presentable(names.get(troop_key, ""))
    return f"{name} ({troop_key})" if name else troop_key
