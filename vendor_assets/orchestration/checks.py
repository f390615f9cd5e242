"""Checks that stand by themselves: a click evaluates them, and so do the sensors that look."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from vendor_assets.configuration import Settings
from vendor_assets.orchestration import letters
from vendor_assets.orchestration.events import FRESH, SCHEDULED
from vendor_assets.orchestration.freshness import Freshness, freshness
from vendor_assets.orchestration.partitions import Partitions, split_key
from vendor_assets.orchestration.resources import StoreResource


def build_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """All checks that are no part of an asset's own materialization."""
    partitions = Partitions.of(settings)

    @dg.asset_check(
        asset=letters.DEAD_LETTERS,
        name=letters.NONE_OPEN,
        description="No dead letter of the day is open; a warning while all of them are redriven by themselves",
        partitions_def=partitions.day,
    )
    def none_open(context: dg.AssetCheckExecutionContext, store: StoreResource) -> Any:
        day, _ = split_key(context.partition_key)
        _, check = letters.events_of_day(store.open(), day)
        return result_of(check)

    def fresh_of(asset: str) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=asset,
            name=FRESH,
            description="The newest day is the one that daily_harvest should have made; passes while that is off",
        )
        def fresh(context: dg.AssetCheckExecutionContext) -> Any:
            found = freshness(context.instance, settings, datetime.now(UTC))
            for item in found:
                if item.asset == asset:
                    return result_of(evaluation_of(item))
            return dg.AssetCheckResult(passed=True, description="the schedule daily_harvest is off")

        return fresh

    return [none_open, *map(fresh_of, SCHEDULED)]


def evaluation_of(item: Freshness) -> dg.AssetCheckEvaluation:
    """Freshness as the evaluation of its check."""
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(item.asset),
        check_name=FRESH,
        passed=item.passed,
        severity=item.severity(),
        description=item.text,
        metadata={
            "expected": item.expected.isoformat(),
            "newest": item.newest.isoformat() if item.newest else "none",
            "days_behind": item.days_behind,
        },
    )


def result_of(check: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    """An evaluation as the result of a check's own run."""
    return dg.AssetCheckResult(
        passed=check.passed,
        severity=check.severity,
        description=check.description,
        metadata=check.metadata,
    )
