"""A day harvested by NerdGraph of the embedded vendor; its log, and what REST v2 says, are the judges."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.account import Account
from vendor_assets.client import VendorClient
from vendor_assets.orchestration.definitions import build_resources
from vendor_assets.settings import read
from vendor_assets.simulator.world import day_window
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import differing_rows, harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)
HARVEST = ("harvest", "--no-report", "--json", "--day")


def command(folder: Path, vendor: RunningSimulator, **environ: str) -> Command:
    settings = {
        "VENDOR_KIND": "nerdgraph",
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_ACCOUNT": "1234567",
        "VENDOR_SHARE": "1",
    }
    return Command(folder, settings | environ)


def graphql(vendor: RunningSimulator) -> Mapping[str, int]:
    """What the vendor counted of documents."""
    found: Mapping[str, int] = vendor.log()["graphql"]
    return found


def test_a_day_has_the_rows_of_rest_v2_for_few_calls(tmp_path: Path) -> None:
    """Every row is REST's, to its rounding; a troop costs two calls, and again none."""
    with simulator(world="small", warriors=30, churn=False) as vendor:
        running = command(tmp_path, vendor)
        finished = running.run(*HARVEST, DAY.isoformat())
        assert finished.code == 0, finished.out + finished.err
        assert (
            differing_rows(harvested_rows(FolderStore(tmp_path / "data"), DAY), true_rows(vendor.world, DAY))
            == {}
        )
        troops = len(vendor.world.troops_on(DAY, "UTC"))
        assert vendor.calls() == graphql(vendor)["documents"] == 1 + 2 * troops
        assert vendor.log()["violations"] == 0
        before = (DAY - timedelta(days=1)).isoformat()
        planned = running.run("plan", "--from", before, "--to", before, "--json").json
        assert planned["calls"] == 1 + 2 * troops
        assert running.run(*HARVEST, DAY.isoformat()).json["calls_made"] == 0
        assert vendor.calls() == 1 + 2 * troops


def test_a_warrior_that_comes_later_has_its_data(tmp_path: Path) -> None:
    """One that a filter left out, and one that was not listed yet: the list's new answer is that of the data groups."""
    with simulator(world="small", churn=False) as vendor:
        troop = vendor.world.troops_on(DAY, "UTC")[0]
        first = vendor.world.warriors_on(troop.id, DAY)[0]
        narrow = command(tmp_path, vendor, VENDOR_ASSETS_WARRIORS=f"!{first.id}")
        assert narrow.run(*HARVEST, DAY.isoformat()).code == 0
        store, truth = FolderStore(tmp_path / "data"), true_rows(vendor.world, DAY)
        assert {row[1] for row in differing_rows(harvested_rows(store, DAY), truth)} == {first.id}
        running = command(tmp_path, vendor)
        assert running.run(*HARVEST, DAY.isoformat()).code == 0
        assert differing_rows(harvested_rows(store, DAY), truth) == {}


def test_a_query_that_fails_costs_its_siblings_nothing(tmp_path: Path) -> None:
    """The first query of each tenth document times out, one metric of one agent always: that alone is dead."""
    with simulator(world="small", warriors=3, churn=False) as vendor:
        troop = vendor.world.troops_on(DAY, "UTC")[0]
        start, _ = day_window(DAY)
        window = vendor.world.warriors_between(troop.id, start, start + 86_400)
        always = f"realAgentId IN [^)]*'{window[0].id}'.*'HttpDispatcher'.*SINCE {start * 1000} "
        vendor.faults(
            [
                {"kind": "alias_timeout", "every": 10, "match": "TIMESERIES"},
                {"kind": "nrql_timeout", "match": always},
            ]
        )
        running = command(tmp_path, vendor, VENDOR_ASSETS_RESOLUTION="120")
        finished = running.run(*HARVEST, DAY.isoformat())
        assert finished.code == 3, finished.out + finished.err
        letters = running.run("dead-letters", "list", "--json").json
        leaves = [leaf for letter in letters for leaf in letter["leaves"]]
        assert len(set(leaves)) == 1, leaves
        assert leaves[0].startswith(f"{window[0].id}|HttpDispatcher|{start}-")
        found = harvested_rows(FolderStore(tmp_path / "data"), DAY)
        wrong = differing_rows(found, true_rows(vendor.world, DAY, resolution_seconds=120))
        assert wrong
        assert {row[1:3] for row in wrong} == {(window[0].id, "HttpDispatcher")}
        assert all(row not in found for row in wrong)
        vendor.clear_faults()
        redriven = running.run("dead-letters", "redrive", "--json")
        assert redriven.code == 0, redriven.out + redriven.err
        found = harvested_rows(FolderStore(tmp_path / "data"), DAY)
        assert differing_rows(found, true_rows(vendor.world, DAY, resolution_seconds=120)) == {}


