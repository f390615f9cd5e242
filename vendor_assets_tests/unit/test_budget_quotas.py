"""Headers that are true, and headers that mislead: vendors in simulated time, read from their headers' texts."""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from vendor_assets.budget.adaptation import Tally
from vendor_assets.budget.dispatch import AHEAD_SECONDS, LOOK_SECONDS
from vendor_assets.budget.headers import Policy, answer_time, parse_policies, parse_quotas, wait_seconds
from vendor_assets.budget.limits import Limit
from vendor_assets.budget.listener import Listener
from vendor_assets.budget.pace import LATE_SECONDS, Pace
from vendor_assets.budget.quotas import Statement
from vendor_assets.budget.reservations import Ask, Grant, Later
from vendor_assets.budget.tracks import Rule

EPOCH = 1_790_000_000
LATENCY = 0.03
Headers = dict[str, str]


class Vendor:
    """Admits by a rule, and tells by another one."""

    def admits(self, now: float, endpoint: str) -> bool:
        """Whether a call that arrives is within the limit; if so it is counted."""
        raise NotImplementedError

    def tells(self, now: float, endpoint: str) -> Headers:
        """The answer's headers."""
        raise NotImplementedError


class Bucket(Vendor):
    """A bucket that refills evenly; what it tells is given."""

    def __init__(self, rate: float, burst: float, tell: Callable[[Bucket, float], Headers]) -> None:
        self.rate, self.burst, self.tell = rate, burst, tell
        self.tokens, self.at = burst, 0.0

    def admits(self, now: float, endpoint: str) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1 - 1e-9:
            return False
        self.tokens -= 1
        return True

    def tells(self, now: float, endpoint: str) -> Headers:
        return self.tell(self, now)


