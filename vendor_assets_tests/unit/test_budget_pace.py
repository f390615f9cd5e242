"""The pace as a pure thing: its promise, as a property over interleavings, and each rule by itself."""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vendor_assets.budget.adaptation import Tally
from vendor_assets.budget.headers import Quota
from vendor_assets.budget.limits import PARTS, Limit, parts_of
from vendor_assets.budget.pace import (
    BACKFILL_FRESH_SECONDS,
    FRESH_SECONDS,
    GUARD_SECONDS,
    LATE_SECONDS,
    Pace,
)
from vendor_assets.budget.quotas import Statement
from vendor_assets.budget.reservations import Ask, Correction, Grant, Later, Row, TooLate
from vendor_assets.budget.tracks import Rule

NOTICE_SECONDS = FRESH_SECONDS + GUARD_SECONDS
"""How long a change takes to reach everyone."""


def limit(rate: float, *, name: str = "account", burst: int = 1, endpoints: tuple[str, ...] = ()) -> Rule:
    """A paced limit with this rate, jitter allowed for."""
    return Rule(Limit(round(rate * 10), 10.0, name, burst), 1.0, endpoints)


def _moments(rows: list[Row]) -> list[Grant]:
    return [row.after(number).first for row in rows for number in range(row.size)]


@settings(max_examples=150)
@given(
    st.sampled_from([0.5, 20.0, 700.0, 5000.0]),
    st.integers(1, 60),
    st.sampled_from([1, 5]),
    st.booleans(),
    st.sampled_from([-0.05, 0.0, 0.02]),
    st.sampled_from(["alone", "held", "two limits", "a narrow limit", "told", "learnt", "down", "counted"]),
    st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, 9), st.booleans()), max_size=3),
)
def test_slots_in_a_row_are_those_that_calls_would_get_one_by_one(
    rate: float,
    count: int,
    burst: int,
    backfill: bool,
    lead: float,
    case: str,
    before: list[tuple[float, int, bool]],
) -> None:
    """Whatever else holds, and whatever was reserved before; and what follows gets what it would have got."""
    rules = [limit(rate, burst=burst)]
    if case == "two limits":
        rules.append(limit(rate / 3, name="other"))
    if case == "a narrow limit":
        rules.append(limit(rate / 3, name="narrow", endpoints=("hosts",)))
    if case == "counted":
        rules = [Rule(Limit(10_000, 3600.0, "hourly"), 1.0)]
    now, paces = 100.0, []
    for _ in range(2):
        pace, now = Pace.new(100.0, 100.0, "b"), 100.0
        pace.id, pace.reservations.epoch = "a", 1
        for passed, number, of_backfill in before:
            now += passed
            for _ in range(number):
                pace.reserve(rules, Ask("hosts", of_backfill), now)
        if case == "held":
            pace.hold(now + 1.0, "test", now)
        if case == "told":
            told = (Quota(remaining=50, reset_seconds=10, limit=100, period_seconds=60),)
            pace.hear(rules, 1.0, Statement("hosts", now, 0, told, ()), now)
        if case == "learnt":
            pace.tuning.rate, pace.tuning.mode = rate / 2, "plateau"
        if case == "down":
            pace.breaker.opened_at = now
        paces.append(pace)
    ask = Ask("hosts", backfill, lead_seconds=lead)
    at_once = paces[0].reserve_rows(rules, ask, now, count)
    answers = [paces[1].reserve(rules, ask, now) for _ in range(count)]
    one_by_one = [answer for answer in answers if isinstance(answer, Grant)]
    assert [grant.at for grant in _moments(at_once)] == pytest.approx(
        [grant.at for grant in one_by_one], abs=1e-6
    )
    assert [grant[1:] for grant in _moments(at_once)] == [grant[1:] for grant in one_by_one]
    one, other = (pace.reserve(rules, Ask("hosts"), now + 0.3) for pace in paces)
    assert isinstance(one, Grant | Later)
    assert isinstance(other, Grant | Later)
    assert isinstance(one, Grant) == isinstance(other, Grant)
    assert one.at == pytest.approx(other.at, abs=1e-6)


