"""The data groups of a warrior, and the values that they have under load and in trouble. Pure."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

Family = Literal["transaction", "datastore", "external", "errors", "apdex", "memory", "cpu", "silent"]

VALUE_NAMES: dict[Family, tuple[str, ...]] = {
    "transaction": (
        "average_response_time", "min_response_time", "max_response_time", "calls_per_minute", "call_count"
    ),
    "datastore": ("average_response_time", "max_response_time", "calls_per_minute", "call_count"),
    "external": ("average_response_time", "calls_per_minute", "call_count"),
    "errors": ("error_count", "errors_per_minute"),
    "apdex": ("score", "s", "t", "f", "count"),
    "memory": ("used_mb_by_host", "min_used_mb", "max_used_mb"),
    "cpu": ("percent", "min_percent", "max_percent"),
    "silent": (),
}  # fmt: skip
"""Names of the values that a data group of each family has. Times are milliseconds, memory MiB."""

_NOUNS = (
    "orders", "carts", "payments", "customers", "shipments", "invoices", "sessions", "prices", "reviews", "refunds",
    "coupons", "addresses",
)  # fmt: skip
_VERBS = ("show", "index", "create", "update", "search")


class DataGroup(NamedTuple):
    """One metric family of a warrior, with the names of its values."""

    name: str
    family: Family
    value_names: tuple[str, ...]


Noise = tuple[float, float, float]
"""Three numbers in [0, 1)."""


class Disturbance(NamedTuple):
    """Factors; 1.0 where nothing is wrong."""

    latency: float = 1.0
    errors: float = 1.0
    memory: float = 1.0


CALM = Disturbance()


def data_group(name: str, family: Family) -> DataGroup:
    """A data group with the values of its family."""
    return DataGroup(name, family, VALUE_NAMES[family])


def data_groups(seed: int, count: int) -> tuple[DataGroup, ...]:
    """As many data groups, the same for each seed."""
    table, host = _NOUNS[seed % len(_NOUNS)], _NOUNS[(seed >> 4) % len(_NOUNS)]
    groups = [
        data_group("HttpDispatcher", "transaction"),
        data_group(f"Datastore/statement/Postgres/{table}/select", "datastore"),
        data_group("Errors/all", "errors"),
        data_group("Memory/Physical", "memory"),
        data_group("Apdex", "apdex"),
        data_group("CPU/User Time", "cpu"),
        data_group(f"Controller/{table}/show", "transaction"),
        data_group(f"External/{host}.example.com/all", "external"),
    ]
    more: tuple[tuple[str, Family], ...] = (
        ("Controller/{}/{}/{}", "transaction"),
        ("Datastore/statement/Postgres/{}/{}/{}", "datastore"),
        ("External/{}.example.com/{}/{}", "external"),
    )
    for number in range(count - len(groups)):
        noun, verb = _NOUNS[number % len(_NOUNS)], _VERBS[number // len(_NOUNS) % len(_VERBS)]
        form, family = more[number % 3]
        groups.append(data_group(form.format(noun, verb, number), family))
    return tuple(groups[:count])


def measure(
    family: Family,
    scale: float,
    calls: float,
    load: float,
    minutes: float,
    noise: Noise,
    trouble: Disturbance,
) -> tuple[float, ...]:
    """Values of one slice, in the order of ``VALUE_NAMES``.

    Args:
        scale: Size of this series, about 1.
        calls: Calls per minute of the service.
        load: By time of the week, about 1 at its peak.
        minutes: How much of the slice is covered.
    """
    noise_a, noise_b, noise_c = noise
    match family:
        case "transaction":
            latency = (
                60.0 * scale * (0.7 + 0.6 * load) * (0.85 + 0.3 * noise_b) * (0.6 + 0.4 * trouble.latency)
            )
            count = float(round(calls * minutes))
            lowest, highest = latency * (0.2 + 0.2 * noise_c), latency * (2.5 + 6 * noise_c)
            return round(latency, 2), round(lowest, 2), round(highest, 2), round(count / minutes, 2), count
        case "datastore":
            latency = 6.0 * scale * (0.8 + 0.4 * load) * (0.8 + 0.4 * noise_b) * trouble.latency
            count = float(round(3 * calls * minutes))
            highest = latency * (2.5 + 6 * noise_c)
            return round(latency, 2), round(highest, 2), round(count / minutes, 2), count
        case "external":
            count = float(round(0.4 * calls * minutes))
            return round(120.0 * scale * (0.8 + 0.5 * noise_b), 2), round(count / minutes, 2), count
        case "errors":
            rate = min(1.0, 0.002 * (0.5 + noise_b) * trouble.errors)
            count = float(round(calls * minutes * rate))
            return count, round(count / minutes, 3)
        case "apdex":
            total = float(round(calls * minutes))
            frustrated = float(round(total * min(1.0, 0.01 * (0.5 + noise_b) * trouble.errors)))
            tolerating = float(round((total - frustrated) * (0.05 + 0.05 * noise_c)))
            satisfied = total - frustrated - tolerating
            score = round((satisfied + tolerating / 2) / total, 3) if total else 1.0
            return score, satisfied, tolerating, frustrated, total
        case "memory":
            used = 512.0 * scale * (0.9 + 0.1 * load + 0.05 * noise_a) * trouble.memory
            return round(used, 1), round(used * 0.96, 1), round(used * (1.02 + 0.05 * noise_b), 1)
    percent = min(100.0, 12 + 55 * load * scale * (0.8 + 0.4 * noise_a))
    lowest, highest = percent * (0.5 + 0.3 * noise_b), min(100.0, percent * (1.1 + 0.5 * noise_c))
    return round(percent, 2), round(lowest, 2), round(highest, 2)


def load_at(seconds: int, phase: int) -> float:
    """Load by time of the week, about 0.2 to 1.1; ``phase`` shifts the week by so many five minutes."""
    return _load_table()[(seconds // 300 + phase) % 2016]


@lru_cache(maxsize=1)
def _load_table() -> tuple[float, ...]:
    """By five minutes of the week, from Thursday 00:00 as UNIX time has it."""
    table = []
    for index in range(2016):
        hour = index * 5 / 60 % 24
        weekday = (index // 288 + 3) % 7
        wave = (0.5 - 0.5 * math.cos((hour - 4) / 24 * 2 * math.pi)) ** 1.3
        lunch = 0.15 * math.exp(-((hour - 12.5) ** 2) / 2)
        table.append((0.2 + 0.8 * wave + lunch) * (0.55 if weekday >= 5 else 1.0))
    return tuple(table)


def mix(left: int, right: int) -> int:
    """A 64-bit hash of two integers (splitmix64's finalizer)."""
    bits = (left * _GOLDEN + right + 1) & _MASK
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & _MASK
    return bits ^ bits >> 31


def noise_at(seed: int, start: int) -> Noise:
    """The noise of one slice."""
    bits = (seed ^ start * _GOLDEN) & _MASK
    bits = ((bits ^ bits >> 31) * 0xBF58476D1CE4E5B9) & _MASK
    bits ^= bits >> 29
    return (bits & 0xFFFF) / 65536, (bits >> 16 & 0xFFFF) / 65536, (bits >> 32 & 0xFFFF) / 65536
