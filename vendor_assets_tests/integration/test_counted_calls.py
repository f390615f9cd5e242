"""What is told as sent is what the vendor counted, and after the first refusal it counts no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from vendor_assets.budget import Budget, Limit
from vendor_assets.client import Usage, VendorClient
from vendor_assets.days import last_complete_day, parse_time_zone
from vendor_assets.errors import StoppedError, VendorUnauthorizedError
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN, HarvestOptions, Outcome
from vendor_assets.storage.folder import FolderStore
from vendor_assets.vendors.base import Request
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets_tests.support.simulator import RunningSimulator, simulator
from vendor_assets_tests.support.toy import Alive
from vendor_assets_tests.support.truth import key_of

DAY = last_complete_day(datetime.now(UTC), parse_time_zone("UTC"))
LIST = Request("/v2/applications.json", (), "applications")


@pytest.fixture(scope="module")
def vendor() -> Iterator[RunningSimulator]:
    """One embedded vendor for all tests of this module."""
    with simulator(churn=False, warriors=6, data_groups=3) as running:
        yield running


@pytest.fixture
def fresh(vendor: RunningSimulator) -> RunningSimulator:
    """The vendor, without faults and with nothing counted."""
    vendor.reset()
    return vendor


@contextmanager
def client_of(
    vendor: RunningSimulator, folder: Path, rate: str, stop: threading.Event | None = None
) -> Iterator[VendorClient]:
    """A client behind the real budget."""
    limits = [Limit.parse(rate)]
    budget = Budget(f"sqlite:///{folder}/budget.db", "test", limits=limits, share=1.0, max_in_flight=32)
    client = VendorClient(
        base_url=vendor.url,
        api_key=vendor.key,
        vendor=NewRelic(),
        budget=budget,
        max_in_flight=32,
        attempt_timeout_seconds=0.5,
        max_attempts=2,
        jitter=lambda _: 0.0,
        stop=stop,
    )
    try:
        yield client
    finally:
        client.close()
        budget.close()


def fetched_at_once(
    client: VendorClient, count: int, then: Callable[[], None] = lambda: None
) -> tuple[list[Any], int]:
    """What came of as many fetches in threads, and their calls; ``then`` is done once they wait."""
    usages = [Usage() for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(client.fetch, LIST, usage=usage) for usage in usages]
        then()
    results = [each.exception() or each.result().response.status for each in asked]
    return results, sum(usage.calls for usage in usages)


def test_what_waits_for_an_slow_quota_is_not_sent_after_a_refusal(
    fresh: RunningSimulator, tmp_path: Path
) -> None:
    """Thirty-two wait for a slow quota, the first is refused: the others end, and the vendor has counted one call."""
    fresh.faults([{"kind": "401"}])
    with client_of(fresh, tmp_path, "2/min") as client:
        results, calls = fetched_at_once(client, 32)
        assert [type(result) for result in results] == [VendorUnauthorizedError] * 32
        assert calls == fresh.calls() == 1


def test_a_stop_ends_the_wait_for_an_slow_quota(fresh: RunningSimulator, tmp_path: Path) -> None:
    """Thirty-two wait for a quarter of an hour; a stop ends them all, and nothing more is sent."""
    stop = threading.Event()
    with client_of(fresh, tmp_path, "2/min", stop) as client:
        first = client.fetch(LIST)
        assert first.response.status == 200
        results, calls = fetched_at_once(client, 32, stop.set)
        assert {type(result) for result in results} == {StoppedError}
        assert first.usage.calls + calls == fresh.calls() == 1


@contextmanager
def harvester_of(vendor: RunningSimulator, folder: Path) -> Iterator[Harvester]:
    """A harvester with a client of its own."""
    stop = threading.Event()
    with client_of(vendor, folder, "2000/s", stop) as client:
        harvester = Harvester(
            store=FolderStore(folder / "store"),
            vendor=NewRelic(),
            client=client,
            liveness=Alive(),
            zone=ZoneInfo("UTC"),
            settling_seconds=0,
            threads=8,
            flush_seconds=0.0,
            stop=stop,
        )
        try:
            yield harvester
        finally:
            harvester.close()


def harvest(harvester: Harvester, vendor: RunningSimulator, run: str = "one") -> Sequence[Outcome]:
    """A day: its roster, then the chain of its troops."""
    order = HarvestOptions(run, run, finished="reconcile")
    outcomes = list(harvester.troops([DAY], order))
    troops = [key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC")]
    return outcomes + list(harvester.chain(CHAIN, [(DAY, troop) for troop in troops], order))


FAULTS: dict[str, list[dict[str, object]]] = {
    "refused": [{"kind": "401", "skip": 3}],
    "refused data": [{"kind": "401", "match": "data.json", "skip": 5}],
    "forbidden": [{"kind": "403", "match": "metrics.json", "rate": 0.5}],
    "forbidden all": [{"kind": "403", "skip": 3}],
    "torn": [
        {"kind": "hang", "seconds": 5, "count": 1},
        {"kind": "reset", "rate": 0.2},
        {"kind": "truncated", "rate": 0.2},
    ],
    "broken": [
        {"kind": "429", "rate": 0.1, "count": 2},
        {"kind": "500", "rate": 0.3},
        {"kind": "malformed", "rate": 0.3},
    ],
    "moved": [{"kind": "redirect", "location": "/v2/applications.json", "rate": 0.3}],
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_told_is_what_the_vendor_counted(name: str, fresh: RunningSimulator, tmp_path: Path) -> None:
    """Outcomes and progress agree with the vendor's log, whatever goes wrong, and in the run after it too."""
    fresh.faults(FAULTS[name])
    before = 0
    for run in ("one", "two"):
        with harvester_of(fresh, tmp_path) as harvester:
            told = sum(outcome.counts.calls for outcome in harvest(harvester, fresh, run))
            counted = fresh.calls() - before
            assert (told, harvester.progress.calls_made) == (counted,) * 2
        before += counted
        if name.startswith(("refused", "forbidden all")):
            # What was in flight at the first refusal cannot be called back, and a 403 is asked about once.
            assert fresh.calls(outcome="401") + fresh.calls(outcome="403") <= 9 * (1 if run == "one" else 2)


def test_calls_of_a_partition_that_breaks_are_told(
    fresh: RunningSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in reading ends in failed partitions that name it, with the calls that were made for them."""
    monkeypatch.setattr(NewRelic, "parse", lambda *_: 1 / 0)
    with harvester_of(fresh, tmp_path) as harvester:
        (outcome,) = harvester.troops([DAY], HarvestOptions("one", "one"))
        assert outcome.state == "failed"
        assert "ZeroDivisionError" in outcome.message
        assert outcome.counts.calls == fresh.calls() == 1
