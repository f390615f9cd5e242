"""Starts a real Prometheus with a node exporter, and gives it whole past days made of the exporter's own output."""

from __future__ import annotations

import json
import math
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlencode

from vendor_assets_tests.support.programs import free_port, read, require, running

ODD_JOB = 'odd|job, "x"\\d {y}'
"""A job whose name needs every kind of escaping."""

JOBS = {"node": ("web-1:9100", "web-2:9100", "gone-early:9100"), ODD_JOB: ("../one\n'two'",)}
"""Jobs and their instances. ``gone-early:9100`` has data on the first day only."""

WIDE = ("wide", "busy:9100", "requests_total")
"""Job, instance and metric of thousands of series, where they are asked for; each lives for two hours of a day."""

HISTOGRAM = ("api", "api:1", "request_seconds")
"""Job, instance and name of a classic histogram, with its buckets, sum and count."""

LOOSE = (
    ('slow_total{job="slow",instance="slow:1"}', 600),
    ('job:rate5m{job="slow"}', 600),
    ("duration_count", 1200),
    ('cluster_cpu_ratio{kind="all"}', 240),
    ('no_job{instance="alone:1"}', 240),
)
"""Series that are scraped seldom, or that have no job, no instance or neither, and the seconds between two samples."""

COLLECTORS = ("cpu", "meminfo", "loadavg", "netdev", "stat")

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")


@dataclass(frozen=True)
class RunningPrometheus:
    """A running server.

    Args:
        url: Where it listens.
        exporter_url: Where the node exporter that it scrapes listens.
        days: The whole past days in UTC that it has data of.
        every_seconds: Time between two samples of these days.
        stop: Ends the server; its data stay.
        restart: Starts it again with the same data and port, and waits until it is ready.
    """

    url: str
    exporter_url: str
    days: tuple[date, ...]
    every_seconds: int
    stop: Callable[[], None]
    restart: Callable[[], None]

    def get(self, path: str, *params: tuple[str, str]) -> Any:
        """Ask the API directly; returns the answer's data."""
        return json.loads(read(f"{self.url}{path}?{urlencode(params)}"))["data"]


def require_prometheus() -> None:
    """Skip the test where the programs are not installed; in CI fail it."""
    require(
        "prometheus", "promtool", "prometheus-node-exporter", packages="prometheus prometheus-node-exporter"
    )


