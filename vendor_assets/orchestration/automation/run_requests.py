"""Run requests: which runs bring downstream partitions up to date, cut by quota."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from functools import cache

import dagster as dg
from dagster import AssetPartitionStatus

from vendor_assets.account import Account
from vendor_assets.harvest.costs import Costs
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.harvest.sizing import cut
from vendor_assets.orchestration.automation.turn import Turn
from vendor_assets.orchestration.dagster_private import latest_storage_ids, runs_of_attempts
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key, split_key
from vendor_assets.orchestration.runs.about import (
    CALLS_TAG,
    DAY_TAG,
    HARVEST_JOB,
    PUBLISH_JOB,
    PUBLISHED,
    TITLE_TAG,
    TRIGGER_TAG,
    title_of,
)
from vendor_assets.orchestration.runs.events import LOOK_BACK
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.roster import Roster
from vendor_assets.work_class import BACKFILL, PRIORITY_TAG, WorkClass, queue_tags


def class_tags(names: Names, work_class: WorkClass) -> dict[str, str]:
    """Tags that give scheduled work priority in the run queue and the budget."""
    return {**queue_tags(work_class), **names.tags}


def request_tags(
    names: Names, work_class: WorkClass, day: str, *, trigger: str = "sensor", calls: int | None = None
) -> dict[str, str]:
    """Tags of a run that a sensor or schedule requests for a day."""
    estimate = {} if calls is None else {CALLS_TAG: str(calls)}
    return class_tags(names, work_class) | {TRIGGER_TAG: trigger, DAY_TAG: day} | estimate


def harvest_run(
    names: Names, partitions: Sequence[str], assets: Sequence[str], *, run_key: str, tags: Mapping[str, str]
) -> dg.RunRequest:
    """A run of the harvest job."""
    return dg.RunRequest(
        job_name=names.thing(HARVEST_JOB),
        run_key=run_key,
        run_config=harvest_config(names, list(partitions), list(assets)),
        tags={**tags, TITLE_TAG: title_of(partitions)},
    )


def publish_run(names: Names, day: str, *, run_key: str, work_class: WorkClass) -> dg.RunRequest:
    """A run that publishes a day: statistics, then the report.

    It goes before the harvests of its class, which for a year's backfill wait by the hundred.
    """
    tags = request_tags(names, work_class, day)
    tags[PRIORITY_TAG] = str(int(tags[PRIORITY_TAG]) + 1)
    return dg.RunRequest(job_name=names.thing(PUBLISH_JOB), run_key=run_key, partition_key=day, tags=tags)


def roster_keys(store: ObjectStore, day: date, filters: Filters, only: Sequence[str] = ()) -> list[str]:
    """Partition keys of a day's troops that pass the filters.

    Args:
        only: Ids, partition keys or names of troops; empty means all.

    Raises:
        ObjectNotFoundError: The day has no roster.
    """
    return [
        troop.key
        for troop in Roster.read(store, day).troops
        if filters.takes_troop(troop) and (not only or not troop.names.isdisjoint(only))
    ]


def roster_runs(
    store: ObjectStore,
    account: Account,
    day: date,
    *,
    run_key: str,
    work_class: WorkClass,
    only: Sequence[str] = (),
    taken: Collection[str] = (),
    costs: Costs | None = None,
) -> tuple[list[str], list[dg.RunRequest]]:
    """The troops of a day's roster, and runs that harvest the chain of each.

    Args:
        only: Ids, partition keys or names of troops; empty means all.
        taken: Partition keys of troops that need no further run.
        costs: Estimates of the same store; several days that share one take a fraction of the time.
    """
    keys = roster_keys(store, day, account.filters, only)
    left = [key for key in keys if key not in taken]
    if not left:
        return keys, []
    costs = costs or Costs(store, account)
    plan = costs.day(day, left)
    return keys, _runs(
        account, day, costs, plan.to_come, CHAIN, run_key, work_class, "sensor", foreseen=plan.foreseen
    )


def look_back_runs(
    store: ObjectStore, account: Account, days: Iterable[date], *, run_key: str
) -> list[dg.RunRequest]:
    """Runs that fetch the performance data of finished days again, for late data, as backfills."""
    costs = Costs(store, account, Turn().over)
    runs: list[dg.RunRequest] = []
    for day in days:
        prefix = layout.table_prefix("performance_data", day)
        keys = {key for key in map(layout.troop_of_folder, store.folders(prefix)) if key is not None}
        plan = costs.day(day)
        calls = {key: of["performance_data"] for key, of in plan.whole_by_key.items() if key in keys}
        key = f"{run_key}:{day}"
        runs += _runs(
            account, day, costs, calls, ["performance_data"], key, BACKFILL, LOOK_BACK, foreseen=plan.foreseen
        )
    return runs


def _runs(
    account: Account,
    day: date,
    costs: Costs,
    calls: Mapping[str, int],
    assets: Sequence[str],
    run_key: str,
    work_class: WorkClass,
    trigger: str,
    *,
    foreseen: bool,
) -> list[dg.RunRequest]:
    """Harvest runs for troops, cut by quota and interleaved by weights.

    Args:
        calls: Each troop's key to its estimated calls.
        foreseen: Whether that is more than a guess: then the runs are tagged with it.
    """
    names = Names.for_account(account)
    teams = costs.teams(day, account.weights)
    return [
        harvest_run(
            names,
            [day_troop_key(day, key) for key in chosen],
            assets,
            run_key=f"{run_key}:{number}",
            tags=request_tags(
                names,
                work_class,
                day.isoformat(),
                trigger=trigger,
                calls=sum(calls[key] for key in chosen) if foreseen else None,
            ),
        )
        for number, chosen in enumerate(cut(calls, account.permitted_rate, teams))
    ]


def day_is_decided(
    instance: dg.DagsterInstance, account: Account, day: str, troop_keys: Sequence[str]
) -> bool:
    """Whether the performance data of all given troops are materialized or have failed."""
    keys = [day_troop_key(date.fromisoformat(day), key) for key in troop_keys]
    if not keys:
        return True
    asset = Names.for_account(account).key("performance_data")
    materialized = latest_storage_ids(instance, asset, keys)
    attempts = runs_of_attempts(instance, asset, materialized, keys)
    get_run = cache(instance.get_run_by_id)

    def is_decided(key: str) -> bool:
        run = get_run(attempts[key]) if key in attempts else None
        if run is not None and not run.is_finished:
            return False
        return key in materialized or (run is not None and run.status == dg.DagsterRunStatus.FAILURE)

    return all(map(is_decided, keys))


def published_assets_are_shown(instance: dg.DagsterInstance, account: Account, day: str) -> bool:
    """Whether Dagster knows a day's statistics and report as materialized; a new instance knows nothing."""
    names, partitions = Names.for_account(account), Partitions.of(account)
    statuses = [
        (instance.get_status_by_partition(names.key(asset), [day], partitions.day) or {}).get(day)
        for asset in PUBLISHED
    ]
    return all(status == AssetPartitionStatus.MATERIALIZED for status in statuses)


def downstream_of(asset: str) -> tuple[str, ...]:
    """The assets of the chain below one of them."""
    return CHAIN[CHAIN.index(asset) + 1 :]


def split_by_day(keys: Iterable[str]) -> dict[str, list[str]]:
    """Partition keys by day."""
    by_day: dict[str, list[str]] = {}
    for key in keys:
        by_day.setdefault(split_key(key)[0].isoformat(), []).append(key)
    return by_day
