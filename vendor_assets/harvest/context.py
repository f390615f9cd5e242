"""What a run gives to all of its partitions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

from vendor_assets.budget import OTHERS, Team
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.fetching import Counts, Fetcher, Pending, Work
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.landing import LandedIndex, Lander
from vendor_assets.harvest.outcome import HarvestOptions
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.vendors.base import Asset, Vendor


@dataclass(frozen=True)
class HarvestContext:
    """What a run gives to all of its partitions.

    Attributes:
        watch: Called with each piece of fetching that begins, for whoever shows progress.
        sightings: Everything that was sighted on a day.
    """

    store: ObjectStore
    vendor: Vendor
    fetcher: Fetcher
    resolution_seconds: int
    settling_seconds: float
    flush_seconds: float
    now: Callable[[], datetime]
    watch: Callable[[Work], None]
    sightings: Callable[[date], list[LandedIndex]]
    filters: Filters
    stop: threading.Event

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters in the store."""
        return DeadLetters(self.store)

    def work(
        self,
        asset: Asset,
        troop_id: str,
        lander: Lander,
        pending: Pending,
        options: HarvestOptions,
        counts: Counts | None = None,
        team: Team = OTHERS,
        not_before: datetime | None = None,
    ) -> Work:
        """What the fetcher shall do for one partition; ``counts`` grows by what it costs."""
        work = Work(
            asset,
            troop_id,
            lander,
            pending,
            not_before=not_before,
            work_class=options.work_class,
            counts=counts or Counts(),
            team=team,
        )
        self.watch(work)
        return work
