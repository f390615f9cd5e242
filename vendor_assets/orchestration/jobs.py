"""Jobs: the day's roster, scattered partitions in one run, sightings, and the day's publication."""

from datetime import date
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, DagsterEventType

from vendor_assets.configuration import Settings
from vendor_assets.errors import VendorAssetsError
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.assets import report_outcomes
from vendor_assets.orchestration.events import FRESH, order_of
from vendor_assets.orchestration.partitions import day_troop_key, split_keys
from vendor_assets.orchestration.resources import StoreResource, VendorApiResource
from vendor_assets.orchestration.runs import (
    ASSETS_OF_JOB,
    HARVEST_JOB,
    PUBLISH_JOB,
    RETENTION_JOB,
    ROSTER_JOB,
    SIGHTINGS_JOB,
)


class HarvestPartitionsConfig(dg.Config):
    """Which partitions a run shall harvest.

    Attributes:
        partitions: Partition keys, ``2026-11-20|42``, in the order in which they shall be opened.
        assets: Which assets of the chain.
        rebuild: Make tables anew from what has landed, without a call.
    """

    partitions: list[str]
    assets: list[str] = list(CHAIN)
    rebuild: bool = False


def harvest_config(partitions: list[str], assets: list[str], *, rebuild: bool = False) -> dict[str, Any]:
    """The run config that makes the harvest job do exactly these partitions."""
    config = {"partitions": partitions, "assets": assets, "rebuild": rebuild}
    return {"ops": {"harvest_partitions": {"config": config}}}


def build_jobs(settings: Settings) -> list[Any]:
    """All jobs of a deployment."""

    @dg.op(name="harvest_partitions", out={})
    def harvest_partitions(
        context: dg.OpExecutionContext,
        config: HarvestPartitionsConfig,
        harvester: dg.ResourceParam[Harvester],
        store: StoreResource,
        vendor_api: VendorApiResource,
    ) -> Any:
        partitions = split_keys(config.partitions)
        assets = [name for name in CHAIN if name in config.assets]
        _plan_events(context, assets, partitions)
        outcomes = harvester.chain(assets, partitions, order_of(context.run, rebuild=config.rebuild))
        yield from report_outcomes(context, outcomes, settings=settings, store=store, vendor_api=vendor_api)

    @dg.job(
        name=HARVEST_JOB,
        description="Harvest a list of day × troop partitions, wherever they lie, in one run: small ones first.",
    )
    def harvest() -> None:
        harvest_partitions()

    @dg.op(name="sight")
    def sight(context: dg.OpExecutionContext, harvester: dg.ResourceParam[Harvester]) -> None:
        try:
            seen = harvester.sight(order_of(context.run))
        except VendorAssetsError:
            context.log.info(f"calls made: {harvester.progress.calls_made}")
            raise
        context.log.info(f"saw {seen['troops']} troops and their warriors with {seen['calls']} calls")

    @dg.job(
        name=SIGHTINGS_JOB,
        description="List troops and warriors now, for the running day's roster: what dies before midnight is on it.",
    )
    def sightings() -> None:
        sight()

    @dg.op(name="remove_landed")
    def remove_landed(context: dg.OpExecutionContext, harvester: dg.ResourceParam[Harvester]) -> None:
        if settings.retention_days is None:
            context.log.info("VENDOR_ASSETS_RETENTION is not set: every answer is kept")
            return
        removal = harvester.remove_landed(settings.retention_days, order_of(context.run))
        context.add_output_metadata(removal.numbers())
        context.log.info(str(removal))

    @dg.job(
        name=RETENTION_JOB,
        description="Remove answers that landed more than VENDOR_ASSETS_RETENTION days ago, of partitions that are "
        "complete; tables, plans and finish markers stay.",
    )
    def retention() -> None:
        remove_landed()

    # Whether days arrive is a sensor's question; a step for it in each run would answer nothing.
    fresh = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("daily_performance"), FRESH))
    roster = dg.define_asset_job(
        ROSTER_JOB, list(ASSETS_OF_JOB[ROSTER_JOB]), description="List the troops of a day that is over."
    )
    publish = dg.define_asset_job(
        PUBLISH_JOB,
        dg.AssetSelection.assets(*ASSETS_OF_JOB[PUBLISH_JOB]) - fresh,
        description="Compute a day's statistics and its report from what has been harvested.",
    )
    return [roster, harvest, sightings, retention, publish]


def _plan_events(
    context: dg.OpExecutionContext, assets: list[Any], partitions: list[tuple[date, str]]
) -> None:
    """Announce the partitions, so that they show as in progress, and as failed should the run fail."""
    for day, troop in partitions:
        for asset in assets:
            event = DagsterEvent(
                event_type_value=DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
                job_name=context.job_name,
                message=f"{asset} {day} {troop} is planned",
                event_specific_data=AssetMaterializationPlannedData(
                    dg.AssetKey(asset), partition=day_troop_key(day, troop)
                ),
            )
            context.instance.report_dagster_event(event, context.run_id)
