"""Outcomes of partitions as Dagster events: only complete ones become materializations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import uuid4

import dagster as dg
import pyarrow as pa

from vendor_assets.account import Account
from vendor_assets.errors import LONGEST_MESSAGE, UPSTREAM
from vendor_assets.harvest.harvests import quarantine_text
from vendor_assets.harvest.outcome import HarvestOptions, Outcome
from vendor_assets.orchestration.assets.lineage import column_lineage
from vendor_assets.orchestration.dagster_private import ToldFailure, latest_storage_ids, report_check
from vendor_assets.orchestration.metadata import (
    CALLS,
    DEAD_LETTERS,
    FAILED_REQUESTS,
    NOT_COMPLETE,
    PACED_SECONDS,
    PATH,
    QUARANTINED_RECORDS,
    REQUESTS_MADE,
    REQUESTS_REUSED,
    RETRIES,
    ROW_COUNT,
    STATE,
    THROTTLED,
    WHY,
)
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import day_troop_key, split_key
from vendor_assets.orchestration.runs.about import ACCEPT_EMPTY_TAG, About
from vendor_assets.presentable import MOST, presentable, presentable_names, presentable_values
from vendor_assets.tables import TABLES

COMPLETE = "complete"
SCHEMA = "schema"
SEEN = "seen_on_its_day"
LISTED = "listed_have_rows"
FRESH = "fresh"

LOOK_BACK = "look_back"
RETRY_TAG = "dagster/retry_on_asset_or_op_failure"
"""Dagster's tag; set on runs in which only transient failures occurred, so that Dagster retries them."""

LONGEST_CELL: Final = 120
"""Characters of a value in a sample's table."""
LONGEST_WHY: Final = 1000
"""Characters of the reason why a partition did not become complete."""
MOST_FAILED: Final = 500
"""Partitions in the table of a run's failure."""

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def options_of(run: dg.DagsterRun, names: Names, *, rebuild: bool = False) -> HarvestOptions:
    """The order that a run's tags express."""
    about = About(run, names)
    return HarvestOptions(
        run_id=run.run_id,
        root_run_id=run.root_run_id or run.run_id,
        finished="replace" if about.trigger in (None, LOOK_BACK) else "reconcile",
        rebuild=rebuild,
        work_class=about.work_class,
        accept_empty=run.tags.get(ACCEPT_EMPTY_TAG) == "true",
        permanent_too=about.trigger not in ("sensor", LOOK_BACK),
    )


def order_of(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    names: Names,
    assets: Sequence[str],
    partitions: Sequence[str],
    *,
    rebuild: bool = False,
) -> HarvestOptions:
    """What a run's tags express of these partitions, without what a click on them cannot have meant.

    Nobody means to fetch again what another run finishes between the click and its run, nor what Dagster does not show
    as materialized although the store has it: after a wipe, the loss of Dagster's database, or of a run's record.
    """
    run, instance = context.run, context.instance
    options, about = options_of(run, names, rebuild=rebuild), About(run, names)
    if options.finished != "replace":
        return options
    record = instance.get_run_record_by_id(run.run_id)
    options = replace(options, asked_at=record.create_timestamp if record else None)
    if about.trigger is not None or about.driven_by_launcher:
        return options
    unseen = {
        (asset, *split_key(key))
        for asset in assets
        for key in set(partitions) - latest_storage_ids(instance, names.key(asset), partitions).keys()
    }
    return replace(options, unseen=frozenset(unseen))


