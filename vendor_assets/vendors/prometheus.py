"""Prometheus' HTTP API: jobs, their instances, the instances' metrics by prefix, and their values over a day.

A troop is a job, a warrior an instance, a data group all metrics of an instance that begin with the same two words:
``node_cpu`` holds ``node_cpu_seconds_total`` and ``node_cpu_guest_seconds_total``.

Source of paths, parameters and answers: https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite, isnan
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
import numpy as np

from vendor_assets.days import Window
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.presentable import presentable
from vendor_assets.vendors.base import (
    Asset,
    DataGroup,
    Leaf,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
    complaint,
    data_leaf,
    field_names,
    group_columns,
    is_name,
    iso,
    json_body,
    read_object,
    within_bounds,
)
from vendor_assets.vendors.columns import Run, RunColumns

MAX_POINTS: Final = 11_000
"""Points of one series in one answer; a query for more is refused with 400. Source: ``query_range`` in web/api/v1."""

MAX_URL_CHARACTERS: Final = 4000
"""Length of path and query; servers and proxies commonly take 8 KB of headers."""

MAX_FORM_CHARACTERS: Final = 16_000
"""Length of a form, percent-encoded; a longer query than fits into a URL is posted.

The least of the servers' limits is VictoriaMetrics' ``-search.maxQueryLen``, 16,384 bytes of the query before it is
encoded. Go's ``ParseForm`` takes 10 MB, nginx' ``client_max_body_size`` 1 MB; Mimir's
``-query-frontend.max-query-expression-size-bytes`` is off by default.
"""

MAX_METRIC_POINTS: Final = 50_000
"""Metrics times points in one answer: since a metric has many series, this keeps answers to some ten megabytes."""

LOOKBACK: Final = timedelta(minutes=5)
"""A selector finds a sample at most so old (``--query.lookback-delta``, by default)."""

MAX_NAMES: Final = 100_000
"""A list of exactly so many names was cut: VictoriaMetrics' ``-search.maxTagValues``, which it does not tell."""

WHOLE: Final = (("partial_response", "false"), ("deny_partial_response", "1"), ("nocache", "1"))
"""Asks not to be answered with a part (Thanos; VictoriaMetrics), nor for other times than asked (VictoriaMetrics).

Prometheus and Mimir ignore them. Sources: https://thanos.io/tip/components/query.md/#partial-response,
https://docs.victoriametrics.com/victoriametrics/cluster-victoriametrics/#cluster-availability,
https://docs.victoriametrics.com/victoriametrics/#prometheus-querying-api-enhancements.
"""

COUNTERS: Final = ("_total", "_sum", "_count", "_bucket")
"""How the names of counters end, also of those that make a classic histogram or a summary.

Source: https://prometheus.io/docs/practices/naming/.
"""

BUCKETS: Final = "_bucket"
"""How the names of a classic histogram's counters by upper bound end."""

RATE: Final = "__rate__"
"""A label that tells whose rate a series is: functions leave out the metric's name. Names with ``__`` are no user's."""

QUANTILE: Final = "__quantile__"
"""A label that tells a computed quantile and of what: ``0.95 http_request_duration_seconds_bucket``."""

_ANSWER_FIELDS: Final = frozenset(
    ("status", "data", "warnings", "infos", "errorType", "error", "isPartial", "stats", "trace")
)
_HARMLESS: Final = "PromQL info:"
"""Begin of a warning that tells nothing of what is missing; before ``infos`` there were these among warnings."""
_PLAIN_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MISSING: Final = object()
_YEAR_2000: Final = 946_684_800
_YEAR_2100: Final = 4_102_444_800
_NAMES: Final = re.compile(r'(.*[,{]__name__=~)"((?:\\.|[^"\\])*)"(\}[^"]*)', re.DOTALL)
_ALTERNATIVES: Final = re.compile(r"(?:\\.|[^\\|])+", re.DOTALL)
_LITERAL: Final = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_COMPUTED: Final = re.compile(
    rf'label_replace\(.*,"({RATE}|{QUANTILE})","((?:\\.|[^"\\])*)","",""\)', re.DOTALL
)
_NOT_IN_NAMES: Final = frozenset(("__name__", "job", "instance", RATE, QUANTILE))
_JOINTS: Final = frozenset(("(", "or", ")"))
"""The lines of a query that join the others; no string literal of ours has a line end."""
_STRING: Final = r'"(?:\\.|[^"\\\x00-\x1f])*"'
_MATCHER: Final = rf" *(?:[a-zA-Z_][a-zA-Z0-9_]*|{_STRING}) *(?:=~|!~|!=|=) *{_STRING} *"
_MATCH: Final = rf"\{{({_MATCHER}(?:,{_MATCHER})*),? *\}}"
_QUANTILE: Final = r"0?\.([0-9]{0,8}[1-9])0*"


