"""Falls: vendors that give no sign before they go down, in simulated time; and each rule by itself."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.budget.adaptation import Tally
from vendor_assets.budget.falls import AGAIN_SECONDS, HOLDS_SECONDS, Falls
from vendor_assets.budget.limits import Limit
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.reservations import Ask, Grant
from vendor_assets.budget.tracks import Rule
from vendor_assets_tests.support.vendor_model import Fragile, Story, play

BEARS = 6.0
"""Calls per second that the vendors here bear."""


def live(
    vendor: Fragile, rate: str = "auto", *, seconds: float = 600.0, shrinks: float = 0.0, **options: Any
) -> tuple[Story, float]:
    """Ten minutes with a vendor: what happened, and the part used of what could be had, after the first minute."""
    rules = [] if rate == "auto" else [Rule(Limit.parse(rate), 1.0)]
    bore = vendor.bears
    at = [(300.0, lambda: setattr(vendor, "bears", shrinks))] if shrinks else []
    story = play(vendor, seconds, rules=rules, at=at, **options)
    possible = bore * (240.0 if shrinks else seconds - 60.0) + 300.0 * shrinks
    return story, story.count("ok", 60.0) / possible


@pytest.mark.parametrize("rate", ["auto", pytest.param("20/s", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("window of 1 s", {"window": 1.0}),
        ("window of 10 s", {"window": 10.0}),
        ("looks every 2 s, 8 processes", {"looks": 2.0, "processes": 8}),
        ("latency of 1 s", {"latency": 1.0}),
        ("hangs", {"failure": None}),
        ("down for 2 min", {"down": 120.0}),
        ("longer each time, 8 processes", {"longer": 2.0, "processes": 8}),
        ("half fails while overrun", {"down": 0.0, "failing": 0.5}),
        ("half fails for 1 min, 8 processes", {"down": 60.0, "failing": 0.5, "processes": 8}),
        ("half hangs", {"failing": 0.5, "failure": None}),
        ("shrinks", {"shrinks": 0.7 * BEARS}),
    ],
)
def test_a_vendor_that_gives_no_sign_falls_once(rate: str, kind: str, options: dict[str, Any]) -> None:
    """One outage in ten minutes at most, and a third of what can be had without one is used after a minute."""
    mine = {name: options[name] for name in ("processes", "shrinks") if name in options}
    vendor = Fragile(BEARS, **{name: value for name, value in options.items() if name not in mine})
    if rate != "auto" and "shrinks" in mine:
        mine["shrinks"] = 0.8 * BEARS
    _, used = live(vendor, rate, **mine)
    assert len(vendor.outages) == 1, kind
    assert used > 1 / 3, kind


@pytest.mark.parametrize("retry_after", [2.0, 10.0])
@pytest.mark.parametrize("rate", ["auto", "20/s"])
def test_a_vendor_that_asks_to_wait_while_it_is_down_falls_twice_at_most(
    rate: str, retry_after: float
) -> None:
    """Where 503 with Retry-After comes again it is no limit that was met, but a vendor that fell."""
    vendor = Fragile(BEARS, retry_after=retry_after)
    _, used = live(vendor, rate)
    assert len(vendor.outages) <= 2
    assert used > 0.1


@pytest.mark.parametrize("options", [{"window": 1.0}, {"down": 60.0, "failing": 0.5, "processes": 8}])
def test_a_configured_limit_that_is_too_high_falls_once(options: dict[str, Any]) -> None:
    """The same with a configured limit; the other kinds of vendors are tried at length."""
    test_a_vendor_that_gives_no_sign_falls_once("20/s", "configured", options)


def test_a_configured_limit_far_too_high_falls_once() -> None:
    """Ten times what the vendor bears brings it down once."""
    vendor = Fragile(BEARS)
    _, used = live(vendor, "60/s")
    assert len(vendor.outages) == 1
    assert used > 1 / 3


def test_the_ceiling_outlives_everything_in_the_hours_after() -> None:
    """Another run, five hours later and after a reboot, does not bring the vendor down again."""
    vendor = Fragile(BEARS)
    story, _ = live(vendor, seconds=100.0)
    body = story.pace.dump(100.0, 1000.0)
    later = 5 * 3600.0
    assert len(vendor.outages) == 1
    vendor = Fragile(BEARS)
    again = play(vendor, 120.0, pace=Pace.load(body, 20.0, 1000.0 + later, "other"), start=20.0)
    assert not vendor.outages
    assert again.rate(40.0, 140.0) > BEARS / 3


def test_a_vendors_own_outage_costs_no_rate() -> None:
    """A known limit that was borne is used in full again, within ten seconds after an outage, but not at once."""
    vendor = Fragile(1000.0, outside=[(60.0, 90.0)])
    story, _ = live(vendor, "14/s", seconds=130.0)
    back = next(at for at, outcome in story.sent if outcome == "ok" and at >= 90.0)
    assert story.rate(back, back + 1.0) < 0.5 * 14
    assert story.rate(back + 10.0, 130.0) > 0.97 * 14
    assert story.pace.falls.ceiling is None


def test_a_second_outage_soon_after_is_ours() -> None:
    """Where a known limit falls again within the hour, the ceiling holds although it was borne."""
    vendor = Fragile(1000.0, outside=[(60.0, 80.0), (140.0, 160.0)])
    story, _ = live(vendor, "14/s", seconds=300.0)
    assert story.pace.falls.ceiling == pytest.approx(7.0, rel=0.1)
    assert story.rate(170.0, 300.0) < 7.2


def test_an_unknown_vendor_is_approached_slowly() -> None:
    """While nothing is known, the calls of any five seconds are at most twice those of the five before."""
    story = play(Fragile(1000.0), 40.0)
    counts = [story.count("ok", 5.0 * n, 5.0 * n + 5.0) for n in range(8)]
    assert all(b <= 2 * a + 2 for a, b in itertools.pairwise(counts))
    assert counts[-1] > 4 * counts[0]


def test_calls_that_fail_at_any_rate_slow_nobody_down_for_good() -> None:
    """Where three calls in ten fail however few are sent, the rate is not what makes them fail."""
    story, _ = live(Fragile(0.001, down=0.0, failing=0.3), "5/s", seconds=900.0)
    assert story.pace.falls.ceiling is None
    assert story.rate(600.0, 900.0) > 0.5 * 5


def fallen(rate: float, *, at: float = 100.0, falls: Falls | None = None, known: bool = False) -> Falls:
    """What is known after ten seconds at a rate and the failures that follow."""
    falls = falls or Falls()
    for n in range(10):
        falls.count(Counter({round(4 * (at - 10 + n)): round(rate)}), Counter(), at - 10 + n)
    falls.count(Counter(), Counter({round(4 * at): 10}), at + 0.2)
    falls.fall(at + 0.2, known=known)
    return falls


def answer(falls: Falls, now: float) -> None:
    """Many answers."""
    falls.look(100, now, known=False)


@given(rate=st.integers(10, 2000), passed=st.floats(0.0, HOLDS_SECONDS - 1))
def test_at_most_half_for_hours(rate: int, passed: float) -> None:
    """Calls go on at a quarter of the rate at which the vendor fell, and never pass half of it before hours."""
    falls = fallen(rate)
    falls.come_back(110.0, rate)
    answer(falls, 110.0)
    first, later = falls.permitted(110.0), falls.permitted(min(110.0 + passed, falls.until))
    assert first == pytest.approx(rate / 4, rel=0.2)
    assert later is not None
    assert first <= later <= 0.55 * rate


@given(rate=st.integers(40, 2000), number=st.integers(2, 8))
def test_each_further_fall_halves(rate: int, number: int) -> None:
    """However often the vendor falls, the ceiling is at most half of the one before; it does not go to nothing."""
    falls, at, heights = fallen(rate), 100.0, []
    for _ in range(number):
        heights.append(falls.ceiling or 0.0)
        at += 100.0
        falls.come_back(at - 50.0, rate)
        answer(falls, at - 40.0)
        fallen(rate, at=at, falls=falls)
    least = rate / 16
    assert all(b <= a / 2 or b == pytest.approx(least, rel=0.3) for a, b in itertools.pairwise(heights))
    assert heights[-1] >= 0.7 * least


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30), st.integers(0, 30)), max_size=30))
def test_what_is_known_survives_its_dump(calls: Sequence[tuple[int, int, int]]) -> None:
    """Whatever was seen is written and read without loss, and no order of failures is an error."""
    falls, now = Falls(), 0.0
    for seconds, sent, failed in calls:
        now += seconds / 4
        falls.count(Counter({round(4 * now): sent}), Counter({round(4 * now) - seconds: failed}), now)
        falls.look(max(0, sent - failed), now, known=False)
    assert Falls(**falls.dump()) == falls
    assert Falls().dump() == {}


def test_the_ceiling_rises_after_hours_and_is_forgotten_at_last() -> None:
    """After six hours the ceiling doubles each hour, until it says nothing any more."""
    falls = fallen(100)
    height = falls.height(falls.until + 3600.0)
    assert falls.ceiling is not None
    assert height == pytest.approx(2 * falls.ceiling)
    falls.look(0, falls.until + 4 * 3600.0, known=False)
    assert falls.ceiling is None


def test_the_reason_is_said() -> None:
    """A person learns at which rate the vendor fell, when, and how long the ceiling holds."""
    falls = fallen(100)
    said = falls.reason(160.2, datetime(2026, 11, 25, 9, 13, tzinfo=UTC))
    assert "on 2026-11-25 at 09:12 UTC" in said
    assert "until 2026-11-25 15:12 UTC" in said
    falls.forget()
    assert falls.reason(160.2, datetime(2026, 11, 25, 9, 13, tzinfo=UTC)) == ""


def test_a_few_failures_are_no_fall() -> None:
    """Resets within half a second, or one call in ten that fails, change nothing."""
    falls = Falls()
    for n in range(400):
        now = n / 4
        falls.count(Counter({n: 5}), Counter({n: 1} if n % 2 else {}), now)
        falls.look(5, now, known=False)
    falls.count(Counter({400: 5, 401: 5}), Counter({400: 4, 401: 4}), 100.4)
    falls.look(2, 100.4, known=False)
    assert falls.fell_at is None


def test_a_slow_trickle_is_not_blamed() -> None:
    """Where far more was borne within the last hour, a fall at a low rate is the vendor's own."""
    falls = Falls()
    for n in range(60):
        falls.count(Counter({4 * n: 40}), Counter(), float(n))
        falls.look(40, float(n), known=False)
    fallen(5, at=80.0, falls=falls)
    assert falls.ceiling is None


