"""Sorting beyond memory: each key once, the newest row, in order, whatever came in whatever order."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.storage import sorting
from vendor_assets.storage.sorting import NewestRows
from vendor_assets.tables import DATA_GROUPS, PERFORMANCE_DATA, WARRIORS

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


def _coded(batch: pa.RecordBatch, order: int) -> pa.RecordBatch:
    """Rows with their texts as they may come: as such, or as one dictionary or another."""
    if order % 3 == 0:
        return batch
    places = pa.array(range(batch.num_rows), pa.int32() if order % 3 == 1 else pa.int64())
    columns = [
        pa.DictionaryArray.from_arrays(places, column) if pa.types.is_string(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def sort(given_batches: Iterable[Batch]) -> tuple[list[tuple[str, int, float]], NewestRows]:
    """The sorted rows as (warrior, hour, value), and the counts."""
    with NewestRows(PERFORMANCE_DATA) as rows:
        for order, batch in given_batches:
            rows.add(_coded(arrow(batch, float(order)), order), order)
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


@pytest.mark.parametrize("worst", [False, True], ids=["in order", "in the worst order"])
def test_memory_does_not_grow_with_the_table(worst: bool, tmp_path: Path) -> None:
    """Sorting 600,000 rows more takes less than 40 MB more memory, also when each batch spans all keys."""
    few, many = (_peak_bytes(rows, worst, tmp_path) for rows in (200_000, 800_000))
    assert many < few + (40 << 20)


def _peak_bytes(rows: int, worst: bool, folder: Path) -> int:
    """Largest resident set of a process that sorts so many rows."""
    program = f"""
