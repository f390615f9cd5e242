"""New Relic: what is asked for a day, and what is read from answers that are right, odd or wrong."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.days import Window, day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.simulator.dialect import Dialect
from vendor_assets.simulator.world import World
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest, Request, Response
from vendor_assets.vendors.new_relic import MAX_TIMESLICES, MAX_URL_CHARACTERS, NewRelic, _Regular, cut_day
from vendor_assets_tests.support.plain_readers import assert_read_alike

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
UTC_ZONE = parse_time_zone("UTC")
DAY = day_window(date(2026, 11, 20), UTC_ZONE)
OLD_DAY = day_window(date(2026, 10, 1), UTC_ZONE)
VENDOR = NewRelic(clock=lambda: NOW)
GROUPS = (DataGroup("Http", ("average_response_time", "call_count")), DataGroup("Mem", ("used",)))


def _response(content: object, link: str = "") -> Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Response(200, {"content-type": "application/json"} | ({"link": link} if link else {}), body, NOW)


def _planned(asset: Asset) -> PlannedRequest:
    match asset:
        case "troops":
            return VENDOR.troops(DAY)
        case "warriors":
            return VENDOR.warriors("7", DAY)
        case "data_groups":
            return VENDOR.data_groups("7", "9", DAY)
    return VENDOR.performance_data("7", "9", GROUPS, DAY, 1800)[0]


def _parse(asset: Asset, content: object, link: str = "") -> Parsed:
    return VENDOR.parse(asset, _planned(asset), _response(content, link))


def _slice(values: object, **changes: object) -> dict[str, Any]:
    return {
        "from": "2026-11-20T00:00:00+00:00",
        "to": "2026-11-20T00:30:00+00:00",
        "values": values,
    } | changes


def _data(*slices: object, name: str = "Http", **more: object) -> dict[str, Any]:
    metric = {"name": name, "timeslices": list(slices)} | more
    others = [group.name for group in GROUPS if group.name != name]
    return {"metric_data": {"metrics_not_found": others, "metrics_found": [name], "metrics": [metric]}}


def _rows(parsed: Parsed) -> list[dict[str, Any]]:
    columns = parsed.lists()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# What is asked


@pytest.mark.parametrize(
    ("resolution", "ranges"),
    [
        (60, 8),
        (120, 4),
        (180, 8),
        (300, 2),
        (600, 1),
        (900, 2),
        (1800, 1),
        (3600, 1),
        (10_800, 1),
        (86_400, 1),
    ],
)
def test_a_young_day_is_cut_by_the_documented_table(resolution: int, ranges: int) -> None:
    """The fewest ranges whose granularity divides the resolution, and the resolution as the period."""
    cut = cut_day(DAY, resolution, old=False)
    assert len(cut.ranges) == ranges
    assert cut.period_seconds == resolution


@pytest.mark.parametrize(("resolution", "period"), [(60, 3600), (1800, 3600), (3600, 3600), (5400, 7200)])
def test_an_old_day_is_one_range_of_hours(resolution: int, period: int) -> None:
    """Of old data there are hours only, and one range of more than four days brings them."""
    cut = cut_day(OLD_DAY, resolution, old=True)
    assert len(cut.ranges) == 1
    assert cut.period_seconds == period
    assert cut.ranges[0][0].seconds > 4 * 86_400


def test_a_day_of_25_hours_is_one_range_still() -> None:
    """The day on which clocks go back costs no second range at half an hour."""
    day = day_window(date(2026, 10, 25), parse_time_zone("Europe/Berlin"))
    assert day.seconds == 25 * 3600
    assert len(cut_day(day, 1800, old=False).ranges) == 1
    assert len(cut_day(day, 600, old=False).ranges) == 2


@pytest.mark.parametrize("resolution", [0, -60, 30, 90, 61])
def test_a_resolution_that_cannot_be_had_is_refused(resolution: int) -> None:
    """New Relic keeps data by the minute."""
    with pytest.raises(ConfigurationError, match="multiple of 60"):
        VENDOR.performance_data("7", "9", GROUPS, DAY, resolution)


_WORLD = World.preset("small", seed=1, churn=False)


@settings(max_examples=40)
@given(
    day=st.dates(date(2026, 3, 1), date(2026, 11, 20)),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]
    ),
    resolution=st.sampled_from([60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600]),
    age=st.timedeltas(timedelta(hours=1), timedelta(days=40)),
)
def test_the_answers_hold_each_timeslice_of_the_day(
    day: date, zone: str, resolution: int, age: timedelta
) -> None:
    """Whatever zone, length and age: the vendor answers with every timeslice that starts in the day, once."""
    window = day_window(day, parse_time_zone(zone))
    now = window.end + age
    warrior = _WORLD.warriors(_WORLD.troops(window.start.timestamp())[0].id, window.start.timestamp())[0]
    group = _WORLD.data_groups(warrior.id)[0]
    vendor = NewRelic(clock=lambda: now)
    planned = vendor.performance_data(
        warrior.troop_id, warrior.id, [DataGroup(group.name, group.value_names)], window, resolution
    )
    dialect = Dialect(_WORLD)
    starts: list[int] = []
    for part in planned:
        answer = dialect.reply(f"{part.request.path}?{urlencode(part.request.params)}", now.timestamp())
        assert answer.status == 200
        rows = _rows(vendor.parse("performance_data", part, _response(answer.body)))
        starts += [row["timeslice_start"] for row in rows if row["value_name"] == group.value_names[0]]
    old = now - window.start > timedelta(days=8) - timedelta(hours=2)
    step = max(resolution, 3600) if old else resolution
    inside = [
        start for start in starts if window.start <= datetime.fromtimestamp(start / 1e6, UTC) < window.end
    ]
    first = -(-int(window.start.timestamp()) // step) * step
    expected = [start * 1_000_000 for start in range(first, int(window.end.timestamp()), step)]
    assert sorted(inside) == expected


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(
            DataGroup,
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80),
            st.lists(
                st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), max_size=6
            ).map(tuple),
        ),
        unique_by=lambda group: group.name,
        max_size=60,
    ),
    st.sampled_from([60, 1800]),
    st.sampled_from([DAY, OLD_DAY]),
)
def test_each_group_is_asked_for_once_in_short_urls(
    groups: list[DataGroup], resolution: int, day: Window
) -> None:
    """Each group with values is asked for once per range, with all its values, within the caps."""
    asked: list[tuple[str, str]] = []
    for planned in VENDOR.performance_data("7", "9", groups, day, resolution):
        params = planned.request.params
        names = [text for name, text in params if name == "names[]"]
        values = {text for name, text in params if name == "values[]"}
        single = dict(params)
        length = len(planned.request.path) + 1 + len(urlencode(params))
        assert length <= MAX_URL_CHARACTERS or len(names) == 1
        span = datetime.fromisoformat(single["to"]) - datetime.fromisoformat(single["from"])
        assert len(names) * span.total_seconds() / int(single["period"]) <= MAX_TIMESLICES
        by_name = {group.name: group for group in groups}
        assert all(set(by_name[name].value_names) <= values for name in names)
        assert {leaf.data_group for leaf in planned.leaves} == set(names)
        asked += [(name, single["from"]) for name in names]
    assert len(asked) == len(set(asked))
    assert {name for name, _ in asked} == {group.name for group in groups if group.value_names}


@pytest.mark.parametrize("resolution", [60, 1800])
def test_a_leaf_keeps_its_key_when_the_day_grows_old(resolution: int) -> None:
    """The same leaves are answered by other requests after eight days, so nothing is asked for again."""
    later = NewRelic(clock=lambda: NOW + timedelta(days=30))
    young = VENDOR.performance_data("7", "9", GROUPS, DAY, resolution)
    old = later.performance_data("7", "9", GROUPS, DAY, resolution)
    keys = [[leaf.key for planned in plan for leaf in planned.leaves] for plan in (young, old)]
    assert set(keys[0]) == set(keys[1])
    assert len(keys[0]) == len(set(keys[0])) == len(keys[1])


def test_hostile_ids_stay_in_their_place() -> None:
    """An id that looks like a path, a query or a climb is one encoded segment."""
    path = VENDOR.data_groups("../x?a=1#", "..", DAY).request.path
    assert path == "/v2/applications/..%2Fx%3Fa%3D1%23/hosts/%2E%2E/metrics.json"


def test_the_key_goes_into_its_header() -> None:
    """One header, nothing else."""
    assert VENDOR.auth_headers("k") == {"X-Api-Key": "k"}


# Pages


@pytest.mark.parametrize(
    ("link", "page"),
    [
        ("", None),
        (
            '<https://h/v2/applications.json?page=2>; rel="next", <https://h/v2/applications.json?page=9>; rel="last"',
            "2",
        ),
        (
            '<https://h/v2/applications.json?page=1>; rel="first", </v2/applications.json?page=2>; rel=next',
            "2",
        ),
        ('<?page=2>; rel="next"', "2"),
        ("< applications.json?page=2 >; rel='next'", "2"),
        (
            '<https://h/v2/applications.json?page=1>; rel="last", </v2/applications.json?page=2>; rel=next',
            "2",
        ),
        ('<https://h/proxied/v2/applications.json?x=1&page=2>;title="a, b";rel="prefetch NEXT"', "2"),
        ('<https://h/v2/applications.json?page=1>; rel="prev"', None),
        ("garbage, <, ;;; rel=next", None),
    ],
)
def test_the_next_page_is_found_in_the_link(link: str, page: str | None) -> None:
    """Only a relation named next counts; the last page may be missing from the link."""
    found = _parse("troops", {"applications": []}, link).next
    assert (found.params if found else None) == ((("page", page),) if page else None)


def test_the_next_page_keeps_our_own_parameters_only() -> None:
    """A link that adds a parameter or names another host changes nothing but the page."""
    planned = _planned("performance_data")
    link = f'<https://evil.example{planned.request.path}?key=steal&names[]=x&page=2>; rel="next"'
    following = VENDOR.parse("performance_data", planned, _response(_data(), link)).next
    assert following is not None
    assert following.path == planned.request.path
    assert following.params == (*planned.request.params, ("page", "2"))


@pytest.mark.parametrize(
    "target",
    [
        "https://h/v2/secrets.json?page=2",
        "https://h/v2/applications.json?page=two",
        "https://h/v2/applications.json?cursor=abc",
        "https://h/v2/applications.json?page=" + "9" * 400,
        "https://[/v2/applications.json?page=2",
        "",
        "https://h/v2/applications.json?page=3",
        "https://h/v2/applications.json?page=2&page=9",
        f"https://h/v2/applications.json?page=2&x={'x' * 9000}",
    ],
)
def test_a_next_page_that_cannot_be_asked_for_is_an_error(target: str) -> None:
    """A list that goes on in a way we do not know is not silently cut short."""
    with pytest.raises(VendorProtocolError, match="next page"):
        _parse("troops", {"applications": []}, f'<{target}>; rel="next"')


def test_a_page_that_names_no_next_one_before_the_last_is_an_error() -> None:
    """Of a list that ends before its last page some are missing."""
    link = '<https://h/v2/applications.json?page={}>; rel="last"'
    with pytest.raises(VendorProtocolError, match="named after 1, the last is 3"):
        _parse("troops", {"applications": []}, link.format(3))
    third = replace(
        _response({"applications": []}, link.format(3)),
        asked=Request("/v2/applications.json", (("page", "3"),)),
    )
    assert VENDOR.parse("troops", _planned("troops"), third).next is None


# Lists


@pytest.mark.parametrize("asset", ["troops", "warriors", "data_groups", "performance_data"])
@pytest.mark.parametrize(
    "content", [{}, {"error": {"title": "no"}}, {"applications": {}, "application_hosts": 7}]
)
def test_a_wrong_envelope_cannot_be_understood(asset: Asset, content: dict[str, Any]) -> None:
    """Without its list an answer says nothing, and nothing is not the same as an empty list."""
    with pytest.raises(VendorProtocolError):
        _parse(asset, content)


def test_an_id_may_be_a_number_of_any_size_or_text() -> None:
    """Ids are opaque: kept exactly, as text."""
    records = [{"id": 2**64, "name": "a"}, {"id": "web-1", "name": None}, {"id": "../../x", "name": ""}]
    parsed = _parse("troops", {"applications": records})
    assert parsed.columns["troop_id"] == [str(2**64), "web-1", "../../x"]
    assert parsed.columns["name"] == ["a", None, ""]
    assert parsed.rejected == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"name": "a"}, "id is missing"),
        ({"id": None, "name": "a"}, "id is null"),
        ({"id": True, "name": "a"}, "id is of type bool"),
        ({"id": 1.5, "name": "a"}, "id is of type float"),
        ({"id": "", "name": "a"}, "id is empty"),
        ({"id": {"was": 1}, "name": "a"}, "id is of type dict"),
        ({"id": "\ud800", "name": "a"}, "id is not valid Unicode"),
        ({"id": 1}, "name is missing"),
        ({"id": 1, "name": 7}, "name is of type int"),
        ({"id": 1, "name": "\udfff"}, "name is not valid Unicode"),
        (7, "the record is not an object"),
        (None, "the record is not an object"),
    ],
)
def test_a_bad_record_is_put_aside_and_its_neighbours_stay(record: object, reason: str) -> None:
    """One record that does not fit goes to quarantine with its reason."""
    parsed = _parse("troops", {"applications": [{"id": 5, "name": "ok"}, record]})
    assert parsed.columns["troop_id"] == ["5"]
    assert [rejected.reason for rejected in parsed.rejected] == [reason]
    assert json.loads(parsed.rejected[0].record) == record


@pytest.mark.parametrize(
    ("asset", "content"),
    [
        ("troops", {"applications": None}),
        ("warriors", {"application_hosts": None}),
        ("data_groups", {"metrics": None}),
        ("performance_data", {"metric_data": None}),
        ("performance_data", {"metric_data": {"metrics": None, "metrics_not_found": None}}),
        ("performance_data", {"metric_data": {"metrics": [{"name": "Http", "timeslices": None}]}}),
    ],
)
def test_null_is_an_empty_list(asset: Asset, content: dict[str, Any]) -> None:
    """A list that is there and null is empty, which is no failure."""
    parsed = _parse(asset, content)
    assert [len(column) for column in parsed.columns.values() if column] == []
    assert (parsed.rejected, parsed.incomplete) == ([], "")


@pytest.mark.parametrize(
    ("asset", "name"),
    [("troops", "applications"), ("data_groups", "metrics"), ("performance_data", "metric_data")],
)
def test_null_beside_words_is_no_empty_list(asset: Asset, name: str) -> None:
    """The vendor says what kept it from answering, with a status that says nothing of it."""
    parsed = _parse(asset, {name: None, "message": "backend timed out"})
    assert "backend timed out" in parsed.incomplete


def test_a_metric_with_null_for_its_values_has_none() -> None:
    """A metric that has no values is on the list, as it is with an empty list of them."""
    parsed = _parse("data_groups", {"metrics": [{"name": "M", "values": None}]})
    assert (parsed.columns["value_names"], parsed.rejected) == ([[]], [])


def test_gone_is_an_entity_by_the_vendors_own_word() -> None:
    """A list of all applications is never gone; below it an error of the vendor's says so, and a page does not."""
    host = VENDOR.data_groups("7", "9", DAY).request
    assert VENDOR.says_gone(host, '{"error":{"title":"not found"}}')
    assert not VENDOR.says_gone(host, "<html>404</html>")
    assert not VENDOR.says_gone(host, "404 page not found")
    # A gateway that does not know the address.
    assert not VENDOR.says_gone(host, '{"message": "no Route matched with those values"}')
    assert not VENDOR.says_gone(host, '{"status": 404, "error": "Not Found"}')
    assert not VENDOR.says_gone(VENDOR.troops(DAY).request, '{"error":{"title":"not found"}}')


