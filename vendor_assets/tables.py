"""What each table holds: grain, key, columns with units. Pure: no I/O.

Every table is partitioned by day, most also by troop. These partition columns live in the path
(``day=2026-11-20/troop=42``), Hive-style, and are not repeated inside the files.
Times are instants in UTC with microseconds; durations and sizes name their unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

INSTANT: Final = pa.timestamp("us", tz="UTC")


def _column(
    name: str, kind: pa.DataType, description: str, *, unit: str = "", nullable: bool = False
) -> pa.Field:
    metadata = {"description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


@dataclass(frozen=True)
class Table:
    """One table of the platform.

    Attributes:
        partitioned_by: ``("day",)`` or ``("day", "troop")``.
        key: Columns which, inside one partition, no two rows share.
        schema: Arrow schema; each field's metadata has ``description`` and, where it applies, ``unit``.
        added: Nullable columns that files of an older release lack; whoever reads these gets nulls.
    """

    name: str
    grain: str
    partitioned_by: tuple[str, ...]
    key: tuple[str, ...]
    schema: pa.Schema
    added: tuple[str, ...] = ()

    @property
    def sort(self) -> tuple[str, ...]:
        """Columns by which rows are sorted inside a file: the key."""
        return self.key


def _table(
    name: str,
    grain: str,
    partitioned_by: tuple[str, ...],
    key: tuple[str, ...],
    *columns: pa.Field,
    added: tuple[str, ...] = (),
) -> Table:
    return Table(name, grain, partitioned_by, key, pa.schema(columns), added)


_TROOP: Final = _column("troop_id", pa.string(), "The vendor's id of the troop")
_WARRIOR: Final = _column("warrior_id", pa.string(), "The vendor's id of the warrior")
_DATA_GROUP: Final = _column("data_group", pa.string(), "The metric family's name")
_VALUE_NAME: Final = _column("value_name", pa.string(), "Which value of the family; its unit is the vendor's")
_ATTRIBUTES: Final = _column(
    "attributes", pa.string(), "What else the vendor says of it, a JSON object", nullable=True
)
_OBSERVED: Final = (
    _column("first_observed_at", INSTANT, "When it was first seen on a list on or for this day"),
    _column("last_observed_at", INSTANT, "When it was last seen on a list on or for this day"),
    _column(
        "observed_later",
        pa.bool_(),
        "True where it was seen only on a list that was read after the day was over",
    ),
)

TROOPS: Final = _table(
    "troops",
    "one row per day and troop (a troop = the warriors of one micro-service)",
    ("day",),
    ("troop_id",),
    _TROOP,
    _column("troop_key", pa.string(), "The troop's partition key: its first name and its id, safe in paths"),
    _column("name", pa.string(), "Display name: free text, may change and repeat", nullable=True),
    _ATTRIBUTES,
    *_OBSERVED,
)

WARRIORS: Final = _table(
    "warriors",
    "one row per day, troop and warrior (a warrior = one running instance)",
    ("day", "troop"),
    ("warrior_id",),
    _TROOP,
    _WARRIOR,
    _column("name", pa.string(), "Display name, often the host's", nullable=True),
    _ATTRIBUTES,
    *_OBSERVED,
)

DATA_GROUPS: Final = _table(
    "data_groups",
    "one row per day, troop, warrior and data group (a data group = one metric family)",
    ("day", "troop"),
    ("warrior_id", "data_group"),
    _TROOP,
    _WARRIOR,
    _DATA_GROUP,
    _column("value_names", pa.list_(pa.string()), "The names of the values that it has"),
    _column("observed_at", INSTANT, "When the vendor listed it"),
)

PERFORMANCE_DATA: Final = _table(
    "performance_data",
    "one row per troop, warrior, data group, value name and timeslice (start, end)",
    ("day", "troop"),
    ("warrior_id", "data_group", "value_name", "timeslice_start"),
    _TROOP,
    _WARRIOR,
    _DATA_GROUP,
    _VALUE_NAME,
    _column("timeslice_start", INSTANT, "Start of the timeslice, included"),
    _column("timeslice_end", INSTANT, "End of the timeslice, excluded"),
    _column(
        "value", pa.float64(), "The value over the timeslice; null where the vendor says null", nullable=True
    ),
    _column(
        "weight",
        pa.float64(),
        "Calls that the value stands for in this timeslice, where the vendor gives a call count",
        unit="calls",
        nullable=True,
    ),
)

DAILY_PERFORMANCE: Final = _table(
    "daily_performance",
    "one row per day, troop, warrior, data group and value name; statistics are over timeslices",
    ("day",),
    ("troop_id", "warrior_id", "data_group", "value_name"),
    _TROOP,
    _column("troop_name", pa.string(), "Display name on that day", nullable=True),
    _WARRIOR,
    _column("warrior_name", pa.string(), "Display name on that day, often the host's", nullable=True),
    _DATA_GROUP,
    _VALUE_NAME,
    _column("timeslices", pa.int64(), "Number of timeslices with a value", unit="timeslices"),
    _column("sum", pa.float64(), "Sum over timeslices", nullable=True),
    _column(
        "mean",
        pa.float64(),
        "Mean over timeslices, weighted by the call count where the vendor gives one",
        nullable=True,
    ),
    _column("min", pa.float64(), "Smallest timeslice", nullable=True),
    _column("p50", pa.float64(), "Median over timeslices (not over calls)", nullable=True),
    _column("p95", pa.float64(), "95th percentile over timeslices (not over calls)", nullable=True),
    _column("p99", pa.float64(), "99th percentile over timeslices (not over calls)", nullable=True),
    _column("max", pa.float64(), "Largest timeslice", nullable=True),
    _column("calls", pa.float64(), "Sum of the weights", unit="calls", nullable=True),
    _column("covered_share", pa.float64(), "Part of the day that has timeslices, 0 to 1", unit="share"),
    _column(
        "troops_missing", pa.int32(), "Troops of this day without data, the same in all rows", unit="troops"
    ),
    added=("warrior_name",),
)

TABLES: Final = {
    table.name: table for table in (TROOPS, WARRIORS, DATA_GROUPS, PERFORMANCE_DATA, DAILY_PERFORMANCE)
}
