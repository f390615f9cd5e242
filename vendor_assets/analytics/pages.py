"""The words and tables of a report as HTML fragments."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any, Final

from vendor_assets.analytics import metrics
from vendor_assets.analytics.day import DayView, each
from vendor_assets.analytics.plots import DASH, quantity
from vendor_assets.analytics.templates import template
from vendor_assets.presentable import counted, presentable

_PAGE: Final[Any] = template("pages.html").module

MOST_ROWS: Final = 50
"""Maximum rows of a table."""
TIMES: Final = "\N{MULTIPLICATION SIGN}"
_MOST_NAMED: Final = 5
"""Names in a sentence."""
_LONGEST: Final = 44
"""Maximum characters of a name; the whole one is its tooltip."""


def heading(view: DayView) -> str:
    """The report's title, the day's completeness, its caveats, and the day in one line."""
    states = set(view.states.values())
    missing = sum(state == "missing" for state in view.states.values())
    if not len(view.daily):
        badge, word = "bad", "no data"
    elif missing:
        badge, word = "bad", f"{missing} of {len(view.names)} troops missing"
    elif "partial" in states:
        badge, word = "fair", "partial"
    else:
        badge, word = "good", "complete"
    facts = view.summary()
    weeks = len(view.weeks)
    compared = f"compared with {weeks} past weeks" if weeks > 1 else "too few past weeks to compare with"
    line = (
        f"{counted(facts['troops'], 'troop')}, {counted(facts['warriors'], 'warrior')}, "
        f"{counted(facts['series'], 'series', 'series')}, {counted(facts['timeslices'], 'value')}; {compared}. "
        f"All times are {view.timezone}."
    )
    made = datetime.now(UTC).astimezone(view.zone)
    origin = f"{view.source + '; ' if view.source else ''}made {made.day} {made:%B %Y, %H:%M}"
    lead, also = _headline(view)
    title = f"Performance of {view.day:%A} {view.day.day} {view.day:%B %Y}"
    return str(_PAGE.heading(title, _PAGE.badge(badge, word), [line, origin], view.caveats, lead, also))


def _headline(view: DayView) -> tuple[str, str]:
    """The day's worst incident: what users of the service felt of it, then what explains it and what else changed."""
    if not view.incidents:
        return "", "Nothing was clearly unusual." if len(view.daily) else ""
    worst, others = view.incidents[0]
    felt = view.felt(view.incidents[0])
    rest = [stretch for stretch in (worst, *others) if stretch not in felt]
    first = felt[0] if felt else rest.pop(0)
    unit = metrics.unit_of(first.series[2])
    lead = f"{view.describe(first)} ({quantity(first.peak)} {unit}".rstrip() + (
        f", usually {quantity(first.expected)})" if math.isfinite(first.expected) else ")"
    )
    said = [f"Errors: {_what(stretch)}" for stretch in felt[1:]]
    if felt and rest and metrics.is_latency(rest[0].series[2]):
        said.append(f"It was spent in {_what(rest.pop(0))}")
    changed: dict[str, list[str]] = {}
    for stretch in rest:
        changed.setdefault(stretch.series[1], []).append(stretch.series[2])
    if changed:
        named = [f"{group} ({', '.join(dict.fromkeys(values))})" for group, values in changed.items()]
        more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        said.append(f"Also changed: {', '.join(named[:_MOST_NAMED])}{more}")
    return presentable(lead, 300), presentable(" ".join(f"{text}." for text in said), 1000)


def _what(stretch: metrics.Stretch) -> str:
    return f"{stretch.series[1]} {stretch.series[2]}, {stretch.change}"


