"""Backfills, ranges and Dagster's own automation: what they share with our sensors is paid for once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.execution.backfill import PartitionBackfill

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.partitions import day_troop_key
from vendor_assets_tests.support.deployment import Deployment, yesterday
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

# Dagster's own, as it finds the partitions of a backfill.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning"
)
DAY = yesterday()
TEXT = DAY.isoformat()
BEFORE = DAY - timedelta(days=1)


def followed(deployment: Deployment) -> list[dg.RunRequest]:
    """What the sensor requests, of all rosters there are: it has no cursor."""
    result, _ = deployment.sensor("roster_sensor")
    return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []


def harvested(deployment: Deployment, day: str = TEXT) -> list[str]:
    """Harvest a day after a click on its troops; the keys of its troops."""
    assert deployment.materialize("troops", partition=day).success
    for request in followed(deployment):
        assert deployment.run(request).success
    return sorted(deployment.instance.get_dynamic_partitions("troop"))


def backfill(deployment: Deployment, *assets: str) -> dict[str, str]:
    """Begin a backfill of the newest day, as the dialog does; the tags of its runs."""
    begun = PartitionBackfill.from_asset_partitions(
        backfill_id="anew",
        asset_graph=deployment.definitions.resolve_asset_graph(),
        partition_names=[TEXT],
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        backfill_timestamp=datetime.now(UTC).timestamp(),
        tags={},
        dynamic_partitions_store=deployment.instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    deployment.instance.add_backfill(begun)
    return {"dagster/backfill": "anew"}


def said(result: dg.ExecuteInProcessResult) -> tuple[str, int]:
    """What a failed run says, and how many lines of a stack it shows."""
    (failed,) = (event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failed.error is not None
    return failed.error.message, len(failed.error.stack)


@pytest.mark.parametrize("chosen", [CHAIN, CHAIN[:1]])
def test_what_a_backfill_harvests_itself_is_requested_by_no_sensor(
    deployment: Deployment, vendor: RunningSimulator, chosen: tuple[str, ...]
) -> None:
    """All assets of a day in one backfill, also of a day that was harvested: each list and leaf is asked for once."""
    troops = harvested(deployment, BEFORE.isoformat())
    tags = backfill(deployment, "troops", *chosen)
    before = vendor.log()["requests"]
    assert deployment.materialize("troops", partition=TEXT, tags=tags).success
    assert followed(deployment) == []
    between = f"{TEXT}|{troops[0]}", f"{TEXT}|{troops[-1]}"
    assert deployment.materialize(*chosen, between=between, tags=tags).success
    below, _ = deployment.sensor("downstream_sensor")
    assert isinstance(below, dg.SensorResult)
    assert all(deployment.run(request).success for request in below.run_requests or ())
    log = vendor.log()
    assert log["repeated_leaves"]["total"] == 0
    assert log["requests"] - before == before
    assert harvested_rows(deployment.store, DAY) == true_rows(vendor.world, DAY)


def test_a_backfill_that_takes_one_asset_after_the_other_is_paid_once(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """As Dagster's daemon does where it sees a roster before the others of its run are there."""
    troops = harvested(deployment, BEFORE.isoformat())
    tags = backfill(deployment, "troops", *CHAIN)
    before = vendor.log()["requests"]
    assert deployment.materialize("troops", partition=TEXT, tags=tags).success
    between = f"{TEXT}|{troops[0]}", f"{TEXT}|{troops[-1]}"
    for asset in CHAIN:
        assert deployment.materialize(asset, between=between, tags=tags).success
        below, _ = deployment.sensor("downstream_sensor")
        assert isinstance(below, dg.SensorResult)
        assert not below.run_requests
    log = vendor.log()
    assert log["repeated_leaves"]["total"] == 0
    assert log["requests"] - before == before


def test_a_backfill_of_rosters_alone_is_followed(deployment: Deployment) -> None:
    """What it does not harvest itself, the sensor requests; so too where its record is gone."""
    harvested(deployment, BEFORE.isoformat())
    assert deployment.materialize("troops", partition=TEXT, tags=backfill(deployment, "troops")).success
    (request,) = followed(deployment)
    assert request.tags["vendor_assets/class"] == "backfill"
    assert deployment.materialize("troops", partition=TEXT, tags={"dagster/backfill": "gone"}).success
    assert len(followed(deployment)) == 1


def test_a_day_is_published_whose_troop_somebody_deleted(deployment: Deployment) -> None:
    """Of a troop that is gone the partitions are in the way; what was harvested of its days counts all the same."""
    troop, *_ = harvested(deployment)
    deployment.instance.delete_dynamic_partition("troop", troop)
    result, _ = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert deployment.run(request).success


