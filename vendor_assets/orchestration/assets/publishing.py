"""Publishing a day: its statistics, its report, and the checks that say what is missing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, TypeVar
from zoneinfo import ZoneInfo

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.analytics import sources, sparks
from vendor_assets.days import day_window
from vendor_assets.errors import ObjectConflictError, ObjectNotFoundError, VendorAssetsError
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.status import status_of_troops
from vendor_assets.orchestration.assets.estimates import compared
from vendor_assets.orchestration.assets.lineage import column_lineage
from vendor_assets.orchestration.assets.pictures import troops_picture
from vendor_assets.orchestration.dagster_private import ToldFailure
from vendor_assets.orchestration.metadata import HTML, PATH, ROW_COUNT
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.failures import failure_from
from vendor_assets.presentable import presentable, presentable_names, presentable_values
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectInfo, ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.storage.roster import Roster, Troop

UNIQUE: Final = "grain_unique"
PLAUSIBLE: Final = "plausible"

if TYPE_CHECKING:
    from vendor_assets.analytics.report import Report


LEFT_OUT: Final = "left out"
_ATTEMPTS: Final = 5
T = TypeVar("T")


def troop_states(store: ObjectStore, day: date, filters: Filters) -> dict[str, str]:
    """State of each troop's performance data on a day, by partition key.

    ``complete``, ``empty``, ``partial``, ``failed`` (older data exist, but the newest harvest failed), ``missing``, or
    ``left out`` (by a filter, without older data).

    Raises:
        dagster.Failure: The day has no roster.
    """
    try:
        troops = status_of_troops(store, day, filters)
    except ObjectNotFoundError as error:
        raise ToldFailure(
            f"troops of {day} is not materialized; materialize it first", allow_retries=False
        ) from error
    return {
        key: LEFT_OUT if troop.state == "left_out" else troop.state if troop.published else "missing"
        for key, troop in troops.items()
    }


def publish_day(
    store: ObjectStore, day: date, account: Account, instance: dg.DagsterInstance
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[Any]]:
    """Compute and write ``daily_performance`` of a day.

    Raises:
        dagster.Failure: The day has no roster, its tables have duplicate rows, or the store fails.
    """

    def publish(known: ObjectInfo | None) -> tuple[dg.AssetCheckResult, dg.MaterializeResult[Any] | None]:
        states = troop_states(store, day, account.filters)
        # Before anything is read: what changes meanwhile is then another source.
        made_of = sources.of_statistics(store, day, _settings(account, states))
        unique = grain_unique(store, day, sorted(states))
        if not unique.passed:
            return unique, None
        cost = compared(instance, Names.for_account(account), day, sorted(states))
        return unique, _published(store, day, account, states, cost, made_of, known)

    unique, result = _from_newest(store, layout.table_key("daily_performance", day), publish)
    yield unique
    if result is None:
        # Sums and counts would be wrong without anybody noticing.
        raise ToldFailure(f"{day} is not published: {unique.description}", allow_retries=False)
    yield result


def _from_newest(store: ObjectStore, key: str, publish: Callable[[ObjectInfo | None], T]) -> T:
    """Publish an object; once more if another run does meanwhile, which may have read newer tables than this one.

    Args:
        publish: Makes the object, and writes it where it still is what it was.

    Raises:
        dagster.Failure: The store fails, or others publish all the time.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return publish(store.head(key))
        except VendorAssetsError as error:
            if not isinstance(error, ObjectConflictError) or attempt == _ATTEMPTS:
                raise failure_from(error) from error
    raise AssertionError


