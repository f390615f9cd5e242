"""What a report says in words and tables: HTML fragments of a day, everything from the vendor escaped."""

from __future__ import annotations

import math
import re
from html import escape
from typing import Final

from vendor_assets.analytics import metrics
from vendor_assets.analytics.day import DayView, each
from vendor_assets.analytics.plots import DASH, quantity
from vendor_assets.presentable import presentable

MOST_ROWS: Final = 50
"""Rows of a table at most."""
TIMES: Final = "\N{MULTIPLICATION SIGN}"
_LONGEST: Final = 44
"""Characters of a name at most; the rest is cut, and the whole name shows when the pointer rests on it."""


def heading(view: DayView) -> str:
    """Title of the report, whether the day is complete, what must be known of it, and the day in one line."""
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
    compared = (
        f"compared with {len(view.weeks)} past weeks"
        if len(view.weeks) > 1
        else "too few past weeks to compare with"
    )
    line = (
        f"{_count(facts['troops'], 'troop')}, {_count(facts['warriors'], 'warrior')}, "
        f"{_count(facts['series'], 'series', 'series')}, {_count(facts['timeslices'], 'value')}; {compared}"
    )
    caveats = "".join(
        f"<li>{escape(presentable(text[0].upper() + text[1:], 1000))}.</li>" for text in view.caveats
    )
    return (
        f"<h1>Performance of {view.day:%A} {view.day.day} {view.day:%B %Y} "
        f'<span class="badge {badge}">{escape(word)}</span></h1>'
        f'<p class="facts">{escape(line)}. All times are {escape(view.timezone)}.</p>'
        + (f'<ul class="caveats">{caveats}</ul>' if caveats else "")
        + (f'<p class="lead">{_lead(view)}</p>' if len(view.daily) else "")
    )


def overview(view: DayView) -> str:
    """The day's troops in a table: size, calls, the main value, coverage, state."""
    rows = view.overview
    if rows.empty:
        return '<p class="facts">No troop is known for this day.</p>'
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
    note = f"The {MOST_ROWS} busiest of {len(rows):,} troops. " if len(rows) > MOST_ROWS else ""
    if one_main:
        main = next(each(mains))
        note += f"Calls and mean to max: {_value(main.data_group, main.value_name)}. "
    note += (
        "Percentiles are over warriors and timeslices, not over single calls; the mean is weighted by calls where "
        "the vendor counts them. Covered: the part of the day for which an average series has values."
    )
    return _table(heads, cells, left={0, 1} if one_main else {0, 1, 5}, note=note)


def incidents(view: DayView) -> str:
    """What was unusual, in a table; empty where nothing was."""
    if not view.incidents:
        return ""
    cells = []
    for stretch, others in view.incidents:
        troop_id, data_group, value_name = stretch.series
        cells.append(
            [
                f'<span class="nowrap">{f" {DASH} ".join(view.times(stretch))}</span>',
                _name(view.names.get(troop_id, troop_id)),
                _value(data_group, value_name),
                quantity(stretch.expected),
                quantity(stretch.peak),
                _ratio(stretch.ratio),
                escape(stretch.against),
                f"{others} more" if others else DASH,
            ]
        )
    return _table(
        ["When", "Troop", "Value", "Usual", "Then", "Times", "Against", "Also unusual"],
        cells,
        left={0, 1, 2, 6, 7},
    )


def slowest(view: DayView, count: int = 12) -> str:
    """The data groups with the largest latency, in a table."""
    found = view.slowest(count)
    if found.empty:
        return ""
    return _table(
        ["Data group", "Troop", "Value", "Warriors", "Calls", "Mean", "p95", "Max"],
        [
            [
                _name(row.data_group),
                _name(view.names.get(row.troop_id, row.troop_id)),
                _name(row.value_name),
                f"{row.warriors:,}",
                *(quantity(value) for value in (row.calls, row.mean, row.p95, row.max)),
            ]
            for row in each(found)
        ],
        left={0, 1, 2},
    )


def _lead(view: DayView) -> str:
    if not view.incidents:
        return "Nothing was clearly unusual."
    stretch, others = view.incidents[0]
    also = (
        f" {_count(others, 'more value').capitalize()} of this troop changed at the same time."
        if others
        else ""
    )
    return f"<strong>{escape(_cut(view.describe(stretch), 300))}.</strong>{escape(also)}"


def _table(heads: list[str], rows: list[list[str]], *, left: set[int], note: str = "") -> str:
    def line(cells: list[str], tag: str) -> str:
        parts = (
            f'<{tag} class="{"text" if index in left else "number"}">{cell}</{tag}>'
            for index, cell in enumerate(cells)
        )
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    small = f'<p class="note">{note}</p>' if note else ""
    return f'<table class="report"><thead>{line(heads, "th")}</thead><tbody>{body}</tbody></table>{small}'


def _name(text: str) -> str:
    short = _cut(text, _LONGEST)
    # Names have no spaces to break a line at; after these they may.
    shown = re.sub(r"([/._·|])(?=\w)", r"\1<wbr>", escape(short))
    return shown if short == text else f'<span title="{escape(presentable(text))}">{shown}</span>'


def _value(data_group: object, value_name: object) -> str:
    if not isinstance(data_group, str) or not isinstance(value_name, str):
        return DASH
    unit = metrics.unit_of(value_name)
    told = f' <span class="unit">[{escape(unit)}]</span>' if unit else ""
    return f"{_name(data_group)} · {_name(value_name)}{told}"


def _cut(text: str, most: int) -> str:
    return presentable(text, most)


def _state(state: str) -> str:
    kinds = {"complete": "good", "partial": "fair", "empty": "fair", "missing": "bad"}
    return f'<span class="badge {kinds.get(state, "fair")}">{escape(state)}</span>'


def _ratio(ratio: float) -> str:
    if not math.isfinite(ratio):
        return "new"
    return f"{TIMES} {ratio:.3g}"


def _count(number: object, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
