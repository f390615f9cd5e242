"""Starts a real Redis with the configuration that ``deploy/cluster`` ships, on a free loopback port."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as NotThereError
from redis.retry import Retry

from vendor_assets_tests.support.programs import free_port, require

SHIPPED = Path(__file__).parents[2] / "deploy" / "cluster" / "redis.conf"
_PASSWORD = "change-me"  # as it is shipped


@dataclass
class RedisServer:
    """A running server; its data are in ``folder``."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://:{_PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["redis-server", str(SHIPPED), "--port", str(self.port), "--dir", str(self.folder)]
        with (self.folder.parent / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        patient = Retry(ConstantBackoff(0.1), 300)
        with redis.Redis.from_url(self.url, retry=patient, retry_on_error=[NotThereError]) as client:
            client.ping()

    def kill(self, *, forget: bool) -> None:
        """End it as a power cut does, perhaps with all that it had written."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if forget:
            shutil.rmtree(self.folder)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server while the block lasts."""
    require("redis-server", packages="redis-server")
    server = RedisServer(folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill(forget=True)
