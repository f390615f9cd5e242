"""The whole chain on a real S3 server over HTTP, through Dagster's S3 resource."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from vendor_assets.storage import layout
from vendor_assets.storage.parquet import duckdb_connection
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)


def command(folder: Path, vendor: RunningSimulator, s3: RunningS3, bucket: str, **environ: str) -> Command:
    settings = {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": "500/s",
        "VENDOR_ASSETS_STORE": f"s3://{bucket}/lake",
        "VENDOR_ASSETS_DB": "sqlite:///budget.db",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return Command(folder, settings | s3.environment | environ)


def test_the_chain_on_s3(tmp_path: Path, s3_server: RunningS3, clean_aws_environment: None) -> None:
    """Same keys as in a folder, every row true, readable by pyarrow and DuckDB straight from the bucket."""
    bucket = s3_server.make_bucket()
    with simulator(world="small", churn=False) as vendor:
        running = command(tmp_path, vendor, s3_server, bucket)
        finished = running.run("harvest", "--json")
        assert finished.code == 0, finished.out + finished.err
        assert finished.json["objects"][0] == f"s3://{bucket}/lake/{layout.table_key('troops', DAY)}"
        store = S3Store(s3_server.client(), bucket, "lake")
        truth = true_rows(vendor.world, DAY)
        assert harvested_rows(store, DAY) == truth
        folder = f"{bucket}/lake/processed/performance_data"
        direct = pyarrow.fs.S3FileSystem(
            access_key=s3_server.access_key,
            secret_key=s3_server.secret_key,
            endpoint_override=s3_server.endpoint.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
        )
        assert pq.read_table(folder, filesystem=direct).num_rows == len(truth)
        with duckdb_connection(store) as connection:
            assert isinstance(connection, duckdb.DuckDBPyConnection)
            pattern = store.uri("processed/performance_data/day=*/troop=*/data.parquet")
            counted = connection.sql(f"select count(*) from read_parquet('{pattern}')").fetchall()
            assert counted == [(len(truth),)]
        assert store.head(layout.report_key(DAY, "html")) is not None


@pytest.mark.long
def test_a_machine_that_is_gone_with_its_disk(
    tmp_path: Path, s3_server: RunningS3, clean_aws_environment: None
) -> None:
    """What is on S3 is enough: a new machine goes on, and asks for at most five seconds' worth again."""
    bucket = s3_server.make_bucket()
    with simulator(world="small", warriors=40, limit="20/s", churn=False) as vendor:
        slow = {"VENDOR_RATE": "20/s", "VENDOR_SHARE": "1"}
        process = command(tmp_path / "old", vendor, s3_server, bucket, **slow).start(
            "harvest", "--no-report", "--json"
        )
        while vendor.calls() < 40 and process.poll() is None:
            signal.sigtimedwait([], 0.1)
        process.kill()
        process.communicate()
        arrivals = [at for at, *_ in vendor.log(arrivals=True)["arrivals"]]
        bound = sum(1 for at in arrivals if at > arrivals[-1] - 5.0)
        finished = command(tmp_path / "new", vendor, s3_server, bucket, **slow).run(
            "harvest", "--no-report", "--json"
        )
        assert finished.code == 0, finished.out + finished.err
        assert vendor.log()["repeated"]["total"] <= bound
        store = S3Store(s3_server.client(), bucket, "lake")
        assert harvested_rows(store, DAY) == true_rows(vendor.world, DAY)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://"),
        ({"VENDOR_ASSETS_STORE": "s3://no-such-bucket/lake"}, "no-such-bucket"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    ],
)
def test_a_store_that_cannot_be_used(
    tmp_path: Path, s3_server: RunningS3, clean_aws_environment: None, environ: dict[str, str], said: str
) -> None:
    """Wrong credentials, a missing bucket, a server that is away: one clear line, no call to the vendor."""
    bucket = s3_server.make_bucket()
    with simulator(world="small", churn=False) as vendor:
        finished = command(tmp_path, vendor, s3_server, bucket, **environ).run("harvest")
        everything = finished.out + finished.err
        assert finished.code == 1, everything
        assert said in everything
        assert "Traceback" not in everything
        assert vendor.calls() == 0
