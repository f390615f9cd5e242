"""How far the work is, while it lasts; and how it ends early."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Self

from vendor_assets.presentable import visible

QUIET_SECONDS: Final = 2.0
"""What is over sooner shows no progress."""
LINE_SECONDS: Final = 30.0
"""Time between lines where the output is no terminal."""
RATE_SECONDS: Final = 15.0
"""The rate shown is that of this much of the past."""


class ProgressLine:
    """A bar on a terminal, a plain line every half minute elsewhere; silent below two seconds."""

    def __init__(self, stream: Any) -> None:
        # The bar moves the cursor, nothing else may.
        self._stream = getattr(stream, "plain", stream)
        self._terminal = stream.isatty()
        self._stop = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._lock = threading.Lock()
        self._past: deque[tuple[float, int]] = deque([(self._started, 0)])
        self._run: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        with self._lock:
            self._stream.write(("\r\033[K" if self._terminal else "") + visible(line) + "\n")
            self._stream.flush()

    def _show(self) -> None:
        next_line = LINE_SECONDS
        while not self._stop.wait(0.25):
            now = time.monotonic()
            text = self._text(now)
            passed = now - self._started
            if text is None or passed < QUIET_SECONDS:
                continue
            if self._terminal:
                with self._lock:
                    self._stream.write("\r\033[K" + visible(text))
                    self._stream.flush()
            elif passed >= next_line:
                next_line = passed + LINE_SECONDS
                self.say(text)

    def _text(self, now: float) -> str | None:
        module = sys.modules.get("vendor_assets.harvest.harvester")
        live = list(module.Harvester.live) if module else []
        if not live:
            return None
        state = live[-1].progress
        done = state.calls_done
        if live[-1] is not self._run:
            self._run, self._past = live[-1], deque([(now, done)])
        self._past.append((now, done))
        while self._past[0][0] < now - RATE_SECONDS:
            self._past.popleft()
        since, before = self._past[0]
        return _bar(state, (done - before) / (now - since) if now > since else 0.0)


def _bar(progress: Any, pace: float) -> str | None:
    """A bar and how far a run is; None before anything is planned."""
    expected = progress.calls_done + progress.expected
    if not expected:
        return None
    filled = int(24 * progress.calls_done / expected)
    return f"[{'#' * filled}{'-' * (24 - filled)}] {progress.text(pace)}"


@contextmanager
def terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM stop the work as Ctrl-C does: what has been answered is landed before the process ends.

    Dagster turns an interrupt into a failed run and goes on; that it came is remembered here.
    """
    came = False

    def stop(_signal: int, _frame: object) -> NoReturn:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: came
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
