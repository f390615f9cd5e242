"""The simulator's Datadog, asked by requests written by hand; each test names the page that it holds it to.

Pages are below docs.datadoghq.com; cassettes are answers that Datadog recorded for the tests of its clients, in
DataDog/datadog-api-client-python and -go.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from vendor_assets.simulator.datadog_series import host_of, metric_of
from vendor_assets.simulator.world import Warrior, day_window
from vendor_assets_tests.support.simulator import RunningSimulator, simulator

NOON = 1_795_348_800
"""2026-11-22T12:00Z: what time it is, and the beginning of an hour."""
NOW = datetime.fromtimestamp(NOON, UTC).isoformat()
DAY = date(2026, 11, 20)
BEGIN, END = day_window(DAY)
HOUR, MINUTE = 3600, 60
QUERY = "/api/v1/query"
TIMESERIES = "/api/v2/query/timeseries"
COUNTS = ("call_count", "error_count", "s", "t", "f", "count")
LATENCY = "HttpDispatcher.average_response_time"
CALLS = "HttpDispatcher.call_count"


class _Answer(NamedTuple):
    status: int
    tree: Any
    headers: dict[str, str]


def _ask(
    vendor: RunningSimulator,
    path: str,
    parameters: dict[str, object] | None = None,
    *,
    body: object = None,
    method: str = "",
    keys: tuple[str, str] = ("api", "application"),
) -> _Answer:
    connection = http.client.HTTPConnection("127.0.0.1", vendor.port, timeout=60)
    target = path + ("?" + urlencode(parameters) if parameters else "")
    names = ("DD-API-KEY", "DD-APPLICATION-KEY")
    headers = {name: key for name, key in zip(names, keys, strict=True) if key}
    sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method or ("GET" if sent is None else "POST"), target, sent, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    limits = {name: value for name, value in response.getheaders() if name.startswith("X-RateLimit")}
    return _Answer(response.status, json.loads(text), limits)


def _query(vendor: RunningSimulator, query: str, begin: int = BEGIN, end: int = END - 1) -> list[Any]:
    """The series of a v1 query of the day; its end is included, so the last second ends it."""
    answer = _ask(vendor, QUERY, {"from": begin, "to": end, "query": query})
    assert answer.status == 200, answer.tree
    assert answer.tree["status"] == "ok"
    series: list[Any] = answer.tree["series"]
    return series


def _document(*queries: str, formulas: tuple[str, ...] = (), **attributes: object) -> dict[str, object]:
    """A document of v2 with queries called a, b and so on."""
    asked: dict[str, object] = {"from": BEGIN * 1000, "to": END * 1000, **attributes}
    asked["queries"] = [
        {"data_source": "metrics", "name": name, "query": query}
        for name, query in zip("abcdefgh", queries, strict=False)
    ]
    if formulas:
        asked["formulas"] = [{"formula": formula} for formula in formulas]
    return {"data": {"type": "timeseries_request", "attributes": asked}}


def _timeseries(vendor: RunningSimulator, *queries: str, **given: Any) -> Any:
    answer = _ask(vendor, TIMESERIES, body=_document(*queries, **given))
    assert answer.status == 200, answer.tree
    assert (answer.tree["data"]["type"], answer.tree["data"]["id"]) == ("timeseries_response", "0")
    return answer.tree["data"]["attributes"]


def _points(series: Any) -> dict[int, float | None]:
    """By UNIX seconds."""
    return {int(at) // 1000: value for at, value in series["pointlist"]}


def _alive(vendor: RunningSimulator, begin: int, end: int) -> dict[str, Warrior]:
    """The warriors of [begin, end) by the names of their hosts."""
    return {
        warrior.host: warrior
        for troop in vendor.world.troops_between(begin, end)
        for warrior in vendor.world.warriors_between(troop.id, begin, end)
    }


def _service(host: Any) -> str:
    (found,) = [tag for tags in host["tags_by_source"].values() for tag in tags if tag.startswith("service:")]
    return str(found)


@pytest.fixture(scope="module")
def unlimited() -> Iterator[RunningSimulator]:
    with simulator(world="demo", now=NOW, datadog_limit=["metrics_query=100000/3600"]) as running:
        yield running


@pytest.fixture
def vendor(unlimited: RunningSimulator) -> RunningSimulator:
    """It is noon again for each test."""
    unlimited.set_clock(NOW)
    return unlimited


# Keys


def test_a_key_is_validated_without_the_other() -> None:
    """``validate`` wants the API key alone; a wrong one, or none, is a 403 in the form that was recorded.

    Source: api/latest/authentication; cassette TestAuthenticationValidate.
    """
    with simulator(api_key="right") as running:
        assert _ask(running, "/api/v1/validate", keys=("right", "")).tree == {"valid": True}
        for key in ("wrong", ""):
            refused = _ask(running, "/api/v1/validate", keys=(key, "right"))
            assert (refused.status, refused.tree["code"], refused.tree["errors"]) == (403, 403, ["Forbidden"])


def test_reading_wants_both_keys() -> None:
    """A wrong application key is a 403; a missing one too, or a 401 where metrics are asked for.

    Source: api/latest/authentication; DataDog/datadog-api-client-python#2670.
    """
    hosts, metrics = ("/api/v1/hosts", None), ("/api/v1/metrics", {"from": NOON})
    with simulator() as running:
        assert [_ask(running, *hosts, keys=keys).status for keys in (("any", "key"), ("any", ""))] == [
            200,
            403,
        ]
    with simulator(api_key="right", application_key="good") as running:
        for path, parameters in (hosts, metrics):
            statuses = [
                _ask(running, path, parameters, keys=keys).status
                for keys in (("right", "good"), ("wrong", "good"), ("", "good"), ("right", "bad"))
            ]
            assert statuses == [200, 403, 403, 403]
        assert _ask(running, *hosts, keys=("right", "")).status == 403
        missing = _ask(running, *metrics, keys=("right", ""))
        assert (missing.status, missing.tree) == (401, {"errors": ["Unauthorized"]})
        log = running.log()["buckets"]
        assert [(window["bucket"], window["admitted"]) for window in log] == [("metrics_list", 1)]


# Hosts


@pytest.mark.parametrize("hours", [3, 24, 7 * 24])
def test_hosts_are_those_that_reported(vendor: RunningSimulator, hours: int) -> None:
    """Hosts of the last 3 hours, or since ``from``: also those that are gone, with when they were last seen.

    Source: api/latest/hosts.
    """
    since = NOON - hours * HOUR
    answer = _ask(vendor, "/api/v1/hosts", {} if hours == 3 else {"from": since, "count": 1000})
    assert answer.tree["total_matching"] == answer.tree["total_returned"] == len(answer.tree["host_list"])
    assert answer.tree["exact_total_matching"] is True
    found = {host["name"]: host for host in answer.tree["host_list"]}
    alive = _alive(vendor, since, NOON)
    assert found.keys() == alive.keys()
    gone = 0
    for name, warrior in alive.items():
        last = found[name]["last_reported_time"]
        assert since <= last <= min(warrior.died, NOON + MINUTE)
        silent = vendor.world.silent_seconds(warrior, last, min(warrior.died, NOON))
        assert last + silent >= min(warrior.died, NOON)
        assert found[name]["up"] is (last >= NOON - 2 * HOUR)
        gone += warrior.died < NOON
    assert bool(gone) is (hours > 3)


def test_hosts_are_kept_for_seven_days(vendor: RunningSimulator) -> None:
    """What lies further back than 7 days is not found, however far ``from`` goes.

    Source: api/latest/hosts, "Retention is 7 days".
    """
    week = _ask(vendor, "/api/v1/hosts", {"from": NOON - 7 * 24 * HOUR, "count": 1000}).tree
    month = _ask(vendor, "/api/v1/hosts", {"from": NOON - 30 * 24 * HOUR, "count": 1000}).tree
    assert month["total_matching"] == week["total_matching"]
    assert len(_alive(vendor, NOON - 30 * 24 * HOUR, NOON)) > month["total_matching"]


def test_a_host_names_its_service(vendor: RunningSimulator) -> None:
    """The troop is the tag ``service``, under whatever source; EC2 instances have ``aws_id`` in place of ``id``.

    Source: api/latest/hosts.
    """
    hosts = _ask(vendor, "/api/v1/hosts").tree["host_list"]
    services = {_service(host) for host in hosts}
    assert services == {
        "service:checkout_eu",
        "service:search_green",
        "service:payments/api",
        "service:kundenkonto_ümlaut",
        "service:checkout_experiment",
    }
    assert {"aws" in host["sources"] for host in hosts} == {True, False}
    for host in hosts:
        assert ("aws_id" in host) is ("id" not in host) is ("aws" in host["sources"])
        assert f"host:{host['name']}" in host["tags_by_source"]["Datadog"]
        assert host["name"] in host["aliases"]
        assert "meta" not in host
    described = _ask(vendor, "/api/v1/hosts", {"include_hosts_metadata": "true"}).tree["host_list"]
    assert all(host["meta"]["agent_version"] for host in described)


def test_hosts_come_in_pages() -> None:
    """``start`` and ``count`` lead through all hosts, 100 at a time if nothing is said, at most 1,000.

    Source: api/latest/hosts, "a max of 1000 results at a time".
    """
    with simulator(troops=3, warriors=1234, data_groups=1, churn=False, now=NOW) as running:
        usual = _ask(running, "/api/v1/hosts").tree
        assert (usual["total_returned"], usual["total_matching"]) == (100, 1234)
        most = _ask(running, "/api/v1/hosts", {"count": 5000}).tree
        assert (most["total_returned"], len(most["host_list"])) == (1000, 1000)
        names, sizes = list[str](), []
        while len(names) < 1234:
            page = _ask(running, "/api/v1/hosts", {"start": len(names), "count": 500}).tree
            names += [host["name"] for host in page["host_list"]]
            sizes.append(page["total_returned"])
        assert sizes == [500, 500, 234]
        assert len(set(names)) == 1234
        assert _ask(running, "/api/v1/hosts", {"start": 1234}).tree["host_list"] == []
        assert len(_ask(running, "/api/v1/tags/hosts").tree["tags"]["env:production"]) == 1234


def test_hosts_are_searched_and_sorted(vendor: RunningSimulator) -> None:
    """``filter`` is searched in names, aliases and tags, so a service's name finds longer ones too.

    Source: api/latest/hosts.
    """
    found = _ask(vendor, "/api/v1/hosts", {"filter": "service:checkout"}).tree
    assert {_service(host) for host in found["host_list"]} == {
        "service:checkout_eu",
        "service:checkout_experiment",
    }
    assert found["total_matching"] == len(found["host_list"])
    name = found["host_list"][0]["name"]
    alias = _ask(vendor, "/api/v1/hosts", {"filter": f"{name}.internal"}).tree["host_list"]
    assert [host["name"] for host in alias] == [name]
    for direction in ("asc", "desc"):
        listed = _ask(vendor, "/api/v1/hosts", {"sort_field": "cpu", "sort_dir": direction}).tree["host_list"]
        values = [host["metrics"]["cpu"] for host in listed]
        assert values == sorted(values, reverse=direction == "desc")


@pytest.mark.parametrize(
    ("path", "parameters", "name"),
    [
        ("/api/v1/hosts", {"count": -1}, "count"),
        ("/api/v1/hosts", {"count": 0}, "count"),
        ("/api/v1/hosts", {"from": NOON + HOUR}, "from"),
        ("/api/v1/hosts", {"start": "x"}, "start"),
        ("/api/v1/hosts", {"sort_field": "name"}, "sort_field"),
        ("/api/v1/metrics", {}, "from"),
        ("/api/v1/metrics", {"from": "today"}, "from"),
        (QUERY, {"from": 1, "to": 2}, "query"),
        (QUERY, {"to": 2, "query": "x{*}"}, "from"),
        (QUERY, {"from": 2, "to": 2, "query": "x{*}"}, "to"),
        ("/api/v2/metrics/x/all-tags", {"window[seconds]": 3600}, "window[seconds]"),
    ],
)
def test_wrong_parameters(
    vendor: RunningSimulator, path: str, parameters: dict[str, object], name: str
) -> None:
    """A wrong parameter is a 400 that names it. Source: cassette TestHostsListErrors."""
    answer = _ask(vendor, path, parameters)
    assert (answer.status, answer.tree) == (
        400,
        {"errors": [f"The value provided for parameter '{name}' is invalid"]},
    )


def test_what_is_not_there(vendor: RunningSimulator) -> None:
    """Unknown paths, hosts and sources are a 404, other methods a 405. Source: cassettes TestTags*."""
    assert _ask(vendor, "/api/v1/nonsense").status == 404
    assert _ask(vendor, "/api/v1/hosts", body={}).status == 405
    assert _ask(vendor, TIMESERIES).status == 405
    unknown = _ask(vendor, "/api/v1/tags/hosts/nobody")
    assert (unknown.status, unknown.tree) == (404, {"errors": ["No host matches that host_id"]})
    source = _ask(vendor, "/api/v1/tags/hosts", {"source": "nosource"})
    assert (source.status, source.tree) == (404, {"errors": ["Provided source does not exist"]})


def test_tags_of_hosts(vendor: RunningSimulator) -> None:
    """Tags lead to hosts and hosts to tags, by source where one is given. Source: api/latest/tags."""
    hosts = _ask(vendor, "/api/v1/hosts").tree["host_list"]
    by_tag = _ask(vendor, "/api/v1/tags/hosts").tree["tags"]
    for host in hosts:
        tags = [tag for tags in host["tags_by_source"].values() for tag in tags]
        assert all(host["name"] in by_tag[tag] for tag in tags)
        assert _ask(vendor, f"/api/v1/tags/hosts/{host['name']}").tree == {"tags": tags}
    assert set(by_tag["env:production"]) == {host["name"] for host in hosts}
    aws = _ask(vendor, "/api/v1/tags/hosts", {"source": "amazon web services"}).tree["tags"]
    assert set(aws["region:eu-central-1"]) == {host["name"] for host in hosts if "aws_id" in host}
    assert _ask(vendor, "/api/v1/tags/hosts", {"source": "users"}).tree == {"tags": {}}


# Names of metrics


def test_metrics_are_those_active_since(vendor: RunningSimulator) -> None:
    """Names that reported since ``from``, of one host, or with certain tags; ``from`` comes back as text.

    Source: api/latest/metrics/get-active-metrics-list; cassette TestMetrics.
    """
    since = NOON - 24 * HOUR
    answer = _ask(vendor, "/api/v1/metrics", {"from": since}).tree
    assert answer["from"] == str(since)
    by_host = {
        host: {
            metric_of(group.name, value_name)
            for group in vendor.world.data_groups(warrior.id)
            for value_name in group.value_names
        }
        for host, warrior in _alive(vendor, since, NOON).items()
    }
    assert set(answer["metrics"]) == set().union(*by_host.values())
    assert len(answer["metrics"]) == len(set(answer["metrics"]))
    for host, names in by_host.items():
        assert set(_ask(vendor, "/api/v1/metrics", {"from": since, "host": host}).tree["metrics"]) == names
    only = _ask(vendor, "/api/v1/metrics", {"from": since, "tag_filter": "service:payments/*"}).tree
    payments = {troop.id for troop in vendor.world.troops(NOON) if troop.name == "payments/api"}
    assert set(only["metrics"]) == set().union(
        *(
            by_host[host]
            for host, warrior in _alive(vendor, since, NOON).items()
            if warrior.troop_id in payments
        )
    )
    assert _ask(vendor, "/api/v1/metrics", {"from": since, "host": "nobody"}).tree["metrics"] == []
    both = _ask(vendor, "/api/v1/metrics", {"from": since, "host": "a", "tag_filter": "b:c"})
    assert both.status == 400


def test_tags_of_a_metric_reach_back_some_hours(vendor: RunningSimulator) -> None:
    """Tags of the last 4 hours, or of a longer window. Source: api/latest/metrics/list-tags-by-metric-name."""
    path = f"/api/v2/metrics/{CALLS}/all-tags"
    hosts = []
    for hours in (4, 48):
        data = _ask(vendor, path, {"window[seconds]": hours * HOUR} if hours > 4 else {}).tree["data"]
        assert (data["type"], data["id"]) == ("metrics", CALLS)
        hosts.append({tag.removeprefix("host:") for tag in data["attributes"]["tags"] if "host:" in tag})
        assert hosts[-1] == _alive(vendor, NOON - hours * HOUR, NOON).keys()
    assert hosts[0] < hosts[1]
    unknown = _ask(vendor, "/api/v2/metrics/nothing/all-tags").tree
    assert unknown["data"]["attributes"]["tags"] == []


# Time series


def test_every_value_of_a_day_is_found(vendor: RunningSimulator) -> None:
    """Grouped by host and not filled, each value of each host is a point of its timeslice, and nothing else is.

    Source: api/latest/metrics/query-timeseries-points, metrics/custom_metrics/type_modifiers.
    """
    for troop in vendor.world.troops_on(DAY)[:2]:
        expected: dict[tuple[str, str], dict[int, float]] = {}
        for row in vendor.world.expected_rows(DAY, 1800, troop_ids=[troop.id]):
            warrior = vendor.world.warrior(row.warrior_id)
            metric = metric_of(row.data_group, row.value_name)
            assert warrior is not None
            assert metric is not None
            expected.setdefault((warrior.host, metric), {})[int(row.start.timestamp())] = row.value
        found = {}
        services = {"Checkout | EU": "checkout_eu", "search (green)": "search_green"}
        for metric in {metric for _, metric in expected}:
            counted = ".as_count()" if metric.endswith(tuple(f".{name}" for name in COUNTS)) else ""
            for series in _query(
                vendor,
                f"avg:{metric}{{service:{services[troop.name]}}} by {{host}}{counted}.rollup(avg, 1800).fill(null)",
            ):
                assert series["interval"] == 1800
                host = series["tag_set"][0].removeprefix("host:")
                values = {at: value for at, value in _points(series).items() if value is not None}
                found[host, metric] = values
        assert found == expected


def test_the_form_of_an_answer(vendor: RunningSimulator) -> None:
    """An answer has the fields that were recorded, times in milliseconds, and the interval in seconds.

    Source: cassettes test_query_timeseries_points_returns_ok_response and TestMetrics.
    """
    begin, end = BEGIN + 101, BEGIN + 101 + 24 * HOUR
    text = f"avg:{LATENCY}{{service:payments/api,env:production}} by {{host}}.rollup(max, 600)"
    answer = _ask(vendor, QUERY, {"from": begin, "to": end, "query": text}).tree
    series = answer.pop("series")
    assert answer == {
        "status": "ok",
        "resp_version": 1,
        "res_type": "time_series",
        "from_date": begin * 1000,
        "to_date": end * 1000,
        "query": text,
        "message": "",
        "group_by": ["host"],
        "times": [],
        "values": [],
    }
    one = series[0]
    points = one.pop("pointlist")
    (host,) = one["tag_set"]
    scope = f"env:production,{host},service:payments/api"
    assert one.pop("unit")[0]["short_name"] == "ms"
    assert one == {
        "metric": LATENCY,
        "display_name": LATENCY,
        "aggr": "avg",
        "query_index": 0,
        "attributes": {},
        "scope": scope,
        "tag_set": [host],
        "expression": f"avg:{LATENCY}{{{scope}}}.rollup(max, 600)",
        "interval": 600,
        "start": (BEGIN + 600) * 1000,
        "end": points[-1][0] + 599_000,
        "length": len(points),
    }
    assert points[-1][0] == (END * 1000)


def test_queries_without_a_word_too_many(vendor: RunningSimulator) -> None:
    """No aggregator is ``avg`` and comes as null; a star is all; several queries have an index each.

    Source: cassette test_query_timeseries_points_returns_ok_response; metrics/guide/interpolation….
    """
    series = _query(
        vendor, f"{LATENCY}{{*}}.rollup(avg,3600),max:CPU_User_Time.percent{{*}}.rollup(avg,3600)"
    )
    assert [(one["query_index"], one["aggr"], one["scope"], one["tag_set"]) for one in series] == [
        (0, None, "*", []),
        (1, "max", "*", []),
    ]
    assert series[1]["unit"][0]["name"] == "percent"
    assert _points(series[0]) == _points(_query(vendor, f"avg:{LATENCY}{{*}}.rollup(avg,3600)")[0])
    assert _query(vendor, "avg:no.such.metric{*}") == []
    assert _query(vendor, f"avg:{LATENCY}{{service:nobody}}") == []
    assert _query(vendor, f"avg:{LATENCY}{{service:PAYMENTS/API}}") == []


@pytest.mark.parametrize(
    ("seconds", "interval"),
    [
        (300, 1),
        (HOUR, 20),
        (4 * HOUR, 60),
        (24 * HOUR, 300),
        (48 * HOUR, 600),
        (168 * HOUR, 3600),
        (720 * HOUR, 14400),
    ],
)
def test_the_interval_follows_the_range(vendor: RunningSimulator, seconds: int, interval: int) -> None:
    """Without a rollup the range decides. Source: dashboards/functions/rollup, "Rollup interval, API"."""
    (series,) = _query(vendor, f"avg:{LATENCY}{{service:payments/api}}", END - seconds, END - 1)
    assert series["interval"] == interval
    assert all(at % interval == 0 for at in _points(series))


@pytest.mark.parametrize(
    ("hours", "asked", "interval"),
    [
        (24, 60, 60),
        (24, 30, 60),
        (24, 1, 60),
        (25, 60, 60),
        (26, 60, 120),
        (48, 60, 120),
        (24, 45, 60),
        (24, 77, 77),
    ],
)
def test_a_finer_interval_is_replaced(
    vendor: RunningSimulator, hours: int, asked: int, interval: int
) -> None:
    """An interval that makes more than 1,500 points is replaced without a word; points keep to UNIX time.

    Source: dashboards/functions/rollup, "Rollup interval: enforced vs custom".
    """
    query = f"avg:{LATENCY}{{service:payments/api}}.rollup(avg, {asked})"
    (series,) = _query(vendor, query, END - hours * HOUR, END - 1)
    assert series["interval"] == interval
    times = list(_points(series))
    assert len(times) <= 1500
    assert all(at % interval == 0 for at in times)
    assert {later - earlier for earlier, later in pairwise(times)} == {interval}


def test_the_ends_of_a_range(vendor: RunningSimulator) -> None:
    """A bucket that began before is left out, one that the end cuts has what lies within; v1 includes the end.

    Source: cassette test_query_timeseries_points_returns_ok_response; dashboards/functions/rollup, "incomplete".
    """
    calls = f"sum:{CALLS}{{service:payments/api}}.as_count().rollup(sum, 600)"
    (whole,) = _query(vendor, calls)
    (cut,) = _query(vendor, calls, BEGIN + 1, BEGIN + 6900)
    (exact,) = _query(vendor, calls, BEGIN, BEGIN + 6600)
    assert min(_points(cut)) == BEGIN + 600
    assert max(_points(cut)) == max(_points(exact)) == BEGIN + 6600
    for at, value in _points(cut).items():
        full = _points(whole)[at]
        assert value is not None
        assert full is not None
        assert value == full if at < BEGIN + 6600 else value == pytest.approx(full / 2, rel=0.05)
    assert _points(exact)[BEGIN + 6600] < 30


def test_several_sources_are_interpolated() -> None:
    """A gap is filled for 5 minutes after the last point, by groups too; null, another limit or a count say no.

    Source: metrics/guide/interpolation-the-fill-modifier-explained, "In which cases".
    """
    with simulator(world="demo", now=NOW) as running:
        troop = running.world.troops_on(DAY)[0]
        died = next(
            warrior
            for warrior in running.world.warriors_on(troop.id, DAY)
            if BEGIN + 6 * HOUR < warrior.born < warrior.died < END - 2 * HOUR
        )
        begin, end = died.died - HOUR, died.died + HOUR

        def after_death(modifiers: str, metric: str = LATENCY) -> list[float]:
            query = f"avg:{metric}{{service:checkout_eu}} by {{host}}.rollup(avg, 60){modifiers}"
            series = {one["tag_set"][0]: _points(one) for one in _query(running, query, begin, end)}
            points = series[f"host:{died.host}"]
            assert points[died.died - 60] is not None
            return [value for at, value in points.items() if at >= died.died and value is not None]

        last = after_death("")
        assert len(last) == len(set(last)) + 4 == 5
        assert after_death(".fill(null)") == []
        assert after_death(".fill(zero)") == [0.0] * 5
        assert after_death(".fill(last, 120)") == last[:2]
        assert len(after_death(".fill(linear, 9999)")) == 10
        assert after_death(".as_count()", CALLS) == []
        assert len(after_death("", CALLS)) == 5
        (total,) = _query(running, f"sum:{LATENCY}{{host:{died.host}}}.rollup(avg, 60)", begin, end)
        assert max(_points(total)) == died.died - 60


def test_a_gap_is_bridged_by_a_line(vendor: RunningSimulator) -> None:
    """Between two points the values lie on a line, up to 5 minutes into the gap.

    Source: metrics/guide/interpolation-the-fill-modifier-explained, "linear".
    """
    gaps = {
        warrior: [
            at
            for at in range(max(BEGIN, warrior.born), min(END, warrior.died), 60)
            if vendor.world.silent_seconds(warrior, at, at + 60) == 60
        ]
        for warrior in _alive(vendor, BEGIN, END).values()
    }
    warrior, quiet = next(
        (one, gap)
        for one, gap in gaps.items()
        if gap and one.born < gap[0] - 600 and one.died > gap[-1] + 600
    )
    begin, end = quiet[0] - 600, quiet[-1] + 600
    query = f"avg:{LATENCY}{{*}} by {{host}}.rollup(avg, 60)"
    series = {one["tag_set"][0]: _points(one) for one in _query(vendor, query, begin, end)}
    points = series[f"host:{warrior.host}"]
    before, after = points[quiet[0] - 60], points[quiet[-1] + 60]
    assert before is not None
    assert after is not None
    for number, at in enumerate(quiet, 1):
        share = number / (len(quiet) + 1)
        wanted = pytest.approx(before + (after - before) * share) if number <= 5 else None
        assert points[at] == wanted


def test_hosts_of_the_morning_have_nulls_later(vendor: RunningSimulator) -> None:
    """Series of one query share their times, and one that has no value there is null; alone it has no point.

    Source: metrics/guide/interpolation-the-fill-modifier-explained; for the form kedacore/keda#3906.
    """
    query = f"avg:{LATENCY}{{*}} by {{host}}.rollup(avg, 1800).fill(null)"
    series = _query(vendor, query)
    assert len({tuple(_points(one)) for one in series}) == 1
    short = [one for one in series if None in _points(one).values()]
    assert short
    for one in short:
        (alone,) = _query(vendor, query.replace("*", one["tag_set"][0]))
        assert _points(alone) == {at: value for at, value in _points(one).items() if value is not None}


def test_space_is_aggregated_after_time(vendor: RunningSimulator) -> None:
    """Each aggregator combines the points of the hosts. Source: dashboards/guide/query-to-the-graph."""
    scope = "{service:checkout_eu}"
    end = ".rollup(avg, 3600).fill(null)"
    hosts = [_points(one) for one in _query(vendor, f"avg:{LATENCY}{scope} by {{host}}{end}")]
    by_time = {at: [points[at] for points in hosts if points[at] is not None] for at in hosts[0]}
    for name, combine in {"sum": sum, "min": min, "max": max, "avg": lambda of: sum(of) / len(of)}.items():
        (one,) = _query(vendor, f"{name}:{LATENCY}{scope}{end}")
        assert _points(one) == {at: pytest.approx(combine(values)) for at, values in by_time.items()}
    (env,) = _query(vendor, f"max:{LATENCY}{scope} by {{env,team}}{end}")
    assert env["tag_set"] == ["env:production", "team:N/A"]


def test_methods_of_a_rollup(vendor: RunningSimulator) -> None:
    """Without ``as_count()`` a count is averaged over its points of 10 seconds; a gauge is summed over 15.

    Source: dashboards/functions/rollup; metrics/custom_metrics/type_modifiers.
    """
    host = next(
        host
        for host, warrior in _alive(vendor, BEGIN, END).items()
        if warrior.born <= BEGIN and warrior.died >= END
        if not vendor.world.silent_seconds(warrior, BEGIN, END)
    )

    def first(metric: str, modifiers: str) -> float:
        (series,) = _query(vendor, f"avg:{metric}{{host:{host}}}{modifiers}")
        value = _points(series)[BEGIN]
        assert value is not None
        return value

    count, latency = first(CALLS, ".as_count().rollup(avg, 600)"), first(LATENCY, ".rollup(avg, 600)")
    assert first(CALLS, ".rollup(sum, 600)") == count
    assert first(CALLS, ".rollup(avg, 600)") == first(CALLS, ".rollup(600)") == pytest.approx(count / 60)
    assert first(CALLS, ".as_rate().rollup(600)") == pytest.approx(count / 600)
    assert first(CALLS, ".rollup(count, 600)") == 60
    assert (
        first(LATENCY, ".as_count().rollup(600)") == first(LATENCY, ".as_rate().rollup(max, 600)") == latency
    )
    assert first(LATENCY, ".rollup(sum, 600)") == pytest.approx(latency * 40)


@pytest.mark.parametrize(
    ("scope", "services"),
    [
        ("service:search_green", {"search_green"}),
        ("service:checkout*,env:production", {"checkout_eu", "checkout_experiment"}),
        ("!service:checkout*,!service:kunden*,!service:recom*", {"search_green", "payments/api"}),
        ("service:payments/api OR service:search_green", {"payments/api", "search_green"}),
        ("env:production AND NOT service:*h*", {"kundenkonto_ümlaut", "payments/api"}),
        ("service IN (payments/api, search_green) AND env NOT IN (production)", set()),
        ("service in (payments/api,checkout_eu)", {"payments/api", "checkout_eu"}),
    ],
)
def test_scopes(vendor: RunningSimulator, scope: str, services: set[str]) -> None:
    """Tags are joined by commas or by words, with a star at either end. Source: metrics/advanced-filtering."""
    series = _query(vendor, f"max:{LATENCY}{{{scope}}} by {{service}}.rollup(max, 3600)")
    assert {one["tag_set"][0].removeprefix("service:") for one in series} == services


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("avg:a{b:c AND !d:e}", "'AND' and 'OR' cannot be mixed with ','"),
        ("avg:a{b:c, d:e OR f:g}", "'AND' and 'OR' cannot be mixed with ','"),
        ("avg:a", "unable to parse avg:a"),
        ("p95:a{*}", "unable to parse"),
        ("avg:a{*}.rollup(avg, soon)", "unable to parse"),
        ("avg:a{*} / avg:b{*}", "unable to parse"),
        ("", "unable to parse"),
    ],
)
def test_queries_that_are_wrong(vendor: RunningSimulator, query: str, message: str) -> None:
    """What cannot be parsed is a 400. Source: DataDog/documentation#23070, DataDog/hiring-engineers#397."""
    answer = _ask(vendor, QUERY, {"from": BEGIN, "to": END, "query": query})
    assert answer.status == 400
    (error,) = answer.tree["errors"]
    assert error.startswith("Error parsing query: ")
    assert message in error


