"""The vendor's quotas, as its headers tell them, and how far they are believed. Pure.

A sign in a header may be true and mislead: a bucket of one that lets twenty calls a second pass tells with every answer
that nothing is left until the next whole second. What is admitted is a sign as well. A quota that counts our calls
goes down with each of them; an answer to a call that was sent once the vendor had told what is left, and before the
reset, contradicts that where no less is left afterwards. Since windows that slide and buckets that refill do the same,
it counts only where more was sent than the quota describes (the most that was ever left, over the longest time to a
reset), or where neither what is left nor the reset moved over several calls. Then more is dared, doubling once a
second, until the headers slow nobody. A refusal ends that: they are believed for an hour, then two, up to a day.

Where nothing can be sent, nothing contradicts. So once a quota has slowed us for some seconds, tells of less than the
configured limit, and was not refused recently, one call at a time goes ahead of it and finds out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, Self

from vendor_assets.budget.headers import LONGEST_HOLD_SECONDS, Policy, Quota
from vendor_assets.budget.limits import COUNTED_FROM_SECONDS, COUNTED_PACE, JITTER_SECONDS, Limit
from vendor_assets.budget.tracks import Rule

POLICY: Final = "~policy "
"""What the name of a limit that the vendor tells begins with."""

ROUNDING_SECONDS: Final = 1.0
"""A reset may be rounded by so much."""

NOTHING_LEFT: Final = "the vendor says that its quota is used up"

_TRIAL_AFTER_SECONDS: Final = 5.0
"""So long a quota slows us before a call tries whether it holds ..."""
_QUICK_TRIAL_AFTER_SECONDS: Final = 20.0
"""... where it leaves us a call every few seconds, longer: those may tell enough ..."""
_TRIAL_SECONDS: Final = 4.7
"""... and so long before the next one does; not in step with windows of whole seconds."""
_TRUST_SECONDS: Final = 3600.0
_LONGEST_TRUST_SECONDS: Final = 86_400.0
"""So long a quota is believed once a refusal confirmed it; twice as long each time."""
_FORGET_SECONDS: Final = 86_400.0
"""What was not told for so long is forgotten."""
_LOST_IN_A_ROW: Final = 10
"""After so many answers against what was told, one refusal is chance."""
_QUICK_RATE: Final = 0.1
_REFRESH_SECONDS: Final = 60.0
_REPLACED_SECONDS: Final = 120.0
"""A limit that was not told for so long, while another one was in its place, is no longer the vendor's."""
_CALM_SECONDS: Final = 10.0
_CONFIRMED_SECONDS: Final = 15.0
_FIRST_DARED: Final = 2.0
_MOST_BEYOND: Final = 1000
_MOST_ENDPOINTS: Final = 20
_MOST_QUOTAS: Final = 20
_PLAUSIBLE: Final = 0.9


