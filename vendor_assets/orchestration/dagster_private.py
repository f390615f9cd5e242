"""Everything that we use of Dagster beyond its public API. Read this file first when upgrading Dagster."""

import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import dagster as dg
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterUserCodeProcessError
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    StepMaterializationData,
)
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID
from dagster._core.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.remote_origin import RemoteRepositoryOrigin
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetKeyTable,
    SqlEventLogStorageMetadata,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.workspace.load_target import ModuleTarget, WorkspaceFileTarget
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster._utils.error import SerializableErrorInfo  # type: ignore[attr-defined]
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from vendor_assets.logs import get_logger
from vendor_assets.turns import let_others

logger = get_logger(__name__)

# What a run launcher is made of.
__all__ = (
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "LaunchRunContext",
    "ResumeRunContext",
    "RunLauncher",
    "WorkerStatus",
)

HISTORY_ERRORS: Final = (SQLAlchemyError,)
"""What Dagster lets through where its own storage fails."""

_ENDS: Final = (
    dg.DagsterEventType.RUN_SUCCESS.value,
    dg.DagsterEventType.RUN_FAILURE.value,
    dg.DagsterEventType.RUN_CANCELED.value,
)
_MATERIALIZED: Final = dg.DagsterEventType.ASSET_MATERIALIZATION.value
_OBSERVED: Final = dg.DagsterEventType.ASSET_OBSERVATION.value
_TRIED: Final = (
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    dg.DagsterEventType.ASSET_FAILED_TO_MATERIALIZE.value,
)
_EVALUATED: Final = dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
_OF_EVALUATION: Final = ("asset_key", "check_name", "run_id", "partition")
"""What tells evaluations apart."""
_INSERT: Final = sa.insert(SqlEventLogStorageTable)
_INSERT_NUMBERED: Final = _INSERT.returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
_INSERT_EVALUATION: Final = sa.insert(AssetCheckExecutionsTable)
_UPDATE_EVALUATION: Final = sa.update(AssetCheckExecutionsTable).where(
    *(AssetCheckExecutionsTable.c[name] == sa.bindparam(f"of_{name}") for name in _OF_EVALUATION)
)
_INSERT_ASSET: Final = sa.insert(AssetKeyTable)
_UPDATE_ASSET: Final = sa.update(AssetKeyTable).where(
    AssetKeyTable.c.asset_key == sa.bindparam("of_asset_key")
)
_AT_ONCE: Final = 500
"""Events that one query asks for by their ids."""
_EVALUATION_JOB: Final = "none"
"""Job name of a check's evaluation outside of its run."""
_MODULE: Final = "vendor_assets.definitions"
_Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation
IMPLICIT_JOB: Final = "__ASSET_JOB"
"""Job name of runs that materialize assets without a defined job."""


class ToldFailure(DagsterUserCodeProcessError, dg.Failure):  # noqa: N818 - named as Dagster's
    """A failure that says everything itself: Dagster's log shows its words and metadata, and no stack trace.

    Dagster takes an error of the first kind for one that another process has described already.
    """

    def __init__(self, said: str, metadata: Mapping[str, Any] | None = None, *, allow_retries: bool) -> None:
        described = SerializableErrorInfo(message=f"{said}\n", stack=[], cls_name=None)
        super().__init__(said, user_code_process_error_infos=[described])  # type: ignore[no-untyped-call]
        vars(self).update(vars(dg.Failure(said, metadata, allow_retries)))


def hide_omissions(log: logging.Logger) -> None:
    """Do not log of a step that it "did not yield or return expected outputs", meaning its checks.

    It reports them as evaluations, one for each partition; Dagster counts only results, one for each check.
    """
    log.addFilter(lambda record: "did not yield or return expected outputs" not in record.getMessage())


def nodes_behind(context: dg.AssetExecutionContext) -> set[str]:
    """Names of the ops of this run that wait for an asset of the present one."""
    structure = context.job_def.graph.dependency_structure
    behind = structure.output_to_downstream_inputs_for_node(context.op_execution_context.node_handle.name)
    return {found.node_name for inputs in behind.values() for found in inputs}


