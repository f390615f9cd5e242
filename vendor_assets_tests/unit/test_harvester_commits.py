"""What a harvest may commit, and in which order it works: the rules whose breach no table shows at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pytest

from vendor_assets.days import day_window
from vendor_assets.errors import PartitionHeldError, VendorRejectedError
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.harvests import list_harvests
from vendor_assets.harvest.ownership import acquire
from vendor_assets.harvest.tabulate import Quarantine
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectWriter
from vendor_assets.storage.parquet import read_metadata, read_table
from vendor_assets.vendors.base import Request
from vendor_assets_tests.support.toy import DAY, Alive, Bench, ToyClient, click, noon

DATA = layout.table_key("performance_data", DAY, "1")


def test_a_complete_table_outlives_a_partial_replacement(bench: Bench) -> None:
    """A replacement with a dead letter leaves the complete table that was there as it was, to the byte."""
    bench.troops(click("r1"))
    bench.chain(click("r2"), "1")
    before = bench.store.get(DATA)
    bench.client.factor = 2.0
    bench.client.faults["/data/b"] = VendorRejectedError("no", status=400)
    outcome = bench.chain(click("r3"), "1", assets=("performance_data",))["performance_data", "1"]
    assert (outcome.mode, outcome.state) == ("replace", "partial")
    assert bench.store.get(DATA) == before
    bench.client.faults.clear()
    redriven = bench.chain(click("r4"), "1", assets=("performance_data",))["performance_data", "1"]
    assert (redriven.mode, redriven.state) == ("redrive", "complete")
    assert bench.store.get(DATA) != before


def test_a_partial_table_gives_way_to_a_better_one(bench: Bench) -> None:
    """Only a complete table is kept: a partial one is replaced by what a later harvest has."""
    bench.troops(click("r1"))
    bench.client.faults["/data/a"] = VendorRejectedError("no", status=400)
    bench.chain(click("r2"), "1")
    assert read_table(bench.store, DATA).num_rows == 24
    bench.client.faults.clear()

    def refuse_sql(request: Request) -> None:
        if "sql" in dict(request.params).get("names", ""):
            raise VendorRejectedError("no", status=400)

    bench.client.before = refuse_sql
    outcome = bench.chain(click("r3"), "1", assets=("performance_data",))["performance_data", "1"]
    assert (outcome.mode, outcome.state) == ("redrive", "partial")
    assert read_table(bench.store, DATA).num_rows == 3 * 24
    assert read_metadata(bench.store, DATA)[0]["state"] == "partial"


def _letter(request: str) -> DeadLetter:
    return DeadLetter(
        (request,), request, "no", retryable=False, status=400, attempts=1, first_at=noon(), last_at=noon()
    )


def test_dead_letters_are_changed_only_as_they_were_read(tmp_path: Path) -> None:
    """What another writer adds between the reading and the writing is kept, whoever of the two was first."""
    letters = DeadLetters(FolderStore(tmp_path))
    partition = DeadPartition("performance_data", DAY, "1", ())

    def add(name: str) -> Any:
        return lambda current: DeadPartition(
            current.asset, current.day, current.troop_key, (*current.letters, _letter(name))
        )

    for mine, other in (("first", "second"), ("third", "fourth")):
        meanwhile = [other]

        def after(
            current: DeadPartition, mine: str = mine, meanwhile: list[str] = meanwhile
        ) -> DeadPartition:
            if meanwhile:
                letters.change(partition, add(meanwhile.pop()))
            changed: DeadPartition = add(mine)(current)
            return changed

        letters.change(partition, after)
    found = [letter.request for letter in letters.load("performance_data", DAY, "1").letters]
    assert sorted(found) == ["first", "fourth", "second", "third"]

    # Also where all known ones go: a deletion would take along what was added.
    meanwhile = ["fifth"]

    def forget(current: DeadPartition) -> DeadPartition:
        return replace(
            current, letters=tuple(letter for letter in current.letters if letter.request not in found)
        )

    def add_one() -> None:
        if meanwhile:
            letters.change(partition, add(meanwhile.pop()))

    letters.change(partition, forget, confirm=add_one)
    assert [each.request for each in letters.load("performance_data", DAY, "1").letters] == ["fifth"]
    letters.change(partition, lambda current: replace(current, letters=()))
    assert not letters.load("performance_data", DAY, "1").letters


def test_a_late_run_leaves_the_quarantine_of_its_successor(tmp_path: Path) -> None:
    """Whoever has none, and has been superseded after it looked, removes nothing."""
    store = FolderStore(tmp_path)
    store.put("quarantine/x", b"older")

    def superseded() -> None:
        store.put("quarantine/x", b"its successor's")
        confirm.side_effect = PartitionHeldError("superseded")

    confirm = Mock(side_effect=superseded)
    with closing(Quarantine()) as quarantine, pytest.raises(PartitionHeldError):
        quarantine.publish(store, "quarantine/x", confirm)
    assert store.get("quarantine/x") == b"its successor's"


class Overtaken(FolderStore):
    """A store in which another run takes a partition over as soon as its table is written."""

    holder = layout.holder_key(layout.harvest_prefix("performance_data", DAY, "1"))
    armed = False

    def writer(self, key: str, **conditions: Any) -> AbstractContextManager[ObjectWriter]:
        return self._overtaken(key, super().writer(key, **conditions))

    @contextmanager
    def _overtaken(self, key: str, writer: AbstractContextManager[ObjectWriter]) -> Iterator[ObjectWriter]:
        with writer as sink:
            yield sink
        if self.armed and key == DATA:
            self.armed = False
            epoch = json.loads(self.get(self.holder))["epoch"] + 1
            self.put(self.holder, json.dumps({"epoch": epoch, "holder": "other", "released": False}).encode())


def test_no_finish_marker_without_the_epoch(bench: Bench) -> None:
    """A run that was superseded after it wrote its table does not mark the harvest as finished."""
    bench.store = store = Overtaken(bench.folder)
    bench.troops(click("r1"))
    bench.chain(click("r2"), "1", assets=("warriors", "data_groups"))
    store.armed = True
    outcome = bench.chain(click("r3"), "1", assets=("performance_data",))["performance_data", "1"]
    assert outcome.state == "held"
    assert not store.armed
    harvests = list_harvests(store, "performance_data", DAY, "1")
    assert [harvest.finish_etag for harvest in harvests] == [None]


def test_a_record_that_is_deleted_is_no_other_run(tmp_path: Path) -> None:
    """Where a bucket's rule expires a holder's record, its run commits nothing, and does not speak of another."""
    store = FolderStore(tmp_path)
    ownership = acquire(store, layout.harvest_prefix("warriors", DAY, "1"), "r1", Alive())
    store.delete(ownership.key)
    with pytest.raises(PartitionHeldError, match="was deleted while run r1 was at work") as told:
        ownership.confirm()
    assert "other run" not in str(told.value)


class EdgeClient(ToyClient):
    """Answers with a timeslice before the day, one that ends it, and one that begins the next, beside the day's own."""

    def _answer(self, request: Request) -> dict[str, Any]:
        document = super()._answer(request)
        if request.path.startswith("/data"):
            window = day_window(DAY, ZoneInfo("UTC"))
            sample = document["rows"][0]
            for start in (window.start - timedelta(seconds=1), window.end, window.end + timedelta(hours=1)):
                times = {
                    "timeslice_start": start.isoformat(),
                    "timeslice_end": (start + timedelta(hours=1)).isoformat(),
                }
                document["rows"].append(sample | times)
        return document


