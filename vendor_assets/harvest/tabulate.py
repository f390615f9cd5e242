"""Tabulate: landed responses become typed, sorted tables without one more call.

Memory does not grow with the number of rows, except for rosters, which are small enough to be whole in memory.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vendor_assets.days import Window
from vendor_assets.errors import (
    ObjectConflictError,
    ObjectNotFoundError,
    StoppedError,
    StorageError,
    StorageUnavailableError,
    VendorProtocolError,
)
from vendor_assets.harvest.landing import GONE, SPLIT_PAGE, LandedIndex, read_bodies, request_id
from vendor_assets.logs import get_logger
from vendor_assets.presentable import presentable
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.storage.sorting import CODED, NewestRows
from vendor_assets.tables import TABLES, Table
from vendor_assets.vendors.base import (
    COLUMNS,
    RECORD_CHARACTERS,
    REJECTED_KEPT,
    Asset,
    Parsed,
    PlannedRequest,
    Response,
    Vendor,
    field_names,
)
from vendor_assets.vendors.columns import Array, RunColumns, joined
from vendor_assets.vendors.frozen import decode_request

logger = get_logger(__name__)

_NAMES_KEPT: Final = 1000
"""New fields that are remembered by name; a vendor that invents more of them is only counted among these."""
_QUARANTINE_IN_MEMORY: Final = 1 << 20

_ROWS_AT_ONCE: Final = 8192
_BYTES_AT_ONCE: Final = 1 << 20
_ANSWERS_AT_ONCE: Final = 256
"""Small answers are made a batch together until they are so many."""
_MISFITS: Final = (
    *(VendorProtocolError, OverflowError, UnicodeEncodeError),
    *(pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError),
)
"""What says that an answer does not fit a table."""

QUARANTINE_BYTES: Final = 16 << 20
"""Size of a partition's quarantine beyond which records are only counted."""


