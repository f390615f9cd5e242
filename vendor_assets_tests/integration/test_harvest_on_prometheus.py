"""Real input: the whole chain against a real Prometheus with a node exporter, every value held against it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets.vendors.prometheus import COUNTERS
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.gateway import PASSWORD, TENANT, USER, gateway
from vendor_assets_tests.support.nginx import nginx
from vendor_assets_tests.support.prometheus import WIDE, RunningPrometheus, prometheus, require_prometheus
from vendor_assets_tests.support.prometheus_truth import direct_rows, values_of

RATE = 20
SERIES = 3000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningPrometheus]:
    """One server for all tests of this module."""
    require_prometheus()
    with prometheus(wide_series=SERIES) as running:
        yield running


def test_every_harvested_value_is_what_prometheus_says(tmp_path: Path, server: RunningPrometheus) -> None:
    """Whole past days behind a strict judge of our pace, all of it ours: none refused, values as queried directly."""
    with nginx(server.url, rate=RATE) as judge:
        settings = {
            "VENDOR_KIND": "prometheus",
            "VENDOR_URL": judge.url,
            "VENDOR_RATE": f"{RATE}/s",
            "VENDOR_SHARE": "1",
        }
        first, last = str(server.days[0]), str(server.days[-1])
        finished = Command(tmp_path, settings).run("harvest", "--from", first, "--to", last, "--json")
        assert finished.code == 0, finished.out + finished.err
        statuses = judge.statuses()
        assert set(statuses) == {200}
        assert len(statuses) == finished.json["calls_made"]
    for day in server.days:
        harvested = values_of(FolderStore(tmp_path / "data"), day)
        assert harvested
        assert harvested == direct_rows(server, day)
    wide = {(troop, warrior) for troop, warrior, name, _ in harvested if name.startswith(WIDE[2])}
    assert wide == {WIDE[:2]}
    assert len({name for _, _, name, _ in harvested if name.startswith(WIDE[2])}) == SERIES


KATHMANDU = {"VENDOR_ASSETS_TIMEZONE": "Asia/Kathmandu", "VENDOR_ASSETS_RESOLUTION": "600"}


@pytest.mark.parametrize(("place", "only"), [("prometheus", ""), ("readonly", "node")])
def test_every_value_through_a_front_like_mimirs(
    tmp_path: Path, server: RunningPrometheus, place: str, only: str
) -> None:
    """A prefix, a login, a tenant and a CA: values of an unaligned day, computed ones too, are as queried directly.

    Where the front takes GET requests only, none is posted.
    """
    with gateway(server.url) as front:
        options = "counters=rate,histograms=0.5 0.99"
        settings = {
            "VENDOR_KIND": "prometheus",
            "VENDOR_URL": f"{front.tenant}/{place}",
            "VENDOR_CA_BUNDLE": str(front.folder / "ca.pem"),
            "VENDOR_USER": USER,
            "VENDOR_PASSWORD": PASSWORD,
            "VENDOR_HEADERS": f"X-Scope-OrgID={TENANT}",
            "VENDOR_OPTIONS": options if place == "prometheus" else f"{options},post=false",
            "VENDOR_RATE": "1000/s",
            "VENDOR_SHARE": "1",
        }
        day = server.days[-1]
        arguments = ["--no-report", "--day", day.isoformat(), *(["--troop", only] if only else [])]
        finished = Command(tmp_path, settings | KATHMANDU).run("harvest", *arguments, "--json")
        assert finished.code == 0, finished.out + finished.err
        heard = front.heard(0, finished.json["calls_made"])
    assert {(status, tenant, user) for status, _, tenant, user, *_ in heard} == {("200", TENANT, USER)}
    queries = [method for *_, method, path in heard if path.endswith("/query_range")]
    assert {"GET", "POST"} - set(queries) == ({"POST"} if place == "readonly" else set())
    harvested = values_of(FolderStore(tmp_path / "data"), day, left_out=bool(only))
    direct = direct_rows(
        server, day, zone="Asia/Kathmandu", resolution=600, rates=COUNTERS[:3], quantiles=("0.5", "0.99")
    )
    assert harvested == {key: value for key, value in direct.items() if key[0] == only or not only}
    names = {name for _, _, name, _ in harvested}
    assert any(name.startswith("rate(node_cpu_seconds_total{") for name in names)
    assert only or {"histogram_quantile(0.99, request_seconds)", "rate(request_seconds_sum)"} <= names


@pytest.mark.long
def test_a_server_restarted_in_the_middle_loses_nothing(tmp_path: Path, server: RunningPrometheus) -> None:
    """While the server is away the harvest waits and asks again; nothing becomes a dead letter."""
    day = server.days[-1]
    with nginx(server.url, rate=1000) as passage:
        settings = {
            "VENDOR_KIND": "prometheus",
            "VENDOR_URL": passage.url,
            "VENDOR_RATE": "3/s",
            "VENDOR_SHARE": "1",
        }
        process = Command(tmp_path, settings).start(
            "harvest", "--no-report", "--day", day.isoformat(), "--json"
        )
        while passage.statuses().count(200) < 6 and process.poll() is None:
            signal.sigtimedwait([], 0.1)
        server.stop()
        while passage.statuses().count(502) < 1 and process.poll() is None:
            signal.sigtimedwait([], 0.1)
        server.restart()
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
    assert values_of(FolderStore(tmp_path / "data"), day) == direct_rows(server, day)
