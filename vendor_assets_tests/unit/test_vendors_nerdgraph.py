"""NerdGraph's documents and answers, as pure text."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets import vendors
from vendor_assets.days import Window, day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError
from vendor_assets.vendors.base import DataGroup, Parsed, PlannedRequest, Response
from vendor_assets.vendors.nerdgraph import NerdGraph, _Plain
from vendor_assets.vendors.nrql import MOST_BUCKETS, MOST_FACETS, MOST_NAMES, MOST_QUERIES, Document
from vendor_assets_tests.support.plain_readers import assert_read_alike

VENDOR = NerdGraph("1234567")
DAY = day_window(datetime(2026, 11, 20, tzinfo=UTC).date(), parse_time_zone("UTC"))
HOSTILE = [
    "it's",
    'a"b',
    "back\\slash",
    "a,b",
    "x) FACET y LIMIT 1",
    "ümlaut 🎈",
    "line\nend",
    "q0",
    "$q1:Nrql!",
]
CALLS = ("average_response_time", "call_count")


def answer(document: object, status: int = 200) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(document).encode(), DAY.end)


def rows_of(*rows: dict[str, Any], alias: str = "q0", errors: object = None) -> dict[str, Any]:
    found: dict[str, Any] = {"data": {"actor": {"account": {alias: {"results": list(rows)}}}}}
    return found | ({"errors": errors} if errors else {})


def error(kind: str, alias: str) -> dict[str, Any]:
    return {"message": "no", "path": ["actor", "account", alias], "extensions": {"errorClass": kind}}


def data(groups: dict[str, list[str]], resolution: int = 1800, day: Window = DAY) -> list[PlannedRequest]:
    wanted = {warrior: [DataGroup(name, CALLS) for name in names] for warrior, names in groups.items()}
    return VENDOR.performance_data_of("7", wanted, day, resolution)


def row(warrior: str, metric: str, start: datetime, seconds: int = 1800, **values: object) -> dict[str, Any]:
    begin = int(start.timestamp())
    return {
        "facet": [warrior, metric],
        "beginTimeSeconds": begin,
        "endTimeSeconds": begin + seconds,
        **values,
    }


def test_hostile_names_stay_names() -> None:
    """Whatever agents and metrics are called: the parts of a document ask for exactly them, each leaf once."""
    groups = dict.fromkeys(HOSTILE, HOSTILE)
    waiting = data(groups)
    asked = {leaf.key for planned in waiting for leaf in planned.leaves}
    assert len(asked) == len(HOSTILE) ** 2
    single: list[PlannedRequest] = []
    while waiting:
        planned = waiting.pop()
        parts = VENDOR.split(planned) if len(planned.leaves) > 1 else []
        assert {leaf.key for part in parts for leaf in part.leaves} in (
            set(),
            {x.key for x in planned.leaves},
        )
        waiting += parts
        single += [] if parts else [planned]
    assert {leaf.key for planned in single for leaf in planned.leaves} == asked
    for planned in single:
        (leaf,) = planned.leaves
        found = row(leaf.warrior_id, leaf.data_group, DAY.start, calls=2, average=0.25)
        parsed = VENDOR.parse("performance_data", planned, answer(rows_of(found)))
        assert parsed.rejected == []
        assert parsed.lists()["value"] == [250.0, 2.0]
        assert parsed.lists()["weight"] == [2.0, None]


@pytest.mark.parametrize("resolution", [60, 600, 1800, 3600])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
@pytest.mark.parametrize("date", ["2026-03-08", "2026-11-01", "2026-11-20"])
def test_windows_cover_the_day(date: str, zone: str, resolution: int) -> None:
    """Every timeslice that starts in the day is asked once, in ranges that have no more buckets than permitted."""
    day = day_window(datetime.fromisoformat(date).date(), parse_time_zone(zone))
    windows = sorted(
        {
            leaf.window.start: leaf.window
            for each in data({"w": ["m"]}, resolution, day)
            for leaf in each.leaves
            if leaf.window
        }.values(),
        key=lambda w: w.start,
    )
    for first, second in itertools.pairwise(windows):
        assert first.end == second.start
    step = timedelta(seconds=resolution)
    assert day.start <= windows[0].start < day.start + step
    assert day.end <= windows[-1].end < day.end + step
    assert all(window.seconds / resolution <= MOST_BUCKETS for window in windows)


def test_a_document_has_few_queries_and_counts_them() -> None:
    """At most five queries; the budget hears of each."""
    planned = data({"w": [f"metric {n}" for n in range(400)]}, 60)
    counts = [VENDOR.counts(each.request)["queries"] for each in planned]
    assert max(counts) <= MOST_QUERIES
    assert sum(counts) > len(counts)
    assert VENDOR.counts(VENDOR.probe()) == {"queries": 0}
    assert VENDOR.counts(VENDOR.troops(DAY).request) == {"queries": 0}
    assert VENDOR.counts(VENDOR.warriors("7", DAY).request) == {"queries": 1}


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        (["data", "actor", "account", "q1"], [1]),
        (["actor", "account", "q0", "results", 3], [0]),
        (["actor", "account", "id"], [0, 1]),
        ([["q0"], {}], [0, 1]),
        (None, [0, 1]),
    ],
)
def test_an_error_that_names_no_other_query_concerns_each(path: object, lost: list[int]) -> None:
    """Rows beside an error may be a part of them, wherever its path begins."""
    (planned,) = data({"w": ["a"]}, 120)
    body = rows_of(alias="q0", errors=[{"message": "no", "path": path}])
    body["data"]["actor"]["account"]["q1"] = {"results": []}
    failures = VENDOR.parse("performance_data", planned, answer(body)).failures
    keys = [leaf.key for leaf in planned.leaves]
    assert [key for failure in failures for key in failure.leaves] == [keys[each] for each in lost]


def test_what_failed_is_asked_alone_and_the_rest_is_read_as_its_answer() -> None:
    """The answer to a whole document is that to the part whose queries it answers."""
    (planned,) = data({"w": ["a"]}, 120)
    first, second = (leaf for leaf in planned.leaves)
    found = row("w", "a", second.window.start, 120, calls=1, average=1.0)  # type: ignore[union-attr]
    body = rows_of(found, alias="q1", errors=[error("TIMEOUT", "q0")])
    body["data"]["actor"]["account"]["q0"] = None
    parsed = VENDOR.parse("performance_data", planned, answer(body))
    assert [(each.leaves, each.means) for each in parsed.failures] == [((first.key,), "failed")]
    kept, lost = (VENDOR.part(planned, [leaf.key]) for leaf in (second, first))
    assert len({kept.request.key, lost.request.key, planned.request.key}) == 3
    again = VENDOR.parse("performance_data", kept, answer(body))
    assert (again.failures, again.lists()["value"]) == ([], [1000.0, 1.0])
    assert VENDOR.parse("performance_data", lost, answer(body)).failures


@pytest.mark.parametrize(
    ("kind", "means"),
    [
        ("TIMEOUT", "failed"),
        ("SERVER_ERROR", "failed"),
        ("TOO_MANY_REQUESTS", "throttled"),
        ("ACCESS_DENIED", "key_refused"),
        ("BAD_USER_INPUT", "refused"),
        ("NOBODY_KNOWS", "failed"),
    ],
)
def test_what_an_error_means(kind: str, means: str) -> None:
    """An error of one query, of the account and of the whole document."""
    (planned,) = data({"w": ["a"]})
    for content in (
        {"data": {"actor": {"account": {"q0": None}}}, "errors": [error(kind, "q0")]},
        {
            "data": {"actor": {"account": None}},
            "errors": [error(kind, "q0") | {"path": ["actor", "account"]}],
        },
        {"errors": [{"message": "no", "extensions": {"errorClass": kind}}]},
    ):
        (failure,) = VENDOR.parse("performance_data", planned, answer(content)).failures
        assert failure.means == means
        assert failure.leaves == tuple(leaf.key for leaf in planned.leaves)
    body = json.dumps(content).encode()
    assert VENDOR.throttled(200, {}, body) == (means == "throttled")


def test_a_metric_of_that_name_is_no_throttle() -> None:
    """Only an error is one."""
    found = rows_of(row("w", "TOO_MANY_REQUESTS", DAY.start, calls=1))
    assert not VENDOR.throttled(200, {}, json.dumps(found).encode())
    assert VENDOR.throttled(429, {}, b"")


def test_what_may_have_been_left_out_is_too_large() -> None:
    """Exactly as many names or facets as come at most are never taken for all of them."""
    planned = VENDOR.warriors("7", DAY)
    names = [str(n) for n in range(MOST_NAMES)]
    for content, means in (
        (rows_of({"facet": ["1", "h"], "names": names}), "too_large"),
        (rows_of({"facet": ["1", "h"], "names": names[1:]}), None),
        (rows_of(*({"facet": [str(n), "h"], "names": ["a"]} for n in range(MOST_FACETS))), "too_large"),
    ):
        parsed = VENDOR.parse("warriors", planned, answer(content))
        assert [failure.means for failure in parsed.failures] == ([means] if means else [])


def test_one_list_names_agents_and_their_metrics() -> None:
    """The same request serves both assets; a metric's values follow from its name."""
    planned = VENDOR.warriors("7", DAY)
    (groups,) = VENDOR.data_groups_of("7", ["1", "2"], DAY)
    assert groups.request.key == planned.request.key
    content = rows_of(
        {"facet": ["1", "host a"], "names": ["Apdex", "Errors/all"]}, {"facet": ["3", "b"], "names": []}
    )
    warriors = VENDOR.parse("warriors", planned, answer(content))
    assert (warriors.lists()["warrior_id"], warriors.lists()["name"]) == (["1", "3"], ["host a", "b"])
    found = VENDOR.parse("data_groups", groups, answer(content)).columns
    assert found["warrior_id"] == ["1", "1"]
    assert found["value_names"] == [["score", "s", "t", "f", "count"], ["error_count", "errors_per_minute"]]


