"""The command against the embedded vendor as a process of its own; the vendor's log is the judge."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)
RATE = 20


def command(folder: Path, vendor: RunningSimulator, **environ: str) -> Command:
    settings = {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
    }
    return Command(folder, settings | environ)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.1)


def calls_in_last_seconds(vendor: RunningSimulator, seconds: float) -> int:
    """Calls that arrived in the last seconds before the newest one."""
    arrivals = [at for at, *_ in vendor.log(arrivals=True)["arrivals"]]
    return sum(1 for at in arrivals if at > arrivals[-1] - seconds)


def test_two_harvests_at_once_share_one_budget(tmp_path: Path) -> None:
    """Two processes for two days, two limits at once: no 429, every row true, no leaf asked for twice."""
    limits = [f"{RATE}/s", f"{55 * RATE}/min"]
    with simulator(world="small", limit=limits, churn=False) as vendor:
        running = command(tmp_path, vendor, VENDOR_RATE=",".join([*limits, "100000/day"]))
        days = [DAY - timedelta(days=1), DAY]
        processes = [
            running.start("harvest", "--no-report", "--day", day.isoformat(), "--json") for day in days
        ]
        for process in processes:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, out + err
        log = vendor.log()
        assert log["violations"] == 0
        assert log["repeated_leaves"]["total"] == 0
        store = FolderStore(tmp_path / "data")
        for day in days:
            assert harvested_rows(store, day) == true_rows(vendor.world, day)


@pytest.mark.parametrize(
    "stop_signal", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_killed_harvest_goes_on_where_it_ended(tmp_path: Path, stop_signal: signal.Signals) -> None:
    """After kill -9 at most five seconds' worth of calls is made twice, after SIGTERM none; nothing is lost."""
    with simulator(world="small", warriors=40, limit=f"{RATE}/s", churn=False) as vendor:
        running = command(tmp_path, vendor)
        process = running.start("harvest", "--no-report", "--day", DAY.isoformat(), "--json")
        wait_until(lambda: vendor.calls() >= 40 or process.poll() is not None)
        process.send_signal(stop_signal)
        out, err = process.communicate(timeout=120)
        assert process.returncode not in (0, 3), out + err
        bound = calls_in_last_seconds(vendor, 5.0) if stop_signal == signal.SIGKILL else 0
        finished = running.run("harvest", "--no-report", "--day", DAY.isoformat(), "--json")
        assert finished.code == 0, finished.out + finished.err
        assert finished.json["complete"]
        assert finished.json["requests_reused"] > 0
        log = vendor.log()
        assert log["violations"] == 0
        assert log["repeated"]["total"] <= bound
        assert harvested_rows(FolderStore(tmp_path / "data"), DAY) == true_rows(vendor.world, DAY)


def test_a_second_harvest_costs_nothing(tmp_path: Path) -> None:
    """What is complete is not asked again; --replace asks all again."""
    with simulator(world="small", churn=False) as vendor:
        running = command(tmp_path, vendor, VENDOR_RATE="500/s")
        first = running.run("harvest", "--no-report", "--json").json
        again = running.run("harvest", "--no-report", "--json").json
        assert (again["calls_made"], again["rows"]) == (0, first["rows"])
        replaced = running.run("harvest", "--no-report", "--replace", "--json").json
        assert replaced["calls_made"] == first["calls_made"]


@pytest.mark.long
def test_what_has_not_changed_is_not_published_again(tmp_path: Path) -> None:
    """A second harvest leaves the report as it is and names it; an instance that does not know it has it made again."""
    page = tmp_path / "data" / "reports" / f"day={DAY}" / "performance_report.html"
    with simulator(world="small", troops=1, warriors=2, churn=False) as vendor:
        running = command(tmp_path, vendor)
        first = running.run("harvest", "--json").json
        made = page.stat()
        again = running.run("harvest", "--json")
        assert (page.stat().st_mtime_ns, page.stat().st_ino) == (made.st_mtime_ns, made.st_ino)
        assert "nothing has changed" in again.err
        assert again.json["complete"]
        assert again.json["reports"] == first["reports"] == [str(page)]
        shutil.rmtree(tmp_path / ".dagster")
        assert running.run("harvest", "--json").json["reports"] == [str(page)]
        assert page.stat().st_mtime_ns > made.st_mtime_ns


