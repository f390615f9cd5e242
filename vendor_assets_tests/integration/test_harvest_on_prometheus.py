"""Real input: the whole chain against a real Prometheus with a node exporter, every value held against it."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from pathlib import Path

from vendor_assets.storage.objects import FolderStore
from vendor_assets.vendors.prometheus import canonical
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.nginx import nginx
from vendor_assets_tests.support.prometheus import RunningPrometheus, prometheus, require_prometheus
from vendor_assets_tests.support.truth import Rows, harvested_rows

RESOLUTION = 1800
RATE = 20


def direct_rows(server: RunningPrometheus, day: date) -> Rows:
    """Every value of a day from one plain query per metric, by the table's grain without the data group."""
    start = datetime.combine(day, time.min, UTC).timestamp()
    window = (("start", str(start)), ("end", str(start + 86_400 - RESOLUTION)))
    found: Rows = {}
    for name in server.get(
        "/api/v1/label/__name__/values", ("start", str(start)), ("end", str(start + 86_399))
    ):
        answer = server.get("/api/v1/query_range", ("query", name), *window, ("step", str(RESOLUTION)))
        for series in answer["result"]:
            labels = series["metric"]
            named = {key: text for key, text in labels.items() if key not in ("__name__", "job", "instance")}
            value_name = name + canonical(named)
            for at, text in series["values"]:
                value = float(text)
                key = (labels["job"], labels["instance"], value_name, datetime.fromtimestamp(at, UTC))
                found[key] = None if math.isnan(value) else value
    return found


def test_every_harvested_value_is_what_prometheus_says(tmp_path: Path) -> None:
    """Whole past days behind a strict judge of our pace: nothing refused, every value as a direct query says."""
    require_prometheus()
    with prometheus() as server, nginx(server.url, rate=RATE) as judge:
        settings = {"VENDOR_KIND": "prometheus", "VENDOR_URL": judge.url, "VENDOR_RATE": f"{RATE}/s"}
        running = Command(tmp_path, settings)
        finished = running.run(
            "harvest", "--from", str(server.days[0]), "--to", str(server.days[-1]), "--json"
        )
        assert finished.code == 0, finished.out + finished.err
        statuses = judge.statuses()
        assert set(statuses) == {200}
        assert len(statuses) == finished.json["calls_made"]
        store = FolderStore(tmp_path / "data")
        for day in server.days:
            harvested = {
                (troop, warrior, value_name, start): value
                for (troop, warrior, _, value_name, start, _), value in harvested_rows(store, day).items()
            }
            assert harvested
            assert harvested == direct_rows(server, day)
