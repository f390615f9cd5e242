"""The two dimensions of every asset: the day, and the troop."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.orchestration.names import Names

DAY = "day"
TROOP = "troop"


@dataclass(frozen=True)
class Partitions:
    """The partitions of an account.

    Attributes:
        day: Days that are over, from the account's first day, in its time zone.
        troop: Troops that were ever on a roster.
        day_troop: Every day × every troop.
    """

    day: dg.DailyPartitionsDefinition
    troop: dg.DynamicPartitionsDefinition
    day_troop: dg.MultiPartitionsDefinition

    @classmethod
    def of(cls, account: Account) -> "Partitions":
        """The partitions of an account."""
        return cls.since(account.start, account.name, timezone=account.zone.key)

    @classmethod
    def since(cls, start: date | str, account: str = "", *, timezone: str = "UTC") -> "Partitions":
        """The partitions of an account by its name, for assets that are defined without its settings."""
        day = dg.DailyPartitionsDefinition(start_date=str(start), timezone=timezone)
        troop = dg.DynamicPartitionsDefinition(name=Names(account).thing(TROOP))
        return cls(day, troop, dg.MultiPartitionsDefinition({DAY: day, TROOP: troop}))

    def troops(self, instance: dg.DagsterInstance) -> set[str]:
        """Keys of all known troops."""
        return set(instance.get_dynamic_partitions(str(self.troop.name)))

    def add_troops(self, instance: dg.DagsterInstance, keys: Iterable[str]) -> list[str]:
        """Add troops; returns those that were new."""
        new = sorted(set(keys) - self.troops(instance))
        instance.add_dynamic_partitions(str(self.troop.name), new)
        return new


def day_and_troops() -> dg.PartitionMapping:
    """The mapping between a day and the partitions of all troops on it, in either direction."""
    return dg.MultiToSingleDimensionPartitionMapping(DAY)


def day_troop_key(day: date, troop_key: str) -> dg.MultiPartitionKey:
    """The partition key of a day and a troop."""
    return dg.MultiPartitionKey({DAY: day.isoformat(), TROOP: troop_key})


def split_key(key: str) -> tuple[date, str | None]:
    """Day and troop of a partition key, ``2026-11-20`` or ``2026-11-20|42``."""
    day, _, troop = key.partition("|")
    return date.fromisoformat(day), troop or None


def split_keys(keys: Sequence[str]) -> list[tuple[date, str]]:
    """Days and troops of day × troop partition keys."""
    return [(day, troop or "") for day, troop in map(split_key, keys)]