class Prometheus(Vendor):
    """The HTTP API of Prometheus and of what speaks like it.

    Lists can be asked for a past day. The server looks names up per block of storage, so that a job, an instance or a
    metric that was seen only before or after the day may be on its list; it then has no data.

    What has no label ``job`` belongs to a troop whose id is the empty text, and what has no ``instance`` to such a
    warrior of its job: no label's value can be that, since an empty label is none. They are on a list only where
    there is such a metric, which is asked for on the list's second page.

    A timeslice [t, t + resolution) holds the newest sample in it (``last_over_time``), so that a series that is
    scraped seldom has its values too; one shorter than five minutes holds the newest that is at most five minutes old
    (the server's default) at its end. The server is asked at t + resolution for the samples up to a millisecond
    before; up to Prometheus 2, one at a millisecond before t counts for t as well. ``NaN`` becomes null; infinities
    are kept. A value's name is the metric's with its labels but ``job`` and ``instance``:
    ``node_cpu_seconds_total{cpu="0",mode="idle"}``. What is computed of a metric has another name, so that a store
    never holds both under one: ``rate(node_cpu_seconds_total{cpu="0",mode="idle"})``,
    ``histogram_quantile(0.95, http_request_duration_seconds{code="200"})``. The data group is the metric's, and the
    lists name metrics, whatever is computed of them.

    A success with warnings, for fewer stores than there are or for other times than those asked, is incomplete.

    Args:
        match: Matchers that each series has to meet, like ``env="prod"``.
        rates: Whether counters are asked for as rates per second over the timeslice; it needs two samples there.
        quantiles: Which quantiles over the timeslice take the place of a classic histogram's buckets, as texts.
        posts: Whether queries that are too long for a URL are posted, or several shorter ones take their place.
    """

    kind: ClassVar[str] = "prometheus"
    title: ClassVar[str] = "Prometheus"
    rosters: ClassVar[Literal["current", "historical"]] = "historical"
    needs_api_key: ClassVar[bool] = False
    page_headers: ClassVar[tuple[str, ...]] = ("content-type",)
    options: ClassVar[Mapping[str, str]] = {
        "match": 'a selector like {env="prod"}',
        "counters": "raw or rate",
        "histograms": "buckets, or quantiles like 0.5 0.95 0.99",
        "post": "true or false",
    }

    def __init__(
        self, match: str = "", *, rates: bool = False, quantiles: tuple[str, ...] = (), posts: bool = True
    ) -> None:
        self._match = match
        self._rates = rates
        self._quantiles = quantiles
        self._posts = posts

    @classmethod
    def configured(cls, account: str, options: Mapping[str, str]) -> Self:  # noqa: ARG003  it has no accounts
        """The vendor with the options of a deployment.

        Raises:
            ConfigurationError: A value is none that the option accepts.
        """
        given = {name: text for name, text in options.items() if text.strip()}

        def chosen(name: str, default: str, accepted: str) -> re.Match[str]:
            text = given.get(name, default).strip()
            if (found := re.fullmatch(accepted, text)) is None:
                shown = f"VENDOR_OPTIONS has {name}={presentable(text, 100)}"
                raise ConfigurationError(f"{shown}; {cls.title} accepts {cls.options[name]}")
            return found

        match = chosen("match", "{}", _MATCH if "match" in given else r"\{()\}")
        quantiles = re.findall(
            _QUANTILE, chosen("histograms", "buckets", rf"buckets|{_QUANTILE}([, ]+{_QUANTILE})*")[0]
        )
        return cls(
            match[1].strip(),
            rates=chosen("counters", "raw", "raw|rate")[0] == "rate",
            quantiles=tuple(sorted({f"0.{digits}" for digits in quantiles})),
            posts=chosen("post", "true", "true|false")[0] == "true",
        )

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """A bearer token where there is a key, else nothing."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def probe(self) -> Request:
        """A query that reads no data."""
        return Request("/api/v1/query", (("query", "vector(1)"),), "query")

    def troops(self, day: Window) -> PlannedRequest:
        """Values of the label ``job``."""
        return PlannedRequest(self._label_values("job", {}, day), (Leaf("troops"),))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        """Values of the label ``instance`` of a job."""
        return PlannedRequest(self._label_values("instance", {"job": troop_id}, day), (Leaf("warriors"),))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """Names of the metrics of an instance; ``parse`` sorts them into groups."""
        request = self._label_values("__name__", {"job": troop_id, "instance": warrior_id}, day)
        return PlannedRequest(request, (Leaf(warrior_id, warrior_id=warrior_id),))

    def _label_values(self, label: str, labels: Mapping[str, str], day: Window) -> Request:
        match = (("match[]", _selector(labels, self._match)),) if labels or self._match else ()
        # The end is included there, not here.
        times = (
            ("start", _seconds(day.start - LOOKBACK)),
            ("end", _seconds(day.end - timedelta(milliseconds=1))),
        )
        return Request(f"/api/v1/label/{label}/values", (*match, *times, *WHOLE), "label_values")

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """``query_range`` for several groups of an instance at a time, the day cut by the limit of points.

        Timeslices start at the day's start and every resolution after it, all before the day's end. A query that is
        too long for a URL is posted, any other is not: it is cached and logged as before, and a gateway that takes GET
        only stands in the way of large instances alone. Raises as :meth:`check_resolution`.
        """
        self.check_resolution(resolution_seconds)
        planned: list[PlannedRequest] = []
        step = resolution_seconds
        matchers = _matchers({"job": troop_id, "instance": warrior_id}, self._match)
        empty = _Query(*_newest(f"{matchers}{self._computed_elsewhere()}", step))
        asked = [(group, self._parts_of(group, matchers, step)) for group in groups]
        longest = MAX_FORM_CHARACTERS if self._posts else MAX_URL_CHARACTERS
        for window in _cut(day, step):
            times = (
                ("start", _seconds(window.start + timedelta(seconds=step))),
                ("end", _seconds(window.end)),
                ("step", str(step)),
                *WHOLE,
            )
            for batch in _batches(asked, empty, times, int(window.seconds) // step, longest):
                query = replace(empty, parts=tuple(part for _, parts in batch for part in parts))
                request = _range_query((("query", query.text), *times), posts=self._posts)
                leaves = tuple(data_leaf(warrior_id, group.name, window) for group, _ in batch)
                # One group of so many metrics that no query holds them takes several requests.
                planned += within_bounds(PlannedRequest(request, leaves), longest, _by_names)
        return planned

    def _computed_elsewhere(self) -> str:
        """A matcher that leaves the metrics out of which something is computed; nothing where there are none."""
        ends = COUNTERS if self._rates else (BUCKETS,) if self._quantiles else ()
        return f',__name__!~".*({"|".join(ends)})"' if ends else ""

    def _parts_of(self, group: DataGroup, matchers: str, step: int) -> list[_Part]:
        """What a query asks for, to get the values of a group."""
        plain: list[str] = []
        computed: list[_Part] = []
        for metric in group.value_names:
            selector = f"{matchers},__name__={_quoted(metric)}"
            if self._quantiles and metric.endswith(BUCKETS):
                # Without a bound a series is no histogram's, which the server would warn of.
                rate = f'rate({{{selector},le!=""}}[{step}s] offset 1ms)'
                for each in self._quantiles:
                    query = f"histogram_quantile({each},{rate})"
                    computed.append(_Part(_labelled(query, QUANTILE, f"{each} {metric}"), computed=True))
            elif self._rates and metric.endswith(COUNTERS):
                query = f"rate({{{selector}}}[{step}s] offset 1ms)"
                computed.append(_Part(_labelled(query, RATE, metric), computed=True))
            else:
                plain.append(metric)
        if not group.narrowed and (plain or not computed):
            # Whatever else begins alike is asked for as well: it is shorter.
            prefix = f"{_escaped(group.name)}(_.*)?" if "_" in group.name else _escaped(group.name)
            return [_Part(prefix), *computed]
        return [*(_Part(_escaped(metric)) for metric in plain), *computed]

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves of a range query: by groups, else by metrics where a filter names them, else by time."""
        if planned.request.endpoint != "query_range":
            return []
        return _by_names(planned) or _by_time(planned)

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer.

        A query that is a plain selector is of a plan that an older version froze: its values are those at the
        timeslice's start, and at most five minutes old.

        Raises:
            VendorProtocolError: No JSON, ``status`` is not ``success``, or ``data`` is of another kind.
        """
        if asset == "performance_data" and (plain := _Plain.read(planned, response)):
            numbers = plain.numbers()
            if numbers is not None:
                return Parsed(RunColumns(plain.runs(), numbers))
        content = read_object(response)
        if content.get("status") != "success":
            status, kind, text = (presentable(content.get(name)) for name in ("status", "errorType", "error"))
            raise VendorProtocolError(f"Prometheus answers status {status}: {kind}: {text}")
        parsed = Parsed()
        data = content.get("data") if "data" in content else _MISSING
        if asset == "performance_data":
            _series(parsed, data, planned)
        else:
            names = _names(parsed, data)
            if asset == "data_groups":
                found: dict[str, list[str]] = {}
                for name in names:
                    found.setdefault(group_of(name), []).append(name)
                parsed.columns = group_columns(planned.leaves[0].warrior_id, found)
            else:
                _entities(parsed, asset, names, planned.request, response.asked)
        parsed.new_fields = field_names(content.keys() - _ANSWER_FIELDS)
        parsed.incomplete = _flag(content) or parsed.incomplete
        return parsed

    def judge(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """As :meth:`parse`, but without columns, and numbers unread, for an answer in which nothing else is odd."""
        if asset == "performance_data" and _Plain.read(planned, response):
            return Parsed()
        return self.parse(asset, planned, response)


def _flag(content: Mapping[str, Any]) -> str:
    """What an answer itself says of its being incomplete; nothing where it is whole."""
    warnings = content.get("warnings") or []
    for warning in warnings if isinstance(warnings, list) else [warnings]:
        if not (isinstance(warning, str) and warning.startswith(_HARMLESS)):
            return f"it warns: {presentable(warning)}"
    if error := content.get("error"):
        return f"it says {presentable(error)}"
    return "it says isPartial" if content.get("isPartial") not in (None, False) else complaint(content)


def group_of(metric: str) -> str:
    """The data group of a metric: its first two words, or all where it has fewer."""
    return "_".join(metric.split("_", 2)[:2])


def canonical(labels: Mapping[str, str]) -> str:
    """Labels as Prometheus writes them, by name: ``{cpu="0","my.mode"="idle"}``; nothing where there are none."""
    text = ",".join(
        f"{name if _PLAIN_LABEL.fullmatch(name) else _quoted(name)}={_quoted(labels[name])}"
        for name in sorted(labels)
        if labels[name]
    )
    return f"{{{text}}}" if text else ""


def _quoted(text: str) -> str:
    """A string literal of PromQL."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _matchers(labels: Mapping[str, str], more: str) -> str:
    """What stands between the braces of a selector."""
    return ",".join(
        [*(f"{name}={_quoted(text)}" for name, text in labels.items()), *([more] if more else [])]
    )


