"""Assets of one's own on top of the harvest, through the IO manager: a folder and a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from botocore import UNSIGNED
from dagster_aws.s3 import S3Resource

import vendor_assets
from vendor_assets.orchestration.io_managers import ParquetIOManager
from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.orchestration.s3 import S3StoreResource
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import read_table, write_table
from vendor_assets.tables import DAILY_PERFORMANCE, PERFORMANCE_DATA
from vendor_assets_tests.support.s3 import RunningS3

DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-05")
TROOPS = dg.StaticPartitionsDefinition(["1", "2"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "troop": TROOPS})
FIRST, SECOND = date(2026, 11, 1), date(2026, 11, 2)


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clean_aws_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[StoreResource]:
    """A store resource over either place."""
    if request.param == "folder":
        yield StoreResource(url=str(tmp_path / "store"))
        return
    server: RunningS3 = request.getfixturevalue("s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield S3StoreResource(
        url=f"s3://{server.make_bucket()}/lake", s3=S3Resource(endpoint_url=server.endpoint)
    )


def values(*numbers: float) -> pa.Table:
    """Performance data of one warrior, one value an hour."""
    columns: dict[str, list[Any]] = {field.name: [] for field in PERFORMANCE_DATA.schema}
    for hour, number in enumerate(numbers):
        row = {
            "troop_id": "t",
            "warrior_id": "w",
            "data_group": "g",
            "value_name": "v",
            "value": number,
            "weight": None,
        }
        row |= {"timeslice_start": hour * 3_600_000_000, "timeslice_end": (hour + 1) * 3_600_000_000}
        for name, held in columns.items():
            held.append(row[name])
    return pa.table(columns, schema=PERFORMANCE_DATA.schema)


def put(store: StoreResource, day: date, troop: str, *numbers: float) -> None:
    write_table(
        store.open(), layout.table_key("performance_data", day, troop), values(*numbers), PERFORMANCE_DATA
    )


def materialize(store: StoreResource, *assets: Any, **arguments: Any) -> dg.ExecuteInProcessResult:
    upstream = dg.AssetSpec("performance_data", partitions_def=BOTH)
    return dg.materialize(
        [*assets, upstream],
        selection=[asset.key for asset in assets],
        resources={"io_manager": ParquetIOManager(store=store)},
        **arguments,
    )


def failure_of(run: dg.ExecuteInProcessResult) -> str:
    """What the one failed step said."""
    assert not run.success
    (data,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    return str(data.user_failure_data or data.error)


def test_one_partition_as_pandas(store: StoreResource) -> None:
    """Without an annotation an asset gets a DataFrame, with day and troop from the path."""
    put(store, FIRST, "1", 1.0, 2.0)

    @dg.asset(partitions_def=BOTH)
    def mine(performance_data: pd.DataFrame) -> pd.DataFrame:
        assert set(performance_data["day"]) == {FIRST}
        assert set(performance_data["troop"]) == {"1"}
        return performance_data[["value"]] * 2

    assert materialize(store, mine, partition_key="2026-11-01|1").success
    stored = read_table(store.open(), layout.table_key("mine", FIRST, "1"))
    assert stored.column("value").to_pylist() == [2.0, 4.0]


def test_all_troops_of_a_day_as_arrow(store: StoreResource) -> None:
    """A day's asset on top of day × troop gets the rows of all troops in one table."""
    put(store, FIRST, "1", 1.0)
    put(store, FIRST, "2", 10.0, 20.0)

    @dg.asset(partitions_def=DAYS)
    def mine(performance_data: pa.Table) -> pa.Table:
        assert isinstance(performance_data, pa.Table)
        return pa.table({"total": [sum(performance_data.column("value").to_pylist())]})

    assert materialize(store, mine, partition_key=FIRST.isoformat()).success
    assert read_table(store.open(), layout.table_key("mine", FIRST)).to_pylist() == [{"total": 31.0}]


