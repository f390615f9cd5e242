"""One partition's harvest: from whatever state it is in to complete, in the mode that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from vendor_assets.days import Window
from vendor_assets.errors import HarvestError, ObjectConflictError, ObjectNotFoundError
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.fetching import Counts, Fetcher, Work, pending_items
from vendor_assets.harvest.landing import (
    Finish,
    HarvestFolder,
    LandedIndex,
    Lander,
    Plan,
    decode_request,
    list_harvests,
    load_finish,
    load_plan,
    read_index,
)
from vendor_assets.harvest.outcome import Mode, Order, Outcome, message_of, state_of
from vendor_assets.harvest.ownership import Ownership
from vendor_assets.harvest.tabulate import (
    Tabulated,
    newest_answers,
    quarantine_bytes,
    tabulate,
    tabulate_roster,
)
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_metadata, read_table, write_table
from vendor_assets.tables import TABLES
from vendor_assets.vendors.base import Asset, DataGroup, PlannedRequest, Request, Vendor


@dataclass(frozen=True)
class Tools:
    """What a run gives to all of its partitions.

    Attributes:
        watch: Called with each piece of fetching that begins, for whoever shows progress.
        sightings: Everything that was sighted on a day.
    """

    store: ObjectStore
    vendor: Vendor
    fetcher: Fetcher
    resolution_seconds: int
    settling_seconds: float
    flush_seconds: float
    now: Callable[[], datetime]
    watch: Callable[[Work], None]
    sightings: Callable[[date], list[LandedIndex]]

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters in the store."""
        return DeadLetters(self.store)

    def work(
        self,
        asset: Asset,
        troop_id: str,
        lander: Lander,
        requests: Sequence[PlannedRequest],
        resume_at: dict[str, tuple[int, Request]],
        order: Order,
    ) -> Work:
        """What the fetcher shall do for one partition."""
        work = Work(asset, troop_id, lander, pending_items(requests, resume_at), work_class=order.work_class)
        self.watch(work)
        return work


