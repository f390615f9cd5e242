"""One attempt over HTTP: sent once, read within a deadline and a size, failures translated.

The only place that opens connections to the vendor. No redirects, no retries, no netrc, no cookies.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping
from operator import itemgetter
from typing import Final
from urllib.parse import urlsplit

from vendor_assets import __version__
from vendor_assets.client.connection import Connection, check_proxy, tunnel
from vendor_assets.client.network import Network, Proxy, check_url
from vendor_assets.errors import ConfigurationError, VendorAssetsError, VendorError, VendorUnavailableError
from vendor_assets.logs import get_logger
from vendor_assets.vendors.base import Response

log = get_logger(__name__)

REST_SECONDS: Final = 0.025
"""A connection is used again only after this long in silence: bytes that a server sends unasked after a response then
show before the next request."""

KEEP_SECONDS: Final = 4.0
"""A connection that idled for longer is closed: servers close theirs after five seconds and more, and a request that
crosses that is lost."""

_FEWEST_CONNECTIONS: Final = 8
_RESTING_CONNECTIONS: Final = 3
_MOST_RESTING: Final = 64
"""Before one that has not rested is waited for, so many are opened; for each that is in use some more may rest, so that
calls to a quick vendor do not wait for their connections: 32 that rest for 25 ms bear a thousand calls a second."""


class Transport:
    """Sends requests to one host. Thread-safe.

    Args:
        attempt_timeout_seconds: From sending to the last byte.
        connect_timeout_seconds: Over all addresses of the host.

    Raises:
        ConfigurationError: The URL or a certificate cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        network: Network,
        pool_size: int,
        attempt_timeout_seconds: float,
        connect_timeout_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self.base_url = check_url(base_url)
        parts = urlsplit(self.base_url)
        self._network = network
        self._tls = network.tls() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        default = 80 if self._tls is None else 443
        self._port = parts.port or default
        self._headers = {
            "Host": _host_header(self._host, None if self._port == default else self._port),
            "User-Agent": f"vendor-assets/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        }
        self._names = {name.lower() for name in self._headers}
        self._root = f"{parts.scheme}://{parts.netloc}/"
        self._seconds = attempt_timeout_seconds
        self._connect_seconds = min(connect_timeout_seconds, attempt_timeout_seconds)
        self._max_body_bytes = max_body_bytes
        resting = min((1 + _RESTING_CONNECTIONS) * pool_size, _MOST_RESTING)
        self._most = max(pool_size, _FEWEST_CONNECTIONS, resting)
        self._lock = threading.Lock()
        self._idle: list[tuple[Connection, float]] = []
        self._open = 0
        self._trusted = True
        self._reached: object = None

    def __repr__(self) -> str:
        return f"Transport({self.base_url!r})"

    @property
    def host(self) -> str:
        """What requests say in ``Host``."""
        return self._headers["Host"]

    def send(
        self, url: str, headers: Mapping[str, str], *, method: str = "GET", content: bytes = b""
    ) -> Response:
        """Send one request to a URL of this host.

        Args:
            headers: Added to the transport's own, or replacing them.

        Raises:
            VendorUnavailableError: No complete response: connection, timeout, broken body.
            VendorProtocolError: A body that is too large or wrongly encoded.
            ConfigurationError: The host's certificate is not trusted, it does not accept ours, or a proxy refuses.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            connection = self._kept() or self._dial(deadline)
            before = connection.asked
            try:
                return self._ask(connection, url, headers, method, content, deadline)
            except VendorError as error:
                error.calls = connection.asked - before
                error.headers = connection.headers
                # A server may close an idle connection at any time; what could not be sent there is sent on another.
                if before == 0 or error.calls:
                    error.crossed = before > 0 and not connection.heard
                    raise
            finally:
                self._keep(connection)

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._open -= len(idle)
        for connection, _ in idle:
            connection.close()

    def _ask(
        self,
        connection: Connection,
        url: str,
        more: Mapping[str, str],
        method: str,
        content: bytes,
        deadline: float,
    ) -> Response:
        if url.startswith(self._root) and "#" not in url:
            target = url[len(self._root) - 1 :]
        else:
            parts = urlsplit(url)
            target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        replaced = {name.lower() for name in more}
        headers = {**self._headers, **more}
        if not self._names.isdisjoint(replaced):
            headers = {name: text for name, text in self._headers.items() if name.lower() not in replaced}
            headers |= more
        if not self._trusted:
            headers["Connection"] = "close"
        via = connection.via
        if via is not None:
            target = f"http://{self._headers['Host']}{target}"
            if via.authorization:
                headers["Proxy-Authorization"] = via.authorization
        try:
            response = connection.ask(
                target,
                list(headers.items()),
                method=method,
                content=content,
                until=deadline,
                max_body_bytes=self._max_body_bytes,
            )
            if via is not None and response.status == 407:
                check_proxy(response.status, via, self._headers["Host"])
            return response
        except TimeoutError as error:
            what = f"no complete answer within {self._seconds:g} s"
            raise VendorUnavailableError(what, status=connection.status) from error
        except ssl.SSLError as error:
            raise self._unencrypted(error, connection.status) from error
        except OSError as error:
            what = "the connection was closed before the answer was complete"
            raise VendorUnavailableError(what, status=connection.status) from error

    # Connections

    def _kept(self) -> Connection | None:
        """An open connection that has rested and is silent; None where a new one is to be opened, already counted."""
        while True:
            stale = []
            found: tuple[Connection, float] | None = None
            with self._lock:
                now = time.monotonic()
                while self._idle and (now - self._idle[0][1] > KEEP_SECONDS or not self._trusted):
                    stale.append(self._idle.pop(0)[0])
                rested = bisect_right(self._idle, now - REST_SECONDS, key=itemgetter(1))
                if rested:
                    # The newest of them: the others may age and be closed.
                    found = self._idle.pop(rested - 1)
                elif self._idle and self._open - len(stale) >= self._most:
                    found = self._idle.pop(0)
                else:
                    self._open += 1
            for connection in stale:
                self._drop(connection)
            if found is None:
                return None
            connection, since = found
            if (left := since + REST_SECONDS - now) > 0:
                time.sleep(left)
            if self._trusted and connection.silent():
                return connection
            self._drop(connection)

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
        """Open a connection."""
        until = min(deadline, time.monotonic() + self._connect_seconds)
        log.debug("Starting new HTTP connection to %s", self.base_url)
        proxy: Proxy | None = None
        try:
            proxy = self._network.current_proxy()
            # A proxy forwards plain requests one by one; of encrypted ones it sees the host alone.
            return Connection(self._connected(proxy, until), proxy if self._tls is None else None)
        except BaseException as error:
            with self._lock:
                self._open -= 1
            if isinstance(error, OSError | ValueError):
                translated = self._unconnected(error, proxy)
                if isinstance(translated, VendorError):
                    translated.calls = 0
                raise translated from error
            if isinstance(error, VendorError):
                error.calls = 0
            raise

    def _connected(self, proxy: Proxy | None, until: float) -> socket.socket:
        """A socket to the first address of the host or the proxy that answers, encrypted if the URL says so."""
        failure: OSError = TimeoutError()
        host, port = (self._host, self._port) if proxy is None else (proxy.host, proxy.port)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # One that does not answer leaves time for the others, and the last one that did goes first.
        found = sorted(found, key=lambda entry: entry[4] != self._reached)
        for number, (family, kind, protocol, _, address) in enumerate(found):
            now = time.monotonic()
            own = now + (until - now) / (len(found) - number)
            if own <= now:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(own - now)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    if proxy is not None:
                        tunnel(sock, proxy, _host_header(self._host, self._port), own)
                    sock.settimeout(max(0.001, own - time.monotonic()))
                    sock = self._tls.wrap_socket(sock, server_hostname=self._host)
                self._reached = address
                return sock
            except OSError as error:
                sock.close()
                failure = error
                if isinstance(error, ssl.SSLError):
                    break
            except BaseException:
                sock.close()
                raise
        raise failure

    def _unconnected(self, error: OSError | ValueError, proxy: Proxy | None) -> VendorAssetsError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of {self.base_url} is not trusted: {error.verify_message}; set VENDOR_URL to the "
                "host's true name, or give the certificates to trust as VENDOR_CA_BUNDLE"
            )
        where = proxy or self.base_url
        match error:
            case socket.gaierror():
                what = f"the name of {where} is not known"
            case ConnectionRefusedError():
                what = f"{where} refuses connections"
            case TimeoutError():
                through = f" through {proxy}" if proxy else ""
                what = f"no connection to {self.base_url}{through} within {self._connect_seconds:g} s"
            case ssl.SSLError():
                return self._unencrypted(error, None)
            case ConnectionError():
                what = f"{where} closed the connection while it was opened"
            case OSError():
                what = f"no connection to {where} ({error.strerror or type(error).__name__})"
            case _:
                return ConfigurationError(f"{where} is not a valid address: {error}")
        return VendorUnavailableError(what)

    def _unencrypted(self, error: ssl.SSLError, status: int | None) -> VendorAssetsError:
        reason = (error.reason or "").replace("_", " ").lower()
        # The other side's alerts about our certificate (RFC 8446, 6.2).
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            return ConfigurationError(
                f"{self.base_url} does not accept our certificate ({reason}); give the certificate that it wants as "
                "VENDOR_CLIENT_CERT, and its key as VENDOR_CLIENT_KEY"
            )
        return VendorUnavailableError("the encrypted connection broke", status=status)


def _host_header(host: str, port: int | None) -> str:
    if ":" in host:
        host = f"[{host}]"
    elif not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as error:
            raise ConfigurationError(f"{host} is not a valid host name: {error}") from error
    return host if port is None else f"{host}:{port}"
