"""The shared budget, judged on the vendor's side of the wire.

    python -m benchmarks.budget pace            one case; --list names them all
    python -m benchmarks.budget all --write     every case; writes benchmarks/results/budget.md and .json
    python -m benchmarks.budget falls --only hangs,brownout --at-once 4

Callers are processes of their own that share nothing but the database. The embedded vendor, or nginx, is a
process too, and its log is the judge. *used* is admitted / (burst + permitted rate x busy time), at share 1.
Peers (pip install pyrate-limiter limits) are compared where only acquires are counted.
"""

# ruff: noqa: B023, PLC0415 - what runs meanwhile is called before the loop goes on; peers need not be installed

from __future__ import annotations

import argparse
import bisect
import contextlib
import http.client
import itertools
import json
import os
import platform
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.fragile_vendor import fragile_vendor
from vendor_assets.budget import OTHERS, Budget, Limit, Team
from vendor_assets.errors import BudgetError
from vendor_assets_tests.support.nginx import running
from vendor_assets_tests.support.postgres import PostgresServer, running_postgres
from vendor_assets_tests.support.programs import free_port
from vendor_assets_tests.support.simulator import RunningSimulator, simulator

RESULTS = Path(__file__).parent / "results"
TARGET = "/v2/applications.json"

Row = dict[str, object]

# -- callers --------------------------------------------------------------------------------------


def work(values: dict[str, Any]) -> None:
    """A process that calls as fast as the budget lets it; prints what it did as JSON when told to stop."""
    limits = "auto" if values["limit"] == "auto" else [Limit.parse(values["limit"])]
    acquire, close, warm_up = _limiter(values, limits)
    counts: Counter[str] = Counter()
    sent: list[tuple[float, str]] = []
    sending: list[float] = []
    stop = threading.Event()
    left = [values.get("calls", 1 << 60)]
    lock = threading.Lock()

    def run() -> None:
        send = _sender(values)
        while not stop.is_set():
            with lock:
                if left[0] <= 0:
                    return
                left[0] -= 1
            if values.get("port") is None:
                with contextlib.suppress(BudgetError), acquire():
                    sent.append((time.monotonic(), "ok"))
                continue
            with contextlib.suppress(BudgetError):
                call(send)

    def call(send: Callable[[], tuple[int | None, dict[str, str]]]) -> None:
        while not stop.is_set():
            with acquire() as slot:
                at, used = time.monotonic(), time.thread_time()
                status, headers = send()
                seconds = time.monotonic() - at
                sending.append(time.thread_time() - used)
                if not values.get("deaf"):
                    slot.observe(status=status, headers=headers, seconds=seconds, error=status is None)
            sent.append((at, str(status)))
            counts[str(status)] += 1
            if status == 200:
                break
            if status != 429:
                stop.wait(random.uniform(0.1, 0.5))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(values["threads"])]
    warm_up()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    started = time.monotonic()
    for thread in threads:
        thread.start()
    if "calls" in values:
        for thread in threads:
            thread.join()
    else:
        sys.stdin.readline()
    finished = time.monotonic()
    stop.set()
    cpu = time.process_time() - cpu
    figures = {
        "sent": sent,
        "counts": counts,
        "started": started,
        "finished": finished,
        "cpu": cpu,
        "cpu sending": sum(sending),
    }
    print(json.dumps(figures), flush=True)
    with contextlib.suppress(BudgetError):
        close()
    os._exit(0)


