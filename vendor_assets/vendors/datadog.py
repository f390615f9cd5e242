"""Datadog's API: services by a tag of hosts, the hosts, their metrics by prefix, and their points over a day.

A troop is a service, a warrior a host, a data group all metrics whose names differ in the last word alone:
``system.cpu`` holds ``system.cpu.user`` and ``system.cpu.idle``.

Sources, below docs.datadoghq.com: api/latest/hosts, api/latest/metrics/get-active-metrics-list and
query-timeseries-data-across-multiple-products, dashboards/functions/rollup, metrics/custom_metrics/type_modifiers,
metrics/guide/interpolation-the-fill-modifier-explained, metrics/advanced-filtering, getting_started/tagging.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from math import ceil, gcd, isfinite
from typing import Any, ClassVar, Final, Self, TypeVar
from urllib.parse import quote_plus

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
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
    as_attributes,
    complaint,
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

MOST_POINTS: Final = 1_500
"""Points of one series; an interval that makes more is replaced. Source: dashboards/functions/rollup."""

MOST_HOSTS: Final = 1_000
"""Hosts in one page; a higher ``count`` is lowered without a word. Source: api/latest/hosts."""

MOST_QUERIES: Final = 35
"""Queries in one request. The documentation names no limit; Datadog's own Cluster Agent asks so many at a time
(``external_metrics_provider.chunk_size`` of DataDog/datadog-agent), since more were seen to time out."""

MOST_VALUES: Final = 200_000
"""Series times points that one request is planned with: some four megabytes."""

MOST_HOSTS_OF_QUERY: Final = 100

MOST_CHARACTERS: Final = 100_000
"""Length of a request's queries; the documentation names no limit."""

MAX_URL_CHARACTERS: Final = 7_000
"""Length of path and query. It is the most that Datadog's Cluster Agent sends: its ``processor.go`` takes a longer one
for an error of the server."""

_PATH: Final = "/api/v2/query/timeseries"
_LISTED: Final = frozenset(
    (
        "id", "aws_id", "aws_name", "name", "host_name", "aliases", "apps", "sources", "tags_by_source", "up",
        "last_reported_time", "is_muted", "mute_timeout", "metrics", "meta",
    )
)  # fmt: skip
"""Fields of a host as documented; others are reported as new."""
_HOST: Final = re.compile(r"[\w.:/-]+")
"""Hosts that can stand in a query: the characters of a tag. Source: getting_started/tagging. Their names keep capitals
(DataDog/documentation#10132)."""
_METRIC: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_.]*")
"""Source: metrics/custom_metrics, "Naming custom metrics"."""
_TAG: Final = re.compile(r"[a-z][\w./-]{0,199}")
_PATTERN: Final = re.compile(r"[a-zA-Z0-9_.*]+")
_QUERY: Final = re.compile(r"(avg|sum):(.*)\{host IN \((.*)\)\} by \{host\}.*", re.DOTALL)
_NUMBERS: Final = frozenset((float, int, type(None)))
_NEW_YEAR_2000: Final = 946_684_800
_NEW_YEAR_2100: Final = 4_102_444_800

T = TypeVar("T")


