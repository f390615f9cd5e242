"""Columns of performance data from runs of timeslices, without looking at each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """Timeslices of a data group that follow each other and have the same values, one after the other.

    Attributes:
        edges: Starts and ends in microseconds since the epoch, a line for each timeslice.
    """

    warrior_id: str
    data_group: str
    value_names: tuple[str, ...]
    edges: Array

    @property
    def rows(self) -> int:
        """A row for each timeslice and value."""
        return len(self.value_names) * len(self.edges)


def columns(runs: Sequence[Run], values: Array, weights: Array | None = None) -> dict[str, pa.Array]:
    """The columns of performance data; texts are dictionaries, and NaN stands for null.

    Args:
        values: Of all runs, in the order of timeslices, and of their values in each.
        weights: Likewise; None where nothing has one.
    """
    rows = np.array([run.rows for run in runs], np.int64)
    edges = [_each(run.edges, len(run.value_names)) for run in runs]
    both = np.concatenate(edges) if edges else np.empty((0, 2), np.int64)
    value = pa.array(values, pa.float64(), from_pandas=True)
    return {
        "warrior_id": _texts([run.warrior_id for run in runs], rows),
        "data_group": _texts([run.data_group for run in runs], rows),
        "value_name": _names(runs, rows),
        "timeslice_start": pa.array(both[:, 0]),
        "timeslice_end": pa.array(both[:, 1]),
        "value": value,
        "weight": pa.nulls(len(value), pa.float64())
        if weights is None
        else pa.array(weights, from_pandas=True),
    }


def _each(edges: Array, times: int) -> Array:
    return edges if times == 1 else np.repeat(edges, times, axis=0)


def _texts(texts: Sequence[str], rows: Array) -> pa.Array:
    """Each text so many times."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return _dictionary(places, np.repeat(_places(places, texts), rows))


def _names(runs: Sequence[Run], rows: Array) -> pa.Array:
    """The names of each run, again for each of its timeslices."""
    if all(len(run.value_names) == 1 for run in runs):
        return _texts([run.value_names[0] for run in runs], rows)
    every = dict.fromkeys(chain.from_iterable(run.value_names for run in runs))
    places = {text: place for place, text in enumerate(every)}
    tiled = [np.tile(_places(places, run.value_names), len(run.edges)) for run in runs]
    return _dictionary(places, np.concatenate(tiled))


def _places(places: dict[str, int], texts: Iterable[str]) -> Array:
    return np.fromiter(map(places.__getitem__, texts), np.int32)


def _dictionary(texts: Iterable[str], places: Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(places, pa.array(list(texts), pa.string()))
