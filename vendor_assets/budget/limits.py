"""A vendor's quota, and the pace at which our share of it is used. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from vendor_assets.errors import ConfigurationError

JITTER_SECONDS: Final = 0.020
"""How much later than planned a call may reach the vendor. A pace of P / (P + this) of the limit keeps even
a strict sliding window of the period P within its number, however the delays fall."""

BUCKET_MARGIN: Final = 0.002
"""Part of the rate that is left where a bucket takes what comes late; it fills again, and no clock drifts as much."""

COUNTED_FROM_SECONDS: Final = 3600.0
"""Limits over this period or a longer one are counted per window instead of paced."""

WINDOW_PARTS: Final = 60
"""What a window holds is counted by so many parts of its period."""

COUNTED_PACE: Final = 24.0
"""A counted quota is spent at most this many times faster than evenly: a day's in an hour."""

_CLOCK_CHANGE_SECONDS: Final = 3600.0
"""A day, and so a month, of a vendor's own clock is longer by so much where daylight saving time ends."""

_PERIODS: Final = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0,
    "day": 86_400.0, "d": 86_400.0, "month": 31 * 86_400.0,
}  # fmt: skip
REQUESTS: Final = "requests"
"""The unit of a limit that names none: each call counts one."""

PARTS: Final = 10**9
"""Sums are kept in whole billionths of a unit, so that no sum drifts."""

MONEY: Final = frozenset(("dollars", "euros"))
"""Units that are shown with two decimals."""

_OTHER_NAMES: Final = {
    "usd": "dollars", "dollar": "dollars", "eur": "euros", "euro": "euros",
    "calls": REQUESTS, "call": REQUESTS, "request": REQUESTS,
}  # fmt: skip

_LIMIT: Final = re.compile(
    r"\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})(?:\s+([a-z]+))?\s*/\s*([a-z]+)(?:\s+burst\s+(\d{1,9}))?(?:\s+for\s+([\w.-]+(?:\+[\w.-]+)*))?\s*",
    re.IGNORECASE,
)
_LONGEST_SLACK_SECONDS: Final = 0.25


@dataclass(frozen=True)
class Limit:
    """What the vendor permits: so many calls in each period.

    Attributes:
        amount: Whole for requests; of other units fractions are possible, like half a dollar.
        unit: What is counted, where a call counts more than one or nothing, like ``queries``.
        burst: Calls that the vendor takes at once, as the depth of its bucket. It is used for late calls, which may
            come closer together, never to go faster; the worst window then holds ``amount + burst - 1``.
        endpoints: Those whose calls count, in the words of the vendor's dialect; none means all.

    Raises:
        ConfigurationError: A number is not positive, or the name is empty.
    """

    amount: float
    period_seconds: float
    name: str = "account"
    burst: int = 1
    unit: str = REQUESTS
    endpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = 1 if self.unit == REQUESTS else 1 / PARTS
        if self.amount < least or not self.period_seconds > 0 or self.burst < 1 or not self.name:
            raise ConfigurationError(
                f"limit {self!r} is not possible; amount, period and burst are positive and it has a name"
            )

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``20/s``, ``20/s burst 20``, ``3000 queries/min``, ``0.5 dollars/day`` or ``100/h for hosts+tags``.

        A month has 31 days, wherever it begins, so that no month of the calendar holds more.

        Raises:
            ConfigurationError: It is none of these; the message names the value and what is accepted.
        """
        match = _LIMIT.fullmatch(text)
        burst = 1 if match is None or match[4] is None else int(match[4])
        unit = REQUESTS if match is None or match[2] is None else unit_of(match[2])
        number = 0.0 if match is None else float(match[1])
        whole = unit != REQUESTS or number.is_integer()
        if match is None or not number or not whole or burst < 1 or match[3].lower() not in _PERIODS:
            raise ConfigurationError(
                f"rate {text!r} is not understood; accepted are calls per s, min, h, day or month, like 20/s, "
                "1000/min or 100000/day, calls at once, like 20/s burst 20, endpoints, like 100/h for hosts+tags, and "
                "other units, like 3000 queries/min or 0.5 dollars/day"
            )
        endpoints = tuple(sorted(set(match[5].split("+")))) if match[5] else ()
        amount = int(number) if number.is_integer() else number
        return cls(amount, _PERIODS[match[3].lower()], burst=burst, unit=unit, endpoints=endpoints)

    @classmethod
    def parse_all(cls, texts: Iterable[str]) -> tuple[Limit, ...]:
        """Read the limits of one account, which hold at once; one that is written twice counts once.

        A single one of all calls keeps the default name, others are told apart by what they say.

        Raises:
            ConfigurationError: One of them is none.
        """
        found = {str(limit): limit for limit in map(cls.parse, texts)}
        if len(found) == 1 and not any(limit.endpoints for limit in found.values()):
            return tuple(found.values())
        return tuple(replace(limit, name=text) for text, limit in found.items())

    @property
    def rate(self) -> float:
        """Calls, or what is counted in their place, per second over the whole period."""
        return self.amount / self.period_seconds

    @property
    def counted(self) -> bool:
        """Whether it is counted per window instead of paced."""
        return self.period_seconds >= COUNTED_FROM_SECONDS

    @property
    def weighed(self) -> bool:
        """Whether calls may count differently, so that even an even pace does not say what a window holds."""
        return self.unit != REQUESTS and self.burst == 1 and not self.counted

    @property
    def part_seconds(self) -> float:
        """The length of a part of its window."""
        return self.period_seconds / WINDOW_PARTS

    @property
    def kept_seconds(self) -> float:
        """How long what a part of the window holds counts, from the part's start."""
        kept = self.period_seconds + self.part_seconds
        if self.period_seconds >= _PERIODS["day"]:
            return kept + _CLOCK_CHANGE_SECONDS
        # A longer window need not know of milliseconds.
        return kept if self.counted else kept + JITTER_SECONDS

    @property
    def late_seconds(self) -> float:
        """How late calls may come, whoever else calls, without a call too many for a bucket of this depth."""
        return (self.burst - 1) * self.period_seconds / self.amount

    @property
    def slack_seconds(self) -> float:
        """The part of :attr:`late_seconds` for slots that are reserved late; the rest is for their use."""
        return min(self.late_seconds / 2, _LONGEST_SLACK_SECONDS)

    def parts(self, share: float) -> int:
        """What we may use in one period, in billionths; of requests whole ones, at least one."""
        if self.unit == REQUESTS:
            return max(1, math.floor(self.amount * share + 1e-9)) * PARTS
        return max(1, parts_of(self.amount * share))

    def interval_seconds(self, share: float) -> float:
        """Seconds between two calls that count one when our share of the quota is used evenly, jitter allowed for."""
        even = self.period_seconds / (share * self.amount)
        if self.counted:
            return even / COUNTED_PACE
        if self.late_seconds >= 2 * JITTER_SECONDS:
            return even * (1 + min(BUCKET_MARGIN, JITTER_SECONDS / self.period_seconds))
        # A part of a window is free again when all of it has passed: at this pace none is waited for.
        longer = JITTER_SECONDS + (self.part_seconds if self.weighed else 0.0)
        return even * (self.period_seconds + longer) / self.period_seconds

    def __str__(self) -> str:
        unit = {1.0: "s", 60.0: "min", 3600.0: "h", 86_400.0: "day", _PERIODS["month"]: "month"}.get(
            self.period_seconds
        )
        what = "" if self.unit == REQUESTS else f" {self.unit}"
        amount = f"{self.amount:.9f}".rstrip("0").rstrip(".")
        text = f"{amount}{what}/{unit}" if unit else f"{amount}{what} per {self.period_seconds:g} s"
        text = f"{text} burst {self.burst}" if self.burst > 1 else text
        return f"{text} for {'+'.join(self.endpoints)}" if self.endpoints else text


