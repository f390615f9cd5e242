"""What a vendor says in an error's body: the one sentence that a person needs. Pure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from vendor_assets.presentable import presentable

READ_BYTES: Final = 16_384
"""How much of a body is looked at."""

LONGEST: Final = 200
"""Characters that are shown."""

_NAMES: Final = (
    "message", "msg", "detail", "details", "error_description", "description", "title", "reason", "error"
)  # fmt: skip
"""Fields of errors in JSON, the most telling first (RFC 9457, RFC 6749, JSON:API, and what vendors use)."""
_HOLDERS: Final = ("error", "errors", "fault", "status", "meta", "response")
_DEEPEST: Final = 6
_PAGE: Final = 4096

_TITLE: Final = re.compile(r"<title[^>]*>([^<]{1,500})", re.IGNORECASE)
_UNSEEN: Final = re.compile(r"<(script|style|head)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[^<>]{0,1000}>")


def words_of(body: bytes) -> str:
    """The sentence for people, presentable: of JSON a field, of HTML the title or the text; empty without words."""
    text = body[:READ_BYTES].decode("utf-8", "replace").strip().lstrip("\ufeff")
    if text[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            text = next(_told(json.loads(text)), "")
    elif text[:1] == "<":
        page = text[:_PAGE]
        title = _TITLE.search(page)
        text = html.unescape(title[1] if title else _TAG.sub(" ", _UNSEEN.sub(" ", page)))
    elif (
        sum(not (each.isprintable() or each.isspace()) or each == "\ufffd" for each in text) > len(text) // 5
    ):
        # An image, or compressed.
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
        for names, kind in ((_HOLDERS, dict | list), (_NAMES, str), (_NAMES, dict | list)):
            for name in names:
                if isinstance(document.get(name), kind):
                    yield from _told(document[name], depth + 1)
