"""Where no thread can be started, or one ends, the run ends or goes on with fewer: nothing waits for ever."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from vendor_assets import turns
from vendor_assets.errors import HarvestError
from vendor_assets.harvest.fetching import Fetcher
from vendor_assets.harvest.outcome import CHAIN, Outcome
from vendor_assets.harvest.publishing import Publisher
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.toy import DAY, ToyClient, click, noon, toy_harvester, with_plain_keys


def _harvest(folder: Path) -> list[Outcome]:
    store = with_plain_keys(FolderStore(folder))
    client = ToyClient({"1": {"a": ["cpu"], "b": ["cpu"]}, "2": {"c": ["cpu"]}}, noon)
    with closing(toy_harvester(store, client, threads=8)) as harvester:
        return [
            *harvester.troops([DAY], click("r")),
            *harvester.chain(CHAIN, [(DAY, "1"), (DAY, "2")], click("r")),
        ]


def _limit(monkeypatch: pytest.MonkeyPatch, prefix: str, permitted: int) -> None:
    """Let only so many threads whose names begin like this be started."""
    start = threading.Thread.start
    left = [permitted]

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith(prefix):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.mark.parametrize("prefix", ["fetch", "partition"])
def test_fewer_threads_do_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """With one thread in place of many a harvest is complete all the same."""
    _limit(monkeypatch, prefix, 1)
    assert {outcome.state for outcome in _harvest(tmp_path)} == {"complete"}


def test_without_a_thread_to_fetch_partitions_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the limit; nothing waits."""
    _limit(monkeypatch, "fetch", 0)
    outcomes = _harvest(tmp_path)
    assert {outcome.state for outcome in outcomes} == {"failed"}
    assert "can't start new thread" in outcomes[0].message


def test_without_a_thread_for_partitions_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says why."""
    _limit(monkeypatch, "partition", 0)
    with pytest.raises(HarvestError, match="no thread can be started"):
        _harvest(tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_ends_the_harvest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a thread dies with what it had taken, its harvest fails: memory may run out at any place."""

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Fetcher, "_give_up", out_of_memory)
    monkeypatch.setattr(Fetcher, "_fetch_pages", out_of_memory)
    outcomes = _harvest(tmp_path)
    assert {outcome.state for outcome in outcomes} == {"failed"}
    assert "no thread can fetch" in outcomes[0].message


def test_partitions_compute_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are open at once would pass Python's lock on at each small file, which costs more than the files."""
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(turns, "LONG_SECONDS", 60.0)
    publish, computing, most, lock = Publisher.publish, 0, 0, threading.Lock()

    def counted(publisher: Publisher, *args: Any) -> Outcome:
        nonlocal computing, most
        with lock:
            computing += 1
            most = max(most, computing)
        # Long enough for the other one to come, if it may.
        threading.Event().wait(0.1)
        with lock:
            computing -= 1
        return publish(publisher, *args)

    monkeypatch.setattr(Publisher, "publish", counted)
    assert {outcome.state for outcome in _harvest(tmp_path)} == {"complete"}
    assert most == 1
