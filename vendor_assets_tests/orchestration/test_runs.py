"""What a run is about, however it was started; and that every run of ours holds a lease, also of jobs yet to come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vendor_assets.budget import Leases
from vendor_assets.errors import Reason
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.orchestration.automation import rescue
from vendor_assets.orchestration.automation.rescue import START_SECONDS
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import (
    ASSETS,
    CALLS_TAG,
    DAY_TAG,
    HARVEST_JOB,
    PUBLISH_JOB,
    RETENTION_JOB,
    ROSTER_JOB,
    SIGHTINGS_JOB,
    TRIGGER_TAG,
    TROOPS_TAG,
    About,
    active_days,
    title_of,
)
from vendor_assets.orchestration.runs.events import events_of, options_of
from vendor_assets.orchestration.runs.launching import open_instance
from vendor_assets_tests.support.clock import FakeClock
from vendor_assets_tests.support.deployment import Deployment, deploy

CLICK = "__ASSET_JOB"
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment whose vendor is not asked."""
    monkeypatch.setenv("VENDOR_API_KEY", "k")
    with dg.DagsterInstance.ephemeral() as instance:
        yield deploy(
            tmp_path, instance, VENDOR_URL="http://127.0.0.1:9", VENDOR_API_KEY="k", VENDOR_RATE="9/s"
        )


def run(job: str, *assets: str, config: Any = None, **tags: str) -> dg.DagsterRun:
    chosen = frozenset(map(dg.AssetKey, assets)) or None
    return dg.DagsterRun(job, run_config=config or {}, asset_selection=chosen, tags=tags)


def all_jobs(deployment: Deployment) -> list[Any]:
    return list(deployment.definitions.get_repository_def().get_all_jobs())


def test_every_job_of_ours_holds_a_lease(quiet: Deployment) -> None:
    """Whatever step a run has, also one that only checks, it needs the harvester or the lease."""
    jobs = all_jobs(quiet)
    assert {job.name for job in jobs} >= {
        ROSTER_JOB,
        HARVEST_JOB,
        SIGHTINGS_JOB,
        RETENTION_JOB,
        PUBLISH_JOB,
        CLICK,
    }
    bare = {
        (job.name, node.name)
        for job in jobs
        for node in job.all_node_defs
        if isinstance(node, dg.OpDefinition) and not {"harvester", "run_lease"} & node.required_resource_keys
    }
    assert not bare


def test_the_assets_of_a_job_are_those_that_it_makes(quiet: Deployment) -> None:
    """A run of a job names no assets: what it is about is what the job is made of, for every job of assets."""
    for job in all_jobs(quiet):
        if job.name == HARVEST_JOB:
            continue
        made = set()
        if job.name not in (SIGHTINGS_JOB, RETENTION_JOB):
            made = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        about = About(run(job.name), Names())
        assert set(about.assets) == made, job.name
        assert about.ours, job.name
        assert about.harvests == (job.name != PUBLISH_JOB), job.name


@pytest.mark.parametrize(
    ("of", "assets", "days"),
    [
        (run(ROSTER_JOB, **{"dagster/partition": "2026-11-20"}), ("troops",), {"2026-11-20"}),
        (run(CLICK, "warriors", **{"dagster/partition": "2026-11-20|a|b"}), ("warriors",), {"2026-11-20"}),
        (
            run(CLICK, "performance_data", "warriors", **{START: "2026-11-20|1", END: "2026-11-23|9"}),
            ("warriors", "performance_data"),
            {"2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"},
        ),
        (run(CLICK, "troops", "daily_performance"), ("troops", "daily_performance"), set()),
        (run(CLICK), ASSETS, set()),
        (
            run(HARVEST_JOB, config=harvest_config(Names(), ["2026-11-20|1", "2026-11-22|1"], ["warriors"])),
            ("warriors",),
            {"2026-11-20", "2026-11-22"},
        ),
        (run(SIGHTINGS_JOB), (), set()),
        (
            run(PUBLISH_JOB, **{DAY_TAG: "2026-11-20"}),
            ("daily_performance", "performance_report"),
            {"2026-11-20"},
        ),
        (run(PUBLISH_JOB, "performance_report"), ("performance_report",), set()),
        (run(CLICK, "their_own"), (), set()),
        (run("their_job"), (), set()),
    ],
)
def test_what_a_run_is_about(of: dg.DagsterRun, assets: tuple[str, ...], days: set[str]) -> None:
    """Assets and days are the same however a run was started; all days of a range count, not its ends alone."""
    about = About(of, Names())
    assert (about.assets, set(about.days)) == (assets, days)
    assert about.ours == (of.job_name != "their_job" and "their_own" not in str(of.asset_selection))


