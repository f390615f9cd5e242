"""Starts a real PostgreSQL server for the tests, on a free loopback port, and stops it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from vendor_assets_tests.support.programs import free_port, lacks

INSTALL = "PostgreSQL's server programs are not installed: apt-get install postgresql"
_SETTINGS = ("fsync=off", "shared_buffers=16MB", "max_connections=200", "unix_socket_directories=''")


@dataclass
class PostgresServer:
    """A running server.

    Attributes:
        folder: Its data.
        port: On 127.0.0.1.
        bin: Where its programs are.
        prefix: Put before commands that must not run as root.
    """

    folder: Path
    port: int
    bin: Path
    prefix: Sequence[str]

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, which is dropped afterwards."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._administer(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in (*_SETTINGS, f"port={self.port}"))
        options += " -c listen_addresses=127.0.0.1"
        log = self.folder / "server.log"
        self._run("pg_ctl", "-D", str(self.folder), "-l", str(log), "-w", "-t", "60", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: ``fast`` in order, ``immediate`` like a crash."""
        self._run("pg_ctl", "-D", str(self.folder), "-w", "-m", mode, "stop")

    def _administer(self, statement: str) -> None:
        engine = sa.create_engine(
            self.url().replace("postgresql:", "postgresql+psycopg2:"),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def _run(self, program: str, *arguments: str) -> None:
        # The server keeps what it inherits open: no pipes, or they would never end.
        with tempfile.TemporaryFile() as output:
            code = subprocess.call(
                [*self.prefix, str(self.bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
            )
            if code:
                output.seek(0)
                raise RuntimeError(f"{program} ended with {code}: {output.read().decode().strip()}")


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None and shutil.which("pg_ctl") is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: float(path.parts[-3]), default=None)
    return newest.parent if newest is not None else None


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server while the block lasts.

    Raises:
        FileNotFoundError: Its programs are not installed.
    """
    programs = _programs()
    if programs is None:
        raise FileNotFoundError(INSTALL)
    prefix: list[str] = []
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # The server refuses to run as root.
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = "postgres" if "postgres" in names else "nobody"
            Path(temporary).chmod(0o711)
            shutil.chown(folder, user)
            prefix = ["runuser", "-u", user, "--"]
        server = PostgresServer(folder, free_port(), programs, prefix)
        server._run("initdb", "-D", str(folder), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def required_postgres() -> Iterator[PostgresServer]:
    """As :func:`running_postgres`; where it is not installed the test is skipped, or fails in CI."""
    if _programs() is None:
        lacks(INSTALL)
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server for the whole session."""
    with required_postgres() as server:
        yield server
