"""What the budget promises over each of its databases; time is a fake clock's, which is the database's too."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vendor_assets.budget import Backlog, Budget, Leases, Limit, Sample
from vendor_assets.budget.breaker import PROBE_SECONDS
from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database, documents, metadata
from vendor_assets.budget.in_flight import TTL_SECONDS, InFlightShares
from vendor_assets.budget.reservations import Ask
from vendor_assets.errors import (
    BudgetDeadlineError,
    BudgetError,
    BudgetUnavailableError,
    ConfigurationError,
    StoppedError,
)
from vendor_assets_tests.support.clock import FakeClock
from vendor_assets_tests.support.postgres import PostgresServer, postgres_server, required_postgres

__all__ = ["postgres_server"]

STEP = Limit.parse("20/s").interval_seconds(1.0)
WEIGHED_STEP = 0.05 * (60 + 0.02 + 1) / 60
"""Of 1,200 in a minute, where calls may count differently: a sixtieth of the window is kept free."""


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/deep/budget.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database() as url:
        yield url


class Account:
    """Processes that share one account, as budgets that share one clock."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock()
        self.stack = ExitStack()

    def member(self, **changes: Any) -> Budget:
        """One more process."""
        arguments: dict[str, Any] = {"limits": [Limit.parse("20/s")], "share": 1.0, "clock": self.clock}
        budget = Budget(self.url, "acme", **(arguments | changes))
        self.stack.callback(budget.close)
        return budget

    def call(
        self,
        budget: Budget,
        *,
        status: int | None = 200,
        headers: dict[str, str] | None = None,
        counted: dict[str, float] | None = None,
        **slot: Any,
    ) -> float:
        """One call; returns when it was sent."""
        with budget.slot(**slot) as taken:
            sent = self.clock.now
            taken.observe(
                status=status, headers=headers or {}, seconds=0.0, error=status is None, counted=counted
            )
        return sent


@pytest.fixture
def account(database_url: str) -> Iterator[Account]:
    """An account nobody has used yet."""
    account = Account(database_url)
    with account.stack:
        yield account


def test_processes_share_one_pace(account: Account) -> None:
    """Two processes that take turns are spaced like one."""
    one, two = account.member(), account.member()
    sent = [account.call(budget) for _ in range(10) for budget in (one, two)]
    assert [b - a for a, b in itertools.pairwise(sent)] == pytest.approx([STEP] * 19, abs=1e-4)


