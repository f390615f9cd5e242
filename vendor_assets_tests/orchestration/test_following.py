"""Which runs bring downstream partitions up to date: chosen from the store and the event log, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.account import Account
from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.automation.run_requests import (
    day_is_decided,
    downstream_of,
    look_back_runs,
    publish_run,
    roster_keys,
    roster_runs,
    split_by_day,
)
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import TROOP, day_troop_key
from vendor_assets.orchestration.runs.about import CALLS_TAG, DAY_TAG, TITLE_TAG, TRIGGER_TAG
from vendor_assets.orchestration.runs.events import LOOK_BACK
from vendor_assets.settings import read
from vendor_assets.work_class import CLASS_TAG, PRIORITY_TAG, WorkClass, queue_tags
from vendor_assets_tests.support.toy import DAY, Bench, ToyVendor, click


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A day whose roster is there."""
    with closing(Bench(tmp_path / "store")) as bench:
        bench.troops(click("r1"))
        yield bench


@pytest.fixture
def settings(tmp_path: Path) -> Account:
    environ = {"VENDOR_ASSETS_START": "2026-11-01"}
    return replace(read(environ, root=tmp_path), vendor=ToyVendor(), limits="auto")


def partitions_of(run: dg.RunRequest) -> list[str]:
    found: list[str] = run.run_config["ops"]["harvest_partitions"]["config"]["partitions"]
    return found


def test_a_roster_becomes_runs_for_its_troops(bench: Bench, settings: Account) -> None:
    """Each troop that the filters take is in one run, small ones first, with its day, its title and its calls."""
    keys, runs = roster_runs(bench.store, settings, DAY, run_key="tick", work_class="scheduled")
    assert keys == ["1", "2", "3"]
    assert [partitions_of(run) for run in runs] == [[f"{DAY}|{key}" for key in keys]]
    (run,) = runs
    assert (run.run_key, run.tags[DAY_TAG], run.tags[TRIGGER_TAG]) == ("tick:0", DAY.isoformat(), "sensor")
    # What is scheduled has no tag of its class.
    assert (run.tags.get(CLASS_TAG), run.tags[PRIORITY_TAG]) == (None, "10")
    assert run.tags[TITLE_TAG] == "1 and 2 more"
    # Dagster shows no tag that begins with a full stop, of its own only the partition, and three have room.
    assert len([tag for tag in run.tags if not tag.startswith((".dagster/", "dagster/"))]) <= 3
    # Of no troop anything is known: what it may cost is a guess, by which no progress is measured.
    assert CALLS_TAG not in run.tags
    bench.chain(click("r2"))
    following = DAY + timedelta(days=1)
    bench.now += timedelta(days=2)
    list(bench.harvester().troops([following], click("r3")))
    narrow = replace(settings, filters=Filters.parse({"VENDOR_ASSETS_TROOPS": "!2"}))
    keys, runs = roster_runs(bench.store, narrow, following, run_key="x", work_class="backfill")
    assert keys == ["1", "3"]
    assert [partitions_of(run) for run in runs] == [[f"{following}|3", f"{following}|1"]]
    assert (runs[0].tags[CALLS_TAG], runs[0].tags[PRIORITY_TAG]) == ("7", "0")


def test_runs_of_a_roster_are_cut_by_the_quota(bench: Bench, settings: Account) -> None:
    """A run holds ten minutes of quota: under a small one each troop has its own."""
    slow = read({"VENDOR_RATE": "20/h", "VENDOR_SHARE": "1"}, root=Path(settings.store_url).parent)
    slow = replace(slow, vendor=ToyVendor())
    _, runs = roster_runs(bench.store, slow, DAY, run_key="tick", work_class="scheduled")
    assert [partitions_of(run) for run in runs] == [[f"{DAY}|{key}"] for key in "123"]
    assert [run.run_key for run in runs] == ["tick:0", "tick:1", "tick:2"]


