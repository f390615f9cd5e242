"""Following: which runs bring downstream partitions up to date. Shared by the sensors and the command."""

from collections.abc import Iterable, Sequence
from datetime import date

import dagster as dg
from dagster import AssetPartitionStatus

from vendor_assets.account import Account
from vendor_assets.harvest.costs import Costs
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.harvest.sizing import cut
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key, split_key
from vendor_assets.orchestration.runs.about import (
    CALLS_TAG,
    DAY_TAG,
    HARVEST_JOB,
    PUBLISH_JOB,
    TRIGGER_TAG,
)
from vendor_assets.orchestration.runs.events import LOOK_BACK
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.roster import Roster
from vendor_assets.work_class import BACKFILL, WorkClass, queue_tags


def roster_keys(store: ObjectStore, day: date, filters: Filters, only: Sequence[str] = ()) -> list[str]:
    """Partition keys of the troops on a day's roster that are asked for.

    Args:
        only: Ids, partition keys or names of troops; none means all.

    Raises:
        ObjectNotFoundError: The day has no roster.
    """
    return [
        troop.key
        for troop in Roster.read(store, day).troops
        if filters.takes_troop(troop) and (not only or not troop.names.isdisjoint(only))
    ]


def class_tags(names: Names, work_class: WorkClass) -> dict[str, str]:
    """Tags by which the run queue and the budget let scheduled work go first."""
    return {**queue_tags(work_class), **names.tags}


def roster_runs(
    store: ObjectStore,
    account: Account,
    day: date,
    *,
    run_key: str,
    work_class: WorkClass,
    only: Sequence[str] = (),
) -> tuple[list[str], list[dg.RunRequest]]:
    """The troops of a day's roster, and runs that bring the chain of each up to date, cut by quota.

    Args:
        only: Ids, partition keys or names of troops; none means all.
    """
    names = Names(account.name)
    keys = roster_keys(store, day, account.filters, only)
    calls = Costs(store, account).day(day, keys).to_come if keys else {}
    runs = cut(calls, account.permitted_rate)
    requests = [
        dg.RunRequest(
            job_name=names.thing(HARVEST_JOB),
            run_key=f"{run_key}:{number}",
            run_config=harvest_config(names, [day_troop_key(day, key) for key in chosen], list(CHAIN)),
            tags=class_tags(names, work_class)
            | {
                TRIGGER_TAG: "sensor",
                DAY_TAG: day.isoformat(),
                CALLS_TAG: str(sum(calls[key] for key in chosen)),
            },
        )
        for number, chosen in enumerate(runs)
    ]
    return keys, requests


def look_back_runs(store: ObjectStore, account: Account, day: date, *, run_key: str) -> list[dg.RunRequest]:
    """Runs that fetch the performance data of a finished day anew, for late data; cut by quota, as backfills."""
    names = Names(account.name)
    prefix = layout.table_prefix("performance_data", day)
    keys = {key for key in map(layout.troop_of_folder, store.folders(prefix)) if key is not None}
    whole = Costs(store, account).day(day).whole_by_key
    calls = {key: of_troop["performance_data"] for key, of_troop in whole.items() if key in keys}
    return [
        dg.RunRequest(
            job_name=names.thing(HARVEST_JOB),
            run_key=f"{run_key}:{number}",
            run_config=harvest_config(
                names, [day_troop_key(day, key) for key in chosen], ["performance_data"]
            ),
            tags=class_tags(names, BACKFILL)
            | {
                TRIGGER_TAG: LOOK_BACK,
                DAY_TAG: day.isoformat(),
                CALLS_TAG: str(sum(calls[key] for key in chosen)),
            },
        )
        for number, chosen in enumerate(cut(calls, account.permitted_rate))
    ]


def downstream_of(asset: str) -> tuple[str, ...]:
    """The assets of the chain below one of them."""
    return CHAIN[CHAIN.index(asset) + 1 :]


def day_is_decided(
    instance: dg.DagsterInstance, account: Account, day: str, troop_keys: Sequence[str]
) -> bool:
    """Whether each of a day's troops has its performance data or has failed."""
    partitions = Partitions.of(account)
    known = partitions.troops(instance)
    keys = [day_troop_key(date.fromisoformat(day), key) for key in troop_keys if key in known]
    if len(keys) < len(troop_keys):
        return False
    if not keys:
        return True
    key = Names(account.name).key("performance_data")
    statuses = instance.get_status_by_partition(key, keys, partitions.day_troop) or {}
    decided = (AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED)
    return all(statuses.get(each) in decided for each in keys)


def publish_run(names: Names, day: str, *, run_key: str, work_class: WorkClass) -> dg.RunRequest:
    """A run that publishes a day: statistics, then the report."""
    return dg.RunRequest(
        job_name=names.thing(PUBLISH_JOB),
        run_key=run_key,
        partition_key=day,
        tags=class_tags(names, work_class) | {TRIGGER_TAG: "sensor", DAY_TAG: day},
    )


def split_by_day(keys: Iterable[str]) -> dict[str, list[str]]:
    """Partition keys by day."""
    by_day: dict[str, list[str]] = {}
    for key in keys:
        by_day.setdefault(split_key(key)[0].isoformat(), []).append(key)
    return by_day
