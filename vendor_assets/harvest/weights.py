"""Weights: which troops are a team, and its part of the pace where several teams have work. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Self

from vendor_assets.budget import OTHERS, Team
from vendor_assets.errors import ConfigurationError
from vendor_assets.storage.roster import Troop

WEIGHTS: Final = "VENDOR_ASSETS_WEIGHTS"
LARGEST: Final = 1000

_WEIGHT: Final = re.compile(r"\d{1,4}(\.\d{1,3})?", re.ASCII)


@dataclass(frozen=True)
class Weights:
    """Teams by shell pattern over ids and names of troops, in order; all troops of a pattern share its weight.

    The first pattern that matches counts, and troops of none are one more team of weight 1. Case counts; for a comma
    in a name stands ``?``.
    """

    teams: tuple[Team, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``payments=3,search-*=2``.

        Raises:
            ConfigurationError: It is no list of patterns with weights.
        """
        teams: dict[str, Team] = {}
        for part in text.split(",") if text.strip() else ():
            pattern, equals, number = (each.strip() for each in part.rpartition("="))
            weight = float(number) if _WEIGHT.fullmatch(number) else 0.0
            if not equals or not pattern or pattern.startswith("!") or not 0 < weight <= LARGEST:
                raise ConfigurationError(
                    f"{WEIGHTS}: {part.strip()!r} is not a team's weight; give patterns of troops, each with a "
                    f"number above 0, at most {LARGEST}, like payments=3,search-*=2,*=1"
                )
            if pattern in teams:
                raise ConfigurationError(f"{WEIGHTS}: {pattern!r} has two weights; give it one")
            teams[pattern] = Team(pattern, weight)
        return cls(tuple(teams.values()))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.teams)

    @property
    def text(self) -> str:
        """As it is written in the setting."""
        return ",".join(f"{team.name}={team.weight:g}" for team in self.teams)

    def team_of(self, troop: Troop) -> Team:
        """The team of a troop, by its id, its partition key or its name."""
        names = [name for name in (troop.id, troop.key, troop.name) if name is not None]
        return next(
            (team for team in self.teams if any(fnmatchcase(name, team.name) for name in names)), OTHERS
        )

    def by_key(self, troops: Iterable[Troop]) -> dict[str, Team]:
        """The team of each troop, by its partition key; empty without weights."""
        return {troop.key: self.team_of(troop) for troop in troops} if self.teams else {}


def seconds_by_team(calls: Mapping[Team, float], seconds: float) -> dict[Team, float]:
    """When each team's calls are made where all begin now and what one does not need is lent to the others.

    Args:
        seconds: How long all of them take together.
    """
    total = sum(calls.values())
    left = {team: number for team, number in calls.items() if number}
    ends = dict.fromkeys(calls, 0.0)
    done = 0.0
    while left:
        weights = sum(team.weight for team in left)
        rounds = min(number / team.weight for team, number in left.items())
        done += rounds * weights
        for team in [team for team, number in left.items() if number / team.weight <= rounds]:
            ends[team] = seconds * done / total
            del left[team]
        left = {team: number - rounds * team.weight for team, number in left.items()}
    return ends
