"""Fetching: the shared worker threads that send what the open harvests have planned.

All open harvests of a run share one pool of threads, as many as calls may be in flight. A free thread takes its
next request from the team that has the fewest threads for its weight, there from the open harvest that has the fewest
left, so that small troops finish early.
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Protocol

from vendor_assets.budget import OTHERS, Team
from vendor_assets.client import Fetched, Usage
from vendor_assets.errors import (
    BudgetDeadlineError,
    ConfigurationError,
    HarvestError,
    StoppedError,
    VendorAssetsError,
    VendorError,
    VendorExpiredError,
    VendorNotFoundError,
    VendorProtocolError,
    VendorThrottledError,
    VendorTooLargeError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.harvest.dead_letters import DeadLetter
from vendor_assets.harvest.landing import Landed, Lander, split_record
from vendor_assets.harvest.verdict import error_of, verdict
from vendor_assets.logs import get_logger
from vendor_assets.tables import TABLES
from vendor_assets.vendors.base import Asset, Parsed, PlannedRequest, Request, Response, Vendor
from vendor_assets.work_class import SCHEDULED, WorkClass

logger = get_logger(__name__)

MAX_PAGES = 10_000
"""Pages of one list after which it is taken for endless."""

MAX_READINGS = 4
"""How often a roster of several pages is read at most, until a reading brings nothing new."""

EXCERPTS_KEPT = 1_000
"""Dead letters of one run and partition that keep the beginning of their answer."""

VENDOR_DOWN_AFTER = 20
"""Requests in a row that fail because the vendor is away, without one success, after which a run gives up."""

PART_ATTEMPTS = 2
"""Attempts of each part of a request that was split; the whole has had all of its attempts."""

_NOT_ITS_OWN = frozenset((*range(300, 400), 401, 402, 403, 404, 405, 406, 407, 410, 415, 429, 451, 501, 505))
"""Statuses that asking for less cannot change: redirects and others. Source: RFC 9110, sections 15.4 to 15.6."""
_MAY_BE_SIZE = frozenset((408, 413, 414, 422, 431, 503, 504))
"""Statuses that may mean that even one leaf is too much at a time; Prometheus says 422 and 503 for a query that is too
large or too slow."""

_CHAIN_REFUSED = frozenset((400, 404, 409, 410, 422))
"""Statuses by which vendors say that a cursor or a submitted query has expired."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Clocks differ, and HTTP dates are whole seconds; what comes so late is provisional anyway."""

_ROSTERS = frozenset(("troops", "warriors"))

_FLUSH_SECONDS = 0.5

CONFIRMED_SECONDS = 30.0
"""How long it counts that the vendor was found at its address."""

LEAST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 300.0
"""Bounds of what a vendor may say of how long to wait for an answer that is not there yet."""

PATIENCE_SECONDS = 3600.0
"""How long one run asks whether an answer is there; the next one asks on."""


class Client(Protocol):
    """The responsible HTTP client, as far as the harvest needs it."""

    def fetch(
        self,
        request: Request,
        *,
        work_class: WorkClass = ...,
        check: Callable[[Response], Any] | None = ...,
        ended: Callable[[], bool] | None = ...,
        usage: Usage | None = ...,
        max_attempts: int | None = ...,
        team: Team = ...,
    ) -> Fetched:
        """Send one request within the budget, with retries, unless ``ended``; raises a VendorError.

        ``usage`` grows by what it costs, however it ends.
        """
        ...


@dataclass
class Counts:
    """What a harvest cost, over the calls of this run. Thread-safe by the fetcher's lock.

    Attributes:
        calls: Requests sent, as the vendor counts them; of these, ``retries`` are those after a request's first.
        paced_seconds: Time that the harvest's calls waited for the budget, summed over threads.
        bytes: Bytes of response bodies.
    """

    calls: int = 0
    retries: int = 0
    throttled: int = 0
    paced_seconds: float = 0.0
    bytes: int = 0


