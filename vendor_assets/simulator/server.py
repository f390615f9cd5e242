"""HTTP/1.1 over asyncio: connections, limits, load, faults and the control endpoints.

One thread, no framework, keep-alive. Control endpoints live below ``/_control/`` on the same port and
do not count as vendor calls:

==========================  ====================================================================
``GET log``                 what was counted (``?arrivals=1`` adds each arrival's time)
``GET state``               clock, world, limit and faults in force
``POST faults``             a JSON list of faults to add; ``DELETE`` takes all away
``POST limit``              ``{"limits": ["20/s"], "kind": "sliding", "burst": 1}``
``POST load``               ``{"latency": 0.02, "capacity": 50, "collapse_factor": 3}``
``POST clock``              ``{"now": "2026-11-20T00:00:00Z"}`` or ``{"advance": 3600}``
``POST restate``            ``{"day": "2026-11-20", "factor": 1.1}``: late data for a UTC day
``POST reset``              forget what was counted, take faults away
==========================  ====================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vendor_assets.simulator.dialect import Answer, Dialect, error_body, link_header, page_of
from vendor_assets.simulator.faults import Fault, Faults, parse_fault, spoil
from vendor_assets.simulator.limits import RateLimit, Window, parse_limit
from vendor_assets.simulator.load import Load
from vendor_assets.simulator.record import Record

_HEAD_LIMIT = 65_536
_TARGET_LIMIT = 8190
_BODY_LIMIT = 10_000_000
_JSON = "application/json; charset=utf-8"


class Clock:
    """The vendor's wall clock: real, or set to another time and running from there."""

    def __init__(self, now: float | None = None) -> None:
        self._offset = 0.0 if now is None else now - time.time()

    def now(self) -> float:
        """UNIX seconds."""
        return time.time() + self._offset

    def set(self, now: float) -> None:
        """Go on from another time."""
        self._offset = now - time.time()


@dataclass(slots=True)
class Style:
    """How the vendor speaks of its limit.

    Args:
        headers: When it sends rate-limit headers: ``always``, ``limited`` (only on a 429) or ``never``.
        form: ``newrelic`` (Reset is a UNIX timestamp) or ``datadog`` (Reset is seconds until then).
        retry_after: ``seconds``, ``fraction``, ``date``, ``none``, or words that make no sense:
            ``garbage``, ``negative``, ``year``.
        collapse: What callers see of a collapsed vendor: ``503``, ``reset`` or ``refuse``.
    """

    headers: str = "limited"
    form: str = "newrelic"
    retry_after: str = "none"
    collapse: str = "503"


@dataclass(slots=True)
class _Request:
    arrived: float
    method: str
    target: str
    key: str
    keep_alive: bool
    body: bytes = b""