def _selector(labels: Mapping[str, str], more: str) -> str:
    # A selector that would match the empty set of labels is refused.
    never_empty = [] if any(labels.values()) else ['__name__!=""']
    return "{" + ",".join([*filter(None, [_matchers(labels, more)]), *never_empty]) + "}"


@dataclass(frozen=True)
class _Part:
    """A piece of a query.

    Attributes:
        text: An alternative of the regular expression for names (RE2, anchored by the server), or a query of its own.
        computed: Whether it is the latter: a series is computed of one metric, labelled by :func:`_labelled`.
    """

    text: str
    computed: bool = False

    @property
    def in_query(self) -> str:
        """What it adds to a query, at most."""
        return f"(\n{self.text}\nor\n\n)" if self.computed else "|" + _quoted(self.text)

    @property
    def group(self) -> str:
        """The data group of the metric that it asks for."""
        if self.computed and (found := _COMPUTED.fullmatch(self.text)):
            text = _unquoted(found[2]).replace("$$", "$")
            return group_of(text if found[1] == RATE else text.partition(" ")[2])
        return group_of(_LITERAL.sub(r"\1", self.text.removesuffix("(_.*)?")))


@dataclass(frozen=True)
class _Query:
    """A range query taken apart.

    Attributes:
        head: The selector of the newest samples, up to the regular expression for names.
        tail: What follows that.
        parts: What is asked for.
    """

    head: str
    tail: str
    parts: tuple[_Part, ...] = ()

    @classmethod
    def read(cls, text: str) -> _Query | None:
        """The query that was written by :attr:`text`, here or by an older version; None if it is none."""
        head = tail = ""
        parts: list[_Part] = []
        for line in text.split("\n"):
            if _COMPUTED.fullmatch(line):
                parts.append(_Part(line, computed=True))
            elif found := _NAMES.fullmatch(line):
                head, tail = found[1], found[3]
                parts += map(_Part, _ALTERNATIVES.findall(_unquoted(found[2])))
            elif line not in _JOINTS:
                return None
        return cls(head, tail, tuple(parts))

    @property
    def text(self) -> str:
        """The query in lines, the unions of two halves each: a server's work on one grows with its length squared.

        An ``or`` takes labels without the metric's name; those that :func:`_labelled` adds make series differ.
        """
        names = "|".join(part.text for part in self.parts if not part.computed)
        newest = [f"{self.head}{_quoted(names)}{self.tail}"] if names else []
        return _union([*newest, *(part.text for part in self.parts if part.computed)])


