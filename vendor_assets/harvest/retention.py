"""Retention: landed responses of partitions that are complete are removed when they are old.

Plan, finish marker and table stay, so that a partition goes on being complete; a ``removed`` record in each harvest's
folder says that its answers are gone, and why.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from vendor_assets.errors import ObjectNotFoundError, PartitionHeldError, RecordError, StoppedError
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.harvests import HarvestFolder, list_harvests, load_finish
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.harvest.ownership import Liveness, Ownership, acquire
from vendor_assets.logs import get_logger
from vendor_assets.presentable import counted
from vendor_assets.states import SUCCEEDED
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.reading import json_object, understanding
from vendor_assets.storage.roster import Roster
from vendor_assets.vendors.base import Asset

logger = get_logger(__name__)


@dataclass
class Removal:
    """What was removed.

    Attributes:
        objects: Chunks of answers, and sightings.
        bytes: Their size in the store.
        kept: Troops' days, rosters and days with sightings that are old enough and were kept, by reason.
    """

    partitions: int = 0
    objects: int = 0
    bytes: int = 0
    sightings: int = 0
    kept: Counter[str] = field(default_factory=Counter)

    def numbers(self) -> dict[str, int]:
        """All counts, for a run's metadata."""
        counts = {name: getattr(self, name) for name in ("partitions", "objects", "bytes", "sightings")}
        return {f"removed_{name}": count for name, count in counts.items()} | {
            f"kept_{reason.replace(' ', '_')}": count for reason, count in sorted(self.kept.items())
        }

    def __str__(self) -> str:
        kept = ", ".join(f"{count} {reason}" for reason, count in sorted(self.kept.items()))
        return (
            f"removed {counted(self.objects, 'object')} ({counted(self.bytes, 'byte')}) of "
            f"{counted(self.partitions, 'partition')}, "
            f"{self.sightings} of them sightings; kept: {kept or 'none'}"
        )


