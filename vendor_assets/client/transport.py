"""One attempt over HTTP: sent as it is, read within a deadline and a size, failures translated.

The only place that knows requests and urllib3. No redirects, no retries, no proxies, no netrc, no cookies.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from vendor_assets import __version__
from vendor_assets.errors import (
    ConfigurationError,
    VendorAssetsError,
    VendorProtocolError,
    VendorUnavailableError,
)

EXCERPT_BYTES: Final = 65_536
"""How much of an error's body is read."""

_CHUNK_BYTES: Final = 65_536

_attempt = threading.local()
"""``deadline``: the monotonic time at which this thread's attempt ends."""


@dataclass(frozen=True)
class Answer:
    """What came back, complete; of an error's body at most its beginning.

    Attributes:
        status: HTTP status.
        headers: All headers, whatever their case.
        body: After transfer and content decoding.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until the attempt's deadline, however slowly the bytes come."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline: float = _attempt.deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the attempt's time is over")
        self._sock.settimeout(remaining)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_DeadlineReader(raw, sock), _CHUNK_BYTES)


class _TimedConnection(HTTPConnection):
    response_class = _TimedResponse


class _TimedTlsConnection(HTTPSConnection):
    response_class = _TimedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _TimedConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TimedTlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class Transport:
    """Sends GET requests to one host. Thread-safe.

    Args:
        base_url: ``http://`` or ``https://``, host, perhaps port and path.
        headers: Sent with each request.
        pool_size: Connections that are kept.
        attempt_timeout_seconds: From sending to the last byte, all in all.
        connect_timeout_seconds: For the connection alone, for each address that the host has.
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
        self._headers = {
            "User-Agent": f"vendor-assets/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        }
        self._headers |= headers
        self._seconds = attempt_timeout_seconds
        self._connect_seconds = min(connect_timeout_seconds, attempt_timeout_seconds)
        self._max_body_bytes = max_body_bytes
        self._verify: bool | str = ca_bundle or True
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=pool_size, max_retries=0)

    def send(self, url: str) -> Answer:
        """Ask for a URL of this host and read the answer.

        Raises:
            VendorUnavailableError: No complete answer: connection, timeout, broken body.
            VendorProtocolError: A body that is too large or wrongly encoded.
            ConfigurationError: The host's certificate is not trusted.
        """
        prepared = requests.PreparedRequest()
        prepared.method = "GET"
        prepared.url = url
        prepared.headers = CaseInsensitiveDict(self._headers)
        _attempt.deadline = time.monotonic() + self._seconds
        status: int | None = None
        try:
            response = self._adapter.send(
                prepared, stream=True, timeout=(self._connect_seconds, self._seconds), verify=self._verify
            )
            status = response.status_code
            return Answer(status, response.headers, self._read(response.raw, whole=200 <= status < 300))
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
        ) as error:
            raise self._translate(error, status) from _without_request(error)
        except UnicodeError as error:
            raise ConfigurationError(f"{self.base_url} is not an address: {error}") from error

    def close(self) -> None:
        """Close all idle connections."""
        self._adapter.close()

    def __repr__(self) -> str:
        return f"Transport({self.base_url!r})"

    def _read(self, raw: urllib3.BaseHTTPResponse, *, whole: bool) -> bytes:
        body = bytearray()
        try:
            for chunk in raw.stream(_CHUNK_BYTES, decode_content=True):
                body += chunk
                if whole and len(body) > self._max_body_bytes:
                    message = f"the body is larger than {self._max_body_bytes} bytes"
                    raise VendorProtocolError(message, status=raw.status)
                if not whole and len(body) >= EXCERPT_BYTES:
                    break
            else:
                return bytes(body)
        except BaseException:
            raw.close()
            raise
        raw.close()
        return bytes(body[:EXCERPT_BYTES])

    def _translate(self, error: Exception, status: int | None) -> VendorAssetsError:
        """Our error for one of requests, urllib3, http.client or the socket."""
        causes = list(_causes(error))

        def caused_by(*kinds: type[BaseException]) -> bool:
            return any(isinstance(cause, kinds) for cause in causes)

        if caused_by(ssl.SSLCertVerificationError):
            found = next(cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError))
            message = (
                f"the certificate of {self.base_url} is not trusted: {found.verify_message}; "
                "set VENDOR_URL to the host's true name, or give the certificates to trust"
            )
            return ConfigurationError(message)
        if caused_by(urllib3.exceptions.DecodeError):
            return VendorProtocolError("the body cannot be decompressed", status=status)
        if caused_by(requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError):
            return ConfigurationError(f"{self.base_url} is not an address that can be asked")
        if caused_by(socket.gaierror):
            what = f"the name of {self.base_url} is not known"
        elif caused_by(ConnectionRefusedError):
            what = f"{self.base_url} refuses connections"
        elif caused_by(requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) and status is None:
            what = f"no connection to {self.base_url} within {self._connect_seconds:g} s"
        elif caused_by(requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
            what = f"no complete answer within {self._seconds:g} s"
        elif caused_by(http.client.IncompleteRead, urllib3.exceptions.IncompleteRead):
            what = "the answer broke off before its end"
        elif caused_by(ssl.SSLError):
            what = "the encrypted connection broke"
        elif caused_by(ConnectionError, http.client.RemoteDisconnected):
            what = "the connection was closed before the answer was complete"
        elif status is not None:
            what = "the answer broke off before its end"
        else:
            what = f"no answer in HTTP ({type(causes[-1]).__name__})"
        return VendorUnavailableError(what, status=status)


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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those inside it, outermost first: libraries wrap in arguments, reasons, causes, contexts."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]


def _without_request(error: Exception) -> Exception:
    """The exception without the request, whose headers hold the key."""
    for cause in _causes(error):
        if isinstance(cause, requests.RequestException):
            cause.request = cause.response = None
    return error
