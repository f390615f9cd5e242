"""What reaches a terminal: nothing that it would obey, and nothing that it cannot write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from vendor_assets.presentable import visible


class Visible:
    """A stream that shows what a terminal would obey: escape sequences, marks of direction, halves of surrogates.

    A net below whatever names and messages have been made presentable one by one. Line ends and tabs stay.

    Args:
        stream: Where the text goes.
    """

    def __init__(self, stream: Any) -> None:
        self.plain = stream

    def write(self, text: str) -> int:
        """Write text, lines of it or parts of lines."""
        shown = visible(text)
        try:
            self.plain.write(shown)
        except UnicodeEncodeError as error:
            # A terminal of few letters: what it has not is shown by its number.
            self.plain.write(shown.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self.plain, name)


@contextmanager
def visible_output() -> Iterator[None]:
    """While the block lasts, standard output and standard error are such streams."""
    with redirect_stdout(Visible(sys.stdout)), redirect_stderr(Visible(sys.stderr)):
        yield
