"""NRQL: from text to a query. Pure.

The part of the language that metric timeslices need. Source:
docs.newrelic.com/docs/nrql/nrql-syntax-clauses-functions and …/nrql/using-nrql/query-time-range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

_T = TypeVar("_T")

VALUE = "newrelic.timeslice.value"
"""The metric that holds every timeslice of APM."""

FACETS_MOST = 5
FACET_LIMIT, LIMIT_MOST = 10, 5_000
UNIQUES_LIMIT, UNIQUES_MOST = 1_000, 10_000

_FUNCTIONS = (
    "count", "sum", "average", "min", "max", "rate", "filter", "apdex", "uniques", "uniqueCount",
)  # fmt: skip
GETTERS = ("count", "total", "totalExclusive", "min", "max", "sumOfSquares")

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_TOKEN = re.compile(
    r"\s+|(?P<number>\d{1,18}(?:\.\d{1,18})?)|(?P<text>'(?:[^'\\]|\\.)*')|(?P<quoted>`[^`]+`)"
    r"|(?P<name>[A-Za-z_][\w.]*)|(?P<mark>!=|<=|>=|[=<>(),*/+\-\[\]])"
)
_CLAUSES = ("SELECT", "FROM", "WHERE", "FACET", "LIMIT", "SINCE", "UNTIL", "TIMESERIES")
_RESERVED = (*_CLAUSES, "AND", "OR", "AS", "IN", "LIKE", "IS", "NOT", "NULL")


class NrqlError(ValueError):
    """A query that is not accepted; the message is New Relic's."""


class Token(NamedTuple):
    """One word, with its position in the text."""

    kind: str
    text: str
    position: int


class Number(NamedTuple):
    """A number in an expression."""

    value: float


class Attribute(NamedTuple):
    """An attribute, or one field of a timeslice: ``newrelic.timeslice.value['count']``."""

    name: str
    getter: str = ""


class Call(NamedTuple):
    """A function. ``filter`` carries a condition, ``rate`` its seconds, ``uniques`` its limit."""

    name: str
    argument: Expression
    where: Condition | None = None
    number: float = 0.0


class Binary(NamedTuple):
    """Arithmetic of two expressions."""

    operator: str
    left: Expression
    right: Expression


Expression = Number | Attribute | Call | Binary


class Comparison(NamedTuple):
    """``host IN ('a', 'b')``: an attribute, what it is compared by, and with what."""

    attribute: str
    operator: str
    values: tuple[str, ...] = ()


class Junction(NamedTuple):
    """Conditions of which all (AND) or any (OR) must hold."""

    operator: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


Condition = Comparison | Junction
EVERYTHING = Junction("AND", ())


@dataclass
class Query:
    """A parsed query. Times are UNIX seconds."""

    select: list[tuple[str, Expression]] = field(default_factory=list)
    """Name in the results, and what it is."""
    source: str = ""
    where: Condition = EVERYTHING
    facets: list[str] = field(default_factory=list)
    limit: int | None = None
    since: float | None = None
    until: float | None = None
    timeseries: float | str | None = None
    """Seconds of a bucket, MAX or AUTO."""


def parse(text: str, now: float) -> Query:
    """Read a query.

    Raises:
        NrqlError: It is not one, or has what this vendor does not know.
    """
    return _Parser(text, now).query()


def parse_condition(text: str) -> Condition:
    """Read a condition alone, as ``entitySearch`` takes it.

    Raises:
        NrqlError: It is not one.
    """
    parser = _Parser(text, 0.0)
    condition = parser.condition()
    parser.end()
    return condition


def holds(condition: Condition, attributes: Mapping[str, str | None]) -> bool:
    """Whether an entity or a series with these attributes meets a condition."""
    if isinstance(condition, Junction):
        found = (holds(part, attributes) for part in condition.parts)
        return all(found) if condition.operator == "AND" else any(found)
    value = attributes.get(condition.attribute)
    if condition.operator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (condition.operator == "IS NULL")
    if value is None:
        return False
    operator = condition.operator.removeprefix("NOT ")
    if operator == "LIKE":
        found_one = any(_like(text).fullmatch(value) for text in condition.values)
    elif operator in ("=", "IN"):
        found_one = value in condition.values
    else:
        return value not in condition.values
    return found_one != condition.operator.startswith("NOT ")


