"""The budget of one vendor account, as its users see it: slots for calls."""

from __future__ import annotations

import itertools
import math
import os
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Literal, Self

from vendor_assets.budget.askers import note_account
from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database
from vendor_assets.budget.dispatch import Dispatch, LongestWait
from vendor_assets.budget.document import PaceDocument
from vendor_assets.budget.headers import (
    Policy,
    Quota,
    answer_time,
    is_throttle,
    parse_policies,
    parse_quotas,
    tell_of_limits,
    wait_seconds,
)
from vendor_assets.budget.limits import REQUESTS, Limit, parts_of, unit_of
from vendor_assets.budget.listener import Listener
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.quotas import Statement
from vendor_assets.budget.reservations import Ask, Correction, Counts, count_of
from vendor_assets.budget.state import Announcer, BudgetState, ceiling_reason
from vendor_assets.budget.teams import OTHERS, Team
from vendor_assets.budget.terms import Terms
from vendor_assets.budget.why import Snapshot
from vendor_assets.errors import BudgetError
from vendor_assets.logs import get_logger
from vendor_assets.work_class import BACKFILL, SCHEDULED, WorkClass

log = get_logger(__name__)

_TELL_SECONDS: Final = 0.25
_STATE_PATIENCE_SECONDS: Final = 3.0
_numbers = itertools.count()


