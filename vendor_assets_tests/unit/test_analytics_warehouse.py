"""Reading tables for analysis, and the statistics of a day, on a folder."""

from __future__ import annotations

import io
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.analytics import Warehouse, read
from vendor_assets.analytics import warehouse as module
from vendor_assets.analytics.daily import daily_performance
from vendor_assets.days import Window, day_window
from vendor_assets.errors import ConfigurationError, StorageError
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_metadata, read_table, write_table
from vendor_assets.tables import DAILY_PERFORMANCE, PERFORMANCE_DATA, Table
from vendor_assets_tests.support.analysis import (
    rows_of,
    slices,
    write_performance,
    write_roster,
    write_warriors,
)

DAY = date(2026, 11, 20)
WINDOW = day_window(DAY, ZoneInfo("UTC"))
HOSTILE = "svc:eu/west|1 é"


class WatchedStore(FolderStore):
    """A folder that remembers which objects were opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def open(self, key: str) -> BinaryIO:
        """Remember the key, then open it."""
        self.opened.append(key)
        return super().open(key)


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    """Three days of two troops; the second has no data on the last day."""
    store = WatchedStore(tmp_path / "store")
    for offset in range(3):
        day = DAY - timedelta(days=offset)
        write_roster(store, day, [("1", "one"), (HOSTILE, "two")])
        window = day_window(day, ZoneInfo("UTC"))
        write_performance(store, day, "1", rows_of(slices([1.0, 2.0], window=window)))
        if offset:
            rows = slices([10.0 * offset], window=window, troop_id=HOSTILE, warrior_id="w2")
            write_performance(store, day, HOSTILE, rows_of(rows))
    store.opened.clear()
    return store


def test_only_the_files_of_the_wanted_days_and_troops_are_opened(store: WatchedStore) -> None:
    """Reading prunes by path: no other file is so much as opened."""
    found = Warehouse(store).read("performance_data", (DAY - timedelta(days=1), DAY), "1")
    assert len(found) == 4
    wanted = [DAY - timedelta(days=1), DAY]
    assert sorted(store.opened) == [layout.table_key("performance_data", day, "1") for day in wanted]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (None, 8),
        (DAY, 2),
        ("2026-11-19", 3),
        (("2026-11-18", "2026-11-19"), 6),
        ([DAY, DAY - timedelta(days=2)], 5),
        (datetime(2026, 11, 20, 13, tzinfo=UTC), 2),
    ],
)
def test_days_are_given_as_one_a_pair_or_a_list(
    store: WatchedStore, days: module.Days, expected: int
) -> None:
    """A tuple is a range with both ends, a list is single days, none is all."""
    assert len(Warehouse(store).read("performance_data", days)) == expected


@pytest.mark.parametrize("troop", [HOSTILE, layout.encode_segment(HOSTILE)])
def test_troops_are_given_by_id_or_partition_key(store: WatchedStore, troop: str) -> None:
    """Both name the same partition, however hostile the id is."""
    found = Warehouse(store).read("performance_data", troops=[troop], as_="arrow")
    assert set(found["troop_id"].to_pylist()) == {HOSTILE}
    assert set(found["troop"].to_pylist()) == {layout.encode_segment(HOSTILE)}
    assert sorted(found["value"].to_pylist()) == [10.0, 20.0]


def test_an_id_that_looks_like_a_key_is_taken_as_an_id_first(tmp_path: Path) -> None:
    """A troop whose id is another's key does not shadow it the wrong way round."""
    store = FolderStore(tmp_path)
    window = WINDOW
    for troop_id, value in (("a b", 1.0), ("a~20b", 2.0)):
        write_performance(store, DAY, troop_id, rows_of(slices([value], window=window, troop_id=troop_id)))
    assert Warehouse(store).read("performance_data", DAY, "a~20b")["value"].tolist() == [2.0]
    assert Warehouse(store).read("performance_data", DAY, "a b")["value"].tolist() == [1.0]


