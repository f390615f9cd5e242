"""The harvest's modes, on a toy vendor in memory and a folder."""

from __future__ import annotations

import gc
import json
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vendor_assets.errors import (
    ConfigurationError,
    VendorNotFoundError,
    VendorRejectedError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.outcome import CHAIN, HarvestOptions, Progress
from vendor_assets.storage import layout, sorting
from vendor_assets.storage.parquet import read_table
from vendor_assets.vendors.base import Parsed, PlannedRequest, Request, Response, reject
from vendor_assets_tests.support.toy import DAY, HIERARCHY, Bench, ToyVendor, click, noon


def test_a_whole_day_becomes_complete(bench: Bench) -> None:
    """Every list and every leaf is asked once, and each table has its grain."""
    assert bench.troops(click("r1")).state == "complete"
    outcomes = bench.chain(click("r2"))
    assert {key: outcome.state for key, outcome in outcomes.items()} == {
        (asset, troop): "empty" if troop == "3" else "complete" for asset in CHAIN for troop in "123"
    }
    rows = read_table(bench.store, layout.table_key("performance_data", DAY, "1"))
    assert rows.num_rows == 4 * 24
    assert max(bench.client.calls.values()) == 1
    # 1 list of troops, 3 of warriors, 3 of data groups, and 2 + 1 + 1 batches of at most two groups.
    assert bench.calls() == 1 + 3 + 3 + 4


def test_two_clicks_at_once_pay_once(bench: Bench) -> None:
    """What another run has harvested since a run began is taken as it is, although nobody is at work on it any more."""
    bench.troops(click("r1"))
    meanwhile = [click("r3")]

    def harvest_the_other(request: Request) -> None:
        if "data" in request.path and meanwhile:
            order = meanwhile.pop()
            assert bench.chain(order, "2")["performance_data", "2"].mode == "first"

    bench.client.before = harvest_the_other
    harvester = bench.harvester(open_partitions=1)
    partitions = [(DAY, "1"), (DAY, "2")]
    *_, last = list(harvester.chain(CHAIN, partitions, click("r2")))
    assert (last.asset, last.troop_key, last.mode, last.state) == (
        "performance_data",
        "2",
        "reconcile",
        "complete",
    )
    assert max(bench.client.calls.values()) == 1


def test_a_click_on_a_finished_partition_replaces_it(bench: Bench) -> None:
    """A person's materialization asks everything again; the order of a sensor asks nothing that was there."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    before = bench.calls()
    assert bench.chain(click("r3"), "1")["performance_data", "1"].mode == "replace"
    assert bench.calls() - before == 1 + 2 + 3
    before = bench.calls()
    again = bench.chain(click("r4", finished="reconcile"))
    assert {outcome.mode for outcome in again.values()} == {"reconcile"}
    assert again["performance_data", "1"].rows == 4 * 24
    assert bench.calls() == before


def test_what_was_fetched_since_a_click_is_not_fetched_again(bench: Bench) -> None:
    """Two clicks on a finished day replace it once, whichever runs first; a part that came since is no replacement."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    bench.now += timedelta(hours=1)
    both = bench.now
    bench.now += timedelta(minutes=1)
    assert bench.chain(click("r3", asked_at=both), "1")["performance_data", "1"].mode == "replace"
    before = bench.calls()
    assert bench.chain(click("r4", asked_at=both), "1")["performance_data", "1"].mode == "reconcile"
    assert bench.calls() == before
    bench.client.hierarchy["1"]["a"] = ["cpu", "http", "queue", "sql"]
    bench.chain(click("r5"), "1", assets=("data_groups",))
    order = click("r6", asked_at=bench.now)
    bench.now += timedelta(minutes=1)
    bench.chain(click("r7", finished="reconcile"), "1", assets=("performance_data",))
    again = bench.chain(order, "1", assets=("performance_data",))
    assert again["performance_data", "1"].mode == "replace"


def test_what_did_not_look_finished_is_not_replaced(bench: Bench) -> None:
    """Of a click only partitions that whoever clicked saw as finished are fetched again."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    before = bench.calls()
    unseen = frozenset((asset, DAY, "1") for asset in CHAIN)
    outcomes = bench.chain(click("r3", unseen=unseen), "1", "2")
    assert {key: outcome.mode for key, outcome in outcomes.items()} == {
        (asset, troop): "reconcile" if troop == "1" else "replace" for asset in CHAIN for troop in "12"
    }
    assert bench.calls() - before == 1 + 1 + 1


def test_a_replacement_tells_what_changed(bench: Bench) -> None:
    """Rows that came, went, or have other values are counted against the table before; a first one has nothing."""
    bench.troops(click("r1"))
    assert "rows_added" not in bench.chain(click("r2"), "1")["performance_data", "1"].details
    bench.client.factor = 2.0
    groups = bench.client.hierarchy["1"]
    groups["a"] = ["cpu", "http", "jvm"]
    bench.now += timedelta(minutes=1)
    outcome = bench.chain(click("r3"), "1")["performance_data", "1"]
    names = ("rows_added", "rows_altered", "rows_removed")
    # The value of hour 0 stays 0; cpu and http of a and cpu of b have 23 others each.
    assert [outcome.details[name] for name in names] == [24, 3 * 23, 24]
    again = bench.chain(click("r4", finished="reconcile"), "1")["performance_data", "1"]
    assert not set(names) & set(again.details)
    same = bench.chain(click("r5", rebuild=True), "1", assets=("performance_data",))["performance_data", "1"]
    assert [same.details[name] for name in names] == [0, 0, 0]


def test_reconcile_asks_only_what_was_not_there(bench: Bench) -> None:
    """A new data group costs its own requests, and no batch that has landed is asked again."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    bench.client.hierarchy["1"]["a"] = ["cpu", "http", "queue", "sql"]
    bench.chain(click("r3"), "1", assets=("data_groups",))
    before = bench.calls()
    outcome = bench.chain(click("r4", finished="reconcile"), "1", assets=("performance_data",))[
        "performance_data", "1"
    ]
    assert (outcome.mode, outcome.state, outcome.rows) == ("reconcile", "complete", 5 * 24)
    assert bench.calls() - before == 1
    assert (outcome.planned, outcome.landed) == (5, 5)


def test_a_retry_of_the_same_root_run_pays_for_nothing(bench: Bench) -> None:
    """What the first attempt finished is reported again without a call."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    before = bench.calls()
    outcomes = bench.chain(HarvestOptions("r3", "r2"))
    assert {outcome.mode for outcome in outcomes.values()} == {"report"}
    assert outcomes["performance_data", "1"].rows == 4 * 24
    assert bench.calls() == before


def test_a_stopped_harvest_is_resumed_where_it_ended(bench: Bench) -> None:
    """After a stop the next run asks for what had not landed, and for nothing else."""
    bench.troops(click("r1"))
    stopped = bench.harvester()
    seen = threading.Event()

    def stop_at_data(request: object) -> None:
        if str(getattr(request, "path", "")).startswith("/data"):
            stopped.stop.set()
            seen.set()

    bench.client.before = stop_at_data
    outcomes = list(stopped.chain(CHAIN, [(DAY, "1")], click("r2")))
    assert seen.is_set()
    assert outcomes[-1].state in ("stopped", "complete")
    bench.client.before = lambda request: None
    resumed = bench.chain(click("r3", finished="reconcile"), "1")["performance_data", "1"]
    assert (resumed.state, resumed.rows) == ("complete", 4 * 24)
    assert max(bench.client.calls.values()) == 1


def test_the_newest_harvest_counts_whatever_the_clocks_say(bench: Bench) -> None:
    """A replacement by a machine whose clock is an hour behind is resumed and becomes the current one."""
    bench.troops(click("r1"))
    bench.chain(click("r2"), "1")
    bench.now -= timedelta(hours=1)
    bench.client.factor = 2.0
    bench.client.faults = {"/data/b": VendorUnauthorizedError("the key was refused", status=401)}
    assert bench.chain(click("r3"), "1")["performance_data", "1"].state == "failed"
    bench.client.faults = {}
    resumed = bench.chain(click("r4", finished="reconcile"), "1")["performance_data", "1"]
    assert resumed.mode == "resume"
    again = bench.chain(click("r5", rebuild=True), "1", assets=("performance_data",))["performance_data", "1"]
    assert [again.details[name] for name in ("rows_added", "rows_altered", "rows_removed")] == [0, 0, 0]


def test_permanent_failures_become_dead_letters_and_are_redriven(bench: Bench) -> None:
    """A rejected request makes its partition partial, leaves its siblings alone, and a click asks only for it."""
    bench.troops(click("r1"))
    bench.client.faults["/data/a"] = VendorRejectedError("the vendor refused: 400", status=400, excerpt="no")
    outcomes = bench.chain(click("r2"))
    partial = outcomes["performance_data", "1"]
    assert (partial.state, partial.dead, partial.landed) == ("partial", 3, 1)
    assert outcomes["performance_data", "2"].state == "complete"
    letters = DeadLetters(bench.store).load("performance_data", DAY, "1").letters
    assert {(letter.status, letter.attempts, letter.retryable) for letter in letters} == {(400, 1, False)}
    bench.client.faults.clear()
    before = bench.calls()
    outcome = bench.chain(click("r3"), "1", assets=("performance_data",))["performance_data", "1"]
    assert (outcome.mode, outcome.state, outcome.rows) == ("redrive", "complete", 4 * 24)
    # The batch of two was split, so that each of the three leaves is a request.
    assert bench.calls() - before == len(letters) == 3
    assert not DeadLetters(bench.store).load("performance_data", DAY, "1").letters


def test_a_refused_key_stops_at_once(bench: Bench) -> None:
    """401 is no dead letter of one leaf: nothing more is asked, nothing is green, the next run resumes."""
    bench.troops(click("r1"))
    bench.client.faults["/"] = VendorUnauthorizedError("the key was refused: 401", status=401)
    outcomes = bench.chain(click("r2"), "1")
    assert {outcome.state for outcome in outcomes.values()} == {"failed"}
    bench.client.faults.clear()
    assert bench.chain(click("r3"), "1")["warriors", "1"].mode == "resume"


def test_an_unreachable_vendor_leaves_a_failed_partition(bench: Bench) -> None:
    """Nothing landed: failed, with the reason, and no table."""
    bench.client.faults["/"] = VendorUnavailableError("no connection", attempts=5)
    outcome = bench.troops(click("r1"))
    assert (outcome.state, outcome.rows) == ("failed", 0)
    assert bench.store.head(layout.table_key("troops", DAY)) is None


def test_a_partition_of_a_live_run_is_refused(bench: Bench) -> None:
    """Two runs never harvest one partition; a dead holder is replaced with the next epoch."""
    holder = layout.holder_key(layout.harvest_prefix("troops", DAY, None))
    bench.store.put(holder, b'{"epoch": 3, "holder": "other", "released": false}')
    bench.alive.names.add("other")
    held = bench.troops(click("r1"))
    assert held.state == "held"
    assert "other" in held.message
    bench.alive.names.clear()
    assert bench.troops(click("r2")).state == "complete"
    assert b'"epoch": 4' in bench.store.get(holder)


def test_rebuild_makes_the_table_anew_without_a_call(bench: Bench) -> None:
    """What has landed is enough for the tables."""
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    key = layout.table_key("performance_data", DAY, "1")
    before = read_table(bench.store, key)
    bench.store.delete(key)
    calls = bench.calls()
    outcome = bench.chain(click("r3", rebuild=True), "1", assets=("performance_data",))[
        "performance_data", "1"
    ]
    assert (outcome.mode, outcome.state) == ("rebuild", "complete")
    assert read_table(bench.store, key).equals(before)
    assert bench.calls() == calls


def test_a_day_that_is_not_over_is_refused(bench: Bench) -> None:
    """The running day has no partition yet: one clear line, no call."""
    bench.now = noon(DAY.isoformat())
    outcome = bench.troops(click("r1"))
    assert outcome.state == "failed"
    assert "not over" in outcome.message
    assert bench.calls() == 0


def test_a_day_that_is_not_over_by_the_vendors_clock_is_refused(bench: Bench) -> None:
    """Whose clock is hours ahead would take half a day for all of it: it is told after one call, nothing is kept."""
    bench.client.answered_at = noon(DAY.isoformat())
    outcome = bench.troops(click("r1"))
    assert (outcome.state, bench.calls()) == ("failed", 1)
    assert f"by the vendor's clock it is {DAY} 12:00 UTC" in outcome.message
    bench.client.answered_at = noon(DAY.isoformat()) + timedelta(hours=12)
    assert bench.troops(click("r2")).state == "complete"
    bench.chain(click("r3"), assets=CHAIN[:2])
    bench.client.answered_at -= timedelta(minutes=2)
    outcomes = bench.chain(click("r4", finished="reconcile"), "1", "2")
    assert outcomes["performance_data", "1"].state == outcomes["performance_data", "2"].state == "failed"
    bench.client.answered_at += timedelta(minutes=3)
    assert bench.chain(click("r5"), "1")["performance_data", "1"].state == "complete"


def test_an_old_answer_is_no_sighting(bench: Bench) -> None:
    """Who was there yesterday, as a cache in between may say, was not seen today; nothing of it lands."""
    today = DAY + timedelta(days=1)
    bench.client.answered_at = noon(today.isoformat()) - timedelta(hours=13)
    with pytest.raises(ConfigurationError, match=f"can be told from {today} 00:00 on"):
        bench.harvester().sight(click("s1"))
    assert (bench.calls(), list(bench.store.list(layout.sightings_prefix(today)))) == (1, [])
    bench.client.answered_at += timedelta(hours=2)
    assert bench.harvester().sight(click("s2"))["troops"] == 3


def test_a_troop_that_was_not_on_the_roster_gives_no_rows(bench: Bench) -> None:
    """Asked for by hand, it is empty, says so, and costs nothing."""
    bench.troops(click("r1"))
    before = bench.calls()
    outcome = bench.chain(click("r2"), "77")["warriors", "77"]
    assert (outcome.state, outcome.rows) == ("empty", 0)
    assert "was not on the roster" in outcome.message
    assert bench.calls() == before


def test_a_troop_that_was_never_on_a_roster_fails(bench: Bench) -> None:
    """Whoever mistyped it would take an empty table for the answer; it names those that come near, at no cost."""
    bench.troops(click("r1"))
    before = bench.calls()
    outcomes = bench.chain(click("r2"), "42x")
    assert {outcome.state for outcome in outcomes.values()} == {"failed"}
    told = outcomes["warriors", "42x"]
    assert told.message == "troop '42x' was never on a roster; 99 are known, like '42'"
    assert not told.retryable
    assert bench.calls() == before


def test_early_answers_are_provisional(bench: Bench) -> None:
    """Data fetched before the day had settled is asked again by the next run."""
    bench.now = datetime(2026, 11, 21, 0, 5, tzinfo=UTC)
    bench.troops(click("r1"))
    early = bench.chain(click("r2"), "2")["performance_data", "2"]
    assert (early.state, early.details["provisional_answers"]) == ("complete", 1)
    bench.now = noon()
    before = bench.calls()
    outcome = bench.chain(click("r3", finished="reconcile"), "2")["performance_data", "2"]
    assert (outcome.state, outcome.rows) == ("complete", 2 * 24)
    assert bench.calls() - before == 1


def test_sightings_keep_who_vanished_on_the_roster(bench: Bench) -> None:
    """What was seen at noon and is gone at midnight is on the day's roster, with its times."""
    bench.now = noon(DAY.isoformat())
    assert bench.harvester().sight(click("s1"))["troops"] == 3
    del bench.client.hierarchy["2"]
    del bench.client.hierarchy["1"]["b"]
    bench.now = noon()
    roster = bench.troops(click("r1"))
    assert (roster.rows, roster.details["observed_later"]) == (3, False)
    outcome = bench.chain(click("r2"), "1", assets=("warriors",))["warriors", "1"]
    rows = {row["warrior_id"]: row for row in read_table(bench.store, outcome.table_key).to_pylist()}
    assert rows["b"]["last_observed_at"] == noon(DAY.isoformat())
    assert rows["a"]["last_observed_at"] == noon()


def test_pages_are_followed_and_resumed(bench: Bench) -> None:
    """A list of several pages is one leaf; all its pages land."""
    bench.client.page_size = 1
    outcome = bench.troops(click("r1"))
    assert (outcome.rows, outcome.planned, outcome.landed) == (3, 1, 1)
    assert bench.calls() == 3


class StrictVendor(ToyVendor):
    """The toy's dialect before it learned that values may come as texts."""

    def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
        parsed = super().parse(asset, planned, response)
        values = parsed.columns.get("value", [])
        good = [isinstance(value, float) for value in values]
        if not all(good):
            parsed.rejected = [
                reject("value is of type str", value)
                for value, fits in zip(values, good, strict=True)
                if not fits
            ]
            parsed.columns = {
                name: [value for value, fits in zip(column, good, strict=True) if fits]
                for name, column in parsed.columns.items()
            }
            parsed.new_fields = ("unit",)
        return parsed


class LearnedVendor(ToyVendor):
    """The toy's dialect after it learned it."""

    def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
        parsed = super().parse(asset, planned, response)
        if "value" in parsed.columns:
            parsed.columns["value"] = [float(str(value)) for value in parsed.columns["value"]]
        return parsed


def test_quarantined_records_come_back_once_the_dialect_knows_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retyped field puts its records aside and is reported; a rebuild with the new dialect has every row, no call."""
    answer = bench.client._answer

    def retyped(request: Request) -> dict[str, Any]:
        document = answer(request)
        for row in document["rows"]:
            if row.get("data_group") == "cpu" and "value" in row:
                row["value"] = str(row["value"])
        return document

    monkeypatch.setattr(bench.client, "_answer", retyped)
    bench.vendor = StrictVendor()
    bench.troops(click("r1"))
    outcome = bench.chain(click("r2"), "1")["performance_data", "1"]
    assert (outcome.rows, outcome.quarantined, outcome.details["new_fields"]) == (48, 48, ["unit"])
    key = layout.quarantine_key("performance_data", DAY, "1")
    lines = [json.loads(line) for line in bench.store.get(key).splitlines()]
    assert {line["reason"] for line in lines} == {"value is of type str"}
    assert len(lines) == 48
    bench.vendor = LearnedVendor()
    calls = bench.calls()
    again = bench.chain(click("r3", rebuild=True), "1", assets=("performance_data",))["performance_data", "1"]
    assert (again.rows, again.quarantined, again.details["rows_added"]) == (96, 0, 48)
    assert not bench.store.get(key)
    assert bench.calls() == calls


def progress_of(
    asset: str, planned: int, done: int, *, partitions: int, begun: int, calls_planned: int | None
) -> Progress:
    """Of a run that has asked for partitions of one asset, of which some have begun."""
    return Progress(
        planned={asset: planned},
        done={asset: done},
        dead=0,
        open_partitions=1,
        partitions=partitions,
        partitions_done=0,
        asked={asset: partitions},
        begun={asset: begun},
        leaves_waiting={},
        calls_planned=calls_planned,
    )


@pytest.mark.parametrize(
    ("calls_planned", "begun", "left"), [(None, 2, 15 + 8 * 10), (50, 2, 45), (12, 2, 15), (50, 10, 15)]
)
def test_what_is_left_goes_by_the_plan_until_all_has_begun(
    calls_planned: int | None, begun: int, left: int
) -> None:
    """Without a plan the partitions to come are taken to be like those begun, which were the small ones."""
    progress = progress_of("data_groups", 20, 5, partitions=10, begun=begun, calls_planned=calls_planned)
    assert progress.expected == left


@pytest.mark.parametrize(
    ("begun", "calls_planned", "said"),
    [
        (1, None, "9 of at least 409 calls"),
        (1, 500, "9 of about 500 calls"),
        (50, None, "9 of about 4,090 calls"),
    ],
)
def test_nothing_is_foretold_by_the_first_troop_alone(
    begun: int, calls_planned: int | None, said: str
) -> None:
    """Of 500 troops the first may be the largest: until a tenth has begun no total and no time is announced."""
    progress = progress_of(
        "performance_data", 409, 9, partitions=500, begun=begun, calls_planned=calls_planned
    )
    text = progress.text(pace=10.0)
    assert text.startswith(said)
    assert ("left" in text) == ("about" in said)


def test_an_entity_that_is_gone_is_counted_and_no_failure(bench: Bench) -> None:
    """A warrior that vanished between listing and asking has landed, as gone; planned, landed, gone and dead add up."""
    bench.client.faults = {"/groups/a": VendorNotFoundError("no such host", status=404)}
    bench.troops(click("r1"))
    outcomes = bench.chain(click("r2"), "1")
    groups, data = outcomes["data_groups", "1"], outcomes["performance_data", "1"]
    assert (groups.state, groups.planned, groups.landed, groups.gone, groups.dead) == ("complete", 2, 2, 1, 0)
    bench.client.faults = {"/data/b": VendorNotFoundError("no such host", status=410)}
    bench.now += timedelta(minutes=1)
    data = bench.chain(click("r3"), "1")["performance_data", "1"]
    assert (data.state, data.planned, data.landed, data.gone, data.dead) == ("complete", 4, 4, 1, 0)
    assert data.rows == 3 * 24


@pytest.mark.long
def test_a_response_costs_less_memory_than_its_body(bench: Bench) -> None:
    """Neither bodies nor rows nor the plan are held: four times the responses take little more memory to rebuild."""
    bodies: list[int] = []

    def peak(warriors: int) -> int:
        bench.client.hierarchy["1"] = {f"w{number:05d}": ["cpu", "sql"] for number in range(warriors)}
        run = f"r{warriors}"
        bench.now += timedelta(minutes=1)
        bench.troops(click(run))
        counts = bench.chain(click(run), "1")["performance_data", "1"].counts
        bodies.append(counts.bytes // counts.calls)
        gc.collect()
        tracemalloc.start()
        try:
            again = bench.chain(click(run + "b", rebuild=True), "1", assets=("performance_data",))
            assert again["performance_data", "1"].rows == warriors * 48
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(600), peak(1800)
    assert (large - small) / 1200 < 1_500 < bodies[0]


@pytest.mark.parametrize("path", ["/troops", ""])
def test_a_404_of_a_list_is_a_failure_and_nothing_of_it_is_kept(bench: Bench, path: str) -> None:
    """Behind a wrong base path everything is a 404: the run fails and asks for the address; the next one asks again."""
    bench.client.faults = {path: VendorNotFoundError("no such path", status=404)}
    outcome = bench.troops(click("r1"))
    assert outcome.state == "failed"
    assert "is VENDOR_URL right?" in outcome.message
    bench.client.faults = {}
    assert bench.troops(click("r2", finished="reconcile")).state == "complete"
    # The list, whether the vendor is there at all (the toy asks the same), and the list again.
    assert bench.calls() == 3


def test_gone_is_believed_only_of_a_vendor_that_is_there(bench: Bench) -> None:
    """Where the address broke after the roster was read, no warrior is gone, and all are asked for again."""
    bench.troops(click("r1"))
    bench.chain(click("r2"), "1", assets=("warriors",))
    bench.client.faults = {"": VendorNotFoundError("no such path", status=404)}
    outcomes = bench.chain(click("r3"), "1", assets=("data_groups", "performance_data"))
    assert outcomes["data_groups", "1"].state == "failed"
    assert "is VENDOR_URL right?" in outcomes["data_groups", "1"].message
    bench.client.faults = {}
    groups = bench.chain(click("r4", finished="reconcile"), "1")["data_groups", "1"]
    assert (groups.state, groups.landed, groups.gone) == ("complete", 2, 0)


def test_a_foreign_404_is_no_verdict(bench: Bench) -> None:
    """The error page of a proxy says nothing about a warrior: its leaf is dead for now, and redriven by itself."""
    page = VendorNotFoundError("no such host", status=404, excerpt="<html>")
    bench.client.faults = {"/groups/a": page}
    bench.troops(click("r1"))
    groups = bench.chain(click("r2"), "1")["data_groups", "1"]
    assert (groups.state, groups.landed, groups.gone, groups.dead) == ("partial", 1, 0, 1)
    (letter,) = DeadLetters(bench.store).load("data_groups", DAY, "1").letters
    assert (letter.retryable, letter.status) == (True, 404)


def test_a_later_page_is_no_entity(bench: Bench) -> None:
    """A list whose next page is not found is not over: it is a dead letter, and no roster with half of it."""
    bench.client.page_size = 1
    bench.client.faults = {"/troops/page2": VendorNotFoundError("no such page", status=404)}
    outcome = bench.troops(click("r1"))
    assert (outcome.state, outcome.dead, outcome.gone) == ("failed", 1, 0)
    bench.client.faults = {}
    assert bench.troops(click("r2", finished="reconcile")).rows == len(HIERARCHY)


def test_a_success_that_is_not_all_is_a_dead_letter_for_now(bench: Bench) -> None:
    """An answer with a flag of incompleteness is no answer: it is asked for again by itself, until the flag is gone."""

    class Flagging(ToyVendor):
        flag = "a store was away"

        def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
            parsed = super().parse(asset, planned, response)
            if "a/http" in {leaf.key for leaf in planned.leaves}:
                parsed.incomplete = self.flag
            return parsed

    bench.vendor = vendor = Flagging()
    bench.troops(click("r1"))
    data = bench.chain(click("r2"), "1")["performance_data", "1"]
    assert (data.state, data.planned, data.dead) == ("partial", 4, 1)
    assert "a store was away" in data.message
    vendor.flag = ""
    again = click("r3", finished="reconcile", permanent_too=False)
    assert bench.chain(again, "1")["performance_data", "1"].state == "complete"


def test_records_that_do_not_fit_are_bounded_and_counted(bench: Bench) -> None:
    """However many records of an answer do not fit, few are kept, and the count is exact."""

    class Spoiling(ToyVendor):
        def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
            parsed = super().parse(asset, planned, response)
            for number in range(5000):
                parsed.reject("no", number)
            parsed.rejected += [reject("no", 1)] * 5000
            return parsed

    bench.vendor = Spoiling()
    outcome = bench.troops(click("r1"))
    assert outcome.quarantined == 10_000
    kept = bench.store.get(layout.quarantine_key("troops", DAY)).splitlines()
    assert len(kept) == 100 + 1
    assert "9900 more records" in kept[-1].decode()


def test_a_stop_ends_the_making_of_a_table(bench: Bench) -> None:
    """A run that shall end makes no table to its end; the next one makes it without a call."""
    harvester = bench.harvester()
    bench.client.before = lambda request: harvester.stop.set()
    outcome = next(iter(harvester.troops([DAY], click("r1"))))
    bench.client.before = lambda request: None
    assert outcome.state == "stopped"
    calls = bench.calls()
    assert bench.troops(click("r2")).state == "complete"
    assert bench.calls() == calls


def test_a_list_that_an_older_version_took_for_gone_is_asked_for_again(bench: Bench) -> None:
    """What landed as gone under a wrong address is no answer: once the address is right, a harvest has the roster."""

    class Believing(ToyVendor):
        def says_gone(self, request: Request, body: str) -> bool:
            return True

        def probe(self) -> Request:
            return Request("/groups/a")

    right, bench.vendor = bench.vendor, Believing()
    bench.client.faults = {"/troops": VendorNotFoundError("no such path", status=404)}
    assert bench.troops(click("r1")).rows == 0
    assert DeadLetters(bench.store).load("troops", DAY, None).letters == ()
    bench.client.faults, bench.vendor = {}, right
    bench.now = datetime.now(UTC)
    outcome = bench.troops(click("r2", finished="reconcile"))
    assert (outcome.state, outcome.rows) == ("complete", len(HIERARCHY))


def test_a_listed_data_group_without_a_row_is_told(bench: Bench) -> None:
    """What was listed, asked for and has not one row on the day is counted, where nothing else explains it."""

    class Silent(ToyVendor):
        silent = "sql"

        def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
            parsed = super().parse(asset, planned, response)
            if "timeslice_start" in parsed.columns:
                kept = [at for at, name in enumerate(parsed.columns["data_group"]) if name != self.silent]
                parsed.columns = {name: [held[at] for at in kept] for name, held in parsed.columns.items()}
            return parsed

    bench.vendor = vendor = Silent()
    bench.troops(click("r1"))
    assert bench.chain(click("r2"), "1")["performance_data", "1"].details["data_groups_without_rows"] == 1
    vendor.silent = ""
    again = bench.chain(click("r3", rebuild=True), "1", assets=("performance_data",))
    assert "data_groups_without_rows" not in again["performance_data", "1"].details


def test_a_table_is_the_same_however_its_rows_were_sorted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, or in files and merged: the same rows in the same order, and nothing has changed."""
    bench.troops(click("r1"))
    bench.chain(click("r2"), "1")
    key = layout.table_key("performance_data", DAY, "1")
    in_memory = read_table(bench.store, key)
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 1)
    monkeypatch.setattr(sorting, "_PIECE_ROWS", 2)
    outcome = bench.chain(click("r3", rebuild=True), "1", assets=("performance_data",))[
        "performance_data", "1"
    ]
    assert len(in_memory)
    assert read_table(bench.store, key).equals(in_memory, check_metadata=True)
    assert [outcome.details[name] for name in ("rows_added", "rows_altered", "rows_removed")] == [0, 0, 0]
