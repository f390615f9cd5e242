"""Runs that died are retried once, on either storage, also where Dagster's own retry daemon has overlooked them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import RunFailureReason
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon

from vendor_assets.budget import LeaseState
from vendor_assets.orchestration.automation import alerts, rescue
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import HARVEST_JOB, active_days
from vendor_assets_tests.support.deployment import yesterday

DAY = yesterday().isoformat()
_PLACE = """
from pathlib import Path
from vendor_assets.orchestration.definitions import build_definitions
from vendor_assets.settings import read

environ = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k", "VENDOR_RATE": "9/s"}
defs = build_definitions(read(environ, root=Path(__file__).parent), automation=False)
"""
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


# Dagster's daemon says so at its first iteration.
pytestmark = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")


class Daemon:
    """Dagster's own daemon that retries runs, one iteration at a time."""

    def __init__(self, instance: dg.DagsterInstance, workspace: WorkspaceProcessContext) -> None:
        self._instance = instance
        self._workspace = workspace
        self._daemon = EventLogConsumerDaemon()
        self.poll()

    def poll(self) -> None:
        for _ in self._daemon.run_iteration(self._workspace):
            pass

    def launch(self) -> dg.DagsterRun:
        """A run of the harvest job that has started."""
        location = next(iter(self._workspace.create_request_context().code_locations))
        (repository,) = location.get_repositories().values()
        job = repository.get_full_job(HARVEST_JOB)
        run = dg.DagsterRun(
            HARVEST_JOB,
            run_config=harvest_config(Names(), [f"{DAY}|1"], ["warriors"]),
            status=dg.DagsterRunStatus.STARTED,
            # A retry from the failed step needs the plan of a run that was really launched.
            tags={"dagster/retry_strategy": "ALL_STEPS"},
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        return self._instance.add_run(run)

    def kill(self, run: dg.DagsterRun, *, overlooked: bool) -> None:
        """Fail a run; overlooked, the daemon polls after its event is stored and before its status is."""
        storage = self._instance.run_storage
        stored = type(storage).handle_run_event

        def handle(run_id: str, event: dg.DagsterEvent, at: datetime | None = None) -> None:
            if overlooked:
                self.poll()
            stored(storage, run_id, event, at)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(storage, "handle_run_event", handle)
            self._instance.report_run_failed(run, "the run's process was killed")
        self.poll()

    def children(self, run: dg.DagsterRun) -> list[dg.DagsterRun]:
        return list(self._instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id})))


