"""A small HTTP proxy before a server, in threads of the test: it passes on, refuses, delays or breaks connections."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class FaultyProxy:
    """A running proxy.

    Attributes:
        url: Where it listens.
        mode: What happens to connections: ``pass``, ``500``, ``503``, ``slow`` (each way 2 s late) or ``reset``.
        refused: How many requests it did not pass on.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.mode = "pass"
        self.refused = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: str) -> None:
        """Go over to another mode; connections that are open break."""
        self.mode = mode
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        self.set("reset")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self.mode == "reset":
                self.refused += 1
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if self.mode in ("500", "503"):
                self._refuse(connection)
                return
            with socket.create_connection(self._upstream) as upstream:
                self._open |= {connection, upstream}
                back = threading.Thread(target=self._pump, args=(upstream, connection), daemon=True)
                back.start()
                self._pump(connection, upstream)
                back.join()
                self._open -= {connection, upstream}

    def _refuse(self, connection: socket.socket) -> None:
        self.refused += 1
        connection.settimeout(1)
        with suppress(TimeoutError):
            while b"\r\n\r\n" not in connection.recv(65_536):
                pass
        connection.sendall(
            f"HTTP/1.1 {self.mode} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        # A body may still be on its way; closing on it would take the answer back.
        connection.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            while connection.recv(65_536):
                pass

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.mode == "slow":
                    time.sleep(2)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy before a server while the block lasts."""
    proxy = FaultyProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