# Version 2


def test_a_document_of_several_queries(vendor: RunningSimulator) -> None:
    """Queries share the times at which one of them has a value; the end is excluded; gaps are null.

    Source: api/latest/metrics/query-timeseries-data-across-multiple-products; cassette
    test_timeseries_cross_product_query_returns_ok_response.
    """
    hosts = "{service:checkout_eu} by {host}.fill(null)"
    found = _timeseries(
        vendor, f"avg:{LATENCY}{hosts}", "max:CPU_User_Time.percent{service:payments/api}", interval=3_600_000
    )
    times = [at // 1000 for at in found["times"]]
    assert times == list(range(BEGIN, END, HOUR))
    assert {len(values) for values in found["values"]} == {24}
    assert [one["query_index"] for one in found["series"]] == [0] * (len(found["series"]) - 1) + [1]
    assert found["series"][-1]["group_tags"] == []
    assert found["series"][-1]["unit"][0]["name"] == "percent"
    old = _query(vendor, f"avg:{LATENCY}{hosts}.rollup(avg, 3600)")
    for one, values, series in zip(found["series"], found["values"], old, strict=False):
        assert one["group_tags"] == series["tag_set"]
        assert dict(zip(times, values, strict=True)) == _points(series)
    assert any(None in values for values in found["values"])


def test_times_without_any_value_are_left_out() -> None:
    """``times`` has no moment at which nothing was reported. Source: the same cassette, whose times have gaps."""
    with simulator(world="demo", now=NOW) as running:
        (experiment,) = [troop for troop in running.world.troops(NOON) if "experiment" in troop.name]
        found = _timeseries(
            running,
            f"avg:{LATENCY}{{service:checkout_experiment}}",
            **{"from": (NOON - 72 * HOUR) * 1000, "to": (NOON + 24 * HOUR) * 1000, "interval": 3_600_000},
        )
        times = [at // 1000 for at in found["times"]]
        assert times[0] <= max(experiment.born, NOON - 72 * HOUR) + HOUR
        assert len(times) < 96
        assert times[-1] <= NOON
        assert all(value is not None for value in found["values"][0])


def test_formulas(vendor: RunningSimulator) -> None:
    """Formulas calculate point by point for equal groups; ``query_index`` is theirs; null stays null.

    Source: api/latest/metrics/query-timeseries-data-across-multiple-products.
    """
    errors = "sum:Errors_all.error_count{*} by {service}.as_count()"
    calls = f"sum:{CALLS}{{*}} by {{service}}.as_count()"
    found = _timeseries(
        vendor, errors, calls, formulas=("a", "(a / b) * 100 - 1", "b / (a - a)"), interval=3_600_000
    )
    services = len({tuple(one["group_tags"]) for one in found["series"]})
    assert [one["query_index"] for one in found["series"]] == [0] * services + [1] * services + [2] * services
    plain = _timeseries(vendor, errors, calls, interval=3_600_000)["values"]
    for number in range(services):
        first, second = plain[number], plain[services + number]
        wanted = [
            None if a is None else pytest.approx(a / b * 100 - 1) for a, b in zip(first, second, strict=True)
        ]
        assert found["values"][number] == first
        assert found["values"][services + number] == wanted
        assert set(found["values"][2 * services + number]) == {None}
    nothing = _timeseries(vendor, errors, formulas=("a / (a - a)",), interval=3_600_000)
    assert (nothing["times"], nothing["values"]) == ([], [[]] * services)
    for wrong in ("c", "a +", "log(a)", "1 + 1", "a ** 2"):
        answer = _ask(vendor, TIMESERIES, body=_document(errors, formulas=(wrong,)))
        assert answer.status == 400, wrong
        assert "Error parsing formula" in answer.tree["errors"][0]


def test_the_interval_of_a_document(vendor: RunningSimulator) -> None:
    """``interval`` is milliseconds, replaced where it is too fine; a rollup goes before it.

    Source: api/latest/metrics/query-timeseries-data-across-multiple-products, "may be overridden".
    """
    for asked, modifiers, interval in (
        (600_000, "", 600),
        (0, "", 300),
        (1_000, "", 60),
        (600_000, ".rollup(avg, 900)", 900),
    ):
        found = _timeseries(vendor, f"avg:{LATENCY}{{service:payments/api}}{modifiers}", interval=asked)
        assert {later - earlier for earlier, later in pairwise(found["times"])} == {interval * 1000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "timeseries_rquest"}, 'Invalid type. Expected "timeseries_request".'),
        ({"attributes": {"from": 0, "to": 1}}, "queries"),
        ({"attributes": {"from": 1, "to": 0, "queries": []}}, "data source"),
        (
            {"attributes": {"from": 0.5, "to": 1, "queries": [{"data_source": "metrics", "query": "a{*}"}]}},
            "milliseconds",
        ),
        (
            {"attributes": {"from": 1, "to": 1, "queries": [{"data_source": "metrics", "query": "a{*}"}]}},
            "out of range",
        ),
        (
            {"attributes": {"from": 0, "to": 1, "queries": [{"data_source": "logs", "query": "a"}]}},
            "data source",
        ),
        (
            {"attributes": {"from": 0, "to": 1, "queries": [{"data_source": "metrics", "query": 1}]}},
            "no text",
        ),
    ],
)
def test_documents_that_are_wrong(vendor: RunningSimulator, change: dict[str, object], message: str) -> None:
    """A document that is wrong is a 400 in the words that were recorded.

    Source: cassette test_timeseries_cross_product_query_returns_bad_request_response.
    """
    data = {**_document("a{*}")["data"], **change}  # type: ignore[dict-item]
    answer = _ask(vendor, TIMESERIES, body={"data": data})
    assert answer.status == 400
    assert answer.tree["errors"][0].startswith("API input validation failed: ")
    assert message in answer.tree["errors"][0]
    assert _ask(vendor, TIMESERIES, body=b"{").status == 400


