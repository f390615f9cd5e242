"""One attempt over HTTP: sent as it is, read within a deadline and a size, failures translated.

The only place that opens connections to the vendor. No redirects, no retries, no netrc, no cookies.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import urllib3

from vendor_assets import __version__
from vendor_assets.client.connection import Answer, Connection, refuse_proxy, tunnel
from vendor_assets.client.network import Network, Proxy
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
        network: The way to the host; by default straight there, trusting the certificates of certifi.

    Raises:
        ConfigurationError: The URL is none that could be asked, or a certificate cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        pool_size: int,
        attempt_timeout_seconds: float,
        connect_timeout_seconds: float,
        max_body_bytes: int,
        network: Network | None = None,
    ) -> None:
        self.base_url = check_url(base_url)
        parts = urlsplit(self.base_url)
        self._network = network or Network()
        self._tls = self._network.tls() if parts.scheme == "https" else None
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

    def send(self, url: str, headers: Mapping[str, str] = MappingProxyType({})) -> Answer:
        """Ask for a URL of this host and read the answer.

        Args:
            url: What to ask for.
            headers: Sent with this request.

        Raises:
            VendorUnavailableError: No complete answer: connection, timeout, broken body.
            VendorProtocolError: A body that is too large or wrongly encoded.
            ConfigurationError: The host's certificate is not trusted, it wants another one of ours, or a proxy refuses.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            connection = self._kept() or self._dial(deadline)
            before = connection.asked
            try:
                return self._ask(connection, url, headers, deadline)
            except VendorError as error:
                error.calls = connection.asked - before
                error.headers = connection.headers
                # A server may hang up on an idle connection at any time; what could not be sent there is sent anew.
                if before == 0 or error.calls:
                    error.crossed = before > 0 and not connection.heard
                    raise
            finally:
                self._keep(connection)

    def _ask(self, connection: Connection, url: str, more: Mapping[str, str], deadline: float) -> Answer:
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {
            name: text for name, text in self._headers.items() if name.lower() not in map(str.lower, more)
        }
        headers |= more
        if not self._trusted:
            headers["Connection"] = "close"
        via = connection.via
        if via is not None:
            target = f"http://{self._headers['Host']}{target}"
            if via.authorization:
                headers["Proxy-Authorization"] = via.authorization
        try:
            answer = connection.ask(
                target, list(headers.items()), until=deadline, max_body_bytes=self._max_body_bytes
            )
            if via is not None and answer.status == 407:
                refuse_proxy(answer.status, _place(via), self._headers["Host"])
            return answer
        except TimeoutError as error:
            what = f"no complete answer within {self._seconds:g} s"
            raise VendorUnavailableError(what, status=connection.status) from error
        except ssl.SSLError as error:
            raise self._unencrypted(error, connection.status) from error
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
        proxy: Proxy | None = None
        try:
            proxy = self._network.way()
            # What is not encrypted is passed on question by question; else the proxy sees no question.
            return Connection(self._connected(proxy, until), proxy if self._tls is None else None)
        except BaseException as error:
            with self._lock:
                self._open -= 1
            if isinstance(error, VendorError):
                error.calls = 0
            if isinstance(error, OSError | ValueError):
                raise self._unconnected(error, proxy) from error
            raise

    def _unconnected(self, error: OSError | ValueError, proxy: Proxy | None) -> VendorAssetsError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of {self.base_url} is not trusted: {error.verify_message}; set VENDOR_URL to the "
                "host's true name, or give the certificates to trust as VENDOR_CA_BUNDLE"
            )
        where = self.base_url if proxy is None else _place(proxy)
        if not isinstance(error, OSError):
            return ConfigurationError(f"{where} is not an address: {error}")
        if isinstance(error, socket.gaierror):
            what = f"the name of {where} is not known"
        elif isinstance(error, ConnectionRefusedError):
            what = f"{where} refuses connections"
        elif isinstance(error, TimeoutError):
            through = "" if proxy is None else f" through {where}"
            what = f"no connection to {self.base_url}{through} within {self._connect_seconds:g} s"
        elif isinstance(error, ssl.SSLError):
            return self._unencrypted(error, None)
        elif isinstance(error, ConnectionError):
            what = f"{where} closed the connection while it was opened"
        else:
            what = f"no connection to {where} ({error.strerror or type(error).__name__})"
        unsent = VendorUnavailableError(what)
        unsent.calls = 0
        return unsent

    def _unencrypted(self, error: ssl.SSLError, status: int | None) -> VendorAssetsError:
        reason = (error.reason or "").replace("_", " ").lower()
        # The other side's alerts about our certificate (RFC 8446, 6.2).
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            return ConfigurationError(
                f"{self.base_url} does not accept who we are ({reason}); give the certificate that it wants as "
                "VENDOR_CLIENT_CERT, and its key as VENDOR_CLIENT_KEY"
            )
        return VendorUnavailableError("the encrypted connection broke", status=status)

    def _connected(self, proxy: Proxy | None, until: float) -> socket.socket:
        """A socket to the first address of host or proxy that answers, encrypted where it shall be."""
        failure: OSError = TimeoutError()
        host, port = (self._host, self._port) if proxy is None else (proxy.host, proxy.port)
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            left = until - time.monotonic()
            if left <= 0:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(left)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    return sock
                if proxy is not None:
                    tunnel(sock, proxy, _host_header(self._host, self._port), until)
                return self._encrypted(sock, self._tls, until)
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


def _place(proxy: Proxy) -> str:
    return f"the proxy {proxy.host}:{proxy.port}"


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
