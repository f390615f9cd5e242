"""Prometheus: what is asked, and what is read from answers that are right, odd or wrong."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors import make
from vendor_assets.vendors.base import (
    RECORD_CHARACTERS,
    REJECTED_KEPT,
    Asset,
    DataGroup,
    Leaf,
    Parsed,
    PlannedRequest,
    Request,
    Response,
)
from vendor_assets.vendors.prometheus import (
    COUNTERS,
    MAX_FORM_CHARACTERS,
    MAX_POINTS,
    MAX_URL_CHARACTERS,
    Prometheus,
    _Plain,
    canonical,
    group_of,
)
from vendor_assets_tests.support.plain_readers import assert_read_alike

DAY = day_window(date(2026, 11, 20), parse_time_zone("UTC"))
START = 1_795_132_800
END = START + 1800
"""Where the first timeslice ends, which is where a query over it is evaluated."""
VENDOR = Prometheus()
GROUPS = (DataGroup("node_cpu", ("node_cpu_seconds_total",)), DataGroup("up", ("up",)))


def _planned(asset: Asset) -> PlannedRequest:
    match asset:
        case "troops":
            return VENDOR.troops(DAY)
        case "warriors":
            return VENDOR.warriors("node", DAY)
        case "data_groups":
            return VENDOR.data_groups("node", "h:9100", DAY)
    return VENDOR.performance_data("node", "h:9100", GROUPS, DAY, 1800)[0]


def _told(planned: PlannedRequest) -> dict[str, str]:
    """The fields of a range query, as a server reads them: in the URL, or posted as a form."""
    request = planned.request
    if request.method == "GET":
        return dict(request.params)
    assert request.method == "POST"
    assert request.headers == (("Content-Type", "application/x-www-form-urlencoded"),)
    assert not request.params
    return dict(parse_qsl(request.body, strict_parsing=True))


def _parse(asset: Asset, data: object, **more: object) -> Parsed:
    body = json.dumps({"status": "success", "data": data, **more}).encode()
    response = Response(200, {"content-type": "application/json"}, body, datetime(2026, 11, 22, tzinfo=UTC))
    return VENDOR.parse(asset, _planned(asset), response)


def _matrix(*series: object) -> dict[str, Any]:
    return {"resultType": "matrix", "result": list(series)}


def _series(*values: object, **labels: str) -> dict[str, Any]:
    return {
        "metric": {"__name__": "up", "job": "node", "instance": "h:9100"} | labels,
        "values": list(values),
    }


# What is asked


def test_lists_are_asked_for_the_day() -> None:
    """Rosters are historical: from five minutes before the day, as its first values may be so old, to its end."""
    request = _planned("warriors").request
    assert request.path == "/api/v1/label/instance/values"
    assert request.params == (
        ("match[]", '{job="node"}'),
        ("start", str(START - 300)),
        ("end", f"{START + 86_399}.999"),
        ("partial_response", "false"),
        ("deny_partial_response", "1"),
        ("nocache", "1"),
    )


def test_several_groups_go_into_one_query() -> None:
    """One query holds the groups of an instance; each point is the newest in the timeslice that ends there."""
    (planned,) = VENDOR.performance_data("node", "h:9100", GROUPS, DAY, 1800)
    assert dict(planned.request.params) == {
        "query": 'last_over_time({job="node",instance="h:9100",__name__=~"node_cpu(_.*)?|up"}[1800s] offset 1ms)',
        "start": str(START + 1800),
        "end": str(START + 86_400),
        "step": "1800",
        "partial_response": "false",
        "deny_partial_response": "1",
        "nocache": "1",
    }
    assert [leaf.data_group for leaf in planned.leaves] == ["node_cpu", "up"]


def test_a_narrowed_group_is_asked_for_its_values_only() -> None:
    """Where a filter left values out, the query names the others instead of all that begin alike."""
    narrowed = DataGroup("node_cpu", ("node_cpu_seconds_total", "node_cpu.x"), narrowed=True)
    (planned,) = VENDOR.performance_data("node", "h:9100", [narrowed, *GROUPS[1:]], DAY, 1800)
    query = dict(planned.request.params)["query"]
    assert '__name__=~"node_cpu_seconds_total|node_cpu\\\\.x|up"}[1800s]' in query


@pytest.mark.parametrize(
    ("resolution", "query"),
    [
        (60, '{job="j",instance="i",__name__=~"up"} offset 1ms'),
        (300, 'last_over_time({job="j",instance="i",__name__=~"up"}[300s] offset 1ms)'),
    ],
)
def test_a_timeslice_shorter_than_the_server_looks_back_is_not_left_empty(
    resolution: int, query: str
) -> None:
    """A longer one holds what was sampled in it, a shorter one what the server shows at its end."""
    (planned,) = VENDOR.performance_data("j", "i", GROUPS[1:], DAY, resolution)
    assert dict(planned.request.params)["query"] == query
    body = json.dumps({"status": "success", "data": _matrix(_series([START + resolution, "1"]))}).encode()
    parsed = VENDOR.parse("performance_data", planned, Response(200, {}, body, datetime.now(UTC)))
    assert parsed.lists()["timeslice_start"] == [START * 1_000_000]


@pytest.mark.parametrize(
    ("resolution", "queries"), [(1, 8), (7, 2), (8, 1), (60, 1), (86_400, 1), (100_000, 1)]
)
def test_no_series_has_more_points_than_the_server_permits(resolution: int, queries: int) -> None:
    """A day is cut into windows of at most 11,000 points that follow each other without a gap."""
    planned = VENDOR.performance_data("node", "h:9100", GROUPS, DAY, resolution)
    points: list[int] = []
    for part in planned:
        params = dict(part.request.params)
        mine = range(int(params["start"]) - resolution, int(params["end"]), resolution)
        assert len(mine) <= MAX_POINTS
        points += mine
    assert len(planned) == queries
    assert points == list(range(START, START + 86_400, resolution))


def test_a_resolution_below_a_second_is_refused() -> None:
    """Resolutions are whole seconds."""
    with pytest.raises(ConfigurationError):
        VENDOR.performance_data("node", "h:9100", GROUPS, DAY, 0)


def test_hostile_labels_are_escaped() -> None:
    """Quotes, backslashes and line ends of a label stay inside their literal."""
    request = VENDOR.data_groups('a"b\\c\nd', "{}", DAY).request
    assert dict(request.params)["match[]"] == '{job="a\\"b\\\\c\\nd",instance="{}"}'


@settings(max_examples=50)
@given(
    st.lists(st.from_regex(r"[a-z:]{1,40}(_[a-z]{0,20})?", fullmatch=True), unique=True, max_size=300),
    st.booleans(),
)
def test_each_group_is_asked_for_once_in_short_queries(names: list[str], posts: bool) -> None:
    """URLs and forms stay short, a form is longer than a URL may be, and no group is left out or asked for twice."""
    groups = [DataGroup(name, (name,)) for name in names]
    planned = Prometheus(posts=posts).performance_data("node", "h:9100", groups, DAY, 1800)
    assert [leaf.data_group for part in planned for leaf in part.leaves] == names
    for part in planned:
        length = len(part.request.path) + 1 + len(urlencode(_told(part)))
        if part.request.method == "POST":
            assert posts
            assert MAX_URL_CHARACTERS < length <= MAX_FORM_CHARACTERS
        else:
            assert length <= MAX_URL_CHARACTERS or (len(part.leaves) == 1 and not posts)


def test_a_long_query_is_posted() -> None:
    """What is too long for a URL is one form, the same but for its place; where no form may be sent, it is several."""
    groups = [DataGroup(f"group_{number:03}", (f"group_{number:03}_a",)) for number in range(300)]
    (posted,) = VENDOR.performance_data("node", "h:9100", groups, DAY, 1800)
    assert posted.request.method == "POST"
    assert posted.request.endpoint == "query_range"
    several = Prometheus(posts=False).performance_data("node", "h:9100", groups, DAY, 1800)
    assert {part.request.method for part in several} == {"GET"}
    assert len(several) == 3
    names = [_told(part)["query"].partition('=~"')[2].partition('"')[0] for part in several]
    (short,) = VENDOR.performance_data("node", "h:9100", groups[:1], DAY, 1800)
    assert short.request.method == "GET"
    query = _told(short)["query"].replace(r"group_000(_.*)?", "|".join(names))
    assert _told(posted) == _told(short) | {"query": query}
    body = json.dumps({"status": "success", "data": _matrix(_series([END, "1"], __name__="group_007_b"))})
    parsed = VENDOR.parse("performance_data", posted, Response(200, {}, body.encode(), datetime.now(UTC)))
    assert (parsed.lists()["data_group"], parsed.lists()["timeslice_start"]) == (
        ["group_007"],
        [START * 1_000_000],
    )
    (longest,) = Prometheus(posts=False).performance_data(
        "j", "i", [DataGroup("x" * 5000, ("x",))], DAY, 1800
    )
    assert longest.request.method == "GET"
    # Halves that fit into a URL need no form.
    parts = VENDOR.split(posted)
    assert [part.request.method for part in parts] == ["POST", "POST"]
    assert [part.request.method for part in VENDOR.split(parts[0])] == ["GET", "GET"]


# Options


def _configured(**options: str) -> Prometheus:
    vendor = make("prometheus", options=options)
    assert isinstance(vendor, Prometheus)
    return vendor


HISTOGRAM = DataGroup("http_request", ("http_request_seconds_bucket", "http_request_seconds_sum"))
CPU = DataGroup("node_cpu", ("node_cpu_seconds_total", "node_cpu_online"))


@pytest.mark.parametrize(
    "options",
    [
        {"match": "env='prod'"},
        {"match": 'up{env="prod"}'},
        {"match": "{}"},
        {"match": '{env="prod"} or vector(1)'},
        {"match": '{env="a\nb"}'},
        {"match": '{env="prod"}}'},
        {"counters": "rates"},
        {"histograms": "buckets 0.5"},
        {"histograms": "1"},
        {"histograms": "0.0"},
        {"histograms": "0.5;0.9"},
        {"post": "never"},
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, str]) -> None:
    """One line has the option, what was given and what is accepted."""
    ((name, given),) = options.items()
    with pytest.raises(
        ConfigurationError, match=f"^VENDOR_OPTIONS has {name}=.*; Prometheus accepts "
    ) as raised:
        _configured(**options)
    assert "\n" not in str(raised.value)
    assert given.partition("\n")[0] in str(raised.value)
    assert Prometheus.options[name] in str(raised.value)


def test_without_options_nothing_is_changed() -> None:
    """Options that are not set, empty or as by default ask the same: plans of older versions go on."""
    default = _configured(match="", counters="raw", histograms="buckets", post="true")
    for vendor in (default, _configured()):
        for asked in (VENDOR, vendor):
            assert asked.troops(DAY) == VENDOR.troops(DAY)
            assert asked.data_groups("j", "i", DAY) == VENDOR.data_groups("j", "i", DAY)
        planned = vendor.performance_data("j", "i", [HISTOGRAM, CPU], DAY, 1800)
        assert planned == VENDOR.performance_data("j", "i", [HISTOGRAM, CPU], DAY, 1800)


def test_a_selector_is_in_every_list_and_query() -> None:
    """Series that do not match are on no list, on no second page and in no query, computed values neither."""
    matchers = 'env=~"pro}d,|x","http.x"!="a"'
    vendor = _configured(match=f"{{ {matchers}, }}", counters="rate", histograms="0.5")
    lists: list[tuple[Asset, PlannedRequest]] = [
        ("troops", vendor.troops(DAY)),
        ("warriors", vendor.warriors("j", DAY)),
        ("warriors", vendor.warriors("", DAY)),
    ]
    asked = [vendor.data_groups("j", "i", DAY).request]
    for asset, planned in lists:
        body = json.dumps({"status": "success", "data": ["a"]}).encode()
        second = vendor.parse(asset, planned, Response(200, {}, body, datetime.now(UTC))).next
        assert second is not None
        asked += [planned.request, second]
    assert [dict(request.params)["match[]"] for request in asked] == [
        f'{{job="j",instance="i",{matchers}}}',
        f'{{{matchers},__name__!=""}}',
        f'{{{matchers},__name__!="",job=""}}',
        f'{{job="j",{matchers}}}',
        f'{{job="j",{matchers},instance=""}}',
        f'{{job="",{matchers},__name__!=""}}',
        f'{{job="",{matchers},__name__!="",instance=""}}',
    ]
    (planned,) = vendor.performance_data("j", "i", [HISTOGRAM, CPU], DAY, 1800)
    assert _told(planned)["query"].count(f'{{job="j",instance="i",{matchers},__name__') == 4


def test_counters_can_be_rates() -> None:
    """What ends like a counter is asked for by rate(), each under a label that tells its name; the rest as before."""
    (planned,) = _configured(counters="rate").performance_data("j", "i", [CPU, GROUPS[1]], DAY, 600)
    assert _told(planned)["query"].split("\n") == [
        "(",
        (
            'last_over_time({job="j",instance="i",__name__!~".*(_total|_sum|_count|_bucket)",'
            '__name__=~"node_cpu(_.*)?|up"}[600s] offset 1ms)'
        ),
        "or",
        (
            'label_replace(rate({job="j",instance="i",__name__="node_cpu_seconds_total"}[600s] offset 1ms),'
            '"__rate__","node_cpu_seconds_total","","")'
        ),
        ")",
    ]
    rate = {
        "metric": {"__rate__": "node_cpu_seconds_total", "job": "j", "cpu": "0"},
        "values": [[START + 600, "0.5"]],
    }
    plain = {"metric": {"__name__": "node_cpu_online", "job": "j"}, "values": [[START + 600, "8"]]}
    body = json.dumps({"status": "success", "data": _matrix(rate, plain)}).encode()
    # Whoever reads it need not be configured like whoever asked.
    parsed = VENDOR.parse("performance_data", planned, Response(200, {}, body, datetime.now(UTC)))
    assert (parsed.rejected, parsed.incomplete) == ([], "")
    assert parsed.lists()["data_group"] == ["node_cpu", "node_cpu"]
    assert parsed.lists()["value_name"] == ['rate(node_cpu_seconds_total{cpu="0"})', "node_cpu_online"]
    assert parsed.lists()["value"] == [0.5, 8.0]
    assert parsed.lists()["timeslice_start"] == [START * 1_000_000] * 2


def test_histograms_can_be_quantiles() -> None:
    """Buckets are asked for as quantiles of what was observed in the timeslice, under the histogram's name."""
    vendor = _configured(histograms="0.95,0.50")
    (planned,) = vendor.performance_data("j", "i", [HISTOGRAM], DAY, 600)
    computed = [
        f'label_replace(histogram_quantile({each},rate({{job="j",instance="i",'
        '__name__="http_request_seconds_bucket",le!=""}[600s] offset 1ms)),'
        f'"__quantile__","{each} http_request_seconds_bucket","","")'
        for each in ("0.5", "0.95")
    ]
    selector = 'last_over_time({job="j",instance="i",__name__!~".*(_bucket)",__name__=~"http_request(_.*)?"}'
    assert _told(planned)["query"].split("\n") == [
        "(", f"{selector}[600s] offset 1ms)", "or", "(", computed[0], "or", computed[1], ")", ")",
    ]  # fmt: skip
    labels = {"job": "j", "instance": "i", "code": "200", "__quantile__": "0.95 http_request_seconds_bucket"}
    data = _matrix({"metric": labels, "values": [[START + 600, "NaN"]]})
    body = json.dumps({"status": "success", "data": data}).encode()
    parsed = VENDOR.parse("performance_data", planned, Response(200, {}, body, datetime.now(UTC)))
    assert parsed.lists()["value_name"] == ['histogram_quantile(0.95, http_request_seconds{code="200"})']
    assert (parsed.lists()["data_group"], parsed.lists()["value"]) == (["http_request"], [None])
    (both,) = _configured(histograms="0.95", counters="rate").performance_data(
        "j", "i", [HISTOGRAM], DAY, 600
    )
    assert _told(both)["query"].count("label_replace(") == 2
    assert '"__rate__","http_request_seconds_sum"' in _told(both)["query"]


