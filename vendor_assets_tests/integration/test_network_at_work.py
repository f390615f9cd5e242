"""A vendor behind a CA of its own, a proxy, a login, a tenant and a client certificate: a real nginx is the judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from vendor_assets.account import Account
from vendor_assets.client import VendorClient
from vendor_assets.errors import ConfigurationError, VendorError, VendorUnavailableError
from vendor_assets.settings import read
from vendor_assets_tests.support.gateway import PASSWORD, PROXY_LOGIN, TENANT, USER, Gateway, Proxy, gateway

LOGIN = {"VENDOR_USER": USER, "VENDOR_PASSWORD": PASSWORD, "VENDOR_HEADERS": f"X-Scope-OrgID={TENANT}"}


class _Budget:
    """No limit; tells somebody when a call has ended."""

    waited_seconds = 0.0

    def __init__(self, ended: Callable[[], object] = lambda: None) -> None:
        self._ended = ended

    @contextmanager
    def slot(self, **_: object) -> Iterator[_Budget]:
        yield self

    def observe(self, **_: object) -> None:
        self._ended()

    def wake(self) -> None:
        pass


@pytest.fixture(scope="module")
def gate() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.close()


def _settings(url: str, **environ: str) -> Account:
    return read({"VENDOR_KIND": "prometheus", "VENDOR_URL": url} | environ, root=Path("/nowhere"))


def _ask(account: Account, ended: Callable[[], object] = lambda: None) -> bytes:
    client = VendorClient(
        base_url=account.vendor_url, api_key=account.key, login=account.login, network=account.network,
        vendor=account.vendor, budget=_Budget(ended), max_in_flight=2, max_attempts=1,
    )  # fmt: skip
    with closing(client):
        return client.fetch(account.vendor.probe()).response.body


_MARKS = count()


def _heard_so_far(gate: Gateway) -> int:
    """How many requests the server has heard, those of earlier tests that it has not written down yet included."""
    mark = f"mark-{next(_MARKS)}"
    marked = _settings(
        gate.tenant, VENDOR_CA_BUNDLE=str(gate.folder / "ca.pem"), VENDOR_HEADERS=f"X-Scope-OrgID={mark}"
    )
    with pytest.raises(VendorError):
        _ask(marked)
    while not (lines := gate.heard()) or lines[-1][2] != mark:
        time.sleep(0.01)
    return len(lines)


def test_a_private_ca_a_login_and_a_tenant(gate: Gateway) -> None:
    """With the CA, a user and the tenant's header the vendor answers; each is heard by the server."""
    ca = {"VENDOR_CA_BUNDLE": str(gate.folder / "ca.pem")}
    before = _heard_so_far(gate)
    assert _ask(_settings(gate.tenant, **ca, **LOGIN))
    assert gate.heard(before, 1)[0][2:4] == [TENANT, USER]
    folder = gate.folder / "trusted"
    folder.mkdir(exist_ok=True)
    (folder / "our.crt").write_bytes((gate.folder / "ca.pem").read_bytes())
    assert _ask(_settings(gate.tenant, VENDOR_CA_BUNDLE=str(folder), **LOGIN))
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        assert _ask(_settings(gate.tenant, **{name: ca["VENDOR_CA_BUNDLE"]}, **LOGIN))


def test_without_the_ca_nothing_is_sent(gate: Gateway) -> None:
    """A certificate that nobody known has signed is refused, with the setting that helps, before a request is sent."""
    before = _heard_so_far(gate)
    with pytest.raises(ConfigurationError, match="VENDOR_CA_BUNDLE"):
        _ask(_settings(gate.tenant, **LOGIN))
    assert _heard_so_far(gate) == before + 1