def instance_from(folder: str) -> dg.DagsterInstance:
    """The instance that a folder's ``dagster.yaml`` describes; the public API opens only ``DAGSTER_HOME``."""
    return dg.DagsterInstance.from_config(folder)


def create_tables(instance: dg.DagsterInstance) -> None:
    """Create SQLite's tables for runs and events, which Dagster otherwise does at their first use."""
    instance.get_runs_count()
    instance.all_asset_keys()


def capture_nothing(instance: dg.DagsterInstance) -> None:
    """Do not capture this process's output.

    Dagster would copy it to a file with ``tail`` and a second Python per stream: a second of work per run, and a
    ``tail`` that keeps the output open forever if the command is killed.
    """
    instance._compute_log_manager = NoOpComputeLogManager()  # noqa: SLF001
    instance._compute_log_manager.register_instance(instance)  # noqa: SLF001


@cache
def read_migrations_once() -> None:
    """Let alembic read Dagster's migrations once in this process, not again for each database that is opened."""
    found: dict[str | None, ScriptDirectory] = {}
    read = ScriptDirectory.from_config

    def from_config(config: Config) -> ScriptDirectory:
        where = config.get_main_option("script_location")
        if where not in found:
            found[where] = read(config)
        return found[where]

    ScriptDirectory.from_config = staticmethod(from_config)  # type: ignore[method-assign]


class _KeptConnections:
    """One connection for each file of a storage of events in SQLite."""

    def __init__(self, storage: SqliteEventLogStorage) -> None:
        self._storage = storage
        self._store_event = storage.store_event
        self._indexed: bool | None = None
        self._lock = storage._db_lock  # noqa: SLF001
        self._connections: dict[str, Connection] = {}
        self._waiting: list[dg.EventLogEntry] = []
        self._thread: int | None = None

    @contextmanager
    def connect(self, shard: str) -> Iterator[Connection]:
        with self._lock:
            connection = self._connections.get(shard)
            if connection is None:
                engine = sa.create_engine(
                    self._storage.conn_string_for_shard(shard),
                    poolclass=StaticPool,
                    connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
                )
                if shard not in self._storage._initialized_dbs:  # noqa: SLF001
                    self._storage._initdb(engine)  # noqa: SLF001
                    self._storage._initialized_dbs.add(shard)  # noqa: SLF001
                connection = self._connections[shard] = engine.connect()
            with connection.begin():
                yield connection

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event; Dagster makes the text of a partition's two or three times, and each statement anew."""
        if threading.get_ident() != self._thread:
            self._store(event)
        elif _is_of_partition(event):
            self._waiting.append(event)
        else:
            self._store_waiting()
            self._store(event)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Store what this thread tells of partitions in this block at its end, or before it tells anything else."""
        self._thread = threading.get_ident()
        try:
            yield
        except BaseException:
            try:
                self._store_waiting()
            except HISTORY_ERRORS as error:
                logger.warning("Events could not be stored: %s", error)
            raise
        else:
            self._store_waiting()
        finally:
            self._thread = None

    def _store(self, event: dg.EventLogEntry) -> None:
        if _is_of_partition(event):
            self._store_partitions(event.run_id, [event])
        else:
            self._store_event(event)

    def _store_waiting(self) -> None:
        if not self._waiting:
            return
        # A run that is asked to end does so once they are stored, in both files.
        with capture_interrupts():
            self._store_all()
            interrupted = pop_captured_interrupt()
        if interrupted:
            raise DagsterExecutionInterruptedError

    def _store_all(self) -> None:
        events, self._waiting = self._waiting, []
        for run_id in dict.fromkeys(event.run_id for event in events):
            self._store_partitions(run_id, [event for event in events if event.run_id == run_id])

    def _store_partitions(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        storage: Any = self._storage
        rows = _rows(storage, events)
        with self.connect(run_id) as connection:
            connection.execute(_INSERT, rows)
        with self.connect(INDEX_SHARD_NAME) as connection:
            numbers = connection.scalars(_INSERT_NUMBERED, rows).all()
            tagged, newest = [], {}
            for event, row, storage_id in zip(events, rows, numbers, strict=True):
                told = event.get_dagster_event()
                if told.event_type_value == _EVALUATED:
                    values = _execution(told.asset_check_evaluation_data, row, storage_id)
                    where = {f"of_{name}": values[name] for name in _OF_EVALUATION}
                    if not connection.execute(_UPDATE_EVALUATION, values | where).rowcount:
                        connection.execute(_INSERT_EVALUATION, values)
                else:
                    tagged.append((event, storage_id))
                    newest[row["asset_key"], told.event_type] = row, storage_id
            if tagged:
                storage._store_asset_event_tags(connection, *map(list, zip(*tagged, strict=True)))  # noqa: SLF001
            for row, storage_id in newest.values():
                self._note_newest(connection, row, storage_id)

    def _note_newest(self, connection: Connection, row: Mapping[str, Any], storage_id: int) -> None:
        """Keep an event with its asset, which is there as a rule; Dagster tries to insert it first.

        The text is that of the event's own row, in a record; Dagster makes it again.
        """
        if self._indexed is None:
            storage: Any = self._storage
            self._indexed = storage._has_asset_key_index_cols_on_connection(connection)  # noqa: SLF001
        values: dict[str, Any] = {}
        if row["dagster_event_type"] == _MATERIALIZED:
            record = f'{{"__class__": "EventLogRecord", "event_log_entry": {row["event"]}, "storage_id": {storage_id}}}'
            values |= {"last_materialization": record, "last_run_id": row["run_id"]}
        if self._indexed:
            values["last_materialization_timestamp"] = row["timestamp"]
        key = row["asset_key"]
        if values and not connection.execute(_UPDATE_ASSET, values | {"of_asset_key": key}).rowcount:
            connection.execute(_INSERT_ASSET, values | {"asset_key": key})


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Store all events through one connection for each file or database; Dagster opens one for every statement.

    Half of what an event costs in SQLite, four fifths in PostgreSQL. Only for a process of ours, which holds a few
    files, and not for long.
    """
    storage = _event_storage(instance)
    if isinstance(storage, SqliteEventLogStorage):
        kept = _KeptConnections(storage)
        storage._connect = kept.connect  # type: ignore[method-assign]  # noqa: SLF001
        storage.store_event = kept.store_event  # type: ignore[method-assign]
        vars(storage)["kept"] = kept
    elif hasattr(storage, "postgres_url") and getattr(storage, "_token_provider", None) is None:
        url = storage._engine.url  # noqa: SLF001
        storage._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)  # noqa: SLF001
    else:
        return
    # Asked with each check's evaluation.
    storage.has_table = cache(storage.has_table)


