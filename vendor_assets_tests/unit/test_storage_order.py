"""The order of rows by a key: numbers that are sorted as the key is."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.storage import order
from vendor_assets.storage.order import places

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=2)
_ROWS = st.lists(st.tuples(_TEXTS, _TEXTS, st.integers(-(2**62), 2**62)), max_size=20)


@pytest.mark.parametrize("most", [1 << 63, 1 << 10], ids=["usual", "many values"])
@given(rows=_ROWS, coded=st.booleans())
def test_places_are_sorted_as_keys_are(most: int, rows: list[tuple[str, str, int]], coded: bool) -> None:
    """By the bytes of texts and by times; the same place for the same key, also where ranks outgrow a number.

    Dictionaries may have a text several times, and texts that no row has.
    """
    columns: list[list[object]] = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    texts = [pa.array(column, pa.string()) for column in columns[:2]]
    if coded:
        texts = [
            pa.DictionaryArray.from_arrays(
                pa.array(range(len(rows)), pa.int32()), pa.concat_arrays([text, pa.array(["zz"])])
            )
            for text in texts
        ]
    times = pa.array(columns[2], pa.int64()).cast(pa.timestamp("us", "UTC"))
    table = pa.table([*texts, times], ["a", "b", "c"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "_MOST", most)
        found = places(table, ("a", "b", "c")).tolist()
    keys = [(a.encode(), b.encode(), c) for a, b, c in rows]
    for key, place in zip(keys, found, strict=True):
        assert [other < key for other in keys] == [other < place for other in found]


def test_an_empty_table_has_no_places() -> None:
    """No rows, no numbers."""
    empty = pa.table({"a": pa.array([], pa.string()), "b": pa.array([], pa.timestamp("us", "UTC"))})
    assert places(empty, ("a", "b")).tolist() == []
    assert places(pa.table({"a": [datetime(2026, 1, 1, tzinfo=UTC)]}), ("a",)).tolist() == [0]
