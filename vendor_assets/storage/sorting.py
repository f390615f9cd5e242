"""Sorting more rows than fit into memory: each key once, its newest row.

Few rows are sorted in memory. More become sorted runs in a file in the system's folder for temporary files
(``TMPDIR``), which are merged a stretch of the key's order at a time (``benchmarks/sorting.py``).
"""

from __future__ import annotations

import tempfile
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.storage.order import places
from vendor_assets.tables import Table
from vendor_assets.temporary import temporary_folder

ROWS_IN_MEMORY: Final = 65_536
_BYTES_IN_MEMORY: Final = 16 << 20
_BATCHES_IN_MEMORY: Final = 2048
_PIECE_ROWS: Final = 1024
"""Rows of a run that are read together."""
_MERGED_ROWS: Final = 65_536
"""Rows that are read at once; where there are very many runs, half a piece of each."""
_WRITE: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)
_ORDER: Final = "_order"
CODED: Final = pa.dictionary(pa.int32(), pa.string())
"""Texts as a dictionary, in which each is compared once however often it comes."""

_Key = tuple[Any, ...]
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
        self._coded = pa.schema(
            [field.with_type(CODED) if field.type == pa.string() else field for field in self._schema]
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._given = 0
        self._runs: _Runs | None = None
        self._sorted: pa.Table | Path = spec.schema.empty_table()
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self._sorted = self._spec.schema.empty_table()
        self._kept.close()

    def add(self, rows: pa.RecordBatch, order: int | np.ndarray[Any, Any]) -> None:
        """Take some rows in the table's schema; texts may be dictionaries, which are less work.

        Of rows with the same key the one with the highest ``order``, which is of all or of each, is kept, and of these
        the last.
        """
        orders = pa.array((np.asarray(order, np.int64) << 32) + np.arange(rows.num_rows, dtype=np.int64))
        columns = [
            column.cast(pa.string()).dictionary_encode() if kind == CODED != column.type else column
            for column, kind in zip(rows.columns, self._coded.types, strict=False)
        ]
        batch = pa.RecordBatch.from_arrays([*columns, orders], schema=self._coded)
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
            if self._runs is None:
                self._sorted = self._take_waiting().select(self._spec.schema.names)
                self.rows = len(self._sorted)
            else:
                self._store()
                self._sorted = self._merge(self._runs)
        self.duplicates = self._given - self.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The sorted rows in the table's schema, at most 65,536 at a time."""
        if isinstance(self._sorted, Path):
            with _translated(), _opened(self._sorted) as file:
                for number in range(file.num_record_batches):
                    yield file.get_batch(number)
        else:
            yield from self._sorted.to_batches(ROWS_IN_MEMORY)

    def _take_waiting(self) -> pa.Table:
        """What waits, sorted."""
        table = pa.Table.from_batches(self._waiting, self._coded).combine_chunks()
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        return _newest(table, self._spec.key).cast(self._schema)

    def _store(self) -> None:
        """Move what waits into a run."""
        if self._runs is None:
            self._kept.enter_context(_one_large)
            self._folder = self._kept.enter_context(temporary_folder())
            self._runs = self._kept.enter_context(_Runs(self._folder / "runs.arrow", self._schema))
        self._runs.add(self._take_waiting(), self._spec.key)

    def _merge(self, runs: _Runs) -> Path:
        path = self._folder / "sorted.arrow"
        names = self._spec.schema.names
        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, self._spec.schema, options=_WRITE) as file,
        ):
            waiting: list[pa.Table] = []
            for table in runs.merged(self._spec.key):
                waiting.append(table.select(names))
                if sum(map(len, waiting)) >= ROWS_IN_MEMORY:
                    _write(file, waiting, ROWS_IN_MEMORY)
                    waiting = []
                self.rows += len(table)
            _write(file, waiting, ROWS_IN_MEMORY)
        return path


class _Runs:
    """Sorted runs in a file, in pieces; written, then merged once."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema, options=_WRITE)
        self._runs = 0
        self._pieces: list[tuple[_Key, int]] = []
        """The first key of each piece of a run, and its number in the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.close()

    def add(self, rows: pa.Table, key: Sequence[str]) -> None:
        """Take a sorted run, each key once in it."""
        self._runs += 1
        first = len(self._pieces)
        for number in range(_write(self._writer, [rows], _PIECE_ROWS)):
            self._pieces.append((_key(rows, key, number * _PIECE_ROWS), first + number))

    def merged(self, key: Sequence[str]) -> Iterator[pa.Table]:
        """All rows in the order of the key, each key once.

        Pieces are read in the order of their first keys, so that what lies before the next one's is whole. What is held
        back is at most a piece of each run.
        """
        self._writer.close()
        self._sink.close()
        pieces = sorted(self._pieces)
        at_once = max(_MERGED_ROWS // _PIECE_ROWS, self._runs // 2)
        held = self._schema.empty_table()
        with _opened(self._path) as file:
            for first in range(0, len(pieces), at_once):
                read = [file.get_batch(number) for _, number in pieces[first : first + at_once]]
                rows = _newest(pa.concat_tables([held, pa.Table.from_batches(read)]), key)
                count = len(rows)
                if first + at_once < len(pieces):
                    until = pieces[first + at_once][0]
                    count = bisect_left(range(count), until, key=partial(_key, rows, key))
                held = rows.slice(count)
                yield rows.slice(0, count)


def _key(rows: pa.Table, key: Sequence[str], at: int) -> _Key:
    return tuple(rows.column(name)[at].as_py() for name in key)


def _write(file: pa.ipc.RecordBatchFileWriter, tables: list[pa.Table], most: int) -> int:
    """Write rows in batches of ``most``; returns how many these are."""
    batches = pa.concat_tables(tables).combine_chunks().to_batches(most) if tables else []
    for batch in batches:
        file.write_batch(batch)
    return len(batches)


@contextmanager
def _opened(path: Path) -> Iterator[pa.ipc.RecordBatchFileReader]:
    with pa.OSFile(str(path)) as source:
        yield pa.ipc.open_file(source, options=_READ)


def _newest(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Rows sorted by a key, of each key the one with the highest ``_order``, and of these the last."""
    rows = rows.combine_chunks()
    orders = rows.column(_ORDER).to_numpy()
    if (orders[1:] < orders[:-1]).any():
        rows = rows.take(pa.array(np.argsort(orders, kind="stable"))).combine_chunks()
    found = places(rows, key)
    numbers = np.argsort(found, kind="stable")
    found = found[numbers]
    is_last = np.ones(len(found), bool)
    is_last[:-1] = found[1:] != found[:-1]
    del found
    return rows.take(pa.array(numbers[is_last]))


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
