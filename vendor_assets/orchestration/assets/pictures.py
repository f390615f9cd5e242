"""A partition's values as a small table with sparklines, cheap enough for thousands of partitions."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import dagster as dg
import pyarrow as pa

from vendor_assets.analytics import sparks
from vendor_assets.days import Window, day_window
from vendor_assets.errors import StorageError
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.logs import get_logger
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table

log = get_logger(__name__)

MOST_ROWS: Final = 500_000
"""Larger tables get no picture, because reading them again takes too long."""
MOST_LINES: Final = 8
MOST_TROOPS: Final = 40
_TYPICAL: Final = re.compile(r"(^|_)(average|avg|mean|median|p50)(_|$)")
_EXTREME: Final = re.compile(r"(^|_)(min|max|minimum|maximum|stddev|sum_of_squares)(_|$)")
_COLUMNS: Final = ("data_group", "value_name", "timeslice_start", "value", "weight")


def picture_of(store: ObjectStore, outcome: Outcome, zone: ZoneInfo) -> dict[str, dg.MarkdownMetadataValue]:
    """Metadata with the picture of an outcome; empty unless it is performance data that was just written."""
    if outcome.asset != "performance_data" or not outcome.succeeded or outcome.mode == "report":
        return {}
    window = day_window(outcome.day, zone)
    try:
        found = partition_picture(store, outcome.table_key, outcome.rows, window)
    except StorageError as error:
        log.warning("no picture of %s: %s", outcome.table_key, error)
        return {}
    return {} if found is None else {"plot": found}


def partition_picture(
    store: ObjectStore, key: str, rows: int, window: Window
) -> dg.MarkdownMetadataValue | None:
    """The busiest data groups of a partition of performance data along the day; None if it is empty or too large.

    Args:
        key: The table's key in the store.
        rows: Number of rows in the table.
    """
    if not 0 < rows <= MOST_ROWS:
        return None
    table = read_table(store, key, columns=_COLUMNS)
    by_slice = table.group_by(["data_group", "value_name", "timeslice_start"]).aggregate(
        [("value", "mean"), ("value", "count"), ("weight", "sum")]
    )
    return _lines(by_slice, window)


def _lines(by_slice: pa.Table, window: Window) -> dg.MarkdownMetadataValue:
    values: dict[str, dict[str, list[tuple[datetime, float | None]]]] = {}
    calls: dict[str, float] = {}
    for group, name, start, value, _, weight in zip(
        *(column.to_pylist() for column in by_slice.columns), strict=True
    ):
        values.setdefault(group, {}).setdefault(name, []).append((start, value))
        calls[group] = calls.get(group, 0.0) + (weight or 0.0)
    shown = sorted(values, key=lambda group: (-calls[group], group))[:MOST_LINES]
    lines = ["| data group | value | mean | over the day |", "|---|---|---:|---|"]
    for group in shown:
        name = min(values[group], key=_rank)
        series = values[group][name]
        known = [value for _, value in series if value is not None and value - value == 0]
        mean = f"{sum(known) / len(known):.4g}" if known else "none"
        picture = sparks.image(sparks.line(_along(series, window)), "over the day")
        lines.append(f"| {sparks.cell(group)} | {sparks.cell(name)} | {mean} | {picture} |")
    more = len(values) - len(shown)
    note = f"; {more} more data groups" if more > 0 else ""
    lines += ["", f"Mean over warriors of each timeslice, from zero; rose: no value{note}."]
    return dg.MetadataValue.md("\n".join(lines))


def _rank(value_name: str) -> tuple[bool, bool, str]:
    """Sort key: averages first, extremes last."""
    name = value_name.lower()
    return not _TYPICAL.search(name), bool(_EXTREME.search(name)), name


def _along(series: Iterable[tuple[datetime, float | None]], window: Window) -> list[float | None]:
    """Values in equal steps along the day, one per timeslice, 96 at most."""
    known = sorted((start, value) for start, value in series)
    steps = [after - before for (before, _), (after, _) in pairwise(known)]
    step = max(min(steps, default=timedelta(hours=1)), (window.end - window.start) / 96)
    count = max(1, round((window.end - window.start) / step))
    found: list[float | None] = [None] * count
    for start, value in known:
        place = int((start - window.start) / step)
        if 0 <= place < count:
            found[place] = value
    return found


def troops_picture(troops: Iterable[tuple[str, int, int, float]]) -> dg.MarkdownMetadataValue:
    """The troops of a published day, those with the largest gaps first.

    Args:
        troops: Name, warriors, series, and the mean share of the day covered by these.
    """
    ordered = sorted(troops, key=lambda troop: (troop[3], troop[0]))
    lines = ["| troop | warriors | series | day covered | |", "|---|---:|---:|---:|---|"]
    for name, warriors, series, covered in ordered[:MOST_TROOPS]:
        picture = sparks.image(sparks.bar(covered), "share of the day covered")
        lines.append(f"| {sparks.cell(name)} | {warriors} | {series} | {covered:.1%} | {picture} |")
    if len(ordered) > MOST_TROOPS:
        lines += ["", f"{len(ordered) - MOST_TROOPS} more troops, with fewer gaps."]
    return dg.MetadataValue.md("\n".join(lines))
