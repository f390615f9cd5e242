"""Late data and old answers: finished days fetched anew by schedule, and the end of what has landed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vendor_assets.harvest.retention import Retention
from vendor_assets.work_class import CLASS_TAG
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = yesterday() - timedelta(days=1)
"""The day before the newest one."""


@pytest.fixture
def late_vendor() -> Iterator[RunningSimulator]:
    """A vendor that shows data two hours late, an hour after the day's end."""
    with simulator(world="small", churn=False, settle=7200) as running:
        running.set_clock(f"{DAY + timedelta(days=1)}T01:00:00+00:00")
        yield running


@pytest.fixture
def looking_back(
    tmp_path: Path, late_vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    with dg.DagsterInstance.ephemeral() as instance:
        yield deploy(
            tmp_path,
            instance,
            VENDOR_URL=late_vendor.url,
            VENDOR_API_KEY=KEY,
            VENDOR_RATE="500/s",
            VENDOR_ASSETS_LOOK_BACK="1",
            VENDOR_ASSETS_RETENTION="30",
        )


def harvest(deployment: Deployment) -> None:
    """Bring the day in, as a click and the sensor do."""
    assert deployment.materialize("troops", partition=DAY.isoformat()).success
    result, _ = deployment.sensor("roster_sensor")
    assert isinstance(result, dg.SensorResult)
    assert all(deployment.run(request).success for request in result.run_requests or ())


def look_back(deployment: Deployment) -> list[dg.RunRequest] | dg.SkipReason:
    """One tick of the schedule on the day after the newest one."""
    schedule = deployment.definitions.resolve_schedule_def("look_back")
    at = datetime.combine(datetime.now(UTC).date(), time(6, 5), UTC)
    resources = {"store": deployment.resources["store"]}
    with dg.build_schedule_context(scheduled_execution_time=at, resources=resources) as context:
        found: list[dg.RunRequest] | dg.SkipReason = schedule._execution_fn.decorated_fn(context)
    return found


def test_late_data_of_a_finished_day_comes_in(
    looking_back: Deployment, late_vendor: RunningSimulator
) -> None:
    """The schedule fetches the day's performance data anew, as backfills, and says what changed."""
    harvest(looking_back)
    before = harvested_rows(looking_back.store, DAY)
    late_vendor.set_clock(datetime.now(UTC).isoformat())
    late_vendor.control("POST", "restate", {"day": DAY.isoformat(), "factor": 1.5})
    late_vendor.world.restate(DAY, 1.5)
    requests = look_back(looking_back)
    assert isinstance(requests, list)
    assert {request.tags[CLASS_TAG] for request in requests} == {"backfill"}
    runs = [looking_back.run(request) for request in requests]
    assert all(run.success for run in runs)
    after = harvested_rows(looking_back.store, DAY)
    assert after == true_rows(late_vendor.world, DAY)
    events = [event for run in runs for event in run.get_asset_materialization_events()]
    assert {event.asset_key.to_user_string() for event in events if event.asset_key} == {"performance_data"}
    metadata = [event.materialization.metadata for event in events]
    assert {each["mode"].value for each in metadata} == {"replace"}
    changed = {
        name: sum(int(str(each[f"rows_{name}"].value)) for each in metadata)
        for name in ("added", "altered", "removed")
    }
    assert changed == {
        "added": len(after.keys() - before.keys()),
        "altered": sum(1 for key in after.keys() & before.keys() if after[key] != before[key]),
        "removed": 0,
    }
    assert min(changed["added"], changed["altered"]) > 0


def test_looking_back_is_off_without_its_setting(deployment: Deployment) -> None:
    """Without VENDOR_ASSETS_LOOK_BACK the schedule, should it be on, says so and asks nothing."""
    skipped = look_back(deployment)
    assert isinstance(skipped, dg.SkipReason)
    assert "VENDOR_ASSETS_LOOK_BACK" in str(skipped.skip_message)


def test_a_day_that_was_not_harvested_is_not_looked_back_at(looking_back: Deployment) -> None:
    """What is not there has nothing to restate: its harvest is somebody else's."""
    assert isinstance(look_back(looking_back), dg.SkipReason)


class Later(Retention):
    """Retention, long after everything landed."""

    def __init__(self, *arguments: Any, now: datetime, **named: Any) -> None:
        super().__init__(*arguments, now=now + timedelta(days=400), **named)


def remove_landed(deployment: Deployment) -> dict[str, Any]:
    """Run the job; the numbers in its metadata."""
    job = deployment.definitions.resolve_job_def("retention")
    run = job.execute_in_process(instance=deployment.instance)
    assert run.success
    (event,) = [item for item in run.all_node_events if item.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def chunks(deployment: Deployment) -> list[str]:
    return [info.key for info in deployment.store.list("raw_data/") if "/chunk-" in info.key]


def test_the_retention_job_counts_what_it_removed(
    looking_back: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's metadata has the numbers, and all tables stay."""
    monkeypatch.setattr("vendor_assets.harvest.harvester.Retention", Later)
    harvest(looking_back)
    landed, rows = chunks(looking_back), harvested_rows(looking_back.store, DAY)
    assert remove_landed(looking_back)["removed_objects"] == len(landed) > 0
    assert chunks(looking_back) == []
    assert harvested_rows(looking_back.store, DAY) == rows


def test_without_the_setting_all_answers_stay(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VENDOR_ASSETS_RETENTION the job removes nothing."""
    monkeypatch.setattr("vendor_assets.harvest.harvester.Retention", Later)
    harvest(deployment)
    landed = chunks(deployment)
    assert remove_landed(deployment) == {}
    assert chunks(deployment) == landed
