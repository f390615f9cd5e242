"""Configuration: a mapping of names to texts, usually the environment, becomes checked settings. Pure."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from vendor_assets import vendors
from vendor_assets.budget import Limit, check_database, seconds_for
from vendor_assets.client.credentials import Credentials, Login
from vendor_assets.client.network import (
    Network,
    Proxy,
    certificates_named_by,
    check_url,
    proxy_named_by,
    variables_for_libraries,
)
from vendor_assets.days import last_complete_day, parse_time_zone
from vendor_assets.errors import ConfigurationError
from vendor_assets.harvest import filters
from vendor_assets.harvest.filters import Filters
from vendor_assets.secret import Secret
from vendor_assets.storage.source import EMBEDDED, Source, normal_address
from vendor_assets.vendors.base import Vendor

SIMULATOR_PORT: Final = 8731
SIMULATOR_URL: Final = f"http://127.0.0.1:{SIMULATOR_PORT}"
SIMULATOR_API_KEY: Final = "embedded-vendor-key"
EMBEDDED_STORE: Final = "./demo_data"
"""Where the embedded vendor's data are kept: never where those of a real vendor are."""
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9._+:/@-]{1,100}")

NAMES: Final = (
    "VENDOR_KIND",
    "VENDOR_URL",
    "VENDOR_ACCOUNT",
    "VENDOR_API_KEY",
    "VENDOR_API_KEY_FILE",
    "VENDOR_USER",
    "VENDOR_PASSWORD",
    "VENDOR_PASSWORD_FILE",
    "VENDOR_TOKEN",
    "VENDOR_TOKEN_FILE",
    "VENDOR_HEADERS",
    "VENDOR_HEADERS_FILE",
    "VENDOR_PROXY",
    "VENDOR_PROXY_FILE",
    "VENDOR_CA_BUNDLE",
    "VENDOR_CLIENT_CERT",
    "VENDOR_CLIENT_KEY",
    "VENDOR_RATE",
    "VENDOR_SHARE",
    "VENDOR_MAX_IN_FLIGHT",
    "VENDOR_ASSETS_STORE",
    "VENDOR_ASSETS_DB",
    "VENDOR_ASSETS_DB_FILE",
    "VENDOR_ASSETS_START",
    "VENDOR_ASSETS_TIMEZONE",
    "VENDOR_ASSETS_RESOLUTION",
    "VENDOR_ASSETS_SETTLING",
    "VENDOR_ASSETS_LOOK_BACK",
    "VENDOR_ASSETS_RETENTION",
    "VENDOR_ASSETS_ALERT_URL",
    "VENDOR_ASSETS_ALERT_URL_FILE",
    *filters.SETTINGS,
)
"""Every setting, by its name in the environment."""
FIT_THE_EMBEDDED: Final = (
    "VENDOR_RATE",
    "VENDOR_SHARE",
    "VENDOR_MAX_IN_FLIGHT",
    "VENDOR_ASSETS_START",
    "VENDOR_ASSETS_TIMEZONE",
    "VENDOR_ASSETS_RESOLUTION",
    "VENDOR_ASSETS_SETTLING",
    "VENDOR_ASSETS_LOOK_BACK",
    "VENDOR_ASSETS_RETENTION",
    "VENDOR_ASSETS_ALERT_URL",
    "VENDOR_ASSETS_ALERT_URL_FILE",
    *filters.SETTINGS,
)
"""Settings that say nothing of which vendor is meant or where its data are kept; any other one needs an address."""
SECRETS: Final = tuple(name.removesuffix("_FILE") for name in NAMES if name.endswith("_FILE"))
"""Settings that are never shown, since they are or may hold a secret; each can be in a file too."""
NO_PROXY: Final = "none"
"""As VENDOR_PROXY: whatever the environment says, there is none."""

_FOLDER_OF_DAGSTER: Final = "DAGSTER_HOME"
_LONGEST: Final = 10_000
_HIDDEN_FROM: Final = 4
"""A secret of fewer characters would blot out half of a message."""
_SHOWN: Final = 100
_FIRST_DAY: Final = date(1970, 1, 1)
_NEAR: Final = 0.66
"""From 0 to 1, how alike what follows VENDOR_ is to that of a setting to be taken for a misspelt one."""
_SHORTEST: Final = 3
"""What is shorter is like everything."""
_WHOLE: Final = re.compile("[0-9]{1,12}")
_DECIMAL: Final = re.compile(r"(?=\.?[0-9])[0-9]{0,20}\.?[0-9]{0,20}(e-?[0-9]{1,2})?", re.IGNORECASE)
_DATABASES: Final = "give sqlite:///path or postgresql://user:password@host/database"
_QUOTED: Final = re.compile(r"""(['"])((?:(?!\1).)*)\1""")
"""A value as messages show it."""
_MAY_BE_SECRET: Final = re.compile("[@?]|:.*#|passw|secret|token|key", re.IGNORECASE)
"""Credentials, a query, or a text that calls itself a secret."""
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


