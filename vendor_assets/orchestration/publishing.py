"""Publishing a day: its statistics and its report, with what is missing said aloud."""

import base64
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from vendor_assets.days import day_window
from vendor_assets.errors import ObjectNotFoundError, VendorAssetsError
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_metadata, read_table


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
    missing = sorted(troop for troop, state in states.items() if state == "missing")
    partial = sorted(troop for troop, state in states.items() if state == "partial")
    roster = read_table(store, layout.table_key("troops", day), columns=["troop_id", "name"]).to_pylist()
    names = {row["troop_id"]: row["name"] for row in roster}
    try:
        published = daily_performance(
            store, day, window=day_window(day, zone), troop_names=names, troops_missing=len(missing)
        )
    except VendorAssetsError as error:
        raise dg.Failure(str(error), allow_retries=error.retryable) from error
    said = [
        f"{len(troops)} {word}: {', '.join(troops[:10])}"
        for word, troops in (("missing", missing), ("partial", partial))
        if troops
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": published.rows,
            "troops": len(states),
            "troops_missing": len(missing),
            "troops_partial": len(partial),
            "seconds": round(published.seconds, 3),
            "path": dg.MetadataValue.path(store.uri(layout.table_key("daily_performance", day))),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="troops_present",
                passed=not missing and not partial,
                description="; ".join(said) or f"all {len(states)} troops of the day are in",
                metadata={"troops_missing": len(missing), "troops_partial": len(partial)},
            )
        ],
    )


def publish_report(store: ObjectStore, day: date, zone: ZoneInfo) -> dg.MaterializeResult[Any]:
    """Execute the notebook of a day and keep it with its HTML."""
    from vendor_assets.analytics.report import render_report

    try:
        report = render_report(store, day, timezone=zone.key)
    except VendorAssetsError as error:
        raise dg.Failure(str(error), allow_retries=error.retryable) from error
    html_key, notebook_key = layout.report_key(day, "html"), layout.report_key(day, "ipynb")
    store.put(notebook_key, report.notebook)
    store.put(html_key, report.html)
    plot = base64.b64encode(report.headline_png).decode()
    metadata: dict[str, Any] = {
        "html": dg.MetadataValue.path(store.uri(html_key)),
        "notebook": dg.MetadataValue.notebook(store.uri(notebook_key)),
        "plot": dg.MetadataValue.md(f"![{day}](data:image/png;base64,{plot})"),
    }
    return dg.MaterializeResult(metadata=metadata | dict(report.summary))