def perfect(values: dict[str, Any]) -> None:
    """What the machine permits: an event loop of its own with one bucket of tokens, and nothing shared."""
    import asyncio

    limit = Limit.parse(values["limit"])
    depth, sent = values["depth"], []

    async def call(pool: asyncio.Queue[Any]) -> None:
        reader, writer = await pool.get()
        sent.append((time.monotonic(), "200"))
        writer.write(
            f"GET {TARGET}?worker=perfect HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: k\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        pool.put_nowait((reader, writer))

    async def run() -> None:
        pool: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(8):
            pool.put_nowait(await asyncio.open_connection("127.0.0.1", values["port"]))
        print("ready", flush=True)
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        await stop
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        tasks: set[asyncio.Task[None]] = set()
        free_at = time.monotonic()
        while not stop.done():
            await asyncio.sleep(max(0.0, free_at - time.monotonic()))
            # The bucket fills to its depth and no further.
            free_at = max(free_at, time.monotonic() - (depth - 1) / limit.rate) + 1 / limit.rate
            tasks.add(task := asyncio.create_task(call(pool)))
            task.add_done_callback(tasks.discard)

    cpu, started = time.process_time(), time.monotonic()
    asyncio.run(run())
    figures = {
        "sent": sent,
        "cpu": time.process_time() - cpu,
        "started": started,
        "finished": time.monotonic(),
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)


def bare(values: dict[str, Any]) -> None:
    """The least that a shared slot costs: wait, read and swap a document, wait, look at it; nothing is sent."""
    select = "SELECT version, body FROM documents WHERE name = ?"
    swap = "UPDATE documents SET version = ?, body = ? WHERE name = ? AND version = ?"
    connection = sqlite3.connect(values["database"], isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    condition = threading.Condition()

    def wait(until: float) -> None:
        with condition:
            condition.wait(max(0.0, until - time.monotonic()))

    print("ready", flush=True)
    sys.stdin.readline()
    stop = threading.Thread(target=sys.stdin.readline)
    stop.start()
    cpu, started = time.process_time(), time.monotonic()
    at, calls = started + values["name"] * values["spacing"], 0
    while stop.is_alive():
        wait(at - values["interval"] / 2)
        swapped = 0
        while not swapped:
            version, body = connection.execute(select, ["pace"]).fetchone()
            swapped = connection.execute(swap, [version + 1, body, "pace", version]).rowcount
        wait(at)
        connection.execute(select, ["pace"]).fetchone()
        at, calls = at + values["interval"], calls + 1
    print(json.dumps({"calls": calls, "cpu": time.process_time() - cpu}), flush=True)
    os._exit(0)


def _limiter(
    values: dict[str, Any], limits: Any
) -> tuple[Callable[[], Any], Callable[[], object], Callable[[], object]]:
    kind = values.get("limiter", "ours")
    if kind == "ours":
        budget = Budget(
            values["database"], "bench", limits=limits, share=1.0, max_in_flight=values.get("in_flight", 64)
        )
        work_class = values.get("work_class", "scheduled")
        weights = values.get("weights")
        team = Team(f"team {values['name']}", weights[values["name"]]) if weights else OTHERS
        return lambda: budget.slot(work_class=work_class, team=team), budget.close, budget.state
    if kind.startswith("pyrate"):
        block = _pyrate(values, limits[0])
        return block, lambda: None, lambda: block().__enter__()
    from limits import RateLimitItemPerSecond
    from limits.storage import MemoryStorage
    from limits.strategies import MovingWindowRateLimiter

    strategy = MovingWindowRateLimiter(MemoryStorage())
    item = RateLimitItemPerSecond(limits[0].amount)

    @contextmanager
    def block() -> Iterator[None]:
        while not strategy.hit(item, "bench"):
            time.sleep(0.001)
        yield

    return block, lambda: None, lambda: None


def _pyrate(values: dict[str, Any], limit: Limit) -> Callable[[], Any]:
    import pyrate_limiter as p

    rates = [p.Rate(limit.amount, round(limit.period_seconds * 1000))]
    if values["limiter"] == "pyrate SQLite":
        bucket: Any = p.SQLiteBucket.init_from_file(
            rates, db_path=values["database"].removeprefix("sqlite:///") + ".pyrate", use_file_lock=True
        )
    else:
        from psycopg_pool import ConnectionPool

        pool = ConnectionPool(values["database"], min_size=1, max_size=values["threads"])
        bucket = p.PostgresBucket(pool, "bench", rates)
    limiter = p.Limiter(bucket)

    @contextmanager
    def block() -> Iterator[None]:
        limiter.try_acquire("bench", blocking=True)
        yield

    return block


def _sender(values: dict[str, Any]) -> Callable[[], tuple[int | None, dict[str, str]]]:
    if values.get("port") is None:
        return lambda: (200, {})
    box = [_connect(values["port"])]
    target = f"{values.get('target', TARGET)}?worker={values['name']}"

    def send() -> tuple[int | None, dict[str, str]]:
        connection = box[0]
        try:
            if connection is None:
                connection = box[0] = _connect(values["port"])
            connection.request("GET", target, headers={"X-Api-Key": "k"})
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.getheaders())
        except (OSError, http.client.HTTPException):
            if connection is not None:
                connection.close()
            box[0] = None
            return None, {}

    return send


def _connect(port: int) -> http.client.HTTPConnection | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.connect()
    assert connection.sock is not None
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Caller:
    """A caller process."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.budget"),
                "_perfect" if "depth" in values else "_bare" if "interval" in values else "_work",
                json.dumps(values),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it has imported everything."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Start, or stop, calling."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def figures(self) -> dict[str, Any]:
        """What it did; it ends."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.process.wait(20)
        found: dict[str, Any] = json.loads(line)
        return found


def run(
    seconds: float, processes: int, *, during: Callable[[list[Caller]], None] | None = None, **values: Any
) -> list[dict[str, Any]]:
    """Let processes call for some seconds."""
    callers = [Caller(name=n, **values) for n in range(processes)]
    for caller in callers:
        caller.ready()
    for caller in callers:
        caller.go()
    if during is not None:
        during(callers)
    else:
        time.sleep(seconds)
    alive = [caller for caller in callers if caller.process.poll() is None]
    for caller in alive:
        caller.go()
    return [caller.figures() for caller in alive]


# -- judges ---------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What the vendor saw.

    Attributes:
        admitted: Times of answered calls, sorted, in seconds.
        refused: Of calls that were answered with 429.
        others: Of calls that failed otherwise.
        workers: Answered calls by process.
    """

    admitted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    workers: Counter[str] = field(default_factory=Counter)

    def used(self, rate: float, start: float | None = None, end: float | None = None) -> float:
        """Admitted over what was permitted, from the first call to the last or between two times."""
        first = self.admitted[0] if start is None else start
        last = self.admitted[-1] if end is None else end
        number = bisect.bisect_right(self.admitted, last) - bisect.bisect_left(self.admitted, first)
        return number / ((1 if start is None else 0) + rate * (last - first))

    def worst(self, seconds: float) -> int:
        """The most calls in any window, refused ones included."""
        times = sorted([*self.admitted, *self.refused])
        return max(bisect.bisect_left(times, at + seconds) - n for n, at in enumerate(times))

    @property
    def jain(self) -> float:
        """Fairness over processes: 1 is equal, 1/n is one for all."""
        counts = list(self.workers.values())
        return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))

    @property
    def gap(self) -> float:
        """The longest time without a call."""
        times = sorted([*self.admitted, *self.refused, *self.others])
        return max(b - a for a, b in itertools.pairwise(times))

    @property
    def refused_share(self) -> float:
        """Part of all calls that was refused."""
        return len(self.refused) / (len(self.admitted) + len(self.refused))


def judge(vendor: RunningSimulator) -> Verdict:
    """The simulator's log; times are its own."""
    verdict = Verdict()
    for at, target, outcome in vendor.log(arrivals=True)["arrivals"]:
        _sort_in(verdict, at, outcome, target.rpartition("=")[2])
    return _sorted(verdict)


def judge_nginx(log: Path) -> Verdict:
    """The access log of nginx; times in milliseconds."""
    verdict = Verdict()
    for line in log.read_text().splitlines():
        at, status, target = line.split()
        _sort_in(verdict, float(at), status, target.rpartition("=")[2])
    return _sorted(verdict)


def judge_acquires(found: Sequence[dict[str, Any]]) -> Verdict:
    """The callers' own times, on the machine's clock."""
    verdict = Verdict()
    for n, figures in enumerate(found):
        for at, _ in figures["sent"]:
            _sort_in(verdict, at, "200", str(n))
    return _sorted(verdict)


def _sort_in(verdict: Verdict, at: float, outcome: str, worker: str) -> None:
    if outcome == "200":
        verdict.admitted.append(at)
        verdict.workers[worker] += 1
    elif outcome == "429":
        verdict.refused.append(at)
    else:
        verdict.others.append(at)


def _sorted(verdict: Verdict) -> Verdict:
    for times in (verdict.admitted, verdict.refused, verdict.others):
        times.sort()
    return verdict


@contextmanager
def nginx(rate: int, burst: int) -> Iterator[tuple[int, Path]]:
    """An nginx that answers 429 beyond a rate; its port and its log."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        allow = f"zone=all burst={burst} nodelay" if burst else "zone=all"
        configuration = f"""
            daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
            events {{}}
            http {{
                limit_req_zone $server_name zone=all:1m rate={rate}r/s;
                limit_req_status 429;
                log_format judge '$msec $status $request_uri';
                access_log {folder}/access.log judge;
                client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
                uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
                keepalive_requests 1000000;
                server {{
                    listen 127.0.0.1:{port};
                    location / {{ limit_req {allow}; root {folder}; try_files /answer =404; }}
                }}
            }}"""
        (folder / "answer").write_text("{}")
        with running(folder, configuration, port):
            yield port, folder / "access.log"


# -- cases ----------------------------------------------------------------------------------------

CASES: dict[str, Callable[[Bench], list[Row]]] = {}


def case(function: Callable[[Bench], list[Row]]) -> Callable[[Bench], list[Row]]:
    """Register a case under its function's name."""
    CASES[function.__name__] = function
    return function


@dataclass
class Bench:
    """What cases need: databases, and how long to run."""

    folder: Path
    scale: float
    server: PostgresServer | None
    only: Sequence[str] = ()
    at_once: int = 1
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def database(self, kind: str = "SQLite") -> Iterator[str]:
        """A new, empty database."""
        if kind == "SQLite":
            yield f"sqlite:///{self.folder}/budget-{next(self.numbers)}.db"
            return
        assert self.server is not None
        with self.server.database() as url:
            yield url

    def kinds(self) -> list[str]:
        """The databases that there are."""
        return ["SQLite", "PostgreSQL"] if self.server is not None else ["SQLite"]


def vendor(**flags: object) -> contextlib.AbstractContextManager[RunningSimulator]:
    """The embedded vendor with a small world."""
    return simulator(**flags)


@case
def pace(bench: Bench) -> list[Row]:
    """20 and 200 a second; 1, 4, 16 processes of 4 threads; a sliding window, the strictest vendor."""
    return [
        _paced(bench, f"{rate}/s", kind, processes, 20 * bench.scale)
        for rate in (20, 200)
        for kind in bench.kinds()
        for processes in (1, 4, 16)
    ]


@case
def minute(bench: Bench) -> list[Row]:
    """1,000 a minute, New Relic's limit, in a sliding window, beside a transaction and a look of SQLite alone."""
    ours: list[Row] = [
        {"caller": "ours", **_paced(bench, "1000/min", kind, processes, 75 * bench.scale)}
        for kind in bench.kinds()
        for processes in (1, 4, 16)
    ]
    return ours + [_bare(bench, processes, 40 * bench.scale) for processes in (1, 4, 16)]


def _bare(bench: Bench, processes: int, seconds: float) -> Row:
    """As many slots as with 1,000 a minute, without a budget: a document of the usual size."""
    file = bench.folder / f"bare-{processes}.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE documents (name TEXT PRIMARY KEY, version INTEGER, body TEXT)")
        connection.execute("INSERT INTO documents VALUES ('pace', 1, ?)", ["x" * 1500])
    spacing = 60 / 1000
    found = run(seconds, processes, database=str(file), spacing=spacing, interval=processes * spacing)
    calls = sum(figures["calls"] for figures in found)
    cpu = sum(figures["cpu"] for figures in found)
    return {
        "caller": "SQLite alone",
        "database": "SQLite",
        "processes": processes,
        "calls": calls,
        "CPU µs a call": round(cpu / calls * 1e6),
        "of it sending": 0,
    }