def test_a_call_counts_what_it_says(account: Account) -> None:
    """Of a limit in another unit a call takes as much as it counts: five, one where it says nothing, or nothing."""
    limits = [Limit.parse("1200 queries/min")]
    one, two = account.member(limits=limits), account.member(limits=limits)
    counts = [5, 1, 2, 5, 0, 0, 3, 1, 1, 4]
    sent = [
        account.call(budget, counts={"queries": number} if number != 1 else None)
        for number, budget in zip(counts, itertools.cycle((one, two)), strict=False)
    ]
    free = 0.0
    for at, number in zip(sent, counts, strict=True):
        if number:
            assert at >= free - 1e-6
            free = max(at, free) + number * WEIGHED_STEP
    assert sent[-1] - sent[0] == pytest.approx(sum(counts[:-1]) * WEIGHED_STEP, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "most"), [("100 points/min", 60), ("180000 points/s", 100_800), ("3000 queries/min", 25)]
)
def test_no_period_holds_more_however_differently_calls_count(account: Account, text: str, most: int) -> None:
    """Also with a share of 1, where small calls go before a large one; evenly counting ones use nearly all."""
    limit = Limit.parse(text)
    budgets = itertools.cycle((account.member(limits=[limit]), account.member(limits=[limit])))
    chance = random.Random(3)
    sent: list[tuple[float, int]] = []
    for number in range(80):
        counted = most if number >= 40 else chance.choice([1, most // 10, most // 2, most])
        sent.append((account.call(next(budgets), counts={limit.unit: counted}), counted))
    for first, (at, _) in enumerate(sent):
        held = itertools.takewhile(lambda call: call[0] < at + limit.period_seconds, sent[first:])  # noqa: B023
        assert sum(counted for _, counted in held) <= limit.amount
    fitting = limit.amount // most * most
    periods = (sent[-1][0] - sent[40][0]) / limit.period_seconds
    assert sum(counted for _, counted in sent[40:-1]) >= 0.96 * fitting * periods


def test_calls_that_count_nothing_are_not_paced(account: Account) -> None:
    """However many there are, and though the rate in calls is not known."""
    budget = account.member(limits=[Limit.parse("20 queries/s")])
    start = account.clock.now
    for _ in range(200):
        account.call(budget, counts={"queries": 0})
        account.clock.advance(0.002)
    assert account.clock.now - start < 1.0
    assert budget.state().rate is None


def test_a_limit_of_some_endpoints_holds_up_nothing_else(account: Account) -> None:
    """Lists keep to theirs over two processes, while data goes on at the account's own."""
    limits = Limit.parse_all(["20/s", "60/min for hosts+tags"])
    one, two = account.member(limits=limits), account.member(limits=limits)
    sent: dict[str, list[float]] = {"hosts": [], "data": []}
    budgets = itertools.cycle((one, two))
    for _ in range(4):
        sent["hosts"].append(account.call(next(budgets), endpoint="hosts"))
        sent["data"] += [account.call(next(budgets), endpoint="data") for _ in range(9)]
    lists = [b - a for a, b in itertools.pairwise(sent["hosts"])]
    assert min(lists) >= 1.0
    assert max(lists) < 1.1
    data = sorted(sent["data"])
    assert min(b - a for a, b in itertools.pairwise(data)) == pytest.approx(STEP, abs=1e-4)


def test_a_months_quota_that_is_used_up_is_not_waited_for(account: Account) -> None:
    """Who accepts a day's wait is told at once how long it would be; after that time the next call is permitted."""
    budget = account.member(limits=Limit.parse_all(["5 dollars/month", "20/s"]))
    for _ in range(5):
        account.call(budget, counts={"dollars": 1})
        account.clock.advance(7 * 3600.0)
    account.call(budget, counts={"dollars": 0})
    before = account.clock.now
    with pytest.raises(
        BudgetDeadlineError, match=r"would wait 3[01] d.* longer than 26 h: the quota is used up"
    ):
        account.call(budget, counts={"dollars": 1}, deadline_seconds=26 * 3600.0)
    assert account.clock.now - before < 1.0
    account.clock.advance(32 * 86_400.0)
    account.call(budget, counts={"dollars": 1}, deadline_seconds=26 * 3600.0)


def test_a_limit_in_money_takes_the_last_call_that_fits(account: Account) -> None:
    """Three tenths of a dollar are three calls of a tenth, over processes and restarts; a fourth waits for a month."""
    limits = Limit.parse_all(["0.3 dollars/month", "20/s"])
    price = {"counts": {"dollars": 0.1}, "deadline_seconds": 26 * 3600.0}
    first, second = account.member(limits=limits), account.member(limits=limits)
    for budget in (first, second, first):
        account.call(budget, **price)
        account.clock.advance(11 * 3600.0)
    first.close()
    with pytest.raises(BudgetDeadlineError, match=r"would wait 30 d"):
        account.call(second, **price)
    state = second.state()
    assert str(state.used["0.3 dollars/month"]) == "0.30 dollars of 0.30 dollars, 0.00 dollars left"
    assert state.per_call == {"dollars": pytest.approx(0.1)}
    assert state.permitted_rate == pytest.approx(3 / (31 * 86_400.0))
    account.clock.advance(32 * 86_400.0)
    account.call(account.member(limits=limits), **price)


@pytest.mark.parametrize("number", [1, 5])
def test_what_is_voided_gives_back_no_more_than_it_took(account: Account, number: int) -> None:
    """After a hold the next call still comes after all that the last one counted."""
    budget = account.member(limits=[Limit.parse("20 queries/s")])
    first = account.call(budget, counts={"queries": number})
    budget._document.change(lambda pace, now: pace.void_all(now))
    with budget.slot(counts={"queries": number}):
        budget._document.change(lambda pace, now: pace.void_all(now))
        second = account.clock.now
    assert second - first >= number * STEP - 1e-6
    assert account.call(budget, counts={"queries": 1}) - second >= number * STEP - 1e-6


def test_a_counted_limit_counts_what_a_call_says(account: Account) -> None:
    """A day's quota of another unit is used up by calls that count several."""
    budget = account.member(limits=[Limit.parse("10 points/day")])
    for _ in range(2):
        account.call(budget, counts={"points": 4})
    with pytest.raises(BudgetDeadlineError):
        account.call(budget, counts={"points": 4}, deadline_seconds=3600)
    account.call(budget, counts={"points": 2}, deadline_seconds=7200)


def test_what_was_booked_too_much_is_free_again(account: Account) -> None:
    """A call that was taken for 15 queries and counted 2 holds up the next one, of another process, for 2."""
    limits = [Limit.parse("20 queries/s")]
    one, two = account.member(limits=limits), account.member(limits=limits)
    first = account.call(one, counts={"queries": 15}, counted={"queries": 2})
    second = account.call(two, counts={"queries": 1})
    assert second - first == pytest.approx(2 * 0.05 * (1 + 0.02 + 1 / 60), abs=1e-3)
    # The 13 that are free are no burst: a window holds no more than 20, and what was before is not known.
    third = account.call(one, counts={"queries": 15})
    assert third - second >= STEP - 1e-6
    assert account.call(two, counts={"queries": 20}) - third >= 15 * STEP - 1e-6


@pytest.mark.parametrize("status", [200, 429, 500])
def test_what_was_booked_too_little_is_booked_as_well(account: Account, status: int) -> None:
    """A call that was taken for one query and counted 30 holds up all others for 30, also if it was refused."""
    limits = [Limit.parse("20 queries/s")]
    one, two = account.member(limits=limits), account.member(limits=limits)
    first = account.call(
        one, status=status, headers={"Retry-After": "0.1"}, counts={"queries": 1}, counted={"queries": 30}
    )
    two._document.change(lambda pace, now: pace.void_all(now))
    assert account.call(two, counts={"queries": 1}) - first >= 30 * STEP - 1e-3
    assert two.state().learnt == {"queries": 30.0}


def test_a_window_is_corrected(account: Account) -> None:
    """A day's points are what answers told; where nothing was told, or nonsense, it is what was booked."""
    limits = [Limit.parse("10 points/day")]
    one, two = account.member(limits=limits), account.member(limits=limits)
    for counted in ({"points": 0.3}, {"points": 0.1}, {"points": float("nan"), "requests": 7}, {}):
        account.call(one, counts={"points": 4}, counted=counted)
        account.clock.advance(3600.0)
        account.call(two, counts={"points": 0}, counted={"points": 0.1})
    assert two.state().used == {"account": (pytest.approx(8.8, abs=1e-9), 10, "points")}
    assert account.call(two, counts={"points": 1.2}, deadline_seconds=3600.0)
    with pytest.raises(BudgetDeadlineError):
        account.call(one, counts={"points": 0.000001}, deadline_seconds=3600.0)


@pytest.mark.parametrize("limit", ["10 points/h", "600 points/min"])
def test_who_waits_elsewhere_hears_that_something_is_free(account: Account, limit: str) -> None:
    """A process that waits for what another has booked too much goes on within a second of the answer."""
    limits = [Limit.parse(limit)]
    one, two = account.member(limits=limits), account.member(limits=limits)
    most = limits[0].amount
    account.call(one, counts={"points": 1}, counted={"points": 0.5})
    account.clock.advance(3600.0)
    booked = one.slot(counts={"points": most})
    booked.__enter__()
    answered_at = account.clock.now + 5.0
    answered = False

    def answer_meanwhile() -> bool:
        nonlocal answered
        if account.clock.now >= answered_at and not answered:
            answered = True
            booked.observe(status=200, headers={}, seconds=5.0, counted={"points": 0.01})
            booked.__exit__(None, None, None)
        return False

    sent = account.call(two, counts={"points": 1}, stopped=answer_meanwhile)
    assert answered
    assert answered_at <= sent <= answered_at + 1.1


def test_who_is_killed_before_the_answer_leaves_what_was_booked(account: Account) -> None:
    """What a call really counted is not known then."""
    limits = [Limit.parse("10 points/day")]
    with account.member(limits=limits).slot(counts={"points": 4}):
        pass
    assert account.member(limits=limits).state().used == {"account": (4, 10, "points")}


def test_only_a_correction_is_written_and_once(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """No write more where nothing is corrected, one where something is; it is the refusal's where there is one."""
    budget = account.member(limits=[Limit.parse("20 queries/s")])
    writes: list[str] = []
    swap = Database.swap

    def counting(self: Database, account: str, part: str, version: int | None, body: str) -> bool:
        writes.append(part)
        return swap(self, account, part, version, body)

    account.call(budget)
    account.clock.advance(10.0)
    monkeypatch.setattr(Database, "swap", counting)

    def written(**call: Any) -> int:
        account.call(budget, counts={"queries": 2}, **call)
        found = writes.count("pace")
        writes.clear()
        account.clock.advance(10.0)
        return found

    assert [written(), written(counted={"queries": 2.0}), written(counted={"queries": 1})] == [1, 1, 2]
    refused = {"status": 429, "headers": {"Retry-After": "1"}}
    assert written(**refused) == written(**refused, counted={"queries": 1})


class LateClock(FakeClock):
    """Wakes sleepers late, by a rule: every tenth by 14 ms."""

    naps = 0

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        super().sleep(seconds + (0.014 if self.naps % 10 == 0 else 0.0))


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_late_calls_keep_their_distance(database_url: str, share: float) -> None:
    """However late a process wakes, its calls are never closer than the vendor's limit spaces them, but for jitter."""
    account = Account(database_url)
    account.clock = LateClock()
    limit = Limit.parse("20/s")
    with account.stack:
        budget = account.member(share=share)
        sent = [account.call(budget) for _ in range(60)]
    assert min(b - a for a, b in itertools.pairwise(sent)) > 1 / limit.rate - 0.002
    assert len(sent) / (sent[-1] - sent[0]) > 0.9 * share * limit.rate


class OvertakenClock(FakeClock):
    """While somebody waits, another one does something, which takes its time."""

    other: Callable[[], object] | None = None

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        super().wait(condition, seconds)
        other, self.other = self.other, None
        if other is not None:
            other()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.95])
def test_who_was_alone_is_late_no_more_once_another_process_calls(
    database_url: str, share: float, told: bool
) -> None:
    """It hears of the other's place only when it renews its own; a late call would meet a punctual one until then.

    ``told``: another thread changes the pace in between, so that no look is needed.
    """
    account = Account(database_url)
    account.clock = clock = OvertakenClock()
    with account.stack:
        first, second = account.member(share=share), account.member(share=share)
        sent = [account.call(first) for _ in range(5)]

        def other() -> None:
            sent.append(account.call(second))
            if told:
                first._document.change(lambda _pace, _now: None)

        clock.other = other
        sent += [account.call(first) for _ in range(5)]
    assert min(b - a for a, b in itertools.pairwise(sorted(sent))) > 1 / 20 - 0.002


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("work_class", ["scheduled", "backfill"])
def test_a_database_that_is_far_away_is_waited_for(
    account: Account, monkeypatch: pytest.MonkeyPatch, work_class: str, processes: int
) -> None:
    """Where each statement takes 40 ms, as on another continent, calls go on and keep their distance."""
    near = Database.run

    def far(database: Database, *arguments: Any, **named: Any) -> Any:
        account.clock.now += 0.02
        result = near(database, *arguments, **named)
        account.clock.now += 0.02
        return result

    monkeypatch.setattr(Database, "run", far)
    budgets = [account.member(limits=[Limit.parse("2/s")]) for _ in range(processes)]
    sent = [
        account.call(budget, work_class=work_class, deadline_seconds=9.0)
        for _ in range(3)
        for budget in budgets
    ]
    assert min(b - a for a, b in itertools.pairwise(sent)) > 0.49


def test_who_gives_up_waits_no_longer_and_takes_nothing_from_others(account: Account) -> None:
    """A caller that is stopped while it waits ends within half a second; who comes later still gets the next slot."""
    limit = Limit.parse("1/min")
    budget = account.member(limits=[limit])
    started = account.call(budget)
    with pytest.raises(StoppedError, match="given up"):
        account.call(budget, stopped=lambda: account.clock.now >= started + 3.0)
    assert account.clock.now <= started + 3.6
    # The slot that was reserved for it is lost.
    assert account.call(budget) <= started + 2.1 / limit.rate
    assert budget.state().in_flight == 0


def in_stock(account: Account, budget: Budget, **slot: Any) -> list[float]:
    """Call twice as slowly as the limit of 2,000 a second permits, so that slots are due before they are asked for."""
    sent = []
    for _ in range(200):
        sent.append(account.call(budget, **slot))
        account.clock.advance(0.001)
    return sent


def test_slots_in_stock_keep_their_distance(account: Account) -> None:
    """What was reserved and not used in time is never used to catch up."""
    budget = account.member(limits=[Limit.parse("2000/s")])
    in_stock(account, budget)
    account.clock.advance(0.03)
    sent = [account.call(budget) for _ in range(100)]
    step = Limit.parse("2000/s").interval_seconds(1.0)
    # A call that is a millisecond late does not push the next one.
    assert all(after - before > 10 * step - 0.002 for before, after in zip(sent, sent[10:], strict=False))


def test_slots_in_stock_are_void_after_a_hold(account: Account) -> None:
    """A process with reserved slots hears of another's 429 before it uses one."""
    one, two = (account.member(limits=[Limit.parse("2000/s")]) for _ in range(2))
    account.call(two)
    for _ in range(3):
        in_stock(account, one)
        account.call(two, status=429, headers={"Retry-After": "5"})
        held_at = account.clock.now
        account.clock.advance(0.025)
        assert account.call(one) >= held_at + 5.0 - 0.1


def test_slots_in_stock_are_for_their_class_and_who_wants_them(account: Account) -> None:
    """A backfill's call does not take a scheduled one's slot, and one that nobody wants any more takes none."""
    budget = account.member(limits=[Limit.parse("2000/s")])
    for _ in range(10):
        in_stock(account, budget)
        with budget.slot(work_class="backfill") as slot:
            assert slot._grant.backfill_epoch is not None
        with pytest.raises(StoppedError):
            budget.slot(stopped=lambda: True).__enter__()


def test_slots_in_stock_do_not_raise_the_cap(account: Account) -> None:
    """However many slots are in stock, no more calls are in flight at once than may be."""
    budget = account.member(limits=[Limit.parse("2000/s")], max_in_flight=2)
    in_stock(account, budget)
    asked = itertools.count()
    with budget.slot(), budget.slot(), pytest.raises(StoppedError):
        budget.slot(stopped=lambda: next(asked) > 3).__enter__()


def test_accounts_do_not_share(account: Account) -> None:
    """Another account in the same database has its own pace."""
    other = Budget(account.url, "other", limits=[Limit.parse("20/s")], share=1.0, clock=account.clock)
    account.stack.callback(other.close)
    account.call(account.member())
    start = account.clock.now
    assert account.call(other) - start == pytest.approx(0.0, abs=1e-3)


def test_accounts_of_one_user_share_calls_at_once_alone(account: Account) -> None:
    """While one has the user's only call in flight the other waits; its pace and holds are its own."""
    shared = {"limits": [Limit.parse("20/s")], "share": 1.0, "max_in_flight": 1, "clock": account.clock}
    one, two = (Budget(account.url, name, in_flight_of="user", **shared) for name in ("one", "two"))  # type: ignore[arg-type]
    for budget in (one, two):
        account.stack.callback(budget.close)
    with one.slot():
        with pytest.raises(BudgetDeadlineError), two.slot(deadline_seconds=1.0):
            pass
        one._dispatch.renew()
        assert two.state().in_flight == 1
    one._dispatch.renew()
    account.clock.advance(TTL_SECONDS)
    account.call(one, status=429, headers={"Retry-After": "30"})
    account.clock.advance(TTL_SECONDS)
    start = account.clock.now
    first, second = account.call(two), account.call(two)
    assert first - start < 1.0
    assert second - first == pytest.approx(STEP, abs=0.01)
    assert one.state().hold_seconds > 20.0


def test_a_restart_does_not_start_with_a_full_bucket(account: Account) -> None:
    """State outlives the process: the first call of a new one waits for the interval of the old one's last."""
    first = account.member()
    last = account.call(first)
    first.close()
    assert account.call(account.member()) - last == pytest.approx(STEP, abs=1e-4)


def test_the_share_is_ours(account: Account) -> None:
    """With a share of a half, half of the limit is used and permitted."""
    budget = account.member(share=0.5)
    sent = [account.call(budget) for _ in range(3)]
    assert sent[2] - sent[1] == pytest.approx(2 * STEP, abs=1e-4)
    assert budget.state().permitted_rate == 10.0


@pytest.mark.parametrize("status", [429, 503, 403])
def test_a_hold_stops_everyone(account: Account, status: int) -> None:
    """After a 429, or a 503 or 403 with Retry-After, nobody sends before the time the vendor named."""
    one, two = account.member(), account.member()
    account.call(two)
    held_at = account.call(one, status=status, headers={"retry-after": "3"})
    assert account.call(two) - held_at == pytest.approx(3.02, abs=0.01)
    assert two.state().hold_seconds == 0.0


def test_a_throttle_is_what_the_client_calls_one(account: Account) -> None:
    """Where the client knows better than the status, that counts: a 200 may be a throttle, and a 403 none."""
    budget = account.member()
    with budget.slot() as slot:
        slot.observe(status=403, headers={"Retry-After": "30"}, seconds=0.0, throttled=False)
    assert budget.state().hold_seconds == 0.0
    with budget.slot() as slot:
        slot.observe(status=200, headers={"Retry-After": "30"}, seconds=0.0, throttled=True)
    assert budget.state().hold_seconds == pytest.approx(30.0, abs=0.1)


def test_a_hold_is_shown_with_its_reason(account: Account) -> None:
    """The state says that everyone is held, for how long and why."""
    budget = account.member()
    account.call(budget, status=429, headers={"Retry-After": "30"})
    state = budget.state()
    assert state.hold_seconds == pytest.approx(30.0, abs=0.1)
    assert "429" in state.hold_reason
    assert "429" in state.why


def test_a_429_without_retry_after_holds_for_a_second(account: Account) -> None:
    """Garbage and silence are a second at first."""
    budget = account.member()
    held_at = account.call(budget, status=429, headers={"Retry-After": "soon"})
    assert account.call(budget) - held_at == pytest.approx(1.0, abs=0.01)


def test_new_relics_reset_holds(account: Account) -> None:
    """A 429 with X-RateLimit-Reset, a UNIX timestamp, holds until then."""
    budget = account.member()
    reset = str(int(account.clock.wall()) + 20)
    headers = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    held_at = account.call(budget, status=429, headers=headers)
    assert 19.0 < account.call(budget) - held_at < 21.0


def test_remaining_calls_steer(account: Account) -> None:
    """Headers that leave ten calls for a minute slow everybody down before any 429."""
    one, two = account.member(), account.member()
    account.call(one, headers={"X-RateLimit-Remaining": "10", "X-RateLimit-Reset": "60"})
    sent = [account.call(two) for _ in range(3)]
    assert sent[2] - sent[1] == pytest.approx(6.0, rel=0.1)
    assert "headers" in two.state().why


def test_what_holds_the_pace_down_is_said(account: Account, caplog: pytest.LogCaptureFixture) -> None:
    """A pace far below the limit is told with its reason: in the log once, and in the state, until it is over."""
    budget, other = account.member(), account.member()
    start = account.clock.now
    for n in range(150):
        passed = account.clock.now - start
        account.call(budget, headers={"RateLimit": f'"d";r={600 - n};t={600 - passed:.0f}'})
    state = other.state()
    assert "below half of the permitted 20 calls/s: the vendor's headers leave" in state.slowed
    warnings = [record.getMessage() for record in caplog.records if "are slow" in record.getMessage()]
    assert len(warnings) == 1, warnings
    assert "the vendor's headers leave" in warnings[0]
    account.clock.sleep(700.0)
    account.call(budget)
    account.clock.sleep(1.0)
    account.call(budget)
    assert other.state().slowed == ""


def test_a_policy_that_is_told_is_a_limit(account: Account) -> None:
    """Our share of what the vendor says of its limit is kept by every process, without a limit of its own too."""
    one, two, unknowing = (account.member(share=0.5, **more) for more in ({}, {}, {"limits": "auto"}))
    account.call(one, headers={"RateLimit-Policy": '"a";q=60;w=60, "b";q=9;w=1'})
    sent = [account.call(budget) for budget in (two, unknowing, one, two)]
    assert [b - a for a, b in itertools.pairwise(sent)] == pytest.approx([2.0] * 3, rel=0.01)
    assert "its limit: 0.5 of 60/min" in two.state().why
    assert unknowing.state().rate == pytest.approx(0.5, rel=0.01)


def test_a_deadline_is_told_at_once(account: Account) -> None:
    """Who would wait longer than acceptable learns it without waiting, and takes nothing."""
    budget = account.member(limits=[Limit.parse("6/min")])
    sent = account.call(budget)
    before = account.clock.now
    with pytest.raises(BudgetDeadlineError, match="nothing was taken"), budget.slot(deadline_seconds=2.0):
        pass
    assert account.clock.now - before < 0.5
    assert account.call(budget) - sent == pytest.approx(Limit.parse("6/min").interval_seconds(1.0), abs=1e-3)


def test_a_deadline_that_can_be_met_is_kept(account: Account) -> None:
    """Within the deadline the slot is given."""
    budget = account.member()
    account.call(budget)
    with budget.slot(deadline_seconds=0.2) as slot:
        assert slot.waited_seconds == pytest.approx(STEP, abs=1e-3)


def test_calls_in_flight_are_capped_over_processes(account: Account) -> None:
    """With a cap of two, a third call waits for one of the others, whatever process it is in."""
    one, two = account.member(max_in_flight=2), account.member(max_in_flight=2)
    with one.slot(), two.slot():
        for budget in (one, two):
            with pytest.raises(BudgetDeadlineError), budget.slot(deadline_seconds=1.0):
                pass
        one._dispatch.renew()
        two._dispatch.renew()
    account.clock.advance(1.0)
    one._dispatch.renew()
    two._dispatch.renew()
    with one.slot(deadline_seconds=2.0), two.slot(deadline_seconds=2.0):
        pass


def test_the_share_of_a_killed_process_falls_to_the_others(account: Account) -> None:
    """A process that renews no more loses its share of the calls in flight after five seconds."""
    dead, alive = account.member(max_in_flight=1), account.member(max_in_flight=1)
    dead.slot().__enter__()
    with pytest.raises(BudgetDeadlineError), alive.slot(deadline_seconds=1.0):
        pass
    account.clock.advance(TTL_SECONDS)
    with alive.slot(deadline_seconds=1.0):
        pass


def test_scheduled_work_goes_before_backfills(account: Account) -> None:
    """Slots that a backfill reserved far ahead go to scheduled work that comes later."""
    backfill, scheduled = account.member(), account.member()
    backfill._dispatch._reserve([Ask(backfill=True)] * 30, Ask(backfill=True), 30)
    start = account.clock.now
    assert scheduled.state().ahead_seconds > 50 * STEP
    assert account.call(scheduled) - start < 2 * STEP


def test_the_breaker_lets_one_probe_through(account: Account) -> None:
    """After failures without end one process probes every few seconds, the others wait; a success frees all."""
    one, two = account.member(), account.member()
    for _ in range(10):
        account.call(one, status=None)
        account.clock.advance(0.3)
        one._dispatch.renew()
    assert two.state().breaker == "open"
    assert "down" in two.state().why
    first = account.call(one, status=500)
    second = account.call(two, status=500)
    assert second - first >= PROBE_SECONDS - 0.01
    third = account.call(one, status=200)
    assert third - second >= PROBE_SECONDS - 0.01
    assert two.state().breaker == "closed"
    assert account.call(two) - third < 2 * STEP


def test_a_probe_that_raises_frees_the_way(account: Account) -> None:
    """A caller that leaves its slot without a word has not kept the others from probing."""
    budget = account.member()
    for _ in range(10):
        account.call(budget, status=None)
        account.clock.advance(0.3)
        budget._dispatch.renew()
    with budget.slot():
        pass
    before = account.clock.now
    account.call(budget)
    assert account.clock.now - before <= PROBE_SECONDS + 0.6


def test_a_long_quota_is_counted(account: Account) -> None:
    """A quota by the hour is used up at some pace, then waits for the window, over processes and restarts."""
    quota = Limit(10, 3600.0, "hour")
    budget = account.member(limits=[Limit.parse("20/s"), quota])
    sent = [account.call(budget) for _ in range(5)]
    budget.close()
    other = account.member(limits=[Limit.parse("20/s"), quota])
    sent += [account.call(other) for _ in range(5)]
    assert other.state().used == {"hour": (10, 10, "requests")}
    with pytest.raises(BudgetDeadlineError), other.slot(deadline_seconds=600.0):
        pass
    assert 3600.0 <= account.call(other) - sent[0] <= 3700.0


def test_different_settings_keep_to_the_strictest(account: Account) -> None:
    """Processes configured with different rates keep to the lowest one that was seen within a minute."""
    slow, fast = account.member(limits=[Limit.parse("2/s")]), account.member()
    account.call(slow)
    sent = [account.call(fast) for _ in range(3)]
    assert sent[2] - sent[1] == pytest.approx(Limit.parse("2/s").interval_seconds(1.0), abs=1e-3)


def test_auto_starts_low(account: Account) -> None:
    """Without a limit the first calls go slowly, and the state says why."""
    budget = account.member(limits="auto")
    sent = [account.call(budget) for _ in range(3)]
    assert sent[2] - sent[1] == pytest.approx(0.5, rel=0.1)
    state = budget.state()
    assert "no limit is known" in state.why
    assert state.permitted_rate is not None
    assert state.permitted_rate > 0


def test_a_reboot_is_survived(account: Account) -> None:
    """After a reboot the hold that was in force goes on for what is left of it."""
    budget = account.member()
    account.call(budget, status=429, headers={"Retry-After": "60"})
    if not budget._database.is_sqlite:
        pytest.skip("PostgreSQL's clock is not the machine's")
    account.clock.reboot(down_seconds=20.0)
    after = account.member()
    start = account.clock.now
    assert account.call(after) - start == pytest.approx(40.0, abs=0.5)


def test_many_threads_lose_nothing(database_url: str) -> None:
    """Changes by many threads over many connections are all made, each once."""
    databases = [Database(database_url) for _ in range(8)]

    def count(database: Database) -> None:
        for _ in range(25):
            database.change("a", "p", lambda snapshot: (str(int(snapshot.body or 0) + 1), None))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, databases))
    assert databases[0].read("a", "p").body == "200"
    for database in databases:
        database.close()


