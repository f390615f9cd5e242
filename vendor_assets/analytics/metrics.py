"""Metrics of performance data: pure functions over numbers and frames; no I/O.

Values that are NaN, infinite or null count as absent everywhere. Nothing to compute from gives NaN, never an
error: a day without data is a day, not a fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

Numbers = Sequence[float] | npt.NDArray[np.float64] | pd.Series

DEVIATION: Final = 4.0
"""From this score on, a timeslice counts as unusual: that many robust standard deviations off."""
SCORE_CAP: Final = 10.0
"""Scores above this count as this: how far off a quiet series is says little beyond a point."""
RELATIVE_SPREAD: Final = 0.1
"""The smallest spread that is believed, as a part of the expected value."""
_LEAST_WEEKS: Final = 2
"""Past weeks without which the past says too little."""
_HARMLESS: Final = 0.25
"""How much a change to the harmless side (a fall of a latency, a rise of traffic) counts."""
_MOST_DOUBLINGS: Final = 6.0
"""What is further off than 64 times counts as this; so does what comes from nothing."""
_LEAST_SLICES: Final = 8
"""Timeslices without which a series has no level of its own."""
_SHIFT: Final = 12.0
"""Severity of a whole day on twice (or half) the usual level: four times is an incident, twice is not."""
_EXTREME_COUNTS: Final = 0.7
"""How much an extreme (a minimum, a maximum) counts: it swings more than an average, and says less."""
INCIDENT: Final = 25.0
"""The least severity of a stretch worth telling: about three timeslices of twice the usual, clearly off."""
MAD_TO_SIGMA: Final = 1.4826
"""Standard deviations per median absolute deviation of a normal distribution."""

_LATENCY: Final = re.compile(
    r"latency|response_?time|duration|elapsed|(^|_)(ms|millis|milliseconds|seconds)(_|$)"
)
_NOT_LATENCY: Final = re.compile(
    r"_(total|count|sum|bucket|created|info)$|timestamp|(boot|start|node|last\w*|expir\w*)_time|uptime|interval|timeout|cpu|per_minute|throughput"
)
_EXTREME_WORDS: Final = r"(?:^|_)(?:min|max|minimum|maximum|stddev|sum_of_squares)(?:_|$)"
_EXTREME: Final = re.compile(_EXTREME_WORDS)
_TYPICAL: Final = re.compile(r"(^|_)(average|avg|mean|median|p50)(_|$)")
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


def _finite(values: Numbers) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def percentiles(
    values: Numbers, shares: Sequence[float] = (0.5, 0.95, 0.99), *, weights: Numbers | None = None
) -> tuple[float, ...]:
    """Percentiles of values, in the order of ``shares``.

    Without weights they are interpolated linearly, as ``daily_performance`` does. With weights a percentile is the
    smallest value at which the running weight reaches its share of the whole: a value of weight 3 counts as three
    equal values. Weights that are absent or not positive leave their value out.

    Args:
        values: Any number of values.
        shares: Each 0 to 1.
        weights: As many as values.

    Raises:
        ValueError: A share is outside 0 to 1, or the lengths differ.
    """
    if any(not 0 <= share <= 1 for share in shares):
        message = f"percentiles {tuple(shares)} are not all between 0 and 1"
        raise ValueError(message)
    numbers = _finite(values)
    if weights is None:
        present = numbers[np.isfinite(numbers)]
        if not present.size:
            return tuple(math.nan for _ in shares)
        return tuple(float(found) for found in np.quantile(present, list(shares)))
    heavy = _same_length(numbers, weights)
    usable = np.isfinite(numbers) & np.isfinite(heavy) & (heavy > 0)
    if not usable.any():
        return tuple(math.nan for _ in shares)
    order = np.argsort(numbers[usable], kind="stable")
    present, running = numbers[usable][order], np.cumsum(heavy[usable][order])
    # A hair less than the exact share, so that rounding of the running sum never skips the right value.
    wanted = np.asarray(shares) * running[-1] * (1 - 1e-12)
    found = np.minimum(np.searchsorted(running, wanted), present.size - 1)
    return tuple(float(present[index]) for index in found)


def weighted_mean(values: Numbers, weights: Numbers | None = None) -> float:
    """Mean of values, weighted where there are weights whose sum is positive, else plain.

    This is the rule of ``daily_performance.mean``: values without a weight are left out of a weighted mean.
    """
    numbers = _finite(values)
    present = np.isfinite(numbers)
    if weights is not None:
        heavy = _same_length(numbers, weights)
        usable = present & np.isfinite(heavy) & (heavy > 0)
        if usable.any():
            return float(np.average(numbers[usable], weights=heavy[usable]))
    return float(numbers[present].mean()) if present.any() else math.nan


def apdex(values: Numbers, threshold: float, *, weights: Numbers | None = None) -> float:
    """Apdex score, 0 to 1: (satisfied + tolerating / 2) / all, as the Apdex Alliance defines it.

    Satisfied are values up to the threshold, tolerating those up to four times it.

    Args:
        values: Response times, in the unit of the threshold.
        threshold: The target time T, above 0.
        weights: Calls that each value stands for; 1 each if not given.

    Raises:
        ValueError: The threshold is not above 0, or the lengths differ.
    """
    if not threshold > 0:
        message = f"the Apdex threshold {threshold} is not above 0"
        raise ValueError(message)
    numbers = _finite(values)
    heavy = np.ones_like(numbers) if weights is None else _same_length(numbers, weights)
    usable = np.isfinite(numbers) & np.isfinite(heavy) & (heavy > 0)
    total = float(heavy[usable].sum())
    if total == 0:
        return math.nan
    satisfied = float(heavy[usable & (numbers <= threshold)].sum())
    tolerating = float(heavy[usable & (numbers > threshold) & (numbers <= 4 * threshold)].sum())
    return (satisfied + tolerating / 2) / total


@dataclass(frozen=True)
class Saturation:
    """How full something was, all as shares of its capacity.

    Attributes:
        mean: Mean use.
        peak: Largest use; above 1 where more was asked than there is.
        busy: Part of the values at or above the level that counts as busy.
    """

    mean: float
    peak: float
    busy: float


def saturation(values: Numbers, capacity: float, *, busy_from: float = 0.8) -> Saturation:
    """How full something with a capacity was: CPU percent of 100, memory of its limit, calls of a quota.

    Args:
        values: Use, in the unit of the capacity.
        capacity: What there is, above 0.
        busy_from: From which share of the capacity on it counts as busy.

    Raises:
        ValueError: The capacity is not above 0.
    """
    if not capacity > 0:
        message = f"the capacity {capacity} is not above 0"
        raise ValueError(message)
    used = _finite(values) / capacity
    used = used[np.isfinite(used)]
    if not used.size:
        return Saturation(math.nan, math.nan, math.nan)
    return Saturation(float(used.mean()), float(used.max()), float((used >= busy_from).mean()))


def unit_of(value_name: str) -> str:
    """The unit that a value's name tells, or an empty string where it tells none."""
    name = value_name.lower()
    return next((unit for pattern, unit in _UNITS if pattern.search(name)), "")


