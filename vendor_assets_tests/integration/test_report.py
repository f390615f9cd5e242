"""The report of a day: the notebook in a kernel of its own, and its HTML."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from contextlib import nullcontext, suppress
from datetime import date
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

import nbformat
import pytest

from vendor_assets.analytics import report as module
from vendor_assets.analytics.daily import daily_performance
from vendor_assets.analytics.report import Report, render_report
from vendor_assets.analytics.warehouse import Warehouse, read
from vendor_assets.days import day_window
from vendor_assets.errors import (
    ConfigurationError,
    ObjectNotFoundError,
    StorageError,
    VendorAssetsError,
)
from vendor_assets.simulator.world import World
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets_tests.support.analysis import write_roster, write_world_day
from vendor_assets_tests.support.s3 import RunningS3

DAY = date(2026, 11, 19)


def _write(store: ObjectStore, world: World, timezone: str = "UTC") -> None:
    write_world_day(store, world, DAY, timezone=timezone)
    names = {troop.id: troop.name for troop in world.troops_on(DAY, timezone)}
    window = day_window(DAY, ZoneInfo(timezone))
    daily_performance(store, DAY, window=window, troop_names=names, troops_missing=0)


def _break(store: ObjectStore) -> None:
    key = next(info.key for info in store.list("processed/performance_data/"))
    store.put(key, b"PAR1 not really PAR1")


class _Addresses(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note scripts and addresses that are not in the page itself."""
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)
        self.found += [
            f"{tag} {name}={value}"
            for name, value in attrs
            if name in ("src", "href", "srcset") and value and not value.startswith(("data:", "#"))
        ]
        self.found += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """A demo day."""
    store = FolderStore(tmp_path_factory.mktemp("reports"))
    _write(store, World.preset("demo", seed=1))
    return store


@pytest.fixture(scope="module")
def report(folder: FolderStore) -> Report:
    """Its report."""
    return render_report(folder, DAY, "UTC")


def test_the_html_stands_alone(report: Report) -> None:
    """One file without scripts and without anything to fetch, with the pictures inside and no code."""
    page = _Addresses()
    page.feed(report.html.decode())
    assert page.found == []
    text = report.html.decode()
    assert text.count('src="data:image/png;base64,') == 4
    assert text.count("alt=") >= 4
    assert "import " not in text
    assert "Performance of Thursday 19 November 2026" in text


def test_the_headline_and_the_summary_are_the_days(report: Report) -> None:
    """The plot is a PNG, the numbers are plain and numeric and agree with the tables."""
    assert report.headline_png.startswith(b"\x89PNG")
    assert report.summary["troops"] == 6
    assert report.summary["timezone"] == "UTC"
    assert json.loads(json.dumps(dict(report.summary), allow_nan=False)) == report.summary
    assert report.summary["incidents"]
    assert report.summary["incident"]


def test_the_notebook_is_kept_executed_with_its_parameters(report: Report, folder: FolderStore) -> None:
    """The kept notebook is valid, says with what it was run, and by this interpreter."""
    executed = nbformat.reads(report.notebook.decode(), as_version=4)
    nbformat.validate(executed)
    assert executed.metadata.papermill.parameters == {
        "day": "2026-11-19",
        "store": folder.url,
        "timezone": "UTC",
    }
    assert executed.metadata.language_info.version == ".".join(map(str, sys.version_info[:3]))


def test_the_notebook_in_the_package_has_no_outputs() -> None:
    """What is committed is code alone, with parameters that papermill finds."""
    text = resources.files("vendor_assets.notebooks").joinpath(module.NOTEBOOK).read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert code[0].metadata.tags == ["parameters"]
    assert max(len(cell.source.splitlines()) for cell in code) <= 6


