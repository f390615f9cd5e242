"""The responsible HTTP client: every call within the budget, every failure translated, one owner of retries."""

from __future__ import annotations

from vendor_assets.client.fetching import Budget, Counts, Fetched, Slot, Spent, VendorClient
from vendor_assets.errors import StoppedError

__all__ = ["Budget", "Counts", "Fetched", "Slot", "Spent", "StoppedError", "VendorClient"]
