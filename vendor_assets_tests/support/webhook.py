"""A webhook on loopback that records what comes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T0S3CR3T/hook"


class Webhook:
    """What a webhook received.

    Attributes:
        url: Where it listens; its path is a secret.
        received: Bodies, oldest first.
        status: What it answers.
    """

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.types: list[str] = []
        self.status = 200
        self.url = ""

    @property
    def texts(self) -> list[str]:
        """The messages."""
        return [document["text"] for document in self.received]


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A webhook while the block lasts."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == f"/{SECRET}":
                hook.received.append(json.loads(body))
                hook.types.append(self.headers["Content-Type"])
            self.send_response(hook.status)
            if hook.status == 302:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
