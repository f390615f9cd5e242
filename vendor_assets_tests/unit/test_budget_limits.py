"""Quotas as texts, and what headers say of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.budget import Limit, amount_text, rate_for, seconds_for
from vendor_assets.budget.headers import (
    LONGEST_HOLD_SECONDS,
    LONGEST_PERIOD_SECONDS,
    LONGEST_RESET_SECONDS,
    Policy,
    Quota,
    answer_time,
    parse_policies,
    parse_quotas,
    retry_after_seconds,
    wait_seconds,
)
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
        ("50/month", 50, 31 * 86_400.0),
    ],
)
def test_rates_are_read(text: str, amount: int, seconds: float) -> None:
    """A rate is a number of calls per second, minute, hour or day."""
    assert Limit.parse(text) == Limit(amount, seconds)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "20",
            "/s",
            "0/s",
            "0 dollars/day",
            "0.0 dollars/day",
            "1. dollars/day",
            "$2/day",
            "0.5 requests/s",
        ),
        *("-1/s", "2.5/s", "20/week", "auto", "20/s/s", "1e9/s"),
    ],
)
def test_wrong_rates_are_named(text: str) -> None:
    """A rate that is none is refused with the value and what is accepted."""
    with pytest.raises(ConfigurationError, match="1000/min") as caught:
        Limit.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("3000 queries/min", Limit(3000, 60.0, unit="queries")),
        ("20 usd/month", Limit(20, 31 * 86_400.0, unit="dollars")),
        ("0.5 dollars/day", Limit(0.5, 86_400.0, unit="dollars")),
        (".00005 Dollar/s", Limit(0.00005, 1.0, unit="dollars")),
        ("100/h for tags+hosts", Limit(100, 3600.0, endpoints=("hosts", "tags"))),
        ("5 points/s burst 10 for query", Limit(5, 1.0, burst=10, unit="points", endpoints=("query",))),
    ],
)
def test_what_is_counted_and_where(text: str, limit: Limit) -> None:
    """A limit may count something else than calls, and only those of some endpoints; as text it is read again."""
    assert Limit.parse(text) == limit
    assert Limit.parse(str(limit)) == limit


def test_what_a_call_counts_is_in_the_time_it_takes() -> None:
    """Five queries a call: 3,000 queries a minute are 600 calls; an endpoint's own limit is not known to matter."""
    limits = Limit.parse_all(["6000/min", "3000 queries/min", "1/h for lists"])
    assert seconds_for(600, limits, 1.0, {"queries": 5.0}) == pytest.approx(60.0)
    assert rate_for(limits, 1.0, {"queries": 5.0}) == pytest.approx(10.0)
    assert rate_for(limits, 0.5, {"queries": 0.0}) == pytest.approx(50.0)


def test_a_price_is_in_the_time_it_takes() -> None:
    """At a share of a half, ten dollars a day are five: a hundred calls of a tenth take a day and two hours."""
    limits = Limit.parse_all(["10 dollars/day"])
    assert seconds_for(100, limits, 0.5, {"dollars": 0.1}) == pytest.approx(86_400.0 + 3600.0)
    assert seconds_for(50, limits, 0.5, {"dollars": 0.1}) == pytest.approx(3600.0)
    assert rate_for(limits, 0.5, {"dollars": 0.1}) == pytest.approx(50 / 86_400.0)


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (4.2, "dollars", "4.20 dollars"),
        (1234.567, "euros", "1,234.57 euros"),
        (0.00005, "dollars", "0.00005 dollars"),
        (0.0123, "dollars", "0.012 dollars"),
        (0.5, "dollars", "0.50 dollars"),
        (0, "dollars", "0.00 dollars"),
        (3100.4, "queries", "3,100 queries"),
        (4.25, "queries", "4.2 queries"),
        (21.0, "queries", "21 queries"),
        (0.25, "points", "0.25 points"),
        (10.0, "requests", "10 calls"),
    ],
)
def test_amounts_are_readable(number: float, unit: str, text: str) -> None:
    """Money has two decimals, or two digits where it is less than a cent; what is counted otherwise has few."""
    assert amount_text(number, unit) == text