class Vendor:
    """The state of the running vendor, and the answer to every request."""

    def __init__(
        self,
        dialect: Dialect,
        clock: Clock,
        limit: RateLimit,
        load: Load,
        faults: Faults,
        record: Record,
        style: Style,
        *,
        api_key: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dialect = dialect
        self.clock = clock
        self.limit = limit
        self.load = load
        self.faults = faults
        self.record = record
        self.style = style
        self.api_key = api_key
        self._zero = monotonic()
        self._monotonic = monotonic
        self._down_until = 0.0
        self._down_mode = "503"
        self._date = (0, "")
        self.connections: set[Connection] = set()
        self.refuse: Callable[[float], None] = lambda _seconds: None

    def elapsed(self) -> float:
        """Seconds since the start, monotonic."""
        return self._monotonic() - self._zero

    # Vendor calls

    def judge(self, request: _Request) -> tuple[Answer, Fault | None, float]:
        """The answer to a vendor call, the fault that hits it, and the seconds until it is ready."""
        arrived = request.arrived
        endpoint = _endpoint(request.target)
        if self.load.offer(arrived):
            self.start_outage("collapse", self.load.collapse_seconds, self.style.collapse)
        if arrived < self._down_until:
            if self._down_mode == "503":
                return Answer(endpoint, 503, error_body("The service is unavailable.")), None, 0.0
            return Answer(endpoint, 503, b""), Fault("reset"), 0.0
        if not request.key or (self.api_key is not None and request.key != self.api_key):
            return Answer(endpoint, 401, error_body("The API key provided is invalid")), None, 0.0
        if len(request.target) > _TARGET_LIMIT:
            return Answer(endpoint, 414, error_body("The request line is too long.")), None, 0.0
        if request.method != "GET":
            return Answer(endpoint, 405, error_body("Only GET is allowed.")), None, 0.0
        admitted, window = self.limit.admit(endpoint, arrived)
        headers = self._limit_headers(window, arrived, admitted=admitted)
        fault = self.faults.pick(request.target, refused=not admitted)
        if not admitted:
            if fault is not None:
                headers = self._limit_headers(window, arrived, admitted=False, skew=fault.seconds or 3600.0)
            body = error_body("Too many requests: the limit of API calls is exceeded.")
            return Answer(endpoint, 429, body, headers), fault, 0.0
        answer = self._answer(request, fault)
        if headers:
            answer = answer._replace(headers=answer.headers + headers)
        return answer, fault, self.load.delay(arrived)

    def _answer(self, request: _Request, fault: Fault | None) -> Answer:
        target, now = request.target, self.clock.now()
        if fault is None:
            return self.dialect.answer(target, now)
        endpoint = _endpoint(target)
        match fault.kind:
            case "status":
                title = _phrase(fault.status)
                return Answer(endpoint, fault.status, error_body(title))
            case "redirect":
                return Answer(endpoint, 302, b"", (("Location", fault.location),))
            case "retry_after":
                body = error_body("The service is unavailable.")
                return Answer(endpoint, 503, body, (("Retry-After", fault.value),))
            case "endless_paging" | "repeating_page":
                page = page_of(parse_qsl(urlsplit(target).query))
                source = target
                if fault.kind == "repeating_page":
                    pairs = [(key, text) for key, text in parse_qsl(urlsplit(target).query) if key != "page"]
                    source = urlsplit(target).path + "?" + "&".join(f"{key}={text}" for key, text in pairs)
                answer = self.dialect.answer(source, now)
                link = link_header(self.dialect.base_url, target, [(page + 1, "next")])
                return answer._replace(headers=(("Link", link),))
        answer = self.dialect.answer(target, now)
        return answer._replace(body=spoil(fault.kind, answer.body)) if answer.status == 200 else answer

    def _limit_headers(
        self, window: Window | None, now: float, *, admitted: bool, skew: float = 0.0
    ) -> tuple[tuple[str, str], ...]:
        style = self.style
        if window is None:
            return ()
        headers: list[tuple[str, str]] = []
        wait = window.reset_in(now)
        if style.headers == "always" or (style.headers == "limited" and not admitted):
            remaining = str(window.remaining(now) if admitted else 0)
            headers += [("X-RateLimit-Limit", str(window.limit.calls)), ("X-RateLimit-Remaining", remaining)]
            if style.form == "newrelic":
                headers.append(("X-RateLimit-Reset", str(math.ceil(self.clock.now() + wait + skew))))
            else:
                headers.append(("X-RateLimit-Reset", str(math.ceil(wait))))
                headers.append(("X-RateLimit-Period", f"{window.limit.period:g}"))
                headers.append(("X-RateLimit-Name", "api"))
        if not admitted and style.retry_after != "none":
            text = {
                "seconds": str(math.ceil(wait)),
                "fraction": f"{wait:.3f}",
                "date": formatdate(math.ceil(self.clock.now() + wait + skew), usegmt=True),
                "garbage": "soon",
                "negative": "-5",
                "year": "31536000",
            }[style.retry_after]
            headers.append(("Retry-After", text))
        return tuple(headers)

    def start_outage(self, kind: str, seconds: float, mode: str) -> None:
        """Go down for a while."""
        now = self.elapsed()
        self._down_until = now + seconds
        self._down_mode = mode
        self.record.outage(kind, now, seconds)
        if mode == "refuse":
            self.refuse(seconds)

    def date(self, skew: float = 0.0) -> str:
        """The Date header."""
        now = int(self.clock.now())
        if skew:
            return formatdate(now + skew, usegmt=True)
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    # Control

    def control(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        """Answer a control request: status and JSON."""
        parts = urlsplit(target)
        name = parts.path.removeprefix("/_control/")
        try:
            values = json.loads(body) if body else {}
            match method, name:
                case "GET", "log":
                    return 200, self.log(arrivals="arrivals" in dict(parse_qsl(parts.query)))
                case "GET", "state":
                    return 200, self.state()
                case "POST", "faults":
                    return 200, self._add_faults(values)
                case "DELETE", "faults":
                    self.faults.clear()
                    self._down_until = 0.0
                    return 200, {"faults": []}
                case "POST", "limit":
                    self._set_limit(values)
                    return 200, {"limit": str(self.limit)}
                case "POST", "load":
                    self._set_load(values)
                    return 200, self.state()
                case "POST", "clock":
                    return 200, self._set_clock(values)
                case "POST", "restate":
                    self.dialect.world.restate(date.fromisoformat(values["day"]), float(values["factor"]))
                    return 200, {}
                case "POST", "reset":
                    self.faults.clear()
                    self.faults.hits.clear()
                    self._down_until = 0.0
                    self.record.clear()
                    return 200, {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return 400, {"error": str(error)}
        return 404, {"error": f"no control endpoint {method} {parts.path}"}

    def log(self, *, arrivals: bool = False) -> dict[str, object]:
        """The vendor's own log."""
        summary = self.record.summary(self.elapsed(), arrivals=arrivals)
        summary["limit"] = str(self.limit)
        summary["faults"] = dict(self.faults.hits)
        summary["now"] = _iso(self.clock.now())
        return summary

    def state(self) -> dict[str, object]:
        """Clock, limit, load and faults in force."""
        return {
            "now": _iso(self.clock.now()),
            "limit": str(self.limit),
            "latency": self.load.latency_seconds,
            "capacity": self.load.capacity,
            "collapse_factor": self.load.collapse_factor,
            "down": self.elapsed() < self._down_until,
            "faults": [asdict(rule) for rule in self.faults.rules],
            "seed": self.dialect.world.seed,
        }

    def _add_faults(self, values: Any) -> object:
        rules = [parse_fault(item) for item in (values if isinstance(values, list) else [values])]
        self.faults.add(rules)
        for rule in rules:
            if rule.kind == "outage":
                self.faults.hits["outage"] += 1
                self.start_outage("fault", 30.0 if rule.seconds is None else rule.seconds, rule.mode)
        return {"faults": [asdict(rule) for rule in self.faults.rules]}

    def _set_limit(self, values: dict[str, object]) -> None:
        texts = values.get("limits", [values["limit"]] if "limit" in values else [])
        if not isinstance(texts, list):
            raise TypeError("limits is not a list such as ['20/s']")
        kind = values.get("kind", self.limit.kind)
        if kind not in ("bucket", "fixed", "sliding", "none"):
            raise ValueError(f"kind {kind!r} is not bucket, fixed, sliding or none")
        burst = values.get("burst")
        self.limit = RateLimit(
            [parse_limit(str(text)) for text in texts] or self.limit.limits,
            kind,
            None if burst is None else int(str(burst)),
        )

    def _set_load(self, values: dict[str, object]) -> None:
        numbers = {name: None if value is None else float(str(value)) for name, value in values.items()}
        old = self.load
        self.load = Load(
            numbers.pop("latency", old.latency_seconds) or 0.0,
            numbers.pop("capacity", old.capacity),
            numbers.pop("collapse_factor", old.collapse_factor),
            numbers.pop("collapse_seconds", old.collapse_seconds) or 0.0,
        )
        if numbers:
            raise ValueError(f"unknown: {', '.join(numbers)}")

    def _set_clock(self, values: dict[str, object]) -> object:
        if "now" in values:
            self.clock.set(parse_iso(str(values["now"])))
        else:
            self.clock.set(self.clock.now() + float(str(values["advance"])))
        return {"now": _iso(self.clock.now())}


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it are answered one after another."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._buffer = b""
        self._line_at: float | None = None
        self._waiting: deque[_Request] = deque()
        self._busy = False
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._pending: Callable[[str], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]
        self._vendor.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio gives it
        """The peer is gone: what was in flight is given up."""
        self._vendor.connections.discard(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        if self._pending is not None:
            self._pending("abandoned")
        for request in self._waiting:
            if not request.target.startswith("/_control/"):
                self._leave(request, Answer(_endpoint(request.target), 0, b""), "abandoned")
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
            request = self._parse(end)
            if request is None:
                return
            self._line_at = None
            if not request.target.startswith("/_control/"):
                self._vendor.record.arrive(request.arrived, with_key=bool(request.key))
            if self._busy:
                self._waiting.append(request)
            else:
                self._handle(request)

    def _parse(self, end: int) -> _Request | None:
        head = self._buffer[:end].decode("latin-1")
        line, _, rest = head.partition("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
            self._refuse(400)
            return None
        lower = rest.lower()
        length = 0
        if "content-length:" in lower:
            text = _header(rest, lower, "content-length")
            if not text.isdecimal() or int(text) > _BODY_LIMIT:
                self._refuse(400)
                return None
            length = int(text)
        start = end + 4
        if len(self._buffer) < start + length:
            return None
        body = self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        connection = _header(rest, lower, "connection").lower() if "connection:" in lower else ""
        keep_alive = connection != "close" if words[2] == "HTTP/1.1" else connection == "keep-alive"
        arrived = self._vendor.elapsed() if self._line_at is None else self._line_at
        return _Request(arrived, words[0], words[1], _header(rest, lower, "x-api-key"), keep_alive, body)

    def _refuse(self, status: int) -> None:
        self._buffer = b""
        self._transport.write(_head(status, _JSON, 0, self._vendor.date(), (), keep_alive=False))
        self._transport.close()

    def _handle(self, request: _Request) -> None:
        vendor = self._vendor
        if request.target.startswith("/_control/"):
            status, tree = vendor.control(request.method, request.target, request.body)
            body = json.dumps(tree).encode()
            self._write(
                _head(status, _JSON, len(body), vendor.date(), (), keep_alive=request.keep_alive), body
            )
            self._done(request)
            return
        answer, fault, delay = vendor.judge(request)
        if fault is not None and fault.kind == "latency":
            delay += fault.seconds or 1.0
        if delay <= 0:
            self._send(request, answer, fault)
            return
        self._busy = True
        handle = asyncio.get_running_loop().call_later(delay, self._send, request, answer, fault)

        def give_up(outcome: str) -> None:
            handle.cancel()
            self._leave(request, answer, outcome)

        self._pending = give_up

    def _send(self, request: _Request, answer: Answer, fault: Fault | None) -> None:
        self._pending = None
        kind = "" if fault is None else fault.kind
        if fault is not None and kind in (
            "reset",
            "hang",
            "truncated",
            "slow_body",
            "endless_body",
            "huge_body",
        ):
            self._misbehave(request, answer, fault)
            return
        content_type = {"html": "text/html; charset=utf-8", "wrong_type": "text/plain"}.get(kind, _JSON)
        skew = (fault.seconds or 3600.0) if fault is not None and kind == "clock_skew" else 0.0
        head = _head(
            answer.status,
            content_type,
            len(answer.body),
            self._vendor.date(skew),
            answer.headers,
            keep_alive=request.keep_alive,
        )
        # Counted before it is sent: whoever has the answer finds it in the log.
        right = kind in ("", "latency", "clock_skew")
        self._leave(request, answer, str(answer.status), served=right, fault=kind)
        self._write(head, answer.body)
        self._done(request)

    def _misbehave(self, request: _Request, answer: Answer, fault: Fault) -> None:
        if fault.kind == "reset":
            self._leave(request, answer, "reset", fault="reset")
            self._transport.abort()
            return
        if fault.kind == "truncated":
            head = _head(
                answer.status, _JSON, len(answer.body), self._vendor.date(), answer.headers, keep_alive=True
            )
            self._leave(request, answer, str(answer.status), fault="truncated")
            self._write(head, answer.body[: len(answer.body) // 2])
            self._transport.close()
            return
        self._busy = True
        ended = False

        def give_up(outcome: str) -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._leave(request, answer, outcome, served=outcome == "200", fault=fault.kind)

        self._pending = give_up
        self._task = asyncio.get_running_loop().create_task(self._drip(request, answer, fault, give_up))

    async def _drip(
        self, request: _Request, answer: Answer, fault: Fault, finish: Callable[[str], None]
    ) -> None:
        if fault.kind == "hang":
            await asyncio.sleep(1e9 if fault.seconds is None else fault.seconds)
            finish("hang")
            self._pending = None
            self._transport.abort()
            return
        length = {"slow_body": len(answer.body), "huge_body": fault.bytes, "endless_body": 10**12}[fault.kind]
        self._transport.write(
            _head(200, _JSON, length, self._vendor.date(), answer.headers, keep_alive=request.keep_alive)
        )
        async for piece in _pieces(answer.body, fault):
            await self._writable.wait()
            self._transport.write(piece)
        self._pending = None
        finish("200" if fault.kind == "slow_body" else "huge")
        self._done(request)

    def _write(self, head: bytes, body: bytes) -> None:
        self._transport.write(head + body)

    def _leave(
        self, request: _Request, answer: Answer, outcome: str, *, served: bool = False, fault: str = ""
    ) -> None:
        vendor = self._vendor
        vendor.record.leave(
            request.arrived,
            vendor.elapsed(),
            answer.endpoint,
            request.target,
            outcome,
            leaves=answer.leaves,
            served=served,
            size=len(answer.body),
            fault=fault,
        )

    def _done(self, request: _Request) -> None:
        self._busy = False
        self._task = None
        if not request.keep_alive:
            self._transport.close()
            return
        if self._waiting:
            self._handle(self._waiting.popleft())


class Server:
    """Listens, closes the port during an outage of mode ``refuse``, and opens it again."""

    def __init__(self, vendor: Vendor, host: str, port: int) -> None:
        self._vendor = vendor
        self._host = host
        self.port = port
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
            lambda: Connection(self._vendor), self._host, self.port, backlog=1024, reuse_address=True
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._vendor.dialect.base_url = f"http://{self._host}:{self.port}"

    def close(self) -> None:
        """Stop listening and reset all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._vendor.connections):
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


def parse_iso(text: str) -> float:
    """UNIX seconds of an ISO 8601 time; without an offset it is UTC.

    Raises:
        ValueError: It is no such time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


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


def _endpoint(target: str) -> str:
    path = target.partition("?")[0]
    for ending, endpoint in (
        ("/metrics/data.json", "data"),
        ("/metrics.json", "metrics"),
        ("/hosts.json", "hosts"),
        ("/applications.json", "applications"),
    ):
        if path.endswith(ending):
            return endpoint
    return "unknown"


def _header(head: str, lower: str, name: str) -> str:
    """The value of a header; empty where it is missing."""
    if lower.startswith(name + ":"):
        start = len(name) + 1
    else:
        found = lower.find(f"\r\n{name}:")
        if found < 0:
            return ""
        start = found + len(name) + 3
    end = head.find("\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


def _head(
    status: int,
    content_type: str,
    length: int,
    date: str,
    headers: tuple[tuple[str, str], ...],
    *,
    keep_alive: bool,
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_phrase(status)}",
        f"Date: {date}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
    ]
    lines += [f"{name}: {_one_line(text)}" for name, text in headers]
    if not keep_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unknown"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
