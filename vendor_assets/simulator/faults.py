"""What can go wrong on purpose: which calls it hits, and what it does to their answers.

Pure, from a seed: :class:`Faults` decides, :func:`spoil` alters a body, the server does the rest.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

KINDS: dict[str, str] = {
    "status": "answers with `status`",
    "reset": "the connection is reset instead of an answer",
    "truncated": "Content-Length promises the whole body, half of it comes",
    "malformed": "the body is cut JSON with a matching Content-Length",
    "html": "an HTML error page with status 200",
    "wrong_type": "the right body as text/plain",
    "empty": "status 200 with an empty body",
    "hang": "no answer for `seconds` (default: for ever), then a reset",
    "latency": "the answer comes `seconds` late",
    "slow_body": "the right body, spread over `seconds`",
    "endless_body": "one byte a second, for ever",
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
    "retry_after": "503 with the Retry-After given as `value`",
}
"""Kinds of faults. A number stands for ``status``: ``500``, ``502``, ``404``."""

HTML = b"<!doctype html><html><head><title>Bad Gateway</title></head><body><h1>502</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule.

    Args:
        kind: One of ``KINDS``, or a status as text.
        rate: Share of the matching calls that are hit.
        count: How many are hit at most; None has no end.
        skip: How many matching calls are let through first.
        match: Regular expression that is searched in the request target.
        seconds: Duration, where the kind has one.
        status: Status, where the kind has one.
        location: Where a redirect leads.
        value: Text of Retry-After.
        mode: How an outage looks: ``503``, ``reset`` or ``refuse``.
        bytes: Size of a huge body.
    """

    kind: str
    rate: float = 1.0
    count: int | None = None
    skip: int = 0
    match: str = ""
    seconds: float | None = None
    status: int = 500
    location: str = "http://localhost:9/elsewhere"
    value: str = "1"
    mode: str = "503"
    bytes: int = 200_000_000


def parse_fault(values: Mapping[str, object]) -> Fault:
    """Make a fault from JSON.

    Raises:
        ValueError: A kind, field or value that is not known; the message names it.
    """
    known = {item.name for item in fields(Fault)}
    for name in values:
        if name not in known:
            raise ValueError(f"fault field {name!r} is not one of {', '.join(sorted(known))}")
    kind = str(values.get("kind", ""))
    status = values.get("status", 500)
    if kind.isdecimal():
        kind, status = "status", int(kind)
    if kind not in KINDS:
        raise ValueError(f"fault kind {kind!r} is not a status or one of {', '.join(sorted(KINDS))}")
    try:
        count, seconds = values.get("count"), values.get("seconds")
        fault = replace(
            Fault(kind),
            rate=float(str(values.get("rate", 1.0))),
            count=None if count is None else int(str(count)),
            skip=int(str(values.get("skip", 0))),
            match=str(values.get("match", "")),
            seconds=None if seconds is None else float(str(seconds)),
            status=int(str(status)),
            **{name: str(values[name]) for name in ("location", "value", "mode") if name in values},
            bytes=int(str(values.get("bytes", 200_000_000))),
        )
        re.compile(fault.match)
    except (ValueError, re.error) as error:
        raise ValueError(f"fault {kind!r}: {error}") from error
    if not 0 <= fault.rate <= 1:
        raise ValueError(f"fault {kind!r}: rate {fault.rate:g} is not between 0 and 1")
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


class Faults:
    """The rules in force; the first that hits a call is the one."""

    def __init__(self, rules: list[Fault] | None = None, seed: int = 1) -> None:
        self.rules = list(rules or [])
        self.hits: Counter[str] = Counter()
        self._seen = [0] * len(self.rules)
        self._hit = [0] * len(self.rules)
        self._patterns = [re.compile(rule.match) for rule in self.rules]
        self._random = random.Random(seed)

    def add(self, rules: list[Fault]) -> None:
        """Put more rules after those in force."""
        self.rules += rules
        self._seen += [0] * len(rules)
        self._hit += [0] * len(rules)
        self._patterns += [re.compile(rule.match) for rule in rules]

    def clear(self) -> None:
        """Take away all rules; what they hit stays counted."""
        self.rules, self._seen, self._hit, self._patterns = [], [], [], []

    def pick(self, target: str, *, refused: bool = False) -> Fault | None:
        """The fault that hits this call, if one does; a refused one (429) meets a skewed clock only."""
        for index, rule in enumerate(self.rules):
            if rule.kind == "outage" or (refused and rule.kind != "clock_skew"):
                continue
            if rule.match and not self._patterns[index].search(target):
                continue
            self._seen[index] += 1
            if self._seen[index] <= rule.skip:
                continue
            if rule.count is not None and self._hit[index] >= rule.count:
                continue
            if rule.rate < 1 and self._random.random() >= rule.rate:
                continue
            self._hit[index] += 1
            label = str(rule.status) if rule.kind == "status" else rule.kind
            self.hits[label] += 1
            return rule
        return None


def spoil(kind: str, body: bytes) -> bytes:
    """The body as a fault of this kind leaves it; unchanged where it does not concern bodies."""
    if kind == "malformed":
        return body[: max(1, len(body) * 2 // 3)]
    if kind == "html":
        return HTML
    if kind == "empty":
        return b""
    if kind not in (
        "duplicates",
        "shuffled",
        "weird_values",
        "weird_times",
        "drift_new",
        "drift_missing",
        "drift_type",
    ):
        return body
    tree = json.loads(body)
    if "error" in tree:
        return body
    name = next(iter(tree))
    holder = tree[name] if isinstance(tree[name], dict) else tree
    entities: list[dict[str, object]] = holder["metrics"] if name == "metric_data" else tree[name]
    if kind == "duplicates":
        entities.extend(entities[:1])
    elif kind == "shuffled":
        entities.reverse()
    elif kind == "weird_values":
        _weird(entities)
    elif kind == "weird_times":
        _weird_times(entities)
    else:
        _drift(kind, entities)
    return json.dumps(tree, separators=(",", ":")).encode()


def _weird(entities: list[dict[str, object]]) -> None:
    odd = (float("nan"), float("inf"), 2**63, None, -1.5, float("-inf"), "12")
    number = 0
    for entity in entities:
        slices = entity.get("timeslices")
        if not isinstance(slices, list):
            continue
        for piece in slices[:4]:
            for value_name in piece["values"]:
                piece["values"][value_name] = odd[number % len(odd)]
                number += 1


def _weird_times(entities: list[dict[str, object]]) -> None:
    before, last = "-0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"
    for entity in entities:
        slices = entity.get("timeslices")
        if not isinstance(slices, list):
            continue
        for number, piece in enumerate(slices[:5]):
            start, end = piece["from"], piece["to"]
            piece["from"], piece["to"] = (
                (before, before), (end, start), (start, start), ("1677-01-01T00:00:00+00:00", last), (-1, end)
            )[number]  # fmt: skip


def _drift(kind: str, entities: list[dict[str, object]]) -> None:
    for entity in entities:
        slices = entity.get("timeslices")
        targets = slices if isinstance(slices, list) else [entity]
        for target in targets:
            if kind == "drift_new":
                target["unheard_of"] = {"since": 2031, "why": ["nobody", "knows"]}
                continue
            for name in ("to", "id") if isinstance(slices, list) or "id" in target else ("name",):
                if name not in target:
                    continue
                if kind == "drift_missing":
                    del target[name]
                else:
                    target[name] = {"was": target[name]}
