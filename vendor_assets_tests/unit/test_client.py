"""The client's rules: what is tried again and what is not, what the budget is told, what an error says."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.client import Fetched, Usage, VendorClient
from vendor_assets.client import client as client_module
from vendor_assets.client.network import check_url
from vendor_assets.client.redaction import MASK, Redaction
from vendor_assets.errors import (
    ConfigurationError,
    StoppedError,
    VendorError,
    VendorNotFoundError,
    VendorProtocolError,
    VendorRejectedError,
    VendorThrottledError,
    VendorTooLargeError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.harvest.verdict import error_of, verdict
from vendor_assets.vendors.base import Failure, Leaf, Parsed, PlannedRequest, Request, Response
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
        self.throttled: list[bool | None] = []
        self.counts: list[dict[str, float]] = []
        self.counted: list[Mapping[str, float] | None] = []
        self.woken = 0
        self.meanwhile: Callable[[], None] = lambda: None

    @contextmanager
    def slot(
        self,
        *,
        endpoint: str,
        work_class: str,
        deadline_seconds: float | None = None,
        stopped: Callable[[], bool] | None = None,
        counts: Mapping[str, float] | None = None,
        **_: object,
    ) -> Iterator[Ledger]:
        """Give a slot."""
        self.counts.append(dict(counts or {}))
        assert deadline_seconds == client_module.LONGEST_WAIT_SECONDS
        self.meanwhile()
        if stopped is not None and stopped():
            raise StoppedError("nobody wants this slot")
        self.asked.append((endpoint, work_class))
        self.clock.seconds += self.waited_seconds
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    def wake(self) -> None:
        """Somebody thinks that waiting is over."""
        self.woken += 1

    def observe(
        self,
        *,
        status: int | None,
        headers: Mapping[str, str],
        seconds: float,
        error: bool,
        throttled: bool | None = None,
        counted: Mapping[str, float] | None = None,
    ) -> None:
        """Write down what became of the call."""
        assert self.open == 1
        assert seconds >= 0
        self.throttled.append(throttled)
        self.counted.append(counted)
        self.observed.append((status, error))
        self.headers.append(headers)


class Script:
    """A transport that answers what it was told, in order; afterwards by ``otherwise``."""

    otherwise: Callable[[str], Response]

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.urls: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.sent: list[tuple[str, bytes]] = []
        self.base_url = "https://vendor.example/prefix"
        self.host = "vendor.example"

    def send(self, url: str, headers: Mapping[str, str], *, method: str, content: bytes) -> Response:
        """The next answer."""
        self.urls.append(url)
        self.sent.append((method, content))
        self.headers.append(headers)
        answer = self.answers.pop(0) if self.answers else self.otherwise(url)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing to close."""


def _answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Response:
    named = {name.replace("_", "-").lower(): text for name, text in headers.items()}
    return Response(status, named, body, NOW)


def _unavailable() -> VendorUnavailableError:
    return VendorUnavailableError("the connection was closed")


class Bench:
    """A client on a scripted transport."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *answers: Response | Exception,
        wait: float = 0.0,
        **options: Any,
    ) -> None:
        self.script = Script(*answers)
        self.clock = Clock()
        self.ledger = Ledger(self.clock, wait)
        self.stop = threading.Event()
        self.usage = Usage()
        monkeypatch.setattr(client_module, "Transport", lambda *_, **__: self.script)
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

    def fetch(self, check: Any = None) -> Fetched:
        """Fetch the one request."""
        self.usage = Usage()
        return self.client.fetch(REQUEST, check=check, usage=self.usage)

    def fail(self, kind: type[VendorError], check: Any = None) -> VendorError:
        """Fetch, and return the error."""
        with pytest.raises(kind) as raised:
            self.fetch(check)
        assert type(raised.value) is kind
        return raised.value


def test_an_answer_says_when_the_vendor_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its date is the vendor's clock; one without a date says nothing, whatever the answer before it said."""
    told = _answer(429, date="Fri, 20 Nov 2026 11:00:00 GMT")
    bench = Bench(monkeypatch, told, _answer(date="Fri, 20 Nov 2026 12:00:00 GMT"), told, _answer())
    assert bench.fetch().answered_at == datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert bench.fetch().answered_at is None


