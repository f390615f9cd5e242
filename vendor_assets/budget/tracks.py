"""Tracks: when the next call fits into each limit. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple, Self

from vendor_assets.budget.limits import PARTS, REQUESTS, WINDOW_PARTS, Limit, parts_of

_AVERAGED_CALLS: Final = 16


class Rule(NamedTuple):
    """A limit, our share of it, and the endpoints that it concerns; without endpoints, every call."""

    limit: Limit
    share: float
    endpoints: tuple[str, ...] = ()

    @property
    def interval_seconds(self) -> float:
        """Seconds between two calls that count one each."""
        return self.limit.interval_seconds(self.share)

    @property
    def parts(self) -> int:
        """What we may use in one period, in billionths."""
        return self.limit.parts(self.share)

    def concerns(self, endpoint: str) -> bool:
        """Whether a call to this endpoint counts."""
        return not self.endpoints or endpoint in self.endpoints


@dataclass(slots=True)
class Track:
    """One limit in the account's document; times are the database's clock.

    Attributes:
        arrival: The theoretical arrival time: when the next call fits.
        interval: Seconds between calls that count one each, by the strictest recent setting.
        interval_at: When that setting was last seen.
        counts: For a counted limit, one whose calls may count differently, and one whose calls are corrected,
            billionths by the start of their part of the window.
        unit: What is counted.
        average: What a call counts of it, of late; 0 while that is not known.
        watched: Whether what a window holds is counted besides the pace.
    """

    arrival: float
    interval: float
    interval_at: float
    wide: bool = True
    counts: list[tuple[float, int]] = field(default_factory=list)
    unit: str = REQUESTS
    average: float = 0.0
    watched: bool = False

    @classmethod
    def load(cls, values: list[Any]) -> Self:
        """From its dump; in that of an earlier version counts are whole numbers, and a 1 is where the unit is now."""
        arrival, interval, interval_at, unit, wide, counts, *more = values
        if not isinstance(unit, str):
            unit, counts = REQUESTS, [(start, parts_of(number)) for start, number in counts]
        return cls(arrival, interval, interval_at, wide, counts, unit, *more)

    def dump(self) -> list[Any]:
        """As JSON holds it."""
        return [
            self.arrival,
            self.interval,
            self.interval_at,
            self.unit,
            self.wide,
            self.counts,
            self.average,
            self.watched,
        ]

    @property
    def used(self) -> float:
        """What is counted in the window."""
        return sum(number for _, number in self.counts) / PARTS

    @property
    def call_seconds(self) -> float:
        """Seconds between two calls, by what they count on average; 0 while that is not known."""
        return self.interval * (1 if self.unit == REQUESTS else self.average)

    def note(self, units: float) -> None:
        """A call counts so much."""
        self.average += (units - self.average) / (_AVERAGED_CALLS if self.average else 1)

    def free_at(self, rule: Rule, now: float, units: float = 1) -> float:
        """When a call fits into the window, which looks back over the last period in sixtieths.

        Args:
            units: What it counts; a call that is more than the window holds fits into an empty one.
        """
        kept = rule.limit.kept_seconds
        self.counts = [entry for entry in self.counts if entry[0] + kept > now]
        excess = sum(number for _, number in self.counts) + min(parts_of(units), rule.parts) - rule.parts
        if excess > 0:
            for start, number in self.counts:
                excess -= number
                if excess <= 0:
                    return start + kept
        return now

    def open_window(self, rule: Rule, now: float) -> bool:
        """Count what a window holds from now on, so that a pace that goes on sooner keeps to it.

        What was booked evenly so far is in it. A vendor's bucket needs none.

        Returns:
            Whether it was not counted so far.
        """
        opened = not self.windowed(rule) and rule.limit.burst == 1
        if opened:
            self.watched = True
            width = rule.limit.part_seconds
            start = max(self.arrival, now) - rule.limit.period_seconds
            part = -(-rule.parts // WINDOW_PARTS)
            self.counts = [(start + n * width, part) for n in range(WINDOW_PARTS)]
        return opened

    def correct(self, at: float, difference: int, now: float) -> None:
        """A call counted so many billionths more, or less, than was booked for its slot."""
        units = difference / PARTS
        self.average = max(0.0, self.average + units / _AVERAGED_CALLS)
        self.arrival = max(self.arrival + units * self.interval, min(self.arrival, now))
        self.adjust(at, difference)

    def adjust(self, at: float, difference: int) -> None:
        """Count so many billionths more, or less, in the window of a slot."""
        index = bisect_right(self.counts, at, key=itemgetter(0)) - 1
        while 0 <= index < len(self.counts) and difference:
            start, number = self.counts[index]
            self.counts[index] = (start, max(0, number + difference))
            difference += number - self.counts[index][1]
            index += 1

    def windowed(self, rule: Rule) -> bool:
        """Whether what a window holds counts, besides the pace."""
        return rule.limit.counted or self.watched

    def count(self, rule: Rule, at: float, units: float = 1) -> None:
        """Count a call in the window."""
        if self.counts and self.counts[-1][0] + rule.limit.part_seconds > at:
            start, number = self.counts[-1]
            self.counts[-1] = (start, number + parts_of(units))
        else:
            self.counts.append((at, parts_of(units)))

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self.arrival += seconds
        self.interval_at += seconds
        self.counts = [(start + seconds, number) for start, number in self.counts]
