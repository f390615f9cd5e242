"""Adaptation and breaker against vendors in simulated time."""

from __future__ import annotations

import itertools

import pytest

from vendor_assets.budget.adaptation import HIGHEST_RATE, PROBE_INTERVAL_SECONDS, Tally, Tuning
from vendor_assets.budget.breaker import PROBE_LIMIT_SECONDS, PROBE_SECONDS, Breaker
from vendor_assets.budget.limits import Limit
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.tracks import Rule
from vendor_assets_tests.support.vendor_model import Bucket, FixedWindow, Outage, Queue, play


def believed(text: str) -> list[Rule]:
    """The limit that is believed."""
    return [Rule(Limit.parse(text), 1.0)]


@pytest.mark.parametrize(
    "vendor", [Bucket(20, 20), Bucket(20, 1), FixedWindow(20, 1.0)], ids=["bucket", "strict", "fixed"]
)
def test_half_of_what_was_believed_is_found(vendor: Bucket | FixedWindow) -> None:
    """With half the believed limit and no headers, few calls are refused and the real rate is used."""
    story = play(vendor, 300.0, rules=believed("40/s"), threads=8)
    assert story.count("throttled") / len(story.sent) < 0.005
    assert story.rate(60.0, 300.0) > 0.9 * 20


def test_a_quota_by_the_minute_is_found() -> None:
    """In fixed windows of a minute a refusal lasts until the next one; still few are refused."""
    story = play(FixedWindow(1000, 60.0), 600.0, rules=believed("2000/min"), threads=8)
    assert story.count("throttled") / len(story.sent) < 0.005
    assert story.rate(60.0, 600.0) > 0.9 * 1000 / 60


def test_a_limit_that_is_kept_is_left_alone() -> None:
    """A vendor that permits what is believed is used at the full pace, without any adaptation."""
    story = play(Bucket(20, 1), 60.0, rules=believed("20/s"), threads=8)
    assert story.count("throttled") == 0
    assert story.pace.tuning.mode == "free"
    assert story.rate(1.0, 60.0) == pytest.approx(20 / 1.02, rel=0.01)


@pytest.mark.long
def test_the_way_back_up_is_taken() -> None:
    """When the vendor permits more again, the rate returns to what the limit says within some minutes."""
    vendor = Bucket(20, 1)

    def grow() -> None:
        vendor.rate = 40.0

    story = play(vendor, 1500.0, rules=believed("40/s"), threads=8, at=[(100.0, grow)])
    assert story.pace.tuning.mode == "free"
    assert story.rate(1300.0, 1500.0) > 0.95 * 40


@pytest.mark.parametrize("seed", range(4))
def test_auto_follows_a_vendor_that_only_collapses(seed: int) -> None:
    """Capacity 50, then 20, then 80, no 429 ever: no outage, and most of it used after a minute at each level."""
    vendor = Queue(50.0, seed=seed)

    def become(capacity: float) -> None:
        vendor.capacity = capacity

    story = play(vendor, 360.0, at=[(120.0, lambda: become(20.0)), (240.0, lambda: become(80.0))])
    assert vendor.outages == 0
    for start, capacity in ((60.0, 50.0), (180.0, 20.0), (300.0, 80.0)):
        assert story.rate(start, start + 60.0) > 0.8 * capacity


def test_auto_finds_a_limit_that_is_not_told() -> None:
    """Where the only sign is a 429, it is found, and then left alone for ten minutes."""
    story = play(Bucket(20, 20), 700.0, threads=8)
    assert story.rate(120.0, 600.0) > 0.9 * 20
    assert story.count("throttled", 150.0, 600.0) <= 1


def test_auto_remembers() -> None:
    """The next run starts with what was found, not at the bottom."""
    vendor = Queue(50.0)
    story = play(vendor, 90.0)
    body = story.pace.dump(90.0, 90.0)
    again = play(vendor, 30.0, pace=Pace.load(body, 100.0, 100.0, "b"), start=100.0)
    assert again.rate(100.0, 110.0) > 0.6 * 50


def test_auto_leaves_the_others_their_share() -> None:
    """With a share of a half, about half of the capacity that was found is used."""
    vendor = Queue(50.0)
    story = play(vendor, 240.0, share=0.5)
    assert 0.35 * 50 < story.rate(60.0, 120.0) < 0.65 * 50


def test_an_outage_is_probed_one_at_a_time() -> None:
    """During an outage a probe goes every few seconds; after it the full rate is back at once."""
    story = play(Outage(Bucket(20, 20), 30.0, 60.0), 120.0, rules=believed("20/s"), threads=8)
    assert story.count("failed", 33.0, 60.0) <= 27.0 / PROBE_SECONDS + 1
    assert story.rate(65.0, 120.0) > 0.98 * 20 / 1.02


def test_faults_here_and_there_do_not_open_the_breaker() -> None:
    """A vendor that fails one call in five is not down."""
    breaker = Breaker()
    for n in range(1000):
        breaker.absorb(n % 5 != 0, int(n % 5 == 0), n * 0.05)
    assert not breaker.open


