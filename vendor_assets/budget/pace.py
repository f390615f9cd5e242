"""The pace of one vendor account: who may send when. Pure: time and documents are passed in.

GCRA by reservation (the generic cell rate algorithm, ITU-T I.371, as a virtual schedule): each limit has a theoretical
arrival time; a reservation gets the latest of those that concern it and moves them on. Slots that lie ahead can be
voided: all of them by a hold or a cut, those of backfills by scheduled work. That changes an epoch, which a holder
compares just before it sends.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from vendor_assets.budget.adaptation import Tally, Tuning
from vendor_assets.budget.breaker import Breaker
from vendor_assets.budget.falls import Falls
from vendor_assets.budget.headers import Quota
from vendor_assets.budget.limits import JITTER_SECONDS, PARTS, REQUESTS, parts_of
from vendor_assets.budget.quotas import POLICY, KnownQuota, Quotas, Statement, quota_key
from vendor_assets.budget.reservations import (
    Ask,
    Correction,
    Counts,
    Epochs,
    Grant,
    Later,
    Reservations,
    Row,
    Run,
    TooLate,
)
from vendor_assets.budget.slowdown import Slowdown
from vendor_assets.budget.tracks import Rule, Track

FRESH_SECONDS: Final = 0.020
"""A scheduled call is sent on a look at the epochs that is at most this old."""

BACKFILL_FRESH_SECONDS: Final = 0.004
"""A backfill's call is sent on one this old: each look costs a read, and giving way at once is worth it."""

GUARD_SECONDS: Final = 0.002
"""What may pass between the look and the call, on top."""

LATE_SECONDS: Final = 0.015
"""A slot that is this late is lost: sent later, it would meet the ones behind it."""

QUICK_SECONDS: Final = 0.002
_GRACE_SECONDS: Final = 0.005
"""Where the pace is quicker than that, a slot may have just passed, as if it were used late: the time that a
reservation takes would be lost otherwise."""

STRICTEST_SECONDS: Final = 60.0
"""How long the strictest setting of another process holds after that process was last seen."""

OUTAGE: Final = "outage"
HOLD: Final = "hold"
WINDOW: Final = "window"
PACE: Final = "pace"
HEADERS: Final = "headers"
LEARNT: Final = "learnt"
"""What may keep a call back: see :class:`Bound`."""

_ENCODER: Final = msgspec.json.Encoder()
_FORMAT: Final = 1
"""Of the document; one more where an earlier release must not change what this one writes."""
_MARKS: Final = 32
_ADAPTED: Final = "~adapted"
_LEFT: Final = "~left "
_LOOK_AGAIN_SECONDS: Final = 60.0
_BREAKER_LOOK_SECONDS: Final = 0.5
_STALE_SECONDS: Final = 0.5
_CORRECTED_LOOK_SECONDS: Final = 0.5
"""Who waits for a window looks so often whether answers have freed some of it."""
_FAR_SECONDS: Final = 5.0
"""A call that has to wait for a limit of another unit for longer reserves nothing of those that other calls share."""
_SAME_SECONDS: Final = 1e-6
_LEARNT_KEPT: Final = 0.99
"""Of what was learnt so far, with each answer: about the last hundred count."""
_OUTAGE_CUTS_SECONDS: Final = 15.0
_UNAVAILABLE_AGAIN_SECONDS: Final = 60.0


class Bound(NamedTuple):
    """One thing that a call has to wait for.

    Attributes:
        kind: ``outage``, ``hold``, ``window`` (a counted limit is used up), ``pace`` (a limit's even spacing),
            ``headers`` (what the vendor tells of its quotas) or ``learnt`` (what it bore so far).
        name: Of the limit or quota; the reason of a hold.
        at: When it lets the call go, on the database's clock.
        interval: Seconds from one call to the next by it; 0 where it spaces nothing.
        wide: Whether it concerns calls to every endpoint.
    """

    kind: str
    name: str
    at: float
    interval: float = 0.0
    wide: bool = True


