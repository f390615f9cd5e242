"""The tables above a partition: the day's roster, and the troop's tables that its requests are planned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import Any, Final

from vendor_assets.errors import HarvestError, ObjectNotFoundError
from vendor_assets.harvest.filters import Filters
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_groups, read_metadata
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets.vendors.base import Asset

_ROWS_AT_ONCE: Final = 8192


@dataclass(frozen=True)
class Upstream:
    """What stands above one partition; each method raises a HarvestError where the table that it needs is not there.

    Attributes:
        troop_key: None for the roster itself, which has nothing above it.
        read_roster: Reads the day's troops.
    """

    store: ObjectStore
    day: date
    troop_key: str | None
    filters: Filters
    read_roster: Callable[[], Roster]

    def troop_is_left_out(self) -> bool:
        """Whether a filter leaves the troop out."""
        if self.troop_key is None or not self.filters.troops:
            return False
        troop = self.troop() or Troop(self.troop_id(), self.troop_key, None)
        return not self.filters.takes_troop(troop)

    def left_out_text(self) -> str:
        """Which filter leaves the troop out."""
        troops = self.filters.troops
        return f"troop {self.troop_key} is left out by {troops.setting}={troops.text}: no calls"

    def rows(self, asset: Asset, *columns: str) -> Iterator[dict[str, Any]]:
        """Rows of the troop's table of an asset."""
        key = layout.table_key(asset, self.day, self.troop_key)
        try:
            for group in read_groups(self.store, key, columns):
                for batch in group.to_batches(_ROWS_AT_ONCE):
                    yield from batch.to_pylist()
        except ObjectNotFoundError as error:
            raise self._not_there(asset, self.troop_key) from error

    def state(self, asset: Asset) -> str:
        """How the troop's table of an asset stands."""
        try:
            metadata, _ = read_metadata(self.store, layout.table_key(asset, self.day, self.troop_key))
        except ObjectNotFoundError as error:
            raise self._not_there(asset, self.troop_key) from error
        return metadata.get("state", "")

    def _not_there(self, asset: Asset, troop_key: str | None) -> HarvestError:
        where = f"{self.day}" + (f", troop {troop_key}" if troop_key else "")
        uri = self.store.uri(layout.table_key(asset, self.day, troop_key))
        return HarvestError(f"{asset} of {where} is not there ({uri}); materialize {asset} first")

    def troop_id(self) -> str:
        """The vendor's id of the troop, which may be missing on this day's roster.

        Raises:
            HarvestError: It was never on any.
        """
        if troop := self.troop():
            return troop.id
        key, keys = str(self.troop_key), TroopKeys(self.store)
        ids = keys.ids()
        if key in ids:
            return ids[key]
        message = f"troop {key!r} was never on a roster"
        if named := keys.known().get(key):
            message += f"; the key of the troop with that id is {named!r}"
        elif ids:
            near = ", ".join(map(repr, get_close_matches(key, ids, 3) or sorted(ids)[:3]))
            message += f"; {len(ids)} are known, like {near}"
        raise HarvestError(message)

    def troop_name(self) -> str:
        """The troop's display name; empty where nobody knows it."""
        try:
            troop = self.troop()
        except HarvestError:
            return ""
        return (troop.name or "") if troop else ""

    def troop(self) -> Troop | None:
        """The troop; None where it is not on the roster."""
        return self.roster().find(self.troop_key)

    def roster(self) -> Roster:
        """The day's troops."""
        try:
            return self.read_roster()
        except ObjectNotFoundError as error:
            raise self._not_there("troops", None) from error