def _paced(bench: Bench, limit: str, kind: str, processes: int, seconds: float, **flags: object) -> Row:
    flags = {"limit_kind": "sliding", **flags}
    with bench.database(kind) as url, vendor(limit=limit.partition(" ")[0], **flags) as judging:
        _undisturbed(judging)
        found = run(seconds, processes, limit=limit, database=url, port=judging.port, threads=4)
        verdict = judge(judging)
    parsed = Limit.parse(limit)
    return {
        "limit": limit,
        "vendor": flags["limit_kind"],
        "database": kind,
        "processes": processes,
        "calls": len(verdict.admitted),
        "429": len(verdict.refused),
        "used": round(verdict.used(parsed.rate), 4),
        "worst window": verdict.worst(parsed.period_seconds),
        "Jain": round(verdict.jain, 4),
        "CPU µs a call": round(sum(figures["cpu"] for figures in found) / len(verdict.admitted) * 1e6),
        "of it sending": round(
            sum(figures["cpu sending"] for figures in found) / len(verdict.admitted) * 1e6
        ),
    }


@case
def load(bench: Bench) -> list[Row]:
    """20/s and 1,000/min at share 1 on a busy machine, beside perfect buckets; the vendor is spared the load."""
    rows: list[Row] = []
    seconds = 30 * bench.scale
    for busy in (0, 2, 5, 7):
        for limit, kind, burst in (
            ("20/s", "sliding", None),
            ("20/s burst 20", "bucket", 20),
            ("20/s", "bucket", 1),
            ("1000/min", "sliding", None),
        ):
            for processes in (1, 4):
                with busy_processes(busy * (os.cpu_count() or 1)):
                    row = _paced(bench, limit, "SQLite", processes, seconds, limit_kind=kind, burst=burst)
                row["vendor"] = kind + (f" of {burst}" if burst else "")
                rows.append({"busy processes a core": busy, "caller": "ours", **row})
        for depth in (1, 20):
            flags: dict[str, Any] = {"limit_kind": "bucket", "burst": depth}
            with busy_processes(busy * (os.cpu_count() or 1)), vendor(limit="20/s", **flags) as judging:
                _undisturbed(judging)
                run(seconds, 1, limit="20/s", depth=depth, port=judging.port)
                verdict = judge(judging)
            rows.append(
                {
                    "busy processes a core": busy,
                    "caller": f"perfect bucket of {depth}",
                    "vendor": f"bucket of {depth}",
                    "processes": 1,
                    "calls": len(verdict.admitted),
                    "429": len(verdict.refused),
                    "used": round(verdict.used(20), 4),
                }
            )
    return rows


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that compute without end while the block lasts."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _undisturbed(judging: RunningSimulator) -> None:
    """Let the vendor run as if on a machine of its own, where that is permitted."""
    for thread in Path(f"/proc/{judging.process.pid}/task").iterdir():
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))


