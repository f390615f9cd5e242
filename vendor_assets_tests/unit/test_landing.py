"""Landing holds out while the store is away, and gives up in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.errors import HarvestError, StorageUnavailableError
from vendor_assets.harvest.landing import Landed, Lander, read_bodies, read_index
from vendor_assets.storage.folder import FolderStore
from vendor_assets.vendors.base import Leaf, PlannedRequest, Request, Response


class AwayStore(FolderStore):
    """A store that cannot be written until some moment."""

    patience_seconds = 30.0

    def __init__(self, folder: Path, now: Callable[[], float], back_at: float) -> None:
        super().__init__(folder)
        self.now, self.back_at, self.tries = now, back_at, 0

    def put(self, key: str, data: bytes, **conditions: Any) -> str:
        self.tries += 1
        if self.now() < self.back_at:
            raise StorageUnavailableError("the store does not answer")
        return super().put(key, data, **conditions)


@dataclass
class Bench:
    """A lander on a clock that moves only while it waits."""

    folder: Path
    back_at: float
    now: float = 0.0
    stopping: bool = False
    foreign_from: float = float("inf")
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = AwayStore(self.folder, lambda: self.now, self.back_at)
        self.lander = Lander(
            self.store,
            lambda n: f"raw_data/chunk-{n}",
            max_seconds=0.0,
            confirm=self.confirm,
            monotonic=lambda: self.now,
            wait=self.wait,
        )

    def confirm(self) -> None:
        if self.now >= self.foreign_from:
            raise HarvestError("somebody else's by now")

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        if not self.stopping:
            self.now += seconds
        return self.stopping

    def bring(self, name: str) -> None:
        request = Request(f"/{name}")
        response = Response(200, {}, b"{}", datetime(2026, 11, 21, tzinfo=UTC))
        planned = PlannedRequest(request, (Leaf(name),))
        self.lander.add(Landed("warriors", "1", planned, 1, request, None, response, 1))

    def landed(self) -> int:
        return len(read_index(self.store, [info.key for info in self.store.list("raw_data/")]))


def test_a_store_that_comes_back_in_time_loses_nothing(tmp_path: Path) -> None:
    """What was answered waits for the store, with growing delays, and lands once it is back."""
    bench = Bench(tmp_path, back_at=20.0)
    bench.bring("a")
    bench.lander.flush()
    assert bench.landed() == 1
    assert bench.waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(bench.waits) == 5.0


def test_a_store_that_stays_away_is_given_up_once(tmp_path: Path) -> None:
    """After half a minute it is said; who brings more is told at once, and the end tries once more."""
    bench = Bench(tmp_path, back_at=100.0)
    bench.bring("a")
    with pytest.raises(StorageUnavailableError):
        bench.lander.flush()
    assert bench.now == 30.0
    tries = bench.store.tries
    bench.now += 1
    with pytest.raises(StorageUnavailableError):
        bench.bring("b")
    assert (bench.store.tries, bench.now) == (tries, 31.0)
    with pytest.raises(StorageUnavailableError):
        bench.lander.flush(final=True)
    assert (bench.store.tries, bench.now) == (tries + 1, 31.0)
    bench.now = 100.0
    bench.lander.flush(final=True)
    assert bench.landed() == 2


def test_a_run_that_shall_end_does_not_wait(tmp_path: Path) -> None:
    """Asked to end while the store is away, it says so at once."""
    bench = Bench(tmp_path, back_at=20.0, stopping=True)
    bench.bring("a")
    with pytest.raises(StorageUnavailableError):
        bench.lander.flush()
    assert (len(bench.waits), bench.now) == (1, 0.0)


def test_who_was_replaced_while_the_store_was_away_lands_nothing(tmp_path: Path) -> None:
    """Before each try it is asked anew whether landing is still this run's."""
    bench = Bench(tmp_path, back_at=20.0, foreign_from=10.0)
    bench.bring("a")
    with pytest.raises(HarvestError, match="somebody else's"):
        bench.lander.flush()
    assert bench.landed() == 0


def test_a_page_that_was_asked_by_a_body_comes_back(tmp_path: Path) -> None:
    """What a later page was asked with is as much part of the answer as its bytes."""
    store = FolderStore(tmp_path)
    first, second = (Request.json("/graphql", {"cursor": cursor}) for cursor in (None, "next"))
    planned = PlannedRequest(first, (Leaf("troops"),))
    lander = Lander(store, lambda n: f"raw_data/chunk-{n}", wait=lambda _: False)
    for page, request, following in ((1, first, second), (2, second, None)):
        response = Response(200, {}, b"{}", datetime(2026, 11, 21, tzinfo=UTC))
        lander.add(Landed("troops", "", planned, page, request, following, response))
    lander.flush(final=True)
    index = read_index(store, [info.key for info in store.list("raw_data/")])
    read = [(back, response.asked) for _, back, response in read_bodies(store, index)]
    assert read == [(planned, None), (planned, second)]
