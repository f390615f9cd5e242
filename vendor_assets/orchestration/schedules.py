"""Schedules: lists of the running day every few hours, and each day's harvest after the day is over.

They are off until somebody turns them on, since they spend the vendor's quota by themselves.
"""

from datetime import timedelta

import dagster as dg

from vendor_assets.configuration import Settings
from vendor_assets.days import last_complete_day
from vendor_assets.orchestration.events import DAY_TAG
from vendor_assets.orchestration.following import class_tags
from vendor_assets.orchestration.jobs import ROSTER_JOB, SIGHTINGS_JOB

SIGHTINGS_HOURS = 4
"""Hours between two lists of the running day."""


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """All schedules of a deployment."""
    # Half a minute more than the settling delay would still be too early for cron, which knows minutes.
    minutes = settings.settling_seconds // 60 + 5
    cron = f"{minutes % 60} {minutes // 60 % 24} * * *"

    @dg.schedule(
        name="daily_harvest",
        job_name=ROSTER_JOB,
        cron_schedule=cron,
        execution_timezone=settings.zone.key,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="After each day, once its data have settled: list its troops; the sensors harvest the rest.",
    )
    def daily_harvest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        at = context.scheduled_execution_time - timedelta(minutes=minutes - minutes % (24 * 60))
        day = last_complete_day(at, settings.zone).isoformat()
        return dg.RunRequest(
            run_key=f"daily:{day}", partition_key=day, tags=class_tags("scheduled") | {DAY_TAG: day}
        )

    sightings = dg.ScheduleDefinition(
        name="roster_sightings",
        job_name=SIGHTINGS_JOB,
        cron_schedule=f"10 */{SIGHTINGS_HOURS} * * *",
        execution_timezone=settings.zone.key,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="List troops and warriors of the running day: what vanishes before midnight is on its roster.",
        tags=class_tags("scheduled"),
    )
    return [daily_harvest, sightings]