def test_a_bucket_without_calls_of_the_agent_has_no_rows() -> None:
    """NerdGraph gives every bucket of the range; where another metric has calls, a zero is one."""
    (planned,) = data({"w": ["a", "b"]})
    later = DAY.start + timedelta(seconds=1800)
    content = rows_of(
        row("w", "a", DAY.start, calls=0, average=None),
        row("w", "b", DAY.start, calls=3, average=0.1),
        row("w", "a", later, calls=0, average=None),
        row("w", "b", later, calls=0, average=None),
    )
    parsed = VENDOR.parse("performance_data", planned, answer(content))
    assert parsed.lists()["data_group"] == ["a", "a", "b", "b"]
    assert parsed.lists()["value"] == [None, 0.0, 100.0, 3.0]


def test_an_agent_without_errors_has_none_where_only_these_are_asked() -> None:
    """Where errors alone are asked, no bucket is left out: none may have come while the agent was there."""
    (planned,) = data({"w": ["Errors/all"]})
    content = rows_of(row("w", "Errors/all", DAY.start, calls=0))
    assert VENDOR.parse("performance_data", planned, answer(content)).lists()["value"] == []
    (planned,) = VENDOR.performance_data_of(
        "7", {"w": [DataGroup("Errors/all", ("error_count",))]}, DAY, 1800
    )
    assert VENDOR.parse("performance_data", planned, answer(content)).lists()["value"] == [0.0]


