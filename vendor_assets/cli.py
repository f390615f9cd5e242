"""The command ``vendor-assets``: the whole job without the UI, and what an operator needs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from vendor_assets import __version__
from vendor_assets.days import days_between, last_complete_day, parse_day
from vendor_assets.errors import ConfigurationError, VendorAssetsError

COMPLETE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
PARTIAL: Final = 3


class _Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 complete, 3 partial, 2 wrong use, 1 anything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["simulator"]:
        return _simulator(arguments[1:])
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        return int(options.run(options))
    except ConfigurationError as error:
        return _complain(error, WRONG_USE)
    except VendorAssetsError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        print("vendor-assets: stopped; the next run goes on where this one ended", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _complain(error: VendorAssetsError, code: int) -> int:
    print(f"vendor-assets: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vendor-assets", description="Harvest a rate-limited vendor API into partitioned Parquet."
    )
    parser.add_argument("--version", action="version", version=f"vendor-assets {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    harvest = commands.add_parser(
        "harvest", help="harvest a day or a range, through Dagster, in this process"
    )
    _add_days(harvest)
    harvest.add_argument("--no-report", action="store_true", help="leave out the day's statistics and report")
    finished = harvest.add_mutually_exclusive_group()
    finished.add_argument("--replace", action="store_true", help="fetch finished partitions anew")
    finished.add_argument(
        "--rebuild",
        action="store_true",
        help="make tables anew from what has landed, without a call for them",
    )
    _add_class(harvest, "scheduled")
    harvest.add_argument("--json", action="store_true", help="print the summary as JSON")
    harvest.set_defaults(run=_harvest)

    backfill = commands.add_parser("backfill", help="queue a range for Dagster's daemon, cut by quota")
    _add_days(backfill)
    _add_class(backfill, "backfill")
    backfill.add_argument(
        "--url", default="http://127.0.0.1:3000", help="where the UI answers (default http://127.0.0.1:3000)"
    )
    backfill.add_argument("--json", action="store_true", help="print what was queued as JSON")
    backfill.set_defaults(run=_backfill)

    plan = commands.add_parser("plan", help="what a day or a range will cost, before anything is launched")
    _add_days(plan)
    plan.add_argument("--json", action="store_true", help="print as JSON")
    plan.set_defaults(run=_plan)

    doctor = commands.add_parser("doctor", help="try every part that a harvest needs, a line each")
    doctor.set_defaults(run=_doctor)

    demo = commands.add_parser(
        "demo", help="harvest the embedded vendor's last days into a folder and show what came"
    )
    demo.add_argument("--days", type=int, default=3, help="how many days (default 3)")
    demo.set_defaults(run=_demo)

    dev = commands.add_parser("dev", help="start the embedded vendor and the UI, until Ctrl-C")
    dev.add_argument("--port", type=int, default=3000, help="the UI's port (default 3000)")
    dev.set_defaults(run=_dev)

    sync = commands.add_parser("sync", help="tell a new or lost Dagster instance what the store holds")
    sync.set_defaults(run=_sync)

    budget = commands.add_parser("budget", help="what the budget does now: rate, holds, who waits, and why")
    budget.add_argument("--json", action="store_true", help="print as JSON")
    budget.set_defaults(run=_budget)

    letters = commands.add_parser("dead-letters", help="list, redrive or discard what failed for good")
    letters.add_argument("action", choices=("list", "show", "redrive", "discard"))
    letters.add_argument("--day", help="only of this day")
    letters.add_argument("--troop", help="only of this troop (partition key)")
    letters.add_argument("--asset", help="only of this asset")
    letters.add_argument("--reason", help="only those whose reason contains this text")
    letters.add_argument("--status", type=int, help="only those with this HTTP status")
    letters.add_argument("--why", help="why they are discarded; stays on record")
    letters.add_argument("--json", action="store_true", help="print as JSON")
    letters.set_defaults(run=_dead_letters)

    commands.add_parser(
        "simulator", help="the embedded vendor, a separate program (see: vendor-assets simulator --help)"
    )
    return parser


def _add_days(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", help="one day, like 2026-11-20 (default: the last that is over)")
    parser.add_argument("--from", dest="first", help="first day of a range")
    parser.add_argument("--to", dest="last", help="last day of a range (default: the last that is over)")
    parser.add_argument(
        "--troop", action="append", default=[], help="id or name of a troop; may be repeated (default: all)"
    )


def _add_class(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--class",
        dest="work_class",
        choices=("scheduled", "backfill"),
        default=default,
        help=f"which goes first at the budget: scheduled before backfill (default {default})",
    )


# Settings and surroundings


def _environment(root: Path) -> dict[str, str]:
    """The environment, completed by the project's ``vendor_assets.env``; what is set already wins."""
    from dotenv import dotenv_values

    file = root / "vendor_assets.env"
    stored = {name: value or "" for name, value in dotenv_values(file).items()} if file.is_file() else {}
    environ = stored | dict(os.environ)
    os.environ.update(environ)
    return environ