def test_a_probe_that_was_killed_is_given_up() -> None:
    """Where the process that sent the probe is gone, another probe goes after a minute."""
    breaker = Breaker()
    for n in range(10):
        breaker.absorb(succeeded=False, failures=1, now=float(n))
    breaker.probe(20.0)
    assert breaker.free_at() == 20.0 + PROBE_LIMIT_SECONDS


def test_strain_cuts_once_per_interval() -> None:
    """Many signs at once are one cut; the next comes ten seconds later at the earliest."""
    tuning = Tuning()
    for n in range(9):
        tuning.strain(100.0 + n, 20.0)
    assert tuning.rate == pytest.approx(14.0)
    tuning.strain(111.0, 14.0)
    assert tuning.rate == pytest.approx(9.8)


def test_success_brings_the_rate_back() -> None:
    """After a cut by strain the rate is back at the limit within a minute."""
    tuning, tally = Tuning(), Tally(answered=20, latencies={"": [20, 0.2]})
    tuning.strain(0.0, 20.0)
    for n in range(1, 40):
        tuning.absorb(tally, float(n), 20.0, 1.0)
    assert tuning.mode == "free"


def test_slow_answers_are_strain() -> None:
    """Latency far above its baseline cuts the rate of a vendor with a known limit, too."""
    tuning = Tuning()
    for n in range(10):
        tuning.absorb(Tally(answered=20, latencies={"": [20, 0.4]}), float(n), 20.0, 1.0)
    assert tuning.rate is None
    for n in range(10, 15):
        tuning.absorb(Tally(answered=20, latencies={"": [20, 40.0]}), float(n), 20.0, 1.0)
    assert tuning.mode == "recover"


def test_a_slow_endpoint_is_not_strain() -> None:
    """Each endpoint has its own baseline: going from quick lists to slow data is no strain."""
    tuning = Tuning()
    for n in range(10):
        tuning.absorb(Tally(answered=20, latencies={"list": [20, 0.2]}), float(n), 20.0, 1.0)
    for n in range(10, 20):
        tuning.absorb(Tally(answered=20, latencies={"data": [20, 60.0]}), float(n), 20.0, 1.0)
    assert tuning.mode == "free"


def test_holds_grow_while_nothing_else_is_known() -> None:
    """Refused again and again without a word, holds double, up to a minute."""
    tuning = Tuning()
    holds = [tuning.throttle(float(n), 20.0) for n in range(9)]
    assert holds == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_one_cut_for_throttles_in_a_row() -> None:
    """Calls that are refused before any succeeds are one sign."""
    tuning = Tuning()
    for n in range(5):
        tuning.throttle(float(n), 20.0)
    assert tuning.rate == pytest.approx(19.0)


def test_a_second_throttle_soon_cuts_deep() -> None:
    """Refused once may be chance; refused again before much was answered, the rate is far too high."""
    tuning = Tuning()
    tuning.throttle(0.0, 20.0)
    tuning.absorb(Tally(answered=3), 1.1, 20.0, 1.0)
    tuning.throttle(1.2, 19.0)
    assert tuning.rate == pytest.approx(0.7 * 19.0)


@pytest.mark.long
def test_a_rate_that_was_throttled_is_not_tried_for_ten_minutes() -> None:
    """At most one probe past a refused rate in ten minutes."""
    vendor = Bucket(20, 1)
    story = play(vendor, 1300.0, rules=believed("40/s"), threads=4)
    late = [at for at, outcome in story.sent if outcome == "throttled" and at > 120.0]
    assert all(b - a > 0.9 * PROBE_INTERVAL_SECONDS for a, b in itertools.pairwise(late))


def test_tuning_survives_its_dump() -> None:
    """What was learnt is written and read without loss."""
    tuning = Tuning(mode="plateau", rate=3.5, baseline={"a": 0.1}, throttled_at=3.0)
    assert Tuning(**tuning.dump()) == tuning
    assert Tuning().dump() == {}
    assert HIGHEST_RATE > 1000


@pytest.mark.parametrize(("cut_at", "undone"), [(95.0, True), (99.5, True), (80.0, False)])
def test_a_cut_just_before_an_outage_is_taken_back(cut_at: float, undone: bool) -> None:
    """What looked like strain was the beginning of an outage: once the vendor is back the rate is as before the cut."""
    pace = Pace.new(0.0, 0.0, "boot")
    pace.tuning.strain(cut_at, 40.0)
    cut = pace.tuning.rate or 0.0
    assert cut < 30.0
    pace.breaker.opened_at = 100.0
    pace.breaker.success_at = 99.0
    answer = Tally()
    answer.send(103.5)
    answer.add("", 0.05, alive=True, answered=True, now=103.55)
    pace.absorb(believed("40/s"), 1.0, answer, 103.6)
    assert not pace.breaker.open
    assert pace.tuning.rate == pytest.approx(40.0 if undone else cut, rel=0.1)
    assert pace.tuning.low == pytest.approx(40.0 if undone else cut, rel=0.1)
