"""The tables above a partition: the day's roster, and the troop's tables that its requests are planned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Final

from vendor_assets.errors import HarvestError, ObjectNotFoundError
from vendor_assets.harvest.filters import Filters
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_groups, read_metadata
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.vendors.base import Asset

_ROWS_AT_ONCE: Final = 8192


class Upstream:
    """What stands above one partition.

    Args:
        troop_key: Partition key of the troop; None for the roster itself, which has nothing above it.
        roster: Reads the day's troops.
    """

    def __init__(
        self,
        store: ObjectStore,
        day: date,
        troop_key: str | None,
        filters: Filters,
        roster: Callable[[], Roster],
    ) -> None:
        self._store = store
        self._day = day
        self._troop_key = troop_key
        self._filters = filters
        self._read_roster = roster

    def troop_is_left_out(self) -> bool:
        """Whether a filter leaves the troop out."""
        if self._troop_key is None or not self._filters.troops:
            return False
        troop = self.troop() or Troop(self.troop_id(), self._troop_key, None)
        return not self._filters.takes_troop(troop)

    def left_out_text(self) -> str:
        """Which filter leaves the troop out."""
        troops = self._filters.troops
        return f"troop {self._troop_key} is left out by {troops.setting}={troops.text}: no calls"

    def rows(self, asset: Asset, *columns: str) -> Iterator[dict[str, Any]]:
        """Rows of the troop's table of an asset.

        Raises:
            HarvestError: There is no such table.
        """
        key = layout.table_key(asset, self._day, self._troop_key)
        try:
            for group in read_groups(self._store, key, columns):
                for batch in group.to_batches(_ROWS_AT_ONCE):
                    yield from batch.to_pylist()
        except ObjectNotFoundError as error:
            raise self._not_there(asset, self._troop_key) from error

    def state(self, asset: Asset) -> str:
        """How the troop's table of an asset stands.

        Raises:
            HarvestError: There is no such table.
        """
        try:
            metadata, _ = read_metadata(self._store, layout.table_key(asset, self._day, self._troop_key))
        except ObjectNotFoundError as error:
            raise self._not_there(asset, self._troop_key) from error
        return metadata.get("state", "")

    def _not_there(self, asset: Asset, troop_key: str | None) -> HarvestError:
        where = f"{self._day}" + (f", troop {troop_key}" if troop_key else "")
        uri = self._store.uri(layout.table_key(asset, self._day, troop_key))
        return HarvestError(f"{asset} of {where} is not there ({uri}); materialize {asset} first")

    def troop_id(self) -> str:
        """The vendor's id of the troop, also where it is not on the roster."""
        troop = self.troop()
        return troop.id if troop else layout.decode_segment(str(self._troop_key))

    def troop_name(self) -> str:
        """The troop's display name; empty where nobody knows it."""
        try:
            troop = self.troop()
        except HarvestError:
            return ""
        return (troop.name or "") if troop else ""

    def troop(self) -> Troop | None:
        """The troop; None where it is not on the roster."""
        return self.roster().find(self._troop_key)

    def roster(self) -> Roster:
        """The day's troops.

        Raises:
            HarvestError: The day has no roster.
        """
        try:
            return self._read_roster()
        except ObjectNotFoundError as error:
            raise self._not_there("troops", None) from error