def column_schema(name: str) -> dg.TableSchema:
    """A table's columns with their descriptions and units, as Dagster shows them."""
    columns = []
    for field in TABLES[name].schema:
        metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        unit = f" [{metadata['unit']}]" if metadata.get("unit") else ""
        columns.append(
            dg.TableColumn(
                field.name,
                str(field.type),
                description=metadata.get("description", "") + unit,
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
        )
    return dg.TableSchema(columns)


def partition_of(outcome: Outcome) -> str:
    """The partition key of an outcome."""
    if outcome.troop_key is None:
        return outcome.day.isoformat()
    return day_troop_key(outcome.day, outcome.troop_key)


def events_of(
    outcome: Outcome,
    names: Names,
    *,
    uri: str,
    account: Account | None,
    extra: Mapping[str, Any] | None = None,
) -> Iterator[Event]:
    """The events of one outcome: a materialization if it succeeded, else an observation; then its checks.

    Args:
        uri: Where the table is.
        account: The account whose quota the calls are compared with; None to leave that out.
        extra: More metadata.
    """
    key = names.key(outcome.asset)
    partition = partition_of(outcome)
    said = presentable(outcome.message, LONGEST_MESSAGE)
    metadata = metadata_of(outcome, names, uri=uri, account=account, extra=extra or {})
    if outcome.succeeded:
        yield dg.AssetMaterialization(key, partition=partition, metadata=metadata, description=said)
    else:
        yield dg.AssetObservation(key, partition=partition, metadata=metadata, description=said)
    if outcome.state in ("held", "stopped"):
        return
    evaluation = partial(dg.AssetCheckEvaluation, asset_key=key, partition=partition)
    if not outcome.harvest_id:
        # Nothing was harvested: only a permanent failure says something about the partition.
        if outcome.reason is not None and outcome.reason.kind != UPSTREAM and not outcome.retryable:
            yield evaluation(
                check_name=COMPLETE,
                passed=False,
                description=said,
                metadata={"failure_kind": outcome.reason.kind},
            )
        return
    yield evaluation(
        check_name=COMPLETE,
        passed=outcome.succeeded,
        description=said or f"{outcome.landed} of {outcome.planned} leaves landed",
        metadata={
            "planned": outcome.planned,
            "landed": outcome.landed,
            "gone": outcome.gone,
            "dead_letters": outcome.dead,
            "rows": outcome.rows,
        },
    )
    new_fields = outcome.details.get("new_fields", [])
    many = outcome.details.get("new_fields_in_all", len(new_fields))
    yield evaluation(
        check_name=SCHEMA,
        passed=not outcome.quarantined and not new_fields,
        severity=dg.AssetCheckSeverity.ERROR if outcome.quarantined else dg.AssetCheckSeverity.WARN,
        description=_schema_text(outcome.quarantined, outcome.rows, new_fields),
        metadata={"quarantined": outcome.quarantined, "new_fields": many},
    )
    if outcome.asset == "performance_data":
        silent = int(outcome.details.get("data_groups_without_rows", 0))
        yield evaluation(
            check_name=LISTED,
            passed=not silent,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"{silent} of the data groups that the vendor listed have not one row on this day"
                if silent
                else "no data group that was listed and answered is without rows"
            ),
            metadata={"data_groups_without_rows": silent},
        )
    if "observed_later" in outcome.details:
        later = outcome.details["observed_later"]
        yield evaluation(
            check_name=SEEN,
            passed=not later,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                "no list was read on the day itself: what vanished before the first list is not on the roster"
                if later
                else "lists were read on the day itself"
            ),
        )


def _schema_text(quarantined: int, rows: int, new_fields: Sequence[str]) -> str:
    if quarantined:
        return quarantine_text(quarantined, rows)
    if new_fields:
        return f"the vendor sends new fields, kept but not in columns: {presentable_names(new_fields)}"
    return "every record fits the table"


def metadata_of(
    outcome: Outcome, names: Names, *, uri: str, account: Account | None, extra: Mapping[str, Any]
) -> Mapping[str, Any]:
    """An outcome's metadata; numbers stay numeric, so that Dagster plots them over partitions."""
    counts = outcome.counts
    troop = {"troop": outcome.details["troop"]} if outcome.details.get("troop") else {}
    why = {} if outcome.succeeded else {WHY: _why(outcome)}
    failed = {name: value for name, value in extra.items() if name == FAILED_REQUESTS}
    metadata: dict[str, Any] = {
        **why,
        **failed,
        **troop,
        STATE: outcome.state,
        "mode": outcome.mode,
        # Shown first.
        **{name: value for name, value in extra.items() if name == "plot" or name.startswith("planned_")},
        ROW_COUNT: outcome.rows,
        CALLS: counts.calls,
        REQUESTS_MADE: outcome.requests_made,
        REQUESTS_REUSED: outcome.requests_reused,
        RETRIES: counts.retries,
        THROTTLED: counts.throttled,
        "leaves_planned": outcome.planned,
        "leaves_landed": outcome.landed,
        "leaves_gone": outcome.gone,
        DEAD_LETTERS: outcome.dead,
        QUARANTINED_RECORDS: outcome.quarantined,
        "body_bytes": counts.bytes,
        "table_bytes": outcome.table_bytes,
        PACED_SECONDS: round(counts.paced_seconds, 3),
        "seconds": round(outcome.seconds, 3),
        "harvest": outcome.harvest_id,
    }
    metadata |= extra
    permitted_rate = account.permitted_rate if account is not None else None
    if permitted_rate:
        metadata["share_of_day_quota"] = round(counts.calls / (permitted_rate * 86_400), 6)
    if outcome.store_requests:
        metadata["store_requests"] = outcome.store_requests
    if account is not None and counts.calls and outcome.seconds:
        needed, first = account.seconds_for(counts.calls), account.seconds_for(1)
        if needed is not None and first is not None:
            metadata["share_of_permitted_rate"] = round(needed / (first + outcome.seconds), 4)
    if outcome.state != "failed" or outcome.table_bytes:
        metadata[PATH] = dg.MetadataValue.path(uri)
    if outcome.succeeded:
        metadata |= column_lineage(outcome.asset, names)
    if outcome.sample:
        metadata["sample"] = _sample(outcome.sample)
    if outcome.reason is not None:
        metadata["failure_kind"] = outcome.reason.kind
        if outcome.reason.status is not None:
            metadata["failure_status"] = outcome.reason.status
    for name, value in outcome.details.items():
        metadata[presentable(name, 100)] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return {name: _metadata_value(value) for name, value in metadata.items()}


