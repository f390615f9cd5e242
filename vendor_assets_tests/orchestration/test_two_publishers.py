"""Two runs publish one day at once, like one that was marked as canceled and goes on, and the one that follows it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vendor_assets.analytics import report, sources
from vendor_assets.orchestration.assets import publishing
from vendor_assets.orchestration.assets.publishing import publish_day, publish_report
from vendor_assets.simulator.world import World
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets_tests.support.analysis import write_world_day
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday

DAY = yesterday()
WORLD = World.preset("small", churn=False)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment whose vendor is not asked."""
    monkeypatch.setenv("VENDOR_API_KEY", "k")
    settings = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k", "VENDOR_RATE": "9/s"}
    with dg.DagsterInstance.ephemeral() as instance:
        yield deploy(tmp_path, instance, **settings)


def publish(it: Deployment) -> dg.MaterializeResult[Any]:
    (*_, result) = publish_day(it.store, DAY, it.account, it.instance)
    assert isinstance(result, dg.MaterializeResult)
    return result


def test_statistics_are_of_the_newest_tables(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever read older tables than the other run, and ends last, begins anew."""
    last = WORLD.troops_on(DAY, "UTC")[-1].id
    write_world_day(deployment.store, WORLD, DAY, without=[last])
    statistics, meanwhile = publishing.compared, [True]

    def late(*read: Any) -> Any:
        # Which troops there are is known by now.
        if meanwhile and meanwhile.pop():
            write_world_day(deployment.store, WORLD, DAY)
            assert (publish(deployment).metadata or {})["troops_missing"] == 0
        return statistics(*read)

    monkeypatch.setattr(publishing, "compared", late)
    assert (publish(deployment).metadata or {})["troops_missing"] == 0
    table = read_table(deployment.store, layout.table_key("daily_performance", DAY))
    assert set(table.column("troops_missing").to_pylist()) == {0}


def test_a_report_is_of_the_newest_statistics(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of the page."""
    write_world_day(deployment.store, WORLD, DAY)
    meanwhile = [True]

    def render(store: ObjectStore, day: date, timezone: str = "UTC", *, sources: str = "") -> report.Report:
        if meanwhile and meanwhile.pop():
            publish(deployment)
            publish_report(store, day, deployment.account.zone)
        return report.Report(b"{}", b'<meta name="sources" content="%s">' % sources.encode(), b"", {})

    monkeypatch.setattr(report, "render_report", render)
    monkeypatch.setattr(publishing, "metadata_of_report", lambda *_: {})
    publish_report(deployment.store, DAY, deployment.account.zone)
    now = sources.of_report(deployment.store, DAY, {"zone": deployment.account.zone.key})
    assert sources.kept_by_report(deployment.store, DAY) == now
