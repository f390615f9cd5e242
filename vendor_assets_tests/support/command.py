"""Runs the command ``vendor-assets`` as its own process, as a user would, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


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
    """

    folder: Path
    environ: Mapping[str, str]

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        fixed = {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "VENDOR_ASSETS_SETTLING": "0",
        }
        return kept | fixed | dict(self.environ)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it and return at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "vendor_assets", *arguments],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Finished:
        """Run it to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        return Finished(process.returncode, out, err)