def test_the_three_kinds_hold_the_same(store: WatchedStore) -> None:
    """pandas, Arrow and DuckDB give the same rows and columns, with day and troop from the path."""
    columns = ["value", "day", "troop"]
    frame = read("performance_data", columns=columns, store=store)
    arrow = read("performance_data", columns=columns, as_="arrow", store=store.url)
    relation = read("performance_data", columns=columns, as_="duckdb", store=store)
    assert frame.columns.tolist() == arrow.column_names == relation.columns == columns
    assert frame["day"].unique().tolist() == [DAY - timedelta(days=2), DAY - timedelta(days=1), DAY]
    rows = sorted(tuple(row.values()) for row in arrow.to_pylist())
    assert sorted(relation.fetchall()) == rows == sorted(frame.itertuples(index=False, name=None))


@pytest.mark.parametrize("kind", ["pandas", "arrow", "duckdb"])
def test_nothing_found_still_has_the_columns(store: WatchedStore, kind: module.Kind) -> None:
    """An empty result is typed like a full one."""
    found = read("performance_data", "2025-01-01", as_=kind, store=store)
    full = read("performance_data", DAY, as_=kind, store=store)
    names = full.column_names if isinstance(full, pa.Table) else list(full.columns)
    assert (found.column_names if isinstance(found, pa.Table) else list(found.columns)) == names
    assert (found.shape[0] if kind != "arrow" else found.num_rows) == 0
    if isinstance(found, pd.DataFrame):
        assert [kind.name for kind in found.dtypes] == [kind.name for kind in full.dtypes]


def test_missing_names_what_was_asked_for_and_is_not_there(store: WatchedStore) -> None:
    """Partitions that are not there are told by day and troop, whole days without a roster by day."""
    key = layout.encode_segment(HOSTILE)
    found = Warehouse(store).missing("performance_data", (DAY, DAY + timedelta(days=1)))
    assert found == [(DAY, key), (DAY + timedelta(days=1), None)]
    assert Warehouse(store).missing("performance_data", [DAY], HOSTILE) == [(DAY, key)]
    assert Warehouse(store).missing("troops", [DAY, date(2020, 1, 1)]) == [(date(2020, 1, 1), None)]
    assert Warehouse(store).missing("performance_data", DAY - timedelta(days=1)) == []


def test_days_without_rows_are_said_once_in_the_log(
    store: WatchedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader who asks for a day that is not there sees it without looking for it."""
    read("performance_data", [DAY, "2025-01-01"], store=store)
    assert [record.getMessage() for record in caplog.records] == [
        f"performance_data has no rows for 2025-01-01 in {store.url}"
    ]


def write_own(
    store: FolderStore, name: str, rows: pa.Table, day: date | None = None, troop: str | None = None
) -> None:
    """A table of the user's own, where the IO manager writes it."""
    write_table(store, layout.table_key(name, day, troop), rows, Table(name, "", (), (), rows.schema))


@pytest.mark.parametrize("kind", ["pandas", "arrow", "duckdb"])
def test_a_table_of_ones_own_is_read_like_ours(store: WatchedStore, kind: str) -> None:
    """By its name, of days or of days and troops; its columns are those of its newest partition."""
    write_own(store, "slowest", pa.table({"old": [1], "p99": [2]}), DAY - timedelta(days=1))
    write_own(store, "slowest", pa.table({"p99": [0.5, 1.5], "team": ["a", "b"]}), DAY)
    write_own(store, "team/Costs", pa.table({"cost": [7]}), DAY, "1")
    write_own(store, "limits", pa.table({"limit": [3]}))

    def rows(name: str, **chosen: object) -> list[dict[str, object]]:
        found = read(name, **chosen, as_=kind, store=store)  # type: ignore[arg-type]
        table = found.to_arrow_table() if kind == "duckdb" else found
        frame = table if kind == "pandas" else table.to_pandas()
        return [
            {key: None if pd.isna(value) else value for key, value in row.items()}
            for row in frame.astype(object).to_dict("records")
        ]

    before = DAY - timedelta(days=1)
    old = {"p99": 2.0, "team": None, "day": before}
    assert [row | {"day": pd.Timestamp(row["day"]).date()} for row in rows("slowest", days=str(before))] == [
        old
    ]
    assert [row["p99"] for row in rows("slowest")] == [2.0, 0.5, 1.5]
    assert rows("slowest", columns=["team"]) == [{"team": None}, {"team": "a"}, {"team": "b"}]
    assert [(row["cost"], row["troop"]) for row in rows("team/Costs", troops="1")] == [(7, "1")]
    assert rows("limits") == [{"limit": 3}]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "duckdb"])
