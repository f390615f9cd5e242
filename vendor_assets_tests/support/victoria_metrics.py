"""Starts a real VictoriaMetrics, and gives it samples that are known."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from vendor_assets.vendors.prometheus import canonical
from vendor_assets_tests.support.programs import free_port, read, require, running


@dataclass(frozen=True)
class Series:
    """A series and its samples.

    Args:
        metric: Its name.
        labels: Its other labels.
        samples: Milliseconds since the epoch and value, in order.
    """

    metric: str
    labels: dict[str, str]
    samples: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class RunningVictoriaMetrics:
    """A running server.

    Args:
        url: Where it listens.
    """

    url: str

    def get(self, path: str, *params: tuple[str, str]) -> Any:
        """Ask the API directly; returns the answer's data."""
        return json.loads(read(f"{self.url}{path}?{urlencode(params)}"))["data"]

    def push(self, pushed: Iterable[Series]) -> None:
        """Import samples, in the text format with times; they are found from then on."""
        lines = [
            f"{series.metric}{canonical(series.labels)} {value!r} {at}".replace(" inf ", " +Inf ")
            for series in pushed
            for at, value in series.samples
        ]
        read(f"{self.url}/api/v1/import/prometheus", "\n".join(lines).encode())
        read(f"{self.url}/internal/force_flush")

    def raw(self, selector: str, start: int, end: int) -> list[Series]:
        """Its samples as they are, from and to milliseconds that are included, by ``/api/v1/export``.

        Source: https://docs.victoriametrics.com/victoriametrics/#how-to-export-data-in-json-line-format.
        """
        params = (("match[]", selector), ("start", f"{start / 1000:.3f}"), ("end", f"{end / 1000:.3f}"))
        exported = []
        for line in read(f"{self.url}/api/v1/export?{urlencode(params)}").decode().splitlines():
            # It writes infinities without quotes.
            told = json.loads(line.replace("+Inf", "Infinity"))
            labels = told["metric"]
            samples = zip(told["timestamps"], map(float, told["values"]), strict=True)
            exported.append(Series(labels.pop("__name__"), labels, tuple(samples)))
        return exported


@contextmanager
def victoria_metrics() -> Iterator[RunningVictoriaMetrics]:
    """Run it on a free port of 127.0.0.1 while the block lasts; skip where it is not installed, and fail in CI.

    Raises:
        RuntimeError: It did not start; the message holds what it wrote.
    """
    require("victoria-metrics", packages="victoria-metrics")
    with tempfile.TemporaryDirectory(prefix="victoria-metrics-") as name:
        folder, port = Path(name), free_port()
        command = ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}", "-storageDataPath=data"]
        command += ["-retentionPeriod=1y", "-memory.allowedBytes=256MB", "-loggerLevel=ERROR"]
        with running(command, folder / "log", f"http://127.0.0.1:{port}/health"):
            yield RunningVictoriaMetrics(f"http://127.0.0.1:{port}")
