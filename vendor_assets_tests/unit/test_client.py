"""The client's rules: what is tried again and what is not, what the budget is told, what an error says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.client import Fetched, StoppedError, VendorClient, fetching
from vendor_assets.client.transport import Answer, check_url
from vendor_assets.errors import (
    ConfigurationError,
    VendorError,
    VendorNotFoundError,
    VendorProtocolError,
    VendorRejectedError,
    VendorThrottledError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.vendors.base import Request, Response
from vendor_assets.vendors.new_relic import NewRelic

KEY = "NRAK-s3cr3t+/="
NOW = datetime(2026, 11, 22, tzinfo=UTC)
REQUEST = Request("/v2/applications.json", (("names[]", "a b"),), "applications")


class Clock:
    """Time that moves when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.seconds += seconds


class Ledger:
    """A budget that gives every slot after a fixed wait and writes down what it is told."""

    def __init__(self, clock: Clock, wait: float = 0.0) -> None:
        self.clock = clock
        self.waited_seconds = wait
        self.open = 0
        self.asked: list[tuple[str, str]] = []
        self.observed: list[tuple[int | None, bool]] = []
        self.headers: list[Mapping[str, str]] = []

    @contextmanager
    def slot(
        self, *, endpoint: str, work_class: str, deadline_seconds: float | None = None
    ) -> Iterator[Ledger]:
        """Give a slot."""
        assert deadline_seconds is None
        self.asked.append((endpoint, work_class))
        self.clock.seconds += self.waited_seconds
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    def observe(self, *, status: int | None, headers: Mapping[str, str], seconds: float, error: bool) -> None:
        """Write down what became of the call."""
        assert self.open == 1
        assert seconds >= 0
        self.observed.append((status, error))
        self.headers.append(headers)


class Script:
    """A transport that answers what it was told, in order."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.urls: list[str] = []
        self.base_url = "https://vendor.example/prefix"

    def send(self, url: str) -> Answer:
        """The next answer."""
        self.urls.append(url)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing to close."""


def _answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): text for name, text in headers.items()}, body)


def _unavailable() -> VendorUnavailableError:
    return VendorUnavailableError("the connection was closed")


class Bench:
    """A client on a scripted transport."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *answers: Answer | Exception, wait: float = 0.0, **options: Any
    ) -> None:
        self.script = Script(*answers)
        self.clock = Clock()
        self.ledger = Ledger(self.clock, wait)
        self.stop = threading.Event()
        monkeypatch.setattr(fetching, "Transport", lambda *_, **__: self.script)
        settings: dict[str, Any] = {"sleep": self.clock.sleep, "jitter": lambda most: most} | options
        self.client = VendorClient(
            base_url="https://vendor.example/prefix",
            api_key=KEY,
            vendor=NewRelic(),
            budget=self.ledger,
            max_in_flight=4,
            clock=self.clock,
            now=lambda: NOW,
            stop=self.stop,
            **settings,
        )

    def fetch(self, check: Any = None) -> Fetched[Any]:
        """Fetch the one request."""
        return self.client.fetch(REQUEST, check=check)

    def fail(self, kind: type[VendorError], check: Any = None) -> VendorError:
        """Fetch, and return the error."""
        with pytest.raises(kind) as raised:
            self.fetch(check)
        assert type(raised.value) is kind
        return raised.value


def test_an_answer_comes_with_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts, throttles, waits, time and bytes; headers only those that the vendor reads."""
    bench = Bench(
        monkeypatch, _answer(429), _unavailable(), _answer(body=b'{"a":1}', link="<x>", x_other="y"), wait=2.0
    )
    fetched = bench.fetch(check=lambda response: json.loads(response.body))
    assert fetched == Fetched(
        Response(200, {"link": "<x>"}, b'{"a":1}', NOW),
        {"a": 1},
        attempts=3,
        throttled=1,
        waited_seconds=6.0,
        seconds=7.5,
        bytes=9,
    )
    assert bench.script.urls == ["https://vendor.example/prefix/v2/applications.json?names%5B%5D=a+b"] * 3


