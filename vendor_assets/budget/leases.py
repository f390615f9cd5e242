"""Leases: who is alive."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database
from vendor_assets.budget.database import leases as table
from vendor_assets.errors import BudgetUnavailableError
from vendor_assets.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

log = get_logger(__name__)


@dataclass(frozen=True)
class LeaseState:
    """A lease, as of now.

    Attributes:
        renewed_at: On the database's clock, in seconds.
        lapsed: Whether its age exceeds its time to live: the holder is dead or stopped. So it is where it was renewed
            in the future, as the database's clock was set back since; who lives renews it by the new time.
    """

    holder: str
    info: Mapping[str, str]
    renewed_at: float
    age_seconds: float
    lapsed: bool
    renewals: int


class Leases:
    """Rows that live processes renew; who stops renewing is gone.

    Every method raises BudgetUnavailableError where the database cannot be reached.

    Raises:
        ConfigurationError: The URL is not one.
    """

    def __init__(
        self,
        database_url: str,
        *,
        ttl_seconds: float = 10,
        renew_seconds: float = 2,
        clock: Clock | None = None,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._renew_seconds = renew_seconds
        self._database = Database(database_url, clock, patience_seconds=ttl_seconds)
        self._clock = self._database.clock

    @contextlib.contextmanager
    def hold(self, holder: str, *, info: Mapping[str, str]) -> Iterator[None]:
        """Hold a lease while the block lasts; a thread renews it. Leaving the block gives it back."""
        self.renew(holder, info)
        stops = threading.Event()
        thread = threading.Thread(
            target=self._keep, args=(holder, dict(info), stops), name=f"lease {holder}", daemon=True
        )
        if not self._clock.simulated:
            thread.start()
        try:
            yield
        finally:
            stops.set()
            if thread.is_alive():
                thread.join(self._ttl_seconds)
            with contextlib.suppress(BudgetUnavailableError):
                self.forget(holder)

    def renew(self, holder: str, info: Mapping[str, str]) -> None:
        """Take or renew a lease."""
        now = self._database.run(self._database.time)
        new: dict[str, Any] = {
            "boot": self._database.boot,
            "renewed_at": now,
            "ttl_seconds": float(self._ttl_seconds),
            "info": json.dumps(dict(info)),
        }
        insert = self._database.insert_lease.values(holder=holder, renewals=1, **new)
        upsert = insert.on_conflict_do_update(
            index_elements=["holder"], set_={**new, "renewals": table.c.renewals + 1}
        )
        self._database.run(lambda connection: connection.execute(upsert))

    def holder(self, holder: str) -> LeaseState | None:
        """The state of one lease; None where there is none."""
        found = self._read(sa.select(table).where(table.c.holder == holder))
        return found[0] if found else None

    def alive(self, holder: str) -> bool:
        """Whether a holder has a lease that has not lapsed."""
        lease = self.holder(holder)
        return lease is not None and not lease.lapsed

    def all(self) -> list[LeaseState]:
        """All leases, lapsed ones too, by holder."""
        return self._read(sa.select(table).order_by(table.c.holder))

    def forget(self, holder: str) -> None:
        """Remove a lease."""
        statement = sa.delete(table).where(table.c.holder == holder)
        self._database.run(lambda connection: connection.execute(statement))

    def watch(self, holder: str, stop: Callable[[], bool] | None = None) -> bool:
        """Watch a holder for up to its time to live.

        What counts is a renewal that is seen to happen, so no clock of another machine is believed.

        Args:
            stop: Asked several times a second; once true, watching ends with what the lease says by then.

        Returns:
            True as soon as it has renewed; False once it has lapsed, or where there is no lease.
        """
        first = self.holder(holder)
        if first is None or first.lapsed:
            return False
        until = self._clock.monotonic() + self._ttl_seconds
        while True:
            self._clock.sleep(min(0.2, self._renew_seconds / 4))
            found = self.holder(holder)
            if found is None:
                return False
            if (found.renewals, found.renewed_at) != (first.renewals, first.renewed_at):
                return True
            if found.lapsed or self._clock.monotonic() > until:
                return False
            if stop is not None and stop():
                return not found.lapsed

    def _read(self, statement: sa.Select[Any]) -> list[LeaseState]:
        def read(connection: Connection) -> list[LeaseState]:
            rows = connection.execute(statement).all()
            now = self._database.time(connection)
            return [self._state(row, now) for row in rows]

        return self._database.run(read)

    def _state(self, row: sa.Row[Any], now: float) -> LeaseState:
        # From another boot of the machine: whoever it was is gone.
        same_boot = row.boot == self._database.boot
        age = now - row.renewed_at if same_boot else float("inf")
        return LeaseState(
            holder=row.holder,
            info=json.loads(row.info),
            renewed_at=row.renewed_at,
            age_seconds=max(0.0, age),
            lapsed=abs(age) > row.ttl_seconds,
            renewals=row.renewals,
        )

    def _keep(self, holder: str, info: Mapping[str, str], stops: threading.Event) -> None:
        while not stops.wait(self._renew_seconds):
            try:
                self.renew(holder, info)
            except BudgetUnavailableError as error:
                log.warning("the lease of %s cannot be renewed: %s", holder, error)