@pytest.mark.parametrize(
    ("edges", "whole"),
    [
        (["00:00-00:30", "00:30-01:00"], True),
        (["00:00-00:30", "05:00-05:30"], True),
        (["00:00-01:00", "01:00-02:00"], True),
        (["23:30-23:47"], True),
        (["00:10-00:40"], False),
        (["00:00-00:40", "00:30-01:00"], False),
    ],
)
def test_timeslices_are_those_asked_for(edges: list[str], whole: bool) -> None:
    """Longer or missing timeslices are what the vendor has; shifted or overlapping ones are another answer."""
    pieces = []
    for edge in edges:
        start, end = (f"2026-11-20T{time}:00+00:00" for time in edge.split("-"))
        pieces.append({"from": start, "to": end, "values": {"used": 1}})
    assert (_parse("performance_data", _data(*pieces, name="Mem")).incomplete == "") == whole


def test_another_days_timeslices_are_not_the_answer() -> None:
    """Timeslices outside of the range that was asked for do not make it an empty day."""
    other = _slice({"used": 1}, **{"from": "2026-11-22T00:00:00Z", "to": "2026-11-22T00:30:00Z"})
    assert "2026-11-22" in _parse("performance_data", _data(other, name="Mem")).incomplete


def test_a_new_field_is_kept_and_reported() -> None:
    """What nobody knows yet is in the attributes, and its name is told."""
    parsed = _parse(
        "warriors", {"application_hosts": [{"id": 5, "host": "h", "zone": "b", "language": "go"}]}
    )
    assert parsed.columns["attributes"] == ['{"language":"go","zone":"b"}']
    assert parsed.new_fields == ("zone",)


