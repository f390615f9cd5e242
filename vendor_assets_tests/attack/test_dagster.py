"""Dagster's own processes are killed under ``vendor-assets dev``: runs are noticed, failed and retried."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import (
    DAY_TAG,
    FOLLOW_TAG,
    GOES_ON_TAG,
    HARVEST_JOB,
    ROSTER_JOB,
    TAKEN_TAG,
    TRIGGER_TAG,
)
from vendor_assets.orchestration.runs.launching import open_instance
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.dagster_dev import DagsterDev, dagster_dev, project
from vendor_assets_tests.support.proxy import faulty_proxy
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.secrets import SECRET, files_with_secret, logs_with_bodies
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import harvested_rows, id_of, key_of, true_rows

RATE = 30
WORLD = {"warriors": 120, "data_groups": 1, "limit": f"{RATE}/s"}
DAYS = [datetime.now(UTC).date() - timedelta(days=ago) for ago in (3, 2, 1)]
PATIENCE_SECONDS = 280


@dataclass
class Deployment:
    """A project under ``vendor-assets dev``, its vendor, and the runs that were killed.

    Attributes:
        killed: Per killed run its day and the leaves that may be asked for again.
    """

    folder: Path
    environ: Mapping[str, str]
    vendor: RunningSimulator
    dev: DagsterDev
    killed: dict[str, int] = field(default_factory=dict)

    @property
    def troops(self) -> list[str]:
        """Partition keys of the troops, the same on each day."""
        return [key_of(troop) for troop in self.vendor.world.troops_on(DAYS[-1], "UTC")]

    def launch(self, day: date) -> str:
        """Harvest all troops of a day in one run."""
        for troop in self.troops:
            self.dev.add_troop(troop)
        config = harvest_config(Names(), [f"{day}|{troop}" for troop in self.troops], list(CHAIN))
        tags = {TRIGGER_TAG: "command", FOLLOW_TAG: "self", DAY_TAG: day.isoformat()}
        return self.dev.launch(HARVEST_JOB, config, tags)

    def under_way(self, run_id: str, day: date, leaves: int) -> int:
        """Wait until so many leaves of a run's day were answered; returns its process."""
        self.dev.wait("the run asks for data", lambda: self.answered(day) >= leaves, seconds=PATIENCE_SECONDS)
        return self.dev.wait(
            "the run has a process", lambda: self.dev.worker(run_id), seconds=PATIENCE_SECONDS
        )

    def kill(self, run_id: str, day: date, *pids: int) -> None:
        """Kill processes of a run at once, and write down what that may cost."""
        killed_at = self.vendor.log()["seconds"]
        for pid in pids:
            # Some end by themselves as soon as what they served is gone.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.vendor.log()["in_flight"]:
            time.sleep(0.1)
        self.killed[run_id] = self.answered(day, since=killed_at - PROMISED_SECONDS)

    def answered(self, day: date, since: float = 0.0) -> int:
        """How many calls for a day's data have come since then, by the vendor's clock."""
        arrivals = self.vendor.log(arrivals=True)["arrivals"]
        return sum(1 for at, target, _ in arrivals if at > since and _of(day, target))

    def twice(self) -> int:
        """Leaves that were answered twice."""
        total: int = self.vendor.log()["repeated_leaves"]["total"]
        return total

    def retry_of(self, run_id: str) -> str:
        """The run that Dagster started after a run had failed."""
        (found,) = self.dev.wait(
            "the run is retried",
            lambda: self.dev.runs(dagster__parent_run_id=run_id),
            seconds=PATIENCE_SECONDS,
        )
        return str(found["id"])

    def over(self, run_id: str) -> str:
        """Wait for a run's end; its status."""

        def status() -> str | None:
            found = str(self.dev.run(run_id)["status"])
            return found if found in ("SUCCESS", "FAILURE", "CANCELED") else None

        return self.dev.wait("the run is over", status, seconds=PATIENCE_SECONDS)

    def wait_green(self, *days: date) -> None:
        """Every partition is shown green."""
        wanted = {f"{day}|{troop}": "green" for day in days for troop in self.troops}
        for asset in CHAIN:
            self.dev.wait_for(asset, wanted)

    def assert_whole(self, *days: date) -> str:
        """Every partition green, every row true; tells how many."""
        self.wait_green(*days)
        store, count = FolderStore(self.folder / "data"), 0
        for day in days:
            rows = harvested_rows(store, day)
            assert rows == true_rows(self.vendor.world, day), day
            count += len(rows)
        return f"{count} of {count}"

    def assert_discreet(self) -> None:
        """The key is nowhere below the project, and no answer in its logs and events."""
        assert not files_with_secret(self.folder)
        texts = [self.dev.log.read_bytes()]
        for path in (self.folder / ".dagster").rglob("*"):
            # A database's passing files may go meanwhile.
            with suppress(FileNotFoundError, IsADirectoryError):
                texts.append(path.read_bytes())
        bodies = logs_with_bodies(texts)
        assert not bodies


