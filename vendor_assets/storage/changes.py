"""What changed between two versions of a table, without holding either of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vendor_assets.tables import Table

_OLD = "_old"
_NEW = "_new"


@dataclass
class Changes:
    """How many rows of a table are new, gone, or the same key with other values."""

    added: int = 0
    altered: int = 0
    removed: int = 0


def compare(spec: Table, old: Iterator[pa.Table], new: Iterator[pa.Table]) -> Changes:
    """Count what changed from one version of a table to another.

    Rows of both are sorted by the table's key, each key once; of each, one piece is in memory at a time.
    """
    found = Changes()
    before, after = _Side(spec, old), _Side(spec, new)
    while before.fill() | after.fill():
        if not before.rows:
            found.added += after.take().num_rows
        elif not after.rows:
            found.removed += before.take().num_rows
        else:
            # What one side has beyond the other's last key waits for the other's next piece.
            end = min(before.last_key(), after.last_key())
            _count(found, spec, before.take(end), after.take(end))
    return found


class _Side:
    """One version while it is read."""

    def __init__(self, spec: Table, pieces: Iterator[pa.Table]) -> None:
        self._spec = spec
        self._pieces = pieces
        self._piece = spec.schema.empty_table()

    @property
    def rows(self) -> int:
        return int(self._piece.num_rows)

    def fill(self) -> bool:
        """Have some rows at hand, if there are any left."""
        while not self.rows:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece = piece.select(self._spec.schema.names).cast(self._spec.schema)
        return True

    def last_key(self) -> tuple[Any, ...]:
        return self._key(self.rows - 1)

    def take(self, last: tuple[Any, ...] | None = None) -> pa.Table:
        """Take the rows at hand, up to a key, included."""
        end = self.rows if last is None else bisect_right(range(self.rows), last, key=self._key)
        taken, self._piece = self._piece.slice(0, end), self._piece.slice(end)
        return taken

    def _key(self, row: int) -> tuple[Any, ...]:
        return tuple(self._piece.column(name)[row].as_py() for name in self._spec.key)


def _count(found: Changes, spec: Table, old: pa.Table, new: pa.Table) -> None:
    """Compare two pieces that hold the same stretch of keys; most are the same."""
    if old.equals(new):
        return
    joined = new.append_column(_NEW, pa.repeat(True, new.num_rows)).join(
        old.append_column(_OLD, pa.repeat(True, old.num_rows)),
        list(spec.key),
        join_type="full outer",
        right_suffix=_OLD,
        use_threads=False,
    )
    is_old, is_new = (pc.is_valid(joined.column(name)) for name in (_OLD, _NEW))
    differs = pa.repeat(False, joined.num_rows)
    for name in set(spec.schema.names).difference(spec.key):
        one, other = joined.column(name), joined.column(name + _OLD)
        both = pc.fill_null(pc.not_equal(one, other), False)
        differs = pc.or_(differs, pc.or_(both, pc.xor(pc.is_null(one), pc.is_null(other))))
    found.added += _true(pc.invert(is_old))
    found.removed += _true(pc.invert(is_new))
    found.altered += _true(pc.and_(pc.and_(is_old, is_new), differs))


def _true(values: Any) -> int:
    return int(pc.sum(values).as_py() or 0)