@contextmanager
def stored_together(instance: dg.DagsterInstance) -> Iterator[None]:
    """Store the events of partitions that are told in this block at its end, if connections are kept, in SQLite.

    The events of one partition are a handful, and a transaction for each costs more than what is in it. A database
    server gets each at once, and other threads compute while it is waited for.
    """
    storage = _event_storage(instance)
    kept: _KeptConnections | None = vars(storage).get("kept")
    alone = nullcontext() if isinstance(storage, SqliteEventLogStorage) else let_others()
    with alone if kept is None else kept.together():
        yield


def repository_of(instance: dg.DagsterInstance, root: Path) -> RemoteRepositoryOrigin:
    """The code location that shows an account's runs: as a daemon has seen it, else as a UI would load it."""
    file = root / "workspace.yaml"
    load = (
        WorkspaceFileTarget([str(file)]) if file.is_file() else ModuleTarget(_MODULE, None, str(root), None)
    )
    (first, *_) = loaded = load.create_origins()
    names = [origin.location_name for origin in loaded]
    # An in-memory instance, as in tests, has no schedule storage.
    states = instance.all_instigator_state() if instance.schedule_storage else ()
    seen = [
        state.origin.repository_origin for state in states if state.instigator_name.endswith("roster_sensor")
    ]
    known = [origin for origin in seen if origin.code_location_origin.location_name in names]
    return next(iter(known or seen), RemoteRepositoryOrigin(first, "__repository__"))