def test_a_series_without_a_name_has_to_say_what_was_computed() -> None:
    """A label of ours takes the place of a name only where there is none; something else in it is put aside."""
    named = _series([END, "1"], __rate__="other")
    odd = {"metric": {"__quantile__": "0.5"}, "values": [[END, "1"]]}
    parsed = _parse("performance_data", _matrix(named, odd))
    assert parsed.lists()["value_name"] == ["up"]
    assert [rejected.reason for rejected in parsed.rejected] == ["the series has no name"]


_HOSTILE = st.text(st.sampled_from('ab_:.*$1(|)"\\\n{}, '), min_size=1, max_size=8)


@settings(max_examples=100)
@given(
    st.lists(_HOSTILE, unique=True, min_size=1, max_size=6), st.booleans(), st.text(max_size=8), st.booleans()
)
def test_the_parts_of_computed_values_ask_for_the_same(
    names: list[str], narrowed: bool, job: str, posts: bool
) -> None:
    """Split as far as it goes, what is asked for of each metric is asked for once at each point, of its own leaf."""
    vendor = Prometheus('env=")or("', rates=True, quantiles=("0.5", "0.9"), posts=posts)
    groups: dict[str, list[str]] = {}
    for name, end in zip(names, ("", "_total", "_bucket", "", "_sum", "_bucket"), strict=False):
        groups.setdefault(group_of(name + end), []).append(name + end)
    asked = [DataGroup(name, tuple(metrics), narrowed) for name, metrics in groups.items()]
    whole = vendor.performance_data(job, "\nor\n", asked, DAY, 43_200)
    points: Counter[tuple[str, int]] = Counter()
    for part in (last for each in whole for last in _parts(each)):
        told = _told(part)
        assert told["start"] == told["end"]
        (line,) = told["query"].split("\n")
        assert len(part.leaves) == 1
        points[line, int(told["start"])] += 1
        labels = re.search(r'"(__\w+__)","(.*)","",""\)$', line)
        if labels:
            # As Go writes a replacement.
            metric = re.sub(
                r"\$(\$?)(\w*)", lambda found: found[1] and "$" + found[2], json.loads(f'"{labels[2]}"')
            )
            metric = metric.partition(" ")[2] if labels[1] == "__quantile__" else metric
            assert metric in groups[part.leaves[0].data_group]
            assert metric.endswith(COUNTERS)
    assert set(points.values()) == {1}
    assert {at for _, at in points} == {START + 43_200, START + 86_400}
    computed = sum(
        2 if name.endswith("_bucket") else name.endswith(COUNTERS)
        for each in asked
        for name in each.value_names
    )
    plain = [sum(not name.endswith(COUNTERS) for name in each.value_names) for each in asked]
    others = sum(plain if narrowed else map(bool, plain))
    assert len(points) == 2 * (computed + others)


