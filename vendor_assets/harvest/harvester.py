"""The harvester: brings partitions of the four vendor assets from whatever state they are in to complete."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, ClassVar, Final, Literal
from zoneinfo import ZoneInfo

from vendor_assets.days import Window, day_window
from vendor_assets.errors import (
    ConfigurationError,
    HarvestError,
    ObjectConflictError,
    ObjectNotFoundError,
    PartitionHeldError,
    StoppedError,
    VendorAssetsError,
)
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.fetching import Client, Counts, Fetcher, Work, pending_items
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
from vendor_assets.harvest.ownership import Liveness, Ownership, take
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

CHAIN: Final[tuple[Asset, ...]] = ("warriors", "data_groups", "performance_data")
"""The assets that are partitioned by day and troop, upstream first."""

State = Literal["complete", "empty", "partial", "failed", "held", "stopped"]
Mode = Literal["first", "resume", "report", "reconcile", "replace", "redrive", "rebuild"]


@dataclass(frozen=True)
class Order:
    """Who asks for a harvest, and what shall become of partitions that are finished already.

    Attributes:
        run_id: The run that asks.
        root_run_id: Its first ancestor, for retries and re-executions.
        finished: ``replace`` fetches finished partitions anew (a person's click), ``reconcile`` only what was
            not there before (sensors, the command).
        rebuild: Make tables anew from what has landed, without a call.
        work_class: ``scheduled`` or ``backfill``.
        permanent_too: Whether a redrive asks for permanent dead letters too; a person's does, a sensor's not.
    """

    run_id: str
    root_run_id: str
    finished: Literal["replace", "reconcile"] = "replace"
    rebuild: bool = False
    work_class: str = "scheduled"
    permanent_too: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of one partition.

    ``complete`` and ``empty`` are successes; ``partial`` (some leaves are dead letters), ``failed``, ``held``
    (another run has it) and ``stopped`` are not.

    Attributes:
        rows: Rows of the published table.
        planned, landed, gone, dead: Leaves; ``landed`` includes those that are ``gone``.
        requests_made: Planned requests that were sent in this run.
        requests_reused: Planned requests that were answered by what had landed before.
        counts: Calls, retries and so on of this run.
        sample: A few rows of the table.
        details: What else is worth showing: numbers and short texts.
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
    table_key: str = ""
    table_bytes: int = 0
    quarantined: int = 0
    sample: Sequence[dict[str, Any]] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether the partition may be shown green."""
        return self.state in ("complete", "empty")


@dataclass(frozen=True)
class Progress:
    """A moment's view of the work of this process: planned requests, by asset, of harvests opened so far."""

    planned: dict[str, int]
    done: dict[str, int]
    dead: int
    open_partitions: int
    partitions: int
    partitions_done: int

    @property
    def waiting(self) -> int:
        """Planned requests that are not done."""
        return sum(self.planned.values()) - sum(self.done.values())


class Harvester:
    """Harvests partitions of the four vendor assets.

    Args:
        store: Where landing zone and tables are.
        vendor: The vendor's dialect.
        client: Sends its requests within the budget.
        liveness: Tells whether other runs are alive.
        zone: Time zone of days.
        resolution_seconds: Wanted length of a timeslice.
        settling_seconds: How long after a window's end its data may still change; answers fetched earlier are
            provisional and asked again by the next run.
        threads: Calls in flight from this process.
        open_partitions: Partitions worked on at once.
        now: The time, an aware datetime.
        stop: Set it to end early; what has been answered is landed.
    """

    live: ClassVar[weakref.WeakSet[Harvester]] = weakref.WeakSet()
    """The harvesters of this process, for whoever shows progress."""
    busy_seconds: ClassVar[float] = 0.0
    """Time during which the closed harvesters of this process had something to fetch."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        vendor: Vendor,
        client: Client,
        liveness: Liveness,
        zone: ZoneInfo,
        resolution_seconds: int = 1800,
        settling_seconds: float = 1800,
        threads: int = 32,
        open_partitions: int = 8,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        stop: threading.Event | None = None,
        flush_seconds: float = 2.0,
    ) -> None:
        self.store = store
        self.vendor = vendor
        self.stop = stop or threading.Event()
        self._liveness = liveness
        self._zone = zone
        self._resolution_seconds = resolution_seconds
        self._settling_seconds = settling_seconds
        self._open_partitions = open_partitions
        self._now = now
        self._flush_seconds = flush_seconds
        self._dead_letters = DeadLetters(store)
        self._fetcher = Fetcher(client, vendor, threads=threads, stopping=self.stop.is_set)
        self._progress_lock = threading.Lock()
        self._works: list[tuple[Work, int]] = []
        self._partitions = 0
        self._partitions_done = 0
        self._sightings: dict[date, list[LandedIndex]] = {}
        self._sightings_lock = threading.Lock()
        Harvester.live.add(self)

    def close(self) -> None:
        """End the threads."""
        self.stop.set()
        self._fetcher.close()
        if self in Harvester.live:
            Harvester.live.discard(self)
            Harvester.busy_seconds += self._fetcher.busy_seconds

    @property
    def progress(self) -> Progress:
        """How far the work of this process is."""
        planned: dict[str, int] = {}
        done: dict[str, int] = {}
        dead = 0
        with self._progress_lock:
            works = list(self._works)
            partitions, partitions_done = self._partitions, self._partitions_done
        for work, total in works:
            planned[work.asset] = planned.get(work.asset, 0) + total
            done[work.asset] = done.get(work.asset, 0) + min(total, work.done)
            dead += len(work.dead)
        open_now = sum(1 for work, _ in works if not work.finished.is_set())
        return Progress(planned, done, dead, open_now, partitions, partitions_done)

    def troops(self, days: Sequence[date], order: Order) -> Iterator[Outcome]:
        """Harvest the rosters of troops of some days; yields an outcome per day as it is known."""
        with self._progress_lock:
            self._partitions += len(days)
        for day in days:
            yield self._partition("troops", day, None, order)

    def chain(
        self, assets: Sequence[Asset], partitions: Sequence[tuple[date, str]], order: Order
    ) -> Iterator[Outcome]:
        """Harvest warriors, data groups and performance data of some day × troop partitions.

        Up to eight partitions are open at once; their requests share the threads, those of the partition
        with the fewest left first. Each partition goes down the chain by itself. Closing the iterator stops
        the work: what has been answered is landed.

        Args:
            assets: Which of the chain; others are taken as they are in the store.
            partitions: (day, troop's partition key), in the order in which they shall be opened.

        Yields:
            One outcome per asset and partition, the moment it is known.
        """
        chosen = [asset for asset in CHAIN if asset in assets]
        with self._progress_lock:
            self._partitions += len(chosen) * len(partitions)
        outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()

        def descend(day: date, troop_key: str) -> None:
            failed: Outcome | None = None
            try:
                for asset in chosen:
                    if failed is not None:
                        outcome = replace(
                            failed,
                            asset=asset,
                            counts=Counts(),
                            message=f"not started: {failed.asset} of {day} {troop_key} {failed.state}"
                            f" ({failed.message})",
                        )
                        with self._progress_lock:
                            self._partitions_done += 1
                    else:
                        outcome = self._partition(asset, day, troop_key, order)
                        if outcome.state in ("failed", "held", "stopped"):
                            failed = outcome
                    outcomes.put(outcome)
            except BaseException as error:
                outcomes.put(error)
                raise

        expected = len(chosen) * len(partitions)
        pool = ThreadPoolExecutor(max_workers=self._open_partitions, thread_name_prefix="partition")
        try:
            for day, troop_key in partitions:
                pool.submit(descend, day, troop_key)
            while expected:
                # A wait without a timeout would not notice an interrupt on every platform.
                try:
                    item = outcomes.get(timeout=0.5)
                except queue.Empty:
                    continue
                if isinstance(item, BaseException):
                    raise item
                expected -= 1
                yield item
        except BaseException:
            self.stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def sight(self, order: Order) -> dict[str, int]:
        """List troops and warriors now and land these sightings for the running day's roster.

        Returns:
            Number of troops and calls made.

        Raises:
            VendorAssetsError: A list could not be had; what was seen is landed.
        """
        now = self._now()
        day = now.astimezone(self._zone).date()
        window = day_window(day, self._zone)
        sighting = layout.new_ulid(now)
        lander = Lander(
            self.store,
            lambda n: layout.sighting_key(day, sighting if n == 0 else f"{sighting}-{n:04d}"),
            max_seconds=30.0,
        )
        calls = 0
        troops = self._work("troops", "", lander, [self.vendor.troops(window)], {}, order)
        self._fetcher.run(troops)
        calls += troops.counts.calls
        _raise_first(troops)
        found = tabulate_roster(
            "troops",
            store=self.store,
            vendor=self.vendor,
            answers=newest_answers(read_index(self.store, lander.keys)),
            troop_id="",
            window=window,
            previous=layout.table_key("troops", day),
            troop_key=layout.encode_segment,
        )
        troop_ids: list[str] = found.table.column("troop_id").to_pylist()
        works = []
        for troop_id in troop_ids:
            work = self._work(
                "warriors", troop_id, lander, [self.vendor.warriors(troop_id, window)], {}, order
            )
            works.append(work)
        with ThreadPoolExecutor(max_workers=self._open_partitions) as pool:
            list(pool.map(self._fetcher.run, works))
        calls += sum(work.counts.calls for work in works)
        for work in works:
            _raise_first(work)
        return {"troops": len(troop_ids), "calls": calls}

    # One partition

    def _partition(self, asset: Asset, day: date, troop_key: str | None, order: Order) -> Outcome:
        started = time.monotonic()
        base = Outcome(asset, day, troop_key, "failed", table_key=layout.table_key(asset, day, troop_key))
        try:
            if self.stop.is_set():
                raise StoppedError("the run was stopped before this partition began")
            window = day_window(day, self._zone)
            if window.end > self._now():
                message = (
                    f"day {day} is not over: it ends at {window.end:%Y-%m-%d %H:%M} UTC; harvest it then"
                )
                raise ConfigurationError(message)
            prefix = layout.harvest_prefix(asset, day, troop_key)
            ownership = take(self.store, prefix, order.run_id, self._liveness, stop=self.stop.is_set)
            try:
                outcome = _PartitionHarvest(self, base, window, ownership, order).run()
            finally:
                ownership.release()
        except StoppedError as error:
            outcome = replace(base, state="stopped", message=str(error), retryable=True)
        except PartitionHeldError as error:
            outcome = replace(base, state="held", message=str(error), retryable=True)
        except VendorAssetsError as error:
            state: State = "stopped" if self.stop.is_set() else "failed"
            outcome = replace(base, state=state, message=str(error), retryable=error.retryable)
        with self._progress_lock:
            self._partitions_done += 1
        return replace(outcome, seconds=time.monotonic() - started)

    def _work(
        self,
        asset: Asset,
        troop_id: str,
        lander: Lander,
        requests: Sequence[PlannedRequest],
        resume_at: dict[str, tuple[int, Request]],
        order: Order,
    ) -> Work:
        work = Work(asset, troop_id, lander, pending_items(requests, resume_at), work_class=order.work_class)
        with self._progress_lock:
            self._works.append((work, len(work.pending)))
        return work

    def _day_sightings(self, day: date) -> list[LandedIndex]:
        """Everything sighted on a day; read once per run."""
        with self._sightings_lock:
            if day not in self._sightings:
                keys = [info.key for info in self.store.list(layout.sightings_prefix(day))]
                self._sightings[day] = read_index(self.store, keys)
            return self._sightings[day]


def _raise_first(work: Work) -> None:
    if work.failure is not None:
        raise work.failure
    if work.dead:
        letter = work.dead[0]
        raise HarvestError(f"{letter.request} failed after {letter.attempts} attempts: {letter.reason}")


class _PartitionHarvest:
    """The harvest of one partition by its owner."""

    def __init__(
        self, harvester: Harvester, base: Outcome, window: Window, ownership: Ownership, order: Order
    ) -> None:
        self.harvester = harvester
        self.store = harvester.store
        self.vendor = harvester.vendor
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
        dead = self.harvester._dead_letters.load(self.asset, self.day, self.troop_key)
        if any(letter.retryable or self.order.permanent_too for letter in dead.letters):
            return self._redrive(current, finish, dead)
        if self.order.finished == "replace":
            return self._fetch_new("replace", self._plan(frozenset()))
        return self._reconcile(current, finish)

    # The modes

    def _fetch_new(self, mode: Mode, plan: Plan) -> Outcome:
        harvest_id = layout.new_ulid(self.harvester._now())
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
        return self._with_table(replace(outcome, state=_state(finish), message=_message(finish)))

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
        letters = self.harvester._dead_letters.load(self.asset, self.day, self.troop_key)
        settled = answered | left | letters.discarded_leaves
        todo = [
            planned for planned in plan.requests if any(leaf.key not in settled for leaf in planned.leaves)
        ]
        writer = f"{self.ownership.epoch:04d}"
        lander = Lander(
            self.store,
            lambda n: layout.chunk_key(folder, writer, n),
            max_seconds=self.harvester._flush_seconds,
        )
        work = self.harvester._work(
            self.asset, plan.troop_id, lander, todo, _resume_at(index, answered), self.order
        )
        self.harvester._fetcher.run(work)
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
        known = {letter.request: letter for letter in before.letters}
        untouched = [letter for letter in before.letters if letter.request not in asked]
        again = [known[item.request].again(item) if item.request in known else item for item in failed]
        self.harvester._dead_letters.save(replace(before, letters=(*untouched, *again)))

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
            resolution_seconds=self.harvester._resolution_seconds,
            created_at=self.harvester._now(),
            upstream_partial=upstream_partial,
        )

    def _performance_requests(
        self, troop_id: str, warrior_id: str, groups: list[DataGroup], known: frozenset[str]
    ) -> list[PlannedRequest]:
        def plan(chosen: list[DataGroup]) -> list[PlannedRequest]:
            return self.vendor.performance_data(
                troop_id, warrior_id, chosen, self.window, self.harvester._resolution_seconds
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
        settled = self.window.end.timestamp() + self.harvester._settling_seconds
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
        letters = self.harvester._dead_letters.load(self.asset, self.day, self.troop_key)
        discarded = len((planned - landed) & letters.discarded_leaves)
        dead = len(planned - landed) - discarded
        answers = newest_answers(index)
        gone = len({key for entry in answers if entry.status in (404, 410) for key in entry.leaves})
        found = self._tabulate(plan, answers)
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
            | ({"discarded_leaves": discarded} if discarded else {}),
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
            finished_at=self.harvester._now(),
            table_etag=self.table_etag or "",
            details=outcome.details | {"quarantined": outcome.quarantined},
        )
        self.ownership.confirm()
        self.store.put(layout.finish_key(folder), finish.to_json())
        message = _message(finish)
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
                for entry in self.harvester._day_sightings(self.day)
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
        details: dict[str, Any] = {}
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
            settled = self.window.end.timestamp() + self.harvester._settling_seconds
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


def recorded(store: ObjectStore, asset: Asset, day: date, troop_key: str | None) -> Outcome | None:
    """What the store says of a partition: the outcome of its newest finished harvest; None if there is none."""
    finished = [harvest for harvest in list_harvests(store, asset, day, troop_key) if harvest.finish_etag]
    if not finished:
        return None
    finish = load_finish(store, finished[-1].folder)
    if finish is None:
        return None
    key = layout.table_key(asset, day, troop_key)
    head = store.head(key)
    return Outcome(
        asset,
        day,
        troop_key,
        _state(finish),
        mode="report",
        message=_message(finish),
        harvest_id=finished[-1].harvest_id,
        rows=finish.rows if head else 0,
        planned=finish.planned,
        landed=finish.landed,
        gone=finish.gone,
        dead=finish.dead,
        requests_reused=finish.requests,
        table_key=key,
        table_bytes=head.size if head else 0,
        quarantined=int(finish.details.get("quarantined", 0)),
        details={name: value for name, value in finish.details.items() if name != "quarantined"},
    )


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


def _state(finish: Finish) -> State:
    if finish.state == "partial":
        return "partial" if finish.landed or not finish.planned else "failed"
    return "complete" if finish.rows else "empty"


def _message(finish: Finish) -> str:
    if finish.dead:
        return (
            f"{finish.dead} of {finish.planned} leaves are dead letters; "
            "see them with: vendor-assets dead-letters list; materialize the partition again to redrive them"
        )
    if finish.state == "partial":
        return "the upstream table is partial: redrive its dead letters first"
    return str(finish.details.get("note", ""))
