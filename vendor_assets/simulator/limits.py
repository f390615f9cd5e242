"""The vendor's rate limit: token bucket, fixed window or sliding window; and Datadog's, by bucket of endpoints.

Pure: time is passed in, in seconds of a monotonic clock, for buckets in those of the vendor's. A refused call takes
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

LimitKind = Literal["bucket", "fixed", "sliding", "none"]

_PERIODS = {
    1.0: ("s", "sec", "second"),
    60.0: ("min", "m", "minute"),
    3600.0: ("h", "hour"),
    86_400.0: ("day", "d"),
}  # The first name is the one that is shown.


class CallLimit(NamedTuple):
    """So many calls per period, in seconds, to one endpoint or to all."""

    calls: int
    period: float
    endpoint: str = ""

    def __str__(self) -> str:
        return f"{self.calls}/{_PERIODS[self.period][0]}" + (f"@{self.endpoint}" if self.endpoint else "")


def parse_limit(text: str) -> CallLimit:
    """Read ``1000/min``, ``20/s`` or ``200/min@data``.

    Raises:
        ValueError: It is none of these.
    """
    rate, _, endpoint = text.partition("@")
    count, _, unit = rate.partition("/")
    period = next((period for period, names in _PERIODS.items() if unit.strip() in names), None)
    if not count.strip().isdecimal() or int(count) < 1 or period is None:
        raise ValueError(
            f"limit {text!r} is not a number per s, min, h or day, such as 1000/min or 20/s@data"
        )
    if endpoint not in ("", "applications", "hosts", "metrics", "data"):
        raise ValueError(f"limit {text!r}: the endpoint is applications, hosts, metrics or data")
    return CallLimit(int(count), period, endpoint)


class Meter:
    """Counts calls against one limit.

    Args:
        kind: ``bucket`` refills evenly and holds ``burst``; ``fixed`` counts in windows aligned to the
            clock's zero; ``sliding`` looks back over the last period.
    """

    def __init__(self, limit: CallLimit, kind: LimitKind = "bucket", burst: int | None = None) -> None:
        self.limit = limit
        self.kind = kind
        self.burst = float(limit.calls if burst is None else burst)
        self._tokens = self.burst
        self._updated = 0.0
        self._window = -1
        self._used = 0
        self._recent: deque[float] = deque()

    def remaining(self, now: float) -> int:
        """How many calls would be admitted at this moment."""
        count, period = self.limit.calls, self.limit.period
        if self.kind == "bucket":
            grown = self._tokens + (now - self._updated) * count / period
            self._tokens = min(self.burst, grown)
            self._updated = now
            return int(self._tokens + 1e-9)
        if self.kind == "fixed":
            if int(now // period) != self._window:
                self._window = int(now // period)
                self._used = 0
            return count - self._used
        while self._recent and self._recent[0] <= now - period:
            self._recent.popleft()
        return count - len(self._recent)

    def take(self, now: float, count: int = 1) -> None:
        """Count one admitted call, or what it takes of another unit."""
        if self.kind == "bucket":
            self._tokens -= count
        elif self.kind == "fixed":
            self._used += count
        else:
            self._recent.extend([now] * count)

    def reset_in(self, now: float) -> float:
        """Seconds until a call is admitted again (``fixed``: until the window ends)."""
        if self.kind == "bucket":
            return max(0.0, (1 - self._tokens) * self.limit.period / self.limit.calls)
        if self.kind == "fixed":
            return self.limit.period - now % self.limit.period
        return max(0.0, self._recent[0] + self.limit.period - now) if self._recent else 0.0


class RateLimit:
    """Several limits that hold at once.

    Args:
        limits: Each is judged by itself; a call takes from all that concern its endpoint, or from none.
    """

    def __init__(self, limits: list[CallLimit], kind: LimitKind = "bucket", burst: int | None = None) -> None:
        self.limits = limits
        self.kind = kind
        self._meters = [] if kind == "none" else [Meter(limit, kind, burst) for limit in limits]

    def admit(self, endpoint: str, now: float) -> tuple[bool, Meter | None]:
        """Whether a call arriving now is within all limits, and the tightest of them."""
        meters = [meter for meter in self._meters if meter.limit.endpoint in ("", endpoint)]
        if not meters:
            return True, None
        remaining = [meter.remaining(now) for meter in meters]
        least = min(remaining)
        tightest = meters[remaining.index(least)]
        if least < 1:
            return False, tightest
        for meter in meters:
            meter.take(now)
        return True, tightest

    def __str__(self) -> str:
        if not self._meters:
            return "none"
        return " and ".join(map(str, self.limits)) + f" ({self.kind})"


class BucketLimit(NamedTuple):
    """So many calls to the endpoints of a bucket in each window of so many seconds, aligned to UNIX time."""

    bucket: str
    calls: int
    period: int

    def start_of(self, now: float) -> int:
        """When the window of a moment began, UNIX seconds."""
        return int(now) // self.period * self.period


def parse_bucket_limit(text: str, buckets: Collection[str]) -> BucketLimit:
    """Read ``metrics_query=1600/3600``: one of the buckets, calls and seconds.

    Raises:
        ValueError: It is none.
    """
    bucket, _, rate = text.partition("=")
    calls, _, period = rate.partition("/")
    if bucket not in buckets:
        raise ValueError(f"limit {text!r}: the bucket is not one of {', '.join(sorted(buckets))}")
    if not (calls.isdecimal() and period.isdecimal() and int(calls) > 0 and int(period) > 0):
        raise ValueError(f"limit {text!r} is not calls per seconds, such as {bucket}=1600/3600")
    return BucketLimit(bucket, int(calls), int(period))


class Buckets:
    """Limits of which each holds for the endpoints that share its bucket."""

    def __init__(self, limits: Iterable[BucketLimit]) -> None:
        self.limits = {limit.bucket: limit for limit in limits}
        self._meters = {
            bucket: Meter(CallLimit(limit.calls, limit.period), "fixed")
            for bucket, limit in self.limits.items()
        }

    def admit(self, bucket: str, now: float) -> tuple[bool, int]:
        """Whether a call at ``now`` is within the limit of its bucket, and how many more are."""
        meter = self._meters[bucket]
        admitted = meter.remaining(now) > 0
        if admitted:
            meter.take(now)
        return admitted, meter.remaining(now)