def attributes_of(condition: Condition) -> set[str]:
    """The attributes that a condition compares."""
    if isinstance(condition, Comparison):
        return {condition.attribute}
    return {name for part in condition.parts for name in attributes_of(part)}


def required(condition: Condition, attribute: str) -> set[str] | None:
    """The only values of an attribute that can meet a condition; None where it leaves them open."""
    if isinstance(condition, Comparison):
        exact = condition.attribute == attribute and condition.operator in ("=", "IN")
        return set(condition.values) if exact else None
    found = [required(part, attribute) for part in condition.parts]
    known = [values for values in found if values is not None]
    if condition.operator == "OR":
        return set[str]().union(*known) if found and len(known) == len(found) else None
    return set.intersection(*known) if known else None


def result_name(expression: Expression) -> str:
    """The name in the results of what has no AS."""
    if isinstance(expression, Call) and isinstance(expression.argument, Attribute):
        if expression.name == "count" and expression.argument.name == "*":
            return "count"
        if expression.name not in ("filter", "rate") and not expression.argument.getter:
            return f"{expression.name}.{expression.argument.name}"
    return "result"


def _plain(token: Token) -> str:
    """A word without its quotes."""
    if token.kind == "text":
        return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
    return token.text.strip("`") if token.kind == "quoted" else token.text


def _unexpected(text: str, position: int) -> NrqlError:
    return NrqlError(f"NRQL Syntax Error: Error at line 1 position {position + 1}, unexpected {text!r}")


def _like(text: str) -> re.Pattern[str]:
    """``%`` stands for anything, letters match in either case."""
    return re.compile(".*".join(map(re.escape, text.split("%"))), re.IGNORECASE | re.DOTALL)


