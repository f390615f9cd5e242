"""Nimbus Monitoring, an imagined vendor: OAuth 2.0, POST, cursors, queries in two steps, and points as cost.

Its lists are searches by POST, whose pages follow by a cursor. Data is queried in two steps: a query is submitted, and
its result is asked for until it is there. A query costs a point for each metric and 100 timeslices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from vendor_assets.days import Window
from vendor_assets.errors import VendorProtocolError
from vendor_assets.vendors.base import (
    COLUMNS,
    Asset,
    DataGroup,
    Failure,
    Keys,
    Leaf,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
    as_attributes,
    data_leaf,
    is_name,
    path_segment,
    read_object,
)
from vendor_assets.vendors.oauth import ClientCredentials

QUERIES = "/v1/queries"
METRICS_AT_ONCE = 20


class Nimbus(Vendor):
    """The dialect of Nimbus Monitoring."""

    kind = "nimbus"
    title = "Nimbus Monitoring"
    documented_limits = ("600/min", "3000 points/min")
    needs_api_key = False
    needs_login = True  # VENDOR_USER is the client's id, VENDOR_PASSWORD its secret
    accepted = (200, 201, 202)  # 201: submitted, 202: not there yet

    def auth(self, keys: Keys) -> ClientCredentials:
        return ClientCredentials("/oauth2/token", keys.user, keys.password, scope="metrics.read")

    def counts(self, request: Request) -> Mapping[str, int]:
        if request.path != QUERIES:
            return {"points": 0}
        query = json.loads(request.body)
        span = datetime.fromisoformat(query["to"]) - datetime.fromisoformat(query["from"])
        timeslices = int(span.total_seconds()) // query["step_seconds"]
        return {"points": len(query["metrics"]) * -(-timeslices // 100)}

    def probe(self) -> Request:
        return Request("/v1/me", (), "me")

    def troops(self, day: Window) -> PlannedRequest:
        return _search("services", {}, Leaf("troops"))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        return _search("hosts", {"service": troop_id}, Leaf("warriors"))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        return _search("metrics", {"host": warrior_id}, Leaf(warrior_id, warrior_id=warrior_id))

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        times = {"from": day.start.isoformat(), "to": day.end.isoformat(), "step_seconds": resolution_seconds}
        leaves = [data_leaf(warrior_id, group.name, day) for group in groups]
        some = (leaves[first : first + METRICS_AT_ONCE] for first in range(0, len(leaves), METRICS_AT_ONCE))
        return [_query({"host": warrior_id} | times, batch) for batch in some]

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        middle = len(planned.leaves) // 2
        if not middle or planned.request.path != QUERIES:
            return []
        query = json.loads(planned.request.body)
        return [_query(query, leaves) for leaves in (planned.leaves[:middle], planned.leaves[middle:])]

    def says_gone(self, request: Request, body: str) -> bool:
        return '"unknown_host"' in body or '"unknown_service"' in body

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        content = read_object(response)
        if response.status == 202:
            return Parsed(wait_seconds=float(content.get("retry_after_seconds", 1)))
        if response.status == 201:
            return Parsed(next=Request(f"{QUERIES}/{path_segment(str(content['query_id']))}", (), "results"))
        if content.get("state") == "failed":
            leaves = tuple(leaf.key for leaf in planned.leaves)
            return Parsed(failures=[Failure(leaves, "expired", str(content.get("reason")))])
        records = content.get("items")
        if not isinstance(records, list):
            raise VendorProtocolError("the answer has no list 'items'")
        parsed = Parsed()
        rows = []
        for record in records:
            try:
                rows.extend(_rows(asset, planned.leaves[0].warrior_id, record))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                parsed.reject(f"{type(error).__name__}: {error}", record)
        parsed.columns = {name: [row[name] for row in rows] for name in COLUMNS[asset]}
        if cursor := content.get("cursor"):
            asked = response.asked or planned.request
            if asked.body:
                question = json.loads(asked.body) | {"cursor": cursor}
                parsed.next = Request.json(asked.path, question, asked.endpoint)
            else:
                parsed.next = Request(asked.path, (("cursor", str(cursor)),), asked.endpoint)
        return parsed


def _search(what: str, question: dict[str, str], leaf: Leaf) -> PlannedRequest:
    return PlannedRequest(Request.json(f"/v1/{what}/search", question, what), (leaf,))


def _query(query: dict[str, Any], leaves: Sequence[Leaf]) -> PlannedRequest:
    document = query | {"metrics": [leaf.data_group for leaf in leaves]}
    return PlannedRequest(Request.json(QUERIES, document, "queries"), tuple(leaves))


def _rows(asset: Asset, warrior_id: str, record: dict[str, Any]) -> Iterator[dict[str, object]]:
    if asset in ("troops", "warriors"):
        if not is_name(record["id"]):
            raise ValueError("id is not a name")
        name = "troop_id" if asset == "troops" else "warrior_id"
        yield {name: record["id"], "name": record.get("title"), "attributes": as_attributes(record)}
        return
    series = {"warrior_id": warrior_id, "data_group": record["metric"]}
    if asset == "data_groups":
        yield series | {"value_names": record["values"]}
        return
    times = {f"timeslice_{edge}": datetime.fromisoformat(record[edge]) for edge in ("start", "end")}
    for name, value in record["values"].items():
        yield series | times | {"value_name": name, "value": float(value), "weight": record.get("count")}
