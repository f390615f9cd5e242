"""One partition's harvest: from whatever state it is in to complete, in the mode that fits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from itertools import chain, groupby
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
from vendor_assets.harvest.coverage import Coverage, resume_points
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.fetching import Counts, Fetcher, Item, Pending, Work
from vendor_assets.harvest.filters import Filters, still_to_ask, values_known, with_values
from vendor_assets.harvest.harvests import (
    FAILURE,
    Finish,
    HarvestFolder,
    list_harvests,
    load_finish,
    newest_finished,
)
from vendor_assets.harvest.landing import LandedIndex, Lander, read_index, request_id
from vendor_assets.harvest.outcome import Mode, Order, Outcome
from vendor_assets.harvest.ownership import Ownership
from vendor_assets.harvest.plans import Plan, load_plan
from vendor_assets.harvest.retention import removal_of
from vendor_assets.harvest.tabulate import Tabulated, newest_answers, tabulate, tabulate_roster
from vendor_assets.logs import get_logger
from vendor_assets.presentable import MOST, presentable
from vendor_assets.states import SUCCEEDED, state_of
from vendor_assets.storage import layout
from vendor_assets.storage.changes import compare
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import TableWriter, read_groups, read_metadata
from vendor_assets.storage.roster import Roster, Troop
from vendor_assets.tables import TABLES
from vendor_assets.vendors.base import Asset, DataGroup, PlannedRequest, Request, Vendor

logger = get_logger(__name__)

_ROWS_AT_ONCE: Final = 8192
_ROSTERS_BEFORE: Final = 10
_ROSTER_SHARE: Final = 0.1
"""With less of the troops of the day before, a roster is worth a word."""
_CHANGES: Final = ("rows_added", "rows_altered", "rows_removed")


@dataclass(frozen=True)
class Tools:
    """What a run gives to all of its partitions.

    Attributes:
        watch: Called with each piece of fetching that begins, for whoever shows progress.
        sightings: Everything that was sighted on a day.
        filters: What of the hierarchy is asked for.
        stop: Set when the run shall end.
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
    filters: Filters
    stop: threading.Event

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters in the store."""
        return DeadLetters(self.store)

    def work(
        self,
        asset: Asset,
        troop_id: str,
        lander: Lander,
        pending: Pending,
        order: Order,
        counts: Counts | None = None,
    ) -> Work:
        """What the fetcher shall do for one partition; ``counts`` grows by what it costs."""
        work = Work(asset, troop_id, lander, pending, work_class=order.work_class, counts=counts or Counts())
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
        roster: Reads the day's troops; :meth:`run` calls it only where the asset lies below them.
    """

    def __init__(
        self,
        tools: Tools,
        base: Outcome,
        window: Window,
        ownership: Ownership,
        order: Order,
        roster: Callable[[], Roster],
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
        self._read_roster = roster
        self.newest_id = ""
        self._roster_refused = False
        head = self.store.head(base.table_key)
        self.table_etag = head.etag if head else None

    def run(self) -> Outcome:
        """Choose the mode by what is in the store and who asks, and do it.

        Raises:
            VendorAssetsError: The harvest did not come to its end; what has landed stays, the next run resumes.
        """
        harvests = list_harvests(self.store, self.asset, self.day, self.troop_key)
        self.newest_id = harvests[-1].harvest_id if harvests else ""
        current = newest_finished(harvests)
        newer = harvests[harvests.index(current) + 1 :] if current else harvests
        unfinished = [harvest for harvest in newer if harvest.has_plan]
        finish = load_finish(self.store, current.folder) if current else None
        if self.order.rebuild:
            if current is None or finish is None:
                message = f"nothing to rebuild {self.asset} of {self.day} from: no finished harvest; harvest it first"
                raise HarvestError(message)
            if current.removed:
                message = (
                    f"{self.asset} of {self.day} cannot be rebuilt: its landed answers "
                    f"{removal_of(self.store, current)}; its table is as it was, materialize it to fetch it anew"
                )
                raise HarvestError(message)
            return self._report("rebuild", current, finish, tabulate_again=True)
        if self._troop_is_left_out():
            return self._leave_out(current, finish)
        if unfinished:
            return self._resume(unfinished[-1].folder)
        if current is None or finish is None:
            return self._fetch_new("first", self._plan())
        if current.removed and self.table_etag is None:
            # Neither table nor answers: nothing can be reported or reconciled.
            return self._fetch_new("replace", self._plan())
        if finish.root_run == self.order.root_run_id:
            return self._report("report", current, finish, tabulate_again=self.table_etag is None)
        dead = self.tools.dead_letters.load(self.asset, self.day, self.troop_key)
        if any(letter.retryable or self.order.permanent_too for letter in dead.letters):
            return self._redrive(current, finish, dead)
        if self.order.finished == "replace":
            return self._fetch_new("replace", self._plan())
        return self._reconcile(current, finish)

    # The modes

    def _fetch_new(self, mode: Mode, plan: Plan) -> Outcome:
        # The newest is current, also where the clock of another machine is ahead of ours.
        harvest_id = layout.new_ulid(self.tools.now(), after=self.newest_id)
        folder = layout.harvest_folder(self.asset, self.day, self.troop_key, harvest_id)
        self.store.put(layout.plan_key(folder), plan.packed, if_absent=True)
        return self._fetch(mode, folder, plan)

    def _leave_out(self, current: HarvestFolder | None, finish: Finish | None) -> Outcome:
        """A troop that a filter leaves out: no call; what was harvested before stays as it is."""
        if current is None or finish is None or (current.removed and self.table_etag is None):
            return self._fetch_new("first", self._plan())
        kept = self._report("report", current, finish, tabulate_again=self.table_etag is None)
        note = f"{self._left_out_text()}; its table stays as it was"
        return replace(kept, message=kept.message or note, details=kept.details | {"note": note})

    def _resume(self, folder: str) -> Outcome:
        plan = load_plan(self.store, folder)
        if plan.filters == self.tools.filters.texts:
            try:
                return self._fetch("resume", folder, plan)
            except HarvestError:
                if not self._roster_refused or self.base.counts.calls:
                    raise
            # The list that was refused is an old one: it is read again, the key may see more by now.
            return self._fetch_new("first", self._plan())
        # Frozen under other filters: planned anew, and what has landed under them counts.
        return self._fetch_new("resume", self._plan((*plan.bases, folder)))

    def _reconcile(self, current: HarvestFolder, finish: Finish) -> Outcome:
        old = load_plan(self.store, current.folder)
        bases = (*old.bases, current.folder)
        plan = self._plan(bases)
        if plan.request_count and current.removed:
            # What is new cannot be joined with answers that are gone: all is asked again.
            return self._fetch_new("replace", self._plan())
        if not plan.request_count:
            again = self.table_etag is None
            return self._report("reconcile", current, finish, tabulate_again=again)
        return self._fetch_new("reconcile", plan)

    def _redrive(self, current: HarvestFolder, finish: Finish, dead: DeadPartition) -> Outcome:
        plan = load_plan(self.store, current.folder)
        waiting = (
            () if self.order.permanent_too else [letter for letter in dead.letters if not letter.retryable]
        )
        left = frozenset(letter.request for letter in waiting)
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
            details={
                name: value
                for name, value in finish.details.items()
                # What the finished harvest changed, this one does not change again.
                if name not in (FAILURE, "quarantined") and (mode == "report" or name not in _CHANGES)
            },
            quarantined=finish.quarantined,
        )
        if tabulate_again:
            index = self._index((*plan.bases, current.folder))
            return self._publish(outcome, current.folder, plan, index, Counts(), before=finish)
        return self._with_table(
            replace(outcome, state=finish.standing, message=finish.message, reason=finish.reason)
        )

    def _fetch(
        self,
        mode: Mode,
        folder: str,
        plan: Plan,
        *,
        before: Finish | None = None,
        left: frozenset[str] = frozenset(),
    ) -> Outcome:
        """Fetch what of a plan has not landed, except the requests that are ``left`` alone, then publish."""
        chunks = [
            info.key for info in self.store.list(folder) if info.key.removeprefix(folder).startswith("chunk-")
        ]
        index = self._index(plan.bases) + read_index(self.store, chunks)
        answered = self._answered(index, counted_at=None)
        coverage = Coverage(self.store, index, answered)
        letters = self.tools.dead_letters.load(self.asset, self.day, self.troop_key)
        settled = self._base_leaves(plan) | letters.discarded_leaves

        def todo() -> Iterator[PlannedRequest]:
            for planned in chain.from_iterable(map(coverage.standing_for, plan.requests())):
                left_alone = planned.request.key in left or coverage.is_answered(planned)
                if not left_alone and _any_not_in(settled, planned):
                    yield planned

        known = {letter.request for letter in letters.letters}
        # Others stand for one that was split, also where a kill came before its dead letter was replaced by theirs.
        asked = {request for request in known if coverage.is_split(request)}
        count = leaves = 0
        for planned in todo():
            count += 1
            leaves += len(planned.leaves)
            if known and planned.request.key in known:
                asked.add(planned.request.key)
        writer = f"{self.ownership.epoch:04d}"
        lander = Lander(
            self.store,
            lambda n: layout.chunk_key(folder, writer, n),
            max_seconds=self.tools.flush_seconds,
            wait=self.tools.stop.wait,
            # One that was stopped for a while and superseded notices here, before it pays for much.
            confirm=self.ownership.confirm,
        )
        pending = Pending(_items(todo(), resume_points(index, answered)), count, leaves)
        work = self.tools.work(self.asset, plan.troop_id, lander, pending, self.order, self.base.counts)
        self.tools.fetcher.run(work)
        if work.failure is not None:
            raise work.failure
        index += read_index(self.store, lander.keys)
        outcome = replace(
            self.base,
            mode=mode,
            harvest_id=folder.rstrip("/").rsplit("/h-", 1)[-1],
            planned=plan.leaf_count,
            requests_made=count + work.parts,
            requests_reused=max(0, plan.request_count - count),
        )
        self._save_dead(letters, asked, work.dead)
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

    def _plan(self, bases: tuple[str, ...] = ()) -> Plan:
        """The work of this partition from the upstream table, without leaves that the bases have."""
        known = self._leaves_of(bases)
        left_out: Counter[str] = Counter()
        troop_id, upstream_partial = "", False
        requests: Iterator[PlannedRequest]
        if self.asset == "troops":
            requests = iter([self.vendor.troops(self.window)])
        else:
            troop_id = self._troop_id()
            if self._troop_is_left_out():
                left_out["troops"] = 1
                requests = iter([])
            elif self.asset == "warriors":
                on_roster = self._troop() is not None
                requests = iter([self.vendor.warriors(troop_id, self.window)] if on_roster else [])
                upstream_partial = self._roster().state == "partial"
            elif self.asset == "data_groups":
                upstream_partial = self._upstream_state("warriors") == "partial"
                warriors = self._warriors_taken(left_out)
                requests = (self.vendor.data_groups(troop_id, warrior, self.window) for warrior in warriors)
            else:
                upstream_partial = self._upstream_state("data_groups") == "partial"
                requests = self._performance_requests(troop_id, known, left_out)
        plan = Plan(
            asset=self.asset,
            day=self.day,
            troop_key=self.troop_key,
            troop_id=troop_id,
            resolution_seconds=self.tools.resolution_seconds,
            created_at=self.tools.now(),
            bases=bases,
            upstream_partial=upstream_partial,
            filters=self.tools.filters.texts,
            left_out=left_out,
        )
        return plan.freeze(planned for planned in requests if _any_not_in(known, planned))

    def _warriors_taken(self, left_out: Counter[str]) -> Iterator[str]:
        for row in self._upstream("warriors", "warrior_id", "name"):
            if self.tools.filters.warriors.takes(row["warrior_id"], row["name"]):
                yield row["warrior_id"]
            else:
                left_out["warriors"] += 1

    def _performance_requests(
        self, troop_id: str, known: set[str], left_out: Counter[str]
    ) -> Iterator[PlannedRequest]:
        def plan(warrior_id: str, chosen: list[DataGroup]) -> list[PlannedRequest]:
            return self.vendor.performance_data(
                troop_id, warrior_id, chosen, self.window, self.tools.resolution_seconds
            )

        filters = self.tools.filters
        taken = set(self._warriors_taken(left_out)) if filters.warriors else None
        values = values_known(known)
        # The table is sorted by warrior, so that one warrior's groups are in memory at a time.
        rows = self._upstream("data_groups", "warrior_id", "data_group", "value_names")
        for warrior_id, of_warrior in groupby(rows, key=lambda row: str(row["warrior_id"])):
            if taken is not None and warrior_id not in taken:
                continue
            groups: list[DataGroup] = []
            for row in of_warrior:
                whole = DataGroup(row["data_group"], tuple(row["value_names"]))
                group = filters.narrow(whole)
                left_out["data_groups"] += group is None
                if group is not None:
                    left_out["values"] += len(whole.value_names) - len(group.value_names)
                    groups.append(group)
            requests = plan(warrior_id, groups) if groups else []
            if known and groups:
                # Grouped anew, so that a batch does not ask again for what has landed beside what has not.
                groups = still_to_ask(groups, requests, known, values)
                requests = plan(warrior_id, groups) if groups else []
            by_name = {group.name: group for group in groups}
            for planned in requests:
                yield with_values(planned, by_name)

    def _troop_is_left_out(self) -> bool:
        if self.troop_key is None or not self.tools.filters.troops:
            return False
        troop = self._troop() or Troop(self._troop_id(), self.troop_key, None)
        return not self.tools.filters.takes_troop(troop)

    def _left_out_text(self) -> str:
        troops = self.tools.filters.troops
        return f"troop {self.troop_key} is left out by {troops.setting}={troops.text}: no calls"

    def _upstream(self, asset: Asset, *columns: str) -> Iterator[dict[str, Any]]:
        key = layout.table_key(asset, self.day, self.troop_key)
        try:
            for group in read_groups(self.store, key, columns):
                for batch in group.to_batches(_ROWS_AT_ONCE):
                    yield from batch.to_pylist()
        except ObjectNotFoundError as error:
            raise self._not_there(asset, self.troop_key) from error

    def _upstream_state(self, asset: Asset) -> str:
        try:
            metadata, _ = read_metadata(self.store, layout.table_key(asset, self.day, self.troop_key))
        except ObjectNotFoundError as error:
            raise self._not_there(asset, self.troop_key) from error
        return metadata.get("state", "")

    def _not_there(self, asset: Asset, troop_key: str | None) -> HarvestError:
        where = f"{self.day}" + (f", troop {troop_key}" if troop_key else "")
        uri = self.store.uri(layout.table_key(asset, self.day, troop_key))
        return HarvestError(f"{asset} of {where} is not there ({uri}); materialize {asset} first")

    def _troop_id(self) -> str:
        troop = self._troop()
        return troop.id if troop else layout.decode_segment(str(self.troop_key))

    def _troop_name(self) -> str:
        try:
            troop = self._troop()
        except HarvestError:
            return ""
        return (troop.name or "") if troop else ""

    def _troop(self) -> Troop | None:
        return self._roster().find(self.troop_key)

    def _roster(self) -> Roster:
        try:
            return self._read_roster()
        except ObjectNotFoundError as error:
            raise self._not_there("troops", None) from error

    # Coverage

    def _index(self, folders: Sequence[str]) -> list[LandedIndex]:
        keys = [
            info.key
            for folder in folders
            for info in self.store.list(folder)
            if info.key.removeprefix(folder).startswith("chunk-")
        ]
        return read_index(self.store, keys)

    def _answered(self, index: Sequence[LandedIndex], counted_at: frozenset[str] | None) -> set[bytes]:
        """Ids of the planned requests whose answers have landed with all their pages.

        Provisional answers, fetched before the data had settled, count only where they lie in one of the
        chunks ``counted_at``: those of this very run.
        """
        settled = self.window.end.timestamp() + self.tools.settling_seconds
        answered: set[bytes] = set()
        pages: dict[bytes, dict[int, LandedIndex]] = {}
        for entry in newest_answers(index):
            if entry.status in (404, 410) and (entry.asset == "troops" or entry.page > 1):
                continue  # An older version took a wrong address for a list that is gone.
            provisional = self.asset == "performance_data" and entry.fetched_at.timestamp() < settled
            if not provisional or (counted_at is not None and entry.chunk in counted_at):
                pages.setdefault(entry.request, {})[entry.page] = entry
        for request, of_request in pages.items():
            last = 0
            while last + 1 in of_request and (last == 0 or of_request[last].next is not None):
                last += 1
            if last and of_request[last].next is None:
                answered.add(request)
        return answered

    def _leaves_of(self, bases: Sequence[str]) -> set[str]:
        """Keys of the leaves whose answers have landed in older harvests."""
        if not bases:
            return set()
        index = self._index(bases)
        coverage = Coverage(self.store, index, self._answered(index, counted_at=None))
        # Answers are removed only where all had landed.
        removed = {base for base in bases if self.store.head(layout.removed_key(base))}
        return {
            state.leaf.key
            for base in bases
            for state in coverage.leaves(load_plan(self.store, base).requests())
            if base in removed or state.landed
        }

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
        letters = self.tools.dead_letters.load(self.asset, self.day, self.troop_key)
        answers = newest_answers(index)
        tally = self._tally(
            plan, Coverage(self.store, index, self._answered(index, counted_at=counted)), letters
        )
        with self._tabulate(plan, answers) as found:
            if self.asset == "troops" and not found.rows and not found.quarantine.count:
                self._refuse_an_empty_roster()
            return self._commit(outcome, found, folder, plan, answers, tally, letters, counts, before)

    def _tally(self, plan: Plan, coverage: Coverage, letters: DeadPartition) -> _Tally:
        """Count the leaves of a plan, and those of its bases that had landed there, by what became of them."""
        of_bases = self._base_leaves(plan)
        given_up = letters.discarded_leaves
        tally = _Tally(planned=len(of_bases), landed=len(of_bases))
        for state in coverage.leaves(plan.requests()):
            if state.leaf.key in of_bases:
                continue
            tally.planned += 1
            tally.landed += state.landed
            tally.gone += state.landed and state.gone
            tally.discarded += not state.landed and state.leaf.key in given_up
        if coverage.any_gone:
            for base in plan.bases:
                of_base = coverage.leaves(load_plan(self.store, base).requests())
                tally.gone += sum(state.landed and state.gone for state in of_base)
        return tally

    def _commit(
        self,
        outcome: Outcome,
        found: Tabulated,
        folder: str,
        plan: Plan,
        answers: Sequence[LandedIndex],
        tally: _Tally,
        letters: DeadPartition,
        counts: Counts,
        before: Finish | None,
    ) -> Outcome:
        dead, rows = tally.dead, found.rows
        self.ownership.confirm()
        found.quarantine.publish(self.store, layout.quarantine_key(self.asset, self.day, self.troop_key))
        nothing_fits = bool(found.quarantine.count) and not rows
        partial = bool(dead) or plan.upstream_partial or nothing_fits
        sample = found.sample()
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
            | (
                {"data_groups_without_rows": quiet}
                if (quiet := self._without_rows(found, plan, tally))
                else {}
            )
            | (
                {"first_dead_letter": presentable(letters.letters[0].reason)}
                if dead and letters.letters
                else {}
            ),
            sample=sample,
        )
        nothing = bool(dead) and not tally.landed
        keeps_old = partial and self.table_etag is not None and self._old_table_is_complete()
        if not nothing and not keeps_old:
            outcome = replace(outcome, details=outcome.details | self._changes(found))
            self._write(outcome, found, folder)
        finish = Finish(
            state=outcome.state,
            planned=outcome.planned,
            landed=outcome.landed,
            gone=outcome.gone,
            dead=outcome.dead,
            requests=plan.request_count,
            calls=counts.calls + (before.calls if before else 0),
            rows=rows,
            root_run=self.order.root_run_id,
            epoch=self.ownership.epoch,
            finished_at=self.tools.now(),
            table_etag=self.table_etag or "",
            details=outcome.details
            | {"quarantined": outcome.quarantined}
            | ({FAILURE: asdict(letters.letters[0].why)} if dead and letters.letters else {}),
            answers=len(answers),
            later_pages=sum(1 for entry in answers if entry.page > 1),
        )
        self._mark_finished(folder, finish)
        message = finish.message
        outcome = replace(outcome, reason=finish.reason)
        if nothing:
            outcome = replace(outcome, state="failed", message=message, rows=0, sample=())
        return self._with_table(replace(outcome, message=message))

    def _refuse_an_empty_roster(self) -> None:
        """End the harvest where an account that had troops has none: most likely the key sees nothing any more.

        Raises:
            HarvestError: It is so, and nobody has accepted it.
        """
        day, before = self._roster_before()
        if not before or self.order.accept_empty or self.order.rebuild:
            return
        self._roster_refused = True
        message = (
            f"the vendor lists no troop for {self.day}, but on {day} there were {before}: nothing is published; check "
            f"what VENDOR_API_KEY may see, or accept it: vendor-assets harvest --day {self.day} --accept-empty-roster"
        )
        raise HarvestError(message)

    def _roster_before(self) -> tuple[date, int]:
        """Of the last ten rosters before this day the newest that was not empty: its day, and how many were on it."""
        keys = {
            layout.parse_table_key(info.key)[1]: info.key
            for info in self.store.list(layout.table_prefix("troops"))
        }
        for day in sorted((day for day in keys if day < self.day), reverse=True)[:_ROSTERS_BEFORE]:
            _, rows = read_metadata(self.store, keys[day])
            if rows:
                return day, rows
        return self.day, 0

    def _roster_note(self, rows: int) -> str:
        """What is odd about how many there are; empty where nothing is."""
        if self.asset == "warriors":
            if rows or self.troop_key is None:
                return ""
            try:
                yesterday = layout.table_key("warriors", self.day - timedelta(days=1), self.troop_key)
                _, before = read_metadata(self.store, yesterday)
            except ObjectNotFoundError:
                return ""
            return f"the troop has no warrior on {self.day}, the day before it had {before}" if before else ""
        day, before = self._roster_before()
        if not rows and not before:
            return (
                "the account has no troop, nothing is harvested: does VENDOR_API_KEY see the right account?"
            )
        if rows < _ROSTER_SHARE * before:
            return f"{rows} troops on {self.day}, on {day} there were {before}: check what VENDOR_API_KEY may see"
        return ""

    def _base_leaves(self, plan: Plan) -> set[str]:
        """Leaves of the plan's bases that had landed there: a reconcile's table has them too."""
        return self._leaves_of(plan.bases)

    def _tabulate(self, plan: Plan, answers: Sequence[LandedIndex]) -> AbstractContextManager[Tabulated]:
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
                stopping=self.tools.stop.is_set,
            )
        return tabulate(
            self.asset,
            store=self.store,
            vendor=self.vendor,
            answers=answers,
            troop_id=plan.troop_id,
            window=self.window,
            stopping=self.tools.stop.is_set,
        )

    def _details(
        self,
        found: Tabulated,
        sample: list[dict[str, Any]],
        answers: Sequence[LandedIndex],
        plan: Plan,
    ) -> dict[str, Any]:
        # The partition key is the vendor's id; people know a troop by its name.
        name = self._troop_name() if self.troop_key else ""
        details: dict[str, Any] = {"troop": presentable(name)} if name else {}
        if found.new_fields:
            details["new_fields"] = [presentable(field, 100) for field in sorted(found.new_fields)[:MOST]]
            details["new_fields_in_all"] = len(found.new_fields)
        if found.not_found:
            details["data_groups_unknown_to_the_vendor"] = len(found.not_found)
        if found.duplicates:
            details["duplicate_rows_dropped"] = found.duplicates
        if self.asset in ("troops", "warriors"):
            later = [batch.column("observed_later").true_count for batch in found.batches()]
            details["observed_later"] = bool(found.rows) and sum(later) == found.rows
        details |= {f"{level}_left_out": count for level, count in plan.left_out.items() if count}
        if plan.filters and self.troop_key:
            details["filters"] = " ".join(f"{setting}={text}" for setting, text in plan.filters.items())
        if plan.left_out.get("troops"):
            details["note"] = self._left_out_text()
        elif self.asset == "warriors" and not plan.request_count:
            details["note"] = f"troop {self.troop_key} was not on the roster of {self.day}: 0 rows, no calls"
        if self.asset in ("troops", "warriors") and not details.get("note"):
            note = self._roster_note(found.rows)
            details |= {"note": note} if note else {}
        if self.asset == "performance_data":
            settled = self.window.end.timestamp() + self.tools.settling_seconds
            early = sum(1 for entry in answers if entry.fetched_at.timestamp() < settled)
            if early:
                details["provisional_answers"] = early
            if sample:
                length = sample[0]["timeslice_end"] - sample[0]["timeslice_start"]
                details["resolution_seconds"] = int(length.total_seconds())
        return details

    def _without_rows(self, found: Tabulated, plan: Plan, tally: _Tally) -> int:
        """How many data groups were listed and answered, and have no row on the whole day.

        Not told where that has another reason: some are dead or gone, or others were answered in an older harvest.
        """
        if self.asset != "performance_data" or tally.dead or tally.gone or tally.discarded or plan.bases:
            return 0
        # Both are in the order of warriors, so that neither is in memory as a whole.
        leaves = (leaf for planned in plan.requests() for leaf in planned.leaves)
        of_warrior = groupby(leaves, key=lambda leaf: leaf.warrior_id)
        return sum(len({leaf.data_group for leaf in group}) for _, group in of_warrior) - found.data_groups()

    def _changes(self, found: Tabulated) -> dict[str, int]:
        """What changes in the performance data of a partition that has a table already: late data, for the most."""
        if self.asset != "performance_data" or self.table_etag is None:
            return {}
        spec = TABLES[self.asset]
        try:
            changes = compare(
                spec,
                read_groups(self.store, self.base.table_key, spec.schema.names),
                (pa.Table.from_batches([batch]) for batch in found.batches()),
            )
        except (StorageError, pa.ArrowException) as error:
            logger.warning("What changes cannot be told, the present table is not readable: %s", error)
            return {}
        return dict(zip(_CHANGES, (changes.added, changes.altered, changes.removed), strict=True))

    def _write(self, outcome: Outcome, found: Tabulated, folder: str) -> None:
        metadata = {
            "state": outcome.state,
            "harvest": folder,
            "planned": str(outcome.planned),
            "landed": str(outcome.landed),
            "gone": str(outcome.gone),
            "dead": str(outcome.dead),
            "vendor": self.vendor.kind,
            "source": self.store.source,
        }
        spec = TABLES[self.asset]
        while True:
            self.ownership.confirm()
            try:
                with TableWriter(
                    self.store,
                    self.base.table_key,
                    spec,
                    metadata=metadata,
                    if_absent=self.table_etag is None,
                    if_match=self.table_etag,
                ) as writer:
                    for batch in found.batches():
                        writer.write(batch)
            except ObjectConflictError:
                # Whoever wrote had an older epoch (ours is confirmed above): look again and replace it.
                head = self.store.head(self.base.table_key)
                self.table_etag = head.etag if head else None
            else:
                self.table_etag = writer.etag
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
        try:
            metadata, _ = read_metadata(self.store, self.base.table_key)
        except StorageUnavailableError:
            raise
        except StorageError as error:
            logger.warning("The present table is replaced: %s", error)
            return False
        return metadata.get("state") in SUCCEEDED

    def _with_table(self, outcome: Outcome) -> Outcome:
        """The outcome with what the published table itself says."""
        head = self.store.head(self.base.table_key)
        if head is None:
            return outcome
        if outcome.sample:
            return replace(outcome, table_bytes=head.size)
        _, rows = read_metadata(self.store, self.base.table_key)
        return replace(outcome, table_bytes=head.size, rows=rows)


@dataclass
class _Tally:
    """Leaves of a harvest by what became of them; ``gone`` ones have landed too."""

    planned: int
    landed: int
    gone: int = 0
    discarded: int = 0

    @property
    def dead(self) -> int:
        return self.planned - self.landed - self.discarded


def _any_not_in(leaves: frozenset[str] | set[str], planned: PlannedRequest) -> bool:
    return not leaves or any(leaf.key not in leaves for leaf in planned.leaves)


def _items(requests: Iterator[PlannedRequest], resume_at: dict[bytes, tuple[int, Request]]) -> Iterator[Item]:
    """Work items of planned requests; ``resume_at`` names page and request where pages have landed already."""
    for planned in requests:
        page, request = (1, planned.request)
        if resume_at:
            page, request = resume_at.get(request_id(planned.request.key), (page, request))
        yield planned, page, request
