"""What a vendor's answer says of its quota. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_HOLD_SECONDS: Final = 3600.0
"""However long a vendor asks us to wait: after this, one call asks again."""

_NUMBER: Final = re.compile(r"[+-]?(\d{1,15})(\.\d{1,9})?")
_UNIX_TIMES_FROM: Final = 1_000_000_000.0
_MILLISECONDS_FROM: Final = 100_000_000_000.0


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read ``Retry-After``: seconds, a fraction of them, or an HTTP date (RFC 9110, 10.2.3).

    Args:
        value: The header's text.
        now: Aware; what a date is relative to. Better the answer's own ``Date`` than our clock.

    Returns:
        Seconds from 0 (negative numbers and dates that have passed) to :data:`LONGEST_HOLD_SECONDS`
        (anything longer, such as a year); None where it is missing or garbage.
    """
    if value is None:
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return min(max(float(text), 0.0), LONGEST_HOLD_SECONDS)
    moment = _http_date(text)
    if moment is None:
        return None
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_HOLD_SECONDS)


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long an answer's headers ask to wait, in any form that :func:`parse_retry_after` reads; else None."""
    return parse_retry_after(header(headers, "Retry-After"), now)


def is_throttle(status: int | None, headers: Mapping[str, str]) -> bool:
    """Whether an answer says that we were too fast: 429, or 503 or 403 with Retry-After."""
    return status == 429 or (status in (403, 503) and header(headers, "Retry-After") is not None)


@dataclass(frozen=True)
class Quota:
    """What is left of the vendor's quota.

    Attributes:
        remaining: Calls until the reset.
        reset_seconds: Until the quota is whole again, from 0 up.
        limit: Calls per period, where the vendor says it.
        period_seconds: The period, where the vendor says it.
        name: The limit's name, where the vendor says it.
    """

    remaining: float
    reset_seconds: float
    limit: float | None = None
    period_seconds: float | None = None
    name: str = ""


def parse_quota(headers: Mapping[str, str], now: datetime) -> Quota | None:
    """Read rate-limit headers in New Relic's, Datadog's and the IETF draft's forms.

    New Relic: ``X-RateLimit-Limit``, ``-Remaining``, ``-Reset`` as a UNIX timestamp. Datadog: the same names
    with Reset in seconds from now, and ``-Period``, ``-Name``. The IETF draft (httpapi-ratelimit-headers)
    drops the ``X-``. A Reset is taken as a timestamp where it could not be a duration.

    Args:
        headers: Of the answer; names in any case.
        now: Aware; what a timestamp is relative to.

    Returns:
        None where Remaining or Reset is missing or garbage.
    """
    found = {
        name.lower().removeprefix("x-").replace("rate-limit", "ratelimit"): text
        for name, text in headers.items()
        if "ratelimit" in name.lower() or "rate-limit" in name.lower()
    }
    if not found:
        return None
    remaining = _number(found.get("ratelimit-remaining"))
    reset = _number(found.get("ratelimit-reset"))
    if remaining is None or reset is None or remaining < 0:
        return None
    if reset >= _MILLISECONDS_FROM:
        reset /= 1000.0
    if reset >= _UNIX_TIMES_FROM:
        reset -= now.timestamp()
    return Quota(
        remaining=remaining,
        reset_seconds=min(max(reset, 0.0), 86_400.0),
        limit=_positive(_number(found.get("ratelimit-limit"))),
        period_seconds=_positive(_number(found.get("ratelimit-period"))),
        name=found.get("ratelimit-name", "")[:100],
    )


def answer_time(headers: Mapping[str, str], default: datetime) -> datetime:
    """The answer's ``Date``, so that a wrong clock on either side does no harm; else the default."""
    for name, text in headers.items():
        if name.lower() == "date":
            return _http_date(text.strip()) or default
    return default


def header(headers: Mapping[str, str], name: str) -> str | None:
    """One header's text, its name in any case."""
    wanted = name.lower()
    return next((text for found, text in headers.items() if found.lower() == wanted), None)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    # Some vendors and proxies repeat a header or append its policy: "100, 100;w=60".
    match = _NUMBER.fullmatch(text.partition(",")[0].partition(";")[0].strip())
    return float(match[0]) if match else None


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 and math.isfinite(number) else None
