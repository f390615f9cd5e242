"""Objects in a folder or on S3: written whole or not at all, conditionally, by many processes at once.

Both stores keep the same promises:

- An object appears with its full content or not at all, also after ``kill -9`` of its writer.
- ``if_absent`` and ``if_match`` hold against every other writer, in any process; the loser gets
  :class:`ObjectConflictError` and has changed nothing.
- Whoever has opened an object reads that version to its end, or gets an error; never parts of two.
- Errors of the operating system and of boto3 arrive as our own, on one line, saying what to do.

A key is a relative path of segments joined by ``/``. No segment is empty, begins with a dot, or holds a control
character or a backslash; ``layout.py`` builds none that does.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import urlsplit
from zlib import crc32

from vendor_assets.errors import (
    ConfigurationError,
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.logs import get_logger

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = get_logger(__name__)

# Inside the stores ``list`` is a method.
Names = list[str]
_Entries = list[os.DirEntry[str]]

_PART_BYTES: Final = 8 << 20
"""Size of a part of a multipart upload; at most 10,000 parts make an object of 80 GB."""
_TAIL_BYTES: Final = 256 << 10
"""How much of an object's end is fetched when it is opened: a Parquet footer, or a small object whole."""
_READ_BYTES: Final = 1 << 20
_READ_ATTEMPTS: Final = 3
_STRAY_SECONDS: Final = 86_400.0
_WHEN_REQUIRED: Final = (
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)
_SENDING: Final = frozenset({"PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload"})
# What servers say that do not know the checksums, or the trailers after a body, that boto3 sends since 1.36.
_CHECKSUM_CODES: Final = frozenset(
    {
        "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ContentSHA256Mismatch", "InvalidDigest",
        "BadDigest", "MissingContentLength", "NotImplemented", "SignatureDoesNotMatch", "IncompleteBody",
    }
)  # fmt: skip
_CHECKSUM_WORDS: Final = re.compile(
    r"checksum|x-amz-sdk|x-amz-trailer|aws-chunked|sha256|crc|trailer", re.IGNORECASE
)
_HELD: Final = {
    "get_object": ("ETag",),
    "head_object": ("ETag", "ContentLength", "LastModified"),
    "put_object": ("ETag",),
    "upload_part": ("ETag",),
    "complete_multipart_upload": ("ETag",),
    "create_multipart_upload": ("UploadId",),
}
_CREDENTIAL_CODES: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})


