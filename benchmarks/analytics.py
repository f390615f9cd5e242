"""What reading a part of the tables costs, and how much memory the statistics of a large day take.

Run as ``python -m benchmarks.analytics``; writes ``benchmarks/results/analytics.md``. Wanted: one troop's month out
of 50 troops and 90 days opens only its own files and is at least 20 times faster than reading all; the statistics
of 10 million rows take less than 1 GB of memory.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Also when it is started by its path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from vendor_assets.analytics.daily import daily_performance
from vendor_assets.analytics.warehouse import Warehouse
from vendor_assets.days import day_window, days_between, parse_time_zone
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import write_table
from vendor_assets.tables import PERFORMANCE_DATA

_TROOPS = 50
_DAYS = 90
_ROWS = 1920
_REPEATS = 5
_LARGE_ROWS = 10_000_000
_SLICES = 48
_LAST = date(2026, 11, 20)
_MONTH = (date(2026, 10, 1), date(2026, 10, 31))
_GIGABYTE = 1e9
_RESULT = Path(__file__).parent / "results" / "analytics.md"


class _WatchedStore(FolderStore):
    """A folder that counts the objects that are opened."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        return super().open(key)


def _rows(troop: int, rows: int, day: date) -> pa.Table:
    """Made-up latencies of one troop and day: 100 data groups a warrior, 48 timeslices each."""
    random = np.random.default_rng(troop)
    series = np.arange(rows // _SLICES)
    each = np.repeat(series, _SLICES)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1e6)
    step = 1_800_000_000
    starts = np.tile(start + step * np.arange(_SLICES, dtype=np.int64), series.size)
    warriors = pa.array([f"w{number // 100:06d}" for number in series])
    groups = pa.array([f"Controller/{number % 100:03d}" for number in series])
    table = pa.table(
        {
            "troop_id": pa.repeat(pa.scalar(str(troop)), each.size),
            "warrior_id": warriors.take(pa.array(each)),
            "data_group": groups.take(pa.array(each)),
            "value_name": pa.repeat(pa.scalar("average_response_time"), each.size),
            "timeslice_start": pa.array(starts).cast(pa.timestamp("us", "UTC")),
            "timeslice_end": pa.array(starts + step).cast(pa.timestamp("us", "UTC")),
            "value": random.lognormal(4, 0.5, each.size),
            "weight": random.integers(1, 1000, each.size).astype(float),
        }
    )
    return table.cast(PERFORMANCE_DATA.schema)


def _write(folder: str, troops: int, days: int, rows: int) -> None:
    store = FolderStore(folder)
    for troop in range(troops):
        for offset in range(days):
            day = _LAST - timedelta(days=offset)
            key = layout.table_key("performance_data", day, str(troop))
            write_table(store, key, _rows(troop, rows, day), PERFORMANCE_DATA)


def _read(folder: str) -> dict[str, float]:
    """A troop's month, by asking for it and by reading all and filtering; seconds, the best of some."""
    part: list[float] = []
    whole: list[float] = []
    opened = rows = 0
    for _ in range(_REPEATS):
        store = _WatchedStore(folder)
        began = time.perf_counter()
        found = Warehouse(store).read("performance_data", _MONTH, "7", as_="arrow")
        part.append(time.perf_counter() - began)
        opened, rows = len(store.opened), found.num_rows
        wanted = {layout.table_key("performance_data", day, "7") for day in days_between(*_MONTH)}
        if set(store.opened) != wanted:
            raise SystemExit(f"other files than the month's were opened: {set(store.opened) - wanted}")
    for _ in range(2):
        began = time.perf_counter()
        everything = Warehouse(FolderStore(folder)).read("performance_data", as_="arrow")
        mine = pc.and_(
            pc.equal(everything["troop"], "7"),
            pc.and_(
                pc.greater_equal(everything["day"], pa.scalar(_MONTH[0])),
                pc.less_equal(everything["day"], pa.scalar(_MONTH[1])),
            ),
        )
        filtered = everything.filter(mine)
        whole.append(time.perf_counter() - began)
        if filtered.num_rows != rows:
            raise SystemExit(f"{filtered.num_rows} rows by filtering, {rows} by asking")
    return {
        "part_seconds": statistics.median(part),
        "whole_seconds": min(whole),
        "opened": opened,
        "rows": rows,
        "all_rows": everything.num_rows,
    }


def _statistics(folder: str) -> dict[str, float]:
    """The statistics of the day; memory is the peak of this process, with Python and all libraries."""
    window = day_window(_LAST, parse_time_zone("UTC"))
    published = daily_performance(FolderStore(folder), _LAST, window=window, troop_names={}, troops_missing=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": published.seconds,
        "peak_bytes": peak,
        "series": published.rows,
        "timeslices": published.timeslices,
    }


def _alone(part: str, *arguments: object) -> dict[str, float]:
    """Run a part in a process of its own, so that it pays and keeps only its own memory."""
    command = [sys.executable, __file__, part, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout or "{}")
    return found


def _main() -> int:
    if len(sys.argv) > 1:
        part, folder, *sizes = sys.argv[1:]
        if part == "write":
            _write(folder, *map(int, sizes))
        else:
            json.dump({"read": _read, "statistics": _statistics}[part](folder), sys.stdout)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        print(f"writing {_TROOPS} troops x {_DAYS} days …", flush=True)
        _alone("write", f"{folder}/many", _TROOPS, _DAYS, _ROWS)
        print("reading …", flush=True)
        read = _alone("read", f"{folder}/many")
        large: dict[int, dict[str, float]] = {}
        for troops in (1, 50):
            print(f"statistics of {_LARGE_ROWS:,} rows in {troops} files …", flush=True)
            _alone("write", f"{folder}/large{troops}", troops, 1, _LARGE_ROWS // troops)
            large[troops] = _alone("statistics", f"{folder}/large{troops}")
    faster = read["whole_seconds"] / read["part_seconds"]
    memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / _GIGABYTE:.0f} GB"
    machine = f"{os.cpu_count()} cores, {memory}, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        "# Reading for analysis, and the statistics of a large day",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}; `python -m benchmarks.analytics`",
        "",
        f"One troop's month of {_TROOPS} troops × {_DAYS} days ({read['all_rows']:,.0f} rows) on a folder, as Arrow:",
        "",
        "| figure | measured | wanted |",
        "|---|---|---|",
        f"| files opened, of {_TROOPS * _DAYS:,} | {read['opened']:.0f}, all of this troop and month | 31 |",
        f"| `read(table, days, troop)`, {read['rows']:,.0f} rows | {read['part_seconds'] * 1e3:.0f} ms | |",
        f"| reading all and filtering, same rows | {read['whole_seconds']:.2f} s | |",
        f"| times faster | {faster:.0f} | 20 |",
        "",
        f"`daily_performance` of {_LARGE_ROWS:,} rows, exact percentiles; memory is the whole process's peak:",
        "",
        "| figure | measured | wanted |",
        "|---|---|---|",
    ]
    for troops, figures in large.items():
        text = "1 file" if troops == 1 else f"{troops} files"
        lines.append(f"| {text}: peak memory | {figures['peak_bytes'] / 1e6:.0f} MB | 1,000 MB |")
        lines.append(
            f"| {text}: time, {figures['timeslices']:,.0f} rows to {figures['series']:,.0f} series "
            f"| {figures['seconds']:.1f} s | |"
        )
    _RESULT.parent.mkdir(exist_ok=True)
    _RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    kept = faster >= 20 and all(figures["peak_bytes"] < _GIGABYTE for figures in large.values())
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(_main())
