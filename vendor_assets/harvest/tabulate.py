"""Tabulate: landed responses become typed, sorted tables without one more call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vendor_assets.days import Window
from vendor_assets.errors import ObjectNotFoundError, VendorProtocolError
from vendor_assets.harvest.landing import LandedIndex, read_bodies
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.tables import TABLES, Table
from vendor_assets.vendors.base import Asset, Parsed, Vendor

Key = tuple[str, int]


@dataclass
class Tabulated:
    """One partition's table and what was noticed on the way.

    Attributes:
        table: Rows in the table's schema, sorted by its key, each key once.
        quarantined: Records that do not fit, as JSON-ready objects with ``reason``, ``record``, ``request``.
        new_fields: Fields that the vendor's dialect did not have.
        not_found: Data groups that the vendor does not know any more.
        duplicates: Rows dropped because a newer answer has the same key.
        outside: Rows dropped because their timeslice starts outside the day.
    """

    table: pa.Table
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    new_fields: set[str] = field(default_factory=set)
    not_found: set[str] = field(default_factory=set)
    duplicates: int = 0
    outside: int = 0


def newest_answers(index: Iterable[LandedIndex]) -> list[LandedIndex]:
    """For each request and page the newest landed answer, oldest first.

    A request that was asked twice (a kill between answer and landing, a provisional answer asked again) counts
    once.
    """
    newest: dict[tuple[str, str, str, int], LandedIndex] = {}
    for entry in index:
        key = (entry.asset, entry.troop_id, entry.request_key, entry.page)
        held = newest.get(key)
        if held is None or entry.fetched_at >= held.fetched_at:
            newest[key] = entry
    return sorted(newest.values(), key=lambda entry: (entry.fetched_at, entry.request_key, entry.page))


def tabulate(
    asset: Asset,
    *,
    store: ObjectStore,
    vendor: Vendor,
    answers: Sequence[LandedIndex],
    troop_id: str,
    window: Window,
) -> Tabulated:
    """Read landed answers of data groups or performance data into a table.

    Args:
        window: The day; performance data outside it are dropped.
    """
    spec = TABLES[asset]
    found = Tabulated(spec.schema.empty_table())
    batches: list[pa.Table] = []
    for order, (entry, planned, response) in enumerate(read_bodies(store, answers)):
        if response.status != 200:
            continue
        try:
            parsed = vendor.parse(asset, planned, response)
            batch = _to_batch(spec, parsed, troop_id=troop_id, observed_at=response.fetched_at, order=order)
        except (VendorProtocolError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            excerpt = response.body[:2000].decode("utf-8", "replace")
            found.quarantined.append({"reason": str(error), "record": excerpt, "request": entry.request_key})
            continue
        _note(found, parsed, entry)
        if batch.num_rows:
            batches.append(batch)
    if not batches:
        return found
    table = pa.concat_tables(batches)
    if asset == "performance_data":
        before = table.num_rows
        start, end = (
            pa.scalar(window.start, pa.timestamp("us", "UTC")),
            pa.scalar(window.end, pa.timestamp("us", "UTC")),
        )
        starts = table.column("timeslice_start")
        table = table.filter(pc.and_(pc.greater_equal(starts, start), pc.less(starts, end)))
        found.outside = before - table.num_rows
    before = table.num_rows
    table = _last_of_each_key(table, spec.key)
    found.duplicates = before - table.num_rows
    found.table = table.select(spec.schema.names).cast(spec.schema)
    return found


def _note(found: Tabulated, parsed: Parsed, entry: LandedIndex) -> None:
    found.new_fields.update(parsed.new_fields)
    found.not_found.update(parsed.not_found)
    found.quarantined.extend(
        {"reason": rejected.reason, "record": rejected.record, "request": entry.request_key}
        for rejected in parsed.rejected
    )


def _to_batch(spec: Table, parsed: Parsed, *, troop_id: str, observed_at: datetime, order: int) -> pa.Table:
    length = len(next(iter(parsed.columns.values()), []))
    arrays: dict[str, pa.Array] = {}
    for column in spec.schema:
        if column.name == "troop_id":
            arrays[column.name] = pa.repeat(pa.scalar(troop_id, column.type), length)
        elif column.name == "observed_at":
            arrays[column.name] = pa.repeat(pa.scalar(observed_at, column.type), length)
        else:
            arrays[column.name] = pa.array(parsed.columns.get(column.name, []), column.type)
    arrays["_order"] = pa.repeat(pa.scalar(order, pa.int32()), length)
    return pa.table(arrays)


def _last_of_each_key(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """Rows sorted by key; of rows with the same key only the newest answer's."""
    table = table.combine_chunks().sort_by([(name, "ascending") for name in (*key, "_order")])
    if table.num_rows < 2:
        return table
    last = None
    for name in key:
        column = table.column(name).combine_chunks()
        changed = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
        last = changed if last is None else pc.or_(last, changed)
    keep = pa.concat_arrays(
        [last.combine_chunks() if isinstance(last, pa.ChunkedArray) else last, pa.array([True])]
    )
    return table.filter(keep)


def tabulate_roster(
    asset: Asset,
    *,
    store: ObjectStore,
    vendor: Vendor,
    answers: Sequence[LandedIndex],
    troop_id: str,
    window: Window,
    previous: str,
    troop_key: Callable[[str], str],
) -> Tabulated:
    """Read landed lists of troops or warriors, and the day's sightings, into a roster.

    A roster is the union of all that was seen: of each entity the newest name and attributes, and when it was
    first and last observed. What an older table of the same partition had stays.

    Args:
        previous: Object key of the partition's present table; it need not exist.
        troop_key: Makes a partition key from a troop's id.
    """
    spec = TABLES[asset]
    id_column = spec.key[0]
    found = Tabulated(spec.schema.empty_table())
    seen: dict[str, dict[str, Any]] = {}
    try:
        for row in read_table(store, previous).to_pylist():
            seen[row[id_column]] = row
    except ObjectNotFoundError:
        pass
    for entry, planned, response in read_bodies(store, answers):
        if response.status != 200:
            continue
        try:
            parsed = vendor.parse(asset, planned, response)
        except VendorProtocolError as error:
            excerpt = response.body[:2000].decode("utf-8", "replace")
            found.quarantined.append({"reason": str(error), "record": excerpt, "request": entry.request_key})
            continue
        _note(found, parsed, entry)
        later = vendor.rosters == "current" and response.fetched_at >= window.end
        for row in _rows(parsed.columns):
            _observe(seen, row[id_column], row, response.fetched_at, later)
    rows = [seen[key] for key in sorted(seen)]
    for row in rows:
        if asset == "troops":
            row["troop_key"] = troop_key(row["troop_id"])
        else:
            row["troop_id"] = troop_id
    found.table = pa.Table.from_pylist(rows, schema=spec.schema)
    return found


def _rows(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _observe(
    seen: dict[str, dict[str, Any]], identity: str, row: dict[str, Any], at: datetime, later: bool
) -> None:
    held = seen.get(identity)
    if held is None:
        seen[identity] = row | {"first_observed_at": at, "last_observed_at": at, "observed_later": later}
        return
    if at >= held["last_observed_at"]:
        held.update(row)
    held["first_observed_at"] = min(held["first_observed_at"], at)
    held["last_observed_at"] = max(held["last_observed_at"], at)
    held["observed_later"] = held["observed_later"] and later


def quarantine_bytes(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Quarantined records as JSON lines."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)
