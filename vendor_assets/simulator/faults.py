"""What can go wrong on purpose: which calls it hits, and what it does to their answers.

Pure, from a seed: :class:`Faults` decides, :func:`spoil` alters a body, the server does the rest.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

KINDS: dict[str, str] = {
    "status": "answers with `status`",
    "reset": "the connection is reset instead of an answer",
    "truncated": "Content-Length promises the whole body, half of it comes",
    "malformed": "the body is cut JSON with a matching Content-Length",
    "html": "an HTML error page with status 200",
    "wrong_type": "the right body as text/plain",
    "empty": "status 200 with an empty body",
    "hang": "no answer for `seconds` (default: forever), then a reset",
    "latency": "the answer comes `seconds` late",
    "slow_body": "the right body, spread over `seconds`",
    "endless_body": "one byte a second, forever",
    "huge_body": "a body of `bytes` (default 200 MB)",
    "outage": "everything fails for `seconds`: `mode` is 503, reset or refuse (the port is closed)",
    "redirect": "302 to `location`",
    "endless_paging": "Link always names a next page",
    "repeating_page": "each page is the first one, and Link names a next page",
    "duplicates": "the first entity of a page comes twice",
    "shuffled": "the entities of a page in reverse order",
    "weird_values": "NaN, infinities, 2^63, null, a negative number and text among the values",
    "weird_times": "timeslices before the year 0, from 1677 to 9999, backwards, of no length, from -1",
    "drift_new": "each entity has a field that nobody knows",
    "drift_missing": "ids, names and ends of timeslices are missing",
    "drift_type": "ids, names and ends of timeslices have another type",
    "clock_skew": "Date, X-RateLimit-Reset and Retry-After are `seconds` off (default an hour)",
    "alias_timeout": "the first `nrql()` of a document of NerdGraph times out, its siblings are whole",
    "nrql_timeout": "the NRQL queries that `match` times out; others of the document are whole",
    "nrql_error": "the same with a SERVER_ERROR",
    "null_points": "Datadog: every other point is null",
    "status_error": "Datadog: a query is answered with status 200 and `status: error`",
    "wrong_interval": "Datadog: points lie twice as far apart as was asked",
    "partial_data": "CloudWatch: half of every other metric's points are missing, and it says so without a token",
    "internal_error": "CloudWatch: every other metric is answered with InternalError",
    "forbidden": "CloudWatch: every other metric is answered with Forbidden",
    "early_page": "CloudWatch: a page of data ends half-way",
    "throttle": "CloudWatch: a call is refused as too fast, whatever the quota",
    "message": "CloudWatch: an answer with data has a message about all of it",
    "retry_after": "503 with the Retry-After given as `value`",
}
"""Kinds of faults. A number stands for ``status``: ``500``, ``502``, ``404``."""

_ODD: tuple[object, ...] = (float("nan"), float("inf"), 2**63, None, -1.5, float("-inf"), "12")
_ODD_SECONDS = ((-(10**11), -(10**11)), (2, 1), (1, 1), (0, 10**12), (-1, None))

HTML = b"<!doctype html><html><head><title>Bad Gateway</title></head><body><h1>502</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule.

    Args:
        count: How many are hit at most; None has no end.
        every: Only every so many-th matching call is hit, the first included.
        skip: How many matching calls are let through first.
        match: Regular expression that is searched in the request target; in the target and body of a document
            of NerdGraph, in the text of an NRQL query.
    """

    kind: str
    rate: float = 1.0
    count: int | None = None
    skip: int = 0
    every: int = 1
    match: str = ""
    seconds: float | None = None
    status: int = 500
    location: str = "http://localhost:9/elsewhere"
    value: str = "1"
    mode: str = "503"
    bytes: int = 200_000_000


_READERS: dict[str, Callable[[str], object]] = {
    "kind": str, "rate": float, "count": int, "skip": int, "every": int, "match": str, "seconds": float,
    "status": int, "location": str, "value": str, "mode": str, "bytes": int,
}  # fmt: skip


