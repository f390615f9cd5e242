"""Datadog's requests and answers, as pure text.

What answers look like follows docs.datadoghq.com/api/latest (hosts, metrics) and what Datadog recorded for the tests of
its clients (DataDog/datadog-api-client-python, cassettes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors.base import DataGroup, Keys, Parsed, PlannedRequest, Request, Response
from vendor_assets.vendors.datadog import MAX_URL_CHARACTERS, MOST_POINTS, Datadog
from vendor_assets_tests.support.plain_readers import datadog_points

DAY = day_window(datetime(2026, 11, 20, tzinfo=UTC).date(), parse_time_zone("UTC"))
START = int(DAY.start.timestamp())
VENDOR = Datadog()
GAUGES = Datadog(counts=())
CPU = DataGroup("system.cpu", ("system.cpu.user", "system.cpu.idle"))
HOSTILE = ['it"s', "it's", "a*b", "{x}", "a,b", "a) OR (b", "ümlaut 🎈", "a b", "line\nend", "", "\ud800"]


def answer(document: object, asked: Request | None = None) -> Response:
    headers = {"content-type": "application/json"}
    return Response(200, headers, json.dumps(document).encode(), DAY.end, asked)


def host(name: object, *tags: str, **more: object) -> dict[str, Any]:
    return {"name": name, "tags_by_source": {"Datadog": list(tags)}, **more}


def hosts(*found: object, total: object = None, **more: object) -> dict[str, Any]:
    return {"host_list": list(found), "total_matching": len(found) if total is None else total, **more}


def planned_data(
    groups: Mapping[str, list[DataGroup]], resolution: int = 1800, vendor: Datadog = GAUGES
) -> list[PlannedRequest]:
    return vendor.performance_data_of("checkout", groups, DAY, resolution)


def one(hosts: tuple[str, ...] = ("h1",), *groups: DataGroup, resolution: int = 3600) -> PlannedRequest:
    (planned,) = planned_data({name: list(groups or [CPU]) for name in hosts}, resolution)
    return planned


def queries(planned: PlannedRequest) -> list[str]:
    return [each["query"] for each in json.loads(planned.request.body)["data"]["attributes"]["queries"]]


def points(*series: tuple[int, str, list[object]], times: list[Any] | None = None) -> dict[str, Any]:
    """An answer with a point at each of the day's first hours."""
    count = len(series[0][2]) if series and times is None else 0
    attributes = {
        "series": [{"group_tags": [tag], "query_index": index, "unit": None} for index, tag, _ in series],
        "times": [(START + 3600 * hour) * 1000 for hour in range(count)] if times is None else times,
        "values": [values for _, _, values in series],
    }
    return {"data": {"id": "0", "type": "timeseries_response", "attributes": attributes}}


def read(document: object, planned: PlannedRequest | None = None) -> Parsed:
    return VENDOR.parse("performance_data", planned or one(), answer(document))


# Lists


def test_services_are_tags_of_hosts_under_whatever_source() -> None:
    """A host may have several services, or none; those of cloud providers count too."""
    cloud = {"name": "h2", "tags_by_source": {"Amazon Web Services": ["service:search"], "Users": []}}
    found = hosts(
        host("h1", "env:x", "service:checkout", "service:pay", "service:"),
        cloud,
        host("h3", "service:"),
        {"name": "h4"},
    )
    parsed = VENDOR.parse("troops", VENDOR.troops(DAY), answer(found))
    assert parsed.lists()["troop_id"] == ["checkout", "pay", "search", ""]
    assert parsed.lists()["name"] == ["checkout", "pay", "search", "(no service)"]
    assert parsed.next is None
    assert not parsed.incomplete


