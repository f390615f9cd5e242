"""What a run is about: which assets, days and partitions, for whom, and whether it holds a lease.

Everything that asks this of a run (who is dead, what waits, which days are at work, what an alert concerns) asks
here, so that a run means the same to all, however it was started: by a sensor, a schedule, the command, a click on
one asset or on several, a range, a backfill, a retry.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final

import dagster as dg

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.dagster_private import IMPLICIT_JOB
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import split_key
from vendor_assets.work_class import BACKFILL, CLASS_TAG, SCHEDULED, WorkClass, work_class_from

ROSTER_JOB: Final = "roster"
HARVEST_JOB: Final = "harvest"
SIGHTINGS_JOB: Final = "sightings"
RETENTION_JOB: Final = "retention"
PUBLISH_JOB: Final = "publish"

TRIGGER_TAG: Final = "vendor_assets/trigger"
"""``sensor`` or ``command`` on runs that bring partitions up to date, ``look_back`` on those that fetch finished ones
anew by schedule; absent on a person's click."""
DAY_TAG: Final = "vendor_assets/day"
"""The day that a run works for."""
FOLLOW_TAG: Final = "vendor_assets/follow"
"""``self`` on runs whose launcher brings the downstream partitions up to date by itself."""
ACCEPT_EMPTY_TAG: Final = "vendor_assets/accept_empty_roster"
"""``true`` on runs that may find that an account which had troops has none any more."""
CALLS_TAG: Final = "vendor_assets/calls"
"""Calls that a run was estimated to make when it was requested."""
TROOPS_TAG: Final = "vendor_assets/troops"
"""JSON list of troops (ids, keys or names) that shall follow a roster; absent: all of them."""

HARVESTED: Final = ("troops", *CHAIN)
"""Assets that ask the vendor."""
PUBLISHED: Final = ("daily_performance", "performance_report")
"""Assets that are computed from what was harvested."""
ASSETS: Final = (*HARVESTED, *PUBLISHED)
"""Every asset that a run of ours makes, upstream first."""
ASSETS_OF_JOB: Final = {ROSTER_JOB: ("troops",), PUBLISH_JOB: PUBLISHED}
"""Assets of the jobs whose runs do not name them."""
_JOBS: Final = (ROSTER_JOB, HARVEST_JOB, SIGHTINGS_JOB, RETENTION_JOB, PUBLISH_JOB)
_LONGEST_RANGE: Final = timedelta(days=3700)

ACTIVE: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Statuses of runs that are waiting or at work."""


@dataclass(frozen=True)
class About:
    """What a run is about; made from the run alone, without a look at the instance or the store.

    Attributes:
        run: The run.
        names: Those of the account that asks.
    """

    run: dg.DagsterRun
    names: Names

    @cached_property
    def assets(self) -> tuple[str, ...]:
        """The assets of ours that it makes, upstream first; of a job without assets none."""
        run = self.run
        named: set[str] = set(map(str, self._told("assets")))
        if run.asset_selection:
            named |= {name for key in run.asset_selection if (name := self.names.asset(key)) is not None}
        elif run.job_name == IMPLICIT_JOB and not run.asset_check_selection:
            named |= set(ASSETS)
        else:
            named |= set(ASSETS_OF_JOB.get(self._job, ()))
        return tuple(name for name in ASSETS if name in named)

    @cached_property
    def partitions(self) -> tuple[str, ...]:
        """Keys of the partitions that it names one by one; of a range the first and the last."""
        tags = self.run.tags
        named = [
            *map(str, self._told("partitions")),
            tags.get("dagster/partition", ""),
            tags.get("dagster/asset_partition_range_start", ""),
            tags.get("dagster/asset_partition_range_end", ""),
        ]
        return tuple(dict.fromkeys(name for name in named if name))

    @cached_property
    def days(self) -> frozenset[str]:
        """Days that it works for, all those of a range too; empty where it works for none, or for all."""
        tags = self.run.tags
        named = {tags.get(DAY_TAG, ""), tags.get("dagster/partition/day", "")}
        named |= {key.partition("|")[0] for key in self.partitions}
        first = _day(tags.get("dagster/asset_partition_range_start", ""))
        last = _day(tags.get("dagster/asset_partition_range_end", ""))
        if first and last and first < last < first + _LONGEST_RANGE:
            named |= {(first + timedelta(days=n)).isoformat() for n in range((last - first).days)}
        return frozenset(name for name in named if name)

    @property
    def ours(self) -> bool:
        """Whether it does anything of ours; every such run holds a lease while it lives."""
        return bool(self._job or self.assets)

    @property
    def harvests(self) -> bool:
        """Whether it asks the vendor, or removes what was answered."""
        return self._job in (SIGHTINGS_JOB, RETENTION_JOB) or not set(self.assets).isdisjoint(HARVESTED)

    @property
    def _job(self) -> str:
        """Which of the account's jobs it is a run of; empty for any other."""
        return next((job for job in _JOBS if self.names.thing(job) == self.run.job_name), "")

    @property
    def work_class(self) -> WorkClass:
        """The class that it is tagged with; otherwise a backfill if it belongs to one of Dagster's."""
        tags = self.run.tags
        return work_class_from(tags.get(CLASS_TAG) or (BACKFILL if "dagster/backfill" in tags else SCHEDULED))

    @property
    def follows_itself(self) -> bool:
        """Whether its launcher brings the downstream partitions up to date."""
        return self.run.tags.get(FOLLOW_TAG) == "self"

    @property
    def calls(self) -> int | None:
        """Calls that it was estimated to make when it was requested; None where nobody estimated."""
        told = self.run.tags.get(CALLS_TAG, "")
        return int(told) if told.isascii() and told.isdigit() and len(told) < 16 else None

    @property
    def troops(self) -> list[str]:
        """Troops that shall follow its roster; empty: all of them.

        Raises:
            ValueError: The tag is none that we write.
        """
        told = json.loads(self.run.tags.get(TROOPS_TAG) or "[]")
        if not isinstance(told, list):
            raise ValueError(f"the tag {TROOPS_TAG} is no list")  # noqa: TRY004  one kind of error for a bad tag
        return [str(name) for name in told]

    def _told(self, name: str) -> Sequence[Any]:
        """What the harvest job was told to do; nothing in other runs."""
        found: Any = self.run.run_config
        for step in ("ops", self.names.thing("harvest_partitions"), "config", name):
            found = found.get(step) if isinstance(found, dict) else None
        return found if isinstance(found, list) else []


def _day(key: str) -> date | None:
    try:
        return split_key(key)[0]
    except ValueError:
        return None


def runs_of(
    instance: dg.DagsterInstance, filters: dg.RunsFilter | None = None, *, limit: int | None = None
) -> list[dg.DagsterRun]:
    """The runs that match, newest first."""
    return [record.dagster_run for record in instance.get_run_records(filters, limit=limit)]


def active_days(instance: dg.DagsterInstance, names: Names) -> set[str]:
    """Days for which a run of ours is queued or under way, or a failed one will be retried."""
    runs = runs_of(instance, dg.RunsFilter(statuses=ACTIVE))
    retried = runs_of(
        instance,
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={"dagster/will_retry": "true"}),
        limit=50,
    )
    waiting = [run for run in retried if "dagster/auto_retry_run_id" not in run.tags]
    found = [About(run, names) for run in [*runs, *waiting]]
    return {day for about in found if about.ours for day in about.days}
