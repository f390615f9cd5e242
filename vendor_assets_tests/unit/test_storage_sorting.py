"""Sorting beyond memory: each key once, the newest row, in order, whatever came in whatever order."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.storage import sorting
from vendor_assets.storage.sorting import NewestRows
from vendor_assets.tables import DATA_GROUPS, PERFORMANCE_DATA

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
Row = tuple[str, int]
Batch = tuple[int, list[Row]]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
batches = st.lists(st.lists(st.tuples(names, st.integers(0, 4)), max_size=12, unique=True), max_size=12)


def arrow(rows: list[Row], value: float) -> pa.RecordBatch:
    """Rows of performance data: (warrior, hour) with one value."""
    hours = [MIDNIGHT + timedelta(hours=hour) for _, hour in rows]
    columns: dict[str, list[Any]] = {
        "troop_id": ["t"] * len(rows),
        "warrior_id": [warrior for warrior, _ in rows],
        "data_group": ["cpu"] * len(rows),
        "value_name": ["ms"] * len(rows),
        "timeslice_start": hours,
        "timeslice_end": hours,
        "value": [value] * len(rows),
        "weight": [None] * len(rows),
    }
    return pa.RecordBatch.from_pydict(columns, schema=PERFORMANCE_DATA.schema)


def sort(given_batches: Iterable[Batch]) -> tuple[list[tuple[str, int, float]], NewestRows]:
    """The sorted rows as (warrior, hour, value), and the counts."""
    with NewestRows(PERFORMANCE_DATA) as rows:
        for order, batch in given_batches:
            rows.add(arrow(batch, float(order)), order)
        rows.sort()
        first, again = (pa.Table.from_batches(rows.batches(), PERFORMANCE_DATA.schema) for _ in range(2))
    assert first.equals(again)
    found = [(row["warrior_id"], row["timeslice_start"].hour, row["value"]) for row in first.to_pylist()]
    return found, rows


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@settings(max_examples=25)
@given(given=batches, data=st.data(), in_memory=st.sampled_from([1, 3, 7, 65_536]))
def test_the_newest_row_of_each_key_is_left_in_order(
    given: list[list[Row]], data: st.DataObject, in_memory: int, temporary: Path
) -> None:
    """Whatever the order of arrival and the memory, rows come out by key, the newest of each, and none is lost."""
    arrivals = data.draw(st.permutations(list(enumerate(given))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "ROWS_IN_MEMORY", in_memory)
        found, rows = sort(arrivals)
    truth = {key: float(order) for order, batch in enumerate(given) for key in batch}
    assert found == [(*key, truth[key]) for key in sorted(truth, key=lambda key: (key[0].encode(), key[1]))]
    assert (rows.rows, rows.duplicates) == (len(truth), sum(map(len, given)) - len(truth))
    assert list(temporary.iterdir()) == []


def test_lists_survive_the_way_over_files(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of lists, as the names of values are, come out as they went in."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 2)
    rows = [
        {
            "troop_id": "t",
            "warrior_id": f"w{number}",
            "data_group": "cpu",
            "value_names": ["ms"] * number,
            "observed_at": MIDNIGHT,
        }
        for number in range(7)
    ]
    with NewestRows(DATA_GROUPS) as sorted_rows:
        for order, row in enumerate(reversed(rows)):
            sorted_rows.add(pa.RecordBatch.from_pylist([row], schema=DATA_GROUPS.schema), order)
        sorted_rows.sort()
        found = pa.Table.from_batches(sorted_rows.batches(), DATA_GROUPS.schema)
    assert found.to_pylist() == rows
    assert found.schema.equals(DATA_GROUPS.schema)


@pytest.mark.parametrize("count", [5_000, 20_000])
@pytest.mark.parametrize("worst", [False, True], ids=["in order", "in the worst order"])
def test_rows_in_memory_do_not_grow_with_the_table(
    worst: bool, count: int, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most about two runs' rows are sorted at once, however many there are, also when each run holds all keys."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 1000)
    held: list[int] = []
    newest = NewestRows._newest

    def counted(self: NewestRows, table: pa.Table) -> pa.Table:
        held.append(table.num_rows)
        return newest(self, table)

    monkeypatch.setattr(NewestRows, "_newest", counted)
    steps = count // 50
    with NewestRows(PERFORMANCE_DATA) as rows:
        for order in range(steps):
            numbers = (index * steps + order if worst else order * 50 + index for index in range(50))
            rows.add(arrow([(f"w{number:08d}", 0) for number in numbers], 0.0), order)
        rows.sort()
        assert sum(batch.num_rows for batch in rows.batches()) == count
    assert max(held) <= 2_000
    assert sum(held) == 2 * count


def test_a_full_disk_is_said_in_one_line(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When temporary files cannot be written the message names their folder and what to do."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StorageUnavailableError, match="TMPDIR") as caught:
        sort([(0, [("w", 1)])])
    assert str(temporary) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(temporary.iterdir()) == []