@case
def vendors(bench: Bench) -> list[Row]:
    """Vendors that count in fixed windows, sliding windows and buckets; 4 processes of 4 threads."""
    rows = []
    for rate in (20, 200):
        for kind, burst in (("fixed", None), ("sliding", None), ("bucket", rate), ("bucket", 2)):
            row = _paced(bench, f"{rate}/s", "SQLite", 4, 20 * bench.scale, limit_kind=kind, burst=burst)
            rows.append({**row, "vendor": kind + (f" of {burst}" if burst else "")})
    return rows


@case
def fast(bench: Bench) -> list[Row]:
    """2,000 a second, acquires only, 16 processes of 4 threads, beside peers."""
    rows = []
    peers = [("ours", kind) for kind in bench.kinds()]
    peers += [
        ("pyrate SQLite", "SQLite"),
        ("pyrate PostgreSQL", "PostgreSQL"),
        ("limits in memory", "none"),
    ]
    for limiter, kind in peers:
        if kind == "PostgreSQL" and bench.server is None:
            continue
        with bench.database("SQLite" if kind == "none" else kind) as url:
            alone = kind == "none"
            try:
                found = run(
                    8 * bench.scale,
                    1 if alone else 16,
                    limit="2000/s",
                    limiter=limiter,
                    database=url,
                    threads=4,
                )
            except (ValueError, AssertionError, ImportError) as error:
                rows.append({"limiter": limiter, "429": f"did not run: {type(error).__name__}"})
                continue
        verdict = judge_acquires(found)
        rows.append(
            {
                "limiter": limiter,
                "database": kind,
                "processes": 1 if alone else 16,
                "acquires": len(verdict.admitted),
                "used": round(verdict.used(2000), 4),
                "worst second": verdict.worst(1.0),
                "Jain": round(verdict.jain, 4),
                "CPU µs an acquire": round(sum(f["cpu"] for f in found) / len(verdict.admitted) * 1e6),
            }
        )
    return rows


