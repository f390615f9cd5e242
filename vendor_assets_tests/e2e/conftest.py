"""One running project for the tier: its start costs more than any test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from vendor_assets_tests.support.browser import DagsterPages, browser, chromium, fresh_page
from vendor_assets_tests.support.dagster_dev import DagsterDev, dagster_dev, project
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

TODAY = datetime.now(UTC).date()


def day(ago: int) -> str:
    """The day that was so many days ago, as a partition key."""
    return (TODAY - timedelta(days=ago)).isoformat()


HARVESTED = (day(4), day(3))
"""Days that the command had harvested before the UI was opened."""


@dataclass
class Project:
    """A running project, its vendor, and a browser on its UI."""

    vendor: RunningSimulator
    dev: DagsterDev
    ui: DagsterPages


@pytest.fixture(scope="module")
def vendor() -> Iterator[RunningSimulator]:
    chromium()
    with simulator(world="demo", churn=False) as running:
        yield running


@pytest.fixture(scope="module")
def dev(vendor: RunningSimulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    folder = tmp_path_factory.mktemp("project")
    settings = {
        "VENDOR_URL": vendor.url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": "500/s",
        "VENDOR_ASSETS_START": day(8),
    }
    environ = project(folder, settings)
    command = [
        sys.executable,
        "-m",
        "vendor_assets",
        "harvest",
        "--from",
        HARVESTED[0],
        "--to",
        HARVESTED[-1],
    ]
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    with dagster_dev(folder, environ) as running:
        yield running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture
def ui(chrome: Browser, dev: DagsterDev, pictures: Path) -> Iterator[DagsterPages]:
    with fresh_page(chrome) as page:
        yield DagsterPages(page, dev.url, pictures)


@pytest.fixture
def running(vendor: RunningSimulator, dev: DagsterDev, ui: DagsterPages) -> Iterator[Project]:
    yield Project(vendor, dev, ui)
    vendor.clear_faults()
