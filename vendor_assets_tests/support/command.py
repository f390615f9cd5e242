"""Runs the command ``vendor-assets`` as its own process, as a user would, in a folder of its own.

The processes are forked from one that has already imported Dagster and the libraries for tables: imports are more
than half of what a small harvest costs. Starting from nothing is covered by other tests.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
_IMPORTED = [
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich.progress",
    "upath",
    "vendor_assets.cli",
    "vendor_assets.orchestration.definitions",
    "vendor_assets.orchestration.runs.launching",
    "vendor_assets.simulator.command",
    # Dagster imports these where it opens an instance or executes a run.
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
]


@dataclass
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed as JSON."""
        document: dict[str, Any] = json.loads(self.out)
        return document


@dataclass
class Command:
    """The command in a project folder, with nothing in its environment but what is given.

    A day counts as settled when it ends, so that what a test sees does not depend on the time of day.

    Attributes:
        folder: Working directory; the project's root.
        environ: Settings by name.
        fixed: Settings that hold for every test.
    """

    folder: Path
    environ: Mapping[str, str]
    fixed: Mapping[str, str] = field(default_factory=lambda: {"VENDOR_ASSETS_SETTLING": "0"})

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        ours = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return kept | ours | dict(self.fixed) | dict(self.environ)

    def start(self, *arguments: str) -> Running:
        """Start it and return at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ".dagster").exists() and "DAGSTER_HOME" not in self.environ:
            shutil.copytree(_new_instance(), self.folder / ".dagster")
        return Running(self.folder, self._environment(), ["vendor-assets", *arguments])

    def run(self, *arguments: str) -> Finished:
        """Run it to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode is not None
        return Finished(process.returncode, out, err)


class Running:
    """A command that runs, with the part of :class:`subprocess.Popen` that tests use.

    Args:
        folder: Working directory.
        environ: The whole environment.
        arguments: The command's name, then its arguments.
        entry_point: The function that it runs: module and name.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        arguments: Sequence[str],
        entry_point: tuple[str, str] = ("vendor_assets.__main__", "main"),
    ) -> None:
        self.args = list(arguments)
        with tempfile.NamedTemporaryFile(prefix="out-", delete=False) as out:
            self._out = Path(out.name)
        with tempfile.NamedTemporaryFile(prefix="err-", delete=False) as err:
            self._err = Path(err.name)
        values = (str(folder), dict(environ), self.args, entry_point, out.name, err.name)
        self._process: ForkServerProcess = _fork_server().Process(target=_be_the_command, args=values)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; the negative signal that killed it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """How it ended, if it has."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It runs on.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, *self.said())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and read what it wrote."""
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[str, str]:
        """What it has written so far, on its output and for errors."""
        return self._out.read_text(), self._err.read_text()

    def __del__(self) -> None:
        self._out.unlink(missing_ok=True)
        self._err.unlink(missing_ok=True)


@cache
def _fork_server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_IMPORTED])
    return context


@cache
def _new_instance() -> Path:
    """A folder with an instance of Dagster's in which nothing has happened; made once, as it takes a second."""
    from vendor_assets.orchestration.runs.launching import open_instance

    folder = Path(tempfile.mkdtemp(prefix="instance-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open_instance(folder, {}):
        pass
    return folder / ".dagster"


def _be_the_command(
    folder: str,
    environ: dict[str, str],
    arguments: list[str],
    entry_point: tuple[str, str],
    out: str,
    err: str,
) -> NoReturn:
    """Be a process that a shell has just started."""
    # What was imported before the fork stays: searching it for garbage would copy its pages, again and again.
    gc.freeze()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for name, number in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(name, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  as at the start of a process
    sys.argv = arguments
    sys.path[:0] = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path not in sys.path]
    module, name = entry_point
    main = getattr(importlib.import_module(module), name)
    try:
        code = main()
    finally:
        atexit._run_exitfuncs()
    sys.exit(code)