def test_the_search_for_a_service_is_exact_in_the_end() -> None:
    """The filter of hosts finds longer names, and a tag in a name; only hosts of the service are taken."""
    planned = VENDOR.warriors("pay", DAY)
    assert ("filter", "service:pay") in planned.request.params
    found = hosts(host("h1", "service:pay"), host("h2", "service:payroll"), host("service:pay"))
    assert VENDOR.parse("warriors", planned, answer(found)).lists()["warrior_id"] == ["h1"]
    nameless = VENDOR.warriors("", DAY)
    assert "filter" not in dict(nameless.request.params)
    assert VENDOR.parse("warriors", nameless, answer(found)).lists()["warrior_id"] == ["service:pay"]


def test_lists_go_back_to_the_start_of_the_day() -> None:
    """Hosts that were gone by noon are listed: without ``from`` only those of the last three hours are."""
    for planned in (VENDOR.troops(DAY), VENDOR.warriors("pay", DAY), VENDOR.data_groups("pay", "h1", DAY)):
        assert dict(planned.request.params)["from"] == str(START)


def test_pages_follow_until_all_hosts_are_there() -> None:
    """Each page begins behind the last one; an estimated total is not relied on, and one that is missed is told."""
    planned = VENDOR.troops(DAY)
    first = VENDOR.parse("troops", planned, answer(hosts(host("h1"), host("h2"), total=3)))
    assert first.next is not None
    assert dict(first.next.params) == dict(planned.request.params) | {"start": "2"}
    last = VENDOR.parse("troops", planned, answer(hosts(host("h3"), total=3), first.next))
    assert (last.next, last.incomplete) == (None, "")
    assert (first.about, last.about) == (("h1", "h2"), ("h3",))
    cut = VENDOR.parse("troops", planned, answer(hosts(total=3), first.next))
    assert (cut.next, cut.incomplete) == (None, "it has 2 hosts of 3")
    estimated = hosts(host("h1"), total=1, exact_total_matching=False)
    assert VENDOR.parse("troops", planned, answer(estimated)).next is not None
    ended = VENDOR.parse("troops", planned, answer(hosts(total=2, exact_total_matching=False), first.next))
    assert (ended.next, ended.incomplete) == (None, "")


@pytest.mark.parametrize("nothing", [[], None])
def test_an_empty_list_is_an_answer(nothing: object) -> None:
    """Also null, as Go writes it: no hosts, no metrics, no series."""
    listed = answer({"host_list": nothing, "total_matching": 0})
    assert VENDOR.parse("troops", VENDOR.troops(DAY), listed).lists()["troop_id"] == []
    assert VENDOR.parse("warriors", VENDOR.warriors("pay", DAY), listed).lists()["warrior_id"] == []
    names = VENDOR.parse("data_groups", VENDOR.data_groups("pay", "h1", DAY), answer({"metrics": nothing}))
    assert names.lists() == {"warrior_id": [], "data_group": [], "value_names": []}
    attributes = {"series": nothing, "times": nothing, "values": nothing}
    parsed = read({"data": {"attributes": attributes}})
    assert not any(parsed.lists().values())
    assert not parsed.incomplete


@pytest.mark.parametrize(
    ("asset", "document"),
    [
        ("troops", {"total_matching": 1}),
        ("troops", {"host_list": {}, "total_matching": 1}),
        ("troops", {"host_list": []}),
        ("troops", {"host_list": [], "total_matching": True}),
        ("data_groups", {"from": str(START)}),
        ("performance_data", {}),
        ("performance_data", {"data": []}),
        ("performance_data", {"data": {"attributes": {"series": [], "values": []}}}),
        ("performance_data", {"data": {"attributes": {"series": [], "values": [[1]], "times": []}}}),
    ],
)
def test_what_has_no_records_is_no_answer(asset: Any, document: object) -> None:
    """A list that is missing is not an empty one."""
    planned = {"troops": VENDOR.troops(DAY), "data_groups": VENDOR.data_groups("pay", "h1", DAY)}
    with pytest.raises(VendorProtocolError):
        VENDOR.parse(asset, planned.get(asset, one()), answer(document))


