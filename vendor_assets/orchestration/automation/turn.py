"""How long a tick may take: Dagster ends one after a minute, and then nothing of it counts, not even its cursor."""

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

TICK_SECONDS: Final = 20.0
"""Work of a tick that is begun after this time is left to the next one; a third of what Dagster permits."""

T = TypeVar("T")


class Turn:
    """A tick's time, from now on."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + TICK_SECONDS

    def over(self) -> bool:
        """Whether the rest has to wait for the next tick."""
        return time.monotonic() >= self._ends

    def pieces(self, work: Iterable[T]) -> Iterator[T]:
        """Pieces of work until the time is over, always at least one; the caller keeps how far it came."""
        for number, piece in enumerate(work):
            if number and self.over():
                return
            yield piece
