"""A day as figures and tables: they are drawn for every kind of day, and names stay text."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from matplotlib.figure import Figure

from vendor_assets.analytics import Warehouse, pages, plots
from vendor_assets.analytics.daily import daily_performance
from vendor_assets.analytics.day import DayView
from vendor_assets.days import day_window
from vendor_assets.errors import ConfigurationError, ObjectNotFoundError
from vendor_assets.simulator.world import World
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.analysis import (
    rows_of,
    slices,
    write_performance,
    write_roster,
    write_world_day,
)

DAY = date(2026, 11, 19)
WINDOW = day_window(DAY, ZoneInfo("UTC"))
PNG = b"\x89PNG\r\n\x1a\n"


def _view(
    store: FolderStore,
    day: date = DAY,
    *,
    timezone: str = "UTC",
    names: dict[str, str | None] | None = None,
    missing: int = 0,
) -> DayView:
    window = day_window(day, ZoneInfo(timezone))
    daily_performance(store, day, window=window, troop_names=names or {}, troops_missing=missing)
    return DayView(Warehouse(store), day, timezone)


def _world_day(store: FolderStore, world: World, *, without: tuple[str, ...] = (), weeks: int = 0) -> DayView:
    for week in range(weeks + 1):
        write_world_day(store, world, DAY - timedelta(weeks=week), without=without if week == 0 else ())
    names = {troop.id: troop.name for troop in world.troops_on(DAY)}
    return _view(store, names=dict(names), missing=len(without))


def _texts(figure: Figure) -> str:
    plots.to_png(figure)
    found = [figure.get_suptitle(), figure.get_supxlabel()]
    for ax in figure.axes:
        found += [
            ax.get_title(loc="left"),
            ax.get_xlabel(),
            ax.get_ylabel(),
            *(text.get_text() for text in ax.texts),
        ]
        found += [text.get_text() for text in ax.get_yticklabels()]
    return "\n".join(found)


def _all(view: DayView) -> list[Figure]:
    return [plots.incident(view), plots.latency(view), plots.slowest(view), plots.coverage(view)]


def test_figures_say_what_they_show(tmp_path: Path) -> None:
    """Each figure has a title, a unit and the time zone, and is drawn as a PNG."""
    view = _world_day(FolderStore(tmp_path), World.preset("demo", seed=1))
    for figure in _all(view):
        assert plots.to_png(figure).startswith(PNG)
        assert figure.get_suptitle()
        assert "UTC" in _texts(figure)
    assert "[ms]" in _texts(plots.latency(view))
    assert "[ms]" in _texts(plots.slowest(view))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_worst_incident_is_one_of_the_days_true_ones(tmp_path: Path, seed: int) -> None:
    """Against the seeded world: the stretch is at the true troop, at the true time, in the true data group."""
    world = World.preset("demo", seed=seed)
    true = [incident for incident in world.incidents(DAY) if incident.kind != "memory_leak"]
    view = _world_day(FolderStore(tmp_path), world, weeks=3)
    found = [stretch for stretch, _ in view.incidents]
    assert len(found) >= 1
    assert any(
        found[0].series[0] == incident.troop_id
        and found[0].start < incident.end
        and incident.start < found[0].end
        for incident in true
    )


@pytest.mark.parametrize("roster", [[], [("1", "one"), ("2", None)]])
def test_a_day_without_values_says_so(tmp_path: Path, roster: list[tuple[str, str | None]]) -> None:
    """No data at all is a report too: figures and tables say that there is nothing."""
    store = FolderStore(tmp_path)
    write_roster(store, DAY, roster)
    view = _view(store, missing=len(roster))
    for figure in _all(view):
        assert plots.to_png(figure).startswith(PNG)
    assert "No values" in "".join(text.get_text() for text in plots.latency(view).texts)
    html = pages.heading(view) + pages.overview(view) + pages.incidents(view) + pages.slowest(view)
    assert "no data" in html
    assert view.summary()["timeslices"] == 0
    assert view.summary()["troops_missing"] == len(roster)


def test_missing_and_partial_troops_come_first(tmp_path: Path) -> None:
    """A reader sees at the top which troops the day is without."""
    store, world = FolderStore(tmp_path), World.preset("demo", seed=3)
    troops = world.troops_on(DAY)
    view = _world_day(store, world, without=(troops[1].id,))
    rows = store.get("processed/performance_data/day=2026-11-19/troop=" + troops[0].id + "/data.parquet")
    assert rows
    heading = pages.heading(view)
    assert "1 of 6 troops missing" in heading
    assert troops[1].name in heading
    assert view.overview.iloc[-1]["state"] == "missing"
    write_performance(
        store,
        DAY,
        troops[0].id,
        rows_of(slices([1.0], window=WINDOW, troop_id=troops[0].id)),
        state="partial",
    )
    again = _view(store, missing=0)
    assert any("only a part" in caveat for caveat in again.caveats)


def test_statistics_older_than_the_data_are_told(tmp_path: Path) -> None:
    """Where troops came in after the statistics were computed, the report says to compute them again."""
    store = FolderStore(tmp_path)
    write_roster(store, DAY, [("1", "one")])
    write_performance(store, DAY, "1", rows_of(slices([1.0] * 48, window=WINDOW)))
    view = _view(store, missing=2)
    assert any("materialize daily_performance again" in caveat for caveat in view.caveats)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Names never become markup, mathematics, new lines or whole pages."""
    world = World.preset("small", seed=3, hostile=True)
    view = _world_day(FolderStore(tmp_path), world)
    html = pages.heading(view) + pages.overview(view) + pages.incidents(view) + pages.slowest(view)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for figure in _all(view):
        assert plots.to_png(figure).startswith(PNG)
    assert "\n" not in str(view.summary().get("incident", ""))


