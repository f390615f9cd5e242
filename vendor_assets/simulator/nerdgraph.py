"""The NerdGraph dialect: GraphQL documents over the same world as REST v2.

Pure but for what it counts. Sources, all below docs.newrelic.com/docs: apis/nerdgraph/examples/
nerdgraph-entities-api-tutorial and nerdgraph-nrql-tutorial, apis/nerdgraph/nerdgraph-usage-limits,
nrql/using-nrql/rate-limits-nrql-queries. What is not documented follows what people saw:

- refused keys: newrelic/newrelic-client-go#603 (401, BAD_API_KEY), postmanlabs/postman-app-support#11261 (403
  without the header);
- a time-out: newrelic/nr-reports#8, argoproj/argo-rollouts#3741;
- rows of FACET and TIMESERIES together: newrelic/newrelic-cli#1500; rows of TIMESERIES:
  fifemon/graphql-datasource#68.

Where neither says anything: a query of NRQL over the account's limit fails alone, with TOO_MANY_REQUESTS, since
"queries may be rejected"; a repeated one makes the whole document a 429, as documented; an account that the key
cannot see is ACCESS_DENIED; wrong NRQL is a SERVER_ERROR. An application whose id is no number has no
``applicationId``, which is an Int; its GUID has the id, and has no padding.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graphql import GraphQLError, GraphQLResolveInfo, build_schema, graphql_sync

from vendor_assets.simulator.dialect import Dialect, Reply
from vendor_assets.simulator.faults import Faults
from vendor_assets.simulator.nrql import NrqlError, holds, parse, parse_condition
from vendor_assets.simulator.timeslice_query import guid, plan
from vendor_assets.simulator.world import Troop

TARGET = "/graphql"
ACCOUNT = 1_234_567
ENTITIES_A_PAGE = 200

_SCHEMA = build_schema("""
scalar Nrql
scalar Seconds
scalar EntityGuid
scalar EpochMilliseconds
scalar NrdbResult