def test_a_lost_cursor_requests_nothing_again(deployment: Deployment) -> None:
    """As in a code location with a new name, whose sensors begin with all rosters there are."""
    harvested(deployment)
    assert followed(deployment) == []


def test_what_dagster_forgot_is_not_fetched_again(deployment: Deployment, vendor: RunningSimulator) -> None:
    """After a wipe the missing partitions are materialized from the store; a click on what is green fetches it anew."""
    troops = harvested(deployment)
    before = vendor.log()["requests"]
    deployment.instance.wipe_assets([dg.AssetKey(asset) for asset in ("troops", *CHAIN)])
    between = f"{TEXT}|{troops[0]}", f"{TEXT}|{troops[-1]}"
    assert deployment.materialize("troops", partition=TEXT).success
    assert deployment.materialize(*CHAIN, between=between).success
    green = deployment.instance.get_materialized_partitions(dg.AssetKey("performance_data"))
    assert green == {day_troop_key(DAY, troop) for troop in troops}
    assert vendor.log()["requests"] == before
    assert deployment.materialize(*CHAIN, between=between).success
    assert vendor.log()["requests"] == 2 * before - 1


def test_a_click_that_waited_for_another_fetches_nothing_again(
    deployment: Deployment, vendor: RunningSimulator
) -> None:
    """Two clicks on a finished day, or one on a day whose canceled run goes on: what came since is what was meant."""
    troop, *_ = harvested(deployment)
    before = vendor.log()["requests"]
    chosen = frozenset(map(dg.AssetKey, CHAIN))
    job = deployment.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=chosen)
    tags = {"dagster/partition": f"{TEXT}|{troop}"}
    waiting = deployment.instance.create_run_for_job(job, tags=tags, asset_selection=chosen)
    assert deployment.materialize(*CHAIN, partition=f"{TEXT}|{troop}").success
    once = vendor.log()["requests"]
    assert once > before
    assert execute_run(InMemoryJob(job), waiting, deployment.instance).success
    assert vendor.log()["requests"] == once


def test_an_automation_condition_is_no_click(deployment: Deployment, vendor: RunningSimulator) -> None:
    """A condition that somebody put on our assets asks for nothing that is there."""
    troop, *_ = harvested(deployment)
    before = vendor.log()["requests"]
    tags = {"dagster/from_automation_condition": "true"}
    assert deployment.materialize(*CHAIN, partition=f"{TEXT}|{troop}", tags=tags).success
    assert vendor.log()["requests"] == before


def test_a_key_that_no_troop_can_have_fails_alone(deployment: Deployment) -> None:
    """Somebody added it in the dialog; the others of its run are harvested."""
    deployment.materialize("troops", partition=TEXT)
    followed(deployment)
    typed = "aa/../b"
    deployment.instance.add_dynamic_partitions("troop", [typed])
    keys = deployment.instance.get_dynamic_partitions("troop")
    result = deployment.materialize(*CHAIN, between=(f"{TEXT}|{keys[0]}", f"{TEXT}|{typed}"))
    assert said(result)[0].startswith(
        f"{len(CHAIN)} of {len(CHAIN) * len(keys)} partitions did not become complete"
    )
    assert f"troop {typed!r} is not a partition key" in said(result)[0]
    green = deployment.instance.get_materialized_partitions(dg.AssetKey("performance_data"))
    assert green == {day_troop_key(DAY, key) for key in keys if key != typed}


def test_a_range_without_a_partition_is_no_success(deployment: Deployment) -> None:
    """Its ends are in the wrong order: nothing is harvested, and the run is not green."""
    first, *_, last = harvested(deployment)
    message, stack = said(deployment.materialize(*CHAIN, between=(f"{TEXT}|{last}", f"{TEXT}|{first}")))
    assert message.startswith(f"there is no partition from {TEXT}|{last} to {TEXT}|{first}; ")
    assert stack == 0


def test_a_run_without_a_day_says_so(deployment: Deployment) -> None:
    """The launchpad and the command line permit it."""
    job = deployment.definitions.resolve_job_def("roster")
    result = job.execute_in_process(instance=deployment.instance, raise_on_error=False)
    assert said(result) == ("the run has no partition; launch it again with one\n", 0)


@pytest.mark.parametrize("asset", ["daily_performance", "performance_report"])
def test_a_run_of_several_days_where_one_is_taken_says_so(deployment: Deployment, asset: str) -> None:
    """A range of them can be launched only by hand."""
    message, stack = said(deployment.materialize(asset, between=(BEFORE.isoformat(), TEXT)))
    assert message.startswith("the run has 2 days, and takes one; ")
    assert stack == 0
