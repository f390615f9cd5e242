"""The terms on which a process calls an account: the limits, our share of them, the cap on calls in flight. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from vendor_assets.budget.limits import REQUESTS, Limit, rate_for
from vendor_assets.budget.pace import LATE_SECONDS
from vendor_assets.budget.reservations import Ask
from vendor_assets.budget.tracks import Rule
from vendor_assets.errors import ConfigurationError

LATEST_SECONDS: Final = 0.05
"""No process that shares an account uses a slot that is later than this."""

_LATEST_ALONE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Terms:
    """How one vendor account may be called, as this process is configured.

    Attributes:
        limits: The vendor's quota; empty where it is not known.
        in_flight_of: Under which name calls in flight are shared out; empty for the account's.

    Raises:
        ConfigurationError: A value is not possible.
    """

    account: str
    limits: tuple[Limit, ...]
    share: float
    max_in_flight: int
    in_flight_of: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigurationError(
                f"share {self.share!r} is not accepted; give a number above 0, at most 1"
            )
        if self.max_in_flight < 1:
            raise ConfigurationError(f"max_in_flight {self.max_in_flight!r} is not accepted; give 1 or more")
        if len({limit.name for limit in self.limits}) < len(self.limits):
            raise ConfigurationError(f"limits {list(map(str, self.limits))} need different names")

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The limits, each with our share of it."""
        return tuple(Rule(limit, self.share, limit.endpoints) for limit in self.limits)

    @cached_property
    def endpoints(self) -> frozenset[str]:
        """Endpoints that have a limit of their own."""
        return frozenset(endpoint for limit in self.limits for endpoint in limit.endpoints)

    @property
    def counted(self) -> bool:
        """Whether a limit counts calls in a window."""
        return any(limit.counted or limit.weighed for limit in self.limits)

    def permitted_rate(self, per_call: Mapping[str, float]) -> float | None:
        """Share times limit, in calls per second; None where none is known.

        Args:
            per_call: What a call counts of other units than requests; limits of units that are missing are left out.
        """
        known = [limit for limit in self.limits if limit.unit == REQUESTS or limit.unit in per_call]
        rate = rate_for(known, self.share, per_call)
        return rate if math.isfinite(rate) else None

    def spacing_seconds(self, ask: Ask, unit: str | None = None) -> dict[str, float]:
        """Seconds from a call of this process to its next one, by each limit that it counts against one at a time.

        Args:
            unit: Only by limits of this one.
        """
        paced = (
            limit
            for limit in self.limits
            if limit.burst == 1
            and not limit.counted
            and (not limit.endpoints or ask.endpoint in limit.endpoints)
            and unit in (None, limit.unit)
        )
        spacing = {limit.name: ask.count_of(limit.unit) * limit.interval_seconds(1.0) for limit in paced}
        return {name: seconds for name, seconds in spacing.items() if seconds}

    def late_seconds(self, processes: int) -> float:
        """How late a slot may be used.

        One process spaces its calls itself, however late they are. Of several, a late call of one meets a punctual
        one of another: these stay as far apart as the limit's even spacing, for which a share leaves room, or come no
        closer together than the vendor's bucket takes.
        """
        alone = min(
            (limit.part_seconds for limit in self.limits if limit.weighed), default=_LATEST_ALONE_SECONDS
        )
        alone = min(alone, _LATEST_ALONE_SECONDS)
        spans = [
            min(_LATEST_ALONE_SECONDS, limit.late_seconds - limit.slack_seconds)
            if limit.burst > 1
            else alone
            if processes == 1
            else min(LATEST_SECONDS, limit.period_seconds / limit.amount * (1 / self.share - 1))
            for limit in self.limits
            if not limit.counted
        ]
        return max(LATE_SECONDS, min(spans, default=LATEST_SECONDS))
