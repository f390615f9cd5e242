"""CloudWatch's requests and answers, as pure text; forms are those of botocore's model of the service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors import make
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest, Request, Response
from vendor_assets.vendors.cloudwatch import MOST_POINTS, MOST_QUERIES, STATISTICS, Cloudwatch, warrior_of
from vendor_assets.vendors.sigv4 import SignatureV4

DAY = day_window(date(2026, 11, 20), parse_time_zone("UTC"))
START = int(DAY.start.timestamp())
VENDOR = Cloudwatch().at(DAY.end)
CPU = DataGroup("CPUUtilization", ("Average", "Maximum"))
I1 = "InstanceId=i-1"


def answer(document: object, asked: Request | None = None) -> Response:
    kind = {"content-type": "application/x-amz-json-1.0"}
    return Response(200, kind, json.dumps(document).encode(), DAY.end, asked)


def metric(name: object, namespace: object = "AWS/EC2", **dimensions: object) -> dict[str, Any]:
    pairs = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    return {"Namespace": namespace, "MetricName": name, "Dimensions": pairs}


def read(asset: Asset, *metrics: object, planned: PlannedRequest | None = None, **more: object) -> Parsed:
    plans = {
        "troops": VENDOR.troops(DAY),
        "warriors": VENDOR.warriors("AWS/EC2", DAY),
        "data_groups": VENDOR.data_groups("AWS/EC2", I1, DAY),
    }
    return VENDOR.parse(asset, planned or plans[asset], answer({"Metrics": list(metrics), **more}))


def plan(
    groups: Mapping[str, list[DataGroup]], resolution: int = 3600, vendor: Cloudwatch = VENDOR
) -> list[PlannedRequest]:
    return vendor.performance_data_of("AWS/EC2", groups, DAY, resolution)


def document(planned: PlannedRequest | Request) -> dict[str, Any]:
    request = planned if isinstance(planned, Request) else planned.request
    found: dict[str, Any] = json.loads(request.body)
    return found


def result(identity: str, *values: object, status: str = "Complete", **more: object) -> dict[str, Any]:
    times = [float(START + 3600 * hour) for hour in range(len(values))]
    return {"Id": identity, "Timestamps": times, "Values": list(values), "StatusCode": status, **more}


def points(planned: PlannedRequest, *results: object, asked: Request | None = None, **more: object) -> Parsed:
    return VENDOR.parse("performance_data", planned, answer({"MetricDataResults": results, **more}, asked))


@pytest.fixture
def two() -> PlannedRequest:
    """Two statistics of two instances: q0 to q3."""
    (planned,) = plan({I1: [CPU], "InstanceId=i-2": [CPU]})
    return planned


# Lists


def test_a_list_names_namespaces_warriors_and_metrics() -> None:
    """A resource is its dimensions, in whatever order they come; it may have none."""
    several = metric("Latency", Zone="a", Name="x")
    turned = several | {"MetricName": "Errors", "Dimensions": several["Dimensions"][::-1]}
    found = (
        metric("CPU", InstanceId="i-1"),
        several,
        turned,
        {"Namespace": "AWS/EC2", "MetricName": "Count"},
    )
    assert read("troops", *found, metric("a", "My App")).columns["troop_id"] == ["AWS/EC2", "My App"]
    warriors = read("warriors", *found).columns
    assert warriors["warrior_id"] == [I1, "Name=x,Zone=a", ""]
    assert warriors["name"] == ["i-1", "x a", "(no dimensions)"]
    assert warriors["attributes"] == ['{"InstanceId":"i-1"}', '{"Name":"x","Zone":"a"}', "{}"]
    groups = read("data_groups", *found).columns
    assert list(zip(groups["warrior_id"], groups["data_group"], strict=True)) == [
        (I1, "CPU"),
        ("Name=x,Zone=a", "Latency"),
        ("Name=x,Zone=a", "Errors"),
        ("", "Count"),
    ]
    assert groups["value_names"] == [list(STATISTICS)] * 4


TEXTS = st.text(min_size=1) | st.text("%,=2C3D5", min_size=1)


@given(st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_an_id_says_the_dimensions(dimensions: dict[str, str]) -> None:
    """Whatever their names and values are."""
    (planned,) = plan({warrior_of(dimensions): [CPU]})
    asked = document(planned)["MetricDataQueries"][0]["MetricStat"]["Metric"]["Dimensions"]
    assert {each["Name"]: each["Value"] for each in asked} == dimensions


def test_a_list_goes_on_until_no_token_comes() -> None:
    """Each page asks the same with the last token; pages of the same warriors are told apart by their metrics."""
    first = read("warriors", metric("CPU", InstanceId="i-1"), NextToken="t1")
    assert first.next is not None
    assert document(first.next) == {"Namespace": "AWS/EC2", "NextToken": "t1"}
    assert dict(first.next.headers)["X-Amz-Target"] == "GraniteServiceVersion20100801.ListMetrics"
    last = read("warriors", metric("Disk", InstanceId="i-1"))
    assert last.next is None
    assert first.about != last.about
    with pytest.raises(VendorProtocolError, match="NextToken"):
        read("warriors", NextToken=5)


def test_empty_pages_may_follow_each_other(two: PlannedRequest) -> None:
    """Each leads on by a token of its own; one that leads back to itself is known."""
    lists = [read("warriors", NextToken=token).about for token in ("t", "u", "t")]
    data = [points(two, NextToken=token).about for token in ("t", "u", "t")]
    for one, other, again in (lists, data):
        assert one == again != other


def test_metrics_that_are_none_are_put_aside() -> None:
    """One of another namespace too; what is new is told by name."""
    wrong: list[object] = [
        "CPU", {}, metric(""), metric(5), metric("a", ""), metric("a", "Other"), metric("a", InstanceId=""),
        metric("a") | {"Dimensions": "x"}, metric("a") | {"Dimensions": [{"Name": "a", "Value": "b"}] * 2},
    ]  # fmt: skip
    parsed = read("warriors", *wrong, metric("a", InstanceId="i-1") | {"Unit": "Percent"})
    assert parsed.columns["warrior_id"] == [I1]
    assert (len(parsed.rejected), parsed.new_fields) == (len(wrong), ("Unit",))
    assert read("troops", planned=VENDOR.troops(DAY)).columns["troop_id"] == []
    with pytest.raises(VendorProtocolError, match="Metrics"):
        VENDOR.parse("troops", VENDOR.troops(DAY), answer({}))


def test_another_account_is_asked_for_everywhere() -> None:
    """A monitoring account reads one source account: in lists and in each query."""
    vendor = make("cloudwatch", "123456789012")
    assert document(vendor.troops(DAY)) == {"IncludeLinkedAccounts": True, "OwningAccount": "123456789012"}
    (planned,) = vendor.performance_data("x", I1, [CPU], DAY, 3600)
    assert [query["AccountId"] for query in document(planned)["MetricDataQueries"]] == ["123456789012"] * 2
    assert "AccountId" not in plan({I1: [CPU]})[0].request.body


# Requests for data


def test_calls_are_as_full_as_they_may_be() -> None:
    """500 statistics, or 100,800 points; a metric's statistics are never apart."""
    groups = {f"InstanceId=i-{number}": [DataGroup("CPU", STATISTICS)] for number in range(250)}
    for resolution, most in ((3600, MOST_QUERIES), (60, MOST_POINTS // 1440)):
        planned = plan(groups, resolution)
        assert {document(each)["ScanBy"] for each in planned} == {"TimestampAscending"}
        sizes = [len(document(each)["MetricDataQueries"]) for each in planned]
        assert sum(sizes) == 1250
        assert max(sizes) <= most
        assert all(size <= most < size + len(STATISTICS) for size in sizes[:-1])
        for each, size in zip(planned, sizes, strict=True):
            counted = VENDOR.counts(each.request)
            assert counted["points"] == size * 86_400 // resolution <= MOST_POINTS
            assert counted["metrics"] == size
            assert counted["dollars"] == pytest.approx(size * 0.01 / 1000)


@pytest.mark.parametrize(
    ("age", "asked", "got"),
    [
        (1, 60, 60),
        (14, 420, 420),
        (16, 60, 300),
        (16, 420, 600),
        (64, 1800, 3600),
        (64, 5400, 7200),
        (400, 86_400, 86_400),
    ],
)
def test_periods_of_old_days_are_longer(age: int, asked: int, got: int) -> None:
    """Multiples of five minutes after 15 days, of an hour after 63; the range lies on multiples in UTC."""
    vendor = VENDOR.at(DAY.start + timedelta(days=age))
    for zone in ("UTC", "Asia/Kathmandu"):
        day = day_window(date(2026, 11, 20), parse_time_zone(zone))
        (planned,) = vendor.at(day.start + timedelta(days=age, hours=1)).performance_data(
            "x", I1, [CPU], day, asked
        )
        call = document(planned)
        assert {query["MetricStat"]["Period"] for query in call["MetricDataQueries"]} == {got}
        assert call["StartTime"] % got == call["EndTime"] % got == 0
        assert call["StartTime"] <= day.start.timestamp() < call["StartTime"] + got
        assert call["EndTime"] - got < day.end.timestamp() <= call["EndTime"]


@pytest.mark.parametrize("seconds", [0, 1, 30, 90])
def test_what_is_no_period_is_refused(seconds: int) -> None:
    """Shorter ones are gone after three hours."""
    with pytest.raises(ConfigurationError, match="multiple of 60"):
        VENDOR.check_resolution(seconds)


def test_parts_keep_their_ids(two: PlannedRequest) -> None:
    """An answer to the whole is read as one to a part; halves end at a statistic in one timeslice."""
    part = VENDOR.part(two, [two.leaves[1].key])
    assert [query["Id"] for query in document(part)["MetricDataQueries"]] == ["q2", "q3"]
    parsed = points(part, *(result(f"q{number}", float(number)) for number in range(4)))
    assert parsed.lists()["value"] == [2.0, 3.0]
    assert not parsed.rejected
    by_statistic = VENDOR.split(part)
    assert [[query["Id"] for query in document(each)["MetricDataQueries"]] for each in by_statistic] == [
        ["q2"],
        ["q3"],
    ]
    first, second = (document(each) for each in VENDOR.split(by_statistic[0]))
    assert (first["StartTime"], first["EndTime"], second["StartTime"]) == (
        START,
        START + 43_200,
        START + 43_200,
    )
    assert VENDOR.split(VENDOR.troops(DAY)) == []


# Answers with data


def test_points_are_rows(two: PlannedRequest) -> None:
    """Whatever the order of metrics; what was not sent has no row; values that are no numbers are put aside."""
    parsed = points(
        two, result("q3", 1.5, "NaN", 2), result("q0", None), result("q1"), result("q2", 10**400, True)
    )
    rows = parsed.lists()
    assert rows["warrior_id"] == ["InstanceId=i-2"] * 2
    assert rows["data_group"] == ["CPUUtilization"] * 2
    assert rows["value_name"] == ["Maximum"] * 2
    assert rows["timeslice_start"] == [START * 10**6, (START + 7200) * 10**6]
    assert rows["timeslice_end"] == [(START + 3600) * 10**6, (START + 10_800) * 10**6]
    assert (rows["value"], rows["weight"]) == ([1.5, 2.0], [None, None])
    assert len(parsed.rejected) == 4
    assert not parsed.incomplete
    assert not parsed.failures


def test_metrics_that_fail_are_told_by_their_leaves(two: PlannedRequest) -> None:
    """Not whole, broken, forbidden or missing: the other metric is kept."""
    right = [result("q2", 2.0), result("q3", 3.0)]
    for wrong, means, reason in (
        ([result("q0", 1.0, status="PartialData"), result("q1", 1.0)], "failed", "PartialData"),
        ([result("q0", 1.0), result("q1", status="InternalError")], "failed", "InternalError"),
        ([result("q0", 1.0), result("q1", status="New")], "failed", "New"),
        ([result("q0", 1.0)], "failed", "no result"),
        (
            [result("q0", status="Forbidden", Messages=[{"Code": "x", "Value": "why"}]), result("q1")],
            "refused",
            "why",
        ),
    ):
        (failure,) = points(two, *wrong, *right).failures
        assert failure.leaves == (two.leaves[0].key,)
        assert failure.means == means
        assert reason in failure.reason
    (failure,) = points(two).failures
    assert failure.leaves == tuple(leaf.key for leaf in two.leaves)


def test_pages_of_data_follow_each_other(two: PlannedRequest) -> None:
    """PartialData is right where a token comes; a later page needs no metric that another one completed."""
    first = points(two, result("q0", 1.0), result("q1", status="PartialData"), NextToken="t")
    assert not first.failures
    assert not first.incomplete
    assert first.next is not None
    assert document(first.next) == document(two) | {"NextToken": "t"}
    assert VENDOR.counts(first.next) == VENDOR.counts(two.request)
    last = points(two, result("q1", 2.0), result("q2"), result("q3"), asked=first.next)
    assert (last.failures, last.incomplete, last.next) == ([], "", None)
    for status, more in (("PartialData", {}), ("InternalError", {"NextToken": "u"}), ("Forbidden", {})):
        again = points(two, result("q1", 2.0, status=status), asked=first.next, **more)
        assert status in again.incomplete
        assert not again.failures


@pytest.mark.parametrize(
    "time",
    [START - 3600, START + 86_400, START + 1, START + 0.5, "2026-11-20", None, True, float("nan"), 10**400],
)
def test_other_times_are_no_answer(two: PlannedRequest, time: object) -> None:
    """Outside the range, between its timeslices, or none at all."""
    odd = result("q0", 1.0) | {"Timestamps": [time]}
    assert "was asked every 3600 s" in points(two, odd, result("q1"), result("q2"), result("q3")).incomplete


def test_what_an_answer_says_of_itself_counts(two: PlannedRequest) -> None:
    """A message about the call, a metric that comes twice, and times without values."""
    whole = [result(f"q{number}", 1.0) for number in range(4)]
    message = [{"Code": "x", "Value": "Maximum number of allowed metrics exceeded"}]
    assert "Maximum number" in points(two, *whole, Messages=message).incomplete
    assert len(points(two, *whole, whole[0], {}, "x").rejected) == 3
    assert (
        "2 times of 1 values"
        in points(two, *whole[1:], result("q0", 1.0) | {"Timestamps": [1, 2]}).incomplete
    )
    with pytest.raises(VendorProtocolError, match="MetricDataResults"):
        VENDOR.parse("performance_data", two, answer({}))


# Refusals and settings


def refusal(code: str) -> bytes:
    return json.dumps({"__type": code, "message": "why"}).encode()


@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "com.amazonaws#RequestLimitExceeded"])
def test_a_throttle_is_a_400(code: str) -> None:
    """By its code alone; another status, or the word in the message, is none."""
    assert VENDOR.throttled(400, {}, refusal(code))
    assert not VENDOR.throttled(200, {}, refusal(code))
    assert not VENDOR.refuses_key(400, {}, refusal(code))
    assert VENDOR.throttled(429, {}, b"")
    assert not VENDOR.throttled(400, {}, b'{"__type": "ValidationError", "message": "Throttling"}')