def test_data_beyond_the_retention_and_not_settled() -> None:
    """Old data is gone, and a document that ends before it is a 400; data that has not settled is not there.

    Source: cassette Scenario_Scalar_cross_product_query_returns_Bad_Request_response.
    """
    with simulator(now=NOW, retention_days=30, settle=HOUR, churn=False) as running:
        old = NOON - 40 * 24 * HOUR
        assert _query(running, f"avg:{LATENCY}{{*}}", old, old + HOUR) == []
        document = _document(f"avg:{LATENCY}{{*}}", **{"from": old * 1000, "to": (old + HOUR) * 1000})
        answer = _ask(running, TIMESERIES, body=document)
        assert (answer.status, answer.tree) == (
            400,
            {"errors": ["Queries ending outside the retention date are invalid"]},
        )
        assert _query(running, f"avg:{LATENCY}{{*}}", NOON - 1800, NOON) == []
        (half,) = _query(running, f"avg:{LATENCY}{{*}}.rollup(60)", NOON - 2 * HOUR, NOON)
        assert NOON - HOUR - 60 <= max(_points(half)) < NOON - 1800


# Names


def test_troops_of_one_name_are_one_service() -> None:
    """Names become tags by the documented rules, and those that are then equal are one service.

    Source: getting_started/tagging, "Define tags"; DataDog/documentation#6589.
    """
    with simulator(world="small", hostile=True, now=NOW) as running:
        hosts = _ask(running, "/api/v1/hosts", {"count": 1000}).tree["host_list"]
        by_service: dict[str, set[str]] = {}
        for host in hosts:
            tags = [tag for tags in host["tags_by_source"].values() for tag in tags]
            service = next((tag for tag in tags if tag.startswith("service:")), "")
            by_service.setdefault(service.removeprefix("service:"), set()).add(host["name"])
        assert {
            name: len(names) for name, names in by_service.items() if name not in ("checkout_eu", "search")
        } == {
            "payments/api": 1,
            "": 1,
            "../../x": 1,
            "a_b": 2,
            "line_one_line_two_x-injected:_yes": 1,
            "n" * 192: 1,
            "_سلام": 1,
            "_drop_table_troops_--": 1,
            "_script_alert_1_/script": 1,
            "_bold_link_javascript:alert_1_code": 1,
            "twins": 2,
            "an_id_that_is_not_a_number": 1,
            "a_warrior_with_no_data_groups": 1,
            "a_data_group_with_no_values": 1,
            "_leading_and_trailing": 1,
            "con.": 1,
            "_2e_2e_2fx_1_y_2_z": 1,
        }
        (twins,) = _query(running, f"sum:{CALLS}{{service:twins}}.as_count().rollup(sum, 3600)")
        pair = _query(running, f"sum:{CALLS}{{service:twins}} by {{host}}.as_count().rollup(sum, 3600)")
        assert len(pair) == 2
        both = [_points(one) for one in pair]
        assert _points(twins) == {at: both[0][at] + both[1][at] for at in both[0]}  # type: ignore[operator]
        unnamed = _query(running, f"sum:{CALLS}{{*}} by {{service}}.as_count()")
        assert "service:N/A" in {one["tag_set"][0] for one in unnamed}
        for name in by_service["a_b"]:
            tags = _ask(running, f"/api/v1/tags/hosts/{quote(name, safe='')}").tree["tags"]
            assert "service:a_b" in tags


