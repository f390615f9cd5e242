"""What a vendor says where it gives no data: the one sentence in its answer that a person needs. Pure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Final

from vendor_assets.presentable import presentable

READ_BYTES: Final = 16_384
"""So much of an error's body is looked at."""

LONGEST: Final = 200
"""Characters of it that are shown."""

_NAMES: Final = (
    "message",
    "msg",
    "detail",
    "details",
    "error_description",
    "description",
    "title",
    "reason",
    "error",
)
"""Fields of errors in JSON, the most telling first (RFC 9457, RFC 6749, JSON:API, and what is found in the wild)."""
_HOLDERS: Final = ("error", "errors", "fault", "status", "meta", "response")
_DEEPEST: Final = 6
_PAGE: Final = 4096
"""A page says what it is about at its beginning."""

_TITLE: Final = re.compile(r"<title[^>]*>([^<]{1,500})", re.IGNORECASE)
_UNSEEN: Final = re.compile(r"<(script|style|head)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[^<>]{0,1000}>")


def words_of(body: bytes) -> str:
    """The sentence that a body of an error says, presentable; empty where it says nothing in words.

    Of JSON it is the field that is meant for people, of HTML the title or the text, else the text itself.
    """
    text = body[:READ_BYTES].decode("utf-8", "replace").strip().lstrip("\ufeff")
    if text[:1] in ("{", "["):
        try:
            return presentable(next(_told(json.loads(text)), ""), LONGEST)
        except (ValueError, RecursionError):
            return presentable(text, LONGEST)
    if text[:1] == "<":
        text = text[:_PAGE]
        title = _TITLE.search(text)
        return presentable(
            html.unescape(title[1] if title else _TAG.sub(" ", _UNSEEN.sub(" ", text))), LONGEST
        )
    odd = sum(not (each.isprintable() or each.isspace()) or each == "\ufffd" for each in text)
    # Rather an image, or packed, than words.
    if odd > len(text) // 5:
        return ""
    return presentable(text, LONGEST)


def _told(document: object, depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(document, str):
        if document.strip():
            yield document
    elif isinstance(document, list):
        for item in document[:10]:
            yield from _told(item, depth + 1)
    elif isinstance(document, dict):
        for name in _HOLDERS:
            if isinstance(document.get(name), dict | list):
                yield from _told(document[name], depth + 1)
        for name in _NAMES:
            if isinstance(document.get(name), str):
                yield from _told(document[name], depth + 1)
        for name in _NAMES:
            if isinstance(document.get(name), dict | list):
                yield from _told(document[name], depth + 1)
