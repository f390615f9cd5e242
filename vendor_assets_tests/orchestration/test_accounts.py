"""Several accounts in one code location: they share nothing, and merge with assets of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.account import Account
from vendor_assets.orchestration.automation import alerts
from vendor_assets.orchestration.component import VendorAccount
from vendor_assets.orchestration.definitions import build_definitions, build_resources
from vendor_assets.orchestration.names import ACCOUNT_TAG, Names
from vendor_assets.orchestration.partitions import Partitions
from vendor_assets.orchestration.runs.about import About, active_days
from vendor_assets.settings import account_of, read
from vendor_assets_tests.support.deployment import Deployment
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, key_of, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def vendors() -> Iterator[tuple[RunningSimulator, RunningSimulator]]:
    with simulator(world="small", churn=False) as one, simulator(world="small", seed=7, churn=False) as other:
        yield one, other


def account(name: str, vendor: RunningSimulator, folder: Path) -> Account:
    environ = {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": "500/s",
        "VENDOR_ASSETS_STORE": str(folder / name),
        "VENDOR_ASSETS_SETTLING": "0",
    }
    prefix = ("vendors", name) if name == "lab" else None
    return replace(read(environ, root=folder), name=name, key_prefix=prefix)


@pytest.fixture
def both(
    vendors: tuple[RunningSimulator, RunningSimulator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Deployment, Deployment]]:
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    accounts = [
        account(name, vendor, tmp_path) for name, vendor in zip(("prod", "lab"), vendors, strict=True)
    ]
    merged = dg.Definitions.merge(*map(build_definitions, accounts))
    dg.Definitions.validate_loadable(merged)
    with dg.DagsterInstance.ephemeral() as instance:
        prod, lab = (Deployment(each, merged, instance, build_resources(each)) for each in accounts)
        yield prod, lab


def follow(deployment: Deployment) -> None:
    """Let the account's sensors do their work, as the daemon does."""
    names = Names.for_account(deployment.account)
    for name in ("roster_sensor", "publish_sensor"):
        result, _ = deployment.sensor(names.thing(name))
        assert isinstance(result, dg.SensorResult)
        assert all(deployment.run(request).success for request in result.run_requests or ())
        assert all(request.tags[ACCOUNT_TAG] == names.account for request in result.run_requests or ())


def test_two_accounts_stand_side_by_side(
    both: tuple[Deployment, Deployment], vendors: tuple[RunningSimulator, RunningSimulator]
) -> None:
    """Each has its own assets, partitions, jobs and store, and is harvested from its own vendor, to the last row.

    The keys of one have its name as prefix, those of the other a prefix of their own.
    """
    for deployment, vendor in zip(both, vendors, strict=True):
        names = Names.for_account(deployment.account)
        vendor.reset()
        troops = names.key("troops").to_user_string()
        assert deployment.materialize(troops, partition=DAY.isoformat()).success
        follow(deployment)
        assert vendor.log()["violations"] == 0
        assert vendor.calls() > 3
        assert harvested_rows(deployment.store, DAY) == true_rows(vendor.world, DAY)
        for asset in ("troops", "performance_data", "daily_performance", "performance_report"):
            assert deployment.instance.get_materialized_partitions(names.key(asset))
    prod, lab = both
    assert prod.store.url != lab.store.url
    of_prod, of_lab = (Partitions.of(each.account).troops(each.instance) for each in both)
    assert of_prod == {key_of(troop) for troop in vendors[0].world.troops_on(DAY, "UTC")}
    assert of_lab == {key_of(troop) for troop in vendors[1].world.troops_on(DAY, "UTC")}


def test_an_account_sees_only_its_own_runs(both: tuple[Deployment, Deployment]) -> None:
    """What one harvests is no affair of the other: not its days at work, not its alerts."""
    prod, lab = both
    job = prod.definitions.resolve_job_def("prod_roster")
    run = prod.instance.create_run_for_job(
        job, tags={"dagster/partition": "2026-11-20"}, status=dg.DagsterRunStatus.STARTED
    )
    assert About(run, Names("prod")).ours
    assert not About(run, Names("lab")).ours
    assert not About(run, Names()).ours
    assert active_days(prod.instance, Names("prod")) == {"2026-11-20"}
    assert active_days(lab.instance, Names("lab")) == set()
    click = replace_selection(run, ["prod", "troops"])
    assert About(click, Names("prod")).assets == ("troops",)
    assert About(click, Names("lab")).assets == ()
    under = Names.for_account(lab.account)
    assert About(replace_selection(run, ["vendors", "lab", "troops"]), under).assets == ("troops",)
    assert About(replace_selection(run, ["lab", "troops"]), under).assets == ()
    memory = {name: alerts.Memory(seen=0) for name in ("prod", "lab")}
    prod.instance.report_run_failed(run, "it is gone")
    for name, each in memory.items():
        alerts.look(each, prod.instance, Names(name), now=datetime.now(UTC), budget=None, stale=[])
    assert {name: len(each.open) for name, each in memory.items()} == {"prod": 1, "lab": 0}