def test_names_of_data_groups_are_metrics() -> None:
    """Characters that a metric cannot have are underscores; a name over 200 characters is not there.

    Source: metrics/custom_metrics, "Naming custom metrics".
    """
    with simulator(world="small", hostile=True, now=NOW) as running:
        names = _ask(running, "/api/v1/metrics", {"from": NOON - HOUR}).tree["metrics"]
        assert all(len(name) <= 200 and name.isascii() for name in names)
        for name in (
            "Custom_.._.._etc_passwd.average_response_time",
            "Custom_a_b_c_d_e.call_count",
            "Custom_new_line.call_count",
            "Custom____b_Gr__e__b_.call_count",
            "External_customers.example.com_all.call_count",
            "Datastore_statement_Postgres_shipments_select.call_count",
        ):
            assert name in names or name.startswith(("External", "Datastore")), name
        assert not any("mmm" in name for name in names)
        odd = _query(
            running, "sum:Custom____b_Gr__e__b_.call_count{*} by {host}.as_count().rollup(sum, 3600)"
        )
        assert odd
        hosts = {host_of(warrior) for warrior in _alive(running, BEGIN, END).values()}
        assert {one["tag_set"][0].removeprefix("host:") for one in odd} <= hosts


def test_a_renamed_service_has_two_series(vendor: RunningSimulator) -> None:
    """Points keep the tags that they were sent with. Source: dashboards/guide/query-to-the-graph, "storage"."""
    series = _query(
        vendor,
        f"max:{LATENCY}{{service:search*}} by {{service}}.rollup(max, 3600)",
        BEGIN - 10 * 24 * HOUR,
        END - 1,
    )
    week = 7 * 24 * HOUR
    assert {one["tag_set"][0] for one in series} == {"service:search_green", "service:search_blue"}
    for one in series:
        parity = 1 if one["tag_set"][0].endswith("blue") else 0
        assert {at // week % 2 for at, value in _points(one).items() if value is not None} == {parity}


# Limits


def test_buckets_have_the_limits_that_were_published() -> None:
    """100 lists of metrics and 1,600 queries an hour, each with its name; hosts, tags and keys have none.

    Source: api/latest/rate-limits, an older version of which had the numbers; cassette TestMetrics.
    """
    with simulator(now=NOW) as running:
        lists = _ask(running, "/api/v1/metrics", {"from": NOON}).headers
        assert lists.pop("X-RateLimit-Reset").isdecimal()
        assert lists == {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Period": "3600",
            "X-RateLimit-Remaining": "99",
            "X-RateLimit-Name": "metrics_list",
        }
        queries = _ask(running, QUERY, {"from": BEGIN, "to": END, "query": "a{*}"}).headers
        assert (queries["X-RateLimit-Limit"], queries["X-RateLimit-Name"]) == ("1600", "metrics_query")
        for path in ("/api/v1/validate", "/api/v1/hosts", "/api/v1/tags/hosts"):
            assert _ask(running, path).headers == {}


def test_endpoints_share_a_bucket_and_windows_keep_to_the_clock() -> None:
    """Calls beyond the limit are 429s until the clock begins the next window; refused calls take nothing.

    Source: api/latest/rate-limits, "calendar aligned" and "grouped together into a single bucket".
    """
    limits = ["metrics_query=3/3600", "metrics_list=1/86400", "hosts=2/3600"]
    old = {"from": BEGIN, "to": END, "query": "a{*}"}
    with simulator(now=NOW, datadog_limit=limits) as running:
        running.set_clock(datetime.fromtimestamp(NOON + 1800, UTC).isoformat())
        answers = [
            _ask(running, TIMESERIES, body=_document("a{*}", "b{*}")),
            _ask(running, QUERY, old),
            _ask(running, QUERY, {"from": 1}),
            _ask(running, QUERY, old),
            _ask(running, TIMESERIES, body=_document("a{*}")),
        ]
        assert [answer.status for answer in answers] == [200, 200, 400, 429, 429]
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
        assert answers[3].tree["errors"]
        resets = [int(answer.headers["X-RateLimit-Reset"]) for answer in answers]
        assert resets == sorted(resets, reverse=True)
        assert 1500 < resets[-1] <= resets[0] <= 1800
        running.set_clock(datetime.fromtimestamp(NOON + HOUR, UTC).isoformat())
        assert _ask(running, QUERY, old).headers["X-RateLimit-Remaining"] == "2"
        assert [_ask(running, "/api/v1/metrics", {"from": NOON}).status for _ in range(2)] == [200, 429]
        assert _ask(running, "/api/v2/metrics/a/all-tags").status == 429
        statuses = [
            _ask(running, path).status for path in ("/api/v1/hosts", "/api/v1/tags/hosts", "/api/v1/hosts")
        ]
        assert statuses == [200, 200, 429]
        log = running.log()
        assert log["violations"] == 5
        day = NOON // 86_400 * 86_400
        assert [
            (one["bucket"], one["start"], one["period"], one["calls"], one["admitted"], one["refused"])
            for one in log["buckets"]
        ] == [
            ("hosts", NOON + HOUR, 3600, 2, 2, 1),
            ("metrics_list", day, 86_400, 1, 1, 2),
            ("metrics_query", NOON, 3600, 3, 3, 2),
            ("metrics_query", NOON + HOUR, 3600, 3, 1, 0),
        ]


def test_limits_change_at_run_time() -> None:
    """The control endpoint replaces all buckets, and says what it cannot read."""
    with simulator(now=NOW) as running:
        assert running.control("POST", "datadog", {"limits": ["validate=1/86400"]}) == [
            {"bucket": "validate", "calls": 1, "period": 86_400}
        ]
        assert [_ask(running, "/api/v1/validate").status for _ in range(2)] == [200, 429]
        assert _ask(running, "/api/v1/metrics", {"from": NOON}).headers == {}
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        connection.request("POST", "/_control/datadog", json.dumps({"limits": ["queries=1/60"]}))
        answer = connection.getresponse()
        assert (answer.status, b"bucket is not one of hosts" in answer.read()) == (400, True)
        connection.close()


def test_the_log_names_buckets_and_counts_leaves(tmp_path: Path) -> None:
    """Each call is a line with its bucket; the same question twice is repeated, in v1 and in v2."""
    path = tmp_path / "calls.jsonl"
    with simulator(log_file=path, now=NOW, datadog_limit="metrics_query=3/86400") as running:
        query = f"avg:{LATENCY}{{*}} by {{host}}.rollup(avg, 3600)"
        first = len(_query(running, query))
        assert running.log()["leaves"] == first > 0
        _query(running, query)
        assert running.log()["repeated"]["by_endpoint"] == {"datadog.query": 1}
        _timeseries(running, query)
        assert _ask(running, TIMESERIES, body=_document(query)).status == 429
        _ask(running, "/api/v1/hosts")
        log = running.log()
        assert log["repeated_leaves"]["total"] == first
        assert log["by_endpoint"]["datadog.timeseries"] == {"200": 1, "429": 1}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["endpoint"], line["outcome"], line.get("bucket")) for line in lines] == [
        ("datadog.query", "200", "metrics_query"),
        ("datadog.query", "200", "metrics_query"),
        ("datadog.timeseries", "200", "metrics_query"),
        ("datadog.timeseries", "429", "metrics_query"),
        ("datadog.hosts", "200", "hosts"),
    ]
    assert lines[2]["target"].startswith(f"{TIMESERIES}?document=")


