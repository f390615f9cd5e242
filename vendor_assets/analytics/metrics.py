"""Metrics of performance data: pure functions over frames.

NaN, infinite and null values count as absent; empty input gives empty output, never an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

DEVIATION: Final = 4.0
"""Score, in robust standard deviations, from which a timeslice counts as unusual."""
SCORE_CAP: Final = 10.0
"""Higher scores are capped: for a quiet series they mean little."""
RELATIVE_SPREAD: Final = 0.1
"""Minimum spread, as a part of the expected value."""
_LEAST_WEEKS: Final = 2
"""Fewest past weeks to compare with."""
_HARMLESS: Final = 0.25
"""Weight of a harmless change (latency falls, traffic rises)."""
_MOST_DOUBLINGS: Final = 6.0
"""Cap: ratios above 64 count as 64, and so do values where 0 was expected."""
_LEAST_SLICES: Final = 8
"""Fewest timeslices from which to tell a series' level."""
_SHIFT: Final = 12.0
"""Severity of a day at twice (or half) the usual level: four times is an incident, twice is not."""
_EXTREME_COUNTS: Final = 0.7
"""Weight of a minimum or maximum, which fluctuates more than an average and says less."""
INCIDENT: Final = 25.0
"""Least severity of an incident: about three timeslices that are clearly off at twice the usual."""
MAD_TO_SIGMA: Final = 1.4826
"""Standard deviations per median absolute deviation of a normal distribution."""

_LATENCY: Final = re.compile(
    r"latency|response_?time|duration|elapsed|(^|_)(ms|millis|milliseconds|seconds)(_|$)"
)
_NOT_LATENCY: Final = re.compile(
    r"_(total|count|sum|bucket|created|info)$|timestamp|(boot|start|node|last\w*|expir\w*)_time|uptime|interval|timeout|cpu|per_minute|throughput"
)
_EXTREME: Final = re.compile(r"(?:^|_)(?:min|max|minimum|maximum|stddev|sum_of_squares)(?:_|$)")
_TYPICAL: Final = re.compile(r"(^|_)(average|avg|mean|median|p50)(_|$)|^histogram_quantile\(0\.5,")
_RATE: Final = re.compile(r"rate\(.*\)", re.DOTALL)
_METRIC: Final = re.compile(r"(?:rate\(|histogram_quantile\([0-9.]+, )?([^{]*?)(?:\{.*|\))?", re.DOTALL)
"""A value's name: a metric, perhaps with labels after it and a function around it."""
_COUNTER: Final = re.compile(
    r"_(total|count|sum|bucket|created|info)$|timestamp|(boot|start|node|last\w*)_time"
)
_BETTER_HIGH: Final = re.compile(
    r"calls|requests|throughput|per_second|score|satisfied|success|available|^up$|hit|free"
)
_ERRORS: Final = re.compile(r"error|fail|exception|reject|timeout|5xx", re.IGNORECASE)
_ENTRY: Final = re.compile(
    r"^(httpdispatcher|webtransaction|http_server|http_request|request)", re.IGNORECASE
)

_UNITS: Final = (
    (re.compile(r"(^|_)(ms|millis|milliseconds)(_|$)|response_time$"), "ms"),
    (re.compile(r"per_minute$"), "per minute"),
    (re.compile(r"_seconds(_|$)"), "s"),
    (re.compile(r"(^|_)mb(_|$)"), "MB"),
    (re.compile(r"_bytes(_|$)"), "bytes"),
    (re.compile(r"(^|_)percent(_|$)"), "%"),
    (re.compile(r"(^|_)count$|_total$|^count$"), "count"),
    (re.compile(r"(^|_)(ratio|rate|score)$"), "share"),
)


def unit_of(value_name: str) -> str:
    """The unit in a value's name; empty if there is none."""
    name = _metric(value_name)
    unit = next((unit for pattern, unit in _UNITS if pattern.search(name)), "")
    if _RATE.fullmatch(value_name):
        return "per second" if unit in ("", "count") else f"{unit}/s"
    return unit


