"""``demo``, ``dev`` and ``simulator``: try everything with the embedded vendor."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from vendor_assets.cli.harvest import harvest_days, print_summary
from vendor_assets.cli.progress import terminable
from vendor_assets.cli.project import (
    COMPLETE,
    EMBEDDED_VENDOR,
    FAILED,
    answers,
    local_opener,
    open_accounts,
    open_project,
    simulator_process,
)
from vendor_assets.days import days_between, last_complete_day
from vendor_assets.errors import ConfigurationError
from vendor_assets.presentable import counted

if TYPE_CHECKING:
    from vendor_assets.account import Account


def add(commands: Any) -> None:
    """Add the commands."""
    demo = commands.add_parser(
        "demo", help="harvest the embedded vendor's last days into a folder and show the result"
    )
    demo.add_argument("--days", type=int, default=3, help="how many days (default 3)")
    demo.set_defaults(run=_demo)

    dev = commands.add_parser("dev", help="start the embedded vendor and the UI, until Ctrl-C")
    dev.add_argument("--port", type=int, default=3000, help="the UI's port (default 3000)")
    dev.add_argument(
        "--vendor-port",
        type=int,
        default=None,
        help="the embedded vendor's port (default 8731)",
        metavar="PORT",
    )
    dev.set_defaults(run=_dev)

    commands.add_parser(
        "simulator", help="the embedded vendor, a separate program (see: vendor-assets simulator --help)"
    )


def _demo(options: argparse.Namespace) -> int:
    from vendor_assets.settings import SIMULATOR_API_KEY, read

    if options.days < 1 or options.days > 7:
        raise ConfigurationError(f"--days {options.days} is not accepted; give 1 to 7")
    project = open_project(options.account)
    if not project.account.embedded:
        raise ConfigurationError(
            f"demo harvests the embedded vendor, but {project.account.source} is configured here, and both would show "
            "in one UI; run it in another folder, without vendor_assets.env and VENDOR_… variables"
        )
    # The demo ignores all other settings, so that it is the same for everybody.
    account = read({}, root=project.root)
    newest = last_complete_day(datetime.now(UTC), account.zone)
    days = days_between(newest - timedelta(days=options.days - 1), newest, account.zone)
    started = time.monotonic()
    print("starting the embedded vendor: 1,000 calls a minute allowed, then 429", flush=True)
    with simulator_process(SIMULATOR_API_KEY) as url:
        reachable = replace(project, account=replace(account, vendor_url=url))
        summary = harvest_days(reachable, days, [], out=sys.stdout)
        with local_opener(url).open(f"{url}/_control/log", timeout=10) as answer:
            log = json.load(answer)
    code = print_summary(summary)
    print(
        f"the vendor counted {counted(log.get('requests', 0), 'call')}, "
        f"{log.get('violations', 0)} over its limit (429), at most {log.get('peak_in_flight', 0)} at once"
    )
    print(f"tables:  {account.store_url}/processed/  (Parquet; read them with DuckDB, pandas, Spark, Athena)")
    print(f"took {time.monotonic() - started:.0f} s")
    print("next:    vendor-assets dev (in a checkout: make dev)  opens the UI on http://127.0.0.1:3000")
    print("         vendor-assets init FOLDER                    a project for your own vendor")
    return code


def _dev(options: argparse.Namespace) -> int:
    from vendor_assets.settings import SIMULATOR_PORT_NAME

    if options.vendor_port is not None:
        if options.vendor_port == options.port:
            raise ConfigurationError(f"--port and --vendor-port are both {options.port}; give two ports")
        os.environ[SIMULATOR_PORT_NAME] = str(options.vendor_port)
    root, accounts = open_accounts()
    account = accounts[0]
    if options.vendor_port is not None and not account.embedded:
        raise ConfigurationError(
            f"--vendor-port is for the embedded vendor, and {account.source} is configured here"
        )
    _check_port(options.port, "give another one with --port, or end what listens there")
    starts_vendor = account.embedded and not answers(account.vendor_url)
    vendor_port = urlsplit(account.vendor_url).port or 0
    if starts_vendor:
        _check_port(vendor_port, "give the embedded vendor another one with --vendor-port")
    with _alone(root) as lock:
        return _serve(root, account, options.port, vendor_port if starts_vendor else None, lock)


@contextmanager
def _alone(root: Path) -> Iterator[int]:
    """Be the only one that starts a daemon for this folder's instance: two would launch every run twice.

    Yields:
        A file descriptor that keeps it so as long as a process has it, for a daemon that outlives us.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or root / ".dagster")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "dev.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another vendor-assets dev works with {home}; end it, or start this one in another folder"
            ) from error
        yield lock.fileno()


