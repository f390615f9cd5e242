"""A line of a log never ends the work."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from vendor_assets.logs import get_logger


class Away(logging.Handler):
    """Raises, as Dagster's handler does where its database is away."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError("too many retries")


@pytest.fixture
def away() -> Iterator[None]:
    handler = Away()
    logging.getLogger("vendor_assets").addHandler(handler)
    yield
    logging.getLogger("vendor_assets").removeHandler(handler)


@pytest.mark.usefixtures("away")
def test_a_line_that_cannot_be_kept_is_lost() -> None:
    """Whoever logs goes on, whatever the handlers of the run do."""
    get_logger("vendor_assets.budget").warning("the database is away: %s", "why")


def test_a_line_tells_who_wrote_it(caplog: pytest.LogCaptureFixture) -> None:
    """The record names the module that logged, not the package's logger."""
    get_logger("vendor_assets.budget").warning("the database is away: %s", "why")
    (record,) = caplog.records
    assert (record.filename, record.getMessage()) == ("test_logs.py", "the database is away: why")
