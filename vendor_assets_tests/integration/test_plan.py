"""``plan`` against what the embedded vendor then really counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=1)
TROOP = "200000000"


def settings(vendor: RunningSimulator, **more: str) -> dict[str, str]:
    return {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"} | more


@pytest.mark.long
def test_a_plan_is_what_the_vendor_counts(tmp_path: Path) -> None:
    """Once a day is known, the next one's calls are foretold within 5 %: partly landed, filtered, or long ago."""
    with simulator(world="small", churn=False) as vendor:
        # At a minute a day is eight ranges; of one older than eight days the vendor keeps hours: one range.
        command = Command(tmp_path, settings(vendor, VENDOR_ASSETS_RESOLUTION="60"))
        unknown = command.run("plan", "--day", DAY.isoformat())
        assert unknown.code == 0, unknown.err
        assert "nothing: harvest one day first, like vendor-assets harvest --day" in unknown.out
        first = (DAY - timedelta(days=1)).isoformat()
        assert command.run("harvest", "--no-report", "--day", first, "--json").code == 0

        cases = [
            ("the whole day", DAY, {}, ()),
            ("long ago", TODAY - timedelta(days=20), {}, ()),
            (
                "one troop",
                DAY - timedelta(days=2),
                {"VENDOR_ASSETS_WARRIORS": "!*00200000"},
                ("--troop", TROOP),
            ),
            ("the rest of that day", DAY - timedelta(days=2), {}, ()),
        ]
        for name, day, filters, options in cases:
            running = Command(tmp_path, settings(vendor, VENDOR_ASSETS_RESOLUTION="60", **filters))
            plan = running.run("plan", "--day", day.isoformat(), *options, "--json").json
            vendor.reset()
            harvested = running.run("harvest", "--no-report", "--day", day.isoformat(), *options, "--json")
            assert harvested.code == 0, harvested.err
            calls = vendor.calls()
            assert abs(plan["calls"] - calls) <= 0.05 * calls, (name, plan, calls)
            assert harvested.json["calls_planned"] == plan["calls"], name
            assert (plan["saved_by_filters"] > 0) == bool(filters), name
        again = command.run("plan", "--day", day.isoformat(), "--json").json
        assert (again["calls"], again["answered"]) == (0, plan["calls"] + plan["answered"])


def test_pages_of_lists_are_planned_and_a_small_quota_is_said_aloud(tmp_path: Path) -> None:
    """Lists that come in pages cost their pages; a day that the quota cannot give names what to change."""
    with simulator(world="small", churn=False, page_size=2) as vendor:
        command = Command(tmp_path, settings(vendor))
        first = (DAY - timedelta(days=1)).isoformat()
        assert command.run("harvest", "--no-report", "--day", first, "--json").code == 0
        plan = command.run("plan", "--day", DAY.isoformat(), "--json").json
        assert plan["quota_warning"] is None
        vendor.reset()
        assert command.run("harvest", "--no-report", "--day", DAY.isoformat(), "--json").code == 0
        calls = vendor.calls()
        assert abs(plan["calls"] - calls) <= 0.05 * calls

        poor = Command(tmp_path, settings(vendor, VENDOR_RATE="20/day"))
        said = poor.run("plan", "--day", DAY.isoformat())
        assert said.code == 0
        assert f"warning: a day needs {calls:,} calls, the quota gives 16 a day" in said.out
        assert "VENDOR_ASSETS_TROOPS" in said.out
        wrong = command.run("plan", "--troop", "nobody")
        assert (wrong.code, wrong.err.count("\n")) == (2, 1)
        assert "troop 'nobody' is not on the roster" in wrong.err
