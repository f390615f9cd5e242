"""Rate-limit headers in every form found in use. Pure.

Names are case-insensitive; a repeated header arrives joined with commas.

How long to wait (:func:`retry_after_seconds`): ``Retry-After`` with seconds or a date of any of HTTP's three forms
(RFC 9110, 5.6.7 and 10.2.3); fractions; durations like ``30s``, ``6m0s`` and ``PT30S``; ISO 8601 and JavaScript's
dates; UNIX timestamps; ``X-Retry-After``, ``Retry-After-<limit>`` (NestJS), ``X-RateLimit-Retry-After`` (MailerLite),
``X-Rate-Limit-Retry-After-Seconds`` (Bucket4j), ``X-Retry-In`` (Traefik), and in milliseconds ``Retry-After-Ms`` and
``x-ms-retry-after-ms`` (Azure, OpenAI).

The limits (:func:`parse_policies`), and what is left of them (:func:`parse_quotas`):

- The IETF draft's current form, ``RateLimit-Policy: "name";q=100;w=60`` and ``RateLimit: "name";r=50;t=30``
  (datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers, 08 to 11), with several policies, quota units and
  partition keys; its form of draft 07, ``RateLimit: limit=100, remaining=50, reset=30`` with ``RateLimit-Policy:
  100;w=60`` (docs.honeycomb.io/api); that of 03, ``RateLimit-Limit: 100, 100;w=60``
  with ``-Remaining`` and ``-Reset`` (Envoy too, which names its policies).
- ``X-RateLimit-*``, ``X-Rate-Limit-*`` and ``RateLimit-*`` with ``-Limit``, ``-Remaining`` and ``-Reset``: the reset in
  seconds from now (Datadog, which tells ``-Period`` and ``-Name``; Reddit), as a UNIX timestamp in seconds (New Relic;
  docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api; docs.x.com/x-api/fundamentals/rate-limits) or
  finer units (Linear), as a date (GitLab's ``-ResetTime``, lemlist) or a duration (OpenAI's ``20ms``);
  ``-Reset-After`` (discord.com/developers/docs/topics/rate-limits).
- Several windows at once: ``X-RateLimit-Limit-Minute`` (developer.konghq.com/plugins/rate-limiting),
  ``X-HubSpot-RateLimit-Secondly``, ``X-RateLimit-Limit-Requests`` (OpenAI), ``Anthropic-RateLimit-Requests-Limit``.
- ``X-Shopify-Shop-Api-Call-Limit: 32/40`` is a bucket that leaks at least one call a second; it matters once full.

Ambiguous texts are read in the way that waits longer: a bare number is seconds, of several values the longest counts,
and a used-up quota without a reset time lasts for its whole period. Quotas of anything but calls (bytes, tokens) count
only once they are used up. Other texts, and numbers that are not plain digits, are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

LONGEST_HOLD_SECONDS: Final = 3600.0
"""Longest wait, whatever the vendor asks for; after it one call tries again."""

LONGEST_RESET_SECONDS: Final = 86_400.0
"""Longest time until a reset; longer ones are cut to it."""

LONGEST_PERIOD_SECONDS: Final = 366 * 86_400.0
"""Longest period; policies with longer ones are ignored."""

_LONGEST_TEXT: Final = 1000
_LONGEST_TIME: Final = 100
_CALL_LIMIT: Final = "-api-call-limit"
_MOST_POLICIES: Final = 20
_PLAUSIBLE_SECONDS: Final = 366 * 86_400.0

_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,19})(\.[0-9]{1,9})?")
_SECONDS: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(?:s|secs?|seconds?)", re.IGNORECASE)
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:d|h|ms|us|ns|m|s))+", re.IGNORECASE)
_DURATION_PART: Final = re.compile(r"([0-9.]+)([a-z]+)", re.IGNORECASE)
_UNITS: Final = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9].*")
_MONTH: Final = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_BETWEEN_VALUES: Final = re.compile(rf",(?!\s*[0-9]{{1,2}}[ -]{_MONTH})")
"""A comma that is not the one after a date's weekday."""
_UNIX_TIMES: Final = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e9, 1.0))
"""Least number that is a UNIX timestamp in a unit, and the unit in seconds."""

