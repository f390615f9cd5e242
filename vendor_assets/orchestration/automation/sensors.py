"""Sensors that request runs: what follows a materialization, redrives, and the end of runs whose process is gone.

They read materializations after a cursor, so that a burst of hundreds is seen whole, and wait until the run that made
them is over. A tick ends in time whatever waits: the cursor says how far it came, and the next one goes on.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Any, Final, NamedTuple

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.automation import rescue
from vendor_assets.orchestration.automation.rosters import Estimates, Waiting
from vendor_assets.orchestration.automation.run_requests import (
    day_is_decided,
    downstream_of,
    harvest_run,
    publish_run,
    request_tags,
    roster_keys,
    roster_runs,
    split_by_day,
)
from vendor_assets.orchestration.automation.turn import Turn, stay_while
from vendor_assets.orchestration.dagster_private import count_runs, latest_storage_ids, partitions_of_backfill
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key
from vendor_assets.orchestration.resources import StoreResource, VendorApiResource
from vendor_assets.orchestration.runs.about import (
    ACTIVE,
    HARVEST_JOB,
    PUBLISH_JOB,
    ROSTER_JOB,
    About,
    active_days,
    runs_of,
)
from vendor_assets.presentable import counted, presentable
from vendor_assets.work_class import BACKFILL, SCHEDULED, WorkClass

BATCH: Final = 500
"""Materializations that one tick looks at."""
INTERVAL_SECONDS: Final = 1
"""Shorter than the five seconds after which Dagster looks at all sensors again: as long as these, it would find every
second time that a few milliseconds are missing, and tick after ten."""
MOST_QUEUED: Final = 500
"""Queued harvest runs beyond which further days of a backfill wait: Dagster reads its whole queue all the time."""
MOST_READING: Final = 10
"""Rosters that are read at once, of which a tick looks whether they are there."""
QUICK_ROSTER: Final = timedelta(seconds=30)
"""A tick stays for a roster whose run is younger."""
FIRST_REDRIVE: Final = timedelta(minutes=10)
LAST_REDRIVE: Final = 3
"""Automatic redrives of a transient dead letter: after 10, 40 and 160 minutes."""
UNDECIDED: Final = "undecided"
PATIENCE_TICKS: Final = 24
"""Ticks for which an undecided day without active runs stays pending; a later materialization brings it back."""


class _NewPartition(NamedTuple):
    """A materialized partition, with the storage id of its event and the run that made it."""

    partition: str
    storage_id: int
    about: About


def _new_partitions(
    instance: dg.DagsterInstance,
    names: Names,
    asset: str,
    after: int,
    *,
    ready: Callable[[About], bool] = lambda about: about.run.status not in ACTIVE,
) -> tuple[list[_NewPartition], int]:
    """Materializations after a cursor, oldest first, up to the first whose run is not ready, and the new cursor.

    Those of runs whose launcher brings the downstream partitions up to date are left out.

    Args:
        ready: Whether a run has come so far that its materializations may be followed; as a rule it is over.
    """
    result = instance.fetch_materializations(
        dg.AssetRecordsFilter(names.key(asset), after_storage_id=after or None), limit=BATCH, ascending=True
    )
    get_run = cache(instance.get_run_by_id)
    found: list[_NewPartition] = []
    for record in result.records:
        run = get_run(record.run_id)
        about = About(run, names) if run is not None else None
        if about is not None and not ready(about):
            break
        after = record.storage_id
        if about is not None and record.partition_key and not about.driven_by_launcher:
            found.append(_NewPartition(record.partition_key, after, about))
    return found, after


def _is_over_or_goes_on(about: About) -> bool:
    """Whether a roster's run is over, or goes on with troops that it has taken."""
    return about.run.status not in ACTIVE or about.taken is not None


def _is_reading(instance: dg.DagsterInstance, names: Names, now: datetime) -> bool:
    """Whether a roster is being read that will soon be there; for one that waits for a quota no sensor waits."""
    reading = dg.RunsFilter(
        job_name=names.thing(ROSTER_JOB),
        statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED],
        created_after=now - QUICK_ROSTER,
    )
    return any(About(run, names).taken is None for run in runs_of(instance, reading, limit=MOST_READING))


