"""A day harvested from Datadog's API of the embedded vendor; the world's truth and the vendor's log are the judges.

The simulator's Datadog was written from the documentation alone, and this dialect without a look at it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.simulator.world import World, day_window
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_table
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import Rows, harvested_rows, true_rows

DAY = date(2026, 11, 18)
"""The day before services were renamed."""
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HARVEST = ("harvest", "--no-report", "--json", "--day")
COUNTED = ("call_count", "error_count", "s", "t", "f", "count")
COUNTS = "*.call_count *.error_count Apdex.s Apdex.t Apdex.f Apdex.count"


def command(folder: Path, vendor: RunningSimulator, **environ: str) -> Command:
    settings = {
        "VENDOR_KIND": "datadog",
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_APPLICATION_KEY": "the-other-key",
        "VENDOR_OPTIONS": f"counts={COUNTS}",
        "VENDOR_SHARE": "1",
        "VENDOR_RATE": "200/s",
    }
    return Command(folder, settings | environ)


def service_of(name: str) -> str:
    """The tag that a troop's name becomes: lower case, an underscore for what a tag cannot have.

    Source: getting_started/tagging; DataDog/documentation#6589 for several underscores and the last one.
    """
    return re.sub(r"[^\w:./-]+|_+", "_", name.lower()).rstrip("_")


def services_of_hosts(world: World) -> dict[str, tuple[str, str]]:
    """Host and service by warrior of the day; a service is that of the last tags that the host has reported."""
    found = {}
    for troop in world.troops_on(DAY):
        for warrior in world.warriors_on(troop.id, DAY):
            last = min(warrior.died - 60, NOW.timestamp())
            name = next(each.name for each in world.troops(last) if each.id == troop.id)
            found[warrior.id] = (warrior.host, service_of(name))
    return found


def datadog_rows(world: World, resolution_seconds: int = 1800) -> Rows:
    """The day's truth in Datadog's names: troop is the host's service, warrior the host.

    A metric is data group and value name, with an underscore for what a metric's name cannot have (source:
    metrics/custom_metrics); what is counted is a sum, all else an average.
    """
    hosts = services_of_hosts(world)
    found: Rows = {}
    for (_, warrior, group, name, start, end), value in true_rows(
        world, DAY, resolution_seconds=resolution_seconds
    ).items():
        host, service = hosts[warrior]
        metric = re.sub(r"[^a-zA-Z0-9_.]", "_", f"{group}.{name}")
        value_name = f"{'sum' if name in COUNTED else 'avg'}:{metric}"
        found[service, host, metric.rpartition(".")[0], value_name, start, end] = value
    return found


def admitted(vendor: RunningSimulator) -> dict[str, int]:
    """Calls that each bucket of limits admitted."""
    found = Counter[str]()
    for window in vendor.log()["buckets"]:
        found[window["bucket"]] += window["admitted"]
    return dict(found)


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningSimulator]:
    limits = ["metrics_query=100000/3600", "metrics_list=100000/3600"]
    with simulator(world="small", seed=23, now=NOW.isoformat(), datadog_limit=limits) as running:
        yield running


@pytest.fixture
def vendor(shared: RunningSimulator) -> RunningSimulator:
    """A vendor without faults and without a past."""
    shared.reset()
    shared.set_clock(NOW.isoformat())
    return shared


def harvest(folder: Path, vendor: RunningSimulator, **environ: str) -> Rows:
    """Harvest the day completely; returns its rows."""
    finished = command(folder, vendor, **environ).run(*HARVEST, DAY.isoformat())
    assert finished.code == 0, finished.out + finished.err
    return harvested_rows(FolderStore(folder / "data"), DAY, left_out=True)


def checkout(rows: Rows) -> Rows:
    """The rows of the one service that most tests harvest."""
    return {row: value for row, value in rows.items() if row[0] == "checkout_eu"}


CHECKOUT = {"VENDOR_ASSETS_TROOPS": "checkout_eu"}


def test_a_day_is_whole_for_few_calls(tmp_path: Path, vendor: RunningSimulator) -> None:
    """Every value of every host is the world's, also of hosts of the morning alone, and of a renamed service.

    A service costs one list of metrics and a query or two, and again nothing.
    """
    found = harvest(tmp_path, vendor)
    assert found == datadog_rows(vendor.world)
    begin, _ = day_window(DAY)
    morning = {
        warrior.host
        for troop in vendor.world.troops_on(DAY)
        for warrior in vendor.world.warriors_on(troop.id, DAY)
        if warrior.died <= begin + 6 * 3600
    }
    assert morning
    assert morning <= {row[1] for row in found}
    services = {row[0] for row in found}
    assert {
        "search_blue",
        "search_green",
    } <= services  # one service, whose hosts have its name of then or of now
    calls = admitted(vendor)
    listed = len(read_table(FolderStore(tmp_path / "data"), layout.table_key("troops", DAY)))
    assert calls["metrics_list"] == listed
    assert calls["metrics_query"] <= 2 * len(services)
    assert vendor.calls() == 1 + listed + sum(calls.values())
    again = command(tmp_path, vendor).run(*HARVEST, DAY.isoformat())
    assert again.json["calls_made"] == 0


def test_a_day_at_fine_resolution_is_cut_by_points(tmp_path: Path, vendor: RunningSimulator) -> None:
    """Half a minute makes more than 1,500 points a day: two windows, and every value is as long as it was asked."""
    settings = {"VENDOR_ASSETS_RESOLUTION": "30", "VENDOR_ASSETS_DATA_GROUPS": "HttpDispatcher", **CHECKOUT}
    found = harvest(tmp_path, vendor, **settings)
    assert {row[5] - row[4] for row in found} == {timedelta(seconds=30)}
    minutes = checkout(datadog_rows(vendor.world, 60))
    assert {(*row[:4], row[4].replace(second=0)) for row in found} == {
        row[:5] for row in minutes if row[2] == "HttpDispatcher"
    }
    assert admitted(vendor)["metrics_query"] == 2


def test_a_longer_interval_is_seen(tmp_path: Path, vendor: RunningSimulator) -> None:
    """Where Datadog takes twice the interval that was asked for, the rows say so, and are true."""
    vendor.faults([{"kind": "wrong_interval"}])
    assert harvest(tmp_path, vendor, **CHECKOUT) == checkout(datadog_rows(vendor.world, 3600))


def test_a_point_that_is_null_is_no_row(tmp_path: Path, vendor: RunningSimulator) -> None:
    """Every other point is null: what is there is true, and nothing is made up."""
    vendor.faults([{"kind": "null_points"}])
    found, truth = harvest(tmp_path, vendor, **CHECKOUT), checkout(datadog_rows(vendor.world))
    assert found.items() < truth.items()
    assert 0.4 * len(truth) <= len(found) <= 0.6 * len(truth)


def test_an_error_with_status_200_is_none_of_the_data(tmp_path: Path, vendor: RunningSimulator) -> None:
    """A query that timed out is asked again, smaller if need be; while it always does, nothing is complete."""
    vendor.faults([{"kind": "status_error", "count": 3}])
    assert harvest(tmp_path / "once", vendor, **CHECKOUT) == checkout(datadog_rows(vendor.world))
    vendor.faults([{"kind": "status_error", "match": "timeseries"}])
    settings = {
        "VENDOR_ASSETS_VALUES": "HttpDispatcher.call_count",
        "VENDOR_ASSETS_RESOLUTION": "86400",
        "VENDOR_ASSETS_TROOPS": "search_green",
    }
    running = command(tmp_path / "always", vendor, **settings)
    finished = running.run(*HARVEST, DAY.isoformat())
    assert finished.code != 0
    assert "timed out" in finished.out + finished.err
    assert not finished.json["complete"]


def test_both_keys_are_needed(tmp_path: Path) -> None:
    """A second key that is missing is told before any call, a wrong one with the first answer that refuses it."""
    with simulator(application_key="right", now=NOW.isoformat()) as vendor:
        running = command(tmp_path / "none", vendor, VENDOR_APPLICATION_KEY="")
        finished = running.run(*HARVEST, DAY.isoformat())
        assert finished.code != 0
        assert "VENDOR_APPLICATION_KEY" in finished.out + finished.err
        assert vendor.calls() == 0
        finished = command(tmp_path / "wrong", vendor).run(*HARVEST, DAY.isoformat())
        assert finished.code != 0
        assert "key" in finished.out + finished.err
        assert vendor.calls() <= 2
        few = {"VENDOR_ASSETS_VALUES": "HttpDispatcher.call_count", **CHECKOUT}
        assert harvest(tmp_path / "right", vendor, VENDOR_APPLICATION_KEY="right", **few)


def test_pages_of_hosts_with_the_same_service_are_no_endless_list(tmp_path: Path) -> None:
    """More hosts than a page holds, all of two services: each page names the same services, and the list ends.

    It is read twice, as its pages may move.
    """
    with simulator(troops=2, warriors=1100, data_groups=1, churn=False, now=NOW.isoformat()) as vendor:
        finished = command(tmp_path, vendor, VENDOR_ASSETS_TROOPS="nothing").run(*HARVEST, DAY.isoformat())
        assert finished.code == 3, (
            finished.out + finished.err
        )  # the list is whole, and nothing is taken of it
        assert finished.json["states"] == {"complete": 1}
        assert vendor.calls() == 4
        troops = read_table(FolderStore(tmp_path / "data"), layout.table_key("troops", DAY))
        assert troops.column("troop_id").to_pylist() == sorted(
            service_of(troop.name) for troop in vendor.world.troops(NOW)
        )


def windows_of_two_processes(folder: Path, resolution_seconds: int, limit: str) -> list[int]:
    """Two days by two processes, who learn from the headers what is permitted: queries in each window of the clock.

    None is refused.
    """
    with simulator(warriors=3, churn=False, datadog_limit=[f"metrics_query={limit}"]) as vendor:
        settings = {
            "VENDOR_RATE": "auto",
            "VENDOR_SHARE": "0.98",
            "VENDOR_ASSETS_RESOLUTION": str(resolution_seconds),
            "VENDOR_ASSETS_VALUES": "HttpDispatcher.call_count",
        }
        running = command(folder, vendor, **settings)
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        days = [yesterday, yesterday - timedelta(days=1)]
        for process in [running.start(*HARVEST, day.isoformat()) for day in days]:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, out + err
        log = vendor.log()
        assert log["violations"] == 0
        windows = [window["admitted"] for window in log["buckets"] if window["bucket"] == "metrics_query"]
        assert sum(windows) == 2 * 3 * -(-86_400 // (1500 * resolution_seconds))
        return windows


def test_two_processes_are_never_refused(tmp_path: Path) -> None:
    """Where queries are permitted by the second, two processes learn that without a refusal."""
    windows_of_two_processes(tmp_path, 10, "20/2")


@pytest.mark.long
def test_two_processes_use_the_windows_of_the_clock(tmp_path: Path) -> None:
    """Each whole window is used to 95 %; on a machine that has time for it, as slots that come late are lost."""
    windows = windows_of_two_processes(tmp_path, 1, "100/6")
    assert len(windows) >= 4
    assert min(windows[1:-1]) >= 95, windows
