"""One partition's harvest: from whatever state it is in to complete, in the mode that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from vendor_assets.budget import OTHERS, Team
from vendor_assets.days import Window
from vendor_assets.errors import HarvestError
from vendor_assets.harvest.context import HarvestContext
from vendor_assets.harvest.coverage import Coverage, answered_requests, resume_points
from vendor_assets.harvest.dead_letters import DeadLetter, DeadPartition
from vendor_assets.harvest.fetching import Counts, Item, Pending
from vendor_assets.harvest.harvests import (
    Finish,
    HarvestFolder,
    list_harvests,
    load_finish,
    newest_finished,
)
from vendor_assets.harvest.landing import (
    GONE,
    Landed,
    LandedIndex,
    Lander,
    read_bodies,
    read_index,
    request_id,
)
from vendor_assets.harvest.outcome import HarvestOptions, Mode, Outcome
from vendor_assets.harvest.ownership import Ownership
from vendor_assets.harvest.planning import Planner, any_not_in
from vendor_assets.harvest.plans import Plan, load_plan
from vendor_assets.harvest.publishing import CHANGES, LeafCounts, Publisher
from vendor_assets.harvest.retention import removal_of
from vendor_assets.harvest.tabulate import newest_answers
from vendor_assets.harvest.upstream import Upstream
from vendor_assets.storage import layout
from vendor_assets.storage.roster import Roster
from vendor_assets.turns import let_others
from vendor_assets.vendors.base import Asset, PlannedRequest, Request


class PartitionHarvest:
    """The harvest of one partition by its owner.

    Args:
        base: The outcome so far: which partition it is.
        roster: Reads the day's troops; :meth:`run` calls it only where the asset lies below them.
        table_etag: Of its table as it was before it was taken; None where there was none.
        untouched: Nobody has worked on it before: there is no harvest, table, dead letter or quarantine to look for.
        team: Of the troop.
    """

    def __init__(
        self,
        context: HarvestContext,
        base: Outcome,
        window: Window,
        ownership: Ownership,
        options: HarvestOptions,
        roster: Callable[[], Roster],
        *,
        table_etag: str | None,
        untouched: bool,
        team: Team = OTHERS,
    ) -> None:
        self.context = context
        self.store = context.store
        self.base = base
        self.asset: Asset = base.asset
        self.day = base.day
        self.troop_key = base.troop_key
        self.window = window
        self.ownership = ownership
        self.options = options
        self.team = team
        self.newest_id = ""
        self.harvests: dict[str, HarvestFolder] = {}
        self.upstream = Upstream(self.store, self.day, self.troop_key, context.filters, roster)
        self.planner = Planner(context, base.asset, window, self.upstream)
        self.untouched = untouched
        self.publisher = Publisher(
            context, base, window, ownership, options, self.upstream, untouched, table_etag
        )

    def run(self) -> Outcome:
        """Choose the mode by what is in the store and who asks, and do it.

        Raises:
            VendorAssetsError: The harvest did not come to its end; what has landed stays, the next run resumes.
        """
        harvests = [] if self.untouched else list_harvests(self.store, self.asset, self.day, self.troop_key)
        self.harvests = {harvest.folder: harvest for harvest in harvests}
        self.newest_id = harvests[-1].harvest_id if harvests else ""
        current = newest_finished(harvests)
        newer = harvests[harvests.index(current) + 1 :] if current else harvests
        unfinished = [harvest for harvest in newer if harvest.has_plan]
        finish = load_finish(self.store, current.folder) if current else None
        if self.options.rebuild:
            if current is None or finish is None:
                message = f"nothing to rebuild {self.asset} of {self.day} from: no finished harvest; harvest it first"
                raise HarvestError(message)
            if current.removed:
                message = (
                    f"{self.asset} of {self.day} cannot be rebuilt: its landed answers "
                    f"{removal_of(self.store, current)}; its table is as it was, materialize it to fetch it again"
                )
                raise HarvestError(message)
            return self._report("rebuild", current, finish, tabulate_again=True)
        if self.upstream.troop_is_left_out():
            return self._leave_out(current, finish)
        if unfinished:
            return self._resume(unfinished[-1])
        if current is None or finish is None:
            return self._fetch_new("first", self.planner.plan())
        if current.removed and self.publisher.table_etag is None:
            # Neither table nor answers: nothing can be reported or reconciled.
            return self._fetch_new("replace", self.planner.plan())
        if finish.root_run == self.options.root_run_id:
            return self._report("report", current, finish, tabulate_again=self.publisher.table_etag is None)
        dead = self._dead_letters()
        if any(letter.retryable or self.options.permanent_too for letter in dead.letters):
            return self._redrive(current, finish, dead)
        if self.options.finished == "replace" and not self._is_news(current, finish):
            return self._fetch_new("replace", self.planner.plan())
        return self._reconcile(current, finish)

    # The modes

    def _fetch_new(self, mode: Mode, plan: Plan) -> Outcome:
        # The newest is current, also where the clock of another machine is ahead of ours.
        harvest_id = layout.new_ulid(self.context.now(), after=self.newest_id)
        folder = layout.harvest_folder(self.asset, self.day, self.troop_key, harvest_id)
        self.ownership.confirm_now_and_then()
        self.store.put(layout.plan_key(folder), plan.packed, if_absent=True)
        harvest = HarvestFolder(folder, has_plan=True, chunks=(), finish_etag=None)
        self.harvests[folder] = harvest
        return self._fetch(mode, harvest, plan)

    def _leave_out(self, current: HarvestFolder | None, finish: Finish | None) -> Outcome:
        """A troop that a filter leaves out: no call; what was harvested before stays as it is."""
        if current is None or finish is None or (current.removed and self.publisher.table_etag is None):
            return self._fetch_new("first", self.planner.plan())
        kept = self._report("report", current, finish, tabulate_again=self.publisher.table_etag is None)
        note = f"{self.upstream.left_out_text()}; its table stays as it was"
        return replace(kept, message=kept.message or note, details=kept.details | {"note": note})

    def _resume(self, unfinished: HarvestFolder) -> Outcome:
        plan = load_plan(self.store, unfinished.folder)
        if any(base in self.harvests and self.harvests[base].removed for base in plan.bases):
            # As in _reconcile; the removal was late, it began before this harvest.
            return self._fetch_new("replace", self.planner.plan())
        if plan.filters == self.context.filters.texts:
            try:
                return self._fetch("resume", unfinished, plan)
            except HarvestError:
                if not self.publisher.roster_refused or self.base.counts.calls:
                    raise
            # The list that was refused is an old one: it is read again, the key may see more by now.
            return self._fetch_new("first", self.planner.plan())
        # Frozen under other filters: planned anew, and what has landed under them counts.
        return self._fetch_new("resume", self._plan_with((*plan.bases, unfinished.folder)))

    def _reconcile(self, current: HarvestFolder, finish: Finish) -> Outcome:
        old = load_plan(self.store, current.folder)
        bases = (*old.bases, current.folder)
        plan = self._plan_with(bases)
        if plan.request_count and current.removed:
            # What is new cannot be joined with answers that are gone: all is asked again.
            return self._fetch_new("replace", self.planner.plan())
        if not plan.request_count:
            again = self.publisher.table_etag is None
            return self._report("reconcile", current, finish, tabulate_again=again)
        return self._fetch_new("reconcile", plan)

    def _is_news(self, current: HarvestFolder, finish: Finish) -> bool:
        """Whether it is whole but was not, or did not seem so, when this was asked for: nobody meant to replace it."""
        if finish.state == "partial":
            return False
        if (self.asset, self.day, self.troop_key) in self.options.unseen:
            return True
        asked_at = self.options.asked_at
        return (
            asked_at is not None
            and finish.finished_at >= asked_at
            and not load_plan(self.store, current.folder).bases
        )

    def _redrive(self, current: HarvestFolder, finish: Finish, dead: DeadPartition) -> Outcome:
        plan = load_plan(self.store, current.folder)
        left = frozenset(
            letter.request
            for letter in dead.letters
            if not letter.retryable and not self.options.permanent_too
        )
        return self._fetch("redrive", current, plan, before=finish, left=left)

    def _report(self, mode: Mode, current: HarvestFolder, finish: Finish, *, tabulate_again: bool) -> Outcome:
        plan = load_plan(self.store, current.folder)
        told = replace(self.base, mode=mode).told_by(current, finish)
        if mode != "report":
            # What the finished harvest changed, this one does not change again.
            details = {name: value for name, value in told.details.items() if name not in CHANGES}
            told = replace(told, details=details)
        if tabulate_again:
            index = self._index((*plan.bases, current.folder))
            return self._publish(told, current, plan, index, Counts(), self._dead_letters(), before=finish)
        return self.publisher.with_table(
            replace(told, state=finish.ended_as, message=finish.message, reason=finish.reason)
        )

    def _fetch(
        self,
        mode: Mode,
        harvest: HarvestFolder,
        plan: Plan,
        *,
        before: Finish | None = None,
        left: frozenset[str] = frozenset(),
    ) -> Outcome:
        """Fetch what of a plan has not landed, except the requests that are ``left`` alone, then publish."""
        folder = harvest.folder
        index = self._index((*plan.bases, folder))
        counting = list(self._counting(index, counted_at=frozenset()))
        answered = answered_requests(counting)
        coverage = Coverage(self.store, index, answered)
        letters = self._dead_letters()
        settled = self._leaves_of(plan.bases) | letters.discarded_leaves
        upstream = {} if mode in ("replace", "redrive") else self._answers_upstream(index)

        def todo(*, answered_upstream: bool = False) -> Iterator[PlannedRequest]:
            for planned in chain.from_iterable(map(coverage.standing_for, plan.requests())):
                elsewhere = bool(upstream) and request_id(planned.request.key) in upstream
                left_alone = planned.request.key in left or (coverage.is_answered(planned) and not elsewhere)
                if not left_alone and elsewhere == answered_upstream and any_not_in(settled, planned):
                    yield planned

        known = {letter.request for letter in letters.letters}
        # One was answered, or others stand for it since it was split: a kill came before its dead letter went.
        asked = {
            request for request in known if coverage.is_split(request) or request_id(request) in answered
        }
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
            max_seconds=self.context.flush_seconds,
            wait=self.context.stop.wait,
            # One that was stopped for a while and superseded notices here, before it pays for much.
            confirm=self.ownership.confirm_now_and_then,
        )
        if upstream:
            self._land_again(lander, plan.troop_id, upstream, todo(answered_upstream=True))
        pending = Pending(_items(todo(), resume_points(counting, answered)), count, leaves)
        work = self.context.work(
            self.asset,
            plan.troop_id,
            lander,
            pending,
            self.options,
            self.base.counts,
            self.team,
            self.window.end,
        )
        with let_others():
            self.context.fetcher.run(work)
        if work.failure is not None:
            raise work.failure
        index += lander.index
        outcome = replace(
            self.base,
            mode=mode,
            harvest_id=folder.rstrip("/").rsplit("/h-", 1)[-1],
            planned=plan.leaf_count,
            requests_made=count + work.parts,
            requests_reused=max(0, plan.request_count - count),
        )
        if work.dead or letters.letters:
            self._save_dead(letters, asked, work.dead)
            letters = self.context.dead_letters.load(self.asset, self.day, self.troop_key)
        fresh = frozenset(entry.chunk for entry in lander.index)
        return self._publish(outcome, harvest, plan, index, work.counts, letters, before=before, fresh=fresh)

    def _answers_upstream(self, index: Sequence[LandedIndex]) -> dict[bytes, LandedIndex]:
        """Answers of the list of warriors that are those of the data groups too, by the id of their request.

        Only those that are newer than what has landed here: a warrior that is new is in no older one.
        """
        if self.asset != "data_groups" or not self.context.vendor.one_list:
            return {}
        harvests = list_harvests(self.store, "warriors", self.day, self.troop_key)
        newest = newest_finished(harvests)
        if newest is None or newest.removed:
            return {}
        of_list = {*load_plan(self.store, newest.folder).bases, newest.folder}
        own = {entry.request: entry.fetched_at for entry in newest_answers(index)}
        lists = read_index(
            self.store, (key for harvest in harvests if harvest.folder in of_list for key in harvest.chunks)
        )
        return {
            entry.request: entry
            for entry in newest_answers(lists)
            if entry.page == 1 and entry.next is None and entry.status not in GONE
            if entry.request not in own or own[entry.request] < entry.fetched_at
        }

    def _land_again(
        self,
        lander: Lander,
        troop_id: str,
        upstream: Mapping[bytes, LandedIndex],
        requests: Iterable[PlannedRequest],
    ) -> None:
        """Land what another asset was answered to the same requests, without a call."""
        for planned in requests:
            for _, _, response in read_bodies(self.store, [upstream[request_id(planned.request.key)]]):
                at = (self.asset, troop_id, planned, 1, planned.request)
                lander.add(Landed(*at, None, response, attempts=0))
        lander.flush()

    def _save_dead(self, before: DeadPartition, asked: set[str], failed: Sequence[DeadLetter]) -> None:
        """Keep what failed now, and what had failed and was not asked again."""

        def after(current: DeadPartition) -> DeadPartition:
            known = {letter.request: letter for letter in current.letters}
            untouched = [letter for letter in current.letters if letter.request not in asked]
            again = [known[item.request].again(item) if item.request in known else item for item in failed]
            return replace(current, letters=(*untouched, *again))

        self.context.dead_letters.change(before, after, confirm=self.ownership.confirm)

    # Coverage

    def _plan_with(self, bases: tuple[str, ...]) -> Plan:
        return self.planner.plan(bases, self._leaves_of(bases))

    def _index(self, folders: Sequence[str]) -> list[LandedIndex]:
        there = [self.harvests[folder] for folder in folders if folder in self.harvests]
        return read_index(self.store, (key for harvest in there for key in harvest.chunks))

    def _dead_letters(self) -> DeadPartition:
        if self.untouched:
            return DeadPartition(self.asset, self.day, self.troop_key, ())
        return self.context.dead_letters.load(self.asset, self.day, self.troop_key)

    def _counting(self, index: Sequence[LandedIndex], counted_at: frozenset[str]) -> Iterator[LandedIndex]:
        """The newest answers, oldest first, without those that do not count.

        Provisional answers, fetched before the data had settled, count only where they lie in one of the
        chunks ``counted_at``: those of this very run.
        """
        settled = self.window.end.timestamp() + self.context.settling_seconds
        for entry in newest_answers(index):
            if entry.status in GONE and (entry.asset == "troops" or entry.page > 1):
                continue  # An older version took a wrong address for a list that is gone.
            provisional = self.asset == "performance_data" and entry.fetched_at.timestamp() < settled
            if not provisional or entry.chunk in counted_at:
                yield entry

    def _coverage(self, index: Sequence[LandedIndex], counted_at: frozenset[str] = frozenset()) -> Coverage:
        return Coverage(self.store, index, answered_requests(self._counting(index, counted_at)))

    def _leaves_of(self, bases: Sequence[str]) -> set[str]:
        """Keys of the leaves whose answers have landed in older harvests."""
        if not bases:
            return set()
        index = self._index(bases)
        coverage = self._coverage(index)
        # Answers are removed only where all had landed.
        removed = {base for base in bases if base in self.harvests and self.harvests[base].removed}
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
        harvest: HarvestFolder,
        plan: Plan,
        index: Sequence[LandedIndex],
        counts: Counts,
        letters: DeadPartition,
        *,
        before: Finish | None = None,
        fresh: frozenset[str] = frozenset(),
    ) -> Outcome:
        counted = fresh | {entry.chunk for entry in index} if before is not None and not fresh else fresh
        coverage = self._coverage(index, counted)
        tally = self._tally(plan, coverage, letters)
        answers = newest_answers(index)
        return self.publisher.publish(outcome, harvest, plan, answers, tally, letters, counts, before)

    def _tally(self, plan: Plan, coverage: Coverage, letters: DeadPartition) -> LeafCounts:
        """Count the leaves of a plan, and those of its bases that had landed there, by what became of them."""
        of_bases = self._leaves_of(plan.bases)
        given_up = letters.discarded_leaves
        tally = LeafCounts(planned=len(of_bases), landed=len(of_bases))
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


def _items(requests: Iterator[PlannedRequest], resume_at: dict[bytes, tuple[int, Request]]) -> Iterator[Item]:
    """Work items of planned requests; ``resume_at`` names page and request where pages have landed already."""
    for planned in requests:
        page, request = (1, planned.request)
        if resume_at:
            page, request = resume_at.get(request_id(planned.request.key), (page, request))
        yield planned, page, request
