"""Filters: what patterns take, and what of a data group is still to be asked."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.errors import ConfigurationError
from vendor_assets.harvest.filters import (
    VALUES,
    Filter,
    Filters,
    still_to_ask,
    values_known,
    with_values,
)
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.vendors.base import DataGroup, Leaf, PlannedRequest, Request

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "names", "taken"),
    [
        ("", ["anything"], True),
        ("web-*", ["web-1"], True),
        ("web-*", ["Web-1"], False),
        ("web-*,api", ["17", "api"], True),
        ("!*-test", ["web-test"], False),
        ("!*-test", ["web"], True),
        ("web*, !*-test", ["web-test"], False),
        ("17", ["17", "web"], True),
        ("a?b", ["a,b"], True),
        ("[*]", ["*"], True),
        ("[*]", ["x"], False),
        ("!17", ["17", "web"], False),
        ("web", [None, "web"], True),
    ],
)
def test_patterns_match_ids_or_names(text: str, names: list[str | None], taken: bool) -> None:
    """A name is taken that matches an including pattern, if there are any, and no excluding one; case counts."""
    assert Filter.parse("VENDOR_ASSETS_TROOPS", text).takes(*names) is taken


def test_troops_are_chosen_by_any_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they are named, and each troop is looked at once however many are."""
    twice = (Troop("7", "x.7", "x"), Troop("8", "x.8", "x"))
    roster = Roster(date(2026, 11, 20), (*twice, *(Troop(str(n), f"key-{n}", None) for n in range(100, 200))))
    looked: list[str] = []
    names = Troop.names.fget
    monkeypatch.setattr(Troop, "names", property(lambda troop: looked.append(troop.id) or names(troop)))
    wanted = [f"key-{n}" for n in reversed(range(100, 200))]
    chosen = Filters().choose(roster, [*wanted, "x", "7"])
    assert [troop.id for troop in chosen] == [*(key.removeprefix("key-") for key in wanted), "7", "8"]
    assert sorted(looked) == sorted(troop.id for troop in roster.troops)


@pytest.mark.parametrize("text", [",", "a,,b", "!", "a,! "])
def test_an_empty_pattern_is_refused(text: str) -> None:
    """A comma too many is a mistake: one line with the setting, the value and what is accepted."""
    with pytest.raises(
        ConfigurationError, match=r"VENDOR_ASSETS_VALUES=.* empty pattern; give patterns like"
    ):
        Filters.parse({VALUES: text})


@given(st.lists(NAMES), st.lists(NAMES), NAMES)
def test_excluding_never_adds_and_including_never_removes(
    include: list[str], exclude: list[str], name: str
) -> None:
    """More excluding patterns take less; more including patterns, if there was one, take more."""
    some = Filter("X", tuple(include[:1]), tuple(exclude[:1]))
    assert not Filter("X", tuple(include[:1]), tuple(exclude)).takes(name) or some.takes(name)
    if include:
        assert Filter("X", tuple(include), tuple(exclude[:1])).takes(name) or not some.takes(name)


def test_the_texts_of_filters_are_read_back() -> None:
    """What a run is told is what the environment said, without the filters that take all."""
    filters = Filters.parse({"VENDOR_ASSETS_TROOPS": " !b* ,a*", "VENDOR_ASSETS_VALUES": ""})
    assert filters.texts == {"VENDOR_ASSETS_TROOPS": "a*,!b*"}
    assert Filters.parse(filters.texts) == filters
    assert str(filters) == "VENDOR_ASSETS_TROOPS=a*,!b*"
    assert (bool(filters), bool(Filters())) == (True, False)


def request_for(groups: list[DataGroup]) -> PlannedRequest:
    leaves = tuple(Leaf(f"w|{index}", "w", group.name) for index, group in enumerate(groups))
    return PlannedRequest(Request("/data"), leaves)


GROUP_VALUES = st.lists(NAMES, unique=True, min_size=1, max_size=5)


@given(GROUP_VALUES, st.lists(st.frozensets(NAMES, max_size=4), max_size=4), st.data())
def test_each_value_is_asked_once_however_filters_change(
    names: list[str], taken: list[frozenset[str]], data: Any
) -> None:
    """Whatever filters follow each other, every value that the last one takes was asked, and none twice."""
    whole = DataGroup("g", tuple(names))
    known: set[str] = set()
    asked: list[str] = []
    chosen = [data.draw(st.sets(st.sampled_from(names))) for _ in taken] + [set(names)]
    for wanted in chosen:
        values = tuple(name for name in names if name in wanted)
        if not values:
            continue
        group = DataGroup("g", values, narrowed=len(values) < len(names))
        groups = still_to_ask([group], request_for([group]).leaves, known, values_known(known))
        for left in groups:
            planned = with_values(request_for([left]), {("w", "g"): left})
            known |= {leaf.key for leaf in planned.leaves}
            asked += left.value_names
        assert set(values) <= set(asked)
    assert sorted(asked) == sorted(whole.value_names)


def test_a_group_without_any_value_that_is_taken_is_left_out() -> None:
    """Nothing is asked of it; what is taken in part is marked, what is taken whole is not."""
    filters = Filters.parse({VALUES: "c*", "VENDOR_ASSETS_DATA_GROUPS": "!Memory*"})
    assert filters.narrow(DataGroup("Http", ("avg",))) is None
    assert filters.narrow(DataGroup("Http", ("count", "calls"))) == DataGroup("Http", ("count", "calls"))
    assert filters.narrow(DataGroup("Http", ("avg", "count"))) == DataGroup("Http", ("count",), narrowed=True)
    assert filters.narrow(DataGroup("Memory/Heap", ("count",))) is None
