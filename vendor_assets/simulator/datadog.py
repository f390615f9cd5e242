"""Datadog's API over the same world: hosts, tags, metric names and time series.

==============================================  ===================================  ==================
``GET /api/v1/validate``                        is the API key valid                 ``validate``
``GET /api/v1/hosts``                           hosts, up to 1,000 a page            ``hosts``
``GET /api/v1/tags/hosts``, ``…/hosts/NAME``    tags of hosts                        ``hosts``
``GET /api/v1/metrics``                         names of metrics active since        ``metrics_list``
``GET /api/v2/metrics/NAME/all-tags``           tags of a metric in the last hours   ``metrics_list``
``GET /api/v1/query``                           time series                          ``metrics_query``
``POST /api/v2/query/timeseries``               several queries and formulas         ``metrics_query``
==============================================  ===================================  ==================

Sources, below docs.datadoghq.com/api/latest: authentication, hosts, tags, rate-limits,
metrics/get-active-metrics-list, metrics/list-tags-by-metric-name, metrics/query-timeseries-points,
metrics/query-timeseries-data-across-multiple-products. The third column is the bucket of the rate limit and
``X-RateLimit-Name``. Datadog publishes no names, so these are ours; by default the two of metrics have the limits that
were once published (100 and 1,600 an hour), the others have none, and then no headers.

The form of answers and refusals follows what Datadog recorded for the tests of its clients
(DataDog/datadog-api-client-python and -go, cassettes): ``from`` of a metric list is text, ``interval`` is seconds (the
page says milliseconds), ``times`` of v2 are those at which some series has a value, the words of 400, 403 and 404.
A missing application key is a 401 for metrics since 2025 (DataDog/datadog-api-client-python#2670), else a 403.

Where neither says anything, this reading is taken:

- Hosts come 100 at a time unless ``count`` says otherwise, at most 1,000 whatever it says, in no order that means
  anything; ``from`` reaches back 7 days whatever it says; ``filter`` looks for its text anywhere in names, aliases and
  tags, so ``service:a`` finds ``service:ab``.
- A host is up where it reported in the last 2 hours (as hosts/totals says). Every other host is an EC2 instance: it has
  ``aws_id`` in place of ``id``, and its service is a tag of AWS.
- Tags are those of hosts that reported in the last 3 hours, in v1; names of metrics come in no order.
- ``to`` of ``/api/v1/query`` is included, since only v2 calls it exclusive: a bucket that begins there comes too, with
  what was reported in that second.
- Both query endpoints are one bucket, a document of v2 counts once however many queries it has, and a call that is
  refused takes nothing. A rollup of a query goes before ``interval``.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from vendor_assets.simulator.data_groups import mix
from vendor_assets.simulator.datadog_formula import Lines, calculate
from vendor_assets.simulator.datadog_query import Query, QueryError, parse, parse_scope
from vendor_assets.simulator.datadog_series import (
    Line,
    Window,
    answer,
    covered_seconds,
    host_of,
    interval_of,
    lives,
    metrics_of,
    tags_of,
)
from vendor_assets.simulator.dialect import Dialect, Reply
from vendor_assets.simulator.limits import Buckets, parse_bucket_limit
from vendor_assets.simulator.world import Troop, Warrior, World

PREFIX = "/api/"
BUCKETS = {
    "datadog.validate": "validate",
    "datadog.hosts": "hosts",
    "datadog.host_tags": "hosts",
    "datadog.metrics": "metrics_list",
    "datadog.metric_tags": "metrics_list",
    "datadog.query": "metrics_query",
    "datadog.timeseries": "metrics_query",
}
"""The bucket of each endpoint."""
LIMITS = ("metrics_list=100/3600", "metrics_query=1600/3600")
HOSTS_A_PAGE, HOSTS_MOST, TAGGED_HOSTS_MOST = 100, 1_000, 10_000

_HOUR, _DAY = 3600, 86_400
_SORTED_BY = ("status", "apps", "cpu", "iowait", "load")
_TAGS_WINDOW = 4 * _HOUR

Parameters = Mapping[str, str]


class Host(NamedTuple):
    """A host that reported; ``last`` is when, UNIX seconds."""

    warrior: Warrior
    troop: Troop
    last: int


class _BadRequestError(ValueError):
    """A request that is a 400; the message is Datadog's."""