def test_metrics_are_read_with_their_value_names() -> None:
    """Each metric once, its value names once and in order."""
    metrics = [
        {"name": "Http", "values": ["b", "a", "b"]},
        {"name": "Http", "values": ["a"]},
        {"name": "M", "values": []},
    ]
    parsed = _parse("data_groups", {"metrics": metrics})
    assert parsed.columns == {
        "warrior_id": ["9", "9"],
        "data_group": ["Http", "M"],
        "value_names": [["a"], []],
    }


@pytest.mark.parametrize(
    "record",
    [
        {"values": []},
        {"name": "", "values": []},
        {"name": "a"},
        {"name": "a", "values": "b"},
        {"name": "a", "values": [1]},
    ],
)
def test_a_bad_metric_is_put_aside(record: dict[str, Any]) -> None:
    """A metric without a name or without names of values is no row."""
    parsed = _parse("data_groups", {"metrics": [record]})
    assert parsed.columns["data_group"] == []
    assert len(parsed.rejected) == 1


# Performance data


def test_a_timeslice_becomes_a_row_per_value() -> None:
    """Start and end in microseconds; averages carry the call count as their weight, counts carry none."""
    assert _rows(
        _parse("performance_data", _data(_slice({"average_response_time": 1.5, "call_count": 3})))
    ) == [
        {
            "warrior_id": "9",
            "data_group": "Http",
            "value_name": "average_response_time",
            "timeslice_start": 1_795_132_800_000_000,
            "timeslice_end": 1_795_134_600_000_000,
            "value": 1.5,
            "weight": 3.0,
        },
        {
            "warrior_id": "9",
            "data_group": "Http",
            "value_name": "call_count",
            "timeslice_start": 1_795_132_800_000_000,
            "timeslice_end": 1_795_134_600_000_000,
            "value": 3.0,
            "weight": None,
        },
    ]