def _of(day: date, target: str) -> bool:
    return "data.json" in target and f"from={day}" in target.replace("%3A", ":")


@pytest.fixture
def environ(tmp_path: Path, vendor: RunningSimulator) -> dict[str, str]:
    """The environment of a project on a folder."""
    return made(tmp_path, vendor)


def made(tmp_path: Path, vendor: RunningSimulator, **more: str) -> dict[str, str]:
    """Make a project whose rosters are there already, so that what is launched is under way at once."""
    settings = {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": SECRET,
        "VENDOR_RATE": f"{RATE}/s",
        "VENDOR_SHARE": "1",
        "VENDOR_ASSETS_SETTLING": "0",
        **more,
    }
    environ = project(tmp_path / "project", settings)
    smallest = vendor.world.troops_on(DAYS[-1], "UTC")[-1]
    ranged = ["--from", DAYS[0].isoformat(), "--to", DAYS[-1].isoformat()]
    done = Command(tmp_path / "project", settings).run("harvest", *ranged, "--troop", smallest.id)
    assert done.code == 0, done.out + done.err
    return environ


@contextmanager
def deployed(tmp_path: Path, environ: dict[str, str], vendor: RunningSimulator) -> Iterator[Deployment]:
    """The project, running."""
    folder = tmp_path / "project"
    with dagster_dev(folder, environ) as dev:
        yield Deployment(folder, environ, vendor, dev)


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_killed_run_worker_is_retried(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """Three runs are killed at random moments; Dagster fails and retries each, which asks only for what is missing."""
    chance = random.Random(7)
    with deployed(tmp_path, environ, vendor) as it:
        before = it.twice()
        runs = {it.launch(day): day for day in DAYS}
        for run_id, day in runs.items():
            it.kill(run_id, day, it.under_way(run_id, day, chance.randrange(3, 110)))
        for run_id in runs:
            assert it.over(run_id) == "FAILURE"
            retry = it.retry_of(run_id)
            assert it.over(retry) == "SUCCESS"
            assert it.dev.run(retry)["tags"]["dagster/root_run_id"] == run_id
        rows = it.assert_whole(*DAYS)
        twice, bound = it.twice() - before, sum(it.killed.values())
        note(
            "kill -9 of a run worker",
            "three runs under dev, each retried by Dagster",
            twice=twice,
            bound=bound,
            rows=rows,
        )
        assert twice <= bound
        it.assert_discreet()


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_killed_run_that_goes_on_takes_the_same_troops_again(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """A scheduled day's run is killed twice between its calls for data; its retries bring the day, and no other run."""
    with deployed(tmp_path, environ, vendor) as it:
        (day, *_) = DAYS
        before = it.twice()
        tags = {"dagster/partition": day.isoformat(), DAY_TAG: day.isoformat(), GOES_ON_TAG: "true"}
        attempts = [it.dev.launch(ROSTER_JOB, {}, tags)]
        for _ in range(2):
            it.kill(attempts[-1], day, it.under_way(attempts[-1], day, it.answered(day) + 15))
            assert it.over(attempts[-1]) == "FAILURE"
            attempts.append(it.retry_of(attempts[-1]))
        assert it.over(attempts[-1]) == "SUCCESS"
        rows = it.assert_whole(day)
        assert not [run for run in it.dev.runs() if run["jobName"] == HARVEST_JOB]
        # Dagster's UI and API show no tag of this kind.
        with chdir(it.folder), open_instance(it.folder, it.environ) as instance:
            found = [instance.get_run_by_id(each) for each in attempts]
        assert len({run.tags[TAKEN_TAG] for run in found if run is not None}) == 1
        twice, bound = it.twice() - before, sum(it.killed.values())
        note(
            "kill -9 of a scheduled day's run",
            "twice, each time retried",
            twice=twice,
            bound=bound,
            rows=rows,
        )
        assert twice <= bound


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_retry_pays_nothing_for_what_was_finished(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """Of a run over many partitions that is killed, the finished ones are reported again without a call."""
    with deployed(tmp_path, environ, vendor) as it:
        (day, *_) = DAYS
        run_id = it.launch(day)
        # Small troops finish early: the largest is still being asked for its data.
        small = [f"{day}|{troop}" for troop in it.troops[1:]]
        it.dev.wait_for("performance_data", dict.fromkeys(small, "green"))
        finished = sum(len(vendor.world.warriors_on(id_of(troop), day)) for troop in it.troops[1:])
        pid = it.under_way(run_id, day, finished + 20)
        lists = {name: vendor.calls(name) for name in ("hosts", "metrics")}
        it.kill(run_id, day, pid)
        retry = it.retry_of(run_id)
        assert it.over(retry) == "SUCCESS"
        modes = {
            key: it.dev.materializations("performance_data", key)[0]
            for key in (f"{day}|{it.troops[0]}", *small)
        }
        # The fixture's command had finished the smallest before, for another run.
        assert [modes[key]["mode"] for key in small] == ["report"] * (len(small) - 1) + ["reconcile"]
        assert [modes[key]["calls"] for key in small] == [0] * len(small)
        assert modes[f"{day}|{it.troops[0]}"]["mode"] == "resume"
        assert {name: vendor.calls(name) for name in lists} == lists
        twice, bound = it.twice(), it.killed[run_id]
        done = f"{len(small)} finished partitions reported again, 1 resumed"
        note("kill -9 of a run over many", done, twice=twice, bound=bound, rows=it.assert_whole(day))
        assert twice <= bound


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_killed_code_server_loses_no_run(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """Killed together with its worker, a run stays started until its lapsed lease is noticed; then it is retried."""
    with deployed(tmp_path, environ, vendor) as it:
        (day, *_) = DAYS
        run_id = it.launch(day)
        worker = it.under_way(run_id, day, 40)
        # dev starts the outer one again when it dies; of the inner one alone Dagster takes no notice.
        parts = ("dagster code-server start", "dagster api grpc")
        servers = [pid for pid, line in it.dev.processes().items() if any(part in line for part in parts)]
        assert len(servers) == 2
        it.kill(run_id, day, *servers, worker)
        retry = it.retry_of(run_id)
        assert any("lease has lapsed" in message for message in it.dev.messages(run_id))
        assert it.over(retry) == "SUCCESS"
        twice, bound = it.twice(), it.killed[run_id]
        note("kill -9 of code server and worker", "noticed by the lapsed lease, retried", twice=twice, bound=bound,
             rows=it.assert_whole(day))  # fmt: skip
        assert twice <= bound


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_dead_daemon_ends_no_run(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """When its daemon is killed, dev ends, but the run under way comes to its end; dev started again shows it."""
    (day, *_) = DAYS
    with deployed(tmp_path, environ, vendor) as it:
        run_id = it.launch(day)
        worker = it.under_way(run_id, day, 40)
        it.kill(run_id, day, *(pid for pid, line in it.dev.processes().items() if "dagster._daemon" in line))
        it.dev.wait("the run's process has ended", lambda: not Path(f"/proc/{worker}").exists())
    with deployed(tmp_path, environ, vendor) as it:
        assert it.over(run_id) == "SUCCESS"
        note("kill -9 of the daemon", "dev started again; the run had ended well", twice=it.twice(), bound=0,
             rows=it.assert_whole(day))  # fmt: skip
        assert it.twice() == 0


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_machine_that_restarts_goes_on(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """After everything was killed and dev is started again, the run is found by its lease, retried, complete."""
    (day, *_) = DAYS
    with deployed(tmp_path, environ, vendor) as it:
        run_id = it.launch(day)
        it.under_way(run_id, day, 40)
        it.kill(run_id, day, *reversed(it.dev.processes()))
        bound = it.killed[run_id]
    with deployed(tmp_path, environ, vendor) as it:
        assert it.over(run_id) == "FAILURE"
        assert it.over(it.retry_of(run_id)) == "SUCCESS"
        note("kill -9 of all processes", "dev started again; the run was retried", twice=it.twice(), bound=bound,
             rows=it.assert_whole(day))  # fmt: skip
        assert it.twice() <= bound


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_a_run_that_lost_its_store_is_retried(
    tmp_path: Path, vendor: RunningSimulator, s3_server: RunningS3, clean_aws_environment: None, note: Note
) -> None:
    """When S3 is away for longer than a run waits, Dagster retries the run, which goes on once S3 is back."""
    bucket, (day, *_) = s3_server.make_bucket(), DAYS
    with faulty_proxy(s3_server.endpoint) as proxy:
        at = s3_server.environment | {
            "VENDOR_ASSETS_STORE": f"s3://{bucket}/lake",
            "VENDOR_ASSETS_DB": "sqlite:///budget.db",
            "AWS_ENDPOINT_URL": proxy.url,
        }
        environ = made(tmp_path, vendor, **at)
        with deployed(tmp_path, environ, vendor) as it:
            run_id = it.launch(day)
            it.under_way(run_id, day, 40)
            proxy.set("503")
            assert it.over(run_id) == "FAILURE"
            # All of it came within five seconds before: none of it may be asked for more than once again.
            bound = it.answered(day)
            proxy.set("pass")
            last, tried = run_id, 1
            while it.over(last) != "SUCCESS":
                last, tried = it.retry_of(last), tried + 1
            it.wait_green(day)
            twice = it.twice()
    rows = harvested_rows(S3Store(s3_server.client(), bucket, "lake"), day)
    assert rows == true_rows(vendor.world, day)
    note("S3 away under dev", f"the run failed; retried by Dagster, attempt {tried} went through", twice=twice,
         bound=bound, rows=f"{len(rows)} of {len(rows)}")  # fmt: skip
    assert twice <= bound


@pytest.mark.long
@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_terminate_costs_nothing(
    tmp_path: Path, vendor: RunningSimulator, environ: dict[str, str], note: Note
) -> None:
    """A run that is terminated lands what is in flight; launched again, not one call is made twice."""
    with deployed(tmp_path, environ, vendor) as it:
        (day, *_) = DAYS
        run_id = it.launch(day)
        it.under_way(run_id, day, 40)
        it.dev.terminate(run_id)
        assert it.over(run_id) == "CANCELED"
        assert it.over(it.launch(day)) == "SUCCESS"
        note("Dagster's terminate", "a run under dev, launched again", twice=it.twice(), bound=0,
             rows=it.assert_whole(day))  # fmt: skip
        assert it.twice() == 0
        assert vendor.log()["repeated"]["by_endpoint"].get("data", 0) == 0
