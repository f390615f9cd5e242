"""Forgetting: what Dagster keeps of old runs, and nobody looks at any more.

Kept are each materialization, without the plots and samples in it, the newest observation and check of each partition,
and the runs themselves. What is forgotten is the log of the runs: nine tenths of what Dagster's storage holds.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from vendor_assets.orchestration.dagster_private import ended_before, forget_log
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import ACTIVE, About, runs_of
from vendor_assets.presentable import counted

_RUNS_AT_ONCE: Final = 100


@dataclass
class Forgotten:
    """What was forgotten: logs of runs, and events."""

    runs: int = 0
    events: int = 0

    def __str__(self) -> str:
        """In one line."""
        logs = f"{counted(self.runs, 'run')}, {counted(self.events, 'event')}"
        return f"forgot the logs of {logs}; materializations and runs stay"


def forget(instance: dg.DagsterInstance, names: Names, days: int) -> Forgotten:
    """Forget the logs of the account's runs that ended more than some days ago; a kill costs nothing but time."""
    done = Forgotten()
    before = datetime.now(UTC) - timedelta(days=days)
    ended = ended_before(instance, before)
    for first in range(0, len(ended), _RUNS_AT_ONCE):
        wanted = dg.RunsFilter(run_ids=ended[first : first + _RUNS_AT_ONCE])
        ours = [
            run.run_id
            for run in runs_of(instance, wanted)
            if run.status not in ACTIVE and About(run, names).ours
        ]
        if ours:
            done.events += forget_log(instance, ours)
            done.runs += len(ours)
    return done
