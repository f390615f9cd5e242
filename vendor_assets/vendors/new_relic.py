"""New Relic's REST API v2: applications, their hosts, the hosts' metrics, the metrics' timeslices.

The embedded simulator speaks the same dialect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, groupby
from math import ceil, inf, isfinite
from operator import attrgetter
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

import msgspec
import numpy as np

from vendor_assets.days import Window
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors.base import (
    REJECTED_KEPT,
    Asset,
    DataGroup,
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
    instant,
    is_name,
    iso,
    json_body,
    path_segment,
    query_text,
    read_object,
    within_bounds,
)
from vendor_assets.vendors.columns import Run, RunColumns, alike

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400

GRANULARITY: Final = (
    (3 * _HOUR, 60),
    (6 * _HOUR, 120),
    (14 * _HOUR, 300),
    (24 * _HOUR, 600),
    (4 * _DAY, 1800),
    (7 * _DAY, _HOUR),
    (21 * _DAY, 3 * _HOUR),
    (42 * _DAY, 6 * _HOUR),
    (63 * _DAY, 12 * _HOUR),
)
"""Longest range and the timeslices it is answered with, both in seconds, for data at most 8 days old.

Source: the "data aggregation schedule table" of
https://docs.newrelic.com/docs/apis/rest-api-v2/basic-functions/extract-metric-timeslice-data/. A ``period`` must be
a multiple of the range's timeslice.
"""

FINE_AGE: Final = timedelta(days=8)
"""Of ranges that start earlier than this, only hourly averages are left. Source: the same table."""

OLD_RANGE: Final = 4 * _DAY
"""Old ranges up to this many seconds come as ten even points, longer ones in hours. Source: the same table."""

AGE_MARGIN: Final = timedelta(hours=2)
"""A day is taken for old this much earlier, since some time passes between planning and asking."""

MAX_URL_CHARACTERS: Final = 2000
"""Length of path and query. The vendor documents no limit; every server and proxy takes this much."""

MAX_TIMESLICES: Final = 3000
"""Timeslices in one answer, over its metrics.

Source: "returns up to 3000 results per cell",
https://docs.newrelic.com/docs/apis/rest-api-v2/basic-functions/pagination-api-output/.
"""

_ENTITY_FIELDS: Final = (
    "id",
    "language",
    "health_status",
    "application_summary",
    "end_user_summary",
    "links",
)
_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "applications": frozenset((*_ENTITY_FIELDS, "name", "reporting", "last_reported_at", "settings")),
    "application_hosts": frozenset((*_ENTITY_FIELDS, "application_name", "host")),
    "metrics": frozenset(("name", "values")),
    "metric_data": frozenset(("name", "timeslices")),
    "timeslices": frozenset(("from", "to", "values")),
}
"""The fields of each kind of record as documented; others are reported as new."""

_ERROR: Final = re.compile(r'\s*\{\s*"error"\s*:\s*\{.*"title"', re.DOTALL)
"""Source: ``DefaultErrorResponse`` in internal/http/errors.go of https://github.com/newrelic/newrelic-client-go."""

_WEIGHT: Final = "call_count"
_TIME_CHARACTERS: Final = 100
"""Two times together are shorter."""
_LINK_CHARACTERS: Final = 8192
_LINK: Final = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+\s*(?:=\s*(?:"[^"]*"|[^\s";,]*))?)*)')
_RELATION: Final = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]*))', re.IGNORECASE)


@dataclass(frozen=True)
class Cut:
    """How a day is asked for.

    Attributes:
        leaves: The day in the pieces that a young day needs; the same at any age, so that leaves keep their keys.
        ranges: What is asked, each with the pieces that it answers.
        period_seconds: The timeslices' length that is asked for.
    """

    leaves: tuple[Window, ...]
    ranges: tuple[tuple[Window, tuple[Window, ...]], ...]
    period_seconds: int