def test_categories_of_ones_own_are_kept(store: WatchedStore, kind: module.Kind) -> None:
    """Their order too, however many more the partitions before have."""
    before = [f"k{number}" for number in range(300)]
    for day, texts in ((DAY - timedelta(days=1), before), (DAY, ["low", "high"])):
        frame = pd.DataFrame({"level": pd.Categorical(texts, categories=texts)})
        write_own(store, "levels", pa.Table.from_pandas(frame, preserve_index=False), day)
    found = read("levels", as_=kind, store=store)
    frame = (
        found
        if kind == "pandas"
        else found.to_arrow_table().to_pandas()
        if kind == "duckdb"
        else found.to_pandas()
    )
    assert frame["level"].tolist() == [*before, "low", "high"]
    assert read("levels", DAY, store=store)["level"].cat.categories.tolist() == ["low", "high"]


@pytest.mark.parametrize("name", ["../slowest", "slow est", "", "/limits", "team/"])
def test_no_table_has_such_a_name(store: WatchedStore, name: str) -> None:
    """A name cannot leave the tables' folder."""
    with pytest.raises(ConfigurationError, match="is unknown"):
        read(name, store=store)


def test_partitions_of_ones_own_that_do_not_fit_are_refused(store: WatchedStore) -> None:
    """The object is named, and what to do."""
    write_own(store, "slowest", pa.table({"p99": ["much"]}), DAY - timedelta(days=1))
    write_own(store, "slowest", pa.table({"p99": [0.5]}), DAY)
    with pytest.raises(
        StorageError, match=r"day=2026-11-19/data.parquet does not fit .*materialize it again"
    ):
        read("slowest", store=store)
    write_own(store, "limits", pa.table({"limit": [3]}))
    with pytest.raises(ConfigurationError, match="limits is not partitioned"):
        read("limits", days=DAY, store=store)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"table": "nope"}, "table 'nope' is unknown; choose one of troops"),
        ({"table": "troops", "days": "2026-02-30"}, "day '2026-02-30' is not a date"),
        (
            {"table": "troops", "days": ("2026-11-20", "2026-11-18")},
            "the first day must not be after the last",
        ),
        ({"table": "troops", "days": ("2026-11-20",)}, "is not a pair"),
        ({"table": "performance_data", "troops": "nix"}, "troop 'nix' has no performance_data in"),
        ({"table": "troops", "troops": "1"}, "troops is partitioned by day only"),
        ({"table": "troops", "columns": ["nix"]}, "columns 'nix' are unknown; choose from troop_id"),
        ({"table": "troops", "columns": []}, "no column is asked for"),
        ({"table": "troops", "as_": "polars"}, "as_='polars' is unknown"),
    ],
)
def test_what_is_unknown_is_refused_in_one_line(
    store: WatchedStore, arguments: dict[str, object], said: str
) -> None:
    """A wrong table, day, troop, column or kind is an error that names it and what is accepted."""
    with pytest.raises(ConfigurationError) as error:
        read(**arguments, store=store)  # type: ignore[arg-type]
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_foreign_objects_are_passed_over(store: WatchedStore) -> None:
    """Files of other tools beside the partitions do not disturb reading."""
    store.put(f"{layout.table_prefix('performance_data', DAY)}_SUCCESS", b"")
    store.put("processed/performance_data/day=soon/data.parquet", b"")
    assert len(read("performance_data", store=store)) == 8


