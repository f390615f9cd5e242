"""One attempt over HTTP: sent as it is, read within a deadline and a size, failures translated.

The only place that opens connections to the vendor. No redirects, no retries, no proxies, no netrc, no cookies.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import certifi
import urllib3

from vendor_assets import __version__
from vendor_assets.client.connection import Answer, Connection
from vendor_assets.errors import (
    ConfigurationError,
    VendorAssetsError,
    VendorError,
    VendorUnavailableError,
)
from vendor_assets.logs import get_logger

__all__ = ["Answer", "Transport", "check_url"]

log = get_logger(__name__)

REST_SECONDS: Final = 0.025
"""A connection is not asked again before it was silent for so long: what a server sends after an answer, unasked,
shows while nobody waits for another answer there."""

KEEP_SECONDS: Final = 4.0
"""A connection that idled for longer is closed: servers hang up after five seconds and more, and a question that
crosses a server's goodbye is lost."""

_FEWEST_CONNECTIONS: Final = 8
"""So many are opened before one that has not rested is waited for."""


class Transport:
    """Sends GET requests to one host. Thread-safe.

    Args:
        base_url: ``http://`` or ``https://``, host, perhaps port and path.
        headers: Sent with each request.
        pool_size: Connections that are kept.
        attempt_timeout_seconds: From sending to the last byte, all in all.
        connect_timeout_seconds: For the connection alone, over all addresses that the host has.
        max_body_bytes: Largest body that is read, after decoding.
        ca_bundle: Path of the certificates to trust; empty for those of certifi.

    Raises:
        ConfigurationError: The URL is none that could be asked.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        pool_size: int,
        attempt_timeout_seconds: float,
        connect_timeout_seconds: float,
        max_body_bytes: int,
        ca_bundle: str = "",
    ) -> None:
        self.base_url = check_url(base_url)
        parts = urlsplit(self.base_url)
        self._tls = _trusting(ca_bundle) if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        default = 80 if self._tls is None else 443
        self._port = parts.port or default
        self._headers = {
            "Host": _host_header(self._host, None if self._port == default else self._port),
            "User-Agent": f"vendor-assets/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        }
        self._headers |= headers
        self._seconds = attempt_timeout_seconds
        self._connect_seconds = min(connect_timeout_seconds, attempt_timeout_seconds)
        self._max_body_bytes = max_body_bytes
        self._most = max(pool_size, _FEWEST_CONNECTIONS)
        self._lock = threading.Lock()
        self._idle: list[tuple[Connection, float]] = []
        self._open = 0
        self._trusted = True

    def send(self, url: str) -> Answer:
        """Ask for a URL of this host and read the answer.

        Raises:
            VendorUnavailableError: No complete answer: connection, timeout, broken body.
            VendorProtocolError: A body that is too large or wrongly encoded.
            ConfigurationError: The host's certificate is not trusted.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            connection = self._kept() or self._dial(deadline)
            before = connection.asked
            try:
                return self._ask(connection, url, deadline)
            except VendorError as error:
                error.calls = connection.asked - before
                error.headers = connection.headers
                # A server may hang up on an idle connection at any time; what could not be sent there is sent anew.
                if before == 0 or error.calls:
                    error.crossed = before > 0 and not connection.heard
                    raise
            finally:
                self._keep(connection)

    def _ask(self, connection: Connection, url: str, deadline: float) -> Answer:
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = self._headers if self._trusted else {**self._headers, "Connection": "close"}
        try:
            return connection.ask(
                target, list(headers.items()), until=deadline, max_body_bytes=self._max_body_bytes
            )
        except TimeoutError as error:
            what = f"no complete answer within {self._seconds:g} s"
            raise VendorUnavailableError(what, status=connection.status) from error
        except ssl.SSLError as error:
            raise VendorUnavailableError(
                "the encrypted connection broke", status=connection.status
            ) from error
        except OSError as error:
            what = "the connection was closed before the answer was complete"
            raise VendorUnavailableError(what, status=connection.status) from error

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._open -= len(idle)
        for connection, _ in idle:
            connection.close()

    def __repr__(self) -> str:
        return f"Transport({self.base_url!r})"

    # Connections

    def _kept(self) -> Connection | None:
        """A connection that is open, has rested and is silent; None where a new one shall be opened, and counts."""
        while True:
            now = time.monotonic()
            with self._lock:
                stale = [entry for entry in self._idle if now - entry[1] > KEEP_SECONDS or not self._trusted]
                self._idle = self._idle[len(stale) :]
                rested = [entry for entry in self._idle if now - entry[1] >= REST_SECONDS]
                # The newest of them: the others may grow old and be closed.
                found = rested[-1] if rested else None
                if found is not None:
                    self._idle.remove(found)
                wait = 0.0
                if found is None and self._idle and self._open - len(stale) >= self._most:
                    wait = max(0.001, REST_SECONDS - (now - self._idle[0][1]))
                elif found is None:
                    self._open += 1
            for connection, _ in stale:
                self._drop(connection)
            if found is not None:
                if found[0].silent():
                    return found[0]
                self._drop(found[0])
            elif wait:
                time.sleep(wait)
            else:
                return None

    def _keep(self, connection: Connection) -> None:
        """Put a connection back, or close it."""
        if connection.reusable and self._trusted:
            with self._lock:
                self._idle.append((connection, time.monotonic()))
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._open -= 1
            news = connection.polluted and self._trusted
            self._trusted = self._trusted and not connection.polluted
        if news:
            log.warning(
                "%s sends bytes that no request asked for; from now on each call has a connection of its own",
                self.base_url,
            )

    def _dial(self, deadline: float) -> Connection:
        """Open a connection.

        Raises:
            VendorUnavailableError: The host is not known, refuses, or does not answer in time.
            ConfigurationError: Its certificate is not trusted, or its name is none.
        """
        until = min(deadline, time.monotonic() + self._connect_seconds)
        log.debug("Starting new HTTP connection to %s", self.base_url)
        try:
            return Connection(self._connected(until))
        except BaseException as error:
            with self._lock:
                self._open -= 1
            if isinstance(error, OSError | ValueError):
                raise self._unconnected(error) from error
            raise

    def _unconnected(self, error: OSError | ValueError) -> VendorAssetsError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of {self.base_url} is not trusted: {error.verify_message}; "
                "set VENDOR_URL to the host's true name, or give the certificates to trust"
            )
        if not isinstance(error, OSError):
            return ConfigurationError(f"{self.base_url} is not an address: {error}")
        if isinstance(error, socket.gaierror):
            what = f"the name of {self.base_url} is not known"
        elif isinstance(error, ConnectionRefusedError):
            what = f"{self.base_url} refuses connections"
        elif isinstance(error, TimeoutError):
            what = f"no connection to {self.base_url} within {self._connect_seconds:g} s"
        elif isinstance(error, ssl.SSLError):
            what = "the encrypted connection broke"
        elif isinstance(error, ConnectionError):
            what = f"{self.base_url} closed the connection while it was opened"
        else:
            what = f"no connection to {self.base_url} ({error.strerror or type(error).__name__})"
        unsent = VendorUnavailableError(what)
        unsent.calls = 0
        return unsent

    def _connected(self, until: float) -> socket.socket:
        """A socket to the first of the host's addresses that answers, encrypted where it shall be."""
        failure: OSError = TimeoutError()
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        ):
            left = until - time.monotonic()
            if left <= 0:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock if self._tls is None else self._encrypted(sock, self._tls, until)
            except OSError as error:
                sock.close()
                failure = error
                if isinstance(error, ssl.SSLError):
                    break
            except BaseException:
                sock.close()
                raise
        raise failure

    def _encrypted(self, sock: socket.socket, context: ssl.SSLContext, until: float) -> ssl.SSLSocket:
        sock.settimeout(max(0.001, until - time.monotonic()))
        return context.wrap_socket(sock, server_hostname=self._host)


