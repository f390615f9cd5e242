"""Settings from an environment: defaults, and one clear line for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from vendor_assets.budget import Limit
from vendor_assets.errors import ConfigurationError
from vendor_assets.settings import SIMULATOR_API_KEY, SIMULATOR_URL, project_root, read
from vendor_assets.settings.environment import limits_of
from vendor_assets.vendors.base import Request, Response
from vendor_assets.vendors.new_relic import NewRelic

REAL = {"VENDOR_URL": "https://api.example.com", "VENDOR_API_KEY": "secret-key"}
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ROOT = Path("/project")


def test_everything_has_a_default() -> None:
    """An empty environment is the embedded vendor, a folder and the documented limit."""
    account = read({}, root=ROOT, now=NOW)
    assert account.embedded
    assert (account.vendor_url, account.api_key) == (SIMULATOR_URL, SIMULATOR_API_KEY)
    assert [str(limit) for limit in account.limits] == ["1000/min"]
    assert (account.share, account.max_in_flight, account.resolution_seconds) == (0.8, 32, 1800)
    assert account.store_url == "/project/demo_data"
    assert account.database_url == "sqlite:////project/demo_data/budget.db"
    assert (account.start, account.zone.key) == (date(2026, 10, 21), "UTC")


def test_an_empty_text_counts_as_absent() -> None:
    """A line without a value in an environment file changes nothing."""
    assert read({"VENDOR_RATE": " "}, root=ROOT, now=NOW).limits == read({}, root=ROOT, now=NOW).limits


def test_several_limits_hold_at_once() -> None:
    """Limits of one account have names of their own; one that is written twice counts once."""
    limits = read({"VENDOR_RATE": "20/s, 1000/min,20/s"}, root=ROOT, now=NOW).limits
    assert [(limit.name, limit.amount) for limit in limits] == [("20/s", 20), ("1000/min", 1000)]


def test_a_limit_of_some_endpoints_leaves_the_documented_one() -> None:
    """The other endpoints are no less limited than before, and an endpoint that no call goes to is refused."""
    limits = read({"VENDOR_RATE": "100/min for hosts"}, root=ROOT, now=NOW).limits
    assert list(map(str, limits)) == ["100/min for hosts", "1000/min"]
    limits = read({"VENDOR_RATE": "100/min for hosts+data,20/s"}, root=ROOT, now=NOW).limits
    assert list(map(str, limits)) == ["100/min for data+hosts", "20/s"]
    with pytest.raises(
        ConfigurationError, match="no call goes to 'hostz'; endpoints are: applications, data, "
    ):
        read({"VENDOR_RATE": "20/s,100/min for hostz"}, root=ROOT, now=NOW)
    with pytest.raises(
        ConfigurationError, match="no call goes to 'tagz'; endpoints are: applications, data, "
    ):
        read({"VENDOR_RATE": "100/min for hosts+tagz"}, root=ROOT, now=NOW)


def test_a_unit_that_no_call_counts_is_refused() -> None:
    """Each call would count one of it. A dialect that reads units from answers may know it all the same."""
    nerdgraph = {**REAL, "VENDOR_KIND": "nerdgraph", "VENDOR_ACCOUNT": "1"}
    cloudwatch = {
        **REAL,
        "VENDOR_URL": "https://monitoring.eu-central-1.amazonaws.com",
        "VENDOR_KIND": "cloudwatch",
        "VENDOR_APPLICATION_KEY": "secret",
    }
    for environ, text, there in (
        ({}, "20 dollars/month", "requests;"),
        (nerdgraph, "3000 querys/min", "queries, requests;"),
        (cloudwatch, "20 euros/month", "dollars, metrics, points, requests;"),
    ):
        with pytest.raises(ConfigurationError, match=f"no call counts '[a-z]+'; units are: {there}"):
            read({**environ, "VENDOR_RATE": text}, root=ROOT, now=NOW)
    assert read({"VENDOR_RATE": "20 calls/s"}, root=ROOT, now=NOW).limits == (Limit(20, 1.0),)
    limits = read({**cloudwatch, "VENDOR_RATE": "20 usd/month"}, root=ROOT, now=NOW).limits
    assert list(map(str, limits)) == ["20 dollars/month"]

    class Learnt(NewRelic):
        def counted(self, request: Request, response: Response) -> dict[str, float]:
            return {"points": 1}

    assert limits_of("300 points/min", Learnt()) == (Limit(300, 60.0, unit="points"),)


@pytest.mark.parametrize(
    "text", ["sqlite:", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///b.db?mode=ro", "b.db"]
)
def test_an_address_that_is_nearly_a_databases_is_refused_with_advice(text: str) -> None:
    """What is accepted is told in full: what was given may be a part of it."""
    with pytest.raises(ConfigurationError) as refused:
        read({"VENDOR_ASSETS_DB": text}, root=ROOT, now=NOW)
    assert str(refused.value) == (
        "VENDOR_ASSETS_DB is not accepted; give sqlite:///path or postgresql://user:password@host/database"
    )


def test_a_vendor_without_a_documented_limit_is_found_out() -> None:
    """Prometheus declares no limit: auto."""
    account = read({"VENDOR_KIND": "prometheus", "VENDOR_URL": "http://p:9090"}, root=ROOT, now=NOW)
    assert account.limits == "auto"


def test_the_finest_timeslice_is_the_vendors() -> None:
    """Five seconds can be had from Prometheus, not from New Relic."""
    environ = {"VENDOR_ASSETS_RESOLUTION": "5"}
    prometheus = {"VENDOR_KIND": "prometheus", "VENDOR_URL": "http://p:9090"}
    assert read(environ | prometheus, root=ROOT, now=NOW).resolution_seconds == 5
    with pytest.raises(
        ConfigurationError, match=r"^VENDOR_ASSETS_RESOLUTION: resolution 5 s .* multiple of 60"
    ):
        read(environ, root=ROOT, now=NOW)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"VENDOR_KIND": "newrelic"}, "VENDOR_KIND.*'newrelic'.*new_relic"),
        ({"VENDOR_KIND": "prometheus"}, "VENDOR_URL is not set"),
        ({"VENDOR_URL": "api.newrelic.com"}, "VENDOR_URL='api.newrelic.com' is not an address"),
        ({"VENDOR_URL": "http://127.0.0.1:"}, "VENDOR_URL='http://127.0.0.1:' is not an address"),
        ({"VENDOR_URL": "https://u:secret@host"}, "VENDOR_URL .* credentials"),
        ({"VENDOR_URL": "https://api.newrelic.com"}, "VENDOR_API_KEY is not set"),
        ({"VENDOR_URL": "https://host:99999"}, "VENDOR_URL='https://host:99999' is not an address"),
        ({"VENDOR_URL": "http://[::1"}, "is not an address"),
        ({"VENDOR_API_KEY": "secret"}, "VENDOR_URL is not set, but VENDOR_API_KEY is; set VENDOR_URL"),
        ({"VENDOR_ASSETS_STORE": "s3://b/x"}, "VENDOR_URL is not set, but VENDOR_ASSETS_STORE is"),
        (
            {"VENDOR_ACCOUNT": "7", "VENDOR_KIND": "new_relic"},
            "VENDOR_KIND, VENDOR_ACCOUNT are; .* unset them",
        ),
        ({"VENDOR_ASSETS_DB": "postgresql://u:secret@h/d"}, "VENDOR_ASSETS_DB is; set VENDOR_URL"),
        (
            REAL | {"VENDOR_ASSETS_STORE": "s3://b/x"},
            "VENDOR_ASSETS_DB is not set; machines that use the store s3://b/x share one budget: give postgresql://",
        ),
        (REAL | {"VENDOR_ACCOUNT": "a#b"}, "VENDOR_ACCOUNT='a#b' is not accepted"),
        (REAL | {"VENDOR_ACCOUNT": "secret-key"}, "VENDOR_ACCOUNT holds the key"),
        (REAL | {"VENDOR_OPTIONS": "a"}, "VENDOR_OPTIONS has 'a'; give name=value"),
        (REAL | {"VENDOR_OPTIONS": "a=1,a=2"}, "VENDOR_OPTIONS has 'a' twice"),
        (REAL | {"VENDOR_OPTIONS": "a=1"}, "VENDOR_OPTIONS has 'a'; New Relic accepts none"),
        ({"VENDOR_RATE": "fast"}, "VENDOR_RATE='fast'.* 20/s"),
        ({"VENDOR_RATE": "20/s,0/min"}, "VENDOR_RATE='20/s,0/min'"),
        ({"VENDOR_SHARE": "0"}, "VENDOR_SHARE='0' .* above 0, at most 1"),
        ({"VENDOR_SHARE": "nan"}, "VENDOR_SHARE='nan'"),
        ({"VENDOR_MAX_IN_FLIGHT": "2.5"}, "VENDOR_MAX_IN_FLIGHT='2.5' .* whole number"),
        ({"VENDOR_ASSETS_STORE": __file__}, "VENDOR_ASSETS_STORE=.* is a file; give a folder"),
        ({"VENDOR_ASSETS_STORE": "/a\0b"}, "VENDOR_ASSETS_STORE has .* control characters"),
        ({"VENDOR_ASSETS_STORE": "~nobody-of-this-name/x"}, "VENDOR_ASSETS_STORE='~nobody"),
        ({"VENDOR_ASSETS_STORE": "gs://bucket"}, "VENDOR_ASSETS_STORE='gs://bucket' .* s3://"),
        ({"VENDOR_ASSETS_DB": "mysql://u:secret@h/d"}, "VENDOR_ASSETS_DB is not accepted.* postgresql://"),
        ({"VENDOR_ASSETS_START": "1.11.2026"}, "VENDOR_ASSETS_START='1.11.2026' .* YYYY-MM-DD"),
        ({"VENDOR_ASSETS_START": "2026-11-20"}, "VENDOR_ASSETS_START='2026-11-20' is not in the past"),
        ({"VENDOR_ASSETS_TIMEZONE": "Berlin"}, "VENDOR_ASSETS_TIMEZONE.*'Berlin'.*Europe/"),
        ({"VENDOR_ASSETS_RESOLUTION": "0"}, "VENDOR_ASSETS_RESOLUTION='0'"),
        ({"VENDOR_ASSETS_SETTLING": "-1"}, "VENDOR_ASSETS_SETTLING='-1'"),
        ({"VENDOR_ASSETS_LOOK_BACK": "61"}, "VENDOR_ASSETS_LOOK_BACK='61'"),
        ({"VENDOR_ASSETS_RETENTION": "0"}, "VENDOR_ASSETS_RETENTION='0'"),
        (
            {"VENDOR_ASSETS_WEIGHTS": "payments=3,search"},
            "VENDOR_ASSETS_WEIGHTS: 'search' is not a team's weight",
        ),
        ({"VENDOR_ASSETS_TROOPS": "a,,b"}, "VENDOR_ASSETS_TROOPS='a,,b' has an empty pattern"),
        ({"VENDOR_ASSET_STORE": "x"}, "VENDOR_ASSET_STORE is not a setting"),
    ],
)
def test_a_wrong_value_is_one_line(environ: dict[str, str], message: str) -> None:
    """The name, the value and what is accepted; never a secret."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        read(environ, root=ROOT, now=NOW)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_vendor_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach it with the account, and names that it does not know are refused."""

    class Acme(NewRelic):
        options: ClassVar[Mapping[str, str]] = {"tag": "a tag's name", "raw": "true or false"}
        made: ClassVar[list[tuple[str, Mapping[str, str]]]] = []

        @classmethod
        def configured(cls, account: str, options: Mapping[str, str]) -> Acme:
            cls.made.append((account, options))
            return cls()

    monkeypatch.setattr("vendor_assets.vendors.load", lambda kind: Acme)
    given = REAL | {"VENDOR_ACCOUNT": "7", "VENDOR_OPTIONS": "tag=a%2Cb, raw=true"}
    found = read(given, root=ROOT, now=NOW)
    assert found.vendor_options == {"tag": "a,b", "raw": "true"}
    assert Acme.made == [("7", {"tag": "a,b", "raw": "true"})]
    with pytest.raises(ConfigurationError, match=r"'tga'; New Relic accepts tag \(a tag's name\), raw"):
        read(REAL | {"VENDOR_OPTIONS": "tga=x"}, root=ROOT, now=NOW)


