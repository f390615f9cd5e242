"""The landing zone: exact response bodies, kept before anything is parsed.

One folder per harvest holds its frozen plan, chunks of landed responses and, once it is over, a finish marker::

    raw_data/<asset>/day=…/[troop=…/]holder                     who works on the partition, with an epoch
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/plan              the frozen plan
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/chunk-<writer>-<n>  landed responses, a Parquet file each
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/finish            what came of it
    raw_data/<asset>/day=…/[troop=…/]h-<ulid>/removed           that its chunks were removed for their age

What has landed is the only record of what is done.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from hashlib import blake2b
from itertools import islice
from sys import intern
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from vendor_assets.days import Window
from vendor_assets.errors import ObjectNotFoundError, RecordError, StorageUnavailableError
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_whole
from vendor_assets.storage.reading import json_object, understanding
from vendor_assets.tables import INSTANT
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request, Response

_RESPONSES: Final = pa.schema(
    [
        pa.field("request_key", pa.string(), nullable=False),
        pa.field("page", pa.int32(), nullable=False),
        pa.field("next", pa.string()),
        pa.field("asset", pa.string(), nullable=False),
        pa.field("troop_id", pa.string()),
        pa.field("planned", pa.string(), nullable=False),
        pa.field("planned_leaves", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("params", pa.string(), nullable=False),
        pa.field("status", pa.int16(), nullable=False),
        pa.field("headers", pa.string(), nullable=False),
        pa.field("fetched_at", INSTANT, nullable=False),
        pa.field("attempts", pa.int16(), nullable=False),
        pa.field("body", pa.binary(), nullable=False),
    ]
)
LATE_SECONDS: Final = 0.5
"""How much older than it should be a buffered response becomes before its bringers write the chunk themselves."""
_FIRST_DELAY_SECONDS: Final = 0.5
_LONGEST_DELAY_SECONDS: Final = 5.0
logger = get_logger(__name__)
_INDEX_COLUMNS: Final = ["request_key", "page", "next", "asset", "troop_id", "status", "fetched_at"]
_PLANNED: Final = pa.schema(
    [
        pa.field("request", pa.string(), nullable=False),
        pa.field("leaves", pa.string(), nullable=False),
    ]
)
_PLANNED_AT_ONCE: Final = 1024
SPLIT_PAGE: Final = 0
"""Page number of what lands when a request is split: no answer, but the requests that stand for it from then on."""
_FETCH_AGAIN: Final = "delete it to have it fetched again"


def encode_request(request: Request) -> str:
    """A request as JSON text."""
    return json.dumps([request.path, request.params, request.endpoint], separators=(",", ":"))


def decode_request(text: str) -> Request:
    """The request that :func:`encode_request` wrote."""
    try:
        path, params, endpoint = json.loads(text)
        if not all(
            isinstance(part, str) for part in (path, endpoint, *(part for pair in params for part in pair))
        ):
            raise ValueError("not a request")
        return Request(path, tuple((name, value) for name, value in params), endpoint)
    except (ValueError, TypeError, RecursionError) as error:
        message = f"a request that was kept cannot be read ({text[:80]!r}); delete the object that holds it"
        raise RecordError(message) from error


def split_record(
    asset: str, troop_id: str, planned: PlannedRequest, parts: Sequence[PlannedRequest]
) -> Landed:
    """What lands when a request is split, before any of its parts is asked: a later run does not ask it whole."""
    body = json.dumps([[encode_request(part.request), _encode_leaves(part)] for part in parts]).encode()
    response = Response(0, {}, body, datetime.now(UTC))
    return Landed(asset, troop_id, planned, SPLIT_PAGE, planned.request, None, response, attempts=0)


@dataclass(frozen=True)
class Landed:
    """One response to be landed.

    Attributes:
        asset: The asset it belongs to.
        troop_id: The vendor's id of the troop, where the asset is asked per troop.
        planned: The planned request, that is the first page's, with its leaves.
        page: 1 for the first page.
        request: What was really sent: the page's own request.
        next: The next page's request; None on the last page.
        response: The answer, status and body as they came; a 404 for an entity that is gone lands too.
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

    def row(self) -> dict[str, Any]:
        """The response as a row of a chunk."""
        return {
            "request_key": self.planned.request.key,
            "page": self.page,
            "next": encode_request(self.next) if self.next else None,
            "asset": self.asset,
            "troop_id": self.troop_id,
            "planned": encode_request(self.planned.request),
            "planned_leaves": _encode_leaves(self.planned),
            "path": self.request.path,
            "params": json.dumps(self.request.params),
            "status": self.response.status,
            "headers": json.dumps(dict(self.response.headers)),
            "fetched_at": self.response.fetched_at,
            "attempts": self.attempts,
            "body": self.response.body,
        }


