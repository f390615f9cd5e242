"""The harvester: brings partitions of the four vendor assets from whatever state they are in to complete."""

from __future__ import annotations

import ctypes
import queue
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from vendor_assets.budget import OTHERS, Team
from vendor_assets.days import day_window
from vendor_assets.errors import (
    UPSTREAM,
    ConfigurationError,
    HarvestError,
    Reason,
    StoppedError,
    VendorAssetsError,
)
from vendor_assets.harvest import failures
from vendor_assets.harvest.context import HarvestContext
from vendor_assets.harvest.fetching import Client, Counts, Fetcher, Pending, Work
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.landing import LandedIndex, Lander, read_index
from vendor_assets.harvest.outcome import CHAIN, HarvestOptions, Outcome, Progress
from vendor_assets.harvest.ownership import Liveness, Ownership, acquire
from vendor_assets.harvest.partition import PartitionHarvest
from vendor_assets.harvest.retention import Removal, Retention
from vendor_assets.harvest.tabulate import newest_answers, tabulate_roster
from vendor_assets.harvest.traces import Traces
from vendor_assets.harvest.weights import Weights
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectInfo, ObjectStore
from vendor_assets.storage.roster import COLUMNS, Roster, Troop, troops_of
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets.turns import let_others, turn
from vendor_assets.vendors.base import Asset, PlannedRequest, Vendor

logger = get_logger(__name__)

_M_ARENA_MAX: Final = -8
"""glibc's name for the greatest number of heaps (``malloc.h``)."""


