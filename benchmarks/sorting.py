"""What it takes to sort the rows of a partition, of each key the newest: at 3, 10 and 50 million rows.

    python -m benchmarks.sorting [million rows …]

Rows of ``performance_data`` come as answers of 96 rows, every fiftieth of them twice: nearly in the key's order, as a
harvest's do, and shuffled. Each figure is that of a process of its own: the largest resident set as the kernel counts
it, CPU, and the largest size of the temporary files. "Without sorting" is a process that only makes the rows. Wanted:
at most 600 MB at each size, and every row right.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.process import measured_by
from vendor_assets.storage.sorting import NewestRows
from vendor_assets.tables import PERFORMANCE_DATA

MILLIONS = (3, 10, 50)
ORDERS = ("nearly sorted", "shuffled")
LIMIT_MB = 600
RESULT = Path(__file__).parent / "results" / "sorting.md"

_SLICES, _VALUES, _GROUPS = 48, 2, 40
_ANSWER = _SLICES * _VALUES
_IN_FLIGHT = 16
_START = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1e6)
_STARTS = _START + 1_800_000_000 * np.tile(np.arange(_SLICES, dtype=np.int64), _VALUES)


def arrivals(count: int, order: str) -> np.ndarray[Any, Any]:
    """Numbers of answers in the order of their arrival; the rows of answer 0 come first when sorted."""
    random = np.random.default_rng(7)
    nearly = order == ORDERS[0]
    places = np.arange(count) + random.uniform(0, _IN_FLIGHT, count) if nearly else random.random(count)
    again = np.arange(0, count, 50)
    later = places[again] + (1000 if nearly else random.random(len(again)))
    return np.concatenate([np.arange(count), again])[np.argsort(np.concatenate([places, later]))]


def answers(numbers: np.ndarray[Any, Any]) -> Iterator[pa.RecordBatch]:
    """Answers of one warrior and data group each; their values say when they came."""
    weights = np.random.default_rng(8)
    names = pa.array(["average_response_time", "calls_per_minute"])
    for first in range(0, len(numbers), 256):
        some = numbers[first : first + 256]
        each = np.repeat(np.arange(len(some)), _ANSWER)
        starts = np.tile(_STARTS, len(some))
        batch = pa.RecordBatch.from_arrays(
            [
                pa.repeat("4711", len(each)),
                pa.array([f"w{number // _GROUPS:07d}" for number in some]).take(pa.array(each)),
                pa.array([f"Controller/{number % _GROUPS:03d}" for number in some]).take(pa.array(each)),
                names.take(pa.array(np.tile(np.repeat([0, 1], _SLICES), len(some)))),
                pa.array(starts).cast(pa.timestamp("us", "UTC")),
                pa.array(starts + 1_800_000_000).cast(pa.timestamp("us", "UTC")),
                pa.array((first + each).astype(float)),
                pa.array(weights.random(len(each))),
            ],
            schema=PERFORMANCE_DATA.schema,
        )
        for at in range(len(some)):
            yield batch.slice(at * _ANSWER, _ANSWER)


def is_right(batch: pa.RecordBatch, first: int, newest: np.ndarray[Any, Any]) -> bool:
    """Whether rows are those that belong at a place of the sorted result."""
    places = np.arange(first, first + len(batch))
    number = places // _ANSWER
    ends = [0, len(batch) - 1]
    return (
        np.array_equal(batch.column("value").to_numpy(), newest[number])
        and np.array_equal(
            batch.column("timeslice_start").cast(pa.int64()).to_numpy(), _STARTS[places % _ANSWER]
        )
        and batch.column("warrior_id").take(ends).to_pylist()
        == [f"w{each // _GROUPS:07d}" for each in number[ends]]
    )


def child(rows: int, order: str, *, sort: bool) -> dict[str, Any]:
    """Sort in this process, or only make the rows."""
    pa.set_cpu_count(1)
    count = rows // _ANSWER
    numbers = arrivals(count, order)
    newest = np.zeros(count)
    np.maximum.at(newest, numbers, np.arange(len(numbers)))
    began = time.monotonic()
    right, found = True, 0
    if sort:
        with NewestRows(PERFORMANCE_DATA) as sorter:
            for position, answer in enumerate(answers(numbers)):
                sorter.add(answer, position)
            sorter.sort()
            for batch in sorter.batches():
                right = right and is_right(batch, found, newest)
                found += len(batch)
    else:
        found = sum(len(answer) for answer in answers(numbers))
    wall = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {
        "rows": found,
        "mb": round(peak * 1024 / 1e6),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "seconds": round(wall, 1),
        "right": right and (not sort or found == count * _ANSWER),
    }


def measure(rows: int, order: str, *, sort: bool) -> dict[str, Any]:
    """The figures of a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.sorting", "child", str(rows), order, str(int(sort))]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": folder}, text=True
        )
        largest = 0
        while process.poll() is None:
            largest = max(largest, _size(Path(folder)))
            time.sleep(0.5)
        assert process.stdout is not None
        figures: dict[str, Any] = json.loads(process.stdout.read())
        return figures | {"temporary_mb": round(largest / 1e6)}


def _size(folder: Path) -> int:
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                size += Path(path, name).lstat().st_size
            except FileNotFoundError:
                continue
    return size


def main(millions: list[int]) -> int:
    """Measure, print, and keep the figures; 0 if all that is wanted was reached."""
    lines = [
        "# Sorting a partition's rows",
        "",
        measured_by("sorting"),
        "",
        f"Largest resident set of a process of its own; wanted: at most {LIMIT_MB} MB at each size, every row right.",
        "",
        (
            "| rows | order of arrival | MB | without sorting, MB | CPU seconds | without sorting | seconds "
            "| temporary files, MB | every row right |"
        ),
        "|---:|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    reached = True
    for million in millions:
        for order in ORDERS:
            made, result = (measure(million * 1_000_000, order, sort=sort) for sort in (False, True))
            reached = reached and result["right"] and result["mb"] <= LIMIT_MB
            lines.append(
                f"| {result['rows']:,} | {order} | {result['mb']} | {made['mb']} | {result['cpu_seconds']} "
                f"| {made['cpu_seconds']} | {result['seconds']} | {result['temporary_mb']} "
                f"| {'yes' if result['right'] else 'NO'} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if millions == list(MILLIONS):
        RESULT.write_text(text)
    return 0 if reached else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(child(int(sys.argv[2]), sys.argv[3], sort=sys.argv[4] == "1")))
    else:
        sys.exit(main([int(text) for text in sys.argv[1:]] or list(MILLIONS)))
