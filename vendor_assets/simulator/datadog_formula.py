"""Formulas over Datadog's queries: sums, differences, products and quotients of names and numbers. Pure.

Source: docs.datadoghq.com/api/latest/metrics/query-timeseries-data-across-multiple-products. Where it says nothing:
series of both sides meet by equal tags, point by point; null on one side, and a division by zero, are null.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from vendor_assets.simulator.datadog_query import QueryError

Tags = tuple[str, ...]
Values = Mapping[int, float | None]
Lines = Mapping[Tags, Values]
"""The values of each series by its tags."""


def calculate(formula: str, by_name: Mapping[str, Lines]) -> Lines:
    """The series of a formula.

    Raises:
        QueryError: It is no such formula, or names a query that is not there.
    """
    try:
        found = _evaluate(ast.parse(formula.strip(), mode="eval").body, by_name)
    except (SyntaxError, RecursionError, MemoryError):
        raise _unparsed(formula) from None
    if isinstance(found, float):
        raise _unparsed(formula)
    return found


def _evaluate(node: ast.expr, by_name: Mapping[str, Lines]) -> Lines | float:
    match node:
        case ast.Name(id=name) if name in by_name:
            return by_name[name]
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.BinOp(left=left, op=operator, right=right):
            return _joined(operator, _evaluate(left, by_name), _evaluate(right, by_name))
    raise _unparsed(ast.unparse(node))


def _joined(operator: ast.operator, left: Lines | float, right: Lines | float) -> Lines | float:
    if isinstance(left, float):
        if isinstance(right, float):
            return _number(operator, left, right) or 0.0
        return {
            tags: {at: _number(operator, left, values[at]) for at in values} for tags, values in right.items()
        }
    if isinstance(right, float):
        return {
            tags: {at: _number(operator, values[at], right) for at in values} for tags, values in left.items()
        }
    return {
        tags: {
            at: _number(operator, left[tags].get(at), right[tags].get(at))
            for at in {**left[tags], **right[tags]}
        }
        for tags in left
        if tags in right
    }


def _number(operator: ast.operator, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right if right else None
    raise _unparsed(type(operator).__name__)


def _unparsed(text: str) -> QueryError:
    return QueryError(f"Error parsing formula: unable to parse {text}")
