"""Every sensor and schedule is evaluated on SQLite and on PostgreSQL, with runs of each job that failed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
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
