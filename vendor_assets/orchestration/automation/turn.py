"""How long a tick may take: Dagster ends one after a minute, and then nothing of it counts, not even its cursor."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

TICK_SECONDS: Final = 5.0
"""Work of a tick that is begun after this time is left to the next one."""
TICK_CPU_SECONDS: Final = 1.0
"""The same for CPU time, of all ticks that the code server evaluates meanwhile."""
STAY_SECONDS: Final = 4.0
"""Dagster looks at all sensors every five seconds; a tick that is over by then misses none of these looks."""
_LOOK_SECONDS: Final = 0.25

T = TypeVar("T")


def stay_while(going_on: Callable[[], object]) -> None:
    """Stay in a tick while something goes on, so that what follows begins at its end and not seconds later."""
    ends = time.monotonic() + STAY_SECONDS
    while going_on() and time.monotonic() < ends:
        time.sleep(_LOOK_SECONDS)


class Turn:
    """A tick's time, from now on."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + TICK_SECONDS
        self._cpu_ends = time.process_time() + TICK_CPU_SECONDS

    def over(self) -> bool:
        """Whether the rest has to wait for the next tick."""
        return time.monotonic() >= self._ends or time.process_time() >= self._cpu_ends

    def pieces(self, work: Iterable[T]) -> Iterator[T]:
        """Pieces of work until the time is over, always at least one; the caller keeps how far it came."""
        for number, piece in enumerate(work):
            if number and self.over():
                return
            yield piece
