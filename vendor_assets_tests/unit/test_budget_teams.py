"""Teams: each has its weight's part while all are busy, lends what it does not use, and saves nothing up."""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.budget.in_flight import InFlightShares, Member, Teams, _fair
from vendor_assets.budget.limits import Limit
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.reservations import Ask, Grant
from vendor_assets.budget.teams import (
    MOST_AHEAD,
    OTHERS,
    Parts,
    Team,
    Turns,
    Waiting,
    slots_ahead,
)
from vendor_assets.budget.tracks import Rule

WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=6)


def teams(weights: Sequence[float]) -> list[Team]:
    return [Team(f"t{number}", weight) for number, weight in enumerate(weights)]


def serve(turns: Turns, waiting: Sequence[Team], calls: int) -> list[Team]:
    """The teams of so many calls, where all of these have calls without end."""
    served = []
    for _ in range(calls):
        team = next(turns.order(waiting, lambda team: team))
        turns.take(team)
        served.append(team)
    return served


@given(WEIGHTS, st.integers(0, 300), st.integers(1, 300))
def test_who_is_busy_has_its_part_of_any_stretch(weights: list[int], skip: int, length: int) -> None:
    """No two teams differ by more than one call each, measured in their weights."""
    every = teams(weights)
    stretch = Counter(serve(Turns(), every, skip + length)[skip:])
    for one in every:
        for other in every:
            apart = stretch[one] / one.weight - stretch[other] / other.weight
            assert apart <= 1 / one.weight + 1 / other.weight + 1e-6


@given(WEIGHTS, st.integers(0, 200), st.integers(1, 100))
def test_who_was_idle_has_saved_up_nothing(weights: list[int], idle: int, length: int) -> None:
    """What it did not use went to the others at once; when it comes back it has its part and no more."""
    first, *others = teams([5, *weights])
    turns = Turns()
    serve(turns, [first, *others], 50)
    assert first not in serve(turns, others, idle)
    back = Counter(serve(turns, [first, *others], length))
    for other in others:
        ahead = back[first] / first.weight - back[other] / other.weight
        assert ahead <= 1 / first.weight + 1 / other.weight + 1e-6


def test_nobody_starves() -> None:
    """A weight of 1 beside 1,000 has one call in 1,001."""
    served = serve(Turns(), teams([1000, 1]), 3 * 1001)
    assert Counter(team.weight for team in served) == {1000: 3000, 1: 3}


@given(st.lists(st.sampled_from([OTHERS, Team("a", 3)]), max_size=40))
def test_one_team_stays_in_order(callers: list[Team]) -> None:
    """Turns are between teams; within one it is first come, first served."""
    ordered = list(Turns().order(enumerate(callers), lambda caller: caller[1]))
    assert sorted(ordered) == list(enumerate(callers))
    for team in set(callers):
        mine = [number for number, of in ordered if of == team]
        assert mine == sorted(mine)


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=6), st.integers(1, 60))
def test_slots_ahead_are_few_and_nobody_is_without(parts: list[float], each: int) -> None:
    """Each process has one at least, and the largest no more than all would have had, or eight."""
    found = slots_ahead({str(number): part for number, part in enumerate(parts)}, each)
    assert len(found) == len(parts)
    assert min(found.values()) >= 1
    assert max(found.values()) <= max(MOST_AHEAD, each * len(parts))
    assert slots_ahead(dict.fromkeys("abc", parts[0]), each) == dict.fromkeys("abc", each)


@pytest.mark.parametrize(
    ("parts", "ahead"),
    [((3, 1), (3, 1)), ((3, 2), (3, 2)), ((3, 2, 1), (3, 2, 1)), ((1, 1, 2), (1, 1, 2)), ((1000, 1), (8, 1))],
)
def test_slots_ahead_are_in_proportion(parts: tuple[int, ...], ahead: tuple[int, ...]) -> None:
    """Exactly where small numbers say it; an extreme weight counts eight times another's between processes."""
    found = slots_ahead(dict(zip("abc", parts, strict=False)), 1)
    assert tuple(found.values()) == ahead


