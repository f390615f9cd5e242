"""A request that fails for good is split, down to what fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from math import ceil, log2
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.errors import (
    StoppedError,
    VendorError,
    VendorRejectedError,
    VendorThrottledError,
    VendorTooLargeError,
    VendorUnavailableError,
)
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.fetching import Fetcher, Pending, Work
from vendor_assets.harvest.outcome import CHAIN, Outcome
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.vendors.base import Request
from vendor_assets_tests.support.toy import (
    DAY,
    ToyClient,
    ToyVendor,
    click,
    noon,
    toy_harvester,
    with_plain_keys,
)

GROUPS = [f"g{number:02d}" for number in range(32)]
BROKEN = VendorUnavailableError("the vendor failed (status 500)", status=500)


class Stage:
    """One store and one vendor with one warrior whose data come in one request."""

    def __init__(self, folder: Path) -> None:
        self.store = with_plain_keys(FolderStore(folder))
        self.client = ToyClient({"1": {"a": list(GROUPS)}}, noon)
        self.vendor = ToyVendor()
        self.vendor.batch = len(GROUPS)
        self.runs = 0

    def harvest(self, **order: Any) -> Outcome:
        """Bring the partition up to date by a run of its own; the outcome of its performance data."""
        self.runs += 1
        run = f"r{self.runs}"
        with closing(toy_harvester(self.store, self.client, vendor=self.vendor)) as harvester:
            if self.runs == 1:
                assert next(iter(harvester.troops([DAY], click(run)))).state == "complete"
            assets = CHAIN if self.runs == 1 else ("performance_data",)
            outcome = list(harvester.chain(assets, [(DAY, "1")], click(run, **order)))[-1]
        assert outcome.planned == outcome.landed + outcome.dead + outcome.details.get("discarded_leaves", 0)
        return outcome

    def fail(self, *names: str, error: VendorError = BROKEN) -> None:
        """Let every request fail that asks for one of these data groups."""
        self.client.judge = lambda request: error if _asks(request) & set(names) else None

    def asked(self) -> int:
        """Calls for data so far."""
        return sum(count for key, count in self.client.calls.items() if key.startswith("/data/"))

    def dead(self) -> list[tuple[str, ...]]:
        """Leaves of each dead letter."""
        return sorted(letter.leaves for letter in DeadLetters(self.store).load(CHAIN[-1], DAY, "1").letters)

    def groups(self) -> set[str]:
        """Data groups in the table."""
        table = read_table(self.store, layout.table_key("performance_data", DAY, "1"))
        assert table.num_rows == 24 * len(set(table["data_group"].to_pylist()))
        return set(table["data_group"].to_pylist())


def _asks(request: Request) -> set[str]:
    return set(dict(request.params).get("names", "").split(","))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    return Stage(tmp_path / "store")


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (GROUPS[0], BROKEN),
        (GROUPS[17], VendorUnavailableError("no complete answer within 30 s")),
        (GROUPS[-1], VendorRejectedError("too large", status=413)),
        (GROUPS[3], VendorRejectedError("too long", status=414)),
        (GROUPS[11], VendorRejectedError("no such query", status=422)),
        (GROUPS[8], VendorRejectedError("a bad request", status=400)),
        (GROUPS[30], VendorTooLargeError("the body is larger than 64 MB", status=200)),
    ],
)
def test_of_a_batch_exactly_the_bad_leaf_is_dead(stage: Stage, bad: str, error: VendorError) -> None:
    """The others land, and the extra calls are two a level: logarithmic in the batch."""
    stage.fail(bad, error=error)
    outcome = stage.harvest()
    assert (outcome.state, outcome.landed, outcome.dead) == ("partial", len(GROUPS) - 1, 1)
    assert stage.dead() == [(f"a/{bad}",)]
    assert stage.groups() == set(GROUPS) - {bad}
    # The batch itself, two a level.
    assert stage.asked() <= 1 + 2 * ceil(log2(len(GROUPS)))
    assert outcome.counts.calls == stage.asked() + (1 if isinstance(error, VendorUnavailableError) else 0)


@pytest.mark.parametrize(
    "bad", [("g00", "g31"), ("g04", "g05"), ("g10", "g11", "g12", "g13"), tuple(GROUPS[::8])]
)
def test_of_a_batch_exactly_the_bad_leaves_are_dead(stage: Stage, bad: tuple[str, ...]) -> None:
    """Several bad leaves cost nothing but themselves, whether they lie together or apart."""
    stage.fail(*bad)
    assert stage.harvest().dead == len(bad)
    assert stage.dead() == [(f"a/{name}",) for name in bad]
    assert stage.groups() == set(GROUPS) - set(bad)


def test_where_nothing_is_answered_the_search_ends(stage: Stage) -> None:
    """A vendor that refuses all data is asked a few times more, once, however many batches there are."""
    stage.client.hierarchy["1"] = {name: list(GROUPS) for name in "abcdefgh"}
    stage.fail(*GROUPS, error=VendorRejectedError("a bad request", status=400))
    outcome = stage.harvest()
    assert (outcome.state, outcome.landed, outcome.dead) == ("failed", 0, 8 * len(GROUPS))
    assert stage.asked() <= 8 + 4 + 2 * 6
    assert sorted(leaf for leaves in stage.dead() for leaf in leaves) == sorted(
        f"{warrior}/{name}" for warrior in "abcdefgh" for name in GROUPS
    )


def test_a_vendor_that_is_down_is_not_asked_more(stage: Stage) -> None:
    """Where the vendor answers nothing at all, one probe is the only call that comes on top."""
    stage.client.hierarchy["1"] = {name: list(GROUPS) for name in "abcdefgh"}
    stage.harvest()
    before = stage.client.calls.total()
    stage.client.judge = lambda _: BROKEN
    outcome = stage.harvest()
    assert outcome.dead == 8 * len(GROUPS)
    assert stage.client.calls.total() - before == 8 + 1


@pytest.mark.parametrize(
    "error",
    [
        VendorThrottledError("too fast", status=429),
        VendorRejectedError("no such method", status=405),
        VendorRejectedError("the vendor redirected to another host", status=302),
    ],
    ids=str,
)
def test_what_is_not_the_fault_of_a_request_splits_nothing(stage: Stage, error: VendorError) -> None:
    """A throttle, a wrong method or a redirect would meet every part as well."""
    stage.fail(GROUPS[3], error=error)
    assert stage.harvest().dead == len(GROUPS)
    assert stage.asked() == 1


def test_one_leaf_that_is_too_large_is_cut_by_time(stage: Stage) -> None:
    """The parts are of the same leaf, which lands once all of them have."""
    stage.vendor.halves = True

    def judge(request: Request) -> VendorError | None:
        told = dict(request.params)
        long = "names" in told and _hours(told) > 6
        return VendorTooLargeError("larger", status=200) if long and "g05" in _asks(request) else None

    stage.client.judge = judge
    outcome = stage.harvest()
    assert (outcome.state, outcome.planned, outcome.landed) == ("complete", len(GROUPS), len(GROUPS))
    assert stage.groups() == set(GROUPS)


def test_a_leaf_of_which_one_part_is_missing_is_dead(stage: Stage) -> None:
    """What has landed of it is kept, it counts as dead, and a redrive asks for the missing part alone."""
    stage.vendor.halves = True

    def judge(request: Request) -> VendorError | None:
        told = dict(request.params)
        if "names" not in told or "g05" not in _asks(request):
            return None
        bad = _hours(told) > 6 or told["from"] == noon("2026-11-20").isoformat()
        return VendorRejectedError("too much", status=422) if bad else None

    stage.client.judge = judge
    outcome = stage.harvest()
    assert (outcome.state, outcome.landed, outcome.dead) == ("partial", len(GROUPS) - 1, 1)
    assert set(stage.dead()) == {("a/g05",)}
    stage.client.judge = lambda _: None
    before, missing = stage.asked(), len(stage.dead())
    outcome = stage.harvest()
    assert (outcome.mode, outcome.state, outcome.dead) == ("redrive", "complete", 0)
    assert stage.asked() - before == missing
    assert stage.dead() == []


def test_a_redrive_asks_for_the_dead_leaf_alone(stage: Stage) -> None:
    """What was split is never asked whole again: not by a redrive, nor by a rebuild."""
    stage.fail("g07")
    stage.harvest()
    before = stage.asked()
    assert stage.harvest().dead == 1
    assert stage.asked() - before == 1
    assert stage.harvest(rebuild=True).dead == 1
    assert stage.asked() - before == 1
    stage.client.judge = lambda _: None
    assert stage.harvest().state == "complete"
    assert stage.asked() - before == 2
    assert stage.groups() == set(GROUPS)
    assert stage.harvest(finished="reconcile").state == "complete"
    assert stage.asked() - before == 2


def test_a_discarded_part_is_neither_asked_nor_missing(stage: Stage) -> None:
    """Discarding the one dead leaf of a split batch makes its partition complete."""
    stage.fail("g07")
    stage.harvest()
    letters = DeadLetters(stage.store)
    partition = letters.load("performance_data", DAY, "1")
    requests = {letter.request for letter in partition.letters}
    assert letters.discard(partition, requests, who="me", why="broken", at=noon()) == 1
    before = stage.asked()
    outcome = stage.harvest(rebuild=True)
    assert (outcome.state, outcome.dead, outcome.details["discarded_leaves"]) == ("complete", 0, 1)
    assert stage.asked() == before


@pytest.mark.parametrize("calls", [1, 2, 5, 9])
def test_a_search_that_was_interrupted_is_resumed(stage: Stage, calls: int) -> None:
    """No request is asked again that was answered or split, wherever the run ended."""
    stage.fail("g13")
    kept = stage.client.judge

    def until(request: Request) -> VendorError | None:
        if "names" in dict(request.params) and stage.asked() > calls:
            raise StoppedError("the run was stopped")
        return kept(request)

    stage.client.judge = until
    stage.harvest()
    stage.client.judge = kept
    before = dict(stage.client.calls)
    outcome = stage.harvest()
    assert (outcome.landed, outcome.dead, stage.dead()) == (len(GROUPS) - 1, 1, [("a/g13",)])
    again = {key for key, count in before.items() if stage.client.calls[key] > count}
    # What was in flight when the run ended, and the leaf that had been found dead but was not written down.
    assert len(again) <= 2
    assert all(key.count("%2C") == 0 or before[key] == 1 for key in again)


def _hours(told: dict[str, str]) -> float:
    start, end = (datetime.fromisoformat(told[name]) for name in ("from", "to"))
    return (end - start).total_seconds() / 3600


def test_two_that_fail_at_once_find_out_together_whether_the_vendor_is_there() -> None:
    """The second waits for what the first one's probe says; both go on then, and nothing of theirs is dead."""
    asked, answer = threading.Event(), threading.Event()

    class Slow:
        def fetch(self, request: Request, **options: object) -> None:
            asked.set()
            assert answer.wait(60)

    fetcher = Fetcher(Slow(), ToyVendor(), threads=2)  # type: ignore[arg-type]
    work = Work("performance_data", "1", None, Pending(iter(()), 0, 0))  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetcher._is_there, work)
        assert asked.wait(60)
        second = threads.submit(fetcher._is_there, work)
        time.sleep(0.1)  # it passes without, but would then see no thread that does not wait
        answer.set()
        assert (first.result(60), second.result(60)) == (True, True)
