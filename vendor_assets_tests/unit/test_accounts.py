"""Accounts from a file: as many as one names, each by itself, and every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vendor_assets.errors import ConfigurationError
from vendor_assets.settings import FILE, KEYS, NAMES, REFERENCES, SECRETS, account_of, read, read_accounts
from vendor_assets.vendors.new_relic import NewRelic

TWO = """
[accounts.newrelic_prod]
url = "https://api.newrelic.com"
api_key_env = "PROD_KEY"
rate = ["1000/min", "100000/day"]
share = 0.5
start = 2026-11-01

[accounts.lab]
kind = "prometheus"
url = "http://prometheus:9090"
troops = ["node", "!test*"]
weights = {node = 3, "*" = 0.5}
"""
ENVIRON = {"PROD_KEY": "s3cr3t-key-of-prod", "HTTPS_PROXY": ""}


def test_a_file_names_several_accounts(tmp_path: Path) -> None:
    """Each has its name, settings, store, budget and the reference to its key; defaults are the environment's."""
    (tmp_path / FILE).write_text(TWO)
    prod, lab = read_accounts(ENVIRON, root=tmp_path)
    assert (prod.name, lab.name) == ("newrelic_prod", "lab")
    assert prod.api_key == "s3cr3t-key-of-prod"
    assert prod.key.variable == "PROD_KEY"
    assert [str(limit) for limit in prod.limits] == ["1000/min", "100000/day"]
    assert (prod.share, lab.share) == (0.5, 0.8)
    assert prod.start.isoformat() == "2026-11-01"
    assert lab.filters.texts == {"VENDOR_ASSETS_TROOPS": "node,!test*"}
    assert (prod.weights.text, lab.weights.text) == ("", "node=3,*=0.5")
    assert prod.store_url == str(tmp_path / "data" / "newrelic_prod")
    assert lab.store_url == str(tmp_path / "data" / "lab")
    assert prod.budget_name != lab.budget_name
    assert prod.budget_name.endswith("#newrelic_prod")
    assert "s3cr3t" not in repr(prod)


def test_calls_at_once_are_the_users_where_the_vendor_says_so(tmp_path: Path) -> None:
    """Accounts of NerdGraph with one key at one address share them, whatever else; the key itself is not told."""

    def of(**more: str) -> str:
        environ = {
            "VENDOR_KIND": "nerdgraph",
            "VENDOR_URL": "https://x",
            "VENDOR_ACCOUNT": "1",
            "VENDOR_API_KEY": "k3y",
        }
        account = read(environ | more, root=tmp_path)
        assert "k3y" not in account.in_flight_of
        assert (account.in_flight_of == account.budget_name) == (
            account.vendor.most_in_flight_of == "account"
        )
        return account.in_flight_of

    assert of() == of(VENDOR_ACCOUNT="2") == of(VENDOR_URL="https://X:443/", VENDOR_MAX_IN_FLIGHT="3")
    assert (
        len({of(), of(VENDOR_API_KEY="other-k3y"), of(VENDOR_URL="https://y"), of(VENDOR_KIND="new_relic")})
        == 4
    )


def test_without_a_file_the_environment_tells_the_only_account(tmp_path: Path) -> None:
    """It has no name, so that nothing is called otherwise than before."""
    (only,) = read_accounts({"VENDOR_URL": "http://x", "VENDOR_API_KEY": "k"}, root=tmp_path)
    assert (only.name, only.vendor_account) == ("", "")
    assert only.store_url == str(tmp_path / "data")


def test_every_setting_has_a_key() -> None:
    """No two settings share one, and a secret has none but its references."""
    assert len(KEYS) + len(REFERENCES) == len(NAMES)
    assert set(KEYS).isdisjoint(REFERENCES)
    assert not {name.removeprefix("VENDOR_").removeprefix("ASSETS_").lower() for name in SECRETS} & set(KEYS)