def test_a_swap_of_an_old_version_is_refused(database_url: str) -> None:
    """Compare and swap: who read before somebody else wrote must read again."""
    database = Database(database_url)
    assert database.swap("a", "p", None, "1")
    assert not database.swap("a", "p", None, "2")
    assert database.swap("a", "p", 1, "3")
    assert not database.swap("a", "p", 1, "4")
    assert database.read("a", "p").body == "3"
    database.close()


def test_real_threads_stay_below_the_cap(database_url: str) -> None:
    """Forty threads of two processes never have more than five calls in flight."""
    budgets = [
        Budget(database_url, "acme", limits=[Limit.parse("2000/s")], share=1.0, max_in_flight=5)
        for _ in range(2)
    ]
    lock = threading.Lock()
    in_flight: list[int] = [0]
    peaks: list[int] = []

    def call(budget: Budget) -> None:
        for _ in range(5):
            with budget.slot():
                with lock:
                    in_flight[0] += 1
                    peaks.append(in_flight[0])
                time.sleep(0.002)
                with lock:
                    in_flight[0] -= 1

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(call, 20 * budgets))
    for budget in budgets:
        budget.close()
    assert len(peaks) == 200
    assert max(peaks) <= 5


def test_a_share_that_shrinks_is_not_used_before_its_process_hears_of_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process gives back is another's at once, while its own threads ask for slots.

    The answer of the database is late: between the change and the answer the other process takes what became free.
    """
    one, two = (
        Budget(database_url, "acme", limits=[Limit.parse("2000/s")], share=1.0, max_in_flight=2)
        for _ in range(2)
    )
    monkeypatch.setattr(one._dispatch._heartbeat, "start", lambda renew: None)
    change = one._dispatch._change_shares
    has_slot = threading.Event()

    def call() -> None:
        with one.slot():
            has_slot.set()

    caller = threading.Thread(target=call)

    def answer_late(step: Callable[[InFlightShares, float], Any]) -> Any:
        answer = change(step)
        monkeypatch.undo()
        with two.slot():
            caller.start()
            assert not has_slot.wait(1.0)
        return answer

    with one.slot(), one.slot():
        pass
    with one.slot():
        one._dispatch._renew()
        monkeypatch.setattr(one._dispatch, "_change_shares", answer_late)
        one._dispatch._renew()
    caller.join()
    assert has_slot.is_set()
    for budget in (one, two):
        budget.close()


def test_a_closed_budget_keeps_the_share_of_calls_in_flight(database_url: str) -> None:
    """Nobody else sends in place of a call that still goes on after its budget was closed."""
    one, two = (
        Budget(database_url, "acme", limits=[Limit.parse("2000/s")], share=1.0, max_in_flight=1)
        for _ in range(2)
    )
    with one.slot():
        one.close()
        with pytest.raises(BudgetDeadlineError), two.slot(deadline_seconds=1):
            pass
    with two.slot(deadline_seconds=30):
        pass
    two.close()


def test_closing_frees_those_who_wait(database_url: str) -> None:
    """A thread that waits for its slot is told when the budget is closed."""
    budget = Budget(database_url, "acme", limits=[Limit.parse("1/min")], share=1.0)
    with budget.slot():
        pass
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            with budget.slot():
                pass
        except BudgetError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not budget._dispatch._in_flight.reserved:
        time.sleep(0.005)
    budget.close()
    thread.join(120)
    assert "closed" in str(errors[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_is_a_member_of_its_own(database_url: str) -> None:
    """The child of a fork has its own connection and share of the calls in flight; the parent goes on undisturbed."""
    budget = Budget(database_url, "acme", limits=[Limit.parse("200/s")], share=1.0)
    with budget.slot():
        pass
    holder = budget.holder
    child = os.fork()
    if child == 0:
        try:
            with budget.slot():
                os._exit(0 if budget.holder != holder else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with budget.slot():
        pass
    assert budget.holder == holder
    budget.close()


CHILD = """
import os, sys
from vendor_assets.budget import Budget, Limit
budget = Budget(sys.argv[1], "acme", limits=[Limit.parse("50/s")], share=1.0, max_in_flight=4)
import threading
def run():
    while True:
        with budget.slot():
            os.write(1, b"sent\\n")  # at once: lines of several threads do not mix