def rules_of(rate: str) -> list[Rule]:
    """A limit that is believed."""
    return [Rule(Limit.parse(rate), 1.0)]


def test_what_was_sent_before_an_outage_does_not_end_it() -> None:
    """An answer that comes during an outage, to a call from before, frees nobody; nor do its failures start another."""
    rules, pace = rules_of("20/s"), Pace.new(0.0, 0.0, "b")
    for n in range(10):
        tally = Tally()
        tally.send(10.0)
        tally.add("", 0.1, alive=False, answered=False, now=10.1 + n / 100)
        pace.absorb(rules, 1.0, tally, 10.1 + n / 100)
    assert pace.breaker.open
    late = Tally()
    late.add("", 3.0, alive=True, answered=True, now=11.0)
    pace.absorb(rules, 1.0, late, 11.0)
    assert pace.breaker.open
    probe = Tally()
    probe.add("", 0.1, alive=True, answered=True, now=14.0)
    pace.absorb(rules, 1.0, probe, 14.0)
    assert not pace.breaker.open
    old = Tally()
    for _ in range(20):
        old.add("", 9.0, alive=False, answered=False, now=15.0)
    pace.absorb(rules, 1.0, old, 15.0)
    assert not pace.breaker.open


def test_a_lost_document_takes_the_ceiling_along() -> None:
    """A new document knows how the vendor fell, and that it is down."""
    lost = Pace.new(0.0, 0.0, "b")
    lost.falls = fallen(100)
    lost.breaker.opened_at = 100.0
    new = Pace.new(101.0, 101.0, "b")
    new.inherit(lost, 101.0)
    assert new.falls.ceiling == lost.falls.ceiling
    assert new.breaker.open
    assert not isinstance(new.reserve(rules_of("20/s"), Ask(), 101.0), Grant) or new.breaker.open


def test_a_document_of_before_is_read() -> None:
    """A document that knows nothing of falls is read as one without any."""
    body = Pace.new(0.0, 0.0, "b").dump(0.0, 0.0).replace(',"falls":{}', "")
    assert Pace.load(body, 1.0, 1.0, "b").falls == Falls()


def test_falls_are_forgotten_after_an_hour_where_nothing_came_of_them() -> None:
    """A known limit that was borne is trusted again once the last outage is an hour ago."""
    vendor = Fragile(1000.0, outside=[(60.0, 80.0)])
    story, _ = live(vendor, "5/s", seconds=100.0)
    falls = story.pace.falls
    assert falls.fell_at is not None
    now = falls.fell_at + AGAIN_SECONDS + 100.0
    falls.shift(0.0)
    fallen(5, at=now, falls=falls, known=True)
    assert falls.ceiling is None
