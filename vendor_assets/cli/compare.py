"""``compare``: harvest a day by two dialects of one vendor, and say where they differ."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vendor_assets.cli.harvest import harvest_days
from vendor_assets.cli.project import (
    COMPLETE,
    PARTIAL,
    Project,
    choose_day,
    embedded_vendor,
    open_project,
)
from vendor_assets.cli.terminal import print_table
from vendor_assets.errors import ConfigurationError, HarvestError, ObjectNotFoundError

if TYPE_CHECKING:
    from vendor_assets.account import Account
    from vendor_assets.analytics.comparison import Compared

_SHOWN: Final = 40


def add(commands: Any) -> None:
    """Add the command."""
    compare = commands.add_parser(
        "compare",
        help="harvest a day with a second dialect too, and show where the values differ",
        epilog="Both days are kept below compare/ in the store, apart from its tables; run it again to go on. "
        "Exit codes: 0 all values are equal; 3 some differ, are missing or could not be harvested; 2 usage "
        "or settings are wrong; 1 anything else.",
    )
    compare.add_argument("--day", help="the day, like 2026-11-20 (default: the last that is over)")
    compare.add_argument(
        "--with", dest="kind", required=True, metavar="KIND", help="the second dialect, like new_relic"
    )
    compare.add_argument(
        "--with-account",
        type=str,
        metavar="ACCOUNT",
        help="its VENDOR_ACCOUNT (default: that of the settings)",
    )
    compare.add_argument(
        "--with-rate", metavar="RATE", help="its VENDOR_RATE, like 500/min (default: the documented one)"
    )
    compare.add_argument(
        "--troop", action="append", default=[], help="id or name of a troop; may be repeated"
    )
    compare.add_argument("--json", action="store_true", help="print everything that was compared, as JSON")
    compare.set_defaults(run=_compare, first=None, last=None)


def _compare(options: argparse.Namespace) -> int:
    project = open_project(options.account)
    other = _other(project.account, options)
    day = choose_day(options, project.account)
    out = sys.stderr if options.json else sys.stdout
    complete = True
    stores = []
    with embedded_vendor(project.account) as reachable:
        for account in (project.account, other):
            apart = _apart(project, replace(account, vendor_url=reachable.vendor_url))
            summary = harvest_days(apart, [day], options.troop, report=False, out=out)
            for problem in summary.problems:
                print(f"  {problem}", file=out)
            complete &= summary.complete
            stores.append(apart.store())
    # Not before: DuckDB complains at the end of objects that a run keeps from being collected.
    from vendor_assets.analytics.comparison import compare

    try:
        found = list(compare(stores[0], stores[1], day))
    except ObjectNotFoundError as error:
        if complete:
            raise
        raise HarvestError(f"nothing to compare, {day} is not complete: {error}") from error
    kinds = (project.account.vendor.kind, other.vendor.kind)
    if options.json:
        document = {"day": day.isoformat(), "kinds": kinds, "complete": complete, "equal": _equal(found)}
        print(json.dumps(document | {"values": list(map(asdict, found))}, indent=1))
    else:
        _print(found, kinds)
    return COMPLETE if complete and _equal(found) else PARTIAL


def _other(account: Account, options: argparse.Namespace) -> Account:
    """The account as the other dialect calls it: the same address and credentials, limits of its own."""
    from vendor_assets import vendors
    from vendor_assets.settings.environment import limits_of

    if options.kind == account.vendor.kind:
        raise ConfigurationError(f"--with={options.kind!r} is the configured dialect; give another one")
    name = account.vendor_account if options.with_account is None else options.with_account
    vendor = vendors.make(options.kind, name)
    vendor.check_resolution(account.resolution_seconds)
    most = vendor.most_in_flight or account.max_in_flight
    return replace(
        account,
        vendor=vendor,
        vendor_account=name,
        vendor_options={},
        limits=limits_of(options.with_rate or "", vendor, "--with-rate"),
        max_in_flight=min(account.max_in_flight, most),
    )


def _apart(project: Project, account: Account) -> Project:
    """A project of its own for one dialect: neither its tables nor its runs are the real ones."""
    url = f"{account.store_url.rstrip('/')}/compare/{account.vendor.kind}"
    root = project.root / ".vendor_assets" / "compare" / account.vendor.kind
    Path(root).mkdir(parents=True, exist_ok=True)
    environ = {name: text for name, text in project.environ.items() if name != "DAGSTER_HOME"}
    return Project(root, environ, replace(account, store_url=url))


def _equal(found: Iterable[Compared]) -> bool:
    return all(each.same for each in found)


def _print(found: list[Compared], kinds: tuple[str, str]) -> None:
    one, other = kinds
    print(
        f"{sum(each.equal for each in found):,} values are equal, {sum(each.only_one for each in found):,} only in "
        f"{one}, {sum(each.only_other for each in found):,} only in {other}, "
        f"{sum(each.different for each in found):,} different"
    )
    odd = sorted(
        (each for each in found if not each.same),
        key=lambda each: -(each.different + each.only_one + each.only_other),
    )
    if odd:
        rows = [
            (
                each.troop,
                each.equal,
                each.only_one,
                each.only_other,
                each.different,
                "" if each.most_off is None else f"{each.most_off:.4g}",
                "" if each.most_off_part is None else f"{each.most_off_part:.2%}",
                f"{each.data_group} {each.value_name}",
            )
            for each in odd[:_SHOWN]
        ]
        heads = ("troop", "equal", f"only {one}", f"only {other}", "different", "by at most", "or", "value")
        print_table(rows, *heads)
    if len(odd) > _SHOWN:
        print(f"and {len(odd) - _SHOWN} more values that differ; --json has all of them")
