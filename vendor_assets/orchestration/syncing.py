"""Syncing: report to a new Dagster instance what the store holds."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final
from uuid import uuid4

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.errors import RecordError
from vendor_assets.harvest.outcome import CHAIN, Outcome, recorded
from vendor_assets.orchestration.assets.dead_letters import failed_requests
from vendor_assets.orchestration.assets.publishing import (
    metadata_of_day,
    metadata_of_report,
    troop_states,
    troops_present,
)
from vendor_assets.orchestration.dagster_private import materialized_partitions, report_at_once
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions
from vendor_assets.orchestration.runs.events import Event, events_of, partition_of
from vendor_assets.presentable import counted
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.vendors.base import Asset

_READERS: Final = 16
"""Partitions that are read at once; a remote store takes a moment per object."""
_AT_ONCE: Final = 256
"""Partitions whose events are stored at once; on SQLite nobody else writes meanwhile."""
SAY_SECONDS: Final = 10.0
"""Time between lines of progress."""


@dataclass
class Synced:
    """What was reported: troops added, and partitions by kind."""

    troops: int = 0
    materialized: int = 0
    not_complete: int = 0
    known_already: int = 0


def sync(
    store: ObjectStore, instance: dg.DagsterInstance, say: Callable[[str], None], account: Account
) -> Synced:
    """Report every partition in the store that the instance does not know.

    Complete partitions are reported as materialized, with the numbers of their harvest; partial and failed ones as
    missing, with a failing check and an observation. Known materializations are not reported again.
    """
    names = Names.for_account(account)
    of_troops = Partitions.of(account)
    done = Synced()
    # One for all that is reported: on SQLite each run id has a database file of its own.
    run_id = str(uuid4())
    assets: tuple[Asset, ...] = ("troops", *CHAIN)
    for asset in assets:
        before = done.materialized
        known = materialized_partitions(instance, names.key(asset))
        partitions = _partitions(store, asset)
        troops = {troop_key for _, troop_key in partitions if troop_key is not None}
        done.troops += len(of_troops.add_troops(instance, troops))
        said = time.monotonic()
        for first in range(0, len(partitions), _AT_ONCE):
            some = partitions[first : first + _AT_ONCE]
            events: list[Event] = []
            for outcome in map_concurrently(partial(_outcome, store, asset), some, at_once=_READERS):
                if outcome is not None:
                    events += _events(store, names, outcome, known, done)
            report_at_once(instance, events, run_id=run_id)
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                say(f"{asset}: {first + len(some):,} of {len(partitions):,} partitions so far")
        say(f"{asset}: {counted(done.materialized - before, 'partition')}")
    for asset_name, prefix in (
        ("daily_performance", "processed/daily_performance/"),
        ("performance_report", "reports/"),
    ):
        before = done.materialized
        known = materialized_partitions(instance, names.key(asset_name))
        for day in _days(store, prefix):
            is_day = asset_name == "daily_performance"
            events = _day_events(store, day, account) if is_day else _report_events(store, names, day)
            if events and day.isoformat() in known:
                done.known_already += 1
                continue
            report_at_once(instance, events, run_id=run_id)
            done.materialized += bool(events)
        say(f"{asset_name}: {counted(done.materialized - before, 'partition')}")
    return done


def _outcome(store: ObjectStore, asset: Asset, partition: tuple[date, str | None]) -> Outcome | None:
    """A partition's recorded outcome; failed if its record is damaged."""
    day, troop_key = partition
    try:
        return recorded(store, asset, day, troop_key)
    except RecordError as error:
        key = layout.table_key(asset, day, troop_key)
        return Outcome(asset, day, troop_key, "failed", mode="report", message=str(error), table_key=key)


def _day_events(store: ObjectStore, day: date, account: Account) -> list[Event]:
    """The events of a published day; none if a troop has come since, so that it is computed again."""
    key = layout.table_key("daily_performance", day)
    if store.head(key) is None or store.head(layout.table_key("troops", day)) is None:
        return []
    lacked = read_table(store, key, columns=["troops_missing"]).column(0).to_pylist()
    names = Names.for_account(account)
    states = troop_states(store, day, account.filters)
    if lacked and lacked[0] > list(states.values()).count("missing"):
        return []
    check = troops_present(states)
    return [
        dg.AssetMaterialization(
            names.key("daily_performance"),
            partition=day.isoformat(),
            metadata=metadata_of_day(store, names, day, states, len(lacked), account.filters),
        ),
        dg.AssetCheckEvaluation(
            asset_key=names.key("daily_performance"),
            check_name=str(check.check_name),
            passed=check.passed,
            partition=day.isoformat(),
            description=check.description,
            metadata=check.metadata,
        ),
    ]


def _report_events(store: ObjectStore, names: Names, day: date) -> list[Event]:
    # Imported here because the notebook's tools are slow to import.
    from vendor_assets.analytics.report import read_report

    if store.head(layout.report_key(day, "html")) is None:
        return []
    metadata = metadata_of_report(store, day, read_report(store, day))
    return [
        dg.AssetMaterialization(names.key("performance_report"), partition=day.isoformat(), metadata=metadata)
    ]


def _events(
    store: ObjectStore, names: Names, outcome: Outcome, known: set[str], done: Synced
) -> Iterator[Event]:
    """The events of an outcome, which is counted; none if the instance knows its materialization."""
    if outcome.succeeded and partition_of(outcome) in known:
        done.known_already += 1
        return
    told = failed_requests(store, outcome)
    yield from events_of(outcome, names, uri=store.uri(outcome.table_key), account=None, extra=told)
    if outcome.succeeded:
        done.materialized += 1
    else:
        done.not_complete += 1


def _partitions(store: ObjectStore, asset: str) -> list[tuple[date, str | None]]:
    found: list[tuple[date, str | None]] = []
    for day in _days(store, f"raw_data/{asset}/"):
        if asset == "troops":
            found.append((day, None))
            continue
        prefix = layout.harvest_prefix(asset, day)
        keys = map(layout.troop_of_folder, store.folders(prefix))
        found += [(day, key) for key in keys if key is not None]
    return found


def _days(store: ObjectStore, prefix: str) -> list[date]:
    return [day for day in map(layout.day_of_folder, store.folders(prefix)) if day is not None]
