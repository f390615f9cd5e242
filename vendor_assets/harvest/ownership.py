"""Who works on a partition: one holder with an epoch, written by conditional writes.

The holder's object lies beside the harvests it protects, so it is as durable as they are. Whether the holder
is alive is asked of its lease (:class:`Liveness`); what it may commit is decided by its epoch alone, so one
that wakes up late does no harm, even if the database of leases was lost in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from vendor_assets.errors import ObjectConflictError, ObjectNotFoundError, PartitionHeldError
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.reading import json_object, understanding
from vendor_assets.turns import let_others

_CONFIRMED_SECONDS: Final = 5.0
"""How long a look at the epoch is good enough for what a later holder replaces anyway; half a lease's time-to-live."""


class Liveness(Protocol):
    """Tells whether a holder is alive; implemented by the leases in the budget's database."""

    def watch(self, holder: str, stop: Callable[[], bool] | None = None) -> bool:
        """True as soon as the holder renewed its lease; False once it has lapsed or never was."""
        ...


@dataclass
class Ownership:
    """The right to commit to one partition, good as long as nobody took a later epoch.

    Attributes:
        etag: Of the holder's object as it was when it was written or looked at last.
        released: Whether it was let go.
    """

    store: ObjectStore
    key: str
    holder: str
    epoch: int
    etag: str
    released: bool = False
    monotonic: Callable[[], float] = time.monotonic
    _confirmed_at: float = field(init=False)

    def __post_init__(self) -> None:
        """It was just taken."""
        self._confirmed_at = self.monotonic()

    def confirm_now_and_then(self) -> None:
        """Make sure of it unless that was done in the last five seconds.

        Enough for what does no harm when it comes late: answers, and a table, which is written on the condition that it
        is the one that was seen. Whoever was stopped for so long that its lease lapsed looks again.

        Raises:
            PartitionHeldError: Somebody has taken over.
        """
        if self.monotonic() - self._confirmed_at > _CONFIRMED_SECONDS:
            self.confirm()

    def confirm(self) -> None:
        """Make sure that nobody has taken over.

        Raises:
            PartitionHeldError: Somebody has, or the record is gone; nothing may be committed any more.
        """
        asked_at = self.monotonic()
        try:
            record, etag = _read(self.store, self.key)
        except ObjectNotFoundError as error:
            message = (
                f"{self.store.uri(self.key)} was deleted while run {self.holder} was at work, and maybe answers too "
                "(a rule of the bucket that expires objects?); nothing was committed, run again"
            )
            raise PartitionHeldError(message) from error
        if record["epoch"] != self.epoch or record["holder"] != self.holder:
            message = (
                f"run {self.holder} was superseded by {record['holder']} (epoch {record['epoch']}, ours "
                f"{self.epoch}) at {self.store.uri(self.key)}; nothing was committed, the other run goes on"
            )
            raise PartitionHeldError(message)
        self.etag, self._confirmed_at = etag, asked_at

    def release_to_finish(self) -> None:
        """Let go just before the finish marker, in one write that proves that nobody has taken over until then.

        Whoever takes the partition before the marker is there finds all answers landed and finishes it itself.

        Raises:
            PartitionHeldError: Somebody has taken over.
        """
        while not self.released:
            try:
                self._let_go()
            except ObjectConflictError:
                self.confirm()

    def release(self) -> None:
        """Let go, so that the next run need not watch a lease. Losing the race to do so is fine."""
        if self.released:
            return
        with suppress(ObjectConflictError):
            self._let_go()

    def _let_go(self) -> None:
        record = {"epoch": self.epoch, "holder": self.holder, "released": True}
        self.etag = self.store.put(self.key, _encode(record), if_match=self.etag)
        self.released = True


def acquire(
    store: ObjectStore,
    partition_prefix: str,
    holder: str,
    liveness: Liveness,
    *,
    stop: Callable[[], bool] | None = None,
    untouched: bool = False,
    look: Callable[[], None] = lambda: None,
) -> Ownership:
    """Take a partition with the next epoch.

    A free partition is taken at once. One that is held is taken when its holder's lease has lapsed, which
    takes up to one time-to-live of watching.

    Args:
        untouched: Nobody seems to have had it so far: it is taken without a look at its holder.
        look: Called where somebody had it, just before it is taken: what it sees is what earlier holders left, also one
            that finished while its lease was watched.

    Raises:
        PartitionHeldError: Its holder is alive; the message names it.
        RecordError: The holder's record is damaged.
    """
    key = layout.holder_key(partition_prefix)
    while True:
        etag: str | None = None
        record: dict[str, Any] = {"epoch": 0, "holder": "", "released": True}
        if not untouched:
            with suppress(ObjectNotFoundError):
                record, etag = _read(store, key)
        if not record["released"] and record["holder"] != holder and _lives(liveness, record["holder"], stop):
            message = (
                f"run {record['holder']} is harvesting {store.uri(partition_prefix)} now; "
                "wait for it or stop it, then try again"
            )
            raise PartitionHeldError(message)
        if not untouched:
            look()
        epoch = record["epoch"] + 1
        taken = _encode({"epoch": epoch, "holder": holder, "released": False})
        try:
            etag = store.put(key, taken, if_absent=etag is None, if_match=etag)
        except ObjectConflictError:
            untouched = False
            continue
        return Ownership(store, key, holder, epoch, etag)


def _lives(liveness: Liveness, holder: str, stop: Callable[[], bool] | None) -> bool:
    with let_others():
        return liveness.watch(holder, stop)


def _read(store: ObjectStore, key: str) -> tuple[dict[str, Any], str]:
    data, etag = store.get_with_etag(key)
    with understanding(store, key, "holder", "delete it once no run is harvesting this partition"):
        return json_object(data, epoch=int, holder=str, released=bool), etag


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()
