"""The pace of one vendor account: who may send when. Pure: time and documents are passed in.

GCRA by reservation (the generic cell rate algorithm, ITU-T I.371, as a virtual schedule): each limit has a
theoretical arrival time; a reservation is given the latest of those that concern it and moves them on. What
was reserved and lies ahead is remembered, so that it can be taken back: by a hold or a cut (all of it), or by
scheduled work (what backfills hold). Taking back changes an epoch; a holder compares epochs just before it
sends.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Final, NamedTuple

from vendor_assets.budget.adaptation import Report, Tuning
from vendor_assets.budget.breaker import Breaker
from vendor_assets.budget.falls import Falls
from vendor_assets.budget.limits import JITTER_SECONDS, Limit

FRESH_SECONDS: Final = 0.020
"""A scheduled call is sent on a look at the epochs that is at most this old."""

BACKFILL_FRESH_SECONDS: Final = 0.004
"""A backfill's call is sent on one this old: each look costs a read, and giving way at once is worth it."""

GUARD_SECONDS: Final = 0.002
"""What may pass between the look and the call, on top."""

LATE_SECONDS: Final = 0.015
"""A slot that is this late is lost: sent later, it would meet the ones behind it."""

GRACE_SECONDS: Final = 0.005
QUICK_SECONDS: Final = 0.002
"""Where the pace is quicker than this, a slot may be given that has just passed, as if it were used late: the
time that a reservation takes would be lost otherwise."""

STRICTEST_SECONDS: Final = 60.0
"""How long the strictest setting of another process holds after that process was last seen."""

_WINDOW_PARTS: Final = 60
_ADAPTED: Final = "~adapted"
_BREAKER_LOOK_SECONDS: Final = 0.5
_STALE_SECONDS: Final = 0.5
_OUTAGE_CUTS_SECONDS: Final = 15.0


class Rule(NamedTuple):
    """A limit and our share of it."""

    limit: Limit
    share: float

    @property
    def interval_seconds(self) -> float:
        """Seconds between two calls."""
        return self.limit.interval_seconds(self.share)

    @property
    def calls(self) -> int:
        """Our calls in one period; at least one."""
        return self.limit.calls(self.share)


class Ask(NamedTuple):
    """Somebody who wants to send.

    Attributes:
        endpoint: Where to.
        weight: What the call counts.
        backfill: Whether it gives way to scheduled work.
        patience_seconds: The longest acceptable wait, None for any.
        returns: Whether a slot that was given earlier for the same call was not used.
        lead_seconds: How long the caller needs to learn of its slot: one that comes sooner would be missed.
    """

    endpoint: str = ""
    weight: int = 1
    backfill: bool = False
    patience_seconds: float | None = None
    returns: bool = False
    lead_seconds: float = 0.0


class Grant(NamedTuple):
    """The right to send at a moment, as long as the epochs hold.

    Attributes:
        at: On the database's clock.
        epoch: Of holds, cuts and the breaker.
        backfill_epoch: Of backfills; None for scheduled work.
        probe: Whether this is the one call that finds out whether the vendor is back.
    """

    at: float
    epoch: int
    backfill_epoch: int | None
    probe: bool = False


class Later(NamedTuple):
    """Nothing was taken: ask again at this moment."""

    at: float
    reason: str


class TooLate(NamedTuple):
    """Nothing was taken: the wait would be longer than acceptable."""

    wait_seconds: float


@dataclass(slots=True)
class Track:
    """One limit in the document.

    Attributes:
        arrival: The theoretical arrival time: when the next call fits.
        interval: Seconds between calls, by the strictest setting of late.
        interval_at: When that setting was last seen.
        burst: Calls that may come at once.
        wide: Whether it concerns every endpoint.
        counts: For a counted limit, calls by the start of their part of the window.
    """

    arrival: float
    interval: float
    interval_at: float
    burst: int = 1
    wide: bool = True
    counts: list[tuple[float, float]] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """Slots in a row that were given and not yet passed."""

    first: float
    step: float
    count: int
    weight: int
    backfill: bool

    @property
    def last(self) -> float:
        """When the last of them is."""
        return self.first + self.step * (self.count - 1)


