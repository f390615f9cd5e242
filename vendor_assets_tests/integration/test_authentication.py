"""How requests are authenticated, against a real server: what it received is the measure."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as AwsCredentials
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from vendor_assets.client import VendorClient
from vendor_assets.client.credentials import Login
from vendor_assets.errors import ConfigurationError, StoppedError, VendorError, VendorUnauthorizedError
from vendor_assets.secret import Secret
from vendor_assets.vendors.base import Keys, Request
from vendor_assets_tests.support.recorder import Answer, Received, recorder
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


# Amazon's Signature Version 4, by botocore


class SigV4(AuthBase):
    """Signs with botocore."""

    def __init__(self, keys: Keys) -> None:
        self._signer = SigV4Auth(AwsCredentials(keys.api_key, keys.application_key), "aps", "eu-central-1")

    def __call__(self, prepared: PreparedRequest) -> PreparedRequest:
        # Botocore signs the query as it is written; Amazon writes a blank as %20.
        prepared.url = str(prepared.url).replace("+", "%20")
        request = AWSRequest(prepared.method, prepared.url, dict(prepared.headers), prepared.body)
        self._signer.add_auth(request)
        prepared.headers.update(request.headers)
        return prepared


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
    """Botocore's signatures fit method, path, query, body and headers as they arrive, with a fresh date each."""
    seconds = itertools.count()
    times = (datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=next(seconds)) for _ in itertools.count())
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: next(times))

    def answer(request: Received) -> Answer:
        if len(server.at(request.path)) < 3:
            return Answer(503)
        signature = request.headers["authorization"].rpartition("=")[2]
        return Answer(200, f'{{"expected": "{signature}", "{KEY}": 1}}'.encode())

    posted = Request.form("/api/v1/query", [("query", "up{a='ü+ &'}"), ("time", "1")], "query")
    odd = Request("/v2/a%20b/c%2Fd~e/x", (("b", "2"), ("a", "z"), ("a", "y z*"), ("empty", "")), "odd")
    with (
        recorder(answer) as server,
        client(server.url, vendor_with(SigV4, needs_application_key=True)) as fetching,
    ):
        for request in (QUESTION, posted, odd):
            body = fetching.fetch(request).response.body
            assert body == b'{"expected": "***", "***": 1}'
    assert [each.method for each in server.received] == ["GET"] * 3 + ["POST"] * 3 + ["GET"] * 3
    assert [each for each in server.received if not signature_is_right(each)] == []
    assert len({each.headers["x-amz-date"] for each in server.received}) == 9
    for each in (QUESTION, posted, odd):
        assert "amz" not in each.key.lower()
