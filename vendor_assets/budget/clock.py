"""The clock of the budget: passed in, so that tests decide what time it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path


class Clock:
    """Time of this machine, and how to wait for it."""

    simulated = False
    """True in tests: this clock is the database's clock too, and nothing runs in the background."""

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
        """Names the run of this machine in which :meth:`monotonic` counts; empty where the kernel does not tell."""
        return self._boot

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait on a condition that is held, at most for so long; may return early."""
        condition.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        time.sleep(seconds)
