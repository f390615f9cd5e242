"""One HTTP/1.1 connection: a request is sent, its response is read, and nothing is left over.

Plain heads are read as they stand, and h11 parses the rest. This module adds one deadline over everything, bounds on
all that a server can send, and the decision whether the connection may be used again.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import h11

from vendor_assets.client.heads import Asking, PlainHead
from vendor_assets.client.network import Proxy
from vendor_assets.client.unpacking import Unpacker
from vendor_assets.errors import (
    ConfigurationError,
    VendorError,
    VendorProtocolError,
    VendorTooLargeError,
    VendorUnavailableError,
)
from vendor_assets.vendors.base import Response

EXCERPT_BYTES: Final = 65_536
"""How much of an error's body is read."""

MAX_INTERIM_ANSWERS: Final = 20
"""Responses of 1xx before the final one."""

MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 65_536

_READ_BYTES: Final = 65_536


class Connection:
    """An open connection. For one thread at a time.

    Args:
        via: The proxy that forwards each request; None where the connection leads to the vendor itself.

    Attributes:
        reusable: Whether the last response ended where it should, and the server keeps the connection.
        polluted: Whether the server sent what no request had asked for.
        headers: Of the current response, as soon as they are known; names in lower case, repeated ones joined by
            commas.
    """

    def __init__(self, sock: socket.socket, via: Proxy | None = None) -> None:
        self._sock = sock
        self.via = via
        # A client that nobody closes leaves no open socket behind.
        weakref.finalize(self, sock.close)
        # Where the kernel limits the time of a call, Python neither polls the socket nor sets its mode for each.
        self._timed_by_kernel = (
            not isinstance(sock, ssl.SSLSocket) and sys.maxsize > 2**32 and sys.platform != "win32"
        )
        if self._timed_by_kernel:
            sock.settimeout(None)
        self._asking: Asking | None = None
        self.reusable = False
        self.polluted = False
        self.asked = 0
        self.heard = False
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}

    def close(self) -> None:
        """Close the socket."""
        self.reusable = False
        self._sock.close()

    def silent(self) -> bool:
        """Whether the server has neither sent anything since the last response nor closed the connection."""
        flags = 0
        if self._timed_by_kernel:
            flags = socket.MSG_DONTWAIT
        else:
            self._sock.setblocking(False)
        try:
            unasked = data = self._sock.recv(_READ_BYTES, flags)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        # A server that closes may say why (408); one that does not has answered what was not asked.
        try:
            while data:
                data = self._sock.recv(_READ_BYTES, flags)
        except OSError:
            self.polluted = bool(unasked)
        return False

    def ask(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        *,
        method: str = "GET",
        content: bytes = b"",
        until: float,
        max_body_bytes: int,
    ) -> Response:
        """Send a request and read its response; of an error's body at most :data:`EXCERPT_BYTES`.

        Args:
            content: The request's body; its length is added to the headers.
            until: Monotonic; the deadline of the last byte.
            max_body_bytes: Largest body that is read, before and after decoding.

        Raises:
            VendorError: The server does not speak HTTP, breaks off or sends too much.
            OSError: The connection broke, or the deadline has passed (TimeoutError).
        """
        self.reusable = self.heard = False
        self.status, self.headers = None, {}
        try:
            asking = self._asking
            if asking is None or (asking.method, asking.headers) != (method, headers):
                self._asking = asking = Asking.of(method, headers)
            request = asking.request(target, content)
        except (h11.LocalProtocolError, UnicodeError):
            # Its text may hold the key.
            raise VendorProtocolError("the request has characters that HTTP cannot carry") from None
        self._send(request, until)
        self.asked += 1
        first = self._receive(until)
        if (plain := PlainHead.read(first)) is not None:
            self.status, self.headers = plain.status, plain.headers
            pieces = self._plain_content(plain, asking, first, until)
        else:
            http = asking.reader(MAX_HEAD_BYTES)
            try:
                http.receive_data(first)
                head = self._head(http, until)
            except h11.RemoteProtocolError as error:
                raise VendorUnavailableError(f"no answer in HTTP ({error})") from error
            self.status, self.headers = head.status_code, _headers_of(head)
            pieces = self._parsed_content(http, head, until)
        status = self.status
        success = 200 <= status < 300
        try:
            body = self._body(pieces, until, max_body_bytes if success else EXCERPT_BYTES)
        except _TooLargeError as error:
            if success:
                message = f"the body is larger than {max_body_bytes} bytes"
                raise VendorTooLargeError(message, status=status) from error
            body = error.beginning
        except (VendorError, ConnectionError, h11.RemoteProtocolError) as error:
            self.reusable = False
            if isinstance(error, VendorError):
                error.status = status
            if success and isinstance(error, h11.RemoteProtocolError):
                what = "the answer broke off before its end"
                raise VendorUnavailableError(what, status=status) from error
            if success:
                raise
            # For an error the status is what matters.
            body = b""
        return Response(status, self.headers, body, datetime.now(UTC))

    def _send(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        while left:
            self._limit_time(socket.SO_SNDTIMEO, deadline)
            try:
                left = left[self._sock.send(left) :]
            except BlockingIOError as error:
                raise TimeoutError("the attempt's time is over") from error

    def _receive(self, deadline: float) -> bytes:
        """What comes next; nothing where the server has ended within a body."""
        self._limit_time(socket.SO_RCVTIMEO, deadline)
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError as error:
            raise TimeoutError("the attempt's time is over") from error
        if not data and self.status is None:
            raise VendorUnavailableError("the connection was closed before the answer was complete")
        self.heard = self.heard or bool(data)
        return data

    def _limit_time(self, option: int, deadline: float) -> None:
        """Limit the time of the next call of one kind."""
        left = _left(deadline)
        if self._timed_by_kernel:
            seconds, micros = divmod(math.ceil(left * 1e6), 1_000_000)
            self._sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, micros))
        else:
            self._sock.settimeout(left)

    def _plain_content(
        self, head: PlainHead, asking: Asking, data: bytes, deadline: float
    ) -> Iterator[bytes]:
        """The body behind a plain head, as it comes."""
        data, left = data[head.size :], head.length
        while len(data) < left:
            yield data
            left -= len(data)
            data = self._receive(deadline)
            if not data:
                raise h11.RemoteProtocolError("the connection was closed within the body")
        yield data[:left]
        self.polluted = len(data) > left
        self.reusable = asking.keeps and not self.polluted

    def _head(self, http: h11.Connection, deadline: float) -> h11.Response:
        """The head of the final response; interim ones are skipped (RFC 9110, 15.2)."""
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            event = self._event(http, deadline)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise VendorUnavailableError("the connection was closed before the answer was complete")
            _check_head(event)
        raise VendorUnavailableError(f"more than {MAX_INTERIM_ANSWERS} interim answers, and no final one")

    def _parsed_content(self, http: h11.Connection, head: h11.Response, deadline: float) -> Iterator[bytes]:
        """The body that h11 reads, as it comes."""
        while isinstance(event := self._event(http, deadline), h11.Data):
            yield bytes(event.data)
        # The connection may be used again only if nothing is left over.
        left, closed = http.trailing_data
        self.polluted = bool(left)
        ambiguous = "content-length" in self.headers and "transfer-encoding" in self.headers
        keeps = head.http_version == b"1.1" and http.our_state is http.their_state is h11.DONE
        self.reusable = keeps and not (left or closed or ambiguous)

    def _body(self, pieces: Iterator[bytes], deadline: float, most: int) -> bytes:
        unpacker = Unpacker(self.headers.get("content-encoding", ""), most)
        body = bytearray()
        packed = 0
        for data in pieces:
            packed += len(data)
            for piece in unpacker.feed(data):
                _left(deadline)
                body += piece
                if len(body) > most:
                    raise _TooLargeError(bytes(body[:most]))
            if packed > most + _READ_BYTES:
                raise _TooLargeError(bytes(body))
        if packed:
            unpacker.finish()
        return bytes(body)

    def _event(self, http: h11.Connection, deadline: float) -> object:
        """h11's next event; end of message and of connection included."""
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(self._receive(deadline))
        return event