def test_a_row_is_reserved_where_one_pace_is_all_that_counts() -> None:
    """A thousand slots are one entry of the document; several limits make them one by one."""
    pace = Pace.new(100.0, 100.0, "b")
    (row,) = pace.reserve_rows([limit(5000.0)], Ask(), 100.0, 1000)
    assert row.size == 1000
    assert len(pace.reservations.runs) == 2
    assert len(pace.reserve_rows([limit(5000.0), limit(10.0, name="other")], Ask(), 101.0, 5)) == 5


def test_a_hold_voids_the_rest_of_a_row() -> None:
    """What of a row lies behind the moment is void, like any slot."""
    pace = Pace.new(100.0, 100.0, "b")
    (row,) = pace.reserve_rows([limit(100.0)], Ask(), 100.0, 100)
    pace.hold(105.0, "test", 100.2)
    assert not any(pace.reservations.valid(row.after(number).first) for number in range(row.size))
    assert pace.reservations.next_at(0.0) <= 100.2 + NOTICE_SECONDS


@dataclass
class World:
    """Holders that ask, wait, look at the epochs and send, in any order; the pace is a document between steps."""

    rules: list[Rule]
    random: random.Random
    now: float = 100.0
    body: str = ""
    sends: list[tuple[float, str]] = field(default_factory=list)
    rates: list[tuple[float, float]] = field(default_factory=list)
    holds: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.body = Pace.new(self.now, self.now, "b").dump(self.now, self.now)
        self.versions = [(self.now, self.body)]
        self.pending: list[tuple[float, int, Ask, Grant]] = []
        self.order = itertools.count()
        self.rates.append((0.0, 1 / self.rules[0].interval_seconds))

    def load(self) -> Pace:
        """The document as it is."""
        return Pace.load(self.body, self.now, self.now, "b")

    def save(self, pace: Pace) -> None:
        """Write it back."""
        self.body = pace.dump(self.now, self.now)
        self.versions.append((self.now, self.body))
        self.note()

    def note(self) -> None:
        """Remember the rate from now on."""
        pace = self.load()
        self.rates.append(
            (self.now, min(pace.rate(self.now) or math.inf, 1 / self.rules[0].interval_seconds))
        )

    def ask(self, ask: Ask) -> None:
        """Reserve."""
        pace = self.load()
        answer = pace.reserve(self.rules, ask, self.now)
        self.save(pace)
        if isinstance(answer, Grant):
            late = self.random.choice((0.0, 0.0, self.random.uniform(0, LATE_SECONDS)))
            heapq.heappush(self.pending, (max(answer.at, self.now) + late, next(self.order), ask, answer))

    def advance(self, seconds: float) -> None:
        """Time passes; slots come up, and are sent or found void."""
        end = self.now + seconds
        while self.pending and self.pending[0][0] <= end:
            self.now, _, ask, grant = heapq.heappop(self.pending)
            fresh = FRESH_SECONDS if grant.backfill_epoch is None else BACKFILL_FRESH_SECONDS
            seen = self.now - self.random.choice((0.0, fresh, self.random.uniform(0, fresh)))
            body = next(body for at, body in reversed(self.versions) if at <= max(seen, self.versions[0][0]))
            if Pace.load(body, self.now, self.now, "b").reservations.valid(grant):
                self.sends.append((self.now, ask.endpoint))
            else:
                self.ask(ask._replace(returns=True))
        self.now = end

    def integral(self, start: float, end: float) -> float:
        """Calls that the rate permits; a change counts once everybody has noticed it."""
        points = sorted(
            {start, end, *(at for at, _ in self.rates), *(at + NOTICE_SECONDS for at, _ in self.rates)}
        )
        total = 0.0
        for left, right in itertools.pairwise(point for point in points if start <= point <= end):
            middle = (left + right) / 2
            recent = [rate for at, rate in self.rates if middle - NOTICE_SECONDS <= at <= middle]
            before = [rate for at, rate in self.rates if at < middle - NOTICE_SECONDS]
            total += (right - left) * max([*recent, *before[-1:]])
        return total


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("ask"), st.just(1), st.booleans()),
        st.tuples(st.just("pass"), st.floats(0.0, 0.4), st.none()),
        st.tuples(st.just("hold"), st.floats(0.01, 1.0), st.none()),
        st.tuples(st.just("rate"), st.floats(0.5, 60.0), st.none()),
        st.tuples(st.just("free"), st.none(), st.none()),
        st.tuples(st.just("void"), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=300)