for _ in range(4):
    threading.Thread(target=run).start()
"""


def test_a_kill_leaves_nothing_behind(database_url: str) -> None:
    """After kill -9 of a process that had all calls in flight, another one is served."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, database_url], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            for _ in range(5):
                assert child.stdout.readline() == "sent\n"
        finally:
            child.send_signal(signal.SIGKILL)
    budget = Budget(database_url, "acme", limits=[Limit.parse("50/s")], share=1.0, max_in_flight=4)
    with budget.slot(deadline_seconds=TTL_SECONDS + 20.0):
        pass
    budget.close()


# -- leases and backlog ---------------------------------------------------------------------------


def test_a_lease_lapses_when_it_is_not_renewed(database_url: str) -> None:
    """A lease is alive for its time to live after each renewal, then has lapsed."""
    clock = FakeClock()
    leases = Leases(database_url, clock=clock)
    with leases.hold("run-1", info={"host": "a"}):
        state = leases.holder("run-1")
        assert state is not None
        assert (state.lapsed, dict(state.info)) == (False, {"host": "a"})
        clock.advance(10.5)
        state = leases.holder("run-1")
        assert state is not None
        assert state.lapsed
        assert state.age_seconds == pytest.approx(10.5)
        leases.renew("run-1", {"host": "a"})
        state = leases.holder("run-1")
        assert state is not None
        assert not state.lapsed
    assert leases.holder("run-1") is None


