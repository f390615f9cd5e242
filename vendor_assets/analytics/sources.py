"""What a day's statistics and report were made of, so that they need not be made again of the same.

Both keep a digest of their sources: the versions of all objects that they read, and what else they depend on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Final

import vendor_assets
from vendor_assets.errors import ObjectNotFoundError, StorageError, StorageUnavailableError
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_metadata

SOURCES: Final = "sources"
"""Name of the digest in a table's metadata and in a page's ``meta`` elements."""

WEEKS: Final = 4
"""A report compares with the same weekday of so many past weeks."""

_IN_PAGE: Final = re.compile(rb'<meta name="sources" content="(\w+)">')
_HEAD_BYTES: Final = 4096


def of_statistics(store: ObjectStore, day: date, settings: Mapping[str, object]) -> str:
    """The sources of a day's ``daily_performance`` as they are now.

    Args:
        settings: What else it depends on, as JSON.
    """
    return _digest(store, _tables(day), settings)


def of_report(store: ObjectStore, day: date, settings: Mapping[str, object]) -> str:
    """The sources of a day's report as they are now, its statistics and the days that it compares with included."""
    before = [day - timedelta(days=days) for days in (0, 1, 7)]
    prefixes = [*_tables(day), layout.table_prefix("data_groups", day)]
    prefixes += [layout.table_prefix("daily_performance", each) for each in before]
    weeks = [day - timedelta(weeks=number) for number in range(1, WEEKS + 1)]
    prefixes += [layout.table_prefix("performance_data", each) for each in weeks]
    return _digest(store, prefixes, settings)


def kept_by_statistics(store: ObjectStore, day: date) -> str | None:
    """The sources of a day's ``daily_performance`` when it was made; None where there is none that tells.

    Raises:
        StorageUnavailableError: The store cannot be read; a table that is damaged tells nothing.
    """
    try:
        return read_metadata(store, layout.table_key("daily_performance", day))[0].get(SOURCES)
    except StorageUnavailableError:
        raise
    except StorageError:
        return None


def kept_by_report(store: ObjectStore, day: date) -> str | None:
    """The same of its report."""
    try:
        with store.open(layout.report_key(day, "html")) as page:
            found = _IN_PAGE.search(page.read(_HEAD_BYTES))
    except ObjectNotFoundError:
        return None
    return found[1].decode() if found else None


def _tables(day: date) -> list[str]:
    return [layout.table_prefix(table, day) for table in ("troops", "warriors", "performance_data")]


def _digest(store: ObjectStore, prefixes: Iterable[str], settings: Mapping[str, object]) -> str:
    def told() -> Iterator[str]:
        yield json.dumps([vendor_assets.__version__, settings], sort_keys=True)
        for prefix in prefixes:
            yield from sorted(f"{each.key} {each.etag}" for each in store.list(prefix))

    return hashlib.sha256("\n".join(told()).encode("utf-8", "surrogatepass")).hexdigest()[:32]
