"""What is only looked at: the backlog and the dead letters; said when there is something new, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vendor_assets.budget import Backlog, BudgetState, Explanation, LongestWait, Sample, pace_at, totals
from vendor_assets.days import duration_text
from vendor_assets.errors import BudgetUnavailableError, VendorAssetsError
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.assets import backlog
from vendor_assets.orchestration.assets.backlog import BudgetView, Recorder
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions
from vendor_assets.orchestration.runs.about import CALLS_TAG
from vendor_assets.orchestration.syncing import sync
from vendor_assets.work_class import SCHEDULED
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday
from vendor_assets_tests.support.simulator import KEY, RunningSimulator
from vendor_assets_tests.support.truth import key_of

DAY = yesterday()
START = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def samples(deployment: Deployment) -> Iterator[Backlog]:
    backlog = Backlog(deployment.account.database_url)
    yield backlog
    backlog.close()


def started(deployment: Deployment, *troops: str, calls: int = 0) -> dg.DagsterRun:
    """A run of the harvest job that was launched and has not begun."""
    return deployment.instance.create_run_for_job(
        deployment.definitions.resolve_job_def("harvest"),
        run_config=harvest_config(Names(), [f"{DAY}|{troop}" for troop in troops], list(CHAIN)),
        tags={CALLS_TAG: str(calls), "vendor_assets/day": DAY.isoformat()},
        status=dg.DagsterRunStatus.NOT_STARTED,
    )


def events(result: dg.SensorResult | dg.SkipReason) -> list[Any]:
    return list(result.asset_events) if isinstance(result, dg.SensorResult) else []


def values(event: Any) -> dict[str, Any]:
    return {name: item.value for name, item in event.metadata.items()}


# -- the backlog ------------------------------------------------------------------------------------


def test_what_waits_is_the_sum_of_what_each_source_said_last() -> None:
    """A sample holds until the next of its source or for two minutes; sources add up."""
    said = [
        Sample(START, "one", 4, 10, 100),
        Sample(START + timedelta(seconds=10), "two", 1, 2, 3),
        Sample(START + timedelta(seconds=20), "one", 3, 0, 50),
    ]
    moments = [START + timedelta(seconds=seconds) for seconds in (0, 15, 25, 135, 141)]
    found = [(item.troops, item.warriors, item.data_groups) for item in totals(said, moments)]
    assert found == [(4, 10, 100), (5, 12, 103), (4, 2, 53), (3, 0, 50), (0, 0, 0)]


def test_the_pace_is_what_was_done_lately() -> None:
    """Calls per second over the samples that still hold, over all sources."""
    said = [
        Sample(START + timedelta(seconds=10 * n), source, calls_done=factor * n)
        for n in range(4)
        for source, factor in (("one", 20), ("two", 100))
    ]
    assert pace_at(said, START + timedelta(seconds=30)) == pytest.approx(12.0)
    assert pace_at(said, START + timedelta(hours=1)) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40.4, "40 s"), (600, "10 min"), (11_100, "3 h 5 min"), (7200, "2 h"), (190_000, "2 d 4 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    """Two units at most."""
    assert duration_text(seconds) == text


def test_a_harvest_keeps_samples_and_says_its_progress(
    deployment: Deployment,
    tmp_path: Path,
    vendor: RunningSimulator,
    samples: Backlog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it runs its waiting work is kept, its log says how far it is; at the end nothing waits any more."""
    # Slow enough for a busy machine to look while it lasts.
    environ = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "15/s"}
    deployment = deploy(tmp_path, deployment.instance, **environ)
    monkeypatch.setattr(Recorder, "sample_seconds", 0.02)
    monkeypatch.setattr(Recorder, "say_seconds", 0.1)
    assert deployment.materialize("troops", partition=DAY.isoformat()).success
    result, _ = deployment.sensor("roster_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    before = vendor.calls()
    run = deployment.run(request)
    assert run.success
    calls = vendor.calls() - before
    kept = [sample for sample in samples.read(START) if sample.source == run.run_id]
    assert not kept[-1].waits
    assert kept[-1].calls_done == calls
    assert max(sample.troops for sample in kept) <= len(vendor.world.troops_on(DAY, "UTC"))
    assert max(sample.data_groups for sample in kept) > 0
    assert [sample.calls_done for sample in kept] == sorted(sample.calls_done for sample in kept)
    lines = [record.user_message for record in deployment.instance.all_logs(run.run_id)]
    progress = [line for line in lines if line.startswith("progress: ")]
    assert progress
    # The first one may come before the work is known.
    whole = f"of {3 * len(vendor.world.troops_on(DAY, 'UTC'))} partitions"
    assert any(whole in line for line in progress[:2])


def test_the_backlog_is_observed_while_there_is_work(deployment: Deployment, samples: Backlog) -> None:
    """At once, then every three minutes, once more when all is done; nothing while idle."""
    result, cursor = deployment.sensor("backlog_sensor")
    assert isinstance(result, dg.SkipReason)
    run = started(deployment, "1", "2", calls=900)
    now = datetime.now(UTC)
    samples.append(
        [
            Sample(now - timedelta(seconds=40), "run", 5, 20, 400, 1, 240, 60),
            Sample(now - timedelta(seconds=20), "run", 4, 10, 300, 3, 100, 200),
        ]
    )
    result, cursor = deployment.sensor("backlog_sensor", cursor)
    (event,) = events(result)
    found = values(event)
    assert (found["troops_waiting"], found["warriors_waiting"], found["data_groups_waiting"]) == (6, 10, 300)
    assert (found["calls_waiting"], found["dead_letters"], found["runs_queued"]) == (1000, 3, 1)
    assert found["calls_per_second"] == pytest.approx(7.0, rel=0.01)
    assert found["seconds_to_drain"] == pytest.approx(1000 / 7, rel=0.01)
    assert found["oldest_day"] == DAY.isoformat()
    assert found["rate"] > 0
    # At 400 calls a second, and at the seven of late.
    assert found["why"].startswith("the budget keeps no call back; 1,000 calls to come, done in 3 s (")
    assert " at the earliest and in 2 min (" in found["why"]
    assert found["plot"].startswith("![backlog of the last 24 hours](data:image/png;base64,iVBOR")
    assert len(found["plot"]) < 60_000
    again, cursor = deployment.sensor("backlog_sensor", cursor)
    assert not events(again)
    deployment.instance.delete_run(run.run_id)
    samples.append([Sample(now - timedelta(days=91), "old"), Sample(now - timedelta(days=89), "kept")])
    done, cursor = deployment.sensor("backlog_sensor", cursor)
    (last,) = events(done)
    assert samples.read(now - timedelta(days=365))[0].source == "kept"
    assert values(last)["runs_queued"] == 0
    idle, _ = deployment.sensor("backlog_sensor", cursor)
    assert isinstance(idle, dg.SkipReason)


class Hours:
    """A clock of the test's own in place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_call_that_waits_for_a_minute_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line of the run's log, again only for another reason, and a minute later at the earliest."""
    clock, said = Hours(), list[str]()
    monkeypatch.setattr(backlog, "time", clock)
    told: list[Explanation | VendorAssetsError] = []
    waited = 59.0

    def explain(source: str, wait: LongestWait) -> Explanation:
        assert (source, wait.endpoint) == ("run", "data")
        if isinstance(told[0], VendorAssetsError):
            raise told[0]
        return told[0]

    recorder = Recorder(
        lambda: pytest.fail("no progress is asked for"),
        Backlog(f"sqlite:///{tmp_path}/budget.db"),
        source="run",
        say=said.append,
        budget=lambda: pytest.fail("no state is asked for"),
        waits=lambda: LongestWait(waited, "data", SCHEDULED),
        explain=explain,
    )

    def look(after: float, reason: Explanation | VendorAssetsError) -> int:
        told[:] = [reason]
        clock.now += after
        recorder._say_why()
        return len(said)

    hour = Explanation("window", "10/h", "10/h is used up", 1800.0, 0.0)
    assert look(10, hour) == 0
    waited = 60.0
    assert look(10, BudgetUnavailableError("away")) == 0
    assert look(10, hour) == 1
    assert said[0].startswith("a call has waited for 60 s: 10/h is used up; the next call goes in 30 min")
    assert look(90, hour) == 1
    held = Explanation("hold", "", "nobody sends", 30.0, 0.0)
    assert look(10, held) == 2
    assert look(10, hour) == 2
    assert look(50, hour) == 3


# -- dead letters -----------------------------------------------------------------------------------


def failing_harvest(deployment: Deployment, vendor: RunningSimulator) -> str:
    """Harvest one troop whose performance data the vendor refuses for good; returns its partition key."""
    deployment.materialize("troops", partition=DAY.isoformat())
    troop = vendor.world.troops_on(DAY, "UTC")[0]
    key = key_of(troop)
    deployment.instance.add_dynamic_partitions("troop", [key])
    vendor.faults([{"kind": "status", "status": 400, "match": f"/applications/{troop.id}/hosts/.*data.json"}])
    assert not deployment.materialize(*CHAIN, partition=f"{DAY}|{key}").success
    vendor.clear_faults()
    return f"{DAY}|{key}"


def latest(deployment: Deployment) -> tuple[dg.AssetObservation, dg.AssetCheckEvaluation, int]:
    """What the UI shows of the day: the newest observation, the newest check, and how many observations there were."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey("dead_letters"), asset_partitions=[DAY.isoformat()])
    records = deployment.instance.fetch_observations(wanted, limit=100).records
    key = dg.AssetCheckKey(dg.AssetKey("dead_letters"), "none_open")
    check = deployment.instance.get_latest_asset_check_evaluation_record(key)
    assert records[0].asset_observation
    assert check
    assert check.event
    assert check.event.asset_check_evaluation
    return records[0].asset_observation, check.event.asset_check_evaluation, len(records)


def test_dead_letters_are_observed_when_they_changed(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """A table and a failing check after the harvest that made them; a passing check after the redrive; else nothing."""
    result, cursor = deployment.sensor("dead_letters_sensor")
    assert isinstance(result, dg.SkipReason)
    partition = failing_harvest(deployment, vendor)
    letters = DeadLetters(deployment.store).load("performance_data", DAY, partition.partition("|")[2]).letters
    _, cursor = deployment.sensor("dead_letters_sensor", cursor)
    observation, check, _ = latest(deployment)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    found = values(observation)
    assert (found["dead_letters"], found["permanent"], found["transient"]) == (len(letters), len(letters), 0)
    table = observation.metadata["table"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = [record.data for record in table.records]
    name = vendor.world.troops_on(DAY, "UTC")[0].name
    assert {row["request"] for row in rows} == {letter.request for letter in letters}
    assert {row["reason"] for row in rows} == {"the vendor rejects the request: Bad Request"}
    assert {(row["status"], row["asset"], row["troop"]) for row in rows} == {
        ("400", "performance_data", f"{name} ({partition.partition('|')[2]})")
    }
    _, cursor = deployment.sensor("dead_letters_sensor", cursor)
    assert latest(deployment)[2] == 1
    assert deployment.materialize("performance_data", partition=partition).success
    _, cursor = deployment.sensor("dead_letters_sensor", cursor)
    observation, check, count = latest(deployment)
    assert check.passed
    assert values(observation)["dead_letters"] == 0
    deployment.sensor("dead_letters_sensor", cursor)
    assert latest(deployment)[2] == count == 2


def test_a_partition_tells_nothing_of_another() -> None:
    """What is added to one partition's metadata, its failed requests or a day's plan, is not in the next one's."""

    def away() -> BudgetState:
        raise BudgetUnavailableError("away")

    budget = BudgetView(away)
    first = budget.metadata()
    first |= {"failed_requests": "of the first"}
    assert budget.metadata() == {}


def told_of(deployment: Deployment, asset: str, partition: str) -> list[dg.AssetObservation]:
    """What the UI lists of a partition besides its materializations, newest first."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition])
    records = deployment.instance.fetch_observations(wanted, limit=100).records
    return [record.asset_observation for record in records if record.asset_observation]


def test_a_failed_partition_tells_why(deployment: Deployment, vendor: RunningSimulator) -> None:
    """First of all in its own history, with its dead letters; no sensor follows, and green ones tell nothing."""
    partition = failing_harvest(deployment, vendor)
    letters = DeadLetters(deployment.store).load("performance_data", DAY, partition.partition("|")[2]).letters
    (told,) = told_of(deployment, "performance_data", partition)
    assert list(told.metadata)[:2] == ["why", "failed_requests"]
    count = values(told)["leaves_planned"]
    assert values(told)["why"] == (
        f"{count} of {count} leaves are dead letters, first: the vendor rejects the request: Bad Request; "
        "materialize this partition again to ask for these alone"
    )
    table = told.metadata["failed_requests"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = [record.data for record in table.records]
    assert (row["requests"], row["status"], row["transient"]) == (len(letters), "400", False)
    assert row["reason"] == "the vendor rejects the request: Bad Request"
    assert not told_of(deployment, "warriors", partition)
    statuses = deployment.instance.get_status_by_partition(
        dg.AssetKey("performance_data"), [partition], Partitions.of(deployment.account).day_troop
    )
    assert {status.value for status in (statuses or {}).values() if status} == {"FAILED"}
    result, _ = deployment.sensor("downstream_sensor")
    assert not (isinstance(result, dg.SensorResult) and result.run_requests)
    with dg.DagsterInstance.ephemeral() as new:
        sync(deployment.store, new, lambda line: None, deployment.account)
        (synced,) = told_of(replace(deployment, instance=new), "performance_data", partition)
        assert synced.metadata["failed_requests"] == table
    again = deployment.materialize("performance_data", partition=partition)
    (mended,) = again.asset_materializations_for_node("harvest_chain")
    assert not {"why", "failed_requests"} & set(mended.metadata)
    assert len(told_of(deployment, "performance_data", partition)) == 1


def test_a_day_under_way_is_not_observed_at_each_tick(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """While runs work on a day its dead letters change all the time: one look every few minutes is enough."""
    partition = failing_harvest(deployment, vendor)
    troop = partition.partition("|")[2]
    _, cursor = deployment.sensor("dead_letters_sensor")
    run = started(deployment, "1")
    letters = DeadLetters(deployment.store)
    held = letters.load("performance_data", DAY, troop)
    letters.discard(held, {held.letters[0].request}, who="test", why="gone", at=START)
    _, cursor = deployment.sensor("dead_letters_sensor", cursor)
    assert latest(deployment)[2] == 1
    deployment.instance.delete_run(run.run_id)
    deployment.sensor("dead_letters_sensor", cursor)
    observation, _, count = latest(deployment)
    assert (values(observation)["discarded"], count) == (1, 2)
