"""A server that speaks S3 and knows no conditions: whatever If-Match and If-None-Match say, the last writer wins."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class IgnorantS3(ThreadingHTTPServer):
    """Objects in memory; of S3 no more than a store's first steps need.

    Attributes:
        objects: By bucket and key.
        keeps_conditions: Whether it knows them after all, as the server that was there before.
        lists: Whether a listing has what was just written; else nothing.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.keeps_conditions = False
        self.lists = True
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Bodies come as they are, not in chunks with trailers.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }


class _Handler(BaseHTTPRequestHandler):
    server: IgnorantS3
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _held(self, key: str) -> dict[str, str]:
        tag = hashlib.md5(self.server.objects[key], usedforsecurity=False).hexdigest()
        return {"ETag": f'"{tag}"', "Last_Modified": formatdate(usegmt=True)}

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        key = unquote(parts.path)
        asked = parse_qs(parts.query)
        if "list-type" in asked:
            found = self._listed(key.rstrip("/") + "/", asked.get("prefix", [""])[0])
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
            self._answer(200, text.encode())
        elif key not in self.server.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._answer(200, self.server.objects[key], **self._held(key))

    def _listed(self, bucket: str, prefix: str) -> str:
        found = [key for key in self.server.objects if self.server.lists and key.startswith(bucket + prefix)]
        return "".join(
            f"<Contents><Key>{key.removeprefix(bucket)}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<ETag>{escape(self._held(key)['ETag'])}</ETag><LastModified>2026-11-20T00:00:00Z</LastModified></Contents>"
            for key in found
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        parts = urlsplit(self.path)
        key = unquote(parts.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        there = key in self.server.objects
        match = self.headers.get("If-Match")
        conflict = (there and "If-None-Match" in self.headers) or (
            match is not None and (not there or self._held(key)["ETag"] != match)
        )
        if conflict and self.server.keeps_conditions:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        elif "uploadId" in parse_qs(parts.query):
            self.server.objects[f"{key} part"] = body
            self._answer(200, **self._held(f"{key} part"))
        else:
            self.server.objects[key] = body
            self._answer(200, **self._held(key))

    def do_POST(self) -> None:
        key = unquote(urlsplit(self.path).path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "uploads" in urlsplit(self.path).query.split("="):
            self._answer(
                200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            )
        elif "If-None-Match" in self.headers and key in self.server.objects and self.server.keeps_conditions:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self.server.objects[key] = self.server.objects.pop(f"{key} part")
            tag = self._held(key)["ETag"]
            self._answer(
                200,
                f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>".encode(),
            )

    def do_DELETE(self) -> None:
        key = unquote(urlsplit(self.path).path)
        self.server.objects.pop(f"{key} part" if "uploadId" in self.path else key, None)
        self._answer(204)


@contextmanager
def ignorant_s3() -> Iterator[IgnorantS3]:
    """A server for as long as the block lasts."""
    with IgnorantS3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
