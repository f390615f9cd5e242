"""One Parquet dialect: how tables lie in the store, written whole or not at all.

Parquet 2.6 with zstd, dictionaries, statistics and a page index; each row group is sorted by the table's key and
holds at most 131,072 rows. Descriptions and units are in the Arrow schema's field metadata and, for readers
without Arrow, as JSON in the file's key-value metadata under ``vendor_assets.columns``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vendor_assets.errors import ObjectConflictError, RecordError, StorageError
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore, one_line
from vendor_assets.storage.order import places
from vendor_assets.tables import TABLES, Table

if TYPE_CHECKING:
    import duckdb

ROW_GROUP_ROWS: Final = 131_072
_ROW_GROUP_BYTES: Final = 64 << 20
# What pyarrow raises for a file that is garbled: texts that are none, too, and lengths that no memory holds.
_DAMAGED: Final = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError)
_NOT_OURS: Final = frozenset({"ARROW:schema", "pandas"})


def write_table(
    store: ObjectStore,
    key: str,
    table: pa.Table,
    spec: Table,
    *,
    metadata: Mapping[str, str] | None = None,
    if_absent: bool = False,
    if_match: str | None = None,
) -> str:
    """Publish a table as one object, its rows sorted by the table's key; returns its etag.

    Args and errors are those of :class:`TableWriter`. Columns may come in any order; those that the table does not
    know are kept, after the others.
    """
    with TableWriter(store, key, spec, metadata=metadata, if_absent=if_absent, if_match=if_match) as writer:
        writer.write(_sorted(table, spec))
    return writer.etag


class TableWriter:
    """Writes a table piece by piece; published as one object when the block ends, not at all on an exception.

    Each row group is sorted by the table's key; give rows in the order of the key to have the whole table sorted, and
    say ``in_order`` where they certainly are: it is not looked at again then.
    Conditions and errors are those of :meth:`ObjectStore.writer`; RecordError where rows do not fit the table.

    Args:
        metadata: Texts to keep in the file, for :func:`read_metadata`; may be changed until the block ends.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        spec: Table,
        *,
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
        in_order: bool = False,
    ) -> None:
        self.metadata = dict(metadata or {})
        self.rows = 0
        self.bytes = 0
        self.etag = ""
        self._spec = spec
        self._in_order = in_order
        self._object = store.writer(key, if_absent=if_absent, if_match=if_match)
        self._schema: pa.Schema | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> Self:
        self._sink = self._object.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publish, or forget everything after an exception."""
        if error is None:
            try:
                self._finish()
            except BaseException as failure:
                self._forget()
                self._object.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._forget()
        self._object.__exit__(kind, error, traceback)
        if error is None:
            self.bytes, self.etag = self._sink.size, self._sink.etag

    def write(self, batch: pa.Table | pa.RecordBatch) -> None:
        """Take some rows; raises RecordError where they do not fit the table."""
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        if self._schema is None:
            self._schema = _schema(self._spec, table.schema)
        table = _fitted(table, self._schema, self._spec)
        self.rows += table.num_rows
        self._waiting.append(table)
        rows, size = (sum(getattr(each, of) for each in self._waiting) for of in ("num_rows", "nbytes"))
        if rows >= ROW_GROUP_ROWS or size >= _ROW_GROUP_BYTES:
            self._write_groups(last=False)

    def _write_groups(self, *, last: bool) -> None:
        """Write full row groups; the rest waits for more rows, unless there are no more."""
        table = pa.concat_tables(self._waiting)
        per_row = max(1, table.nbytes // max(1, table.num_rows))
        size = max(1, min(ROW_GROUP_ROWS, _ROW_GROUP_BYTES // per_row))
        while table.num_rows >= size or (last and table.num_rows):
            group = table.slice(0, size)
            self._writer().write_table(
                group if self._in_order else _in_order(group, self._spec), row_group_size=size
            )
            table = table.slice(size)
        self._waiting = [table]

    def _writer(self) -> pq.ParquetWriter:
        if self._parquet is None:
            schema = self._schema or self._spec.schema
            self._parquet = pq.ParquetWriter(
                self._sink,
                schema,
                version="2.6",
                compression="zstd",
                write_page_index=True,
                sorting_columns=[pq.SortingColumn(schema.get_field_index(name)) for name in self._spec.sort]
                or None,
            )
        return self._parquet

    def _finish(self) -> None:
        if self._waiting:
            self._write_groups(last=True)
        writer = self._writer()
        writer.add_key_value_metadata(_described(self._spec) | self.metadata)
        writer.close()

    def _forget(self) -> None:
        """Let go of the Parquet writer; an unfinished one would write its footer when it is collected."""
        if self._parquet is not None:
            with suppress(Exception):
                self._parquet.close()
            self._parquet.is_open = False
            self._parquet = None


def read_whole(source: Any, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some columns of it, in the calling thread alone.

    A thread of Arrow that still holds a Python file object when the interpreter ends aborts the process
    (https://github.com/apache/arrow/issues/34314), and ``pyarrow.parquet.read_table`` starts some whatever it is told.
    """
    return _whole(pq.ParquetFile(source, pre_buffer=False), columns)


