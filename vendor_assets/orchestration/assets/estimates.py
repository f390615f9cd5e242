"""The estimated and actual calls of a day."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.days import duration_text
from vendor_assets.errors import VendorAssetsError
from vendor_assets.harvest.costs import Costs, DayPlan, quota_warning
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.metadata import CALLS, PLANNED_CALLS
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import day_troop_key
from vendor_assets.presentable import counted

WITHIN_QUOTA: Final = "within_quota"
MOST_EVENTS: Final = 10_000
"""Events of an asset and day that are read for its calls; Dagster returns no more at once."""

log = get_logger(__name__)


def plan_of(costs: Costs, day: date) -> DayPlan | None:
    """The estimate for a day with a roster; None, with a warning in the log, if there is none."""
    try:
        return costs.day(day)
    except VendorAssetsError as error:
        log.warning("what %s will cost is not known: %s", day, error)
        return None


def metadata_of_plan(plan: DayPlan, account: Account, now: datetime) -> dict[str, Any]:
    """An estimate as metadata of a roster's materialization."""
    metadata: dict[str, Any] = {
        PLANNED_CALLS: plan.total,
        **{f"{PLANNED_CALLS}_{asset}": plan.calls[asset] for asset in CHAIN},
        "planned_reused": sum(plan.done.values()),
        "planned_from_lists_of": plan.shape_from.isoformat() if plan.shape_from else "no day yet: a guess",
    }
    permitted_rate = account.rate_for(plan.per_call)
    seconds = account.seconds_for(plan.total, plan.per_call)
    if permitted_rate and seconds is not None:
        metadata |= {
            "planned_share_of_day_quota": round(plan.whole / (permitted_rate * 86_400), 4),
            "planned_seconds": round(seconds, 3),
            "planned_duration": duration_text(seconds),
            "planned_finish": dg.MetadataValue.timestamp(now + timedelta(seconds=seconds)),
        }
    return metadata


def quota_check(names: Names, partitions: dg.PartitionsDefinition[Any]) -> dg.AssetCheckSpec:
    """The check that :func:`within_quota` evaluates."""
    return dg.AssetCheckSpec(
        WITHIN_QUOTA,
        asset=names.key("troops"),
        description="A day's calls fit into a day's quota; otherwise the harvest falls behind",
        partitions_def=partitions,
    )


def within_quota(plan: DayPlan, account: Account) -> dg.AssetCheckEvaluation:
    """Check that a day's calls fit into a day's quota; a warning names the largest troops and what to change."""
    warning = quota_warning(plan, account.rate_for(plan.per_call), account.resolution_seconds)
    rate = account.rate_for(plan.per_call)
    share = f", {plan.whole / (rate * 86_400):.2%} of a day's quota" if rate else ""
    known = plan.shape_from is not None
    return dg.AssetCheckEvaluation(
        asset_key=Names.for_account(account).key("troops"),
        check_name=WITHIN_QUOTA,
        passed=warning is None,
        partition=plan.day.isoformat(),
        severity=dg.AssetCheckSeverity.WARN,
        description=warning
        or f"a day needs {'' if known else 'perhaps '}{counted(plan.whole, 'call')}{share}",
        metadata={"calls": plan.whole},
    )


def compared(
    instance: dg.DagsterInstance, names: Names, day: date, troop_keys: Sequence[str]
) -> dict[str, Any]:
    """A day's calls as estimated with its roster and as made since then; empty if there was no estimate."""
    wanted = dg.AssetRecordsFilter(names.key("troops"), asset_partitions=[day.isoformat()])
    rosters = instance.fetch_materializations(wanted, limit=1).records
    materialization = rosters[0].asset_materialization if rosters else None
    if materialization is None or PLANNED_CALLS not in materialization.metadata:
        return {}
    planned = materialization.metadata[PLANNED_CALLS].value
    keys = [day_troop_key(day, key) for key in troop_keys]
    made = 0
    for asset in CHAIN:
        wanted = dg.AssetRecordsFilter(
            names.key(asset), asset_partitions=keys, after_storage_id=rosters[0].storage_id
        )
        for fetch in (instance.fetch_materializations, instance.fetch_observations):
            for record in fetch(wanted, limit=MOST_EVENTS).records:
                event = record.asset_materialization or record.asset_observation
                if event is not None and CALLS in event.metadata:
                    made += int(str(event.metadata[CALLS].value))
    found: dict[str, Any] = {PLANNED_CALLS: planned, "calls_made": made}
    if isinstance(planned, int) and planned:
        found["calls_made_of_planned"] = round(made / planned, 4)
    return found
