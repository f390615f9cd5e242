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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress, groupby
from math import isfinite
from operator import attrgetter
from typing import Any, ClassVar, Final, Literal, Self, TypeGuard

import msgspec
import numpy as np

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
    group_columns,
    halved,
    is_name,
    iso,
    json_body,
    read_object,
)
from vendor_assets.vendors.columns import Run, RunColumns
from vendor_assets.vendors.nrql import (
    MINUTE,
    MOST_FACETS,
    MOST_NAMES,
    PATH,
    Document,
    Formula,
    Query,
    batches,
    cut,
    formulas,
    in_documents,
    leaves_of,
    list_leaf,
    whole_minutes,
)

_SEARCH: Final = (
    "query($account:Int!,$search:String!,$cursor:String){actor{account(id:$account){id}"
    "entitySearch(query:$search){results(cursor:$cursor)"
    "{nextCursor entities{guid name reporting ...on ApmApplicationEntityOutline{applicationId language}}}}}}"
)
_ALIAS: Final = re.compile(r"q\d+")
_ACCOUNT: Final = re.compile(r"[1-9][0-9]{0,17}")
_YEAR_2000: Final = 946_684_800
_YEAR_2100: Final = 4_102_444_800
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
    """Source: apis/nerdgraph/nerdgraph-usage-limits."""
    most_in_flight_of: ClassVar[Literal["account", "user"]] = "user"
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
                f"VENDOR_ACCOUNT={account[:40]!r} is not a New Relic account; give its number, like 1234567"
            )
        return cls(account)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """The user key's header."""
        return {"Api-Key": api_key}

    def check_resolution(self, resolution_seconds: int) -> None:
        """Whole minutes; a ConfigurationError for anything else."""
        if resolution_seconds < MINUTE or resolution_seconds % MINUTE:
            raise ConfigurationError(
                f"resolution {resolution_seconds} s is not available: New Relic keeps data by the minute; "
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
        return {"queries": len(Document.of(request).queries) if request.endpoint == "nrql" else 0}

    def probe(self) -> Request:
        """Whose key it is."""
        return Request.json(PATH, {"query": "{actor{user{id}}}"}, "user")

    def troops(self, day: Window) -> PlannedRequest:  # noqa: ARG002  the search knows only the present
        """All applications of the account."""
        return PlannedRequest(self._search(None), (Leaf("troops"),))

    def _search(self, cursor: str | None) -> Request:
        search = f"domain = 'APM' AND type = 'APPLICATION' AND accountId = {self._account}"
        # A search of an account that the key does not reach is empty; asking for the account itself is refused.
        variables = {"account": int(self._account), "search": search, "cursor": cursor}
        return Request.json(PATH, {"query": _SEARCH, "variables": variables}, "entity_search")

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        """The agents that reported in the day, by their instance ids, with their metrics."""
        return PlannedRequest(self._list(troop_id, (), whole_minutes(day)), (Leaf("warriors"),))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """The metrics of one agent."""
        return PlannedRequest(
            self._list(troop_id, (warrior_id,), whole_minutes(day)), (list_leaf(warrior_id),)
        )

    def data_groups_of(self, troop_id: str, warrior_ids: Sequence[str], day: Window) -> list[PlannedRequest]:
        """The metrics of all agents, by the query that lists the agents."""
        return [
            PlannedRequest(self._list(troop_id, (), whole_minutes(day)), tuple(map(list_leaf, warrior_ids)))
        ]

    def _list(self, troop_id: str, warriors: tuple[str, ...], window: Window) -> Request:
        return Document.new(self._account, [Query(troop_id, warriors, (), window)]).request

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
            Query(troop_id, warriors, tuple(group.name for group in some), window, resolution_seconds)
            for window in cut(day, resolution_seconds)
            for shared, of_them in alike.items()
            for warriors, some in batches(of_them, shared, window, resolution_seconds)
        ]
        values = {name: group.value_names for all_of in alike for group in all_of for name in (group.name,)}
        return [self._planned(some, values) for some in in_documents(queries)]

    def _planned(self, queries: Sequence[Query], values: Mapping[str, tuple[str, ...]]) -> PlannedRequest:
        names = dict.fromkeys(
            name for query in queries for metric in query.metrics for name in values[metric]
        )
        return Document.new(self._account, queries, tuple(names)).planned

    def part(self, planned: PlannedRequest, leaves: Collection[str]) -> PlannedRequest:
        """The queries of a document that ask for some leaves."""
        wanted = tuple(leaf for leaf in planned.leaves if leaf.key in set(leaves))
        document = Document.of(planned.request)
        queries = {alias: query for alias, query in document.queries.items() if leaves_of(query, wanted)}
        return PlannedRequest(replace(document, queries=queries).request, wanted)

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves: by queries, else by metrics, else by agents, else by time."""
        if planned.request.endpoint != "nrql":
            return []
        document = Document.of(planned.request)
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
        if asset == "performance_data" and (plain := _Plain.read(planned, response)):
            return Parsed(plain.columns(), incomplete=plain.misfit)
        content = read_object(response)
        errors = list(_errors(content))
        if asset == "troops":
            return self._entities(content, errors, planned)
        document = Document.of(planned.request)
        parsed = Parsed()
        rows: list[tuple[Query, list[Any]]] = []
        for alias, query in document.queries.items():
            failure = _failure_of(alias, content, errors)
            found = _at(content, "data", "actor", "account", alias, "results")
            if failure is None and not isinstance(found, list):
                failure = ("failed", f"{alias} has no results")
            if failure is None:
                failure = _too_large(query, found)
            if failure is None:
                rows.append((query, found))
            else:
                keys = tuple(leaf.key for leaf in leaves_of(query, planned.leaves))
                parsed.failures.append(Failure(keys, *failure))
        if asset == "performance_data":
            _Rows(parsed, document.values).read(rows, planned)
        elif asset == "warriors":
            _warriors(parsed, rows)
        else:
            _data_groups(parsed, rows)
        return parsed

    def judge(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """As :meth:`parse`, but without columns for an answer in which nothing is odd."""
        if asset == "performance_data" and (plain := _Plain.read(planned, response)):
            return Parsed(incomplete=plain.misfit)
        return self.parse(asset, planned, response)

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
                parsed.reject("applicationId is not a number", entity)
            elif not (name is None or name == "" or is_name(name)):
                parsed.reject("name is not a string", entity)
            else:
                ids.append(str(identity))
                names.append(name)
                rest = {key: entity[key] for key in entity if key not in ("applicationId", "name")}
                attributes.append(as_attributes(rest))
        cursor = results.get("nextCursor")
        if cursor is not None:
            if not is_name(cursor):
                raise VendorProtocolError("nextCursor is not a string")
            parsed.next = self._search(cursor)
        return parsed


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
    """Why a query of a document was not answered: its own error, or one that is of no other."""
    for error in errors:
        named = [each for each in error.path if isinstance(each, str) and _ALIAS.fullmatch(each)]
        if not named or alias in named or alias not in (_at(content, "data", "actor", "account") or {}):
            return error.means, error.message
    return None


def _too_large(query: Query, rows: Sequence[Any]) -> tuple[Means, str] | None:
    """Whether so much came that more may have been left out."""
    if len(rows) >= MOST_FACETS:
        facets = {str(row.get("facet")) for row in rows if isinstance(row, dict)}
        if len(facets) >= MOST_FACETS:
            return "too_large", f"there are {MOST_FACETS} facets, which is where the rest is left out"
    if not query.step:
        for row in rows:
            names = row.get("names") if isinstance(row, dict) else None
            if isinstance(names, list) and len(names) >= MOST_NAMES:
                return "too_large", f"an agent has {MOST_NAMES} metrics, which is where the rest is left out"
    return None


def _at(content: object, *path: str) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _facet(row: object) -> tuple[str, str] | None:
    facet = row.get("facet") if isinstance(row, dict) else None
    if isinstance(facet, list) and len(facet) == 2 and all(map(is_name, facet)):
        return facet[0], facet[1]
    return None


def _warriors(parsed: Parsed, rows: Iterable[tuple[Query, list[Any]]]) -> None:
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


def _data_groups(parsed: Parsed, rows: Iterable[tuple[Query, list[Any]]]) -> None:
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
                    parsed.reject("a metric's name is not a string", {"facet": list(facet), "name": name})
                else:
                    found.setdefault(facet[0], {})[name] = list(formulas(name))
    columns = [group_columns(warrior, names) for warrior, names in found.items()]
    parsed.columns = {
        name: [value for each in columns for value in each[name]] for name in group_columns("", {})
    }


class _Apdex(msgspec.Struct, gc=False):
    score: float | None = None
    s: float | None = None
    t: float | None = None
    f: float | None = None
    count: float | None = None


class _Bucket(msgspec.Struct, gc=False):
    facet: tuple[str, str]
    start: int = msgspec.field(name="beginTimeSeconds")
    end: int = msgspec.field(name="endTimeSeconds")
    calls: float | None = None
    total: float | None = None
    average: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    exclusive: float | None = None
    apdex: _Apdex | None = None


class _Results(msgspec.Struct):
    results: list[_Bucket]


class _Account(msgspec.Struct):
    account: dict[str, _Results]


class _Actor(msgspec.Struct):
    actor: _Account


class _Answer(msgspec.Struct):
    """An answer to queries for data; what msgspec reads of it, ``json`` reads in the same way."""

    data: _Actor
    errors: Any = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class _Values:
    """The values of each metric that are wanted, with how they are made."""

    def __init__(self, names: Iterable[str]) -> None:
        self._wanted = set(names)
        self._made: dict[str, list[tuple[str, Formula]]] = {}

    def of(self, metric: str) -> list[tuple[str, Formula]]:
        if metric not in self._made:
            made = formulas(metric).items()
            self._made[metric] = [(name, formula) for name, formula in made if name in self._wanted]
        return self._made[metric]


class _PlainRows:
    """The rows of a query, all of metrics that were asked for, each with sound times.

    Attributes:
        edges: Start and end of each row's bucket, UNIX seconds.
        kept: Which rows are of a bucket in which their agent was there.
    """

    def __init__(self, query: Query, buckets: list[_Bucket]) -> None:
        self.query = query
        self.buckets = buckets
        starts, ends = [bucket.start for bucket in buckets], [bucket.end for bucket in buckets]
        self.edges = np.array([starts, ends], np.int64).T
        self.kept = np.ones(len(buckets), bool)
        self.facets: list[tuple[tuple[str, str], slice]] = []
        """Of rows that follow each other."""
        at = 0
        for facet, run in groupby([bucket.facet for bucket in buckets]):
            until = at + sum(1 for _ in run)
            self.facets.append((facet, slice(at, until)))
            at = until

    def are_sound(self, asked: set[tuple[str, str]]) -> bool:
        starts, ends = self.edges.T
        sound = (starts >= _YEAR_2000) & (starts < ends) & (ends < _YEAR_2100)
        return bool(sound.all()) and asked.issuperset(facet for facet, _ in self.facets)

    def misfit(self) -> str:
        window = self.query.window
        first, last = (int(edge.timestamp()) for edge in (window.start, window.end))
        edges = {(bucket.start, bucket.end) for bucket in compress(self.buckets, self.kept)}
        return _misfit(edges, first, last, self.query.step)

    def read(self, values: _Values) -> Iterator[tuple[Run, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Runs, each with its values and weights, a line for each bucket; NaN stands for null."""
        for (warrior, metric), run in self.facets:
            kept = self.kept[run]
            buckets = list(compress(self.buckets[run], kept)) if not kept.all() else self.buckets[run]
            edges = self.edges[run][kept]
            seconds = edges[:, 1] - edges[:, 0]
            wanted = values.of(metric)
            numbers = np.empty((len(buckets), len(wanted)))
            weights = np.full_like(numbers, np.nan)
            for place, (name, (column, make)) in enumerate(wanted):
                with np.errstate(over="ignore"):
                    numbers[:, place] = make(_numbers(buckets, column, name), seconds)
                if name.startswith("average_"):
                    weights[:, place] = _numbers(buckets, "calls", name)
            names = tuple(name for name, _ in wanted)
            yield Run(warrior, metric, names, edges * 1_000_000), numbers.ravel(), weights.ravel()


