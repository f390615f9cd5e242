"""Figures of a ``DayView`` and of the backlog, by matplotlib without pyplot and its global state.

Vendor's names are shortened and escaped by :func:`label`.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from functools import lru_cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from vendor_assets.analytics import metrics
from vendor_assets.analytics.day import DayView, each
from vendor_assets.presentable import LONGEST

MOST_TROOPS: Final = 12
"""Maximum panels of the latency figure: the busiest troops."""
MOST_ROWS: Final = 40
"""Maximum rows of the coverage figure: those with the largest gaps."""
DASH: Final = "\N{EN DASH}"
"""Shown in place of a missing number."""
WIDTH: Final = 11.0
"""Width of a figure in inches."""
DPI: Final = 96
"""Eleven inches of it fit into the dialog in which Dagster shows Markdown, on a screen of 1440 pixels."""
"""1210 pixels in width, which fits the window in which Dagster shows a plot."""

INK: Final = "#22313f"
MUTED: Final = "#7b8794"
GRID: Final = "#e4e9ed"
BLUE: Final = "#1f6f8b"
LIGHT: Final = "#99c9d8"
PALE: Final = "#d5e9ef"
RED: Final = "#c8452b"
ROSE: Final = "#f8e3dc"
COVER: Final = LinearSegmentedColormap.from_list("cover", ["#f3d9d1", "#f6efe0", "#bcdcd6", "#2f8f83"])


def latency(view: DayView) -> Figure:
    """Percentiles of each troop's main value over its warriors along the day, one panel per troop."""
    known = view.overview[view.overview["value_name"].notna()]
    shown = known.head(MOST_TROOPS)
    is_latency = shown["value_name"].map(metrics.is_latency).all()
    title = "Latency over the day" if is_latency else "Main value over the day"
    if shown.empty:
        return _nothing(title, "No values on this day.")
    columns = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3
    rows = math.ceil(len(shown) / columns)
    figure = _figure(0.9 + 2.25 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, row in enumerate(each(shown)):
        ax = axes[place // columns][place % columns]
        mine = view.latency[view.latency["troop_id"] == row.troop_id]
        _panel(ax, mine, view)
        ax.set_title(label(row.troop, 42 if columns < 3 else 34), loc="left", fontsize=10, color=INK, pad=16)
        ax.text(
            0,
            1.03,
            label(f"{row.data_group} · {_warriors(row.warriors)}", 56 if columns < 3 else 46),
            transform=ax.transAxes,
            fontsize=7.5,
            color=MUTED,
        )
        ax.set_ylabel(label(_axis(row.value_name), 36), fontsize=7.5, color=MUTED)
    for place in range(len(shown), rows * columns):
        axes[place // columns][place % columns].set_axis_off()
    handles = [
        Line2D([], [], color=BLUE, linewidth=1.6, label="median over warriors"),
        Patch(color=LIGHT, label="up to the 95th percentile"),
        Patch(color=PALE, label="up to the 99th"),
    ]
    note = f"the {len(shown)} busiest of {len(known)} troops; " if len(known) > len(shown) else ""
    _head(figure, title, f"{note}time of day on {_day(view)}")
    figure.legend(
        handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=8, labelcolor=INK
    )
    return figure


def slowest(view: DayView) -> Figure:
    """The data groups with the largest mean latency, with the 95th percentile of their worst warrior."""
    found = view.slowest
    is_latency = found["value_name"].map(metrics.is_latency).all()
    title = "Slowest data groups" if is_latency else "Largest data groups"
    if found.empty:
        return _nothing(title, "No values on this day.")
    figure = _figure(1.5 + 0.34 * len(found))
    ax = figure.subplots()
    places = np.arange(len(found))[::-1]
    weighed = "mean, weighted by calls" if found["calls"].notna().any() else "mean"
    ax.barh(places, found["mean"], height=0.62, color=LIGHT, label=weighed)
    ax.plot(
        found["p95"],
        places,
        linestyle="none",
        marker="|",
        markersize=11,
        markeredgewidth=2,
        color=BLUE,
        label="95th percentile of its slowest warrior",
    )
    far = float(np.nanmax(found[["mean", "p95"]].to_numpy(dtype=float)))
    for place, row in zip(places, each(found), strict=True):
        calls = "" if math.isnan(row.calls) else f"  {quantity(row.calls)} calls"
        end = max(row.mean, row.p95) if math.isfinite(row.p95) else row.mean
        ax.text(
            end + 0.012 * far, place, f"{quantity(row.mean)}{calls}", va="center", fontsize=8, color=MUTED
        )
    ax.set_ylim(-0.7, max(len(found), 3) - 0.3)
    ax.set_yticks(
        places,
        [
            label(f"{view.names.get(row.troop_id, row.troop_id)} · {row.data_group}", 62)
            for row in each(found)
        ],
    )
    names = found["value_name"].unique()
    ax.set_xlabel(
        label(_axis(names[0]) if len(names) == 1 else "each troop's main value", 80),
        fontsize=8.5,
        color=MUTED,
    )
    ax.set_xlim(0, 1.2 * far if far > 0 else 1)
    _frame(ax, "x")
    ax.tick_params(axis="y", labelsize=8.5, length=0)
    _head(figure, title, f"over all warriors and timeslices of {_day(view)}")
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def incident(view: DayView) -> Figure:
    """The stretch in the day's headline: the value, the expected value, and each warrior."""
    title = "Incident"
    stretch = view.headline
    if stretch is None:
        unusual = "No value was clearly unusual for long enough to tell."
        return _nothing(title, unusual if len(view.daily) else "No values on this day.")
    rows, single = view.incident_rows
    troop_id, data_group, value_name = stretch.series
    figure = _figure(3.9)
    ax = figure.subplots()
    ax.axvspan(_number(stretch.start), _number(stretch.end), color=ROSE, linewidth=0, zorder=0)
    warriors = [mine for _, mine in single.groupby("warrior_id", sort=True)]
    if len(warriors) > 1:
        for index, mine in enumerate(warriors):
            times, values = _gapped(mine, "value")
            text = "each warrior" if index == 0 else None
            ax.plot(times, values, color="#b9c3cc", linewidth=0.8, zorder=1, label=text)
    times, values, expected, spread = _gapped(rows, "value", "expected", "spread")
    ax.fill_between(
        times,
        expected - metrics.DEVIATION * spread,
        expected + metrics.DEVIATION * spread,
        color=PALE,
        linewidth=0,
        zorder=1.5,
        label="usual range",
    )
    usual = "usual at this hour" if stretch.against == "past weeks" else "median of the day"
    ax.plot(times, expected, color=BLUE, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2, label=usual)
    ax.plot(times, values, color=INK, linewidth=2, zorder=3, label="mean over warriors")
    bad = rows[(rows["timeslice_start"] >= stretch.start) & (rows["timeslice_start"] < stretch.end)]
    ax.plot(*_gapped(bad, "value"), color=RED, linewidth=2.6, zorder=4, label="unusual")
    low, high = ax.get_ylim()
    ax.set_ylim(0.0 if float(rows["value"].min()) >= 0 else low, high)
    ax.set_ylabel(label(_axis(value_name), 48), fontsize=8.5, color=MUTED)
    _frame(ax, "y")
    _hours(ax, view)
    compared = "too few past weeks to compare with"
    if stretch.against == "past weeks":
        compared = f"compared with {len(view.weeks)} past weeks"
    start, end = view.times(stretch)
    text = f"{stretch.change} from {start} to {end}; {compared}; time of day on {_day(view)}"
    # As the axis label, because a legend of five parts leaves no room in the figure's last line.
    ax.set_xlabel(text, loc="left", fontsize=8, color=MUTED, labelpad=8)
    name = view.names.get(troop_id, troop_id)
    _head(figure, f"Incident: {label(name, 30)} · {label(data_group, 70)}", "")
    figure.legend(loc="outside lower right", ncols=5, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def coverage(view: DayView) -> Figure:
    """The share of each troop's series that has values, by hour."""
    title = "Coverage of the day"
    shares = view.coverage
    if shares.empty:
        return _nothing(title, "No troops on this day.")
    note = ""
    if len(shares) > MOST_ROWS:
        note = f"the {MOST_ROWS} troops with the largest gaps of {len(shares)}; "
        worst = shares.mean(axis=1).sort_values(kind="stable").index[:MOST_ROWS]
        shares = shares.loc[[troop_id for troop_id in shares.index if troop_id in set(worst)]]
    figure = _figure(1.35 + 0.3 * len(shares))
    ax = figure.subplots()
    starts = [_number(start) for start in pd.DatetimeIndex(shares.columns).to_pydatetime()]
    edges = [*starts, _number(view.window.end)]
    rows = np.arange(len(shares) + 1)
    mesh = ax.pcolormesh(
        edges, rows, shares.to_numpy(), cmap=COVER, vmin=0, vmax=1, edgecolors="white", linewidth=1
    )
    ax.invert_yaxis()
    names = [
        f"{view.names.get(troop_id, troop_id)}{_state(view.states.get(troop_id, ''))}"
        for troop_id in shares.index
    ]
    ax.set_yticks(rows[:-1] + 0.5, [label(name, 44) for name in names])
    ax.tick_params(axis="both", labelsize=8.5, length=0, labelcolor=INK)
    ax.spines[:].set_visible(False)
    _hours(ax, view)
    bar = figure.colorbar(
        mesh, ax=ax, fraction=0.025, pad=0.01, format=FuncFormatter(lambda share, _: f"{share:.0%}")
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0, labelcolor=MUTED)
    _head(
        figure,
        title,
        f"{note}share of a troop's series that have values (a warrior that lives for half a day has half); "
        f"time of day on {_day(view)}",
    )
    return figure


def backlog(
    times: Sequence[datetime], waiting: Mapping[str, Sequence[int]], dead: Sequence[int], *, zone: ZoneInfo
) -> Figure:
    """Waiting work at ascending times, one panel per kind of work; dead letters, if any, below."""
    panels = dict(waiting) | ({"dead letters": dead} if any(dead) else {})
    figure = _figure(0.9 + 1.25 * len(panels), width=8.0, dpi=80)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    along = [_number(instant) for instant in times]
    for ax, (name, numbers) in zip(axes, panels.items(), strict=True):
        colour = RED if name == "dead letters" else BLUE
        ax.fill_between(along, numbers, color=colour, alpha=0.18, linewidth=0, step="post")
        ax.step(along, numbers, color=colour, linewidth=1.4, where="post")
        ax.set_ylim(0, 1.15 * max(1, *numbers))
        ax.set_title(name, loc="left", fontsize=9, color=INK, pad=3)
        ax.text(
            1, 1.03, f"most {max(numbers):,}, now {numbers[-1]:,}", transform=ax.transAxes,
            ha="right", fontsize=8, color=MUTED,
        )  # fmt: skip
        _frame(ax, "y")
        ax.locator_params(axis="y", nbins=3, integer=True)
    locator = mdates.AutoDateLocator(tz=zone, minticks=3, maxticks=8)
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, tz=zone, show_offset=False))
    last = times[-1].astimezone(zone)
    _head(
        figure, "Waiting", f"number that waits, over the time of day; up to {last:%Y-%m-%d %H:%M} {zone.key}"
    )
    return figure


def to_png(figure: Figure) -> bytes:
    """Draw a figure as a PNG."""
    target = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(target, format="png")
    return target.getvalue()


def label(text: str, most: int) -> str:
    """A name for drawing: one line, shortened, without markup and characters that have no glyph."""
    glyphs = _glyphs()
    text = text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}{text[-LONGEST:]}"
    line = " ".join(
        "".join(
            " " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character
            for character in text
            if unicodedata.category(character) != "Cf"
        ).split()
    )
    if len(line) > most:
        keep = most - 1
        line = f"{line[: math.ceil(keep * 0.6)]}…{line[-(keep // 5 * 2) :]}"
    drawn = "".join(character if ord(character) in glyphs else "□" for character in line)
    return drawn.replace("$", r"\$")


def quantity(value: float) -> str:
    """A number with three significant digits and an SI prefix; a dash if it is not finite."""
    if not math.isfinite(value):
        return DASH
    # Round first, so that 999,999 is 1M and not 1e+03k.
    rounded = float(f"{value:.3g}")
    size = abs(rounded)
    large = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    small = ((1e-6, "\N{MICRO SIGN}"), (1e-9, "n"))
    for factor, prefix in large if size >= 1e-3 else small:
        if size >= factor:
            return f"{rounded / factor:.3g}{prefix}"
    return f"{rounded:.3g}"


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    font = get_font(findfont(FontProperties()))
    return frozenset(font.get_charmap())


def _panel(ax: Axes, rows: pd.DataFrame, view: DayView) -> None:
    times, middle, high, highest = _gapped(rows, "p50", "p95", "p99")
    ax.fill_between(times, middle, highest, color=PALE, linewidth=0)
    ax.fill_between(times, middle, high, color=LIGHT, linewidth=0)
    ax.plot(times, middle, color=BLUE, linewidth=1.6)
    top = float(np.nanmax(highest)) if np.isfinite(highest).any() else 1.0
    bottom = float(np.nanmin(middle)) if np.isfinite(middle).any() else 0.0
    if bottom >= 0:
        ax.set_ylim(0, 1.12 * top if top > 0 else 1)
    _frame(ax, "y")
    _hours(ax, view)


def _gapped(rows: pd.DataFrame, *names: str) -> tuple[Any, ...]:
    """Middles of timeslices and their values, with NaN in gaps, so that lines are interrupted."""
    ordered = rows.sort_values("timeslice_start")
    starts = ordered["timeslice_start"]
    step = starts.diff().median() if len(starts) > 1 else pd.Timedelta(0)
    times: list[float] = []
    values: list[list[float]] = [[] for _ in names]
    before = None
    for start, *row in ordered[["timeslice_start", *names]].itertuples(index=False, name=None):
        if before is not None and start - before > 1.5 * step:
            times.append(_number((before + (start - before) / 2).to_pydatetime()))
            for series in values:
                series.append(math.nan)
        times.append(_number((start + step / 2).to_pydatetime()))
        for series, value in zip(values, row, strict=True):
            series.append(float(value))
        before = start
    return (np.asarray(times), *(np.asarray(series) for series in values))


def _number(instant: datetime) -> float:
    return float(mdates.date2num(instant))


def _figure(height: float, *, width: float = WIDTH, dpi: int = DPI) -> Figure:
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.06))
    return figure


