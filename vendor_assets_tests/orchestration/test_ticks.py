"""A tick ends in time whatever waits: each sensor does a piece of it, keeps how far it came, and leaves nothing out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME

from benchmarks import fabricated
from vendor_assets.harvest import costs
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.orchestration.automation import sensors, turn
from vendor_assets.orchestration.automation.run_requests import roster_runs
from vendor_assets.orchestration.dagster_private import repository_of
from vendor_assets.orchestration.runs.about import DAY_TAG, GOES_ON_TAG, HARVEST_JOB, ROSTER_JOB, TAKEN_TAG
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.work_class import BACKFILL, SCHEDULED, WorkClass, queue_tags
from vendor_assets_tests.support.analysis import write_roster
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday

DAYS = [yesterday() - timedelta(days=ago) for ago in (4, 3, 2, 1)]
TEXTS = [day.isoformat() for day in DAYS]


@pytest.fixture
def deployment(
    stored_instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    """A deployment whose vendor is not asked, and whose ticks are over as soon as they have begun."""
    monkeypatch.setattr(turn, "TICK_SECONDS", 0.0)
    monkeypatch.setenv("VENDOR_API_KEY", "k")
    settings = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k", "VENDOR_RATE": "9/s"}
    return deploy(tmp_path, stored_instance, **settings)


def list_troops(
    deployment: Deployment,
    days: Iterable[date],
    *troops: str,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
    work_class: WorkClass = SCHEDULED,
) -> None:
    """Materialize rosters, each by a run of its own."""
    for day in days:
        write_roster(deployment.store, day, [(troop, f"troop {troop}") for troop in troops])
        show_roster(deployment, day, status, work_class)


def show_roster(
    deployment: Deployment,
    day: date,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS,
    work_class: WorkClass = SCHEDULED,
    retry_of: str | None = None,
    **more: str,
) -> None:
    """Materialize a roster that is in the store."""
    tags = {"dagster/partition": day.isoformat(), **queue_tags(work_class), **more}
    run = dg.DagsterRun(ROSTER_JOB, status=status, tags=tags, root_run_id=retry_of, parent_run_id=retry_of)
    deployment.instance.add_run(run)
    made = StepMaterializationData(dg.AssetMaterialization("troops", partition=day.isoformat()))
    event = dg.DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION.value, ROSTER_JOB, event_specific_data=made
    )
    deployment.instance.report_dagster_event(event, run.run_id)


def ticks(deployment: Deployment, sensor: str, count: int, cursor: str | None = None) -> list[list[str]]:
    """What each tick of a sensor requested: the days of its runs."""
    requested = []
    for _ in range(count):
        result, cursor = deployment.sensor(sensor, cursor)
        runs = result.run_requests if isinstance(result, dg.SensorResult) else []
        requested.append([run.tags[DAY_TAG] for run in runs or []])
    return requested


def test_what_is_waited_for_is_looked_at_each_time_that_dagster_looks(deployment: Deployment) -> None:
    """An interval as long as the daemon's would leave out every second look."""
    for name in ("roster", "downstream", "publish", "report", "lapsed_runs"):
        sensor = deployment.definitions.resolve_sensor_def(f"{name}_sensor")
        assert (sensor.minimum_interval_seconds or 0) <= MIN_INTERVAL_LOOP_TIME - 2, name


def test_a_year_of_rosters_is_followed_piece_by_piece(deployment: Deployment) -> None:
    """A day a tick if there is no time for more; a roster that was listed twice is followed once."""
    list_troops(deployment, [DAYS[1], *DAYS], "1", "2")
    expected = [[TEXTS[0]], [TEXTS[1]], [TEXTS[2]], [TEXTS[3]], []]
    assert ticks(deployment, "roster_sensor", 5) == expected
    assert deployment.instance.get_dynamic_partitions("troop") == ["1", "2"]