class Statement(NamedTuple):
    """What an answer tells of the vendor's quotas.

    Attributes:
        sent_at: When, on the database's clock.
        in_flight: Other calls of the process that the quotas may count or not ...
        to_endpoint: ... and those of them that go to the same endpoint.
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
    to_endpoint: int = 0


@dataclass(frozen=True, slots=True)
class KnownQuota:
    """One quota; times are the database's clock.

    Attributes:
        limit: Calls per period; 0 where only what is left is told.
        bucket: Whether it concerns those endpoints alone whose answers name it.
        at: When something was last told.
        remaining: What was left then.
        pace: Calls per second that leaves us until the reset; 0: none.
        until: The reset; one that has passed slows nobody.
        slow_since: Since when it has slowed us ...
        slow_at: ... and when it last did.
        most: The most that was ever left, and
        span: the longest time to a reset: together the rate that it describes.
        skew: How much later than the quota was whole again its reset was told.
        level: Calls sent, less what the quota described, up to ``level_at``.
        dared: Calls per second that are sent whatever it says, last raised at ``raised_at``.
        fresh: Answers against it since then.
        beyond: Answers against it since the last refusal.
        next_trial: No call tries it before this moment, nor before ``trusted_until``.
        trust: How long it is believed after the next refusal.
    """

    limit: float = 0.0
    period: float = 0.0
    share: float = 1.0
    endpoints: tuple[str, ...] = ()
    bucket: bool = False
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
    trust: float = _TRUST_SECONDS

    @classmethod
    def load(cls, values: dict[str, Any]) -> Self:
        """From its dump."""
        return cls(**(values | {"endpoints": tuple(values.get("endpoints", ()))}))

    def dump(self) -> dict[str, Any]:
        """What differs from a new one."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) != getattr(_NEW, name)}

    def shifted(self, seconds: float) -> Self:
        """The same with all times moved."""
        return replace(self, **{name: getattr(self, name) + seconds for name in _TIMES})

    def rate(self, now: float) -> float | None:
        """Calls per second that it leaves; 0: none until the reset; None: it slows nobody."""
        if now < self.until:
            return max(self.pace, self.dared)
        return self.dared if self.dared and self.limit else None

    def tried_at(self, now: float, configured: float) -> float:
        """When a call may go ahead of it; infinite where it is believed.

        ``configured`` is the rate that the limits permit without it, in calls per second.
        """
        calls, seconds = self._described
        believed = now < self.trusted_until or calls / seconds >= _PLAUSIBLE * configured
        if math.isinf(configured) or believed or self.dared >= configured or now >= self.until:
            return math.inf
        after = _TRIAL_AFTER_SECONDS if self.pace < _QUICK_RATE else _QUICK_TRIAL_AFTER_SECONDS
        return max(self.slow_since + after, self.raised_at + _TRIAL_SECONDS, self.next_trial)

    @property
    def told_rate(self) -> float:
        """Calls per second, by our share of the limit that is told; infinite where none is."""
        if not self.limit:
            return math.inf
        return 1 / Limit(int(self.limit), self.period).interval_seconds(self.share)

    @property
    def _described(self) -> tuple[float, float]:
        """Calls, and the seconds in which they are permitted."""
        if self.limit:
            return self.limit, self.period
        return self.most + 1, max(self.span, 1.0)

    def hear_policy(self, policy: Policy, share: float, endpoint: str, now: float) -> Self | None:
        """The vendor tells the limit itself; None where that is known."""
        old = self if now - self.at < _REFRESH_SECONDS else replace(self, period=0.0, share=1.0)
        new = replace(
            old,
            limit=math.floor(policy.limit),
            period=max(policy.period_seconds, old.period),
            share=min(share, old.share),
            endpoints=self._with(endpoint),
            bucket=policy.bucket,
        )
        return None if new == self and old is self else replace(new, at=now)

    def hear(
        self, quota: Quota, statement: Statement, *, now: float, permitted: float, confirmed: bool
    ) -> Self | None:
        """The vendor tells what is left; None where that changes nothing.

        Slows us only where our pace would use up more than that; the second by which a reset may be rounded does
        not count.

        Args:
            confirmed: Whether the call went ahead of this quota, and its answer does not contradict it.
        """
        old, skew = self, self.skew
        reset = min(quota.reset_seconds, LONGEST_HOLD_SECONDS)
        in_force, later = now < old.until, statement.sent_at >= old.at
        same = in_force and abs(now + reset - skew + JITTER_SECONDS - old.until) <= ROUNDING_SECONDS
        whole_again = quota.remaining > old.remaining and now + reset - skew > old.until + ROUNDING_SECONDS
        if in_force and later and whole_again and now < old.until - ROUNDING_SECONDS:
            # It was whole again before the moment that was told: a clock that is off.
            skew += old.until - now
        reset = max(0.0, reset - skew)
        in_flight = statement.to_endpoint if quota.bucket else statement.in_flight
        until, left = now + reset + JITTER_SECONDS, quota.remaining - in_flight
        new = replace(
            old,
            endpoints=old._with(statement.endpoint),
            bucket=quota.bucket,
            most=quota.remaining if quota.remaining > 1.2 * old.most + 1 else old.most,
            span=reset if reset > 1.2 * old.span + 0.1 else old.span,
            next_trial=now + (_CONFIRMED_SECONDS if quota.remaining >= 1 else 0.0)
            if confirmed
            else old.next_trial,
            skew=skew,
        )
        # Once a window has slowed us, it does so to its end.
        rounding = 0.0 if same else ROUNDING_SECONDS
        # What is left of an hour need not last to its end.
        hurry = COUNTED_PACE if (quota.period_seconds or old.period) >= COUNTED_FROM_SECONDS else 1.0
        enough = hurry * left >= permitted * (reset - rounding) and not (old.limit and left < 1)
        if enough or old.dared >= permitted:
            if in_force and later:
                new = replace(new, until=now)
            return None if new == old else replace(new, at=now)
        pace = hurry * left / reset if left >= 1 else 0.0
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

    def sent(self, calls_sent: int, at: float) -> Self:
        """A call was given a slot; 0 calls where it is the same call's second one."""
        calls, seconds = self._described
        passed = max(0.0, at - self.level_at)
        level = max(0.0, self.level - passed * calls / seconds) + calls_sent
        return replace(self, level=level, level_at=max(at, self.level_at))

    def contradicted(self, answers: int, now: float, configured: float, *, firmly: bool) -> Self:
        """So many calls were answered that it did not leave; ``firmly``: nothing moved over several calls."""
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
        if not self.dared and now - self.next_trial > _TRIAL_SECONDS:
            return replace(self, skew=0.0)
        if self.beyond >= _LOST_IN_A_ROW:
            return replace(self, beyond=self.beyond // 2)
        return replace(
            self,
            dared=0.0,
            beyond=0,
            level=0.0,
            skew=0.0,
            next_trial=-1e18,
            trusted_until=now + self.trust,
            trust=min(2 * self.trust, _LONGEST_TRUST_SECONDS),
        )

    def used_up(self, quota: Quota, endpoint: str, asked_seconds: float, now: float) -> Self:
        """A call was refused since nothing is left, for the time that is asked for or until the reset."""
        wait = min(max(quota.reset_seconds, asked_seconds), LONGEST_HOLD_SECONDS) + JITTER_SECONDS
        return replace(
            self.refused(now),
            endpoints=self._with(endpoint),
            bucket=quota.bucket,
            at=now,
            remaining=0.0,
            pace=0.0,
            until=now + wait,
            slow_since=now,
            slow_at=now,
        )

    def tried(self, at: float) -> Self:
        """A call goes ahead of it at this moment."""
        return replace(self, next_trial=at + _TRIAL_SECONDS)

    def _with(self, endpoint: str) -> tuple[str, ...]:
        if endpoint in self.endpoints:
            return self.endpoints
        return (*self.endpoints, endpoint)[-_MOST_ENDPOINTS:]


class Quotas(dict[str, KnownQuota]):
    """All quotas of an account, by :func:`quota_key`."""

    def is_wide(self, quota: KnownQuota) -> bool:
        """Whether a quota concerns every endpoint, as far as answers tell of quotas."""
        others = self.values()
        return not quota.bucket and all(set(each.endpoints) <= set(quota.endpoints) for each in others)

    def concerning(self, endpoint: str) -> Iterator[tuple[str, KnownQuota]]:
        """Those that a call to this endpoint uses up, each with its key."""
        return (
            (key, quota) for key, quota in self.items() if endpoint in quota.endpoints or self.is_wide(quota)
        )

    def wide(self) -> Iterator[KnownQuota]:
        """Those that concern every call."""
        return (quota for quota in self.values() if self.is_wide(quota))

    def narrow_endpoints(self) -> set[str]:
        """Endpoints that have quotas of their own, as the vendor tells."""
        narrow = (quota for quota in self.values() if not self.is_wide(quota))
        return {endpoint for quota in narrow for endpoint in quota.endpoints}

    def rules(self, now: float) -> list[Rule]:
        """The limits that the vendor tells and that are believed."""
        return [
            Rule(
                Limit(int(quota.limit), quota.period, POLICY + key),
                quota.share,
                () if self.is_wide(quota) else quota.endpoints,
            )
            for key, quota in self.items()
            if quota.limit and not quota.dared and now - quota.at < _FORGET_SECONDS
        ]

    def tightest(self, now: float) -> tuple[float, str]:
        """The lowest rate that the vendor tells, with a sentence; infinite where it tells none."""
        sentences: list[tuple[float, str]] = []
        for quota in self.values():
            rate, left = quota.rate(now), quota.until - now
            where = "" if self.is_wide(quota) else f" ({', '.join(quota.endpoints)})"
            if rate == 0:
                sentences.append((0.0, f"held: {NOTHING_LEFT}{where}, for {left:.0f} s"))
            elif rate is not None and now < quota.until:
                text = f"the vendor's headers leave {rate:.3g} calls/s{where} for the next {left:.0f} s"
                sentences.append((rate, text))
            elif quota.limit and not quota.dared:
                share = f"{quota.share:g} of " if quota.share < 1 else ""
                limit = Limit(int(quota.limit), quota.period)
                text = f"the vendor's headers tell its limit: {share}{limit}{where}"
                sentences.append((1 / limit.interval_seconds(quota.share), text))
        return min(sentences, default=(math.inf, ""))

    def news(
        self, statement: Statement, now: float, *, share: float, permitted: float, of_bucket: float = math.inf
    ) -> dict[str, KnownQuota]:
        """What an answer tells that is new; nothing is changed yet.

        Args:
            permitted: The rate without it, in calls per second; infinite where no limit is known.
            of_bucket: The same for the endpoints of a bucket, whose own limit may be lower.
        """
        found: dict[str, KnownQuota] = {}
        for policy in statement.policies:
            key = quota_key(policy.name, policy.limit)
            new = self.get(key, _NEW).hear_policy(policy, share, statement.endpoint, now)
            if new is not None:
                found[key] = new
            found |= self._replaced_by(key, policy, statement.endpoint, now)
        for quota in statement.quotas:
            key = quota_key(quota.name, quota.limit)
            old = found.get(key, self.get(key, _NEW))
            confirmed = key in statement.confirms
            rate = min(of_bucket, old.told_rate) if quota.bucket else permitted
            rate = rate if math.isfinite(rate) else permitted
            if math.isinf(rate):
                continue
            new = old.hear(quota, statement, now=now, permitted=rate, confirmed=confirmed)
            if new is not None:
                found[key] = new
        return found

    def _replaced_by(self, key: str, policy: Policy, endpoint: str, now: float) -> dict[str, KnownQuota]:
        """Limits of the same name and period that the endpoint's answers tell no more, but this one: changed ones."""
        told = self.get(key, _NEW)
        if not 0 < now - told.at < _REFRESH_SECONDS:
            return {}
        return {
            other: replace(quota, limit=0.0, period=0.0, share=1.0)
            for other, quota in self.items()
            if other != key and other.rpartition("|")[0] == key.rpartition("|")[0]
            if quota.limit and quota.period == policy.period_seconds and endpoint in quota.endpoints
            if now - quota.at > _REPLACED_SECONDS
        }

    def keep_newest(self) -> None:
        """Forget the oldest where there are too many."""
        for key in sorted(self, key=lambda key: self[key].at)[:-_MOST_QUOTAS]:
            del self[key]

    def shifted(self, seconds: float) -> Quotas:
        """The same with all times moved."""
        return Quotas((key, quota.shifted(seconds)) for key, quota in self.items())


def quota_key(name: str, limit: float | None) -> str:
    """What tells the quotas of an account apart."""
    return f"{name[:40]}|{limit or 0:g}"


_NEW: Final = KnownQuota()
_NAMES: Final = tuple(entry.name for entry in fields(KnownQuota))
_TIMES: Final = ("at", "until", "slow_since", "slow_at", "raised_at", "next_trial", "trusted_until")
