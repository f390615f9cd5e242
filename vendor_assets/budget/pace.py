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
from dataclasses import astuple, dataclass, field, replace
from typing import Final, NamedTuple

from vendor_assets.budget.adaptation import Tally, Tuning
from vendor_assets.budget.breaker import Breaker
from vendor_assets.budget.falls import Falls
from vendor_assets.budget.limits import JITTER_SECONDS, Limit
from vendor_assets.budget.quotas import FORGET_SECONDS, TRIAL_SECONDS, KnownQuota, Statement, key_of

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
NOTHING_LEFT: Final = "the vendor says that its quota is used up"
_POLICY: Final = "~policy "
_LEFT: Final = "~left "
_MOST_QUOTAS: Final = 20
_DRAG_SECONDS: Final = 60.0
_DRAG_STEP_SECONDS: Final = 0.1
_DRAG_BEGINS: Final = 0.6
_DRAG_ENDS: Final = 0.3
_LOOK_AGAIN_SECONDS: Final = 60.0
_BREAKER_LOOK_SECONDS: Final = 0.5
_STALE_SECONDS: Final = 0.5
_OUTAGE_CUTS_SECONDS: Final = 15.0
_AWAY_AGAIN_SECONDS: Final = 60.0


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
        trial: The quota that this call goes ahead of, to find out whether it holds.
    """

    at: float
    epoch: int
    backfill_epoch: int | None
    probe: bool = False
    trial: str = ""


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
        burst: One; an earlier version reads it here.
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
        quotas: What the vendor tells of its quotas, and how far that is believed.
        tracks: By the limit's name.
        runs: Slots that lie ahead.
        last: The latest slot that has passed, and its weight.
        tuning: What was learnt of the vendor, and the adapted rate.
        breaker: Whether the vendor is down.
        falls: How it fell, and the rate that is not approached again.
        drag: The part of the last minute in which we went far below the limits ...
        drag_at: ... up to then.
        dragged_since: Since when that is most of the time; None while it is not.
        drag_cause: What does it: a word ...
        drag_reason: ... and a sentence.
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
    quotas: dict[str, KnownQuota] = field(default_factory=dict)
    tracks: dict[str, Track] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    last: tuple[float, int] = (-math.inf, 0)
    tuning: Tuning = field(default_factory=Tuning)
    breaker: Breaker = field(default_factory=Breaker)
    falls: Falls = field(default_factory=Falls)
    drag: float = 0.0
    drag_at: float = -math.inf
    held_at: float = -math.inf
    dragged_since: float | None = None
    drag_cause: str = ""
    drag_reason: str = ""

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
            quotas={key: KnownQuota.load(values) for key, values in found.get("quotas", {}).items()},
            tracks={name: Track(*values) for name, values in found["tracks"].items()},
            runs=[
                Run(first, step, count, weight, bool(b)) for first, step, count, weight, b in found["runs"]
            ],
            last=(_time(found["last"][0]), found["last"][1]),
            tuning=Tuning.load(found["tuning"]),
            breaker=Breaker(*found["breaker"]),
            falls=Falls.load(found.get("falls", {})),
        )
        drag = found.get("drag", (0.0, None, None, "", ""))
        pace.drag, drag_at, pace.dragged_since, pace.drag_cause, pace.drag_reason = drag
        pace.drag_at = _time(drag_at)
        pace.held_at = pace.held_until(pace.at)
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
                "told": [0.0, None],  # where an earlier version reads it
                "quotas": {key: quota.dump() for key, quota in self.quotas.items()},
                "drag": [
                    self.drag,
                    _text(self.drag_at),
                    self.dragged_since,
                    self.drag_cause,
                    self.drag_reason,
                ],
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
        self._note_drag(rules, now)
        trial, tried_at = self._trial(rules, ask, now)
        concerned = self._concerned(rules, ask, now, without=trial)
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
        if not ask.lead_seconds:
            grace = GRACE_SECONDS if 0.0 < step < QUICK_SECONDS else 0.0
            slack = [rule.limit.slack_seconds if rule is not None else 0.0 for rule, _ in concerned]
            floor = max(now - max([grace, min(slack, default=0.0)]), self.hold_until)
        wide = narrow = floor
        if trial and self._is_wide(self.quotas[trial]):
            wide = max(wide, tried_at)
        else:
            narrow = max(narrow, tried_at)
        for rule, track in concerned:
            if track.wide and not (rule is not None and rule.limit.endpoints):
                wide = max(wide, track.arrival)
            else:
                narrow = max(narrow, track.arrival)
        for key, quota in self.quotas.items():
            if key != trial and quota.rate(now) == 0 and self._concerns(quota, ask.endpoint):
                if self._is_wide(quota):
                    wide = max(wide, quota.until)
                else:
                    narrow = max(narrow, quota.until)
        at = max(wide, narrow)
        if ask.patience_seconds is not None and at - now > ask.patience_seconds:
            return TooLate(at - now)
        if narrow > wide and narrow - wide > 0.001 and any(track.wide for _, track in concerned):
            # Reserved now, it would leave a hole in what all endpoints share.
            # What the vendor tells of an endpoint may be taken back sooner.
            return Later(now + min(narrow - wide, _LOOK_AGAIN_SECONDS), "the endpoint's own limit")
        for rule, track in concerned:
            track.arrival = max(track.arrival, at) + ask.weight * track.interval
            if rule is not None and rule.limit.counted:
                _add(track, rule, ask.weight, at)
        self._remember(at, ask, step)
        if self.breaker.open:
            self.breaker.probe(at)
        for key, quota in self.quotas.items():
            if self._concerns(quota, ask.endpoint):
                self.quotas[key] = quota.sent(0 if ask.returns else ask.weight, at)
        if trial:
            self.quotas[trial] = replace(self.quotas[trial], next_trial=at + TRIAL_SECONDS)
        backfill_epoch = self.backfill_epoch if ask.backfill else None
        return Grant(at, self.epoch, backfill_epoch, self.breaker.open, trial)

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
        rates = (quota.rate(now) for quota in self.quotas.values() if self._is_wide(quota))
        return min([rate for rate in (self._learnt(now), *rates) if rate], default=None)

    def _learnt(self, now: float) -> float | None:
        """The rate that was learnt from answers, in calls per second; None where nothing was."""
        rates = (self.tuning.rate, self.falls.permitted(now))
        return min((rate for rate in rates if rate is not None), default=None)

    def ceiling(self, rules: Sequence[Rule], now: float, *, stated: bool = True) -> float:
        """The rate that the limits permit, in calls per second; infinite where none is known.

        Args:
            rules: The caller's.
            now: The time.
            stated: Whether limits that the vendor states count.
        """
        rules = [*rules, *(self._policies(now) if stated else ())]
        intervals = [track.interval for track in self._others(rules, now)]
        for rule in rules:
            if not rule.limit.endpoints:
                track = self.tracks.get(rule.limit.name)
                seen = track is not None and now - track.interval_at <= STRICTEST_SECONDS
                intervals.append(max(rule.interval_seconds, track.interval if track and seen else 0.0))
        return 1.0 / max(intervals) if intervals else math.inf

    def held_until(self, now: float) -> float:
        """Until when nobody sends: by a hold, or since the vendor tells that nothing is left for anybody."""
        ends = (
            quota.until for quota in self.quotas.values() if quota.rate(now) == 0 and self._is_wide(quota)
        )
        return max([self.hold_until, *ends])

    def absorb(self, rules: Sequence[Rule], share: float, tally: Tally, now: float) -> None:
        """Take in what came of some calls."""
        before = self.rate(now)
        self._note_drag(rules, now)
        for (key, firmly), answers in tally.against.items():
            if key in self.quotas:
                configured = self.ceiling(rules, now, stated=False)
                quota = self.quotas[key].contradicted(answers, now, configured, firmly=firmly)
                self._believe(key, quota, now)
        ceiling = self.ceiling(rules, now)
        if tally:
            self._see_falls(tally, ceiling, now)
        if self.tuning.mode == "search" and not math.isinf(ceiling):
            self.tuning = Tuning(baseline=self.tuning.baseline)
        permitted = self.falls.permitted(now)
        self.tuning.absorb(tally, now, ceiling, share, math.inf if permitted is None else permitted)
        self._follow(before, now)

    def throttle(
        self,
        rules: Sequence[Rule],
        grant: Grant | None,
        asked_seconds: float | None,
        reason: str,
        now: float,
        endpoint: str = "",
        *,
        unavailable: bool = False,
    ) -> None:
        """The vendor refused a call.

        Args:
            rules: The caller's limits.
            grant: The call's slot. What was sent before the last hold says nothing new, unless the vendor
                asks for a longer wait.
            asked_seconds: How long the vendor asks to wait; None or 0 where it does not.
            reason: For people.
            now: The time.
            endpoint: Where the call went.
            unavailable: Whether it said that it is away, not that we were too fast. Where it says so again after
                the time it asked for, or within a minute, it has fallen.
        """
        fresh = grant is None or grant.epoch == self.epoch
        wait = asked_seconds + JITTER_SECONDS if asked_seconds else None
        before = self.rate(now)
        if fresh:
            self.breaker.absorb(succeeded=True, failures=0, now=now)
            current = min(before if before is not None else math.inf, self.ceiling(rules, now))
            if math.isinf(current):
                current = self.tuning.rate or 1.0
            first = self.tuning.throttled_at
            default = self.tuning.throttle(now, current)
            again = first is not None and now - first < _AWAY_AGAIN_SECONDS and self.tuning.streak <= 2
            if unavailable and asked_seconds and again:
                onset = first if self.tuning.streak == 2 else now
                self.falls.fall(now, known=not math.isinf(self.ceiling(rules, now)), onset=onset)
                self._learn(now)
            wait = wait if wait is not None else default
            for key, quota in self.quotas.items():
                if endpoint in quota.endpoints:
                    self.quotas[key] = quota.refused(now)
        if wait is not None:
            self.hold(now + wait, reason, now)
        self._follow(before, now)

    def tightest(self, rules: Sequence[Rule], now: float) -> str | None:
        """What the vendor tells that slows us most, for people; None where nothing does."""
        sayings: list[tuple[float, str]] = []
        for quota in self.quotas.values():
            rate, left = quota.rate(now), quota.until - now
            where = "" if self._is_wide(quota) else f" ({', '.join(quota.endpoints)})"
            if rate == 0:
                sayings.append((0.0, f"held: {NOTHING_LEFT}{where}, for {left:.0f} s"))
            elif rate is not None and now < quota.until:
                sayings.append(
                    (rate, f"the vendor's headers leave {rate:.3g} calls/s{where} for the next {left:.0f} s")
                )
            elif quota.limit and not quota.dared:
                share = f"{quota.share:g} of " if quota.share < 1 else ""
                limit = Limit(int(quota.limit), quota.period)
                text = f"the vendor's headers tell its limit: {share}{limit}{where}"
                sayings.append((1 / limit.interval_seconds(quota.share), text))
        rate, text = min(sayings, default=(math.inf, ""))
        slows = rate < min(self._learnt(now) or math.inf, self.ceiling(rules, now, stated=False))
        return text if slows else None

    def news(
        self, rules: Sequence[Rule], share: float, statement: Statement, now: float
    ) -> dict[str, KnownQuota]:
        """What an answer tells of the vendor's quotas that is new; nothing is changed yet.

        Args:
            rules: The caller's limits.
            share: Our part of a limit that it states.
            statement: What the answer tells.
            now: The time.
        """
        found: dict[str, KnownQuota] = {}
        for policy in statement.policies:
            key = key_of(policy.name, policy.limit)
            quota = self.quotas.get(key, KnownQuota()).hear_policy(policy, share, statement.endpoint, now)
            if quota is not None:
                found[key] = quota
        permitted = min(self._learnt(now) or math.inf, self.ceiling(rules, now, stated=False))
        if math.isinf(permitted):
            permitted = self.ceiling(rules, now)
        for heard in statement.quotas:
            key = key_of(heard.name, heard.limit)
            quota = found.get(key, self.quotas.get(key, KnownQuota()))
            quota = quota.hear(
                heard,
                statement.endpoint,
                sent_at=statement.sent_at,
                now=now,
                in_flight=statement.in_flight,
                permitted=permitted,
                trial=key in statement.confirms,
            )
            if quota is not None and not math.isinf(permitted):
                found[key] = quota
        return found

    def hear(self, rules: Sequence[Rule], share: float, statement: Statement, now: float) -> None:
        """Take in what an answer tells of the vendor's quotas; arguments as those of :meth:`news`."""
        narrow = self.narrow_endpoints()
        for key, quota in self.news(rules, share, statement, now).items():
            self._believe(key, quota, now)
        if self.narrow_endpoints() != narrow:
            # What was given waits for quotas that do not concern it.
            self.tracks = {name: track for name, track in self.tracks.items() if not name.startswith(_LEFT)}
            self.void_all(now)
        if len(self.quotas) > _MOST_QUOTAS:
            newest = sorted(self.quotas, key=lambda key: self.quotas[key].at)[-_MOST_QUOTAS:]
            self.quotas = {key: self.quotas[key] for key in newest}

    def inherit(self, lost: Pace, now: float) -> None:
        """Take over what was known from a document that was lost; all its slots are void."""
        shift = now - lost.at if lost.boot != self.boot else 0.0
        self.void_all(now)
        self.hold_until = max(self.hold_until, lost.hold_until + shift)
        self.hold_reason = self.hold_reason or lost.hold_reason
        self.quotas = {key: quota.shift(shift) for key, quota in lost.quotas.items()} | self.quotas
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

    def _see_falls(self, tally: Tally, ceiling: float, now: float) -> None:
        """Whether the vendor has fallen, or is back."""
        known = not math.isinf(ceiling)
        falls, opened_at = self.falls, self.breaker.opened_at
        falls.count(tally.sent, tally.failures, now, tally.alive_at)
        acted_at = -math.inf if falls.acted_at is None else falls.acted_at
        fresh = tally.answered if tally.alive_at > acted_at else 0
        # What was sent before an outage is answered in it, and what was sent in it fails after it: neither is news.
        back = tally.answered > 0 and (opened_at is None or tally.alive_at >= opened_at)
        if not self.breaker.absorb(back, tally.failed_after(acted_at), now):
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
        self._learn(now)

    def _learn(self, now: float) -> None:
        """A search does not go past the ceiling."""
        height = self.falls.height(now)
        if height is not None and self.tuning.mode == "search" and self.tuning.rate is not None:
            self.tuning.starting = False
            self.tuning.rate = min(self.tuning.rate, height)

    def _concerned(
        self, rules: Sequence[Rule], ask: Ask, now: float, *, without: str = ""
    ) -> list[tuple[Rule | None, Track]]:
        """The limits that a call has to wait for; without those of a quota that it is to try."""
        found: list[tuple[Rule | None, Track]] = []
        rules = [*rules, *self._policies(now)]
        for rule in rules:
            if not rule.limit.concerns(ask.endpoint) or rule.limit.name == _POLICY + without:
                continue
            interval = rule.interval_seconds
            track = self.tracks.get(rule.limit.name)
            if track is None:
                track = self.tracks[rule.limit.name] = Track(-math.inf, interval, now)
                track.arrival = self.last[0] + self.last[1] * interval if self.last[1] else now
            elif interval >= track.interval or now - track.interval_at > STRICTEST_SECONDS:
                track.interval = interval
                track.interval_at = now
            track.wide = not rule.limit.endpoints
            found.append((rule, track))
        others = self._others(rules, now)
        found += [(None, track) for track in others]
        if not others and all(rule.limit.endpoints for rule in rules) and self.tuning.rate is None:
            self.tuning.start_search()
        self._follow_rate(_ADAPTED, self._learnt(now), found, now)
        for key, quota in self.quotas.items():
            if key != without and self._concerns(quota, ask.endpoint):
                self._follow_rate(_LEFT + key, quota.rate(now), found, now, wide=self._is_wide(quota))
        return found

    def _follow_rate(
        self,
        name: str,
        rate: float | None,
        found: list[tuple[Rule | None, Track]],
        now: float,
        *,
        wide: bool = True,
    ) -> None:
        """Pace by a rate that changes, while there is one."""
        if not rate:
            self.tracks.pop(name, None)
            return
        track = self.tracks.get(name)
        if track is None:
            track = self.tracks[name] = Track(max(now, self._after_last(rate)), 0.0, now)
        track.interval = 1.0 / rate
        track.wide = wide
        found.append((None, track))

    def _policies(self, now: float) -> list[Rule]:
        """The limits that the vendor tells and that are believed."""
        return [
            Rule(
                Limit(
                    int(quota.limit),
                    quota.period,
                    _POLICY + key,
                    () if self._is_wide(quota) else quota.endpoints,
                ),
                quota.share,
            )
            for key, quota in self.quotas.items()
            if quota.limit and not quota.dared and now - quota.at < FORGET_SECONDS
        ]

    def _is_wide(self, quota: KnownQuota) -> bool:
        """Whether a quota concerns every endpoint whose answers tell of quotas."""
        return all(set(other.endpoints) <= set(quota.endpoints) for other in self.quotas.values())

    def _concerns(self, quota: KnownQuota, endpoint: str) -> bool:
        return endpoint in quota.endpoints or self._is_wide(quota)

    def narrow_endpoints(self) -> set[str]:
        """Endpoints that have quotas of their own, as the vendor tells."""
        narrow = (quota for quota in self.quotas.values() if not self._is_wide(quota))
        return {endpoint for quota in narrow for endpoint in quota.endpoints}

    def _trial(self, rules: Sequence[Rule], ask: Ask, now: float) -> tuple[str, float]:
        """The quota that this call may go ahead of, and when; none where all are believed."""
        configured = self.ceiling(rules, now, stated=False) if self.quotas else math.inf
        for key, quota in self.quotas.items():
            if self._concerns(quota, ask.endpoint):
                at = quota.tried_at(now, configured)
                if at < quota.until and at < self._free_at(key, quota, now):
                    return key, at
        return "", -math.inf

    def _free_at(self, key: str, quota: KnownQuota, now: float) -> float:
        """When a quota lets the next call go."""
        rate, track = quota.rate(now), self.tracks.get(_LEFT + key)
        if not rate:
            return quota.until
        return track.arrival if track else self._after_last(rate)

    def _after_last(self, rate: float) -> float:
        """When the next call fits behind all that were given, at a rate."""
        latest = (run.last + run.weight / rate for run in self.runs)
        return max([self.last[0] + self.last[1] / rate, *latest])

    def _believe(self, key: str, quota: KnownQuota, now: float) -> None:
        """Keep what is known of a quota; what was given at a higher rate is void, at a far lower one as well."""
        old = self.quotas.get(key, KnownQuota()).rate(now)
        self.quotas[key] = quota
        new = quota.rate(now)
        lower = new is not None and (old is None or new < old)
        higher = old is not None and (new is None or new > 1.25 * old)
        if higher:
            # Its next call was put off at the old rate.
            self.tracks.pop(_LEFT + key, None)
        if lower or (higher and self.runs and self.runs[-1].last > now + _STALE_SECONDS):
            self.void_all(now)

    def _name_drag(self, rules: Sequence[Rule], now: float) -> None:
        headers = self.tightest(rules, now)
        if self.breaker.open:
            self.drag_cause, self.drag_reason = "outage", "the vendor is down"
        elif now < self.hold_until:
            self.drag_cause, self.drag_reason = "throttled", self.hold_reason
        elif headers:
            self.drag_cause, self.drag_reason = "headers", headers
        elif self.tuning.mode != "free":
            self.drag_cause, self.drag_reason = "learnt", "what the vendor bore so far, by its answers"

    def _note_drag(self, rules: Sequence[Rule], now: float) -> None:
        """Keep in mind how much of the last minute we went far below what is configured."""
        passed = now - self.drag_at
        if passed < _DRAG_STEP_SECONDS:
            return
        if passed < math.inf:
            configured = self.ceiling(rules, now, stated=False)
            rate = min(self.rate(now) or math.inf, self.ceiling(rules, now))
            slow = self.breaker.open or (rate < 0.5 * configured < math.inf)
            held = passed if slow else min(passed, max(0.0, self.held_at - self.drag_at))
            if held:
                self._name_drag(rules, now)
            kept = math.exp(-passed / _DRAG_SECONDS)
            self.drag = self.drag * kept + (1 - kept) * held / passed
        self.drag_at = now
        self.held_at = self.held_until(now)
        if self.held_at > now:
            self._name_drag(rules, now)
        if self.drag > _DRAG_BEGINS and self.dragged_since is None:
            self.dragged_since = now
        elif self.drag < _DRAG_ENDS:
            self.dragged_since = None
            self.drag_cause = self.drag_reason = ""

    def _others(self, rules: Sequence[Rule], now: float) -> list[Track]:
        """Limits that only other processes know, seen of late."""
        own = {rule.limit.name for rule in rules}
        return [
            track
            for name, track in self.tracks.items()
            if name not in own
            and not name.startswith("~")
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
            free_at = last + weight * track.interval if weight else after
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
        self.quotas = {key: quota.shift(shift) for key, quota in self.quotas.items()}
        self.drag_at += shift
        self.held_at += shift
        self.dragged_since = None if self.dragged_since is None else self.dragged_since + shift
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