@pytest.mark.parametrize(
    ("needs", "given", "message"),
    [
        (("application_key",), {}, "VENDOR_APPLICATION_KEY is not set; New Relic at .* besides VENDOR_API_KEY"),
        (("application_key",), {"VENDOR_TOKEN": "t"}, "VENDOR_APPLICATION_KEY is not set"),
        (("application_key",), {"VENDOR_API_KEY": "", "VENDOR_TOKEN": "t"}, ""),
        (("application_key",), {"VENDOR_APPLICATION_KEY": "second"}, ""),
        (("application_key",), {"VENDOR_APPLICATION_KEY": "sec ond"}, "VENDOR_APPLICATION_KEY has characters"),
        (("application_key",), {"VENDOR_API_KEY": "", "VENDOR_APPLICATION_KEY": "x"}, "VENDOR_API_KEY is not"),
        (("login",), {}, "VENDOR_USER is not set; New Relic at .* needs a user and VENDOR_PASSWORD"),
        (("login",), {"VENDOR_USER": "u"}, "VENDOR_PASSWORD is not set"),
        (("login",), {"VENDOR_USER": "urn:client", "VENDOR_PASSWORD": "p"}, ""),
        (("login",), {"VENDOR_TOKEN": "t"}, ""),
        ((), {"VENDOR_USER": "urn:client", "VENDOR_PASSWORD": "p"}, "VENDOR_USER has a colon"),
    ],
)  # fmt: skip
def test_a_vendor_says_what_it_needs(
    needs: tuple[str, ...], given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second key or its login missing is one line; a token may stand in for all, not for one of two keys."""
    for name in needs:
        monkeypatch.setattr(NewRelic, f"needs_{name}", True)
    if not message:
        account = read(REAL | given, root=ROOT, now=NOW)
        assert account.login.application_key.read() == given.get("VENDOR_APPLICATION_KEY", "")
        return
    with pytest.raises(ConfigurationError, match=message) as raised:
        read(REAL | given, root=ROOT, now=NOW)
    assert str(raised.value).isprintable()


def test_a_real_vendors_store_is_not_the_embedded_vendors() -> None:
    """By default, each has a folder of its own."""
    account = read(REAL, root=ROOT, now=NOW)
    assert account.store_url == "/project/data"
    assert str(account.source) == "new_relic@https://api.example.com"
    assert str(read({}, root=ROOT, now=NOW).source) == "new_relic@embedded"


def test_accounts_have_budgets_of_their_own_where_they_are_named() -> None:
    """Without a name the budget is that of kind and address, as ever; with one it is the account's."""
    nameless, other = (read(REAL | {"VENDOR_API_KEY": key}, root=ROOT, now=NOW) for key in "ab")
    assert nameless.budget_name == other.budget_name == "new_relic@https://api.example.com"
    named = read(REAL | {"VENDOR_ACCOUNT": "7"}, root=ROOT, now=NOW)
    assert named.budget_name == str(named.source) == "new_relic@https://api.example.com#7"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "new_relic"),
        ({"VENDOR_ACCOUNT": "acme"}, "new_relic"),
        ({"VENDOR_ACCOUNT": "1234"}, "new_relic"),
        ({"VENDOR_ACCOUNT": "1234567"}, "nerdgraph"),
        ({"VENDOR_ACCOUNT": "1234567", "VENDOR_KIND": "new_relic"}, "new_relic"),
        ({"VENDOR_ACCOUNT": "1234567", "VENDOR_KIND": "datadog", "VENDOR_APPLICATION_KEY": "k"}, "datadog"),
    ],
)
def test_the_number_of_an_account_means_nerdgraph(given: dict[str, str], kind: str) -> None:
    """It cannot be asked without one; REST v2, which ends, needs none. What is said goes before."""
    assert read(REAL | given, root=ROOT, now=NOW).vendor.kind == kind


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("HTTPS://API.Example.com:443/", "https://api.example.com"),
        ("http://host:80/API/v2//", "http://host/API/v2"),
        ("http://host:8080", "http://host:8080"),
        ("https://host:80", "https://host:80"),
        ("http://[::1]:9090/", "http://[::1]:9090"),
        ("http://[0:0:0::0001]/", "http://[::1]"),
        ("http://[fe80::0001%eth0]", "http://[fe80::1%eth0]"),
        ("https://api.example.com.", "https://api.example.com"),
        ("https://API.example.com.:443/v2", "https://api.example.com/v2"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example.", "https://xn--bcher-kva.example"),
        ("http://127.1:8080", "http://127.0.0.1:8080"),
        ("http://0x7f000001", "http://127.0.0.1"),
    ],
)
def test_an_address_has_one_spelling(written: str, meant: str) -> None:
    """Two spellings of one address are one vendor, with one budget."""
    assert read(REAL | {"VENDOR_URL": written}, root=ROOT, now=NOW).vendor_url == meant


def test_the_key_is_never_shown() -> None:
    """Neither the text of the settings nor their repr has it."""
    account = read({"VENDOR_URL": "https://h", "VENDOR_API_KEY": "k3y"}, root=ROOT, now=NOW)
    assert "k3y" not in f"{account} {account!r}"


def test_the_root_is_where_dagster_yaml_is(tmp_path: Path) -> None:
    """DAGSTER_HOME first, then the nearest folder upwards with a dagster.yaml, then the present one."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert project_root({}, deep) == deep
    (tmp_path / "dagster.yaml").touch()
    assert project_root({}, deep) == tmp_path
    home = tmp_path / "home"
    home.mkdir()
    assert project_root({"DAGSTER_HOME": str(home)}, deep) == home