@pytest.mark.parametrize(
    ("headers", "hours"),
    [
        ({"age": "7200"}, -2),
        ({"age": " 7200 ", "date": "Sun, 22 Nov 2026 00:00:00 GMT"}, -2),
        ({"age": "7200", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, -12),
        ({"age": "soon", "date": "Sun, 22 Nov 2026 00:00:00 GMT"}, 0),
        ({"age": "-7200", "date": "Sun, 22 Nov 2026 00:00:00 GMT"}, 0),
    ],
)
def test_an_answer_of_a_cache_is_as_old_as_it_says(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], hours: int
) -> None:
    """Its age counts whatever date the cache gave it."""
    bench = Bench(monkeypatch, _answer(**headers))
    assert bench.fetch().answered_at == NOW + timedelta(hours=hours)


def test_an_answer_comes_with_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts, throttles, waits, time and bytes; headers only those that the vendor reads."""
    bench = Bench(
        monkeypatch, _answer(429), _unavailable(), _answer(body=b'{"a":1}', link="<x>", x_other="y"), wait=2.0
    )
    fetched = bench.fetch(check=lambda response: json.loads(response.body))
    assert fetched == Fetched(
        Response(200, {"link": "<x>"}, b'{"a":1}', NOW),
        {"a": 1},
        Usage(attempts=3, calls=3, throttled=1, waited_seconds=6.0, bytes=9, first_at=NOW, last_at=NOW),
    )
    assert bench.clock.seconds == 1007.5
    assert bench.script.urls == ["https://vendor.example/prefix/v2/applications.json?names%5B%5D=a+b"] * 3


QUERY = Request.json("/graphql", {"query": "{ a }"}, "graphql")


def test_a_question_in_a_body_is_asked_again_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt, also after a redirect that keeps the method, sends method, body and headers, and the key."""
    bench = Bench(monkeypatch, _answer(503), _answer(307, location="/prefix/v2/graphql"), _answer())
    bench.client.fetch(QUERY)
    assert bench.script.urls == [
        "https://vendor.example/prefix/graphql",
        "https://vendor.example/prefix/graphql",
        "https://vendor.example/prefix/v2/graphql",
    ]
    assert bench.script.sent == [("POST", b'{"query":"{ a }"}')] * 3
    for headers in bench.script.headers:
        assert headers["Content-Type"] == "application/json"
        assert KEY in headers.values()


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_drops_the_body_is_refused(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """It would ask something else, and the answer to that is none to our question."""
    bench = Bench(monkeypatch, _answer(status, location="/prefix/home"), _answer())
    with pytest.raises(VendorRejectedError, match=r"POST /graphql: the vendor redirected .* takes no body"):
        bench.client.fetch(QUERY)
    assert len(bench.script.sent) == 1


def test_one_forbidden_question_at_an_address_is_no_refused_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all questions go to one path, the path of the probe says nothing; the probe itself is asked."""
    bench = Bench(monkeypatch, _answer(403), _answer())
    monkeypatch.setattr(NewRelic, "probe", lambda _: Request.json("/graphql", {"query": "{ me }"}))
    with pytest.raises(VendorUnauthorizedError) as raised:
        bench.client.fetch(QUERY)
    assert not raised.value.key_refused
    assert [content for _, content in bench.script.sent] == [b'{"query":"{ a }"}', b'{"query":"{ me }"}']


def test_the_budget_hears_what_a_call_counts_and_of_a_throttle_in_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a request counts comes from the vendor; an answer of status 200 may say that we were too fast."""
    monkeypatch.setattr(NewRelic, "counts", lambda self, request: {"queries": 3})
    monkeypatch.setattr(NewRelic, "throttled", lambda self, status, headers, body: b"too fast" in body)
    monkeypatch.setattr(NewRelic, "counted", lambda self, request, response: {"queries": len(response.body)})
    bench = Bench(monkeypatch, _answer(body=b"{}"), _answer(body=b'{"errors": "too fast"}'))
    for _ in range(2):
        assert bench.client.fetch(REQUEST).response.status == 200
    assert bench.ledger.counts == [{"queries": 3}] * 2
    assert bench.ledger.throttled == [False, True]
    assert bench.ledger.counted == [{"queries": 2}, {"queries": 22}]


def test_the_wait_of_a_throttle_may_be_in_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget hears it as if a header had said it; other answers are not asked."""
    monkeypatch.setattr(NewRelic, "throttled", lambda self, status, headers, body: b"wait" in body)
    monkeypatch.setattr(NewRelic, "throttle_seconds", lambda self, headers, body: json.loads(body)["wait"])
    bench = Bench(monkeypatch, _answer(body=b'{"wait": 2.5}'), _answer(body=b"{}"))
    for _ in range(2):
        bench.client.fetch(REQUEST)
    assert [headers.get("retry-after") for headers in bench.ledger.headers] == ["2.500", None]


@pytest.mark.parametrize(
    "parsed",
    [VendorProtocolError("no list"), Parsed(), Parsed(failures=[Failure(("troops",), "throttled", "x")])],
)
def test_a_throttle_in_a_success_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, parsed: Parsed | VendorProtocolError
) -> None:
    """It is asked again as often as any throttle, also where the dialect reads no failure in it, or nothing."""

    def judge(*_: object) -> Parsed:
        if isinstance(parsed, VendorProtocolError):
            raise parsed
        return parsed

    monkeypatch.setattr(NewRelic, "throttled", lambda self, status, headers, body: b"too fast" in body)
    monkeypatch.setattr(NewRelic, "judge", judge)
    planned = PlannedRequest(REQUEST, (Leaf("troops"),))
    bench = Bench(monkeypatch, *[_answer(body=b'{"errors": "too fast"}')] * 3, max_attempts=3)
    error = bench.fail(
        VendorThrottledError, check=lambda response: verdict(NewRelic(), "troops", planned, REQUEST, response)
    )
    assert (error.attempts, bench.ledger.throttled) == (3, [True] * 3)


def test_every_answer_tells_what_its_call_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures and refusals too, by their status, headers and body; where no answer came, nothing is told."""

    def counted(vendor: NewRelic, request: Request, response: Response) -> dict[str, float]:
        return {"points": float(response.headers["x-cost"]), request.endpoint: response.status}

    monkeypatch.setattr(NewRelic, "counted", counted)
    bench = Bench(monkeypatch, _answer(503, X_Cost="7"), _unavailable(), _answer(X_Cost="0.5"))
    bench.client.fetch(REQUEST)
    name = REQUEST.endpoint
    assert bench.ledger.counted == [{"points": 7.0, name: 503}, None, {"points": 0.5, name: 200}]


def test_each_attempt_has_its_own_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is asked before, and told after, every attempt; failures too."""
    bench = Bench(monkeypatch, _answer(503, Retry_After="7"), _unavailable(), _answer())
    bench.client.fetch(REQUEST, work_class="backfill")
    assert bench.ledger.asked == [("applications", "backfill")] * 3
    assert bench.ledger.observed == [(503, False), (None, True), (200, False)]
    assert bench.ledger.headers[0] == {"retry-after": "7"}
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
    assert bench.usage.throttled == (5 if status == 429 else 0)
    assert error.excerpt == "busy"
    assert bench.clock.slept == [0.5, 1.0, 2.0, 4.0]


def test_a_503_with_retry_after_is_throttling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that says when to come back is not broken, it is full."""
    bench = Bench(monkeypatch, *[_answer(503, Retry_After="soon")] * 5)
    bench.fail(VendorThrottledError)
    assert bench.usage.throttled == 5


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


def test_what_the_vendor_says_is_too_large_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would say so again; asking for less is for the harvest."""

    def check(_: Response) -> None:
        raise error_of(Failure(("a",), "too_large", "5000 facets"), 200)

    bench = Bench(monkeypatch, _answer(), _answer())
    error = bench.fail(VendorTooLargeError, check=check)
    assert (error.attempts, len(bench.script.sent)) == (1, 1)


def test_an_unreadable_answer_may_heal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh try counts if it is readable."""
    bench = Bench(monkeypatch, _answer(body=b"<"), _answer(body=b"{}"))
    assert (
        bench.fetch(
            check=lambda response: json.loads(response.body) if response.body != b"<" else _never(response)
        ).usage.attempts
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


def test_a_failure_tells_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """First and last time are on the error, waits and bytes in the usage."""
    bench = Bench(monkeypatch, _answer(404, b"gone"), wait=1.5)
    error = bench.fail(VendorNotFoundError)
    assert (bench.usage.waited_seconds, bench.usage.bytes, error.first_at, error.last_at) == (
        1.5,
        4,
        NOW,
        NOW,
    )
    assert (
        str(error)
        == "GET /v2/applications.json: the vendor does not know this (status 404): gone (1 attempt)"
    )


# The key

ENTITY = Request("/v2/applications/7/hosts.json", (), "hosts")
REFUSED = VendorUnauthorizedError


def test_the_first_refusal_of_the_key_is_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a 401 nothing is sent for anybody, and those that wait for a slot are woken."""
    bench = Bench(monkeypatch, _answer(401, b'{"error": {"title": "The API key provided is invalid"}}'))
    first = bench.fail(VendorUnauthorizedError)
    assert isinstance(first, REFUSED)
    assert first.key_refused
    assert bench.ledger.woken == 1
    for request in (REQUEST, ENTITY):
        with pytest.raises(VendorUnauthorizedError, match="API key provided is invalid") as raised:
            bench.client.fetch(request)
        assert (raised.value.key_refused, raised.value.status, raised.value.calls) == (True, 401, 0)
        assert str(raised.value).startswith(
            "GET /v2/applications.json: the vendor refuses the key (status 401): "
        )
    assert len(bench.script.urls) == len(bench.ledger.observed) == bench.usage.calls == 1


def test_a_blip_of_a_refusal_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was accepted, and is where the cheapest request asks, is not refused by one 401: it is asked again."""
    bench = Bench(monkeypatch, _answer(), _answer(401), _answer(), _answer())
    bench.fetch()
    usage = Usage()
    assert bench.client.fetch(ENTITY, usage=usage).response.status == 200
    probe = f"https://vendor.example/prefix{NewRelic().probe().key}"
    assert bench.script.urls[2] == probe
    assert (usage.attempts, usage.calls, len(bench.script.urls)) == (2, 3, 4)


def test_a_401_of_one_entity_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one entity is refused for good with 401, it may pass later, and whatever else is asked is answered."""
    bench = Bench(monkeypatch)
    bench.script.otherwise = lambda url: _answer(401 if url.endswith(ENTITY.path) else 200)
    for _ in range(10):
        bench.fetch()
        with pytest.raises(VendorUnavailableError, match="accepts it otherwise") as raised:
            bench.client.fetch(ENTITY)
        assert (raised.value.retryable, raised.value.status, raised.value.attempts) == (True, 401, 5)
    probes = len(bench.script.urls) - 10 * 6
    assert probes <= 7, "at the first, second, fourth … of 50 refusals, and for eight in a row"


def test_a_withdrawn_key_is_noticed_though_the_probe_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 401s to four requests in a row nothing more is sent, whatever the cheapest request is answered with."""
    bench = Bench(monkeypatch, _answer())
    bench.fetch()
    probe = NewRelic().probe().key
    bench.script.otherwise = lambda url: _answer(200 if url.endswith(probe) else 401)
    for number in range(client_module.CERTAIN):
        with pytest.raises((VendorUnavailableError, VendorUnauthorizedError)) as raised:
            bench.client.fetch(Request(f"/v2/applications/{number}/hosts.json"), max_attempts=1)
    assert isinstance(raised.value, VendorUnauthorizedError)
    assert raised.value.key_refused
    assert sum("hosts" in url for url in bench.script.urls) == client_module.CERTAIN


def test_a_refusal_ends_the_wait_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits for its slot while the key is refused is not sent, and says why."""
    bench = Bench(monkeypatch, _answer(401), _answer())
    waited: list[str] = []

    def meanwhile() -> None:
        bench.ledger.meanwhile = lambda: None
        with pytest.raises(VendorUnauthorizedError):
            bench.client.fetch(ENTITY)
        waited.append("refused")

    bench.ledger.meanwhile = meanwhile
    with pytest.raises(VendorUnauthorizedError) as raised:
        bench.fetch()
    assert raised.value.key_refused
    assert waited == ["refused"]
    assert len(bench.script.urls) == 1


def test_a_request_that_nobody_wants_any_more_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ended`` is asked before the wait for a slot, during it and after it."""
    bench = Bench(monkeypatch, _answer())
    with pytest.raises(StoppedError):
        bench.client.fetch(REQUEST, ended=lambda: True)
    assert bench.ledger.asked == []
    over: list[int] = []
    bench.ledger.meanwhile = lambda: over.append(1)
    with pytest.raises(StoppedError):
        bench.client.fetch(REQUEST, ended=lambda: bool(over))
    assert (bench.script.urls, bench.ledger.observed) == ([], [])


def test_a_403_of_one_entity_is_no_verdict_on_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the vendor's cheapest request is answered, the key is accepted, and work goes on."""
    bench = Bench(monkeypatch, _answer(403, b"not yours"), _answer(), _answer())
    usage = Usage()
    with pytest.raises(VendorUnauthorizedError, match="not yours") as raised:
        bench.client.fetch(ENTITY, usage=usage)
    assert not raised.value.key_refused
    assert bench.script.urls[1:] == [f"https://vendor.example/prefix{NewRelic().probe().key}"]
    assert (raised.value.attempts, raised.value.calls, usage.calls) == (1, 2, 2)
    assert bench.fetch().usage.attempts == 1
    assert usage.calls + bench.usage.calls == len(bench.script.urls) == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_403_of_the_key_ends_the_run(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Where the vendor's cheapest request is refused too, it is the key."""
    bench = Bench(monkeypatch, _answer(403, b"Forbidden"), _answer(status, b"Forbidden"))
    for _ in range(3):
        with pytest.raises(VendorUnauthorizedError, match="refuses") as raised:
            bench.client.fetch(ENTITY)
        assert raised.value.key_refused
    assert len(bench.script.urls) == 2


def test_whether_the_key_is_accepted_is_asked_in_the_next_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait do not send what would be refused too: the first of them asks for the key."""
    bench = Bench(monkeypatch, _answer(403), _answer(403), _answer())
    depth: list[int] = []

    def meanwhile() -> None:
        depth.append(1)
        if len(depth) == 2:
            # The refused request waits to ask; another one's slot comes first.
            with pytest.raises(VendorUnauthorizedError):
                bench.client.fetch(REQUEST)

    bench.ledger.meanwhile = meanwhile
    with pytest.raises(VendorUnauthorizedError) as raised:
        bench.client.fetch(ENTITY)
    assert raised.value.key_refused
    assert [url.rpartition("prefix")[2].partition("?")[0] for url in bench.script.urls] == [
        ENTITY.path,
        NewRelic().probe().path,
    ]


def test_forbidden_entities_cost_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among a hundred that are forbidden and a hundred that are not, the key is asked for as often as they double."""
    answers: list[Response] = []
    for number in range(1, 101):
        answers += [_answer(403)] + [_answer()] * (number & (number - 1) == 0) + [_answer()]
    bench = Bench(monkeypatch, *answers)
    for _ in range(100):
        with pytest.raises(VendorUnauthorizedError):
            bench.client.fetch(ENTITY)
        bench.client.fetch(ENTITY)
    assert len(bench.script.urls) == 207


def test_a_key_that_is_withdrawn_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several refusals in a row ask again, also where the key was accepted before."""
    bench = Bench(monkeypatch, _answer(403), _answer())
    with pytest.raises(VendorUnauthorizedError) as raised:
        bench.client.fetch(ENTITY)
    assert not raised.value.key_refused
    bench.script.answers = [_answer(403)] * 40
    calls = len(bench.script.urls)
    for _ in range(30):
        with pytest.raises(VendorUnauthorizedError) as raised:
            bench.client.fetch(ENTITY)
    assert raised.value.key_refused
    assert len(bench.script.urls) - calls <= client_module.STREAK + 1


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (403, {"retry-after": "30"}, b""),
        (403, {"x-ratelimit-remaining": "0"}, b""),
        (403, {"ratelimit": '"default";r=0;t=30'}, b""),
        (403, {"ratelimit": "limit=100, remaining=0, reset=54"}, b""),
        (403, {"x-rate-limit-remaining-minute": "0"}, b""),
        (403, {}, b'{"message": "API rate limit exceeded for user"}'),
        (403, {}, b"You have exceeded your quota"),
        (420, {}, b""),
        (429, {}, b""),
        (509, {}, b""),
        (529, {}, b""),
        (503, {"retry-after": "1"}, b""),
    ],
)
def test_what_says_too_fast_is_a_throttle(
    monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Whatever its status, a sign of throttling is tried again, told to the budget, and no verdict on the key."""
    bench = Bench(monkeypatch, Response(status, headers, body, NOW), _answer())
    fetched = bench.client.fetch(ENTITY)
    assert (fetched.usage.attempts, fetched.usage.throttled) == (2, 1)
    assert bench.ledger.throttled == [True, False]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-ratelimit-remaining": "10"}, b"forbidden"),
        ({"ratelimit": '"default";r=50;t=0'}, b""),
        ({}, b"key refused"),
    ],
)
def test_a_refusal_without_a_sign_of_throttling_is_one(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], body: bytes
) -> None:
    """A quota that is left over makes no throttle of a refused key."""
    bench = Bench(monkeypatch, Response(403, headers, body, NOW), _answer(403))
    with pytest.raises(VendorUnauthorizedError) as raised:
        bench.client.fetch(ENTITY)
    assert raised.value.key_refused
    assert bench.ledger.throttled == [False, False]


