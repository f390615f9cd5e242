"""The command: flags, the line that it prints, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from vendor_assets.simulator import cloudwatch
from vendor_assets.simulator.datadog import BUCKETS, LIMITS, parse_limits
from vendor_assets.simulator.dialect import Dialect
from vendor_assets.simulator.faults import KINDS, Faults, parse_fault_flag
from vendor_assets.simulator.limits import RateLimit, parse_limit
from vendor_assets.simulator.load import Load
from vendor_assets.simulator.nerdgraph import Rules
from vendor_assets.simulator.record import Record
from vendor_assets.simulator.server import Server
from vendor_assets.simulator.vendor import Clock, Style, Vendor, parse_iso
from vendor_assets.simulator.world import PRESETS, World

DEFAULT_KEY = "embedded-vendor-key"
"""The key that is printed where none is set; any non-empty key is accepted then."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit 2."""
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None, prog: str = "python -m vendor_assets.simulator") -> int:
    """Run the embedded vendor until SIGTERM, Ctrl-C or the end of ``--parent-pid``.

    Returns:
        0, or 1 where the port cannot be opened or a file cannot be written.

    Raises:
        SystemExit: 2, after one line on stderr, where a flag is wrong.
    """
    parser = _parser(prog)
    flags = parser.parse_args(argv)
    try:
        vendor = _vendor(flags)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        sys.stderr.write(f"{prog}: cannot write {error.filename}: {error.strerror}\n")
        return 1
    try:
        asyncio.run(_serve(vendor, flags))
    except OSError as error:
        sys.stderr.write(f"{prog}: cannot listen on {flags.host}:{flags.port}: {error}\n")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(vendor: Vendor, flags: argparse.Namespace) -> None:
    server = Server(vendor, flags.host, flags.port)
    await server.open()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    key = flags.api_key or DEFAULT_KEY
    sys.stdout.write(
        f"Vendor simulator on http://{flags.host}:{server.port}, key {key}, limit {vendor.limit}\n"
    )
    sys.stdout.flush()
    if flags.port_file is not None:
        whole = flags.port_file.with_name(flags.port_file.name + ".part")
        whole.write_text(f"{server.port}\n")
        whole.replace(flags.port_file)
    gone = _watch(flags.parent_pid)
    while not stop.is_set() and not gone():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5 if flags.parent_pid else None)
    server.close()


def _watch(pid: int | None) -> Callable[[], bool]:
    """A question that is True once the process with this id has ended."""
    if pid is None:
        return lambda: False
    if os.getppid() == pid:
        return lambda: os.getppid() != pid

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    return gone