# Faults


def test_faults_of_queries() -> None:
    """Points become null, answers errors with status 200, intervals wrong, and statuses come in Datadog's form."""
    query = f"avg:{LATENCY}{{service:checkout_eu}} by {{host}}.rollup(avg, 3600).fill(null)"
    asked = {"from": BEGIN, "to": END - 1, "query": query}
    with simulator(world="small", now=NOW, churn=False) as running:
        right = _query(running, query)
        running.faults([{"kind": "null_points", "count": 2}])
        (values, *_) = _timeseries(running, query)["values"]
        assert values[1::2] == [None] * 12
        points = _query(running, query)[0]["pointlist"]
        assert points == [[at, None if n % 2 else v] for n, (at, v) in enumerate(right[0]["pointlist"])]
        running.faults([{"kind": "status_error", "match": "rollup", "count": 2}])
        failed = _ask(running, QUERY, asked)
        assert (failed.status, failed.tree["status"], failed.tree["series"]) == (200, "error", [])
        assert failed.tree["error"]
        assert _ask(running, TIMESERIES, body=_document(query)).tree.keys() == {"errors"}
        running.faults([{"kind": "wrong_interval", "count": 1}])
        wrong = _query(running, query)[0]
        assert wrong["interval"] == 7200
        assert [at for at, _ in wrong["pointlist"]] == [at for at, _ in right[0]["pointlist"][::2]]
        running.faults(
            [{"kind": "502", "count": 1}, {"kind": "html", "count": 1}, {"kind": "duplicates", "count": 1}]
        )
        bad = _ask(running, QUERY, asked)
        assert (bad.status, bad.tree) == (502, {"errors": ["Bad Gateway"]})
        with pytest.raises(json.JSONDecodeError):
            _ask(running, QUERY, asked)
        assert _query(running, query) == [*right, right[0]]
        running.faults([{"kind": "latency", "seconds": 0.01, "count": 1}, {"kind": "outage", "seconds": 60}])
        assert _ask(running, QUERY, asked).tree == {"errors": ["The service is unavailable."]}
        running.clear_faults()
        assert _query(running, query) == right
        assert running.log()["by_endpoint"]["datadog.query"]["502"] == 1


