"""The block: slots that a process reserves for callers that are about to come. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from vendor_assets.budget.pace import QUICK_SECONDS
from vendor_assets.budget.reservations import Ask, Grant, Row

BLOCK_SECONDS: Final = 0.25
"""A block holds at most so much of the process's fair part of a quick pace."""

ALONE_SECONDS: Final = 1.0
"""Of a pace that is not quick, a process that is alone and uses all of it reserves at once what comes in this time."""

_QUICK_RATE: Final = 12.0
_QUICK_INTERVAL_SECONDS: Final = 0.01
_STEADY: Final = 0.8
"""Of the pace, what callers have used of late where they use it all."""
_MEASURED_SECONDS: Final = 0.1
_SHORTEST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_IMMEDIATE_SECONDS: Final = 0.003
_FIRST_SIZE: Final = 4
_LARGEST_SIZE: Final = 1000


class Reserved(NamedTuple):
    """Slots in a row that nobody has asked for yet; the first is at ``local_at`` on this machine's monotonic clock."""

    ask: Ask
    row: Row
    local_at: float

    @property
    def grant(self) -> Grant:
        """The first slot."""
        return self.row.first

    def after(self, number: int) -> Reserved:
        """Those behind the first few."""
        return Reserved(self.ask, self.row.after(number), self.local_at + number * self.row.step)


class Block:
    """Slots in order, and how many are worth reserving at once.

    Where the database, not the pace, is what callers wait for, or the pace is so quick that a transaction for each call
    would be dear, a process reserves in blocks of up to a quarter of a second's worth. They double while that is so,
    and shrink when slots are missed or the pace is what counts again. A process that is alone, and reserves a whole row
    as cheaply as one slot, takes nothing from anybody by slots that it misses.

    Also at a pace that is not quick a transaction is dear, as it finds the processor's caches cold: a process that is
    alone, and uses all of its slots, reserves those of the next second.
    """

    def __init__(self) -> None:
        self._slots: deque[Reserved] = deque()
        self._size = 0
        self._largest = 0
        self._missed = 0
        self._in_rows = False
        self._mixed = False
        self._paused_until = 0.0
        self._pause_seconds = _SHORTEST_PAUSE_SECONDS
        self._slack_seconds = 0.0
        self._served = 0
        self._counted_at = 0.0
        self._own_rate = 0.0

    def count_served(self) -> None:
        """A caller was given a slot."""
        self._served += 1

    def note_slack(self, seconds: float) -> None:
        """A reservation got its first slot so long after it could have been used: the pace was what counted."""
        self._slack_seconds = seconds

    def keep(self, reserved: Reserved) -> None:
        """Append slots."""
        self._slots.append(reserved)
        self._in_rows = reserved.row.size > 1

    def note_mixed(self) -> None:
        """A call of another kind waits behind slots that it cannot have: what is missed matters from now on."""
        self._mixed = True

    def first(self, earliest: float) -> Reserved | None:
        """The next slot that is not missed; those before a moment are dropped."""
        while self._slots and (row := self._slots[0]).local_at < earliest:
            late = earliest - row.local_at
            missed = min(row.row.size, math.ceil(late / row.row.step)) if row.row.step else 1
            self._missed += missed
            self._use(missed)
        return self._slots[0] if self._slots else None

    def pop(self) -> None:
        """The first slot is used."""
        self._use(1)

    def _use(self, number: int) -> None:
        row = self._slots.popleft()
        if row.row.size > number:
            self._slots.appendleft(row.after(number))

    def drop(self, valid: Callable[[Grant], bool]) -> None:
        """Drop slots that are void."""
        if self._slots:
            self._slots = deque(reserved for reserved in self._slots if valid(reserved.grant))

    def next_size(
        self, callers: int, interval_seconds: float, part: float, now: float, *, lasting: bool = True
    ) -> int:
        """How many slots to reserve beside those for callers that wait.

        Args:
            part: Of the pace, what is this process's, above 0 to 1.
            lasting: Whether nobody may take the slots for work that goes first.
        """
        passed = now - self._counted_at
        if passed > _MEASURED_SECONDS:
            rate = self._served / passed
            self._own_rate = rate if passed > 1.0 else (self._own_rate + rate) / 2
            self._served, self._counted_at = 0, now
        if not callers or interval_seconds <= 0 or now < self._paused_until:
            return 0
        if self._own_rate < _QUICK_RATE or interval_seconds > _QUICK_INTERVAL_SECONDS:
            self._missed = 0
            steady = (
                lasting and part == 1.0 and not self._mixed and self._own_rate * interval_seconds > _STEADY
            )
            return max(0, int(ALONE_SECONDS / interval_seconds) - callers) if steady else 0
        harmless = part == 1.0 and self._in_rows and not self._mixed
        if self._missed > 0.1 * self._size and not harmless:
            self._largest //= 2
            if not self._largest:
                self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
                self._paused_until = now + self._pause_seconds
        elif self._slack_seconds < _IMMEDIATE_SECONDS or interval_seconds < QUICK_SECONDS:
            self._largest = min(max(_FIRST_SIZE, 2 * self._largest), _LARGEST_SIZE)
            if self._largest > 2 * _FIRST_SIZE:
                self._pause_seconds = _SHORTEST_PAUSE_SECONDS
        elif self._slack_seconds > BLOCK_SECONDS:
            self._largest -= -(-self._largest // 8)
        self._missed = 0
        fair = BLOCK_SECONDS / interval_seconds * part
        self._size = max(0, min(self._largest, int(fair) - callers))
        return self._size
