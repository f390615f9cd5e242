"""Compares what was harvested with what a Prometheus says when it is asked directly."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time

from vendor_assets.storage.objects import ObjectStore
from vendor_assets.vendors.prometheus import canonical
from vendor_assets_tests.support.prometheus import RunningPrometheus
from vendor_assets_tests.support.truth import Rows, harvested_rows

RESOLUTION = 1800


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


def values_of(store: ObjectStore, day: date) -> Rows:
    """Harvested rows of a day by the table's grain without the data group and the end."""
    return {
        (troop, warrior, value_name, start): value
        for (troop, warrior, _, value_name, start, _), value in harvested_rows(store, day).items()
    }
