"""Other tools beside this one, at the same job against the same vendor: wall, calls, 429s, CPU, memory, rows.

    python -m benchmarks.peers                     all cases; writes benchmarks/results/peers.md
    python -m benchmarks.peers --rounds 1          the same, each contestant once; a quarter of an hour
    python -m benchmarks.peers --case a --case c   some; prints only
    python -m benchmarks.peers --small             small worlds and one round, to see that all of it runs; prints only

A contestant is a script in benchmarks/peers, run in a virtual environment of its own with the versions below; they are
made below the folder for temporary files and kept there. The vendor is the embedded one, a process of its own: calls,
429s and outages are what it logged. Rows are compared with the seeded truth. CPU and memory are those of the contestant
with all of its children. A first harvest of a single warrior is its start-up, which is taken off everywhere else.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.process import measured_by
from vendor_assets.simulator.world import World
from vendor_assets_tests.support.simulator import KEY, simulator, world_of

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results" / "peers.md"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- figures: python -m benchmarks.peers -->\n", "<!-- end of figures -->\n")
"""What the page has before and after the figures."""
DAY = datetime.now(UTC).date() - timedelta(days=1)
OURS = "vendor_assets"
SECONDS_AT_MOST = 300.0

# -- contestants ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """A tool, and how it is started.

    Attributes:
        requirements: What its environment has; none where it is ours.
        script: A file in benchmarks/peers.
        options: What the script is told before the job; several sets are programs that are piped into each other.
    """

    name: str
    requirements: tuple[str, ...] = ()
    script: str = ""
    options: tuple[tuple[str, ...], ...] = ((),)

    def command(self, python: str, job: Path) -> list[str]:
        """How it is started on a job."""
        if not self.script:
            return [
                python,
                "-m",
                "vendor_assets",
                "harvest",
                "--day",
                DAY.isoformat(),
                "--no-report",
                "--json",
            ]
        programs = [[python, str(SCRIPTS / self.script), *words, str(job)] for words in self.options]
        if len(programs) == 1:
            return programs[0]
        return ["bash", "-c", "set -o pipefail; " + " | ".join(map(shlex.join, programs))]


PYARROW = "pyarrow==26.0.1"
DLT = ("dlt[filesystem,parquet]==1.31.0", "requests-ratelimiter==0.10.0", "filelock==4.3.1", PYARROW)
PLAIN = ("aiohttp==3.14.5", "requests==2.34.2", PYARROW)

CONTESTANTS = (
    Contestant(OURS),
    Contestant("dlt", DLT, "dlt_pipeline.py"),
    Contestant("dlt, limiter", DLT, "dlt_pipeline.py", (("limiter",),)),
    Contestant("dlt, Arrow", DLT, "dlt_pipeline.py", (("limiter", "arrow"),)),
    Contestant("airbyte-cdk", ("airbyte-cdk==7.39.1", PYARROW), "airbyte_source.py"),
    Contestant(
        "singer-sdk",
        ("singer-sdk[msgspec]==0.54.9", PYARROW),
        "singer_tap.py",
        (("tap",), ("target",)),
    ),
    Contestant("multiprocessing", PLAIN, "multiprocessing_script.py"),
    Contestant("asyncio", PLAIN, "asyncio_script.py"),
)

# -- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One thing that is asked of all.

    Attributes:
        text: What it is, for the reader.
        vendor: Flags of the embedded vendor.
        period: Seconds of a timeslice.
        rate: Calls a second that the vendor permits, and its bucket's size; 0 is no limit.
        rounds: How often each contestant runs; the median counts.
        copies: Processes of a contestant that do the same day at once.
        faults: The vendor's; each contestant is run without them first.
        without: Contestants that would do here what another one does already.
        small: Flags in place of the above for a quick trial.
    """

    name: str
    text: str
    vendor: Mapping[str, object]
    period: int
    rate: int = 0
    rounds: int = 1
    copies: int = 1
    faults: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    small: Mapping[str, object] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, object]:
        """All of the vendor's flags."""
        flags: dict[str, object] = {"churn": False, **self.vendor}
        if self.rate:
            flags |= {"limit": f"{self.rate}/s", "burst": self.rate, "retry_after": "seconds"}
            # It serves ten times as many, and goes down for five seconds when more than that come within a second.
            flags |= {"capacity": 10 * self.rate, "collapse_factor": 1, "collapse_seconds": 5}
        return flags

    @property
    def world(self) -> tuple[int, int, int]:
        """Troops, warriors, and data groups of each."""
        troops, warriors, data_groups = (
            int(str(self.flags[name])) for name in ("troops", "warriors", "data_groups")
        )
        return troops, warriors, data_groups


