"""``dead-letters``: list, redrive or discard requests that failed for good."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from vendor_assets.cli.harvest import print_summary
from vendor_assets.cli.progress import ProgressLine, stoppable
from vendor_assets.cli.project import COMPLETE, Project, embedded_vendor, open_project
from vendor_assets.days import last_complete_day, parse_days
from vendor_assets.errors import LONGEST_MESSAGE, ConfigurationError, ObjectNotFoundError
from vendor_assets.presentable import counted, presentable

if TYPE_CHECKING:
    from vendor_assets.harvest.dead_letters import DeadLetter, DeadPartition
    from vendor_assets.storage.roster import Roster

Chosen = list[tuple["DeadPartition", list["DeadLetter"]]]


def add(commands: Any) -> None:
    """Add the command."""
    letters = commands.add_parser("dead-letters", help="list, show, redrive or discard what failed for good")
    letters.add_argument("action", choices=("list", "show", "redrive", "discard"))
    letters.add_argument("--day", help="only of this day, or of a range like -7d..yesterday")
    letters.add_argument("--troop", help="only of this troop: its id, its name or its partition key")
    letters.add_argument(
        "--asset",
        choices=("troops", "warriors", "data_groups", "performance_data"),
        metavar="ASSET",
        help="only of this asset",
    )
    letters.add_argument("--reason", help="only those whose reason contains this text")
    letters.add_argument("--status", type=int, help="only those with this HTTP status")
    letters.add_argument("--why", help="the reason for discarding them, which is kept")
    letters.add_argument(
        "--discarded",
        action="store_true",
        help="list or show those that were discarded, with who did it and why",
    )
    letters.add_argument("--json", action="store_true", help="print as JSON")
    letters.set_defaults(run=_dead_letters)


def _dead_letters(options: argparse.Namespace) -> int:
    from vendor_assets.harvest.dead_letters import DeadLetters

    if options.action == "discard" and not options.why:
        raise ConfigurationError("discard needs --why; the reason is kept")
    if options.discarded and options.action in ("redrive", "discard"):
        raise ConfigurationError(f"--discarded is for list and show, not for {options.action}")
    project = open_project(options.account)
    newest = last_complete_day(datetime.now(UTC), project.account.zone)
    first, last = parse_days(options.day, newest) if options.day else (date.min, date.max)
    store = project.store()
    dead_letters = DeadLetters(store)
    partitions = [
        partition
        for partition in dead_letters.all()
        if first <= partition.day <= last
        and (not options.asset or partition.asset == options.asset)
        and (not options.troop or options.troop in _names(store, partition))
    ]
    if options.discarded:
        _print_discarded(partitions, options)
        return COMPLETE
    chosen = [
        (partition, letters)
        for partition in partitions
        if (letters := [each for each in partition.letters if _matches(each.reason, each.status, options)])
    ]
    if options.action == "show" or (options.action == "list" and options.json):
        _print_records(chosen)
        return COMPLETE
    if options.action == "list":
        _print_list(store, chosen)
        return COMPLETE
    if options.action == "discard":
        who = os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
        now = datetime.now(UTC)
        count = sum(
            dead_letters.discard(
                partition, {letter.request for letter in letters}, who=who, why=options.why, at=now
            )
            for partition, letters in chosen
        )
        said = (
            f"discarded {counted(count, 'dead letter')}; their partitions are reported again, without calls"
        )
        print(said, file=sys.stderr if options.json else sys.stdout)
    return _redrive(project, [partition for partition, _ in chosen], options)


def _matches(reason: str, status: int | None, options: argparse.Namespace) -> bool:
    return (not options.reason or options.reason in reason) and options.status in (None, status)


def _names(store: Any, partition: DeadPartition) -> set[str | None]:
    """The partition key, id and name of a partition's troop."""
    if partition.troop_key is None:
        return set()
    troop = _roster(store, partition.day).find(partition.troop_key)
    return {partition.troop_key} | (troop.names if troop else set())


@cache
def _roster(store: Any, day: date) -> Roster:
    from vendor_assets.storage.roster import Roster

    try:
        return Roster.read(store, day)
    except ObjectNotFoundError:
        return Roster(day)


def _where(partition: DeadPartition) -> dict[str, Any]:
    return {"asset": partition.asset, "day": partition.day.isoformat(), "troop": partition.troop_key}


def _print_records(chosen: Chosen) -> None:
    records = [
        _where(partition)
        | asdict(letter)
        | {"first_at": letter.first_at.isoformat(), "last_at": letter.last_at.isoformat()}
        for partition, letters in chosen
        for letter in letters
    ]
    print(json.dumps(records, indent=1))


def _print_list(store: Any, chosen: Chosen) -> None:
    """Print a line for all letters of a partition that failed for one reason."""
    alike = Counter(
        (partition.day, partition.troop_key, partition.asset, letter.retryable, letter.why)
        for partition, letters in chosen
        for letter in letters
    )
    for (day, key, asset, transient, why), count in alike.items():
        troop = _roster(store, day).find(key) if key else None
        name = presentable(troop.title if troop else key or "-")
        status = f", status {why.status}" if why.status is not None else ""
        print(
            f"{day} {name} {asset}: {count} {'transient' if transient else 'permanent'}{status}: "
            f"{presentable(why.what, LONGEST_MESSAGE)}"
        )
    print(f"{counted(alike.total(), 'dead letter')} in {counted(len(chosen), 'partition')}")
    if alike:
        print("each with its request and its answer: vendor-assets dead-letters show")


def _print_discarded(partitions: Sequence[DeadPartition], options: argparse.Namespace) -> None:
    records = [
        _where(partition) | record
        for partition in partitions
        for record in partition.discarded
        if _matches(record["letter"]["reason"], record["letter"]["status"], options)
    ]
    if options.json or options.action == "show":
        print(json.dumps(records, indent=1))
        return
    for record in records:
        print(
            f"{record['day']} {record['troop'] or '-'} {record['asset']}: discarded by {presentable(record['who'])} at "
            f"{record['at'][:16]}: {presentable(record['why'])} "
            f"({presentable(record['letter']['reason'], LONGEST_MESSAGE)})"
        )
    print(f"{counted(len(records), 'discarded dead letter')}")


def _redrive(project: Project, partitions: Sequence[DeadPartition], options: argparse.Namespace) -> int:
    from vendor_assets.orchestration.runs.launching import Launcher, open_instance

    out = sys.stderr if options.json else sys.stdout
    if not partitions:
        print("no dead letters match", file=out)
        return COMPLETE
    with (
        embedded_vendor(project.account) as reachable,
        stoppable() as stopped,
        open_instance(project.root, project.environ) as instance,
        ProgressLine(out) as progress,
    ):
        launcher = Launcher(reachable, instance, progress.say, stopped)
        launcher.fail_lapsed_runs()
        launcher.redrive(
            [(item.asset, item.day, item.troop_key) for item in partitions],
            rebuild=options.action == "discard",
        )
    return print_summary(launcher.summary, as_json=options.json)


COMMAND: Final = _dead_letters
