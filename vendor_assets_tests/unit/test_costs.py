"""What a day will cost, against what a toy vendor then counts; and how that is cut into runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from string import ascii_lowercase
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.days import Window
from vendor_assets.errors import ConfigurationError, VendorUnauthorizedError
from vendor_assets.harvest.costs import UNKNOWN_CALLS, Costs, DayPlan, quota_warning
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.harvest.sizing import RUN_PARTITIONS, RUN_SECONDS, cut
from vendor_assets.vendors.base import DataGroup, PlannedRequest
from vendor_assets_tests.support.toy import DAY, Bench, ToyVendor, click
from vendor_assets_tests.support.watched_store import WatchedStore

NEXT = DAY + timedelta(days=1)


@dataclass
class Wanted:
    """What a deployment asks for."""

    vendor: ToyVendor = field(default_factory=ToyVendor)
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    resolution_seconds: int = 1800
    filters: Filters = field(default_factory=Filters)


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.now += timedelta(days=3)
    return bench


def plan(bench: Bench, day: date = NEXT, *only: str, filters: Filters | None = None) -> DayPlan:
    return Costs(bench.store, Wanted(filters=filters or Filters())).day(day, only)


def harvested(bench: Bench, day: date, run: str) -> int:
    """Calls of a whole day, by the vendor's count."""
    before = bench.calls()
    harvester = bench.harvester()
    list(harvester.troops([day], click(run, finished="reconcile")))
    troops = sorted(troop for troop in bench.client.hierarchy if bench.filters.troops.takes(troop))
    list(
        harvester.chain(
            CHAIN, [(day, troop) for troop in troops], click(f"{run} chain", finished="reconcile")
        )
    )
    return bench.calls() - before


def test_what_calls_count_is_what_answers_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that were taken for ten points each and counted a quarter of that count two and a half; others stay."""
    counts = {"points": 10, "usd": 0.001}
    monkeypatch.setattr(ToyVendor, "counts", lambda self, request: counts)
    found = Costs(bench.store, Wanted(), learnt={"points": 0.25}).day(NEXT)
    assert found.per_call == pytest.approx({"points": 2.5, "dollars": 0.001})


def test_of_an_unknown_account_one_list_is_known(bench: Bench) -> None:
    """Before anything was harvested a day costs the list of its troops, and says that it knows no more."""
    found = plan(bench)
    assert (found.total, found.troops, found.roster_from, found.shape_from) == (1, 0, None, None)


def test_a_day_costs_what_the_one_before_did(bench: Bench) -> None:
    """Of a day like the last one the estimate is exact, and a day that is in costs nothing more."""
    first = harvested(bench, DAY, "r1")
    found = plan(bench)
    assert (found.roster_from, found.shape_from, found.unknown) == (DAY, DAY, 0)
    assert found.total == first == harvested(bench, NEXT, "r2")
    done = plan(bench)
    assert (done.total, done.whole) == (0, first)
    assert list(found.to_come) == ["1", "2", "3"]
    assert found.by_troop == {"troop 1": 6, "troop 2": 3, "troop 3": 1}


def test_of_finished_days_only_their_markers_are_read(bench: Bench) -> None:
    """Once a troop's shape is known, a day that is in costs no reading of its tables and plans, and tells the same."""
    harvested(bench, DAY, "r1")
    harvested(bench, NEXT, "r2")
    read: list[str] = []
    store = WatchedStore(bench.folder, lambda name, key, done: read.append(f"{name} {key}"))
    costs = Costs(store, Wanted())
    assert costs.day(DAY) == plan(bench, DAY)
    read.clear()
    assert costs.day(NEXT) == plan(bench, NEXT)
    opened = {
        each.rpartition("/")[2] for each in read if each.startswith(("get", "open")) and "/troop=" in each
    }
    assert opened == {"finish"}


class ByTheDay(ToyVendor):
    """Gives 24 hours at most: the 25 hours of an autumn's day take two requests."""

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        middle = min(day.end, day.start + timedelta(hours=24))
        windows = [Window(day.start, middle), Window(middle, day.end)]
        return [
            planned
            for window in windows[: 1 + (middle < day.end)]
            for planned in super(ByTheDay, self).performance_data(
                troop_id, warrior_id, groups, window, resolution_seconds
            )
        ]


