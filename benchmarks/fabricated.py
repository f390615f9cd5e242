"""A store as years of harvests leave it, written directly: rosters, tables, plans and finish markers, without answers.

The objects are the code's own; each troop has the same warriors and data groups, and few rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from vendor_assets.harvest.harvests import Finish
from vendor_assets.harvest.plans import Plan
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import write_table
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets.tables import DATA_GROUPS, PERFORMANCE_DATA, TABLES, TROOPS, WARRIORS
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request

WARRIORS_EACH = 4
GROUPS_EACH = 5
ANSWERS = {"warriors": 1, "data_groups": WARRIORS_EACH, "performance_data": 3 * WARRIORS_EACH}
"""Calls of a troop's day by asset."""


def days_until(last: date, count: int) -> list[date]:
    """Some days in a row, the last one given."""
    return [last - timedelta(days=before) for before in reversed(range(count))]


def troop_ids(count: int) -> dict[str, str]:
    """Ids of troops with their names."""
    return {str(200_000_000 + number): f"service {number}" for number in range(count)}


def keys_of(store: FolderStore, troops: int) -> dict[str, str]:
    """The partition keys of so many troops by id; new ones are assigned."""
    return TroopKeys(store).assign(troop_ids(troops))


def write_roster(store: FolderStore, day: date, troops: int) -> None:
    """A complete roster with its harvest."""
    names, keys, at = troop_ids(troops), keys_of(store, troops), _after(day)
    rows = [
        {"troop_id": each, "troop_key": keys[each], "name": name, "attributes": None,
         "first_observed_at": at, "last_observed_at": at, "observed_later": False}
        for each, name in names.items()
    ]  # fmt: skip
    etag = write_table(
        store,
        layout.table_key("troops", day),
        pa.Table.from_pylist(rows, TROOPS.schema),
        TROOPS,
        metadata={"state": "complete"},
    )
    _write_harvest(store, "troops", day, None, "", troops, 1, etag)


def write_troop_days(store: FolderStore, days: Sequence[date], troops: int) -> None:
    """The chain of so many troops, complete on each day."""
    tables = {asset: _table_bytes(asset) for asset in ANSWERS}
    keys = keys_of(store, troops)
    for day in days:
        for troop_id, key in keys.items():
            for asset, (data, rows) in tables.items():
                etag = store.put(layout.table_key(asset, day, key), data)
                _write_harvest(store, asset, day, key, troop_id, rows, ANSWERS[asset], etag)


def _table_bytes(asset: str) -> tuple[bytes, int]:
    """A troop's table as an object, and its number of rows; the troop's id in it is that of the first."""
    troop, at = next(iter(troop_ids(1))), datetime(2026, 1, 1, tzinfo=UTC)
    warriors = [f"{number}00" for number in range(1, WARRIORS_EACH + 1)]
    groups = [f"WebTransaction/Go/route{number}" for number in range(GROUPS_EACH)]
    if asset == "warriors":
        rows = [
            {"troop_id": troop, "warrior_id": each, "name": f"host-{each}", "attributes": None,
             "first_observed_at": at, "last_observed_at": at, "observed_later": False}
            for each in warriors
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, WARRIORS.schema)
    elif asset == "data_groups":
        rows = [
            {"troop_id": troop, "warrior_id": each, "data_group": group, "observed_at": at,
             "value_names": ["average_response_time", "call_count"]}
            for each in warriors
            for group in groups
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, DATA_GROUPS.schema)
    else:
        rows = [
            {"troop_id": troop, "warrior_id": each, "data_group": group, "value_name": "call_count",
             "timeslice_start": at, "timeslice_end": at + timedelta(minutes=30), "value": 1.0, "weight": None}
            for each in warriors
            for group in groups
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows, PERFORMANCE_DATA.schema)
    return _written(asset, table), table.num_rows


def _written(asset: str, table: pa.Table) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        write_table(store, "table", table, TABLES[asset], metadata={"state": "complete"})
        return store.get("table")


def _write_harvest(
    store: FolderStore,
    asset: str,
    day: date,
    key: str | None,
    troop_id: str,
    rows: int,
    answers: int,
    etag: str,
) -> None:
    at = _after(day)
    folder = layout.harvest_folder(asset, day, key, layout.new_ulid(at))
    requests = [
        PlannedRequest(Request(f"/{asset}/{troop_id}/{number}"), (Leaf(f"{asset}/{number}"),))
        for number in range(answers)
    ]
    plan = Plan(asset, day, key, troop_id, 1800, at).freeze(requests)
    store.put(layout.plan_key(folder), plan.packed)
    finish = Finish(
        state="complete", planned=answers, landed=answers, gone=0, dead=0, requests=answers, calls=answers,
        rows=rows, root_run="fabricated", epoch=1, finished_at=at, table_etag=etag, answers=answers,
    )  # fmt: skip
    store.put(layout.finish_key(folder), finish.to_json())


def _after(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 1, tzinfo=UTC) + timedelta(days=1)
