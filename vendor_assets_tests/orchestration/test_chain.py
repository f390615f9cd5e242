"""The chain through Dagster: a click, what follows by itself, and what shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.harvest import sizing
from vendor_assets.harvest.costs import Costs, DayPlan
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key
from vendor_assets.orchestration.runs.launching import Launcher
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import read_table
from vendor_assets.work_class import SCHEDULED
from vendor_assets_tests.support.deployment import Deployment, yesterday
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, key_of, true_rows

DAY = yesterday()


def statuses(deployment: Deployment, asset: str) -> dict[str, AssetPartitionStatus | None]:
    keys = [day_troop_key(DAY, troop) for troop in deployment.instance.get_dynamic_partitions("troop")]
    found = deployment.instance.get_status_by_partition(
        dg.AssetKey(asset), keys, Partitions.of(deployment.account).day_troop
    )
    return {key.split("|")[1]: (found or {}).get(key) for key in keys}


def follow_roster(deployment: Deployment) -> list[dg.ExecuteInProcessResult]:
    result, _ = deployment.sensor("roster_sensor")
    assert isinstance(result, dg.SensorResult)
    return [deployment.run(request) for request in result.run_requests or ()]


def test_one_click_on_troops_brings_the_whole_day(deployment: Deployment, vendor: RunningSimulator) -> None:
    """A materialized roster leads to complete partitions of all its troops, statistics and a report."""
    assert deployment.materialize("troops", partition=DAY.isoformat()).success
    assert [run.success for run in follow_roster(deployment)] == [True]
    troops = vendor.world.troops_on(DAY, "UTC")
    for asset in CHAIN:
        assert set(statuses(deployment, asset).values()) == {AssetPartitionStatus.MATERIALIZED}
    assert set(deployment.instance.get_dynamic_partitions("troop")) == {key_of(troop) for troop in troops}
    result, _ = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert request.partition_key == DAY.isoformat()
    assert deployment.run(request).success
    assert read_table(deployment.store, layout.table_key("daily_performance", DAY)).num_rows > 0
    assert deployment.store.head(layout.report_key(DAY, "html")) is not None
    assert vendor.log()["repeated_leaves"]["total"] == 0


def scheduled(deployment: Deployment) -> dg.RunRequest:
    """What the schedule requests for the day."""
    schedule = deployment.definitions.resolve_schedule_def("daily_harvest")
    at = datetime.combine(DAY + timedelta(days=1), time(6), UTC)
    with (
        TemporaryDirectory() as folder,
        dg.DagsterInstance.local_temp(folder) as instance,
        dg.build_schedule_context(instance, scheduled_execution_time=at) as context,
    ):
        request = schedule(context)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == DAY.isoformat()
    return dg.RunRequest(
        job_name=schedule.job_name, partition_key=request.partition_key, tags=dict(request.tags)
    )


def test_a_scheduled_day_takes_one_run(deployment: Deployment, vendor: RunningSimulator) -> None:
    """The run that lists the troops goes on with their harvest; again, it asks only for the list."""
    request = scheduled(deployment)
    assert deployment.run(request).success
    for asset in CHAIN:
        assert set(statuses(deployment, asset).values()) == {AssetPartitionStatus.MATERIALIZED}
    assert follow_roster(deployment) == []
    downstream, _ = deployment.sensor("downstream_sensor")
    assert isinstance(downstream, dg.SensorResult)
    assert not downstream.run_requests
    published, _ = deployment.sensor("publish_sensor")
    assert isinstance(published, dg.SensorResult)
    assert len(published.run_requests or ()) == 1
    assert harvested_rows(deployment.store, DAY) == true_rows(vendor.world, DAY)
    before = vendor.log()["requests"]
    assert deployment.run(request).success
    assert vendor.log()["requests"] == before + 1


def test_what_one_run_does_not_take_is_requested_while_it_goes_on(
    deployment: Deployment, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have runs of their own as soon as the roster is there, and nobody does another's work."""
    monkeypatch.setattr(sizing, "RUN_PARTITIONS", 2)
    requests: list[dg.RunRequest] = []
    chain = Harvester.chain

    def watched(harvester: Harvester, *args: Any) -> Any:
        monkeypatch.setattr(Harvester, "chain", chain)
        result, _ = deployment.sensor("roster_sensor")
        assert isinstance(result, dg.SensorResult)
        requests.extend(result.run_requests or ())
        return chain(harvester, *args)

    monkeypatch.setattr(Harvester, "chain", watched)
    assert deployment.run(scheduled(deployment)).success
    troops = {key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC")}
    first = {troop for troop, state in statuses(deployment, "performance_data").items() if state is not None}
    assert len(first) == 2
    assert len(requests) == -(-(len(troops) - 2) // 2)
    assert all(deployment.run(request).success for request in requests)
    assert set(statuses(deployment, "performance_data").values()) == {AssetPartitionStatus.MATERIALIZED}
    assert harvested_rows(deployment.store, DAY) == true_rows(vendor.world, DAY)
    assert vendor.log()["repeated_leaves"]["total"] == 0


@pytest.mark.parametrize("partitions", [2, sizing.RUN_PARTITIONS])
def test_the_command_estimates_nothing_of_a_day_that_one_run_took(
    deployment: Deployment, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """Once the data are there an estimate reads some objects of each troop: only where further runs are to be cut."""
    monkeypatch.setattr(sizing, "RUN_PARTITIONS", partitions)
    late: list[date] = []
    estimate = Costs.day

    def watched(costs: Costs, day: date, only: Sequence[str] = ()) -> DayPlan:
        if deployment.store.folders(layout.table_prefix("performance_data")):
            late.append(day)
        return estimate(costs, day, only)

    monkeypatch.setattr(Costs, "day", watched)
    launcher = Launcher(deployment.account, deployment.instance, lambda _: None, lambda: False)
    launcher.harvest_day(DAY, troops=(), replace=False, work_class=SCHEDULED, report=False)
    assert late == ([DAY] if partitions == 2 else [])
    assert harvested_rows(deployment.store, DAY) == true_rows(vendor.world, DAY)


def test_a_scheduled_run_that_fails_fails_no_roster(deployment: Deployment, vendor: RunningSimulator) -> None:
    """One troop is red, the list of all and the other troops are green, and the day is published without it."""
    bad = min(vendor.world.troops_on(DAY, "UTC"), key=lambda troop: troop.id)
    vendor.faults([{"kind": "status", "status": 400, "match": f"/applications/{bad.id}/hosts/.*data.json"}])
    assert not deployment.run(scheduled(deployment)).success
    day = Partitions.of(deployment.account).day
    rosters = deployment.instance.get_status_by_partition(dg.AssetKey("troops"), [DAY.isoformat()], day)
    assert rosters == {DAY.isoformat(): AssetPartitionStatus.MATERIALIZED}
    found = statuses(deployment, "performance_data")
    assert found.pop(key_of(bad)) == AssetPartitionStatus.FAILED
    assert set(found.values()) == {AssetPartitionStatus.MATERIALIZED}
    assert follow_roster(deployment) == []
    published, _ = deployment.sensor("publish_sensor")
    assert isinstance(published, dg.SensorResult)
    assert [request.partition_key for request in published.run_requests or ()] == [DAY.isoformat()]


def test_a_scheduled_roster_counts_where_its_troops_cannot_be_taken(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails just then: the run ends with the roster, and the sensor requests all troops."""

    def fail(*_: object) -> Any:
        raise StorageUnavailableError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(Costs, "day", fail)
        assert deployment.run(scheduled(deployment)).success
    assert [run.success for run in follow_roster(deployment)] == [True]
    assert set(statuses(deployment, "performance_data").values()) == {AssetPartitionStatus.MATERIALIZED}


def test_a_failed_run_says_what_failed_and_nothing_of_dagster(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """Its failure is our sentence, a row for each partition that is not complete, and no stack trace."""
    deployment.materialize("troops", partition=DAY.isoformat())
    bad = min(vendor.world.troops_on(DAY, "UTC"), key=lambda troop: troop.id)
    vendor.faults([{"kind": "status", "status": 400, "match": f"/applications/{bad.id}/hosts/.*data.json"}])
    (run,) = follow_roster(deployment)
    (failure,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    assert failure.error is not None
    assert failure.error.stack == []
    assert failure.error.cause is None
    assert failure.error.message.startswith("1 of ")
    assert failure.user_failure_data is not None
    table = failure.user_failure_data.metadata["not_complete"]
    assert isinstance(table, dg.TableMetadataValue)
    ((row),) = [record.data for record in table.records]
    assert row["partition"] == f"{DAY}|{key_of(bad)}"
    assert (row["asset"], row["state"], row["status"]) == ("performance_data", "failed", 400)
    assert row["why"] == "the vendor rejects the request: Bad Request"


def with_others_behind(deployment: Deployment) -> Deployment:
    """The deployment with assets and a check of somebody else's, without sensors."""
    names, partitions = Names(""), Partitions.of(deployment.account)

    @dg.asset(deps=[names.key("troops")], partitions_def=partitions.day)
    def after_troops() -> None: ...

    @dg.asset(deps=[names.key("performance_data")], partitions_def=partitions.day_troop)
    def after_data() -> None: ...

    @dg.asset_check(asset=names.key("performance_data"))
    def their_check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    theirs = dg.Definitions(assets=[after_troops, after_data], asset_checks=[their_check])
    return replace(deployment, definitions=dg.Definitions.merge(theirs, deployment.definitions))


def test_what_waits_for_an_asset_in_its_run_is_not_skipped(deployment: Deployment) -> None:
    """Others' assets and checks run behind ours, whose partitions have an event with metadata of their own each."""
    others = with_others_behind(deployment)
    before = DAY - timedelta(days=1)
    run = others.materialize("troops", "after_troops", between=(before.isoformat(), DAY.isoformat()))
    assert run.success
    made = {
        (event.asset_key.to_user_string(), event.partition): event.materialization.metadata
        for event in run.get_asset_materialization_events()
        if event.asset_key
    }
    assert len(run.get_asset_materialization_events()) == len(made) == 4
    for day in (before, DAY):
        assert ("after_troops", day.isoformat()) in made
        assert f"day={day}" in str(made["troops", day.isoformat()]["path"].value)
    follow_roster(others)
    key = day_troop_key(DAY, min(deployment.instance.get_dynamic_partitions("troop")))
    run = others.materialize("performance_data", "after_data", partition=key)
    assert [check.check_name for check in run.get_asset_check_evaluations()].count("their_check") == 1
    assert len(run.asset_materializations_for_node("after_data")) == 1


def test_what_waits_for_an_asset_that_fails_does_not_run(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """The run is red, and partitions that are complete are green all the same."""
    others = with_others_behind(deployment)
    others.materialize("troops", partition=DAY.isoformat())
    others.sensor("roster_sensor")
    good, bad, *_ = sorted(key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC"))
    failing = bad.rpartition(".")[2]
    vendor.faults([{"kind": "status", "status": 400, "match": f"/applications/{failing}/hosts/.*data.json"}])
    run = others.materialize(
        *CHAIN, "after_data", between=(day_troop_key(DAY, good), day_troop_key(DAY, bad))
    )
    assert not run.success
    assert not run.asset_materializations_for_node("after_data")
    found = statuses(deployment, "performance_data")
    assert (found[good], found[bad]) == (AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED)


def test_the_log_of_a_click_has_no_warning_of_dagster(deployment: Deployment) -> None:
    """Checks are reported by partition, and nobody reads that they "did not yield"."""
    run = deployment.materialize("troops", partition=DAY.isoformat())
    said = [entry.user_message for entry in deployment.instance.all_logs(run.run_id)]
    assert any("complete" in each for each in said)
    assert not [each for each in said if "expected outputs" in each]


def test_every_harvested_value_is_the_seeded_truth(deployment: Deployment, vendor: RunningSimulator) -> None:
    """The tables hold exactly the rows that the vendor's world holds for the day."""
    deployment.materialize("troops", partition=DAY.isoformat())
    follow_roster(deployment)
    harvested = {
        (
            row["troop_id"],
            row["warrior_id"],
            row["data_group"],
            row["value_name"],
            row["timeslice_start"],
        ): row["value"]
        for troop in deployment.instance.get_dynamic_partitions("troop")
        for row in read_table(deployment.store, layout.table_key("performance_data", DAY, troop)).to_pylist()
    }
    expected = {
        (row.troop_id, row.warrior_id, row.data_group, row.value_name, row.start): row.value
        for row in vendor.world.expected_rows(DAY, 1800)
    }
    assert harvested == expected


def test_a_failing_troop_shows_exactly_that_one_failed(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """In a run over several partitions the others are green with their own metadata."""
    deployment.materialize("troops", partition=DAY.isoformat())
    troops = sorted(vendor.world.troops_on(DAY, "UTC"))
    vendor.faults(
        [{"kind": "status", "status": 400, "match": f"/applications/{troops[0].id}/hosts/.*data.json"}]
    )
    (run,) = follow_roster(deployment)
    assert not run.success
    found = statuses(deployment, "performance_data")
    bad = key_of(troops[0])
    assert found.pop(bad) == AssetPartitionStatus.FAILED
    assert set(found.values()) == {AssetPartitionStatus.MATERIALIZED}
    assert set(statuses(deployment, "data_groups").values()) == {AssetPartitionStatus.MATERIALIZED}
    # A day with a troop that failed for good is published, and says so.
    result, _ = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    published = deployment.run(request)
    (check,) = [
        item for item in published.get_asset_check_evaluations() if item.check_name == "troops_present"
    ]
    assert not check.passed
    # Redriven by a click, the day is published again.
    vendor.clear_faults()
    assert deployment.materialize("performance_data", partition=f"{DAY}|{bad}").success
    result, _ = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    assert [item.partition_key for item in result.run_requests or ()] == [DAY.isoformat()]


def test_warriors_by_hand_bring_their_downstream(deployment: Deployment) -> None:
    """A click on warriors alone is followed by data groups and performance data, once."""
    deployment.materialize("troops", partition=DAY.isoformat())
    follow_roster(deployment)
    _, cursor = deployment.sensor("downstream_sensor")
    troop = deployment.instance.get_dynamic_partitions("troop")[0]
    assert deployment.materialize("warriors", partition=f"{DAY}|{troop}").success
    result, cursor = deployment.sensor("downstream_sensor", cursor)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert deployment.run(request).success
    again, _ = deployment.sensor("downstream_sensor", cursor)
    assert isinstance(again, dg.SensorResult)
    assert not again.run_requests


def test_no_second_run_where_one_did_both(deployment: Deployment) -> None:
    """The roster's runs bring the whole chain: nothing is left for the downstream sensor."""
    deployment.materialize("troops", partition=DAY.isoformat())
    follow_roster(deployment)
    result, _ = deployment.sensor("downstream_sensor")
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests


@pytest.mark.parametrize("asset", ["warriors", "data_groups", "performance_data"])
def test_an_unknown_upstream_fails_clearly(deployment: Deployment, asset: str) -> None:
    """Without its upstream a partition fails in one line that says what to do; it is never green."""
    deployment.instance.add_dynamic_partitions("troop", ["1"])
    run = deployment.materialize(asset, partition=f"{DAY}|1")
    assert not run.success
    assert statuses(deployment, asset) == {"1": AssetPartitionStatus.FAILED}
