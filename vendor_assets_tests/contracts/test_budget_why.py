"""What is said of why calls wait is what the budget then does, over each database; asking changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vendor_assets.budget import (
    Backlog,
    Budget,
    Explanation,
    LeaseState,
    Limit,
    RunWork,
    Sample,
    Work,
    explain,
)
from vendor_assets.budget.database import Database
from vendor_assets.budget.in_flight import PART, InFlightShares, Member
from vendor_assets_tests.contracts.test_budget import Account, account, database_url
from vendor_assets_tests.support.postgres import postgres_server

__all__ = ["account", "database_url", "postgres_server"]

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def limited(*limits: str, **changes: Any) -> dict[str, Any]:
    return {"limits": Limit.parse_all(limits), **changes}


def work(*runs: RunWork) -> Work:
    return Work(runs, now=NOW)


def holds(account: Account, budget: Budget, told: Explanation, **slot: Any) -> None:
    """The next call goes when it was said to."""
    said = account.clock.now + (told.wait_seconds or 0.0)
    assert account.call(budget, **slot) == pytest.approx(said, abs=0.05)


def test_a_used_up_window_is_named_with_what_is_used(account: Account) -> None:
    """The limit, the used part of it, and when the next call goes."""
    budget = account.member(**limited("20/s", "10/h"))
    for _ in range(10):
        account.call(budget)
    told = explain(budget.snapshot(), work())
    assert (told.binds, told.limit) == ("window", "10/h")
    assert "10 calls of 10 calls" in told.text
    assert told.wait_seconds is not None
    assert told.wait_seconds > 1800
    holds(account, budget, told)


def test_the_window_of_an_endpoint_is_named_for_its_calls_alone(account: Account) -> None:
    """Who asks for the lists waits; who asks for data does not."""
    budget = account.member(**limited("20/s", "2/h for hosts"))
    for _ in range(2):
        account.call(budget, endpoint="hosts")
    account.clock.advance(1)
    lists = explain(budget.snapshot(), work(), endpoint="hosts")
    assert (lists.binds, lists.limit) == ("window", "2/h for hosts")
    assert (lists.wait_seconds or 0) > 1800
    assert explain(budget.snapshot(), work(), endpoint="data").wait_seconds == 0.0
    assert explain(budget.snapshot(), work()).limit == "2/h for hosts"
    account.call(budget, endpoint="data")
    holds(account, budget, explain(budget.snapshot(), work(), endpoint="hosts"), endpoint="hosts")


def test_a_months_quota_is_named(account: Account) -> None:
    """With its share; the rest of the work waits for days."""
    budget = account.member(**limited("20/s", "2/month", share=0.5))
    account.call(budget)
    told = explain(budget.snapshot(), work(), calls=5)
    assert (told.binds, told.limit) == ("window", "2/month")
    assert "our share of it is 50%" in told.text
    assert told.done_seconds is not None
    assert told.done_seconds[0] > 20 * 86_400
    assert (told.wait_seconds or 0) > 20 * 86_400


def test_a_hold_after_a_throttle_is_named_with_its_end(account: Account) -> None:
    """The vendor's own words, and until when."""
    budget = account.member()
    account.call(budget, status=429, headers={"Retry-After": "30"})
    told = explain(budget.snapshot(), work(), calls=100)
    assert told.binds == "hold"
    assert "the vendor answered 429, wait 30 s" in told.text
    assert told.wait_seconds == pytest.approx(30, abs=0.2)
    assert told.done_seconds is not None
    assert told.done_seconds[0] >= 30 + 99 / 20
    holds(account, budget, told)


def test_a_rate_that_was_cut_is_named(account: Account) -> None:
    """Once the hold after a throttle is over, what was learnt from it spaces calls, more widely than the limit."""
    budget = account.member()
    for _ in range(3):
        account.call(budget)
    account.call(budget, status=429)
    account.clock.advance(1.05)
    account.call(budget)
    told = explain(budget.snapshot(), work(), calls=1000)
    assert told.binds == "learnt"
    assert told.text.startswith("cut from 19.6 calls/s 1 s ago")
    assert told.wait_seconds is not None
    assert told.wait_seconds > 1.05 / 19.6
    assert "what the vendor bears may change" in told.assumes
    said = account.clock.now + told.wait_seconds
    assert account.call(budget) == pytest.approx(said, abs=0.002)


