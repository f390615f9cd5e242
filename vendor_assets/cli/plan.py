"""``plan``: estimate what days will cost, without launching anything."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from vendor_assets.cli.project import COMPLETE, Project, add_days, choose_days, open_project
from vendor_assets.cli.terminal import print_table
from vendor_assets.days import duration_text
from vendor_assets.errors import BudgetError
from vendor_assets.presentable import counted, presentable

if TYPE_CHECKING:
    from vendor_assets.account import Account
    from vendor_assets.budget import BudgetState, Team
    from vendor_assets.harvest.costs import Costs, DayPlan


def add(commands: Any) -> None:
    """Add the command."""
    plan = commands.add_parser("plan", help="estimate what days will cost, before anything is launched")
    add_days(plan)
    plan.add_argument("--json", action="store_true", help="print as JSON")
    plan.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    from vendor_assets.harvest.costs import Costs, quota_warning

    project = open_project(options.account)
    account = project.account
    days = choose_days(options, account)
    state = _state(project)
    costs = Costs(project.store(), account, learnt=state.learnt if state else {})
    plans = [costs.day(day, options.troop) for day in days]
    total = sum(plan.total for plan in plans)
    per_call = plans[-1].per_call
    rate = account.rate_for(per_call)
    seconds = account.seconds_for(total, per_call)
    at_work = _at_work(project)
    warning = None if options.troop else quota_warning(plans[-1], rate, account.resolution_seconds)
    teams = _teams(costs, plans, account, seconds)
    if options.json:
        document = {
            "days": [_as_json(plan) for plan in plans],
            "calls": total,
            "counts": _counts(plans),
            "used": {name: used._asdict() for name, used in state.used.items()} if state else {},
            "answered": sum(sum(plan.done.values()) for plan in plans),
            "saved_by_filters": sum(plan.saved for plan in plans),
            "filters": account.filters.texts,
            "seconds": seconds,
            "teams": [dict(zip(("name", "weight", "calls", "seconds"), team, strict=True)) for team in teams],
            "done_at": _end(seconds, at_work),
            "calls_at_work": at_work,
            "quota_warning": warning,
        }
        print(json.dumps(document, indent=1))
        return COMPLETE
    _print_days(plans, account.name)
    _print_costs(plans, account, seconds, at_work)
    _print_counts(plans[-1], state)
    _print_teams(teams)
    if account.filters:
        saved, left_out = sum(plan.saved for plan in plans), max(plan.left_out for plan in plans)
        print(
            f"filters save {counted(saved, 'call')} and leave {counted(left_out, 'troop')} out: {account.filters}"
        )
    if warning:
        print(f"warning: {warning}")
    return COMPLETE


def _teams(
    costs: Costs, plans: Sequence[DayPlan], account: Account, seconds: float | None
) -> list[tuple[str, float, int, float | None]]:
    """Name, weight and calls to come of each team, and when they are made if all begin now; none without weights."""
    from vendor_assets.budget import OTHERS
    from vendor_assets.harvest.weights import seconds_by_team

    calls: Counter[Team] = Counter()
    for plan in plans if account.weights else ():
        teams = costs.teams(plan.day, account.weights)
        for key, number in plan.to_come.items():
            calls[teams.get(key, OTHERS)] += number
    ends = seconds_by_team(calls, seconds) if seconds is not None else {}
    order = [*account.weights.teams, OTHERS]
    return [(*team, calls[team], ends.get(team)) for team in sorted(calls, key=order.index) if calls[team]]


def _counts(plans: Sequence[DayPlan]) -> dict[str, float]:
    """What the calls to come count of other units than requests."""
    units = {unit: None for plan in plans for unit in plan.per_call}
    return {
        unit: round(sum(plan.total * plan.per_call.get(unit, 0.0) for plan in plans), 9) for unit in units
    }


def _as_json(plan: DayPlan) -> dict[str, Any]:
    document = asdict(plan) | {"whole": plan.whole}
    for name in ("day", "roster_from", "shape_from"):
        document[name] = document[name] and str(document[name])
    return document


def _at_work(project: Project) -> int:
    """Calls that running harvests still have to make; 0 if the database is unavailable."""
    from vendor_assets.budget import Backlog, totals

    now = datetime.now(UTC)
    try:
        with closing(Backlog(project.account.database_url, project.account.name)) as backlog:
            (total,) = totals(backlog.read(now - timedelta(minutes=5)), [now])
    except BudgetError:
        return 0
    return total.calls


def _state(project: Project) -> BudgetState | None:
    """What the budget does now; None if its database is unavailable."""
    try:
        with closing(project.budget()) as budget:
            return budget.state()
    except BudgetError:
        return None


def _end(seconds: float | None, at_work: int) -> str | None:
    """When the work is done; None if that is unknown or other runs share the quota."""
    if seconds is None or at_work:
        return None
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def _print_days(plans: Sequence[DayPlan], account: str) -> None:
    rows = []
    for plan in plans:
        calls = [plan.calls[asset] for asset in ("warriors", "data_groups", "performance_data")]
        rows.append(
            (plan.day, plan.troops, *calls, plan.total, sum(plan.done.values()), _known(plan, account))
        )
    print_table(rows, "day", "troops", "warriors", "groups", "data", "calls", "answered", "known from")


def _known(plan: DayPlan, account: str) -> str:
    """What an estimate is based on."""
    if plan.roster_from is None:
        named = f" --account {account}" if account else ""
        return f"nothing: harvest one day first, like vendor-assets harvest --day {plan.day}{named}"
    source = plan.shape_from
    if plan.left_out and not plan.troops:
        return f"the roster of {plan.roster_from}, all of it left out by the filters"
    if source is None:
        return f"the roster of {plan.roster_from}; no troop was harvested yet: a guess"
    apart = (plan.day - source).days
    text = (
        f"{source}, {counted(abs(apart), 'day')} {'before' if apart > 0 else 'after'}"
        if apart
        else "the day itself"
    )
    return text + (f"; {counted(plan.unknown, 'troop')} taken to be like the others" if plan.unknown else "")


def _print_counts(plan: DayPlan, state: BudgetState | None) -> None:
    """What a call and a day count of other units than requests, and what is left of long periods."""
    from vendor_assets.budget import amount_text

    for unit, each in plan.per_call.items():
        learnt = ", as answers told" if state and unit in state.learnt else ""
        of_day = amount_text(plan.whole * each, unit)
        print(f"a call counts {amount_text(each, unit)} on average{learnt}, a day {of_day}")
    for name, used in (state.used if state else {}).items():
        print(f"used of {name}: {used}")


def _print_teams(teams: Sequence[tuple[str, float, int, float | None]]) -> None:
    for name, weight, calls, seconds in teams:
        when = "" if seconds is None else f", done in {duration_text(seconds)} if all begin now"
        print(
            f"{f'team {name}' if name else 'other troops'}: weight {weight:g}, {counted(calls, 'call')} to come{when}"
        )


def _print_costs(plans: Sequence[DayPlan], account: Account, seconds: float | None, at_work: int) -> None:
    from vendor_assets.budget import amount_text

    total, answered = sum(plan.total for plan in plans), sum(sum(plan.done.values()) for plan in plans)
    counts = "".join(f" ({amount_text(number, unit)})" for unit, number in _counts(plans).items())
    said = f"{counted(total, 'call')} to come{counts}, {answered:,} answered already"
    rate = account.rate_for(plans[-1].per_call)
    if seconds is None or rate is None:
        print(
            f"{said}; how long that takes is known once the vendor's capacity has been found (the rate is auto)"
        )
    else:
        quota = "" if account.limits == "auto" else ", ".join(map(str, account.limits))
        end = datetime.now(account.zone) + timedelta(seconds=seconds)
        print(
            f"{said}; at {account.share:.0%} of {quota}: {duration_text(seconds)}, done {end:%Y-%m-%d %H:%M %Z}"
        )
        if at_work:
            later = end + timedelta(seconds=at_work / rate)
            print(
                f"under way now: {counted(at_work, 'call')}, {duration_text(at_work / rate)}. "
                f"As scheduled work (harvest) this shares the rate with them; as a backfill it goes after them. "
                f"Both are done {later:%Y-%m-%d %H:%M %Z}"
            )
        day = plans[-1].whole
        if seconds > 86_400 and day:
            print(
                f"a day's own harvest needs {day:,} calls, {day / (rate * 86_400):.0%} of the quota, and goes before "
                "a backfill: it takes so much longer"
            )
    largest = [
        f"{presentable(name, 60)} ({count:,})"
        for name, count in list(plans[-1].by_troop.items())[:3]
        if count
    ]
    if largest:
        print(f"largest troops: {', '.join(largest)}")


COMMAND: Final = _plan
