"""What an asset's page tells: numbers that are numbers, checked by the vendor's own log, and small pictures."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import read_table, write_table
from vendor_assets.tables import PERFORMANCE_DATA, TABLES
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday
from vendor_assets_tests.support.simulator import KEY, RunningSimulator
from vendor_assets_tests.support.truth import key_of

DAY = yesterday()
NUMBERS = {
    "dagster/row_count",
    "calls",
    "requests_made",
    "requests_reused",
    "retries",
    "throttled",
    "dead_letters",
    "body_bytes",
    "table_bytes",
    "paced_seconds",
    "seconds",
    "share_of_day_quota",
    "share_of_permitted_rate",
    "rate",
    "callers_waiting",
}


def materialization(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """Metadata of an asset's one materialization in a run."""
    (event,) = [
        item.step_materialization_data.materialization
        for item in result.all_events
        if item.is_step_materialization and item.asset_key == dg.AssetKey(asset)
    ]
    return {name: value.value for name, value in event.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {item.check_name: item for item in result.get_asset_check_evaluations()}


@pytest.fixture
def troop(deployment: Deployment, vendor: RunningSimulator) -> str:
    """Partition key of a troop of the day; the roster is there."""
    assert deployment.materialize("troops", partition=DAY.isoformat()).success
    key = key_of(vendor.world.troops_on(DAY, "UTC")[0])
    deployment.instance.add_dynamic_partitions("troop", [key])
    return key


def test_a_partition_tells_its_story(deployment: Deployment, vendor: RunningSimulator, troop: str) -> None:
    """Numbers are numeric and are those of the vendor's log; the picture is Markdown of a few kilobytes."""
    before = vendor.calls("data")
    result = deployment.materialize(*CHAIN, partition=f"{DAY}|{troop}")
    assert result.success
    found = materialization(result, "performance_data")
    for name in NUMBERS:
        assert isinstance(found[name], (int, float)), name
    assert found["calls"] == vendor.calls("data") - before
    permitted_a_day = 500 * deployment.account.share * 86_400
    assert found["share_of_day_quota"] == pytest.approx(found["calls"] / permitted_a_day, abs=1e-6)
    assert found["mode"] == "first"
    assert found["budget"]
    table = read_table(deployment.store, layout.table_key("performance_data", DAY, troop))
    assert found["dagster/row_count"] == table.num_rows
    groups = set(table.column("data_group").to_pylist())
    assert found["plot"].count("data:image/png;base64,") == min(8, len(groups))
    assert len(found["plot"]) < 30_000


def test_columns_name_where_they_come_from(deployment: Deployment, troop: str) -> None:
    """Every column of the lineage exists, on both sides, and the statistics lead back to the value."""
    deployment.materialize(*CHAIN, partition=f"{DAY}|{troop}")
    result = deployment.materialize("daily_performance", partition=DAY.isoformat())
    lineage = materialization(result, "daily_performance")["dagster/column_lineage"]
    assert set(lineage.deps_by_column) == set(TABLES["daily_performance"].schema.names)
    for deps in lineage.deps_by_column.values():
        for dep in deps:
            assert dep.column_name in TABLES[dep.asset_key.to_user_string()].schema.names
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage.deps_by_column["mean"]} == {
        ("performance_data", "value"),
        ("performance_data", "weight"),
    }


def test_a_published_day_shows_whom_it_lacks(
    deployment: Deployment, vendor: RunningSimulator, troop: str
) -> None:
    """Each troop of the roster is on the day's picture, those without data first, by name."""
    deployment.materialize(*CHAIN, partition=f"{DAY}|{troop}")
    picture = materialization(
        deployment.materialize("daily_performance", partition=DAY.isoformat()), "daily_performance"
    )["plot"]
    rows = [line for line in picture.splitlines() if "data:image/png" in line]
    assert len(rows) == len(vendor.world.troops_on(DAY, "UTC"))
    assert ["| 0.0% |" in row for row in rows] == [True] * (len(rows) - 1) + [False]


