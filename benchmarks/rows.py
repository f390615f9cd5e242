"""What a row of a large day costs: 1,000 answers of some 10,000 rows each, harvested and rebuilt.

    python -m benchmarks.rows [warriors]

``vendor-assets harvest`` of one day of one troop against the embedded vendor without a limit, over HTTP, then its
tables rebuilt from what has landed; each a process of its own, of which the start is taken off: that of a harvest of
one warrior with one data group. Beside it stands the floor: what msgspec, numpy and pyarrow alone need to make a table
of the same landed answers, as :mod:`benchmarks.profile` does it, everything in memory. Rebuild and floor take turns,
and the median counts. All figures are CPU time. Wanted: at most 1.5 µs a row from the socket to the table; a rebuild
within twice the floor; at most 600 MB; the same rows each time.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import profile
from benchmarks.process import Took, command, measured_by, run
from vendor_assets.vendors.base import PlannedRequest, Response
from vendor_assets.vendors.frozen import decode_planned
from vendor_assets_tests.support.simulator import KEY, simulator

WARRIORS = 334
"""Of 60 data groups each, which take three calls."""
ROUNDS = 3
WANTED_MICROS, WANTED_TIMES, LIMIT_MB = 1.5, 2.0, 600
RESULT = Path(__file__).parent / "results" / "rows.md"

_ROWS = """
SELECT count(*), bit_xor(hash(troop_id, warrior_id, data_group, value_name, timeslice_start, value, weight))
FROM '{folder}/data/processed/performance_data/*/*/*.parquet'
"""


def day_of(
    folder: str, day: date, warriors: int, groups: int
) -> tuple[Took, list[Took], list[float], int, bool]:
    """Harvest a day, and rebuild it in turn with the floor.

    Returns:
        What the harvest and each rebuild took, CPU seconds of each floor, the rows, and whether all have the same.
    """
    world = {"world": "small", "troops": 1, "warriors": warriors, "data_groups": groups, "churn": False}
    with simulator(**world, limit="none") as vendor:
        settings = {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_RATE": "5000/s",
            "VENDOR_SHARE": "1",
            "VENDOR_ASSETS_RESOLUTION": "600",
            "VENDOR_ASSETS_SETTLING": "0",
        }
        arguments = ("harvest", "--day", day.isoformat(), "--no-report", "--json")
        harvest = command(folder, settings, *arguments).well()
        found = [_rows(folder)]
        rebuilds, floors = [], []
        for _ in range(ROUNDS if groups > 1 else 0):
            rebuilds.append(command(folder, settings, *arguments, "--rebuild").well())
            found.append(_rows(folder))
            alone = json.loads(run(["-m", "benchmarks.rows", "floor", folder], folder, {}).well().said)
            floors.append(alone["cpu_seconds"])
            found.append((alone["rows"], found[0][1]))
    return harvest, rebuilds, floors, found[0][0], len(set(found)) == 1


def _rows(folder: str) -> tuple[int, int]:
    """How many rows a store has, and a number that is the same for the same rows."""
    ((count, number),) = duckdb.sql(_ROWS.format(folder=folder)).fetchall()
    return count, number


def landed(folder: Path) -> Iterator[tuple[PlannedRequest, Response]]:
    """The answers in a store, read by pyarrow alone."""
    for chunk in sorted(folder.glob("data/raw_data/performance_data/**/chunk-*")):
        table = pq.ParquetFile(chunk).read(["planned", "planned_leaves", "body"], use_threads=False)
        for planned, leaves, body in zip(*table.columns, strict=True):
            response = Response(200, {}, body.as_py(), datetime.now(UTC))
            yield decode_planned(planned.as_py(), leaves.as_py()), response


def floor(folder: Path) -> None:
    """Make a table of what has landed, and print what it took."""
    pa.set_cpu_count(1)
    stages = profile.Stages()
    with stages.of("everything"):
        rows = profile.floor(landed(folder), profile.Stages())
    print(json.dumps({"rows": rows, "cpu_seconds": stages.seconds["everything"]}))


def main(warriors: int) -> int:
    """Measure, print, and keep the figures; 0 if all that is wanted was reached."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        start, *_ = day_of(small, day, 1, 1)
        harvest, rebuilds, floors, rows, same = day_of(large, day, warriors, 60)
    rebuild = median(each.cpu_seconds for each in rebuilds) - start.cpu_seconds
    micros = (harvest.cpu_seconds - start.cpu_seconds) / rows * 1e6
    times, mb = rebuild / median(floors), max(each.mb for each in (harvest, *rebuilds))
    lines = [
        "# What a row of a large day costs",
        "",
        measured_by("rows"),
        "",
        (
            f"One day of one troop of {warriors} warriors, three answers each, {rows:,} rows; the start, "
            f"{start.cpu_seconds:.1f} CPU-seconds, is taken off."
        ),
        "",
        "| | CPU, µs a row | wanted | MB | seconds |",
        "|---|---:|---:|---:|---:|",
        (
            f"| harvest, from the socket to the table | {micros:.2f} | {WANTED_MICROS} | {harvest.mb:.0f} "
            f"| {harvest.seconds:.0f} |"
        ),
    ]
    for each in rebuilds:
        taken = (each.cpu_seconds - start.cpu_seconds) / rows * 1e6
        lines.append(f"| rebuild | {taken:.2f} | | {each.mb:.0f} | {each.seconds:.0f} |")
    lines += [f"| msgspec, numpy and pyarrow alone | {each / rows * 1e6:.2f} | | | |" for each in floors]
    lines += [
        "",
        (
            f"A rebuild takes {times:.2f} times what these libraries alone take (wanted: {WANTED_TIMES:g}); "
            f"the rows are {'the same each time' if same else 'NOT THE SAME'}."
        ),
        "",
    ]
    text = "\n".join(lines)
    print(text)
    if warriors == WARRIORS:
        RESULT.write_text(text)
    return 0 if same and micros <= WANTED_MICROS and times <= WANTED_TIMES and mb <= LIMIT_MB else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["floor"]:
        floor(Path(sys.argv[2]))
    else:
        sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else WARRIORS))