@pytest.mark.parametrize("name", [*HOSTILE, None, 7, ["h1"]])
def test_a_host_that_no_query_can_hold_is_put_aside(name: object) -> None:
    """Its name would change the query's meaning; the other hosts stay."""
    found = hosts(host(name, "service:pay"), host("WIN-7.example:80/ü", "service:pay"))
    parsed = VENDOR.parse("warriors", VENDOR.warriors("pay", DAY), answer(found))
    assert parsed.lists()["warrior_id"] == ["WIN-7.example:80/ü"]
    assert len(parsed.rejected) == 1


@pytest.mark.parametrize(
    "tags", [[], "x", {"Datadog": "service:pay"}, {"Datadog": [7]}, {"Datadog": ["\ud800"]}]
)
def test_tags_that_are_none_put_their_host_aside(tags: object) -> None:
    """Whatever stands in the place of the lists of tags by source."""
    found = hosts({"name": "h1", "tags_by_source": tags}, host("h2", "service:pay"))
    parsed = VENDOR.parse("troops", VENDOR.troops(DAY), answer(found))
    assert parsed.lists()["troop_id"] == ["pay"]
    assert len(parsed.rejected) == 1


@pytest.mark.parametrize("name", [*HOSTILE, "system.cpu-user", "9lives", "sÿstem.cpu", None, 7])
def test_a_metric_that_no_query_can_hold_is_put_aside(name: object) -> None:
    """Names have ASCII letters, digits, underscores and dots, and begin with a letter."""
    found = {"metrics": [name, "system.cpu.user", "uptime"], "from": str(START)}
    parsed = VENDOR.parse("data_groups", VENDOR.data_groups("pay", "h1", DAY), answer(found))
    assert parsed.lists()["data_group"] == ["system.cpu", "uptime"]
    assert parsed.lists()["value_names"] == [["system.cpu.user"], ["uptime"]]
    assert len(parsed.rejected) == 1


def test_services_of_any_text_are_searched_and_found() -> None:
    """A service is only compared and searched for: its text stays in a parameter, whatever it is."""
    for name in filter(str.isprintable, HOSTILE[:-2]):
        planned = VENDOR.warriors(name, DAY)
        assert ("filter", f"service:{name}") in planned.request.params
        parsed = VENDOR.parse("warriors", planned, answer(hosts(host("h1", f"service:{name}"))))
        assert parsed.lists()["warrior_id"] == ["h1"]


def test_a_plan_is_read_by_the_tag_that_it_was_made_with() -> None:
    """Where the option is another when the answer is read again."""
    found = answer(hosts(host("h1", "team:a", "service:b")))
    by_team = Datadog("team")
    assert VENDOR.parse("troops", by_team.troops(DAY), found).lists()["troop_id"] == ["a"]
    assert VENDOR.parse("warriors", by_team.warriors("a", DAY), found).lists()["warrior_id"] == ["h1"]


def test_what_a_host_has_besides_is_kept() -> None:
    """Unknown fields are in its attributes, and named."""
    found = answer(hosts(host("h1", "service:pay", up=True, colour="red")))
    parsed = VENDOR.parse("warriors", VENDOR.warriors("pay", DAY), found)
    (attributes,) = parsed.lists()["attributes"]
    assert json.loads(str(attributes)) == {
        "colour": "red",
        "tags_by_source": {"Datadog": ["service:pay"]},
        "up": True,
    }
    assert parsed.new_fields == ("colour",)


def test_metrics_of_many_hosts_are_listed_at_once() -> None:
    """In URLs that are short enough; each host has all of the list's metrics, and a list is split by hosts."""
    names = [f"host-{number}.example.com" for number in range(500)]
    planned = VENDOR.data_groups_of("pay", names, DAY)
    assert 1 < len(planned) <= 4
    assert [leaf.warrior_id for each in planned for leaf in each.leaves] == names
    assert all(len(each.request.target) <= MAX_URL_CHARACTERS for each in planned)
    two = VENDOR.data_groups_of("pay", ["h1", "h2"], DAY)[0]
    parsed = VENDOR.parse("data_groups", two, answer({"metrics": ["uptime"], "from": str(START)}))
    assert parsed.lists()["warrior_id"] == ["h1", "h2"]
    for half, name in zip(VENDOR.split(two), ("h1", "h2"), strict=True):
        assert dict(half.request.params)["tag_filter"] == f"host IN ({name})"
        assert [leaf.key for leaf in half.leaves] == [name]
    assert VENDOR.split(VENDOR.data_groups("pay", "h1", DAY)) == []