def test_watching_sees_a_renewal(database_url: str) -> None:
    """A holder that renews is alive as soon as it is seen to."""
    leases = Leases(database_url, ttl_seconds=5.0, renew_seconds=0.05)
    with leases.hold("run-1", info={}):
        assert leases.watch("run-1")


def test_watching_a_dead_holder_ends_after_its_time(database_url: str) -> None:
    """A holder that renews no more is dead once its lease has lapsed; one that never was is at once."""
    clock = FakeClock()
    leases = Leases(database_url, clock=clock)
    leases.renew("run-1", {})
    start = clock.now
    assert not leases.watch("run-1")
    assert 9.0 < clock.now - start < 11.0
    assert not leases.watch("nobody")
    assert [state.holder for state in leases.all()] == ["run-1"]
    leases.forget("run-1")
    assert leases.all() == []


def test_watching_can_be_stopped(database_url: str) -> None:
    """A run that is told to stop does not watch any longer."""
    clock = FakeClock()
    leases = Leases(database_url, clock=clock)
    leases.renew("run-1", {})
    start = clock.now
    assert leases.watch("run-1", lambda: True)
    assert clock.now - start < 1.0


def test_a_lease_from_the_future_lapses(database_url: str) -> None:
    """Where the database's clock is set back, the dead are not alive until it has caught up; who lives renews."""
    clock = FakeClock()
    leases = Leases(database_url, clock=clock)
    for holder in ("dead", "alive"):
        leases.renew(holder, {})
    clock.now -= 900.0
    leases.renew("alive", {})
    assert {lease.holder: lease.lapsed for lease in leases.all()} == {"alive": False, "dead": True}
    assert not leases.watch("dead")