def test_a_broken_file_is_named(store: WatchedStore) -> None:
    """A file that is no Parquet gives one line with its name, however it is read."""
    store.put(layout.table_key("performance_data", DAY, "1"), b"PAR1 but not really")
    with pytest.raises(StorageError, match=r"data\.parquet"):
        read("performance_data", DAY, store=store)
    with pytest.raises(StorageError, match="query of performance_data failed"):
        Warehouse(store).query("SELECT sum(value) FROM performance_data", table="performance_data", days=DAY)
    with pytest.raises(StorageError):
        _publish(store)


def test_a_question_in_sql_joins_small_frames_and_takes_parameters(store: WatchedStore) -> None:
    """A table may be asked in SQL, joined with frames, with values as parameters."""
    found = Warehouse(store).query(
        "SELECT name, sum(value) AS total FROM performance_data JOIN names USING (troop_id) "
        "WHERE value > $least GROUP BY 1",
        table="performance_data",
        frames={"names": pd.DataFrame({"troop_id": ["1"], "name": ["one"]})},
        parameters={"least": 1.5},
    )
    assert found.to_dict("records") == [{"name": "one", "total": 6.0}]


def test_states_tell_what_became_of_each_troop(store: WatchedStore) -> None:
    """The roster says who should be there, the files' own words what they are."""
    write_performance(store, DAY, "3", rows_of(slices([1.0], window=WINDOW, troop_id="3")), state="partial")
    assert Warehouse(store).states("performance_data", DAY) == {
        "1": "complete",
        "3": "partial",
        layout.encode_segment(HOSTILE): "missing",
    }


# Statistics of a day


def _publish(
    store: FolderStore, *, window: Window = WINDOW, day: date = DAY, missing: int = 0, batch_rows: int = 1000
) -> pd.DataFrame:
    daily_performance(
        store, day, window=window, troop_names={"1": "one"}, troops_missing=missing, batch_rows=batch_rows
    )
    return Warehouse(store).read("daily_performance", day)


def _only(frame: pd.DataFrame) -> dict[str, object]:
    (row,) = frame.to_dict("records")
    return {str(name): value for name, value in row.items()}


_value = st.one_of(st.none(), st.just(math.nan), st.just(math.inf), st.floats(-1e6, 1e6))
_weight = st.one_of(st.none(), st.just(math.nan), st.just(-1.0), st.floats(0, 1e4))


@settings(max_examples=40)
@given(st.lists(st.tuples(_value, _weight), min_size=1, max_size=48))
def test_statistics_are_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[float | None, float | None]]
) -> None:
    """Count, sum, mean, min, percentiles, max, calls and coverage agree with a plain computation."""
    store = FolderStore(tmp_path_factory.mktemp("store"))
    values, weights = zip(*pairs, strict=True)
    write_performance(store, DAY, "1", rows_of(slices(values, window=WINDOW, weights=weights)))
    row = _only(_publish(store))

    present = [value for value in values if value is not None and math.isfinite(value)]
    calls = [weight for weight in weights if weight is not None and math.isfinite(weight) and weight >= 0]
    both = [
        (value, weight)
        for value, weight in pairs
        if value is not None
        and math.isfinite(value)
        and weight is not None
        and math.isfinite(weight)
        and weight >= 0
    ]
    assert row["timeslices"] == len(present)
    assert row["covered_share"] == pytest.approx(len(present) * 1800 / 86400)
    assert row["calls"] == pytest.approx(sum(calls)) if calls else pd.isna(row["calls"])
    if not present:
        assert all(pd.isna(row[name]) for name in ("sum", "mean", "min", "p50", "p95", "p99", "max"))
        return
    total = sum(weight for _, weight in both)
    mean = sum(value * weight for value, weight in both) / total if total else float(np.mean(present))
    near = 1e-9 * max([1.0, *map(abs, present)])
    assert row["sum"] == pytest.approx(math.fsum(present), abs=near * 48)
    assert row["mean"] == pytest.approx(mean, rel=1e-6, abs=near)
    assert (row["min"], row["max"]) == (min(present), max(present))
    assert [row["p50"], row["p95"], row["p99"]] == pytest.approx(
        list(np.quantile(present, [0.5, 0.95, 0.99])), abs=near
    )


