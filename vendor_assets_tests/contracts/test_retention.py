"""Retention: old answers of complete partitions go, on a folder and on S3; everything else stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from vendor_assets.errors import StoppedError, VendorRejectedError
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN, HarvestOptions, Outcome, recorded
from vendor_assets.harvest.ownership import acquire
from vendor_assets.harvest.retention import Removal, Retention
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets_tests.support.toy import DAY, Alive, ToyClient, noon, toy_harvester, with_plain_keys

DAYS = 30


class Bench:
    """A day of two troops, harvested at noon of the day after."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = with_plain_keys(store)
        self.now = noon()
        self.client = ToyClient({"1": {"a": ["cpu", "sql"]}, "2": {"b": ["cpu"]}}, lambda: self.now)
        self.alive = Alive()
        self.open: list[Harvester] = []

    def harvester(self) -> Harvester:
        options = {"liveness": self.alive, "threads": 2, "now": lambda: self.now}
        self.open.append(toy_harvester(self.store, self.client, **options))
        return self.open[-1]

    def harvest(self, run: str, *troops: str, **changes: Any) -> dict[tuple[str, str], Outcome]:
        order = HarvestOptions(run, run, **changes)
        if not troops:
            assert next(iter(self.harvester().troops([DAY], order))).succeeded
        keys = [(DAY, troop) for troop in troops or ("1", "2")]
        outcomes = self.harvester().chain(CHAIN, keys, order)
        return {(outcome.asset, str(outcome.troop_key)): outcome for outcome in outcomes}

    def remove(self) -> Removal:
        """Remove what is older than thirty days, long after everything landed."""
        self.now = datetime.now(noon().tzinfo) + timedelta(days=400)
        return self.harvester().remove_landed(DAYS, HarvestOptions("retention", "retention"))

    def chunks(self, prefix: str = "raw_data/") -> list[str]:
        return [info.key for info in self.store.list(prefix) if "/chunk-" in info.key]

    def rows(self, troop: str) -> list[dict[str, Any]]:
        table = read_table(self.store, layout.table_key("performance_data", DAY, troop))
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows


@pytest.fixture
def bench(store: ObjectStore) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    for harvester in bench.open:
        harvester.close()


def test_old_answers_go_and_the_rest_stays(bench: Bench) -> None:
    """Chunks of complete partitions go and are counted; tables, plans and finish markers stay as they are."""
    bench.harvest("r1")
    before = {info.key: info for info in bench.store.list("")}
    chunks = bench.chunks()
    removal = bench.remove()
    after = {info.key: info.etag for info in bench.store.list("")}
    assert bench.chunks() == []
    assert removal.numbers() == {
        "removed_partitions": 7,
        "removed_objects": len(chunks),
        "removed_bytes": sum(before[key].size for key in chunks),
        "removed_sightings": 0,
    }
    kept = {
        key: info.etag for key, info in before.items() if key not in chunks and not key.endswith("holder")
    }
    assert kept.items() <= after.items()
    assert bench.remove().numbers()["removed_objects"] == 0


def test_young_answers_stay(bench: Bench) -> None:
    """Nothing goes before its days are over."""
    bench.harvest("r1")
    chunks = bench.chunks()
    bench.now = datetime.now(bench.now.tzinfo) + timedelta(days=DAYS - 1)
    assert bench.harvester().remove_landed(DAYS, HarvestOptions("x", "x")).objects == 0
    assert bench.chunks() == chunks


def test_what_is_not_complete_keeps_its_answers(bench: Bench) -> None:
    """Dead letters, an unfinished harvest, a foreign table, quarantine and a live holder each keep a troop's day."""
    bench.client.faults = {"/data/a": VendorRejectedError("no such metric", status=422)}
    assert bench.harvest("r1")["performance_data", "1"].state == "failed"
    assert bench.remove().kept == {"unfinished": 1}
    assert all("troop=1" in key for key in bench.chunks())
    bench.client.faults = {}
    bench.now = noon()
    bench.harvest("r2", "1")
    table = layout.table_key("performance_data", DAY, "1")
    bench.store.put(table, b"somebody else's")
    assert bench.remove().kept == {"without their table": 1}
    bench.now = noon()
    bench.harvest("r3", "1", rebuild=True)
    bench.alive.names.add("other")
    key = layout.holder_key(layout.harvest_prefix("warriors", DAY, "1"))
    bench.store.put(key, b'{"epoch": 9, "holder": "other", "released": false}')
    assert bench.remove().kept == {"being harvested": 1}
    bench.alive.names.clear()
    assert bench.remove().kept == {}
    assert bench.chunks() == []


def test_provisional_answers_stay(bench: Bench) -> None:
    """A partition whose data may still have changed after they were fetched keeps its answers, however old."""
    bench.now = datetime.fromisoformat("2026-11-21T00:05:00+00:00")
    assert bench.harvest("r1")["performance_data", "1"].details["provisional_answers"] == 1
    assert bench.remove().kept == {"provisional": 2}
    assert {key.split("/")[1] for key in bench.chunks()} == {"warriors", "data_groups", "performance_data"}
    bench.now = noon()
    bench.harvest("r2", finished="reconcile")
    assert bench.remove().kept == {}


