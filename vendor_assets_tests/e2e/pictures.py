"""Makes the pictures of a failing day, of why, and of the same day mended, for the README and the tutorial.

    python -m vendor_assets_tests.e2e.pictures docs/images

It needs Chromium and the embedded vendor's port, and takes two minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from vendor_assets.settings import SIMULATOR_URL
from vendor_assets_tests.support.browser import DagsterPages, browser, fresh_page
from vendor_assets_tests.support.dagster_dev import DagsterDev, dagster_dev, project

TROOP = "200010000"
_FAULT = {"kind": "status", "status": 400, "match": f"/applications/{TROOP}/hosts/.*data.json"}
_COLOURS = 128


def main(target: Path) -> None:
    """Make the pictures in a folder."""
    day = (datetime.now(UTC).date() - timedelta(days=4)).isoformat()
    with tempfile.TemporaryDirectory() as scratch, browser() as chrome, fresh_page(chrome) as page:
        folder = Path(scratch) / "project"
        environ = project(folder, {})
        demo = [sys.executable, "-m", "vendor_assets", "demo"]
        subprocess.run(demo, cwd=folder, env=environ, check=True, capture_output=True)
        with dagster_dev(folder, environ) as dev:
            ui = DagsterPages(page, dev.url, Path(scratch))
            _control("POST", [_FAULT])
            ui.partitions("troops")
            ui.materialize(day)
            red = _wait(dev, day, "failed")
            # Where it is narrower, Dagster cuts the table off.
            page.set_viewport_size({"width": 1600, "height": 1000})
            page.goto(f"{dev.url}/runs/{_failed_run(dev)}")
            page.get_by_text("Show schema").first.wait_for()
            page.get_by_text("Hide navigation").click()
            failure = page.get_by_text("STEP_FAILURE").first
            failure.scroll_into_view_if_needed()
            top = int((failure.bounding_box() or {"y": 0})["y"])
            _shrink(ui.picture("failing_run"), target / "failing_run.png", (67, top - 12, 1600, top + 168))
            page.set_viewport_size({"width": 1280, "height": 800})
            ui.partitions("performance_data", *red.split("|"))
            _shrink(ui.picture("failing_day"), target / "failing_day.png")
            page.get_by_text(re.compile("View all historical events")).click()
            dialog = page.get_by_role("dialog")
            dialog.locator("tbody tr").first.click()
            dialog.get_by_text("failed_requests").wait_for()
            _shrink(ui.picture("failed_partition"), target / "failed_partition.png")
            page.keyboard.press("Escape")
            _control("DELETE", None)
            ui.materialize()
            _wait(dev, day, "green", red)
            ui.partitions("performance_data", *red.split("|"))
            _shrink(ui.picture("mended_day"), target / "mended_day.png")


def _wait(dev: DagsterDev, day: str, state: str, key: str = "") -> str:
    """Wait until the troop's partition of a day has a state; returns its key."""

    def found() -> str | None:
        states = dev.partitions("performance_data")
        keys = [each for each in states if each.startswith(day) and each.endswith(f".{TROOP}")]
        return next((each for each in keys if states[each] == state), None)

    return str(dev.wait(f"{key or day} is {state}", found, seconds=300))


def _failed_run(dev: DagsterDev) -> str:
    query = "{ runsOrError(filter: {statuses: [FAILURE]}, limit: 1) { ... on Runs { results { id } } } }"
    return str(dev.graphql(query)["runsOrError"]["results"][0]["id"])


def _control(method: str, faults: Sequence[object] | None) -> None:
    body = None if faults is None else json.dumps(faults).encode()
    request = urllib.request.Request(f"{SIMULATOR_URL}/_control/faults", body, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
        pass


def _shrink(picture: Path, target: Path, box: tuple[int, int, int, int] | None = None) -> None:
    """Write a picture, or a part of it, with few colours: a page has no more."""
    with Image.open(picture) as whole:
        part = whole.convert("RGB").crop(box or (0, 0, *whole.size))
        part.quantize(_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