class _Parser:
    def __init__(self, text: str, now: float) -> None:
        self._now = now
        self._tokens: list[Token] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _unexpected(text[position], position)
            if match.lastgroup is not None:
                self._tokens.append(Token(match.lastgroup, match[0], position))
            position = match.end()
        self._tokens.append(Token("end", "<EOF>", position))
        self._at = 0

    # Clauses

    def query(self) -> Query:
        """A whole query; its clauses may come in any order, each once."""
        query, seen = Query(), set[str]()
        while self._peek.kind != "end":
            token = self._next()
            clause = token.text.upper()
            if clause not in _CLAUSES or token.kind != "name" or clause in seen:
                raise _unexpected(token.text, token.position)
            seen.add(clause)
            self._clause(clause, query)
        if not {"SELECT", "FROM"} <= seen:
            raise _unexpected("<EOF>", self._peek.position)
        return query

    def _clause(self, clause: str, query: Query) -> None:
        if clause == "SELECT":
            query.select = [self._selected(), *self._others(self._selected)]
        elif clause == "FROM":
            query.source = self._name()
        elif clause == "WHERE":
            query.where = self.condition()
        elif clause == "FACET":
            query.facets = [self._name(), *self._others(self._name)]
            if len(query.facets) > FACETS_MOST:
                raise NrqlError(f"NRQL Syntax Error: FACET takes at most {FACETS_MOST} attributes")
        elif clause == "LIMIT":
            query.limit = LIMIT_MOST if self._take("MAX") else min(LIMIT_MOST, int(self._number()))
        elif clause == "SINCE":
            query.since = self._time()
        elif clause == "UNTIL":
            query.until = self._time()
        elif self._peek.kind == "number":
            query.timeseries = self._number() * self._unit()
        else:
            query.timeseries = "MAX" if self._take("MAX") else "AUTO"
            self._take("AUTO")

    def _selected(self) -> tuple[str, Expression]:
        expression = self._sum()
        if self._take("AS"):
            token = self._next()
            if token.kind not in ("text", "quoted", "name"):
                raise _unexpected(token.text, token.position)
            return _plain(token), expression
        return result_name(expression), expression

    def _time(self) -> float:
        token = self._next()
        if token.kind == "number":
            if self._peek.text.lower().rstrip("s") in _UNITS:
                seconds = float(token.text) * self._unit()
                self._expect("AGO")
                return self._now - seconds
            return float(token.text) / 1000
        if token.kind == "text":
            try:
                moment = datetime.fromisoformat(_plain(token))
            except ValueError:
                raise _unexpected(token.text, token.position) from None
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if token.text.upper() == "NOW":
            return self._now
        raise _unexpected(token.text, token.position)

    # Expressions

    def _sum(self) -> Expression:
        left = self._product()
        while self._peek.text in ("+", "-"):
            left = Binary(self._next().text, left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._factor()
        while self._peek.text in ("*", "/"):
            left = Binary(self._next().text, left, self._factor())
        return left

    def _factor(self) -> Expression:
        if self._peek.kind == "number":
            return Number(self._number())
        if self._take("("):
            inside = self._sum()
            self._expect(")")
            return inside
        call = self._peek.kind == "name" and self._tokens[self._at + 1].text == "("
        return self._call() if call else self._attribute()

    def _attribute(self) -> Attribute:
        name, getter = self._name(), ""
        if self._take("["):
            token = self._next()
            getter = _plain(token)
            if getter not in GETTERS or token.kind == "number":
                raise _unexpected(token.text, token.position)
            self._expect("]")
        return Attribute(name, getter)

    def _call(self) -> Call:
        token = self._next()
        name = {"uniquecount": "uniqueCount"}.get(token.text.lower(), token.text.lower())
        if name not in _FUNCTIONS:
            raise NrqlError(f"NRQL Syntax Error: Unknown function {token.text}()")
        self._expect("(")
        argument = Attribute("*") if self._take("*") else self._sum()
        where, number = None, 0.0
        if name == "filter":
            self._expect(",")
            self._expect("WHERE")
            where = self.condition()
        elif name == "rate":
            self._expect(",")
            number = self._number() * self._unit()
        elif name == "uniques":
            number = min(UNIQUES_MOST, self._number()) if self._take(",") else UNIQUES_LIMIT
        self._expect(")")
        return Call(name, argument, where, number)

    # Conditions

    def condition(self) -> Condition:
        """Comparisons joined by AND and OR; AND binds more tightly."""
        parts = [self._conjunction()]
        while self._take("OR"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Junction("OR", tuple(parts))

    def _conjunction(self) -> Condition:
        parts = [self._comparison()]
        while self._take("AND"):
            parts.append(self._comparison())
        return parts[0] if len(parts) == 1 else Junction("AND", tuple(parts))

    def _comparison(self) -> Condition:
        if self._take("("):
            inside = self.condition()
            self._expect(")")
            return inside
        name = self._name()
        if self._take("IS"):
            operator = "IS NOT NULL" if self._take("NOT") else "IS NULL"
            self._expect("NULL")
            return Comparison(name, operator)
        negated = "NOT " if self._take("NOT") else ""
        if self._take("IN"):
            self._expect("(")
            values = (self._value(), *self._others(self._value))
            self._expect(")")
            return Comparison(name, negated + "IN", values)
        if self._take("LIKE"):
            return Comparison(name, negated + "LIKE", (self._value(),))
        token = self._next()
        if negated or token.text not in ("=", "!="):
            raise _unexpected(token.text, token.position)
        return Comparison(name, token.text, (self._value(),))

    def end(self) -> None:
        """Nothing may follow."""
        if self._peek.kind != "end":
            raise _unexpected(self._peek.text, self._peek.position)

    # Words

    @property
    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _take(self, word: str) -> bool:
        found = self._peek.kind in ("name", "mark") and self._peek.text.upper() == word
        self._at += found
        return found

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise _unexpected(self._peek.text, self._peek.position)

    def _others(self, read: Callable[[], _T]) -> list[_T]:
        found: list[_T] = []
        while self._take(","):
            found.append(read())
        return found

    def _name(self) -> str:
        token = self._next()
        if token.kind not in ("name", "quoted") or token.text.upper() in _RESERVED:
            raise _unexpected(token.text, token.position)
        return _plain(token)

    def _value(self) -> str:
        token = self._next()
        if token.kind not in ("text", "number"):
            raise _unexpected(token.text, token.position)
        return _plain(token)

    def _number(self) -> float:
        token = self._next()
        if token.kind != "number":
            raise _unexpected(token.text, token.position)
        return float(token.text)

    def _unit(self) -> int:
        token = self._next()
        unit = token.text.lower().rstrip("s")
        if unit not in _UNITS:
            raise _unexpected(token.text, token.position)
        return _UNITS[unit]
