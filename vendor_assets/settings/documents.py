"""Several accounts in one deployment: a document for each, from the project's file or from a component.

A document has the settings of the environment by shorter names: ``url`` for ``VENDOR_URL``, ``rate`` for
``VENDOR_RATE``, ``start`` for ``VENDOR_ASSETS_START``. A secret is in none: ``api_key_env`` names the environment's
variable that holds the key, ``api_key_file`` a file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from vendor_assets.account import Account
from vendor_assets.errors import ConfigurationError
from vendor_assets.logs import get_logger
from vendor_assets.settings import parse
from vendor_assets.settings.environment import NAMES, SECRETS, read, store_url

FILE: Final = "vendor_assets.toml"
"""In the project's folder; a table ``[accounts.name]`` for each account."""

logger = get_logger(__name__)

_NAME: Final = re.compile("[a-z][a-z0-9_]{0,39}")
_SHOWN: Final = 60


def _short(name: str) -> str:
    return name.removeprefix("VENDOR_").removeprefix("ASSETS_").lower()


KEYS: Final[Mapping[str, str]] = {_short(name): name for name in NAMES if name not in SECRETS}
"""What a document may hold besides references to secrets: setting by key."""
REFERENCES: Final[Mapping[str, str]] = {f"{_short(name)}_env": name for name in SECRETS}
"""Keys that name the environment's variable of a secret."""


def read_accounts(environ: Mapping[str, str], *, root: Path) -> tuple[Account, ...]:
    """The accounts of a project: those of its file, else the one that the environment tells.

    Args:
        environ: The environment; with a file it holds no setting of ours but the variables that the file names.

    Raises:
        ConfigurationError: A value is wrong, on one line: the file, the account, the key, and what is accepted.
    """
    file = root / FILE
    if not file.exists():
        return (read(environ, root=root),)
    given = [name for name in NAMES if environ.get(name, "").strip()]
    tables = _tables(file)
    accounts = [account_of(name, table, environ, root=root, place=FILE) for name, table in tables.items()]
    named = {
        str(value)
        for table in tables.values()
        for key, value in (table.items() if isinstance(table, dict) else ())
        if key in REFERENCES
    }
    if given and not {*given} <= named:
        raise ConfigurationError(
            f"{FILE} names the accounts, and {given[0]} is set; unset it, or remove the file to harvest one account"
        )
    return tuple(beside(accounts, tables))


def beside(accounts: Collection[Account], documents: Mapping[str, Collection[str]]) -> list[Account]:
    """The accounts of a project beside each other: one budget for those that ask with one key and are not told apart.

    Args:
        documents: By each account's name, at least the keys that its document has.

    Raises:
        ConfigurationError: Two would keep their data in one store.
    """
    apart = {"account", "db_env", "db_file"}
    silent = {name for name, document in documents.items() if apart.isdisjoint(document)}
    found = _sharing(accounts, silent)
    check_apart(found)
    return found


def _sharing(accounts: Collection[Account], silent: Collection[str]) -> list[Account]:
    """Accounts that ask with the same key, one budget for all of which nobody said that they are apart."""
    first: dict[tuple[str, ...], Account] = {}
    found = []
    for account in accounts:
        shared = first.setdefault(_asked_as(account), account)
        sharing = replace(account, database=shared.database, budget_account=shared.vendor_account)
        found.append(sharing if account.name in silent else account)
    return found


def _asked_as(account: Account) -> tuple[str, ...]:
    """What the vendor sees of an account."""
    login = account.login
    keys = (account.api_key, login.user, login.token.read(), login.headers.read())
    return (account.vendor_url, account.vendor.kind, *keys)


def store_urls(environ: Mapping[str, str], *, root: Path) -> dict[str, str]:
    """Where each account of a project keeps its data, by its name; that of the environment has none.

    No secret and no other setting is needed, so that whoever only reads the data has none.

    Raises:
        ConfigurationError: The file or a store's address is wrong.
    """
    file = root / FILE
    if not file.exists():
        return {"": store_url(environ, root=root)}
    found = {}
    for name, table in _tables(file).items():
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{FILE}, account {name[:_SHOWN]!r}: it is not a table of settings")
        try:
            found[name] = parse.store(str(table.get("store", _store_of(name))), root)
        except ConfigurationError as error:
            message = str(error).replace("VENDOR_ASSETS_STORE", "store")
            raise ConfigurationError(f"{FILE}, account {name[:_SHOWN]!r}: {message}") from None
    return found