def test_a_client_certificate(gate: Gateway) -> None:
    """A server that wants our certificate gets it, and none is a refusal that shows what the server said."""
    ca = {"VENDOR_CA_BUNDLE": str(gate.folder / "ca.pem")}
    own = {
        "VENDOR_CLIENT_CERT": str(gate.folder / "client.pem"),
        "VENDOR_CLIENT_KEY": str(gate.folder / "client.key"),
    }
    before = _heard_so_far(gate)
    assert _ask(_settings(gate.certificate, **ca, **own))
    assert ["200", "CN=client"] in [line[:2] for line in gate.heard(before, 1)]
    with pytest.raises(VendorError, match="No required SSL certificate"):
        _ask(_settings(gate.certificate, **ca))
    with pytest.raises(ConfigurationError, match=r"VENDOR_CLIENT_CERT=.* cannot be used \(.*mismatch"):
        _settings(gate.certificate, **ca, **own | {"VENDOR_CLIENT_KEY": str(gate.folder / "server.key")})


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("name", ["VENDOR_PROXY", "HTTP_PROXY"])
def test_a_proxy_knows_its_own_password_only(gate: Gateway, proxy: Proxy, encrypted: bool, name: str) -> None:
    """Calls go through it; it sees none of the vendor's secrets behind encryption, and the vendor none of its."""
    ca = {"VENDOR_CA_BUNDLE": str(gate.folder / "ca.pem")} if encrypted else {}
    login = LOGIN if encrypted else {}
    user, _, password = PROXY_LOGIN.partition(":")
    address = proxy.url.replace("http://", f"http://{user}:{quote(password)}@")
    account = _settings(gate.tenant if encrypted else gate.plain, **ca, **login, **{name: address})
    before = _heard_so_far(gate)
    assert _ask(account)
    if name == "HTTP_PROXY":
        # This machine itself is never asked through a proxy that the environment names.
        assert not proxy.heads
        return
    (head,) = proxy.heads
    assert head.startswith("CONNECT 127.0.0.1:" if encrypted else f"GET {gate.plain}/")
    assert "Authorization: " not in head.replace("Proxy-Authorization: ", "")
    assert TENANT not in head
    assert {line[4] for line in gate.heard(before, 1)} == {"-"}


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ("", ConfigurationError, "407"),
        ("403 Forbidden", ConfigurationError, "status 403"),
        ("502 Bad Gateway", VendorUnavailableError, "cannot reach .* 502"),
        ("garbage", VendorUnavailableError, "proxy"),
    ],
)
def test_what_a_proxy_refuses(
    gate: Gateway, proxy: Proxy, answer: str, kind: type[Exception], said: str
) -> None:
    """A proxy that refuses, fails or speaks something else is named in one line, without its password."""
    proxy.answer = answer
    address = proxy.url.replace("http://", f"http://clerk:{'wrong-pass' if not answer else 'pr0xy-5ecr3t'}@")
    with pytest.raises(kind, match=said) as raised:
        _ask(
            _settings(
                gate.tenant, VENDOR_PROXY=address, VENDOR_CA_BUNDLE=str(gate.folder / "ca.pem"), **LOGIN
            )
        )
    assert proxy.url.removeprefix("http://") in str(raised.value)
    assert "5ecr3t" not in str(raised.value)
    assert "wrong-pass" not in str(raised.value)


def test_a_renewed_password_is_no_refusal(gate: Gateway, tmp_path: Path) -> None:
    """A 401 with a password that was renewed meanwhile is asked again once; with the same one the key is refused."""
    file = tmp_path / "password"
    file.write_text("outdated")
    rest = {name: text for name, text in LOGIN.items() if name != "VENDOR_PASSWORD"}
    account = _settings(
        gate.tenant, VENDOR_CA_BUNDLE=str(gate.folder / "ca.pem"), VENDOR_PASSWORD_FILE=str(file), **rest
    )
    before = _heard_so_far(gate)
    with pytest.raises(VendorError, match=r"401.*VENDOR_PASSWORD"):
        _ask(account)
    assert [line[0] for line in gate.heard(before, 1)] == ["401"]
    assert _ask(account, lambda: file.write_text(PASSWORD))
    assert [line[0] for line in gate.heard(before + 1, 2)] == ["401", "200"]