def test_the_statistics_have_the_tables_columns_and_say_how_complete_they_are(tmp_path: Path) -> None:
    """The file has exactly the schema, with units, and knows its state and window."""
    store = FolderStore(tmp_path)
    write_performance(store, DAY, "1", rows_of(slices([1.0, 2.0], window=WINDOW)))
    row = _only(_publish(store, missing=3))
    assert [*row] == [*DAILY_PERFORMANCE.schema.names, "day"]
    assert (row["troop_name"], row["troops_missing"], row["day"]) == ("one", 3, DAY)
    metadata, rows = read_metadata(store, layout.table_key("daily_performance", DAY))
    assert rows == 1
    assert metadata["state"] == "partial"
    assert metadata["window_start"] == "2026-11-20T00:00:00+00:00"


def _older(store: FolderStore) -> None:
    """The published day, as a release wrote it that did not name warriors."""
    key = layout.table_key("daily_performance", DAY)
    table = pq.read_table(io.BytesIO(store.get(key))).drop_columns(["warrior_name"])
    data = io.BytesIO()
    pq.write_table(table, data)
    store.put(key, data.getvalue())


def test_warriors_have_the_names_of_their_day(tmp_path: Path) -> None:
    """Those of the day's warriors of the same troop; null where there is no such table, and no row is doubled."""
    store = FolderStore(tmp_path)
    for troop_id in ("1", "2"):
        write_performance(store, DAY, troop_id, rows_of(slices([1.0], window=WINDOW, troop_id=troop_id)))
    assert _publish(store)["warrior_name"].isna().all()
    write_warriors(store, DAY, "2", [("w1", "web-2"), ("w1", "web-2"), ("w9", "gone")])
    write_warriors(store, DAY - timedelta(days=1), "1", [("w1", "of the day before")])
    found = _publish(store)
    assert [None if pd.isna(name) else name for name in found["warrior_name"]] == [None, "web-2"]


@pytest.mark.parametrize("kind", ["pandas", "arrow", "duckdb"])
def test_a_day_of_an_older_release_is_read_without_names(tmp_path: Path, kind: str) -> None:
    """Alone, beside newer days, and the new column alone: null. The next publication has them."""
    store = FolderStore(tmp_path)
    after = DAY + timedelta(days=1)
    for day in (DAY, after):
        window = day_window(day, ZoneInfo("UTC"))
        write_performance(store, day, "1", rows_of(slices([1.0], window=window)))
        write_warriors(store, day, "1", [("w1", "web-1")])
        _publish(store, window=window, day=day)

    def names(days: module.Days | None = None, columns: list[str] | None = None) -> list[object]:
        found = Warehouse(store).read("daily_performance", days, columns=columns, as_=kind)  # type: ignore[call-overload]
        there = found.column_names if kind == "arrow" else list(found.columns)
        assert columns or there == every
        frame = found if kind == "pandas" else (found.df() if kind == "duckdb" else found.to_pandas())
        return [None if pd.isna(name) else str(name) for name in frame["warrior_name"]]

    every = [*DAILY_PERFORMANCE.schema.names, "day"]
    _older(store)
    assert names(DAY) == names(DAY, ["warrior_name"]) == [None]
    assert sorted(map(str, names())) == ["None", "web-1"]
    assert read_table(store, layout.table_key("daily_performance", DAY)).column_names == every[:-1]
    _publish(store)
    assert names(DAY) == ["web-1"]


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_a_day_on_which_clocks_change_is_covered_by_23_or_25_hours(
    tmp_path: Path, day: date, hours: int
) -> None:
    """Coverage is over the day's real length."""
    store = FolderStore(tmp_path)
    window = day_window(day, ZoneInfo("Europe/Berlin"))
    write_performance(store, day, "1", rows_of(slices([1.0] * hours * 2, window=window)))
    assert _only(_publish(store, window=window, day=day))["covered_share"] == 1.0


