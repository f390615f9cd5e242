"""Every sensor and schedule is evaluated on SQLite and on PostgreSQL, with runs of each job that failed."""

from __future__ import annotations

import signal
import sqlite3
import threading
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest
from dagster import AssetPartitionStatus
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    StepMaterializationData,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from vendor_assets.orchestration import dagster_private
from vendor_assets.orchestration.automation.run_requests import day_is_decided
from vendor_assets.orchestration.dagster_private import (
    keep_connections,
    materialized_partitions,
    report_planned,
    run_events,
    stored_together,
)
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key
from vendor_assets.orchestration.runs.about import (
    HARVEST_JOB,
    PUBLISH_JOB,
    RETENTION_JOB,
    ROSTER_JOB,
    SIGHTINGS_JOB,
)
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday

DAY = yesterday().isoformat()


@pytest.fixture
def deployment(
    stored_instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    """A deployment whose vendor is not asked."""
    monkeypatch.setenv("VENDOR_API_KEY", "k")
    settings = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k", "VENDOR_RATE": "9/s"}
    return deploy(tmp_path, stored_instance, **settings)


def fail(instance: dg.DagsterInstance, job: str, *assets: str, **tags: str) -> None:
    """A run of a job that failed before any of its steps, and is not retried."""
    config = harvest_config(Names(), [f"{DAY}|1"], ["warriors"]) if job == HARVEST_JOB else {}
    chosen = frozenset(map(dg.AssetKey, assets)) or None
    run = dg.DagsterRun(
        job, run_config=config, asset_selection=chosen, tags=tags | {"dagster/max_retries": "0"}
    )
    instance.add_run(run._replace(status=dg.DagsterRunStatus.STARTED))
    instance.report_run_failed(run)


def test_every_sensor_and_schedule_is_evaluated(deployment: Deployment) -> None:
    """None asks for what one of the storages refuses: with nothing there, with failed runs, and with new partitions."""
    repository = deployment.definitions.get_repository_def()
    cursors: dict[str, str | None] = {sensor.name: None for sensor in repository.sensor_defs}
    assert len(cursors) >= 10

    def tick() -> dict[str, object]:
        results = {}
        for name, cursor in list(cursors.items()):
            results[name], cursors[name] = deployment.sensor(name, cursor)
        return results

    tick()
    deployment.instance.add_dynamic_partitions("troop", ["1"])
    for asset, partition in (("troops", DAY), ("warriors", f"{DAY}|1"), ("daily_performance", DAY)):
        deployment.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
    for job in (ROSTER_JOB, SIGHTINGS_JOB, RETENTION_JOB, HARVEST_JOB, PUBLISH_JOB):
        fail(
            deployment.instance, job, **{"dagster/partition": DAY} if job in (ROSTER_JOB, PUBLISH_JOB) else {}
        )
    fail(deployment.instance, "__ASSET_JOB", "warriors", **{"dagster/partition": f"{DAY}|1"})
    told = str(tick()["alert_sensor"])
    for concerned in (SIGHTINGS_JOB, RETENTION_JOB, "warriors", "daily_performance"):
        assert concerned in told
    tick()
    for schedule in repository.schedule_defs:
        wanted = {key: deployment.resources[key] for key in schedule.required_resource_keys}
        with dg.build_schedule_context(
            instance=deployment.instance,
            scheduled_execution_time=datetime.now(UTC),
            resources=wanted,
            repository_def=repository,
        ) as context:
            schedule.evaluate_tick(context)


def test_kept_connections_are_few(
    stored_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command stores many events through few connections of PostgreSQL's, and they are all there."""
    opened: list[None] = []
    connect = psycopg2.connect
    monkeypatch.setattr(psycopg2, "connect", lambda *a, **k: opened.append(None) or connect(*a, **k))
    keep_connections(stored_instance)
    before = len(opened)
    for number in range(20):
        event = dg.AssetMaterialization("a", partition=str(number))
        stored_instance.report_runless_asset_event(event)
    assert len(opened) - before < 20
    made = materialized_partitions(stored_instance, dg.AssetKey("a"))
    assert made == set(map(str, range(20)))


@pytest.mark.parametrize("together", [False, True])
def test_a_command_stores_events_as_dagster_does(tmp_path: Path, together: bool) -> None:
    """In SQLite's files each row of each table is the same, for events of every kind and for planned checks."""
    key, run = dg.AssetKey("a"), str(uuid4())
    kinds = dg.DagsterEventType

    def checked(name: str, partition: str | None, *, passed: bool = True) -> dg.DagsterEvent:
        told = dg.AssetCheckEvaluation(
            asset_key=key, check_name=name, passed=passed, partition=partition, metadata={"rows": 2}
        )
        return dg.DagsterEvent(kinds.ASSET_CHECK_EVALUATION.value, "j", event_specific_data=told)

    def made(partition: str | None) -> dg.DagsterEvent:
        told = StepMaterializationData(
            dg.AssetMaterialization(key, partition=partition, tags={"dagster/partition/day": DAY})
        )
        return dg.DagsterEvent(kinds.ASSET_MATERIALIZATION.value, "j", event_specific_data=told)

    days = dg.StaticPartitionsDefinition([DAY]).subset_with_partition_keys([DAY])
    planned = [
        AssetCheckEvaluationPlanned(asset_key=key, check_name="planned", partitions_subset=subset)
        for subset in (days, None)
    ]
    seen = AssetObservationData(dg.AssetObservation("b", partition=DAY))
    events = [
        dg.DagsterEvent(
            kinds.ASSET_MATERIALIZATION_PLANNED.value,
            "j",
            event_specific_data=AssetMaterializationPlannedData(key, partition=DAY),
        ),
        *(
            dg.DagsterEvent(kinds.ASSET_CHECK_EVALUATION_PLANNED.value, "j", event_specific_data=told)
            for told in planned
        ),
        *(made(partition) for partition in (day_troop_key(yesterday(), "1"), DAY, None)),
        dg.DagsterEvent(kinds.ASSET_OBSERVATION.value, "j", event_specific_data=seen),
        *(checked(name, DAY, passed=name == "planned") for name in ("planned", "other")),
        *(checked(name, None) for name in ("planned", "other")),
        dg.DagsterEvent(kinds.RUN_SUCCESS.value, "j"),
    ]
    stored = []
    for home in (tmp_path / "dagster", tmp_path / "ours"):
        home.mkdir()
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            if home.name == "ours":
                keep_connections(instance)
            instance.add_run(dg.DagsterRun("j", run_id=run, status=dg.DagsterRunStatus.STARTED))
            for run_id, of_run in ((run, events), ("", events[3:7])):
                with stored_together(instance) if together else nullcontext():
                    for number, event in enumerate(of_run):
                        entry = dg.EventLogEntry(None, 20, "", run_id, float(number), dagster_event=event)
                        instance.event_log_storage.store_event(entry)
        found = {}
        for file in sorted(home.glob("history/runs/*.db")):
            with closing(sqlite3.connect(file)) as connection:
                # What says when it was written.
                connection.execute("DROP TABLE secondary_indexes")
                for table in ("asset_check_executions", "asset_keys"):
                    connection.execute(f"UPDATE {table} SET create_timestamp = 0")
                found[file.name] = sorted(connection.iterdump())
        stored.append(found)
    dagster, ours = stored
    assert sum(map(len, dagster.values())) > 40
    assert ours == dagster


def test_events_of_a_partition_come_together_or_not_at_all(stored_instance: dg.DagsterInstance) -> None:
    """Nobody sees a materialization without its checks, and an error in between loses none that was told before."""
    instance, run = stored_instance, str(uuid4())
    instance.add_run(dg.DagsterRun("j", run_id=run, status=dg.DagsterRunStatus.STARTED))
    keep_connections(instance)

    def tell(partition: str) -> None:
        made = StepMaterializationData(dg.AssetMaterialization("a", partition=partition))
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
        instance.report_dagster_event(dg.DagsterEvent(kind, "j", event_specific_data=made), run)

    with pytest.raises(ValueError, match="between"), stored_together(instance):
        tell("1")
        tell("2")
        seen = materialized_partitions(instance, dg.AssetKey("a"))
        # Whoever else tells something in the meantime does not wait.
        other = threading.Thread(target=tell, args=("3",))
        other.start()
        other.join()
        alone = materialized_partitions(instance, dg.AssetKey("a")) - seen
        raise ValueError("between")
    in_sqlite = isinstance(instance.event_log_storage, SqliteEventLogStorage)
    assert (seen, alone) == (set() if in_sqlite else {"1", "2"}, {"3"})
    assert materialized_partitions(instance, dg.AssetKey("a")) == {"1", "2", "3"}


def test_who_is_asked_to_end_stores_what_was_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the events of a partition are stored: all of them are there, in the run's log and the asset's."""
    run, event = str(uuid4()), dg.DagsterEventType.ASSET_MATERIALIZATION
    made = StepMaterializationData(dg.AssetMaterialization("a", partition="1"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_run(dg.DagsterRun("j", run_id=run, status=dg.DagsterRunStatus.STARTED))
        keep_connections(instance)
        rows = dagster_private._rows

        def interrupted(*told: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return rows(*told)

        monkeypatch.setattr(dagster_private, "_rows", interrupted)
        with pytest.raises(DagsterExecutionInterruptedError), stored_together(instance):
            instance.report_dagster_event(dg.DagsterEvent(event.value, "j", event_specific_data=made), run)
        assert materialized_partitions(instance, dg.AssetKey("a")) == {"1"}
        assert len(run_events(instance, run, {event})) == 1


def test_a_job_without_partitions_is_well_again_once_it_succeeds(deployment: Deployment) -> None:
    """On either storage, and by its own success alone, not by that of another job."""
    instance = deployment.instance
    _, cursor = deployment.sensor("alert_sensor")
    fail(instance, SIGHTINGS_JOB)
    told, cursor = deployment.sensor("alert_sensor", cursor)
    assert SIGHTINGS_JOB in str(told)

    def succeed(job: str) -> str:
        run = dg.DagsterRun(job)
        instance.add_run(run._replace(status=dg.DagsterRunStatus.STARTED))
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job)
        instance.report_dagster_event(event, run.run_id)
        return str(deployment.sensor("alert_sensor", cursor)[0])

    assert "over after" not in succeed(RETENTION_JOB)
    assert "over after" in succeed(SIGHTINGS_JOB)


@pytest.mark.parametrize("materialized", [False, True])
@pytest.mark.parametrize("status", ["FAILURE", "CANCELED", "SUCCESS", "STARTED"])
def test_a_day_is_decided_as_the_status_of_its_partitions_says(
    deployment: Deployment, status: str, materialized: bool
) -> None:
    """With an attempt of each end, after a materialization or without: as Dagster's own, slow status."""
    instance, account = deployment.instance, deployment.account
    partitions, asset = Partitions.of(account), dg.AssetKey("performance_data")
    key = str(day_troop_key(yesterday(), "1"))
    instance.add_dynamic_partitions("troop", ["1"])
    if materialized:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))
    run = dg.DagsterRun(HARVEST_JOB)
    instance.add_run(run._replace(status=dg.DagsterRunStatus(status)))
    planned = dg.DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        HARVEST_JOB,
        event_specific_data=AssetMaterializationPlannedData(asset, partition=key),
    )
    instance.report_dagster_event(planned, run.run_id)
    shown = instance.get_status_by_partition(asset, [key], partitions.day_troop)
    assert shown is not None
    wanted = shown[key] in (AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED)
    assert day_is_decided(instance, account, DAY, ["1"]) == wanted