def replace_selection(run: dg.DagsterRun, path: list[str]) -> dg.DagsterRun:
    """The same as a click on an asset."""
    return run._replace(job_name="__ASSET_JOB", asset_selection=frozenset({dg.AssetKey(path)}))


def test_accounts_merge_with_a_project_of_ones_own(
    vendors: tuple[RunningSimulator, RunningSimulator], tmp_path: Path
) -> None:
    """Beside resources of the same roles, an own asset on top of an account's, and with an own store resource."""
    prod = account("prod", vendors[0], tmp_path)
    names, partitions = Names("prod"), Partitions.of(prod)

    @dg.asset(deps=[names.key("performance_data")], partitions_def=partitions.day_troop)
    def slow_services() -> None: ...

    mine = dg.Definitions(
        assets=[slow_services],
        resources={"store": "mine", "io_manager": dg.mem_io_manager, "vendor_api": 3},
    )
    store = build_resources(account("elsewhere", vendors[0], tmp_path))["elsewhere__store"]
    ours = build_definitions(prod, resources={"store": store}, automation=False)
    merged = dg.Definitions.merge(mine, ours)
    dg.Definitions.validate_loadable(merged)
    assert not list(merged.sensors or ())
    assert not list(merged.schedules or ())
    resources = merged.resources or {}
    assert resources["prod__store"] is store
    assert resources["prod__harvester"].store is store


def test_a_project_keeps_its_own_executor(tmp_path: Path) -> None:
    """A code location has one; our own jobs have their steps in one process whichever it is."""
    one = account_of("prod", {"kind": "prometheus", "url": "http://x"}, {}, root=tmp_path)
    mine = dg.Definitions(executor=dg.multiprocess_executor)
    merged = dg.Definitions.merge(mine, build_definitions(one, in_process=False))
    repository = merged.get_repository_def()
    ours = {job.name: job.executor_def.name for job in repository.get_all_jobs()}
    assert ours.pop("__ASSET_JOB") == "multiprocess"
    assert set(ours.values()) == {"in_process"}
    assert build_definitions(one).executor is dg.in_process_executor
    component = VendorAccount(name="lab", kind="prometheus", url="http://x", in_process=False)
    assert dg.build_defs_for_component(component).executor is None


def test_two_accounts_of_one_name_are_refused(
    vendors: tuple[RunningSimulator, RunningSimulator], tmp_path: Path
) -> None:
    """Dagster says which key is there twice."""
    one = account("prod", vendors[0], tmp_path)
    with pytest.raises(dg.DagsterInvariantViolationError, match="prod"):
        dg.Definitions.merge(build_definitions(one), build_definitions(one))


def test_two_projects_that_ask_with_one_key_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where they share the database, a budget for each of one account is noticed by the second one's first run."""

    def client(name: str, key: str = "k" * 20) -> str:
        caplog.clear()
        environ = {
            "VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": key, "VENDOR_ACCOUNT": name, "VENDOR_RATE": "9/s",
            "VENDOR_ASSETS_DB": f"sqlite:///{tmp_path}/budget.db",
        }  # fmt: skip
        resource = build_resources(read(environ, root=tmp_path / name))["vendor_api"]
        plain = resource.model_copy(update={"api_key": key})
        with plain.client():
            return caplog.text

    assert not client("one")
    assert not client("one")
    assert not client("other", "o" * 20)
    told = client("two")
    assert "http://127.0.0.1:9 is asked with one key as" in told
    assert "#one and new_relic@http://127.0.0.1:9#two" in told
    assert "k" * 20 not in told
    assert (b"k" * 20) not in (tmp_path / "budget.db").read_bytes()
