"""The pure parts of the simulator's CloudWatch: signatures, lists, points and their pages, quotas, spoiled bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from vendor_assets.simulator import sigv4
from vendor_assets.simulator.cloudwatch import DATAPOINTS_MOST, QUERIES_MOST, CloudWatch, Rules, parse_rules
from vendor_assets.simulator.dialect import Dialect, Reply
from vendor_assets.simulator.faults import KINDS, spoil
from vendor_assets.simulator.world import World

NOW = 1_795_348_800
"""2026-11-22T12:00Z."""
DAY = 86_400
HOUR = 3600
SIGNER = sigv4.Signer("AKID", "secret", "us-east-1", "monitoring")
SPOILING = [kind for kind in KINDS if kind.startswith(("dupl", "shuf", "weird", "drift", "null"))]


def vendor(*, world: World | None = None, **rules: int) -> CloudWatch:
    wide = Rules(list_metrics=10**6, get_metric_data=10**6, datapoints=10**9, recent_datapoints=10**9)
    for name, value in rules.items():
        setattr(wide, name, value)
    return CloudWatch(Dialect(world or World.preset("small", seed=23)), wide)


def ask(asked: CloudWatch, operation: str, now: float = NOW, fault: str = "", **given: object) -> Reply:
    return asked.reply(f"cloudwatch.{operation}", json.dumps(given).encode(), now, 0.0, fault)


def tree(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reply.body)
    assert reply.status == 200, found
    return found


def metrics(asked: CloudWatch, **given: object) -> list[dict[str, Any]]:
    """The list, by as many pages as it takes."""
    found: list[dict[str, Any]] = []
    while True:
        page = tree(ask(asked, "ListMetrics", **given))
        found += page["Metrics"]
        if "NextToken" not in page:
            return found
        given |= {"NextToken": page["NextToken"]}


def queries(
    some: list[dict[str, Any]], period: int = HOUR, stats: tuple[str, ...] = ("Average",)
) -> list[object]:
    return [
        {"Id": f"q{number}x{place}", "MetricStat": {"Metric": metric, "Period": period, "Stat": name}}
        for number, metric in enumerate(some)
        for place, name in enumerate(stats)
    ]


def points(page: Mapping[str, Any]) -> dict[tuple[str, float], float]:
    return {
        (result["Id"], at): value
        for result in page["MetricDataResults"]
        for at, value in zip(result["Timestamps"], result["Values"], strict=True)
    }


def code(reply: Reply) -> str:
    return str(json.loads(reply.body)["__type"]).rpartition("#")[2]


# Signatures


def signed(target: str = "/", body: bytes = b"{}", **headers: str) -> dict[str, str]:
    """The headers of a request as botocore signs them, at the moment that it is."""
    own = {"X-Amz-Target": "x", "Content-Type": "application/x-amz-json-1.0", **headers}
    request = AWSRequest("POST", f"http://vendor.example:81{target}", own, body)
    SigV4Auth(Credentials("AKID", "secret"), "monitoring", "us-east-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()} | {"host": "vendor.example:81"}


def now() -> float:
    return datetime.now(UTC).timestamp()


@pytest.mark.parametrize("target", ["/", "/a%20b/c~d?b=2&a=z&a=y%20z%2A&empty=", "/?x=%2B"])
@pytest.mark.parametrize("body", [b"", b'{"a": "\xc3\xbc"}'])
def test_what_botocore_signs_is_right(target: str, body: bytes) -> None:
    """Path, query, headers and body; blanks in a header count once."""
    found = signed(target, body, **{"X-Amz-Security-Token": "a  b"})
    assert sigv4.check("POST", target, found, body, SIGNER, now()) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"authorization": ""}, "MissingAuthenticationToken"),
        ({"authorization": "Bearer x"}, "IncompleteSignature"),
        ({"x-amz-date": "today"}, "IncompleteSignature"),
        ({"x-amz-target": "y"}, "SignatureDoesNotMatch"),
        ({"host": "other.example"}, "SignatureDoesNotMatch"),
        ({"x-amz-new": "unsigned"}, "SignatureDoesNotMatch"),
    ],
)
def test_what_was_changed_is_refused(change: dict[str, str], expected: str) -> None:
    """A header that is missing, changed or added afterwards."""
    found = sigv4.check("POST", "/", signed() | change, b"{}", SIGNER, now())
    assert found is not None
    assert found.code == expected


def test_others_and_other_times_are_refused() -> None:
    """Another body, method, path, key, secret, region or service; five minutes off, in both directions."""
    found = signed()

    def told(
        method: str = "POST", target: str = "/", body: bytes = b"{}", late: float = 0, **signer: str
    ) -> str:
        refused = sigv4.check(method, target, found, body, SIGNER._replace(**signer), now() + late)
        return refused.message if refused else ""

    assert told(late=290) == told(late=-290) == ""
    assert "Signature expired" in told(late=310)
    assert "not yet current" in told(late=-310)
    for wrong in (told("PUT"), told(target="/x"), told(body=b"[]"), told(secret="s")):
        assert "does not match" in wrong
    assert "security token" in told(key="OTHER")
    assert "region" in told(region="eu-west-1")
    assert "service" in told(service="aps")


# Lists


def test_the_numbers_are_the_documented_ones() -> None:
    """25 and 50 calls, 396,000 and 180,000 points a second, 500 metrics a page and a call, 100,800 points."""
    rules = Rules()
    assert (rules.list_metrics, rules.get_metric_data) == (25, 50)
    assert (rules.datapoints, rules.recent_datapoints) == (396_000, 180_000)
    assert (rules.page, QUERIES_MOST, DATAPOINTS_MOST, rules.page_datapoints) == (500, 500, 100_800, 100_800)
    assert parse_rules(["page=7", "region=eu-west-1"]) == Rules(page=7, region="eu-west-1")
    for text in ("pages=7", "page=x"):
        with pytest.raises(ValueError, match=text.partition("=")[2]):
            parse_rules([text])


def test_pages_hold_each_metric_once() -> None:
    """However long pages are; a filter by name and value finds what has further dimensions too."""
    whole = metrics(vendor())
    assert len(whole) == len({json.dumps(each) for each in whole}) > 20
    assert metrics(vendor(page=7)) == whole
    namespace = whole[0]["Namespace"]
    assert metrics(vendor(), Namespace=namespace) == [
        each for each in whole if each["Namespace"] == namespace
    ]
    grouped = next(each for each in whole if len(each["Dimensions"]) == 2)
    same = {name: grouped[name] for name in ("Namespace", "MetricName")}
    found = metrics(vendor(), Dimensions=grouped["Dimensions"][1:], **same)
    assert found == [grouped]
    assert metrics(vendor(), Dimensions=[{"Name": "InstanceId"}]) == whole


def test_lists_know_two_weeks_and_appear_late() -> None:
    """Metrics of resources that are gone are listed, those of the last minutes are not; PT3H leaves old ones out."""
    recent = metrics(vendor(), RecentlyActive="PT3H")
    whole = metrics(vendor())
    assert len(recent) < len(whole)
    assert all(each in whole for each in recent)
    begun = World(seed=5, troops=1, warriors=1, data_groups=1, churn=True)
    assert code(ask(vendor(world=begun), "ListMetrics", RecentlyActive="PT1H")) == "InvalidParameterValue"


def test_a_token_is_good_for_its_question_alone() -> None:
    """Another question, or a text that is no token, is refused as Amazon names it."""
    token = tree(ask(vendor(page=7), "ListMetrics"))["NextToken"]
    assert code(ask(vendor(page=7), "ListMetrics", Namespace="x", NextToken=token)) == "InvalidNextToken"
    assert code(ask(vendor(), "ListMetrics", NextToken="x")) == "InvalidNextToken"


# Points


def test_statistics_belong_together() -> None:
    """The sum is the average times the samples; percentiles lie between the extremes, in order."""
    stats = ("Average", "Sum", "SampleCount", "Minimum", "p0", "p50", "p99.9", "p100", "Maximum")
    asked = vendor()
    for metric in metrics(asked):
        given = {"MetricDataQueries": queries([metric], stats=stats), "StartTime": NOW - DAY, "EndTime": NOW}
        of_stat = [
            dict(zip(each["Timestamps"], each["Values"], strict=True))
            for each in tree(ask(asked, "GetMetricData", **given))["MetricDataResults"]
        ]
        for at, average in of_stat[0].items():
            total, count, *ranked = (each[at] for each in of_stat[1:])
            assert total == pytest.approx(average * count)
            assert ranked == sorted(ranked)
            assert ranked[0] <= average <= ranked[-1]


def test_pages_of_points_are_the_whole() -> None:
    """However few points a page has, in both orders; what is not reached is PartialData, and says so."""
    asked = {"MetricDataQueries": queries(metrics(vendor())[:12]), "StartTime": NOW - DAY, "EndTime": NOW}
    whole = tree(ask(vendor(), "GetMetricData", **asked))
    assert points(whole)
    assert {each["StatusCode"] for each in whole["MetricDataResults"]} == {"Complete"}
    for most, order in ((7, "TimestampAscending"), (24, "TimestampDescending"), (100, "TimestampDescending")):
        given = asked | {"MaxDatapoints": most, "ScanBy": order}
        found: dict[tuple[str, float], float] = {}
        while True:
            page = tree(ask(vendor(), "GetMetricData", **given))
            assert len(points(page)) <= most
            assert not found.keys() & points(page).keys()
            found |= points(page)
            cut = [each for each in page["MetricDataResults"] if each["StatusCode"] == "PartialData"]
            assert ("NextToken" in page) >= bool(cut)
            if "NextToken" not in page:
                break
            given |= {"NextToken": page["NextToken"]}
        assert found == points(whole)


def test_the_newest_point_comes_first() -> None:
    """Unless ascending order is asked for."""
    asked = {"MetricDataQueries": queries(metrics(vendor())), "StartTime": NOW - DAY, "EndTime": NOW}
    for given, backwards in ((asked, True), (asked | {"ScanBy": "TimestampAscending"}, False)):
        for result in tree(ask(vendor(), "GetMetricData", **given))["MetricDataResults"]:
            assert result["Timestamps"] == sorted(result["Timestamps"], reverse=backwards)


@pytest.mark.parametrize(
    ("age", "period", "rounded"),
    [
        (1, 60, 60),
        (14, 60, 60),
        (16, 60, None),
        (16, 300, 300),
        (64, 300, None),
        (64, 3600, 3600),
        (456, 3600, None),
    ],
)
def test_old_points_are_coarse(age: int, period: int, rounded: int | None) -> None:
    """By the minute for 15 days, by five minutes for 63, by the hour for 455; the start is rounded down likewise."""
    asked = vendor(world=World(seed=5, troops=1, warriors=1, data_groups=2, churn=False))
    start = NOW - age * DAY + 1234
    given = {
        "MetricDataQueries": queries(metrics(asked), period),
        "StartTime": start,
        "EndTime": start + 2 * HOUR,
    }
    times = {at for _, at in points(tree(ask(asked, "GetMetricData", **given)))}
    if rounded is None:
        assert not times
    else:
        assert min(times) == start // rounded * rounded
        assert {(at - min(times)) % period for at in times} == {0}
        assert max(times) < start + 2 * HOUR


def test_bad_questions_are_refused() -> None:
    """Each with a 400 and a code."""
    asked = vendor()
    right = {"MetricDataQueries": queries(metrics(asked)[:1]), "StartTime": NOW - DAY, "EndTime": NOW}
    assert tree(ask(asked, "GetMetricData", **right))
    one = json.loads(json.dumps(right["MetricDataQueries"]))[0]
    wrong: list[dict[str, object]] = [
        {"MetricDataQueries": []},
        {"MetricDataQueries": [one | {"Id": f"q{number}"} for number in range(501)]},
        {"MetricDataQueries": [one, one]},
        {"MetricDataQueries": [one | {"Id": "Q"}]},
        {"MetricDataQueries": [one | {"MetricStat": one["MetricStat"] | {"Period": 90}}]},
        {"MetricDataQueries": [one | {"MetricStat": one["MetricStat"] | {"Stat": "Mean"}}]},
        {"MetricDataQueries": [{"Id": "q", "Expression": "m1*2"}]},
        {"StartTime": NOW, "EndTime": NOW},
        {"StartTime": "2026"},
        {"MaxDatapoints": 100_801},
        {"ScanBy": "Time"},
    ]
    for change in wrong:
        assert ask(asked, "GetMetricData", **{**right, **change}).status == 400, change
    assert code(ask(asked, "PutMetricData")) == "UnknownOperationException"
    assert code(asked.reply("cloudwatch.ListMetrics", b"[", NOW, 0.0)) == "SerializationException"


def test_quotas_are_of_calls_and_of_points() -> None:
    """A second's worth at once; what is refused takes nothing, and recent ranges have a quota of their own."""
    asked = vendor(list_metrics=2, datapoints=60, recent_datapoints=10)
    assert [ask(asked, "ListMetrics").status for _ in range(3)] == [200, 200, 400]
    refused = ask(asked, "ListMetrics")
    assert (code(refused), refused.throttled) == ("ThrottlingException", True)
    some = queries([{"Namespace": "x", "MetricName": "y"}])
    day = {"MetricDataQueries": some, "StartTime": NOW - DAY, "EndTime": NOW}
    assert [ask(asked, "GetMetricData", **day).status for _ in range(3)] == [200, 200, 400]
    hours = {"MetricDataQueries": some, "StartTime": NOW - 3 * HOUR, "EndTime": NOW}
    assert [ask(asked, "GetMetricData", **hours).status for _ in range(4)] == [200, 200, 200, 400]


@pytest.mark.parametrize("kind", SPOILING)
def test_each_spoiled_body_is_json(kind: str) -> None:
    """Lists and points keep their form; duplicates, orders, odd values and times are really there."""
    asked = vendor()
    given = {"MetricDataQueries": queries(metrics(asked)), "StartTime": NOW - DAY, "EndTime": NOW}
    for body in (ask(asked, "ListMetrics").body, ask(asked, "GetMetricData", **given).body):
        found = json.loads(spoil(kind, body))
        assert found.keys() == json.loads(body).keys()
        changed = json.dumps(found) != json.dumps(json.loads(body))
        in_lists = kind.startswith(("dupl", "shuf", "drift"))
        assert changed >= (in_lists or "MetricDataResults" in found)
