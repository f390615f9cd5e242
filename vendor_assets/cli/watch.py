"""``status``, ``doctor`` and ``budget``: the state of days, of the deployment and of the budget."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from vendor_assets.cli.instance import ask_dagster
from vendor_assets.cli.project import (
    COMPLETE,
    FAILED,
    Project,
    add_url,
    embedded_vendor,
    open_project,
)
from vendor_assets.cli.terminal import print_table
from vendor_assets.days import day_window, days_between, duration_text, last_complete_day
from vendor_assets.errors import BudgetError, ConfigurationError, VendorAssetsError
from vendor_assets.presentable import counted
from vendor_assets.states import COUNTED

if TYPE_CHECKING:
    import dagster as dg

    from vendor_assets.harvest.status import DayStatus
    from vendor_assets.orchestration.doctor import Finding

_RUNS = """
query Status {
  runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: 1000) {
    ... on Runs { results { status } }
  }
  instance { daemonHealth { allDaemonStatuses { required healthy } } }
}
"""


def add(commands: Any) -> None:
    """Add the commands."""
    status = commands.add_parser(
        "status", help="show the last days at a glance: what is in, what waits, what failed"
    )
    status.add_argument("--days", type=int, default=7, help="how many days (default 7)")
    add_url(status)
    status.add_argument("--json", action="store_true", help="print as JSON")
    status.set_defaults(run=_status)

    doctor = commands.add_parser("doctor", help="try every part that a harvest needs, one line each")
    doctor.add_argument("--json", action="store_true", help="print as JSON")
    doctor.set_defaults(run=_doctor)

    budget = commands.add_parser(
        "budget", help="show what the budget is doing: rate, holds, who waits, and why"
    )
    budget.add_argument("--json", action="store_true", help="print as JSON")
    budget.add_argument(
        "--lift-ceiling",
        action="store_true",
        help="forget the rate at which the vendor failed, if you know that it can take more",
    )
    budget.set_defaults(run=_budget)


def _status(options: argparse.Namespace) -> int:
    from vendor_assets.harvest.costs import Costs, quota_warning
    from vendor_assets.harvest.status import status_of_day

    if not 1 <= options.days <= 366:
        raise ConfigurationError(f"--days {options.days} is not accepted; give 1 to 366")
    project = open_project(options.account)
    account, store = project.account, project.store()
    newest = last_complete_day(datetime.now(UTC), account.zone)
    first = max(account.start, newest - timedelta(days=options.days - 1))
    days = [status_of_day(store, day, account.filters) for day in days_between(first, newest, account.zone)]
    work = _work(project)
    runs = _runs(options.url)
    known = [each.day for each in days if each.roster]
    warning = None
    if known and account.permitted_rate is not None:
        plan = Costs(store, account).day(known[-1])
        warning = quota_warning(plan, account.rate_for(plan.per_call), account.resolution_seconds)
    if options.json:
        document = {
            "days": [_status_as_json(each) for each in days],
            "filters": account.filters.texts,
            "quota_warning": warning,
            "dagster": runs,
            **work,
        }
        print(json.dumps(document, indent=1))
        return COMPLETE
    _print_status(days)
    _print_work(work, runs, options.url)
    if account.filters:
        print(f"filters    {account.filters}")
    if warning:
        print(f"warning    {warning}")
    return COMPLETE


def _status_as_json(standing: DayStatus) -> dict[str, Any]:
    report = standing.report_at
    return asdict(standing) | {
        "day": standing.day.isoformat(),
        "report_at": report and report.isoformat(timespec="seconds"),
    }


def _work(project: Project) -> dict[str, Any]:
    """Running harvests, calls made today and calls waiting, from the budget's database."""
    from vendor_assets.budget import Backlog, Leases, totals

    account = project.account
    now = datetime.now(UTC)
    today = day_window(now.astimezone(account.zone).date(), account.zone)
    rate = account.permitted_rate
    found: dict[str, Any] = {"quota_of_the_day": rate and round(rate * today.seconds)}
    try:
        with closing(Backlog(account.database_url, account.name)) as backlog:
            samples = backlog.read(today.start - timedelta(minutes=5))
        with closing(project.budget()) as budget:
            slowed = budget.state().slowed
        alive = [lease for lease in Leases(account.database_url).all() if not lease.lapsed]
    except BudgetError as error:
        return found | {"problem": str(error)}
    before = {each.source: each.calls_done for each in samples if each.time < today.start}
    last = {each.source: each.calls_done for each in samples if each.time >= today.start}
    (total,) = totals(samples, [now])
    drained = account.seconds_for(total.calls)
    return found | {
        "calls_today": sum(done - before.get(source, 0) for source, done in last.items()),
        "calls_waiting": total.calls,
        "seconds_to_drain": None if drained is None else round(drained, 1),
        "runs_harvesting": len(alive),
        "slowed": slowed,
    }


def _runs(url: str) -> dict[str, Any] | None:
    """Runs and daemons as Dagster's UI reports them; None if no UI answers."""
    try:
        answer = ask_dagster(url, _RUNS, {}, timeout_seconds=1.0)
    except VendorAssetsError:
        return None
    states = [run["status"] for run in answer["runsOrError"].get("results", [])]
    daemons = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    queued = sum(state in ("QUEUED", "NOT_STARTED") for state in states)
    return {
        "runs_queued": queued,
        "runs_under_way": len(states) - queued,
        "daemons_alive": all(daemon["healthy"] for daemon in daemons if daemon["required"]),
    }