def test_a_vendors_own_settings_may_be_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a document they are a table or a list of pairs."""
    monkeypatch.setattr(NewRelic, "options", {"a": "", "b": ""})
    for options in ({"a": "1,2%", "b": True}, ["a=1%2C2%25", "b=true"]):
        document = {"url": "http://x", "api_key_env": "K", "options": options}
        found = account_of("one", document, {"K": "k"}, root=tmp_path)
        assert found.vendor_options == {"a": "1,2%", "b": "true"}


def test_two_accounts_may_share_a_budget_on_purpose(tmp_path: Path) -> None:
    """One key under two names has one budget where both name the same account."""
    document = {"url": "http://x", "api_key_env": "K", "account": "shared"}
    one, other = (account_of(name, document, {"K": "k"}, root=tmp_path) for name in ("one", "other"))
    assert one.budget_name == other.budget_name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[accounts]", "has no accounts"),
        ("[account.x]\nurl = 'http://x'", "has no accounts"),
        ("[accounts.x", "cannot be read"),
        ("[accounts.X]\nurl = 'http://x'", "lower-case letters"),
        ("accounts.x = 3", "not a table of settings"),
        ("[accounts.x]\nkind = 'prometheus'", "url is not set"),
        ("[accounts.x]\nurl = 'http://x'\nrates = '3/s'", "rates is not a setting; did you mean rate?"),
        (
            "[accounts.x]\nurl = 'http://x'\napi_key = 'hidden-key'",
            "name the variable that holds it as api_key_env",
        ),
        (
            "[accounts.x]\nurl = 'http://x'\napi_key_env = 'hidden-key'",
            "api_key_env does not name a variable",
        ),
        (
            "[accounts.x]\nurl = 'http://x'\napi_key_env = 'ABSENT'",
            "api_key_env names ABSENT, which is not set",
        ),
        ("[accounts.x]\nurl = 'http://x'\nkind = 'new_relic'", "api_key_env is not set"),
        ("[accounts.x]\nkind = 'prometheus'\nurl = 'http://x'\nrate = 'much'", "rate='much'"),
        ("[accounts.x]\nkind = 'prometheus'\nurl = 'http://x'\nshare = true", "share is not a string"),
        (
            "\n".join(f"[accounts.{x}]\nkind='prometheus'\nurl='http://{x}'\nstore='s'" for x in "xy"),
            "accounts 'x' and 'y' have the store",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """It names the file, the account and the key; what may be a secret is not in it."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_accounts({}, root=tmp_path)
    message = str(caught.value)
    assert said in message
    assert FILE in message or "accounts 'x'" in message
    assert "\n" not in message
    assert "hidden-key" not in message
    assert "VENDOR_" not in message


def test_a_file_and_settings_of_the_environment_exclude_each_other(tmp_path: Path) -> None:
    """Nobody has to guess which of them holds."""
    (tmp_path / FILE).write_text(TWO)
    with pytest.raises(ConfigurationError, match="VENDOR_URL is set; unset it"):
        read_accounts(ENVIRON | {"VENDOR_URL": "http://x"}, root=tmp_path)


def test_a_variable_of_ours_may_hold_an_accounts_key(tmp_path: Path) -> None:
    """What the file itself names is no setting of the environment, nor a misspelt one."""
    text = "[accounts.x]\nurl = 'http://x'\napi_key_env = '{}'\n[accounts.y]\nurl = 'http://y'\napi_key_env = '{}'"
    (tmp_path / FILE).write_text(text.format("VENDOR_API_KEY", "VENDOR_APIKEY_Y"))
    environ = {"VENDOR_API_KEY": "k", "VENDOR_APIKEY_Y": "l"}
    assert [each.api_key for each in read_accounts(environ, root=tmp_path)] == ["k", "l"]


@pytest.mark.parametrize(
    ("kind", "settings", "other_settings", "told"),
    [
        ("new_relic", {}, {}, False),
        ("new_relic", {"db_env": "DB"}, {}, False),
        ("new_relic", {}, {"account": "2"}, True),
        ("new_relic", {}, {"api_key_env": "OTHER"}, False),
        ("new_relic", {"db_env": "DB"}, {"db_env": "DB"}, True),
        ("new_relic", {"db_env": "DB", "account": "1"}, {"db_env": "DB", "account": "1"}, False),
        ("nerdgraph", {"account": "1"}, {"account": "2"}, True),
        ("nerdgraph", {"db_env": "DB", "account": "1"}, {"db_env": "DB", "account": "2"}, False),
    ],
)
def test_one_key_with_two_budgets_is_told(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    settings: dict[str, str],
    other_settings: dict[str, str],
    told: bool,
) -> None:
    """Two budgets of one account are twice its rate: accounts of which nothing else is said share one.

    A user's key may reach several accounts, which share calls at once.
    """
    common = {"kind": kind, "url": "https://x", "api_key_env": "K"}
    tables = {"a": common | settings, "b": common | other_settings}
    (tmp_path / FILE).write_text(
        "\n".join(
            f"[accounts.{name}]\n" + "\n".join(f'{key} = "{text}"' for key, text in table.items())
            for name, table in tables.items()
        )
    )
    environ = {"K": "k" * 20, "OTHER": "o" * 20, "DB": "sqlite:///shared.db"}
    first, second = read_accounts(environ, root=tmp_path)
    if not other_settings:
        assert (second.budget_name, second.database_url) == (first.budget_name, first.database_url)
        assert second.store_url != first.store_url
        assert second.source != first.source
    assert ("accounts 'a' and 'b' ask https://x with one key" in caplog.text) == told