def test_each_attempt_has_its_own_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is asked before, and told after, every attempt; failures too."""
    bench = Bench(monkeypatch, _answer(503, Retry_After="7"), _unavailable(), _answer())
    bench.client.fetch(REQUEST, work_class="backfill")
    assert bench.ledger.asked == [("applications", "backfill")] * 3
    assert bench.ledger.observed == [(503, False), (None, True), (200, False)]
    assert bench.ledger.headers[0] == {"Retry-After": "7"}
    assert bench.ledger.open == 0


def test_answers_are_read_outside_of_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing does not count as a call in flight."""
    bench = Bench(monkeypatch, _answer())
    assert bench.fetch(check=lambda _: bench.ledger.open).value == 0


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_transient_status_is_tried_again(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """What may pass is tried five times in all, with doubling waits between."""
    bench = Bench(monkeypatch, *[_answer(status, b"busy")] * 5)
    error = bench.fail(VendorThrottledError if status == 429 else VendorUnavailableError)
    assert (error.status, error.attempts, error.retryable) == (status, 5, True)
    assert error.throttled == (5 if status == 429 else 0)
    assert error.excerpt == "busy"
    assert bench.clock.slept == [0.5, 1.0, 2.0, 4.0]


def test_a_503_with_retry_after_is_throttling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that says when to come back is not broken, it is full."""
    bench = Bench(monkeypatch, *[_answer(503, Retry_After="soon")] * 5)
    assert bench.fail(VendorThrottledError).throttled == 5


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, VendorRejectedError),
        (401, VendorUnauthorizedError),
        (403, VendorUnauthorizedError),
        (404, VendorNotFoundError),
        (405, VendorRejectedError),
        (410, VendorNotFoundError),
        (422, VendorRejectedError),
        (300, VendorRejectedError),
        (304, VendorRejectedError),
        (302, VendorRejectedError),
        (199, VendorRejectedError),
        (700, VendorUnavailableError),
    ],
)
def test_a_permanent_status_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[VendorError]
) -> None:
    """What asking again cannot change is asked once (a status that nobody defined counts as a failure)."""
    bench = Bench(monkeypatch, *[_answer(status)] * 5)
    error = bench.fail(kind)
    assert (error.status, error.attempts) == (status, 5 if status == 700 else 1)


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_another_success_than_200_is_unreadable(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Data comes with 200; anything else gets one fresh try."""
    bench = Bench(monkeypatch, _answer(status), _answer(status))
    assert bench.fail(VendorProtocolError).attempts == 2


def _never(_: Response) -> None:
    raise VendorProtocolError("not JSON")


def test_an_unreadable_answer_gets_one_fresh_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice unreadable is final, with the beginning of the body."""
    bench = Bench(monkeypatch, _answer(body=b"<html>"), _answer(body=b"<html>"))
    error = bench.fail(VendorProtocolError, check=_never)
    assert (error.status, error.attempts, error.excerpt, error.retryable) == (200, 2, "<html>", False)


def test_an_unreadable_answer_may_heal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh try counts if it is readable."""
    bench = Bench(monkeypatch, _answer(body=b"<"), _answer(body=b"{}"))
    assert (
        bench.fetch(
            check=lambda response: json.loads(response.body) if response.body != b"<" else _never(response)
        ).attempts
        == 2
    )


def test_the_fresh_try_does_not_open_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreadable, failed, unreadable: that is twice unreadable."""
    bench = Bench(monkeypatch, _answer(), _unavailable(), _answer())
    assert bench.fail(VendorProtocolError, check=_never).attempts == 3


def test_other_errors_of_the_check_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in reading is not taken for the vendor's fault."""
    bench = Bench(monkeypatch, _answer())
    with pytest.raises(ZeroDivisionError):
        bench.fetch(check=lambda _: 1 / 0)


def test_retries_end_with_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retry starts after the retry budget; time waited for the budget of calls is not held against it."""
    bench = Bench(monkeypatch, *[_unavailable()] * 10, max_attempts=10, retry_budget_seconds=4.0, wait=100.0)
    assert bench.fail(VendorUnavailableError).attempts == 4
    assert bench.clock.slept == [0.5, 1.0, 2.0]


@given(st.floats(0, 1))
def test_waits_are_full_jitter(share: float) -> None:
    """The wait is any part of the doubling bound, 30 seconds at most."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        bench = Bench(monkeypatch, *[_unavailable()] * 9, max_attempts=9, jitter=lambda most: share * most)
        bench.fail(VendorUnavailableError)
        assert bench.clock.slept == [share * most for most in (0.5, 1, 2, 4, 8, 16, 30, 30)]


def test_a_stop_is_heard_before_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once asked to stop, nothing is sent, and no slot is taken."""
    bench = Bench(monkeypatch)
    bench.stop.set()
    with pytest.raises(StoppedError):
        bench.fetch()
    assert bench.ledger.asked == []


def test_a_stop_is_heard_after_the_wait_for_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that comes after the stop is not used."""
    bench = Bench(monkeypatch)
    give = bench.ledger.slot

    @contextmanager
    def late(**how: Any) -> Iterator[Ledger]:
        with give(**how) as slot:
            bench.stop.set()
            yield slot

    monkeypatch.setattr(bench.ledger, "slot", late)
    with pytest.raises(StoppedError):
        bench.fetch()
    assert (bench.script.urls, bench.ledger.observed) == ([], [])


def test_a_stop_ends_the_retries_but_not_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight is finished; what failed is not tried again."""
    bench = Bench(monkeypatch, _unavailable(), _answer(), sleep=lambda _: bench.stop.set())
    with pytest.raises(StoppedError, match="after 1 attempt"):
        bench.fetch()
    assert len(bench.script.urls) == 1


def test_counts_are_over_all_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client has spent can be read at any time."""
    bench = Bench(monkeypatch, _answer(429), _answer(body=b"12345"), _answer(404), wait=1.0)
    bench.fetch()
    bench.fail(VendorNotFoundError)
    counts = bench.client.counts
    assert (counts.calls, counts.retries, counts.throttled, counts.bytes) == (3, 1, 1, 9)
    assert (counts.paced_seconds, counts.by_endpoint) == (3.0, {"applications": 3})
    counts.by_endpoint.clear()
    assert bench.client.counts.by_endpoint


def test_a_failure_tells_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, attempts, waits, bytes, first and last time are on the error."""
    bench = Bench(monkeypatch, _answer(404, b"gone"), wait=1.5)
    error = bench.fail(VendorNotFoundError)
    assert (error.waited_seconds, error.bytes, error.first_at, error.last_at) == (1.5, 4, NOW, NOW)
    assert str(error) == "GET /v2/applications.json: the vendor does not know this (status 404) (1 attempt)"


# Redirects


def test_a_redirect_on_the_same_host_is_followed_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hop is a call."""
    bench = Bench(monkeypatch, _answer(302, Location="/new?a=1#x"), _answer(308, Location="other"), _answer())
    assert bench.fetch().attempts == 3
    assert bench.script.urls[1:] == ["https://vendor.example/new?a=1", "https://vendor.example/other"]
    assert len(bench.ledger.asked) == 3


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/",
        "//evil.example/x",
        "http://vendor.example/prefix/",
        "https://vendor.example:8443/",
        "https://vendor.example.evil.example/",
        "https://vendor.example@evil.example/",
        "https://[",
        "ftp://vendor.example/",
        "https://vendor.example:99999/",
    ],
)
def test_a_redirect_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    """Another host, port or scheme is never asked, so the key never goes there."""
    bench = Bench(monkeypatch, _answer(307, Location=location))
    assert bench.fail(VendorRejectedError).status == 307
    assert len(bench.script.urls) == 1