def test_a_dialect_may_know_better_what_a_throttle_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's own rule decides, in both directions."""
    bench = Bench(monkeypatch, _answer(418), _answer())
    monkeypatch.setattr(NewRelic, "throttled", lambda _, status, *__: status == 418)
    assert bench.fetch().usage.throttled == 1


@pytest.mark.parametrize(
    ("body", "said", "advice"),
    [
        (b"no org id", "no org id", "X-Scope-OrgID"),
        (b'{"errors": [{"message": "not valid in this region"}]}', "not valid in this region", "VENDOR_URL"),
        (
            b'{"error": {"title": "The API key provided is invalid"}}',
            "API key provided is invalid",
            "VENDOR_API_KEY",
        ),
        (b"<html><title>Blocked by policy</title><body>x</body></html>", "Blocked by policy", ""),
        (b"", "", "VENDOR_API_KEY"),
        (b"\x1b[2Jyour\x00 plan has\nended", "plan has ended", ""),
    ],
)
def test_a_refusal_says_what_the_vendor_said(
    monkeypatch: pytest.MonkeyPatch, body: bytes, said: str, advice: str
) -> None:
    """The vendor's own words are in the message, and what to check is what they are about."""
    message = str(Bench(monkeypatch, _answer(401, body)).fail(VendorUnauthorizedError))
    assert said in message
    assert [name for name in ("X-Scope-OrgID", "VENDOR_URL", "VENDOR_API_KEY") if name in message] == (
        [advice] if advice else []
    )
    assert message.isprintable()


