"""What very many small troops cost.

    python -m benchmarks.scale [troops] [plan] [sync] [sensors] [--troops N] [--days N] [--results FOLDER]

``troops``: ``vendor-assets harvest`` of a day on a real S3 server (SeaweedFS), against the embedded vendor over HTTP,
without a limit. From three such runs, of few and of many troops and of few and of many calls, follows what one
partition (a troop's day of one asset) costs and what a call does: CPU time is that of the whole process, Dagster's
events and a budget on SQLite included, and requests are those that the S3 server counted. Wanted: at most ten requests
and 100 ms of CPU a partition on top of its calls.

``plan`` and ``sync``: the commands, for a store in a folder that holds 30 days of 500 troops as harvests leave them,
written directly (``fabricated.py``); ``plan`` is asked for a year that ends with them, ``sync`` fills a new instance on
SQLite and one on PostgreSQL. Wanted: 10 s of CPU; 5 minutes and 1 GB.

``sensors``: a tick of each sensor, and the loading of the code location, beside a history of ``--troops`` and
``--days`` (``sensors.py``), on SQLite and on PostgreSQL. Wanted: 2 s of CPU and 10 s of wall; 1.5 times the
load of 50 troops.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fabricated, sensors
from benchmarks.process import Took, command, measured_by
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.s3 import RunningS3, running_s3, without_aws_environment
from vendor_assets_tests.support.simulator import KEY, simulator

RESULTS = Path(__file__).parent / "results"
TROOPS = ((50, 200), (200, 800), (50, 800))
"""Troops and warriors of the three runs."""

Row = tuple[str, str, str]


def troops() -> Iterable[Row]:
    """What a troop's partition costs the store and the processor."""
    runs = []
    with without_aws_environment(), running_s3() as s3:
        for count, warriors in TROOPS:
            runs.append(_harvest(s3, count, warriors))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    costs = np.array([[1, run["partitions"], run["calls"]] for run in runs], dtype=float)
    for what, unit, wanted in (("cpu_ms", "ms of CPU", 100), ("requests", "requests to S3", 10)):
        _, partition, call = np.linalg.solve(costs, [run[what] for run in runs])
        yield f"a partition, {unit}, on top of its calls", f"{partition:.1f}", f"{wanted}"
        yield f"a call, {unit}", f"{call:.2f}", ""
    for run in runs:
        of_run = f"{run['partitions'] // 3} troops, {run['calls']} calls"
        yield f"a run of {of_run}: seconds", f"{run['seconds']:.0f}", ""
        yield (
            f"requests to S3 a partition, its calls included: {of_run}",
            f"{run['requests'] / run['partitions']:.1f}",
            "",
        )


def _harvest(s3: RunningS3, count: int, warriors: int) -> dict[str, Any]:
    day = datetime.now(UTC).date() - timedelta(days=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(
            world="small", troops=count, warriors=warriors, data_groups=2, churn=False, limit="none"
        ) as vendor,
    ):
        settings = {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_RATE": "5000/s",
            "VENDOR_SHARE": "1",
            "VENDOR_ASSETS_STORE": f"s3://{s3.make_bucket()}/lake",
            "VENDOR_ASSETS_DB": "sqlite:///budget.db",
            "AWS_EC2_METADATA_DISABLED": "true",
            **s3.environment,
        }
        before = s3.requests()
        took = command(folder, settings, "harvest", "--day", day.isoformat(), "--no-report", "--json").well()
        return {
            "partitions": 3 * count,
            "calls": vendor.calls(),
            "requests": (s3.requests() - before).total(),
            "cpu_ms": 1000 * took.cpu_seconds,
            "seconds": took.seconds,
        }


def plan() -> Iterable[Row]:
    """What it takes to plan a year of 500 troops."""
    with _fabricated() as (folder, settings, last):
        took = command(folder, settings, "plan", "--day", f"{last - timedelta(days=364)}..{last}").well()
    yield from _taken(took, cpu_seconds="10", mb="")


def sync() -> Iterable[Row]:
    """What it takes to tell an instance of 30 days of 500 troops."""
    for storage in sensors.STORAGES:
        with _fabricated() as (folder, settings, _), ExitStack() as stack:
            if storage == "postgresql":
                sensors.write_instance(Path(folder), stack.enter_context(sensors.dagster_url()))
            took = command(folder, settings, "sync").well()
        for what, *rest in _taken(took, seconds="300", cpu_seconds="", mb="1000"):
            yield f"{storage}: {what}", *rest


def _taken(took: Took, **wanted: str) -> Iterable[Row]:
    for name, at_most in wanted.items():
        yield name.replace("_", " "), f"{getattr(took, name):.1f}", at_most


@contextmanager
def _fabricated() -> Iterator[tuple[str, dict[str, str], date]]:
    """A folder with a store of 30 days of 500 troops, settings for it, and the last of its days."""
    last = datetime.now(UTC).date() - timedelta(days=1)
    days = fabricated.days_until(last, 30)
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder) / "data")
        for day in days:
            fabricated.write_roster(store, day, 500)
        fabricated.write_troop_days(store, days, 500)
        settings = {
            "VENDOR_URL": "http://127.0.0.1:9",
            "VENDOR_API_KEY": KEY,
            "VENDOR_ASSETS_STORE": store.url,
            "VENDOR_ASSETS_START": (last - timedelta(days=364)).isoformat(),
        }
        yield folder, settings, last


PARTS: dict[str, Callable[[argparse.Namespace], Iterable[Row]]] = {
    "troops": lambda _: troops(),
    "plan": lambda _: plan(),
    "sync": lambda _: sync(),
    "sensors": lambda sizes: sensors.measure(sizes.troops, sizes.days),
}


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and keep the figures of each part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--troops", type=int, default=5000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.results.mkdir(exist_ok=True)
    for part in options.parts or PARTS:
        about = measured_by(f"scale {part}")
        if part == "sensors":
            about += f" ({options.troops} troops, {options.days} days; seconds of CPU / of wall)"
        lines = [
            f"# Scale: {part}",
            "",
            about,
            "",
            "| figure | measured | wanted at most |",
            "|---|---:|---:|",
        ]
        for what, measured, wanted in PARTS[part](options):
            lines.append(f"| {what} | {measured} | {wanted} |")
            print(lines[-1], file=sys.stderr, flush=True)
        lines.append("")
        print("\n".join(lines))
        (options.results / f"scale_{part}.md").write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
