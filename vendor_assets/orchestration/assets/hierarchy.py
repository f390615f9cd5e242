"""The asset definitions: the vendor's hierarchy as partitioned tables, and what is computed from them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.errors import LONGEST_MESSAGE
from vendor_assets.harvest.costs import Costs
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN, Outcome
from vendor_assets.orchestration.assets.backlog import BACKLOG, BACKLOG_TEXT, BudgetView
from vendor_assets.orchestration.assets.dead_letters import (
    DEAD_LETTERS,
    DEAD_LETTERS_TEXT,
    failed_requests,
)
from vendor_assets.orchestration.assets.estimates import metadata_of_plan, plan_of, quota_check, within_quota
from vendor_assets.orchestration.assets.going_on import going_on
from vendor_assets.orchestration.assets.pictures import picture_of
from vendor_assets.orchestration.assets.publishing import day_checks, publish_day, publish_report
from vendor_assets.orchestration.dagster_private import (
    ToldFailure,
    hide_omissions,
    nodes_behind,
    stored_together,
    tag_run,
)
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_and_troops, split_key, split_keys
from vendor_assets.orchestration.resources import StoreResource, VendorApiResource
from vendor_assets.orchestration.runs.about import About
from vendor_assets.orchestration.runs.events import (
    COMPLETE,
    LISTED,
    RETRY_TAG,
    SCHEMA,
    SEEN,
    Event,
    column_schema,
    events_of,
    failure_of,
    may_pass,
    order_of,
)
from vendor_assets.presentable import counted, presentable
from vendor_assets.turns import let_others

OWNERS: Final = ["team:performance-data"]
MAX_PARTITIONS: Final = 200
"""Partitions per run of a backfill; each takes Dagster about 20 ms to plan."""

TROOPS_TEXT: Final = """One row per day and troop (a troop = the warriors of one micro-service).

Source: the vendor's list of all troops, read after the day is over and joined with the day's sightings, so that troops
gone by then are on the roster too. An empty partition means an account without troops.

**Automatic**: every day, once the schedule `daily_harvest` is turned on.
**Cost**: about one call per 200 troops; then all troops of that day are harvested (`roster_sensor`; a scheduled run
itself goes on with the first of them)."""

PARTITION_TEXT: Final = """

**A partition** is a day and a troop; its metadata name the troop. Green: complete or empty, see the metadata. Red:
failed or partial, *View all historical events* says why; materialize it again to fetch only what is missing. Grey: not
harvested, or the troop did not exist on that day."""

WARRIORS_TEXT: Final = """One row per day, troop and warrior (a warrior = one running instance).

Source: the vendor's list of a troop's warriors, joined with the day's sightings. Empty: the troop had no warriors, or
was not on that day's roster (see the metadata).

**Automatic**: after the day's roster (`roster_sensor`).
**Cost**: one call per troop; data groups and performance data follow (`downstream_sensor`)."""

DATA_GROUPS_TEXT: Final = """One row per day, troop, warrior and data group (a data group = one metric family),
with the names of its values.

Source: the vendor's list of metrics of each warrior. Empty: no warrior of the troop reported any metric.

**Automatic**: after the day's roster (`roster_sensor`) or the troop's warriors (`downstream_sensor`).
**Cost**: one call per warrior; performance data follow (`downstream_sensor`)."""

PERFORMANCE_DATA_TEXT: Final = """One row per troop, warrior, data group, value name and timeslice.

Source: the vendor's data of each warrior, for several data groups per call and the whole day. A timeslice belongs to
the day in which it starts; its length is the vendor's nearest to the configured resolution. Empty: the vendor no longer
has values for that day, or the troop was idle.

