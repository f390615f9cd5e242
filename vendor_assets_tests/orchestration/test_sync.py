"""A new or lost Dagster instance learns from the store."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from vendor_assets.account import Account
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.dagster_private import latest_storage_ids, report_at_once
from vendor_assets.orchestration.runs.events import Event, report
from vendor_assets.orchestration.runs.launching import open_instance
from vendor_assets.orchestration.syncing import sync
from vendor_assets.settings import read
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore
from vendor_assets_tests.orchestration.test_chain import DAY, follow_roster
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.deployment import Deployment
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.toy import DAY as TOY_DAY
from vendor_assets_tests.support.toy import Bench, ToyVendor, click
from vendor_assets_tests.support.truth import key_of

SHOWN = (
    "dagster/row_count",
    "leaves_planned",
    "leaves_landed",
    "leaves_gone",
    "dead_letters",
    "table_bytes",
    "troops",
    "troops_missing",
    "troops_partial",
    "path",
    "html",
    "notebook",
    "plot",
)
ALL = ("troops", *CHAIN, "daily_performance", "performance_report")


def shown(instance: dg.DagsterInstance, asset: str) -> dict[str, dict[str, object]]:
    """The numbers of each partition's newest materialization."""
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
    found: dict[str, dict[str, object]] = {}
    for record in records:
        materialization = record.asset_materialization
        if materialization is not None and materialization.partition not in found:
            metadata = materialization.metadata
            found[str(materialization.partition)] = {
                name: metadata[name].value
                for name in SHOWN
                # A picture of each troop would have to be made from its table: it comes with the next harvest.
                if name in metadata and (name, asset) != ("plot", "performance_data")
            }
    return found


def failing(instance: dg.DagsterInstance, asset: str, check: str) -> list[str | None]:
    """Partitions whose newest evaluation of a check failed."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    newest: dict[str | None, bool] = {}
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=1000):
        event = record.event.dagster_event if record.event else None
        if event is not None:
            evaluation = event.asset_check_evaluation_data
            newest.setdefault(evaluation.partition, evaluation.passed)
    return [partition for partition, passed in newest.items() if not passed]


def publish(deployment: Deployment) -> None:
    """Statistics and report of the day."""
    result, _ = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    for request in result.run_requests or ():
        assert deployment.run(request).success


def test_a_new_instance_shows_what_the_old_one_showed(deployment: Deployment) -> None:
    """Partitions, materializations and their numbers come back from the store alone, only once, and quietly."""
    deployment.materialize("troops", partition=DAY.isoformat())
    follow_roster(deployment)
    publish(deployment)
    with dg.DagsterInstance.ephemeral() as new:
        first = sync(deployment.store, new, lambda line: None, deployment.account)
        assert new.get_dynamic_partitions("troop") == deployment.instance.get_dynamic_partitions("troop")
        for asset in ALL:
            assert shown(new, asset)
            assert shown(new, asset) == shown(deployment.instance, asset)
        again = sync(deployment.store, new, lambda line: None, deployment.account)
        assert again.materialized == 0
        assert again.known_already == first.materialized
        # Nobody is to harvest again what only became known again.
        moved = replace(deployment, instance=new)
        for sensor in ("roster_sensor", "downstream_sensor", "publish_sensor"):
            result, _ = moved.sensor(sensor)
            assert not (isinstance(result, dg.SensorResult) and result.run_requests)


def test_the_command_tells_an_empty_instance(deployment: Deployment, tmp_path: Path) -> None:
    """``vendor-assets sync`` in an empty project does it, and says how much; the second time there is nothing."""
    deployment.materialize("troops", partition=DAY.isoformat())
    follow_roster(deployment)
    ours = {"VENDOR_URL": deployment.account.vendor_url, "VENDOR_API_KEY": "any"}
    command = Command(tmp_path / "new", ours | {"VENDOR_ASSETS_STORE": deployment.store.url})
    done, again = command.run("sync"), command.run("sync")
    assert (done.code, again.code) == (0, 0), done.err + again.err
    assert " 0 not complete" in done.out
    assert "\n0 partitions reported" in again.out
    with open_instance(tmp_path / "new", {}) as new:
        for asset in ("troops", *CHAIN):
            assert shown(new, asset) == shown(deployment.instance, asset)


def test_a_partial_partition_is_not_shown_green(deployment: Deployment, vendor: RunningSimulator) -> None:
    """Dead letters survive the loss of the instance: no materialization, failing checks, also of the day."""
    deployment.materialize("troops", partition=DAY.isoformat())
    troop = vendor.world.troops_on(DAY, "UTC")[0]
    vendor.faults([{"kind": "status", "status": 400, "match": "hosts/100000000100000/metrics/data.json"}])
    follow_roster(deployment)
    publish(deployment)
    key = f"{DAY}|{key_of(troop)}"
    with dg.DagsterInstance.ephemeral() as new:
        done = sync(deployment.store, new, lambda line: None, deployment.account)
        assert done.not_complete == 1
        assert failing(new, "performance_data", "complete") == [key]
        assert failing(new, "daily_performance", "troops_present") == [DAY.isoformat()]
        assert shown(new, "daily_performance") == shown(deployment.instance, "daily_performance")
        materialized = new.get_materialized_partitions(dg.AssetKey("performance_data"))
        assert materialized == deployment.instance.get_materialized_partitions(
            dg.AssetKey("performance_data")
        )
        assert key not in materialized
        # Dagster refuses a second evaluation of a partition's check that belongs to no run.
        assert sync(deployment.store, new, lambda line: None, deployment.account).not_complete == 1


@pytest.fixture
def harvested(tmp_path: Path) -> Iterator[ObjectStore]:
    """A store with the roster of one day and the chain of its three troops."""
    with closing(Bench(tmp_path / "store")) as bench:
        bench.troops(click("r1"))
        bench.chain(click("r2"))
        yield bench.store


def account_of(root: Path) -> Account:
    """An account of the toy vendor."""
    return replace(read({}, root=root), vendor=ToyVendor())


def evaluated(instance: dg.DagsterInstance, asset: str) -> list[str]:
    """The partitions of the evaluations of an asset's first check, sorted."""
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(asset), "complete"), limit=100
    )
    told = [record.event.dagster_event for record in history if record.event]
    return sorted(str(event.event_specific_data.partition) for event in told if event)  # type: ignore[union-attr]