def _host_header(host: str, port: int | None) -> str:
    if ":" in host:
        host = f"[{host}]"
    elif not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as error:
            raise ConfigurationError(f"{host} is not the name of a host: {error}") from error
    return host if port is None else f"{host}:{port}"


def _trusting(ca_bundle: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_bundle or certifi.where())
    except OSError as error:
        raise ConfigurationError(f"the certificates in {ca_bundle} cannot be read: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_url(url: str) -> str:
    """A vendor's URL without a slash at its end.

    Raises:
        ConfigurationError: Another scheme than HTTP, no host, credentials, a query, or a port that is none.
    """
    try:
        parts = urlsplit(url)
        host, credentials = parts.hostname, parts.username or parts.password
        _ = parts.port
        # urllib3 is stricter about what can be a host.
        urllib3.util.parse_url(url)
    except (ValueError, urllib3.exceptions.LocationParseError) as error:
        raise ConfigurationError(
            "the vendor's URL cannot be read; give one like https://api.example.com"
        ) from error
    if credentials:
        raise ConfigurationError("the vendor's URL holds credentials; give the key as VENDOR_API_KEY instead")
    bad = any(character.isspace() or not character.isprintable() for character in url)
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or bad:
        raise ConfigurationError(
            f"the vendor's URL {url!r} cannot be asked; give one like https://api.example.com"
        )
    return url.rstrip("/")