_MEMBER: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')
_PARAMETER: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^";])+')

_KINDS: Final = {
    word: kind
    for kind, words in {
        "limit": ("limit", "max", "total"),
        "remaining": ("remaining", "left"),
        "reset": ("reset", "resets", "resettime", "resetafter"),
        "period": ("period", "interval", "window"),
        "name": ("name", "bucket", "resource"),
    }.items()
    for word in words
}
_MILLISECOND_WORDS: Final = frozenset(("ms", "millis", "milliseconds"))
_FILLING_WORDS: Final = frozenset(("x", "after", "in", "at", "time", "date", "seconds", "per", "ratelimit"))
_SAID_ELSEWHERE: Final = frozenset(("used", "observed", "cost", "scope", "global", "policy", "retry"))
_FOREIGN_WORDS: Final = ("token", "byte", "concurren", "bandwidth", "complexity", "points")
_PERIODS: Final = {
    "second": 1.0, "secondly": 1.0, "minute": 60.0, "minutely": 60.0, "hour": 3600.0, "hourly": 3600.0,
    "day": 86_400.0, "daily": 86_400.0, "month": 30 * 86_400.0, "monthly": 30 * 86_400.0,
}  # fmt: skip


@dataclass(frozen=True)
class Quota:
    """What is left of a quota.

    Attributes:
        remaining: Calls until the reset.
        reset_seconds: Seconds until the reset, at least 0.
        limit: Calls per period, if stated.
        period_seconds: The period, if stated.
        name: The limit's name, if stated.
        bucket: Whether it is one of several that each hold for some endpoints, those whose answers name it.
    """

    remaining: float
    reset_seconds: float
    limit: float | None = None
    period_seconds: float | None = None
    name: str = ""
    bucket: bool = False


@dataclass(frozen=True)
class Policy:
    """A limit stated by the vendor, in calls per period; ``bucket`` as that of a :class:`Quota`."""

    limit: float
    period_seconds: float
    name: str = ""
    bucket: bool = False


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that an answer's headers ask to wait; None if they do not."""
    found = []
    for words, text in _retry_afters(headers):
        seconds = _seconds_until(text, now, 1e-3 if _MILLISECOND_WORDS.intersection(words) else 1.0)
        if seconds is not None:
            found.append(min(max(seconds, 0.0), LONGEST_HOLD_SECONDS))
    return max(found, default=None)


def wait_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait after a throttle: as it asks, else until the used-up quota resets; None if unknown."""
    asked = retry_after_seconds(headers, now)
    if asked is not None:
        return asked
    empty = [quota.reset_seconds for quota in parse_quotas(headers, now) if quota.remaining < 1]
    if not empty:
        # A throttle may omit that nothing is left.
        silent = (fields for fields in _fields(headers).values() if "remaining" not in fields)
        empty = [reset for fields in silent if (reset := _reset_seconds(fields, now)) is not None]
    return min(max(empty), LONGEST_HOLD_SECONDS) if empty else None


def is_throttle(status: int | None, headers: Mapping[str, str]) -> bool:
    """Whether an answer is a throttle: 429, or 403 or 503 with a time to retry after."""
    return status == 429 or (status in (403, 503) and next(_retry_afters(headers), None) is not None)


def parse_quotas(headers: Mapping[str, str], now: datetime) -> tuple[Quota, ...]:
    """What is left of each quota that an answer names.

    Args:
        headers: The answer's headers.
        now: Aware; dates and timestamps are relative to it.

    Returns:
        Quotas whose remaining calls and reset are stated, or can be bounded from above.
    """
    headers = _of_limits(headers)
    if not headers:
        return ()
    found = [_quota_of(fields, now) for fields in _fields(headers).values()]
    found += _draft_quotas(headers)
    found.append(_bucket(headers))
    return tuple(quota for quota in found if quota is not None)[:_MOST_POLICIES]


def parse_policies(headers: Mapping[str, str]) -> tuple[Policy, ...]:
    """The limits on calls for which an answer states amount and period."""
    headers = _of_limits(headers)
    if not headers:
        return ()
    found = {
        Policy(limit, period, str(fields.get("name", "")), bool(fields.get("bucket")))
        for fields in _fields(headers).values()
        if not fields.get("foreign")
        if (limit := _positive(_number(fields.get("limit")))) is not None
        if (period := _period_seconds(fields)) is not None
    }
    found.update(policy for policy, unit in _draft_policies(headers) if unit == "requests")
    possible = (p for p in found if p.limit >= 1 and p.period_seconds <= LONGEST_PERIOD_SECONDS)
    return tuple(sorted(possible, key=lambda p: (p.limit / p.period_seconds, p.name)))[:_MOST_POLICIES]


def answer_time(headers: Mapping[str, str], default: datetime) -> datetime:
    """The answer's ``Date``, which makes differences between clocks harmless; else the default."""
    return _date(header(headers, "Date") or "") or default