START = Case("", "", {"troops": 1, "warriors": 1, "data_groups": 1}, 3600, rounds=3)
_PACED = {"troops": 8, "warriors": 500, "data_groups": 2}
_NO_LIMIT = frozenset({"dlt, limiter"})

CASES = (
    Case(
        "a",
        "No limit, small calls: {calls:,} calls, half of them lists, half of them answers of 120 values; each answer"
        " takes 5 ms. What a call costs.",
        {"troops": 15, "warriors": 2500, "data_groups": 1, "latency": 0.005},
        3600,
        rounds=3,
        without=_NO_LIMIT,
        small={"troops": 4, "warriors": 40},
    ),
    Case(
        "b",
        "A limit of 20 calls a second with a bucket of 20: {calls:,} calls. What a limit costs, and whether it is kept."
        " The vendor says `Retry-After` with its 429, and is down for 5 s when 200 calls come within a second.",
        _PACED,
        3600,
        rate=20,
        small={"warriors": 30},
    ),
    Case(
        "c",
        "Large answers, no limit: {calls:,} calls, {rows:,} rows in {answers:,} answers. What a row costs.",
        {"troops": 2, "warriors": 25, "data_groups": 18},
        600,
        rounds=3,
        without=_NO_LIMIT,
        small={"warriors": 4},
    ),
    Case(
        "d",
        "A vendor that fails, no limit: 2 % of all calls get a 500, 1 % a reset connection, 0.5 % half of their answer;"
        " {calls:,} calls without that. Whether the day is complete, and what it takes.",
        {"troops": 10, "warriors": 200, "data_groups": 1, "latency": 0.005},
        3600,
        faults=("500:rate=0.02", "reset:rate=0.01", "truncated:rate=0.005"),
        without=_NO_LIMIT,
        small={"troops": 2, "warriors": 40},
    ),
    Case(
        "e",
        "Two copies of one day at once, as when a schedule and a hand start the same: the limit of case b, {calls:,}"
        " calls needed.",
        {**_PACED, "warriors": 110},
        3600,
        rate=20,
        copies=2,
        without=frozenset({"dlt, Arrow"}),
        small={"warriors": 30},
    ),
)

# -- environments ---------------------------------------------------------------------------------


class NotInstalledError(Exception):
    """A contestant's environment cannot be made; says why."""


def python_of(contestant: Contestant) -> str:
    """The interpreter with what a contestant needs; made where it is not there yet.

    Raises:
        NotInstalledError: A package could not be installed.
    """
    if not contestant.requirements:
        return sys.executable
    text = " ".join((sys.version, *contestant.requirements))
    folder = (
        Path(tempfile.gettempdir()) / "vendor-assets-peers" / hashlib.sha256(text.encode()).hexdigest()[:12]
    )
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        make = ["venv", str(folder)]
        install = ["pip", "install", "-q", *contestant.requirements]
        # As in the Makefile: uv needs a fraction of pip's time, but does not know pip's settings.
        failed = (
            "uv is not there" if not uv.exists() else _run([str(uv), *make, "--python", sys.executable, "-q"])
        )
        failed = failed or _run([str(uv), *install, "--system-certs", "--python", str(python)])
        if failed:
            failed = _run([sys.executable, "-m", *make, "--clear"]) or _run([str(python), "-m", *install])
        if failed:
            raise NotInstalledError(failed)
        done.touch()
    return str(python)