class Window(Vendor):
    """So many calls in each aligned window, of which others use some at its start; told as it is."""

    def __init__(
        self, calls: int, seconds: float, others: int = 0, skew: float = 0.0, date: bool = True
    ) -> None:
        self.calls, self.seconds, self.others, self.skew, self.date = calls, seconds, others, skew, date
        self.window, self.used = -1, 0

    def admits(self, now: float, endpoint: str) -> bool:
        if int(now // self.seconds) != self.window:
            self.window, self.used = int(now // self.seconds), self.others
        if self.used >= self.calls:
            return False
        self.used += 1
        return True

    def tells(self, now: float, endpoint: str) -> Headers:
        reset = EPOCH + math.ceil((self.window + 1) * self.seconds + self.skew)
        told = {
            "X-RateLimit-Limit": str(self.calls),
            "X-RateLimit-Remaining": str(self.calls - self.used),
            "X-RateLimit-Reset": str(reset),
        }
        return told | (dated(now + self.skew) if self.date else {})


class Sliding(Vendor):
    """So many calls in any window that looks back; told in the IETF draft's form."""

    def __init__(self, calls: int, seconds: float) -> None:
        self.calls, self.seconds = calls, seconds
        self.recent: deque[float] = deque()

    def admits(self, now: float, endpoint: str) -> bool:
        while self.recent and self.recent[0] <= now - self.seconds:
            self.recent.popleft()
        if len(self.recent) >= self.calls:
            return False
        self.recent.append(now)
        return True

    def tells(self, now: float, endpoint: str) -> Headers:
        left = self.calls - len(self.recent)
        reset = math.ceil(self.recent[0] + self.seconds - now) if self.recent else 0
        return {
            "RateLimit-Policy": f'"p";q={self.calls};w={self.seconds:.0f}',
            "RateLimit": f'"p";r={left};t={reset}',
        }


class PerEndpoint(Vendor):
    """Lists have a quota that is used up for an hour; data has one of its own."""

    def __init__(self) -> None:
        self.lists, self.data = Window(50, 3600.0, others=45), Window(1200, 60.0)

    def of(self, endpoint: str) -> Window:
        return self.lists if endpoint == "lists" else self.data

    def admits(self, now: float, endpoint: str) -> bool:
        return self.of(endpoint).admits(now, endpoint)

    def tells(self, now: float, endpoint: str) -> Headers:
        return self.of(endpoint).tells(now, endpoint)


class Buckets(Vendor):
    """Datadog: windows aligned to the clock, each for some endpoints and with a name; others have none.

    Source: docs.datadoghq.com/api/latest/rate-limits.
    """

    def __init__(self, **buckets: Window) -> None:
        self.buckets = buckets

    def admits(self, now: float, endpoint: str) -> bool:
        return endpoint not in self.buckets or self.buckets[endpoint].admits(now, endpoint)

    def tells(self, now: float, endpoint: str) -> Headers:
        if endpoint not in self.buckets:
            return {}
        bucket = self.buckets[endpoint]
        return {
            "X-RateLimit-Limit": str(bucket.calls),
            "X-RateLimit-Period": f"{bucket.seconds:.0f}",
            "X-RateLimit-Remaining": str(bucket.calls - bucket.used),
            "X-RateLimit-Reset": str(math.ceil((bucket.window + 1) * bucket.seconds - now)),
            "X-RateLimit-Name": endpoint,
        }


def dated(now: float) -> Headers:
    """What time it is for the vendor, in whole seconds."""
    return {"Date": datetime.fromtimestamp(EPOCH + int(now), UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")}


@dataclass
class Story:
    """What the vendor saw."""

    pace: Pace
    calls: list[tuple[float, bool, str]] = field(default_factory=list)

    def refused(self, start: float = 0.0, end: float = math.inf) -> int:
        """Calls that were refused."""
        return sum(not ok for at, ok, _ in self.calls if start <= at < end)

    def rate(self, start: float, end: float, endpoint: str | None = None) -> float:
        """Admitted calls a second."""
        return sum(ok for at, ok, to in self.calls if start <= at < end and endpoint in (None, to)) / (
            end - start
        )


def play(
    vendor: Vendor,
    seconds: float,
    rate: str = "20/s",
    *,
    share: float = 1.0,
    processes: int = 1,
    threads: int = 8,
    endpoints: tuple[str, ...] = ("data",),
    delay: float = 0.0,
) -> Story:
    """Let the threads of some processes call as fast as the budget lets them; a thread calls one endpoint.

    Whoever is put off asks again so many seconds (``delay``) after the moment that it was told.
    """
    rules = [] if rate == "auto" else [Rule(limit, share) for limit in Limit.parse_all(rate.split(","))]
    pace, order, to = Pace.new(0.0, 0.0, "b"), itertools.count(), itertools.cycle(endpoints)
    story = Story(pace)
    events: list[tuple[float, int, Callable[[float], None]]] = []

    def plan(at: float, what: Callable[[float], None]) -> None:
        heapq.heappush(events, (at, next(order), what))

    class Process:
        def __init__(self) -> None:
            self.listener, self.ahead, self.flying = Listener(), 0, Counter[str]()
            self.queue: deque[Ask] = deque()

        def ask(self, now: float, ask: Ask) -> None:
            permitted = min(pace.ceiling(rules, now), pace.rate(now) or 100.0)
            if not ask.returns and self.ahead >= max(1, AHEAD_SECONDS * permitted):
                self.queue.append(ask)
                return
            answer = pace.reserve(rules, ask._replace(lead_seconds=-LATE_SECONDS), now)
            if isinstance(answer, Later):
                plan(max(answer.at + delay, now + 0.001), lambda later: self.ask(later, ask))
                self.follow(now)
                return
            assert isinstance(answer, Grant)
            self.ahead += 1
            self.sleep(now, ask, answer)

        def sleep(self, now: float, ask: Ask, grant: Grant) -> None:
            if not pace.reservations.valid(grant) or now >= grant.at:
                self.ahead -= 1
                if not pace.reservations.valid(grant):
                    self.ask(now, ask._replace(returns=True))
                else:
                    self.send(now, ask, grant)
                self.follow(now)
                return
            plan(min(grant.at, now + LOOK_SECONDS), lambda later: self.sleep(later, ask, grant))

        def follow(self, now: float) -> None:
            if self.queue:
                following = self.queue.popleft()
                plan(now, lambda later: self.ask(later, following))

        def send(self, now: float, ask: Ask, grant: Grant) -> None:
            self.flying[ask.endpoint] += 1
            ok = vendor.admits(now, ask.endpoint)
            story.calls.append((now, ok, ask.endpoint))
            headers = vendor.tells(now, ask.endpoint)
            plan(now + LATENCY, lambda later: self.finish(later, ask, grant, ok, headers))

        def finish(self, now: float, ask: Ask, grant: Grant, ok: bool, headers: Headers) -> None:
            self.flying[ask.endpoint] -= 1
            wall = answer_time(headers, datetime.fromtimestamp(EPOCH + now, UTC))
            tally = Tally()
            if ok:
                tally.add(ask.endpoint, LATENCY, alive=True, answered=True)
                statement = Statement(
                    ask.endpoint,
                    grant.at,
                    self.flying.total(),
                    parse_quotas(headers, wall),
                    parse_policies(headers),
                    to_endpoint=self.flying[ask.endpoint],
                )
                statement = self.listener.compare(
                    statement, pace.quotas, trial=grant.trial, admitted=True, now=now
                )
                tally.add_against(statement.against, statement.firmly)
                pace.absorb(rules, share, tally, now)
                if pace.news(rules, share, statement, now):
                    pace.hear(rules, share, statement, now)
            else:
                quotas = parse_quotas(headers, wall)
                pace.throttle(rules, grant, wait_seconds(headers, wall), "429", now, ask.endpoint, quotas)
            json.dumps(pace.document(now, now), allow_nan=False)
            plan(now, lambda later: self.ask(later, Ask(ask.endpoint)))

    for process in [Process() for _ in range(processes)]:
        for _ in range(threads):
            plan(0.0, lambda now, process=process: process.ask(now, Ask(next(to))))  # type: ignore[misc]
    while events and events[0][0] < seconds:
        at, _, what = heapq.heappop(events)
        what(at)
    return story


def three(limit: float, remaining: float, reset: object) -> Headers:
    """The three fields."""
    return {
        "X-RateLimit-Limit": f"{limit:.0f}",
        "X-RateLimit-Remaining": f"{remaining:.0f}",
        "X-RateLimit-Reset": str(reset),
    }


MISLEADING = {
    "next whole second": lambda b, now: three(1, b.tokens, EPOCH + math.floor(now) + 1),
    "next whole second, dated": lambda b, now: three(1, b.tokens, EPOCH + math.floor(now) + 1) | dated(now),
    "in whole seconds": lambda b, now: three(10, b.tokens, 1),
    "in two seconds": lambda b, now: three(1, b.tokens, 2),
    "nothing, for a minute": lambda b, now: three(20, 0, EPOCH + (math.floor(now / 60) + 1) * 60),
    "nothing, always for a minute": lambda b, now: three(20, 0, 60),
    "nothing, for an hour": lambda b, now: {
        "RateLimit": '"d";r=0;t=3600',
        "RateLimit-Policy": '"d";q=1;w=3600',
    },
    "another's": lambda b, now: three(50, 3, 3600 - int(now) % 3600),
    "a bucket of two": lambda b, now: three(2, math.floor(b.tokens), EPOCH + math.floor(now) + 2),
    "a policy": lambda b, now: {
        "RateLimit-Limit": "1, 1;w=1",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "1",
    },
    "in the past": lambda b, now: three(1, 0, EPOCH - 100),
}


FOUR = ["next whole second", "nothing, for an hour", "a policy"]


@pytest.mark.parametrize(
    ("shape", "processes"),
    [
        *((shape, 1) for shape in MISLEADING),
        *(pytest.param(shape, 4, marks=pytest.mark.long) for shape in FOUR),
    ],
)
def test_what_is_admitted_is_a_sign_too(shape: str, processes: int) -> None:
    """A vendor that admits 10 a second, whatever its headers tell, is used to 90 % after a minute, by all processes."""
    burst = 2 if shape == "a bucket of two" else 1
    story = play(Bucket(10, burst, MISLEADING[shape]), 68.0, "10/s", processes=processes)
    assert story.rate(60.0, 68.0) >= 0.9 * 10 / 1.02
    assert story.refused() == 0


TRUE = {
    "alone in a minute": (lambda: Window(300, 60.0), "300/min", 5.0),
    "others use most of a minute": (lambda: Window(1000, 60.0, others=900), "1000/min", 100 / 60),
    "others leave hardly any": (lambda: Window(1000, 60.0, others=995), "1000/min", 5 / 60),
    "configured too high": (lambda: Window(100, 60.0), "20/s", 100 / 60),
    "configured far too high": (lambda: Window(60, 3600.0), "20/s", 60 / 3600),
    "a second": (lambda: Window(5, 1.0), "5/s", 4.7),
    "sliding": (lambda: Sliding(100, 60.0), "20/s", 100 / 60.02),
    "sliding, not known": (lambda: Sliding(300, 60.0), "auto", 5.0),
    "an honest bucket": (
        lambda: Bucket(5, 10, lambda b, _: three(10, math.floor(b.tokens), math.ceil((10 - b.tokens) / 5))),
        "20/s",
        5.0,
    ),
    "an honest bucket of one": (
        lambda: Bucket(10, 1, lambda b, _: three(1, math.floor(b.tokens), f"{(1 - b.tokens) * 100:.0f}ms")),
        "10/s",
        10 / 1.02,
    ),
}


@pytest.mark.parametrize(
    ("world", "processes"),
    [
        *((world, 1) for world in TRUE),
        ("others use most of a minute", 4),
        pytest.param("configured too high", 4, marks=pytest.mark.long),
    ],
)
def test_true_signs_are_believed(world: str, processes: int) -> None:
    """Where the headers are true, at most one call is refused, and what they leave is used."""
    make, rate, possible = TRUE[world]
    story = play(make(), 120.0, rate, processes=processes)
    assert story.refused() <= 1
    assert story.rate(60.0, 120.0) >= 0.8 * possible


def test_a_clock_that_is_off_holds_up_for_a_window_at_most() -> None:
    """Where the reset is told an hour late, the next window shows it, and from then on the pace is the limit's."""
    story = play(Window(180, 60.0, skew=3600.0, date=False), 120.0, "180/min")
    assert story.rate(70.0, 120.0) >= 0.9 * 3
    assert story.refused() == 0


def test_what_an_endpoint_is_told_holds_for_it_alone() -> None:
    """A quota of lists that is used up holds up lists, not the data, whose answers tell of one of their own."""
    story = play(PerEndpoint(), 30.0, endpoints=("lists", "data"))
    assert story.rate(20.0, 30.0, "data") >= 0.5 * 20
    assert story.refused() <= 1


def test_a_bucket_that_is_used_up_holds_up_its_endpoints_alone() -> None:
    """Others have used up the lists: neither hosts nor data, of which nothing was told so far, wait for the hour."""
    vendor = Buckets(lists=Window(100, 3600.0, others=100), data=Window(1200, 60.0))
    story = play(vendor, 30.0, "auto", endpoints=("lists", "hosts", "data"))
    assert story.refused() <= 3
    assert story.rate(10.0, 30.0, "hosts") >= 4.0
    assert story.rate(10.0, 30.0, "data") >= 5.0
    assert story.rate(0.0, 30.0, "lists") == 0.0


@pytest.mark.parametrize(("share", "delay"), [(0.98, 0.0), (0.5, 0.0), (0.98, 0.01)])
def test_windows_that_keep_to_the_clock_are_used(share: float, delay: float) -> None:
    """Two processes learn two buckets from their headers: none is refused, and our share of each window is used.

    Also by threads that wake a little late.
    """
    vendor = Buckets(lists=Window(60, 5.0), data=Window(100, 5.0))
    story = play(vendor, 60.0, "auto", share=share, processes=2, endpoints=("lists", "data"), delay=delay)
    assert story.refused() == 0
    for endpoint, calls in (("lists", 60), ("data", 100)):
        for start in range(20, 60, 5):
            assert 0.95 * share * calls <= story.rate(start, start + 5.0, endpoint) * 5.0 <= share * calls + 1


def test_a_moment_that_has_passed_puts_nobody_off() -> None:
    """In a quick bucket a slot may have just passed; that is no reason to ask again."""
    pace = Pace.new(0.0, 0.0, "b")
    policy = Policy(1000.0, 1.0, "data", bucket=True)
    for at in (0.0, 0.003):
        pace.hear([], 1.0, Statement("data", at, 0, policies=(policy,)), at)
        assert isinstance(pace.reserve([], Ask("data"), at), Grant)


def test_an_hours_bucket_is_used_up_well_before_its_end() -> None:
    """A bucket of an hour is not spread over the hour: half is used within minutes, all of it before the end."""
    story = play(Buckets(lists=Window(100, 3600.0)), 3600.0, "auto", endpoints=("lists",))
    assert story.refused() == 0
    assert story.rate(0.0, 180.0) * 180 >= 50
    assert story.rate(0.0, 1200.0) * 1200 >= 95


def told(pace: Pace, at: float, calls: float, endpoint: str = "data", period: float = 1.0) -> None:
    """An answer states a limit."""
    statement = Statement(endpoint, at, 0, policies=(Policy(calls, period),))
    pace.hear([], 1.0, statement, at)


def test_a_limit_that_the_vendor_raised_is_used() -> None:
    """A limit that was told, and that answers have replaced by another for minutes, holds nobody any more."""
    pace = Pace.new(0.0, 0.0, "b")
    told(pace, 0.0, 8.0)
    for at in range(1, 200):
        told(pace, float(at), 20.0)
    assert [rule.limit.amount for rule in pace.quotas.rules(200.0)] == [20]


def test_limits_that_are_told_in_turn_all_hold() -> None:
    """Of limits of another endpoint, of another period, or that come back, none is given up for one told more often."""
    pace = Pace.new(0.0, 0.0, "b")
    told(pace, 0.0, 8.0, endpoint="lists")
    told(pace, 0.0, 300.0, period=60.0)
    for at in range(1, 300):
        told(pace, float(at), 5.0 if at % 30 == 0 else 20.0)
    assert sorted(rule.limit.amount for rule in pace.quotas.rules(300.0)) == [5, 8, 20, 300]


def test_a_pause_gives_no_limit_up() -> None:
    """Hours without a call are no sign that a limit holds no more."""
    pace = Pace.new(0.0, 0.0, "b")
    told(pace, 0.0, 8.0)
    told(pace, 1.0, 20.0)
    told(pace, 7200.0, 20.0)
    assert [rule.limit.amount for rule in pace.quotas.rules(7200.0)] == [8, 20]
