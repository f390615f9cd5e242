"""NerdGraph beside REST v2: how many calls a day takes, and how much of the limit of queries is used.

    python -m benchmarks.nerdgraph

A day of 100 applications with 10 instances and 40 metrics each at half an hour, harvested both ways from the embedded
vendor; then two processes that ask documents of five queries for two minutes at the documented 3,000 queries a minute,
share 1. Every figure is the vendor's own. Wanted: at most a tenth of the calls; every row equal to REST's rounding;
nothing refused; at least 97 % of the limit used; never more than 25 requests at once.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.process import measured_by
from vendor_assets.budget import Budget, Limit
from vendor_assets.client import VendorClient
from vendor_assets.errors import StoppedError
from vendor_assets.vendors.base import Request
from vendor_assets.vendors.nerdgraph import NerdGraph
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, simulator

DAY = datetime.now(UTC).date() - timedelta(days=1)
TROOPS, WARRIORS, METRICS = 100, 1000, 40
LIMIT = 3000
SECONDS = 125.0
RESULTS = Path(__file__).parent / "results" / "nerdgraph.md"


def both_ways() -> dict[str, Any]:
    """Harvest the day by each dialect."""
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(troops=TROOPS, warriors=WARRIORS, data_groups=METRICS, churn=False) as vendor,
    ):
        own = {
            "new_relic": {"VENDOR_RATE": "500/s"},
            "nerdgraph": {"VENDOR_ACCOUNT": "1234567"},
        }
        for kind, more in own.items():
            settings = {
                "VENDOR_KIND": kind,
                "VENDOR_URL": vendor.url,
                "VENDOR_API_KEY": KEY,
                "VENDOR_SHARE": "1",
            }
            command = Command(Path(folder) / kind, settings | more)
            started = time.monotonic()
            process = command.start("harvest", "--no-report", "--day", DAY.isoformat(), "--json")
            out, err = process.communicate(timeout=3600)
            if process.returncode:
                print(out, err, file=sys.stderr)
            log = vendor.log()
            found[kind] = {
                "calls": log["requests"],
                "refused": log["violations"],
                "seconds": time.monotonic() - started,
                "at_once": log["graphql"]["peak_in_flight"],
            }
            vendor.reset()
        found["rows"], found["differing"] = _compared(Path(folder))
    return found


def _compared(folder: Path) -> tuple[int, int]:
    """Rows of REST v2, and how many of either are not among the other's to REST's rounding, two or three decimals."""
    table = "read_parquet('{}/{}/data/processed/performance_data/**/*.parquet', hive_partitioning=false)"
    rest, graph = (table.format(folder, kind) for kind in ("new_relic", "nerdgraph"))
    key = "troop_id, warrior_id, data_group, value_name, timeslice_start, timeslice_end"
    found = duckdb.sql(f"""
        SELECT count(a.troop_id), count(*) FILTER (
            a.troop_id IS NULL OR b.troop_id IS NULL OR (a.value IS NULL) <> (b.value IS NULL)
            OR least(abs(round(b.value, 2) - a.value), abs(round(b.value, 3) - a.value)) > 1e-6 * abs(a.value) + 1e-9
        ) FROM {rest} a FULL JOIN {graph} b USING ({key})
    """).fetchall()[0]
    return int(found[0]), int(found[1])


def _ask(url: str, database: str, number: int) -> None:
    """Documents of five queries, each of its own, by as many threads as a process may use, for a while."""
    vendor = NerdGraph("1234567")
    budget = Budget(
        database, "limit", limits=[Limit.parse(f"{LIMIT} queries/min")], share=1.0, max_in_flight=25
    )
    stop = threading.Event()
    client = VendorClient(
        base_url=url, api_key=KEY, vendor=vendor, budget=budget, max_in_flight=25, stop=stop
    )
    text = "query({}){{actor{{account(id:1234567){{{}}}}}}}".format(
        ",".join(f"$q{n}:Nrql!" for n in range(5)),
        " ".join(f"q{n}:nrql(query:$q{n}){{results}}" for n in range(5)),
    )

    def work(thread: int) -> None:
        turn = 0
        while not stop.is_set():
            names = {
                f"q{n}": f"SELECT count(newrelic.timeslice.value) AS calls FROM Metric "
                f"WHERE appId = '{number}{thread}{turn}{n}' AND newrelic.timeslice.value IS NOT NULL "
                "FACET realAgentId, host LIMIT MAX SINCE 1795258800000 UNTIL 1795262400000"
                for n in range(5)
            }
            request = Request.json("/graphql", {"query": text, "variables": names}, "five")
            try:
                client.fetch(request)
            except StoppedError:
                return
            turn += 1

    vendor.counts = lambda _: {"queries": 5}  # type: ignore[method-assign]
    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    client.close()
    budget.close()


def at_the_limit() -> dict[str, Any]:
    """Two processes at the documented limit."""
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(world="small", churn=False, queries_per_minute=LIMIT) as vendor,
    ):
        processes = [
            multiprocessing.get_context("spawn").Process(
                target=_ask, args=(vendor.url, f"sqlite:///{folder}/budget.db", number)
            )
            for number in (1, 2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found: dict[str, Any] = vendor.log()["graphql"]
        return found


def main() -> int:
    """Measure once, print, and keep the figures; 0 if all that is wanted was reached."""
    ways, limit = both_ways(), at_the_limit()
    rest, graph = ways["new_relic"], ways["nerdgraph"]
    used = limit["worst_minute_of_queries"] / LIMIT
    refused = rest["refused"] + graph["refused"] + limit["queries_refused"]
    at_once = max(graph["at_once"], limit["peak_in_flight"])
    lines = [
        "# NerdGraph beside REST v2",
        "",
        measured_by("nerdgraph"),
        "",
        f"A day of {TROOPS} applications, {WARRIORS} instances, {METRICS} metrics each, at half an hour.",
        "",
        "| figure, as the vendor counted it | `new_relic` | `nerdgraph` | wanted |",
        "|---|---|---|---|",
        f"| calls | {rest['calls']} | {graph['calls']} | a tenth |",
        f"| seconds, most of them the embedded vendor's | {rest['seconds']:.0f} | {graph['seconds']:.0f} | |",
        f"| rows | {ways['rows']} | {ways['differing']} differ | 0 differ |",
        "",
        f"Two processes, documents of five queries, {LIMIT} queries a minute, share 1:",
        "",
        "| figure, as the vendor counted it | measured | wanted |",
        "|---|---|---|",
        f"| queries in the fullest minute | {limit['worst_minute_of_queries']} ({used:.1%}) | 97 % of {LIMIT} |",
        f"| refused, in all | {refused} | 0 |",
        f"| most requests at once | {at_once} | 25 |",
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines))
    reached = graph["calls"] * 10 <= rest["calls"] and not ways["differing"] and not refused
    return 0 if reached and used >= 0.97 and at_once <= 25 else 1


if __name__ == "__main__":
    sys.exit(main())
