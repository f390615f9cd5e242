"""The harvest is killed at random moments; the next run goes on, and asks again for what was lost in flight only."""

from __future__ import annotations

import random
import signal
from datetime import UTC, date, datetime, time
from itertools import accumulate
from pathlib import Path

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.s3 import S3Store
from vendor_assets.vendors.new_relic import AGE_MARGIN, FINE_AGE
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.campaign import Campaign, Kill
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.secrets import SECRET, files_with_secret
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

RATE = 60
WORLD = {"warriors": 150, "data_groups": 2, "limit": f"{RATE}/s"}


def settings(vendor: RunningSimulator) -> dict[str, str]:
    return {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": SECRET,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
        "VENDOR_ASSETS_START": "2026-01-01",
    }


def judge(vendor: RunningSimulator, store: ObjectStore, kills: list[Kill], days: list[date]) -> str:
    """Every row is true, no kill cost more than it may, the vendor was not harmed; tells the rows."""
    harvested = truth = 0
    for day in days:
        # Days older than this are asked for in hours: the vendor keeps no finer ones.
        old = datetime.combine(day, time(), UTC) < datetime.now(UTC) - FINE_AGE + AGE_MARGIN
        resolution = 3600 if old else 1800
        rows, true = harvested_rows(store, day), true_rows(vendor.world, day, resolution_seconds=resolution)
        assert rows == true, day
        harvested, truth = harvested + len(rows), truth + len(true)
    # What a kill lost is asked for by the first run that comes so far, which may be a later one than the next.
    lost = accumulate(kill.bound for kill in kills)
    asked = accumulate(kill.twice for kill in kills)
    assert all(twice <= bound for twice, bound in zip(asked, lost, strict=True)), kills
    assert vendor.log()["violations"] == 0
    return f"{harvested} of {truth}"


def say(note: Note, attack: str, kills: list[Kill], days: list[date], rows: str) -> None:
    ages = [kill.after_seconds for kill in kills]
    done = (
        f"{len(kills)} processes, {min(ages):.1f} to {max(ages):.1f} s old, over {len(days)} days; "
        f"at most {max(kill.twice for kill in kills)} calls again in one run"
    )
    note(
        attack,
        done,
        twice=sum(kill.twice for kill in kills),
        bound=sum(kill.bound for kill in kills),
        rows=rows,
    )


# Ten campaigns of ten, with a short form of four kills; three more go through Dagster (test_dagster.py).
CAMPAIGNS = [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 7))]


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize("seed", CAMPAIGNS)
def test_kill_9_at_any_moment(
    tmp_path: Path, vendor: RunningSimulator, note: Note, long: bool, seed: int
) -> None:
    """However often it is killed, the harvest ends complete, and each kill costs at most five seconds' worth."""
    command = Command(tmp_path, settings(vendor))
    kills, days = Campaign(lambda _: command, vendor, random.Random(seed)).run(10 if long else 4)
    rows = judge(vendor, FolderStore(tmp_path / "data"), kills, days)
    say(note, "kill -9 of the harvest", kills, days, rows)
    assert not files_with_secret(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize("seed", [21, 22])
def test_sigterm_at_any_moment(tmp_path: Path, vendor: RunningSimulator, note: Note, seed: int) -> None:
    """Asked to end, the harvest lands what is in flight: not one call is made twice."""
    command = Command(tmp_path, settings(vendor))
    campaign = Campaign(lambda _: command, vendor, random.Random(seed), stop=signal.SIGTERM)
    kills, days = campaign.run(10)
    rows = judge(vendor, FolderStore(tmp_path / "data"), kills, days)
    say(note, "SIGTERM of the harvest", kills, days, rows)


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize("seed", [31, 32])
def test_a_spot_machine_that_is_gone_with_its_disk(
    tmp_path: Path,
    vendor: RunningSimulator,
    s3_server: RunningS3,
    clean_aws_environment: None,
    note: Note,
    seed: int,
) -> None:
    """Each process has an empty disk, Dagster's history and the budget's file included: S3 alone says what is done."""
    bucket = s3_server.make_bucket()
    values = settings(vendor) | s3_server.environment | {"VENDOR_ASSETS_STORE": f"s3://{bucket}/lake"}
    values |= {"VENDOR_ASSETS_DB": "sqlite:///budget.db"}

    def machine(number: int) -> Command:
        return Command(tmp_path / f"machine-{number}", values)

    kills, days = Campaign(machine, vendor, random.Random(seed)).run(10)
    rows = judge(vendor, S3Store(s3_server.client(), bucket, "lake"), kills, days)
    say(note, "spot machine gone with its disk", kills, days, rows)


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize("seed", [41, 42])
def test_kill_9_with_postgresql(
    tmp_path: Path, vendor: RunningSimulator, postgres_server: PostgresServer, note: Note, seed: int
) -> None:
    """The same with the budget and the leases on PostgreSQL, which outlive the process."""
    with postgres_server.database() as url:
        command = Command(tmp_path, settings(vendor) | {"VENDOR_ASSETS_DB": url})
        kills, days = Campaign(lambda _: command, vendor, random.Random(seed)).run(10)
    rows = judge(vendor, FolderStore(tmp_path / "data"), kills, days)
    say(note, "kill -9, budget on PostgreSQL", kills, days, rows)
