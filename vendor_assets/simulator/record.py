"""The vendor's own log: what arrived, what was answered, what was too much.

It is the judge of every trial, so it counts arrivals by the server's monotonic clock and knows nothing
of the client.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import IO
from urllib.parse import parse_qsl, urlsplit

from vendor_assets.simulator.limits import BucketLimit

_ARRIVALS_KEPT = 2_000_000


class Worst:
    """The most arrivals in any window of a fixed length, sliding."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.most = 0
        self._recent: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count one arrival."""
        recent = self._recent
        recent.append(now)
        while recent[0] <= now - self.seconds:
            recent.popleft()
        self.most = max(self.most, len(recent))


class Record:
    """Counts every vendor call; control calls are not among them.

    Args:
        started_at: UNIX time of the monotonic zero.
        log_file: Where one JSON line a call is written and flushed, if anywhere.
    """

    def __init__(self, started_at: float, log_file: IO[str] | None = None) -> None:
        self.started_at = started_at
        self._log_file = log_file
        self.in_flight = 0
        self.documents_in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Forget all that was counted; calls in flight stay in flight."""
        self.answered: Counter[tuple[str, str]] = Counter()
        self.outages: list[dict[str, object]] = []
        self.bytes_sent = 0
        self._served: Counter[str] = Counter()
        self._leaves: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self._arrivals: list[tuple[float, str, str]] = []
        self._total = 0
        self._with_key = 0
        self._first: float | None = None
        self._last: float | None = None
        self._second = Worst(1.0)
        self._minute = Worst(60.0)
        self._peak = self.in_flight
        self._documents = self._queries = self._queries_refused = 0
        self._query_minute = Worst(60.0)
        self._documents_peak = self.documents_in_flight
        self._windows: Counter[tuple[BucketLimit, int, bool]] = Counter()

    def arrive(self, now: float, *, with_key: bool = True, document: bool = False) -> None:
        """A request line is complete.

        Args:
            with_key: Whether the request carried an API key.
            document: Whether it is a document of NerdGraph.
        """
        self._total += 1
        self._with_key += with_key
        self._first = now if self._first is None else self._first
        self._last = now
        self._second.add(now)
        self._minute.add(now)
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        if document:
            self._documents += 1
            self.documents_in_flight += 1
            self._documents_peak = max(self._documents_peak, self.documents_in_flight)

    def ask(self, arrived: float, queries: int, refused: int) -> None:
        """A document of NerdGraph was read: so many NRQL queries, of which the vendor refused some."""
        self._queries += queries
        self._queries_refused += refused
        for _ in range(queries):
            self._query_minute.add(arrived)

    def judge(self, limit: BucketLimit, now: float, *, admitted: bool) -> None:
        """A call was admitted by Datadog's limit at ``now``, UNIX seconds of the vendor's clock, or refused."""
        self._windows[limit, limit.start_of(now), admitted] += 1

    def leave(
        self,
        arrived: float,
        now: float,
        endpoint: str,
        target: str,
        outcome: str,
        *,
        leaves: tuple[str, ...] = (),
        served: bool = False,
        size: int = 0,
        fault: str = "",
        queries: int = 0,
        partial: bool = False,
        bucket: str = "",
    ) -> None:
        """A request is answered, or given up.

        Args:
            arrived: When the request line was complete.
            now: When the response was handed to the network.
            outcome: The status, or what happened instead: ``reset``, ``hang``.
            served: Whether the whole right response was sent.
            queries: NRQL queries in a document of NerdGraph.
            partial: Some of its fields failed: asked for again it is not repeated, its leaves are.
            bucket: The bucket of Datadog's rate limit, if it is a call to Datadog.
        """
        self.in_flight -= 1
        self.documents_in_flight -= endpoint == "graphql"
        self.answered[endpoint, outcome] += 1
        self.bytes_sent += size
        if served and outcome == "200":
            request = canonical(target)
            self._served[request] += not partial
            if self._served[request] > 1 and not partial:
                self._repeated[endpoint] += 1
            self._leaves.update(leaves)
        if len(self._arrivals) < _ARRIVALS_KEPT:
            self._arrivals.append((arrived, target, outcome))
        if self._log_file is not None:
            line = {
                "arrived": round(arrived, 6),
                "seconds": round(now - arrived, 6),
                "endpoint": endpoint,
                "target": target,
                "outcome": outcome,
                "bytes": size,
            }
            if fault:
                line["fault"] = fault
            if endpoint == "graphql":
                line["queries"] = queries
            if bucket:
                line["bucket"] = bucket
            self._log_file.write(json.dumps(line) + "\n")
            self._log_file.flush()

    def outage(self, kind: str, start: float, seconds: float) -> None:
        """The vendor goes down; ``kind`` is ``collapse`` or ``fault``."""
        self.outages.append({"kind": kind, "from": start, "to": start + seconds})

    def summary(self, now: float, *, arrivals: bool = False) -> dict[str, object]:
        """All of it, as JSON has it. Times are seconds since the start of the process.

        ``repeated`` are calls that were answered in full before; ``repeated_leaves`` are warrior, data
        group, range and period that were answered with data before, whatever the batch was. ``violations`` are calls
        that got a 429, or a 400 as they were too fast, and NRQL queries that were refused within a document.
        ``buckets`` are the windows of Datadog's limits in which something arrived; ``start`` is UNIX seconds of the
        vendor's clock.
        """
        by_endpoint: dict[str, dict[str, int]] = {}
        for (endpoint, outcome), count in sorted(self.answered.items()):
            by_endpoint.setdefault(endpoint, {})[outcome] = count
        again = sum(count - 1 for count in self._leaves.values() if count > 1)
        summary: dict[str, object] = {
            "started_at": self.started_at,
            "seconds": now,
            "requests": self._total,
            "requests_with_key": self._with_key,
            "by_endpoint": by_endpoint,
            "violations": sum(each.get("429", 0) + each.get("throttled", 0) for each in by_endpoint.values())
            + self._queries_refused,
            "worst_second": self._second.most,
            "worst_minute": self._minute.most,
            "repeated": {
                "total": sum(self._repeated.values()),
                "by_endpoint": dict(sorted(self._repeated.items())),
                "top": _top(self._served),
            },
            "leaves": len(self._leaves),
            "repeated_leaves": {"total": again, "top": _top(self._leaves)},
            "in_flight": self.in_flight,
            "peak_in_flight": self._peak,
            "graphql": {
                "documents": self._documents,
                "queries": self._queries,
                "queries_refused": self._queries_refused,
                "worst_minute_of_queries": self._query_minute.most,
                "peak_in_flight": self._documents_peak,
            },
            "buckets": [
                limit._asdict()
                | {
                    "start": start,
                    "admitted": self._windows[limit, start, True],
                    "refused": self._windows[limit, start, False],
                }
                for limit, start in sorted({(limit, start) for limit, start, _ in self._windows})
            ],
            "first_arrival": self._first,
            "last_arrival": self._last,
            "outages": list(self.outages),
            "bytes_sent": self.bytes_sent,
        }
        if arrivals:
            summary["arrivals"] = self._arrivals
        return summary


def canonical(target: str) -> str:
    """The same text for the same request, however its query is ordered and encoded."""
    parts = urlsplit(target)
    if not parts.query:
        return parts.path
    pairs = sorted(parse_qsl(parts.query, keep_blank_values=True))
    return parts.path + "?" + "&".join(f"{key}={text}" for key, text in pairs)


def _top(counts: Counter[str]) -> list[dict[str, object]]:
    return [{"what": what, "count": count} for what, count in counts.most_common(20) if count > 1]
