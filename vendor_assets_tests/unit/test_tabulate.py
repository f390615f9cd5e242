"""Columns of an answer as rows of a table."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vendor_assets.days import Window
from vendor_assets.errors import VendorProtocolError
from vendor_assets.harvest import tabulate
from vendor_assets.harvest.tabulate import Tabulated, _Answer, _converted, _keep_asked, to_batch
from vendor_assets.storage.folder import FolderStore
from vendor_assets.tables import PERFORMANCE_DATA
from vendor_assets.vendors.base import Leaf, Parsed, PlannedRequest, Request, Response
from vendor_assets.vendors.columns import Run, RunColumns
from vendor_assets_tests.support.toy import ToyVendor

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
        to_batch(PERFORMANCE_DATA, "t", [Parsed(_columns(each))], [NOW]) for each in (coded, ["a", "b", "b"])
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
        to_batch(PERFORMANCE_DATA, "t", [Parsed(columns)], [NOW])


def _run(group: str, values: list[float], weights: list[float] | None = None) -> Parsed:
    edges = np.array([[at, at + 60_000_000] for at in range(0, 60_000_000 * len(values), 60_000_000)])
    edges = edges.reshape(-1, 2).astype(np.int64)
    run = Run("w", group, ("v",), edges)
    return Parsed(RunColumns([run], np.array(values), None if weights is None else np.array(weights)))


@pytest.mark.parametrize(
    "parsed",
    [
        [_run("a", [1.0, 2.0]), _run("b", []), _run("c", [3.0], [7.0])],
        [Parsed(_columns(["a", "b"])), Parsed({}), Parsed(_columns(["c"]))],
    ],
    ids=["runs", "lists"],
)
def test_answers_together_have_the_rows_of_each(parsed: list[Parsed]) -> None:
    """One after the other, each with its own time, also where one has no weights, or no rows."""
    times = [NOW + timedelta(seconds=at) for at in range(len(parsed))]
    schema = PERFORMANCE_DATA.schema
    together = to_batch(PERFORMANCE_DATA, "t", parsed, times)
    each = [
        to_batch(PERFORMANCE_DATA, "t", [one], [at])
        for one, at in zip(parsed, times, strict=True)
        if one.rows
    ]
    wanted = pa.concat_tables([pa.Table.from_batches([one]).cast(schema) for one in each])
    assert pa.Table.from_batches([together]).cast(schema).to_pylist() == wanted.to_pylist()
    assert [one.rows for one in parsed] == [2, 0, 1]


@pytest.mark.parametrize(
    "odd",
    [
        _columns(["x"]) | {"value": ["no number"]},
        _columns(["x"]) | {"value": [1.0, 2.0]},
        _columns(["x"]) | {"timeslice_start": pa.array([1.5])},
        _columns(["x"]) | {"warrior_id": [None]},
        _columns(["x"]) | {"value_name": ["\ud800"]},
        {"warrior_id": ["x"]},
    ],
    ids=["type", "length", "unit", "null", "half a character", "column"],
)
def test_an_answer_that_does_not_fit_is_put_aside_alone(odd: dict[str, Any]) -> None:
    """The answers around it keep their rows and places, of whatever kind they are."""
    planned = PlannedRequest(Request("/list"), ())
    parsed = [Parsed(_columns(["a", "b"])), Parsed(odd, new_fields=("odd",)), _run("g", [1.0])]
    answers = [
        _Answer(place, planned, Response(200, {}, b"body %d" % place, NOW), each)
        for place, each in zip((3, 5, 9), parsed, strict=True)
    ]
    found = Tabulated()
    with closing(found.quarantine):
        rows = list(_converted(found, PERFORMANCE_DATA, "t", answers))
    assert [batch.num_rows for batch, _ in rows] == [2, 1]
    assert [place for _, places in rows for place in places] == [3, 3, 9]
    assert (found.quarantine.count, found.new_fields) == (1, set())


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_data_groups_are_counted_over_batches(most: int) -> None:
    """One that goes on in the next batch counts once, and one name of two warriors twice."""
    pairs = [("a", "x")] * 3 + [("a", "y")] + [("b", "y")] * 2 + [("c", "x")]
    texts = [pa.array(texts) for texts in zip(*pairs, strict=True)]
    table = pa.table(texts, ["warrior_id", "data_group"])
    found = Tabulated(batches=lambda columns: iter(table.select(columns).to_batches(most)))
    with closing(found.quarantine):
        assert found.data_groups() == len(set(pairs))
    nothing = Tabulated()
    with closing(nothing.quarantine):
        assert nothing.data_groups() == 0


@pytest.mark.parametrize("coded", [False, True])
def test_rows_that_were_not_asked_for_are_put_aside(coded: bool) -> None:
    """Data of another warrior or data group are none of the partition, whatever dialect lets them pass."""
    leaves = tuple(Leaf(warrior, warrior, "g") for warrior in ("a", "b"))
    columns = _columns(["a", "b", "c", "a"]) | {"data_group": ["g", "g", "g", "h"]}
    if coded:
        columns = {name: pa.array(values) for name, values in columns.items()}
    parsed = Parsed(columns)
    _keep_asked(PlannedRequest(Request("/data"), leaves), parsed)
    assert (parsed.columns["warrior_id"], parsed.rows) == (["a", "b"], 2)
    assert [each.reason for each in parsed.rejected] == [
        "g of c was not asked for",
        "h of a was not asked for",
    ]


def test_a_list_that_does_not_fit_is_put_aside_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A roster has the entities of the answers that fit; a name that no table can hold ends nothing."""
    said = [
        {"warrior_id": [name], "name": [text], "attributes": ["{}"]} for name, text in ("xn", "y\ud800", "zm")
    ]
    planned = PlannedRequest(Request("/list"), (Leaf("warriors"),))
    answers = [
        _Answer(place, planned, Response(200, {}, b"{}", NOW), Parsed(columns))
        for place, columns in enumerate(said)
    ]
    monkeypatch.setattr(tabulate, "_parsed", lambda *_: iter(answers))
    with tabulate.tabulate_roster(
        "warriors",
        store=FolderStore(str(tmp_path)),
        vendor=ToyVendor(),
        answers=[],
        troop_id="t",
        window=Window(NOW, NOW + timedelta(days=1)),
        previous=None,
        troop_keys=dict,
    ) as found:
        assert [row["warrior_id"] for batch in found.batches() for row in batch.to_pylist()] == ["x", "z"]
        assert found.quarantine.count == 1