@dataclass(slots=True)
class Pace:
    """The state of an account, as the document holds it; times are the database's clock.

    Limits (``rules``) are the caller's; where another process that was seen within a minute has stricter ones,
    those hold.

    Attributes:
        id: Tells this document from one that was lost.
        at: When it was last changed.
        wall: The wall clock then, to bridge a reboot.
        boot: In which run of the clock the times are.
        quotas: What the vendor tells of its quotas, and how far that is believed.
        falls: How it fell, and the rate that is not approached again.
        learnt: What was booked for late calls and what they really counted, by unit, where answers tell.
        marks: A random number for each of the last changes: who knows of a change sees whether it is among them.
    """

    id: str
    at: float
    wall: float
    boot: str
    reservations: Reservations
    hold_until: float = -math.inf
    hold_reason: str = ""
    quotas: Quotas = field(default_factory=Quotas)
    tracks: dict[str, Track] = field(default_factory=dict)
    tuning: Tuning = field(default_factory=Tuning)
    breaker: Breaker = field(default_factory=Breaker)
    falls: Falls = field(default_factory=Falls)
    slowdown: Slowdown = field(default_factory=Slowdown)
    learnt: dict[str, tuple[float, float]] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)

    @classmethod
    def new(cls, now: float, wall: float, boot: str) -> Pace:
        """The state of an account that nothing is known of."""
        number = random.getrandbits(48)  # not a secret: it only has to differ from the last one
        return cls(f"{number:012x}", now, wall, boot, Reservations(number))

    @classmethod
    def load(cls, body: str, now: float, wall: float, boot: str) -> Pace:
        """Read a document, and bring it to the present clock where that started anew or went back.

        Raises:
            ValueError: A newer release has written it; or a TypeError or LookupError.
        """
        pace = cls.of(decode(body))
        if not is_of_clock(pace.boot, pace.at, now, boot):
            pace._rebase(now, wall, boot)
        return pace

    @classmethod
    def of(cls, found: dict[str, Any]) -> Pace:
        """Build it from what a document holds; raises a TypeError or LookupError where that is something else."""
        part, slowed_at, since, cause, reason = found.get("drag", (0.0, None, None, "", ""))
        pace = cls(
            id=found["id"],
            at=found["at"],
            wall=found["wall"],
            boot=found["boot"],
            reservations=Reservations(
                found["epoch"],
                found["backfill_epoch"],
                _time(found["void_after"]),
                [
                    Run(first, step, count, bool(b), _counts(counts))
                    for first, step, count, counts, b in found["runs"]
                ],
                _time(found["last"][0]),
                _passed_of(found["last"][1]),
            ),
            hold_until=_time(found["hold_until"]),
            hold_reason=found["hold_reason"],
            quotas=Quotas((key, KnownQuota.load(values)) for key, values in found.get("quotas", {}).items()),
            tracks={name: Track.load(values) for name, values in found["tracks"].items()},
            tuning=Tuning(**found["tuning"]),
            breaker=Breaker(*found["breaker"]),
            falls=Falls(**found.get("falls", {})),
            slowdown=Slowdown(part, _time(slowed_at), since, cause, reason),
            learnt={unit: (booked, counted) for unit, (booked, counted) in found.get("learnt", {}).items()},
            marks=found.get("marks", []),
        )
        pace.slowdown.held_until = pace.held_until(pace.at)
        return pace

    def dump(self, now: float, wall: float) -> str:
        """The document's body."""
        return encode(self.document(now, wall))

    def document(self, now: float, wall: float) -> dict[str, Any]:
        """What the document holds: finite numbers, texts, lists and mappings of them."""
        slots, slow, breaker = self.reservations, self.slowdown, self.breaker
        slots.forget_passed(now)
        return {
            "format": _FORMAT,
            "id": self.id,
            "at": max(self.at, now),
            "wall": wall,
            "boot": self.boot,
            "epoch": slots.epoch,
            "backfill_epoch": slots.backfill_epoch,
            "void_after": _finite(slots.void_after),
            "hold_until": _finite(self.hold_until),
            "hold_reason": self.hold_reason,
            "quotas": {key: quota.dump() for key, quota in self.quotas.items()},
            "drag": [slow.part, _finite(slow.at), slow.since, slow.cause, slow.reason],
            "tracks": {name: track.dump() for name, track in self.tracks.items()},
            "runs": [[run.first, run.step, run.count, run.counts, int(run.backfill)] for run in slots.runs],
            "last": [_finite(slots.passed), slots.passed_of],
            "tuning": self.tuning.dump(),
            "breaker": breaker.dump(),
            "falls": self.falls.dump(),
            "learnt": self.learnt,
            "marks": self.marks,
        }

    def mark(self) -> None:
        """It was changed."""
        self.marks = [*self.marks[1 - _MARKS :], random.getrandbits(16)]

    # -- reservations ------------------------------------------------------------------------------

    def reserve(self, rules: Sequence[Rule], ask: Ask, now: float) -> Grant | Later | TooLate:
        """Give one call its moment; scheduled work that meets slots of backfills takes them."""
        if self.breaker.open:
            if ask.returns:
                # The probe was not sent.
                self.breaker.probe_until = 0.0
            free_at = max(self.breaker.free_at(), self.hold_until)
            if free_at > now:
                return _refused(ask, now, free_at, min(free_at, now + _BREAKER_LOOK_SECONDS))
        self._note_slowdown(rules, now)
        trial, tried_at = self._trial(rules, ask, now)
        concerned = self._concerned(rules, ask, now, without=trial)
        for rule, track in concerned:
            if rule is not None and track.windowed(rule):
                units = ask.count_of(track.unit)
                if ask.returns:
                    track.adjust(ask.returned_at, -parts_of(units))
                free_at = track.free_at(rule, now, units)
                if free_at > now:
                    # Answers that are to come may free it sooner.
                    look_at = now + _CORRECTED_LOOK_SECONDS if track.unit in self.learnt else free_at
                    return _refused(ask, now, free_at, min(free_at, look_at))
        if not ask.backfill:
            self._void(now + BACKFILL_FRESH_SECONDS + GUARD_SECONDS, backfill_only=True)
        step = max([ask.count_of(track.unit) * track.interval for _, track in concerned], default=0.0)
        earliest = now + ask.lead_seconds
        if ask.lead_seconds <= 0:
            slack = [rule.limit.slack_seconds if rule is not None else 0.0 for rule, _ in concerned]
            grace = _GRACE_SECONDS if 0.0 < step < QUICK_SECONDS else 0.0
            earliest = now - max(grace, min(slack, default=0.0))
        # What concerns all endpoints, and what concerns this one alone.
        moments = [(self.hold_until, True)]
        moments.append((tried_at, bool(trial) and self.quotas.is_wide(self.quotas[trial])))
        moments += [(track.arrival, track.wide) for _, track in concerned]
        moments += [
            (quota.until, self.quotas.is_wide(quota))
            for key, quota in self.quotas.concerning(ask.endpoint)
            if key != trial and quota.rate(now) == 0
        ]
        own = max((at for at, wide in moments if not wide), default=-math.inf)
        if now - min(-ask.lead_seconds, LATE_SECONDS) <= own < earliest:
            # It was put off until then. As if reserved then and used late: each call would add to the delay otherwise.
            earliest = own
        shared = max(earliest, *(at for at, wide in moments if wide))
        at = max(shared, own)
        ahead = own - max(shared, now)
        again_at = now + min(ahead, _LOOK_AGAIN_SECONDS)
        told = any(rule.endpoints for rule, _ in concerned if rule is not None)
        hole = ahead > 0.001 and (told or any(track.wide for _, track in concerned))
        counted = max((track.arrival for _, track in concerned if track.unit != REQUESTS), default=-math.inf)
        if counted >= at and any(track.unit == REQUESTS for _, track in concerned):
            # Calls that count nothing of that unit go on meanwhile.
            uncounted = [track.arrival for _, track in concerned if track.unit == REQUESTS]
            ahead = counted - max(now, self.hold_until, *uncounted)
            hole = hole or ahead > _FAR_SECONDS
            again_at = now + min(ahead, _LOOK_AGAIN_SECONDS) if ahead > _FAR_SECONDS else again_at
        refused = _refused(ask, now, at, again_at)
        if hole or isinstance(refused, TooLate):
            # Reserved now, it would leave a hole in what all endpoints share, and hold up those that wait behind it.
            # What the vendor tells of an endpoint may be taken back sooner.
            return refused
        for rule, track in concerned:
            units = ask.count_of(track.unit)
            track.note(units)
            track.arrival = max(track.arrival, at) + units * track.interval
            if rule is not None and track.windowed(rule):
                track.count(rule, at, units)
        self.reservations.add(at, step, backfill=ask.backfill, counts=ask.counts)
        if self.breaker.open:
            self.breaker.probe(at)
        for key, quota in list(self.quotas.concerning(ask.endpoint)):
            self.quotas[key] = quota.sent(0 if ask.returns else 1, at)
        if trial:
            self.quotas[trial] = self.quotas[trial].tried(at)
        epoch, backfill_epoch = self.reservations.epoch, self.reservations.backfill_epoch
        return Grant(at, epoch, backfill_epoch if ask.backfill else None, self.breaker.open, trial)

    def reserve_rows(self, rules: Sequence[Rule], ask: Ask, now: float, count: int) -> list[Row]:
        """Give as many calls of one kind their moments, as :meth:`reserve` would one by one; fewer where these wait."""
        track = self._sole(rules, ask, now) if count > 1 else None
        rows: list[Row] = []
        while count > 0 and isinstance(first := self.reserve(rules, ask, now), Grant):
            row = Row(first, 0.0, 1) if track is None else Row(first, track.interval, count)
            if track is not None:
                # Each of the others is due when the one before it makes way, which is later than all else.
                track.arrival += (count - 1) * track.interval
                self.reservations.add_behind(track.interval, count - 1)
            rows.append(row)
            count -= row.size
        return rows

    def _sole(self, rules: Sequence[Rule], ask: Ask, now: float) -> Track | None:
        """The limit of a call where nothing else keeps it back than that one's pace."""
        if self.breaker.open or self.quotas or ask.returns:
            return None
        concerned = self._concerned(rules, ask, now, without="")
        rule, track = concerned[0] if len(concerned) == 1 else (None, None)
        if rule is None or track is None or track.windowed(rule):
            return None
        return track if track.wide and track.interval and track.unit == REQUESTS else None

    def bounds(self, rules: Sequence[Rule], ask: Ask, now: float) -> list[Bound]:
        """All that keeps a call back; :meth:`reserve` waits for the latest of them.

        Nothing is reserved, but tracks are brought up to date: for a copy that is thrown away.
        """
        found = [Bound(HOLD, self.hold_reason, self.hold_until)] if self.hold_until > now else []
        if self.breaker.open:
            found.append(Bound(OUTAGE, "", self.breaker.free_at()))
        trial, tried_at = self._trial(rules, ask, now)
        if trial:
            found.append(Bound(HEADERS, trial, tried_at, wide=self.quotas.is_wide(self.quotas[trial])))
        concerned = self._concerned(rules, ask, now, without=trial)
        names = {id(track): name for name, track in self.tracks.items()}
        for rule, track in concerned:
            units, name = ask.count_of(track.unit), names[id(track)]
            if rule is not None and track.windowed(rule):
                free_at = track.free_at(rule, now, units)
                if free_at > now:
                    found.append(Bound(WINDOW, name, free_at, wide=track.wide))
            kind = LEARNT if name == _ADAPTED else HEADERS if name.startswith((_LEFT, POLICY)) else PACE
            name = name.removeprefix(_LEFT).removeprefix(POLICY)
            found.append(Bound(kind, name, track.arrival, units * track.interval, track.wide))
        found += [
            Bound(HEADERS, key, quota.until, wide=self.quotas.is_wide(quota))
            for key, quota in self.quotas.concerning(ask.endpoint)
            if key != trial and quota.rate(now) == 0
        ]
        return found

    def void_all(self, now: float) -> None:
        """Void all slots that lie ahead; their holders notice before they send."""
        self._void(now + FRESH_SECONDS + GUARD_SECONDS, backfill_only=False)

    def hold(self, until: float, reason: str, now: float) -> None:
        """Nobody sends before this moment; a hold that lasts longer stays."""
        if until > max(self.hold_until, now):
            self.void_all(now)
            self.hold_until = until
            self.hold_reason = reason

    # -- rates -------------------------------------------------------------------------------------

    def rate(self, now: float) -> float | None:
        """The adapted rate, in calls per second; None while only the limits hold."""
        rates = (self._learnt(now), *(quota.rate(now) for quota in self.quotas.wide()))
        return min([rate for rate in rates if rate], default=None)

    def _still_searching(self, now: float) -> bool:
        """Whether a rate is being searched and nothing was felt so far: where the vendor tells one, that is it."""
        return self.tuning.mode == "search" and self.tuning.starting and self.falls.permitted(now) is None

    def _learnt(self, now: float) -> float | None:
        """The rate that was learnt from answers, in calls per second; None where nothing was."""
        rates = (self.tuning.rate, self.falls.permitted(now))
        return min((rate for rate in rates if rate is not None), default=None)

    def ceiling(self, rules: Sequence[Rule], now: float, *, stated: bool = True) -> float:
        """The rate that the limits permit, in calls per second; infinite where none is known.

        A limit of another unit counts once it is known what a call counts of it.

        ``stated``: limits that the vendor states count, too.
        """
        rules = [*rules, *(self.quotas.rules(now) if stated else ())]
        intervals = [track.call_seconds for track in self._others(rules, now)]
        for rule in rules:
            if not rule.endpoints:
                track = self.tracks.get(rule.limit.name)
                seen = track is not None and now - track.interval_at <= STRICTEST_SECONDS
                interval = max(rule.interval_seconds, track.interval if track and seen else 0.0)
                units = 1.0 if rule.limit.unit == REQUESTS else track.average if track else 0.0
                intervals.append(units * interval)
        longest = max(intervals, default=0.0)
        return 1.0 / longest if longest else math.inf

    def per_call(self) -> dict[str, float]:
        """What a call counts of late of other units than requests, by unit, where that is known."""
        return {track.unit: track.average for track in self.tracks.values() if track.unit != REQUESTS}

    def present_rate(self, rules: Sequence[Rule], now: float) -> float:
        """The rate at which slots are given now, in calls per second; infinite where nothing paces."""
        return min(self.rate(now) or math.inf, self.ceiling(rules, now))

    def held_until(self, now: float) -> float:
        """Until when nobody sends: by a hold, or since the vendor tells that nothing is left for anybody."""
        return max([self.hold_until, *(q.until for q in self.quotas.wide() if q.rate(now) == 0)])

    def tightest(self, rules: Sequence[Rule], now: float) -> str | None:
        """What the vendor tells that slows us most, for people; None where nothing does."""
        rate, text = self.quotas.tightest(now)
        slows = rate < min(self._learnt(now) or math.inf, self.ceiling(rules, now, stated=False))
        return text if slows else None

    # -- what the vendor says ----------------------------------------------------------------------

    def absorb(self, rules: Sequence[Rule], share: float, tally: Tally, now: float) -> None:
        """Take in what came of some calls; ``share`` is our part of a rate that is found."""
        before = self.rate(now)
        self._note_slowdown(rules, now)
        for (key, firmly), answers in tally.against.items():
            if key in self.quotas:
                configured = self.ceiling(rules, now, stated=False)
                quota = self.quotas[key].contradicted(answers, now, configured, firmly=firmly)
                self._believe(key, quota, now)
        if tally.corrections:
            self._correct(rules, tally.corrections, now)
        ceiling = self.ceiling(rules, now)
        if tally:
            self._note_falls(tally, ceiling, now)
        if self.tuning.mode == "search" and not math.isinf(ceiling):
            self.tuning = Tuning(baseline=self.tuning.baseline)
        permitted = self.falls.permitted(now)
        self.tuning.absorb(tally, now, ceiling, share, math.inf if permitted is None else permitted)
        self._follow(before, now)

    def throttle(
        self,
        rules: Sequence[Rule],
        grant: Grant,
        asked_seconds: float | None,
        reason: str,
        now: float,
        endpoint: str = "",
        quotas: Sequence[Quota] = (),
        *,
        unavailable: bool = False,
    ) -> None:
        """The vendor refused a call: nobody sends for a while, or nobody to its endpoints where it tells which.

        Args:
            grant: The call's slot. One from before the last hold says nothing new, unless the vendor asks for a
                longer wait.
            asked_seconds: How long the vendor asks to wait; None or 0 where it does not.
            quotas: What the answer tells of them.
            unavailable: Whether it said that it is away, not that we were too fast. Where it says so again after
                the time it asked for, or within a minute, it has fallen.
        """
        used_up = [told for told in quotas if told.bucket and told.remaining < 1]
        if used_up and not unavailable:
            self.breaker.absorb(succeeded=True, failures=0, now=now)
            for told in used_up:
                key = quota_key(told.name, told.limit)
                known = self.quotas.get(key, KnownQuota())
                self._believe(key, known.used_up(told, endpoint, asked_seconds or 0.0, now), now)
            return
        wait = asked_seconds + JITTER_SECONDS if asked_seconds else None
        before = self.rate(now)
        if grant.epoch == self.reservations.epoch:
            self.breaker.absorb(succeeded=True, failures=0, now=now)
            current = self.present_rate(rules, now)
            if math.isinf(current):
                current = self.tuning.rate or 1.0
            first = self.tuning.throttled_at
            default = self.tuning.throttle(now, current)
            again = first is not None and now - first < _UNAVAILABLE_AGAIN_SECONDS and self.tuning.streak <= 2
            if unavailable and asked_seconds and again:
                onset = first if self.tuning.streak == 2 else now
                self.falls.fall(now, known=not math.isinf(self.ceiling(rules, now)), onset=onset)
                self._cap_search(now)
            wait = wait if wait is not None else default
            for key, quota in self.quotas.items():
                if endpoint in quota.endpoints:
                    self.quotas[key] = quota.refused(now)
        if wait is not None:
            self.hold(now + wait, reason, now)
        self._follow(before, now)

    def news(
        self, rules: Sequence[Rule], share: float, statement: Statement, now: float
    ) -> dict[str, KnownQuota]:
        """What an answer tells of the vendor's quotas that is new; nothing is changed yet."""
        configured = self.ceiling(rules, now, stated=False)
        permitted = min(self._learnt(now) or math.inf, configured)
        if math.isinf(permitted):
            permitted = self.ceiling(rules, now)
        of_bucket = configured if self._still_searching(now) else permitted
        return self.quotas.news(statement, now, share=share, permitted=permitted, of_bucket=of_bucket)

    def hear(self, rules: Sequence[Rule], share: float, statement: Statement, now: float) -> None:
        """Take in what an answer tells of the vendor's quotas; ``share`` is our part of a limit that it states."""
        narrow = self.quotas.narrow_endpoints()
        for key, quota in self.news(rules, share, statement, now).items():
            self._believe(key, quota, now)
        if self.quotas.narrow_endpoints() != narrow:
            # What was given waits for quotas that do not concern it.
            self.tracks = {name: track for name, track in self.tracks.items() if not name.startswith(_LEFT)}
            self.void_all(now)
        self.quotas.keep_newest()

    def inherit(self, lost: Pace, now: float) -> None:
        """Take over what was known from a document that was lost; all its slots are void."""
        shift = now - lost.at if lost.boot != self.boot else 0.0
        self.void_all(now)
        self.hold_until = max(self.hold_until, lost.hold_until + shift)
        self.hold_reason = self.hold_reason or lost.hold_reason
        self.learnt = lost.learnt | self.learnt
        self.quotas = Quotas(lost.quotas.shifted(shift) | self.quotas)
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

    def _correct(self, rules: Sequence[Rule], corrections: Sequence[Correction], now: float) -> None:
        """Book what calls really counted; those that wait ask again where that is less than was booked."""
        slots = self.reservations
        slots.forget_passed(now)
        freed = {each.unit for each in corrections if each.difference < 0}
        opened = [
            rule
            for rule in rules
            if rule.limit.unit in freed
            and rule.limit.name in self.tracks
            and self.tracks[rule.limit.name].open_window(rule, now)
        ]
        # What is in a window that was opened now is not known one by one, and stays.
        if freed and not opened and slots.reach_past(now + _STALE_SECONDS):
            self.void_all(now)
        for each in corrections:
            booked, counted = self.learnt.get(each.unit, (0.0, 0.0))
            self.learnt[each.unit] = (
                _LEARNT_KEPT * booked + each.booked / PARTS,
                _LEARNT_KEPT * counted + each.counted / PARTS,
            )
            if not each.difference:
                continue
            last, count = slots.passed_of.get(each.unit, (slots.passed, 1))
            if each.difference > 0 or abs(last - each.at) < _SAME_SECONDS:
                slots.passed_of[each.unit] = (last, max(0.0, count + each.difference / PARTS))
            for rule in rules:
                track = self.tracks.get(rule.limit.name)
                if track is not None and rule.limit.unit == each.unit and rule.concerns(each.endpoint):
                    track.correct(each.at, each.difference, now)

    def _note_falls(self, tally: Tally, ceiling: float, now: float) -> None:
        """Whether the vendor has fallen, or is back."""
        known = not math.isinf(ceiling)
        falls, opened_at = self.falls, self.breaker.opened_at
        falls.count(tally.sent, tally.failures, now, tally.alive_at)
        acted_at = -math.inf if falls.acted_at is None else falls.acted_at
        # What was sent before an outage is answered in it, and what was sent in it fails after it: neither is news.
        back = tally.answered > 0 and (opened_at is None or tally.alive_at >= opened_at)
        moved = self.breaker.absorb(back, tally.failed_after(acted_at), now)
        if moved:
            self.void_all(now)
        if opened_at is None:
            if moved:
                falls.fall(now, known=known)
            else:
                falls.look(tally.answered if tally.alive_at > acted_at else 0, now, known=known)
        elif moved:
            self.tuning.undo_cut(opened_at - _OUTAGE_CUTS_SECONDS)
            falls.come_back(now, min(self.tuning.rate or math.inf, ceiling))
            if falls.ramp is not None:
                # The one after the probe need not wait for the ramp.
                self.tracks[_ADAPTED] = Track(now, 0.0, now)
        self._cap_search(now)

    def _cap_search(self, now: float) -> None:
        """A search does not go past the ceiling."""
        height = self.falls.height(now)
        if height is not None and self.tuning.mode == "search" and self.tuning.rate is not None:
            self.tuning.starting = False
            self.tuning.rate = min(self.tuning.rate, height)

    def _concerned(
        self, rules: Sequence[Rule], ask: Ask, now: float, *, without: str
    ) -> list[tuple[Rule | None, Track]]:
        """The limits that a call has to wait for; without those of a quota that it is to try."""
        found: list[tuple[Rule | None, Track]] = []
        rules = [*rules, *self.quotas.rules(now)]
        for rule in rules:
            name, interval = rule.limit.name, rule.interval_seconds
            if (
                not (rule.concerns(ask.endpoint) and ask.count_of(rule.limit.unit))
                or name == POLICY + without
            ):
                continue
            track = self.tracks.get(name)
            if track is None:
                units = ask.count_of(rule.limit.unit)
                # Of another unit, what is not known of was not counted.
                unknown = self.reservations.passed if rule.limit.unit == REQUESTS else -math.inf
                last, count = self.reservations.passed_of.get(rule.limit.unit, (unknown, units))
                arrival = last + count * interval if math.isfinite(last) else now
                track = self.tracks[name] = Track(arrival, interval, now, watched=rule.limit.weighed)
            elif interval >= track.interval or now - track.interval_at > STRICTEST_SECONDS:
                track.interval = interval
                track.interval_at = now
            track.wide, track.unit = not rule.endpoints, rule.limit.unit
            if rule.limit.weighed:
                track.open_window(rule, now)
            found.append((rule, track))
        others = [track for track in self._others(rules, now) if ask.count_of(track.unit)]
        if not others and all(rule.endpoints for rule in rules) and self.tuning.rate is None:
            self.tuning.start_search()
        adapted = self._followed(_ADAPTED, self._learnt(now), now, wide=True)
        told = any(rule.endpoints for rule, _ in found if rule is not None)
        followed = [*others, *([] if told and self._still_searching(now) else [adapted])]
        followed += [
            self._followed(_LEFT + key, quota.rate(now), now, wide=self.quotas.is_wide(quota))
            for key, quota in self.quotas.concerning(ask.endpoint)
            if key != without
        ]
        return found + [(None, track) for track in followed if track is not None]

    def _followed(self, name: str, rate: float | None, now: float, *, wide: bool) -> Track | None:
        """The track of a rate that changes, while there is one."""
        if not rate:
            self.tracks.pop(name, None)
            return None
        track = self.tracks.get(name)
        if track is None:
            arrival = max(now, self.reservations.next_at(1 / rate))
            track = self.tracks[name] = Track(arrival, 0.0, now)
        track.interval = 1.0 / rate
        track.wide = wide
        return track

    def _others(self, rules: Sequence[Rule], now: float) -> list[Track]:
        """Limits that only other processes know, seen recently."""
        own = {rule.limit.name for rule in rules}
        return [
            track
            for name, track in self.tracks.items()
            if name not in own
            and not name.startswith("~")
            and track.wide
            and now - track.interval_at <= STRICTEST_SECONDS
        ]

    def _trial(self, rules: Sequence[Rule], ask: Ask, now: float) -> tuple[str, float]:
        """The quota that this call may go ahead of, and when; none where all are believed."""
        configured = self.ceiling(rules, now, stated=False) if self.quotas else math.inf
        for key, quota in self.quotas.concerning(ask.endpoint):
            at, rate, track = quota.tried_at(now, configured), quota.rate(now), self.tracks.get(_LEFT + key)
            free_at = quota.until
            if rate:
                free_at = track.arrival if track else self.reservations.next_at(1 / rate)
            if at < quota.until and at < free_at:
                return key, at
        return "", -math.inf

    def _believe(self, key: str, quota: KnownQuota, now: float) -> None:
        """Keep what is known of a quota."""
        before = self.quotas.get(key, KnownQuota()).rate(now)
        self.quotas[key] = quota
        if self._void_stale(_LEFT + key, before, quota.rate(now), now):
            # Its next call was put off at the old rate.
            self.tracks.pop(_LEFT + key, None)

    def _follow(self, before: float | None, now: float) -> None:
        self._void_stale(_ADAPTED, before, self.rate(now), now)

    def _void_stale(self, name: str, before: float | None, after: float | None, now: float) -> bool:
        """Void what was given at a higher rate, and at a far lower one, which wastes time; whether that was so.

        Args:
            name: Of the track that follows this rate.
        """
        lower = after is not None and (before is None or after < before)
        higher = before is not None and (after is None or after > 1.25 * before)
        if lower or (higher and self.reservations.reach_past(now + _STALE_SECONDS)):
            self.void_all(now)
        track = self.tracks.get(name)
        if lower and after and track is not None and track.interval:
            # What follows the last slot that remains does so at the new rate; one that is new follows none.
            track.interval = 1.0 / after
            track.arrival = max(track.arrival, self.reservations.next_at(track.interval))
        return higher

    def _note_slowdown(self, rules: Sequence[Rule], now: float) -> None:
        if not self.slowdown.due(now):
            return
        configured = self.ceiling(rules, now, stated=False)
        slow = self.breaker.open or (self.present_rate(rules, now) < 0.5 * configured < math.inf)
        held_until = self.held_until(now)
        self.slowdown.note(now, slow=slow, held_until=held_until, why=lambda: self._slowed_by(rules, now))

    def _slowed_by(self, rules: Sequence[Rule], now: float) -> tuple[str, str]:
        """Cause and reason of a slowdown; empty where the limits themselves are it."""
        if self.breaker.open:
            return "outage", "the vendor is down"
        if now < self.hold_until:
            return "throttled", self.hold_reason
        if headers := self.tightest(rules, now):
            return "headers", headers
        if self.tuning.mode != "free":
            return "learnt", "what the vendor bore so far, by its answers"
        return "", ""

    def _void(self, after: float, *, backfill_only: bool) -> None:
        """Void the slots after a moment (those of backfills only, or all) and move the limits back."""
        if self.reservations.void(after, backfill_only=backfill_only):
            for track in self.tracks.values():
                last, count = self.reservations.last_of(track.unit)
                free_at = last + count * track.interval if math.isfinite(last) else after
                track.arrival = min(track.arrival, free_at)

    def _rebase(self, now: float, wall: float, boot: str) -> None:
        """The clock started anew or went back: keep every duration, count the time that passed meanwhile."""
        passed = min(max(wall - self.wall, 0.0), 10 * 86_400.0) if boot != self.boot else 0.0
        shift = now - passed - self.at
        self.at += shift
        self.hold_until += shift
        self.quotas = self.quotas.shifted(shift)
        for track in self.tracks.values():
            track.shift(shift)
        for part in (self.reservations, self.slowdown, self.tuning, self.breaker, self.falls):
            part.shift(shift)
        self.boot = boot
        self.reservations.epoch += 1


