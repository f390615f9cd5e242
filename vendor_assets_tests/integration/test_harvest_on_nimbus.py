"""A vendor in a package of its own: OAuth 2.0, POST, cursors, queries in two steps, points; its log is the judge."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support import nimbus as world
from vendor_assets_tests.support.command import ROOT, Command
from vendor_assets_tests.support.nimbus import CLIENT, METRICS, SERVICES, Nimbus
from vendor_assets_tests.support.truth import harvested_rows

EXAMPLE = ROOT / "examples" / "nimbus_vendor"
DAY = datetime.now(UTC).date() - timedelta(days=1)
HARVEST = ("harvest", "--no-report", "--json", "--day", DAY.isoformat())
HOSTS = [host for hosts in SERVICES.values() for host in hosts]
QUERIES = 2 * len(HOSTS)


@pytest.fixture
def vendor() -> Iterator[Nimbus]:
    with world.nimbus() as running:
        yield running


@pytest.fixture
def command(tmp_path: Path, vendor: Nimbus) -> Command:
    """The command where the package is installed, as pip would have done it."""
    installed = tmp_path / "installed"
    folder = installed / "nimbus_vendor-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: nimbus_vendor\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("[vendor_assets.vendors]\nnimbus = nimbus_vendor:Nimbus\n")
    settings = {
        "PYTHONPATH": f"{installed}:{EXAMPLE / 'src'}:{ROOT}",
        "VENDOR_KIND": "nimbus",
        "VENDOR_URL": vendor.url,
        "VENDOR_USER": CLIENT[0],
        "VENDOR_PASSWORD": CLIENT[1],
        "VENDOR_RATE": "200/s,30000 points/min",
        "VENDOR_SHARE": "1",
        "VENDOR_ASSETS_RESOLUTION": "3600",
    }
    return Command(tmp_path, settings)


def wait_for(what: Callable[[], Any]) -> None:
    while not what():
        time.sleep(0.05)


def expected(*, without: str = "") -> set[tuple[Any, ...]]:
    """What the table has to hold: host, metric, value's name, start, value."""
    midnight = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    return {
        (host, metric, name, start, world.value(host, metric, start) + more)
        for host in HOSTS
        for metric in METRICS
        if metric != without
        for name, more in (("avg", 0), ("max", 1))
        for start in (midnight + timedelta(hours=hour) for hour in range(24))
    }


def found(folder: Path) -> set[tuple[Any, ...]]:
    rows = harvested_rows(FolderStore(folder / "data"), DAY)
    return {(*row[1:4], row[4], value) for row, value in rows.items()}


def test_the_whole_chain(tmp_path: Path, vendor: Nimbus, command: Command) -> None:
    """Every value is there; each query was submitted once, one token served all, and no point was too many."""
    finished = command.run(*HARVEST)
    assert finished.code == 0, finished.out + finished.err
    assert found(tmp_path) == expected()
    assert len(vendor.submitted) == QUERIES
    assert set(vendor.submitted.values()) == {1}
    assert set(vendor.asked.values()) <= {3, 4, 5}
    # The list of troops and what follows from it are one run, with one client.
    assert (vendor.tokens, vendor.refused) == (1, 0)
    assert vendor.recorder is not None
    assert finished.json["calls_made"] == len(vendor.recorder.received)
    again = command.run(*HARVEST)
    assert again.json["calls_made"] == 0


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_kill_between_the_steps(tmp_path: Path, vendor: Nimbus, command: Command, forgotten: bool) -> None:
    """What was submitted is not submitted again; what the vendor has forgotten meanwhile is, once."""
    vendor.polls = None
    running = command.start(*HARVEST)
    wait_for(lambda: len(vendor.asked) >= QUERIES)
    running.send_signal(signal.SIGKILL)
    running.wait(60)
    assert set(vendor.submitted.values()) == {1}
    assert len(vendor.submitted) == QUERIES
    vendor.polls = 0
    if forgotten:
        vendor.forget()
    finished = command.run(*HARVEST)
    assert finished.code == 0, finished.out + finished.err
    assert found(tmp_path) == expected()
    assert len(vendor.submitted) == QUERIES
    assert set(vendor.submitted.values()) == {2 if forgotten else 1}
    assert vendor.refused == 0


def test_a_query_that_fails_by_itself(tmp_path: Path, vendor: Nimbus, command: Command) -> None:
    """Exactly the metric that makes it fail is dead; redriven, it is complete."""
    vendor.failing = {METRICS[3]}
    finished = command.run(*HARVEST)
    assert finished.code == 3, finished.out + finished.err
    assert found(tmp_path) == expected(without=METRICS[3])
    letters = command.run("dead-letters", "list", "--json").json
    leaves = {leaf for letter in letters for leaf in letter["leaves"]}
    assert len(leaves) == len(HOSTS)
    assert all(leaf.split("|")[1] == "metric%2003" for leaf in leaves)
    vendor.failing = set()
    redriven = command.run("dead-letters", "redrive", "--json")
    assert redriven.code == 0, redriven.out + redriven.err
    assert found(tmp_path) == expected()


def test_a_recording_waits_for_answers_and_its_cases_hold(command: Command, tmp_path: Path) -> None:
    """A query in two steps becomes one case, whose pages are what was submitted and what came of it."""
    recorded = command.run("vendor", "record", "cases")
    assert recorded.code == 0, recorded.out + recorded.err
    pages = json.loads((tmp_path / "cases" / "performance_data.json").read_text())["pages"]
    assert [page["status"] for page in pages] == [201, 200]
    checked = command.run("vendor", "check", "nimbus", "--cases", "cases")
    assert checked.code == 0, checked.out + checked.err
    written = "".join(path.read_text() for path in (tmp_path / "cases").iterdir())
    assert not any(name in written for name in (*SERVICES, *HOSTS, *CLIENT, "Bearer", "token-"))
