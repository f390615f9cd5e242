"""Compares what was harvested with the seeded truth of the embedded vendor's world."""

from __future__ import annotations

from datetime import date
from typing import Any

from vendor_assets.simulator.world import Troop, World
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.storage.troop_keys import readable_key

Rows = dict[tuple[Any, ...], float | None]


def key_of(troop: Troop) -> str:
    """The partition key that a new store gives to a troop."""
    return readable_key(troop.id, troop.name)


def id_of(key: str) -> str:
    """The vendor's id of a troop, from the partition key that a new store gives to it."""
    return key.rpartition(".")[2]


def harvested_rows(store: ObjectStore, day: date, *, left_out: bool = False) -> Rows:
    """Every row of a day's performance data, by its grain; ``left_out``: troops may have none."""
    troops = read_table(store, layout.table_key("troops", day)).column("troop_key").to_pylist()
    found: Rows = {}
    for troop in troops:
        key = layout.table_key("performance_data", day, troop)
        if left_out and store.head(key) is None:
            continue
        table = read_table(store, key)
        names = ("troop_id", "warrior_id", "data_group", "value_name", "timeslice_start", "timeslice_end")
        columns = [table.column(name).to_pylist() for name in names]
        keys = list(zip(*columns, strict=True))
        assert len(set(keys)) == len(keys)
        found.update(zip(keys, table.column("value").to_pylist(), strict=True))
    return found


def true_rows(world: World, day: date, *, resolution_seconds: int = 1800) -> Rows:
    """Every row that a complete harvest of a day holds."""
    return {
        (row.troop_id, row.warrior_id, row.data_group, row.value_name, row.start, row.end): row.value
        for row in world.expected_rows(day, resolution_seconds)
    }


def differing_rows(found: Rows, truth: Rows) -> dict[Any, Any]:
    """Rows that are not in both, or whose values differ by more than REST's rounding; by row what each says."""
    missing = object()
    return {
        row: (found.get(row, missing), truth.get(row, missing))
        for row in found.keys() | truth.keys()
        if row not in found or row not in truth or not _same(found[row], truth[row])
    }


def _same(value: float | None, rounded: float | None) -> bool:
    if value is None or rounded is None:
        return value is rounded
    decimals = len(repr(rounded).partition(".")[2])
    return abs(value - rounded) <= 0.5 * 10**-decimals + 1e-6 * abs(rounded)
