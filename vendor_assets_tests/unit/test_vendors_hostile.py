"""Whatever JSON a vendor sends: each dialect makes rows of it, or says that it cannot be understood; nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.days import Window
from vendor_assets.errors import VendorProtocolError
from vendor_assets.vendors.base import Asset, DataGroup, PlannedRequest, Response, Vendor
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets.vendors.prometheus import Prometheus

START = datetime(2026, 11, 20, tzinfo=UTC)
DAY = Window(START, START + timedelta(days=1))
GROUPS = [DataGroup("group", ("average_value", "call_count")), DataGroup("up", ("up",))]
AT = int(START.timestamp())

DOCUMENTS: dict[str, dict[Asset, Any]] = {
    "new_relic": {
        "troops": {"applications": [{"id": 1, "name": "a", "reporting": True, "links": {"servers": []}}]},
        "warriors": {"application_hosts": [{"id": 2, "host": "h", "application_name": "a"}]},
        "data_groups": {"metrics": [{"name": "group", "values": ["average_value", "call_count"]}]},
        "performance_data": {
            "metric_data": {
                "from": "2026-11-20T00:00:00+00:00",
                "to": "2026-11-21T00:00:00+00:00",
                "metrics_not_found": ["x"],
                "metrics_found": ["group"],
                "metrics": [
                    {
                        "name": "group",
                        "timeslices": [
                            {
                                "from": "2026-11-20T00:00:00+00:00",
                                "to": "2026-11-20T00:30:00+00:00",
                                "values": {"average_value": 1.5, "call_count": 3},
                            }
                        ],
                    }
                ],
            }
        },
    },
    "prometheus": {
        "troops": {"status": "success", "data": ["job"]},
        "warriors": {"status": "success", "data": ["host:9100"]},
        "data_groups": {"status": "success", "data": ["up", "up_total", "h_bucket"]},
        "performance_data": {
            "status": "success",
            "warnings": ["a store is away"],
            "data": {
                "resultType": "matrix",
                "result": [
                    {
                        "metric": {"__name__": "up", "instance": "host:9100", "job": "job"},
                        "values": [[AT, "1"], [AT + 1800, "NaN"]],
                        "histograms": [[AT, {"count": "1", "sum": "2", "buckets": [[0, "1", "2", "3"]]}]],
                    }
                ],
            },
        },
    },
}
VENDORS: dict[str, Vendor] = {"new_relic": NewRelic(), "prometheus": Prometheus()}

EVIL = [
    *(
        [
            "null",
            "true",
            "0",
            "-1",
            "1e999",
            "-0.0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-400",
            "[]",
            "{}",
            "[[]]",
        ]
    ),
    *("9" * digits for digits in (30, 400, 5000)),
    *('""', '"\\ud800"', '"\\u0000"', '"' + "x" * 3000 + '"'),
    *("[" * depth + "]" * depth for depth in (200, 900, 100_000)),
    '{"a":' * 200 + "1" + "}" * 200,
    *('{"\\ud800": 1}', '{"id": 1, "id": 2}', '{"values": [[0]]}'),
    *('"2026-11-20T99:00:00+00:00"', '"0000-01-01T00:00:00Z"', '"9999-12-31T23:59:59-23:59"'),
    *('[[1e300, "1"]]', '[[NaN, "1"], [1, "2"]]', '[["1", 2]]'),
]


def planned(vendor: Vendor, asset: Asset) -> PlannedRequest:
    """A request for an asset."""
    if asset == "troops":
        return vendor.troops(DAY)
    if asset == "warriors":
        return vendor.warriors("1", DAY)
    if asset == "data_groups":
        return vendor.data_groups("1", "2", DAY)
    return vendor.performance_data("1", "2", GROUPS, DAY, 1800)[0]


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something else can be put."""
    found = [path]
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document if isinstance(document, list) else [])
    )
    for name, held in items:
        found += places(held, (*path, name))
    return found


def spoilt(document: Any, path: tuple[Any, ...], evil: str) -> str:
    """The document as text, with something else at one place."""
    if not path:
        return evil
    first, *rest = path
    if isinstance(document, dict):
        parts = [
            f"{json.dumps(name)}: {spoilt(held, tuple(rest), evil) if name == first else json.dumps(held)}"
            for name, held in document.items()
        ]
        return "{" + ", ".join(parts) + "}"
    parts = [
        spoilt(held, tuple(rest), evil) if at == first else json.dumps(held)
        for at, held in enumerate(document)
    ]
    return "[" + ", ".join(parts) + "]"


CASES = [(kind, asset) for kind, documents in DOCUMENTS.items() for asset in documents]


def check(kind: str, asset: Asset, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Parse; whatever comes out has columns of one length."""
    vendor = VENDORS[kind]
    response = Response(200, {"content-type": "application/json"} | (headers or {}), body, START)
    try:
        parsed = vendor.parse(asset, planned(vendor, asset), response)
    except VendorProtocolError:
        return
    assert len({len(column) for column in parsed.columns.values()}) <= 1


@pytest.mark.parametrize(("kind", "asset"), CASES)
def test_a_whole_document_is_understood(kind: str, asset: Asset) -> None:
    """What is spoilt below gives rows while it is whole."""
    vendor = VENDORS[kind]
    body = json.dumps(DOCUMENTS[kind][asset]).encode()
    parsed = vendor.parse(asset, planned(vendor, asset), Response(200, {}, body, START))
    assert parsed.columns
    assert all(parsed.columns.values())


@pytest.mark.parametrize(("kind", "asset"), CASES)
def test_one_spoilt_value_ends_in_rows_or_an_error_of_ours(kind: str, asset: Asset) -> None:
    """Each value of an answer in turn is replaced by each of many that nobody expects."""
    document = DOCUMENTS[kind][asset]
    for path in places(document):
        for evil in EVIL:
            check(kind, asset, spoilt(document, path, evil).encode("utf-8", "surrogatepass"))


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["id", "name", "values", "metric", "data", "status", "result"]),
                st.text(max_size=9),
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.sampled_from(CASES), st.data())
def test_any_json_ends_in_rows_or_an_error_of_ours(case: tuple[str, Asset], data: st.DataObject) -> None:
    """Any value anywhere, half a document, bytes that are no text, and links that lead anywhere."""
    kind, asset = case
    document = DOCUMENTS[kind][asset]
    path = data.draw(st.sampled_from(places(document)))
    text = spoilt(document, path, json.dumps(data.draw(_JSON)))
    link = data.draw(
        st.one_of(st.just(""), st.text(max_size=40).map(lambda target: f'<{target}>; rel="next"'))
    )
    check(kind, asset, text.encode(), {"link": link})
    check(kind, asset, text.encode()[: data.draw(st.integers(0, len(text)))])
    check(kind, asset, data.draw(st.binary(max_size=30)))
