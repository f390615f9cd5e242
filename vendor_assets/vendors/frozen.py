"""Planned requests as text: what a harvest keeps of its plan, and reads again perhaps months later. Pure."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from vendor_assets.days import Window
from vendor_assets.errors import RecordError
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request

_Pairs = tuple[tuple[str, str], ...]
_DECODERS: Final = (
    msgspec.json.Decoder(tuple[str, _Pairs, str]),
    msgspec.json.Decoder(tuple[str, _Pairs, str, str, str, _Pairs]),
)
_LEAVES: Final = msgspec.json.Decoder(list[tuple[str, str, str, tuple[float, float] | None]])
_ENCODER: Final = msgspec.json.Encoder()
_ENCODER_OF_ALL: Final = json.JSONEncoder(separators=(",", ":"))


def encode_request(request: Request) -> str:
    """A request as JSON text."""
    parts: list[object] = [request.path, request.params, request.endpoint]
    if request.has_more:
        parts += [request.method, request.body, request.headers]
    return encode(parts)


def encode(document: object) -> str:
    """A document of plain values as JSON text; also texts that are no Unicode."""
    try:
        return _ENCODER.encode(document).decode()
    except UnicodeEncodeError:
        return _ENCODER_OF_ALL.encode(document)


def decode_request(text: str) -> Request:
    """The request that :func:`encode_request` wrote.

    Raises:
        RecordError: It is damaged.
    """
    for decoder in _DECODERS:
        with suppress(msgspec.MsgspecError, UnicodeEncodeError):
            return Request(*decoder.decode(text))
    try:
        # Also texts that are no Unicode, which msgspec does not read.
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
        (leaf.key, leaf.warrior_id, leaf.data_group, _edges(leaf.window) if leaf.window else None)
        for leaf in planned.leaves
    ]
    return encode(leaves)


def decode_planned(request: str, leaves: str) -> PlannedRequest:
    """The planned request that :func:`encode_request` and :func:`encode_leaves` wrote.

    Raises:
        RecordError: It is damaged.
    """
    return PlannedRequest(decode_request(request), _decode_leaves(leaves))


def _decode_leaves(text: str) -> tuple[Leaf, ...]:
    try:
        try:
            leaves = _LEAVES.decode(text)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            leaves = json.loads(text)
        return tuple(
            [
                Leaf(key, warrior, group, _window(*edges[:2]) if edges else None)
                for key, warrior, group, edges in leaves
            ]
        )
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError, OSError) as error:
        message = f"leaves that were kept cannot be read ({text[:80]!r}); delete the object that holds them"
        raise RecordError(message) from error


@lru_cache(maxsize=1024)
def _edges(window: Window) -> tuple[float, float]:
    return window.start.timestamp(), window.end.timestamp()


@lru_cache(maxsize=1024)
def _window(start: float, end: float) -> Window:
    return Window(datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC))