def _run(command: Sequence[str]) -> str:
    """Run it; what it said last where it failed."""
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if not found.returncode:
        return ""
    return ((found.stderr or found.stdout).strip().splitlines() or [f"exit code {found.returncode}"])[-1]


# -- running --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What processes took."""

    wall: float
    cpu: float
    mb: float
    codes: tuple[int, ...]
    said: str = ""


def run(commands: Sequence[tuple[Sequence[str], Path, Mapping[str, str]]]) -> Spent:
    """Run commands, each in its folder and environment, all at once, and watch them with all of their children."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        processes = [
            subprocess.Popen(
                command, cwd=folder, env=dict(environ), stdout=said, stderr=said, start_new_session=True
            )
            for command, folder, environ in commands
        ]
        peak = _Peak({process.pid for process in processes})
        late = threading.Timer(SECONDS_AT_MOST, _kill, [processes])
        late.start()
        cpu, codes = 0.0, []
        try:
            for process in processes:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                codes.append(process.returncode)
                cpu += usage.ru_utime + usage.ru_stime
        finally:
            late.cancel()
            _kill(processes)
        wall = time.monotonic() - began
        mb = peak.stop()
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Spent(wall, cpu, mb, tuple(codes), text)


def _kill(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


class _Peak:
    """The most memory that sessions of processes had at one time, in MiB; shared pages count once."""

    def __init__(self, sessions: set[int]) -> None:
        self._sessions = sessions
        self._own = Path("/proc/self/cmdline").read_bytes()
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """End, and say how much it was."""
        self._over.set()
        self._thread.join()
        return self._most / 1024

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            shares, highest = 0, 0
            for process in Path("/proc").iterdir():
                if process.name.isdecimal():
                    with contextlib.suppress(OSError):
                        share, high = self._of(process)
                        shares, highest = shares + share, max(highest, high)
            self._most = max(self._most, shares, highest)

    def _of(self, process: Path) -> tuple[int, int]:
        """A process's part of its pages now, and the most that it ever had; 0 where it is none of the sessions'."""
        session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
        # Between fork and exec a child has our pages.
        if session not in self._sessions or (process / "cmdline").read_bytes() == self._own:
            return 0, 0
        return _kilobytes(process / "smaps_rollup", "Pss"), _kilobytes(process / "status", "VmHWM")


def _kilobytes(file: Path, name: str) -> int:
    return sum(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{name}:"))


def environment(contestant: Contestant, case: Case, home: Path, url: str) -> dict[str, str]:
    """What a contestant sees: nothing of ours, no telemetry, few words in its log; for ours its settings."""
    seen = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    seen |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "LOGLEVEL": "WARNING"}
    seen |= {"DAGSTER_DISABLE_TELEMETRY": "yes", "DO_NOT_TRACK": "1", "RUNTIME__DLTHUB_TELEMETRY": "false"}
    if contestant.script:
        # dlt's settings, as its page on performance names them.
        return seen | {
            "EXTRACT__WORKERS": "20",
            "EXTRACT__MAX_PARALLEL_ITEMS": "40",
            "NORMALIZE__WORKERS": "2",
            "DATA_WRITER__FILE_MAX_ITEMS": "100000",
        }
    return seen | {
        "PYTHONPATH": str(ROOT),
        "VENDOR_URL": url,
        "VENDOR_API_KEY": KEY,
        "VENDOR_RATE": f"{case.rate}/s burst {case.rate}" if case.rate else "5000/s",
        "VENDOR_SHARE": "1",
        "VENDOR_ASSETS_RESOLUTION": str(case.period),
        "VENDOR_ASSETS_SETTLING": "0",
    }


# -- the judge ------------------------------------------------------------------------------------

KEYS = "troop_id, warrior_id, data_group, value_name, timeslice_start, timeslice_end"


@dataclass(frozen=True)
class Rows:
    """How what was written differs from the truth."""

    missing: int = 0
    double: int = 0
    wrong: int = 0

    @property
    def right(self) -> bool:
        """Whether it does not."""
        return self == Rows()


def write_truth(world: World, period: int, path: Path) -> int:
    """The seeded truth of the day as a Parquet file; how many rows it has."""
    names = [
        "troop_id",
        "warrior_id",
        "data_group",
        "value_name",
        "timeslice_start",
        "timeslice_end",
        "value",
    ]
    kinds = [pa.string()] * 4 + [pa.timestamp("us", "UTC")] * 2 + [pa.float64()]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    columns = list(zip(*world.expected_rows(DAY, period), strict=True))
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, schema=schema), path)
    return len(arrays[0])


def check(files: Sequence[Path], truth: Path) -> Rows:
    """Compare rows, however their files are cut and their columns typed, with the truth."""
    with duckdb.connect() as database:
        expected = database.read_parquet(str(truth)).aggregate("count(*)").fetchall()[0][0]
        if not files:
            return Rows(missing=expected)
        times = "timeslice_start::TIMESTAMPTZ AS timeslice_start, timeslice_end::TIMESTAMPTZ AS timeslice_end"
        texts = "troop_id::VARCHAR AS troop_id, warrior_id::VARCHAR AS warrior_id, data_group, value_name"
        found = database.execute(
            f"""
            WITH found AS (
                SELECT {texts}, {times}, value::DOUBLE AS value
                FROM read_parquet(?, hive_partitioning = false, union_by_name = true)
            ), grouped AS (
                SELECT {KEYS}, count(*) AS number, min(value) AS least, max(value) AS most, count(value) AS known
                FROM found GROUP BY ALL
            )
            SELECT
                count(*) FILTER (g.number IS NULL),
                coalesce(sum(g.number - 1), 0),
                count(*) FILTER (g.number IS NOT NULL AND (
                    t.troop_id IS NULL OR g.least IS DISTINCT FROM t.value OR g.most IS DISTINCT FROM t.value
                    OR g.known <> if(t.value IS NULL, 0, g.number)
                ))
            FROM grouped g FULL JOIN read_parquet(?) t USING ({KEYS})
            """,
            [list(map(str, files)), str(truth)],
        ).fetchall()[0]
    return Rows(*map(int, found))


# -- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """One run of one contestant, or the medians of several.

    Attributes:
        used: Part of the permitted calls that were made, from the first call to the last.
        span: Seconds from the first call to the last.
        extra: Seconds that the vendor's faults cost.
    """

    wall: float
    cpu: float
    mb: float
    calls: int
    throttled: int
    outages: int
    rows: Rows
    failed: str = ""
    used: float | None = None
    span: float = 0.0
    extra: float | None = None


@dataclass
class Bench:
    """One run of the benchmark.

    Attributes:
        pythons: Interpreters by the contestant's name; missing where it could not be installed.
        starts: Wall and CPU seconds of a harvest of one warrior, by the contestant's name.
    """

    folder: Path
    pythons: dict[str, str] = field(default_factory=dict)
    starts: dict[str, tuple[float, float]] = field(default_factory=dict)
    truths: dict[str, tuple[Path, int]] = field(default_factory=dict)

    def truth(self, case: Case) -> tuple[Path, int]:
        """The truth of a case's world and its number of rows, computed once."""
        key = json.dumps([*case.world, case.period])
        if key not in self.truths:
            path = self.folder / f"truth-{len(self.truths)}.parquet"
            self.truths[key] = path, write_truth(world_of(case.flags), case.period, path)
        return self.truths[key]

    def measure(self, contestant: Contestant, case: Case) -> Figures:
        """Run a contestant once."""
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as name,
            simulator(**case.flags, fault=list(case.faults)) as vendor,
        ):
            shared = Path(name)
            truth, _ = self.truth(case)
            commands, folders = [], []
            for copy in range(case.copies):
                # Our copies share a store, as they would: it is what keeps them from doing the same.
                folder = shared / ("ours" if not contestant.script else f"copy-{copy}")
                folder.mkdir(exist_ok=True)
                folders.append(folder)
                job = {
                    "url": vendor.url,
                    "key": KEY,
                    "start": f"{DAY}T00:00:00Z",
                    "end": f"{DAY + timedelta(days=1)}T00:00:00Z",
                    "period": case.period,
                    "folder": str(folder),
                    "rate": case.rate,
                    "shared": str(shared) if case.copies > 1 else "",
                }
                path = shared / f"job-{copy}.json"
                path.write_text(json.dumps(job))
                command = contestant.command(self.pythons[contestant.name], path)
                commands.append((command, folder, environment(contestant, case, shared, vendor.url)))
            spent = run(commands)
            log = vendor.log(arrivals=True)
            found = [check(_tables(folder), truth) for folder in dict.fromkeys(folders)]
        times = [at for at, _, _ in log["arrivals"]]
        rows = Rows(*(sum(getattr(each, part) for each in found) for part in ("missing", "double", "wrong")))
        return Figures(
            wall=spent.wall,
            cpu=spent.cpu,
            mb=spent.mb,
            calls=log["requests"],
            throttled=log["violations"],
            outages=len(log["outages"]),
            rows=rows,
            failed=_reason(spent) if any(spent.codes) else "",
            used=_used(log["arrivals"], case.rate) if case.rate else None,
            span=max(times) - min(times) if times else 0.0,
        )

    def net(self, name: str, figures: Figures, copies: int) -> Figures:
        """The same without the start-up."""
        wall, cpu = self.starts.get(name, (0.0, 0.0))
        return replace(figures, wall=max(0.0, figures.wall - wall), cpu=max(0.0, figures.cpu - copies * cpu))


