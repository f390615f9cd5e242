"""One suite for every object store: a folder, and S3 on a real server over HTTP."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from vendor_assets.errors import (
    ConfigurationError,
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.s3 import RunningS3, running_s3, without_aws_environment
from vendor_assets_tests.support.stores import Place

pytestmark = pytest.mark.usefixtures("clean_aws_environment")

LARGE = 20 << 20  # three parts of a multipart upload
MEDIUM = 3 << 20  # more than is fetched when an object is opened
SPAWN = multiprocessing.get_context("spawn")


# What a store does


def test_what_is_put_can_be_read(store: ObjectStore) -> None:
    """Bytes, size, etag and time come back as they were written, in every way of reading."""
    data = bytes(range(256)) * 10
    before = datetime.now(UTC)
    etag = store.put("a/b=1/c~2F.bin", data)
    info = store.head("a/b=1/c~2F.bin")
    assert info is not None
    assert (info.key, info.size, info.etag) == ("a/b=1/c~2F.bin", len(data), etag)
    assert abs((info.modified - before).total_seconds()) < 3600
    assert store.get("a/b=1/c~2F.bin") == data
    assert store.get_with_etag("a/b=1/c~2F.bin") == (data, etag)
    with store.open("a/b=1/c~2F.bin") as file:
        assert file.read() == data
    assert list(store.list("")) == [info]


def test_requests_are_counted_for_each_thread(store: ObjectStore) -> None:
    """What a partition costs is told apart from what others do meanwhile; a folder costs none."""
    counts: list[int] = []

    def work() -> None:
        store.put("a", b"1")
        store.get("a")
        counts.append(store.requests_of_thread())

    before = store.requests_of_thread()
    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert counts == [0 if isinstance(store, FolderStore) else 2]
    assert store.requests_of_thread() == before


def test_an_object_without_bytes_is_an_object(store: ObjectStore) -> None:
    """An empty object is there, listed and readable."""
    store.put("empty", b"")
    assert store.get("empty") == b""
    with store.open("empty") as file:
        assert file.read() == b""
    assert [(info.key, info.size) for info in store.list("")] == [("empty", 0)]


def test_what_is_not_there_is_said_so(store: ObjectStore) -> None:
    """Reading an absent object raises, asking for it gives nothing, deleting it is fine; below an object too."""
    store.put("a", b"1")
    for key in ("nothing", "no/thing", "a/b"):
        with pytest.raises(ObjectNotFoundError, match=key):
            store.get(key)
        with pytest.raises(ObjectNotFoundError, match=key):
            store.open(key)
        assert store.head(key) is None
        store.delete(key)
    assert list(store.list("nothing/")) == []
    assert list(store.list("a/")) == []
    assert store.folders("nothing/") == []


def test_deleted_is_gone(store: ObjectStore) -> None:
    """A deleted object is neither read nor listed, and can be written again."""
    store.put("x/y", b"1")
    store.delete("x/y")
    assert store.head("x/y") is None
    assert list(store.list("x/")) == []
    store.put("x/y", b"2", if_absent=True)
    assert store.get("x/y") == b"2"


def test_a_listing_is_sorted_and_of_a_folder(store: ObjectStore) -> None:
    """A listing has all objects below a folder at any depth in the order of their keys, and no neighbour's."""
    keys = ["d/a/1", "d/a-/1", "d/a~1/1", "d/B", "d/a/z/2", "d/b", "da/1", "d0"]
    for key in keys:
        store.put(key, b"1")
    below = sorted(key for key in keys if key.startswith("d/"))
    assert [info.key for info in store.list("d/")] == below
    assert [info.key for info in store.list("d")] == below
    assert [info.key for info in store.list("")] == sorted(keys)
    assert store.folders("d/") == ["a", "a-", "a~1"]
    assert store.folders("") == ["d", "da"]


