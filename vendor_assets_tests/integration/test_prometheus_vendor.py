"""A real Prometheus: the whole chain of requests, each value held against a direct query."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vendor_assets.client import VendorClient
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import VendorRejectedError
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest, Request
from vendor_assets.vendors.prometheus import Prometheus, canonical
from vendor_assets_tests.support.prometheus import (
    JOBS,
    ODD_JOB,
    RunningPrometheus,
    prometheus,
    require_prometheus,
)

VENDOR = Prometheus()


class _Slot:
    waited_seconds = 0.0

    def observe(self, **_: object) -> None:
        pass


class _Unlimited:
    @contextmanager
    def slot(self, **_: object) -> Iterator[_Slot]:
        yield _Slot()

    def wake(self) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[RunningPrometheus]:
    """One server for all tests of this module."""
    require_prometheus()
    with prometheus() as running:
        yield running


@pytest.fixture
def client(server: RunningPrometheus) -> Iterator[VendorClient]:
    """A client without a limit."""
    found = VendorClient(base_url=server.url, api_key="", vendor=VENDOR, budget=_Unlimited(), max_in_flight=2)
    yield found
    found.close()


def _fetch(client: VendorClient, asset: Asset, planned: PlannedRequest) -> Parsed:
    fetched = client.fetch(planned.request, check=lambda response: VENDOR.parse(asset, planned, response))
    assert fetched.value is not None
    assert fetched.value.rejected == []
    assert fetched.value.next is None
    return fetched.value


def _groups(parsed: Parsed) -> list[DataGroup]:
    pairs = zip(parsed.columns["data_group"], parsed.columns["value_names"], strict=True)
    return [DataGroup(name, tuple(names)) for name, names in pairs]  # type: ignore[arg-type,misc]


def _direct(
    server: RunningPrometheus, job: str, instance: str, start: datetime, resolution: int
) -> dict[Any, Any]:
    """Every value of an instance over a day, metric by metric, from Prometheus itself."""
    params = [
        ("start", str(start.timestamp())),
        ("end", str((start + timedelta(days=1)).timestamp() - resolution)),
    ]
    found: dict[Any, Any] = {}
    for metric in server.get("/api/v1/label/__name__/values"):
        # Another way to say it than the vendor's: one metric at a time, labels as JSON literals.
        query = f"{metric}{{job={json.dumps(job)}, instance={json.dumps(instance)}}}"
        answer = server.get("/api/v1/query_range", ("query", query), ("step", f"{resolution}s"), *params)
        for series in answer["result"]:
            labels = {k: v for k, v in series["metric"].items() if k not in ("__name__", "job", "instance")}
            for at, text in series["values"]:
                value = float(text)
                found[metric + canonical(labels), int(at * 1e6)] = None if math.isnan(value) else value
    return found


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_every_value_equals_a_direct_query(
    server: RunningPrometheus, client: VendorClient, zone: str
) -> None:
    """Job, instance, group, values: what the vendor harvests is what Prometheus answers, all of it, nothing else."""
    resolution = 1800
    window = day_window(server.days[-1], parse_time_zone(zone))
    jobs = _fetch(client, "troops", VENDOR.troops(window)).columns["troop_id"]
    assert set(jobs) >= set(JOBS)
    compared = 0
    for job in JOBS:
        warriors = _fetch(client, "warriors", VENDOR.warriors(job, window)).columns["warrior_id"]
        assert set(warriors) <= set(JOBS[job])
        for instance in warriors:
            listed = _fetch(client, "data_groups", VENDOR.data_groups(job, str(instance), window))
            planned = VENDOR.performance_data(job, str(instance), _groups(listed), window, resolution)
            harvested: dict[Any, Any] = {}
            for part in planned:
                columns = _fetch(client, "performance_data", part).columns
                keys = zip(columns["value_name"], columns["timeslice_start"], strict=True)
                rows = dict(zip(keys, columns["value"], strict=True))
                assert not rows.keys() & harvested.keys()
                harvested |= rows
            assert harvested == _direct(server, job, str(instance), window.start, resolution)
            compared += len(harvested)
    assert compared > 10_000


def test_rosters_know_the_past(server: RunningPrometheus, client: VendorClient) -> None:
    """An instance that is gone is on the list of its day, and not on that of a later one."""
    zone = parse_time_zone("UTC")
    first, last = (day_window(day, zone) for day in (server.days[0], server.days[-1] + timedelta(days=1)))
    assert (
        "gone-early:9100" in _fetch(client, "warriors", VENDOR.warriors("node", first)).columns["warrior_id"]
    )
    assert (
        "gone-early:9100"
        not in _fetch(client, "warriors", VENDOR.warriors("node", last)).columns["warrior_id"]
    )


def test_a_day_before_all_data_is_empty(server: RunningPrometheus, client: VendorClient) -> None:
    """A day that Prometheus knows nothing of has no jobs; that is an answer."""
    window = day_window(server.days[0] - timedelta(days=10), parse_time_zone("UTC"))
    assert _fetch(client, "troops", VENDOR.troops(window)).columns["troop_id"] == []
    assert _fetch(client, "warriors", VENDOR.warriors(ODD_JOB, window)).columns["warrior_id"] == []


def test_a_fine_resolution_stays_below_the_limit_of_points(
    server: RunningPrometheus, client: VendorClient
) -> None:
    """At five seconds a day takes two queries, and neither is refused for its number of points."""
    window = day_window(server.days[-1], parse_time_zone("UTC"))
    planned = VENDOR.performance_data(
        "node", "web-1:9100", [DataGroup("node_load1", ("node_load1",))], window, 5
    )
    starts = [
        start
        for part in planned
        for start in _fetch(client, "performance_data", part).columns["timeslice_start"]
    ]
    assert len(planned) == 2
    assert starts == [int(window.start.timestamp() + 5 * number) * 1_000_000 for number in range(17_280)]


def test_more_points_than_permitted_are_refused_once(server: RunningPrometheus, client: VendorClient) -> None:
    """What we believe of the limit is true: 11,001 points are a 400, which is not tried again."""
    times = (("start", "1700000000"), ("end", str(1_700_000_000 + 11_001)), ("step", "1"))
    with pytest.raises(VendorRejectedError, match="status 400") as raised:
        client.fetch(Request("/api/v1/query_range", (("query", "up"), *times), "query_range"))
    assert raised.value.attempts == 1
    assert "exceeded maximum resolution" in raised.value.excerpt


def test_the_probe_is_answered(client: VendorClient) -> None:
    """The probe needs no data."""
    assert client.fetch(VENDOR.probe()).response.fetched_at <= datetime.now(UTC)