def test_a_day_on_which_no_troop_has_data_is_told_of(tmp_path: Path) -> None:
    """Each may be gone by itself; all of them at once may be a fault of the vendor's, or of ours."""
    with simulator(world="small", churn=False) as vendor:
        vendor.faults([{"kind": "404", "match": "/hosts.json"}])
        finished = command(tmp_path, vendor).run("harvest", "--no-report", "--day", DAY.isoformat())
    assert finished.code == 0, finished.out
    assert "no troop has any data; may the key see their warriors" in finished.out


def test_the_plan_is_what_happens(tmp_path: Path) -> None:
    """A day like the one before costs what the plan says; what has landed costs nothing."""
    with simulator(world="small", churn=False) as vendor:
        running = command(tmp_path, vendor, VENDOR_RATE="500/s")
        earlier, later = (DAY - timedelta(days=1)).isoformat(), DAY.isoformat()
        running.run("harvest", "--no-report", "--day", earlier, "--json")
        planned = running.run("plan", "--from", earlier, "--to", later, "--json").json
        assert [sum(day["calls"].values()) for day in planned["days"]] == [0, planned["calls"]]
        assert (
            running.run("harvest", "--no-report", "--day", later, "--json").json["calls_made"]
            == planned["calls"]
        )


def test_one_troop_of_many(tmp_path: Path) -> None:
    """--troop harvests only what it names, by id or by name."""
    with simulator(world="small", churn=False) as vendor:
        running = command(tmp_path, vendor, VENDOR_RATE="500/s")
        troop = vendor.world.troops_on(DAY, "UTC")[0]
        finished = running.run("harvest", "--troop", troop.name, "--json")
        assert finished.code == 0, finished.err
        assert finished.json["states"] == {"complete": 4}


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (["harvest"], {"VENDOR_URL": "http://127.0.0.1:9"}, 1, "127.0.0.1:9"),
        (["harvest", "--from", str(DAY - timedelta(days=9))], {"VENDOR_API_KEY": "wrong"}, 1, "401"),
        (["harvest"], {"VENDOR_RATE": "fast"}, 2, "VENDOR_RATE"),
        (["harvest"], {"VENDOR_SHAER": "1"}, 2, "VENDOR_SHAER"),
        (
            ["harvest"],
            {"VENDOR_ASSETS_STORE": "/proc/version/data"},
            1,
            "roster: the budget's database sqlite:////proc/version/data/budget.db cannot be used",
        ),
        (["harvest"], {"VENDOR_ASSETS_STORE": "/proc/nowhere"}, 1, "/proc/nowhere"),
        (["harvest", "--day", "2999-01-01"], {}, 2, "2999-01-01"),
        (["harvest", "--day", "tomorrow"], {}, 2, "tomorrow"),
        (["harvest", "--troop", "no such troop"], {}, 2, "no such troop"),
        (["harvest", "--no-such-flag"], {}, 2, "--no-such-flag"),
        (["no-such-command"], {}, 2, "no-such-command"),
    ],
)
def test_bad_input_gets_one_clear_line(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], code: int, said: str
) -> None:
    """What, the value, what is accepted; the right exit code; no traceback."""
    with simulator(world="small", churn=False, api_key=KEY) as vendor:
        running = command(tmp_path, vendor, **({"VENDOR_RATE": "500/s"} | environ))
        finished = running.run(*arguments)
        everything = finished.out + finished.err
        assert finished.code == code, everything
        assert said in everything
        assert "Traceback" not in everything
        assert KEY not in everything
        if "wrong" in environ.values():
            # Ten days, and the first refusal is the last call.
            assert vendor.calls() == 1
            assert "1 call made" in everything
