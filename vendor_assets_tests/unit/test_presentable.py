"""What a vendor wrote is shown on one line, bounded, and without anything that a terminal or a browser obeys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.presentable import counted, presentable, presentable_names, presentable_values

ANY = st.text(st.characters(), max_size=80)  # half surrogate pairs too


def test_one_is_singular() -> None:
    """One call is not ``1 calls``; large numbers have separators."""
    assert [counted(number, "call") for number in (0, 1, 2_000)] == ["0 calls", "1 call", "2,000 calls"]
    assert counted(1, "run is", "runs are") == "1 run is"


@given(ANY, st.integers(1, 40))
def test_any_text_becomes_one_printable_line(text: str, longest: int) -> None:
    """Whatever the text is, it is bounded, printable, valid UTF-8, and stays the same if it is made so again."""
    shown = presentable(text, longest)
    assert len(shown) <= longest
    assert shown.isprintable()
    shown.encode()
    assert presentable(shown, longest) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("checkout-eu", "checkout-eu"),
        ("Zürich · 東京", "Zürich · 東京"),
        (" two\r\n lines\tand\u2028more ", "two lines and more"),
        ("\x1b]0;owned\x07\x1b[31mred", "\\x1b]0;owned\\x07\\x1b[31mred"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half \ud83d pair", "half \\ud83d pair"),
        ("nul\x00 c1\x9b1m", "nul\\x00 c1\\x9b1m"),
        ("", ""),
    ],
)
def test_what_is_not_a_sign_is_shown_as_its_number(text: str, shown: str) -> None:
    """Letters of any script stay as they are; what would act on a terminal is visible instead."""
    assert presentable(text) == shown


def test_long_texts_end_in_an_ellipsis() -> None:
    """Of a text of megabytes the beginning is shown; one that just fits is whole."""
    assert presentable("x" * 300) == "x" * 300
    assert presentable("x" * 10_000_000) == "x" * 299 + "…"
    assert presentable("a" + " " * 10_000_000 + "b", 20).startswith("a")


def test_what_cannot_even_be_a_text_is_named() -> None:
    """An object whose text cannot be had is shown by its type."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError("no")

    assert presentable(Broken()) == "<Broken that cannot be shown: ValueError>"


def test_names_are_counted_beyond_the_first() -> None:
    """Of a thousand names ten are shown, and the rest is a number."""
    assert presentable_names(["a", "b\n"]) == "a, b"
    assert presentable_names(map(str, range(1000)), most=2) == "0, 1 and 998 more"


def test_values_are_presentable_all_the_way_down() -> None:
    """Keys and texts in lists and mappings are shown as texts are, numbers stay numbers, and length is bounded."""
    shown = presentable_values({"a\ud800": ["x\x1b", 1, None, {"k" * 500: 2.5}], "many": list(range(100))})
    text = json.dumps(shown, ensure_ascii=False)
    text.encode()
    assert "\x1b" not in text
    assert shown["a\\ud800"][:3] == ["x\\x1b", 1, None]
    assert len(shown["many"]) == 51
    assert shown["many"][-1] == "… 50 more"
    assert len(text) < 1000