@pytest.mark.parametrize("shift", [-1800, 86_400, 900])
def test_buckets_that_were_not_asked_are_no_answer(shift: int) -> None:
    """A range that lies elsewhere, or between the buckets, is incomplete; longer buckets are what they say."""
    (planned,) = data({"w": ["a"]})
    moved = row("w", "a", DAY.start + timedelta(seconds=shift), calls=1, average=1.0)
    assert VENDOR.parse("performance_data", planned, answer(rows_of(moved))).incomplete
    longer = row("w", "a", DAY.start, 3600, calls=60, average=1.0)
    parsed = VENDOR.parse("performance_data", planned, answer(rows_of(longer)))
    assert parsed.incomplete == ""
    assert set(parsed.lists()["timeslice_end"]) == {int(DAY.start.timestamp() + 3600) * 1_000_000}


@pytest.mark.parametrize("results", ["x", [1, None, "a"], [{"facet": "w"}], [{"facet": ["w"]}], [{}]])
@pytest.mark.parametrize("asset", ["warriors", "data_groups", "performance_data"])
def test_odd_rows_go_to_quarantine(asset: Any, results: Any) -> None:
    """What is no row is put aside; what is no list is no answer."""
    planned = data({"w": ["a"]})[0] if asset == "performance_data" else VENDOR.warriors("7", DAY)
    content = {"data": {"actor": {"account": {"q0": {"results": results}}}}}
    parsed: Parsed = VENDOR.parse(asset, planned, answer(content))
    assert len(parsed.failures) == isinstance(results, str)
    assert len(parsed.rejected) == (0 if isinstance(results, str) else len(results))


