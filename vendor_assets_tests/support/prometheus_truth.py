"""Compares what was harvested with what a Prometheus, or a server that speaks like it, says when asked directly."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from vendor_assets.storage.objects import ObjectStore
from vendor_assets.vendors.prometheus import canonical
from vendor_assets_tests.support.truth import Rows, harvested_rows

RESOLUTION = 1800


class Server(Protocol):
    """Whoever can be asked directly."""

    def get(self, path: str, *params: tuple[str, str]) -> Any:
        """Ask the API; returns the answer's data."""


def direct_rows(
    server: Server,
    day: date,
    *,
    zone: str = "UTC",
    resolution: int = RESOLUTION,
    rates: tuple[str, ...] = (),
    quantiles: tuple[str, ...] = (),
) -> Rows:
    """Every value of a day, asked one metric at a time, by the table's grain without the data group.

    The newest sample of a timeslice is found among raw samples.

    Args:
        rates: How the names of metrics end that are rates.
        quantiles: What takes the place of ``_bucket``.
    """
    start = int(datetime.combine(day, time.min, ZoneInfo(zone)).timestamp())
    found: Rows = {}
    edges = (("start", str(start)), ("end", str(start + 86_399)))
    for name in server.get("/api/v1/label/__name__/values", *edges):
        rate = f"rate({name}[{resolution}s] offset 1ms)"
        if quantiles and name.endswith("_bucket"):
            histogram = name.removesuffix("_bucket")
            for each in quantiles:
                query = f"histogram_quantile({each}, {rate})"
                found |= _over(server, query, start, resolution, f"histogram_quantile({each}, {histogram}%s)")
        elif rates and name.endswith(rates):
            found |= _over(server, rate, start, resolution, f"rate({name}%s)")
        else:
            samples = (("query", f"{name}[1d]"), ("time", f"{start + 86_399}.999"))
            for series in server.get("/api/v1/query", *samples)["result"]:
                place = _place(series, f"{name}%s")
                for at, text in series["values"]:
                    begin = start + math.floor((at - start) / resolution) * resolution
                    # Samples come in order: the newest of a timeslice is the last.
                    if begin >= start:
                        found[(*place, datetime.fromtimestamp(begin, UTC))] = _value(text)
    return found


def _over(server: Server, query: str, start: int, resolution: int, value_name: str) -> Rows:
    times = {"start": start + resolution, "end": start + 86_400, "step": resolution, "nocache": 1}
    params = [(name, str(number)) for name, number in times.items()]
    found: Rows = {}
    for series in server.get("/api/v1/query_range", ("query", query), *params)["result"]:
        place = _place(series, value_name)
        for at, text in series["values"]:
            found[(*place, datetime.fromtimestamp(at - resolution, UTC))] = _value(text)
    return found


def _place(series: Any, value_name: str) -> tuple[str, str, str]:
    labels = series["metric"]
    named = {key: text for key, text in labels.items() if key not in ("__name__", "job", "instance")}
    return labels.get("job", ""), labels.get("instance", ""), value_name % canonical(named)


def _value(text: str) -> float | None:
    return None if math.isnan(value := float(text)) else value


def values_of(store: ObjectStore, day: date, *, left_out: bool = False) -> Rows:
    """Harvested rows of a day by the table's grain without the data group and the end; troops may be left out."""
    return {
        (troop, warrior, value_name, start): value
        for (troop, warrior, _, value_name, start, _), value in harvested_rows(
            store, day, left_out=left_out
        ).items()
    }
