"""The client against real sockets: a server that misbehaves byte by byte, and the embedded vendor."""

from __future__ import annotations

import gzip
import json
import logging
import os
import socket
import ssl
import struct
import subprocess
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.budget import Budget, Limit
from vendor_assets.client import Usage, VendorClient
from vendor_assets.client.network import Network
from vendor_assets.client.transport import Transport
from vendor_assets.days import day_window, last_complete_day, parse_time_zone
from vendor_assets.errors import (
    ConfigurationError,
    StoppedError,
    VendorAssetsError,
    VendorError,
    VendorNotFoundError,
    VendorProtocolError,
    VendorRejectedError,
    VendorThrottledError,
    VendorTooLargeError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.vendors.base import Parsed, Request, Response
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets_tests.support.simulator import RunningSimulator, simulator

KEY = "NRAK-secret-0123456789"
HEADERS = NewRelic().auth_headers(KEY)
Behaviour = Callable[[socket.socket, bytes], None]


@contextmanager
def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads one request per connection and then does as told; yields its URL and what it read."""
    requests: list[bytes] = []
    over = threading.Event()

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(connection)
            if tls is not None:
                encrypted = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                connection = stack.enter_context(encrypted)
                connection.do_handshake()
            request = b""
            while b"\r\n\r\n" not in request:
                chunk = connection.recv(65_536)
                if not chunk:
                    return
                request += chunk
            requests.append(request)
            behave(connection, request)

    def accept() -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        scheme = "http" if tls is None else "https"
        try:
            yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def saying(*parts: bytes) -> Behaviour:
    """Send these bytes and close."""

    def behave(connection: socket.socket, _: bytes) -> None:
        for part in parts:
            connection.sendall(part)

    return behave


def answering(body: bytes, status: str = "200 OK", *headers: str) -> Behaviour:
    """Send a whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return saying("\r\n".join(lines).encode() + body)


def dripping(start: bytes, forever: bytes = b" ") -> Behaviour:
    """Send a start at once and then one byte at a time until the other side has had enough."""
    over = threading.Event()

    def behave(connection: socket.socket, _: bytes) -> None:
        with suppress(OSError):
            connection.sendall(start)
            while not over.wait(0.02):
                connection.sendall(forever)

    return behave


def resetting(connection: socket.socket, _: bytes) -> None:
    """Answer half a line and reset."""
    connection.sendall(b"HTTP/1.1 200 O")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hanging(connection: socket.socket, _: bytes) -> None:
    """Say nothing until the other side has had enough."""
    with suppress(OSError):
        connection.recv(1)


def _transport(url: str, **options: Any) -> Transport:
    settings: dict[str, Any] = {
        "attempt_timeout_seconds": 5,
        "connect_timeout_seconds": 5,
        "max_body_bytes": 1 << 20,
        "network": Network(),
    }
    return Transport(url, pool_size=2, **settings | options)


def _send(url: str, **options: Any) -> Response:
    transport = _transport(url, **options)
    try:
        return transport.send(f"{url}/x", HEADERS)
    finally:
        transport.close()


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_GZIP = "Content-Encoding: gzip"

FAILURES: dict[str, tuple[Behaviour, type[VendorAssetsError], str, int | None]] = {
    "closed": (saying(), VendorUnavailableError, "closed before the answer", None),
    "reset": (resetting, VendorUnavailableError, "closed before the answer", None),
    "hang": (hanging, VendorUnavailableError, "no complete answer within", None),
    "slow head": (
        dripping(b"HTTP/1.1 200 OK\r\nX-A: "),
        VendorUnavailableError,
        "no complete answer within",
        None,
    ),
    "slow status": (dripping(b"", b"H"), VendorUnavailableError, "no complete answer within", None),
    "slow body": (
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        VendorUnavailableError,
        "no complete answer within",
        200,
    ),
    "endless chunks": (
        dripping(_CHUNKED, b"1\r\nx\r\n"),
        VendorUnavailableError,
        "no complete answer within",
        200,
    ),
    "endless body": (
        dripping(b"HTTP/1.1 200 OK\r\n\r\n"),
        VendorUnavailableError,
        "no complete answer within",
        200,
    ),
    "slow error": (
        dripping(b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n"),
        VendorUnavailableError,
        "no complete answer within",
        500,
    ),
    "truncated": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
        VendorUnavailableError,
        "broke off",
        200,
    ),
    "truncated chunks": (saying(_CHUNKED + b"a\r\n{}"), VendorUnavailableError, "broke off", 200),
    "no last chunk": (saying(_CHUNKED + b"2\r\n{}\r\n"), VendorUnavailableError, "broke off", 200),
    "bad chunk": (saying(_CHUNKED + b"zz\r\n{}"), VendorUnavailableError, "broke off", 200),
    "no HTTP": (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), VendorUnavailableError, "", None),
    "bad status": (saying(b"HTTP/1.1 abc OK\r\n\r\n"), VendorUnavailableError, "", None),
    "long head": (
        saying(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 70_000 + b"\r\n\r\n"),
        VendorUnavailableError,
        "",
        None,
    ),
    "many heads": (
        saying(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n"),
        VendorUnavailableError,
        "",
        None,
    ),
    "two lengths": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        VendorUnavailableError,
        "",
        None,
    ),
    "huge": (answering(b" " * 3_000_000), VendorTooLargeError, "larger than 1048576 bytes", 200),
    "bomb": (
        answering(gzip.compress(b" " * 30_000_000), "200 OK", _GZIP),
        VendorTooLargeError,
        "larger than",
        200,
    ),
    "bomb in bomb": (
        answering(gzip.compress(gzip.compress(b" " * 30_000_000)), "200 OK", "Content-Encoding: gzip, gzip"),
        VendorTooLargeError,
        "larger than",
        200,
    ),
    "broken gzip": (answering(b"not gzip", "200 OK", _GZIP), VendorProtocolError, "decompressed", 200),
    "broken deflate": (
        answering(b"\xff" * 9, "200 OK", "Content-Encoding: deflate"),
        VendorProtocolError,
        "decompressed",
        200,
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_becomes_one_of_ours(name: str) -> None:
    """Whatever requests, urllib3 or the socket raise, one of our errors comes out, without the key."""
    behave, kind, said, status = FAILURES[name]
    with serving(behave) as (url, _), pytest.raises(VendorAssetsError) as raised:
        _send(url, attempt_timeout_seconds=1 if "within" in said else 5)
    assert type(raised.value) is kind
    assert said in str(raised.value)
    assert isinstance(raised.value, VendorError)
    assert raised.value.status == status
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert "\n" not in str(raised.value)


def test_nobody_listening_is_unavailable() -> None:
    """A refused connection says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(VendorUnavailableError, match="refuses connections"):
        _send(f"http://127.0.0.1:{port}")


def test_an_unknown_name_is_unavailable() -> None:
    """A name that no server knows says so (``.invalid`` exists nowhere, RFC 6761)."""
    with pytest.raises(VendorUnavailableError, match="is not known"):
        _send("http://vendor.invalid")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..y"])
def test_a_name_that_cannot_be_one_is_a_setting(host: str) -> None:
    """Labels beyond 63 characters and empty ones cannot be looked up at all."""
    with pytest.raises(ConfigurationError, match="address"):
        _send(f"http://{host}")


def test_a_full_backlog_is_a_connect_timeout() -> None:
    """A host that does not accept in time is given up after the connect timeout."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        waiting = [socket.socket() for _ in range(3)]
        try:
            for full in waiting:
                full.setblocking(False)
                full.connect_ex(listener.getsockname())
            with pytest.raises(VendorUnavailableError, match=r"no connection to .* within 0.2 s"):
                _send(url, connect_timeout_seconds=0.2)
        finally:
            for full in waiting:
                full.close()


@pytest.mark.parametrize(
    ("packed", "header"),
    [(gzip.compress(b"{}", mtime=0), "gzip"), (zlib.compress(b"{}"), "deflate"), (b"{}", "identity")],
)
def test_bodies_are_unpacked(packed: bytes, header: str) -> None:
    """The body is what was said, whatever it was packed in."""
    with serving(answering(packed, "200 OK", f"Content-Encoding: {header}", "X-A: b")) as (url, requests):
        answer = _send(url)
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"{}", "b")
    assert requests[0].startswith(b"GET /x HTTP/1.1\r\n")


def test_of_an_endless_error_only_the_beginning_is_read() -> None:
    """An error's body cannot fill the memory: 64 KiB are enough for an excerpt."""
    with serving(answering(b"e" * 5_000_000, "404 Not Found")) as (url, _):
        answer = _send(url)
    assert (answer.status, len(answer.body)) == (404, 65_536)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/applications/%2E%2E/hosts.json",
        "/a%2Fb%3F/%C3%A9",
        "/x?names%5B%5D=a+b%26c&names%5B%5D=%F0%9F%98%80",
    ],
)
def test_paths_are_sent_as_they_are(path: str) -> None:
    """No library between us and the socket decodes, climbs or sorts."""
    with serving(answering(b"{}")) as (url, requests):
        transport = _transport(url)
        transport.send(url + path, HEADERS)
        transport.close()
    assert requests[0].split(b" ")[1] == path.encode()