@example(
    # The rate falls after the slot that remains: what follows it does so at the new one.
    steps=[
        ("ask", 1, False),
        ("pass", 0.0, None),
        ("rate", 2.0, None),
        ("ask", 1, False),
        ("rate", 0.5, None),
    ],
    rate=1.0,
    burst=1,
    seed=0,
)
@given(steps=STEPS, rate=st.floats(1.0, 50.0), burst=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_any_window_holds_at_most_what_the_rate_permits(
    steps: list[tuple[str, object, object]], rate: float, burst: int, seed: int
) -> None:
    """Whatever interleaves, the sends in a window are at most the integral of the rate over it plus the burst."""
    world = World([limit(rate, burst=burst)], random.Random(seed))
    for kind, value, flag in steps:
        if kind == "ask":
            for _ in range(int(value)):  # type: ignore[call-overload]
                world.ask(Ask(backfill=bool(flag)))
        elif kind == "pass":
            world.advance(float(value))  # type: ignore[arg-type]
        else:
            pace = world.load()
            if kind == "hold":
                pace.hold(world.now + float(value), "test", world.now)  # type: ignore[arg-type]
                world.holds.append((world.now, pace.hold_until))
            elif kind == "void":
                pace.void_all(world.now)
            else:
                before = pace.rate(world.now)
                pace.tuning.rate = float(value) if kind == "rate" else None  # type: ignore[arg-type]
                pace._follow(before, world.now)
            world.save(pace)
    world.advance(200.0)
    sends = world.sends
    for i, (first, _) in enumerate(sends):
        for calls, (last, _) in enumerate(sends[i:]):
            assert calls <= world.integral(first - LATE_SECONDS, last) + (burst - 1) + 1e-6
    for start, end in world.holds:
        assert not [at for at, _ in sends if start + NOTICE_SECONDS < at < end - 1e-9]


@settings(max_examples=100)
@given(
    asks=st.lists(
        st.tuples(st.sampled_from(["hosts", "data"]), st.integers(1, 3), st.floats(0, 0.3), st.booleans()),
        min_size=1,
        max_size=60,
    ),
    seed=st.integers(0, 1000),
)
def test_every_limit_holds_by_itself(asks: list[tuple[str, int, float, bool]], seed: int) -> None:
    """With one limit for all and one for an endpoint, each is kept."""
    rules = [limit(20.0), limit(3.0, name="data", endpoints=("data",))]
    world = World(rules, random.Random(seed))
    for endpoint, calls, pause, backfill in asks:
        for _ in range(calls):
            world.ask(Ask(endpoint, backfill))
        world.advance(pause)
    world.advance(100.0)
    for rule in rules:
        concerned = [at for at, endpoint in world.sends if rule.concerns(endpoint)]
        for i, first in enumerate(concerned):
            for calls, last in enumerate(concerned[i:]):
                assert calls * rule.interval_seconds <= last - first + LATE_SECONDS + 1e-6


def reserve(pace: Pace, rules: list[Rule], now: float, ask: Ask | None = None) -> Grant:
    """A slot, which is expected to be given."""
    answer = pace.reserve(rules, ask or Ask(), now)
    assert isinstance(answer, Grant)
    return answer


def test_slots_are_evenly_spaced() -> None:
    """Callers that come at once are sent one interval after the other, the first at once."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    step = rules[0].interval_seconds
    assert [reserve(pace, rules, 0.0).at for _ in range(4)] == pytest.approx([0.0, step, 2 * step, 3 * step])


def test_idle_time_is_not_saved_up() -> None:
    """After a pause, however long, calls go evenly again; a vendor's bucket is for those that come late."""
    rules, pace = [limit(20.0, burst=3)], Pace.new(0.0, 0.0, "b")
    step = rules[0].interval_seconds
    for _ in range(10):
        reserve(pace, rules, 0.0)
    slots = [reserve(pace, rules, 60.0).at - 60.0 for _ in range(4)]
    late = slots[0]
    assert -step <= late <= 0.0
    assert slots == pytest.approx([late + n * step for n in range(4)])


@pytest.mark.parametrize(("burst", "lost"), [(1, 1.0), (2, 1.0 - 10 * 0.025), (20, 0.0)])
def test_what_comes_late_is_caught_up_within_the_bucket_of_the_vendor(burst: int, lost: float) -> None:
    """Ten callers that are a tenth of a second late cost that time, less what the bucket's half is worth."""
    rules, pace = [limit(20.0, burst=burst)], Pace.new(0.0, 0.0, "b")
    now = 0.0
    for number in range(101):
        if number % 10 == 5:
            now += rules[0].interval_seconds + 0.1
        now = max(now, reserve(pace, rules, now).at)
    assert now == pytest.approx(100 * rules[0].interval_seconds + lost, abs=0.01)


def test_scheduled_work_takes_the_slots_of_backfills() -> None:
    """Behind sixty queued backfill calls, scheduled work goes next, and what it took is void."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    queued = [reserve(pace, rules, 0.0, Ask(backfill=True)) for _ in range(60)]
    mine = reserve(pace, rules, 0.1)
    assert mine.at < 0.1 + 2 * rules[0].interval_seconds
    assert [grant.at for grant in queued if pace.reservations.valid(grant)] == pytest.approx(
        [grant.at for grant in queued if grant.at < mine.at]
    )


def test_scheduled_work_does_not_take_slots_of_scheduled_work() -> None:
    """Among equals it is first come, first served."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    first = [reserve(pace, rules, 0.0) for _ in range(10)]
    second = reserve(pace, rules, 0.01)
    assert second.at > first[-1].at
    assert all(pace.reservations.valid(grant) for grant in first)


def test_a_hold_voids_what_was_given() -> None:
    """After a hold, slots that lie ahead are void, and new ones start at its end."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    given_before = [reserve(pace, rules, 0.0) for _ in range(30)]
    pace.hold(2.0, "429", 0.1)
    assert not any(pace.reservations.valid(grant) for grant in given_before)
    assert reserve(pace, rules, 0.2).at == pytest.approx(2.0)


def test_a_shorter_hold_does_not_shorten_a_longer_one() -> None:
    """The longest hold counts."""
    pace = Pace.new(0.0, 0.0, "b")
    pace.hold(60.0, "long", 0.0)
    pace.hold(1.0, "short", 0.0)
    assert (pace.hold_until, pace.hold_reason) == (60.0, "long")


def test_a_deadline_takes_nothing() -> None:
    """Who would wait too long is told how long, and the next one waits no longer for it."""
    rules, pace = [limit(1.0)], Pace.new(0.0, 0.0, "b")
    reserve(pace, rules, 0.0)
    answer = pace.reserve(rules, Ask(patience_seconds=0.5), 0.0)
    assert isinstance(answer, TooLate)
    assert answer.wait_seconds == pytest.approx(rules[0].interval_seconds)
    assert reserve(pace, rules, 0.0).at == pytest.approx(rules[0].interval_seconds)


def test_a_slow_endpoint_does_not_hold_up_the_others() -> None:
    """A call whose own limit is far ahead is asked to come again; it leaves no hole in what all share."""
    rules, pace = [limit(20.0), limit(0.5, name="slow", endpoints=("slow",))], Pace.new(0.0, 0.0, "b")
    reserve(pace, rules, 0.0, Ask("slow"))
    answer = pace.reserve(rules, Ask("slow"), 0.0)
    assert isinstance(answer, Later)
    assert answer.at > 1.5
    assert reserve(pace, rules, 0.0, Ask("fast")).at == pytest.approx(rules[0].interval_seconds)


def test_long_periods_are_counted_not_paced() -> None:
    """A day's quota may be used within an hour, and not one call more is sent within any day."""
    rules, pace = [Rule(Limit.parse("240/day"), 0.5)], Pace.new(0.0, 0.0, "b")
    now, sent = 0.0, []
    while now < 3 * 86_400.0:
        answer = pace.reserve(rules, Ask(), now)
        if isinstance(answer, Grant):
            sent.append(answer.at)
        now = max(now + 1.0, answer.at if isinstance(answer, (Grant, Later)) else now)
        pace = Pace.load(pace.dump(now, now), now, now, "b")
    assert sent[119] < 2 * 3600.0
    assert all(sent[i + 120] - sent[i] >= 86_400.0 for i in range(len(sent) - 120))
    assert len(sent) >= 3 * 120


@pytest.mark.parametrize(("text", "hours"), [("240/day", 25), ("240/month", 31 * 24 + 1)])
def test_a_window_may_be_longer_by_the_hour_of_a_clock_that_is_put_back(text: str, hours: int) -> None:
    """A vendor whose day begins at its own midnight has one of 25 hours each year, and permits no more in it."""
    rules, pace = [Rule(Limit.parse(text), 1.0)], Pace.new(0.0, 0.0, "b")
    now, sent = 0.0, []
    while len(sent) < 600:
        answer = pace.reserve(rules, Ask(), now)
        if isinstance(answer, Grant):
            sent.append(answer.at)
        now = answer.at
    assert all(later - first >= hours * 3600.0 for first, later in zip(sent, sent[240:], strict=False))


def test_money_is_paced_by_what_calls_count() -> None:
    """Calls of a twenty-thousandth of a dollar come by their price, and a throttle does not stop them for hours."""
    rules, pace = [Rule(Limit.parse("20 dollars/month"), 1.0)], Pace.new(0.0, 0.0, "b")
    ask = Ask(counts=(("dollars", 0.00005),))
    assert math.isinf(pace.present_rate(rules, 0.0))
    one, two = (reserve(pace, rules, 0.0, ask) for _ in range(2))
    step = 31 * 86_400.0 / 24 / 20 * 0.00005
    assert two.at - one.at == pytest.approx(step)
    assert pace.present_rate(rules, 0.0) == pytest.approx(1 / step)
    pace.throttle(rules, two, 1.0, "429", two.at)
    pace = Pace.load(pace.dump(two.at, two.at), two.at, two.at, "b")
    assert reserve(pace, rules, two.at, ask).at < two.at + 1.5
    others_know_it = reserve(pace, [], two.at, ask).at
    assert others_know_it < two.at + 2.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("text", "periods", "slowest"), [("600 points/min", 4, 2.0), ("20 points/s", 60, 0.2)]
)
def test_corrections_go_faster_and_no_window_holds_too_much(
    seed: int, text: str, periods: int, slowest: float
) -> None:
    """However answers come, a window holds at most what is permitted; more calls go into it than were booked."""
    chance = random.Random(seed)
    rules, pace = [Rule(Limit.parse(text), 1.0)], Pace.new(0.0, 0.0, "b")
    permitted, period = rules[0].limit.amount, rules[0].limit.period_seconds
    sent: list[tuple[float, float]] = []
    booked = 0.0
    events: list[tuple[float, int, Grant | None, float, float]] = [(0.0, n, None, 0.0, 0.0) for n in range(8)]
    while events and (now := events[0][0]) < periods * period:
        _, thread, grant, count, real = heapq.heappop(events)
        if grant is not None and grant.epoch >= 0 and now <= grant.at:
            if not pace.reservations.valid(grant):
                heapq.heappush(events, (now, thread, grant._replace(epoch=-1), count, real))
                continue
            sent.append((now, real))
            booked += count
            heapq.heappush(events, (now + chance.uniform(0.0, slowest), thread, grant, count, real))
            continue
        returned_at = grant.at if grant is not None and grant.epoch < 0 else math.inf
        returns = math.isfinite(returned_at)
        if grant is not None and not returns:
            told = Correction(grant.at, "", "points", parts_of(count), parts_of(real))
            pace.absorb(rules, 1.0, Tally(corrections=[told]), now)
        if not returns:
            count = chance.randint(1, 10)
            real = count if chance.random() < 0.2 else count * chance.choice([0.0, 0.1, 0.25])
        if chance.random() < 0.05:
            pace = Pace.load(pace.dump(now, now), now, now, "b")
        ask = Ask(counts=(("points", count),), returns=returns, returned_at=returned_at)
        answer = pace.reserve(rules, ask, now)
        if isinstance(answer, Grant):
            heapq.heappush(events, (answer.at, thread, answer, count, real))
        else:
            assert isinstance(answer, Later)
            heapq.heappush(events, (max(answer.at, now + 0.001), thread, None, 0.0, 0.0))
    for first, (at, _) in enumerate(sent):
        held = itertools.takewhile(lambda call: call[0] < at + period, sent[first:])  # noqa: B023  used at once
        assert sum(real for _, real in held) <= permitted + 1e-9
    assert booked > 1.2 * periods * permitted


