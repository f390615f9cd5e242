"""A year's backfill under Dagster's daemon, of which some days are really run: does it flow?

    python -m benchmarks.backfill [days]

``vendor-assets dev`` with its SQLite and a folder; ``vendor-assets backfill`` queues a year of 500 troops at a vendor
without latency and without a limit, and it is stopped once ten days are harvested and published. Rosters, harvests and
publications come from the backfill and the sensors alone. Calls and leaves are those of the vendor's log. Wanted: no
leaf asked for twice; every row of the days equal to the seeded truth; no tick and no run failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from benchmarks.process import measured_by
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.dagster_dev import DagsterDev, dagster_dev, project
from vendor_assets_tests.support.simulator import KEY, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

YEAR, DAYS = 365, 10
TROOPS, WARRIORS = 500, 1000
PATIENCE_SECONDS = 1800
RESULTS = Path(__file__).parent / "results" / "backfill.md"

_TICKS = """
{ sensorsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "vendor_assets"}) {
  ... on Sensors { results { name sensorState { ticks(limit: 2000) { status timestamp endTimestamp } } } }
} }
"""


def _published(store: FolderStore) -> list[date]:
    keys = (info.key for info in store.list(layout.table_prefix("daily_performance")))
    return sorted(date.fromisoformat(key.split("day=")[1].split("/")[0]) for key in keys)


def _ticks(dev: DagsterDev) -> tuple[int, int, float]:
    """Of all sensors: how many ticks there were and failed, and how long the longest took, in seconds."""
    ticks = [
        tick
        for sensor in dev.graphql(_TICKS)["sensorsOrError"].get("results", ())
        for tick in sensor["sensorState"]["ticks"]
    ]
    took = [tick["endTimestamp"] - tick["timestamp"] for tick in ticks if tick["endTimestamp"]]
    return len(ticks), sum(tick["status"] == "FAILURE" for tick in ticks), max(took, default=0.0)


def main(wanted: int) -> int:
    """Measure once, print, and keep the figures; 0 if all that is wanted was reached."""
    last = datetime.now(UTC).date() - timedelta(days=2)
    first = last - timedelta(days=YEAR - 1)
    load = os.getloadavg()[0]
    vendor_flags = {"troops": TROOPS, "warriors": WARRIORS, "data_groups": 1, "latency": 0, "churn": False}
    with tempfile.TemporaryDirectory() as folder, simulator(**vendor_flags) as vendor:
        root = Path(folder) / "project"
        settings = {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_RATE": "5000/s",
            "VENDOR_SHARE": "1",
            "VENDOR_ASSETS_START": first.isoformat(),
            "VENDOR_ASSETS_STORE": str(root / "data"),
            "VENDOR_ASSETS_RESOLUTION": "3600",
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }
        environ = project(root, settings)
        store = FolderStore(root / "data")
        with dagster_dev(root, environ) as dev:
            began = time.monotonic()
            command = [sys.executable, "-m", "vendor_assets", "backfill"]
            subprocess.run(
                [*command, "--day", f"{first}..{last}", "--url", dev.url], env=environ, cwd=root, check=True
            )
            ended = began + PATIENCE_SECONDS
            while len(days := _published(store)) < wanted and time.monotonic() < ended:
                time.sleep(2)
            took = time.monotonic() - began
            statuses = Counter(run["status"] for run in dev.runs())
            ticks, failed_ticks, longest = _ticks(dev)
        log = vendor.log()
        wrong = [
            day
            for day in days
            if harvested_rows(store, day) != true_rows(vendor.world, day, resolution_seconds=3600)
        ]
    twice = log["repeated_leaves"]["total"]
    reached = len(days) >= wanted and not (
        wrong or twice or failed_ticks or statuses["FAILURE"] or log["violations"]
    )
    told = f"{ticks:,}, {failed_ticks}, {longest:.1f}"
    lines = [
        f"# {wanted} days of a year's backfill",
        "",
        f"{measured_by(f'backfill {wanted}')}; load average {load:.1f}.",
        "",
        "| what | figure | wanted |",
        "|---|---:|---:|",
        f"| days queued, troops | {YEAR}, {TROOPS} | |",
        f"| days published | {len(days)} | {wanted} |",
        f"| from the command to these, s | {took:.0f} | |",
        f"| calls | {log['requests']:,} | |",
        f"| 429s | {log['violations']} | 0 |",
        f"| leaves asked for twice | {twice} | 0 |",
        f"| days with rows other than the truth | {len(wrong)} | 0 |",
        f"| runs by status | {', '.join(f'{count} {name.lower()}' for name, count in statuses.most_common())} | |",
        f"| runs that failed | {statuses['FAILURE']} | 0 |",
        f"| ticks, failed, the longest with the queueing of its runs, s | {told} | none failed |",
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else DAYS))
