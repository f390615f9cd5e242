"""The budget: one pace per vendor account over all threads, processes, runs and machines."""

from __future__ import annotations

from vendor_assets.budget.budget import Budget, Slot, process_name
from vendor_assets.budget.database import check_database, database_place
from vendor_assets.budget.dispatch import LongestWait
from vendor_assets.budget.leases import Leases, LeaseState
from vendor_assets.budget.limits import REQUESTS, Limit, amount_text, rate_for, seconds_for, unit_of
from vendor_assets.budget.samples import Backlog, Sample, pace_at, totals
from vendor_assets.budget.state import BudgetState
from vendor_assets.budget.teams import OTHERS, Team
from vendor_assets.budget.why import SAMPLES_SINCE, Explanation, RunWork, Snapshot, Work, explain

__all__ = [
    "OTHERS",
    "REQUESTS",
    "SAMPLES_SINCE",
    "Backlog",
    "Budget",
    "BudgetState",
    "Explanation",
    "LeaseState",
    "Leases",
    "Limit",
    "LongestWait",
    "RunWork",
    "Sample",
    "Slot",
    "Snapshot",
    "Team",
    "Work",
    "amount_text",
    "check_database",
    "database_place",
    "explain",
    "pace_at",
    "process_name",
    "rate_for",
    "seconds_for",
    "totals",
    "unit_of",
]