import numpy, pyarrow
from pathlib import Path
from vendor_assets.storage.sorting import NewestRows
from vendor_assets.tables import PERFORMANCE_DATA
count = {rows}
with NewestRows(PERFORMANCE_DATA) as rows:
    for order in range(count // 1000):
        numbers = numpy.arange(1000) * (count // 1000) + order if {worst} else numpy.arange(1000) + order * 1000
        texts = pyarrow.array(numbers).cast(pyarrow.string())
        zeros = pyarrow.repeat(0, 1000)
        columns = [zeros.cast(field.type) if field.name != "warrior_id" else texts for field in PERFORMANCE_DATA.schema]
        rows.add(pyarrow.RecordBatch.from_arrays(columns, schema=PERFORMANCE_DATA.schema), order)
    rows.sort()
    assert sum(batch.num_rows for batch in rows.batches()) == count
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, check=True
    )
    return int(done.stdout) * 1024


def test_a_full_disk_is_said_in_one_line(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When temporary files cannot be written the message names their folder and what to do."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no\nspace")

    monkeypatch.setattr(pa, "OSFile", full)
    with pytest.raises(StorageUnavailableError, match="TMPDIR") as caught:
        sort([(0, [("w", 1)])])
    assert str(temporary) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_a_file_that_may_not_grow_is_a_full_disk(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one, as the system says it."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    given = [(order, [(f"w{order}-{number}", 0) for number in range(1000)]) for order in range(10)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageUnavailableError, match="TMPDIR"):
            sort(given)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(temporary.iterdir()) == []


def test_of_one_answer_the_last_row_counts(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one answer has a key twice its last row is kept, on disk as in memory."""
    for in_memory in (1, 65_536):
        monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", in_memory)
        with NewestRows(PERFORMANCE_DATA) as rows:
            twice = pa.Table.from_batches([arrow([("w", 1)], value) for value in (3.0, 1.0, 2.0)])
            rows.add(twice.combine_chunks().to_batches()[0], 0)
            rows.sort()
            assert [row["value"] for batch in rows.batches() for row in batch.to_pylist()] == [2.0]


@settings(max_examples=25)
@given(given=batches, data=st.data(), piece=st.sampled_from([1, 2, 5]), merged=st.sampled_from([1, 8, 100]))
def test_runs_are_merged_whatever_is_read_of_them_at_once(
    given: list[list[Row]], data: st.DataObject, piece: int, merged: int, temporary: Path
) -> None:
    """Short pieces or long ones, few or all of them in memory: the same rows in the same order."""
    arrivals = data.draw(st.permutations(list(enumerate(given))))
    at_once, _ = sort(arrivals)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "ROWS_IN_MEMORY", 4)
        patch.setattr(sorting, "_PIECE_ROWS", piece)
        patch.setattr(sorting, "_MERGED_ROWS", merged)
        found, _ = sort(arrivals)
    assert found == at_once


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.arrow"))


@pytest.mark.parametrize("times", [1, 2], ids=["each once", "each again later"])
def test_rows_of_large_answers_are_written_again_only_where_a_newer_answer_has_them(
    times: int, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order of arrival: an answer is a stretch of the key's order, and most have theirs for themselves."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 16)
    monkeypatch.setattr(sorting, "_PIECE_ROWS", 4)
    answers = [[(f"w{number:02d}", hour) for hour in range(5)] for number in range(40)]
    arrivals = [*np.random.default_rng(1).permutation(40), *([7] * (times - 1))]
    with NewestRows(PERFORMANCE_DATA) as rows:
        for order, number in enumerate(arrivals):
            rows.add(arrow(answers[number], float(order)), order)
        rows._store()  # what is left, as sort() does at its beginning
        before = _written(temporary)
        rows.sort()
        grown = _written(temporary) - before
        found = [row["value"] for batch in rows.batches() for row in batch.to_pylist()]
    newest = {number: float(order) for order, number in enumerate(arrivals)}
    assert found == [newest[number] for number in range(40) for _ in range(5)]
    assert rows.duplicates == 5 * (times - 1)
    assert grown < before / 10 if times > 1 else not grown


def test_a_piece_has_few_texts_of_other_rows(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where texts differ from row to row, the file grows with the rows and not with their square."""
    monkeypatch.setattr(sorting, "_PIECE_ROWS", 16)
    size = {}
    for rows_in_memory in (64, 4096):
        monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", rows_in_memory)
        with NewestRows(PERFORMANCE_DATA) as rows:
            for order in range(8192):
                rows.add(arrow([(f"w{order:05d}", 0)], 0.0), 0)
            rows.sort()
            size[rows_in_memory] = _written(temporary)
    assert size[4096] < 1.1 * size[64]


@pytest.mark.parametrize("in_memory", [3, 65_536], ids=["on disk", "in memory"])
def test_some_columns_are_those_of_all(
    in_memory: int, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they are asked for, and of the same rows."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", in_memory)
    names = ["value", "warrior_id"]
    with NewestRows(PERFORMANCE_DATA) as rows:
        for order in range(5):
            rows.add(arrow([(f"w{order}", hour) for hour in range(3)], float(order)), order)
        rows.sort()
        every = pa.Table.from_batches(rows.batches())
        assert pa.Table.from_batches(rows.batches(names)).equals(every.select(names))


@pytest.mark.parametrize("in_memory", [4, 65_536], ids=["on disk", "in memory"])
def test_nulls_stay_nulls(in_memory: int, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numbers and of texts, beside others of the same column and where there is nothing else."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", in_memory)
    texts = [None, "n", None, "", None, None, "n"]
    columns = {
        "troop_id": "t",
        "attributes": None,
        "first_observed_at": MIDNIGHT,
        "last_observed_at": MIDNIGHT,
    }
    given = [
        {"warrior_id": f"w{number}", "name": text, "observed_later": False, **columns}
        for number, text in enumerate(texts)
    ]
    with NewestRows(WARRIORS) as rows:
        for order, row in enumerate(reversed(given)):
            rows.add(pa.RecordBatch.from_pylist([row], schema=WARRIORS.schema), order)
        rows.sort()
        found = pa.Table.from_batches(rows.batches())
    assert found.equals(pa.Table.from_pylist(given, WARRIORS.schema))


def test_one_answer_may_be_larger_than_the_memory(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single answer of many pieces, in the worst order, beside one without a row and one within its stretch."""
    monkeypatch.setattr(sorting, "ROWS_IN_MEMORY", 10)
    monkeypatch.setattr(sorting, "_PIECE_ROWS", 3)
    giant = [(f"w{number:03d}", 0) for number in range(100)]
    found, rows = sort([(0, giant[::-1]), (1, []), (2, [("w050", 0), ("w0505", 0)])])
    expected = [(*key, 0.0) for key in giant]
    expected[50:51] = [("w050", 0, 2.0), ("w0505", 0, 2.0)]
    assert found == expected
    assert rows.duplicates == 1
