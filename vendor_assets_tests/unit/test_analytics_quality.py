"""Whether a day's tables can be right: duplicates, values out of range, unusual numbers of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.analytics.quality import duplicate_rows, duplicates_of_day, implausible_values, usual_rows
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets.storage.parquet import write_table
from vendor_assets.tables import DAILY_PERFORMANCE, PERFORMANCE_DATA
from vendor_assets_tests.support.analysis import rows_of, write_performance, write_roster

DAY = date(2026, 11, 20)
START = datetime(2026, 11, 20, tzinfo=UTC)
KEY = layout.table_key("performance_data", DAY, "1")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def rows(*keys: tuple[str, int]) -> pa.Table:
    """Performance data of warriors at half hours."""
    return rows_of(
        {
            "warrior_id": warrior,
            "value": 1.0,
            "timeslice_start": START + timedelta(minutes=30 * n),
            "timeslice_end": START + timedelta(minutes=30 * n + 30),
        }
        for warrior, n in keys
    )


@given(
    keys=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5)), max_size=40),
    group=st.integers(1, 7),
    ordered=st.booleans(),
)
def test_every_row_whose_key_is_there_already_is_counted(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[str, int]], group: int, ordered: bool
) -> None:
    """Wherever row groups begin and end, and whether the groups are in order or not."""
    folder = tmp_path_factory.mktemp("store")
    path = folder / KEY
    path.parent.mkdir(parents=True)
    chosen = sorted(keys) if ordered else keys
    with pq.ParquetWriter(path, PERFORMANCE_DATA.schema) as writer:
        for first in range(0, len(chosen), group):
            writer.write_table(rows(*sorted(chosen[first : first + group])))
    found = duplicate_rows(open_store(str(folder)), KEY, PERFORMANCE_DATA)
    assert found == len(keys) - len(set(keys))


def test_duplicates_are_named_by_table_and_troop(store: ObjectStore) -> None:
    """Of many tables those with duplicates are named; tables that are not there have none."""
    write_roster(store, DAY, [("1", "one"), ("2", "two"), ("3", "three")])
    write_performance(store, DAY, "1", rows(("a", 0), ("a", 1)))
    write_performance(store, DAY, "2", rows(("a", 0), ("a", 0), ("b", 0)))
    assert duplicates_of_day(store, DAY, ["1", "2", "3"]) == {"performance_data of 2": 1}


def daily(**item: Any) -> dict[str, Any]:
    return {"troop_id": "1", "data_group": "HttpDispatcher", "min": 0.0, "max": 1.0} | item


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (daily(value_name="average_response_time", min=-0.5), "below 0"),
        (daily(value_name="requests_per_minute", min=-1.0), "below 0"),
        (daily(value_name="percent", max=101.0), "above 100 %"),
        (daily(value_name="score", max=1.2), "above 1"),
        (daily(value_name="percent", max=390.0, data_group="CPU/User Time"), None),
        (daily(value_name="average_response_time", min=0.0, max=1e9), None),
        (daily(value_name="temperature", min=-40.0), None),
        (daily(value_name="average_response_time", min=None, max=None), None),
    ],
)
def test_values_keep_to_what_their_unit_allows(item: dict[str, Any], rule: str | None) -> None:
    """Durations, counts and shares are not negative, a percentage is at most 100; what has no unit is free."""
    schema = pa.schema(
        [
            (name, pa.string() if name in ("troop_id", "data_group", "value_name") else pa.float64())
            for name in item
        ]
    )
    table = pa.Table.from_pylist([item, daily(value_name="other", min=-9.0, max=9.0)], schema=schema)
    assert [found.rule for found in implausible_values(table)] == ([rule] if rule else [])


def test_usual_is_the_median_of_complete_days(store: ObjectStore) -> None:
    """Partial days do not count, and fewer than three days say nothing."""
    row = dict.fromkeys(DAILY_PERFORMANCE.schema.names)
    row |= {"troop_id": "1", "warrior_id": "a", "data_group": "g", "covered_share": 1.0, "troops_missing": 0}

    def publish(back: int, count: int, state: str = "complete") -> None:
        table = pa.Table.from_pylist(
            [row | {"value_name": str(n), "timeslices": 1} for n in range(count)],
            schema=DAILY_PERFORMANCE.schema,
        )
        key = layout.table_key("daily_performance", DAY - timedelta(days=back))
        write_table(store, key, table, DAILY_PERFORMANCE, metadata={"state": state})

    publish(1, 10)
    publish(2, 2, state="partial")
    publish(3, 30)
    assert usual_rows(store, DAY) is None
    publish(5, 20)
    publish(20, 1000)
    assert usual_rows(store, DAY) == 20
