"""The dispatch: hands out an account's slots to this process's threads, in order, just before they are due."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from vendor_assets.budget import in_flight
from vendor_assets.budget.block import BLOCK_SECONDS, Block, Reserved
from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database, Snapshot, understanding
from vendor_assets.budget.document import PaceDocument, View
from vendor_assets.budget.in_flight import InFlight, InFlightShares, Member, Teams
from vendor_assets.budget.limits import PARTS
from vendor_assets.budget.pace import BACKFILL_FRESH_SECONDS, FRESH_SECONDS, GUARD_SECONDS, Pace
from vendor_assets.budget.reservations import Ask, Correction, Grant, Later, Row, TooLate
from vendor_assets.budget.teams import OTHERS, Parts, Team, Turns, Waiting, slots_ahead, unequal
from vendor_assets.budget.terms import LATEST_SECONDS, Terms
from vendor_assets.days import duration_text
from vendor_assets.errors import BudgetDeadlineError, BudgetError, StoppedError
from vendor_assets.logs import get_logger
from vendor_assets.work_class import BACKFILL, SCHEDULED, WorkClass

log = get_logger(__name__)
T = TypeVar("T")

AHEAD_SECONDS: Final = 0.05
"""A process reserves again once it has no more slots than fit in this time, or but one: hardly anything is lost when it
is killed, and a newcomer waits for one call of each process ..."""

TOGETHER_SECONDS: Final = 0.25
"""... or for its part of this time, where that is more: so much scheduled work reserves at once, as each reservation is
a transaction. Whoever asks for one page after the other waits so long for each."""

EARLY_SECONDS: Final = 0.003
"""The epochs are looked at this long before a slot, so that the look does not make the call late ..."""

_LOOKS_EARLY: Final = 2
"""... or so many times what a look takes, where that is more: the database may be far away. The look may then be older
than otherwise by one more: nothing tells sooner."""

_QUICK_SECONDS: Final = 0.0008
"""... unless waking up and looking took no longer than this of late."""

LOOK_SECONDS: Final = 1.0
"""Who waits for longer than this looks so often whether the slot still holds."""

PROMOTION_SECONDS: Final = 10.0
"""A backfill call that has waited so long counts as scheduled."""

CALM_SECONDS: Final = 2.0
"""Where nobody can want what this process has, it renews, and tells what became of its calls, so often."""

_HEARTBEAT_SECONDS: Final = 0.5
"""Where others may want it; twice as long where they cannot, to ask whether callers still want their slots."""
_IDLE_SECONDS: Final = 5.0
_CORRECTED_LOOK_SECONDS: Final = 0.25
"""Who waits looks so often where answers may free what was booked."""
_STOPPED_SECONDS: Final = 0.5
"""A caller that waits looks so often whether it still wants to."""
_JITTER_SECONDS: Final = 0.001
"""A call that is no later than this counts as punctual for the next one; each would push its successor otherwise."""
_LARGEST_LAG_SECONDS: Final = 0.1
_AVERAGED_SECONDS: Final = 10.0
"""What a team sent is averaged over about this time."""


@dataclass(eq=False)
class _Waiter:
    """A thread that wants to send."""

    ask: Ask
    started: float
    condition: threading.Condition
    deadline_seconds: float | None
    stopped: Callable[[], bool] | None = None
    team: Team = OTHERS
    grant: Grant | None = None
    local_at: float = 0.0
    not_before: float = 0.0
    error: BudgetError | None = None

    @property
    def deadline(self) -> float:
        """When it gives up, on this machine's monotonic clock."""
        return math.inf if self.deadline_seconds is None else self.started + self.deadline_seconds


class LongestWait(NamedTuple):
    """The call of a process that waits longest for its slot."""

    seconds: float
    endpoint: str
    work_class: WorkClass