def _union(queries: Sequence[str]) -> str:
    if len(queries) == 1:
        return queries[0]
    middle = len(queries) // 2
    return f"(\n{_union(queries[:middle])}\nor\n{_union(queries[middle:])}\n)"


def _newest(matchers: str, step: int) -> tuple[str, str]:
    """Head and tail of a query for the newest sample before the instant at which it is evaluated, in [start, end).

    In timeslices shorter than the server looks back by itself, most would be empty: it may be so old there.
    """
    head = f"{{{matchers},__name__=~"
    if step < LOOKBACK.total_seconds():
        return head, "} offset 1ms"
    return f"last_over_time({head}", f"}}[{step}s] offset 1ms)"


def _labelled(query: str, label: str, text: str) -> str:
    """A query whose series have a label more."""
    # A replacement's $1 is what was found.
    return f'label_replace({query},"{label}",{_quoted(text.replace("$", "$$"))},"","")'


def _escaped(name: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], name)


def _range_query(fields: tuple[tuple[str, str], ...], *, posts: bool) -> Request:
    request = Request("/api/v1/query_range", fields, "query_range")
    if posts and len(request.target) > MAX_URL_CHARACTERS:
        return Request.form(request.path, fields, request.endpoint)
    return request


def _told(request: Request) -> dict[str, str]:
    """The fields of a range query, wherever they are."""
    return dict(parse_qsl(request.body) if request.method == "POST" else request.params)