def test_whatever_is_synced_takes_no_file_for_each_partition(
    harvested: ObjectStore, stored_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Each partition has its evaluations, on either storage; on SQLite, where a run id is a file, in few files."""
    account = account_of(tmp_path)
    stored_instance.get_runs_count()
    before = len(list(tmp_path.rglob("*.db")))
    synced = sync(harvested, stored_instance, lambda _: None, account)
    assert synced.materialized == 1 + 3 * 3
    assert len(list(tmp_path.rglob("*.db"))) - before <= 3
    for asset in CHAIN:
        assert evaluated(stored_instance, asset) == [f"{TOY_DAY}|{troop}" for troop in "123"]
    again = sync(harvested, stored_instance, lambda _: None, account)
    assert (again.materialized, again.known_already) == (0, 10)


def sync_until_killed(home: Path, store: Path) -> None:
    """Sync in a process that is killed when the events of warriors are written, and their checks are not yet."""

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def kill(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "INTO asset_check_executions" in statement and "warriors" in str(values):
            os.kill(os.getpid(), signal.SIGKILL)

    with open_instance(home, {}) as instance:
        sync(FolderStore(store), instance, lambda _: None, account_of(home))


def test_a_sync_that_was_killed_is_made_up_for(
    harvested: ObjectStore, stored_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """What was stored has all of its checks, on either storage, and the next sync tells the rest, nothing twice."""
    stored_instance.get_runs_count()
    killed = get_context("spawn").Process(target=sync_until_killed, args=(tmp_path / "home", harvested.url))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert stored_instance.get_materialized_partitions(dg.AssetKey("troops")) == {str(TOY_DAY)}
    assert not stored_instance.get_materialized_partitions(dg.AssetKey("warriors"))
    assert evaluated(stored_instance, "troops") == [str(TOY_DAY)]
    assert evaluated(stored_instance, "warriors") == []
    synced = sync(harvested, stored_instance, lambda _: None, account_of(tmp_path))
    assert (synced.materialized, synced.known_already) == (9, 1)
    for asset in CHAIN:
        records = stored_instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
        troops = [f"{TOY_DAY}|{troop}" for troop in "123"]
        assert sorted(str(record.partition_key) for record in records) == troops
        assert evaluated(stored_instance, asset) == troops


def test_events_reported_at_once_are_as_those_reported_one_by_one(
    stored_instance: dg.DagsterInstance,
) -> None:
    """Whatever Dagster is asked then, it tells the same, on either storage."""

    def events(asset: str) -> list[Event]:
        key = dg.AssetKey([asset, "x"])
        return [
            dg.AssetMaterialization(key, partition="1", metadata={"rows": 1}, description="first"),
            dg.AssetCheckEvaluation(
                asset_key=key, check_name="c", passed=True, partition="1", description="good"
            ),
            dg.AssetMaterialization(key, partition="2", metadata={"rows": 2}),
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name="c",
                passed=False,
                partition="2",
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"why": "x"},
            ),
            dg.AssetObservation(key, partition="3", description="seen"),
        ]

    def told(asset: str) -> list[Any]:
        key = dg.AssetKey([asset, "x"])
        (record,) = stored_instance.get_asset_records([key])
        newest = record.asset_entry.last_materialization_record
        assert newest
        ids = latest_storage_ids(stored_instance, key, "123")
        assert newest.storage_id == ids["2"] > ids["1"]
        checks = stored_instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(key, "c"), limit=9
        )
        records = [
            *stored_instance.fetch_materializations(key, limit=9).records,
            *stored_instance.fetch_observations(key, limit=9).records,
        ]
        return [
            newest.event_log_entry.asset_materialization,
            *((each.partition, each.run_id, each.status, each.event) for each in checks),
            *((each.partition_key, each.event_log_entry) for each in records),
        ]

    for event in events("a"):
        report(stored_instance, event, run_id="r")
    report_at_once(stored_instance, events("b"), run_id="r")
    alike = re.compile(r"timestamp=[0-9.]+|datetime\(.*?\)")
    assert alike.sub("", str(told("b")).replace("'b'", "'a'")) == alike.sub("", str(told("a")))


def test_events_reported_at_once_are_there_all_or_not_at_all(stored_instance: dg.DagsterInstance) -> None:
    """If one of them cannot be stored, none is, on either storage."""
    key = dg.AssetKey("a")
    made = dg.AssetMaterialization(key, partition="1")
    check = dg.AssetCheckEvaluation(asset_key=key, check_name="complete", passed=True, partition="1")
    with pytest.raises(sa.exc.IntegrityError):
        report_at_once(stored_instance, [made, check, check], run_id="r")
    assert not stored_instance.get_materialized_partitions(key)
    assert not stored_instance.fetch_materializations(key, limit=1).records
    report_at_once(stored_instance, [made, check], run_id="r")
    assert (stored_instance.get_materialized_partitions(key), evaluated(stored_instance, "a")) == (
        {"1"},
        ["1"],
    )
