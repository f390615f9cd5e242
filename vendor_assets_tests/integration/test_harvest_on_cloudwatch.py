"""A day harvested from CloudWatch: of the embedded vendor, and of moto; boto3 reads the same, and is the judge."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_table
from vendor_assets_tests.support.aws import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    STATISTICS,
    Values,
    cloudwatch,
    listed,
    moto_server,
    values_of,
)
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import RunningSimulator, simulator
from vendor_assets_tests.support.truth import Rows, harvested_rows

DAY = datetime.now(UTC).date() - timedelta(days=2)
"""Signatures have the real date, so the vendor's clock is the real one."""
HARVEST = ("harvest", "--no-report", "--json", "--day")


def command(folder: Path, url: str, **environ: str) -> Command:
    settings = {
        "VENDOR_KIND": "cloudwatch",
        "VENDOR_URL": url,
        "VENDOR_API_KEY": ACCESS_KEY,
        "VENDOR_APPLICATION_KEY": SECRET_KEY,
        "VENDOR_HEADERS": "X-Amz-Security-Token=session/token+==",
        "VENDOR_OPTIONS": f"region={REGION}",
        "VENDOR_SHARE": "1",
    }
    return Command(folder, settings | environ)


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningSimulator]:
    with simulator(world="small", seed=23, api_key=ACCESS_KEY, application_key=SECRET_KEY) as running:
        yield running


@pytest.fixture
def vendor(shared: RunningSimulator) -> RunningSimulator:
    """A vendor without faults and without a past."""
    shared.reset()
    return shared


def harvest(folder: Path, url: str, day: date = DAY, **environ: str) -> Rows:
    """Harvest the day completely; returns its rows."""
    finished = command(folder, url, **environ).run(*HARVEST, day.isoformat())
    assert finished.code == 0, finished.out + finished.err
    return harvested_rows(FolderStore(folder / "data"), day, left_out=True)