def test_a_day_costs_what_was_planned(deployment: Deployment, vendor: RunningSimulator) -> None:
    """Once the shape is known the roster tells the day's calls within 5 %, and the published day compares them."""
    before = DAY - timedelta(days=1)
    keys = {day: [key_of(troop) for troop in vendor.world.troops_on(day, "UTC")] for day in (before, DAY)}
    deployment.instance.add_dynamic_partitions("troop", sorted({*keys[before], *keys[DAY]}))
    for day, of_day in keys.items():
        roster = deployment.materialize("troops", partition=day.isoformat())
        at_first = vendor.calls()
        for key in of_day:
            assert deployment.materialize(*CHAIN, partition=f"{day}|{key}").success
        made = vendor.calls() - at_first
    planned = materialization(roster, "troops")
    assert planned["planned_calls"] == pytest.approx(made, rel=0.05)
    assert planned["planned_calls"] == sum(planned[f"planned_calls_{asset}"] for asset in CHAIN)
    assert planned["planned_from_lists_of"] == before.isoformat()
    assert planned["planned_seconds"] == pytest.approx(made / 400, rel=0.1)
    assert checks(roster)["within_quota"].passed
    published = deployment.materialize("daily_performance", partition=DAY.isoformat())
    found = materialization(published, "daily_performance")
    assert found["calls_made"] == made
    assert found["calls_made_of_planned"] == pytest.approx(1, abs=0.05)


def test_a_day_that_needs_more_than_the_quota_warns(
    deployment: Deployment, vendor: RunningSimulator, tmp_path: Path
) -> None:
    """Before a call is made for it: which troops are the largest, and what to change."""
    slow = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "1/h", "VENDOR_SHARE": "1"}
    starved = deploy(tmp_path / "starved", deployment.instance, **slow)
    roster = starved.materialize("troops", partition=DAY.isoformat())
    assert roster.success
    check = checks(roster)["within_quota"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "the quota gives 24 a day" in str(check.description)
    assert any(troop.name in str(check.description) for troop in vendor.world.troops_on(DAY, "UTC"))


def test_a_day_with_a_row_twice_is_not_published(deployment: Deployment, troop: str) -> None:
    """A wrong sum is worse than none: the check names the partition, no table is written, no report follows."""
    deployment.materialize(*CHAIN, partition=f"{DAY}|{troop}")
    key = layout.table_key("performance_data", DAY, troop)
    table = read_table(deployment.store, key)
    write_table(deployment.store, key, pa.concat_tables([table, table.slice(3, 2)]), PERFORMANCE_DATA)
    result = deployment.materialize("daily_performance", "performance_report", partition=DAY.isoformat())
    assert not result.success
    check = checks(result)["grain_unique"]
    assert not check.passed
    assert f"2 in performance_data of {troop}" in (check.description or "")
    assert deployment.store.head(layout.table_key("daily_performance", DAY)) is None
    assert deployment.store.head(layout.report_key(DAY, "html")) is None


def test_impossible_values_warn(deployment: Deployment, troop: str) -> None:
    """A negative duration is named, with where it was seen; the day is published, since it may be the vendor's."""
    deployment.materialize(*CHAIN, partition=f"{DAY}|{troop}")
    assert checks(deployment.materialize("daily_performance", partition=DAY.isoformat()))["plausible"].passed
    key = layout.table_key("performance_data", DAY, troop)
    rows = read_table(deployment.store, key).to_pylist()
    bad = next(row for row in rows if row["value_name"] == "average_response_time")
    bad["value"] = -12.5
    write_table(
        deployment.store, key, pa.Table.from_pylist(rows, schema=PERFORMANCE_DATA.schema), PERFORMANCE_DATA
    )
    result = deployment.materialize("daily_performance", partition=DAY.isoformat())
    assert result.success
    check = checks(result)["plausible"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert f"average_response_time is below 0 in 1 series, like -12.5 in {bad['troop_id']}" in str(
        check.description
    )
