"""The slowdown: since when and why the pace is far below the configured limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MEMORY_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 0.1
_BEGINS: Final = 0.6
_ENDS: Final = 0.3


@dataclass(slots=True)
class Slowdown:
    """How much of the last minute the pace was far below the limits; times are the database's clock.

    Attributes:
        part: The part of that minute.
        since: Since when that is most of the time; None while it is not.
        held_until: The end of a hold, as known at the last measurement.
    """

    part: float = 0.0
    at: float = -math.inf
    since: float | None = None
    cause: str = ""
    reason: str = ""
    held_until: float = -math.inf

    def due(self, now: float) -> bool:
        """Whether it was not just measured."""
        return now - self.at >= _STEP_SECONDS

    def note(self, now: float, *, slow: bool, held_until: float, why: Callable[[], tuple[str, str]]) -> None:
        """Measure again.

        Args:
            why: Cause and reason; asked only where there is one, empty where it is not known.
        """
        passed, held = now - self.at, 0.0
        if passed < math.inf:
            held = passed if slow else min(passed, max(0.0, self.held_until - self.at))
            kept = math.exp(-passed / _MEMORY_SECONDS)
            self.part = self.part * kept + (1 - kept) * held / passed
        self.at, self.held_until = now, held_until
        if held or held_until > now:
            cause, reason = why()
            if cause:
                self.cause, self.reason = cause, reason
        if self.part > _BEGINS and self.since is None:
            self.since = now
        elif self.part < _ENDS:
            self.since = None
            self.cause = self.reason = ""

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self.at += seconds
        self.held_until += seconds
        self.since = None if self.since is None else self.since + seconds
