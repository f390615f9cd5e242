"""Heads of HTTP/1.1 that leave nothing to interpret: they are written and read here, any other by h11. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import h11

_TARGET: Final = re.compile("[!-~]+")
_PLAIN: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [ -~]*\r\n){1,100})\r\n"
)
"""Of what RFC 9112, 4 and 5, permits, what all servers write."""
_LENGTH: Final = re.compile("[0-9]{1,15}")


class PlainHead(NamedTuple):
    """The head of an answer that ends after a stated length and keeps the connection.

    Attributes:
        headers: Names in lower case; each came once.
        size: Of the head, in bytes.
        length: Of the body, in bytes.
    """

    status: int
    headers: dict[str, str]
    size: int
    length: int

    @classmethod
    def read(cls, data: bytes) -> PlainHead | None:
        """The head with which some bytes begin; None for one that is not whole or not plain."""
        match = _PLAIN.match(data)
        if match is None:
            return None
        lines = match[2].decode("ascii").split("\r\n")[:-1]
        fields = [line.partition(": ") for line in lines]
        headers = {name.lower(): text.strip() for name, _, text in fields}
        status, length = int(match[1]), headers.get("content-length", "")
        keeps = headers.get("connection", "keep-alive").lower() == "keep-alive"
        framed = _LENGTH.fullmatch(length) and "transfer-encoding" not in headers and status not in (204, 304)
        if len(headers) < len(lines) or not (keeps and framed):
            return None
        return cls(status, headers, match.end(), int(length))


class Asking(NamedTuple):
    """What the requests of a connection have in common; most of them differ by their targets alone.

    Attributes:
        headers: Without the length of a body.
        keeps: Whether the server may keep the connection.
    """

    method: str
    headers: Sequence[tuple[str, str]]
    fields: bytes
    keeps: bool

    @classmethod
    def of(cls, method: str, headers: Sequence[tuple[str, str]]) -> Asking:
        """Have h11 check method and headers.

        Raises:
            h11.LocalProtocolError: HTTP cannot carry them; its text may hold a secret.
        """
        head = h11.Connection(h11.CLIENT).send(h11.Request(method=method, target="/", headers=[*headers]))
        keeps = not any(name.lower() == "connection" for name, _ in headers)
        return cls(method, headers, (head or b"").partition(b"\r\n")[2].removesuffix(b"\r\n"), keeps)

    def request(self, target: str, content: bytes) -> bytes:
        """A whole request.

        Raises:
            UnicodeError: HTTP cannot carry the target.
        """
        if not _TARGET.fullmatch(target):
            raise UnicodeError("not printable ASCII")
        length = b"Content-Length: %d\r\n" % len(content) if content or self.method != "GET" else b""
        first = f"{self.method} {target} HTTP/1.1\r\n".encode("ascii")
        return b"".join((first, self.fields, length, b"\r\n", content))

    def reader(self, max_head_bytes: int) -> h11.Connection:
        """Reads the answer to such a request, of whatever form."""
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head_bytes)
        http.send(h11.Request(method=self.method, target="/", headers=[*self.headers]))
        http.send(h11.EndOfMessage())
        return http
