"""Real input: the whole chain against a real VictoriaMetrics, held against what was pushed and what it answers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest

from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.storage.folder import FolderStore
from vendor_assets.vendors.base import DataGroup, Response
from vendor_assets.vendors.prometheus import (
    MAX_FORM_CHARACTERS,
    MAX_NAMES,
    WHOLE,
    Prometheus,
    canonical,
    group_of,
)
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.programs import read
from vendor_assets_tests.support.prometheus_truth import direct_rows, values_of
from vendor_assets_tests.support.truth import Rows
from vendor_assets_tests.support.victoria_metrics import RunningVictoriaMetrics, Series, victoria_metrics

VENDOR = Prometheus()
DAY = datetime.now(UTC).date() - timedelta(days=1)
KATHMANDU = "Asia/Kathmandu"
ODD = {"job": 'odd|job, "x"\\d {y}', "instance": "../one\n'two'"}
MANY = 150


def _start(day: date, zone: str) -> int:
    """Midnight in milliseconds."""
    return round(datetime.combine(day, time.min, ZoneInfo(zone)).timestamp()) * 1000


def _series(metric: str, every_seconds: int, rule: int, **labels: str) -> Series:
    """Two days up to the end of ``DAY`` in UTC; the rule varies a value that ever grows, but for a restart."""
    first = _start(DAY, "UTC") - 86_400_000
    steps = range(2 * 86_400 // every_seconds)
    values = [(step % 500) * rule + round(math.sin(step / 9) * rule / 3, 3) for step in steps]
    return Series(
        metric, labels, tuple((first + 7 + step * every_seconds * 1000, values[step]) for step in steps)
    )


def _pushed() -> list[Series]:
    api = [
        {"job": "api", "instance": f"api-{number}:80", "env": env}
        for number, env in ((1, "prod"), (2, "test"))
    ]
    series = [
        _series(metric, every, rule + number, **labels)
        for labels in api
        for number, (metric, every, rule) in enumerate(
            [("http_requests_total", 60, 30), ("http_size_bytes", 60, 1000), ("queue_length", 1200, 7)]
        )
    ]
    series += [
        _series(f"http_request_seconds_{part}", 60, 12 * weight, **{**api[0], "le": le} if le else api[0])
        for part, le, weight in (
            ("bucket", "0.1", 1), ("bucket", "1", 3), ("bucket", "+Inf", 4), ("count", "", 4), ("sum", "", 2),
        )
    ]  # fmt: skip
    # So many groups of one instance that their query does not fit into a URL.
    series += [
        _series(f"group{number:03}_of_{'x' * 30}_value", 3600, number + 1, job="many", instance="many:1")
        for number in range(MANY)
    ]
    series += [_series("no_job", 600, 3, instance="alone:1"), _series("nothing_at_all", 600, 4)]
    edges = [_start(DAY, zone) + number * 600_000 for zone in ("UTC", KATHMANDU) for number in (0, 1, 144)]
    at_edges = sorted((edge + off, float(edge % 977 + off)) for edge in set(edges) for off in (-1, 0, 1))
    odd = ((_start(DAY, "UTC") + 60_000, math.inf), (_start(DAY, "UTC") + 660_000, 0.12345678901234))
    return [*series, Series("at_edges", ODD, tuple(at_edges)), Series("odd_values", ODD, odd)]


PUSHED = _pushed()


def _newest(zone: str, resolution: int) -> Rows:
    """What the day holds, from the samples that were pushed."""
    start = _start(DAY, zone)
    found: Rows = {}
    for series in PUSHED:
        for at, value in series.samples:
            if start <= at < start + 86_400_000:
                found[_key(series, "{}", start, (at - start) // (resolution * 1000), resolution)] = value
    return found


def _rates(metric: str, resolution: int, labels: dict[str, str]) -> Rows:
    """Growth from the last sample before each timeslice to the last one in it, from the samples that were pushed.

    Source: https://docs.victoriametrics.com/victoriametrics/metricsql/#rate.
    """
    start = _start(DAY, "UTC")
    found: Rows = {}
    for series in PUSHED:
        if series.metric == metric and series.labels.items() >= labels.items():
            grown, total, (before, last) = {}, 0.0, series.samples[0]
            for at, value in series.samples:
                total += value - last if value >= last else value
                last = value
                grown[at] = total
            for number in range(86_400 // resolution):
                edge = start + number * resolution * 1000
                before, end = (
                    max(at for at in grown if at < each) for each in (edge, edge + resolution * 1000)
                )
                rate = (grown[end] - grown[before]) / (end - before) * 1000
                found[_key(series, "rate({})", start, number, resolution)] = rate
    return found


def _key(series: Series, form: str, start: int, number: int, resolution: int) -> tuple[Any, ...]:
    others = {name: text for name, text in series.labels.items() if name not in ("job", "instance")}
    begin = datetime.fromtimestamp(start / 1000 + number * resolution, UTC)
    name = form.format(series.metric + canonical(others))
    return (series.labels.get("job", ""), series.labels.get("instance", ""), name, begin)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningVictoriaMetrics]:
    """One server for all tests of this module."""
    with victoria_metrics() as running:
        running.push(PUSHED)
        yield running


def _harvest(folder: Path, url: str, **settings: str) -> Rows:
    """All values of the day."""
    fixed = {"VENDOR_KIND": "prometheus", "VENDOR_URL": url, "VENDOR_RATE": "1000/s", "VENDOR_SHARE": "1"}
    command = Command(folder, fixed | settings)
    finished = command.run("harvest", "--no-report", "--day", DAY.isoformat(), "--json")
    assert finished.code == 0, finished.out + finished.err
    return values_of(FolderStore(folder / "data"), DAY)


def test_every_harvested_value_is_what_was_pushed(tmp_path: Path, server: RunningVictoriaMetrics) -> None:
    """On a day that is aligned to nothing, each value is the newest pushed in its timeslice, and the server agrees."""
    settings = {"VENDOR_ASSETS_TIMEZONE": KATHMANDU, "VENDOR_ASSETS_RESOLUTION": "600"}
    harvested = _harvest(tmp_path, server.url, **settings)
    assert harvested == _newest(KATHMANDU, 600)
    assert harvested == direct_rows(server, DAY, zone=KATHMANDU, resolution=600)
    groups = [
        DataGroup(group_of(series.metric), (series.metric,)) for series in PUSHED if "group" in series.metric
    ]
    window = day_window(DAY, parse_time_zone(KATHMANDU))
    (planned,) = VENDOR.performance_data("many", "many:1", groups, window, 600)
    assert planned.request.method == "POST"


def test_every_computed_value_is_what_the_server_computes(
    tmp_path: Path, server: RunningVictoriaMetrics
) -> None:
    """Rates and quantiles of what a selector takes, each as one query for it alone says; rates by hand as well."""
    options = 'match={env="prod"},counters=rate,histograms=0.5 0.95'
    harvested = _harvest(tmp_path, server.url, VENDOR_OPTIONS=options)
    direct = direct_rows(server, DAY, rates=("_total", "_sum", "_count"), quantiles=("0.5", "0.95"))
    assert harvested == {key: value for key, value in direct.items() if 'env="prod"' in key[2]}
    names = {re.sub("[{].*?[}]", "", name) for _, _, name, _ in harvested}
    assert names == {
        "rate(http_requests_total)",
        "rate(http_request_seconds_count)",
        "rate(http_request_seconds_sum)",
        "histogram_quantile(0.5, http_request_seconds)",
        "histogram_quantile(0.95, http_request_seconds)",
        "http_size_bytes",
        "queue_length",
    }
    by_hand = _rates("http_requests_total", 1800, {"env": "prod"})
    assert len(by_hand) == 48
    assert {key: harvested[key] for key in by_hand} == pytest.approx(by_hand)


def test_raw_samples_are_those_that_were_pushed(server: RunningVictoriaMetrics) -> None:
    """An export has each sample at its millisecond."""
    pushed = [series for series in PUSHED if series.metric == "at_edges"]
    (edges,) = pushed
    assert server.raw('{__name__="at_edges"}', edges.samples[0][0], edges.samples[-1][0]) == pushed


def test_times_are_kept_where_nothing_is_cached(server: RunningVictoriaMetrics) -> None:
    """What we ask with is needed: without ``nocache`` a range of fifty points is moved to multiples of the step."""
    start = _start(DAY, KATHMANDU) // 1000
    query = [("query", 'last_over_time({instance="alone:1"}[600s])'), ("step", "600")]
    query += [("start", str(start)), ("end", str(start + 50 * 600))]
    for more, moved in (((), True), (WHOLE, False)):
        (series,) = server.get("/api/v1/query_range", *query, *more)["result"]
        assert any((at - start) % 600 for at, _ in series["values"]) == moved


def test_a_longer_query_than_ours_is_refused(server: RunningVictoriaMetrics) -> None:
    """The limit is where we believe it, for what is posted as well."""

    def post(length: int) -> bytes:
        query = 'up{x="' + "x" * (length - 8) + '"}'
        return read(f"{server.url}/api/v1/query", urlencode({"query": query}).encode())

    assert b"success" in post(MAX_FORM_CHARACTERS)
    with pytest.raises(HTTPError) as raised:
        post(16_385)
    assert raised.value.code == 422
    assert b"maxQueryLen=16384" in raised.value.read()


def test_a_list_that_was_cut_is_not_whole(server: RunningVictoriaMetrics) -> None:
    """A list of more names than the server gives is cut without a word; that is noticed."""
    at = _start(DAY - timedelta(days=20), "UTC")
    labels = {"job": "endless", "instance": "endless:1"}
    planned = VENDOR.data_groups(
        "endless", "endless:1", day_window(DAY - timedelta(days=20), parse_time_zone("UTC"))
    )
    for first, last, whole in ((0, MAX_NAMES - 1, True), (MAX_NAMES - 1, MAX_NAMES + 1, False)):
        server.push(Series(f"name_{number}", labels, ((at, 1.0),)) for number in range(first, last))
        body = read(server.url + planned.request.target)
        assert set(json.loads(body)) == {"status", "data"}
        parsed = VENDOR.parse("data_groups", planned, Response(200, {}, body, datetime.now(UTC)))
        assert (parsed.incomplete == "") == whole
