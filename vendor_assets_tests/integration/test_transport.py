"""What a server may send, byte by byte: no answer is ever taken for the answer to another question."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vendor_assets.client import transport as transport_module
from vendor_assets.client.network import Network
from vendor_assets.client.transport import Transport
from vendor_assets.errors import VendorError, VendorUnavailableError

Script = Callable[[str, int], tuple[bytes, bool]]
"""What is sent for a target, the how-manieth on its connection it is; and whether the server stays."""


class RawServer:
    """Keeps connections and sends what a script says.

    Attributes:
        url: Where it is.
        targets: What was asked, in order.
        connections: Those that were accepted.
    """

    def __init__(self, script: Script, listener: socket.socket) -> None:
        self.script = script
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.targets: list[str] = []
        self.connections: list[socket.socket] = []
        self._listener = listener

    def accept(self) -> None:
        """Serve until the listener is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received, asked = b"", 0
        with suppress(OSError), connection:
            while True:
                while b"\r\n\r\n" not in received:
                    chunk = connection.recv(65_536)
                    if not chunk:
                        return
                    received += chunk
                request, _, received = received.partition(b"\r\n\r\n")
                target = request.split(b" ")[1].decode()
                self.targets.append(target)
                said, stays = self.script(target, asked)
                asked += 1
                connection.sendall(said)
                if not stays:
                    return


@contextmanager
def raw_server(script: Script) -> Iterator[RawServer]:
    """A server on a free port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = RawServer(script, listener)
        thread = threading.Thread(target=server.accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in server.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def sending(url: str, **options: Any) -> Iterator[Callable[[str], bytes]]:
    """Asks a server for a target, over connections that are kept."""
    chosen: dict[str, Any] = {"pool_size": 8, "attempt_timeout_seconds": 20, "connect_timeout_seconds": 20}
    chosen |= {"max_body_bytes": 1 << 20, "network": Network()} | options
    transport = Transport(url, **chosen)
    try:
        yield lambda target: transport.send(url + target, {"X-Api-Key": "key"}).body
    finally:
        transport.close()


@contextmanager
def silent_address() -> Iterator[tuple[str, int]]:
    """An address that answers no attempt to connect, as behind a firewall: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where the network drops IPv6; from then on, the address that answered is asked first."""
    tried: list[object] = []
    connect = socket.socket.connect

    def recorded(sock: socket.socket, address: Any) -> None:
        tried.append(address)
        connect(sock, address)

    with raw_server(lambda _target, _asked: (answer("{}"), False)) as server, silent_address() as silent:
        live = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (silent, live)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(socket.socket, "connect", recorded)
        with sending(server.url, connect_timeout_seconds=3) as ask:
            assert [ask("/a"), ask("/b")] == [b"{}", b"{}"]
    assert tried == [silent, live, live]


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are asked again at once: what is left over must be noticed all the same."""
    monkeypatch.setattr(transport_module, "REST_SECONDS", 0.0)


def answer(body: str, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer that keeps the connection."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


INTERIM = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
    "unheard of": b"HTTP/1.1 199 \r\nContent-Length: 5\r\n\r\n",
    "several": b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("name", INTERIM)
def test_an_interim_answer_is_not_the_answer(name: str, restless: None) -> None:
    """Answers of 1xx are skipped, and what follows them on the connection is the answer to this very question."""
    with raw_server(lambda target, _: (INTERIM[name] + answer(target), True)) as server:
        with sending(server.url) as ask:
            assert [ask(f"/{number}") for number in range(5)] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        assert len(server.connections) == 1
        assert len(server.targets) == 5


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 21, "more than 20 interim answers"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "no answer in HTTP"),
        (b"HTTP/1.1 103 Early Hints\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", "200 headers"),
    ],
    ids=["endless", "101", "flood"],
)
def test_interim_answers_have_bounds(head: bytes, said: str) -> None:
    """More of them than anybody means, one that switches to another protocol, and one of many headers are refused."""
    with (
        raw_server(lambda target, _: (head + answer(target), True)) as server,
        sending(server.url) as ask,
        pytest.raises(VendorUnavailableError, match=said),
    ):
        ask("/x")


def _chunked(text: str) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(text):x}\r\n{text}\r\n0\r\n\r\n".encode()
    )


