"""What it takes to start: the command's help, a harvest of four calls, and the same again with nothing to do.

    python -m benchmarks.start [rounds]

Beside the harvest stands an empty run of Dagster: one asset without a body, in a process of its own, on an instance of
its own. Both instances exist already, as they do from the second day on. What is measured takes turns; figures are
medians. Wanted: help in 0.3 s of wall; a harvest of four calls for at most 1.3 times the CPU of the empty run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from benchmarks.process import Took, measured_by, run
from vendor_assets_tests.support.simulator import KEY, simulator

ROUNDS = 5
HELP_SECONDS = 0.3
TIMES = 1.3
RESULTS = Path(__file__).parent / "results" / "start.md"

HELP = "`vendor-assets --help`"
EMPTY = "an empty run of Dagster"
FOUR = "`harvest` of four calls"
AGAIN = "the same day again"
REPORT = "the day again, with its report"
AGAIN_WITH_REPORT = "once more, with its report"

_EMPTY_RUN = """
import sys
import dagster as dg

@dg.asset
def nothing(): ...

with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    assert dg.materialize([nothing], instance=instance).success
"""


def main(rounds: int) -> int:
    """Measure, print and keep the figures; 0 if all that is wanted was reached."""
    newest = datetime.now(UTC).date() - timedelta(days=1)
    found: dict[str, list[Took]] = defaultdict(list)
    load = os.getloadavg()
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(world="small", troops=1, warriors=1, data_groups=1, churn=False) as vendor,
    ):
        settings = {
            "HOME": folder,
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_ASSETS_SETTLING": "0",
        }
        Path(folder, "empty").mkdir()
        for number in range(rounds + 1):
            harvest = [
                "-m",
                "vendor_assets",
                "harvest",
                "--day",
                (newest - timedelta(days=number)).isoformat(),
            ]
            for what, arguments in (
                (HELP, ["-m", "vendor_assets", "--help"]),
                (EMPTY, ["-c", _EMPTY_RUN, f"{folder}/empty"]),
                (FOUR, [*harvest, "--no-report"]),
                (AGAIN, [*harvest, "--no-report"]),
                (REPORT, harvest),
                (AGAIN_WITH_REPORT, harvest),
            ):
                took = run(arguments, folder, settings).well()
                if number:
                    found[what].append(took)
        calls = len(vendor.log(arrivals=True)["arrivals"]) / (rounds + 1)
    walls = {what: median(took.seconds for took in runs) for what, runs in found.items()}
    cpus = {what: median(took.cpu_seconds for took in runs) for what, runs in found.items()}
    times = cpus[FOUR] / cpus[EMPTY]
    loads = ", ".join(f"{each:.1f}" for each in load)
    lines = [
        "# Start",
        "",
        f"{measured_by(f'start {rounds}')}; load average {loads} at the start.",
        "",
        f"Medians of {rounds} days; {calls:g} calls a day by the vendor's log.",
        "",
        "| what | wall, s | CPU s |",
        "|---|---:|---:|",
        *(f"| {what} | {walls[what]:.2f} | {cpus[what]:.2f} |" for what in found),
        "",
        f"Help takes {walls[HELP]:.2f} s (wanted: {HELP_SECONDS}).",
        f"A harvest of four calls takes {times:.2f} times the CPU of an empty run (wanted: {TIMES}).",
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))
    return 0 if walls[HELP] <= HELP_SECONDS and times <= TIMES else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS))
