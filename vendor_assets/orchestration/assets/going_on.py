"""A roster's run that goes on: from the day's list of troops to their harvest, without another run in between.

The first of a day's troops, as many as one run takes, need not wait until Dagster has queued, launched and started a
run for them. What the run takes is written down in its tags before the roster is reported: the sensor requests runs for
the other troops at once, and a retry takes the same ones again.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.errors import VendorAssetsError
from vendor_assets.harvest.costs import Costs
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN, HarvestOptions, Outcome
from vendor_assets.harvest.sizing import cut
from vendor_assets.orchestration.dagster_private import report_planned, tag_run
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key
from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.orchestration.runs.about import CALLS_TAG, TAKEN_TAG, TITLE_TAG, About, title_of
from vendor_assets.orchestration.runs.events import options_of
from vendor_assets.storage.roster import Roster


def going_on(
    context: dg.AssetExecutionContext, rosters: Iterator[Outcome], account: Account, costs: Costs
) -> Iterator[Outcome]:
    """The outcomes of rosters, and of the harvest of the troops that the run takes from each.

    Args:
        costs: Estimates of the account's store, by which work is cut into runs.
    """
    names = Names.for_account(account)
    harvester: Harvester = names.of(context, "harvester")
    options = options_of(context.run, names)
    if not About(context.run, names).driven_by_launcher:
        # As in the runs that a sensor requests: what is complete by now stays as it is.
        options = replace(options, finished="reconcile", permanent_too=False)
    for outcome in rosters:
        try:
            taken = _take(context, outcome, options, account, costs) if outcome.succeeded else []
        except VendorAssetsError as error:
            # The roster counts all the same; the sensor or the launcher goes on with it, or says what is wrong.
            context.log.warning(f"the run ends with the roster: {error}")
            taken = []
        yield outcome
        if taken:
            yield from harvester.chain(CHAIN, [(outcome.day, key) for key in taken], options)


def _take(
    context: dg.AssetExecutionContext,
    roster: Outcome,
    options: HarvestOptions,
    account: Account,
    costs: Costs,
) -> list[str]:
    """Take the first troops of a roster, in the order of work, and show their partitions as in progress."""
    names = Names.for_account(account)
    about = About(context.run, names)
    harvester: Harvester = names.of(context, "harvester")
    store: StoreResource = names.of(context, "store")
    chosen = account.filters.choose(Roster.read(store.open(), roster.day), about.troops)
    Partitions.of(account).add_troops(context.instance, [troop.key for troop in chosen])
    taken, tags = about.taken, dict[str, str]()
    if taken is None:
        plan = costs.day(roster.day, about.troops)
        whole = {key: sum(calls.values()) for key, calls in plan.whole_by_key.items()}
        calls = whole if options.finished == "replace" else plan.to_come
        runs = cut(calls, account.permitted_rate, costs.teams(roster.day, account.weights))
        taken = runs[0] if runs else []
        tags[TAKEN_TAG] = json.dumps(taken)
        if plan.foreseen or not taken:
            harvester.calls_planned = roster.counts.calls + sum(calls[key] for key in taken)
            tags[CALLS_TAG] = str(harvester.calls_planned)
    partitions = [_partition(roster.day, key) for key in taken]
    if taken:
        tags[TITLE_TAG] = title_of(partitions)
    tag_run(context.instance, context.run.run_id, tags)
    report_planned(
        context.instance, context.run, [(names.key(asset), each) for each in partitions for asset in CHAIN]
    )
    return taken


def _partition(day: date, troop_key: str) -> str:
    return str(day_troop_key(day, troop_key))
