"""A deployment against an embedded vendor of its own, and Dagster's storages of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets_tests.support.deployment import Deployment, deploy
from vendor_assets_tests.support.postgres import PostgresServer
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


_INSTANCE = """\
storage: {storage}
run_coordinator: {{module: dagster, class: QueuedRunCoordinator}}
run_retries: {{enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}}
telemetry: {{enabled: false}}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def stored_instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storages on a database of each kind, with run retries as they are shipped."""
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        if request.param == "sqlite":
            storage = f"{{sqlite: {{base_dir: '{home}'}}}}"
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            url = stack.enter_context(server.database()).replace("postgresql:", "postgresql+psycopg2:")
            storage = f"{{postgres: {{postgres_url: '{url}'}}}}"
        (home / "dagster.yaml").write_text(_INSTANCE.format(storage=storage))
        yield stack.enter_context(dg.DagsterInstance.from_config(str(home)))