@pytest.mark.parametrize("config", [{"ops": None}, {"ops": {"harvest_partitions": 3}}, {"ops": []}])
def test_what_nobody_of_us_wrote_ends_no_tick(config: Any) -> None:
    """Run config and tags are anybody's to write; what cannot be read says nothing."""
    about = About(
        run(HARVEST_JOB, config=config, **{CALLS_TAG: "many", START: "x", END: "2026-11-20"}), Names()
    )
    assert (about.assets, about.calls) == ((), None)
    with pytest.raises(ValueError, match="troops"):
        _ = About(run(ROSTER_JOB, **{TROOPS_TAG: "{}"}), Names()).troops


def test_a_retry_has_no_estimate() -> None:
    """That of the run before counted what has landed since."""
    of = run(HARVEST_JOB, **{CALLS_TAG: "204867"})
    assert About(of, Names()).calls == 204867
    again = of._replace(parent_run_id="x", root_run_id="x")
    assert About(again, Names()).calls is None


def started(instance: dg.DagsterInstance, of: dg.DagsterRun, ago: timedelta = timedelta(minutes=5)) -> str:
    """Put a run into an instance that began a while ago; its id."""
    instance.add_run(of._replace(status=dg.DagsterRunStatus.STARTING))
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, of.job_name)
    instance.run_storage.handle_run_event(of.run_id, event, datetime.now(UTC) - ago)
    return of.run_id


def test_a_run_of_ours_whose_lease_is_gone_is_failed(quiet: Deployment) -> None:
    """Whatever its job and selection; one whose lease is renewed is alive, and a run of others is none of ours."""
    leases = Leases(quiet.account.database_url)
    dead = [
        started(quiet.instance, of)
        for of in (
            run(ROSTER_JOB),
            run(PUBLISH_JOB),
            run(SIGHTINGS_JOB),
            run(CLICK, "performance_report"),
            run(CLICK, "troops"),
            run(HARVEST_JOB, config=harvest_config(Names(), ["2026-11-20|1"], ["warriors"])),
        )
    ]
    alive, theirs = started(quiet.instance, run(ROSTER_JOB)), started(quiet.instance, run(CLICK, "their_own"))
    memory = rescue.Memory()
    with leases.hold(alive, info={}):
        for now in (0, START_SECONDS):
            rescue.fail_lapsed(memory, quiet.instance, Names(), leases.all(), now)
    statuses = {one.run_id: one.status for one in quiet.instance.get_runs()}
    assert {statuses[run_id] for run_id in dead} == {dg.DagsterRunStatus.FAILURE}
    assert {statuses[run_id] for run_id in (alive, theirs)} == {dg.DagsterRunStatus.STARTED}


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=2), timedelta(hours=-2)])
def test_no_clock_of_a_worker_is_believed(quiet: Deployment, ahead: timedelta) -> None:
    """Where a worker's clock is wrong its death is noticed no later, and a run that has just begun is left alone."""
    clock = FakeClock()
    leases = Leases(quiet.account.database_url, clock=clock)
    lapsed, without = (started(quiet.instance, run(ROSTER_JOB), -ahead) for _ in range(2))
    leases.renew(lapsed, {})
    clock.sleep(11)
    begun, failed = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
    memory = rescue.Memory()
    seen = []
    for now in (0, 15, START_SECONDS - 1, START_SECONDS):
        rescue.fail_lapsed(memory, quiet.instance, Names(), leases.all(), now)
        statuses = {one.run_id: one.status for one in quiet.instance.get_runs()}
        seen.append((statuses[lapsed], statuses[without]))
    assert seen == [(begun, begun), (failed, begun), (failed, begun), (failed, failed)]


