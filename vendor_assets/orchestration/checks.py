"""Checks that stand by themselves: a click evaluates them, and so do the sensors that look."""

from typing import Any

import dagster as dg

from vendor_assets.configuration import Settings
from vendor_assets.orchestration import letters
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

    return [none_open]


def result_of(check: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    """An evaluation as the result of a check's own run."""
    return dg.AssetCheckResult(
        passed=check.passed,
        severity=check.severity,
        description=check.description,
        metadata=check.metadata,
    )
