"""HTTP/1.1 over asyncio: one thread, no framework, keep-alive, and what a bad connection does."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable

from vendor_assets.simulator.dialect import Headers, Reply
from vendor_assets.simulator.faults import Fault
from vendor_assets.simulator.vendor import CONTROL, Call, Vendor, endpoint_of, key_headers_of, phrase_of

_HEAD_LIMIT = 65_536
_BODY_LIMIT = 10_000_000
_JSON = "application/json; charset=utf-8"


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it are answered one after another."""

    def __init__(self, server: Server) -> None:
        self._connections = server.connections
        self._vendor = server.vendor
        self._buffer = b""
        self._line_at: float | None = None
        self._waiting: deque[Call] = deque()
        self._busy = False
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._pending: Callable[[str], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio gives it
        """The peer is gone: what was in flight is given up."""
        self._connections.discard(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        if self._pending is not None:
            self._pending("abandoned")
        for call in self._waiting:
            if not call.target.startswith(CONTROL):
                self._leave(call, Reply(endpoint_of(call.target), 0, b""), "abandoned")
        self._waiting.clear()

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The peer caught up."""
        self._writable.set()

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()

    # Requests

    def data_received(self, data: bytes) -> None:
        """Parse as many requests as there are."""
        self._buffer += data
        while self._buffer:
            if self._line_at is None and b"\n" in self._buffer:
                self._line_at = self._vendor.elapsed()
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _HEAD_LIMIT:
                    self._refuse(431)
                return
            call = self._parse(end)
            if call is None:
                return
            self._line_at = None
            if not call.target.startswith(CONTROL):
                document = endpoint_of(call.target) == "graphql"
                self._vendor.record.arrive(call.arrived, with_key=bool(call.key), document=document)
            if self._busy:
                self._waiting.append(call)
            else:
                self._handle(call)

    def _parse(self, end: int) -> Call | None:
        line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
            self._refuse(400)
            return None
        # The first of each name counts.
        headers = {
            name.lower(): text.strip() for name, _, text in (one.partition(":") for one in lines[::-1])
        }
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _BODY_LIMIT:
            self._refuse(400)
            return None
        start = end + 4
        stop = start + int(length)
        if len(self._buffer) < stop:
            return None
        body, self._buffer = self._buffer[start:stop], self._buffer[stop:]
        connection = headers.get("connection", "").lower()
        keep_alive = connection != "close" if words[2] == "HTTP/1.1" else connection == "keep-alive"
        arrived = self._vendor.elapsed() if self._line_at is None else self._line_at
        key, application_key = (headers.get(name, "") for name in key_headers_of(words[1]))
        return Call(arrived, words[0], words[1], key, keep_alive, body, application_key, headers)

    def _refuse(self, status: int) -> None:
        self._buffer = b""
        self._transport.write(self._head(status, 0))
        self._transport.close()

    def _handle(self, call: Call) -> None:
        if call.target.startswith(CONTROL):
            status, tree = self._vendor.control(call.method, call.target, call.body)
            body = json.dumps(tree).encode()
            self._transport.write(self._head(status, len(body), keep_alive=call.keep_alive) + body)
            self._done(call)
            return
        reply, fault, delay = self._vendor.judge(call)
        if fault is not None and fault.kind == "latency":
            delay += fault.seconds or 1.0
        if delay <= 0:
            self._send(call, reply, fault)
            return
        self._busy = True
        handle = asyncio.get_running_loop().call_later(delay, self._send, call, reply, fault)

        def give_up(outcome: str) -> None:
            handle.cancel()
            self._leave(call, reply, outcome)

        self._pending = give_up

    # Responses

    def _send(self, call: Call, reply: Reply, fault: Fault | None) -> None:
        self._pending = None
        kind = "" if fault is None else fault.kind
        size, headers = len(reply.body), reply.headers
        if kind == "reset":
            self._leave(call, reply, "reset", fault=kind)
            self._transport.abort()
        elif kind == "truncated":
            self._leave(call, reply, str(reply.status), fault=kind)
            head = self._head(reply.status, size, headers=headers, keep_alive=True)
            self._transport.write(head + reply.body[: size // 2])
            self._transport.close()
        elif fault is not None and kind in ("hang", "slow_body", "endless_body", "huge_body"):
            self._busy = True
            self._start_drip(call, reply, fault)
        else:
            # Counted before it is sent: whoever has the response finds it in the log.
            right = kind in ("", "latency", "clock_skew", "alias_timeout")
            outcome = "throttled" if reply.throttled else str(reply.status)
            self._leave(call, reply, outcome, served=right, fault=kind)
            head = self._head(
                reply.status,
                size,
                headers=headers,
                keep_alive=call.keep_alive,
                content_type={"html": "text/html; charset=utf-8", "wrong_type": "text/plain"}.get(
                    kind, _JSON
                ),
                skew=(fault.seconds or 3600.0) if fault is not None and kind == "clock_skew" else 0.0,
            )
            self._transport.write(head + reply.body)
            self._done(call)

    def _start_drip(self, call: Call, reply: Reply, fault: Fault) -> None:
        ended = False

        def finish(outcome: str) -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._leave(call, reply, outcome, served=outcome == "200", fault=fault.kind)

        self._pending = finish
        self._task = asyncio.get_running_loop().create_task(self._drip(call, reply, fault, finish))

    async def _drip(self, call: Call, reply: Reply, fault: Fault, finish: Callable[[str], None]) -> None:
        if fault.kind == "hang":
            await asyncio.sleep(1e9 if fault.seconds is None else fault.seconds)
            finish("hang")
            self._pending = None
            self._transport.abort()
            return
        size = {"slow_body": len(reply.body), "huge_body": fault.bytes, "endless_body": 10**12}[fault.kind]
        self._transport.write(self._head(200, size, headers=reply.headers, keep_alive=call.keep_alive))
        async for piece in _pieces(reply.body, fault):
            await self._writable.wait()
            self._transport.write(piece)
        self._pending = None
        finish("200" if fault.kind == "slow_body" else "huge")
        self._done(call)

    def _head(
        self,
        status: int,
        length: int,
        *,
        headers: Headers = (),
        keep_alive: bool = False,
        content_type: str = _JSON,
        skew: float = 0.0,
    ) -> bytes:
        lines = [
            f"HTTP/1.1 {status} {phrase_of(status)}",
            f"Date: {self._vendor.date(skew)}",
            f"Content-Type: {content_type}",
            f"Content-Length: {length}",
        ]
        lines += [f"{name}: {text}".replace("\r", " ").replace("\n", " ") for name, text in headers]
        if not keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _leave(
        self, call: Call, reply: Reply, outcome: str, *, served: bool = False, fault: str = ""
    ) -> None:
        self._vendor.record.leave(
            call.arrived,
            self._vendor.elapsed(),
            reply.endpoint,
            call.request,
            outcome,
            leaves=reply.leaves,
            served=served,
            size=len(reply.body),
            fault=fault,
            queries=reply.queries,
            partial=reply.partial,
            bucket=reply.bucket,
        )

    def _done(self, call: Call) -> None:
        self._busy = False
        self._task = None
        if not call.keep_alive:
            self._transport.close()
        elif self._waiting:
            self._handle(self._waiting.popleft())


class Server:
    """Listens, closes the port during an outage of mode ``refuse``, and opens it again."""

    def __init__(self, vendor: Vendor, host: str, port: int) -> None:
        self.vendor = vendor
        self.connections: set[Connection] = set()
        self.port = port
        self._host = host
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        vendor.refuse = self._refuse

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken or not allowed.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), self._host, self.port, backlog=1024, reuse_address=True
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.vendor.dialect.base_url = f"http://{self._host}:{self.port}"

    def close(self) -> None:
        """Stop listening and reset all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.abort()

    def _refuse(self, seconds: float) -> None:
        async def away() -> None:
            await asyncio.sleep(0.01)
            self.close()
            await asyncio.sleep(seconds)
            await self.open()

        task = asyncio.get_running_loop().create_task(away())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _pieces(body: bytes, fault: Fault) -> AsyncIterator[bytes]:
    if fault.kind == "slow_body":
        step = max(1, len(body) // 20)
        for start in range(0, len(body), step):
            yield body[start : start + step]
            await asyncio.sleep((fault.seconds or 5.0) / 20)
    elif fault.kind == "huge_body":
        piece = b'{"padding":"' + b"x" * 65_000
        for start in range(0, fault.bytes, len(piece)):
            yield piece[: fault.bytes - start]
            await asyncio.sleep(0)
    else:
        while True:
            yield b" "
            await asyncio.sleep(1.0)
