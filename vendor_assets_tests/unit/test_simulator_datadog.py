"""The pure parts of the simulator's Datadog: queries, names, intervals, limits by bucket, spoiled bodies."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.simulator.datadog import BUCKETS, HOSTS_MOST, LIMITS, parse_limits
from vendor_assets.simulator.datadog_formula import calculate
from vendor_assets.simulator.datadog_query import (
    FILL_SECONDS,
    FILL_SECONDS_MOST,
    QueryError,
    parse,
    parse_scope,
)
from vendor_assets.simulator.datadog_series import (
    INTERVALS,
    LADDER,
    NAME_MOST,
    POINTS_MOST,
    Window,
    answer,
    interval_of,
    metric_of,
    tag,
)
from vendor_assets.simulator.faults import KINDS, spoil
from vendor_assets.simulator.limits import BucketLimit, Buckets, parse_bucket_limit
from vendor_assets.simulator.world import World

NOW = 1_795_348_800
WORDS = (
    "avg sum max : metric HttpDispatcher.call_count { } * service:a env:production ! , AND OR NOT IN ( ) by host"
    " .rollup(avg,60) .rollup(60) .fill(null) .fill(linear,9) .as_count() .as_rate() .x() {*} 9999999999999"
)
SPOILING = [kind for kind in KINDS if kind.startswith(("dupl", "shuf", "weird", "drift", "null"))]


def test_the_numbers_are_the_documented_ones() -> None:
    """1,000 hosts a page, 1,500 points, 200 characters, 5 minutes of filling, and the limits once published."""
    assert (HOSTS_MOST, POINTS_MOST, NAME_MOST, FILL_SECONDS, FILL_SECONDS_MOST) == (
        1000,
        1500,
        200,
        300,
        600,
    )
    assert parse_limits().limits == {
        "metrics_list": BucketLimit("metrics_list", 100, 3600),
        "metrics_query": BucketLimit("metrics_query", 1600, 3600),
    }
    assert {text.partition("=")[0] for text in LIMITS} < set(BUCKETS.values())
    assert dict(INTERVALS)[86_400] == 300


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    """No text breaks the parser or the reading of the world but with the error that callers are told."""
    world = World(troops=1, warriors=1, data_groups=1, churn=False)
    with suppress(QueryError):
        for query in parse(text):
            answer(query, world, Window(NOW - 600, NOW, NOW - 1, 60), 0.0, NOW)


def test_a_query_has_its_parts() -> None:
    """Modifiers may come in any order, spaces anywhere; commas separate queries but not tags."""
    one, other = parse(
        "sum:a.b_c{x:y,!z:w*} by {host, service} .as_rate().rollup( max , 90 ).fill(last, 999), d{*}.fill(zero)"
    )
    assert (one.metric, one.aggregator, one.by) == ("a.b_c", "sum", ("host", "service"))
    assert (one.method, one.interval, one.fill, one.fill_seconds, one.shown_as) == (
        "max",
        90,
        "last",
        600,
        "rate",
    )
    assert one.scope.tags == ("!z:w*", "x:y")
    assert (other.metric, other.aggregator, other.fill, other.scope.tags) == ("d", None, "zero", ())


@pytest.mark.parametrize(
    ("scope", "holds"),
    [
        ("*", True),
        ("service:a", True),
        ("service:b", False),
        ("service:a*", True),
        ("service:*a,host:h/1.2", True),
        ("!service:a", False),
        ("!service:b,env:x", True),
        ("service:a AND NOT env:x", False),
        ("service:b OR env:x AND service:a", True),
        ("(service:b OR env:x) AND service:c", False),
        ("service IN (b, a)", True),
        ("service not in (b, a)", False),
        ("service", False),
    ],
)
def test_scopes_hold_or_not(scope: str, holds: bool) -> None:
    """Commas and words select by tags."""
    assert parse_scope(scope).holds(frozenset({"service:a", "env:x", "host:h/1.2"})) is holds


@pytest.mark.parametrize(
    "scope", ["", "a:b,", ",", "a:b AND", "(a:b OR c:d", "a IN b", "a IN (b", "AND", "a:b c:d"]
)
def test_scopes_that_cannot_be_read(scope: str) -> None:
    """What cannot be read is refused in Datadog's words."""
    with pytest.raises(QueryError, match="Error parsing query"):
        parse_scope(scope)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("Checkout | EU", "service:checkout_eu"),
        ("search (green)", "service:search_green"),
        ("fraud: score", "service:fraud:_score"),
        ("ends with a colon:", "service:ends_with_a_colon"),
        ("ends with one:_: ", "service:ends_with_one"),
        (" leading", "service:_leading"),
        ("a.b-c/d:e_f", "service:a.b-c/d:e_f"),
        ("Größe 日本", "service:größe_日本"),
        ("x" * 300, "service:" + "x" * 192),
        ("x" * 191 + "!y", "service:" + "x" * 191),
        ("…", None),
        ("", None),
    ],
)
def test_names_become_tags(name: str, stored: str | None) -> None:
    """Lower case, underscores for what is not allowed, 200 characters with the key, nothing odd at the end."""
    assert tag("service", name) == stored


@given(st.text(max_size=300))
def test_any_name_is_a_tag_by_the_rules(name: str) -> None:
    """A tag is stored as it is when it is sent again, and can be asked for."""
    stored = tag("service", name)
    if stored is not None:
        assert len(stored) <= 200
        assert tag("service", stored.partition(":")[2]) == stored
        assert parse_scope(stored).holds(frozenset({stored}))
        assert parse(f"a{{{stored}}}")[0].scope.tags == (stored,)


