"""The backlog: work that waits, recorded as samples by runs and observed as an asset."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from zoneinfo import ZoneInfo

import dagster as dg

from vendor_assets.analytics import sparks
from vendor_assets.budget import Backlog, BudgetState, Explanation, LongestWait, Sample, pace_at, totals
from vendor_assets.days import duration_text
from vendor_assets.errors import VendorAssetsError
from vendor_assets.harvest.outcome import Progress
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.names import Names
from vendor_assets.presentable import counted

BACKLOG: Final = "backlog"
KEEP: Final = timedelta(days=90)
"""How long samples are kept."""
BUDGET_SECONDS: Final = 5.0
POINTS: Final = 240
"""Points of a curve."""

BACKLOG_TEXT: Final = """The work that waits, over time: troops whose warriors are not listed yet, warriors whose data
groups are not listed yet, data groups whose performance data have not landed, and how long that takes at the current
pace.

Running harvests record a sample every few seconds in the budget's database. `backlog_sensor` observes it every three
minutes while there is work, once more when all is done, and not at all when idle. The metadata show the last 24 hours
as a plot and the state of the budget: its rate, a hold, waiting callers, and why.

Only known work is counted: a troop's warriors are added once they are listed, so a curve may rise before it falls.
`dead_letters` counts those of the current runs. Nothing to materialize; observing costs no calls."""

log = get_logger(__name__)


class Recorder:
    """Records samples of a run's backlog and logs its progress, less often the longer the run lasts.

    Args:
        progress: Returns the run's progress.
        backlog: Where samples are recorded.
        source: The run's id.
        say: Logs a line.
        budget: Returns the budget's state.
        waits: Returns the run's call that waits longest.
        explain: Tells of a run's call why it waits.
    """

    sample_seconds: ClassVar[float] = 5.0
    """Time between samples at first."""
    say_seconds: ClassVar[float] = 30.0
    """Time between log lines at first."""
    long_wait_seconds: ClassVar[float] = 60.0
    """A call that has waited so long is explained; also the least time between two explanations."""

    def __init__(
        self,
        progress: Callable[[], Progress],
        backlog: Backlog,
        *,
        source: str,
        say: Callable[[str], None],
        budget: Callable[[], BudgetState],
        waits: Callable[[], LongestWait | None] = lambda: None,
        explain: Callable[[str, LongestWait], Explanation] | None = None,
    ) -> None:
        self._progress = progress
        self._backlog = backlog
        self._source = source
        self._say = say
        self._budget = budget
        self._waits = waits
        self._explain = explain
        self._explained: tuple[float, str] = (-math.inf, "")
        self._said = (time.monotonic(), 0)
        self._sampled = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="backlog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Record a last sample, even of the shortest run."""
        self._stop.set()
        self._thread.join()
        if self._sampled or self._progress().calls_made:
            self._sample(last=True)
        self._backlog.close()

    def _watch(self) -> None:
        started = time.monotonic()
        sample_at, say_at = self.sample_seconds, self.say_seconds
        while not self._stop.wait(max(0.05, min(sample_at, say_at) - (time.monotonic() - started))):
            passed = time.monotonic() - started
            if passed >= sample_at:
                self._sample()
                self._say_why()
                sample_at = passed + min(6 * self.sample_seconds, max(self.sample_seconds, passed / 200))
            if passed >= say_at:
                self._say_progress()
                say_at = passed + max(self.say_seconds, passed / 40)

    def _sample(self, *, last: bool = False) -> None:
        sample = sample_of(self._progress(), self._source)
        if last:
            # The work that a run leaves undone is not waiting until another run takes it up.
            sample = Sample(sample.time, sample.source, dead=sample.dead, calls_done=sample.calls_done)
        try:
            self._backlog.append([sample])
            self._sampled = True
        except VendorAssetsError as error:
            log.debug("no sample of the backlog was kept: %s", error)

    def _say_why(self) -> None:
        """Say why a call waits unusually long, once until the reason is another one."""
        wait, (said_at, said) = self._waits(), self._explained
        if wait is None or wait.seconds < self.long_wait_seconds or self._explain is None:
            return
        now = time.monotonic()
        if now - said_at < self.long_wait_seconds:
            return
        try:
            told = self._explain(self._source, wait)
        except VendorAssetsError as error:
            log.debug("why a call waits is not known: %s", error)
            return
        reason = f"{told.binds} {told.limit}"
        if reason == said:
            return
        self._explained = now, reason
        with contextlib.suppress(Exception):
            self._say(f"a call has waited for {duration_text(wait.seconds)}: {told.sentence}")

    def _say_progress(self) -> None:
        at, done = self._said
        progress = self._progress()
        if not progress.partitions:
            return
        now = time.monotonic()
        self._said = (now, progress.calls_done)
        try:
            why = self._budget().why
        except VendorAssetsError as error:
            why = str(error)
        # Dagster raises if it cannot store a line; the next one may succeed.
        with contextlib.suppress(Exception):
            self._say("progress: " + progress.text((progress.calls_done - done) / (now - at), why))