def test_null_is_a_value() -> None:
    """The vendor says null, the table says null; so does the weight of an average without a count."""
    rows = _rows(
        _parse("performance_data", _data(_slice({"average_response_time": None, "call_count": None})))
    )
    assert [(row["value"], row["weight"]) for row in rows] == [(None, None), (None, None)]


@pytest.mark.parametrize("number", ["9223372036854775808", "-1.5", "0", "1e308", "18446744073709551617"])
def test_any_finite_number_is_kept(number: str) -> None:
    """Large integers become the nearest double; negative values are values."""
    body = json.dumps(_data(_slice({"used": 7}), name="Mem")).replace("7}", number + "}").encode()
    parsed = VENDOR.parse("performance_data", _planned("performance_data"), _response(body))
    assert parsed.lists()["value"] == [float(number)]


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400, '"12"', "true", "[1]", "{}"]
)
def test_what_is_no_finite_number_is_put_aside_alone(number: str) -> None:
    """A value that is no number goes to quarantine with its timeslice; its neighbours stay."""
    content = json.dumps(_data(_slice({"average_response_time": 777, "call_count": 3})))
    parsed = VENDOR.parse(
        "performance_data", _planned("performance_data"), _response(content.replace("777", number).encode())
    )
    assert parsed.lists()["value_name"] == ["call_count"]
    assert len(parsed.rejected) == 1
    assert parsed.rejected[0].reason.startswith("average_response_time is ")
    assert json.loads(parsed.rejected[0].record)["from"] == "2026-11-20T00:00:00+00:00"


