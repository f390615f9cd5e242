"""Datadog's metric queries: from text to a query. Pure.

The part of the language that time series of hosts need. Sources, below docs.datadoghq.com: metrics ("Anatomy of a
metric query"), metrics/advanced-filtering, dashboards/functions/rollup, dashboards/functions/interpolation,
metrics/custom_metrics/type_modifiers. Several queries with commas between them are one text
(metrics/guide/interpolation-the-fill-modifier-explained, "multi-part queries"); arithmetic and functions are not
understood. Values are compared as tags are stored, so one in capitals finds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

Tags = frozenset[str]
Holds = Callable[[Tags], bool]
"""Whether a source with these tags is meant."""

METHODS = ("avg", "sum", "min", "max", "count")
FILLS = ("linear", "last", "zero", "null")
FILL_SECONDS, FILL_SECONDS_MOST = 300, 600

_QUERY = re.compile(
    r"\s*(?:(?P<aggregator>\w+)\s*:)?\s*(?P<metric>[A-Za-z][\w.]*)\s*\{(?P<scope>[^{}]*)\}"
    r"\s*(?:by\s*\{(?P<by>[^{}]*)\})?\s*(?P<modifiers>(?:\.\s*\w+\s*\([^()]*\)\s*)*)",
    re.ASCII,
)
_MODIFIER = re.compile(r"\.\s*(\w+)\s*\(([^()]*)\)")
_TOKEN = re.compile(r"[(),!]|[^\s(),!]+")
_WORDS = ("AND", "OR", "NOT", "IN")


class QueryError(ValueError):
    """A query that is not accepted; the message is Datadog's."""