@dataclass(frozen=True)
class ObjectInfo:
    """One object as it is listed.

    Attributes:
        key: Its key.
        size: Bytes.
        etag: Changes with every version; opaque.
        modified: When this version was written.
    """

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectWriter(io.RawIOBase):
    """Takes the bytes of one object in order; nobody sees them before they are published.

    Attributes:
        etag: The published version's; empty until then.
        size: Bytes taken so far.
    """

    etag: str = ""
    size: int = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes taken so far."""
        return self.size


class ObjectStore(ABC):
    """Objects by key. Safe to use from several threads.

    Attributes:
        url: The folder or ``s3://bucket/prefix``, for people.
        source: Whose data it is written with, ``kind@address#account``; empty where nobody said so.
        patience_seconds: How long it is worth waiting for it when it is away: a server comes back, a full disk or a
            folder that is gone needs somebody.
    """

    url: str
    source: str = ""
    patience_seconds: float = 0.0

    def __init__(self) -> None:
        self._before_write: Callable[[], None] | None = None
        self._preparing = threading.RLock()
        self._is_prepared = True

    def before_first_write(self, prepare: Callable[[], None]) -> None:
        """Have something done once, before anything is written; what it writes itself is written at once."""
        self._before_write, self._is_prepared = prepare, False

    def prepare(self) -> None:
        """Do what is to be done before the first write, unless it is done; each write does so by itself.

        Raises:
            VendorAssetsError: It failed; it is tried again before the next write.
        """
        if self._is_prepared:
            return
        with self._unguarded() as prepare:
            if prepare is not None and not self._is_prepared:
                prepare()
                self._is_prepared = True

    @contextmanager
    def _unguarded(self) -> Iterator[Callable[[], None] | None]:
        """This thread writes at once while the block lasts, all others wait; gives what is to be done before."""
        with self._preparing:
            prepare, self._before_write = self._before_write, None
            try:
                yield prepare
            finally:
                self._before_write = prepare

    @abstractmethod
    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """An object's bytes and its etag.

        Raises:
            ObjectNotFoundError: It is not there.
            StorageUnavailableError: The store cannot be read.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """Size, etag and time of an object; None if it is not there."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below a folder, at any depth, sorted by key; "" is the whole store."""

    @abstractmethod
    def folders(self, prefix: str) -> Names:
        """Names of the folders directly below a folder, sorted.

        A folder whose last object was deleted may still be named.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is fine."""

    @abstractmethod
    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> AbstractContextManager[ObjectWriter]:
        """Write an object piece by piece.

        It is published when the block ends, under the condition as it is then, and has its ``etag`` afterwards.
        An exception that leaves the block publishes nothing.

        Raises:
            ObjectConflictError: On leaving the block: the condition does not hold.
            StorageUnavailableError: The store cannot be written.
        """

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """An object as a seekable file of one version; only what is asked for is fetched.

        Raises:
            ObjectNotFoundError: It is not there.
            ObjectConflictError: While reading: it was replaced or deleted meanwhile, and the version that was
                opened cannot be read further (S3 only).
        """

    @abstractmethod
    def uri(self, key: str) -> str:
        """Where an object is: an absolute path or ``s3://…``, as DuckDB and pandas take it."""

    def requests_of_thread(self) -> int:
        """Requests that this thread has sent to the store so far, retries included; a folder needs none."""
        return 0

    def get(self, key: str) -> bytes:
        """An object's bytes; raises as :meth:`get_with_etag`."""
        return self.get_with_etag(key)[0]

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object.

        Args:
            key: Its key.
            data: Its content.
            if_absent: Only if there is none yet.
            if_match: Only if the present version has this etag.

        Returns:
            The new version's etag.

        Raises:
            ObjectConflictError: The condition does not hold; nothing was changed.
            StorageUnavailableError: The store cannot be written.
        """
        with self.writer(key, if_absent=if_absent, if_match=if_match) as sink:
            sink.write(data)
        return sink.etag

    def check(self) -> None:
        """Prove with small objects that the store can be read and written and that conditions hold; they go again.

        Raises:
            StorageUnavailableError: What is wrong, on one line.
        """
        with self._unguarded():
            self._try_out()

    def must_refuse(self, key: str, data: bytes) -> None:
        """Prove that conditions hold, by two writes of an object as it is.

        Raises:
            StorageUnavailableError: One of them was not refused.
        """
        self._must_refuse(key, data, if_absent=True)
        self._must_refuse(key, data, if_match="0" * 32)

    def _try_out(self) -> None:
        key = f"probe-{uuid.uuid4().hex}"
        first = self.put(key, b"1", if_absent=True)
        try:
            self._must_refuse(key, b"3", if_absent=True)
            second = self.put(key, b"2", if_match=first)
            self._must_refuse(key, b"3", if_match=first)
            data, etag = self.get_with_etag(key)
            listed = self.head(key)
            if data != b"2" or etag != second or listed is None or listed.etag != second:
                raise StorageUnavailableError(
                    f"{self.url} does not give back what was written; use another store"
                )
        finally:
            self.delete(key)

    def _must_refuse(
        self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> None:
        with suppress(ObjectConflictError):
            self.put(key, data, if_absent=if_absent, if_match=if_match)
            condition = "If-None-Match" if if_absent else "If-Match"
            raise StorageUnavailableError(
                f"{self.url} ignores {condition}, so two writers could mix; use a store with conditional writes"
            )


def open_store(url: str, *, s3_client_factory: Callable[[], Any] | None = None) -> ObjectStore:
    """The store at a folder's path or at ``s3://bucket/prefix``.

    Args:
        url: Where it is.
        s3_client_factory: Makes the boto3 client, once. Default: one that takes credentials, region and
            endpoint from where boto3 looks for them (``AWS_ENDPOINT_URL`` among them).

    Raises:
        ConfigurationError: The URL is neither.
    """
    if "://" not in url:
        return FolderStore(url)
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(f"store {url!r} is not accepted; give a folder or s3://bucket/prefix")
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 (0.1 s that folders need not pay)

    try:
        return S3Store((s3_client_factory or _default_s3_client)(), parts.netloc, parts.path)
    except (BotoCoreError, StorageError, ValueError) as error:
        message = (
            f"store {url!r} cannot be used ({_one_line(error)}); correct its address or the AWS variables"
        )
        raise ConfigurationError(message) from error


def _default_s3_client() -> Any:
    import boto3  # noqa: PLC0415 (0.2 s that folders need not pay)
    from botocore.config import Config  # noqa: PLC0415 (see above)

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "max_attempts": 4},
    )
    return boto3.client("s3", config=config)


def _is_key(key: str) -> bool:
    """Whether a text can be a key; objects under other names are foreign, and are not listed."""
    return not any(
        not segment or segment.startswith(".") or "\\" in segment or not segment.isprintable()
        for segment in key.split("/")
    )


def _checked(key: str) -> str:
    if not _is_key(key):
        raise StorageError(f"object key {key!r} is not accepted; build keys with storage/layout.py")
    return key


def _checked_prefix(prefix: str) -> str:
    return _checked(prefix.removesuffix("/")) + "/" if prefix else ""


def _conflict(uri: str, *, if_absent: bool) -> ObjectConflictError:
    what = "exists already" if if_absent else "was replaced or deleted by somebody else"
    return ObjectConflictError(f"{uri} {what}; nothing was written, read it again")


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split())[:300]


# ---------------------------------------------------------------------------------------------- folder


class FolderStore(ObjectStore):
    """Objects as files of a local folder.

    An object is written beside the others under ``.store/``, synchronised to the disk, and moved into place under
    a lock of its key. The etag is the time of writing with the size; each version's time is made later than its
    predecessor's. What a killed writer left under ``.store/`` is removed after a day.

    Args:
        root: The folder; it is made with the first object. The locks are those of one machine.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__()
        self._root = Path(root).expanduser().absolute()
        self._hidden = self._root / ".store"
        self._prepared = False
        self.url = str(self._root)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """See :meth:`ObjectStore.get_with_etag`."""
        path = self._path(key)
        with self._reading(path), path.open("rb") as file:
            return file.read(), _etag(os.fstat(file.fileno()))

    def head(self, key: str) -> ObjectInfo | None:
        """See :meth:`ObjectStore.head`."""
        path = self._path(key)
        with suppress(ObjectNotFoundError), self._reading(path):
            return None if path.is_dir() else _info(key, path.stat())
        return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`ObjectStore.list`."""
        prefix = _checked_prefix(prefix)
        for entry in self._entries(prefix):
            if entry.is_dir():
                yield from self.list(prefix + entry.name)
                continue
            with self._translated(Path(entry.path)), suppress(FileNotFoundError):
                yield _info(prefix + entry.name, entry.stat())

    def folders(self, prefix: str) -> Names:
        """See :meth:`ObjectStore.folders`."""
        return sorted(entry.name for entry in self._entries(_checked_prefix(prefix)) if entry.is_dir())

    def delete(self, key: str) -> None:
        """See :meth:`ObjectStore.delete`."""
        path = self._path(key)
        with suppress(ObjectNotFoundError), self._reading(path):
            if path.is_file():
                with self._locked(key):
                    path.unlink()

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> Iterator[ObjectWriter]:
        """See :meth:`ObjectStore.writer`."""
        self.prepare()
        target = self._path(key)
        with self._translated(target):
            self._make_folders()
            temporary = self._hidden / "writing" / uuid.uuid4().hex
            # Not tempfile: the object must be as readable for others as their umask says.
            file = os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
        try:
            sink = _FolderWriter(file, lambda: self._translated(target))
            yield sink
            with self._translated(target):
                file.flush()
                os.fsync(file.fileno())
                file.close()
                sink.etag = self._publish(key, temporary, target, if_absent=if_absent, if_match=if_match)
        except BaseException:
            # On a full disk closing fails as well: what is buffered cannot be written.
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def open(self, key: str) -> BinaryIO:
        """See :meth:`ObjectStore.open`."""
        path = self._path(key)
        with self._reading(path):
            return path.open("rb")

    def uri(self, key: str) -> str:
        """See :meth:`ObjectStore.uri`."""
        return str(self._root / key)

    def _path(self, key: str) -> Path:
        return self._root / _checked(key)

    def _entries(self, prefix: str) -> _Entries:
        """What lies in a folder, in the order of keys; a folder that is not there is empty."""
        path = self._root / prefix
        try:
            with self._reading(path), os.scandir(path) as found:
                visible = [entry for entry in found if _is_key(entry.name) and not _is_loop(entry)]
        except ObjectNotFoundError:
            return []
        return sorted(visible, key=lambda entry: entry.name + "/" if entry.is_dir() else entry.name)

    def _make_folders(self) -> None:
        for name in ("writing", "locks"):
            (self._hidden / name).mkdir(parents=True, exist_ok=True)
        if self._prepared:
            return
        for stray in (self._hidden / "writing").iterdir():
            with suppress(FileNotFoundError):
                if time.time() - stray.stat().st_mtime > _STRAY_SECONDS:
                    stray.unlink()
        self._prepared = True

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Keep other writers of this key away, in this and in every process; the kernel frees it after a kill."""
        self._make_folders()
        name = f"{crc32(key.encode()) & 0xFF:02x}"
        handle = os.open(self._hidden / "locks" / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _publish(
        self, key: str, temporary: Path, target: Path, *, if_absent: bool, if_match: str | None
    ) -> str:
        _make_folder(target.parent)
        with self._locked(key):
            try:
                present = target.stat()
            except FileNotFoundError:
                present = None
            if (if_absent and present) or (
                if_match is not None and (not present or _etag(present) != if_match)
            ):
                raise _conflict(str(target), if_absent=if_absent)
            written_at = max(time.time_ns(), present.st_mtime_ns + 1 if present else 0)
            os.utime(temporary, ns=(written_at, written_at))
            temporary.replace(target)
            etag = _etag(target.stat())
        _synchronise(target.parent)
        return etag

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        try:
            with self._translated(path):
                yield
        except StorageUnavailableError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
                raise ObjectNotFoundError(f"{path} does not exist") from error.__cause__
            raise

    @contextmanager
    def _translated(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageUnavailableError(self._reason(path, error)) from error

    def _reason(self, path: Path, error: OSError) -> str:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return f"the disk of {self._root} is full ({error.strerror}); free some space, then run again"
            case errno.EACCES | errno.EPERM:
                return f"no permission for {error.filename or path}; give this user access to {self._root}"
            case errno.EROFS:
                return f"{self._root} is on a read-only file system; choose a folder that can be written"
            case errno.EFBIG:
                return f"{path} would exceed the size that a file may have here; raise the limit (ulimit -f)"
            case errno.EXDEV:
                return f"{path} and {self._hidden} are on different file systems; keep the store on one"
            case errno.ELOOP:
                return f"{error.filename or path} is a loop of links; remove it"
            case errno.ENOTDIR | errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
                return f"{error.filename or path} is in the way ({error.strerror}); move it, or choose another folder"
            case _:
                return f"{path} cannot be read or written: {_one_line(error)}; check the disk of {self._root}"


def _is_loop(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads nowhere, or back to a folder that it is in; such a one is said, and listed no further."""
    if not entry.is_symlink():
        return False
    try:
        target = os.path.realpath(entry.path, strict=True)
    except OSError:
        logger.warning("%s is a link that leads nowhere; remove it", entry.path)
        return True
    back = Path(target).is_dir() and Path(entry.path).parent.resolve().is_relative_to(target)
    if back:
        logger.warning("%s is a link that leads back to %s; remove it", entry.path, target)
    return back


class _FolderWriter(ObjectWriter):
    def __init__(self, file: BinaryIO, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._translated = translated

    def write(self, data: Any) -> int:
        with self._translated():
            self._file.write(data)
        length = memoryview(data).nbytes
        self.size += length
        return length


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC)
    return ObjectInfo(key, status.st_size, _etag(status), modified)


def _make_folder(path: Path) -> None:
    """Make a folder with its parents so that it survives a power cut."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _synchronise(path.parent)


def _synchronise(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -------------------------------------------------------------------------------------------------- S3


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket, on S3 or on a server that speaks S3 with conditional writes.

    Up to 8 MiB go in one PUT, more in a multipart upload: nothing is visible before its completion, and the
    condition is that of the completion. A killed writer leaves at most the parts of an unfinished upload, which
    nobody sees but which cost space: give the bucket a lifecycle rule ``AbortIncompleteMultipartUpload``.

    boto3 repeats requests whose answers were lost. So that a repeated conditional write is not refused because
    of its own first try, each write carries an id in the object's metadata.

    Args:
        client: A boto3 client, made once by the caller; it may be shared by threads.
        bucket: The bucket; it must exist.
        prefix: Keys in the bucket begin with it.
    """

    patience_seconds = 30.0

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        super().__init__()
        self._bucket = _Bucket(client, bucket, _checked_prefix(prefix.strip("/")))
        self.url = self._bucket.url
        self._sent = threading.local()
        client.meta.events.register("before-send.s3", self._count)

    def _count(self, **_: Any) -> None:
        self._sent.count = self.requests_of_thread() + 1

    def requests_of_thread(self) -> int:
        """See :meth:`ObjectStore.requests_of_thread`."""
        count: int = getattr(self._sent, "count", 0)
        return count

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """See :meth:`ObjectStore.get_with_etag`."""
        response, data = self._bucket.fetch(key)
        return data, _unquoted(response["ETag"])

    def head(self, key: str) -> ObjectInfo | None:
        """See :meth:`ObjectStore.head`."""
        found = self._bucket.head(key)
        if found is None:
            return None
        return ObjectInfo(key, found["ContentLength"], _unquoted(found["ETag"]), found["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`ObjectStore.list`."""
        start = len(self._bucket.prefix)
        with self._bucket.translated(prefix):
            found = [
                ObjectInfo(item["Key"][start:], item["Size"], _unquoted(item["ETag"]), item["LastModified"])
                for page in self._bucket.pages(prefix)
                for item in page.get("Contents", [])
                if _is_key(item["Key"][start:])
            ]
        # Not every server lists in the order of keys.
        yield from sorted(found, key=lambda info: info.key)

    def folders(self, prefix: str) -> Names:
        """See :meth:`ObjectStore.folders`."""
        found = [
            item["Prefix"].rstrip("/").rpartition("/")[2]
            for page in self._bucket.pages(prefix, Delimiter="/")
            for item in page.get("CommonPrefixes", [])
        ]
        return sorted(name for name in found if _is_key(name))

    def delete(self, key: str) -> None:
        """See :meth:`ObjectStore.delete`."""
        self._bucket.call("delete_object", key)

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> Iterator[ObjectWriter]:
        """See :meth:`ObjectStore.writer`."""
        self.prepare()
        sink = _S3Writer(self._bucket, key, if_absent=if_absent, if_match=if_match)
        try:
            yield sink
            sink.publish()
        except BaseException:
            sink.abort()
            raise

    def open(self, key: str) -> BinaryIO:
        """See :meth:`ObjectStore.open`."""
        try:
            response, tail = self._bucket.fetch(key, Range=f"bytes=-{_TAIL_BYTES}")
        except _OutOfRangeError:
            return io.BytesIO(b"")
        size = int(response.get("ContentRange", f"/{len(tail)}").rpartition("/")[2])
        if size == len(tail):
            return io.BytesIO(tail)
        reader = _S3Reader(self._bucket, key, response["ETag"], size, tail)
        return cast("BinaryIO", io.BufferedReader(reader, _READ_BYTES))

    def uri(self, key: str) -> str:
        """See :meth:`ObjectStore.uri`."""
        return self._bucket.uri(key)

    def _try_out(self) -> None:
        """Multipart uploads are tried too."""
        super()._try_out()
        key = f"probe-{uuid.uuid4().hex}"
        self.put(key, b"1")
        sink = _S3Writer(self._bucket, key, if_absent=True, if_match=None)
        sink.write(b"2")
        try:
            with suppress(ObjectConflictError):
                sink.publish(in_parts=True)
                raise StorageUnavailableError(
                    f"{self.url} ignores If-None-Match when it completes a multipart upload, "
                    "so two writers could mix; use a store with conditional writes"
                )
        finally:
            sink.abort()
            self.delete(key)


class _OutOfRangeError(StorageError):
    """The object has no such range; of an empty one there is none at all."""


class _Bucket:
    """Requests to one bucket, below a prefix, with their errors translated."""

    def __init__(self, client: Any, name: str, prefix: str) -> None:
        self._client = client
        self._name = name
        self._seen = False
        self._endpoint = str(client.meta.endpoint_url)
        self.prefix = prefix
        self.url = f"s3://{name}/{prefix}".rstrip("/")

    def uri(self, key: str) -> str:
        return f"s3://{self._name}/{self.prefix}{key}"

    def call(self, operation: str, key: str, **arguments: Any) -> Any:
        """Send one request about one object."""
        place = self.prefix + _checked(key)
        with self.translated(key):
            answer = getattr(self._client, operation)(Bucket=self._name, Key=place, **arguments)
        missing = [
            name for name in _HELD.get(operation, ()) if not answer.get(name) and answer.get(name) != 0
        ]
        if missing:
            raise StorageUnavailableError(self._no_s3(f"{operation} without {', '.join(missing)}"))
        return answer

    def fetch(self, key: str, **arguments: str) -> tuple[Any, bytes]:
        """Get an object, or a range of it, with its bytes."""
        from botocore.exceptions import (  # noqa: PLC0415 (folders need not pay for it)
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        def once() -> tuple[Any, bytes]:
            response = self.call("get_object", key, **arguments)
            return response, response["Body"].read()

        with self.translated(key):
            # boto3 repeats requests, but not the reading of a body that breaks off.
            for _ in range(_READ_ATTEMPTS - 1):
                with suppress(IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    return once()
            return once()

    def head(self, key: str) -> Any:
        """The answer to HEAD; None if the object is not there."""
        try:
            return self.call("head_object", key)
        except ObjectNotFoundError:
            # An answer to HEAD has no body: it does not say whether the object or the bucket is missing.
            if not self._seen:
                next(self.pages(""), None)
                self._seen = True
            return None

    def pages(self, prefix: str, **arguments: str) -> Iterator[Any]:
        """The pages of a listing."""
        place = self.prefix + _checked_prefix(prefix)
        paginator = self._client.get_paginator("list_objects_v2")
        with self.translated(prefix):
            yield from paginator.paginate(Bucket=self._name, Prefix=place, **arguments)

    @contextmanager
    def translated(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (see above)
        from botocore.parsers import ResponseParserError  # noqa: PLC0415 (see above)
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 (see above)

        try:
            yield
        except ClientError as error:
            raise self._answered(key, error) from error
        except BotoCoreError as error:
            raise StorageUnavailableError(self._unanswered(error)) from error
        except (ResponseParserError, HTTPError, LookupError, ValueError, TypeError, AttributeError) as error:
            # boto3's parsers raise what they like for an answer that is none of S3.
            raise StorageUnavailableError(self._no_s3(_one_line(error) or type(error).__name__)) from error

    def _no_s3(self, what: str) -> str:
        return (
            f"{self._endpoint} answers otherwise than S3 does ({what}); "
            "correct AWS_ENDPOINT_URL, or use another store"
        )

    def _answered(self, key: str, error: Any) -> StorageError:
        reason = error.response.get("Error", {})
        code = reason.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = _one_line(f"{status} {code} {reason.get('Message', '')}")
        if code == "NoSuchBucket":
            return StorageUnavailableError(
                f"bucket {self._name} does not exist at {self._endpoint}; "
                "create it, or correct the store's address"
            )
        hint = self._checksum_hint(error.operation_name, code, status, said)
        if hint:
            did = "refuses" if status in (401, 403) else "failed at"
            return StorageUnavailableError(
                f"{self._endpoint} {did} {error.operation_name} on {self.uri(key)} ({said}); {hint}"
            )
        if status in (401, 403) or code in _CREDENTIAL_CODES:
            return StorageUnavailableError(
                f"{self._endpoint} refuses {error.operation_name} on {self.url} ({said}); "
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do"
            )
        match status:
            case 404:
                return ObjectNotFoundError(f"{self.uri(key)} does not exist")
            case 409 | 412:
                return _conflict(self.uri(key), if_absent=False)
            case 416:
                return _OutOfRangeError(f"{self.uri(key)} is shorter than expected; read it again")
        return StorageUnavailableError(
            f"{self._endpoint} failed at {error.operation_name} on {self.uri(key)} ({said}); "
            "check the server, then run again"
        )

    def _checksum_hint(self, operation: str, code: str, status: int, said: str) -> str:
        """What to do where a server seems not to know the checksums of boto3; empty where it is something else."""
        suspect = (
            code in _CHECKSUM_CODES
            or status in (411, 501)
            or (400 <= status < 500 and status not in (404, 409, 412) and _CHECKSUM_WORDS.search(said))
        )
        if operation not in _SENDING or not suspect:
            return ""
        if getattr(self._client.meta.config, "request_checksum_calculation", None) == "when_required":
            if code == "NotImplemented" or status == 501:
                return "it seems not to know conditional writes, which are needed; use another store"
            return ""
        first = "check AWS_SECRET_ACCESS_KEY; if it is right, " if code == "SignatureDoesNotMatch" else ""
        return f"{first}it may not know the checksums that boto3 sends: set {_WHEN_REQUIRED}, then run again"

    def _unanswered(self, error: Exception) -> str:
        from botocore.exceptions import (  # noqa: PLC0415 (see above)
            AwsChunkedWrapperError,
            FlexibleChecksumError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        match error:
            case NoCredentialsError() | PartialCredentialsError():
                return (
                    f"no complete credentials for {self.url} ({_one_line(error)}); "
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
                )
            case FlexibleChecksumError() | AwsChunkedWrapperError():
                return (
                    f"{self._endpoint} and boto3 disagree about a checksum of {self.url} ({_one_line(error)}); "
                    f"set {_WHEN_REQUIRED}, then run again"
                )
            case ParamValidationError():
                return f"{self.url} is not accepted ({_one_line(error)}); correct the store's address"
        return (
            f"{self._endpoint} does not answer ({_one_line(error)}); "
            "start the server or correct AWS_ENDPOINT_URL, then run again"
        )


class _S3Writer(ObjectWriter):
    """Keeps one part in memory; becomes a multipart upload when there is more."""

    def __init__(self, bucket: _Bucket, key: str, *, if_absent: bool, if_match: str | None) -> None:
        self._bucket = bucket
        self._key = _checked(key)
        self._conditions = {"IfNoneMatch": "*"} if if_absent else {}
        if if_match is not None:
            self._conditions["IfMatch"] = f'"{if_match}"'
        self._write_id = uuid.uuid4().hex
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._buffer += view
        self.size += view.nbytes
        while len(self._buffer) > _PART_BYTES:
            self._upload_part(_PART_BYTES)
        return view.nbytes

    def publish(self, *, in_parts: bool = False) -> None:
        """Make the object visible, if the condition holds."""
        if in_parts or self._parts:
            self._upload_part(len(self._buffer))
            parts = {"Parts": self._parts}
            self._commit("complete_multipart_upload", UploadId=self._upload_id, MultipartUpload=parts)
            self._upload_id = None
        else:
            self._commit("put_object", Body=bytes(self._buffer), Metadata={"write-id": self._write_id})

    def abort(self) -> None:
        """Throw away what was uploaded and not published; nobody has seen it."""
        self._buffer.clear()
        if self._upload_id is None:
            return
        try:
            self._bucket.call("abort_multipart_upload", self._key, UploadId=self._upload_id)
        except StorageError as error:
            logger.warning("Parts of an unfinished upload of %s stay: %s", self._bucket.uri(self._key), error)
        self._upload_id = None

    def _upload_part(self, size: int) -> None:
        if self._upload_id is None:
            metadata = {"write-id": self._write_id}
            started = self._bucket.call("create_multipart_upload", self._key, Metadata=metadata)
            self._upload_id = started["UploadId"]
        part = {"UploadId": self._upload_id, "PartNumber": len(self._parts) + 1}
        try:
            answer = self._bucket.call("upload_part", self._key, **part, Body=bytes(self._buffer[:size]))
        except ObjectNotFoundError as error:
            raise self._undone(error) from error
        self._parts.append({"ETag": answer["ETag"], "PartNumber": part["PartNumber"]})
        del self._buffer[:size]

    def _commit(self, operation: str, **arguments: Any) -> None:
        try:
            answer = self._bucket.call(operation, self._key, **arguments, **self._conditions)
        except (ObjectConflictError, ObjectNotFoundError) as error:
            # The first try may have been done and its answer lost; then the object bears this write's id.
            answer = self._bucket.head(self._key)
            if answer is None or answer.get("Metadata", {}).get("write-id") != self._write_id:
                if not self._conditions:
                    raise self._undone(error) from error
                if_absent = "IfNoneMatch" in self._conditions
                raise _conflict(self._bucket.uri(self._key), if_absent=if_absent) from error
        self.etag = _unquoted(answer["ETag"])

    def _undone(self, error: StorageError) -> StorageUnavailableError:
        uri = self._bucket.uri(self._key)
        return StorageUnavailableError(f"the server gave up the write of {uri} ({error}); run again")


class _S3Reader(io.RawIOBase):
    """One version of an object, fetched in ranges; its end is there already."""

    def __init__(self, bucket: _Bucket, key: str, quoted_etag: str, size: int, tail: bytes) -> None:
        self._bucket = bucket
        self._key = key
        self._etag = quoted_etag
        self._size = size
        self._tail = tail
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, target: Any) -> int:
        wanted = min(len(target), self._size - self._position)
        if wanted <= 0:
            return 0
        into_tail = self._position - (self._size - len(self._tail))
        if into_tail >= 0:
            data = self._tail[into_tail : into_tail + wanted]
        else:
            last = self._position + min(wanted, -into_tail) - 1
            stretch = f"bytes={self._position}-{last}"
            try:
                _, data = self._bucket.fetch(self._key, Range=stretch, IfMatch=self._etag)
            except (ObjectNotFoundError, _OutOfRangeError) as error:
                raise _conflict(self._bucket.uri(self._key), if_absent=False) from error
        target[: len(data)] = data
        self._position += len(data)
        return len(data)


def _unquoted(etag: str) -> str:
    return etag.strip('"')


def filesystem(store: ObjectStore) -> AbstractFileSystem:
    """A store as a read-only fsspec file system for ``s3://`` paths below it, for DuckDB."""
    from fsspec import AbstractFileSystem  # noqa: PLC0415 (0.1 s)
    from fsspec.core import has_magic  # noqa: PLC0415 (see above)

    root = store.url.removeprefix("s3://") + "/"

    class StoreFileSystem(AbstractFileSystem):  # type: ignore[misc]
        protocol = "s3"
        cachable = False

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            found = store.head(self._key(path))
            if found is None:
                raise FileNotFoundError(path)
            return self._entry(found)

        def modified(self, path: str) -> datetime:
            return cast("datetime", self.info(path)["LastModified"])

        def glob(self, path: str, **options: Any) -> Any:
            # A plain path costs no request: opening it will tell.
            return super().glob(path, **options) if has_magic(path) else [path]

        def find(self, path: str, detail: bool = False, **_: Any) -> Any:
            entries = [self._entry(found) for found in store.list(self._key(path.rstrip("/") + "/"))]
            found = {entry["name"]: entry for entry in entries}
            return found if detail else sorted(found)

        def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
            if mode != "rb":
                raise PermissionError(f"{path} can only be read here; write through the store")
            return store.open(self._key(path))

        def _key(self, path: str) -> str:
            path = self._strip_protocol(path) + ("/" if path.endswith("/") else "")
            if not path.startswith(root):
                raise FileNotFoundError(f"{path} is not below {root}")
            return str(path.removeprefix(root))

        def _entry(self, found: ObjectInfo) -> dict[str, Any]:
            return {
                "name": root + found.key,
                "size": found.size,
                "type": "file",
                "ETag": found.etag,
                "LastModified": found.modified,
            }

    return StoreFileSystem()
