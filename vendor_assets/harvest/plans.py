"""The frozen plan of a harvest: a Parquet file with a row for each request, the rest in its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from itertools import islice
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.reading import json_object, understanding
from vendor_assets.vendors.base import PlannedRequest
from vendor_assets.vendors.frozen import decode_planned, encode_leaves, encode_request

_SCHEMA: Final = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("request", "leaves")])
_ROWS_AT_ONCE: Final = 1024
_HEADER: Final = (
    *("asset", "troop_key", "troop_id", "resolution_seconds"),
    *("bases", "upstream_partial", "filters", "left_out"),
)
"""Fields of a plan that its metadata hold as they are."""


@dataclass(frozen=True)
class Plan:
    """The work of one harvest; its requests stay packed and are read one by one, unless they are few and just planned.

    Attributes:
        bases: Folders of older harvests whose landed responses count here too (reconcile).
        upstream_partial: Whether the upstream table was itself partial, so that leaves may be missing.
        filters: The filters in force: setting to patterns.
        left_out: What they left out: troops, warriors, data groups, values; to numbers.
        packed: The frozen plan as it is kept; empty until :meth:`freeze`.
        few: All requests, where these are few enough to hold.
    """

    asset: str
    day: date
    troop_key: str | None
    troop_id: str
    resolution_seconds: int
    created_at: datetime
    bases: tuple[str, ...] = ()
    upstream_partial: bool = False
    filters: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    packed: bytes = b""
    request_count: int = 0
    leaf_count: int = 0
    few: tuple[PlannedRequest, ...] | None = field(default=None, repr=False, compare=False)

    def freeze(self, requests: Iterable[PlannedRequest]) -> Plan:
        """This plan with its requests, first pages only; ``left_out`` may be counted while they are read.

        Requests that share a leaf follow each other.
        """
        request_count = leaf_count = 0
        before: frozenset[str] = frozenset()
        few: tuple[PlannedRequest, ...] | None = ()
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, _SCHEMA, compression="zstd") as writer:
            left = iter(requests)
            while some := list(islice(left, _ROWS_AT_ONCE)):
                few = tuple(some) if not request_count else None
                request_count += len(some)
                for planned in some:
                    # A leaf that takes several requests is in one after the other, and counts once.
                    here = frozenset(leaf.key for leaf in planned.leaves)
                    leaf_count += len(here - before)
                    before = here
                columns = [[encode_request(planned.request) for planned in some], [*map(encode_leaves, some)]]
                writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            header = {name: getattr(self, name) for name in _HEADER} | {
                "day": self.day.isoformat(),
                "created_at": self.created_at.isoformat(),
                "leaves": leaf_count,
            }
            writer.add_key_value_metadata({"plan": json.dumps(header)})
        packed = sink.getvalue().to_pybytes()
        return replace(self, packed=packed, request_count=request_count, leaf_count=leaf_count, few=few)

    @classmethod
    def unpack(cls, data: bytes) -> Plan:
        """Read a frozen plan.

        Raises:
            Exception: It is not one; the parsers raise what they like.
        """
        metadata = pq.read_metadata(pa.BufferReader(data))
        if metadata.schema.to_arrow_schema().names != _SCHEMA.names:
            raise ValueError("its columns are not those of a plan")
        texts = dict.fromkeys(("asset", "day", "troop_id", "created_at"), str)
        header = json_object((metadata.metadata or {})[b"plan"], resolution_seconds=int, bases=list, **texts)
        for name, kind in (("filters", str), ("left_out", int)):
            members = header.setdefault(name, {})
            if not isinstance(members, dict) or not all(isinstance(each, kind) for each in members.values()):
                raise ValueError(f"{name} is {str(members)[:40]!r}")
        leaves = header.get("leaves", -1)
        if not isinstance(leaves, int) or not all(isinstance(each, str) for each in header["bases"]):
            raise ValueError("its bases or its leaves are invalid")
        plan = cls(
            **{name: header[name] for name in _HEADER}
            | {
                "day": date.fromisoformat(header["day"]),
                "created_at": datetime.fromisoformat(header["created_at"]),
                "bases": tuple(header["bases"]),
            },
            packed=data,
            request_count=metadata.num_rows,
            leaf_count=leaves,
        )
        if leaves < 0:  # written by an older version
            return replace(plan, leaf_count=sum(len(planned.leaves) for planned in plan.requests()))
        return plan

    def requests(self) -> Iterator[PlannedRequest]:
        """The planned requests in their order, read as they are asked for."""
        if self.few is not None:
            yield from self.few
            return
        with pq.ParquetFile(pa.BufferReader(self.packed)) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                for texts in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield decode_planned(*texts)


def load_plan(store: ObjectStore, folder: str) -> Plan:
    """The frozen plan of a harvest.

    Raises:
        ObjectNotFoundError: It has none.
        RecordError: It is damaged, or belongs to another partition.
    """
    key = layout.plan_key(folder)
    data = store.get(key)
    with understanding(
        store, key, "plan", "delete its harvest's folder to have the partition asked for again"
    ):
        plan = Plan.unpack(data)
        if not folder.startswith(layout.harvest_prefix(plan.asset, plan.day, plan.troop_key)):
            raise ValueError("it belongs to another partition")
        return plan
