"""Amazon CloudWatch over the same world, in AWS JSON 1.0: ``ListMetrics`` and ``GetMetricData``, each ``POST /``.

A namespace is the name of a troop, a warrior an instance with the dimension ``InstanceId``, every other one with
``AutoScalingGroupName`` too; a data group is a metric with all statistics.

Sources: docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference (API_ListMetrics, API_GetMetricData, API_MetricStat,
API_MetricDataResult, CommonErrors) and monitoring/cloudwatch_limits.html, repost.aws/knowledge-center/
cloudwatch-getmetricdata-api (numbers), smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html, and botocore's model of
the service (names, forms, statuses).

Where these say nothing, this reading is taken:

- A metric is listed once it is 15 minutes old; lists come in no order that means anything, and a token goes on with the
  list as it was.
- Points lie at whole periods from the start of the range, after it was rounded. The last one covers its whole period,
  beyond the end of the range.
- Metrics of more points than a call may have come query by query; one that a page does not reach is on it, empty and
  ``PartialData``. A query that an earlier page completed is on no later one.
- Limits are buckets that hold a second of each. Points count as asked for, whether they exist or not, at most those of
  a page. A call that is refused takes nothing.
- Metrics are of regular resolution: a period below a minute has no points.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from vendor_assets.simulator.data_groups import DataGroup, mix
from vendor_assets.simulator.datadog_series import covered_seconds, lives
from vendor_assets.simulator.dialect import Dialect, Reply
from vendor_assets.simulator.limits import CallLimit, Meter
from vendor_assets.simulator.world import Warrior

PATH = "/"
OPERATIONS = ("ListMetrics", "GetMetricData")
_PREFIX = "GraniteServiceVersion20100801."
_HOUR, _DAY = 3600, 86_400
LISTED_SECONDS, RECENT_SECONDS, APPEARS_AFTER_SECONDS = 14 * _DAY, 3 * _HOUR + 50 * 60, 15 * 60
QUERIES_MOST, DATAPOINTS_MOST = 500, 100_800
RETAINED = ((15 * _DAY, 60), (63 * _DAY, 300), (455 * _DAY, 3600))
"""Age of the start in seconds, and the period up to that: of older data, periods are multiples of the next one."""
_PERIODS = (1, 5, 10, 20, 30)
_ID = re.compile(r"[a-z][A-Za-z0-9_]{0,254}")
_RANK = re.compile(r"p(100|\d{1,2}(?:\.\d{1,10})?)")
_NAMED = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")


@dataclass
class Rules:
    """Quotas of a region, and sizes of pages.

    Args:
        list_metrics: Calls a second; likewise ``get_metric_data``.
        datapoints: A second, where the range starts more than three hours ago; else ``recent_datapoints``.
        page: Metrics on a page.
        page_datapoints: Points on a page, at most.
        account: Whose metrics these are.
    """

    list_metrics: int = 25
    get_metric_data: int = 50
    datapoints: int = 396_000
    recent_datapoints: int = 180_000
    page: int = 500
    page_datapoints: int = DATAPOINTS_MOST
    region: str = "us-east-1"
    account: str = "123456789012"


def parse_rules(texts: Iterable[str]) -> Rules:
    """Read rules such as ``get_metric_data=5``.

    Raises:
        ValueError: One cannot be read, or is none.
    """
    rules = asdict(Rules())
    for text in texts:
        name, _, value = text.partition("=")
        if name not in rules:
            raise ValueError(f"{text!r} is none of {', '.join(rules)}, such as page=20")
        rules[name] = type(rules[name])(value)
    return Rules(**rules)


class Metric(NamedTuple):
    """A metric; ``dimensions`` are in the order of their names."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]


class Query(NamedTuple):
    """One of the queries of a call."""

    id: str
    metric: Metric
    period: int
    stat: str
    account: str


