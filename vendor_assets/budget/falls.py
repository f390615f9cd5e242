"""Falls: the rate at which a vendor failed, and the ceiling that holds for hours afterwards. Pure.

A vendor that fails without prior signs shows its limit only then. The rate of the seconds before is remembered: calls
continue at a quarter of it, return to half of it, and go no further for hours.

Calls and failures are counted in the second in which they were *sent*, because failures may be noticed late (a timeout)
and calls sent before an outage say nothing about the time after it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

CEILING_PART: Final = 0.5
"""Part of the rate at which the vendor fell, to which calls return."""

HOLDS_SECONDS: Final = 6 * 3600.0
"""Time for which a ceiling is constant before it rises."""

RISE_SECONDS: Final = 3600.0
"""Time in which a rising ceiling doubles."""

DOUBT_SECONDS: Final = 900.0
"""The same if only part of the calls failed at a rate borne before, which may be a passing problem."""

BORNE_SECONDS: Final = 25.0
"""A rate without failures for this time, longer than vendors look back, is borne."""

AGAIN_SECONDS: Final = 3600.0
"""A second fall within this time is attributed to the rate, even if it was borne before."""

BACK_CALLS: Final = 3
"""A vendor is back after this many answers in a row with at most one failure."""

CALM_CALLS: Final = 30
CALM_FAILURES: Final = 2
"""A vendor is calm after ``CALM_CALLS`` answers with at most this many failures between."""

LEAST_PART: Final = 1 / 16
"""Least ceiling after repeated falls, as a part of the rate of the first one."""

DOUBLING_SECONDS: Final = 20.0
"""Time in which calls return from a quarter to half, if the rate was too high for the vendor."""

CAREFUL_DOUBLING_SECONDS: Final = 480.0
"""The same if the rate had been borne before, so that the vendor's capacity is unknown now."""

LOW_DOUBLING_SECONDS: Final = 5.0
"""Time in which calls double up to the quarter."""

QUICK_START: Final = 0.125
QUICK_DOUBLING_SECONDS: Final = 1.2
"""After an outage not caused by the rate: from an eighth to the full rate within four seconds."""

FAILURES: Final = 5
"""Fewest failures that count as a fall although other calls are answered."""

FAILED_PART: Final = 0.2
"""Least part of the calls since the first failure that must fail."""

FAILING_SECONDS: Final = 1.0
"""Least time for which they must go on."""

PERSISTENT_SECONDS: Final = 10.0
"""If failures persist, the rate is halved after each such time."""

_ANY_LOAD_SECONDS: Final = 300.0
"""If failures persist for this time at the least rate, the rate is not their cause."""

_KEPT_SECONDS: Final = 45
_INSTANT_SECONDS: Final = 0.3
_IDLE_SECONDS: Final = 10.0
_GAP_SECONDS: Final = 5.0
_FEWEST_CALLS: Final = 5
_STALE_SECONDS: Final = 0.05


