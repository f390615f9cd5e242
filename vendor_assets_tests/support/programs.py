"""Starts real servers of others on this machine, on free ports, where they are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def require(*programs: str, packages: str) -> None:
    """Skip the test where a program is not installed; in CI fail it."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        lacks(f"{', '.join(missing)} not found: apt-get install {packages}")


def lacks(reason: str) -> NoReturn:
    """Skip the test, since what it needs is not installed; in CI fail it."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def read(url: str, body: bytes | None = None) -> bytes:
    """Ask a server on this machine; with a body, by POST."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer: bytes = opener.open(url, body, timeout=30).read()
    return answer


@contextmanager
def running(command: list[str], log: Path, ready_url: str) -> Iterator[None]:
    """Run a program in its log's folder while the block lasts, which begins once it answers at an address.

    Raises:
        RuntimeError: It did not start; the message holds what it wrote.
    """
    with log.open("w") as sink:
        process = subprocess.Popen(command, cwd=log.parent, stdout=sink, stderr=subprocess.STDOUT)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            try:
                read(ready_url)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)