class _RefusedError(ValueError):
    """A request that is a 400.

    Args:
        code: Of the error.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def endpoint_of(headers: Mapping[str, str]) -> str:
    """The endpoint of a request by its ``X-Amz-Target``."""
    name = headers.get("x-amz-target", "").removeprefix(_PREFIX)
    return f"cloudwatch.{name}" if name in OPERATIONS else "cloudwatch.unknown"


def refuse(endpoint: str, status: int, message: str, code: str = "") -> Reply:
    """A refusal in AWS JSON, with the header that services have which once spoke the query protocol."""
    code = code or {500: "InternalServiceFault", 503: "ServiceUnavailable"}.get(status, "ValidationError")
    body = {"__type": f"com.amazonaws.cloudwatch.v2010_08_01#{code}", "message": message}
    fault = "Receiver" if status >= 500 else "Sender"
    return Reply(endpoint, status, _json(body), (("x-amzn-query-error", f"{code};{fault}"),))


def namespace_of(troop: str) -> str:
    """A troop's name as a namespace: printable ASCII, not more than 255 characters, no colon at the start."""
    return re.sub(r"[^ -~]", "_", troop)[:255].strip().lstrip(":") or "_"


def metric_name_of(group: DataGroup) -> str:
    """A data group's name as that of a metric."""
    return re.sub(r"[^ -~]", "_", group.name)[:255]


def dimensions_of(warrior: Warrior, namespace: str) -> tuple[tuple[str, str], ...]:
    """What tells a warrior from others of its namespace, in the order of names."""
    group = (("AutoScalingGroupName", namespace),) if int(warrior.id) % 2 else ()
    return (*group, ("InstanceId", f"i-{int(warrior.id):017x}"))


def statistic(stat: str, group: DataGroup, values: Sequence[float], minutes: float) -> float:
    """A statistic of what a data group has in some minutes: a sample is a call, a minute where none are counted."""
    named = dict(zip(group.value_names, values, strict=True))
    count = named.get("call_count", named.get("count", max(1.0, math.ceil(minutes))))
    average = named["error_count"] / count if "error_count" in named else values[0]
    low = min(average, *(value for name, value in named.items() if name.startswith("min_")), average)
    high = max(average, *(value for name, value in named.items() if name.startswith("max_")), average)
    if stat in _NAMED:
        return dict(zip(_NAMED, (average, average * count, low, high, count), strict=True))[stat]
    return min(high, low + (high - low) * (float(stat[1:]) / 100) ** 4)