def test_a_table_ends_where_its_day_ends(bench: Bench) -> None:
    """A timeslice belongs to the day in which it starts: the one at midnight is the next day's."""
    bench.client = EdgeClient(bench.client.hierarchy, lambda: bench.now)
    bench.troops(click("r1"))
    bench.chain(click("r2"), "2")
    starts = read_table(bench.store, layout.table_key("performance_data", DAY, "2")).column("timeslice_start")
    found = sorted(set(starts.to_pylist()))
    assert found[0] == datetime(2026, 11, 20, tzinfo=UTC)
    assert found[-1] == datetime(2026, 11, 20, 23, tzinfo=UTC)
    assert len(starts) == 2 * 24


def test_the_smallest_harvest_goes_first(bench: Bench) -> None:
    """A free thread takes its next request from the open harvest that has the fewest left."""
    groups = [f"g{number:02d}" for number in range(12)]
    bench.client.hierarchy = {"6": {"large": groups}, "3": {"middle": groups[:6]}, "1": {"small": groups[:2]}}
    bench.troops(click("r1"))
    bench.chain(click("r2"), "6", "3", "1", assets=("warriors", "data_groups"))
    harvester = bench.harvester(threads=1)
    asked: list[str] = []

    def before(request: Request) -> None:
        while not asked and len(harvester._fetcher._open) < 3:
            threading.Event().wait(0.001)
        asked.append(request.path.removeprefix("/data/"))

    bench.client.before = before
    list(harvester.chain(("performance_data",), [(DAY, troop) for troop in "631"], click("r3")))
    left = {"large": 6, "middle": 3, "small": 1}
    expected = []
    for name in asked:
        # Which of them is opened first is left to chance; from then on all three are open.
        expected.append(min(left, key=left.__getitem__) if expected else name)
        left[expected[-1]] -= 1
        left = {each: count for each, count in left.items() if count}
    assert asked == expected
    assert not left
