"""What happens by itself to dead letters and to runs whose process is gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.orchestration.automation.sensors import _as_stored, _redrives
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import TRIGGER_TAG
from vendor_assets.orchestration.runs.events import RETRY_TAG
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.deployment import Deployment, yesterday
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import key_of

DAY = yesterday()
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def letter(*, minutes: float, redrives: int = 0, retryable: bool = True) -> DeadLetter:
    at = NOW - timedelta(minutes=minutes)
    return DeadLetter(("leaf",), f"/request/{minutes}", "why", retryable, 500, 5, at, at, redrives=redrives)


def partition(
    *letters: DeadLetter, troop: str | None = "1", asset: str = "performance_data"
) -> DeadPartition:
    return DeadPartition(asset, DAY, troop, letters)


@pytest.mark.parametrize(
    ("minutes", "redrives", "due"),
    [(9, 0, False), (10, 0, True), (39, 1, False), (40, 1, True), (160, 2, True), (10_000, 3, False)],
)
def test_transient_letters_are_redriven_with_growing_delay(minutes: float, redrives: int, due: bool) -> None:
    """After 10, 40 and 160 minutes; three times, then a person decides."""
    runs = _redrives(Names(), [partition(letter(minutes=minutes, redrives=redrives))], NOW)
    assert bool(runs) == due


def test_permanent_letters_wait_for_a_person() -> None:
    """A sensor never asks again what asking cannot change."""
    assert not _redrives(Names(), [partition(letter(minutes=1000, retryable=False))], NOW)


def test_a_clock_that_was_ahead_delays_no_redrive() -> None:
    """A letter is not newer than the object that holds it, whose time is the store's."""
    stored = NOW - timedelta(minutes=11)
    assert _redrives(Names(), [_as_stored(partition(letter(minutes=-120)), stored)], NOW)
    assert not _redrives(Names(), [partition(letter(minutes=-120))], NOW)
    assert _as_stored(partition(letter(minutes=30)), stored) == partition(letter(minutes=30))


def test_scattered_redrives_of_a_day_are_one_run() -> None:
    """Partitions of one day, wherever they lie, in one run; the roster by its own job."""
    due = letter(minutes=30)
    runs = _redrives(
        Names(),
        [partition(due, troop="1"), partition(due, troop="7"), partition(due, troop=None, asset="troops")],
        NOW,
    )
    assert sorted(str(run.job_name) for run in runs) == ["harvest", "roster"]
    (harvest,) = [run for run in runs if run.job_name == "harvest"]
    assert harvest.run_config["ops"]["harvest_partitions"]["config"]["partitions"] == [f"{DAY}|1", f"{DAY}|7"]


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    """Of hundreds of partitions that wait for a person a tick reads those that somebody has changed since."""
    letters = DeadLetters(FolderStore(tmp_path))
    for troop in "123":
        letters.change(partition(troop=troop), lambda found: replace(found, letters=(letter(minutes=5),)))
    known = {info.key: info.etag for info, _ in letters.changed({})}
    assert (len(known), letters.changed(known)) == (3, [])
    one = partition(letter(minutes=5), troop="2")
    letters.discard(one, {one.letters[0].request}, who="ada", why="retired", at=NOW)
    assert [found.troop_key for _, found in letters.changed(known)] == ["2"]
    assert [found.troop_key for found in letters.all()] == ["1", "2", "3"]


def test_a_redrive_asks_only_for_the_transient_ones(deployment: Deployment, vendor: RunningSimulator) -> None:
    """Of a partition with both kinds the sensor's run asks for the transient ones; a click asks for all."""
    deployment.materialize("troops", partition=DAY.isoformat())
    troop = vendor.world.troops_on(DAY, "UTC")[0]
    key = key_of(troop)
    deployment.instance.add_dynamic_partitions("troop", [key])
    refused, broken = "hosts/100000000000000/metrics/data", "hosts/100000000100000/metrics/data"
    vendor.faults([{"kind": "status", "status": 400, "match": refused}, {"kind": "500", "match": broken}])
    assert not deployment.materialize(
        "warriors", "data_groups", "performance_data", partition=f"{DAY}|{key}"
    ).success
    vendor.clear_faults()
    by_sensor = {TRIGGER_TAG: "sensor"}
    run = deployment.materialize("performance_data", partition=f"{DAY}|{key}", tags=by_sensor)
    assert not run.success
    letters = DeadLetters(deployment.store).load("performance_data", DAY, key).letters
    assert {item.status for item in letters} == {400}
    assert deployment.materialize("performance_data", partition=f"{DAY}|{key}").success


def test_a_run_whose_lease_has_lapsed_is_failed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A started run that renews no lease is dead, whatever its launcher says; a young one is left alone."""
    monkeypatch.setattr("vendor_assets.orchestration.automation.rescue.START_SECONDS", -1)
    job = deployment.definitions.resolve_job_def("harvest")
    run = deployment.instance.create_run_for_job(
        job, run_config=harvest_config(Names(), [f"{DAY}|1"], ["warriors"]), tags={}
    )
    deployment.instance.report_engine_event("starting", run)
    deployment.instance.handle_run_event(
        run.run_id,
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job.name, message="started"),
    )

    def status() -> dg.DagsterRunStatus | None:
        found = deployment.instance.get_run_by_id(run.run_id)
        return found.status if found else None

    _, cursor = deployment.sensor("lapsed_runs_sensor")
    # One tick is not enough: after an outage of the database every lease is stale for a moment.
    assert status() == dg.DagsterRunStatus.STARTED
    deployment.sensor("lapsed_runs_sensor", cursor)
    assert status() == dg.DagsterRunStatus.FAILURE


def test_a_run_that_failed_for_want_of_a_store_is_retried(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster is told to retry a run whose failures pass by themselves; one that was refused waits for a person."""
    from vendor_assets.errors import StorageUnavailableError
    from vendor_assets.storage.folder import FolderStore

    put = FolderStore.put

    def away(self: FolderStore, key: str, *arguments: object, **conditions: object) -> object:
        if "chunk-" in key:
            raise StorageUnavailableError("the store is away")
        return put(self, key, *arguments, **conditions)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", away)
        run = deployment.materialize("troops", partition=DAY.isoformat())
    assert not run.success
    assert deployment.instance.get_run_by_id(run.run_id).tags[RETRY_TAG] == "true"  # type: ignore[union-attr]


def test_a_run_with_a_refused_request_is_not_retried(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """A permanent error is tried once, by Dagster too."""
    vendor.faults([{"kind": "400"}])
    run = deployment.materialize("troops", partition=DAY.isoformat())
    assert not run.success
    assert RETRY_TAG not in deployment.instance.get_run_by_id(run.run_id).tags  # type: ignore[union-attr]
    assert vendor.calls() == 1
