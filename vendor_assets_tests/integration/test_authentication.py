"""How requests are authenticated, against a real server: what it received is the measure."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import logging
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from vendor_assets.budget import Budget, Limit
from vendor_assets.client import VendorClient
from vendor_assets.client.credentials import Login
from vendor_assets.errors import (
    ConfigurationError,
    StoppedError,
    VendorError,
    VendorRejectedError,
    VendorThrottledError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.secret import Secret
from vendor_assets.vendors.base import Keys, Request
from vendor_assets.vendors.oauth import ClientCredentials
from vendor_assets.vendors.sigv4 import SignatureV4
from vendor_assets_tests.support.recorder import Answer, Received, Recorder, recorder
from vendor_assets_tests.support.toy import ToyVendor

KEY = "AKIDEXAMPLE-0123"
APPLICATION_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
LOGIN = Login(application_key=Secret("VENDOR_APPLICATION_KEY", APPLICATION_KEY))
QUESTION = Request("/points", (("series", "a b/c+ü"), ("from", "1"), ("from", "2")), "points")


def vendor_with(make: Any, **needs: bool) -> ToyVendor:
    """A vendor that makes its auth in a way of its own."""

    class Signing(ToyVendor):
        def auth(self, keys: Keys) -> Any:
            return make(keys)

    for name, needed in needs.items():
        setattr(Signing, name, needed)
    return Signing()


class Places:
    """A budget that permits so many calls at once, at any pace, and counts them by endpoint."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)
        self._lock = threading.Lock()
        self.endpoints: Counter[str] = Counter()
        self.waited_seconds = 0.0

    @contextmanager
    def slot(self, *, endpoint: str, stopped: Callable[[], bool], **_: object) -> Iterator[Places]:
        """A place for one call."""
        while not self._free.acquire(timeout=0.05):
            if stopped():
                raise StoppedError("nobody wants this slot")
        try:
            with self._lock:
                self.endpoints[endpoint] += 1
            yield self
        finally:
            self._free.release()

    def wake(self) -> None:
        """Who waits looks often enough."""

    def observe(self, **_: object) -> None:
        """Nothing is learnt."""


@contextmanager
def client(url: str, vendor: ToyVendor, places: int = 4, **options: Any) -> Iterator[VendorClient]:
    """A client of which so many calls may be in flight."""
    chosen: dict[str, Any] = {"jitter": lambda _: 0.001, "login": LOGIN, "budget": Places(places)} | options
    made = VendorClient(base_url=url, api_key=KEY, vendor=vendor, max_in_flight=places, **chosen)
    try:
        yield made
    finally:
        made.close()


# A key in the query


