"""One connection to the vendor: a question is sent, its answer is read, and nothing is left over.

h11 reads HTTP/1.1. What is its own here: one deadline over everything, bounds on all that a server can send, and
the decision whether the connection may be asked again.
"""

from __future__ import annotations

import socket
import ssl
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import h11

from vendor_assets.client.network import Proxy
from vendor_assets.client.unpacking import Unpacker
from vendor_assets.errors import (
    ConfigurationError,
    VendorError,
    VendorProtocolError,
    VendorTooLargeError,
    VendorUnavailableError,
)

EXCERPT_BYTES: Final = 65_536
"""How much of an error's body is read."""

MAX_INTERIM_ANSWERS: Final = 20
"""Answers of 1xx before the one that counts."""

MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 65_536

_READ_BYTES: Final = 65_536


@dataclass(frozen=True)
class Answer:
    """What came back, complete; of an error's body at most its beginning.

    Attributes:
        status: HTTP status.
        headers: All headers; names in lower case, repeated ones joined by commas.
        body: After transfer and content decoding.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection that is open. For one thread at a time.

    Args:
        sock: Connected, and encrypted where it shall be.
        via: The proxy that is to pass on each question; None where the connection leads to the vendor itself.

    Attributes:
        reusable: Whether the last answer ended where it should, and the server keeps the connection.
        polluted: Whether the server sent what no question had asked for.
        asked: How many questions were sent in full.
        heard: Whether a byte of the present answer has come.
    """

    def __init__(self, sock: socket.socket, via: Proxy | None = None) -> None:
        self._sock = sock
        self.via = via
        # Whoever forgets to close a client leaves no open socket behind.
        weakref.finalize(self, sock.close)
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.reusable = False
        self.polluted = False
        self.asked = 0
        self.heard = False
        self._status: int | None = None
        self._headers: dict[str, str] = {}

    def close(self) -> None:
        """Hang up."""
        self.reusable = False
        self._sock.close()

    def silent(self) -> bool:
        """Whether the server has sent nothing since the last answer, and not hung up either."""
        self._sock.setblocking(False)
        try:
            unasked = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        # A server that hangs up may say why (408); one that stays has answered what was not asked.
        self.polluted = bool(unasked) and not self._hangs_up()
        return False

    def _hangs_up(self) -> bool:
        try:
            while self._sock.recv(_READ_BYTES):
                pass
        except OSError:
            return False
        return True

    def ask(
        self, target: str, headers: Sequence[tuple[str, str]], *, until: float, max_body_bytes: int
    ) -> Answer:
        """Send a GET and read its answer.

        Args:
            target: Path and query, percent-encoded.
            headers: Sent as they are.
            until: Monotonic; the deadline of the last byte.
            max_body_bytes: Largest body that is read, packed and unpacked.

        Raises:
            VendorError: The server does not speak HTTP, breaks off or sends too much; ``sent``, ``status`` and
                ``headers`` say how far it came.
            TimeoutError: The deadline has passed.
            OSError: The connection broke.
        """
        self.reusable = self.heard = False
        self._status, self._headers = None, {}
        try:
            request = self._http.send(h11.Request(method="GET", target=target, headers=list(headers)))
            request += self._http.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeError):
            # Its text may hold the key.
            raise VendorProtocolError("the request has characters that HTTP cannot carry") from None
        self._sock.settimeout(_left(until))
        self._sock.sendall(request)
        self.asked += 1
        try:
            return self._read(until, max_body_bytes)
        except h11.RemoteProtocolError as error:
            raise self._broken(error) from error

    @property
    def status(self) -> int | None:
        """Of the present answer, as soon as it is known."""
        return self._status

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the present answer, as soon as they are known."""
        return self._headers

    def _broken(self, error: h11.RemoteProtocolError) -> VendorUnavailableError:
        if self._status is not None:
            return VendorUnavailableError("the answer broke off before its end", status=self._status)
        return VendorUnavailableError(f"no answer in HTTP ({error})")

    def _read(self, deadline: float, max_body_bytes: int) -> Answer:
        response = self._head(deadline)
        self._headers = _headers_of(response)
        self._status = response.status_code
        whole = 200 <= self._status < 300
        try:
            body = self._body(deadline, max_body_bytes if whole else EXCERPT_BYTES)
        except _TooLargeError as error:
            if whole:
                message = f"the body is larger than {max_body_bytes} bytes"
                raise VendorTooLargeError(message, status=self._status) from error
            return Answer(self._status, self._headers, error.beginning)
        except (VendorError, ConnectionError, h11.RemoteProtocolError) as error:
            if isinstance(error, VendorError):
                error.status = self._status
            if whole:
                raise
            # Of an error the status says what matters.
            return Answer(self._status, self._headers, b"")
        self._end(response)
        return Answer(self._status, self._headers, body)

    def _head(self, deadline: float) -> h11.Response:
        """The head of the answer; interim answers before it are read and forgotten (RFC 9110, 15.2)."""
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            event = self._event(deadline)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise VendorUnavailableError("the connection was closed before the answer was complete")
            _check_head(event)
        raise VendorUnavailableError(f"more than {MAX_INTERIM_ANSWERS} interim answers, and no final one")

    def _body(self, deadline: float, most: int) -> bytes:
        unpacker = Unpacker(self._headers.get("content-encoding", ""), most)
        body = bytearray()
        packed = 0
        while isinstance(event := self._event(deadline), h11.Data):
            packed += len(event.data)
            for piece in unpacker.feed(bytes(event.data)):
                _left(deadline)
                body += piece
                if len(body) > most:
                    raise _TooLargeError(bytes(body[:most]))
            if packed > most + _READ_BYTES:
                raise _TooLargeError(bytes(body))
        if packed:
            unpacker.finish()
        return bytes(body)

    def _event(self, deadline: float) -> object:
        """The next event of the answer; end of message and of connection included."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._sock.settimeout(_left(deadline))
            data = self._sock.recv(_READ_BYTES)
            if not data and self._status is None:
                raise VendorUnavailableError("the connection was closed before the answer was complete")
            self.heard = self.heard or bool(data)
            self._http.receive_data(data)
        return event

    def _end(self, response: h11.Response) -> None:
        """Decide whether another question may be asked here: only where nothing is left over."""
        left, closed = self._http.trailing_data
        self.polluted = bool(left)
        ambiguous = "content-length" in self._headers and "transfer-encoding" in self._headers
        keeps = response.http_version == b"1.1" and self._http.our_state is self._http.their_state is h11.DONE
        if keeps and not (left or closed or ambiguous):
            self._http.start_next_cycle()
            self.reusable = True