@dataclass
class Retention:
    """Removes what landed more than ``days`` ago.

    Attributes:
        holder: The run that removes.
        liveness: Tells whether other runs are alive.
        stop: Tells that the run shall end.
    """

    store: ObjectStore
    days: int
    now: datetime
    holder: str
    liveness: Liveness
    stop: Callable[[], bool]

    def __post_init__(self) -> None:
        """Nothing is removed yet."""
        self._before = self.now - timedelta(days=self.days)
        self._removal = Removal()

    def run(self) -> Removal:
        """Remove what may go.

        Raises:
            StoppedError: The run shall end; what was removed is recorded.
        """
        for assets in (("troops",), CHAIN):
            days = {day for asset in assets for day in self._old_days(f"raw_data/{asset}/")}
            for day in sorted(days):
                troops = {key for asset in assets for key in self._old_partitions(asset, day)}
                for troop_key in sorted(troops, key=str):
                    if self.stop():
                        raise StoppedError("the run was stopped; the next one goes on removing")
                    self._chain(assets, day, troop_key)
        for day in self._old_days("raw_data/sightings/"):
            self._sightings(day)
        return self._removal

    def _old_days(self, prefix: str) -> Iterator[date]:
        """Days with something that may be old: nothing lands before its day begins."""
        for name in self.store.folders(prefix):
            day = layout.day_of_folder(name)
            if day is not None and day <= self._before.date():
                yield day

    def _old_partitions(self, asset: Asset, day: date) -> set[str | None]:
        """Partitions of a day with answers that are old."""
        prefix = layout.harvest_prefix(asset, day)
        found: set[str | None] = set()
        for info in self.store.list(prefix):
            *troop, _harvest, name = ("", *info.key.removeprefix(prefix).split("/"))
            if troop and name.startswith("chunk-") and info.modified < self._before:
                found.add(layout.troop_of_folder(troop[-1]))
        return found

    def _chain(self, assets: tuple[Asset, ...], day: date, troop_key: str | None) -> None:
        """Remove the answers of one troop's day, or keep those of all its assets: they are rebuilt together."""
        try:
            reasons = (self._why_kept(asset, day, troop_key) for asset in assets)
            reason = next((why for why in reasons if why), "")
            for asset in assets if not reason else ():
                reason = reason or self._partition(asset, day, troop_key)
        except RecordError as error:
            logger.warning("answers of %s %s are kept: %s", day, troop_key or "", error)
            reason = "damaged"
        if reason:
            self._removal.kept[reason] += 1

    def _partition(self, asset: Asset, day: date, troop_key: str | None) -> str:
        prefix = layout.harvest_prefix(asset, day, troop_key)
        try:
            ownership = acquire(self.store, prefix, self.holder, self.liveness, stop=self.stop)
        except PartitionHeldError:
            return "being harvested"
        try:
            # Somebody may have had it in between.
            reason = self._why_kept(asset, day, troop_key)
            if not reason:
                self._remove(list_harvests(self.store, asset, day, troop_key), ownership)
            return reason
        except PartitionHeldError:
            return "being harvested"
        finally:
            ownership.release()

    def _why_kept(self, asset: Asset, day: date, troop_key: str | None) -> str:
        """Why a partition's answers stay; empty when they may go."""
        harvests = [
            harvest
            for harvest in list_harvests(self.store, asset, day, troop_key)
            if harvest.has_plan or harvest.chunks
        ]
        if not harvests or not harvests[-1].finish_etag:
            return "unfinished"
        finish = load_finish(self.store, harvests[-1].folder)
        if finish is None or finish.ended_as not in SUCCEEDED or finish.dead:
            return "unfinished"
        if finish.finished_at >= self._before:
            return "young"
        if DeadLetters(self.store).load(asset, day, troop_key).letters:
            return "with dead letters"
        if finish.quarantined:
            return "with records in quarantine"
        if finish.details.get("provisional_answers"):
            return "provisional"
        head = self.store.head(layout.table_key(asset, day, troop_key))
        if head is None or head.etag != finish.table_etag:
            return "without their table"
        return ""

    def _remove(self, harvests: list[HarvestFolder], ownership: Ownership) -> None:
        if not any(harvest.chunks for harvest in harvests):
            return
        before = self._removal.objects
        # The newest says it, too, where all that it is about lies in older ones.
        for harvest in reversed(harvests):
            sizes = [info.size for key in harvest.chunks if (info := self.store.head(key)) is not None]
            record: dict[str, Any] = {
                "removed_at": self.now.isoformat(),
                "retention_days": self.days,
                "chunks": len(sizes),
                "bytes": sum(sizes),
            }
            # First the record: after a kill in between nobody takes what is left for all there was.
            ownership.confirm()
            self.store.put(layout.removed_key(harvest.folder), json.dumps(record).encode())
            for key in harvest.chunks:
                ownership.confirm_now_and_then()
                self.store.delete(key)
            self._removal.objects += len(sizes)
            self._removal.bytes += sum(sizes)
        self._removal.partitions += self._removal.objects > before

    def _sightings(self, day: date) -> None:
        """Remove a day's sightings once its rosters are complete: until then they are all that knows who vanished."""
        infos = list(self.store.list(layout.sightings_prefix(day)))
        old = [info for info in infos if info.modified < self._before]
        if not old:
            return
        if not self._rosters_are_complete(day):
            self._removal.kept["sightings of a day without rosters"] += 1
            return
        for info in old:
            self.store.delete(info.key)
            self._removal.objects += 1
            self._removal.sightings += 1
            self._removal.bytes += info.size

    def _rosters_are_complete(self, day: date) -> bool:
        if self._why_kept("troops", day, None):
            return False
        try:
            troops = Roster.read(self.store, day).troops
        except ObjectNotFoundError:
            return False
        return not any(self._why_kept("warriors", day, troop.key) for troop in troops)


def removal_of(store: ObjectStore, harvest: HarvestFolder) -> str:
    """When a harvest's answers were removed, and by which setting."""
    key = layout.removed_key(harvest.folder)
    try:
        data = store.get(key)
        with understanding(store, key, "record", ""):
            record = json_object(data, removed_at=str, retention_days=int)
    except (ObjectNotFoundError, RecordError):
        return "were removed"
    return f"were removed on {record['removed_at'][:10]} (VENDOR_ASSETS_RETENTION={record['retention_days']})"
