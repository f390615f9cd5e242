"""The command ``vendor-assets``: the whole job without the UI, and what an operator needs.

A module for each group of subcommands; each adds its parsers with ``add(commands)``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vendor_assets import __version__
from vendor_assets.cli import embedded, harvest, instance, letters, plan, store, watch
from vendor_assets.cli.project import FAILED, WRONG_USE
from vendor_assets.cli.terminal import visible_output
from vendor_assets.errors import ConfigurationError, VendorAssetsError


class _Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 complete, 3 partial, 2 wrong use, 1 anything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["simulator"]:
        embedded.run_simulator(arguments[1:])
    with visible_output():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return int(options.run(options))
    except ConfigurationError as error:
        return _complain(error, WRONG_USE)
    except VendorAssetsError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        print("vendor-assets: stopped; the next run goes on where this one ended", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _complain(error: VendorAssetsError, code: int) -> int:
    print(f"vendor-assets: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vendor-assets", description="Harvest a rate-limited vendor API into partitioned Parquet."
    )
    parser.add_argument("--version", action="version", version=f"vendor-assets {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for module in (harvest, instance, plan, watch, letters, store, embedded):
        module.add(commands)
    return parser
