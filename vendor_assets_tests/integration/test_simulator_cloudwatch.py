"""The simulator's CloudWatch, asked by Amazon's own client: boto3 signs, asks and reads as it does at Amazon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

from vendor_assets_tests.support.aws import ACCESS_KEY, SECRET_KEY, cloudwatch, listed, values_of
from vendor_assets_tests.support.simulator import RunningSimulator, simulator


@pytest.fixture(scope="module")
def vendor() -> Iterator[RunningSimulator]:
    keys = {"api_key": ACCESS_KEY, "application_key": SECRET_KEY}
    with simulator(seed=23, cloudwatch=["page=20", "page_datapoints=1000"], **keys) as running:
        yield running


def test_boto3_reads_all_pages(vendor: RunningSimulator) -> None:
    """Of metrics and of points; larger pages hold the same."""
    client = cloudwatch(vendor.url)
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    range_ = (noon - timedelta(hours=12), noon, 600)
    metrics = listed(client)
    values = values_of(client, metrics, *range_, ("Average", "p99"))
    calls = vendor.calls()
    vendor.control("POST", "cloudwatch", {"page": 500, "page_datapoints": 100_800})
    assert listed(client) == metrics
    assert values_of(client, metrics, *range_, ("Average", "p99")) == values
    assert len(values) > 1000
    assert vendor.calls() == calls + 2 < 2 * calls
    assert {of[3] for of in values} == {"Average", "p99"}


def test_boto3_reads_refusals(vendor: RunningSimulator) -> None:
    """A wrong secret, key and clock, a token that is none, and a throttle, by the codes that Amazon has for them."""
    for client, fault, asked, code, status in (
        (cloudwatch(vendor.url, secret_key="wrong"), {}, {}, "SignatureDoesNotMatch", 403),
        (cloudwatch(vendor.url, access_key="WRONG"), {}, {}, "InvalidClientTokenId", 403),
        (cloudwatch(vendor.url), {"kind": "clock_skew", "count": 1}, {}, "SignatureDoesNotMatch", 403),
        (cloudwatch(vendor.url), {"kind": "503", "count": 1}, {}, "ServiceUnavailable", 503),
        (cloudwatch(vendor.url), {}, {"NextToken": "x"}, "InvalidNextToken", 400),
    ):
        vendor.faults([fault] if fault else [])
        with pytest.raises(ClientError) as found:
            client.list_metrics(**asked)
        answer = found.value.response
        assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)


def test_a_throttle_is_a_violation(vendor: RunningSimulator) -> None:
    """It has status 400, and the log counts it as what it is."""
    vendor.reset()
    vendor.control("POST", "cloudwatch", {"list_metrics": 1})
    client = cloudwatch(vendor.url)
    with pytest.raises(ClientError, match=r"ThrottlingException.*Rate exceeded"):
        for _ in range(100):
            client.list_metrics()
    assert vendor.log()["violations"] == vendor.calls("cloudwatch.ListMetrics", "throttled") == 1
    with pytest.raises(HTTPError):
        vendor.control("POST", "cloudwatch", {"unknown": 1})
