"""Where the CPU time of a row and of a call goes, from an answer's bytes to the Parquet table, stage by stage.

    python -m benchmarks.profile [answers …]

Answers of some 10,000 rows in the REST API v2's form, made by the embedded vendor's world, go through the code of a
harvest: judged on arrival, landed, read back, parsed, made Arrow, sorted, written. Beside it stands the floor: what
msgspec, numpy and pyarrow alone need for a table of the same rows, in the same run. Of each dialect, answers of one
series and of many are judged and parsed into columns; beside it stands what msgspec alone needs for the JSON. A call is
a small list, asked of the embedded vendor within a budget on SQLite. All figures are CPU time of this process, its
threads included. Wanted: at most 1.5 µs a row in all stages but those of the landing zone; of each dialect's larger
answers 0.3 µs to judge and 1.5 to parse.
"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import answers
from benchmarks.process import measured_by
from vendor_assets.budget import Budget, Limit
from vendor_assets.client import VendorClient
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.harvest.landing import Landed, Lander, read_bodies
from vendor_assets.harvest.tabulate import _inside, to_batch
from vendor_assets.harvest.verdict import verdict
from vendor_assets.simulator.dialect import Dialect
from vendor_assets.simulator.world import World
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import TableWriter
from vendor_assets.storage.sorting import NewestRows
from vendor_assets.tables import PERFORMANCE_DATA
from vendor_assets.vendors.base import DataGroup, PlannedRequest, Response
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets_tests.support.simulator import KEY, simulator

ANSWERS = (5, 100)
"""A partition that is sorted in memory and one that is not."""
SERIES = (1, 90)
"""Of a dialect's answer, each of 144 points."""
CALLS = 500
WANTED = 1.5
JUDGE_WANTED = 0.3
LANDING = ("land", "read back")
ARRIVAL = ("judge on arrival", "land")
"""What a rebuild does not do again."""
STAGES = ("judge on arrival", "land", "read back", "parse", "to Arrow", "sort", "write Parquet")
FLOOR = ("parse", "to Arrow", "sort", "write Parquet")

_DAY = day_window(date(2026, 11, 20), parse_time_zone("UTC"))
_NOW = _DAY.end + timedelta(hours=12)
_VENDOR = NewRelic(clock=lambda: _NOW)
_TROOP = "200000000"

Answer = tuple[PlannedRequest, Response]
T = TypeVar("T")