def _head(figure: Figure, title: str, text: str) -> None:
    figure.suptitle(title, x=0.008, ha="left", fontsize=13, fontweight="bold", color=INK)
    if text:
        figure.supxlabel(text, x=0.008, ha="left", fontsize=8, color=MUTED)


def _nothing(title: str, text: str) -> Figure:
    figure = _figure(0.75)
    figure.text(0.008, 0.18, text, fontsize=10, color=MUTED)
    _head(figure, title, "")
    return figure


def _frame(ax: Axes, grid: Literal["x", "y"]) -> None:
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    ax.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="both", labelsize=8, length=0, labelcolor=INK)
    ax.locator_params(axis=grid, nbins=6)
    formatter = FuncFormatter(lambda value, _: quantity(value))
    (ax.xaxis if grid == "x" else ax.yaxis).set_major_formatter(formatter)


def _hours(ax: Axes, view: DayView) -> None:
    ax.set_xlim(_number(view.window.start), _number(view.window.end))
    local = [datetime.combine(view.day, time(hour), view.zone).astimezone(UTC) for hour in range(0, 24, 4)]
    ax.set_xticks(
        [_number(tick) for tick in [*local, view.window.end]],
        [f"{tick.astimezone(view.zone):%H:%M}" for tick in [*local, view.window.end]],
    )


def _axis(value_name: str) -> str:
    unit = metrics.unit_of(value_name) or "vendor's unit"
    return f"{value_name} [{unit}]"


def _warriors(count: int) -> str:
    return "1 warrior" if count == 1 else f"{count} warriors"


def _state(state: str) -> str:
    return "" if state in ("complete", "") else f" ({state})"


def _day(view: DayView) -> str:
    return f"{view.day:%a} {view.day.day} {view.day:%B %Y}, {view.timezone}"