class Quarantine:
    """Records that do not fit a table: JSON lines with ``reason``, ``record``, ``request``, in a temporary file.

    Beyond 16 MiB they are only counted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept = 0
        self._lines: IO[bytes] = tempfile.SpooledTemporaryFile(_QUARANTINE_IN_MEMORY)  # noqa: SIM115 (close)

    def add(self, reason: str, record: str, planned: PlannedRequest) -> None:
        """Put a record aside."""
        self.count += 1
        if self._lines.tell() < QUARANTINE_BYTES:
            self._kept += 1
            self._write(reason[:RECORD_CHARACTERS], record[:RECORD_CHARACTERS], planned.request.key)

    def _write(self, reason: str, record: str, request: str) -> None:
        line = {"reason": reason, "record": record, "request": request}
        self._lines.write(json.dumps(line).encode() + b"\n")

    def publish(self, store: ObjectStore, key: str, confirm: Callable[[], None]) -> None:
        """Make it an object; without a record there is none afterwards, or an empty one.

        Args:
            confirm: Called before writing; raises where another run has taken over.
        """
        if self.count > self._kept:
            self._write(f"{self.count - self._kept} more records were put aside and are only counted", "", "")
            self._kept = self.count
        while True:
            before = store.head(key)
            if not self.count and (before is None or not before.size):
                return
            confirm()
            self._lines.seek(0)
            try:
                with store.writer(
                    key, if_absent=before is None, if_match=before.etag if before else None
                ) as sink:
                    shutil.copyfileobj(self._lines, sink, 1 << 20)
            except ObjectConflictError:
                continue
            return

    def close(self) -> None:
        """Forget the records."""
        self._lines.close()


@dataclass
class Tabulated:
    """One partition's table and what was noticed on the way.

    Attributes:
        batches: Gives the rows in the table's schema, or some columns, sorted by its key, each key once; may be asked
            repeatedly.
        new_fields: Fields that the vendor's dialect did not have.
        not_found: Data groups that the vendor does not know any more.
        duplicates: Rows dropped because a newer answer has the same key.
    """

    rows: int = 0
    batches: Callable[..., Iterator[pa.RecordBatch]] = lambda *_: iter(())
    quarantine: Quarantine = field(default_factory=Quarantine)
    new_fields: set[str] = field(default_factory=set)
    not_found: set[str] = field(default_factory=set)
    duplicates: int = 0

    def note(self, parsed: Parsed, planned: PlannedRequest) -> None:
        """Note what an answer says beside its rows."""
        if len(self.new_fields) < _NAMES_KEPT:
            self.new_fields.update(field_names(parsed.new_fields))
        self.not_found.update(parsed.not_found)
        for rejected in parsed.rejected[:REJECTED_KEPT]:
            self.quarantine.add(rejected.reason, rejected.record, planned)
        self.quarantine.count += len(parsed.rejected[REJECTED_KEPT:]) + parsed.more_rejected

    def put_aside(self, error: Exception, planned: PlannedRequest, response: Response) -> None:
        """Put a whole answer into the quarantine."""
        self.quarantine.add(str(error), response.body[:2000].decode("utf-8", "replace"), planned)

    def sample(self) -> list[dict[str, Any]]:
        """The first five rows."""
        for batch in self.batches():
            found: list[dict[str, Any]] = batch.slice(0, 5).to_pylist()
            return found
        return []

    def data_groups(self) -> int:
        """How many data groups of warriors have rows; they are sorted by both."""
        count, last = 0, None
        for batch in self.batches(["warrior_id", "data_group"]):
            if batch.num_rows:
                changes = [pc.not_equal(column[1:], column[:-1]) for column in batch.columns]
                count += 1 + (pc.sum(pc.or_(*changes)).as_py() or 0)
                (first,) = batch.slice(0, 1).to_pylist()
                count -= first == last
                (last,) = batch.slice(batch.num_rows - 1).to_pylist()
        return count


def newest_answers(index: Iterable[LandedIndex]) -> list[LandedIndex]:
    """For each request its newest landed answer and the pages that follow from it, oldest first.

    A request may have been asked twice: after a kill, because its answer was provisional, or because one of its pages
    could not be had any more. Pages that an older answer led to are none of the newer one's.
    """
    first: dict[tuple[str, str, bytes], LandedIndex] = {}
    later: dict[tuple[str, str, bytes, int, bytes | None], LandedIndex] = {}
    for entry in index:
        key = (entry.asset, entry.troop_id, entry.request)
        if entry.page == 1:
            if key not in first or entry.fetched_at >= first[key].fetched_at:
                first[key] = entry
        elif entry.page != SPLIT_PAGE:
            page = (*key, entry.page, entry.asked)
            if page not in later or entry.fetched_at >= later[page].fetched_at:
                later[page] = entry
    newest = list(first.values())
    for key, entry in first.items():
        at: LandedIndex | None = entry
        while later and at is not None and at.next is not None:
            at = later.get((*key, at.page + 1, request_id(decode_request(at.next).key)))
            if at is not None:
                newest.append(at)
    return sorted(newest, key=lambda entry: (entry.fetched_at, entry.request, entry.page))


@contextmanager
def tabulate(
    asset: Asset,
    *,
    store: ObjectStore,
    vendor: Vendor,
    answers: Sequence[LandedIndex],
    troop_id: str,
    window: Window,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Tabulated]:
    """Read landed answers of data groups or performance data into a table, which lasts until the block ends.

    Args:
        answers: Oldest first: of two rows with the same key the one in the later answer counts.
        window: The day; performance data outside it are dropped.
        stopping: Whether the run is to stop (StoppedError); asked before each answer.
    """
    spec = TABLES[asset]
    found = Tabulated()
    with closing(found.quarantine), NewestRows(spec) as rows:
        for some in _gathered(_parsed(found, asset, store, vendor, answers, stopping)):
            for batch, places in _converted(found, spec, troop_id, some):
                inside = _inside(batch, window) if asset == "performance_data" else None
                if inside is None or inside.all():
                    rows.add(batch, places)
                else:
                    rows.add(batch.filter(pa.array(inside)), places[inside])
        rows.sort()
        found.rows, found.duplicates, found.batches = rows.rows, rows.duplicates, rows.batches
        yield found


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that could be read, and its place among all, oldest first."""

    place: int
    planned: PlannedRequest
    response: Response
    parsed: Parsed