def _with(request: Request, **changed: str) -> Request:
    return _range_query(tuple((_told(request) | changed).items()), posts=request.method == "POST")


def _by_names(planned: PlannedRequest) -> list[PlannedRequest]:
    """Two halves of what a query asks for, between groups where there are several."""
    query = _Query.read(_told(planned.request)["query"])
    if query is None or len(query.parts) < 2:
        return []
    of_group: dict[str, list[_Part]] = {leaf.data_group: [] for leaf in planned.leaves}
    for part in query.parts:
        of_group.setdefault(part.group, []).append(part)
    groups = list(of_group)
    if len(groups) > 1:
        middle = len(groups) // 2
        halves = [
            (half, [part for group in half for part in of_group[group]])
            for half in (groups[:middle], groups[middle:])
        ]
    else:
        middle = len(query.parts) // 2
        halves = [(groups, [*half]) for half in (query.parts[:middle], query.parts[middle:])]
    return [
        PlannedRequest(
            _with(planned.request, query=replace(query, parts=tuple(parts)).text),
            tuple(leaf for leaf in planned.leaves if leaf.data_group in half),
        )
        for half, parts in halves
    ]


def _by_time(planned: PlannedRequest) -> list[PlannedRequest]:
    """Two halves of the points of time."""
    told = _told(planned.request)
    start, end = (datetime.fromtimestamp(float(told[name]), UTC) for name in ("start", "end"))
    step = timedelta(seconds=int(told["step"]))
    steps = (end - start) // step
    if steps < 1:
        return []
    middle = start + steps // 2 * step
    return [
        PlannedRequest(_with(planned.request, start=_seconds(first), end=_seconds(last)), planned.leaves)
        for first, last in ((start, middle), (middle + step, end))
    ]


def _unquoted(text: str) -> str:
    """The text of a string literal of PromQL that :func:`_quoted` wrote."""
    return _LITERAL.sub(lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), text)


def _seconds(instant: datetime) -> str:
    return f"{instant.timestamp():.3f}".removesuffix(".000")


