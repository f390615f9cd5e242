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

import io
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from vendor_assets.errors import (
    ConfigurationError,
    ObjectConflictError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.turns import let_others

# Inside the stores ``list`` is a method.
Names = list[str]


@dataclass(frozen=True)
class ObjectInfo:
    """One object as it is listed; its ``etag`` changes with every version, its ``size`` is in bytes."""

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectWriter(io.RawIOBase):
    """Takes the bytes of one object in order; until they are published nobody sees them and ``etag`` is empty."""

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
        """Call a function once before anything is written; its own writes do not wait for it."""
        self._before_write, self._is_prepared = prepare, False

    def prepare(self) -> None:
        """Do what comes before the first write, unless it is done; each write does so too, until it succeeds."""
        if self._is_prepared:
            return
        with self._unguarded() as prepare:
            if prepare is not None and not self._is_prepared:
                prepare()
                self._is_prepared = True

    @contextmanager
    def _unguarded(self) -> Iterator[Callable[[], None] | None]:
        """Let this thread alone write while the block lasts; gives what is to be done before the first write."""
        with let_others(), self._preparing:
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
        """Write an object piece by piece; it is published when the block ends, unless by an exception.

        Args:
            if_absent: Publish only if there is none yet.
            if_match: Publish only if the present version has this etag.

        Raises:
            ObjectConflictError: The condition does not hold when the block ends; nothing was changed.
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
        """Write an object and return its etag; conditions and errors are those of :meth:`writer`."""
        with self.writer(key, if_absent=if_absent, if_match=if_match) as sink:
            sink.write(data)
        return sink.etag

    def check(self) -> None:
        """Prove with temporary objects that the store can be read and written and that conditions hold.

        Raises:
            StorageUnavailableError: What is wrong, on one line.
        """
        with self._unguarded():
            self._try_out()

    def must_refuse(self, key: str, data: bytes) -> None:
        """Prove that conditions hold, by two writes of an object with its present content.

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
        s3_client_factory: Makes the boto3 client, once. By default boto3 looks for credentials, region and endpoint.

    Raises:
        ConfigurationError: The URL is neither.
    """
    if "://" not in url:
        from vendor_assets.storage.folder import FolderStore  # noqa: PLC0415 (it builds on this module)

        return FolderStore(url)
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(f"store {url!r} is not accepted; give a folder or s3://bucket/prefix")
    from vendor_assets.storage.s3 import open_bucket  # noqa: PLC0415 (0.3 s that folders need not pay)

    return open_bucket(url, s3_client_factory)


def is_key(key: str) -> bool:
    """Whether a text can be a key; objects under other names are foreign, and are not listed."""
    return not any(
        not segment or segment.startswith(".") or "\\" in segment or not segment.isprintable()
        for segment in key.split("/")
    )


def checked_key(key: str) -> str:
    """The key; raises StorageError where a text cannot be one."""
    if not is_key(key):
        raise StorageError(f"object key {key!r} is not accepted; build keys with storage/layout.py")
    return key


def checked_prefix(prefix: str) -> str:
    """A folder's key with its slash; "" is the whole store."""
    return checked_key(prefix.removesuffix("/")) + "/" if prefix else ""


def conflict(uri: str, *, if_absent: bool) -> ObjectConflictError:
    """What is raised where a condition does not hold."""
    what = "exists already" if if_absent else "was replaced or deleted by somebody else"
    return ObjectConflictError(f"{uri} {what}; nothing was written, read it again")


def one_line(error: BaseException | str) -> str:
    """What an error says, shortened, on one line."""
    return " ".join(str(error).split())[:300]