def test_a_long_listing_is_complete(store: ObjectStore) -> None:
    """A listing longer than a server's page has every object."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: store.put(f"many/{n % 7}/{n:04d}", b""), range(1100)))
    assert [info.key for info in store.list("many/")] == sorted(f"many/{n % 7}/{n:04d}" for n in range(1100))


def test_an_opened_object_can_be_read_anywhere(store: ObjectStore) -> None:
    """Any stretch of an opened object is what was written there."""
    data = os.urandom(MEDIUM)
    store.put("big", data)
    with store.open("big") as file:
        assert file.seekable()
        for start, length in [
            (0, 10),
            (MEDIUM - 5, 50),
            (MEDIUM // 2, 1 << 21),
            (MEDIUM - (256 << 10) - 3, 9),
            (7, 0),
        ]:
            file.seek(start)
            assert file.read(length) == data[start : start + length]
        file.seek(-4, io.SEEK_END)
        assert file.read() == data[-4:]
        file.seek(0)
        assert file.read() == data


def test_a_writer_publishes_when_its_block_ends(store: ObjectStore) -> None:
    """Nothing is visible while a large object is written; then all of it, with its etag."""
    piece = os.urandom(1 << 20)
    with store.writer("large") as sink:
        for _ in range(LARGE >> 20):
            sink.write(piece)
        assert store.head("large") is None
        assert list(store.list("")) == []
    info = store.head("large")
    assert info is not None
    assert (info.size, info.etag) == (LARGE, sink.etag)
    assert sink.size == LARGE
    assert [found.etag for found in store.list("")] == [sink.etag]
    assert store.get("large") == piece * (LARGE >> 20)


@pytest.mark.parametrize("size", [0, 10, LARGE])
def test_an_exception_in_a_writer_publishes_nothing(store: ObjectStore, size: int) -> None:
    """What a failing block wrote is never seen, the old object stays, and the exception passes through."""
    old = store.put("kept", b"old")
    for key in ("kept", "new"):
        with pytest.raises(ZeroDivisionError), store.writer(key) as sink:
            sink.write(b"x" * size)
            raise ZeroDivisionError
    assert store.get_with_etag("kept") == (b"old", old)
    assert [info.key for info in store.list("")] == ["kept"]


@pytest.mark.parametrize("size", [1, LARGE])
def test_conditions_hold(store: ObjectStore, size: int) -> None:
    """A conditional write succeeds exactly if its condition holds, small and large; a loser changes nothing."""
    first = store.put("key", b"1" * size, if_absent=True)
    with pytest.raises(ObjectConflictError, match="exists already"):
        store.put("key", b"2" * size, if_absent=True)
    second = store.put("key", b"3" * size, if_match=first)
    assert second != first
    for stale in (first, "never"):
        with pytest.raises(ObjectConflictError, match="replaced or deleted"):
            store.put("key", b"4" * size, if_match=stale)
    assert store.get_with_etag("key") == (b"3" * size, second)
    store.delete("key")
    with pytest.raises(ObjectConflictError, match="replaced or deleted"):
        store.put("key", b"5" * size, if_match=second)
    assert store.head("key") is None


def test_the_condition_is_that_of_the_end(store: ObjectStore) -> None:
    """A writer whose object appears while it writes loses when it publishes."""
    with pytest.raises(ObjectConflictError), store.writer("key", if_absent=True) as sink:
        sink.write(b"slow")
        store.put("key", b"quick")
    assert store.get("key") == b"quick"


def test_each_version_has_its_own_etag(store: ObjectStore) -> None:
    """Versions that follow each other at once never share an etag."""
    etags = [store.put("key", f"{n:04d}".encode()) for n in range(50)]
    assert len(set(etags)) == len(etags)


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/.", ".store/x", "a/.hidden"]
    + ["a\x00b", "a\nb", "a\\..\\b"],
)
def test_a_key_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    """A key that could escape, hide or break a line is refused in every operation."""
    operations: list[Callable[[str], object]] = [store.get, store.head, store.delete, store.open]
    operations += [lambda k: store.put(k, b"1"), lambda k: store.put(k, b"1", if_absent=True)]
    for operation in operations:
        with pytest.raises(StorageError, match="is not accepted"):
            operation(key)


def test_a_uri_is_what_other_programs_read(place: Place, store: ObjectStore) -> None:
    """An object's address is the store's with the key."""
    store.put("a/b", b"1")
    assert store.url == place.url
    assert store.uri("a/b") == f"{place.url}/a/b"


def test_a_sound_store_passes_its_check(store: ObjectStore) -> None:
    """The check of a sound store says nothing and leaves nothing."""
    store.check()
    assert list(store.list("")) == []


# Several at once


def _race(place: Place, barrier: Any, threads: int, if_match: str | None, won: Any) -> None:
    store = place.open()
    store.head("raced")
    gate = threading.Barrier(threads)

    def attempt(number: int) -> None:
        gate.wait()
        data = f"{os.getpid()}-{number}".encode()
        with suppress(ObjectConflictError):
            store.put("raced", data, if_absent=if_match is None, if_match=if_match)
            won.put(data)

    barrier.wait()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(attempt, range(threads)))
    won.close()
    won.join_thread()


@pytest.mark.parametrize("replacing", [False, True], ids=["if_absent", "if_match"])
def test_of_a_hundred_racing_writers_one_wins(place: Place, replacing: bool) -> None:
    """Of 100 conditional writes at once, from threads of several processes, exactly one succeeds."""
    store = place.open()
    etag = store.put("raced", b"old") if replacing else None
    processes, threads = 4, 25
    barrier, won = SPAWN.Barrier(processes), SPAWN.Queue()
    racers = [
        SPAWN.Process(target=_race, args=(place, barrier, threads, etag, won)) for _ in range(processes)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * processes
    winner = won.get(timeout=120)
    assert won.empty()
    assert store.get("raced") == winner


def _count(place: Place, rounds: int) -> None:
    store = place.open()
    done = 0
    while done < rounds:
        data, etag = store.get_with_etag("counter")
        with suppress(ObjectConflictError):
            store.put("counter", str(int(data) + 1).encode(), if_match=etag)
            done += 1


def test_no_conditional_update_is_lost(place: Place) -> None:
    """Several processes that read, add and write back conditionally count every step once."""
    store = place.open()
    store.put("counter", b"0")
    counters = [SPAWN.Process(target=_count, args=(place, 20)) for _ in range(3)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join(120)
    assert [counter.exitcode for counter in counters] == [0] * 3
    assert store.get("counter") == b"60"


def test_a_reader_sees_the_old_or_the_new_version(place: Place) -> None:
    """While an object is being replaced, each way of reading gives one version whole, or says that it is gone."""
    writing, reading = place.open(), place.open()
    writing.put("key", bytes([0]) * MEDIUM)
    over = threading.Event()

    def replace_often() -> None:
        try:
            for n in range(1, 40):
                writing.put("key", bytes([n]) * MEDIUM)
        finally:
            over.set()

    seen = set()
    whole = 0
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace_often)
        while not over.is_set():
            data, etag = reading.get_with_etag("key")
            assert data == data[:1] * MEDIUM
            seen.add((data[0], etag))
            with suppress(ObjectConflictError), reading.open("key") as file:
                parts = [file.read(MEDIUM // 3) for _ in range(4)]
                assert b"".join(parts) == parts[0][:1] * MEDIUM
                whole += 1
        writer.result()
    assert len({etag for _, etag in seen}) == len(seen)
    assert whole or len(seen) > 1


# Killed writers


def _write_and_hang(place: Place, size: int, ready: Any) -> None:
    with place.open().writer("killed") as sink:
        for _ in range(size >> 20):
            sink.write(b"x" * (1 << 20))
        ready.set()
        signal.pause()


@pytest.mark.parametrize("size", [1 << 20, LARGE])
def test_a_killed_writer_leaves_nothing_to_see(place: Place, size: int) -> None:
    """After kill -9 in the middle of a write no object appears, and the key can be written at once."""
    ready = SPAWN.Event()
    writer = SPAWN.Process(target=_write_and_hang, args=(place, size, ready))
    writer.start()
    assert ready.wait(60)
    writer.kill()
    writer.join(30)
    store = place.open()
    assert store.head("killed") is None
    assert list(store.list("")) == []
    assert store.folders("") == []
    store.put("killed", b"next", if_absent=True)
    assert store.get("killed") == b"next"


def _replace_for_ever(place: Place, ready: Any) -> None:
    store = place.open()
    n = 0
    while True:
        store.put("replaced", bytes([n % 256]) * MEDIUM)
        n += 1
        if n == 2:
            ready.set()


def test_a_kill_at_any_moment_leaves_one_whole_version(place: Place) -> None:
    """Whenever a replacing writer is killed, the object is one of its versions, whole."""
    store = place.open()
    for _ in range(3):
        ready = SPAWN.Event()
        writer = SPAWN.Process(target=_replace_for_ever, args=(place, ready))
        writer.start()
        assert ready.wait(60)
        writer.kill()
        writer.join(30)
        data, etag = store.get_with_etag("replaced")
        assert data == data[:1] * MEDIUM
        store.put("replaced", b"again", if_match=etag)


# Stores that do not work


def _one_line(caught: pytest.ExceptionInfo[StorageError], *words: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 700
    for word in words:
        assert word in text, text
    assert caught.value.retryable


def _every_operation(store: ObjectStore) -> Iterator[Callable[[], object]]:
    yield store.check
    yield lambda: store.put("a", b"1")
    yield lambda: store.put("a", b"1" * LARGE, if_absent=True)
    yield lambda: store.get("a")
    yield lambda: store.open("a")
    yield lambda: store.head("a")
    yield lambda: list(store.list(""))
    yield lambda: store.folders("")
    yield lambda: store.delete("a")


@pytest.mark.parametrize(("key", "secret"), [(RunningS3.access_key, "wrong"), ("nobody", "wrong")])
def test_wrong_credentials_are_one_clear_line(
    s3_server: RunningS3, bucket: str, key: str, secret: str
) -> None:
    """With a wrong key or secret every operation names the server and the variables to check."""
    store = Place(f"s3://{bucket}", s3_server.endpoint, key, secret).open()
    for operation in _every_operation(store):
        with pytest.raises(StorageUnavailableError) as caught:
            operation()
        _one_line(caught, "refuses", s3_server.endpoint, "AWS_SECRET_ACCESS_KEY")
        assert "wrong" not in str(caught.value)


def test_missing_credentials_are_one_clear_line(s3_server: RunningS3, bucket: str) -> None:
    """Without credentials the message says which variables to set."""
    client = boto3.session.Session().client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1")
    with pytest.raises(StorageUnavailableError) as caught:
        S3Store(client, bucket).check()
    _one_line(caught, "credentials", "AWS_ACCESS_KEY_ID")


def test_a_missing_bucket_is_one_clear_line(s3_server: RunningS3) -> None:
    """A missing bucket is not taken for an empty one, whatever is asked."""
    for operation in _every_operation(Place("s3://no-such-bucket/x", s3_server.endpoint).open()):
        with pytest.raises(StorageUnavailableError) as caught:
            operation()
        _one_line(caught, "bucket no-such-bucket does not exist", "create it")


def test_a_server_that_is_away_is_one_clear_line() -> None:
    """When nothing listens, every operation names the endpoint."""
    for operation in _every_operation(Place("s3://bucket/x", "http://127.0.0.1:1").open()):
        with pytest.raises(StorageUnavailableError) as caught:
            operation()
        _one_line(caught, "http://127.0.0.1:1", "does not answer")


def test_the_environment_names_the_server(
    s3_server: RunningS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a client of the caller's, endpoint and credentials come from the standard AWS variables."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    open_store(f"s3://{bucket}/by-environment").check()


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL", "not an address"), ("AWS_PROFILE", "no-such-profile")]
)
def test_wrong_aws_variables_are_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What boto3 refuses to start with is a mistake in the configuration."""
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(ConfigurationError, match="correct its address or the AWS variables"):
        open_store("s3://bucket/prefix")


