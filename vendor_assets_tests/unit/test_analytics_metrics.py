"""Metrics: pure functions over numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from vendor_assets.analytics import metrics

BY = ("troop_id", "data_group", "value_name")
DAY = datetime(2026, 11, 19, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "latency", "unit"),
    [
        ("average_response_time", True, "ms"),
        ("http_request_duration_seconds", True, "s"),
        ("query_latency_ms", True, "ms"),
        ("go_gc_duration_seconds", True, "s"),
        ("node_boot_time_seconds", False, "s"),
        ("process_cpu_seconds_total", False, "s"),
        ("http_request_duration_seconds_count", False, "s"),
        ("go_memstats_last_gc_time_seconds", False, "s"),
        ("calls_per_minute", False, "per minute"),
        ("node_load1", False, ""),
        ('http_request_duration_seconds_sum{path="/"}', False, "s"),
        ('disk_free_bytes{device="idle_seconds_"}', False, "bytes"),
        ('histogram_quantile(0.95, http_request_duration_seconds{path="/)"})', True, "s"),
        ("histogram_quantile(0.5, http_request_duration_seconds)", True, "s"),
        ("rate(http_request_duration_seconds_sum)", False, "s/s"),
        ('rate(node_network_receive_bytes_total{device="eth0"})', False, "bytes/s"),
        ("rate(http_requests_total)", False, "per second"),
    ],
)
def test_names_tell_latency_and_unit(name: str, latency: bool, unit: str) -> None:
    """A name says whether somebody waits for this time, whatever the vendor."""
    assert metrics.is_latency(name) is latency
    assert metrics.unit_of(name) == unit


def test_a_rate_is_no_counter() -> None:
    """A counter says little in a plot, with labels as without; its rate says how busy something is."""
    assert metrics.is_counter('http_requests_total{code="200"}')
    assert not metrics.is_counter('rate(http_requests_total{code="200"})')
    assert metrics.is_better_high('rate(http_requests_total{code="200"})')
    assert not metrics.is_better_high('rate(http_requests_total{outcome="error"})')


def _daily(*rows: tuple[str, str, str, float, float | None]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["troop_id", "data_group", "value_name", "mean", "calls"])
    return frame.assign(
        calls=frame["calls"].astype(float),
        warrior_id="w",
        timeslices=48,
        p50=frame["mean"],
        p95=2 * frame["mean"],
        max=3 * frame["mean"],
    )


def test_of_quantiles_the_median_is_the_main_value() -> None:
    """The median is what is typical, whichever quantiles there are beside it."""
    rows = [
        ("a", "http_request", f"histogram_quantile({quantile}, http_request_seconds)", 5, 1e6)
        for quantile in ("0.05", "0.5", "0.99")
    ]
    assert metrics.main_values(_daily(*rows))["value_name"].to_list() == [rows[1][2]]


def test_the_main_value_is_an_average_latency_of_the_entry() -> None:
    """Averages go before extremes, entry groups before others, then where most time was spent."""
    found = metrics.main_values(
        _daily(
            ("a", "Datastore", "average_response_time", 5, 1e6),
            ("a", "HttpDispatcher", "average_response_time", 60, 10),
            ("a", "HttpDispatcher", "max_response_time", 900, 10),
            ("b", "slow", "average_response_time", 100, 1),
            ("b", "busy", "average_response_time", 10, 1000),
            ("c", "node", "node_load1", 2, None),
            ("c", "node", "node_cpu_seconds_total", 9000, None),
        )
    )
    assert found.to_numpy().tolist() == [
        ["a", "HttpDispatcher", "average_response_time", True],
        ["b", "busy", "average_response_time", True],
        ["c", "node", "node_load1", False],
    ]


def test_slowest_groups_weigh_warriors_by_calls() -> None:
    """A group's mean is over calls of all its warriors; the largest mean comes first."""
    daily = _daily(
        ("a", "x", "average_response_time", 10, 90),
        ("a", "x", "average_response_time", 110, 10),
        ("a", "y", "average_response_time", 30, None),
        ("a", "y", "max_response_time", 3000, None),
    )
    daily["warrior_id"] = ["w1", "w2", "w1", "w1"]
    main = pd.DataFrame({"troop_id": ["a"], "value_name": ["average_response_time"]})
    found = metrics.slowest_groups(daily, main)
    assert found[["data_group", "warriors", "mean"]].to_numpy().tolist() == [["y", 1, 30.0], ["x", 2, 20.0]]