_METRIC = st.from_regex(r"[a-z_:.*+]{1,12}", fullmatch=True)


@given(_METRIC, _METRIC)
def test_a_group_matches_its_own_metrics_only(one: str, other: str) -> None:
    """The expression for a group matches exactly the metrics that are sorted into it."""
    (planned,) = VENDOR.performance_data("j", "i", [DataGroup(group_of(one), (one,))], DAY, 1800)
    query = dict(planned.request.params)["query"]
    pattern = json.loads(query.partition("__name__=~")[2].rpartition("}")[0])
    assert re.fullmatch(pattern, one)
    assert bool(re.fullmatch(pattern, other)) == (group_of(other) == group_of(one))


def test_a_key_is_a_bearer_token_and_optional() -> None:
    """Without a key no header is sent."""
    assert VENDOR.auth_headers("k") == {"Authorization": "Bearer k"}
    assert VENDOR.auth_headers("") == {}


# What is read


def test_names_are_sorted_into_groups() -> None:
    """A group is the first two words of a metric's name."""
    parsed = _parse(
        "data_groups", ["node_cpu_seconds_total", "node_cpu_guest_seconds_total", "up", "a__b", "x_y"]
    )
    assert parsed.lists()["data_group"] == ["node_cpu", "up", "a_", "x_y"]
    assert parsed.lists()["value_names"][0] == ["node_cpu_seconds_total", "node_cpu_guest_seconds_total"]


