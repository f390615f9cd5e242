"""The document that holds an account's pace: how this process reads it, changes it, and what it knows of it."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from vendor_assets.budget.adaptation import Tally
from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database, Snapshot, understanding
from vendor_assets.budget.pace import Pace, decode, encode, epochs_of, is_of_clock
from vendor_assets.budget.reservations import Correction, Epochs, Grant
from vendor_assets.budget.terms import Terms
from vendor_assets.errors import BudgetError
from vendor_assets.logs import get_logger

log = get_logger(__name__)

_PART: Final = "pace"
_LOOKS: Final = 8
_LONGEST_LOOK_SECONDS: Final = 1.0


@dataclass(eq=False)
class View:
    """What this process knows of the pace; what few ask for is made of the document when they do.

    Attributes:
        body: Of the document, as it was read,
        found: and what it holds, on the present clock.
        at: When it was last seen to be so, on this machine's monotonic clock.
        version: The document's.
    """

    body: str
    found: dict[str, Any]
    at: float
    version: int

    @cached_property
    def epochs(self) -> Epochs:
        """What tells whether slots still hold."""
        return epochs_of(self.found)

    @cached_property
    def pace(self) -> Pace:
        """The pace; only to be read."""
        return Pace.of(self.found)

    @cached_property
    def narrow_endpoints(self) -> frozenset[str]:
        """Endpoints that the vendor tells apart, by what it states of its quotas."""
        return frozenset(self.pace.quotas.narrow_endpoints()) if self.found.get("quotas") else frozenset()

    @property
    def learns(self) -> bool:
        """Whether answers may free what was booked."""
        return bool(self.found.get("learnt"))


class PaceDocument:
    """The pace that all processes of an account share. Safe to use from several threads.

    What came of this process's calls is collected, and goes to the others with the next change. Where the database
    cannot be reached, BudgetUnavailableError is raised, nothing is changed, and it is told next time.

    Args:
        changed: Called after each change with the pace, the database's clock, and whether the vendor has fallen.

    Attributes:
        interval_seconds: Between two calls, at the last change; 0 before the first one.
        others_at: When it was last seen that somebody else had changed it, on this machine's monotonic clock.
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
        self._looks: deque[float] = deque(maxlen=_LOOKS)
        self._changing = 0
        self.interval_seconds = 0.0
        self.others_at = -math.inf

    @property
    def view(self) -> View | None:
        """What is known, without a look; None before the first one, and where the document was lost."""
        return self._view

    @property
    def look_seconds(self) -> float:
        """How long a look takes at least: the quickest of the last few, as one may be slow by chance; 0 before any."""
        with self._lock:
            return min(*self._looks, _LONGEST_LOOK_SECONDS) if self._looks else 0.0

    def known_valid(self, grant: Grant) -> bool:
        """Whether a slot may still be used, by what is known."""
        return self._view is not None and self._view.epochs.valid(grant)

    def read(self, *, patience_seconds: float) -> tuple[Pace, float]:
        """The pace as it is, and the database's clock."""
        snapshot = self._database.read(self._terms.account, _PART, patience_seconds=patience_seconds)
        return self._load(snapshot), snapshot.now

    def look(self) -> View | None:
        """Read the epochs; nothing where the document was lost, so that whatever was given is void."""
        before = self._clock.monotonic()
        snapshot = self._database.read(self._terms.account, _PART)
        with self._lock:
            self._looks.append(self._clock.monotonic() - before)
        if snapshot.version is None:
            self._view = None
            return None
        self._note_others(snapshot, before, changing=0)
        known, boot = self._view, self._database.boot
        same = known is not None and (known.version, known.body) == (snapshot.version, snapshot.body)
        if (
            known is not None
            and same
            and is_of_clock(known.found["boot"], known.found["at"], snapshot.now, boot)
        ):
            # As it was, which is cheaper to see than to read.
            known.at = max(known.at, before)
            return self._keep(known)
        with understanding(self._terms.account):
            found = decode(snapshot.body)
            if not is_of_clock(found["boot"], found["at"], snapshot.now, boot):
                wall = self._clock.wall()
                found = Pace.load(snapshot.body, snapshot.now, wall, boot).document(snapshot.now, wall)
            view = View(snapshot.body, found, before, snapshot.version)
            number, marks, _ = found["id"], found.get("marks", []), view.epochs
        if self._is_lost(number, marks, snapshot):
            self._view = None
            return None
        return self._keep(view)

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

    def tell(self, *, unless_within_seconds: float = 0.0) -> None:
        """Tell the others what came of this process's calls, where there is anything to tell.

        Args:
            unless_within_seconds: Where nothing failed and it was told within this time, it waits.
        """
        with self._lock:
            told_ago = self._clock.monotonic() - self._told_at
            if not self._tally.failed and told_ago < unless_within_seconds:
                return
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

        def whole(snapshot: Snapshot) -> tuple[str, tuple[Snapshot, Pace, View, bool]]:
            self._note_others(snapshot, snapshot.read_at, changing=1)
            pace = self._load(snapshot)
            known = pace.falls.number, pace.falls.fell_at
            step(pace, snapshot.now)
            pace.at = max(pace.at, snapshot.now)
            pace.mark()
            found = pace.document(snapshot.now, self._clock.wall())
            view = View(encode(found), found, snapshot.read_at, (snapshot.version or 0) + 1)
            return view.body, (snapshot, pace, view, known != (pace.falls.number, pace.falls.fell_at))

        with self._lock:
            self._changing += 1
        try:
            snapshot, pace, view, fell = self._database.change(self._terms.account, _PART, whole)
            self._keep(view)
        finally:
            with self._lock:
                self._changing -= 1
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
        if last is not None and self._is_lost(pace.id, pace.marks, snapshot):
            log.warning(
                "the state of the budget of %s was lost; going on with what this process knows",
                self._terms.account,
            )
            pace.inherit(Pace.load(last.body, snapshot.now, wall, boot), snapshot.now)
        return pace

    def _is_lost(self, number: str, marks: Sequence[int], snapshot: Snapshot) -> bool:
        """Whether it is not the document that was known, by its number, nor one that was made of it.

        It may be an earlier one, as from a backup, or one that others have changed since it was, as after the failover
        to a copy that lacked the last changes.
        """
        with self._lock:
            last = self._last_view
            if last is None:
                return False
            changes = (snapshot.version or 0) - last.version
            # What was read before the last change was known may just be older.
            earlier = changes < 0 and snapshot.read_at >= self._kept_at
            known = last.found.get("marks", [])[-1:]
            other = bool(known) and 0 <= changes < len(marks) and marks[-1 - changes] != known[0]
        return earlier or other or number != last.found["id"]

    def _note_others(self, snapshot: Snapshot, read_at: float, *, changing: int) -> None:
        """Whether somebody else has changed it, while no more than so many changes of this process are under way."""
        # One of this process is known once it is no longer under way.
        settled, known = self._changing <= changing, self._view
        if settled and known is not None and (snapshot.version or 0) > known.version:
            self.others_at = read_at

    def _keep(self, view: View) -> View:
        """Remember a view, unless a newer one is known."""
        with self._lock:
            if self._view is None or self._view.at <= view.at:
                self._view = self._last_view = view
                self._kept_at = self._clock.monotonic()
        return view
