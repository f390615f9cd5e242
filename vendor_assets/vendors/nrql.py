"""Documents of NRQL queries for NerdGraph: from what is wanted to their text, and back. Pure.

Sources, below docs.newrelic.com/docs: nrql/nrql-syntax-clauses-functions, apis/rest-api-v2/migrate-to-nrql (from REST
values to functions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any, Final, Self

from vendor_assets.days import Window
from vendor_assets.errors import VendorProtocolError
from vendor_assets.vendors.base import (
    DataGroup,
    Leaf,
    PlannedRequest,
    Request,
    data_leaf,
    halved,
    halved_window,
    instant,
)

MOST_BUCKETS: Final = 366
"""Buckets of ``TIMESERIES``. Source: nrql/nrql-syntax-clauses-functions."""

MOST_FACETS: Final = 5_000
"""Of more facets than ``LIMIT MAX`` permits the rest is left out without a word. Source: the same."""

MOST_NAMES: Final = 10_000
"""Of more names than ``uniques()`` returns at most the rest is left out without a word. Source: the same."""

MOST_ROWS: Final = 20_000
"""Facets times buckets that one query is planned with: some five megabytes, far from the five seconds it may take."""

MOST_ROWS_OF_DOCUMENT: Final = 60_000
MOST_QUERIES: Final = 5
"""Queries in one document."""

MOST_CHARACTERS: Final = 4_000
"""Length of a query; the documentation names no limit, and longer ones were refused by earlier versions."""

PATH: Final = "/graphql"
_VALUE: Final = "newrelic.timeslice.value"
MINUTE: Final = 60
_TEXT: Final = re.compile(r"'((?:[^'\\]|\\.)*)'")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_BODY: Final = re.compile(
    r"SELECT (?P<select>.*?) FROM Metric WHERE appId = (?P<troop>'(?:[^'\\]|\\.)*')"
    r"(?: AND realAgentId IN \((?P<warriors>(?:'(?:[^'\\]|\\.)*',?)*)\))?"
    r"(?: AND metricTimesliceName IN \((?P<metrics>(?:'(?:[^'\\]|\\.)*',?)*)\))?"
    r" AND newrelic\.timeslice\.value IS NOT NULL FACET .*?"
    r" LIMIT MAX SINCE (?P<start>\d+) UNTIL (?P<end>\d+)(?: TIMESERIES (?P<step>\d+) seconds)?",
    re.DOTALL,
)

_COLUMNS: Final[Mapping[str, str]] = {
    "calls": f"count({_VALUE})",
    "total": f"sum({_VALUE})",
    "average": f"average({_VALUE})",
    "minimum": f"min({_VALUE})",
    "maximum": f"max({_VALUE})",
    "exclusive": f"sum({_VALUE}['totalExclusive'])",
    "apdex": f"apdex({_VALUE})",
}
"""What queries select, of which the values are made: a row is smaller by that than with a column for each value."""

Formula = tuple[str, Callable[[Any, Any], Any]]
"""The column that a value is made of, and how: from what it holds and the bucket's seconds, numbers or arrays."""


def _times(factor: float) -> Callable[[Any, Any], Any]:
    return lambda number, _: number * factor


def _per(seconds: float) -> Callable[[Any, Any], Any]:
    return lambda number, bucket: number * seconds / bucket


_CALLS: Final[Mapping[str, Formula]] = {
    "average_response_time": ("average", _times(1000)),
    "min_response_time": ("minimum", _times(1000)),
    "max_response_time": ("maximum", _times(1000)),
    "calls_per_minute": ("calls", _per(60)),
    "call_count": ("calls", _times(1)),
}
_FAMILIES: Final[tuple[tuple[re.Pattern[str], Mapping[str, Formula]], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), values)
    for pattern, values in {
        "Apdex.*": {name: ("apdex", _times(1)) for name in ("score", "s", "t", "f", "count")},
        "Errors/.*": {"error_count": ("calls", _times(1)), "errors_per_minute": ("calls", _per(60))},
        "Memory/.*": {
            "used_mb_by_host": ("average", _times(1)),
            "min_used_mb": ("minimum", _times(1)),
            "max_used_mb": ("maximum", _times(1)),
        },
        # Of a minute's CPU seconds: a timeslice is kept for a minute.
        "CPU/User Time": {
            "percent": ("total", _per(100)),
            "min_percent": ("minimum", _times(100 / MINUTE)),
            "max_percent": ("maximum", _times(100 / MINUTE)),
        },
        "CPU/.*": {"percent": ("average", _times(100))},
        "Datastore/.*": {name: value for name, value in _CALLS.items() if name != "min_response_time"},
        "External/.*": {
            name: value
            for name, value in _CALLS.items()
            if name not in ("min_response_time", "max_response_time")
        },
        "Custom/.*": {
            "average_value": ("average", _times(1)),
            "min_value": ("minimum", _times(1)),
            "max_value": ("maximum", _times(1)),
            "total_value": ("total", _times(1)),
            "call_count": ("calls", _times(1)),
        },
        ".*": _CALLS,
    }.items()
)
"""The values of a metric, by its name: NerdGraph names metrics alone, where REST v2 names their values too.

How each is made is the vendor's table in apis/rest-api-v2/migrate-to-nrql; the lowest and highest memory and CPU, which
that does not have, are made in the same way.
"""


