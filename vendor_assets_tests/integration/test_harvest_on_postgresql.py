"""Dagster's storage and the budget on a real PostgreSQL, by the shipped configuration."""

from __future__ import annotations

import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vendor_assets.storage.objects import FolderStore
from vendor_assets_tests.support.command import ROOT, Command
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)
RATE = 20


def command(folder: Path, vendor: RunningSimulator, url: str) -> Command:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "postgresql" / "dagster.yaml", home)
    settings = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": url.replace("postgresql://", "postgresql+psycopg2://"),
        "VENDOR_ASSETS_DB": url,
        "VENDOR_ASSETS_STORE": str(folder / "data"),
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
    }
    return Command(folder, settings)


def test_two_harvests_and_a_kill(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Two processes share one budget; one is killed, goes on, and neither harms the vendor or loses a row."""
    with (
        postgres_server.database() as url,
        simulator(world="small", warriors=40, limit=f"{RATE}/s", churn=False) as vendor,
    ):
        running = command(tmp_path, vendor, url)
        days = [DAY - timedelta(days=1), DAY]
        first, second = (running.start("harvest", "--day", day.isoformat(), "--json") for day in days)
        while vendor.calls() < 60 and first.poll() is None:
            signal.sigtimedwait([], 0.1)
        first.kill()
        first.communicate()
        arrivals = [at for at, *_ in vendor.log(arrivals=True)["arrivals"]]
        bound = sum(1 for at in arrivals if at > arrivals[-1] - 5.0)
        out, err = second.communicate(timeout=240)
        assert second.returncode == 0, out + err
        again = running.run("harvest", "--day", days[0].isoformat(), "--json")
        assert again.code == 0, again.out + again.err
        log = vendor.log()
        assert log["violations"] == 0
        assert log["repeated"]["total"] <= bound
        store = FolderStore(tmp_path / "data")
        for day in days:
            assert harvested_rows(store, day) == true_rows(vendor.world, day)
