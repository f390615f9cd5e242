"""Teams over each database: processes that compete are served by weight, and whoever is gone leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from vendor_assets.budget import Budget, RunWork, Team, Work, explain
from vendor_assets.budget.dispatch import CALM_SECONDS, _Waiter
from vendor_assets.budget.in_flight import PART, TTL_SECONDS
from vendor_assets.budget.reservations import Ask
from vendor_assets_tests.contracts.test_budget import Account, account, database_url
from vendor_assets_tests.support.postgres import postgres_server

__all__ = ["account", "database_url", "postgres_server"]

A, B, C = Team("a", 3), Team("b", 1), Team("c", 2)
CALLERS = 12
"""Of each team in each process: more than may be in flight."""


class Process:
    """A process whose callers never run out; nothing of it waits, so that one thread can play several."""

    def __init__(self, account: Account, *teams: Team, work_class: str = "scheduled", **changes: Any) -> None:
        self.budget: Budget = account.member(**changes)
        self.clock = account.clock
        self.dispatch = self.budget._dispatch
        self.backfill = work_class == "backfill"
        self.teams: list[Team] = []
        self.granted: list[_Waiter] = []
        for team in teams:
            self.begin(team)

    def begin(self, team: Team) -> None:
        """Callers of a team come."""
        self.teams.append(team)
        for _ in range(CALLERS):
            self._ask(team)

    def end(self, team: Team) -> None:
        """What a team has to do is done."""
        self.teams.remove(team)
        for queue in self.dispatch._queues:
            for waiter in [waiter for waiter in queue if waiter.team == team]:
                queue.remove(waiter)
                self.dispatch._waiters.discard(waiter)

    def _ask(self, team: Team) -> None:
        waiter = _Waiter(
            Ask(backfill=self.backfill),
            self.clock.now,
            threading.Condition(self.dispatch._mutex),
            None,
            team=team,
        )
        self.dispatch._teams.note(team)
        self.dispatch._waiters.add(waiter)
        self.dispatch._queues[self.backfill].append(waiter)

    def reserve(self) -> None:
        """Ask for as many slots as it may have ahead, and anew for those that others took back."""
        view = self.dispatch._document.look()
        for waiter in [each for each in self.granted if view is None or not view.epochs.valid(each.grant)]:  # type: ignore[arg-type]
            self.granted.remove(waiter)
            waiter.grant = None
            with self.dispatch._mutex:
                self.dispatch._in_flight.give_up()
                self.dispatch._queues[self.backfill].appendleft(waiter)
        with self.dispatch._mutex:
            while batch := self.dispatch._batch(self.clock.now):
                self.dispatch._lead(batch, self.clock.now)
        for waiter in list(self.dispatch._waiters):
            if waiter.grant is not None and waiter not in self.granted:
                self.granted.append(waiter)

    @property
    def next_at(self) -> float:
        """When its next call goes."""
        return min((waiter.local_at for waiter in self.granted), default=float("inf"))

    def send(self) -> Team:
        """Its next call, which is answered at once."""
        waiter = min(self.granted, key=lambda waiter: waiter.local_at)
        self.granted.remove(waiter)
        with self.dispatch._mutex:
            self.dispatch._waiters.discard(waiter)
            self.dispatch._in_flight.send()
            self.dispatch._in_flight.finish()
            self.dispatch._teams.count(waiter.team)
        if waiter.team in self.teams:
            self._ask(waiter.team)
        return waiter.team


def run(account: Account, processes: list[Process], calls: int) -> list[tuple[float, Team]]:
    """So many calls of all together; each renews twice a second."""
    sent = []
    renew_at = 0.0
    while len(sent) < calls:
        if account.clock.now >= renew_at:
            renew_at = account.clock.now + 0.5
            for process in processes:
                process.dispatch.renew()
        for _ in range(2):
            # Whoever loses a slot to another asks anew, as it would just before it sends.
            for process in processes:
                process.reserve()
        first = min(processes, key=lambda process: process.next_at)
        account.clock.now = max(account.clock.now, first.next_at)
        sent.append((account.clock.now, first.send()))
    return sent


def reservations(process: Process) -> list[int]:
    """A list that goes on: how many calls each reservation of a process is for."""
    sizes: list[int] = []
    lead = process.dispatch._lead

    def counted(batch: list[_Waiter], now: float) -> None:
        sizes.append(len(batch))
        lead(batch, now)

    process.dispatch._lead = counted  # type: ignore[method-assign]
    return sizes


def parts(sent: list[tuple[float, Team]]) -> Mapping[str, float]:
    of = Counter(team.name for _, team in sent)
    return {name: number / len(sent) for name, number in of.items()}


def kept(process: Process) -> set[str]:
    """The processes whose teams are in the database."""
    return set(json.loads(process.dispatch._database.read("acme", PART).body).get("teams", {}))


def evenly(sent: list[tuple[float, Team]]) -> None:
    """No slot was lost and none came too soon."""
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(sent)]
    assert gaps == pytest.approx([0.05 * 1.02] * len(gaps), abs=1e-3)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([[A], [B]], {"a": 0.75, "b": 0.25}),
        ([[A, B], [A, B]], {"a": 0.75, "b": 0.25}),
        ([[A], [A, B]], {"a": 0.75, "b": 0.25}),
        ([[A, B, C]], {"a": 1 / 2, "b": 1 / 6, "c": 1 / 3}),
        ([[A], [B], [C]], {"a": 1 / 2, "b": 1 / 6, "c": 1 / 3}),
    ],
)
def test_teams_are_served_by_weight(
    account: Account, processes: list[list[Team]], expected: dict[str, float]
) -> None:
    """Whatever processes they are in; the pace is as full and as even as without."""
    every = [Process(account, *teams) for teams in processes]
    run(account, every, 40)
    sent = run(account, every, 120)
    assert parts(sent) == pytest.approx(expected, abs=0.03)
    evenly(sent)


def test_what_a_team_does_not_use_is_lent_and_nothing_is_saved_up(account: Account) -> None:
    """An idle team's part is the other's; when it is back it has its part, not what it missed."""
    a, b = Process(account, A), Process(account, B)
    run(account, [a, b], 60)
    a.end(A)
    run(account, [a, b], 10)
    lent = run(account, [a, b], 60)
    assert parts(lent) == {"b": 1.0}
    evenly(lent)
    a.begin(A)
    back = run(account, [a, b], 80)
    assert parts(back)["a"] == pytest.approx(0.75, abs=0.1)


def test_nobody_starves_beside_a_thousand(account: Account) -> None:
    """In one process a weight of 1 has one call in 1,001; between processes one in nine, as a few slots lie ahead."""
    a, b = Process(account, Team("a", 1000)), Process(account, B)
    run(account, [a, b], 40)
    assert parts(run(account, [a, b], 90)) == pytest.approx({"a": 8 / 9, "b": 1 / 9}, abs=0.02)


def test_whoever_is_killed_leaves_its_part_to_the_others(account: Account) -> None:
    """Its few slots pass unused; after five seconds without a renewal it does not count, and nothing of it is kept."""
    a, b = Process(account, A, B), Process(account, C)
    run(account, [a, b], 60)
    assert kept(a) == {a.budget.holder, b.budget.holder}
    left = run(account, [b], 160)
    assert left[0][0] <= left[-1][0] - TTL_SECONDS
    b.dispatch.renew()
    assert b.dispatch._portions == {}
    assert kept(b) == {b.budget.holder}
    evenly(left[80:])
    b.end(C)
    b.dispatch._in_flight.reserved = 0
    b.dispatch._leave()
    assert kept(b) == set()


def test_classes_stand_above_weights(account: Account) -> None:
    """A backfill of a heavy team gives way to scheduled work of a light one."""
    heavy, light = Process(account, Team("a", 1000), work_class="backfill"), Process(account, B)
    run(account, [heavy, light], 40)
    assert parts(run(account, [heavy, light], 60)) == {"b": 1.0}


def test_without_weights_processes_take_turns(account: Account) -> None:
    """First come, first served, and nothing of teams is kept."""
    one, two = Process(account, Team()), Process(account, Team())
    run(account, [one, two], 10)
    assert one.dispatch._portions == {}
    assert not one.dispatch._teams
    assert kept(one) == set()


def test_calls_in_flight_go_by_weight(account: Account) -> None:
    """Where they bind and not the pace."""
    a, b = Process(account, A, max_in_flight=8), Process(account, B, max_in_flight=8)
    run(account, [a, b], 40)
    assert (a.dispatch._in_flight.granted, b.dispatch._in_flight.granted) == (6, 2)


def test_scheduled_calls_that_wait_reserve_together(account: Account) -> None:
    """A quarter of a second's worth of the process's part of the pace; who is alone reserves for a second in advance.

    A newcomer waits for a second once, until it is known.
    """
    alone = Process(account, Team())
    sizes = reservations(alone)
    run(account, [alone], 40)
    assert sizes == [1] + [4] * (len(sizes) - 1)
    newcomer = Process(account, Team())
    came = account.clock.now
    newcomer.dispatch.renew()
    newcomer.reserve()
    assert newcomer.next_at - came <= 1.0 + 0.05 + 1e-3
    sizes_of_both = reservations(newcomer), sizes
    run(account, [alone, newcomer], 20)
    for each in sizes_of_both:
        del each[:]
    run(account, [alone, newcomer], 40)
    assert [set(each) for each in sizes_of_both] == [{2}, {2}]
    another = Process(account, Team())
    another.dispatch.renew()
    another.reserve()
    assert another.next_at - account.clock.now <= 0.25 + 2 * 0.05 + 1e-3


def test_backfills_that_wait_reserve_one_by_one(account: Account) -> None:
    """Scheduled work takes their slots; nor do more of them go along with it."""
    process = Process(account, work_class="backfill")
    process.begin(Team())
    sizes = reservations(process)
    run(account, [process], 20)
    assert set(sizes) == {1}
    process.backfill = False
    process._ask(Team())
    run(account, [process], 20)
    assert set(sizes) == {1}


def test_answers_are_told_in_groups_and_failures_are_not_kept_back(account: Account) -> None:
    """Where nothing failed, who was told two seconds ago need not know yet."""
    budget = account.member()
    account.call(budget)
    document = budget._document

    def told(answered: bool) -> bool:
        document.count_outcome("", 0.1, alive=answered, answered=answered)
        before = document.view
        document.tell(unless_within_seconds=CALM_SECONDS)
        return document.view is not before

    assert not told(answered=True)
    assert told(answered=False)
    assert not told(answered=True)
    account.clock.advance(CALM_SECONDS)
    assert told(answered=True)


def test_why_names_teams_with_what_they_lend_and_borrow(account: Account) -> None:
    """Each with its weight, its part of the pace, and what it had of late."""
    a, b = Process(account, A), Process(account, B)
    run(account, [a, b], 300)
    told = explain(b.budget.snapshot(), Work((RunWork("r", 10),)))
    assert re.fullmatch(
        r"team a \(weight 3, 12 calls wait\): its part of the pace is 75%, recently it had 7\d%",
        told.teams[0],
    )
    assert re.fullmatch(
        r"team b \(weight 1, 12 calls wait\): its part of the pace is 25%, recently it had 2\d%",
        told.teams[1],
    )
    assert told.teams[0] in told.sentence
    a.end(A)
    run(account, [a, b], 100)
    lent = explain(b.budget.snapshot(), Work((RunWork("r", 10),))).teams
    assert re.fullmatch(
        r"team a \(weight 3, no call waits\): its part of the pace is 75%, recently it had \d+%, so it lends \d+%",
        lent[0],
    )
    assert "so it borrows" in lent[1]


def test_why_does_not_say_how_fast_others_are_where_they_do_not_tell(account: Account) -> None:
    """A process in which no caller has a weight has a part all the same."""
    a, others = Process(account, A), Process(account, Team())
    run(account, [a, others], 60)
    first, second = explain(a.budget.snapshot(), Work()).teams
    assert first == "team a (weight 3, 12 calls wait): its part of the pace is 75%"
    assert re.fullmatch(r"other troops \(weight 1, \d+ calls wait\): its part of the pace is 25%", second)
