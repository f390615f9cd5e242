"""The document that holds an account's pace: how this process reads it, changes it, and what it knows of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vendor_assets.budget.adaptation import Tally
from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database, Snapshot, understanding
from vendor_assets.budget.pace import Pace
from vendor_assets.budget.reservations import Correction, Grant
from vendor_assets.budget.terms import Terms
from vendor_assets.errors import BudgetError
from vendor_assets.logs import get_logger

log = get_logger(__name__)

_PART: Final = "pace"


@dataclass(frozen=True)
class View:
    """What this process knows of the pace.

    Attributes:
        at: When it was read, on this machine's monotonic clock.
        version: The document's.
    """

    pace: Pace
    body: str
    at: float
    version: int


class PaceDocument:
    """The pace that all processes of an account share. Safe to use from several threads.

    What came of this process's calls is collected, and goes to the others with the next change. Where the database
    cannot be reached, BudgetUnavailableError is raised, nothing is changed, and it is told next time.

    Args:
        changed: Called after each change with the pace, the database's clock, and whether the vendor has fallen.

    Attributes:
        interval_seconds: Between two calls, at the last change; 0 before the first one.
    """

    def __init__(
        self, database: Database, terms: Terms, clock: Clock, changed: Callable[[Pace, float, bool], None]
    ) -> None:
        self._database = database
        self._terms = terms
        self._clock = clock
        self._changed = changed
        self._lock = threading.Lock()
        self._view: View | None = None
        # The last one there was: a document that is lost is made from it.
        self._last_view: View | None = None
        self._kept_at = 0.0
        self._tally = Tally()
        self._told_at = 0.0
        self.interval_seconds = 0.0

    @property
    def view(self) -> View | None:
        """What is known, without a look; None before the first one, and where the document was lost."""
        return self._view

    def known_valid(self, grant: Grant) -> bool:
        """Whether a slot may still be used, by what is known."""
        return self._view is not None and self._view.pace.valid(grant)

    def read(self, *, patience_seconds: float) -> tuple[Pace, float]:
        """The pace as it is, and the database's clock."""
        snapshot = self._database.read(self._terms.account, _PART, patience_seconds=patience_seconds)
        return self._load(snapshot), snapshot.now

    def look(self) -> View | None:
        """Read the epochs; nothing where the document was lost, so that whatever was given is void."""
        before = self._clock.monotonic()
        snapshot = self._database.read(self._terms.account, _PART)
        if snapshot.version is None:
            self._view = None
            return None
        known, boot = self._view, self._database.boot
        same = known is not None and (known.version, known.body) == (snapshot.version, snapshot.body)
        if known is not None and same and known.pace.is_of_clock(snapshot.now, boot):
            # As it was, which is cheaper to see than to read.
            return self._keep(View(known.pace, known.body, before, known.version))
        with understanding(self._terms.account):
            pace = Pace.load(snapshot.body, snapshot.now, self._clock.wall(), boot)
        if self._is_lost(pace, snapshot):
            self._view = None
            return None
        return self._keep(View(pace, snapshot.body, before, snapshot.version))

    # -- what came of calls ------------------------------------------------------------------------

    def count_sent(self) -> None:
        """A call is sent now."""
        with self._lock:
            self._tally.send(self._clock.monotonic())

    def count_outcome(self, endpoint: str, seconds: float, *, alive: bool, answered: bool) -> float:
        """Something came of a call; arguments as those of :meth:`Tally.add`.

        Returns:
            Seconds since the others were last told.
        """
        with self._lock:
            self._tally.add(endpoint, seconds, alive=alive, answered=answered, now=self._clock.monotonic())
            return self._clock.monotonic() - self._told_at

    def count_against(self, quotas: tuple[str, ...], firmly: tuple[str, ...]) -> None:
        """An answer contradicts what the vendor tells of its quotas."""
        with self._lock:
            self._tally.add_against(quotas, firmly)

    def count_corrections(self, corrections: Sequence[Correction]) -> None:
        """An answer tells what its call really counted."""
        with self._lock:
            self._tally.corrections += corrections

    # -- changes -----------------------------------------------------------------------------------

    def tell(self) -> None:
        """Tell the others what came of this process's calls, where there is anything to tell."""
        tally = self._swap_tally()
        if tally:
            self._tell(tally, lambda _pace, _now: None)

    def tell_and_change(self, step: Callable[[Pace, float], object]) -> Snapshot:
        """Tell the others what came of this process's calls, and change the pace.

        Args:
            step: Changes it, given the database's clock; it may be called several times.
        """
        return self._tell(self._swap_tally(), step)

    def change(self, step: Callable[[Pace, float], object]) -> Snapshot:
        """Change the pace and tell nothing; what this process knows of it is then fresh."""

        def whole(snapshot: Snapshot) -> tuple[str, tuple[Snapshot, Pace, str, bool]]:
            pace = self._load(snapshot)
            known = pace.falls.number, pace.falls.fell_at
            step(pace, snapshot.now)
            pace.at = max(pace.at, snapshot.now)
            body = pace.dump(snapshot.now, self._clock.wall())
            return body, (snapshot, pace, body, known != (pace.falls.number, pace.falls.fell_at))

        snapshot, pace, body, fell = self._database.change(self._terms.account, _PART, whole)
        self._keep(View(pace, body, snapshot.read_at, (snapshot.version or 0) + 1))
        self.interval_seconds = 1.0 / pace.present_rate(self._terms.rules, snapshot.now)
        self._changed(pace, snapshot.now, fell)
        return snapshot

    def _tell(self, tally: Tally, step: Callable[[Pace, float], object]) -> Snapshot:
        def whole(pace: Pace, now: float) -> None:
            # The tally's times are this machine's.
            told = tally.moved(now - self._clock.monotonic())
            pace.absorb(self._terms.rules, self._terms.share, told, now)
            step(pace, now)

        try:
            return self.change(whole)
        except BudgetError:
            with self._lock:
                tally.join(self._tally)
                self._tally = tally
            raise

    def _swap_tally(self) -> Tally:
        with self._lock:
            tally, self._tally = self._tally, Tally()
            self._told_at = self._clock.monotonic()
        return tally

    def _load(self, snapshot: Snapshot) -> Pace:
        wall, boot = self._clock.wall(), self._database.boot
        if snapshot.version is None:
            pace = Pace.new(snapshot.now, wall, boot)
        else:
            with understanding(self._terms.account):
                pace = Pace.load(snapshot.body, snapshot.now, wall, boot)
        last = self._last_view
        if last is not None and self._is_lost(pace, snapshot):
            log.warning(
                "the state of the budget of %s was lost; going on with what this process knows",
                self._terms.account,
            )
            pace.inherit(Pace.load(last.body, snapshot.now, wall, boot), snapshot.now)
        return pace

    def _is_lost(self, pace: Pace, snapshot: Snapshot) -> bool:
        """Whether this is not the document that was known, or an earlier state of it, as from a backup."""
        with self._lock:
            last = self._last_view
            if last is None:
                return False
            # What was read before the last change was known may just be older.
            earlier = (snapshot.version or 0) < last.version and snapshot.read_at >= self._kept_at
        return earlier or pace.id != last.pace.id

    def _keep(self, view: View) -> View:
        """Remember a view, unless a newer one is known."""
        with self._lock:
            if self._view is None or self._view.at <= view.at:
                self._view = self._last_view = view
                self._kept_at = self._clock.monotonic()
        return view