def _parsed(
    found: Tabulated,
    asset: Asset,
    store: ObjectStore,
    vendor: Vendor,
    answers: Sequence[LandedIndex],
    stopping: Callable[[], bool],
) -> Iterator[_Answer]:
    """What each answer says; puts aside those that cannot be read."""
    place = {id(entry): at for at, entry in enumerate(answers)}
    for entry, planned, response in read_bodies(store, answers):
        if stopping():
            raise StoppedError("the run was stopped; the next one makes the table of what has landed")
        if response.status in GONE:
            continue
        try:
            parsed = vendor.parse(asset, planned, response)
            if parsed.failures:
                # It was found whole when it came: the vendor's file reads it otherwise now.
                raise VendorProtocolError(f"the answer is not whole: {parsed.failures[0].reason}")
            if asset == "performance_data":
                _keep_asked(planned, parsed)
        except _MISFITS as error:
            found.put_aside(error, planned, response)
        else:
            yield _Answer(place[id(entry)], planned, response, parsed)


def _keep_asked(planned: PlannedRequest, parsed: Parsed) -> None:
    """Put performance data aside that was not asked for; runs are made by dialects that look at it themselves."""
    asked = {(leaf.warrior_id, leaf.data_group) for leaf in planned.leaves}
    if isinstance(parsed.columns, RunColumns) or not all(map(all, asked)):
        return
    of = ("warrior_id", "data_group")
    columns = [parsed.columns.get(name, ()) for name in of]
    texts = [each.to_pylist() if isinstance(each, pa.Array) else each for each in columns]
    strange = set(zip(*texts, strict=False)) - asked
    if not strange:
        return
    kept: list[tuple[object, ...]] = []
    for values in zip(*parsed.lists().values(), strict=True):
        row = dict(zip(parsed.columns, values, strict=True))
        if (row[of[0]], row[of[1]]) not in strange:
            kept.append(values)
            continue
        shown = {name: presentable(value) for name, value in row.items()}
        parsed.reject(f"{shown[of[1]]} of {shown[of[0]]} was not asked for", shown)
    names = list(parsed.columns)
    parsed.columns = {name: [values[at] for values in kept] for at, name in enumerate(names)}


def _gathered(answers: Iterable[_Answer]) -> Iterator[list[_Answer]]:
    """Small answers together: to make a batch of each would cost more than to read it."""
    some: list[_Answer] = []
    rows = size = 0
    for answer in answers:
        some.append(answer)
        rows += answer.parsed.rows
        size += len(answer.response.body)
        if rows >= _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE or len(some) >= _ANSWERS_AT_ONCE:
            yield some
            some, rows, size = [], 0, 0
    if some:
        yield some


def _converted(
    found: Tabulated, spec: Table, troop_id: str, answers: Sequence[_Answer]
) -> Iterator[tuple[pa.RecordBatch, Array]]:
    """The rows of some answers, and the place of each row's answer; notes what else the answers say.

    Where they do not fit the table, each is tried by itself, and put aside if it is the one.
    """
    try:
        batch = to_batch(
            spec,
            troop_id,
            [answer.parsed for answer in answers],
            [answer.response.fetched_at for answer in answers],
        )
    except _MISFITS as error:
        if len(answers) == 1:
            found.put_aside(error, answers[0].planned, answers[0].response)
        else:
            for answer in answers:
                yield from _converted(found, spec, troop_id, [answer])
        return
    for answer in answers:
        found.note(answer.parsed, answer.planned)
    counts = [answer.parsed.rows for answer in answers]
    yield batch, np.repeat(np.array([answer.place for answer in answers], np.int64), counts)


