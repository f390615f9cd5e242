"""The landing zone: exact response bodies, kept in chunks before anything is parsed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from sys import intern
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from vendor_assets.errors import RecordError, StorageUnavailableError
from vendor_assets.logs import get_logger
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_whole
from vendor_assets.storage.reading import understanding
from vendor_assets.tables import INSTANT
from vendor_assets.turns import let_others
from vendor_assets.vendors.base import PlannedRequest, Request, Response
from vendor_assets.vendors.frozen import decode_planned, decode_request, encode, encode_leaves, encode_request

logger = get_logger(__name__)

LATE_SECONDS: Final = 0.5
"""How much later than due a chunk is written by the threads that add responses."""
CHUNK_BYTES: Final = 8 << 20
"""Size of the buffered bodies at which a chunk is written."""

GONE: Final = (404, 410)
"""Statuses by which an answer says that an entity is gone."""

SPLIT_PAGE: Final = 0
"""Page number of what lands when a request is split: no answer, but the requests that stand for it from then on."""

_CHUNK: Final = pa.schema(
    [
        pa.field(name, kind, nullable=name in ("next", "troop_id", "request"))
        for name, kind in {
            "request_key": pa.string(),
            "page": pa.int32(),
            "next": pa.string(),
            "asset": pa.string(),
            "troop_id": pa.string(),
            "planned": pa.string(),
            "planned_leaves": pa.string(),
            "path": pa.string(),
            "params": pa.string(),
            "request": pa.string(),
            "status": pa.int16(),
            "headers": pa.string(),
            "fetched_at": INSTANT,
            "attempts": pa.int16(),
            "body": pa.binary(),
        }.items()
    ]
)
_INDEX_COLUMNS: Final = ["request_key", "page", "next", "asset", "troop_id", "status", "fetched_at"]
_ASKED_COLUMNS: Final = ["path", "params", "request"]
_BODY_COLUMNS: Final = ["page", "planned", "planned_leaves", "status", "headers", "fetched_at", "body"]
_ROWS_AT_ONCE: Final = 512
_FETCH_AGAIN: Final = "delete it to have it fetched again"
_FIRST_DELAY_SECONDS: Final = 0.5
_LONGEST_DELAY_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Landed:
    """One response to be landed.

    Attributes:
        planned: The planned request, that is the first page's, with its leaves.
        page: 1 for the first page.
        request: The page's own request; ``next`` is the next page's, None on the last page.
        response: The answer as it came; a 404 for an entity that is gone lands too.
        attempts: How often it was sent, the first included.
    """

    asset: str
    troop_id: str
    planned: PlannedRequest
    page: int
    request: Request
    next: Request | None
    response: Response
    attempts: int = 1

    def row(self) -> tuple[object, ...]:
        """The response as a row of a chunk."""
        return (
            self.planned.request.key,
            self.page,
            encode_request(self.next) if self.next else None,
            self.asset,
            self.troop_id,
            encode_request(self.planned.request),
            encode_leaves(self.planned),
            self.request.path,
            encode(self.request.params),
            encode_request(self.request) if self.request.has_more else None,
            self.response.status,
            encode(dict(self.response.headers)),
            self.response.fetched_at,
            self.attempts,
            self.response.body,
        )

    def indexed(self, chunk: str, row: int) -> LandedIndex:
        """What :func:`read_index` says of it once it is a row of a chunk."""
        return LandedIndex(
            chunk=chunk,
            row=row,
            request=request_id(self.planned.request.key),
            page=self.page,
            next=encode_request(self.next) if self.next else None,
            asset=self.asset,
            troop_id=self.troop_id,
            status=self.response.status,
            fetched_at=self.response.fetched_at,
            asked=request_id(self.request.key) if self.page > 1 else None,
        )


def split_record(
    asset: str, troop_id: str, planned: PlannedRequest, parts: Sequence[PlannedRequest]
) -> Landed:
    """What lands when a request is split, before any of its parts is asked: a later run does not ask it whole."""
    body = json.dumps([[encode_request(part.request), encode_leaves(part)] for part in parts]).encode()
    response = Response(0, {}, body, datetime.now(UTC))
    return Landed(asset, troop_id, planned, SPLIT_PAGE, planned.request, None, response, attempts=0)


class Lander:
    """Buffers responses and lands them in chunks; thread-safe.

    A kill loses at most what is buffered. Where the store is slow or away, the threads that add responses wait for
    it, and so ask for no more. After its ``patience_seconds`` it is given up: from then on only
    ``flush(final=True)`` writes, once.

    Args:
        key: Gives the object key of the n-th chunk, n counted from 0.
        max_seconds: Age of the oldest buffered response at which a chunk is due.
        confirm: Called before each chunk; raises where another run has taken over.
        wait: Waits some seconds, less if the run is stopped; returns whether it is.

    Attributes:
        index: What has landed so far, and where.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: Callable[[int], str],
        *,
        max_seconds: float = 2.0,
        confirm: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool],
    ) -> None:
        self.index: list[LandedIndex] = []
        self._chunks = 0
        self._store = store
        self._key = key
        self._max_seconds = max_seconds
        self._confirm = confirm
        self._monotonic = monotonic
        self._wait = wait
        self._given_up: StorageUnavailableError | None = None
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: list[Landed] = []
        self._bytes = 0
        self._since = 0.0

    def add(self, landed: Landed) -> None:
        """Buffer one response; writes the chunk if it is full or late.

        Raises:
            StorageError: The chunk could not be written; what was buffered stays buffered.
        """
        with self._lock:
            if not self._waiting:
                self._since = self._monotonic()
            self._waiting.append(landed)
            self._bytes += len(landed.response.body)
            due = self._bytes >= CHUNK_BYTES or self._is_due(LATE_SECONDS)
        if due:
            self.flush()

    def flush_if_due(self) -> None:
        """Write the chunk if its oldest response has waited long enough."""
        with self._lock:
            due = bool(self._waiting) and self._is_due()
        if due:
            self.flush()

    def _is_due(self, late_seconds: float = 0.0) -> bool:
        return self._monotonic() - self._since >= self._max_seconds + late_seconds

    def flush(self, *, final: bool = False) -> None:
        """Write what is buffered as one chunk.

        Args:
            final: Try once more where the store was given up.

        Raises:
            StorageError: The chunk could not be written; what was buffered stays buffered.
        """
        with self._writing:
            if self._given_up is not None and not final:
                raise self._given_up
            with self._lock:
                waiting, size, since = self._waiting, self._bytes, self._since
                self._waiting, self._bytes = [], 0
            if not waiting:
                return
            key = self._key(self._chunks)
            try:
                self._write(key, _encode_chunk([landed.row() for landed in waiting]))
            except BaseException:
                with self._lock:
                    self._waiting = waiting + self._waiting
                    self._bytes += size
                    self._since = since
                raise
            self._chunks += 1
            self.index += [landed.indexed(key, row) for row, landed in enumerate(waiting)]

    def _write(self, key: str, chunk: bytes) -> None:
        until = self._monotonic() + (0.0 if self._given_up else self._store.patience_seconds)
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                # Each time anew: while the store was away another run may have taken over.
                self._confirm()
                self._store.put(key, chunk)
            except StorageUnavailableError as error:
                left = until - self._monotonic()
                with let_others():
                    stopped = left <= 0 or self._wait(min(delay, left))
                if stopped:
                    self._given_up = error
                    raise
                if delay == _FIRST_DELAY_SECONDS:
                    logger.warning("answers wait for the store, for %.0f s at most: %s", left, error)
                delay = min(2 * delay, _LONGEST_DELAY_SECONDS)
            else:
                return


