"""Recognisable secrets in every setting that can hold one: nothing that is written or shown has them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from vendor_assets.orchestration.definitions import build_definitions
from vendor_assets.settings import read
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.gateway import Proxy
from vendor_assets_tests.support.postgres import PostgresServer
from vendor_assets_tests.support.secrets import every_secret, files_with_secret, forms
from vendor_assets_tests.support.simulator import simulator


def _told(shown: str, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form.decode() in shown for form in forms(secret))]


@pytest.mark.filterwarnings(
    "ignore:.*ScheduleDefinition.environment_vars:DeprecationWarning"
)  # Dagster's own use
@pytest.mark.parametrize("in_files", [False, True])
def test_dagster_shows_no_secret(in_files: bool, tmp_path: Path) -> None:
    """What the UI and GraphQL show of resources and jobs, their default config included, refers to secrets by name."""
    environ, secrets = every_secret(tmp_path if in_files else None)
    definitions = build_definitions(read(environ, root=tmp_path))
    shown = serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "database_url" in shown
    for name in secrets:
        # By the variable's name, or by the file's path.
        assert name in shown
    assert _told(shown, secrets) == []


def test_a_harvest_writes_no_secret(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """A harvest with faults through a proxy: no secret in store, databases, events, output or a command line."""
    environ, secrets = every_secret()
    proxy = Proxy(f"user:{secrets['VENDOR_PROXY']}")
    day = datetime.now(UTC).date() - timedelta(days=1)
    faults = ["500:rate=0.1", "400:rate=0.1"]
    with (
        simulator(world="small", troops=1, churn=False, fault=faults) as vendor,
        postgres_server.database() as database,
    ):
        place = urlsplit(database)
        login = urlsplit(environ["VENDOR_ASSETS_DB"]).netloc.rpartition("@")[0].replace("user:", "tester:")
        environ |= {
            "VENDOR_URL": vendor.url,
            "VENDOR_PROXY": environ["VENDOR_PROXY"].replace("127.0.0.1:9", proxy.url.removeprefix("http://")),
            "VENDOR_ASSETS_DB": f"postgresql://{login}@{place.netloc.rpartition('@')[2]}{place.path}",
            "VENDOR_RATE": "200/s",
        }
        harvest = Command(tmp_path, environ).start("harvest", "--no-report", "--day", day.isoformat())
        lines: set[str] = set()
        while harvest.poll() is None:
            lines |= set(_command_lines(tmp_path))
            signal.sigtimedwait([], 0.2)
        out, err = harvest.communicate()
        assert vendor.calls() == len(proxy.heads) > 3, out + err
        engine = create_engine(database.replace("postgresql:", "postgresql+psycopg2:"), poolclass=NullPool)
        with engine.connect() as connection:
            for table in inspect(connection).get_table_names():
                lines |= {str(row) for row in connection.execute(text(f'SELECT * FROM "{table}"'))}
    proxy.close()
    assert len(lines) > 3
    assert _told(out + err + "".join(lines), secrets) == []
    found = {name: files_with_secret(tmp_path, secret) for name, secret in secrets.items()}
    assert not any(found.values()), found


def _command_lines(folder: Path) -> Iterator[str]:
    """Of the processes that work in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder in ((cwd := (process / "cwd").readlink()), *cwd.parents):
                yield (process / "cmdline").read_text()
