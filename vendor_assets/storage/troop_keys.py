"""The partition keys of troops: readable, unique, and the same for ever, whatever a troop is called later.

One object of the store, ``troop_keys.json``, holds the key of every troop that was ever on a roster. A store that was
written before there was one goes on: the keys of its rosters are taken over as they are.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from vendor_assets.errors import (
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.storage.reading import json_object

_SLUG_CHARACTERS: Final = 40
_NOT_A_WORD: Final = frozenset({"nan", "inf", "infinity", "null", "none", "true", "false"})
"""Readers of Hive folders that guess types take these for something else than text."""

logger = get_logger(__name__)


def readable_key(troop_id: str, name: str | None) -> str:
    """The key that a new troop gets: ``search-green.200010000``, or the id where that is as readable.

    It is never a number or a date, so that the type of a ``troop=…`` folder does not depend on the ids. What comes
    before the first dot has none, so two ids never have the same key.
    """
    segment = layout.encode_segment(troop_id)
    plain = unicodedata.normalize("NFKD", name or "").encode("ascii", "ignore").decode().lower()
    slug = re.sub("[^a-z0-9_]+", "-", plain).strip("-_")[:_SLUG_CHARACTERS].strip("-_")
    says_it_all = not slug or slug == segment.lower()
    is_word = re.match("[A-Za-z]", segment) and "." not in segment and segment.lower() not in _NOT_A_WORD
    if not troop_id or (says_it_all and is_word):
        return segment
    if not slug or not slug[0].isalpha():
        slug = f"troop-{slug}".strip("-")
    return f"{slug}.{layout.encode_segment(troop_id, layout.SEGMENT_BYTES - len(slug) - 1)}"


class TroopKeys:
    """The partition keys of a store's troops."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def known(self) -> dict[str, str]:
        """The key of every troop that was ever on a roster, by the troop's id."""
        return self._load()[0]

    def ids(self) -> dict[str, str]:
        """The id of every troop that was ever on a roster, by the troop's key."""
        return {key: troop_id for troop_id, key in self.known().items()}

    def assign(self, names: Mapping[str, str | None]) -> dict[str, str]:
        """The keys of troops, given by their names by id; those that have none yet get one, which stays."""
        while True:
            keys, etag = self._load()
            new = [troop_id for troop_id in names if troop_id not in keys]
            # Without regard to case, like the file systems of Windows and macOS.
            taken = {key.lower() for key in keys.values()}
            for troop_id in new:
                key = readable_key(troop_id, names[troop_id])
                number = 2
                while key.lower() in taken:
                    # An id that differs by case alone, or one of an older release that looks like a new key.
                    key = readable_key(troop_id, f"troop {number}")
                    number += 1
                keys[troop_id] = key
                taken.add(key.lower())
            if new:
                document = {"format": 1, "keys": dict(sorted(keys.items()))}
                data = json.dumps(document, indent=0).encode()
                try:
                    self._store.put(layout.TROOP_KEYS_KEY, data, if_absent=etag is None, if_match=etag)
                except ObjectConflictError:
                    continue
            return {troop_id: keys[troop_id] for troop_id in names}

    def _load(self) -> tuple[dict[str, str], str | None]:
        """The keys, and the etag of their object where there is one."""
        try:
            data, etag = self._store.get_with_etag(layout.TROOP_KEYS_KEY)
        except ObjectNotFoundError:
            return self._of_rosters(), None
        try:
            keys = json_object(data, keys=dict)["keys"]
            if not all(isinstance(key, str) and layout.is_segment(key) for key in keys.values()):
                raise ValueError("not every key is one")
        except ValueError as error:
            logger.warning(
                "%s cannot be read (%s); it is rebuilt from the rosters",
                self._store.uri(layout.TROOP_KEYS_KEY),
                str(error)[:200],
            )
            return self._of_rosters(), etag
        return dict(keys), etag

    def _of_rosters(self) -> dict[str, str]:
        days = [layout.day_of_folder(name) for name in self._store.folders(layout.table_prefix("troops"))]
        keys = [layout.table_key("troops", day) for day in days if day is not None]
        found: dict[str, str] = {}
        for rows in map_concurrently(self._rows, keys):
            found.update(
                (row["troop_id"], row["troop_key"]) for row in rows if layout.is_segment(row["troop_key"])
            )
        return found

    def _rows(self, key: str) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = read_table(
                self._store, key, columns=["troop_id", "troop_key"]
            ).to_pylist()
            return rows
        except ObjectNotFoundError:
            return []
        except StorageUnavailableError:
            raise
        except StorageError as error:
            logger.warning("the keys of a roster's troops are left out: %s", error)
            return []