def _metric(value_name: str) -> str:
    """The metric of a value, in lower case; labels may hold any words, and functions are not part of its name."""
    found = _METRIC.fullmatch(value_name.lower())
    return found[1] if found else value_name.lower()


def is_latency(value_name: str) -> bool:
    """Whether a value's name is that of a latency."""
    name = _metric(value_name)
    return bool(_LATENCY.search(name)) and not _NOT_LATENCY.search(name)


def is_counter(value_name: str) -> bool:
    """Whether a value's name is that of a counter or a point in time, which say little in a plot."""
    return bool(_COUNTER.search(_metric(value_name))) and not _RATE.fullmatch(value_name)


def is_better_high(value_name: str) -> bool:
    """Whether a fall of this value is bad: traffic, scores, free capacity."""
    return bool(_BETTER_HIGH.search(_metric(value_name))) and not _ERRORS.search(value_name)


def is_error(name: str) -> bool:
    """Whether a data group or a value counts errors, by its name."""
    return bool(_ERRORS.search(name))


def errors(daily: pd.DataFrame, minutes: float) -> pd.Series:
    """Errors of each troop on a day of so many minutes, by troop id: of its data group that has most.

    Only values per minute and per second are counted, since what a count is since when differs by vendor.
    """
    names = daily["value_name"].unique()
    per_minute = {name: {"per minute": 1.0, "per second": 60.0}.get(unit_of(name), 0.0) for name in names}
    factor = daily["value_name"].map(per_minute).astype(float)
    rows = daily[daily["value_name"].map(is_error).astype(bool) & (factor > 0)]
    count = rows["mean"] * rows["covered_share"] * minutes * factor
    by_value = count.groupby([rows["troop_id"], rows["data_group"], rows["value_name"]]).sum(min_count=1)
    return by_value.groupby("troop_id").max()


def means(daily: pd.DataFrame, main: pd.DataFrame) -> pd.Series:
    """The mean of each troop's main value on a day, weighted by calls where the vendor counts them, by troop id."""
    rows = daily.merge(main, on=["troop_id", "data_group", "value_name"])
    rows = rows[rows["mean"].notna()]
    weight = rows["calls"].where(rows["calls"] > 0)
    weighted = (rows["mean"] * weight).groupby(rows["troop_id"]).sum(min_count=1)
    plain = rows.groupby("troop_id")["mean"].mean()
    return (weighted / weight.groupby(rows["troop_id"]).sum(min_count=1)).fillna(plain)


def main_values(daily: pd.DataFrame) -> pd.DataFrame:
    """The main value of each troop, by which to judge it: a latency if it has one.

    Typical latencies (an average, a median) are preferred, extremes come last; among data groups the troop's entry
    (like ``HttpDispatcher``) is preferred, then the one with most time spent (mean times calls). Without a latency it
    is the value that varies most over the day, counters last.

    Args:
        daily: Rows of ``daily_performance``: ``troop_id, data_group, value_name, timeslices, mean, p50, p95, calls``.

    Returns:
        One row per troop with any value: ``troop_id, data_group, value_name, latency`` (bool).
    """
    columns = ["troop_id", "data_group", "value_name", "latency"]
    known = daily[daily["timeslices"] > 0]
    if known.empty:
        return pd.DataFrame(
            {name: pd.Series(dtype=bool if name == "latency" else object) for name in columns}
        )
    # Over warriors: sums of time and calls, medians of the rest.
    frame = known.assign(time=known["mean"].abs() * known["calls"].fillna(known["timeslices"]).astype(float))
    groups = (
        frame.groupby(["troop_id", "data_group", "value_name"], sort=True)
        .agg(time=("time", "sum"), p50=("p50", "median"), p95=("p95", "median"))
        .reset_index()
    )
    ranks = {name: _value_rank(name) for name in groups["value_name"].unique()}
    groups["latency"] = groups["value_name"].map(is_latency).astype(bool)
    groups["rank"] = groups["value_name"].map(ranks)
    groups["entry"] = groups["data_group"].map(lambda name: 0 if _ENTRY.match(name) else 1)
    varies = (groups["p95"] - groups["p50"]).abs() / groups["p50"].abs().where(groups["p50"] != 0, np.nan)
    groups["size"] = np.where(groups["latency"], groups["time"], varies.fillna(0.0).clip(upper=1e6))
    # Entry groups matter for latency only.
    groups["entry"] = groups["entry"].where(groups["latency"], 1)
    best = groups.sort_values(
        ["troop_id", "rank", "entry", "size", "data_group", "value_name"],
        ascending=[True, True, True, False, True, True],
    )
    return best.drop_duplicates("troop_id")[columns].reset_index(drop=True)


