"""The day's statistics: one object, computed from a day's performance data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from vendor_assets.analytics.sources import SOURCES
from vendor_assets.analytics.warehouse import Partition, Warehouse, aggregating, repeated, scan
from vendor_assets.days import Window
from vendor_assets.errors import StorageError
from vendor_assets.states import state_of
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import TableWriter, duckdb_reason, read_metadata, read_table
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets.tables import DAILY_PERFORMANCE, PERFORMANCE_DATA, WARRIORS

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS: Final = 4_000_000
"""Rows that one aggregation takes in: exact percentiles keep each value, about 50 bytes a row, until its end."""


@dataclass(frozen=True)
class Published:
    """What a computation of ``daily_performance`` wrote.

    Attributes:
        rows: Rows written: series of the day.
        timeslices: Rows of performance data that went in.
        troops: Troops with a file of performance data, an empty one included.
        seconds: How long it took.
    """

    key: str
    rows: int
    timeslices: int
    troops: int
    bytes: int
    seconds: float


def daily_performance(
    store: ObjectStore,
    day: date,
    *,
    window: Window,
    troop_names: Mapping[str, str | None],
    troops_missing: int,
    sources: str = "",
    if_absent: bool = False,
    if_match: str | None = None,
    batch_rows: int = _BATCH_ROWS,
) -> Published:
    """Compute the day's statistics from its performance data and write them as one object.

    DuckDB aggregates some millions of rows at a time and the result streams into the object, so memory does not
    grow with the day. Percentiles are exact (linear between neighbours). Values that are null, NaN or infinite
    are not counted, and neither is the time of their timeslices; a series with nothing else has 0 timeslices and
    null statistics. The mean is weighted by calls where their sum is positive, else plain; ``calls`` is null
    where the vendor gives none. ``covered_share`` is the length of the timeslices with a value, clipped to the
    day, over the day's length: 23 or 25 hours on the days on which clocks change. Warriors are named as in the day's
    ``warriors``.

    Args:
        troop_names: Display names by troop id; troops without one get null.
        troops_missing: How many troops of the day have no data; written into each row.
        sources: What it is made of, kept in the object; see :mod:`vendor_assets.analytics.sources`.
        if_absent, if_match: On which condition the object is written; see :meth:`ObjectStore.writer`.
        batch_rows: Rows that one aggregation takes in; about 50 bytes of memory each.

    Raises:
        ObjectConflictError: The condition does not hold.
        StorageError: The store cannot be read or written, or a file of the day is broken.
    """
    import duckdb  # noqa: PLC0415 (0.1 s that readers of paths need not pay)

    began = time.perf_counter()
    key = layout.table_key(DAILY_PERFORMANCE.name, day)
    partitions = Warehouse(store).partitions("performance_data", day)
    heads = map_concurrently(lambda partition: read_metadata(store, partition.key), partitions)
    sizes = {partition: rows for partition, (_, rows) in zip(partitions, heads, strict=True)}
    partial = troops_missing > 0 or any(metadata.get("state") == "partial" for metadata, _ in heads)
    timeslices = sum(sizes.values())
    metadata = {
        "state": state_of(timeslices, lacking=partial),
        "window_start": window.start.isoformat(),
        "window_end": window.end.isoformat(),
        SOURCES: sources,
    }
    ids = {layout.encode_segment(troop_id): troop_id for troop_id in troop_names}
    ids |= TroopKeys(store).ids()
    # The object is sorted by troop id; file names are encoded, which sorts otherwise.
    ordered = sorted(sizes, key=lambda partition: ids.get(partition.troop or "", partition.troop or ""))
    try:
        with (
            aggregating(store) as connection,
            TableWriter(
                store, key, DAILY_PERFORMANCE, metadata=metadata, if_absent=if_absent, if_match=if_match
            ) as writer,
        ):
            schema = pa.schema([("troop_id", pa.string()), ("troop_name", pa.string())])
            names = pa.table([list(troop_names), list(troop_names.values())], schema=schema)
            connection.register("troop_names", names)
            connection.register("warrior_names", _warrior_names(store, day))
            for files, warriors in _batches(connection, store, ordered, sizes, batch_rows):
                for batch in _statistics(connection, files, warriors, window):
                    missing = repeated(troops_missing, pa.int32(), batch.num_rows)
                    table = pa.Table.from_batches([batch]).append_column("troops_missing", missing)
                    writer.write(table.select(DAILY_PERFORMANCE.schema.names).cast(DAILY_PERFORMANCE.schema))
    except duckdb.Error as error:
        message = (
            f"statistics of {day} failed: {duckdb_reason(error)}; rebuild the partition if its file is broken"
        )
        raise StorageError(message) from error
    return Published(key, writer.rows, timeslices, len(partitions), writer.bytes, time.perf_counter() - began)


def _warrior_names(store: ObjectStore, day: date) -> pa.Table:
    """The day's warriors and their names, each once."""
    columns = ["troop_id", "warrior_id", "name"]
    partitions = Warehouse(store).partitions(WARRIORS.name, day)
    tables = map_concurrently(lambda partition: read_table(store, partition.key, columns), partitions)
    schema = pa.schema([WARRIORS.schema.field(name) for name in columns])
    every = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])
    once = every.group_by(columns[:2]).aggregate([("name", "min")])
    return once.rename_columns({"name_min": "warrior_name"})


