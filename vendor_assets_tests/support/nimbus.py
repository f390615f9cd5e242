"""The imagined vendor of examples/nimbus_vendor as a server.

It has tokens, searches with cursors, queries in two steps, and points as cost, as the example's README describes them;
what it has received is the measure.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vendor_assets_tests.support.recorder import Answer, Received, Recorder, recorder

CLIENT = ("client-7", "client-secret-7f3a")
PAGE = 2
METRICS = [f"metric {number:02d}" for number in range(25)]
SERVICES = {f"s{number}": [f"s{number}-h{host}" for host in range(2)] for number in range(2)}
POINTS_A_MINUTE = 30_000


def value(host: str, metric: str, at: datetime) -> float:
    """The truth."""
    return float((sum(f"{host}{metric}".encode()) * 7919 + int(at.timestamp())) % 10_007)


@dataclass
class Nimbus:
    """What the vendor is told to do, and what it saw.

    Attributes:
        polls: How often a query's result is asked for before it is there; None for never.
        failing: Metrics whose queries fail by themselves.
        submitted: How often each query was submitted.
        points: Those of each query, with the time.
    """

    polls: int | None = 2
    failing: set[str] = field(default_factory=set)
    tokens: int = 0
    submitted: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    recorder: Recorder | None = None
    points: deque[tuple[float, int]] = field(default_factory=deque)
    _queries: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self.recorder is not None
        return self.recorder.url

    def forget(self) -> None:
        """Submitted queries expire."""
        with self._lock:
            self._queries.clear()

    def answer(self, request: Received) -> Answer:
        """The answer to a request."""
        with self._lock:
            status, document = self._answer(request)
        return Answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _answer(self, request: Received) -> tuple[int, object]:
        if request.path == "/oauth2/token":
            wanted = base64.b64encode(":".join(CLIENT).encode()).decode()
            if request.headers.get("authorization") != f"Basic {wanted}":
                return 401, {"error": "invalid_client"}
            self.tokens += 1
            return 200, {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": 3600}
        if request.headers.get("authorization") != f"Bearer token-{self.tokens}":
            return 401, {"error": "invalid_token"}
        if request.path == "/v1/me":
            return 200, {"user": "me"}
        if request.path.startswith("/v1/queries/"):
            return self._result(request)
        if request.method != "POST" or request.headers.get("content-type") != "application/json":
            return 405, {"error": "post_json"}
        body = json.loads(request.body)
        if request.path == "/v1/queries":
            return self._submit(request, body)
        return self._search(request.path, body)

    def _search(self, path: str, body: dict[str, Any]) -> tuple[int, object]:
        first = int(body.get("cursor", 0))
        if path == "/v1/services/search":
            items: list[dict[str, Any]] = [
                {"id": name, "title": name.upper(), "tier": 1} for name in SERVICES
            ]
        elif path == "/v1/hosts/search":
            if body["service"] not in SERVICES:
                return 404, {"error": "unknown_service"}
            items = [{"id": name, "title": name} for name in SERVICES[body["service"]]]
        elif path == "/v1/metrics/search":
            items = [{"metric": name, "values": ["avg", "max"]} for name in METRICS]
        else:
            return 404, {"error": "no_such_path"}
        size = 10 if "metrics" in path else PAGE
        following = str(first + size) if first + size < len(items) else None
        return 200, {"items": items[first : first + size], "cursor": following}

    def _submit(self, request: Received, body: dict[str, Any]) -> tuple[int, object]:
        start, end = (datetime.fromisoformat(body[edge]) for edge in ("from", "to"))
        timeslices = int((end - start).total_seconds()) // body["step_seconds"]
        points, now = len(body["metrics"]) * -(-timeslices // 100), time.monotonic()
        while self.points and self.points[0][0] < now - 60:
            self.points.popleft()
        if sum(number for _, number in self.points) + points > POINTS_A_MINUTE or len(body["metrics"]) > 20:
            self.refused += 1
            return 429, {"error": "points"}
        self.points.append((now, points))
        self.submitted[request.body.decode()] += 1
        number = f"q{len(self._queries)}-{sum(self.submitted.values())}"
        self._queries[number] = body
        return 201, {"query_id": number}

    def _result(self, request: Received) -> tuple[int, object]:
        number = request.path.rpartition("/")[2]
        query = self._queries.get(number)
        if query is None:
            return 404, {"error": "unknown_query"}
        self.asked[number] += 1
        if self.polls is None or self.asked[number] <= self.polls:
            return 202, {"state": "running", "retry_after_seconds": 0.1}
        if self.failing & set(query["metrics"]):
            return 200, {"state": "failed", "reason": "out of memory"}
        start, step = datetime.fromisoformat(query["from"]), timedelta(seconds=query["step_seconds"])
        count = (datetime.fromisoformat(query["to"]) - start) // step
        first = int(parse_qs(urlsplit(request.target).query).get("cursor", ["0"])[0])
        metrics = query["metrics"][first : first + 10]
        items = [
            {
                "metric": metric,
                "start": (start + slot * step).isoformat(),
                "end": (start + (slot + 1) * step).isoformat(),
                "values": {
                    "avg": value(query["host"], metric, start + slot * step),
                    "max": value(query["host"], metric, start + slot * step) + 1,
                },
            }
            for metric in metrics
            for slot in range(count)
        ]
        following = str(first + 10) if first + 10 < len(query["metrics"]) else None
        return 200, {"state": "done", "items": items, "cursor": following}


@contextmanager
def nimbus() -> Iterator[Nimbus]:
    """The vendor on a free port."""
    vendor = Nimbus()
    with recorder(vendor.answer) as received:
        vendor.recorder = received
        yield vendor
