"""Configuration: a mapping of names to texts, usually the environment, becomes checked settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from vendor_assets import vendors
from vendor_assets.budget import Limit, seconds_for
from vendor_assets.days import last_complete_day, parse_time_zone
from vendor_assets.errors import ConfigurationError
from vendor_assets.harvest import filters
from vendor_assets.harvest.filters import Filters
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
    "VENDOR_RATE",
    "VENDOR_SHARE",
    "VENDOR_MAX_IN_FLIGHT",
    "VENDOR_ASSETS_STORE",
    "VENDOR_ASSETS_DB",
    "VENDOR_ASSETS_START",
    "VENDOR_ASSETS_TIMEZONE",
    "VENDOR_ASSETS_RESOLUTION",
    "VENDOR_ASSETS_SETTLING",
    "VENDOR_ASSETS_LOOK_BACK",
    "VENDOR_ASSETS_RETENTION",
    "VENDOR_ASSETS_ALERT_URL",
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
    *filters.SETTINGS,
)
"""Settings that say nothing of which vendor is meant or where its data are kept; any other one needs an address."""
SECRETS: Final = ("api_key", "alert_url")
"""Settings that are never printed."""


@dataclass(frozen=True)
class Settings:
    """What a deployment decides; every attribute has a default.

    Attributes:
        vendor: The vendor's dialect.
        vendor_url: Where it is: host in lower case, without the scheme's own port and a trailing slash.
        api_key: The key; never printed.
        embedded: Whether the vendor is the embedded simulator, because nothing is configured.
        limits: The vendor's quota, or ``auto``.
        share: Our part of the quota, above 0 to 1.
        max_in_flight: Calls at once, over all processes.
        store_url: A folder's absolute path, or ``s3://bucket/prefix``.
        database_url: Of the budget, the leases and the backlog.
        start: First day.
        zone: Time zone of days.
        resolution_seconds: Wanted length of a timeslice.
        settling_seconds: How long after its end a day's data may still change.
        filters: What of the hierarchy is asked for.
        vendor_account: The account at the vendor, where several are harvested at one address; empty: it has no name.
        look_back_days: How many days before the newest one the schedule ``look_back`` fetches anew; 0 is none.
        retention_days: After how many days the schedule ``landing_retention`` removes the answers of complete
            partitions; None keeps all.
        alert_url: Where alerts are posted; a secret, never printed; empty for the log alone.
    """

    vendor: Vendor
    vendor_url: str
    api_key: str
    embedded: bool
    limits: tuple[Limit, ...] | Literal["auto"]
    share: float
    max_in_flight: int
    store_url: str
    database_url: str
    start: date
    zone: ZoneInfo
    resolution_seconds: int
    settling_seconds: int
    filters: Filters
    vendor_account: str = ""
    look_back_days: int = 0
    retention_days: int | None = None
    alert_url: str = ""

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

    def __repr__(self) -> str:
        """All but the secrets."""
        shown = {name: value for name, value in self.__dict__.items() if name not in SECRETS}
        return f"Settings({shown})"


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
    values = {name: environ[name].strip() for name in NAMES if environ.get(name, "").strip()}
    _refuse_misspelt(environ)
    with _named("VENDOR_KIND"):
        vendor = vendors.load(values.get("VENDOR_KIND", "new_relic"))()
    url = _url(values.get("VENDOR_URL", ""))
    embedded = not url
    key = values.get("VENDOR_API_KEY", SIMULATOR_API_KEY if embedded else "")
    if vendor.needs_api_key and not key:
        raise ConfigurationError(f"VENDOR_API_KEY is not set; {vendor.title} at {url} needs a key")
    with _named("VENDOR_ASSETS_TIMEZONE"):
        zone = parse_time_zone(values.get("VENDOR_ASSETS_TIMEZONE", "UTC"))
    store = _store(values.get("VENDOR_ASSETS_STORE", EMBEDDED_STORE if embedded else "./data"), root)
    database = _database(values.get("VENDOR_ASSETS_DB", ""), store, root)
    if embedded:
        _refuse_without_address(values)
    return Settings(
        vendor=vendor,
        vendor_url=url or SIMULATOR_URL,
        api_key=key,
        embedded=embedded,
        limits=_limits(values.get("VENDOR_RATE", ""), vendor),
        share=_number(values, "VENDOR_SHARE", 0.8, lowest=0.0, highest=1.0, above=True),
        max_in_flight=int(_number(values, "VENDOR_MAX_IN_FLIGHT", 32, lowest=1, highest=10_000, whole=True)),
        store_url=store,
        database_url=database,
        start=_start(values.get("VENDOR_ASSETS_START", ""), now, zone),
        zone=zone,
        resolution_seconds=_resolution(values, vendor),
        settling_seconds=int(
            _number(values, "VENDOR_ASSETS_SETTLING", 1800, lowest=0, highest=864_000, whole=True)
        ),
        look_back_days=int(_number(values, "VENDOR_ASSETS_LOOK_BACK", 0, lowest=0, highest=60, whole=True)),
        retention_days=_retention(values),
        alert_url=_alert_url(values.get("VENDOR_ASSETS_ALERT_URL", "")),
        filters=Filters.parse(values),
        vendor_account=_account(values.get("VENDOR_ACCOUNT", ""), key),
    )


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
    for name in environ:
        if name.startswith(("VENDOR_ASSETS_", "VENDOR_")) and name not in NAMES:
            raise ConfigurationError(f"{name} is not a setting; the settings are {', '.join(NAMES)}")


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


def _account(text: str, key: str) -> str:
    # The name is in the store, in the budget and in messages.
    if text and text == key:
        raise ConfigurationError("VENDOR_ACCOUNT holds the key; give the account's name or number")
    if text and not _ACCOUNT.fullmatch(text):
        raise ConfigurationError(
            f"VENDOR_ACCOUNT={text[:100]!r} is not accepted; give the account's name or number: up to 100 letters, "
            "digits and . _ - + : / @"
        )
    return text


def _url(text: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        address = parts.scheme in ("http", "https") and parts.hostname and not parts.netloc.endswith(":")
        _ = parts.port  # which is read, and refused, only now
    except ValueError:
        address = ""
    if not address:
        raise ConfigurationError(
            f"VENDOR_URL={text!r} is not an address; give one like https://api.newrelic.com"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        shown = f"{parts.scheme}://…{parts.hostname}"
        raise ConfigurationError(
            f"VENDOR_URL ({shown}) has credentials, a query or a fragment; give scheme, host and path only"
        )
    return normal_address(text)


def _alert_url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.hostname):
        # Whoever reads the message may not know the address.
        raise ConfigurationError("VENDOR_ASSETS_ALERT_URL is not an address; give one like https://host/path")
    return text


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
    try:
        number = int(text) if whole else float(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}={text!r} is not accepted; give {accepted}") from error
    if not lowest <= number <= highest or (above and number == lowest):
        raise ConfigurationError(f"{name}={text!r} is not accepted; give {accepted}")
    return number


def _store(text: str, root: Path) -> str:
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigurationError(
                f"VENDOR_ASSETS_STORE={text!r} is not accepted; give a folder or s3://bucket/prefix"
            )
        return text.rstrip("/")
    folder = (root / Path(text).expanduser()).resolve()
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(
            f"VENDOR_ASSETS_STORE={text!r} is a file; give a folder or s3://bucket/prefix"
        )
    return str(folder)


def _database(text: str, store: str, root: Path) -> str:
    if not text:
        folder = Path(store) if "://" not in store else root / ".vendor_assets"
        return f"sqlite:///{folder / 'budget.db'}"
    scheme = text.partition("://")[0]
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        return text.replace("postgres://", "postgresql://", 1)
    if scheme == "sqlite":
        path = text.removeprefix("sqlite:///")
        return f"sqlite:///{(root / path).resolve()}"
    shown = text.partition("@")[2] or text
    raise ConfigurationError(
        f"VENDOR_ASSETS_DB ({shown}) is not accepted; give sqlite:///path or postgresql://user:password@host/database"
    )


def _start(text: str, now: datetime, zone: ZoneInfo) -> date:
    if not text:
        return now.astimezone(zone).date() - timedelta(days=30)
    try:
        start = date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"VENDOR_ASSETS_START={text!r} is not a date; give it as YYYY-MM-DD, like 2026-11-01"
        ) from error
    if start > last_complete_day(now, zone):
        raise ConfigurationError(
            f"VENDOR_ASSETS_START={text!r} is not in the past; the first day must be over"
        )
    return start


def project_root(environ: Mapping[str, str], cwd: Path) -> Path:
    """The folder that relative paths are relative to.

    ``DAGSTER_HOME`` where it is set, else the nearest folder upwards with a ``dagster.yaml``, else the present one.
    """
    home = environ.get("DAGSTER_HOME", "").strip()
    if home:
        return Path(home).expanduser().resolve()
    return next((folder for folder in (cwd, *cwd.parents) if (folder / "dagster.yaml").is_file()), cwd)