def _published(
    store: ObjectStore,
    day: date,
    account: Account,
    states: Mapping[str, str],
    cost: Mapping[str, Any],
    made_of: str,
    known: ObjectInfo | None,
) -> dg.MaterializeResult[Any]:
    # Imported here because every run imports this module, and DuckDB is slow to import.
    from vendor_assets.analytics.daily import daily_performance

    missing, _ = _not_complete(states)
    names = {troop.id: troop.name for troop in Roster.read(store, day).troops}
    published = daily_performance(
        store,
        day,
        window=day_window(day, account.zone),
        troop_names=names,
        troops_missing=len(missing),
        sources=made_of,
        if_absent=known is None,
        if_match=known.etag if known else None,
    )
    return dg.MaterializeResult(
        metadata=metadata_of_day(
            store, Names.for_account(account), day, states, published.rows, account.filters
        )
        | {"timeslices": published.timeslices, "seconds": round(published.seconds, 3)}
        | dict(cost),
        check_results=[troops_present(states), plausible(store, day, published.rows)],
    )


def _coverage(store: ObjectStore, day: date, states: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """A table of the day's troops and how much of the day each covers, including troops without data."""
    columns = ["troop_id", "warrior_id", "covered_share"]
    table = read_table(store, layout.table_key("daily_performance", day), columns=columns)
    by_troop = table.group_by("troop_id").aggregate(
        [("warrior_id", "count_distinct"), ("warrior_id", "count"), ("covered_share", "mean")]
    )
    found = {
        row[0]: row[1:] for row in zip(*(column.to_pylist() for column in by_troop.columns), strict=True)
    }

    def named(troop: Troop) -> str:
        state = states.get(troop.key, "")
        return troop.title + (
            f" ({state})" if state in ("missing", "partial", "failed", "empty", LEFT_OUT) else ""
        )

    roster = Roster.read(store, day).troops
    return troops_picture((named(troop), *found.get(troop.id, (0, 0, 0.0))) for troop in roster)


def day_checks(names: Names, partitions: dg.PartitionsDefinition[Any]) -> list[dg.AssetCheckSpec]:
    """The checks of a published day."""
    texts = {
        "troops_present": "No troop of the day is missing or partial",
        UNIQUE: "The day's tables have no duplicate rows; otherwise the day is not published",
        PLAUSIBLE: "Values are within their unit's range, and there are about as many rows as on the days before",
    }
    return [
        dg.AssetCheckSpec(
            name,
            asset=names.key("daily_performance"),
            description=text,
            partitions_def=partitions,
            blocking=name == UNIQUE,
        )
        for name, text in texts.items()
    ]


def metadata_of_day(
    store: ObjectStore, names: Names, day: date, states: Mapping[str, str], rows: int, filters: Filters
) -> dict[str, Any]:
    """Metadata of a published day."""
    missing, partial = _not_complete(states)
    key = layout.table_key("daily_performance", day)
    head = store.head(key)
    left_out = list(states.values()).count(LEFT_OUT)
    return {
        ROW_COUNT: rows,
        "troops": len(states),
        **({"troops_left_out": left_out, "filters": str(filters)} if filters else {}),
        "troops_missing": len(missing),
        "troops_partial": len(partial),
        "table_bytes": head.size if head else 0,
        PATH: dg.MetadataValue.path(store.uri(key)),
        "plot": _coverage(store, day, states),
    } | column_lineage("daily_performance", names)


def troops_present(states: Mapping[str, str]) -> dg.AssetCheckResult:
    """The check that names the troops missing from a published day."""
    missing, partial = _not_complete(states)
    failed = sorted(troop for troop, state in states.items() if state == "failed")
    said = [
        f"{len(troops)} {word}: {presentable_names(troops)}"
        for word, troops in (("missing", missing), ("partial", partial), ("failed", failed))
        if troops
    ]
    left_out = list(states.values()).count(LEFT_OUT)
    filtered = f"; {left_out} are left out by filters" if left_out else ""
    return dg.AssetCheckResult(
        check_name="troops_present",
        passed=not said,
        description="; ".join(said) or f"all {len(states) - left_out} troops of the day are in{filtered}",
        metadata={"troops_missing": len(missing), "troops_partial": len(partial)},
    )


def grain_unique(store: ObjectStore, day: date, troops: Sequence[str]) -> dg.AssetCheckResult:
    """The check that a day's tables have no duplicate rows."""
    from vendor_assets.analytics.quality import duplicates_of_day

    found = duplicates_of_day(store, day, troops)
    shown = ", ".join(f"{count} in {name}" for name, count in list(found.items())[:10])
    return dg.AssetCheckResult(
        check_name=UNIQUE,
        passed=not found,
        description=(
            f"duplicate rows: {shown}; rebuild these partitions from landed answers (rebuild: true)"
            if found
            else f"no duplicate rows in the tables of {len(troops)} troops"
        ),
        metadata={"duplicate_rows": sum(found.values()), "tables": len(found)},
    )


def plausible(store: ObjectStore, day: date, rows: int) -> dg.AssetCheckResult:
    """The check that a published day is plausible: values within their unit's range, as many rows as usual."""
    from vendor_assets.analytics import quality

    broken = quality.implausible_values(quality.read_extremes(store, day))
    usual = quality.usual_rows(store, day)
    low, high = quality.USUAL
    said = [
        f"{presentable(item.value_name, 60)} is {item.rule} in {item.series} series, "
        f"like {item.worst:.4g} in {presentable(item.example)}"
        for item in broken[:5]
    ]
    if usual and not low * usual <= rows <= high * usual:
        said.insert(0, f"{rows:,} rows, but the days before had {usual:,} (median)")
    compared = (
        f"{rows:,} rows, {usual:,} is usual" if usual else f"{rows:,} rows, too few days before to compare"
    )
    return dg.AssetCheckResult(
        check_name=PLAUSIBLE,
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(said) or f"every value is plausible; {compared}",
        metadata={"rows": rows, "series_out_of_range": sum(item.series for item in broken)}
        | ({"usual_rows": usual} if usual else {}),
    )


def _not_complete(states: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Troops that are missing, and those that are partial."""
    missing = sorted(troop for troop, state in states.items() if state == "missing")
    return missing, sorted(troop for troop, state in states.items() if state == "partial")


def publish_report(store: ObjectStore, day: date, zone: ZoneInfo) -> dg.MaterializeResult[Any]:
    """Execute a day's notebook and store it with its HTML."""
    from vendor_assets.analytics.report import render_report

    key = layout.report_key(day, "html")

    def publish(known: ObjectInfo | None) -> "Report":
        made_of = sources.of_report(store, day, {"zone": zone.key})
        report = render_report(store, day, timezone=zone.key, sources=made_of)
        store.put(layout.report_key(day, "ipynb"), report.notebook)
        store.put(key, report.html, if_absent=known is None, if_match=known.etag if known else None)
        return report

    return dg.MaterializeResult(metadata=metadata_of_report(store, day, _from_newest(store, key, publish)))


def is_published(store: ObjectStore, day: date, account: Account) -> bool:
    """Whether a day's statistics and report are what they would be if they were made now.

    Raises:
        StorageError: The store cannot be read.
    """
    statistics = sources.kept_by_statistics(store, day)
    if not statistics:
        return False
    try:
        states = troop_states(store, day, account.filters)
    except ToldFailure:
        return False
    now = sources.of_statistics(store, day, _settings(account, states))
    return statistics == now and sources.kept_by_report(store, day) == sources.of_report(
        store, day, {"zone": account.zone.key}
    )


def _settings(account: Account, states: Mapping[str, str]) -> dict[str, object]:
    """What a day's statistics depend on beside tables."""
    return {"zone": account.zone.key, "filters": str(account.filters), "troops": dict(states)}


def metadata_of_report(store: ObjectStore, day: date, report: "Report") -> dict[str, Any]:
    """Metadata of a report: its paths, its plot, the day in numbers."""
    metadata: dict[str, Any] = {
        HTML: dg.MetadataValue.path(store.uri(layout.report_key(day, "html"))),
        "notebook": dg.MetadataValue.notebook(store.uri(layout.report_key(day, "ipynb"))),
        "plot": dg.MetadataValue.md(sparks.image(report.headline_png, str(day))),
    }
    summary: dict[str, Any] = presentable_values(dict(report.summary))
    return metadata | summary
