"""Which settings are in force, and where each comes from, for people."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from vendor_assets.account import Account
from vendor_assets.budget import database_place
from vendor_assets.settings.documents import FILE, KEYS, REFERENCES
from vendor_assets.settings.environment import NAMES, SECRETS

_NOT_SET: Final = "not set"


class InForce(NamedTuple):
    """One setting.

    Attributes:
        value: As text; of a secret only whether it is set.
        origin: ``environment``, the file that gives it, or ``default``.
    """

    name: str
    value: str
    origin: str


def settings_in_force(
    account: Account, root: Path, before: Mapping[str, str], environ: Mapping[str, str]
) -> list[InForce]:
    """Every setting of an account.

    Args:
        before: The environment before the project's file completed it.
        environ: The environment after that.
    """
    given: dict[str, tuple[str, str]] = {}
    if account.name:
        given = dict(_of_document(account.name, root / FILE))
    else:
        for name in NAMES:
            if text := environ.get(name, "").strip():
                given[name] = text, "environment" if before.get(name, "").strip() else "vendor_assets.env"
    defaults = _defaults(account)
    found = []
    for name in NAMES:
        text, origin = given.get(name, (defaults.get(name, _NOT_SET), "default"))
        if name in SECRETS and name in given:
            text = database_place(account.database_url) if name == "VENDOR_ASSETS_DB" else "set, not shown"
        if name in given or not name.endswith("_FILE"):
            found.append(InForce(name, text, origin))
    return found


def _of_document(name: str, file: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    table: Mapping[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))["accounts"][name]
    for key, value in table.items():
        if key in REFERENCES:
            yield REFERENCES[key], (str(value), f"{FILE}, variable {value}")
        elif key in KEYS:
            items = (
                [f"{name}={each}" for name, each in value.items()] if isinstance(value, Mapping) else value
            )
            text = ",".join(map(str, items)) if isinstance(items, list) else str(items)
            yield KEYS[key], (text, FILE)


def _defaults(account: Account) -> dict[str, str]:
    """What holds where nothing is said."""
    limits = "auto" if account.limits == "auto" else ",".join(map(str, account.limits))
    return {
        "VENDOR_KIND": account.vendor.kind,
        "VENDOR_URL": f"{account.vendor_url} (the embedded vendor)"
        if account.embedded
        else account.vendor_url,
        "VENDOR_RATE": limits,
        "VENDOR_SHARE": f"{account.share:g}",
        "VENDOR_MAX_IN_FLIGHT": str(account.max_in_flight),
        "VENDOR_ASSETS_STORE": account.store_url,
        "VENDOR_ASSETS_DB": database_place(account.database_url),
        "VENDOR_ASSETS_START": account.start.isoformat(),
        "VENDOR_ASSETS_TIMEZONE": account.zone.key,
        "VENDOR_ASSETS_RESOLUTION": str(account.resolution_seconds),
        "VENDOR_ASSETS_SETTLING": str(account.settling_seconds),
        "VENDOR_ASSETS_LOOK_BACK": str(account.look_back_days),
        "VENDOR_ASSETS_HISTORY": str(account.history_days or "forever"),
        "VENDOR_ASSETS_RETENTION": str(account.retention_days or "forever"),
    }
