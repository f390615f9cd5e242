"""Prometheus' HTTP API: jobs, their instances, the instances' metrics by prefix, and their values over a day.

A troop is a job, a warrior an instance, a data group all metrics of an instance that begin with the same two words:
``node_cpu`` holds ``node_cpu_seconds_total`` and ``node_cpu_guest_seconds_total``.

Source of paths, parameters and answers: https://prometheus.io/docs/prometheus/latest/querying/api/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite, isnan
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlencode

from vendor_assets.days import Window
from vendor_assets.errors import VendorProtocolError
from vendor_assets.vendors.base import (
    Asset,
    DataGroup,
    Leaf,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
    is_name,
    read_object,
    reject,
)

MAX_POINTS: Final = 11_000
"""Points of one series in one answer; a query for more is refused with 400. Source: ``query_range`` in web/api/v1."""

MAX_QUERY_CHARACTERS: Final = 4000
"""Length of path and query; servers and proxies commonly take 8 KB of headers."""

MAX_METRIC_POINTS: Final = 50_000
"""Metrics times points in one answer: since a metric has many series, this keeps answers to some ten megabytes."""

LOOKBACK: Final = timedelta(minutes=5)
"""An instant query answers with a sample at most so old (``--query.lookback-delta``, by default)."""

_ANSWER_FIELDS: Final = frozenset(("status", "data", "warnings", "infos", "errorType", "error"))
_YEAR_2000: Final = 946_684_800
_YEAR_2100: Final = 4_102_444_800
_NAMES: Final = re.compile(r'(.*[,{]__name__=~)"((?:\\.|[^"\\])*)"(\}[^"]*)', re.DOTALL)
_ALTERNATIVES: Final = re.compile(r"(?:\\.|[^\\|])+", re.DOTALL)
_LITERAL: Final = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")


class Prometheus(Vendor):
    """The HTTP API of Prometheus and of what speaks like it.

    Lists can be asked for a past day. They are asked from five minutes before it, since the values at its first
    instant may be so old. The server looks names up per block of storage, so that a job or an instance that was
    seen only shortly before or after the day may be on its list; it then has no data.

    A timeslice [t, t + resolution) holds what an instant query at t answers: the newest sample at t, at most five
    minutes old by the server's default. ``NaN`` becomes null; infinities are kept. A value's name is the metric's
    with its labels but ``job`` and ``instance``: ``node_cpu_seconds_total{cpu="0",mode="idle"}``.
    """

    kind: ClassVar[str] = "prometheus"
    title: ClassVar[str] = "Prometheus"
    rosters: ClassVar[Literal["current", "historical"]] = "historical"
    needs_api_key: ClassVar[bool] = False
    page_headers: ClassVar[tuple[str, ...]] = ("content-type",)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """A bearer token where there is a key, else nothing."""
        return {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def probe(self) -> Request:
        """A query that reads no data."""
        return Request("/api/v1/query", (("query", "vector(1)"),), "query")

    def troops(self, day: Window) -> PlannedRequest:
        """Values of the label ``job``."""
        return PlannedRequest(_label_values("job", {}, day), (Leaf("troops"),))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        """Values of the label ``instance`` of a job."""
        return PlannedRequest(_label_values("instance", {"job": troop_id}, day), (Leaf("warriors"),))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """Names of the metrics of an instance; ``parse`` sorts them into groups."""
        request = _label_values("__name__", {"job": troop_id, "instance": warrior_id}, day)
        return PlannedRequest(request, (Leaf(warrior_id, warrior_id=warrior_id),))

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """``query_range`` for several groups of an instance at a time, the day cut by the limit of points.

        Points lie at the day's start and every resolution after it, all before the day's end.

        Raises:
            ConfigurationError: The resolution is not a positive number of whole seconds.
        """
        self.check_resolution(resolution_seconds)
        planned: list[PlannedRequest] = []
        for window in _cut(day, resolution_seconds):
            last = window.end - timedelta(seconds=resolution_seconds)
            times = (
                ("start", _seconds(window.start)),
                ("end", _seconds(last)),
                ("step", str(resolution_seconds)),
            )
            points = int(window.seconds) // resolution_seconds
            for batch in _batches(groups, {"job": troop_id, "instance": warrior_id}, times, points):
                labels = {"job": troop_id, "instance": warrior_id}
                query = _selector(labels, "|".join(_pattern(group) for group in batch))
                request = Request("/api/v1/query_range", (("query", query), *times), "query_range")
                leaves = tuple(_leaf(warrior_id, group, window) for group in batch)
                planned += _within_bounds(PlannedRequest(request, leaves))
        return planned

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """Halves of a range query: by groups, else by metrics where a filter names them, else by time."""
        if planned.request.endpoint != "query_range":
            return []
        return _by_names(planned) or _by_time(planned)

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer. Warnings and infos of the server are not errors.

        Raises:
            VendorProtocolError: No JSON, ``status`` is not ``success``, or ``data`` is of another kind.
        """
        content = read_object(response)
        if content.get("status") != "success":
            kind, text = content.get("errorType"), content.get("error")
            raise VendorProtocolError(
                f"Prometheus answers status {content.get('status')!r}: {kind}: {text}"[:500]
            )
        data = content.get("data")
        match asset:
            case "troops" | "warriors":
                parsed = _entities(_names(data), "troop_id" if asset == "troops" else "warrior_id")
            case "data_groups":
                parsed = _groups(_names(data), planned.leaves[0].warrior_id)
            case "performance_data":
                parsed = _series(data, planned)
        parsed.new_fields = tuple(sorted(content.keys() - _ANSWER_FIELDS))
        return parsed


