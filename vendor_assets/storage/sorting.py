"""Sorting more rows than fit into memory: each key once, the newest row of it.

Up to a few megabytes are sorted where they are. What is more goes as sorted runs into the system's folder for
temporary files (``TMPDIR``); then the key's range is cut where the runs' own pieces begin, so that each cut holds about
as many rows as one run, and the cuts are sorted one after the other. That takes some 50 MB whatever the number of
rows, where DuckDB 2.0 took four times as much or gave up (``benchmarks/memory.py``). Rows that come nearly in order,
as a harvest's do, are read hardly more than once.
"""

from __future__ import annotations

import tempfile
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.tables import Table
from vendor_assets.temporary import temporary_folder

ROWS_IN_MEMORY: Final = 65_536
_BYTES_IN_MEMORY: Final = 16 << 20
_BATCHES_IN_MEMORY: Final = 2048
_PIECES_OF_A_RUN: Final = 64
_ORDER: Final = "_order"

Key = tuple[Any, ...]

_one_large = threading.Lock()
"""Held from the first run to the end of the block: of all threads one at a time sorts more than fits into memory."""


class _Piece(NamedTuple):
    """A row group of a sorted run, with its first and last key."""

    first: Key
    last: Key
    run: Path
    group: int


class NewestRows:
    """Takes rows in any order and gives them back sorted by a table's key, of each key only the newest row.

    Use it as a context: add rows, :meth:`sort`, then read :meth:`batches` as often as needed until the block ends.
    A second one with many rows waits until the first one's block has ended: a thread has one of them at a time.

    Args:
        spec: The table; its key decides the order and what is the same row.

    Attributes:
        rows: Rows that are left; known after :meth:`sort`.
        duplicates: Rows that were dropped because a newer one has the same key; known after :meth:`sort`.

    Raises:
        StorageUnavailableError: Temporary files cannot be written or read.
    """

    def __init__(self, spec: Table) -> None:
        self.rows = 0
        self.duplicates = 0
        self._spec = spec
        self._schema = pa.schema([*spec.schema, pa.field(_ORDER, pa.int32(), nullable=False)])
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._given = 0
        self._folder: Path | None = None
        self._kept = ExitStack()
        self._runs = 0
        self._pieces: list[_Piece] = []
        self._sorted: pa.Table | Path = spec.schema.empty_table()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the temporary files."""
        self._waiting, self._pieces, self._sorted = [], [], self._spec.schema.empty_table()
        if self._folder is not None:
            self._folder = None
            self._kept.close()
            _one_large.release()

    def add(self, rows: pa.RecordBatch, order: int) -> None:
        """Take some rows in the table's schema.

        Of two rows with the same key the one with the higher ``order`` is kept.
        """
        if not rows.num_rows:
            return
        orders = pa.repeat(pa.scalar(order, pa.int32()), rows.num_rows)
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
                self._spill()

    def sort(self) -> None:
        """Sort what was added and drop older rows of the same key; afterwards rows can be read."""
        with _translated():
            if self._folder is None:
                self._sorted = self._fitted(self._newest(self._take_waiting()))
                self.rows = self._sorted.num_rows
            else:
                if self._waiting:
                    self._spill()
                self._sorted = self._folder / "sorted.parquet"
                self._merge(self._sorted)
        self.duplicates = self._given - self.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The sorted rows in the table's schema, at most 65,536 at a time."""
        if isinstance(self._sorted, Path):
            with _translated(), pq.ParquetFile(self._sorted) as file:
                yield from file.iter_batches(ROWS_IN_MEMORY, use_threads=False)
        else:
            yield from self._sorted.to_batches()

    def _take_waiting(self) -> pa.Table:
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        return table

    def _spill(self) -> None:
        """Write what waits as one sorted run."""
        if self._folder is None:
            _one_large.acquire()
            try:
                self._folder = self._kept.enter_context(temporary_folder())
            except BaseException:
                _one_large.release()
                raise
        table = self._newest(self._take_waiting())
        size = -(-table.num_rows // _PIECES_OF_A_RUN)
        path = self._folder / f"run-{self._runs:06d}.parquet"
        self._runs += 1
        pq.write_table(table, path, row_group_size=size, compression="zstd", compression_level=1)
        for group, first in enumerate(range(0, table.num_rows, size)):
            last = min(first + size, table.num_rows) - 1
            self._pieces.append(_Piece(self._key(table, first), self._key(table, last), path, group))

    def _merge(self, result: Path) -> None:
        """Sort all runs into one file, one cut of the key's range at a time."""
        self._pieces.sort(key=lambda piece: piece.first)
        # The pieces' ends are a sample of the keys: between 128 of them lie the rows of about one run.
        ends = sorted(key for piece in self._pieces for key in (piece.first, piece.last))
        every = 2 * _PIECES_OF_A_RUN
        cuts = sorted(set(ends[every::every]))
        with pq.ParquetWriter(result, self._spec.schema, compression="zstd", compression_level=1) as sink:
            for low, high in zip([None, *cuts], [*cuts, None], strict=True):
                table = self._fitted(self._newest(pa.concat_tables(self._between(low, high))))
                sink.write_table(table, row_group_size=ROWS_IN_MEMORY)
                self.rows += table.num_rows

    def _between(self, low: Key | None, high: Key | None) -> list[pa.Table]:
        """The rows of all runs from one key, included, to another, excluded."""
        found: list[pa.Table] = [self._schema.empty_table()]
        for piece in self._pieces:
            if (high is not None and piece.first >= high) or (low is not None and piece.last < low):
                continue
            with pq.ParquetFile(piece.run) as file:
                table = file.read_row_group(piece.group, use_threads=False)
            first = 0 if low is None or piece.first >= low else self._position(table, low)
            end = table.num_rows if high is None or piece.last < high else self._position(table, high)
            # Not a slice: it would keep the whole piece in memory.
            whole = (first, end) == (0, table.num_rows)
            found.append(table if whole else table.take(pa.array(range(first, end), pa.int64())))
        return found

    def _position(self, table: pa.Table, key: Key) -> int:
        """Index of the first row of a sorted table whose key is not below another one."""
        return bisect_left(range(table.num_rows), key, key=lambda row: self._key(table, row))

    def _key(self, table: pa.Table, row: int) -> Key:
        return tuple(table.column(name)[row].as_py() for name in self._spec.key)

    def _newest(self, table: pa.Table) -> pa.Table:
        """Rows sorted by key, of each key the one with the highest order."""
        table = table.sort_by([(name, "ascending") for name in (*self._spec.key, _ORDER)])
        if table.num_rows < 2:
            return table
        changes = None
        for name in self._spec.key:
            column = table.column(name).combine_chunks()
            differs = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
            changes = differs if changes is None else pc.or_(changes, differs)
        return table.filter(pa.concat_arrays([changes, pa.array([True])]))

    def _fitted(self, table: pa.Table) -> pa.Table:
        return table.select(self._spec.schema.names).cast(self._spec.schema).combine_chunks()


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of temporary files as ours."""
    try:
        yield
    except OSError as error:
        message = (
            f"rows cannot be sorted in {tempfile.gettempdir()} ({' '.join(str(error).split())[:300]}); "
            "free some space there, or name another folder in TMPDIR"
        )
        raise StorageUnavailableError(message) from error