@dataclass(frozen=True)
class Settings:
    """What a deployment decides; every attribute has a default.

    Attributes:
        vendor: The vendor's dialect.
        vendor_url: Where it is: host in lower case, without the scheme's own port and a trailing slash.
        key: The API key.
        login: What the vendor wants besides: a user, a token, headers.
        network: How it is reached: proxy, certificates.
        embedded: Whether the vendor is the embedded simulator, because nothing is configured.
        limits: The vendor's quota, or ``auto``.
        share: Our part of the quota, above 0 to 1.
        max_in_flight: Calls at once, over all processes.
        store_url: A folder's absolute path, or ``s3://bucket/prefix``.
        database: Address of the database of the budget, the leases and the backlog.
        start: First day.
        zone: Time zone of days.
        resolution_seconds: Wanted length of a timeslice.
        settling_seconds: How long after its end a day's data may still change.
        filters: What of the hierarchy is asked for.
        name: The account's name in Dagster, where several are harvested by one deployment; empty for the only one.
        vendor_account: The account at the vendor, where several are harvested at one address; empty: it has no name.
        look_back_days: How many days before the newest one the schedule ``look_back`` fetches anew; 0 is none.
        retention_days: After how many days the schedule ``landing_retention`` removes the answers of complete
            partitions; None keeps all.
        alert: Where alerts are posted; not set for the log alone.
        alert_network: How that is reached, by the environment alone.
    """

    vendor: Vendor
    vendor_url: str
    key: Secret
    embedded: bool
    limits: tuple[Limit, ...] | Literal["auto"]
    share: float
    max_in_flight: int
    store_url: str
    database: Secret
    start: date
    zone: ZoneInfo
    resolution_seconds: int
    settling_seconds: int
    filters: Filters
    name: str = ""
    vendor_account: str = ""
    look_back_days: int = 0
    retention_days: int | None = None
    login: Login = field(default_factory=Login)
    network: Network = field(default_factory=Network)
    alert: Secret = field(default_factory=lambda: Secret("VENDOR_ASSETS_ALERT_URL"))
    alert_network: Network = field(default_factory=Network)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All of them."""
        login = (self.login.password, self.login.token, self.login.headers)
        return (self.key, *login, self.network.proxy, self.database, self.alert)

    @property
    def api_key(self) -> str:
        """The key; a secret."""
        return self.key.read()

    @property
    def database_url(self) -> str:
        """Of the budget, the leases and the backlog; may hold a password."""
        return self.database.read()

    @property
    def account(self) -> str:
        """Name of the vendor account in the budget: kind and address, and the account's name where it has one.

        Two keys at one address share a budget where the accounts have no names: sharing too much harms nobody.
        """
        return str(Source(self.vendor.kind, self.vendor_url, self.vendor_account))

    @property
    def source(self) -> Source:
        """Whose data the store holds; of the embedded vendor wherever it listens."""
        address = EMBEDDED if self.embedded else self.vendor_url
        return Source(self.vendor.kind, address, self.vendor_account)

    @property
    def permitted_rate(self) -> float | None:
        """Calls per second that the vendor's quota and our share permit, day after day; None where it is not known."""
        if self.limits == "auto":
            return None
        return min(limit.rate for limit in self.limits) * self.share

    def seconds_for(self, calls: int) -> float | None:
        """How long so many calls take at least, by quota and share; None where the quota is not known."""
        return None if self.limits == "auto" else seconds_for(calls, self.limits, self.share)


def read(environ: Mapping[str, str], *, root: Path, now: datetime | None = None) -> Settings:
    """Read the settings from an environment.

    Args:
        environ: Names and texts; an empty text counts as absent.
        root: Relative paths are relative to this folder.
        now: The time, for the default of the first day.

    Raises:
        ConfigurationError: A value is wrong: its name, the value and what is accepted, on one line.
    """
    now = now or datetime.now(UTC)
    secrets: dict[str, Secret] = {}
    try:
        _refuse_misspelt(environ)
        values = {name: _plain(name, environ[name]) for name in NAMES if environ.get(name, "").strip()}
        secrets |= {name: _secret(name, values, root) for name in SECRETS}
        return _read(environ, values, secrets, root, now)
    except ConfigurationError as error:
        message = _without(str(error), secrets.values())
    raise ConfigurationError(_QUOTED.sub(_shown, message))