def belong_to(instance: dg.DagsterInstance, repository: RemoteRepositoryOrigin) -> None:
    """Let runs that this process executes be those of a code location; Dagster says of them that they have none."""
    create = instance.create_run_for_job

    def create_run(*, job_def: dg.JobDefinition, tags: Mapping[str, str], **rest: Any) -> dg.DagsterRun:
        return create(
            job_def=job_def,
            tags={**tags, REPOSITORY_LABEL_TAG: repository.get_label()},
            remote_job_origin=repository.get_job_origin(job_def.name),
            **rest,
        )

    instance.create_run_for_job = create_run  # type: ignore[method-assign, assignment]


def report_planned(
    instance: dg.DagsterInstance, run: dg.DagsterRun, planned: Iterable[tuple[dg.AssetKey, str]]
) -> None:
    """Show partitions as in progress, and as failed if the run fails; Dagster does this only for asset jobs.

    All at once: Dagster stores each by itself, which takes seconds for a run of hundreds.
    """
    events = [
        dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
            job_name=run.job_name,
            message=f"{asset.to_user_string()} {partition} is planned",
            event_specific_data=AssetMaterializationPlannedData(asset, partition=partition),
        )
        for asset, partition in planned
    ]
    if not events:
        return
    entries = [_entry(event, run.run_id) for event in events]
    storage = _event_storage(instance)
    if isinstance(storage, SqliteEventLogStorage):
        # There a run has a file of its own beside that of all runs.
        with storage.run_connection(run.run_id) as connection:
            connection.execute(_INSERT, _rows(storage, entries))
    _store(storage, entries)


def report_at_once(
    instance: dg.DagsterInstance,
    events: Iterable[_Event],
    *,
    run_id: str,
) -> None:
    """Report events of no run, all of them or, after an exception or a kill, none.

    Dagster stores each by itself, with some statements. With SQLite they are in the file of all runs alone.

    Args:
        run_id: Of evaluations: one under which there are none yet of their checks and partitions.
    """
    entries = [
        _entry(_told(event), run_id if isinstance(event, dg.AssetCheckEvaluation) else RUNLESS_RUN_ID)
        for event in events
    ]
    _store(_event_storage(instance), entries)


def report_check(instance: dg.DagsterInstance, check: dg.AssetCheckEvaluation, *, run_id: str) -> None:
    """Report a check's evaluation under a run id; ``report_runless_asset_event`` refuses a partition's second one."""
    instance.report_dagster_event(_told(check), run_id)


def _told(event: _Event) -> dg.DagsterEvent:
    if isinstance(event, dg.AssetCheckEvaluation):
        return dg.DagsterEvent(
            _EVALUATED,
            _EVALUATION_JOB,
            message=event.description or "",
            event_specific_data=event,
        )
    if isinstance(event, dg.AssetMaterialization):
        return dg.DagsterEvent(
            _MATERIALIZED, RUNLESS_JOB_NAME, event_specific_data=StepMaterializationData(event)
        )
    return dg.DagsterEvent(_OBSERVED, RUNLESS_JOB_NAME, event_specific_data=AssetObservationData(event))


def _entry(event: dg.DagsterEvent, run_id: str) -> dg.EventLogEntry:
    return dg.EventLogEntry(
        error_info=None,
        level=logging.INFO,
        user_message="",
        run_id=run_id,
        timestamp=datetime.now(UTC).timestamp(),
        job_name=event.job_name,
        dagster_event=event,
    )


def _is_of_partition(event: dg.EventLogEntry) -> bool:
    """Whether an event of a run is a materialization, an observation, or an evaluation of a partition's check."""
    told = event.dagster_event
    kind = told.event_type_value if told is not None and event.run_id else None
    if told is None or kind not in (_MATERIALIZED, _OBSERVED, _EVALUATED):
        return False
    return kind != _EVALUATED or told.asset_check_evaluation_data.partition is not None


def _rows(storage: Any, entries: Sequence[dg.EventLogEntry]) -> list[dict[str, Any]]:
    return [storage._event_to_row(entry) for entry in entries]  # noqa: SLF001


