"""An account from the environment: names and texts become checked values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from math import floor
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo

from vendor_assets import vendors
from vendor_assets.account import Account
from vendor_assets.budget import REQUESTS, Limit, check_database
from vendor_assets.client.credentials import Credentials, Login
from vendor_assets.client.network import Network, Proxy, certificates_named_by, check_url, proxy_named_by
from vendor_assets.days import Window, last_complete_day, parse_time_zone
from vendor_assets.errors import ConfigurationError
from vendor_assets.harvest import filters
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.weights import WEIGHTS, Weights
from vendor_assets.secret import Secret
from vendor_assets.settings import parse
from vendor_assets.storage.source import normal_address
from vendor_assets.vendors.base import DataGroup, Vendor

SIMULATOR_PORT: Final = 8731
SIMULATOR_URL: Final = f"http://127.0.0.1:{SIMULATOR_PORT}"
SIMULATOR_PORT_NAME: Final = "EMBEDDED_VENDOR_PORT"
"""Where ``vendor-assets dev`` tells its processes that the embedded vendor listens elsewhere; no setting."""
SIMULATOR_API_KEY: Final = "embedded-vendor-key"
EMBEDDED_STORE: Final = "./demo_data"
"""Where the embedded vendor's data are kept: never where those of a real vendor are."""
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9._+:/@-]{1,100}")

NAMES: Final = (
    "VENDOR_KIND", "VENDOR_OPTIONS", "VENDOR_URL", "VENDOR_ACCOUNT", "VENDOR_API_KEY",
    "VENDOR_API_KEY_FILE", "VENDOR_APPLICATION_KEY", "VENDOR_APPLICATION_KEY_FILE", "VENDOR_USER", "VENDOR_PASSWORD",
    "VENDOR_PASSWORD_FILE", "VENDOR_TOKEN", "VENDOR_TOKEN_FILE", "VENDOR_HEADERS",
    "VENDOR_HEADERS_FILE", "VENDOR_PROXY", "VENDOR_PROXY_FILE", "VENDOR_CA_BUNDLE", "VENDOR_CLIENT_CERT",
    "VENDOR_CLIENT_KEY", "VENDOR_RATE", "VENDOR_SHARE", "VENDOR_MAX_IN_FLIGHT", "VENDOR_ASSETS_STORE",
    "VENDOR_ASSETS_DB", "VENDOR_ASSETS_DB_FILE", "VENDOR_ASSETS_START", "VENDOR_ASSETS_TIMEZONE",
    "VENDOR_ASSETS_RESOLUTION", "VENDOR_ASSETS_SETTLING", "VENDOR_ASSETS_LOOK_BACK",
    "VENDOR_ASSETS_RETENTION", "VENDOR_ASSETS_HISTORY", "VENDOR_ASSETS_ALERT_URL",
    "VENDOR_ASSETS_ALERT_URL_FILE", *filters.SETTINGS, WEIGHTS,
)  # fmt: skip
"""Every setting, by its name in the environment."""
FIT_THE_EMBEDDED: Final = (
    "VENDOR_RATE", "VENDOR_SHARE", "VENDOR_MAX_IN_FLIGHT", "VENDOR_ASSETS_START", "VENDOR_ASSETS_TIMEZONE",
    "VENDOR_ASSETS_RESOLUTION", "VENDOR_ASSETS_SETTLING", "VENDOR_ASSETS_LOOK_BACK",
    "VENDOR_ASSETS_RETENTION", "VENDOR_ASSETS_HISTORY", "VENDOR_ASSETS_ALERT_URL",
    "VENDOR_ASSETS_ALERT_URL_FILE", *filters.SETTINGS, WEIGHTS,
)  # fmt: skip
"""Settings that say nothing of which vendor is meant or where its data are kept; any other one needs an address."""
SECRETS: Final = tuple(name.removesuffix("_FILE") for name in NAMES if name.endswith("_FILE"))
"""Settings that are never shown, since they are or may hold a secret; each can be in a file too."""
NO_PROXY: Final = "none"
"""As VENDOR_PROXY: whatever the environment says, there is none."""