def _value_rank(value_name: str) -> int:
    name = value_name.lower()
    if is_latency(name):
        if _EXTREME.search(name):
            return 2
        return 0 if _TYPICAL.search(name) else 1
    return 4 if is_counter(name) else 3


def slowest_groups(daily: pd.DataFrame, main: pd.DataFrame) -> pd.DataFrame:
    """The twelve data groups with the largest latency, over all warriors of their troop.

    Only each troop's value name in ``main``, the result of ``main_values``, is compared.

    Returns:
        ``troop_id, data_group, value_name, warriors, calls, mean`` (weighted by calls), ``p95`` and ``max`` (the
        largest of any warrior), largest mean first.
    """
    columns = ["troop_id", "data_group", "value_name", "warriors", "calls", "mean", "p95", "max"]
    rows = daily.merge(main[["troop_id", "value_name"]], on=["troop_id", "value_name"])
    rows = rows[rows["mean"].notna()]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    weight = rows["calls"].where(rows["calls"] > 0)
    rows = rows.assign(weight=weight, product=rows["mean"] * weight)
    found = (
        rows.groupby(["troop_id", "data_group", "value_name"])
        .agg(
            warriors=("warrior_id", "nunique"),
            calls=("weight", "sum"),
            product=("product", "sum"),
            plain=("mean", "mean"),
            p95=("p95", "max"),
            max=("max", "max"),
        )
        .reset_index()
    )
    found["mean"] = (found["product"] / found["calls"].where(found["calls"] > 0)).fillna(found["plain"])
    found["calls"] = found["calls"].where(found["calls"] > 0)
    found = found.sort_values(["mean", "troop_id", "data_group"], ascending=[False, True, True])
    return found.head(12)[columns].reset_index(drop=True)


