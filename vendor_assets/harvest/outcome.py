"""What is asked of a harvest, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final, Literal

from vendor_assets.days import duration_text
from vendor_assets.errors import (
    PartitionHeldError,
    Reason,
    StoppedError,
    VendorAssetsError,
    VendorUnauthorizedError,
    reason_of,
)
from vendor_assets.harvest.fetching import Counts
from vendor_assets.harvest.harvests import (
    FAILURE,
    Finish,
    HarvestFolder,
    list_harvests,
    load_finish,
    newest_finished,
)
from vendor_assets.presentable import counted
from vendor_assets.states import SUCCEEDED, State
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.vendors.base import Asset
from vendor_assets.work_class import SCHEDULED, WorkClass

CHAIN: Final[tuple[Asset, ...]] = ("warriors", "data_groups", "performance_data")
"""The assets that are partitioned by day and troop, upstream first."""

KEY_REFUSED: Final = "key_refused"
"""Among the details of an outcome: the vendor refused the key, so that no other partition would fare better."""

NO_TROOPS: Final = "is the account right (VENDOR_ACCOUNT, the key's), and what is listed (VENDOR_OPTIONS)?"
"""What to look at where the vendor lists no troops: it may be so, or it was asked for the wrong ones."""

Mode = Literal["first", "resume", "report", "reconcile", "replace", "redrive", "rebuild"]


@dataclass(frozen=True)
class HarvestOptions:
    """Who asks for a harvest, and what shall become of partitions that are finished already.

    Attributes:
        run_id: The run that asks.
        root_run_id: Its first ancestor, for retries and re-executions.
        finished: ``replace`` fetches finished partitions again (a person's click), ``reconcile`` only what was
            not there before (sensors, the command).
        rebuild: Make tables again from what has landed, without a call.
        accept_empty: Whether an account that had troops may have none any more.
        permanent_too: Whether a redrive asks for permanent dead letters too; a person's does, a sensor's not.
        asked_at: When it was asked for: what was fetched whole and finished later is not replaced. None if not known.
        unseen: Partitions (asset, day, troop's key) that did not look finished to whoever asks, so that nobody meant
            to replace them.
    """

    run_id: str
    root_run_id: str
    finished: Literal["replace", "reconcile"] = "replace"
    rebuild: bool = False
    work_class: WorkClass = SCHEDULED
    permanent_too: bool = True
    accept_empty: bool = False
    asked_at: datetime | None = None
    unseen: frozenset[tuple[str, date, str | None]] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What came of one partition.

    ``complete`` and ``empty`` are successes; ``partial`` (some leaves are dead letters), ``failed``, ``held``
    (another run has it) and ``stopped`` are not.

    Attributes:
        planned, landed, gone, dead: Leaves; ``landed`` includes those that are ``gone``.
        requests_made: Planned requests that were sent in this run.
        requests_reused: Planned requests that were answered by what had landed before.
        store_requests: Requests sent to the store for it, retries included; 0 where the store is a folder.
        details: What else is worth showing: numbers and short texts.
        reason: Why it did not succeed, in parts; of several dead letters the first one's.
    """

    asset: Asset
    day: date
    troop_key: str | None
    state: State
    mode: Mode = "first"
    message: str = ""
    retryable: bool = False
    harvest_id: str = ""
    rows: int = 0
    planned: int = 0
    landed: int = 0
    gone: int = 0
    dead: int = 0
    requests_made: int = 0
    requests_reused: int = 0
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    store_requests: int = 0
    table_key: str = ""
    table_bytes: int = 0
    quarantined: int = 0
    sample: Sequence[dict[str, Any]] = ()
    details: dict[str, Any] = field(default_factory=dict)
    reason: Reason | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the partition may be shown green."""
        return self.state in SUCCEEDED

    def told_by(self, harvest: HarvestFolder, finish: Finish) -> Outcome:
        """What came of it by the finish marker of an earlier harvest, without its verdict."""
        details = {
            name: value for name, value in finish.details.items() if name not in ("quarantined", FAILURE)
        }
        leaves = {name: getattr(finish, name) for name in ("planned", "landed", "gone", "dead")}
        return replace(
            self,
            harvest_id=harvest.harvest_id,
            requests_reused=finish.requests,
            quarantined=finish.quarantined,
            details=details,
            **leaves,
        )

    def ended_by(self, error: Exception, *, stopping: bool) -> Outcome:
        """What came of it where an error ended it; while ``stopping``, errors of ours are of that."""
        if not isinstance(error, VendorAssetsError):
            short = "no memory was left; give the process more, or let it open fewer partitions at once"
            message = short if isinstance(error, MemoryError) else f"failed unexpectedly: {error!r}"
            return replace(self, state="failed", message=message, reason=reason_of(error))
        state: State = "stopped" if stopping or isinstance(error, StoppedError) else "failed"
        if isinstance(error, PartitionHeldError):
            state = "held"
        refused = isinstance(error, VendorUnauthorizedError) and error.key_refused
        return replace(
            self,
            state=state,
            message=str(error),
            retryable=error.retryable,
            reason=error.reason,
            details={KEY_REFUSED: True} if refused else self.details,
        )


_ENOUGH: Final = 0.1
"""Part of the partitions after which the others are taken to be like them."""


@dataclass(frozen=True)
class Progress:
    """A moment's view of the work of this process.

    Attributes:
        planned: Requests to send, by asset, of harvests opened so far; ``done`` are those of them that are done.
        partitions: Partitions to do in all; ``partitions_done`` are those of them that are decided.
        asked: Partitions to do, by asset; ``begun`` are those of them whose harvest has begun.
        leaves_waiting: Leaves that have not landed, by asset, of harvests opened so far.
        calls_planned: Requests that the whole work was planned to take, where somebody did.
        calls_made: Calls that the vendor has counted of this work.
    """

    planned: dict[str, int]
    done: dict[str, int]
    dead: int
    open_partitions: int
    partitions: int
    partitions_done: int
    asked: dict[str, int]
    begun: dict[str, int]
    leaves_waiting: dict[str, int]
    calls_planned: int | None = None
    calls_made: int = 0

    @property
    def waiting(self) -> int:
        """Planned requests that are not done."""
        return sum(self.planned.values()) - self.calls_done

    @property
    def expected(self) -> int:
        """Requests still to send, exact once all partitions have begun.

        Until then by the plan, or without one as if each other partition needed what those begun have needed, once
        enough have begun: the first may be the largest of all.
        """
        if self.calls_planned is not None:
            begun = all(self.begun.get(asset, 0) >= asked for asset, asked in self.asked.items())
            left = 0 if begun else self.calls_planned - self.calls_done
            return max(self.waiting, left)
        unknown = sum(
            self.planned.get(asset, 0) / begun * (self.asked[asset] - begun)
            for asset, begun in self.begun.items()
            if begun and self._enough(asset)
        )
        return self.waiting + round(unknown)

    @property
    def foreseen(self) -> bool:
        """Whether :attr:`expected` is an estimate of all that is left; otherwise there is more to come."""
        return self.calls_planned is not None or all(map(self._enough, self.asked))

    def _enough(self, asset: str) -> bool:
        """Whether enough partitions have begun to tell what the others need."""
        return self.begun.get(asset, 0) >= self.asked.get(asset, 0) * _ENOUGH

    @property
    def calls_done(self) -> int:
        """Requests that are done."""
        return sum(self.done.values())

    def text(self, pace: float, why: str = "") -> str:
        """One line on how far the work is, at a pace in calls per second, and why at this pace."""
        left = self.expected
        parts = [
            f"{self.calls_done:,} of {'about' if self.foreseen else 'at least'} {self.calls_done + left:,} calls",
            f"{self.partitions_done} of {self.partitions} partitions",
            f"{pace:.3g} calls/s" + (f" ({why})" if why else ""),
        ]
        if self.dead:
            parts.append(f"{counted(self.dead, 'dead letter')}")
        if left and pace and self.foreseen:
            parts.append(f"about {duration_text(left / pace)} left")
        return ", ".join(parts)


def recorded(store: ObjectStore, asset: Asset, day: date, troop_key: str | None) -> Outcome | None:
    """What the store says of a partition: the outcome of its newest finished harvest; None if there is none."""
    newest = newest_finished(list_harvests(store, asset, day, troop_key))
    finish = load_finish(store, newest.folder) if newest else None
    if newest is None or finish is None:
        return None
    key = layout.table_key(asset, day, troop_key)
    head = store.head(key)
    told = Outcome(asset, day, troop_key, finish.ended_as, mode="report", table_key=key)
    return replace(
        told.told_by(newest, finish),
        message=finish.message,
        reason=finish.reason,
        rows=finish.rows if head else 0,
        table_bytes=head.size if head else 0,
    )