def test_limits_of_one_account_are_told_apart() -> None:
    """One limit has the default name, several are named by what they say, and one that is written twice counts once."""
    assert [limit.name for limit in Limit.parse_all(["20/s"])] == ["account"]
    assert [limit.name for limit in Limit.parse_all(["20/sec", "20/s"])] == ["account"]
    assert [limit.name for limit in Limit.parse_all(["100/h for hosts"])] == ["100/h for hosts"]
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
        ("30s", 30.0),
        ("30 seconds", 30.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("PT1M30S", 90.0),
        ('"7"', 7.0),
        ("120, 120", 120.0),
        ("2, 120", 120.0),
        ("Fri, 20 Nov 2026 12:00:30 GMT, Fri, 20 Nov 2026 12:00:40 GMT", 40.0),
        ("Friday, 20-Nov-26 12:00:30 GMT", 30.0),
        ("Fri Nov 20 12:00:30 2026", 30.0),
        ("2026-11-20T12:00:30Z", 30.0),
        ("2026-11-20T13:00:30.5+01:00", 30.5),
        ("Fri Nov 20 2026 13:00:30 GMT+0100 (Central European Standard Time)", 30.0),
        (str(int(NOW.timestamp()) + 30), 30.0),
        (str(int(NOW.timestamp()) + 30) + "000", 30.0),
        ("\u0661\u0662", None),
        ("\uff11", None),
        ("0x10", None),
        ("1_000", None),
        ("9" * 400, None),
        (None, None),
    ],
)
def test_retry_after_is_read_and_bounded(text: str | None, seconds: float | None) -> None:
    """Seconds, fractions and dates are read; negative ones are none, a year is an hour, garbage is nothing."""
    headers = {} if text is None else {"Retry-After": text}
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"x-retry-after": "3"}, 3.0),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 2.0),
        ({"X-Rate-Limit-Retry-After-Seconds": "3"}, 3.0),
        ({"X-Rate-Limit-Retry-After-Milliseconds": "3000"}, 3.0),
        ({"X-RateLimit-Retry-After": "3"}, 3.0),
        ({"Retry-After-short": "3"}, 3.0),
        ({"X-Retry-In": "500ms"}, 0.5),
        ({"X-Retry-Count": "3"}, None),
        ({"Retry-After": "soon"}, None),
    ],
)
def test_every_way_of_asking_for_patience_is_read(headers: dict[str, str], seconds: float | None) -> None:
    """Vendors write Retry-After under several names and in milliseconds; of several the longest counts."""
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}, 3.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}, 60.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "90000"}, LONGEST_HOLD_SECONDS),
        ({"RateLimit-Reset": "7"}, 7.0),
        ({"RateLimit": '"a";r=5;t=3, "b";r=0;t=30'}, 30.0),
        ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "60"}, None),
        ({"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "60"}, 60.0),
        ({}, None),
    ],
)
def test_a_throttle_says_how_long_by_its_quota_too(headers: dict[str, str], seconds: float | None) -> None:
    """Without Retry-After the reset of what is used up counts, or one that stands alone."""
    assert wait_seconds(headers, NOW) == seconds


def three(limit: object, remaining: object, reset: object, prefix: str = "X-RateLimit") -> dict[str, str]:
    """The three fields."""
    return {
        f"{prefix}-Limit": str(limit),
        f"{prefix}-Remaining": str(remaining),
        f"{prefix}-Reset": str(reset),
    }


