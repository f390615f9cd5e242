"""Columns of performance data from runs of timeslices, without looking at each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, Self

import numpy as np
import pyarrow as pa

from vendor_assets.errors import VendorProtocolError

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


class RunColumns(Mapping[str, pa.Array]):
    """The columns of performance data, made once one is looked at; texts are dictionaries, and NaN stands for null.

    Args:
        numbers: The values of all runs, in the order of timeslices, and of their values in each.
        weights: Likewise, or a function that makes them of runs and numbers; None where nothing has one.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        numbers: Array,
        weights: Array | Callable[[Sequence[Run], Array], Array] | None = None,
    ) -> None:
        self.runs = runs
        self.numbers = numbers
        self.given_weights = weights

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """The rows of several, one after the other."""
        runs = [run for each in several for run in each.runs]
        numbers = np.concatenate([each.numbers for each in several])
        given = several[0].given_weights
        if (given is None or callable(given)) and all(each.given_weights is given for each in several):
            return cls(runs, numbers, given)
        weights = [np.full(each.rows, np.nan) if each.weights is None else each.weights for each in several]
        return cls(runs, numbers, np.concatenate(weights))

    @property
    def rows(self) -> int:
        """Of how many rows these are the columns."""
        return len(self.numbers)

    @cached_property
    def weights(self) -> Array | None:
        """The weight of each row, NaN where it has none; None where nothing has one."""
        return (
            self.given_weights(self.runs, self.numbers)
            if callable(self.given_weights)
            else self.given_weights
        )

    def __getitem__(self, name: str) -> pa.Array:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        runs = self.runs
        rows = np.array([run.rows for run in runs], np.int64)
        both = np.concatenate([np.empty((0, 2), np.int64), *(run.edges for run in runs)])
        times = [(len(names), timeslices) for names, timeslices in alike(runs)]
        if any(values != 1 for values, _ in times):
            both = np.repeat(both, np.repeat(*np.array(times).T), axis=0)
        value = pa.array(self.numbers, pa.float64(), from_pandas=True)
        return {
            "warrior_id": _texts([run.warrior_id for run in runs], rows),
            "data_group": _texts([run.data_group for run in runs], rows),
            "value_name": _names(runs, rows),
            "timeslice_start": pa.array(both[:, 0]),
            "timeslice_end": pa.array(both[:, 1]),
            "value": value,
            "weight": pa.nulls(len(value), pa.float64())
            if self.weights is None
            else pa.array(self.weights, from_pandas=True),
        }


def joined(several: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The rows of several answers, one after the other: for small ones far less work than to convert each.

    Raises:
        VendorProtocolError: The columns of one are not of one length, or differ in kind from those of another.
    """
    if len(several) == 1:
        return several[0]
    runs = [each for each in several if isinstance(each, RunColumns)]
    if len(runs) == len(several):
        return RunColumns.joined(runs)
    columns: dict[str, list[Any]] = {}
    for each in several:
        rows = rows_of(each)
        if rows and columns and each.keys() != columns.keys():
            raise VendorProtocolError("its columns are others than those of other answers")
        for name, values in each.items() if rows else ():
            if not isinstance(values, list) or len(values) != rows:
                raise VendorProtocolError(f"its column {name} is not a list of {rows} values")
            columns.setdefault(name, []).extend(values)
    return columns


def rows_of(columns: Mapping[str, Any]) -> int:
    """How many rows an answer's columns are."""
    return columns.rows if isinstance(columns, RunColumns) else len(next(iter(columns.values()), ()))


def alike(runs: Sequence[Run]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The names of values that are the same in runs which follow each other, and how many timeslices these have."""
    for names, some in groupby(runs, attrgetter("value_names")):
        yield names, sum(len(run.edges) for run in some)


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
    tiled = [np.tile(_places(places, names), timeslices) for names, timeslices in alike(runs)]
    return _dictionary(places, np.concatenate(tiled))


def _places(places: dict[str, int], texts: Iterable[str]) -> Array:
    return np.fromiter(map(places.__getitem__, texts), np.int32)


def _dictionary(texts: Iterable[str], places: Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(places, pa.array(list(texts), pa.string()))