def is_latency(value_name: str) -> bool:
    """Whether a value's name says that it is a time that somebody waits for."""
    name = value_name.lower()
    return bool(_LATENCY.search(name)) and not _NOT_LATENCY.search(name)


def is_counter(value_name: str) -> bool:
    """Whether a value's name says that it only counts upward, or is a moment: not worth a plot as it is."""
    return bool(_COUNTER.search(value_name.lower()))


def is_better_high(value_name: str) -> bool:
    """Whether a fall of this value is the bad news: traffic, scores, what is free."""
    name = value_name.lower()
    return bool(_BETTER_HIGH.search(name)) and not _ERRORS.search(name)


def main_values(daily: pd.DataFrame) -> pd.DataFrame:
    """For each troop the one value by which to judge it: its latency where it has one.

    Among latency-like values typical ones (an average, a median) go before others and extremes come last; among
    data groups the troop's entry (``HttpDispatcher`` and its like) goes first, then the one in which most time
    was spent (mean times calls). A troop without any latency-like value is judged by the value that varies most
    over the day, counters last.

    Args:
        daily: Rows of ``daily_performance``: ``troop_id, data_group, value_name, timeslices, mean, p50, p95,
            calls``.

    Returns:
        One row per troop that has any value: ``troop_id, data_group, value_name, latency`` (bool).
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
    # Entry groups are a matter of latency only.
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


def slowest_groups(daily: pd.DataFrame, main: pd.DataFrame, count: int = 12) -> pd.DataFrame:
    """The data groups with the largest latency, over all warriors of their troop.

    Args:
        daily: Rows of ``daily_performance``.
        main: What ``main_values`` says: only each troop's main value name is compared.
        count: How many rows at most.

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
    return found.head(count)[columns].reset_index(drop=True)


