"""Traces of earlier runs: which troops of a day have anything in the store, so that at others nobody need look."""

from __future__ import annotations

import threading
from datetime import date
from functools import lru_cache
from typing import Final

from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.turns import let_others
from vendor_assets.vendors.base import Asset

_LISTINGS: Final = 16
"""Listings in memory: of a few days, since a run goes through its days one after the other."""


class Traces:
    """The troops of a day that somebody has worked on before this run; a day's folders are listed once.

    A troop without a trace that this run is the first to take has no harvest, table, dead letter, failure or
    quarantine: whoever makes these has taken the partition before.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._lock = threading.Lock()

        @lru_cache(maxsize=_LISTINGS)
        def troops(asset: Asset, day: date) -> frozenset[str]:
            prefixes = layout.troops_prefixes(asset, day)
            return frozenset(name for prefix in prefixes for name in store.folders(prefix))

        self._troops = troops

    def of(self, asset: Asset, day: date, troop_key: str) -> bool:
        """Whether a troop may have anything of an asset on a day."""
        with let_others(), self._lock:
            return f"troop={troop_key}" in self._troops(asset, day)