@pytest.mark.parametrize(
    "piece",
    [
        {"to": "2026-11-20T00:30:00+00:00", "values": {}},
        _slice({"used": 1}, to=None),
        _slice({"used": 1}, to={"was": "x"}),
        _slice({"used": 1}, to=1_795_134_600),
        _slice({"used": 1}, to="soon"),
        _slice({"used": 1}, to="9" * 1000),
        _slice({"used": 1}, **{"from": "-0001-01-01T00:00:00"}),
        _slice({"used": 1}, **{"from": "1969-12-31T23:00:00+00:00"}),
        _slice({"used": 1}, **{"from": "0001-01-01T00:00:00+23:00"}),
        _slice({"used": 1}, to="9999-12-31T00:00:00-23:00"),
        _slice({"used": 1}, to="2026-11-20T00:00:00+00:00"),
        _slice({"used": 1}, to="2026-11-19T00:00:00+00:00"),
        _slice(None),
        _slice([1]),
        "slice",
        None,
    ],
)
def test_an_absurd_timeslice_is_put_aside(piece: object) -> None:
    """Without a sound start and end, or without values, a timeslice is no row; the next one is."""
    parsed = _parse("performance_data", _data(piece, _slice({"used": 2}), name="Mem"))
    assert parsed.lists()["value"] == [2]
    assert len(parsed.rejected) == 1


