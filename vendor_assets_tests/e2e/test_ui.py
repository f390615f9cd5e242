"""The whole chain, seen and clicked in a browser."""

from __future__ import annotations

from datetime import date

from vendor_assets_tests.e2e.conftest import Project, day


def test_a_click_on_the_roster_brings_the_whole_day(running: Project) -> None:
    """Materializing one partition of troops by hand turns every partition of that day green by the sensors alone."""
    yesterday = day(1)
    running.ui.asset("troops", "partitions")
    running.ui.materialize(yesterday)
    running.dev.wait_for("troops", {yesterday: "green"})
    troops = {
        f"{yesterday}|{troop.id}": "green"
        for troop in running.vendor.world.troops_on(date.fromisoformat(yesterday), "UTC")
    }
    for asset in ("warriors", "data_groups", "performance_data"):
        running.dev.wait_for(asset, troops)
    for asset in ("daily_performance", "performance_report"):
        running.dev.wait_for(asset, {yesterday: "green"})
    assert all(run["status"] == "SUCCESS" for run in running.dev.runs(vendor_assets__trigger="sensor"))
    running.ui.asset("performance_data", "partitions")
    running.ui.picture("partitions")
