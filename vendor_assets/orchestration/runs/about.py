"""What a run is about: its assets, days and partitions, its work class, and whether it is ours.

The same answers for all callers, however the run was started: by a sensor, a schedule, the command, a click on assets,
a range, a backfill or a retry.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
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

# Dagster's UI shows no tag that begins like these.
TRIGGER_TAG: Final = ".dagster/vendor_assets.trigger"
"""``sensor`` or ``command`` on runs that bring partitions up to date, ``look_back`` on those that fetch finished ones
again; absent on a click."""
DAY_TAG: Final = "vendor_assets/day"
"""The day that a run works for."""
FOLLOW_TAG: Final = ".dagster/vendor_assets.follow"
"""``self`` on runs whose launcher also brings the downstream partitions up to date."""
ACCEPT_EMPTY_TAG: Final = "vendor_assets/accept_empty_roster"
"""``true`` on runs that may find that an account has no troops anymore."""
CALLS_TAG: Final = ".dagster/vendor_assets.calls"
"""Estimated calls of a run."""
TITLE_TAG: Final = "troops"
"""What a run of many partitions is about, for the list of runs, which has room for some forty characters."""
TROOPS_TAG: Final = "vendor_assets/troops"
"""JSON list of troops (ids, keys or names) to harvest after a roster; absent means all."""
GOES_ON_TAG: Final = ".dagster/vendor_assets.goes_on"
"""``true`` on runs of a roster that go on with the harvest of its troops, as many as one run takes."""
TAKEN_TAG: Final = ".dagster/vendor_assets.taken"
"""JSON list of partition keys: the troops that such a run has taken, and its retries take again."""
WILL_RETRY_TAG: Final = "dagster/will_retry"
"""Dagster's own: ``true`` on failed runs that it retries."""
RETRY_ASKED_TAG: Final = "vendor_assets/retry_asked"
"""``true`` on failed runs whose retry Dagster had lost, and was asked for a second time."""
RETRY_SECONDS: Final = 60.0
"""Dagster launches a retry within seconds; after this time it has lost it."""

HARVESTED: Final = ("troops", *CHAIN)
"""Assets that call the vendor."""
PUBLISHED: Final = ("daily_performance", "performance_report")
"""Assets computed from harvested ones."""
ASSETS: Final = (*HARVESTED, *PUBLISHED)
"""All materializable assets, upstream first."""
_CHECKED: Final = (*ASSETS, "dead_letters")
"""Assets that have checks."""
ASSETS_OF_JOB: Final = {ROSTER_JOB: ("troops",), PUBLISH_JOB: PUBLISHED}
"""Assets of jobs whose runs do not name them."""
_JOBS: Final = (ROSTER_JOB, HARVEST_JOB, SIGHTINGS_JOB, RETENTION_JOB, PUBLISH_JOB)
_LONGEST_RANGE: Final = timedelta(days=3700)
_LATEST_RETRY: Final = timedelta(days=7)
"""Nobody waits longer for a retry."""
_MOST_RETRIES: Final = 200

