"""Sizing: how work is cut into runs of some minutes of quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from vendor_assets.budget import OTHERS, Team

RUN_SECONDS: Final = 600.0
"""A run covers about this much of the quota."""
RUN_PARTITIONS: Final = 200
"""A run covers at most this many troops."""


def cut(
    calls: Mapping[str, int], permitted_rate: float | None, teams: Mapping[str, Team] | None = None
) -> list[list[str]]:
    """Cut partitions into runs: small ones first, each about ten minutes of quota or 200 partitions.

    Args:
        calls: Partition to the calls that it will cost.
        permitted_rate: Calls per second; None where the quota is not known, then only the number counts.
        teams: Of partitions; each run has of each team what is due to its weight, so that none waits for others' runs.
    """
    runs: list[list[str]] = []
    spent = 0.0
    ordered = sorted(calls, key=lambda name: (calls[name], name))
    if teams:
        begins: dict[str, float] = {}
        due: Counter[Team] = Counter()
        for key in ordered:
            team = teams.get(key, OTHERS)
            begins[key] = due[team] / team.weight
            due[team] += max(1, calls[key])
        ordered.sort(key=lambda key: begins[key])
    for key in ordered:
        seconds = calls[key] / permitted_rate if permitted_rate else 0.0
        if not runs or len(runs[-1]) >= RUN_PARTITIONS or (spent + seconds > RUN_SECONDS and runs[-1]):
            runs.append([])
            spent = 0.0
        runs[-1].append(key)
        spent += seconds
    return runs