def _project() -> tuple[Path, dict[str, str]]:
    from vendor_assets.configuration import project_root

    root = project_root(os.environ, Path.cwd())
    environ = _environment(root)
    os.chdir(root)
    return root, environ


def _choose_days(options: argparse.Namespace, settings: Any) -> list[date]:
    newest = last_complete_day(datetime.now(UTC), settings.zone)
    if options.day and (options.first or options.last):
        raise ConfigurationError("--day and --from/--to exclude each other; give one of them")
    if options.last and not options.first:
        raise ConfigurationError("--to needs --from; give the first day too")
    first = parse_day(options.day or options.first) if (options.day or options.first) else newest
    last = parse_day(options.last) if options.last else (newest if options.first else first)
    for day in (first, last):
        if day > newest:
            message = f"day {day} is not over in {settings.zone.key}; the last complete day is {newest}"
            raise ConfigurationError(message)
        if day < settings.start:
            message = (
                f"day {day} is before the first day {settings.start}; "
                f"set VENDOR_ASSETS_START={day} or an earlier day to include it"
            )
            raise ConfigurationError(message)
    return days_between(first, last)


@contextmanager
def _embedded_vendor(settings: Any, *, flags: Sequence[str] = (), port: int = 0) -> Iterator[Any]:
    """Settings that point at a running vendor: as they are, or at an embedded one started for as long as needed."""
    from vendor_assets.configuration import SIMULATOR_URL

    if not settings.embedded:
        yield settings
        return
    if _answers(SIMULATOR_URL):
        yield settings
        return
    with _simulator_process(flags, port=port, api_key=settings.api_key) as url:
        yield replace(settings, vendor_url=url)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_control/log", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


@contextmanager
def _simulator_process(flags: Sequence[str], *, port: int, api_key: str) -> Iterator[str]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="vendor-assets-") as folder:
        port_file = Path(folder) / "port"
        command = [
            sys.executable, "-m", "vendor_assets.simulator", "--port", str(port), "--port-file", str(port_file),
            "--parent-pid", str(os.getpid()), "--api-key", api_key, *flags,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 20
            while not port_file.exists() or not port_file.read_text().strip():
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (
                        process.stderr.read() if process.stderr and process.poll() is not None else ""
                    ).strip()
                    raise VendorAssetsError(
                        f"the embedded vendor did not start: {said or 'no answer in 20 s'}"
                    )
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port_file.read_text().strip()}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# Progress