@pytest.mark.parametrize(
    "code",
    [
        "InvalidClientTokenId",
        "com.amazonaws#UnrecognizedClientException",
        "AccessDenied",
        "SignatureDoesNotMatch",
    ],
)
def test_a_refused_key_is_told_by_the_code(code: str) -> None:
    """With 400 or 403, as services of Amazon differ; garbage and other codes are about the request."""
    assert VENDOR.refuses_key(400, {}, refusal(code))
    assert VENDOR.refuses_key(403, {}, refusal(code))
    assert not VENDOR.refuses_key(200, {}, refusal(code))
    for body in (b"", b"[" * 9999, b"[]", b"<html>", refusal("ValidationError"), b'{"__type": 5}'):
        assert not VENDOR.refuses_key(403, {}, body)
        assert not VENDOR.throttled(400, {}, body)
    assert VENDOR.refuses_key(401, {}, b"")


def test_options_are_checked() -> None:
    """What is none is refused in a line that says what is accepted."""
    chosen = make("cloudwatch", "", {"statistics": "p99  Sum p99 tm95.5", "region": "eu-central-1"})
    leaf = chosen.data_groups("x", I1, DAY).leaves[0]
    assert leaf.data_group == "p99 Sum tm95.5"
    listed = answer({"Metrics": [metric("CPU", InstanceId="i-1")]})
    kept = PlannedRequest(chosen.data_groups("AWS/EC2", I1, DAY).request, (leaf,))
    assert VENDOR.parse("data_groups", kept, listed).columns["value_names"] == [["p99", "Sum", "tm95.5"]]
    many = " ".join(f"p{number}" for number in range(21))
    for options in (
        {"statistics": "Mean"},
        {"statistics": many},
        {"statistics": "p101"},
        {"region": "EU (Frankfurt)"},
    ):
        with pytest.raises(ConfigurationError, match=f"VENDOR_OPTIONS has {next(iter(options))}="):
            make("cloudwatch", "", options)
    for account in ("me", "arn:aws:iam::1", "١٢"):
        with pytest.raises(ConfigurationError, match="VENDOR_ACCOUNT"):
            make("cloudwatch", account)


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("monitoring.eu-central-1.amazonaws.com", "eu-central-1"),
        ("monitoring-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-0a1-b2c3.monitoring.us-east-1.vpce.amazonaws.com", "us-east-1"),
        ("monitoring.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("monitoring.us-east-2.api.aws", "us-east-2"),
    ],
)
def test_the_address_names_the_region(host: str, region: str) -> None:
    """In each form of it; only what is Amazon's own is signed, so that a proxy may change the rest."""
    import requests

    headers = {"Accept-Encoding": "gzip", "Content-Type": "a/b", "X-Amz-Security-Token": "t"}
    prepared = requests.Request("POST", f"https://{host}/", headers, data=b"{}").prepare()
    authorization = SignatureV4("AKID", "secret", "monitoring")(prepared).headers["Authorization"]
    assert f"/{region}/monitoring/aws4_request" in authorization
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token," in authorization
    prepared = requests.Request("POST", "https://cloudwatch.example.com/").prepare()
    with pytest.raises(ConfigurationError, match="VENDOR_OPTIONS=region="):
        SignatureV4("AKID", "secret", "monitoring")(prepared)


def test_the_clock_is_that_of_the_question() -> None:
    """Without one it is the computer's."""
    recent = day_window(datetime.now(UTC).date() - timedelta(days=1), parse_time_zone("UTC"))
    (planned,) = Cloudwatch().performance_data("x", I1, [CPU], recent, 60)
    assert document(planned)["MetricDataQueries"][0]["MetricStat"]["Period"] == 60