def parse_fault(values: Mapping[str, object]) -> Fault:
    """Make a fault from JSON.

    Raises:
        ValueError: A kind, field or value that is not known; the message names it.
    """
    for name in values:
        if name not in _READERS:
            raise ValueError(f"fault field {name!r} is not one of {', '.join(sorted(_READERS))}")
    kind = str(values.get("kind", ""))
    if kind.isdecimal():
        values = {**values, "kind": "status", "status": kind}
        kind = "status"
    if kind not in KINDS:
        raise ValueError(f"fault kind {kind!r} is not a status or one of {', '.join(sorted(KINDS))}")
    try:
        read: dict[str, Any] = {
            name: _READERS[name](str(value)) for name, value in values.items() if value is not None
        }
        fault = Fault(**read)
        re.compile(fault.match)
    except (ValueError, re.error) as error:
        raise ValueError(f"fault {kind!r}: {error}") from error
    if not 0 <= fault.rate <= 1:
        raise ValueError(f"fault {kind!r}: rate {fault.rate:g} is not between 0 and 1")
    if fault.every < 1:
        raise ValueError(f"fault {kind!r}: every {fault.every} is not 1 or more")
    if not 200 <= fault.status <= 599:
        raise ValueError(f"fault {kind!r}: status {fault.status} is not between 200 and 599")
    if fault.mode not in ("503", "reset", "refuse"):
        raise ValueError(f"fault {kind!r}: mode {fault.mode!r} is not 503, reset or refuse")
    return fault


def parse_fault_flag(text: str) -> Fault:
    r"""Make a fault from a flag: ``500``, ``reset:rate=0.1;count=3;match=metrics\.json``.

    Raises:
        ValueError: It cannot be read; the message says why.
    """
    kind, _, rest = text.partition(":")
    values: dict[str, object] = {"kind": kind}
    for pair in filter(None, rest.split(";")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"fault {text!r}: {pair!r} is not name=value")
        values[name] = value
    return parse_fault(values)


class _Rule:
    """A fault in force, and how often it has matched and hit."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._pattern = re.compile(fault.match)
        self._seen = self._hit = 0

    def hits(self, target: str, chance: random.Random) -> bool:
        fault = self.fault
        if not self._pattern.search(target):
            return False
        self._seen += 1
        if self._seen <= fault.skip or (fault.count is not None and self._hit >= fault.count):
            return False
        if (self._seen - fault.skip - 1) % fault.every:
            return False
        if fault.rate < 1 and chance.random() >= fault.rate:
            return False
        self._hit += 1
        return True


class Faults:
    """The faults in force; the first that hits a call is the one."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 1) -> None:
        self.hits: Counter[str] = Counter()
        self._rules = [_Rule(fault) for fault in faults]
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[Fault]:
        return (rule.fault for rule in self._rules)

    def add(self, faults: Iterable[Fault]) -> None:
        """Put more faults after those in force."""
        self._rules += map(_Rule, faults)

    def clear(self) -> None:
        """Remove all faults; what they hit stays counted."""
        self._rules = []

    def pick(
        self, target: str, *, refused: bool = False, scope: Literal["call", "nrql"] = "call"
    ) -> Fault | None:
        """The fault that hits this call or NRQL query, if one does.

        A refused call (429) meets a skewed clock only.
        """
        for rule in self._rules:
            fault = rule.fault
            if fault.kind.startswith("nrql_") != (scope == "nrql"):
                continue
            if fault.kind == "alias_timeout" and "nrql(" not in target:
                continue
            if fault.kind == "outage" or (refused and fault.kind != "clock_skew"):
                continue
            if rule.hits(target, self._random):
                self.hits[str(fault.status) if fault.kind == "status" else fault.kind] += 1
                return fault
        return None