def test_nothing_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a proxy nor a netrc nor a CA bundle of the environment changes a call."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with serving(answering(b"{}")) as (url, requests):
        assert _send(url).status == 200
    assert b"Authorization" not in requests[0]
    assert f"X-Api-Key: {KEY}\r\n".encode() in requests[0]


def test_a_cookie_is_not_sent_back() -> None:
    """Calls do not depend on each other."""
    with serving(answering(b"{}", "200 OK", "Set-Cookie: a=b; Path=/")) as (url, requests):
        transport = _transport(url)
        transport.send(f"{url}/1", HEADERS)
        transport.send(f"{url}/2", HEADERS)
        transport.close()
    assert b"Cookie" not in requests[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    path, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(path)], check=True, capture_output=True)
    (folder / "both.pem").write_text(path.read_text() + key.read_text())
    return folder / "both.pem"


def test_an_unknown_certificate_is_refused_before_the_key_is_sent(certificate: Path) -> None:
    """A host that cannot prove its name gets no request; that is a setting to change, not a fault to retry."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(answering(b"{}"), context) as (url, requests):
        with pytest.raises(ConfigurationError, match=r"certificate of .* is not trusted"):
            _send(url)
        assert requests == []
        assert _send(url, network=Network(ca_bundle=str(certificate))).body == b"{}"


def test_no_tls_on_a_tls_port_is_unavailable(certificate: Path) -> None:
    """A server that speaks no TLS, or breaks off while shaking hands, is unavailable."""
    with serving(answering(b"{}")) as (url, _), pytest.raises(VendorUnavailableError):
        _send(
            url.replace("http:", "https:"),
            network=Network(ca_bundle=str(certificate)),
            attempt_timeout_seconds=1,
        )


def test_a_slow_body_over_tls_ends_as_well(certificate: Path) -> None:
    """The deadline holds for encrypted connections too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    slow = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with serving(slow, context) as (url, _), pytest.raises(VendorUnavailableError, match="within 1 s"):
        _send(url, network=Network(ca_bundle=str(certificate)), attempt_timeout_seconds=1)


