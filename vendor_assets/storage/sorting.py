"""Sorting more rows than fit into memory: each key once, its newest row.

Few rows are sorted in memory. More become sorted runs, in pieces in a file in the system's folder for temporary files
(``TMPDIR``). Answers come nearly in the order of the key, so most pieces stand alone between their neighbours and are
never looked at again; only those that overlap are merged, row by row (``benchmarks/sorting.py``).
"""

from __future__ import annotations

import tempfile
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.storage.order import places
from vendor_assets.tables import Table
from vendor_assets.temporary import temporary_folder
from vendor_assets.turns import let_others

ROWS_IN_MEMORY: Final = 131_072
_BYTES_IN_MEMORY: Final = 16 << 20
_BATCHES_IN_MEMORY: Final = 2048
_BATCH_ROWS: Final = 65_536
_PIECE_ROWS: Final = 2048
"""With twice as many, 50 million shuffled rows take 772 MB in place of 460, and large answers 0.04 µs a row less."""
_MERGED_ROWS: Final = 65_536
"""Rows that are merged at once; where there are very many runs, half a piece of each."""
_FEW: Final = 8
"""A dictionary with a text for so many rows is few texts."""
_WRITE: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
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
        coded = [field.with_type(CODED) if _is_coded(field) else field for field in spec.schema]
        self._schema = pa.schema([*coded, pa.field(_ORDER, pa.int64(), nullable=False)])
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._given = 0
        self._file: _PieceFile | None = None
        self._runs = 0
        self._pieces: list[_Piece] = []
        self._sorted = self._schema.empty_table()
        self._kept = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self._file, self._sorted = None, self._schema.empty_table()
        self._kept.close()

    def add(self, rows: pa.RecordBatch, order: int | np.ndarray[Any, Any]) -> None:
        """Take some rows in the table's schema; texts may be dictionaries, which are less work.

        Of rows with the same key the one with the highest ``order``, which is of all or of each, is kept, and of these
        the last. Rows of one order come together.
        """
        orders = np.full(rows.num_rows, order, np.int64)
        columns = [
            column.cast(pa.string()).dictionary_encode() if kind == CODED != column.type else column
            for column, kind in zip(rows.columns, self._schema.types, strict=False)
        ]
        batch = pa.RecordBatch.from_arrays([*columns, pa.array(orders)], schema=self._schema)
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
            if self._file is None:
                self._sorted = self._take_waiting()
                self.rows = len(self._sorted)
            else:
                self._store()
                self._pieces = list(self._in_order(self._file))
                self.rows = sum(piece.rows for piece in self._pieces)
        self.duplicates = self._given - self.rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The sorted rows in the table's schema, or some columns of it, at most 65,536 at a time."""
        spec = self._spec.schema
        schema = spec if columns is None else pa.schema([spec.field(name) for name in columns])
        if self._file is None:
            for batch in self._sorted.select(schema.names).to_batches(_BATCH_ROWS):
                yield batch.cast(schema)
            return
        with _translated():
            included = [self._schema.get_field_index(name) for name in schema.names]
            for some in _gathered(self._file.read(self._pieces, included), _BATCH_ROWS):
                yield from some.select(schema.names).combine_chunks().cast(schema).to_batches()

    def _take_waiting(self) -> pa.Table:
        """What waits, sorted."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        return _newest(table, self._spec.key)

    def _store(self) -> None:
        """Move what waits into the file, as a run."""
        if self._file is None:
            with let_others():
                self._kept.enter_context(_one_large)
            folder = self._kept.enter_context(temporary_folder())
            self._file = self._kept.enter_context(_PieceFile(folder / "pieces.arrow", self._spec.key))
        self._runs += 1
        self._pieces += self._file.write(self._take_waiting())

    def _in_order(self, file: _PieceFile) -> Iterator[_Piece]:
        """Pieces that lie one after the other in the order of the key: those of the runs, and merged ones."""
        for together in _overlapping(sorted(self._pieces)):
            if len(together) == 1:
                yield from together
            else:
                for rows in self._merged(file, together):
                    yield from file.write(rows)

    def _merged(self, file: _PieceFile, pieces: Sequence[_Piece]) -> Iterator[pa.Table]:
        """All rows of some pieces in the order of the key, each key once.

        Pieces are read in the order of their first keys, so that what lies before the next one's is whole. What is held
        back is at most a piece of each run.
        """
        at_once = max(_MERGED_ROWS // _PIECE_ROWS, self._runs // 2)
        held = self._schema.empty_table()
        read = file.read(pieces)
        for then in range(at_once, len(pieces) + at_once, at_once):
            some = pa.Table.from_batches(islice(read, at_once), self._schema)
            rows = _newest(pa.concat_tables([held, some]), self._spec.key)
            count = len(rows)
            if then < len(pieces):
                until = partial(_key, rows, self._spec.key)
                count = bisect_left(range(count), pieces[then].first, key=until)
            held = pa.Table.from_batches(map(_compact, rows.slice(count).to_batches()), self._schema)
            yield rows.slice(0, count)


def _is_coded(field: pa.Field) -> bool:
    return bool(field.type == pa.string() and not field.nullable)


class _Piece(NamedTuple):
    """Some rows in a file that are sorted, each key once.

    Attributes:
        first, last: The keys of its first and its last row.
        at: Where it begins in the file.
    """

    first: _Key
    last: _Key
    at: int
    rows: int


class _PieceFile:
    """Pieces one after the other in a file, each with the texts of its own rows and few others."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self._path = str(path)
        self._key = key
        self._sink = pa.OSFile(self._path, "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.close()

    def write(self, rows: pa.Table) -> list[_Piece]:
        """Take sorted rows, each key once."""
        pieces = []
        for batch in map(_compact, _cut(rows)):
            first, last = (_key(batch, self._key, at) for at in (0, batch.num_rows - 1))
            pieces.append(_Piece(first, last, self._sink.tell(), batch.num_rows))
            with pa.ipc.new_stream(self._sink, batch.schema, options=_WRITE) as stream:
                stream.write_batch(batch)
        return pieces

    def read(self, pieces: Iterable[_Piece], columns: Sequence[int] = ()) -> Iterator[pa.RecordBatch]:
        """The rows of some pieces, each as a batch; all columns, or those with some numbers."""
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=list(columns))
        with pa.OSFile(self._path) as source:
            for piece in pieces:
                source.seek(piece.at)
                yield pa.ipc.open_stream(source, options=options).read_next_batch()


