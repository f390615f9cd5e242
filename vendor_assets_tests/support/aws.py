"""Amazon's own client for CloudWatch, and a server that others wrote (moto), as independent judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import boto3
import botocore.model
import pytest

ACCESS_KEY, SECRET_KEY, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1"
STATISTICS = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")

Values = dict[tuple[str, str, str, str, datetime], float]
"""By namespace, dimensions, metric, statistic and start."""


def cloudwatch(url: str, *, secret_key: str = SECRET_KEY, access_key: str = ACCESS_KEY) -> Any:
    """A boto3 client that speaks JSON: it has three protocols and would take CBOR, which the simulator has not."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(botocore.model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", ("json",))
        return boto3.session.Session().client(
            "cloudwatch",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, proxies={}),
        )


def listed(client: Any, **asked: Any) -> list[dict[str, Any]]:
    """All metrics, by as many pages as it takes."""
    return [
        metric
        for page in client.get_paginator("list_metrics").paginate(**asked)
        for metric in page["Metrics"]
    ]


def values_of(
    client: Any,
    metrics: Iterable[dict[str, Any]],
    start: datetime,
    end: datetime,
    period: int,
    statistics: Iterable[str] = STATISTICS,
) -> Values:
    """What CloudWatch says of metrics, in pages, the newest first."""
    found: Values = {}
    asked = [(metric, name) for metric in metrics for name in statistics]
    for first in range(0, len(asked), 500):
        some = asked[first : first + 500]
        pages = client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[
                {"Id": f"m{number}", "MetricStat": {"Metric": metric, "Period": period, "Stat": name}}
                for number, (metric, name) in enumerate(some)
            ],
            StartTime=start,
            EndTime=end,
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                metric, name = some[int(result["Id"][1:])]
                of = (metric["Namespace"], identity(metric), metric["MetricName"], name)
                found |= {
                    (*of, at): value for at, value in zip(result["Timestamps"], result["Values"], strict=True)
                }
    return found


def identity(metric: dict[str, Any]) -> str:
    """A metric's dimensions as the id of a warrior; for names and values without commas and the like."""
    return ",".join(
        f"{each['Name']}={each['Value']}"
        for each in sorted(metric["Dimensions"], key=lambda one: one["Name"])
    )


@contextmanager
def moto_server() -> Iterator[str]:
    """A server of moto in a thread, without anything in it; its address."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        running.stop()
