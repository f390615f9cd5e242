"""What each contestant is asked to do, and what no tool brings: an answer's rows, and files for those without any.

A contestant is started as ``python SCRIPT JOB``, where JOB is a JSON file: fetch the troops, the warriors of each, the
data groups of each of these, and of each warrior all values of the day in one call; write each value as a row of a
Parquet file below ``folder/performance_data``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

COLUMNS = (
    "troop_id",
    "warrior_id",
    "data_group",
    "value_name",
    "timeslice_start",
    "timeslice_end",
    "value",
)


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        url: The vendor's address, without a slash at its end.
        start: The day's first moment, as ISO 8601.
        end: The next day's.
        period: Seconds of a timeslice.
        folder: Where rows go; empty.
        rate: Calls a second that the vendor permits, also as a burst; 0 where it has no limit.
        shared: A folder that several copies of the contestant share; empty where there is one copy.
    """

    url: str
    key: str
    start: str
    end: str
    period: int
    folder: str
    rate: int = 0
    shared: str = ""

    @classmethod
    def read(cls) -> Job:
        """The job that the command line names."""
        return cls(**json.loads(Path(sys.argv[-1]).read_text()))

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"X-Api-Key": self.key}

    def params(self, data_groups: Iterable[str]) -> dict[str, Any]:
        """The query of a call for data."""
        return {
            "names[]": list(data_groups),
            "from": self.start,
            "to": self.end,
            "period": self.period,
        }


def rows(troop_id: object, warrior_id: object, answer: Mapping[str, Any]) -> list[Row]:
    """The rows of an answer with data."""
    return [
        {
            "troop_id": str(troop_id),
            "warrior_id": str(warrior_id),
            "data_group": metric["name"],
            "value_name": name,
            "timeslice_start": piece["from"],
            "timeslice_end": piece["to"],
            "value": value,
        }
        for metric in answer["metric_data"]["metrics"]
        for piece in metric["timeslices"]
        for name, value in piece["values"].items()
    ]


def table(found: Sequence[Row]) -> Any:
    """Rows as an Arrow table, with times as such."""
    made = pa.table({name: [row[name] for row in found] for name in COLUMNS})
    for name in ("timeslice_start", "timeslice_end"):
        texts = made[name].combine_chunks().dictionary_encode()
        times = texts.dictionary.cast(pa.timestamp("us", "UTC"))
        made = made.set_column(made.schema.get_field_index(name), name, times.take(texts.indices))
    return made


class Writer:
    """Writes Arrow tables of the same columns into one file.

    Args:
        folder: The job's.
    """

    def __init__(self, folder: str, name: str = "part") -> None:
        self._path = Path(folder) / "performance_data" / f"{name}.parquet"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._kept: list[Any] = []
        self._rows = 0
        self._writer: Any = None

    def add(self, more: Any) -> None:
        """Write a table, together with others where it is small."""
        self._kept.append(more)
        self._rows += more.num_rows
        if self._rows >= 100_000:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        if self._kept:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        whole = pa.concat_tables(self._kept)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, whole.schema, compression="zstd")
        self._writer.write_table(whole)
        self._kept, self._rows = [], 0