class Harvester:
    """Harvests partitions of the four vendor assets.

    Args:
        liveness: Tells whether other runs are alive.
        zone: Time zone of days.
        resolution_seconds: Wanted length of a timeslice.
        settling_seconds: How long after a window's end its data may still change; answers fetched earlier are
            provisional and asked again by the next run.
        threads: Calls in flight from this process.
        open_partitions: Partitions worked on at once.
        now: The time, an aware datetime.
        stop: Set it to end early; what has been answered is landed.
        calls_planned: Calls that its work was planned to take, if that is known yet; progress goes by it.
    """

    live: ClassVar[weakref.WeakSet[Harvester]] = weakref.WeakSet()
    """The harvesters of this process, for whoever shows progress."""
    busy_seconds: ClassVar[float] = 0.0
    """Time during which the closed harvesters of this process had something to fetch."""
    busy_stretches: ClassVar[int] = 0
    """In how many pieces that time came."""

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
        filters: Filters | None = None,
        weights: Weights | None = None,
        calls_planned: int | None = None,
    ) -> None:
        self.store = store
        self.vendor = vendor
        self.stop = stop or threading.Event()
        self._liveness = liveness
        self._zone = zone
        self._open_partitions = open_partitions
        self._weights = weights or Weights()
        self._now = now
        self._fetcher = Fetcher(client, vendor, threads=threads, stopping=self.stop.is_set)
        self._progress_lock = threading.Lock()
        self._works: list[tuple[Work, int, int]] = []
        self._asked: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self._partitions_done = 0
        self.calls_planned = calls_planned
        self._sightings: dict[date, list[LandedIndex]] = {}
        self._sightings_lock = threading.Lock()
        self._traces = Traces(store)
        self._context = HarvestContext(
            store=store,
            vendor=vendor,
            fetcher=self._fetcher,
            resolution_seconds=resolution_seconds,
            settling_seconds=settling_seconds,
            flush_seconds=flush_seconds,
            now=now,
            watch=self._watch,
            sightings=self._day_sightings,
            filters=filters or Filters(),
            stop=self.stop,
        )
        _share_freed_memory()
        Harvester.live.add(self)

    def close(self) -> None:
        """End the threads."""
        self.stop.set()
        self._fetcher.close()
        if self in Harvester.live:
            Harvester.live.discard(self)
            Harvester.busy_seconds += self._fetcher.busy_seconds
            Harvester.busy_stretches += self._fetcher.busy_stretches

    @property
    def waits_for_answers(self) -> bool:
        """Whether calls are in flight, or wait for their slots."""
        return self._fetcher.is_busy

    def land(self) -> None:
        """Land at once what has been answered; where the store refuses it, the next run asks again."""
        with self._progress_lock:
            landers = {work.lander for work, _, _ in self._works}
        for lander in landers:
            with suppress(VendorAssetsError):
                lander.flush(final=True)

    @property
    def progress(self) -> Progress:
        """How far the work of this process is."""
        planned, done, leaves_waiting = Counter[str](), Counter[str](), Counter[str]()
        with self._progress_lock:
            works = list(self._works)
            asked, begun, partitions_done = dict(self._asked), dict(self._begun), self._partitions_done
        for work, total, leaves in works:
            planned[work.asset] += total
            done[work.asset] += min(total, work.done)
            leaves_waiting[work.asset] += 0 if work.finished.is_set() else leaves - work.leaves_done
        return Progress(
            planned,
            done,
            dead=sum(len(work.dead) for work, _, _ in works),
            open_partitions=sum(not work.finished.is_set() for work, _, _ in works),
            partitions=sum(asked.values()),
            partitions_done=partitions_done,
            asked=asked,
            begun=begun,
            leaves_waiting=leaves_waiting,
            calls_planned=self.calls_planned,
            calls_made=sum(work.counts.calls for work, _, _ in works),
        )

    def troops(self, days: Sequence[date], options: HarvestOptions) -> Iterator[Outcome]:
        """Harvest the rosters of troops of some days; yields an outcome per day as it is known."""
        with self._progress_lock:
            self._asked["troops"] += len(days)
        for day in days:
            yield self._partition("troops", day, None, options, partial(Roster, day))

    def chain(
        self, assets: Sequence[Asset], partitions: Sequence[tuple[date, str]], options: HarvestOptions
    ) -> Iterator[Outcome]:
        """Harvest warriors, data groups and performance data of partitions; yields each outcome as it is known.

        Up to eight partitions are open at once, or one of each team where these are more; their requests share the
        threads by the teams' weights, in each those of the partition with the fewest left first. Each partition goes
        down the chain by itself. Closing the iterator stops the work: what has been answered is landed.

        Args:
            assets: Which of the chain; others are taken as they are in the store.
            partitions: (day, troop's partition key), in the order in which those of one team shall be opened.
        """
        chosen = [asset for asset in CHAIN if asset in assets]
        with self._progress_lock:
            self._asked.update(dict.fromkeys(chosen, len(partitions)))
        outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()

        # All troops of a day go by the same roster; one that is not there yet is looked for again.
        rosters = lru_cache(maxsize=self._open_partitions)(partial(Roster.read, self.store))
        reading = threading.Lock()

        def roster_of(day: date) -> Roster:
            with let_others(), reading:
                return rosters(day)

        waiting = _Waiting(partitions, self._teams_of(partitions, roster_of))

        def descend_next() -> None:
            with waiting.next() as (day, troop_key, team), turn():
                descend(day, troop_key, team)

        def descend(day: date, troop_key: str, team: Team) -> None:
            failed: Outcome | None = None
            roster = partial(roster_of, day)
            try:
                for asset in chosen:
                    if failed is not None:
                        outcome = replace(
                            failed,
                            asset=asset,
                            counts=Counts(),
                            message=f"not started: {failed.asset} of {day} {troop_key} {failed.state}"
                            f" ({failed.message})",
                            reason=Reason(UPSTREAM, what=f"{failed.asset} {failed.state}"),
                        )
                        with self._progress_lock:
                            self._begun[asset] += 1
                            self._partitions_done += 1
                    else:
                        outcome = self._partition(asset, day, troop_key, options, roster, team)
                        if outcome.state in ("failed", "held", "stopped"):
                            failed = outcome
                    outcomes.put(outcome)
            except BaseException as error:
                outcomes.put(error)
                raise

        expected = len(chosen) * len(partitions)
        places = max(self._open_partitions, waiting.teams)
        pool = ThreadPoolExecutor(max_workers=places, thread_name_prefix="partition")
        try:
            for number in range(len(partitions)):
                try:
                    pool.submit(descend_next)
                except RuntimeError as error:
                    # What is submitted waits for a thread that there is; without one it would wait for ever.
                    if not number:
                        message = (
                            f"no thread can be started ({error}); permit the process more memory or threads"
                        )
                        raise HarvestError(message) from error
            while expected:
                # A wait without a timeout would not notice an interrupt on every platform.
                try:
                    item = outcomes.get(timeout=0.5)
                except queue.Empty:
                    continue
                if isinstance(item, BaseException):
                    raise item
                expected -= 1
                with turn():
                    yield item
        except BaseException:
            self.stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def sight(self, options: HarvestOptions) -> dict[str, int]:
        """List troops and warriors now and land these sightings for the running day's roster.

        Returns:
            Number of troops whose warriors were listed, and calls made.

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
            wait=self.stop.wait,
        )
        troops = self._context.work(
            "troops",
            "",
            lander,
            _first_page(self.vendor.troops(window)),
            options,
            not_before=window.start,
        )
        self._fetcher.run(troops)
        _raise_first(troops)
        with tabulate_roster(
            "troops",
            store=self.store,
            vendor=self.vendor,
            answers=newest_answers(lander.index),
            troop_id="",
            window=window,
            previous=layout.table_key("troops", day),
            troop_keys=TroopKeys(self.store).assign,
        ) as found:
            sighted = [
                troop
                for batch in found.batches()
                for troop in troops_of(batch.select(COLUMNS).to_pylist())
                if self._context.filters.takes_troop(troop)
            ]
        works = [
            self._context.work(
                "warriors",
                troop.id,
                lander,
                _first_page(self.vendor.warriors(troop.id, window)),
                options,
                team=self._weights.team_of(troop),
                not_before=window.start,
            )
            for troop in sighted
        ]
        with ThreadPoolExecutor(max_workers=self._open_partitions) as pool:
            list(pool.map(self._fetcher.run, works))
        for work in works:
            _raise_first(work)
        return {"troops": len(sighted), "calls": sum(work.counts.calls for work in (troops, *works))}

    def remove_landed(self, days: int, options: HarvestOptions) -> Removal:
        """Remove what landed more than some days ago, of partitions that are complete; see ``retention.py``.

        Raises:
            VendorAssetsError: The run was stopped, or the store cannot be read or written.
        """
        return Retention(
            self.store,
            days,
            now=self._now(),
            holder=options.run_id,
            liveness=self._liveness,
            stop=self.stop.is_set,
        ).run()

    # One partition

    def _partition(
        self,
        asset: Asset,
        day: date,
        troop_key: str | None,
        options: HarvestOptions,
        roster: Callable[[], Roster],
        team: Team = OTHERS,
    ) -> Outcome:
        started, requests = time.monotonic(), self.store.requests_of_thread()
        with self._progress_lock:
            self._begun[asset] += 1
        base = Outcome(asset, day, troop_key, "failed")
        ownership: Ownership | None = None
        untouched = False
        table: ObjectInfo | None = None

        def look() -> None:
            nonlocal untouched, table
            untouched, table = False, self.store.head(base.table_key)

        try:
            # A key that somebody typed may be one that no path can hold.
            base = replace(base, table_key=layout.table_key(asset, day, troop_key))
            if self.stop.is_set():
                raise StoppedError("the run was stopped before this partition began")
            window = day_window(day, self._zone)
            if window.end > self._now():
                message = (
                    f"day {day} is not over: it ends at {window.end:%Y-%m-%d %H:%M} UTC; harvest it then"
                )
                raise ConfigurationError(message)
            prefix = layout.harvest_prefix(asset, day, troop_key)
            new = untouched = troop_key is not None and not self._traces.of(asset, day, troop_key)
            ownership = acquire(
                self.store,
                prefix,
                options.run_id,
                self._liveness,
                stop=self.stop.is_set,
                untouched=untouched,
                look=look,
            )
            if new and not untouched:
                # Somebody has harvested it since this run began: nobody meant to pay for that twice.
                options = replace(options, finished="reconcile")
            harvest = PartitionHarvest(
                self._context,
                base,
                window,
                ownership,
                options,
                roster,
                table_etag=table.etag if table else None,
                untouched=untouched,
                team=team,
            )
            outcome = harvest.run()
        except Exception as error:
            if not isinstance(error, VendorAssetsError):
                logger.exception("%s of %s %s failed", asset, day, troop_key or "")
            outcome = base.ended_by(error, stopping=self.stop.is_set())
        except BaseException:
            if ownership is not None:
                ownership.release()
            raise
        if ownership is not None:
            if not (untouched and outcome.succeeded):  # there is no failure to forget
                failures.note(ownership, outcome, self._now())
            try:
                ownership.release()
            except VendorAssetsError as error:
                logger.warning("%s of %s is held until this run's lease lapses: %s", asset, day, error)
        with self._progress_lock:
            self._partitions_done += 1
        return replace(
            outcome,
            # Grew while the partition was harvested: what it cost is told however it ended.
            counts=base.counts,
            seconds=time.monotonic() - started,
            store_requests=self.store.requests_of_thread() - requests,
        )

    def _teams_of(
        self, partitions: Sequence[tuple[date, str]], roster_of: Callable[[date], Roster]
    ) -> list[Team]:
        """The team of each partition's troop; one that is on no roster is known by its key."""
        if not self._weights:
            return [OTHERS] * len(partitions)
        known: dict[date, dict[str, Team]] = {}
        for day in {day for day, _ in partitions}:
            with suppress(VendorAssetsError):
                known[day] = self._weights.by_key(roster_of(day).troops)
        return [
            known.get(day, {}).get(key) or self._weights.team_of(Troop(key, key, None))
            for day, key in partitions
        ]

    def _watch(self, work: Work) -> None:
        with self._progress_lock:
            self._works.append((work, len(work.pending), work.pending.leaves))

    def _day_sightings(self, day: date) -> list[LandedIndex]:
        """Everything sighted on a day; read once per run."""
        with let_others(), self._sightings_lock:
            if day not in self._sightings:
                keys = [info.key for info in self.store.list(layout.sightings_prefix(day))]
                self._sightings[day] = read_index(self.store, keys)
            return self._sightings[day]