def tunnel(sock: socket.socket, proxy: Proxy, host: str, until: float) -> None:
    """Have a proxy pass on everything to a host (RFC 9110, 9.3.6).

    Args:
        sock: Connected with the proxy.
        proxy: Who it is.
        host: Name or address, and port.
        until: Monotonic; until the proxy has agreed.

    Raises:
        ConfigurationError: The proxy refuses.
        VendorUnavailableError: It cannot reach the host, or does not speak HTTP.
        TimeoutError: The time is over.
        OSError: The connection broke.
    """
    where = f"the proxy {proxy.host}:{proxy.port}"
    headers = [("Host", host)]
    if proxy.authorization:
        headers.append(("Proxy-Authorization", proxy.authorization))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    question = http.send(h11.Request(method="CONNECT", target=host, headers=headers))
    sock.settimeout(_left(until))
    sock.sendall((question or b"") + (http.send(h11.EndOfMessage()) or b""))
    try:
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            while (event := http.next_event()) is h11.NEED_DATA:
                sock.settimeout(_left(until))
                http.receive_data(sock.recv(_READ_BYTES))
            if isinstance(event, h11.Response):
                break
        else:
            raise VendorUnavailableError(f"{where} answers without an end")
    except h11.RemoteProtocolError as error:
        raise VendorUnavailableError(f"{where} does not speak HTTP ({error})") from error
    refuse_proxy(event.status_code, where, host)
    if http.trailing_data[0]:
        raise VendorUnavailableError(f"{where} sends bytes that nobody asked for")


def refuse_proxy(status: int, where: str, host: str) -> None:
    """Raise what a proxy's answer means, unless it agrees.

    Raises:
        ConfigurationError: It wants to know who asks, or forbids it.
        VendorUnavailableError: It cannot do it now.
    """
    if status == 407:
        raise ConfigurationError(
            f"{where} refuses us without another user or password (status 407); "
            "set VENDOR_PROXY=http://user:password@host:port"
        )
    if status in (408, 425, 429) or status >= 500:
        raise VendorUnavailableError(f"{where} cannot reach {host} (status {status})")
    if status >= 300:
        raise ConfigurationError(
            f"{where} refuses to connect to {host} (status {status}); have that permitted, or set VENDOR_PROXY to "
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


def _headers_of(response: h11.Response) -> dict[str, str]:
    _check_head(response)
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