@case
def proxy(bench: Bench) -> list[Row]:
    """Behind nginx: limit_req, answering 429; 4 processes of 4 threads."""
    rows: list[Row] = []
    for rate, burst in ((20, 0), (20, 1), (200, 0), (200, 1), (200, 5)):
        with bench.database() as url, nginx(rate, burst) as (port, log):
            run(20 * bench.scale, 4, limit=f"{rate}/s", database=url, port=port, threads=4)
            verdict = judge_nginx(log)
        rows.append(
            {
                "limit_req": f"{rate}r/s burst={burst}",
                "calls": len(verdict.admitted),
                "429": len(verdict.refused),
                "used": round(verdict.used(rate), 4),
            }
        )
    return rows


@case
def believed(bench: Bench) -> list[Row]:
    """We believe twice the real rate, the vendor sends no headers."""
    rows: list[Row] = []
    for kind, burst in (("bucket", None), ("sliding", None), ("fixed", None)):
        seconds = 120 * bench.scale
        with (
            bench.database() as url,
            vendor(limit="20/s", limit_kind=kind, burst=burst, limit_headers="never") as judging,
        ):
            run(seconds, 4, limit="40/s", database=url, port=judging.port, threads=4)
            verdict = judge(judging)
        rows.append(
            {
                "vendor": kind,
                "calls": len(verdict.admitted),
                "429": len(verdict.refused),
                "429 %": round(100 * verdict.refused_share, 3),
                "real rate used": round(verdict.used(20), 4),
            }
        )
    return rows


@case
def auto(bench: Bench) -> list[Row]:
    """No limit known: capacity 50, 20, 80; down at 3 times that; latency grows with load; never a 429."""
    rows: list[Row] = []
    seconds = 90 * bench.scale
    levels: list[tuple[float, float]] = []
    with (
        bench.database() as url,
        vendor(limit="none", capacity=50, collapse_factor=3) as judging,
    ):

        def change(_: list[Caller]) -> None:
            for capacity in (50, 20, 80):
                judging.load(capacity=capacity)
                levels.append((judging.log()["seconds"], capacity))
                time.sleep(seconds)

        run(0, 4, during=change, limit="auto", database=url, port=judging.port, threads=8, in_flight=32)
        verdict = judge(judging)
        outages = len(judging.log()["outages"])
    for start, capacity in levels:
        after = start + seconds * 2 / 3
        rows.append(
            {
                "capacity": capacity,
                "outages": outages,
                "used in the first two thirds": round(verdict.used(capacity, start, after), 3),
                "used after a minute": round(verdict.used(capacity, after, start + seconds), 3),
                "429": len(verdict.refused),
            }
        )
    return rows


@case
def outage(bench: Bench) -> list[Row]:
    """The vendor is away for 30 s in the middle, in three ways."""
    rows: list[Row] = []
    for mode in ("503", "reset", "refuse"):
        with bench.database() as url, vendor(limit="20/s", limit_kind="sliding") as judging:

            def away(_: list[Caller]) -> None:
                time.sleep(10)
                judging.faults([{"kind": "outage", "seconds": 30, "mode": mode}])
                time.sleep(50)

            found = run(0, 4, during=away, limit="20/s", database=url, port=judging.port, threads=4)
            verdict = judge(judging)
            offset = time.monotonic() - judging.log()["seconds"]
        gap = max(itertools.pairwise(verdict.admitted), key=lambda pair: pair[1] - pair[0])
        failed = sorted(
            at - offset for figures in found for at, status in figures["sent"] if status not in ("200", "429")
        )
        probes = [at for at in failed if gap[0] + 2.0 < at < gap[1]]
        rows.append(
            {
                "vendor answers": mode,
                "calls": len(verdict.admitted),
                "429": len(verdict.refused),
                "calls before it was noticed": len(failed) - len(probes),
                "probes": len(probes),
                "seconds between probes": round(
                    min((b - a for a, b in itertools.pairwise(probes)), default=0), 1
                ),
                "rate 2 to 7 s after": round(verdict.used(20, gap[1] + 2.0, gap[1] + 7.0), 3),
                "seconds lost": round(gap[1] - gap[0], 1),
            }
        )
    return rows


