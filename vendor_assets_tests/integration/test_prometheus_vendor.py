"""A real Prometheus: the whole chain of requests, each value held against a direct query."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from vendor_assets.client import VendorClient
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import VendorRejectedError
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest, Request, Response
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
    """An answer with all its pages; each has to be whole."""
    found = Parsed()
    request: Request | None = planned.request
    while request is not None:
        asked = None if request is planned.request else request
        fetched = client.fetch(request, check=partial(_read, asset, planned, asked))
        parsed = fetched.value
        assert parsed is not None
        assert (parsed.rejected, parsed.incomplete) == ([], "")
        for name, column in parsed.lists().items():
            found.columns.setdefault(name, []).extend(column)
        request = parsed.next
    return found


def _read(asset: Asset, planned: PlannedRequest, asked: Request | None, response: Response) -> Parsed:
    return VENDOR.parse(asset, planned, replace(response, asked=asked))


def _groups(parsed: Parsed) -> list[DataGroup]:
    pairs = zip(parsed.columns["data_group"], parsed.columns["value_names"], strict=True)
    return [DataGroup(name, tuple(names)) for name, names in pairs]  # type: ignore[arg-type]


def _direct(
    server: RunningPrometheus, job: str, instance: str, start: datetime, resolution: int
) -> dict[Any, Any]:
    """Every value of an instance over a day from the raw samples: the newest in each timeslice."""
    first, resolution_ms = round(start.timestamp() * 1000), resolution * 1000
    end = (start + timedelta(days=1)).timestamp() - 0.001
    found: dict[Any, Any] = {}
    for metric in server.get("/api/v1/label/__name__/values"):
        # Another way to say it than the vendor's: one metric at a time, labels as JSON literals.
        query = f"{metric}{{job={json.dumps(job)}, instance={json.dumps(instance)}}}[1d]"
        answer = server.get("/api/v1/query", ("query", query), ("time", f"{end:.3f}"))
        for series in answer["result"]:
            labels = {k: v for k, v in series["metric"].items() if k not in ("__name__", "job", "instance")}
            for at, text in series["values"]:
                value = float(text)
                begin = (first + (round(at * 1000) - first) // resolution_ms * resolution_ms) * 1000
                if at >= start.timestamp():
                    found[metric + canonical(labels), begin] = None if math.isnan(value) else value
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


def test_the_hierarchy_covers_the_data(server: RunningPrometheus, client: VendorClient) -> None:
    """What has no job, no instance or neither is on a list, and what is scraped seldom has its values."""
    window = day_window(server.days[-1], parse_time_zone("UTC"))
    troops = [str(troop) for troop in _fetch(client, "troops", VENDOR.troops(window)).columns["troop_id"]]
    found: dict[tuple[str, str], list[DataGroup]] = {}
    for troop in troops:
        for warrior in _fetch(client, "warriors", VENDOR.warriors(troop, window)).columns["warrior_id"]:
            listed = _fetch(client, "data_groups", VENDOR.data_groups(troop, str(warrior), window))
            found[troop, str(warrior)] = _groups(listed)
    reached = {name for groups in found.values() for group in groups for name in group.value_names}
    edges = (("start", str(window.start.timestamp())), ("end", str(window.end.timestamp() - 1)))
    assert reached == set(server.get("/api/v1/label/__name__/values", *edges))
    for place in (("slow", "slow:1"), ("slow", ""), ("", ""), ("", "alone:1")):
        assert all(group.value_names for group in found[place])
        (planned,) = VENDOR.performance_data(*place, found[place], window, 1800)
        columns = _fetch(client, "performance_data", planned).columns
        per_value = Counter(columns["value_name"])
        assert set(per_value.values()) == {48}, per_value
    assert sorted(per_value) == ["no_job"]


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
