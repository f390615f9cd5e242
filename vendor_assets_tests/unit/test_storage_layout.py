"""Keys of objects: safe, reversible, in one place."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.errors import StorageError
from vendor_assets.storage import layout

DAY = date(2026, 11, 20)
NASTY = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "/etc/passwd",
    "a/b",
    "payments|eu",
    "a,b",
    "a...b",
    "[a...b]",
    ".hidden",
    "x.",
]
NASTY += [
    "a\x00b",
    "a\nb",
    "~",
    "~~",
    "a~2Fb",
    "day=1",
    "ü",
    "日本",
    "\ud800",
    "a b",
    "%2F",
    "a\\b",
    "x" * 500,
    "é" * 90,
]
TEXTS = st.one_of(st.text(), st.sampled_from(NASTY), st.text("./~|,=A0-_", max_size=12))


@given(TEXTS)
def test_a_segment_is_safe_everywhere(text: str) -> None:
    """A segment has only harmless characters, no leading, trailing or double dot, and at most 160 bytes."""
    segment = layout.encode_segment(text)
    assert re.fullmatch(r"[A-Za-z0-9_~.-]{1,160}", segment)
    assert not segment.startswith(".")
    assert not segment.endswith(".")
    assert ".." not in segment


@given(TEXTS)
def test_a_segment_says_its_text_unless_it_is_cut(text: str) -> None:
    """Its escapes stand for the text's bytes; only long texts are cut."""
    segment, data = layout.encode_segment(text), text.encode("utf-8", "surrogatepass")
    if "~~" in segment:
        assert len(data) > (layout.SEGMENT_BYTES - 2) / 3
    else:
        assert unquote_to_bytes(segment.replace("~", "%") if text else "") == data


@given(TEXTS, TEXTS)
def test_two_texts_never_share_a_segment(one: str, other: str) -> None:
    """Different texts have different segments."""
    assert (layout.encode_segment(one) == layout.encode_segment(other)) == (one == other)


def test_long_texts_with_the_same_beginning_stay_apart() -> None:
    """What is cut keeps a digest of the whole text."""
    one, other = layout.encode_segment("é" * 400 + "1"), layout.encode_segment("é" * 400 + "2")
    assert one != other
    assert re.search(r"(~[0-9A-F]{2})~~[0-9a-f]{32}$", one), "never cut inside an escape"


@pytest.mark.parametrize("plain", ["42", "web-1", "payments_eu", "v1.2.3", "-", "A"])
def test_ordinary_ids_stay_as_they_are(plain: str) -> None:
    """Letters, digits, dash, underscore and inner dots are not touched."""
    assert layout.encode_segment(plain) == plain


@given(st.sampled_from(["troops", "performance_data"]), st.dates(), st.none() | TEXTS)
def test_a_table_key_can_be_parsed(table: str, day: date, text: str | None) -> None:
    """The parts of a table's key come back from it."""
    troop = None if text is None else layout.encode_segment(text)
    key = layout.table_key(table, day, troop)
    assert layout.parse_table_key(key) == (table, day, troop)
    assert key.startswith(layout.table_prefix(table, day))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "processed/troops/data.parquet",
        "processed/troops/day=2026-13-01/data.parquet",
        "raw_data/x",
        "processed/troops/day=2026-11-20/troop=a/troop=b/data.parquet",
        "processed/troops/day=2026-11-20/_SUCCESS",
    ],
)
def test_foreign_keys_are_not_parsed(key: str) -> None:
    """A key that is no table's is refused with what to do."""
    with pytest.raises(StorageError, match="not a partition of a table"):
        layout.parse_table_key(key)


@pytest.mark.parametrize("troop", ["a/b", "../x", "", "a|b", ".hidden"])
def test_a_troop_that_is_not_encoded_makes_no_key(troop: str) -> None:
    """A key is never built from a vendor's text as it is."""
    with pytest.raises(StorageError, match="encode_segment"):
        layout.table_key("warriors", DAY, troop)


def test_the_layout_is_what_the_documentation_draws() -> None:
    """Every key has its documented place."""
    folder = layout.harvest_folder("warriors", DAY, "42", "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert [
        layout.table_key("troops", DAY),
        layout.table_key("notes"),
        layout.table_key("performance_data", DAY, "a~2Fb"),
        layout.holder_key(layout.harvest_prefix("warriors", DAY, "42")),
        layout.holder_key(layout.harvest_prefix("troops", DAY)),
        layout.plan_key(folder),
        layout.chunk_key(folder, "w1", 7),
        layout.finish_key(folder),
        layout.sighting_key(DAY, "01ARZ"),
        layout.dead_letters_key("warriors", DAY, "42"),
        layout.quarantine_key("troops", DAY),
        layout.report_key(DAY, ".html"),
        layout.report_key(DAY, "ipynb"),
    ] == [
        "processed/troops/day=2026-11-20/data.parquet",
        "processed/notes/data.parquet",
        "processed/performance_data/day=2026-11-20/troop=a~2Fb/data.parquet",
        "raw_data/warriors/day=2026-11-20/troop=42/holder",
        "raw_data/troops/day=2026-11-20/holder",
        "raw_data/warriors/day=2026-11-20/troop=42/h-01ARZ3NDEKTSV4RRFFQ69G5FAV/plan",
        "raw_data/warriors/day=2026-11-20/troop=42/h-01ARZ3NDEKTSV4RRFFQ69G5FAV/chunk-w1-000007",
        "raw_data/warriors/day=2026-11-20/troop=42/h-01ARZ3NDEKTSV4RRFFQ69G5FAV/finish",
        "raw_data/sightings/day=2026-11-20/s-01ARZ.parquet",
        "dead_letters/warriors/day=2026-11-20/troop=42/dead_letters.json",
        "quarantine/troops/day=2026-11-20/quarantine.jsonl",
        "reports/day=2026-11-20/performance_report.html",
        "reports/day=2026-11-20/performance_report.ipynb",
    ]


@given(st.integers(0, 2**47), st.integers(1, 2**47))
def test_ulids_sort_by_time(milliseconds: int, later: int) -> None:
    """A later ULID is greater as a text, and all are 26 characters that a key may have."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first = min(milliseconds, 250_000_000_000_000)
    second = min(first + later, 250_000_000_000_001)
    earlier, after = (layout.new_ulid(epoch + timedelta(milliseconds=at)) for at in (first, second))
    assert earlier < after
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", earlier)


@given(st.integers(0, 2**47), st.integers(0, 2**47))
def test_a_ulid_sorts_after_the_one_it_follows(first: int, second: int) -> None:
    """Whatever the two clocks say, what is made after another sorts after it."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    earlier = layout.new_ulid(epoch + timedelta(milliseconds=first))
    assert layout.new_ulid(epoch + timedelta(milliseconds=second), after=earlier) > earlier


def test_ulids_of_the_same_moment_differ() -> None:
    """Two harvests that begin in the same millisecond have different names."""
    now = datetime(2026, 11, 20, tzinfo=UTC)
    assert len({layout.new_ulid(now) for _ in range(1000)}) == 1000
