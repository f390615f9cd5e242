"""A Datadog metric query over the world: names, tags, intervals, and the series that it answers with. Pure.

A data group and one of its values are a metric, a warrior is a host, the name of its troop is the tag ``service``: two
troops of one name are one service. Counts are of type COUNT, flushed every 10 seconds; all else are gauges, sampled
every 15.

Sources, below docs.datadoghq.com: getting_started/tagging ("Define tags"), metrics/custom_metrics ("Naming custom
metrics"), dashboards/functions/rollup (the table of intervals, 1,500 points, UNIX time),
metrics/guide/interpolation-the-fill-modifier-explained, metrics/custom_metrics/type_modifiers,
dashboards/guide/query-to-the-graph (time before space). What is not documented follows answers that Datadog recorded
for the tests of its clients (DataDog/datadog-api-client-python and -go, cassettes): a bucket that began before
``from`` is left out; ranges of some minutes come at 1 s; a single series has no points where nothing was reported.

Where neither says anything, this reading is taken:

- Tags lose the underscores at their end and repeated ones (DataDog/documentation#6589,
  DataDog/datadog-serverless-functions#240), not those at the start, and colons
  at their end; a service of nothing else is no tag.
- A metric whose name is longer than 200 characters is not there.
- An interval that is too fine becomes the next of ``LADDER``; a range of more than a month has days.
- Interpolation fills up to its limit after any real point, also into a longer gap and after the last one, and only
  where another source has a point. Grouping does not prevent it: the page counts it among the cases.
- Several series of one query have the same times, and null where one has no point.
- A bucket that the range cuts has what lies within the range.
- ``as_count()`` and ``as_rate()`` sum, whatever the rollup says.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from vendor_assets.simulator.data_groups import DataGroup, Family
from vendor_assets.simulator.datadog_query import Query
from vendor_assets.simulator.world import Series, Troop, Warrior, World

POINTS_MOST = 1_500
NAME_MOST = 200
_DAY = 86_400
INTERVALS = (
    (300, 1), (3600, 20), (4 * 3600, 60), (_DAY, 300), (2 * _DAY, 600), (7 * _DAY, 3600), (31 * _DAY, 4 * 3600),
)  # fmt: skip
"""Longest range in seconds, and the interval that it has where the query says none."""
LADDER = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200, _DAY)
"""Intervals that take the place of one that is too fine."""

_COUNTS = {"call_count", "error_count", "s", "t", "f", "count"}
_FLUSH_SECONDS, _SAMPLE_SECONDS = 10, 15
_MILLISECOND = {
    "family": "time", "scale_factor": 0.001, "name": "millisecond", "short_name": "ms", "plural": "milliseconds"
}  # fmt: skip
_MEBIBYTE = {
    "family": "bytes", "scale_factor": 1048576.0, "name": "mebibyte", "short_name": "MiB", "plural": "mebibytes"
}  # fmt: skip
_PERCENT = {
    "family": "percentage",
    "scale_factor": 1.0,
    "name": "percent",
    "short_name": "%",
    "plural": "percent",
}
_UNITS: dict[Family, dict[str, object]] = {"memory": _MEBIBYTE, "cpu": _PERCENT}

Unit = list[dict[str, object] | None] | None
Values = dict[int, float]
"""By the start of the bucket, UNIX seconds."""


class Window(NamedTuple):
    """The range of a query, and the interval of its answer; UNIX seconds.

    Args:
        end: Exclusive; what is reported from then on does not count.
        last: The last moment at which a bucket may begin.
    """

    begin: int
    end: int
    last: int
    interval: int

    @property
    def step(self) -> int:
        """Between two buckets: nothing is reported more often than every 10 seconds."""
        return max(self.interval, _FLUSH_SECONDS)

    def starts(self, born: int, died: int) -> range:
        """The starts of the buckets, aligned to UNIX time, that a life from ``born`` to ``died`` touches."""
        step = self.step
        first = max(-(-self.begin // step), born // step)
        return range(first * step, min(self.last + 1, died), step)


class Source(NamedTuple):
    """What one host reports under one set of tags: its values are kept separately."""

    tags: dict[str, str]
    series: Series
    position: int
    begin: int
    end: int
    leaf: str


class Line(NamedTuple):
    """One series of an answer.

    Args:
        tags: Of the group, ``key:value``, sorted.
        leaves: Warrior and question of each source behind it.
    """

    tags: tuple[str, ...]
    values: dict[int, float | None]
    unit: Unit
    leaves: tuple[str, ...]


def interval_of(begin: int, last: int, asked: int = 0) -> int:
    """Seconds between two points that lie from ``begin`` to ``last``, both included, whatever was asked for."""
    length = last - begin
    if not asked:
        return next((interval for longest, interval in INTERVALS if length <= longest), _DAY)
    steps = (asked, *(step for step in LADDER if step > asked))
    return next((step for step in steps if last // step - (begin - 1) // step <= POINTS_MOST), _DAY)


def tag(key: str, value: str) -> str | None:
    """A tag as Datadog stores it; None where nothing is left of its value."""
    text = "".join(letter if letter.isalnum() or letter in "_-:./" else "_" for letter in value.lower())
    text = re.sub("_+", "_", text)[: NAME_MOST - len(key) - 1].rstrip("_:")
    return f"{key}:{text}" if text else None


@lru_cache(maxsize=65_536)
def metric_of(data_group: str, value_name: str) -> str | None:
    """The name of a metric; None where it would be longer than allowed."""
    name = re.sub(r"[^A-Za-z0-9_.]", "_", f"{data_group}.{value_name}")
    return name if len(name) <= NAME_MOST else None


def host_of(warrior: Warrior) -> str:
    """The name of a host, as it is in lists and in the tag ``host``."""
    return (tag("host", warrior.host) or f"host:{warrior.id}").partition(":")[2]


def tags_of(warrior: Warrior, service: str) -> dict[str, str]:
    """Tags of a host by key; without ``service`` where nothing is left of its name."""
    tags = {"env": "env:production", "host": f"host:{host_of(warrior)}"}
    named = tag("service", service)
    return tags | ({"service": named} if named else {})


def metrics_of(groups: tuple[DataGroup, ...]) -> list[str]:
    """The names of the metrics of these data groups."""
    names = [metric_of(group.name, value_name) for group in groups for value_name in group.value_names]
    return [name for name in names if name is not None]


def covered_seconds(world: World, warrior: Warrior, start: float, end: float) -> float:
    """How long a warrior reported within [start, end)."""
    low, high = max(start, warrior.born), min(end, warrior.died)
    return high - low - world.silent_seconds(warrior, low, high)


def lives(world: World, begin: int, end: int) -> Iterator[tuple[Troop, Warrior, int, int]]:
    """Each warrior that lives in [begin, end), by the name of its troop at the time, with the range of both."""
    named: dict[str, list[tuple[Troop, int, int]]] = defaultdict(list)
    for day in range(begin // _DAY, (end - 1) // _DAY + 1):
        for troop in world.troops_between(day * _DAY, (day + 1) * _DAY - 1):
            spans = named[troop.id]
            if spans and spans[-1][0].name == troop.name:
                spans[-1] = (troop, spans[-1][1], (day + 1) * _DAY)
            else:
                spans.append((troop, day * _DAY, (day + 1) * _DAY))
    for troop_id, spans in named.items():
        for warrior in world.warriors_between(troop_id, begin, end):
            for troop, start, stop in spans:
                if warrior.born < stop and start < warrior.died:
                    yield troop, warrior, start, stop


def sources(query: Query, world: World, begin: int, end: int) -> list[Source]:
    """What has the metric and the tags that a query asks for in [begin, end)."""
    found = []
    asked = f"{query.aggregator}:{query.metric}{query.modifiers}"
    for troop, warrior, start, stop in lives(world, begin, end) if begin < end else ():
        tags = tags_of(warrior, troop.name)
        if not query.scope.holds(frozenset(tags.values())):
            continue
        for group in world.data_groups(warrior.id):
            for position, value_name in enumerate(group.value_names):
                if metric_of(group.name, value_name) != query.metric:
                    continue
                series = world.series(warrior.id, group.name)
                if series is not None:
                    found.append(Source(tags, series, position, start, stop, f"{warrior.id} {asked}"))
    return found


def answer(query: Query, world: World, window: Window, earliest: float, visible_until: float) -> list[Line]:
    """The series that a query answers with.

    Args:
        earliest: Older points are gone.
        visible_until: Younger points are not visible.
    """
    found = [
        (source, _rolled(query, source, window, earliest, visible_until))
        for source in sources(
            query, world, max(window.begin, int(earliest)), min(window.end, math.ceil(visible_until))
        )
    ]
    found = [(source, values) for source, values in found if values]
    times = sorted({start for _, values in found for start in values})
    groups: dict[tuple[str, ...], list[tuple[Source, Values]]] = defaultdict(list)
    for source, values in found:
        tags = sorted(source.tags.get(key, f"{key}:N/A") for key in query.by)
        filled = values if _is_plain(query, source) else _interpolated(query, values, times)
        groups[tuple(tags)].append((source, filled))
    lines = [_line(query, tags, members) for tags, members in sorted(groups.items())]
    if len(lines) > 1:
        lines = [line._replace(values={start: line.values.get(start) for start in times}) for line in lines]
    return lines


def _is_count(source: Source) -> bool:
    return source.series.group.value_names[source.position] in _COUNTS


def _is_plain(query: Query, source: Source) -> bool:
    """Whether gaps stay gaps."""
    return query.fill == "null" or (bool(query.shown_as) and _is_count(source))


def _rolled(query: Query, source: Source, window: Window, earliest: float, visible_until: float) -> Values:
    """The points of one source, aggregated over time."""
    values: Values = {}
    born, died = max(source.begin, source.series.warrior.born), min(source.end, source.series.warrior.died)
    for start in window.starts(born, died):
        low, high = max(start, source.begin), min(start + window.step, source.end, window.end)
        found = None if start < earliest else source.series.values(low, high, visible_until)
        if found is not None:
            value = float(found[source.position])
            values[start] = _aggregated(query, source, value, low, min(high, visible_until), window.step)
    return values


def _aggregated(query: Query, source: Source, value: float, low: float, high: float, step: int) -> float:
    """One bucket: a count is the total of its points, a gauge the same in all of them."""
    counted = _is_count(source)
    if query.shown_as and counted:
        return value / step if query.shown_as == "rate" else value
    if counted is (query.method == "sum") and query.method != "count":
        return value
    seconds = covered_seconds(source.series.world, source.series.warrior, low, high)
    points = max(1, round(seconds / (_FLUSH_SECONDS if counted else _SAMPLE_SECONDS)))
    if query.method == "count":
        return float(points)
    return value / points if counted else value * points


def _interpolated(query: Query, values: Values, times: list[int]) -> Values:
    """The same points, and others where further sources have one."""
    real = sorted(values)
    filled = dict(values)
    for start in times:
        place = bisect(real, start)
        if start in values or place == 0 or start - real[place - 1] > query.fill_seconds:
            continue
        before, after = real[place - 1], real[place] if place < len(real) else None
        if query.fill == "zero":
            filled[start] = 0.0
        elif query.fill == "last" or after is None:
            filled[start] = values[before]
        else:
            share = (start - before) / (after - before)
            filled[start] = values[before] + (values[after] - values[before]) * share
    return filled


def _line(query: Query, tags: tuple[str, ...], members: list[tuple[Source, Values]]) -> Line:
    """The points of a group, aggregated over its sources."""
    by_start: dict[int, list[float]] = defaultdict(list)
    for _, values in members:
        for start, value in values.items():
            by_start[start].append(value)
    combined: dict[int, float | None] = {
        start: _combined(query.aggregator or "avg", by_start[start]) for start in sorted(by_start)
    }
    group = members[0][0].series.group
    value_name = group.value_names[members[0][0].position]
    unit = _MILLISECOND if value_name.endswith("response_time") else _UNITS.get(group.family)
    leaves = tuple(dict.fromkeys(source.leaf for source, _ in members))
    return Line(tags, combined, None if unit is None else [unit, None], leaves)


def _combined(aggregator: str, values: list[float]) -> float:
    if aggregator == "avg":
        return sum(values) / len(values)
    return sum(values) if aggregator == "sum" else min(values) if aggregator == "min" else max(values)
