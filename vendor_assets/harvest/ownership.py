"""Who works on a partition: one holder with an epoch, written by conditional writes.

The holder's object lies beside the harvests it protects, so it is as durable as they are. Whether the holder
is alive is asked of its lease (:class:`Liveness`); what it may commit is decided by its epoch alone, so one
that wakes up late does no harm, even if the database of leases was lost in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vendor_assets.errors import ObjectConflictError, ObjectNotFoundError, PartitionHeldError, RecordError
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.reading import json_object, understanding


class Liveness(Protocol):
    """Tells whether a holder is alive; implemented by the leases in the budget's database."""

    def watch(self, holder: str, stop: Callable[[], bool] | None = None) -> bool:
        """True as soon as the holder renewed its lease; False once it has lapsed or never was."""
        ...


@dataclass
class Ownership:
    """The right to commit to one partition, good as long as nobody took a later epoch."""

    store: ObjectStore
    key: str
    holder: str
    epoch: int

    def confirm(self) -> None:
        """Make sure that nobody has taken over.

        Raises:
            PartitionHeldError: Somebody has; nothing may be committed any more.
        """
        try:
            record, _ = _read(self.store, self.key)
        except ObjectNotFoundError:
            record = {"epoch": -1, "holder": "nobody"}
        if record["epoch"] != self.epoch or record["holder"] != self.holder:
            message = (
                f"run {self.holder} was superseded by {record['holder']} (epoch {record['epoch']}, ours "
                f"{self.epoch}) at {self.store.uri(self.key)}; nothing was committed, the other run goes on"
            )
            raise PartitionHeldError(message)

    def release(self) -> None:
        """Let go, so that the next run need not watch a lease. Losing the race to do so is fine."""
        try:
            record, etag = _read(self.store, self.key)
            if record["epoch"] == self.epoch and record["holder"] == self.holder:
                self.store.put(self.key, _encode(record | {"released": True}), if_match=etag)
        except (ObjectConflictError, ObjectNotFoundError, RecordError):
            pass


def acquire(
    store: ObjectStore,
    partition_prefix: str,
    holder: str,
    liveness: Liveness,
    *,
    stop: Callable[[], bool] | None = None,
) -> Ownership:
    """Take a partition with the next epoch.

    A free partition is taken at once. One that is held is taken when its holder's lease has lapsed, which
    takes up to one time-to-live of watching.

    Raises:
        PartitionHeldError: Its holder is alive; the message names it.
        RecordError: The holder's record is damaged.
    """
    key = layout.holder_key(partition_prefix)
    while True:
        etag: str | None
        record: dict[str, Any]
        try:
            record, etag = _read(store, key)
        except ObjectNotFoundError:
            etag, record = None, {"epoch": 0, "holder": "", "released": True}
        if not record["released"] and record["holder"] != holder and liveness.watch(record["holder"], stop):
            message = (
                f"run {record['holder']} is harvesting {store.uri(partition_prefix)} now; "
                "wait for it or stop it, then try again"
            )
            raise PartitionHeldError(message)
        epoch = record["epoch"] + 1
        try:
            store.put(
                key,
                _encode({"epoch": epoch, "holder": holder, "released": False}),
                if_absent=etag is None,
                if_match=etag,
            )
        except ObjectConflictError:
            continue
        return Ownership(store, key, holder, epoch)


def _read(store: ObjectStore, key: str) -> tuple[dict[str, Any], str]:
    data, etag = store.get_with_etag(key)
    with understanding(store, key, "holder", "delete it once no run is harvesting this partition"):
        return json_object(data, epoch=int, holder=str, released=bool), etag


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()
