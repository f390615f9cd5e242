"""A day on two of Celery's workers: is the rate of one account used, over both and with the gaps between runs?

    python -m benchmarks.cluster

Dagster's daemon and two workers with folders of their own run ``deploy/cluster`` with PostgreSQL, S3 and Redis, on one
machine. A day's run is launched as the schedule does it, and sensors bring the rest: 300 troops, which makes two runs,
about 2,000 calls. Vendors keep a bucket, of which we are told or not, or a window that slides; by the second such a
window leaves no room for what delays a call on a busy machine, and 95 % are our share. Every figure is the vendor's
own. Wanted: no 429; at least 97 % of our share used from the first call to the last; every row equal to the seeded
truth; no leaf asked for twice.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.process import measured_by
from vendor_assets.budget import Limit
from vendor_assets.orchestration.runs.about import DAY_TAG, GOES_ON_TAG, HARVEST_JOB, ROSTER_JOB
from vendor_assets.storage.s3 import S3Store
from vendor_assets.work_class import SCHEDULED, queue_tags
from vendor_assets_tests.support.cluster import celery_cluster
from vendor_assets_tests.support.postgres import running_postgres
from vendor_assets_tests.support.s3 import running_s3, without_aws_environment
from vendor_assets_tests.support.simulator import KEY, simulator
from vendor_assets_tests.support.truth import harvested_rows, key_of, true_rows

_BUCKET = {"limit": "20/s", "limit_kind": "bucket", "burst": 20}
CASES: Sequence[tuple[str, float, Mapping[str, Any]]] = (
    ("20/s", 1.0, _BUCKET),
    ("20/s burst 20", 1.0, _BUCKET),
    ("20/s", 0.95, {"limit": "20/s", "limit_kind": "sliding"}),
    ("1000/min", 1.0, {"limit": "1000/min", "limit_kind": "sliding"}),
)
"""``VENDOR_RATE`` and ``VENDOR_SHARE``, and what the vendor really does."""
WANTED = 0.97
TROOPS, WARRIORS = 300, 850
PATIENCE_SECONDS = 900
RESULTS = Path(__file__).parent / "results" / "cluster.md"


def main() -> int:
    """Measure once, print, and keep the figures; 0 if all that is wanted was reached."""
    load = os.getloadavg()[0]
    found = [_measure(rate, share, flags) for rate, share, flags in CASES]
    names = [f"{rate}, share {share:g}, {flags['limit_kind']}" for rate, share, flags in CASES]
    lines = [
        "# A day on two workers",
        "",
        f"{measured_by('cluster')}; load average {load:.1f} at the start.",
        "",
        f"| what | wanted | {' | '.join(names)} |",
        f"|---|---:|{'---:|' * len(CASES)}",
        *(
            f"| {what} | {wanted} | {' | '.join(figures[what] for figures, _ in found)} |"
            for what, wanted in WANTED_OF.items()
        ),
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))
    return 0 if all(reached for _, reached in found) else 1


CALLS, RUNS, REFUSED = "calls", "runs, on so many workers", "429s"
USED, GAPS = "our share used, from the first call to the last", "longest times without a call, s"
TWICE, ROWS = "leaves asked for twice", "rows as in the truth"
WANTED_OF = {CALLS: "", RUNS: "on 2", REFUSED: "0", USED: f"{WANTED:.0%}", GAPS: "", TWICE: "0", ROWS: "yes"}


def _measure(limit: str, share: float, flags: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """Harvest a day; returns figures, and whether what is wanted was reached."""
    day = datetime.now(UTC).date() - timedelta(days=2)
    settings = {"VENDOR_API_KEY": KEY, "VENDOR_RATE": limit, "VENDOR_SHARE": str(share)}
    with (
        without_aws_environment(),
        tempfile.TemporaryDirectory() as folder,
        simulator(troops=TROOPS, warriors=WARRIORS, data_groups=1, churn=False, **flags) as vendor,
        running_postgres() as postgres,
        running_s3() as s3,
        celery_cluster(Path(folder) / "project", settings, vendor, postgres, s3) as (cluster, bucket),
    ):
        troops = [key_of(troop) for troop in vendor.world.troops_on(day, "UTC")]
        tags = queue_tags(SCHEDULED) | {DAY_TAG: day.isoformat(), GOES_ON_TAG: "true"}
        cluster.dev.launch(ROSTER_JOB, {}, {"dagster/partition": day.isoformat(), **tags})
        cluster.dev.wait_for(
            "performance_data", {f"{day}|{troop}": "green" for troop in troops}, seconds=PATIENCE_SECONDS
        )
        runs = [run for run in cluster.dev.runs() if run["jobName"] in (ROSTER_JOB, HARVEST_JOB)]
        hosts = {cluster.host_of(run["id"]) for run in runs}
        log = vendor.log(arrivals=True)
        wrong = harvested_rows(S3Store(s3.client(), bucket, "lake"), day) != true_rows(vendor.world, day)
    arrivals = [at for at, *_ in log["arrivals"]]
    # The first call, then as many as our share permits until the last; what a bucket holds at the start is not used.
    used = len(arrivals) / (1 + share * Limit.parse(limit).rate * (arrivals[-1] - arrivals[0]))
    gaps = sorted((later - earlier for earlier, later in pairwise(arrivals)), reverse=True)
    twice = log["repeated_leaves"]["total"]
    figures = {
        CALLS: f"{len(arrivals):,}",
        RUNS: f"{len(runs)} on {len(hosts)}",
        REFUSED: str(log["violations"]),
        USED: f"{used:.1%}",
        GAPS: ", ".join(f"{gap:.1f}" for gap in gaps[:3]),
        TWICE: str(twice),
        ROWS: "no" if wrong else "yes",
    }
    print(f"{limit}: {figures}", flush=True)
    return figures, used >= WANTED and not (log["violations"] or wrong or twice) and len(hosts) == 2


if __name__ == "__main__":
    sys.exit(main())
