"""What is shown of a budget: its state, in words where words are needed, and what is logged when it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from vendor_assets.budget.clock import Clock
from vendor_assets.budget.in_flight import InFlightShares
from vendor_assets.budget.limits import PARTS, REQUESTS, amount_text
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.quotas import NOTHING_LEFT
from vendor_assets.budget.terms import Terms
from vendor_assets.logs import get_logger

log = get_logger(__name__)

_SLOW_BEFORE_SECONDS: Final = 60.0
_LONG_AGO_SECONDS: Final = 300.0
_LOG_AGAIN_SECONDS: Final = 60.0


class Used(NamedTuple):
    """What a counted limit has counted in its window, and what we may use of it."""

    used: float
    permitted: float
    unit: str = REQUESTS

    @property
    def left(self) -> float:
        """What is left of it."""
        return max(0.0, self.permitted - self.used)

    def __str__(self) -> str:
        used, permitted, left = (
            amount_text(number, self.unit) for number in (self.used, self.permitted, self.left)
        )
        return f"{used} of {permitted}, {left} left"


@dataclass(frozen=True)
class BudgetState:
    """What the budget does now.

    Attributes:
        permitted_rate: Share times limit, calls per second; None while unknown (``auto`` before any call).
        rate: The pace at which slots are given now, calls per second; None where nothing paces.
        why: One sentence: what decides the rate now.
        hold_seconds: Until anybody sends again; 0 without a hold.
        breaker: ``closed`` (all is well) or ``open`` (the vendor is down, one probe at a time).
        ahead_seconds: How far ahead slots are given: what a newcomer waits at most for the pace.
        waiting: Callers that wait for a slot, over all processes, at their last heartbeat.
        in_flight: Calls in flight, over all processes, at their last heartbeat.
        used: Of counted limits, by name.
        per_call: What a call counted of late of other units than requests, by unit.
        learnt: What calls really counted of late, as a part of what was booked for them, by unit, where answers tell.
        ceiling: The rate that is not passed since the vendor fell, calls per second; None where it never did.
        ceiling_reason: At which rate it fell and when, and how long the ceiling holds.
        slowed: Since when and why the pace is far below the configured limit; empty where it is not.
    """

    account: str
    limits: tuple[str, ...]
    share: float
    permitted_rate: float | None
    rate: float | None
    why: str
    hold_seconds: float
    hold_reason: str
    breaker: str
    ahead_seconds: float
    waiting: int
    in_flight: int
    max_in_flight: int
    used: dict[str, Used] = field(default_factory=dict)
    processes: tuple[str, ...] = ()
    ceiling: float | None = None
    ceiling_reason: str = ""
    slowed: str = ""
    per_call: dict[str, float] = field(default_factory=dict)
    learnt: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, terms: Terms, pace: Pace, shares: InFlightShares, now: float, wall: float) -> BudgetState:
        """The state of an account."""
        members = shares.live()
        rate = pace.present_rate(terms.rules, now)
        hold = max(0.0, pace.held_until(now) - now)
        return cls(
            account=terms.account,
            limits=tuple(map(str, terms.limits)) or ("auto",),
            share=terms.share,
            permitted_rate=terms.permitted_rate(pace.per_call()) or pace.tuning.rate,
            rate=None if math.isinf(rate) else rate,
            why=rate_reason(terms, pace, now, wall),
            hold_seconds=hold,
            hold_reason=(pace.hold_reason if now < pace.hold_until else NOTHING_LEFT) if hold else "",
            breaker="open" if pace.breaker.open else "closed",
            ahead_seconds=max([0.0, *(track.arrival - now for track in pace.tracks.values())]),
            waiting=sum(member.waiting for member in members.values()),
            in_flight=sum(member.in_flight for member in members.values()),
            max_in_flight=min([terms.max_in_flight, *(member.cap for member in members.values())]),
            used={
                rule.limit.name: Used(track.used, rule.parts / PARTS, rule.limit.unit)
                for rule in terms.rules
                if rule.limit.counted and (track := pace.tracks.get(rule.limit.name)) is not None
            },
            processes=tuple(
                f"{holder}: {member.work_class}, {member.in_flight} in flight of at most {member.granted}, "
                f"{member.waiting} waiting"
                for holder, member in sorted(members.items())
            ),
            ceiling=pace.falls.height(now),
            ceiling_reason=ceiling_reason(pace, now, wall),
            slowed=_slowed(terms, pace, now, wall),
            per_call=pace.per_call(),
            learnt={unit: counted / booked for unit, (booked, counted) in pace.learnt.items() if booked},
        )


class Announcer:
    """Logs what people should hear of without asking: that the vendor has fallen, and what holds the pace far below."""

    def __init__(self, terms: Terms, clock: Clock) -> None:
        self._terms = terms
        self._clock = clock
        self._cause = ""
        self._logged_at = -math.inf

    def changed(self, pace: Pace, now: float, fell: bool) -> None:
        """The pace has changed.

        What slows it is logged once, again when that changes, and when it is over.
        """
        wall = self._clock.wall()
        if fell and (reason := ceiling_reason(pace, now, wall)):
            log.warning("%s: %s", self._terms.account, reason)
        slowed = _slowed(self._terms, pace, now, wall)
        cause = pace.slowdown.cause if slowed else ""
        if cause == self._cause or (cause and now - self._logged_at < _LOG_AGAIN_SECONDS):
            return
        self._cause, self._logged_at = cause, now
        if slowed:
            log.warning("calls to %s are slow: %s", self._terms.account, slowed)
        else:
            log.info("calls to %s are at the pace of the limit again", self._terms.account)


def ceiling_reason(pace: Pace, now: float, wall: float) -> str:
    """At which rate the vendor fell and when, and how long the ceiling holds; empty where there is none."""
    return pace.falls.reason(now, datetime.fromtimestamp(wall, UTC))


def _slowed(terms: Terms, pace: Pace, now: float, wall: float) -> str:
    """Since when the pace is far below the configured limit, and why; empty where it is not."""
    slowdown = pace.slowdown
    if slowdown.since is None or now - slowdown.at > _LONG_AGO_SECONDS:
        return ""
    seconds = now - slowdown.since + _SLOW_BEFORE_SECONDS
    permitted = terms.permitted_rate(pace.per_call()) or pace.tuning.rate or 0.0
    return (
        f"for {seconds / 60:.0f} min the pace has been below half of the permitted {permitted:.3g} calls/s: "
        f"{slowdown.reason or rate_reason(terms, pace, now, wall)}"
    )


def rate_reason(terms: Terms, pace: Pace, now: float, wall: float) -> str:
    """What decides the rate now, for people."""
    if pace.hold_until > now:
        return f"held: {pace.hold_reason}"
    if pace.breaker.open:
        return "the vendor is down: one call every few seconds asks whether it is back"
    told = pace.tightest(terms.rules, now)
    if told is not None:
        return told
    tuning, permitted = pace.tuning, pace.falls.permitted(now)
    if permitted is not None and permitted <= min(pace.ceiling(terms.rules, now), tuning.rate or math.inf):
        reason = ceiling_reason(pace, now, wall)
        if not pace.falls.returning(now):
            return reason
        return "coming back gently after an outage" + (f": {reason}" if reason else "")
    if tuning.mode == "search":
        return "no limit is known: the rate follows what the vendor bears"
    if tuning.mode == "recover":
        ago = now - tuning.since
        return f"cut from {tuning.before:.3g} calls/s {ago:.0f} s ago, on the way to {tuning.target:.3g}"
    if tuning.mode == "plateau":
        return f"just below what the vendor refused; the next try for more is in {tuning.until - now:.0f} s"
    if tuning.mode == "probe":
        return "trying whether the vendor bears more again"
    return f"{terms.share:g} of {', '.join(map(str, terms.limits))}"
