"""Publishing a day: its statistics and its report, with what is missing said aloud."""

import base64
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import dagster as dg

from vendor_assets.days import day_window
from vendor_assets.errors import ObjectNotFoundError, VendorAssetsError
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_metadata, read_table

if TYPE_CHECKING:
    from vendor_assets.analytics.report import Report


def troop_states(store: ObjectStore, day: date) -> dict[str, str]:
    """State of each troop's performance data on a day: complete, empty, partial or missing; by partition key.

    Raises:
        dagster.Failure: The day has no roster.
    """
    try:
        roster = read_table(store, layout.table_key("troops", day), columns=["troop_key"])
    except ObjectNotFoundError as error:
        raise dg.Failure(
            f"troops of {day} is not there; materialize it first", allow_retries=False
        ) from error
    states: dict[str, str] = {}
    for troop in roster.column("troop_key").to_pylist():
        try:
            metadata, rows = read_metadata(store, layout.table_key("performance_data", day, troop))
            states[troop] = metadata.get("state", "complete" if rows else "empty")
        except ObjectNotFoundError:
            states[troop] = "missing"
    return states


def publish_day(store: ObjectStore, day: date, zone: ZoneInfo) -> dg.MaterializeResult[Any]:
    """Compute and write ``daily_performance`` of a day."""
    # Every run imports this module; DuckDB and the notebook's tools cost a second that only these two pay.
    from vendor_assets.analytics.warehouse import daily_performance

    states = troop_states(store, day)
    missing, _ = _not_complete(states)
    roster = read_table(store, layout.table_key("troops", day), columns=["troop_id", "name"]).to_pylist()
    names = {row["troop_id"]: row["name"] for row in roster}
    try:
        published = daily_performance(
            store, day, window=day_window(day, zone), troop_names=names, troops_missing=len(missing)
        )
    except VendorAssetsError as error:
        raise dg.Failure(str(error), allow_retries=error.retryable) from error
    return dg.MaterializeResult(
        metadata=metadata_of_day(store, day, states, published.rows)
        | {"seconds": round(published.seconds, 3)},
        check_results=[troops_present(states)],
    )


def metadata_of_day(
    store: ObjectStore, day: date, states: Mapping[str, str], rows: int
) -> dict[str, dg.MetadataValue[str] | int | float]:
    """What the UI shows of a published day."""
    missing, partial = _not_complete(states)
    return {
        "dagster/row_count": rows,
        "troops": len(states),
        "troops_missing": len(missing),
        "troops_partial": len(partial),
        "path": dg.MetadataValue.path(store.uri(layout.table_key("daily_performance", day))),
    }


def troops_present(states: Mapping[str, str]) -> dg.AssetCheckResult:
    """The check that says which troops a published day lacks."""
    missing, partial = _not_complete(states)
    said = [
        f"{len(troops)} {word}: {', '.join(troops[:10])}"
        for word, troops in (("missing", missing), ("partial", partial))
        if troops
    ]
    return dg.AssetCheckResult(
        check_name="troops_present",
        passed=not missing and not partial,
        description="; ".join(said) or f"all {len(states)} troops of the day are in",
        metadata={"troops_missing": len(missing), "troops_partial": len(partial)},
    )


def _not_complete(states: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Troops that are missing, and those that are partial."""
    missing = sorted(troop for troop, state in states.items() if state == "missing")
    return missing, sorted(troop for troop, state in states.items() if state == "partial")


def publish_report(store: ObjectStore, day: date, zone: ZoneInfo) -> dg.MaterializeResult[Any]:
    """Execute the notebook of a day and keep it with its HTML."""
    from vendor_assets.analytics.report import render_report

    try:
        report = render_report(store, day, timezone=zone.key)
    except VendorAssetsError as error:
        raise dg.Failure(str(error), allow_retries=error.retryable) from error
    store.put(layout.report_key(day, "ipynb"), report.notebook)
    store.put(layout.report_key(day, "html"), report.html)
    return dg.MaterializeResult(metadata=metadata_of_report(store, day, report))


def metadata_of_report(store: ObjectStore, day: date, report: "Report") -> dict[str, Any]:
    """What the UI shows of a report: where it is, its plot, the day in numbers."""
    plot = base64.b64encode(report.headline_png).decode()
    metadata: dict[str, Any] = {
        "html": dg.MetadataValue.path(store.uri(layout.report_key(day, "html"))),
        "notebook": dg.MetadataValue.notebook(store.uri(layout.report_key(day, "ipynb"))),
        "plot": dg.MetadataValue.md(f"![{day}](data:image/png;base64,{plot})"),
    }
    return metadata | dict(report.summary)
