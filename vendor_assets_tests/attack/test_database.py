"""The budget's database goes away under a running harvest, and comes back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.attack.test_store import DAY, ONE_DAY, RATE, WORLD, finish, settings, until
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.command import ROOT, Command
from vendor_assets_tests.support.postgres import required_postgres
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize(
    ("for_dagster_too", "seconds"),
    [
        (True, 1.0),
        *(
            pytest.param(whose, seconds, marks=pytest.mark.long)
            for whose, seconds in ((True, 10.0), (True, 45.0), (False, 1.0), (False, 10.0), (False, 45.0))
        ),
    ],
)
def test_postgresql_is_away(
    tmp_path: Path, vendor: RunningSimulator, note: Note, for_dagster_too: bool, seconds: float
) -> None:
    """Nobody sends without a slot meanwhile, no row is lost, at most five seconds' worth is asked again."""
    with required_postgres() as opened, opened.database() as url:
        values = {"VENDOR_ASSETS_DB": url, "VENDOR_ASSETS_STORE": str(tmp_path / "data")}
        if for_dagster_too:
            home = tmp_path / "home"
            home.mkdir()
            shutil.copy(ROOT / "deploy" / "postgresql" / "dagster.yaml", home)
            values |= {
                "DAGSTER_HOME": str(home),
                "DAGSTER_PG_URL": url.replace("postgresql://", "postgresql+psycopg2://"),
            }
        command = Command(tmp_path, settings(vendor, **values))
        running = command.start(*ONE_DAY)
        until(running, vendor, 40)
        opened.stop()
        time.sleep(1.0)
        at_rest = vendor.calls()
        time.sleep(seconds)
        # What had a slot already is in flight; nothing is sent without one.
        sent = vendor.calls() - at_rest
        opened.start()
        ended, twice = finish(command, running, vendor)
        assert vendor.log()["violations"] == 0
        assert sent <= RATE
    rows = harvested_rows(FolderStore(tmp_path / "data"), DAY)
    assert rows == true_rows(vendor.world, DAY)
    bound = int(RATE * PROMISED_SECONDS)
    whose = "the budget's and Dagster's" if for_dagster_too else "the budget's"
    note(f"PostgreSQL ({whose}) away {seconds:g} s", ended, twice=twice, bound=bound,
         rows=f"{len(rows)} of {len(rows)}")  # fmt: skip
    assert twice <= bound
