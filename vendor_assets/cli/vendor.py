"""``vendor check``: whether a dialect keeps what every vendor promises; ``vendor record``: answers to check it with."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vendor_assets.cli import record
from vendor_assets.cli.project import COMPLETE, FAILED
from vendor_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from vendor_assets.vendors import Vendor


def add(commands: Any) -> None:
    """Add the command."""
    vendor = commands.add_parser("vendor", help="check a vendor's class, or record answers to check it with")
    actions = vendor.add_subparsers(metavar="action", required=True)
    check = actions.add_parser(
        "check",
        help="check a vendor's class without its server",
        epilog="Exit codes: 0 it keeps every promise; 1 it does not; 2 usage is wrong.",
    )
    check.add_argument("vendor", metavar="KIND or MODULE:CLASS", help="like new_relic, or my_vendor:Acme")
    check.add_argument("--vendor-account", default="1", help="its VENDOR_ACCOUNT (default 1)")
    check.add_argument("--options", type=str, default="", help="its VENDOR_OPTIONS")
    check.add_argument(
        "--cases", type=Path, metavar="FOLDER", help="answers as JSON files, with what they mean"
    )
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(run=_check)
    record.add(actions)


def _check(options: argparse.Namespace) -> int:
    from vendor_assets.vendors.cases import check_cases
    from vendor_assets.vendors.conformance import CHECKS, Finding, check

    vendor = _vendor(options)
    found = check(vendor)
    checks = len(CHECKS)
    if options.cases:
        found += [Finding("cases", what) for what in check_cases(vendor, options.cases)]
        checks += 1
    if options.json:
        print(json.dumps([{"check": each.check, "what": each.what} for each in found], indent=1))
    else:
        for each in found:
            print(each)
        broken = len({each.check for each in found})
        print(f"{vendor.title}: {checks - broken} of {checks} checks passed")
    return FAILED if found else COMPLETE


def _vendor(options: argparse.Namespace) -> Vendor:
    from vendor_assets import vendors
    from vendor_assets.settings import parse

    own = parse.options(options.options)
    name = options.vendor
    if ":" not in name:
        return vendors.make(name, options.vendor_account, own)
    module, _, class_name = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  as Python itself does for -m
    try:
        found = getattr(import_module(module), class_name)
    except Exception as error:
        raise ConfigurationError(f"{name[:100]!r} cannot be imported: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, vendors.Vendor)):
        raise ConfigurationError(f"{name[:100]!r} is not a class derived from Vendor")
    try:
        return found.configured(options.vendor_account, own)
    except TypeError as error:
        raise ConfigurationError(f"{name[:100]!r} cannot be made: {error}") from error