def process_name() -> str:
    """How this process is named among those that share a budget."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(eq=False)
class Slot:
    """Permission for one call; a context manager that blocks on entry until the call may be sent."""

    _budget: Budget
    _endpoint: str
    _work_class: WorkClass
    _deadline_seconds: float | None
    _stopped: Callable[[], bool] | None
    _counts: Counts = ()
    _team: Team = OTHERS
    _observed: bool = False
    waited_seconds: float = 0.0

    def __enter__(self) -> Self:
        budget = self._budget
        ask = Ask(self._endpoint, self._work_class == BACKFILL, counts=self._counts)
        self._grant, self.waited_seconds = budget._dispatch.acquire(
            ask, self._deadline_seconds, self._stopped, self._team
        )
        self._entered_at = budget._clock.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._observed and self._grant.probe:
            # Whatever happened, the vendor was not seen to be back.
            self.observe(status=None, headers={}, seconds=0.0, error=True)
        self._budget._dispatch.release(self._endpoint)

    def observe(
        self,
        *,
        status: int | None,
        headers: Mapping[str, str],
        seconds: float,
        error: bool = False,
        throttled: bool | None = None,
        counted: Mapping[str, float] | None = None,
    ) -> None:
        """Tell what came of the call; once for each attempt.

        Args:
            seconds: From sending to the end of the answer.
            error: Whether no usable answer came: no connection, a timeout, a broken body.
            throttled: Whether the vendor said that we were too fast, whatever the status; None: by the rule of
                :func:`~vendor_assets.budget.headers.is_throttle`.
            counted: What the call really counted of other units than requests, by its answer: unit to number. What is
                not named stays as it was booked, and so does what is no finite number from 0 on.
        """
        self._observed = True
        corrections = self._corrections(counted) if counted else []
        if corrections:
            self._budget._document.count_corrections(corrections)
        corrected = any(each.difference for each in corrections)
        if throttled is None:
            throttled = is_throttle(status, headers)
        try:
            if throttled:
                self._tell_throttle(status, headers)
            else:
                self._tell_outcome(status, headers, seconds, error, corrected)
        except BudgetError as unavailable:
            # The answer is worth more than the note; nobody sends while the database is away or not understood.
            log.warning("what came of a call could not be told: %s", unavailable)
        if corrected:
            self._budget._dispatch.correct(corrections)

    def _corrections(self, counted: Mapping[str, float]) -> list[Correction]:
        real = {unit_of(unit): number for unit, number in counted.items() if 0 <= number < math.inf}
        return [
            Correction(
                self._grant.at,
                self._endpoint,
                unit,
                parts_of(count_of(self._counts, unit)),
                parts_of(number),
            )
            for unit, number in real.items()
            if unit != REQUESTS
        ]

    def _tell_throttle(self, status: int | None, headers: Mapping[str, str]) -> None:
        answered_at = self._answer_time(headers)
        asked, quotas = wait_seconds(headers, answered_at), parse_quotas(headers, answered_at)
        reason = f"the vendor answered {status}" + ("" if asked is None else f", wait {asked:g} s")
        rules, away = self._budget._terms.rules, status == 503

        def step(pace: Pace, now: float) -> None:
            pace.throttle(rules, self._grant, asked, reason, now, self._endpoint, quotas, unavailable=away)

        self._budget._document.tell_and_change(step)

    def _tell_outcome(
        self, status: int | None, headers: Mapping[str, str], seconds: float, error: bool, corrected: bool
    ) -> None:
        document = self._budget._document
        alive = status is not None and status < 500
        answered = alive and not error and status != 408
        untold_seconds = document.count_outcome(self._endpoint, seconds, alive=alive, answered=answered)
        if self._grant.probe or (untold_seconds > _TELL_SECONDS and not answered):
            document.tell()
        told = False
        if tell_of_limits(headers):
            quotas, policies = parse_quotas(headers, self._answer_time(headers)), parse_policies(headers)
            told = bool(quotas or policies) and self._hear(status, quotas, policies, answered=answered)
        if corrected and not told:
            document.tell()

    def _hear(
        self,
        status: int | None,
        quotas: tuple[Quota, ...],
        policies: tuple[Policy, ...],
        *,
        answered: bool,
    ) -> bool:
        """Take in what an answer tells of quotas; whether the others were told."""
        budget, document = self._budget, self._budget._document
        grant, view = self._grant, document.view
        now = grant.at + budget._clock.monotonic() - self._entered_at
        others = max(0, budget._dispatch.in_flight - 1)
        to_endpoint = max(0, budget._dispatch.in_flight_to(self._endpoint) - 1)
        statement = budget._listener.compare(
            Statement(self._endpoint, grant.at, others, quotas, policies, to_endpoint=to_endpoint),
            view.pace.quotas if view else {},
            trial=grant.trial,
            admitted=answered and status is not None and status < 400,
            now=now,
        )
        document.count_against(statement.against, statement.firmly)
        rules, share = budget._terms.rules, budget._terms.share
        if grant.trial or view is None or view.pace.news(rules, share, statement, now):
            document.tell_and_change(lambda pace, now: pace.hear(rules, share, statement, now))
            return True
        return False

    def _answer_time(self, headers: Mapping[str, str]) -> datetime:
        return answer_time(headers, datetime.fromtimestamp(self._budget._clock.wall(), UTC))


class Budget:
    """The rate at which one vendor account may be called, shared by all that name the same database.

    Threads, processes and machines with the same database and account share one pace. The object is safe
    for threads; after a fork the child's copy is a new, empty member.

    Args:
        database_url: SQLAlchemy's: ``sqlite:////folder/file.db`` or ``postgresql://user:password@host/name``.
        limits: The vendor's quota, or ``auto`` where it is not known.
        share: Our part of it, above 0 to 1.
        max_in_flight: Calls at once, over all that share them.
        in_flight_of: Under which name they are shared, where that is more than the account: its user's.

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
        in_flight_of: str = "",
        clock: Clock | None = None,
    ) -> None:
        known = () if limits == "auto" else tuple(limits)
        self._terms = Terms(account, known, share, max_in_flight, in_flight_of)
        self._clock = clock or Clock()
        self._database = Database(database_url, self._clock)
        self.start_over()
        _open_budgets.add(self)

    def start_over(self) -> None:
        """Be a new member with no threads and no slots; in the child of a fork."""
        self.holder = f"{process_name()}-{next(_numbers)}"
        announcer = Announcer(self._terms, self._clock)
        self._document = PaceDocument(self._database, self._terms, self._clock, announcer.changed)
        self._dispatch = Dispatch(self._terms, self._document, self._database, self.holder, self._clock)
        self._listener = Listener()

    def others_of(self, asker: str) -> list[str]:
        """The other accounts for which the same asker has called within a day, each with a budget of its own.

        Args:
            asker: Names what the vendor sees of whoever calls; no secret, as it is kept in the database.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        return note_account(self._database, self._clock, asker, self._terms.account)

    def slot(
        self,
        *,
        endpoint: str = "",
        work_class: WorkClass = SCHEDULED,
        deadline_seconds: float | None = None,
        stopped: Callable[[], bool] | None = None,
        counts: Mapping[str, float] | None = None,
        team: Team = OTHERS,
    ) -> Slot:
        """A slot for one call: ``with budget.slot(endpoint="hosts") as slot: ...``.

        Entering blocks until the call may be sent now; leaving says that the call is over.

        Args:
            endpoint: Where the call goes: a word of the vendor's dialect.
            work_class: Scheduled work goes before backfills.
            deadline_seconds: The longest acceptable wait; None for any.
            stopped: Whether nobody wants the slot any more; asked while waiting, every second and at once after
                :meth:`wake`.
            counts: What the call counts against limits of other units than requests: unit to number,
                whole or not. One that is not named counts 1, and 0 is nothing.
            team: Who shares the pace by weight with other teams that want slots at the same time.

        Raises:
            StoppedError: On entry: ``stopped``; a slot that was reserved is lost.
            BudgetDeadlineError: On entry: the wait would be longer; nothing was taken.
            BudgetUnavailableError: On entry: the database cannot be reached.
        """
        counted = tuple(sorted((unit_of(unit), number) for unit, number in counts.items())) if counts else ()
        return Slot(self, endpoint, work_class, deadline_seconds, stopped, counted, team)

    def wake(self) -> None:
        """Let every caller of this process that waits see whether it still wants its slot."""
        self._dispatch.wake()

    def state(self) -> BudgetState:
        """What the budget does now, over all processes.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        found = self.snapshot()
        return BudgetState.of(found.terms, found.pace, found.shares, found.now, found.wall)

    def snapshot(self) -> Snapshot:
        """The budget as it stands, for :func:`~vendor_assets.budget.why.explain`; nothing is changed by reading it.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        pace, now = self._document.read(patience_seconds=_STATE_PATIENCE_SECONDS)
        asked_at = self._clock.monotonic()
        shares = self._dispatch.shares(patience_seconds=_STATE_PATIENCE_SECONDS)
        # SQLite is never far away, only its machine busy.
        took = 0.0 if self._database.is_sqlite else self._clock.monotonic() - asked_at
        return Snapshot(self._terms, pace, shares, now, self._clock.wall(), took)

    def longest_wait(self) -> LongestWait | None:
        """The call of this process that waits longest for its slot; None where none does."""
        return self._dispatch.longest_wait()

    def lift_ceiling(self) -> str:
        """Forget how the vendor fell: somebody knows that it bears more.

        Returns:
            What was forgotten, as a sentence; empty where there was no ceiling.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        lifted = ""

        def step(pace: Pace, now: float) -> None:
            nonlocal lifted
            lifted = ceiling_reason(pace, now, self._clock.wall())
            pace.falls.forget()

        self._document.change(step)
        return lifted

    def close(self) -> None:
        """Give back what this process holds; callers that wait get an error."""
        self._dispatch.close()
        self._database.close()


_open_budgets: weakref.WeakSet[Budget] = weakref.WeakSet()


def _after_fork() -> None:
    for budget in list(_open_budgets):
        budget.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