def _tables(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*.parquet") if "performance_data" in path.parts and _is_table(path)
    ]


def _is_table(path: Path) -> bool:
    """Ours keeps exact answers and more beside its tables; dlt its files while it works."""
    return not {"landing", ".pipelines"} & set(path.parts)


_ERROR = re.compile(r"^[\w.]*(Error|Exception): |\berror\b| held: ")


def _reason(spent: Spent) -> str:
    lines = [line.strip() for line in spent.said.splitlines() if line.strip()]
    errors = [
        line.strip('",') for line in lines if any(word in line for word in ("Error", "error", " held: "))
    ]
    return f"exit {', '.join(map(str, spent.codes))}: {(errors or lines or ['no word'])[-1][:160]}"


def _used(arrivals: Sequence[Sequence[Any]], rate: int) -> float:
    """Answered calls over the bucket and what came into it between the first call and the last."""
    times = [at for at, _, _ in arrivals]
    answered = sum(outcome == "200" for _, _, outcome in arrivals)
    return answered / (rate + rate * (max(times) - min(times))) if times else 0.0


def median(runs: Sequence[Figures]) -> Figures:
    """The medians of times and memory; the worst of everything else."""
    return Figures(
        wall=statistics.median(each.wall for each in runs),
        cpu=statistics.median(each.cpu for each in runs),
        mb=statistics.median(each.mb for each in runs),
        calls=max(each.calls for each in runs),
        throttled=max(each.throttled for each in runs),
        outages=max(each.outages for each in runs),
        rows=max((each.rows for each in runs), key=lambda rows: (rows.missing, rows.double, rows.wrong)),
        failed=next((each.failed for each in runs if each.failed), ""),
        used=None if runs[0].used is None else statistics.median(each.used or 0.0 for each in runs),
        span=statistics.median(each.span for each in runs),
        extra=None if runs[0].extra is None else statistics.median(each.extra or 0.0 for each in runs),
    )


