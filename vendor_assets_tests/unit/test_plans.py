"""A frozen plan: the same requests whether they are still in memory or read again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from vendor_assets.days import Window
from vendor_assets.harvest.plans import Plan
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request, data_leaf

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def request(number: int) -> PlannedRequest:
    """A request of two leaves, every third one with a body, and of names that are no Unicode."""
    window = Window(MIDNIGHT, MIDNIGHT + timedelta(hours=1))
    leaves = (data_leaf(f"w{number}", "a|b", window), Leaf(f"{number}", "w \udc80", "ü"))
    if number % 3:
        return PlannedRequest(Request(f"/{number}", (("names[]", "\udc80"), ("to", "1")), "data"), leaves)
    return PlannedRequest(Request.json("/query", {"of": number}, "data"), leaves)


@pytest.mark.parametrize("count", [0, 5, 1024, 1025, 2500])
def test_a_plan_is_the_same_when_it_is_read_again(count: int) -> None:
    """Few requests stay in memory, many do not: both are those that were frozen, and counted."""
    wanted = [request(number) for number in range(count)]
    empty = Plan("performance_data", MIDNIGHT.date(), "t", "1", 60, MIDNIGHT)
    plan = empty.freeze(iter(wanted))
    again = Plan.unpack(plan.packed)
    assert list(plan.requests()) == list(again.requests()) == wanted
    assert plan == again
    assert (plan.request_count, plan.leaf_count) == (count, 2 * count)
    assert again.few is None
    assert (plan.few is None) == (count > 1024)
    assert again.day == date(2026, 1, 1)