def _cut(day: Window, step: int) -> Iterator[Window]:
    length = timedelta(seconds=step)
    points = -(-int(day.seconds) // step)
    for first in range(0, points, MAX_POINTS):
        count = min(MAX_POINTS, points - first)
        yield Window(day.start + first * length, day.start + (first + count) * length)


def _batches(
    asked: Sequence[tuple[DataGroup, list[_Part]]],
    empty: _Query,
    times: tuple[tuple[str, str], ...],
    points: int,
    longest: int,
) -> Iterator[list[tuple[DataGroup, list[_Part]]]]:
    """Groups in order, cut where the query grows too long or the answer too large."""
    bare = replace(empty, parts=(_Part("|"),)).text
    fixed = len("/api/v1/query_range?") + len(urlencode((("query", bare), *times)))
    batch: list[tuple[DataGroup, list[_Part]]] = []
    used, metrics = fixed, 0
    for group, parts in asked:
        cost = sum(len(quote(part.in_query, safe="")) for part in parts)
        size = max(1, len(group.value_names))
        if batch and (used + cost > longest or (metrics + size) * points > MAX_METRIC_POINTS):
            yield batch
            batch, used, metrics = [], fixed, 0
        batch.append((group, parts))
        used += cost
        metrics += size
    if batch:
        yield batch


def _names(parsed: Parsed, data: object) -> list[str]:
    """The names in a list; null is an empty one, as Go writes it."""
    if data is None:
        return []
    if not isinstance(data, list):
        what = "missing" if data is _MISSING else f"of type {type(data).__name__}"
        raise VendorProtocolError(f"the answer's data is {what}, not a list of names")
    if len(data) == MAX_NAMES:
        parsed.incomplete = (
            f"a list of exactly {MAX_NAMES} names was cut by the server, which does not say so"
        )
    names = []
    for name in data:
        if is_name(name):
            names.append(name)
        elif name != "":  # an empty label is none
            parsed.reject("the name is not text", name)
    return names


def _entities(parsed: Parsed, asset: Asset, names: list[str], first: Request, asked: Request | None) -> None:
    """Jobs or instances; on the second page the metrics that have none, which make a nameless one."""
    id_column, label = ("troop_id", "job") if asset == "troops" else ("warrior_id", "instance")
    if asked is None:
        parsed.next = _without(label, first)
        ids, shown = names, names
    else:
        ids, shown = ([""], [f"(no {label})"]) if names else ([], [])
    parsed.columns = {id_column: list(ids), "name": list(shown), "attributes": [None] * len(ids)}


def _without(label: str, first: Request) -> Request:
    """The request for the metrics that a list of a label's values leaves out, since they have no such label."""
    matching = next((text for name, text in first.params if name == "match[]"), '{__name__!=""}')
    others = tuple(pair for pair in first.params if pair[0] != "match[]")
    match = f'{matching[:-1]},{label}=""}}'
    return Request("/api/v1/label/__name__/values", (("match[]", match), *others), "names_without_label")


class _Asked:
    """What a range query asks for; times are microseconds since the epoch.

    Attributes:
        grid: When it is evaluated.
        before: How long before that its timeslices start: at the timeslice's end a query for the newest sample is
            evaluated, a plain one was at its start.
    """

    def __init__(self, planned: PlannedRequest) -> None:
        params = _told(planned.request)
        first, last = (round(float(params[name]) * 1e6) for name in ("start", "end"))
        self.step = int(params["step"]) * 1_000_000
        self.grid = range(first, last + 1, self.step)
        self.before = 0 if params["query"].endswith("}") else self.step
        self.warrior_id = planned.leaves[0].warrior_id
        self.groups = {leaf.data_group for leaf in planned.leaves}
        self._query = params["query"]
        self._known: dict[tuple[str | None, str | None], str] = {}

    def stray(self, labels: Mapping[str, str]) -> str:
        """The job or instance of a series of another one than was asked for, as a cache in between may give it."""
        whose = labels.get("job"), labels.get("instance")
        if whose not in self._known:
            strangers = (
                f"it has a series of {name} {text[:100]}"
                for name, text in zip(("job", "instance"), whose, strict=True)
                if text is not None and f'{name}="' in self._query
                if _matchers({name: text}, "") not in self._query
            )
            self._known[whose] = next(strangers, "")
        return self._known[whose]

    def misfit(self, times: Iterable[int]) -> str:
        """In which way times are not those that were asked for."""
        for time in times:
            if time not in self.grid:
                first, last = (iso(edge) for edge in (self.grid.start, self.grid.stop - 1))
                return (
                    f"it is for {iso(time)}, where {first} to {last} was asked every {self.step // 1_000_000} s; a "
                    "server that moves times to multiples of the step needs a resolution of which the day's start is "
                    "one"
                )
        return ""


class _Point(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    time: float
    text: str


class _PlainSeries(msgspec.Struct, forbid_unknown_fields=True):
    metric: dict[str, str]
    values: list[_Point]


class _PlainMatrix(msgspec.Struct, forbid_unknown_fields=True):
    kind: Literal["matrix"] = msgspec.field(name="resultType")
    result: list[_PlainSeries]


class _PlainAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A whole answer to a range query as documented; what msgspec reads, ``json`` reads in the same way."""

    status: Literal["success"]
    data: _PlainMatrix
    infos: list[str] | None = None
    stats: dict[str, Any] | None = None
    partial: Literal[False] | None = msgspec.field(name="isPartial", default=None)


_PLAIN_ANSWER: Final = msgspec.json.Decoder(_PlainAnswer)


@dataclass(frozen=True)
class _Plain:
    """An answer in which nothing is odd but perhaps a number: named series of what was asked for, at the asked times.

    It says what :func:`_series` would say of it, which reads all others.
    """

    warrior_id: str
    series: list[_PlainSeries]
    edges: list[np.ndarray[Any, Any]]
    """Starts and ends of each series' timeslices."""

    @classmethod
    def read(cls, planned: PlannedRequest, response: Response) -> Self | None:
        """The series of an answer, their numbers unread; None where something is odd."""
        try:
            series = _PLAIN_ANSWER.decode(json_body(response)).data.result
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        asked = _Asked(planned)
        known: dict[tuple[float, ...], np.ndarray[Any, Any] | None] = {}
        found = cls(asked.warrior_id, series, [])
        for each in series:
            metric = _metric(each.metric)
            times = tuple([point.time for point in each.values])
            if times not in known:
                # All series of an answer mostly have the same times.
                known[times] = _plain_edges(times, asked)
            edges = known[times]
            if (
                edges is None
                or not is_name(metric)
                or "" in each.metric
                or group_of(metric) not in asked.groups
                or asked.stray(each.metric)
            ):
                return None
            found.edges.append(edges)
        return found

    def numbers(self) -> np.ndarray[Any, Any] | None:
        """All series' numbers; None where a text is none."""
        texts = [point.text for each in self.series for point in each.values]
        if "_" in "".join(texts):  # float() takes 1_0
            return None
        try:
            return np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            return None

    def runs(self) -> list[Run]:
        """What the rows of each series have in common."""
        return [
            Run(self.warrior_id, group_of(str(_metric(labels))), (_value_name(labels),), edges)
            for labels, edges in zip([each.metric for each in self.series], self.edges, strict=True)
        ]


def _plain_edges(times: tuple[float, ...], asked: _Asked) -> np.ndarray[Any, Any] | None:
    """Starts and ends of the timeslices of UNIX seconds; None where one was not asked for."""
    seconds = np.array(times, np.float64)
    if not ((seconds >= _YEAR_2000) & (seconds < _YEAR_2100)).all():
        return None
    instants = np.rint(seconds * 1e6).astype(np.int64)
    since = instants - asked.grid.start
    if (since % asked.step).any() or (since < 0).any() or (instants >= asked.grid.stop).any():
        return None
    starts = instants - asked.before
    return np.column_stack((starts, starts + asked.step))


def _series(parsed: Parsed, data: object, planned: PlannedRequest) -> None:
    asked = _Asked(planned)
    groups: list[object] = []
    names: list[object] = []
    starts: list[int] = []
    values: list[object] = []
    for series in _matrix(data):
        parts = _parts(series)
        if isinstance(parts, str):
            parsed.reject(parts, series)
            continue
        labels, metric, points, histograms = parts
        group = group_of(metric)
        if group not in asked.groups:
            parsed.reject("the metric was not asked for", series)
            continue
        for histogram in histograms:
            record = {"metric": labels, "histogram": histogram}
            parsed.reject("native histograms cannot be kept as numbers", record)
        times, numbers = _points(parsed, labels, points)
        if not times:
            continue
        parsed.incomplete = parsed.incomplete or asked.stray(labels) or asked.misfit(times)
        groups += [group] * len(times)
        names += [_value_name(labels)] * len(times)
        starts += [time - asked.before for time in times]
        values += numbers
    parsed.columns = {
        "warrior_id": [asked.warrior_id] * len(values),
        "data_group": groups,
        "value_name": names,
        "timeslice_start": starts,
        "timeslice_end": [start + asked.step for start in starts],
        "value": values,
        "weight": [None] * len(values),
    }


def _value_name(labels: Mapping[str, str]) -> str:
    others = {name: text for name, text in labels.items() if name not in _NOT_IN_NAMES}
    if name := labels.get("__name__"):
        return _spelled(name, others)
    if RATE in labels:
        return f"rate({_spelled(labels[RATE], others)})"
    quantile, _, metric = labels[QUANTILE].partition(" ")
    return f"histogram_quantile({quantile}, {_spelled(metric.removesuffix(BUCKETS), others)})"


def _metric(labels: Mapping[str, str]) -> object:
    """The metric that a series is of, or that it was computed of."""
    return labels.get("__name__") or labels.get(RATE) or labels.get(QUANTILE, "").partition(" ")[2]


def _spelled(metric: str, labels: Mapping[str, str]) -> str:
    # A name with a brace could be taken for another metric with labels.
    return (_quoted(metric) if "{" in metric else metric) + canonical(labels)


def _matrix(data: object) -> list[Any]:
    """The series of an answer; null is none, as Go writes it."""
    if data is None:
        return []
    if isinstance(data, dict) and data.get("resultType") == "matrix" and "result" in data:
        result = [] if data["result"] is None else data["result"]
        if isinstance(result, list):
            return result
    raise VendorProtocolError("the answer's data is not a matrix with a list of results")


def _parts(series: object) -> tuple[dict[str, str], str, list[Any], list[Any]] | str:
    """Labels, metric, points and histograms of a series, or what is wrong with it."""
    if not isinstance(series, dict) or not isinstance(labels := series.get("metric"), dict):
        return "the series has no labels"
    if not all(isinstance(text, str) and (text == "" or is_name(text)) for text in labels.values()):
        return "a label of the series is not text"
    if not is_name(metric := _metric(labels)) or not all(map(is_name, labels)):
        return "the series has no name"
    points, histograms = series.get("values"), series.get("histograms")
    if histograms is not None and not isinstance(histograms, list):
        return "the series has no list of histograms"
    if points is None and ("values" in series or histograms):
        points = []
    if not isinstance(points, list):
        native = "histograms" in series
        return "native histograms cannot be kept as numbers" if native else "the series has no list of values"
    return labels, metric, points, histograms or []


def _points(
    parsed: Parsed, labels: Mapping[str, str], points: list[Any]
) -> tuple[list[int], list[float | None]]:
    """Times in microseconds since the epoch, and values; what is none is put aside."""
    try:
        return _read_points(points)
    except (TypeError, ValueError, OverflowError):
        pass
    times: list[int] = []
    numbers: list[float | None] = []
    for point in points:
        # Looked at before, since an exception for each of millions would take long.
        if isinstance(point, list) and len(point) == 2 and isinstance(point[1], str):
            try:
                (time,), (number,) = _read_points([point])
            except (TypeError, ValueError, OverflowError):
                pass
            else:
                times.append(time)
                numbers.append(number)
                continue
        parsed.reject("the point is not a time and a number as text", {"metric": labels, "value": point})
    return times, numbers


def _read_points(points: list[Any]) -> tuple[list[int], list[float | None]]:
    """Times in microseconds since the epoch, and values.

    Raises:
        TypeError: A point is not a pair, or its parts are of another type.
        ValueError: A time is absurd (before 2000 or after 2099), or a text is not a number.
        OverflowError: A time is infinite.
    """
    if not points:
        return [], []
    times, texts = zip(*points, strict=True)
    if set(map(type, texts)) != {str}:
        raise TypeError
    if "_" in "".join(texts):  # float() takes 1_0
        raise ValueError
    # All series of an answer mostly have the same times; a single one is not worth keeping, a huge number neither.
    read = _instants if 1 < len(times) <= MAX_POINTS else _instants.__wrapped__
    instants = read(times, tuple(map(type, times)))
    numbers = list(map(float, texts))
    if isfinite(sum(numbers)):
        return instants, list(numbers)
    return instants, [None if isnan(number) else number for number in numbers]


@lru_cache(maxsize=64)
def _instants(times: tuple[Any, ...], kinds: tuple[type, ...]) -> list[int]:
    """UNIX seconds as microseconds. Not to be changed."""
    if not {int, float}.issuperset(kinds):
        raise TypeError
    if not _YEAR_2000 <= min(times) <= max(times) < _YEAR_2100:
        raise ValueError
    return [round(time * 1e6) for time in times]