class PartitionHarvest:
    """The harvest of one partition by its owner.

    Args:
        tools: What the run gives to all of its partitions.
        base: The outcome so far: which partition it is.
        window: The day.
        ownership: The right to commit.
        order: Who asks, and for what.
    """

    def __init__(
        self, tools: Tools, base: Outcome, window: Window, ownership: Ownership, order: Order
    ) -> None:
        self.tools = tools
        self.store = tools.store
        self.vendor = tools.vendor
        self.base = base
        self.asset: Asset = base.asset
        self.day = base.day
        self.troop_key = base.troop_key
        self.window = window
        self.ownership = ownership
        self.order = order
        head = self.store.head(base.table_key)
        self.table_etag = head.etag if head else None

    def run(self) -> Outcome:
        """Choose the mode by what is in the store and who asks, and do it.

        Raises:
            VendorAssetsError: The harvest did not come to its end; what has landed stays, the next run resumes.
        """
        harvests = list_harvests(self.store, self.asset, self.day, self.troop_key)
        finished = [harvest for harvest in harvests if harvest.finish_etag]
        current = finished[-1] if finished else None
        newer = harvests[harvests.index(current) + 1 :] if current else harvests
        unfinished = [harvest for harvest in newer if harvest.has_plan]
        finish = load_finish(self.store, current.folder) if current else None
        if self.order.rebuild:
            if current is None or finish is None:
                message = f"nothing to rebuild {self.asset} of {self.day} from: no finished harvest; harvest it first"
                raise HarvestError(message)
            return self._report("rebuild", current, finish, tabulate_again=True)
        if unfinished:
            return self._fetch("resume", unfinished[-1].folder, load_plan(self.store, unfinished[-1].folder))
        if current is None or finish is None:
            return self._fetch_new("first", self._plan(frozenset()))
        if finish.root_run == self.order.root_run_id:
            return self._report("report", current, finish, tabulate_again=self.table_etag is None)
        dead = self.tools.dead_letters.load(self.asset, self.day, self.troop_key)
        if any(letter.retryable or self.order.permanent_too for letter in dead.letters):
            return self._redrive(current, finish, dead)
        if self.order.finished == "replace":
            return self._fetch_new("replace", self._plan(frozenset()))
        return self._reconcile(current, finish)

    # The modes

    def _fetch_new(self, mode: Mode, plan: Plan) -> Outcome:
        harvest_id = layout.new_ulid(self.tools.now())
        folder = layout.harvest_folder(self.asset, self.day, self.troop_key, harvest_id)
        self.store.put(layout.plan_key(folder), plan.to_bytes(), if_absent=True)
        return self._fetch(mode, folder, plan)

    def _reconcile(self, current: HarvestFolder, finish: Finish) -> Outcome:
        old = load_plan(self.store, current.folder)
        bases = (*old.bases, current.folder)
        known = self._answered(self._index(bases), counted_at=None)
        plan = self._plan(frozenset(known))
        if not plan.requests:
            again = self.table_etag is None
            return self._report("reconcile", current, finish, tabulate_again=again)
        return self._fetch_new("reconcile", replace(plan, bases=bases))

    def _redrive(self, current: HarvestFolder, finish: Finish, dead: DeadPartition) -> Outcome:
        plan = load_plan(self.store, current.folder)
        waiting = (
            () if self.order.permanent_too else [letter for letter in dead.letters if not letter.retryable]
        )
        left = frozenset(leaf for letter in waiting for leaf in letter.leaves)
        return self._fetch("redrive", current.folder, plan, before=finish, left=left)

    def _report(self, mode: Mode, current: HarvestFolder, finish: Finish, *, tabulate_again: bool) -> Outcome:
        plan = load_plan(self.store, current.folder)
        outcome = replace(
            self.base,
            mode=mode,
            harvest_id=current.harvest_id,
            planned=finish.planned,
            landed=finish.landed,
            gone=finish.gone,
            dead=finish.dead,
            requests_reused=finish.requests,
            details=dict(finish.details),
        )
        if tabulate_again:
            index = self._index((*plan.bases, current.folder))
            return self._publish(outcome, current.folder, plan, index, Counts(), before=finish)
        return self._with_table(replace(outcome, state=state_of(finish), message=message_of(finish)))

    def _fetch(
        self,
        mode: Mode,
        folder: str,
        plan: Plan,
        *,
        before: Finish | None = None,
        left: frozenset[str] = frozenset(),
    ) -> Outcome:
        """Fetch what of a plan has not landed, except the leaves that are ``left`` alone, then publish."""
        chunks = [
            info.key for info in self.store.list(folder) if info.key.removeprefix(folder).startswith("chunk-")
        ]
        index = self._index(plan.bases) + read_index(self.store, chunks)
        answered = self._answered(index, counted_at=None)
        letters = self.tools.dead_letters.load(self.asset, self.day, self.troop_key)
        settled = answered | left | letters.discarded_leaves
        todo = [
            planned for planned in plan.requests if any(leaf.key not in settled for leaf in planned.leaves)
        ]
        writer = f"{self.ownership.epoch:04d}"
        lander = Lander(
            self.store,
            lambda n: layout.chunk_key(folder, writer, n),
            max_seconds=self.tools.flush_seconds,
            # One that was stopped for a while and superseded notices here, before it pays for much.
            confirm=self.ownership.confirm,
        )
        work = self.tools.work(
            self.asset, plan.troop_id, lander, todo, _resume_at(index, answered), self.order
        )
        self.tools.fetcher.run(work)
        if work.failure is not None:
            raise work.failure
        index += read_index(self.store, lander.keys)
        outcome = replace(
            self.base,
            mode=mode,
            harvest_id=folder.rstrip("/").rsplit("/h-", 1)[-1],
            planned=plan.leaves,
            requests_made=len(todo),
            requests_reused=len(plan.requests) - len(todo),
            counts=work.counts,
        )
        self._save_dead(letters, {planned.request.key for planned in todo}, work.dead)
        return self._publish(
            outcome, folder, plan, index, work.counts, before=before, fresh=frozenset(lander.keys)
        )

    def _save_dead(self, before: DeadPartition, asked: set[str], failed: Sequence[DeadLetter]) -> None:
        """Keep what failed now, and what had failed and was not asked again."""
        if not failed and not before.letters:
            return

        def after(current: DeadPartition) -> DeadPartition:
            known = {letter.request: letter for letter in current.letters}
            untouched = [letter for letter in current.letters if letter.request not in asked]
            again = [known[item.request].again(item) if item.request in known else item for item in failed]
            return replace(current, letters=(*untouched, *again))

        self.tools.dead_letters.change(before, after, confirm=self.ownership.confirm)

    # Planning

    def _plan(self, known: frozenset[str]) -> Plan:
        """The work of this partition from the upstream table, without leaves that are known already."""
        troop_id, requests, upstream_partial = "", [], False
        if self.asset == "troops":
            requests = [self.vendor.troops(self.window)]
        else:
            troop_id = self._troop_id()
            if self.asset == "warriors":
                requests = [self.vendor.warriors(troop_id, self.window)] if self._on_roster() else []
                _, upstream_partial = self._upstream("troops", None)
            elif self.asset == "data_groups":
                rows, upstream_partial = self._upstream("warriors", self.troop_key)
                requests = [self.vendor.data_groups(troop_id, row["warrior_id"], self.window) for row in rows]
            else:
                rows, upstream_partial = self._upstream("data_groups", self.troop_key)
                groups: dict[str, list[DataGroup]] = {}
                for row in rows:
                    group = DataGroup(row["data_group"], tuple(row["value_names"]))
                    groups.setdefault(row["warrior_id"], []).append(group)
                for warrior_id, of_warrior in groups.items():
                    requests += self._performance_requests(troop_id, warrior_id, of_warrior, known)
        wanted = [planned for planned in requests if any(leaf.key not in known for leaf in planned.leaves)]
        return Plan(
            asset=self.asset,
            day=self.day,
            troop_key=self.troop_key,
            troop_id=troop_id,
            requests=tuple(wanted),
            resolution_seconds=self.tools.resolution_seconds,
            created_at=self.tools.now(),
            upstream_partial=upstream_partial,
        )

    def _performance_requests(
        self, troop_id: str, warrior_id: str, groups: list[DataGroup], known: frozenset[str]
    ) -> list[PlannedRequest]:
        def plan(chosen: list[DataGroup]) -> list[PlannedRequest]:
            return self.vendor.performance_data(
                troop_id, warrior_id, chosen, self.window, self.tools.resolution_seconds
            )

        requests = plan(groups)
        if not known:
            return requests
        missing = {
            leaf.data_group for planned in requests for leaf in planned.leaves if leaf.key not in known
        }
        # Grouped anew, so that a batch does not ask again for what has landed beside what has not.
        return plan([group for group in groups if group.name in missing]) if missing else []

    def _upstream(self, asset: Asset, troop_key: str | None) -> tuple[list[dict[str, Any]], bool]:
        key = layout.table_key(asset, self.day, troop_key)
        try:
            metadata, _ = read_metadata(self.store, key)
            rows: list[dict[str, Any]] = read_table(self.store, key).to_pylist()
        except ObjectNotFoundError as error:
            where = f"{self.day}" + (f", troop {troop_key}" if troop_key else "")
            message = f"{asset} of {where} is not there ({self.store.uri(key)}); materialize {asset} first"
            raise HarvestError(message) from error
        return rows, metadata.get("state") == "partial"

    def _troop_id(self) -> str:
        row = self._roster_row()
        return row["troop_id"] if row else layout.decode_segment(str(self.troop_key))

    def _on_roster(self) -> bool:
        return self._roster_row() is not None

    def _troop_name(self) -> str:
        try:
            row = self._roster_row()
        except HarvestError:
            return ""
        return str(row["name"] or "") if row else ""

    def _roster_row(self) -> dict[str, Any] | None:
        rows, _ = self._upstream("troops", None)
        return next((row for row in rows if row["troop_key"] == self.troop_key), None)

    # Coverage

    def _index(self, folders: Sequence[str]) -> list[LandedIndex]:
        keys = [
            info.key
            for folder in folders
            for info in self.store.list(folder)
            if info.key.removeprefix(folder).startswith("chunk-")
        ]
        return read_index(self.store, keys)

    def _answered(self, index: Sequence[LandedIndex], counted_at: frozenset[str] | None) -> set[str]:
        """Keys of the leaves whose answers have landed with all their pages.

        Provisional answers, fetched before the data had settled, count only where they lie in one of the
        chunks ``counted_at``: those of this very run.
        """
        settled = self.window.end.timestamp() + self.tools.settling_seconds
        pages: dict[str, dict[int, LandedIndex]] = {}
        for entry in newest_answers(index):
            provisional = self.asset == "performance_data" and entry.fetched_at.timestamp() < settled
            if not provisional or (counted_at is not None and entry.chunk in counted_at):
                pages.setdefault(entry.request_key, {})[entry.page] = entry
        answered: set[str] = set()
        for of_request in pages.values():
            last = 0
            while last + 1 in of_request and (last == 0 or of_request[last].next is not None):
                last += 1
            if last and of_request[last].next is None:
                answered.update(of_request[last].leaves)
        return answered

    # Publishing

    def _publish(
        self,
        outcome: Outcome,
        folder: str,
        plan: Plan,
        index: Sequence[LandedIndex],
        counts: Counts,
        *,
        before: Finish | None = None,
        fresh: frozenset[str] = frozenset(),
    ) -> Outcome:
        """Tabulate, then commit: Parquet, finish marker; the event is the caller's."""
        counted = fresh | {entry.chunk for entry in index} if before is not None and not fresh else fresh
        answered = self._answered(index, counted_at=counted)
        wanted = {leaf.key for planned in plan.requests for leaf in planned.leaves}
        of_bases = self._base_leaves(plan)
        landed = (wanted & answered) | of_bases
        planned = wanted | of_bases
        letters = self.tools.dead_letters.load(self.asset, self.day, self.troop_key)
        discarded = len((planned - landed) & letters.discarded_leaves)
        dead = len(planned - landed) - discarded
        answers = newest_answers(index)
        gone = len({key for entry in answers if entry.status in (404, 410) for key in entry.leaves})
        found = self._tabulate(plan, answers)
        self.ownership.confirm()
        if found.quarantined:
            self.store.put(
                layout.quarantine_key(self.asset, self.day, self.troop_key),
                quarantine_bytes(found.quarantined),
            )
        else:
            self.store.delete(layout.quarantine_key(self.asset, self.day, self.troop_key))
        rows = found.table.num_rows
        partial = bool(dead) or plan.upstream_partial
        outcome = replace(
            outcome,
            state="partial" if partial else "complete" if rows else "empty",
            rows=rows,
            planned=len(planned),
            landed=len(landed),
            gone=gone,
            dead=dead,
            quarantined=len(found.quarantined),
            details=self._details(found, answers, plan)
            | ({"discarded_leaves": discarded} if discarded else {})
            | ({"first_dead_letter": letters.letters[0].reason} if dead and letters.letters else {}),
            sample=found.table.slice(0, 5).to_pylist(),
        )
        nothing = bool(dead) and not landed
        keeps_old = partial and self.table_etag is not None and self._old_table_is_complete()
        if not nothing and not keeps_old:
            self._write(outcome, found, folder)
        finish = Finish(
            state=outcome.state,
            planned=outcome.planned,
            landed=outcome.landed,
            gone=outcome.gone,
            dead=outcome.dead,
            requests=len(plan.requests),
            calls=counts.calls + (before.calls if before else 0),
            rows=rows,
            root_run=self.order.root_run_id,
            epoch=self.ownership.epoch,
            finished_at=self.tools.now(),
            table_etag=self.table_etag or "",
            details=outcome.details | {"quarantined": outcome.quarantined},
        )
        self._mark_finished(folder, finish)
        message = message_of(finish)
        if nothing:
            outcome = replace(outcome, state="failed", message=message, rows=0, sample=())
        return self._with_table(replace(outcome, message=message))

    def _base_leaves(self, plan: Plan) -> set[str]:
        """Leaves of the plan's bases that had landed there: a reconcile's table has them too."""
        if not plan.bases:
            return set()
        return self._answered(self._index(plan.bases), counted_at=None)

    def _tabulate(self, plan: Plan, answers: list[LandedIndex]) -> Tabulated:
        if self.asset in ("troops", "warriors"):
            sightings = [
                entry
                for entry in self.tools.sightings(self.day)
                if entry.asset == self.asset and (self.asset == "troops" or entry.troop_id == plan.troop_id)
            ]
            return tabulate_roster(
                self.asset,
                store=self.store,
                vendor=self.vendor,
                # Every sighting counts, not only the newest: what has vanished since is on the older ones.
                answers=sorted([*answers, *sightings], key=lambda entry: entry.fetched_at),
                troop_id=plan.troop_id,
                window=self.window,
                previous=self.base.table_key,
                troop_key=layout.encode_segment,
            )
        return tabulate(
            self.asset,
            store=self.store,
            vendor=self.vendor,
            answers=answers,
            troop_id=plan.troop_id,
            window=self.window,
        )

    def _details(self, found: Tabulated, answers: Sequence[LandedIndex], plan: Plan) -> dict[str, Any]:
        # The partition key is the vendor's id; people know a troop by its name.
        name = self._troop_name() if self.troop_key else ""
        details: dict[str, Any] = {"troop": name} if name else {}
        if found.new_fields:
            details["new_fields"] = sorted(found.new_fields)
        if found.not_found:
            details["data_groups_unknown_to_the_vendor"] = len(found.not_found)
        if found.duplicates:
            details["duplicate_rows_dropped"] = found.duplicates
        if self.asset in ("troops", "warriors"):
            table = found.table
            later = bool(table.num_rows) and all(table.column("observed_later").to_pylist())
            details["observed_later"] = later
        if self.asset == "warriors" and not plan.requests:
            details["note"] = f"troop {self.troop_key} was not on the roster of {self.day}: 0 rows, no calls"
        if self.asset == "performance_data":
            settled = self.window.end.timestamp() + self.tools.settling_seconds
            early = sum(1 for entry in answers if entry.fetched_at.timestamp() < settled)
            if early:
                details["provisional_answers"] = early
            if found.table.num_rows:
                row = found.table.slice(0, 1).to_pylist()[0]
                details["resolution_seconds"] = int(
                    (row["timeslice_end"] - row["timeslice_start"]).total_seconds()
                )
        return details

    def _write(self, outcome: Outcome, found: Tabulated, folder: str) -> None:
        metadata = {
            "state": outcome.state,
            "harvest": folder,
            "planned": str(outcome.planned),
            "landed": str(outcome.landed),
            "gone": str(outcome.gone),
            "dead": str(outcome.dead),
            "vendor": self.vendor.kind,
        }
        spec = TABLES[self.asset]
        while True:
            self.ownership.confirm()
            try:
                self.table_etag = write_table(
                    self.store,
                    self.base.table_key,
                    found.table,
                    spec,
                    metadata=metadata,
                    if_absent=self.table_etag is None,
                    if_match=self.table_etag,
                )
            except ObjectConflictError:
                # Whoever wrote had an older epoch (ours is confirmed above): look again and replace it.
                head = self.store.head(self.base.table_key)
                self.table_etag = head.etag if head else None
            else:
                return

    def _mark_finished(self, folder: str, finish: Finish) -> None:
        key = layout.finish_key(folder)
        while True:
            # Looked at before the epoch is confirmed: whoever takes over later writes another version.
            head = self.store.head(key)
            self.ownership.confirm()
            try:
                self.store.put(
                    key, finish.to_json(), if_absent=head is None, if_match=head.etag if head else None
                )
            except ObjectConflictError:
                continue
            return

    def _old_table_is_complete(self) -> bool:
        metadata, _ = read_metadata(self.store, self.base.table_key)
        return metadata.get("state") in ("complete", "empty")

    def _with_table(self, outcome: Outcome) -> Outcome:
        """The outcome with what the published table itself says."""
        head = self.store.head(self.base.table_key)
        if head is None:
            return outcome
        if outcome.sample:
            return replace(outcome, table_bytes=head.size)
        _, rows = read_metadata(self.store, self.base.table_key)
        return replace(outcome, table_bytes=head.size, rows=rows)


def _resume_at(index: Sequence[LandedIndex], answered: set[str]) -> dict[str, tuple[int, Request]]:
    """Where to go on with lists of which only the first pages have landed."""
    at: dict[str, tuple[int, Request]] = {}
    for entry in sorted(newest_answers(index), key=lambda item: (item.request_key, item.page)):
        if entry.next is None or set(entry.leaves) <= answered:
            continue
        expected = at[entry.request_key][0] if entry.request_key in at else 1
        if entry.page == expected:
            at[entry.request_key] = (entry.page + 1, decode_request(entry.next))
    return at