_HIDDEN_FROM: Final = 4
"""A secret of fewer characters would blot out half of a message."""
_NUMBER_OF_ACCOUNT: Final = re.compile(r"[1-9]\d{4,}", re.ASCII)
_FIRST_DAY: Final = date(1970, 1, 1)
_NEAR: Final = 0.66
"""From 0 to 1, how alike what follows VENDOR_ is to that of a setting to be taken for a misspelt one."""
_SHORTEST: Final = 3
"""What is shorter is like everything."""
_DATABASES: Final = "give sqlite:///path or postgresql://user:password@host/database"
_QUOTED: Final = re.compile(r"""(['"])((?:(?!\1).)*)\1""")
"""A value as messages show it."""
_MAY_BE_SECRET: Final = re.compile("[@?]|:.*#|passw|secret|token|key", re.IGNORECASE)
"""Credentials, a query, or a text that calls itself a secret."""


def read(environ: Mapping[str, str], *, root: Path, now: datetime | None = None) -> Account:
    """Read the settings from an environment.

    Args:
        environ: Names and texts; an empty text counts as absent.

    Raises:
        ConfigurationError: A value is wrong: its name, the value and what is accepted, on one line.
    """
    now = now or datetime.now(UTC)
    secrets: dict[str, Secret] = {}
    try:
        _refuse_misspelt(environ)
        values = {name: parse.plain(name, environ[name]) for name in NAMES if environ.get(name, "").strip()}
        secrets |= {name: _secret(name, values, root) for name in SECRETS}
        return _read(environ, values, secrets, root, now)
    except ConfigurationError as error:
        message = _without(str(error), secrets.values())
    raise ConfigurationError(_QUOTED.sub(_shown, message))


def store_url(environ: Mapping[str, str], *, root: Path) -> str:
    """Where the account of an environment keeps its data; whoever reads them needs no other setting.

    Raises:
        ConfigurationError: As :func:`read`, of what says where the store is.
    """
    _refuse_misspelt(environ)
    names = ("VENDOR_URL", "VENDOR_ASSETS_STORE")
    return _store(
        {name: parse.plain(name, environ[name]) for name in names if environ.get(name, "").strip()}, root
    )


def _store(values: Mapping[str, str], root: Path) -> str:
    default = "./data" if "VENDOR_URL" in values else EMBEDDED_STORE
    return parse.store(values.get("VENDOR_ASSETS_STORE", default), root)


def _simulator_url(environ: Mapping[str, str]) -> str:
    text = environ.get(SIMULATOR_PORT_NAME, "").strip() or str(SIMULATOR_PORT)
    if not re.fullmatch(r"[1-9]\d{0,4}", text, re.ASCII) or int(text) > 65_535:
        raise ConfigurationError(f"{SIMULATOR_PORT_NAME} {text[:60]!r} is not accepted; give 1 to 65535")
    return f"http://127.0.0.1:{text}"


def _read(
    environ: Mapping[str, str],
    values: Mapping[str, str],
    secrets: Mapping[str, Secret],
    root: Path,
    now: datetime,
) -> Account:
    kind = values.get("VENDOR_KIND") or _default_kind(values.get("VENDOR_ACCOUNT", ""))
    with parse.named("VENDOR_KIND"):
        vendors.load(kind)
    vendor_account = _account(values.get("VENDOR_ACCOUNT", ""), secrets.values())
    options = parse.options(values.get("VENDOR_OPTIONS", ""))
    vendor = vendors.make(kind, vendor_account, options)
    text = values.get("VENDOR_URL", "")
    url = normal_address(check_url(text)) if text else ""
    embedded = not url
    key = secrets["VENDOR_API_KEY"] or Secret("VENDOR_API_KEY", SIMULATOR_API_KEY if embedded else "")
    login = Login(
        values.get("VENDOR_USER", ""),
        secrets["VENDOR_PASSWORD"],
        secrets["VENDOR_TOKEN"],
        secrets["VENDOR_HEADERS"],
        secrets["VENDOR_APPLICATION_KEY"],
    )
    _check_given(vendor, url, key, login)
    Credentials(key, login, vendor)
    with parse.named("VENDOR_ASSETS_TIMEZONE"):
        zone = parse_time_zone(values.get("VENDOR_ASSETS_TIMEZONE", "UTC"))
    store = _store(values, root)
    if store.startswith("s3://"):
        _check_certificates_for_s3(environ)
    database = _database(secrets["VENDOR_ASSETS_DB"], store, root)
    if embedded:
        _refuse_without_address(values)
    if not database:
        raise ConfigurationError(
            f"VENDOR_ASSETS_DB is not set; machines that use the store {store} share one budget: give "
            "postgresql://user:password@host/database, or, where one machine alone calls the vendor, "
            "sqlite:///budget.db"
        )
    return Account(
        vendor=vendor,
        vendor_url=url or _simulator_url(environ),
        key=key,
        login=login,
        network=Network() if embedded else _network(environ, values, secrets["VENDOR_PROXY"], url, root),
        embedded=embedded,
        limits=limits_of(values.get("VENDOR_RATE", ""), vendor),
        share=(share := parse.number(values, "VENDOR_SHARE", 0.8, lowest=0.0, highest=1.0, above=True)),
        max_in_flight=_max_in_flight(values, vendor, share),
        store_url=store,
        database=database,
        start=_start(values.get("VENDOR_ASSETS_START", ""), now, zone),
        zone=zone,
        resolution_seconds=_resolution(values, vendor),
        settling_seconds=parse.whole(values, "VENDOR_ASSETS_SETTLING", 1800, lowest=0, highest=864_000),
        look_back_days=parse.whole(values, "VENDOR_ASSETS_LOOK_BACK", 0, lowest=0, highest=60),
        history_days=parse.whole(values, "VENDOR_ASSETS_HISTORY", 0, lowest=7, highest=36_500) or None,
        retention_days=parse.whole(values, "VENDOR_ASSETS_RETENTION", 0, lowest=1, highest=36_500) or None,
        alert=(alert := parse.alert(secrets["VENDOR_ASSETS_ALERT_URL"])),
        alert_network=_network(environ, {}, Secret("VENDOR_PROXY"), alert.read(), root),
        filters=Filters.parse(values),
        weights=Weights.parse(values.get(WEIGHTS, "")),
        vendor_account=vendor_account,
        vendor_options=options,
    )


