"""A headless Chromium, and what a person does with it in Dagster's UI."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, sync_playwright

SIZE: ViewportSize = {"width": 1600, "height": 1000}
# As root in a container, without a graphics card, and without a word to its maker's servers.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 60_000
"""A net against waiting for ever on a busy machine, not a measure."""


def chromium() -> str:
    """Path of the installed browser; without one the test is skipped, or fails where ``CI=true``."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        return found
    message = "needs a browser: apt-get install chromium"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def browser_page() -> Iterator[Page]:
    """A page of 1600 × 1000 in a browser of its own while the block lasts."""
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE_MS)
        try:
            yield page
        finally:
            browser.close()


class DagsterPages:
    """Dagster's UI as a person uses it.

    Args:
        page: The browser's page.
        url: Where the UI answers.
        pictures: Folder for screenshots.
    """

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self.page = page
        self._url = url
        self._pictures = pictures

    def picture(self, name: str) -> Path:
        """Keep what is seen now."""
        path = self._pictures / f"{name}.png"
        # The mouse would leave a bubble on what it rests on.
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=path)
        return path

    def graph(self) -> None:
        """Open the graph of all assets, its groups expanded."""
        self.page.goto(f"{self._url}/asset-groups")
        self.page.get_by_text("Global asset lineage").wait_for()
        canvas = self.page.locator("svg").last
        canvas.wait_for()
        self.page.keyboard.press("Alt+KeyE")
        self.page.get_by_text("performance_report").last.wait_for()

    def asset(self, name: str, view: str = "overview") -> None:
        """Open an asset's page: its overview, partitions, events or checks."""
        self.page.goto(f"{self._url}/assets/{name}?view={view}")
        self.page.get_by_role("button", name="Materialize").first.wait_for()

    def open_partition(self, *dimensions: str) -> None:
        """On the partitions page, click a day, then a troop."""
        for key in dimensions:
            self.page.get_by_text(key, exact=True).first.click()
        self.page.get_by_text("Latest materialization").last.wait_for()

    def materialize(self, days: str, troops: tuple[str, ...] = ()) -> None:
        """Materialize partitions of the asset whose page is open, by its dialog.

        Args:
            days: As the dialog wants them: ``2026-11-20`` or ``[2026-11-18...2026-11-20]``.
            troops: Partition keys, for an asset that has both dimensions.
        """
        self.page.get_by_role("button", name="Materialize").first.click()
        dialog = self.page.get_by_role("dialog")
        field = dialog.locator("input[type=text]").first
        field.wait_for()
        field.fill(days)
        field.press("Enter")
        if troops:
            dialog.get_by_text("Select a partition").first.click()
            for troop in troops:
                self.page.get_by_role("menuitem").filter(has_text=troop).click()
            self.page.keyboard.press("Escape")
        self.picture("dialog")
        self._launch(dialog)

    @staticmethod
    def _launch(dialog: Locator) -> None:
        button = dialog.get_by_role("button", name=re.compile("^Launch"))
        button.click()
        button.wait_for(state="hidden")