class _Waiting:
    """Partitions that wait to be opened; the next one is of the team that has the fewest open for its weight.

    Attributes:
        teams: How many teams there are.
    """

    def __init__(self, partitions: Sequence[tuple[date, str]], teams: Sequence[Team]) -> None:
        self._waiting: dict[Team, deque[tuple[date, str]]] = {}
        for partition, team in zip(partitions, teams, strict=True):
            self._waiting.setdefault(team, deque()).append(partition)
        self._open: Counter[Team] = Counter()
        self._lock = threading.Lock()
        self.teams = len(self._waiting)

    @contextmanager
    def next(self) -> Iterator[tuple[date, str, Team]]:
        """The next one, open in this block."""
        with self._lock:
            left = [team for team, partitions in self._waiting.items() if partitions]
            team = min(left, key=lambda team: self._open[team] / team.weight)
            day, key = self._waiting[team].popleft()
            self._open[team] += 1
        try:
            yield day, key, team
        finally:
            with self._lock:
                self._open[team] -= 1


def _share_freed_memory() -> None:
    """Let all threads allocate from the same few heaps.

    Responses are read by one thread and landed by another, and glibc's heap per thread keeps what the other thread
    freed: 32 threads held 150 MB with nothing in them. A heap of its own saves a thread nothing here, since Python
    runs one thread at a time.
    """
    with suppress(AttributeError, OSError):  # a C library without it
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _first_page(planned: PlannedRequest) -> Pending:
    return Pending(iter([(planned, 1, planned.request)]), 1, len(planned.leaves))


def _raise_first(work: Work) -> None:
    if work.failure is not None:
        raise work.failure
    if work.dead:
        letter = work.dead[0]
        raise HarvestError(f"{letter.request} failed after {letter.attempts} attempts: {letter.reason}")
