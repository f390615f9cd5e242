"""The loggers of this package."""

from __future__ import annotations

import contextlib
import logging
from typing import Any


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
            super().log(level, msg, *args, **kwargs)


def get_logger(name: str) -> Logger:
    """The logger of a module."""
    return Logger(logging.getLogger(name), {})