def anomalies(day: pd.DataFrame, history: pd.DataFrame, *, by: Sequence[str], timezone: str) -> pd.DataFrame:
    """How unusual each timeslice is against the same hour of past weeks.

    The expected value is the median of the series in the same local hour of the same weekday in the history; the
    spread is the median absolute deviation there, in standard deviations, at least a tenth of the expected value
    (Iglewicz and Hoaglin's modified z-score). A series that has this hour in fewer than two past weeks is compared
    with its own day: its median and its spread over the day. One week alone may itself have been unusual.

    Where instances come and go, a series may lie on another level than in past weeks all day long. ``level`` is
    that shift, and ``within`` scores what is left of a timeslice once it is taken out.

    Args:
        day: ``by`` columns, ``timeslice_start`` (aware), ``value``.
        history: The same columns, of past days; may be empty.
        by: Columns that name a series.
        timezone: In which hours are told, an IANA name.

    Returns:
        The rows of ``day`` that have a value, with ``expected``, ``spread``, ``score`` (how many spreads off;
        negative is below), ``ratio`` (value / expected), ``level`` (the median ratio of the series' day, 1 for a
        short life), ``within`` (the score against ``level`` times what was expected) and ``against`` (``past weeks``
        or ``the day itself``).
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
    # A few past values may agree by luck: no spread below a fraction of the day's own is believed.
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
        series: The values of the series' columns, in their order.
        start: Start of its first timeslice.
        end: End of its last timeslice.
        severity: How unusual it was in all: capped scores times doublings, summed over its timeslices; less for a
            change to the harmless side and for extremes.
        ratio: Largest (or, for a fall, smallest) value over what was expected; NaN where nothing was expected.
        peak: The value furthest off.
        expected: What was expected then.
        against: What it was compared with: ``past weeks`` or ``the day itself``.
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
        """How far off it was, in words: ``up to 8 times the usual``."""
        usual = "the usual" if self.against == "past weeks" else "the day's median"
        if not math.isfinite(self.ratio) or self.ratio <= 0:
            return f"at {self.peak:.3g}, where {self.expected:.3g} is {usual},"
        return (
            f"up to {self.ratio:.3g} times {usual}"
            if self.ratio >= 1
            else f"down to {self.ratio:.0%} of {usual}"
        )


def stretches(scored: pd.DataFrame, *, by: Sequence[str], gap: int = 1) -> list[Stretch]:
    """Stretches of unusual timeslices, most severe first.

    Timeslices of one series whose scores are off to the same side by ``DEVIATION`` or more, with at most ``gap``
    usual ones between, are one stretch. Each counts with its score (capped) times its doublings or halvings
    (capped at 2^6), so that what is far off for long comes before what is a little off for longer. A timeslice
    that is off only because the series' whole day is counts nothing by itself; the shift counts once for the
    stretch. A change to the harmless side (latency falls, traffic rises) counts a quarter, a minimum or maximum
    seven tenths; both are told from ``value_name``, where it is one of ``by``.

    Args:
        scored: What ``anomalies`` gives, with ``timeslice_end``.
        by: Columns that name a series.
        gap: How many usual timeslices may lie inside a stretch.
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
    new = (rows["_series"].diff() != 0) | (rows["_side"].diff() != 0) | (rows["_place"].diff() > gap + 1)
    rows["_stretch"] = new.cumsum()
    shift = (_log2(rows["level"]) * rows["_side"]).clip(lower=0.0) * _SHIFT
    rows["_severity"] = (score * doublings).where(own, 0.0) + shift.where(new, 0.0)
    if "value_name" in keys:
        good = {name: is_better_high(name) for name in rows["value_name"].unique()}
        harmless = rows["value_name"].map(good).astype(bool) == (rows["_side"] > 0)
        rows["_severity"] = rows["_severity"].where(~harmless, rows["_severity"] * _HARMLESS)
        extreme = rows["value_name"].str.lower().str.contains(_EXTREME_WORDS)
        rows["_severity"] = rows["_severity"].where(~extreme, rows["_severity"] * _EXTREME_COUNTS)
    found = [_stretch(part, keys) for _, part in rows.groupby("_stretch", sort=False)]
    return sorted(found, key=lambda stretch: (-stretch.severity, stretch.series, stretch.start))


def _log2(ratios: pd.Series) -> pd.Series:
    """Doublings, negative for halvings; NaN where a ratio is not above 0."""
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


def incidents(
    found: Iterable[Stretch], *, group: int = 0, count: int = 5, least: float = INCIDENT
) -> list[tuple[Stretch, int]]:
    """Stretches that overlap in time within one group, told once: by the most severe of them.

    Args:
        found: Stretches, most severe first.
        group: Which part of ``series`` names the group, as the troop does.
        count: How many at most.
        least: The severity from which on a stretch opens an incident.

    Returns:
        The most severe stretch of each incident and how many more belong to it.
    """
    told: list[list[Stretch]] = []
    for stretch in found:
        home = next(
            (
                members
                for members in told
                if members[0].series[group] == stretch.series[group]
                and stretch.start < members[0].end
                and members[0].start < stretch.end
            ),
            None,
        )
        if home is not None:
            home.append(stretch)
        elif stretch.severity >= least:
            told.append([stretch])
    return [(members[0], len(members) - 1) for members in told[:count]]


def _same_length(numbers: npt.NDArray[np.float64], weights: Numbers) -> npt.NDArray[np.float64]:
    heavy = _finite(weights)
    if heavy.shape != numbers.shape:
        message = f"{heavy.size} weights for {numbers.size} values; give one for each"
        raise ValueError(message)
    return heavy
