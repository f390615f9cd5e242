"""Tracks: when the next call fits into each limit. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vendor_assets.budget.limits import Limit

_WINDOW_PARTS: Final = 60


class Rule(NamedTuple):
    """A limit, our share of it, and the endpoints that it concerns; without endpoints, every call."""

    limit: Limit
    share: float
    endpoints: tuple[str, ...] = ()

    @property
    def interval_seconds(self) -> float:
        """Seconds between two calls."""
        return self.limit.interval_seconds(self.share)

    @property
    def calls(self) -> int:
        """Our calls in one period; at least one."""
        return self.limit.calls(self.share)

    def concerns(self, endpoint: str) -> bool:
        """Whether a call to this endpoint counts."""
        return not self.endpoints or endpoint in self.endpoints


@dataclass(slots=True)
class Track:
    """One limit in the account's document; times are the database's clock.

    Attributes:
        arrival: The theoretical arrival time: when the next call fits.
        interval: Seconds between calls, by the strictest recent setting.
        interval_at: When that setting was last seen.
        counts: For a counted limit, calls by the start of their part of the window.
    """

    arrival: float
    interval: float
    interval_at: float
    wide: bool = True
    counts: list[tuple[float, float]] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Calls in the window."""
        return int(sum(number for _, number in self.counts))

    def free_at(self, rule: Rule, now: float, *, returns: bool, units: int = 1) -> float:
        """When a call fits into the window, which looks back over the last period in sixtieths.

        Args:
            units: What it counts; a call that is more than the window holds fits into an empty one.
            returns: Whether the last slot was not used, so that its count is given back.
        """
        period = rule.limit.period_seconds
        width = period / _WINDOW_PARTS
        self.counts = [entry for entry in self.counts if entry[0] + width + period > now]
        if returns and self.counts:
            start, number = self.counts[-1]
            self.counts[-1] = (start, max(0.0, number - units))
        excess = sum(number for _, number in self.counts) + min(units, rule.calls) - rule.calls
        if excess > 0:
            for start, number in self.counts:
                excess -= number
                if excess <= 0:
                    return start + width + period
        return now

    def count(self, rule: Rule, at: float, units: int = 1) -> None:
        """Count a call in the window."""
        if self.counts and self.counts[-1][0] + rule.limit.period_seconds / _WINDOW_PARTS > at:
            start, number = self.counts[-1]
            self.counts[-1] = (start, number + units)
        else:
            self.counts.append((at, units))

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self.arrival += seconds
        self.interval_at += seconds
        self.counts = [(start + seconds, number) for start, number in self.counts]