def _cut(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Rows in pieces; where answers are large each piece has rows of one, with no gap for those of another."""
    orders = rows.column(_ORDER).to_numpy()
    edges = np.flatnonzero(orders[1:] != orders[:-1]) + 1
    if len(edges) * _PIECE_ROWS > 2 * len(rows):
        edges = edges[:0]
    for first, last in pairwise([0, *edges.tolist(), len(rows)]):
        yield from rows.slice(first, last - first).combine_chunks().to_batches(_PIECE_ROWS)


def _overlapping(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces in the order of their first keys, those together that have a stretch of the key's order in common."""
    together: list[_Piece] = []
    last: _Key = ()
    for piece in pieces:
        if together and piece.first > last:
            yield together
            together = []
        together.append(piece)
        last = max(last, piece.last)
    if together:
        yield together


def _gathered(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.Table]:
    """Batches together, as many as have at most so many rows."""
    some: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if some and rows + batch.num_rows > most:
            yield pa.Table.from_batches(some)
            some, rows = [], 0
        some.append(batch)
        rows += batch.num_rows
    if some:
        yield pa.Table.from_batches(some)


def _compact(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows, their dictionaries without many texts of other rows."""
    columns = list(rows.columns)
    for number, column in enumerate(columns):
        if column.type == CODED and len(column.dictionary) * _FEW > len(column):
            codes = column.indices.to_numpy()
            used = np.zeros(len(column.dictionary), bool)
            used[codes] = True
            anew = np.cumsum(used, dtype=np.int32) - np.int32(1)
            texts = column.dictionary.filter(pa.array(used))
            columns[number] = pa.DictionaryArray.from_arrays(pa.array(anew[codes]), texts)
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _key(rows: pa.Table | pa.RecordBatch, key: Sequence[str], at: int) -> _Key:
    return tuple(rows.column(name)[at].as_py() for name in key)


def _newest(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Rows sorted by a key, of each key the one with the highest ``_order``, and of these the last."""
    rows = rows.combine_chunks()
    found = places(rows, key)
    if (found[1:] > found[:-1]).all():
        return rows
    numbers = np.argsort(found, kind="stable")
    ordered = found[numbers]
    is_last = np.ones(len(ordered), bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    if not is_last.all():
        numbers = np.lexsort((rows.column(_ORDER).to_numpy(), found))[is_last]
    return rows.take(pa.array(numbers))


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