@pytest.mark.parametrize("url", ["http://x/y", "s3://", "s3:///x", "s3://bucket/a?b=1", "s3://bucket/a/../b"])
def test_a_wrong_address_is_refused(url: str) -> None:
    """What is neither a folder nor a bucket is refused at once."""
    with pytest.raises(ConfigurationError, match="store"):
        open_store(url)


def test_a_bucket_name_that_cannot_be_is_one_clear_line(s3_server: RunningS3) -> None:
    """A bucket's name that no server accepts is the address's fault."""
    with pytest.raises(StorageUnavailableError, match="correct the store's address"):
        Place("s3://No such bucket!/x", s3_server.endpoint).open().check()


def _check_as_nobody(folder: str, answers: Any) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        FolderStore(folder).check()
    except StorageUnavailableError as error:
        answers.put(str(error))
    else:
        answers.put("no error")


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    """Without the permission to write, the message names the folder."""
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(0o500)
    answers = SPAWN.Queue()
    process = SPAWN.Process(target=_check_as_nobody, args=(str(folder), answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join(30)
    assert answer.startswith("no permission for")
    assert str(folder) in answer
    assert "\n" not in answer


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    """A file where the store's folder should be is named."""
    (tmp_path / "store").write_text("")
    with pytest.raises(StorageUnavailableError, match=r"store.* is in the way"):
        FolderStore(tmp_path / "store").check()


def test_a_file_system_that_changes_names_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names come back in lower case, what has landed would not be found, and be asked for again."""
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [name.lower() for name in listed(path)])
    with pytest.raises(StorageUnavailableError, match="changes the case of names"):
        FolderStore(tmp_path / "store").check()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("may not mount a small file system here; the file-size limit is tried instead")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tiny_disk: Path) -> None:
    """When the disk is full the write says so, the old version stays, and nothing is left behind."""
    store = FolderStore(tiny_disk)
    etag = store.put("key", b"1" * 400_000)
    with pytest.raises(StorageUnavailableError) as caught:
        store.put("key", b"2" * 900_000)
    _one_line(caught, "full", str(tiny_disk))
    assert store.get_with_etag("key") == (b"1" * 400_000, etag)
    store.put("other", b"3" * 400_000)


def _write_too_much(folder: str, answers: Any) -> None:
    store = FolderStore(folder)
    store.put("key", b"1" * 1000)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        store.put("key", b"2" * 200_000)
    except StorageUnavailableError as error:
        answers.put(str(error))
    answers.put(store.get("key") == b"1" * 1000)


def test_a_file_size_limit_is_one_clear_line_and_loses_nothing(tmp_path: Path) -> None:
    """When the system refuses to let a file grow the write says so and the old version stays."""
    answers = SPAWN.Queue()
    process = SPAWN.Process(target=_write_too_much, args=(str(tmp_path), answers))
    process.start()
    text, kept = answers.get(timeout=60), answers.get(timeout=60)
    process.join(30)
    assert "would exceed the size" in text
    assert kept is True


# Only a folder


def test_objects_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    """Others may read what this user's umask lets them read."""
    store = FolderStore(tmp_path)
    old = os.umask(0o022)
    try:
        store.put("key", b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o644


def test_a_clock_that_stands_still_does_not_hide_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions have different etags even if the clock has not moved, or was set back."""
    store = FolderStore(tmp_path)
    first = store.put("key", b"1")
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    second = store.put("key", b"2", if_match=first)
    third = store.put("key", b"3", if_match=second)
    assert len({first, second, third}) == 3


def test_what_a_killed_writer_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """Leftovers do not fill the disk, but those of a living writer stay."""
    store = FolderStore(tmp_path)
    store.put("key", b"1")
    hidden = tmp_path / ".store" / "writing"
    for name, age in [("old", 90_000), ("young", 3_000)]:
        (hidden / name).write_bytes(b"x")
        os.utime(hidden / name, (then := datetime.now(UTC).timestamp() - age, then))
    FolderStore(tmp_path).put("key", b"2")
    assert [path.name for path in hidden.iterdir()] == ["young"]


def test_a_store_may_be_removed_under_a_running_program(tmp_path: Path) -> None:
    """Whoever deletes the folder gets a new one with the next write."""
    store = FolderStore(tmp_path / "store")
    store.put("a/b", b"1")
    (tmp_path / "store").rename(tmp_path / "away")
    assert list(store.list("")) == []
    store.put("a/b", b"2", if_absent=True)
    assert store.get("a/b") == b"2"


# Only S3


class _AnswersGetLost:
    """A client whose every write is sent twice, as boto3 does when the first answer does not arrive."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **arguments: Any) -> Any:
        self._client.put_object(**arguments)
        return self._client.put_object(**arguments)

    def complete_multipart_upload(self, **arguments: Any) -> Any:
        self._client.complete_multipart_upload(**arguments)
        return self._client.complete_multipart_upload(**arguments)


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_repeated_write_does_not_lose_against_itself(s3_server: RunningS3, bucket: str, size: int) -> None:
    """A conditional write that was done but whose answer was lost succeeds when it is sent again."""
    store = S3Store(_AnswersGetLost(s3_server.client()), bucket, uuid.uuid4().hex)
    etag = store.put("key", b"1" * size, if_absent=True)
    assert store.get_with_etag("key") == (b"1" * size, etag)
    second = store.put("key", b"2" * size, if_match=etag)
    assert store.get_with_etag("key") == (b"2" * size, second)
    with pytest.raises(ObjectConflictError):
        store.put("key", b"2" * size, if_absent=True)


def test_a_failed_writer_leaves_no_parts(s3_server: RunningS3, bucket: str) -> None:
    """An exception throws away the parts that were uploaded."""
    store = Place(f"s3://{bucket}/{uuid.uuid4().hex}", s3_server.endpoint).open()
    with pytest.raises(ZeroDivisionError), store.writer("key") as sink:
        sink.write(b"x" * LARGE)
        raise ZeroDivisionError
    with pytest.raises(ObjectConflictError), store.writer("key", if_match="none") as sink:
        sink.write(b"x" * LARGE)
    uploads = s3_server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert [upload["Key"] for upload in uploads if "killed" not in upload["Key"]] == []


class _IgnoresConditions:
    """A client of a server that does not know conditional writes."""

    def __init__(self, client: Any, *methods: str) -> None:
        self._client = client
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in self._methods:
            return method
        return lambda **arguments: method(
            **{name: value for name, value in arguments.items() if name not in ("IfMatch", "IfNoneMatch")}
        )


@pytest.mark.parametrize("method", ["put_object", "complete_multipart_upload"])
def test_a_server_without_conditions_is_found_out(s3_server: RunningS3, bucket: str, method: str) -> None:
    """The check refuses a store on which two writers could mix."""
    store = S3Store(_IgnoresConditions(s3_server.client(), method), bucket, uuid.uuid4().hex)
    with pytest.raises(StorageUnavailableError, match="ignores If-None-Match"):
        store.check()
    assert list(store.list("")) == []


def test_a_server_killed_in_the_middle_loses_nothing_that_it_took() -> None:
    """Writes fail clearly while the server is away; all that it had acknowledged is there after its restart."""
    with without_aws_environment(), running_s3() as server:
        store = Place(f"s3://{server.make_bucket()}/x", server.endpoint).open()
        taken: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        writing, stop = threading.Event(), threading.Event()

        def write(n: int) -> None:
            round_ = 0
            while not stop.is_set():
                key, data = f"w{n}/{round_:05d}", os.urandom(9 << 20 if round_ % 5 == 4 else 50_000)
                round_ += 1
                try:
                    store.put(key, data, if_absent=True)
                except StorageUnavailableError as error:
                    refused[key] = str(error)
                    stop.wait(0.05)
                else:
                    taken[key] = data
                    if round_ > 3:
                        writing.set()

        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write, n) for n in range(3)]
            assert writing.wait(60)
            server.kill()
            while not refused:
                stop.wait(0.05)
            server.start()
            before = len(taken)
            while len(taken) < before + 10:
                stop.wait(0.05)
            stop.set()
            for writer in writers:
                writer.result()
        assert not [text for text in refused.values() if "\n" in text]
        listed = {info.key: info.size for info in store.list("")}
        assert set(taken) <= set(listed)
        for key, data in taken.items():
            assert store.get(key) == data
        for key in set(listed) - set(taken):
            assert key in refused
            assert len(store.get(key)) == listed[key]
            assert listed[key] in (50_000, 9 << 20)