def test_a_missing_partition_fails_clearly(store: StoreResource) -> None:
    """What is not there is named, with what to do; no part of the rest is taken for the whole."""
    put(store, FIRST, "1", 1.0)

    @dg.asset(partitions_def=DAYS)
    def mine(performance_data: pd.DataFrame) -> pd.DataFrame:
        return performance_data

    run = materialize(store, mine, partition_key=FIRST.isoformat(), raise_on_error=False)
    assert "1 of 2 partitions are not there: 2026-11-01|2" in failure_of(run)


def test_a_chain_of_own_assets(store: StoreResource) -> None:
    """What one asset writes the next one reads, also without partitions, with what it was grouped by."""

    @dg.asset
    def numbers() -> pd.DataFrame:
        return pd.DataFrame({"kind": ["a", "a", "b"], "number": [1, 2, 3]}).groupby("kind").sum()

    @dg.asset
    def total(numbers: pd.DataFrame) -> pd.DataFrame:
        assert numbers["kind"].tolist() == ["a", "b"]
        return pd.DataFrame({"total": [int(numbers["number"].sum())]})

    assert dg.materialize([numbers, total], resources={"io_manager": ParquetIOManager(store=store)}).success
    assert read_table(store.open(), layout.table_key("total")).to_pylist() == [{"total": 6}]


def test_what_was_loaded_can_be_returned_and_loaded_again(store: StoreResource) -> None:
    """Day and troop, which loading adds, may stay in what an asset returns: they come back once."""
    put(store, FIRST, "1", 1.0)

    @dg.asset(partitions_def=BOTH)
    def mine(performance_data: pd.DataFrame) -> pd.DataFrame:
        return performance_data.assign(day=pd.to_datetime(performance_data["day"]))

    seen: list[pa.Table] = []

    @dg.asset(partitions_def=BOTH)
    def on_top(mine: pa.Table) -> None:
        seen.append(mine)

    assert materialize(store, mine, on_top, partition_key="2026-11-01|1").success
    assert seen[0].column_names == [*PERFORMANCE_DATA.schema.names, "day", "troop"]
    assert seen[0].select(["day", "troop"]).to_pylist() == [{"day": FIRST, "troop": "1"}]
    assert "day" not in read_table(store.open(), layout.table_key("mine", FIRST, "1")).column_names


def test_what_was_read_can_be_returned_beside_days_of_texts(store: StoreResource) -> None:
    """What reads as categories is kept like that; with older days, which have texts, it is loaded as texts."""
    put(store, SECOND, "1", 1.0)
    place = store.open()

    @dg.asset(partitions_def=DAYS)
    def mine(context) -> pd.DataFrame:  # type: ignore[no-untyped-def]  # noqa: ANN001  annotations are texts here
        if context.partition_key == FIRST.isoformat():
            return pd.DataFrame({"troop_id": ["old"], "value": [0.0]})
        found: pd.DataFrame = vendor_assets.read("performance_data", SECOND, store=place)
        return found[["troop_id", "value", "day"]]

    both = dg.SpecificPartitionsPartitionMapping([FIRST.isoformat(), SECOND.isoformat()])
    seen: list[pd.DataFrame] = []

    @dg.asset(ins={"mine": dg.AssetIn(partition_mapping=both)})
    def on_top(mine: pd.DataFrame) -> None:
        seen.append(mine)

    for day in (FIRST, SECOND):
        assert materialize(store, mine, partition_key=day.isoformat()).success
    resources = {"io_manager": ParquetIOManager(store=store)}
    assert dg.materialize([on_top, dg.AssetSpec("mine", partitions_def=DAYS)], resources=resources).success
    assert seen[0]["troop_id"].tolist() == ["old", "t"]
    assert vendor_assets.read("mine", SECOND, store=place)["troop_id"].dtype == "category"


def test_a_day_of_ones_own_is_not_lost(store: StoreResource) -> None:
    """A column named like a partition that says otherwise is refused, not dropped."""

    @dg.asset(partitions_def=DAYS)
    def mine() -> pd.DataFrame:
        return pd.DataFrame({"day": ["Sunday"], "value": [1.0]})

    run = dg.materialize(
        [mine],
        resources={"io_manager": ParquetIOManager(store=store)},
        partition_key=FIRST.isoformat(),
        raise_on_error=False,
    )
    assert "column day holds Sunday" in failure_of(run)
    assert store.open().head(layout.table_key("mine", FIRST)) is None