class _ProgressLine:
    """A bar on a terminal, a plain line every ten seconds elsewhere; silent below two seconds."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        with self._lock:
            self._stream.write(("\r\033[K" if self._terminal else "") + line + "\n")
            self._stream.flush()

    def _show(self) -> None:
        next_line = 10.0
        while not self._stop.wait(0.25):
            passed = time.monotonic() - self._started
            text = _progress_text()
            if text is None or passed < 2:
                continue
            if self._terminal:
                with self._lock:
                    self._stream.write("\r\033[K" + text)
                    self._stream.flush()
            elif passed >= next_line:
                next_line = passed + 10.0
                self.say(text)


def _progress_text() -> str | None:
    module = sys.modules.get("vendor_assets.harvest.harvester")
    live = list(module.Harvester.live) if module else []
    if not live:
        return None
    now = live[-1].progress
    planned, done = sum(now.planned.values()), sum(now.done.values())
    if not planned:
        return None
    filled = int(24 * done / planned)
    bar = "#" * filled + "-" * (24 - filled)
    dead = f", {now.dead} dead letters" if now.dead else ""
    return f"[{bar}] {done}/{planned} requests, {now.partitions_done}/{now.partitions} partitions{dead}"


# Commands


def _harvest(options: argparse.Namespace) -> int:
    from vendor_assets.configuration import read

    root, environ = _project()
    settings = read(environ, root=root)
    days = _choose_days(options, settings)
    with _embedded_vendor(settings) as reachable, _terminable() as stopped:
        summary = _harvest_days(
            root, environ, reachable, days, options.troop,
            replaced=options.replace, rebuild=options.rebuild, work_class=options.work_class,
            report=not options.no_report, out=sys.stderr if options.json else sys.stdout, stopped=stopped,
        )  # fmt: skip
    if options.json:
        print(json.dumps(asdict(summary) | {"complete": summary.complete}, indent=1))
    else:
        _print_summary(summary)
    return _exit_code(summary)


def _exit_code(summary: Any) -> int:
    if summary.complete:
        return COMPLETE
    good = (
        summary.states.get("complete", 0) + summary.states.get("empty", 0) + summary.states.get("partial", 0)
    )
    return PARTIAL if good else FAILED


@contextmanager
def _terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM stop the work as Ctrl-C does: what has been answered is landed before the process ends.

    Dagster turns an interrupt into a failed run and goes on; that it came is remembered here.
    """
    came = False

    def stop(_signal: int, _frame: object) -> NoReturn:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: came
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _harvest_days(
    root: Path,
    environ: Mapping[str, str],
    settings: Any,
    days: Sequence[date],
    troops: Sequence[str],
    *,
    replaced: bool,
    rebuild: bool = False,
    work_class: str,
    report: bool,
    out: Any,
    stopped: Callable[[], bool],
) -> Any:
    from vendor_assets.harvest.harvester import Harvester
    from vendor_assets.orchestration.assets import permitted_rate_of
    from vendor_assets.orchestration.deployment import build_definitions
    from vendor_assets.orchestration.launching import Launcher, open_instance

    definitions = build_definitions(settings)
    store = definitions.resources["store"].open()  # type: ignore[index]
    print(f"vendor {settings.vendor_url} ({settings.vendor.kind}), store {store.url}", file=out, flush=True)
    started = time.monotonic()
    with open_instance(root, environ) as instance, _ProgressLine(out) as progress:
        launcher = Launcher(definitions, settings, store, instance, progress.say, stopped)
        launcher.bury_the_dead()
        for day in days:
            launcher.harvest_day(
                day, troops=troops, replace=replaced, rebuild=rebuild, work_class=work_class, report=report
            )
        summary = launcher.summary
    summary.seconds = round(time.monotonic() - started, 3)
    permitted_rate = permitted_rate_of(settings)
    if permitted_rate and summary.calls_made:
        permitted = Harvester.busy_stretches + permitted_rate * Harvester.busy_seconds
        used = summary.calls_made / permitted
        summary.share_of_permitted_rate = round(used, 4)
    return summary


def _print_summary(summary: Any) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items()))
    print(f"{summary.rows:,} rows in {summary.seconds:.1f} s; partitions: {states or 'none'}")
    print(
        f"{summary.calls_made:,} calls made, {summary.requests_reused:,} requests reused, "
        f"{summary.throttled} throttled, {summary.dead_letters} dead letters"
    )
    if summary.share_of_permitted_rate is not None:
        print(
            f"{summary.share_of_permitted_rate:.1%} of the permitted rate used while there was something to ask"
        )
    for problem in summary.problems[:20]:
        print(f"  {problem}")
    if len(summary.problems) > 20:
        print(f"  and {len(summary.problems) - 20} more")
    for report in summary.reports:
        print(f"report: {report}")


_LAUNCH_BACKFILL: Final = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""


