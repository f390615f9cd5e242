"""Fixtures of every tier: a clean environment for all, and no network for the unit tier."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from vendor_assets_tests.support.postgres import postgres_server
from vendor_assets_tests.support.s3 import clean_aws_environment, s3_server, without_aws_environment

__all__ = ["clean_aws_environment", "postgres_server", "s3_server"]

# One profile for every property test. No example fails because a machine is busy, and in CI the same examples are
# tried each time, so that nothing fails there by chance; anywhere else new ones are.
settings.register_profile(
    "vendor_assets",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("vendor_assets")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of a module that starts servers for all of its tests stay in one process; others go where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module.split("/")[1] in ("e2e", "integration") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """How tests are dealt out over processes."""
    return ByModule(config, log)


_OURS_TO_SET = ("VENDOR_", "DAGSTER_", "PG")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No setting, credential, proxy or Dagster instance of whoever runs the tests makes one pass or fail."""
    with without_aws_environment(), pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(_OURS_TO_SET) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("MPLBACKEND", "agg")
        yield


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """What a test leaves in the environment is gone before the next one."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _unit_tests_need_no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that opens a connection fails; its place is another tier."""
    if "unit" not in request.path.parts:
        return

    def refuse(_socket: socket.socket, address: object) -> NoReturn:
        raise AssertionError(f"a unit test connects to {address}; move it to vendor_assets_tests/integration")

    monkeypatch.setattr(socket.socket, "connect", refuse)
