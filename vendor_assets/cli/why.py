"""``why``: what calls wait for, who goes first, when the work is done, and what another setting would change."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from vendor_assets.cli.project import COMPLETE, Project, add_days, choose_days, open_project
from vendor_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from vendor_assets.budget import Explanation, Snapshot, Work
    from vendor_assets.harvest.filters import Filters

_FILTERS: Final = ("troops", "warriors", "data_groups", "values")
SUPPOSED: Final = ("share", "rate", *_FILTERS)
"""What may be supposed to be otherwise."""


def add(commands: Any) -> None:
    """Add the command."""
    why = commands.add_parser(
        "why", help="why calls wait: which limit binds, who uses it, who goes first, and when it will be done"
    )
    why.add_argument(
        "--run", dest="run_name", metavar="ID", help="one active run, by its id or the beginning of its id"
    )
    add_days(why)
    why.add_argument(
        "--what-if",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="also with another setting: share=0.5, rate=2000/min, or with --day a filter like troops=web-*; "
        "several are taken together",
    )
    why.add_argument("--json", action="store_true", help="print as JSON")
    why.set_defaults(run=_why)


def _why(options: argparse.Namespace) -> int:
    from vendor_assets.budget import explain

    project = open_project(options.account)
    supposed = _supposed(options.what_if)
    planned = bool(options.day or options.first or options.last or options.troop)
    if options.run_name and planned:
        raise ConfigurationError("--run cannot be used with --day or --troop; give only one of them")
    if set(supposed) & set(_FILTERS) and not planned:
        raise ConfigurationError("--what-if with a filter needs --day or --from, whose plan it changes")
    snapshot, work = _look(project)
    run = work.run(options.run_name) if options.run_name else None
    if options.run_name and run is None:
        there = ", ".join(each.source for each in work.runs) or "none"
        raise ConfigurationError(f"no run {options.run_name[:60]!r} is at work; there are: {there}")
    filters = project.account.filters
    calls = _planned(project, options, filters) if planned else None
    found = {"now": explain(snapshot, work, run=run, calls=calls)}
    if supposed:
        calls = _planned(project, options, _filtered(filters, supposed)) if planned else None
        other = snapshot.supposing(share=_share(supposed), limits=_limits(supposed))
        found["what_if"] = explain(other, work, run=run, calls=calls, supposed=True)
    if options.json:
        document = {name: _as_json(each) for name, each in found.items()}
        print(json.dumps(document, indent=1))
        return COMPLETE
    _print(found["now"])
    if supposed:
        print(f"what if    {', '.join(options.what_if)}: {found['what_if'].text}; {found['what_if'].done}")
    return COMPLETE


def _look(project: Project) -> tuple[Snapshot, Work]:
    """The budget and the runs as they stand; no call is made and nothing is taken."""
    from vendor_assets.budget import SAMPLES_SINCE, Backlog, Leases, Work

    account, now = project.account, datetime.now(UTC)
    with (
        closing(project.budget()) as budget,
        closing(Backlog(account.database_url, account.name)) as backlog,
    ):
        samples = backlog.read(now - SAMPLES_SINCE)
        return budget.snapshot(), Work.of(samples, Leases(account.database_url).all(), now)


def _planned(project: Project, options: argparse.Namespace, filters: Filters) -> int | None:
    """Calls to come of the chosen days, by their plans; None where nothing is known of a day."""
    from vendor_assets.harvest.costs import Costs

    account = replace(project.account, filters=filters)
    costs = Costs(project.store(), account)
    plans = [costs.day(day, options.troop) for day in choose_days(options, account)]
    return sum(plan.total for plan in plans) if all(plan.roster_from for plan in plans) else None


def _supposed(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in SUPPOSED:
            raise ConfigurationError(
                f"--what-if {text[:60]!r} is not understood; accepted are {', '.join(SUPPOSED)} with =VALUE"
            )
        found[name] = value
    return found


def _share(supposed: dict[str, str]) -> float | None:
    try:
        return float(supposed["share"]) if "share" in supposed else None
    except ValueError as error:
        raise ConfigurationError(
            f"share {supposed['share'][:60]!r} is not a number above 0, at most 1"
        ) from error


def _limits(supposed: dict[str, str]) -> Sequence[Any] | None:
    from vendor_assets.budget import Limit

    return Limit.parse_all(supposed["rate"].split(",")) if "rate" in supposed else None


def _filtered(filters: Filters, supposed: dict[str, str]) -> Filters:
    from vendor_assets.harvest.filters import Filter

    named = {name: supposed[name] for name in _FILTERS if name in supposed}
    changes = {name: Filter.parse(getattr(filters, name).setting, text) for name, text in named.items()}
    return replace(filters, **changes)


def _as_json(told: Explanation) -> dict[str, Any]:
    return asdict(told) | {"sentence": told.sentence}


def _print(told: Explanation) -> None:
    print(f"waits for  {told.text}")
    for holder in told.held_by:
        print(f"held by    {holder}")
    if told.next_call:
        print(f"next call  {told.next_call}")
    for other in told.before:
        print(f"before it  {other}")
    for other in told.also:
        print(f"also       {other}")
    for team in told.teams:
        print(f"shares     {team}")
    if told.calls == 0:
        print("done       no calls are to come")
        return
    print(f"done       {told.done}")
    for text in told.assumes if told.done_seconds is not None else ():
        print(f"assumes    {text}")


COMMAND: Final = _why