def test_sightings_wait_for_their_rosters(bench: Bench) -> None:
    """Until all rosters of a day are complete its sightings are all that knows who vanished."""
    bench.now = noon(DAY.isoformat())
    bench.harvester().sight(HarvestOptions("s", "s"))
    sightings = len(list(bench.store.list(layout.sightings_prefix(DAY))))
    assert sightings
    assert bench.remove().kept == {"sightings of a day without rosters": 1}
    bench.now = noon()
    bench.harvest("r1")
    removal = bench.remove()
    assert (removal.sightings, removal.kept) == (sightings, {})
    assert list(bench.store.list(layout.sightings_prefix(DAY))) == []


def test_a_removed_partition_reports_and_reconciles_without_a_call(bench: Bench) -> None:
    """Its finish marker is enough for a retry, for a sensor's order and for the record of what is there."""
    first = bench.harvest("r1")["performance_data", "1"]
    rows = bench.rows("1")
    bench.remove()
    calls = bench.client.calls.total()
    for run, changes, mode in (("r1", {}, "report"), ("r2", {"finished": "reconcile"}, "reconcile")):
        outcomes = bench.harvest(run, "1", **changes)
        assert {(outcome.mode, outcome.state) for outcome in outcomes.values()} == {(mode, "complete")}
        assert outcomes["performance_data", "1"].rows == first.rows
    assert bench.client.calls.total() == calls
    assert bench.rows("1") == rows
    known = recorded(bench.store, "performance_data", DAY, "1")
    assert known is not None
    assert (known.state, known.rows, known.landed) == ("complete", first.rows, first.landed)


def test_a_removed_partition_cannot_be_rebuilt(bench: Bench) -> None:
    """The message names the setting and the day of the removal, and the table is as it was."""
    bench.harvest("r1")
    rows = bench.rows("1")
    bench.remove()
    outcome = bench.harvest("r2", "1", rebuild=True)["warriors", "1"]
    assert outcome.state == "failed"
    assert f"VENDOR_ASSETS_RETENTION={DAYS}" in outcome.message
    assert bench.now.date().isoformat() in outcome.message
    assert bench.rows("1") == rows


@pytest.mark.parametrize("lost", ["table", "nothing"])
def test_what_removed_answers_cannot_give_is_asked_again(bench: Bench, lost: str) -> None:
    """A lost table, or a new data group to be joined with answers that are gone, costs all calls and loses no row."""
    bench.harvest("r1")
    before = bench.rows("1")
    bench.remove()
    if lost == "table":
        bench.store.delete(layout.table_key("performance_data", DAY, "1"))
    else:
        bench.client.hierarchy["1"]["c"] = ["jvm"]
        bench.store.delete(layout.table_key("warriors", DAY, "1"))
    outcomes = bench.harvest("r2", "1", finished="reconcile")
    assert outcomes["performance_data", "1"].state == "complete"
    added = [] if lost == "table" else [row for row in bench.rows("1") if row["warrior_id"] == "c"]
    assert len(added) == (0 if lost == "table" else 24)
    assert [row for row in bench.rows("1") if row not in added] == before


def test_a_removal_that_was_superseded_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for so long that another run has the partition: what that one builds upon stays."""
    bench.harvest("r1")
    chunks = bench.chunks("raw_data/performance_data/")
    checked = Retention._why_kept

    def check_and_sleep(retention: Retention, asset: Any, day: date, troop: str | None) -> str:
        reason = checked(retention, asset, day, troop)
        key = layout.holder_key(layout.harvest_prefix(asset, day, troop))
        if asset == "performance_data" and not json.loads(bench.store.get(key))["released"]:
            acquire(bench.store, layout.harvest_prefix(asset, day, troop), "another", Alive())
        return reason

    monkeypatch.setattr(Retention, "_why_kept", check_and_sleep)
    assert bench.remove().kept == {"being harvested": 2}
    assert bench.chunks("raw_data/performance_data/") == chunks


def test_what_was_removed_under_an_unfinished_harvest_is_asked_again(bench: Bench) -> None:
    """A harvest of new leaves alone makes no table without those whose answers are gone."""
    bench.harvest("r1")
    before = bench.rows("1")
    bench.client.hierarchy["1"]["c"] = ["jvm"]
    for info in list(bench.store.list(layout.harvest_prefix("warriors", DAY, "1"))):
        bench.store.delete(info.key)
    bench.client.faults["/data/c"] = StoppedError("stopped")
    stopped = bench.harvest("r2", "1", finished="reconcile")["performance_data", "1"]
    assert stopped.state == "stopped"
    bench.client.faults.clear()
    for key in bench.chunks("raw_data/performance_data/day=2026-11-20/troop=1/"):
        bench.store.put(layout.removed_key(key.rpartition("chunk-")[0]), b"{}")
        bench.store.delete(key)
    outcome = bench.harvest("r3", "1", finished="reconcile")["performance_data", "1"]
    assert (outcome.mode, outcome.state) == ("replace", "complete")
    assert [row for row in bench.rows("1") if row["warrior_id"] != "c"] == before


def test_a_removal_that_was_killed_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill left half removed is not taken for all there was, and the next run removes the rest."""
    bench.harvest("r1")
    deleted: list[str] = []

    def once(key: str) -> None:
        if deleted:
            raise KeyboardInterrupt
        deleted.append(key)
        real(key)

    real = bench.store.delete
    monkeypatch.setattr(bench.store, "delete", once)
    with pytest.raises(KeyboardInterrupt):
        bench.remove()
    monkeypatch.undo()
    assert bench.chunks()
    bench.harvest("r2", finished="reconcile")
    assert bench.remove().kept == {}
    assert bench.chunks() == []
    assert bench.harvest("r3", "1", rebuild=True)["warriors", "1"].state == "failed"
