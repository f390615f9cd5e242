"""A store as a file system of fsspec, for DuckDB."""

from __future__ import annotations

from datetime import datetime
from typing import Any, BinaryIO, cast

from fsspec import AbstractFileSystem
from fsspec.core import has_magic

from vendor_assets.storage.objects import ObjectInfo, ObjectStore


class StoreFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A read-only file system for ``s3://`` paths below a store."""

    protocol = "s3"
    cachable = False

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        self._store = store
        self._root = store.url.removeprefix("s3://") + "/"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        found = self._store.head(self._key(path))
        if found is None:
            raise FileNotFoundError(path)
        return self._entry(found)

    def modified(self, path: str) -> datetime:
        return cast("datetime", self.info(path)["LastModified"])

    def glob(self, path: str, **options: Any) -> Any:
        # A plain path needs no request: opening it will tell whether it exists.
        return super().glob(path, **options) if has_magic(path) else [path]

    def find(self, path: str, detail: bool = False, **_: Any) -> Any:
        entries = [self._entry(found) for found in self._store.list(self._key(path.rstrip("/") + "/"))]
        found = {entry["name"]: entry for entry in entries}
        return found if detail else sorted(found)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        if mode != "rb":
            raise PermissionError(f"{path} can only be read here; write through the store")
        return self._store.open(self._key(path))

    def _key(self, path: str) -> str:
        path = self._strip_protocol(path) + ("/" if path.endswith("/") else "")
        if not path.startswith(self._root):
            raise FileNotFoundError(f"{path} is not below {self._root}")
        return str(path.removeprefix(self._root))

    def _entry(self, found: ObjectInfo) -> dict[str, Any]:
        return {
            "name": self._root + found.key,
            "size": found.size,
            "type": "file",
            "ETag": found.etag,
            "LastModified": found.modified,
        }