@dataclass(slots=True)
class Pace:
    """The state of an account, as the document holds it; times are the database's clock.

    Attributes:
        id: Tells this document from one that was lost.
        at: When it was last changed.
        wall: The wall clock then, to bridge a reboot.
        boot: In which run of the clock the times are.
        epoch: Changes with each hold, cut, or move of the breaker: all slots are void.
        backfill_epoch: Changes when scheduled work takes slots that backfills held.
        void_after: Backfill slots of the epoch before are void after this moment.
        hold_until: Nobody sends before.
        hold_reason: Why.
        told_rate: What the vendor's headers leave per second ...
        told_until: ... until then.
        tracks: By the limit's name.
        runs: Slots that lie ahead.
        last: The latest slot that has passed, and its weight.
        tuning: What was learnt of the vendor, and the adapted rate.
        breaker: Whether the vendor is down.
        falls: How it fell, and the rate that is not approached again.
    """

    id: str
    at: float
    wall: float
    boot: str
    epoch: int
    backfill_epoch: int = 0
    void_after: float = -math.inf
    hold_until: float = -math.inf
    hold_reason: str = ""
    told_rate: float = 0.0
    told_until: float = -math.inf
    tracks: dict[str, Track] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    last: tuple[float, int] = (-math.inf, 0)
    tuning: Tuning = field(default_factory=Tuning)
    breaker: Breaker = field(default_factory=Breaker)
    falls: Falls = field(default_factory=Falls)

    @classmethod
    def new(cls, now: float, wall: float, boot: str) -> Pace:
        """The state of an account that nothing is known of."""
        number = random.getrandbits(48)  # not a secret: it only has to differ from the last one
        return cls(id=f"{number:012x}", at=now, wall=wall, boot=boot, epoch=number)

    @classmethod
    def load(cls, body: str, now: float, wall: float, boot: str) -> Pace:
        """Read a document, and bring it to the present clock where that started anew or went back."""
        found = json.loads(body)
        pace = cls(
            id=found["id"],
            at=found["at"],
            wall=found["wall"],
            boot=found["boot"],
            epoch=found["epoch"],
            backfill_epoch=found["backfill_epoch"],
            void_after=_time(found["void_after"]),
            hold_until=_time(found["hold_until"]),
            hold_reason=found["hold_reason"],
            told_rate=found["told"][0],
            told_until=_time(found["told"][1]),
            tracks={name: Track(*values) for name, values in found["tracks"].items()},
            runs=[
                Run(first, step, count, weight, bool(b)) for first, step, count, weight, b in found["runs"]
            ],
            last=(_time(found["last"][0]), found["last"][1]),
            tuning=Tuning.load(found["tuning"]),
            breaker=Breaker(*found["breaker"]),
            falls=Falls.load(found.get("falls", {})),
        )
        if pace.boot != boot or now < pace.at - 1.0:
            pace._rebase(now, wall, boot)
        return pace

    def dump(self, now: float, wall: float) -> str:
        """The document's body."""
        self._forget_passed(now)
        return json.dumps(
            {
                "id": self.id,
                "at": max(self.at, now),
                "wall": wall,
                "boot": self.boot,
                "epoch": self.epoch,
                "backfill_epoch": self.backfill_epoch,
                "void_after": _text(self.void_after),
                "hold_until": _text(self.hold_until),
                "hold_reason": self.hold_reason,
                "told": [self.told_rate, _text(self.told_until)],
                "tracks": {
                    n: [t.arrival, t.interval, t.interval_at, t.burst, t.wide, t.counts]
                    for n, t in self.tracks.items()
                },
                "runs": [[r.first, r.step, r.count, r.weight, int(r.backfill)] for r in self.runs],
                "last": [_text(self.last[0]), self.last[1]],
                "tuning": self.tuning.dump(),
                "breaker": astuple(self.breaker),
                "falls": self.falls.dump(),
            },
            separators=(",", ":"),
            allow_nan=False,
        )

    # -- reservations ------------------------------------------------------------------------------

    def reserve(self, rules: Sequence[Rule], ask: Ask, now: float) -> Grant | Later | TooLate:
        """Give one call its moment.

        Scheduled work that meets slots of backfills takes them. The limits are the caller's; where another
        process that was seen within a minute has stricter ones, those hold.
        """
        if self.breaker.open:
            if ask.returns:
                # The probe was not sent.
                self.breaker.probe_until = 0.0
            free_at = max(self.breaker.free_at(), self.hold_until)
            if free_at > now:
                if ask.patience_seconds is not None and free_at - now > ask.patience_seconds:
                    return TooLate(free_at - now)
                return Later(min(free_at, now + _BREAKER_LOOK_SECONDS), "the vendor is down")
        concerned = self._concerned(rules, ask, now)
        for rule, track in concerned:
            if rule is not None and rule.limit.counted:
                free_at = _count(track, rule, ask.weight, now, returns=ask.returns)
                if free_at > now:
                    if ask.patience_seconds is not None and free_at - now > ask.patience_seconds:
                        return TooLate(free_at - now)
                    return Later(free_at, f"the quota of {rule.limit} is used up")
        if not ask.backfill:
            self._take_back(now + BACKFILL_FRESH_SECONDS + GUARD_SECONDS, backfill_only=True)
        floor = max(now + ask.lead_seconds, self.hold_until)
        step = max([track.interval for _, track in concerned], default=0.0)
        if 0.0 < step < QUICK_SECONDS and not ask.lead_seconds:
            floor = max(now - GRACE_SECONDS, self.hold_until)
        wide = narrow = floor
        for rule, track in concerned:
            start = track.arrival - (track.burst - 1) * track.interval
            if rule is not None and rule.limit.endpoints:
                narrow = max(narrow, start)
            else:
                wide = max(wide, start)
        at = max(wide, narrow)
        if ask.patience_seconds is not None and at - now > ask.patience_seconds:
            return TooLate(at - now)
        if narrow > wide and narrow - wide > 0.001 and any(not r.limit.endpoints for r, _ in concerned if r):
            # Reserved now, it would leave a hole in what all endpoints share.
            return Later(now + narrow - wide, "the endpoint's own limit")
        for rule, track in concerned:
            track.arrival = max(track.arrival, at) + ask.weight * track.interval
            if rule is not None and rule.limit.counted:
                _add(track, rule, ask.weight, at)
        self._remember(at, ask, step)
        if self.breaker.open:
            self.breaker.probe(at)
        return Grant(at, self.epoch, self.backfill_epoch if ask.backfill else None, self.breaker.open)

    def valid(self, grant: Grant) -> bool:
        """Whether a slot that was given may still be used."""
        if grant.epoch != self.epoch:
            return False
        if grant.backfill_epoch is None or grant.backfill_epoch == self.backfill_epoch:
            return True
        return grant.backfill_epoch == self.backfill_epoch - 1 and grant.at <= self.void_after

    def void_all(self, now: float) -> None:
        """Take back all slots that lie ahead; their holders notice before they send."""
        self._take_back(now + FRESH_SECONDS + GUARD_SECONDS, backfill_only=False)

    def hold(self, until: float, reason: str, now: float) -> None:
        """Nobody sends before this moment; a hold that lasts longer stays."""
        if until <= max(self.hold_until, now):
            return
        self.void_all(now)
        self.hold_until = until
        self.hold_reason = reason

    # -- what the vendor says ----------------------------------------------------------------------

    def rate(self, now: float) -> float | None:
        """The adapted rate, in calls per second; None while only the limits hold."""
        told = self.told_rate if now < self.told_until else None
        rates = [rate for rate in (self.tuning.rate, told, self.falls.permitted(now)) if rate is not None]
        return min(rates) if rates else None

    def ceiling(self, rules: Sequence[Rule], now: float) -> float:
        """The rate that the limits permit, in calls per second; infinite where none is known."""
        intervals = [track.interval for track in self._others(rules, now)]
        for rule in rules:
            if not rule.limit.endpoints:
                track = self.tracks.get(rule.limit.name)
                seen = track is not None and now - track.interval_at <= STRICTEST_SECONDS
                intervals.append(max(rule.interval_seconds, track.interval if track and seen else 0.0))
        return 1.0 / max(intervals) if intervals else math.inf

    def absorb(self, rules: Sequence[Rule], share: float, report: Report, now: float) -> None:
        """Take in what came of some calls."""
        before = self.rate(now)
        ceiling = self.ceiling(rules, now)
        if report:
            self._see_falls(report, ceiling, now)
        if self.tuning.mode == "search" and not math.isinf(ceiling):
            self.tuning = Tuning(baseline=self.tuning.baseline)
        permitted = self.falls.permitted(now)
        self.tuning.absorb(report, now, ceiling, share, math.inf if permitted is None else permitted)
        self._follow(before, now)

    def throttle(
        self, rules: Sequence[Rule], grant: Grant | None, asked_seconds: float | None, reason: str, now: float
    ) -> None:
        """The vendor refused a call.

        Args:
            rules: The caller's limits.
            grant: The call's slot. What was sent before the last hold says nothing new, unless the vendor
                asks for a longer wait.
            asked_seconds: How long the vendor asks to wait; None or 0 where it does not.
            reason: For people.
            now: The time.
        """
        fresh = grant is None or grant.epoch == self.epoch
        wait = asked_seconds + JITTER_SECONDS if asked_seconds else None
        before = self.rate(now)
        if fresh:
            self.breaker.absorb(succeeded=True, failures=0, now=now)
            current = min(before if before is not None else math.inf, self.ceiling(rules, now))
            if math.isinf(current):
                current = self.tuning.rate or 1.0
            default = self.tuning.throttle(now, current)
            wait = wait if wait is not None else default
        if wait is not None:
            self.hold(now + wait, reason, now)
        self._follow(before, now)

    def tell(self, rules: Sequence[Rule], remaining: float, reset_seconds: float, now: float) -> bool:
        """The vendor says how many calls are left until its quota is whole again.

        Acts only where our pace would use up more than that; the second by which a reset may be rounded
        does not count.

        Returns:
            Whether it changed anything.
        """
        before = self.rate(now)
        current = min(before if before is not None else math.inf, self.ceiling(rules, now))
        if math.isinf(current) or remaining >= current * (reset_seconds - 1.0):
            return False
        until = now + reset_seconds + JITTER_SECONDS
        if remaining < 1:
            self.hold(until, "the vendor says that its quota is used up", now)
            return True
        rate = remaining / reset_seconds
        if now < self.told_until and rate > 0.9 * self.told_rate:
            return False
        self.told_rate, self.told_until = rate, until
        self._follow(before, now)
        return True

    def inherit(self, lost: Pace, now: float) -> None:
        """Take over what was known from a document that was lost; all its slots are void."""
        shift = now - lost.at if lost.boot != self.boot else 0.0
        self.void_all(now)
        self.hold_until = max(self.hold_until, lost.hold_until + shift)
        self.hold_reason = self.hold_reason or lost.hold_reason
        if self.tuning.mode in ("free", "search"):
            self.tuning = lost.tuning
            self.tuning.shift(shift)
        if self.falls.fell_at is None:
            self.falls = lost.falls
            self.falls.shift(shift)
        if lost.breaker.open and not self.breaker.open:
            self.breaker = lost.breaker
            self.breaker.shift(shift)
        free_at = now + FRESH_SECONDS + GUARD_SECONDS
        for name, old in lost.tracks.items():
            track = self.tracks.setdefault(name, Track(free_at, old.interval, now))
            track.arrival = max(track.arrival, free_at + track.interval)
            known = dict(track.counts)
            for start, number in old.counts:
                known[start + shift] = max(known.get(start + shift, 0), number)
            track.counts = sorted(known.items())

    # -- inside ------------------------------------------------------------------------------------

    def _see_falls(self, report: Report, ceiling: float, now: float) -> None:
        """Whether the vendor has fallen, or is back."""
        known = not math.isinf(ceiling)
        falls, opened_at = self.falls, self.breaker.opened_at
        falls.count(report.sent, report.failures, now, report.alive_at)
        acted_at = -math.inf if falls.acted_at is None else falls.acted_at
        fresh = report.answered if report.alive_at > acted_at else 0
        # What was sent before an outage is answered in it, and what was sent in it fails after it: neither is news.
        back = report.answered > 0 and (opened_at is None or report.alive_at >= opened_at)
        if not self.breaker.absorb(back, report.failed_after(acted_at), now):
            if opened_at is None:
                falls.look(fresh, now, known=known)
        elif opened_at is None:
            self.void_all(now)
            falls.fall(now, known=known)
        else:
            self.void_all(now)
            self.tuning.undo_cut(opened_at - _OUTAGE_CUTS_SECONDS)
            falls.come_back(now, min(self.tuning.rate or math.inf, ceiling))
            if falls.ramp is not None:
                # The one after the probe need not wait for the ramp.
                self.tracks[_ADAPTED] = Track(now, 0.0, now)
        if falls.ceiling is not None and self.tuning.mode == "search" and self.tuning.rate is not None:
            self.tuning.starting = False
            self.tuning.rate = min(self.tuning.rate, falls.height(now) or math.inf)

    def _concerned(self, rules: Sequence[Rule], ask: Ask, now: float) -> list[tuple[Rule | None, Track]]:
        found: list[tuple[Rule | None, Track]] = []
        for rule in rules:
            if not rule.limit.concerns(ask.endpoint):
                continue
            interval = rule.interval_seconds
            track = self.tracks.get(rule.limit.name)
            if track is None:
                track = self.tracks[rule.limit.name] = Track(-math.inf, interval, now)
                track.arrival = self.last[0] + self.last[1] * interval if self.last[1] else now
            elif interval >= track.interval or now - track.interval_at > STRICTEST_SECONDS:
                track.interval = interval
                track.interval_at = now
            track.burst = rule.limit.burst
            track.wide = not rule.limit.endpoints
            found.append((rule, track))
        others = self._others(rules, now)
        found += [(None, track) for track in others]
        if not others and all(rule.limit.endpoints for rule in rules) and self.tuning.rate is None:
            self.tuning.start_search()
        rate = self.rate(now)
        if rate is not None:
            track = self.tracks.get(_ADAPTED)
            if track is None:
                latest = max([run.last + run.weight / rate for run in self.runs], default=-math.inf)
                passed = self.last[0] + self.last[1] / rate
                track = self.tracks[_ADAPTED] = Track(max(now, passed, latest), 0.0, now)
            track.interval = 1.0 / rate
            found.append((None, track))
        else:
            self.tracks.pop(_ADAPTED, None)
        return found

    def _others(self, rules: Sequence[Rule], now: float) -> list[Track]:
        """Limits that only other processes know, seen of late."""
        own = {rule.limit.name for rule in rules}
        return [
            track
            for name, track in self.tracks.items()
            if name not in own
            and name != _ADAPTED
            and track.wide
            and now - track.interval_at <= STRICTEST_SECONDS
        ]

    def _follow(self, before: float | None, now: float) -> None:
        """Void what was given at a higher rate; what was given at a far lower one wastes time."""
        after = self.rate(now)
        lower = after is not None and (before is None or after < before)
        higher = before is not None and (after is None or after > 1.25 * before)
        if lower or (higher and self.runs and self.runs[-1].last > now + _STALE_SECONDS):
            self.void_all(now)

    def _remember(self, at: float, ask: Ask, step: float) -> None:
        step *= ask.weight
        if self.runs:
            run = self.runs[-1]
            if (run.weight, run.backfill) == (ask.weight, ask.backfill):
                if run.count == 1 and at > run.first and math.isclose(at - run.first, step, abs_tol=1e-6):
                    run.step = at - run.first
                    run.count = 2
                    return
                if run.count > 1 and math.isclose(at, run.last + run.step, abs_tol=1e-6):
                    run.count += 1
                    return
        self.runs.append(Run(at, step, 1, ask.weight, ask.backfill))

    def _take_back(self, after: float, *, backfill_only: bool) -> None:
        """Void the slots after a moment (those of backfills only, or all) and move the limits back."""
        kept: list[Run] = []
        last, weight = self.last
        dropped = False
        for run in self.runs:
            stays = run.count
            if (run.backfill or not backfill_only) and run.last > after:
                stays = 0 if run.first > after else math.floor((after - run.first) / run.step) + 1
                dropped = dropped or stays < run.count
            if stays:
                kept.append(Run(run.first, run.step, stays, run.weight, run.backfill))
                if kept[-1].last >= last:
                    last, weight = kept[-1].last, run.weight
        if backfill_only:
            if not dropped:
                return
            self.backfill_epoch += 1
            self.void_after = after
        else:
            self.epoch += 1
        self.runs = kept
        if not dropped:
            return
        for track in self.tracks.values():
            free_at = last + (track.burst - 1 + weight) * track.interval if weight else after
            track.arrival = min(track.arrival, free_at)

    def _forget_passed(self, now: float) -> None:
        ahead: list[Run] = []
        for run in self.runs:
            passed = 0
            if run.last <= now:
                passed = run.count
            elif run.first <= now:
                passed = math.floor((now - run.first) / run.step) + 1
            if passed:
                moment = run.first + (passed - 1) * run.step
                if moment >= self.last[0]:
                    self.last = (moment, run.weight)
                run.first += passed * run.step
                run.count -= passed
            if run.count:
                ahead.append(run)
        self.runs = ahead

    def _rebase(self, now: float, wall: float, boot: str) -> None:
        """The clock started anew or went back: keep every duration, count the time that passed meanwhile."""
        passed = min(max(wall - self.wall, 0.0), 10 * 86_400.0) if boot != self.boot else 0.0
        shift = now - passed - self.at
        self.at += shift
        self.void_after += shift
        self.hold_until += shift
        self.last = (self.last[0] + shift, self.last[1])
        for track in self.tracks.values():
            track.arrival += shift
            track.interval_at += shift
            track.counts = [(start + shift, number) for start, number in track.counts]
        for run in self.runs:
            run.first += shift
        self.told_until += shift
        self.tuning.shift(shift)
        self.breaker.shift(shift)
        self.falls.shift(shift)
        self.boot = boot
        self.epoch += 1


def _count(track: Track, rule: Rule, weight: int, now: float, *, returns: bool) -> float:
    """When a call fits into the window, which looks back over the last period in sixtieths."""
    period = rule.limit.period_seconds
    width = period / _WINDOW_PARTS
    track.counts = [entry for entry in track.counts if entry[0] + width + period > now]
    if returns and track.counts:
        start, number = track.counts[-1]
        track.counts[-1] = (start, max(0.0, number - weight))
    excess = sum(number for _, number in track.counts) + weight - rule.calls
    for start, number in track.counts:
        if excess <= 0:
            break
        excess -= number
        free_at = start + width + period
        if excess <= 0:
            return free_at
    return now


def _add(track: Track, rule: Rule, weight: int, at: float) -> None:
    width = rule.limit.period_seconds / _WINDOW_PARTS
    if track.counts and track.counts[-1][0] + width > at:
        start, number = track.counts[-1]
        track.counts[-1] = (start, number + weight)
    else:
        track.counts.append((at, weight))


def _text(moment: float) -> float | None:
    return moment if math.isfinite(moment) else None


def _time(moment: float | None) -> float:
    return -math.inf if moment is None else moment
