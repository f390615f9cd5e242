"""Progress of the work in the terminal, and stopping it early."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Self

from vendor_assets.cli.terminal import console
from vendor_assets.presentable import visible

QUIET_SECONDS: Final = 2.0
"""Work that takes less shows no progress."""
LINE_SECONDS: Final = 30.0
"""Time between lines when the output is not a terminal."""
RATE_SECONDS: Final = 15.0
"""The displayed rate is an average over this time."""
LANDING_SECONDS: Final = 10.0
"""So long a second Ctrl-C waits for the store to take what has been answered."""
_SAME_SECONDS: Final = 0.3
"""Two interrupts within this time are one Ctrl-C, that a wrapper like ``uv run`` has passed on as well."""
_WAITING: Final = b"stopping: waits for the calls in flight, for at most 30 s; Ctrl-C again ends at once\n"


class ProgressLine:
    """A bar on a terminal, elsewhere a line every half minute; nothing during the first two seconds."""

    def __init__(self, stream: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = console(stream)
        self._progress = Progress(
            BarColumn(24),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            auto_refresh=False,
            speed_estimate_period=RATE_SECONDS,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self._console.is_interactive,
        )
        self._pace = self._progress.add_task("", total=None, visible=False)
        self._bar = self._progress.add_task("", visible=False)
        self._run: Any = None
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        from rich.text import Text

        self._console.print(Text(visible(line)), soft_wrap=True)

    def _show(self) -> None:
        next_line = LINE_SECONDS
        while not self._stop.wait(0.25):
            passed = time.monotonic() - self._started
            text = self._update()
            if text is None or passed < QUIET_SECONDS:
                continue
            if self._console.is_interactive:
                self._progress.update(self._bar, visible=True, refresh=True)
            elif passed >= next_line:
                next_line = passed + LINE_SECONDS
                self.say(text)

    def _update(self) -> str | None:
        """Advance the bar; returns its text, None before anything is planned."""
        live = _live_harvesters()
        if not live:
            return None
        state = live[-1].progress
        done = state.calls_done
        if live[-1] is not self._run:
            self._run = live[-1]
            self._progress.reset(self._pace)
        # A separate task, because rich resets the speed whenever a total changes.
        self._progress.update(self._pace, completed=done)
        text = visible(state.text(self._progress.tasks[0].speed or 0.0))
        total = done + state.expected
        # Without a total the bar shows that something happens, not how far it is.
        known = total if state.foreseen else None
        self._progress.update(self._bar, completed=done, total=known, description=text)
        return text if total else None


@contextmanager
def terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM and a closed terminal stop the work like Ctrl-C; yields a function that tells whether one came.

    Dagster turns an interrupt into a failed run and continues, so the caller has to ask.
    """
    came = False

    def stop(_signal: int, _frame: object) -> NoReturn:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield lambda: came
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Like :func:`terminable`, for a harvest: the first Ctrl-C says what the end waits for, a second one ends at once.

    What has been answered lands in either case.
    """
    end_at_once = signal.getsignal(signal.SIGINT)
    with terminable() as stopped, _Interrupts(end_at_once):
        yield stopped


class _Interrupts:
    """Listens for signals in a thread of its own.

    It reads them from Python's wakeup descriptor: Dagster replaces their handlers while it works, and a handler has to
    wait for the main thread.
    """

    def __init__(self, end_at_once: Any) -> None:
        self._end_at_once = end_at_once
        self._first: float | None = None
        self._stopping: list[Any] = []
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="interrupts", daemon=True)
        self._before = -1

    def __enter__(self) -> None:
        self._before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        # One more, within the time of one Ctrl-C, may have thrown the main thread out of waiting.
        handler = signal.signal(signal.SIGINT, lambda *_: None)
        while any(harvester.waits_for_answers for harvester in self._stopping):
            time.sleep(0.05)
        self._land()
        signal.set_wakeup_fd(self._before)
        self._writing.close()
        self._thread.join()
        self._reading.close()
        signal.signal(signal.SIGINT, handler)

    def _listen(self) -> None:
        while numbers := self._reading.recv(64):
            for number in numbers:
                if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    self._heard(number)

    def _heard(self, number: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._stopping = now, _live_harvesters()
            if any(harvester.waits_for_answers for harvester in self._stopping):
                os.write(2, _WAITING)
        elif number == signal.SIGINT and now - self._first > _SAME_SECONDS and callable(self._end_at_once):
            landing = threading.Thread(target=self._land, daemon=True)
            landing.start()
            landing.join(LANDING_SECONDS)
            self._end_at_once(number, None)

    def _land(self) -> None:
        for harvester in self._stopping:
            harvester.land()


def _live_harvesters() -> list[Any]:
    """The harvesters of this process, without an import of what may not have been needed."""
    module = sys.modules.get("vendor_assets.harvest.harvester")
    return list(module.Harvester.live) if module else []
