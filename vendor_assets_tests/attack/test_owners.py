"""Two runs want one partition: the second is refused, and a holder that wakes up late does no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.deployment import yesterday
from vendor_assets_tests.support.secrets import SECRET
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, id_of, key_of, true_rows

DAY = yesterday()
RATE = 20
WORLD = {"warriors": 150, "data_groups": 1, "limit": f"{RATE}/s"}
TTL_SECONDS = 10


def command(folder: Path, vendor: RunningSimulator) -> Command:
    settings = {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": SECRET,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
    }
    return Command(folder, settings)


def holder_of(folder: Path, troop: str) -> dict[str, Any]:
    """Who has a troop's performance data, as the store says."""
    prefix = layout.harvest_prefix("performance_data", DAY, troop)
    path = folder / "data" / layout.holder_key(prefix)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"holder": "", "epoch": 0}
    return found


def until_data(running: subprocess.Popen[str], vendor: RunningSimulator, calls: int) -> None:
    """Wait until so many calls for data were answered."""
    while vendor.calls("data") < calls:
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)


def committed(folder: Path) -> dict[str, bytes]:
    """Everything that was committed: tables, finish markers, dead letters, quarantine."""
    data = folder / "data"
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file()
        and (path.suffix == ".parquet" or path.name == "finish" or "dead_letters" in str(path))
    }


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD | {"warriors": 60}], indirect=True)
def test_the_second_run_is_refused_for_what_the_first_has(
    tmp_path: Path, vendor: RunningSimulator, note: Note
) -> None:
    """Of all troops only the one that is being harvested is refused, and the message names its holder."""
    big, *others = [key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC")]
    harvest = command(tmp_path, vendor)
    # One slow answer keeps the first at work until the second has asked.
    vendor.faults([{"kind": "latency", "seconds": 20, "count": 1, "match": f"/{id_of(big)}/.*data.json"}])
    first = harvest.start("harvest", "--day", DAY.isoformat(), "--troop", big, "--no-report")
    until_data(first, vendor, 3)
    holder = holder_of(tmp_path, big)["holder"]
    second = harvest.run("harvest", "--day", DAY.isoformat(), "--json", "--no-report")
    out, err = first.communicate(timeout=240)
    assert first.returncode == 0, out + err
    assert second.code in (1, 3), second.out + second.err
    problems = " ".join(second.json["problems"])
    assert f"run {holder} is harvesting" in problems
    assert not [troop for troop in others if f"{DAY} {troop}" in problems.replace("|", " ")]
    assert vendor.log()["repeated"]["total"] == 0
    third = harvest.run("harvest", "--day", DAY.isoformat(), "--json", "--no-report")
    assert (third.code, third.json["calls_made"]) == (0, 0)
    rows = harvested_rows(FolderStore(tmp_path / "data"), DAY)
    assert rows == true_rows(vendor.world, DAY)
    note("two runs, one partition", "the second refused for it alone, naming the holder", twice=0, bound=0,
         rows=f"{len(rows)} of {len(rows)}")  # fmt: skip


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_holder_that_wakes_up_late_commits_nothing(
    tmp_path: Path, vendor: RunningSimulator, note: Note, long: bool
) -> None:
    """Stopped for longer than its lease lasts, it is replaced; awake again, it changes nothing and ends saying so."""
    big = key_of(vendor.world.troops_on(DAY, "UTC")[0])
    harvest = command(tmp_path, vendor)
    sleeper = harvest.start("harvest", "--day", DAY.isoformat(), "--troop", big, "--no-report")
    until_data(sleeper, vendor, 20)
    os.kill(sleeper.pid, signal.SIGSTOP)
    bound = int(RATE * PROMISED_SECONDS)
    epoch = holder_of(tmp_path, big)["epoch"]
    stopped_at = time.monotonic()
    time.sleep(60 if long else TTL_SECONDS + 1)
    heir = harvest.start("harvest", "--day", DAY.isoformat(), "--json", "--no-report")
    if not long:
        # It wakes up while the other one is at work.
        while holder_of(tmp_path, big)["epoch"] == epoch:
            assert heir.poll() is None, heir.communicate()
            time.sleep(0.1)
        os.kill(sleeper.pid, signal.SIGCONT)
    out, err = heir.communicate(timeout=240)
    assert heir.returncode == 0, out + err
    asleep = time.monotonic() - stopped_at
    before = committed(tmp_path)
    if long:
        os.kill(sleeper.pid, signal.SIGCONT)
    said = "".join(sleeper.communicate(timeout=240))
    assert sleeper.returncode != 0, said
    assert "superseded" in said
    assert "Traceback" not in said
    assert committed(tmp_path) == before
    rows = harvested_rows(FolderStore(tmp_path / "data"), DAY)
    assert rows == true_rows(vendor.world, DAY)
    twice = vendor.log()["repeated"]["total"]
    note("SIGSTOP, then SIGCONT", f"asleep for {asleep:.0f} s, replaced meanwhile", twice=twice, bound=2 * bound,
         rows=f"{len(rows)} of {len(rows)}")  # fmt: skip
    # What the stop lost in flight, and what the sleeper sent before it knew.
    assert twice <= 2 * bound