def _store(storage: Any, entries: Sequence[dg.EventLogEntry]) -> None:
    """Store events among those of all runs, in one transaction, with what Dagster keeps of them in other tables."""
    if not entries:
        return
    rows = _rows(storage, entries)
    with storage.index_transaction() as connection:
        numbers = connection.scalars(_INSERT_NUMBERED, rows).all()
        newest = {}
        evaluations = []
        for entry, row, storage_id in zip(entries, rows, numbers, strict=True):
            event = entry.get_dagster_event()
            if event.event_type_value == _EVALUATED:
                evaluations.append(_execution(event.asset_check_evaluation_data, row, storage_id))
            else:
                newest[event.asset_key, event.event_type] = entry, storage_id
        for entry, storage_id in newest.values():
            storage._store_asset_event(connection, entry, storage_id)  # noqa: SLF001
        if evaluations:
            connection.execute(_INSERT_EVALUATION, evaluations)


def _execution(check: dg.AssetCheckEvaluation, row: Mapping[str, Any], storage_id: int) -> dict[str, Any]:
    """An evaluation in the table of checks, whose event is a row of the log."""
    status = AssetCheckExecutionRecordStatus
    target = check.target_materialization_data
    return {
        "asset_key": check.asset_key.to_string(),
        "check_name": check.check_name,
        "partition": check.partition,
        "run_id": row["run_id"],
        "execution_status": (status.SUCCEEDED if check.passed else status.FAILED).value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": storage_id,
        "materialization_event_storage_id": target.storage_id if target else None,
    }


def fail_run(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """Mark a run whose process is gone as failed; Dagster's own monitoring does so only for some launchers.

    One that was asked to end has ended: it is canceled, and not retried.
    """
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)


def tag_run(instance: dg.DagsterInstance, run_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to an executing run; the public API sets tags only at launch."""
    instance.add_run_tags(run_id, tags)


def count_runs(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> int:
    """How many runs match; the public API reads them."""
    return instance.get_runs_count(filters)


def run_events(
    instance: dg.DagsterInstance, run_id: str, types: set[dg.DagsterEventType]
) -> list[dg.DagsterEvent]:
    """A run's events of some types; the public API reads events by asset."""
    entries = instance.all_logs(run_id, of_type=types)
    return [entry.dagster_event for entry in entries if entry.dagster_event is not None]


def materialized_partitions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> set[str]:
    """The materialized partitions of an asset, in one query and without its partitions definition."""
    return instance.get_materialized_partitions(asset)


def latest_storage_ids(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Iterable[str]
) -> Mapping[str, int]:
    """Storage id of each partition's newest materialization, in one query."""
    return instance.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION, set(partitions)
    )


def runs_of_attempts(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    materialized: Mapping[str, int],
    partitions: Iterable[str],
) -> dict[str, str]:
    """The run that last planned to materialize each partition, where that is newer than its materialization.

    Dagster's own status of partitions reads all that an asset has: two minutes for two million.
    """
    planned = instance.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, set(partitions)
    )
    newer = {number: key for key, number in planned.items() if number > materialized.get(key, 0)}
    events = SqlEventLogStorageTable.c
    found: dict[str, str] = {}
    with _events_of_all_runs(instance) as connection:
        for first in range(0, len(newer), _AT_ONCE):
            some = list(newer)[first : first + _AT_ONCE]
            rows = connection.execute(sa.select(events.id, events.run_id).where(events.id.in_(some)))
            found.update((newer[row.id], row.run_id) for row in rows)
    return found


def partitions_of_backfill(
    instance: dg.DagsterInstance, backfill_id: str, assets: Iterable[dg.AssetKey]
) -> set[str]:
    """The partitions that a backfill is to materialize of any of some assets; the public API tells how many."""
    backfill = instance.get_backfill(backfill_id)
    data = backfill.asset_backfill_data if backfill is not None else None
    targets = data.target_subset.partitions_subsets_by_asset_key if data is not None else {}
    return {key for asset in assets if asset in targets for key in targets[asset].get_partition_keys()}


def schedule_started(instance: dg.DagsterInstance, schedule: str) -> datetime | None:
    """When a schedule was turned on; None while it is off."""
    # An in-memory instance, as in tests, has no schedule storage.
    for state in instance.all_instigator_state() if instance.schedule_storage else ():
        if state.instigator_name == schedule and state.status.value == "RUNNING":
            return datetime.fromtimestamp(getattr(state.instigator_data, "start_timestamp", None) or 0.0, UTC)
    return None


