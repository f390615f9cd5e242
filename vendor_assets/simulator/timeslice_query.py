"""A parsed NRQL query over the world: which timeslices it reads, and the rows it answers with. Pure.

The values are those that REST v2 gives for the same stretch of time, in the units of a timeslice: seconds in
place of milliseconds. How a REST value is read from one is the vendor's table
(docs.newrelic.com/docs/apis/rest-api-v2/migrate-to-nrql); ``calls_per_minute`` is ``rate(count(…), 1 minute)``: over
the whole bucket, where REST has the minutes that the warrior reported.

Where the documentation leaves something open, this reading is taken: a query snaps to 5 minutes where it covers
more than a day, to hours where it begins more than 8 days ago, to minutes otherwise; a finer bucket grows to
that; ``LIMIT`` does not raise what ``uniques()`` returns, its own argument does.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vendor_assets.simulator.data_groups import DataGroup
from vendor_assets.simulator.nrql import (
    FACET_LIMIT,
    GETTERS,
    VALUE,
    Attribute,
    Binary,
    Call,
    Expression,
    NrqlError,
    Number,
    Query,
    attributes_of,
    holds,
    required,
)
from vendor_assets.simulator.world import Series, Troop, Warrior, World

BUCKETS_MOST = 366
_DAY = 86_400
_MINUTE = 60
_LONGEST = 3 * 366 * _DAY
_SOURCES = {"appId", "appName", "entity.guid", "realAgentId"}
_RANKING = ("min", "max", "average", "count")

Value = float | str | list[str] | dict[str, float] | None
Row = dict[str, Value]
Attributes = dict[str, str | None]
Key = tuple[str | None, ...]
"""The values of the attributes that a query facets by."""


class Timeslice(NamedTuple):
    """The six fields of a metric timeslice, in the order of ``GETTERS``. Times are seconds, memory MiB."""

    calls: float
    total: float
    exclusive: float
    minimum: float
    maximum: float
    squares: float


class Window(NamedTuple):
    """The range that a query covers, and its buckets; UNIX seconds."""

    begin: int
    end: int
    bucket: int

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Start and end of each bucket."""
        for start in range(self.begin, self.end, self.bucket):
            yield start, start + self.bucket


class Sample(NamedTuple):
    """One timeslice of one series."""

    attributes: Attributes
    values: Timeslice


class Found(NamedTuple):
    """What a query finds."""

    rows: list[Row]
    leaves: tuple[str, ...]
    """Warrior, data group, range and bucket of each series behind the rows, as REST's data calls count them."""


