"""Objects as files of a local folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from zlib import crc32

from vendor_assets.errors import ObjectNotFoundError, StorageUnavailableError
from vendor_assets.logs import get_logger
from vendor_assets.storage.objects import (
    Names,
    ObjectInfo,
    ObjectStore,
    ObjectWriter,
    checked_key,
    checked_prefix,
    conflict,
    is_key,
    one_line,
)
from vendor_assets.turns import let_others

logger = get_logger(__name__)

_STRAY_SECONDS: Final = 86_400.0
_COARSE_SECONDS: Final = 4
"""File systems that keep times by the second, or by two as FAT does, have a later one within so many seconds."""


class FolderStore(ObjectStore):
    """Objects as files of a local folder.

    An object is written beside the others under ``.store/``, synchronised to the disk, and moved into place under
    a lock of its key. The etag is the time of writing with the size; each version's time is made later than its
    predecessor's. What a killed writer left under ``.store/`` is removed after a day. The folder is made with the first
    object. The locks are those of one machine.
    """

    def __init__(self, root: str | Path) -> None:
        super().__init__()
        self._root = Path(root).expanduser().absolute()
        self._hidden = self._root / ".store"
        self._own = [str(self._hidden / name) for name in ("writing", "locks")]
        self._prepared = False
        self.url = str(self._root)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        path = self._path(key)
        with self._reading(path), path.open("rb") as file:
            return file.read(), _etag(os.fstat(file.fileno()))

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with suppress(ObjectNotFoundError), self._reading(path):
            return None if path.is_dir() else _info(key, path.stat())
        return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        prefix = checked_prefix(prefix)
        yield from self._below(str(self._root / prefix), prefix)

    def _below(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        for entry in self._entries(folder):
            key = prefix + entry.name
            if entry.is_dir():
                yield from self._below(entry.path, key + "/")
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageUnavailableError(self._reason(entry.path, error)) from error
            yield _info(key, status)

    def folders(self, prefix: str) -> Names:
        folder = str(self._root / checked_prefix(prefix))
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def delete(self, key: str) -> None:
        path = self._path(key)
        with suppress(ObjectNotFoundError), self._reading(path):
            if path.is_file():
                with self._locked(key):
                    path.unlink()

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> Iterator[ObjectWriter]:
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
                with let_others():
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
        path = self._path(key)
        with self._reading(path):
            return path.open("rb")

    def uri(self, key: str) -> str:
        return str(self._root / key)

    def _try_out(self) -> None:
        """Try, too, whether names stay as they are written."""
        super()._try_out()
        key = f"probe-{uuid.uuid4().hex}-Aa"
        self.put(key, b"1")
        try:
            if key not in os.listdir(self._root):  # noqa: PTH208 - names alone
                raise StorageUnavailableError(
                    f"{self.url} is on a file system that changes the case of names; use another one"
                )
        finally:
            self.delete(key)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _entries(self, folder: str) -> Iterable[os.DirEntry[str]]:
        """What lies in a folder, in the order of keys; a folder that is not there is empty."""
        try:
            with self._reading(folder), os.scandir(folder) as found:
                visible = [entry for entry in found if is_key(entry.name) and not _is_loop(entry)]
        except ObjectNotFoundError:
            return []
        return sorted(visible, key=lambda entry: entry.name + "/" if entry.is_dir() else entry.name)

    def _make_folders(self) -> None:
        for folder in self._own:
            if not os.path.isdir(folder):  # noqa: PTH112 - with each write, and a sixth as dear as to try to make it
                Path(folder).mkdir(parents=True, exist_ok=True)
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
                raise conflict(str(target), if_absent=if_absent)
            etag = _etag(_dated(temporary, present))
            temporary.replace(target)
        _synchronise(target.parent)
        return etag

    @contextmanager
    def _reading(self, path: Path | str) -> Iterator[None]:
        try:
            with self._translated(path):
                yield
        except StorageUnavailableError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
                raise ObjectNotFoundError(f"{path} does not exist") from error.__cause__
            raise

    @contextmanager
    def _translated(self, path: Path | str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageUnavailableError(self._reason(path, error)) from error

    def _reason(self, path: Path | str, error: OSError) -> str:
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
                return f"{path} cannot be read or written: {one_line(error)}; check the disk of {self._root}"


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


def _dated(file: Path, present: os.stat_result | None) -> os.stat_result:
    """Give a file the time of now, or a later one than its predecessor's."""
    written_at = max(time.time_ns(), present.st_mtime_ns + 1 if present else 0)
    for _ in range(_COARSE_SECONDS):
        os.utime(file, ns=(written_at, written_at))
        kept = file.stat()
        if present is None or kept.st_mtime_ns > present.st_mtime_ns:
            break
        written_at += 1_000_000_000
    return kept


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
        with let_others():
            os.fsync(handle)
    finally:
        os.close(handle)