FALLS: dict[str, dict[str, Any]] = {
    "unknown": {},
    "configured": {"limit": "500/s"},
    "window of 1 s": {"window": 1},
    "window of 10 s": {"window": 10},
    "slow": {"latency": 0.2},
    "hangs": {"mode": "hang"},
    "reset": {"mode": "reset", "limit": "500/s"},
    "two minutes": {"down": 120},
    "longer": {"longer": 2},
    "brownout": {"down": 0, "failing": 0.5, "mode": "500"},
    "brownout of a minute": {"down": 60, "failing": 0.5, "limit": "500/s"},
    "shrinks": {"shrinks": 105},
    "killed": {"killed": True},
    "unprotected": {"limit": "500/s", "deaf": True},
}
"""Vendors that bear 150 calls a second and give no sign before they go down for 10 s, and how each differs."""


@case
def falls(bench: Bench) -> list[Row]:
    """No sign before it falls, at 150/s; ten minutes: at most one outage, a third used after a minute."""
    wanted = [name for name in FALLS if not bench.only or name in bench.only]
    runs = [(name, processes) for name in wanted for processes in (1, 8)]
    runs += [("own", n) for n in (1, 8) if not bench.only or "own" in bench.only]
    with ThreadPoolExecutor(bench.at_once) as pool:
        return list(
            pool.map(lambda each: _own(bench, each[1]) if each[0] == "own" else _fall(bench, *each), runs)
        )


