"""The listener: compares what an answer tells of the vendor's quotas with what was told before. Pure."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from vendor_assets.budget.headers import Quota
from vendor_assets.budget.quotas import ROUNDING_SECONDS, KnownQuota, Statement, quota_key

_SAME_SECONDS: Final = 0.75
_STILL_CALLS: Final = 2
_STILL_SECONDS: Final = 2.0
_MOST_CLAIMS: Final = 50


class _Claim(NamedTuple):
    """What was left when it was last heard, and since when and over how many calls neither that nor the reset moved."""

    at: float
    remaining: float
    until: float
    since: float = 0.0
    still: int = 0


class Listener:
    """Compares what an answer tells with what was told before its call was sent; one for each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, _Claim] = {}

    def compare(
        self, statement: Statement, known: Mapping[str, KnownQuota], *, trial: str, admitted: bool, now: float
    ) -> Statement:
        """Find what an answer contradicts or confirms."""
        against, firmly, confirms = [], [], []
        with self._lock:
            for quota in statement.quotas:
                key = quota_key(quota.name, quota.limit)
                old, mine = known.get(key), self._claims.get(key)
                told = None if old is None else _Claim(old.at, old.remaining, old.until)
                claim = max(filter(None, (told, mine)), default=None)
                if claim is not None and admitted and _contradicts(claim, quota, statement.sent_at, now):
                    against.append(key)
                elif claim is not None and admitted and key == trial and quota.remaining < claim.remaining:
                    confirms.append(key)
                if claim is not None and statement.sent_at < claim.at:
                    continue
                if len(self._claims) >= _MOST_CLAIMS:
                    self._claims.clear()
                    mine = None
                until = now + quota.reset_seconds
                unmoved = (
                    key in against
                    and mine is not None
                    and quota.remaining == mine.remaining
                    and abs(until - mine.until) < _SAME_SECONDS
                )
                if mine is None or not unmoved:
                    self._claims[key] = _Claim(now, quota.remaining, until, since=now)
                    continue
                self._claims[key] = mine._replace(at=now, still=mine.still + 1)
                if mine.still + 1 >= _STILL_CALLS and now - mine.since >= _STILL_SECONDS:
                    firmly.append(key)
        return statement._replace(against=tuple(against), firmly=tuple(firmly), confirms=tuple(confirms))


def _contradicts(claim: _Claim, quota: Quota, sent_at: float, now: float) -> bool:
    """Whether a call was admitted that an earlier answer did not leave.

    It was sent once the claim was known and before its reset, and no less is left. Where the reset is not the same,
    the second by which one may be rounded does not count.
    """
    if not claim.at <= sent_at < claim.until or quota.remaining < claim.remaining:
        return False
    same = abs(now + quota.reset_seconds - claim.until) < _SAME_SECONDS
    return same or sent_at < claim.until - ROUNDING_SECONDS
