"""Capacity: latency that grows with load, and collapse under too much of it.

Pure: time is passed in, in seconds of a monotonic clock.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass


@dataclass
class Load:
    """A single queue with exponential service times (M/M/1), so latency grows as load nears capacity.

    Args:
        capacity: Calls per second that are served; None serves any number at once.
        collapse_factor: More than this times the capacity offered within one second, and the vendor is
            down; None never is.
    """

    latency_seconds: float = 0.0
    capacity: float | None = None
    collapse_factor: float | None = None
    collapse_seconds: float = 30.0
    seed: int = 1

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._free_at = self._down_until = 0.0
        self._arrivals: deque[float] = deque()

    def offer(self, now: float) -> bool:
        """Count an arrival; True where it is the one that brings the vendor down."""
        if self.capacity is None or self.collapse_factor is None:
            return False
        self._arrivals.append(now)
        while self._arrivals[0] <= now - 1.0:
            self._arrivals.popleft()
        if now >= self._down_until and len(self._arrivals) > self.collapse_factor * self.capacity:
            self._down_until = now + self.collapse_seconds
            self._free_at = self._down_until
            self._arrivals.clear()
            return True
        return False

    def delay(self, now: float) -> float:
        """Seconds until the answer to a call accepted now is ready."""
        if self.capacity is None:
            return self.latency_seconds
        self._free_at = max(now, self._free_at) + self._random.expovariate(self.capacity)
        return self.latency_seconds + self._free_at - now
