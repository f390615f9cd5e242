"""A cluster's parts are killed while days are harvested: when is it noticed, what does it cost, does all become green?

    python -m benchmarks.kills [times]

Dagster's daemon, its webserver, and two workers with folders of their own run ``deploy/cluster`` with PostgreSQL, S3
and Redis, on one machine. A run of the roster is launched for each day, and sensors bring the rest; nobody clicks.
Workers are killed at random moments so many times (10) in each kind of run, other parts a fifth as often at a random
moment of a day. The vendor's log judges: calls beyond those of a day that was left alone are calls made twice, and the
bound is what arrived in the five seconds before each kill.

Wanted: a dead run is failed within 15 seconds of the moment at which its lease lapses, which is 10 seconds after its
last renewal; its retry has begun within a minute of that; no 429; every row equal to the seeded truth; all green.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.process import measured_by
from vendor_assets.budget import Leases
from vendor_assets.orchestration.runs.about import DAY_TAG, HARVEST_JOB, PUBLISH_JOB, ROSTER_JOB
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.campaign import PROMISED_SECONDS
from vendor_assets_tests.support.cluster import Cluster, celery_cluster
from vendor_assets_tests.support.postgres import PostgresServer, running_postgres
from vendor_assets_tests.support.s3 import running_s3, without_aws_environment
from vendor_assets_tests.support.simulator import KEY, simulator
from vendor_assets_tests.support.truth import harvested_rows, key_of, true_rows

TIMES = 10
RATE = 40
TROOPS, WARRIORS = 40, 150
AWAY_SECONDS = 3.0
"""How long what was killed is away before it is started again, as a system's services are."""
LAPSE_SECONDS = 10.0
NOTICED_SECONDS, RETRIED_SECONDS = 15.0, 60.0
PATIENCE_SECONDS = 900.0
DAYS = range(1, 8)
"""How old days are; of older ones the vendor gives coarser timeslices. For more days there is another cluster."""
DAY_SECONDS = 25.0
"""How long a day takes about, of which a random moment is picked."""
RESULTS = Path(__file__).parent / "results" / "kills.md"
T = TypeVar("T")


@dataclass
class Tally:
    """What came of all kills of one kind; seconds are from the kill on."""

    kills: int = 0
    noticed: list[float] = field(default_factory=list)
    retried: list[float] = field(default_factory=list)
    green: list[float] = field(default_factory=list)
    twice: int = 0
    bound: int = 0

    def holds(self) -> bool:
        """Whether nothing took longer and nothing cost more than is promised."""
        noticed_by = LAPSE_SECONDS + NOTICED_SECONDS
        return (
            max(self.noticed, default=0.0) <= noticed_by
            and max(self.retried, default=0.0) <= noticed_by + RETRIED_SECONDS
            and self.twice <= self.bound
        )


