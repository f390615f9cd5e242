"""Falls: how a vendor went down, and the rate that is not approached again for hours. Pure.

A vendor that gives no sign before it falls shows its limit once. What was sent in the seconds before is remembered
as the rate at which it fell: calls go on at a quarter of it, return to half of it, and no further for hours.

Calls and failures are counted by the second in which they were *sent*: a failure that is noticed late (a timeout)
tells of the moment of its sending, and what was sent before an outage says nothing after it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

QUIET_PART: Final = 0.25
"""After a fall calls go on at this part of the rate at which the vendor fell ..."""

CEILING_PART: Final = 0.5
"""... and return to this part of it."""

HOLDS_SECONDS: Final = 6 * 3600.0
"""How long a ceiling stays as it is; after that it rises ..."""

RISE_SECONDS: Final = 3600.0
"""... to twice its height in this time."""

DOUBT_SECONDS: Final = 900.0
"""How long a ceiling stays where part of the calls failed at a rate that had been borne: that may have passed."""

BORNE_SECONDS: Final = 25.0
"""A rate that was sent for so long without failures is borne: longer than vendors look back."""

AGAIN_SECONDS: Final = 3600.0
"""The second fall within this time is blamed on the rate, whatever was borne before."""

BACK_CALLS: Final = 3
"""A vendor is back once so many calls were answered, and one failed at most ..."""

CALM_CALLS: Final = 30
CALM_FAILURES: Final = 2
"""... and calm once so many were in a row, or with so few failures in between."""

LEAST_PART: Final = 1 / 16
"""Falls in a row halve the ceiling down to this part of the rate at which the first one was."""

DOUBLING_SECONDS: Final = 20.0
"""From a quarter to half of the rate at which the vendor fell, where that was too much for it ..."""

CAREFUL_DOUBLING_SECONDS: Final = 480.0
"""... and where it had been borne before: nobody knows what the vendor bears now."""

LOW_DOUBLING_SECONDS: Final = 5.0
"""Up to the quarter."""

QUICK_START: Final = 0.125
QUICK_DOUBLING_SECONDS: Final = 1.2
"""After an outage that was not caused by the rate: from an eighth of it to all of it within four seconds."""

FAILURES: Final = 5
"""So many failures ..."""

FAILED_PART: Final = 0.2
"""... that are this part of the calls since the first of them ..."""

FAILING_SECONDS: Final = 1.0
"""... and go on for so long are a fall, too, where the vendor still answers the others."""

PERSISTENT_SECONDS: Final = 10.0
"""Where that goes on, the rate is halved after this time, and again."""

_ANY_LOAD_SECONDS: Final = 300.0
"""Where it goes on for so long at the least rate, it is not the rate."""

_KEPT_SECONDS: Final = 45
_INSTANT_SECONDS: Final = 0.3
_IDLE_SECONDS: Final = 10.0
_GAP_SECONDS: Final = 5.0
_FEWEST_CALLS: Final = 5
_STALE_SECONDS: Final = 0.05


@dataclass(slots=True)
class Falls:
    """What was sent of late, and what is known of how the vendor fell; times are the database's clock.

    Attributes:
        second: The first second that is counted.
        sent: Calls by second, from there on.
        failed: How many of them failed.
        began: When calls began after a pause.
        since: The first failure of the present row, by its sending.
        last: The last one.
        noticed: When a failure was last heard of.
        alive_at: When the last call was sent that gave a sign of life.
        borne: The highest rate that was sent for long without failures, since the last fall.
        bore_at: In which second that was looked at last.
        ceiling: The rate that is not passed; None where there is none.
        until: When it starts to rise.
        rate: The rate at which the vendor fell last.
        fell_at: When; None where it never did.
        first_rate: The rate of the first fall of a row.
        number: Falls in that row.
        part: The part of the calls that failed; 1 where nothing was answered.
        ramp: The rate after a fall at first; None where there is no ramp.
        ramp_at: When it starts to rise.
        ramp_doubling: The seconds in which it doubles.
        ramp_to: Where it ends.
        acted_at: When something was done about failures; those that were sent before say nothing new.
        answered: Answers to what was sent since.
        unanswered: Failures of what was sent since.
        streak: Answers in a row, with few failures in between.
        back: Whether the vendor is back since.
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
        """What differs from a new one."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) != getattr(_NEW, name)}

    def shift(self, seconds: float) -> None:
        """Move all times."""
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
        """The rate that is not passed now, in calls per second; None where there is none."""
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
        """The ceiling, which rises after some hours."""
        if self.ceiling is None or now <= self.until:
            return self.ceiling
        return self.ceiling * math.pow(2.0, min((now - self.until) / RISE_SECONDS, 60.0))

    def returning(self, now: float) -> bool:
        """Whether calls are on their way back after a fall."""
        permitted = self.permitted(now)
        return self.ramp is not None and permitted is not None and permitted != self.height(now)

    def reason(self, now: float, wall: datetime) -> str:
        """Why there is a ceiling, in one sentence; empty where there is none.

        Args:
            now: The time.
            wall: The same, for people.
        """
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
        """Somebody knows better: nothing is known any more of how the vendor fell."""
        self.ceiling = self.ramp = self.fell_at = None
        self.number = 0
        self.back = self.calm = True

    # -- what happened -----------------------------------------------------------------------------

    def count(
        self, sent: Counter[int], failed: Counter[int], now: float, alive_at: float = -math.inf
    ) -> None:
        """Take in calls, and failures by the moment at which they were sent.

        Args:
            sent: Calls by quarter of a second.
            failed: Failures by that of their sending.
            now: The time.
            alive_at: When the last of the calls was sent that gave a sign of life.
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
        """See what was borne, and whether part of the calls has failed for long enough.

        Args:
            answered: Answers to what was sent after the last fall.
            now: The time.
            known: Whether there is a limit that the vendor told, or somebody set.
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
        """The vendor has fallen: learn at which rate, and what to do when it is back.

        Args:
            now: The time.
            part: The part of the calls that failed.
            known: Whether there is a limit that the vendor told, or somebody set.
            onset: When it began, by the sending of the first call that failed; None: as counted.
        """
        row = self._row()
        if row is not None and self.since is not None and self.alive_at > self.since + _INSTANT_SECONDS:
            # A row of failures may be chance: others were answered.
            part = min(part, row[1])
        if onset is None:
            onset = row[0] if row is not None else self.since if self.since is not None else now
        again = self.fell_at is not None and now - self.fell_at <= AGAIN_SECONDS
        calls, pace, rate = self._before(onset, now, abrupt=known and not again and self.ramp is None)
        # Where part of the calls goes on to fail, a row of failures may be chance.
        was_back = self.calm or (self.back and self.part >= 1.0)
        self._start_anew(now)
        if not was_back:
            # The vendor goes on and off: come back lower, and slower.
            if self.ramp is not None:
                self.ramp = max(0.5 * self.ramp, LEAST_PART * max(self.first_rate, self.ramp_to))
                self.ramp_doubling = max(self.ramp_doubling, DOUBLING_SECONDS)
            return
        if self._quick:
            self.ramp = None
        fewest = _FEWEST_CALLS if known or again or self.borne else 2
        if calls < fewest or (not again and pace <= 0.5 * self.borne) or self.failing_part:
            # Too few calls to have done it, or failures that no rate avoids.
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
        """The vendor answers again: everybody comes back, in little steps.

        Args:
            now: The time.
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
        """Only what is sent from now on tells whether the vendor is back."""
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
        """Calls between two moments, spread evenly within each second."""
        total = 0.0
        for place in range(max(0, math.floor(start) - self.second), len(counts)):
            second = self.second + place
            if second >= end:
                break
            total += counts[place] * (min(end, second + 1.0) - max(start, second))
        return total

    def _row(self) -> tuple[float, float] | None:
        """Since when a large part of the calls has failed, and which; None where none does.

        The part has to be larger than chance makes it where a fifth of the calls fails: by four deviations, or two
        where calls got no answer for many seconds, as much was sent since.
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
            # Of the first second only what was sent from then on.
            calls = max(sent - here * (moment - self.second - place), float(failed))
            chance = usual * calls + deviations * math.sqrt(usual * (1 - usual) * calls)
            if failed >= max(FAILURES, chance):
                found = moment, failed / calls
        return found

    def _before(self, onset: float, now: float, *, abrupt: bool) -> tuple[float, float, float]:
        """What was sent before a moment.

        Args:
            onset: The moment.
            now: The time.
            abrupt: Whether the pace was the full one from its first call on.

        Returns:
            Calls in the seconds before, their pace, and the rate that is blamed.
        """
        began = self._began_before(onset)
        active = max(0.0, onset - began)
        span = 3.0
        while span < 30.0 and active > span and self._sum(self.sent, onset - span, onset) < 2 * _FEWEST_CALLS:
            span += 3.0
        start = max(onset - span, began)
        calls = self._sum(self.sent, start, onset)
        if math.floor(start) == math.floor(began):
            # The first second was not a whole one.
            first = self._sum(self.sent, math.floor(start), math.floor(start) + 1.0)
            whole = min(math.floor(start) + 1.0, now) - began
            inside = min(math.floor(start) + 1.0, onset) - start
            calls += first * (inside / max(whole, inside, 0.01) - inside)
        pace = calls / max(min(active, span), 0.25)
        if abrupt and active < _IDLE_SECONDS:
            # The vendor may look back over up to ten seconds, and was given only these.
            every = max(calls, self._sum(self.sent, began - 1.0, onset))
            return calls, pace, every / max(1.5, 1.9 * active)
        return calls, pace, calls / min(max(active, 2.0), span)

    def _began_before(self, onset: float) -> float:
        """When the calls began that went on until a moment."""
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
        """Where calls go on to fail although there are fewer, send fewer still."""
        if self.ramp is None or self._quick or self.acted_at is None:
            return
        if self.ceiling is None or now - self.acted_at < PERSISTENT_SECONDS:
            return
        part = self.unanswered / max(1, self.answered + self.unanswered)
        if self.unanswered <= CALM_FAILURES or part < FAILED_PART + self.failing_part:
            return
        least = LEAST_PART * self.first_rate
        if self.ramp <= least and self.fell_at is not None and now - self.fell_at > _ANY_LOAD_SECONDS:
            # It is not the rate that makes them fail.
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
