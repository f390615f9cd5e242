"""What commands share: the project and its accounts, options for days, and a running embedded vendor."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from vendor_assets.days import day_window, days_between, last_complete_day, parse_day, parse_days
from vendor_assets.errors import ConfigurationError, VendorAssetsError
from vendor_assets.temporary import temporary_folder
from vendor_assets.work_class import WORK_CLASSES, WorkClass

if TYPE_CHECKING:
    from vendor_assets.account import Account
    from vendor_assets.budget import Budget
    from vendor_assets.storage.objects import ObjectStore

COMPLETE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
PARTIAL: Final = 3

EMBEDDED_VENDOR: Final = ("-m", "vendor_assets.simulator", "--stable-days", "365")
"""Python's arguments for the embedded vendor as a newcomer meets it: what it lists now had values on all days that
one may click on."""


@dataclass(frozen=True)
class Project:
    """A project and the account that a command works for.

    Attributes:
        root: The project's folder, also the working directory.
        environ: The environment, completed by the project's ``vendor_assets.env``.
    """

    root: Path
    environ: dict[str, str]
    account: Account

    def store(self) -> ObjectStore:
        """Open the account's store.

        Raises:
            ConfigurationError: It holds another vendor's data.
            StorageUnavailableError: It cannot be read.
        """
        from vendor_assets.storage.marker import open_marked_store

        store, claim = open_marked_store(self.account.store_url, self.account.source)
        claim.compare()
        return store

    def budget(self) -> Budget:
        """The account's budget; whoever asks for it closes it."""
        from vendor_assets.budget import Budget

        account = self.account
        return Budget(
            account.database_url,
            account.budget_name,
            limits=account.limits,
            share=account.share,
            max_in_flight=account.max_in_flight,
            in_flight_of=account.in_flight_of,
        )


def open_project(account: str | None = None) -> Project:
    """Find the project and read its settings; the environment overrides the project's file.

    Args:
        account: Name of the account; may be None if there is only one.

    Raises:
        ConfigurationError: A setting is wrong, there is no such account, or there are several and none is named.
    """
    from vendor_assets.settings import FILE

    root, accounts = open_accounts()
    names = ", ".join(each.name for each in accounts)
    found = [each for each in accounts if account in (None, each.name)]
    if account is not None and not found:
        known = f"there are {names}" if names else f"accounts are named in {FILE}, which does not exist"
        raise ConfigurationError(f"there is no account {account[:60]!r}; {known}")
    if len(found) > 1:
        raise ConfigurationError(f"there are several accounts; choose one with --account: {names}")
    return Project(root, dict(os.environ), found[0])


def open_accounts() -> tuple[Path, tuple[Account, ...]]:
    """Enter the project's folder and read its accounts.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    from vendor_assets.settings import enter, read_accounts

    root = enter(os.environ)
    try:
        os.chdir(root)
    except OSError as error:
        raise ConfigurationError(f"cannot enter the project's folder {root}: {error.strerror}") from error
    return root, read_accounts(os.environ, root=root)


def add_days(parser: argparse.ArgumentParser) -> None:
    """Add the options for days and troops."""
    parser.add_argument(
        "--day",
        help="a day, or a range of days: 2026-11-20, yesterday, -7d, 2026-11-01..2026-11-07, -7d.. "
        "(default: the last that is over)",
    )
    parser.add_argument("--from", dest="first", help="first day of a range")
    parser.add_argument("--to", dest="last", help="last day of a range (default: the last that is over)")
    parser.add_argument(
        "--troop", action="append", default=[], help="id or name of a troop; may be repeated (default: all)"
    )


def add_class(parser: argparse.ArgumentParser, default: WorkClass) -> None:
    """Add ``--class``."""
    parser.add_argument(
        "--class",
        dest="work_class",
        choices=WORK_CLASSES,
        default=default,
        help=f"which goes first at the budget: scheduled before backfill (default {default})",
    )


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add ``--url``."""
    ours = "http://127.0.0.1:3000"
    parser.add_argument("--url", type=_address, default=ours, help=f"where the UI answers (default {ours})")


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        well = False
    if not well:
        raise argparse.ArgumentTypeError(
            f"{text[:100]!r} is not an address; give one like http://127.0.0.1:3000"
        )
    return text.rstrip("/")


def choose_days(options: argparse.Namespace, account: Account) -> list[date]:
    """The days that a command's options select.

    Raises:
        ConfigurationError: The options contradict each other, or a day does not exist, is not over or is before
            the account's first day.
    """
    newest = last_complete_day(datetime.now(UTC), account.zone)
    if options.day and (options.first or options.last):
        raise ConfigurationError("--day cannot be used with --from or --to; give only one of them")
    if options.last and not options.first:
        raise ConfigurationError("--to needs --from; give the first day too")
    if options.day:
        first, last = parse_days(options.day, newest)
    else:
        first = parse_day(options.first, newest) if options.first else newest
        last = parse_day(options.last, newest) if options.last else newest
    for day in (first, last):
        day_window(day, account.zone)
        if day > newest:
            raise ConfigurationError(
                f"day {day} is not over in {account.zone.key}; the last complete day is {newest}"
            )
        if day < account.start:
            raise ConfigurationError(
                f"day {day} is before the first day {account.start}; "
                f"set {'start' if account.name else 'VENDOR_ASSETS_START'}={day} or an earlier day to include it"
            )
    days = days_between(first, last, account.zone)
    if missing := sorted(set(days_between(first, last)) - set(days)):
        print(f"left out, no such day in {account.zone.key}: {', '.join(map(str, missing))}", file=sys.stderr)
    return days


def choose_day(options: argparse.Namespace, account: Account) -> date:
    """The one day that a command's options select; raises as :func:`choose_days`."""
    if ".." in (options.day or ""):
        raise ConfigurationError(f"--day {options.day!r} is a range; give one day")
    (day,) = choose_days(options, account)
    return day


@contextmanager
def embedded_vendor(account: Account) -> Iterator[Account]:
    """The account with a vendor that runs; the embedded one is started for the block, unless it runs already."""
    if not account.embedded or answers(account.vendor_url):
        yield account
        return
    with simulator_process(account.api_key) as url:
        yield replace(account, vendor_url=url)


def local_opener(url: str) -> urllib.request.OpenerDirector:
    """An opener that uses the environment's proxy, but none for this machine."""
    from vendor_assets.client.network import is_loopback

    try:
        local = is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        local = False
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))


def answers(url: str) -> bool:
    """Whether an embedded vendor runs at a URL."""
    try:
        with local_opener(url).open(f"{url}/_control/log", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


@contextmanager
def simulator_process(api_key: str) -> Iterator[str]:
    """Run the embedded vendor on a free port; yields its URL.

    Raises:
        VendorAssetsError: It did not start.
    """
    with temporary_folder() as folder:
        port_file = folder / "port"
        command = [
            sys.executable, *EMBEDDED_VENDOR, "--port", "0", "--port-file", str(port_file),
            "--parent-pid", str(os.getpid()), "--api-key", api_key,
        ]  # fmt: skip
        # Ctrl-C goes to a whole process group; the vendor is to answer until nothing is in flight.
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
        )
        try:
            deadline = time.monotonic() + 20
            while not port_file.exists() or not port_file.read_text().strip():
                ended = process.poll() is not None
                if ended or time.monotonic() > deadline:
                    said = process.stderr.read().strip() if process.stderr and ended else ""
                    raise VendorAssetsError(
                        f"the embedded vendor did not start: {said or 'no answer in 20 s'}"
                    )
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port_file.read_text().strip()}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