def build_sensors(account: Account, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """The sensors that request runs; they are on from the start."""
    names = Names.for_account(account)
    partitions = Partitions.of(account)
    harvest, roster = (
        next(job for job in jobs if job.name == names.thing(name)) for name in (HARVEST_JOB, ROSTER_JOB)
    )
    sensor = partial(
        dg.sensor,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    estimates = Estimates(account)

    @sensor(
        name=names.thing("roster_sensor"),
        job_name=names.thing(HARVEST_JOB),
        required_resource_keys=names.resources("store"),
        description="When a day's troops are known: add partitions for new troops, harvest all of the day's.",
    )
    def roster_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        waiting = Waiting.load(context.cursor)
        if not waiting.days:
            stay_while(partial(_is_reading, context.instance, names, datetime.now(UTC)))
        turn = Turn()
        made, waiting.after = _new_partitions(
            context.instance, names, "troops", waiting.after, ready=_is_over_or_goes_on
        )
        for each in made:
            waiting.days[each.partition] = (each.storage_id, each.about.work_class, each.about.run.run_id)
        if not waiting.days:
            estimates.forget()
            context.update_cursor(waiting.dump())
            return dg.SkipReason("no new roster")
        opened = store.open()
        costs = estimates.resume(opened, turn)
        troops: set[str] = set()
        requests: list[dg.RunRequest] = []
        queued = _queued_runs(context.instance, names)
        backfilled = cache(partial(_left_to_backfill, context.instance, names))
        for day, storage_id, work_class, run_id in turn.pieces(waiting.in_order()):
            if work_class == BACKFILL and queued + len(requests) >= MOST_QUEUED:
                break
            run = context.instance.get_run_by_id(run_id)
            if run is None:
                # Its run was deleted, and with it which troops it was for.
                del waiting.days[day]
                continue
            about = About(run, names)
            taken = {*(about.taken or ()), *_harvested_after(context.instance, account, day, storage_id)}
            if about.backfill:
                taken |= backfilled(about.backfill).get(day, set())
            # Of one that goes on and is retried the others were requested with its first attempt.
            once = storage_id if about.taken is None else run.root_run_id or run_id
            try:
                keys, runs = roster_runs(
                    opened,
                    account,
                    date.fromisoformat(day),
                    run_key=f"troops:{day}:{once}",
                    work_class=work_class,
                    only=about.troops,
                    taken=taken,
                    costs=costs,
                )
            except ObjectNotFoundError as error:
                context.log.warning(f"the roster of {day} was materialized but is not in the store: {error}")
            except ValueError as error:
                context.log.warning(f"nothing follows the roster of {day}: {presentable(error)}")
            else:
                if costs.cut_short:
                    # The next tick has the time for the others.
                    break
                troops.update(keys)
                requests += runs
            del waiting.days[day]
        # Not by a request: Dagster asks for each partition of one whether it is there, seconds for hundreds.
        partitions.add_troops(context.instance, troops)
        return dg.SensorResult(run_requests=requests, cursor=waiting.dump())

    @sensor(
        name=names.thing("downstream_sensor"),
        job_name=names.thing(HARVEST_JOB),
        description="When warriors or data groups were materialized alone: bring their downstream up to date.",
    )
    def downstream_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        cursors: dict[str, int] = json.loads(context.cursor or "{}")
        requests: list[dg.RunRequest] = []
        for asset in ("warriors", "data_groups"):
            made, cursors[asset] = _new_partitions(context.instance, names, asset, cursors.get(asset, 0))
            requests += _downstream_runs(context.instance, names, asset, made)
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursors))

    @sensor(
        name=names.thing("publish_sensor"),
        job_name=names.thing(PUBLISH_JOB),
        required_resource_keys=names.resources("store"),
        description="When all troops of a day are in or have failed for good: its statistics, then its report.",
    )
    def publish_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        turn = Turn()
        cursor: dict[str, Any] = json.loads(context.cursor or "{}")
        # Day -> (work class, ticks without an active run): a roster's runs may not be launched yet.
        pending: dict[str, tuple[WorkClass, int]] = {
            day: tuple(held) for day, held in cursor.get("pending", {}).items()
        }
        for asset in ("troops", "performance_data"):
            # Each day waits for the runs that work on it, and not for those of others.
            made, cursor[asset] = _new_partitions(
                context.instance, names, asset, cursor.get(asset, 0), ready=lambda _: True
            )
            for each in made:
                pending[each.partition.partition("|")[0]] = (each.about.work_class, 0)
        busy = active_days(context.instance, names) if pending else set()
        requests: list[dg.RunRequest] = []
        idle = sorted((ticks, day) for day, (_, ticks) in pending.items() if day not in busy)
        # Those looked at in vain come last, so that they do not keep others waiting.
        for _, day in turn.pieces(idle):
            work_class, idle_ticks = pending.pop(day)
            request = _publication(context.instance, store, account, day, work_class)
            if isinstance(request, dg.RunRequest):
                requests.append(request)
            elif request == UNDECIDED and idle_ticks < PATIENCE_TICKS:
                pending[day] = (work_class, idle_ticks + 1)
        cursor["pending"] = pending
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor))

    @sensor(
        name=names.thing("report_sensor"),
        job_name=names.thing(PUBLISH_JOB),
        description="When a day's statistics were computed alone: its report.",
    )
    def report_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        # Not an automation condition: that could not pass on the run's work class, would make reports that the
        # command was told to leave out, and would turn several days into a backfill.
        made, cursor = _new_partitions(context.instance, names, "daily_performance", int(context.cursor or 0))
        report = names.key("performance_report")
        reported = latest_storage_ids(context.instance, report, [each.partition for each in made])
        requests = [
            dg.RunRequest(
                run_key=f"daily_performance:{day}:{storage_id}",
                partition_key=day,
                asset_selection=[report],
                tags=request_tags(names, about.work_class, day),
            )
            for day, storage_id, about in made
            if "performance_report" not in about.assets and reported.get(day, 0) < storage_id
        ]
        return dg.SensorResult(run_requests=requests, cursor=str(cursor))

    # Object key -> etag of partitions without anything to redrive: not read again until they change.
    quiet: dict[str, str] = {}

    @sensor(
        name=names.thing("redrive_sensor"),
        required_resource_keys=names.resources("store"),
        jobs=[harvest, roster],
        minimum_interval_seconds=60,
        description="Redrive transient dead letters after 10, 40 and 160 minutes; permanent ones wait for a person.",
    )
    def redrive_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        store: StoreResource = names.of(context, "store")
        letters, turn = DeadLetters(store.open()), Turn()
        changed = letters.changed_days(quiet)
        last = context.cursor or ""
        dead: list[DeadPartition] = []
        # A day at a time, since a day is redriven by one run; on from where the tick before stopped.
        for day in turn.pieces(sorted(changed, key=lambda day: (day <= last, day))):
            found = letters.read(changed[day])
            quiet.update(
                (info.key, info.etag) for info, partition in found if not any(map(_open, partition.letters))
            )
            dead += [_as_stored(partition, info.modified) for info, partition in found]
            last = day
        return dg.SensorResult(run_requests=_redrives(names, dead, datetime.now(UTC)), cursor=last)

    @sensor(
        name=names.thing("lapsed_runs_sensor"),
        required_resource_keys=names.resources("vendor_api"),
        job_name=names.thing(HARVEST_JOB),
        description="Fail started runs whose process is gone (its lease has lapsed); Dagster retries them, and is "
        "asked once more where it has not.",
    )
    def lapsed_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        vendor_api: VendorApiResource = names.of(context, "vendor_api")
        memory, now = rescue.Memory.load(context.cursor), datetime.now(UTC).timestamp()
        leases = vendor_api.leases().all()
        failed = rescue.fail_lapsed(memory, context.instance, names, leases, now)
        asked = rescue.retry_lost(memory, context.instance, names, leases, now)
        context.update_cursor(memory.dump())
        said = [
            f"failed {counted(failed, 'run')} whose process is gone" if failed else "",
            f"asked for {counted(asked, 'retry', 'retries')} that Dagster had lost" if asked else "",
        ]
        return dg.SkipReason("; ".join(filter(None, said)) or "every started run is alive")

    return [
        roster_sensor,
        downstream_sensor,
        publish_sensor,
        report_sensor,
        redrive_sensor,
        lapsed_runs_sensor,
    ]