def test_an_empty_list_is_empty() -> None:
    """A day without jobs has none; that is no error."""
    assert _parse("troops", []).lists() == {"troop_id": [], "name": [], "attributes": []}


def test_names_that_are_none_are_put_aside() -> None:
    """What is no text cannot be asked for; an empty label means no label."""
    parsed = _parse("warriors", ["a", 1, None, "", "\ud800"])
    assert parsed.lists()["warrior_id"] == ["a"]
    assert len(parsed.rejected) == 3


def test_a_sample_becomes_a_row() -> None:
    """The value's name holds the remaining labels in canonical order; the timeslice is [t, t + step)."""
    parsed = _parse("performance_data", _matrix(_series([END, "1.5"], mode="idle", cpu='0"')))
    assert parsed.lists() == {
        "warrior_id": ["h:9100"],
        "data_group": ["up"],
        "value_name": ['up{cpu="0\\"",mode="idle"}'],
        "timeslice_start": [START * 1_000_000],
        "timeslice_end": [(START + 1800) * 1_000_000],
        "value": [1.5],
        "weight": [None],
    }


def test_labels_have_one_spelling() -> None:
    """Two sets of labels look the same only if they are."""
    assert canonical({}) == ""
    assert canonical({"b": "2", "a": "1\n"}) == '{a="1\\n",b="2"}'
    assert canonical({"a": '1",b="2'}) != canonical({"a": "1", "b": "2"})
    assert canonical({"my.label": "1", "none": ""}) == '{"my.label"="1"}'
    assert canonical({'a="1",b': "2"}) != canonical({"a": "1", "b": "2"})