ASKED = {
    "w": [
        DataGroup("Http", ("average_response_time", "max_response_time", "calls_per_minute", "call_count")),
        DataGroup("Apdex", ("score", "s", "t", "f", "count")),
        DataGroup("Errors/all", ("error_count",)),
    ],
    "v": [DataGroup("CPU/User Time", ("percent", "max_percent")), DataGroup("Unwanted", ("call_count",))],
    "e": [DataGroup("Errors/all", ("error_count", "errors_per_minute"))],
}
FACETS = [(warrior, group.name) for warrior, groups in ASKED.items() for group in groups]
APDEX = {"score": 0.5, "s": 1, "t": 0, "f": 1, "count": 2}
_ODD_ROWS: list[dict[str, Any]] = [
    *(
        {"facet": facet}
        for facet in (["w"], ["w", "Other"], ["w", ""], "w", None, ["w", 1], ["w", "\ud800"], [])
    ),
    *({"beginTimeSeconds": time} for time in (None, True, 1.5, "x", 10**30, 5, 4_102_444_800)),
    *({"endTimeSeconds": time} for time in (None, 0, int(DAY.start.timestamp()), float(DAY.end.timestamp()))),
    *({"calls": number} for number in (None, 0, True, "1", math.nan, math.inf, 10**400, -1, 2**70)),
    *({"average": number} for number in (None, 0, True, "1", [], math.nan, -math.inf, 10**400, 1e308)),
    *(
        {"apdex": each}
        for each in (None, {}, 0.5, [], {"score": "x"}, {"s": None, "new": 1}, {"f": math.nan})
    ),
    {"unknown": "\ud800"},
    {"unknown": {"deep": [1]}, "average": None},
]
_ODD_DOCUMENTS: list[dict[str, Any]] = [
    *({"errors": each} for each in ([], None, [error("TIMEOUT", "q0")], "no", [{"message": 1}], {})),
    *(
        {"data": each}
        for each in (None, {}, {"actor": None}, {"actor": {"account": None}}, {"actor": {"account": {}}})
    ),
    *(
        {"data": {"actor": {"account": {"q0": each}}}}
        for each in (None, {}, {"results": None}, {"results": []})
    ),
    {"extensions": {}},
]


def _rows(*odd: dict[str, Any]) -> list[dict[str, Any]]:
    """Two buckets of each facet, and as many more as there are oddities."""
    plain = [
        row(
            *facet,
            DAY.start + timedelta(seconds=1800 * at),
            calls=2 - at,
            average=0.1,
            maximum=1,
            total=3,
            apdex=APDEX,
        )
        for facet in FACETS
        for at in range(2)
    ]
    return [*plain, *(plain[0] | each for each in odd)]


def _is_read_alike(body: bytes) -> None:
    (planned,) = VENDOR.performance_data_of("7", ASKED, DAY, 1800)
    answer = Response(200, {"content-type": "application/json"}, body, DAY.end)
    assert_read_alike(VENDOR, _Plain, planned, answer)


