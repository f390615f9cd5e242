"""Whether days arrive when the schedule should have made them; nothing is expected while the schedule is off.

Of the ticks that a schedule has missed, while the machine or the daemon was off, Dagster makes up for the newest alone
(1.13.27): days may be missing in between.

A Dagster freshness policy does not fit: it passes after any recent materialization, so a backfill of an old day turns
it green (tried with both policies of Dagster 1.13.27).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.days import day_window, days_between, last_complete_day
from vendor_assets.orchestration.dagster_private import materialized_partitions, schedule_started
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import active_days
from vendor_assets.presentable import presentable_names

DAILY_SCHEDULE: Final = "daily_harvest"
GRACE: Final = {"troops": timedelta(hours=1), "daily_performance": timedelta(hours=6)}
"""How long after the schedule's tick a day may take when no run works on it."""
MISSED_DAYS: Final = 31
"""How far back a missed day is looked for."""
_NAMED: Final = 3


@dataclass(frozen=True)
class Freshness:
    """Whether an asset is as new as it should be.

    Attributes:
        expected: The newest day that should be materialized.
        newest: The newest day that is; None if there is none.
        text: The result in words.
    """

    asset: str
    expected: date
    newest: date | None
    passed: bool
    text: str

    @property
    def days_behind(self) -> int:
        """Days missing at the end; 1 if there is no day at all."""
        return 1 if self.newest is None else max(0, (self.expected - self.newest).days)


def scheduled_since(instance: dg.DagsterInstance, names: Names) -> datetime | None:
    """When the daily schedule was turned on; None while it is off."""
    return schedule_started(instance, names.thing(DAILY_SCHEDULE))


def missed_days(account: Account, since: datetime, before: date, there: Collection[date]) -> list[date]:
    """Days of the last month that the schedule should have made while it was on, after the first there is."""
    settling = timedelta(seconds=account.settling_seconds)
    first = max(min(there, default=before), before - timedelta(days=MISSED_DAYS), account.start)
    days = days_between(first, before - timedelta(days=1), account.zone) if first < before else []
    return [day for day in days if day not in there and day_window(day, account.zone).end + settling >= since]


def freshness(instance: dg.DagsterInstance, account: Account, now: datetime) -> list[Freshness]:
    """The freshness of each asset that the schedule makes; empty while the schedule is off."""
    names = Names.for_account(account)
    since = scheduled_since(instance, names)
    if since is None:
        return []
    found: list[Freshness] = []
    settling = timedelta(seconds=account.settling_seconds)
    busy = active_days(instance, names)
    for asset, grace in GRACE.items():
        expected = last_complete_day(now - settling - grace, account.zone)
        if day_window(expected, account.zone).end + settling < since:
            continue
        days = [date.fromisoformat(key) for key in materialized_partitions(instance, names.key(asset))]
        newest = max(days, default=None)
        late = newest is None or newest < expected
        working = late and expected.isoformat() in busy
        missed = [
            day.isoformat()
            for day in missed_days(account, since, expected, set(days))
            if day.isoformat() not in busy
        ]
        if working:
            text = f"{expected} is being harvested"
        elif late:
            text = f"{expected} should be materialized, but the newest day is {newest or 'none'}"
        else:
            text = f"{newest} is materialized"
        if missed:
            text += f"; missed: {presentable_names(missed, _NAMED)}"
        found.append(Freshness(asset, expected, newest, (working or not late) and not missed, text))
    return found