def _why(outcome: Outcome) -> str:
    """Why a partition did not become complete, for a pane that shows no descriptions and cuts long words."""
    if not outcome.dead or outcome.reason is None:
        return outcome.message
    return (
        f"{outcome.dead} of {outcome.planned} leaves are dead letters, first: {outcome.reason.what}; "
        "materialize this partition again to ask for these alone"
    )


def _metadata_value(value: Any) -> Any:
    """A value with all of its text made presentable."""
    if isinstance(value, str):
        return presentable(value, LONGEST_WHY)
    return presentable_values(value) if isinstance(value, dict) else value


def _sample(rows: Sequence[dict[str, Any]]) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                presentable(name, 100): value
                if isinstance(value, (int, float, bool))
                else presentable(value, LONGEST_CELL)
                for name, value in list(row.items())[:MOST]
            }
        )
        for row in rows
    ]
    schema = dg.TableSchema(
        [
            dg.TableColumn(presentable(name, 100), str(pa.scalar(value).type))
            for name, value in list(rows[0].items())[:MOST]
        ]
    )
    return dg.MetadataValue.table(records, schema)


def report(instance: dg.DagsterInstance, event: Event, *, run_id: str = "") -> None:
    """Report an event outside of a run's steps.

    Args:
        run_id: The run that caused it, if known. Whoever reports many without one gives them one id: on SQLite each id
            has a database file of its own.
    """
    if not isinstance(event, dg.AssetCheckEvaluation) or event.partition is None:
        instance.report_runless_asset_event(event)
        return
    # Dagster keeps one evaluation per check, partition and run, and refuses a second one without a run.
    report_check(instance, event, run_id=run_id or str(uuid4()))


def may_pass(outcomes: Sequence[Outcome]) -> bool:
    """Whether there are failures and all are transient, without a partition held by another run or stopped."""
    failed = [outcome for outcome in outcomes if not outcome.succeeded]
    return bool(failed) and all(item.retryable and item.state == "failed" for item in failed)


def failure_of(outcomes: Sequence[Outcome]) -> dg.Failure | None:
    """The failure of a run whose partitions did not all succeed; None if they did."""
    failed = [outcome for outcome in outcomes if not outcome.succeeded]
    if not failed:
        return None
    shown = "; ".join(
        f"{item.asset} {partition_of(item)}: {item.state} ({presentable(item.message, LONGEST_WHY)})"
        for item in failed[:5]
    )
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return ToldFailure(
        f"{len(failed)} of {len(outcomes)} partitions did not become complete: {shown}{more}",
        {NOT_COMPLETE: _failed_table(failed[:MOST_FAILED])},
        allow_retries=all(item.retryable for item in failed),
    )


def _failed_table(failed: Sequence[Outcome]) -> dg.TableMetadataValue:
    """The partitions that did not become complete; :func:`failures.not_complete` reads it back."""
    rows = [
        {
            "asset": item.asset,
            "partition": partition_of(item),
            STATE: item.state,
            "status": "" if item.reason is None or item.reason.status is None else item.reason.status,
            "why": presentable(item.reason.what if item.reason else item.message, LONGEST_WHY),
            DEAD_LETTERS: item.dead,
            "kind": item.reason.kind if item.reason else "",
        }
        for item in failed
    ]
    columns = [
        dg.TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in rows[0].items()
    ]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], dg.TableSchema(columns))