def spoil(kind: str, body: bytes) -> bytes:
    """The body as a fault of this kind leaves it; unchanged where it does not concern bodies."""
    if kind == "malformed":
        return body[: max(1, len(body) * 2 // 3)]
    if kind == "html":
        return HTML
    if kind == "empty":
        return b""
    if not kind.startswith(("duplicates", "shuffled", "weird_", "drift_", "null_")):
        return body
    tree = json.loads(body)
    if "error" in tree:
        return body
    if _spoil_datadog(kind, tree) or _spoil_cloudwatch(kind, tree):
        return json.dumps(tree, separators=(",", ":")).encode()
    if kind == "null_points":
        return body
    if "data" in tree or "errors" in tree:
        for rows in _lists(tree.get("data")):
            _spoil_rows(kind, rows)
        return json.dumps(tree, separators=(",", ":")).encode()
    name = next(iter(tree))
    entities: list[dict[str, Any]] = tree[name]["metrics"] if name == "metric_data" else tree[name]
    if kind == "duplicates":
        entities.extend(entities[:1])
    elif kind == "shuffled":
        entities.reverse()
    elif kind == "weird_values":
        odd = itertools.cycle(_ODD)
        for entity in entities:
            for piece in entity.get("timeslices", [])[:4]:
                piece["values"] = dict(zip(piece["values"], odd, strict=False))
    elif kind == "weird_times":
        for entity in entities:
            _weird_times(entity.get("timeslices", []))
    else:
        _drift(kind, entities)
    return json.dumps(tree, separators=(",", ":")).encode()


def _spoil_datadog(kind: str, tree: dict[str, Any]) -> bool:
    """What :func:`spoil` does, done to an answer of Datadog; False where it is none."""
    data = tree.get("data")
    if "host_list" in tree:
        _spoil_list(kind, tree["host_list"], ("name", "last_reported_time"))
    elif "from" in tree and "metrics" in tree:
        _spoil_list(kind, tree["metrics"])
    elif "res_type" in tree:
        for series in tree["series"]:
            points = series["pointlist"]
            times, values = [point[0] for point in points], [point[1] for point in points]
            spoiled = zip(_spoil_times(kind, times), _spoil_values(kind, values), strict=True)
            series["pointlist"] = [list(point) for point in spoiled]
        _spoil_list(kind, tree["series"], ("tag_set", "interval"))
    elif isinstance(data, dict) and data.get("type") == "timeseries_response":
        inside = data["attributes"]
        inside["times"] = _spoil_times(kind, inside["times"])
        inside["values"] = [_spoil_values(kind, values) for values in inside["values"]]
        _spoil_list(kind, inside["series"], ("group_tags",))
        if not kind.startswith("drift_"):
            _spoil_list(kind, inside["values"])
    else:
        return "valid" in tree or "tags" in tree
    return True


def _spoil_cloudwatch(kind: str, tree: dict[str, Any]) -> bool:
    """What :func:`spoil` does, done to an answer of CloudWatch; False where it is none."""
    if "Metrics" in tree:
        _spoil_list(kind, tree["Metrics"], ("MetricName", "Dimensions"))
    elif "MetricDataResults" in tree:
        for result in tree["MetricDataResults"]:
            result["Timestamps"] = _spoil_times(kind, result["Timestamps"])
            result["Values"] = _spoil_values(kind, result["Values"])
        _spoil_list(kind, tree["MetricDataResults"], ("Id", "Timestamps"))
    else:
        return False
    return True


def _spoil_list(kind: str, rows: list[Any], names: tuple[str, ...] = ()) -> None:
    if kind == "duplicates":
        rows.extend(rows[:1])
    elif kind == "shuffled":
        rows.reverse()
    elif kind.startswith("drift_") and names:
        _drift(kind, rows, names)


def _spoil_values(kind: str, values: list[Any]) -> list[Any]:
    if kind == "null_points":
        return [None if number % 2 else value for number, value in enumerate(values)]
    return [*_ODD, *values[len(_ODD) :]][: len(values)] if kind == "weird_values" else values


def _spoil_times(kind: str, times: list[Any]) -> list[Any]:
    odd = [second for pair in _ODD_SECONDS for second in pair]
    return [*odd, *times[len(odd) :]][: len(times)] if kind == "weird_times" else times


def _lists(tree: object) -> Iterator[list[dict[str, Any]]]:
    """The entities and results in a document of NerdGraph."""
    for name, inside in tree.items() if isinstance(tree, dict) else ():
        if name in ("entities", "results") and isinstance(inside, list):
            yield inside
        else:
            yield from _lists(inside)


def _spoil_rows(kind: str, rows: list[dict[str, Any]]) -> None:
    """What :func:`spoil` does to the lists of REST, done to one of NerdGraph."""
    times = ("beginTimeSeconds", "endTimeSeconds")
    if kind == "duplicates":
        rows.extend(rows[:1])
    elif kind == "shuffled":
        rows.reverse()
    elif kind == "weird_values":
        odd = itertools.cycle(_ODD)
        for row in rows[:4]:
            names = [name for name in row if name not in (*times, "facet") and not isinstance(row[name], str)]
            row.update(zip(names, odd, strict=False))
    elif kind == "weird_times":
        for row, (begin, end) in zip(rows, _ODD_SECONDS, strict=False):
            row.update({name: odd for name, odd in zip(times, (begin, end), strict=True) if name in row})
    else:
        _drift(kind, rows, ("endTimeSeconds", "facet", "guid"))


def _weird_times(slices: list[dict[str, Any]]) -> None:
    before, last = "-0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"
    for number, piece in enumerate(slices[:5]):
        start, end = piece["from"], piece["to"]
        piece["from"], piece["to"] = (
            (before, before), (end, start), (start, start), ("1677-01-01T00:00:00+00:00", last), (-1, end)
        )[number]  # fmt: skip


def _drift(kind: str, entities: list[dict[str, Any]], names: tuple[str, ...] = ()) -> None:
    for entity in entities:
        for target in entity.get("timeslices", [entity]):
            if kind == "drift_new":
                target["unheard_of"] = {"since": 2031, "why": ["nobody", "knows"]}
                continue
            usual = ("to", "id") if "timeslices" in entity or "id" in target else ("name",)
            for name in names or usual:
                if name not in target:
                    continue
                old = target.pop(name)
                if kind == "drift_type":
                    target[name] = {"was": old}
