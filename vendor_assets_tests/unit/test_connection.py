"""Whatever bytes a server sends: an answer or one of our errors, within the deadline, the sizes and little time."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendor_assets.client import connection as connection_module
from vendor_assets.client.connection import Connection
from vendor_assets.client.heads import PlainHead
from vendor_assets.client.unpacking import STEP_BYTES, Unpacker
from vendor_assets.client.wording import LONGEST, words_of
from vendor_assets.errors import VendorError, VendorProtocolError, VendorUnavailableError
from vendor_assets.vendors.base import Response

MOST = 100_000


def ask(said: bytes, *, seconds: float = 60.0) -> Response:
    """Ask a server that says these bytes and hangs up."""
    ours, theirs = socket.socketpair()

    def speak() -> None:
        # Who has read enough hangs up.
        with suppress(OSError):
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)

    # More than a socket holds is sent while it is read.
    speaker = threading.Thread(target=speak) if len(said) > 30_000 else None
    connection = Connection(ours)
    try:
        if speaker is None:
            theirs.sendall(said)
            theirs.shutdown(socket.SHUT_WR)
        else:
            speaker.start()
        until = time.monotonic() + seconds
        return connection.ask("/x", [("Host", "h")], until=until, max_body_bytes=MOST)
    finally:
        connection.close()
        if speaker is not None:
            speaker.join()
        theirs.close()


def head(*lines: str, status: str = "200 OK") -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


HOSTILE: dict[str, bytes] = {
    "endless header line": head("X: " + "x" * 2_000_000),
    "endless reason": head(status="200 " + "x" * 200_000),
    "header flood": head(*["A: b"] * 50_000),
    "NUL in a header": head("A: \0"),
    "blank in a name": head("A b: c"),
    "no colon": head("nonsense"),
    "HTTP/0.9": b"<html>hello</html>",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64",
    "status of two digits": head(status="20 OK"),
    "status 000": head(status="000 Oh"),
    "length below zero": head("Content-Length: -5") + b"12345",
    "length with a sign": head("Content-Length: +5") + b"12345",
    "length with an underscore": head("Content-Length: 1_0") + b"1234567890",
    "length in another script": head("Content-Length: \xd9\xa5") + b"12345",
    "length beyond all": head("Content-Length: " + "9" * 5000) + b"12345",
    "lengths that differ": head("Content-Length: 5, 6") + b"12345",
    "chunk below zero": head("Transfer-Encoding: chunked") + b"-1\r\nx\r\n0\r\n\r\n",
    "chunk with a prefix": head("Transfer-Encoding: chunked") + b"0x1\r\nx\r\n0\r\n\r\n",
    "chunk with an underscore": head("Transfer-Encoding: chunked") + b"1_0\r\n1234567890123456\r\n0\r\n\r\n",
    "chunk beyond all": head("Transfer-Encoding: chunked") + b"f" * 5000 + b"\r\nx\r\n0\r\n\r\n",
    "chunk of nothing": head("Transfer-Encoding: chunked") + b"\r\nx\r\n0\r\n\r\n",
    "endless extension": head("Transfer-Encoding: chunked") + b"1;" + b"x" * 500_000 + b"\r\nx\r\n0\r\n\r\n",
    "endless trailers": head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n" + b"A: b\r\n" * 50_000,
    "another coding": head("Transfer-Encoding: gzip, chunked") + b"1\r\nx\r\n0\r\n\r\n",
    "interim for ever": head(status="103 Early Hints") * 10_000,
    "interim with a long head": head("X: " + "x" * 100_000, status="103 Early Hints"),
    "upgrade": head("Upgrade: h2c", "Connection: Upgrade", status="101 Switching Protocols"),
    "nothing": b"",
    "line ends": b"\r\n" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_http_is_an_error_of_ours(name: str) -> None:
    """Each way to break the rules of HTTP ends in one error for that request, on one line."""
    with pytest.raises(VendorUnavailableError) as raised:
        ask(HOSTILE[name])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


_ONCE = gzip.compress(b" " * 5_000_000, mtime=0)

PACKED: dict[str, tuple[str, bytes]] = {
    "bomb": ("gzip", _ONCE),
    "bomb in a bomb": ("gzip, gzip", gzip.compress(gzip.compress(b"\0" * 30_000_000, 1), 1)),
    "three layers": ("gzip, gzip, gzip", b"x"),
    "empty members": ("gzip", gzip.compress(b"", mtime=0) * 20_000),
    "empty members, packed": ("gzip, gzip", gzip.compress(gzip.compress(b"", mtime=0) * 50_000)),
    "cut short": ("gzip", gzip.compress(b"{}" * 1000, mtime=0)[:-9]),
    "nothing but a head": ("gzip", gzip.compress(b"", mtime=0)[:10]),
    "something behind": ("gzip", gzip.compress(b"{}", mtime=0) + b"garbage"),
    "raw, cut short": ("deflate", zlib.compress(b"{}" * 1000)[2:-9]),
    "one byte": ("deflate", b"x"),
    "something behind zlib": ("deflate", zlib.compress(b"{}") + b"x"),
    "Brotli": ("br", b"\x0b\x01\x80{}\x03"),
    "Zstandard": ("zstd", b"(\xb5/\xfd"),
    "unheard of": ("x" * 10_000, b"{}"),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_body_that_cannot_be_unpacked_is_an_error_of_ours(name: str) -> None:
    """Bombs, packings in packings, what was not asked for and what breaks off end before they cost much."""
    coding, body = PACKED[name]
    started = time.process_time()
    with pytest.raises(VendorProtocolError) as raised:
        ask(head(f"Content-Encoding: {coding}", f"Content-Length: {len(body)}") + body)
    assert raised.value.status == 200
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300
    # A bound on work and not a measure: unpacked whole, the second would take many times as long.
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"{}", mtime=0)),
        ("x-gzip", gzip.compress(b"{", mtime=0) + gzip.compress(b"}", mtime=0) + b"\0" * 20),
        ("GZIP", gzip.compress(b"{}", mtime=0)),
        ("deflate", zlib.compress(b"{}")),
        ("deflate", zlib.compress(b"{}")[2:-4]),
        ("identity", b"{}"),
        ("deflate, gzip", gzip.compress(zlib.compress(b"{}"), mtime=0)),
    ],
)
def test_a_body_is_unpacked_whatever_its_packing(coding: str, body: bytes) -> None:
    """Each form of the codings that were asked for, however it is cut into pieces."""
    assert ask(head(f"Content-Encoding: {coding}", f"Content-Length: {len(body)}") + body).body == b"{}"
    for size in (1, 2, 3):
        unpacker = Unpacker(coding, MOST)
        pieces = [piece for at in range(0, len(body), size) for piece in unpacker.feed(body[at : at + size])]
        unpacker.finish()
        assert b"".join(pieces) == b"{}"


def test_between_two_steps_of_unpacking_the_time_is_looked_at() -> None:
    """A bomb comes in steps of bounded size, so that deadline and size end it early."""
    assert max(map(len, Unpacker("gzip", 1 << 30).feed(_ONCE))) <= STEP_BYTES
    packed = gzip.compress(_ONCE)
    assert max(map(len, Unpacker("gzip, gzip", 1 << 30).feed(packed))) <= STEP_BYTES
    with pytest.raises(TimeoutError):
        ask(head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed, seconds=-1.0)


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
def test_an_errors_status_counts_whatever_its_body_is(status: int) -> None:
    """A body that breaks off, cannot be unpacked or never ends does not hide what the status and the headers say."""
    for lines, body in (
        (["Content-Length: 100"], b"short"),
        (["Content-Encoding: gzip"], b"not gzip"),
        (["Content-Encoding: br", "Content-Length: 1"], b"x"),
        (["Transfer-Encoding: chunked"], b"zz\r\n"),
        ([], b"x" * 1_000_000),
    ):
        answer = ask(head("Retry-After: 7", *lines, status=f"{status} Oh") + body)
        assert (answer.status, answer.headers["retry-after"]) == (status, "7")
        assert len(answer.body) <= 65_536


_LINE = st.one_of(
    st.sampled_from(
        ["Content-Length: 3", "Content-Length: 0", "Content-Length: x", "Connection: close", " folded"]
    ),
    st.sampled_from(
        ["Transfer-Encoding: chunked", "Content-Encoding: gzip", "Content-Encoding: deflate, gzip", "A: b"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=30),
)
_STATUS = st.one_of(
    st.integers(0, 999).map("{:03d} X".format), st.text(st.characters(max_codepoint=255), max_size=9)
)
_HEAD = st.builds(lambda status, lines: head(*lines, status=status), _STATUS, st.lists(_LINE, max_size=5))
_BODY = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"3\r\nabc\r\n0\r\n\r\n",
            b"-3\r\nabc",
            gzip.compress(b"abc"),
            zlib.compress(b"abc"),
            b"0\r\nA: b\r\n\r\n",
        ]
    ),
)


@settings(max_examples=200)
@given(st.lists(_HEAD, max_size=3), _BODY)
def test_whatever_comes_ends_in_an_answer_or_an_error_of_ours(heads: list[bytes], body: bytes) -> None:
    """The bytes of a whole exchange: nothing else comes out, and an answer's status is one that HTTP has."""
    with suppress(VendorError, ConnectionError):
        answer = ask(b"".join(heads) + body)
        assert 200 <= answer.status <= 999
        assert len(answer.body) <= MOST


