"""The store fails under a running harvest: a server that is away, answers wrongly or slowly, and a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.deployment import yesterday
from vendor_assets_tests.support.proxy import faulty_proxy
from vendor_assets_tests.support.s3 import RunningS3, running_s3
from vendor_assets_tests.support.secrets import SECRET, files_with_secret, logs_with_bodies
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = yesterday()
RATE = 30
WORLD = {"warriors": 100, "data_groups": 1, "limit": f"{RATE}/s"}
ONE_DAY = ("harvest", "--day", DAY.isoformat(), "--json", "--no-report")


def settings(vendor: RunningSimulator, **more: str) -> dict[str, str]:
    return {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": SECRET,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
        **more,
    }


def until(running: subprocess.Popen[str], vendor: RunningSimulator, calls: int) -> None:
    """Wait until so many calls were answered."""
    while vendor.calls() < calls:
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)


def finish(command: Command, running: subprocess.Popen[str], vendor: RunningSimulator) -> tuple[str, int]:
    """See the attacked harvest end, clearly if in vain, and run it again; how it ended, and calls made twice."""
    out, err = running.communicate(timeout=240)
    shown = out + err
    assert "Traceback" not in shown, shown
    assert SECRET not in shown
    assert not logs_with_bodies([shown])
    ended = "it held out"
    if running.returncode != 0:
        assert "s3://" in shown or "disk" in shown or "database" in shown or "space" in shown, shown
        again = command.run(*ONE_DAY)
        assert again.code == 0, again.out + again.err
        ended = "it ended saying so, the next run went on"
    return ended, int(vendor.log()["repeated"]["total"])


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize(
    ("mode", "seconds"),
    [
        ("503", 4.0),
        *(
            pytest.param(mode, seconds, marks=pytest.mark.long)
            for mode, seconds in (("500", 4.0), ("reset", 4.0), ("slow", 10.0), ("503", 40.0), ("500", 40.0))
        ),
    ],
)
@pytest.mark.long
def test_s3_fails_for_a_while(
    tmp_path: Path,
    vendor: RunningSimulator,
    s3_server: RunningS3,
    clean_aws_environment: None,
    note: Note,
    mode: str,
    seconds: float,
) -> None:
    """Whatever the server answers meanwhile, no row is lost and at most five seconds' worth is asked again."""
    bucket = s3_server.make_bucket()
    with faulty_proxy(s3_server.endpoint) as proxy:
        values = s3_server.environment | {"AWS_ENDPOINT_URL": proxy.url}
        command = Command(
            tmp_path,
            settings(
                vendor,
                VENDOR_ASSETS_STORE=f"s3://{bucket}/lake",
                VENDOR_ASSETS_DB="sqlite:///budget.db",
                **values,
            ),
        )
        running = command.start(*ONE_DAY)
        until(running, vendor, 40)
        proxy.set(mode)
        time.sleep(seconds)
        proxy.set("pass")
        ended, twice = finish(command, running, vendor)
    rows = harvested_rows(S3Store(s3_server.client(), bucket, "lake"), DAY)
    assert rows == true_rows(vendor.world, DAY)
    bound = int(RATE * PROMISED_SECONDS)
    note(f"S3: {mode} for {seconds:g} s", ended, twice=twice, bound=bound, rows=f"{len(rows)} of {len(rows)}")
    assert twice <= bound
    assert not files_with_secret(tmp_path)


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.long
@pytest.mark.parametrize("away", [0.0, 20.0])
def test_s3_is_killed_and_comes_back(
    tmp_path: Path, vendor: RunningSimulator, clean_aws_environment: None, note: Note, away: float
) -> None:
    """The server is killed in the middle of writes and started again with its data."""
    with running_s3() as server:
        bucket = server.make_bucket()
        values = server.environment | {"VENDOR_ASSETS_STORE": f"s3://{bucket}/lake"}
        values |= {"VENDOR_ASSETS_DB": "sqlite:///budget.db"}
        command = Command(tmp_path, settings(vendor, **values))
        running = command.start(*ONE_DAY)
        until(running, vendor, 40)
        server.kill()
        time.sleep(away)
        server.start()
        ended, twice = finish(command, running, vendor)
        rows = harvested_rows(S3Store(server.client(), bucket, "lake"), DAY)
    assert rows == true_rows(vendor.world, DAY)
    bound = int(RATE * PROMISED_SECONDS)
    note(
        f"S3 server killed, away {away:g} s",
        ended,
        twice=twice,
        bound=bound,
        rows=f"{len(rows)} of {len(rows)}",
    )
    assert twice <= bound


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, a megabyte and a half large; skipped where nothing can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount to make a disk that can be filled")
    options = ["-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(place)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_full_disk_is_said_and_costs_little(
    tmp_path: Path, tiny_disk: Path, vendor: RunningSimulator, note: Note
) -> None:
    """When the store is full the harvest ends in one line that says so; with room again it goes on."""
    (tiny_disk / "ballast").write_bytes(b"x" * 1_330_000)
    values = {
        "VENDOR_ASSETS_STORE": str(tiny_disk / "data"),
        "VENDOR_ASSETS_DB": f"sqlite:///{tmp_path}/budget.sqlite",
    }
    command = Command(tmp_path, settings(vendor, **values))
    running = command.start(*ONE_DAY)
    out, err = running.communicate(timeout=240)
    assert running.returncode != 0, out + err
    assert "No space left" in out + err or "full" in out + err
    assert "Traceback" not in out + err
    (tiny_disk / "ballast").unlink()
    again = command.run(*ONE_DAY)
    assert again.code == 0, again.out + again.err
    rows = harvested_rows(FolderStore(tiny_disk / "data"), DAY)
    assert rows == true_rows(vendor.world, DAY)
    twice, bound = vendor.log()["repeated"]["total"], int(RATE * PROMISED_SECONDS)
    note("disk full", "ended saying so; after room was made it went on", twice=twice, bound=bound,
         rows=f"{len(rows)} of {len(rows)}")  # fmt: skip
    assert twice <= bound
