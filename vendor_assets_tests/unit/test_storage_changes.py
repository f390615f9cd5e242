"""What changed between two versions of a table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.storage.changes import Changes, compare
from vendor_assets.tables import PERFORMANCE_DATA

AT = datetime(2026, 11, 20, tzinfo=UTC)
Version = dict[tuple[str, str], float | None]

versions = st.dictionaries(
    st.tuples(st.text("ab\x00ä", max_size=2), st.sampled_from("xy")),
    st.sampled_from([None, 0.0, 1.5]),
    max_size=20,
)


def pieces(version: Version, cuts: list[int]) -> Iterator[pa.Table]:
    """A version's rows in order, cut into pieces, some of them empty."""
    rows = [
        {
            "troop_id": "t",
            "warrior_id": warrior,
            "data_group": "cpu",
            "value_name": name,
            "timeslice_start": AT,
            "timeslice_end": AT,
            "value": value,
            "weight": None,
        }
        for (warrior, name), value in sorted(version.items(), key=lambda item: item[0])
    ]
    table = pa.Table.from_pylist(rows, schema=PERFORMANCE_DATA.schema)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, end in pairwise(edges):
        yield table.slice(start, end - start)


@given(versions, versions, st.lists(st.integers(0, 20), max_size=4), st.lists(st.integers(0, 20), max_size=4))
def test_every_change_is_counted_once(
    old: Version, new: Version, old_cuts: list[int], new_cuts: list[int]
) -> None:
    """However the two versions are cut into pieces, each row is new, gone, altered or the same."""
    found = compare(PERFORMANCE_DATA, pieces(old, old_cuts), pieces(new, new_cuts))
    assert found == Changes(
        added=len(new.keys() - old.keys()),
        altered=sum(1 for key in new.keys() & old.keys() if new[key] != old[key]),
        removed=len(old.keys() - new.keys()),
    )
