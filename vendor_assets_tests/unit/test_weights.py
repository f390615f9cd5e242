"""Weights: which troops are a team, and how a run's work is taken in turns."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.account import Account
from vendor_assets.budget import OTHERS, Team
from vendor_assets.errors import ConfigurationError
from vendor_assets.harvest.fetching import Fetcher, Pending, Work
from vendor_assets.harvest.harvester import _Waiting
from vendor_assets.harvest.sizing import cut
from vendor_assets.harvest.weights import Weights, seconds_by_team
from vendor_assets.orchestration.automation.run_requests import roster_runs
from vendor_assets.settings import read
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets_tests.support.toy import DAY, Bench, ToyVendor, click

A, B = Team("a", 3), Team("b", 1)


@pytest.mark.parametrize(
    ("troop", "team"),
    [
        (Troop("7", "7", "payments"), Team("payments", 3)),
        (Troop("7", "7", "Payments"), Team("*", 0.5)),
        (Troop("7", "7", "search-eu"), Team("search-*", 2)),
        (Troop("8", "8", None), Team("8", 1)),
        (Troop("9", "9", None), Team("*", 0.5)),
    ],
)
def test_the_first_pattern_that_matches_an_id_or_a_name_counts(troop: Troop, team: Team) -> None:
    """As in filters, case counts; all troops of one pattern are one team."""
    weights = Weights.parse("payments=3, search-*=2,8=1, *=0.5")
    assert weights.team_of(troop) == team
    assert Weights.parse(weights.text) == weights


def test_troops_of_no_pattern_are_one_more_team() -> None:
    """Of weight 1; without weights all are."""
    assert Weights.parse("payments=3").team_of(Troop("7", "7", "search")) == OTHERS
    assert not Weights.parse("")
    assert Weights.parse("").team_of(Troop("7", "7", "search")) == OTHERS


def test_a_name_may_have_an_equals_sign() -> None:
    """The weight is behind the last one."""
    assert Weights.parse("env=prod=2").teams == (Team("env=prod", 2.0),)


@pytest.mark.parametrize(
    "text",
    [
        "payments",
        "payments=",
        "=3",
        "a=1,,b=2",
        "a=0",
        "a=-1",
        "a=1001",
        "a=much",
        "a=1e2",
        "a=nan",
        "a=²",
        "!a=2",
    ],
)
def test_a_wrong_weight_is_one_line(text: str) -> None:
    """The setting, the part that is wrong, and what is accepted."""
    with pytest.raises(ConfigurationError) as caught:
        Weights.parse(text)
    assert str(caught.value).startswith("VENDOR_ASSETS_WEIGHTS: '")
    assert "like payments=3,search-*=2,*=1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pattern_has_one_weight() -> None:
    """Which of two would hold nobody would see."""
    with pytest.raises(ConfigurationError, match="VENDOR_ASSETS_WEIGHTS: 'a' has two weights"):
        Weights.parse("a=1,a=2")


@given(
    st.dictionaries(st.integers(0, 999), st.integers(0, 500), max_size=60),
    st.lists(st.sampled_from([A, B, OTHERS]), min_size=1, max_size=7),
    st.one_of(st.none(), st.floats(0.1, 100)),
)
def test_runs_have_of_each_team_what_is_due(
    calls: dict[int, int], of: list[Team], rate: float | None
) -> None:
    """No team begins a troop while another with troops left has had less for its weight; in each small ones first."""
    numbers = {str(key): number for key, number in calls.items()}
    teams = {key: of[int(key) % len(of)] for key in numbers}
    order = [key for run in cut(numbers, rate, teams) for key in run]
    assert sorted(order) == sorted(numbers)
    had: Counter[Team] = Counter()
    for position, key in enumerate(order):
        for other in {teams[left] for left in order[position:]}:
            assert had[teams[key]] / teams[key].weight <= had[other] / other.weight + 1e-9
        had[teams[key]] += max(1, numbers[key])
    for team in set(of):
        mine = [numbers[key] for key in order if teams[key] == team]
        assert mine == sorted(mine)


def test_a_small_team_does_not_wait_for_the_runs_of_a_large_one() -> None:
    """Its troops are in the first run, though ten runs of the other's are to come."""
    calls = {f"a{n:02}": 300 for n in range(20)} | {"b0": 400, "b1": 400}
    plain, shared = cut(calls, 1.0), cut(calls, 1.0, {key: A if key[0] == "a" else B for key in calls})
    assert {"b0", "b1"} & set(plain[-1] + plain[-2])
    assert "b0" in shared[0] + shared[1]


def test_each_team_has_threads_for_its_weight() -> None:
    """Of eight threads six and two; where one has nothing to send, the other has all."""
    fetcher = Fetcher(None, ToyVendor(), threads=8)  # type: ignore[arg-type]
    works = [
        Work("performance_data", "1", None, Pending(iter([None] * 9), 9, 9), team=team)  # type: ignore[arg-type,list-item]
        for team in (A, B)
    ]
    fetcher._open = list(works)
    taken = [fetcher._take() for _ in range(8)]
    assert Counter(each[0].team for each in taken if each) == {A: 6, B: 2}
    works[1].pending.clear()
    assert {each[0].team for each in (fetcher._take() for _ in range(3)) if each} == {A}


