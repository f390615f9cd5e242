"""The budget of one vendor account, as its users see it: slots for calls."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal, Self

from vendor_assets.budget.adaptation import Report
from vendor_assets.budget.clock import Clock, SystemClock
from vendor_assets.budget.database import Database, Snapshot
from vendor_assets.budget.headers import (
    answer_time,
    is_throttle,
    parse_policies,
    parse_quotas,
    wait_seconds,
)
from vendor_assets.budget.limits import Limit
from vendor_assets.budget.pace import (
    BACKFILL_FRESH_SECONDS,
    FRESH_SECONDS,
    GUARD_SECONDS,
    LATE_SECONDS,
    NOTHING_LEFT,
    QUICK_SECONDS,
    Ask,
    Grant,
    Later,
    Pace,
    Rule,
    TooLate,
)
from vendor_assets.budget.places import TTL_SECONDS, Member, Places
from vendor_assets.budget.told import Listener, Said
from vendor_assets.errors import (
    BudgetDeadlineError,
    BudgetError,
    BudgetUnavailableError,
    ConfigurationError,
    StoppedError,
)
from vendor_assets.logs import get_logger

log = get_logger(__name__)

WorkClass = Literal["scheduled", "backfill"]

AHEAD_SECONDS: Final = 0.05
"""A process reserves at most so far ahead for callers that wait: hardly anything is lost when it is killed, and
a newcomer waits for one call of each process."""

BLOCK_SECONDS: Final = 0.25
"""A block for callers that are about to come holds at most so much of the process's fair part of the pace."""

EARLY_SECONDS: Final = 0.003
"""The epochs are looked at this long before a slot, so that the look does not make the call late."""

LOOK_SECONDS: Final = 1.0
"""Who waits for longer than this looks so often whether the slot was taken back."""

PROMOTION_SECONDS: Final = 10.0
"""A backfill call that has waited so long counts as scheduled."""

_BEAT_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.5
"""A caller that waits looks so often whether it still wants to."""
_SHORT_BEAT_SECONDS: Final = 0.2
_IDLE_SECONDS: Final = 5.0
_TELL_SECONDS: Final = 0.25
_QUICK_RATE: Final = 12.0
_QUICK_INTERVAL_SECONDS: Final = 0.01
_SHORTEST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LATEST_SECONDS: Final = 0.05
_LATEST_ALONE_SECONDS: Final = 1.0
_JITTER_SECONDS: Final = 0.001
"""A call that is no later than this counts as punctual for the next one; each would push its successor otherwise."""
_IMMEDIATE_SECONDS: Final = 0.003
_LARGEST_LAG_SECONDS: Final = 0.1
_FIRST_BLOCK: Final = 4
_LARGEST_BLOCK: Final = 1000
_DRAGGED_BEFORE_SECONDS: Final = 60.0
_LONG_AGO_SECONDS: Final = 300.0
_SAY_AGAIN_SECONDS: Final = 60.0
_PACE: Final = "pace"
_PLACES: Final = "places"
_numbers = itertools.count()


@dataclass(eq=False)
class _Waiter:
    """A thread that wants to send."""

    ask: Ask
    started: float
    condition: threading.Condition
    deadline_seconds: float | None
    stopped: Callable[[], bool] | None = None
    grant: Grant | None = None
    local_at: float = 0.0
    not_before: float = 0.0
    error: BudgetError | None = None


@dataclass(frozen=True)
class _View:
    """What this process knows of the pace's document.

    Attributes:
        pace: As it was read or written.
        body: The same, as text.
        at: When it was read, on this machine's monotonic clock.
    """

    pace: Pace
    body: str
    at: float