def test_of_an_outage_nobody_knows_the_end(account: Account) -> None:
    """It binds whatever else does; when the work is done is not said."""
    budget = account.member()
    for _ in range(10):
        account.call(budget, status=None)
        account.clock.advance(0.3)
        budget._dispatch.renew()
    told = explain(budget.snapshot(), work(), calls=100)
    assert (told.binds, told.wait_seconds, told.done_seconds) == ("outage", None, None)
    assert "cannot be known: nobody knows when the vendor is back" in told.sentence


def test_what_the_vendor_tells_is_named(account: Account) -> None:
    """Nothing is left until the reset."""
    budget = account.member()
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4", "X-RateLimit-Limit": "100"}
    account.call(budget, headers=headers)
    told = explain(budget.snapshot(), work())
    assert told.binds == "headers"
    assert "the vendor says that its quota is used up" in told.text
    holds(account, budget, told)


def test_calls_in_flight_are_named_with_who_holds_them(account: Account) -> None:
    """Where all are out and others wait."""
    budget = account.member(max_in_flight=4)
    account.call(budget)
    account.clock.advance(1)
    shares = InFlightShares(account.clock.boot(), account.clock.now)
    shares.members = {
        "here-7-0": Member(account.clock.now, 9, 3, 3, 5, "scheduled", 4),
        "there-8-0": Member(account.clock.now, 9, 1, 1, 2, "backfill", 4),
    }
    database = budget._database
    database.change(
        "acme",
        PART,
        lambda _: (shares.dump().replace('"boot":"first boot"', f'"boot":"{database.boot}"'), None),
    )
    runs = [RunWork("0123456789", 70, "scheduled", "here-7")]
    told = explain(budget.snapshot(), work(*runs))
    assert (told.binds, told.limit) == ("in flight", "4 calls in flight")
    assert told.text == "4 of at most 4 calls are in flight and 7 wait"
    assert told.held_by == (
        "run 01234567 (3 in flight, scheduled)",
        "process there-8-0 (1 in flight, backfill)",
    )


def test_a_stricter_process_is_named(account: Account) -> None:
    """Another deployment that names the same account with a smaller share spaces everybody's calls."""
    budget, other = account.member(), account.member(share=0.25)
    account.call(other)
    account.call(budget)
    told = explain(budget.snapshot(), work())
    assert (told.binds, told.limit) == ("pace", "20/s")
    assert "another process has a smaller share or limit: 4.9 calls/s" in told.text


def test_without_a_queue_nothing_is_blamed(account: Account) -> None:
    """An idle budget keeps nobody back."""
    budget = account.member()
    account.call(budget)
    account.clock.advance(6)
    told = explain(budget.snapshot(), work())
    assert (told.binds, told.sentence) == ("nothing", "the budget keeps no call back")


@pytest.mark.parametrize(("limit", "slows"), [("20/s", True), ("60/min", False)])
def test_a_database_that_is_far_away_is_named(
    account: Account, monkeypatch: pytest.MonkeyPatch, limit: str, slows: bool
) -> None:
    """Where its answers take longer than calls are apart; beside a slow pace they do not matter. SQLite is not far."""
    budget = account.member(**limited(limit))
    slows = slows and not budget._database.is_sqlite
    account.call(budget)
    account.clock.advance(1)
    assert "database" not in explain(budget.snapshot(), work()).text
    near = Database.run

    def far(database: Database, *arguments: Any, **named: Any) -> Any:
        account.clock.now += 0.15
        return near(database, *arguments, **named)

    monkeypatch.setattr(Database, "run", far)
    told = explain(budget.snapshot(), work()).sentence
    assert ("the budget's database takes 150 ms to answer" in told) == slows


def test_the_estimate_is_what_the_budget_needs(account: Account) -> None:
    """Of calls that a window has no room for: within a few percent, and no later than it says."""
    budget = account.member(**limited("5/s", "60/h"))
    account.call(budget)
    for _ in range(39):
        account.call(budget)
    begun, told = account.clock.now, explain(budget.snapshot(), work(), calls=45)
    sent = [account.call(budget) for _ in range(45)]
    assert told.done_seconds is not None
    low, high = told.done_seconds
    assert 0.95 * low <= sent[-1] - begun <= 1.05 * high
    assert high <= 1.1 * low