def test_days_that_cost_alike_are_estimated_once(bench: Bench) -> None:
    """Of days without harvests those that are as long and have the same models share an estimate, and only those."""
    # On this day clocks are put back.
    first = date(2026, 10, 25)
    second, third = first + timedelta(days=3), first + timedelta(days=10)
    harvested(bench, first - timedelta(days=1), "r1")
    list(bench.harvester().troops([second], click("r2")))
    bench.client.hierarchy["1"]["new"] = ["cpu", "http", "sql"]
    harvested(bench, third, "r3")
    wanted = Wanted(vendor=ByTheDay(), zone=ZoneInfo("Europe/Berlin"))
    days = [first + timedelta(days=apart) for apart in range(-4, 14)]
    costs = Costs(bench.store, wanted)
    for only in ((), ("1",)):
        found = [costs.day(day, only) for day in days]
        assert found == [Costs(bench.store, wanted).day(day, only) for day in days]
        letters = dict(zip(dict.fromkeys(id(plan.to_come) for plan in found), ascii_lowercase, strict=False))
        # Harvested are b, e and h; e has no lists. The long day is c.
        assert "".join(letters[id(plan.to_come)] for plan in found) == "aaabcadedffggghggg"


def test_in_a_hurry_the_rest_is_taken_to_be_alike(bench: Bench) -> None:
    """A day of very many troops is estimated in time: those that were not looked at cost what the others do."""
    harvested(bench, DAY, "r1")
    in_time = iter([False, True, True])
    found = Costs(bench.store, Wanted(), lambda: next(in_time, True)).day(NEXT)
    assert (found.troops, found.unknown, len(set(found.to_come.values()))) == (3, 2, 1)
    assert Costs(bench.store, Wanted(), lambda: True).day(NEXT).unknown == 3


def test_lists_in_pages_cost_their_pages(bench: Bench) -> None:
    """A roster that came in three pages is counted as three calls."""
    bench.client.page_size = 1
    first = harvested(bench, DAY, "r1")
    assert plan(bench).calls["troops"] == 3
    assert plan(bench).total == first == harvested(bench, NEXT, "r2")
    assert (plan(bench).total, plan(bench).whole) == (0, first)


def test_what_has_landed_is_not_counted_again(bench: Bench) -> None:
    """Of a harvest that ended early only what is missing is to come."""
    harvested(bench, DAY, "r1")
    bench.client.faults["/data/b"] = VendorUnauthorizedError("no", status=401)
    harvested(bench, NEXT, "r2")
    bench.client.faults.clear()
    left = plan(bench).total
    assert left > 0
    assert harvested(bench, NEXT, "r3") == left
    assert plan(bench).total == 0


def test_where_only_warriors_are_known_the_rest_is_a_guess(bench: Bench) -> None:
    """After a harvest that was cut off before the first data no estimate is below nothing."""
    harvester = bench.harvester()
    list(harvester.troops([DAY], click("r1")))
    list(harvester.chain(["warriors"], [(DAY, troop) for troop in "12"], click("r2")))
    found = plan(bench)
    assert found.calls["performance_data"] == 3 * UNKNOWN_CALLS
    assert all(min(calls.values()) >= 0 for calls in found.whole_by_key.values())


def test_a_new_troop_costs_what_the_others_do(bench: Bench) -> None:
    """A troop of which no list is known yet is taken to cost the median of those that are known."""
    harvested(bench, DAY, "r1")
    bench.client.hierarchy["4"] = {"d": ["cpu"]}
    list(bench.harvester().troops([NEXT], click("r2")))
    found = plan(bench)
    assert (found.troops, found.unknown, found.roster_from) == (4, 1, NEXT)
    assert found.whole_by_key["4"] == {"warriors": 1, "data_groups": 1, "performance_data": 1}


def test_where_nothing_is_known_of_any_troop_it_is_a_guess(bench: Bench) -> None:
    """With a roster alone each troop counts as one list of warriors, one of data groups and sixty calls for data."""
    list(bench.harvester().troops([NEXT], click("r1")))
    found = plan(bench)
    assert (found.unknown, found.shape_from) == (3, None)
    assert found.calls == {
        "troops": 0,
        "warriors": 3,
        "data_groups": 3,
        "performance_data": 3 * UNKNOWN_CALLS,
    }


def test_filters_say_what_they_save(bench: Bench) -> None:
    """What is left out costs nothing, is counted as saved, and the estimate is still what the vendor counts."""
    whole = harvested(bench, DAY, "r1")
    bench.filters = Filters.parse({"VENDOR_ASSETS_TROOPS": "!2", "VENDOR_ASSETS_DATA_GROUPS": "cpu"})
    found = plan(bench, filters=bench.filters)
    assert (found.left_out, found.troops) == (1, 2)
    assert found.total + found.saved == whole
    assert harvested(bench, NEXT, "r2") == found.total


