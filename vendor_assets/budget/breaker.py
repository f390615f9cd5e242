"""The breaker: while the vendor is down, one call at a time asks whether it is back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAILURES: Final = 5
"""Failures in a row, over all processes, that open it ..."""

SILENCE_SECONDS: Final = 1.0
"""... once nothing has succeeded for so long ..."""

MANY_FAILURES: Final = 10
"""... or so many failures in a row, however fast they came."""

PROBE_SECONDS: Final = 3.0
"""From one probe to the next."""

LONG_OUTAGE_SECONDS: Final = 300.0
LONG_OUTAGE_PROBE_SECONDS: Final = 15.0

PROBE_LIMIT_SECONDS: Final = 60.0
"""A probe whose outcome was not heard of for so long is given up: its process was killed."""


@dataclass(slots=True)
class Breaker:
    """Whether the vendor is down; times are the database's clock.

    Attributes:
        opened_at: Since when it is open; None while closed.
        probe_at: When the next probe may be sent.
        probe_until: Until when the outcome of the one that was sent is waited for.
    """

    failures: int = 0
    success_at: float | None = None
    opened_at: float | None = None
    probe_at: float = 0.0
    probe_until: float = 0.0

    def dump(self) -> list[float | None]:
        """As JSON holds it: the arguments."""
        return [self.failures, self.success_at, self.opened_at, self.probe_at, self.probe_until]

    @property
    def open(self) -> bool:
        """Whether the vendor is down."""
        return self.opened_at is not None

    def absorb(self, succeeded: bool, failures: int, now: float) -> bool:
        """Take in what came of some calls.

        Args:
            succeeded: Whether one of them was answered, be it with a refusal.
            failures: How many failed after the last one that was answered.

        Returns:
            Whether the breaker has opened or closed by this.
        """
        if succeeded:
            self.failures = failures
            self.success_at = now
            if self.opened_at is not None:
                self.opened_at = None
                return True
        else:
            self.failures += failures
        if self.opened_at is not None:
            if failures:
                self.probe_until = 0.0
            return False
        if self.success_at is None:
            self.success_at = now
        silent = now - self.success_at >= SILENCE_SECONDS
        if (self.failures >= FAILURES and silent) or self.failures >= MANY_FAILURES:
            self.opened_at = now
            self.probe_at = now + 1.0
            self.probe_until = 0.0
            return True
        return False

    def free_at(self) -> float:
        """When the next probe may be sent."""
        return max(self.probe_at, self.probe_until)

    def probe(self, now: float) -> None:
        """A probe is sent; nobody else sends until its outcome is known, or given up."""
        long = self.opened_at is not None and now - self.opened_at > LONG_OUTAGE_SECONDS
        self.probe_at = now + (LONG_OUTAGE_PROBE_SECONDS if long else PROBE_SECONDS)
        self.probe_until = now + PROBE_LIMIT_SECONDS

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self.success_at = None if self.success_at is None else self.success_at + seconds
        self.opened_at = None if self.opened_at is None else self.opened_at + seconds
        self.probe_at += seconds
        self.probe_until += seconds