def _backfill(options: argparse.Namespace) -> int:
    from vendor_assets.configuration import read

    root, environ = _project()
    settings = read(environ, root=root)
    days = _choose_days(options, settings)
    tags = {
        "vendor_assets/class": options.work_class,
        "vendor_assets/trigger": "command",
        "dagster/priority": "0" if options.work_class == "backfill" else "10",
    }
    if options.troop:
        tags["vendor_assets/troops"] = json.dumps(options.troop)
    params = {
        "assetSelection": [{"path": ["troops"]}],
        "partitionNames": [day.isoformat() for day in days],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "title": f"vendor-assets backfill {days[0]} to {days[-1]}",
    }
    answer = _graphql(options.url, _LAUNCH_BACKFILL, {"params": params})["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise VendorAssetsError(f"the backfill was refused: {answer.get('message', answer['__typename'])}")
    queued = {
        "backfill": answer["backfillId"],
        "days": [day.isoformat() for day in days],
        "troops": options.troop or "all",
        "url": f"{options.url}/runs/b/{answer['backfillId']}",
    }
    if options.json:
        print(json.dumps(queued, indent=1))
    else:
        print(f"queued backfill {queued['backfill']}: rosters of {len(days)} days, {days[0]} to {days[-1]}")
        print(
            "the sensors cut the troops of each day into runs of about ten minutes of quota, small ones first"
        )
        print(f"see {queued['url']}")
    return COMPLETE


def _graphql(url: str, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            document = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        message = (
            f"no Dagster UI answers at {url} ({error}); start one with make dev, give --url, "
            "or harvest in this process with: vendor-assets harvest --class backfill"
        )
        raise VendorAssetsError(message) from error
    if document.get("errors"):
        raise VendorAssetsError(f"Dagster at {url} refused: {document['errors'][0]['message']}")
    data: dict[str, Any] = document["data"]
    return data


def _store(settings: Any) -> Any:
    from vendor_assets.orchestration.deployment import build_resources

    return build_resources(settings)["store"].open()


def _sync(options: argparse.Namespace) -> int:  # noqa: ARG001  every command takes its options
    from vendor_assets.configuration import read
    from vendor_assets.orchestration.launching import open_instance
    from vendor_assets.orchestration.syncing import sync

    root, environ = _project()
    settings = read(environ, root=root)
    store = _store(settings)
    print(f"store {store.url}", flush=True)
    with open_instance(root, environ) as instance:
        done = sync(store, instance, print, settings.filters)
    print(
        f"{done.materialized} partitions reported, {done.known_already} known already, "
        f"{done.not_complete} not complete, {done.troops} troops added"
    )
    return COMPLETE


def _doctor(options: argparse.Namespace) -> int:  # noqa: ARG001  every command takes its options
    from vendor_assets.configuration import read
    from vendor_assets.orchestration.deployment import build_resources
    from vendor_assets.orchestration.doctor import examine
    from vendor_assets.orchestration.launching import open_instance

    root, environ = _project()
    settings = read(environ, root=root)
    failed = 0
    with _embedded_vendor(settings) as reachable, open_instance(root, environ) as instance:
        resources = build_resources(reachable)
        for finding in examine(reachable, resources["vendor_api"], resources["store"], instance):
            failed += finding.state == "failed"
            print(f"{finding.state:8} {finding.part:11} {finding.text}", flush=True)
    return FAILED if failed else COMPLETE


def _plan(options: argparse.Namespace) -> int:
    from vendor_assets.budget import Limit
    from vendor_assets.configuration import read
    from vendor_assets.harvest.sizing import plan_day

    root, environ = _project()
    settings = read(environ, root=root)
    store = _store(settings)
    plans = [plan_day(store, day, options.troop) for day in _choose_days(options, settings)]
    total = sum(plan.total for plan in plans)
    limits: tuple[Limit, ...] = () if settings.limits == "auto" else settings.limits
    rate = min((limit.amount / limit.period_seconds for limit in limits), default=None)
    seconds = total / (rate * settings.share) if rate else None
    if options.json:
        document = {
            "days": [
                {
                    **asdict(plan),
                    "day": str(plan.day),
                    "roster_from": plan.roster_from and str(plan.roster_from),
                }
                for plan in plans
            ],
            "calls": total,
            "seconds": seconds,
        }
        print(json.dumps(document, indent=1))
        return COMPLETE
    print(
        f"{'day':12}{'troops':>8}{'warriors':>10}{'groups':>8}{'data':>8}{'calls':>8}{'answered':>10}  roster of"
    )
    for plan in plans:
        calls = plan.calls
        known = (
            "the day" if plan.roster_from == plan.day else plan.roster_from or "unknown: list troops first"
        )
        print(
            f"{plan.day!s:12}{plan.troops:>8}{calls['warriors']:>10}{calls['data_groups']:>8}"
            f"{calls['performance_data']:>8}{plan.total:>8}{sum(plan.done.values()):>10}  {known}"
        )
    if seconds is None:
        print(
            f"{total:,} calls; how long that takes is known once the vendor's capacity was found (VENDOR_RATE is auto)"
        )
        return COMPLETE
    end = datetime.now(settings.zone) + timedelta(seconds=seconds)
    quota = ", ".join(map(str, limits))
    lasts = timedelta(seconds=round(seconds))
    print(f"{total:,} calls at {settings.share:.0%} of {quota}: {lasts}, done {end:%Y-%m-%d %H:%M %Z}")
    largest = [f"{key} ({count})" for key, count in list(plans[-1].by_troop.items())[:3] if count]
    if largest:
        print(f"largest troops: {', '.join(largest)}")
    return COMPLETE


def _budget(options: argparse.Namespace) -> int:
    from vendor_assets.configuration import read
    from vendor_assets.orchestration.deployment import build_resources

    root, environ = _project()
    settings = read(environ, root=root)
    budget = build_resources(settings)["vendor_api"].budget()
    try:
        state = budget.state()
    finally:
        budget.close()
    if options.json:
        print(json.dumps(asdict(state), indent=1))
        return COMPLETE
    print(f"account    {state.account}, database {_without_password(settings.database_url)}")
    limits = ", ".join(state.limits) or "not known: found by itself"
    print(f"quota      {limits}; our share {state.share:.0%}: {_per_second(state.permitted_rate)} permitted")
    print(f"now        {_per_second(state.rate)}: {state.why}")
    hold = f"{state.hold_seconds:.0f} s left: {state.hold_reason}" if state.hold_seconds else "none"
    print(f"hold       {hold}")
    print(f"breaker    {state.breaker}")
    print(f"waiting    {state.waiting} calls, a newcomer waits {state.ahead_seconds:.1f} s for the pace")
    print(f"in flight  {state.in_flight} of {state.max_in_flight}")
    for name, (used, permitted) in state.used.items():
        print(f"counted    {name}: {used} of {permitted} calls")
    for process in state.processes:
        print(f"process    {process}")
    return COMPLETE


def _per_second(rate: float | None) -> str:
    return "no pace" if rate is None else f"{rate:.3g} calls a second"


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit

    password = urlsplit(url).password
    return url.replace(f":{password}@", ":…@") if password else url


def _dead_letters(options: argparse.Namespace) -> int:
    from vendor_assets.configuration import read
    from vendor_assets.harvest.dead_letters import DeadLetters

    root, environ = _project()
    settings = read(environ, root=root)
    dead_letters = DeadLetters(_store(settings))
    day = parse_day(options.day) if options.day else None
    chosen = []
    for partition in dead_letters.all():
        if (
            (day and partition.day != day)
            or (options.troop and partition.troop_key != options.troop)
            or (options.asset and partition.asset != options.asset)
        ):
            continue
        letters = [
            letter
            for letter in partition.letters
            if (not options.reason or options.reason in letter.reason)
            and (options.status is None or letter.status == options.status)
        ]
        if letters:
            chosen.append((partition, letters))
    if options.action == "discard":
        if not options.why:
            raise ConfigurationError("discard needs --why: the reason stays on record")
        who = os.environ.get("USER") or os.environ.get("LOGNAME") or "unknown"
        now = datetime.now(UTC)
        count = sum(
            dead_letters.discard(
                partition, {letter.request for letter in letters}, who=who, why=options.why, at=now
            )
            for partition, letters in chosen
        )
        print(f"discarded {count} dead letters; their partitions are reported anew, without a call")
    if options.action in ("redrive", "discard"):
        partitions = [partition for partition, _ in chosen]
        return _redrive(root, environ, settings, partitions, rebuild=options.action == "discard")
    _print_letters(chosen, as_json=options.json, whole=options.action == "show")
    return COMPLETE


def _print_letters(chosen: Sequence[Any], *, as_json: bool, whole: bool) -> None:
    records = [
        {"asset": partition.asset, "day": partition.day.isoformat(), "troop": partition.troop_key}
        | asdict(letter)
        | {"first_at": letter.first_at.isoformat(), "last_at": letter.last_at.isoformat()}
        for partition, letters in chosen
        for letter in letters
    ]
    if as_json or whole:
        print(json.dumps(records, indent=1))
        return
    for record in records:
        kind = "transient" if record["retryable"] else "permanent"
        print(
            f"{record['day']} {record['troop'] or '-'} {record['asset']}: {kind}, status {record['status'] or '-'}, "
            f"{record['attempts']} attempts, {len(record['leaves'])} leaves, {record['reason']}"
        )
    print(f"{len(records)} dead letters in {len(chosen)} partitions")


def _redrive(
    root: Path, environ: Mapping[str, str], settings: Any, partitions: Sequence[Any], *, rebuild: bool
) -> int:
    from vendor_assets.orchestration.deployment import build_definitions
    from vendor_assets.orchestration.launching import Launcher, open_instance

    if not partitions:
        print("no dead letters match")
        return COMPLETE
    with (
        _embedded_vendor(settings) as reachable,
        _terminable() as stopped,
        open_instance(root, environ) as instance,
    ):
        definitions = build_definitions(reachable)
        with _ProgressLine(sys.stdout) as progress:
            launcher = Launcher(definitions, reachable, _store(reachable), instance, progress.say, stopped)
            launcher.bury_the_dead()
            launcher.redrive([(item.asset, item.day, item.troop_key) for item in partitions], rebuild=rebuild)
    _print_summary(launcher.summary)
    return _exit_code(launcher.summary)


def _demo(options: argparse.Namespace) -> int:
    from vendor_assets.configuration import NAMES, SIMULATOR_API_KEY, read

    if options.days < 1 or options.days > 7:
        raise ConfigurationError(f"--days {options.days} is not accepted; give 1 to 7")
    root, environ = _project()
    environ = {
        name: value for name, value in environ.items() if name not in NAMES or name == "VENDOR_ASSETS_STORE"
    }
    settings = read(environ, root=root)
    newest = last_complete_day(datetime.now(UTC), settings.zone)
    days = days_between(newest - timedelta(days=options.days - 1), newest)
    started = time.monotonic()
    print("starting the embedded vendor: 1,000 calls a minute allowed, then 429", flush=True)
    with _simulator_process([], port=0, api_key=SIMULATOR_API_KEY) as url, _terminable() as stopped:
        reachable = replace(settings, vendor_url=url)
        summary = _harvest_days(
            root,
            environ,
            reachable,
            days,
            [],
            replaced=False,
            report=True,
            work_class="scheduled",
            out=sys.stdout,
            stopped=stopped,
        )
        log = _control_log(url)
    _print_summary(summary)
    print(
        f"the vendor counted {log.get('requests', 0):,} calls, {log.get('violations', 0)} over its limit (429), "
        f"at most {log.get('peak_in_flight', 0)} at once"
    )
    print(
        f"tables:  {settings.store_url}/processed/  (Parquet; read them with DuckDB, pandas, Spark, Athena)"
    )
    print(f"took {time.monotonic() - started:.0f} s")
    print("next:    make dev          opens the UI on http://127.0.0.1:3000")
    print("         docs/tutorial.md  your first day; vendor_assets.env.example  your own vendor")
    return _exit_code(summary)


def _control_log(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/_control/log", timeout=10) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def _dev(options: argparse.Namespace) -> int:
    from vendor_assets.configuration import SIMULATOR_PORT, SIMULATOR_URL, read

    root, environ = _project()
    settings = read(environ, root=root)
    processes: list[subprocess.Popen[Any]] = []

    def start(command: list[str]) -> None:
        processes.append(subprocess.Popen([sys.executable, *command], cwd=root, env=environ))

    with _terminable():
        try:
            if settings.embedded and not _answers(SIMULATOR_URL):
                simulator = ["-m", "vendor_assets.simulator", "--port", str(SIMULATOR_PORT)]
                start([*simulator, "--parent-pid", str(os.getpid()), "--api-key", settings.api_key])
            # A project's workspace.yaml may name more than ours.
            where = [] if (root / "workspace.yaml").is_file() else ["-m", "vendor_assets.definitions"]
            serve = ["-m", "dagster", "dev", *where, "-h", "127.0.0.1", "-p", str(options.port)]
            # The other command, dg dev, wants a project of its own form.
            start(["-W", "ignore:Function `dev_command` is superseded", *serve, "--log-level", "warning"])
            print(
                f"the UI opens on http://127.0.0.1:{options.port}; Ctrl-C ends it and the vendor", flush=True
            )
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
            return FAILED
        except KeyboardInterrupt:
            return COMPLETE
        finally:
            _end(processes)


def _end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    for process in reversed(processes):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _simulator(arguments: list[str]) -> int:
    # By module name, as its own program: nothing of ours may share code or a process with the vendor.
    os.execv(sys.executable, [sys.executable, "-m", "vendor_assets.simulator", *arguments])
