"""Samples of the backlog over time: the curves of how much work waits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from vendor_assets.budget.clock import Clock
from vendor_assets.budget.database import Database
from vendor_assets.budget.database import backlog as table

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_COUNTS: Final = ("troops", "warriors", "data_groups", "dead", "calls", "calls_done")
_OF: Final = "/"
"""Between an account's name and the source of its sample; in no source of ours."""
FRESH: Final = timedelta(minutes=2)
"""A sample holds for so long; without a newer one its source has gone."""


@dataclass(frozen=True)
class Sample:
    """How much of one source's work waited at one time.

    Attributes:
        time: Aware.
        source: Whose work: a run's id, or a name for work that no run has begun.
        troops: Troops whose warriors have not been listed.
        warriors: Known warriors whose data groups have not been listed.
        data_groups: Known data groups of warriors whose performance data have not landed.
        dead: Dead letters of the source's work so far.
        calls: Calls that the source still has to make; an estimate where its plan is not known yet.
        calls_done: Calls that the source has made so far, as the vendor counts them.
    """

    time: datetime
    source: str
    troops: int = 0
    warriors: int = 0
    data_groups: int = 0
    dead: int = 0
    calls: int = 0
    calls_done: int = 0

    @property
    def waits(self) -> bool:
        """Whether anything waits."""
        return bool(self.troops or self.warriors or self.data_groups or self.calls)


class Backlog:
    """The samples of one deployment, in the budget's database.

    Times are kept by the database's clock and given by that of whoever reads, since the clock of a machine that wrote
    them may be off.

    Every method raises BudgetUnavailableError where the database cannot be reached.

    Args:
        account: The account's name, where several share a database; empty for the one without a name.

    Raises:
        ConfigurationError: The URL is not one.
    """

    def __init__(self, database_url: str, account: str = "", *, clock: Clock | None = None) -> None:
        self._prefix = f"{account}{_OF}" if account else ""
        # A sample is not worth waiting for: the next one comes by itself.
        self._database = Database(database_url, clock, patience_seconds=3.0)

    def _own(self) -> sa.ColumnElement[bool]:
        """Samples of this account."""
        if self._prefix:
            return table.c.source.startswith(self._prefix, autoescape=True)
        return ~table.c.source.contains(_OF)

    def append(self, samples: Sequence[Sample]) -> None:
        """Keep samples."""
        rows = [
            asdict(sample) | {"time": sample.time.timestamp(), "source": self._prefix + sample.source}
            for sample in samples
        ]

        def insert(connection: Connection) -> None:
            ahead = self._database.ahead_seconds(connection)
            connection.execute(sa.insert(table), [row | {"time": row["time"] - ahead} for row in rows])

        if rows:
            self._database.run(insert)

    def read(self, since: datetime) -> list[Sample]:
        """Samples from this moment on, oldest first."""

        def read(connection: Connection) -> list[Sample]:
            ahead = self._database.ahead_seconds(connection)
            statement = (
                sa.select(table)
                .where(table.c.time >= since.timestamp() - ahead, self._own())
                .order_by(table.c.time, table.c.id)
            )
            return [
                Sample(
                    datetime.fromtimestamp(row.time + ahead, UTC),
                    row.source.removeprefix(self._prefix),
                    *(getattr(row, name) for name in _COUNTS),
                )
                for row in connection.execute(statement)
            ]

        return self._database.run(read)

    def forget_before(self, moment: datetime) -> None:
        """Remove older samples."""

        def delete(connection: Connection) -> None:
            until = moment.timestamp() - self._database.ahead_seconds(connection)
            connection.execute(sa.delete(table).where(table.c.time < until, self._own()))

        self._database.run(delete)

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


def totals(samples: Sequence[Sample], moments: Iterable[datetime]) -> list[Sample]:
    """What waited in all at some moments, both ascending: the newest sample of each source, as long as it holds."""
    newest: dict[str, Sample] = {}
    found: list[Sample] = []
    seen = 0
    for moment in moments:
        while seen < len(samples) and samples[seen].time <= moment:
            newest[samples[seen].source] = samples[seen]
            seen += 1
        newest = {name: sample for name, sample in newest.items() if sample.time > moment - FRESH}
        found.append(_sum(moment, newest.values()))
    return found


def _sum(moment: datetime, samples: Collection[Sample]) -> Sample:
    return Sample(moment, "all", **{name: sum(getattr(each, name) for each in samples) for name in _COUNTS})


def pace_at(samples: Sequence[Sample], moment: datetime) -> float:
    """Calls per second that all sources made together over the last samples (oldest first); 0 if nothing was done."""
    of_source: dict[str, list[Sample]] = {}
    for sample in samples:
        if moment - FRESH < sample.time <= moment:
            of_source.setdefault(sample.source, []).append(sample)
    pace = 0.0
    for mine in of_source.values():
        seconds = (mine[-1].time - mine[0].time).total_seconds()
        if seconds > 0:
            pace += (mine[-1].calls_done - mine[0].calls_done) / seconds
    return pace