class Scope(NamedTuple):
    """What stands between the braces.

    Args:
        tags: Its tags as an answer names them, sorted; none for ``*``.
    """

    holds: Holds
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Args:
        aggregator: Over sources; None is ``avg``, and an answer says null.
        method: Over time; empty where no rollup says one.
        interval: Seconds of the rollup; 0 where it says none.
        fill: How gaps are filled; empty where nothing is said.
        shown_as: ``count``, ``rate`` or empty.
        modifiers: The modifiers as written.
    """

    metric: str
    aggregator: str | None
    scope: Scope
    by: tuple[str, ...]
    method: str = ""
    interval: int = 0
    fill: str = ""
    fill_seconds: int = FILL_SECONDS
    shown_as: str = ""
    modifiers: str = ""


def parse(text: str) -> list[Query]:
    """Read one query, or several with commas between them.

    Raises:
        QueryError: It cannot be understood.
    """
    return [_parse(one) for one in _split(text)]


def parse_scope(text: str) -> Scope:
    """Read what stands between the braces: ``*``, ``a:b,!c:d*``, or words such as ``a:b AND c IN (d, e)``.

    Raises:
        QueryError: It cannot be understood, or mixes both forms.
    """
    if text.strip() == "*":
        return Scope(lambda _tags: True, ())
    tokens = _TOKEN.findall(text)
    if any(token.upper() in _WORDS for token in tokens):
        reader = _Words(tokens)
        holds = reader.either()
        if reader.rest:
            raise _mixed() if reader.rest[0] == "," else _unparsed(text)
        return Scope(holds, (" ".join(text.split()),))
    parts = [part.strip() for part in text.split(",")]
    terms = [_symbol(part, text) for part in parts]
    return Scope(lambda tags: all(term(tags) for term in terms), tuple(sorted(parts)))


class _Words:
    """Reads a scope in words; AND binds more tightly than OR."""

    def __init__(self, tokens: list[str]) -> None:
        self.rest = tokens
        if "!" in tokens:
            raise _mixed()

    def either(self) -> Holds:
        terms = [self._all()]
        while self._take("OR"):
            terms.append(self._all())
        return lambda tags: any(term(tags) for term in terms)

    def _all(self) -> Holds:
        terms = [self._one()]
        while self._take("AND"):
            terms.append(self._one())
        return lambda tags: all(term(tags) for term in terms)

    def _one(self) -> Holds:
        if self._take("NOT"):
            negated = self._one()
            return lambda tags: not negated(tags)
        if self._take("("):
            inside = self.either()
            self._expect(")")
            return inside
        word = self._word()
        if self._take("IN"):
            return self._listed(word)
        if self._take("NOT"):
            self._expect("IN")
            listed = self._listed(word)
            return lambda tags: not listed(tags)
        return _term(word)

    def _listed(self, key: str) -> Holds:
        self._expect("(")
        terms = [_term(f"{key}:{self._word()}")]
        while self._take(","):
            terms.append(_term(f"{key}:{self._word()}"))
        self._expect(")")
        return lambda tags: any(term(tags) for term in terms)

    def _take(self, word: str) -> bool:
        found = bool(self.rest) and self.rest[0].upper() == word
        self.rest = self.rest[found:]
        return found

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise _mixed() if self.rest[:1] == [","] else _unparsed(" ".join(self.rest))

    def _word(self) -> str:
        if not self.rest or self.rest[0] in "()," or self.rest[0].upper() in _WORDS:
            raise _mixed() if self.rest[:1] == [","] else _unparsed(" ".join(self.rest))
        word, self.rest = self.rest[0], self.rest[1:]
        return word


def _symbol(part: str, text: str) -> Holds:
    tag = part.removeprefix("!").strip()
    if not _TOKEN.fullmatch(tag) or tag in "(),!":
        raise _unparsed(text)
    term = _term(tag)
    return term if tag == part else lambda tags: not term(tags)


def _term(text: str) -> Holds:
    """One tag; a star stands for the beginning or the end of its value."""
    if "*" not in text:
        return lambda tags: text in tags
    pattern = re.compile(re.escape(text).replace(r"\*", ".*"))
    return lambda tags: any(pattern.fullmatch(tag) for tag in tags)


def _parse(text: str) -> Query:
    found = _QUERY.fullmatch(text)
    if found is None:
        raise _unparsed(text)
    aggregator = found["aggregator"]
    if aggregator not in (None, "avg", "sum", "min", "max"):
        raise _unparsed(text)
    by = tuple(filter(None, (key.strip() for key in (found["by"] or "").split(","))))
    values: dict[str, str | int] = {"modifiers": found["modifiers"].strip()}
    for name, arguments in _MODIFIER.findall(found["modifiers"]):
        values |= _modifier(name, [one.strip() for one in arguments.split(",")], text)
    return Query(found["metric"], aggregator, parse_scope(found["scope"]), by, **values)  # type: ignore[arg-type]


def _modifier(name: str, arguments: list[str], text: str) -> dict[str, str | int]:
    match name, arguments:
        case (("as_count" | "as_rate"), [""]):
            return {"shown_as": name.removeprefix("as_")}
        case "rollup", [seconds] if seconds.isdecimal():
            return {"interval": _seconds(seconds, text)}
        case "rollup", [method] if method in METHODS:
            return {"method": method}
        case "rollup", [method, seconds] if method in METHODS:
            return {"method": method, "interval": _seconds(seconds, text)}
        case "fill", [method] if method in FILLS:
            return {"fill": method}
        case "fill", [method, seconds] if method in FILLS:
            return {"fill": method, "fill_seconds": min(FILL_SECONDS_MOST, _seconds(seconds, text))}
    raise _unparsed(text)


def _seconds(text: str, query: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:12]) < 10**9):
        raise _unparsed(query)
    return int(text)


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no bracket."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "({") - (letter in ")}")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _unparsed(text: str) -> QueryError:
    return QueryError(
        f"Error parsing query: \n unable to parse {text.strip()}: Rule 'scope_expr' didn't match"
    )


def _mixed() -> QueryError:
    """The words of DataDog/documentation#23070."""
    return QueryError("Error parsing query: 'AND' and 'OR' cannot be mixed with ','")
