"""What an auth of another package may do to a request, and what it may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from requests import ConnectionError as NoConnection
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from vendor_assets.client.credentials import Credentials, Login, Signed
from vendor_assets.client.redaction import Redaction
from vendor_assets.errors import ConfigurationError, VendorUnavailableError
from vendor_assets.secret import Secret
from vendor_assets.vendors.base import Keys
from vendor_assets_tests.support.toy import ToyVendor

URL = "http://vendor.example/v2/a%20b%2fc?names%5B%5D=a+b&x=1&x=2"
SECRET = "s3cr3t-signature"


class Calling(AuthBase):
    """An auth that does as a test says."""

    def __init__(self, change: Callable[[PreparedRequest], object]) -> None:
        self._change = change

    def __call__(self, prepared: PreparedRequest) -> PreparedRequest:
        self._change(prepared)
        return prepared


def credentials(auth: Any, **needs: bool) -> Credentials:
    """Those of a vendor with an auth."""

    class Signing(ToyVendor):
        def auth(self, keys: Keys) -> Any:
            return auth(keys) if isinstance(auth, type(lambda: None)) else auth

    for name, needed in needs.items():
        setattr(Signing, name, needed)
    login = Login(
        "user",
        Secret("VENDOR_PASSWORD", "password"),
        headers=Secret("VENDOR_HEADERS", "X-Gateway=g4teway-secret"),
        application_key=Secret("VENDOR_APPLICATION_KEY", "app-key"),
    )
    return Credentials(Secret("VENDOR_API_KEY", "api-key"), login, Signing())


def signed(auth: Any, **needs: bool) -> Signed:
    """A request after the auth."""
    own = {"Content-Type": "application/json"}
    return (
        credentials(auth, **({"needs_login": True} | needs))
        .current()
        .sign("POST", URL, own, b'{"q":1}', host="vendor.example")
    )


def test_headers_and_query_may_be_added() -> None:
    """The URL stays as it is written; what was added is a secret, what was there is not."""

    def change(prepared: PreparedRequest) -> None:
        assert prepared.headers["content-length"] == "7"
        assert prepared.headers["X-Gateway"] == "g4teway-secret"
        prepared.headers["Authorization"] = SECRET
        prepared.url = f"{prepared.url}&sig=a%2Fb"

    found = signed(Calling(change))
    assert found.url == f"{URL}&sig=a%2Fb"
    assert found.headers == {
        "Content-Type": "application/json",
        "X-Gateway": "g4teway-secret",
        "Authorization": SECRET,
    }
    assert set(found.added) == {SECRET, "a/b"}
    assert found.names == {"sig"}
    assert SECRET not in repr(found)


def _text(name: str, value: object) -> Callable[[PreparedRequest], None]:
    return lambda prepared: setattr(prepared, name, value)


def _header(name: str, value: str | bytes) -> Callable[[PreparedRequest], None]:
    return lambda prepared: prepared.headers.__setitem__(name, value)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_text("url", URL.replace("vendor.", "evil.")), "changes the host"),
        (_text("url", URL.replace("http:", "https:")), "changes the host"),
        (_text("url", URL.replace("example/", "example:81/")), "changes the host"),
        (_text("url", URL.replace("//", "//user@")), "changes the host"),
        (_text("url", None), "changes the host"),
        (_header("Host", "evil.example"), "changes the host"),
        (_header("host", "vendor.example:81"), "changes the host"),
        (_text("url", URL.replace("v2", "v1")), "changes the path"),
        (_text("url", URL.replace("x=2", "")), "changes the query"),
        (_text("url", URL.replace("x=2", "x=3")), "changes the query"),
        (_text("method", "GET"), "changes the method"),
        (_text("body", b"other"), "changes the body"),
        (_text("body", None), "changes the body"),
        (_header("content-type", "text/plain"), "changes the header Content-Type"),
        (_header("X-Gateway", "other"), "changes the header X-Gateway"),
        (lambda prepared: prepared.headers.pop("Content-Type"), "changes the header Content-Type"),
        (_header("Accept-Encoding", "br"), "header Accept-Encoding, which only the transport"),
        (_header("Transfer-Encoding", "chunked"), "header Transfer-Encoding, which only the transport"),
        (_header("Authorization", "a\r\nX-Other: b"), "cannot be sent"),
        (_header("Auth orization", "a"), "cannot be sent"),
        (_header("Authorization", "schlüssel"), "cannot be sent"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(change: Callable[[PreparedRequest], object], what: str) -> None:
    """Host, path, method, body and what was there stay; one line says what was changed, and shows no value."""
    with pytest.raises(ConfigurationError, match=what) as raised:
        signed(Calling(change))
    assert str(raised.value).isprintable()
    assert "(Calling)" in str(raised.value)
    assert "evil" not in str(raised.value)


def test_what_says_the_same_is_no_change() -> None:
    """The host that will be sent, the body's length and a header as bytes, as some auths set them, are accepted."""

    def change(prepared: PreparedRequest) -> None:
        prepared.headers["host"] = "Vendor.example"
        prepared.headers["Content-Length"] = "7"
        prepared.headers["X-Signature"] = SECRET.encode()  # type: ignore[assignment]
        prepared.body = prepared.body.decode() if isinstance(prepared.body, bytes) else None

    found = signed(Calling(change))
    assert found.headers["X-Signature"] == SECRET
    assert "host" not in {name.lower() for name in found.headers}
    assert "content-length" not in {name.lower() for name in found.headers}


