"""What a tick of each sensor takes, and the loading of the code location, beside years of history.

The history is written directly, as harvests leave it: the store by ``fabricated.py``, Dagster's materializations and
queued runs by copying one of each in SQL. Each tick is evaluated in this process, as the code server does it; CPU time
is that of the process (not of PostgreSQL's server), wall includes what the sensor adds of partitions.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData

from benchmarks import fabricated
from benchmarks.process import run
from vendor_assets.orchestration.automation.freshness import DAILY_SCHEDULE
from vendor_assets.orchestration.automation.run_requests import roster_runs
from vendor_assets.orchestration.dagster_private import repository_of
from vendor_assets.orchestration.definitions import silence_warnings
from vendor_assets.orchestration.partitions import day_troop_key
from vendor_assets.orchestration.runs.about import HARVEST_JOB
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.work_class import BACKFILL
from vendor_assets_tests.support.deployment import Deployment, deploy
from vendor_assets_tests.support.postgres import running_postgres

Row = tuple[str, str, str]

STORAGES: Final = ("sqlite", "postgresql")
FEW_TROOPS: Final = 50
WANTED: Final = "2 / 10"
SOME: Final = 200
"""Materializations that a tick sees."""
SEVERAL: Final = 10
"""Ticks that are made where one does not get through what waits."""
_EVENTS: Final = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"


def measure(troops: int, days: int, storages: Sequence[str] = STORAGES) -> Iterable[Row]:
    """Each sensor's tick on each storage, and the location's load with few troops and with many."""
    silence_warnings()
    for storage in storages:
        loads = []
        for count in (FEW_TROOPS, troops):
            with site(storage, count, days) as made:
                loads.append(made.load())
                yield f"{storage}: location load with {count} troops, CPU / wall", _pair(*loads[-1]), ""
                if count == troops:
                    yield from ((f"{storage}: {what}", *rest) for what, *rest in made.ticks())
        (few, _), (many, _) = loads
        yield f"{storage}: location load, CPU, of {FEW_TROOPS} troops", f"{many / few:.2f}", "1.5"


@contextmanager
def dagster_url() -> Iterator[str]:
    """The URL of a PostgreSQL of its own, as Dagster takes it."""
    with running_postgres() as server:
        yield server.url().replace("postgresql:", "postgresql+psycopg2:")


def write_instance(home: Path, url: str = "") -> None:
    """Describe an instance of Dagster in a folder, on a database of PostgreSQL's or else on SQLite there."""
    storage = f"postgres: {{postgres_url: '{url}'}}" if url else f"sqlite: {{base_dir: '{home}'}}"
    (home / "dagster.yaml").write_text(f"storage: {{{storage}}}\ntelemetry: {{enabled: false}}\n")


def _pair(cpu_seconds: float, seconds: float) -> str:
    return f"{cpu_seconds:.2f} / {seconds:.2f}"


