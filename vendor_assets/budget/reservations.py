"""Reservations: what a caller asks for, the slots given, and the epochs that void them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from vendor_assets.budget.limits import REQUESTS


class Ask(NamedTuple):
    """A request for a slot.

    Attributes:
        backfill: Whether it gives way to scheduled work.
        patience_seconds: The longest acceptable wait; None for any.
        returns: Whether an earlier slot for the same call was not used.
        lead_seconds: How long the caller needs to learn of its slot, less how late it may use it: one that comes
            sooner would be missed.
        counts: What the call counts of other units than requests, like ``(("queries", 5),)``.
    """

    endpoint: str = ""
    backfill: bool = False
    patience_seconds: float | None = None
    returns: bool = False
    lead_seconds: float = 0.0
    counts: tuple[tuple[str, int], ...] = ()

    def count(self, unit: str) -> int:
        """What the call counts against a limit of this unit."""
        return 1 if unit == REQUESTS else dict(self.counts).get(unit, 1)

    @property
    def heaviest(self) -> int:
        """The most that it counts against any limit."""
        return max([1, *(number for _, number in self.counts)])


class Grant(NamedTuple):
    """The right to send at a moment of the database's clock, as long as the epochs hold.

    Attributes:
        epoch: Of holds, cuts and the breaker.
        backfill_epoch: Of backfills; None for scheduled work.
        probe: Whether this is the one call that finds out whether the vendor is back.
        trial: The quota that this call goes ahead of, to find out whether it holds.
    """

    at: float
    epoch: int
    backfill_epoch: int | None
    probe: bool = False
    trial: str = ""


class Later(NamedTuple):
    """Nothing was reserved: ask again at this moment."""

    at: float


class TooLate(NamedTuple):
    """Nothing was reserved: the wait would be longer than acceptable."""

    wait_seconds: float


@dataclass(slots=True)
class Run:
    """Evenly spaced slots.

    Attributes:
        weight: The most that one of them counts against a limit.
    """

    first: float
    step: float
    count: int
    backfill: bool
    weight: int = 1

    @property
    def last(self) -> float:
        """When the last of them is."""
        return self.first + self.step * (self.count - 1)

    def until(self, moment: float) -> int:
        """How many of them are at this moment or before."""
        if self.last <= moment:
            return self.count
        return 0 if self.first > moment else math.floor((moment - self.first) / self.step) + 1


@dataclass(slots=True)
class Reservations:
    """The slots that lie ahead; times are the database's clock.

    Attributes:
        epoch: Changes when all of them become void.
        backfill_epoch: Changes when scheduled work takes slots of backfills.
        void_after: Backfill slots of the previous epoch are void after this moment.
        passed: The last slot that lies behind, and
        passed_weight: the most that it counts against a limit.
    """

    epoch: int
    backfill_epoch: int = 0
    void_after: float = -math.inf
    runs: list[Run] = field(default_factory=list)
    passed: float = -math.inf
    passed_weight: int = 1

    def valid(self, grant: Grant) -> bool:
        """Whether a slot may still be used."""
        if grant.epoch != self.epoch:
            return False
        if grant.backfill_epoch is None or grant.backfill_epoch == self.backfill_epoch:
            return True
        return grant.backfill_epoch == self.backfill_epoch - 1 and grant.at <= self.void_after

    def reach_past(self, moment: float) -> bool:
        """Whether a slot lies after this moment."""
        return bool(self.runs) and self.runs[-1].last > moment

    def next_at(self, interval: float) -> float:
        """When the next call fits behind all of them, at this interval."""
        before = [self.passed + self.passed_weight * interval]
        return max(before + [run.last + run.weight * interval for run in self.runs])

    def add(self, at: float, step: float, *, backfill: bool, weight: int = 1) -> None:
        """Append a slot, a step after the last one where calls queue."""
        if self.runs and (self.runs[-1].backfill, self.runs[-1].weight) == (backfill, weight):
            run = self.runs[-1]
            if run.count == 1 and at > run.first and math.isclose(at - run.first, step, abs_tol=1e-6):
                run.step = at - run.first
                run.count = 2
                return
            if run.count > 1 and math.isclose(at, run.last + run.step, abs_tol=1e-6):
                run.count += 1
                return
        self.runs.append(Run(at, step, 1, backfill, weight))

    def void(self, after: float, *, backfill_only: bool) -> tuple[float, int] | None:
        """Void the slots after a moment.

        Returns:
            The last slot that remains, -inf where there never was one, and its weight; None where nothing was voided.
        """
        kept: list[Run] = []
        last, dropped = (self.passed, self.passed_weight), False
        for run in self.runs:
            stays = run.until(after) if run.backfill or not backfill_only else run.count
            dropped = dropped or stays < run.count
            if stays:
                kept.append(replace(run, count=stays))
                last = max(last, (kept[-1].last, run.weight))
        if not backfill_only:
            self.epoch += 1
        elif dropped:
            self.backfill_epoch += 1
            self.void_after = after
        self.runs = kept
        return last if dropped else None

    def forget_passed(self, now: float) -> None:
        """Keep only what lies ahead."""
        for run in self.runs:
            if passed := run.until(now):
                latest = (run.first + (passed - 1) * run.step, run.weight)
                self.passed, self.passed_weight = max((self.passed, self.passed_weight), latest)
                run.first += passed * run.step
                run.count -= passed
        self.runs = [run for run in self.runs if run.count]

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self.void_after += seconds
        self.passed += seconds
        for run in self.runs:
            run.first += seconds