class CloudWatch:
    """Replies to requests; keeps lists for a minute, and how much of each quota is used."""

    def __init__(self, dialect: Dialect, rules: Rules) -> None:
        self._dialect = dialect
        self._rules = rules
        self._meters: dict[tuple[str, int], Meter] = {}
        self._listed = lru_cache(maxsize=8)(self._listed_between)
        self._alive = lru_cache(maxsize=64)(self._alive_between)

    def reply(self, endpoint: str, body: bytes, now: float, arrived: float, fault: str = "") -> Reply:
        """Reply to a request whose signature is right.

        Args:
            now: UNIX seconds of the vendor's clock.
            arrived: Seconds of a monotonic clock, for quotas.
            fault: Kind of the fault that hits it, if one does.
        """
        try:
            given = _document(body)
            if fault == "throttle":
                raise _RefusedError("ThrottlingException", "Rate exceeded")
            if endpoint == "cloudwatch.ListMetrics":
                self._admit({"list_metrics": 1}, arrived)
                return Reply(endpoint, 200, _json(self._list(given, now, fault)))
            if endpoint == "cloudwatch.GetMetricData":
                return self._data(given, now, arrived, fault)
            raise _RefusedError("UnknownOperationException", "")
        except _RefusedError as error:
            reply = refuse(endpoint, 400, str(error), error.code)
            return reply._replace(throttled=error.code == "ThrottlingException")

    def _admit(self, takes: Mapping[str, int], arrived: float) -> None:
        meters = []
        for name in takes:
            amount = getattr(self._rules, name)
            usual = Meter(CallLimit(amount, 1.0))
            meters.append(self._meters.setdefault((name, amount), usual))
        if any(meter.remaining(arrived) < takes[name] for meter, name in zip(meters, takes, strict=True)):
            raise _RefusedError("ThrottlingException", "Rate exceeded")
        for meter, count in zip(meters, takes.values(), strict=True):
            meter.take(arrived, count)

    # Lists

    def _list(self, given: Mapping[str, Any], now: float, fault: str) -> dict[str, object]:
        token, digest = given.get("NextToken"), _digest(given)
        minute, offset = (int(now) // 60, 0) if token is None else _read_token(token, digest)
        recent = given.get("RecentlyActive")
        if recent not in (None, "PT3H"):
            raise _invalid("RecentlyActive")
        until = minute * 60 - APPEARS_AFTER_SECONDS
        filters = [(each.get("Name"), each.get("Value")) for each in given.get("Dimensions", ())]
        if len(filters) > 10:
            raise _invalid("Dimensions")
        owner = given.get("OwningAccount")
        linked = bool(given.get("IncludeLinkedAccounts"))
        if owner is not None and not linked:
            raise _RefusedError("InvalidParameterCombination", "OwningAccount needs IncludeLinkedAccounts")
        found = [
            metric
            for metric in self._listed(minute * 60 - (RECENT_SECONDS if recent else LISTED_SECONDS), until)
            if given.get("Namespace", metric.namespace) == metric.namespace
            if given.get("MetricName", metric.name) == metric.name
            if owner in (None, self._rules.account)
            if all(
                any(name == key and value in (None, text) for key, text in metric.dimensions)
                for name, value in filters
            )
        ]
        total, size = len(found), self._rules.page
        if fault == "endless_paging":
            offset, total = offset % max(1, total), offset + 2 * size
        start = 0 if fault == "repeating_page" else offset
        page = found[start : start + size]
        answer: dict[str, object] = {"Metrics": [_shown(metric) for metric in page]}
        if linked:
            answer["OwningAccounts"] = [self._rules.account] * len(page)
        if offset + size < total or fault == "repeating_page":
            answer["NextToken"] = _token(digest, minute, offset + size)
        return answer

    def _listed_between(self, since: int, until: int) -> list[Metric]:
        found: dict[Metric, None] = {}
        world = self._dialect.world
        for troop, warrior, start, stop in lives(world, since, until) if since < until else ():
            if covered_seconds(world, warrior, max(since, start), min(until, stop)) > 0:
                namespace = namespace_of(troop.name)
                dimensions = dimensions_of(warrior, namespace)
                found |= {
                    Metric(namespace, metric_name_of(group), dimensions): None
                    for group in world.data_groups(warrior.id)
                    if group.value_names
                }
        return sorted(found, key=lambda metric: mix(1, int(_digest(metric._asdict()), 16)))

    # Data

    def _data(self, given: Mapping[str, Any], now: float, arrived: float, fault: str) -> Reply:
        queries = _queries(given)
        start, end = _range(given, now)
        descending = given.get("ScanBy", "TimestampDescending")
        if descending not in ("TimestampDescending", "TimestampAscending"):
            raise _invalid("ScanBy")
        most = given.get("MaxDatapoints", DATAPOINTS_MOST)
        if type(most) is not int or not 0 < most <= DATAPOINTS_MOST:
            raise _invalid("MaxDatapoints")
        most = min(most, self._rules.page_datapoints)
        asked = sum(-(-(end - start) // query.period) for query in queries)
        recent = now - start <= 3 * _HOUR
        self._admit(
            {"get_metric_data": 1, "recent_datapoints" if recent else "datapoints": min(asked, most)}, arrived
        )
        if fault == "early_page":
            most = max(1, most // 2, min(most, asked // 2))
        digest = _digest(given)
        token = given.get("NextToken")
        place, offset = (0, 0) if token is None else _read_token(token, digest)
        results: list[dict[str, object]] = []
        leaves: list[str] = []
        following = None
        for index in range(place, len(queries)):
            query = queries[index]
            points = [] if following else self._points(query, start, end, now)
            if descending == "TimestampDescending":
                points.reverse()
            skipped = offset if index == place else 0
            shown = points[skipped : skipped + most]
            most -= len(shown)
            if following is None and skipped + len(shown) < len(points):
                following = _token(digest, index, skipped + len(shown))
            elif following is None and most == 0 and index + 1 < len(queries):
                following = _token(digest, index + 1, 0)
                results.append(_result(query, shown, "Complete"))
                continue
            results.append(_result(query, shown, "PartialData" if following else "Complete"))
            if shown and not following:
                dimensions = ",".join(value for _, value in query.metric.dimensions)
                leaves.append(f"{dimensions} {query.metric.name} {query.stat} {start}-{end}/{query.period}")
            if query.account not in ("", self._rules.account):
                results[-1] = _result(query, [], "Forbidden", "Access to this account is not permitted")
        _fail(fault, results)
        answer: dict[str, object] = {"MetricDataResults": results, "Messages": []}
        if following:
            answer["NextToken"] = following
        if fault == "message":
            answer["Messages"] = [
                {"Code": "MaxMetricsExceeded", "Value": "Maximum number of allowed metrics exceeded"}
            ]
        return Reply("cloudwatch.GetMetricData", 200, _json(answer), (), tuple(dict.fromkeys(leaves)))

    def _points(self, query: Query, start: int, end: int, now: float) -> list[tuple[int, float]]:
        age = now - start
        coarsest = next((period for oldest, period in RETAINED if age <= oldest), 0)
        if not coarsest or query.period % coarsest:
            return []
        earliest, visible = self._dialect.visible(now)
        points = []
        for warrior, group, low, high in self._alive(start, end + query.period).get(query.metric, ()):
            series = self._dialect.world.series(warrior.id, group.name)
            if series is None:
                continue
            for begin in range(start, end, query.period):
                first, last = max(begin, low), min(begin + query.period, high)
                values = series.values(first, last, visible) if begin >= earliest and first < last else None
                if values is not None:
                    covered = covered_seconds(self._dialect.world, warrior, first, min(last, visible))
                    points.append((begin, statistic(query.stat, group, values, covered / 60)))
        return sorted(dict(points).items())

    def _alive_between(self, begin: int, end: int) -> dict[Metric, list[tuple[Warrior, DataGroup, int, int]]]:
        """What is behind each metric in a range: a warrior, its data group, and from when until when."""
        found: dict[Metric, list[tuple[Warrior, DataGroup, int, int]]] = {}
        for troop, warrior, start, stop in lives(self._dialect.world, begin, end):
            namespace = namespace_of(troop.name)
            for group in self._dialect.world.data_groups(warrior.id):
                if group.value_names:
                    metric = Metric(namespace, metric_name_of(group), dimensions_of(warrior, namespace))
                    found.setdefault(metric, []).append((warrior, group, start, stop))
        return found


# Requests


def _document(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise _RefusedError("SerializationException", "")
    return given


def _range(given: Mapping[str, Any], now: float) -> tuple[int, int]:
    """Start and end in UNIX seconds; the start is rounded down by its age."""
    start, end = given.get("StartTime"), given.get("EndTime")
    if isinstance(start, bool) or not isinstance(start, int | float) or not 0 <= start < 1e10:
        raise _invalid("StartTime")
    if isinstance(end, bool) or not isinstance(end, int | float) or not 0 <= end < 1e10:
        raise _invalid("EndTime")
    whole = next((period for oldest, period in RETAINED if now - start < oldest), _HOUR)
    if start >= end:
        raise _RefusedError(
            "ValidationError", "The parameter StartTime must be less than the parameter EndTime."
        )
    return int(start) // whole * whole, math.ceil(end)


def _queries(given: Mapping[str, Any]) -> list[Query]:
    found = given.get("MetricDataQueries")
    if not isinstance(found, list) or not 0 < len(found) <= QUERIES_MOST:
        raise _RefusedError(
            "ValidationError", f"The collection MetricDataQueries must have a size from 1 to {QUERIES_MOST}."
        )
    queries = []
    for each in found:
        try:
            stat, metric = each["MetricStat"], each["MetricStat"]["Metric"]
            dimensions = sorted((one["Name"], one["Value"]) for one in metric.get("Dimensions", ()))
            query = Query(
                each["Id"],
                Metric(metric["Namespace"], metric["MetricName"], tuple(dimensions)),
                stat["Period"],
                stat["Stat"],
                each.get("AccountId", ""),
            )
            texts = (query.id, query.stat, query.account, *query.metric[:2], *sum(dimensions, ()))
        except (TypeError, KeyError, AttributeError) as error:
            raise _RefusedError("ValidationError", f"A MetricDataQuery is not complete: {error}") from None
        if type(query.period) is not int or (
            query.period not in _PERIODS and (query.period < 1 or query.period % 60)
        ):
            raise _RefusedError("ValidationError", "Period must be 1, 5, 10, 20, 30, 60 or a multiple of 60.")
        if not all(isinstance(text, str) for text in texts) or not _ID.fullmatch(query.id):
            raise _RefusedError("ValidationError", "Id must begin with a lower-case letter.")
        if query.stat not in _NAMED and not _RANK.fullmatch(query.stat):
            raise _RefusedError("ValidationError", f"Invalid statistic {query.stat}")
        queries.append(query)
    if len({query.id for query in queries}) < len(queries):
        raise _RefusedError(
            "ValidationError", "The values for parameter Id in MetricDataQueries are not unique."
        )
    return queries


def _invalid(name: str) -> _RefusedError:
    return _RefusedError("InvalidParameterValue", f"The value for parameter {name} is invalid.")


# Pages


def _digest(given: Mapping[str, Any]) -> str:
    """What tells a request from others, whatever page is asked for."""
    rest = {name: value for name, value in given.items() if name != "NextToken"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:15]


def _token(digest: str, first: int, second: int) -> str:
    return base64.b64encode(f"{digest}.{first}.{second}".encode()).decode()


def _read_token(token: object, digest: str) -> tuple[int, int]:
    try:
        of, first, second = base64.b64decode(str(token), validate=True).decode().split(".")
        if of == digest:
            return int(first), int(second)
    except (ValueError, binascii.Error):
        pass
    raise _RefusedError("InvalidNextToken", "The next token specified is invalid.")


# Answers


def _shown(metric: Metric) -> dict[str, object]:
    dimensions = [{"Name": name, "Value": value} for name, value in metric.dimensions]
    return {"Namespace": metric.namespace, "MetricName": metric.name, "Dimensions": dimensions}


def _result(
    query: Query, points: Sequence[tuple[int, float]], status: str, message: str = ""
) -> dict[str, object]:
    messages = [{"Code": status, "Value": message}] if message else []
    return {
        "Id": query.id,
        "Label": f"{query.metric.name} {query.stat}",
        "Timestamps": [float(time) for time, _ in points],
        "Values": [value for _, value in points],
        "StatusCode": status,
        "Messages": messages,
    }


def _fail(fault: str, results: list[dict[str, Any]]) -> None:
    """Let every other result fail, beginning with the first."""
    if fault not in ("partial_data", "internal_error", "forbidden"):
        return
    for result in results[::2]:
        half = len(result["Values"]) // 2 if fault == "partial_data" else 0
        result["Timestamps"], result["Values"] = result["Timestamps"][:half], result["Values"][:half]
        result["StatusCode"] = {"partial_data": "PartialData", "internal_error": "InternalError"}.get(
            fault, "Forbidden"
        )


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
