"""New Relic's NerdGraph: applications by entity search, their agents and metrics by NRQL over metric timeslices.

It goes on where the REST API v2 ends: ids, names, values and units are those of :mod:`vendor_assets.vendors.new_relic`.

Sources, below docs.newrelic.com/docs: apis/nerdgraph/examples/nerdgraph-entities-api-tutorial and
nerdgraph-nrql-tutorial, apis/rest-api-v2/migrate-to-nrql (from REST values to functions),
apis/nerdgraph/nerdgraph-usage-limits, nrql/nrql-syntax-clauses-functions.
A field that failed is null, and ``errors`` says why: newrelic/nr-reports#8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, isfinite
from typing import Any, ClassVar, Final, Self, TypeGuard

from vendor_assets.days import Window
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.presentable import presentable
from vendor_assets.vendors.base import (
    Asset,
    DataGroup,
    Failure,
    Leaf,
    Means,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
    as_attributes,
    data_leaf,
    group_columns,
    halved,
    halved_window,
    instant,
    is_name,
    iso,
    read_object,
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

_PATH: Final = "/graphql"
_VALUE: Final = "newrelic.timeslice.value"
_MINUTE: Final = 60
_SEARCH: Final = (
    "query($account:Int!,$search:String!,$cursor:String){actor{account(id:$account){id}"
    "entitySearch(query:$search){results(cursor:$cursor)"
    "{nextCursor entities{guid name reporting ...on ApmApplicationEntityOutline{applicationId language}}}}}}"
)
_ACCOUNT: Final = re.compile(r"[1-9][0-9]{0,17}")
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

Formula = tuple[str, Callable[[float, float], float]]
"""The column that a value is made of, and how: from what it holds and the bucket's seconds."""


def _times(factor: float) -> Callable[[float, float], float]:
    return lambda number, _: number * factor


def _per(seconds: float) -> Callable[[float, float], float]:
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
            "min_percent": ("minimum", _times(100 / _MINUTE)),
            "max_percent": ("maximum", _times(100 / _MINUTE)),
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

_MEANS: Final[Mapping[str, Means]] = {
    "TOO_MANY_REQUESTS": "throttled",
    "UNAUTHORIZED": "key_refused",
    "FORBIDDEN": "key_refused",
    "ACCESS_DENIED": "key_refused",
    "BAD_USER_INPUT": "refused",
    "GRAPHQL_VALIDATION_FAILED": "refused",
}
"""What the class of an error means; any other, like TIMEOUT and SERVER_ERROR, may be gone the next time."""