def overview(view: DayView) -> str:
    """A table of the day's troops: size, calls, main value, coverage, state."""
    rows = view.overview
    if rows.empty:
        return str(_PAGE.facts("No troop is known for this day."))
    minutes = view.window.seconds / 60
    worst: dict[str, float] = {}
    for incident in view.incidents:
        worst.setdefault(incident[0].series[0], view.told(incident).ratio)
    mains = rows[["data_group", "value_name"]].dropna().drop_duplicates()
    one_main = len(mains) == 1
    cells = [
        [
            _name(row.troop),
            _state(row.state),
            f"{row.warriors:,}" if row.warriors else DASH,
            quantity(row.calls),
            quantity(row.calls / minutes),
            f"{row.errors / row.calls:.2%}" if row.calls and row.errors == row.errors else DASH,
            *([] if one_main else [_value(row.data_group, row.value_name)]),
            quantity(row.mean),
            *(quantity(means.get(row.troop_id, math.nan)) for means in view.before.values()),
            *(quantity(value) for value in (row.p50, row.p95, row.p99, row.max)),
            f"{row.covered_share:.0%}" if row.timeslices else DASH,
            _ratio(worst[row.troop_id]) if row.troop_id in worst else DASH,
        ]
        for row in each(rows.head(MOST_ROWS))
    ]
    heads = [
        "Troop",
        "State",
        "Warriors",
        "Calls",
        "Per minute",
        "Errors",
        *([] if one_main else ["Main value"]),
    ]
    heads += ["Mean", *(name.capitalize() for name in view.before), "p50", "p95", "p99"]
    heads += [f"Highest {view.timeslice}", "Covered", "Incident"]
    notes = [f"The {MOST_ROWS} busiest of {len(rows):,} troops."] if len(rows) > MOST_ROWS else []
    if one_main:
        notes.append(_PAGE.main(_value(*mains.iloc[0])))
    notes.append(
        "Percentiles are over warriors and timeslices, not over single calls; the mean is weighted by calls if "
        "the vendor counts them, followed by the means of the day and of the week before. Covered: the part of "
        "the day for which an average series has values."
    )
    part = [
        f"{count} of {row.warriors} of {row.troop}"
        for row in each(rows.head(MOST_ROWS))
        if (count := view.part_time.get(row.troop_id, 0))
    ]
    if part:
        more = f" and those of {len(part) - _MOST_NAMED} more troops" if len(part) > _MOST_NAMED else ""
        notes.append(f"Warriors that ran for only part of the day: {', '.join(part[:_MOST_NAMED])}{more}.")
    return str(_PAGE.table(heads, cells, {0, 1} if one_main else {0, 1, 6}, notes))


def incidents(view: DayView) -> str:
    """A table of the day's incidents; empty if there are none."""
    if not view.incidents:
        return ""
    cells = []
    for incident in view.incidents:
        stretch, others = view.told(incident), incident[1]
        troop_id, data_group, value_name = stretch.series
        cells.append(
            [
                _PAGE.when(f" {DASH} ".join(view.times(stretch))),
                _name(view.names.get(troop_id, troop_id)),
                _value(data_group, value_name),
                quantity(stretch.expected),
                quantity(stretch.peak),
                _ratio(stretch.ratio),
                stretch.against,
                f"{len(others)} more" if others else DASH,
            ]
        )
    heads = ["When", "Troop", "Value", "Usual", "Then", "Times", "Against", "Also unusual"]
    return str(_PAGE.table(heads, cells, {0, 1, 2, 6, 7}))


def slowest(view: DayView) -> str:
    """A table of the data groups with the largest latency."""
    found = view.slowest
    if found.empty:
        return ""
    heads = ["Data group", "Troop", "Value", "Warriors", "Calls", "Mean", "p95", f"Highest {view.timeslice}"]
    cells = [
        [
            _name(row.data_group),
            _name(view.names.get(row.troop_id, row.troop_id)),
            _name(row.value_name),
            f"{row.warriors:,}",
            *(quantity(value) for value in (row.calls, row.mean, row.p95, row.max)),
        ]
        for row in each(found)
    ]
    return str(_PAGE.table(heads, cells, {0, 1, 2}))


def _name(text: str) -> Any:
    short = presentable(text, _LONGEST)
    # Names have no spaces, so lines may break after these characters.
    pieces = re.split(r"(?<=[/._·|])(?=\w)", short)
    return _PAGE.name(pieces, "" if short == text else presentable(text))


def _value(data_group: object, value_name: object) -> Any:
    if not isinstance(data_group, str) or not isinstance(value_name, str):
        return DASH
    return _PAGE.value(_name(data_group), _name(value_name), metrics.unit_of(value_name))


def _state(state: str) -> Any:
    kinds = {"complete": "good", "partial": "fair", "empty": "fair", "missing": "bad"}
    return _PAGE.badge(kinds.get(state, "fair"), state)


def _ratio(ratio: float) -> str:
    return f"{TIMES} {ratio:.3g}" if math.isfinite(ratio) else "new"
