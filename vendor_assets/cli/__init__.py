"""The command ``vendor-assets``: harvests without the UI, and tools for operators.

Each group of subcommands is a module that adds its parsers with ``add(commands)``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from vendor_assets import __version__
from vendor_assets.cli import (
    compare,
    completion,
    configuration,
    embedded,
    harvest,
    instance,
    letters,
    plan,
    store,
    vendor,
    watch,
    why,
)
from vendor_assets.cli.project import FAILED, WRONG_USE, open_accounts
from vendor_assets.cli.terminal import visible_output
from vendor_assets.days import DAYS_AGO
from vendor_assets.errors import ConfigurationError, VendorAssetsError

EVERY_ACCOUNT: Final = (*watch.COMMANDS, plan.COMMAND, why.COMMAND, letters.COMMAND, configuration.COMMAND)
"""Read-only commands: without ``--account`` they run for every account."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that takes no empty text for an option that is not given."""

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument; a text of nothing, as an unset variable gives it, is refused unless its type says else."""
        if options.get("action", "append") == "append" and options.get("type", Path) is Path:
            options["type"] = partial(_given, options.get("type", str))
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _given(of: Callable[[str], Any], text: str) -> Any:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give a value, or leave it out")
    return of(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 complete, 3 partial, 2 wrong use, 1 anything else.

    Raises:
        KeyboardInterrupt: It was stopped, by Ctrl-C or SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["simulator"]:
        embedded.run_simulator(arguments[1:])
    with visible_output():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        completion.complete(parser)
    options = parser.parse_args(_joined(arguments))
    options.environ = dict(os.environ)  # before the project's file completes it
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return _of_each_account(options)
    except VendorAssetsError as error:
        print(f"vendor-assets: {error}", file=sys.stderr)
        return _code_of(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if not error.filename:
            raise
        print(f"vendor-assets: {error.filename} cannot be used: {error.strerror}", file=sys.stderr)
        return FAILED


def _joined(arguments: Sequence[str]) -> list[str]:
    """Arguments with days like ``-1d`` joined to the option before them; argparse would take them for options."""
    found: list[str] = []
    for text in arguments:
        if found and found[-1] in ("--day", "--from", "--to") and DAYS_AGO.match(text):
            found[-1] += f"={text}"
        else:
            found.append(text)
    return found


def _of_each_account(options: argparse.Namespace) -> int:
    """Run a command for one account, or a read-only command for all of them."""
    reads = (
        options.run in EVERY_ACCOUNT
        and getattr(options, "action", "list") in ("list", "show")
        and not getattr(options, "lift_ceiling", False)
    )
    names = [options.account]
    if reads and options.account is None:
        names = [each.name or None for each in open_accounts()[1]]
    if len(names) == 1:
        return int(options.run(options))
    codes: list[int] = []
    documents: dict[str, object] = {}
    for name in names:
        options.account = name
        as_json = getattr(options, "json", False)
        if not as_json:
            print(f"== {name}", flush=True)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed) if as_json else contextlib.nullcontext():
                codes.append(int(options.run(options)))
        except VendorAssetsError as error:
            # What is wrong with one account hides nothing of the others.
            print(f"vendor-assets: account {name}: {error}", file=sys.stderr)
            codes.append(_code_of(error))
            documents |= {str(name): {"problem": str(error)}} if as_json else {}
            continue
        if as_json:
            documents[str(name)] = json.loads(printed.getvalue())
    if documents:
        print(json.dumps(documents, indent=1))
    return max(codes)


def _code_of(error: VendorAssetsError) -> int:
    return WRONG_USE if isinstance(error, ConfigurationError) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vendor-assets", description="Harvest a rate-limited vendor API into partitioned Parquet."
    )
    parser.add_argument("--version", action="version", version=f"vendor-assets {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for module in (
        harvest,
        compare,
        instance,
        plan,
        watch,
        why,
        letters,
        configuration,
        store,
        vendor,
        embedded,
        completion,
    ):
        module.add(commands)
    _describe(commands)
    for command in commands.choices.values():
        _add_account(command)
    return parser


def _describe(commands: Any) -> None:
    """Begin the help of each command, and of each action of one, with what the list of commands says of it."""
    for listed in commands._choices_actions:  # noqa: SLF001 - argparse keeps a command's help nowhere else
        parser = commands.choices[listed.dest]
        parser.description = parser.description or f"{listed.help[0].upper()}{listed.help[1:]}."
        for action in parser._actions:  # noqa: SLF001 - argparse has no public access to subparsers
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                _describe(action)


def _add_account(parser: argparse.ArgumentParser, *, default: object = None) -> None:
    """Add ``--account`` to a command and each of its actions."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public access to subparsers
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                _add_account(each, default=argparse.SUPPRESS)
    parser.add_argument(
        "--account", default=default, metavar="NAME", help="which account, where there are several"
    )
