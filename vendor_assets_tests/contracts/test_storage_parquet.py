"""One suite for tables in every object store: one Parquet dialect, readable without us."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.errors import ObjectConflictError, ObjectNotFoundError, RecordError, StorageError
from vendor_assets.storage import layout, parquet
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import (
    TableWriter,
    duckdb_connection,
    duckdb_reason,
    read_metadata,
    read_table,
    write_table,
)
from vendor_assets.tables import INSTANT, PERFORMANCE_DATA, TABLES, Table
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.stores import Place

pytestmark = pytest.mark.usefixtures("clean_aws_environment")

DAY = date(2026, 11, 20)
START = datetime(2026, 11, 20, tzinfo=UTC)
KEY = layout.table_key("performance_data", DAY, "42")


def _rows(count: int, warriors: int = 5, value: float = 1.0) -> pa.Table:
    """Rows of performance data, not in the order of their key."""
    numbers = list(range(count))[::-1]
    starts = [START + timedelta(seconds=n) for n in numbers]
    return pa.table(
        {
            "value": pa.array([value] * count, pa.float64()),
            "weight": pa.nulls(count, pa.float64()),
            "troop_id": ["42"] * count,
            "warrior_id": [f"w{n % warriors}" for n in numbers],
            "data_group": ["Controller/a"] * count,
            "value_name": ["calls"] * count,
            "timeslice_start": pa.array(starts, INSTANT),
            "timeslice_end": pa.array([start + timedelta(seconds=1) for start in starts], INSTANT),
        }
    )


def _ordered(table: pa.Table) -> pa.Table:
    keys = [(name, "ascending") for name in PERFORMANCE_DATA.key]
    return table.select(PERFORMANCE_DATA.schema.names).cast(PERFORMANCE_DATA.schema).sort_by(keys)


def test_a_table_comes_back_sorted_with_its_schema(store: ObjectStore) -> None:
    """Rows come back in the order of the key, in the table's columns, with descriptions and units."""
    rows = _rows(1000)
    etag = write_table(store, KEY, rows, PERFORMANCE_DATA, metadata={"state": "complete", "landed": "7"})
    table = read_table(store, KEY)
    assert table.equals(_ordered(rows))
    assert table.schema.equals(PERFORMANCE_DATA.schema, check_metadata=True)
    with store.open(KEY) as file:
        schema = pq.read_schema(file).remove_metadata()
    assert schema.equals(PERFORMANCE_DATA.schema, check_metadata=True)
    metadata, count = read_metadata(store, KEY)
    assert count == 1000
    assert {"state": "complete", "landed": "7"}.items() <= metadata.items()
    info = store.head(KEY)
    assert info is not None
    assert info.etag == etag


@pytest.mark.parametrize("spec", TABLES.values(), ids=list(TABLES))
def test_an_empty_table_is_a_table(store: ObjectStore, spec: Table) -> None:
    """A table without rows has its columns and metadata, written in one go or piece by piece."""
    write_table(store, "a.parquet", spec.schema.empty_table(), spec, metadata={"state": "empty"})
    with TableWriter(store, "b.parquet", spec, metadata={"state": "empty"}) as writer:
        pass
    assert writer.rows == 0
    for key in ("a.parquet", "b.parquet"):
        schema = read_table(store, key).schema
        assert schema.equals(spec.schema)
        assert [field.metadata for field in schema] == [field.metadata for field in spec.schema]
        metadata, rows = read_metadata(store, key)
        assert (metadata["state"], rows) == ("empty", 0)


def test_columns_can_be_chosen(store: ObjectStore) -> None:
    """Reading takes only the columns asked for, in the order asked for."""
    write_table(store, KEY, _rows(100), PERFORMANCE_DATA)
    table = read_table(store, KEY, columns=["value", "warrior_id"])
    assert table.column_names == ["value", "warrior_id"]
    assert table.num_rows == 100
    assert read_table(store, KEY, columns=[]).num_rows in (0, 100)


def test_the_dialect(store: ObjectStore) -> None:
    """Files are zstd, Parquet 2.6, with statistics, page index, bounded row groups and sorted by the key."""
    rows = _rows(parquet.ROW_GROUP_ROWS + 5000)
    write_table(store, KEY, rows, PERFORMANCE_DATA)
    with store.open(KEY) as file:
        metadata = pq.ParquetFile(file).metadata
    assert metadata.format_version == "2.6"
    assert metadata.num_row_groups == 2
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        assert found.num_rows <= parquet.ROW_GROUP_ROWS
        names = [found.column(at.column_index).path_in_schema for at in found.sorting_columns]
        assert names == list(PERFORMANCE_DATA.key)
        for at in range(found.num_columns):
            column = found.column(at)
            assert column.compression == "ZSTD"
            assert column.is_stats_set
            assert column.has_column_index
            assert column.has_offset_index
    assert read_table(store, KEY).equals(_ordered(rows))