def test_a_list_from_another_moment_is_not_all() -> None:
    """Datadog repeats since when it lists, as text or a number."""
    planned = VENDOR.data_groups("pay", "h1", DAY)
    for since in (str(START), START):
        assert not VENDOR.parse("data_groups", planned, answer({"metrics": [], "from": since})).incomplete
    assert VENDOR.parse("data_groups", planned, answer({"metrics": [], "from": "7"})).incomplete


# Queries


def test_a_query_asks_for_what_was_reported_and_nothing_else() -> None:
    """By host, so that two hosts are not mixed; at the wanted interval; without interpolation."""
    planned = one(("h1", "h2"))
    assert queries(planned) == [
        f"avg:system.cpu.{name}{{host IN (h1,h2)}} by {{host}}.rollup(avg, 3600).fill(null)"
        for name in ("user", "idle")
    ]
    attributes = json.loads(planned.request.body)["data"]["attributes"]
    assert (attributes["from"], attributes["to"]) == (START * 1000, (START + 86_400) * 1000)
    assert attributes["interval"] == 3_600_000


def test_requests_keep_their_keys() -> None:
    """A plan that was frozen by this version is that of the next one: these change only on purpose."""
    assert VENDOR.troops(DAY).request.key == f"/api/v1/hosts?count=1000&from={START}&start=0"
    listed = VENDOR.data_groups("pay", "h1", DAY).request.key
    assert listed == f"/api/v1/metrics?from={START}&tag_filter=host+IN+%28h1%29"
    digest = "#499c36a4c89d81386d5a277d343caaed"
    assert one().request.key == f"POST /api/v2/query/timeseries{digest}"
    assert one().leaves[0].key == f"h1|system.cpu|{START}-{START + 86_400}"


@pytest.mark.parametrize(
    ("counts", "ways"),
    [(None, ["avg", "sum"]), (("*.hits",), ["sum"]), (("a.*", "b"), ["avg"]), ((), ["avg"])],
)
def test_counts_are_summed_and_gauges_averaged(counts: tuple[str, ...] | None, ways: list[str]) -> None:
    """Both where it is not known which a metric is."""
    hits = DataGroup("web", ("web.hits",))
    (planned,) = planned_data({"h1": [hits]}, vendor=Datadog(counts=counts))
    texts = queries(planned)
    assert [text.partition(":")[0] for text in texts] == ways
    assert [".as_count()" in text for text in texts] == [way == "sum" for way in ways]


