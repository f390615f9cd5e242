"""Dagster's storage and the budget on a real PostgreSQL, by the shipped configuration, the store on a real S3."""

from __future__ import annotations

import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.command import ROOT, Command
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)
RATE = 20


def machine(folder: Path, vendor: RunningSimulator, url: str, s3: RunningS3, bucket: str) -> Command:
    """A machine of its own: nothing but the database and the store is shared."""
    home = folder / "home"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "server" / "dagster.yaml", home)
    account = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_URL": url.replace("postgresql://", "postgresql+psycopg2://"),
        "DAGSTER_LOGS_BUCKET": bucket,
        "VENDOR_ASSETS_DB": url,
        "VENDOR_ASSETS_STORE": f"s3://{bucket}/lake",
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
    }
    return Command(folder, account | s3.environment)


def test_two_machines_and_a_kill(
    tmp_path: Path, postgres_server: PostgresServer, s3_server: RunningS3, clean_aws_environment: None
) -> None:
    """Two machines share one budget; one dies, the other takes its work over; no harm, no row lost."""
    bucket = s3_server.make_bucket()
    with (
        postgres_server.database() as url,
        simulator(world="small", warriors=24, limit=f"{RATE}/s", churn=False) as vendor,
    ):
        one, other = (machine(tmp_path / name, vendor, url, s3_server, bucket) for name in ("one", "other"))
        days = [DAY - timedelta(days=1), DAY]
        first = one.start("harvest", "--no-report", "--day", days[0].isoformat(), "--json")
        second = other.start("harvest", "--no-report", "--day", days[1].isoformat(), "--json")
        while vendor.calls() < 60 and first.poll() is None:
            signal.sigtimedwait([], 0.1)
        first.kill()
        said = first.communicate()
        arrivals = [at for at, *_ in vendor.log(arrivals=True)["arrivals"]]
        assert len(arrivals) >= 60, said
        bound = sum(1 for at in arrivals if at > arrivals[-1] - 5.0)
        out, err = second.communicate(timeout=240)
        assert second.returncode == 0, out + err
        again = other.run("harvest", "--no-report", "--day", days[0].isoformat(), "--json")
        assert again.code == 0, again.out + again.err
        log = vendor.log()
        assert log["violations"] == 0
        assert log["repeated"]["total"] <= bound
        store = S3Store(s3_server.client(), bucket, "lake")
        for day in days:
            assert harvested_rows(store, day) == true_rows(vendor.world, day)