def test_each_team_has_open_partitions_for_its_weight() -> None:
    """Of eight six and two, however they are ordered; who ends one opens one of the same team's."""
    partitions = [(DAY, f"{n}") for n in range(30)]
    waiting = _Waiting(partitions, [A] * 20 + [B] * 10)
    with ExitStack() as stack:
        opened = [stack.enter_context(waiting.next()) for _ in range(8)]
        assert Counter(team for _, _, team in opened) == {A: 6, B: 2}
        for _ in range(5):
            with waiting.next() as (_, _, team):
                assert team == A
    assert waiting.teams == 2


def test_calls_are_made_in_the_name_of_the_troops_team(bench: Bench) -> None:
    """Each call below the roster, by what the troop is called on it."""
    bench.weights = Weights.parse("troop 1=3,2=2")
    assert bench.troops(click("r1")).state == "complete"
    bench.client.teams.clear()
    outcomes = bench.chain(click("r2"))
    assert {outcome.state for outcome in outcomes.values()} <= {"complete", "empty"}
    made = Counter[str]()
    for (_, troop), outcome in outcomes.items():
        made[{"1": "troop 1", "2": "2"}.get(troop, "")] += outcome.counts.calls
    assert Counter(bench.client.teams) == made
    assert bench.open[-1]._fetcher._busy.total() == 0
    bench.client.teams.clear()
    bench.harvester().sight(click("r3"))
    assert Counter(bench.client.teams) == {"": 2, "troop 1": 1, "2": 1}


def test_each_team_has_an_open_partition(bench: Bench) -> None:
    """Also where there are more teams than partitions would be open otherwise."""
    bench.weights = Weights.parse("1=1,2=1000")
    bench.troops(click("r1"))
    all_open = threading.Barrier(3, timeout=120)
    bench.client.before = lambda request: all_open.wait() and None
    harvester = bench.harvester()
    harvester._open_partitions = 1
    found = list(harvester.chain(["warriors"], [(DAY, troop) for troop in "123"], click("r2")))
    assert [outcome.state for outcome in found].count("failed") == 0


def test_a_days_runs_each_have_of_every_team_what_is_due(bench: Bench, tmp_path: Path) -> None:
    """The runs that a sensor requests: a light team's troops are not behind all runs of a heavy one."""
    bench.client.hierarchy = {f"{n}": {f"w{n}": ["cpu"]} for n in range(1, 10)}
    bench.troops(click("r1"))
    environ = {
        "VENDOR_URL": "http://127.0.0.1:9",
        "VENDOR_API_KEY": "k",
        "VENDOR_RATE": "8/h",
        "VENDOR_SHARE": "1",
    }
    plain = read(environ, root=tmp_path)
    account = replace(plain, vendor=bench.vendor, weights=Weights.parse("troop [1-6]=3,*=1"))

    def order(account: Account) -> str:
        _, runs = roster_runs(bench.store, account, DAY, run_key="k", work_class="scheduled")
        configs = [next(iter(run.run_config["ops"].values()))["config"] for run in runs]
        return "".join(key[-1] for config in configs for key in config["partitions"])

    assert order(replace(account, weights=Weights())) == "123456789"
    assert order(account) == "172348569"


def test_when_each_team_is_done() -> None:
    """What a team no longer needs is lent: the last one ends when all are made."""
    assert seconds_by_team({A: 30, B: 30}, 60.0) == {A: 40.0, B: 60.0}
    assert seconds_by_team({A: 30, B: 10}, 40.0) == {A: 40.0, B: 40.0}
    assert seconds_by_team({A: 0, B: 10}, 10.0) == {A: 0.0, B: 10.0}
    assert seconds_by_team({}, 0.0) == {}


@given(
    st.dictionaries(
        st.builds(Team, st.text("abc", max_size=2), st.integers(1, 9)), st.integers(0, 99), max_size=5
    )
)
def test_the_last_team_is_done_when_all_is(calls: dict[Team, int]) -> None:
    """And none later than had it only its part all the time."""
    total = sum(calls.values())
    ends = seconds_by_team(calls, float(total))
    weights = sum(team.weight for team, number in calls.items() if number)
    assert max(ends.values(), default=0.0) == pytest.approx(float(total))
    for team, number in calls.items():
        assert ends[team] <= min(total, number * weights / team.weight) + 1e-6


def test_days_of_several_rosters_have_their_own_names(bench: Bench) -> None:
    """A troop is known by its key where a day has no roster."""
    bench.weights = Weights.parse("troop 1=3,1=2")
    bench.troops(click("r1"))
    days = [(DAY, "1"), (date(2026, 11, 19), "1"), (DAY, "2")]
    found = bench.harvester()._teams_of(days, partial(Roster.read, bench.store))
    assert found == [Team("troop 1", 3), Team("1", 2), OTHERS]