Item = tuple[PlannedRequest, int, Request]
"""A planned request with the page to go on from: (planned, page number, page's request)."""


class Pending:
    """What of a harvest is still to be sent; each item is made when it is taken. Not thread-safe."""

    def __init__(self, items: Iterator[Item], count: int, leaves: int) -> None:
        self.leaves = leaves
        self.left = count
        self._items = items

    def __len__(self) -> int:
        """How many are left."""
        return self.left

    def pop(self) -> Item:
        """The next one."""
        self.left -= 1
        return next(self._items)

    def clear(self) -> None:
        """Forget what is left."""
        self.left = 0


@dataclass
class Work:
    """One open harvest's part in fetching.

    Attributes:
        pending: What is still to be sent.
        not_before: When what is asked for can be told at the earliest: an answer from before is none; None where that
            does not matter.
        dead: What failed for good.
        parts: Parts of split requests that were asked.
        waiting: What is asked again later, with the time (monotonic), the earliest first.
        waiting_since: When a request whose answer was not there was first asked for that, by its key.
        begun_anew: Keys of the requests that were asked from their first page on, since a later one was refused.
        used_up: A call would wait for too long: nothing new is begun, and what waits already is still answered.
        failure: What ended this harvest early: the key refused, the vendor down, the store full, a stop.
    """

    asset: Asset
    troop_id: str
    lander: Lander
    pending: Pending
    not_before: datetime | None = None
    work_class: WorkClass = SCHEDULED
    counts: Counts = field(default_factory=Counts)
    team: Team = OTHERS
    dead: list[DeadLetter] = field(default_factory=list)
    parts: int = 0
    waiting: list[tuple[float, int, Item]] = field(default_factory=list)
    waiting_since: dict[str, float] = field(default_factory=dict)
    begun_anew: set[str] = field(default_factory=set)
    done: int = 0
    leaves_done: int = 0
    running: int = 0
    used_up: BudgetDeadlineError | None = None
    failure: VendorAssetsError | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def clear(self) -> None:
        """Forget what is left to be sent."""
        self.pending.clear()
        self.waiting.clear()


@dataclass(frozen=True)
class _Failed:
    """A request that failed for good.

    Attributes:
        started: When its last page was first asked for.
        alone: Whether the vendor has answered nothing else since.
        once: Whether it was only asked as a part of a larger request that was answered otherwise.
    """

    planned: PlannedRequest
    error: VendorError
    started: datetime
    alone: bool
    once: bool = False


class _Sizes:
    """Which of some requests failed as a whole and not in parts, so that they were too much."""

    def __init__(self) -> None:
        self._of_part: dict[str, tuple[int, set[str]]] = {}

    def split(self, planned: PlannedRequest, parts: Sequence[PlannedRequest]) -> None:
        """A request that failed is asked for in parts."""
        left = {part.request.key for part in parts}
        self._of_part.update(dict.fromkeys(left, (len(planned.leaves), left)))

    def note(self, part: PlannedRequest, *, answered: bool) -> int:
        """What came of a part; returns the leaves of a request of which the last part was answered like all others."""
        size, left = self._of_part.get(part.request.key, (0, set()))
        if answered:
            left.discard(part.request.key)
        return size if answered and size > 1 and not left else 0