@dataclass
class Trial:
    """Days that are harvested one after the other on a cluster, each disturbed in another way."""

    cluster: Cluster
    store: S3Store
    postgres: PostgresServer
    leases: Leases
    chance: random.Random
    tallies: dict[str, Tally]
    rows: int = 0
    calls_of_a_day: int = 0
    publish_seconds: float = 1.0

    def day(self, day: date, *disturb: Callable[[date], tuple[str, float] | None]) -> None:
        """Harvest a day from its roster to its report while it is disturbed.

        Args:
            disturb: Each returns what it has killed and when, in the vendor's seconds; None if it came too late.
        """
        dev, vendor = self.cluster.dev, self.cluster.vendor
        vendor.reset()
        dev.launch(ROSTER_JOB, {}, {"dagster/partition": day.isoformat()})
        killed = [found for each in disturb if (found := each(day)) is not None]
        troops = [key_of(troop) for troop in vendor.world.troops_on(day, "UTC")]
        keys = {f"{day}|{troop}" for troop in troops}

        def green() -> bool:
            reports = dev.partitions("performance_report")
            return reports.get(day.isoformat()) == "green" and all(
                keys <= {key for key, state in dev.partitions(asset).items() if state == "green"}
                for asset in ("warriors", "data_groups", "performance_data")
            )

        _wait(f"{day} is green", green)
        log = vendor.log(arrivals=True)
        assert log["violations"] == 0, log["violations"]
        rows = harvested_rows(self.store, day)
        assert rows == true_rows(vendor.world, day), day
        self.rows += len(rows)
        arrivals = [at for at, *_ in log["arrivals"]]
        if not killed:
            self.calls_of_a_day = self.calls_of_a_day or len(arrivals)
        bounds = [sum(at - PROMISED_SECONDS < each <= at + 1.0 for each in arrivals) for _, at in killed]
        twice = len(arrivals) - self.calls_of_a_day
        for (what, at), bound in zip(killed, bounds, strict=True):
            tally = self.tallies[what]
            tally.kills += 1
            tally.bound += bound
            tally.green.append(log["seconds"] - at)
            # Of several kills on a day it is that of the harvest, between whose calls it came.
            tally.twice += twice if bound == max(bounds) else 0
        assert twice <= sum(bounds), f"{day}: {twice} calls twice after {killed}, bounds {bounds}"
        what_came = f"{killed or 'alone'}, {twice} twice, bounds {bounds}"
        print(f"{datetime.now(UTC):%H:%M:%S} {day}: {what_came}", flush=True)

    def worker_in(self, job: str) -> Callable[[date], tuple[str, float] | None]:
        """Kill the worker that executes a day's run of a job, at a random moment of it."""

        def kill(day: date) -> tuple[str, float] | None:
            run_id = _wait(f"a run of {job}", lambda: self._started(job, day))
            if job == HARVEST_JOB:
                calls = self.chance.uniform(0.0, 0.9) * self.calls_of_a_day
                vendor = self.cluster.vendor
                _wait("calls", lambda: len(vendor.log(arrivals=True)["arrivals"]) >= calls)
            else:
                time.sleep(self.chance.uniform(0.0, self.publish_seconds if job == PUBLISH_JOB else 1.0))
            if self.cluster.dev.run(run_id)["status"] != "STARTED":
                return None
            worker = self.cluster.workers[self.cluster.host_of(run_id)]
            at, since = self._now(), time.monotonic()
            worker.kill()
            status = _wait("an end", lambda: self._status(run_id, "FAILURE", "SUCCESS"))
            noticed = time.monotonic() - since
            retried = None
            if status == "FAILURE":
                _wait("a retry", lambda: self._retry(run_id))
                retried = time.monotonic() - since
            worker.start()
            if retried is None:
                return None
            what = f"a worker, in a run of `{job}`"
            tally = self.tallies.setdefault(what, Tally())
            tally.noticed.append(noticed)
            tally.retried.append(retried)
            print(f"   {what}: noticed {noticed:.1f} s, retried {retried:.1f} s", flush=True)
            return what, at

        return kill

    def other(
        self, what: str, stop: Callable[[], None], start: Callable[[], None]
    ) -> Callable[[date], tuple[str, float]]:
        """Kill something else at a random moment of a day, and start it again."""

        def kill(_: date) -> tuple[str, float]:
            time.sleep(self.chance.uniform(0.0, DAY_SECONDS))
            at = self._now()
            stop()
            time.sleep(AWAY_SECONDS)
            start()
            self.tallies.setdefault(what, Tally())
            return what, at

        return kill

    def disturbances(self, what: str) -> list[Callable[[date], tuple[str, float] | None]]:
        """What is done on a day: workers are killed in each kind of run, or something else once."""
        if what == "workers":
            return [self.worker_in(job) for job in (ROSTER_JOB, HARVEST_JOB, PUBLISH_JOB)]
        daemon, broker = self.cluster.daemon, self.cluster.broker
        parts: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "the daemon": (daemon.kill, daemon.start),
            "the code server": (self.kill_code_server, lambda: None),
            "the broker": (partial(broker.kill, forget=False), broker.start),
            "the broker, with its memory": (partial(broker.kill, forget=True), broker.start),
            "PostgreSQL": (self.postgres.stop, self.postgres.start),
        }
        return [self.other(what, *parts[what])]

    def measure_publication(self, day: date) -> None:
        """How long a run that publishes takes, for picking moments of it."""
        run_id = _wait("a publication", lambda: self._started(PUBLISH_JOB, day))
        since = time.monotonic()
        _wait("its end", lambda: self._status(run_id, "SUCCESS"))
        self.publish_seconds = time.monotonic() - since

    def kill_code_server(self) -> None:
        """Kill the processes that evaluate the daemon's sensors."""
        for pid in self.cluster.daemon.children:
            with suppress(ProcessLookupError, FileNotFoundError):
                if b"grpc" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, 9)

    def _now(self) -> float:
        seconds: float = self.cluster.vendor.log()["seconds"]
        return seconds

    def _started(self, job: str, day: date) -> str | None:
        """A run of a job and a day that holds its lease."""
        for run in self.cluster.dev.runs():
            days = {run["tags"].get(DAY_TAG), run["tags"].get("dagster/partition")}
            if run["jobName"] == job and day.isoformat() in days and self.leases.alive(run["id"]):
                return str(run["id"])
        return None

    def _status(self, run_id: str, *wanted: str) -> str | None:
        status = str(self.cluster.dev.run(run_id)["status"])
        return status if status in wanted else None

    def _retry(self, run_id: str) -> bool:
        retries = self.cluster.dev.runs(dagster__parent_run_id=run_id)
        return any(run["status"] not in ("QUEUED", "NOT_STARTED", "STARTING") for run in retries)