def test_a_document_of_an_earlier_version_is_read() -> None:
    """Its counts are whole calls, and its slots count one."""
    rules, pace = [Rule(Limit.parse("10/h"), 1.0)], Pace.new(0.0, 0.0, "b")
    for n in range(3):
        reserve(pace, rules, 200.0 * n)
    found = json.loads(pace.dump(100.0, 100.0))
    old = {"account": [*found["tracks"]["account"][:3], 1, True, [[0.0, 2], [200.0, 1.0]]]}
    found |= {"tracks": old, "runs": [[200.0, 1.0, 1, 5, 0]], "last": [0.0, 3]}
    pace = Pace.load(json.dumps(found), 300.0, 300.0, "b")
    assert pace.tracks["account"].used == 3
    again = Pace.load(pace.dump(300.0, 300.0), 300.0, 300.0, "b")
    assert again.tracks["account"].used == 3
    assert again.reservations.passed == 200.0


def test_a_slot_that_was_not_used_is_given_back_to_a_counted_limit() -> None:
    """Asking again for a slot that was void does not use up the day's quota."""
    rules, pace = [Rule(Limit.parse("10/h"), 1.0)], Pace.new(0.0, 0.0, "b")
    for n in range(50):
        reserve(pace, rules, 200.0 * n / 50, Ask(returns=n > 0))