def _default_kind(account: str) -> str:
    """NerdGraph, which needs the number of an account; without one New Relic's REST v2, as long as there is such."""
    return "nerdgraph" if _NUMBER_OF_ACCOUNT.fullmatch(account) else "new_relic"


def _check_given(vendor: Vendor, url: str, key: Secret, login: Login) -> None:
    """Refuse to go on without what the vendor needs; a login may stand in for its keys, not for one of two."""
    what = f"{vendor.title} at {url}"
    if vendor.needs_api_key and not (key or (login and not login.application_key)):
        raise ConfigurationError(f"VENDOR_API_KEY is not set; {what} needs a key")
    if vendor.needs_application_key and not login.application_key and (key or not login):
        raise ConfigurationError(
            f"VENDOR_APPLICATION_KEY is not set; {what} needs an application key besides VENDOR_API_KEY"
        )
    if vendor.needs_login and not login:
        raise ConfigurationError(f"VENDOR_USER is not set; {what} needs a user and VENDOR_PASSWORD")


def _secret(name: str, values: Mapping[str, str], root: Path) -> Secret:
    """A secret from its setting or from the file that another one names; a file's content is tried at once."""
    path = values.get(f"{name}_FILE", "")
    if path and name in values:
        raise ConfigurationError(f"{name} and {name}_FILE are both set; unset one of them")
    found = Secret(name, values.get(name, ""), parse.path(path, root))
    text = found.read()
    if path and name != "VENDOR_HEADERS":
        parse.plain(f"{name}_FILE", text)
    return found


def _without(message: str, secrets: Iterable[Secret]) -> str:
    """A message in which no secret is, should one have been given for another setting too."""
    for secret in secrets:
        with suppress(ConfigurationError):
            text = secret.read()
            # The beginning of an address is in the advice; hiding it there made the advice unreadable.
            hidden = len(text) >= _HIDDEN_FROM and text not in _DATABASES
            for form in {text, repr(text)[1:-1]} if hidden else ():
                message = message.replace(form, "***")
    return message


def _shown(quoted: re.Match[str]) -> str:
    """A value in a message, shortened, and left out where it may be a secret."""
    if _MAY_BE_SECRET.search(quoted[2]):
        return "(not shown, as it may hold a password)"
    return (
        quoted[0] if len(quoted[2]) <= parse.SHOWN else f"{quoted[1]}{quoted[2][: parse.SHOWN]}…{quoted[1]}"
    )