class Dispatch:
    """Slots for the threads of one process.

    Threads queue here; one of them at a time, the leader, speaks to the database for all. Whoever has a slot sleeps
    until shortly before it, and confirms that it was not taken back.
    """

    def __init__(
        self, terms: Terms, document: PaceDocument, database: Database, holder: str, clock: Clock
    ) -> None:
        self._terms = terms
        self._document = document
        self._database = database
        self._holder = holder
        self._clock = clock
        self._mutex = threading.Lock()
        self._queues: tuple[deque[_Waiter], deque[_Waiter]] = (deque(), deque())
        self._waiters: set[_Waiter] = set()
        self._conditions: list[threading.Condition] = []
        self._leading = False
        self._closed = False
        self._used_at = 0.0
        self._lag = 0.0
        self._late_seconds = terms.late_seconds(1)
        self._renewed_at = 0.0
        self._delay = EARLY_SECONDS
        self._spaced_at: dict[str, float] = {}
        self._spacings: dict[str, dict[str, float]] = {}
        self._in_flight = InFlight()
        self._sent_to: Counter[str] = Counter()
        self._renewal = threading.Lock()
        self._looking = threading.Lock()
        self._block = Block()
        self._heartbeat = _Heartbeat()
        self._turns = Turns()
        self._teams = _Sent(clock)
        self._portions: dict[str, float] = {}

    # -- what the budget uses ----------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Calls that have a slot, sent or not."""
        return self._in_flight.total

    def in_flight_to(self, endpoint: str) -> int:
        """Calls to an endpoint that are sent and not over."""
        return self._sent_to[endpoint]

    def longest_wait(self) -> LongestWait | None:
        """The call that waits longest, by this process's memory alone."""
        with self._mutex:
            first = min(self._waiters, key=lambda waiter: waiter.started, default=None)
            if first is None:
                return None
            work_class: WorkClass = BACKFILL if first.ask.backfill else SCHEDULED
            waited = self._clock.monotonic() - first.started
            return LongestWait(waited, self._told_apart(first.ask).endpoint, work_class)

    def shares(self, *, patience_seconds: float) -> InFlightShares:
        """How the calls in flight are shared out."""
        owner = self._terms.in_flight_of or self._terms.account
        found = self._database.read(owner, in_flight.PART, patience_seconds=patience_seconds)
        with understanding(owner):
            return InFlightShares.load(found.body, found.now, self._database.boot)

    def acquire(
        self,
        ask: Ask,
        deadline_seconds: float | None,
        stopped: Callable[[], bool] | None = None,
        team: Team = OTHERS,
    ) -> tuple[Grant, float]:
        """Block until a call may be sent; raises what :meth:`Budget.slot` raises on entry.

        Returns:
            The slot, and the seconds waited for it.
        """
        started = self._clock.monotonic()
        wanted = stopped is None or not stopped()
        with self._mutex:
            if wanted and (spare := self._take_spare(ask, team, started)) is not None:
                return spare, 0.0
            # Making one is dear: most callers take that of one before them.
            condition = self._conditions.pop() if self._conditions else threading.Condition(self._mutex)
            waiter = _Waiter(ask, started, condition, deadline_seconds, stopped, team)
            self._waiters.add(waiter)
            self._teams.note(team)
        try:
            grant = self._acquire(waiter, ask)
        finally:
            with self._mutex:
                self._waiters.discard(waiter)
                self._conditions.append(condition)
        with self._mutex:
            self._sent_to[ask.endpoint] += 1
            self._teams.count(team)
        return grant, max(0.0, self._clock.monotonic() - started)

    def release(self, endpoint: str) -> None:
        """A call that was sent is over."""
        with self._mutex:
            self._sent_to[endpoint] -= 1
            self._in_flight.finish()
            self._used_at = self._clock.monotonic()
            self._notify_leader()

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Calls of this process really counted something else: those that wait ask again, and may follow sooner."""
        with self._mutex:
            for each in corrections:
                call = Ask(each.endpoint, counts=((each.unit, min(0, each.difference) / PARTS),))
                for name, seconds in self._terms.spacing_seconds(call, each.unit).items():
                    self._spaced_at[name] = self._spaced_at.get(name, 0.0) + seconds
            for waiter in self._waiting():
                waiter.not_before = 0.0
            self._notify_leader()

    def wake(self) -> None:
        """Let every caller that waits see whether it still wants its slot."""
        with self._mutex:
            for waiter in self._waiters:
                waiter.condition.notify()

    def renew(self) -> float | None:
        """Renew this process's share of the calls in flight, where that is due.

        Returns:
            Seconds to the next time; None once it has been idle and left.
        """
        with self._mutex:
            now = self._clock.monotonic()
            busy = self._in_flight.total or self._queues[0] or self._queues[1]
            idle = not busy and (self._closed or now - self._used_at > _IDLE_SECONDS)
            if idle:
                self._heartbeat.detach()
            due = bool(self._teams) or self._in_flight.due(now, CALM_SECONDS)
            for waiter in self._waiters:
                if waiter.stopped is not None and waiter.stopped():
                    waiter.condition.notify()
        if idle:
            self._leave()
            return None
        if due:
            self._renew()
        self._document.tell(unless_within_seconds=CALM_SECONDS)
        with self._mutex:
            self._notify_leader()
            return _HEARTBEAT_SECONDS if self._teams or self._in_flight.wanted else 2 * _HEARTBEAT_SECONDS

    def close(self) -> None:
        """Give back what this process holds; callers that wait get an error.

        Where calls are still in flight, the heartbeat gives their share back once they are over.
        """
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            for waiter in self._waiters:
                waiter.condition.notify()
            if self._in_flight.sent:
                return
            heartbeat = self._heartbeat.stop()
        if heartbeat is not None and heartbeat is not threading.current_thread():
            heartbeat.join(5.0)
        if self._in_flight.granted:
            with contextlib.suppress(BudgetError):
                self._leave()

    # -- waiting for a slot ------------------------------------------------------------------------

    def _take_spare(self, ask: Ask, team: Team, now: float) -> Grant | None:
        """A slot of the block that may be used at once, where nobody waits; called with the mutex.

        Whatever may have to be waited for or looked up is left to the way of all others.
        """
        if self._closed or self._teams or team != OTHERS or self._queues[0] or self._queues[1]:
            return None
        spare, view = self._block.first(self._earliest(now)), self._document.view
        if spare is None or view is None or spare.local_at > now or spare.ask != self._told_apart(ask):
            return None
        if now - view.at > self._fresh_seconds(spare.grant) or not view.epochs.valid(spare.grant):
            return None
        if not self._in_flight.room(now) or self._spaced_until(ask) > now:
            return None
        self._in_flight.reserve()
        if not self._start(max(spare.local_at, self._spaced_until(ask), now - _JITTER_SECONDS), ask):
            self._in_flight.give_up()
            return None
        self._block.pop()
        self._block.count_served()
        self._sent_to[ask.endpoint] += 1
        return spare.grant

    def _acquire(self, waiter: _Waiter, ask: Ask) -> Grant:
        while True:
            grant = self._await_grant(waiter, ask)
            good = False
            try:
                self._sleep(waiter, grant)
                good = self._confirm(waiter, grant)
            finally:
                with self._mutex:
                    if not good:
                        self._in_flight.give_up()
                        waiter.grant = None
                        self._block.drop(self._document.known_valid)
                    self._notify_leader()
            if good:
                return grant
            ask = ask._replace(returns=True, returned_at=grant.at)

    def _await_grant(self, waiter: _Waiter, ask: Ask) -> Grant:
        again = ask.returns
        with self._mutex:
            waited = self._clock.monotonic() - waiter.started
            backfill = ask.backfill and waited < PROMOTION_SECONDS
            waiter.ask = ask if ask.backfill == backfill else ask._replace(backfill=backfill)
            self._check_deadline(waiter)
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
                    self._raise_if_over(waiter, now)
                    batch = [] if self._leading else self._batch(now)
                    if batch or (not self._leading and self._must_renew(now)):
                        self._lead(batch, now)
                    else:
                        self._clock.wait(waiter.condition, self._patience(waiter, now))
            finally:
                for queue in self._queues:
                    if waiter in queue:
                        queue.remove(waiter)
                self._notify_leader()

    def _raise_if_over(self, waiter: _Waiter, now: float) -> None:
        if waiter.error is not None:
            error, waiter.error = waiter.error, None
            raise error
        if self._closed:
            raise BudgetError(
                f"the budget of {self._terms.account} was closed while a call waited for its slot"
            )
        if waiter.deadline_seconds is not None and now - waiter.started > waiter.deadline_seconds:
            raise self._deadline_error(waiter.deadline_seconds, now - waiter.started)
        if waiter.stopped is not None and waiter.stopped():
            raise StoppedError(f"a call to {self._terms.account} was given up while it waited for its slot")

    def _check_deadline(self, waiter: _Waiter) -> None:
        """Raise at once where those before in this very process are enough to miss the deadline."""
        if waiter.deadline_seconds is None:
            return
        before = self._in_flight.reserved + len(self._queues[0])
        before += len(self._queues[1]) if waiter.ask.backfill else 0
        wait = before * self._document.interval_seconds
        if wait > waiter.deadline - self._clock.monotonic():
            raise self._deadline_error(waiter.deadline_seconds, wait)

    def _deadline_error(self, deadline_seconds: float, wait_seconds: float) -> BudgetDeadlineError:
        return BudgetDeadlineError(
            f"a call to {self._terms.account} would wait {duration_text(wait_seconds)} for the budget, longer than "
            f"{duration_text(deadline_seconds)}: the quota is used up; nothing was taken, ask again then"
        )

    def _patience(self, waiter: _Waiter, now: float) -> float:
        """How long to wait before looking again; a notice comes earlier."""
        times = [now + self._stopped_seconds, waiter.deadline + 0.001]
        if waiter.not_before > now:
            times.append(waiter.not_before)
        if not self._in_flight.room(now):
            times.append(max(self._in_flight.renew_at, now + 0.005))
        return max(0.0, min(times) - now)

    @property
    def _stopped_seconds(self) -> float:
        """How often a caller that waits looks by itself whether it still wants to; the heartbeat looks for all."""
        return _IDLE_SECONDS if self._heartbeat.runs else _STOPPED_SECONDS

    # -- leading: one thread speaks to the database for all; all of this holds the mutex -------------

    def _waiting(self) -> Iterator[_Waiter]:
        """Those who queue, in order: scheduled work first."""
        return itertools.chain(*self._queues)

    def _ready(self, now: float) -> Iterator[_Waiter]:
        """Those who may ask now, in order: by turns of their teams, where there are any."""
        queues: list[Iterable[_Waiter]] = [*self._queues]
        if self._teams:
            queues = [
                self._turns.order((each for each in queue if each.not_before <= now), _team_of)
                for queue in queues
            ]
        return (each for queue in queues for each in queue if each.not_before <= now)

    def _batch(self, now: float) -> list[_Waiter]:
        """Whose slots can be reserved now: in order, as far as the share of calls in flight and foresight go."""
        interval = self._document.interval_seconds
        ahead = max(1, int(AHEAD_SECONDS / interval)) if interval > 0 else 1_000_000
        if self._document.view is None:
            ahead = 1  # How far ahead more of them would lie is not known.
        if self._portions and interval > 0:
            ahead = slots_ahead(self._portions, ahead).get(self._holder, ahead)
        few = ahead - self._in_flight.reserved
        if few <= 0:
            return []
        more = 0
        if not self._portions and interval > 0 and self._queues[0]:
            more = max(0, int(TOGETHER_SECONDS / interval * self._part) - ahead)
        room = min(self._in_flight.room(now), few + more)
        if not room:
            return []
        batch = itertools.islice(self._ready(now), room)
        return [waiter for number, waiter in enumerate(batch) if number < few or not waiter.ask.backfill]

    @property
    def _part(self) -> float:
        """Of the pace, what is this process's."""
        own = self._portions.get(self._holder)
        return own / sum(self._portions.values()) if own else 1.0 / self._in_flight.processes

    def _must_renew(self, now: float) -> bool:
        """Whether somebody waits for this process's share of the calls in flight."""
        short = bool(self._queues[0] or self._queues[1]) and not self._in_flight.room(now)
        self._in_flight.short = self._in_flight.short or short
        return short and now >= self._in_flight.renew_at

    def _notify_leader(self) -> None:
        """Wake somebody who can speak to the database, where there is something to say."""
        if not (self._queues[0] or self._queues[1]):
            return
        now = self._clock.monotonic()
        self._hand_out(now)
        if self._leading:
            return
        batch = self._batch(now)
        if batch:
            batch[0].condition.notify()
        elif self._must_renew(now):
            next(self._waiting()).condition.notify()

    def _lead(self, batch: list[_Waiter], now: float) -> None:
        """Speak to the database for all; the mutex is released meanwhile."""
        self._leading = True
        self._used_at = now
        if not self._clock.simulated and not self._closed:
            self._heartbeat.start(self.renew)
        asks = [self._told_apart(_with_patience(waiter, now)) for waiter in batch]
        spare = Ask(asks[0].endpoint, asks[0].backfill, counts=asks[0].counts) if asks else Ask()
        more = 0
        if not self._terms.counted:
            interval = self._document.interval_seconds
            more = self._block.next_size(len(batch), interval, self._part, now, lasting=not spare.backfill)
        rows: list[Reserved] = []
        self._mutex.release()
        answers: list[tuple[Grant | Later | TooLate, float]] = []
        failure: BudgetError | None = None
        try:
            if batch:
                answers, rows = self._reserve(asks, spare, more)
            else:
                self._renew()
        except BudgetError as error:
            failure = error
        finally:
            self._mutex.acquire()
            self._leading = False
        if failure is not None:
            for waiter in batch or self._waiting():
                waiter.error = failure
                waiter.condition.notify()
            return
        for waiter, (answer, local_at) in zip(batch, answers, strict=True):
            self._answer(waiter, answer, local_at)
        for row in rows:
            self._block.keep(row)
        self._notify_leader()

    def _hand_out(self, now: float) -> None:
        """Serve callers, in order, from the block that was reserved."""
        while (spare := self._block.first(self._earliest(now))) is not None:
            waiter = next(self._ready(now), None)
            if waiter is None or not self._in_flight.room(now):
                return
            if self._told_apart(waiter.ask) != spare.ask:
                self._block.note_mixed()
                return
            if spare.local_at > waiter.deadline:
                return
            self._block.pop()
            self._answer(waiter, spare.grant, spare.local_at)

    def _earliest(self, now: float) -> float:
        """A spare slot that is older than this is missed."""
        return now - 0.8 * min(self._late_seconds, LATEST_SECONDS)

    def _told_apart(self, ask: Ask) -> Ask:
        """Endpoints that the vendor does not tell apart share one name."""
        view = self._document.view
        narrow = not ask.endpoint or ask.endpoint in self._terms.endpoints
        narrow = narrow or (view is not None and ask.endpoint in view.narrow_endpoints)
        return ask if narrow else ask._replace(endpoint="")

    def _answer(self, waiter: _Waiter, answer: Grant | Later | TooLate, local_at: float) -> None:
        queue = next((queue for queue in self._queues if waiter in queue), None)
        if queue is None:
            # It gave up while its slot was asked for; the slot is lost.
            return
        if waiter.ask.returns:
            waiter.ask = waiter.ask._replace(returns=False, returned_at=math.inf)
        if isinstance(answer, Grant):
            waiter.grant, waiter.local_at = answer, local_at
            if self._teams:
                self._turns.take(waiter.team)
            self._in_flight.reserve()
            self._block.count_served()
            queue.remove(waiter)
        elif isinstance(answer, Later):
            waiter.not_before = local_at
        else:
            waited = self._clock.monotonic() - waiter.started
            deadline = waiter.deadline_seconds or 0.0
            waiter.error = self._deadline_error(deadline, waited + answer.wait_seconds)
        waiter.condition.notify()

    # -- the database; the mutex is free -------------------------------------------------------------

    def _reserve(
        self, asks: Sequence[Ask], spare: Ask, more: int
    ) -> tuple[list[tuple[Grant | Later | TooLate, float]], list[Reserved]]:
        """Ask for slots, and for as many more like the first for callers that are about to come.

        Each answer comes with its moment on this machine's monotonic clock.
        """
        answers: list[Grant | Later | TooLate] = []
        rows: list[Row] = []
        lead = max(2 * self._lag, (_LOOKS_EARLY + 1) * self._document.look_seconds) - self._late_seconds
        asks = [ask._replace(lead_seconds=lead) for ask in asks]
        like_first = spare._replace(lead_seconds=lead)

        def step(pace: Pace, now: float) -> None:
            answers[:] = (pace.reserve(self._terms.rules, ask, now) for ask in asks)
            rows[:] = pace.reserve_rows(self._terms.rules, like_first, now, more)

        snapshot = self._document.tell_and_change(step)
        first = answers[0]
        slack = first.at - snapshot.now - max(0.0, lead) if isinstance(first, Grant) else BLOCK_SECONDS
        self._block.note_slack(slack)
        self._lag += (min(self._clock.monotonic() - snapshot.read_at, _LARGEST_LAG_SECONDS) - self._lag) / 8
        offset = snapshot.read_at - snapshot.now
        return (
            [(answer, 0.0 if isinstance(answer, TooLate) else answer.at + offset) for answer in answers],
            [Reserved(spare, row, row.first.at + offset) for row in rows],
        )

    def _renew(self, *, sent_only: bool = False) -> None:
        """Renew this process's share of the calls in flight; it may keep what it uses, or only what it has sent."""
        with self._renewal:
            with self._mutex:
                waiting = len(self._queues[0]) + len(self._queues[1])
                work_class: WorkClass = BACKFILL if self._queues[1] and not self._queues[0] else SCHEDULED
                cap = self._terms.max_in_flight
                teams = self._teams.waiting(self._waiters)
                wanted = self._in_flight.want(waiting, cap, by_weight=bool(teams))
                sent = self._in_flight.sent
                kept = sent if sent_only else self._in_flight.total
                # What is not kept may be another's before this process hears of it.
                self._in_flight.limit(kept)
            member = Member(0.0, wanted, 0, sent, waiting, work_class, cap)

            told = Teams(self._terms.account, teams) if teams else None

            def step(shares: InFlightShares, now: float) -> tuple[Member, InFlightShares, Parts]:
                granted = shares.renew(self._holder, member, kept, now, told)
                return granted, shares, shares.parts(self._terms.account)

            before = self._clock.monotonic()
            granted, shares, parts = self._change_shares(step)
            processes = len(shares.members)
            with self._mutex:
                self._in_flight.renew(granted, processes, before, all_used=not shares.left)
                self._portions = parts.portions if unequal(parts.portions) else {}
                self._turns.processes = parts.processes
                self._late_seconds = self._terms.late_seconds(processes)
                self._renewed_at = before

    def _leave(self) -> None:
        """Give back this process's share, unless it is in use again."""
        with self._renewal:
            with self._mutex:
                if self._in_flight.sent or (self._in_flight.total and not self._closed):
                    return
                self._in_flight.limit(0)
            self._change_shares(lambda shares, _: shares.leave(self._holder))

    def _change_shares(self, step: Callable[[InFlightShares, float], T]) -> T:
        owner = self._terms.in_flight_of or self._terms.account

        def whole(snapshot: Snapshot) -> tuple[str, T]:
            with understanding(owner):
                shares = InFlightShares.load(snapshot.body, snapshot.now, self._database.boot)
            result = step(shares, snapshot.now)
            return shares.dump(), result

        return self._database.change(owner, in_flight.PART, whole)

    # -- from the slot to the call ---------------------------------------------------------------------

    def _sleep(self, waiter: _Waiter, grant: Grant) -> None:
        """Wait until shortly before the slot, or until it is void."""
        with self._mutex:
            while not self._closed:
                now = self._clock.monotonic()
                left = waiter.local_at - self._early_seconds - now
                view = self._document.view
                look = _CORRECTED_LOOK_SECONDS if view is not None and view.learns else LOOK_SECONDS
                if left <= 0 or (left > look and not self._worth_waiting(grant, look)):
                    return
                self._raise_if_over(waiter, now)
                look = min(look, self._stopped_seconds) if waiter.stopped else look
                self._clock.wait(waiter.condition, min(left, look))

    @property
    def _early_seconds(self) -> float:
        """How long before its slot a caller gets up."""
        if self._delay < _QUICK_SECONDS:
            return 0.0
        return max(EARLY_SECONDS, _LOOKS_EARLY * self._document.look_seconds)

    def _fresh_seconds(self, grant: Grant) -> float:
        """How old a look at the epochs may be when a call is sent."""
        fresh = FRESH_SECONDS if grant.backfill_epoch is None else BACKFILL_FRESH_SECONDS
        return max(fresh, (_LOOKS_EARLY + 1) * self._document.look_seconds)

    def _worth_waiting(self, grant: Grant, look_seconds: float) -> bool:
        """Whether a slot that is far ahead still holds; called with the mutex, released for a look."""
        view = self._document.view
        if view is not None and self._clock.monotonic() - view.at > look_seconds:
            self._mutex.release()
            try:
                view = self._document.look()
            finally:
                self._mutex.acquire()
        return view is not None and view.epochs.valid(grant)

    def _confirm(self, waiter: _Waiter, grant: Grant) -> bool:
        """Whether the slot is still good, found out just before it; returns when it is time to send."""
        with self._mutex:
            self._raise_if_over(waiter, waiter.started)
        fresh = self._fresh_seconds(grant)
        got_up_at = waiter.local_at - self._early_seconds
        while (now := self._clock.monotonic()) <= waiter.local_at + self._late_seconds:
            if self._in_flight.lapsed(now):
                # This process was stopped for longer than its share lasts; others may have it.
                self._renew(sent_only=True)
            if not self._in_flight.may_send:
                return False
            view = self._look(max(now, waiter.local_at) - fresh)
            if view is None or not view.epochs.valid(grant):
                return False
            at = max(waiter.local_at, self._spaced_until(waiter.ask))
            now = self._clock.monotonic()
            self._delay = max(now - got_up_at, 0.9 * self._delay)
            left = at - now
            if left > 0:
                self._clock.sleep(left)
            now = self._clock.monotonic()
            if now > waiter.local_at + self._late_seconds:
                return False
            fresh_still = now - view.at <= fresh + GUARD_SECONDS and not self._in_flight.lapsed(now)
            if fresh_still and self._send(max(at, now - _JITTER_SECONDS), waiter.ask):
                return True
        return False

    def _look(self, since: float) -> View | None:
        """What is known of the pace since a moment; who waits while another thread looks has seen it too."""
        view = self._document.view
        if view is None or view.at < since:
            with self._looking:
                view = self._document.view
                if view is None or view.at < since:
                    view = self._document.look()
        if self._in_flight.processes == 1 and self._document.others_at > self._renewed_at:
            # A late call would meet a punctual one of whoever has joined since.
            self._late_seconds = self._terms.late_seconds(2)
        return view

    def _spaced_until(self, ask: Ask) -> float:
        """Until when this process's last calls keep a call from being sent."""
        until = -math.inf
        for name in self._spacing(ask):
            until = max(until, self._spaced_at.get(name, -math.inf))
        return until

    def _spacing(self, ask: Ask) -> dict[str, float]:
        """As the terms say; what calls that count nothing of their own share is found out once."""
        if ask.counts:
            return self._terms.spacing_seconds(ask)
        if ask.endpoint not in self._spacings:
            self._spacings[ask.endpoint] = self._terms.spacing_seconds(ask)
        return self._spacings[ask.endpoint]

    def _send(self, at: float, ask: Ask) -> bool:
        """Take the time up to the next call that the limits permit; False where another thread has it.

        From here on the call counts as sent.
        """
        with self._mutex:
            return self._start(at, ask)

    def _start(self, at: float, ask: Ask) -> bool:
        """As :meth:`_send`; called with the mutex."""
        if at < self._spaced_until(ask) or not self._in_flight.may_send:
            return False
        for name, seconds in self._spacing(ask).items():
            self._spaced_at[name] = at + seconds
        self._in_flight.send()
        self._document.count_sent()
        return True


