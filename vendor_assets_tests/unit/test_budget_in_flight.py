"""One process's calls in flight: what it asks for, and how often."""

from __future__ import annotations

import pytest

from vendor_assets.budget.in_flight import InFlight, InFlightShares, Member

CAP = 8
CALM_SECONDS = 2.0


def member(wanted: int) -> Member:
    return Member(0.0, wanted, 0, 0, 0, "scheduled", CAP)


def renew(shares: InFlightShares, mine: InFlight, holder: str, waiting: int, now: float) -> None:
    """As a process does, with so many callers that wait for a slot."""
    told = member(mine.want(waiting, CAP))
    told = shares.renew(holder, told, mine.total, now)
    mine.renew(told, len(shares.members), now, all_used=not shares.left)


def test_who_waits_for_the_pace_asks_for_one_more_than_was_used() -> None:
    """So that a newcomer finds some left; who had to wait for want of them asks for all that it could use."""
    shares, mine = InFlightShares("boot", 0.0), InFlight()
    renew(shares, mine, "mine", waiting=6, now=0.0)
    assert mine.granted == 6
    for _ in range(2):
        mine.reserve()
    renew(shares, mine, "mine", waiting=4, now=2.0)
    assert mine.granted == 3
    mine.short = True
    renew(shares, mine, "mine", waiting=4, now=4.0)
    assert mine.granted == 6


@pytest.mark.parametrize("others_want", [2, CAP])
def test_renewal_is_rare_where_nobody_can_want_what_it_has(others_want: int) -> None:
    """Where nothing is left for a newcomer it is as frequent as the heartbeat, and so for who wants more itself."""
    shares, mine, other = InFlightShares("boot", 0.0), InFlight(), InFlight()
    renew(shares, other, "other", waiting=others_want, now=0.0)
    renew(shares, mine, "mine", waiting=1, now=0.0)
    renew(shares, mine, "mine", waiting=1, now=0.0)
    assert mine.due(0.5, CALM_SECONDS) is (others_want == CAP)
    assert mine.due(2.0, CALM_SECONDS)
    mine.short = True
    assert mine.due(0.5, CALM_SECONDS)