def _encode_chunk(rows: list[tuple[object, ...]]) -> bytes:
    sink = pa.BufferOutputStream()
    columns = [
        pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _CHUNK, strict=True)
    ]
    # Bodies of one endpoint resemble each other; small row groups keep reading back within bounds. Level 6 takes three
    # times the CPU time of level 3 for a sixth less.
    pq.write_table(
        pa.Table.from_arrays(columns, schema=_CHUNK),
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        row_group_size=_ROWS_AT_ONCE,
    )
    chunk: bytes = sink.getvalue().to_pybytes()
    return chunk


def request_id(key: str) -> bytes:
    """A request key in 16 bytes, for work that keeps many of them in memory."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class LandedIndex:
    """Where one landed response is and what it answers; its body stays in the store.

    Small on purpose (about 300 bytes): there is one in memory for every response of an open harvest.

    Attributes:
        request: The :func:`request_id` of the planned request; its leaves are in the plan.
        asked: That of the page's own request, where it is a later page.
    """

    chunk: str
    row: int
    request: bytes
    page: int
    next: str | None
    asset: str
    troop_id: str
    status: int
    fetched_at: datetime
    asked: bytes | None = None


def read_index(store: ObjectStore, chunk_keys: Iterable[str]) -> list[LandedIndex]:
    """Everything that has landed in some chunks, without reading a body.

    Raises:
        RecordError: A chunk is damaged; the message names it.
    """
    found: list[LandedIndex] = []
    for key in chunk_keys:
        with store.open(key) as source, understanding(store, key, "landed chunk", _FETCH_AGAIN):
            table = read_whole(source, _INDEX_COLUMNS)
            for field in table.schema:
                wanted = _CHUNK.field(field.name)
                if field.type != wanted.type or (not wanted.nullable and table[field.name].null_count):
                    raise ValueError(f"its column {field.name} is invalid")
            asked = _asked_of_later_pages(source, table["page"].to_pylist())
        for row, record in enumerate(table.to_pylist()):
            request = request_id(record.pop("request_key"))
            record["asset"], record["troop_id"] = intern(record["asset"]), intern(record["troop_id"] or "")
            found.append(LandedIndex(chunk=key, row=row, request=request, asked=asked.get(row), **record))
    return found


def _asked_of_later_pages(source: Any, pages: Sequence[int]) -> dict[int, bytes]:
    """Ids of the requests of a chunk's later pages, by row; most chunks have none."""
    later = [row for row, page in enumerate(pages) if page > 1]
    if not later:
        return {}
    with pq.ParquetFile(source, pre_buffer=False) as file:
        columns = [name for name in _ASKED_COLUMNS if name in file.schema_arrow.names]
        records = file.read(columns=columns, use_threads=False).take(later).to_pylist()
    return {row: request_id(_asked(record).key) for row, record in zip(later, records, strict=True)}