def test_a_metric_with_a_brace_in_its_name_is_no_other() -> None:
    """Since names may be any text, one that looks like a metric with labels is quoted."""
    name = 'up{a="1"}'
    (planned,) = VENDOR.performance_data("node", "h:9100", [DataGroup(name, (name,))], DAY, 1800)
    body = json.dumps({"status": "success", "data": _matrix(_series([END, "1"], __name__=name))}).encode()
    parsed = VENDOR.parse("performance_data", planned, Response(200, {}, body, datetime.now(UTC)))
    assert parsed.lists()["value_name"] == ['"up{a=\\"1\\"}"']


def test_nan_is_null_and_infinities_are_kept() -> None:
    """NaN means that there is no number; an infinite bound is one."""
    parsed = _parse(
        "performance_data", _matrix(_series([END, "NaN"], [END + 1800, "+Inf"], [END + 3600, "-Inf"]))
    )
    assert parsed.lists()["value"] == [None, math.inf, -math.inf]


@pytest.mark.parametrize("shift", [0.123, -900, 1, 86_400, -1800])
def test_other_times_than_those_asked_are_not_the_answer(shift: float) -> None:
    """A server that moves the range to multiples of the step leaves out a timeslice: that is no whole answer."""
    parsed = _parse("performance_data", _matrix(_series([END, "1"], [END + shift, "1"])))
    assert "where 2026-11-20T00:30:00+00:00 to 2026-11-21T00:00:00+00:00 was asked" in parsed.incomplete


_PLAIN_POINTS = st.tuples(
    st.integers(0, 6).map(lambda at: END + 1800 * at),
    st.sampled_from(["1", "2.5", "NaN", "+Inf", "-Inf", "1e400", "-0", "9" * 400, " 1 "])
    | st.floats().map(str),
).map(list)
_PLAIN_SERIES = st.fixed_dictionaries(
    {
        "metric": st.fixed_dictionaries(
            {"__name__": st.sampled_from(["up", "node_cpu_seconds_total"])},
            optional={"instance": st.just("h:9100"), "x": st.sampled_from(["", "1", 'a"b', "{ü}"])},
        ),
        "values": st.lists(_PLAIN_POINTS, max_size=4),
    }
)
_ODD_POINTS: list[object] = [
    *([END, text] for text in (1, None, "x", "", "1_0", "\u0663", "\ud800")),
    *([at, "1"] for at in (True, "x", -5, END + 0.25, END + 1e-7, 10**400, 1e300, START, START + 88_200)),
    *([START + 86_400, "3"], [END], [END, "1", "2"], [], None, "ab"),
]
_ODD_LABELS: list[dict[str, object]] = [
    *({"__name__": name} for name in ("up_x", "down", "", 1, None, "\ud800", 'up{a="1"}', "up{")),
    *({"": "1"}, {"x": 1}, {"x": None}, {"x": "\ud800"}, {"\ud800": "1"}),
    *({"__name__": "", "__rate__": "up"}, {"__name__": "", "__quantile__": "0.5 up_bucket"}),
    *({"__name__": "", "__quantile__": "0.5"}, {"__rate__": "up", "__quantile__": ""}),
]
_ODD_SERIES: list[dict[str, object]] = [
    *({"histograms": each} for each in ([], None, "x", [[END, {"count": "1"}]])),
    *({"values": None}, {"values": "x"}, {"more": 1}, {"metric": None}, {"metric": []}),
]
_ODD_ANSWERS: list[dict[str, object]] = [
    *({"status": "error"}, {"infos": ["x"]}, {"infos": None}, {"infos": 1}, {"more": 1}, {"isPartial": True}),
    *({"warnings": each} for each in (["down"], [], None, ["PromQL info: x"])),
    *({"isPartial": False, "stats": {"a": ["\ud800"]}}, {"isPartial": None, "stats": {"a": 1}}, {"stats": 1}),
    *(
        {"data": each}
        for each in (None, [], {"resultType": "matrix", "result": None}, _matrix() | {"more": 1})
    ),
    *({"data": {"resultType": each, "result": []}} for each in ("vector", None)),
]