UNIX = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "quotas", "policies"),
    [
        (
            {"RateLimit-Policy": '"default";q=100;w=60', "RateLimit": '"default";r=50;t=30'},
            [Quota(50, 30, 100, 60, "default")],
            [Policy(100, 60, "default")],
        ),
        (
            {"RateLimit-Policy": "default;w=60;x=1;q=100", "RateLimit": "default;pk=:dHJ1:;t=30;r=50"},
            [Quota(50, 30, 100, 60, "default")],
            [Policy(100, 60, "default")],
        ),
        (
            {
                "ratelimit-policy": '"a, b;c";q=10;w=1, "day";q=1000;w=86400;pk=:QQ==:',
                "ratelimit": '"a, b;c";r=9;t=1, "day";r=0;t=400',
            },
            [Quota(9, 1, 10, 1, "a, b;c"), Quota(0, 400, 1000, 86_400, "day")],
            [Policy(1000, 86_400, "day"), Policy(10, 1, "a, b;c")],
        ),
        (
            {"RateLimit-Policy": '"b";q=9;w=60;qu="content-bytes"', "RateLimit": '"b";r=5;t=30'},
            [],
            [],
        ),
        ({"RateLimit": '"default";r=50'}, [], []),
        (
            {"RateLimit-Policy": '"d";q=100;w=60', "RateLimit": '"d";r=50'},
            [Quota(50, 60, 100, 60, "d")],
            [Policy(100, 60, "d")],
        ),
        (
            {"RateLimit": "limit=100, remaining=80, reset=54"},
            [Quota(80, 54, 100)],
            [],
        ),
        (
            {"RateLimit": "limit=100, remaining=50, reset=30", "RateLimit-Policy": "100;w=60, 10000;w=86400"},
            [Quota(50, 30, 100, 60)],
            [Policy(10_000, 86_400), Policy(100, 60)],
        ),
        (
            three("100, 100;w=60", 50, 30, "RateLimit"),
            [Quota(50, 30, 100)],
            [Policy(100, 60)],
        ),
        (
            three('10, 10;w=1;name="s", 100;w=60;name="m"', 9, 1, "x-ratelimit"),
            [Quota(9, 1, 10)],
            [Policy(100, 60, "m"), Policy(10, 1, "s")],
        ),
        (three(1000, 12, UNIX + 25, "X-Rate-Limit"), [Quota(12, 25, 1000)], []),
        (three(1000, 12, f"{UNIX + 25}.5"), [Quota(12, 25.5, 1000)], []),
        (three(1000, 12, (UNIX + 25) * 1000), [Quota(12, 25, 1000)], []),
        (three(1000, 12, "2026-11-20T12:00:25Z"), [Quota(12, 25, 1000)], []),
        (three(1000, 12, "Fri, 20 Nov 2026 12:00:25 GMT"), [Quota(12, 25, 1000)], []),
        (
            {**three(5, 0, UNIX), "X-RateLimit-Reset-After": "1.250", "X-RateLimit-Bucket": "abcd"},
            [Quota(0, 1.25, 5, None, "abcd", bucket=True)],
            [],
        ),
        (
            {**three(60, 0, UNIX + 9), "X-RateLimit-Used": "60", "X-RateLimit-Resource": "core"},
            [Quota(0, 9, 60, None, "core", bucket=True)],
            [],
        ),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "20ms",
            },
            [Quota(59, 360, 60, None, "requests")],
            [],
        ),
        (
            {
                "X-RateLimit-Limit-Minute": "100",
                "X-RateLimit-Remaining-Minute": "7",
                "X-RateLimit-Limit-Hour": "1000",
                "X-RateLimit-Remaining-Hour": "0",
                **three(100, 7, 30, "RateLimit"),
            },
            [
                Quota(7, 30, 100, 60, "minute"),
                Quota(0, 3600, 1000, 3600, "hour"),
                Quota(7, 30, 100),
            ],
            [Policy(1000, 3600, "hour"), Policy(100, 60, "minute")],
        ),
        ({"X-RateLimit-Limit-second": "5"}, [], [Policy(5, 1, "second")]),
        (
            {
                "X-HubSpot-RateLimit-Max": "100",
                "X-HubSpot-RateLimit-Remaining": "98",
                "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
                "X-HubSpot-RateLimit-Daily": "1000",
                "X-HubSpot-RateLimit-Daily-Remaining": "0",
            },
            [Quota(0, 86_400, 1000, 86_400, "hubspot-daily")],
            [Policy(1000, 86_400, "hubspot-daily"), Policy(100, 10, "hubspot")],
        ),
        ({**three(100, 0, 60_000), "X-RateLimit-Period": "60"}, [Quota(0, 60, 100, 60)], [Policy(100, 60)]),
        ({"X-Shopify-Shop-Api-Call-Limit": "32/40"}, [], []),
        ({"X-Shopify-Shop-Api-Call-Limit": "40/40"}, [Quota(0, 1, 40, None, "bucket")], []),
        (three(100, -3, 30), [Quota(0, 30, 100)], []),
        (three(-1, -1, 30), [], []),
        (three("\u0661", "\u0660", "\u0662"), [], []),
        (three("nan", "inf", "1e9"), [], []),
        ({"RateLimit-Policy": '"d";q=0;w=60, "e";q=5;w=0, "f";q=-1;w=1, "g";q=1;w=999999999'}, [], []),
    ],
)
def test_every_form_in_use_is_read(
    headers: dict[str, str], quotas: list[Quota], policies: list[Policy]
) -> None:
    """What is left and what the limits are, in each form that the module names; what makes no sense is nothing."""
    assert list(parse_quotas(headers, NOW)) == quotas
    assert list(parse_policies(headers)) == policies


