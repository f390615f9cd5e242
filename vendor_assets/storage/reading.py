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
    """Turn whatever goes wrong with the content of an object, ``what`` it should be, into a RecordError with advice."""
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
        ValueError: It is not one.
    """
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  as the parser, for what it has read
    for name, kind in kinds.items():
        value = document.get(name)
        fits = name in document and isinstance(value, kind) and not (isinstance(value, bool) and kind is int)
        if not fits or (isinstance(value, int) and abs(value) >= _LARGEST):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    return document
