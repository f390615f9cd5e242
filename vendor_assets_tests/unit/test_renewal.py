"""When a token is asked for, by whom, and what a refusal of it means; how it is asked for and read."""

from __future__ import annotations

import json
import math
import threading
from base64 import b64decode
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
import requests

from vendor_assets.client.renewal import Renewal
from vendor_assets.errors import (
    ConfigurationError,
    StoppedError,
    VendorProtocolError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.vendors.base import Response
from vendor_assets.vendors.oauth import ClientCredentials, Token

URL = "https://login.example/oauth2/token"


class Bench:
    """A renewal by a clock that a test moves, and a server that answers as it says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.answers: list[Token | Exception] = []
        self.auth = ClientCredentials(URL, "id", "secret")
        self.renewal = Renewal(self.auth, lambda: self.now)

    def ask(self) -> Token:
        """Answer with the next token."""
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else Token(f"token-{self.asked}", 100.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew(self) -> str:
        """The token that is sent then."""
        self.renewal.renew(self.ask, lambda: None)
        return self.auth.token.text


def test_a_token_is_renewed_before_it_expires() -> None:
    """At two thirds of its life it is used, at four fifths the next call brings a new one, and one."""
    bench = Bench()
    assert bench.renewal.over
    assert bench.renew() == "token-1"
    bench.now += 69
    assert bench.renew() == "token-1"
    bench.now += 12
    assert not bench.renewal.over
    assert [bench.renew(), bench.renew()] == ["token-2", "token-2"]
    assert bench.asked == 2


def test_who_comes_after_a_refusal_does_not_ask_again() -> None:
    """Id and secret that were refused are refused for all threads, also before the client has been told."""
    bench = Bench()
    bench.answers = [VendorUnauthorizedError("invalid_client", status=401)]
    for _ in range(3):
        with pytest.raises(VendorUnauthorizedError, match="invalid_client"):
            bench.renew()
    assert bench.asked == 1


def test_processes_do_not_renew_in_step() -> None:
    """Tokens of one age become due at different times."""
    due = set()
    for _ in range(20):
        bench = Bench()
        bench.renew()
        due.add(bench.renewal._due)
    assert len(due) == 20
    assert all(1070 <= each <= 1080 for each in due)


@pytest.mark.parametrize(("life", "over"), [(100.0, 95.0), (3600.0, 3590.0), (1.0, 0.95)])
def test_a_token_about_to_expire_is_not_sent(life: float, over: float) -> None:
    """A margin is kept for the way: a twentieth, ten seconds at most."""
    bench = Bench()
    bench.answers = [Token("t", life)]
    bench.renew()
    bench.now = 1000 + over - 0.001
    assert not bench.renewal.over
    bench.now = 1000 + over + 0.001
    assert bench.renewal.over


def test_a_token_without_an_end_is_kept() -> None:
    """Where the server does not say when it expires, it is used until it is refused."""
    bench = Bench()
    bench.answers = [Token("t")]
    bench.renew()
    bench.now += 1e9
    assert bench.renew() == "t"


def test_a_renewal_that_fails_early_harms_nobody() -> None:
    """While the old token is good a failed renewal is tried again later; then it counts."""
    bench = Bench()
    bench.renew()
    bench.now += 81
    bench.answers = [VendorUnavailableError("down")] * 3
    assert bench.renew() == "token-1"
    assert bench.renew() == "token-1"
    assert bench.asked == 2
    bench.now += 10
    assert bench.renew() == "token-1"
    bench.now += 10
    with pytest.raises(VendorUnavailableError, match="down"):
        bench.renew()
    assert bench.renew() == "token-5"


def test_a_server_that_gives_the_same_token_again_is_asked_at_its_end() -> None:
    """Some give one token until it expires: asking early again is in vain."""
    bench = Bench()
    bench.answers = [Token("t", 100.0), Token("t", 19.0), Token("u", 100.0)]
    bench.renew()
    bench.now += 81
    assert bench.renew() == "t"
    bench.now += 17
    assert bench.renew() == "t"
    assert bench.asked == 2
    bench.now += 1.5
    assert bench.renew() == "u"


def test_a_token_that_was_never_taken_is_refused_for_good() -> None:
    """A 401 to a fresh token is about the client; to one that was taken before, or replaced since, it is not."""
    bench = Bench()
    bench.renew()
    assert not bench.renewal.refuse("token-1")
    bench.renewal.accept("an older one")
    assert not bench.renewal.refuse("token-1")
    bench.renewal.accept("token-1")
    assert bench.renewal.refuse("token-1")
    assert bench.renewal.refuse("token-1")
    assert bench.renewal.over
    assert bench.renew() == "token-2"
    assert bench.renewal.refuse("token-1")
    assert not bench.renewal.over
    assert not bench.renewal.refuse("token-2")
    assert bench.asked == 2


class Gate:
    """Knows how many threads wait for a token."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._waiting: set[int] = set()
        self._changed = threading.Condition()

    def check(self) -> None:
        """Called by those who wait."""
        with self._changed:
            self._waiting.add(threading.get_ident())
            self._changed.notify()

    def arrived(self) -> None:
        """Block until all wait."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) == self._expected)


def _threads(bench: Bench, gate: Gate, count: int) -> list[object]:
    """What a renewal by several threads came to, while the first one is held up."""
    found: list[object] = []

    def ask() -> Token:
        gate.arrived()
        return bench.ask()

    def work() -> None:
        try:
            bench.renewal.renew(ask, gate.check)
            found.append(bench.auth.token.text)
        except VendorUnavailableError as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_one_asks_for_all() -> None:
    """Eight threads without a token make one request."""
    bench = Bench()
    assert _threads(bench, Gate(7), 8) == ["token-1"] * 8
    assert bench.asked == 1


def test_a_failure_is_everybodys_who_waited_for_it() -> None:
    """They do not ask a server that is down one after the other; each has an error of its own. The next call asks."""
    bench = Bench()
    bench.answers = [VendorUnavailableError("down", status=503)]
    found = _threads(bench, Gate(7), 8)
    assert bench.asked == 1
    assert len({id(each) for each in found}) == 8
    assert [(str(each), each.status) for each in found if isinstance(each, VendorUnavailableError)] == [
        ("down", 503)
    ] * 8
    assert sorted(each.calls for each in found if isinstance(each, VendorUnavailableError)) == [0] * 7 + [1]
    assert bench.renew() == "token-2"


def test_nobody_waits_while_the_token_is_good() -> None:
    """One renews early; the others go on with what there is."""
    bench = Bench()
    bench.renew()
    bench.now += 81

    def ask() -> Token:
        thread = threading.Thread(target=lambda: seen.append(bench.renew()))
        thread.start()
        thread.join()
        return bench.ask()

    seen: list[str] = []
    bench.renewal.renew(ask, lambda: None)
    assert seen == ["token-1"]
    assert bench.auth.token.text == "token-2"


def test_who_waits_may_give_up() -> None:
    """A thread that is to stop does not wait for another's token."""
    bench = Bench()
    given_up: list[BaseException] = []

    def check() -> None:
        raise StoppedError("stop")

    def other() -> None:
        try:
            bench.renewal.renew(bench.ask, check)
        except StoppedError as error:
            given_up.append(error)

    def ask() -> Token:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return bench.ask()

    bench.renewal.renew(ask, lambda: None)
    assert len(given_up) == 1
    assert bench.asked == 1


# Asking and reading


def test_id_and_secret_are_basic_authentication_or_form_fields() -> None:
    """As RFC 6749 has it: encoded as in a form first; in the body where the server wants them there."""
    asking = ClientCredentials(URL, "urn:id", "s é/+", scope="a b", fields=[("audience", "x")])
    request = asking.token_request("https://vendor.example/api")
    assert (request.method, request.url) == ("POST", URL)
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    basic = b64decode(request.headers["Authorization"].removeprefix("Basic "))
    assert basic == b"urn%3Aid:s+%C3%A9%2F%2B"
    wanted = [("grant_type", "client_credentials"), ("scope", "a b"), ("audience", "x")]
    assert parse_qsl(str(request.body)) == wanted
    inside = ClientCredentials("/oauth2/token", "id", "s é", in_body=True)
    request = inside.token_request("https://vendor.example/api")
    assert request.url == "https://vendor.example/api/oauth2/token"
    assert "Authorization" not in request.headers
    assert parse_qsl(str(request.body)) == [wanted[0], ("client_id", "id"), ("client_secret", "s é")]


@pytest.mark.parametrize(
    "url",
    ["", "login.example/token", "ftp://h/t", "https://", "https://u:p@h/t", "//h/t", "https://h/t#x", "https://h/ t"],
)  # fmt: skip
def test_an_address_that_cannot_be_asked_is_refused(url: str) -> None:
    """One line, without the address, which may hold a secret."""
    with pytest.raises(ConfigurationError, match="token endpoint cannot be used"):
        ClientCredentials(url, "id", "secret")


def test_without_a_token_nothing_is_sent() -> None:
    """Elsewhere than in this client the auth refuses: it does not ask by itself."""
    request = requests.Request("GET", "https://vendor.example", auth=ClientCredentials(URL, "id", "secret"))
    with pytest.raises(ConfigurationError, match="no token yet"):
        request.prepare()


def _answer(body: object) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(200, {}, data, datetime(2026, 11, 22, tzinfo=UTC))


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (3600, 3600.0), ("3599", 3599.0), (0.5, 0.5), (None, math.inf), (0, math.inf), (-1, math.inf),
        ("soon", math.inf), ([], math.inf), (float("nan"), math.inf), (10**400, math.inf),
    ],
)  # fmt: skip
def test_how_long_a_token_is_good(expires_in: object, seconds: float) -> None:
    """Seconds, as a text too; what cannot be an end is none."""
    told = {"access_token": "t0k.en~-_/+=", "token_type": "bearer", "expires_in": expires_in}
    assert ClientCredentials(URL, "i", "s").read_token(_answer(told)) == Token("t0k.en~-_/+=", seconds)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"", b"[" * 100_000, b"\xff", [], {}, {"access_token": ""}, {"access_token": 7},
        {"access_token": "a\nb"}, {"access_token": "a b"}, {"access_token": "é"},
        {"access_token": "secret", "token_type": "mac"}, {"access_token": "secret", "token_type": 1},
    ],
)  # fmt: skip
def test_an_answer_without_a_token_is_told(body: object) -> None:
    """Anything but a bearer token that a header can carry is unreadable, and nothing of it is shown."""
    with pytest.raises(VendorProtocolError) as raised:
        ClientCredentials(URL, "i", "s").read_token(_answer(body))
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(Token("secret"))
