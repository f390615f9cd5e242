"""Ctrl-C in any command at any moment: one line, no traceback, and the exit code that a shell gives it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from vendor_assets.__main__ import main
from vendor_assets.cli.embedded import _Started
from vendor_assets_tests.support.command import ROOT, Running
from vendor_assets_tests.support.dagster_dev import of_session
from vendor_assets_tests.support.programs import free_port
from vendor_assets_tests.support.simulator import simulator

LINE: Final = "vendor-assets: stopped; the next run goes on where this one ended\n"
WAITING: Final = "stopping: waits for the calls in flight, for at most 30 s; Ctrl-C again ends at once\n"
ENVIRON: Final = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT)}
ARGUMENTS: Final = {
    "harvest": [],
    "compare": ["--with", "nerdgraph", "--with-account", "1"],
    "backfill": [],
    "sync": [],
    "plan": [],
    "status": [],
    "doctor": [],
    "budget": [],
    "why": [],
    "dead-letters": ["list"],
    "init": ["folder"],
    "config": [],
    "completion": ["bash"],
    "store": ["move", "--from", "new_relic/1"],
    "vendor": ["check", "new_relic"],
    "demo": [],
}
"""Every command but those that run until Ctrl-C, with what it needs."""
_WORK: Final = ("open", "os.mkdir", "os.scandir", "sqlite3.connect", "socket.connect", "subprocess.Popen")


def command(folder: Path, environ: dict[str, str], *arguments: str, entry: str = "") -> Running:
    """The command, forked from a process that has imported most of it."""
    where = (__name__, entry) if entry else ("vendor_assets.__main__", "main")
    return Running(folder, ENVIRON | environ, ["vendor-assets", *arguments], where)


def interrupted() -> int:
    """The command, and Ctrl-C for its whole process group as soon as it touches anything outside of itself."""
    os.setsid()
    sent: list[str] = []

    def watch(event: str, _arguments: object) -> None:
        if event in _WORK and not sent:
            sent.append(event)
            os.killpg(0, signal.SIGINT)

    sys.addaudithook(watch)
    return main()


def test_every_command_is_tried(tmp_path: Path) -> None:
    """As the help lists them."""
    out, _ = command(tmp_path, {}, "--help").communicate(60)
    assert {*re.findall(r"^    ([a-z-]+)", out, re.MULTILINE)} - {"command"} == {
        *ARGUMENTS,
        "dev",
        "simulator",
    }


@pytest.mark.parametrize("name", ARGUMENTS)
def test_while_it_works(tmp_path: Path, name: str) -> None:
    """When it reads or makes its first file, folder, database, connection or process."""
    ours = {} if name == "demo" else {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k"}
    running = command(tmp_path, ours, name, *ARGUMENTS[name], entry="interrupted")
    _, err = running.communicate(60)
    assert (running.returncode, err) == (130, LINE)


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask until it is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Whoever is asked and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def hang_up(server: socket.socket) -> None:
    """Accept connections and close them, until the server is shut down."""
    with suppress(OSError):
        while True:
            server.accept()[0].close()


@pytest.mark.parametrize(
    "arguments",
    [["harvest"], ["doctor"], ["vendor", "record", "cases"], ["backfill", "--url"], ["status", "--url"]],
)
def test_while_it_waits(tmp_path: Path, silent: socket.socket, arguments: list[str]) -> None:
    """For an answer of the vendor, or of Dagster; a harvest ends when what is in flight has."""
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    asked = [url] if arguments[-1] == "--url" else []
    running = command(tmp_path, {"VENDOR_URL": url, "VENDOR_API_KEY": "k"}, *arguments, *asked)
    with silent.accept()[0]:
        running.send_signal(signal.SIGINT)
        wait_until(lambda: arguments != ["harvest"] or WAITING in running.said()[1])
    # Whoever asks again is told the same.
    hanging_up = threading.Thread(target=hang_up, args=[silent])
    hanging_up.start()
    _, err = running.communicate(60)
    silent.shutdown(socket.SHUT_RDWR)
    hanging_up.join()
    assert (running.returncode, err) == (130, (WAITING if arguments == ["harvest"] else "") + LINE)


def test_a_second_one_ends_at_once_what_waits_for_a_vendor_that_hangs(tmp_path: Path) -> None:
    """What had been answered has landed: the next run asks for the call that hung, and for nothing else again."""
    with simulator(world="small", churn=False, fault=["hang:match=metrics/data;skip=2;count=1"]) as vendor:
        environ = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": vendor.key, "VENDOR_RATE": "1000/s"}
        running = command(tmp_path, environ, "harvest", "--no-report")
        wait_until(lambda: vendor.log()["in_flight"] == 1 and vendor.calls("data") == 5)
        running.send_signal(signal.SIGINT)
        wait_until(lambda: WAITING in running.said()[1])
        while running.returncode is None:
            running.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert (running.returncode, running.said()[1]) == (130, WAITING + LINE)
        assert command(tmp_path, environ, "harvest", "--no-report").wait(120) == 0
        assert vendor.log()["by_endpoint"]["data"] == {"200": 6, "abandoned": 1}
        assert vendor.log()["repeated"]["total"] == 0


@pytest.mark.parametrize(
    ("module", "arguments", "code", "said"),
    [
        ("vendor_assets.cli", ["--help"], 130, LINE),
        ("vendor_assets.settings", ["config"], 130, LINE),
        ("dagster", ["doctor"], 130, LINE),
        ("vendor_assets.simulator.command", ["simulator"], 0, ""),
    ],
)
def test_while_it_imports(tmp_path: Path, module: str, arguments: list[str], code: int, said: str) -> None:
    """From its first module on."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        f"ours = lambda event, told: event == 'import' and told[0] == {module!r}\n"
        "sys.addaudithook(lambda *event: os.kill(os.getpid(), signal.SIGINT) if ours(*event) else None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "vendor_assets", *arguments],
        cwd=tmp_path,
        env=ENVIRON | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, said)


def test_dev_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Ctrl-C is how it is ended: nothing more is said, and no process stays, though all have just been started."""
    ports = ["--port", str(free_port()), "--vendor-port", str(free_port())]
    process = subprocess.Popen(
        [sys.executable, "-m", "vendor_assets", "dev", *ports],
        cwd=tmp_path,
        env=ENVIRON,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert "starting the UI on" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(r"(Vendor simulator on .*\n)?", out)
    # Code servers end by themselves, which takes them a moment more.
    deadline = time.monotonic() + 60
    while left := of_session(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_what_does_not_hear_an_interrupt_is_ended_with_all_that_it_started() -> None:
    """One that comes within an import may get lost: a server and a daemon that came after it stayed."""
    reading, writing = os.pipe()
    deaf = "import os, signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child = f"{deaf}os.write({writing}, b'r'); signal.pause()"
    parent = f"{deaf}subprocess.Popen([sys.executable, '-c', {child!r}], close_fds=False).wait()"
    started = _Started(["-c", parent], ROOT, lambda: True, keeps=(writing,))
    os.close(writing)
    assert os.read(reading, 1) == b"r"
    started.tell(signal.SIGINT)
    started.wait(0.1)
    # Nobody holds it any more.
    assert os.read(reading, 1) == b""
    os.close(reading)
    assert started.process.stdout
    started.process.stdout.close()
