"""Invented names: the same for the same, nothing of the real ones, and what tells nothing of anybody stays."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.vendors.disguise import WORD, Disguise

DAY = day_window(date(2026, 11, 20), parse_time_zone("UTC"))
METRICS = (
    "node_cpu_seconds_total",
    "Custom/hades/alice@corp.example/x",
    "system.cpu.user",
    "External/a.b.example/all",
    "Datastore/ares/3306",
)
NAMES = ("hades", "ares.corp.example:443", "Blue Whale", "service", "200000000", "42")


def _disguise(real: Collection[str] = ()) -> Disguise:
    return Disguise(
        vocabulary=frozenset(("service", "success", "metric", "host", "q", "applications")),
        metrics=METRICS,
        names=NAMES,
        real=real,
        window=DAY,
        numbers=(1800,),
    )


@pytest.mark.parametrize(
    "value",
    [
        "success", "node_cpu_seconds_total", "system.cpu.user", "2026-11-20T00:30:00+00:00", "2026-11-21",
        "NaN", "+Inf", "", "…", True, None, 0, 9999, 0.0, 1_795_132_800, 1_795_132_800_000, 1_800_000, "1795132800.5",
        {"metric": {"q0": ["success"]}},
    ],
)  # fmt: skip
def test_what_tells_nothing_of_anybody_stays(value: object) -> None:
    """The dialect's words, metrics, times near the day, small numbers and the resolution."""
    assert _disguise().document(value) == value


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("alice.miller@corp.example", "alice miller corp example"),
        ("https://wiki.corp.example/~bob?team=blue", "wiki corp bob team blue"),
        ("10.77.88.99", "77.88 88.99"),
        ("host:hades", "hades"),
        ("the Blue-Whale", "blue whale"),
        ("avg:system.cpu.user{service:hades}", "hades"),
        ("1984-05-03", "1984"),
        ("Jürgen Größe", "jürgen größe"),
        ("Custom/hades/alice@corp.example/x", "hades alice corp"),
        ("External/a.b.example/all", "example"),
        ("service", "service"),
        ("Datastore/ares/3306", "ares"),
    ],
)
def test_what_names_somebody_goes(text: str, gone: str) -> None:
    """In texts, queries, addresses and names of metrics; an entity's name also where it is the dialect's word."""
    words = {word.lower() for word in WORD.findall(_disguise().text(text))}
    assert not words & set(gone.split())
    assert "10.77.88.99" not in _disguise().text(text)


def test_numbers_stay_numbers_of_as_many_digits() -> None:
    """An id as a number, as a text and in an address is the same one."""
    disguise = _disguise()
    hidden = disguise.document([200_000_000, "200000000", "/applications/200000000/hosts", 42, 0.0317, -5e-7])
    assert len(str(hidden[0])) == 9
    assert hidden[0] != 200_000_000
    assert hidden[1] == str(hidden[0])
    assert hidden[1] in hidden[2]
    assert hidden[3] != 42
    assert 0.01 <= hidden[4] < 0.1
    assert hidden[5] == -5e-7


@given(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=30))
def test_the_same_text_is_replaced_by_the_same_and_others_by_others(texts: list[str]) -> None:
    """Also within other texts and as names of fields, and no real word is invented."""
    disguise = _disguise(texts)
    hidden = [disguise.text(text) for text in texts]
    assert [disguise.text(text) for text in texts] == hidden
    folded = {text.lower() for text in texts}
    assert len({text.lower() for text in hidden}) == len(folded) or any(not text.isascii() for text in texts)
    real = {word.lower() for text in texts for word in WORD.findall(text) if word.isalpha() and len(word) > 3}
    real -= {"http", "https", "infinity"}
    assert not real & {word.lower() for text in hidden for word in WORD.findall(text)}
    assert json.dumps(disguise.document({"f": texts})) == json.dumps({disguise.text("f"): hidden})


def test_thousands_of_names_are_replaced_at_once() -> None:
    """Each has one of its own."""
    texts = [f"host{number}x" for number in range(6000)]
    hidden: Any = _disguise(texts).document(texts)
    assert len(set(hidden)) == 6000