ACTIVE: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Statuses of runs that are queued or under way."""


@dataclass(frozen=True)
class About:
    """What a run is about, read from the run alone.

    Attributes:
        run: The run.
        names: The names of the account for which it is read.
    """

    run: dg.DagsterRun
    names: Names

    @cached_property
    def assets(self) -> tuple[str, ...]:
        """The account's assets that it materializes, upstream first."""
        run = self.run
        named: set[str] = set(map(str, self._told("assets")))
        if run.asset_selection:
            named |= {name for key in run.asset_selection if (name := self.names.asset(key)) is not None}
        elif run.job_name == IMPLICIT_JOB and not run.asset_check_selection:
            named |= set(ASSETS)
        else:
            named |= set(ASSETS_OF_JOB.get(self._job, ()))
        if self.goes_on:
            named |= set(CHAIN)
        return tuple(name for name in ASSETS if name in named)

    @cached_property
    def partitions(self) -> tuple[str, ...]:
        """Keys of the partitions that it names; of a range the first and the last."""
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
        """Days that it works on, including all days of a range; empty if it names none."""
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
        """Whether it is a run of this account; such runs hold a lease while they are alive."""
        checked = {self.names.asset(key.asset_key) for key in self.run.asset_check_selection or ()}
        return bool(self._job or self.assets or not checked.isdisjoint(_CHECKED))

    @property
    def harvests(self) -> bool:
        """Whether it uses the harvester."""
        return self._job in (SIGHTINGS_JOB, RETENTION_JOB) or not set(self.assets).isdisjoint(HARVESTED)

    @property
    def _job(self) -> str:
        """Which of the account's jobs it runs; empty if none."""
        return next((job for job in _JOBS if self.names.thing(job) == self.run.job_name), "")

    @property
    def work_class(self) -> WorkClass:
        """Its tagged class; without a tag, backfill if it is part of a Dagster backfill, else scheduled."""
        tags = self.run.tags
        return work_class_from(tags.get(CLASS_TAG) or (BACKFILL if self.backfill else SCHEDULED))

    @property
    def trigger(self) -> str | None:
        """Who asked for it; None for a click."""
        tags = self.run.tags
        # Automation conditions are sensors of Dagster's. Runs that an earlier release queued have the last one.
        automatic = "sensor" if tags.get("dagster/from_automation_condition") == "true" else None
        return tags.get(TRIGGER_TAG) or automatic or tags.get("vendor_assets/trigger")

    @property
    def backfill(self) -> str:
        """Id of the Dagster backfill that it is a part of; empty if none."""
        return self.run.tags.get("dagster/backfill", "")

    @property
    def driven_by_launcher(self) -> bool:
        """Whether its launcher brings the downstream partitions up to date."""
        return self.run.tags.get(FOLLOW_TAG) == "self"

    @property
    def goes_on(self) -> bool:
        """Whether it goes on from a day's roster to the harvest of its troops."""
        return self.run.tags.get(GOES_ON_TAG) == "true"

    @property
    def taken(self) -> list[str] | None:
        """Keys of the troops that it has taken from its roster; None if it has not come so far, or does not go on."""
        told = self.run.tags.get(TAKEN_TAG)
        return None if told is None else [str(key) for key in json.loads(told)]

    @property
    def calls(self) -> int | None:
        """Its estimated calls; None if there is no estimate, as of a retry, for which only a part is left."""
        if self.run.parent_run_id:
            return None
        told = self.run.tags.get(CALLS_TAG, "")
        return int(told) if told.isascii() and told.isdigit() and len(told) < 16 else None

    @property
    def troops(self) -> list[str]:
        """Troops to harvest after its roster; empty means all.

        Raises:
            ValueError: The tag is malformed.
        """
        told = json.loads(self.run.tags.get(TROOPS_TAG) or "[]")
        if not isinstance(told, list):
            raise ValueError(f"the tag {TROOPS_TAG} is not a list")  # noqa: TRY004  one kind of error for a bad tag
        return [str(name) for name in told]

    def _told(self, name: str) -> Sequence[Any]:
        """A list from the harvest job's config; empty in other runs."""
        found: Any = self.run.run_config
        for step in ("ops", self.names.thing("harvest_partitions"), "config", name):
            found = found.get(step) if isinstance(found, dict) else None
        return found if isinstance(found, list) else []


def title_of(partitions: Sequence[str]) -> str:
    """What a run of day × troop partitions is about, as short as a row in the list of runs."""
    names = list(dict.fromkeys(_name(key.partition("|")[2]) for key in partitions))
    days = {key.partition("|")[0] for key in partitions}
    return (
        names[0]
        + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        + (f", {len(days)} days" if len(days) > 1 else "")
    )


def _name(key: str) -> str:
    # A key is the troop's name as far as a path may hold it, and its id.
    return key.rpartition(".")[0] or key


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


def runs_awaiting_retry(instance: dg.DagsterInstance, names: Names) -> list[dg.DagsterRun]:
    """The account's failed runs that Dagster will retry and has not yet."""
    wanted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        tags={WILL_RETRY_TAG: "true", **names.tags},
        # Every run that was ever retried keeps its tag.
        updated_after=datetime.now(UTC) - _LATEST_RETRY,
    )
    return [
        run
        for run in runs_of(instance, wanted, limit=_MOST_RETRIES)
        if not was_retried(run) and About(run, names).ours
    ]


def was_retried(run: dg.DagsterRun) -> bool:
    """Whether Dagster has launched a failed run's retry."""
    return "dagster/auto_retry_run_id" in run.tags


def active_days(instance: dg.DagsterInstance, names: Names) -> set[str]:
    """Days with a run of the account that is queued, under way, or failed and about to be retried."""
    active = [About(run, names) for run in runs_of(instance, dg.RunsFilter(statuses=ACTIVE))]
    waiting = [About(run, names) for run in runs_awaiting_retry(instance, names)]
    return {day for about in [*active, *waiting] if about.ours for day in about.days}
