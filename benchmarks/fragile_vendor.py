"""A vendor that gives no sign before it goes down, as a process: the judge of ``benchmarks.budget falls``.

    python -m benchmarks.fragile_vendor '{"bears": 150, "window": 2, "down": 10}'

Prints its port. ``GET /log`` tells what it saw, ``GET /bears/90`` changes what it bears, ``GET /away/30`` is an outage
of its own; any other path is a call. The model is that of the tests, ``vendor_model.Fragile``, on the machine's clock;
``mode`` is what a caller sees of a failure: a status, ``reset`` or ``hang``.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vendor_assets_tests.support.vendor_model import Fragile


async def serve(values: dict[str, Any]) -> None:
    """Answer until the process is ended."""
    mode = str(values.pop("mode", "503"))
    model = Fragile(**values)
    started = time.monotonic()
    calls: list[tuple[float, bool]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await reader.readuntil(b"\r\n\r\n"):
                path = request.split(b" ", 2)[1].decode()
                body, status = b"{}", "200 OK"
                if path == "/log":
                    body = json.dumps(
                        {"seconds": time.monotonic() - started, "outages": model.outages, "calls": calls}
                    ).encode()
                elif path.startswith("/bears/"):
                    model.bears = float(path.rpartition("/")[2])
                elif path.startswith("/away/"):
                    now = time.monotonic() - started
                    model.outside = [(now, now + float(path.rpartition("/")[2]))]
                else:
                    now = time.monotonic() - started
                    outcome, delay = model.arrive(now)
                    calls.append((now, outcome == "ok"))
                    if outcome == "failed" and mode == "hang":
                        await asyncio.sleep(60)
                        break
                    await asyncio.sleep(delay)
                    if outcome == "failed" and mode == "reset":
                        connection: socket.socket = writer.get_extra_info("socket")
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        writer.transport.abort()
                        return
                    status = "200 OK" if outcome == "ok" else f"{mode} Failed"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class FragileVendor:
    """A running one."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> Any:
        """Ask its own paths."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read())
        connection.close()
        return found


@contextmanager
def fragile_vendor(**values: Any) -> Iterator[FragileVendor]:
    """Start one; it is ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fragile_vendor", json.dumps(values)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield FragileVendor(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