def test_the_backlog_is_kept_in_order(database_url: str) -> None:
    """Samples are read from a moment on, oldest first, and forgotten when too old."""
    backlog = Backlog(database_url)
    start = datetime(2026, 11, 20, tzinfo=UTC)
    samples = [Sample(start + timedelta(minutes=n), f"run {n}", n, 2, 3, 4, 5, 6 * n) for n in range(5)]
    backlog.append(samples[2:])
    backlog.append(samples[:2])
    backlog.append([])
    assert backlog.read(start + timedelta(minutes=1)) == samples[1:]
    backlog.forget_before(start + timedelta(minutes=3))
    assert backlog.read(start) == samples[3:]
    backlog.close()


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(hours=-2)])
def test_the_backlog_of_a_machine_whose_clock_is_off_counts(
    postgres_server: PostgresServer, ahead: timedelta
) -> None:
    """Its samples are those of now for whoever reads them, not of the future, nor long gone."""

    class Off(Clock):
        def wall(self) -> float:
            return super().wall() + ahead.total_seconds()

    with postgres_server.database() as url:
        there, here = Backlog(url, clock=Off()), Backlog(url)
        now = datetime.now(UTC)
        there.append([Sample(now + ahead, "run", 7)])
        (found,) = here.read(now - timedelta(hours=1))
        assert (found.troops, abs(found.time - now) < timedelta(minutes=10)) == (7, True)
        here.forget_before(now - timedelta(hours=1))
        there.forget_before(now + ahead - timedelta(hours=1))
        (again,) = there.read(now + ahead - timedelta(hours=1))
        assert abs(again.time - now - ahead) < timedelta(minutes=10)
        there.close()
        here.close()


def test_accounts_of_one_database_have_a_backlog_each(database_url: str) -> None:
    """What one account reads or forgets is its own, whatever the others are called."""
    start = datetime(2026, 11, 20, tzinfo=UTC)
    backlogs = {name: Backlog(database_url, name) for name in ("", "prod", "prod_2", "pr%d")}
    for number, backlog in enumerate(backlogs.values()):
        backlog.append([Sample(start, "run", number)])
    backlogs["prod"].forget_before(start + timedelta(minutes=1))
    found = {name: [(s.source, s.troops) for s in backlog.read(start)] for name, backlog in backlogs.items()}
    assert found == {"": [("run", 0)], "prod": [], "prod_2": [("run", 2)], "pr%d": [("run", 3)]}
    for backlog in backlogs.values():
        backlog.close()


# -- databases that break -------------------------------------------------------------------------


def test_a_deleted_file_does_not_split_the_limit(tmp_path: Path) -> None:
    """Processes that had the file open move to the new one before their next call, with what they know."""
    account = Account(f"sqlite:///{tmp_path}/budget.db")
    old = account.member()
    account.call(old, status=429, headers={"Retry-After": "60"})
    held_at = account.clock.now
    (tmp_path / "budget.db").unlink()
    new = account.member()
    assert account.call(old) - held_at == pytest.approx(60.0, abs=0.1)
    sent = [account.call(budget) for _ in range(3) for budget in (old, new)]
    assert all(b - a > 0.99 * STEP for a, b in itertools.pairwise(sent))
    account.stack.close()