_PROBLEMS_SHOWN = 20


def _print_status(days: list[DayStatus]) -> None:
    rows = []
    for each in days:
        counts = [getattr(each, name) if each.roster else "-" for name in COUNTED]
        report = f"{each.report_at:%Y-%m-%d %H:%M} UTC" if each.report_at else "-"
        rows.append((each.day, *counts, each.dead_letters, report if each.roster else "no roster yet"))
    states = (name.replace("_", " ") for name in COUNTED)
    print_table(rows, "day", *states, "dead letters", "report", least=9)
    problems = [f"{each.day} {problem}" for each in days for problem in each.problems]
    for problem in problems[-_PROBLEMS_SHOWN:]:
        print(f"problem    {problem}")
    if len(problems) > _PROBLEMS_SHOWN:
        print(f"problem    and {len(problems) - _PROBLEMS_SHOWN} older ones; --json shows all")


def _print_work(work: dict[str, Any], runs: dict[str, Any] | None, url: str) -> None:
    quota = work["quota_of_the_day"]
    if "problem" in work:
        print(f"budget     {work['problem']}")
    else:
        of_quota = f" of {quota:,} ({work['calls_today'] / quota:.1%})" if quota else ""
        print(f"today      about {counted(work['calls_today'], 'call')}{of_quota}")
        drain = work["seconds_to_drain"]
        lasts = f", {duration_text(drain)} at the permitted rate" if drain else ""
        print(
            f"now        {counted(work['runs_harvesting'], 'run is', 'runs are')} harvesting, "
            f"{counted(work['calls_waiting'], 'call waits', 'calls wait')}{lasts}"
        )
        if work["slowed"]:
            print(f"slow       {work['slowed']}")
    if runs is None:
        print(f"dagster    no UI answers at {url}")
    else:
        daemons = "alive" if runs["daemons_alive"] else "NOT ALIVE: sensors, schedules and queued runs wait"
        print(
            f"dagster    {counted(runs['runs_under_way'], 'run')} under way, {runs['runs_queued']} queued; "
            f"daemons {daemons}"
        )


def _doctor(options: argparse.Namespace) -> int:
    from vendor_assets.orchestration.definitions import build_resources
    from vendor_assets.orchestration.doctor import examine
    from vendor_assets.orchestration.names import Names
    from vendor_assets.orchestration.runs.launching import open_instance

    project = open_project(options.account)
    findings: list[Finding] = []
    with embedded_vendor(project.account) as reachable, ExitStack() as stack:
        instance: dg.DagsterInstance | ConfigurationError
        try:
            instance = stack.enter_context(open_instance(project.root, project.environ))
        except ConfigurationError as error:
            instance = error
        resources = build_resources(reachable)
        names = Names.for_account(reachable)
        # Outside of a run, resources with secrets from environment variables must be resolved explicitly.
        vendor_api = resources[names.resource("vendor_api")].process_config_and_initialize()
        for finding in examine(reachable, vendor_api, resources[names.resource("store")], instance):
            findings.append(finding)
            if not options.json:
                print(f"{finding.state:8} {finding.part:11} {finding.text}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return FAILED if any(finding.state == "failed" for finding in findings) else COMPLETE


def _budget(options: argparse.Namespace) -> int:
    from vendor_assets.budget import amount_text, database_place

    project = open_project(options.account)
    account = project.account
    with closing(project.budget()) as budget:
        lifted = budget.lift_ceiling() if options.lift_ceiling else ""
        state = budget.state()
    if options.json:
        print(json.dumps(asdict(state), indent=1))
        return COMPLETE
    print(f"account    {state.account}, database {database_place(account.database_url)}")
    limits = ", ".join(state.limits) or "not known: found by trying"
    print(f"quota      {limits}; our share {state.share:.0%}: {_per_second(state.permitted_rate)} permitted")
    print(f"now        {_per_second(state.rate)}: {state.why}")
    hold = f"{state.hold_seconds:.0f} s left: {state.hold_reason}" if state.hold_seconds else "none"
    print(f"hold       {hold}")
    if state.slowed:
        print(f"slow       {state.slowed}")
    print(f"breaker    {state.breaker}")
    if state.ceiling is not None:
        print(f"ceiling    {_per_second(state.ceiling)}: {state.ceiling_reason}")
        named = f" --account {account.name}" if account.name else ""
        print(f"           to lift it: vendor-assets budget --lift-ceiling{named}")
    elif options.lift_ceiling:
        print(f"ceiling    lifted: {lifted}" if lifted else "ceiling    none, nothing to lift")
    print(
        f"waiting    {counted(state.waiting, 'call')}; a new one would wait {state.ahead_seconds:.1f} s for the pace"
    )
    print(f"in flight  {state.in_flight} of {state.max_in_flight}")
    for name, used in state.used.items():
        print(f"counted    {name}: {used}")
    for unit, number in state.per_call.items():
        learnt = state.learnt.get(unit)
        told = "" if learnt is None else f"; answers tell {learnt:.0%} of what is booked"
        print(f"a call     {amount_text(number, unit)} recently{told}")
    for process in state.processes:
        print(f"process    {process}")
    return COMPLETE


def _per_second(rate: float | None) -> str:
    return "no pace" if rate is None else f"{rate:.3g} calls a second"


COMMANDS: Final = (_status, _doctor, _budget)