@pytest.mark.parametrize(("calls_at_once", "opened"), [(4, 16), (32, 64)])
def test_calls_to_a_quick_vendor_do_not_wait_for_connections_to_rest(
    monkeypatch: pytest.MonkeyPatch, calls_at_once: int, opened: int
) -> None:
    """More connections are opened than are in use: four for each, and 64 at most unless more are in use."""
    monkeypatch.setattr(transport_module, "REST_SECONDS", 3600.0)
    monkeypatch.setattr(transport_module, "KEEP_SECONDS", 7200.0)
    with (
        raw_server(lambda target, _: (answer(target), True)) as server,
        sending(server.url, pool_size=calls_at_once) as ask,
    ):
        targets = [f"/{number}" for number in range(opened)]
        assert [ask(target) for target in targets] == [target.encode() for target in targets]
        assert len(server.connections) == opened


LEFT_OVER: dict[str, Callable[[str], bytes]] = {
    "a second answer": lambda target: answer(target) + answer(target),
    "a body that is longer than said": lambda target: answer(target) + b"x",
    "a 204 with a body": lambda target: b"HTTP/1.1 204 No Content\r\n\r\n" + answer(target),
    "a 204 with a length": lambda target: answer(target, status="204 No Content"),
    "a 304 with a body": lambda target: answer(target, status="304 Not Modified"),
    "something after the last chunk": lambda target: _chunked(target) + answer(target),
    "length and chunks": lambda target: _chunked(target).replace(b"\r\n", b"\r\nContent-Length: 3\r\n", 1),
    "two lengths": lambda target: answer(target, "Content-Length: 1"),
    "two lengths in one": lambda target: answer(target).replace(b"Length: ", b"Length: 1, "),
    "a timeout nobody asked for": lambda target: answer(target) + answer("", status="408 Request Timeout"),
    "line ends": lambda target: answer(target) + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", LEFT_OVER)
def test_what_is_left_over_closes_the_connection(name: str, restless: None) -> None:
    """Bytes that no question asked for are read as the answer to none."""
    with raw_server(lambda target, _: (LEFT_OVER[name](target), True)) as server, sending(server.url) as ask:
        for number in range(5):
            with suppress(VendorError):
                assert ask(f"/{number}") in (f"/{number}".encode(), b"")
        assert len(server.connections) == 5


@pytest.mark.parametrize(
    "late",
    [answer("late"), answer("", status="408 Request Timeout"), b"\r\n", b""],
    ids=["200", "408", "blank", "end"],
)
def test_what_arrives_on_an_idle_connection_answers_nothing(late: bytes, restless: None) -> None:
    """Before a connection is asked again, it is looked at: whoever spoke or hung up there meanwhile is not asked."""
    with raw_server(lambda target, _: (answer(target), True)) as server, sending(server.url) as ask:
        assert ask("/1") == b"/1"
        (first,) = server.connections
        if late:
            first.sendall(late)
        else:
            first.shutdown(socket.SHUT_RDWR)
        assert [ask("/2"), ask("/3")] == [b"/2", b"/3"]
        assert server.targets == ["/1", "/2", "/3"]
        assert len(server.connections) >= 2


def test_a_server_that_spoke_unasked_is_asked_once_a_connection(
    restless: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that sends too much once is not trusted with a kept connection again, and the log says so once."""
    with raw_server(lambda target, _: (answer(target) + b"?" * (target == "/0"), True)) as server:
        with sending(server.url) as ask:
            for number in range(4):
                assert ask(f"/{number}") == f"/{number}".encode()
        assert len(server.connections) == 4
    assert caplog.text.count("no request asked for") == 1


def test_a_connection_rests_before_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server sends late has time to show: one that has just answered is not asked while others can be opened."""
    monkeypatch.setattr(transport_module, "REST_SECONDS", 0.2)
    monkeypatch.setattr(transport_module, "KEEP_SECONDS", 3600.0)
    with (
        raw_server(lambda target, _: (answer(target), True)) as server,
        sending(server.url, pool_size=1) as ask,
    ):
        for number in range(20):
            ask(f"/{number}")
        # Once as many are open as may be, the oldest is waited for.
        assert 2 <= len(server.connections) <= 8


def test_a_connection_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that idled is closed, since the server may be about to."""
    monkeypatch.setattr(transport_module, "KEEP_SECONDS", 0.0)
    with raw_server(lambda target, _: (answer(target), True)) as server, sending(server.url) as ask:
        assert [ask("/1"), ask("/2")] == [b"/1", b"/2"]
        assert len(server.connections) == 2


def test_a_request_that_met_no_ear_is_no_call(restless: None) -> None:
    """What was sent counts; where nobody listened, nothing was."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with sending(url) as ask, pytest.raises(VendorUnavailableError) as raised:
        ask("/1")
    assert raised.value.calls == 0
    with raw_server(lambda *_: (b"", False)) as server, sending(server.url) as ask:
        with pytest.raises(VendorUnavailableError) as raised:
            ask("/1")
        assert raised.value.calls == len(server.targets) == 1
        assert not raised.value.crossed


def test_a_goodbye_that_crosses_a_question_is_known_as_such(restless: None) -> None:
    """A kept connection that ends without a byte is told from one that breaks off while it answers."""
    once = raw_server(lambda target, asked: (answer(target) if not asked else b"", not asked))
    with once as server, sending(server.url) as ask:
        assert ask("/1") == b"/1"
        with pytest.raises(VendorUnavailableError) as raised:
            ask("/2")
    assert raised.value.crossed
    assert raised.value.calls == 1


# Whatever bytes

_LINES = (
    "HTTP/1.1 200 OK",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 101 Switching",
    "HTTP/1.1 204 No\r\n",
    "HTTP/1.1 304 No\r\n",
    "HTTP/1.1 408 T\r\nContent-Length: 0\r\n",
    "Content-Length: 4",
    "Content-Length: +4",
    "Content-Length: -1",
    "Content-Length: \xd9\xa3",
    "Content-Length: 99999999999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Encoding: gzip",
    "Connection: close",
    "0\r\n",
    "-4",
    "0x4",
    "4;a=b",
    "X: \x00",
    " folded",
)
_GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([line.encode("latin-1") + b"\r\n" for line in _LINES]),
    st.sampled_from([b"\r\n", b"$", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 103 Early\r\n\r\n"]),
)
"""``$`` stands for the nonce of the question."""


def _whole(form: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n$",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n$\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n$\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 6\r\n\r\n$",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n$",
    )[form]


_WHOLE = st.integers(0, 4).map(_whole)
_PIECES = st.lists(st.one_of(_GARBAGE, _WHOLE, _WHOLE, _WHOLE), min_size=1, max_size=6).map(b"".join)


@settings(max_examples=30)
@example([(_whole(0) + _whole(0), True)], 1)
@example([(b"HTTP/1.1 103 Early\r\n\r\n" + _whole(1), True)], 3)
@given(st.lists(st.tuples(_PIECES, st.booleans()), min_size=1, max_size=5), st.sampled_from([1, 1, 3]))
def test_no_answer_is_taken_for_another_questions(said: list[tuple[bytes, bool]], threads: int) -> None:
    """Whatever bytes a server sends, an answer holds no nonce but its own question's, and a failure is one of ours."""
    found: list[tuple[bytes, bytes]] = []

    def script(target: str, asked: int) -> tuple[bytes, bool]:
        body, stays = said[asked % len(said)]
        return body.replace(b"$", target[1:].encode()), stays

    def talk(first: int, ask: Callable[[str], bytes]) -> None:
        for number in range(first, first + 4):
            with suppress(VendorError):
                found.append((b"q%05d" % number, ask(f"/q{number:05d}")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport_module, "REST_SECONDS", 0.0)
        # Half an answer is waited for until then; that is a failure, and as good as any other here.
        with (
            raw_server(script) as server,
            sending(server.url, attempt_timeout_seconds=0.05) as ask,
            ThreadPoolExecutor(threads) as pool,
        ):
            list(pool.map(talk, range(0, 100 * threads, 100), [ask] * threads))
    assert [(nonce, body) for nonce, body in found if set(re.findall(rb"q\d{5}", body)) - {nonce}] == []


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_body_arrives_as_it_was_sent(size: int) -> None:
    """Also one that is larger than what the sockets hold, and on a connection that is used again."""

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert not self.headers["Transfer-Encoding"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    transport = Transport(
        f"http://127.0.0.1:{server.server_port}",
        network=Network(),
        pool_size=1,
        attempt_timeout_seconds=20,
        connect_timeout_seconds=20,
        max_body_bytes=1 << 23,
    )
    try:
        for _ in range(2):
            answer = transport.send(f"{transport.base_url}/echo", {}, method="POST", content=content)
            assert answer.body == content
    finally:
        transport.close()
        server.shutdown()
        server.server_close()
        thread.join()
