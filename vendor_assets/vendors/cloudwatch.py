"""Amazon CloudWatch: namespaces, the resources that their metrics are of, and statistics of these over a day.

A troop is a namespace, a warrior a set of dimensions (``InstanceId=i-0abc``), a data group a metric, and its values are
statistics.

Sources: docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference (API_ListMetrics, API_GetMetricData, API_MetricStat,
API_MetricDataResult, CommonErrors), …/latest/monitoring/cloudwatch_limits.html and Statistics-definitions.html;
repost.aws/knowledge-center/cloudwatch-getmetricdata-api (limits);
smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from itertools import compress, groupby
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from urllib.parse import quote, unquote

import numpy as np

from vendor_assets.days import Window
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.presentable import presentable
from vendor_assets.vendors.base import (
    Asset,
    DataGroup,
    Failure,
    Keys,
    Leaf,
    Means,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
    as_attributes,
    data_leaf,
    field_names,
    group_columns,
    halved,
    halved_window,
    instant,
    is_name,
    iso,
    read_object,
)
from vendor_assets.vendors.columns import Run, RunColumns

if TYPE_CHECKING:
    from requests.auth import AuthBase  # noqa: TID251  the type alone; importing it takes 0.2 s

MOST_QUERIES: Final = 500
"""Statistics in one call. Source: API_GetMetricData."""

MOST_POINTS: Final = 100_800
"""Points in one answer; what is more comes in pages. Source: API_GetMetricData."""

DOLLARS: Final = 0.00001
"""For a statistic, or a list. Source: aws.amazon.com/cloudwatch/pricing; some list requests a month are free."""

MOST_STATISTICS: Final = 20
"""Of each metric, so that a day of them by the minute fits into one answer."""

STATISTICS: Final = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")

_DAY: Final = 86_400
_COARSER: Final = ((63 * _DAY, 3_600), (15 * _DAY, 300), (0, 60))
"""Age of a day's start in seconds, and what periods are multiples of from there on. Source: API_MetricStat."""

_STATISTIC: Final = re.compile(rf"{'|'.join(STATISTICS)}|IQR|(p|tm|wm|tc|ts)(100|\d{{1,2}}(\.\d{{1,10}})?)")
_REGION: Final = re.compile(r"[a-z0-9-]{0,40}")
_KEPT: Final = " !\"#$&'()*+-./:;<>?@[\\]^_`{|}~"
"""What stands in an id as it is, beside letters and digits; commas and equals signs separate."""
_LISTED: Final = frozenset(("Namespace", "MetricName", "Dimensions"))
_TOO_FAST: Final = re.compile(r"Throttl.*|RequestLimitExceeded|TooManyRequests.*")
_OF_THE_KEY: Final = re.compile(
    r"(AccessDenied|ExpiredToken|IncompleteSignature|InvalidAccessKeyId|InvalidClientTokenId|InvalidSignature"
    r"|MissingAuthenticationToken|NotAuthorized|OptInRequired|RequestExpired|RequestTimeTooSkewed"
    r"|SignatureDoesNotMatch|UnrecognizedClient)(Exception)?"
)
"""Codes that every call would meet, as policies cannot tell one metric from another: those of CommonErrors, and those
that other services of AWS JSON have in their place, with 400 or 403."""


