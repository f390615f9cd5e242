"""Checks that a click and the observing sensors evaluate, apart from any materialization."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.orchestration.assets import dead_letters
from vendor_assets.orchestration.automation.freshness import Freshness, freshness
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, split_key
from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.orchestration.runs.events import FRESH


def build_checks(account: Account) -> list[dg.AssetChecksDefinition]:
    """The checks that are not part of a materialization."""
    names = Names.for_account(account)
    partitions = Partitions.of(account)

    @dg.asset_check(
        asset=names.key(dead_letters.DEAD_LETTERS),
        required_resource_keys=names.resources("store", "run_lease"),
        name=dead_letters.NONE_OPEN,
        description="No dead letter of the day is open; only a warning while all of them are redriven automatically",
        partitions_def=partitions.day,
    )
    def none_open(context: dg.AssetCheckExecutionContext) -> Any:
        store: StoreResource = names.of(context, "store")
        day, _ = split_key(context.partition_key)
        _, check = dead_letters.events_of_day(store.open(), names, day)
        return result_of(check)

    @dg.asset_check(
        asset=names.key("daily_performance"),
        required_resource_keys=names.resources("run_lease"),
        name=FRESH,
        description="The newest day is the one that daily_harvest should have made; passes while that is off",
    )
    def fresh(context: dg.AssetCheckExecutionContext) -> Any:
        return result_of(evaluation_of(names, freshness(context.instance, account, datetime.now(UTC))))

    return [none_open, fresh]


def evaluation_of(names: Names, found: Sequence[Freshness]) -> dg.AssetCheckEvaluation:
    """Freshness as the evaluation of its check."""
    behind = max((item.days_behind for item in found), default=0)
    return dg.AssetCheckEvaluation(
        asset_key=names.key("daily_performance"),
        check_name=FRESH,
        passed=all(item.passed for item in found),
        severity=dg.AssetCheckSeverity.WARN if behind <= 1 else dg.AssetCheckSeverity.ERROR,
        description="; ".join(f"{item.asset}: {item.text}" for item in found) or "daily_harvest is off",
        metadata={"days_behind": behind}
        | {f"{item.asset}_expected": item.expected.isoformat() for item in found}
        | {f"{item.asset}_newest": item.newest.isoformat() if item.newest else "none" for item in found},
    )


def result_of(check: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    """An evaluation as a check's result."""
    return dg.AssetCheckResult(
        passed=check.passed,
        severity=check.severity,
        description=check.description,
        metadata=check.metadata,
    )