@pytest.mark.parametrize(
    ("asset", "check", "ours"),
    [
        ("dead_letters", "none_open", True),
        ("daily_performance", "fresh", True),
        ("their_own", "fresh", False),
    ],
)
def test_a_run_that_only_checks_is_of_the_account(asset: str, check: str, ours: bool) -> None:
    """It makes no asset, and its death is noticed all the same."""
    selected = frozenset({dg.AssetCheckKey(dg.AssetKey(asset), check)})
    about = About(dg.DagsterRun(CLICK, asset_selection=frozenset(), asset_check_selection=selected), Names())
    assert (about.assets, about.ours) == ((), ours)


def test_a_run_that_publishes_is_seen_to_live(quiet: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a lease in its own name while it runs, also where it fails."""
    held: list[str] = []
    hold = Leases.hold

    def watched(self: Leases, holder: str, *, info: Any) -> Any:
        held.append(holder)
        return hold(self, holder, info=info)

    monkeypatch.setattr(Leases, "hold", watched)
    # What publishes asks no vendor, and needs no key of one.
    monkeypatch.delenv("VENDOR_API_KEY")
    result = quiet.run(dg.RunRequest(job_name=PUBLISH_JOB, partition_key="2026-11-20"))
    assert held == [result.run_id]
    assert Leases(quiet.account.database_url).holder(result.run_id) is None


def test_every_run_of_ours_makes_its_days_busy(quiet: Deployment) -> None:
    """A day that is published, harvested or read anew is at work, so that nothing is started for it a second time."""
    started(quiet.instance, run(PUBLISH_JOB, **{"dagster/partition": "2026-11-20"}))
    started(quiet.instance, run(CLICK, "daily_performance", **{"dagster/partition": "2026-11-21"}))
    started(quiet.instance, run(ROSTER_JOB, **{"dagster/partition": "2026-11-22"}))
    started(quiet.instance, run(CLICK, "their_own", **{"dagster/partition": "2026-11-23"}))
    assert active_days(quiet.instance, Names()) == {"2026-11-20", "2026-11-21", "2026-11-22"}


@pytest.mark.parametrize(
    ("kind", "retryable", "shown"), [("harvest", False, True), ("upstream", False, False), ("x", True, False)]
)
def test_what_will_not_pass_by_itself_fails_a_check(kind: str, retryable: bool, shown: bool) -> None:
    """An empty roster after a full one, for instance; an outage or a failure upstream says nothing on what is there."""
    outcome = Outcome(
        "troops", date(2026, 11, 20), None, "failed", message="why", retryable=retryable, reason=Reason(kind)
    )
    checks = [
        event
        for event in events_of(outcome, Names(), uri="/x", account=None)
        if isinstance(event, dg.AssetCheckEvaluation)
    ]
    assert [(check.check_name, check.passed) for check in checks] == [("complete", False)] * shown


@pytest.mark.parametrize("silent", [0, 2])
def test_listed_data_groups_without_rows_are_warned_of(silent: int) -> None:
    """A complete partition stays green, and a check warns of what was listed and has not one row."""
    details = {"data_groups_without_rows": silent} if silent else {}
    outcome = Outcome(
        "performance_data", date(2026, 11, 20), "1", "complete", harvest_id="h", rows=24, details=details
    )
    events = list(events_of(outcome, Names(), uri="/x", account=None))
    assert isinstance(events[0], dg.AssetMaterialization)
    (check,) = [
        event
        for event in events
        if isinstance(event, dg.AssetCheckEvaluation) and event.check_name == "listed_have_rows"
    ]
    assert (check.passed, check.severity) == (not silent, dg.AssetCheckSeverity.WARN)


@pytest.mark.parametrize(
    ("partitions", "title"),
    [
        (["2026-11-20|checkout-eu.200000000"], "checkout-eu"),
        (["2026-11-20|42", "2026-11-20|api.v2.7"], "42 and 1 more"),
        ([f"2026-11-20|{name}.1" for name in "abcde"], "a and 4 more"),
        (["2026-11-20|a.1", "2026-11-21|a.1"], "a, 2 days"),
    ],
)
def test_the_title_of_a_run_names_its_troops(partitions: list[str], title: str) -> None:
    """It fits into the list of runs, however many partitions there are."""
    assert title_of(partitions) == title


@pytest.mark.parametrize(
    ("workspace", "location"),
    [
        ("", "vendor_assets.definitions"),
        ("load_from: [{python_file: {relative_path: mine.py, location_name: ours}}]", "ours"),
    ],
)
def test_a_run_of_the_command_belongs_to_the_code_location(
    tmp_path: Path, workspace: str, location: str
) -> None:
    """The overview and the pages of jobs show it like those that Dagster launches, and nobody retries it."""
    if workspace:
        (tmp_path / "workspace.yaml").write_text(workspace)

    @dg.job
    def nothing() -> None: ...

    with open_instance(tmp_path, {}) as instance:
        run_id = nothing.execute_in_process(instance=instance).run_id
        run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.remote_job_origin is not None
    assert run.remote_job_origin.location_name == location
    assert run.remote_job_origin.job_name == "nothing"
    assert run.tags[".dagster/repository"] == f"__repository__@{location}"


def test_an_order_of_an_earlier_release_is_not_taken_for_a_click() -> None:
    """A queued run's trigger had another name; taken for a click it would ask for everything again."""
    assert (
        options_of(run(HARVEST_JOB, **{"vendor_assets/trigger": "sensor"}), Names()).finished == "reconcile"
    )
    assert options_of(run(HARVEST_JOB, **{TRIGGER_TAG: "sensor"}), Names()).finished == "reconcile"
    assert options_of(run(HARVEST_JOB), Names()).finished == "replace"


@pytest.mark.parametrize(
    ("partitions", "assets", "said"),
    [
        (["nonsense"], ["warriors"], "partitions has 'nonsense'; give days with keys of troops"),
        (["2026-02-30|1"], ["warriors"], "partitions has '2026-02-30|1'"),
        (["2026-11-20|../../x"], ["warriors"], "partitions has '2026-11-20|../../x'"),
        (["2026-11-20"], ["warriors"], "partitions has '2026-11-20'"),
        (["2026-11-20|1"], ["troops", "nope"], "assets has nope, troops; accepted are warriors"),
    ],
)
def test_a_mistyped_configuration_is_one_line(
    quiet: Deployment, partitions: list[str], assets: list[str], said: str
) -> None:
    """A run of the launchpad that names what cannot be fails with that, and plans nothing."""
    config = harvest_config(Names(), partitions, assets)
    result = quiet.run(dg.RunRequest(job_name=HARVEST_JOB, run_config=config))
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert str(failure.description).startswith(said)
    assert quiet.instance.get_latest_materialization_event(dg.AssetKey("warriors")) is None


def test_a_partition_that_is_named_twice_is_harvested_once(
    quiet: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the run would compete with itself for it."""
    asked: list[Any] = []
    monkeypatch.setattr(
        Harvester, "chain", lambda self, assets, partitions, options: asked.append(partitions) or []
    )
    config = harvest_config(Names(), ["2026-11-20|1", "2026-11-20|2", "2026-11-20|1"], ["warriors"])
    quiet.run(dg.RunRequest(job_name=HARVEST_JOB, run_config=config))
    assert [troop for _, troop in asked[0]] == ["1", "2"]