class Reading(NamedTuple):
    """The series that a query reads, before their values are computed."""

    query: Query
    window: Window
    series: list[tuple[Attributes, Series]]

    @property
    def points(self) -> int:
        """How many timeslices it has to read: what it costs."""
        return len(self.series) * ((self.window.end - self.window.begin) // self.window.bucket)

    def find(self, earliest: float, visible_until: float) -> Found:
        """Compute the rows.

        Args:
            earliest: Older timeslices are gone.
            visible_until: Younger data is not visible.
        """
        query, window = self.query, self.window
        groups: dict[Key, list[list[Sample]]] = {} if query.facets else {(): self._empty()}
        behind: dict[Key, list[str]] = {}
        for attributes, series in self.series:
            key = tuple(attributes.get(name) for name in query.facets)
            samples: list[tuple[int, Sample]] = []
            for number, (start, end) in enumerate(window.buckets()):
                values = None if start < earliest else series.values(start, end, visible_until)
                if values is not None:
                    samples.append((number, Sample(attributes, timeslice(series.group, values, end - start))))
            if not samples:
                continue
            behind.setdefault(key, []).append(self._leaf(series))
            buckets = groups.setdefault(key, self._empty())
            for number, sample in samples:
                buckets[number].append(sample)
        kept = list(groups)
        if query.facets:
            kept = sorted(groups, key=self._rank(groups))[: query.limit or FACET_LIMIT]
        rows = [row for key in kept for row in self._rows(key, groups[key])]
        names = any(isinstance(one, Call) and one.name.startswith("unique") for _, one in query.select)
        return Found(rows, () if names else tuple(leaf for key in kept for leaf in behind.get(key, [])))

    def _empty(self) -> list[list[Sample]]:
        return [[] for _ in self.window.buckets()]

    def _leaf(self, series: Series) -> str:
        window = self.window
        return f"{series.warrior.id} {series.group.name} {window.begin}-{window.end}/{window.bucket}"

    def _rank(self, groups: dict[Key, list[list[Sample]]]) -> Callable[[Key], float]:
        """Facets come by the first function, the largest first; by frequency where it is not one of four."""
        _, first = self.query.select[0]
        window = self.window

        def rank(key: Key) -> float:
            samples = [sample for bucket in groups[key] for sample in bucket]
            if isinstance(first, Call) and first.name in _RANKING:
                value = evaluate(first, samples, window.end - window.begin)
                return -value if isinstance(value, int | float) else math.inf
            return -len(samples)

        return rank

    def _rows(self, key: Key, buckets: list[list[Sample]]) -> Iterator[Row]:
        """One row, or one a bucket; ``facet`` is a list where there are several."""
        query, window = self.query, self.window
        for (start, end), samples in zip(window.buckets(), buckets, strict=True):
            row: Row = {}
            if query.timeseries is not None:
                row |= {"beginTimeSeconds": start, "endTimeSeconds": end}
            if len(key) == 1:
                row |= {"facet": key[0], query.facets[0]: key[0]}
            elif key:
                row["facet"] = [str(part) for part in key]
            row |= {name: evaluate(one, samples, end - start) for name, one in query.select}
            yield row


def plan(query: Query, world: World, account_id: int, now: float) -> Reading:
    """The series that a query reads.

    Raises:
        NrqlError: It asks for what this vendor does not know, for no data source, or for too many buckets.
    """
    if query.source != "Metric":
        raise NrqlError(f"NRQL Syntax Error: Unknown event type {query.source}")
    if not attributes_of(query.where) & _SOURCES:
        raise NrqlError("At least one data source is needed: entity.guid, appId or appName")
    window = window_of(query, now)
    metrics = required(query.where, "metricTimesliceName")
    series = []
    for troop in _troops(query, world, window, account_id):
        for warrior in world.warriors_between(troop.id, window.begin, window.end):
            attributes = _attributes(troop, warrior, account_id)
            for group in world.data_groups(warrior.id):
                if metrics is not None and group.name not in metrics:
                    continue
                attributes = attributes | {"metricTimesliceName": group.name}
                found = world.series(warrior.id, group.name) if holds(query.where, attributes) else None
                if found is not None:
                    series.append((attributes, found))
    return Reading(query, window, series)


def window_of(query: Query, now: float) -> Window:
    """The range, snapped; with TIMESERIES laid from its end in whole buckets.

    Raises:
        NrqlError: It is empty, shorter than one bucket, or has more than 366 buckets.
    """
    until = now if query.until is None else query.until
    since = now - 3600 if query.since is None else query.since
    length, old = until - since, since < now - 8 * _DAY
    if isinstance(query.timeseries, str):
        bucket = length / (BUCKETS_MOST if query.timeseries == "MAX" else 48)
    else:
        bucket = query.timeseries or 0.0
    wide = length > _DAY and bucket % 300 == 0
    unit = 3600 if old else 300 if wide else _MINUTE
    begin, end = int(since // unit) * unit, int(until // unit) * unit
    if not 0 < end - begin <= _LONGEST:
        raise NrqlError("The time range is empty or too long: SINCE must be before UNTIL")
    if query.timeseries is None:
        return Window(begin, end, end - begin)
    step = math.ceil(bucket / unit) * unit
    number = (end - begin) // step if step else 0
    if number > BUCKETS_MOST:
        raise NrqlError(f"TIMESERIES has {number} buckets, at most {BUCKETS_MOST} are allowed")
    if number == 0:
        raise NrqlError("TIMESERIES: the time range is shorter than one bucket")
    return Window(end - number * step, end, step)


def guid(account_id: int, troop_id: str) -> str:
    """The GUID of an application."""
    return b64encode(f"{account_id}|APM|APPLICATION|{troop_id}".encode()).decode().rstrip("=")


def _troops(query: Query, world: World, window: Window, account_id: int) -> list[Troop]:
    wanted = required(query.where, "appId")
    return [
        troop
        for troop in world.troops_between(window.begin, window.end)
        if (wanted is None or troop.id in wanted)
        and _allows(query, "entity.guid", guid(account_id, troop.id))
        and _allows(query, "appName", troop.name)
    ]


def _allows(query: Query, attribute: str, value: str) -> bool:
    """Whether an attribute may have this value; spares what a query rules out."""
    wanted = required(query.where, attribute)
    return wanted is None or value in wanted


def _attributes(troop: Troop, warrior: Warrior, account_id: int) -> Attributes:
    """``instanceName`` is host:port for Java agents."""
    return {
        "appId": troop.id,
        "appName": troop.name,
        "entity.guid": guid(account_id, troop.id),
        "host": warrior.host,
        "realAgentId": warrior.id,
        "instanceName": f"{warrior.host}:8080" if troop.language == "java" else warrior.host,
        "metricName": VALUE,
        VALUE: "",
    }


def timeslice(group: DataGroup, values: tuple[float, ...], seconds: int) -> Timeslice:
    """The timeslice behind the values that REST gives for a stretch of so many seconds."""
    named = dict(zip(group.value_names, values, strict=True))
    if group.family == "apdex":
        return Timeslice(named["s"], named["t"], named["f"], 0.5, 0.5, 0.0)
    if group.family == "errors":
        return Timeslice(named["error_count"], 0.0, 0.0, 0.0, 0.0, 0.0)
    if group.family == "memory":
        used, lowest, highest = values
        return _spread(max(1, seconds // _MINUTE), used, lowest, highest)
    if group.family == "cpu":
        share, lowest, highest = (percent / 100 * _MINUTE for percent in values)
        return _spread(seconds / _MINUTE, share, lowest, highest)
    average = named["average_response_time"]
    lowest, highest = named.get("min_response_time", average), named.get("max_response_time", average)
    return _spread(named["call_count"], average / 1000, lowest / 1000, highest / 1000)


def _spread(count: float, average: float, lowest: float, highest: float) -> Timeslice:
    total = count * average
    return Timeslice(count, total, total, lowest, highest, total * average)


def evaluate(expression: Expression, samples: list[Sample], seconds: float) -> Value:
    """The value of an expression over samples of a stretch of so many seconds; None where there is none.

    Raises:
        NrqlError: It is no aggregate of timeslices.
    """
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Binary):
        left = evaluate(expression.left, samples, seconds)
        right = evaluate(expression.right, samples, seconds)
        return _calculate(expression.operator, left, right)
    if isinstance(expression, Attribute):
        raise NrqlError(f"NRQL Syntax Error: {expression.name} is not aggregated by a function")
    argument = expression.argument
    if expression.where is not None:
        return evaluate(
            argument, [one for one in samples if holds(expression.where, one.attributes)], seconds
        )
    if expression.name == "rate":
        return _calculate("*", evaluate(argument, samples, seconds), expression.number / seconds)
    if expression.name.startswith("unique"):
        if not isinstance(argument, Attribute):
            raise NrqlError(f"NRQL Syntax Error: {expression.name}() takes an attribute")
        found = list(dict.fromkeys(value for one in samples if (value := one.attributes.get(argument.name))))
        return float(len(found)) if expression.name == "uniqueCount" else found[: int(expression.number)]
    if argument == Attribute(VALUE):
        return _aggregate(expression.name, [one.values for one in samples])
    if argument == Attribute("*") and expression.name == "count":
        return float(len(samples))
    fields = [part for one in samples if (part := _field(argument, one.values)) is not None]
    if expression.name in ("count", "sum"):
        return sum(fields) if expression.name == "sum" else float(len(fields))
    return _reduce(expression.name, fields)


def _aggregate(name: str, slices: list[Timeslice]) -> Value:
    count, total = sum(one.calls for one in slices), sum(one.total for one in slices)
    if name == "apdex":
        frustrated = sum(one.exclusive for one in slices)
        together = count + total + frustrated
        score = round((count + total / 2) / together, 3) if together else 1.0
        return {"count": together, "s": count, "t": total, "f": frustrated, "score": score}
    if name == "count":
        return count
    if name == "sum":
        return total
    if name == "average":
        return total / count if count else None
    return _reduce(name, [one.minimum if name == "min" else one.maximum for one in slices])


def _reduce(name: str, fields: list[float]) -> float | None:
    if not fields:
        return None
    if name == "average":
        return sum(fields) / len(fields)
    if name in ("min", "max"):
        return min(fields) if name == "min" else max(fields)
    raise NrqlError(f"NRQL Syntax Error: {name}() does not take this argument")


def _field(expression: Expression, values: Timeslice) -> float | None:
    """An expression inside a function, for one timeslice."""
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Attribute) and expression.name == VALUE:
        return values[GETTERS.index(expression.getter or "total")]
    if isinstance(expression, Binary):
        left, right = _field(expression.left, values), _field(expression.right, values)
        return _calculate(expression.operator, left, right)
    raise NrqlError("NRQL Syntax Error: only fields of newrelic.timeslice.value can be aggregated")


def _calculate(operator: str, left: Value, right: Value) -> float | None:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return None
    if operator == "/":
        return left / right if right else None
    return left + right if operator == "+" else left - right if operator == "-" else left * right