def test_times_without_an_offset_are_utc() -> None:
    """All times of the API are UTC; an offset is honoured where there is one."""
    first = _slice({"used": 1}, **{"from": "2026-11-20T00:00:00", "to": "2026-11-20T01:00:00Z"})
    second = _slice({"used": 1}, **{"from": "2026-11-20T05:45:00+05:45"})
    parsed = _parse("performance_data", _data(first, second, name="Mem"))
    assert parsed.lists()["timeslice_start"] == [1_795_132_800_000_000] * 2


def test_nothing_is_invented() -> None:
    """A metric or a value that was not asked for is no row."""
    parsed = _parse("performance_data", _data(_slice({"used": 1}), name="Other"))
    assert (parsed.lists()["value"], parsed.rejected[0].reason) == ([], "the metric was not asked for")
    parsed = _parse(
        "performance_data", _data(_slice({"used": 1, "surprise": 2}, unheard_of=1), name="Mem", more=1)
    )
    assert parsed.lists()["value_name"] == ["used"]
    assert parsed.new_fields == ("more", "surprise", "unheard_of")


_TIMES = [f"2026-11-20T{hour:02d}:{minute}:00+00:00" for hour in range(3) for minute in ("00", "30", "10")]
_NUMBERS = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.none()
    | st.integers(-(10**25), 10**25)
    | st.sampled_from([0.0, 0, -0.0, 3, 2.5, 10**400, "1", True, [], 1e308])
)
_PIECES = st.tuples(
    st.integers(0, 6).map(lambda at: _slice({}, **{"from": _TIMES[at], "to": _TIMES[at + 2]})),
    st.dictionaries(
        st.sampled_from(["average_response_time", "call_count", "used", "surprise"]), _NUMBERS, max_size=3
    )
    | st.fixed_dictionaries(
        {
            "average_response_time": st.floats(0, 9) | st.none(),
            "call_count": st.sampled_from([2, 0, -1, None]),
        }
    ),
).map(lambda both: both[0] | {"values": both[1]})
_METRICS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["Http", "Mem", "Http", "Mem", "Other", ""]),
            "timeslices": st.lists(_PIECES, max_size=5),
        },
        optional={"more": st.none()},
    ),
    max_size=4,
)


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    """Answers with data, most of them as documented, some with a piece cut out or put in."""
    content: dict[str, Any] = {
        "metric_data": {
            "from": _TIMES[0],
            "metrics_not_found": draw(st.sampled_from([[], ["Mem"], None, [1], "x"])),
            "metrics": draw(_METRICS),
        }
    }
    if draw(st.booleans()):
        for metric in content["metric_data"]["metrics"]:
            metric["timeslices"].sort(key=lambda piece: piece["from"])
    body = json.dumps(content, ensure_ascii=draw(st.booleans())).encode()
    if draw(st.integers(0, 3)):
        return body
    at = draw(st.integers(0, len(body)))
    odd = draw(
        st.sampled_from(
            [b"", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"1", b"-", b"0", b'"', b"}", b" ", b"\0"]
        )
    )
    return (
        draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
        + body[:at]
        + odd
        + body[at + draw(st.integers(0, 3)) :]
    )


@settings(max_examples=400)
@given(body=_bodies(), link=st.sampled_from(["", "", '<https://h/other>; rel="next"']))
def test_a_quick_reading_says_what_the_thorough_one_says(body: bytes, link: str) -> None:
    """Whatever answer comes, plain or odd: the same rows, the same refusals, and the same verdict on arrival."""
    assert_read_alike(VENDOR, _Regular, _planned("performance_data"), _response(body, link))


def test_a_plain_answer_is_judged_without_its_rows() -> None:
    """On arrival a verdict is enough, for which values do not matter; pages of several, and odd times, are read."""
    planned = _planned("performance_data")
    plain, odd = (_response(_data(_slice({"used": value}), name="Mem")) for value in (1, "1"))
    for answer in (plain, odd):
        assert VENDOR.judge("performance_data", planned, answer).columns == {}
    torn = json.dumps(_data(_slice({"used": "?"}), name="Mem")).encode().replace(b"?", b"\xff")
    with pytest.raises(VendorProtocolError):
        VENDOR.judge("performance_data", planned, _response(torn))
    absurd = _response(_data(_slice({"used": 1}, **{"from": "x"}), name="Mem"))
    assert VENDOR.judge("performance_data", planned, absurd).lists()["value"] == []
    paged = _response(_data(_slice({"used": 1}), name="Mem"), f'<{planned.request.path}?page=2>; rel="next"')
    assert VENDOR.judge("performance_data", planned, paged).lists()["value"] == [1]
    last = replace(plain, asked=planned.request)
    assert VENDOR.judge("performance_data", planned, last).lists()["value"] == [1]


