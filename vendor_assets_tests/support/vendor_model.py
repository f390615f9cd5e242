"""A vendor and its callers in simulated time: the budget's pure parts driven without threads or sleeps."""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from vendor_assets.budget.adaptation import Tally
from vendor_assets.budget.dispatch import AHEAD_SECONDS, CALM_SECONDS, TOGETHER_SECONDS
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.reservations import Ask, Grant, Later
from vendor_assets.budget.tracks import Rule

Outcome = Literal["ok", "throttled", "failed", "unavailable"]


class Model(Protocol):
    """A vendor: judges a call that arrives, and says when its answer is ready."""

    def arrive(self, now: float) -> tuple[Outcome, float]:
        """The outcome, and the seconds until it."""
        ...


class Bucket:
    """Admits so many calls a second, from a bucket of some size; answers after 10 ms."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, 0.0

    def arrive(self, now: float) -> tuple[Outcome, float]:
        """A token, or a throttle."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return "throttled", 0.01
        self._tokens -= 1
        return "ok", 0.01


class FixedWindow:
    """Admits so many calls in each aligned window; answers after 10 ms."""

    def __init__(self, calls: int, seconds: float) -> None:
        self.calls, self.seconds = calls, seconds
        self._window, self._used = -1, 0

    def arrive(self, now: float) -> tuple[Outcome, float]:
        """A place in the window, or a throttle."""
        if int(now // self.seconds) != self._window:
            self._window, self._used = int(now // self.seconds), 0
        if self._used >= self.calls:
            return "throttled", 0.01
        self._used += 1
        return "ok", 0.01


class Queue:
    """Never throttles: one server with exponential service times, down for a while when overrun."""

    def __init__(
        self, capacity: float, collapse_factor: float = 3.0, latency: float = 0.0, seed: int = 1
    ) -> None:
        self.capacity = capacity
        self.collapse_factor = collapse_factor
        self.latency = latency
        self.outages = 0
        self._random = random.Random(seed)
        self._free_at = self._down_until = 0.0
        self._arrivals: deque[float] = deque()

    def arrive(self, now: float) -> tuple[Outcome, float]:
        """The answer once it is its turn."""
        self._arrivals.append(now)
        while self._arrivals[0] <= now - 1.0:
            self._arrivals.popleft()
        if now < self._down_until:
            return "failed", 0.01
        if len(self._arrivals) > self.collapse_factor * self.capacity:
            self.outages += 1
            self._down_until = self._free_at = now + 30.0
            return "failed", 0.01
        self._free_at = max(now, self._free_at) + self._random.expovariate(self.capacity)
        return "ok", self.latency + self._free_at - now


class Outage:
    """Another vendor that is down from one moment to another."""

    def __init__(self, vendor: Model, start: float, end: float) -> None:
        self.vendor, self.start, self.end = vendor, start, end

    def arrive(self, now: float) -> tuple[Outcome, float]:
        """The other's answer, or none."""
        if self.start <= now < self.end:
            return "failed", 0.05
        return self.vendor.arrive(now)


class Fragile:
    """Gives no sign: its latency is constant until more is offered than it bears, then it is down for a while.

    Args:
        bears: Calls per second that it bears, over the window.
        window: How far it looks back, in seconds.
        down: How long it is down, in seconds; 0 for as long as it is overrun.
        latency: Of its answers, in seconds.
        failing: The part of the calls that fail while it is down.
        failure: Seconds until a failure; None lets a call hang until it times out.
        looks: It looks at its load only so often, in seconds; 0 is at each call.
        longer: Each outage is so many times as long as the one before.
        timeout: When a caller gives up, in seconds.
        retry_after: Failures are answers that ask to wait for so long, in seconds; None where they do not.
        outside: Outages that nobody here causes, as pairs of start and end.
        seed: Of the calls that fail.

    Attributes:
        outages: Those that it was driven into, as pairs of start and end.
    """

    def __init__(
        self,
        bears: float,
        window: float = 2.0,
        down: float = 10.0,
        *,
        latency: float = 0.03,
        failing: float = 1.0,
        failure: float | None = 0.01,
        looks: float = 0.0,
        longer: float = 1.0,
        timeout: float = 30.0,
        retry_after: float | None = None,
        outside: Sequence[tuple[float, float]] = (),
        seed: int = 1,
    ) -> None:
        self.bears, self.window, self.down = bears, window, down
        self.latency, self.failing, self.failure, self.looks = latency, failing, failure, looks
        self.longer, self.timeout, self.retry_after, self.outside = longer, timeout, retry_after, outside
        self.outages: list[list[float]] = []
        self._arrivals: deque[float] = deque()
        self._looked = 0.0
        self._random = random.Random(seed)

    def arrive(self, now: float) -> tuple[Outcome, float]:
        """An answer after the latency, or a failure."""
        self._arrivals.append(now)
        while self._arrivals[0] <= now - self.window:
            self._arrivals.popleft()
        ends = self.outages[-1][1] if self.outages else 0.0
        overrun = len(self._arrivals) > self.bears * self.window
        if overrun and (now >= ends or not self.down) and now >= self._looked + self.looks:
            length = self.down * self.longer ** len(self.outages)
            if not self.down and self.outages and now < ends + 5.0:
                self.outages[-1][1] = now
            else:
                self.outages.append([now, now + length])
            ends = now + length
        if self.looks and now >= self._looked + self.looks:
            self._looked = now
        suffers = now <= ends if self.outages else False
        if any(start <= now < end for start, end in self.outside) or (
            suffers and self._random.random() < self.failing
        ):
            if self.retry_after is not None:
                return "unavailable", self.failure or 0.0
            return "failed", self.timeout if self.failure is None else self.failure
        return "ok", self.latency


@dataclass
class Story:
    """What happened: times of calls by outcome, and the pace at the end."""

    pace: Pace
    sent: list[tuple[float, Outcome]] = field(default_factory=list)

    def count(self, outcome: Outcome, start: float = 0.0, end: float = float("inf")) -> int:
        """Calls with this outcome that were sent in an interval."""
        return sum(1 for at, found in self.sent if found == outcome and start <= at < end)

    def rate(self, start: float, end: float) -> float:
        """Answers per second in an interval."""
        return self.count("ok", start, end) / (end - start)


def play(
    vendor: Model,
    seconds: float,
    *,
    rules: Sequence[Rule] = (),
    share: float = 1.0,
    threads: int = 32,
    pace: Pace | None = None,
    start: float = 0.0,
    at: Sequence[tuple[float, Callable[[], None]]] = (),
    processes: int = 1,
) -> Story:
    """Let threads call a vendor as fast as the budget lets them.

    Args:
        vendor: Whom.
        seconds: For how long.
        rules: The limits that are believed; none is ``auto``.
        share: Our part of what is found.
        threads: Callers, and calls in flight at most.
        pace: The budget's state at the start.
        start: The time at the start.
        at: What changes, and when.
        processes: The threads belong to so many; each tells what came of its calls every now and then.
    """
    pace = pace or Pace.new(start, start, "b")
    story = Story(pace)
    order = itertools.count()
    events: list[tuple[float, int, Callable[[float], None]]] = []

    outstanding = [0]
    waiting: deque[Callable[[float], None]] = deque()
    tallies = [Tally() for _ in range(processes)]
    told = [start] * processes
    turns = itertools.cycle(range(processes))

    def tell(now: float, process: int) -> None:
        tally, tallies[process], told[process] = tallies[process], Tally(), now
        pace.absorb(rules, share, tally, now)

    def plan(moment: float, what: Callable[[float], None]) -> None:
        heapq.heappush(events, (moment, next(order), what))

    def room(now: float) -> int:
        """How many reserve at once, where few slots lie ahead."""
        rate = min(pace.ceiling(rules, now), pace.rate(now) or 1.0)
        few = max(1.0, AHEAD_SECONDS * rate)
        return math.ceil(max(few, TOGETHER_SECONDS * rate) - outstanding[0]) if outstanding[0] < few else 0

    def acquire(now: float, returns: bool = False, together: bool = False) -> None:
        if not (returns or together or room(now)):
            waiting.append(lambda later: acquire(later, together=True))
            return
        process = next(turns)
        tell(now, process)
        answer = pace.reserve(rules, Ask(returns=returns), now)
        if isinstance(answer, Grant):
            outstanding[0] += 1
            plan(answer.at, lambda later: send(later, answer, process))
        elif isinstance(answer, Later):
            plan(max(answer.at, now + 0.001), acquire)

    def send(now: float, grant: Grant, process: int) -> None:
        outstanding[0] -= 1
        for _ in range(min(len(waiting), room(now)) if pace.reservations.valid(grant) else 0):
            plan(now, waiting.popleft())
        if not pace.reservations.valid(grant):
            acquire(now, returns=True)
            return
        tallies[process].send(now)
        outcome, delay = vendor.arrive(now)
        story.sent.append((now, outcome))
        plan(now + delay, lambda later: finish(later, grant, outcome, later - now, process))

    def finish(now: float, grant: Grant, outcome: Outcome, took: float, process: int) -> None:
        if outcome == "throttled":
            tell(now, process)
            pace.throttle(rules, grant, None, "429", now)
        elif outcome == "unavailable" and isinstance(vendor, Fragile):
            tell(now, process)
            pace.throttle(rules, grant, vendor.retry_after, "503", now, unavailable=True)
        else:
            ok = outcome == "ok"
            tallies[process].add("", took, alive=ok, answered=ok, now=now)
            patience = 0.25 if outcome == "failed" and not grant.probe else CALM_SECONDS
            if processes == 1 or grant.probe or now - told[process] > patience:
                tell(now, process)
        json.dumps(pace.document(now, now), allow_nan=False)
        # A client backs off after a failure.
        plan(now + (0.0 if outcome == "ok" else 0.5), acquire)

    for moment, change in at:
        plan(moment, lambda _, change=change: change())  # type: ignore[misc]
    for _ in range(threads):
        plan(start, acquire)
    while events and events[0][0] < start + seconds:
        moment, _, what = heapq.heappop(events)
        what(moment)
    return story
