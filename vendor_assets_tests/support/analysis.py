"""Days of data to analyse, written into a store as a harvest would leave them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from vendor_assets.days import Window
from vendor_assets.simulator.world import World
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import write_table
from vendor_assets.tables import PERFORMANCE_DATA, TROOPS, WARRIORS


def write_roster(store: ObjectStore, day: date, troops: Sequence[tuple[str, str | None]]) -> None:
    """Write the day's ``troops``: pairs of id and name."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    rows = [
        {
            "troop_id": troop_id,
            "troop_key": layout.encode_segment(troop_id),
            "name": name,
            "attributes": None,
            "first_observed_at": noon,
            "last_observed_at": noon,
            "observed_later": False,
        }
        for troop_id, name in troops
    ]
    table = pa.Table.from_pylist(rows, schema=TROOPS.schema)
    write_table(store, layout.table_key("troops", day), table, TROOPS, metadata={"state": "complete"})


def write_warriors(
    store: ObjectStore, day: date, troop_id: str, warriors: Sequence[tuple[str, str | None]]
) -> None:
    """Write one troop's ``warriors`` of a day: pairs of id and name."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    seen = {"first_observed_at": noon, "last_observed_at": noon, "observed_later": False}
    rows = [
        {"troop_id": troop_id, "warrior_id": warrior_id, "name": name, "attributes": None} | seen
        for warrior_id, name in warriors
    ]
    table = pa.Table.from_pylist(rows, schema=WARRIORS.schema)
    key = layout.table_key("warriors", day, layout.encode_segment(troop_id))
    write_table(store, key, table, WARRIORS, metadata={"state": "complete"})


def write_performance(
    store: ObjectStore, day: date, troop_id: str, rows: pa.Table, *, state: str = "complete"
) -> str:
    """Write one troop's ``performance_data`` of a day; gives the object's key."""
    key = layout.table_key("performance_data", day, layout.encode_segment(troop_id))
    write_table(store, key, rows, PERFORMANCE_DATA, metadata={"state": state})
    return key


def rows_of(items: Iterable[dict[str, object]]) -> pa.Table:
    """Performance data from rows as dicts; ids and names that are left out get a default."""
    filled = [
        {"troop_id": "1", "warrior_id": "w1", "data_group": "HttpDispatcher", "weight": None}
        | {"value_name": "average_response_time"}
        | item
        for item in items
    ]
    return pa.Table.from_pylist(filled, schema=PERFORMANCE_DATA.schema)


def slices(
    values: Sequence[float | None],
    *,
    window: Window,
    seconds: float = 1800,
    weights: Sequence[float | None] | None = None,
    **fixed: object,
) -> list[dict[str, object]]:
    """Rows of one series from the window's start on, one per value."""
    step = timedelta(seconds=seconds)
    return [
        {
            "timeslice_start": window.start + index * step,
            "timeslice_end": window.start + (index + 1) * step,
            "value": value,
            "weight": None if weights is None else weights[index],
        }
        | fixed
        for index, value in enumerate(values)
    ]


def write_world_day(
    store: ObjectStore,
    world: World,
    day: date,
    *,
    timezone: str = "UTC",
    resolution_seconds: int = 1800,
    without: Sequence[str] = (),
) -> int:
    """Write all that a seeded world knows of a day, as a complete harvest leaves it; gives the rows.

    Args:
        without: Ids of troops that get no file, as if their harvest had failed.
    """
    troops = world.troops_on(day, timezone)
    write_roster(store, day, [(troop.id, troop.name) for troop in troops])
    written = 0
    for troop in troops:
        if troop.id in without:
            continue
        rows = list(world.expected_rows(day, resolution_seconds, timezone=timezone, troop_ids=[troop.id]))
        columns = list(zip(*rows, strict=True)) if rows else [()] * 7
        names = (
            "troop_id",
            "warrior_id",
            "data_group",
            "value_name",
            "timeslice_start",
            "timeslice_end",
            "value",
        )
        table = pa.table(
            {
                name: pa.array(column, PERFORMANCE_DATA.schema.field(name).type)
                for name, column in zip(names, columns, strict=True)
            }
        )
        calls = table.filter(pc.equal(table["value_name"], "call_count"))
        keys = ["warrior_id", "data_group", "timeslice_start"]
        weights = calls.select([*keys, "value"]).rename_columns([*keys, "weight"])
        table = table.join(weights, keys).select(PERFORMANCE_DATA.schema.names)
        write_performance(store, day, troop.id, table, state="complete" if rows else "empty")
        written += table.num_rows
    return written
