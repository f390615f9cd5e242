"""Vendors: what differs between them, one file each; other packages bring theirs by entry point."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from vendor_assets.errors import ConfigurationError
from vendor_assets.vendors.base import Vendor

ENTRY_POINT_GROUP: Final = "vendor_assets.vendors"

_BUILT_IN: Final = {
    "cloudwatch": "vendor_assets.vendors.cloudwatch:Cloudwatch",
    "datadog": "vendor_assets.vendors.datadog:Datadog",
    "nerdgraph": "vendor_assets.vendors.nerdgraph:NerdGraph",
    "new_relic": "vendor_assets.vendors.new_relic:NewRelic",
    "prometheus": "vendor_assets.vendors.prometheus:Prometheus",
}


def kinds() -> tuple[str, ...]:
    """The names that ``load`` accepts: the built-in ones and those of installed packages."""
    return tuple(sorted({*_BUILT_IN, *entry_points(group=ENTRY_POINT_GROUP).names}))


def load(kind: str) -> type[Vendor]:
    """The vendor of this name. A built-in name cannot be taken over by another package.

    Raises:
        ConfigurationError: No such vendor, or its package cannot be imported.
    """
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        built_in: type[Vendor] = getattr(import_module(module), name)
        return built_in
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=kind):
        try:
            found = entry.load()
        except Exception as error:
            message = f"vendor {kind!r} ({entry.value}) cannot be loaded: {error!r}; repair or uninstall its package"
            raise ConfigurationError(message) from error
        if isinstance(found, type) and issubclass(found, Vendor):
            return found
        raise ConfigurationError(f"vendor {kind!r} ({entry.value}) is not a class derived from Vendor")
    raise ConfigurationError(f"vendor kind {kind!r} is unknown; accepted are {', '.join(kinds())}")


def make(kind: str, account: str = "", options: Mapping[str, str] | None = None) -> Vendor:
    """The vendor of this name, as a deployment wants it.

    Raises:
        ConfigurationError: No such vendor, or it cannot have this account or these options.
    """
    vendor = load(kind)
    options = options or {}
    for name in options:
        if name not in vendor.options:
            accepted = ", ".join(f"{known} ({what})" for known, what in vendor.options.items()) or "none"
            raise ConfigurationError(f"VENDOR_OPTIONS has {name!r}; {vendor.title} accepts {accepted}")
    return vendor.configured(account, options)


__all__ = ["ENTRY_POINT_GROUP", "Vendor", "kinds", "load", "make"]
