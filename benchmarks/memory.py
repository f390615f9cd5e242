"""How much memory a harvest takes when a partition grows: the curve at 1,000, 10,000 and 100,000 responses.

    python -m benchmarks.memory [responses …]

``vendor-assets harvest`` of one day with one troop against the embedded vendor without a limit, over HTTP, all four
assets, with its tables rebuilt from what has landed in a second process. Each warrior is one response of about fifty
rows. Memory is the largest resident set of the whole process as the kernel counts it (``ru_maxrss``), native
allocations of Arrow and DuckDB included. Wanted: at most 600 MB at each size, and every row there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.process import command, measured_by
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_metadata
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

SIZES = (1_000, 10_000, 100_000)
LIMIT_MB = 600
RESULTS = Path(__file__).parent / "results"


def measure(responses: int) -> dict[str, Any]:
    """Harvest one partition of so many responses, then rebuild it; figures of both."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(
            world="small", troops=1, warriors=responses, data_groups=1, churn=False, limit="none"
        ) as vendor,
    ):
        settings = {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_RATE": "5000/s",
            "VENDOR_SHARE": "1",
            "VENDOR_ASSETS_RESOLUTION": "7200",
            "VENDOR_ASSETS_SETTLING": "0",
        }
        harvest = _run(folder, settings, "harvest", "--day", day.isoformat(), "--no-report", "--json")
        calls = vendor.calls()
        rows = _rows(FolderStore(Path(folder) / "data"), day)
        rebuild = _run(
            folder, settings, "harvest", "--day", day.isoformat(), "--no-report", "--json", "--rebuild"
        )
        return {
            "responses": _answered(vendor),
            "rows": rows,
            "calls": calls,
            "calls_of_rebuild": vendor.calls() - calls,
            "complete": rows == sum(1 for _ in vendor.world.expected_rows(day, 7200)),
            "harvest": harvest,
            "rebuild": rebuild,
        }


def _answered(vendor: RunningSimulator) -> int:
    return sum(vendor.log()["by_endpoint"]["data"].values())


def _rows(store: FolderStore, day: Any) -> int:
    troops = store.folders(layout.table_prefix("performance_data", day))
    return sum(
        read_metadata(store, layout.table_key("performance_data", day, name.removeprefix("troop=")))[1]
        for name in troops
    )


def _run(folder: str, settings: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Run the command; what it says is shown where it does not end well."""
    took = command(folder, settings, *arguments)
    if took.code:
        print(took.said, file=sys.stderr)
    return {
        "code": took.code,
        "mb": round(took.mb),
        "seconds": round(took.seconds, 1),
        "cpu_seconds": round(took.cpu_seconds, 1),
    }


def main(sizes: list[int]) -> int:
    """Measure, print, and keep the figures; 0 if all that is wanted was reached."""
    results = []
    for size in sizes:
        results.append(measure(size))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    reached = all(
        result["complete"]
        and not result["calls_of_rebuild"]
        and all(
            result[step]["mb"] <= LIMIT_MB and result[step]["code"] == 0 for step in ("harvest", "rebuild")
        )
        for result in results
    )
    about = measured_by("memory")
    lines = [
        "# Memory of a harvest as its partition grows",
        "",
        about,
        "",
        (
            f"Largest resident set of the whole process; wanted: at most {LIMIT_MB} MB at each size, "
            "every row there, no call for a rebuild."
        ),
        "",
        "| responses | rows | calls | harvest, MB | of wanted | seconds | rebuild, MB | seconds | calls | every row |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for result in results:
        harvest, rebuild = result["harvest"], result["rebuild"]
        lines.append(
            f"| {result['responses']:,} | {result['rows']:,} | {result['calls']:,} | {harvest['mb']} "
            f"| {harvest['mb'] / LIMIT_MB:.0%} | {harvest['seconds']} | {rebuild['mb']} | {rebuild['seconds']} "
            f"| {result['calls_of_rebuild']} | {'yes' if result['complete'] else 'NO'} |"
        )
    lines.append("")
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    if sizes == list(SIZES):
        (RESULTS / "memory.md").write_text("\n".join(lines))
        document = {"about": about, "limit_mb": LIMIT_MB, "results": results}
        (RESULTS / "memory.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main([int(text) for text in sys.argv[1:]] or list(SIZES)))
