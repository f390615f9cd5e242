"""What a report says in words and tables: HTML fragments of a day, everything from the vendor escaped."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from vendor_assets.analytics import metrics
from vendor_assets.analytics.day import DayView
from vendor_assets.analytics.plots import quantity

MOST_ROWS: Final = 50
"""Rows of a table at most."""
_LONGEST: Final = 80
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
    compared = len(view.weeks)
    line = (
        f"{_count(facts['troops'], 'troop')}, {_count(facts['warriors'], 'warrior')}, "
        f"{_count(facts['series'], 'series', 'series')}, {_count(facts['timeslices'], 'value')}; "
        f"compared with {_count(compared, 'past week')}"
    )
    caveats = "".join(f"<li>{escape(text[0].upper() + text[1:])}.</li>" for text in view.caveats)
    return (
        f"<h1>Performance of {view.day:%A} {view.day.day} {view.day:%B %Y} "
        f'<span class="badge {badge}">{escape(word)}</span></h1>'
        f'<p class="facts">{escape(line)}. All times are {escape(view.timezone)}.</p>'
        + (f'<ul class="caveats">{caveats}</ul>' if caveats else "")
        + f'<p class="lead">{_lead(view)}</p>'
    )


def overview(view: DayView) -> str:
    """The day's troops in a table: size, calls, the main value, coverage, state."""
    rows = view.overview
    if rows.empty:
        return '<p class="facts">No troop is known for this day.</p>'
    worst: dict[str, float] = {}
    for stretch, _ in view.incidents:
        worst.setdefault(stretch.series[0], stretch.ratio)
    cells = []
    for row in rows.head(MOST_ROWS).itertuples(index=False):
        main = f"{row.data_group} · {row.value_name}" if isinstance(row.value_name, str) else "–"
        unit = metrics.unit_of(row.value_name) if isinstance(row.value_name, str) else ""
        cells.append(
            [
                _name(row.troop),
                _state(row.state),
                f"{row.warriors:,}" if row.warriors else "–",
                f"{row.data_groups:,}" if row.data_groups else "–",
                quantity(row.calls),
                _name(main) + (f' <span class="unit">[{escape(unit)}]</span>' if unit else ""),
                *(quantity(value) for value in (row.mean, row.p50, row.p95, row.p99, row.max)),
                f"{row.covered_share:.0%}" if row.timeslices else "–",
                _ratio(worst[row.troop_id]) if row.troop_id in worst else "–",
            ]
        )
    note = f"The {MOST_ROWS} busiest of {len(rows):,} troops. " if len(rows) > MOST_ROWS else ""
    return _table(
        [
            "Troop",
            "State",
            "Warriors",
            "Data groups",
            "Calls",
            "Main value",
            "Mean",
            "p50",
            "p95",
            "p99",
            "Max",
            "Covered",
            "Incident",
        ],
        cells,
        left={0, 1, 5},
        note=f"{note}Percentiles are over warriors and timeslices, not over single calls; the mean is weighted by calls "
        "where the vendor counts them. Covered: the part of the day for which an average series has values.",
    )


def incidents(view: DayView) -> str:
    """What was unusual, in a table; empty where nothing was."""
    if not view.incidents:
        return ""
    cells = []
    for stretch, others in view.incidents:
        troop_id, data_group, value_name = stretch.series
        start, end = stretch.start.astimezone(view.zone), stretch.end.astimezone(view.zone)
        unit = metrics.unit_of(value_name)
        cells.append(
            [
                f"{start:%H:%M} – {end:%H:%M}",
                _name(view.names.get(troop_id, troop_id)),
                _name(f"{data_group} · {value_name}")
                + (f' <span class="unit">[{escape(unit)}]</span>' if unit else ""),
                quantity(stretch.expected),
                quantity(stretch.peak),
                _ratio(stretch.ratio),
                escape(stretch.against),
                f"{others} more" if others else "–",
            ]
        )
    return _table(
        ["When", "Troop", "Value", "Usual", "Then", "Times", "Against", "Same time, same troop"],
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
            for row in found.itertuples(index=False)
        ],
        left={0, 1, 2},
    )


def _lead(view: DayView) -> str:
    if not len(view.daily):
        return "There are no values on this day, so there is nothing to show."
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
    small = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<table class="report"><thead>{line(heads, "th")}</thead><tbody>{body}</tbody></table>{small}'


def _name(text: str) -> str:
    short = _cut(text, _LONGEST)
    return escape(short) if short == text else f'<span title="{escape(text)}">{escape(short)}</span>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _state(state: str) -> str:
    kinds = {"complete": "good", "partial": "fair", "empty": "fair", "missing": "bad"}
    return f'<span class="badge {kinds.get(state, "fair")}">{escape(state)}</span>'


def _ratio(ratio: float) -> str:
    if not math.isfinite(ratio):
        return "new"
    return f"× {ratio:.3g}"


def _count(number: object, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
