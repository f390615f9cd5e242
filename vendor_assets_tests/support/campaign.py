"""Kills a harvest again and again at random moments, and counts what each kill cost by the vendor's own log."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import RunningSimulator

PROMISED_SECONDS = 5.0
"""After ``kill -9`` at most the calls of so many seconds are made again."""


@dataclass(frozen=True)
class Kill:
    """One kill and what the run after it asked for again; what that run did not come to is asked by a later one.

    Attributes:
        day: Which day was being harvested.
        after_seconds: How old the process was.
        calls: Calls that the vendor had answered for it.
        bound: Calls that may be made again.
        twice: Calls that were made again.
    """

    day: date
    after_seconds: float
    calls: int
    bound: int
    twice: int


@dataclass
class Campaign:
    """A series of kills; each harvest goes on where the killed one ended, a complete day is followed by the next.

    Attributes:
        command: Makes the command for the n-th process, so that one can have a disk of its own.
        vendor: Whom it harvests; the judge.
        chance: Picks the moments.
        stop: Which signal is sent.
        kills: What came of each.
        days: Which days are complete.
    """

    command: Callable[[int], Command]
    vendor: RunningSimulator
    chance: random.Random
    stop: signal.Signals = signal.SIGKILL

    def run(self, kills: int) -> tuple[list[Kill], list[date]]:
        """Kill so often; returns the kills and the days that were harvested to their ends."""
        found: list[Kill] = []
        complete: list[date] = []
        number, whole_seconds = 0, 0.0
        before: tuple[float, int, int, int] | None = None
        for day in _days():
            # Lists know no past: another day asks for them in the same words, and it should.
            assert self.vendor.log()["violations"] == 0
            self.vendor.reset()
            while True:
                repeated, calls = self._repeated(), self.vendor.calls()
                process = self.command(number).start(
                    "harvest", "--day", day.isoformat(), "--json", "--no-report"
                )
                number += 1
                started = time.monotonic()
                # The first day is left alone: it tells how long a harvest takes.
                aimed = complete and len(found) + (before is not None) < kills
                seconds = self.chance.uniform(0.0, whole_seconds) if aimed else 240.0
                killed = False
                try:
                    out, err = process.communicate(timeout=seconds)
                except Exception:
                    process.send_signal(self.stop)
                    killed = True
                    killed_at = self.vendor.log()["seconds"]
                    out, err = process.communicate(timeout=120)
                    bound = self._since(killed_at - PROMISED_SECONDS)
                    # A signal that came when all was done stops nothing.
                    killed = process.returncode != 0
                if before is not None:
                    after, answered, allowed, was = before
                    found.append(Kill(day, after, answered, allowed, self._repeated() - was))
                    before = None
                if not killed:
                    assert process.returncode == 0, f"{day}: exit {process.returncode}\n{out}{err}"
                    whole_seconds = whole_seconds or time.monotonic() - started
                    complete.append(day)
                    break
                assert aimed, f"the harvest of {day} did not end: {out}{err}"
                allowed = bound if self.stop == signal.SIGKILL else 0
                before = (seconds, self.vendor.calls() - calls, allowed, self._repeated())
                assert repeated <= self._repeated()
            if len(found) >= kills:
                return found, complete
        raise AssertionError("no days are left")

    def _repeated(self) -> int:
        total: int = self.vendor.log()["repeated"]["total"]
        return total

    def _since(self, seconds: float) -> int:
        """Calls that have come since then, by the vendor's clock; those answered just after a kill are among them."""
        return sum(1 for at, *_ in self.vendor.log(arrivals=True)["arrivals"] if at > seconds)


def _days() -> Iterator[date]:
    day = datetime.now(UTC).date()
    for _ in range(200):
        day -= timedelta(days=1)
        yield day