# The whole client


class Ledger:
    """A budget without a limit that counts what is in flight. Thread-safe."""

    waited_seconds = 0.0

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.observed: list[tuple[int | None, bool]] = []
        self.in_flight = 0

    @contextmanager
    def slot(self, **_: object) -> Iterator[Ledger]:
        """Give a slot."""
        with self.lock:
            self.in_flight += 1
        try:
            yield self
        finally:
            with self.lock:
                self.in_flight -= 1

    def wake(self) -> None:
        """Nobody waits here."""

    def observe(self, *, status: int | None, error: bool, **_: object) -> None:
        """Write down what became of the call."""
        with self.lock:
            self.observed.append((status, error))


VENDOR = NewRelic()


def _client(url: str, key: str = KEY, **options: Any) -> tuple[VendorClient, Ledger]:
    ledger = Ledger()
    settings: dict[str, Any] = {"jitter": lambda _: 0.001, "max_in_flight": 8} | options
    return VendorClient(base_url=url, api_key=key, vendor=VENDOR, budget=ledger, **settings), ledger


@pytest.fixture(scope="module")
def vendor() -> Iterator[RunningSimulator]:
    """One embedded vendor for all tests of this module."""
    with simulator(churn=False, page_size=1) as running:
        yield running


@pytest.fixture
def fresh(vendor: RunningSimulator) -> RunningSimulator:
    """The vendor, without faults and with nothing counted."""
    vendor.reset()
    return vendor