def anomalies(day: pd.DataFrame, history: pd.DataFrame, *, by: Sequence[str], timezone: str) -> pd.DataFrame:
    """Score each timeslice against the same hour of past weeks (Iglewicz and Hoaglin's modified z-score).

    The expected value is the median in the same local hour and weekday of the history; the spread is the median
    absolute deviation there, in standard deviations, and at least a tenth of the expected value. With fewer than two
    past weeks, of which one may have been unusual, a series is compared with its own day.

    Where instances come and go, a series may be at another level than in past weeks all day. ``level`` is that shift,
    and ``within`` is the score without it.

    Args:
        day: ``by`` columns, which identify a series, ``timeslice_start`` (aware), ``value``.
        history: The same columns of past days; may be empty.
        timezone: Time zone of hours, an IANA name.

    Returns:
        The rows of ``day`` with a value, and ``expected``, ``spread``, ``score`` (deviation in spreads, negative is
        below), ``ratio`` (value / expected), ``level`` (the series' median ratio, 1 if it is short), ``within`` (the
        score against ``level`` times ``expected``) and ``against`` (``past weeks`` or ``the day itself``).
    """
    keys = list(by)
    rows = day[np.isfinite(day["value"].to_numpy(dtype=float, na_value=np.nan))].copy()
    rows["_hour"] = _hour_of_week(rows["timeslice_start"], timezone)
    past = history[np.isfinite(history["value"].to_numpy(dtype=float, na_value=np.nan))].copy()
    past["_hour"] = _hour_of_week(past["timeslice_start"], timezone)

    own = _centre_and_spread(rows, keys, "own")
    weekly = _centre_and_spread(past, [*keys, "_hour"], "past")
    rows = rows.merge(own, on=keys, how="left").merge(weekly, on=[*keys, "_hour"], how="left")
    known = rows["past_days"].fillna(0) >= _LEAST_WEEKS
    rows["expected"] = rows["past_centre"].where(known, rows["own_centre"])
    # A few past values may agree by chance, so the spread is at least a fraction of the day's own.
    weekly_spread = np.maximum(rows["past_spread"], 0.2 * rows["own_spread"])
    spread = weekly_spread.where(known, rows["own_spread"])
    floor = RELATIVE_SPREAD * np.maximum(rows["expected"].abs(), rows["own_size"])
    rows["spread"] = np.maximum(spread.fillna(0.0), floor)
    off = rows["value"] - rows["expected"]
    rows["score"] = (off / rows["spread"].where(rows["spread"] > 0)).fillna(0.0)
    rows["ratio"] = rows["value"] / rows["expected"].where(rows["expected"] != 0)
    by_series = rows.groupby(keys)["ratio"]
    shift = by_series.transform("median").where(by_series.transform("count") >= _LEAST_SLICES)
    rows["level"] = shift.where(known & (shift > 0), 1.0)
    shifted = rows["value"] - rows["expected"] * rows["level"]
    rows["within"] = (shifted / (rows["spread"] * rows["level"]).where(rows["spread"] > 0)).fillna(0.0)
    rows["against"] = np.where(known, "past weeks", "the day itself")
    extra = [name for name in rows if name.startswith(("own_", "past_", "_hour"))]
    found: pd.DataFrame = rows.drop(columns=extra).reset_index(drop=True)
    return found


def _hour_of_week(instants: pd.Series, timezone: str) -> pd.Series:
    local = pd.to_datetime(instants, utc=True).dt.tz_convert(timezone)
    found: pd.Series = local.dt.day_of_week * 24 + local.dt.hour
    return found


def _centre_and_spread(rows: pd.DataFrame, keys: list[str], prefix: str) -> pd.DataFrame:
    centre = rows.groupby(keys)["value"].median().rename(f"{prefix}_centre").reset_index()
    joined = rows[[*keys, "timeslice_start", "value"]].merge(centre, on=keys)
    joined["_day"] = pd.to_datetime(joined["timeslice_start"], utc=True).dt.floor("D")
    joined["_off"] = (joined["value"] - joined[f"{prefix}_centre"]).abs()
    joined["_size"] = joined["value"].abs()
    found = joined.groupby(keys).agg(
        spread=("_off", "median"), days=("_day", "nunique"), size=("_size", "mean")
    )
    found = found.rename(columns=lambda name: f"{prefix}_{name}").reset_index()
    found[f"{prefix}_spread"] *= MAD_TO_SIGMA
    return centre.merge(found, on=keys)


@dataclass(frozen=True)
class Stretch:
    """A stretch of time in which one series was unusual.

    Attributes:
        series: The values of the columns that identify the series.
        severity: See :func:`stretches`.
        ratio: The largest (for a fall, smallest) ratio of a value to the expected one; NaN if that was 0.
        peak: The most unusual value.
        expected: The value expected then.
        against: The comparison: ``past weeks`` or ``the day itself``.
    """

    series: tuple[str, ...]
    start: datetime
    end: datetime
    severity: float
    ratio: float
    peak: float
    expected: float
    against: str

    @property
    def change(self) -> str:
        """The deviation in words, like ``up to 8 times the usual``."""
        usual = "the usual" if self.against == "past weeks" else "the day's median"
        if not math.isfinite(self.ratio) or self.ratio <= 0:
            return f"at {self.peak:.3g}, where {self.expected:.3g} is {usual},"
        return (
            f"up to {self.ratio:.3g} times {usual}"
            if self.ratio >= 1
            else f"down to {self.ratio:.0%} of {usual}"
        )