def _document(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer with the rows of each query: those of its agents and metrics, and what is of none in the first."""
    (planned,) = VENDOR.performance_data_of("7", ASKED, DAY, 1800)
    queries = Document.of(planned.request).queries
    found: dict[str, Any] = {alias: {"results": []} for alias in queries}
    for each in rows:
        facet = each.get("facet")
        mine = [
            alias
            for alias, query in queries.items()
            if isinstance(facet, list)
            and len(facet) == 2
            and facet[0] in query.warriors
            and facet[1] in query.metrics
        ]
        found[mine[0] if mine else "q0"]["results"].append(each)
    return {"data": {"actor": {"account": found}}}


def test_each_oddity_alone_is_read_as_the_thorough_reading_reads_it() -> None:
    """In an answer that is plain otherwise."""
    (planned,) = VENDOR.performance_data_of("7", ASKED, DAY, 1800)
    plain = answer(_document(_rows()))
    assert _Plain.read(planned, plain)
    assert VENDOR.judge("performance_data", planned, plain).columns == {}
    for odd in _ODD_ROWS:
        _is_read_alike(json.dumps(_document(_rows(odd))).encode())
    for odd_bytes in (b"\xff", b"\xed\xa0\x80", b"\\x"):
        body = json.dumps(_document(_rows({"unknown": "?"}))).encode()
        _is_read_alike(body.replace(b'"?"', b'"' + odd_bytes + b'"'))
    for more in _ODD_DOCUMENTS:
        _is_read_alike(json.dumps(_document(_rows()) | more).encode())


_VALUES = st.none() | st.floats(0, 9) | st.integers(0, 9)
_BUCKETS = st.fixed_dictionaries(
    {"facet": st.sampled_from([list(facet) for facet in FACETS]), "beginTimeSeconds": st.integers(0, 5)},
    optional={
        "calls": _VALUES,
        "average": _VALUES,
        "maximum": _VALUES,
        "total": _VALUES,
        "apdex": st.sampled_from([None, APDEX, {"score": None}]),
    },
)


@settings(max_examples=150)
@given(st.lists(_BUCKETS, max_size=12), st.sampled_from([{}, {}, *_ODD_ROWS]), st.data())
def test_a_quick_reading_says_what_the_thorough_one_says(
    buckets: list[dict[str, Any]], odd: dict[str, Any], data: st.DataObject
) -> None:
    """Whatever answer comes, plain or odd: the same rows, the same refusals, and the same verdict on arrival."""
    for bucket in buckets:
        start = int(DAY.start.timestamp()) + 1800 * bucket["beginTimeSeconds"]
        bucket |= {"beginTimeSeconds": start, "endTimeSeconds": start + 1800}
    if buckets:
        buckets[0] |= odd
    body = json.dumps(_document(buckets), ensure_ascii=data.draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    if data.draw(st.integers(0, 3)) == 0:
        at = data.draw(st.integers(0, len(body)))
        piece = data.draw(st.sampled_from([b"", b"\xff", b"1", b"-", b'"', b"}", b" ", b"\0", b"NaN", b"e5"]))
        body = body[:at] + piece + body[at + data.draw(st.integers(0, 3)) :]
    _is_read_alike(body)


def test_applications_come_by_their_number() -> None:
    """With a cursor to the next page; one without a number is put aside."""
    planned = VENDOR.troops(DAY)
    entities = [{"applicationId": 12, "name": "a", "guid": "g"}, {"applicationId": None, "name": "b"}, 3]
    results = {"entities": entities, "nextCursor": "more"}
    parsed = VENDOR.parse(
        "troops", planned, answer({"data": {"actor": {"entitySearch": {"results": results}}}})
    )
    assert (parsed.lists()["troop_id"], len(parsed.rejected)) == (["12"], 2)
    assert parsed.next is not None
    assert parsed.next.key != planned.request.key
    last = replace(answer({"data": {"actor": {"entitySearch": {"results": results | {"nextCursor": None}}}}}))
    assert VENDOR.parse("troops", planned, last).next is None
    (failure,) = VENDOR.parse("troops", planned, answer({"errors": [{"message": "no"}]})).failures
    assert failure.leaves == ("troops",)


@pytest.mark.parametrize("account", ["", "acme", "12a", "-1", "0"])
def test_an_account_is_a_number(account: str) -> None:
    """One line says what is accepted."""
    with pytest.raises(ConfigurationError, match=f"VENDOR_ACCOUNT='{account}' .* like 1234567"):
        vendors.make("nerdgraph", account)