def _numbers(buckets: Sequence[_Bucket], column: str, name: str) -> np.ndarray[Any, Any]:
    """What a column holds of a value; NaN where it is null."""
    if column == "apdex":
        found = [getattr(bucket.apdex, name, None) for bucket in buckets]
    else:
        found = list(map(attrgetter(column), buckets))
    return np.array(found, np.float64)


@dataclass(frozen=True)
class _Plain:
    """An answer to queries for data in which nothing is odd: all of them answered, and nothing to put aside.

    It says what :class:`_Rows` would say of it, which reads all others.

    Attributes:
        misfit: In which way buckets are not those that were asked for.
    """

    values: _Values
    rows: list[_PlainRows]
    misfit: str

    @classmethod
    def read(cls, planned: PlannedRequest, response: Response) -> Self | None:
        """All of an answer but its columns; None where something is odd."""
        body = json_body(response)
        try:
            body.decode()  # also what is in no field of ours
            answer = _ANSWER.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        document, account = Document.of(planned.request), answer.data.actor.account
        if answer.errors or not document.queries.keys() <= account.keys():
            return None
        asked = {(leaf.warrior_id, leaf.data_group) for leaf in planned.leaves}
        found: list[_PlainRows] = []
        for alias, query in document.queries.items():
            try:
                rows = _PlainRows(query, account[alias].results)
            except OverflowError:
                return None
            if len(rows.facets) >= MOST_FACETS or not rows.are_sound(asked):
                return None
            found.append(rows)
        _leave_out_who_was_away(found, asked)
        misfits = (rows.misfit() for rows in found)
        return cls(_Values(document.values), found, next(filter(None, misfits), ""))

    def columns(self) -> RunColumns:
        """The columns of its rows."""
        read = [each for rows in self.rows for each in rows.read(self.values)]
        numbers = np.concatenate([np.empty(0), *(each for _, each, _ in read)])
        weights = np.concatenate([np.empty(0), *(each for _, _, each in read)])
        return RunColumns([run for run, _, _ in read], numbers, weights)