class Datadog(Vendor):
    """The API of one of Datadog's sites.

    A host belongs to the service that its tag names, under whatever source, to several where it has several, and to a
    troop whose id is the empty text where it has none. Of a past day, the hosts are those that have reported since its
    start, with the tags that they have now: also hosts that are gone, and some that came later and have no data.
    Datadog keeps hosts for 7 days. Metrics are listed for some hosts together, from the day's start until now: a host
    may have some that it never sent.

    Data are asked for by hosts, not by the service, so that a day on which a host had other tags is whole. It is
    ``POST /api/v2/query/timeseries``: where the queries of version 1 have to fit into a URL, one request takes many
    hosts times many metrics, the end is excluded, and all series share their times.

    That answer does not tell its interval, so the times do: a timeslice lasts as long as the longest interval of which
    all of them are multiples, at most to the end of what was asked. Where Datadog took a longer one than asked for,
    that is it. Where nothing was reported in between, it is longer than it had to be, and as true.

    A metric's type is told for one metric at a time, and not of distributions (DataDog/datadog-api-client-go#2987), so
    that a day's quota would go into it. Unless the deployment tells which are counts, each is asked for twice: ``avg:``
    is its average over the timeslice, and over what else tells its series of a host apart, which is right for gauges;
    ``sum:`` is the number of events (``as_count()``), which is right for counts and rates.

    A bucket without a point has no row.

    Args:
        service_tag: The tag of hosts that names their service.
        counts: Patterns of the names of counts and rates; None where they are not known.
    """

    kind: ClassVar[str] = "datadog"
    title: ClassVar[str] = "Datadog"
    needs_application_key: ClassVar[bool] = True
    warriors_at_once: ClassVar[int] = 500
    page_headers: ClassVar[tuple[str, ...]] = ("content-type",)
    options: ClassVar[Mapping[str, str]] = {
        "service_tag": "the tag of hosts that names their service, like service or role",
        "counts": "the metrics that are counts or rates, like *.hits *.errors, or none",
    }

    def __init__(self, service_tag: str = "service", counts: tuple[str, ...] | None = None) -> None:
        self._tag = service_tag
        patterns = None if counts is None else [re.escape(each).replace(r"\*", ".*") for each in counts]
        self._counts = None if patterns is None else re.compile("|".join(patterns))

    @classmethod
    def configured(cls, account: str, options: Mapping[str, str]) -> Self:  # noqa: ARG003  keys tell the organisation
        """The vendor with the options of a deployment.

        Raises:
            ConfigurationError: A value is none that the option accepts.
        """
        given = {name: text.strip() for name, text in options.items() if text.strip()}
        tag, counts = given.get("service_tag", "service"), given.get("counts", "").split()
        wrong = [name for name in counts if not _PATTERN.fullmatch(name)]
        for name, right in (("service_tag", bool(_TAG.fullmatch(tag))), ("counts", not wrong)):
            if not right:
                shown = f"VENDOR_OPTIONS has {name}={presentable(given[name], 100)}"
                raise ConfigurationError(f"{shown}; {cls.title} accepts {cls.options[name]}")
        return cls(tag, tuple(counts) or None)  # none is a pattern that no metric fits

    def auth(self, keys: Keys) -> Mapping[str, str]:
        """Both keys' headers."""
        return {"DD-API-KEY": keys.api_key, "DD-APPLICATION-KEY": keys.application_key}

    def probe(self) -> Request:
        """One host: ``/api/v1/validate`` takes the API key alone."""
        return Request("/api/v1/hosts", (("count", "1"),), "hosts")

    def troops(self, day: Window) -> PlannedRequest:
        """All hosts since the day's start, of which the tags are read."""
        return PlannedRequest(_hosts(day, ""), (self._list_leaf("troops", ""),))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        """Hosts that a search for the service finds; it finds longer names too, which are left out."""
        leaf = self._list_leaf("warriors", troop_id)
        return PlannedRequest(_hosts(day, leaf.data_group if troop_id else ""), (leaf,))

    def _list_leaf(self, key: str, service: str) -> Leaf:
        # The tag is kept with the plan: the option may be another when the answer is read again.
        return Leaf(key, data_group=f"{self._tag}:{service}")

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """Metrics of one host."""
        return self.data_groups_of(troop_id, (warrior_id,), day)[0]

    def data_groups_of(self, troop_id: str, warrior_ids: Sequence[str], day: Window) -> list[PlannedRequest]:  # noqa: ARG002
        """Metrics that any of some hosts has sent, as many hosts at a time as a URL holds: lists are scarce."""
        planned = []
        fixed = len(_metrics((), day).target)
        for some in _in_batches(warrior_ids, MAX_URL_CHARACTERS - fixed):
            leaves = tuple(Leaf(host, warrior_id=host) for host in some)
            planned.append(PlannedRequest(_metrics(some, day), leaves))
        return planned

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """As :meth:`performance_data_of`, for one host."""
        return self.performance_data_of(troop_id, {warrior_id: groups}, day, resolution_seconds)

    def performance_data_of(
        self,
        troop_id: str,  # noqa: ARG002  hosts are asked for by name
        groups: Mapping[str, Sequence[DataGroup]],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """Many hosts in a query, many queries in a request; the day is cut by the limit of points.

        Timeslices lie on multiples of their length in UTC. Raises as :meth:`check_resolution`.
        """
        self.check_resolution(resolution_seconds)
        alike: dict[tuple[DataGroup, ...], list[str]] = {}
        for host, of_host in groups.items():
            wanted = tuple(group for group in of_host if group.value_names)
            if wanted:
                alike.setdefault(wanted, []).append(host)
        planned: list[PlannedRequest] = []
        for window in _cut(day, resolution_seconds):
            whole = _Document((), window, resolution_seconds)
            units = (
                _Unit(hosts, self._asks(group), group.name)
                for shared, of_them in alike.items()
                for hosts in _evenly(of_them, min(MOST_HOSTS_OF_QUERY, whole.most_series))
                for group in shared
            )
            planned += [document.planned for document in whole.filled(units)]
        return planned

    def _asks(self, group: DataGroup) -> tuple[tuple[str, str], ...]:
        def ways(metric: str) -> tuple[str, ...]:
            if self._counts is None:
                return "avg", "sum"
            return ("sum",) if self._counts.fullmatch(metric) else ("avg",)

        return tuple((how, metric) for metric in group.value_names for how in ways(metric))

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves of a request for data: by data groups, else by hosts, else by values, else by time."""
        if planned.request.endpoint == "metrics" and len(planned.leaves) > 1:
            return _halves_of_list(planned)
        if planned.request.endpoint != "query_timeseries":
            return []
        return [
            PlannedRequest(document.request, leaves)
            for document, leaves in _Document.of(planned).halves(planned.leaves)
        ]

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer.

        Raises:
            VendorProtocolError: It is no JSON, or without the part that holds the records.
        """
        content = read_object(response)
        if failed := _failed(content, planned):
            return failed
        if asset == "performance_data":
            return _Points.read(content, planned).parsed(planned)
        if asset == "data_groups":
            return _data_groups(content, planned)
        return _entities(asset, content, planned.leaves[0], response.asked or planned.request)

    def judge(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """As :meth:`parse`; of data only the times are looked at, and there are no columns."""
        if asset != "performance_data":
            return self.parse(asset, planned, response)
        content = read_object(response)
        return _failed(content, planned) or Parsed(incomplete=_Points.read(content, planned).misfit)


# Requests


def _hosts(day: Window, search: str) -> Request:
    since = str(int(day.start.timestamp()))
    searched = (("filter", search),) if search else ()
    params = (*searched, ("from", since), ("start", "0"), ("count", str(MOST_HOSTS)))
    return Request("/api/v1/hosts", params, "hosts")


def _metrics(hosts: Sequence[str], day: Window) -> Request:
    since = str(int(day.start.timestamp()))
    return Request("/api/v1/metrics", (("from", since), _of_hosts(hosts)), "metrics")


def _of_hosts(hosts: Iterable[str]) -> tuple[str, str]:
    return "tag_filter", f"host IN ({','.join(hosts)})"


def _halves_of_list(planned: PlannedRequest) -> list[PlannedRequest]:
    others = tuple(pair for pair in planned.request.params if pair[0] != "tag_filter")
    return [
        PlannedRequest(
            replace(planned.request, params=(*others, _of_hosts([leaf.key for leaf in leaves]))), leaves
        )
        for leaves in halved(planned.leaves)
    ]


@dataclass(frozen=True)
class _Unit:
    """A data group of some hosts, which are asked for together: a query for each of its values.

    Attributes:
        asks: How, over time and over what else the host tags it with, and the metric.
        group: Its name, which is in the leaves alone: they are in the order of units, and of each one's hosts.
    """

    hosts: tuple[str, ...]
    asks: tuple[tuple[str, str], ...]
    group: str

    @cached_property
    def length(self) -> int:
        """Characters of its queries, about."""
        return sum(map(len, self.queries(0)))

    def queries(self, step: int) -> list[str]:
        """Without ``fill(null)`` a host is shown to have values for five minutes after its last one."""
        scope = f"{{host IN ({','.join(self.hosts)})}} by {{host}}"
        return [
            f"{how}:{metric}{scope}{'.as_count()' if how == 'sum' else ''}.rollup({how}, {step}).fill(null)"
            for how, metric in self.asks
        ]


def _asked(planned: PlannedRequest) -> Mapping[str, Any]:
    """What a request for data asks for, as it is sent."""
    attributes: Mapping[str, Any] = json.loads(planned.request.body)["data"]["attributes"]
    return attributes


def _window_and_step(attributes: Mapping[str, Any]) -> tuple[Window, int]:
    start, end = (instant(attributes[edge] // 1000) for edge in ("from", "to"))
    return Window(start, end), attributes["interval"] // 1000


@dataclass(frozen=True)
class _Document:
    """What one request asks: units over a window."""

    units: tuple[_Unit, ...]
    window: Window
    step: int

    @property
    def most_series(self) -> int:
        """Series that one request may answer with."""
        return max(1, MOST_VALUES // (int(self.window.seconds) // self.step))

    @property
    def request(self) -> Request:
        """Each query's name tells its unit."""
        start, end = (int(edge.timestamp()) * 1000 for edge in (self.window.start, self.window.end))
        queries = [
            {"data_source": "metrics", "name": f"u{place}q{number}", "query": query}
            for place, unit in enumerate(self.units)
            for number, query in enumerate(unit.queries(self.step))
        ]
        attributes = {"from": start, "to": end, "interval": self.step * 1000, "queries": queries}
        document = {"data": {"type": "timeseries_request", "attributes": attributes}}
        return Request.json(_PATH, document, "query_timeseries")

    @property
    def planned(self) -> PlannedRequest:
        """The request with its leaves."""
        leaves = (data_leaf(host, unit.group, self.window) for unit in self.units for host in unit.hosts)
        return PlannedRequest(self.request, tuple(leaves))

    @classmethod
    def of(cls, planned: PlannedRequest) -> Self:
        """The document of a request that :attr:`planned` or :meth:`halves` made."""
        attributes = _asked(planned)
        asks: dict[str, list[tuple[str, str]]] = {}
        hosts: dict[str, str] = {}
        for query in attributes["queries"]:
            place, _, _ = query["name"].partition("q")
            found = _QUERY.fullmatch(query["query"])
            if found is None:
                raise VendorProtocolError(
                    f"a query that was kept cannot be read: {presentable(query['query'])}"
                )
            asks.setdefault(place, []).append((found[1], found[2]))
            hosts[place] = found[3]
        units: list[_Unit] = []
        left = planned.leaves
        for place, text in hosts.items():
            # A host's name may have a comma: how many they are, the leaves tell.
            names = accumulate((leaf.warrior_id for leaf in left), lambda before, name: f"{before},{name}")
            count = next(number for number, each in enumerate(names, 1) if each == text)
            of_unit = tuple(leaf.warrior_id for leaf in left[:count])
            units.append(_Unit(of_unit, tuple(asks[place]), left[0].data_group))
            left = left[count:]
        return cls(tuple(units), *_window_and_step(attributes))

    def filled(self, units: Iterable[_Unit]) -> Iterator[_Document]:
        """Documents of this window, as full as they may be; a unit is in one, unless it is larger than that."""
        some: list[_Unit] = []
        for unit in units:
            for number, part in enumerate(self._parts(unit)):
                # Parts of a unit have the same leaves, so each is in a document of its own.
                if some and (number or not self._holds([*some, part])):
                    yield replace(self, units=tuple(some))
                    some = []
                some.append(part)
        if some:
            yield replace(self, units=tuple(some))

    def _parts(self, unit: _Unit) -> list[_Unit]:
        """A unit in the fewest parts, by its queries, that a document can hold each."""
        for count in range(1, len(unit.asks)):
            parts = [replace(unit, asks=asks) for asks in _evenly(unit.asks, ceil(len(unit.asks) / count))]
            if all(self._holds([part]) for part in parts):
                return parts
        return [replace(unit, asks=(ask,)) for ask in unit.asks]

    def _holds(self, units: Sequence[_Unit]) -> bool:
        return (
            sum(len(unit.asks) for unit in units) <= MOST_QUERIES
            and sum(len(unit.asks) * len(unit.hosts) for unit in units) <= self.most_series
            and sum(unit.length for unit in units) <= MOST_CHARACTERS
        )

    def halves(self, leaves: tuple[Leaf, ...]) -> list[tuple[_Document, tuple[Leaf, ...]]]:
        """Two documents in its place, with their leaves; none where it cannot be divided."""
        if len(self.units) > 1:
            halves = halved(self.units)
            middle = sum(len(unit.hosts) for unit in halves[0])
            parts = [replace(self, units=half) for half in halves]
            return list(zip(parts, (leaves[:middle], leaves[middle:]), strict=True))
        (unit,) = self.units
        if len(unit.hosts) > 1:
            smaller = [replace(unit, hosts=half) for half in halved(unit.hosts)]
            return [
                (replace(self, units=(one,)), half) for one, half in zip(smaller, halved(leaves), strict=True)
            ]
        if len(unit.asks) > 1:
            smaller = [replace(unit, asks=half) for half in halved(unit.asks)]
            return [(replace(self, units=(one,)), leaves) for one in smaller]
        return [(replace(self, window=half), leaves) for half in halved_window(self.window, self.step)]


def group_of(metric: str) -> str:
    """The data group of a metric: its name without the last word, or all where it has one."""
    return metric.rpartition(".")[0] or metric


def _cut(day: Window, step: int) -> list[Window]:
    """The day in the fewest windows of about equal length; it begins with the first timeslice that starts in it."""
    first = ceil(day.start.timestamp() / step)
    last = max(ceil(day.end.timestamp() / step), first + 1)
    length = ceil((last - first) / ceil((last - first) / MOST_POINTS))
    edges = ((edge, min(edge + length, last)) for edge in range(first, last, length))
    return [Window(instant(start * step), instant(end * step)) for start, end in edges]


def _evenly(several: Sequence[T], most: int) -> Iterator[tuple[T, ...]]:
    """In the fewest batches of about equal size."""
    size = ceil(len(several) / ceil(len(several) / most))
    return (tuple(several[at : at + size]) for at in range(0, len(several), size))


def _in_batches(hosts: Iterable[str], room: int) -> Iterator[list[str]]:
    """Hosts in order, cut where they would outgrow ``room`` characters of a URL."""
    batch: list[str] = []
    used = 0
    for host in hosts:
        length = len(quote_plus(f",{host}"))
        if batch and used + length > room:
            yield batch
            batch, used = [], 0
        batch.append(host)
        used += length
    if batch:
        yield batch


# Answers


def _error(content: Mapping[str, Any]) -> str:
    """What an answer says went wrong, or is not all of it; nothing where it says nothing."""
    found = content.get("errors") or content.get("error")
    if not found or found is True:
        return presentable(content.get("message")) if found else complaint(content)
    texts = found if isinstance(found, list) else [found]
    return "; ".join(presentable(text) for text in texts[:3])


def _failed(content: Mapping[str, Any], planned: PlannedRequest) -> Parsed | None:
    """An answer with an error and status 200, like of a query that timed out."""
    error = _error(content)
    if not error:
        return None
    return Parsed(failures=[Failure(tuple(leaf.key for leaf in planned.leaves), "failed", error)])


def _list(content: Mapping[str, Any], name: str) -> list[Any]:
    """A list of an answer; null is an empty one, as Go writes it."""
    found = content.get(name, content)
    if found is None:
        return []
    if not isinstance(found, list):
        raise VendorProtocolError(f"the answer has no list {name!r}")
    return found


def _tags(by_source: object, key: str) -> list[str] | None:
    """The values of a tag, under whatever source, the empty one where there is none; None where these are no tags."""
    if by_source is None:
        return [""]
    if not isinstance(by_source, dict):
        return None
    values: dict[str, None] = {}
    for tags in by_source.values():
        if not isinstance(tags, list) or not all(map(is_name, tags)):
            return None
        values |= dict.fromkeys(tag[len(key) + 1 :] for tag in tags if tag.startswith(f"{key}:"))
    values.pop("", None)
    return [*values] or [""]


def _entities(asset: Asset, content: Mapping[str, Any], leaf: Leaf, asked: Request) -> Parsed:
    """The services of hosts, or the hosts of a service."""
    hosts = _list(content, "host_list")
    key, _, wanted = leaf.data_group.partition(":")
    parsed = Parsed()
    services: dict[str, None] = {}
    names: list[object] = []
    attributes: list[object] = []
    about: list[str] = []
    unknown: set[str] = set()
    fits = not wanted
    for host in hosts:
        name = host.get("name") if isinstance(host, dict) else None
        tags = _tags(host.get("tags_by_source"), key) if isinstance(host, dict) else None
        if not isinstance(name, str) or not _HOST.fullmatch(name):
            parsed.reject("a query cannot ask for a host of this name", host)
        elif tags is None:
            parsed.reject("tags_by_source is not lists of tags by source", host)
        else:
            about.append(name)
            fits = fits or _is_found(host, leaf.data_group)
            unknown |= host.keys() - _LISTED
            services |= dict.fromkeys(tags)
            if wanted in tags:
                names.append(name)
                attributes.append(as_attributes({field: host[field] for field in host if field != "name"}))
    parsed.about, parsed.new_fields = tuple(about), field_names(unknown)
    if asset == "troops":
        shown = [service or f"(no {key})" for service in services]
        parsed.columns = {"troop_id": [*services], "name": [*shown], "attributes": [None] * len(services)}
    else:
        parsed.columns = {"warrior_id": names, "name": list(names), "attributes": attributes}
    _turn_page(parsed, content, asked, len(hosts))
    if about and not fits:
        # Of another search, as a cache in between may give it.
        parsed.incomplete = f"it has hosts like {about[0]}, and none of {presentable(leaf.data_group)}"
    return parsed


def _is_found(host: Mapping[str, Any], search: str) -> bool:
    """Whether a search for a tag finds a host: one of its tags, of any source, has the text somewhere."""
    tags = chain.from_iterable((host.get("tags_by_source") or {}).values())
    return any(search.lower() in tag.lower() for tag in tags)


def _turn_page(parsed: Parsed, content: Mapping[str, Any], asked: Request, count: int) -> None:
    """Go on where there is more; a list that ends before its number of hosts is not whole."""
    params = dict(asked.params)
    start, total = int(params["start"]) + count, content.get("total_matching")
    if not isinstance(total, int) or isinstance(total, bool):
        raise VendorProtocolError("total_matching is not a number of hosts")
    if count and (start < total or content.get("exact_total_matching") is False):
        parsed.next = replace(asked, params=tuple((params | {"start": str(start)}).items()))
    elif start < total:
        parsed.incomplete = f"it has {start} hosts of {total}"
    returned = content.get("total_returned")
    if isinstance(returned, int) and count < returned:
        parsed.incomplete = f"it has {count} hosts, where it says that these are {returned}"


def _data_groups(content: Mapping[str, Any], planned: PlannedRequest) -> Parsed:
    parsed = Parsed()
    since = dict(planned.request.params)["from"]
    if str(content.get("from", since)) != since:
        parsed.incomplete = f"it is from {presentable(content['from'])}, where {since} was asked"
    groups: dict[str, list[str]] = {}
    for name in _list(content, "metrics"):
        if isinstance(name, str) and _METRIC.fullmatch(name):
            groups.setdefault(group_of(name), []).append(name)
        else:
            parsed.reject("a query cannot ask for a metric of this name", name)
    columns = [group_columns(leaf.warrior_id, groups) for leaf in planned.leaves]
    parsed.columns = {
        name: [value for each in columns for value in each[name]] for name in group_columns("", {})
    }
    parsed.new_fields = field_names(content.keys() - {"metrics", "from"})
    return parsed


@dataclass(frozen=True)
class _Points:
    """The series of an answer, their values unread.

    Attributes:
        series: Whose they are, as the answer says it; of each, ``values`` has a value for each of the times.
        times: UNIX seconds.
        end: UNIX seconds at which the last timeslice ends at the latest.
        step: Seconds of a timeslice.
        misfit: Why it is not all that was asked for.
    """

    series: list[Any]
    values: list[Any]
    times: list[int]
    end: int
    step: int
    misfit: str

    @classmethod
    def read(cls, content: Mapping[str, Any], planned: PlannedRequest) -> Self:
        """A VendorProtocolError where it is none, or its times are not."""
        data = content.get("data")
        attributes = data.get("attributes") if isinstance(data, dict) else None
        if not isinstance(attributes, dict):
            raise VendorProtocolError("the answer has no data with attributes")
        said = complaint(attributes)
        series, values = _list(attributes, "series"), _list(attributes, "values")
        if len(series) != len(values):
            raise VendorProtocolError(
                f"the answer has values of {len(values)} series, and {len(series)} series"
            )
        times = _times(_list(attributes, "times"))
        window, asked = _window_and_step(_asked(planned))
        step, misfit = _step(times, window, asked) if times else (asked, "")
        return cls(series, values, times, int(window.end.timestamp()), step, said or misfit)

    def parsed(self, planned: PlannedRequest) -> Parsed:
        """With a row for each point."""
        starts = np.array(self.times, np.int64)
        edges = np.column_stack((starts, np.minimum(starts + self.step, self.end))) * 1_000_000
        asked = [
            (unit, f"{how}:{metric}", by_tag)
            for unit in _Document.of(planned).units
            for by_tag in (_by_tag(unit.hosts),)
            for how, metric in unit.asks
        ]
        parsed = Parsed(incomplete=self.misfit)
        runs: list[Run] = []
        numbers: list[np.ndarray[Any, Any]] = [np.empty(0)]
        seen: set[tuple[int, str]] = set()
        for one, values in zip(self.series, self.values, strict=True):
            index, tag = _whose(one)
            unit, value_name, by_tag = asked[index] if 0 <= index < len(asked) else (None, "", {})
            host = by_tag.get(tag, by_tag.get(tag.lower()))
            if unit is None or host is None:
                parsed.reject("the series is of no query and host that were asked for", one)
            elif (index, host) in seen:
                parsed.reject("the series comes twice", one)
            elif not isinstance(values, list) or len(values) != len(self.times):
                parsed.reject("the series does not have as many values as there are times", one)
            else:
                seen.add((index, host))
                of_series = self._numbers(parsed, values, {"host": host, "value_name": value_name})
                there = ~np.isnan(of_series)
                numbers.append(of_series[there])
                runs.append(Run(host, unit.group, (value_name,), edges[there]))
        parsed.columns = RunColumns(runs, np.concatenate(numbers))
        return parsed

    def _numbers(
        self, parsed: Parsed, values: list[Any], whose: Mapping[str, object]
    ) -> np.ndarray[Any, Any]:
        """The values of a series; NaN where there is no point, or none that is a number, which is put aside."""
        if _NUMBERS.issuperset(map(type, values)):
            with suppress(OverflowError):
                found = np.array(values, np.float64)
                # None is NaN already; a NaN of the answer is none that may be taken for it.
                if np.isnan(found).sum() == values.count(None) and not np.isinf(found).any():
                    return found
        numbers = [None if value is None else _number(value) for value in values]
        for time, value, number in zip(self.times, values, numbers, strict=True):
            if number is None and value is not None:
                record = {**whose, "time": time * 1000, "value": value}
                parsed.reject("the value is not a finite number", record)
        return np.array(numbers, np.float64)


def _times(texts: list[Any]) -> list[int]:
    """UNIX seconds, in order."""
    times = []
    for time in texts:
        if isinstance(time, bool) or not isinstance(time, int | float) or not isfinite(time) or time % 1000:
            raise VendorProtocolError(f"{presentable(time)} is no time in milliseconds, of whole seconds")
        times.append(int(time) // 1000)
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise VendorProtocolError("times are not in order")
    if times and not _NEW_YEAR_2000 <= times[0] <= times[-1] < _NEW_YEAR_2100:
        raise VendorProtocolError(f"times from {times[0]} to {times[-1]} are not of this century")
    return times


def _step(times: list[int], window: Window, asked: int) -> tuple[int, str]:
    """The timeslices' length that times show, and why they are not all that was asked for."""
    first, last = (int(edge.timestamp()) for edge in (window.start, window.end))
    step = gcd(*times)
    shown = f"{iso(first * 1_000_000)} to {iso(last * 1_000_000)} was asked every {asked} s"
    if times[0] < first or times[-1] >= last:
        other = times[0] if times[0] < first else times[-1]
        return step, f"it is for {iso(other * 1_000_000)}, where {shown}"
    if step % asked:
        return step, f"its timeslices are multiples of {step} s, where {shown}"
    longer = step > asked and len(times) > 2
    if longer and first % step and all(later - earlier == step for earlier, later in pairwise(times)):
        # A bucket that began before the range is left out.
        return step, f"its timeslices are {step} s long and the first is left out, where {shown}"
    return step, ""


def _whose(series: object) -> tuple[int, str]:
    """The index of a series' query, and the tag of its host; -1 where it tells neither."""
    index = series.get("query_index") if isinstance(series, dict) else None
    tags = series.get("group_tags") if isinstance(series, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or not isinstance(tags, list) or len(tags) != 1:
        return -1, ""
    return (index, tags[0]) if isinstance(tags[0], str) else (-1, "")


def _by_tag(hosts: Iterable[str]) -> dict[str, str]:
    """Hosts by the tag that names them, which may be in lower case."""
    return {f"host:{host}".lower(): host for host in hosts} | {f"host:{host}": host for host in hosts}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None
