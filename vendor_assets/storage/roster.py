"""The roster of a day: its troops, as every reader has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Self

from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_with_metadata

COLUMNS: Final = ("troop_id", "troop_key", "name")
"""The columns of the table ``troops`` that a roster is made of."""


@dataclass(frozen=True)
class Troop:
    """One troop: the vendor's id, its partition key and its display name, where it has one."""

    id: str
    key: str
    name: str | None

    @property
    def title(self) -> str:
        """What people call it: its name, or else its id."""
        return self.name or self.id

    @property
    def names(self) -> set[str | None]:
        """What it may be called in a command: id, partition key or name."""
        return {self.id, self.key, self.name}


@dataclass(frozen=True)
class Roster:
    """The troops of one day; ``state`` is ``complete``, ``partial`` or ``empty``, as the table says."""

    day: date
    troops: tuple[Troop, ...] = ()
    state: str = ""

    @classmethod
    def read(cls, store: ObjectStore, day: date) -> Self:
        """Read the roster of a day: one table is opened, once.

        Raises:
            ObjectNotFoundError: The day has no roster.
            StorageError: The table is damaged, or the store cannot be read.
        """
        table, metadata = read_with_metadata(store, layout.table_key("troops", day), COLUMNS)
        return cls(day, troops_of(table.to_pylist()), metadata.get("state", ""))

    def find(self, key: str | None) -> Troop | None:
        """The troop with a partition key; None where it is not on the roster."""
        return next((troop for troop in self.troops if troop.key == key), None)


def troops_of(rows: Iterable[dict[str, Any]]) -> tuple[Troop, ...]:
    """The troops in rows of the table ``troops``."""
    return tuple(Troop(*(row[column] for column in COLUMNS)) for row in rows)
