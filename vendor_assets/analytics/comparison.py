"""A day in two stores, value by value: what is equal, missing on either side, or different."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

import duckdb
import pyarrow as pa

from vendor_assets.errors import ObjectNotFoundError
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.storage.roster import Roster
from vendor_assets.tables import PERFORMANCE_DATA

_KEY: Final = ("warrior_id", "data_group", "value_name", "timeslice_start", "timeslice_end")
_NOISE: Final = 1e-6
"""Part of a value by which two computations of it may differ."""
_ROUNDED: Final = 6
"""Values with at most so many decimals are rounded."""
_MOST: Final = 0.9
"""This part of a value's numbers tells to how many decimals they are rounded."""

_QUERY: Final = f"""
WITH written AS (
    SELECT value_name, max(decimals) AS decimals FROM (
        SELECT value_name, quantile_disc(length(split_part(value::VARCHAR, '.', 2)), {_MOST}) AS decimals
        FROM side GROUP BY value_name, one HAVING decimals <= {_ROUNDED}
    ) GROUP BY value_name
), both_sides AS (
    SELECT data_group, value_name, a.value AS one, b.value AS other,
        a.warrior_id IS NOT NULL AS in_one, b.warrior_id IS NOT NULL AS in_other
    FROM one a FULL JOIN other b USING ({", ".join(_KEY)})
), judged AS (
    SELECT *, abs(one - other) AS off, abs(one - other) / nullif(greatest(abs(one), abs(other)), 0) AS part,
        (one IS NULL AND other IS NULL) OR coalesce(
            abs(one - other) <= {_NOISE} * greatest(abs(one), abs(other))
                + coalesce(0.5 * pow(10, -decimals) * (1 + {_NOISE}), 0), false
        ) AS equal
    FROM both_sides LEFT JOIN written USING (value_name)
)
SELECT data_group, value_name,
    count(*) FILTER (in_one AND in_other AND equal),
    count(*) FILTER (in_one AND NOT in_other),
    count(*) FILTER (in_other AND NOT in_one),
    count(*) FILTER (in_one AND in_other AND NOT equal),
    max(off) FILTER (in_one AND in_other AND NOT equal),
    max(part) FILTER (in_one AND in_other AND NOT equal)
FROM judged GROUP BY data_group, value_name ORDER BY data_group, value_name
"""


@dataclass(frozen=True)
class Compared:
    """One value of a troop's data group over a day; numbers of rows.

    Attributes:
        only_one: Rows of the first store that the second one does not have.
        most_off: The largest difference; None where none differ, or one side is null.
        most_off_part: The same as a part of the larger value.
    """

    troop_id: str
    troop: str
    data_group: str
    value_name: str
    equal: int
    only_one: int
    only_other: int
    different: int
    most_off: float | None
    most_off_part: float | None

    @property
    def same(self) -> bool:
        """Whether both stores say the same."""
        return not (self.only_one or self.only_other or self.different)


def compare(one: ObjectStore, other: ObjectStore, day: date) -> Iterator[Compared]:
    """Compare the performance data of a day, a troop at a time.

    Values are equal where they are so as far as the coarser of the two is written: most numbers of a rounded one have
    at most so many decimals.

    Raises:
        ObjectNotFoundError: A store has no roster of the day.
    """
    rosters = [Roster.read(store, day) for store in (one, other)]
    troops = {troop.id: troop for roster in reversed(rosters) for troop in roster.troops}
    for troop_id in sorted(troops):
        keys = [next((t.key for t in roster.troops if t.id == troop_id), None) for roster in rosters]
        tables = [_rows(store, day, key) for store, key in zip((one, other), keys, strict=True)]
        with duckdb.connect() as connection:
            connection.register("one", tables[0])
            connection.register("other", tables[1])
            connection.execute(
                "CREATE VIEW side AS SELECT value_name, value, true AS one FROM one "
                "UNION ALL SELECT value_name, value, false FROM other"
            )
            for found in connection.execute(_QUERY).fetchall():
                yield Compared(troop_id, troops[troop_id].title, *found)


def _rows(store: ObjectStore, day: date, key: str | None) -> pa.Table:
    columns = [*_KEY, "value"]
    if key is not None:
        try:
            return read_table(store, layout.table_key("performance_data", day, key), columns=columns)
        except ObjectNotFoundError:
            pass
    schema = PERFORMANCE_DATA.schema
    return pa.schema([schema.field(name) for name in columns]).empty_table()