def _vendor(flags: argparse.Namespace) -> Vendor:
    world = World.preset(
        flags.world,
        seed=flags.seed,
        troops=flags.troops,
        warriors=flags.warriors,
        data_groups=flags.data_groups,
        churn=flags.churn,
        hostile=flags.hostile,
        stable_days=flags.stable_days,
    )
    dialect = Dialect(
        world,
        page_size=flags.page_size,
        data_page_size=flags.data_page_size,
        link_last=flags.link_last,
        retention_days=flags.retention_days,
        gone_after_seconds=flags.gone_after,
        settle_seconds=flags.settle,
    )
    clock = Clock(None if flags.now is None else parse_iso(flags.now))
    limits = [parse_limit(text) for text in flags.limit or ["1000/min"] if text != "none"]
    limit = RateLimit(limits, flags.limit_kind if limits else "none", flags.burst)
    load = Load(flags.latency, flags.capacity, flags.collapse_factor, flags.collapse_seconds, flags.seed)
    faults = Faults([parse_fault_flag(text) for text in flags.fault], flags.seed)
    style = Style(flags.limit_headers, flags.header_form, flags.retry_after, flags.collapse_mode)
    log_file = None if flags.log_file is None else flags.log_file.open("a", encoding="utf-8")
    record = Record(time.time(), log_file)
    rules = Rules(
        flags.account_id,
        flags.requests_at_once,
        flags.queries_per_minute,
        flags.repeats_per_minute,
        points_per_second=flags.points_per_second,
    )
    return Vendor(
        dialect,
        clock,
        limit,
        load,
        faults,
        record,
        style,
        api_key=flags.api_key,
        application_key=flags.application_key,
        rules=rules,
        buckets=parse_limits(LIMITS if flags.datadog_limit is None else flags.datadog_limit),
        cloudwatch_rules=cloudwatch.parse_rules(flags.cloudwatch),
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        description="A monitoring vendor to try things on: New Relic's REST v2 and NerdGraph, Datadog's API and Amazon"
        " CloudWatch's, over a seeded world.",
        epilog="Faults: " + "; ".join(f"{kind}: {text}" for kind, text in KINDS.items()),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=_between(0, 65_535), default=8731, help="0 takes a free one (default %(default)s)")
    add("--port-file", type=Path, help="write the port there once listening")
    add("--parent-pid", type=_between(1), help="end when this process has ended")
    add("--api-key", help="accept only this key (default: any)")
    add("--application-key", help="Datadog, CloudWatch: accept only this second key (default: any)")
    add("--now", metavar="ISO", help="what time it is for the vendor at the start (default: the real one)")
    add("--log-file", type=Path, help="write one JSON line a request there")

    add("--world", choices=sorted(PRESETS), default="demo", help="size of the world (default %(default)s)")
    add("--seed", type=int, default=1, help="another number is another world (default %(default)s)")
    add("--troops", type=_between(0), help="number of troops")
    add("--warriors", type=_between(0), help="number of places for warriors over all troops")
    add("--data-groups", type=_between(0), help="data groups per warrior")
    add("--no-churn", dest="churn", action="store_false", help="nothing appears, vanishes or falls silent")
    add(
        "--stable-days",
        type=_between(1),
        default=5,
        help="how long most warriors live at least (default %(default)s)",
    )
    add("--hostile", action="store_true", help="add troops with names that hurt")

    add("--page-size", type=_between(1), default=200, help="entities per page (default %(default)s)")
    add("--data-page-size", type=_between(1), default=100, help="metrics per page (default %(default)s)")
    add("--no-link-last", dest="link_last", action="store_false", help='leave out rel="last"')
    add("--retention-days", type=_number(0), default=395.0, help="older data is gone (default %(default)s)")
    add("--gone-after", type=_number(0), metavar="SECONDS", help="404 for warriors gone for longer")
    add("--settle", type=_number(0), default=0.0, metavar="SECONDS", help="younger data is not visible")

    add("--limit", action="append", help="1000/min, 20/s, 5/s@data, none; may be repeated (default 1000/min)")
    add("--limit-kind", choices=("bucket", "fixed", "sliding", "none"), default="bucket")
    add("--burst", type=_between(1), help="size of the bucket (default: the limit's number)")
    add("--limit-headers", choices=("always", "limited", "never"), default="limited")
    add("--header-form", choices=("newrelic", "datadog"), default="newrelic")
    add(
        "--retry-after",
        choices=("seconds", "fraction", "date", "none", "garbage", "negative", "year"),
        default="none",
    )

    rules = Rules()
    number = _between(1)
    add(
        "--account-id",
        type=number,
        default=rules.account_id,
        help="NerdGraph: the account (default %(default)s)",
    )
    add(
        "--requests-at-once",
        type=number,
        default=rules.requests_at_once,
        help="NerdGraph: documents in flight (default %(default)s)",
    )
    add(
        "--queries-per-minute",
        type=number,
        default=rules.queries_per_minute,
        help="NerdGraph: NRQL queries (default %(default)s)",
    )
    add(
        "--repeats-per-minute",
        type=number,
        default=rules.repeats_per_minute,
        help="NerdGraph: one NRQL query (default %(default)s)",
    )
    add(
        "--points-per-second",
        type=_number(1),
        default=rules.points_per_second,
        help="NerdGraph: timeslices that a query reads before it times out (default %(default)s)",
    )

    add(
        "--datadog-limit",
        action="append",
        metavar="BUCKET=CALLS/SECONDS",
        help="Datadog: calls in each window, aligned to the clock, of the bucket"
        f" {', '.join(sorted(set(BUCKETS.values())))}; may be repeated (default {' and '.join(LIMITS)})",
    )

    names = ", ".join(one.name for one in fields(cloudwatch.Rules))
    add(
        "--cloudwatch",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"CloudWatch: {names}; may be repeated",
    )

    add("--latency", type=_number(0), default=0.0, metavar="SECONDS", help="added to every answer")
    add("--capacity", type=_rate, metavar="N/s", help="calls a second that are served; others queue")
    add(
        "--collapse-factor",
        type=_number(1),
        metavar="X",
        help="down when offered more than X times the capacity",
    )
    add("--collapse-seconds", type=_number(0), default=30.0, help="for how long (default %(default)s)")
    add("--collapse-mode", choices=("503", "reset", "refuse"), default="503")

    add("--fault", action="append", default=[], metavar="KIND[:name=value;...]", help="may be repeated")
    return parser


def _between(low: int, high: int | None = None) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < low or (high is not None and number > high):
            raise ValueError(text)
        return number

    whole_number.__name__ = f"whole number from {low}" + ("" if high is None else f" to {high}")
    return whole_number


def _number(low: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value < 1e12:
            raise ValueError(text)
        return value

    number.__name__ = f"number from {low:g}"
    return number


def _rate(text: str) -> float:
    value = float(text.removesuffix("/s"))
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


_rate.__name__ = "rate such as 50/s"
