"""Columns of an answer as rows of a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from vendor_assets.errors import VendorProtocolError
from vendor_assets.harvest.tabulate import _to_batch
from vendor_assets.tables import PERFORMANCE_DATA
from vendor_assets.vendors.base import Parsed

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def _columns(warriors: Any) -> dict[str, Any]:
    times = [NOW] * len(warriors)
    others = {"data_group": ["g"] * len(warriors), "value_name": ["v"] * len(warriors)}
    edges = {"timeslice_start": times, "timeslice_end": times}
    return {
        "warrior_id": warriors,
        **others,
        **edges,
        "value": [1.0] * len(warriors),
        "weight": [None] * len(warriors),
    }


@pytest.mark.parametrize("text", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("place", [pa.int32(), pa.int8()])
def test_texts_come_as_lists_or_dictionaries(text: pa.DataType, place: pa.DataType) -> None:
    """Of whatever width, also with a text twice: the rows are the same."""
    coded = pa.DictionaryArray.from_arrays(pa.array([1, 0, 2], place), pa.array(["b", "a", "b"], text))
    found, plain = (
        _to_batch(PERFORMANCE_DATA, "t", Parsed(_columns(each)), NOW) for each in (coded, ["a", "b", "b"])
    )
    schema = PERFORMANCE_DATA.schema
    assert pa.Table.from_batches([found]).cast(schema).equals(pa.Table.from_batches([plain]).cast(schema))


@pytest.mark.parametrize("null", ["in the dictionary", "in the rows"])
def test_a_null_text_is_refused_wherever_it_is(null: str) -> None:
    """A row without a warrior is none."""
    texts = pa.array(["a", None]) if null == "in the dictionary" else pa.array(["a", "b"])
    places = pa.array([0, 1 if null == "in the dictionary" else None], pa.int32())
    columns = _columns(pa.DictionaryArray.from_arrays(places, texts))
    with pytest.raises(VendorProtocolError, match="warrior_id is null"):
        _to_batch(PERFORMANCE_DATA, "t", Parsed(columns), NOW)