def test_who_reads_in_another_way_judges_by_it() -> None:
    """A subclass that finds an answer not whole is asked on arrival, too."""

    class Strict(NewRelic):
        def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
            return replace(super().parse(asset, planned, response), incomplete="half")

    answer = _response(_data(_slice({"used": 1}), name="Mem"))
    planned = _planned("performance_data")
    for vendor in (Strict(), type("Stricter", (Strict,), {})()):
        assert vendor.judge("performance_data", planned, answer).incomplete == "half"


def test_unknown_metrics_are_told() -> None:
    """Names in ``metrics_not_found`` are reported, if they were asked for."""
    content = {"metric_data": {"metrics_not_found": ["Http", "Never asked"], "metrics": []}}
    assert _parse("performance_data", content).not_found == ("Http",)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["Http", "used", "9"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "metric_data",
                    "metrics",
                    "name",
                    "timeslices",
                    "from",
                    "to",
                    "values",
                    "id",
                    "metrics_not_found",
                ]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(
    asset=st.sampled_from(["troops", "warriors", "data_groups", "performance_data"]),
    content=st.dictionaries(
        st.sampled_from(["applications", "application_hosts", "metrics", "metric_data"]), _JSON
    ),
    link=st.text(max_size=60),
)
def test_any_json_is_read_or_refused(asset: Asset, content: dict[str, Any], link: str) -> None:
    """Whatever JSON comes: columns of one length, or a protocol error; never another exception."""
    try:
        parsed = _parse(asset, content, link)
    except VendorProtocolError:
        return
    assert len({len(column) for column in parsed.columns.values()}) == 1
    json.dumps(parsed.lists())


def test_the_documented_dialect_of_the_simulator_has_no_new_fields() -> None:
    """The embedded vendor and this reader agree on every list."""
    dialect, now = Dialect(_WORLD), NOW.timestamp()
    troop = _WORLD.troops(now)[0]
    warrior = _WORLD.warriors(troop.id, now)[0]
    for asset, planned in (
        ("troops", VENDOR.troops(DAY)),
        ("warriors", VENDOR.warriors(troop.id, DAY)),
        ("data_groups", VENDOR.data_groups(troop.id, warrior.id, DAY)),
    ):
        answer = dialect.reply(planned.request.path, now)
        parsed = VENDOR.parse(asset, planned, _response(answer.body))  # type: ignore[arg-type]
        assert (parsed.rejected, parsed.new_fields) == ([], ())
        assert next(iter(parsed.columns.values()))
    assert parse_qsl(urlencode(VENDOR.probe().params))


def _parts(planned: PlannedRequest) -> list[PlannedRequest]:
    """All parts of a request, down to those that cannot be split."""
    parts = VENDOR.split(planned)
    assert not parts or {leaf for part in parts for leaf in part.leaves} == set(planned.leaves)
    return [last for part in parts for last in _parts(part)] or [planned]


@pytest.mark.parametrize(("day", "ranges"), [(DAY, 4), (OLD_DAY, 1)])
def test_the_parts_of_a_request_ask_for_the_same(day: Window, ranges: int) -> None:
    """Metrics, then values, then time are halved; each average keeps its call count, and an old day stays whole."""
    values = ("average_response_time", "call_count", "min", "max")
    groups = [DataGroup("Http", values), DataGroup("Mem", ("used", "free"))]
    (whole,) = VENDOR.performance_data("1", "2", groups, day, 21_600)
    asked: Counter[tuple[str, str, str]] = Counter()
    for part in _parts(whole):
        told = part.request.params
        (name,) = (text for key, text in told if key == "names[]")
        value, *others = (text for key, text in told if key == "values[]")
        assert others == ["call_count"]
        assert {leaf.data_group for leaf in part.leaves} == {name}
        asked[name, value, dict(told)["from"]] += 1
    assert set(asked.values()) == {1}
    wanted = {"average_response_time", "min", "max", "used", "free"}
    assert {(name, value) for name, value, _ in asked} == {
        (name, value) for name in ("Http", "Mem") for value in wanted
    }
    assert len({start for _, _, start in asked}) == ranges