def tunnel(sock: socket.socket, proxy: Proxy, host: str, until: float) -> None:
    """Have a proxy forward all bytes to a host (RFC 9110, 9.3.6).

    Raises:
        ConfigurationError: The proxy refuses.
        VendorUnavailableError: It cannot reach the host, or does not speak HTTP.
        OSError: The connection broke, or the deadline has passed (TimeoutError).
    """
    headers = [("Host", host)]
    if proxy.authorization:
        headers.append(("Proxy-Authorization", proxy.authorization))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    request = http.send(h11.Request(method="CONNECT", target=host, headers=headers)) or b""
    sock.settimeout(_left(until))
    sock.sendall(request + (http.send(h11.EndOfMessage()) or b""))
    try:
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            while (event := http.next_event()) is h11.NEED_DATA:
                sock.settimeout(_left(until))
                http.receive_data(sock.recv(_READ_BYTES))
            if isinstance(event, h11.Response):
                break
        else:
            raise VendorUnavailableError(f"{proxy} answers without an end")
    except h11.RemoteProtocolError as error:
        raise VendorUnavailableError(f"{proxy} does not speak HTTP ({error})") from error
    check_proxy(event.status_code, proxy, host)
    if http.trailing_data[0]:
        raise VendorUnavailableError(f"{proxy} sends bytes that nobody asked for")


def check_proxy(status: int, proxy: Proxy, host: str) -> None:
    """Raise what a proxy's status means, unless it agrees.

    Raises:
        ConfigurationError: It wants credentials, or forbids the connection.
        VendorUnavailableError: It cannot connect now.
    """
    if status == 407:
        raise ConfigurationError(
            f"{proxy} refuses us without another user or password (status 407); "
            "set VENDOR_PROXY=http://user:password@host:port"
        )
    if status in (408, 425, 429) or status >= 500:
        raise VendorUnavailableError(f"{proxy} cannot reach {host} (status {status})")
    if status >= 300:
        raise ConfigurationError(
            f"{proxy} refuses to connect to {host} (status {status}); have that permitted, or set VENDOR_PROXY to "
            "another proxy or to none"
        )


class _TooLargeError(Exception):
    def __init__(self, beginning: bytes) -> None:
        super().__init__()
        self.beginning = beginning


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: It has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the attempt's time is over")
    return left


def _check_head(head: h11.Response | h11.InformationalResponse) -> None:
    size = sum(len(name) + len(value) for name, value in head.headers)
    if len(head.headers) > MAX_HEADERS or size > MAX_HEAD_BYTES:
        raise VendorUnavailableError(f"no answer in HTTP ({len(head.headers)} headers of {size} bytes)")


def _headers_of(head: h11.Response) -> dict[str, str]:
    _check_head(head)
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
