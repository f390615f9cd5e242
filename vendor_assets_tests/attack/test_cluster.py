"""Runs on Celery's workers, as ``deploy/cluster`` ships it, while workers are killed and the broker forgets."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import DAY_TAG, FOLLOW_TAG, HARVEST_JOB, TRIGGER_TAG
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.dagster_dev import DagsterDev, dagster_dev, project
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.redis import RedisServer, redis_server
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.secrets import SECRET
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, key_of, true_rows

DEPLOY = Path(__file__).parents[2] / "deploy" / "cluster"
RATE = 40
WORLD = {"warriors": 90, "data_groups": 1, "limit": f"{RATE}/s"}
DAYS = [datetime.now(UTC).date() - timedelta(days=ago) for ago in (3, 2)]
PATIENCE_SECONDS = 280


class Worker:
    """A machine that executes runs: a worker of Celery's, with a folder of its own for temporary files."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        scratch = folder / f"scratch-{name}"
        scratch.mkdir()
        programs = Path(sys.executable).parent
        start = [str(programs / "dagster-celery"), "worker", "start"]
        start += [
            "-A",
            "dagster_celery.app",
            "-n",
            name,
            "-y",
            str(folder / "worker.yaml"),
            "--",
            "--concurrency",
            "1",
        ]
        self.log = folder / f"worker-{name}.log"
        with self.log.open("ab") as log:
            # A session of its own is a process group of its own: what the machine runs ends with it.
            self._process = subprocess.Popen(
                start,
                cwd=folder,
                env={**environ, "TMPDIR": str(scratch), "PATH": f"{programs}{os.pathsep}{environ['PATH']}"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def ready(self) -> bool:
        """Whether it takes runs."""
        return b" ready." in self.log.read_bytes()

    def kill(self) -> None:
        """Cut its power."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Cluster:
    """The deployment: the vendor, the broker, the workers by name, and Dagster's services."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], vendor: RunningSimulator, broker: RedisServer
    ) -> None:
        self.folder, self.environ, self.vendor, self.broker = folder, environ, vendor, broker
        self.workers = {name: Worker(name, folder, environ) for name in ("one", "two")}
        self.dev: DagsterDev

    @property
    def troops(self) -> list[str]:
        """Partition keys, the same on each day."""
        return [key_of(troop) for troop in self.vendor.world.troops_on(DAYS[-1], "UTC")]

    def launch(self, day: date) -> str:
        """Harvest all troops of a day in one run."""
        for troop in self.troops:
            self.dev.add_troop(troop)
        config = harvest_config(Names(), [f"{day}|{troop}" for troop in self.troops], list(CHAIN))
        return self.dev.launch(
            HARVEST_JOB, config, {TRIGGER_TAG: "command", FOLLOW_TAG: "self", DAY_TAG: str(day)}
        )

    def asked(self, day: date, since: float = 0.0) -> int:
        """How many calls for a day's data have come since then, by the vendor's clock."""
        arrivals = self.vendor.log(arrivals=True)["arrivals"]
        return sum(
            1
            for at, target, _ in arrivals
            if at > since and "data.json" in target and f"from={day}" in target
        )

    def wait(self, run_id: str, *statuses: str) -> str:
        """Wait until a run is in one of some states; which."""

        def status() -> str | None:
            found = str(self.dev.run(run_id)["status"])
            return found if found in statuses else None

        return self.dev.wait(f"the run is {' or '.join(statuses)}", status, seconds=PATIENCE_SECONDS)

    def host_of(self, run_id: str) -> str:
        """The name of the worker that executes a run."""
        task = self.dev.run(run_id)["tags"]["dagster-celery/task_id"]
        (name,) = (name for name, worker in self.workers.items() if task.encode() in worker.log.read_bytes())
        return name


@pytest.fixture
def cluster(
    tmp_path: Path,
    vendor: RunningSimulator,
    postgres_server: PostgresServer,
    s3_server: RunningS3,
    clean_aws_environment: None,
) -> Iterator[tuple[Cluster, str]]:
    """Two workers under one daemon, with rosters that are there already; and the bucket."""
    bucket, folder = s3_server.make_bucket(), tmp_path / "project"
    with ExitStack() as stack:
        database = stack.enter_context(postgres_server.database())
        broker = stack.enter_context(redis_server(tmp_path / "redis"))
        settings = s3_server.environment | {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": SECRET,
            "VENDOR_RATE": f"{RATE}/s",
            "VENDOR_SHARE": "1",
            "VENDOR_ASSETS_SETTLING": "0",
            "VENDOR_ASSETS_STORE": f"s3://{bucket}/lake",
            "VENDOR_ASSETS_DB": database,
        }
        services = {
            "DAGSTER_PG_URL": database.replace("postgresql:", "postgresql+psycopg2:"),
            "DAGSTER_LOGS_BUCKET": bucket,
            "DAGSTER_CELERY_BROKER": broker.url,
            "DAGSTER_HOME": str(folder),
        }
        environ = project(folder, settings | services)
        for name in ("dagster.yaml", "worker.yaml"):
            shutil.copy(DEPLOY / name, folder / name)
        smallest = vendor.world.troops_on(DAYS[-1], "UTC")[-1]
        ranged = ["--from", DAYS[0].isoformat(), "--to", DAYS[-1].isoformat()]
        done = Command(folder, settings | services).run(
            "harvest", *ranged, "--no-report", "--troop", smallest.id
        )
        assert done.code == 0, done.out + done.err
        made = Cluster(folder, environ, vendor, broker)
        try:
            made.dev = stack.enter_context(dagster_dev(folder, environ))
            for worker in made.workers.values():
                made.dev.wait("the worker is ready", lambda worker=worker: worker.ready)
            yield made, bucket
        finally:
            for worker in made.workers.values():
                worker.kill()


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