def _read(
    environ: Mapping[str, str],
    values: Mapping[str, str],
    secrets: Mapping[str, Secret],
    root: Path,
    now: datetime,
) -> Settings:
    with _named("VENDOR_KIND"):
        vendor = vendors.load(values.get("VENDOR_KIND", "new_relic"))()
    text = values.get("VENDOR_URL", "")
    url = normal_address(check_url(text)) if text else ""
    embedded = not url
    key = secrets["VENDOR_API_KEY"] or Secret("VENDOR_API_KEY", SIMULATOR_API_KEY if embedded else "")
    login = Login(
        values.get("VENDOR_USER", ""),
        secrets["VENDOR_PASSWORD"],
        secrets["VENDOR_TOKEN"],
        secrets["VENDOR_HEADERS"],
    )
    if vendor.needs_api_key and not (key or login):
        raise ConfigurationError(f"VENDOR_API_KEY is not set; {vendor.title} at {url} needs a key")
    Credentials(key, login, vendor.auth_headers)
    with _named("VENDOR_ASSETS_TIMEZONE"):
        zone = parse_time_zone(values.get("VENDOR_ASSETS_TIMEZONE", "UTC"))
    store = _store(values.get("VENDOR_ASSETS_STORE", EMBEDDED_STORE if embedded else "./data"), root)
    if store.startswith("s3://"):
        _check_certificates_for_s3(environ)
    database = _database(secrets["VENDOR_ASSETS_DB"], store, root)
    if embedded:
        _refuse_without_address(values)
    return Settings(
        vendor=vendor,
        vendor_url=url or SIMULATOR_URL,
        key=key,
        login=login,
        network=Network() if embedded else _network(environ, values, secrets["VENDOR_PROXY"], url, root),
        embedded=embedded,
        limits=_limits(values.get("VENDOR_RATE", ""), vendor),
        share=_number(values, "VENDOR_SHARE", 0.8, lowest=0.0, highest=1.0, above=True),
        max_in_flight=int(_number(values, "VENDOR_MAX_IN_FLIGHT", 32, lowest=1, highest=10_000, whole=True)),
        store_url=store,
        database=database,
        start=_start(values.get("VENDOR_ASSETS_START", ""), now, zone),
        zone=zone,
        resolution_seconds=_resolution(values, vendor),
        settling_seconds=int(
            _number(values, "VENDOR_ASSETS_SETTLING", 1800, lowest=0, highest=864_000, whole=True)
        ),
        look_back_days=int(_number(values, "VENDOR_ASSETS_LOOK_BACK", 0, lowest=0, highest=60, whole=True)),
        retention_days=_retention(values),
        alert=(alert := _alert(secrets["VENDOR_ASSETS_ALERT_URL"])),
        alert_network=_network(environ, {}, Secret("VENDOR_PROXY"), alert.read(), root),
        filters=Filters.parse(values),
        vendor_account=_account(values.get("VENDOR_ACCOUNT", ""), secrets.values()),
    )


def _plain(name: str, text: str) -> str:
    """A value that is one line of text; it is in no message, since it may be a secret."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise ConfigurationError(f"{name} has {len(text):,} characters; give at most {_LONGEST:,}")
    if any(_unprintable(character) for character in text):
        raise ConfigurationError(
            f"{name} has line ends, control characters or bytes that are no text; remove them"
        )
    return text


def _unprintable(character: str) -> bool:
    code = ord(character)
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000


def _secret(name: str, values: Mapping[str, str], root: Path) -> Secret:
    """A secret from its setting or from the file that another one names; a file's content is tried at once."""
    path = values.get(f"{name}_FILE", "")
    if path and name in values:
        raise ConfigurationError(f"{name} and {name}_FILE are both set; unset one of them")
    found = Secret(name, values.get(name, ""), _path(path, root))
    text = found.read()
    if path and name != "VENDOR_HEADERS":
        _plain(f"{name}_FILE", text)
    return found


def _without(message: str, secrets: Iterable[Secret]) -> str:
    """A message in which no secret is, should one have been given for another setting too."""
    for secret in secrets:
        with suppress(ConfigurationError):
            text = secret.read()
            for form in {text, repr(text)[1:-1]} if len(text) >= _HIDDEN_FROM else ():
                message = message.replace(form, "***")
    return message