def parse_limits(texts: Iterable[str] = LIMITS) -> Buckets:
    """Read limits such as ``metrics_query=1600/3600``.

    Raises:
        ValueError: One cannot be read, or names no bucket.
    """
    return Buckets([parse_bucket_limit(text, set(BUCKETS.values())) for text in texts])


def endpoint_of(path: str) -> str:
    """The endpoint of a path below ``/api/``."""
    match path.split("/")[1:]:
        case ["api", "v1", "validate" | "hosts" | "metrics" | "query" as name]:
            return f"datadog.{name}"
        case ["api", "v1", "tags", "hosts"] | ["api", "v1", "tags", "hosts", _]:
            return "datadog.host_tags"
        case ["api", "v2", "metrics", _, "all-tags"]:
            return "datadog.metric_tags"
        case ["api", "v2", "query", "timeseries"]:
            return "datadog.timeseries"
    return "datadog.unknown"


def refuse(endpoint: str, status: int, message: str) -> Reply:
    """A refusal as Datadog words it."""
    return Reply(endpoint, status, _json({"errors": [message]}))


def refuse_key(endpoint: str, api_key: str, application_key: str) -> Reply:
    """What a missing or wrong key gets."""
    if api_key and not application_key and BUCKETS.get(endpoint, "").startswith("metrics_"):
        return refuse(endpoint, 401, "Unauthorized")
    body = {
        "status": "error",
        "code": 403,
        "errors": ["Forbidden"],
        "statuspage": "http://status.datadoghq.com",
        "twitter": "http://twitter.com/datadogops",
        "email": "support@datadoghq.com",
    }
    return Reply(endpoint, 403, _json(body))