def test_a_day_without_a_roster_has_no_runs(bench: Bench, settings: Account) -> None:
    """What has no roster is refused; what is named and is not on the roster is left out."""
    with pytest.raises(ObjectNotFoundError):
        roster_keys(bench.store, DAY + timedelta(days=1), settings.filters)
    assert roster_keys(bench.store, DAY, settings.filters, ["troop 2", "3", "nobody"]) == ["2", "3"]
    assert roster_runs(bench.store, settings, DAY, run_key="t", work_class="scheduled", only=["nobody"]) == (
        [],
        [],
    )


def test_looking_back_asks_for_what_is_there(bench: Bench, settings: Account) -> None:
    """Only troops that have performance data are fetched anew, as a backfill, and only their performance data."""
    assert look_back_runs(bench.store, settings, [DAY], run_key="k") == []
    bench.chain(click("r2"), "1", "2")
    (run,) = look_back_runs(bench.store, settings, [DAY], run_key="k")
    assert partitions_of(run) == [f"{DAY}|2", f"{DAY}|1"]
    assert run.run_config["ops"]["harvest_partitions"]["config"]["assets"] == ["performance_data"]
    assert (run.tags[CLASS_TAG], run.tags[TRIGGER_TAG]) == ("backfill", LOOK_BACK)
    assert run.tags[CALLS_TAG] == str(1 + 3)


def test_a_day_is_decided_when_each_of_its_troops_is(settings: Account) -> None:
    """Materialized or failed is decided; missing, or a troop without a partition, is not; no troop at all is."""
    asset = dg.AssetKey("performance_data")

    def decided(instance: dg.DagsterInstance, *keys: str) -> bool:
        return day_is_decided(instance, settings, DAY.isoformat(), keys)

    with dg.DagsterInstance.ephemeral() as instance:
        assert decided(instance)
        assert not decided(instance, "1")
        instance.add_dynamic_partitions(TROOP, ["1", "2"])
        assert not decided(instance, "1", "2")
        for key in ("1", "2"):
            assert not decided(instance, "1", "2")
            event = dg.AssetMaterialization(asset, partition=str(day_troop_key(DAY, key)))
            instance.report_runless_asset_event(event)
        assert decided(instance, "1", "2")
        assert not decided(instance, "1", "2", "unknown")


def test_a_publication_names_its_day() -> None:
    """A run that publishes has the day as its partition and in its tags, with the class of the work that led to it."""
    run = publish_run(Names(), "2026-11-20", run_key="p", work_class="backfill")
    assert (run.partition_key, run.tags[DAY_TAG], run.tags[CLASS_TAG]) == (
        "2026-11-20",
        "2026-11-20",
        "backfill",
    )


@pytest.mark.parametrize("work_class", ["scheduled", "backfill"])
def test_a_publication_goes_before_the_harvests_of_its_class(work_class: WorkClass) -> None:
    """Behind hundreds of queued harvests a day that is complete would wait for hours; scheduled work stays first."""
    run = publish_run(Names(), "2026-11-20", run_key="p", work_class=work_class)
    priority = int(run.tags[PRIORITY_TAG])
    assert priority > int(queue_tags(work_class)[PRIORITY_TAG])
    assert work_class == "scheduled" or priority < int(queue_tags("scheduled")[PRIORITY_TAG])


def test_keys_are_told_apart_by_day() -> None:
    """Keys of several days, in any order, are grouped by the day in front of them."""
    keys = [str(day_troop_key(date(2026, 11, day), troop)) for day in (2, 1, 2) for troop in ("a|b", "c")]
    assert {day: len(found) for day, found in split_by_day(keys).items()} == {
        "2026-11-02": 4,
        "2026-11-01": 2,
    }


def test_downstream_is_what_comes_after() -> None:
    """The chain below each of its assets."""
    assert [downstream_of(asset) for asset in CHAIN] == [CHAIN[1:], CHAIN[2:], ()]