def test_descriptions_reach_readers_without_arrow(store: ObjectStore) -> None:
    """The file's own metadata name table and grain and describe each column, as DuckDB sees them."""
    write_table(store, KEY, _rows(1), PERFORMANCE_DATA)
    with duckdb_connection(store) as connection:
        found = connection.execute(
            "SELECT key, value FROM parquet_kv_metadata(?)", [store.uri(KEY)]
        ).fetchall()
    texts = {bytes(key).decode(): bytes(value).decode() for key, value in found}
    assert texts["vendor_assets.table"] == "performance_data"
    assert texts["vendor_assets.grain"] == PERFORMANCE_DATA.grain
    assert json.loads(texts["vendor_assets.columns"])["weight"]["unit"] == "calls"


def test_a_table_can_be_written_piece_by_piece(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces go out in bounded row groups; metadata may be completed until the end; then all is there at once."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1000)
    rows = _ordered(_rows(4500))
    with TableWriter(store, KEY, PERFORMANCE_DATA, metadata={"state": "?"}, if_absent=True) as writer:
        for start in range(0, 4500, 300):
            piece = rows.slice(start, 300)
            writer.write(piece if start % 600 else piece.to_batches()[0])
        assert store.head(KEY) is None
        writer.metadata["state"] = "complete"
        writer.metadata["rows"] = str(writer.rows)
    info = store.head(KEY)
    assert info is not None
    assert (writer.etag, writer.bytes, writer.rows) == (info.etag, info.size, 4500)
    metadata, count = read_metadata(store, KEY)
    assert (metadata["state"], metadata["rows"], count) == ("complete", "4500", 4500)
    assert read_table(store, KEY).equals(rows)
    with store.open(KEY) as file:
        found = pq.ParquetFile(file).metadata
    assert [found.row_group(at).num_rows for at in range(found.num_row_groups)] == [1000] * 4 + [500]


def test_wide_rows_make_small_row_groups(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row group is bounded in bytes too."""
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 1 << 20)
    spec = Table(
        "wide",
        "one row per text",
        (),
        ("id",),
        pa.schema([pa.field("id", pa.int64()), ("text", pa.string())]),
    )
    write_table(store, "wide.parquet", pa.table({"id": list(range(50)), "text": ["x" * 100_000] * 50}), spec)
    with store.open("wide.parquet") as file:
        assert pq.ParquetFile(file).metadata.num_row_groups >= 5
    assert read_table(store, "wide.parquet").num_rows == 50


@pytest.mark.parametrize("rows", [0, 10, 5000])
def test_an_exception_between_pieces_publishes_nothing(
    store: ObjectStore, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is not finished is never seen; the one before stays."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 1000)
    etag = write_table(store, KEY, _rows(3), PERFORMANCE_DATA)
    with pytest.raises(ZeroDivisionError), TableWriter(store, KEY, PERFORMANCE_DATA) as writer:
        writer.write(_rows(rows))
        raise ZeroDivisionError
    info = store.head(KEY)
    assert info is not None
    assert info.etag == etag
    assert writer.etag == ""
    assert [found.key for found in store.list("")] == [KEY]


def test_conditions_hold_for_tables(store: ObjectStore) -> None:
    """A table is replaced only under its condition; a loser changes nothing."""
    first = write_table(store, KEY, _rows(1), PERFORMANCE_DATA, if_absent=True)
    with pytest.raises(ObjectConflictError):
        write_table(store, KEY, _rows(2), PERFORMANCE_DATA, if_absent=True)
    write_table(store, KEY, _rows(3), PERFORMANCE_DATA, if_match=first)
    with pytest.raises(ObjectConflictError):
        write_table(store, KEY, _rows(4), PERFORMANCE_DATA, if_match=first)
    assert read_table(store, KEY).num_rows == 3


def _without(name: str) -> pa.Table:
    return _rows(3).drop_columns([name])


def _with(name: str, values: pa.Array) -> pa.Table:
    rows = _rows(3)
    return rows.set_column(rows.column_names.index(name), name, values)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (_without("value_name"), "value_name are missing"),
        (_with("warrior_id", pa.array(["a", None, "b"])), "warrior_id has 1 nulls"),
        (_with("value", pa.array(["a", "b", "c"])), "do not fit"),
        (_with("timeslice_start", pa.array([1.5, 2.5, 3.5])), "do not fit"),
    ],
    ids=["missing", "null", "text", "number"],
)
def test_rows_that_do_not_fit_are_refused(store: ObjectStore, rows: pa.Table, said: str) -> None:
    """Missing, retyped or null columns are one clear line, and nothing is written."""
    with pytest.raises(RecordError, match=said) as caught:
        write_table(store, KEY, rows, PERFORMANCE_DATA)
    assert "\n" not in str(caught.value)
    assert store.head(KEY) is None


def test_pieces_must_have_the_same_columns(store: ObjectStore) -> None:
    """A piece whose columns differ from those before it is refused by their names."""
    with (
        pytest.raises(RecordError, match=r"differ in their columns.*surprise"),
        TableWriter(store, KEY, PERFORMANCE_DATA) as writer,
    ):
        writer.write(_rows(2))
        writer.write(_rows(2).append_column("surprise", pa.array([1, 2])))


def test_rows_that_are_said_to_be_in_order_are_not_looked_at(store: ObjectStore) -> None:
    """They are written as they come; whoever says so has sorted them."""
    rows = _ordered(_rows(9))
    mixed = rows.take([3, 1, 2, 0, *range(8, 3, -1)])
    for in_order, expected in ((True, mixed), (False, rows)):
        with TableWriter(store, KEY, PERFORMANCE_DATA, in_order=in_order) as writer:
            writer.write(mixed)
        assert read_table(store, KEY)["value_name"].equals(expected["value_name"])
        assert read_table(store, KEY)["timeslice_start"].equals(expected["timeslice_start"])


def test_unknown_columns_are_kept(store: ObjectStore) -> None:
    """A column that the table does not know is kept, after the others."""
    write_table(store, KEY, _rows(2).append_column("surprise", pa.array([1, 2])), PERFORMANCE_DATA)
    assert read_table(store, KEY).column_names == [*PERFORMANCE_DATA.schema.names, "surprise"]


def test_a_missing_table_is_not_found(store: ObjectStore) -> None:
    """Rows and metadata of a table that is not there raise the same error."""
    for read in (read_table, read_metadata):
        with pytest.raises(ObjectNotFoundError, match="troop=42"):
            read(store, KEY)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"hello" * 1000])
def test_a_damaged_table_is_one_clear_line(store: ObjectStore, damage: bytes) -> None:
    """What is no Parquet file is said to be damaged, with what to do."""
    store.put(KEY, damage)
    for read in (read_table, read_metadata):
        with pytest.raises(StorageError, match=r"cannot be read.*rebuild") as caught:
            read(store, KEY)
        assert "\n" not in str(caught.value)


def test_a_reader_sees_the_old_or_the_new_table(store: ObjectStore) -> None:
    """While a table is being replaced, each reading gives the rows of one version."""
    versions = [
        _rows(60_000, value=float(n)).set_column(0, "value", pc.add(pc.random(60_000), pa.scalar(10.0 * n)))
        for n in range(3)
    ]
    write_table(store, KEY, versions[0], PERFORMANCE_DATA)
    over = threading.Event()

    def replace_often() -> None:
        try:
            for n in range(1, 12):
                write_table(store, KEY, versions[n % 3], PERFORMANCE_DATA)
        finally:
            over.set()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace_often)
        while not over.is_set():
            values = read_table(store, KEY, columns=["warrior_id", "value"]).column("value")
            assert len(values) == 60_000
            low, high = pc.min(values).as_py() // 10, pc.max(values).as_py() // 10
            assert low == high
        writer.result()


def _fill(store: ObjectStore) -> None:
    for day in (DAY, DAY + timedelta(days=1)):
        for troop in ("42", layout.encode_segment("../x|y")):
            write_table(
                store, layout.table_key("performance_data", day, troop), _rows(1000), PERFORMANCE_DATA
            )


def test_duckdb_reads_chosen_partitions(store: ObjectStore) -> None:
    """DuckDB reads the files that it is given by their addresses, with the partition columns from the path."""
    _fill(store)
    files = [store.uri(info.key) for info in store.list(layout.table_prefix("performance_data", DAY))]
    with duckdb_connection(store) as connection:
        found = connection.execute(
            "SELECT day, troop, count(*), sum(value) FROM read_parquet(?, hive_partitioning = true) "
            "WHERE warrior_id = 'w1' GROUP BY ALL ORDER BY ALL",
            [files],
        ).fetchall()
    assert [(str(row[0]), row[1], row[2], row[3]) for row in found] == [
        ("2026-11-20", "42", 200, 200.0),
        ("2026-11-20", "~2E~2E~2Fx~7Cy", 200, 200.0),
    ]


def test_duckdb_reads_a_whole_table_by_pattern(store: ObjectStore) -> None:
    """DuckDB finds a table's files by a pattern, and prunes by day."""
    _fill(store)
    pattern = store.uri("processed/performance_data") + "/**/*.parquet"
    with duckdb_connection(store) as connection:
        query = "SELECT count(*) FROM read_parquet(?, hive_partitioning = true)"
        assert connection.execute(query, [pattern]).fetchall() == [(4000,)]
        assert connection.execute(query + f" WHERE day = '{DAY}'", [pattern]).fetchall() == [(2000,)]


def test_duckdb_reads_a_large_file_in_ranges(store: ObjectStore) -> None:
    """A file of several row groups that is larger than what is fetched at once gives the same sum."""
    count = 200_000
    rows = _rows(count).set_column(0, "value", pc.random(count))
    write_table(store, KEY, rows, PERFORMANCE_DATA)
    with duckdb_connection(store) as connection:
        found = connection.execute(
            "SELECT count(*), sum(value) FROM read_parquet(?)", [store.uri(KEY)]
        ).fetchone()
    assert found is not None
    assert found[0] == count
    assert found[1] == pytest.approx(pc.sum(rows["value"]).as_py())


def test_duckdb_says_what_is_missing(store: ObjectStore) -> None:
    """A file that is not there is DuckDB's error, which can be put on one line with the file's address."""
    with duckdb_connection(store) as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute("SELECT * FROM read_parquet(?)", [store.uri("nothing.parquet")]).fetchall()
    reason = duckdb_reason(caught.value)
    assert "nothing.parquet" in reason
    assert "\n" not in reason
    assert "Traceback" not in reason


def test_duckdb_says_what_is_wrong_with_the_query(store: ObjectStore) -> None:
    """A mistake in SQL is DuckDB's own message on one line, without its drawing."""
    write_table(store, KEY, _rows(1), PERFORMANCE_DATA)
    with duckdb_connection(store) as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute("SELECT nonsense FROM read_parquet(?)", [store.uri(KEY)])
    assert 'column "nonsense" not found' in duckdb_reason(caught.value)
    assert "^" not in duckdb_reason(caught.value)


def test_duckdb_does_not_write_around_the_store(s3_server: RunningS3, bucket: str) -> None:
    """A COPY to S3 is refused: it would publish half a file when it fails."""
    store = Place(f"s3://{bucket}", s3_server.endpoint).open()
    with duckdb_connection(store) as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute(f"COPY (SELECT 1) TO '{store.uri('copied.parquet')}'")
    assert "can only be read here" in duckdb_reason(caught.value)
    assert store.head("copied.parquet") is None


def test_duckdb_says_that_the_server_is_away() -> None:
    """An error of the store comes through DuckDB as the store's own line."""
    store = Place("s3://bucket/x", "http://127.0.0.1:1").open()
    with duckdb_connection(store) as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute("SELECT * FROM read_parquet(?)", [store.uri("a.parquet")]).fetchall()
    assert duckdb_reason(caught.value).startswith("http://127.0.0.1:1 does not answer")


def test_pandas_and_arrow_read_the_files_without_us(tmp_path: Any) -> None:
    """A folder of tables is a Hive-partitioned data set for pyarrow."""
    store = FolderStore(tmp_path)
    _fill(store)
    table = pq.read_table(tmp_path / "processed" / "performance_data", filters=[("troop", "=", "42")])
    assert table.num_rows == 2000
    assert {"day", "troop"} <= set(table.column_names)


_CELLS = {
    "id": st.text(st.characters(codec="utf-8"), max_size=8),
    "number": st.none() | st.integers(-(2**63), 2**63 - 1),
    "value": st.none() | st.floats(),
    "at": st.integers(-(10**15), 10**16).map(lambda at: START + timedelta(microseconds=at)),
    "names": st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=3),
}
_SPEC = Table(
    "any",
    "one row per id",
    (),
    ("id",),
    pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            ("number", pa.int64()),
            ("value", pa.float64()),
            ("at", INSTANT),
            ("names", pa.list_(pa.string())),
        ]
    ),
)


@given(st.lists(st.fixed_dictionaries(_CELLS), max_size=30))
def test_any_rows_survive(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    """Whatever the columns' types can hold comes back unchanged, sorted by the key."""
    store = FolderStore(tmp_path_factory.mktemp("store"))
    table = pa.Table.from_pylist(rows, schema=_SPEC.schema)
    write_table(store, "any.parquet", table, _SPEC)
    found = read_table(store, "any.parquet").to_pylist()
    assert [row["id"] for row in found] == sorted((row["id"] for row in rows), key=lambda text: text.encode())
    assert sorted(map(repr, found)) == sorted(map(repr, table.to_pylist()))