class Lander:
    """Buffers responses and lands them in chunks; thread-safe.

    A chunk is written when ``max_bytes`` have come together or ``max_seconds`` have passed since its first
    response, whichever is first. A kill loses at most what is buffered: where the store is slow or away, those who
    bring responses wait for it, and so ask for no more. One that is away for longer than its ``patience_seconds``
    is given up: from then on only ``flush(final=True)`` writes, once.

    Args:
        store: Where to land.
        key: Gives the object key of the n-th chunk, n counted from 0.
        max_bytes: Size of the buffered bodies at which a chunk is written.
        max_seconds: Age of the oldest buffered response at which a chunk is due.
        confirm: Called before each chunk; raises where landing has become somebody else's.
        monotonic: Clock in seconds.
        wait: Waits some seconds, less once the run shall end; tells whether it shall.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: Callable[[int], str],
        *,
        max_bytes: int = 8 << 20,
        max_seconds: float = 2.0,
        confirm: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool],
    ) -> None:
        self._store = store
        self._key = key
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._confirm = confirm
        self._monotonic = monotonic
        self._wait = wait
        self._given_up: StorageUnavailableError | None = None
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._since = 0.0
        self._count = 0
        self.keys: list[str] = []

    def add(self, landed: Landed) -> None:
        """Buffer one response; writes the chunk if it is full or late.

        Raises:
            StorageError: The chunk could not be written; what was buffered stays buffered.
        """
        with self._lock:
            if not self._rows:
                self._since = self._monotonic()
            self._rows.append(landed.row())
            self._bytes += len(landed.response.body)
            full = self._bytes >= self._max_bytes
            late = self._monotonic() - self._since >= self._max_seconds + LATE_SECONDS
        if full or late:
            self.flush()

    def flush_if_due(self) -> None:
        """Write the chunk if its oldest response has waited long enough."""
        with self._lock:
            due = bool(self._rows) and self._monotonic() - self._since >= self._max_seconds
        if due:
            self.flush()

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
                rows, self._rows, size = self._rows, [], self._bytes
                self._bytes = 0
                since = self._since
            if not rows:
                return
            key = self._key(self._count)
            try:
                self._write(key, _encode_chunk(rows))
            except BaseException:
                with self._lock:
                    self._rows = rows + self._rows
                    self._bytes += size
                    self._since = since
                raise
            self._count += 1
            self.keys.append(key)

    def _write(self, key: str, chunk: bytes) -> None:
        until = self._monotonic() + (0.0 if self._given_up else self._store.patience_seconds)
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                # Each time anew: while the store was away somebody else may have taken over.
                self._confirm()
                self._store.put(key, chunk)
            except StorageUnavailableError as error:
                left = until - self._monotonic()
                if left <= 0 or self._wait(min(delay, left)):
                    self._given_up = error
                    raise
                if delay == _FIRST_DELAY_SECONDS:
                    logger.warning("answers wait for the store, for %.0f s at most: %s", left, error)
                delay = min(2 * delay, _LONGEST_DELAY_SECONDS)
            else:
                return


def _encode_chunk(rows: Sequence[Mapping[str, Any]]) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=_RESPONSES)
    # Bodies of one endpoint resemble each other; small row groups keep reading back within bounds.
    pq.write_table(
        table, sink, compression="zstd", compression_level=6, use_dictionary=False, row_group_size=512
    )
    return sink.getvalue()


def request_id(key: str) -> bytes:
    """A request key in 16 bytes, for work that keeps many of them in memory."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class LandedIndex:
    """Where one landed response is and what it answers; its body stays in the store.

    Small on purpose (about 300 bytes): of every response of an open harvest there is one in memory.

    Attributes:
        request: The :func:`request_id` of the planned request; its leaves are in the plan.
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


def read_index(store: ObjectStore, chunk_keys: Iterable[str]) -> list[LandedIndex]:
    """Everything that has landed in some chunks, without reading a body.

    Raises:
        RecordError: A chunk is damaged; the message names it.
    """
    found: list[LandedIndex] = []
    for key in chunk_keys:
        with store.open(key) as source, understanding(store, key, "landed chunk", _FETCH_AGAIN):
            table = read_whole(source, _INDEX_COLUMNS)
            for field_ in table.schema:
                wanted = _RESPONSES.field(field_.name)
                if field_.type != wanted.type or (not wanted.nullable and table[field_.name].null_count):
                    raise ValueError(f"its column {field_.name} is none of ours")
        found += [
            LandedIndex(
                chunk=key,
                row=row,
                request=request_id(record["request_key"]),
                page=record["page"],
                next=record["next"],
                asset=intern(record["asset"]),
                troop_id=intern(record["troop_id"] or ""),
                status=record["status"],
                fetched_at=record["fetched_at"],
            )
            for row, record in enumerate(table.to_pylist())
        ]
    return found


def read_bodies(
    store: ObjectStore, wanted: Sequence[LandedIndex]
) -> Iterator[tuple[LandedIndex, PlannedRequest, Response]]:
    """The landed responses themselves and what they answer, chunk by chunk, one row group in memory at a time."""
    columns = [
        "page",
        "planned",
        "planned_leaves",
        "path",
        "params",
        "status",
        "headers",
        "fetched_at",
        "body",
    ]
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
            for batch in file.iter_batches(batch_size=512, columns=columns, use_threads=False):
                for offset in range(batch.num_rows):
                    entry_here = rows.get(first + offset)
                    if entry_here is None:
                        continue
                    record = {name: batch.column(name)[offset].as_py() for name in batch.schema.names}
                    planned = PlannedRequest(
                        decode_request(record["planned"]), _decode_leaves(record["planned_leaves"])
                    )
                    asked = None
                    if record["page"] > 1:
                        params = tuple((name, text) for name, text in json.loads(record["params"]))
                        asked = Request(record["path"], params, planned.request.endpoint)
                    response = Response(
                        status=record["status"],
                        headers=json.loads(record["headers"]),
                        body=record["body"],
                        fetched_at=record["fetched_at"],
                        asked=asked,
                    )
                    yield entry_here, planned, response
                first += batch.num_rows


def read_splits(store: ObjectStore, index: Sequence[LandedIndex]) -> dict[bytes, tuple[PlannedRequest, ...]]:
    """The requests that were split, by their ids, with the parts that stand for each.

    Raises:
        RecordError: What has landed is damaged; the message names the chunk.
    """
    found: dict[bytes, tuple[PlannedRequest, ...]] = {}
    for entry, _, response in read_bodies(store, [entry for entry in index if entry.page == SPLIT_PAGE]):
        try:
            found[entry.request] = tuple(
                PlannedRequest(decode_request(request), _decode_leaves(leaves))
                for request, leaves in json.loads(response.body)
            )
        except (ValueError, TypeError) as error:
            message = f"landed chunk {store.uri(entry.chunk)} holds a split that cannot be read ({error!r}); delete it"
            raise RecordError(message) from error
    return found


@dataclass(frozen=True)
class Finish:
    """What came of a harvest: its finish marker.

    Attributes:
        state: ``complete``, ``empty`` (complete, with no rows) or ``partial``.
        planned: Number of leaves in the plan.
        landed: Leaves that were answered with data or with "there is none".
        gone: Leaves whose entity the vendor does not know any more.
        dead: Leaves that are dead letters.
        requests: Number of planned requests.
        calls: Calls made for this harvest so far, over all runs that worked on it.
        rows: Rows of the table.
        root_run: Root id of the run that finished it.
        answers: Answers that have landed, each page of a list counted, those of bases too; 0 where an older version
            finished it.
        later_pages: Those of them that are not a list's first page.
    """

    state: str
    planned: int
    landed: int
    gone: int
    dead: int
    requests: int
    calls: int
    rows: int
    root_run: str
    epoch: int
    finished_at: datetime
    table_etag: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    answers: int = 0
    later_pages: int = 0

    def to_json(self) -> bytes:
        """The marker's bytes."""
        document = dict(self.__dict__) | {
            "finished_at": self.finished_at.isoformat(),
            "details": dict(self.details),
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Finish:
        """Read a marker; members that a newer version added are left aside.

        Raises:
            ValueError: It is none.
        """
        numbers = ("planned", "landed", "gone", "dead", "requests", "calls", "rows", "epoch")
        document = json_object(data, state=str, root_run=str, finished_at=str, **dict.fromkeys(numbers, int))
        known = {name: value for name, value in document.items() if name in cls.__dataclass_fields__}
        finish: Any = cls(**known | {"finished_at": datetime.fromisoformat(document["finished_at"])})
        details = finish.details
        if (
            finish.finished_at.tzinfo is None
            or finish.state not in ("complete", "empty", "partial")
            or not isinstance(details, dict)
            or not isinstance(details.get("quarantined", 0), int)
            or not isinstance(finish.table_etag, str)
            or not all(isinstance(count, int) for count in (finish.answers, finish.later_pages))
        ):
            raise ValueError("not a finish marker")
        marker: Finish = finish
        return marker


@dataclass(frozen=True)
class HarvestFolder:
    """One harvest in the store: its folder and which of its parts are there."""

    folder: str
    has_plan: bool
    chunks: tuple[str, ...]
    finish_etag: str | None
    removed: bool = False

    @property
    def harvest_id(self) -> str:
        """The ULID in the folder's name."""
        return self.folder.rstrip("/").rsplit("/", 1)[-1].removeprefix("h-")


def list_harvests(store: ObjectStore, asset: str, day: date, troop_key: str | None) -> list[HarvestFolder]:
    """All harvests of a partition, oldest first."""
    return _harvests_below(store, layout.harvest_prefix(asset, day, troop_key))


def list_harvests_of_day(store: ObjectStore, asset: str, day: date) -> dict[str, list[HarvestFolder]]:
    """All harvests of a day's troops by partition key, oldest first: one listing for all of them."""
    prefix = layout.harvest_prefix(asset, day)
    found: dict[str, list[HarvestFolder]] = {}
    for harvest in _harvests_below(store, prefix):
        troop = harvest.folder.removeprefix(prefix).partition("/")[0]
        found.setdefault(troop.removeprefix("troop="), []).append(harvest)
    return found


def _harvests_below(store: ObjectStore, prefix: str) -> list[HarvestFolder]:
    folders: dict[str, dict[str, str]] = {}
    for info in store.list(prefix):
        folder, _, part = info.key.rpartition("/")
        if folder.rpartition("/")[2].startswith("h-"):
            folders.setdefault(folder + "/", {})[part] = info.etag
    return [
        HarvestFolder(
            folder=folder,
            has_plan="plan" in parts,
            chunks=tuple(folder + part for part in sorted(parts) if part.startswith("chunk-")),
            finish_etag=parts.get("finish"),
            removed="removed" in parts,
        )
        for folder, parts in sorted(folders.items())
    ]


@dataclass(frozen=True)
class Plan:
    """The frozen work of one harvest; its requests stay packed and are read one by one.

    Attributes:
        packed: The plan as it is kept: a Parquet file with one row per request, the rest in its metadata.
        request_count: Number of planned requests.
        leaf_count: Number of leaves.
        bases: Folders of older harvests whose landed responses count here too (reconcile).
        resolution_seconds: Wanted length of a timeslice.
        upstream_partial: Whether the upstream table was itself partial, so that leaves may be missing.
        filters: The filters in force: setting to patterns.
        left_out: What they left out: troops, warriors, data groups, values; to numbers.
    """

    asset: str
    day: date
    troop_key: str | None
    troop_id: str
    resolution_seconds: int
    created_at: datetime
    packed: bytes
    request_count: int
    leaf_count: int
    bases: tuple[str, ...] = ()
    upstream_partial: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def pack(
        cls,
        requests: Iterable[PlannedRequest],
        *,
        asset: str,
        day: date,
        troop_key: str | None,
        troop_id: str,
        resolution_seconds: int,
        created_at: datetime,
        bases: tuple[str, ...] = (),
        upstream_partial: bool = False,
        filters: Mapping[str, str],
        left_out: Mapping[str, int],
    ) -> Plan:
        """Freeze some requests, first pages only, with their leaves; ``left_out`` may be counted on the way.

        Requests that share a leaf follow each other.
        """
        request_count = leaf_count = 0
        before: frozenset[str] = frozenset()
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, _PLANNED, compression="zstd") as writer:
            left = iter(requests)
            while some := list(islice(left, _PLANNED_AT_ONCE)):
                request_count += len(some)
                for planned in some:
                    # A leaf that takes several requests is in one after the other, and counts once.
                    here = frozenset(leaf.key for leaf in planned.leaves)
                    leaf_count += len(here - before)
                    before = here
                rows = [
                    [encode_request(planned.request) for planned in some],
                    list(map(_encode_leaves, some)),
                ]
                writer.write_batch(pa.record_batch(rows, schema=_PLANNED))
            header = {
                "asset": asset,
                "day": day.isoformat(),
                "troop_key": troop_key,
                "troop_id": troop_id,
                "resolution_seconds": resolution_seconds,
                "created_at": created_at.isoformat(),
                "leaves": leaf_count,
                "bases": list(bases),
                "upstream_partial": upstream_partial,
                "filters": dict(filters),
                "left_out": dict(left_out),
            }
            writer.add_key_value_metadata({"plan": json.dumps(header)})
        return cls(
            asset=asset,
            day=day,
            troop_key=troop_key,
            troop_id=troop_id,
            resolution_seconds=resolution_seconds,
            created_at=created_at,
            packed=sink.getvalue(),
            request_count=request_count,
            leaf_count=leaf_count,
            bases=bases,
            upstream_partial=upstream_partial,
            filters=filters,
            left_out=left_out,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Plan:
        """Read a frozen plan.

        Raises:
            Exception: It is none; which one, depends.
        """
        metadata = pq.read_metadata(pa.BufferReader(data))
        if metadata.schema.to_arrow_schema().names != _PLANNED.names:
            raise ValueError("its columns are not those of a plan")
        texts = {"asset": str, "day": str, "troop_id": str, "created_at": str}
        header = json_object((metadata.metadata or {})[b"plan"], resolution_seconds=int, bases=list, **texts)
        for name, kind in (("filters", str), ("left_out", int)):
            members = header.get(name, {})
            if not isinstance(members, dict) or not all(isinstance(each, kind) for each in members.values()):
                raise ValueError(f"{name} is {str(members)[:40]!r}")
        if not all(isinstance(each, str) for each in header["bases"]) or not isinstance(
            header.get("leaves", 0), int
        ):
            raise ValueError("its bases or its leaves are none")
        plan = cls(
            asset=header["asset"],
            day=date.fromisoformat(header["day"]),
            troop_key=header["troop_key"],
            troop_id=header["troop_id"],
            resolution_seconds=header["resolution_seconds"],
            created_at=datetime.fromisoformat(header["created_at"]),
            packed=data,
            request_count=metadata.num_rows,
            leaf_count=header.get("leaves", -1),
            bases=tuple(header["bases"]),
            upstream_partial=header["upstream_partial"],
            filters=header.get("filters", {}),
            left_out=header.get("left_out", {}),
        )
        if plan.leaf_count < 0:  # written by an older version
            return replace(plan, leaf_count=sum(len(planned.leaves) for planned in plan.requests()))
        return plan

    def requests(self) -> Iterator[PlannedRequest]:
        """The planned requests in the order in which they were planned, read as they are asked for."""
        with pq.ParquetFile(pa.BufferReader(self.packed)) as file:
            for batch in file.iter_batches(_PLANNED_AT_ONCE, use_threads=False):
                for request, leaves in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield PlannedRequest(decode_request(request), _decode_leaves(leaves))


def _encode_leaves(planned: PlannedRequest) -> str:
    return json.dumps(
        [
            [
                leaf.key,
                leaf.warrior_id,
                leaf.data_group,
                [leaf.window.start.timestamp(), leaf.window.end.timestamp()] if leaf.window else None,
            ]
            for leaf in planned.leaves
        ],
        separators=(",", ":"),
    )


def _decode_leaves(text: str) -> tuple[Leaf, ...]:
    try:
        return tuple(
            Leaf(
                key,
                warrior_id,
                data_group,
                Window(datetime.fromtimestamp(window[0], UTC), datetime.fromtimestamp(window[1], UTC))
                if window
                else None,
            )
            for key, warrior_id, data_group, window in json.loads(text)
        )
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError, OSError) as error:
        message = f"leaves that were kept cannot be read ({text[:80]!r}); delete the object that holds them"
        raise RecordError(message) from error


def load_plan(store: ObjectStore, folder: str) -> Plan:
    """The frozen plan of a harvest.

    Raises:
        ObjectNotFoundError: It has none.
        RecordError: It is damaged, or that of another partition.
    """
    key = layout.plan_key(folder)
    data = store.get(key)
    with understanding(store, key, "plan", "delete its harvest's folder to have the partition asked anew"):
        plan = Plan.unpack(data)
        if not folder.startswith(layout.harvest_prefix(plan.asset, plan.day, plan.troop_key)):
            raise ValueError("it is that of another partition")
        return plan


def load_finish(store: ObjectStore, folder: str) -> Finish | None:
    """The finish marker of a harvest; None while it is unfinished.

    Raises:
        RecordError: It is damaged.
    """
    key = layout.finish_key(folder)
    try:
        data = store.get(key)
    except ObjectNotFoundError:
        return None
    with understanding(
        store, key, "finish marker", "delete it to have the harvest finished from what has landed"
    ):
        return Finish.from_json(data)