def test_names_become_metrics() -> None:
    """ASCII, digits, underscores and dots; 200 characters at most."""
    assert metric_of("CPU/User Time", "percent") == "CPU_User_Time.percent"
    assert metric_of("External/a-b.example.com/all", "é") == "External_a_b.example.com_all._"
    assert metric_of("m" * 194, "score") == "m" * 194 + ".score"
    assert metric_of("m" * 195, "score") is None


@given(st.integers(0, 2**31), st.integers(1, 400 * 86_400), st.integers(0, 2 * 86_400), st.integers(0, 1))
def test_no_series_has_more_points_than_allowed(begin: int, length: int, asked: int, included: int) -> None:
    """An interval is what was asked for, or the next that makes no more than 1,500 points."""
    last = begin + length - 1 + included
    interval = interval_of(begin, last, asked)
    points = len(range(-(-begin // interval) * interval, last + 1, interval))
    if asked:
        assert points <= POINTS_MOST
        assert interval == asked or interval in LADDER
        assert interval >= min(asked, 86_400)
        if interval != asked:
            assert len(range(-(-begin // asked) * asked, last + 1, asked)) > POINTS_MOST
    elif length <= 7 * 86_400:
        assert points <= POINTS_MOST


@pytest.mark.parametrize(
    "text", ["x=1/60", "hosts", "hosts=1", "hosts=/60", "hosts=1/0", "hosts=-1/60", "hosts=1/1.5"]
)
def test_limits_that_cannot_be_read(text: str) -> None:
    """The message has the text and what is accepted."""
    with pytest.raises(ValueError, match=r"limit .*(hosts|bucket)"):
        parse_bucket_limit(text, {"hosts"})


@given(st.lists(st.floats(0, 40), max_size=60))
def test_a_window_admits_its_number(moments: list[float]) -> None:
    """In each window of the clock the first calls are admitted, up to the number, and no more."""
    buckets = Buckets([BucketLimit("hosts", 3, 10)])
    admitted: dict[int, int] = {}
    for moment in sorted(moments):
        window = int(moment) // 10
        left = 3 - admitted.get(window, 0)
        assert buckets.admit("hosts", moment) == (left > 0, max(0, left - 1))
        admitted[window] = min(3, admitted.get(window, 0) + 1)


def test_formulas_meet_by_tags() -> None:
    """Groups of both sides, null on either, numbers on either side, and a division by zero."""
    by_name = {
        "a": {("x:1",): {0: 6.0, 1: None, 2: 8.0}, ("x:2",): {0: 1.0}},
        "b": {("x:1",): {0: 2.0, 3: 1.0}},
    }
    assert calculate("a / b", by_name) == {("x:1",): {0: 3.0, 1: None, 2: None, 3: None}}
    assert calculate("2 * a - 1", by_name)["x:2",] == {0: 1.0}
    assert calculate("a / (b - b)", by_name)["x:1",][0] is None
    for wrong in ("c", "1", "a; b", "f(a)", "a if a else b", "a % b", "(" * 200 + "a", "'a'", "True + a" * 2):
        with pytest.raises(QueryError, match="Error parsing formula"):
            calculate(wrong, by_name)


def _bodies() -> dict[str, dict[str, Any]]:
    points = [[at * 1000.0, float(at)] for at in range(20)]
    return {
        "hosts": {"total_matching": 2, "host_list": [{"name": "a", "last_reported_time": 1}, {"name": "b"}]},
        "names": {"metrics": ["a", "b"], "from": "1"},
        "v1": {
            "res_type": "time_series",
            "series": [{"tag_set": [one], "interval": 1, "pointlist": points} for one in "ab"],
        },
        "v2": {
            "data": {
                "type": "timeseries_response",
                "attributes": {
                    "series": [{"group_tags": [one]} for one in "ab"],
                    "times": [at for at, _ in points],
                    "values": [[value for _, value in points], [None] * 20],
                },
            }
        },
    }


@pytest.mark.parametrize("kind", SPOILING)
@pytest.mark.parametrize("form", ["hosts", "names", "v1", "v2"])
def test_answers_are_spoiled(kind: str, form: str) -> None:
    """Each fault of lists and of points alters the answers that it concerns, and keeps their form."""
    body = _bodies()[form]
    spoiled = json.loads(spoil(kind, json.dumps(body).encode()))
    lists = kind in ("duplicates", "shuffled") or (kind.startswith("drift_") and form != "names")
    points = kind in ("null_points", "weird_values", "weird_times") and form in ("v1", "v2")
    assert (json.dumps(spoiled) != json.dumps(body)) is (lists or points)
    assert spoiled.keys() == body.keys()
    if form == "v2":
        attributes = spoiled["data"]["attributes"]
        assert len(attributes["series"]) == len(attributes["values"])
        assert {len(values) for values in attributes["values"]} == {len(attributes["times"])}
    if form == "v1":
        assert all(len(point) == 2 for series in spoiled["series"] for point in series["pointlist"])


@pytest.mark.parametrize("kind", SPOILING)
def test_answers_without_lists_are_not_spoiled(kind: str) -> None:
    """Refusals, tags and the word that a key is valid stay as they are."""
    tags = {"data": {"type": "metrics", "id": "a", "attributes": {"tags": ["b:c"]}}}
    for body in ({"errors": ["x"]}, {"valid": True}, {"tags": {"a:b": ["c"]}}, {"tags": ["a:b"]}, tags):
        assert json.loads(spoil(kind, json.dumps(body).encode())) == body
