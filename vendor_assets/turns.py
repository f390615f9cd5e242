"""Turns at computing among the threads of a process.

Python runs one thread at a time. Several that compute pass its lock on at each call into a file, SQLite or pyarrow,
which for many small tables costs more than the tables. So a thread takes a turn for what it computes, and lets others
have theirs while it waits. A turn is a courtesy and no lock: beside one that has lasted for :data:`LONG_SECONDS` others
go on without, so that long computations run side by side, and nothing waits for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONG_SECONDS: Final = 0.1
"""How long a turn may last before others no longer wait for its end."""
PATIENCE_SECONDS: Final = 1.0
"""How long a thread waits for its turn at most, whoever has one meanwhile."""

_free = threading.Lock()
_here = threading.local()


class _Turn:
    """One thread's turn, which it may give to others for a while."""

    taken_at = 0.0
    """When the newest one was taken, of all threads."""

    def __init__(self) -> None:
        self._held = False
        self.ended = False

    def take(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._held:
            now = time.monotonic()
            left = min(until, _Turn.taken_at + LONG_SECONDS) - now
            self._held = _free.acquire(timeout=max(0.0, left))
            if left <= 0:
                break
        if self._held:
            _Turn.taken_at = time.monotonic()

    def give(self) -> None:
        if self._held:
            self._held = False
            _free.release()


@contextmanager
def turn() -> Iterator[None]:
    """Compute in this block, as a rule while no other thread has a turn."""
    mine, before = _Turn(), getattr(_here, "turn", None)
    try:
        mine.take()
        _here.turn = mine
        yield
    finally:
        mine.ended = True
        mine.give()
        # A generator may be closed by another thread than the one that took the turn.
        if getattr(_here, "turn", None) is mine:
            _here.turn = before


@contextmanager
def let_others() -> Iterator[None]:
    """Wait in this block for something, and take up the thread's turn again, if it has one."""
    mine: _Turn | None = getattr(_here, "turn", None)
    if mine is None or mine.ended:
        yield
        return
    _here.turn = None
    mine.give()
    try:
        yield
    finally:
        # It may be another turn's time by now, where the block was left open by an error.
        if not mine.ended:
            mine.take()
            _here.turn = mine
