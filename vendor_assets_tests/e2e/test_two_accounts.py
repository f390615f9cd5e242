"""The example project: two accounts of two vendors and an asset on top of each, harvested by two clicks."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

import vendor_assets
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.browser import DagsterPages, fresh_page
from vendor_assets_tests.support.dagster_dev import ROOT, DagsterDev, dagster_dev, project
from vendor_assets_tests.support.nginx import RunningNginx, nginx
from vendor_assets_tests.support.prometheus import RunningPrometheus, prometheus, require_prometheus
from vendor_assets_tests.support.prometheus_truth import direct_rows, values_of
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import Rows, harvested_rows, true_rows

PROD, LAB = "newrelic_prod", "prometheus_lab"
ASSETS = (
    "troops",
    "warriors",
    "data_groups",
    "performance_data",
    "daily_performance",
    "performance_report",
    "dead_letters",
    "slowest",
)
"""Those that have partitions."""


@dataclass
class TwoAccounts:
    """The running example and both of its vendors.

    Attributes:
        newrelic: The vendor of ``newrelic_prod``, which refuses what exceeds its quota.
        prometheus: The vendor of ``prometheus_lab``.
        judge: Stands before it and refuses what exceeds the quota.
        dev: The project.
    """

    newrelic: RunningSimulator
    prometheus: RunningPrometheus
    judge: RunningNginx
    dev: DagsterDev


@pytest.fixture
def example(tmp_path: Path, chrome: Browser) -> Iterator[TwoAccounts]:
    """A copy of the example with a real Prometheus; each quota is the one that its ``defs.yaml`` tells."""
    require_prometheus()
    folder = tmp_path / "two_accounts"
    shutil.copytree(ROOT / "examples" / "two_accounts", folder)
    with ExitStack() as stack:
        vendor = stack.enter_context(simulator(world="small", churn=False, limit="1000/min"))
        server = stack.enter_context(prometheus(days=1))
        judge = stack.enter_context(nginx(server.url, rate=20, burst=20))
        settings = {
            "NEWRELIC_URL": vendor.url,
            "NEWRELIC_PROD_KEY": KEY,
            "PROMETHEUS_URL": judge.url,
            "PYTHONPATH": f"{ROOT}:{folder / 'src'}",
        }
        command = ("dagster", "dev", "--module-name", "two_accounts.definitions")
        dev = stack.enter_context(dagster_dev(folder, project(folder, settings), *command))
        yield TwoAccounts(vendor, server, judge, dev)


def percentiles(rows: Rows) -> list[float]:
    """The ten largest 99th percentiles of all series."""
    series = defaultdict(list)
    for (*names, _start), value in rows.items():
        if value is not None and math.isfinite(value):
            series[tuple(names)].append(value)
    return sorted((float(np.quantile(values, 0.99)) for values in series.values()), reverse=True)[:10]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_clicks_harvest_two_accounts_side_by_side(
    example: TwoAccounts, chrome: Browser, pictures: Path
) -> None:
    """Both chains become green up to the project's own assets; each vendor's log has no refusal; values are true."""
    day = example.prometheus.days[-1]
    key = day.isoformat()
    with fresh_page(chrome) as page:
        ui = DagsterPages(page, example.dev.url, pictures)
        for account in (PROD, LAB):
            ui.partitions(f"{account}/troops")
            ui.materialize(key)
        for account in (PROD, LAB):
            for asset in ("slowest", "performance_report"):
                example.dev.wait_for(f"{account}/{asset}", {key: "green"}, seconds=600)
        ui.graph(2 * len(ASSETS), width=2400, height=2700)
        ui.picture("two_accounts")

    log = example.newrelic.log()
    assert log["violations"] == 0
    assert example.newrelic.calls(outcome="throttled") == 0
    assert set(example.judge.statuses()) == {200}

    stores = {account: FolderStore(example.dev.folder / "data" / account) for account in (PROD, LAB)}
    truth = true_rows(example.newrelic.world, day)
    assert harvested_rows(stores[PROD], day) == truth
    direct = direct_rows(example.prometheus, day)
    assert values_of(stores[LAB], day) == direct
    rows = {PROD: {names[:-1]: value for names, value in truth.items()}, LAB: direct}
    for account, store in stores.items():
        slowest = vendor_assets.read("slowest", key, store=store)
        assert list(slowest["p99"]) == pytest.approx(percentiles(rows[account]))
        for asset in ("warriors", "data_groups", "performance_data"):
            states = example.dev.partitions(f"{account}/{asset}")
            troops = vendor_assets.read("troops", key, store=store)["troop_key"]
            assert states == {f"{key}|{troop}": "green" for troop in troops}