def _series(values: np.ndarray, *, weeks_ago: int = 0, name: str = "latency_ms") -> pd.DataFrame:
    starts = [
        DAY - timedelta(weeks=weeks_ago) + timedelta(minutes=30 * index) for index in range(len(values))
    ]
    return pd.DataFrame(
        {
            "troop_id": "t",
            "data_group": "g",
            "value_name": name,
            "timeslice_start": pd.to_datetime(starts, utc=True),
            "timeslice_end": pd.to_datetime([start + timedelta(minutes=30) for start in starts], utc=True),
            "value": values,
        }
    )


def _wave(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 2, 48)
    return 100 + 60 * np.sin(np.arange(48) / 48 * 2 * np.pi) + noise


def _found(today: np.ndarray, weeks: int, *, name: str = "latency_ms") -> list[metrics.Stretch]:
    past = [_series(_wave(week), weeks_ago=week, name=name) for week in range(1, weeks + 1)]
    history = pd.concat([_series(np.array([])), *past])
    scored = metrics.anomalies(_series(today, name=name), history, by=BY, timezone="Europe/Berlin")
    return metrics.stretches(scored, by=BY)


def test_an_incident_is_found_against_past_weeks_and_a_daily_wave_is_not() -> None:
    """The same hour of past weeks is expected, so the daily wave is usual and eight times of it is not."""
    assert not metrics.incidents(_found(_wave(9), 4))
    today = _wave(9)
    today[20:24] *= 8
    ((stretch, others),) = metrics.incidents(_found(today, 4))
    assert (stretch.start, stretch.end) == (DAY + timedelta(hours=10), DAY + timedelta(hours=12))
    assert stretch.against == "past weeks"
    assert 7 < stretch.ratio < 9
    assert others == []


@pytest.mark.parametrize("weeks", [0, 1])
def test_without_two_past_weeks_the_day_is_compared_with_itself(weeks: int) -> None:
    """One past week may itself have been unusual, so it does not count."""
    today = _wave(9)
    today[20:24] *= 8
    ((stretch, _),) = metrics.incidents(_found(today, weeks))
    assert stretch.against == "the day itself"
    assert stretch.change.endswith("times the day's median")


def test_a_day_on_another_level_is_no_incident_unless_far_off() -> None:
    """Three times the usual all day long is a shift, six times is told; an incident on a shifted day is found."""
    assert not metrics.incidents(_found(3 * _wave(9), 4))
    assert metrics.incidents(_found(6 * _wave(9), 4))
    today = 3 * _wave(9)
    today[20:24] *= 8
    assert metrics.incidents(_found(today, 4))[0][0].ratio > 20


def test_a_change_to_the_harmless_side_counts_less() -> None:
    """A latency that falls counts a quarter of one that rises; for traffic it is the other way round."""
    up, down = _wave(9), _wave(9)
    up[20:30] *= 4
    down[20:30] /= 4
    assert _found(up, 4)[0].severity > 3 * _found(down, 4)[0].severity
    traffic = "calls_per_minute"
    assert _found(down, 4, name=traffic)[0].severity > _found(up, 4, name=traffic)[0].severity


def test_values_from_nothing_are_unusual_too() -> None:
    """Where nothing was expected the ratio is no number, and the change says the values instead."""
    today = np.zeros(48)
    today[20:24] = 50.0
    (stretch,) = _found(today, 0)
    assert math.isnan(stretch.ratio) or math.isinf(stretch.ratio)
    assert stretch.change == "at 50, where 0 is the day's median,"


def test_stretches_of_one_troop_at_one_time_are_one_incident() -> None:
    """The most severe stretch tells an incident; others of the troop at the time are counted."""
    base = metrics.Stretch(
        ("t", "g", "v"), DAY, DAY + timedelta(hours=2), 90.0, 8.0, 80.0, 10.0, "past weeks"
    )
    inside = metrics.Stretch(
        ("t", "h", "v"), DAY + timedelta(hours=1), DAY + timedelta(hours=3), 50.0, 4.0, 1, 1, ""
    )
    later = metrics.Stretch(
        ("t", "g", "v"), DAY + timedelta(hours=5), DAY + timedelta(hours=6), 40.0, 4.0, 1, 1, ""
    )
    small = metrics.Stretch(("u", "g", "v"), DAY, DAY + timedelta(hours=1), 3.0, 2.0, 1, 1, "")
    assert metrics.incidents([base, inside, later, small]) == [(base, [inside]), (later, [])]


def test_no_rows_give_no_stretches() -> None:
    """An empty day is a day."""
    assert _found(np.array([]), 0) == []