_ODD_BYTES = [b"", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"1", b"-", b"0", b'"', b"}", b" ", b"\0", b"NaN"]


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    """Answers with data: most of them as documented but for one thing, some with a piece cut out or put in."""
    series = draw(st.lists(_PLAIN_SERIES, min_size=1, max_size=4))
    content: dict[str, Any] = {"status": "success", "data": _matrix(*series)}
    one = draw(st.sampled_from(series))
    match draw(st.sampled_from(["nothing", "point", "labels", "series", "answer", "bytes"])):
        case "point":
            at = draw(st.integers(0, len(one["values"])))
            one["values"].insert(at, draw(st.sampled_from(_ODD_POINTS)))
        case "labels":
            one["metric"] |= draw(st.sampled_from(_ODD_LABELS))
        case "series":
            one |= draw(st.sampled_from(_ODD_SERIES))
        case "answer":
            content |= draw(st.sampled_from(_ODD_ANSWERS))
        case "bytes":
            body = json.dumps(content, ensure_ascii=False).encode()
            at = draw(st.integers(0, len(body)))
            return body[:at] + draw(st.sampled_from(_ODD_BYTES)) + body[at + draw(st.integers(0, 3)) :]
    return json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _is_read_alike(body: bytes, *, newest: bool = True) -> None:
    planned = _planned("performance_data")
    if not newest:
        query = (("query", '{job="node",__name__=~"up"}'), *planned.request.params[1:])
        planned = replace(planned, request=replace(planned.request, params=query))
    answer = Response(200, {"content-type": "application/json"}, body, DAY.end)
    assert_read_alike(VENDOR, _Plain, planned, answer)


@settings(max_examples=150)
@given(_bodies(), st.booleans())
def test_a_quick_reading_says_what_the_thorough_one_says(body: bytes, newest: bool) -> None:
    """Whatever answer comes, plain or odd: the same rows, the same refusals, and the same verdict on arrival."""
    _is_read_alike(body, newest=newest)


def test_each_oddity_alone_is_read_as_the_thorough_reading_reads_it() -> None:
    """In an answer that is plain otherwise."""
    plain = [_series([END, "1"], [END + 1800, "NaN"]), _series([END, "2"], __name__="node_cpu")]
    found: list[dict[str, Any]] = [{"data": _matrix(*plain)} | odd for odd in _ODD_ANSWERS]
    for odd in [
        *({"values": [[END, "1"], point]} for point in _ODD_POINTS),
        *({"metric": plain[1]["metric"] | labels} for labels in _ODD_LABELS),
        *_ODD_SERIES,
    ]:
        found.append({"data": _matrix(plain[0], plain[1] | odd)})
    for content in found:
        _is_read_alike(json.dumps({"status": "success"} | content).encode())


def test_a_plain_answer_is_judged_without_its_rows() -> None:
    """On arrival a verdict is enough, for which numbers are not read; whatever else is odd is read."""
    planned = _planned("performance_data")
    for point, rows in (([END, "1"], None), ([END, "x"], None), ([END, 1], [])):
        body = json.dumps({"status": "success", "data": _matrix(_series(point))}).encode()
        judged = VENDOR.judge("performance_data", planned, Response(200, {}, body, DAY.end))
        assert judged.lists().get("value") == rows


def test_a_plan_of_before_is_read_as_it_was_meant() -> None:
    """A plan that was frozen before has plain queries: their values are those at the timeslice's start."""
    times = (("start", str(START)), ("end", str(START + 84_600)), ("step", "1800"))
    request = Request(
        "/api/v1/query_range", (("query", '{job="node",__name__=~"up"}'), *times), "query_range"
    )
    planned = PlannedRequest(request, (Leaf("x", "h:9100", "up", DAY),))
    body = json.dumps({"status": "success", "data": _matrix(_series([START, "1"], [START + 84_600, "2"]))})
    parsed = VENDOR.parse("performance_data", planned, Response(200, {}, body.encode(), datetime.now(UTC)))
    assert parsed.lists()["timeslice_start"] == [START * 1_000_000, (START + 84_600) * 1_000_000]
    assert parsed.incomplete == ""


@pytest.mark.parametrize(
    "point",
    [
        [END, 1],
        [END, "one"],
        [END, "1_0"],
        [END, None],
        [END],
        [END, "1", "2"],
        ["x", "1"],
        [-5, "1"],
    ]
    + [[True, "1"], [1e300, "1"], [float("inf"), "1"], [float("nan"), "1"], "ab", None, 7],
)
def test_a_bad_point_is_put_aside_alone(point: object) -> None:
    """A point that is no time and number goes to quarantine; its neighbours stay."""
    parsed = _parse("performance_data", _matrix(_series(point, [END, "2"])))
    assert parsed.lists()["value"] == [2.0]
    assert [json.loads(rejected.record)["metric"]["job"] for rejected in parsed.rejected] == ["node"]


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (7, "no labels"),
        ({"values": []}, "no labels"),
        ({"metric": {"job": "a"}, "values": []}, "no name"),
        ({"metric": {"__name__": 1}, "values": []}, "not text"),
        ({"metric": {"__name__": "up", "x": "\ud800"}, "values": []}, "not text"),
        ({"metric": {"__name__": "up"}}, "no list of values"),
        ({"metric": {"__name__": "up"}, "histograms": []}, "native histograms"),
        ({"metric": {"__name__": "down"}, "values": []}, "not asked for"),
    ],
)
def test_a_bad_series_is_put_aside(series: object, reason: str) -> None:
    """A series that cannot be named or read goes to quarantine as a whole."""
    parsed = _parse("performance_data", _matrix(series, _series([END, "2"])))
    assert parsed.lists()["value"] == [2.0]
    assert reason in parsed.rejected[0].reason