NAMES = st.sampled_from(
    [
        "RateLimit",
        "RateLimit-Policy",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-RateLimit-Reset-After",
        "X-RateLimit-Remaining-Minute",
        "X-RateLimit-Period",
        "Retry-After",
        "Retry-After-Ms",
        "Date",
        "X-Shopify-Shop-Api-Call-Limit",
    ]
)
PIECES = st.lists(
    st.sampled_from(
        [*'",;=\\:- /\u0661\u00b2.', *"0129e", "r", "t", "q", "w=", "nan", "inf", "99999999999", "limit="]
    ),
    max_size=60,
).map("".join)
TEXTS = st.one_of(st.text(max_size=60), PIECES, st.integers().map(str), st.floats().map(str))


@given(st.dictionaries(st.one_of(NAMES, st.text(max_size=40)), TEXTS, max_size=8))
def test_no_header_hurts(headers: dict[str, str]) -> None:
    """Whatever the headers, what is read of them is finite and within its bounds."""
    for quota in parse_quotas(headers, NOW):
        assert 0 <= quota.remaining < 1e19
        assert 0 <= quota.reset_seconds <= LONGEST_RESET_SECONDS
    for policy in parse_policies(headers):
        assert 1 <= policy.limit < 1e19
        assert 0 < policy.period_seconds <= LONGEST_PERIOD_SECONDS
    for seconds in (retry_after_seconds(headers, NOW), wait_seconds(headers, NOW)):
        assert seconds is None or 0 <= seconds <= LONGEST_HOLD_SECONDS
    assert answer_time(headers, NOW).tzinfo is not None


@pytest.mark.parametrize(
    "piece", ['"', '\\"', '"\\', ",", "a;", "1,", '"a";r=1;t=1,', "9", "Mon, 01 Jan 2026 "]
)
def test_endless_headers_are_cut(piece: str) -> None:
    """A header of a megabyte costs no more than its beginning."""
    long = piece * (1_000_000 // len(piece))
    headers = {
        "RateLimit": long,
        "RateLimit-Policy": long,
        "Retry-After": long,
        "X-RateLimit-Remaining": long,
    }
    assert len(parse_quotas(headers, NOW)) <= 20
    assert len(parse_policies(headers)) <= 20
    retry_after_seconds(headers, NOW)


@given(st.text())
def test_no_retry_after_hurts(text: str) -> None:
    """Whatever the text, the result is nothing or between zero and the longest hold."""
    seconds = retry_after_seconds({"Retry-After": text}, NOW)
    assert seconds is None or 0.0 <= seconds <= LONGEST_HOLD_SECONDS


def test_new_relics_headers_are_read() -> None:
    """Reset is a UNIX timestamp."""
    headers = {
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "12",
        "X-RateLimit-Reset": str(int(NOW.timestamp()) + 25),
    }
    assert parse_quotas(headers, NOW) == (Quota(12, 25.0, 1000.0),)


def test_datadogs_headers_are_read() -> None:
    """Reset is in seconds from now, and the period and the name of a bucket are told, which some endpoints share."""
    headers = {
        "x-ratelimit-limit": "100",
        "x-ratelimit-period": "60",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "17",
        "x-ratelimit-name": "metrics_query",
    }
    assert parse_quotas(headers, NOW) == (Quota(0, 17.0, 100.0, 60.0, "metrics_query", bucket=True),)
    assert parse_policies(headers) == (Policy(100.0, 60.0, "metrics_query", bucket=True),)
    assert wait_seconds(headers, NOW) == 17.0


def test_the_drafts_headers_are_read() -> None:
    """The IETF draft drops the X- and appends its policy."""
    headers = {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"}
    assert parse_quotas(headers, NOW) == (Quota(50, 30.0, 100.0),)


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
    assert parse_quotas(headers, NOW) == ()


def test_a_reset_in_the_past_is_now() -> None:
    """A vendor's clock that is behind ours gives no negative wait."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) - 3600)}
    assert parse_quotas(headers, NOW) == (Quota(0, 0.0),)


def test_milliseconds_are_noticed() -> None:
    """A timestamp in milliseconds is one."""
    headers = {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": str(int(NOW.timestamp() + 5) * 1000)}
    assert parse_quotas(headers, NOW) == (Quota(1, 5.0),)


def test_times_are_relative_to_the_answers_own_date() -> None:
    """Where the answer says what time it is for the vendor, that counts, so a clock that is off does no harm."""
    assert answer_time({"Date": "Fri, 20 Nov 2026 13:00:00 GMT"}, NOW).hour == 13
    assert answer_time({"date": "today"}, NOW) == NOW
