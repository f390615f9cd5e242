"""Answers of each dialect with as many rows as wanted, in the form that its vendor documents."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.vendors.base import DataGroup, PlannedRequest, Response, Vendor
from vendor_assets.vendors.datadog import Datadog
from vendor_assets.vendors.nerdgraph import NerdGraph
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets.vendors.prometheus import Prometheus

DAY = day_window(date(2026, 11, 20), parse_time_zone("UTC"))
STEP = 600
VENDORS: tuple[Vendor, ...] = (
    NewRelic(clock=lambda: DAY.end + timedelta(hours=12)),
    NerdGraph("1234567"),
    Prometheus(),
    Datadog(counts=()),
)

Answer = tuple[PlannedRequest, Response]
_random = random.Random(7)
_START = int(DAY.start.timestamp())
_TIMES = range(_START, int(DAY.end.timestamp()), STEP)


def make(vendor: Vendor, series: int) -> Answer:
    """One answer with a day of so many series, a point each ten minutes."""
    body: Any
    match vendor:
        case NewRelic():
            names = ("average_response_time", "calls_per_minute", "call_count")
            groups = [DataGroup(f"C/{at}", names) for at in range(series // 3)]
            if series < 3:
                groups = [DataGroup("Apdex", ("score",))]
            planned = vendor.performance_data("1", "2", groups, DAY, STEP)[0]
            asked = {leaf.data_group for leaf in planned.leaves}
            body = _new_relic([group for group in groups if group.name in asked])
        case NerdGraph():
            groups = [DataGroup(f"Controller/g{at}", ("call_count",)) for at in range(series)]
            if series > 5:
                names = (
                    "average_response_time",
                    "min_response_time",
                    "max_response_time",
                    "calls_per_minute",
                )
                groups = [DataGroup(f"Controller/g{at}", (*names, "call_count")) for at in range(series // 5)]
            planned, body = vendor.performance_data("1", "2", groups, DAY, STEP)[0], _nerdgraph(groups)
        case Prometheus():
            groups = [DataGroup("node_cpu", ("node_cpu_seconds_total",))]
            planned, body = (
                vendor.performance_data("job", "h:9100", groups, DAY, STEP)[0],
                _prometheus(series),
            )
        case Datadog():
            hosts = [f"host-{at}" for at in range(series)]
            groups = [DataGroup("system.cpu", ("system.cpu.user",))]
            planned = vendor.performance_data_of("web", dict.fromkeys(hosts, groups), DAY, STEP)[0]
            body = _datadog(hosts)
    text = json.dumps(body, separators=(",", ":")).encode()
    return planned, Response(200, {"content-type": "application/json"}, text, DAY.end)


def _number() -> float:
    return round(_random.lognormvariate(3, 2), 4)


def _new_relic(groups: Sequence[DataGroup]) -> object:
    def piece(at: int, names: Sequence[str]) -> object:
        first, last = (_iso(at + more) for more in (0, STEP))
        return {"from": first, "to": last, "values": {name: _number() for name in names}}

    metrics = [
        {"name": group.name, "timeslices": [piece(at, group.value_names) for at in _TIMES]}
        for group in groups
    ]
    return {"metric_data": {"metrics_not_found": [], "metrics": metrics}}


def _iso(at: int) -> str:
    return (DAY.start + timedelta(seconds=at - _START)).isoformat()


def _nerdgraph(groups: Sequence[DataGroup]) -> object:
    def rows() -> Iterator[object]:
        for group in groups:
            for at in _TIMES:
                values: dict[str, object] = {"calls": _random.randrange(1, 9999)}
                if len(group.value_names) > 1:
                    values |= {name: _number() / 1000 for name in ("average", "minimum", "maximum")}
                edges = {"beginTimeSeconds": at, "endTimeSeconds": at + STEP}
                names = {"realAgentId": "2", "metricTimesliceName": group.name}
                yield {"facet": ["2", group.name], **edges, **values, **names}

    return {"data": {"actor": {"account": {"q0": {"results": list(rows())}}}}}


def _prometheus(series: int) -> object:
    def one(number: int) -> object:
        labels = {"__name__": "node_cpu_seconds_total", "instance": "h:9100", "job": "job"}
        values = [[at + STEP, str(_number())] for at in _TIMES]
        return {"metric": labels | {"cpu": str(number), "mode": "idle"}, "values": values}

    return {
        "status": "success",
        "data": {"resultType": "matrix", "result": [one(number) for number in range(series)]},
    }


def _datadog(hosts: Sequence[str]) -> object:
    attributes = {
        "series": [{"group_tags": [f"host:{host}"], "query_index": 0, "unit": None} for host in hosts],
        "times": [at * 1000 for at in _TIMES],
        "values": [[_number() for _ in _TIMES] for _ in hosts],
    }
    return {"data": {"id": "0", "type": "timeseries_response", "attributes": attributes}}
