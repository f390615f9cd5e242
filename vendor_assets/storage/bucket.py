"""Requests to a bucket of S3 or an S3-compatible server, with boto3's errors translated to ours."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

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
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as LateError

from vendor_assets.days import duration_text
from vendor_assets.errors import ObjectNotFoundError, StorageError, StorageUnavailableError
from vendor_assets.storage.objects import checked_key, checked_prefix, conflict, one_line
from vendor_assets.turns import let_others

T = TypeVar("T")

_READ_ATTEMPTS: Final = 3
_BROKEN_OFF: Final = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, ProtocolError)
"""An object's bytes broke off: boto3 repeats requests, but not reading what they bring."""
_WHEN_REQUIRED: Final = (
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)
_SENDING: Final = frozenset({"PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload"})
# Error codes of servers that do not support the checksums and trailers that boto3 sends since 1.36.
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
_CLOCK_CODES: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_SKEW_SECONDS: Final = 300.0
"""S3 takes a quarter of an hour; a server's own limit may be lower, and a proxy's answer may be old."""
_CREDENTIAL_CODES: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})


def _read(ask: Callable[[], T], broken_off: tuple[type[Exception], ...] = (ProtocolError,)) -> T:
    """Ask for something, and again where the answer breaks off; what was asked may have been done.

    Where that is any other than an object's bytes, boto3 lets through what urllib3 raises.
    """
    for _ in range(_READ_ATTEMPTS - 1):
        with suppress(*broken_off):
            return ask()
    return ask()


class OutOfRangeError(StorageError):
    """The object does not have the range; an empty object has none."""


class _Sent(threading.local):
    """What a thread has sent.

    Attributes:
        count: How many requests.
        waiting: Open while other threads have their turn, until there is an answer.
    """

    count = 0
    waiting = ExitStack()


class Bucket:
    """Requests to one bucket, below a prefix.

    They are built and read in the thread's turn, since boto3 computes more than the network takes; while an answer or
    another attempt is waited for, other threads have theirs.
    """

    def __init__(self, client: Any, name: str, prefix: str) -> None:
        self._client = client
        self._name = name
        self._seen = False
        self._endpoint = str(client.meta.endpoint_url)
        self.prefix = prefix
        self.url = f"s3://{name}/{prefix}".rstrip("/")
        self._sent = _Sent()
        events = client.meta.events
        events.register("before-send.s3", self._wait)
        for answered in ("before-parse.s3", "response-received.s3"):
            events.register(answered, self._go_on)

    def _wait(self, **_: Any) -> None:
        self._sent.count += 1
        self._sent.waiting.close()
        self._sent.waiting = waiting = ExitStack()
        waiting.enter_context(let_others())

    def _go_on(self, response_dict: Mapping[str, Any] | None = None, **_: Any) -> None:
        # Where there was an error, boto3 may sleep before another attempt.
        if response_dict is not None and response_dict["status_code"] < 500:
            self._sent.waiting.close()

    def requests_of_thread(self) -> int:
        """How many requests this thread has sent so far, each attempt counted."""
        return self._sent.count

    def uri(self, key: str) -> str:
        return f"s3://{self._name}/{self.prefix}{key}"

    def call(self, operation: str, key: str, **arguments: Any) -> Any:
        """Send one request for an object."""
        place = self.prefix + checked_key(key)
        with self.translated(key):
            answer = _read(
                lambda: getattr(self._client, operation)(Bucket=self._name, Key=place, **arguments)
            )
        missing = [
            name for name in _HELD.get(operation, ()) if not answer.get(name) and answer.get(name) != 0
        ]
        if missing:
            raise StorageUnavailableError(self._no_s3(f"{operation} without {', '.join(missing)}"))
        return answer

    def fetch(self, key: str, **arguments: str) -> tuple[Any, bytes]:
        """Get an object, or a range of it: the response and its bytes."""

        def once() -> tuple[Any, bytes]:
            response = self.call("get_object", key, **arguments)
            with let_others():
                return response, response["Body"].read()

        with self.translated(key):
            return _read(once, _BROKEN_OFF)

    def head(self, key: str) -> Any:
        """The response to HEAD; None if the object does not exist."""
        try:
            return self.call("head_object", key)
        except ObjectNotFoundError:
            # Without a body, the response does not say whether the object or the bucket is missing.
            if not self._seen:
                next(self.pages(""), None)
                self._seen = True
            return None

    def pages(self, prefix: str, **arguments: str) -> Iterator[Any]:
        """The pages of a listing."""
        place = self.prefix + checked_prefix(prefix)
        asked = {"Bucket": self._name, "Prefix": place, **arguments}
        with self.translated(prefix):
            while True:
                page = _read(lambda: self._client.list_objects_v2(**asked))
                yield page
                if not page.get("IsTruncated"):
                    return
                if page["NextContinuationToken"] == asked.get("ContinuationToken"):
                    raise ValueError("a list that never ends")
                asked["ContinuationToken"] = page["NextContinuationToken"]

    @contextmanager
    def translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._answered(key, error) from error
        except (BotoCoreError, ProtocolError, LateError) as error:
            raise StorageUnavailableError(self._unanswered(error)) from error
        except (ResponseParserError, HTTPError, LookupError, ValueError, TypeError, AttributeError) as error:
            # boto3's parsers raise all kinds of errors for answers that are not S3's.
            raise StorageUnavailableError(self._no_s3(one_line(error) or type(error).__name__)) from error
        finally:
            # After an error boto3 may not have told of an answer.
            self._sent.waiting.close()

    def _no_s3(self, what: str) -> str:
        return (
            f"{self._endpoint} does not answer like S3 ({what}); "
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
        skewed = self._clock_hint(
            code, status, error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        )
        if skewed:
            return StorageUnavailableError(
                f"{self._endpoint} refuses {error.operation_name} on {self.url} ({said}); {skewed}"
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
                return OutOfRangeError(f"{self.uri(key)} is shorter than expected; read it again")
        return StorageUnavailableError(
            f"{self._endpoint} failed at {error.operation_name} on {self.uri(key)} ({said}); "
            "check the server, then run again"
        )

    def _clock_hint(self, code: str, status: int, headers: Mapping[str, str]) -> str:
        """Advice if a request was refused for its time, also by an answer without a body; empty otherwise."""
        try:
            ahead = (datetime.now(UTC) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
        except (ValueError, TypeError):
            ahead = 0.0
        wrong = status in (400, 401, 403) and abs(ahead) > _SKEW_SECONDS
        if code not in _CLOCK_CODES and not wrong:
            return ""
        side = "ahead of" if ahead > 0 else "behind"
        by = f"{duration_text(abs(ahead))} {side} the server's" if wrong else "not the server's"
        return f"this machine's clock is {by}: set it by NTP, then run again"

    def _checksum_hint(self, operation: str, code: str, status: int, said: str) -> str:
        """Advice if a server seems not to support boto3's checksums; empty for other errors."""
        suspect = (
            code in _CHECKSUM_CODES
            or status in (411, 501)
            or (400 <= status < 500 and status not in (404, 409, 412) and _CHECKSUM_WORDS.search(said))
        )
        if operation not in _SENDING or not suspect:
            return ""
        if getattr(self._client.meta.config, "request_checksum_calculation", None) == "when_required":
            if code == "NotImplemented" or status == 501:
                return "it seems not to support conditional writes, which are needed; use another store"
            return ""
        first = "check AWS_SECRET_ACCESS_KEY; if it is right, " if code == "SignatureDoesNotMatch" else ""
        return (
            f"{first}it may not support the checksums that boto3 sends: set {_WHEN_REQUIRED}, then run again"
        )

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
