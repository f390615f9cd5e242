"""A headless Chromium, and what a person does with it in Dagster's UI."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, TimeoutError, ViewportSize, expect, sync_playwright  # noqa: A004

from vendor_assets_tests.support.programs import lacks

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
LAUNCH_PATIENCE_MS = 5 * PATIENCE_MS
"""Before a run is accepted, the code server reads all of its assets anew."""


def chromium() -> str:
    """Path of the installed browser; without one the test is skipped, or fails where ``CI=true``."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        lacks("needs a browser: apt-get install chromium")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser while the block lasts."""
    executable = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


@contextmanager
def fresh_page(running: Browser) -> Iterator[Page]:
    """A page of 1600 × 1000 that remembers nothing of pages before it."""
    with running.new_context(viewport=SIZE) as context:
        context.set_default_timeout(PATIENCE_MS)
        yield context.new_page()


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

    def graph(self, assets: int, *, width: int = 2000, height: int = SIZE["height"]) -> None:
        """Open the graph of all assets, expanded, with all the room there is; wait for the numbers of each.

        Args:
            assets: How many of them have partitions.
            width: The page's width; from a certain distance on Dagster draws names alone.
            height: Its height.
        """
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.goto(f"{self._url}/asset-groups")
        self.page.get_by_text("Global asset lineage").wait_for()
        self.page.get_by_text("Hide navigation").click()
        self.page.get_by_placeholder("Jump to").locator("xpath=following::button[1]").click()
        self.page.keyboard.press("Alt+KeyE")
        expect(self.page.get_by_text(re.compile(r"\d% filled"))).to_have_count(assets, timeout=PATIENCE_MS)

    def asset(self, name: str) -> None:
        """Open an asset's overview."""
        self.page.goto(f"{self._url}/assets/{name}")
        self.page.get_by_text("Latest check results").or_(
            self.page.get_by_text("Column name")
        ).first.wait_for()

    def events(self, name: str) -> None:
        """Open an asset's events; the newest is shown."""
        self.page.goto(f"{self._url}/assets/{name}?view=events")
        self.page.get_by_text("Metadata", exact=True).first.wait_for()

    def partitions(self, name: str, *dimensions: str) -> None:
        """Open an asset's partitions; then click a day, or a day and a troop."""
        self.page.goto(f"{self._url}/assets/{name}?view=partitions")
        self.page.get_by_text("No partition selected").wait_for()
        for key in dimensions:
            # The first and the last day also stand below the bar, above the list.
            self.page.get_by_text(key, exact=True).filter(visible=True).last.click()
        if dimensions:
            self.page.get_by_text("|".join(dimensions), exact=True).filter(visible=True).last.wait_for()
            self.page.get_by_text(re.compile(r"View all historical events \([1-9]")).wait_for()

    def materialize(self, days: str = "", troops: Sequence[str] = ()) -> None:
        """Materialize partitions of the asset whose page is open, by its dialog.

        Args:
            days: As the dialog wants them: ``2026-11-20`` or ``[2026-11-18...2026-11-20]``; empty for the partition
                that is open, which the dialog knows.
            troops: Partition keys, for an asset that has both dimensions.
        """
        self.page.get_by_role("button", name="Materialize").first.click()
        dialog = self.page.get_by_role("dialog")
        if days:
            field = dialog.locator("input[type=text]").first
            field.fill(days)
            field.press("Enter")
        if troops:
            dialog.get_by_text("Select a partition").click()
            for troop in troops:
                self.page.get_by_role("menuitem").filter(has_text=troop).click()
            self.page.keyboard.press("Escape")
            self.page.get_by_text("Filter partitions").wait_for(state="hidden")
        self._launch(dialog)

    @staticmethod
    def _launch(dialog: Locator) -> None:
        button = dialog.get_by_role("button", name=re.compile("^Launch (\\d+ run|backfill)"))
        button.click()
        # The button goes when it is clicked, the dialog once the run was accepted: whoever leaves before, cancels it.
        try:
            dialog.wait_for(state="hidden", timeout=LAUNCH_PATIENCE_MS)
        except TimeoutError as error:
            raise AssertionError(f"nothing was launched; the dialog says: {dialog.inner_text()}") from error