def test_infos_are_harmless() -> None:
    """What a server tells of the query leaves the data as it is; an unknown field is reported."""
    infos = ["PromQL info: metric might not be a counter"]
    parsed = _parse("troops", ["a"], warnings=infos, infos=["x"], isPartial=False, surprise=1)
    assert parsed.lists()["troop_id"] == ["a"]
    assert parsed.new_fields == ("surprise",)
    assert parsed.incomplete == ""
    assert _parse("troops", ["a"], warnings=None).incomplete == ""


@pytest.mark.parametrize("asset", ["troops", "warriors", "data_groups", "performance_data"])
@pytest.mark.parametrize(
    "flag",
    [
        {"warnings": ["PromQL info: x", "receive series from store: unavailable"]},
        {"warnings": ["results truncated due to limit"]},
        {"warnings": ["\ud800"]},
        {"warnings": [7]},
        {"warnings": "down"},
        {"isPartial": True},
        {"partial": True},
        {"errorType": "timeout"},
    ],
)
def test_a_warning_means_that_something_is_missing(asset: Asset, flag: dict[str, Any]) -> None:
    """A success for fewer stores than there are is no whole answer, of a list neither; the reason can be shown."""
    parsed = _parse(asset, _matrix() if asset == "performance_data" else ["up"], **flag)
    assert parsed.incomplete
    parsed.incomplete.encode()


def test_a_list_of_a_servers_limit_is_cut() -> None:
    """A list that is exactly as long as a server's lists may be is not all of it."""
    assert _parse("warriors", [str(number) for number in range(100_000)]).incomplete
    assert not _parse("warriors", [str(number) for number in range(10_000)]).incomplete


@pytest.mark.parametrize(
    ("asset", "data"),
    [
        ("troops", None),
        ("warriors", None),
        ("data_groups", None),
        ("performance_data", None),
        ("performance_data", {"resultType": "matrix", "result": None}),
        ("performance_data", _matrix({"metric": {"__name__": "up"}, "values": None})),
    ],
)
def test_null_is_an_empty_list(asset: Asset, data: object) -> None:
    """A list that is there and null is empty, which is no failure."""
    parsed = _parse(asset, data)
    assert [column for column in parsed.lists().values() if column] == []
    assert (parsed.rejected, parsed.incomplete) == ([], "")


def test_a_series_that_turns_into_histograms_keeps_its_numbers() -> None:
    """A series with values first and native histograms later: the values are rows, each histogram is put aside."""
    mixed = _series([END, "1"]) | {"histograms": [[END + 1800, {"count": "1"}], [END + 3600, {"count": "2"}]]}
    parsed = _parse("performance_data", _matrix(mixed))
    assert parsed.lists()["value"] == [1.0]
    assert [json.loads(rejected.record)["histogram"][0] for rejected in parsed.rejected] == [
        END + 1800,
        END + 3600,
    ]


def test_what_has_no_label_is_asked_for_on_a_second_page() -> None:
    """Metrics without a job, or without an instance, belong to a nameless one, whose id no label can have."""
    matches = []
    for asset, planned in (
        ("troops", _planned("troops")),
        ("warriors", _planned("warriors")),
        ("warriors", VENDOR.warriors("", DAY)),
    ):
        body = json.dumps({"status": "success", "data": ["up"]}).encode()
        first = VENDOR.parse(asset, planned, Response(200, {}, body, datetime.now(UTC)))  # type: ignore[arg-type]
        assert first.next is not None
        matches.append(dict(first.next.params)["match[]"])
        second = VENDOR.parse(
            asset,  # type: ignore[arg-type]
            planned,
            Response(200, {}, body, datetime.now(UTC), first.next),
        )
        assert [column[0] for column in second.columns.values()][:1] == [""]
        assert second.next is None
        none = json.dumps({"status": "success", "data": []}).encode()
        empty = VENDOR.parse(asset, planned, Response(200, {}, none, datetime.now(UTC), first.next))  # type: ignore[arg-type]
        assert list(empty.columns.values()) == [[], [], []]
    assert matches == [
        '{__name__!="",job=""}',
        '{job="node",instance=""}',
        '{job="",__name__!="",instance=""}',
    ]
    assert (
        dict(VENDOR.data_groups("", "", DAY).request.params)["match[]"] == '{job="",instance="",__name__!=""}'
    )


def test_records_that_do_not_fit_are_bounded() -> None:
    """Of an answer with very many records that do not fit a few are kept, in parts, and all are counted."""
    odd = {"metric": {"__name__": "up"}, "values": [[END, 1]] * 50_000, "histograms": [["x" * 1000]] * 1000}
    parsed = _parse("performance_data", _matrix(odd))
    assert len(parsed.rejected) + parsed.more_rejected == 51_000
    assert len(parsed.rejected) == REJECTED_KEPT
    assert max(len(rejected.record) for rejected in parsed.rejected) <= RECORD_CHARACTERS


