"""A deployment on Celery's workers, as ``deploy/cluster`` ships it, on one machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path
from types import MappingProxyType

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import DAY_TAG, FOLLOW_TAG, HARVEST_JOB, TRIGGER_TAG
from vendor_assets_tests.support.dagster_dev import DagsterDev, dagster_dev, of_session, project
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.redis import RedisServer, redis_server
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import key_of

DEPLOY = Path(__file__).parents[2] / "deploy" / "cluster"
PATIENCE_SECONDS = 280


class Service:
    """A process of the deployment that can be killed with all that it started, and started again.

    Args:
        name: Of its log.
        command: A program beside this Python, and its arguments.
        ready_text: What it logs once it does its work.
        environ: Its environment.
    """

    def __init__(
        self, name: str, folder: Path, command: Sequence[str], ready_text: bytes, environ: Mapping[str, str]
    ) -> None:
        self.log = folder / f"{name}.log"
        programs = Path(sys.executable).parent
        self._command = [str(programs / command[0]), *command[1:]]
        self._folder, self._ready_text = folder, ready_text
        self._environ = {**environ, "PATH": f"{programs}{os.pathsep}{environ['PATH']}"}
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        with self.log.open("ab") as log:
            self._before = log.tell()
            # A session of its own is a process group of its own: what the machine runs ends with it.
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def ready(self) -> bool:
        """Whether it does its work since it was last started."""
        return self._ready_text in self.log.read_bytes()[self._before :]

    @property
    def children(self) -> list[int]:
        """The processes that it has started."""
        return [pid for pid in of_session(self._process.pid) if pid != self._process.pid]

    def kill(self) -> None:
        """Cut its power."""
        for pid in of_session(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def _worker(name: str, folder: Path, environ: Mapping[str, str]) -> Service:
    """A machine that executes runs: a worker of Celery's, with a folder of its own for temporary files."""
    scratch = folder / f"scratch-{name}"
    scratch.mkdir()
    start = ["dagster-celery", "worker", "start", "-A", "dagster_celery.app", "-n", name]
    start += ["-y", str(folder / "worker.yaml"), "--", "--concurrency", "1"]
    return Service(f"worker-{name}", folder, start, b" ready.", {**environ, "TMPDIR": str(scratch)})


class Cluster:
    """The deployment: the vendor, the broker, the workers by name, the daemon, and the webserver as ``dev``."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        vendor: RunningSimulator,
        broker: RedisServer,
        of_two: Mapping[str, str],
    ) -> None:
        self.folder, self.environ, self.vendor, self.broker = folder, environ, vendor, broker
        self.workers = {
            "one": _worker("one", folder, environ),
            "two": _worker("two", folder, {**environ, **of_two}),
        }
        daemon = ["dagster-daemon", "run", "-m", "vendor_assets.definitions"]
        self.daemon = Service("daemon", folder, daemon, b"SensorDaemon", environ)
        self.dev: DagsterDev

    @property
    def services(self) -> list[Service]:
        """All that it consists of beside the webserver."""
        return [self.daemon, *self.workers.values()]

    def launch(self, day: date) -> str:
        """Harvest all troops of a day in one run."""
        troops = [key_of(troop) for troop in self.vendor.world.troops_on(day, "UTC")]
        for troop in troops:
            self.dev.add_troop(troop)
        config = harvest_config(Names(), [f"{day}|{troop}" for troop in troops], list(CHAIN))
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


@contextmanager
def celery_cluster(
    folder: Path,
    settings: Mapping[str, str],
    vendor: RunningSimulator,
    postgres: PostgresServer,
    s3: RunningS3,
    of_two: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[Cluster, str]]:
    """Two workers under one daemon while the block lasts, and their bucket, in which the store is ``lake``.

    Args:
        folder: Where the project is made.
        settings: Those that it needs beside its address, store and database.
        of_two: What the environment of the second worker has besides.
    """
    bucket = s3.make_bucket()
    with ExitStack() as stack:
        database = stack.enter_context(postgres.database())
        broker = stack.enter_context(redis_server(folder.parent / "redis"))
        environ = project(
            folder,
            {
                **s3.environment,
                "VENDOR_URL": vendor.url,
                "VENDOR_ASSETS_SETTLING": "0",
                "VENDOR_ASSETS_STORE": f"s3://{bucket}/lake",
                "VENDOR_ASSETS_DB": database,
                "DAGSTER_PG_URL": database.replace("postgresql:", "postgresql+psycopg2:"),
                "DAGSTER_LOGS_BUCKET": bucket,
                "DAGSTER_CELERY_BROKER": broker.url,
                "DAGSTER_HOME": str(folder),
                **settings,
            },
        )
        for name in ("dagster.yaml", "worker.yaml"):
            shutil.copy(DEPLOY / name, folder / name)
        made = Cluster(folder, environ, vendor, broker, of_two)
        try:
            webserver = ["dagster_webserver", "-m", "vendor_assets.definitions", "--host", "127.0.0.1"]
            made.dev = stack.enter_context(dagster_dev(folder, environ, *webserver))
            for service in made.services:
                made.dev.wait("the service is ready", lambda service=service: service.ready)
            yield made, bucket
        finally:
            for service in made.services:
                service.kill()