def stretches(scored: pd.DataFrame, *, by: Sequence[str]) -> list[Stretch]:
    """Stretches of unusual timeslices, most severe first.

    A stretch are timeslices of one series whose scores deviate by ``DEVIATION`` or more to the same side, with at most
    one usual one between. Its severity is the sum of capped scores times capped doublings or halvings. Timeslices
    that only follow the shift of the series' whole day do not count; the shift counts once. A harmless change (latency
    falls, traffic rises) counts a quarter, a minimum or maximum seven tenths, if ``by`` has ``value_name``.

    Args:
        scored: The result of ``anomalies``, with ``timeslice_end``.
    """
    keys = list(by)
    if scored.empty:
        return []
    rows = scored.sort_values([*keys, "timeslice_start"]).copy()
    rows["_place"] = rows.groupby(keys, sort=False).cumcount()
    rows = rows[rows["score"].abs() >= DEVIATION].copy()
    if rows.empty:
        return []
    rows["_side"] = np.sign(rows["score"])
    own = (rows["within"] * rows["_side"]) >= DEVIATION
    score = rows[["score", "within"]].abs().min(axis=1).clip(upper=SCORE_CAP)
    doublings = _log2(rows["ratio"] / rows["level"]).abs().fillna(_MOST_DOUBLINGS).clip(upper=_MOST_DOUBLINGS)
    rows["_series"] = rows.groupby(keys, sort=False).ngroup()
    new = (rows["_series"].diff() != 0) | (rows["_side"].diff() != 0) | (rows["_place"].diff() > 2)
    rows["_stretch"] = new.cumsum()
    shift = (_log2(rows["level"]) * rows["_side"]).clip(lower=0.0) * _SHIFT
    rows["_severity"] = (score * doublings).where(own, 0.0) + shift.where(new, 0.0)
    if "value_name" in keys:
        good = {name: is_better_high(name) for name in rows["value_name"].unique()}
        harmless = rows["value_name"].map(good).astype(bool) == (rows["_side"] > 0)
        rows["_severity"] = rows["_severity"].where(~harmless, rows["_severity"] * _HARMLESS)
        extreme = rows["value_name"].str.lower().str.contains(_EXTREME)
        rows["_severity"] = rows["_severity"].where(~extreme, rows["_severity"] * _EXTREME_COUNTS)
    found = [_stretch(part, keys) for _, part in rows.groupby("_stretch", sort=False)]
    return sorted(found, key=lambda stretch: (-stretch.severity, stretch.series, stretch.start))


def _log2(ratios: pd.Series) -> pd.Series:
    """Base-2 logarithms; NaN for ratios not above 0."""
    return pd.Series(np.log2(ratios.where(ratios > 0).to_numpy(dtype=float)), index=ratios.index)


def _stretch(part: pd.DataFrame, keys: list[str]) -> Stretch:
    far = _log2(part["ratio"]).abs()
    furthest: Any = (far if far.notna().any() else part["score"].abs()).idxmax()
    worst: Any = part.loc[furthest]
    return Stretch(
        series=tuple(str(worst[key]) for key in keys),
        start=part["timeslice_start"].min().to_pydatetime(),
        end=part["timeslice_end"].max().to_pydatetime(),
        severity=float(part["_severity"].sum()),
        ratio=float(worst["ratio"]),
        peak=float(worst["value"]),
        expected=float(worst["expected"]),
        against=str(worst["against"]),
    )


def incidents(found: Iterable[Stretch]) -> list[tuple[Stretch, list[Stretch]]]:
    """Merge stretches of a troop that overlap in time; they and the five incidents are most severe first.

    Returns:
        The most severe stretch of each incident, and its other stretches.
    """
    told: list[list[Stretch]] = []
    for stretch in found:
        for members in told:
            worst = members[0]
            same_troop = worst.series[0] == stretch.series[0]
            if same_troop and stretch.start < worst.end and worst.start < stretch.end:
                members.append(stretch)
                break
        else:
            if stretch.severity >= INCIDENT:
                told.append([stretch])
    return [(worst, others) for worst, *others in told[:5]]