@pytest.fixture
def instance(stored_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    return stored_instance


@pytest.fixture
def daemon(instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """Dagster's retry daemon on a deployment whose vendor is not asked."""
    monkeypatch.setenv("VENDOR_API_KEY", "k")
    place = tmp_path / "place.py"
    place.write_text(_PLACE)
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(python_file=str(place), attribute="defs"), location_name="place"
    )
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace:
        yield Daemon(instance, workspace)


def look(memory: alerts.Memory, instance: dg.DagsterInstance, now: datetime) -> str:
    alerts.look(memory, instance, Names(), now=now, budget=None, stale=[])
    text = alerts.message(memory, now, lambda _, keys: keys)
    alerts.told(memory, now)
    return text


def test_a_retry_that_dagster_lost_is_launched_once(daemon: Daemon, instance: dg.DagsterInstance) -> None:
    """After a minute the daemon is shown the failure once more; it launches one retry, and an alert says so."""
    told, memory = alerts.Memory(), rescue.Memory()
    assert look(told, instance, NOW) == ""
    run = daemon.launch()
    daemon.kill(run, overlooked=True)
    assert daemon.children(run) == []
    assert active_days(instance, Names()) == {DAY}
    assert look(told, instance, NOW) == ""

    def rescued(after: float) -> int:
        asked = rescue.retry_lost(memory, instance, Names(), [], NOW.timestamp() + after)
        daemon.poll()
        return asked

    assert [rescued(0), rescued(59)] == [0, 0]
    goes_on = LeaseState(run.run_id, {}, 0.0, 1.0, lapsed=False, renewals=9)
    waiting = rescue.Memory(unretried=dict(memory.unretried))
    assert rescue.retry_lost(waiting, instance, Names(), [goes_on], NOW.timestamp() + 61) == 0
    assert daemon.children(run) == []
    assert [rescued(61), rescued(76), rescued(400)] == [1, 0, 0]
    (child,) = daemon.children(run)
    assert child.tags["dagster/root_run_id"] == run.run_id
    assert child.run_config == run.run_config
    text = look(told, instance, NOW + timedelta(seconds=90))
    assert text.startswith(f"warriors of {DAY}: 1 troop failed: ")
    assert "killed; Dagster did not retry the run by itself" in text
    instance.report_runless_asset_event(dg.AssetMaterialization("warriors", partition=f"{DAY}|1"))
    assert look(told, instance, NOW + timedelta(seconds=150)).startswith("over after")
    assert look(told, instance, NOW + timedelta(seconds=999)) == ""


def test_a_retry_that_dagster_launches_itself_is_left_alone(
    daemon: Daemon, instance: dg.DagsterInstance
) -> None:
    """No second one, however long it takes, and no alert."""
    told, memory = alerts.Memory(), rescue.Memory()
    look(told, instance, NOW)
    run = daemon.launch()
    daemon.kill(run, overlooked=False)
    for after in (0, 61, 400, 800):
        assert rescue.retry_lost(memory, instance, Names(), [], NOW.timestamp() + after) == 0
        daemon.poll()
        assert look(told, instance, NOW + timedelta(seconds=after)) == ""
    assert len(daemon.children(run)) == 1


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_dagster_cannot_retry_is_not_waited_for(
    daemon: Daemon, instance: dg.DagsterInstance, by_hand: bool
) -> None:
    """A run of a killed command, or one that a person launched anew: not at work for ever, and told."""
    told, memory = alerts.Memory(), rescue.Memory()
    look(told, instance, NOW)
    if by_hand:
        run = daemon.launch()
        tags = {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": run.run_id}
        daemon.kill(run, overlooked=True)
        anew = dg.DagsterRun(HARVEST_JOB, tags=tags, root_run_id=run.run_id, parent_run_id=run.run_id)
        instance.add_run(anew)
    else:
        config = harvest_config(Names(), [f"{DAY}|1"], ["warriors"])
        run = instance.add_run(
            dg.DagsterRun(HARVEST_JOB, run_config=config, status=dg.DagsterRunStatus.STARTED)
        )
        daemon.kill(run, overlooked=False)
    assert look(told, instance, NOW) == ""
    for after in (0, 61, 400):
        assert rescue.retry_lost(memory, instance, Names(), [], NOW.timestamp() + after) == 0
        daemon.poll()
    assert len(daemon.children(run)) == by_hand
    assert DAY not in active_days(instance, Names())
    assert "1 troop failed" in look(told, instance, NOW + timedelta(seconds=61))


def test_a_retry_that_never_comes_is_given_up(daemon: Daemon, instance: dg.DagsterInstance) -> None:
    """Asked for once more in vain, for instance as its backfill is over, a run is a failed one like others."""
    memory = rescue.Memory()
    run = daemon.launch()
    instance.add_run_tags(run.run_id, {"dagster/backfill": "gone"})
    daemon.kill(run, overlooked=False)
    asked = [
        rescue.retry_lost(memory, instance, Names(), [], NOW.timestamp() + at)
        for at in (0, 61, 200, 400, 500)
    ]
    assert asked == [0, 1, 0, 0, 0]
    assert active_days(instance, Names()) == set()
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.tags["dagster/will_retry"] == "false"


def test_a_step_that_failed_is_not_retried(daemon: Daemon, instance: dg.DagsterInstance) -> None:
    """What failed for good waits for a person."""
    run = daemon.launch()
    instance.add_run_tags(run.run_id, {"dagster/failure_reason": RunFailureReason.STEP_FAILURE.value})
    daemon.kill(run, overlooked=True)
    memory = rescue.Memory()
    assert [rescue.retry_lost(memory, instance, Names(), [], at) for at in (0, 61, 400)] == [0, 0, 0]
    assert daemon.children(run) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED),
    ],
)
def test_a_run_whose_process_is_gone_is_over(
    instance: dg.DagsterInstance, before: dg.DagsterRunStatus, after: dg.DagsterRunStatus
) -> None:
    """Also where a person had asked it to end, which nobody hears any more: no sensor goes on beyond it otherwise."""
    config = harvest_config(Names(), [f"{DAY}|1"], ["warriors"])
    run = instance.add_run(dg.DagsterRun(HARVEST_JOB, run_config=config, status=before))
    memory = rescue.Memory()
    assert rescue.fail_lapsed(memory, instance, Names(), [], 0.0) == 0
    assert rescue.fail_lapsed(memory, instance, Names(), [], rescue.START_SECONDS) == 1
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == after


def test_a_clock_that_is_set_back_keeps_no_dead_run(instance: dg.DagsterInstance) -> None:
    """Seen dead an hour from now, a run is failed at the next look, and not in an hour."""
    config = harvest_config(Names(), [f"{DAY}|1"], ["warriors"])
    run = instance.add_run(dg.DagsterRun(HARVEST_JOB, run_config=config, status=dg.DagsterRunStatus.STARTED))
    lapsed = [LeaseState(run.run_id, {}, 0.0, 60.0, lapsed=True, renewals=1)]
    memory = rescue.Memory()
    assert rescue.fail_lapsed(memory, instance, Names(), lapsed, 7200.0) == 0
    assert rescue.fail_lapsed(memory, instance, Names(), lapsed, 3600.0) == 1


def test_the_memory_of_a_tick_survives_its_cursor() -> None:
    """Also the cursor of an earlier release."""
    memory = rescue.Memory({"a": 1.5}, {"b": 2.0})
    assert rescue.Memory.load(memory.dump()) == memory
    assert rescue.Memory.load('["a"]') == rescue.Memory.load(None) == rescue.Memory()
