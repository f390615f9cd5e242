"""Askers: for which accounts somebody calls who looks the same to the vendor, like two projects with one key."""

from __future__ import annotations

import json
from typing import Final

from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database, Snapshot

_PART: Final = "accounts"
_ASKED_SECONDS: Final = 86_400.0
"""Who called so long ago may have been renamed since."""
_NOTED_SECONDS: Final = 600.0


def note_account(database: Database, clock: Clock, asker: str, account: str) -> list[str]:
    """Note that an asker calls for an account; returns the others for which it did within a day, by any clock.

    Raises:
        BudgetUnavailableError: The database cannot be reached.
    """
    now = clock.wall()

    def note(snapshot: Snapshot) -> tuple[str | None, list[str]]:
        known: dict[str, float] = {} if snapshot.version is None else json.loads(snapshot.body)
        recent = {name: at for name, at in known.items() if abs(now - at) < _ASKED_SECONDS}
        noted = abs(now - known.get(account, 0.0)) < _NOTED_SECONDS
        return None if noted else json.dumps(recent | {account: now}), sorted(recent.keys() - {account})

    return database.change(asker, _PART, note)