type Query { actor: Actor }
type Actor {
  user: User
  account(id: Int!): Account
  accounts: [AccountOutline]
  entitySearch(query: String): EntitySearch
}
type User { email: String id: Int name: String }
type AccountOutline { id: Int name: String }
type Account { id: Int name: String nrql(query: Nrql!, timeout: Seconds): NrdbResultContainer }
type NrdbResultContainer { nrql: Nrql results: [NrdbResult] metadata: NrdbMetadata }
type NrdbMetadata { facets: [String] eventTypes: [String] messages: [String] timeWindow: NrdbMetadataTimeWindow }
type NrdbMetadataTimeWindow { begin: EpochMilliseconds end: EpochMilliseconds }
type EntitySearch { count: Int query: String results(cursor: String): EntitySearchResult }
type EntitySearchResult { entities: [EntityOutline] nextCursor: String }
interface EntityOutline {
  accountId: Int domain: String entityType: String guid: EntityGuid name: String reporting: Boolean type: String
}
type ApmApplicationEntityOutline implements EntityOutline {
  accountId: Int domain: String entityType: String guid: EntityGuid name: String reporting: Boolean type: String
  applicationId: Int language: String
}
""")


@dataclass(slots=True)
class Rules:
    """The account and its limits.

    Args:
        points_per_second: What a query costs: it times out where it reads more timeslices than this in its time.
    """

    account_id: int = ACCOUNT
    requests_at_once: int = 25
    queries_per_minute: int = 3_000
    repeats_per_minute: int = 120
    timeout_seconds: int = 5
    points_per_second: float = 100_000.0


@dataclass
class _Document:
    """One document while it is answered."""

    now: float
    elapsed: float
    paging: str = ""
    timed_out: int | None = None
    """Number of the query that times out on purpose."""
    queries: int = 0
    refused: int = 0
    repeated: bool = False
    leaves: list[str] = field(default_factory=list)


class NerdGraph:
    """Answers documents."""

    def __init__(self, dialect: Dialect, faults: Faults, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._dialect = dialect
        self._faults = faults
        self._recent: deque[float] = deque()
        self._same: dict[str, deque[float]] = {}

    def reply(self, body: bytes, now: float, elapsed: float, fault: str = "") -> Reply:
        """Answer a document.

        Args:
            now: UNIX seconds of the vendor's clock.
            elapsed: Seconds of a monotonic clock, for the limits.
            fault: Kind of the fault that hits the whole document, if one does.
        """
        try:
            request = json.loads(body)
            text, variables = request["query"], request.get("variables") or {}
            if not isinstance(text, str) or not isinstance(variables, dict):
                raise TypeError
        except (ValueError, TypeError, KeyError, AttributeError):
            return refusal(400, "The body is not JSON with a query and its variables.")
        document = _Document(now, elapsed, fault if fault.endswith(("paging", "page")) else "")
        document.timed_out = 0 if fault == "alias_timeout" else None
        result = graphql_sync(
            _SCHEMA,
            text,
            {"actor": self._actor},
            document,
            variables,
            request.get("operationName"),
        )
        queries, refused = document.queries, document.refused
        if document.repeated:
            reply = refusal(429, "Too Many Requests: the same NRQL query is repeated too often.")
            return reply._replace(queries=queries, queries_refused=refused)
        tree: dict[str, Any] = dict(result.formatted)
        if tree.get("data") is None:
            tree.pop("data", None)
        answer = json.dumps(tree, separators=(",", ":")).encode()
        leaves = tuple(dict.fromkeys(document.leaves))
        return Reply("graphql", 200, answer, (), leaves, queries, refused, partial=bool(result.errors))

    # Fields

    def _actor(self, _info: GraphQLResolveInfo) -> dict[str, object]:
        own = {"id": self.rules.account_id, "name": "Embedded vendor"}
        return {
            "user": {"email": "user@example.com", "id": 1, "name": "User"},
            "accounts": [own],
            "account": self._account,
            "entitySearch": self._search,
        }

    def _account(self, _info: GraphQLResolveInfo, id: int) -> dict[str, object]:  # noqa: A002  the schema's name
        if id != self.rules.account_id:
            raise _error(f"Access denied to account {id}", "ACCESS_DENIED")
        return {"id": id, "name": "Embedded vendor", "nrql": self._nrql}

    def _search(self, info: GraphQLResolveInfo, query: str = "") -> dict[str, object]:
        document: _Document = info.context
        try:
            condition = parse_condition(query) if query else None
        except NrqlError as error:
            raise _error(str(error).replace("NRQL", "Entity search"), "BAD_USER_INPUT") from error
        found = [
            entity
            for troop in self._dialect.world.troops(document.now)
            for entity in [self._entity(troop, document.now)]
            if condition is None or holds(condition, {name: _text(value) for name, value in entity.items()})
        ]
        return {"count": len(found), "query": query, "results": self._page(found, query)}

    def _page(self, found: list[dict[str, object]], query: str) -> Callable[..., dict[str, object]]:
        def page(info: GraphQLResolveInfo, cursor: str | None = None) -> dict[str, object]:
            document: _Document = info.context
            start = 0 if cursor is None else _position(cursor, query)
            stop = start + ENTITIES_A_PAGE
            if document.paging == "repeating_page":
                start = 0
            more = stop < len(found) or document.paging
            return {
                "entities": found[start : start + ENTITIES_A_PAGE],
                "nextCursor": _cursor(stop, query) if more else None,
            }

        return page

    def _entity(self, troop: Troop, now: float) -> dict[str, object]:
        return {
            "__typename": "ApmApplicationEntityOutline",
            "accountId": self.rules.account_id,
            "applicationId": int(troop.id) if troop.id.isdecimal() else None,
            "domain": "APM",
            "entityType": "APM_APPLICATION_ENTITY",
            "guid": guid(self.rules.account_id, troop.id),
            "language": troop.language,
            "name": troop.name,
            "reporting": bool(self._dialect.world.warriors(troop.id, now)),
            "type": "APPLICATION",
        }

    def _nrql(self, info: GraphQLResolveInfo, query: str, timeout: int | None = None) -> dict[str, object]:
        document: _Document = info.context
        rules, dialect = self.rules, self._dialect
        number = document.queries
        document.queries += 1
        self._count(document, query)
        fault = self._faults.pick(query, scope="nrql")
        if number == document.timed_out or (fault and fault.kind == "nrql_timeout"):
            raise _timeout()
        if fault:
            raise _error("An error occurred resolving this field", "SERVER_ERROR")
        try:
            parsed = parse(query, document.now)
            reading = plan(parsed, dialect.world, rules.account_id, document.now)
            if reading.points > rules.points_per_second * (timeout or rules.timeout_seconds):
                raise _timeout()
            found = reading.find(*dialect.visible(document.now))
        except NrqlError as error:
            raise _error(str(error), "SERVER_ERROR", errorCode="NRDB:1102004") from error
        document.leaves += found.leaves
        window = reading.window
        return {
            "nrql": query,
            "results": found.rows,
            "metadata": {
                "facets": parsed.facets or None,
                "eventTypes": [parsed.source],
                "messages": [],
                "timeWindow": {"begin": window.begin * 1000, "end": window.end * 1000},
            },
        }

    def _count(self, document: _Document, query: str) -> None:
        """Count a query against both limits."""
        now = document.elapsed
        if len(self._same) > 10_000:
            self._same = {text: times for text, times in self._same.items() if times and times[-1] > now - 60}
        if not _admits(self._recent, self.rules.queries_per_minute, now):
            document.refused += 1
            raise _error("Too many NRQL queries in a minute for this account", "TOO_MANY_REQUESTS")
        if not _admits(self._same.setdefault(query, deque()), self.rules.repeats_per_minute, now):
            document.repeated = True
            raise _error("Too many repetitions of one query", "TOO_MANY_REQUESTS")


def refusal(status: int, message: str, **extensions: str) -> Reply:
    """A document that is not answered: an HTTP status, and ``errors`` alone."""
    error: dict[str, object] = {"message": message}
    if extensions:
        error["extensions"] = extensions
    return Reply("graphql", status, json.dumps({"errors": [error]}).encode())


def refuse_key(key: str) -> Reply:
    """What a missing or wrong key gets."""
    if not key:
        return refusal(403, "Please provide an API key via the `Api-Key` header.")
    return refusal(401, "Bad API Key or no API Key provided", error_code="BAD_API_KEY")


def _admits(recent: deque[float], most: int, now: float) -> bool:
    """Whether one more within the last minute is allowed; if so it is counted."""
    while recent and recent[0] <= now - 60:
        recent.popleft()
    if len(recent) >= most:
        return False
    recent.append(now)
    return True


def _error(message: str, error_class: str, **extensions: str) -> GraphQLError:
    return GraphQLError(message, extensions={"errorClass": error_class, **extensions})


def _timeout() -> GraphQLError:
    return _error("NRDB query duration exceeded the set timeout", "TIMEOUT", errorCode="NRDB:1109")


def _cursor(position: int, query: str) -> str:
    return b64encode(json.dumps([position, query]).encode()).decode()


def _position(cursor: str, query: str) -> int:
    try:
        position, of = json.loads(b64decode(cursor, validate=True))
        if of == query and position >= 0:
            return int(position)
    except (ValueError, TypeError):
        pass
    raise _error("The cursor does not belong to this search", "BAD_USER_INPUT")


def _text(value: object) -> str | None:
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)