_FIRSTS = [
    "200 OK", "200 ", "200", "204 No Content", "304 Not Modified", "404 Not Found", "103 Hints", "600 X", "200 \xe9"
]  # fmt: skip
_SIZES = [
    "Content-Length: 3", "content-length:3", "Content-Length: 03", "Content-Length: 3 ", "Content-Length: 3, 3",
    "Content-Length: 9", "Content-Length: 0", "Content-Length: \xd9\xa3", "Content-Length:", "A: b",
]  # fmt: skip
_FIELDS = [
    "Content-Length: 3", "Connection: close", "Connection: Keep-Alive", "Connection: Upgrade",
    "Transfer-Encoding: chunked", "Content-Encoding: gzip", "A: b", "A:", "A:  b\t", "A : b", " folded", "\tfolded",
    "A: b\rC: d", "A: b\nC: d", "A: \x7f", "A: \xff", "Date: Sun, 29 Nov 2026 10:00:00 GMT",
]  # fmt: skip
_BODIES = ["", "a", "abc", "abcd", "abcHTTP/1.1 200 OK\r\n\r\n"]


def _outcome(said: bytes) -> tuple[object, ...]:
    """All that tells of an exchange: the answer or the error, and whether the connection is used again."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.sendall(said)
    theirs.shutdown(socket.SHUT_WR)
    try:
        until = time.monotonic() + 60
        answer = connection.ask("/x", [("Host", "h")], until=until, max_body_bytes=MOST)
        found: tuple[object, ...] = (answer.status, answer.headers, answer.body, connection.reusable)
    except VendorError as error:
        found = (type(error), error.status)
    finally:
        connection.close()
        theirs.close()
    return *found, connection.headers, connection.polluted


def test_a_plain_head_says_what_any_head_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read without h11 is what h11 reads: the answer, its headers, its end, and what is left over."""
    heads = [head(_SIZES[0], status=first) for first in _FIRSTS]
    heads += [head(size, *fields) for size in _SIZES for fields in ([], *([field] for field in _FIELDS))]
    exchanges = [said + body.encode() for said in heads for body in _BODIES]
    quick = [_outcome(said) for said in exchanges]
    monkeypatch.setattr(connection_module.PlainHead, "read", lambda data: None)
    for said, outcome in zip(exchanges, quick, strict=True):
        assert outcome == _outcome(said), said


