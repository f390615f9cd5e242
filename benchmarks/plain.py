"""A day of many small calls beside a plain script: what does it cost that nothing is lost and all is told?

    python -m benchmarks.plain [warriors]

Without a limit, 14,950 warriors of 100 troops: 30,050 calls. The script makes the same calls with the same client and
budget, from 32 threads, and writes the same tables, sorted. It keeps no answers, checks none against its question,
resumes nothing, and runs without Dagster. Each is a process of its own; the script comes first and last. Wanted: at
most 30 % more wall; the same rows.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from benchmarks.process import measured_by, run
from vendor_assets.budget import Budget, Limit
from vendor_assets.client import VendorClient
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.harvest.tabulate import to_batch
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import write_table
from vendor_assets.tables import TABLES
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets_tests.support.simulator import KEY, simulator

TROOPS, WARRIORS = 100, 14_950
RATE = "5000/s"
RESOLUTION = 3600
WANTED = 1.3
RESULTS = Path(__file__).parent / "results" / "plain.md"

_ROWS = """
SELECT count(*), bit_xor(hash(troop_id, warrior_id, data_group, value_name, timeslice_start, value, weight))
FROM '{place}/data/processed/performance_data/*/*/*.parquet'
"""

Page = tuple[Parsed, datetime]


class Script:
    """The plain script."""

    def __init__(self, url: str, day: date, folder: Path) -> None:
        self._vendor = NewRelic()
        self._day, self._window = day, day_window(day, parse_time_zone("UTC"))
        self._store = FolderStore(folder / "data")
        self._budget = Budget(f"sqlite:///{folder}/budget.db", "plain", limits=[Limit.parse(RATE)], share=1.0)
        self._client = VendorClient(
            base_url=url,
            api_key=KEY,
            vendor=self._vendor,
            budget=self._budget,
            max_in_flight=32,
            stop=threading.Event(),
        )

    def run(self) -> None:
        """Fetch everything and write it."""
        with ThreadPoolExecutor(32) as pool:
            troops = [
                each
                for parsed, _ in self._pages("troops", self._vendor.troops(self._window))
                for each in _ids(parsed)
            ]
            for troop in troops:
                self._troop(pool, troop)
        self._client.close()
        self._budget.close()

    def _troop(self, pool: ThreadPoolExecutor, troop: str) -> None:
        warriors = [
            each
            for parsed, _ in self._pages("warriors", self._vendor.warriors(troop, self._window))
            for each in parsed.columns["warrior_id"]
        ]
        listed = list(pool.map(lambda warrior: self._groups(troop, warrior), warriors))
        self._write("data_groups", troop, [page for pages, _ in listed for page in pages])
        planned = self._vendor.performance_data_of(
            troop,
            {warrior: groups for warrior, (_, groups) in zip(warriors, listed, strict=True)},
            self._window,
            RESOLUTION,
        )
        answers = pool.map(lambda each: list(self._pages("performance_data", each)), planned)
        self._write("performance_data", troop, [page for pages in answers for page in pages])

    def _groups(self, troop: str, warrior: str) -> tuple[list[Page], list[DataGroup]]:
        planned = self._vendor.data_groups(troop, warrior, self._window)
        pages = list(self._pages("data_groups", planned))
        groups = [
            DataGroup(name, tuple(values))
            for parsed, _ in pages
            for name, values in zip(parsed.columns["data_group"], parsed.columns["value_names"], strict=True)
        ]
        return pages, groups

    def _pages(self, asset: Asset, planned: PlannedRequest) -> Iterator[Page]:
        request = planned.request
        while True:
            response = self._client.fetch(request).response
            parsed = self._vendor.parse(asset, planned, response)
            yield parsed, response.fetched_at
            if parsed.next is None:
                return
            request = parsed.next

    def _write(self, asset: Asset, troop: str, pages: Sequence[Page]) -> None:
        spec = TABLES[asset]
        batch = to_batch(spec, troop, [parsed for parsed, _ in pages], [at for _, at in pages])
        write_table(
            self._store,
            layout.table_key(asset, self._day, troop),
            pa.Table.from_batches([batch]).cast(spec.schema),
            spec,
        )


def _ids(parsed: Parsed) -> list[Any]:
    return list(parsed.columns["troop_id"])


def main(warriors: int) -> int:
    """Measure, print and keep the figures; 0 if what is wanted was reached."""
    day = datetime.now(UTC).date() - timedelta(days=2)
    load = os.getloadavg()[0]
    figures: list[tuple[str, float, float, int]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(troops=TROOPS, warriors=warriors, data_groups=1, latency=0.005, churn=False) as vendor,
    ):
        settings = {
            "HOME": folder,
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_RATE": RATE,
            "VENDOR_SHARE": "1",
            "VENDOR_ASSETS_RESOLUTION": str(RESOLUTION),
            "VENDOR_ASSETS_SETTLING": "0",
            "VENDOR_ASSETS_STORE": f"{folder}/ours/data",
            "DAGSTER_HOME": f"{folder}/ours",
        }
        Path(folder, "ours").mkdir()
        counted = 0
        for number, who in enumerate(("script", "ours", "script")):
            place = Path(folder, f"script-{number}")
            place.mkdir()
            arguments = ["-m", "benchmarks.plain", "--script", vendor.url, day.isoformat(), str(place)]
            if who == "ours":
                arguments = ["-m", "vendor_assets", "harvest", "--day", day.isoformat(), "--no-report"]
            took = run(arguments, folder, settings).well()
            calls = vendor.calls()
            figures.append((who, took.seconds, took.cpu_seconds, calls - counted))
            counted = calls
        places = (f"{folder}/script-0", f"{folder}/ours")
        rows = [duckdb.sql(_ROWS.format(place=place)).fetchall() for place in places]
    script = [figure for figure in figures if figure[0] == "script"]
    wall = figures[1][1] / (sum(figure[1] for figure in script) / 2)
    cpu = figures[1][2] / (sum(figure[2] for figure in script) / 2)
    same = "the same" if rows[0] == rows[1] else "NOT the same"
    lines = [
        "# A plain script",
        "",
        f"{measured_by(f'plain {warriors}')}; load average {load:.1f} at the start.",
        "",
        "| who | wall, s | CPU s | calls |",
        "|---|---:|---:|---:|",
        *(f"| {who} | {took:.1f} | {spent:.1f} | {calls:,} |" for who, took, spent, calls in figures),
        "",
        f"Ours takes {wall:.2f} times the script's wall (wanted: {WANTED}) and {cpu:.2f} times its CPU, with start-up.",
        f"The {rows[1][0][0]:,} rows are {same}.",
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))
    return 0 if wall <= WANTED and rows[0] == rows[1] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--script"]:
        Script(sys.argv[2], date.fromisoformat(sys.argv[3]), Path(sys.argv[4])).run()
    else:
        sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else WARRIORS))
