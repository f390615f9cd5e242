"""Jobs: a day's roster, any list of partitions in one run, sightings, retention, and a day's publication."""

from datetime import date
from typing import Any

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.errors import ConfigurationError, StorageError, VendorAssetsError
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.assets.hierarchy import report_outcomes
from vendor_assets.orchestration.dagster_private import report_planned
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import day_troop_key, split_key
from vendor_assets.orchestration.runs.about import (
    ASSETS_OF_JOB,
    HARVEST_JOB,
    PUBLISH_JOB,
    RETENTION_JOB,
    ROSTER_JOB,
    SIGHTINGS_JOB,
)
from vendor_assets.orchestration.runs.events import FRESH, options_of, order_of
from vendor_assets.orchestration.runs.failures import failure_from
from vendor_assets.orchestration.runs.forgetting import forget
from vendor_assets.presentable import counted, presentable
from vendor_assets.storage import layout
from vendor_assets.vendors.base import Asset


class HarvestPartitionsConfig(dg.Config):
    """What a run of the harvest job does.

    Attributes:
        partitions: Partition keys, like ``2026-11-20|42``, in the order of work.
        assets: Assets of the chain.
        rebuild: Rebuild tables from landed answers, without calls.
    """

    partitions: list[str]
    assets: list[str] = list(CHAIN)
    rebuild: bool = False


def harvest_config(
    names: Names, partitions: list[str], assets: list[str], *, rebuild: bool = False
) -> dict[str, Any]:
    """Run config of the harvest job."""
    config = {"partitions": partitions, "assets": assets, "rebuild": rebuild}
    return {"ops": {names.thing("harvest_partitions"): {"config": config}}}


def _chosen(config: HarvestPartitionsConfig) -> tuple[list[tuple[date, str]], list[Asset]]:
    """Partitions and assets that a run is to harvest, each once.

    Raises:
        ConfigurationError: One of them cannot be.
    """
    if unknown := sorted(set(config.assets) - set(CHAIN)):
        named = ", ".join(map(presentable, unknown))
        raise ConfigurationError(f"assets has {named}; accepted are {', '.join(CHAIN)}")
    partitions: list[tuple[date, str]] = []
    for key in dict.fromkeys(config.partitions):
        try:
            day, troop = split_key(key)
            layout.harvest_prefix(CHAIN[0], day, troop or "")
        except (ValueError, StorageError) as error:
            raise ConfigurationError(
                f"partitions has {presentable(key)[:100]!r}; give days with keys of troops, like 2026-11-20|42"
            ) from error
        partitions.append((day, troop or ""))
    return partitions, [name for name in CHAIN if name in config.assets]


def build_jobs(account: Account) -> list[Any]:
    """All jobs of an account."""
    names = Names.for_account(account)
    ours: dict[str, Any] = {"tags": names.tags, "executor_def": dg.in_process_executor}

    @dg.op(
        name=names.thing("harvest_partitions"),
        out={},
        required_resource_keys=names.resources("harvester", "store", "vendor_api"),
    )
    def harvest_partitions(context: dg.OpExecutionContext, config: HarvestPartitionsConfig) -> Any:
        harvester: Harvester = names.of(context, "harvester")
        try:
            partitions, assets = _chosen(config)
        except VendorAssetsError as error:
            raise failure_from(error) from error
        keys = [day_troop_key(*each) for each in partitions]
        report_planned(
            context.instance, context.run, [(names.key(asset), key) for key in keys for asset in assets]
        )
        options = order_of(context, names, assets, keys, rebuild=config.rebuild)
        outcomes = harvester.chain(assets, partitions, options)
        yield from report_outcomes(context, outcomes, account)

    @dg.job(
        name=names.thing(HARVEST_JOB),
        description="Harvest any list of day × troop partitions in one run, small ones first.",
        **ours,
    )
    def harvest() -> None:
        harvest_partitions()

    @dg.op(name=names.thing("sight"), required_resource_keys=names.resources("harvester"))
    def sight(context: dg.OpExecutionContext) -> None:
        harvester: Harvester = names.of(context, "harvester")
        try:
            seen = harvester.sight(options_of(context.run, names))
        except VendorAssetsError as error:
            context.log.info(f"calls made: {harvester.progress.calls_made}")
            raise failure_from(error) from error
        context.log.info(
            f"saw {counted(seen['troops'], 'troop')} and their warriors with {counted(seen['calls'], 'call')}"
        )

    @dg.job(
        name=names.thing(SIGHTINGS_JOB),
        description="List troops and warriors now, so that the running day's roster has those gone by midnight.",
        **ours,
    )
    def sightings() -> None:
        sight()

    @dg.op(name=names.thing("remove_landed"), required_resource_keys=names.resources("harvester"))
    def remove_landed(context: dg.OpExecutionContext) -> None:
        harvester: Harvester = names.of(context, "harvester")
        if account.history_days is not None:
            context.log.info(str(forget(context.instance, names, account.history_days)))
        if account.retention_days is None:
            context.log.info("VENDOR_ASSETS_RETENTION is not set: every answer is kept")
            return
        try:
            removal = harvester.remove_landed(account.retention_days, options_of(context.run, names))
        except VendorAssetsError as error:
            raise failure_from(error) from error
        context.add_output_metadata(removal.numbers())
        context.log.info(str(removal))

    @dg.job(
        name=names.thing(RETENTION_JOB),
        description="Remove answers that landed more than VENDOR_ASSETS_RETENTION days ago, of partitions that are "
        "complete, and forget the logs of runs that ended more than VENDOR_ASSETS_HISTORY days ago; tables, plans, "
        "runs and materializations stay.",
        **ours,
    )
    def retention() -> None:
        remove_landed()

    # The freshness sensor evaluates this check; a step in each run would only repeat it.
    fresh = dg.AssetSelection.checks(dg.AssetCheckKey(names.key("daily_performance"), FRESH))
    roster = dg.define_asset_job(
        names.thing(ROSTER_JOB),
        dg.AssetSelection.assets(*map(names.key, ASSETS_OF_JOB[ROSTER_JOB])),
        description="List the troops of a day that is over; a run of the schedule goes on with their harvest.",
        **ours,
    )
    publish = dg.define_asset_job(
        names.thing(PUBLISH_JOB),
        dg.AssetSelection.assets(*map(names.key, ASSETS_OF_JOB[PUBLISH_JOB])) - fresh,
        description="Compute a day's statistics and its report from what has been harvested.",
        **ours,
    )
    return [roster, harvest, sightings, retention, publish]
