"""What stands before a vendor at work: an nginx with a CA of its own, and a proxy that wants a password.

Before a Prometheus the nginx is a front like Mimir's or Grafana Cloud's: a prefix, a login, a tenant, encrypted.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vendor_assets_tests.support.nginx import running
from vendor_assets_tests.support.programs import free_port

USER, PASSWORD, TENANT = "reader", "gate-5ecr3t/pass", "team-a"
PROXY_LOGIN = "clerk:pr0xy-5ecr3t"

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format plain '$status|$ssl_client_s_dn|$http_x_scope_orgid|$remote_user|$http_proxy_authorization'
        '|$request_method|$uri';
    access_log {folder}/access.log plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    default_type application/json;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    server {{
        listen 127.0.0.1:{tenant} ssl;
        if ($http_x_scope_orgid != "team-a") {{ return 401 "no org id"; }}
        auth_basic gate; auth_basic_user_file {folder}/users;
        location / {{ root {folder}/www; try_files /answer.json =404; }}
        location /prometheus/ {{ proxy_pass {upstream}/; proxy_buffers 16 256k; }}
        location /readonly/ {{ limit_except GET {{ deny all; }} proxy_pass {upstream}/; proxy_buffers 16 256k; }}
    }}
    server {{
        listen 127.0.0.1:{certificate} ssl;
        ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;
        location / {{ root {folder}/www; try_files /answer.json =404; }}
    }}
    server {{
        listen 127.0.0.1:{plain};
        location / {{ root {folder}/www; try_files /answer.json =404; }}
    }}
}}
"""


@dataclass(frozen=True)
class Gateway:
    """A running nginx.

    Attributes:
        folder: Where its certificates are: ``ca.pem``, ``client.pem`` and ``client.key``.
        tenant: The address that wants a user and a tenant; below it ``/prometheus`` and, for GET requests only,
            ``/readonly`` lead to the upstream.
        certificate: The one that wants a client certificate.
        plain: The one that wants nothing, not encrypted.
    """

    folder: Path
    tenant: str
    certificate: str
    plain: str

    def heard(self, after: int = 0, requests: int = 0) -> list[list[str]]:
        """Of each request: status, the certificate's name, tenant, user, proxy's authorization, method, path.

        Args:
            after: So many requests are left out.
            requests: So many are waited for, since nginx writes its log after it has answered.
        """
        while len(lines := (self.folder / "access.log").read_text().splitlines()) < after + requests:
            time.sleep(0.01)
        return [line.split("|") for line in lines[after:]]


@contextmanager
def gateway(upstream: str = "http://127.0.0.1:9") -> Iterator[Gateway]:
    """Run it while the block lasts; what it does not pass to the upstream it answers alike."""
    with tempfile.TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _certificates(folder)
        (folder / "www").mkdir()
        (folder / "www" / "answer.json").write_text('{"status":"success","data":[]}')
        digest = subprocess.run(
            ["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True
        ).stdout.strip()
        (folder / "users").write_text(f"{USER}:{digest}\n")
        ports = {each: free_port() for each in ("tenant", "certificate", "plain")}
        with running(
            folder, _CONFIGURATION.format(folder=folder, upstream=upstream, **ports), ports["plain"]
        ):
            yield Gateway(
                folder,
                f"https://127.0.0.1:{ports['tenant']}",
                f"https://127.0.0.1:{ports['certificate']}",
                f"http://127.0.0.1:{ports['plain']}",
            )


def _certificates(folder: Path) -> None:
    """A CA, and what it signs: a server's certificate for 127.0.0.1 and a client's."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Own CA")
    for who, extra in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        openssl(
            "req", "-x509", *key, "-keyout", f"{who}.key", "-out", f"{who}.pem", "-days", "2", "-subj", f"/CN={who}",
            "-addext", extra, "-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key",
        )  # fmt: skip


class Proxy:
    """An HTTP proxy in threads of the test, for CONNECT and for whole addresses.

    Args:
        login: The user and the password that it wants.

    Attributes:
        url: Where it listens.
        heads: The head of each request that it got.
        answer: What it says in place of passing on, if anything, like ``403 Forbidden``.
    """

    def __init__(self, login: str = PROXY_LOGIN) -> None:
        self._expected = f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heads: list[str] = []
        self.answer = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                data += connection.recv(65_536)
            head = data.decode("latin-1")
            self.heads.append(head)
            method, target, _ = head.split(" ", 2)
            if self.answer or self._expected not in head:
                status = self.answer or "407 Proxy Authentication Required"
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            parts = urlsplit(target if method != "CONNECT" else f"//{target}")
            with socket.create_connection((str(parts.hostname), int(parts.port or 80))) as upstream:
                if method == "CONNECT":
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    # One request a connection: the next one may be for another host.
                    passed = head.replace(f"http://{parts.netloc}", "", 1)
                    passed = passed.replace(self._expected, "Connection: close\r\n")
                    upstream.sendall(passed.encode("latin-1"))
                back = threading.Thread(target=_pump, args=(upstream, connection), daemon=True)
                back.start()
                _pump(connection, upstream)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
