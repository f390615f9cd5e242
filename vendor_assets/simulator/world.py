"""The seeded world behind the simulator: troops, warriors, data groups and their values.

Everything is a pure function of the seed and the time asked about. Nothing is stored, so any past day
can be asked for at any time, and a test computes from the same seed what a complete harvest holds::

    world = World.preset("small", seed=7)
    rows = list(world.expected_rows(date(2026, 11, 20), resolution_seconds=1800))

Times are aware datetimes or UNIX seconds in UTC. Lives begin and end on whole minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache, partial
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from vendor_assets.simulator.data_groups import (
    CALM,
    DataGroup,
    Disturbance,
    data_group,
    load_at,
    measure,
    mix,
    noise_at,
)
from vendor_assets.simulator.data_groups import data_groups as make_data_groups

Instant = datetime | float
"""An aware datetime, or UNIX seconds."""

ORIGIN = 1_577_836_800
"""2020-01-01T00:00Z: nothing lived before."""
FAR = 4_102_444_800
"""2100-01-01T00:00Z: what never vanishes lives until then."""

_DAY = 86_400
TroopKind = Literal["permanent", "weekday", "ephemeral"]
SlotKind = Literal["stable", "daytime", "spot", "follows"]
IncidentKind = Literal["slow_datastore", "error_burst", "memory_leak"]
PRESETS: dict[str, tuple[int, int, int]] = {"small": (3, 6, 4), "demo": (6, 25, 8), "large": (60, 600, 20)}
"""Troops, warriors and data groups per warrior of each preset."""

_NAMES = (
    "Checkout | EU", "search", "payments/api", "Kundenkonto (Ümlaut)", "recommendations, nightly",
    "checkout experiment", "Inventory & Stock", "mail-sender", "pricing engine v2", "image resizer", "fraud: score",
    "session store",
)  # fmt: skip
_SLOTS: tuple[SlotKind, ...] = ("stable", "daytime", "stable", "spot")
_LANGUAGES = ("java", "ruby", "python", "nodejs", "go", "php")

HOSTILE_NAMES = (
    "../../x", "a|b", "a,b", "…", "line one\nline two\r\nX-Injected: yes", "n" * 500, "🦆🔥 سلام",
    "'; DROP TABLE troops; --", "<script>alert(1)</script>", "**bold** [link](javascript:alert(1)) `code`",
    "twins", "twins", "an id that is not a number", "a troop with no warriors", "a warrior with no data groups",
    "a data group with no values", " leading and trailing ", "CON.", "%2e%2e%2fx=1&y=2#z",
)  # fmt: skip
"""Display names of the troops that ``hostile`` adds."""

_HOSTILE_GROUPS = (
    "Custom/../../etc/passwd",
    "Custom/a|b,c&d=e",
    "Custom/new\nline",
    "Custom/🦆/<b>Größe</b>",
    "Custom/" + "m" * 250,
)
_STRING_ID = "svc:eu/west|1 é"


class Troop(NamedTuple):
    """One troop as a list call shows it at a moment."""

    id: str
    name: str
    language: str
    born: int
    died: int


class Warrior(NamedTuple):
    """One warrior; ``born`` and ``died`` are UNIX seconds, the latter exclusive."""

    id: str
    troop_id: str
    host: str
    born: int
    died: int


class Row(NamedTuple):
    """One row of performance data: the truth that a harvest must find."""

    troop_id: str
    warrior_id: str
    data_group: str
    value_name: str
    start: datetime
    end: datetime
    value: float


class Timeslice(NamedTuple):
    """The values of one data group in [start, end), UNIX seconds, by value name."""

    start: int
    end: int
    values: dict[str, float]


class Incident(NamedTuple):
    """Something worth finding in a notebook, within one UTC day."""

    kind: IncidentKind
    troop_id: str
    start: datetime
    end: datetime


class _Span(NamedTuple):
    kind: IncidentKind
    start: int
    end: int
    factor: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is fixed about one troop for all time."""

    index: int
    kind: TroopKind
    name: str
    slots: tuple[SlotKind, ...]
    groups: tuple[DataGroup, ...]
    language: str
    seed: int
    steady: bool = False
    """Its warriors live for ever."""
    stable_days: int = 5
    string_id: str = ""
    load_phase: int = 0
    calls_per_minute: float = 100.0


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one data group of one warrior, for any time."""

    world: World = field(repr=False)
    plan: _Plan = field(repr=False)
    warrior: Warrior
    group: DataGroup
    seed: int

    def values(self, start: int, end: int, visible_until: float = FAR) -> tuple[float, ...] | None:
        """The values in [start, end), in the order of the group's value names.

        None where the warrior did not live, did not report, or nothing is visible yet. Counts cover
        what is visible of the slice.
        """
        if not self.group.value_names:
            return None
        low = max(start, self.warrior.born)
        high = min(end, self.warrior.died, visible_until)
        covered = high - low - self.world.silent_seconds(self.warrior, low, high)
        if covered <= 0:
            return None
        plan = self.plan
        load = load_at((start + end) // 2, plan.load_phase)
        if self.world.restated:
            load *= self.world.restated.get(start // _DAY, 1.0)
        noise = noise_at(self.seed, start)
        scale = 0.5 + (self.seed >> 40 & 0xFF) / 256
        calls = plan.calls_per_minute * scale * load * (0.85 + 0.3 * noise[0])
        trouble = self.world.disturbance(plan.index, start, end)
        return measure(self.group.family, scale, calls, load, covered / 60, noise, trouble)


class World:
    """All that the vendor knows.

    Args:
        warriors: Number of places for warriors over all troops, given out by a Zipf law: one troop is
            large, many are small. A place may be empty for a while, or hold several warriors one after
            another, each with its own id.
        churn: Whether troops and warriors appear and vanish, and sometimes do not report.
        hostile: Add troops, warriors and data groups with names that hurt careless readers.
        stable_days: How long the stable ones among the warriors live at least; at most twice as long.
    """

    def __init__(
        self,
        seed: int = 1,
        troops: int = 6,
        warriors: int = 25,
        data_groups: int = 8,
        *,
        churn: bool = True,
        hostile: bool = False,
        stable_days: int = 5,
    ) -> None:
        if troops < 0 or data_groups < 0 or warriors < troops:
            raise ValueError("a world needs at least one warrior per troop and no negative numbers")
        if troops > 10_000 or warriors > 1_000_000 or data_groups > 10_000:
            raise ValueError("a world has at most 10000 troops, 1000000 warriors and 10000 data groups")
        self.seed = seed
        self.churn = churn
        self.hostile = hostile
        self.stable_days = stable_days
        self.restated: dict[int, float] = {}
        self._plans = [
            self._plan(index, size, troops, data_groups) for index, size in enumerate(_zipf(troops, warriors))
        ]
        if hostile:
            self._plans += [
                self._hostile_plan(troops + offset, name, data_groups)
                for offset, name in enumerate(HOSTILE_NAMES)
            ]
        self._by_string_id = {plan.string_id: plan for plan in self._plans if plan.string_id}
        self._spans = lru_cache(maxsize=4096)(self._spans_of_day)
        self._gap = lru_cache(maxsize=65_536)(self._gap_of_day)
        self.series = lru_cache(maxsize=65_536)(self._series)

    @classmethod
    def preset(
        cls,
        name: str = "demo",
        *,
        seed: int = 1,
        troops: int | None = None,
        warriors: int | None = None,
        data_groups: int | None = None,
        churn: bool = True,
        hostile: bool = False,
        stable_days: int = 5,
    ) -> World:
        """A world of a known size: ``small``, ``demo`` or ``large``; each size can be given instead."""
        given = (troops, warriors, data_groups)
        sizes = [usual if size is None else size for usual, size in zip(PRESETS[name], given, strict=True)]
        return cls(seed, *sizes, churn=churn, hostile=hostile, stable_days=stable_days)

    # Troops

    def troops(self, at: Instant) -> list[Troop]:
        """The troops alive at a moment: what the list call shows then."""
        moment = _seconds(at)
        return self.troops_between(moment, moment)

    def troops_on(self, day: date, timezone: str = "UTC") -> list[Troop]:
        """The troops alive at any moment of a day, by the last name they had on it."""
        start, end = day_window(day, timezone)
        return self.troops_between(start, end)

    def troop(self, troop_id: str, at: Instant) -> Troop | None:
        """One troop by id, alive or gone; None if it never lived until then."""
        moment = _seconds(at)
        found = self._find_troop(troop_id)
        if found is None:
            return None
        plan, generation = found
        if plan.kind == "weekday":
            lives = [(born, died) for _, born, died in self._troop_lives(plan, moment - 4 * _DAY, moment)]
            life = lives[-1] if lives else None
        else:
            life = self._troop_life(plan, generation)
        if life is None or life[0] > moment:
            return None
        return Troop(troop_id, self._name(plan, moment), plan.language, *life)

    # Warriors

    def warriors(self, troop_id: str, at: Instant) -> list[Warrior]:
        """The warriors of a troop alive at a moment; empty for an unknown or sleeping troop."""
        moment = _seconds(at)
        return self.warriors_between(troop_id, moment, moment)

    def warriors_on(self, troop_id: str, day: date, timezone: str = "UTC") -> list[Warrior]:
        """The warriors of a troop alive at any moment of a day."""
        start, end = day_window(day, timezone)
        return self.warriors_between(troop_id, start, end)

    def warrior(self, warrior_id: str) -> Warrior | None:
        """One warrior by id, alive, gone or yet to come; None if there never is such a one."""
        place = self._place(warrior_id)
        if place is None:
            return None
        life = self._warrior_life(*place)
        return None if life is None else self._warrior(*place, *life)

    # Data groups and data

    def data_groups(self, warrior_id: str) -> tuple[DataGroup, ...]:
        """The data groups of a warrior, the same for its whole life; empty for an unknown one."""
        place = self._place(warrior_id)
        return () if place is None or self.warrior(warrior_id) is None else place[0].groups

    def timeslices(
        self, warrior_id: str, data_group: str, start: Instant, end: Instant, resolution_seconds: int
    ) -> list[Timeslice]:
        """The timeslices that start in [start, end), aligned to the resolution in UTC.

        Slices without data (the warrior did not live or did not report) are left out.
        """
        series = self.series(warrior_id, data_group)
        if series is None:
            return []
        step = resolution_seconds
        slices = []
        for begin in range(math.ceil(_seconds(start) / step) * step, math.ceil(_seconds(end)), step):
            values = series.values(begin, begin + step)
            if values is not None:
                named = dict(zip(series.group.value_names, values, strict=True))
                slices.append(Timeslice(begin, begin + step, named))
        return slices

    def expected_rows(
        self,
        day: date,
        resolution_seconds: int,
        *,
        timezone: str = "UTC",
        seen_at: Iterable[Instant] | None = None,
        troop_ids: Sequence[str] | None = None,
    ) -> Iterator[Row]:
        """The performance data of a complete harvest of one day.

        Args:
            day: The day, a window in the time zone; a slice belongs to the day in which it starts.
            seen_at: When the lists were asked; only troops and warriors alive at one of these moments
                are expected. None expects all that lived on the day.
        """
        start, end = day_window(day, timezone)
        for warrior in self.roster(day, timezone=timezone, seen_at=seen_at):
            if troop_ids is not None and warrior.troop_id not in troop_ids:
                continue
            for group in self.data_groups(warrior.id):
                for piece in self.timeslices(warrior.id, group.name, start, end, resolution_seconds):
                    begin, finish = _moment(piece.start), _moment(piece.end)
                    for value_name, value in piece.values.items():
                        yield Row(warrior.troop_id, warrior.id, group.name, value_name, begin, finish, value)

    def roster(
        self, day: date, *, timezone: str = "UTC", seen_at: Iterable[Instant] | None = None
    ) -> list[Warrior]:
        """The warriors of a day over all troops, or those seen alive at the given moments, each once."""
        found: dict[str, Warrior] = {}
        if seen_at is None:
            for troop in self.troops_on(day, timezone):
                found |= {warrior.id: warrior for warrior in self.warriors_on(troop.id, day, timezone)}
        else:
            for moment in seen_at:
                for troop in self.troops(moment):
                    found |= {warrior.id: warrior for warrior in self.warriors(troop.id, moment)}
        return list(found.values())

    # Incidents

    def incidents(self, day: date) -> list[Incident]:
        """The incidents of a UTC day, in the order of their start."""
        number = (day - date(1970, 1, 1)).days
        found = [
            Incident(span.kind, self._troop_id(plan, 0), _moment(span.start), _moment(span.end))
            for plan in self._plans
            for span in self._spans(plan.index, number)
        ]
        return sorted(found, key=lambda incident: incident.start)

    def disturbance(self, index: int, start: int, end: int) -> Disturbance:
        """What incidents do to a troop in a slice."""
        slow = errors = leak = 1.0
        for day in range(start // _DAY, (end - 1) // _DAY + 1):
            for span in self._spans(index, day):
                overlap = min(end, span.end) - max(start, span.start)
                if overlap <= 0:
                    continue
                if span.kind == "slow_datastore":
                    slow += (span.factor - 1) * overlap / (end - start)
                elif span.kind == "error_burst":
                    errors += (span.factor - 1) * overlap / (end - start)
                else:
                    cycle = (span.end - span.start) / 3
                    middle = max(start, span.start) + overlap / 2
                    leak += (span.factor - 1) * ((middle - span.start) % cycle) / cycle
        return CALM if slow == errors == leak == 1.0 else Disturbance(slow, errors, leak)

    def silent_seconds(self, warrior: Warrior, start: float, end: float) -> float:
        """How long a warrior did not report within [start, end)."""
        if not self.churn or end <= start:
            return 0.0
        silent = 0.0
        for day in range(int(start) // _DAY, int(end - 1) // _DAY + 1):
            gap = self._gap(warrior.id, day)
            if gap is not None:
                silent += max(0.0, min(end, gap[1]) - max(start, gap[0]))
        return silent

    def restate(self, day: date, factor: float) -> None:
        """From now on, all counts of a UTC day come out multiplied: late data, as vendors have it."""
        self.restated[(day - date(1970, 1, 1)).days] = factor

    # Inside

    def _plan(self, index: int, size: int, troops: int, data_groups: int) -> _Plan:
        kind: TroopKind = "permanent"
        if self.churn and troops >= 5 and index == troops - 1:
            kind = "ephemeral"
        elif self.churn and troops >= 5 and index == troops - 2:
            kind = "weekday"
        seed = mix(self.seed, index + 1)
        slots = [_SLOTS[slot % len(_SLOTS)] if kind == "permanent" else "follows" for slot in range(size)]
        name = "checkout experiment" if kind == "ephemeral" else _NAMES[index % len(_NAMES)]
        if index >= len(_NAMES):
            name += f" {index // len(_NAMES) + 1}"
        return _Plan(
            index,
            kind,
            name,
            tuple(slots),
            make_data_groups(seed, data_groups),
            _LANGUAGES[seed % len(_LANGUAGES)],
            seed,
            steady=not self.churn,
            stable_days=self.stable_days,
            load_phase=(seed >> 8) % 37,
            calls_per_minute=40.0 + (seed >> 16) % 400,
        )

    def _hostile_plan(self, index: int, name: str, data_groups: int) -> _Plan:
        seed = mix(self.seed, index + 1)
        slots: tuple[SlotKind, ...] = ("stable",)
        groups = make_data_groups(seed, data_groups)
        if name == "a troop with no warriors":
            slots = ()
        elif name == "a warrior with no data groups":
            groups = ()
        elif name == "a data group with no values":
            groups = (*groups, data_group("Custom/no values", "silent"))
        else:
            odd = _HOSTILE_GROUPS[index % len(_HOSTILE_GROUPS)]
            groups = (*groups, data_group(odd, "external"))
        return _Plan(
            index,
            "permanent",
            name,
            slots,
            groups,
            _LANGUAGES[seed % len(_LANGUAGES)],
            seed,
            steady=True,
            string_id=_STRING_ID if name == "an id that is not a number" else "",
        )

    def troops_between(self, start: float, end: float) -> list[Troop]:
        """The troops alive at any moment of [start, end), by the last name they had in it."""
        found: dict[str, Troop] = {}
        for plan in self._plans:
            for number, born, died in self._troop_lives(plan, start, end):
                troop_id = self._troop_id(plan, number)
                name_at = min(end, died - 1)
                found[troop_id] = Troop(troop_id, self._name(plan, name_at), plan.language, born, died)
        return list(found.values())

    def _troop_lives(self, plan: _Plan, start: float, end: float) -> list[tuple[int, int, int]]:
        if plan.kind == "permanent":
            return [(0, ORIGIN, FAR)]
        period = _DAY if plan.kind == "weekday" else 3 * _DAY
        return _overlapping(partial(self._troop_life, plan), period, start, end)

    def _troop_life(self, plan: _Plan, number: int) -> tuple[int, int] | None:
        if plan.kind == "permanent":
            return (ORIGIN, FAR) if number == 0 else None
        roll = mix(plan.seed, number)
        if plan.kind == "weekday":
            start = ORIGIN + number * _DAY
            if (start // _DAY + 3) % 7 >= 5:
                return None
            return start + 5 * 3600 + roll % 60 * 60, start + 21 * 3600 + (roll >> 8) % 60 * 60
        period = 3 * _DAY
        born = ORIGIN + number * period + roll % 1200 * 60
        return born, born + (28 * 60 + (roll >> 16) % 1200) * 60

    def warriors_between(self, troop_id: str, start: float, end: float) -> list[Warrior]:
        """The warriors of a troop alive at any moment of [start, end)."""
        found = self._find_troop(troop_id)
        if found is None:
            return []
        plan, generation = found
        warriors = []
        for slot, kind in enumerate(plan.slots):
            period = self._slot_period(plan, slot, kind)
            if period == 0:
                lives = [(0, ORIGIN, FAR)]
            else:
                lives = _overlapping(partial(self._warrior_life, plan, slot), period, start, end)
            for number, born, died in lives:
                if plan.kind != "ephemeral" or number == generation:
                    warriors.append(self._warrior(plan, slot, number, born, died))
        return warriors

    def _slot_period(self, plan: _Plan, slot: int, kind: SlotKind) -> int:
        if plan.steady:
            return 0
        if kind == "stable":
            return (plan.stable_days + mix(plan.seed, slot + 101) % plan.stable_days) * _DAY
        if kind == "follows" and plan.kind == "ephemeral":
            return 3 * _DAY
        return _DAY

    def _warrior_life(self, plan: _Plan, slot: int, number: int) -> tuple[int, int] | None:
        kind = plan.slots[slot]
        period = self._slot_period(plan, slot, kind)
        if period == 0:
            return (ORIGIN, FAR) if number == 0 else None
        roll = mix(mix(plan.seed, slot + 1), number)
        start = ORIGIN + number * period
        if kind == "stable":
            shift = mix(plan.seed, slot + 201) % (period // 60) * 60
            return start - shift, start - shift + period
        if kind == "follows":
            life = self._troop_life(plan, number)
            if life is None or slot == 0:
                return life
            return life[0] + roll % 180 * 60, life[1]
        if kind == "daytime":
            if roll % 100 >= 85:
                return None
            return start + (360 + (roll >> 8) % 180) * 60, start + (1020 + (roll >> 24) % 240) * 60
        if roll % 100 >= 60:
            return None
        born = start + (roll >> 8) % 1380 * 60
        return born, born + (40 + (roll >> 24) % 440) * 60

    def _warrior(self, plan: _Plan, slot: int, number: int, born: int, died: int) -> Warrior:
        warrior_id = str(10**14 + plan.index * 10**11 + slot * 10**5 + number)
        label = mix(plan.seed, slot * 100_003 + number) & 0xFFFFFF
        host = f"ip-10-{plan.index % 256}-{slot % 256}-{label:06x}"
        if self.hostile and plan.name in HOSTILE_NAMES:
            host = f"{plan.name[:80]} {label:06x}"
        return Warrior(warrior_id, self._troop_id(plan, number), host, born, died)

    def _troop_id(self, plan: _Plan, number: int) -> str:
        if plan.string_id:
            return plan.string_id
        generation = number if plan.kind == "ephemeral" else 0
        return str(200_000_000 + plan.index * 10_000 + generation)

    def _find_troop(self, troop_id: str) -> tuple[_Plan, int] | None:
        if troop_id in self._by_string_id:
            return self._by_string_id[troop_id], 0
        if not (troop_id.isascii() and troop_id.isdecimal() and len(troop_id) < 16):
            return None
        index, generation = divmod(int(troop_id) - 200_000_000, 10_000)
        if not 0 <= index < len(self._plans):
            return None
        plan = self._plans[index]
        if plan.string_id or (plan.kind != "ephemeral" and generation):
            return None
        return plan, generation

    def _name(self, plan: _Plan, moment: float) -> str:
        if self.churn and plan.index == 1 and plan.kind == "permanent" and not self.hostile:
            return f"{plan.name} ({'blue' if int(moment) // (7 * _DAY) % 2 else 'green'})"
        return plan.name

    def _place(self, warrior_id: str) -> tuple[_Plan, int, int] | None:
        """Plan, slot and number of a warrior's id; None if there is no such slot."""
        if not (warrior_id.isascii() and warrior_id.isdecimal() and 15 <= len(warrior_id) <= 16):
            return None
        index, rest = divmod(int(warrior_id) - 10**14, 10**11)
        slot, number = divmod(rest, 10**5)
        if not 0 <= index < len(self._plans) or slot >= len(self._plans[index].slots):
            return None
        return self._plans[index], slot, number

    def _series(self, warrior_id: str, data_group: str) -> Series | None:
        """The values of one data group of one warrior; None if there is no such pair."""
        place, warrior = self._place(warrior_id), self.warrior(warrior_id)
        if place is None or warrior is None:
            return None
        plan, slot, number = place
        for position, group in enumerate(plan.groups, 1):
            if group.name == data_group:
                seed = mix(mix(plan.seed, slot * 100_003 + number), position)
                return Series(self, plan, warrior, group, seed)
        return None

    def _spans_of_day(self, index: int, day: int) -> tuple[_Span, ...]:
        permanent = [plan.index for plan in self._plans if plan.kind == "permanent" and plan.slots]
        if not permanent:
            return ()
        midnight = day * _DAY
        spans = []
        for number, (every, turn) in enumerate(((2, 0), (3, 1), (2, 1))):
            roll = mix(mix(self.seed, day), number + 7)
            if day % every != turn or permanent[roll % len(permanent)] != index:
                continue
            if number == 0:
                begin = midnight + (9 * 60 + (roll >> 16) % 480) * 60
                spans.append(_Span("slow_datastore", begin, begin + 7200, 8.0))
            elif number == 1:
                begin = midnight + (7 * 60 + (roll >> 16) % 720) * 60
                spans.append(_Span("error_burst", begin, begin + 2700, 40.0))
            else:
                spans.append(_Span("memory_leak", midnight + 6 * 3600, midnight + 21 * 3600, 3.0))
        return tuple(spans)

    def _gap_of_day(self, warrior_id: str, day: int) -> tuple[int, int] | None:
        roll = mix(mix(self.seed, int(warrior_id)), day)
        if roll % 100 >= 6:
            return None
        start = day * _DAY + (roll >> 8) % 1300 * 60
        return start, start + (40 + (roll >> 24) % 60) * 60


