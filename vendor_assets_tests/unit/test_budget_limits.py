"""Quotas as texts, and what headers say of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.budget import Limit, Quota, parse_quota, parse_retry_after, seconds_for
from vendor_assets.budget.headers import LONGEST_HOLD_SECONDS, answer_time
from vendor_assets.errors import ConfigurationError

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("20/s", 20, 1.0),
        ("1000/min", 1000, 60.0),
        (" 100 / H ", 100, 3600.0),
        ("100000/day", 100_000, 86_400.0),
        ("7/minute", 7, 60.0),
    ],
)
def test_rates_are_read(text: str, amount: int, seconds: float) -> None:
    """A rate is a number of calls per second, minute, hour or day."""
    assert Limit.parse(text) == Limit(amount, seconds)


@pytest.mark.parametrize(
    "text", ["", "20", "/s", "0/s", "-1/s", "2.5/s", "20/week", "auto", "20/s/s", "1e9/s"]
)
def test_wrong_rates_are_named(text: str) -> None:
    """A rate that is none is refused with the value and what is accepted."""
    with pytest.raises(ConfigurationError, match="1000/min") as caught:
        Limit.parse(text)
    assert repr(text) in str(caught.value)


def test_limits_of_one_account_are_told_apart() -> None:
    """One limit has the default name, several are named by what they say, and one that is written twice counts once."""
    assert [limit.name for limit in Limit.parse_all(["20/s"])] == ["account"]
    assert [limit.name for limit in Limit.parse_all(["20/sec", "20/s"])] == ["account"]
    several = Limit.parse_all(["1/s", "60/min", "86400/day", "1/second"])
    assert [limit.name for limit in several] == ["1/s", "60/min", "86400/day"]


@pytest.mark.parametrize(
    ("calls", "texts", "seconds"),
    [
        (0, ["20/s"], 0.0),
        (1000, ["20/s"], 100.0),
        (1000, ["20/s", "60/min"], 2000.0),
        (100, ["20/s", "100000/day"], 10.0),
        (1000, ["960/day"], 2 * 86_400.0 + 40 * 7.5),
    ],
)
def test_calls_take_what_the_slowest_limit_takes(calls: int, texts: list[str], seconds: float) -> None:
    """With a share of a half: a short limit is spent evenly, a day's quota within an hour, the rest a day later."""
    assert seconds_for(calls, Limit.parse_all(texts), 0.5) == pytest.approx(seconds)


@pytest.mark.parametrize("values", [(0, 1.0), (1, 0.0), (1, -1.0), (1, 1.0, "")])
def test_impossible_limits_are_refused(values: tuple[int, float]) -> None:
    """Amount and period are positive, and a limit has a name."""
    with pytest.raises(ConfigurationError):
        Limit(*values)


def test_the_pace_leaves_room_for_jitter() -> None:
    """Spacing is period / (share x amount), stretched by 20 ms per period."""
    assert Limit(20, 1.0).interval_seconds(0.5) == pytest.approx(0.1 * 1.02)
    assert Limit(1000, 60.0).interval_seconds(1.0) == pytest.approx(0.06 * 60.02 / 60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0.5", 0.5),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("Fri, 20 Nov 2026 12:00:30 GMT", 30.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 20 Nov 2027 12:00:00 GMT", LONGEST_HOLD_SECONDS),
        ("31536000", LONGEST_HOLD_SECONDS),
        ("999999999999999", LONGEST_HOLD_SECONDS),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("12 minutes", None),
        (None, None),
    ],
)
def test_retry_after_is_read_and_bounded(text: str | None, seconds: float | None) -> None:
    """Seconds, fractions and dates are read; negative ones are none, a year is an hour, garbage is nothing."""
    assert parse_retry_after(text, NOW) == seconds


@given(st.text())
def test_no_retry_after_hurts(text: str) -> None:
    """Whatever the text, the result is nothing or between zero and the longest hold."""
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or 0.0 <= seconds <= LONGEST_HOLD_SECONDS


def test_new_relics_headers_are_read() -> None:
    """Reset is a UNIX timestamp."""
    headers = {
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "12",
        "X-RateLimit-Reset": str(int(NOW.timestamp()) + 25),
    }
    assert parse_quota(headers, NOW) == Quota(12, 25.0, 1000.0)


def test_datadogs_headers_are_read() -> None:
    """Reset is in seconds from now, and the period and the limit's name are told."""
    headers = {
        "x-ratelimit-limit": "100",
        "x-ratelimit-period": "60",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "17",
        "x-ratelimit-name": "metrics_query",
    }
    assert parse_quota(headers, NOW) == Quota(0, 17.0, 100.0, 60.0, "metrics_query")


def test_the_drafts_headers_are_read() -> None:
    """The IETF draft drops the X- and appends its policy."""
    headers = {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"}
    assert parse_quota(headers, NOW) == Quota(50, 30.0, 100.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Limit": "1000"},
        {"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "1"},
        {"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "1"},
        {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "tomorrow"},
    ],
)
def test_headers_that_say_nothing_are_nothing(headers: dict[str, str]) -> None:
    """Missing or broken headers change nothing."""
    assert parse_quota(headers, NOW) is None


def test_a_reset_in_the_past_is_now() -> None:
    """A vendor's clock that is behind ours gives no negative wait."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) - 3600)}
    assert parse_quota(headers, NOW) == Quota(0, 0.0)


def test_milliseconds_are_noticed() -> None:
    """A timestamp in milliseconds is one."""
    headers = {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": str(int(NOW.timestamp() + 5) * 1000)}
    assert parse_quota(headers, NOW) == Quota(1, 5.0)


def test_times_are_relative_to_the_answers_own_date() -> None:
    """Where the answer says what time it is for the vendor, that counts, so a clock that is off does no harm."""
    assert answer_time({"Date": "Fri, 20 Nov 2026 13:00:00 GMT"}, NOW).hour == 13
    assert answer_time({"date": "today"}, NOW) == NOW
