"""The only HTTP client: every call within the budget, every failure translated, one owner of retries."""

from __future__ import annotations

from vendor_assets.client.client import Fetched, Usage, VendorClient

__all__ = ["Fetched", "Usage", "VendorClient"]