class Cloudwatch(Vendor):
    """CloudWatch of one region, in AWS JSON 1.0.

    ``ListMetrics`` names the metrics of the last two weeks, also of resources that are gone. Troops are read from the
    list of all metrics, as there is none of namespaces. Metrics without dimensions are of a warrior whose id is the
    empty text.

    Periods are multiples of a minute, of five for a day that began more than 15 days ago, of an hour after 63: a
    resolution that is none is rounded up. Timeslices lie on multiples of their length in UTC.

    Calls are planned to be answered in one page. Where one has several all the same, it is taken for whole when all
    pages are: ``PartialData`` is right on a page that leads on alone.

    Each statistic counts as a metric of the bill: the price list says that up to five of one metric count once, users
    were billed for each (prometheus/cloudwatch_exporter#482 and #741).

    Args:
        statistics: What is asked of each metric.
        account: The source account that a monitoring account reads; empty for its own metrics.
        region: Where the address does not name it.
    """

    kind: ClassVar[str] = "cloudwatch"
    title: ClassVar[str] = "Amazon CloudWatch"
    documented_limits: ClassVar[tuple[str, ...]] = (
        "50/s for get_metric_data",
        "25/s for list_metrics",
        "396000 points/s",
    )
    """For each account and region; 180,000 points a second where a range begins in the last three hours."""
    needs_application_key: ClassVar[bool] = True
    warriors_at_once: ClassVar[int] = 5_000
    one_list: ClassVar[bool] = True
    # What goes from a list has had no data for two weeks.
    pages_move: ClassVar[bool] = False
    page_headers: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, str]] = {
        "statistics": f"up to {MOST_STATISTICS} of {' '.join(STATISTICS)}, or like p99 and tm95, separated by spaces",
        "region": "a region like eu-central-1, where VENDOR_URL does not name it",
    }

    def __init__(
        self,
        statistics: tuple[str, ...] = STATISTICS,
        account: str = "",
        region: str = "",
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._statistics, self._account, self._region, self._clock = statistics, account, region, clock

    @classmethod
    def configured(cls, account: str, options: Mapping[str, str]) -> Self:
        """The vendor of a deployment.

        Raises:
            ConfigurationError: The account is no number, or a value is none that the option accepts.
        """
        if account and not (account.isascii() and account.isdecimal()):
            raise ConfigurationError(
                f"VENDOR_ACCOUNT={presentable(account, 40)} is not an AWS account; give the number of the account "
                "that is read, like 123456789012, or leave it out for the key's own"
            )
        given = {name: text.strip() for name, text in options.items() if text.strip()}
        statistics = tuple(dict.fromkeys(given.get("statistics", "").split())) or STATISTICS
        region = given.get("region", "")
        known = len(statistics) <= MOST_STATISTICS and all(map(_STATISTIC.fullmatch, statistics))
        for name, right in (("statistics", known), ("region", _REGION.fullmatch(region))):
            if not right:
                shown = f"VENDOR_OPTIONS has {name}={presentable(given[name], 100)}"
                raise ConfigurationError(f"{shown}; {cls.title} accepts {cls.options[name]}")
        return cls(statistics, account, region)

    def at(self, now: datetime) -> Self:
        """With a clock that stands still."""
        other = copy(self)
        other._clock = lambda: now  # noqa: SLF001
        return other

    def auth(self, keys: Keys) -> AuthBase:
        """Signatures by the access key (``VENDOR_API_KEY``) and the secret one (``VENDOR_APPLICATION_KEY``)."""
        from vendor_assets.vendors.sigv4 import SignatureV4  # noqa: PLC0415  botocore and requests take 0.3 s

        return SignatureV4(keys.api_key, keys.application_key, "monitoring", self._region)

    def check_resolution(self, resolution_seconds: int) -> None:
        """Whole minutes; a ConfigurationError for anything else."""
        if resolution_seconds < 60 or resolution_seconds % 60:
            raise ConfigurationError(
                f"resolution {resolution_seconds} s is not available: CloudWatch keeps shorter periods for three hours "
                "alone; take a multiple of 60, like 300"
            )

    def throttled(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Also a 400 with the code of a throttle."""
        known = status == 400 and _TOO_FAST.fullmatch(_code(body))
        return bool(known) or super().throttled(status, headers, body)

    def refuses_key(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Also a 400 or 403 whose code concerns keys, signatures or the right to ask."""
        known = status in (400, 403) and _OF_THE_KEY.fullmatch(_code(body))
        return bool(known) or super().refuses_key(status, headers, body)

    def counts(self, request: Request) -> Mapping[str, float]:
        """Metrics and points, which lists have none of, and the price of either call."""
        if request.endpoint != "get_metric_data":
            return {"metrics": 0, "points": 0, "dollars": DOLLARS}
        document = json.loads(request.body)
        metrics, (first, last, step) = len(document["MetricDataQueries"]), _range(document)
        points = min(metrics * (last - first) // step, MOST_POINTS)
        return {"metrics": metrics, "points": points, "dollars": metrics * DOLLARS}

    def probe(self) -> Request:
        """A list of one metric, which an account may have or not."""
        return _request("ListMetrics", {"Namespace": "AWS/Usage", "MetricName": "CallCount"})

    def troops(self, day: Window) -> PlannedRequest:  # noqa: ARG002  the list knows only the last two weeks
        """All metrics."""
        return PlannedRequest(self._list({}), (Leaf("troops"),))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:  # noqa: ARG002
        """All metrics of a namespace."""
        return PlannedRequest(self._list({"Namespace": troop_id}), (Leaf("warriors"),))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """As :meth:`data_groups_of`, for one."""
        return self.data_groups_of(troop_id, (warrior_id,), day)[0]

    def data_groups_of(self, troop_id: str, warrior_ids: Sequence[str], day: Window) -> list[PlannedRequest]:  # noqa: ARG002
        """All metrics of a namespace, by the call that lists its warriors."""
        # The statistics are kept with the plan: the option may be another when the answer is read again.
        named = " ".join(self._statistics)
        leaves = tuple(Leaf(warrior_id, warrior_id, named) for warrior_id in warrior_ids)
        return [PlannedRequest(self._list({"Namespace": troop_id}), leaves)]

    def _list(self, document: Mapping[str, object]) -> Request:
        linked = {"IncludeLinkedAccounts": True, "OwningAccount": self._account} if self._account else {}
        return _request("ListMetrics", {**document, **linked})

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """As :meth:`performance_data_of`, for one warrior."""
        return self.performance_data_of(troop_id, {warrior_id: groups}, day, resolution_seconds)

    def performance_data_of(
        self,
        troop_id: str,
        groups: Mapping[str, Sequence[DataGroup]],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """Statistics of any warriors and metrics, as many in a call as it takes. Raises as :meth:`check_resolution`."""
        self.check_resolution(resolution_seconds)
        age = (self._clock() - day.start).total_seconds()
        least = next(least for since, least in _COARSER if age > since or not since)
        step = ceil(resolution_seconds / least) * least
        first, last = int(day.start.timestamp()) // step * step, ceil(day.end.timestamp() / step) * step
        window = Window(instant(first), instant(last))
        asked = (
            (data_leaf(warrior_id, group.name, window), self._queries(troop_id, warrior_id, group, step))
            for warrior_id, of_warrior in groups.items()
            for group in of_warrior
            if group.value_names
        )
        times = {"StartTime": first, "EndTime": last, "ScanBy": "TimestampAscending"}
        return list(_planned(asked, times, min(MOST_QUERIES, MOST_POINTS * step // (last - first))))

    def _queries(self, troop_id: str, warrior_id: str, group: DataGroup, step: int) -> list[dict[str, Any]]:
        metric = {"Namespace": troop_id, "MetricName": group.name, "Dimensions": _dimensions_of(warrior_id)}
        owner = {"AccountId": self._account} if self._account else {}
        return [
            {"MetricStat": {"Metric": metric, "Period": step, "Stat": name}, **owner}
            for name in group.value_names
        ]

    def part(self, planned: PlannedRequest, leaves: Collection[str]) -> PlannedRequest:
        """The queries of some leaves, by the ids that they have."""
        wanted = set(leaves)
        kept = tuple(leaf for leaf in planned.leaves if leaf.key in wanted)
        if planned.request.endpoint != "get_metric_data":
            return PlannedRequest(planned.request, kept)
        document = json.loads(planned.request.body)
        queries = [
            query for leaf, some in _by_leaf(document, planned) if leaf.key in wanted for query in some
        ]
        return PlannedRequest(_request("GetMetricData", document | {"MetricDataQueries": queries}), kept)

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves of a call for data: by metrics, else by statistics, else by time."""
        if planned.request.endpoint != "get_metric_data":
            return []
        if len(planned.leaves) > 1:
            return [self.part(planned, [leaf.key for leaf in half]) for half in halved(planned.leaves)]
        document = json.loads(planned.request.body)
        if len(document["MetricDataQueries"]) > 1:
            changes: list[dict[str, Any]] = [
                {"MetricDataQueries": half} for half in halved(document["MetricDataQueries"])
            ]
        else:
            first, last, step = _range(document)
            changes = [
                {"StartTime": int(half.start.timestamp()), "EndTime": int(half.end.timestamp())}
                for half in halved_window(Window(instant(first), instant(last)), step)
            ]
        return [
            PlannedRequest(_request("GetMetricData", document | change), planned.leaves) for change in changes
        ]

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer.

        Raises:
            VendorProtocolError: It is no JSON, or without the part that holds the records.
        """
        content = read_object(replace(response, headers={}))  # Its type is application/x-amz-json-1.0.
        token = content.get("NextToken")
        if token is not None and not is_name(token):
            raise VendorProtocolError("NextToken is not a string")
        if asset == "performance_data":
            parsed = _points(content, planned, alone=token is None and response.asked is None)
        else:
            parsed = _metrics(asset, content, planned)
        if token is not None:
            operation = "GetMetricData" if asset == "performance_data" else "ListMetrics"
            parsed.next = _request(operation, json.loads(planned.request.body) | {"NextToken": token})
            if not parsed.rows:
                # Several pages may be empty one after another: they are not the same one.
                parsed.about = (*parsed.about, token)
        return parsed


# Requests


def _request(operation: str, document: Mapping[str, object]) -> Request:
    endpoint = {"ListMetrics": "list_metrics", "GetMetricData": "get_metric_data"}[operation]
    headers = (
        ("Content-Type", "application/x-amz-json-1.0"),
        ("X-Amz-Target", f"GraniteServiceVersion20100801.{operation}"),
    )
    return replace(Request.json("/", document, endpoint), headers=headers)


def _planned(
    asked: Iterable[tuple[Leaf, list[dict[str, Any]]]], times: Mapping[str, object], most: int
) -> Iterator[PlannedRequest]:
    """Calls of up to ``most`` queries, those of a leaf in one."""
    leaves: list[Leaf] = []
    queries: list[dict[str, Any]] = []

    def planned() -> PlannedRequest:
        numbered = [{"Id": f"q{number}", **query} for number, query in enumerate(queries)]
        return PlannedRequest(
            _request("GetMetricData", {**times, "MetricDataQueries": numbered}), tuple(leaves)
        )

    for leaf, some in asked:
        if leaves and len(queries) + len(some) > most:
            yield planned()
            leaves, queries = [], []
        leaves.append(leaf)
        queries += some
    if leaves:
        yield planned()


def _by_leaf(
    document: Mapping[str, Any], planned: PlannedRequest
) -> Iterator[tuple[Leaf, list[dict[str, Any]]]]:
    """The leaves of a call with their queries, which are in the order of the leaves."""
    metrics = groupby(document["MetricDataQueries"], lambda query: query["MetricStat"]["Metric"])
    for leaf, (_, queries) in zip(planned.leaves, metrics, strict=True):
        yield leaf, list(queries)


def _range(document: Mapping[str, Any]) -> tuple[int, int, int]:
    """Start, end and period of a call, in UNIX seconds."""
    period = document["MetricDataQueries"][0]["MetricStat"]["Period"]
    return document["StartTime"], document["EndTime"], period


def warrior_of(dimensions: Mapping[str, str]) -> str:
    """The id of what has these dimensions: ``Name=Value`` with commas between, in the order of names."""
    return ",".join(
        f"{quote(name, _KEPT)}={quote(value, _KEPT)}" for name, value in sorted(dimensions.items())
    )


def _dimensions_of(warrior_id: str) -> list[dict[str, str]]:
    """The dimensions that an id says."""
    pairs = [pair.partition("=") for pair in filter(None, warrior_id.split(","))]
    return [
        {"Name": unquote(name)} | ({"Value": unquote(value)} if equals else {})
        for name, equals, value in pairs
    ]


# Answers


def _code(body: bytes) -> str:
    """The code by which a refusal names its reason."""
    with suppress(ValueError, RecursionError, AttributeError):
        return str(json.loads(body).get("__type")).rpartition("#")[2]
    return ""


def _records(content: Mapping[str, Any], name: str) -> list[Any]:
    found = content.get(name, content)
    if found is not None and not isinstance(found, list):
        raise VendorProtocolError(f"the answer has no list {name!r}")
    return found or []


def _metrics(asset: Asset, content: Mapping[str, Any], planned: PlannedRequest) -> Parsed:
    """The namespaces, the warriors, or their metrics, in a list of metrics."""
    wanted = json.loads(planned.request.body).get("Namespace")
    parsed = Parsed()
    found: dict[str, dict[str, dict[str, str]]] = {}
    about: list[str] = []
    unknown: set[str] = set()
    for metric in _records(content, "Metrics"):
        dimensions = _dimensions(metric)
        if dimensions is None or not is_name(metric["Namespace"]) or not is_name(metric["MetricName"]):
            parsed.reject("the metric has not Namespace, MetricName and Dimensions by Name and Value", metric)
            continue
        namespace, name = metric["Namespace"], metric["MetricName"]
        if wanted not in (None, namespace):
            parsed.reject("the metric is of another namespace than was asked for", metric)
            continue
        unknown |= metric.keys() - _LISTED
        warrior_id = warrior_of(dimensions)
        about.append(f"{namespace} {name} {warrior_id}")
        found.setdefault(namespace if asset == "troops" else warrior_id, {})[name] = dimensions
    parsed.about, parsed.new_fields = tuple(about), field_names(unknown)
    if asset == "troops":
        parsed.columns = {"troop_id": [*found], "name": [*found], "attributes": [None] * len(found)}
    elif asset == "warriors":
        of_each = [next(iter(metrics.values())) for metrics in found.values()]
        parsed.columns = {
            "warrior_id": [*found],
            "name": [" ".join(each.values()) or "(no dimensions)" for each in of_each],
            "attributes": [as_attributes(each) for each in of_each],
        }
    else:
        statistics = planned.leaves[0].data_group.split()
        groups = [
            group_columns(warrior, dict.fromkeys(names, statistics)) for warrior, names in found.items()
        ]
        parsed.columns = {
            name: [each for one in groups for each in one[name]] for name in group_columns("", {})
        }
    return parsed


def _dimensions(metric: object) -> dict[str, str] | None:
    """A metric's dimensions, in the order of their names; None where it is not one as documented."""
    if not isinstance(metric, dict) or not metric.keys() >= {"Namespace", "MetricName"}:
        return None
    pairs = metric.get("Dimensions") or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, dict) and is_name(pair.get("Name")) and is_name(pair.get("Value")) for pair in pairs
    ):
        return None
    found = dict(sorted((pair["Name"], pair["Value"]) for pair in pairs))
    return found if len(found) == len(pairs) else None


def _points(content: Mapping[str, Any], planned: PlannedRequest, *, alone: bool) -> Parsed:
    """The points of a page.

    Args:
        alone: Whether it is the only one.
    """
    document = json.loads(planned.request.body)
    first, last, step = _range(document)
    asked = {
        query["Id"]: (leaf, query["MetricStat"]["Stat"])
        for leaf, queries in _by_leaf(document, planned)
        for query in queries
    }
    parsed = Parsed()
    failed: dict[str, tuple[Means, str]] = {}
    runs: list[Run] = []
    numbers: list[float] = []
    left = dict(asked)
    for result in _records(content, "MetricDataResults"):
        identity = result.get("Id") if isinstance(result, dict) else None
        if not isinstance(identity, str) or (identity in asked and identity not in left):
            parsed.reject("the result has no Id, or comes twice", result)
            continue
        if identity not in left:
            continue  # Of a call that was answered in part.
        leaf, name = left.pop(identity)
        if failure := _failure(result, leads_on=content.get("NextToken") is not None):
            failed.setdefault(leaf.key, failure)
            continue
        times, values = _records(result, "Timestamps"), _records(result, "Values")
        starts = [_start(time) for time in times]
        wrong = [
            time
            for time, start in zip(times, starts, strict=True)
            if not first <= start < last or (start - first) % step
        ]
        if wrong or len(times) != len(values):
            shown = f"{iso(first * 1_000_000)} to {iso(last * 1_000_000)} was asked every {step} s"
            what = f"{len(times)} times of {len(values)} values"
            what = what if len(times) != len(values) else f"the time {presentable(wrong[0])}"
            parsed.incomplete = parsed.incomplete or f"it has {what}, where {shown}"
            continue
        good = [_is_number(value) for value in values]
        for time, value, fits in zip(times, values, good, strict=True):
            if not fits:
                record = {"Id": identity, "Timestamp": time, "Value": value}
                parsed.reject("the value is not a finite number", record)
        edges = np.array(list(compress(starts, good)), np.int64).reshape(-1, 1) + (0, step)
        runs.append(Run(leaf.warrior_id, leaf.data_group, (name,), edges * 1_000_000))
        numbers += map(float, compress(values, good))
    parsed.columns = RunColumns(runs, np.array(numbers, np.float64))
    if alone:
        for leaf, _ in left.values():
            failed.setdefault(leaf.key, ("failed", "a statistic that was asked for has no result"))
        for failure in dict.fromkeys(failed.values()):
            keys = tuple(leaf.key for leaf in planned.leaves if failed.get(leaf.key) == failure)
            parsed.failures.append(Failure(keys, *failure))
    elif failed:
        parsed.incomplete = parsed.incomplete or next(iter(failed.values()))[1]
    if messages := content.get("Messages"):
        parsed.incomplete = f"it says {_said(messages)}"
    return parsed


def _failure(result: Mapping[str, Any], *, leads_on: bool) -> tuple[Means, str] | None:
    """Why a statistic was not answered, or not in full."""
    status = result.get("StatusCode")
    if status == "Complete" or (status == "PartialData" and leads_on):
        return None
    said = _said(result.get("Messages") or [])
    reason = f"{presentable(status)}: {said}" if said else presentable(status)
    return ("refused" if status == "Forbidden" else "failed"), reason


def _said(messages: object) -> str:
    several = messages if isinstance(messages, list) else [messages]
    return "; ".join(
        presentable(each.get("Value") if isinstance(each, dict) else each) for each in several[:3]
    )


def _start(time: object) -> int:
    """A time in whole UNIX seconds; -1 where it is none."""
    if isinstance(time, float) and time.is_integer():
        return int(time)
    return time if isinstance(time, int) and not isinstance(time, bool) else -1


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    with suppress(OverflowError):
        return isfinite(value)
    return False