**Automatic**: after the day's roster (`roster_sensor`) or the troop's data groups (`downstream_sensor`).
**Cost**: one call for every few data groups of a warrior, which is nearly all of the day's quota. Run `vendor-assets
plan` before you materialize many."""

DAILY_TEXT: Final = """One row per day, troop, warrior, data group and value name: count, sum, mean, percentiles,
extremes, and the share of the day covered.

Statistics are over timeslices, not over single calls; means are weighted by the call count if the vendor gives one.
Computed from the day's `performance_data` once all troops of the day are in or have failed for good; `troops_missing`
counts those that are not included.

**Automatic**: by `publish_sensor`, and again after a redrive. **Cost**: no calls."""

REPORT_TEXT: Final = """The day as an executed notebook, also as HTML: latency over time per troop, the slowest data
groups, the incident of the day.

Computed from `daily_performance` and `performance_data`. The metadata have the day's plot and the path of the HTML.

**Automatic**: after the day is published. **Cost**: no calls."""


class HarvestConfig(dg.Config):
    """Options of a run.

    Attributes:
        rebuild: Rebuild tables from landed answers, without calls to the vendor.
    """

    rebuild: bool = False


def report_outcomes(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    outcomes: Iterator[Outcome],
    account: Account,
    costs: Costs | None = None,
) -> Iterator[Event]:
    """Report each outcome as soon as it is known.

    Args:
        costs: Estimates of the account's store, if there are some already.

    Raises:
        dagster.Failure: At the end, if partitions did not succeed; it names them.
    """
    hide_omissions(context.log)
    names = Names.for_account(account)
    store: StoreResource = names.of(context, "store")
    vendor_api: VendorApiResource = names.of(context, "vendor_api")
    seen: list[Outcome] = []
    opened = store.open()
    budget = BudgetView(vendor_api.state)
    costs = costs or Costs(opened, account)
    for outcome in outcomes:
        seen.append(outcome)
        say = context.log.info if outcome.succeeded else context.log.error
        said = presentable(outcome.message, LONGEST_MESSAGE)
        where = f"{outcome.asset} {outcome.day} {outcome.troop_key or ''}".rstrip()
        rows, calls = counted(outcome.rows, "row"), counted(outcome.counts.calls, "call")
        say(f"{where}: {outcome.state}, {rows}, {calls}. {said}".rstrip())
        with let_others():
            extra = budget.metadata()
        extra |= picture_of(opened, outcome, account.zone)
        extra |= failed_requests(opened, outcome)
        plan = plan_of(costs, outcome.day) if outcome.asset == "troops" and outcome.succeeded else None
        if plan is not None:
            extra |= metadata_of_plan(plan, account, datetime.now(UTC))
        uri = opened.uri(outcome.table_key)
        with stored_together(context.instance):
            yield from events_of(outcome, names, uri=uri, account=account, extra=extra)
        if plan is not None:
            yield within_quota(plan, account)
    failure = failure_of(seen)
    if may_pass(seen):
        tag_run(context.instance, context.run.run_id, {RETRY_TAG: "true"})
    if failure is not None:
        raise failure


def _with_results(
    context: dg.AssetExecutionContext, events: Iterator[Event], ours: Sequence[dg.AssetsDefinition]
) -> Iterator[Event | dg.MaterializeResult[Any]]:
    """The events, with a result of each asset in place of its materializations where others of the run wait for it.

    Dagster skips whatever waits for an asset without a result, be it an asset or a check, and calls the run a success.
    A result is of all partitions: it comes once the last of them has succeeded.

    Args:
        ours: Assets that need not wait, since sensors bring them up to date.
    """
    if nodes_behind(context) <= {asset.op.name for asset in ours}:
        yield from events
        return
    held: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {key: [] for key in context.selected_asset_keys}
    try:
        for event in events:
            if not isinstance(event, dg.AssetMaterialization) or event.asset_key not in held:
                yield event
                continue
            held[event.asset_key].append(event)
            if len(held[event.asset_key]) == len(context.partition_keys):
                for each in held.pop(event.asset_key):
                    context.add_asset_metadata(each.metadata, event.asset_key, each.partition)
                yield dg.MaterializeResult(asset_key=event.asset_key)
    except Exception:
        for materializations in held.values():
            yield from materializations
        raise


def _chosen(context: dg.AssetExecutionContext) -> Sequence[str]:
    """Keys of a run's partitions.

    Raises:
        dagster.Failure: It has none, which the launchpad and the command line permit.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        raise ToldFailure("the run has no partition; launch it again with one", allow_retries=False)
    keys: Sequence[str] = context.partition_keys
    if not keys:
        first, last = context.partition_key_range
        said = f"there is no partition from {presentable(first)} to {presentable(last)}; choose others"
        raise ToldFailure(said, allow_retries=False)
    return keys


def _day_of(context: dg.AssetExecutionContext) -> date:
    """The day of a run that takes one.

    Raises:
        dagster.Failure: It has none, or several.
    """
    first, *others = _chosen(context)
    if others:
        said = f"the run has {len(others) + 1} days, and takes one; launch them as a backfill, which has a run for each"
        raise ToldFailure(said, allow_retries=False)
    return split_key(first)[0]


def _spec(
    names: Names, name: str, text: str, partitions: dg.PartitionsDefinition[Any], deps: Sequence[dg.AssetDep]
) -> dg.AssetSpec:
    return dg.AssetSpec(
        names.key(name),
        description=text,
        deps=deps,
        partitions_def=partitions,
        group_name=names.thing("harvest"),
        kinds={"parquet", "http"},
        owners=OWNERS,
        skippable=True,
        metadata={
            "dagster/column_schema": column_schema(name),
            "dagster/io_manager_key": names.resource("io_manager"),
        },
    )


def _checks(
    names: Names, name: str, partitions: dg.PartitionsDefinition[Any], *, roster: bool
) -> list[dg.AssetCheckSpec]:
    texts = {
        COMPLETE: "Every planned leaf has landed; none is a dead letter",
        SCHEMA: "Every record fits the table, and the vendor sends no unknown fields",
    }
    if name == "performance_data":
        texts[LISTED] = "Every data group that was listed has a row on the day"
    if roster:
        texts[SEEN] = "The roster was read on the day itself, not only later"
    return [
        dg.AssetCheckSpec(check, asset=names.key(name), description=text, partitions_def=partitions)
        for check, text in texts.items()
    ]


def build_assets(account: Account) -> list[dg.AssetsDefinition]:
    """All materializable assets of an account."""
    names = Names.for_account(account)
    partitions = Partitions.of(account)
    policy = dg.BackfillPolicy.multi_run(MAX_PARTITIONS)

    @dg.multi_asset(
        name=names.thing("harvest_troops"),
        specs=[_spec(names, "troops", TROOPS_TEXT, partitions.day, [])],
        check_specs=[
            *_checks(names, "troops", partitions.day, roster=True),
            quota_check(names, partitions.day),
        ],
        required_resource_keys=names.resources("harvester", "store", "vendor_api"),
        can_subset=True,
        backfill_policy=policy,
    )
    def troops(context: dg.AssetExecutionContext, config: HarvestConfig) -> Any:
        harvester: Harvester = names.of(context, "harvester")
        keys = _chosen(context)
        days = [split_key(key)[0] for key in keys]
        options = order_of(context, names, ["troops"], keys, rebuild=config.rebuild)
        store: StoreResource = names.of(context, "store")
        costs = Costs(store.open(), account)
        outcomes = harvester.troops(days, options)
        if About(context.run, names).goes_on:
            outcomes = going_on(context, outcomes, account, costs)
        events = report_outcomes(context, outcomes, account, costs)
        yield from _with_results(context, events, [daily_performance])

    texts = {
        "warriors": WARRIORS_TEXT,
        "data_groups": DATA_GROUPS_TEXT,
        "performance_data": PERFORMANCE_DATA_TEXT,
    }
    upstream = {
        "warriors": dg.AssetDep(names.key("troops"), partition_mapping=day_and_troops()),
        "data_groups": dg.AssetDep(names.key("warriors")),
        "performance_data": dg.AssetDep(names.key("data_groups")),
    }

    @dg.multi_asset(
        name=names.thing("harvest_chain"),
        required_resource_keys=names.resources("harvester", "store", "vendor_api"),
        specs=[
            _spec(names, name, texts[name] + PARTITION_TEXT, partitions.day_troop, [upstream[name]])
            for name in CHAIN
        ],
        check_specs=[
            check
            for name in CHAIN
            for check in _checks(names, name, partitions.day_troop, roster=name == "warriors")
        ],
        can_subset=True,
        backfill_policy=policy,
    )
    def chain(context: dg.AssetExecutionContext, config: HarvestConfig) -> Any:
        harvester: Harvester = names.of(context, "harvester")
        chosen = [name for name in CHAIN if names.key(name) in context.selected_asset_keys]
        keys = _chosen(context)
        options = order_of(context, names, chosen, keys, rebuild=config.rebuild)
        outcomes = harvester.chain(chosen, split_keys(keys), options)
        events = report_outcomes(context, outcomes, account)
        yield from _with_results(context, events, [daily_performance])

    @dg.asset(
        key=names.key("daily_performance"),
        description=DAILY_TEXT,
        deps=[
            names.key("troops"),
            dg.AssetDep(names.key("performance_data"), partition_mapping=day_and_troops()),
        ],
        required_resource_keys=names.resources("store", "run_lease"),
        io_manager_key=names.resource("io_manager"),
        partitions_def=partitions.day,
        group_name=names.thing("analysis"),
        kinds={"parquet", "duckdb"},
        owners=OWNERS,
        metadata={"dagster/column_schema": column_schema("daily_performance")},
        check_specs=day_checks(names, partitions.day),
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def daily_performance(context: dg.AssetExecutionContext) -> Any:
        store: StoreResource = names.of(context, "store")
        yield from publish_day(store.open(), _day_of(context), account, context.instance)

    @dg.asset(
        key=names.key("performance_report"),
        description=REPORT_TEXT,
        deps=[names.key("daily_performance")],
        required_resource_keys=names.resources("store", "run_lease"),
        io_manager_key=names.resource("io_manager"),
        partitions_def=partitions.day,
        group_name=names.thing("analysis"),
        kinds={"jupyter"},
        owners=OWNERS,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
    )
    def performance_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        store: StoreResource = names.of(context, "store")
        return publish_report(store.open(), _day_of(context), account.zone)

    return [troops, chain, daily_performance, performance_report]


def observed_assets(account: Account) -> list[dg.AssetSpec]:
    """Assets that are only observed: the backlog and the dead letters."""
    # They concern all harvested assets, but more edges would clutter the graph.
    names = Names.for_account(account)
    harvested = names.key(CHAIN[-1])
    return [
        dg.AssetSpec(
            names.key(BACKLOG),
            description=BACKLOG_TEXT,
            deps=[dg.AssetDep(harvested, partition_mapping=dg.AllPartitionMapping())],
            group_name=names.thing("watch"),
            owners=OWNERS,
        ),
        dg.AssetSpec(
            names.key(DEAD_LETTERS),
            description=DEAD_LETTERS_TEXT,
            deps=[dg.AssetDep(harvested, partition_mapping=day_and_troops())],
            partitions_def=Partitions.of(account).day,
            group_name=names.thing("watch"),
            owners=OWNERS,
        ),
    ]