def encode(found: dict[str, Any]) -> str:
    """A document's body, by what it holds."""
    return _ENCODER.encode(found).decode()


def epochs_of(found: dict[str, Any]) -> Epochs:
    """The epochs that a document holds."""
    return Epochs(found["epoch"], found["backfill_epoch"], _time(found["void_after"]))


def decode(body: str) -> dict[str, Any]:
    """What a document's body holds.

    Raises:
        ValueError: A newer release has written it, or it is none; or a TypeError or LookupError.
    """
    found: dict[str, Any] = msgspec.json.decode(body)
    if found.get("format", _FORMAT) > _FORMAT:
        raise ValueError(f"its format is {found['format']}, known is {_FORMAT}")
    return found


def is_of_clock(boot: str, at: float, now: float, present: str) -> bool:
    """Whether times are the present clock's, which has neither started anew nor gone back.

    Args:
        boot: In which run of the clock they are; ``at`` is the latest of them.
        present: The present run.
    """
    return boot == present and now >= at - 1.0


def _counts(found: list[tuple[str, float]] | float) -> Counts:
    """What the slots of a run count; an earlier version kept a number."""
    return tuple((unit, number) for unit, number in found) if isinstance(found, list) else ()


def _passed_of(found: dict[str, tuple[float, float]] | float) -> dict[str, tuple[float, float]]:
    """The last slots that count, by unit; an earlier version kept a number."""
    return {unit: (at, count) for unit, (at, count) in found.items()} if isinstance(found, dict) else {}


def _refused(ask: Ask, now: float, free_at: float, again_at: float) -> Later | TooLate:
    wait = free_at - now
    too_late = ask.patience_seconds is not None and wait > ask.patience_seconds
    return TooLate(wait) if too_late else Later(again_at)


def _finite(moment: float) -> float | None:
    return moment if math.isfinite(moment) else None


def _time(moment: float | None) -> float:
    return -math.inf if moment is None else moment