def header(headers: Mapping[str, str], name: str) -> str | None:
    """A header's text, by its case-insensitive name."""
    wanted = name.lower()
    return next((text for found, text in headers.items() if found.lower() == wanted), None)


def tell_of_limits(headers: Mapping[str, str]) -> bool:
    """Whether some may tell of a limit: of most answers none does."""
    return bool(_names_of_limits(tuple(headers)))


def _of_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that may tell of a limit."""
    return {name: headers[name] for name in _names_of_limits(tuple(headers))}


@lru_cache(maxsize=256)
def _names_of_limits(names: tuple[str, ...]) -> tuple[str, ...]:
    # A vendor's answers have the same headers.
    return tuple(
        name
        for name in names
        if "ratelimit" in _words(name[:_LONGEST_TIME]) or name.lower().endswith(_CALL_LIMIT)
    )


# -- headers of the older forms: one value each ----------------------------------------------------


@lru_cache(maxsize=256)
def _words(name: str) -> tuple[str, ...]:
    # A vendor's answers have the same headers.
    text = name.lower().replace("_", "-").replace("retryafter", "retry-after")
    return tuple(text.replace("rate-limit", "ratelimit").split("-"))


def _retry_afters(headers: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, text in headers.items():
        words = _words(name[:_LONGEST_TIME])
        if "retry" in words and words[words.index("retry") + 1 :][:1] in (("after",), ("in",)):
            yield words, text


def _fields(headers: Mapping[str, str]) -> dict[tuple[str, ...], dict[str, str]]:
    """Headers with a single value, grouped by the words that distinguish limits (``minute``, ``requests``)."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for name, text in headers.items():
        words = _words(name[:_LONGEST_TIME])
        if "ratelimit" not in words or words[-1] == "ratelimit" or _SAID_ELSEWHERE.intersection(words):
            continue
        rest = [word for word in words if word not in _FILLING_WORDS and word not in _MILLISECOND_WORDS]
        kind = next((_KINDS[word] for word in rest if word in _KINDS), None)
        if kind is None and rest and rest[-1] in _PERIODS:
            kind = "limit"
        if kind is None:
            continue
        group = tuple(word for word in rest if word not in _KINDS)
        if len(found) >= _MOST_POLICIES and group not in found:
            continue
        fields = found.setdefault(group, {})
        if kind == "reset" and ("after" in words or "resetafter" in words):
            kind = "reset_after"
        fields[kind] = text.strip()[:_LONGEST_TEXT]
        if _MILLISECOND_WORDS.intersection(words):
            fields[f"{kind}_unit"] = "ms"
        if any(word.startswith(_FOREIGN_WORDS) for word in group):
            fields["foreign"] = "yes"
    for group, fields in found.items():
        if fields.get("name"):
            fields["bucket"] = "yes"
        fields["name"] = (fields.get("name") or "-".join(group))[:_LONGEST_TIME]
        window = next((word for word in group if word in _PERIODS), None)
        if window is not None:
            fields.setdefault("window", window)
    shared = found.get((), {})
    for fields in found.values():
        # A single reset for several windows is that of the tightest one.
        if "reset" not in fields and fields.get("remaining") == shared.get("remaining") and "reset" in shared:
            fields["reset"] = shared["reset"]
    return found


