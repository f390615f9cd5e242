"""Plausibility of a day's tables: duplicate rows, values out of range, unusual numbers of rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from vendor_assets.errors import ObjectNotFoundError, StorageError, StorageUnavailableError
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_groups, read_metadata, read_table
from vendor_assets.tables import TABLES, Table

LOOK_BACK_DAYS: Final = 14
LEAST_DAYS: Final = 3
"""Fewest past days from which to tell what is usual."""
USUAL: Final = (0.5, 2.0)
"""Between half and twice the median is usual."""

_NOT_NEGATIVE: Final = re.compile(
    r"(^|_)(ms|millis|milliseconds|seconds|mb|bytes|count|total|calls|percent|ratio|score|apdex)(_|$)"
    r"|response_?time|duration|latency|per_minute|per_second|throughput"
)
_SHARE: Final = re.compile(r"(^|_)(percent|percentage)(_|$)")
_MANY_CORES: Final = re.compile(r"cpu|core", re.IGNORECASE)
_UNIT_SHARE: Final = re.compile(r"(^|_)(score|apdex)(_|$)")


@dataclass(frozen=True)
class Implausible:
    """Values of a day that are out of their unit's range.

    Attributes:
        rule: What is wrong, in words.
        series: Number of series that are affected.
        example: Troop id and data group of one of the series.
    """

    value_name: str
    rule: str
    series: int
    worst: float
    example: str


def duplicate_rows(store: ObjectStore, key: str, spec: Table) -> int:
    """Number of rows with the same key as an earlier row; 0 if the table does not exist.

    Row groups are sorted by key, and in nearly all tables so is their sequence: then duplicates are neighbours, and one
    group at a time is in memory.

    Raises:
        StorageError: The table cannot be read.
    """
    count = 0
    last: pa.Table | None = None
    try:
        for group in read_groups(store, key, spec.key):
            if not group.num_rows:
                continue
            if last is not None and _first(group) < _first(last):
                return _repeated_keys(store, key, spec)
            rows = group if last is None else pa.concat_tables([last, group])
            same = pa.array([True] * (rows.num_rows - 1), pa.bool_())
            for name in spec.key:
                column = rows.column(name).combine_chunks()
                same = pc.and_(same, pc.equal(column.slice(1), column.slice(0, rows.num_rows - 1)))
            count += pc.sum(same).as_py() or 0
            last = group.slice(group.num_rows - 1)
    except ObjectNotFoundError:
        return 0
    return count


def _first(rows: pa.Table) -> tuple[object, ...]:
    return tuple(rows.slice(0, 1).to_pylist()[0].values())


def _repeated_keys(store: ObjectStore, key: str, spec: Table) -> int:
    rows = read_table(store, key, columns=spec.key)
    distinct = rows.group_by(list(spec.key)).aggregate([])
    return int(rows.num_rows - distinct.num_rows)


def duplicates_of_day(store: ObjectStore, day: date, troop_keys: Sequence[str]) -> dict[str, int]:
    """Duplicate rows of each of a day's tables that has any, by names like ``performance_data of 42``."""
    found = {"troops": duplicate_rows(store, layout.table_key("troops", day), TABLES["troops"])}
    wanted = [
        (asset, troop) for troop in troop_keys for asset in ("warriors", "data_groups", "performance_data")
    ]

    def count(item: tuple[str, str]) -> int:
        asset, troop = item
        return duplicate_rows(store, layout.table_key(asset, day, troop), TABLES[asset])

    counts = map_concurrently(count, wanted)
    found |= {f"{asset} of {troop}": number for (asset, troop), number in zip(wanted, counts, strict=True)}
    return {name: number for name, number in found.items() if number}


def implausible_values(daily: pa.Table) -> list[Implausible]:
    """Values out of the range of the unit in their name, the most frequent first.

    Args:
        daily: Rows of ``daily_performance`` with troop_id, data_group, value_name, min and max.
    """
    found: list[Implausible] = []
    for name in pc.unique(daily.column("value_name")).to_pylist():
        rows = daily.filter(pc.equal(daily.column("value_name"), name))
        low = name.lower()
        if _NOT_NEGATIVE.search(low):
            found += _broken(rows, name, "below 0", pc.less(rows.column("min"), 0.0), "min")
        if _UNIT_SHARE.search(low):
            found += _broken(rows, name, "above 1", pc.greater(rows.column("max"), 1.0), "max")
        if _SHARE.search(low) and not _MANY_CORES.search(low):
            groups = pc.match_substring_regex(rows.column("data_group"), "(?i)cpu|core")
            above = pc.and_(pc.greater(rows.column("max"), 100.0), pc.invert(groups))
            found += _broken(rows, name, "above 100 %", above, "max")
    return sorted(found, key=lambda item: (-item.series, item.value_name))


def _broken(rows: pa.Table, name: str, rule: str, broken: pa.ChunkedArray, column: str) -> list[Implausible]:
    bad = rows.filter(pc.fill_null(broken, False))
    if not bad.num_rows:
        return []
    worst = (pc.min if column == "min" else pc.max)(bad.column(column)).as_py()
    example = bad.slice(0, 1).to_pylist()[0]
    return [Implausible(name, rule, bad.num_rows, worst, f"{example['troop_id']}, {example['data_group']}")]


def read_extremes(store: ObjectStore, day: date) -> pa.Table:
    """A published day's rows for :func:`implausible_values`."""
    columns = ("troop_id", "data_group", "value_name", "min", "max")
    return read_table(store, layout.table_key("daily_performance", day), columns=columns)


def usual_rows(store: ObjectStore, day: date) -> int | None:
    """Median number of rows of ``daily_performance`` on the complete days of the two weeks before; None if too few."""
    days = [day - timedelta(days=back) for back in range(1, LOOK_BACK_DAYS + 1)]

    def rows(other: date) -> int | None:
        try:
            metadata, count = read_metadata(store, layout.table_key("daily_performance", other))
        except StorageUnavailableError:
            raise
        except StorageError:  # missing or damaged: leave that day out
            return None
        return count if metadata.get("state") == "complete" else None

    known = [count for count in map_concurrently(rows, days) if count is not None]
    return int(median(known)) if len(known) >= LEAST_DAYS else None
