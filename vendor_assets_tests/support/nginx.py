"""Starts a real nginx that limits the rate in front of a server: an independent judge of our pace."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vendor_assets_tests.support.programs import free_port, require

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format plain '$msec $status $request_uri';
    access_log {folder}/access.log plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    limit_req_zone $server_name zone=all:1m rate={rate}r/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ limit_req zone=all{burst}; limit_req_status 429; proxy_pass {upstream}; proxy_buffers 16 256k; }}
    }}
}}
"""


@dataclass(frozen=True)
class RunningNginx:
    """A running nginx.

    Args:
        url: Where it listens.
        log: Its access log: time, status and path of each request.
    """

    url: str
    log: Path

    def statuses(self) -> list[int]:
        """Status of each request so far, in order."""
        return [int(line.split()[1]) for line in self.log.read_text().splitlines()]


@contextmanager
def nginx(upstream: str, *, rate: int, burst: int = 0) -> Iterator[RunningNginx]:
    """Let ``rate`` requests a second pass to ``upstream``, and ``burst`` more at once; answer the rest with 429."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nginx-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        at_once = f" burst={burst} nodelay" if burst else ""
        configuration = _CONFIGURATION.format(
            folder=folder, rate=rate, burst=at_once, port=port, upstream=upstream
        )
        with running(folder, configuration, port):
            yield RunningNginx(f"http://127.0.0.1:{port}", folder / "access.log")


@contextmanager
def running(folder: Path, configuration: str, port: int) -> Iterator[None]:
    """Run nginx with a configuration while the block lasts, which begins once it listens on a port."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    require(program, packages="nginx-light")
    (folder / "nginx.conf").write_text(configuration)
    process = subprocess.Popen(
        [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    )
    try:
        while not _listens(port):
            if process.poll() is not None:
                pytest.fail(f"nginx did not start: {(folder / 'error.log').read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
