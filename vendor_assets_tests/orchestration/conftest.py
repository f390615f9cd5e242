"""A deployment against an embedded vendor of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets_tests.support.deployment import Deployment, deploy
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator


@pytest.fixture
def vendor() -> Iterator[RunningSimulator]:
    with simulator(world="small", churn=False) as running:
        yield running


@pytest.fixture
def deployment(
    tmp_path: Path, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    with dg.DagsterInstance.ephemeral() as instance:
        yield deploy(tmp_path, instance, VENDOR_URL=vendor.url, VENDOR_API_KEY=KEY, VENDOR_RATE="500/s")