class _Readings:
    """A roster that comes in several pages, read until a reading brings nothing new.

    Where an entity goes while such a list is paged, the first one of the next page moves onto the page that was just
    read, and is on none that is to come. A second reading has it. Its pages follow those of the first, so that the
    roster is the union of all.
    """

    def __init__(self, first: Request, now: Request) -> None:
        self._first = first
        self._known: set[object] = set()
        self._new = 0
        self._several = now != first and self._is_page(now)
        self._read = 1

    def _is_page(self, request: Request) -> bool:
        """Whether a request is for a page of the same list; another path is another question."""
        return (request.method, request.path) == (self._first.method, self._first.path)

    def after(self, asset: Asset, parsed: Parsed) -> Request | None:
        """What to ask for after a page: the next one, the first one of another reading, or nothing."""
        entities = _entities(asset, parsed)
        self._new += len(entities - self._known)
        self._known |= entities
        if parsed.next is not None:
            # Without anybody on it, it perhaps tells where the answer to a query will be.
            self._several |= bool(entities) and self._is_page(parsed.next)
            return parsed.next
        if not self._several or not self._new:
            return None
        if self._read == MAX_READINGS:
            what = "%s changed in each of %d readings; who came and went meanwhile may be missing"
            logger.warning(what, self._first.path, self._read)
            return None
        self._new, self._read = 0, self._read + 1
        return self._first