@pytest.mark.parametrize("resolution", [1, 5, 57, 58, 60, 300, 3600, 86_400])
def test_no_series_has_more_points_than_datadog_answers_with(resolution: int) -> None:
    """More would come at a longer interval; the fewest windows that can be cover the day, one behind the other."""
    planned = planned_data({"h1": [CPU]}, resolution)
    windows = sorted({(w.start, w.end) for each in planned for leaf in each.leaves if (w := leaf.window)})
    assert len(windows) == -(-86_400 // (MOST_POINTS * resolution))
    assert all((end - start).total_seconds() <= MOST_POINTS * resolution for start, end in windows)
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    assert windows[0][0] - DAY.start < timedelta(seconds=resolution)
    assert windows[-1][1] >= DAY.end


def test_a_request_is_as_full_as_it_may_be() -> None:
    """A hundred hosts are one query; more queries than one request takes are several; hosts that differ are apart."""
    many = [DataGroup(f"g{number}", (f"g{number}.a", f"g{number}.b")) for number in range(40)]
    planned = planned_data({f"h{number}": many for number in range(100)})
    assert [len(queries(each)) for each in planned] == [34, 34, 12]
    assert sum(len(each.leaves) for each in planned) == 4000
    (two,) = planned_data({f"h{number}": [CPU] for number in range(150)})
    assert [text.count(",h") for text in queries(two)] == [74, 74, 74, 74]
    (mixed,) = planned_data({"h1": [CPU], "h2": [many[0]], "h3": [CPU]})
    assert ["h1,h3" in text for text in queries(mixed)] == [True, True, False, False]


def test_a_data_group_of_many_metrics_takes_several_requests() -> None:
    """They share its leaves, and follow each other."""
    wide = DataGroup("wide", tuple(f"wide.m{number}" for number in range(80)))
    planned = planned_data({"h1": [wide]})
    assert [len(queries(each)) for each in planned] == [27, 27, 26]
    assert len({each.leaves for each in planned}) == 1
    uneven = DataGroup("g", ("g." + 60_000 * "x", "g." + 60_000 * "y", "g.a", "g.b", "g.c"))
    planned = planned_data({"h1": [uneven]})
    assert all(len(each.leaves) == 1 for each in planned)
    assert sum(len(queries(each)) for each in planned) == 5


def test_splitting_ends_with_a_point_of_a_metric_of_a_host() -> None:
    """By data groups, hosts, values, then time; whatever is asked for in the end is all that was asked for."""
    whole = one(("h1", "h2"), CPU, DataGroup("uptime", ("uptime",)))
    waiting, asked = [whole], set()
    while waiting:
        planned = waiting.pop()
        parts = VENDOR.split(planned)
        assert all(set(part.leaves) <= set(planned.leaves) for part in parts)
        waiting += parts
        if not parts:
            attributes = json.loads(planned.request.body)["data"]["attributes"]
            ((leaf,), (query,)) = planned.leaves, queries(planned)
            assert attributes["to"] - attributes["from"] == 3_600_000
            assert f"host IN ({leaf.warrior_id})" in query
            asked.add((leaf.key, query, attributes["from"]))
    assert len(asked) == 2 * 3 * 24
    first = VENDOR.split(whole)
    assert [{leaf.data_group for leaf in part.leaves} for part in first] == [{"system.cpu"}, {"uptime"}]
    assert [[leaf.warrior_id for leaf in part.leaves] for part in VENDOR.split(first[0])] == [["h1"], ["h2"]]


# Points


def test_points_are_rows() -> None:
    """A row for each point of each host and value, also of a part of what was asked for; null is no row."""
    planned = one(("h1", "WIN"))
    found = points(
        (0, "host:h1", [1, None, 3.5]),
        (1, "host:WIN", [None, 2, None]),
        (0, "host:win", [None, None, 0]),
        (1, "host:H1", [None, None, 4]),
    )
    parsed = read(found, planned)
    assert list(
        zip(
            *(parsed.lists()[name] for name in ("warrior_id", "data_group", "value_name", "value")),
            strict=True,
        )
    ) == [
        ("h1", "system.cpu", "avg:system.cpu.user", 1.0),
        ("h1", "system.cpu", "avg:system.cpu.user", 3.5),
        ("WIN", "system.cpu", "avg:system.cpu.idle", 2.0),
        ("WIN", "system.cpu", "avg:system.cpu.user", 0.0),
        ("h1", "system.cpu", "avg:system.cpu.idle", 4.0),
    ]
    assert parsed.lists()["timeslice_start"] == [(START + 3600 * hour) * 10**6 for hour in (0, 2, 1, 2, 2)]
    assert parsed.lists()["timeslice_end"] == [(START + 3600 * hour) * 10**6 for hour in (1, 3, 2, 3, 3)]
    assert parsed.lists()["weight"] == [None] * 5
    assert not parsed.incomplete
    assert not parsed.rejected


def test_an_interval_that_datadog_changed_is_in_the_rows() -> None:
    """Times tell it; where they do not fit what was asked, the answer is not taken for whole."""
    longer = points((0, "host:h1", [1, 2, 3]), times=[(START + 7200 * each) * 1000 for each in range(3)])
    parsed = read(longer)
    assert not parsed.incomplete
    starts, ends = parsed.lists()["timeslice_start"], parsed.lists()["timeslice_end"]
    assert [end - start for start, end in zip(starts, ends, strict=True)] == [7200 * 10**6] * 3  # type: ignore[operator]
    for seconds, said in (
        ([0, 1800], "multiples of 1800 s"),
        ([-3600, 0], "it is for 2026-11-19T23:00:00+00:00"),
        ([0, 86_400], "it is for 2026-11-21T00:00:00+00:00"),
    ):
        shown = points((0, "host:h1", [1, 2]), times=[(START + each) * 1000 for each in seconds])
        assert said in read(shown).incomplete


def test_a_longer_interval_that_leaves_the_first_timeslice_out_is_not_all() -> None:
    """A bucket that began before the range is left out: what it held is not in the answer."""
    late = replace(DAY, start=DAY.start + timedelta(hours=1))
    (planned,) = GAUGES.performance_data_of("pay", {"h1": [CPU]}, late, 3600)
    every_two = [(START + 7200 * each) * 1000 for each in range(1, 5)]
    parsed = read(points((0, "host:h1", [1, 2, 3, 4]), times=every_two), planned)
    assert "the first is left out" in parsed.incomplete


def test_the_last_timeslice_ends_with_what_was_asked_for() -> None:
    """A longer one that begins within the window is cut at its end, so that no two rows overlap."""
    (first, _) = planned_data({"h1": [CPU]}, 57)
    window = first.leaves[0].window
    assert window is not None
    last = int(window.end.timestamp()) // 114 * 114
    times = [(last - 114 * each) * 1000 for each in (2, 1, 0)]
    parsed = read(points((0, "host:h1", [1, 2, 3]), times=times), first)
    ends = parsed.lists()["timeslice_end"]
    assert max(map(int, ends)) <= int(window.end.timestamp()) * 10**6  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "series",
    [
        (2, "host:h1", [1.0]),
        (-1, "host:h1", [1.0]),
        (True, "host:h1", [1.0]),
        ("0", "host:h1", [1.0]),
        (0, "host:h2", [1.0]),
        (0, "h1", [1.0]),
        (0, 7, [1.0]),
        (0, "host:h1", [1.0, 2.0]),
        (0, "host:h1", None),
        (0, "host:h1", ["1"]),
        (0, "host:h1", [True]),
        (0, "host:h1", [float("nan")]),
        (0, "host:h1", [10**400]),
    ],
)
def test_what_does_not_fit_is_put_aside(series: tuple[Any, Any, Any]) -> None:
    """A series of nobody, of another length, or a value that is no number; the other series stay."""
    document = points((1, "host:h1", [5.0]), series)
    parsed = read(document)
    assert parsed.lists()["value"] == [5.0]
    assert len(parsed.rejected) == 1