def _wait(what: str, probe: Callable[[], T | None]) -> T:
    """Ask until the answer is true; who is asked may be away for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(OSError, RuntimeError, KeyError, TypeError, StopIteration):
            if found := probe():
                return found
        assert time.monotonic() < deadline, f"not in {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.2)


@contextmanager
def _trial(chance: random.Random, tallies: dict[str, Tally]) -> Iterator[Trial]:
    settings = {"VENDOR_API_KEY": KEY, "VENDOR_RATE": f"{RATE}/s", "VENDOR_SHARE": "1"}
    with (
        without_aws_environment(),
        tempfile.TemporaryDirectory() as folder,
        simulator(troops=TROOPS, warriors=WARRIORS, data_groups=1, limit=f"{RATE}/s", churn=False) as vendor,
        running_postgres() as postgres,
        running_s3() as s3,
        celery_cluster(Path(folder) / "project", settings, vendor, postgres, s3) as (cluster, bucket),
    ):
        leases = Leases(cluster.environ["VENDOR_ASSETS_DB"])
        yield Trial(cluster, S3Store(s3.client(), bucket, "lake"), postgres, leases, chance, tallies)


def main(times: int) -> int:
    """Kill, print, and keep the figures; 0 if all that is wanted was reached."""
    seed = int(time.time())
    chance, tallies = random.Random(seed), dict[str, Tally]()
    started, load, rows = time.monotonic(), os.getloadavg()[0], 0
    others = ["the daemon", "the code server", "the broker", "the broker, with its memory", "PostgreSQL"]
    plan = [what for number in range(times) for what in ["workers", *(others if number % 5 == 0 else [])]]
    while plan:
        today = datetime.now(UTC).date()
        days = [today - timedelta(days=ago) for ago in DAYS]
        with _trial(chance, tallies) as trial:
            trial.day(days.pop(), trial.measure_publication)
            while days and plan:
                trial.day(days.pop(), *trial.disturbances(plan.pop(0)))
                minutes = (time.monotonic() - started) / 60
                how = f"load average {load:.1f} at the start, {minutes:.0f} minutes, seed {seed}"
                _keep(trial, how, times, rows + trial.rows)
            rows += trial.rows
    return 0 if all(tally.holds() for tally in tallies.values()) else 1


def _keep(trial: Trial, circumstances: str, times: int, rows: int) -> None:
    lines = [
        "# Kills on a cluster",
        "",
        f"{measured_by(f'kills {times}')}; {circumstances}.",
        "",
        (
            f"Each day makes {trial.calls_of_a_day} calls and became green without a click, with every row as in the "
            f"seeded truth ({rows:,} rows in all) and without a 429. Seconds are from the kill on, the median "
            f"and the most; a lease lapses {LAPSE_SECONDS:g} s after its last renewal."
        ),
        "",
        "| killed | times | run failed, s | its retry runs, s | the day is green, s | calls twice / bound | holds |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for what, tally in trial.tallies.items():
        figures = " | ".join(_seconds(each) for each in (tally.noticed, tally.retried, tally.green))
        holds = "yes" if tally.holds() else "no"
        lines.append(f"| {what} | {tally.kills} | {figures} | {tally.twice} / {tally.bound} | {holds} |")
    print("\n".join([*lines, ""]), flush=True)
    RESULTS.write_text("\n".join([*lines, ""]))


def _seconds(found: list[float]) -> str:
    return f"{sorted(found)[len(found) // 2]:.0f}, {max(found):.0f}" if found else "–"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else TIMES))
