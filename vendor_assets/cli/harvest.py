"""``harvest``: harvest a day or a range through Dagster, in this process."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from typing import Any

from vendor_assets.cli.progress import ProgressLine, stoppable
from vendor_assets.cli.project import (
    COMPLETE,
    FAILED,
    PARTIAL,
    Project,
    add_class,
    add_days,
    choose_days,
    embedded_vendor,
    open_project,
)
from vendor_assets.presentable import counted
from vendor_assets.work_class import SCHEDULED, WorkClass


def add(commands: Any) -> None:
    """Add the command."""
    harvest = commands.add_parser(
        "harvest",
        help="harvest a day or a range of days, through Dagster, in this process",
        epilog="Exit codes: 0 all is complete; 3 some of it is not, or records are in quarantine; 2 usage or "
        "settings are wrong; 130 Ctrl-C; 1 nothing is complete, or anything else.",
    )
    add_days(harvest)
    harvest.add_argument(
        "--no-report", action="store_true", help="do not compute the day's statistics and report"
    )
    finished = harvest.add_mutually_exclusive_group()
    finished.add_argument("--replace", action="store_true", help="fetch finished partitions again")
    finished.add_argument(
        "--rebuild",
        action="store_true",
        help="rebuild tables from landed answers, without calls",
    )
    harvest.add_argument(
        "--accept-empty-roster",
        action="store_true",
        help="accept that an account that had troops now has none, which otherwise fails",
    )
    add_class(harvest, SCHEDULED)
    harvest.add_argument("--json", action="store_true", help="print the summary as JSON")
    harvest.set_defaults(run=_harvest)


def _harvest(options: argparse.Namespace) -> int:
    project = open_project(options.account)
    days = choose_days(options, project.account)
    with embedded_vendor(project.account) as reachable:
        summary = harvest_days(
            replace(project, account=reachable), days, options.troop,
            replaced=options.replace, rebuild=options.rebuild, work_class=options.work_class,
            accept_empty=options.accept_empty_roster,
            report=not options.no_report, out=sys.stderr if options.json else sys.stdout,
        )  # fmt: skip
    return print_summary(summary, as_json=options.json)


def harvest_days(
    project: Project,
    days: Sequence[date],
    troops: Sequence[str],
    *,
    replaced: bool = False,
    rebuild: bool = False,
    accept_empty: bool = False,
    work_class: WorkClass = SCHEDULED,
    report: bool = True,
    out: Any,
) -> Any:
    """Bring days up to date and return a summary.

    Raises:
        KeyboardInterrupt: It was stopped; what was in flight has landed.
    """
    from vendor_assets.harvest.harvester import Harvester
    from vendor_assets.orchestration.runs.launching import Launcher, open_instance

    account = project.account
    print(f"vendor {account.vendor_url} ({account.vendor.kind}), store {project.store().url}", file=out)
    if account.filters:
        print(f"filters {account.filters}", file=out)
    out.flush()
    started = time.monotonic()
    with (
        # Not before all is imported: inside of an import an interrupt may get lost.
        stoppable() as stopped,
        open_instance(project.root, project.environ) as instance,
        ProgressLine(out) as progress,
    ):
        launcher = Launcher(account, instance, progress.say, stopped)
        launcher.fail_lapsed_runs()
        for day in days:
            launcher.harvest_day(
                day,
                troops=troops,
                replace=replaced,
                rebuild=rebuild,
                accept_empty=accept_empty,
                work_class=work_class,
                report=report,
            )
        summary = launcher.summary
        if len(launcher.left_out) == len(days):  # a pattern that nothing ever matches
            summary.problems += launcher.left_out
        elif summary.all_left_out:
            summary.problems.append(f"{account.filters} leaves all data out; check the patterns")
    summary.seconds = round(time.monotonic() - started, 3)
    needed = account.seconds_for(summary.calls_made)
    if needed:
        permitted = Harvester.busy_stretches + summary.calls_made / needed * Harvester.busy_seconds
        summary.share_of_permitted_rate = round(summary.calls_made / permitted, 4)
    return summary


def print_summary(summary: Any, *, as_json: bool = False) -> int:
    """Print a summary of runs and return the exit code: 0 all complete and none in quarantine, 3 some, 1 none."""
    if as_json:
        print(json.dumps(asdict(summary) | {"complete": summary.complete}, indent=1))
    else:
        _print_lines(summary)
    if summary.complete:
        return COMPLETE
    return PARTIAL if any(summary.states.get(state) for state in ("complete", "empty", "partial")) else FAILED


def _print_lines(summary: Any) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items()))
    print(f"{counted(summary.rows, 'row')} in {summary.seconds:.1f} s; partitions: {states or 'none'}")
    planned = f" of {summary.calls_planned:,} planned" if summary.calls_planned else ""
    print(
        f"{counted(summary.calls_made, 'call')} made{planned}, {counted(summary.requests_reused, 'request')} reused, "
        f"{summary.throttled} throttled, {counted(summary.dead_letters, 'dead letter')}"
        + (
            f", {counted(summary.quarantined_records, 'record')} in quarantine"
            if summary.quarantined_records
            else ""
        )
    )
    if summary.share_of_permitted_rate is not None:
        print(
            f"{summary.share_of_permitted_rate:.1%} of the permitted rate used while there was something to ask"
        )
    for problem in summary.problems[:20]:
        print(f"  {problem}")
    if len(summary.problems) > 20:
        print(f"  and {len(summary.problems) - 20} more")
    for hint in summary.hints[:3]:
        print(hint)
    for report in summary.reports:
        print(f"report: {report}")