@dataclass(frozen=True)
class Query:
    """One query of NRQL, from its text and to it.

    Attributes:
        warriors: Agents by their instance ids; empty for all.
        metrics: Names; empty where they are what is asked for.
        step: Seconds of a bucket; 0 where metrics are asked for.
    """

    troop_id: str
    warriors: tuple[str, ...]
    metrics: tuple[str, ...]
    window: Window
    step: int = 0

    @property
    def text(self) -> str:
        """As it is sent."""
        where = f"appId = {_quoted(self.troop_id)}"
        for attribute, names in (("realAgentId", self.warriors), ("metricTimesliceName", self.metrics)):
            where += f" AND {attribute} IN ({','.join(map(_quoted, names))})" if names else ""
        start, end = (int(edge.timestamp()) * 1000 for edge in (self.window.start, self.window.end))
        if self.step:
            select, facet = self._select, "realAgentId, metricTimesliceName"
        else:
            select, facet = f"uniques(metricTimesliceName, {MOST_NAMES}) AS names", "realAgentId, host"
        buckets = f" TIMESERIES {self.step} seconds" if self.step else ""
        return (
            f"SELECT {select} FROM Metric WHERE {where} AND {_VALUE} IS NOT NULL FACET {facet} LIMIT MAX "
            f"SINCE {start} UNTIL {end}{buckets}"
        )

    @property
    def _select(self) -> str:
        """The columns of which the values of these metrics are made."""
        needed = {column for metric in self.metrics for column, _ in formulas(metric).values()} | {"calls"}
        return ", ".join(f"{function} AS {name}" for name, function in _COLUMNS.items() if name in needed)

    @classmethod
    def read(cls, text: str) -> Self:
        """The query of a text; a VendorProtocolError where :attr:`text` did not write it."""
        found = _BODY.fullmatch(text)
        if found is None:
            raise VendorProtocolError(f"a query that was kept cannot be read: {text[:200]!r}")
        names = [
            tuple(_ESCAPED.sub(r"\1", each) for each in _TEXT.findall(found[part] or ""))
            for part in ("troop", "warriors", "metrics")
        ]
        window = Window(*(instant(int(found[edge]) // 1000) for edge in ("start", "end")))
        return cls(names[0][0], names[1], names[2], window, int(found["step"] or 0))

    @property
    def rows(self) -> int:
        """At most so many rows answer it."""
        return len(self.warriors) * len(self.metrics) * int(self.window.seconds) // max(1, self.step)

    def halves(self, leaves: Sequence[Leaf]) -> list[Query]:
        """Two queries in its place; none where it cannot be divided."""
        if not self.step:
            warriors = tuple(leaf.warrior_id for leaf in leaves if leaf.warrior_id)
            if len(warriors) > 1:
                return [replace(self, warriors=half) for half in halved(warriors)]
            halves = [] if warriors else halved_window(self.window, MINUTE)
            return [replace(self, window=half) for half in halves]
        if len(self.metrics) > 1:
            return [replace(self, metrics=half) for half in halved(self.metrics)]
        if len(self.warriors) > 1:
            return [replace(self, warriors=half) for half in halved(self.warriors)]
        return [replace(self, window=half) for half in halved_window(self.window, self.step)]


@dataclass(frozen=True)
class Document:
    """A document of queries.

    Attributes:
        queries: By alias. A part of a document has the aliases of the whole, so that it reads the answer to that.
        values: Names of the values that are wanted, where they are asked for; a comment of the document.
    """

    account: str
    queries: Mapping[str, Query]
    values: tuple[str, ...] = ()

    @classmethod
    def new(cls, account: str, queries: Sequence[Query], values: tuple[str, ...] = ()) -> Self:
        """With aliases of its own."""
        return cls(account, {f"q{number}": query for number, query in enumerate(queries)}, values)

    @property
    def request(self) -> Request:
        """The request that asks all of it."""
        declared = "".join(f",${alias}:Nrql!" for alias in self.queries)
        fields = " ".join(f"{alias}:nrql(query:${alias}){{results}}" for alias in self.queries)
        text = f"query($account:Int!{declared}){{actor{{account(id:$account){{{fields}}}}}}}"
        variables: dict[str, object] = {alias: query.text for alias, query in self.queries.items()}
        variables["account"] = int(self.account or 0)
        if self.values:
            text = f"# values: {json.dumps(self.values)}\n{text}"
        return Request.json(PATH, {"query": text, "variables": variables}, "nrql")

    @property
    def planned(self) -> PlannedRequest:
        """With the leaves that it answers, where it asks for data."""
        leaves = (
            data_leaf(warrior, metric, query.window)
            for query in self.queries.values()
            for warrior in query.warriors
            for metric in query.metrics
        )
        return PlannedRequest(self.request, tuple(leaves))

    def planned_of(self, planned: PlannedRequest) -> PlannedRequest:
        """With those leaves of a larger request that it answers."""
        kept = {leaf.key for query in self.queries.values() for leaf in leaves_of(query, planned.leaves)}
        return PlannedRequest(self.request, tuple(leaf for leaf in planned.leaves if leaf.key in kept))

    @classmethod
    def of(cls, request: Request) -> Self:
        """The document of a request that :attr:`request` made."""
        return cls(*_read_document(request.body))


@lru_cache(maxsize=64)
def _read_document(body: str) -> tuple[str, Mapping[str, Query], tuple[str, ...]]:
    content = json.loads(body)
    variables: dict[str, Any] = content["variables"]
    account = variables.pop("account")
    first, newline, _ = content["query"].partition("\n")
    values = tuple(json.loads(first.removeprefix("# values: "))) if newline else ()
    return str(account), {alias: Query.read(text) for alias, text in variables.items()}, values


def leaves_of(query: Query, leaves: Iterable[Leaf]) -> list[Leaf]:
    """The leaves that a query asks for, in whole or in part; of a list for all agents, all."""
    if not query.step:
        return [leaf for leaf in leaves if not query.warriors or leaf.warrior_id in query.warriors]
    warriors, metrics = set(query.warriors), set(query.metrics)
    return [
        leaf
        for leaf in leaves
        if leaf.warrior_id in warriors
        and leaf.data_group in metrics
        and leaf.window is not None
        and leaf.window.start <= query.window.start
        and query.window.end <= leaf.window.end
    ]


def list_leaf(warrior_id: str) -> Leaf:
    """The leaf of the list of an agent's metrics."""
    return Leaf(warrior_id, warrior_id=warrior_id)


def _quoted(text: str) -> str:
    """A string literal of NRQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def whole_minutes(day: Window) -> Window:
    """A day from its first minute to its last, in whole minutes."""
    first = int(day.start.timestamp()) // MINUTE * MINUTE
    return Window(instant(first), instant(ceil(day.end.timestamp() / MINUTE) * MINUTE))


def cut(day: Window, step: int) -> list[Window]:
    """The day in ranges of whole buckets, which lie on multiples of their length in UTC."""
    first = ceil(day.start.timestamp() / step) * step
    last = max(ceil(day.end.timestamp() / step) * step, first + step)
    longest = MOST_BUCKETS * step
    # Whole hours where that is possible: a range is snapped to the aggregation that is read.
    longest = max(longest // 3600 * 3600 // step, 1) * step
    edges = ((edge, min(edge + longest, last)) for edge in range(first, last, longest))
    return [Window(instant(start), instant(end)) for start, end in edges]


def batches(
    warriors: Sequence[str], groups: Sequence[DataGroup], window: Window, step: int
) -> Iterator[tuple[tuple[str, ...], list[DataGroup]]]:
    """Agents times metrics, cut where a query would have too many rows or grow too long."""
    buckets = int(window.seconds) // step
    facets = max(1, min(MOST_ROWS // buckets, MOST_FACETS - 1))
    room = MOST_CHARACTERS - 700
    batch: list[DataGroup] = []
    batches: list[tuple[list[DataGroup], int]] = []
    used = 0
    for group in groups:
        length = len(_quoted(group.name)) + 1
        if batch and (used + length > room * 3 // 4 or len(batch) == facets):
            batches.append((batch, used))
            batch, used = [], 0
        batch.append(group)
        used += length
    batches.append((batch, used))
    for batch, used in batches:
        some: list[str] = []
        length = used
        for warrior in warriors:
            longer = len(_quoted(warrior)) + 1
            if some and (length + longer > room or (len(some) + 1) * len(batch) > facets):
                yield tuple(some), batch
                some, length = [], used
            some.append(warrior)
            length += longer
        yield tuple(some), batch


def in_documents(queries: Iterable[Query]) -> Iterator[list[Query]]:
    """Queries in order, as many together as a document may have."""
    some: list[Query] = []
    rows = 0
    for query in queries:
        if some and (len(some) == MOST_QUERIES or rows + query.rows > MOST_ROWS_OF_DOCUMENT):
            yield some
            some, rows = [], 0
        some.append(query)
        rows += query.rows
    if some:
        yield some


def formulas(metric: str) -> Mapping[str, Formula]:
    """How the values of a metric are made."""
    return next(values for pattern, values in _FAMILIES if pattern.fullmatch(metric))
