"""Publishing a partition: what has landed becomes a table, then the finish marker says what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from vendor_assets.days import Window
from vendor_assets.errors import (
    HarvestError,
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.harvest.context import HarvestContext
from vendor_assets.harvest.dead_letters import DeadPartition
from vendor_assets.harvest.fetching import Counts
from vendor_assets.harvest.harvests import FAILURE, Finish, HarvestFolder
from vendor_assets.harvest.landing import LandedIndex
from vendor_assets.harvest.outcome import HarvestOptions, Outcome
from vendor_assets.harvest.ownership import Ownership
from vendor_assets.harvest.plans import Plan
from vendor_assets.harvest.tabulate import Tabulated, tabulate, tabulate_roster
from vendor_assets.harvest.upstream import Upstream
from vendor_assets.logs import get_logger
from vendor_assets.presentable import MOST, presentable
from vendor_assets.states import SUCCEEDED, state_of
from vendor_assets.storage import layout
from vendor_assets.storage.changes import compare
from vendor_assets.storage.parquet import TableWriter, read_groups, read_metadata
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets.tables import TABLES

logger = get_logger(__name__)

_ROSTERS_BEFORE: Final = 10
_ROSTER_SHARE: Final = 0.1
"""With less of the troops of the day before, a roster is worth a word."""
CHANGES: Final = ("rows_added", "rows_altered", "rows_removed")
"""Details that say what a harvest changed in its table."""


@dataclass
class LeafCounts:
    """Leaves of a harvest by what became of them; ``gone`` ones have landed too."""

    planned: int
    landed: int
    gone: int = 0
    discarded: int = 0

    @property
    def dead(self) -> int:
        """Those that are neither landed nor discarded."""
        return self.planned - self.landed - self.discarded


@dataclass
class Publisher:
    """Publishes one partition for its owner.

    Attributes:
        base: The outcome so far: which partition it is.
        untouched: Nobody has worked on it before: there is neither a table nor a quarantine.
        table_etag: Of the table that is published; None where there is none.
        roster_refused: Whether :meth:`publish` refused an empty roster.
    """

    context: HarvestContext
    base: Outcome
    window: Window
    ownership: Ownership
    options: HarvestOptions
    upstream: Upstream
    untouched: bool
    table_etag: str | None
    roster_refused: bool = False

    def __post_init__(self) -> None:
        """Name what is used often."""
        self._store = self.context.store
        self._asset, self._day, self._troop_key = self.base.asset, self.base.day, self.base.troop_key

    def publish(
        self,
        outcome: Outcome,
        harvest: HarvestFolder,
        plan: Plan,
        answers: Sequence[LandedIndex],
        tally: LeafCounts,
        letters: DeadPartition,
        counts: Counts,
        before: Finish | None,
    ) -> Outcome:
        """Tabulate, then commit: Parquet, finish marker; the event is the caller's."""
        with self._tabulated(plan, answers) as found:
            if self._asset == "troops" and not found.rows and not found.quarantine.count:
                self._refuse_an_empty_roster()
            dead, rows = tally.dead, found.rows
            self.ownership.confirm_now_and_then()
            if found.quarantine.count or not self.untouched:
                key = layout.quarantine_key(self._asset, self._day, self._troop_key)
                found.quarantine.publish(self._store, key, self.ownership.confirm)
            nothing_fits = bool(found.quarantine.count) and not rows
            partial = bool(dead) or plan.upstream_partial or nothing_fits
            sample = found.sample()
            quiet = self._without_rows(found, plan, tally)
            first = letters.letters[0] if dead and letters.letters else None
            outcome = replace(
                outcome,
                state=state_of(rows, lacking=partial),
                rows=rows,
                planned=tally.planned,
                landed=tally.landed,
                gone=tally.gone,
                dead=dead,
                quarantined=found.quarantine.count,
                details=self._details(found, sample, answers, plan)
                | ({"discarded_leaves": tally.discarded} if tally.discarded else {})
                | ({"data_groups_without_rows": quiet} if quiet else {})
                | ({"first_dead_letter": presentable(first.reason)} if first else {}),
                sample=sample,
            )
            nothing = bool(dead) and not tally.landed
            keeps_old = partial and self.table_etag is not None and self._old_table_is_complete()
            table_bytes: int | None = None
            if not nothing and not keeps_old:
                outcome = replace(outcome, details=outcome.details | self._changes(found))
                table_bytes = self._write(outcome, found, harvest.folder)
            finish = Finish(
                state=outcome.state,
                planned=outcome.planned,
                landed=outcome.landed,
                gone=outcome.gone,
                dead=outcome.dead,
                requests=plan.request_count,
                calls=counts.calls + (before.calls if before else 0),
                rows=rows,
                root_run=self.options.root_run_id,
                epoch=self.ownership.epoch,
                finished_at=self.context.now(),
                table_etag=self.table_etag or "",
                details=outcome.details
                | {"quarantined": outcome.quarantined}
                | ({FAILURE: asdict(first.why)} if first else {}),
                answers=len(answers),
                later_pages=sum(1 for entry in answers if entry.page > 1),
            )
            self._mark_finished(harvest, finish)
            outcome = replace(outcome, message=finish.message, reason=finish.reason)
            if nothing:
                outcome = replace(outcome, state="failed", rows=0, sample=())
            if table_bytes is not None:
                return replace(outcome, table_bytes=table_bytes)
            return self.with_table(outcome)

    def _refuse_an_empty_roster(self) -> None:
        """End the harvest where an account that had troops has none: most likely the key sees nothing any more."""
        day, before = self._roster_before()
        if not before or self.options.accept_empty or self.options.rebuild:
            return
        self.roster_refused = True
        message = (
            f"the vendor lists no troop for {self._day}, but on {day} there were {before}: nothing is published; check "
            f"what VENDOR_API_KEY may see, or accept it: vendor-assets harvest --day {self._day} --accept-empty-roster"
        )
        raise HarvestError(message)

    def _roster_before(self) -> tuple[date, int]:
        """Of the last ten rosters before this day the newest that was not empty: its day, and how many were on it."""
        keys = {
            layout.parse_table_key(info.key)[1]: info.key
            for info in self._store.list(layout.table_prefix("troops"))
        }
        for day in sorted((day for day in keys if day < self._day), reverse=True)[:_ROSTERS_BEFORE]:
            _, rows = read_metadata(self._store, keys[day])
            if rows:
                return day, rows
        return self._day, 0

    def _roster_note(self, rows: int) -> str:
        """What is odd about how many there are; empty where nothing is."""
        if self._asset == "warriors":
            if rows or self._troop_key is None:
                return ""
            try:
                yesterday = layout.table_key("warriors", self._day - timedelta(days=1), self._troop_key)
                _, before = read_metadata(self._store, yesterday)
            except ObjectNotFoundError:
                return ""
            return (
                f"the troop has no warrior on {self._day}, the day before it had {before}" if before else ""
            )
        day, before = self._roster_before()
        if not rows and not before:
            return (
                "the account has no troop, nothing is harvested: does VENDOR_API_KEY see the right account?"
            )
        if rows < _ROSTER_SHARE * before:
            return f"{rows} troops on {self._day}, on {day} there were {before}: check what VENDOR_API_KEY may see"
        return ""

    def _tabulated(self, plan: Plan, answers: Sequence[LandedIndex]) -> AbstractContextManager[Tabulated]:
        if self._asset in ("troops", "warriors"):
            sightings = [
                entry
                for entry in self.context.sightings(self._day)
                if entry.asset == self._asset and (self._asset == "troops" or entry.troop_id == plan.troop_id)
            ]
            return tabulate_roster(
                self._asset,
                store=self._store,
                vendor=self.context.vendor,
                # Every sighting counts, not only the newest: what has vanished since is on the older ones.
                answers=sorted([*answers, *sightings], key=lambda entry: entry.fetched_at),
                troop_id=plan.troop_id,
                window=self.window,
                previous=self.base.table_key if self.table_etag else None,
                troop_keys=TroopKeys(self.context.store).assign,
                stopping=self.context.stop.is_set,
            )
        return tabulate(
            self._asset,
            store=self._store,
            vendor=self.context.vendor,
            answers=answers,
            troop_id=plan.troop_id,
            window=self.window,
            stopping=self.context.stop.is_set,
        )

    def _details(
        self,
        found: Tabulated,
        sample: list[dict[str, Any]],
        answers: Sequence[LandedIndex],
        plan: Plan,
    ) -> dict[str, Any]:
        # People know a troop by its name of today; its partition key has the first one.
        name = self.upstream.troop_name() if self._troop_key else ""
        details: dict[str, Any] = {"troop": presentable(name)} if name else {}
        if found.new_fields:
            details["new_fields"] = [presentable(field, 100) for field in sorted(found.new_fields)[:MOST]]
            details["new_fields_in_all"] = len(found.new_fields)
        if found.not_found:
            details["data_groups_unknown_to_the_vendor"] = len(found.not_found)
        if found.duplicates:
            details["duplicate_rows_dropped"] = found.duplicates
        if self._asset in ("troops", "warriors"):
            later = [batch.column("observed_later").true_count for batch in found.batches()]
            details["observed_later"] = bool(found.rows) and sum(later) == found.rows
        details |= {f"{level}_left_out": count for level, count in plan.left_out.items() if count}
        if plan.filters and self._troop_key:
            details["filters"] = " ".join(f"{setting}={text}" for setting, text in plan.filters.items())
        if plan.left_out.get("troops"):
            details["note"] = self.upstream.left_out_text()
        elif self._asset == "warriors" and not plan.request_count:
            details["note"] = (
                f"troop {self._troop_key} was not on the roster of {self._day}: 0 rows, no calls"
            )
        if self._asset in ("troops", "warriors") and not details.get("note"):
            note = self._roster_note(found.rows)
            details |= {"note": note} if note else {}
        if self._asset == "performance_data":
            settled = self.window.end.timestamp() + self.context.settling_seconds
            early = sum(1 for entry in answers if entry.fetched_at.timestamp() < settled)
            if early:
                details["provisional_answers"] = early
            if sample:
                length = sample[0]["timeslice_end"] - sample[0]["timeslice_start"]
                details["resolution_seconds"] = int(length.total_seconds())
        return details

    def _without_rows(self, found: Tabulated, plan: Plan, tally: LeafCounts) -> int:
        """How many data groups were listed and answered, and have no row on the whole day.

        Not told where that has another reason: some are dead or gone, or others were answered in an older harvest.
        """
        if self._asset != "performance_data" or tally.dead or tally.gone or tally.discarded or plan.bases:
            return 0
        # Both are in the order of warriors, so that neither is in memory as a whole.
        leaves = (leaf for planned in plan.requests() for leaf in planned.leaves)
        of_warrior = groupby(leaves, key=lambda leaf: leaf.warrior_id)
        return sum(len({leaf.data_group for leaf in group}) for _, group in of_warrior) - found.data_groups()

    def _changes(self, found: Tabulated) -> dict[str, int]:
        """What changes in the performance data of a partition that has a table already: late data, for the most."""
        if self._asset != "performance_data" or self.table_etag is None:
            return {}
        spec = TABLES[self._asset]
        try:
            changes = compare(
                spec,
                read_groups(self._store, self.base.table_key, spec.schema.names),
                (pa.Table.from_batches([batch]) for batch in found.batches()),
            )
        except (StorageError, pa.ArrowException) as error:
            logger.warning("What changes cannot be told, the present table is not readable: %s", error)
            return {}
        return dict(zip(CHANGES, (changes.added, changes.altered, changes.removed), strict=True))

    def _write(self, outcome: Outcome, found: Tabulated, folder: str) -> int:
        """Write the table in place of the one that was seen, and return its size in bytes."""
        metadata = {
            "state": outcome.state,
            "harvest": folder,
            **{name: str(getattr(outcome, name)) for name in ("planned", "landed", "gone", "dead")},
            "vendor": self.context.vendor.kind,
            "source": self._store.source,
        }
        spec = TABLES[self._asset]
        while True:
            self.ownership.confirm_now_and_then()
            try:
                with TableWriter(
                    self._store,
                    self.base.table_key,
                    spec,
                    metadata=metadata,
                    if_absent=self.table_etag is None,
                    if_match=self.table_etag,
                    in_order=True,
                ) as writer:
                    for batch in found.batches():
                        writer.write(batch)
            except ObjectConflictError:
                # Whoever wrote has an older epoch, if ours still counts: look again and replace it.
                head = self._store.head(self.base.table_key)
                self.table_etag = head.etag if head else None
                self.ownership.confirm()
            else:
                self.table_etag = writer.etag
                return writer.bytes

    def _mark_finished(self, harvest: HarvestFolder, finish: Finish) -> None:
        """Write the finish marker in place of the one that was seen while nobody else could write one.

        The epoch is proved last: whoever takes over later writes another version, and this one fails. Where there is no
        marker yet, that proof is the release: whoever comes in between resumes what has landed.
        """
        key, etag = layout.finish_key(harvest.folder), harvest.finish_etag
        prove = self.ownership.confirm if etag else self.ownership.release_to_finish
        while True:
            prove()
            try:
                self._store.put(key, finish.to_json(), if_absent=etag is None, if_match=etag)
            except ObjectConflictError:
                head = self._store.head(key)
                etag = head.etag if head else None
                prove = self.ownership.confirm
            else:
                return

    def _old_table_is_complete(self) -> bool:
        try:
            metadata, _ = read_metadata(self._store, self.base.table_key)
        except StorageUnavailableError:
            raise
        except StorageError as error:
            logger.warning("The present table is replaced: %s", error)
            return False
        return metadata.get("state") in SUCCEEDED

    def with_table(self, outcome: Outcome) -> Outcome:
        """The outcome with what the published table itself says."""
        head = self._store.head(self.base.table_key)
        if head is None:
            return outcome
        if outcome.sample:
            return replace(outcome, table_bytes=head.size)
        _, rows = read_metadata(self._store, self.base.table_key)
        return replace(outcome, table_bytes=head.size, rows=rows)