def _quota_of(fields: Mapping[str, str], now: datetime) -> Quota | None:
    remaining, limit = _number(fields.get("remaining")), _positive(_number(fields.get("limit")))
    if remaining is None or (remaining < 0 and limit is None) or (fields.get("foreign") and remaining >= 1):
        return None
    # Less than nothing is left of a limit that is overdrawn; without a limit it means none.
    remaining = max(remaining, 0.0)
    period = _period_seconds(fields)
    told = any(name in fields for name in ("reset", "reset_after"))
    reset = _reset_seconds(fields, now) if told else (period if remaining < 1 else None)
    if reset is None:
        return None
    if period is not None:
        # A window ends after its period at the latest, even if clocks differ or the unit is misread.
        reset = min(reset, period)
    return Quota(
        remaining=remaining,
        reset_seconds=min(reset, LONGEST_RESET_SECONDS),
        limit=limit,
        period_seconds=period,
        name=fields.get("name", ""),
        bucket=bool(fields.get("bucket")),
    )


def _reset_seconds(fields: Mapping[str, str], now: datetime) -> float | None:
    for name in ("reset_after", "reset"):
        unit = 1e-3 if fields.get(f"{name}_unit") else 1.0
        seconds = _seconds_until(fields.get(name), now, unit)
        if seconds is not None:
            return min(max(seconds, 0.0), LONGEST_RESET_SECONDS)
    return None


def _period_seconds(fields: Mapping[str, str]) -> float | None:
    period = _positive(_number(fields.get("period")))
    if period is None:
        return _PERIODS.get(fields.get("window", ""))
    return period * (1e-3 if fields.get("period_unit") else 1.0)


def _bucket(headers: Mapping[str, str]) -> Quota | None:
    text = next((text for name, text in headers.items() if name.lower().endswith(_CALL_LIMIT)), "")
    used, _, size = text[:_LONGEST_TIME].partition("/")
    spent, limit = _number(used), _positive(_number(size))
    full = spent is not None and limit is not None and spent >= limit
    return Quota(0.0, 1.0, limit, name="bucket") if full else None


# -- the IETF draft's structured fields ------------------------------------------------------------