def test_what_is_too_much_is_learnt(tmp_path: Path) -> None:
    """Where a query of that size times out, smaller ones are asked from then on; everything comes."""
    with simulator(world="small", churn=False, points_per_second=60) as vendor:
        running = command(tmp_path, vendor)
        finished = running.run(*HARVEST, DAY.isoformat())
        assert finished.code == 0, finished.out + finished.err
        assert (
            differing_rows(harvested_rows(FolderStore(tmp_path / "data"), DAY), true_rows(vendor.world, DAY))
            == {}
        )


def test_four_processes_stay_below_the_requests_at_once(tmp_path: Path) -> None:
    """Four days by four processes and a vendor that is slow: never more at once than the user may have."""
    with simulator(
        world="small", troops=12, warriors=12, churn=False, requests_at_once=5, latency=0.3
    ) as vendor:
        running = command(tmp_path, vendor, VENDOR_MAX_IN_FLIGHT="5")
        days = [DAY - timedelta(days=number) for number in range(4)]
        processes = [running.start(*HARVEST, day.isoformat()) for day in days]
        for process in processes:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, out + err
        assert vendor.log()["violations"] == 0
        assert graphql(vendor)["peak_in_flight"] == 5


def test_accounts_of_one_user_stay_below_its_requests_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members each of two accounts, with one key: never more at once than the user may have; all is used."""
    with simulator(world="small", churn=False, requests_at_once=5, latency=0.05) as vendor:
        environ = {
            "VENDOR_KIND": "nerdgraph",
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_SHARE": "1",
            "VENDOR_MAX_IN_FLIGHT": "5",
        }
        # Dagster's resources refer to it.
        monkeypatch.setenv("VENDOR_API_KEY", KEY)
        accounts = [read(environ | {"VENDOR_ACCOUNT": name}, root=tmp_path) for name in ("1", "2")]
        with ExitStack() as stack, ThreadPoolExecutor(40) as pool:
            clients = [stack.enter_context(client_of(account)) for account in (*accounts, *accounts)]
            fetches = [pool.submit(client.fetch, accounts[0].vendor.probe()) for client in clients * 20]
            assert [fetch.result().response.status for fetch in fetches] == [200] * 80
        assert vendor.log()["violations"] == 0
        assert graphql(vendor)["peak_in_flight"] == 5


@contextmanager
def client_of(account: Account) -> Iterator[VendorClient]:
    """A client as a run of an account has it."""
    vendor_api = build_resources(account)["vendor_api"].process_config_and_initialize()
    with vendor_api.client() as client:
        yield client


def test_a_killed_harvest_pays_for_nothing_twice(tmp_path: Path) -> None:
    """After kill -9 the next run asks for what had not landed: at most five seconds' worth of calls again."""
    with simulator(world="small", troops=30, warriors=30, churn=False, latency=0.2) as vendor:
        running = command(tmp_path, vendor, VENDOR_MAX_IN_FLIGHT="2")
        process = running.start(*HARVEST, DAY.isoformat())
        deadline = time.monotonic() + 120
        while vendor.calls() < 40 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        arrivals = [at for at, *_ in vendor.log(arrivals=True)["arrivals"]]
        bound = sum(1 for at in arrivals if at > arrivals[-1] - 5.0)
        finished = running.run(*HARVEST, DAY.isoformat())
        assert finished.code == 0, finished.out + finished.err
        assert (
            differing_rows(harvested_rows(FolderStore(tmp_path / "data"), DAY), true_rows(vendor.world, DAY))
            == {}
        )
        assert vendor.calls() - (1 + 2 * 30) <= bound


def test_an_account_that_the_key_does_not_reach_is_no_empty_one(tmp_path: Path) -> None:
    """Its search of entities is empty; the harvest and the doctor say that it is refused, and nothing is complete."""
    with simulator(world="small", churn=False) as vendor:
        wrong = command(tmp_path, vendor, VENDOR_ACCOUNT="7654321")
        finished = wrong.run(*HARVEST, DAY.isoformat())
        assert finished.code == 1, finished.out
        assert "account 7654321" in finished.out + finished.err
        assert not {*finished.json["states"]} & {"complete", "empty"}
        doctor = wrong.run("doctor")
        assert (doctor.code, "account 7654321" in doctor.out) == (1, True), doctor.out
        assert command(tmp_path / "right", vendor).run("doctor").code == 0


def test_a_vendor_without_troops_is_told_of(tmp_path: Path) -> None:
    """Nothing to harvest may be a mistake of ours: the summary and the doctor say where to look."""
    with simulator(world="small", churn=False, troops=0) as vendor:
        running = command(tmp_path, vendor)
        finished = running.run("harvest", "--no-report", "--day", DAY.isoformat())
        assert finished.code == 0, finished.out
        assert "lists no troops; is the account right" in finished.out
        assert "lists no troops; is the account right" in running.run("doctor").out
