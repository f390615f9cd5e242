"""A store in a folder that tells of each request before and after it, so that a test can count or cut them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import Names, ObjectInfo, ObjectWriter

Watch = Callable[[str, str, bool], None]


class WatchedStore(FolderStore):
    """Each request is one that S3 would be sent for it.

    Args:
        watch: Called with the request's name, its key, and whether it is done; what it raises, the request raises.
    """

    def __init__(self, folder: Path, watch: Watch) -> None:
        super().__init__(folder)
        self._watch = watch

    @contextmanager
    def _told(self, name: str, key: str) -> Iterator[None]:
        self._watch(name, key, False)
        yield
        self._watch(name, key, True)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        with self._told("get", key):
            return super().get_with_etag(key)

    def head(self, key: str) -> ObjectInfo | None:
        with self._told("head", key):
            return super().head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._told("list", prefix):
            found = list(super().list(prefix))
        return iter(found)

    def folders(self, prefix: str) -> Names:
        with self._told("folders", prefix):
            return super().folders(prefix)

    def delete(self, key: str) -> None:
        with self._told("delete", key):
            super().delete(key)

    def open(self, key: str) -> BinaryIO:
        with ExitStack() as stack:
            with self._told("open", key):
                file = stack.enter_context(super().open(key))
            stack.pop_all()
            return file

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> Iterator[ObjectWriter]:
        with super().writer(key, if_absent=if_absent, if_match=if_match) as sink:
            yield sink
            # What is written becomes an object when the block ends.
            self._watch("put", key, False)
        self._watch("put", key, True)
