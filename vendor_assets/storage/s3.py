"""Objects below a prefix of a bucket, on S3 or on a server that speaks it; the only module that imports boto3."""

from __future__ import annotations

import io
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    AwsChunkedWrapperError,
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from vendor_assets.errors import (
    ConfigurationError,
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
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

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = get_logger(__name__)

_PART_BYTES: Final = 8 << 20
"""Size of a part of a multipart upload; at most 10,000 parts make an object of 80 GB."""
_TAIL_BYTES: Final = 256 << 10
"""How much of an object's end is fetched when it is opened: a Parquet footer, or a small object whole."""
_READ_BYTES: Final = 1 << 20
_READ_ATTEMPTS: Final = 3
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


def open_bucket(url: str, client_factory: Callable[[], Any] | None = None) -> S3Store:
    """The store at ``s3://bucket/prefix``; as :func:`~vendor_assets.storage.objects.open_store`."""
    parts = urlsplit(url)
    try:
        return S3Store((client_factory or _default_client)(), parts.netloc, parts.path)
    except (BotoCoreError, StorageError, ValueError) as error:
        message = (
            f"store {url!r} cannot be used ({one_line(error)}); correct its address or the AWS variables"
        )
        raise ConfigurationError(message) from error


def _default_client() -> Any:
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=32,
        retries={"mode": "standard", "max_attempts": 4},
    )
    return boto3.client("s3", config=config)


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
        self._bucket = _Bucket(client, bucket, checked_prefix(prefix.strip("/")))
        self.url = self._bucket.url
        self._sent = threading.local()
        client.meta.events.register("before-send.s3", self._count)

    def _count(self, **_: Any) -> None:
        self._sent.count = self.requests_of_thread() + 1

    def requests_of_thread(self) -> int:
        count: int = getattr(self._sent, "count", 0)
        return count

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
        # Not every server lists in the order of keys.
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
        except _OutOfRangeError:
            return io.BytesIO(b"")
        size = int(response.get("ContentRange", f"/{len(tail)}").rpartition("/")[2])
        if size == len(tail):
            return io.BytesIO(tail)
        reader = _S3Reader(self._bucket, key, response["ETag"], size, tail)
        return cast("BinaryIO", io.BufferedReader(reader, _READ_BYTES))

    def uri(self, key: str) -> str:
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
        place = self.prefix + checked_key(key)
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
        place = self.prefix + checked_prefix(prefix)
        paginator = self._client.get_paginator("list_objects_v2")
        with self.translated(prefix):
            yield from paginator.paginate(Bucket=self._name, Prefix=place, **arguments)

    @contextmanager
    def translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._answered(key, error) from error
        except BotoCoreError as error:
            raise StorageUnavailableError(self._unanswered(error)) from error
        except (ResponseParserError, HTTPError, LookupError, ValueError, TypeError, AttributeError) as error:
            # boto3's parsers raise what they like for an answer that is none of S3.
            raise StorageUnavailableError(self._no_s3(one_line(error) or type(error).__name__)) from error

    def _no_s3(self, what: str) -> str:
        return (
            f"{self._endpoint} answers otherwise than S3 does ({what}); "
            "correct AWS_ENDPOINT_URL, or use another store"
        )

    def _answered(self, key: str, error: Any) -> StorageError:
        reason = error.response.get("Error", {})
        code = reason.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = one_line(f"{status} {code} {reason.get('Message', '')}")
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
                return conflict(self.uri(key), if_absent=False)
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
        match error:
            case NoCredentialsError() | PartialCredentialsError():
                return (
                    f"no complete credentials for {self.url} ({one_line(error)}); "
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
                )
            case FlexibleChecksumError() | AwsChunkedWrapperError():
                return (
                    f"{self._endpoint} and boto3 disagree about a checksum of {self.url} ({one_line(error)}); "
                    f"set {_WHEN_REQUIRED}, then run again"
                )
            case ParamValidationError():
                return f"{self.url} is not accepted ({one_line(error)}); correct the store's address"
        return (
            f"{self._endpoint} does not answer ({one_line(error)}); "
            "start the server or correct AWS_ENDPOINT_URL, then run again"
        )


class _S3Writer(ObjectWriter):
    """Keeps one part in memory; becomes a multipart upload when there is more."""

    def __init__(self, bucket: _Bucket, key: str, *, if_absent: bool, if_match: str | None) -> None:
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
                raise conflict(self._bucket.uri(self._key), if_absent=if_absent) from error
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
                raise conflict(self._bucket.uri(self._key), if_absent=False) from error
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
