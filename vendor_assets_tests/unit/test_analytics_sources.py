"""A day's statistics and report are made again once anything changes that they are made of, and only then."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

import vendor_assets
from vendor_assets.analytics import sources
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore

DAY = date(2026, 11, 20)


def ago(days: int) -> date:
    return DAY - timedelta(days=days)


@pytest.mark.parametrize(
    ("key", "of_statistics", "of_report"),
    [
        (layout.table_key("performance_data", DAY, "1"), True, True),
        (layout.table_key("performance_data", DAY, "new"), True, True),
        (layout.table_key("warriors", DAY, "1"), True, True),
        (layout.table_key("troops", DAY), True, True),
        (layout.table_key("data_groups", DAY, "1"), False, True),
        (layout.table_key("daily_performance", DAY), False, True),
        (layout.table_key("daily_performance", ago(1)), False, True),
        (layout.table_key("daily_performance", ago(7)), False, True),
        (layout.table_key("performance_data", ago(28), "1"), False, True),
        (layout.table_key("daily_performance", ago(2)), False, False),
        (layout.table_key("performance_data", ago(1), "1"), False, False),
        (layout.report_key(DAY, "html"), False, False),
    ],
)
def test_a_new_version_of_a_source_is_another_source(
    key: str, of_statistics: bool, of_report: bool, tmp_path: Path
) -> None:
    """The same bytes, too, since who wrote them meant something."""
    store = FolderStore(tmp_path)
    store.put(layout.table_key("performance_data", DAY, "1"), b"rows")

    def now() -> tuple[str, str]:
        return sources.of_statistics(store, DAY, {}), sources.of_report(store, DAY, {})

    before = now()
    assert now() == before
    store.put(key, b"rows")
    assert tuple(a != b for a, b in zip(before, now(), strict=True)) == (of_statistics, of_report)


def test_settings_and_the_release_are_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters and states of troops, and whatever a newer release computes otherwise."""
    store = FolderStore(tmp_path)
    found = {
        sources.of_statistics(store, DAY, settings) for settings in ({}, {"filters": "a"}, {"filters": "b"})
    }
    monkeypatch.setattr(vendor_assets, "__version__", "next")
    assert len(found | {sources.of_statistics(store, DAY, {})}) == 4


@pytest.mark.parametrize("page", [None, b"", b"<html>\xff of an earlier release"])
def test_a_report_that_does_not_tell_its_sources_has_none(page: bytes | None, tmp_path: Path) -> None:
    """It is made again, and so are statistics that are damaged."""
    store = FolderStore(tmp_path)
    if page is not None:
        store.put(layout.report_key(DAY, "html"), page)
        store.put(layout.table_key("daily_performance", DAY), page)
    assert sources.kept_by_report(store, DAY) is None
    assert sources.kept_by_statistics(store, DAY) is None
