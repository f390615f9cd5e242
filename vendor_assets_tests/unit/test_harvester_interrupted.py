"""A harvest is cut off, or another run comes in, at each of its requests to the store: nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from vendor_assets.errors import StorageUnavailableError, VendorRejectedError
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.failures import failures_of
from vendor_assets.harvest.harvests import list_harvests, load_finish, newest_finished
from vendor_assets.harvest.landing import read_index
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.harvest.ownership import Liveness, acquire
from vendor_assets.states import SUCCEEDED
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.parquet import read_table
from vendor_assets_tests.support.toy import (
    DAY,
    HIERARCHY,
    Alive,
    ToyClient,
    click,
    noon,
    toy_harvester,
    with_plain_keys,
)
from vendor_assets_tests.support.watched_store import Watch, WatchedStore

DATA = layout.table_key("performance_data", DAY, "1")


class Scene:
    """One troop of which all but the performance data is harvested; those are what is interrupted."""

    holder = layout.holder_key(layout.harvest_prefix("performance_data", DAY, "1"))

    def __init__(self, folder: Path, begun_as: str) -> None:
        self.folder = folder
        self.store = with_plain_keys(FolderStore(folder))
        self.client = ToyClient(HIERARCHY, noon)
        self.harvest("before", self.store, "warriors", "data_groups")
        if begun_as != "first":
            if begun_as == "redrive":
                self.client.faults["/data/b"] = VendorRejectedError("no", status=400)
            self.harvest("before", self.store, "performance_data")
            self.client.faults.clear()
        self.client.calls.clear()

    def harvest(
        self, run: str, store: ObjectStore, *assets: str, liveness: Liveness | None = None
    ) -> Outcome:
        with closing(toy_harvester(store, self.client, liveness=liveness or Alive())) as harvester:
            if "warriors" in assets or "troops" in assets:
                troops = list(harvester.troops([DAY], click(run)))
            if "troops" in assets:
                return troops[-1]
            return list(harvester.chain(assets, [(DAY, "1")], click(run)))[-1]  # type: ignore[arg-type]

    def interrupted(self, run: str, watch: Watch) -> Outcome:
        return self.harvest(run, WatchedStore(self.folder, watch), "performance_data")

    def judge(self) -> None:
        """The table is whole, it is the one that the newest finish marker speaks of, and nothing says otherwise."""
        assert read_table(self.store, DATA).num_rows == 4 * 24
        newest = newest_finished(list_harvests(self.store, "performance_data", DAY, "1"))
        assert newest is not None
        finish = load_finish(self.store, newest.folder)
        head = self.store.head(DATA)
        assert finish is not None
        assert head is not None
        assert (finish.state, finish.rows, finish.table_etag) == ("complete", 4 * 24, head.etag)
        assert not failures_of(self.store, "performance_data", DAY)
        assert not DeadLetters(self.store).load("performance_data", DAY, "1").letters

    def landed(self) -> int:
        """How many answers of unfinished work have landed."""
        harvests = list_harvests(self.store, "performance_data", DAY, "1")
        open_ones = [harvest for harvest in harvests if not harvest.finish_etag]
        return len(read_index(self.store, (key for harvest in open_ones for key in harvest.chunks)))


@pytest.fixture
def scenes(tmp_path: Path) -> Callable[[str], Scene]:
    numbers = iter(range(1000))
    return lambda begun_as: Scene(tmp_path / str(next(numbers)), begun_as)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("begun_as", ["first", "replace", "redrive"])
def test_cut_off_at_each_request(scenes: Callable[[str], Scene], begun_as: str, done: bool) -> None:
    """Killed before or after any request, the next run completes it, and asks nothing again that has landed."""
    for cut_at in range(1, 1000):
        scene, sent = scenes(begun_as), Counter[bool]()

        def watch(name: str, key: str, after: bool, sent: Counter[bool] = sent, cut_at: int = cut_at) -> None:
            sent[after] += 1
            if sent[False] > cut_at or (sent[False] == cut_at and after == done):
                raise StorageUnavailableError(f"killed at {name} {key}")

        scene.interrupted("killed", watch)
        landed, asked = scene.landed(), scene.client.calls.total()
        outcome = scene.harvest("next", scene.store, "performance_data")
        assert outcome.state == "complete", (cut_at, outcome)
        if outcome.mode == "resume":
            assert scene.client.calls.total() == asked + 3 - landed, cut_at
        scene.judge()
        if sent[False] < cut_at:
            break
    assert cut_at > 5


@pytest.mark.parametrize("begun_as", ["first", "replace", "redrive"])
def test_another_run_comes_in_at_each_request(scenes: Callable[[str], Scene], begun_as: str) -> None:
    """Whenever another run takes the partition and finishes it, what it committed stays, and the first one says so."""
    ends = Counter[str]()
    for enter_at in range(1, 1000):
        scene, sent = scenes(begun_as), Counter[bool]()

        def watch(
            name: str,
            key: str,
            after: bool,
            scene: Scene = scene,
            sent: Counter[bool] = sent,
            enter_at: int = enter_at,
        ) -> None:
            sent[after] += 1
            if sent[False] == enter_at and not after:
                assert scene.harvest("other", scene.store, "performance_data").state == "complete"

        outcome = scene.interrupted("first", watch)
        ends[outcome.state] += 1
        scene.judge()
        if sent[False] < enter_at:
            break
    assert set(ends) == {"held", "complete"}


@pytest.mark.parametrize("first_fails", [False, True])
def test_whoever_had_it_last_tells_how_it_ended(scenes: Callable[[str], Scene], first_fails: bool) -> None:
    """One run is partial and one complete, whenever the other comes in: what the later one says stays."""
    last = Counter[tuple[str, str]]()
    for enter_at in range(1, 1000):
        scene, sent, ended = scenes("first"), Counter[bool](), dict[str, Outcome]()
        no = {"/data/b": VendorRejectedError("no", status=400)}

        def watch(
            name: str,
            key: str,
            after: bool,
            scene: Scene = scene,
            sent: Counter[bool] = sent,
            enter_at: int = enter_at,
            no: dict[str, Exception] = no,
            ended: dict[str, Outcome] = ended,
        ) -> None:
            sent[after] += 1
            if sent[False] == enter_at and not after:
                scene.client.faults = {} if first_fails else dict(no)
                ended["other"] = scene.harvest("other", scene.store, "performance_data")
                scene.client.faults = dict(no) if first_fails else {}

        scene.client.faults = dict(no) if first_fails else {}
        ended["first"] = scene.interrupted("first", watch)
        holder = json.loads(scene.store.get(scene.holder))["holder"]
        last[holder, ended[holder].state] += 1
        shown = failures_of(scene.store, "performance_data", DAY)
        assert [failure.state for failure in shown] == [
            state for state in [ended[holder].state] if state not in SUCCEEDED
        ], (enter_at, holder)
        if sent[False] < enter_at:
            break
    partial = "first" if first_fails else "other"
    wanted = {(who, "partial" if who == partial else "complete") for who in ("first", "other")}
    assert wanted <= set(last)


@pytest.mark.parametrize("asset", ["troops", "performance_data"])
def test_the_holder_finishes_while_its_lease_is_watched(scenes: Callable[[str], Scene], asset: str) -> None:
    """Whoever comes then replaces nothing by less: what has vanished stays on the roster, the complete table stays."""
    scene = scenes("first")
    for prefix in (f"raw_data/{asset}/", f"processed/{asset}/"):
        for info in scene.store.list(prefix):
            scene.store.delete(info.key)
    troop = None if asset == "troops" else "1"
    acquire(scene.store, layout.harvest_prefix(asset, DAY, troop), "killed", Alive())

    class Watching:
        def watch(self, holder: str, stop: Callable[[], bool] | None = None) -> bool:
            assert scene.harvest("other", scene.store, asset).state == "complete"
            scene.client.hierarchy = {"1": HIERARCHY["1"]}
            scene.client.faults["/data/b"] = VendorRejectedError("no", status=400)
            return False

    outcome = scene.harvest("late", scene.store, asset, liveness=Watching())
    assert outcome.state == ("complete" if asset == "troops" else "partial")
    rows = read_table(scene.store, layout.table_key(asset, DAY, troop)).num_rows
    assert rows == (len(HIERARCHY) if asset == "troops" else 4 * 24)