def _harvested_after(instance: dg.DagsterInstance, account: Account, day: str, roster: int) -> set[str]:
    """Troops whose day was harvested after its roster: where a cursor is lost, all days' rosters are read anew.

    Args:
        roster: Storage id of the roster's materialization.
    """
    on = date.fromisoformat(day)
    known = {str(day_troop_key(on, troop)): troop for troop in Partitions.of(account).troops(instance)}
    asset = Names.for_account(account).key(CHAIN[-1])
    harvested = latest_storage_ids(instance, asset, known) if known else {}
    return {known[key] for key, storage_id in harvested.items() if storage_id > roster}


def _left_to_backfill(instance: dg.DagsterInstance, names: Names, backfill: str) -> dict[str, set[str]]:
    """Day to the troops that a backfill harvests itself; a run of ours besides would pay for the same calls."""
    found: dict[str, set[str]] = {}
    for key in partitions_of_backfill(instance, backfill, map(names.key, CHAIN)):
        day, _, troop = key.partition("|")
        found.setdefault(day, set()).add(troop)
    return found


def _queued_runs(instance: dg.DagsterInstance, names: Names) -> int:
    """Runs of the harvest job that are queued."""
    wanted = dg.RunsFilter(job_name=names.thing(HARVEST_JOB), statuses=[dg.DagsterRunStatus.QUEUED])
    return count_runs(instance, wanted)


