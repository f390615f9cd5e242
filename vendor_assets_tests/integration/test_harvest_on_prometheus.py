"""Real input: the whole chain against a real Prometheus with a node exporter, every value held against it."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest

from vendor_assets.storage.folder import FolderStore
from vendor_assets.vendors.prometheus import canonical
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.nginx import nginx
from vendor_assets_tests.support.prometheus import WIDE, RunningPrometheus, prometheus, require_prometheus
from vendor_assets_tests.support.truth import Rows, harvested_rows

RESOLUTION = 1800
RATE = 20
SERIES = 3000


def direct_rows(server: RunningPrometheus, day: date) -> Rows:
    """Every value of a day from the raw samples of each metric, by the table's grain without the data group."""
    start = int(datetime.combine(day, time.min, UTC).timestamp())
    found: Rows = {}
    for name in server.get(
        "/api/v1/label/__name__/values", ("start", str(start)), ("end", str(start + 86_399))
    ):
        query = (("query", f"{name}[86399s]"), ("time", str(start + 86_399)))
        for series in server.get("/api/v1/query", *query)["result"]:
            labels = series["metric"]
            named = {key: text for key, text in labels.items() if key not in ("__name__", "job", "instance")}
            value_name = name + canonical(named)
            for at, text in series["values"]:
                value = float(text)
                begin = datetime.fromtimestamp(start + (at - start) // RESOLUTION * RESOLUTION, UTC)
                key = (labels.get("job", ""), labels.get("instance", ""), value_name, begin)
                # Samples come in order: the newest of a timeslice is the last.
                found[key] = None if math.isnan(value) else value
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[RunningPrometheus]:
    """One server for all tests of this module."""
    require_prometheus()
    with prometheus(wide_series=SERIES) as running:
        yield running


def values_of(store: FolderStore, day: date) -> Rows:
    """Harvested rows of a day by the table's grain without the data group and the end."""
    return {
        (troop, warrior, value_name, start): value
        for (troop, warrior, _, value_name, start, _), value in harvested_rows(store, day).items()
    }


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