@contextmanager
def prometheus(
    *, days: int = 2, every_seconds: int = 240, wide_series: int = 0
) -> Iterator[RunningPrometheus]:
    """Run the server and the exporter on free ports of 127.0.0.1 while the block lasts.

    The past days are whole days in UTC up to yesterday. Their samples are those of one scrape, varied by a rule, so
    that each value differs from its neighbours.

    Args:
        days: How many past days.
        every_seconds: Time between two samples; below five minutes, so that each instant query finds one.
        wide_series: How many series the last day has of the one metric in ``WIDE``.

    Raises:
        RuntimeError: A program did not start; the message holds what it wrote.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prometheus-")))
        exporter_port, port = free_port(), free_port()
        exporter_url, url = f"http://127.0.0.1:{exporter_port}", f"http://127.0.0.1:{port}"
        command = ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{exporter_port}"]
        command += ["--collector.disable-defaults", *(f"--collector.{name}" for name in COLLECTORS)]
        stack.enter_context(running(command, folder / "exporter.log", f"{exporter_url}/metrics"))

        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        scraped = read(f"{exporter_url}/metrics").decode()
        first = today - timedelta(days=days)
        with (folder / "past.om").open("w") as sink:
            _write_day_long(sink, scraped, int(first.timestamp()), days, every_seconds)
            _write_loose(sink, int(first.timestamp()), days)
            _write_histogram(sink, int(first.timestamp()), days, every_seconds)
            last = int(first.timestamp()) + (days - 1) * 86_400
            _write_wide(sink, wide_series, last, every_seconds)
            sink.write("# EOF\n")
        (folder / "data").mkdir()
        blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "past.om", "data"]
        made = subprocess.run(blocks, cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"promtool could not make blocks: {made.stdout}{made.stderr}")

        scrape = {"job_name": "live", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]}
        # JSON is YAML.
        config = {"global": {"scrape_interval": "5s", "scrape_timeout": "5s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        command = [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            "--log.level=warn",
        ]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=30d"]
        process = ExitStack()
        stack.push(lambda *_: process.close())
        serve = partial(running, command, folder / "prometheus.log", f"{url}/-/ready")

        def restart() -> None:
            process.close()
            process.enter_context(serve())

        restart()
        past = tuple((first + timedelta(days=number)).date() for number in range(days))
        yield RunningPrometheus(url, exporter_url, past, every_seconds, process.close, restart)


def _write_day_long(sink: TextIO, scraped: str, first: int, days: int, every_seconds: int) -> None:
    """One scrape as OpenMetrics over whole days, for each job and instance, with ``up`` and some odd values."""
    samples = [found.groups("") for line in scraped.splitlines() if (found := _SAMPLE.match(line))]
    samples += [
        ("up", "", "1"),
        ("odd_values", 'kind="nan"', "NaN"),
        ("odd_values", 'kind="infinite"', "+Inf"),
    ]
    samples += [("odd_values", 'kind="text",text="a\\"b\\\\c\\nd"', "-0.5")]
    for job, instances in JOBS.items():
        for place, instance in enumerate(instances):
            identity = f'job="{_escaped(job)}",instance="{_escaped(instance)}"'
            length = 1 if instance.startswith("gone-early") else days
            for number, (name, labels, text) in enumerate(samples):
                series = f"{name}{{{identity}{',' if labels else ''}{labels}}}"
                value = float(text)
                for step in range(length * 86_400 // every_seconds):
                    now = (
                        value
                        if not math.isfinite(value) or name == "up"
                        else _varied(value, place, number, step)
                    )
                    sink.write(
                        f"{series} {now!r} {first + step * every_seconds}\n".replace(" inf ", " +Inf ")
                    )


def _write_loose(sink: TextIO, first: int, days: int) -> None:
    """The series in ``LOOSE`` over whole days."""
    for number, (series, every_seconds) in enumerate(LOOSE):
        for step in range(days * 86_400 // every_seconds):
            # Not at the edge of a timeslice.
            at = first + 7 + step * every_seconds
            sink.write(f"{series} {_varied(number, 0, number, step)!r} {at}\n")


def _write_histogram(sink: TextIO, first: int, days: int, every_seconds: int) -> None:
    """A histogram that is observed at a rate that varies, and starts from nothing once a day."""
    job, instance, name = HISTOGRAM
    parts = {
        '_bucket{le="0.1",': 1,
        '_bucket{le="1",': 3,
        '_bucket{le="+Inf",': 4,
        "_count{": 4,
        "_sum{": 2.5,
    }
    for part, weight in parts.items():
        for step in range(days * 86_400 // every_seconds):
            since = step % (86_400 // every_seconds)
            value = weight * (since * 100 + round(900 * math.sin(since / 30)))
            labels = f'job="{job}",instance="{instance}"}}'
            sink.write(f"{name}{part}{labels} {value!r} {first + step * every_seconds}\n")


def _write_wide(sink: TextIO, series: int, day: int, every_seconds: int) -> None:
    """One metric of many series, spread over the day."""
    job, instance, metric = WIDE
    for number in range(series):
        start = day + number % 11 * 7200
        for step in range(7200 // every_seconds):
            labels = f'job="{job}",instance="{instance}",path="/{number}"'
            sink.write(
                f"{metric}{{{labels}}} {_varied(number, 0, number, step)!r} {start + step * every_seconds}\n"
            )


def _varied(value: float, place: int, number: int, step: int) -> float:
    return value * (1 + 0.01 * place) + math.sin(step / 50 + number) + step / 1000


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