def test_redirects_in_a_circle_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three redirects are followed, a fourth is final."""
    bench = Bench(monkeypatch, *[_answer(301, Location="/again")] * 9)
    assert bench.fail(VendorRejectedError).attempts == 4


# Secrets


@pytest.mark.parametrize("echo", [KEY, KEY.lower(), "NRAK-s3cr3t%2B%2F%3D"])
def test_the_key_is_in_no_error(monkeypatch: pytest.MonkeyPatch, echo: str) -> None:
    """A vendor that echoes the key, in its body or where the reader quotes it, does not get it into an error."""
    body = ("x" * 1995 + echo + echo).encode()

    def quoting(response: Response) -> None:
        raise VendorProtocolError(f"unreadable: {response.body.decode()!r}")

    bench = Bench(monkeypatch, _answer(body=body), _answer(body=body))
    error = bench.fail(VendorProtocolError, check=quoting)
    assert echo not in str(error)
    assert echo[:10] not in error.excerpt
    assert len(error.excerpt) <= 2000
    assert KEY not in repr(bench.client)


@pytest.mark.parametrize("key", ["a b", "a\r\nX-Other: 1", "a\n", "é", "\x00"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """A line end in the key cannot add a header; the message does not show the key."""
    with pytest.raises(ConfigurationError, match="API key") as raised:
        VendorClient(
            base_url="http://h", api_key=key, vendor=NewRelic(), budget=Ledger(Clock()), max_in_flight=1
        )
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "vendor.example",
        "ftp://h",
        "http://",
        "http://user:pass@h",
        "http://h?key=1",
        "http://h/#x",
        "http://h:x",
    ]
    + ["http://[::1", "http://a b", "http://h\n", "http://h:99999", "http://" + "x" * 300 + ".\u0000"],
)
def test_an_address_that_cannot_be_asked_is_refused(url: str) -> None:
    """The URL is checked before anything is sent; credentials in it are not repeated."""
    with pytest.raises(ConfigurationError) as raised:
        check_url(url)
    assert "pass" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9090", "https://h.example/a/b/", "http://[::1]:80/"])
def test_a_good_address_loses_its_last_slash(url: str) -> None:
    """Paths are appended to the URL."""
    assert check_url(url) == url.rstrip("/")