def _tables(file: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{file} cannot be read ({reason}); correct it or remove it") from error
    tables = document.pop("accounts", None)
    if document or not isinstance(tables, dict) or not tables:
        raise ConfigurationError(f"{FILE} has no accounts; give each a table, like [accounts.newrelic_prod]")
    return tables


def _store_of(name: str) -> str:
    """Where an account keeps its data by default."""
    return f"./data/{name}"


def check_apart(accounts: list[Account]) -> None:
    """Refuse two accounts that would keep their data in one store; tell of two that look like one to the vendor.

    Raises:
        ConfigurationError: They would.
    """
    stores: dict[str, str] = {}
    for account in accounts:
        other = stores.setdefault(account.store_url, account.name)
        if other != account.name:
            raise ConfigurationError(
                f"accounts {other!r} and {account.name!r} have the store {account.store_url}; give each its own"
            )
    budgets: dict[tuple[str, ...], Account] = {}
    for account in accounts:
        first = budgets.setdefault(_asked_as(account), account)
        apart = first.database_url != account.database_url
        # Where a key is a user's, it may reach several accounts, each with a rate of its own.
        apart = apart or (
            account.vendor.most_in_flight_of == "account" and first.budget_name != account.budget_name
        )
        if apart:
            logger.warning(
                "accounts %r and %r ask %s with one key and have a budget each, which is twice the rate; if they are "
                "one account there, give both the same account and the same db_env",
                first.name,
                account.name,
                account.vendor_url,
            )


def account_of(
    name: str, document: Any, environ: Mapping[str, str], *, root: Path, place: str = "the account's settings"
) -> Account:
    """One account from its document.

    Args:
        name: What it is called in Dagster: lower-case letters, digits and underscores.
        environ: Where the variables are that it names, and what is set for the whole machine, like a proxy.

    Raises:
        ConfigurationError: A value is wrong, on one line.
    """
    where = f"{place}, account {name[:_SHOWN]!r}"
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{where}: give it a name of up to 40 lower-case letters, digits and underscores, like newrelic_prod"
        )
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"{where}: it is not a table of settings")
    # What begins like a setting of ours may be a variable that holds an account's key.
    values = {key: text for key, text in environ.items() if not key.startswith("VENDOR_")}
    variables: dict[str, str] = {}
    for key, value in document.items():
        if value is None:
            continue
        if key in REFERENCES:
            variables[REFERENCES[key]] = str(value)
            values[REFERENCES[key]] = _held(where, key, str(value), environ)
        elif key in KEYS:
            values[KEYS[key]] = _text(where, key, value)
        else:
            raise ConfigurationError(f"{where}: {_unknown(key)}")
    if "VENDOR_URL" not in values:
        raise ConfigurationError(f"{where}: url is not set; give the vendor's address")
    values.setdefault("VENDOR_ASSETS_STORE", _store_of(name))
    values.setdefault("VENDOR_ACCOUNT", name)
    try:
        found = read(values, root=root)
    except ConfigurationError as error:
        message = re.sub(r"\bVENDOR_[A-Z_]+\b", lambda match: _key_of(match[0]), str(error))
        raise ConfigurationError(f"{where}: {message}") from None
    for secret in found.secrets:
        secret.variable = variables.get(secret.name, secret.name)
    return replace(found, name=name)


def _held(where: str, key: str, variable: str, environ: Mapping[str, str]) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,99}", variable):
        # Whoever gives the secret itself in place of a name shall not read it in a log.
        raise ConfigurationError(
            f"{where}: {key} does not name a variable; give a variable's name, not its value"
        )
    if not environ.get(variable, "").strip():
        raise ConfigurationError(f"{where}: {key} names {variable}, which is not set")
    return environ[variable]


def _text(where: str, key: str, value: Any) -> str:
    if key in ("options", "weights") and isinstance(value, Mapping):
        return ",".join(f"{name}={_option(key, where, each)}" for name, each in value.items())
    if isinstance(value, list) and all(isinstance(item, (str, int)) for item in value):
        return ",".join(map(str, value))
    if isinstance(value, bool) or (
        not isinstance(value, (str, int, float)) and not hasattr(value, "isoformat")
    ):
        raise ConfigurationError(f"{where}: {key} is not a string, a number or a list of these")
    return str(value)


def _option(key: str, where: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else _text(where, key, value)
    return text.replace("%", "%25").replace(",", "%2C")


def _unknown(key: str) -> str:
    shown = ascii(key[:_SHOWN])[1:-1]
    if shown in map(_short, SECRETS):
        return f"{shown} is a secret; name the variable that holds it as {shown}_env, or its file as {shown}_file"
    near = difflib.get_close_matches(shown, [*KEYS, *REFERENCES], 1)
    meant = f"did you mean {near[0]}?" if near else f"the settings are {', '.join([*KEYS, *REFERENCES])}"
    return f"{shown} is not a setting; {meant}"


def _key_of(name: str) -> str:
    return f"{_short(name)}_env" if name in SECRETS else _short(name)
