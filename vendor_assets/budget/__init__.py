"""The budget: one pace per vendor account over all threads, processes, runs and machines."""

from __future__ import annotations

from vendor_assets.budget.budget import Budget, Slot
from vendor_assets.budget.database import check_database, database_place
from vendor_assets.budget.leases import Leases, LeaseState
from vendor_assets.budget.limits import Limit, amount_text, rate_for, seconds_for, unit_of
from vendor_assets.budget.samples import Backlog, Sample, pace_at, totals
from vendor_assets.budget.state import BudgetState

__all__ = [
    "Backlog",
    "Budget",
    "BudgetState",
    "LeaseState",
    "Leases",
    "Limit",
    "Sample",
    "Slot",
    "amount_text",
    "check_database",
    "database_place",
    "pace_at",
    "rate_for",
    "seconds_for",
    "totals",
    "unit_of",
]