def test_the_strictest_setting_holds_while_it_is_seen() -> None:
    """Processes with different rates keep to the lowest of those seen within a minute."""
    fast, slow, pace = [limit(50.0)], [limit(5.0)], Pace.new(0.0, 0.0, "b")
    reserve(pace, slow, 0.0)
    one, two = reserve(pace, fast, 0.0).at, reserve(pace, fast, 0.0).at
    assert two - one == pytest.approx(slow[0].interval_seconds)
    one, two = reserve(pace, fast, 100.0).at, reserve(pace, fast, 100.0).at
    assert two - one == pytest.approx(fast[0].interval_seconds)


def test_auto_keeps_to_a_limit_that_another_process_knows() -> None:
    """A process without limits joins the limits of those that have them."""
    pace = Pace.new(0.0, 0.0, "b")
    reserve(pace, [limit(5.0)], 0.0)
    one, two = reserve(pace, [], 0.0).at, reserve(pace, [], 0.0).at
    assert two - one == pytest.approx(limit(5.0).interval_seconds)


def test_a_reboot_keeps_durations() -> None:
    """After a reboot the clock starts anew: a hold of a minute with half of it over lasts half a minute."""
    rules, pace = [limit(1.0)], Pace.new(5000.0, 1_000_000.0, "first")
    grant = reserve(pace, rules, 5000.0)
    pace.hold(5060.0, "429", 5000.0)
    body = pace.dump(5000.0, 1_000_000.0)
    after = Pace.load(body, 3.0, 1_000_030.0, "second")
    assert after.hold_until == pytest.approx(33.0)
    assert not after.reservations.valid(grant)
    assert reserve(after, rules, 3.0).at == pytest.approx(33.0)


