"""docs/tutorial.md, run as it stands: each block in its order, with what the page says of it.

Only the dates are moved, as the page asks for, and the vendor listens on a free port. What is clicked in the UI is done
without one, by the command or by a run of the same asset; the clicks themselves are in ``e2e/test_ui.py``.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
import pytest
import yaml

from vendor_assets.cli.project import COMPLETE, PARTIAL
from vendor_assets.orchestration.runs.launching import open_instance
from vendor_assets.settings import SIMULATOR_API_KEY, SIMULATOR_PORT_NAME, SIMULATOR_URL
from vendor_assets_tests.support.command import ROOT, Running
from vendor_assets_tests.support.dagster_dev import project
from vendor_assets_tests.support.programs import require
from vendor_assets_tests.support.simulator import RunningSimulator, simulator

PAGE: Final = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
DEMO: Final = ("2026-11-20", "2026-11-21", "2026-11-22")
"""The demo's days on the page."""
LATER: Final = datetime.now(UTC).date() - timedelta(days=1) - date.fromisoformat(DEMO[-1])


def moved(text: str) -> str:
    """A text of the page with its dates moved to the demo's days as they are today."""
    return re.sub(
        r"\b2026-\d\d-\d\d\b", lambda found: (date.fromisoformat(found[0]) + LATER).isoformat(), text
    )


class Reader:
    """Somebody who does what the page says, from its beginning to its end."""

    def __init__(self, folder: Path, vendor: RunningSimulator) -> None:
        self.folder = folder
        self.environ = project(folder, {SIMULATOR_PORT_NAME: str(vendor.port)})
        shutil.copy(ROOT / "vendor_assets.env.example", folder)
        (folder / ".venv").symlink_to(sys.prefix)
        self.vendor = vendor
        self._blocks = re.findall(r"```(\w+)\n(.*?)```\n", PAGE, re.DOTALL)

    @property
    def is_done(self) -> bool:
        """Whether nothing of the page is left."""
        return not self._blocks

    def block(self, kind: str) -> str:
        """The page's next block, which is of some kind."""
        found, text = self._blocks.pop(0)
        assert found == kind, text
        return moved(text).replace(SIMULATOR_URL, self.vendor.url)

    def run(self) -> str:
        """Run the next block in a shell; returns what it printed."""
        script = self.block("sh")
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, script + done.stdout + done.stderr
        return done.stdout

    def make(self, target: str) -> list[str]:
        """The next block makes a target; returns what make runs for it once all is installed."""
        assert f"make {target}" in self.block("sh").splitlines()
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        (recipe,) = re.findall(rf"^{target}: .*\n\t@\$\(BIN\)/vendor-assets (.*)\n\n", makefile, re.MULTILINE)
        return str(recipe).split()

    def command(self, *arguments: str) -> str:
        """Run the command; returns what it printed."""
        return self._fork("vendor_assets.__main__", "main", *arguments)

    def harvest(self, day: str) -> dict[str, Any]:
        """What comes of a click on a day of ``troops``: the sensors follow, down to the report."""
        assert f"`{day}`" in PAGE
        found: dict[str, Any] = json.loads(self.command("harvest", "--json", "--day", moved(day)))
        return found

    def click(self, asset: str, *partitions: str) -> list[dict[str, Any]]:
        """What comes of a click on some partitions: the metadata of each."""
        return list(map(json.loads, self._fork(__name__, "click", asset, *partitions).splitlines()))

    def _fork(self, module: str, name: str, *arguments: str) -> str:
        process = Running(self.folder, self.environ, ["vendor-assets", *arguments], (module, name))
        out, err = process.communicate(timeout=240)
        assert process.returncode in (COMPLETE, PARTIAL), err
        return out


def click() -> int:
    """In the project's folder, materialize partitions of an asset that the workspace's one code location defines."""
    _, asset, *partitions = sys.argv
    ((kind, target),) = yaml.safe_load(Path("workspace.yaml").read_text())["load_from"][0].items()
    names = (
        runpy.run_path(target["relative_path"])
        if kind == "python_file"
        else runpy.run_module(target["module_name"])
    )
    # Dagster takes a file with several for a mistake.
    (defs,) = [value for value in names.values() if isinstance(value, dg.Definitions)]
    job = defs.resolve_implicit_global_asset_job_def()
    with open_instance(Path.cwd(), {}) as instance:
        for partition in partitions:
            done = job.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(asset)], partition_key=partition
            )
            (made,) = done.get_asset_materialization_events()
            metadata = made.step_materialization_data.materialization.metadata
            sys.stdout.write(json.dumps({name: str(each.value) for name, each in metadata.items()}) + "\n")
    return COMPLETE


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    require("bash", "curl", packages="bash curl")
    with simulator(world="demo", stable_days=365, api_key=SIMULATOR_API_KEY) as vendor:
        yield Reader(tmp_path / "vendor_assets", vendor)


def test_the_tutorial_works_as_it_stands(reader: Reader) -> None:
    """Every block of it, one after the other, and nothing else in between but what the page says to click."""
    # 1. Harvest something
    said = reader.command(*reader.make("demo"))
    assert all(moved(day) in said for day in DEMO)
    assert " 0 over its limit (429)" in said
    assert all((reader.folder / line.split()[0]).is_dir() for line in reader.block("text").splitlines())
    assert reader.run().count("\n│ 2") == 5
    # 2. Open the UI, 3. One click
    assert reader.make("dev") == ["dev"]
    days = [moved(f"2026-11-{day}") for day in range(10, 15)]
    assert [line.split()[0] for line in reader.run().splitlines()[1:6]] == days
    # 4. See it fail, and fix it
    reader.run()
    failed = reader.harvest("2026-11-14")
    (red,) = re.findall(r"performance_data (\S+): failed", "".join(failed["problems"]))
    assert red == f"{days[-1]}|search-blue.200010000"
    report = reader.folder / f"demo_data/reports/day={days[-1]}/performance_report.html"
    assert "1 of 5 troops missing" in report.read_text(encoding="utf-8")
    assert f"{days[-1]} search (blue) performance_data: {failed['dead_letters']} permanent" in reader.run()
    reader.run()
    (redriven,) = reader.click("performance_data", red)
    assert (redriven["mode"], redriven["calls"]) == ("redrive", str(failed["dead_letters"]))
    # 5. An asset of your own
    (reader.folder / "my_assets.py").write_text(reader.block("python"))
    (reader.folder / "workspace.yaml").write_text(reader.block("yaml"))
    tables = reader.folder / "demo_data/processed"
    troops = [path.name.removeprefix("troop=") for path in tables.glob(f"performance_data/day={days[-1]}/*")]
    slow = reader.click("slow_timeslices", *[f"{moved(day)}|{troop}" for day in DEMO for troop in troops])
    assert {Path(each["path"]).relative_to(tables).parts[0] for each in slow} == {"slow_timeslices"}
    assert reader.run().count("\n│ 2") == sum(each["dagster/row_count"] != "0" for each in slow)
    # 6. Tomorrow
    reader.run()
    with (reader.folder / "vendor_assets.env").open("a") as settings:
        settings.write(f"VENDOR_URL={reader.vendor.url}\nVENDOR_API_KEY={SIMULATOR_API_KEY}\n")
    assert "accepts the key" in reader.run()
    assert reader.is_done
