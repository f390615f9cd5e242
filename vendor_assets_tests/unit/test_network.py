"""The way to a host and as whom it is asked: what the environment says, what settings say, what is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vendor_assets.client.credentials import Credentials, Login, Signed, parse_headers
from vendor_assets.client.network import is_loopback, proxy_named_by, variables_for_libraries
from vendor_assets.client.redaction import Redaction
from vendor_assets.errors import ConfigurationError
from vendor_assets.secret import Secret
from vendor_assets.settings import read
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets.vendors.prometheus import Prometheus

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
REAL = {"VENDOR_URL": "https://api.example.com", "VENDOR_API_KEY": "a-key"}
PROXY = "http://user:pass@proxy.example.com:3128"


@pytest.mark.parametrize(
    ("no_proxy", "url", "proxied"),
    [
        ("", "https://api.example.com", True),
        ("", "http://api.example.com", False),
        ("", "https://127.0.0.1:8000", False),
        ("", "https://localhost", False),
        ("", "https://[::1]:1", False),
        ("*", "https://api.example.com", False),
        ("example.com", "https://api.example.com", False),
        (".example.com", "https://api.example.com", False),
        ("*.example.com", "https://API.example.com", False),
        ("ample.com", "https://api.example.com", True),
        ("api.example.com:443", "https://api.example.com:443", False),
        ("api.example.com:8443", "https://api.example.com:443", True),
        ("other, 10.0.0.0/8", "https://10.1.2.3", False),
        ("10.0.0.0/8", "https://11.1.2.3", True),
        ("fd00::1", "https://[fd00::1]:9090", False),
    ],
)
@pytest.mark.parametrize("names", [("HTTPS_PROXY", "NO_PROXY"), ("https_proxy", "no_proxy")])
def test_the_environments_proxy(names: tuple[str, str], no_proxy: str, url: str, proxied: bool) -> None:
    """The scheme's variable names the proxy, in either case, unless NO_PROXY or this machine itself is meant."""
    found = proxy_named_by({names[0]: PROXY, names[1]: no_proxy}, url)
    assert found == (names[0] if proxied else "")


def test_a_setting_goes_before_the_environment(tmp_path: Path) -> None:
    """VENDOR_PROXY counts even where NO_PROXY names the host, none is none; else the environment's variable counts."""
    environ = REAL | {"HTTPS_PROXY": PROXY}
    assert read(environ, root=tmp_path, now=NOW).network.proxy.name == "HTTPS_PROXY"
    own = read(
        environ | {"VENDOR_PROXY": "gate:8080", "NO_PROXY": "*"}, root=tmp_path, now=NOW
    ).network.current_proxy()
    assert own is not None
    assert (own.host, own.port, own.authorization) == ("gate", 8080, "")
    assert read(environ | {"VENDOR_PROXY": "none"}, root=tmp_path, now=NOW).network.current_proxy() is None
    assert read({"HTTP_PROXY": PROXY}, root=tmp_path, now=NOW).network.current_proxy() is None


def test_libraries_keep_to_the_same_rules() -> None:
    """NO_PROXY names this machine and an S3 server that needs no proxy, AWS_CA_BUNDLE the certificates; once."""
    environ = {
        "https_proxy": PROXY, "NO_PROXY": "10.0.0.0/8,b", "REQUESTS_CA_BUNDLE": "/ca.pem",
        "AWS_ENDPOINT_URL": "http://10.0.0.7:8333",
    }  # fmt: skip
    added = variables_for_libraries(environ)
    assert added["NO_PROXY"] == added["no_proxy"] == "10.0.0.0/8,b,localhost,127.0.0.1,::1,[::1],10.0.0.7"
    assert added["AWS_CA_BUNDLE"] == "/ca.pem"
    assert variables_for_libraries(environ | added).get("NO_PROXY", added["NO_PROXY"]) == added["NO_PROXY"]
    assert variables_for_libraries({}) == {}
    assert variables_for_libraries({"AWS_CA_BUNDLE": "/x", "CURL_CA_BUNDLE": "/y"}) == {}


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"]
)
def test_this_machine_has_many_names(host: str) -> None:
    """Every loopback name and address is this machine."""
    assert is_loopback(host)
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("localhost.example.com")


def _sent(vendor: type[NewRelic | Prometheus], key: str = "", **account: str) -> dict[str, str]:
    login = Login(
        account.get("user", ""),
        *(Secret(name, account.get(name, "")) for name in ("password", "token", "headers")),
    )
    return dict(_signed(Credentials(Secret("VENDOR_API_KEY", key), login, vendor())).headers)


def _signed(credentials: Credentials) -> Signed:
    return credentials.current().sign("GET", "http://h/", {}, b"", host="h")


def test_what_is_sent_says_who_asks() -> None:
    """A key, a user, a token and headers become the headers of a request."""
    assert _sent(NewRelic, "k", headers="X-Scope-OrgID=a|b") == {"X-Api-Key": "k", "X-Scope-OrgID": "a|b"}
    assert _sent(Prometheus, user="u", password="p ä") == {"Authorization": "Basic dTpwIMOk"}
    assert _sent(NewRelic, token="t") == {"Authorization": "Bearer t"}
    assert parse_headers("A=1%2C2, B = x=y\nC=%25", "N") == {"A": "1,2", "B": "x=y", "C": "%"}


@pytest.mark.parametrize(
    "account",
    [
        {"user": "u"}, {"password": "p"},
        {"user": "u", "password": "p", "token": "t"}, {"user": "a:b", "password": "p"},
        {"token": "t\n"}, {"headers": "Host=x"}, {"headers": "content-length=1"}, {"headers": "Proxy-Authorization=x"},
        {"headers": "Transfer-Encoding=chunked"}, {"headers": "If-None-Match=x"}, {"headers": "A=1,a=2"},
        {"headers": "A"},
        {"headers": "A=x%0d%0aB: 1"}, {"headers": "x-api-key=other"}, {"token": "t", "headers": "authorization=x"},
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(account: dict[str, str]) -> None:
    """Half a login, two logins, a header of the transport's or one that is set twice: one line, and no value in it."""
    with pytest.raises(ConfigurationError) as raised:
        _sent(NewRelic, "key", **account)
    assert str(raised.value).isprintable()


def test_a_renewed_file_counts_at_once(tmp_path: Path) -> None:
    """A token's file is read anew when it changes; empty or gone, the last one counts; old ones stay secret."""
    file = tmp_path / "token"
    file.write_text("first-token\n")
    token = Secret("VENDOR_TOKEN", path=str(file))
    credentials = Credentials(Secret("VENDOR_API_KEY"), Login(token=token), Prometheus())
    sent = _signed(credentials)
    assert sent.headers == {"Authorization": "Bearer first-token"}
    assert not credentials.outdated(sent)
    new = tmp_path / "new"
    new.write_text("second-token")
    new.replace(file)
    assert credentials.outdated(sent)
    assert _signed(credentials).headers == {"Authorization": "Bearer second-token"}
    for broken in (file.unlink, lambda: file.write_text("")):
        broken()
        assert _signed(credentials).headers == {"Authorization": "Bearer second-token"}
    assert {"first-token", "second-token"} <= set(credentials.redaction.secrets)


def test_a_short_password_blots_out_itself_alone() -> None:
    """A password of one character leaves a message readable."""
    assert (
        Redaction(("q", "Basic dTpx")).message("GET /v2: the proxy refuses") == "GET /v2: the proxy refuses"
    )
