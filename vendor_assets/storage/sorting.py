"""Sorting more rows than fit into memory: each key once, its newest row.

Few rows are sorted in memory. More go into a DuckDB table in the system's folder for temporary files (``TMPDIR``),
which DuckDB sorts within a memory limit (``benchmarks/sorting.py``).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.storage.order import places
from vendor_assets.storage.parquet import hide_progress
from vendor_assets.tables import Table
from vendor_assets.temporary import temporary_folder

ROWS_IN_MEMORY: Final = 65_536
_BYTES_IN_MEMORY: Final = 16 << 20
_BATCHES_IN_MEMORY: Final = 2048
_MEMORY_MB: Final = 64
"""What DuckDB may use up to seven million rows; what it needs beyond grows with the root of their number."""
_ROOT_MB: Final = 24
_MOST_MEMORY_MB: Final = 512
_ORDER: Final = "_order"

_one_large = threading.Lock()
"""Held by the one thread that sorts more than fits into memory, until its block ends."""


class NewestRows:
    """Takes rows in any order and gives them back sorted by a table's key, of each key only the newest row.

    Use it as a context: add rows, :meth:`sort`, then read :meth:`batches` as often as needed until the block ends.
    With many rows it waits until no other thread's block with many rows is open.

    ``rows`` that are left and ``duplicates`` that were dropped are known after :meth:`sort`.

    Raises:
        StorageUnavailableError: Temporary files cannot be written or read.
    """

    def __init__(self, spec: Table) -> None:
        self.rows = 0
        self.duplicates = 0
        self._spec = spec
        self._schema = pa.schema([*spec.schema, pa.field(_ORDER, pa.int64(), nullable=False)])
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._given = 0
        self._database: Any = None
        self._sorted: pa.Table | Path = spec.schema.empty_table()
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self._sorted = self._spec.schema.empty_table()
        self._kept.close()

    def add(self, rows: pa.RecordBatch, order: int) -> None:
        """Take some rows in the table's schema.

        Of rows with the same key the one with the highest ``order`` is kept, and of these the last.
        """
        orders = pa.array(np.arange(rows.num_rows, dtype=np.int64) + (order << 32))
        batch = pa.RecordBatch.from_arrays([*rows.columns, orders], schema=self._schema)
        self._given += batch.num_rows
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if len(self._waiting) >= _BATCHES_IN_MEMORY:
            # Each small batch takes kilobytes of its own.
            self._waiting = pa.Table.from_batches(self._waiting).combine_chunks().to_batches()
        if self._waiting_rows >= ROWS_IN_MEMORY or self._waiting_bytes >= _BYTES_IN_MEMORY:
            with _translated():
                self._store()

    def sort(self) -> None:
        """Sort what was added and drop older rows of the same key; afterwards rows can be read."""
        with _translated():
            if self._database is None:
                self._sorted = _newest(self._take_waiting(), self._spec.key).select(self._spec.schema.names)
                self.rows = self._sorted.num_rows
            else:
                self._store()
                self._sorted = self._sort_on_disk()
        self.duplicates = self._given - self.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The sorted rows in the table's schema, at most 65,536 at a time."""
        if isinstance(self._sorted, Path):
            with _translated(), pq.ParquetFile(self._sorted, pre_buffer=False) as file:
                yield from file.iter_batches(ROWS_IN_MEMORY, use_threads=False)
        else:
            yield from self._sorted.to_batches()

    @property
    def _order(self) -> tuple[str, ...]:
        return (*self._spec.key, _ORDER)

    def _take_waiting(self) -> pa.Table:
        table = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        return table

    def _store(self) -> None:
        """Move what waits into the database."""
        if self._database is None:
            self._database = self._open()
        self._database.register("waiting", self._take_waiting())
        self._database.execute("INSERT INTO given SELECT * FROM waiting")
        self._database.unregister("waiting")

    def _open(self) -> Any:
        import duckdb  # noqa: PLC0415 (0.1 s that few rows need not pay)

        self._kept.enter_context(_one_large)
        self._folder = self._kept.enter_context(temporary_folder())
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": f"{_MEMORY_MB}MB",
            "temp_directory": str(self._folder),
            "preserve_insertion_order": False,
        }
        database = duckdb.connect(self._folder / "rows.duckdb", config=settings)
        self._kept.enter_context(closing(database))
        hide_progress(database)
        database.register("waiting", self._schema.empty_table())
        database.execute("CREATE TABLE given AS SELECT * FROM waiting")
        return database

    def _sort_on_disk(self) -> Path:
        import duckdb  # noqa: PLC0415 (see above)

        path = self._folder / "sorted.parquet"
        limit = max(_MEMORY_MB, round(_ROOT_MB * (self._given / 1e6) ** 0.5))
        while True:
            self._database.execute(f"SET memory_limit = '{limit}MB'")
            try:
                self._write_sorted(path)
                break
            except duckdb.OutOfMemoryException:
                limit *= 2
                if limit > _MOST_MEMORY_MB:
                    raise
        self._database.close()
        return path

    def _write_sorted(self, path: Path) -> None:
        self.rows = 0
        ordered = self._database.sql(f"FROM given ORDER BY {', '.join(self._order)}")
        with pq.ParquetWriter(path, self._spec.schema, compression="zstd", compression_level=1) as sink:
            for batch in self._newest(ordered.to_arrow_reader(ROWS_IN_MEMORY)):
                sink.write_batch(batch, row_group_size=ROWS_IN_MEMORY)
                self.rows += batch.num_rows

    def _newest(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of rows sorted by key and order the last one of each key, in the table's schema."""
        held = self._schema.empty_table()
        for batch in batches:
            rows = pa.concat_tables(
                [held, pa.Table.from_batches([batch]).cast(self._schema)]
            ).combine_chunks()
            last = max(0, len(rows) - 1)
            keys = [rows.column(name).combine_chunks() for name in self._spec.key]
            differ = [pc.not_equal(column.slice(1), column.slice(0, last)) for column in keys]
            held = rows.slice(last)
            yield from self._fitted(rows.slice(0, last).filter(reduce(pc.or_, differ)))
        yield from self._fitted(held)

    def _fitted(self, table: pa.Table) -> list[pa.RecordBatch]:
        batches: list[pa.RecordBatch] = (
            table.select(self._spec.schema.names).cast(self._spec.schema).to_batches()
        )
        return batches


def _newest(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Rows sorted by a key, of each key the one with the highest ``_order``, and of these the last."""
    found, orders = places(rows, key), rows.column(_ORDER).to_numpy()
    by_order = np.argsort(orders, kind="stable")
    numbers = by_order[np.argsort(found[by_order], kind="stable")]
    found = found[numbers]
    is_last = np.ones(len(found), bool)
    is_last[:-1] = found[1:] != found[:-1]
    return rows.take(pa.array(numbers[is_last]))


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of temporary files as ours."""
    try:
        yield
    except Exception as error:
        import duckdb  # noqa: PLC0415 (see above)

        if not isinstance(error, (OSError, duckdb.Error)):
            raise
        message = (
            f"rows cannot be sorted in {tempfile.gettempdir()} ({' '.join(str(error).split())[:300]}); "
            "free some space there, or name another folder in TMPDIR"
        )
        raise StorageUnavailableError(message) from error