def newest_heartbeat(instance: dg.DagsterInstance) -> float:
    """Unix time of the newest daemon heartbeat; 0 if there was none."""
    return max((beat.timestamp for beat in instance.get_daemon_heartbeats().values()), default=0.0)


def ended_before(instance: dg.DagsterInstance, moment: datetime) -> list[str]:
    """The runs whose log says that they ended before a moment, oldest first; not those that are forgotten already."""
    events = SqlEventLogStorageTable.c
    wanted = (
        sa.select(events.run_id)
        .where(events.dagster_event_type.in_(_ENDS), events.timestamp < moment.replace(tzinfo=None))
        .order_by(events.id)
    )
    with _events_of_all_runs(instance) as connection:
        return list(dict.fromkeys(row.run_id for row in connection.execute(wanted)))


def forget_log(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> int:
    """Delete what the log of some runs holds besides materializations, and these' plots and samples; returns how much.

    Of observations, and of the evaluations of checks, the newest one of each asset and partition stays, and where a
    partition failed after it was materialized, or never was, what says so. With SQLite the file of each run is emptied:
    what stays is in the index, too.
    """
    events, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    newest = [
        sa.select(sa.func.max(events.id))
        .where(events.dagster_event_type.in_(types))
        .group_by(events.asset_key, events.partition)
        for types in ([_OBSERVED], [_MATERIALIZED, *_TRIED])
    ]
    log = sa.or_(
        events.dagster_event_type.is_(None),
        events.dagster_event_type.not_in([_MATERIALIZED, _OBSERVED, *_TRIED]),
        sa.and_(events.dagster_event_type != _MATERIALIZED, *(events.id.not_in(ids) for ids in newest)),
    )
    last_checks = sa.select(sa.func.max(checks.id)).group_by(
        checks.asset_key, checks.check_name, checks.partition
    )
    with _events_of_all_runs(instance) as connection:
        gone = connection.execute(
            sa.delete(SqlEventLogStorageTable).where(events.run_id.in_(run_ids), log)
        ).rowcount
        gone += connection.execute(
            sa.delete(AssetCheckExecutionsTable).where(
                checks.run_id.in_(run_ids), checks.id.not_in(last_checks)
            )
        ).rowcount
        kept = connection.execute(sa.select(events.id, events.event).where(events.run_id.in_(run_ids))).all()
        for number, text in kept:
            if (shorter := _without_pictures(text)) is not None:
                connection.execute(
                    sa.update(SqlEventLogStorageTable).where(events.id == number).values(event=shorter)
                )
    storage = _event_storage(instance)
    if isinstance(storage, SqliteEventLogStorage):
        for run_id in run_ids:
            _empty(Path(storage.path_for_shard(run_id)))
    return int(gone)


def _empty(file: Path) -> None:
    """Make a run's file as small as can be; removed, it would be missed by a process that has opened it before."""
    if not file.is_file():
        return
    with closing(sqlite3.connect(file, SQLITE_BUSY_TIMEOUT_SECONDS, isolation_level=None)) as connection:
        for table in SqlEventLogStorageMetadata.sorted_tables:
            if table is SqlEventLogStorageTable:
                connection.execute(f"DELETE FROM {table.name}")
            else:
                connection.execute(f"DROP TABLE IF EXISTS {table.name}")
        connection.execute("VACUUM")


def _without_pictures(text: str) -> str | None:
    """An event without the Markdown in its metadata; None where it has none."""
    event = json.loads(text)
    told = event["dagster_event"]["event_specific_data"] or {}
    about = told.get("materialization") or told.get("asset_observation") or {}
    entries = about.get("metadata_entries") or []
    plain = [entry for entry in entries if "md_str" not in (entry.get("entry_data") or {})]
    if len(plain) == len(entries):
        return None
    about["metadata_entries"] = plain
    return json.dumps(event)


def _event_storage(instance: dg.DagsterInstance) -> Any:
    storage: Any = instance._event_storage  # noqa: SLF001
    return getattr(storage, "_storage", storage)


def _events_of_all_runs(instance: dg.DagsterInstance) -> AbstractContextManager[Connection]:
    """A transaction on the table that holds all runs' events; with SQLite, those of assets and of runs as such."""
    found: AbstractContextManager[Connection] = _event_storage(instance).index_transaction()
    return found
