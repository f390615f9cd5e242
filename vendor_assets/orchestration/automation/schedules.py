"""Schedules: the daily harvest, sightings of the running day, late data, and retention.

They are off until somebody turns them on, because they spend the vendor's quota or remove data.
"""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.days import day_exists, last_complete_day
from vendor_assets.orchestration.automation.freshness import missed_days, scheduled_since
from vendor_assets.orchestration.automation.run_requests import class_tags, look_back_runs
from vendor_assets.orchestration.dagster_private import materialized_partitions
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.orchestration.runs.about import (
    DAY_TAG,
    GOES_ON_TAG,
    HARVEST_JOB,
    RETENTION_JOB,
    ROSTER_JOB,
    SIGHTINGS_JOB,
    active_days,
)
from vendor_assets.orchestration.runs.events import LOOK_BACK
from vendor_assets.work_class import BACKFILL, SCHEDULED, WorkClass

LOOK_BACK_HOURS = 6
"""Hours between the newest day's harvest and the look back at earlier days."""
SIGHTINGS_HOURS = 4
"""Hours between two lists of the running day."""


def build_schedules(account: Account) -> list[dg.ScheduleDefinition]:
    """All schedules of a deployment."""
    names = Names.for_account(account)
    # Cron knows only minutes: round up, generously.
    minutes = account.settling_seconds // 60 + 5
    cron = f"{minutes % 60} {minutes // 60 % 24} * * *"
    ours: dict[str, Any] = {
        "execution_timezone": account.zone.key,
        "default_status": dg.DefaultScheduleStatus.STOPPED,
    }

    @dg.schedule(
        name=names.thing("daily_harvest"),
        job_name=names.thing(ROSTER_JOB),
        cron_schedule=cron,
        description="After each day, once its data have settled: list its troops and harvest them, in further runs "
        "where they are many. Days that were missed since it was turned on, as nothing ran, follow as backfills.",
        **ours,
    )
    def daily_harvest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | list[dg.RunRequest]:
        at = context.scheduled_execution_time - timedelta(minutes=minutes - minutes % (24 * 60))
        newest = last_complete_day(at, account.zone)

        def request(day: str, work_class: WorkClass) -> dg.RunRequest:
            tags = class_tags(names, work_class) | {DAY_TAG: day, GOES_ON_TAG: "true"}
            return dg.RunRequest(run_key=f"daily:{day}", partition_key=day, tags=tags)

        since = scheduled_since(context.instance, names)
        if since is None:
            return request(newest.isoformat(), SCHEDULED)
        there = materialized_partitions(context.instance, names.key("troops"))
        missed = missed_days(account, since, newest, set(map(date.fromisoformat, there)))
        # Those whose roster failed are among them.
        busy = active_days(context.instance, names) if missed else set()
        late = [request(str(day), BACKFILL) for day in reversed(missed) if str(day) not in busy]
        return [request(newest.isoformat(), SCHEDULED), *late]

    sightings = dg.ScheduleDefinition(
        name=names.thing("roster_sightings"),
        job_name=names.thing(SIGHTINGS_JOB),
        cron_schedule=f"10 */{SIGHTINGS_HOURS} * * *",
        description="List troops and warriors of the running day, so that its roster has those gone by midnight.",
        tags=class_tags(names, SCHEDULED),
        **ours,
    )

    @dg.schedule(
        name=names.thing(LOOK_BACK),
        job_name=names.thing(HARVEST_JOB),
        required_resource_keys=names.resources("store"),
        cron_schedule=f"{minutes % 60} {(minutes // 60 + LOOK_BACK_HOURS) % 24} * * *",
        description="Late data: fetch the performance data of the days before the newest one again "
        "(VENDOR_ASSETS_LOOK_BACK), as backfills; each materialization says what changed.",
        **ours,
    )
    def look_back(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        if not account.look_back_days:
            return dg.SkipReason("VENDOR_ASSETS_LOOK_BACK is 0: no finished day is fetched again")
        at = context.scheduled_execution_time - timedelta(minutes=minutes - minutes % (24 * 60))
        newest = last_complete_day(at, account.zone)
        days = [newest - timedelta(days=back) for back in range(1, account.look_back_days + 1)]
        days = [day for day in days if day >= account.start and day_exists(day, account.zone)]
        requests = look_back_runs(store.open(), account, days, run_key=f"{LOOK_BACK}:{newest}")
        return requests or dg.SkipReason("no finished day in reach of VENDOR_ASSETS_LOOK_BACK")

    retention = dg.ScheduleDefinition(
        name=names.thing("landing_retention"),
        job_name=names.thing(RETENTION_JOB),
        cron_schedule="40 4 * * *",
        description="Remove answers that landed more than VENDOR_ASSETS_RETENTION days ago, and the logs of runs that "
        "ended more than VENDOR_ASSETS_HISTORY days ago; tables and materializations stay.",
        **ours,
    )
    return [daily_harvest, sightings, look_back, retention]
