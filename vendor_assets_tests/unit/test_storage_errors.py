"""What libraries and the operating system say about a store arrives as our own errors, on one line."""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as foreign
import pytest
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from urllib3.exceptions import HTTPError, ProtocolError

from vendor_assets import turns
from vendor_assets.errors import (
    ObjectConflictError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.s3 import S3Store
from vendor_assets.turns import turn
from vendor_assets_tests.support.s3 import without_aws_environment

pytestmark = pytest.mark.usefixtures("clean_aws_environment")

ENDPOINT = "http://127.0.0.1:1"
SECRET = "very-secret"


@pytest.fixture(scope="module")
def session() -> boto3.session.Session:
    """One session: reading boto3's models is slow."""
    with without_aws_environment():
        return boto3.session.Session()


@pytest.fixture
def client(session: boto3.session.Session) -> Any:
    """A boto3 client that is never allowed to send."""
    return session.client(
        "s3",
        endpoint_url=ENDPOINT,
        aws_access_key_id="key",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"mode": "standard", "max_attempts": 1}),
    )


@pytest.fixture
def stub(client: Any) -> Iterator[Stubber]:
    """The client's answers; all of them must be asked for."""
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EACCES, "no permission"),
        (errno.EPERM, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EXDEV, "different file systems"),
        (errno.EIO, "check the disk"),
        (errno.EMFILE, "check the disk"),
        (errno.ENOENT, "check the disk"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_every_error_of_the_system_is_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str, call: str
) -> None:
    """Wherever a write fails, the message names the store and the remedy, and the old object stays."""
    store = FolderStore(tmp_path)
    store.put("key", b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        if call == "replace":
            patch.setattr(Path, "replace", fail)
        with pytest.raises(StorageUnavailableError, match=said) as caught:
            store.put("key", b"new")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.get("key") == b"old"
    assert list((tmp_path / ".store" / "writing").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (403, "AccessDenied", StorageUnavailableError, "AWS_SECRET_ACCESS_KEY"),
        (403, "InvalidAccessKeyId", StorageUnavailableError, "AWS_SECRET_ACCESS_KEY"),
        (403, "SignatureDoesNotMatch", StorageUnavailableError, "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", StorageUnavailableError, "AWS_SECRET_ACCESS_KEY"),
        (404, "NoSuchBucket", StorageUnavailableError, "create it"),
        (404, "NoSuchKey", ObjectNotFoundError, "does not exist"),
        (412, "PreconditionFailed", ObjectConflictError, "read it again"),
        (409, "ConditionalRequestConflict", ObjectConflictError, "read it again"),
        (301, "PermanentRedirect", StorageUnavailableError, "check the server"),
        (500, "InternalError", StorageUnavailableError, "check the server"),
        (503, "SlowDown", StorageUnavailableError, "check the server"),
        (507, "InsufficientStorage", StorageUnavailableError, "check the server"),
    ],
)
def test_every_answer_of_a_server_is_translated(
    client: Any, stub: Stubber, status: int, code: str, kind: type[StorageError], said: str
) -> None:
    """Each error answer is one of ours, on one line, with what to do."""
    stub.add_client_error("get_object", code, "because\nof this", http_status_code=status)
    with pytest.raises(kind, match=said) as caught:
        S3Store(client, "bucket", "prefix").get("key")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operation", "code", "hours", "said"),
    [
        (
            "get_object",
            "RequestTimeTooSkewed",
            -2,
            "this machine's clock is 2 h ahead of the server's: set it by NTP",
        ),
        (
            "get_object",
            "RequestTimeTooSkewed",
            3,
            "this machine's clock is 3 h behind the server's: set it by NTP",
        ),
        (
            "get_object",
            "RequestTimeTooSkewed",
            None,
            "this machine's clock is not the server's: set it by NTP",
        ),
        ("head_object", "403", -2, "this machine's clock is 2 h ahead of the server's: set it by NTP"),
        ("get_object", "AccessDenied", 0, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_wrong_clock_is_not_taken_for_a_wrong_key(
    client: Any, stub: Stubber, operation: str, code: str, hours: float | None, said: str
) -> None:
    """The message names the clock, also where the answer has no body, and by how much where the server says it."""
    there = datetime.now(UTC) + timedelta(hours=hours or 0)
    headers = {} if hours is None else {"date": format_datetime(there, usegmt=True)}
    stub.add_client_error(operation, code, http_status_code=403, response_meta={"HTTPHeaders": headers})
    with pytest.raises(StorageUnavailableError, match=said) as caught:
        store = S3Store(client, "bucket", "prefix")
        store.head("key") if operation == "head_object" else store.get("key")
    assert ("AWS_SECRET" in str(caught.value)) == (hours == 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (foreign.EndpointConnectionError(endpoint_url=ENDPOINT), "does not answer"),
        (foreign.ConnectTimeoutError(endpoint_url=ENDPOINT), "does not answer"),
        (foreign.ReadTimeoutError(endpoint_url=ENDPOINT), "does not answer"),
        (foreign.ConnectionClosedError(endpoint_url=ENDPOINT), "does not answer"),
        (foreign.SSLError(endpoint_url=ENDPOINT, error="bad\ncertificate"), "does not answer"),
        (foreign.ProxyConnectionError(proxy_url=ENDPOINT), "does not answer"),
        (foreign.HTTPClientError(error="broken"), "does not answer"),
        (foreign.NoCredentialsError(), "no complete credentials"),
        (
            foreign.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            "no complete cred",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_silence_of_a_server_is_translated(client: Any, error: Exception, said: str) -> None:
    """Each error of boto3 itself is one of ours, on one line, naming no secret."""

    def fail(**_: object) -> None:
        raise error

    client.meta.events.register("before-send.s3", fail)
    store = S3Store(client, "bucket", "prefix")
    for operation in (lambda: store.get("key"), lambda: store.put("key", b"1"), lambda: list(store.list(""))):
        with pytest.raises(StorageUnavailableError, match=said) as caught:
            operation()
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)


def _answer(data: bytes, length: int | None = None, **more: str) -> dict[str, Any]:
    size = len(data) if length is None else length
    return {"Body": StreamingBody(io.BytesIO(data), size), "ETag": '"e"', "ContentLength": size, **more}


def test_a_body_that_breaks_off_is_fetched_again(client: Any, stub: Stubber) -> None:
    """Half an answer is never taken for an object."""
    for data in (b"wh", b""):
        stub.add_response("get_object", _answer(data, 5), {"Bucket": "bucket", "Key": "key"})
    stub.add_response("get_object", _answer(b"whole"), {"Bucket": "bucket", "Key": "key"})
    assert S3Store(client, "bucket").get("key") == b"whole"


def test_a_body_that_always_breaks_off_is_an_error(client: Any, stub: Stubber) -> None:
    """After some tries a broken answer is an unavailable store."""
    for _ in range(3):
        stub.add_response("get_object", _answer(b"wh", 5), {"Bucket": "bucket", "Key": "key"})
    with pytest.raises(StorageUnavailableError, match="does not answer"):
        S3Store(client, "bucket").get("key")


@pytest.mark.parametrize("times", [2, 3])
def test_any_answer_that_breaks_off_is_asked_for_again(
    client: Any, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """boto3 reads listings and what a write brings without a second attempt; nobody's address is wrong then."""
    page = {"Key": "prefix/a", "Size": 1, "ETag": '"e"', "LastModified": datetime.now(UTC)}
    answers = {
        "ListObjectsV2": {"Contents": [page], "IsTruncated": False},
        "PutObject": {"ETag": '"e"'},
        "HeadObject": {"ETag": '"e"', "ContentLength": 1, "LastModified": datetime.now(UTC)},
        "DeleteObject": {},
    }
    asked: Counter[str] = Counter()

    def answer(operation: str, _: Any) -> Any:
        asked[operation] += 1
        if asked[operation] <= times:
            raise ProtocolError("Connection broken: ConnectionResetError(104)")
        return answers[operation]

    monkeypatch.setattr(client, "_make_api_call", answer)
    store = S3Store(client, "bucket", "prefix")
    for ask in (
        lambda: list(store.list("")),
        lambda: store.put("a", b"1"),
        lambda: store.head("a"),
        lambda: store.delete("a"),
    ):
        with (
            nullcontext()
            if times == 2
            else pytest.raises(StorageUnavailableError, match=r"does not answer \(")
        ):
            ask()
    assert set(asked.values()) == {3}


def test_a_list_of_several_pages_is_whole(client: Any, stub: Stubber) -> None:
    """Each page names the next; a server that names the same page again is no S3."""
    item = {"Size": 1, "ETag": '"e"', "LastModified": datetime.now(UTC)}
    for token, following in ((None, "1"), ("1", "2"), ("2", None), (None, "1"), ("1", "1")):
        more = {"NextContinuationToken": following} if following else {}
        found = {"Contents": [item | {"Key": f"k{token}"}], "IsTruncated": following is not None, **more}
        asked = {"Bucket": "bucket", "Prefix": "", **({"ContinuationToken": token} if token else {})}
        stub.add_response("list_objects_v2", found, asked)
    assert [info.key for info in S3Store(client, "bucket").list("")] == ["k1", "k2", "kNone"]
    with pytest.raises(StorageUnavailableError, match="never ends"):
        list(S3Store(client, "bucket").list(""))


def test_a_replaced_object_is_not_read_further(client: Any, stub: Stubber) -> None:
    """Every range of an opened object is asked for with the etag of its first, and a new version is an error."""
    size = 10_000_000
    tail = _answer(b"t" * 1000, ContentRange=f"bytes {size - 1000}-{size - 1}/{size}")
    stub.add_response("get_object", tail, {"Bucket": "bucket", "Key": "key", "Range": ANY})
    ranged = {"Bucket": "bucket", "Key": "key", "Range": ANY, "IfMatch": '"e"'}
    stub.add_client_error("get_object", "PreconditionFailed", http_status_code=412, expected_params=ranged)
    stub.add_client_error("get_object", "NoSuchKey", http_status_code=404, expected_params=ranged)
    with S3Store(client, "bucket").open("key") as file:
        for _ in range(2):
            file.seek(0)
            with pytest.raises(ObjectConflictError, match="was replaced or deleted"):
                file.read(10)


def test_an_unconditional_write_never_conflicts(client: Any, stub: Stubber) -> None:
    """A server that refuses a write without a condition is unavailable; nobody has won against us."""
    stub.add_client_error("put_object", "OperationAborted", http_status_code=409)
    stub.add_client_error("head_object", "404", http_status_code=404)
    stub.add_response("list_objects_v2", {"KeyCount": 0})
    with pytest.raises(StorageUnavailableError, match="gave up the write"):
        S3Store(client, "bucket").put("key", b"1")


def test_another_writers_object_is_a_conflict(client: Any, stub: Stubber) -> None:
    """A refused conditional write is a conflict when the object bears another write's id."""
    head = {
        "ETag": '"other"',
        "ContentLength": 1,
        "LastModified": datetime.now(UTC),
        "Metadata": {"write-id": "x"},
    }
    stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    stub.add_response("head_object", head)
    with pytest.raises(ObjectConflictError, match="exists already"):
        S3Store(client, "bucket").put("key", b"1", if_absent=True)


def test_parts_that_cannot_be_thrown_away_hide_no_error(client: Any, stub: Stubber) -> None:
    """When the server is away while an upload is aborted, the block's own exception still passes through."""
    stub.add_response("create_multipart_upload", {"UploadId": "u"})
    stub.add_response("upload_part", {"ETag": '"p"'})
    stub.add_client_error("abort_multipart_upload", "InternalError", http_status_code=500)
    with pytest.raises(ZeroDivisionError), S3Store(client, "bucket").writer("key") as sink:
        sink.write(b"x" * (9 << 20))
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match"),
        (400, "InvalidDigest", "The Content-MD5 you specified is not valid."),
        (411, "MissingContentLength", "You must provide the Content-Length HTTP header."),
        (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
        (403, "SignatureDoesNotMatch", "The request signature we calculated does not match"),
        (400, "InvalidArgument", "x-amz-checksum-crc32 is not supported"),
        (400, "InvalidRequest", "unsupported x-amz-trailer"),
    ],
)
def test_a_server_that_does_not_know_checksums_is_told_how_to_do_without(
    client: Any, stub: Stubber, status: int, code: str, message: str
) -> None:
    """What such servers answer to a write names the two variables, not credentials or the address."""
    stub.add_client_error("put_object", code, message, http_status_code=status)
    with pytest.raises(StorageUnavailableError) as raised:
        S3Store(client, "bucket").put("a", b"1")
    assert "AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in str(raised.value)
    assert "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_secret_is_no_question_of_checksums(client: Any, stub: Stubber) -> None:
    """A signature that is refused on a read is the credentials'."""
    stub.add_client_error("get_object", "SignatureDoesNotMatch", http_status_code=403)
    with pytest.raises(StorageUnavailableError, match="check AWS_ACCESS_KEY_ID") as raised:
        S3Store(client, "bucket").get("a")
    assert "CHECKSUM" not in str(raised.value)


def test_without_checksums_a_501_is_about_conditions(session: boto3.session.Session) -> None:
    """Where the variables are set already, the next suspect is named."""
    config = Config(request_checksum_calculation="when_required", retries={"max_attempts": 0})
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = session.client("s3", endpoint_url=ENDPOINT, config=config, **keys)
    with Stubber(client) as stubber:
        stubber.add_client_error("put_object", "NotImplemented", http_status_code=501)
        with pytest.raises(StorageUnavailableError, match="conditional writes"):
            S3Store(client, "bucket").put("a", b"1", if_absent=True)


@pytest.mark.parametrize(
    "error",
    [
        ResponseParserError("Unable to parse response (no element found), invalid XML received: b'<html>'"),
        HTTPError("chunk of a negative size"),
        KeyError("Buckets"),
        ValueError("time data 'soon' does not match"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_answer_that_is_no_s3_is_one_line(
    client: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What boto3's parsers raise for a web page or garbage names the endpoint and what to correct."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(client, "_make_api_call", fail)
    store = S3Store(client, "bucket")
    for ask in (
        lambda: store.get("a"),
        lambda: store.put("a", b"1"),
        lambda: list(store.list("")),
        lambda: store.head("a"),
    ):
        with pytest.raises(
            StorageUnavailableError, match=r"does not answer like S3 .*; correct AWS_ENDPOINT_URL"
        ):
            ask()


def test_an_answer_without_an_etag_is_one_line(client: Any, stub: Stubber) -> None:
    """Conditions cannot hold without one."""
    stub.add_response("put_object", {})
    with pytest.raises(StorageUnavailableError, match="put_object without ETag"):
        S3Store(client, "bucket").put("a", b"1")


def test_a_checksum_that_boto3_does_not_find_is_no_question_of_the_address(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response whose checksum does not hold names the variables."""

    def fail(*_: Any, **__: Any) -> Any:
        raise foreign.FlexibleChecksumError(error_msg="Expected checksum x did not match")

    monkeypatch.setattr(client, "_make_api_call", fail)
    with pytest.raises(StorageUnavailableError, match="AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"):
        S3Store(client, "bucket").get("a")


def test_others_compute_while_a_server_is_silent(client: Any) -> None:
    """A thread gives its turn to others as long as a request, or a pause before another attempt, is under way."""
    computing = turns._free.locked
    store, seen = S3Store(client, "bucket"), []

    def silent(**_: Any) -> None:
        seen.append(computing())
        raise foreign.ReadTimeoutError(endpoint_url=ENDPOINT)

    def pause(**_: Any) -> float:
        seen.append(computing())
        return 0.0 if len(seen) < 4 else False

    client.meta.events.register("before-send.s3", silent)
    client.meta.events.register_first("needs-retry.s3", pause)
    with turn():
        with pytest.raises(StorageUnavailableError):
            store.get("a")
        assert computing()
    assert not computing()
    assert seen == [False] * len(seen)
    assert len(seen) >= 4