def compete(
    weights: Mapping[str, float], seconds: float, busy: Callable[[str, float], bool]
) -> list[tuple[float, str]]:
    """Time and process of each call, where each keeps its slots ahead at the one pace while it is busy."""
    rules = [Rule(Limit.parse("20/s"), 1.0)]
    pace, now = Pace.new(0.0, 0.0, "boot"), 0.0
    due: list[tuple[float, str]] = []
    ahead: Counter[str] = Counter()
    sent: list[tuple[float, str]] = []
    while now < seconds:
        asking = {name: weight for name, weight in weights.items() if busy(name, now)}
        for name, most in slots_ahead(asking, 1).items():
            while ahead[name] < most:
                grant = pace.reserve(rules, Ask(), now)
                assert isinstance(grant, Grant)
                heapq.heappush(due, (grant.at, name))
                ahead[name] += 1
        now, name = heapq.heappop(due)
        ahead[name] -= 1
        sent.append((now, name))
    return sent


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4), min_size=2))
def test_processes_are_served_by_weight_at_the_full_pace(weights: dict[str, int]) -> None:
    """Over any ten seconds each has its part, but for what lies ahead, and no slot is lost."""
    sent = compete(weights, 30.0, lambda *_: True)
    total = sum(weights.values())
    assert len(sent) >= 30 / Limit.parse("20/s").interval_seconds(1.0)
    for start in range(0, len(sent) - 200, 50):
        stretch = Counter(name for _, name in sent[start : start + 200])
        for name, weight in weights.items():
            assert stretch[name] == pytest.approx(200 * weight / total, abs=MOST_AHEAD + 1)


def test_a_process_lends_what_it_does_not_use() -> None:
    """While one is idle the other has every slot; after that it has its part at once, and no more."""
    sent = compete({"a": 3, "b": 1}, 30.0, lambda name, now: name == "b" or not 10 <= now < 20)
    idle = [name for at, name in sent if 10.5 <= at < 20]
    assert set(idle) == {"b"}
    assert len(idle) >= 9.5 * 19
    back = Counter(name for at, name in sent if 20 <= at < 22)
    assert back["a"] <= 40 * 0.75 + 3


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 40), max_size=6),
    st.integers(1, 40),
)
def test_calls_in_flight_are_shared_as_before_where_all_are_alike(wanted: dict[str, int], cap: int) -> None:
    """Max-min fair: what one does not want is the others', and nobody has less than another who wants no more."""
    shares = _fair(wanted, cap, 0, {})
    assert sum(shares.values()) == min(cap, sum(wanted.values())) or len(wanted) > cap
    for one, number in wanted.items():
        assert shares[one] <= number
        for other in wanted:
            if shares[one] < number:
                assert shares[one] >= shares[other] - 1


@given(st.integers(8, 64), WEIGHTS)
def test_calls_in_flight_are_shared_by_weight(cap: int, weights: list[int]) -> None:
    """Nobody is without, all are used, and a larger weight never has less."""
    parts = {f"p{number}": float(weight) for number, weight in enumerate(weights)}
    shares = _fair(dict.fromkeys(parts, 64), cap, 0, parts)
    assert sum(shares.values()) == cap
    assert min(shares.values()) >= 1
    by_weight = sorted(parts, key=lambda name: parts[name])
    for one, other in itertools.pairwise(by_weight):
        assert shares[other] >= shares[one] - 1
    assert _fair({"a": 32, "b": 32}, 32, 0, {"a": 3.0, "b": 1.0}) == {"a": 24, "b": 8}
    turns = Counter(
        name
        for turn in range(8)
        for name, n in _fair({"a": 5, "b": 5}, 1, turn, {"a": 3, "b": 1}).items()
        if n
    )
    assert turns == {"a": 6, "b": 2}


def test_the_weight_of_a_team_is_divided_by_its_processes() -> None:
    """A team in two processes has its part once; a process in which nothing waits has none."""
    a, b = Team("a", 3), Team("b", 1)
    found = Parts.of(
        {
            "p": [Waiting(a, 4, 0.0), Waiting(b, 2, 0.0)],
            "q": [Waiting(a, 1, 0.0)],
            "r": [Waiting(b, 0, 0.0)],
        }
    )
    assert found == ({"p": 2.5, "q": 1.5}, {"a": 2, "b": 1})


def test_without_teams_the_document_is_as_ever() -> None:
    """What earlier versions read; and what they wrote is read."""
    shares = InFlightShares("boot", 1.0)
    shares.renew("p", Member(0.0, 4, 0, 1, 3, "scheduled", 8), 0, 1.0)
    assert json.loads(shares.dump()).keys() == {"boot", "at", "members"}
    assert InFlightShares.load(shares.dump(), 1.0, "boot").parts() == ({}, {})
    shares.renew(
        "q", Member(0.0, 4, 0, 1, 3, "scheduled", 8), 0, 1.0, Teams("acme", (Waiting(Team("a", 3), 3, 0.5),))
    )
    again = InFlightShares.load(shares.dump(), 1.0, "boot")
    assert again.teams == shares.teams
    assert again.parts("acme").portions == {"p": 1.0, "q": 3.0}
    assert again.parts("other").portions == {"p": 1.0}