def _judged(asked: Iterable[tuple[str, str]]) -> set[str]:
    """Agents that have no rows of a bucket in which none of their metrics has a call.

    Errors alone do not tell whether an agent was there: it may have had none.
    """
    return {warrior for warrior, metric in asked if not metric.startswith("Errors/")}


def _leave_out_who_was_away(found: list[_PlainRows], asked: Iterable[tuple[str, str]]) -> None:
    if all(bucket.calls for rows in found for bucket in rows.buckets):
        return
    alive = {(bucket.facet[0], bucket.start) for rows in found for bucket in rows.buckets if bucket.calls}
    judged = _judged(asked)
    for rows in found:
        there = (
            (bucket.facet[0], bucket.start) in alive or bucket.facet[0] not in judged
            for bucket in rows.buckets
        )
        rows.kept = np.fromiter(there, bool, len(rows.buckets))


class _Rows:
    """Reads any rows of buckets into columns, one at a time."""

    def __init__(self, parsed: Parsed, values: Iterable[str]) -> None:
        self._parsed = parsed
        self._values = _Values(values)
        self._columns: dict[str, list[object]] = {
            name: []
            for name in (
                "warrior_id", "data_group", "value_name", "timeslice_start", "timeslice_end", "value", "weight"
            )
        }  # fmt: skip

    def read(self, rows: Sequence[tuple[Query, list[Any]]], planned: PlannedRequest) -> None:
        asked = {(leaf.warrior_id, leaf.data_group) for leaf in planned.leaves}
        alive = {
            (facet[0], row.get("beginTimeSeconds"))
            for _, found in rows
            for row in found
            if (facet := _facet(row)) is not None and row.get("calls")
        }
        judged = _judged(asked)
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
            self._parsed.reject("beginTimeSeconds and endTimeSeconds are not a time range", row)
            return set()
        calls = row.get("calls")
        made: list[tuple[str, float | None]] = []
        for name, (column, make) in self._values.of(metric):
            number = row.get(column)
            if column == "apdex" and isinstance(number, dict):
                number = number.get(name)
            if number is None:
                made.append((name, None))
            elif (finite := _finite(number)) is None:
                self._parsed.reject(f"{column} is not a finite number", row)
            else:
                made.append((name, make(finite, end - start)))
        columns = self._columns
        count = len(made)
        columns["warrior_id"] += [warrior] * count
        columns["data_group"] += [metric] * count
        columns["value_name"] += [name for name, _ in made]
        columns["timeslice_start"] += [start * 1_000_000] * count
        columns["timeslice_end"] += [end * 1_000_000] * count
        columns["value"] += [value for _, value in made]
        weight = _finite(calls)
        columns["weight"] += [weight if name.startswith("average_") else None for name, _ in made]
        return {(start, end)}


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with suppress(OverflowError):
        return float(value) if isfinite(value) else None
    return None


def _is_second(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and _YEAR_2000 <= value < _YEAR_2100


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