@dataclass(slots=True)
class Falls:
    """Recent calls, and what is known of the vendor's falls; times are the database's clock.

    Attributes:
        second: The first counted second.
        sent: Calls per second, from ``second`` on.
        began: When calls began after a pause.
        since: When the first failure of the current series was sent.
        last: When the last one was sent.
        noticed: When a failure was last reported.
        alive_at: When the last call with a sign of life was sent.
        borne: Highest rate sustained without failures since the last fall.
        bore_at: Second in which ``borne`` was last computed.
        ceiling: The rate not to exceed; None if there is none.
        until: When the ceiling starts to rise.
        rate: The rate at the last fall.
        first_rate: The rate at the first fall of a series.
        part: The part of calls that failed; 1 if none was answered.
        ramp: The initial rate after a fall; None if there is no ramp.
        ramp_at: When the ramp starts to rise.
        ramp_doubling: Seconds in which it doubles.
        ramp_to: The rate at which it ends.
        acted_at: When the rate was last changed because of failures; calls sent before no longer count.
        answered: Answers to calls sent since then.
        unanswered: Failures of calls sent since then.
        streak: Answers in a row, tolerating few failures.
        back: Whether the vendor answers again.
        calm: Whether it is back for good.
        failing_part: The part of calls that fails at any rate.
    """

    second: int = 0
    sent: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    began: float = 0.0
    since: float | None = None
    last: float = 0.0
    noticed: float = 0.0
    alive_at: float = 0.0
    borne: float = 0.0
    bore_at: int = 0
    ceiling: float | None = None
    until: float = 0.0
    rate: float = 0.0
    fell_at: float | None = None
    first_rate: float = 0.0
    number: int = 0
    part: float = 1.0
    ramp: float | None = None
    ramp_at: float = 0.0
    ramp_doubling: float = DOUBLING_SECONDS
    ramp_to: float = 0.0
    acted_at: float | None = None
    answered: int = 0
    unanswered: int = 0
    streak: int = 0
    back: bool = True
    calm: bool = True
    failing_part: float = 0.0

    def dump(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) != getattr(_NEW, name)}

    def shift(self, seconds: float) -> None:
        """Shift all times to another clock."""
        self.sent, self.failed = [], []
        self.since = None
        self.began += seconds
        self.alive_at += seconds
        self.noticed += seconds
        self.until += seconds
        self.ramp_at += seconds
        self.fell_at = None if self.fell_at is None else self.fell_at + seconds
        self.acted_at = None if self.acted_at is None else self.acted_at + seconds

    # -- what it permits ---------------------------------------------------------------------------

    def permitted(self, now: float) -> float | None:
        """The highest rate allowed now, in calls per second; None if unlimited."""
        ceiling = self.height(now)
        if self.ramp is None:
            return ceiling
        passed = max(0.0, now - self.ramp_at)
        low = 0.5 * self.ramp_to
        doublings = passed / self.ramp_doubling
        if not self._quick and self.ramp < low:
            missing = math.log2(low / self.ramp)
            quick = min(passed / LOW_DOUBLING_SECONDS, missing)
            doublings = quick + (passed - quick * LOW_DOUBLING_SECONDS) / self.ramp_doubling
        ramp = self.ramp * math.pow(2.0, min(doublings, 60.0))
        if ramp >= self.ramp_to:
            return ceiling
        return ramp if ceiling is None else min(ramp, ceiling)

    def height(self, now: float) -> float | None:
        """The current ceiling, which rises after some hours."""
        if self.ceiling is None or now <= self.until:
            return self.ceiling
        return self.ceiling * math.pow(2.0, min((now - self.until) / RISE_SECONDS, 60.0))

    def returning(self, now: float) -> bool:
        """Whether the rate is still below the ceiling after a fall."""
        permitted = self.permitted(now)
        return self.ramp is not None and permitted is not None and permitted != self.height(now)

    def reason(self, now: float, wall: datetime) -> str:
        """Why there is a ceiling, in one sentence; empty if there is none."""
        height = self.height(now)
        if height is None or self.fell_at is None:
            return ""
        fell = wall - timedelta(seconds=now - self.fell_at)
        how = "stopped answering" if self.part >= 1.0 else f"failed {self.part:.0%} of the calls"
        until = wall + timedelta(seconds=self.until - now)
        lasts = (
            f"until {until:%Y-%m-%d %H:%M} UTC, then slowly more" if now < self.until else "and slowly more"
        )
        return (
            f"the vendor {how} at {self.rate:.3g} calls/s on {fell:%Y-%m-%d at %H:%M} UTC; "
            f"at most {height:.3g} calls/s {lasts}"
        )

    def forget(self) -> None:
        """Forget the ceiling and the falls that led to it."""
        self.ceiling = self.ramp = self.fell_at = None
        self.number = 0
        self.back = self.calm = True

    # -- what happened -----------------------------------------------------------------------------

    def count(
        self, sent: Counter[int], failed: Counter[int], now: float, alive_at: float = -math.inf
    ) -> None:
        """Count calls and failures by the time at which they were sent.

        Args:
            sent: Calls by quarter of a second.
            failed: Failures by quarter of a second.
        """
        self.alive_at = max(self.alive_at, min(alive_at, now))
        for quarter in sorted(sent):
            at = _middle(quarter, now)
            if not any(self.sent[-int(_IDLE_SECONDS) :]) or at > self.second + len(self.sent) + _IDLE_SECONDS:
                self.began = at
            self._add(self.sent, at, sent[quarter])
        for quarter in sorted(failed):
            at = _middle(quarter, now)
            self._add(self.failed, at, failed[quarter])
            if self.acted_at is not None and at <= self.acted_at + _STALE_SECONDS:
                continue
            self.noticed = now
            self.unanswered += failed[quarter]
            if self.unanswered % (CALM_FAILURES + 1) == 0:
                self.streak = 0
            if self.since is None or at > self.last + _GAP_SECONDS:
                self.since = self.last = at
            self.since = min(self.since, at)
            self.last = max(self.last, at)
        old = math.floor(now) - _KEPT_SECONDS - self.second
        if old > 0:
            del self.sent[:old], self.failed[:old]
            self.second += old

    def look(self, answered: int, now: float, *, known: bool) -> None:
        """Update the sustained rate, and see whether part of the calls has failed for long enough.

        Args:
            answered: Answers to calls sent after the last fall.
        """
        self._see_whether_back(answered, now)
        self._bear(now)
        height = self.height(now)
        if height is not None and height > 4 * self.rate:
            self.forget()
        if self.noticed < now:
            return
        if not self.calm:
            self._go_down(now)
        elif (row := self._row()) is not None and now - row[0] >= FAILING_SECONDS:
            self.fall(now, row[1], known=known)

    def fall(self, now: float, part: float = 1.0, *, known: bool, onset: float | None = None) -> None:
        """Record a fall: find its rate, and set the ceiling and the ramp for the time after.

        Args:
            part: The part of the calls that failed.
            onset: When the first failed call was sent; None uses the counted failures.
        """
        row = self._row()
        if row is not None and self.since is not None and self.alive_at > self.since + _INSTANT_SECONDS:
            # Other calls were answered, so consecutive failures may be chance.
            part = min(part, row[1])
        if onset is None:
            onset = row[0] if row is not None else self.since if self.since is not None else now
        again = self.fell_at is not None and now - self.fell_at <= AGAIN_SECONDS
        calls, pace, rate = self._before(onset, now, abrupt=known and not again and self.ramp is None)
        # While part of the calls keeps failing, consecutive failures may be chance.
        was_back = self.calm or (self.back and self.part >= 1.0)
        self._start_anew(now)
        if not was_back:
            # The vendor is unstable: return at a lower rate, more slowly.
            if self.ramp is not None:
                self.ramp = max(0.5 * self.ramp, LEAST_PART * max(self.first_rate, self.ramp_to))
                self.ramp_doubling = max(self.ramp_doubling, DOUBLING_SECONDS)
            return
        if self._quick:
            self.ramp = None
        fewest = _FEWEST_CALLS if known or again or self.borne else 2
        if calls < fewest or (not again and pace <= 0.5 * self.borne) or self.failing_part:
            # Too few calls to be the cause, or failures that occur at any rate.
            return
        doubtful = known and not again and pace <= 1.15 * self.borne
        self.rate, self.fell_at, self.part = rate, now, part
        if not again:
            self.number, self.first_rate = 0, rate
        if doubtful and part >= 1.0:
            return
        ceiling = CEILING_PART * rate
        height = self.height(now)
        if height is not None:
            ceiling = min(ceiling, CEILING_PART * height)
        self.number += 1
        careful = pace <= 1.15 * self.borne
        self.borne = 0.0
        self.ceiling = max(ceiling, LEAST_PART * self.first_rate)
        self.until = now + (DOUBT_SECONDS if doubtful else HOLDS_SECONDS)
        self.ramp, self.ramp_at = 0.5 * self.ceiling, now + _GAP_SECONDS
        self.ramp_doubling = CAREFUL_DOUBLING_SECONDS if careful else DOUBLING_SECONDS
        self.ramp_to = self.ceiling

    def come_back(self, now: float, current: float) -> None:
        """Start the ramp after the vendor's first answer.

        Args:
            current: The rate that everything else permits.
        """
        self._start_anew(now)
        self.answered = self.streak = 1
        if self.ramp is not None and not self._quick:
            self.ramp_at = now
        elif not math.isinf(current):
            self.ramp, self.ramp_at, self.ramp_to = QUICK_START * current, now, current
            self.ramp_doubling = QUICK_DOUBLING_SECONDS

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _quick(self) -> bool:
        return self.ramp_doubling == QUICK_DOUBLING_SECONDS

    def _start_anew(self, now: float) -> None:
        """Count only calls sent from now on."""
        self.acted_at, self.since = now, None
        self.back = self.calm = False
        self.answered = self.unanswered = self.streak = 0

    def _see_whether_back(self, answered: int, now: float) -> None:
        if self.calm:
            return
        self.answered += answered
        self.streak += answered
        quiet = self.noticed < now - _GAP_SECONDS
        self.back = self.back or (self.streak >= BACK_CALLS and (quiet or self.unanswered <= 1))
        if self.streak >= CALM_CALLS:
            self.calm, self.since = True, None
        elif not (self._quick or self.failing_part or (self.back and quiet)):
            self.ramp_at = max(self.ramp_at, now)

    def _add(self, counts: list[int], at: float, number: int) -> None:
        if not self.sent and not self.failed:
            self.second = math.floor(at)
        place = math.floor(at) - self.second
        if place < 0:
            return
        counts.extend([0] * (place + 1 - len(counts)))
        counts[place] += number

    def _sum(self, counts: list[int], start: float, end: float) -> float:
        """Calls between two times, spread evenly within each second."""
        total = 0.0
        for place in range(max(0, math.floor(start) - self.second), len(counts)):
            second = self.second + place
            if second >= end:
                break
            total += counts[place] * (min(end, second + 1.0) - max(start, second))
        return total

    def _row(self) -> tuple[float, float] | None:
        """Since when a large part of the calls has failed, and that part; None if that is not the case.

        The part must exceed what chance explains if a fifth of the calls fails: by four standard deviations, or two if
        failures were noticed seconds after they were sent, because many calls were sent since.
        """
        if self.since is None:
            return None
        usual = min(FAILED_PART + self.failing_part, 0.9)
        first, last = (max(0, math.floor(at) - self.second) for at in (self.since, self.last))
        found = None
        deviations = 2 if self.noticed > self.last + _GAP_SECONDS else 4
        failed = sent = 0
        for place in range(min(last, len(self.failed) - 1), first - 1, -1):
            here = self.sent[place] if place < len(self.sent) else 0
            sent += here
            failed += self.failed[place]
            moment = max(self.since, float(self.second + place))
            # Of the first second, only the calls from that moment on.
            calls = max(sent - here * (moment - self.second - place), float(failed))
            chance = usual * calls + deviations * math.sqrt(usual * (1 - usual) * calls)
            if failed >= max(FAILURES, chance):
                found = moment, failed / calls
        return found

    def _before(self, onset: float, now: float, *, abrupt: bool) -> tuple[float, float, float]:
        """The calls before a fall.

        Args:
            onset: When it began.
            now: The time.
            abrupt: Whether calls had the full pace from the first one on.

        Returns:
            Calls in the seconds before, their pace, and the rate to blame.
        """
        began = self._began_before(onset)
        active = max(0.0, onset - began)
        span = 3.0
        while span < 30.0 and active > span and self._sum(self.sent, onset - span, onset) < 2 * _FEWEST_CALLS:
            span += 3.0
        start = max(onset - span, began)
        calls = self._sum(self.sent, start, onset)
        if math.floor(start) == math.floor(began):
            # The first second was not complete.
            first = self._sum(self.sent, math.floor(start), math.floor(start) + 1.0)
            whole = min(math.floor(start) + 1.0, now) - began
            inside = min(math.floor(start) + 1.0, onset) - start
            calls += first * (inside / max(whole, inside, 0.01) - inside)
        pace = calls / max(min(active, span), 0.25)
        if abrupt and active < _IDLE_SECONDS:
            # The vendor may look back over ten seconds, of which only these had calls.
            every = max(calls, self._sum(self.sent, began - 1.0, onset))
            return calls, pace, every / max(1.5, 1.9 * active)
        return calls, pace, calls / min(max(active, 2.0), span)

    def _began_before(self, onset: float) -> float:
        """When the uninterrupted calls before a time began."""
        if self.began <= onset:
            return self.began
        first = place = math.floor(onset) - self.second
        while place >= 0 and first - place <= _IDLE_SECONDS:
            if place < len(self.sent) and self.sent[place]:
                first = place
            place -= 1
        return float(self.second + first)

    def _bear(self, now: float) -> None:
        end = math.floor(now)
        if self.began > now - BORNE_SECONDS - 1.0 or end == self.bore_at:
            return
        self.bore_at = end
        sent = self._sum(self.sent, end - BORNE_SECONDS, end)
        failed = self._sum(self.failed, end - BORNE_SECONDS, end)
        if sent and failed <= 0.05 * sent:
            self.borne = max(self.borne, sent / BORNE_SECONDS)
            self.failing_part = 0.0

    def _go_down(self, now: float) -> None:
        """Lower the rate further if calls keep failing after a fall."""
        if self.ramp is None or self._quick or self.acted_at is None:
            return
        if self.ceiling is None or now - self.acted_at < PERSISTENT_SECONDS:
            return
        part = self.unanswered / max(1, self.answered + self.unanswered)
        if self.unanswered <= CALM_FAILURES or part < FAILED_PART + self.failing_part:
            return
        least = LEAST_PART * self.first_rate
        if self.ramp <= least and self.fell_at is not None and now - self.fell_at > _ANY_LOAD_SECONDS:
            # The rate is not the cause.
            self.forget()
            self.failing_part = part
            return
        self.ramp = max(0.5 * self.ramp, least)
        self.ramp_at = now
        back = self.back
        self._start_anew(now)
        self.back = back


def _middle(quarter: int, now: float) -> float:
    return min((quarter + 0.5) / 4, now)


_NEW: Final = Falls()
_NAMES: Final = tuple(entry.name for entry in fields(Falls))
