"""What the vendor tells of one of its quotas, and how far that is believed. Pure.

A sign in a header may be true and mislead: a bucket of one that lets twenty calls a second pass tells with every answer
that nothing is left until the next whole second. What is admitted is a sign as well. A quota that counts our calls
goes down with each of them; an answer to a call that was sent once the vendor had told what is left, and before the
reset, contradicts that where no less is left afterwards. Since windows that slide and buckets that refill do the same,
it counts only where more was sent than the quota describes (the most that was ever left, over the longest time to a
reset), or where nothing moved over several calls, neither what is left nor the reset. Then more is dared, doubling once
a second, until the headers slow nobody. A refusal ends that: they are believed for an hour, then two, up to a day.

Where nothing can be sent, nothing contradicts. So once a quota has slowed us for some seconds, tells of less than the
configured limit, and was not refused of late, one call at a time goes ahead of it and finds out.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, Self

from vendor_assets.budget.headers import LONGEST_HOLD_SECONDS, Policy, Quota
from vendor_assets.budget.limits import JITTER_SECONDS

TRIAL_AFTER_SECONDS: Final = 5.0
"""So long a quota slows us before a call tries whether it holds ..."""

QUICK_TRIAL_AFTER_SECONDS: Final = 20.0
"""... where it leaves us a call every few seconds, longer: those may tell enough ..."""

TRIAL_SECONDS: Final = 4.7
"""... and so long before the next one does; not in step with windows of whole seconds."""

TRUST_SECONDS: Final = 3600.0
LONGEST_TRUST_SECONDS: Final = 86_400.0
"""So long a quota is believed once a refusal confirmed it; twice as long each time."""

FORGET_SECONDS: Final = 86_400.0
"""What was not told for so long is forgotten."""

LOST_IN_A_ROW: Final = 10
"""After so many answers against what was told, one refusal is chance."""

_QUICK_RATE: Final = 0.1
_REFRESH_SECONDS: Final = 60.0
_CALM_SECONDS: Final = 10.0
_ROUNDING_SECONDS: Final = 1.0
_SAME_SECONDS: Final = 0.75
_CONFIRMED_SECONDS: Final = 15.0
_FIRST_DARED: Final = 2.0
_MOST_BEYOND: Final = 1000
_MOST_ENDPOINTS: Final = 20
_STILL_CALLS: Final = 2
_STILL_SECONDS: Final = 2.0
_MOST_CLAIMS: Final = 50
_PLAUSIBLE: Final = 0.9


@dataclass(frozen=True, slots=True)
class KnownQuota:
    """One quota; times are the database's clock.

    Attributes:
        limit: Calls per period; 0 where only what is left is told.
        period: In seconds.
        share: Our part of it.
        endpoints: Whose answers tell of it.
        at: When something was last told.
        remaining: What was left then.
        pace: Calls per second that leaves us until the reset; 0: none.
        until: The reset; what has passed slows nobody.
        slow_since: Since when it has slowed us ...
        slow_at: ... and when it last did.
        most: The most that was ever left ...
        span: ... and the longest time to a reset: together the rate that it describes.
        skew: So much later than the quota was whole again its reset was told.
        level: Calls that were sent, less what the quota describes has passed since ...
        level_at: ... up to then.
        dared: Calls per second that are sent whatever it says.
        raised_at: When that was last raised ...
        fresh: ... and the answers against it since.
        beyond: Answers against it, since the last refusal.
        next_trial: Before this moment no other call tries it.
        trusted_until: Until then none does.
        trust: How long it is believed after the next refusal.
    """

    limit: float = 0.0
    period: float = 0.0
    share: float = 1.0
    endpoints: tuple[str, ...] = ()
    at: float = -1e18
    remaining: float = 0.0
    pace: float = 0.0
    until: float = -1e18
    slow_since: float = -1e18
    slow_at: float = -1e18
    most: float = 0.0
    span: float = 0.0
    skew: float = 0.0
    level: float = 0.0
    level_at: float = -1e18
    dared: float = 0.0
    raised_at: float = -1e18
    fresh: int = 0
    beyond: int = 0
    next_trial: float = -1e18
    trusted_until: float = -1e18
    trust: float = TRUST_SECONDS

    @classmethod
    def load(cls, values: dict[str, Any]) -> Self:
        """From its dump."""
        return cls(**(values | {"endpoints": tuple(values.get("endpoints", ()))}))

    def dump(self) -> dict[str, Any]:
        """What differs from a new one."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) != getattr(_NEW, name)}

    def shift(self, seconds: float) -> Self:
        """Move all times."""
        return replace(self, **{name: getattr(self, name) + seconds for name in _TIMES})

    # -- what it means now -------------------------------------------------------------------------

    def rate(self, now: float) -> float | None:
        """Calls per second that it leaves; 0: none until the reset; None: it slows nobody."""
        if now < self.until:
            return max(self.pace, self.dared)
        return self.dared if self.dared and self.limit else None

    def tried_at(self, now: float, configured: float) -> float:
        """When a call may go ahead of it; infinite where it is believed.

        Args:
            now: The time.
            configured: The rate that the limits permit without it, in calls per second.
        """
        calls, seconds = self._described
        believed = now < self.trusted_until or calls / seconds >= _PLAUSIBLE * configured
        if math.isinf(configured) or believed or self.dared >= configured or now >= self.until:
            return math.inf
        after = TRIAL_AFTER_SECONDS if self.pace < _QUICK_RATE else QUICK_TRIAL_AFTER_SECONDS
        return max(self.slow_since + after, self.raised_at + TRIAL_SECONDS, self.next_trial)

    @property
    def _described(self) -> tuple[float, float]:
        """Calls, and the seconds in which they are permitted."""
        if self.limit:
            return self.limit, self.period
        return self.most + 1, max(self.span, 1.0)

    # -- what changes it ---------------------------------------------------------------------------

    def hear_policy(self, policy: Policy, share: float, endpoint: str, now: float) -> Self | None:
        """The vendor tells the limit itself; None where that is known."""
        old = self if now - self.at < _REFRESH_SECONDS else replace(self, period=0.0, share=1.0)
        new = replace(
            old,
            limit=math.floor(policy.limit),
            period=max(policy.period_seconds, old.period),
            share=min(share, old.share),
            endpoints=self._with(endpoint),
        )
        return None if new == self and old is self else replace(new, at=now)

    def hear(
        self,
        quota: Quota,
        endpoint: str,
        *,
        sent_at: float,
        now: float,
        in_flight: int,
        permitted: float,
        trial: bool = False,
    ) -> Self | None:
        """The vendor tells what is left.

        Acts only where our pace would use up more than that; the second by which a reset may be rounded does not
        count.

        Args:
            quota: What it tells.
            endpoint: Whose answer tells it.
            sent_at: When the call was sent.
            now: The time.
            in_flight: Other calls on their way.
            permitted: The rate without it, in calls per second.
            trial: Whether the call went ahead of this quota, and its answer does not contradict it.

        Returns:
            What is known then; None where nothing changes.
        """
        old, skew = self, self.skew
        reset = min(quota.reset_seconds, LONGEST_HOLD_SECONDS)
        in_force, later = now < old.until, sent_at >= old.at
        same = in_force and abs(now + reset - skew + JITTER_SECONDS - old.until) <= _ROUNDING_SECONDS
        whole_again = quota.remaining > old.remaining and now + reset - skew > old.until + _ROUNDING_SECONDS
        if in_force and later and whole_again and now < old.until - _ROUNDING_SECONDS:
            # It was whole again before the moment that was told: a clock that is off.
            skew += old.until - now
        reset = max(0.0, reset - skew)
        until, left = now + reset + JITTER_SECONDS, quota.remaining - in_flight
        new = replace(
            old,
            endpoints=old._with(endpoint),
            most=quota.remaining if quota.remaining > 1.2 * old.most + 1 else old.most,
            span=reset if reset > 1.2 * old.span + 0.1 else old.span,
            next_trial=now + (_CONFIRMED_SECONDS if quota.remaining >= 1 else 0.0)
            if trial
            else old.next_trial,
            skew=skew,
        )
        # Once a window has slowed us, it does so to its end.
        rounding = 0.0 if same else _ROUNDING_SECONDS
        enough = left >= permitted * (reset - rounding) and not (old.limit and left < 1)
        if enough or old.dared >= permitted:
            if in_force and later:
                new = replace(new, until=now)
            return None if new == old else replace(new, at=now)
        pace = left / reset if left >= 1 else 0.0
        if in_force and not later and pace >= old.pace:
            return None if new == old else new
        before, after = max(old.pace, old.dared), max(pace, old.dared)
        if new == old and same and 0.9 * before <= after <= 1.25 * before:
            return None
        calm = now > max(old.slow_at, old.until) + _CALM_SECONDS
        return replace(
            new,
            at=now,
            remaining=quota.remaining,
            pace=pace,
            until=until,
            slow_since=now if calm else old.slow_since,
            slow_at=now,
        )

    def sent(self, weight: int, at: float) -> Self:
        """A call was given a slot."""
        calls, seconds = self._described
        passed = max(0.0, at - self.level_at)
        level = max(0.0, self.level - passed * calls / seconds) + weight
        return replace(self, level=level, level_at=max(at, self.level_at))

    def contradicted(self, answers: int, now: float, configured: float, *, firmly: bool) -> Self:
        """Calls were answered that it did not leave.

        Args:
            answers: How many.
            now: The time.
            configured: The rate that the limits permit without it, in calls per second.
            firmly: Whether nothing moved over several calls.
        """
        exceeded = self.level > 1.1 * self._described[0]
        if now < self.trusted_until:
            return self
        if not (firmly or exceeded):
            # So far it may be a window that slides: try again, until it is exceeded or a call is refused.
            return replace(self, next_trial=min(self.next_trial, now))
        new = replace(self, beyond=min(self.beyond + answers, _MOST_BEYOND), fresh=self.fresh + answers)
        if not self.dared:
            first = max(_FIRST_DARED, 2 * (self.remaining + 1) / max(self.span, 1.0))
            return replace(new, dared=min(first, configured), raised_at=now, fresh=0)
        if now - self.raised_at < 1.0 or new.fresh < 2 or self.dared >= configured:
            return new
        return replace(new, dared=min(2 * self.dared, configured), raised_at=now, fresh=0)

    def refused(self, now: float) -> Self:
        """A call was refused."""
        if not self.dared and now - self.next_trial > TRIAL_SECONDS:
            return replace(self, skew=0.0)
        if self.beyond >= LOST_IN_A_ROW:
            return replace(self, beyond=self.beyond // 2)
        return replace(
            self,
            dared=0.0,
            beyond=0,
            level=0.0,
            skew=0.0,
            next_trial=-1e18,
            trusted_until=now + self.trust,
            trust=min(2 * self.trust, LONGEST_TRUST_SECONDS),
        )

    def _with(self, endpoint: str) -> tuple[str, ...]:
        if endpoint in self.endpoints:
            return self.endpoints
        return (*self.endpoints, endpoint)[-_MOST_ENDPOINTS:]


class Statement(NamedTuple):
    """What an answer tells of the vendor's quotas.

    Attributes:
        endpoint: Where the call went.
        sent_at: When.
        in_flight: Other calls on their way.
        quotas: What is left.
        policies: The limits.
        against: Quotas that the answer contradicts ...
        firmly: ... and those of which nothing has moved over several calls.
        confirms: Quotas that the call went ahead of and that count it.
    """

    endpoint: str
    sent_at: float
    in_flight: int
    quotas: tuple[Quota, ...] = ()
    policies: tuple[Policy, ...] = ()
    against: tuple[str, ...] = ()
    firmly: tuple[str, ...] = ()
    confirms: tuple[str, ...] = ()


class _Claim(NamedTuple):
    """What was left when it was last heard, and since when and over how many calls neither that nor the reset moved."""

    at: float
    remaining: float
    until: float
    since: float = 0.0
    still: int = 0


class Listener:
    """Compares what one answer tells with what was told before its call was sent; one for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, _Claim] = {}

    def compare(
        self, statement: Statement, known: Mapping[str, KnownQuota], *, trial: str, admitted: bool, now: float
    ) -> Statement:
        """Find what an answer contradicts or confirms.

        Args:
            statement: What it tells.
            known: What the account knows.
            trial: The quota that the call went ahead of.
            admitted: Whether the vendor did what was asked.
            now: The time.
        """
        with self._lock:
            return self._compare(statement, known, trial, now, admitted=admitted)

    def _compare(
        self, statement: Statement, known: Mapping[str, KnownQuota], trial: str, now: float, *, admitted: bool
    ) -> Statement:
        against, firmly, confirms = [], [], []
        for quota in statement.quotas:
            key = key_of(quota.name, quota.limit)
            old = known.get(key)
            claims = [] if old is None else [_Claim(old.at, old.remaining, old.until)]
            claim = max([*claims, *filter(None, [self._claims.get(key)])], default=None)
            if claim is not None and admitted and _contradicts(claim, quota, statement.sent_at, now):
                against.append(key)
            elif claim is not None and admitted and key == trial and quota.remaining < claim.remaining:
                confirms.append(key)
            if claim is None or statement.sent_at >= claim.at:
                if len(self._claims) >= _MOST_CLAIMS:
                    self._claims.clear()
                mine = self._claims.get(key)
                until = now + quota.reset_seconds
                if (
                    key in against
                    and mine is not None
                    and quota.remaining == mine.remaining
                    and abs(until - mine.until) < _SAME_SECONDS
                ):
                    still = mine._replace(at=now, still=mine.still + 1)
                    self._claims[key] = still
                    if still.still >= _STILL_CALLS and now - still.since >= _STILL_SECONDS:
                        firmly.append(key)
                else:
                    self._claims[key] = _Claim(now, quota.remaining, until, since=now)
        return statement._replace(against=tuple(against), firmly=tuple(firmly), confirms=tuple(confirms))


def _contradicts(claim: _Claim, quota: Quota, sent_at: float, now: float) -> bool:
    """Whether an answer shows that a call was admitted that an earlier one did not leave.

    It was sent once the claim was known and before its reset, and no less is left. Where the reset is not the same,
    the second by which one may be rounded does not count.
    """
    if not claim.at <= sent_at < claim.until or quota.remaining < claim.remaining:
        return False
    same = abs(now + quota.reset_seconds - claim.until) < _SAME_SECONDS
    return same or sent_at < claim.until - _ROUNDING_SECONDS


def key_of(name: str, limit: float | None) -> str:
    """What tells the quotas of an account apart."""
    return f"{name[:40]}|{limit or 0:g}"


_NEW: Final = KnownQuota()
_NAMES: Final = tuple(entry.name for entry in fields(KnownQuota))
_TIMES: Final = ("at", "until", "slow_since", "slow_at", "raised_at", "next_trial", "trusted_until")
