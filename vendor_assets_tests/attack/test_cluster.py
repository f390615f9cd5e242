"""Runs on Celery's workers, as ``deploy/cluster`` ships it, while workers are killed and the broker forgets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.cluster import PATIENCE_SECONDS, Cluster, celery_cluster
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.secrets import SECRET
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows
from vendor_assets_tests.support.wrong_clock import ahead

RATE = 40
WORLD = {"warriors": 90, "data_groups": 1, "limit": f"{RATE}/s"}
DAYS = [datetime.now(UTC).date() - timedelta(days=ago) for ago in (3, 2)]


@pytest.fixture
def cluster(
    tmp_path: Path,
    vendor: RunningSimulator,
    postgres_server: PostgresServer,
    s3_server: RunningS3,
    clean_aws_environment: None,
    request: pytest.FixtureRequest,
) -> Iterator[tuple[Cluster, str]]:
    """Two workers under one daemon, with rosters that are there already; and the bucket.

    The parameter is how many seconds the second worker's clock is ahead.
    """
    settings = {"VENDOR_API_KEY": SECRET, "VENDOR_RATE": f"{RATE}/s", "VENDOR_SHARE": "1"}
    seconds = getattr(request, "param", 0)
    of_two = ahead(tmp_path, seconds) if seconds else {}
    with celery_cluster(tmp_path / "project", settings, vendor, postgres_server, s3_server, of_two) as (
        made,
        bucket,
    ):
        smallest = vendor.world.troops_on(DAYS[-1], "UTC")[-1]
        ranged = ["--from", DAYS[0].isoformat(), "--to", DAYS[-1].isoformat()]
        command = Command(made.folder, made.environ)
        done = command.run("harvest", *ranged, "--no-report", "--troop", smallest.id)
        assert done.code == 0, done.out + done.err
        yield made, bucket


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_machine_and_the_brokers_memory_are_lost(
    cluster: tuple[Cluster, str], s3_server: RunningS3, note: Note
) -> None:
    """The run of the lost machine is retried on the other one; the run there goes on, and nobody calls it failed."""
    it, bucket = cluster
    before = it.vendor.log()["repeated_leaves"]["total"]
    asked = {day: it.asked(day) for day in DAYS}
    lost, kept = (it.launch(day) for day in DAYS)
    for day in DAYS:
        it.dev.wait(
            "the run asks for data",
            lambda day=day: it.asked(day) >= asked[day] + 10,
            seconds=PATIENCE_SECONDS,
        )
    # Each worker has one place.
    assert it.host_of(lost) != it.host_of(kept)
    it.broker.kill(forget=True)
    killed_at = it.vendor.log()["seconds"]
    it.workers[it.host_of(lost)].kill()
    while it.vendor.log()["in_flight"] > RATE:
        time.sleep(0.1)
    bound = it.asked(DAYS[0], since=killed_at - PROMISED_SECONDS)
    it.broker.start()
    assert it.wait(lost, "SUCCESS", "FAILURE") == "FAILURE"
    assert it.wait(kept, "SUCCESS", "FAILURE") == "SUCCESS"
    (retry,) = it.dev.wait(
        "the run is retried", lambda: it.dev.runs(dagster__parent_run_id=lost), seconds=PATIENCE_SECONDS
    )
    assert it.wait(str(retry["id"]), "SUCCESS", "FAILURE") == "SUCCESS"
    assert it.dev.runs(dagster__parent_run_id=kept) == []
    store, count = S3Store(s3_server.client(), bucket, "lake"), 0
    for day in DAYS:
        rows = harvested_rows(store, day)
        assert rows == true_rows(it.vendor.world, day), day
        count += len(rows)
    log = it.vendor.log()
    twice = log["repeated_leaves"]["total"] - before
    note("kill -9 of a worker, and of a Redis that forgets", "its run retried on the other; the other run went on",
         twice=twice, bound=bound, rows=f"{count} of {count}")  # fmt: skip
    assert log["violations"] == 0
    assert twice <= bound


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
@pytest.mark.parametrize("cluster", [3600, -3600], indirect=True)
def test_a_machine_whose_clock_is_wrong(
    cluster: tuple[Cluster, str], s3_server: RunningS3, note: Note, request: pytest.FixtureRequest
) -> None:
    """S3 refuses it: its run says why before any call, and is retried where the clock is right."""
    it, bucket = cluster
    day = DAYS[0]
    asked, before = it.asked(day), it.vendor.log()["repeated_leaves"]["total"]
    it.workers["one"].kill()
    wrong = it.launch(day)
    assert it.wait(wrong, "SUCCESS", "FAILURE") == "FAILURE"
    assert it.asked(day) == asked
    said = " ".join(it.dev.errors(wrong))
    side = "ahead of" if request.node.callspec.params["cluster"] > 0 else "behind"
    assert f"this machine's clock is 60 min {side} the server's: set it by NTP" in said
    it.workers["two"].kill()
    it.workers["one"].start()
    (retry,) = it.dev.wait(
        "the run is retried", lambda: it.dev.runs(dagster__parent_run_id=wrong), seconds=PATIENCE_SECONDS
    )
    assert it.wait(str(retry["id"]), "SUCCESS", "FAILURE") == "SUCCESS"
    rows = harvested_rows(S3Store(s3_server.client(), bucket, "lake"), day)
    assert rows == true_rows(it.vendor.world, day)
    twice = it.vendor.log()["repeated_leaves"]["total"] - before
    note("a worker's clock an hour off", "its run failed saying so, and was retried on the other", twice=twice,
         bound=0, rows=f"{len(rows)} of {len(rows)}")  # fmt: skip
    assert twice == 0