def day_window(day: date, timezone: str = "UTC") -> tuple[int, int]:
    """Start and end of a day in a time zone, UNIX seconds; 23, 24 or 25 hours apart."""
    zone = ZoneInfo(timezone)
    start = datetime.combine(day, time(), zone)
    end = datetime.combine(day + timedelta(days=1), time(), zone)
    return int(start.timestamp()), int(end.timestamp())


def _zipf(troops: int, warriors: int) -> list[int]:
    """Sizes of troops that add up to ``warriors``: each at least 1, falling by rank to the power 1.3."""
    if troops == 0:
        return []
    weights = [1 / rank**1.3 for rank in range(1, troops + 1)]
    spare = warriors - troops
    sizes = [1 + int(spare * weight / sum(weights)) for weight in weights]
    for index in range(warriors - sum(sizes)):
        sizes[index % troops] += 1
    return sizes


def _overlapping(
    life_of: Callable[[int], tuple[int, int] | None], period: int, start: float, end: float
) -> list[tuple[int, int, int]]:
    """The numbered lives that touch [start, end), or hold the moment where both are equal."""
    first = max(0, int(start - ORIGIN) // period - 2)
    last = int(end - ORIGIN) // period + 2
    found = []
    for number in range(first, last + 1):
        life = life_of(number)
        if life is None:
            continue
        born, died = life
        if (born <= start < died) or (start < born < end):
            found.append((number, born, died))
    return found


def _seconds(at: Instant) -> float:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"{at} has no time zone: use an aware datetime")
        return at.timestamp()
    return at


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