def _asked(record: Mapping[str, Any], endpoint: str = "") -> Request:
    """The request of a later page."""
    if record.get("request"):
        return decode_request(record["request"])
    params = tuple((name, text) for name, text in json.loads(record["params"]))
    return Request(record["path"], params, endpoint)


def read_bodies(
    store: ObjectStore, wanted: Iterable[LandedIndex]
) -> Iterator[tuple[LandedIndex, PlannedRequest, Response]]:
    """The landed responses themselves and what they answer, chunk by chunk, one row group in memory at a time."""
    by_chunk: dict[str, dict[int, LandedIndex]] = {}
    for entry in wanted:
        by_chunk.setdefault(entry.chunk, {})[entry.row] = entry
    for chunk, rows in by_chunk.items():
        with (
            store.open(chunk) as source,
            understanding(store, chunk, "landed chunk", _FETCH_AGAIN),
            pq.ParquetFile(source, pre_buffer=False) as file,
        ):
            first = 0
            # Later pages were asked otherwise than planned. Chunks from before requests had bodies lack a column.
            several = any(entry.page > 1 for entry in rows.values())
            wanted_columns = [*_BODY_COLUMNS, *(_ASKED_COLUMNS if several else ())]
            columns = [name for name in wanted_columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
                # Bodies one by one: all at once would be in memory twice.
                others = batch.drop_columns(["body"]).to_pylist()
                bodies = batch.column("body")
                for offset, record in enumerate(others):
                    if first + offset in rows:
                        yield rows[first + offset], *_decoded(record, bodies[offset].as_py())
                first += batch.num_rows


def _decoded(record: Mapping[str, Any], body: bytes) -> tuple[PlannedRequest, Response]:
    planned = decode_planned(record["planned"], record["planned_leaves"])
    asked = _asked(record, planned.request.endpoint) if record["page"] > 1 else None
    headers = json.loads(record["headers"])
    return planned, Response(record["status"], headers, body, record["fetched_at"], asked)


def read_splits(store: ObjectStore, index: Iterable[LandedIndex]) -> dict[bytes, tuple[PlannedRequest, ...]]:
    """The requests that were split, by their ids, with the parts that stand for each.

    Raises:
        RecordError: What has landed is damaged; the message names the chunk.
    """
    found: dict[bytes, tuple[PlannedRequest, ...]] = {}
    for entry, _, response in read_bodies(store, (entry for entry in index if entry.page == SPLIT_PAGE)):
        try:
            found[entry.request] = tuple(decode_planned(*texts) for texts in json.loads(response.body))
        except (ValueError, TypeError) as error:
            message = f"landed chunk {store.uri(entry.chunk)} holds a split that cannot be read ({error!r}); delete it"
            raise RecordError(message) from error
    return found
