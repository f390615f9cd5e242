"""A new or lost Dagster instance learns from the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.dagster_private import events_at_once
from vendor_assets.orchestration.runs.launching import open_instance
from vendor_assets.orchestration.syncing import sync
from vendor_assets.settings import read
from vendor_assets_tests.orchestration.test_chain import DAY, follow_roster
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.deployment import Deployment
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.toy import ToyVendor
from vendor_assets_tests.support.truth import key_of
from vendor_assets_tests.unit.test_harvester import DAY as TOY_DAY
from vendor_assets_tests.unit.test_harvester import Bench, click

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


def test_whatever_is_synced_takes_no_file_for_each_partition(
    stored_instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Each partition has its evaluations, on either storage; on SQLite, where a run id is a file, in few files."""
    bench = Bench(tmp_path / "store")
    bench.troops(click("r1"))
    bench.chain(click("r2"))
    account = replace(read({}, root=tmp_path), vendor=ToyVendor())
    stored_instance.get_runs_count()
    before = len(list(tmp_path.rglob("*.db")))
    synced = sync(bench.store, stored_instance, lambda _: None, account)
    assert synced.materialized == 1 + 3 * 3
    assert len(list(tmp_path.rglob("*.db"))) - before <= 3
    for asset in CHAIN:
        history = stored_instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(asset), "complete"), limit=100
        )
        told = [record.event.dagster_event for record in history if record.event]
        partitions = [event.event_specific_data.partition for event in told if event]  # type: ignore[union-attr]
        assert sorted(map(str, partitions)) == [f"{TOY_DAY}|{troop}" for troop in "123"]
    again = sync(bench.store, stored_instance, lambda _: None, account)
    assert (again.materialized, again.known_already) == (0, 10)
    for harvester in bench.open:
        harvester.close()


def test_events_that_are_stored_at_once_are_there_all_or_not_at_all(tmp_path: Path) -> None:
    """Until the block ends no other process sees one of them, and after an exception nobody does."""
    key = dg.AssetKey("troops")
    with open_instance(tmp_path, {}) as writing, open_instance(tmp_path, {}) as reading:
        with pytest.raises(KeyError), events_at_once(writing):
            writing.report_runless_asset_event(dg.AssetMaterialization(key, partition="a"))
            raise KeyError
        with events_at_once(writing):
            for name in "bc":
                writing.report_runless_asset_event(dg.AssetMaterialization(key, partition=name))
            assert not reading.get_materialized_partitions(key)
        assert reading.get_materialized_partitions(key) == {"b", "c"}
        writing.report_runless_asset_event(dg.AssetMaterialization(key, partition="d"))
        assert reading.get_materialized_partitions(key) == {"b", "c", "d"}