class Datadog:
    """Replies to requests; pure but for the list of hosts, which it keeps for a minute."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._listed: tuple[tuple[int, int], list[Host]] = ((0, 0), [])

    @property
    def _world(self) -> World:
        return self._dialect.world

    def reply(self, endpoint: str, target: str, body: bytes, now: float, fault: str = "") -> Reply:
        """Reply to a request.

        Args:
            now: UNIX seconds of the vendor's clock.
            fault: Kind of the fault that hits it, if one does.
        """
        parts = urlsplit(target)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        try:
            match endpoint:
                case "datadog.validate":
                    return Reply(endpoint, 200, _json({"valid": True}))
                case "datadog.hosts":
                    return self._hosts(given, now, fault)
                case "datadog.host_tags":
                    return self._host_tags([unquote(part) for part in parts.path.split("/")[5:]], given, now)
                case "datadog.metrics":
                    return self._metrics(given, now)
                case "datadog.metric_tags":
                    return self._metric_tags(unquote(parts.path.split("/")[4]), given, now)
                case "datadog.query":
                    return self._query(given, now, fault)
                case "datadog.timeseries":
                    return self._timeseries(body, now, fault)
        except (QueryError, _BadRequestError) as error:
            return refuse(endpoint, 400, str(error))
        return refuse(endpoint, 404, "Not Found")

    # Hosts and tags

    def _hosts(self, given: Parameters, now: float, fault: str) -> Reply:
        since = _integer(given, "from", int(now) - 3 * _HOUR)
        if since > now:
            raise _invalid("from")
        start, count = _integer(given, "start", 0), _integer(given, "count", HOSTS_A_PAGE, low=1)
        key, direction = given.get("sort_field", ""), given.get("sort_dir", "asc")
        if key not in ("", *_SORTED_BY):
            raise _invalid("sort_field")
        if direction not in ("asc", "desc"):
            raise _invalid("sort_dir")
        found, wanted = self._alive(since, now), given.get("filter", "").lower()
        if wanted:
            found = [
                host
                for host in found
                if any(wanted in text for text in _searched(self._host(host, given, now)))
            ]
        if key:
            found = sorted(
                found,
                key=lambda host: _sort_key(self._host(host, given, now), key),
                reverse=direction == "desc",
            )
        total = len(found)
        if fault == "endless_paging":
            start, total = start % max(1, total), start + 2 * count
        elif fault == "repeating_page":
            start = 0
        page = [self._host(host, given, now) for host in found[start : start + min(count, HOSTS_MOST)]]
        body = {
            "exact_total_matching": True,
            "total_returned": len(page),
            "total_matching": total,
            "host_list": page,
        }
        return Reply("datadog.hosts", 200, _json(body))

    def _alive(self, since: int, now: float) -> list[Host]:
        """The hosts that reported since then, in an order that means nothing; kept, since a list has many pages."""
        until = int(now) // 60 * 60
        since = max(since, int(now) - 7 * _DAY)
        if self._listed[0] != (since // 60, until):
            hosts = {
                warrior.id: Host(warrior, troop, last)
                for troop, warrior, _, _ in lives(self._world, since, until + 1)
                if (last := self._last_reported(warrior, until)) >= since
            }
            self._listed = (
                (since // 60, until),
                sorted(hosts.values(), key=lambda host: mix(1, int(host.warrior.id))),
            )
        return self._listed[1]

    def _last_reported(self, warrior: Warrior, until: int) -> int:
        """The last whole minute until which a warrior reported; 0 where it never did."""
        for minute in range(min(until, warrior.died), warrior.born, -60):
            if covered_seconds(self._world, warrior, minute - 60, minute) > 0:
                return minute
        return until if warrior.born == until else 0

    def _host(self, host: Host, given: Parameters, now: float) -> dict[str, object]:
        warrior, troop, last = host
        name, number = host_of(warrior), int(warrior.id)
        tags = tags_of(warrior, troop.name)
        by_source = {"Datadog": sorted(tags.values())}
        identity: dict[str, object] = {"id": number}
        if number % 2:
            identity = {"aws_id": f"i-{number:017x}", "aws_name": name}
            service = [tags.pop("service")] if "service" in tags else []
            by_source = {
                "Datadog": sorted(tags.values()),
                "Amazon Web Services": ["region:eu-central-1", *service],
            }
        noise = mix(number, last)
        body = identity | {
            "name": name,
            "host_name": name,
            "aliases": [name, f"{name}.internal"],
            "apps": ["agent", troop.language],
            "sources": ["agent", "aws"] if number % 2 else ["agent"],
            "tags_by_source": by_source,
            "last_reported_time": last,
            "up": last >= now - 2 * _HOUR,
            "is_muted": False,
            "mute_timeout": None,
            "metrics": {"load": noise % 400 / 100, "iowait": noise % 7 / 100, "cpu": noise % 10_000 / 100},
        }
        if given.get("include_hosts_metadata", "").lower() == "true":
            body["meta"] = {
                "agent_version": "7.60.0",
                "platform": "linux",
                "machine": "amd64",
                "host_id": number,
            }
        return body

    def _host_tags(self, names: list[str], given: Parameters, now: float) -> Reply:
        source = given.get("source", "").lower()
        if source not in ("", "datadog", "amazon web services", "users"):
            return refuse("datadog.host_tags", 404, "Provided source does not exist")
        hosts = [self._host(host, {}, now) for host in self._alive(int(now) - 3 * _HOUR, now)]
        if names:
            hosts = [host for host in hosts if host["name"] == names[0]]
            if not hosts:
                return refuse("datadog.host_tags", 404, "No host matches that host_id")
            return Reply("datadog.host_tags", 200, _json({"tags": list(_tags(hosts[0], source))}))
        by_tag: dict[str, list[object]] = defaultdict(list)
        for host in hosts[:TAGGED_HOSTS_MOST]:
            for text in _tags(host, source):
                by_tag[text].append(host["name"])
        return Reply("datadog.host_tags", 200, _json({"tags": by_tag}))

    # Names

    def _metrics(self, given: Parameters, now: float) -> Reply:
        if "from" not in given:
            raise _invalid("from")
        since = _integer(given, "from", 0)
        if "host" in given and "tag_filter" in given:
            raise _BadRequestError("tag_filter cannot be combined with other filters")
        scope = parse_scope(given.get("tag_filter", "*"))
        names: dict[str, None] = {}
        for warrior, tags in self._reporting(since, now):
            if given.get("host", host_of(warrior)) == host_of(warrior) and scope.holds(
                frozenset(tags.values())
            ):
                names |= dict.fromkeys(metrics_of(self._world.data_groups(warrior.id)))
        shuffled = sorted(names, key=lambda name: mix(len(name), sum(name.encode())))
        return Reply("datadog.metrics", 200, _json({"metrics": shuffled, "from": given["from"]}))

    def _metric_tags(self, metric: str, given: Parameters, now: float) -> Reply:
        seconds = _integer(given, "window[seconds]", _TAGS_WINDOW, low=_TAGS_WINDOW)
        scope = parse_scope(given.get("filter[tags]", "*"))
        found: dict[str, None] = {}
        for warrior, tags in self._reporting(int(now) - seconds, now):
            groups = self._world.data_groups(warrior.id)
            if metric in metrics_of(groups) and scope.holds(frozenset(tags.values())):
                found |= dict.fromkeys(tags.values())
        data = {"type": "metrics", "id": metric, "attributes": {"tags": sorted(found)}}
        return Reply("datadog.metric_tags", 200, _json({"data": data}))

    def _reporting(self, since: int, now: float) -> Iterable[tuple[Warrior, dict[str, str]]]:
        """The warriors that reported since then, and their tags then."""
        earliest, visible_until = self._dialect.visible(now)
        begin, end = max(since, int(earliest)), int(visible_until)
        for troop, warrior, start, stop in lives(self._world, begin, end) if begin < end else ():
            if covered_seconds(self._world, warrior, max(begin, start), min(end, stop)) > 0:
                yield warrior, tags_of(warrior, troop.name)

    # Time series

    def _query(self, given: Parameters, now: float, fault: str) -> Reply:
        for name in ("from", "to", "query"):
            if name not in given:
                raise _invalid(name)
        begin, end = _integer(given, "from", 0), _integer(given, "to", 0)
        if not begin < end < 10**11:
            raise _invalid("to")
        head: dict[str, object] = {
            "status": "ok",
            "resp_version": 1,
            "res_type": "time_series",
            "from_date": begin * 1000,
            "to_date": end * 1000,
            "query": given["query"],
        }
        if fault == "status_error":
            failed = {"status": "error", "error": "Query timed out, please try again", "series": []}
            return Reply("datadog.query", 200, _json(head | failed))
        queries = parse(given["query"])
        series, leaves = [], list[str]()
        for index, query in enumerate(queries):
            interval = interval_of(begin, end, query.interval) * (2 if fault == "wrong_interval" else 1)
            window = Window(begin, end + 1, end, interval)
            lines = answer(query, self._world, window, *self._dialect.visible(now))
            series += [_v1_series(query, line, index, interval) for line in lines]
            leaves += [f"{leaf} {begin}-{end}/{interval}" for line in lines for leaf in line.leaves]
        body = head | {
            "message": "",
            "group_by": list(queries[0].by),
            "series": series,
            "times": [],
            "values": [],
        }
        return Reply("datadog.query", 200, _json(body), (), tuple(dict.fromkeys(leaves)))

    def _timeseries(self, body: bytes, now: float, fault: str) -> Reply:
        if fault == "status_error":
            return refuse("datadog.timeseries", 200, "Query timed out, please try again")
        asked = _attributes(body)
        begin, end = -(-asked["from"] // 1000), -(-asked["to"] // 1000)
        earliest, visible_until = self._dialect.visible(now)
        if end <= earliest:
            raise _BadRequestError("Queries ending outside the retention date are invalid")
        by_name: dict[str, Lines] = {}
        units: dict[tuple[str, tuple[str, ...]], object] = {}
        leaves: list[str] = []
        for name, text in asked["queries"].items():
            query = _only(parse(text))
            interval = interval_of(begin, end - 1, query.interval or math.ceil(asked["interval"] / 1000))
            interval *= 2 if fault == "wrong_interval" else 1
            window = Window(begin, end, end - 1, interval)
            lines = answer(query, self._world, window, earliest, visible_until)
            by_name[name] = {line.tags: line.values for line in lines}
            units |= {(name, line.tags): line.unit for line in lines}
            leaves += [f"{leaf} {begin}-{end}/{interval}" for line in lines for leaf in line.leaves]
        found = [
            (index, tags, values, units.get((formula, tags)))
            for index, formula in enumerate(asked["formulas"] or by_name)
            for tags, values in (
                by_name[formula] if formula in by_name else calculate(formula, by_name)
            ).items()
        ]
        times = sorted({at for _, _, values, _ in found for at, value in values.items() if value is not None})
        attributes = {
            "series": [
                {"group_tags": list(tags), "query_index": index, "unit": unit}
                for index, tags, _, unit in found
            ],
            "times": [at * 1000 for at in times],
            "values": [[values.get(at) for at in times] for _, _, values, _ in found],
        }
        data = {"id": "0", "type": "timeseries_response", "attributes": attributes}
        return Reply("datadog.timeseries", 200, _json({"data": data}), (), tuple(dict.fromkeys(leaves)))


def _v1_series(query: Query, line: Line, index: int, interval: int) -> dict[str, object]:
    points = list(line.values.items())
    scope = ",".join(sorted({*query.scope.tags, *line.tags})) or "*"
    prefix = f"{query.aggregator}:" if query.aggregator else ""
    return {
        "metric": query.metric,
        "display_name": query.metric,
        "aggr": query.aggregator,
        "query_index": index,
        "attributes": {},
        "scope": scope,
        "tag_set": list(line.tags),
        "expression": f"{prefix}{query.metric}{{{scope}}}{query.modifiers}",
        "unit": line.unit,
        "interval": interval,
        "start": points[0][0] * 1000,
        "end": (points[-1][0] + interval - 1) * 1000,
        "length": len(points),
        "pointlist": [[start * 1000.0, value] for start, value in points],
    }


# Requests


def _integer(given: Parameters, name: str, usual: int, low: int = 0) -> int:
    text = given.get(name, str(usual))
    if not (text.isascii() and text.isdecimal() and len(text) < 13 and int(text) >= low):
        raise _invalid(name)
    return int(text)


def _invalid(name: str) -> _BadRequestError:
    return _BadRequestError(f"The value provided for parameter '{name}' is invalid")


def _only(queries: list[Query]) -> Query:
    if len(queries) != 1:
        raise _BadRequestError("API input validation failed: one query a name")
    return queries[0]


def _attributes(body: bytes) -> dict[str, Any]:
    """What a document of v2 asks for: ``queries`` by name, the texts of ``formulas``, and the numbers.

    Raises:
        _BadRequestError: It is no such document.
    """
    try:
        data = json.loads(body)["data"]
        kind, given = data["type"], {"formulas": [], "interval": 0} | data["attributes"]
        queries = {
            one.get("name", f"query{number}"): one["query"] for number, one in enumerate(given["queries"])
        }
        formulas = [one["formula"].strip() for one in given["formulas"]]
        sources = [one["data_source"] for one in given["queries"]]
        numbers = {name: given[name] for name in ("from", "to", "interval")}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _BadRequestError(f"API input validation failed: {error}") from None
    if kind != "timeseries_request":
        raise _BadRequestError('API input validation failed: Invalid type. Expected "timeseries_request".')
    if set(sources) != {"metrics"} or len(queries) != len(sources):
        raise _BadRequestError(
            "API input validation failed: queries are of the data source metrics, each by its name"
        )
    if not all(isinstance(text, str) for text in (*queries, *queries.values())):
        raise _BadRequestError("API input validation failed: a query or its name is no text")
    if any(type(number) is not int for number in numbers.values()):
        raise _BadRequestError("API input validation failed: from, to and interval are milliseconds")
    if not 0 <= numbers["from"] < numbers["to"] < 10**14 or numbers["interval"] < 0:
        raise _BadRequestError("API input validation failed: from, to or interval is out of range")
    return {"queries": queries, "formulas": formulas, **numbers}


# Hosts as answers have them


def _tags(host: Mapping[str, Any], source: str = "") -> Iterable[str]:
    for name, tags in host["tags_by_source"].items():
        if source in ("", name.lower()):
            yield from tags


def _searched(host: Mapping[str, Any]) -> Iterable[str]:
    yield from host["aliases"]
    yield from _tags(host)


def _sort_key(host: Mapping[str, Any], field: str) -> tuple[float, str]:
    if field == "apps":
        return 0.0, str(host["apps"])
    return float(host["up"] if field == "status" else host["metrics"][field]), ""


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