def _network(
    environ: Mapping[str, str], values: Mapping[str, str], proxy: Secret, url: str, root: Path
) -> Network:
    if proxy.read().lower() == NO_PROXY:
        proxy = Secret("VENDOR_PROXY")
    elif not proxy and (name := proxy_named_by(environ, url)):
        proxy = Secret(name, parse.plain(name, environ[name]))
    if proxy:
        Proxy.parse(proxy.read(), proxy.name)
    ca_name, ca_bundle = certificates_named_by({**environ, **values}, "VENDOR_CA_BUNDLE")
    if ca_bundle and ca_name != "VENDOR_CA_BUNDLE":
        ca_bundle = parse.plain(ca_name, ca_bundle)
    network = Network(
        proxy,
        parse.path(ca_bundle, root),
        ca_name or "VENDOR_CA_BUNDLE",
        parse.path(values.get("VENDOR_CLIENT_CERT", ""), root),
        parse.path(values.get("VENDOR_CLIENT_KEY", ""), root),
    )
    if network.client_key and not network.client_cert:
        raise ConfigurationError(
            "VENDOR_CLIENT_CERT is not set; VENDOR_CLIENT_KEY is the key of that certificate"
        )
    given = [name for name in ("VENDOR_CA_BUNDLE", "VENDOR_CLIENT_CERT") if name in values]
    if url.startswith("https:") and (ca_bundle or given):
        network.tls()
    elif given:
        raise ConfigurationError(
            f"{given[0]} is for encrypted connections; set VENDOR_URL to an address that begins with https://, or "
            f"unset {given[0]}"
        )
    return network


def _check_certificates_for_s3(environ: Mapping[str, str]) -> None:
    """boto3 takes a file of certificates alone, and says of another that it is no bundle, and not whose."""
    name, path = certificates_named_by(environ, "AWS_CA_BUNDLE")
    if name == "SSL_CERT_DIR" or not name:
        return
    if not Path(parse.plain(name, path)).is_file():
        raise ConfigurationError(
            f"{name}={path!r} is not a file; S3 needs the certificates to trust in one file, in PEM form: "
            "give it as AWS_CA_BUNDLE"
        )


