"""Planned requests as text: what a harvest keeps of its plan, and reads again perhaps months later. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from vendor_assets.days import Window
from vendor_assets.errors import RecordError
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request


def encode_request(request: Request) -> str:
    """A request as JSON text."""
    parts: list[object] = [request.path, request.params, request.endpoint]
    if request.has_more:
        parts += [request.method, request.body, request.headers]
    return json.dumps(parts, separators=(",", ":"))


def decode_request(text: str) -> Request:
    """The request that :func:`encode_request` wrote.

    Raises:
        RecordError: It is damaged.
    """
    try:
        path, params, endpoint, *more = json.loads(text)
        method, body, headers = more or ("GET", "", [])
        pairs = [part for pair in (*params, *headers) for part in pair]
        if not all(isinstance(part, str) for part in (path, endpoint, method, body, *pairs)):
            raise ValueError("not a request")
        return Request(path, _pairs(params), endpoint, method, body, _pairs(headers))
    except (ValueError, TypeError, RecursionError) as error:
        message = f"a request that was kept cannot be read ({text[:80]!r}); delete the object that holds it"
        raise RecordError(message) from error


def _pairs(pairs: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in pairs)


def encode_leaves(planned: PlannedRequest) -> str:
    """The leaves of a planned request as JSON text."""
    leaves = [
        [
            leaf.key,
            leaf.warrior_id,
            leaf.data_group,
            [leaf.window.start.timestamp(), leaf.window.end.timestamp()] if leaf.window else None,
        ]
        for leaf in planned.leaves
    ]
    return json.dumps(leaves, separators=(",", ":"))


def decode_planned(request: str, leaves: str) -> PlannedRequest:
    """The planned request that :func:`encode_request` and :func:`encode_leaves` wrote.

    Raises:
        RecordError: It is damaged.
    """
    return PlannedRequest(decode_request(request), _decode_leaves(leaves))


def _decode_leaves(text: str) -> tuple[Leaf, ...]:
    try:
        return tuple(
            Leaf(
                key,
                warrior,
                group,
                Window(*(datetime.fromtimestamp(edges[at], UTC) for at in (0, 1))) if edges else None,
            )
            for key, warrior, group, edges in json.loads(text)
        )
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError, OSError) as error:
        message = f"leaves that were kept cannot be read ({text[:80]!r}); delete the object that holds them"
        raise RecordError(message) from error
