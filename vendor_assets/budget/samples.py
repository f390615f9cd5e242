"""Samples of the backlog over time: the curves of how much work waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vendor_assets.budget.database import Database
from vendor_assets.budget.database import backlog as table

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


@dataclass(frozen=True)
class Sample:
    """How much of one asset waited at one time.

    Attributes:
        time: Aware.
        day: The asset's day, ISO.
        asset: Its name.
        waiting: Leaves not landed.
        dead: Dead letters.
    """

    time: datetime
    day: str
    asset: str
    waiting: int
    dead: int


class Backlog:
    """The samples of one deployment, in the budget's database.

    Args:
        database_url: The budget's.

    Raises:
        ConfigurationError: The URL is not one.
    """

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url)

    def append(self, samples: Sequence[Sample]) -> None:
        """Keep samples.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        rows = [
            {
                "time": sample.time.timestamp(),
                "day": sample.day,
                "asset": sample.asset,
                "waiting": sample.waiting,
                "dead": sample.dead,
            }
            for sample in samples
        ]
        if rows:
            self._database.run(lambda connection: connection.execute(sa.insert(table), rows))

    def read(self, since: datetime) -> list[Sample]:
        """Samples from this moment on, oldest first.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        statement = (
            sa.select(table).where(table.c.time >= since.timestamp()).order_by(table.c.time, table.c.id)
        )

        def read(connection: Connection) -> list[Sample]:
            return [
                Sample(datetime.fromtimestamp(row.time, UTC), row.day, row.asset, row.waiting, row.dead)
                for row in connection.execute(statement)
            ]

        return self._database.run(read)

    def forget_before(self, moment: datetime) -> None:
        """Remove older samples.

        Raises:
            BudgetUnavailableError: The database cannot be reached.
        """
        statement = sa.delete(table).where(table.c.time < moment.timestamp())
        self._database.run(lambda connection: connection.execute(statement))

    def close(self) -> None:
        """Close the connection."""
        self._database.close()