@pytest.mark.parametrize("status", [400, 404, 409, 429, 500, 503])
def test_each_failure_says_what_the_vendor_said(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Any 4xx and 5xx brings a short piece of the vendor's text, without the key."""
    body = json.dumps({"message": f"bad {KEY} thing", "trace": "x" * 9000}).encode()
    with pytest.raises(VendorError) as raised:
        Bench(monkeypatch, *[_answer(status, body)] * 5).fetch()
    message = str(raised.value)
    assert f"(status {status}): bad *** thing" in message
    assert len(message) < 400


# What it cost


def test_what_a_fetch_costs_is_known_however_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, a bug and a certificate that is not trusted leave the same account as an answer."""
    unsent = _unavailable()
    unsent.calls = 0
    endings: list[tuple[list[Response | Exception], Any, type[BaseException], int]] = [
        ([_answer(404)], None, VendorNotFoundError, 1),
        ([_answer()], lambda _: 1 / 0, ZeroDivisionError, 1),
        ([_answer(500), ConfigurationError("not trusted")], None, ConfigurationError, 1),
        ([_answer(302, Location="/a"), _answer(302, Location="//other/")], None, VendorRejectedError, 2),
        ([_answer(401)], None, VendorUnauthorizedError, 1),
        ([unsent, _unavailable(), _answer(400)], None, VendorRejectedError, 2),
        ([_answer(500), RuntimeError("a bug")], None, RuntimeError, 2),
    ]
    for answers, check, kind, calls in endings:
        bench, usage = Bench(monkeypatch, *answers), Usage()
        with pytest.raises(kind):
            bench.client.fetch(REQUEST, check=check, usage=usage)
        assert usage.calls == calls


def test_a_goodbye_on_an_idle_connection_is_no_failure_of_the_vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that crossed it counts, and is sent again at once, but only once; the budget hears nothing of it."""

    def crossed() -> VendorUnavailableError:
        error = _unavailable()
        error.crossed = True
        return error

    bench = Bench(monkeypatch, crossed(), _answer(), max_attempts=1)
    assert bench.fetch().usage.attempts == 2
    assert bench.usage.calls == 2
    assert (bench.ledger.observed, bench.clock.slept) == ([(200, False)], [])
    bench = Bench(monkeypatch, crossed(), crossed(), max_attempts=1)
    assert bench.fail(VendorUnavailableError).calls == 2


# Redirects


def test_a_redirect_on_the_same_host_is_followed_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hop is a call."""
    last = f"eu{REQUEST.target}"
    bench = Bench(monkeypatch, _answer(302, Location="/new?a=1#x"), _answer(308, Location=last), _answer())
    assert bench.fetch().usage.attempts == 3
    assert bench.script.urls[1:] == ["https://vendor.example/new?a=1", f"https://vendor.example/{last}"]
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


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("/maintenance", VendorUnavailableError),
        ("/prefix/v2/applications.json", VendorUnavailableError),
        (f"/eu{ENTITY.path}", VendorNotFoundError),
        (f"/prefix{ENTITY.path}/?a=1", VendorNotFoundError),
    ],
)
def test_a_redirect_to_nowhere_says_nothing_of_the_entity(
    monkeypatch: pytest.MonkeyPatch, location: str, kind: type[VendorError]
) -> None:
    """A 404 is the word on what was asked for only at its own address; else it is asked again."""
    answers = [_answer(302, location=location), _answer(404)] * (5 if kind is VendorUnavailableError else 1)
    bench = Bench(monkeypatch, *answers)
    with pytest.raises(kind) as raised:
        bench.client.fetch(ENTITY)
    assert type(raised.value) is kind
    assert bench.script.answers == []


@pytest.mark.parametrize(
    ("location", "taken"),
    [
        ("/eu/v2/applications.json?names[]=a+b", True),
        ("/v2/applications.json/?more=1&names%5B%5D=a%20b", True),
        ("/v2/applications.json", False),
        ("/v2/applications.json?names[]=a", False),
        ("/v2/applications/8/hosts.json?names[]=a+b", False),
        ("/login?next=/v2/applications.json?names[]=a+b", False),
    ],
)
def test_an_answer_to_another_question_is_none(
    monkeypatch: pytest.MonkeyPatch, location: str, taken: bool
) -> None:
    """Where a redirect leads to another path, or loses a part of the query, a 200 says nothing of what was asked."""
    bench = Bench(monkeypatch, *[_answer(302, Location=location), _answer()] * (1 if taken else 2))
    if taken:
        assert bench.fetch().response.status == 200
    else:
        assert "asks something else" in str(bench.fail(VendorProtocolError))
    assert bench.script.answers == []


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


FORMS = {
    "plain": KEY,
    "lower case": KEY.lower(),
    "percent": "NRAK-s3cr3t%2B%2F%3D",
    "percent, lower case": "NRAK-s3cr3t%2b%2f%3d",
    "JSON": KEY.replace("/", "\\/"),
    "JSON for HTML": KEY.replace("=", "\\u003d").replace("+", "\\u002B"),
    "JSON by numbers": "".join(f"\\u{ord(character):04x}" for character in KEY),
    "percent by numbers": "".join(f"%{ord(character):02X}" for character in KEY),
    "percent, twice": "NRAK-s3cr3t%252B%252F%253D",
    "HTML": KEY.replace("=", "&#61;"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "as in Basic": base64.b64encode(f"{KEY}:".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_is_echoed_in_an_answer_stays_out(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """What was received is landed and read without the key, in whatever way it is written; the rest stays as it is."""
    echo = FORMS[form]
    answer = _answer(body=f'{{"name": "a {echo} b"}}'.encode(), link=f"<https://x/{echo}>; rel=next")
    response = Bench(monkeypatch, answer).fetch().response
    assert response.body == b'{"name": "a *** b"}'
    assert response.headers == {"link": "<https://x/***>; rel=next"}


WAYS: list[Callable[[str], str]] = [
    str,
    lambda character: f"\\u{ord(character):04x}",
    lambda character: f"%{ord(character):02X}",
    lambda character: f"&#x{ord(character):X};",
]


@settings(max_examples=25)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=20),
    st.sampled_from(WAYS),
    st.lists(st.sampled_from(WAYS), min_size=20, max_size=20),
)
def test_no_way_to_write_a_key_is_overlooked(
    key: str, letters: Callable[[str], str], others: list[Callable[[str], str]]
) -> None:
    """Letters and the other characters as they are, or escaped as in JSON, an address or HTML: nothing is left."""
    written = "".join(
        letters(character) if character.isalnum() else other(character)
        for character, other in zip(key, others, strict=False)
    )
    redaction = Redaction([key])
    assert redaction.body(f"[{written}]".encode()) == b"[***]"
    assert redaction.headers({"link": f"[{written}]"}) == {"link": "[***]"}


@pytest.mark.parametrize("user", ["", "a", "bc", "grafana"])
def test_a_key_behind_any_user_in_base64_is_found(user: str) -> None:
    """However its bytes fall, what is the same about it is taken out."""
    packed = base64.b64encode(f"{user}:{KEY}".encode())
    left = Redaction([KEY]).body(packed)
    assert MASK.encode() in left
    assert len(left) <= len(MASK) + len(base64.b64encode(user.encode())) + 6


def test_an_answer_without_the_key_is_not_touched() -> None:
    """The usual body is looked at, not copied."""
    body = b"x" * 1000
    assert Redaction([KEY, f"Bearer {KEY}"]).body(body) is body
    assert Redaction([""]).body(body) is body


def test_each_part_of_a_header_that_is_secret_is_known() -> None:
    """Token and password are secret without their scheme and user; a short word is data, except in a message."""
    basic = "Basic " + base64.b64encode(b"grafana:correct horse").decode()
    redaction = Redaction(["Bearer token-123456", basic, "demo"])
    assert redaction.body(b"token-123456 correct horse demo grafana") == b"*** *** demo grafana"
    assert redaction.message("demo TOKEN-123456") == "*** ***"


def test_a_redirect_does_not_carry_the_key_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that puts the key into the address where it redirects does not get it asked, logged or shown."""
    bench = Bench(monkeypatch, *[_answer(302, Location=f"/login?key={KEY}"), _answer()] * 2)
    assert KEY not in str(bench.fail(VendorProtocolError))
    assert bench.script.urls[1] == "https://vendor.example/login?key=***"


@pytest.mark.parametrize("key", ["a b", "a\r\nX-Other: 1", "a\n", "é", "\x00"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """A line end in the key cannot add a header; the message does not show the key."""
    with pytest.raises(ConfigurationError, match="VENDOR_API_KEY") as raised:
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
