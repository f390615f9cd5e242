"""``completion``: what a shell needs to complete this command, and the names that are completed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vendor_assets.cli.project import COMPLETE, open_accounts
from vendor_assets.cli.why import SUPPOSED
from vendor_assets.days import last_complete_day
from vendor_assets.errors import VendorAssetsError

_DAYS: Final = 7
"""Days that are offered."""


def add(commands: Any) -> None:
    """Add the command."""
    completion = commands.add_parser(
        "completion",
        help="print the completion script for a shell",
        epilog='bash and zsh: eval "$(vendor-assets completion bash)" in ~/.bashrc, or with zsh in ~/.zshrc; '
        "fish: vendor-assets completion fish > ~/.config/fish/completions/vendor-assets.fish",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_completion)


def _completion(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode(["vendor-assets"], shell=options.shell))
    return COMPLETE


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell that asks for completions, and end the process."""
    from argcomplete import autocomplete

    for action in _actions(parser):
        completer = _COMPLETERS.get(action.dest)
        if completer is not None and action.choices is None:
            action.completer = completer  # type: ignore[attr-defined]
    autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The actions of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public access to them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                yield from _actions(each)


def _accounts(**_: object) -> list[str]:
    try:
        return [account.name for account in open_accounts()[1] if account.name]
    except VendorAssetsError:
        return []


def _days(**_: object) -> list[str]:
    try:
        newest = last_complete_day(datetime.now(UTC), open_accounts()[1][0].zone)
    except VendorAssetsError:
        return ["yesterday"]
    return ["yesterday", *(str(newest - timedelta(days=ago)) for ago in range(_DAYS))]


def _kinds(**_: object) -> list[str]:
    from vendor_assets.vendors import kinds

    return list(kinds())


def _settings(**_: object) -> list[str]:
    return [f"{name}=" for name in SUPPOSED]


_COMPLETERS: Final = {
    "account": _accounts,
    "day": _days,
    "first": _days,
    "last": _days,
    "kind": _kinds,
    "vendor": _kinds,
    "what_if": _settings,
}
"""By the name under which an option's value is kept."""