_VALUES = st.lists(st.none() | st.floats(0, 9) | st.integers(0, 9), min_size=3, max_size=3)
_ODD_VALUES: list[Any] = [
    *(
        [1, None, each]
        for each in (True, "1", [], math.nan, math.inf, -math.inf, 10**400, 2**63 + 1, -0.0, 1e308)
    ),
    *([1, 2], [], None, "x", [None, None, None], [math.nan, None, True]),
]
_ODD_TIMES: list[Any] = [
    *(
        [START * 1000, each]
        for each in ("x", True, 1.5, START * 1000, 10**30, math.inf, (START + 7200) * 1000.0)
    ),
    *([], None, "x", [START * 1000, (START + 1800) * 1000, (START + 3600) * 1000]),
    *([(START + more + hour * 3600) * 1000 for hour in range(3)] for more in (-3600, 80_000, 86_400)),
    [(START + hour * 7200) * 1000 for hour in range(3)],
]


def _is_read_alike(body: bytes) -> None:
    """As a value at a time, by what the standard library makes of the JSON; judged as it is read."""
    planned = one(("h1", "WIN"))
    response = Response(200, {"content-type": "application/json"}, body, DAY.end)

    def plain() -> Parsed:
        with suppress(ValueError):
            content = json.loads(body)
            if isinstance(content, dict) and not {"errors", "error", "status"} & content.keys():
                return datadog_points(content, planned)
        return VENDOR.parse("performance_data", planned, response)

    said = []
    for read in (plain, partial(VENDOR.parse, "performance_data", planned, response)):
        try:
            parsed = read()
            said.append(repr(replace(parsed, columns=parsed.lists())))
        except VendorProtocolError as error:
            parsed = Parsed(incomplete=f"refused: {error}")
            said.append(parsed.incomplete)
    assert said[0] == said[1]
    try:
        judged = VENDOR.judge("performance_data", planned, response)
    except VendorProtocolError as error:
        judged = Parsed(incomplete=f"refused: {error}")
    assert (judged.incomplete, judged.failures) == (parsed.incomplete, parsed.failures)
    assert judged.columns == {}


