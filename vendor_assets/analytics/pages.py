"""The words and tables of a report as HTML fragments."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from vendor_assets.analytics import metrics
from vendor_assets.analytics.day import DayView, each
from vendor_assets.analytics.plots import DASH, quantity
from vendor_assets.analytics.templates import template
from vendor_assets.presentable import presentable

_PAGE: Final[Any] = template("pages.html").module

MOST_ROWS: Final = 50
"""Maximum rows of a table."""
TIMES: Final = "\N{MULTIPLICATION SIGN}"
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
        f"{_count(facts['troops'], 'troop')}, {_count(facts['warriors'], 'warrior')}, "
        f"{_count(facts['series'], 'series', 'series')}, {_count(facts['timeslices'], 'value')}; {compared}. "
        f"All times are {view.timezone}."
    )
    lead, also = "", ""
    if view.incidents:
        stretch, others = view.incidents[0]
        lead = presentable(view.describe(stretch), 300)
        also = f"{_count(others, 'more value')} of this troop changed at the same time." if others else ""
    elif len(view.daily):
        also = "Nothing was clearly unusual."
    title = f"Performance of {view.day:%A} {view.day.day} {view.day:%B %Y}"
    return str(_PAGE.heading(title, _PAGE.badge(badge, word), line, view.caveats, lead, also))


def overview(view: DayView) -> str:
    """A table of the day's troops: size, calls, main value, coverage, state."""
    rows = view.overview
    if rows.empty:
        return str(_PAGE.facts("No troop is known for this day."))
    worst: dict[str, float] = {}
    for stretch, _ in view.incidents:
        worst.setdefault(stretch.series[0], stretch.ratio)
    mains = rows[["data_group", "value_name"]].dropna().drop_duplicates()
    one_main = len(mains) == 1
    cells = [
        [
            _name(row.troop),
            _state(row.state),
            f"{row.warriors:,}" if row.warriors else DASH,
            f"{row.data_groups:,}" if row.data_groups else DASH,
            quantity(row.calls),
            *([] if one_main else [_value(row.data_group, row.value_name)]),
            *(quantity(value) for value in (row.mean, row.p50, row.p95, row.p99, row.max)),
            f"{row.covered_share:.0%}" if row.timeslices else DASH,
            _ratio(worst[row.troop_id]) if row.troop_id in worst else DASH,
        ]
        for row in each(rows.head(MOST_ROWS))
    ]
    heads = ["Troop", "State", "Warriors", "Data groups", "Calls", *([] if one_main else ["Main value"])]
    heads += ["Mean", "p50", "p95", "p99", "Max", "Covered", "Incident"]
    notes = [f"The {MOST_ROWS} busiest of {len(rows):,} troops."] if len(rows) > MOST_ROWS else []
    if one_main:
        notes.append(_PAGE.main(_value(*mains.iloc[0])))
    notes.append(
        "Percentiles are over warriors and timeslices, not over single calls; the mean is weighted by calls where "
        "the vendor counts them. Covered: the part of the day for which an average series has values."
    )
    return str(_PAGE.table(heads, cells, {0, 1} if one_main else {0, 1, 5}, notes))


def incidents(view: DayView) -> str:
    """A table of the day's incidents; empty if there are none."""
    if not view.incidents:
        return ""
    cells = []
    for stretch, others in view.incidents:
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
                f"{others} more" if others else DASH,
            ]
        )
    heads = ["When", "Troop", "Value", "Usual", "Then", "Times", "Against", "Also unusual"]
    return str(_PAGE.table(heads, cells, {0, 1, 2, 6, 7}))


def slowest(view: DayView) -> str:
    """A table of the data groups with the largest latency."""
    found = view.slowest
    if found.empty:
        return ""
    heads = ["Data group", "Troop", "Value", "Warriors", "Calls", "Mean", "p95", "Max"]
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


def _count(number: object, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