def _members(headers: Mapping[str, str], wanted: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """The items of a structured list (RFC 9651): a value and its parameters, unquoted."""
    for name, text in headers.items():
        if tuple(word for word in _words(name[:_LONGEST_TIME]) if word != "x") != wanted:
            continue
        for member in _MEMBER.findall(text[:_LONGEST_TEXT])[:_MOST_POLICIES]:
            head, *rest = (part.strip() for part in _PARAMETER.findall(member) or [""])
            parameters = {}
            for part in rest:
                key, _, value = part.partition("=")
                parameters[key.strip().lower()] = _unquoted(value)
            yield _unquoted(head), parameters


def _draft_policies(headers: Mapping[str, str]) -> Iterator[tuple[Policy, str]]:
    """Policies and their quota units."""
    members = [*_members(headers, ("ratelimit", "policy")), *_members(headers, ("ratelimit", "limit"))]
    for head, parameters in members:
        amount = _number(head) if _number(head) is not None else _number(parameters.get("q"))
        name = head if _number(head) is None else parameters.get("name", "")
        limit, period = _positive(amount), _positive(_number(parameters.get("w")))
        if limit is not None and period is not None:
            unit = parameters.get("qu", "requests").lower()
            yield Policy(limit, period, name[:_LONGEST_TIME]), unit


def _draft_quotas(headers: Mapping[str, str]) -> list[Quota]:
    policies = [*_draft_policies(headers)]
    found: list[Quota] = []
    pairs: dict[str, str] = {}
    for head, parameters in _members(headers, ("ratelimit",)):
        key, equals, value = head.partition("=")
        if equals:
            pairs |= {key.strip().lower(): _unquoted(value), **parameters}
            continue
        policy, unit = next(
            ((p, u) for p, u in policies if p.name == head[:_LONGEST_TIME]), (None, "requests")
        )
        quota = _told(parameters.get("r"), parameters.get("t"), policy, head)
        if quota is not None and (unit == "requests" or quota.remaining < 1):
            found.append(quota)
    if pairs:
        limit = _positive(_number(pairs.get("limit")))
        same = (p for p, _ in policies if p.limit == limit)
        reset = pairs.get("reset")
        quota = _told(pairs.get("remaining"), reset, next(same, None), pairs.get("policy", ""), limit)
        if quota is not None:
            found.append(quota)
    return found


def _told(
    remaining: str | None, reset: str | None, policy: Policy | None, name: str, limit: float | None = None
) -> Quota | None:
    """A quota in the draft's form: whole seconds from now."""
    left, seconds = _number(remaining), _number(reset)
    period = policy.period_seconds if policy else None
    if left is None or left < 0:
        return None
    if seconds is None or seconds < 0:
        if reset is not None or period is None:
            return None
        seconds = period
    return Quota(
        remaining=left,
        reset_seconds=min(seconds, LONGEST_RESET_SECONDS),
        limit=policy.limit if policy else limit,
        period_seconds=period,
        name=name[:_LONGEST_TIME],
    )


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


# -- times and numbers -----------------------------------------------------------------------------


def _seconds_until(text: str | None, now: datetime, unit: float = 1.0) -> float | None:
    """Seconds until a time in any form; negative if it has passed, infinite if it is implausibly far away."""
    if text is None:
        return None
    texts = _BETWEEN_VALUES.split(text[:_LONGEST_TEXT])[:_MOST_POLICIES]
    parts = (_one_time(part, now, unit) for part in texts)
    return max((seconds for seconds in parts if seconds is not None), default=None)


def _one_time(text: str, now: datetime, unit: float) -> float | None:
    text = _unquoted(text.partition(";")[0])
    if not text or len(text) > _LONGEST_TIME or not text.isascii():
        return None
    if _NUMBER.fullmatch(text):
        number = float(text)
        scale = next((scale for first, scale in _UNIX_TIMES if number >= first), None)
        if scale is None:
            return number * unit
        seconds = number * scale - now.timestamp()
        return seconds if abs(seconds) <= _PLAUSIBLE_SECONDS else math.inf
    if match := _SECONDS.fullmatch(text):
        return float(match[1])
    duration = text[2:] if text.upper().startswith("PT") else text
    if _DURATION.fullmatch(duration):
        return sum(float(n) * _UNITS[u.lower()] for n, u in _DURATION_PART.findall(duration))
    moment = _date(text)
    return None if moment is None else (moment - now).total_seconds()


def _date(text: str) -> datetime | None:
    """A date in HTTP's three forms (RFC 9110, 5.6.7), ISO 8601, or JavaScript's; without a zone it is UTC."""
    text = text.strip()
    return None if len(text) > _LONGEST_TIME or not text.isascii() else _read_date(text)


@lru_cache(maxsize=64)
def _read_date(text: str) -> datetime | None:
    # Answers of the same second have the same, which is read twice in each.
    try:
        if _ISO.fullmatch(text):
            moment = datetime.fromisoformat(text)
        else:
            moment = parsedate_to_datetime(re.sub(r"(?:GMT|UTC)(?=[+-][0-9]{4})", "", text))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    # Some vendors and proxies repeat a header or append its policy: "100, 100;w=60".
    match = _NUMBER.fullmatch(_unquoted(text[:_LONGEST_TEXT].partition(",")[0].partition(";")[0]))
    return float(match[0]) if match else None


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 and math.isfinite(number) else None
