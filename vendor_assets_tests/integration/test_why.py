"""``why`` beside a harvest that is under way: what it says is what the vendor then sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vendor_assets_tests.support.command import Command, Running
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

DAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


@contextmanager
def harvesting(command: Command, vendor: RunningSimulator, calls: int) -> Iterator[Running]:
    """A harvest that has made so many calls, and is ended afterwards."""
    running = command.start("harvest", "--day", DAY, "--no-report")
    try:
        while vendor.calls() < calls:
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        yield running
    finally:
        running.kill()
        running.wait()


def until(command: Command, good: Callable[[dict[str, Any]], bool], *arguments: str) -> dict[str, Any]:
    """What ``why`` says once it says this; samples of a run come every few seconds."""
    while True:
        told = command.run("why", "--json", *arguments)
        assert told.code == 0, told.err
        if good(told.json["now"]):
            return told.json


@pytest.fixture
def vendor() -> Iterator[RunningSimulator]:
    with simulator(world="small", churn=False) as running:
        yield running


def command_of(tmp_path: Path, vendor: RunningSimulator, **settings: str) -> Command:
    return Command(
        tmp_path, {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_SHARE": "1"} | settings
    )


def test_the_pace_and_the_calls_to_come_are_those_that_the_vendor_sees(
    tmp_path: Path, vendor: RunningSimulator
) -> None:
    """The limit that spaces the calls, the run, and as many calls as then come; asking costs the vendor nothing."""
    command = command_of(tmp_path, vendor, VENDOR_RATE="20/min")
    # By then all lists were read: what comes is known.
    with harvesting(command, vendor, 10) as running:
        told = until(command, lambda now: bool(now["calls"]), "--what-if", "share=0.5")
        began = vendor.calls()
        now, half = told["now"], told["what_if"]
        assert (now["binds"], now["limit"]) == ("pace", "20/min")
        assert half["done_seconds"][0] > 1.5 * now["done_seconds"][0]
        assert running.wait() == 0
    assert vendor.calls("throttled") == 0
    # A sample is a few seconds old: at three seconds a call it may be some calls behind.
    assert abs(vendor.calls() - began - now["calls"]) <= 4
    seen = vendor.calls()
    idle = command.run("why")
    assert "no calls are to come" in idle.out
    assert vendor.calls() == seen


def test_what_holds_everybody_is_named(tmp_path: Path, vendor: RunningSimulator) -> None:
    """A throttle's hold in the vendor's words, and an outage, of which nobody knows the end."""
    vendor.faults([{"kind": "retry_after", "value": "30", "count": 1}])
    command = command_of(tmp_path, vendor, VENDOR_RATE="50/s")
    with harvesting(command, vendor, 1):
        told = until(command, lambda now: now["binds"] != "nothing")["now"]
        assert told["binds"] == "hold", told
        assert "the vendor answered 503, wait 30 s" in told["text"]
        assert 0 < told["wait_seconds"] <= 30
        assert vendor.calls() == 1


def test_of_an_outage_nobody_knows_the_end(tmp_path: Path) -> None:
    """The vendor goes down in the middle of a day."""
    with simulator(world="demo", churn=False) as vendor:
        command = command_of(tmp_path, vendor, VENDOR_RATE="10/s")
        with harvesting(command, vendor, 10) as running:
            vendor.faults([{"kind": "503"}])
            told = until(command, lambda now: now["binds"] == "outage" or running.poll() is not None)["now"]
            assert told["binds"] == "outage"
            assert told["done_seconds"] is None
            assert "nobody knows when the vendor is back" in told["sentence"]


def test_a_filter_is_tried_on_the_plan(tmp_path: Path, vendor: RunningSimulator) -> None:
    """The calls of a day under a filter that is only supposed are those that the vendor then sees under it."""
    command = command_of(tmp_path, vendor, VENDOR_RATE="500/s")
    assert command.run("harvest", "--day", DAY, "--no-report").code == 0
    before = (date.fromisoformat(DAY) - timedelta(days=1)).isoformat()
    troop = vendor.world.troops_on(date.fromisoformat(before), "UTC")[0].name
    asked = ["--day", before, "--json", "--what-if", f"troops={troop}", "--what-if", "rate=1/s"]
    began = vendor.calls()
    told = command.run("why", *asked).json
    assert vendor.calls() == began
    assert 0 < told["what_if"]["calls"] < told["now"]["calls"]
    assert told["what_if"]["done_seconds"][0] >= told["what_if"]["calls"] - 1
    filtered = command_of(tmp_path, vendor, VENDOR_RATE="500/s", VENDOR_ASSETS_TROOPS=troop)
    assert filtered.run("harvest", "--day", before, "--no-report").code == 0
    assert vendor.calls() - began == told["what_if"]["calls"]


def test_wrong_use_is_one_line(tmp_path: Path, vendor: RunningSimulator) -> None:
    """Another run, another setting, a filter without a plan."""
    command = command_of(tmp_path, vendor)
    for arguments, said in (
        (["--run", "abc"], "no run 'abc' is at work"),
        (["--what-if", "speed=2"], "'speed=2' is not understood"),
        (["--what-if", "share=much"], "share 'much' is not a number"),
        (["--what-if", "share=2"], "share 2.0 is not accepted"),
        (["--what-if", "troops=web-*"], "needs --day"),
    ):
        finished = command.run("why", *arguments)
        assert finished.code == 2
        assert said in finished.err
        assert len(finished.err.strip().splitlines()) == 1
    assert vendor.calls() == 0