def test_what_is_no_table_is_refused_clearly(store: StoreResource) -> None:
    """An asset that returns something else hears what to return."""

    @dg.asset
    def mine() -> list[int]:
        return [1]

    run = dg.materialize(
        [mine], resources={"io_manager": ParquetIOManager(store=store)}, raise_on_error=False
    )
    assert "return a pandas DataFrame or a pyarrow Table" in failure_of(run)


def test_other_partitions_are_refused_clearly(store: StoreResource) -> None:
    """What has no place in the layout says so."""

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["north"]))
    def mine() -> pd.DataFrame:
        return pd.DataFrame({"value": [1.0]})

    run = dg.materialize(
        [mine],
        resources={"io_manager": ParquetIOManager(store=store)},
        partition_key="north",
        raise_on_error=False,
    )
    assert "'north' is neither a day nor a day and a troop" in failure_of(run)


def test_partitions_whose_columns_differ_fit_together(store: StoreResource) -> None:
    """A column that the vendor added later is null in the older partitions."""
    put(store, FIRST, "1", 1.0)
    later = values(2.0).append_column("region", pa.array(["eu"]))
    write_table(store.open(), layout.table_key("performance_data", FIRST, "2"), later, PERFORMANCE_DATA)

    @dg.asset(partitions_def=DAYS)
    def mine(performance_data: pa.Table) -> pa.Table:
        return performance_data.select(["value", "region", "troop"])

    assert materialize(store, mine, partition_key=FIRST.isoformat()).success
    assert read_table(store.open(), layout.table_key("mine", FIRST)).to_pylist() == [
        {"value": 1.0, "region": None, "troop": "1"},
        {"value": 2.0, "region": "eu", "troop": "2"},
    ]


def test_a_range_of_days(store: StoreResource) -> None:
    """A run over several partitions loads all of them, each row with its own day."""
    for day, count in ((FIRST, 1), (SECOND, 2)):
        row = dict.fromkeys(DAILY_PERFORMANCE.schema.names)
        row |= {"troop_id": "t", "warrior_id": "w", "data_group": "g", "timeslices": count}
        row |= {"covered_share": 1.0, "troops_missing": 0}
        rows = [row | {"value_name": f"v{number}"} for number in range(count)]
        table = pa.Table.from_pylist(rows, schema=DAILY_PERFORMANCE.schema)
        write_table(store.open(), layout.table_key("daily_performance", day), table, DAILY_PERFORMANCE)
    seen: list[dict[str, Any]] = []

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def mine(daily_performance: pa.Table) -> None:
        seen.extend(daily_performance.select(["day", "value_name"]).to_pylist())

    run = dg.materialize(
        [mine, dg.AssetSpec("daily_performance", partitions_def=DAYS)],
        selection=[mine.key],
        resources={"io_manager": ParquetIOManager(store=store)},
        tags={
            "dagster/asset_partition_range_start": "2026-11-01",
            "dagster/asset_partition_range_end": "2026-11-02",
        },
    )
    assert run.success
    assert seen == [
        {"day": FIRST, "value_name": "v0"},
        {"day": SECOND, "value_name": "v0"},
        {"day": SECOND, "value_name": "v1"},
    ]


def test_the_client_of_a_store_keeps_enough_connections(clean_aws_environment: None) -> None:
    """A client by Dagster's resource has its settings, and keeps a connection for each thread of a run."""
    resource = S3Resource(
        region_name="eu-central-1",
        endpoint_url="http://127.0.0.1:1",
        max_attempts=7,
        use_unsigned_session=True,
        verify=False,
    )
    store = S3StoreResource(url="s3://a-bucket/lake", s3=resource).open()
    client, its_own = store._bucket._client, resource.get_client()  # type: ignore[attr-defined]
    for name in ("endpoint_url", "region_name"):
        assert getattr(client.meta, name) == getattr(its_own.meta, name)
    assert client.meta.config.retries == its_own.meta.config.retries
    assert client.meta.config.signature_version is UNSIGNED
    assert client.meta.config.max_pool_connections >= 64