@contextmanager
def site(storage: str, troops: int, days: int) -> Iterator[Site]:
    """A deployment with its history, while the block lasts."""
    os.environ["VENDOR_API_KEY"] = "k"
    last = datetime.now(UTC).date() - timedelta(days=1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home = folder / "home"
        home.mkdir()
        url = stack.enter_context(dagster_url()) if storage == "postgresql" else ""
        write_instance(home, url)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        settings = {
            "VENDOR_URL": "http://127.0.0.1:9",
            "VENDOR_API_KEY": "k",
            "VENDOR_RATE": "1000/min",
            "VENDOR_ASSETS_START": (last - timedelta(days=days - 1)).isoformat(),
        }
        instance.get_runs_count()
        instance.all_asset_keys()
        url = url or f"sqlite:///{next(home.rglob('index.db'))}"
        made = Site(
            folder, deploy(folder, instance, **settings), settings, sa.create_engine(url), troops, days, last
        )
        stack.callback(made.events.dispose)
        made.fill()
        yield made


@dataclass
class Site:
    """A deployment with a history.

    Attributes:
        events: The database of Dagster's events.
        last: The newest day. It was listed; all days before were harvested, of the one before all is in the store.
    """

    folder: Path
    deployment: Deployment
    settings: dict[str, str]
    events: sa.Engine
    troops: int
    days: int
    last: date

    @property
    def _days(self) -> list[date]:
        return fabricated.days_until(self.last, self.days)

    @property
    def _store(self) -> FolderStore:
        store = self.deployment.store
        assert isinstance(store, FolderStore)
        return store

    def fill(self) -> None:
        """Write the history."""
        store, instance = self._store, self.deployment.instance
        keys = list(fabricated.keys_of(store, self.troops).values())
        instance.add_dynamic_partitions("troop", keys)
        fabricated.write_roster(store, self.last, self.troops)
        roster = store.get(layout.table_key("troops", self.last))
        for day in self._days[:-1]:
            store.put(layout.table_key("troops", day), roster)
        fabricated.write_troop_days(store, self._days[-2:-1], self.troops)
        self._copy("daily_performance", self._days)
        self._copy("performance_data", self._days, keys)
        self._copy("performance_data", self._days[-1:], keys, planned=True)
        self._copy("warriors", self._days[-2:-1], keys)
        self._copy("data_groups", self._days[-2:-1], keys)
        self._copy("warriors", self._days[-1:], keys[:SOME])
        self._copy("troops", self._days)
        with self.events.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
        schedule = repository_of(instance, self.folder).get_instigator_origin(DAILY_SCHEDULE)
        told = ScheduleInstigatorData("35 0 * * *", 1e9)
        instance.add_instigator_state(
            InstigatorState(schedule, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, told)
        )

    def _copy(
        self, asset: str, days: Sequence[date], keys: Sequence[str] = (), *, planned: bool = False
    ) -> None:
        """Materializations of days, or of each day's troops, in one finished run each call."""
        instance, job = self.deployment.instance, HARVEST_JOB
        made_by = instance.add_run(dg.DagsterRun(job, status=dg.DagsterRunStatus.SUCCESS)).run_id
        first: str = day_troop_key(days[0], keys[0]) if keys else days[0].isoformat()
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        about: Any = StepMaterializationData(dg.AssetMaterialization(asset, partition=first))
        if planned:
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
            about = AssetMaterializationPlannedData(dg.AssetKey(asset), partition=first)
        instance.report_dagster_event(dg.DagsterEvent(kind.value, job, event_specific_data=about), made_by)
        with self.events.begin() as connection:
            pattern = connection.execute(sa.text("SELECT max(id) FROM event_logs")).scalar_one()
            for name, texts in (
                ("d", [day.isoformat() for day in days]),
                ("t", [f"|{key}" for key in keys] or [""]),
            ):
                connection.execute(sa.text(f"CREATE TEMPORARY TABLE {name} (n INTEGER, name TEXT)"))
                connection.execute(
                    sa.text(f"INSERT INTO {name} VALUES (:n, :name)"),
                    [{"n": number, "name": text} for number, text in enumerate(texts)],
                )
            connection.execute(
                sa.text(
                    f"INSERT INTO event_logs ({_EVENTS}) SELECT run_id, replace(event, :first, d.name || t.name),"
                    " dagster_event_type, timestamp, step_key, asset_key, d.name || t.name"
                    " FROM event_logs CROSS JOIN d CROSS JOIN t WHERE event_logs.id = :id ORDER BY d.n, t.n"
                ),
                {"first": first, "id": pattern},
            )
            for name in ("d", "t"):
                connection.execute(sa.text(f"DROP TABLE {name}"))

    def load(self) -> tuple[float, float]:
        """CPU and wall seconds of loading the location in a process of its own, as Dagster's command does it."""
        settings = self.settings | {
            "DAGSTER_HOME": str(self.folder / "home"),
            "VENDOR_ASSETS_STORE": self.deployment.store.url,
        }
        arguments = ["-m", "dagster", "definitions", "validate", "-m", "vendor_assets.definitions"]
        took = min(
            (run(arguments, str(self.folder), settings).well() for _ in range(3)),
            key=lambda it: it.cpu_seconds,
        )
        return took.cpu_seconds, took.seconds

    def ticks(self) -> Iterable[Row]:
        """The ticks, each without a queue and with a year's runs in it, as a backfill in the UI leaves them."""
        fabricated.write_roster(self._store, self.last, self.troops + 50)
        for each in self._cases():
            yield self._tick(*each)
        queued = self._queue()
        for name, case, *rest in self._cases():
            yield self._tick(name, f"{case}, {queued} runs queued", *rest)

    def _cases(self) -> Iterable[tuple[str, str, object, int]]:
        """Sensors, what happened, their cursors before it, and how many ticks to make."""
        some = f"{SOME} materializations"
        every = f"rosters of {self.days} days"
        now = {asset: self._before(asset, 0) for asset in ("troops", "performance_data")}
        year = self._before("troops", self.days)
        yield "roster_sensor", "50 new troops", self._before("troops", 1), SEVERAL
        yield "roster_sensor", every, year, SEVERAL
        yield "downstream_sensor", some, {"warriors": self._before("warriors", SOME)}, 1
        yield "publish_sensor", some, now | {"performance_data": self._before("performance_data", SOME)}, 1
        yield "publish_sensor", every, now | {"troops": year}, SEVERAL
        yield "report_sensor", some, self._before("daily_performance", min(self.days, SOME)), 1
        for name in ("redrive", "lapsed_runs", "backlog", "dead_letters", "freshness", "alert"):
            yield f"{name}_sensor", "as it is", None, 1

    def _before(self, asset: str, count: int) -> int:
        """The cursor before the newest materializations of an asset."""
        wanted = sa.text(
            "SELECT id FROM event_logs WHERE asset_key = :key AND dagster_event_type = :kind"
            " ORDER BY id DESC LIMIT 1 OFFSET :count"
        )
        told = {"key": json.dumps([asset]), "kind": "ASSET_MATERIALIZATION", "count": count}
        with self.events.connect() as connection:
            found = connection.execute(wanted, told).scalar()
        return int(found or 0)

    def _queue(self) -> int:
        """Queue the runs of all days; returns their number."""
        _, requests = roster_runs(
            self._store, self.deployment.account, self.last, run_key="", work_class=BACKFILL
        )
        instance, number = self.deployment.instance, 0
        origin = repository_of(instance, self.folder).get_job_origin(HARVEST_JOB)
        for day in self._days:
            for request in requests:
                config, tags = (
                    json.loads(json.dumps(dict(each)).replace(self.last.isoformat(), day.isoformat()))
                    for each in (request.run_config, request.tags)
                )
                instance.add_run(
                    dg.DagsterRun(
                        HARVEST_JOB,
                        str(uuid4()),
                        config,
                        tags=tags,
                        status=dg.DagsterRunStatus.QUEUED,
                        remote_job_origin=origin,
                    )
                )
                number += 1
        return number

    def _tick(self, name: str, case: str, cursor: object, count: int = 1) -> Row:
        """The longest of some ticks of a sensor, one after the other."""
        after = cursor if cursor is None or isinstance(cursor, str) else json.dumps(cursor)
        took: list[tuple[float, float]] = []
        requests = 0
        for _ in range(count):
            cpu, wall = time.process_time(), time.monotonic()
            result, after = self.deployment.sensor(name, after)
            took.append((time.process_time() - cpu, time.monotonic() - wall))
            requests += len(result.run_requests or ()) if isinstance(result, dg.SensorResult) else 0
        of = f"longest of {count} ticks, " if count > 1 else ""
        asked = f"{of}{requests} run{'' if requests == 1 else 's'} requested"
        cpu, wall = max(each[0] for each in took), max(each[1] for each in took)
        return f"{name}, {case} ({asked})", _pair(cpu, wall), WANTED