class InQuery(AuthBase):
    """Sends the key as a query parameter."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, prepared: PreparedRequest) -> PreparedRequest:
        prepared.url = f"{prepared.url}{'&' if '?' in str(prepared.url) else '?'}api_key={quote(self._key)}"
        return prepared


def test_a_key_in_the_query_stays_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """A vendor that echoes the URL, in a redirect, a body, an error or a header, gives nothing away."""

    def echo(request: Received) -> Answer:
        body = f'{{"url": "{request.target}"}}'.encode()
        if request.path == "/points":
            return Answer(302, headers={"Location": request.target.replace("/points", "/points/")})
        headers = {"Link": f"<{request.target}>", "Content-Type": "application/json"}
        return Answer(400 if "bad=1" in request.target else 200, body, headers)

    caplog.set_level(logging.DEBUG)
    bad = Request("/points/", (("bad", "1"),), "points")
    with (
        recorder(echo) as server,
        client(server.url, vendor_with(lambda keys: InQuery(keys.api_key))) as fetching,
    ):
        response = fetching.fetch(QUESTION).response
        with pytest.raises(VendorError) as raised:
            fetching.fetch(bad)
    key = ("api_key", KEY)
    asked = [parse_qsl(urlsplit(each.target).query) for each in server.received]
    assert asked == [[*QUESTION.params, key], [*QUESTION.params, key], [*bad.params, key]]
    assert b"api_key=***" in response.body
    assert "api_key=***" in response.headers["link"]
    assert "api_key=***" in raised.value.excerpt
    seen = (str(raised.value), raised.value.what, raised.value.excerpt, caplog.text, QUESTION.key, bad.key)
    assert [text for text in (*seen, repr(response)) if KEY in text] == []


def test_an_auth_that_another_package_brings_works_as_it_is() -> None:
    """Basic authentication of ``requests`` itself; a 401 ends everything in one line, as without it."""
    with (
        recorder(lambda _: Answer(401)) as server,
        client(server.url, vendor_with(lambda keys: HTTPBasicAuth("me", keys.api_key))) as fetching,
    ):
        for _ in range(2):
            with pytest.raises(VendorUnauthorizedError, match="VENDOR_API_KEY") as raised:
                fetching.fetch(QUESTION)
            assert raised.value.key_refused
    (only,) = server.received
    assert only.headers["authorization"] == "Basic bWU6QUtJREVYQU1QTEUtMDEyMw=="


def test_what_cannot_be_authenticated_is_not_sent() -> None:
    """An auth that would answer a challenge by a hook is refused before anything goes out."""
    with (
        recorder() as server,
        client(server.url, vendor_with(lambda keys: HTTPDigestAuth("me", keys.api_key))) as fetching,
        pytest.raises(ConfigurationError, match="HTTPDigestAuth"),
    ):
        fetching.fetch(QUESTION)
    assert server.received == []


# Amazon's Signature Version 4


def on_amazon(keys: Keys) -> SignatureV4:
    return SignatureV4(keys.api_key, keys.application_key, "aps", "eu-central-1")


def signature_is_right(request: Received) -> bool:
    """Whether a signature fits what arrived: written from Amazon's description, without botocore."""
    given = dict(re.findall(r"(\w+)=([^, ]+)", request.headers["authorization"]))
    identity, scope = given["Credential"].split("/", 1)
    assert identity == KEY
    query = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in sorted(parse_qsl(urlsplit(request.target).query, keep_blank_values=True))
    )
    names = given["SignedHeaders"].split(";")
    assert {"host", "x-amz-date"} <= set(names)
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names)
    path = quote(request.path, safe="/~")
    canonical = "\n".join(
        [request.method, path, query, headers, ";".join(names), hashlib.sha256(request.body).hexdigest()]
    )
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.headers["x-amz-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{APPLICATION_KEY}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), given["Signature"])


def test_each_attempt_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures fit method, path, query, body and headers as they arrive, with a fresh date each."""
    seconds = itertools.count()
    times = (datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=next(seconds)) for _ in itertools.count())
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: next(times))

    def answer(request: Received) -> Answer:
        if len(server.at(request.path)) < 3:
            return Answer(503)
        if request.path != "/points":
            return Answer()
        signature = request.headers["authorization"].rpartition("=")[2]
        return Answer(200, f'{{"expected": "{signature}", "{KEY}": 1}}'.encode())

    posted = Request.form("/api/v1/query", [("query", "up{a='ü+ &'}"), ("time", "1")], "query")
    odd = Request("/v2/a%20b/c%2Fd~e/x", (("b", "2"), ("a", "z"), ("a", "y z*"), ("empty", "")), "odd")
    with (
        recorder(answer) as server,
        client(server.url, vendor_with(on_amazon, needs_application_key=True)) as fetching,
    ):
        for request in (QUESTION, posted, odd):
            body = fetching.fetch(request).response.body
            assert body == (b'{"expected": "***", "***": 1}' if request is QUESTION else b"{}")
    assert [each.method for each in server.received] == ["GET"] * 3 + ["POST"] * 3 + ["GET"] * 3
    assert [each for each in server.received if not signature_is_right(each)] == []
    assert len({each.headers["x-amz-date"] for each in server.received}) == 9
    for each in (QUESTION, posted, odd):
        assert "amz" not in each.key.lower()


# OAuth 2.0 client credentials

SECRET = "cl1ent-secret+/="
CLIENT = Login("client-1", Secret("VENDOR_PASSWORD", SECRET))
BASIC = "Basic Y2xpZW50LTE6Y2wxZW50LXNlY3JldCUyQiUyRiUzRA=="
"""Made by hand: client-1:cl1ent-secret%2B%2F%3D in base64."""


class AuthServer:
    """A token endpoint and the data behind it, by the rules of RFC 6749 and 6750.

    Attributes:
        lifetime: What it says of a token's; None for nothing.
        basic: How the client must identify itself.
        good: The tokens that it takes.
        taken: How often each question was answered with data.
        most_at_once: Of requests for a token.
        before: Called before a question for data is judged, with how many there were.
        token_answer: What is said instead of a token.
        data_answer: What is said to a good token.
    """

    def __init__(self, lifetime: float | None = None) -> None:
        self.lifetime = lifetime
        self.basic = BASIC
        self.good: set[str] = set()
        self.taken: Counter[str] = Counter()
        self.issued = self.asked = self.most_at_once = 0
        self.before: Callable[[int], object] = lambda _: None
        self.token_answer: Callable[[Received], Answer | None] = lambda _: None
        self.data_answer: Callable[[Received], Answer] = lambda _: Answer()
        self._at_once = 0
        self._lock = threading.Lock()

    def answer(self, request: Received) -> Answer:
        """A token, or what the token opens."""
        return self._token(request) if request.path == "/oauth2/token" else self._data(request)

    def _token(self, request: Received) -> Answer:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if (answer := self.token_answer(request)) is not None:
                return answer
            authorization = request.headers.get("authorization", "")
            if authorization != self.basic:
                said = {"error": "invalid_client", "error_description": f"unknown client: {authorization}"}
                return Answer(401, json.dumps(said).encode())
            asked = parse_qsl(request.body.decode())
            if request.method != "POST" or asked != [("grant_type", "client_credentials"), ("scope", "read")]:
                return Answer(400, b'{"error": "invalid_request"}')
            with self._lock:
                self.issued += 1
                token = f"tok3n-number-{self.issued}"
                self.good.add(token)
            told = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
            return Answer(200, json.dumps(told).encode())
        finally:
            with self._lock:
                self._at_once -= 1

    def _data(self, request: Received) -> Answer:
        with self._lock:
            self.asked += 1
            self.before(self.asked)
            if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.good:
                return Answer(401, b'{"error": "invalid_token"}')
            answer = self.data_answer(request)
            self.taken[request.path] += answer.status == 200
            return answer


@contextmanager
def oauth(
    server: AuthServer, endpoint: str = "/oauth2/token", login: Login = CLIENT, **options: Any
) -> Iterator[tuple[VendorClient, Recorder]]:
    """A client, and the server that it gets tokens and data of."""

    def make(keys: Keys) -> ClientCredentials:
        return ClientCredentials(endpoint, keys.user, keys.password, scope="read")

    vendor = vendor_with(make, needs_login=True)
    with recorder(server.answer) as found, client(found.url, vendor, login=login, **options) as fetching:
        yield fetching, found


def fetch_all(fetching: VendorClient, threads: int, each: int) -> list[BaseException]:
    """Ask many questions by many threads, each once; returns what failed."""
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        for number in range(each):
            try:
                fetching.fetch(Request(f"/data/{thread}/{number}", (), "data"))
            except BaseException as error:
                failed.append(error)

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failed


@pytest.mark.parametrize(("places", "threads"), [(16, 16), (1, 4), (3, 16)])
@pytest.mark.parametrize("told", [False, True], ids=["revoked", "expired"])
def test_a_token_that_expires_is_asked_for_once(places: int, threads: int, told: bool) -> None:
    """Every fifty calls the tokens are void: one request brings the next one, and each question is answered once.

    They are revoked, or expire as was told, while calls are under way; with one place too, which the token needs.
    """
    now = [0.0]
    server = AuthServer(3600 if told else None)
    expiries = itertools.count()

    def before(asked: int) -> None:
        if asked % 50 == 0:
            next(expiries)
            server.good.clear()
            now[0] += 10_000 if told else 0

    server.before = before
    budget = Places(places)
    with oauth(server, budget=budget, clock=lambda: now[0]) as (fetching, found):
        assert fetch_all(fetching, threads, 160 // threads) == []
    assert server.taken == {f"/data/{a}/{b}": 1 for a in range(threads) for b in range(160 // threads)}
    assert server.issued == len(found.at("/oauth2/token")) == 1 + next(expiries) > 3
    assert server.most_at_once == 1
    assert budget.endpoints == {"token": server.issued, "data": budget.endpoints["data"]}
    assert server.asked <= budget.endpoints["data"] <= server.asked + threads * server.issued


def test_a_token_is_renewed_while_calls_go_on() -> None:
    """By a clock that goes on with each call nothing expires: a token is asked for once in two thirds of its life."""
    now = [0.0]
    server = AuthServer(100)

    def before(asked: int) -> None:
        now[0] = float(asked)

    server.before = before
    with oauth(server, places=4, clock=lambda: now[0]) as (fetching, _):
        assert fetch_all(fetching, 4, 60) == []
    assert server.asked == server.taken.total() == 240
    assert 240 / 100 <= server.issued <= 1 + 240 / (0.7 * 100)
    assert server.most_at_once == 1


def test_one_place_of_a_real_budget_is_enough(tmp_path: Path) -> None:
    """The token's request needs the only slot too: calls that wait for the token hold none."""
    server = AuthServer()
    server.before = lambda asked: server.good.clear() if asked % 6 == 0 else None
    limits = Limit.parse_all(["2000/s"])
    budget = Budget(f"sqlite:///{tmp_path}/budget.db", "a", limits=limits, share=1.0, max_in_flight=1)
    try:
        with oauth(server, places=1, budget=budget) as (fetching, _):
            assert fetch_all(fetching, 4, 5) == []
    finally:
        budget.close()
    assert server.taken.total() == 20
    assert server.issued == 1 + server.asked // 6


def test_a_fresh_token_that_is_refused_is_the_clients_fault() -> None:
    """Nobody asks for another one: the run ends in one line, and nothing more is sent."""
    server = AuthServer()
    server.before = lambda _: server.good.clear()
    with oauth(server, places=8) as (fetching, _):
        failed = fetch_all(fetching, 8, 3)
    assert len(failed) == 24
    assert all(isinstance(each, VendorUnauthorizedError) and each.key_refused for each in failed)
    assert "set VENDOR_USER and VENDOR_PASSWORD" in str(failed[0])
    assert server.issued == 1
    assert server.asked <= 8


def test_a_wrong_secret_is_one_line() -> None:
    """invalid_client is a refused key: the token is asked for once, nothing else, and the secret is in no message."""
    server = AuthServer()
    server.basic = "another"
    with oauth(server, places=8) as (fetching, found):
        failed = fetch_all(fetching, 8, 3)
    assert len(failed) == 24
    for each in failed:
        assert isinstance(each, VendorUnauthorizedError)
        assert each.key_refused
        assert re.fullmatch(
            r".*the token endpoint refuses the client \(status 401\): unknown client: \*\*\*; "
            r"set VENDOR_USER and VENDOR_PASSWORD to .*",
            str(each),
        )
    assert len(found.received) == 1


@pytest.mark.parametrize("status", [302, 400, 403, 404])
def test_an_endpoint_that_gives_no_token_ends_the_run(status: int) -> None:
    """Without a token nothing can be asked: what asking again cannot change is said once."""
    server = AuthServer()
    server.token_answer = lambda _: Answer(status, b'{"error": "invalid_scope"}', {"Location": "/x"})
    with oauth(server) as (fetching, found):
        with pytest.raises(
            VendorUnauthorizedError, match=rf"refuses the client \(status {status}\)"
        ) as raised:
            fetching.fetch(QUESTION)
        assert raised.value.key_refused
        assert "invalid_scope" in str(raised.value)
        assert ("address of a token endpoint" in str(raised.value)) == (status in (302, 404))
    assert [each.path for each in found.received] == ["/oauth2/token"]


TROUBLES: dict[str, tuple[Answer, type[VendorError], str]] = {
    "down": (Answer(503), VendorUnavailableError, r"no token: the server failed \(status 503\)"),
    "for now": (
        Answer(400, b'{"error": "temporarily_unavailable"}'),
        VendorUnavailableError,
        r"no token: the server failed \(status 400\)",
    ),
    "throttled": (Answer(429), VendorThrottledError, r"no token: throttled \(status 429\)"),
    "a page": (Answer(200, b"<html>"), VendorUnavailableError, "no token: .* address of a token endpoint"),
    "nothing": (Answer(200, b"{}"), VendorUnavailableError, "no token: the answer has no access_token"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_token_endpoint_in_trouble_is_asked_again(name: str) -> None:
    """By the usual rules: five attempts, with waits between; what passes costs nothing but those."""
    answer, kind, said = TROUBLES[name]
    server = AuthServer()
    troubles = itertools.count()
    server.token_answer = lambda _: answer if next(troubles) < 7 else None
    waits: list[float] = []
    with oauth(server, sleep=waits.append) as (fetching, found):
        with pytest.raises(kind, match=said + r".*\(5 attempts\)") as raised:
            fetching.fetch(QUESTION)
        assert raised.value.retryable
        assert (raised.value.calls, len(waits)) == (5, 4)
        usage = fetching.fetch(QUESTION).usage
    assert (usage.attempts, usage.calls, usage.throttled) == (3, 4, 2 if name == "throttled" else 0)
    assert [each.path for each in found.received] == ["/oauth2/token"] * 8 + ["/points"]


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    """The message names it, as it is another server than the vendor's."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with oauth(AuthServer(), f"http://127.0.0.1:{port}/token") as (fetching, found):
        with pytest.raises(
            VendorUnavailableError, match=f"no token: http://127.0.0.1:{port} refuses"
        ) as raised:
            fetching.fetch(QUESTION)
        assert raised.value.calls == 0
    assert found.received == []


def test_each_server_gets_what_is_meant_for_it() -> None:
    """A token endpoint elsewhere gets the client's secret and no token, the vendor the token and no secret."""
    server = AuthServer()
    with (
        recorder(server.answer) as login,
        oauth(server, f"{login.url}/oauth2/token") as (fetching, found),
    ):
        fetching.fetch(QUESTION)
    assert [each.headers["authorization"] for each in login.received] == [BASIC]
    assert [each.headers["authorization"] for each in found.received] == ["Bearer tok3n-number-1"]


def test_a_token_is_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """A vendor that echoes it gives nothing away, in data or in an error; nor does the log, or the request's key."""
    caplog.set_level(logging.DEBUG)
    server = AuthServer()

    def echo(request: Received) -> Answer:
        body = f'["{request.headers["authorization"]}"]'.encode()
        return Answer(400 if request.path == "/bad" else 200, body)

    server.data_answer = echo
    with oauth(server) as (fetching, _):
        assert fetching.fetch(QUESTION).response.body == b'["***"]'
        with pytest.raises(VendorRejectedError) as raised:
            fetching.fetch(Request("/bad"))
    assert raised.value.excerpt == '["***"]'
    seen = (str(raised.value), raised.value.what, caplog.text, QUESTION.key)
    assert [text for text in seen if "tok3n" in text or SECRET in text] == []


def test_a_renewed_secret_brings_a_new_token(tmp_path: Path) -> None:
    """The client's secret is read from its file again: the next token is asked for with the new one."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    server = AuthServer()
    with oauth(server, login=Login("client-1", Secret("VENDOR_PASSWORD", path=str(file)))) as (fetching, _):
        fetching.fetch(QUESTION)
        server.basic = "Basic Y2xpZW50LTE6b3RoZXI="
        server.good.clear()
        file.write_text("other")
        fetching.fetch(QUESTION)
    assert server.issued == 2


def test_a_token_that_expires_before_the_key_is_checked_is_no_refusal() -> None:
    """After a 403 the vendor's probe decides on the key; that its token was void by then says nothing."""
    server = AuthServer()

    def forbid(request: Received) -> Answer:
        if request.path != "/points":
            return Answer()
        server.good.clear()
        return Answer(403)

    server.data_answer = forbid
    with oauth(server) as (fetching, found):
        fetching.fetch(Request("/first"))
        with pytest.raises(VendorUnauthorizedError) as raised:
            fetching.fetch(QUESTION)
        assert not raised.value.key_refused
        fetching.fetch(Request("/last"))
    assert len(found.at("/troops")) == 1
    assert server.issued == 2


def test_tokens_that_outlive_no_wait_are_told() -> None:
    """Where the quota gives a slot more seldom than a token lasts, it is not spent on tokens for ever."""
    now = [0.0]

    class Slow(Places):
        @contextmanager
        def slot(self, **asked: Any) -> Iterator[Places]:
            with super().slot(**asked) as slot:
                now[0] += 1000
                yield slot

    server = AuthServer(300)
    with oauth(server, budget=Slow(1), clock=lambda: now[0]) as (fetching, _):
        with pytest.raises(
            VendorUnavailableError, match="4 tokens in a row expired before the call"
        ) as raised:
            fetching.fetch(QUESTION, max_attempts=1)
        assert raised.value.calls == 4
    assert (server.issued, server.asked) == (4, 0)