def test_what_is_planned_at_once_is_stored_as_dagster_stores_each(
    stored_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than one statement takes: the run's log, each partition's newest run, and the asset's own."""
    monkeypatch.setattr(dagster_private, "_AT_ONCE", 4)
    planned = [
        (dg.AssetKey(asset), f"{DAY}|{troop}") for troop in range(5) for asset in ("warriors", "data_groups")
    ]
    runs = [dg.DagsterRun(HARVEST_JOB, status=dg.DagsterRunStatus.STARTED) for _ in range(2)]
    seen = []
    for run in runs:
        stored_instance.add_run(run)
        if run is runs[0]:
            report_planned(stored_instance, run, planned)
        else:
            for asset, partition in planned:
                event = dg.DagsterEvent(
                    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
                    HARVEST_JOB,
                    message=f"{asset.to_user_string()} {partition} is planned",
                    event_specific_data=AssetMaterializationPlannedData(asset, partition=partition),
                )
                stored_instance.report_dagster_event(event, run.run_id)
        log = run_events(stored_instance, run.run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED})
        found: dict[str, object] = {"log": log}
        for asset in ("warriors", "data_groups"):
            key = dg.AssetKey(asset)
            storage = stored_instance.event_log_storage
            last = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
            found[asset] = {partition: run_id == run.run_id for partition, (run_id, _) in last.items()}
            (record,) = stored_instance.get_asset_records([key])
            found[f"{asset} itself"] = record.asset_entry.last_run_id == run.run_id
        seen.append(found)
    assert len(seen[0]["log"]) == len(planned)  # type: ignore[arg-type]
    assert set(seen[0]["warriors"].values()) == {True}  # type: ignore[attr-defined]
    assert seen[0] == seen[1]
