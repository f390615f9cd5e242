"""Attacks come in two lengths: short in ``make test``, all of them with ``--long`` in ``make attack``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vendor_assets_tests.support.secrets import SECRET
from vendor_assets_tests.support.simulator import RunningSimulator, simulator
from vendor_assets_tests.support.trial import Trial

Note = Callable[..., None]
_HEAD = """# What the attacks found

Written by `make attack`; it tells what was done, what the other side's log and the store said, and whether it held.
*Calls made twice* counts calls that the vendor had answered in full before, by the vendor's own log; *bound* is what
is allowed: what the vendor answered in the five seconds before each `kill -9`, and none otherwise. *Rows* are those
harvested after the attack had ended and the harvest had run again, against the rows of the seeded world.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long`` and ``--results``."""
    parser.addoption("--long", action="store_true", help="every attack, at full length")
    parser.addoption("--results", type=Path, help="write a table of what the attacks found there")


def pytest_configure(config: pytest.Config) -> None:
    """The table of results, where one is wanted."""
    path: Path | None = config.getoption("--results", default=None)
    # Of several processes the one that hears of all tests writes.
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(path))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is too long for ``make test``; hangs are given up later, as an attack waits a good deal."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))
            item.add_marker(pytest.mark.attack)
    if not config.getoption("--long", default=False):
        left = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the attack runs at full length."""
    return bool(request.config.getoption("--long", default=False))


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Puts a line into the table of results; the verdict is the test's."""

    def put(
        attack: str, done: str, *, twice: int | None = None, bound: int | None = None, rows: str = ""
    ) -> None:
        line = {"attack": attack, "done": done, "twice": twice, "bound": bound, "rows": rows}
        request.node.user_properties.append(("attack", line))

    return put


@pytest.fixture
def vendor(request: pytest.FixtureRequest) -> Iterator[RunningSimulator]:
    """A vendor that wants its key; the flags are the parameter's."""
    flags = {"world": "small", "churn": False} | getattr(request, "param", {})
    with simulator(api_key=SECRET, **flags) as running:
        yield running


@pytest.fixture
def trial(
    tmp_path: Path,
    vendor: RunningSimulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Trial]:
    """A deployment against that vendor."""
    monkeypatch.setenv("VENDOR_API_KEY", SECRET)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Trial.deploy(tmp_path, instance, vendor, caplog)


# The table of results


class Table:
    """Lines that tests noted, with their verdicts; written anew after each, so that an end in between loses none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = datetime.now(UTC)
        self._lines: list[list[str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the lines of a test that is over."""
        if report.when != "call" and (report.when != "setup" or report.outcome == "passed"):
            return
        verdict = {"passed": "holds", "failed": "BROKEN", "skipped": "skipped"}[report.outcome]
        noted: list[dict[str, Any]] = [
            dict(line) for name, line in report.user_properties if name == "attack"
        ]
        if not noted and report.outcome != "passed":
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else "see the test's output"
            noted = [{"attack": report.nodeid.rpartition("::")[2], "done": why}]
        for line in noted:
            calls = "–" if line.get("twice") is None else f"{line['twice']} / {line.get('bound') or 0}"
            self._lines.append([line["attack"], line["done"], calls, line.get("rows") or "–", verdict])
        self._path.write_text(self._text())

    def _text(self) -> str:
        now = datetime.now(UTC)
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        minutes = (now - self._started).total_seconds() / 60
        rows = [
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n"
            for line in self._lines
        ]
        return (
            f"{_HEAD}{now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, {system}, {minutes:.0f} minutes, "
            "`make attack`.\n\n| attack | what was done | calls made twice / bound | rows | verdict |\n"
            "|---|---|---|---|---|\n"
        ) + "".join(rows)
