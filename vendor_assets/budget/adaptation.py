"""Adaptation of the rate to the vendor's capacity, learnt from its answers. Pure.

It reacts to three signs: throttles (429, or 503 with Retry-After), strain (latency far above its baseline), and, if no
limit is known, the number of calls queued at the vendor (Little's law over the latency above the baseline, the idea of
TCP Vegas).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from vendor_assets.budget.reservations import Correction

Mode = Literal["free", "search", "recover", "plateau", "probe"]

START_RATE: Final = 2.0
"""Initial rate of a search, calls per second."""

APPROACH: Final = 2.0 ** (1 / 7)
"""Growth of the rate per second until the first sign: slow, because signs are delayed."""

FURTHER: Final = 1.05
"""Growth of the rate per second after the first sign."""

LOWEST_RATE: Final = 0.05
HIGHEST_RATE: Final = 10_000.0

CUT: Final = 0.7
"""Part of the rate that a cut leaves."""

CUT_INTERVAL_SECONDS: Final = 10.0
"""Strain cuts at most once in this time."""

RECOVERY_SECONDS: Final = 30.0
"""Time from a cut back to just below the rate that caused it: fast at first, slow near it."""

PROBE_INTERVAL_SECONDS: Final = 600.0
"""Time between two attempts to exceed a throttled rate."""

FORGET_SECONDS: Final = 3600.0
"""After this time without throttles, the next one counts as the first again."""

SETTLED_SECONDS: Final = 120.0
"""Time between two searches for the capacity if the share is below one."""

_WINDOW_SECONDS: Final = 1.0
_WINDOW_CALLS: Final = 5
_ENDPOINTS: Final = 50
_QUEUE_LOW: Final = 4.0
_QUEUE_HIGH: Final = 9.0
_DEFAULT_HOLD_SECONDS: Final = 1.0
_LONGEST_DEFAULT_HOLD_SECONDS: Final = 60.0


@dataclass(slots=True)
class Tally:
    """The results of a process's calls since its last report.

    Attributes:
        answered: Calls with an answer, including 4xx.
        failed: Calls without an answer, or with a 5xx.
        failed_since_answer: Calls without a sign of life after the last answer.
        latencies: Endpoint -> number and total seconds of answered calls.
        sent: Calls by the quarter of a second in which they were sent, on the process's clock.
        failures: The same for ``failed``.
        alive_at: When the last call with a sign of life was sent.
        against: (quota, whether firmly) -> answers that contradict what the vendor states of it.
        corrections: What calls really counted.
    """

    answered: int = 0
    failed: int = 0
    failed_since_answer: int = 0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    sent: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    alive_at: float = -math.inf
    against: Counter[tuple[str, bool]] = field(default_factory=Counter)
    corrections: list[Correction] = field(default_factory=list)

    def send(self, now: float) -> None:
        """Count a call that is sent now."""
        self.sent[math.floor(4 * now)] += 1

    def add(
        self, endpoint: str, seconds: float, *, alive: bool, answered: bool, now: float = math.inf
    ) -> None:
        """Count the result of a call that ends now."""
        sent_at = now - seconds
        if alive:
            self.failed_since_answer = 0
            self.alive_at = max(self.alive_at, sent_at)
        if not answered and math.isfinite(sent_at):
            self.failures[math.floor(4 * sent_at)] += 1
        if answered:
            self.answered += 1
            sums = self.latencies.setdefault(endpoint, [0.0, 0.0])
            sums[0] += 1
            sums[1] += seconds
        else:
            self.failed += 1
            self.failed_since_answer += not alive

    def moved(self, seconds: float) -> Tally:
        """The tally on a clock shifted by some seconds."""
        if abs(seconds) < 0.05:
            return self
        return replace(
            self,
            sent=Counter({quarter + round(4 * seconds): number for quarter, number in self.sent.items()}),
            failures=Counter({quarter + round(4 * seconds): n for quarter, n in self.failures.items()}),
            alive_at=self.alive_at + seconds,
        )

    def failed_after(self, moment: float) -> int:
        """Consecutive failures at the end that were sent after a time."""
        return min(
            self.failed_since_answer,
            self.failed
            - sum(number for quarter, number in self.failures.items() if (quarter + 0.5) / 4 <= moment),
        )

    def add_against(self, quotas: Sequence[str], firmly: Sequence[str]) -> None:
        """Count an answer that contradicts what the vendor states of quotas."""
        self.against.update((quota, quota in firmly) for quota in quotas)

    def join(self, later: Tally) -> None:
        """Add a later tally."""
        self.sent += later.sent
        self.failures += later.failures
        self.alive_at = max(self.alive_at, later.alive_at)
        self.failed_since_answer = later.failed_since_answer + (
            0 if later.answered else self.failed_since_answer
        )
        self.answered += later.answered
        self.failed += later.failed
        self.against += later.against
        self.corrections += later.corrections
        for endpoint, (number, seconds) in later.latencies.items():
            sums = self.latencies.setdefault(endpoint, [0.0, 0.0])
            sums[0] += number
            sums[1] += seconds

    def __bool__(self) -> bool:
        return bool(self.answered or self.failed or self.sent or self.corrections)


@dataclass(slots=True)
class Tuning:
    """What was learnt about a vendor account; times are the database's clock.

    Attributes:
        mode: ``free``: limited by quotas only; ``search``: looking for the capacity, no limit is known; ``recover``:
            rising after a cut; ``plateau``: just below a throttled rate; ``probe``: exceeding it.
        rate: The adapted rate; None while free.
        low: The rate at which a recovery started.
        target: The rate to which it leads.
        since: When the recovery or plateau started.
        until: When the plateau ends.
        cut_at: Time of the last cut.
        before: The rate before the last cut or probe.
        throttled_at: The last throttle that did not follow another directly.
        resumed_at: The first answer after it.
        admitted: Answers since then.
        streak: Consecutive throttles.
        starting: Whether a search has seen no sign yet.
        queue: Calls queued at the vendor, smoothed.
        slow: Consecutive slow windows.
        window_at: Start of the current window.
        answered: Answered calls in the window.
        failed: Failed calls in the window.
        window: Endpoint -> number and total seconds of answered calls in the window.
        delivered: Answers per second, smoothed.
        needed: The last hold for which the vendor gave no time; the next series starts at a fourth of it.
        baseline: Endpoint -> latency without load, in seconds.
    """

    mode: Mode = "free"
    rate: float | None = None
    low: float = 0.0
    target: float = 0.0
    since: float = 0.0
    until: float = 0.0
    cut_at: float | None = None
    before: float = 0.0
    throttled_at: float | None = None
    resumed_at: float | None = None
    admitted: int = 0
    streak: int = 0
    starting: bool = True
    queue: float = 0.0
    slow: int = 0
    window_at: float | None = None
    answered: int = 0
    failed: int = 0
    window: dict[str, list[float]] = field(default_factory=dict)
    delivered: float = 0.0
    needed: float = 0.0
    baseline: dict[str, float] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) != getattr(_NEW, name)}

    def start_search(self) -> None:
        """Start to look for the vendor's capacity."""
        self.mode = "search"
        self.rate = START_RATE
        self.starting = True

    def shift(self, seconds: float) -> None:
        """Shift all times to another clock."""
        self.since += seconds
        self.until += seconds
        self.cut_at = _moved(self.cut_at, seconds)
        self.throttled_at = _moved(self.throttled_at, seconds)
        self.resumed_at = _moved(self.resumed_at, seconds)
        self.window_at = _moved(self.window_at, seconds)

    # -- signs -------------------------------------------------------------------------------------

    def throttle(self, now: float, current: float) -> float:
        """React to a throttled call, sent at ``current`` calls per second.

        The first throttle cuts the rate, slightly if a limit is known. From the second on, the number of answers
        between two throttles tells the vendor's limit.

        Returns:
            Seconds to hold if the vendor gives no time.
        """
        self.streak += 1
        before = self.needed / 8 if self.streak == 1 else self.needed
        self.needed = hold = min(max(_DEFAULT_HOLD_SECONDS, 2 * before), _LONGEST_DEFAULT_HOLD_SECONDS)
        if self.streak > 1:
            return hold
        admitted = self._admitted_rate(now)
        if self.throttled_at is None and self.mode == "free":
            # One throttle may be chance: a late call, another team. A second one tells more.
            self._cut(now, current, 0.95 * current, current)
        elif admitted is None:
            self._cut(now, current, max(current * CUT, LOWEST_RATE), 0.95 * current)
        else:
            # The limit is between the average admitted rate and the throttled one.
            low = max(min(admitted, current), self.before if self.mode == "probe" else 0.0)
            if low >= 0.95 * current:
                self._settle(now, 0.97 * current, PROBE_INTERVAL_SECONDS)
                self.cut_at = now
            else:
                self._cut(now, current, 0.97 * low, 0.97 * current)
        self.throttled_at, self.resumed_at = now, None
        self.admitted = 0
        return hold

    def strain(self, now: float, current: float) -> None:
        """Cut the rate because the vendor is strained, unless that was just done."""
        if self.cut_at is not None and now - self.cut_at < CUT_INTERVAL_SECONDS:
            return
        target = current if self.mode != "recover" else max(self.target, current)
        self._cut(now, current, max(current * CUT, LOWEST_RATE), target)

    def undo_cut(self, since: float) -> None:
        """Undo cuts after a time, because the vendor was down and not strained."""
        if self.cut_at is not None and self.cut_at >= since and self.mode == "recover":
            self.rate = self.before
            self.low = self.before
            self.target = max(self.target, self.before)

    def absorb(
        self, tally: Tally, now: float, ceiling: float, share: float, permitted: float = math.inf
    ) -> None:
        """Add the results of calls, and adapt the rate once a second.

        Args:
            ceiling: The rate that the limits permit; infinite if none is known.
            share: Our part of the vendor's capacity, used if no limit is known.
            permitted: The highest rate allowed since the vendor fell.
        """
        if tally.answered:
            self.streak = 0
            self.admitted += tally.answered
            if self.resumed_at is None:
                self.resumed_at = now
        for endpoint, (number, seconds) in tally.latencies.items():
            sums = self.window.setdefault(endpoint, [0.0, 0.0])
            sums[0] += number
            sums[1] += seconds
        self.answered += tally.answered
        self.failed += tally.failed
        if self.window_at is None:
            self.window_at = now
        passed = now - self.window_at
        calls = self.answered + self.failed
        if passed < _WINDOW_SECONDS or (calls < _WINDOW_CALLS and passed < 5 * _WINDOW_SECONDS):
            return
        self._tick(now, passed, ceiling, share, permitted)
        self.window_at = now
        self.answered = self.failed = 0
        self.window = {}

    # -- inside ------------------------------------------------------------------------------------

    def _admitted_rate(self, now: float) -> float | None:
        """Calls per second that the vendor admitted since the last throttle."""
        if self.throttled_at is None or self.resumed_at is None or self.admitted < 10:
            return None
        if now - self.resumed_at < 1.0:
            return None
        return self.admitted / (now - self.throttled_at)

    def _cut(self, now: float, current: float, rate: float, target: float) -> None:
        self.before = current
        self.rate = self.low = max(rate, LOWEST_RATE)
        self.target = max(target, self.low)
        self.mode = "recover"
        self.since = self.cut_at = now
        self.starting = False

    def _settle(self, now: float, rate: float, seconds: float) -> None:
        self.mode = "plateau"
        self.rate = max(rate, LOWEST_RATE)
        self.since = now
        self.until = now + seconds
        self.starting = False

    def _measure(self) -> tuple[float, float]:
        """Total latency of the window's answers above their baseline, and the baseline's total."""
        excess = calm = 0.0
        for endpoint, (number, seconds) in self.window.items():
            mean = seconds / number
            base = self.baseline.get(endpoint, mean)
            if mean < base:
                base += (mean - base) * min(1.0, number / 20)
            else:
                # Permanent slowness becomes the baseline within some ten thousand calls.
                base += (mean - base) * min(1.0, number / 20_000)
            if endpoint in self.baseline or len(self.baseline) < _ENDPOINTS:
                self.baseline[endpoint] = base
            calm += base * number
            excess += max(0.0, seconds - base * number)
        return excess, calm

    def _tick(self, now: float, passed: float, ceiling: float, share: float, permitted: float) -> None:
        current = min(self.rate if self.rate is not None else HIGHEST_RATE, ceiling, permitted)
        excess, calm = self._measure()
        weight = min(1.0, passed / 3.0)
        self.queue += (excess / passed - self.queue) * weight
        self.delivered += (self.answered / passed - self.delivered) * weight
        offered = (self.answered + self.failed) / passed
        if self.mode == "search":
            self._search(now, passed, current, offered, share)
        elif self._is_slow(excess, calm):
            self.strain(now, current)
        if self.mode == "free" and self.throttled_at is not None and now - self.throttled_at > FORGET_SECONDS:
            self.throttled_at = None
        if self.mode == "recover":
            self._recover(now, ceiling)
        elif self.mode == "plateau" and now >= self.until:
            self.mode = "search" if math.isinf(ceiling) and self.throttled_at is None else "probe"
            self.before = current
        elif self.mode == "probe" and offered >= 0.7 * current:
            self.rate = min(current * math.pow(1.01, passed), HIGHEST_RATE)
            if self.rate >= ceiling:
                self._be_free()

    def _is_slow(self, excess: float, calm: float) -> bool:
        """Whether answers were far slower than the baseline in two consecutive windows."""
        enough = self.answered >= _WINDOW_CALLS
        slow = enough and excess > max(4 * calm, 0.5 * self.answered)
        self.slow = self.slow + 1 if slow else 0
        return self.slow >= 2

    def _recover(self, now: float, ceiling: float) -> None:
        left = max(0.0, 1.0 - (now - self.since) / RECOVERY_SECONDS)
        self.rate = self.target - (self.target - self.low) * left**3
        if left > 0.0:
            return
        if self.target >= ceiling * 0.999:
            self._be_free()
        elif math.isinf(ceiling) and self.throttled_at is None:
            self.mode = "search"
        else:
            self._settle(now, self.target, PROBE_INTERVAL_SECONDS)

    def _search(self, now: float, passed: float, current: float, offered: float, share: float) -> None:
        if self.queue > _QUEUE_HIGH:
            behind = self.delivered < 0.85 * current
            if self.cut_at is not None and now - self.cut_at < (2.0 if behind else 5.0):
                return
            self.starting = False
            self.cut_at = now
            found = min(self.delivered, current)
            if share < 0.95:
                self._settle(now, share * found, SETTLED_SECONDS)
                return
            # Far above the capacity the queue has to drain; near it a small cut is enough.
            drain = 0.75 if self.queue > 2 * _QUEUE_HIGH else 0.92
            self.rate = max(drain * found, LOWEST_RATE)
        elif self.queue < _QUEUE_LOW and offered >= 0.7 * current:
            held = self.rate is not None and current < self.rate
            if held or (current > 1.2 * self.delivered and not self.starting):
                return
            growth = APPROACH if self.starting else FURTHER
            self.rate = min(current * math.pow(growth, min(passed, 1.5)), HIGHEST_RATE)

    def _be_free(self) -> None:
        self.mode = "free"
        self.rate = None


def _moved(moment: float | None, seconds: float) -> float | None:
    return None if moment is None else moment + seconds


_NEW: Final = Tuning()
_NAMES: Final = tuple(entry.name for entry in fields(Tuning))
