"""Two harvests at once under one limit: is the permitted rate used, and the vendor unharmed?

    python -m benchmarks.harvest

Two ``vendor-assets harvest`` processes for two days against the embedded vendor, 20 calls a second, share 1.
Every figure is the vendor's own. Wanted: no 429; at least 95 % of the permitted rate used; every row equal to the
seeded truth; no leaf asked for twice.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.process import measured_by
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

RATE = 20
RESULTS = Path(__file__).parent / "results" / "harvest.md"


def main() -> int:
    """Measure once, print, and keep the figures; 0 if all that is wanted was reached."""
    newest = datetime.now(UTC).date() - timedelta(days=1)
    days = [newest - timedelta(days=1), newest]
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(world="small", warriors=400, limit=f"{RATE}/s", churn=False) as vendor,
    ):
        settings = {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_RATE": f"{RATE}/s",
            "VENDOR_SHARE": "1",
        }
        command = Command(Path(folder), settings)
        processes = [command.start("harvest", "--day", day.isoformat(), "--json") for day in days]
        codes = []
        for process in processes:
            out, err = process.communicate()
            codes.append(process.returncode)
            if process.returncode:
                print(out, err, file=sys.stderr)
        log = vendor.log(arrivals=True)
        arrivals = [at for at, *_ in log["arrivals"]]
        store = FolderStore(Path(folder) / "data")
        wrong = sum(harvested_rows(store, day) != true_rows(vendor.world, day) for day in days)
    busy = arrivals[-1] - arrivals[0]
    used = len(arrivals) / (1 + RATE * busy)
    reached = codes == [0, 0] and not log["violations"] and used >= 0.95 and not wrong
    reached = reached and not log["repeated_leaves"]["total"]
    lines = [
        "# Two harvests at once under one limit",
        "",
        measured_by("harvest"),
        "",
        "| figure, as the vendor counted it | measured | wanted |",
        "|---|---|---|",
        f"| calls | {len(arrivals)} in {busy:.1f} s | |",
        f"| over the limit (429) | {log['violations']} | 0 |",
        f"| most calls in any second | {log['worst_second']} | {RATE + 1} |",
        f"| used of {RATE} a second (share 1) | {used:.1%} | 95 % |",
        f"| leaves asked for twice | {log['repeated_leaves']['total']} | 0 |",
        f"| days whose rows differ from the seeded truth | {wrong} | 0 |",
        "",
    ]
    print("\n".join(lines))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