def _resolution(values: Mapping[str, str], vendor: Vendor) -> int:
    seconds = parse.whole(values, "VENDOR_ASSETS_RESOLUTION", 1800, lowest=1, highest=86_400)
    with parse.named("VENDOR_ASSETS_RESOLUTION"):
        vendor.check_resolution(seconds)
    return seconds


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Refuse what is meant for us and is no setting: ours begin with VENDOR_ASSETS_, or are misspelt ones of ours."""
    for name in environ:
        if not name.startswith("VENDOR_") or name in NAMES:
            continue
        rest = name.removeprefix("VENDOR_")[: parse.SHOWN]
        ours = [known.removeprefix("VENDOR_") for known in NAMES]
        near = difflib.get_close_matches(rest, ours, 1, _NEAR) if len(rest) >= _SHORTEST else []
        shown = ascii(name[: parse.SHOWN])[1:-1]
        if near:
            raise ConfigurationError(f"{shown} is not a setting; did you mean VENDOR_{near[0]}?")
        if name.startswith("VENDOR_ASSETS_"):
            raise ConfigurationError(f"{shown} is not a setting; the settings are {', '.join(NAMES)}")


def _refuse_without_address(values: Mapping[str, str]) -> None:
    """The embedded vendor stands in where nothing is configured, never for a vendor whose address was forgotten."""
    meant = [name for name in values if name not in FIT_THE_EMBEDDED]
    if meant:
        others = f"{', '.join(meant)} {'is' if len(meant) == 1 else 'are'}"
        raise ConfigurationError(
            f"VENDOR_URL is not set, but {others}; set VENDOR_URL to the vendor's address, like "
            f"https://api.newrelic.com or http://prometheus:9090, or unset {'it' if len(meant) == 1 else 'them'} "
            "to harvest the embedded vendor"
        )


def _account(text: str, secrets: Iterable[Secret]) -> str:
    # The name is in the store, in the budget and in messages.
    if text and text in [secret.read() for secret in secrets]:
        raise ConfigurationError(
            "VENDOR_ACCOUNT holds the key or a password; give the account's name or number"
        )
    if text and not _ACCOUNT.fullmatch(text):
        raise ConfigurationError(
            f"VENDOR_ACCOUNT={text[:100]!r} is not accepted; give the account's name or number: up to 100 letters, "
            "digits and . _ - + : / @"
        )
    return text


def _max_in_flight(values: Mapping[str, str], vendor: Vendor, share: float) -> int:
    """Calls at once: as set, else 32, or our share of what the vendor permits."""
    most = vendor.most_in_flight
    default = 32 if most is None else max(1, min(32, floor(most * share + 1e-9)))
    found = parse.whole(values, "VENDOR_MAX_IN_FLIGHT", default, lowest=1, highest=10_000)
    if most is not None and found > most:
        raise ConfigurationError(
            f"VENDOR_MAX_IN_FLIGHT={found} is not accepted; {vendor.title} permits {most} calls at once"
        )
    return found


def limits_of(text: str, vendor: Vendor, name: str = "VENDOR_RATE") -> tuple[Limit, ...] | Literal["auto"]:
    """The limits that a text says, with the documented one of what it says nothing of.

    Args:
        name: Of the setting, for errors.

    Raises:
        ConfigurationError: It is no list of limits, or one is for endpoints that no call goes to, or of a unit that no
            call counts.
    """
    if text.lower() == "auto" or (not text and not vendor.documented_limits):
        return "auto"
    texts = text.split(",") if text else list(vendor.documented_limits)
    try:
        limits = Limit.parse_all(texts)
        if all(limit.endpoints for limit in limits):
            # Of some endpoints alone: for the others holds what is documented.
            texts += [told for told in vendor.documented_limits if not Limit.parse(told).endpoints]
            limits = Limit.parse_all(texts)
        named = {name for limit in limits for name in limit.endpoints}
        counted = {limit.unit for limit in limits} - {REQUESTS}
        if text and (named or counted):
            endpoints, units = _words(vendor)
            _check_known("call goes to", named, endpoints, "endpoints")
            _check_known("call counts", counted, units, "units")
    except ConfigurationError as error:
        message = f"{name}={text!r}: {error}; several with commas hold at once, auto finds what is permitted"
        raise ConfigurationError(message) from error
    return limits


def _check_known(what: str, named: set[str], known: set[str], kind: str) -> None:
    if known and (unknown := sorted(named - known)):
        there = ", ".join(sorted(known - {""})) or "none"
        raise ConfigurationError(f"no {what} {'+'.join(unknown)[:60]!r}; {kind} are: {there}")


def _words(vendor: Vendor) -> tuple[set[str], set[str]]:
    """The endpoints that a harvest calls and the units that its calls count, in the dialect's words.

    Neither is known of a dialect that does not build an example, nor the units of one that reads them from answers.
    """
    day = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
    groups = [DataGroup("x", ("x",))]
    with suppress(Exception):
        planned = [vendor.troops(day), vendor.warriors("0", day), vendor.data_groups("0", "0", day)]
        planned += vendor.performance_data("0", "0", groups, day, 3600)
        requests = [vendor.probe(), *(each.request for each in planned)]
        told = [Limit.parse(text) for text in vendor.documented_limits]
        endpoints = {request.endpoint for request in requests}.union(*(limit.endpoints for limit in told))
        units = {REQUESTS, *(limit.unit for limit in told)}.union(*map(vendor.counts, requests))
        return endpoints, units if type(vendor).counted is Vendor.counted else set()
    return set(), set()


def _database(address: Secret, store: str, root: Path) -> Secret:
    """The database's address as SQLAlchemy wants it, empty where it has to be set.

    It is in no message, since it may hold a password.
    """
    text = address.read()
    if not text:
        # Any machine may use a bucket, and with a budget of its own would spend the vendor's quota a second time.
        return address if "://" in store else Secret(address.name, f"sqlite:///{Path(store) / 'budget.db'}")
    scheme, _, rest = text.partition("://")
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        with parse.named("VENDOR_ASSETS_DB"):
            check_database(text)
        # As it is given, so that Dagster can refer to the setting.
        return address
    try:
        # SQLite would take options for a part of the name, and a budget in memory would hold for one process alone.
        named = rest.startswith("/") and rest.strip("/") not in ("", ":memory:") and "?" not in rest
        if scheme == "sqlite" and named:
            path = (root / rest.removeprefix("/")).resolve()
            if not path.is_dir():
                return Secret(address.name, f"sqlite:///{path}")
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"VENDOR_ASSETS_DB names a file that cannot be; {_DATABASES}") from error
    raise ConfigurationError(f"VENDOR_ASSETS_DB is not accepted; {_DATABASES}")


def _start(text: str, now: datetime, zone: ZoneInfo) -> date:
    if not text:
        return now.astimezone(zone).date() - timedelta(days=30)
    try:
        start = date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"VENDOR_ASSETS_START={text!r} is not a date; give it as YYYY-MM-DD, like 2026-11-01"
        ) from error
    if start < _FIRST_DAY:
        raise ConfigurationError(
            f"VENDOR_ASSETS_START={text!r} is too early; give a day from {_FIRST_DAY} on"
        )
    if start > last_complete_day(now, zone):
        raise ConfigurationError(
            f"VENDOR_ASSETS_START={text!r} is not in the past; the first day must be over"
        )
    return start