def _batches(
    connection: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    partitions: Sequence[Partition],
    sizes: Mapping[Partition, int],
    batch_rows: int,
) -> Iterator[tuple[list[str], tuple[str, str] | None]]:
    """Files to take in together, small ones in one go, large ones by ranges of warriors."""
    files: list[str] = []
    held = 0
    for partition in partitions:
        rows = sizes[partition]
        if files and held + rows > batch_rows:
            yield files, None
            files, held = [], 0
        if rows > batch_rows:
            uri = store.uri(partition.key)
            for span in _spans(connection, uri, batch_rows):
                yield [uri], span
        elif rows:
            files.append(store.uri(partition.key))
            held += rows
    if files:
        yield files, None


def _spans(connection: duckdb.DuckDBPyConnection, uri: str, batch_rows: int) -> list[tuple[str, str]]:
    """Ranges of warriors, both ends included, of at most so many rows each where a warrior has no more."""
    counts = connection.execute(
        f"SELECT warrior_id, count(*) FROM {scan(PERFORMANCE_DATA, [uri])} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    spans: list[tuple[str, str]] = []
    held = 0
    for warrior_id, rows in counts:
        if spans and held + rows <= batch_rows:
            spans[-1] = (spans[-1][0], warrior_id)
            held += rows
        else:
            spans.append((warrior_id, warrior_id))
            held = rows
    return spans


def _statistics(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[str],
    warriors: tuple[str, str] | None,
    window: Window,
) -> Iterator[pa.RecordBatch]:
    parameters: dict[str, object] = {"start": window.start, "end": window.end, "seconds": window.seconds}
    where = ""
    if warriors is not None:
        where = "WHERE warrior_id BETWEEN $first AND $last"
        parameters |= {"first": warriors[0], "last": warriors[1]}
    relation = connection.sql(
        f"""
        WITH slices AS (
            SELECT
                troop_id, warrior_id, data_group, value_name,
                CASE WHEN isfinite(value) THEN value END AS value,
                CASE WHEN isfinite(weight) AND weight >= 0 THEN weight END AS weight,
                CASE WHEN isfinite(value) THEN
                    greatest(0, epoch_us(least(timeslice_end, $end::TIMESTAMPTZ))
                        - epoch_us(greatest(timeslice_start, $start::TIMESTAMPTZ)))
                END AS microseconds
            FROM {scan(PERFORMANCE_DATA, files)} {where}
        ), series AS (
            SELECT
                troop_id, warrior_id, data_group, value_name,
                count(value) AS timeslices,
                fsum(value) AS sum,
                fsum(value * weight) / nullif(fsum(weight) FILTER (value IS NOT NULL), 0) AS weighted,
                favg(value) AS plain,
                min(value) AS min,
                quantile_cont(value, [0.5, 0.95, 0.99]) AS percentiles,
                max(value) AS max,
                fsum(weight) AS calls,
                least(1.0, coalesce(sum(microseconds), 0) / 1e6 / $seconds) AS covered_share
            FROM slices
            GROUP BY ALL
        )
        SELECT
            troop_id, troop_name, warrior_id, warrior_name, data_group, value_name, timeslices, sum,
            coalesce(weighted, plain) AS mean, min,
            percentiles[1] AS p50, percentiles[2] AS p95, percentiles[3] AS p99, max, calls, covered_share
        FROM series LEFT JOIN troop_names USING (troop_id) LEFT JOIN warrior_names USING (troop_id, warrior_id)
        ORDER BY troop_id, warrior_id, data_group, value_name
        """,
        params=parameters,
    )
    yield from relation.to_arrow_reader(50_000)