_READS = """
import sys
from vendor_assets.budget.database import Database

database = Database(sys.argv[1])
for line in sys.stdin:
    print(database.read("a", "p").body, flush=True)
"""


def test_a_deleted_log_does_not_split_the_database(tmp_path: Path) -> None:
    """Where SQLite's log is deleted under a process, it and one that opens the file then see each other's changes.

    SQLite itself deletes another file's where a mount covered a folder: it tells files apart by their inodes' numbers.
    """
    url = f"sqlite:///{tmp_path}/budget.db"
    database = Database(url)
    assert database.swap("a", "p", None, "one")
    for name in ("budget.db-wal", "budget.db-shm"):
        (tmp_path / name).unlink()
    command = [sys.executable, "-c", _READS, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        print(file=other.stdin, flush=True)
        other.stdout.readline()
        found = database.read("a", "p")
        assert database.swap("a", "p", found.version, "two")
        print(file=other.stdin, flush=True)
        assert other.stdout.readline() == "two\n"
        other.stdin.close()
    database.close()


def test_a_folder_that_is_moved_while_its_file_is_opened_does_not_split_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was opened is the one that lies there, or it is opened again."""
    folder = tmp_path / "folder"
    database = Database(f"sqlite:///{folder}/budget.db")
    connect = Database._connect

    def connect_and_move(self: Database) -> Any:
        monkeypatch.setattr(Database, "_connect", connect)
        connection = connect(self)
        folder.rename(tmp_path / "away")
        folder.mkdir()
        sqlite3.connect(folder / "budget.db").close()
        return connection

    monkeypatch.setattr(Database, "_connect", connect_and_move)
    assert database.swap("a", "p", None, "one")
    other = Database(f"sqlite:///{folder}/budget.db")
    assert other.read("a", "p").body == "one"
    other.close()
    database.close()


def test_what_a_database_lost_is_noticed_after_others_have_changed_it(account: Account) -> None:
    """As after the failover to a copy that lacks the last changes, where others were first to call."""
    old, new = account.member(), account.member()
    account.call(old)
    database = Database(account.url, account.clock)
    before = database.read("acme", "pace")
    account.call(old, status=429, headers={"Retry-After": "60"})
    held_at = account.clock.now
    earlier = documents.update().where(documents.c.part == "pace")
    earlier = earlier.values(version=before.version, body=before.body)
    database.run(lambda connection: connection.execute(earlier))
    for _ in range(8):
        account.call(new)
    assert (database.read("acme", "pace").version or 0) > (before.version or 0) + 6
    assert account.call(old) - held_at == pytest.approx(60.0, abs=0.1)
    database.close()


@pytest.mark.parametrize(
    ("part", "newer"),
    [
        ("pace", {"format": 99}),
        ("pace", {"tracks": {"x": [1, 2, 3, "x", True, [], 1, 2, 3, 4, 5, 6]}}),
        ("places", {"members": {"x": {"a_field": 1}}}),
    ],
)
def test_what_a_newer_release_wrote_is_told_in_one_line(
    account: Account, part: str, newer: dict[str, Any]
) -> None:
    """An older process beside it sends nothing more, loses no answer, says what to do, and changes nothing."""
    old = account.member()
    account.call(old)
    database = Database(account.url, account.clock)
    text = json.dumps(json.loads(database.read("acme", part).body) | newer)
    written = sa.update(documents).where(documents.c.part == part).values(body=text)
    with old.slot() as taken:
        database.run(lambda connection: connection.execute(written))
        account.clock.advance(1.0)
        taken.observe(status=200, headers={}, seconds=1.0, error=False)
    account.clock.advance(60.0)
    with pytest.raises(BudgetError, match="the budget of acme cannot be read by this release"):
        account.call(old)
    assert database.read("acme", part).body == text
    database.close()


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("default_transaction_read_only = on", "no copy for reading"),
        ("search_path = pg_catalog", "give its user the right to make and change tables"),
    ],
)
def test_a_server_that_takes_no_writes_says_what_to_do(
    postgres_server: PostgresServer, setting: str, advice: str
) -> None:
    """It does run, so that is not what to look at."""
    with postgres_server.database() as url:
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"), poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET {setting}")
        with pytest.raises(BudgetUnavailableError, match=advice):
            Leases(url, ttl_seconds=0.1).renew("run", {})


def test_a_locked_file_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program, as one that makes a backup, has it."""
    monkeypatch.setattr("vendor_assets.budget.database._BUSY_SECONDS", 0.01)
    url = f"sqlite:///{tmp_path}/budget.db"
    Leases(url).renew("run", {})
    with contextlib.closing(sqlite3.connect(tmp_path / "budget.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BudgetUnavailableError, match="see which program keeps it locked"):
            Leases(url, ttl_seconds=0.1).renew("run", {})


def test_a_server_that_is_gone_without_a_word_is_not_waited_for(postgres_server: PostgresServer) -> None:
    """Its machine lost its power: the kernel alone would wait for minutes or hours; an address may say otherwise."""
    with postgres_server.database() as url:
        for address, expected in ((url, "20000"), (f"{url}?tcp_user_timeout=7000", "7000")):
            database = Database(address)
            driver = database.run(lambda connection: connection.connection.dbapi_connection)
            assert driver is not None
            assert driver.get_dsn_parameters()["tcp_user_timeout"] == expected  # type: ignore[attr-defined]
            assert driver.get_dsn_parameters()["keepalives_idle"] == "10"  # type: ignore[attr-defined]
            database.close()


@pytest.mark.parametrize("moment", ["connecting", "making tables", "later"])
def test_a_server_that_falls_silent_is_not_waited_for(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It is frozen, or a pooler goes on without it: the connection stays and nothing comes, also to its first words."""
    monkeypatch.setattr("vendor_assets.budget.database._SILENT_SECONDS", 0.5)
    stopped: list[int] = []

    def stop(process: int) -> None:
        os.kill(process, signal.SIGSTOP)
        stopped.append(process)

    def stop_connecting(connection: Any, _record: object) -> None:
        stop(connection.info.backend_pid)

    def stop_making(_tables: object, connection: Any, **_: object) -> None:
        stop(connection.connection.dbapi_connection.info.backend_pid)

    def resume() -> None:
        for process in stopped:
            os.kill(process, signal.SIGCONT)

    with postgres_server.database() as url, ThreadPoolExecutor(1) as pool:
        database = Database(url, patience_seconds=1.0)
        with ExitStack() as silence:
            silence.callback(resume)
            if moment == "later":
                stop(database.run(lambda connection: connection.scalar(sa.text("SELECT pg_backend_pid()"))))
                stop(int((postgres_server.folder / "postmaster.pid").read_text().split()[0]))
            else:
                event: Any = (sa.Pool, "connect", stop_connecting)
                event = event if moment == "connecting" else (metadata, "before_create", stop_making)
                sa.event.listen(*event)
                silence.callback(sa.event.remove, *event)
            said = "timeout" if moment == "later" else "server closed the connection"
            with pytest.raises(BudgetUnavailableError, match=f"{said}.*see that it runs"):
                pool.submit(database.read, "acme", "pace").result(timeout=60)
        assert stopped
        assert database.read("acme", "pace").version is None
        database.close()


@pytest.mark.parametrize("end", ["closed", "collected"])
def test_nobody_watches_a_database_that_is_no_more(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Its thread ends with it."""
    monkeypatch.setattr("vendor_assets.budget.database._SILENT_SECONDS", 0.5 if end == "collected" else 1e4)
    before = set(threading.enumerate())
    with postgres_server.database() as url:
        database = Database(url)
        database.read("acme", "pace")
        (watch,) = set(threading.enumerate()) - before
        if end == "closed":
            database.close()
        del database
        gc.collect()
        watch.join(timeout=60)
        assert not watch.is_alive()


def test_a_database_from_a_backup_forgets_no_call(account: Account) -> None:
    """What an hour's quota had counted since then is known to whoever called, and to the others by that."""
    limits = [Limit.parse("10/h")]
    one, other = account.member(limits=limits), account.member(limits=limits)
    sent = [account.call(one) for _ in range(3)]
    database = Database(account.url, account.clock)
    backup = database.read("acme", "pace")
    account.clock.sleep(60.0)
    sent += [account.call(one) for _ in range(5)]
    held_until = account.clock.now + 90.0
    account.call(one, status=429, headers={"Retry-After": "90"})
    restored = sa.update(documents).where(documents.c.part == "pace")
    row = {"version": backup.version, "body": backup.body}
    database.run(lambda connection: connection.execute(restored.values(row)))
    sent += [account.call(one), *(account.call(other) for _ in range(2))]
    assert sent[8] >= held_until
    assert all(sent[at + 9] - sent[at] >= 3600.0 for at in range(2))
    database.close()


def test_a_new_file_made_by_a_newcomer_is_joined(tmp_path: Path) -> None:
    """Where a new process made the new file first, the old one brings in its hold."""
    account = Account(f"sqlite:///{tmp_path}/budget.db")
    old = account.member()
    account.call(old)
    (tmp_path / "budget.db").unlink()
    new = account.member()
    account.call(new)
    sent = [account.call(budget) for _ in range(3) for budget in (old, new)]
    assert all(b - a > 0.99 * STEP for a, b in itertools.pairwise(sent))
    account.stack.close()


def test_a_corrupt_file_is_put_aside(tmp_path: Path) -> None:
    """A file that is no database is kept under another name, and a new one is made."""
    path = tmp_path / "budget.db"
    content = b"not a database at all, but long enough to be read as a header" * 50
    path.write_bytes(content)
    account = Account(f"sqlite:///{path}")
    account.call(account.member())
    account.stack.close()
    kept = [found for found in tmp_path.iterdir() if ".corrupt-" in found.name]
    assert kept[0].read_bytes() == content
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from vendor_assets_budget").fetchone() == (2,)


def test_a_file_that_becomes_corrupt_is_put_aside(tmp_path: Path) -> None:
    """A file that is overwritten while in use is replaced, and what this process knows goes on."""
    path = tmp_path / "budget.db"
    account = Account(f"sqlite:///{path}")
    budget = account.member()
    account.call(budget, status=429, headers={"Retry-After": "60"})
    held_at = account.clock.now
    budget._database.close()
    path.write_bytes(b"\0garbage" * 4096)
    assert account.call(budget) - held_at == pytest.approx(60.0, abs=0.5)
    account.stack.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Where the file cannot be, the error says where and what to do, at once."""
    (tmp_path / "file").write_text("in the way")
    budget = Budget(f"sqlite:///{tmp_path}/file/budget.db", "acme", limits=[Limit.parse("20/s")])
    with pytest.raises(BudgetUnavailableError, match="VENDOR_ASSETS_DB") as caught, budget.slot():
        pass
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    budget.close()


def test_a_folder_that_cannot_be_made_is_not_waited_for() -> None:
    """Trying again makes no folder in /proc: it is said at once, without patience."""
    clock = FakeClock()
    before = clock.monotonic()
    with pytest.raises(BudgetUnavailableError, match="/proc/nowhere"):
        Database("sqlite:////proc/nowhere/budget.db", clock).read("a", "p")
    assert clock.monotonic() == before


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    """Where no server answers, the error says so without the password."""
    database = Database("postgresql://user:secret@127.0.0.1:1/none", FakeClock(), patience_seconds=2.0)
    with pytest.raises(BudgetUnavailableError) as caught:
        database.read("a", "p")
    assert "secret" not in str(caught.value)


def test_a_server_restart_is_survived() -> None:
    """While PostgreSQL restarts calls wait; after it they go on at the same pace, in the same state."""
    with required_postgres() as running:
        account = Account(running.url())
        budget = account.member()
        first = account.call(budget)
        running.stop("fast")
        running.start()
        assert account.call(budget) - first >= STEP - 1e-3
        account.stack.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_wrong_urls_are_refused(url: str) -> None:
    """A URL that is none of the two kinds is refused with what is accepted."""
    with pytest.raises(ConfigurationError, match=r"sqlite:////folder/file.db"):
        Budget(url, "acme", limits=[Limit.parse("20/s")])


@pytest.mark.parametrize(
    "arguments",
    [
        {"share": 0.0},
        {"share": 1.5},
        {"max_in_flight": 0},
        {"limits": [Limit.parse("1/s"), Limit.parse("1/min")]},
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """A share outside 0 to 1, no place at all, and two limits of one name are refused."""
    with pytest.raises(ConfigurationError):
        Budget(f"sqlite:///{tmp_path}/b.db", "acme", **({"limits": [Limit.parse("20/s")]} | arguments))


def test_a_ceiling_is_shown_holds_for_all_and_can_be_lifted(account: Account) -> None:
    """How the vendor fell is known to every process and the next run, with its reason, until somebody lifts it."""
    one = account.member(limits=[Limit.parse("40/s")])
    for _ in range(60):
        account.call(one)
    for _ in range(12):
        account.call(one, status=500)
        one._dispatch.renew()
    one.close()
    two = account.member(limits=[Limit.parse("40/s")])
    state = two.state()
    assert state.ceiling is not None
    assert state.ceiling < 20
    assert "the vendor stopped answering at" in state.ceiling_reason
    account.clock.advance(PROBE_SECONDS)
    sent = [account.call(two) for _ in range(3)]
    assert sent[2] - sent[1] > 1.5 / state.ceiling
    assert "at most" in two.state().why
    assert two.lift_ceiling() != ""
    assert two.lift_ceiling() == ""
    assert two.state().ceiling is None
