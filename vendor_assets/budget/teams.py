"""Teams: callers that share the pace by weight. Pure.

Within a process a free slot goes to the team whose turn it is. Processes do not see each other's callers, but share one
queue of slots, first come first served, in which each has a few slots ahead. Whoever has twice as many there is served
twice as often, what one does not ask for is the others' at once, and nobody waits longer than for all of them.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Self, TypeVar

T = TypeVar("T")

MOST_AHEAD: Final = 8
"""For the sake of weights a process has at most so many slots ahead, or as many as all had together without."""

_EXACT: Final = 0.01
_ALIKE: Final = 1e-6


class Team(NamedTuple):
    """Who shares one part of the pace; one of weight 3 has three calls for each of a team of weight 1."""

    name: str = ""
    weight: float = 1.0


OTHERS: Final = Team()
"""Callers of no team; together they are one."""


class Turns:
    """Whose turn it is: start-time fair queueing with calls as packets (Goyal, Vin and Cheng, SIGCOMM 1996).

    Who was idle has saved up nothing.

    Attributes:
        processes: In how many a team's calls wait, where these are several: this one has that part of its weight.
    """

    def __init__(self) -> None:
        self.processes: Mapping[str, int] = {}
        self._now = 0.0
        self._free_at: dict[str, float] = {}

    def take(self, team: Team) -> None:
        """A call of a team goes now."""
        self._now = self._starts_at(team)
        self._free_at[team.name] = self._now + self._step(team)

    def order(self, items: Iterable[T], team_of: Callable[[T], Team]) -> Iterator[T]:
        """Items in the order of their turns; those of one team stay in theirs."""
        waiting: dict[Team, deque[T]] = {}
        for item in items:
            waiting.setdefault(team_of(item), deque()).append(item)
        heads = [(self._starts_at(team), number, team) for number, team in enumerate(waiting)]
        heapq.heapify(heads)
        while heads:
            start, number, team = heads[0]
            yield waiting[team].popleft()
            if waiting[team]:
                heapq.heapreplace(heads, (start + self._step(team), number, team))
            else:
                heapq.heappop(heads)

    def _starts_at(self, team: Team) -> float:
        """When a team's next call starts, in virtual time; the least is next."""
        return max(self._now, self._free_at.get(team.name, 0.0))

    def _step(self, team: Team) -> float:
        return self.processes.get(team.name, 1) / team.weight


class Waiting(NamedTuple):
    """A team in one process.

    Attributes:
        calls: Those that wait for their slot.
        rate: Calls per second that it sent of late.
    """

    team: Team
    calls: int
    rate: float


class Parts(NamedTuple):
    """How the pace is divided.

    Attributes:
        portions: What each process may use of it, in proportion; none where no call waits there.
        processes: In how many a team's calls wait; its weight is divided evenly by them.
    """

    portions: dict[str, float]
    processes: dict[str, int]

    @classmethod
    def of(cls, waiting: Mapping[str, Iterable[Waiting]]) -> Self:
        """By the teams of each process."""
        asking = {name: [each.team for each in found if each.calls > 0] for name, found in waiting.items()}
        processes = Counter(team.name for teams in asking.values() for team in teams)
        portions = {
            name: sum(team.weight / processes[team.name] for team in teams)
            for name, teams in asking.items()
            if teams
        }
        return cls(portions, dict(processes))


def unequal(portions: Mapping[str, float]) -> bool:
    """Whether some processes may use more than others."""
    return bool(portions) and max(portions.values()) > (1 + _ALIKE) * min(portions.values())


def slots_ahead(portions: Mapping[str, float], each: int) -> dict[str, int]:
    """How many slots each process may have ahead, so that it is served in proportion.

    As few as come close to it in whole numbers; none has less than one.

    Args:
        each: How many each would have were all alike.
    """
    if not unequal(portions):
        return dict.fromkeys(portions, each)
    parts = {name: part / sum(portions.values()) for name, part in portions.items()}
    least = each * len(parts)
    most = max(MOST_AHEAD, least)
    found: dict[str, int] = {}
    best = 1.0
    for number in range(least, most * len(parts) + 1):
        tried = {name: max(1, round(number * part)) for name, part in parts.items()}
        if max(tried.values()) > most or best < _EXACT:
            break
        together = sum(tried.values())
        error = max(abs(tried[name] / together - part) for name, part in parts.items())
        if error < best - _ALIKE:
            found, best = tried, error
    return found