def test_a_timeslice_that_leaves_the_day_covers_only_its_part_in_it(tmp_path: Path) -> None:
    """The last timeslice of a day may end after it; what is outside does not count."""
    store = FolderStore(tmp_path)
    late = Window(WINDOW.end - timedelta(minutes=15), WINDOW.end)
    write_performance(store, DAY, "1", rows_of(slices([1.0], window=late)))
    assert _only(_publish(store))["covered_share"] == pytest.approx(900 / 86400)


@pytest.mark.parametrize("batch_rows", [1, 7, 100_000])
def test_the_result_does_not_depend_on_the_batches(tmp_path: Path, batch_rows: int) -> None:
    """Troops are taken together or warrior by warrior; the rows are the same, sorted by the key."""
    store = FolderStore(tmp_path)
    random = np.random.default_rng(5)
    for troop_id in ("1", HOSTILE, "10", "é"):
        rows = [
            row
            for warrior in range(3)
            for group in ("a", "b")
            for row in slices(
                list(random.normal(size=5)),
                window=WINDOW,
                troop_id=troop_id,
                warrior_id=f"w{warrior}",
                data_group=group,
            )
        ]
        write_performance(store, DAY, troop_id, rows_of(rows))
    names = {troop_id: troop_id for troop_id in ("1", HOSTILE, "10", "é")}
    published = daily_performance(
        store, DAY, window=WINDOW, troop_names=names, troops_missing=0, batch_rows=batch_rows
    )
    found = Warehouse(store).read("daily_performance", DAY, as_="arrow")
    assert (published.rows, published.timeslices, published.troops) == (24, 120, 4)
    keys = [tuple(row[name] for name in DAILY_PERFORMANCE.key) for row in found.to_pylist()]
    assert keys == sorted(keys)
    assert len(set(keys)) == 24
    plain = Warehouse(store).query(
        "SELECT troop_id, warrior_id, data_group, sum(value) AS sum FROM performance_data GROUP BY ALL ORDER BY ALL",
        table="performance_data",
    )
    assert found["sum"].to_pylist() == pytest.approx(plain["sum"].tolist())


def test_a_day_without_data_is_published_empty(tmp_path: Path) -> None:
    """No troop, or only troops without rows, give an empty table that says so."""
    store = FolderStore(tmp_path)
    assert _publish(store).empty
    write_performance(store, DAY, "1", PERFORMANCE_DATA.schema.empty_table(), state="empty")
    assert _publish(store).empty
    metadata, _ = read_metadata(store, layout.table_key("daily_performance", DAY))
    assert metadata["state"] == "empty"


def test_other_readers_read_the_result_without_us(tmp_path: Path) -> None:
    """Plain DuckDB reads what was published, with the day from the path."""
    store = FolderStore(tmp_path)
    write_performance(store, DAY, "1", rows_of(slices([1.0, 3.0], window=WINDOW)))
    _publish(store)
    with duckdb.connect() as connection:
        files = f"{store.url}/processed/daily_performance/**/*.parquet"
        rows = connection.execute(
            "SELECT day, mean FROM read_parquet(?, hive_partitioning=true)", [files]
        ).fetchall()
    assert rows == [(DAY, 2.0)]