def group_of(metric: str) -> str:
    """The data group of a metric: its first two words, or all where it has fewer."""
    return "_".join(metric.split("_", 2)[:2])


def canonical(labels: Mapping[str, str]) -> str:
    """Labels as Prometheus writes them, sorted by name: ``{cpu="0",mode="idle"}``; nothing where there are none."""
    text = ",".join(f"{name}={_quoted(labels[name])}" for name in sorted(labels))
    return f"{{{text}}}" if text else ""


def _quoted(text: str) -> str:
    """A string literal of PromQL."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _selector(labels: Mapping[str, str], names: str = "") -> str:
    matchers = [f"{name}={_quoted(text)}" for name, text in labels.items()]
    return "{" + ",".join([*matchers, *([f"__name__=~{_quoted(names)}"] if names else [])]) + "}"


def _pattern(group: DataGroup) -> str:
    """A regular expression (RE2, anchored by the server) for the metrics of a group."""
    if group.narrowed:
        return "|".join(map(_escaped, group.value_names))
    return f"{_escaped(group.name)}(_.*)?" if "_" in group.name else _escaped(group.name)


def _escaped(name: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], name)


def _within_bounds(planned: PlannedRequest) -> Iterator[PlannedRequest]:
    """One group of which a filter names so many metrics that no query holds them takes several requests."""
    parts = _by_names(planned) if len(planned.request.key) > MAX_QUERY_CHARACTERS else []
    if not parts:
        yield planned
    for part in parts:
        yield from _within_bounds(part)


def _by_names(planned: PlannedRequest) -> list[PlannedRequest]:
    """Two halves of the regular expressions for names, between groups where there are several."""
    told = dict(planned.request.params)
    found = _NAMES.fullmatch(told["query"])
    alternatives = _ALTERNATIVES.findall(_unquoted(found[2])) if found else []
    if found is None or len(alternatives) < 2:
        return []
    of_group: dict[str, list[str]] = {leaf.data_group: [] for leaf in planned.leaves}
    for each in alternatives:
        name = _LITERAL.sub(r"\1", each.removesuffix("(_.*)?"))
        of_group.setdefault(group_of(name), []).append(each)
    groups = list(of_group)
    if len(groups) == 1:
        middle = len(alternatives) // 2
        halves = [(groups, alternatives[:middle]), (groups, alternatives[middle:])]
    else:
        halves = [
            (half, [each for group in half for each in of_group[group]])
            for half in (groups[: len(groups) // 2], groups[len(groups) // 2 :])
        ]
    return [
        PlannedRequest(
            _with(planned.request, query=f"{found[1]}{_quoted('|'.join(names))}{found[3]}"),
            tuple(leaf for leaf in planned.leaves if leaf.data_group in half),
        )
        for half, names in halves
    ]


def _by_time(planned: PlannedRequest) -> list[PlannedRequest]:
    """Two halves of the points of time."""
    told = dict(planned.request.params)
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


def _with(request: Request, **changed: str) -> Request:
    return replace(request, params=tuple((name, changed.get(name, text)) for name, text in request.params))


def _unquoted(text: str) -> str:
    """The text of a string literal of PromQL that :func:`_quoted` wrote."""
    return _LITERAL.sub(lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), text)


def _label_values(label: str, matching: Mapping[str, str], day: Window) -> Request:
    match = (("match[]", _selector(matching)),) if matching else ()
    # The end is included there, not here.
    times = (
        ("start", _seconds(day.start - LOOKBACK)),
        ("end", _seconds(day.end - timedelta(milliseconds=1))),
    )
    return Request(f"/api/v1/label/{label}/values", (*match, *times), "label_values")


def _seconds(instant: datetime) -> str:
    return f"{instant.timestamp():.3f}".removesuffix(".000")


def _cut(day: Window, step: int) -> Iterator[Window]:
    length = timedelta(seconds=step)
    points = -(-int(day.seconds) // step)
    for first in range(0, points, MAX_POINTS):
        count = min(MAX_POINTS, points - first)
        yield Window(day.start + first * length, day.start + (first + count) * length)


def _leaf(warrior_id: str, group: DataGroup, window: Window) -> Leaf:
    start, end = int(window.start.timestamp()), int(window.end.timestamp())
    key = f"{quote(warrior_id, safe='')}|{quote(group.name, safe='')}|{start}-{end}"
    return Leaf(key, warrior_id, group.name, window)


def _batches(
    groups: Sequence[DataGroup], labels: Mapping[str, str], times: tuple[tuple[str, str], ...], points: int
) -> Iterator[list[DataGroup]]:
    """Groups in order, cut where the query grows too long or the answer too large."""
    fixed = len("/api/v1/query_range?") + len(urlencode((("query", _selector(labels, "|")), *times)))
    batch: list[DataGroup] = []
    used, metrics = fixed, 0
    for group in groups:
        cost = len(quote("|" + _quoted(_pattern(group)), safe=""))
        size = max(1, len(group.value_names))
        if batch and (used + cost > MAX_QUERY_CHARACTERS or (metrics + size) * points > MAX_METRIC_POINTS):
            yield batch
            batch, used, metrics = [], fixed, 0
        batch.append(group)
        used += cost
        metrics += size
    if batch:
        yield batch


def _names(data: object) -> list[Any]:
    if not isinstance(data, list):
        raise VendorProtocolError(f"the answer's data is of type {type(data).__name__}, not a list of names")
    return data


def _entities(names: list[Any], id_column: str) -> Parsed:
    good = [name for name in names if is_name(name)]
    # An empty label is the same as none: nothing that could be asked for.
    bad = [reject("the name is not text", name) for name in names if name != "" and not is_name(name)]
    return Parsed({id_column: list(good), "name": list(good), "attributes": [None] * len(good)}, rejected=bad)


def _groups(names: list[Any], warrior_id: str) -> Parsed:
    found: dict[str, list[str]] = {}
    parsed = Parsed()
    for name in names:
        if is_name(name):
            found.setdefault(group_of(name), []).append(name)
        else:
            parsed.rejected.append(reject("the metric's name is not text", name))
    parsed.columns = {
        "warrior_id": [warrior_id] * len(found),
        "data_group": list(found),
        "value_names": list(found.values()),
    }
    return parsed


def _series(data: object, planned: PlannedRequest) -> Parsed:
    if (
        not isinstance(data, dict)
        or data.get("resultType") != "matrix"
        or not isinstance(data.get("result"), list)
    ):
        raise VendorProtocolError("the answer's data is not a matrix with a list of results")
    asked = {leaf.data_group for leaf in planned.leaves}
    step = int(dict(planned.request.params)["step"]) * 1_000_000
    groups: list[object] = []
    names: list[object] = []
    starts: list[object] = []
    ends: list[object] = []
    values: list[object] = []
    parsed = Parsed()
    for series in data["result"]:
        parts = _parts(series)
        if isinstance(parts, str):
            parsed.rejected.append(reject(parts, series))
            continue
        labels, points = parts
        metric = labels["__name__"]
        group = group_of(metric)
        if group not in asked:
            parsed.rejected.append(reject("the metric was not asked for", series))
            continue
        try:
            times, numbers = _read_points(points)
        except (TypeError, ValueError, OverflowError):
            times, numbers = [], []
            for point in points:
                try:
                    (time,), (number,) = _read_points([point])
                except (TypeError, ValueError, OverflowError):
                    record = {"metric": labels, "value": point}
                    parsed.rejected.append(reject("the point is not a time and a number as text", record))
                else:
                    times.append(time)
                    numbers.append(number)
        others = {name: text for name, text in labels.items() if name not in ("__name__", "job", "instance")}
        groups += [group] * len(times)
        names += [metric + canonical(others)] * len(times)
        starts += times
        ends += [time + step for time in times]
        values += numbers
    parsed.columns = {
        "warrior_id": [planned.leaves[0].warrior_id] * len(values),
        "data_group": groups,
        "value_name": names,
        "timeslice_start": starts,
        "timeslice_end": ends,
        "value": values,
        "weight": [None] * len(values),
    }
    return parsed


def _parts(series: object) -> tuple[dict[str, str], list[Any]] | str:
    """Labels and points of a series, or what is wrong with it."""
    if not isinstance(series, dict) or not isinstance(labels := series.get("metric"), dict):
        return "the series has no labels"
    if not all(isinstance(text, str) and (text == "" or is_name(text)) for text in labels.values()):
        return "a label of the series is not text"
    if not is_name(labels.get("__name__")) or not all(map(is_name, labels)):
        return "the series has no name"
    points = series.get("values")
    if not isinstance(points, list):
        native = "histograms" in series
        return "native histograms cannot be kept as numbers" if native else "the series has no list of values"
    return labels, points


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
    instants = _instants(times, tuple(map(type, times)))
    numbers = list(map(float, texts))
    if isfinite(sum(numbers)):
        return instants, list(numbers)
    return instants, [None if isnan(number) else number for number in numbers]


@lru_cache(maxsize=64)
def _instants(times: tuple[Any, ...], kinds: tuple[type, ...]) -> list[int]:
    """UNIX seconds as microseconds; all series of an answer mostly have the same times. Not to be changed."""
    if not {int, float}.issuperset(kinds):
        raise TypeError
    if not _YEAR_2000 <= min(times) <= max(times) < _YEAR_2100:
        raise ValueError
    return [round(time * 1e6) for time in times]
