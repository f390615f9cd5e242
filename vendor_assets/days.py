"""Days as windows of time: what a daily partition covers in a given time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vendor_assets.errors import ConfigurationError

_LONGEST_NAME: Final = 100
"""No time zone's name is longer; zoneinfo recurses into longer ones."""


@dataclass(frozen=True, order=True)
class Window:
    """A half-open stretch of time [start, end); both ends are aware datetimes in UTC."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Length in seconds: 82,800 or 90,000 on the days on which clocks change."""
        return (self.end - self.start).total_seconds()


_FIRST: Final = date(1970, 1, 1)
_LAST: Final = date(9000, 1, 1)
"""Days with edges in UTC in every time zone, and with a day after them."""

DAYS_AGO: Final = re.compile(r"-(\d{1,5})d")
"""A day as so many days before today, like ``-1d``."""


def parse_day(text: str, newest: date | None = None) -> date:
    """Read a day like ``2026-11-20``.

    Args:
        newest: The last day that is over, if ``yesterday`` and ``-7d`` are accepted too.

    Raises:
        ConfigurationError: The text is not a day.
    """
    if newest is not None and text == "yesterday":
        return newest
    try:
        if newest is not None and (ago := DAYS_AGO.fullmatch(text)):
            return newest + timedelta(days=1 - int(ago[1]))
        day = date.fromisoformat(text)
        if not _FIRST <= day <= _LAST:
            raise ValueError("no vendor has data of such a day")
        return day
    except (ValueError, OverflowError) as error:
        others = "" if newest is None else ", yesterday or -7d"
        message = f"day {text!r} is not a date; give it as YYYY-MM-DD, like 2026-11-20{others}"
        raise ConfigurationError(message) from error


def parse_days(text: str, newest: date) -> tuple[date, date]:
    """Read a day, or a range like ``2026-11-01..2026-11-07``: its first and last day.

    Args:
        newest: The last day that is over; with nothing after its dots a range ends there.

    Raises:
        ConfigurationError: A part of the text is not a day, or the last day is before the first.
    """
    start, dots, end = text.partition("..")
    first = parse_day(start, newest)
    last = parse_day(end, newest) if end else newest if dots else first
    if last < first:
        raise ConfigurationError(f"days {text!r} end before they begin; give the first day first")
    return first, last


def parse_time_zone(name: str) -> ZoneInfo:
    """Read an IANA time zone's name.

    Raises:
        ConfigurationError: No such zone.
    """
    try:
        if len(name) > _LONGEST_NAME:
            raise ValueError("no zone has such a name")
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = (
            f"time zone {name!r} is unknown; give an IANA name like UTC, Europe/Berlin or Asia/Kathmandu"
        )
        raise ConfigurationError(message) from error


def day_window(day: date, zone: ZoneInfo) -> Window:
    """The window [00:00, 24:00) of a local day: 23, 24 or 25 hours.

    Raises:
        ConfigurationError: The day does not exist there.
    """
    start, end = _edges(day, zone)
    if not start < end:
        message = f"day {day} does not exist in {zone.key}: the clocks there went past it; leave it out"
        raise ConfigurationError(message)
    return Window(start, end)


def day_exists(day: date, zone: ZoneInfo) -> bool:
    """Whether a calendar has a day: Samoa went from 2011-12-29 to 2011-12-31."""
    start, end = _edges(day, zone)
    return start < end


def _edges(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    # The first moment of a day may come after midnight where clocks go forward just then.
    start, end = (datetime.combine(each, time.min, zone) for each in (day, day + timedelta(days=1)))
    return start.astimezone(UTC), end.astimezone(UTC)


def last_complete_day(now: datetime, zone: ZoneInfo) -> date:
    """The newest local day that is over at ``now``."""
    day = now.astimezone(zone).date() - timedelta(days=1)
    return day if day_exists(day, zone) else day - timedelta(days=1)


def days_between(first: date, last: date, zone: ZoneInfo | None = None) -> list[date]:
    """All days from ``first`` to ``last``, both included; without those that do not exist, where a zone is given.

    Raises:
        ConfigurationError: ``first`` is after ``last``.
    """
    if first > last:
        message = f"the range {first} to {last} is empty; the first day must not be after the last"
        raise ConfigurationError(message)
    days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
    return [day for day in days if zone is None or day_exists(day, zone)]


def duration_text(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
