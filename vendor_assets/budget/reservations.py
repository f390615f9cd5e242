"""Reservations: what a caller asks for, the slots given, and the epochs that void them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from vendor_assets.budget.limits import REQUESTS

Counts = tuple[tuple[str, float], ...]
"""What a call counts of other units than requests, like ``(("queries", 5),)``."""


def count_of(counts: Counts, unit: str) -> float:
    """What a call counts against a limit of a unit: one where it does not say."""
    return 1 if unit == REQUESTS else dict(counts).get(unit, 1)


class Ask(NamedTuple):
    """A request for a slot.

    Attributes:
        backfill: Whether it gives way to scheduled work.
        patience_seconds: The longest acceptable wait; None for any.
        returns: Whether an earlier slot for the same call was not used, and
        returned_at: when that was, on the database's clock.
        lead_seconds: How long the caller needs to learn of its slot, less how late it may use it: one that comes
            sooner would be missed.
    """

    endpoint: str = ""
    backfill: bool = False
    patience_seconds: float | None = None
    returns: bool = False
    lead_seconds: float = 0.0
    counts: Counts = ()
    returned_at: float = math.inf

    def count_of(self, unit: str) -> float:
        """What the call counts against a limit of this unit."""
        return count_of(self.counts, unit)


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


class Correction(NamedTuple):
    """What a call really counted of a unit, by its answer, in billionths.

    Attributes:
        at: The call's slot, on the database's clock.
        booked: What it was taken to count.
    """

    at: float
    endpoint: str
    unit: str
    booked: int
    counted: int

    @property
    def difference(self) -> int:
        """What is to be booked in addition; negative where it is free again."""
        return self.counted - self.booked


class Row(NamedTuple):
    """Evenly spaced slots: the first of them, the seconds from one to the next, and how many they are."""

    first: Grant
    step: float
    size: int

    def after(self, number: int) -> Row:
        """Those behind the first few."""
        at = self.first.at + number * self.step
        return Row(self.first._replace(at=at), self.step, self.size - number)


class Later(NamedTuple):
    """Nothing was reserved: ask again at this moment."""

    at: float


class TooLate(NamedTuple):
    """Nothing was reserved: the wait would be longer than acceptable."""

    wait_seconds: float


@dataclass(slots=True)
class Run:
    """Evenly spaced slots that count the same."""

    first: float
    step: float
    count: int
    backfill: bool
    counts: Counts = ()

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
class Epochs:
    """What tells whether a slot still holds; times are the database's clock.

    Attributes:
        epoch: Changes when all slots that lie ahead become void.
        backfill_epoch: Changes when scheduled work takes slots of backfills.
        void_after: Backfill slots of the previous epoch are void after this moment.
    """

    epoch: int
    backfill_epoch: int = 0
    void_after: float = -math.inf

    def valid(self, grant: Grant) -> bool:
        """Whether a slot may still be used."""
        if grant.epoch != self.epoch:
            return False
        if grant.backfill_epoch is None or grant.backfill_epoch == self.backfill_epoch:
            return True
        return grant.backfill_epoch == self.backfill_epoch - 1 and grant.at <= self.void_after


@dataclass(slots=True)
class Reservations(Epochs):
    """The slots that lie ahead; times are the database's clock.

    Attributes:
        passed: The last slot that lies behind.
        passed_of: The last that counts of a unit, and how much, by units that calls have named.
    """

    runs: list[Run] = field(default_factory=list)
    passed: float = -math.inf
    passed_of: dict[str, tuple[float, float]] = field(default_factory=dict)

    def reach_past(self, moment: float) -> bool:
        """Whether a slot lies after this moment."""
        return bool(self.runs) and self.runs[-1].last > moment

    def next_at(self, interval: float) -> float:
        """When the next call fits behind all of them, at this interval."""
        return max([self.passed, *(run.last for run in self.runs)]) + interval

    def last_of(self, unit: str) -> tuple[float, float]:
        """The last slot that counts of a unit, -inf where there is none, and how much."""
        counting = [(run.last, count) for run in self.runs if (count := count_of(run.counts, unit))]
        return max(counting) if counting else self.passed_of.get(unit, (self.passed, 1))

    def add(self, at: float, step: float, *, backfill: bool, counts: Counts = ()) -> None:
        """Append a slot, a step after the last one where calls queue."""
        if self.runs and (self.runs[-1].backfill, self.runs[-1].counts) == (backfill, counts):
            run = self.runs[-1]
            if run.count == 1 and at > run.first and math.isclose(at - run.first, step, abs_tol=1e-6):
                run.step = at - run.first
                run.count = 2
                return
            if run.count > 1 and math.isclose(at, run.last + run.step, abs_tol=1e-6):
                run.count += 1
                return
        self.runs.append(Run(at, step, 1, backfill, counts))

    def add_behind(self, step: float, count: int) -> None:
        """Append more slots like the last one, evenly spaced."""
        if count:
            last = self.runs[-1]
            self.runs.append(Run(last.last + step, step, count, last.backfill, last.counts))

    def void(self, after: float, *, backfill_only: bool) -> bool:
        """Void the slots after a moment; whether there were any."""
        if backfill_only and not any(run.backfill for run in self.runs):
            return False
        kept: list[Run] = []
        dropped = False
        for run in self.runs:
            stays = run.until(after) if run.backfill or not backfill_only else run.count
            dropped = dropped or stays < run.count
            if stays:
                kept.append(replace(run, count=stays))
        if not backfill_only:
            self.epoch += 1
        elif dropped:
            self.backfill_epoch += 1
            self.void_after = after
        self.runs = kept
        return dropped

    def forget_passed(self, now: float) -> None:
        """Keep only what lies ahead."""
        for run in self.runs:
            if passed := run.until(now):
                latest = run.first + (passed - 1) * run.step
                self.passed = max(self.passed, latest)
                for unit in {*self.passed_of, *dict(run.counts)}:
                    if count := count_of(run.counts, unit):
                        self.passed_of[unit] = max(self.passed_of.get(unit, (latest, count)), (latest, count))
                run.first += passed * run.step
                run.count -= passed
        self.runs = [run for run in self.runs if run.count]

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self.void_after += seconds
        self.passed += seconds
        self.passed_of = {unit: (at + seconds, count) for unit, (at, count) in self.passed_of.items()}
        for run in self.runs:
            run.first += seconds
