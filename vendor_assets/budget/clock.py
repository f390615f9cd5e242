"""The clock of the budget: passed in, so that tests decide what time it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Time of one machine, and how to wait for it."""

    simulated: bool
    """True where this clock is the database's clock too, and nothing runs in the background: in tests."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary zero that all processes of this machine share; never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since 1970; may jump."""
        ...

    def boot(self) -> str:
        """Names the run of this machine in which :meth:`monotonic` counts; another one after a reboot."""
        ...

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on a condition that is held, at most for so long; may return early."""
        ...

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        ...


class SystemClock:
    """The machine's own clock."""

    simulated = False

    def __init__(self) -> None:
        try:
            self._boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            # Without a name for the boot, a reboot is noticed where the monotonic clock went back.
            self._boot = ""

    def monotonic(self) -> float:
        """Seconds since an arbitrary zero that all processes of this machine share; never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970; may jump."""
        return time.time()

    def boot(self) -> str:
        """The kernel's name for this run of the machine, empty where it has none."""
        return self._boot

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait on a condition that is held, at most for so long."""
        condition.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        time.sleep(seconds)