def unit_of(name: str) -> str:
    """The one name of a unit: ``usd`` are ``dollars``."""
    return _OTHER_NAMES.get(name.lower(), name.lower())


def parts_of(number: float) -> int:
    """A number as whole billionths."""
    return number * PARTS if isinstance(number, int) else round(number * PARTS)


def amount_text(number: float, unit: str) -> str:
    """What was counted, for people: ``4.20 dollars``, ``0.00005 dollars``, ``3,100 queries``; requests are calls."""
    least = 2 if unit in MONEY else 0
    decimals = least
    if 0 < abs(number) < 1:
        decimals = min(9, max(least, 1 - math.floor(math.log10(abs(number)))))
    elif not least and abs(number) < 100:
        decimals = 1
    whole, point, rest = f"{number:,.{decimals}f}".partition(".")
    rest = rest[:least] + rest[least:].rstrip("0")
    return f"{whole}{point if rest else ''}{rest} {'calls' if unit == REQUESTS else unit}"


def rate_for(limits: Iterable[Limit], share: float, per_call: Mapping[str, float]) -> float:
    """Calls per second that our share of all limits permits, where calls count so much of other units each.

    Limits of some endpoints alone are left out: what part of the calls goes there is not known.
    """
    rates = (limit.rate / (_count(limit, per_call) or math.inf) for limit in limits if not limit.endpoints)
    return min((rate for rate in rates if rate), default=math.inf) * share


def seconds_for(
    calls: int, limits: Iterable[Limit], share: float, per_call: Mapping[str, float] = MappingProxyType({})
) -> float:
    """How long so many calls take at least, when our share of every limit is used and nothing was used before.

    Args:
        per_call: What a call counts on average of other units than requests: unit to number. Limits of some endpoints
            alone are left out.
    """
    longest = 0.0
    for limit in limits:
        if limit.endpoints:
            continue
        rest, windows, interval = parts_of(calls * _count(limit, per_call)), 0, 1 / (limit.rate * share)
        if limit.counted:
            ours, interval = limit.parts(share), interval / COUNTED_PACE
            windows = max(0, -(-rest // ours) - 1)
            rest -= windows * ours
        longest = max(longest, windows * limit.period_seconds + rest / PARTS * interval)
    return longest


def _count(limit: Limit, per_call: Mapping[str, float]) -> float:
    return 1.0 if limit.unit == REQUESTS else per_call.get(limit.unit, 1.0)
