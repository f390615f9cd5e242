"""What ``roster_sensor`` keeps between ticks: days whose rosters wait to be followed, and what it knows of troops."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, Self

from vendor_assets.account import Account
from vendor_assets.harvest.costs import Costs
from vendor_assets.orchestration.automation.turn import Turn
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.work_class import SCHEDULED, WorkClass, work_class_from

ESTIMATES_SECONDS: Final = 120.0
"""What is known of troops is read again after this time."""


@dataclass
class Waiting:
    """The sensor's cursor.

    Attributes:
        after: Storage id of the newest materialization that was read.
        days: Day to the storage id of its newest roster, the class of its work, and the id of the run that made it.
    """

    after: int = 0
    days: dict[str, tuple[int, str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: str | None) -> Self:
        """Read it from the sensor's cursor."""
        document = json.loads(cursor or "{}")
        # Earlier releases kept the storage id alone.
        if isinstance(document, int):
            return cls(document)
        found = cls(**document)
        found.days = {day: (int(held[0]), str(held[1]), str(held[2])) for day, held in found.days.items()}
        return found

    def dump(self) -> str:
        """Write it for the sensor's cursor."""
        return json.dumps(asdict(self))

    def in_order(self) -> Iterator[tuple[str, int, WorkClass, str]]:
        """Days, storage ids, classes and run ids: scheduled work first, then in the order of their rosters."""
        ordered = sorted(self.days.items(), key=lambda item: (item[1][1] != SCHEDULED, item[1][0]))
        return ((day, number, work_class_from(told), run_id) for day, (number, told, run_id) in ordered)


class Estimates:
    """The cost model, kept while days wait: what a tick has no time to read, the next one does."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._costs: Costs | None = None
        self._until = 0.0

    def resume(self, store: ObjectStore, turn: Turn) -> Costs:
        """The cost model for a tick. It leaves troops out once the tick's time is over and it has learnt something."""
        costs = self._costs
        # Of a day that is under way nothing is read twice, however long it takes.
        if costs is None or (not costs.cut_short and time.monotonic() >= self._until):
            costs = self._costs = Costs(store, self._account)
            self._until = time.monotonic() + ESTIMATES_SECONDS
        costs.cut_short, known = False, costs.shapes
        costs.hurry = lambda: turn.over() and costs.shapes > known
        return costs

    def forget(self) -> None:
        """Free its memory, once no days wait."""
        self._costs = None