def _team_of(waiter: _Waiter) -> Team:
    return waiter.team


class _Sent:
    """The teams of this process, and how fast they send. Not thread-safe; true once there is one beside the others."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[Team, tuple[int, float]] = {}
        self._at = 0.0

    def __bool__(self) -> bool:
        return bool(self._of)

    def note(self, team: Team) -> None:
        """A call of a team wants a slot."""
        if team not in self._of and (self._of or team != OTHERS):
            self._at = self._at or self._clock.monotonic()
            self._of[team] = (0, 0.0)

    def count(self, team: Team) -> None:
        """A call of a team is sent."""
        if team in self._of:
            calls, rate = self._of[team]
            self._of[team] = (calls + 1, rate)

    def waiting(self, waiters: Iterable[_Waiter]) -> tuple[Waiting, ...]:
        """Each team, with the calls that wait and its rate of late."""
        if not self._of:
            return ()
        now = self._clock.monotonic()
        passed, self._at = now - self._at, now
        kept = math.exp(-passed / _AVERAGED_SECONDS)
        for team, (calls, rate) in self._of.items():
            fresh = calls / passed if passed > 0 else rate
            self._of[team] = (0, kept * rate + (1 - kept) * fresh)
        number = Counter(map(_team_of, waiters))
        return tuple(Waiting(team, number[team], round(rate, 3)) for team, (_, rate) in self._of.items())


def _with_patience(waiter: _Waiter, now: float) -> Ask:
    if waiter.deadline_seconds is None:
        return waiter.ask
    return waiter.ask._replace(patience_seconds=waiter.deadline - now)


class _Heartbeat:
    """A thread that renews as often as need be, until there is nothing to renew or whoever started it is gone."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stops = threading.Event()

    def start(self, renew: Callable[[], float | None]) -> None:
        """Start the thread, unless there is one; whoever owns the method may be collected meanwhile."""
        if self._thread is None:
            self._stops = threading.Event()
            reference = weakref.WeakMethod(renew)
            self._thread = threading.Thread(
                target=_renew_regularly, args=(reference, self._stops), name="budget", daemon=True
            )
            self._thread.start()

    @property
    def runs(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def detach(self) -> None:
        """Leave the thread, which ends by itself; the next start makes another one."""
        self._thread = None

    def stop(self) -> threading.Thread | None:
        """Let the thread end; returns it."""
        thread, self._thread = self._thread, None
        self._stops.set()
        return thread


def _renew_regularly(
    reference: weakref.WeakMethod[Callable[[], float | None]], stops: threading.Event
) -> None:
    seconds: float | None = _HEARTBEAT_SECONDS
    while not stops.wait(seconds):
        renew = reference()
        if renew is None:
            return
        try:
            seconds = renew()
            if seconds is None:
                return
        except BudgetError as error:
            log.warning("%s", error)
        del renew