@settings(max_examples=100)
@given(st.data())
def test_many_points_at_once_are_read_like_one_at_a_time(data: st.DataObject) -> None:
    """Whatever answer comes, whole or with a piece cut out or put in: the same rows, refusals and verdict."""
    whose = st.tuples(
        st.sampled_from([0, 1, 1, 2, -1, True]), st.sampled_from(["host:h1", "host:win", "host:x", 7])
    )
    values = st.one_of(_VALUES, _VALUES, st.sampled_from(_ODD_VALUES))
    series = data.draw(st.lists(st.tuples(whose, values), max_size=4))
    times = [(START + 3600 * hour) * 1000 for hour in range(3)]
    document = points(*((*who, found) for who, found in series), times=times)  # type: ignore[arg-type]
    body = json.dumps(document).encode()
    if data.draw(st.integers(0, 3)) == 0:
        at = data.draw(st.integers(0, len(body)))
        odd = data.draw(st.sampled_from([b"", b"\xff", b"1", b"-", b'"', b"}", b" ", b"\0", b"NaN", b"e5"]))
        body = body[:at] + odd + body[at + data.draw(st.integers(0, 3)) :]
    _is_read_alike(body)


def test_each_oddity_alone_is_read_like_one_value_at_a_time() -> None:
    """In an answer that is plain otherwise."""
    for values in _ODD_VALUES:
        found = points((0, "host:h1", [1.0, None, 3.0]), (1, "host:h1", values), (0, "host:WIN", [1, 2, 3]))
        _is_read_alike(json.dumps(found).encode())
    for times in _ODD_TIMES:
        found = points((0, "host:h1", [1.0, None, 3.0]), times=times)
        found["data"]["attributes"]["times"] = times
        _is_read_alike(json.dumps(found).encode())


def test_a_series_that_comes_twice_counts_once() -> None:
    """The second one is put aside."""
    parsed = read(points((0, "host:h1", [1.0]), (0, "host:h1", [2.0])))
    assert parsed.lists()["value"] == [1.0]
    assert len(parsed.rejected) == 1


@pytest.mark.parametrize(
    "times", [["x"], [True], [1.5], [START * 1000 + 1], [START * 1000, START * 1000], [1000], [float("inf")]]
)
def test_times_that_are_none_are_no_answer(times: list[object]) -> None:
    """Text, fractions of seconds, the same one twice, another century."""
    with pytest.raises(VendorProtocolError):
        read(points((0, "host:h1", [1.0] * len(times)), times=times))


@pytest.mark.parametrize("total", [1, 3])
def test_a_page_has_as_many_hosts_as_it_says(total: int) -> None:
    """One of two that a page says it has is not the page, whether others follow or not."""
    for returned, whole in ((1, True), (2, False), ("2", True)):
        page = hosts(host("h1", "service:s"), total=total, total_returned=returned)
        assert (VENDOR.parse("troops", VENDOR.troops(DAY), answer(page)).incomplete == "") == whole


