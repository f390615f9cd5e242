"""Reading what lies in a store: whatever is wrong with an object's content becomes one line that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from vendor_assets.errors import RecordError, VendorAssetsError
from vendor_assets.storage.objects import ObjectStore

_LARGEST: Final = 1 << 63


@contextmanager
def understanding(store: ObjectStore, key: str, what: str, advice: str) -> Iterator[None]:
    """Understand the content of an object.

    Args:
        store: Where it is.
        key: Its key.
        what: What it is to be, like ``plan``.
        advice: What to do where it is not.

    Raises:
        RecordError: It is not: garbled, cut off, or something else altogether.
    """
    try:
        yield
    except VendorAssetsError:
        raise
    except Exception as error:
        # Parsers of JSON and Parquet raise what they like when they are given something else.
        said = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, KeyError):
            said = f"without {said}"
        raise RecordError(f"{what} {store.uri(key)} cannot be read ({said}); {advice}") from error


def json_object(data: bytes | str, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """A JSON object that has members of these types; others may be there too.

    Raises:
        ValueError: It is none.
    """
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  as the parser, for what it has read
    for name, kind in kinds.items():
        value = document.get(name)
        fits = name in document and isinstance(value, kind)
        if isinstance(value, bool) and kind is int:
            fits = False
        if not fits or (isinstance(value, int) and abs(value) >= _LARGEST):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    return document
