"""Decompressing a body: ``Content-Encoding`` undone step by step, no further than is wanted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

from vendor_assets.errors import VendorProtocolError

STEP_BYTES: Final = 65_536
"""The most that one step yields: between two steps the caller checks time and size."""

MAX_CODINGS: Final = 2
"""Codings around a body, one in the other."""


class _Gzip:
    """Members of gzip one after another (RFC 1952); zeros after the last one are padding."""

    def __init__(self) -> None:
        # zlib does not export the type of its decompressors.
        self._member: Any = None
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                if self._begun and not data.strip(b"\0"):
                    return
                self._member, self._begun = zlib.decompressobj(16 + zlib.MAX_WBITS), True
            yield self._member.decompress(data, STEP_BYTES)
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member = self._member.unused_data, None

    @property
    def whole(self) -> bool:
        return self._member is None


class _Deflate:
    """A zlib stream (RFC 1950), or the raw one that some servers send under the same name."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._head = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            self._head = data = self._head + data
            if len(data) < 2:
                return
            wrapped = data[0] & 0x0F == 8 and (data[0] * 256 + data[1]) % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        while data and not self._stream.eof:
            yield self._stream.decompress(data, STEP_BYTES)
            data = self._stream.unconsumed_tail
        if data or self._stream.unused_data:
            raise zlib.error("something follows the end of the stream")

    @property
    def whole(self) -> bool:
        return not self._head if self._stream is None else bool(self._stream.eof)


_CODINGS: Final[dict[str, type[_Gzip | _Deflate]]] = {
    "gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate
}  # fmt: skip


class Unpacker:
    """Undoes the codings of one body.

    Args:
        max_bytes: The most that may come out of any of them.

    Raises:
        VendorProtocolError: A coding that was not asked for, or too many of them.
    """

    def __init__(self, codings: str, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        names = [
            name for text in codings.split(",") if (name := text.strip().lower()) not in ("", "identity")
        ]
        unknown = next((name for name in names if name not in _CODINGS), None)
        if unknown is not None:
            raise VendorProtocolError(
                f"the body is packed as {unknown[:40]!r}; asked for was gzip or deflate"
            )
        if len(names) > MAX_CODINGS:
            raise VendorProtocolError(f"the body is packed {len(names)} times over")
        # The last one named was applied last.
        self._layers = [_CODINGS[name]() for name in reversed(names)]
        self._between = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Undo as much as possible, in pieces of :data:`STEP_BYTES` at most; empty pieces are steps too.

        Raises:
            VendorProtocolError: The data is not in its coding, or too much between two codings.
        """
        try:
            yield from self._through(self._layers, data)
        except zlib.error as error:
            raise VendorProtocolError("the body cannot be decompressed") from error

    def _through(self, layers: list[_Gzip | _Deflate], data: bytes) -> Iterator[bytes]:
        if not layers:
            yield data
            return
        for piece in layers[0].feed(data):
            if not piece or not layers[1:]:
                yield piece
                continue
            # What is empty in the end may be huge in between.
            self._between += len(piece)
            if self._between > self._max_bytes:
                raise VendorProtocolError(f"the body is larger than {self._max_bytes} bytes")
            yield from self._through(layers[1:], piece)

    def finish(self) -> None:
        """Check that the body is complete.

        Raises:
            VendorProtocolError: It is not.
        """
        if not all(layer.whole for layer in self._layers):
            raise VendorProtocolError("the body cannot be decompressed: its packing breaks off")