def test_the_retry_of_a_run_that_goes_on_requests_nothing_twice(deployment: Deployment) -> None:
    """What it has not taken was requested with its first attempt, under the same keys."""
    write_roster(deployment.store, DAYS[0], [(troop, f"troop {troop}") for troop in "123"])
    goes_on = {GOES_ON_TAG: "true", TAKEN_TAG: '["2"]'}
    show_roster(deployment, DAYS[0], dg.DagsterRunStatus.STARTED, **goes_on)
    first, cursor = deployment.sensor("roster_sensor")
    (attempt,) = deployment.instance.get_runs()
    show_roster(deployment, DAYS[0], dg.DagsterRunStatus.STARTED, retry_of=attempt.run_id, **goes_on)
    second, _ = deployment.sensor("roster_sensor", cursor)
    for result in (first, second):
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or ()
        config = request.run_config["ops"]["harvest_partitions"]["config"]
        assert config["partitions"] == [f"{DAYS[0]}|1", f"{DAYS[0]}|3"]
        assert request.run_key == f"troops:{DAYS[0]}:{attempt.run_id}:0"
    assert deployment.instance.get_dynamic_partitions("troop") == ["1", "2", "3"]


def test_a_roster_that_is_being_read_is_followed_in_the_same_tick(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick stays until the run is over, but not for one that takes longer: a later tick follows that."""
    list_troops(deployment, DAYS[:1], "1", status=dg.DagsterRunStatus.STARTED)
    (reading,) = deployment.instance.get_runs()
    sleeps: list[float] = []

    def end(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 2:
            event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, ROSTER_JOB)
            deployment.instance.report_dagster_event(event, reading.run_id)

    monkeypatch.setattr(
        turn, "time", SimpleNamespace(monotonic=lambda: sum(sleeps), process_time=lambda: 0.0, sleep=end)
    )
    with monkeypatch.context() as patch:
        patch.setattr(turn, "STAY_SECONDS", 0.0)
        assert ticks(deployment, "roster_sensor", 1) == [[]]
    with monkeypatch.context() as patch:
        # It has been going on for longer: perhaps it waits for tomorrow's quota.
        patch.setattr(sensors, "QUICK_ROSTER", timedelta(0))
        assert ticks(deployment, "roster_sensor", 1) == [[]]
    assert not sleeps
    assert ticks(deployment, "roster_sensor", 1) == [[TEXTS[0]]]
    assert len(sleeps) == 2


def test_scheduled_days_are_followed_before_a_backfill(deployment: Deployment) -> None:
    """A day that was listed last does not wait behind the others; a cursor of an earlier release goes on."""
    list_troops(deployment, DAYS[:3], "1", work_class=BACKFILL)
    list_troops(deployment, DAYS[3:], "1")
    expected = [[TEXTS[3]], [TEXTS[0]], [TEXTS[1]], [TEXTS[2]], []]
    assert ticks(deployment, "roster_sensor", 5, cursor="0") == expected
    _, cursor = deployment.sensor("roster_sensor")
    assert ticks(deployment, "roster_sensor", 1, str(json.loads(str(cursor))["after"])) == [[]]


def test_a_backfill_waits_while_the_queue_is_full(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its days stay in the cursor until runs have left the queue; scheduled days do not wait."""
    monkeypatch.setattr("vendor_assets.orchestration.automation.sensors.MOST_QUEUED", 1)
    instance = deployment.instance
    origin = repository_of(instance, Path(instance.root_directory)).get_job_origin(HARVEST_JOB)
    run = dg.DagsterRun(HARVEST_JOB, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
    instance.add_run(run)
    list_troops(deployment, DAYS[:2], "1", work_class=BACKFILL)
    list_troops(deployment, DAYS[2:3], "1")

    def requested(cursor: str | None) -> tuple[list[str], str | None]:
        result, after = deployment.sensor("roster_sensor", cursor)
        assert isinstance(result, dg.SensorResult)
        return [each.tags[DAY_TAG] for each in result.run_requests or ()], after

    days, cursor = requested(None)
    assert days == [TEXTS[2]]
    days, cursor = requested(cursor)
    assert days == []
    instance.report_run_canceled(run)
    assert [(requested(cursor))[0], ticks(deployment, "roster_sensor", 3, cursor)] == [
        [TEXTS[0]],
        [[TEXTS[0]], [TEXTS[1]], []],
    ]


def test_a_day_of_many_troops_takes_several_ticks(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tick reads some troops' lists, none is read twice, and the runs are those of one long tick."""
    store, troops = deployment.store, 60
    assert isinstance(store, FolderStore)
    fabricated.write_roster(store, DAYS[1], troops)
    fabricated.write_troop_days(store, DAYS[:1], troops)
    _, whole = roster_runs(store, deployment.account, DAYS[1], run_key="", work_class=SCHEDULED)
    show_roster(deployment, DAYS[1])
    read: list[str] = []
    read_table = costs.read_table

    def watched(store: ObjectStore, key: str, **rest: Any) -> Any:
        read.append(key)
        return read_table(store, key, **rest)

    monkeypatch.setattr(costs, "read_table", watched)
    cursor, counts = None, []
    found: Sequence[dg.RunRequest] = ()
    while not found and len(counts) < troops:
        before = len(read)
        result, cursor = deployment.sensor("roster_sensor", cursor)
        assert isinstance(result, dg.SensorResult)
        found = result.run_requests or ()
        counts.append(len(read) - before)
    assert len(counts) > 2
    assert sorted(read) == sorted(set(read))
    assert [run.run_config for run in found] == [run.run_config for run in whole]
    assert ticks(deployment, "roster_sensor", 1, cursor) == [[]]


def test_days_are_published_piece_by_piece(deployment: Deployment) -> None:
    """One that cannot be decided yet keeps no other one waiting."""
    list_troops(deployment, DAYS[:1], "1")
    list_troops(deployment, DAYS[1:])
    assert ticks(deployment, "publish_sensor", 5) == [[], [TEXTS[1]], [TEXTS[2]], [TEXTS[3]], []]


def test_a_day_waits_for_no_run_of_another(deployment: Deployment) -> None:
    """A run that works on one day for hours, like a backfill's, keeps no other day from being published."""
    list_troops(deployment, DAYS[:1], status=dg.DagsterRunStatus.STARTED)
    list_troops(deployment, DAYS[1:2])
    result, cursor = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    assert [request.tags[DAY_TAG] for request in result.run_requests or ()] == [TEXTS[1]]
    (run,) = deployment.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    deployment.instance.report_run_canceled(run)
    assert ticks(deployment, "publish_sensor", 2, cursor) == [[TEXTS[0]], []]


def _dead(deployment: Deployment) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    letters = DeadLetters(deployment.store)
    for day in DAYS:
        for troop in ("1", "2"):
            letter = DeadLetter(
                ("leaf",), "GET /x", "why", retryable=True, status=500, attempts=5, first_at=at, last_at=at
            )
            empty = DeadPartition("performance_data", day, troop, ())
            full = DeadPartition("performance_data", day, troop, (letter,))
            letters.change(empty, lambda _, full=full: full)


def test_dead_letters_are_redriven_and_observed_piece_by_piece(deployment: Deployment) -> None:
    """A day a tick, whole, round after round."""
    _dead(deployment)
    assert ticks(deployment, "redrive_sensor", 5) == [[day] for day in [*TEXTS, TEXTS[0]]]
    told, cursor = [], None
    for _ in range(5):
        result, cursor = deployment.sensor("dead_letters_sensor", cursor)
        told.append(str(result.skip_message if isinstance(result, dg.SkipReason) else result))
    observed = [f"observed the dead letters of {day}" for day in TEXTS]
    assert told == [*observed, "no dead letters have changed"]


def test_failures_are_told_piece_by_piece(deployment: Deployment) -> None:
    """Hundreds of runs that failed at once are read over several ticks."""
    _, cursor = deployment.sensor("alert_sensor")
    for day in TEXTS[:3]:
        run = dg.DagsterRun(ROSTER_JOB, tags={"dagster/partition": day, "dagster/max_retries": "0"})
        deployment.instance.add_run(run._replace(status=dg.DagsterRunStatus.STARTED))
        deployment.instance.report_run_failed(run, f"why {day}")
    told = []
    for _ in range(3):
        result, cursor = deployment.sensor("alert_sensor", cursor)
        told.append(str(result))
    # One cause: it is said once, and its days grow.
    assert [day in (cursor or "") for day in TEXTS[:3]] == [True, True, True]
    assert f"troops of {TEXTS[0]}: 1 partition failed" in told[0]
