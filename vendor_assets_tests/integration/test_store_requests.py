"""What small troops cost the store: on a real S3 server, as it counts its requests itself."""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import closing
from typing import Any

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import read_metadata
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.toy import DAY, ToyClient, click, noon, toy_harvester, with_plain_keys

CALLS = 20
"""Calls a troop: a list of warriors, four of data groups, and fifteen for performance data."""


class Requests:
    """Requests by method and by what they are for, as boto3 sends them: what a failing test shows."""

    def __init__(self, client: Any) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        client.meta.events.register("before-send.s3", self._count)

    def _count(self, request: Any, **_: Any) -> None:
        address = request.url.replace("%2F", "/").replace("%3D", "=")
        kind = re.search(r"/lake/?(.*)", address) or re.search("prefix=lake/([^&]*)", address)
        words = re.sub(r"(day|troop)=[^/]*/|h-[0-9A-Z]{26}/|-\d{4}-\d+$", "", kind[1] if kind else address)
        with self._lock:
            self.counts[f"{request.method} {words}"] += 1

    def table(self, partitions: int) -> str:
        """The counts, and what that is for each of some partitions."""
        lines = [f"{count:5} {count / partitions:6.2f}  {name}" for name, count in self.counts.most_common()]
        total = self.counts.total()
        return "\n".join([*lines, f"{total:5} {total / partitions:6.2f}  in all"])


def harvest(store: S3Store, troops: int) -> ToyClient:
    """Harvest a day of some troops of twenty calls each in one run."""
    groups = [f"group{number}" for number in range(7)]
    hierarchy = {
        str(troop): {f"{troop}-{warrior}": groups[: 7 if warrior < 3 else 5] for warrior in range(4)}
        for troop in range(1, troops + 1)
    }
    client = ToyClient(hierarchy, noon)
    with closing(toy_harvester(store, client, threads=32, flush_seconds=2.0)) as harvester:
        assert next(iter(harvester.troops([DAY], click("run")))).state == "complete"
        outcomes = list(harvester.chain(CHAIN, [(DAY, troop) for troop in hierarchy], click("run")))
    assert {outcome.state for outcome in outcomes} == {"complete"}
    assert len(outcomes) == 3 * troops
    assert client.calls.total() == 1 + troops * CALLS
    return client


def test_small_troops_cost_few_requests(s3_server: RunningS3, clean_aws_environment: None) -> None:
    """Twenty troops of twenty calls: at most ten requests for each of their partitions, answers and tables included."""
    client = s3_server.client()
    store = S3Store(client, s3_server.make_bucket(), "lake")
    with_plain_keys(store)
    requests, before = Requests(client), s3_server.requests()
    harvest(store, 20)
    counted = (s3_server.requests() - before).total()
    assert 3 * 20 < counted <= 10 * 3 * 20, requests.table(3 * 20)
    keys = [layout.table_key("performance_data", DAY, str(troop)) for troop in range(1, 21)]
    assert {read_metadata(store, key)[1] for key in keys} == {26 * 24}


def test_a_troop_alone_costs_little_more(s3_server: RunningS3, clean_aws_environment: None) -> None:
    """What is looked at once a day and run is not shared then."""
    client = s3_server.client()
    store = S3Store(client, s3_server.make_bucket(), "lake")
    with_plain_keys(store)
    requests, before = Requests(client), s3_server.requests()
    harvest(store, 1)
    counted = (s3_server.requests() - before).total()
    assert 3 < counted <= 20 * 3, requests.table(3)