def truth(
    client: Any,
    day: date,
    zone: str = "UTC",
    resolution: int = 1800,
    statistics: tuple[str, ...] = STATISTICS,
) -> Values:
    """What boto3 reads of the day: the timeslices that start in it, which lie on multiples of their length in UTC."""
    start, end = (
        datetime.combine(each, time(), ZoneInfo(zone)).timestamp() for each in (day, day + timedelta(days=1))
    )
    first, last = (int(-(-edge // resolution) * resolution) for edge in (start, end))
    edges = (datetime.fromtimestamp(edge, UTC) for edge in (first, last))
    return values_of(client, listed(client), *edges, resolution, statistics)


def plain(rows: Rows, resolution: int) -> Values:
    """Harvested rows as boto3 has them."""
    assert {row[5] - row[4] for row in rows} == {timedelta(seconds=resolution)}
    return {row[:5]: value for row, value in rows.items() if value is not None}


@pytest.mark.parametrize(("zone", "resolution"), [("UTC", 1800), ("Asia/Kathmandu", 600)])
def test_a_day_is_what_boto3_reads(
    tmp_path: Path, vendor: RunningSimulator, zone: str, resolution: int
) -> None:
    """Every value of every metric is there, also where the day begins within a timeslice; a second run asks nothing."""
    settings = {"VENDOR_ASSETS_TIMEZONE": zone, "VENDOR_ASSETS_RESOLUTION": str(resolution)}
    found = harvest(tmp_path, vendor.url, **settings)
    calls, violations = vendor.calls(), vendor.log()["violations"]
    assert plain(found, resolution) == truth(cloudwatch(vendor.url), DAY, zone, resolution)
    assert found
    assert violations == 0
    troops = len({row[0] for row in found})
    assert calls < 6 * troops + 10
    assert command(tmp_path, vendor.url, **settings).run(*HARVEST, DAY.isoformat()).json["calls_made"] == 0


HOURLY = {"VENDOR_ASSETS_VALUES": "Average", "VENDOR_ASSETS_RESOLUTION": "3600"}


def hourly(client: Any) -> Values:
    return truth(client, DAY, "UTC", 3600, ("Average",))


def test_an_answer_that_is_not_whole_is_asked_for_again(tmp_path: Path, vendor: RunningSimulator) -> None:
    """What a call leaves out, puts off to another page or answers in another order is in the table all the same."""
    kinds = ("shuffled", "early_page", "internal_error", "partial_data", "message")
    vendor.faults([{"kind": kind, "match": "GetMetricData", "count": 1} for kind in kinds])
    found = harvest(tmp_path, vendor.url, **HOURLY)
    assert vendor.log()["faults"] == dict.fromkeys(kinds, 1)
    assert plain(found, 3600) == hourly(cloudwatch(vendor.url))


def test_what_stays_forbidden_is_a_dead_letter(tmp_path: Path, vendor: RunningSimulator) -> None:
    """The metrics that are refused are told in Amazon's word; nothing is complete without them."""
    vendor.faults([{"kind": "forbidden", "match": "GetMetricData"}])
    finished = command(tmp_path, vendor.url, **HOURLY).run(*HARVEST, DAY.isoformat())
    assert finished.code != 0
    assert "Forbidden" in finished.out + finished.err
    assert not finished.json["complete"]
    vendor.clear_faults()
    assert plain(harvest(tmp_path, vendor.url, **HOURLY), 3600) == hourly(cloudwatch(vendor.url))


def test_known_limits_are_never_met(tmp_path: Path) -> None:
    """Of calls of either kind, and of points: a harvest that knows them is refused nothing."""
    rules = ["list_metrics=8", "get_metric_data=4", "datapoints=20000", "page=50", "page_datapoints=5000"]
    with simulator(seed=23, api_key=ACCESS_KEY, application_key=SECRET_KEY, cloudwatch=rules) as vendor:
        rate = "8/s for list_metrics,4/s for get_metric_data,20000 points/s"
        found = harvest(tmp_path, vendor.url, VENDOR_RATE=rate, **HOURLY)
        assert vendor.log()["violations"] == 0
        vendor.control(
            "POST", "cloudwatch", {"list_metrics": 1000, "get_metric_data": 1000, "datapoints": 10**7}
        )
        assert plain(found, 3600) == hourly(cloudwatch(vendor.url))


def test_throttles_are_waited_for(tmp_path: Path, vendor: RunningSimulator) -> None:
    """A 400 that says so is none of the request: it is asked again, and the day is whole."""
    vendor.faults(
        [{"kind": "throttle", "match": operation, "count": 1} for operation in ("List", "GetMetricData")]
    )
    found = harvest(tmp_path, vendor.url, **HOURLY)
    assert (vendor.log()["faults"], vendor.log()["violations"]) == ({"throttle": 2}, 2)
    assert plain(found, 3600) == hourly(cloudwatch(vendor.url))


@pytest.mark.parametrize(
    ("change", "skew", "said"),
    [
        ({"VENDOR_APPLICATION_KEY": "wrong"}, 0, "does not match"),
        ({}, 3600, "Signature expired"),
        ({"VENDOR_OPTIONS": ""}, 0, "VENDOR_OPTIONS=region="),
    ],
)
def test_a_signature_that_is_refused_ends_the_run(
    tmp_path: Path, vendor: RunningSimulator, change: dict[str, str], skew: int, said: str
) -> None:
    """A wrong secret, clock or region costs one call at most, and is told in one line."""
    vendor.faults([{"kind": "clock_skew", "seconds": skew}] if skew else [])
    finished = command(tmp_path, vendor.url, **change).run(*HARVEST, DAY.isoformat())
    assert finished.code != 0
    assert said in finished.out + finished.err
    assert vendor.calls() <= 1
    assert SECRET_KEY not in finished.out + finished.err


def test_a_day_on_moto_is_what_boto3_reads(tmp_path: Path) -> None:
    """Amazon's service as others understood it: namespaces, odd dimensions and none, and each statistic."""
    with moto_server() as url:
        client = cloudwatch(url)
        noon = datetime.combine(DAY, time(12), UTC)
        kinds: list[dict[str, str]] = [{"InstanceId": "i-1"}, {"InstanceId": "i-2", "Name": "a,b=c %2C"}, {}]
        for namespace in ("AWS/EC2", "My App"):
            data = [
                {
                    "MetricName": f"{name}{number}",
                    "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
                    "Timestamp": noon + timedelta(minutes=17 * minute),
                    "Value": number + minute / 8,
                }
                for number, dimensions in enumerate(kinds)
                for name in ("CPUUtilization", "Queue/depth")
                for minute in range(-20, 20)
            ]
            client.put_metric_data(Namespace=namespace, MetricData=data)
        found = harvest(tmp_path, url)
        expected = truth(client, DAY)
    renamed = {"InstanceId=i-2,Name=a,b=c %2C": "InstanceId=i-2,Name=a%2Cb%3Dc %252C"}
    assert plain(found, 1800) == {
        (of[0], renamed.get(of[1], of[1]), *of[2:]): value for of, value in expected.items()
    }
    assert len({row[:3] for row in found}) == 2 * 2 * len(kinds)
    store = FolderStore(tmp_path / "data")
    troops = read_table(store, layout.table_key("troops", DAY)).column("troop_key").to_pylist()
    warriors = read_table(store, layout.table_key("warriors", DAY, min(troops)))
    assert warriors.column("name").to_pylist() == ["(no dimensions)", "i-1", "i-2 a,b=c %2C"]