@pytest.mark.parametrize("asset", ["troops", "warriors", "data_groups", "performance_data"])
@pytest.mark.parametrize(
    "content",
    [
        {"status": "error", "errorType": "bad_data", "error": "parse error"},
        {"data": []},
        {"status": "success"},
        {"status": "success", "data": {}},
        {"status": "success", "data": {"resultType": "vector", "result": []}},
        {"status": "success", "data": {"resultType": "matrix", "result": {}}},
    ],
)
def test_a_wrong_envelope_cannot_be_understood(asset: Asset, content: dict[str, Any]) -> None:
    """An error or another kind of data is a protocol error."""
    response = Response(200, {}, json.dumps(content).encode(), datetime(2026, 11, 22, tzinfo=UTC))
    with pytest.raises(VendorProtocolError):
        VENDOR.parse(asset, _planned(asset), response)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["up", "matrix", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metric", "values", "__name__", "resultType", "result"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.sampled_from(["troops", "warriors", "data_groups", "performance_data"]), _JSON)
def test_any_json_is_read_or_refused(asset: Asset, data: object) -> None:
    """Whatever JSON comes: columns of one length, or a protocol error; never another exception."""
    for content in (data, _matrix(data), _matrix({"metric": {"__name__": "up"}, "values": [data]})):
        try:
            parsed = _parse(asset, content)
        except VendorProtocolError:
            continue
        assert len({len(column) for column in parsed.columns.values()}) == 1


def _parts(planned: PlannedRequest) -> list[PlannedRequest]:
    """All parts of a request, down to those that cannot be split."""
    parts = VENDOR.split(planned)
    assert not parts or {leaf for part in parts for leaf in part.leaves} == set(planned.leaves)
    return [last for part in parts for last in _parts(part)] or [planned]


@settings(max_examples=25)
@given(
    st.lists(
        st.from_regex(r"[a-z:|\\\\.]{1,8}(_[a-z]{1,5}){0,3}", fullmatch=True),
        unique=True,
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
    st.text(max_size=8),
)
def test_the_parts_of_a_query_ask_for_the_same(metrics: list[str], narrowed: bool, job: str) -> None:
    """Split as far as it goes, a query asks for each metric at each point once, with the labels it had."""
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        groups.setdefault(group_of(metric), []).append(metric)
    asked = [DataGroup(name, tuple(values), narrowed) for name, values in groups.items()]
    (whole,) = VENDOR.performance_data(job, 'h",__name__=~', asked, DAY, 21_600)
    head, _, names = dict(whole.request.params)["query"].rpartition('__name__=~"')
    tail = '"}[21600s] offset 1ms)'
    points: Counter[tuple[str, int]] = Counter()
    for part in _parts(whole):
        told = dict(part.request.params)
        mine, _, name = told["query"].rpartition('__name__=~"')
        assert mine == head
        assert told["start"] == told["end"]
        points[name.removesuffix(tail), int(told["start"])] += 1
    assert set(points.values()) == {1}
    assert "|".join(dict.fromkeys(name for name, _ in points)) == names.removesuffix(tail)
    assert {at for _, at in points} == {START + hour * 3600 for hour in (6, 12, 18, 24)}


def test_a_plan_of_before_is_split_as_it_was_asked() -> None:
    """A plain query of an older version's plan is split by names, then by time, and its parts stay plain."""
    fields = (
        ("query", '{job="a\\"b",__name__=~"node_cpu(_.*)?|up"}'),
        ("start", "0"),
        ("end", "3600"),
        ("step", "1800"),
    )
    leaves = tuple(Leaf(group, "h:9100", group, DAY) for group in ("node_cpu", "up"))
    parts = VENDOR.split(PlannedRequest(Request("/api/v1/query_range", fields, "query_range"), leaves))
    assert [_told(part)["query"] for part in parts] == [
        '{job="a\\"b",__name__=~"node_cpu(_.*)?"}',
        '{job="a\\"b",__name__=~"up"}',
    ]
    assert [part.leaves for part in parts] == [leaves[:1], leaves[1:]]
    times = [(told["start"], told["end"]) for told in map(_told, VENDOR.split(parts[0]))]
    assert times == [("0", "1800"), ("3600", "3600")]


def test_a_list_is_not_split() -> None:
    """A list is one thing; there is nothing to ask for less of."""
    assert VENDOR.split(_planned("troops")) == VENDOR.split(_planned("data_groups")) == []


def test_one_group_of_very_many_metrics_takes_several_queries() -> None:
    """A filter that names hundreds of metrics of one group makes queries as short as any, all of one leaf."""
    names = tuple(f"node_cpu_{number:04d}_{'x' * 30}" for number in range(800))
    for posts, longest, least in ((False, MAX_URL_CHARACTERS, 9), (True, MAX_FORM_CHARACTERS, 3)):
        vendor = Prometheus(posts=posts)
        planned = vendor.performance_data("node", "h:9100", [DataGroup("node_cpu", names, True)], DAY, 1800)
        assert len(planned) >= least
        assert max(max(len(part.request.target), len(part.request.body)) for part in planned) <= longest
        assert {leaf.key for part in planned for leaf in part.leaves} == {planned[0].leaves[0].key}
        queries = [_told(part)["query"].rpartition('=~"')[2].partition('"')[0] for part in planned]
        assert tuple("|".join(queries).split("|")) == names