DAY = day_window(last_complete_day(datetime.now(UTC), parse_time_zone("UTC")), parse_time_zone("UTC"))
TROOPS = VENDOR.troops(DAY)


def _read(response: Response, asked: Request | None = None) -> Parsed:
    return VENDOR.parse("troops", TROOPS, replace(response, asked=asked))


def test_pages_follow_each_other(fresh: RunningSimulator) -> None:
    """Each page is one call, the last one names no next."""
    client, ledger = _client(fresh.url)
    request: Request | None = TROOPS.request
    found: list[object] = []
    while request is not None:
        later = request if found else None
        parsed = client.fetch(request, check=partial(_read, asked=later)).value
        assert parsed is not None
        found += parsed.columns["troop_id"]
        request = parsed.next
    now = datetime.now(UTC).timestamp()
    assert found == [troop.id for troop in fresh.world.troops(now)]
    assert len(ledger.observed) == len(found) == fresh.calls()


FAULTS: dict[str, tuple[dict[str, Any], type[VendorError], int, bool]] = {
    "500": ({"kind": "500"}, VendorUnavailableError, 3, True),
    "502": ({"kind": "502"}, VendorUnavailableError, 3, True),
    "408": ({"kind": "408"}, VendorUnavailableError, 3, True),
    "425": ({"kind": "425"}, VendorUnavailableError, 3, True),
    "429": ({"kind": "429"}, VendorThrottledError, 3, True),
    "retry after": ({"kind": "retry_after", "value": "soon"}, VendorThrottledError, 3, True),
    "reset": ({"kind": "reset"}, VendorUnavailableError, 3, True),
    "truncated": ({"kind": "truncated"}, VendorUnavailableError, 3, True),
    "outage": ({"kind": "outage", "mode": "503", "seconds": 60}, VendorUnavailableError, 3, True),
    "hang": ({"kind": "hang", "seconds": 30}, VendorUnavailableError, 3, True),
    "slow": ({"kind": "slow_body", "seconds": 30}, VendorUnavailableError, 3, True),
    "endless": ({"kind": "endless_body"}, VendorUnavailableError, 3, True),
    "malformed": ({"kind": "malformed"}, VendorProtocolError, 2, False),
    "html": ({"kind": "html"}, VendorProtocolError, 2, False),
    "wrong type": ({"kind": "wrong_type"}, VendorProtocolError, 2, False),
    "empty": ({"kind": "empty"}, VendorProtocolError, 2, False),
    "huge": ({"kind": "huge_body", "bytes": 20_000_000}, VendorTooLargeError, 2, False),
    "400": ({"kind": "400"}, VendorRejectedError, 1, False),
    "401": ({"kind": "401"}, VendorUnauthorizedError, 1, False),
    "404": ({"kind": "404"}, VendorNotFoundError, 1, False),
    "405": ({"kind": "405"}, VendorRejectedError, 1, False),
    "redirect": ({"kind": "redirect", "location": "http://localhost:9/x"}, VendorRejectedError, 1, False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_lasting_fault_is_tried_as_often_as_it_deserves(fresh: RunningSimulator, name: str) -> None:
    """Transient faults are tried again, unreadable answers once more, permanent ones never; the vendor's log agrees."""
    fault, kind, attempts, retryable = FAULTS[name]
    fresh.faults([fault])
    timeout = 0.3 if name in ("hang", "slow", "endless") else 5.0
    client, ledger = _client(
        fresh.url, max_attempts=3, attempt_timeout_seconds=timeout, max_body_bytes=1 << 20
    )
    with pytest.raises(VendorError) as raised:
        client.fetch(TROOPS.request, check=_read)
    client.close()
    error = raised.value
    assert type(error) is kind
    assert (error.attempts, error.retryable, len(ledger.observed)) == (attempts, retryable, attempts)
    assert ledger.in_flight == 0
    assert KEY not in "".join(traceback.format_exception(error)) + error.excerpt
    assert error.first_at is not None
    assert error.last_at is not None
    assert error.first_at <= error.last_at


@pytest.mark.parametrize("kind", ["500", "429", "reset", "truncated", "malformed", "html", "empty"])
def test_a_passing_fault_is_overcome(fresh: RunningSimulator, kind: str) -> None:
    """One fault costs one more call, and the answer is whole."""
    fresh.faults([{"kind": kind, "count": 1}])
    client, _ = _client(fresh.url)
    fetched = client.fetch(TROOPS.request, check=_read)
    client.close()
    assert fetched.usage.attempts == 2
    assert fetched.value is not None
    assert len(fetched.value.columns["troop_id"]) == 1


def test_a_wrong_key_is_refused_once() -> None:
    """A key that the vendor does not know is not tried again."""
    with simulator(api_key="the-right-one") as vendor:
        client, _ = _client(vendor.url, "the-wrong-one")
        with pytest.raises(VendorUnauthorizedError, match="VENDOR_API_KEY") as raised:
            client.fetch(VENDOR.probe())
        assert "the-wrong-one" not in str(raised.value)
        assert raised.value.calls == 1


def test_a_redirect_to_another_host_sends_no_key_there() -> None:
    """The other host sees no connection at all."""
    with serving(answering(b"{}")) as (other, there):
        elsewhere = answering(b"", "302 Found", f"Location: {other}/v2/applications.json")
        with serving(elsewhere) as (url, here):
            client, _ = _client(url)
            with pytest.raises(VendorRejectedError, match="another host"):
                client.fetch(TROOPS.request)
            client.close()
    assert len(here) == 1
    assert there == []


def _fetch_by_eight(client: VendorClient, *, each: int) -> list[Usage]:
    """What fetches by eight threads cost."""

    def work(_: int) -> list[Usage]:
        return [client.fetch(TROOPS.request, check=_read).usage for _ in range(each)]

    with ThreadPoolExecutor(8) as pool:
        return [usage for found in pool.map(work, range(8)) for usage in found]


def test_many_threads_share_one_client(fresh: RunningSimulator, caplog: pytest.LogCaptureFixture) -> None:
    """Threads do not disturb each other, connections are kept, and no log line holds the key."""
    caplog.set_level(logging.DEBUG)
    client, ledger = _client(fresh.url, max_in_flight=2)
    usages = _fetch_by_eight(client, each=25)
    client.close()
    assert sum(usage.calls for usage in usages) == len(ledger.observed) == fresh.calls() == 200
    assert sum("Starting new HTTP connection" in record.getMessage() for record in caplog.records) <= 8
    assert KEY not in caplog.text


def test_a_stop_lets_the_call_in_flight_finish(fresh: RunningSimulator) -> None:
    """A stop during a call ends after it, and the next fetch is refused."""
    stop = threading.Event()
    client, _ = _client(fresh.url, stop=stop)

    def check(response: Response) -> int:
        stop.set()
        return response.status

    assert client.fetch(TROOPS.request, check=check).value == 200
    with pytest.raises(StoppedError):
        client.fetch(TROOPS.request)
    assert fresh.calls() == 1


def test_bodies_come_as_they_were_sent(fresh: RunningSimulator) -> None:
    """What is landed is what the vendor said."""
    client, _ = _client(fresh.url)
    response = client.fetch(TROOPS.request).response
    assert json.loads(response.body)["applications"]
    assert set(response.headers) == {"content-type", "link"}
    assert os.linesep not in str(client)


def test_with_the_real_budget_the_vendor_counts_no_violation(tmp_path: Path) -> None:
    """Eight threads behind one budget send no faster than the vendor permits, as the vendor counts it."""
    with simulator(limit="100/s", limit_kind="sliding", churn=False) as vendor:
        limits = [Limit.parse("100/s")]
        budget = Budget(
            f"sqlite:///{tmp_path / 'budget.db'}", "test", limits=limits, share=1.0, max_in_flight=8
        )
        client = VendorClient(
            base_url=vendor.url, api_key=vendor.key, vendor=VENDOR, budget=budget, max_in_flight=8
        )
        usages = _fetch_by_eight(client, each=10)
        client.close()
        budget.close()
        assert [usage.attempts for usage in usages] == [1] * 80
        assert vendor.calls() == 80
        assert vendor.calls(outcome="429") == 0
        assert sum(usage.waited_seconds for usage in usages) > 0