def _fall(bench: Bench, name: str, processes: int) -> Row:
    """Ten minutes with a vendor that falls at 150/s; it judges."""
    values = {"bears": 150, "window": 2, "down": 10, "latency": 0.03} | FALLS[name]
    limit, deaf, shrinks, killed = (values.pop(key, None) for key in ("limit", "deaf", "shrinks", "killed"))
    seconds, half = 600 * bench.scale, 300 * bench.scale
    calls: dict[str, Any] = {"limit": limit or "auto", "threads": 64 // processes, "in_flight": 64}
    with bench.database() as url, fragile_vendor(**values) as judging:
        calls |= {"database": url, "port": judging.port, "deaf": bool(deaf)}

        def meanwhile(callers: list[Caller]) -> None:
            started = time.monotonic()
            if killed:
                while not judging.get("/log")["outages"] and time.monotonic() < started + half:
                    time.sleep(1)
                fresh = Caller(name="fresh", **calls)
                callers[0].process.kill()
                callers[0].process.wait()
                fresh.ready()
                fresh.go()
                callers.append(fresh)
            time.sleep(max(0.0, started + half - time.monotonic()))
            if shrinks:
                judging.get(f"/bears/{shrinks}")
            time.sleep(max(0.0, started + seconds - time.monotonic()))

        run(seconds, processes, during=meanwhile, **calls)
        log = judging.get("/log")
    first = log["calls"][0][0]
    start, end = first + 60 * bench.scale, first + seconds
    possible = 150 * (end - start) - ((150 - shrinks) * half if shrinks else 0)
    if name == "slow":
        possible = min(possible, 64 / 0.2 * (end - start))
    used = sum(1 for at, ok in log["calls"] if ok and start <= at < end) / possible
    met = len(log["outages"]) <= 1 and used >= 1 / 3
    return {
        "scenario": name,
        "VENDOR_RATE": calls["limit"],
        "processes": processes,
        "outages (bound 1)": len(log["outages"]),
        "used after a minute (bound 0.333)": round(used, 3),
        "calls that failed": sum(1 for _, ok in log["calls"] if not ok),
        "met": "unprotected, for comparison" if deaf else "yes" if met else "NO",
    }


def _own(bench: Bench, processes: int) -> Row:
    """A known limit of 50/s, borne for two minutes, and an outage of 30 s that is the vendor's own."""
    with bench.database() as url, fragile_vendor(bears=1000) as judging:

        def away(_: list[Caller]) -> None:
            time.sleep(120 * bench.scale)
            judging.get("/away/30")
            time.sleep(90)

        values: dict[str, Any] = {"limit": "50/s", "database": url, "port": judging.port}
        run(0, processes, during=away, threads=32 // processes, **values)
        calls = judging.get("/log")["calls"]
    ok_at = [at for at, ok in calls if ok]
    gone = max(itertools.pairwise(ok_at), key=lambda pair: pair[1] - pair[0])
    back = gone[1]
    rates = [sum(1 for at, ok in calls if ok and back + n <= at < back + n + 1) for n in range(30)]
    before = sum(1 for at in ok_at if gone[0] - 10 <= at < gone[0]) / 10
    full = next((n for n in range(20) if sum(rates[n : n + 5]) >= 5 * 0.95 * before), 99)
    return {
        "scenario": "own outage",
        "VENDOR_RATE": "50/s",
        "processes": processes,
        "outages (bound 1)": 0,
        "calls in the first second back": rates[0],
        "seconds to the full rate (bound 10)": full,
        "met": "yes" if full <= 10 and rates[0] < 25 else "NO",
    }


@case
def kills(bench: Bench) -> list[Row]:
    """25 times kill -9 of a random process, one every six seconds; six processes, each replaced."""
    rows: list[Row] = []
    for limit in ("20/s", "200/s"):
        with bench.database() as url, vendor(limit=limit, limit_kind="sliding") as judging:
            values = {"limit": limit, "database": url, "port": judging.port, "threads": 4}
            spare = [Caller(name=f"spare{n}", **values) for n in range(3)]

            def kill(callers: list[Caller]) -> None:
                time.sleep(2)
                for n in range(25):
                    victim = random.choice([c for c in callers if c.process.poll() is None])
                    victim.process.kill()
                    victim.process.wait()
                    fresh = spare.pop(0)
                    fresh.ready()
                    fresh.go()
                    callers.append(fresh)
                    spare.append(Caller(name=f"new{n}", **values))
                    time.sleep(6)

            run(0, 6, during=kill, **values)
            for caller in spare:
                caller.process.kill()
                caller.process.wait()
            verdict = judge(judging)
        rate = Limit.parse(limit).rate
        rows.append(
            {
                "limit": limit,
                "kills": 25,
                "calls": len(verdict.admitted),
                "429": len(verdict.refused),
                "used": round(verdict.used(rate), 4),
                "longest gap s": round(verdict.gap, 3),
            }
        )
    return rows


@case
def stops(bench: Bench) -> list[Row]:
    """SIGSTOP of one of four processes for 10 s, then SIGCONT."""
    rows: list[Row] = []
    for limit in ("20/s", "200/s"):
        for kind in bench.kinds():
            with bench.database(kind) as url, vendor(limit=limit, limit_kind="sliding") as judging:
                moments: list[float] = []

                def stop(callers: list[Caller]) -> None:
                    time.sleep(5)
                    victim = callers[1].process
                    victim.send_signal(signal.SIGSTOP)
                    moments.append(judging.log()["seconds"])
                    time.sleep(10)
                    moments.append(judging.log()["seconds"])
                    victim.send_signal(signal.SIGCONT)
                    time.sleep(5)

                run(0, 4, during=stop, limit=limit, database=url, port=judging.port, threads=4)
                verdict = judge(judging)
            rate = Limit.parse(limit).rate
            rows.append(
                {
                    "limit": limit,
                    "database": kind,
                    "429": len(verdict.refused),
                    "used meanwhile": round(verdict.used(rate, moments[0] + 0.5, moments[1]), 4),
                    "used": round(verdict.used(rate), 4),
                    "longest gap s": round(verdict.gap, 3),
                }
            )
    return rows


@case
def classes(bench: Bench) -> list[Row]:
    """Scheduled work starts while a backfill runs flat out; stops again after 10 s."""
    rows: list[Row] = []
    for limit in ("20/s", "200/s"):
        rate = Limit.parse(limit).rate
        with bench.database() as url, vendor(limit=limit, limit_kind="sliding") as judging:
            values: dict[str, Any] = {"limit": limit, "database": url, "port": judging.port, "threads": 8}
            scheduled = Caller(name="scheduled", work_class="scheduled", **values)
            scheduled.ready()
            moments: list[float] = []

            def start(_: list[Caller]) -> None:
                time.sleep(8)
                moments.append(judging.log()["seconds"])
                scheduled.go()
                time.sleep(10)
                scheduled.go()
                moments.append(judging.log()["seconds"])
                time.sleep(6)

            run(0, 3, during=start, work_class="backfill", **values)
            scheduled.figures()
            verdict = judge(judging)
            mine = sorted(
                at
                for at, target, outcome in judging.log(arrivals=True)["arrivals"]
                if target.endswith("=scheduled") and outcome == "200"
            )
        first = mine[0]
        after = [at for at in mine if first + 1.0 <= at < moments[1]]
        rows.append(
            {
                "limit": limit,
                "first call after s": round(first - moments[0], 3),
                "scheduled in its first second": round(sum(1 for at in mine if at < first + 1.0) / rate, 3),
                "scheduled after it": round(len(after) / (rate * (moments[1] - first - 1.0)), 3),
                "used together": round(verdict.used(rate), 4),
                "429": len(verdict.refused),
            }
        )
    return rows


@case
def fairness(bench: Bench) -> list[Row]:
    """A process with 5 calls arrives while three with 16 threads each harvest without end."""
    rows: list[Row] = []
    for limit in ("20/s", "1000/min"):
        with bench.database() as url, vendor(limit=limit, limit_kind="sliding") as judging:
            values: dict[str, Any] = {"limit": limit, "database": url, "port": judging.port, "in_flight": 32}
            small = Caller(name="small", calls=5, threads=2, **values)
            small.ready()
            taken: list[float] = []

            def arrive(_: list[Caller]) -> None:
                time.sleep(6)
                small.go()
                found = small.figures()
                taken.append(found["finished"] - found["started"])

            run(0, 3, during=arrive, threads=16, **values)
            verdict = judge(judging)
        own = 5 / Limit.parse(limit).rate
        rows.append(
            {
                "limit": limit,
                "5 calls took s": round(taken[0], 2),
                "alone they take s": round(own, 2),
                "429": len(verdict.refused),
                "used": round(verdict.used(Limit.parse(limit).rate), 4),
            }
        )
    return rows


@case
def weights(bench: Bench) -> list[Row]:
    """Two processes of 16 threads, weights 3 and 1 or none; a sliding window, at 2,000 a second acquires only."""
    rows: list[Row] = []
    for rate, kind, of in itertools.product((20, 200, 2000), bench.kinds(), (None, [3, 1])):
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(bench.database(kind))
            values: dict[str, Any] = {"limit": f"{rate}/s", "database": url, "threads": 16, "weights": of}
            seconds = (20 if rate < 2000 else 8) * bench.scale
            if rate == 2000:
                found = run(seconds, 2, **values)
                verdict = judge_acquires(found)
            else:
                judging = stack.enter_context(vendor(limit=f"{rate}/s", limit_kind="sliding"))
                found = run(seconds, 2, port=judging.port, **values)
                verdict = judge(judging)
        first, second = (verdict.workers[str(n)] for n in range(2))
        rows.append(
            {
                "limit": f"{rate}/s",
                "database": kind,
                "weights": "3 and 1" if of else "none",
                "part of the first": round(first / (first + second), 3),
                "used": round(verdict.used(rate), 4),
                "429": len(verdict.refused),
                "worst second": verdict.worst(1.0),
                "CPU µs a call": round(sum(each["cpu"] for each in found) / len(verdict.admitted) * 1e6),
            }
        )
    return rows


# -- the command ----------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Rows as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """Where this was measured."""
    alone = "" if os.sched_getscheduler(0) == os.SCHED_OTHER else ", at real-time priority beside other work"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end{alone}"
    )


def write(name: str, rows: Sequence[Row], command: str) -> None:
    """Keep a case's rows in budget.json, and all of it readable in budget.md."""
    file = RESULTS / "budget.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[name] = {"rows": list(rows), "machine": machine(), "command": command}
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    parts = ["# The budget, measured", "", (__doc__ or "").partition("\n\n    ")[0], ""]
    parts += [
        "*used* is admitted / (burst + permitted rate x busy time), at share 1; the vendor's own log judges.",
        "",
    ]
    for known, function in CASES.items():
        if known in kept:
            found = kept[known]
            parts += [f"## {known}", "", (function.__doc__ or "").strip(), "", table(found["rows"]), ""]
            parts += [f"{found['machine']}: `{found['command']}`", ""]
    (RESULTS / "budget.md").write_text("\n".join(parts))


def main() -> None:
    """Run cases and print what came out."""
    callers = {"_work": work, "_perfect": perfect, "_bare": bare}
    if sys.argv[1:] and sys.argv[1] in callers:
        callers[sys.argv[1]](json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budget", description="Measure the shared budget."
    )
    parser.add_argument("cases", nargs="*", help="case names, or all")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--write", action="store_true", help="keep the results in benchmarks/results/")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--only", default="", help="of falls, only these scenarios, separated by commas")
    parser.add_argument("--at-once", type=int, default=1, help="of falls, so many scenarios at once")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply all durations")
    flags = parser.parse_args()
    if flags.list or not flags.cases:
        for name, function in CASES.items():
            print(f"{name:10} {function.__doc__}")
        return
    names = list(CASES) if flags.cases == ["all"] else flags.cases
    with tempfile.TemporaryDirectory(prefix="budget-") as folder, contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_postgres())
        except FileNotFoundError as error:
            print(f"without PostgreSQL: {error}", file=sys.stderr)
            server = None
        only = [name for name in flags.only.split(",") if name]
        bench = Bench(Path(folder), flags.scale, server, only, flags.at_once)
        for name in names:
            rows = CASES[name](bench)
            print(
                json.dumps({"case": name, "rows": rows}) if flags.json else f"\n{name}\n{table(rows)}",
                flush=True,
            )
            if flags.write:
                scale = "" if flags.scale == 1 else f" --scale {flags.scale:g}"
                write(name, rows, f"python -m benchmarks.budget {name}{scale}")


if __name__ == "__main__":
    main()
