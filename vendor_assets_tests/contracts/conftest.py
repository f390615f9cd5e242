"""Fixtures of the contract suites."""

from __future__ import annotations

from vendor_assets_tests.support.stores import bucket, place, store

__all__ = ["bucket", "place", "store"]