def test_data_that_say_they_are_partial_are_not_all() -> None:
    """Beside the values, or the values' place."""
    document = points((0, "host:h1", [1.0]))
    assert not read(document).incomplete
    document["data"]["attributes"]["partial"] = True
    assert "it says partial" in read(document).incomplete


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"status": "error", "error": "Query timed out", "series": []}, "Query timed out"),
        ({"errors": ["Query timed out, please try again", "two"]}, "Query timed out, please try again; two"),
        ({"errors": "odd\nend"}, "odd"),
        ({"error": True, "message": "why"}, "why"),
        ({"status": "error"}, "error"),
        ({"status": "partial", "message": "a shard is away"}, "a shard is away"),
    ],
)
def test_an_error_with_status_200_is_no_answer(document: object, said: str) -> None:
    """Nothing of it is kept, and Datadog's words are told in one line."""
    for asset, planned in (("performance_data", one(("h1", "h2"))), ("troops", VENDOR.troops(DAY))):
        (failure,) = VENDOR.parse(asset, planned, answer(document)).failures  # type: ignore[arg-type]
        assert failure.means == "failed"
        assert failure.leaves == tuple(leaf.key for leaf in planned.leaves)
        assert said in failure.reason or said == "error"
        assert "\n" not in failure.reason


# Refusals and settings


@pytest.mark.parametrize(
    ("status", "headers", "body", "throttled"),
    [
        (429, {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "7"}, "", True),
        (403, {}, '{"status":"error","code":403,"errors":["Forbidden"]}', False),
        (403, {"x-ratelimit-remaining": "12"}, '{"errors":["Forbidden"]}', False),
        (400, {"x-ratelimit-remaining": "0"}, '{"errors":["Rule limit exceeded: rate limit"]}', False),
        (200, {"x-ratelimit-remaining": "0"}, '{"metrics":[]}', False),
    ],
)
def test_too_fast_is_told_from_refused(
    status: int, headers: dict[str, str], body: str, throttled: bool
) -> None:
    """A 403 is a key's, a 400 a query's; only a 429 is ours to wait for."""
    assert VENDOR.throttled(status, headers, body.encode()) is throttled


def test_both_keys_go_into_headers() -> None:
    """Whatever the site: it is the address, and no request has a host."""
    assert VENDOR.auth(Keys("one", "two")) == {"DD-API-KEY": "one", "DD-APPLICATION-KEY": "two"}
    every = (VENDOR.probe(), VENDOR.troops(DAY).request, VENDOR.warriors("pay", DAY).request, one().request)
    assert all(request.path.startswith("/api/v") for request in every)


def test_options_are_read() -> None:
    """With their defaults, and several patterns; none is a choice of its own."""
    assert queries(planned_data({"h1": [CPU]}, vendor=Datadog.configured("", {}))[0])[1].startswith("sum:")
    vendor = Datadog.configured("", {"service_tag": "team", "counts": "*.user  x"})
    assert [text[:3] for text in queries(planned_data({"h1": [CPU]}, vendor=vendor)[0])] == ["sum", "avg"]
    assert vendor.troops(DAY).leaves[0].data_group == "team:"
    none = Datadog.configured("", {"counts": "none"})
    assert [text[:3] for text in queries(planned_data({"h1": [CPU]}, vendor=none)[0])] == ["avg", "avg"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"service_tag": "Service"}, "service_tag=Service; Datadog accepts the tag of hosts"),
        ({"service_tag": "a:b"}, "service_tag=a:b"),
        ({"counts": "*.hits a-b"}, "counts=.*a-b"),
        ({"counts": "x\ny("}, "counts=.*y"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, str], said: str) -> None:
    """In one line, with the value and what is accepted."""
    with pytest.raises(ConfigurationError, match=said) as refused:
        Datadog.configured("", options)
    assert "\n" not in str(refused.value)