def _shown(quoted: re.Match[str]) -> str:
    """A value in a message, shortened, and left out where it may be a secret."""
    if _MAY_BE_SECRET.search(quoted[2]):
        return "(not shown, as it may hold a password)"
    return quoted[0] if len(quoted[2]) <= _SHOWN else f"{quoted[1]}{quoted[2][:_SHOWN]}…{quoted[1]}"


def _network(
    environ: Mapping[str, str], values: Mapping[str, str], proxy: Secret, url: str, root: Path
) -> Network:
    if proxy.read().lower() == NO_PROXY:
        proxy = Secret("VENDOR_PROXY")
    elif not proxy and (name := proxy_named_by(environ, url)):
        proxy = Secret(name, _plain(name, environ[name]))
    if proxy:
        Proxy.parse(proxy.read(), proxy.name)
    ca_name, ca_bundle = certificates_named_by({**environ, **values}, "VENDOR_CA_BUNDLE")
    if ca_bundle and ca_name != "VENDOR_CA_BUNDLE":
        ca_bundle = _plain(ca_name, ca_bundle)
    network = Network(
        proxy,
        _path(ca_bundle, root),
        ca_name or "VENDOR_CA_BUNDLE",
        _path(values.get("VENDOR_CLIENT_CERT", ""), root),
        _path(values.get("VENDOR_CLIENT_KEY", ""), root),
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
    if not Path(_plain(name, path)).is_file():
        raise ConfigurationError(
            f"{name}={path!r} is not a file; S3 needs the certificates to trust in one file, in PEM form: "
            "give it as AWS_CA_BUNDLE"
        )


def _path(text: str, root: Path) -> str:
    """An absolute path; relative ones are relative to the project's root."""
    if not text:
        return ""
    try:
        return str((root / Path(text).expanduser()).absolute())
    except (OSError, RuntimeError):
        return str(root / text)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which setting it was."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _resolution(values: Mapping[str, str], vendor: Vendor) -> int:
    seconds = int(_number(values, "VENDOR_ASSETS_RESOLUTION", 1800, lowest=1, highest=86_400, whole=True))
    with _named("VENDOR_ASSETS_RESOLUTION"):
        vendor.check_resolution(seconds)
    return seconds


def _retention(values: Mapping[str, str]) -> int | None:
    days = int(_number(values, "VENDOR_ASSETS_RETENTION", 0, lowest=1, highest=36_500, whole=True))
    return days or None


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Refuse what is meant for us and is no setting: ours begin with VENDOR_ASSETS_, or are misspelt ones of ours."""
    for name in environ:
        if not name.startswith("VENDOR_") or name in NAMES:
            continue
        rest = name.removeprefix("VENDOR_")[:_SHOWN]
        ours = [known.removeprefix("VENDOR_") for known in NAMES]
        near = difflib.get_close_matches(rest, ours, 1, _NEAR) if len(rest) >= _SHORTEST else []
        shown = ascii(name[:_SHOWN])[1:-1]
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


def _alert(address: Secret) -> Secret:
    if not address:
        return address
    # Whoever reads the message may not know the address.
    message = "VENDOR_ASSETS_ALERT_URL is not an address; give one like https://host/path"
    try:
        parts = urlsplit(address.read())
        host, _ = parts.hostname or "", parts.port
        if ":" not in host:
            host.encode("idna")
    except ValueError as error:
        raise ConfigurationError(message) from error
    if parts.scheme not in ("http", "https") or not host or any(map(str.isspace, address.read())):
        raise ConfigurationError(message)
    return address


def _limits(text: str, vendor: Vendor) -> tuple[Limit, ...] | Literal["auto"]:
    if text.lower() == "auto" or (not text and not vendor.documented_limits):
        return "auto"
    texts = text.split(",") if text else list(vendor.documented_limits)
    try:
        return Limit.parse_all(texts)
    except ConfigurationError as error:
        message = (
            f"VENDOR_RATE={text!r}: {error}; several with commas hold at once, auto finds what is permitted"
        )
        raise ConfigurationError(message) from error


def _number(
    values: Mapping[str, str],
    name: str,
    default: float,
    *,
    lowest: float,
    highest: float,
    above: bool = False,
    whole: bool = False,
) -> float:
    text = values.get(name)
    if text is None:
        return default
    kind = "a whole number" if whole else "a number"
    accepted = f"{kind} {'above' if above else 'from'} {lowest:g} to {highest:g}"
    # int() and float() take more than people write: other scripts' digits, 1_000, nan, 1e400.
    form = _WHOLE if whole else _DECIMAL
    number = float(text) if form.fullmatch(text) else lowest - 1
    if not lowest <= number <= highest or (above and number == lowest):
        raise ConfigurationError(f"{name}={text!r} is not accepted; give {accepted}")
    return number


def _store(text: str, root: Path) -> str:
    accepted = "give a folder or s3://bucket/prefix"
    if _SCHEME.match(text):
        try:
            parts = urlsplit(text)
            bucket = parts.hostname
        except ValueError:
            bucket = None
        if "@" in text.partition("://")[2].partition("/")[0] or "?" in text:
            raise ConfigurationError(
                "VENDOR_ASSETS_STORE has credentials or a query; give s3://bucket/prefix alone, and credentials as "
                "the standard AWS variables"
            )
        if not text.startswith("s3://") or not bucket or bucket != parts.netloc or "#" in text:
            shown = "" if "@" in text or "#" in text else f"={text!r}"
            raise ConfigurationError(f"VENDOR_ASSETS_STORE{shown} is not accepted; {accepted}")
        return text.rstrip("/")
    try:
        folder = (root / Path(text).expanduser()).resolve()
        a_file = folder.exists() and not folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"VENDOR_ASSETS_STORE={text!r} cannot be used ({reason}); {accepted}"
        ) from error
    if a_file:
        raise ConfigurationError(f"VENDOR_ASSETS_STORE={text!r} is a file; {accepted}")
    return str(folder)


def _database(address: Secret, store: str, root: Path) -> Secret:
    """The database's address as SQLAlchemy wants it; it is in no message, since it may hold a password."""
    text = address.read()
    if not text:
        folder = Path(store) if "://" not in store else root / ".vendor_assets"
        return Secret(address.name, f"sqlite:///{folder / 'budget.db'}")
    scheme, _, rest = text.partition("://")
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        with _named("VENDOR_ASSETS_DB"):
            check_database(text)
        # As it is given, so that Dagster can refer to the setting.
        return address
    try:
        if scheme == "sqlite" and rest.startswith("/") and rest.strip("/"):
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


def project_root(environ: Mapping[str, str], cwd: Path) -> Path:
    """The folder that relative paths are relative to.

    ``DAGSTER_HOME`` where it is set, else the nearest folder upwards with a ``dagster.yaml``, else the present one.

    Raises:
        ConfigurationError: ``DAGSTER_HOME`` is not a folder that can be used.
    """
    text = environ.get(_FOLDER_OF_DAGSTER, "").strip()
    if not text:
        return next((folder for folder in (cwd, *cwd.parents) if (folder / "dagster.yaml").is_file()), cwd)
    home = Path(_plain(_FOLDER_OF_DAGSTER, text))
    shown = f"{_FOLDER_OF_DAGSTER}={text[:_SHOWN]!r}"
    todo = f"give the absolute path of a folder, or unset {_FOLDER_OF_DAGSTER} to use the project's"
    try:
        home = home.expanduser()
        problem = (
            "is not an absolute path" if not home.is_absolute()
            else "is not there" if not home.exists()
            else "is not a folder" if not home.is_dir()
            else "" if os.access(home, os.R_OK | os.W_OK | os.X_OK) else "cannot be read and written"
        )  # fmt: skip
        if not problem:
            return home.resolve()
    except (OSError, RuntimeError) as error:
        problem = f"cannot be used ({error.strerror if isinstance(error, OSError) else error})"
    raise ConfigurationError(f"{shown} {problem}; {todo}")


def enter(environ: MutableMapping[str, str]) -> Path:
    """Complete an environment by the project's ``vendor_assets.env``, and by what libraries need; the project's root.

    What the environment has already goes before its file.

    Raises:
        ConfigurationError: The folder or its file cannot be used.
    """
    from dotenv import dotenv_values  # noqa: PLC0415  the rest of this module needs no file

    try:
        cwd = Path.cwd()
    except OSError as error:
        raise ConfigurationError("the present folder is gone; change to one that is there") from error
    root = project_root(environ, cwd)
    file = root / "vendor_assets.env"
    try:
        found = dotenv_values(file) if file.exists() else {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(f"{file} cannot be read ({reason}); correct it or remove it") from error
    for name, text in {**found, **environ}.items():
        if name not in environ and text is not None:
            if "\0" in name + text:
                raise ConfigurationError(f"{file} gives {name!r} a value with a zero byte; remove it")
            environ[name] = text
    environ.update(variables_for_libraries(environ))
    return root