def test_an_auth_that_waits_for_answers_is_refused() -> None:
    """Digest sends again by a hook, which nobody would call: it would be sent without authentication."""
    with pytest.raises(ConfigurationError, match=r"HTTPDigestAuth.*sends again.*not supported"):
        signed(HTTPDigestAuth("user", "password"))


def _raising(error: Exception) -> Calling:
    def change(_: PreparedRequest) -> None:
        raise error

    return Calling(change)


def test_an_auth_that_fails_is_one_line() -> None:
    """An error of another package has its kind, and no secret; one of the network is tried again."""
    with pytest.raises(ConfigurationError, match=r"\(Calling\) failed: KeyError: '\*\*\*'") as raised:
        signed(_raising(KeyError("api-key")))
    assert raised.value.__suppress_context__
    with pytest.raises(
        VendorUnavailableError, match=r"\(Calling\) failed: ConnectionError: no \*\*\*"
    ) as away:
        signed(_raising(NoConnection("no app-key")))
    assert away.value.calls == 0


@pytest.mark.parametrize("auth", ["Bearer x", 5, ("user", "password")])
def test_what_is_no_auth_is_refused(auth: object) -> None:
    """A vendor gives headers or an auth, and an auth returns the request."""
    with pytest.raises(ConfigurationError, match="must be headers or an AuthBase"):
        credentials(auth)


def test_an_auth_that_returns_nothing_is_refused() -> None:
    """It is told what to return."""
    with pytest.raises(ConfigurationError, match="must return the request"):
        signed(lambda keys: lambda prepared: None)


def test_a_vendor_gets_what_it_needs() -> None:
    """Both keys; user and password only if it needs a login, else they are basic authentication."""
    given: list[Keys] = []

    def auth(keys: Keys) -> dict[str, str]:
        given.append(keys)
        return {"DD-API-KEY": keys.api_key, "DD-APPLICATION-KEY": keys.application_key}

    found = signed(auth)
    assert given == [Keys("api-key", "app-key", "user", "password")]
    assert {**found.headers, "Content-Type": "", "X-Gateway": ""} == {
        "Content-Type": "", "X-Gateway": "", "DD-API-KEY": "api-key", "DD-APPLICATION-KEY": "app-key",
    }  # fmt: skip
    assert signed(auth, needs_login=False).headers["Authorization"].startswith("Basic ")
    assert given[1] == Keys("api-key", "app-key")
    assert "key" not in repr(given[0]).replace("application_key", "").replace("api_key", "")


def test_a_login_stands_in_for_a_key_that_is_not_there() -> None:
    """Without what a vendor needs its auth is not asked: a gateway's token is sent alone."""

    class Needing(ToyVendor):
        needs_api_key = True

        def auth(self, keys: Keys) -> AuthBase:
            raise AssertionError("there is no key")

    login = Login(token=Secret("VENDOR_TOKEN", "t0ken"))
    found = (
        Credentials(Secret("VENDOR_API_KEY"), login, Needing()).current().sign("GET", URL, {}, b"", host="h")
    )
    assert found.headers == {"Authorization": "Bearer t0ken"}


def test_a_key_that_nobody_sends_is_refused() -> None:
    """A vendor's class that says nowhere how its key is sent would ask without it."""
    with pytest.raises(ConfigurationError, match="does not say how a key is sent"):
        credentials({})


def test_an_auth_and_a_login_do_not_fight_over_a_header() -> None:
    """Where both want to set one, one line says so."""
    with pytest.raises(ConfigurationError, match="changes the header Authorization"):
        signed(HTTPBasicAuth("a", "b"), needs_login=False)


def test_dates_and_constants_are_no_secrets() -> None:
    """What an auth adds and what may well stand in data is not hidden: a date, a digest, the name of an algorithm."""

    def change(prepared: PreparedRequest) -> None:
        prepared.headers["X-Amz-Date"] = "20261122T000000Z"
        prepared.headers["X-Amz-Content-SHA256"] = "e3b0c442"
        prepared.url = (
            f"{prepared.url}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature={SECRET}"
        )

    assert signed(Calling(change)).added == (SECRET,)


def test_parts_of_a_signature_are_hidden() -> None:
    """Of a header with named parts each long one is a secret by itself; a token in base64 has none."""
    redaction = Redaction(("AWS4-HMAC-SHA256 Credential=AKIA/20261122/eu/aps, Signature=0123456789abcdef",))
    assert redaction.message("not 0123456789abcdef") == "not ***"
    assert redaction.message("Signature=...") == "Signature=..."
