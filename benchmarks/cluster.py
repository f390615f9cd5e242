"""A day on two of Celery's workers: is the rate of one account used, over both and with the gaps between runs?

    python -m benchmarks.cluster

Dagster's daemon and two workers with folders of their own run ``deploy/cluster`` with PostgreSQL, S3 and Redis, on one
machine. A run of the roster is launched, and sensors bring the rest of the day: 300 troops, which makes two runs, about
2,000 calls at 20 a second. Every figure is the vendor's own. Wanted: no 429; at least 97 % of the permitted rate used
from the first call to the last; every row equal to the seeded truth; no leaf asked for twice.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from vendor_assets.orchestration.runs.about import HARVEST_JOB, ROSTER_JOB
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.cluster import celery_cluster
from vendor_assets_tests.support.postgres import running_postgres
from vendor_assets_tests.support.s3 import running_s3, without_aws_environment
from vendor_assets_tests.support.simulator import KEY, simulator
from vendor_assets_tests.support.truth import harvested_rows, key_of, true_rows

RATE = 20
WANTED = 0.97
TROOPS, WARRIORS = 300, 850
PATIENCE_SECONDS = 900
RESULTS = Path(__file__).parent / "results" / "cluster.md"


def main() -> int:
    """Measure once, print, and keep the figures; 0 if all that is wanted was reached."""
    day = datetime.now(UTC).date() - timedelta(days=2)
    settings = {"VENDOR_API_KEY": KEY, "VENDOR_RATE": f"{RATE}/s", "VENDOR_SHARE": "1"}
    load = os.getloadavg()[0]
    with (
        without_aws_environment(),
        tempfile.TemporaryDirectory() as folder,
        simulator(troops=TROOPS, warriors=WARRIORS, data_groups=1, limit=f"{RATE}/s", churn=False) as vendor,
        running_postgres() as postgres,
        running_s3() as s3,
        celery_cluster(Path(folder) / "project", settings, vendor, postgres, s3) as (cluster, bucket),
    ):
        troops = [key_of(troop) for troop in vendor.world.troops_on(day, "UTC")]
        cluster.dev.launch(ROSTER_JOB, {}, {"dagster/partition": day.isoformat()})
        cluster.dev.wait_for(
            "performance_data", {f"{day}|{troop}": "green" for troop in troops}, seconds=PATIENCE_SECONDS
        )
        runs = [run for run in cluster.dev.runs() if run["jobName"] == HARVEST_JOB]
        hosts = {cluster.host_of(run["id"]) for run in runs}
        log = vendor.log(arrivals=True)
        arrivals = [at for at, *_ in log["arrivals"]]
        wrong = harvested_rows(S3Store(s3.client(), bucket, "lake"), day) != true_rows(vendor.world, day)
    used = len(arrivals) / (1 + RATE * (arrivals[-1] - arrivals[0]))
    gaps = sorted((later - earlier for earlier, later in pairwise(arrivals)), reverse=True)
    going = len(arrivals) / (1 + RATE * (arrivals[-1] - arrivals[0] - gaps[0]))
    twice = log["repeated_leaves"]["total"]
    reached = used >= WANTED and not log["violations"] and not wrong and not twice
    where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        "# A day on two workers",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {where}; `python -m benchmarks.cluster`; load average {load:.1f} at the start.",
        "",
        "| what | figure | wanted |",
        "|---|---:|---:|",
        f"| calls | {len(arrivals):,} | |",
        f"| runs of the chain, on so many workers | {len(runs)} on {len(hosts)} | on 2 |",
        f"| 429s | {log['violations']} | 0 |",
        f"| permitted rate used, from the first call to the last | {used:.1%} | {WANTED:.0%} |",
        f"| the same without the longest time between two calls, from the roster to the runs | {going:.1%} | |",
        f"| longest times without a call, s | {', '.join(f'{gap:.1f}' for gap in gaps[:3])} | |",
        f"| leaves asked for twice | {twice} | 0 |",
        f"| rows as in the truth | {'no' if wrong else 'yes'} | yes |",
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