def _redrives(names: Names, partitions: Iterable[DeadPartition], now: datetime) -> list[dg.RunRequest]:
    """Runs that redrive the transient dead letters that are due, one run per day."""
    by_day: dict[str, list[str]] = {}
    stamps: dict[str, str] = {}
    requests: list[dg.RunRequest] = []
    for partition in partitions:
        due = [letter for letter in partition.letters if _due(letter, now)]
        if not due:
            continue
        day, newest = partition.day.isoformat(), max(letter.last_at for letter in due).isoformat()
        if partition.troop_key is None:
            requests.append(
                dg.RunRequest(
                    job_name=names.thing(ROSTER_JOB),
                    run_key=f"redrive:troops:{day}:{newest}",
                    partition_key=day,
                    tags=request_tags(names, SCHEDULED, day),
                )
            )
            continue
        by_day.setdefault(day, []).append(day_troop_key(partition.day, partition.troop_key))
        stamps[day] = max(stamps.get(day, ""), newest)
    return requests + [
        harvest_run(
            names,
            sorted(set(keys)),
            CHAIN,
            run_key=f"redrive:{day}:{stamps[day]}",
            tags=request_tags(names, SCHEDULED, day),
        )
        for day, keys in by_day.items()
    ]


def _as_stored(partition: DeadPartition, stored_at: datetime) -> DeadPartition:
    """The partition with no letter newer than its object: the clock of whoever wrote such a one was ahead."""
    letters = tuple(replace(each, last_at=min(each.last_at, stored_at)) for each in partition.letters)
    return replace(partition, letters=letters)


def _open(letter: DeadLetter) -> bool:
    """Whether a dead letter is redriven automatically, now or later."""
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
    made: Sequence[_NewPartition],
) -> list[dg.RunRequest]:
    below = downstream_of(asset)
    # Of some days Dagster's daemon materializes one asset after the other.
    of_backfill = cache(partial(partitions_of_backfill, instance, assets=[*map(names.key, below)]))
    newest: dict[str, dict[str, int]] = {}
    classes: dict[str, WorkClass] = {}
    for partition, storage_id, about in made:
        if about.backfill and partition in of_backfill(about.backfill):
            continue
        # A run that includes downstream assets has made them, or shows that it failed to.
        if set(below).isdisjoint(about.assets):
            newest.setdefault(about.run.run_id, {})[partition] = storage_id
            classes[about.run.run_id] = about.work_class
    requests: list[dg.RunRequest] = []
    every = [key for storage_ids in newest.values() for key in storage_ids]
    latest = latest_storage_ids(instance, names.key(below[0]), every) if every else {}
    for run_id, storage_ids in newest.items():
        stale = [key for key, storage_id in storage_ids.items() if latest.get(key, 0) < storage_id]
        for day, keys in split_by_day(stale).items():
            newest_id = max(storage_ids[key] for key in keys)
            named = keys[0] if len(keys) == 1 else f"{day} ({len(keys)})"
            requests.append(
                harvest_run(
                    names,
                    keys,
                    below,
                    run_key=f"{asset}:{named}:{newest_id}",
                    tags=request_tags(names, classes[run_id], day),
                )
            )
    return requests


def _publication(
    instance: dg.DagsterInstance, store: StoreResource, account: Account, day: str, work_class: WorkClass
) -> dg.RunRequest | str | None:
    """The run that publishes a day; ``UNDECIDED`` while a troop is neither in nor failed, None if nothing is new."""
    names = Names.for_account(account)
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
