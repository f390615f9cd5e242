"""Analysis of harvested data: tables for notebooks, metrics, plots and the daily report."""

from __future__ import annotations

from vendor_assets.analytics.warehouse import Warehouse, read

__all__ = ["Warehouse", "read"]
