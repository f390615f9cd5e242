"""The budget: one pace per vendor account over all threads, processes, runs and machines."""

from __future__ import annotations

from vendor_assets.budget.budget import Budget, Slot, WorkClass
from vendor_assets.budget.clock import Clock, SystemClock
from vendor_assets.budget.database import check_database, database_place
from vendor_assets.budget.headers import (
    Policy,
    Quota,
    is_throttle,
    parse_policies,
    parse_quota,
    parse_quotas,
    parse_retry_after,
    retry_after_seconds,
)
from vendor_assets.budget.leases import Leases, LeaseState
from vendor_assets.budget.limits import Limit, seconds_for
from vendor_assets.budget.samples import Backlog, Sample, pace_at, totals
from vendor_assets.budget.state import BudgetState

__all__ = [
    "Backlog",
    "Budget",
    "BudgetState",
    "Clock",
    "LeaseState",
    "Leases",
    "Limit",
    "Policy",
    "Quota",
    "Sample",
    "Slot",
    "SystemClock",
    "WorkClass",
    "check_database",
    "database_place",
    "is_throttle",
    "pace_at",
    "parse_policies",
    "parse_quota",
    "parse_quotas",
    "parse_retry_after",
    "retry_after_seconds",
    "seconds_for",
    "totals",
]