def test_troops_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A name that several troops share is followed by the id, a missing name is the id."""
    store = FolderStore(tmp_path)
    write_roster(store, DAY, [("1", "twin"), ("2", "twin"), ("3", None), ("4", "lonely")])
    assert dict(_view(store).names) == {"1": "twin [1]", "2": "twin [2]", "3": "3", "4": "lonely"}


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("plain", 10, "plain"),
        ("a$b$c", 10, r"a\$b\$c"),
        ("line one\nline\ttwo\x00", 30, "line one line two"),
        ("x" * 30, 11, "xxxxxx…xxxx"),
        ("\U0001f525 fire", 10, "□ fire"),
        ("a\u202eb", 10, "ab"),
    ],
)
def test_labels_are_one_line_of_glyphs(text: str, most: int, expected: str) -> None:
    """What cannot be drawn is a box, control characters are gone, and a dollar is a dollar."""
    assert plots.label(text, most) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (999.6, "1k"),
        (999_999, "1M"),
        (-1500, "-1.5k"),
        (0.00216, "0.00216"),
        (1.03e-4, "103µ"),
        (5e-9, "5n"),
    ],
)
def test_quantities_have_three_digits_and_a_prefix(value: float, expected: str) -> None:
    """Large and very small numbers take an SI prefix, after rounding."""
    assert plots.quantity(value) == expected
    assert plots.quantity(float("nan")) == plots.DASH


def test_the_headline_is_what_users_felt(tmp_path: Path) -> None:
    """Not the value that changed most: the front door's latency, then its errors, then where the time was spent."""
    store, random = FolderStore(tmp_path), np.random.default_rng(1)
    rows = []
    for group, value_name, usual, times in (
        ("HttpDispatcher", "average_response_time", 80.0, 4),
        ("Datastore/coupons", "average_response_time", 8.0, 12),
        ("Errors/all", "errors_per_minute", 2.0, 9),
        ("Controller/show", "max_response_time", 300.0, 4),
    ):
        values = usual * random.lognormal(0, 0.05, 48)
        values[30:36] *= times
        rows += slices(list(values), window=WINDOW, data_group=group, value_name=value_name)
    for row in rows:
        row["weight"] = 100.0 if row["data_group"] == "HttpDispatcher" else None
    write_roster(store, DAY, [("1", "shop")])
    write_performance(store, DAY, "1", rows_of(rows))
    view = _view(store, names={"1": "shop"})
    assert view.incidents[0][0].series[1] == "Datastore/coupons"
    heading = re.sub(r"\s+", " ", pages.heading(view))
    said = re.search(
        r"shop: HttpDispatcher average_response_time was up to 4\S* times .* from 15:00 to 18:00 UTC"
        r" \(3\d\d ms, usually \S+\)\.</strong> Errors: Errors/all errors_per_minute, up to .*"
        r" It was spent in Datastore/coupons average_response_time, up to 1\S* times .*"
        r" Also changed: Controller/show \(max_response_time\)",
        heading,
    )
    assert said, heading
    assert view.summary()["incident"].startswith("shop: HttpDispatcher average_response_time was up to 4")
    assert plots.incident(view).get_suptitle() == "Incident: shop · HttpDispatcher"
    table = re.sub(r"\s+", " ", pages.incidents(view))
    assert "HttpDispatcher" in table
    assert "Datastore/coupons" not in table
    # 48 half hours of 100 calls, and 2 errors a minute, of which a quarter of the time 9 times as many.
    assert view.overview["calls"].tolist() == [4800.0]
    assert view.overview["errors"].tolist() == pytest.approx([1440 * 2 * (7 / 8 + 9 / 8)], rel=0.05)