def test_a_clock_that_goes_back_stops_nobody() -> None:
    """Where the database's clock is set back by an hour, nobody waits for an hour."""
    rules, pace = [limit(1.0)], Pace.new(5000.0, 5000.0, "b")
    for _ in range(3):
        reserve(pace, rules, 5000.0)
    after = Pace.load(pace.dump(5000.0, 5000.0), 1400.0, 1400.0, "b")
    assert 1400.0 <= reserve(after, rules, 1400.0).at <= 1404.0


def test_lost_state_is_inherited() -> None:
    """A new document takes over hold, rate, counts and arrival times from one that was lost; its slots are void."""
    rules = [limit(10.0), Rule(Limit(100, 3600.0, "hour"), 1.0)]
    lost = Pace.new(0.0, 0.0, "b")
    grant = reserve(lost, rules, 0.0)
    lost.hold(30.0, "429", 0.0)
    lost.tuning.mode, lost.tuning.rate = "plateau", 3.0
    new = Pace.new(1.0, 1.0, "b")
    new.inherit(lost, 1.0)
    assert not new.reservations.valid(grant)
    assert new.hold_until == 30.0
    assert new.rate(1.0) == 3.0
    assert sum(number for _, number in new.tracks["hour"].counts) == PARTS


def told(pace: Pace, rules: list[Rule], remaining: float, reset_seconds: float, now: float = 0.0) -> None:
    """An answer that tells what is left."""
    pace.hear(rules, 1.0, Statement("", now, 0, (Quota(remaining, reset_seconds),)), now)


