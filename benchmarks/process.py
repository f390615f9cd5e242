"""What a process of its own takes, as the kernel counts it, its children included; and where that was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Took:
    """What a process took.

    Attributes:
        mb: Its largest resident set.
        said: What it wrote on both outputs.
    """

    code: int
    seconds: float
    cpu_seconds: float
    mb: float
    said: str

    def well(self) -> Took:
        """The same, or the end of this process where it did not end well."""
        if self.code:
            sys.exit(self.said)
        return self


def run(arguments: Sequence[str], folder: str, settings: Mapping[str, str]) -> Took:
    """Run Python with some arguments in a folder, with nothing in its environment but settings and what it needs."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = {**kept, "PYTHONPATH": str(Path(__file__).parents[1]), **settings}
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    return Took(process.returncode, seconds, cpu, usage.ru_maxrss * 1024 / 1e6, text)


def command(folder: str, settings: Mapping[str, str], *arguments: str) -> Took:
    """Run ``vendor-assets`` so."""
    return run(["-m", "vendor_assets", *arguments], folder, settings)


def measured_by(words: str) -> str:
    """When and where something was measured, and by which command: what follows ``python -m benchmarks.``."""
    where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {where}; `python -m benchmarks.{words}`"
