"""A clock that stands still until it is waited for."""

from __future__ import annotations

import threading

from vendor_assets.budget.clock import Clock


class FakeClock(Clock):
    """One clock for a whole story: every wait moves it on, for all who share it.

    Args:
        start: Of the monotonic clock, in seconds.
    """

    simulated = True

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self.offset = 1_795_000_000.0
        self.boot_id = "first boot"

    def monotonic(self) -> float:
        """The time since the boot."""
        return self.now

    def wall(self) -> float:
        """The time of day."""
        return self.now + self.offset

    def boot(self) -> str:
        """Names the boot."""
        return self.boot_id

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Time passes at once."""
        self.now += max(seconds, 1e-6)

    def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.now += seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def reboot(self, *, down_seconds: float, uptime_seconds: float = 5.0) -> None:
        """The machine was off for a while: the monotonic clock starts anew."""
        self.offset += self.now + down_seconds - uptime_seconds
        self.now = uptime_seconds
        self.boot_id += ", then another"