def test_a_filter_taken_back_costs_what_it_left_out(bench: Bench) -> None:
    """Of a day that was harvested under a filter, what the filter left out is to come once it is gone."""
    bench.filters = Filters.parse({"VENDOR_ASSETS_DATA_GROUPS": "cpu"})
    harvested(bench, DAY, "r1")
    bench.filters = Filters()
    # Data groups that are new to a batch are asked in batches of their own, which the estimate does not foresee.
    assert 0 < plan(bench, DAY).total <= harvested(bench, DAY, "r2")
    assert plan(bench, DAY).total == 0


def test_single_troops_are_named_in_any_way(bench: Bench) -> None:
    """A troop is found by id and by name; one that is not there is refused with those that are near."""
    harvested(bench, DAY, "r1")
    assert plan(bench, NEXT, "troop 2").to_come == plan(bench, NEXT, "2").to_come == {"2": 3}
    with pytest.raises(ConfigurationError, match=r"troop 'tropp 2' is not on the roster .* like 'troop 2'"):
        plan(bench, NEXT, "tropp 2")
    out = Filters.parse({"VENDOR_ASSETS_TROOPS": "!2"})
    with pytest.raises(ConfigurationError, match="troop '2' is left out by VENDOR_ASSETS_TROOPS=!2"):
        plan(bench, NEXT, "2", filters=out)


def test_the_nearest_day_is_the_model(bench: Bench) -> None:
    """Of two days that are as near the earlier one is taken, and an unfiltered shape goes before a filtered one."""
    harvested(bench, DAY, "r1")
    bench.client.hierarchy["1"]["new"] = ["cpu", "http", "sql"]
    harvested(bench, DAY + timedelta(days=2), "r2")
    assert plan(bench, NEXT).shape_from == DAY
    later = plan(bench, DAY + timedelta(days=3))
    assert later.roster_from == DAY + timedelta(days=2)
    assert later.by_troop["troop 1"] == 6 + 3
    bench.filters = Filters.parse({"VENDOR_ASSETS_WARRIORS": "a"})
    harvested(bench, DAY + timedelta(days=3), "r3")
    assert plan(bench, DAY + timedelta(days=3)).by_troop["troop 1"] == 6 + 3


def test_a_quota_that_is_too_small_says_what_to_change(bench: Bench) -> None:
    """A day that needs more calls than the quota gives names its size, the largest troops and the settings."""
    harvested(bench, DAY, "r1")
    found = plan(bench)
    day_seconds = 86_400
    assert quota_warning(found, None, 1800) is None
    assert quota_warning(found, (found.whole + 0.5) / day_seconds, 1800) is None
    warning = quota_warning(found, (found.whole - 1) / day_seconds, 1800) or ""
    assert f"a day needs {found.whole} calls, the quota gives {found.whole - 1} a day" in warning
    assert "Largest troops: troop 1 (6), troop 2 (3), troop 3 (1)" in warning
    assert "VENDOR_ASSETS_RESOLUTION=1800" in warning
    in_already = plan(bench, DAY)
    assert quota_warning(in_already, (in_already.whole - 1) / day_seconds, 1800)


@given(
    calls=st.dictionaries(st.text("abc123", min_size=1, max_size=6), st.integers(0, 5000), max_size=500),
    rate=st.one_of(st.none(), st.floats(0.01, 2000)),
)
def test_every_troop_is_in_one_run_and_runs_are_bounded(calls: dict[str, int], rate: float | None) -> None:
    """Runs hold each troop once, small ones first; only a single troop may take longer than ten minutes of quota."""
    runs = cut(calls, rate)
    flat = [key for run in runs for key in run]
    assert sorted(flat) == sorted(calls)
    assert [calls[key] for key in flat] == sorted(calls.values())
    for run in runs:
        assert 0 < len(run) <= RUN_PARTITIONS
        seconds = sum(calls[key] for key in run) / rate if rate else 0.0
        assert seconds <= RUN_SECONDS * (1 + 1e-9) or len(run) == 1


def test_runs_are_as_full_as_they_may_be() -> None:
    """A troop begins a new run only where the one before has no room for it."""
    assert [len(run) for run in cut({f"{n:04}": 0 for n in range(401)}, None)] == [200, 200, 1]
    assert cut({"a": 300, "b": 300, "c": 1}, 1.0) == [["c", "a"], ["b"]]
    assert cut({"a": 5000, "b": 1}, 1.0) == [["b"], ["a"]]
    assert cut(dict.fromkeys("abcd", 300), 1.0) == [["a", "b"], ["c", "d"]]
    assert cut({}, 1.0) == []
