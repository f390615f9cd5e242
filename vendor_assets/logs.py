"""The loggers of this package."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final

from vendor_assets.errors import LONGEST_MESSAGE
from vendor_assets.presentable import presentable, visible

MOST_FRAMES: Final = 20
"""Frames of a traceback that are logged, the innermost ones."""
LONGEST_TRACE: Final = 20_000
"""Characters of a traceback that are logged."""


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines never end the work.

    Dagster keeps the lines of a run in its database, and raises in the midst of whoever logs where that is away:
    in the threads that renew a lease or keep the pace too.
    """

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log a line; one that cannot be kept is lost."""
        kwargs.setdefault("stacklevel", 2)
        # There is no better place to tell it.
        with contextlib.suppress(Exception):
            if self.isEnabledFor(level):
                told = [
                    argument if isinstance(argument, int | float) else _shown(argument) for argument in args
                ]
                error = kwargs.pop("exc_info", None)
                super().log(level, msg if not error else _traced(msg, error, told), *told, **kwargs)


def _shown(argument: Any) -> str:
    return presentable(argument, LONGEST_MESSAGE)


def _traced(msg: object, error: Any, told: Sequence[object]) -> str:
    """A line with the way to an error below it, which may tell what somebody else wrote."""
    if not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    way = "".join(traceback.format_exception(error, limit=-MOST_FRAMES)) if error is not None else ""
    shown = visible(way[:LONGEST_TRACE])
    # With arguments the whole is a format.
    return f"{msg}\n{shown.replace('%', '%%') if told else shown}"


def get_logger(name: str) -> Logger:
    """The logger of a module."""
    return Logger(logging.getLogger(name), {})