class Slot:
    """One call's place in the budget; a context manager that blocks on entry until the call may be sent.

    Attributes:
        waited_seconds: How long it was paced.
        work_class: ``scheduled`` or ``backfill``.
        endpoint: Where the call goes.
    """

    def __init__(
        self,
        budget: Budget,
        endpoint: str,
        weight: int,
        work_class: WorkClass,
        deadline_seconds: float | None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        self._budget = budget
        self._weight = weight
        self._deadline_seconds = deadline_seconds
        self._stopped = stopped
        self._grant: Grant | None = None
        self._observed = False
        self._entered_at = 0.0
        self.waited_seconds = 0.0
        self.work_class: WorkClass = work_class
        self.endpoint = endpoint

    def __enter__(self) -> Self:
        ask = Ask(self._budget.known_endpoint(self.endpoint), self._weight, self.work_class == "backfill")
        self._grant, self.waited_seconds = self._budget.acquire(ask, self._deadline_seconds, self._stopped)
        self._entered_at = self._budget.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._observed and self._grant is not None and self._grant.probe:
            # Whatever happened, the vendor was not seen to be back.
            self.observe(status=None, headers={}, seconds=0.0, error=True)
        self._budget.release()

    def observe(
        self,
        *,
        status: int | None,
        headers: Mapping[str, str],
        seconds: float,
        error: bool = False,
        throttled: bool | None = None,
    ) -> None:
        """Tell what came of the call; once for each attempt.

        Args:
            status: Of the answer; None where there was none.
            headers: Of the answer.
            seconds: From sending to the end of the answer.
            error: Whether there was no answer that can be used: no connection, a timeout, a broken body.
            throttled: Whether the vendor said that we were too fast, whatever the status; None: by the rule of
                :func:`~vendor_assets.budget.headers.is_throttle`.
        """
        self._observed = True
        if throttled is None:
            throttled = is_throttle(status, headers)
        try:
            self._budget.observe(
                self._grant, self._entered_at, self.endpoint, status, headers, seconds, error, throttled
            )
        except BudgetUnavailableError as unavailable:
            # The answer is worth more than the note; nobody sends while the database is away.
            log.warning("what came of a call could not be told: %s", unavailable)


@dataclass(frozen=True)
class BudgetState:
    """What the budget does now.

    Attributes:
        account: The vendor account.
        limits: What the vendor permits, as texts.
        share: Our part of it.
        permitted_rate: Share times limit, calls per second; None while unknown (``auto`` before any call).
        rate: The pace at which slots are given now, calls per second; None where nothing paces.
        why: One sentence: what decides the rate now.
        hold_seconds: Until anybody sends again; 0 without a hold.
        hold_reason: Why.
        breaker: ``closed`` (all is well) or ``open`` (the vendor is down, one probe at a time).
        ahead_seconds: How far ahead slots are given: what a newcomer waits at most for the pace.
        waiting: Callers that wait for a slot, over all processes, at their last heartbeat.
        in_flight: Calls in flight, over all processes, at their last heartbeat.
        max_in_flight: The cap on these.
        used: For counted limits, by name: calls in the window and calls permitted.
        processes: One line for each process that uses the budget.
        ceiling: The rate that is not passed since the vendor fell, calls per second; None where it never did.
        ceiling_reason: At which rate it fell and when, and how long the ceiling holds.
        slowed: Since when and why the pace is far below the configured limit; empty where it is not.
    """

    account: str
    limits: tuple[str, ...]
    share: float
    permitted_rate: float | None
    rate: float | None
    why: str
    hold_seconds: float
    hold_reason: str
    breaker: str
    ahead_seconds: float
    waiting: int
    in_flight: int
    max_in_flight: int
    used: dict[str, tuple[int, int]] = field(default_factory=dict)
    processes: tuple[str, ...] = ()
    ceiling: float | None = None
    ceiling_reason: str = ""
    slowed: str = ""


class Budget:
    """The rate at which one vendor account may be called, shared by all that name the same database.

    Threads, processes and machines with the same database and account share one pace. The object is safe
    for threads; after a fork the child's copy is a new, empty member.

    Args:
        database_url: SQLAlchemy's: ``sqlite:////folder/file.db`` or ``postgresql://user:password@host/name``.
        account: Name of the vendor account.
        limits: The vendor's quota, or ``auto`` where it is not known.
        share: Our part of it, above 0 to 1.
        max_in_flight: Calls at once, over all processes.
        holder: Names this process; by default host, process id and a number.
        clock: Passed in by tests.

    Raises:
        ConfigurationError: An argument is not possible.
    """

    def __init__(
        self,
        database_url: str,
        account: str,
        *,
        limits: Sequence[Limit] | Literal["auto"],
        share: float = 0.8,
        max_in_flight: int = 32,
        holder: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigurationError(f"share {share!r} is not possible; accepted is a number above 0 to 1")
        if max_in_flight < 1:
            raise ConfigurationError(
                f"max_in_flight {max_in_flight!r} is not possible; accepted is 1 or more"
            )
        self.account = account
        self.limits: tuple[Limit, ...] = () if limits == "auto" else tuple(limits)
        self.auto = not self.limits
        if len({limit.name for limit in self.limits}) < len(self.limits):
            raise ConfigurationError(f"limits {list(map(str, self.limits))} need different names")
        self.share = share
        self.max_in_flight = max_in_flight
        self._clock: Clock = clock or SystemClock()
        self._given_holder = holder
        self._database = Database(database_url, self._clock)
        self._rules = tuple(Rule(limit, share) for limit in self.limits)
        self._counted = any(limit.counted for limit in self.limits)
        self.start_over()
        _open_budgets.add(self)

    def start_over(self) -> None:
        """Be a new member with no threads and no slots; in the child of a fork."""
        self.holder = self._given_holder or f"{socket.gethostname()}-{os.getpid()}-{next(_numbers)}"
        self._mutex = threading.Lock()
        self._queues: tuple[deque[_Waiter], deque[_Waiter]] = (deque(), deque())
        self._waiters: set[_Waiter] = set()
        self._leading = False
        self._outstanding = 0
        self._in_use = 0
        self._peak = 0
        self._places = 0
        self._places_until = 0.0
        self._ask_places_at = 0.0
        self._processes = 1
        self._interval = 0.0
        self._report = Report()
        self._listener = Listener()
        self._said_cause, self._said_at = "", -math.inf
        self._told_at = 0.0
        self._spares: deque[tuple[Ask, Grant, float]] = deque()
        self._spare_limit = 0
        self._block = 0
        self._lost = 0
        self._no_spares_until = 0.0
        self._pause_seconds = _SHORTEST_PAUSE_SECONDS
        self._served = 0
        self._counted_at = 0.0
        self._own_rate = 0.0
        self._lag = 0.0
        self._late_seconds = _tolerance(self.limits, self.share, 1)
        self._free_at: dict[str, float] = {}
        self._slack_seconds = 0.0
        self._view: _View | None = None
        self._lost_view: _View | None = (
            None  # the last one there was; a document that is lost is made from it
        )
        self._closed = False
        self._used_at = 0.0
        self._heart: threading.Thread | None = None
        self._heart_stops = threading.Event()

    # -- what callers use --------------------------------------------------------------------------

    def slot(
        self,
        *,
        endpoint: str = "",
        weight: int = 1,
        work_class: WorkClass = "scheduled",
        deadline_seconds: float | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Slot:
        """A place for one call: ``with budget.slot(endpoint="hosts") as slot: ...``.

        Entering blocks until the call may be sent now; leaving frees its place among those in flight.

        Args:
            endpoint: Where the call goes, as the limits name it.
            weight: What the call counts.
            work_class: Scheduled work goes before backfills.
            deadline_seconds: The longest acceptable wait; None for any.
            stopped: Whether nobody wants the slot any more; asked while waiting, every half second and at once after
                :meth:`wake`.

        Raises:
            StoppedError: On entry: ``stopped``; a slot that was reserved is lost.
            BudgetDeadlineError: On entry: the wait would be longer; nothing was taken.
            BudgetUnavailableError: On entry: the database cannot be reached.
            ConfigurationError: The weight can never fit into a limit.
        """
        if weight < 1:
            raise ConfigurationError(f"a call of weight {weight} is not possible; accepted is 1 or more")
        for rule in self._rules:
            if weight > rule.calls and rule.limit.concerns(endpoint):
                raise ConfigurationError(f"a call of weight {weight} does not fit into {rule.limit}")
        return Slot(self, endpoint, weight, work_class, deadline_seconds, stopped)

    def wake(self) -> None:
        """Let every caller of this process that waits see whether it still wants its slot."""
        with self._mutex:
            for waiter in self._waiters:
                waiter.condition.notify()

    @property
    def permitted_rate(self) -> float:
        """Share times limit, in calls per second; with ``auto`` what was found so far."""
        wide = [limit.rate for limit in self.limits if not limit.endpoints]
        if wide:
            return self.share * min(wide)
        view = self._view
        return (view.pace.tuning.rate or 0.0) if view is not None else 0.0

    def state(self) -> BudgetState:
        """What the budget does now, over all processes.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        snapshot = self._database.read(self.account, _PACE, patience_seconds=3.0)
        now = snapshot.now
        pace = self._load(snapshot)
        found = self._database.read(self.account, _PLACES, patience_seconds=3.0)
        places = Places.load(found.body, found.now, self._database.boot)
        live = {
            holder: member
            for holder, member in places.members.items()
            if found.now - member.renewed_at <= TTL_SECONDS
        }
        rate = min(pace.ceiling(self._rules, now), pace.rate(now) or math.inf)
        hold = max(0.0, pace.held_until(now) - now)
        return BudgetState(
            account=self.account,
            limits=tuple(map(str, self.limits)) or ("auto",),
            share=self.share,
            permitted_rate=self.permitted_rate or pace.tuning.rate,
            rate=None if math.isinf(rate) else rate,
            why=self._why(pace, now),
            hold_seconds=hold,
            hold_reason=(pace.hold_reason if now < pace.hold_until else NOTHING_LEFT) if hold else "",
            breaker="open" if pace.breaker.open else "closed",
            ahead_seconds=max([0.0, *(track.arrival - now for track in pace.tracks.values())]),
            waiting=sum(member.waiting for member in live.values()),
            in_flight=sum(member.in_flight for member in live.values()),
            max_in_flight=min([self.max_in_flight, *(member.cap for member in live.values())]),
            used={
                rule.limit.name: (int(sum(number for _, number in track.counts)), rule.calls)
                for rule in self._rules
                if rule.limit.counted and (track := pace.tracks.get(rule.limit.name)) is not None
            },
            processes=tuple(
                f"{holder}: {member.work_class}, {member.in_flight} in flight of {member.granted} places, "
                f"{member.waiting} waiting"
                for holder, member in sorted(live.items())
            ),
            ceiling=pace.falls.height(now),
            ceiling_reason=self._ceiling_reason(pace, now),
            slowed=self._slowed(pace, now),
        )

    def lift_ceiling(self) -> str:
        """Forget how the vendor fell: somebody knows that it bears more.

        Returns:
            What was forgotten, as a sentence; empty where there was no ceiling.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        lifted = [""]

        def step(pace: Pace, now: float) -> None:
            lifted[0] = self._ceiling_reason(pace, now)
            pace.falls.forget()

        self._change(step)
        return lifted[0]

    def close(self) -> None:
        """Give back what this process holds; callers that wait get an error."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            for waiter in self._waiters:
                waiter.condition.notify()
            heart, self._heart = self._heart, None
            self._heart_stops.set()
        if heart is not None and heart is not threading.current_thread():
            heart.join(5.0)
        if self._places:
            with contextlib.suppress(BudgetUnavailableError):
                self._leave()
        self._database.close()

    def known_endpoint(self, endpoint: str) -> str:
        """The endpoint where some limit names it or the vendor tells of one, else none; for :class:`Slot`."""
        view = self._view
        told = view is not None and endpoint in view.pace.narrow_endpoints()
        return endpoint if told or any(endpoint in limit.endpoints for limit in self.limits) else ""

    def monotonic(self) -> float:
        """The time by which the budget sleeps; for :class:`Slot`."""
        return self._clock.monotonic()

    # -- acquiring ---------------------------------------------------------------------------------

    def acquire(
        self, ask: Ask, deadline_seconds: float | None, stopped: Callable[[], bool] | None = None
    ) -> tuple[Grant, float]:
        """Block until the call may be sent; for :class:`Slot`.

        Returns:
            The slot, and the seconds waited for it.
        """
        started = self._clock.monotonic()
        waiter = _Waiter(ask, started, threading.Condition(self._mutex), deadline_seconds, stopped)
        with self._mutex:
            self._waiters.add(waiter)
        try:
            return self._go_through(waiter, ask), max(0.0, self._clock.monotonic() - started)
        finally:
            with self._mutex:
                self._waiters.discard(waiter)

    def _go_through(self, waiter: _Waiter, ask: Ask) -> Grant:
        while True:
            grant = self._await_grant(waiter, ask)
            good = False
            try:
                self._sleep(waiter, grant)
                good = self._confirm(waiter, grant)
            finally:
                with self._mutex:
                    self._outstanding -= 1
                    if good:
                        self._report.send(self._clock.monotonic())
                    else:
                        self._in_use -= 1
                        waiter.grant = None
                        self._drop_stale_spares()
                    self._call_leader()
            if good:
                return grant
            ask = ask._replace(returns=True)

    def _await_grant(self, waiter: _Waiter, ask: Ask) -> Grant:
        again = ask.returns
        with self._mutex:
            waited = self._clock.monotonic() - waiter.started
            backfill = ask.backfill and waited < PROMOTION_SECONDS
            waiter.ask = ask._replace(backfill=backfill)
            self._refuse_hopeless(waiter)
            queue = self._queues[backfill]
            if again:
                queue.appendleft(waiter)
            else:
                queue.append(waiter)
            try:
                while True:
                    now = self._clock.monotonic()
                    self._hand_out(now)
                    if waiter.grant is not None:
                        return waiter.grant
                    self._raise_what_ended(waiter, now)
                    batch = [] if self._leading else self._batch(now)
                    if batch or (not self._leading and self._lacks_places(now)):
                        self._lead(batch, now)
                    else:
                        self._clock.wait(waiter.condition, self._patience(waiter, now))
            finally:
                for queue in self._queues:
                    if waiter in queue:
                        queue.remove(waiter)
                self._call_leader()

    def _raise_what_ended(self, waiter: _Waiter, now: float) -> None:
        if waiter.error is not None:
            error, waiter.error = waiter.error, None
            raise error
        if self._closed:
            raise BudgetError(f"the budget of {self.account} was closed while a call waited for its slot")
        if waiter.deadline_seconds is not None and now - waiter.started > waiter.deadline_seconds:
            raise self._deadline_error(waiter.deadline_seconds, now - waiter.started)
        if waiter.stopped is not None and waiter.stopped():
            raise StoppedError(f"a call to {self.account} was given up while it waited for its slot")

    def _refuse_hopeless(self, waiter: _Waiter) -> None:
        """Raise at once where those before in this very process are enough to miss the deadline."""
        if waiter.deadline_seconds is None:
            return
        before = self._outstanding + len(self._queues[0])
        before += len(self._queues[1]) if waiter.ask.backfill else 0
        wait = before * self._interval
        if wait > waiter.started + waiter.deadline_seconds - self._clock.monotonic():
            raise self._deadline_error(waiter.deadline_seconds, wait)

    def _deadline_error(self, deadline_seconds: float, wait_seconds: float) -> BudgetDeadlineError:
        return BudgetDeadlineError(
            f"a call to {self.account} would wait {wait_seconds:.3g} s for the budget, its deadline is "
            f"{deadline_seconds:.3g} s; nothing was taken, ask again later or accept a longer wait"
        )

    def _patience(self, waiter: _Waiter, now: float) -> float:
        """How long to wait before looking again; a notice comes earlier."""
        times = [now + _LOOK_SECONDS]
        if waiter.not_before > now:
            times.append(waiter.not_before)
        if self._in_use >= self._places or now >= self._places_until:
            times.append(max(self._ask_places_at, now + 0.005))
        if waiter.deadline_seconds is not None:
            times.append(waiter.started + waiter.deadline_seconds + 0.001)
        return max(0.0, min(times) - now)

    def _batch(self, now: float) -> list[_Waiter]:
        """Whose slots can be reserved now: in order, scheduled first, as far as places and foresight go."""
        if now >= self._places_until:
            return []
        ahead = max(1, int(AHEAD_SECONDS / self._interval)) if self._interval > 0 else 1_000_000
        room = min(self._places - self._in_use, ahead - self._outstanding)
        if room <= 0:
            return []
        ready = (waiter for queue in self._queues for waiter in queue if waiter.not_before <= now)
        return list(itertools.islice(ready, room))

    def _lacks_places(self, now: float) -> bool:
        waiting = len(self._queues[0]) + len(self._queues[1])
        lacks = now >= self._places_until or self._in_use >= self._places
        return bool(waiting and lacks and now >= self._ask_places_at)

    def _lead(self, batch: list[_Waiter], now: float) -> None:
        """Speak to the database for all; called with the mutex, which is released meanwhile."""
        self._leading = True
        self._used_at = now
        self._start_heart()
        asks = [self._with_patience(waiter, now) for waiter in batch]
        spare = Ask(asks[0].endpoint, 1, asks[0].backfill) if asks else Ask()
        asks += [spare] * self._foresight(batch, now)
        self._mutex.release()
        answers: list[tuple[Grant | Later | TooLate, float]] = []
        failure: BudgetError | None = None
        try:
            if batch:
                answers = self._reserve(asks)
            else:
                self._renew_places()
        except BudgetError as error:
            failure = error
        finally:
            self._mutex.acquire()
            self._leading = False
        if failure is not None:
            for waiter in batch or [*self._queues[0], *self._queues[1]]:
                waiter.error = failure
                waiter.condition.notify()
            return
        for waiter, (answer, local_at) in zip(batch, answers, strict=False):
            self._answer(waiter, answer, local_at)
        for answer, local_at in answers[len(batch) :]:
            if isinstance(answer, Grant):
                self._spares.append((spare, answer, local_at))
        self._call_leader()

    def _foresight(self, batch: Sequence[_Waiter], now: float) -> int:
        """How many slots to reserve for callers that are about to come.

        Where the database, not the pace, is what callers wait for, or the pace is so quick that a transaction
        for each call would be dear, a process reserves in blocks of up to a quarter of a second's worth. They
        double while that is so, and shrink when slots are missed or the pace is what counts again.
        """
        passed = now - self._counted_at
        if passed > 0.1:
            rate = self._served / passed
            self._own_rate = rate if passed > 1.0 else (self._own_rate + rate) / 2
            self._served, self._counted_at = 0, now
        slow = self._own_rate < _QUICK_RATE or self._interval > _QUICK_INTERVAL_SECONDS
        if not batch or self._counted or slow or now < self._no_spares_until:
            return 0
        if self._lost > 0.1 * self._block:
            self._spare_limit //= 2
            if not self._spare_limit:
                self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
                self._no_spares_until = now + self._pause_seconds
        elif self._slack_seconds < _IMMEDIATE_SECONDS or self._interval < QUICK_SECONDS:
            self._spare_limit = min(max(_FIRST_BLOCK, 2 * self._spare_limit), _LARGEST_BLOCK)
            if self._spare_limit > 2 * _FIRST_BLOCK:
                self._pause_seconds = _SHORTEST_PAUSE_SECONDS
        elif self._slack_seconds > BLOCK_SECONDS:
            self._spare_limit -= -(-self._spare_limit // 8)
        self._lost = 0
        fair = BLOCK_SECONDS / self._interval / self._processes
        self._block = max(0, min(self._spare_limit, int(fair) - len(batch)))
        return self._block

    def _hand_out(self, now: float) -> None:
        """Serve callers, in order, from the block that was reserved."""
        while self._spares:
            spare, grant, local_at = self._spares[0]
            if now > local_at + 0.8 * min(self._late_seconds, _LATEST_SECONDS):
                self._spares.popleft()
                self._lost += 1
                continue
            waiter = next(
                (other for queue in self._queues for other in queue if other.not_before <= now), None
            )
            if waiter is None or self._in_use >= self._places or now >= self._places_until:
                return
            deadline = (
                math.inf if waiter.deadline_seconds is None else waiter.started + waiter.deadline_seconds
            )
            if waiter.ask != spare or local_at > deadline:
                return
            self._spares.popleft()
            self._answer(waiter, grant, local_at)

    def _drop_stale_spares(self) -> None:
        view = self._view
        if self._spares:
            self._spares = deque(entry for entry in self._spares if view and view.pace.valid(entry[1]))

    def _with_patience(self, waiter: _Waiter, now: float) -> Ask:
        if waiter.deadline_seconds is None:
            return waiter.ask
        return waiter.ask._replace(patience_seconds=waiter.started + waiter.deadline_seconds - now)

    def _answer(self, waiter: _Waiter, answer: Grant | Later | TooLate, local_at: float) -> None:
        queue = next((queue for queue in self._queues if waiter in queue), None)
        if queue is None:
            # It gave up while its slot was asked for; the slot is lost.
            return
        waiter.ask = waiter.ask._replace(returns=False)
        if isinstance(answer, Grant):
            waiter.grant, waiter.local_at = answer, local_at
            self._outstanding += 1
            self._in_use += 1
            self._peak = max(self._peak, self._in_use)
            self._served += 1
            queue.remove(waiter)
        elif isinstance(answer, Later):
            waiter.not_before = local_at
        else:
            waited = self._clock.monotonic() - waiter.started
            deadline = waiter.deadline_seconds or 0.0
            waiter.error = self._deadline_error(deadline, waited + answer.wait_seconds)
        waiter.condition.notify()

    def _call_leader(self) -> None:
        """Wake somebody who can speak to the database, where there is something to say."""
        now = self._clock.monotonic()
        self._hand_out(now)
        if self._leading:
            return
        batch = self._batch(now)
        if batch:
            batch[0].condition.notify()
        elif self._lacks_places(now):
            next(waiter for queue in self._queues for waiter in queue).condition.notify()

    def _sleep(self, waiter: _Waiter, grant: Grant) -> None:
        """Wait until shortly before the slot, or until it was taken back."""
        with self._mutex:
            while not self._closed:
                now = self._clock.monotonic()
                left = waiter.local_at - EARLY_SECONDS - now
                if left <= 0 or (left > LOOK_SECONDS and not self._worth_waiting(grant)):
                    return
                self._raise_what_ended(waiter, now)
                look = _LOOK_SECONDS if waiter.stopped else LOOK_SECONDS
                self._clock.wait(waiter.condition, min(left, look))

    def _worth_waiting(self, grant: Grant) -> bool:
        """Whether a slot that is far ahead was not taken back; called with the mutex, released for a look."""
        view = self._view
        if view is not None and self._clock.monotonic() - view.at > LOOK_SECONDS:
            self._mutex.release()
            try:
                view = self._look()
            finally:
                self._mutex.acquire()
        return view is not None and view.pace.valid(grant)

    def _confirm(self, waiter: _Waiter, grant: Grant) -> bool:
        """Whether the slot is still good, found out just before it; returns when it is time to send."""
        with self._mutex:
            self._raise_what_ended(waiter, waiter.started)
        fresh = FRESH_SECONDS if grant.backfill_epoch is None else BACKFILL_FRESH_SECONDS
        last = waiter.local_at + self._late_seconds
        while (now := self._clock.monotonic()) <= last:
            if now >= self._places_until and not self._places_again():
                return False
            view = self._view
            if view is None or max(now, waiter.local_at) - view.at > fresh:
                view = self._look()
            if view is None or not view.pace.valid(grant):
                return False
            at = max(waiter.local_at, self._spaced_at(waiter.ask))
            left = at - self._clock.monotonic()
            if left > 0:
                self._clock.sleep(left)
            now = self._clock.monotonic()
            if now > last:
                return False
            fresh_still = now - view.at <= fresh + GUARD_SECONDS and now < self._places_until
            if fresh_still and self._take_space(waiter.ask, max(at, now - _JITTER_SECONDS)):
                return True
        return False

    def _spaced_at(self, ask: Ask) -> float:
        """When the limits' own spacing lets this process send again, after a call of its own that was late."""
        with self._mutex:
            return max((self._free_at.get(limit.name, 0.0) for limit in self._spacing(ask)), default=0.0)

    def _take_space(self, ask: Ask, at: float) -> bool:
        """Take the time from a call to the next one that the limits bear; False where another thread has it."""
        with self._mutex:
            concerned = self._spacing(ask)
            if any(at < self._free_at.get(limit.name, 0.0) for limit in concerned):
                return False
            for limit in concerned:
                self._free_at[limit.name] = at + ask.weight * limit.interval_seconds(1.0)
            return True

    def _spacing(self, ask: Ask) -> list[Limit]:
        """Limits that bear one call at a time."""
        return [
            limit
            for limit in self.limits
            if limit.burst == 1 and not limit.counted and limit.concerns(ask.endpoint)
        ]

    def _places_again(self) -> bool:
        """This process was stopped for longer than its places last: see whether there is one left."""
        self._renew_places(in_flight_only=True)
        with self._mutex:
            return self._in_use - self._outstanding < self._places

    def release(self) -> None:
        """The call is over; for :class:`Slot`."""
        with self._mutex:
            self._in_use -= 1
            self._used_at = self._clock.monotonic()
            self._call_leader()

    # -- the documents -----------------------------------------------------------------------------

    def _load(self, snapshot: Snapshot) -> Pace:
        wall, boot = self._clock.wall(), self._database.boot
        if snapshot.version is None:
            pace = Pace.new(snapshot.now, wall, boot)
        else:
            pace = Pace.load(snapshot.body, snapshot.now, wall, boot)
        lost = self._lost_view
        if lost is not None and lost.pace.id != pace.id:
            log.warning(
                "the state of the budget of %s was lost; going on with what this process knows", self.account
            )
            pace.inherit(Pace.load(lost.body, snapshot.now, wall, boot), snapshot.now)
        return pace

    def _look(self) -> _View | None:
        """Read the epochs; nothing where the document was lost, so that whatever was given is void."""
        before = self._clock.monotonic()
        snapshot = self._database.read(self.account, _PACE)
        if snapshot.version is None:
            self._view = None
            return None
        pace = Pace.load(snapshot.body, snapshot.now, self._clock.wall(), self._database.boot)
        if self._lost_view is not None and pace.id != self._lost_view.pace.id:
            self._view = None
            return None
        return self._keep(_View(pace, snapshot.body, before))

    def _keep(self, view: _View) -> _View:
        """Remember a view, unless a newer one is known."""
        with self._mutex:
            if self._view is None or self._view.at <= view.at:
                self._view = self._lost_view = view
        return view

    def _change(self, step: Callable[[Pace, float], object]) -> Snapshot:
        """Change the pace's document; what this process knows of it is then fresh."""

        def whole(snapshot: Snapshot) -> tuple[str, tuple[Snapshot, Pace, str, bool]]:
            pace = self._load(snapshot)
            known = pace.falls.number, pace.falls.fell_at
            step(pace, snapshot.now)
            body = pace.dump(snapshot.now, self._clock.wall())
            return body, (snapshot, pace, body, known != (pace.falls.number, pace.falls.fell_at))

        snapshot, pace, body, fell = self._database.change(self.account, _PACE, whole)
        if fell and (reason := self._ceiling_reason(pace, snapshot.now)):
            log.warning("%s: %s", self.account, reason)
        self._keep(_View(pace, body, snapshot.read_at))
        rate = min(pace.ceiling(self._rules, snapshot.now), pace.rate(snapshot.now) or math.inf)
        self._interval = 1.0 / rate
        self._say_what_slows(pace, snapshot.now)
        return snapshot

    def _change_with(self, report: Report, step: Callable[[Pace, float], object]) -> Snapshot:
        """Change the document by a report that was taken; where that fails, keep it."""
        try:
            return self._change(step)
        except BudgetUnavailableError:
            with self._mutex:
                report.join(self._report)
                self._report = report
            raise

    def _take_report(self) -> Report:
        with self._mutex:
            report, self._report = self._report, Report()
            self._told_at = self._clock.monotonic()
        return report

    def _tell(self) -> None:
        """Tell the others what came of this process's calls."""
        report = self._take_report()
        if report:
            self._change_with(report, lambda pace, now: self._absorb(pace, report, now))

    def _absorb(self, pace: Pace, report: Report, now: float) -> None:
        """Let the pace take in a report, whose times are this machine's."""
        pace.absorb(self._rules, self.share, report.moved(now - self._clock.monotonic()), now)

    def _reserve(self, asks: Sequence[Ask]) -> list[tuple[Grant | Later | TooLate, float]]:
        answers: list[Grant | Later | TooLate] = []

        report = self._take_report()

        def step(pace: Pace, now: float) -> None:
            answers.clear()
            self._absorb(pace, report, now)
            answers.extend(pace.reserve(self._rules, ask, now) for ask in asks)

        lead = max(0.0, 2 * self._lag - self._late_seconds)
        if lead:
            asks = [ask._replace(lead_seconds=lead) for ask in asks]
        snapshot = self._change_with(report, step)
        first = answers[0]
        self._slack_seconds = first.at - snapshot.now - lead if isinstance(first, Grant) else BLOCK_SECONDS
        self._lag += (min(self._clock.monotonic() - snapshot.read_at, _LARGEST_LAG_SECONDS) - self._lag) / 8
        offset = snapshot.read_at - snapshot.now
        return [(answer, 0.0 if isinstance(answer, TooLate) else answer.at + offset) for answer in answers]

    def _renew_places(self, *, in_flight_only: bool = False) -> None:
        with self._mutex:
            waiting = len(self._queues[0]) + len(self._queues[1])
            in_use = self._in_use
            work_class = "backfill" if self._queues[1] and not self._queues[0] else "scheduled"
            wanted = min(self.max_in_flight, max(self._peak, in_use + waiting))
            self._peak = in_use
            in_flight = in_use - self._outstanding
        kept = in_flight if in_flight_only else in_use
        member = Member(0.0, wanted, 0, in_flight, waiting, work_class, self.max_in_flight)

        def step(snapshot: Snapshot) -> tuple[str, tuple[Member, int]]:
            places = Places.load(snapshot.body, snapshot.now, self._database.boot)
            granted = places.renew(self.holder, member, kept, snapshot.now)
            return places.dump(), (granted, len(places.members))

        before = self._clock.monotonic()
        granted, processes = self._database.change(self.account, _PLACES, step)
        with self._mutex:
            self._places = granted.granted
            self._places_until = before + TTL_SECONDS - 0.5
            self._processes = processes
            self._late_seconds = _tolerance(self.limits, self.share, processes)
            self._ask_places_at = before + (_SHORT_BEAT_SECONDS if granted.granted < wanted else 0.0)

    def _leave(self) -> None:
        def step(snapshot: Snapshot) -> tuple[str, None]:
            places = Places.load(snapshot.body, snapshot.now, self._database.boot)
            places.leave(self.holder)
            return places.dump(), None

        self._database.change(self.account, _PLACES, step)
        with self._mutex:
            self._places = 0

    # -- what comes back ---------------------------------------------------------------------------

    def observe(
        self,
        grant: Grant | None,
        entered_at: float,
        endpoint: str,
        status: int | None,
        headers: Mapping[str, str],
        seconds: float,
        error: bool,
        throttled: bool,
    ) -> None:
        """What came of a call; for :class:`Slot`."""
        now = answer_time(headers, datetime.fromtimestamp(self._clock.wall(), UTC))
        if throttled:
            asked = wait_seconds(headers, now)
            reason = f"the vendor answered {status}" + ("" if asked is None else f", wait {asked:g} s")
            report = self._take_report()

            def step(pace: Pace, now: float) -> None:
                self._absorb(pace, report, now)
                pace.throttle(self._rules, grant, asked, reason, now, endpoint, unavailable=status == 503)

            self._change_with(report, step)
            return
        alive = status is not None and status < 500
        answered = alive and not error and status != 408
        with self._mutex:
            ended = self._clock.monotonic()
            self._report.add(endpoint, seconds, alive=alive, answered=answered, now=ended)
            elapsed = self._clock.monotonic() - self._told_at
        if (grant is not None and grant.probe) or (elapsed > _TELL_SECONDS and not answered):
            self._tell()
        quotas, policies = parse_quotas(headers, now), parse_policies(headers)
        if grant is not None and (quotas or policies):
            admitted = answered and status is not None and status < 400
            said = Said(endpoint, grant.at, max(0, self._in_use - 1), quotas, policies)
            self._hear(said, grant, admitted, grant.at + self._clock.monotonic() - entered_at)

    def _hear(self, said: Said, grant: Grant, admitted: bool, now: float) -> None:
        """Tell the others what an answer tells of the vendor's quotas, where that changes anything."""
        view = self._view
        with self._mutex:
            known = {} if view is None else view.pace.quotas
            said = self._listener.compare(said, known, trial=grant.trial, admitted=admitted, now=now)
            self._report.add_against(said.against, said.firmly)
        if not (grant.trial or view is None or view.pace.hears(self._rules, self.share, said, now)):
            return
        report = self._take_report()

        def step(pace: Pace, now: float) -> None:
            self._absorb(pace, report, now)
            pace.hear(self._rules, self.share, said, now)

        self._change_with(report, step)

    # -- heart -------------------------------------------------------------------------------------

    def _start_heart(self) -> None:
        if self._heart is None and not self._clock.simulated and not self._closed:
            self._heart_stops = threading.Event()
            self._heart = threading.Thread(
                target=_beat, args=(weakref.ref(self), self._heart_stops), name="budget", daemon=True
            )
            self._heart.start()

    def beat(self) -> bool:
        """Renew this process's places; False once it has been idle and left. Called in the background."""
        with self._mutex:
            now = self._clock.monotonic()
            busy = self._in_use or self._queues[0] or self._queues[1]
            if not busy and now - self._used_at > _IDLE_SECONDS:
                self._heart = None
                idle = True
            else:
                idle = False
        if idle:
            self._leave()
            return False
        self._renew_places()
        self._tell()
        with self._mutex:
            self._call_leader()
        return True

    def _ceiling_reason(self, pace: Pace, now: float) -> str:
        return pace.falls.reason(now, datetime.fromtimestamp(self._clock.wall(), UTC))

    def _slowed(self, pace: Pace, now: float) -> str:
        """Since when the pace is far below the configured limit, and why; empty where it is not."""
        if pace.dragged_since is None or now - pace.drag_at > _LONG_AGO_SECONDS:
            return ""
        seconds = now - pace.dragged_since + _DRAGGED_BEFORE_SECONDS
        return (
            f"for {seconds / 60:.0f} min the pace has been below half of the permitted "
            f"{self.permitted_rate:.3g} calls/s: {pace.drag_reason or self._why(pace, now)}"
        )

    def _say_what_slows(self, pace: Pace, now: float) -> None:
        """Say once what holds the pace far below the limit, again when that changes, and when it is over."""
        slowed = self._slowed(pace, now)
        cause = pace.drag_cause if slowed else ""
        if cause == self._said_cause or (cause and now - self._said_at < _SAY_AGAIN_SECONDS):
            return
        self._said_cause, self._said_at = cause, now
        if slowed:
            log.warning("calls to %s are slow: %s", self.account, slowed)
        else:
            log.info("calls to %s are at the pace of the limit again", self.account)

    def _why(self, pace: Pace, now: float) -> str:
        if pace.hold_until > now:
            return f"held: {pace.hold_reason}"
        if pace.breaker.open:
            return "the vendor is down: one call every few seconds asks whether it is back"
        told = pace.tightest(self._rules, now)
        if told is not None:
            return told
        tuning, permitted = pace.tuning, pace.falls.permitted(now)
        if permitted is not None and permitted <= min(
            pace.ceiling(self._rules, now), tuning.rate or math.inf
        ):
            reason = self._ceiling_reason(pace, now)
            if not pace.falls.returning(now):
                return reason
            return "coming back gently after an outage" + (f": {reason}" if reason else "")
        if tuning.mode == "search":
            return "no limit is known: the rate follows what the vendor bears"
        if tuning.mode == "recover":
            ago = now - tuning.since
            return f"cut from {tuning.before:.3g} calls/s {ago:.0f} s ago, on the way to {tuning.target:.3g}"
        if tuning.mode == "plateau":
            return (
                f"just below what the vendor refused; the next try for more is in {tuning.until - now:.0f} s"
            )
        if tuning.mode == "probe":
            return "trying whether the vendor bears more again"
        return f"{self.share:g} of {', '.join(map(str, self.limits))}"


def _tolerance(limits: Sequence[Limit], share: float, processes: int) -> float:
    """How late a slot may be used.

    One process spaces its calls itself, whenever they come. Of several, a late call of one meets a punctual one of
    another: there they shall be as far apart as the limit's even spacing, which a share leaves room for, or come no
    closer together than the vendor's bucket takes.
    """
    spans = [
        limit.late_seconds - limit.slack_seconds
        if limit.burst > 1
        else _LATEST_ALONE_SECONDS
        if processes == 1
        else min(_LATEST_SECONDS, limit.period_seconds / limit.amount * (1 / share - 1))
        for limit in limits
        if not limit.counted
    ]
    return max(LATE_SECONDS, min(spans, default=_LATEST_SECONDS))


def _beat(reference: weakref.ref[Budget], stops: threading.Event) -> None:
    """Renew while the budget exists and is used."""
    while not stops.wait(_BEAT_SECONDS):
        budget = reference()
        if budget is None:
            return
        try:
            if not budget.beat():
                return
        except BudgetUnavailableError as error:
            log.warning("%s", error)
        del budget


_open_budgets: weakref.WeakSet[Budget] = weakref.WeakSet()


def _after_fork() -> None:
    for budget in list(_open_budgets):
        budget.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
