"""Days as windows: also where clocks change, and where a day is missing."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from vendor_assets.days import day_exists, day_window, days_between, last_complete_day
from vendor_assets.errors import ConfigurationError

APIA = ZoneInfo("Pacific/Apia")
MISSING = date(2011, 12, 30)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("UTC", date(2026, 3, 29), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # midnight itself is missing
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Pacific/Apia", date(2011, 12, 29), 24),
        ("Pacific/Apia", date(2011, 12, 31), 24),
    ],
)
def test_a_day_is_as_long_as_its_clocks_say(zone: str, day: date, hours: float) -> None:
    """23, 24 or 25 hours, to the minute; neighbours of a missing day are whole."""
    assert day_window(day, ZoneInfo(zone)).seconds == hours * 3600
    assert day_exists(day, ZoneInfo(zone))


@pytest.mark.parametrize(
    ("zone", "day"), [("Pacific/Apia", MISSING), ("Pacific/Kwajalein", date(1993, 8, 21))]
)
def test_a_day_that_does_not_exist_is_refused(zone: str, day: date) -> None:
    """It has no window, and a range leaves it out."""
    assert not day_exists(day, ZoneInfo(zone))
    with pytest.raises(ConfigurationError, match=f"day {day} does not exist in {zone}"):
        day_window(day, ZoneInfo(zone))
    around = days_between(day.replace(day=day.day - 1), day.replace(day=day.day + 1), ZoneInfo(zone))
    assert [each.day - day.day for each in around] == [-1, 1]


def test_the_newest_day_that_is_over_is_one_that_exists() -> None:
    """On the day after a missing one, the day before it is the last that is over."""
    assert last_complete_day(datetime(2011, 12, 31, 12, tzinfo=APIA), APIA) == date(2011, 12, 29)
    assert last_complete_day(datetime(2011, 12, 31, 12, tzinfo=UTC), ZoneInfo("UTC")) == MISSING