def _serve(root: Path, account: Account, port: int, vendor_port: int | None, lock: int) -> int:
    """Run Dagster, and the embedded vendor if it has a port, until one of them ends or Ctrl-C."""
    started: list[_Started] = []
    with terminable() as stopped:
        try:
            if vendor_port is not None:
                simulator = [*EMBEDDED_VENDOR, "--port", str(vendor_port)]
                simulator += ["--parent-pid", str(os.getpid()), "--api-key", account.api_key]
                started.append(_Started(simulator, root, stopped))
            # A project's workspace.yaml may have further code locations.
            where = [] if (root / "workspace.yaml").is_file() else ["-m", "vendor_assets.definitions"]
            serve = ["-m", "dagster", "dev", *where, "-h", "127.0.0.1", "-p", str(port)]
            # Its successor, dg dev, requires a project with dg's own layout.
            serve = ["-W", "ignore:Function `dev_command` is superseded", *serve, "--log-level", "warning"]
            started.append(_Started(serve, root, stopped, keeps=(lock,)))
            everything = "it and the embedded vendor" if vendor_port is not None else "it"
            print(f"starting the UI on http://127.0.0.1:{port}; Ctrl-C ends {everything}", flush=True)
            ready = False
            while all(each.process.poll() is None for each in started):
                if not ready and (ready := _listens(port)):
                    print(f"the UI is ready: http://127.0.0.1:{port}", flush=True)
                time.sleep(0.5)
            return FAILED
        except KeyboardInterrupt:
            return COMPLETE
        finally:
            _end(started)


def _check_port(port: int, todo: str) -> None:
    """Refuse a port that cannot be listened on, before anything is started."""
    if not 1 <= port <= 65_535:
        raise ConfigurationError(f"port {port} is not accepted; give 1 to 65535")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(f"port {port} cannot be used ({error.strerror}); {todo}") from error


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class _Started:
    """A program that was started; what it says is shown, but not how it takes being ended.

    Args:
        command: Python's arguments.
        root: Its working directory.
        stopped: Whether we are ending it.
        keeps: File descriptors that it gets.
    """

    def __init__(
        self, command: Sequence[str], root: Path, stopped: Callable[[], bool], keeps: Sequence[int] = ()
    ) -> None:
        # Ctrl-C goes to a whole process group; this one's is told once, by us, and after us.
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=root,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            pass_fds=keeps,
        )
        self._stopped = stopped
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if not self._stopped():
                # As it comes, with its colours.
                os.write(1, line)

    def tell(self, number: int) -> None:
        """Send a signal to it and to all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, seconds: float = 30.0) -> None:
        """Wait for its end; end it and all that it has started the hard way after a while."""
        for harder in (signal.SIGTERM, signal.SIGKILL):
            try:
                self.process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                # An interrupt that comes within an import may get lost, and what it started after that heard nothing.
                self.tell(harder)
        self.process.wait()
        # What it started may outlive it and hold the pipe.
        self._reader.join(1)


def _end(started: Sequence[_Started]) -> None:
    for each in reversed(started):
        # Runs that it launched, too: they land what is in flight.
        each.tell(signal.SIGINT)
    for each in started:
        each.wait()


def run_simulator(arguments: list[str]) -> NoReturn:
    """Replace this process with the embedded vendor, which shares no code with us."""
    os.execv(sys.executable, [sys.executable, "-m", "vendor_assets.simulator", *arguments])