@lru_cache(maxsize=64)
def cut_day(day: Window, resolution_seconds: int, *, old: bool) -> Cut:
    """Cut a day into the fewest ranges that yield timeslices of the wanted length.

    Timeslices lie on multiples of their length in UTC; a day begins with the first that starts in it and ends with
    the end of the last. Days older than 8 days exist in hours only. They are asked for in one range of more than 4
    days, since a shorter one comes as ten points: three times the points for a third of the calls.
    """
    longest = max(length for length, finest in GRANULARITY if resolution_seconds % finest == 0)
    longest = max(longest // resolution_seconds, 1) * resolution_seconds
    start, end = _aligned(day, resolution_seconds)
    edges = ((edge, min(edge + longest, end)) for edge in range(start, end, longest))
    leaves = tuple(Window(instant(first), instant(last)) for first, last in edges)
    if not old:
        return Cut(leaves, tuple((leaf, (leaf,)) for leaf in leaves), resolution_seconds)
    period = ceil(resolution_seconds / _HOUR) * _HOUR
    start, end = _aligned(day, period)
    end = max(end, start + OLD_RANGE + period)
    return Cut(leaves, ((Window(instant(start), instant(end)), leaves),), period)


def _aligned(day: Window, step: int) -> tuple[int, int]:
    """UNIX seconds of the first timeslice that starts in the day and of the end of the last."""
    first = ceil(day.start.timestamp() / step) * step
    return first, max(ceil(day.end.timestamp() / step) * step, first + step)


class NewRelic(Vendor):
    """The REST API v2; the age of a day by the ``clock`` decides how the day can be asked for."""

    kind: ClassVar[str] = "new_relic"
    title: ClassVar[str] = "New Relic"
    notice: ClassVar[str] = "REST v2 ends on 31 July 2027, nerdgraph takes its place (docs/switching.md)"
    documented_limits: ClassVar[tuple[str, ...]] = ("1000/min",)
    """Source: https://docs.newrelic.com/docs/apis/rest-api-v2/basic-functions/api-overload-protection-handling-429-errors/"""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock

    def at(self, now: datetime) -> Self:
        """With a clock that stands still."""
        other = copy(self)
        other._clock = lambda: now  # noqa: SLF001
        return other

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """The key's header."""
        return {"X-Api-Key": api_key}

    def probe(self) -> Request:
        """A list of applications that is filtered down to none."""
        return Request("/v2/applications.json", (("filter[ids]", "0"),), "applications")

    def troops(self, day: Window) -> PlannedRequest:  # noqa: ARG002  the list knows only the present
        """``/v2/applications.json``."""
        return PlannedRequest(Request("/v2/applications.json", (), "applications"), (Leaf("troops"),))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:  # noqa: ARG002
        """``/v2/applications/{id}/hosts.json``."""
        return PlannedRequest(
            Request(f"{_application(troop_id)}/hosts.json", (), "hosts"), (Leaf("warriors"),)
        )

    def check_resolution(self, resolution_seconds: int) -> None:
        """Whole minutes; a ConfigurationError for anything else."""
        if resolution_seconds < _MINUTE or resolution_seconds % _MINUTE:
            message = (
                f"resolution {resolution_seconds} s is not available: New Relic keeps data by the minute; "
                "take a multiple of 60, like 1800"
            )
            raise ConfigurationError(message)

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:  # noqa: ARG002
        """``/v2/applications/{id}/hosts/{host_id}/metrics.json``."""
        request = Request(f"{_host(troop_id, warrior_id)}/metrics.json", (), "metrics")
        return PlannedRequest(request, (Leaf(warrior_id, warrior_id=warrior_id),))

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """``…/metrics/data.json`` for as many names at a time as URL and answer can hold.

        A day whose start is older than 8 days at the clock's time comes in hours at best. Groups without value
        names have nothing to ask for and get no leaf. Raises as :meth:`check_resolution`.
        """
        self.check_resolution(resolution_seconds)
        old = day.start < self._clock() - FINE_AGE + AGE_MARGIN
        cut = cut_day(day, resolution_seconds, old=old)
        path = f"{_host(troop_id, warrior_id)}/metrics/data.json"
        planned: list[PlannedRequest] = []
        for window, pieces in cut.ranges:
            times = (
                ("from", window.start.isoformat()),
                ("to", window.end.isoformat()),
                ("period", str(cut.period_seconds)),
            )
            fixed = len(path) + 1 + len(query_text(times))
            most = max(1, MAX_TIMESLICES // max(1, int(window.seconds) // cut.period_seconds))
            for batch in _batches(groups, MAX_URL_CHARACTERS - fixed, most):
                names = tuple(("names[]", group.name) for group in batch)
                union = dict.fromkeys(name for group in batch for name in group.value_names)
                values = tuple(("values[]", name) for name in union)
                leaves = tuple(
                    data_leaf(warrior_id, group.name, piece) for piece in pieces for group in batch
                )
                whole = PlannedRequest(Request(path, names + values + times, "data"), leaves)
                # One metric with so many values that no URL holds them takes several requests.
                planned += within_bounds(whole, MAX_URL_CHARACTERS, self._by_values)
        return planned

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves of a request for data: by metrics, else by values, else by time.

        An average needs the call count beside it, so that each half asks for it. Only ranges that are answered with
        timeslices of the wanted length are cut by time: not the one long range of an old day.
        """
        if planned.request.endpoint != "data":
            return []
        params = planned.request.params
        names = [text for name, text in params if name == "names[]"]
        if len(names) > 1:
            return [
                PlannedRequest(
                    _with(planned.request, "names[]", half),
                    tuple(leaf for leaf in planned.leaves if leaf.data_group in set(half)),
                )
                for half in halved(names)
            ]
        return self._by_values(planned) or self._by_time(planned)

    @staticmethod
    def _by_values(planned: PlannedRequest) -> list[PlannedRequest]:
        values = [text for name, text in planned.request.params if name == "values[]"]
        own = [name for name in values if name != _WEIGHT]
        common = [_WEIGHT] if _WEIGHT in values else []
        halves = halved(own) if len(own) > 1 else ()
        return [
            PlannedRequest(_with(planned.request, "values[]", [*half, *common]), planned.leaves)
            for half in halves
        ]

    @staticmethod
    def _by_time(planned: PlannedRequest) -> list[PlannedRequest]:
        told = dict(planned.request.params)
        start, end = (int(datetime.fromisoformat(told[name]).timestamp()) for name in ("from", "to"))
        period = int(told["period"])
        middle = start + (end - start) // period // 2 * period
        if end - start > OLD_RANGE or not start < middle < end:
            return []
        halves = []
        for edges in ((start, middle), (middle, end)):
            first, last = (instant(edge).isoformat() for edge in edges)
            request = _with(_with(planned.request, "from", [first]), "to", [last])
            halves.append(PlannedRequest(request, planned.leaves))
        return halves

    def says_gone(self, request: Request, body: str) -> bool:
        """Below ``/v2/applications/`` each path names an application or a host; an error has a title.

        Gateways answer in JSON too, of an address that they do not know.
        """
        return request.path.startswith("/v2/applications/") and _ERROR.match(body) is not None

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer.

        Raises:
            VendorProtocolError: No JSON, or without the part that holds the records; or a next page that cannot be
                asked for.
        """
        lacking = ""
        if asset == "performance_data" and (regular := _Regular.read(planned, response)):
            parsed, lacking = regular.parsed, regular.lacking
            parsed.columns = regular.columns()
        else:
            content = read_object(response)
            parsed = _read(asset, planned, content)
            parsed.incomplete = parsed.incomplete or _complaint(content) or _stray(asset, planned, content)
            data = content.get("metric_data")
            if asset == "performance_data" and isinstance(data, dict):
                parsed.incomplete = parsed.incomplete or complaint(data)
                lacking = _Asked(planned).lacking(
                    [each.get("name") for each in data.get("metrics") or () if isinstance(each, dict)],
                    data.get("metrics_found"),
                    data.get("metrics_not_found"),
                    (data.get("from"), data.get("to")),
                )
        parsed.next = _next_page(planned.request, response.asked, response.headers.get("link", ""))
        if parsed.next is None and response.asked is None:
            # One page of several has a part of what was found.
            parsed.incomplete = parsed.incomplete or lacking
        return parsed

    def judge(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """As :meth:`parse`, but without columns for data of one page whose timeslices have nothing odd."""
        if asset == "performance_data" and response.asked is None and "link" not in response.headers:
            misfit = _misfit(planned, response)
            if misfit is not None:
                return Parsed(incomplete=misfit)
        return self.parse(asset, planned, response)


def _read(asset: Asset, planned: PlannedRequest, content: Mapping[str, Any]) -> Parsed:
    match asset:
        case "troops":
            return _entities(content, "applications", "troop_id", "name")
        case "warriors":
            return _entities(content, "application_hosts", "warrior_id", "host")
        case "data_groups":
            return _groups(_records(content, "metrics"), planned.leaves[0].warrior_id)
        case "performance_data":
            return _Timeslices(planned).read(content)


def _complaint(content: Mapping[str, Any]) -> str:
    """The error in an answer with status 200, also beside data; empty where there is none."""
    said = content.get("message") if None in content.values() else None
    # Nothing where data should be, and words beside it.
    return complaint(content) or (f"it says {json.dumps(said)[:200]}" if said else "")


def _stray(asset: Asset, planned: PlannedRequest, content: Mapping[str, Any]) -> str:
    """A host of another application than the one that was asked for, as a cache may give it; empty where none is."""
    if asset != "warriors":
        return ""
    for host in _records(content, "application_hosts"):
        links = host.get("links") if isinstance(host, dict) else None
        owner = links.get("application") if isinstance(links, dict) else None
        owner = str(owner) if isinstance(owner, int) and not isinstance(owner, bool) else owner
        if is_name(owner) and f"{_application(owner)}/hosts.json" != planned.request.path:
            return f"it has a host of application {owner[:40]}"
    return ""


def _application(troop_id: str) -> str:
    return f"/v2/applications/{path_segment(troop_id)}"


def _host(troop_id: str, warrior_id: str) -> str:
    return f"{_application(troop_id)}/hosts/{path_segment(warrior_id)}"


def _with(request: Request, name: str, texts: Sequence[str]) -> Request:
    """A request with other values for one of its parameters, at the place of the old ones."""
    first = next(at for at, (each, _) in enumerate(request.params) if each == name)
    others = [pair for pair in request.params if pair[0] != name]
    return replace(request, params=(*others[:first], *((name, text) for text in texts), *others[first:]))


def _batches(groups: Sequence[DataGroup], room: int, most: int) -> Iterator[list[DataGroup]]:
    """Groups in order, cut where the query would outgrow ``room`` characters or the answer ``most`` metrics."""
    batch: list[DataGroup] = []
    values: set[str] = set()
    used = 0

    def cost(group: DataGroup) -> int:
        new = set(group.value_names) - values
        return len(query_text([("names[]", group.name), *(("values[]", name) for name in new)])) + 1

    for group in groups:
        if not group.value_names:
            continue
        if batch and (used + cost(group) > room or len(batch) == most):
            yield batch
            batch, values, used = [], set(), 0
        used += cost(group)
        batch.append(group)
        values.update(group.value_names)
    if batch:
        yield batch


def _records(content: Mapping[str, Any], name: str) -> list[Any]:
    records = content.get(name)
    if records is None and name in content:
        return []
    if not isinstance(records, list):
        raise VendorProtocolError(f"the answer has no list {name!r}; it has {_shown(content)}")
    return records


def _shown(content: Mapping[str, Any]) -> str:
    return ", ".join(repr(name[:40]) for name in list(content)[:10]) or "nothing"


def _entities(content: Mapping[str, Any], kind: str, id_column: str, name_field: str) -> Parsed:
    """Applications or hosts: an id, a display name, and all else as attributes."""
    ids: list[object] = []
    names: list[object] = []
    attributes: list[object] = []
    parsed = Parsed({id_column: ids, "name": names, "attributes": attributes})
    new: set[str] = set()
    for record in _records(content, kind):
        if not isinstance(record, dict):
            parsed.reject("the record is not an object", record)
            continue
        identity = record.get("id")
        if isinstance(identity, int) and not isinstance(identity, bool):
            identity = str(identity)
        if not is_name(identity):
            parsed.reject(f"id is {_state(record, 'id')}", record)
            continue
        name = record.get(name_field)
        if name_field not in record or not (name is None or name == "" or is_name(name)):
            parsed.reject(f"{name_field} is {_state(record, name_field)}", record)
            continue
        ids.append(identity)
        names.append(name)
        attributes.append(
            as_attributes({key: record[key] for key in record if key not in ("id", name_field)})
        )
        new.update(record.keys() - _FIELDS[kind])
    parsed.new_fields = field_names(new)
    return parsed


def _state(record: Mapping[str, Any], name: str) -> str:
    if name not in record:
        return "missing"
    value = record[name]
    if value is None:
        return "null"
    if value == "":
        return "empty"
    if isinstance(value, str):
        return "not valid Unicode"
    return f"of type {type(value).__name__}"


def _groups(records: list[Any], warrior_id: str) -> Parsed:
    found: dict[str, list[str]] = {}
    parsed = Parsed()
    new: set[str] = set()
    for record in records:
        if not isinstance(record, dict):
            parsed.reject("the record is not an object", record)
            continue
        name = record.get("name")
        values = [] if record.get("values", "") is None else record.get("values")
        if not is_name(name):
            parsed.reject(f"name is {_state(record, 'name')}", record)
        elif not isinstance(values, list) or not all(map(is_name, values)):
            what = (
                "a list with something else than names"
                if isinstance(values, list)
                else _state(record, "values")
            )
            parsed.reject(f"values is {what}", record)
        else:
            found[name] = list(dict.fromkeys(values))
            new.update(record.keys() - _FIELDS["metrics"])
    parsed.columns = group_columns(warrior_id, found)
    parsed.new_fields = field_names(new)
    return parsed


_Texts = tuple[tuple[str, str], ...]
"""Starts and ends of timeslices as an answer has them."""


class _Asked:
    """What a request for data asks for; times are microseconds since the epoch."""

    def __init__(self, planned: PlannedRequest) -> None:
        self.warrior_id = planned.leaves[0].warrior_id
        self.groups = {leaf.data_group for leaf in planned.leaves}
        self.value_names = {text for name, text in planned.request.params if name == "values[]"}
        single = dict(planned.request.params)
        first, last = (int(datetime.fromisoformat(single[name]).timestamp()) for name in ("from", "to"))
        self._range = (first * 1_000_000, last * 1_000_000, int(single["period"]) * 1_000_000)

    def edges(self, texts: _Texts) -> tuple[np.ndarray[Any, Any] | None, str]:
        """Starts and ends of timeslices and their misfit; None where one is odd."""
        return _edges(*self._range, texts)

    def lacking(
        self, there: Iterable[object], found: object, missing: object, told: tuple[object, object]
    ) -> str:
        """What an answer of one page keeps from us; empty where that is nothing.

        It names each metric that was asked for, as found or not, has what it has found, and tells its range.

        Args:
            there: Names of the metrics that it has.
        """
        have, named, unknown = (
            {name for name in names if isinstance(name, str)} if isinstance(names, Iterable) else set()
            for names in (there, found, missing)
        )
        if lost := sorted((named - have) & self.groups):
            return f"it has found {lost[0][:100]!r}, and has nothing of it"
        if isinstance(found, list) and (silent := sorted(self.groups - have - named - unknown)):
            return f"it does not say whether it has found {silent[0][:100]!r}"
        times = _times({"from": told[0], "to": told[1]})
        first, last, _ = self._range
        if isinstance(times, tuple) and not (times[0] < last and first < times[1]):
            return f"it is of {iso(times[0])} to {iso(times[1])}, where {iso(first)} to {iso(last)} was asked"
        return ""

    def misfit(self, edges: set[tuple[int, int]]) -> str:
        """In which way timeslices are not those of the range that was asked for; they may be longer, or missing."""
        return _misfit_in(*self._range, edges)


@lru_cache(maxsize=16)
def _edges(first: int, last: int, period: int, texts: _Texts) -> tuple[np.ndarray[Any, Any] | None, str]:
    """Of timeslices as texts; those of most answers of a day are the same."""
    short = (len(start) + len(end) < _TIME_CHARACTERS for start, end in texts)
    edges = [_read_times(*each) for each in texts] if all(short) else [""]
    sound = [each for each in edges if isinstance(each, tuple)]
    array = np.array(sound, np.int64).reshape(-1, 2) if len(sound) == len(edges) else None
    if array is not None:
        array.flags.writeable = False
    return array, _misfit_in(first, last, period, set(sound))


def _misfit_in(first: int, last: int, period: int, edges: set[tuple[int, int]]) -> str:
    inside = not edges
    until = 0
    for start, end in sorted(edges):
        length = end - start
        on_grid = not ((start - first) % period and start % length and (start - first) % length)
        # A neighbour at the edge does no harm.
        if not on_grid or start < until or start > last or end < first:
            return (
                f"there is a timeslice from {iso(start)} to {iso(end)}, where {iso(first)} to {iso(last)} was "
                f"asked for every {period // 1_000_000} s"
            )
        until = end
        inside = inside or (end > first and start < last)
    return "" if inside else "no timeslice is in the range that was asked for"


class _Piece(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    first: str = msgspec.field(name="from")
    last: str = msgspec.field(name="to")
    values: dict[str, float | None]


class _Metric(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    timeslices: list[_Piece]


class _MetricData(msgspec.Struct, forbid_unknown_fields=True):
    metrics: list[_Metric]
    metrics_found: list[str] | None = None
    metrics_not_found: list[str] | None = None
    first: str | None = msgspec.field(name="from", default=None)
    last: str | None = msgspec.field(name="to", default=None)


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    """An answer of ``metrics/data.json`` as documented; what msgspec reads, ``json`` reads in the same way."""

    metric_data: _MetricData


_ANSWER: Final = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True)
class _Regular:
    """An answer in which nothing is odd: no unknown field, nothing to put aside, all numbers finite.

    It says what :class:`_Timeslices` would say of it, which reads all others.
    """

    parsed: Parsed
    runs: list[Run]
    pieces: list[_Piece]
    lacking: str

    @classmethod
    def read(cls, planned: PlannedRequest, response: Response) -> Self | None:
        """All of an answer but its columns; None where something is odd."""
        body = json_body(response)
        try:
            data = _ANSWER.decode(body).metric_data
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        asked = _Asked(planned)
        missing = data.metrics_not_found or ()
        names = [metric.name for metric in data.metrics]
        lacking = asked.lacking(names, data.metrics_found, missing, (data.first, data.last))
        found = cls(
            Parsed(not_found=tuple(name for name in missing if name in asked.groups)), [], [], lacking
        )
        return found if all(found._add(asked, metric) for metric in data.metrics) else None

    def _add(self, asked: _Asked, metric: _Metric) -> bool:
        """Take a metric; returns whether nothing of it is odd."""
        pieces = metric.timeslices
        edges, misfit = asked.edges(tuple([(piece.first, piece.last) for piece in pieces]))
        if edges is None or metric.name not in asked.groups:
            return False
        self.parsed.incomplete = self.parsed.incomplete or misfit
        at = 0
        for names, count in _counted([tuple(piece.values) for piece in pieces]):
            if not asked.value_names.issuperset(names):
                return False
            until = at + count
            self.runs.append(Run(asked.warrior_id, metric.name, names, edges[at:until]))
            at = until
        self.pieces.extend(pieces)
        return True

    def columns(self) -> RunColumns:
        """The columns of its rows."""
        numbers = chain.from_iterable(map(dict.values, map(attrgetter("values"), self.pieces)))
        # NaN, which no answer holds here, stands for null.
        values = np.fromiter(numbers, np.float64, sum(run.rows for run in self.runs))
        return RunColumns(self.runs, values, _weights)


def _weights(runs: Sequence[Run], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = np.full(len(values), np.nan)
    at = 0
    for names, timeslices in alike(runs):
        until = at + timeslices * len(names)
        if _WEIGHT in names:
            shape = (timeslices, len(names))
            calls = values[at:until].reshape(shape)[:, names.index(_WEIGHT), None]
            mine = weights[at:until].reshape(shape)
            mine[:, _averages(names)] = np.where(calls >= 0, calls, np.nan)
        at = until
    return weights


def _counted(names: list[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Names of values that are the same in timeslices which follow each other, and of how many; mostly of all."""
    if names and names.count(names[0]) == len(names):
        yield names[0], len(names)
    else:
        for each, run in groupby(names):
            yield each, sum(1 for _ in run)


class _Edges(msgspec.Struct, gc=False):
    first: str = msgspec.field(name="from")
    last: str = msgspec.field(name="to")


class _EdgesOfMetric(msgspec.Struct):
    name: str
    timeslices: list[_Edges]


class _EdgesOfMetrics(msgspec.Struct, forbid_unknown_fields=True):
    metrics: list[_EdgesOfMetric]
    metrics_found: list[str] | None = None
    metrics_not_found: list[str] | None = None
    first: str | None = msgspec.field(name="from", default=None)
    last: str | None = msgspec.field(name="to", default=None)


class _EdgesOfAnswer(msgspec.Struct, forbid_unknown_fields=True):
    metric_data: _EdgesOfMetrics


_EDGES: Final = msgspec.json.Decoder(_EdgesOfAnswer)


def _misfit(planned: PlannedRequest, response: Response) -> str | None:
    """What :meth:`_Asked.misfit` says of an answer; None where a timeslice is odd. Its values do not matter to that."""
    body = json_body(response)
    try:
        body.decode()  # also the values
        answer = _EDGES.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    asked = _Asked(planned)
    found = ""
    for metric in answer.metric_data.metrics:
        edges, misfit = asked.edges(tuple([(piece.first, piece.last) for piece in metric.timeslices]))
        if edges is None or metric.name not in asked.groups:
            return None
        found = found or misfit
    data = answer.metric_data
    names = [metric.name for metric in data.metrics]
    return found or asked.lacking(names, data.metrics_found, data.metrics_not_found, (data.first, data.last))


class _Timeslices:
    """Reads any answer of ``metrics/data.json``, a timeslice at a time."""

    def __init__(self, planned: PlannedRequest) -> None:
        self._asked = _Asked(planned)
        self._new: set[str] = set()
        self._parsed = Parsed()
        self._groups: list[object] = []
        self._names: list[object] = []
        self._starts: list[object] = []
        self._ends: list[object] = []
        self._values: list[object] = []
        self._weights: list[object] = []

    def read(self, content: Mapping[str, Any]) -> Parsed:
        data = content.get("metric_data")
        if data is None and "metric_data" in content:
            data = {"metrics": None}
        if not isinstance(data, dict):
            raise VendorProtocolError(f"the answer has no object 'metric_data'; it has {_shown(content)}")
        missing = data.get("metrics_not_found") or []
        if not isinstance(missing, list) or not all(isinstance(name, str) for name in missing):
            raise VendorProtocolError("'metrics_not_found' is not a list of names")
        for metric in _records(data, "metrics"):
            self._metric(metric)
        parsed = self._parsed
        parsed.not_found = tuple(name for name in missing if name in self._asked.groups)
        parsed.new_fields = field_names(self._new)
        parsed.columns = {
            "warrior_id": [self._asked.warrior_id] * len(self._values),
            "data_group": self._groups,
            "value_name": self._names,
            "timeslice_start": self._starts,
            "timeslice_end": self._ends,
            "value": self._values,
            "weight": self._weights,
        }
        return parsed

    def _reject(self, reason: str, group: str, piece: Mapping[str, Any], **more: object) -> None:
        full = len(self._parsed.rejected) >= REJECTED_KEPT
        self._parsed.reject(reason, None if full else {"name": group, **piece, **more})

    def _metric(self, metric: object) -> None:
        if not isinstance(metric, dict):
            self._parsed.reject("the metric is not an object", metric)
            return
        group = metric.get("name")
        slices = [] if metric.get("timeslices", "") is None else metric.get("timeslices")
        if not is_name(group):
            self._parsed.reject(f"name is {_state(metric, 'name')}", metric)
        elif group not in self._asked.groups:
            self._parsed.reject("the metric was not asked for", metric)
        elif not isinstance(slices, list):
            self._parsed.reject(f"timeslices is {_state(metric, 'timeslices')}", metric)
        else:
            if len(metric) > 2:
                self._new.update(metric.keys() - _FIELDS["metric_data"])
            before = len(self._values)
            edges = {edge for piece in slices if (edge := self._slice(group, piece))}
            self._parsed.incomplete = self._parsed.incomplete or self._asked.misfit(edges)
            self._groups.extend([group] * (len(self._values) - before))

    def _slice(self, group: str, piece: object) -> tuple[int, int] | None:
        """Read a timeslice; returns its start and end where it has sound ones."""
        if not isinstance(piece, dict):
            self._reject("the timeslice is not an object", group, {"timeslice": piece})
            return None
        times, values = _times(piece), piece.get("values")
        if isinstance(times, str):
            self._reject(times, group, piece)
            return None
        if not isinstance(values, dict):
            self._reject(f"values is {_state(piece, 'values')}", group, piece)
            return times
        if len(piece) > 3:
            self._new.update(piece.keys() - _FIELDS["timeslices"])
        if not values.keys() <= self._asked.value_names:
            self._new.update(values.keys() - self._asked.value_names)
            values = {name: value for name, value in values.items() if name in self._asked.value_names}
        numbers = list(values.values())
        kinds = set(map(type, numbers))
        if int in kinds and kinds <= {int, float}:
            with suppress(OverflowError):
                numbers = list(map(float, numbers))
                kinds = {float}
        if not (kinds <= {float} and isfinite(sum(numbers))):
            values = dict(self._each(group, piece, values))
            numbers = list(values.values())
        count = len(numbers)
        names = tuple(values)
        self._names += names
        self._values += numbers
        self._starts += [times[0]] * count
        self._ends += [times[1]] * count
        calls = values.get(_WEIGHT)
        weight = float(calls) if calls is not None and calls >= 0 else None
        self._weights += [weight if average else None for average in _averages(names)]
        return times

    def _each(
        self, group: str, piece: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Iterator[tuple[str, float | None]]:
        """The values that are numbers or null, as floats; the others are rejected, one by one."""
        for name, value in values.items():
            if value is None:
                yield name, None
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                reason = f"{name} is {_state(values, name)}"
            else:
                number = inf
                with suppress(OverflowError):
                    number = float(value)
                if isfinite(number):
                    yield name, number
                    continue
                reason = f"{name} is not a finite number"
            self._reject(reason, group, piece, values={name: value})


@lru_cache(maxsize=1024)
def _averages(names: tuple[str, ...]) -> tuple[bool, ...]:
    """Which values are averages over calls, so that a call count weighs them; counts, rates and extremes are not."""
    return tuple(name.startswith("average_") for name in names)


def _times(piece: Mapping[str, Any]) -> tuple[int, int] | str:
    """Start and end in microseconds since the epoch, or what is wrong with them."""
    first, last = piece.get("from"), piece.get("to")
    if isinstance(first, str) and isinstance(last, str) and len(first) + len(last) < _TIME_CHARACTERS:
        return _read_times(first, last)
    name = "to" if isinstance(first, str) and len(first) < 50 else "from"
    return f"{name} is {'too long' if isinstance(piece.get(name), str) else _state(piece, name)}"


@lru_cache(maxsize=16_384)
def _read_times(first: str, last: str) -> tuple[int, int] | str:
    edges = []
    for name, text in (("from", first), ("to", last)):
        try:
            moment = datetime.fromisoformat(text)
            # All times of the API are in UTC, also where one does not say so.
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(
                1970, 1, 1, tzinfo=UTC
            )
        except (ValueError, OverflowError):
            return f"{name} is not a time: {text!r}"
        edges.append(seconds // timedelta(microseconds=1))
        if not 2000 <= moment.year < 2100:
            return f"{name} is an absurd time: {text!r}"
    if edges[0] >= edges[1]:
        return "the timeslice does not end after it starts"
    return edges[0], edges[1]


def _next_page(request: Request, asked: Request | None, link: str) -> Request | None:
    """The request for the page that a ``Link`` header (RFC 8288) names as the next one.

    Only the page's number is taken from the link: whatever host it names, the next page is asked for where this one
    came from, with the parameters of this one.

    Raises:
        VendorProtocolError: The link leads to something else than a page of the same list, or passes some over.
    """
    if len(link) > _LINK_CHARACTERS:
        raise VendorProtocolError(f"the next page of {request.path} is told in {len(link)} characters")
    here = int(dict((asked or request).params).get("page", "1"))
    last = 0
    for target, parameters in _LINK.findall(link):
        relation = _RELATION.search(parameters)
        relations = (relation[1] or relation[2] or "").strip("'").lower().split() if relation else []
        try:
            parts = urlsplit(urljoin(request.path, target.strip()))
        except ValueError as error:
            if "next" not in relations:
                continue
            raise VendorProtocolError(f"the next page of {request.path} has no address: {error}") from error
        number = dict(parse_qsl(parts.query)).get("page", "")
        is_number = number.isascii() and number.isdecimal() and len(number) < 10
        if "last" in relations and is_number:
            last = int(number)
        if "next" not in relations:
            continue
        if not unquote(parts.path).endswith(unquote(request.path)):
            raise VendorProtocolError(f"the next page of {request.path} is said to be at {target[:200]!r}")
        if not is_number:
            raise VendorProtocolError(f"the next page of {request.path} has no number: {target[:200]!r}")
        if int(number) > here + 1:
            raise VendorProtocolError(f"the next page of {request.path} after {here} is said to be {number}")
        kept = tuple((name, text) for name, text in request.params if name != "page")
        return Request(request.path, (*kept, ("page", number)), request.endpoint)
    if last > here:
        raise VendorProtocolError(f"no next page of {request.path} is named after {here}, the last is {last}")
    return None
