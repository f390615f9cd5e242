"""The pure parts of the simulator's NerdGraph: NRQL, documented numbers, spoiled bodies."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.simulator.faults import KINDS, spoil
from vendor_assets.simulator.nerdgraph import ENTITIES_A_PAGE, Rules
from vendor_assets.simulator.nrql import Call, NrqlError, parse, parse_condition, required
from vendor_assets.simulator.timeslice_query import BUCKETS_MOST, plan
from vendor_assets.simulator.world import World

NOW = 1_795_348_800.0
WORDS = (
    "SELECT FROM WHERE FACET LIMIT MAX SINCE UNTIL TIMESERIES AS AND OR IN NOT LIKE IS NULL Metric host appId count"
    " uniques rate filter ( ) , = != * / 'x' 200000000 99999999999999999999 5 minutes ago newrelic.timeslice.value"
)


def test_the_numbers_are_the_documented_ones() -> None:
    """25 requests at once, 3,000 queries and 120 repetitions a minute, 5 s, 200 entities, 366 buckets."""
    rules = Rules()
    assert (rules.requests_at_once, rules.queries_per_minute, rules.repeats_per_minute) == (25, 3000, 120)
    assert (rules.timeout_seconds, ENTITIES_A_PAGE, BUCKETS_MOST) == (5, 200, 366)


def test_uniques_take_ten_thousand_at_most() -> None:
    """A larger limit of ``uniques()`` is the largest."""
    query = parse("FROM Metric SELECT uniques(host), uniques(host, 7), uniques(host, 20000)", NOW)
    assert [one.number for _, one in query.select if isinstance(one, Call)] == [1000, 7, 10_000]


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    """No text breaks the parser or the reading of the world but with the error that callers are told."""
    world = World(troops=1, warriors=1, data_groups=1, churn=False)
    with suppress(NrqlError):
        plan(parse(text, NOW), world, 1, NOW).find(0.0, NOW)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("appId = 1 AND host = 'a'", {"1"}),
        ("appId IN (1, 2) AND appId = 2", {"2"}),
        ("appId = 1 OR appId = 2", {"1", "2"}),
        ("appId = 1 OR host = 'a'", None),
        ("appId LIKE '1%'", None),
    ],
)
def test_what_a_condition_requires(text: str, values: set[str] | None) -> None:
    """Only values without which a condition cannot hold are required."""
    assert required(parse_condition(text), "appId") == values


def test_quotes_are_escaped_by_a_backslash() -> None:
    """A name with a quote and a backslash is found; double quotes are no text."""
    condition = parse_condition(r"metricTimesliceName = 'it\'s a \\ name'")
    assert required(condition, "metricTimesliceName") == {r"it's a \ name"}
    with pytest.raises(NrqlError, match="position 8, unexpected '\"'"):
        parse_condition('host = "x"')


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.startswith(("dupl", "shuf", "weird", "drift"))]
)
def test_lists_are_spoiled_and_the_rest_is_not(kind: str) -> None:
    """Each fault of lists alters rows and entities, and leaves null aliases and errors alone."""
    rows = [{"beginTimeSeconds": n, "endTimeSeconds": n + 1, "facet": "x", "n": n} for n in range(3)]
    entities = [{"guid": "a", "name": "b"}, {"guid": "c", "name": "d"}]
    tree = {
        "data": {"actor": {"a": {"results": rows}, "b": None, "c": {"results": {"entities": entities}}}},
        "errors": [],
    }
    spoiled = json.loads(spoil(kind, json.dumps(tree).encode()))
    assert spoiled["data"]["actor"]["a"]["results"] != rows
    assert spoiled["data"]["actor"]["b"] is None
    assert spoiled["errors"] == []
    if not kind.startswith("weird"):
        assert spoiled["data"]["actor"]["c"]["results"]["entities"] != entities