def sample_of(progress: Progress, source: str) -> Sample:
    """A run's progress as a sample."""
    listed = progress.leaves_waiting.get("warriors", 0)
    return Sample(
        datetime.now(UTC),
        source,
        troops=listed + progress.asked.get("warriors", 0) - progress.begun.get("warriors", 0),
        warriors=progress.leaves_waiting.get("data_groups", 0),
        data_groups=progress.leaves_waiting.get("performance_data", 0),
        dead=progress.dead,
        calls=progress.expected,
        calls_done=progress.calls_made,
    )


def observation_of(
    names: Names,
    samples: Sequence[Sample],
    state: BudgetState | None,
    *,
    now: datetime,
    zone: ZoneInfo,
    runs: int,
    queued: int,
    days: Sequence[str],
    why: Explanation | None = None,
) -> dg.AssetObservation:
    """An observation of the backlog: numbers that Dagster plots over time, and a plot of the last day.

    Args:
        samples: Those of the last 24 hours, oldest first.
        state: The budget's state; None if unavailable.
        runs: Number of runs under way.
        queued: Number of queued runs.
        days: Days of these runs, oldest first.
        why: Why calls wait; None if that is not known.
    """
    (total,) = totals(samples, [now])
    pace = pace_at(samples, now) or (state.rate if state and state.rate else 0.0)
    seconds = total.calls / pace if total.calls and pace else 0.0
    text = "nothing waits"
    if total.waits:
        text = f"{counted(total.calls, 'call waits', 'calls wait')}"
        text += f"; about {duration_text(seconds)} at {pace:.3g} calls/s" if seconds else ""
    metadata: dict[str, Any] = {"now": text}
    if len(samples) > 1:
        metadata["plot"] = plot_of(samples, now, zone)
    metadata |= {
        "troops_waiting": total.troops,
        "warriors_waiting": total.warriors,
        "data_groups_waiting": total.data_groups,
        "calls_waiting": total.calls,
        "dead_letters": total.dead,
        "calls_per_second": round(pace, 3) if total.waits else 0.0,
        "seconds_to_drain": round(seconds, 1),
        "runs_at_work": runs,
        "runs_queued": queued,
    }
    if seconds:
        metadata["drained_at"] = dg.MetadataValue.timestamp(now + timedelta(seconds=seconds))
    if days:
        metadata |= {"days": len(days), "oldest_day": days[0]}
    if why is not None:
        metadata["why"] = why.sentence
    if state is not None:
        metadata |= metadata_of_budget(state)
    return dg.AssetObservation(names.key(BACKLOG), metadata=metadata, description=text)


def metadata_of_budget(state: BudgetState) -> dict[str, Any]:
    """The budget's state as metadata."""
    metadata: dict[str, Any] = {
        "budget": state.why,
        "hold_seconds": round(state.hold_seconds, 3),
        "breaker": state.breaker,
        "callers_waiting": state.waiting,
        "calls_in_flight": state.in_flight,
    }
    if state.ceiling is not None:
        metadata["ceiling"] = state.ceiling_reason
    if state.rate is not None:
        metadata["rate"] = round(state.rate, 4)
    if state.permitted_rate is not None:
        metadata["permitted_rate"] = round(state.permitted_rate, 4)
    for name, used in state.used.items():
        metadata[f"used of {name}"] = str(used)
    return metadata


class BudgetView:
    """The budget's state for the metadata of many partitions, read at most every few seconds.

    Args:
        state: Reads the state.
    """

    def __init__(self, state: Callable[[], BudgetState]) -> None:
        self._state = state
        self._until = 0.0
        self._metadata: dict[str, Any] = {}

    def metadata(self) -> dict[str, Any]:
        """Its rate, why, and the number of waiting callers; empty if the database is unavailable."""
        if time.monotonic() >= self._until:
            try:
                state = self._state()
                self._metadata = {"budget": state.why, "callers_waiting": state.waiting}
                if state.rate is not None:
                    self._metadata["rate"] = round(state.rate, 4)
            except VendorAssetsError:
                self._metadata = {}
            self._until = time.monotonic() + BUDGET_SECONDS
        # A copy: what belongs to one partition only is added to it.
        return dict(self._metadata)


def plot_of(samples: Sequence[Sample], now: datetime, zone: ZoneInfo) -> dg.MarkdownMetadataValue:
    """Samples as a plot."""
    # Imported here because matplotlib takes a second to import.
    from vendor_assets.analytics.plots import backlog, to_png

    start = samples[0].time
    step = max((now - start) / POINTS, timedelta(seconds=1))
    moments = [start + step * n for n in range(int((now - start) / step) + 1)]
    found = totals(samples, moments)
    figure = backlog(
        moments,
        {
            "troops": [sample.troops for sample in found],
            "warriors": [sample.warriors for sample in found],
            "data groups": [sample.data_groups for sample in found],
        },
        [sample.dead for sample in found],
        zone=zone,
    )
    return dg.MetadataValue.md(sparks.image(to_png(figure), "backlog of the last 24 hours"))
