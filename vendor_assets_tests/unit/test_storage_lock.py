"""The folder store's lock: between looking at the present version and replacing it, nobody else writes."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.errors import ObjectConflictError
from vendor_assets.storage import folder
from vendor_assets.storage.folder import FolderStore


class Meeting:
    """Holds the first writer just before it replaces the object, until the second one waits for it or is done."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.second_has_come = threading.Event()

    def utime(self, path: Any, **times: Any) -> None:
        if not self.inside.is_set():
            self.inside.set()
            assert self.second_has_come.wait(60)
        os_utime(path, **times)

    def flock(self, handle: int, operation: int) -> None:
        try:
            os_flock(handle, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            self.second_has_come.set()
            os_flock(handle, operation)


os_utime, os_flock = os.utime, fcntl.flock


@pytest.mark.parametrize("second", ["creates", "replaces", "deletes"])
def test_a_second_writer_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """Whatever comes while an object is being published comes after it, and sees what was published."""
    first_store, second_store = FolderStore(tmp_path), FolderStore(tmp_path)
    etag = None if second == "creates" else first_store.put("raw/object", b"before")
    meeting = Meeting()
    monkeypatch.setattr(folder.os, "utime", meeting.utime)
    monkeypatch.setattr(folder.fcntl, "flock", meeting.flock)
    came: list[str] = []

    def write(name: str, work: Callable[[], object]) -> None:
        try:
            work()
            came.append(name)
        except ObjectConflictError:
            came.append(f"{name} refused")

    def put(store: FolderStore, data: bytes) -> None:
        store.put("raw/object", data, if_absent=etag is None, if_match=etag)

    one = threading.Thread(target=write, args=("first", lambda: put(first_store, b"first")), daemon=True)
    one.start()
    assert meeting.inside.wait(60)
    if second == "deletes":
        write_second: Callable[[], object] = lambda: second_store.delete("raw/object")  # noqa: E731
    else:
        write_second = lambda: put(second_store, b"second")  # noqa: E731

    def run_second() -> None:
        write("second", write_second)
        meeting.second_has_come.set()

    two = threading.Thread(target=run_second, daemon=True)
    two.start()
    one.join(60)
    two.join(60)
    if second == "deletes":
        assert sorted(came) == ["first", "second"]
        assert first_store.head("raw/object") is None
    else:
        assert sorted(came) == ["first", "second refused"]
        assert first_store.get("raw/object") == b"first"


def test_times_by_two_seconds_tell_versions_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system rounds times, as FAT does, a version of the same size and moment has an etag of its own."""

    def coarse(path: Any, *, ns: tuple[int, int]) -> None:
        rounded = ns[1] // 2_000_000_000 * 2_000_000_000
        os_utime(path, ns=(rounded, rounded))

    monkeypatch.setattr(folder.os, "utime", coarse)
    store = FolderStore(tmp_path)
    first = store.put("raw/object", b"1")
    second = store.put("raw/object", b"2", if_match=first)
    with pytest.raises(ObjectConflictError):
        store.put("raw/object", b"3", if_match=first)
    assert store.put("raw/object", b"4", if_match=second) != second
    assert store.get("raw/object") == b"4"
