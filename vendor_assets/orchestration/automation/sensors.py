"""Sensors: what happens by itself when something was materialized.

Each reads materializations after a cursor, so that a burst of hundreds is seen whole, and waits until the run
that made them is over.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.budget import LeaseState
from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.automation.run_requests import (
    class_tags,
    day_is_decided,
    downstream_of,
    publish_run,
    roster_keys,
    roster_runs,
    split_by_day,
)
from vendor_assets.orchestration.dagster_private import fail_run, latest_storage_ids
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key
from vendor_assets.orchestration.resources import StoreResource, VendorApiResource
from vendor_assets.orchestration.runs.about import (
    ACTIVE,
    DAY_TAG,
    HARVEST_JOB,
    PUBLISH_JOB,
    ROSTER_JOB,
    TRIGGER_TAG,
    About,
    active_days,
)
from vendor_assets.presentable import presentable
from vendor_assets.work_class import SCHEDULED, WorkClass

BATCH: Final = 500
"""Materializations that one tick looks at."""
INTERVAL_SECONDS: Final = 5
FIRST_REDRIVE: Final = timedelta(minutes=10)
LAST_REDRIVE: Final = 3
"""Redrives of a transient dead letter that happen by themselves: after 10, 40 and 160 minutes."""
START_SECONDS: Final = 60
"""A run takes this long at most from its start to its lease."""
UNDECIDED: Final = "undecided"
PATIENCE_TICKS: Final = 24
"""Ticks for which a day with nothing under way stays looked at; a later materialization brings it back."""


def _new_records(
    instance: dg.DagsterInstance, asset: dg.AssetKey, after: int
) -> tuple[list[tuple[dg.EventLogRecord, dg.DagsterRun]], int]:
    """Materializations after a cursor whose runs are over, oldest first, and the cursor behind them."""
    result = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, after_storage_id=after or None), limit=BATCH, ascending=True
    )
    runs: dict[str, dg.DagsterRun | None] = {}
    found: list[tuple[dg.EventLogRecord, dg.DagsterRun]] = []
    for record in result.records:
        run_id = record.run_id
        if run_id not in runs:
            runs[run_id] = instance.get_run_by_id(run_id)
        run = runs[run_id]
        if run is not None and run.status in ACTIVE:
            break
        after = record.storage_id
        if run is not None:
            found.append((record, run))
    return found, after


def build_sensors(account: Account, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """All sensors of a deployment; they are on from the start.

    Args:
        jobs: The deployment's jobs.
    """
    names = Names(account.name)
    partitions = Partitions.of(account)
    harvest, roster = (
        next(job for job in jobs if job.name == names.thing(name)) for name in (HARVEST_JOB, ROSTER_JOB)
    )

    @dg.sensor(
        name=names.thing("roster_sensor"),
        job_name=names.thing(HARVEST_JOB),
        required_resource_keys=names.resources("store"),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When a day's troops are known: add partitions for new ones, harvest all of that day.",
    )
    def roster_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        records, cursor = _new_records(context.instance, names.key("troops"), int(context.cursor or 0))
        newest: dict[str, tuple[int, dg.DagsterRun]] = {}
        for record, run in records:
            if record.partition_key and not About(run, names).follows_itself:
                newest[record.partition_key] = (record.storage_id, run)
        if not newest:
            context.update_cursor(str(cursor))
            return dg.SkipReason("no new roster")
        troops: set[str] = set()
        requests: list[dg.RunRequest] = []
        for day, (storage_id, run) in newest.items():
            try:
                keys, runs = roster_runs(
                    store.open(),
                    account,
                    date.fromisoformat(day),
                    run_key=f"troops:{day}:{storage_id}",
                    work_class=About(run, names).work_class,
                    only=About(run, names).troops,
                )
            except ObjectNotFoundError as error:
                context.log.warning(f"the roster of {day} was materialized but is not in the store: {error}")
                continue
            except ValueError as error:
                context.log.warning(f"nothing follows the roster of {day}: {presentable(error)}")
                continue
            troops.update(keys)
            requests += runs
        new = sorted(troops - partitions.troops(context.instance))
        added = [partitions.troop.build_add_request(new)] if new else []
        return dg.SensorResult(run_requests=requests, dynamic_partitions_requests=added, cursor=str(cursor))

    @dg.sensor(
        name=names.thing("downstream_sensor"),
        job_name=names.thing(HARVEST_JOB),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When warriors or data groups were materialized by themselves: bring their downstream up to date.",
    )
    def downstream_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        cursors: dict[str, int] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        for asset in ("warriors", "data_groups"):
            records, cursors[asset] = _new_records(context.instance, names.key(asset), cursors.get(asset, 0))
            requests += _downstream_runs(context.instance, names, asset, records)
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursors))

    @dg.sensor(
        name=names.thing("publish_sensor"),
        job_name=names.thing(PUBLISH_JOB),
        required_resource_keys=names.resources("store"),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When all troops of a day are in or have failed for good: its statistics, then its report.",
    )
    def publish_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        cursor: dict[str, Any] = json.loads(context.cursor or "{}")
        # Day -> (work class, ticks without anything under way): a roster's runs may not be launched yet.
        pending: dict[str, tuple[WorkClass, int]] = {
            day: tuple(held) for day, held in cursor.get("pending", {}).items()
        }
        for asset in ("troops", "performance_data"):
            records, cursor[asset] = _new_records(context.instance, names.key(asset), cursor.get(asset, 0))
            for record, run in records:
                if record.partition_key and not About(run, names).follows_itself:
                    pending[record.partition_key.partition("|")[0]] = (About(run, names).work_class, 0)
        busy = active_days(context.instance, names) if pending else set()
        requests: list[dg.RunRequest] = []
        for day in sorted(set(pending) - busy):
            work_class, idle_ticks = pending.pop(day)
            request = _publication(context.instance, store, account, day, work_class)
            if isinstance(request, dg.RunRequest):
                requests.append(request)
            elif request == UNDECIDED and idle_ticks < PATIENCE_TICKS:
                pending[day] = (work_class, idle_ticks + 1)
        cursor["pending"] = pending
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor))

    @dg.sensor(
        name=names.thing("report_sensor"),
        job_name=names.thing(PUBLISH_JOB),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When a day's statistics were computed by themselves: its report.",
    )
    def report_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        records, cursor = _new_records(
            context.instance, names.key("daily_performance"), int(context.cursor or 0)
        )
        requests = []
        for record, run in records:
            day = record.partition_key
            if (
                day is None
                or "performance_report" in About(run, names).assets
                or About(run, names).follows_itself
            ):
                continue
            report = names.key("performance_report")
            newer = latest_storage_ids(context.instance, report, [day]).get(day, 0)
            if newer < record.storage_id:
                requests.append(
                    dg.RunRequest(
                        run_key=f"daily_performance:{day}:{record.storage_id}",
                        partition_key=day,
                        asset_selection=[report],
                        tags=class_tags(names, About(run, names).work_class)
                        | {TRIGGER_TAG: "sensor", DAY_TAG: day},
                    )
                )
        return dg.SensorResult(run_requests=requests, cursor=str(cursor))

    # Object key to etag of partitions of which nothing is redriven until they change: not read at each tick.
    quiet: dict[str, str] = {}

    @dg.sensor(
        name=names.thing("redrive_sensor"),
        required_resource_keys=names.resources("store"),
        jobs=[harvest, roster],
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Redrive transient dead letters after 10, 40 and 160 minutes; permanent ones wait for a person.",
    )
    def redrive_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        store: StoreResource = names.of(context, "store")
        found = DeadLetters(store.open()).changed(quiet)
        quiet.update(
            (info.key, info.etag) for info, partition in found if not any(map(_open, partition.letters))
        )
        dead = [partition for _, partition in found]
        return dg.SensorResult(run_requests=_redrives(names, dead, datetime.now(UTC)))

    @dg.sensor(
        name=names.thing("lapsed_runs_sensor"),
        required_resource_keys=names.resources("vendor_api"),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        job_name=names.thing(HARVEST_JOB),
        description="Fail started runs whose process is gone (its lease has lapsed); Dagster retries them.",
    )
    def lapsed_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        vendor_api: VendorApiResource = names.of(context, "vendor_api")
        leases = vendor_api.leases()
        lapsed = {
            record.dagster_run.run_id: record.dagster_run
            for record in context.instance.get_run_records(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
            )
            if About(record.dagster_run, names).ours
            and record.start_time is not None
            and datetime.now(UTC).timestamp() - record.start_time > START_SECONDS
            and _lapsed(leases.holder(record.dagster_run.run_id))
        }
        # Only what has lapsed at two ticks in a row: after an outage of the database every lease is stale for a moment.
        before = set(json.loads(context.cursor or "[]"))
        context.update_cursor(json.dumps(sorted(lapsed)))
        gone = [run for run_id, run in lapsed.items() if run_id in before]
        for run in gone:
            fail_run(context.instance, run, "the run's process is gone: its lease has lapsed")
        return dg.SkipReason(
            f"failed {len(gone)} runs whose process is gone" if gone else "every started run is alive"
        )

    return [
        roster_sensor,
        downstream_sensor,
        publish_sensor,
        report_sensor,
        redrive_sensor,
        lapsed_runs_sensor,
    ]


def _lapsed(lease: LeaseState | None) -> bool:
    return lease is None or lease.lapsed


def _redrives(names: Names, partitions: Iterable[DeadPartition], now: datetime) -> list[dg.RunRequest]:
    """Runs that ask again for transient dead letters whose time has come, those of a day in one."""
    by_day: dict[str, list[str]] = {}
    stamps: dict[str, str] = {}
    requests: list[dg.RunRequest] = []
    for partition in partitions:
        due = [letter for letter in partition.letters if _due(letter, now)]
        if not due:
            continue
        day, newest = partition.day.isoformat(), max(letter.last_at for letter in due).isoformat()
        tags = class_tags(names, SCHEDULED) | {TRIGGER_TAG: "sensor", DAY_TAG: day}
        if partition.troop_key is None:
            key = f"redrive:troops:{day}:{newest}"
            requests.append(
                dg.RunRequest(job_name=names.thing(ROSTER_JOB), run_key=key, partition_key=day, tags=tags)
            )
            continue
        by_day.setdefault(day, []).append(day_troop_key(partition.day, partition.troop_key))
        stamps[day] = max(stamps.get(day, ""), newest)
    for day, keys in by_day.items():
        requests.append(
            dg.RunRequest(
                job_name=names.thing(HARVEST_JOB),
                run_key=f"redrive:{day}:{stamps[day]}",
                run_config=harvest_config(names, sorted(set(keys)), list(CHAIN)),
                tags=class_tags(names, SCHEDULED) | {TRIGGER_TAG: "sensor", DAY_TAG: day},
            )
        )
    return requests


def _open(letter: DeadLetter) -> bool:
    """Whether a dead letter is redriven by itself, now or later."""
    return letter.retryable and letter.redrives < LAST_REDRIVE


def _due(letter: DeadLetter, now: datetime) -> bool:
    if not _open(letter):
        return False
    growth: int = 4**letter.redrives
    return now - letter.last_at >= FIRST_REDRIVE * growth


def _downstream_runs(
    instance: dg.DagsterInstance,
    names: Names,
    asset: str,
    records: Sequence[tuple[dg.EventLogRecord, dg.DagsterRun]],
) -> list[dg.RunRequest]:
    newest: dict[tuple[str, tuple[str, ...]], dict[str, int]] = {}
    classes: dict[str, WorkClass] = {}
    for record, run in records:
        below = tuple(name for name in downstream_of(asset) if name not in About(run, names).assets)
        # A run that was meant to do what follows has done it, or has failed at it and shows so.
        if record.partition_key and below == downstream_of(asset) and not About(run, names).follows_itself:
            newest.setdefault((run.run_id, below), {})[record.partition_key] = record.storage_id
            classes[run.run_id] = About(run, names).work_class
    requests: list[dg.RunRequest] = []
    for (run_id, below), storage_ids in newest.items():
        latest = latest_storage_ids(instance, names.key(below[0]), storage_ids)
        stale = [key for key, storage_id in storage_ids.items() if latest.get(key, 0) < storage_id]
        for day, keys in split_by_day(stale).items():
            newest_id = max(storage_ids[key] for key in keys)
            named = keys[0] if len(keys) == 1 else f"{day} ({len(keys)})"
            requests.append(
                dg.RunRequest(
                    job_name=names.thing(HARVEST_JOB),
                    run_key=f"{asset}:{named}:{newest_id}",
                    run_config=harvest_config(names, keys, list(below)),
                    tags=class_tags(names, classes[run_id]) | {TRIGGER_TAG: "sensor", DAY_TAG: day},
                )
            )
    return requests


def _publication(
    instance: dg.DagsterInstance, store: StoreResource, account: Account, day: str, work_class: WorkClass
) -> dg.RunRequest | str | None:
    """The run that publishes a day; ``UNDECIDED`` while some troop is neither in nor failed, None if nothing is new."""
    names = Names(account.name)
    try:
        keys = roster_keys(store.open(), date.fromisoformat(day), account.filters)
    except ObjectNotFoundError:
        return None
    if not day_is_decided(instance, account, day, keys):
        return UNDECIDED
    troops = latest_storage_ids(instance, names.key("troops"), [day]).get(day, 0)
    harvested = latest_storage_ids(
        instance, names.key("performance_data"), [day_troop_key(date.fromisoformat(day), key) for key in keys]
    )
    newest = max([troops, *harvested.values()])
    published = latest_storage_ids(instance, names.key("daily_performance"), [day]).get(day, 0)
    if published > newest:
        return None
    return publish_run(names, day, run_key=f"publish:{day}:{newest}", work_class=work_class)