class Stages:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count what is done inside for a stage, but for what is counted for others."""
        began, outer = time.process_time(), self._inner
        self._inner = 0.0
        yield
        spent = time.process_time() - began
        self.seconds[stage] += spent - self._inner
        self._inner = outer + spent

    def each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Count the making of each item for a stage."""
        iterator = iter(items)
        while True:
            with self.of(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item


def make_answers(count: int) -> list[Answer]:
    """Answers of 20 metrics by ten minutes."""
    world = World.preset("small", troops=1, warriors=count // 3 + 1, data_groups=60, churn=False)
    dialect = Dialect(world)
    found: list[Answer] = []
    (troop,) = world.troops(_DAY.start.timestamp())
    for warrior in world.warriors(troop.id, _DAY.start.timestamp()):
        groups = [DataGroup(group.name, group.value_names) for group in world.data_groups(warrior.id)]
        for planned in _VENDOR.performance_data(troop.id, warrior.id, groups, _DAY, 600):
            if len(planned.leaves) >= 18 and len(found) < count:
                target = f"{planned.request.path}?{urlencode(planned.request.params)}"
                body = dialect.reply(target, _NOW.timestamp()).body
                found.append((planned, Response(200, {"content-type": "application/json"}, body, _NOW)))
    return found


def harvest(answers: list[Answer], stages: Stages) -> int:
    """Take answers the way that a harvest takes them; returns the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        lander = Lander(store, lambda number: f"landing/{number:06d}.parquet", wait=lambda _: False)
        for planned, response in answers:
            with stages.of("judge on arrival"):
                parsed = verdict(_VENDOR, "performance_data", planned, planned.request, response)
            with stages.of("land"):
                at = ("performance_data", _TROOP, planned, 1, planned.request)
                lander.add(Landed(*at, parsed.next, response))
        with stages.of("land"):
            lander.flush(final=True)
        index = lander.index
        bodies = read_bodies(store, index)
        with NewestRows(PERFORMANCE_DATA) as rows:
            for order in range(len(index)):
                with stages.of("read back"):
                    _, planned, response = next(bodies)
                with stages.of("parse"):
                    parsed = _VENDOR.parse("performance_data", planned, response)
                with stages.of("to Arrow"):
                    batch = to_batch(PERFORMANCE_DATA, _TROOP, [parsed], [_NOW])
                    assert _inside(batch, _DAY).all()
                with stages.of("sort"):
                    rows.add(batch, order)
            with stages.of("sort"):
                rows.sort()
            with (
                stages.of("write Parquet"),
                TableWriter(store, "table.parquet", PERFORMANCE_DATA, in_order=True) as writer,
            ):
                for batch in stages.each("sort", rows.batches()):
                    writer.write(batch)
        return writer.rows


class _Slice(msgspec.Struct, gc=False):
    start: str = msgspec.field(name="from")
    values: dict[str, float | None]


class _Metric(msgspec.Struct):
    name: str
    timeslices: list[_Slice]


class _Metrics(msgspec.Struct):
    metrics: list[_Metric]


class _Answer(msgspec.Struct):
    metric_data: _Metrics


def floor(answers: Iterable[Answer], stages: Stages) -> int:
    """A table of the same rows by the libraries alone, which trust the answers; returns its rows."""
    read = msgspec.json.Decoder(_Answer).decode
    times: dict[str, int] = {}
    ranks: dict[tuple[str, str, str], int] = {}
    series: list[Any] = []
    starts: list[Any] = []
    columns: list[Any] = []
    for planned, response in answers:
        with stages.of("parse"):
            numbers: list[float | None] = []
            for metric in read(response.body).metric_data.metrics:
                slices = metric.timeslices
                names = list(slices[0].values)
                numbers += chain.from_iterable([each.values.values() for each in slices])
                edges = [times.setdefault(each.start, len(times)) for each in slices]
                keys = [(planned.leaves[0].warrior_id, metric.name, name) for name in names]
                codes = [ranks.setdefault(key, len(ranks)) for key in keys]
                starts.append(np.repeat(edges, len(names)))
                series.append(np.tile(codes, len(slices)))
        with stages.of("to Arrow"):
            columns.append(pa.array(numbers, pa.float64()))
    with stages.of("sort"):
        keys = list(ranks)
        order = np.empty(len(keys), np.int64)
        order[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
        begins = [int(datetime.fromisoformat(text).timestamp()) * 1_000_000 for text in times]
        start = np.array(begins)[np.concatenate(starts)]
        packed = order[np.concatenate(series)] << 32 | (start - start.min()) // 1_000_000
        places = pa.array(np.argsort(packed))
    with stages.of("to Arrow"):
        code = pa.array(np.concatenate(series).astype(np.int32)).take(places)
        texts = [pa.DictionaryArray.from_arrays(code, pa.array(each)) for each in zip(*keys, strict=True)]
        moments = pa.array(start).take(places).cast(pa.timestamp("us", "UTC"))
        values = pa.chunked_array(columns).take(places)
        table = pa.table([*texts, moments, moments, values, values], list("abcdefg"))
    with stages.of("write Parquet"):
        pq.write_table(table, io.BytesIO(), compression="zstd")
    return table.num_rows


def dialects() -> tuple[list[str], bool]:
    """The lines of a table of what a row of each dialect takes, and whether it is what is wanted."""
    lines = [
        "| dialect | rows | judge, µs a row | parse | JSON alone |",
        "|---|---:|---:|---:|---:|",
    ]
    enough = True
    for vendor in answers.VENDORS:
        for series in SERIES:
            planned, response = answers.make(vendor, series)
            rows = len(vendor.parse("performance_data", planned, response).columns["value"])
            judge, parse, alone = (
                _micros(read, rows)
                for read in (
                    partial(vendor.judge, "performance_data", planned, response),
                    partial(vendor.parse, "performance_data", planned, response),
                    partial(msgspec.json.decode, response.body),
                )
            )
            lines.append(f"| {vendor.kind} | {rows:,} | {judge:.2f} | {parse:.2f} | {alone:.2f} |")
            enough = enough and (series == 1 or (judge <= JUDGE_WANTED and parse <= WANTED))
    return [*lines, ""], enough


def _micros(read: Callable[[], object], rows: int) -> float:
    """CPU microseconds a row, in the best of several rounds: others use the same cores."""
    took = []
    for _ in range(9):
        count = max(1, 20_000 // rows)
        began = time.process_time()
        for _ in range(count):
            read()
        took.append((time.process_time() - began) / count / rows * 1e6)
    return min(took)


def calls() -> float:
    """CPU microseconds of a call, from the budget to the body."""
    with (
        tempfile.TemporaryDirectory() as folder,
        simulator(world="small", churn=False, limit="none") as vendor,
    ):
        budget = Budget(f"sqlite:///{folder}/budget.db", "profile", limits=[Limit.parse("5000/s")], share=1.0)
        client = VendorClient(
            base_url=vendor.url,
            api_key=KEY,
            vendor=_VENDOR,
            budget=budget,
            max_in_flight=4,
            stop=threading.Event(),
        )
        request = _VENDOR.probe()
        for _ in range(20):
            client.fetch(request)
        began = time.process_time()
        for _ in range(CALLS):
            client.fetch(request)
        spent = time.process_time() - began
        client.close()
        budget.close()
    return spent / CALLS * 1e6


def profile(count: int) -> tuple[list[str], float]:
    """The lines of a table of so many answers, and µs a row without the landing zone."""
    answers = make_answers(count)
    ours, alone = Stages(), Stages()
    rows = harvest(answers, ours)
    assert floor(answers, alone) == rows

    def micros(seconds: float) -> str:
        return f"{seconds / rows * 1e6:.2f}"

    lines = [
        f"{count} answers, {rows:,} rows, {sum(len(each.body) for _, each in answers) / rows:.0f} bytes a row:",
        "",
        "| stage | µs a row | floor |",
        "|---|---:|---:|",
    ]
    for stage in STAGES:
        least = micros(alone.seconds[stage]) if stage in FLOOR else ""
        lines.append(f"| {stage} | {micros(ours.seconds[stage])} | {least} |")
    total = sum(spent for stage, spent in ours.seconds.items() if stage not in LANDING)
    lowest = sum(alone.seconds.values())
    rebuild = sum(ours.seconds[stage] for stage in STAGES if stage not in ARRIVAL)
    times = f"{rebuild / lowest:.1f} times the floor (wanted: 2)"
    lines += [
        f"| all but the landing zone | **{micros(total)}** | **{micros(lowest)}** |",
        "",
        f"A rebuild of these rows takes {micros(rebuild)} µs a row, {times}.",
        "",
    ]
    return lines, total / rows * 1e6


def main(counts: list[int]) -> int:
    """Measure and print; 0 if what is wanted was reached. ``results/profile.md`` is kept by hand, before and after."""
    print(measured_by(f"profile {' '.join(map(str, counts))}"), end="\n\n")
    profile(1)  # what is imported and made on first use
    worst = 0.0
    for count in counts:
        lines, micros = profile(count)
        print("\n".join(lines), flush=True)
        worst = max(worst, micros)
    lines, enough = dialects()
    print("\n".join(lines), flush=True)
    print(f"A call: {calls():.0f} µs.")
    return 0 if worst <= WANTED and enough else 1


if __name__ == "__main__":
    sys.exit(main([int(text) for text in sys.argv[1:]] or list(ANSWERS)))
