"""The marker: whose data a store holds, written before its first object and compared before any work.

Without it, a forgotten or mistyped setting would mix the data of two vendors unnoticed.
"""

from __future__ import annotations

import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import urlsplit

from vendor_assets.errors import (
    ConfigurationError,
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
)
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets.storage.parquet import read_metadata
from vendor_assets.storage.roster import Roster
from vendor_assets.storage.source import EMBEDDED, Source

UNMARKED: Final = "unmarked"
UNREADABLE: Final = "unreadable"
COMPARED_SECONDS: Final = 60.0
"""Time for which a comparison is valid in a long-lived process."""
_FORMAT: Final = 1
# The embedded vendor's world, see simulator/world.py; a test compares.
_EMBEDDED_ID: Final = re.compile(r"200\d{6}")
_EMBEDDED_NAMES: Final = frozenset(
    {"Checkout | EU", "payments/api", "Kundenkonto (Ümlaut)", "recommendations, nightly", "Inventory & Stock"}
)
_LOOPBACK: Final = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")


@dataclass(frozen=True)
class Marker:
    """The marker of a store: whose data it holds."""

    source: Source
    written_at: datetime
    etag: str

    @classmethod
    def read(cls, store: ObjectStore) -> Self | None:
        """Read a store's marker; None if there is none.

        Raises:
            ConfigurationError: It is unreadable.
        """
        try:
            data, etag = store.get_with_etag(layout.MARKER_KEY)
        except ObjectNotFoundError:
            return None
        uri = store.uri(layout.MARKER_KEY)
        try:
            document = json.loads(data)
            written = document["format"]
            if isinstance(written, int) and written > _FORMAT:
                raise ConfigurationError(
                    f"{uri} was written by a newer version (format {written}); update vendor_assets"
                )
            texts = [document[name] for name in ("kind", "address", "account")]
            if written != _FORMAT or not all(isinstance(text, str) and text.isprintable() for text in texts):
                raise ValueError("not a marker")
            written_at = datetime.fromisoformat(document["written_at"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ConfigurationError(
                f"{uri}, which says whose data the store holds, cannot be read; restore it, or, if the store surely "
                f"holds the configured vendor's data, run: vendor-assets store move --from {UNREADABLE}"
            ) from error
        return cls(Source(*texts), written_at, etag)


def _encoded(source: Source) -> bytes:
    document = {
        "format": _FORMAT,
        "kind": source.kind,
        "address": source.address,
        "account": source.account,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def open_marked_store(
    url: str, source: Source, *, s3_client_factory: Callable[[], Any] | None = None
) -> tuple[ObjectStore, Claim]:
    """Open a store for the data of one source, with the claim that guards it; raises as :func:`open_store`."""
    store = open_store(url, s3_client_factory=s3_client_factory)
    store.source = str(source)
    claim = Claim(store, source)
    store.before_first_write(claim.settle)
    return store, claim


class Claim:
    """The claim that a store holds the data of one source only."""

    def __init__(
        self, store: ObjectStore, source: Source, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._source = source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._compared_at: float | None = None

    def compare(self) -> None:
        """Compare the store's marker with the source, at most once a minute.

        Raises:
            ConfigurationError: The store holds another source's data, or that is unclear.
            StorageUnavailableError: The store cannot be read.
        """
        with self._lock:
            now = self._monotonic()
            if self._compared_at is None or now - self._compared_at >= COMPARED_SECONDS:
                self._marker()
                self._compared_at = now

    def settle(self) -> None:
        """Before the first write: compare, prove that conditional writes work, and mark a new store.

        A new store is tested thoroughly, once. On a marked one, unless it is a folder, each process tries two writes of
        the marker that must be refused, because the server behind an address may have changed.

        Raises:
            ConfigurationError: The store holds another source's data; nothing was written.
            StorageUnavailableError: The store cannot be written, or ignores conditions.
        """
        marker = self._marker()
        if marker is not None:
            if not isinstance(self._store, FolderStore):
                self._store.must_refuse(layout.MARKER_KEY, self._store.get(layout.MARKER_KEY))
            return
        self._store.check()
        try:
            self._store.put(layout.MARKER_KEY, _encoded(self._source), if_absent=True)
        except ObjectConflictError:
            # Another process was first; compare with its marker.
            self._marker()

    def _marker(self) -> Marker | None:
        marker = Marker.read(self._store)
        if marker is None:
            self._compare_with_data()
        elif marker.source.normal() != self._source.normal():
            raise ConfigurationError(self._mismatch(str(marker.source)))
        return marker

    def _compare_with_data(self) -> None:
        """Compare with the tables of an unmarked store, which an older version wrote or which lost its marker."""
        tables = list(_tables(self._store))
        for source, kind in _told_by(self._store, tables):
            if kind != self._source.kind or source not in (None, str(self._source)):
                raise ConfigurationError(self._mismatch(source or kind, token=UNMARKED))
            # Older versions stored only the kind.
            if source is None and self._source.address == EMBEDDED and not _is_embedded(self._store, tables):
                raise ConfigurationError(self._mismatch(kind, token=UNMARKED))
        address = urlsplit(self._source.address)
        # An embedded vendor that was started by hand is configured at a loopback address.
        somewhere_else = address.scheme and not _LOOPBACK.fullmatch(address.hostname or "")
        if somewhere_else and _is_embedded(self._store, tables):
            raise ConfigurationError(self._mismatch(str(Source(self._source.kind, EMBEDDED))))

    def _mismatch(self, held: str, token: str = "") -> str:
        said = (
            f"store {self._store.url} holds the data of {_shown(Source.parse(held))}, "
            f"but {_shown(self._source)} is configured; "
        )
        if EMBEDDED in (Source.parse(held).address, self._source.address):
            return f"{said}set VENDOR_ASSETS_STORE to another place, or move its data away"
        return (
            f"{said}correct VENDOR_KIND, VENDOR_URL, VENDOR_ACCOUNT or VENDOR_ASSETS_STORE, or, where it is the same "
            f"account at a new address, run: vendor-assets store move --from {token or shlex.quote(held)}"
        )


def _shown(source: Source) -> str:
    if source.address == EMBEDDED:
        return "the embedded vendor"
    return str(source) if source.address else f"a {source.kind} vendor"


def move(store: ObjectStore, source: Source, before: str) -> None:
    """Mark a store as holding the data of another source: the same account at another address.

    Args:
        before: The current source, as in the marker; ``unmarked`` or ``unreadable`` if that is the marker's state.

    Raises:
        ConfigurationError: ``before`` is not the current source, or one of them is the embedded vendor.
        ObjectConflictError: Another process changed the marker at the same time.
    """
    etag: str | None = None
    try:
        marker = Marker.read(store)
        found = UNMARKED if marker is None else str(marker.source)
        etag = marker.etag if marker else None
    except ConfigurationError:
        if before != UNREADABLE:
            raise
        found = UNREADABLE
        etag = store.get_with_etag(layout.MARKER_KEY)[1]
    if found != before:
        raise ConfigurationError(
            f"store {store.url} is {found}, not {before}; nothing was changed"
            if found == UNMARKED
            else f"store {store.url} holds the data of {found}, not of {before}; nothing was changed"
        )
    if EMBEDDED in (source.address, Source.parse(found).address):
        raise ConfigurationError(
            "the embedded vendor's data cannot become those of a real vendor, or the reverse; nothing was changed"
        )
    store.put(layout.MARKER_KEY, _encoded(source), if_absent=etag is None, if_match=etag)


def _tables(store: ObjectStore) -> Iterator[str]:
    """Keys of a few harvested tables of the oldest and the newest day."""
    prefix = layout.table_prefix("troops")
    days = [name for name in store.folders(prefix) if name.startswith("day=")]
    for day in sorted({*days[:1], *days[-1:]}):
        yield f"{prefix}{day}/data.parquet"
        below = f"{layout.table_prefix('performance_data')}{day}/"
        yield from (f"{below}{troop}/data.parquet" for troop in store.folders(below)[:1])


def _told_by(store: ObjectStore, tables: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Source and kind in the metadata of tables; older versions stored no source."""
    for key in tables:
        # Unreadable tables are reported by whoever needs them.
        with suppress(StorageError):
            metadata, _ = read_metadata(store, key)
            source = metadata.get("source")
            kind = Source.parse(source).kind if source else metadata.get("vendor")
            if kind:
                yield source, kind


def _is_embedded(store: ObjectStore, tables: Sequence[str]) -> bool:
    """Whether rosters have troops that only the embedded vendor has."""
    for key in tables:
        with suppress(StorageError):
            _, day, of_troop = layout.parse_table_key(key)
            for troop in Roster.read(store, day).troops if of_troop is None else ():
                if _EMBEDDED_ID.fullmatch(str(troop.id)) and troop.name in _EMBEDDED_NAMES:
                    return True
    return False
