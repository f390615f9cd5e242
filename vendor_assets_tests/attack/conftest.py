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
    """The marker of attacks that have no short form."""
    config.addinivalue_line("markers", "long: only with --long (make attack)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is too long for ``make test``; at length, hangs are given up later."""
    if not config.getoption("--long"):
        left = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        return
    for item in items:
        item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the attack runs at full length."""
    return bool(request.config.getoption("--long"))


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

_LINES: list[tuple[dict[str, Any], str]] = []
_STARTED = datetime.now(UTC)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take the lines that a test noted, with its verdict."""
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        verdict = {"passed": "holds", "failed": "BROKEN", "skipped": "skipped"}[report.outcome]
        lines = [dict(line) for name, line in report.user_properties if name == "attack"]
        if report.outcome == "skipped":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            lines = [{"attack": report.nodeid.rpartition("::")[2], "done": reason}]
        elif report.outcome == "failed" and not lines:
            lines = [{"attack": report.nodeid.rpartition("::")[2], "done": "see the test's output"}]
        _LINES.extend((line, verdict) for line in lines)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, once, by the process that has all lines."""
    path: Path | None = session.config.getoption("--results")
    if path is None or hasattr(session.config, "workerinput"):
        return
    now = datetime.now(UTC)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    minutes = (now - _STARTED).total_seconds() / 60
    text = _HEAD + f"{now:%Y-%m-%d %H:%M} UTC, {machine}, {minutes:.0f} minutes, `make attack`.\n\n"
    text += "| attack | what was done | calls made twice / bound | rows | verdict |\n|---|---|---|---|---|\n"
    for line, verdict in _LINES:
        calls = "–" if line.get("twice") is None else f"{line['twice']} / {line.get('bound') or 0}"
        cells = [line["attack"], line["done"], calls, line.get("rows") or "–", verdict]
        text += "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"
    path.write_text(text)
