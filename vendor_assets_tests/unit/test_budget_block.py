"""The block: which of the slots that a process has in stock are still good, and how many it keeps."""

from __future__ import annotations

from vendor_assets.budget.block import Block, Reserved
from vendor_assets.budget.reservations import Ask, Grant, Row

STEP = 0.001


def block_with(size: int, *, at: float = 0.0) -> Block:
    """A block of one row."""
    block = Block()
    block.keep(Reserved(Ask(), Row(Grant(at + 100.0, 1, None), STEP, size), at))
    return block


def size_after_misses(*, part: float, row: int, mixed: bool = False) -> int:
    """How many slots are reserved in the end by callers that use one slot in a hundred."""
    block, now, size = Block(), 0.0, 0
    for _ in range(40):
        now += 0.2
        for _ in range(10):
            block.count_served()
        if mixed:
            block.note_mixed()
        size = block.next_size(1, STEP, part, now)
        for at in range(0, size, row):
            block.keep(Reserved(Ask(), Row(Grant(now, 1, None), STEP, min(row, size - at)), now + at * STEP))
        assert block.first(now + 10.0) is None
    return size


def test_slots_of_a_row_are_taken_in_order() -> None:
    """Each once, at its own moment on both clocks."""
    block = block_with(3)
    taken = []
    while (slot := block.first(-1.0)) is not None:
        taken.append((round(slot.local_at, 6), round(slot.grant.at, 6)))
        block.pop()
    assert taken == [(0.0, 100.0), (0.001, 100.001), (0.002, 100.002)]


def test_of_a_row_only_what_is_too_old_is_missed() -> None:
    """The first that is left is not before the moment, whether that lies between two slots or on one."""
    for earliest, expected in ((0.0, 0.0), (0.0005, 0.001), (0.001, 0.001), (0.0089, 0.009)):
        slot = block_with(10).first(earliest)
        assert slot is not None
        assert abs(slot.local_at - expected) < 1e-9
    assert block_with(10).first(0.0095) is None


def test_who_is_alone_may_miss_what_costs_nothing() -> None:
    """A process alone keeps a full block; where others could use the slots, or its own other calls, it does not."""
    assert size_after_misses(part=1.0, row=1000) > 200
    assert size_after_misses(part=0.5, row=1000) == 0
    assert size_after_misses(part=1.0, row=1) == 0
    assert size_after_misses(part=1.0, row=1000, mixed=True) == 0


def slow_size(*, used: float = 1.0, part: float = 1.0, lasting: bool = True, mixed: bool = False) -> int:
    """How many slots are reserved beside one for a caller, at ten a second of which a part is used."""
    block, size = Block(), 0
    for number in range(1, 5):
        for _ in range(round(10 * used)):
            block.count_served()
        if mixed:
            block.note_mixed()
        size = block.next_size(1, 0.1, part, float(number), lasting=lasting)
    return size


def test_at_a_slow_pace_who_is_alone_reserves_for_a_second() -> None:
    """As long as callers use all of it, and neither others nor other calls of its own can want it."""
    assert slow_size() == 9
    assert slow_size(used=0.7) == 0
    assert slow_size(part=0.5) == 0
    assert slow_size(lasting=False) == 0
    assert slow_size(mixed=True) == 0