def test_what_most_servers_write_is_plain() -> None:
    """The usual head needs no parser, and is told apart from one that has not come whole."""
    usual = head(
        "Content-Type: application/json", "Date: Sun, 29 Nov 2026 10:00:00 GMT", "Content-Length: 12"
    )
    found = PlainHead.read(usual + b"{}")
    assert found is not None
    assert (found.status, found.size, found.length) == (200, len(usual), 12)
    assert list(found.headers) == ["content-type", "date", "content-length"]
    assert not any(PlainHead.read(usual[:end]) for end in range(len(usual)))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_answer_may_come_in_pieces(size: int) -> None:
    """Wherever a plain answer is cut on its way, it is whole in the end, and the connection is used again."""
    said = head("Content-Length: 300") + b"x" * 300
    ours, theirs = socket.socketpair()
    connection = Connection(ours)

    def speak() -> None:
        for at in range(0, len(said), size):
            theirs.sendall(said[at : at + size])

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        until = time.monotonic() + 60
        answer = connection.ask("/x", [("Host", "h")], until=until, max_body_bytes=MOST)
        assert answer.body == b"x" * 300
        assert connection.reusable
        assert connection.silent()
    finally:
        speaker.join()
        connection.close()
        theirs.close()


def test_a_server_that_says_nothing_is_waited_for_until_the_deadline() -> None:
    """Before the head and within a body, the time of the whole attempt is what counts."""
    for said in (b"", head("Content-Length: 5"), head("Content-Length: 5") + b"abc"):
        ours, theirs = socket.socketpair()
        connection = Connection(ours)
        theirs.sendall(said)
        with pytest.raises(TimeoutError):
            connection.ask("/x", [("Host", "h")], until=time.monotonic() + 0.05, max_body_bytes=MOST)
        assert not connection.reusable
        connection.close()
        theirs.close()


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/a b", [("Host", "h")]),
        ("/a\r\nX: y", [("Host", "h")]),
        ("/é", [("Host", "h")]),
        ("", [("Host", "h")]),
        ("/x", [("Host", "h"), ("X-Api-Key", "a\r\nb")]),
        ("/x", [("Host", "h"), ("A b", "c")]),
        ("/x", []),
    ],
)
def test_a_request_that_http_cannot_carry_is_not_sent(target: str, fields: list[tuple[str, str]]) -> None:
    """Nothing of it reaches the server, on a new connection or a kept one, and the error does not show it."""
    for before in (False, True):
        ours, theirs = socket.socketpair()
        connection = Connection(ours)
        until = time.monotonic() + 60
        if before:
            theirs.sendall(head("Content-Length: 0"))
            connection.ask("/first", [("Host", "h")], until=until, max_body_bytes=MOST)
            theirs.recv(1000)
        with pytest.raises(VendorProtocolError, match="characters that HTTP cannot carry"):
            connection.ask(target, fields, until=until, max_body_bytes=MOST)
        connection.close()
        assert theirs.recv(1000) == b""
        theirs.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"title": "The API key provided is invalid"}}', "The API key provided is invalid"),
        (b'{"errors": ["Forbidden"]}', "Forbidden"),
        (b'{"status": "error", "errorType": "bad_data", "error": "parse error"}', "parse error"),
        (b'{"type": "about:blank", "title": "Bad", "detail": "No such day"}', "No such day"),
        (b'{"message": {"text": 1}, "code": 7}', ""),
        (b"[]", ""),
        (b'{"message": "half', '{"message": "half'),
        (b"no org id\n", "no org id"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body>", "502 Bad Gateway"),
        (b"<html><body><style>a{}</style><h1>Not &amp; here</h1></body></html>", "Not & here"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00", ""),
        (b"\xef\xbb\xbf{\"message\": \"with a mark\"}", "with a mark"),
        (b"", ""),
    ],
)  # fmt: skip
def test_the_words_for_people_are_found(body: bytes, words: str) -> None:
    """Of JSON the field that is meant for people, of HTML the title or the text, of a picture nothing."""
    assert words_of(body) == words


@settings(max_examples=60)
@given(st.binary(), st.text())
def test_words_are_always_presentable(body: bytes, text: str) -> None:
    """Whatever the body of an error is, what is shown of it is one short line."""
    for said in (
        body,
        text.encode("utf-8", "surrogatepass"),
        json.dumps({"error": {"message": text}}).encode(),
    ):
        words = words_of(said)
        assert len(words) <= LONGEST
        assert words.isprintable()


@pytest.mark.parametrize(
    "body",
    [b"[" * 16_000, b'{"error":' * 1700, b"<" * 16_000, b"<script" * 2000, b"<title" * 2000, b" " * 16_000],
)
def test_words_are_found_in_little_time(body: bytes) -> None:
    """Neither depth nor halves of tags make the search long."""
    assert len(words_of(body)) <= LONGEST
