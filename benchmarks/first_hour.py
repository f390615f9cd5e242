"""The first hour of somebody who has Python, from nothing to an own vendor, on two ways: a checkout and a wheel.

    python -m benchmarks.first_hour

Writes ``benchmarks/results/first_hour.md``: each command as it is typed, and how long it took. Every way begins in an
empty folder with an empty home, no cache and no environment but where programs and packages come from. What is clicked
in the UI is asked of the UI's own interface. Takes some four minutes, most of them for installing, and the ports 3000
and 8731.
Wanted: no command fails, the vendor counts no 429, and a checkout has its first report in five minutes.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from vendor_assets_tests.support.dagster_dev import DagsterDev, of_session
from vendor_assets_tests.support.simulator import simulator

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "first_hour.md"
WANTED_SECONDS: Final = 300.0
UI: Final = "http://127.0.0.1:3000"
_FROM_OUTSIDE: Final = re.compile(r"(PIP|UV)_.*|SSL_CERT_FILE|(?i:https?|all|no)_proxy", re.ASCII)
_LOADED: Final = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"


class Step(NamedTuple):
    """One thing that a newcomer does: what is typed or clicked, the seconds, and what is to be seen then."""

    typed: str
    seconds: float
    seen: str


class Newcomer:
    """Somebody in an empty folder, who notes what is done.

    Args:
        folder: The folder, which is the home, too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: text for name, text in os.environ.items() if _FROM_OUTSIDE.fullmatch(name)}
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"} | kept
        self.steps: list[Step] = []

    @property
    def seconds(self) -> float:
        """All of it, without the time to read."""
        return sum(step.seconds for step in self.steps)

    def type(self, command: str, seen: str = "", *, real: str = "", **environ: str) -> str:
        """Type a command; returns what it printed.

        Args:
            seen: What to note of the output, as a pattern; the first group is noted.
            real: What is run in place of what is noted.

        Raises:
            SystemExit: It failed, or what is to be seen is not there.
        """
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-ec", real or command],
            cwd=self.folder,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        took = time.monotonic() - began
        found = re.search(seen, done.stdout, re.MULTILINE)
        print(f"{took:6.1f} s  {command}", flush=True)
        if done.returncode or not found:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}")
        self.steps.append(Step(f"`{command}`", took, found[1] if found.groups() else ""))
        return done.stdout

    @contextmanager
    def serving(self, command: str) -> Iterator[DagsterDev]:
        """Type a command that serves the UI until Ctrl-C, and wait until the UI shows the assets."""
        began, log = time.monotonic(), self.folder / "dev.log"
        with log.open("w") as sink:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=self.folder / "vendor_assets",
                env=self.environ,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        dev = DagsterDev(UI, self.folder, log, self.environ, process.pid)

        def loaded() -> bool:
            if process.poll() is not None:
                sys.exit(f"{command}: exit {process.returncode}\n{log.read_text()}")
            with suppress(OSError, RuntimeError):
                return bool(dev.graphql(_LOADED)["repositoriesOrError"].get("nodes"))
            return False

        try:
            dev.wait("the UI shows the assets", loaded)
            self.note(f"`{command}`", began, "the UI shows the assets")
            yield dev
            began = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
            self.note("Ctrl-C", began, f"{len(of_session(process.pid))} processes are left")
        finally:
            for pid in of_session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def note(self, what: str, began: float, seen: str) -> None:
        """Note something else that was done."""
        self.steps.append(Step(what, time.monotonic() - began, seen))
        print(f"{self.steps[-1].seconds:6.1f} s  {what}", flush=True)


def checkout(folder: Path) -> Newcomer:
    """A clone, the demo, the UI, and one click in it."""
    one = Newcomer(folder)
    one.type("git clone <this repository> vendor_assets", real=f"git clone -q {ROOT} vendor_assets")
    one.type("make demo", r"^(the vendor counted .*)$", real="make -C vendor_assets demo")
    day = (datetime.now(UTC).date() - timedelta(days=8)).isoformat()
    with one.serving("make dev") as dev:
        began = time.monotonic()
        dev.launch("roster", {}, {"dagster/partition": day})
        dev.wait_for("performance_report", {day: "green"}, seconds=300)
        one.note(
            f"a click: materialize `troops` of {day}", began, "the sensors followed, down to the day's report"
        )
    return one


def wheel(folder: Path, built: Path) -> Newcomer:
    """A wheel, the demo, and a project for a vendor of one's own, which is the embedded one at another address."""
    one = Newcomer(folder)
    one.type("python3 -m venv env")
    one.type(f"env/bin/pip install {built.name}", real=f"env/bin/pip install -q {built}")
    one.type("mkdir trial && cd trial && ../env/bin/vendor-assets demo", r"^(the vendor counted .*)$")
    one.type("env/bin/vendor-assets init lake")
    with simulator(world="demo", limit="1000/min", stable_days=365) as vendor:
        settings = {"VENDOR_KIND": "new_relic", "VENDOR_URL": vendor.url, "VENDOR_API_KEY": vendor.key}
        lines = "".join(f"{name}={text}\n" for name, text in settings.items())
        began = time.monotonic()
        (folder / "lake" / "vendor_assets.env").write_text(lines)
        one.note(
            "write `VENDOR_KIND`, `VENDOR_URL` and `VENDOR_API_KEY` into `lake/vendor_assets.env`", began, ""
        )
        one.type("cd lake && ../env/bin/vendor-assets doctor", r"^well +vendor +(.*accepts the key)")
        one.type(
            "cd lake && ../env/bin/vendor-assets harvest --troop payments/api",
            r"^(.* rows in .* complete.*)$",
        )
        one.type("cd lake && ../env/bin/vendor-assets plan --day -7d..", r"^(.* calls to come.*)$")
        one.type("cd lake && ../env/bin/vendor-assets harvest", r"^(.* rows in .* complete.*)$")
        if vendor.log()["violations"]:
            sys.exit("the vendor counted calls over its limit")
    return one


def main() -> None:
    """Take both ways, and write down what was done."""
    with tempfile.TemporaryDirectory() as scratch:
        places = {name: Path(scratch) / name for name in ("dist", "checkout", "wheel")}
        for place in places.values():
            place.mkdir()
        pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(places["dist"]), str(ROOT)]
        subprocess.run(pip, check=True)
        (built,) = places["dist"].iterdir()
        ways = {
            "A checkout, on a machine with Python, git and make": checkout(places["checkout"]),
            "A wheel, on a machine with Python": wheel(places["wheel"], built),
        }
    first = sum(step.seconds for step in ways["A checkout, on a machine with Python, git and make"].steps[:2])
    lines = [
        "# The first hour",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, "
            f"load {os.getloadavg()[2]:.1f}; `python -m benchmarks.first_hour`"
        ),
        "",
        "Each way began in an empty folder with an empty home; packages came from where pip is told to look.",
        "",
    ]
    for name, one in ways.items():
        lines += [f"## {name}", "", "| typed or clicked | seconds | seen |", "|---|---:|---|"]
        lines += [
            f"| {step.typed} | {step.seconds:.1f} | {step.seen.replace('|', ' ')} |" for step in one.steps
        ]
        lines += [f"| all of it | {one.seconds:.0f} | |", ""]
    lines += [f"From a clone to the first reports: {first:.0f} s, wanted {WANTED_SECONDS:.0f} s.", ""]
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    print(f"wrote {RESULTS.relative_to(ROOT)}")
    sys.exit(first > WANTED_SECONDS)


if __name__ == "__main__":
    main()