def test_the_days_before_stand_beside_the_day(tmp_path: Path) -> None:
    """The mean of the main value of yesterday and of a week ago; a day that was not harvested is a dash."""
    store = FolderStore(tmp_path)
    for ago, value in ((7, 30.0), (0, 60.0)):
        day = DAY - timedelta(days=ago)
        window = day_window(day, ZoneInfo("UTC"))
        write_roster(store, day, [("1", "shop")])
        write_performance(store, day, "1", rows_of(slices([value] * 40, window=window)))
        view = _view(store, day, names={"1": "shop"})
    assert view.before["day before"].to_dict() == {}
    assert view.before["week before"].to_dict() == {"1": 30.0}
    table = pages.overview(view)
    assert re.search(r">60</td>\s*<td[^>]*>\N{EN DASH}</td>\s*<td[^>]*>30</td>", table)
    assert "Highest half hour" in table
    # It has no values after 20:00.
    assert "Warriors that ran for only part of the day: 1 of 1 of shop." in table


def test_a_vendor_without_latencies_is_shown_by_its_most_variable_values(tmp_path: Path) -> None:
    """Names of quite another vendor give a report as well, and it says what it shows."""
    store, random = FolderStore(tmp_path), np.random.default_rng(1)
    load = 1.5 * random.lognormal(0, 0.2, 48)
    load[30:36] *= 9
    rows = [
        *slices(list(load), window=WINDOW, data_group="node", value_name="node_load1"),
        *slices(list(np.arange(48.0)), window=WINDOW, data_group="node", value_name="node_cpu_seconds_total"),
        *slices([1.7e9] * 48, window=WINDOW, data_group="node", value_name="node_boot_time_seconds"),
    ]
    write_roster(store, DAY, [("1", "node")])
    write_performance(store, DAY, "1", rows_of(rows))
    view = _view(store)
    assert view.main["value_name"].tolist() == ["node_load1"]
    assert any("no value looks like a latency" in caveat for caveat in view.caveats)
    assert plots.latency(view).get_suptitle() == "Main value over the day"
    assert view.incidents[0][0].series == ("1", "node", "node_load1")


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_a_day_on_which_clocks_change_has_its_hours(tmp_path: Path, day: date, hours: int) -> None:
    """Coverage has a column for each hour that the day really has, each covered."""
    store = FolderStore(tmp_path)
    window = day_window(day, ZoneInfo("Europe/Berlin"))
    write_roster(store, day, [("1", "one")])
    write_performance(store, day, "1", rows_of(slices([1.0] * 2 * hours, window=window)))
    view = _view(store, day, timezone="Europe/Berlin")
    assert view.coverage.shape == (1, hours)
    assert view.coverage.to_numpy().min() == 1.0
    assert plots.to_png(plots.coverage(view)).startswith(PNG)


def test_timeslices_longer_than_an_hour_leave_no_false_gaps(tmp_path: Path) -> None:
    """Coverage steps are as long as the longest timeslice."""
    store = FolderStore(tmp_path)
    write_performance(store, DAY, "1", rows_of(slices([1.0] * 8, window=WINDOW, seconds=3 * 3600)))
    view = _view(store)
    assert view.coverage.shape == (1, 8)
    assert view.coverage.to_numpy().min() == 1.0


def test_the_newest_day_is_opened_where_none_is_named(tmp_path: Path) -> None:
    """A notebook without a day shows the newest day that has statistics."""
    store = FolderStore(tmp_path)
    warehouse = Warehouse(store)
    with pytest.raises(ObjectNotFoundError, match="harvest one first"):
        DayView.open(warehouse)
    _view(store, DAY - timedelta(days=1))
    _view(store, DAY)
    assert DayView.open(warehouse).day == DAY
    assert DayView.open(warehouse, "2026-11-18").day == DAY - timedelta(days=1)
    with pytest.raises(ObjectNotFoundError, match="materialize it first"):
        _ = DayView.open(warehouse, "2026-11-01").daily
    with pytest.raises(ConfigurationError, match="time zone"):
        DayView.open(warehouse, "", "Mars/Olympus")


def test_the_backlog_shows_each_curve_in_the_zone_of_days() -> None:
    """A panel for each kind of work with its most and its last; dead letters only where there were any."""
    times = [WINDOW.start + timedelta(minutes=5 * n) for n in range(60)]
    waiting = {
        "troops": range(60, 0, -1),
        "warriors": [30] * 60,
        "data groups": [1200 * (n % 7) for n in range(60)],
    }
    zone = ZoneInfo("Asia/Kathmandu")
    calm = plots.backlog(times, waiting, [0] * 60, zone=zone)  # type: ignore[arg-type]
    assert [ax.get_title(loc="left") for ax in calm.axes] == ["troops", "warriors", "data groups"]
    text = " ".join(item.get_text() for ax in calm.axes for item in ax.texts)
    assert "most 60, now 1" in text
    assert "most 7,200, now" in text
    assert "Asia/Kathmandu" in calm.get_supxlabel()
    assert "10:40" in calm.get_supxlabel()
    struck = plots.backlog(times, waiting, [0] * 59 + [3], zone=zone)  # type: ignore[arg-type]
    assert struck.axes[-1].get_title(loc="left") == "dead letters"
    assert len(plots.to_png(struck)) < 40_000
