"""A harvest under filters, on a toy vendor in memory and a folder: what changes when they change."""

from __future__ import annotations

from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets_tests.support.toy import DAY, Bench, click


def filtered(**texts: str) -> Filters:
    return Filters.parse({f"VENDOR_ASSETS_{name.upper()}": text for name, text in texts.items()})


def test_a_click_on_a_troop_that_is_left_out_costs_nothing(bench: Bench) -> None:
    """It is empty and says by which setting; once the filter is gone, all of it is asked."""
    bench.troops(click("r1"))
    before = bench.calls()
    bench.filters = filtered(troops="!troop 1")
    outcomes = bench.chain(click("r2"), "1")
    assert {outcome.state for outcome in outcomes.values()} == {"empty"}
    assert all(
        "left out by VENDOR_ASSETS_TROOPS=!troop 1: no calls" in item.message for item in outcomes.values()
    )
    assert bench.calls() == before
    bench.filters = Filters()
    whole = bench.chain(click("r3", finished="reconcile"), "1")
    assert whole["performance_data", "1"].rows == 4 * 24


def test_leaving_a_troop_out_keeps_its_tables(bench: Bench) -> None:
    """A troop that was harvested keeps its rows when a filter leaves it out, also at a click."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    before = bench.calls()
    bench.filters = filtered(troops="2")
    outcome = bench.chain(click("r3"), "1")["performance_data", "1"]
    assert (outcome.state, outcome.rows) == ("complete", 4 * 24)
    assert "its table stays as it was" in outcome.message
    assert bench.calls() == before


def test_rosters_stay_whole_and_what_is_below_is_cut(bench: Bench) -> None:
    """A warrior that is left out is on the roster and has no data groups; the numbers say so."""
    bench.troops(click("r1"))
    bench.filters = filtered(warriors="!b", data_groups="!sql")
    outcomes = bench.chain(click("r2"), "1")
    assert outcomes["warriors", "1"].rows == 2
    assert outcomes["data_groups", "1"].details["warriors_left_out"] == 1
    data = outcomes["performance_data", "1"]
    assert (data.rows, data.details["data_groups_left_out"]) == (2 * 24, 1)
    assert data.details["filters"] == "VENDOR_ASSETS_WARRIORS=!b VENDOR_ASSETS_DATA_GROUPS=!sql"
    assert not [key for key in bench.client.calls if "/groups/b" in key or "sql" in key]


def test_an_unfinished_harvest_goes_on_under_the_filters_of_now(bench: Bench) -> None:
    """What was planned and is left out now is not asked any more; what had landed is not asked again."""
    bench.troops(click("r1"))
    stopped: Harvester = bench.harvester()

    def stop_at_data(request: object) -> None:
        if str(getattr(request, "path", "")).startswith("/data/a"):
            stopped.stop.set()

    bench.client.before = stop_at_data
    list(stopped.chain(CHAIN, [(DAY, "1")], click("r2")))
    bench.client.before = lambda request: None
    bench.filters = filtered(warriors="a", data_groups="!http")
    before = bench.client.calls.copy()
    resumed = bench.chain(click("r3", finished="reconcile"), "1")["performance_data", "1"]
    asked = bench.client.calls - before
    assert resumed.state == "complete"
    assert not [key for key in asked if "/data/b" in key or "http" in key]
    bench.filters = Filters()
    assert bench.chain(click("r4", finished="reconcile"), "1")["performance_data", "1"].rows == 4 * 24


def test_sightings_do_not_look_below_a_troop_that_is_left_out(bench: Bench) -> None:
    """Its warriors are not listed during the day either."""
    bench.filters = filtered(troops="!2")
    assert bench.harvester().sight(click("s1")) == {"troops": 2, "calls": 3}
    assert not [key for key in bench.client.calls if key.startswith("/troops/2")]