def test_what_if_answers_for_another_share_and_quota(account: Account) -> None:
    """Half the share takes twice the time; what was used stays used, also under a larger quota; nothing is changed."""
    budget = account.member(**limited("10/s"))
    account.call(budget)
    snapshot = budget.snapshot()
    runs = work(RunWork("one", 1000, "scheduled"))
    seconds = [
        explain(each, runs, supposed=True).done_seconds
        for each in (
            snapshot,
            snapshot.supposing(share=0.5),
            snapshot.supposing(limits=[Limit.parse("40/s")]),
        )
    ]
    first = [each[0] for each in seconds if each is not None]
    assert first == pytest.approx([100, 200, 25], rel=0.05)

    counted = account.member(**limited("10/s", "20/h"))
    for _ in range(20):
        account.call(counted)
    used_up = counted.snapshot()
    assert explain(used_up, work()).binds == "window"
    assert explain(used_up.supposing(limits=Limit.parse_all(["10/s", "40/h"])), work()).binds != "window"
    assert explain(used_up.supposing(limits=Limit.parse_all(["10/s", "15/h"])), work()).binds == "window"
    assert explain(used_up, work()).binds == "window"


def test_who_goes_first_is_said_by_class(account: Account) -> None:
    """A backfill waits for all others, scheduled work for scheduled work; nothing is made up."""
    budget = account.member()
    account.call(budget)
    scheduled, backfill = RunWork("aaaa", 100, "scheduled"), RunWork("bbbb", 1000, "backfill")
    both = work(scheduled, backfill)
    first = explain(budget.snapshot(), both, run=scheduled)
    second = explain(budget.snapshot(), both, run=backfill)
    assert first.before == ()
    assert second.before == ("run aaaa (100 calls to come, scheduled)",)
    assert second.done_seconds is not None
    assert second.done_seconds == pytest.approx((1000 / 20, 1100 / 20), rel=0.05)
    silent = RunWork("cccc", None, "scheduled")
    told = explain(budget.snapshot(), work(silent), run=silent)
    assert (told.calls, told.done_seconds) == (None, None)
    assert "cannot be known: no run has said how many calls are still to come" in told.sentence


def test_the_users_of_a_window_are_the_runs_that_called(account: Account) -> None:
    """By what each run did since the window began, the most first."""
    samples = [
        Sample(NOW - timedelta(minutes=70), "old", calls_done=5),
        Sample(NOW - timedelta(minutes=50), "old", calls_done=9, calls=3),
        Sample(NOW - timedelta(minutes=10), "new", calls_done=1),
        Sample(NOW - timedelta(minutes=1), "new", calls_done=6, calls=4),
    ]
    leases = [LeaseState("new", {"class": "backfill", "process": "here-7"}, 0.0, 0.0, False, 1)]
    found = Work.of(samples, leases, NOW)
    assert found.runs == (RunWork("new", 4, "backfill", "here-7"),)
    assert found.used_since(NOW - timedelta(hours=1)) == {"new": 6, "old": 4}
    budget = account.member(**limited("20/s", "10/h"))
    for _ in range(10):
        account.call(budget)
    assert explain(budget.snapshot(), found).held_by == ("run new (6)", "run old (4)")


def test_asking_changes_nothing(account: Account) -> None:
    """The documents stay as they are to the byte, and nobody joins."""
    budget, asks = account.member(**limited("20/s", "10/h")), account.member()
    for _ in range(10):
        account.call(budget)
    Backlog(account.url, clock=account.clock).close()

    def documents() -> list[tuple[int | None, str]]:
        found = [budget._database.read("acme", part) for part in ("pace", PART)]
        return [(each.version, each.body) for each in found]

    before = documents()
    for _ in range(3):
        snapshot = asks.snapshot()
        first = explain(snapshot, work(), calls=100)
        explain(snapshot.supposing(share=0.5), work(), calls=100)
        assert explain(snapshot, work(), calls=100) == first
    assert documents() == before