def test_faults_of_lists() -> None:
    """Pages of hosts never end or repeat the first one, and names come twice."""
    with simulator(troops=2, warriors=30, churn=False, now=NOW) as running:
        first = _ask(running, "/api/v1/hosts", {"count": 20}).tree["host_list"]
        running.faults([{"kind": "repeating_page", "count": 1}, {"kind": "endless_paging", "match": "hosts"}])
        assert _ask(running, "/api/v1/hosts", {"start": 20, "count": 20}).tree["host_list"] == first
        far = _ask(running, "/api/v1/hosts", {"start": 60_000, "count": 20}).tree
        assert far["total_matching"] > 60_020
        assert far["host_list"] == first
        running.clear_faults()
        running.faults(
            [{"kind": "duplicates", "match": "metrics"}, {"kind": "drift_missing", "match": "hosts"}]
        )
        names = _ask(running, "/api/v1/metrics", {"from": NOON - HOUR}).tree["metrics"]
        assert names[0] == names[-1]
        assert "name" not in _ask(running, "/api/v1/hosts").tree["host_list"][0]


def test_a_limit_that_cannot_be_read_is_one_line() -> None:
    """A wrong flag ends the command with what is accepted."""
    for wrong in ("nobody=1/60", "metrics_query=1", "metrics_query=0/60"):
        with (
            pytest.raises(
                RuntimeError, match=r"limit '.*'(: the bucket is not one of| is not calls per seconds)"
            ),
            simulator(datadog_limit=wrong),
        ):
            pass