def to_batch(
    spec: Table, troop_id: str, parsed: Sequence[Parsed], observed_at: Sequence[datetime]
) -> pa.RecordBatch:
    """The rows of some answers in a table's schema, one answer after the other; texts may be dictionaries.

    Args:
        observed_at: When each was fetched.

    Raises:
        VendorProtocolError: Rows do not fit the table; or what pyarrow raises.
    """
    counts = [each.rows for each in parsed]
    columns = joined([each.columns for each in parsed])
    arrays = []
    for column in spec.schema:
        if column.name == "troop_id":
            places = pa.repeat(pa.scalar(0, pa.int32()), sum(counts))
            arrays.append(pa.DictionaryArray.from_arrays(places, pa.array([troop_id], column.type)))
        elif column.name == "observed_at":
            of_answer = np.repeat(np.arange(len(counts)), counts)
            arrays.append(pa.array(observed_at, column.type).take(pa.array(of_answer)))
        else:
            arrays.append(_as_column(column, columns.get(column.name, []), sum(counts)))
    fields = [field.with_type(array.type) for field, array in zip(spec.schema, arrays, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _as_column(column: pa.Field, values: Any, rows: int) -> pa.Array:
    """Values as a table's column; raises as :func:`to_batch`."""
    if not isinstance(values, pa.Array):
        values = pa.array(values, column.type)
    is_coded = values.type == CODED and column.type == pa.string() and not values.dictionary.null_count
    if len(values) != rows:
        raise VendorProtocolError(f"{column.name} has {len(values)} values, where there are {rows} rows")
    array = values if is_coded else values.cast(column.type)
    if array.null_count and not column.nullable:
        raise VendorProtocolError(f"{column.name} is null, which it may not be")
    return array


def _inside(batch: pa.RecordBatch, window: Window) -> Array:
    """Which rows' timeslices start within a window."""
    first, last = (int(edge.timestamp()) * 1_000_000 for edge in (window.start, window.end))
    starts: Array = batch.column("timeslice_start").cast(pa.int64()).to_numpy()
    inside: Array = (starts >= first) & (starts < last)
    return inside


@contextmanager
def tabulate_roster(
    asset: Asset,
    *,
    store: ObjectStore,
    vendor: Vendor,
    answers: Sequence[LandedIndex],
    troop_id: str,
    window: Window,
    previous: str | None,
    troop_keys: Callable[[Mapping[str, str | None]], Mapping[str, str]],
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Tabulated]:
    """Read landed lists of troops or warriors, and the day's sightings, into a roster.

    A roster is the union of all that was seen: of each entity the newest name and attributes, and when it was
    first and last observed. What an older table of the same partition had stays.

    Args:
        previous: Object key of the partition's present table; it need not exist, None says that it does not.
        troop_keys: The partition keys of troops, by id, from their names by id.
        stopping: Whether the run is to stop (StoppedError); asked before each answer.
    """
    spec = TABLES[asset]
    id_column = spec.key[0]
    seen: dict[str, dict[str, Any]] = {}
    try:
        held = read_table(store, previous, columns=spec.schema.names).to_pylist() if previous else []
        seen = {row[id_column]: row for row in held}
    except ObjectNotFoundError:
        pass
    except StorageUnavailableError:
        raise
    except StorageError as error:
        # It is made anew, which is what its message advises; who vanished is on the sightings, if anywhere.
        logger.warning("the present roster is ignored: %s", error)

    found = Tabulated()
    with closing(found.quarantine):
        for answer in _parsed(found, asset, store, vendor, answers, stopping):
            try:
                for name in COLUMNS[asset]:
                    values = answer.parsed.columns.get(name, [])
                    _as_column(spec.schema.field(name), values, answer.parsed.rows)
            except _MISFITS as error:
                found.put_aside(error, answer.planned, answer.response)
                continue
            found.note(answer.parsed, answer.planned)
            fetched_at = answer.response.fetched_at
            later = vendor.rosters == "current" and fetched_at >= window.end
            columns = answer.parsed.lists()
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                _observe(seen, row[id_column], row, fetched_at, later)
        rows = [seen[key] for key in sorted(seen)]
        keys = troop_keys({row["troop_id"]: row["name"] for row in rows}) if asset == "troops" else {}
        for row in rows:
            if asset == "troops":
                row["troop_key"] = keys[row["troop_id"]]
            else:
                row["troop_id"] = troop_id
        batch = pa.RecordBatch.from_pylist(rows, schema=spec.schema)
        found.rows, found.batches = len(rows), lambda: iter([batch])
        yield found


def _observe(
    seen: dict[str, dict[str, Any]], identity: str, row: dict[str, Any], at: datetime, later: bool
) -> None:
    held = seen.get(identity)
    if held is None:
        seen[identity] = row | {"first_observed_at": at, "last_observed_at": at, "observed_later": later}
        return
    if at >= held["last_observed_at"]:
        held.update(row)
    held["first_observed_at"] = min(held["first_observed_at"], at)
    held["last_observed_at"] = max(held["last_observed_at"], at)
    held["observed_later"] = held["observed_later"] and later