def _whole(file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return file.read(use_threads=False)
    _must_have(file, columns)
    return file.read(columns=list(columns), use_threads=False).select(list(columns))


def read_table(store: ObjectStore, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some columns of it; only what is needed is fetched.

    Raises:
        ObjectNotFoundError: It is not there.
        StorageError: It is not a Parquet file, or the columns do not exist.
    """
    return read_with_metadata(store, key, columns)[0]


def read_with_metadata(
    store: ObjectStore, key: str, columns: Sequence[str] | None = None
) -> tuple[pa.Table, dict[str, str]]:
    """What :func:`read_table` and :func:`read_metadata` return, from opening the table once."""

    def both(source: Any) -> tuple[pa.Table, dict[str, str]]:
        file = pq.ParquetFile(source, pre_buffer=False)
        return _expected(key, _completed(key, file, columns)), _texts(file.metadata)

    table, texts = _read(store, key, both)
    return table.replace_schema_metadata(None), texts


def _completed(key: str, file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    """What is asked for; columns of ours that a file of an older release lacks are null."""
    spec = _ours(key)
    there = file.schema_arrow.names
    lacking = [] if spec is None else [name for name in spec.added if name not in there]
    if spec is None or not lacking:
        return _whole(file, columns)
    table = _whole(file, None if columns is None else [name for name in columns if name not in lacking])
    for name in lacking:
        field = spec.schema.field(name)
        table = table.append_column(field, pa.nulls(file.metadata.num_rows, field.type))
    return table.select(
        list(columns) if columns is not None else [*dict.fromkeys([*spec.schema.names, *there])]
    )


def _ours(key: str) -> Table | None:
    """Which of our tables an object belongs to."""
    prefix, _, rest = key.partition("/")
    return TABLES.get(rest.partition("/")[0]) if f"{prefix}/" == layout.TABLES_PREFIX else None


def read_groups(store: ObjectStore, key: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a table, one row group after the other, without holding more than one.

    Raises as :func:`read_table`; StorageError also if the table was replaced meanwhile.
    """
    try:
        with store.open(key) as source:
            file = pq.ParquetFile(source, pre_buffer=False)
            _must_have(file, columns)
            for number in range(file.num_row_groups):
                yield _expected(key, file.read_row_group(number, columns=list(columns), use_threads=False))
    except _DAMAGED as error:
        raise _unreadable(store, key, error) from error


def read_metadata(store: ObjectStore, key: str) -> tuple[dict[str, str], int]:
    """The texts kept in a table's file and its number of rows, without reading these; raises as :func:`read_table`."""
    found: pq.FileMetaData = _read(store, key, pq.read_metadata)
    return _texts(found), found.num_rows


def _texts(file: pq.FileMetaData) -> dict[str, str]:
    texts = {
        name.decode(errors="replace"): text.decode(errors="replace")
        for name, text in (file.metadata or {}).items()
    }
    return {name: text for name, text in texts.items() if name not in _NOT_OURS}


def read_schema(store: ObjectStore, key: str) -> pa.Schema:
    """The columns of a table, without reading its rows; raises as :func:`read_table`."""
    schema: pa.Schema = _read(store, key, pq.read_schema)
    return schema.remove_metadata()


def duckdb_connection(store: ObjectStore) -> duckdb.DuckDBPyConnection:
    """A new DuckDB in memory that reads what ``store.uri(key)`` names, on a folder and on S3.

    S3 is read through the store's own client, so credentials and endpoint are the store's and no extension of
    DuckDB has to be there. It only reads: a COPY to ``s3://`` is refused.
    """
    import duckdb  # noqa: PLC0415 (0.1 s that readers of single tables need not pay)

    connection = duckdb.connect(":memory:")
    hide_progress(connection)
    if not isinstance(store, FolderStore):
        from vendor_assets.storage.filesystem import StoreFileSystem  # noqa: PLC0415 (0.1 s, for S3 only)

        connection.register_filesystem(StoreFileSystem(store))
    return connection


def hide_progress(connection: duckdb.DuckDBPyConnection) -> None:
    """Draw no progress bar: it would go to the standard output, where a command's JSON is."""
    import duckdb  # noqa: PLC0415 (see above)

    # In a notebook without ipywidgets there is none, and DuckDB refuses to turn it off.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")


def duckdb_reason(error: Exception) -> str:
    """What an error of DuckDB says, on one line; of an error in the store only the store's own message."""
    said = str(error).partition("\n\nLINE ")[0]
    if said.startswith("Traceback"):
        raised = [line for line in said.splitlines()[1:] if not line.startswith(" ")]
        said = " ".join(raised).partition(": ")[2] or said
    return " ".join(said.split())[:500]


def _read(store: ObjectStore, key: str, read: Any) -> Any:
    try:
        try:
            with store.open(key) as source:
                return read(source)
        except ObjectConflictError:
            # Replaced while it was read in pieces: the new version, in one piece.
            return read(io.BytesIO(store.get(key)))
    except _DAMAGED as error:
        raise _unreadable(store, key, error) from error


def _must_have(file: pq.ParquetFile, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise pa.ArrowInvalid(f"it has no column {', '.join(missing)}")


def _expected(key: str, table: pa.Table) -> pa.Table:
    """A table as it is, if its texts and lists are such: what others put there would be noticed late and badly."""
    spec = _ours(key)
    for field in spec.schema if spec else ():
        if field.name not in table.schema.names:
            continue
        column = table.column(field.name)
        for kind in (pa.types.is_string, pa.types.is_list):
            if kind(field.type) and not kind(column.type):
                raise pa.ArrowInvalid(f"its column {field.name} is {column.type} in place of {field.type}")
        if column.null_count and not field.nullable:
            raise pa.ArrowInvalid(f"its column {field.name} has nulls")
    return table


def _unreadable(store: ObjectStore, key: str, error: Exception) -> StorageError:
    return StorageError(
        f"table {store.uri(key)} cannot be read ({one_line(error)}); rebuild its partition from what has landed"
    )


def _schema(spec: Table, given: pa.Schema) -> pa.Schema:
    missing = [name for name in spec.schema.names if name not in given.names]
    if missing:
        raise RecordError(
            f"{spec.name}: columns {', '.join(missing)} are missing; the table has {', '.join(given.names)}"
        )
    return pa.schema([*spec.schema, *(field for field in given if field.name not in spec.schema.names)])


def _fitted(table: pa.Table, schema: pa.Schema, spec: Table) -> pa.Table:
    if sorted(table.column_names) != sorted(schema.names):
        different = sorted(set(table.column_names) ^ set(schema.names)) or ["the same column twice"]
        raise RecordError(
            f"{spec.name}: rows differ in their columns from those before: {', '.join(different)}"
        )
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            count = table.column(field.name).null_count
            raise RecordError(f"{spec.name}: column {field.name} has {count} nulls, which it may not have")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise RecordError(f"{spec.name}: rows do not fit the table's columns: {one_line(error)}") from error


def _sorted(table: pa.Table, spec: Table) -> pa.Table:
    keys = [(name, "ascending") for name in spec.sort if name in table.column_names]
    return table.sort_by(keys) if keys else table


def _in_order(table: pa.Table, spec: Table) -> pa.Table:
    """Rows that fit a table, sorted; most come so."""
    found = places(table, spec.sort)
    return table if (np.diff(found) >= 0).all() else table.take(np.argsort(found, kind="stable"))


def _described(spec: Table) -> dict[str, str]:
    columns = {
        field.name: {name.decode(): text.decode() for name, text in (field.metadata or {}).items()}
        for field in spec.schema
    }
    return {
        "vendor_assets.table": spec.name,
        "vendor_assets.grain": spec.grain,
        "vendor_assets.columns": json.dumps(columns),
    }
