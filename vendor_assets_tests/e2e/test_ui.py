"""The whole chain, seen and clicked in a browser; what is seen is checked by what Dagster's own interface says."""

from __future__ import annotations

import re
from datetime import date

import pytest
from playwright.sync_api import expect

from vendor_assets.orchestration.runs.about import DAY_TAG, TRIGGER_TAG
from vendor_assets_tests.e2e.conftest import HARVESTED, Project, day
from vendor_assets_tests.support.dagster_dev import DagsterDev
from vendor_assets_tests.support.truth import id_of, key_of

ASSETS = (
    "troops",
    "warriors",
    "data_groups",
    "performance_data",
    "daily_performance",
    "performance_report",
    "backlog",
    "dead_letters",
)


def green(running: Project, of: str) -> dict[str, str]:
    """What a day's partitions by troop look like when all is well."""
    troops = running.vendor.world.troops_on(date.fromisoformat(of), "UTC")
    return {f"{of}|{key_of(troop)}": "green" for troop in troops}


def of_day(dev: DagsterDev, asset: str, wanted: str) -> dict[str, str]:
    """States of a day's partitions."""
    return {key: state for key, state in dev.partitions(asset).items() if key.startswith(wanted)}


def test_the_graph_shows_the_whole_chain(running: Project) -> None:
    """All assets stand on one picture, what the command harvested among them."""
    running.ui.graph(len(ASSETS) - 1)  # The backlog has no partitions.
    for asset in ASSETS:
        expect(running.ui.page.get_by_text(asset, exact=True).last).to_be_visible()
    running.ui.picture("asset_graph")
    running.ui.asset("performance_data")
    running.ui.picture("asset_page")
    for harvested in HARVESTED:
        assert of_day(running.dev, "performance_data", harvested) == green(running, harvested)


def test_the_report_shows_its_plot(running: Project) -> None:
    """A day's report carries its plot as a picture that the page really draws."""
    running.ui.partitions("performance_report", HARVESTED[-1])
    running.ui.page.get_by_text("Show Markdown").first.click()
    plot = running.ui.page.get_by_role("dialog").locator("img")
    plot.wait_for()
    assert plot.evaluate("image => image.complete && image.naturalWidth") > 400
    box, dialog = plot.bounding_box(), running.ui.page.get_by_role("dialog").bounding_box()
    assert box
    assert dialog
    assert box["width"] <= dialog["width"]
    running.ui.picture("report_plot")


@pytest.mark.long
def test_the_report_opens_in_a_browser(running: Project) -> None:
    """The HTML beside the tables is whole by itself: its plots are drawn without a server or a network."""
    page = running.ui.page
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    report = running.dev.folder / "data" / "reports" / f"day={HARVESTED[-1]}" / "performance_report.html"
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", name=re.compile("^Performance of "))).to_be_visible()
    drawn = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(drawn) >= 2
    assert min(drawn) > 400
    assert not failed
    running.ui.picture("report")


def test_a_click_on_the_roster_brings_the_whole_day(running: Project) -> None:
    """Materializing one partition of troops by hand turns every partition of that day green by the sensors alone."""
    yesterday = day(1)
    running.ui.partitions("troops")
    running.ui.materialize(yesterday)
    running.dev.wait_for("troops", {yesterday: "green"})
    for asset in ("warriors", "data_groups", "performance_data"):
        running.dev.wait_for(asset, green(running, yesterday))
    for asset in ("daily_performance", "performance_report"):
        running.dev.wait_for(asset, {yesterday: "green"})
    runs = running.dev.runs(**{TRIGGER_TAG: "sensor", DAY_TAG: yesterday})
    assert sorted(run["jobName"] for run in runs) == ["harvest", "publish"]
    running.ui.partitions("performance_data", *next(iter(green(running, yesterday))).split("|"))
    running.ui.picture("partitions")


@pytest.mark.long
def test_a_backfill_from_the_dialog(running: Project) -> None:
    """A backfill over days and troops fetches exactly those partitions anew."""
    chosen = sorted(green(running, HARVESTED[0]))[:2]
    troops = [key.partition("|")[2] for key in chosen]
    wanted = sorted(f"{harvested}|{troop}" for harvested in HARVESTED for troop in troops)
    before = {key: len(running.dev.materializations("performance_data", key)) for key in green_of(running)}
    running.ui.partitions("performance_data")
    running.ui.materialize(f"[{HARVESTED[0]}...{HARVESTED[-1]}]", troops)
    (backfill,) = running.dev.wait("a backfill", running.dev.backfills)
    assert sorted(backfill["partitionNames"]) == wanted

    def over() -> bool:
        return running.dev.backfills()[0]["status"] not in ("REQUESTED", "CANCELING")

    running.dev.wait("the backfill is over", over)
    assert running.dev.backfills()[0]["status"] == "COMPLETED_SUCCESS"
    for key, count in before.items():
        now = running.dev.materializations("performance_data", key)
        assert len(now) == count + (key in wanted)
        if key in wanted:
            assert now[0]["mode"] == "replace"


def green_of(running: Project) -> list[str]:
    """Every partition that the command harvested."""
    return [key for harvested in HARVESTED for key in green(running, harvested)]


@pytest.mark.long
def test_a_failing_troop_shows_failed_until_it_is_redriven(running: Project) -> None:
    """Only the troop whose data the vendor refused is red; a click on it after the fault asks for what is missing."""
    wanted = day(6)
    bad = min(green(running, wanted))
    troop = bad.partition("|")[2]
    running.vendor.faults(
        [{"kind": "status", "status": 400, "match": f"/applications/{id_of(troop)}/hosts/.*data.json"}]
    )
    running.ui.partitions("troops")
    running.ui.materialize(wanted)
    expected = green(running, wanted) | {bad: "failed"}
    assert (
        of_day(running.dev, "performance_data", wanted).items()
        <= running.dev.wait_for("performance_data", expected).items()
    )
    assert of_day(running.dev, "performance_data", wanted) == expected
    assert of_day(running.dev, "data_groups", wanted) == green(running, wanted)
    running.ui.partitions("performance_data", wanted, troop)
    running.ui.picture("failed_partition")
    running.ui.page.get_by_text("View logs").click()
    why = re.compile(r"dead letters, first GET .* the vendor rejects the request \(status 400\)")
    expect(running.ui.page.get_by_role("dialog").get_by_text(why).last).to_be_visible()
    running.ui.picture("failed_why")
    running.ui.page.get_by_role("button", name="Done").click()
    (letters,) = running.dev.wait(
        "the dead letters are observed", lambda: running.dev.observations("dead_letters", wanted)
    )
    assert letters["dead_letters"] == letters["permanent"] > 0
    running.ui.events("dead_letters")
    expect(running.ui.page.get_by_text("the vendor rejects the request").first).to_be_visible()
    running.ui.picture("dead_letters")
    running.ui.partitions("performance_data", wanted, troop)
    running.vendor.clear_faults()
    calls = running.vendor.calls("data")
    running.ui.materialize()
    running.dev.wait_for("performance_data", {bad: "green"})
    (redriven, *_) = running.dev.materializations("performance_data", bad)
    assert redriven["mode"] == "redrive"
    assert running.vendor.calls("data") - calls == redriven["calls"]
    (after, *_) = running.dev.wait(
        "the redrive is observed", lambda: running.dev.observations("dead_letters", wanted)[:-1]
    )
    assert after["dead_letters"] == 0
    # Of what hangs on it, only what is not there yet follows.
    assert of_day(running.dev, "performance_data", wanted) == green(running, wanted)