def test_a_list_is_not_split() -> None:
    """A list is one thing; there is nothing to ask for less of."""
    assert VENDOR.split(_planned("warriors")) == []


def test_one_metric_of_very_many_values_takes_several_requests() -> None:
    """No URL is longer than others are, and all requests are of the same leaf."""
    values = ("call_count", *(f"value_{number:04d}_{'x' * 30}" for number in range(200)))
    planned = VENDOR.performance_data("1", "2", [DataGroup("Http", values)], DAY, 1800)
    assert len(planned) > 3
    assert (
        max(len(part.request.path) + 1 + len(urlencode(part.request.params)) for part in planned)
        <= MAX_URL_CHARACTERS
    )
    assert {leaf for part in planned for leaf in part.leaves} == set(planned[0].leaves)
    asked = Counter(text for part in planned for key, text in part.request.params if key == "values[]")
    assert asked == {name: len(planned) if name == "call_count" else 1 for name in values}


_NOT_WHOLE: list[dict[str, Any]] = [
    {"error": {"title": "Internal error"}},
    {"errors": ["Internal error"]},
    {"partial": "Internal error"},
    {"success": False, "message": "Internal error"},
    {"status": "error", "message": "Internal error"},
]


@pytest.mark.parametrize("said", _NOT_WHOLE)
@pytest.mark.parametrize(
    ("asset", "content"),
    [
        ("troops", {"applications": []}),
        ("warriors", {"application_hosts": []}),
        ("data_groups", {"metrics": []}),
        ("performance_data", _data()),
    ],
)
def test_an_error_beside_data_is_not_the_whole_answer(
    asset: Asset, content: dict[str, Any], said: dict[str, Any]
) -> None:
    """An account without troops, or a day without rows, is not what a vendor in trouble tells of."""
    for whole in (
        content,
        content | {"error": None, "errors": []},
        content | {"status": "ok", "success": True},
    ):
        assert VENDOR.judge(asset, _planned(asset), _response(whole)).incomplete == ""
    assert "Internal error" in VENDOR.judge(asset, _planned(asset), _response(content | said)).incomplete


@pytest.mark.parametrize("said", _NOT_WHOLE)
def test_an_error_within_the_data_is_not_the_whole_answer(said: dict[str, Any]) -> None:
    """It is told wherever it stands, on arrival as later."""
    content = {"metric_data": _data()["metric_data"] | said}
    for judge in (VENDOR.judge, VENDOR.parse):
        assert (
            "Internal error"
            in judge("performance_data", _planned("performance_data"), _response(content)).incomplete
        )


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, ""),
        ({"metrics_found": None, "metrics_not_found": None}, ""),
        ({"from": "2026-11-20T12:00:00", "to": "2026-11-21T00:00:00Z"}, ""),
        ({"from": "noon", "to": None}, ""),
        ({"metrics_not_found": []}, "whether it has found 'Http'"),
        ({"metrics_found": ["Http"], "metrics_not_found": ["Mem"]}, "it has found 'Http'"),
        ({"from": "2026-11-19T00:00:00Z", "to": "2026-11-20T00:00:00Z"}, "it is of 2026-11-19"),
        ({"from": "2026-11-21T00:00:00Z", "to": "2026-11-22T00:00:00Z"}, "it is of 2026-11-21"),
    ],
)
def test_an_answer_without_rows_is_to_what_was_asked(told: dict[str, Any], reason: str) -> None:
    """It names each metric, found or not, and its range: else a cache gave that of another question."""
    empty = {"metrics_not_found": ["Http", "Mem"], "metrics_found": [], "metrics": []}
    content = {"metric_data": empty | told}
    for judge in (VENDOR.judge, VENDOR.parse):
        incomplete = judge("performance_data", _planned("performance_data"), _response(content)).incomplete
        assert reason in incomplete
        assert bool(incomplete) == bool(reason)


@pytest.mark.parametrize(
    ("application", "ours"),
    [(7, True), ("7", True), (None, True), (True, True), ("\ud800", True), (2, False), ("2", False)],
)
def test_hosts_of_another_application_are_not_the_answer(application: object, ours: bool) -> None:
    """A cache in between that mixes answers up gives nobody's warriors to another troop."""
    host = {"id": 11, "host": "h", "links": {"application": application}}
    content = {"application_hosts": [host]}
    assert (_parse("warriors", content).incomplete == "") == ours
