"""The store on S3 or an S3-compatible server: objects below a prefix of a bucket."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from vendor_assets.errors import (
    ConfigurationError,
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.logs import get_logger
from vendor_assets.storage.bucket import Bucket, OutOfRangeError
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

logger = get_logger(__name__)

_PART_BYTES: Final = 8 << 20
"""Size of a part of a multipart upload; 10,000 parts at most make an object of 80 GB."""
_TAIL_BYTES: Final = 256 << 10
"""Size of an object's end that is fetched when it is opened: a Parquet footer, or a small object whole."""
_READ_BYTES: Final = 1 << 20
_CONNECTIONS: Final = 72
"""Eight partitions are open at once, and each may read with eight threads."""


def open_bucket(url: str, client_factory: Callable[[], Any] | None = None) -> S3Store:
    """Open ``s3://bucket/prefix``; see :func:`~vendor_assets.storage.objects.open_store`."""
    parts = urlsplit(url)
    try:
        return S3Store((client_factory or _default_client)(), parts.netloc, parts.path)
    except (BotoCoreError, StorageError, ValueError) as error:
        raise ConfigurationError(
            f"store {url!r} cannot be used ({one_line(error)}); correct its address or the AWS variables"
        ) from error


def client_config(*, max_attempts: int = 4) -> Config:
    """How boto3 talks to a store: patience, attempts, and a connection kept for each thread that may read at once."""
    return Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=_CONNECTIONS,
        retries={"mode": "standard", "max_attempts": max_attempts},
    )


def _default_client() -> Any:
    return boto3.client("s3", config=client_config())


class S3Store(ObjectStore):
    """Objects below a prefix of a bucket. The server must support conditional writes.

    Objects up to 8 MiB are written by one PUT, larger ones by a multipart upload, which is conditional and becomes
    visible on completion. A killed writer may leave the invisible parts of an upload, which take space: give the bucket
    a lifecycle rule ``AbortIncompleteMultipartUpload``.

    boto3 repeats requests whose answers were lost. Each write has an id in the object's metadata, so that a repeated
    conditional write is not refused because its first attempt succeeded.
    """

    patience_seconds = 30.0

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        super().__init__()
        self._bucket = Bucket(client, bucket, checked_prefix(prefix.strip("/")))
        self.url = self._bucket.url

    def requests_of_thread(self) -> int:
        return self._bucket.requests_of_thread()

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        response, data = self._bucket.fetch(key)
        return data, _unquoted(response["ETag"])

    def head(self, key: str) -> ObjectInfo | None:
        found = self._bucket.head(key)
        if found is None:
            return None
        return ObjectInfo(key, found["ContentLength"], _unquoted(found["ETag"]), found["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start = len(self._bucket.prefix)
        with self._bucket.translated(prefix):
            found = [
                ObjectInfo(item["Key"][start:], item["Size"], _unquoted(item["ETag"]), item["LastModified"])
                for page in self._bucket.pages(prefix)
                for item in page.get("Contents", [])
                if is_key(item["Key"][start:])
            ]
        # Not every server lists in key order.
        yield from sorted(found, key=lambda info: info.key)

    def folders(self, prefix: str) -> Names:
        found = [
            item["Prefix"].rstrip("/").rpartition("/")[2]
            for page in self._bucket.pages(prefix, Delimiter="/")
            for item in page.get("CommonPrefixes", [])
        ]
        return sorted(name for name in found if is_key(name))

    def delete(self, key: str) -> None:
        self._bucket.call("delete_object", key)

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> Iterator[ObjectWriter]:
        self.prepare()
        sink = _S3Writer(self._bucket, key, if_absent=if_absent, if_match=if_match)
        try:
            yield sink
            sink.publish()
        except BaseException:
            sink.abort()
            raise

    def open(self, key: str) -> BinaryIO:
        try:
            response, tail = self._bucket.fetch(key, Range=f"bytes=-{_TAIL_BYTES}")
        except OutOfRangeError:
            return io.BytesIO(b"")
        size = int(response.get("ContentRange", f"/{len(tail)}").rpartition("/")[2])
        if size == len(tail):
            return io.BytesIO(tail)
        reader = _S3Reader(self._bucket, key, response["ETag"], size, tail)
        return cast("BinaryIO", io.BufferedReader(reader, _READ_BYTES))

    def uri(self, key: str) -> str:
        return self._bucket.uri(key)

    def _try_out(self) -> None:
        """Try multipart uploads too, and whether a listing has what was just written."""
        super()._try_out()
        folder = f"probe-{uuid.uuid4().hex}/"
        key = f"{folder}probe"
        self.put(key, b"1")
        sink = _S3Writer(self._bucket, key, if_absent=True, if_match=None)
        sink.write(b"2")
        try:
            if [info.key for info in self.list(folder)] != [key]:
                raise StorageUnavailableError(
                    f"{self.url} does not list what was just written, so that calls would be made twice; use a store "
                    "whose listings are up to date"
                )
            with suppress(ObjectConflictError):
                sink.publish(in_parts=True)
                raise StorageUnavailableError(
                    f"{self.url} ignores If-None-Match when it completes a multipart upload, "
                    "so two writers could mix; use a store with conditional writes"
                )
        finally:
            sink.abort()
            self.delete(key)


class _S3Writer(ObjectWriter):
    """Buffers one part in memory; starts a multipart upload when there is more."""

    def __init__(self, bucket: Bucket, key: str, *, if_absent: bool, if_match: str | None) -> None:
        self._bucket = bucket
        self._key = checked_key(key)
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
        """Discard what was not published."""
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
            # If a first attempt succeeded but its answer was lost, the object has this write's id.
            answer = self._bucket.head(self._key)
            if answer is None or answer.get("Metadata", {}).get("write-id") != self._write_id:
                if not self._conditions:
                    raise self._undone(error) from error
                if_absent = "IfNoneMatch" in self._conditions
                raise conflict(self._bucket.uri(self._key), if_absent=if_absent) from error
        self.etag = _unquoted(answer["ETag"])

    def _undone(self, error: StorageError) -> StorageUnavailableError:
        uri = self._bucket.uri(self._key)
        return StorageUnavailableError(f"the server gave up the write of {uri} ({error}); run again")


class _S3Reader(io.RawIOBase):
    """One version of an object, fetched in ranges; its end is fetched already."""

    def __init__(self, bucket: Bucket, key: str, quoted_etag: str, size: int, tail: bytes) -> None:
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
            except (ObjectNotFoundError, OutOfRangeError) as error:
                raise conflict(self._bucket.uri(self._key), if_absent=False) from error
        target[: len(data)] = data
        self._position += len(data)
        return len(data)


def _unquoted(etag: str) -> str:
    return etag.strip('"')