# -- the report -----------------------------------------------------------------------------------


def render(
    case: Case, results: Mapping[str, Figures | str], calls: int, rows: int, starts: Collection[str]
) -> list[str]:
    """A case's table; of a contestant that did not run, the reason.

    Args:
        calls: That are needed; costs are by these, so that nobody looks cheaper who sends more of them.
        rows: Of the truth.
        starts: Contestants whose start-up is known and taken off.
    """
    paced, faulty = bool(case.rate), bool(case.faults)
    heads = ["contestant", "wall, s"]
    heads += ["faults cost, s"] if faulty else []
    heads += ["first to last call, s"] if paced else []
    heads += ["calls"]
    heads += ["429s", "outages", "limit used"] if paced else []
    heads += [
        "CPU s / 1,000 calls",
        "CPU s / million rows",
        "peak MB",
        "missing",
        "double",
        "wrong",
        "ended well",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 2) + "---|"]
    notes = []
    for name, figures in results.items():
        label = f"**{name}**" if name == OURS else name
        if isinstance(figures, str):
            lines.append(f"| {label} | " + "– | " * (len(heads) - 2) + "no |")
            notes.append(f"- {name} did not run: {figures}")
            continue
        cells = [label, f"{figures.wall:.1f}" + ("" if name in starts else " with start-up")]
        if faulty:
            cells.append("–" if figures.extra is None or figures.failed else f"{figures.extra:+.1f}")
        cells += [f"{figures.span:.1f}"] if paced else []
        cells.append(f"{figures.calls:,}")
        if paced:
            cells += [f"{figures.throttled:,}", str(figures.outages), f"{figures.used or 0:.0%}"]
        # What part of the work costs says nothing of the whole.
        whole = not figures.rows.missing
        cells += [
            f"{figures.cpu / calls * 1000:.2f}" if whole else "–",
            f"{figures.cpu / rows * 1e6:.1f}" if whole else "–",
            f"{figures.mb:.0f}",
            *(f"{number:,}" for number in (figures.rows.missing, figures.rows.double, figures.rows.wrong)),
            "no" if figures.failed else "yes",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        if figures.failed:
            notes.append(f"- {name}: {figures.failed}")
    return [*lines, "", *(notes and [*notes, ""])]


def ahead(results: Mapping[str, Figures | str]) -> list[str]:
    """In what others are ahead of us, of those that got every row."""
    ours = results.get(OURS)
    if not isinstance(ours, Figures):
        return []
    measures: dict[str, Callable[[Figures], float]] = {
        "wall": lambda each: each.wall,
        "calls": lambda each: each.calls,
        "429s": lambda each: each.throttled,
        "CPU": lambda each: each.cpu,
        "memory": lambda each: each.mb,
    }
    texts = []
    for measure, of in measures.items():
        better = [
            name
            for name, each in results.items()
            if isinstance(each, Figures) and each.rows.right and not each.failed and of(each) < of(ours)
        ]
        texts += [f"{measure}: {'; '.join(better)}"] if better else []
    return [f"Ahead of us in {text}." for text in texts] or [
        "Nobody who got every row is ahead of us in anything."
    ]


def render_starts(starts: Mapping[str, tuple[float, float]]) -> list[str]:
    """The table of start-ups."""
    lines = ["| contestant | wall, s | CPU s |", "|---|---:|---:|"]
    lines += [
        f"| {f'**{name}**' if name == OURS else name} | {wall:.1f} | {cpu:.1f} |"
        for name, (wall, cpu) in starts.items()
    ]
    return [*lines, ""]


def put_into_page(page: str, figures: str) -> str:
    """The page with these figures between its marks."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return before + MARKS[0] + "\n" + figures.strip() + "\n\n" + MARKS[1] + after


def _listed(lines: Sequence[str]) -> list[str]:
    return [*(f"- {line}" for line in lines), ""] if lines else []


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _load() -> str:
    return ", ".join(f"{number:.1f}" for number in os.getloadavg())


def measure_case(
    bench: Bench, case: Case, chosen: Sequence[Contestant]
) -> tuple[dict[str, Figures | str], int]:
    """Run all contestants in turns, as often as the case says; their figures and the rows of the truth."""
    runs: dict[str, list[Figures]] = {}
    results: dict[str, Figures | str] = {}
    for turn in range(case.rounds):
        # Whoever was first in a round is last in the next: no one always follows the same one.
        order = chosen if turn % 2 == 0 else tuple(reversed(chosen))
        for contestant in order:
            name = contestant.name
            if name in case.without or name not in bench.pythons:
                continue
            calm = bench.measure(contestant, replace(case, faults=())) if case.faults else None
            figures = bench.measure(contestant, case)
            if calm is not None:
                figures = replace(figures, extra=figures.wall - calm.wall)
            runs.setdefault(name, []).append(bench.net(name, figures, case.copies))
            _say(f"{case.name or 'start-up'} {name}: {figures}")
    for contestant in chosen:
        if contestant.name in runs:
            results[contestant.name] = median(runs[contestant.name])
    return results, bench.truth(case)[1]


def needed(case: Case, rows: int) -> dict[str, int]:
    """What a case takes at least: calls, answers with data, rows. Lists come in pages of 200."""
    world, noon = world_of(case.flags), datetime.combine(DAY, datetime.min.time(), UTC) + timedelta(hours=12)
    hosts = [len(world.warriors(troop.id, noon)) for troop in world.troops(noon)]
    lists = sum(max(1, math.ceil(number / 200)) for number in (len(hosts), *hosts))
    return {"calls": lists + 2 * sum(hosts), "answers": sum(hosts), "rows": rows}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and keep the figures if all was measured; 0 if ours got every row and never a 429."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="may be repeated; default: all"
    )
    parser.add_argument(
        "--only", action="append", choices=[each.name for each in CONTESTANTS], help="may be repeated"
    )
    parser.add_argument(
        "--rounds", type=int, help="how often each contestant runs (default: as each case says)"
    )
    parser.add_argument("--small", action="store_true", help="small worlds, one round")
    flags = parser.parse_args(argv)
    chosen = [each for each in CONTESTANTS if not flags.only or each.name in flags.only]
    cases = [case for case in CASES if not flags.case or case.name in flags.case]
    rounds = 1 if flags.small else flags.rounds
    began, load = time.monotonic(), _load()
    words = "peers" + "".join(f" {word}" for word in sys.argv[1:] if argv is None)
    body: list[str] = []
    reached = True
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        bench = Bench(Path(folder))
        for contestant in chosen:
            _say(f"environment of {contestant.name}")
            try:
                bench.pythons[contestant.name] = python_of(contestant)
            except NotInstalledError as error:
                body.append(f"- {contestant.name} could not be installed: {error}")
        started, _ = measure_case(bench, replace(START, rounds=rounds or START.rounds), chosen)
        bench.starts = {
            name: (figures.wall, figures.cpu)
            for name, figures in started.items()
            if isinstance(figures, Figures) and figures.rows.right
        }
        body += ["## Start-up", "", "A harvest of one warrior. It is taken off in all tables below.", ""]
        body += render_starts(bench.starts)
        for case in cases:
            sized = replace(case, rounds=rounds or case.rounds)
            if flags.small:
                sized = replace(sized, vendor={**case.vendor, **case.small})
            results, rows = measure_case(bench, sized, chosen)
            least = needed(sized, rows)
            runs = "One run each" if sized.rounds == 1 else f"The median of {sized.rounds} runs"
            body += [f"## Case {case.name}", "", f"{case.text.format(**least)} {runs}.", ""]
            body += [*render(sized, results, least["calls"], rows, bench.starts), *_listed(ahead(results))]
            ours = results.get(OURS)
            if isinstance(ours, Figures):
                reached = reached and ours.rows.right and not ours.throttled and not ours.outages
    about = (
        f"{measured_by(words)}, {(time.monotonic() - began) / 60:.0f} minutes; "
        f"load average {load} at the start, {_load()} at the end."
    )
    versions = sorted({each for contestant in chosen for each in contestant.requirements})
    lines = [
        "# Beside other tools",
        "",
        about,
        "",
        f"Versions: {', '.join(f'`{each}`' for each in versions)}.",
        "",
        *body,
    ]
    print("\n".join(lines))
    if not (flags.case or flags.only or flags.small):
        RESULTS.write_text("\n".join(lines))
        if PAGE.exists():
            figures = "\n".join(["#" + line if line.startswith("## ") else line for line in lines[2:]])
            PAGE.write_text(put_into_page(PAGE.read_text(), figures))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