@pytest.mark.long
def test_an_installed_kernel_of_the_same_name_is_not_used(
    folder: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel called python3 that is another program does not matter, nor does a home that cannot be used."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "not this", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("HOME", os.devnull)
    assert render_report(folder, DAY).summary["troops"] == 6


@pytest.mark.parametrize("broken", [False, True])
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """No kernel goes on living and no temporary folder stays, also after a failure."""
    store = FolderStore(tmp_path / "store")
    _write(store, World.preset("small", seed=1))
    if broken:
        _break(store)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(StorageError) if broken else nullcontext():
        render_report(store, DAY)
    assert list(temporary.iterdir()) == []
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    lines = [Path(f"/proc/{child}/cmdline") for child in children]
    assert not [line for line in lines if line.exists() and b"ipykernel" in line.read_bytes()]


def test_the_notebook_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's process has neither the vendor's key nor the alert's address, and keys of AWS only for S3."""
    ours = {"VENDOR_API_KEY", "VENDOR_ASSETS_ALERT_URL", "VENDOR_ASSETS_DB", "PGPASSWORD"}
    for name in (*ours, "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")
    asked: dict[str, bytes] = {}

    def watch() -> None:
        while not asked:
            for entry in Path("/proc").glob("[0-9]*/environ"):
                with suppress(OSError):
                    if b"ipykernel" in entry.with_name("cmdline").read_bytes():
                        asked["environ"] = entry.read_bytes()

    store = FolderStore(tmp_path / "store")
    _write(store, World.preset("small", seed=1))
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    render_report(store, DAY)
    watcher.join(60)
    assert asked["environ"]
    assert b"secret of" not in asked["environ"]
    on_s3 = module.kernel_environment(os.environ, "s3://bucket/prefix")
    assert on_s3["AWS_SECRET_ACCESS_KEY"]
    assert not ours & on_s3.keys()


def test_a_day_without_statistics_is_refused_at_once(folder: FolderStore) -> None:
    """No kernel is started for a day that has no statistics, or in a time zone that is none."""
    with pytest.raises(ObjectNotFoundError, match="daily_performance of 2026-11-01 is not in"):
        render_report(folder, date(2026, 11, 1))
    with pytest.raises(ConfigurationError, match="time zone 'Mars/Olympus' is unknown"):
        render_report(folder, DAY, "Mars/Olympus")


def test_an_empty_day_has_a_report(tmp_path: Path) -> None:
    """A day on which every troop failed is shown as what it is."""
    store = FolderStore(tmp_path)
    write_roster(store, DAY, [("1", "one")])
    daily_performance(
        store, DAY, window=day_window(DAY, ZoneInfo("UTC")), troop_names={"1": "one"}, troops_missing=1
    )
    report = render_report(store, DAY)
    assert "no data" in report.html.decode()
    assert report.headline_png.startswith(b"\x89PNG")
    assert report.summary["troops_missing"] == 1


def test_an_error_in_a_cell_keeps_its_kind(tmp_path: Path) -> None:
    """What fails inside the kernel comes out as one line, as the kind of error that it was."""
    store = FolderStore(tmp_path)
    _write(store, World.preset("small", seed=1))
    _break(store)
    with pytest.raises(StorageError) as error:
        render_report(store, DAY)
    assert str(error.value).startswith("the report of 2026-11-19: ")
    assert "\n" not in str(error.value)


def test_a_dead_kernel_is_told(folder: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that dies while it runs the notebook is one clear line."""
    text = resources.files("vendor_assets.notebooks").joinpath(module.NOTEBOOK).read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells[3].source = "import os; os._exit(3)"

    class Fake:
        def joinpath(self, _: str) -> Fake:
            return self

        def read_text(self, encoding: str) -> str:
            return str(nbformat.writes(notebook))

    monkeypatch.setattr(module.resources, "files", lambda _: Fake())
    with pytest.raises(VendorAssetsError, match="its Python process died or did not start"):
        render_report(folder, DAY)


# On S3


@pytest.fixture
def s3_store(s3_server: RunningS3, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store on S3 whose credentials are in the environment, as an operator gives them."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{s3_server.make_bucket()}/some/prefix")


@pytest.mark.long
def test_everything_works_on_s3(s3_store: ObjectStore) -> None:
    """Reading, statistics and the report are the same on S3, with credentials from the environment."""
    world = World.preset("small", seed=1)
    _write(s3_store, world)
    troops = world.troops_on(DAY)
    found = read(
        "performance_data", DAY, troops[0].id, ["value", "troop", "day"], "arrow", store=s3_store.url
    )
    expected = sum(1 for _ in world.expected_rows(DAY, 1800, troop_ids=[troops[0].id]))
    assert found.num_rows == expected
    relation = read("performance_data", DAY, as_="duckdb", store=s3_store)
    assert relation.aggregate("count(*)").fetchall()[0][0] == sum(1 for _ in world.expected_rows(DAY, 1800))
    assert Warehouse(s3_store).days("daily_performance") == [DAY]
    report = render_report(s3_store, DAY)
    assert report.summary["troops"] == len(troops)
    assert b"Performance of" in report.html
    s3_store.put(layout.report_key(DAY, "html"), report.html)