class Fetcher:
    """A pool of threads that fetches for several open harvests at once.

    A request that fails for good is split into parts, down to the leaf, so that no leaf is lost for another's sake.
    Not where the fault is not the request's own: the vendor is down, or it refuses whatever it is asked.

    Args:
        vendor: Reads answers, to find the next page and to know an unreadable one at once.
        threads: How many calls may be in flight from this process.
        stopping: Tells that the run shall end; what is in flight is finished and landed.
    """

    def __init__(
        self, client: Client, vendor: Vendor, *, threads: int, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._client = client
        self._vendor = vendor
        self._threads = threads
        self._stopping = stopping
        self._condition = threading.Condition()
        self._open: list[Work] = []
        self._busy: Counter[Team] = Counter()
        self._workers: list[threading.Thread] = []
        self._closed = False
        self._down = 0
        self._answers: Counter[Asset] = Counter()
        self._fruitless: dict[Asset, int] = {}
        self._too_many: dict[Asset, int] = {}
        """Of so many leaves a request was too much: whole it failed, in parts it did not."""
        self._dead_at = -1
        self._probing = threading.Lock()
        self._probes, self._there = 0, False
        self._refused: VendorAssetsError | None = None
        self._numbers = count()
        self._confirming = threading.Lock()
        self._confirmed_until = 0.0
        self._busy_since = 0.0
        self.busy_seconds = 0.0
        """Time during which there was something to fetch."""
        self.busy_stretches = 0
        """In how many pieces that time came; the first call of each need not wait."""

    def run(self, work: Work) -> None:
        """Fetch everything that is pending in ``work`` and land it; returns when nothing is left or it failed.

        Problems are left in ``work.failure`` and ``work.dead``. The calling thread lands chunks meanwhile.
        """
        if work.pending and self._refused is not None:
            work.failure = self._refused
            work.pending.clear()
        if not work.pending:
            work.finished.set()
            return
        with self._condition:
            if not self._open:
                self._busy_since = time.monotonic()
                self.busy_stretches += 1
            self._open.append(work)
            # One thread more than the pending requests could use would only wait.
            wanted = min(self._threads, len(self._workers) + len(work.pending))
            while len(self._workers) < wanted:
                worker = threading.Thread(target=self._work, name=f"fetch-{len(self._workers)}", daemon=True)
                try:
                    worker.start()
                except (RuntimeError, MemoryError) as error:
                    # A limit on memory or processes: those that there are do the work, more slowly.
                    if not self._workers:
                        work.failure = _no_thread(error)
                        work.pending.clear()
                        self._finish_if_over(work)
                    logger.warning("%d threads fetch, no more can be started: %s", len(self._workers), error)
                    break
                self._workers.append(worker)
            self._condition.notify_all()
        while not work.finished.wait(_FLUSH_SECONDS):
            try:
                work.lander.flush_if_due()
            except VendorAssetsError as error:
                self._fail(work, error)
            if self._stopping():
                self._fail(work, StoppedError("the run was stopped; the next one goes on where it ended"))
            if not all(worker.is_alive() for worker in self._workers):
                # What it had taken is done by nobody, and nobody would say so.
                self._fail(work, _no_thread(MemoryError("a thread ended")))
                work.finished.set()
        try:
            work.lander.flush(final=True)
        except VendorAssetsError as error:
            work.failure = work.failure or error

    @property
    def is_busy(self) -> bool:
        """Whether a thread has taken something that it has not finished."""
        return self._busy.total() > 0

    def close(self) -> None:
        """End the threads once they are idle."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        for worker in self._workers:
            worker.join()

    def _fail(self, work: Work, error: VendorAssetsError) -> None:
        with self._condition:
            work.failure = work.failure or error
            work.clear()
            self._finish_if_over(work)

    def _finish_if_over(self, work: Work) -> None:
        if not (work.pending or work.waiting or work.running or work.finished.is_set()):
            if work in self._open:
                self._open.remove(work)
                if not self._open:
                    self.busy_seconds += time.monotonic() - self._busy_since
            work.failure = work.failure or work.used_up
            work.finished.set()

    def _take(self) -> tuple[Work, Item] | None:
        with self._condition:
            while True:
                wait: float | None = None
                waiting = [work for work in self._open if work.waiting]
                if waiting:
                    work = min(waiting, key=lambda work: work.waiting[0][:2])
                    wait = work.waiting[0][0] - time.monotonic()
                    if wait <= 0:
                        self._begin(work)
                        return work, heapq.heappop(work.waiting)[2]
                ready = [
                    (self._busy[work.team] / work.team.weight, work.pending.left, number, work)
                    for number, work in enumerate(self._open)
                    if work.pending.left
                ]
                if ready:
                    work = min(ready)[3]
                    self._begin(work)
                    return work, work.pending.pop()
                if self._closed:
                    return None
                self._condition.wait(wait)

    def _begin(self, work: Work) -> None:
        work.running += 1
        self._busy[work.team] += 1

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            work, item = taken
            failure: VendorAssetsError | None = None
            try:
                planned, page, request = item
                if page == 1 and len(planned.leaves) >= self._too_many.get(work.asset, sys.maxsize):
                    self._fetch_smaller(work, planned)
                else:
                    for failed in self._fetch_pages(work, planned, page, request) or ():
                        self._judge(failed.error)
                        self._fetch_parts(work, failed)
            except VendorAssetsError as error:
                failure = error
            except Exception as error:  # noqa: BLE001  a bug must end the harvest, not the thread
                failure = VendorAssetsError(f"fetching {item[2].key} failed unexpectedly: {error!r}")
                failure.__cause__ = error
            with self._condition:
                work.running -= 1
                self._busy[work.team] -= 1
                work.done += 1
                work.leaves_done += len(item[0].leaves)
                if failure is not None:
                    self._give_up(work, failure)
                self._finish_if_over(work)

    def _give_up(self, work: Work, failure: VendorAssetsError) -> None:
        """End one harvest early, or all where the key or the address is wrong: none would get an answer."""
        if isinstance(failure, BudgetDeadlineError):
            work.used_up = failure
            work.clear()
            return
        for_all = isinstance(failure, VendorUnauthorizedError | VendorNotFoundError)
        if for_all:
            self._refused = failure
        for each in list(self._open) if for_all else [work]:
            each.failure = each.failure or failure
            each.clear()
            self._finish_if_over(each)

    def _fetch_pages(
        self,
        work: Work,
        planned: PlannedRequest,
        page: int,
        request: Request,
        *,
        max_attempts: int | None = None,
    ) -> list[_Failed] | None:
        """Fetch one planned request with all its pages; lands what is answered, and returns what failed.

        None where an answer is not there yet: it is an item of its own then, for later.
        """
        seen: set[int | None] = set()
        readings = _Readings(planned.request, request)
        before = self._answers.total()

        def failed(error: VendorError) -> list[_Failed]:
            return [_Failed(planned, error, started, alone=self._answers.total() == before)]

        while True:
            started, usage = datetime.now(UTC), Usage()
            try:
                fetched = self._client.fetch(
                    request,
                    work_class=work.work_class,
                    team=work.team,
                    check=partial(verdict, self._vendor, work.asset, planned, request),
                    ended=lambda: work.failure is not None or self._stopping(),
                    usage=usage,
                    max_attempts=max_attempts,
                )
            except VendorError as error:
                final = self._not_found(work, planned, page, request, error)
                if final is None:
                    return []
                if page > 1 and self._begins_anew(work, planned, final):
                    page, request = 1, planned.request
                    seen.clear()
                    readings = _Readings(planned.request, request)
                    continue
                return failed(_as_failure(final))
            finally:
                self._count(work, usage)
            _check_clock(work, fetched.answered_at)
            self._down = 0
            with self._condition:
                self._answers[work.asset] += 1
            parsed: Parsed = fetched.value
            if parsed.wait_seconds is not None:
                late = self._ask_later(work, (planned, page, request), parsed.wait_seconds)
                return failed(late) if late else None
            # A list of one page cannot be endless.
            content = _content(work.asset, request, parsed) if parsed.next or page > 1 else None
            if content in seen or len(seen) >= MAX_PAGES:
                what = f"page {page} of {planned.request.key} repeats an earlier page; the list never ends"
                endless = VendorProtocolError(what, status=fetched.response.status, attempts=usage.attempts)
                return failed(endless)
            seen.add(content)
            if parsed.failures:
                return self._land_in_part(work, planned, fetched, started)
            following = parsed.next
            if work.asset in _ROSTERS and self._vendor.pages_move:
                following = readings.after(work.asset, parsed)
            at = (work.asset, work.troop_id, planned, page, request)
            work.lander.add(Landed(*at, following, fetched.response, usage.attempts))
            if following is None:
                return []
            if parsed.next is None:
                seen.clear()
            if not any(map(len, parsed.columns.values())):
                # Perhaps a query was submitted: a kill must not lose where its answer will be.
                work.lander.flush()
            page, request = page + 1, following

    def _land_in_part(
        self, work: Work, planned: PlannedRequest, fetched: Fetched, started: datetime
    ) -> list[_Failed]:
        """Land what of a request was answered as the answer to a part of it; returns the other parts, not asked yet."""
        parsed: Parsed = fetched.value
        lost = {key for failure in parsed.failures for key in failure.leaves}
        kept = self._vendor.part(planned, [leaf.key for leaf in planned.leaves if leaf.key not in lost])
        others = [self._vendor.part(planned, failure.leaves) for failure in parsed.failures]
        work.lander.add(split_record(work.asset, work.troop_id, planned, [kept, *others]))
        at = (work.asset, work.troop_id, kept, 1, kept.request)
        work.lander.add(Landed(*at, None, fetched.response, fetched.usage.attempts))
        status = fetched.response.status
        return [
            _Failed(part, error_of(failure, status), started, alone=False, once=True)
            for part, failure in zip(others, parsed.failures, strict=True)
        ]

    def _begins_anew(self, work: Work, planned: PlannedRequest, error: VendorError) -> bool:
        """Whether a request is asked from its first page on, since a later one cannot be had; once in a run."""
        if not isinstance(error, VendorExpiredError) and error.status not in _CHAIN_REFUSED:
            return False
        with self._condition:
            before = planned.request.key in work.begun_anew
            work.begun_anew.add(planned.request.key)
        if not before:
            logger.info("%s is asked from the start: %s", planned.request.path, error)
        return not before

    def _ask_later(self, work: Work, item: Item, seconds: float) -> VendorError | None:
        """Ask once more after a while; returns the failure where that has been going on for too long."""
        now, key = time.monotonic(), item[2].key
        wait = min(max(LEAST_WAIT_SECONDS, seconds), LONGEST_WAIT_SECONDS)
        with self._condition:
            asked = now - work.waiting_since.setdefault(key, now)
            if asked + wait > PATIENCE_SECONDS:
                del work.waiting_since[key]
                message = f"{key} has no answer after {asked:.0f} s, the vendor is still at it"
                return VendorUnavailableError(message, status=200)
            if work.failure is None:
                # Counted as done when its answer is there.
                work.done -= 1
                work.leaves_done -= len(item[0].leaves)
                heapq.heappush(work.waiting, (now + wait, next(self._numbers), item))
                self._condition.notify()
        return None

    def _not_found(
        self, work: Work, planned: PlannedRequest, page: int, request: Request, error: VendorError
    ) -> VendorError | None:
        """A 404 or 410: an entity that is gone lands; anything else is a failure, and nothing of it is kept.

        Raises:
            VendorNotFoundError: The vendor is not at its address.
        """
        if not isinstance(error, VendorNotFoundError):
            return error
        try:
            self._confirm_address(work)
        except VendorNotFoundError:
            raise
        except VendorError as unsure:
            return unsure
        # The next page of a list is no entity that could be gone.
        if page == 1 and self._vendor.says_gone(request, error.excerpt):
            answer = Response(error.status or 404, {}, error.excerpt.encode(), datetime.now(UTC))
            at = (work.asset, work.troop_id, planned, page, request)
            work.lander.add(Landed(*at, None, answer, error.attempts))
            return None
        return _not_gone(request, error)

    def _confirm_address(self, work: Work) -> None:
        """Make sure that the vendor is at its address, unless that was done just before.

        Raises:
            VendorError: It is not there (VendorNotFoundError), or that cannot be told now.
        """
        with self._confirming:
            if time.monotonic() < self._confirmed_until:
                return
            try:
                self._probe(work, ended=lambda: work.failure is not None or self._stopping())
            except VendorNotFoundError as error:
                message = (
                    f"{self._vendor.title} is not at this address: {error}; is VENDOR_URL right? "
                    "Nothing of this is kept, the next run asks again"
                )
                raise VendorNotFoundError(message, status=error.status, attempts=error.attempts) from error
            self._confirmed_until = time.monotonic() + CONFIRMED_SECONDS

    def _probe(self, work: Work, **options: Any) -> None:
        """Ask the cheapest of all requests; raises a VendorError."""
        usage = Usage()
        try:
            self._client.fetch(
                self._vendor.probe(), work_class=work.work_class, team=work.team, usage=usage, **options
            )
        finally:
            self._count(work, usage)

    def _judge(self, error: VendorError) -> None:
        """End the harvest where the failure is not the request's own."""
        if isinstance(error, VendorUnauthorizedError) and (error.status == 401 or error.key_refused):
            # Every other request would be refused too: do not spend calls on learning it again.
            raise error
        if isinstance(error, VendorUnavailableError) and error.status not in (404, 410):
            self._down += 1
            if self._down >= VENDOR_DOWN_AFTER:
                message = (
                    f"the vendor is down: {self._down} requests in a row failed, the last one with: {error}; "
                    "what had been answered is landed, the next run goes on from there"
                )
                raise VendorUnavailableError(message, status=error.status, attempts=error.attempts) from error
        else:
            self._down = 0

    def _fetch_parts(self, work: Work, failed: _Failed) -> None:
        """Find what of a failed request fails: land the rest, and make that a dead letter.

        The parts are asked one by one, those of a part that failed after its neighbours, so that as long as anything
        succeeds a bad leaf costs two requests a level. Where nothing does, the search ends after a few levels.
        """
        patience = 4 + 2 * len(failed.planned.leaves).bit_length()
        fruitless = 0
        sizes = _Sizes()
        waiting = deque(self._instead(work, failed, sizes))
        while waiting:
            if work.failure is not None:
                return  # the next run goes on with the parts that are left
            part = waiting.popleft()
            if fruitless >= patience:
                self._to_dead_letter(work, replace(failed, planned=part))
                continue
            work.parts += 1
            found = self._fetch_pages(work, part, 1, part.request, max_attempts=PART_ATTEMPTS)
            if found is None:
                continue  # Whether it was too much is not known yet.
            if size := sizes.note(part, answered=not found):
                self._too_many[work.asset] = min(size, self._too_many.get(work.asset, size))
            fruitless = 0 if not found or found[0].once else fruitless + 1
            for again in found:
                if isinstance(again.error, VendorUnauthorizedError):
                    self._judge(again.error)
                # The vendor was there a moment ago: whether it still is, the patience tells.
                failed = replace(again, alone=False)
                if fruitless < patience:
                    waiting += self._instead(work, failed, sizes)
                else:
                    self._to_dead_letter(work, failed)
        if fruitless >= patience:
            # Nothing else is split until the vendor has answered something of this kind again.
            self._fruitless[work.asset] = self._answers[work.asset]

    def _instead(self, work: Work, failed: _Failed, sizes: _Sizes) -> list[PlannedRequest]:
        """What to ask for in place of a failed request, in order; where nothing is, it is dead."""
        if failed.once and failed.error.retryable:
            return [failed.planned]
        parts = self._split(work, failed)
        if parts:
            sizes.split(failed.planned, parts)
        else:
            self._to_dead_letter(work, failed)
        return parts

    def _fetch_smaller(self, work: Work, planned: PlannedRequest) -> None:
        """Fetch a request that is as large as one that was too much, in parts that are smaller."""
        most = self._too_many[work.asset]
        waiting = [planned]
        while waiting:
            if work.failure is not None:
                return
            part = waiting.pop()
            parts = self._parts_of(part) if len(part.leaves) >= most else []
            if parts:
                work.lander.add(split_record(work.asset, work.troop_id, part, parts))
                waiting += parts[::-1]
                continue
            work.parts += part is not planned
            for failed in self._fetch_pages(work, part, 1, part.request) or ():
                self._judge(failed.error)
                self._fetch_parts(work, failed)

    def _parts_of(self, planned: PlannedRequest) -> list[PlannedRequest]:
        """A request in smaller parts, as the vendor splits it; none where these are not sound."""
        parts = self._vendor.split(planned)
        keys = {part.request.key for part in parts}
        whole = {leaf.key for leaf in planned.leaves} == {leaf.key for part in parts for leaf in part.leaves}
        sound = len(keys) >= max(2, len(parts)) and planned.request.key not in keys and whole
        return parts if sound else []

    def _split(self, work: Work, failed: _Failed) -> list[PlannedRequest]:
        """The parts to ask for in place of a failed request; none where it is to be a dead letter."""
        planned, error = failed.planned, failed.error
        if isinstance(error, VendorThrottledError) or error.status in _NOT_ITS_OWN:
            return []
        if self._fruitless.get(work.asset) == self._answers[work.asset]:
            return []
        if len(planned.leaves) == 1 and not _may_be_size(error):
            return []
        parts = self._parts_of(planned)
        if not parts:
            return []
        if failed.alone and isinstance(error, VendorUnavailableError) and not self._is_there(work):
            return []
        work.lander.add(split_record(work.asset, work.troop_id, planned, parts))
        return parts

    def _is_there(self, work: Work) -> bool:
        """Whether the vendor answers at all, where nothing else tells; asked once for each time it may be down."""
        probes = self._probes
        with self._probing:
            if self._probes != probes:
                return self._there  # another thread has found out meanwhile
            answered = self._answers.total()
            if self._dead_at == answered:
                return False
            self._dead_at, self._there = answered, False
            try:
                self._probe(work, max_attempts=1)
                self._dead_at, self._there = -1, True
            except VendorError:
                pass
            self._probes += 1
            return self._there

    def _to_dead_letter(self, work: Work, failed: _Failed) -> None:
        planned, error, started = failed.planned, failed.error, failed.started
        letter = DeadLetter(
            leaves=tuple(leaf.key for leaf in planned.leaves),
            request=planned.request.key,
            reason=str(error),
            retryable=error.retryable,
            status=error.status,
            attempts=error.attempts,
            first_at=error.first_at or started,
            last_at=error.last_at or datetime.now(UTC),
            excerpt=error.excerpt[:2000],
            kind=error.kind,
            what=error.reason.what,
        )
        with self._condition:
            # Where everything fails the first answers tell as much as all of them, which would fill the memory.
            work.dead.append(letter if len(work.dead) < EXCERPTS_KEPT else replace(letter, excerpt=""))

    def _count(self, work: Work, usage: Usage) -> None:
        with self._condition:
            work.counts.calls += usage.calls
            work.counts.retries += max(0, usage.calls - 1)
            work.counts.throttled += usage.throttled
            work.counts.paced_seconds += usage.waited_seconds
            work.counts.bytes += usage.bytes


def _check_clock(work: Work, answered_at: datetime | None) -> None:
    """Refuse an answer from before the day was over, or for a sighting had begun: it does not tell of the day."""
    least = work.not_before
    if least is None or answered_at is None or answered_at >= least - CLOCK_TOLERANCE:
        return
    ours = datetime.now(UTC)
    raise ConfigurationError(
        f"by the vendor's clock it is {answered_at:%Y-%m-%d %H:%M} UTC, and what is asked for can be told from "
        f"{least:%Y-%m-%d %H:%M} on; this machine's clock says {ours:%Y-%m-%d %H:%M}: set the one that is wrong, "
        "or see that nothing in between gives old answers; then harvest it again"
    )


def _no_thread(error: Exception) -> VendorAssetsError:
    return HarvestError(
        f"no thread can fetch ({str(error) or 'out of memory'}); permit the process more memory or threads (ulimit -v, "
        "ulimit -u, the container's limits); what had been answered is landed, the next run goes on from there"
    )


def _as_failure(error: VendorError) -> VendorError:
    """What has expired once more may be another answer another time."""
    if not isinstance(error, VendorExpiredError):
        return error
    return _unavailable(str(error), error)


def _may_be_size(error: VendorError) -> bool:
    """Whether a failure may mean that too much was asked for; a timeout has no status, or the broken answer's."""
    if isinstance(error, VendorUnavailableError):
        return error.status is None or error.status == 200 or error.status in _MAY_BE_SIZE
    return isinstance(error, VendorTooLargeError) or error.status in _MAY_BE_SIZE


def _keys(asset: Asset, parsed: Parsed) -> tuple[object, ...]:
    """The keys of the rows of a page."""
    columns = parsed.lists()
    return tuple(zip(*(columns[name] for name in TABLES[asset].key if name in columns), strict=True))


def _content(asset: Asset, request: Request, parsed: Parsed) -> int:
    """What a page is about: two pages of a list with the same entities are the same page twice."""
    return hash((request.endpoint, _keys(asset, parsed), parsed.about, str(parsed.rejected)))


def _entities(asset: Asset, parsed: Parsed) -> set[object]:
    """Who is on a page: its rows, and what else tells it from others."""
    return {*_keys(asset, parsed), *parsed.about}


def _not_gone(request: Request, error: VendorNotFoundError) -> VendorUnavailableError:
    """A 404 or 410 that is no verdict on an entity: it may be another answer once the address is right."""
    message = (
        f"the vendor is at this address, but answers status {error.status} to {request.path[:200]} in a way that it "
        "never says that something is gone; is VENDOR_URL right, and nothing between that answers in its place?"
    )
    return _unavailable(message, error)


def _unavailable(message: str, error: VendorError) -> VendorUnavailableError:
    """Another error as one that may pass."""
    found = VendorUnavailableError(
        message, status=error.status, attempts=error.attempts, excerpt=error.excerpt
    )
    found.first_at, found.last_at = error.first_at, error.last_at
    return found