def test_headers_steer_before_a_429() -> None:
    """Where the vendor's remaining calls would not last until its reset, the pace is what is left over the time."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    told(pace, rules, 50, 50.0)
    assert pace.rate(0.0) == pytest.approx(1.0)
    assert pace.rate(51.0) is None


def test_enough_remaining_changes_nothing() -> None:
    """Headers that leave more than our pace uses do not slow it down."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    told(pace, rules, 1000, 50.0)
    assert pace.rate(0.0) is None
    assert reserve(pace, rules, 0.0).at == 0.0


def test_nothing_remaining_holds() -> None:
    """No call left: nobody sends until the reset."""
    rules, pace = [limit(20.0)], Pace.new(0.0, 0.0, "b")
    told(pace, rules, 600, 30.0)
    told(pace, rules, 0, 30.0)
    assert pace.held_until(0.0) == pytest.approx(30.02)
    assert reserve(pace, rules, 0.0).at == pytest.approx(30.02)


@pytest.mark.parametrize("of_money", ["0.3 dollars/h", "3 dollars/month"])
def test_a_costly_call_that_waits_holds_up_no_free_one(of_money: str) -> None:
    """It reserves nothing of the calls that both take, and the first one waits for nothing."""
    texts = (of_money, "100/s")
    rules = [Rule(replace(Limit.parse(text), name=text), 1.0) for text in texts]
    pace = Pace.new(1000.0, 1000.0, "boot")
    free, paid = (Ask(counts=(("dollars", number),)) for number in (0.0, 0.3))
    moments = [reserve(pace, rules, 1000.0, ask).at for ask in (free, paid)]
    assert isinstance(pace.reserve(rules, paid, 1000.0), Later)
    moments += [reserve(pace, rules, 1000.0, free).at for _ in range(2)]
    step = rules[1].interval_seconds
    assert moments == pytest.approx([1000.0 + n * step for n in range(4)])
