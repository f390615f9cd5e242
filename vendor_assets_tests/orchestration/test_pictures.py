"""Pictures of a partition and of a day, and what a day was expected to cost: small, right, and never in the way."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from vendor_assets.account import Account
from vendor_assets.days import Window, day_window
from vendor_assets.harvest.costs import DayPlan
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.orchestration.assets import pictures
from vendor_assets.orchestration.assets.estimates import compared, metadata_of_plan
from vendor_assets.orchestration.assets.pictures import MOST_LINES, picture_of, troops_picture
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import day_troop_key
from vendor_assets.settings import read
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.analysis import rows_of, slices, write_performance

DAY = date(2026, 11, 20)
ZONE = ZoneInfo("UTC")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def written(store: FolderStore, items: list[dict[str, object]]) -> Outcome:
    table = rows_of(items)
    key = write_performance(store, DAY, "1", table)
    return Outcome("performance_data", DAY, "1", "complete", rows=table.num_rows, table_key=key)


def lines(found: dict[str, dg.MarkdownMetadataValue]) -> list[list[str]]:
    text = found["plot"].md_str
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in text.splitlines()
        if "data:image" in line
    ]
    return [[re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), cell) for cell in row[:3]] for row in rows]


def test_the_busiest_data_groups_are_drawn(store: FolderStore) -> None:
    """A picture names the data groups with the most calls first, each with an average rather than an extreme."""
    window = day_window(DAY, ZONE)
    rows = []
    for number in range(MOST_LINES + 3):
        for name, value in (("max_time", 9.0), ("average_time", float(number))):
            weights = [number] * 48
            group = {"data_group": f"Group {number}", "value_name": name}
            rows += slices([value] * 48, window=window, weights=weights, **group)
    found = picture_of(store, written(store, rows), ZONE)
    drawn = lines(found)
    assert [row[0] for row in drawn] == [f"Group {number}" for number in range(10, 2, -1)]
    assert {row[1] for row in drawn} == {"average_time"}
    assert [row[2] for row in drawn] == [str(number) for number in range(10, 2, -1)]
    assert "3 more data groups" in found["plot"].md_str


def test_what_is_not_a_number_is_no_mean(store: FolderStore) -> None:
    """Nulls, NaN and infinities are left out of the mean; a series of nothing else says none."""
    window = day_window(DAY, ZONE)
    rows = [
        *slices([1.0, None, float("nan"), 3.0], window=window, data_group="some"),
        *slices([None, float("inf")], window=window, data_group="none at all"),
    ]
    assert {row[0]: row[2] for row in lines(picture_of(store, written(store, rows), ZONE))} == {
        "some": "2",
        "none at all": "none",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "partial"},
        {"mode": "report"},
        {"rows": 0},
        {"rows": pictures.MOST_ROWS + 1},
        {"table_key": "gone"},
    ],
)
def test_a_picture_is_never_in_the_way(store: FolderStore, changes: dict[str, Any]) -> None:
    """Of what failed, was made before, is empty, very large or not there, there is no picture, and nothing fails."""
    outcome = written(store, slices([1.0], window=day_window(DAY, ZONE)))
    assert picture_of(store, outcome, ZONE)
    assert picture_of(store, replace(outcome, **changes), ZONE) == {}


@pytest.mark.parametrize(("minutes", "parts"), [(1, 96), (30, 48), (60, 24), (2000, 1)])
def test_values_lie_where_their_time_is(minutes: int, parts: int) -> None:
    """A day has as many parts as timeslices fit, 96 at most, and each value is in the part in which it starts."""
    start = datetime(2026, 11, 20, tzinfo=UTC)
    window = Window(start, start + timedelta(days=1))
    series = [(start + timedelta(minutes=minutes) * n, float(n)) for n in range(max(2, 1440 // minutes))]
    inside = [(at, value) for at, value in series if at < window.end]
    found = pictures._along(series, window)
    assert len(found) == (parts if len(inside) > 1 else round(1440 / minutes) or 1)
    assert found[0] is not None
    step = window.seconds / len(found)
    for at, value in (inside[0], inside[-1]):
        index = min(int((at - start).total_seconds() / step), len(found) - 1)
        assert found[index] is not None
        assert abs((found[index] or 0.0) - value) <= max(1, 1440 // minutes // len(found))


def test_troops_with_the_largest_gaps_come_first() -> None:
    """The table of a day begins with what is least covered, and counts what it leaves out."""
    troops = [(f"t{number}", 2, 5, number / 100) for number in range(60)]
    text = troops_picture(reversed(troops)).md_str
    assert re.findall(r"^\| (t\d+) ", text, re.MULTILINE) == [f"t{number}" for number in range(40)]
    assert "20 more troops" in text
    assert "39.0%" in text
    assert "more troops" not in troops_picture(troops[:40]).md_str


def plan(**changes: Any) -> DayPlan:
    calls = {"troops": 0, "warriors": 2, "data_groups": 3, "performance_data": 15}
    fields: dict[str, Any] = {
        "roster_from": DAY,
        "shape_from": DAY,
        "troops": 2,
        "unknown": 0,
        "left_out": 0,
        "calls": calls,
        "done": dict.fromkeys(calls, 1),
        "saved": 0,
        "by_troop": {},
        "whole_by_key": {},
        "to_come": {},
        "per_call": {},
    }
    return DayPlan(DAY, **fields | changes)


def account(folder: Path, rate: str) -> Account:
    return read({"VENDOR_RATE": rate, "VENDOR_SHARE": "1"}, root=folder)


def test_a_plan_is_told_with_its_roster(tmp_path: Path) -> None:
    """Calls to come and those answered, the time they take by the slowest limit, and whether it is known or guessed."""
    now = datetime(2026, 11, 21, tzinfo=UTC)
    found = metadata_of_plan(plan(), account(tmp_path, "6/min,1728/day"), now)
    assert (found["planned_calls"], found["planned_calls_performance_data"], found["planned_reused"]) == (
        20,
        15,
        4,
    )
    # 1,728 a day are spent as they come, up to a day's in an hour: the limit by the minute is what takes time.
    assert found["planned_seconds"] == pytest.approx(200, abs=1)
    assert found["planned_share_of_day_quota"] == round(24 / 1728, 4)
    assert found["planned_finish"].value == pytest.approx((now + timedelta(seconds=200)).timestamp(), abs=1)
    unknown = metadata_of_plan(plan(shape_from=None), account(tmp_path, "auto"), now)
    assert unknown["planned_from_lists_of"] == "no day yet: a guess"
    assert not {"planned_seconds", "planned_finish"} & unknown.keys()


def test_what_a_day_cost_is_compared_with_what_was_said() -> None:
    """Calls of the day's own troops since its roster count, of failed ones too; earlier days and calls do not."""
    with dg.DagsterInstance.ephemeral() as instance:
        assert compared(instance, Names(), DAY, ["1"]) == {}

        def report(asset: str, key: str, *, failed: bool = False, **metadata: Any) -> None:
            kind = dg.AssetObservation if failed else dg.AssetMaterialization
            instance.report_runless_asset_event(kind(dg.AssetKey(asset), partition=key, metadata=metadata))

        first = str(day_troop_key(DAY, "1"))
        report("warriors", first, calls=1000)
        report("troops", DAY.isoformat(), planned_calls=20)
        report("warriors", first, calls=1)
        report("performance_data", first, calls=17)
        report("performance_data", str(day_troop_key(DAY, "2")), failed=True, calls=7)
        report("performance_data", str(day_troop_key(DAY + timedelta(days=1), "1")), calls=500)
        report("data_groups", first, rows=3)
        assert compared(instance, Names(), DAY, ["1", "2"]) == {
            "planned_calls": 20,
            "calls_made": 25,
            "calls_made_of_planned": 1.25,
        }
