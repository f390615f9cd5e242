"""Which troops a text means that is neither an id nor a partition key: a name, or a shell pattern. Pure."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from vendor_assets.errors import ConfigurationError
from vendor_assets.presentable import presentable_names
from vendor_assets.storage.roster import Troop


def keys_named(text: str, troops: Collection[Troop]) -> set[str]:
    """The partition keys of the troops of this name, else of those whose id, key or name match it as a pattern.

    Raises:
        ConfigurationError: Several troops have this name.
    """
    named = {troop.key for troop in troops if troop.name == text}
    if len(named) > 1:
        raise ConfigurationError(
            f"troop {text!r} is the name of {len(named)} troops: {presentable_names(sorted(named))}; "
            "give one of these partition keys, or all of them"
        )
    return named or {
        troop.key for troop in troops if any(fnmatchcase(name, text) for name in troop.names if name)
    }
