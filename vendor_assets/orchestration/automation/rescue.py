"""Runs that died: those whose process is gone are failed, and those whose retry Dagster lost are retried.

All durations are measured between ticks, on one clock; no time that another machine wrote is compared with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Self

import dagster as dg

from vendor_assets.budget import LeaseState
from vendor_assets.orchestration.dagster_private import fail_run, tag_run
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import (
    RETRY_ASKED_TAG,
    RETRY_SECONDS,
    WILL_RETRY_TAG,
    About,
    runs_awaiting_retry,
    runs_of,
)

START_SECONDS: Final = 60.0
"""A run takes its lease at most this long after its start."""
GIVE_UP_SECONDS: Final = 300.0
"""How long a retry that was asked for a second time may take."""


@dataclass
class Memory:
    """What the sensor remembers between ticks: run ids, and when each was first seen as a Unix timestamp.

    Attributes:
        lapsed: Started and canceling runs without a live lease.
        unretried: Failed runs that Dagster will retry and has not.
    """

    lapsed: dict[str, float] = field(default_factory=dict)
    unretried: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: str | None) -> Self:
        """Read it from a sensor's cursor."""
        document = json.loads(cursor or "{}")
        # Earlier releases kept a list of run ids.
        return cls(**document) if isinstance(document, dict) else cls()

    def dump(self) -> str:
        """Write it for a sensor's cursor."""
        return json.dumps(asdict(self))


def fail_lapsed(
    memory: Memory, instance: dg.DagsterInstance, names: Names, leases: Sequence[LeaseState], now: float
) -> int:
    """Fail started runs whose process is gone, or cancel those that were to end; returns how many."""
    live = {lease.holder: not lease.lapsed for lease in leases}
    before, memory.lapsed, failed = memory.lapsed, {}, 0
    # No sensor goes beyond what a run made that is not over.
    statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in runs_of(instance, dg.RunsFilter(statuses=statuses)):
        if live.get(run.run_id) or not About(run, names).ours:
            continue
        # The clock may have been set back since.
        since = memory.lapsed[run.run_id] = min(now, before.get(run.run_id, now))
        # Never at the first sight: after an outage of the database all leases are stale for a moment.
        patience = 0.0 if run.run_id in live else START_SECONDS
        if run.run_id in before and now - since >= patience:
            fail_run(instance, run, "the run's process is gone: its lease has lapsed")
            del memory.lapsed[run.run_id]
            failed += 1
    return failed


def retry_lost(
    memory: Memory, instance: dg.DagsterInstance, names: Names, leases: Sequence[LeaseState], now: float
) -> int:
    """Have runs retried that Dagster tagged to be retried and then overlooked; returns how many.

    Dagster stores a failure's event before the run's status. Its retry daemon reads each event once, and drops the one
    of a run that does not look failed yet. Reported again it is read again, by the same daemon, which launches no retry
    where there is one. A run that was called failed and still renews its lease goes on, and is not retried.
    """
    before, memory.unretried, asked = memory.unretried, {}, 0
    alive = {lease.holder for lease in leases if not lease.lapsed}
    for run in runs_awaiting_retry(instance, names):
        if run.run_id in alive:
            continue
        since = min(now, before.get(run.run_id, now))
        told = RETRY_ASKED_TAG in run.tags
        if now - since < (GIVE_UP_SECONDS if told else RETRY_SECONDS):
            memory.unretried[run.run_id] = since
        elif told or run.remote_job_origin is None or _launched_by_a_person(instance, run):
            # Dagster cannot retry it, or must not: it is a failed run like others.
            tag_run(instance, run.run_id, {WILL_RETRY_TAG: "false"})
        else:
            memory.unretried[run.run_id] = now
            tag_run(instance, run.run_id, {RETRY_ASKED_TAG: "true"})
            fail_run(
                instance, run, "Dagster has not retried this run within a minute; it is asked to once more"
            )
            asked += 1
    return asked


def _launched_by_a_person(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run was launched anew by somebody other than Dagster's retries, which number theirs."""
    children = runs_of(instance, dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id}))
    return any("dagster/retry_number" not in child.tags for child in children)