class NerdGraph(Vendor):
    """NerdGraph for one account, whose number is ``VENDOR_ACCOUNT``.

    The metrics of all agents of an application come in few queries, faceted by agent and metric, and up to five queries
    in one document. One query lists an application's agents and their metrics. Only agents and metrics that reported
    within the day are listed. A query is planned far below what is left out without a word; an answer that is at such
    a limit counts as too large.

    Every bucket of the range comes, also those in which an agent was away: one in which none of its metrics has a call
    has no rows. An average without a call is null. Where a query is answered in longer buckets than asked, the rows
    say so.
    """

    kind: ClassVar[str] = "nerdgraph"
    title: ClassVar[str] = "New Relic (NerdGraph)"
    documented_limits: ClassVar[tuple[str, ...]] = ("3000 queries/min",)
    """Of NRQL, for each account. Source: nrql/using-nrql/rate-limits-nrql-queries."""
    most_in_flight: ClassVar[int | None] = 25
    """For each user. Source: apis/nerdgraph/nerdgraph-usage-limits."""
    warriors_at_once: ClassVar[int] = MOST_FACETS
    one_list: ClassVar[bool] = True
    page_headers: ClassVar[tuple[str, ...]] = ("content-type",)

    def __init__(self, account: str = "") -> None:
        self._account = account

    @classmethod
    def configured(cls, account: str, options: Mapping[str, str]) -> Self:  # noqa: ARG003
        """For one account; a ConfigurationError where that is no number."""
        if not _ACCOUNT.fullmatch(account):
            raise ConfigurationError(
                f"VENDOR_ACCOUNT={account[:40]!r} is no account of New Relic; give its number, like 1234567"
            )
        return cls(account)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """The user key's header."""
        return {"Api-Key": api_key}

    def check_resolution(self, resolution_seconds: int) -> None:
        """Whole minutes; a ConfigurationError for anything else."""
        if resolution_seconds < _MINUTE or resolution_seconds % _MINUTE:
            raise ConfigurationError(
                f"resolution {resolution_seconds} s cannot be had: New Relic keeps data by the minute; "
                "take a multiple of 60, like 1800"
            )

    def throttled(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Also a document of which a query was too many."""
        if status != 200 or b"TOO_MANY_REQUESTS" not in body:
            return super().throttled(status, headers, body)
        with suppress(ValueError, RecursionError, AttributeError):
            return any(each.means == "throttled" for each in _errors(json.loads(body)))
        return False

    def counts(self, request: Request) -> Mapping[str, int]:
        """Its queries of NRQL."""
        return {"queries": len(_Document.of(request).queries) if request.endpoint == "nrql" else 0}

    def probe(self) -> Request:
        """Whose key it is."""
        return Request.json(_PATH, {"query": "{actor{user{id}}}"}, "user")

    def troops(self, day: Window) -> PlannedRequest:  # noqa: ARG002  the search knows only the present
        """All applications of the account."""
        return PlannedRequest(self._search(None), (Leaf("troops"),))

    def _search(self, cursor: str | None) -> Request:
        search = f"domain = 'APM' AND type = 'APPLICATION' AND accountId = {self._account}"
        # A search of an account that the key does not reach is empty; asking for the account itself is refused.
        variables = {"account": int(self._account), "search": search, "cursor": cursor}
        return Request.json(_PATH, {"query": _SEARCH, "variables": variables}, "entity_search")

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        """The agents that reported in the day, by their instance ids, with their metrics."""
        return PlannedRequest(self._list(troop_id, (), _whole_minutes(day)), (Leaf("warriors"),))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """The metrics of one agent."""
        return PlannedRequest(
            self._list(troop_id, (warrior_id,), _whole_minutes(day)), (_list_leaf(warrior_id),)
        )

    def data_groups_of(self, troop_id: str, warrior_ids: Sequence[str], day: Window) -> list[PlannedRequest]:
        """The metrics of all agents, by the query that lists the agents."""
        return [
            PlannedRequest(self._list(troop_id, (), _whole_minutes(day)), tuple(map(_list_leaf, warrior_ids)))
        ]

    def _list(self, troop_id: str, warriors: tuple[str, ...], window: Window) -> Request:
        return _Document.new(self._account, [_Query(troop_id, warriors, (), window)]).request

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """As :meth:`performance_data_of`, for one agent."""
        return self.performance_data_of(troop_id, {warrior_id: groups}, day, resolution_seconds)

    def performance_data_of(
        self,
        troop_id: str,
        groups: Mapping[str, Sequence[DataGroup]],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """Agents that have the same metrics in one query, as far as its rows go. Raises as :meth:`check_resolution`."""
        self.check_resolution(resolution_seconds)
        alike: dict[tuple[DataGroup, ...], list[str]] = {}
        for warrior_id, of_warrior in groups.items():
            wanted = tuple(group for group in of_warrior if group.value_names)
            if wanted:
                alike.setdefault(wanted, []).append(warrior_id)
        queries = [
            _Query(troop_id, warriors, tuple(group.name for group in some), window, resolution_seconds)
            for window in _cut(day, resolution_seconds)
            for shared, of_them in alike.items()
            for warriors, some in _batches(of_them, shared, window, resolution_seconds)
        ]
        values = {name: group.value_names for all_of in alike for group in all_of for name in (group.name,)}
        return [self._planned(some, values) for some in _in_documents(queries)]

    def _planned(self, queries: Sequence[_Query], values: Mapping[str, tuple[str, ...]]) -> PlannedRequest:
        names = dict.fromkeys(
            name for query in queries for metric in query.metrics for name in values[metric]
        )
        return _Document.new(self._account, queries, tuple(names)).planned

    def part(self, planned: PlannedRequest, leaves: Collection[str]) -> PlannedRequest:
        """The queries of a document that ask for some leaves."""
        wanted = tuple(leaf for leaf in planned.leaves if leaf.key in set(leaves))
        document = _Document.of(planned.request)
        queries = {alias: query for alias, query in document.queries.items() if _leaves_of(query, wanted)}
        return PlannedRequest(replace(document, queries=queries).request, wanted)

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves: by queries, else by metrics, else by agents, else by time."""
        if planned.request.endpoint != "nrql":
            return []
        document = _Document.of(planned.request)
        if len(document.queries) > 1:
            halves = [
                {alias: document.queries[alias] for alias in half} for half in halved(tuple(document.queries))
            ]
        else:
            ((alias, query),) = document.queries.items()
            halves = [{alias: half} for half in query.halves(planned.leaves)]
        return [replace(document, queries=half).planned_of(planned) for half in halves]

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer.

        Raises:
            VendorProtocolError: It is no answer to a document, or without the part that holds the records.
        """
        content = read_object(response)
        errors = list(_errors(content))
        if asset == "troops":
            return self._entities(content, errors, planned)
        document = _Document.of(planned.request)
        parsed = Parsed()
        rows: list[tuple[_Query, list[Any]]] = []
        for alias, query in document.queries.items():
            failure = _failure_of(alias, content, errors)
            found = _at(content, "data", "actor", "account", alias, "results")
            if failure is None and not isinstance(found, list):
                failure = ("failed", f"{alias} has no results")
            if failure is None:
                failure = query.too_large(found)
            if failure is None:
                rows.append((query, found))
            else:
                keys = tuple(leaf.key for leaf in _leaves_of(query, planned.leaves))
                parsed.failures.append(Failure(keys, *failure))
        if asset == "performance_data":
            _Rows(parsed, document.values).read(rows, planned)
        elif asset == "warriors":
            _warriors(parsed, rows)
        else:
            _data_groups(parsed, rows)
        return parsed

    def _entities(
        self, content: Mapping[str, Any], errors: Sequence[_Error], planned: PlannedRequest
    ) -> Parsed:
        results = _at(content, "data", "actor", "entitySearch", "results")
        actor = _at(content, "data", "actor")
        if isinstance(actor, dict) and actor.get("account", self) is None and not errors:
            errors = [_Error("key_refused", f"the key has no access to account {self._account}", ())]
        if errors or not isinstance(results, dict) or not isinstance(results.get("entities"), list):
            error = errors[0] if errors else _Error("failed", "there are no entities", ())
            keys = tuple(leaf.key for leaf in planned.leaves)
            return Parsed(
                {"troop_id": [], "name": [], "attributes": []},
                failures=[Failure(keys, error.means, error.message)],
            )
        ids: list[object] = []
        names: list[object] = []
        attributes: list[object] = []
        parsed = Parsed({"troop_id": ids, "name": names, "attributes": attributes})
        for entity in results["entities"]:
            identity = entity.get("applicationId") if isinstance(entity, dict) else None
            name = entity.get("name") if isinstance(entity, dict) else None
            if not isinstance(identity, int) or isinstance(identity, bool):
                parsed.reject("applicationId is no number", entity)
            elif not (name is None or name == "" or is_name(name)):
                parsed.reject("name is no text", entity)
            else:
                ids.append(str(identity))
                names.append(name)
                rest = {key: entity[key] for key in entity if key not in ("applicationId", "name")}
                attributes.append(as_attributes(rest))
        cursor = results.get("nextCursor")
        if cursor is not None:
            if not is_name(cursor):
                raise VendorProtocolError("nextCursor is no text")
            parsed.next = self._search(cursor)
        return parsed


# Documents and queries


@dataclass(frozen=True)
class _Query:
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
        needed = {column for metric in self.metrics for column, _ in _formulas(metric).values()} | {"calls"}
        return ", ".join(f"{function} AS {name}" for name, function in _COLUMNS.items() if name in needed)

    @classmethod
    def read(cls, text: str) -> Self:
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

    def halves(self, leaves: Sequence[Leaf]) -> list[_Query]:
        """Two queries in its place; none where it cannot be divided."""
        if not self.step:
            warriors = tuple(leaf.warrior_id for leaf in leaves if leaf.warrior_id)
            if len(warriors) > 1:
                return [replace(self, warriors=half) for half in halved(warriors)]
            halves = [] if warriors else halved_window(self.window, _MINUTE)
            return [replace(self, window=half) for half in halves]
        if len(self.metrics) > 1:
            return [replace(self, metrics=half) for half in halved(self.metrics)]
        if len(self.warriors) > 1:
            return [replace(self, warriors=half) for half in halved(self.warriors)]
        return [replace(self, window=half) for half in halved_window(self.window, self.step)]

    def too_large(self, rows: Sequence[Any]) -> tuple[Means, str] | None:
        """Whether so much came that more may have been left out."""
        if len(rows) >= MOST_FACETS:
            facets = {str(row.get("facet")) for row in rows if isinstance(row, dict)}
            if len(facets) >= MOST_FACETS:
                return "too_large", f"there are {MOST_FACETS} facets, which is where the rest is left out"
        if not self.step:
            for row in rows:
                names = row.get("names") if isinstance(row, dict) else None
                if isinstance(names, list) and len(names) >= MOST_NAMES:
                    return (
                        "too_large",
                        f"an agent has {MOST_NAMES} metrics, which is where the rest is left out",
                    )
        return None


@dataclass(frozen=True)
class _Document:
    """A document of queries.

    Attributes:
        queries: By alias. A part of a document has the aliases of the whole, so that it reads the answer to that.
        values: Names of the values that are wanted, where they are asked for; a comment of the document.
    """

    account: str
    queries: Mapping[str, _Query]
    values: tuple[str, ...] = ()

    @classmethod
    def new(cls, account: str, queries: Sequence[_Query], values: tuple[str, ...] = ()) -> Self:
        return cls(account, {f"q{number}": query for number, query in enumerate(queries)}, values)

    @property
    def request(self) -> Request:
        declared = "".join(f",${alias}:Nrql!" for alias in self.queries)
        fields = " ".join(f"{alias}:nrql(query:${alias}){{results}}" for alias in self.queries)
        text = f"query($account:Int!{declared}){{actor{{account(id:$account){{{fields}}}}}}}"
        variables: dict[str, object] = {alias: query.text for alias, query in self.queries.items()}
        variables["account"] = int(self.account or 0)
        if self.values:
            text = f"# values: {json.dumps(self.values)}\n{text}"
        return Request.json(_PATH, {"query": text, "variables": variables}, "nrql")

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
        kept = {leaf.key for query in self.queries.values() for leaf in _leaves_of(query, planned.leaves)}
        return PlannedRequest(self.request, tuple(leaf for leaf in planned.leaves if leaf.key in kept))

    @classmethod
    def of(cls, request: Request) -> Self:
        return cls(*_read_document(request.body))


@lru_cache(maxsize=64)
def _read_document(body: str) -> tuple[str, Mapping[str, _Query], tuple[str, ...]]:
    content = json.loads(body)
    variables: dict[str, Any] = content["variables"]
    account = variables.pop("account")
    first, newline, _ = content["query"].partition("\n")
    values = tuple(json.loads(first.removeprefix("# values: "))) if newline else ()
    return str(account), {alias: _Query.read(text) for alias, text in variables.items()}, values


def _leaves_of(query: _Query, leaves: Iterable[Leaf]) -> list[Leaf]:
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


def _list_leaf(warrior_id: str) -> Leaf:
    return Leaf(warrior_id, warrior_id=warrior_id)


def _quoted(text: str) -> str:
    """A string literal of NRQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _whole_minutes(day: Window) -> Window:
    first = int(day.start.timestamp()) // _MINUTE * _MINUTE
    return Window(instant(first), instant(ceil(day.end.timestamp() / _MINUTE) * _MINUTE))


def _cut(day: Window, step: int) -> list[Window]:
    """The day in ranges of whole buckets, which lie on multiples of their length in UTC."""
    first = ceil(day.start.timestamp() / step) * step
    last = max(ceil(day.end.timestamp() / step) * step, first + step)
    longest = MOST_BUCKETS * step
    # Whole hours where that is possible: a range is snapped to the aggregation that is read.
    longest = max(longest // 3600 * 3600 // step, 1) * step
    edges = ((edge, min(edge + longest, last)) for edge in range(first, last, longest))
    return [Window(instant(start), instant(end)) for start, end in edges]


def _batches(
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


def _in_documents(queries: Iterable[_Query]) -> Iterator[list[_Query]]:
    some: list[_Query] = []
    rows = 0
    for query in queries:
        if some and (len(some) == MOST_QUERIES or rows + query.rows > MOST_ROWS_OF_DOCUMENT):
            yield some
            some, rows = [], 0
        some.append(query)
        rows += query.rows
    if some:
        yield some


# Answers


@dataclass(frozen=True)
class _Error:
    """One of the ``errors`` of a document."""

    means: Means
    message: str
    path: tuple[object, ...]


def _errors(content: Mapping[str, Any]) -> Iterator[_Error]:
    errors = content.get("errors") or []
    for error in errors if isinstance(errors, list) else [errors]:
        known = error if isinstance(error, dict) else {"message": error}
        extensions = known.get("extensions")
        kind = extensions.get("errorClass") if isinstance(extensions, dict) else None
        path = known.get("path")
        means = _MEANS.get(kind, "failed") if isinstance(kind, str) else "failed"
        message = presentable(known.get("message"))
        yield _Error(
            means,
            f"{presentable(kind)}: {message}" if kind else message,
            tuple(path) if isinstance(path, list) else (),
        )


def _failure_of(alias: str, content: Mapping[str, Any], errors: Iterable[_Error]) -> tuple[Means, str] | None:
    """Why a query of a document was not answered: its own error, or one of the document."""
    for error in errors:
        if error.path[2:3] == (alias,) or alias not in (_at(content, "data", "actor", "account") or {}):
            return error.means, error.message
        if len(error.path) < 3:
            return error.means, error.message
    return None


def _at(content: object, *path: str) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _formulas(metric: str) -> Mapping[str, Formula]:
    """How the values of a metric are made."""
    return next(values for pattern, values in _FAMILIES if pattern.fullmatch(metric))


def _facet(row: object) -> tuple[str, str] | None:
    facet = row.get("facet") if isinstance(row, dict) else None
    if isinstance(facet, list) and len(facet) == 2 and all(map(is_name, facet)):
        return facet[0], facet[1]
    return None


def _warriors(parsed: Parsed, rows: Iterable[tuple[_Query, list[Any]]]) -> None:
    hosts: dict[str, str] = {}
    for _, found in rows:
        for row in found:
            if (facet := _facet(row)) is None:
                parsed.reject("facet is not an agent's id and its host", row)
            else:
                hosts[facet[0]] = facet[1]
    parsed.columns = {
        "warrior_id": list(hosts),
        "name": list(hosts.values()),
        "attributes": ["{}"] * len(hosts),
    }


def _data_groups(parsed: Parsed, rows: Iterable[tuple[_Query, list[Any]]]) -> None:
    """The metrics of all agents that a list names, also of those that a filter leaves out: it may take them later."""
    found: dict[str, dict[str, list[str]]] = {}
    for _, of_query in rows:
        for row in of_query:
            facet, names = _facet(row), row.get("names") if isinstance(row, dict) else None
            if facet is None or not isinstance(names, list):
                parsed.reject("there is no agent with a list of names", row)
                continue
            for name in names:
                if not is_name(name):
                    parsed.reject("a metric's name is no text", {"facet": list(facet), "name": name})
                else:
                    found.setdefault(facet[0], {})[name] = list(_formulas(name))
    columns = [group_columns(warrior, names) for warrior, names in found.items()]
    parsed.columns = {
        name: [value for each in columns for value in each[name]] for name in group_columns("", {})
    }


class _Rows:
    """Reads rows of buckets into columns."""

    def __init__(self, parsed: Parsed, values: Iterable[str]) -> None:
        self._parsed = parsed
        self._wanted = set(values)
        self._columns: dict[str, list[object]] = {
            name: []
            for name in (
                "warrior_id", "data_group", "value_name", "timeslice_start", "timeslice_end", "value", "weight"
            )
        }  # fmt: skip
        self._made: dict[str, list[tuple[str, Formula]]] = {}

    def read(self, rows: Sequence[tuple[_Query, list[Any]]], planned: PlannedRequest) -> None:
        asked = {(leaf.warrior_id, leaf.data_group) for leaf in planned.leaves}
        alive = {
            (facet[0], row.get("beginTimeSeconds"))
            for _, found in rows
            for row in found
            if (facet := _facet(row)) is not None and row.get("calls")
        }
        # Errors alone do not tell whether an agent was there: it may have had none.
        judged = {warrior for warrior, metric in asked if not metric.startswith("Errors/")}
        for query, found in rows:
            first, last = (int(edge.timestamp()) for edge in (query.window.start, query.window.end))
            edges: set[tuple[int, int]] = set()
            for row in found:
                facet = _facet(row)
                if facet is None:
                    self._parsed.reject("facet is not an agent's id and a metric's name", row)
                elif facet not in asked:
                    self._parsed.reject("the metric of this agent was not asked for", row)
                elif facet[0] not in judged or (facet[0], row.get("beginTimeSeconds")) in alive:
                    edges |= self._row(*facet, row)
            self._parsed.incomplete = self._parsed.incomplete or _misfit(edges, first, last, query.step)
        self._parsed.columns = self._columns

    def _row(self, warrior: str, metric: str, row: Mapping[str, Any]) -> set[tuple[int, int]]:
        start, end = row.get("beginTimeSeconds"), row.get("endTimeSeconds")
        if not _is_second(start) or not _is_second(end) or start >= end:
            self._parsed.reject("beginTimeSeconds and endTimeSeconds are no range of time", row)
            return set()
        calls = row.get("calls")
        made: list[tuple[str, float | None]] = []
        for name, (column, make) in self._values_of(metric):
            number = row.get(column)
            if column == "apdex" and isinstance(number, dict):
                number = number.get(name)
            if number is None:
                made.append((name, None))
            elif isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
                self._parsed.reject(f"{column} is no finite number", row)
            else:
                made.append((name, make(float(number), end - start)))
        columns = self._columns
        count = len(made)
        columns["warrior_id"] += [warrior] * count
        columns["data_group"] += [metric] * count
        columns["value_name"] += [name for name, _ in made]
        columns["timeslice_start"] += [start * 1_000_000] * count
        columns["timeslice_end"] += [end * 1_000_000] * count
        columns["value"] += [value for _, value in made]
        weight = float(calls) if isinstance(calls, int | float) and not isinstance(calls, bool) else None
        columns["weight"] += [weight if name.startswith("average_") else None for name, _ in made]
        return {(start, end)}

    def _values_of(self, metric: str) -> list[tuple[str, Formula]]:
        if metric not in self._made:
            formulas = _formulas(metric).items()
            self._made[metric] = [(name, made) for name, made in formulas if name in self._wanted]
        return self._made[metric]


def _is_second(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 946_684_800 <= value < 4_102_444_800


def _misfit(edges: set[tuple[int, int]], first: int, last: int, step: int) -> str:
    """In which way buckets are not those of the range that was asked for; they may be longer."""
    until = 0
    for start, end in sorted(edges):
        length = end - start
        if length % step or start % step or start < until or start >= last or end <= first:
            return (
                f"there is a bucket from {iso(start * 1_000_000)} to {iso(end * 1_000_000)}, where "
                f"{iso(first * 1_000_000)} to {iso(last * 1_000_000)} was asked for every {step} s"
            )
        until = end
    return ""
