"""What reaches a terminal: nothing that it would obey but our own, and nothing that it cannot write."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Literal

from vendor_assets.errors import LONGEST_MESSAGE
from vendor_assets.presentable import presentable, visible

if TYPE_CHECKING:
    from rich.console import Console


class Visible:
    """A stream that shows what a terminal would obey: escape sequences, marks of direction, halves of surrogates.

    A net below whatever names and messages have been made presentable one by one. Line ends and tabs stay.

    Args:
        stream: Where the text goes.
    """

    def __init__(self, stream: Any) -> None:
        self.plain = stream
        if isinstance(stream, TextIOWrapper):
            # A terminal of few letters: what it has not is shown by its number.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text, lines of it or parts of lines."""
        self.plain.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self.plain, name)


@contextmanager
def visible_output() -> Iterator[None]:
    """While the block lasts, standard output and standard error are such streams."""
    with redirect_stdout(Visible(sys.stdout)), redirect_stderr(Visible(sys.stderr)):
        yield


def console(stream: Any) -> Console:
    """A console that may colour and move the cursor on a terminal, and elsewhere writes plain lines of any length.

    It writes past :class:`Visible`: whatever it is given is visible already, and a ``Text``, which has no markup.
    """
    from rich.console import Console

    terminal = stream.isatty()
    return Console(
        file=getattr(stream, "plain", stream),
        force_terminal=terminal,  # whatever FORCE_COLOR says
        force_interactive=None if terminal else False,
        width=None if terminal else sys.maxsize,
    )


def print_table(rows: Iterable[Sequence[object]], *heads: str, least: int = 6) -> None:
    """Print a table of any text: its first and its last column are words, those between are numbers.

    Args:
        rows: The cells.
        heads: What the columns are called.
        least: Characters of a column at least, where the output is no terminal.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    screen = console(sys.stdout)
    for at, head in enumerate(heads):
        # On a terminal as narrow as need be, but nothing is cut.
        width = 12 if at == 0 else 0 if screen.is_terminal else least
        side: Literal["left", "right"] = "right" if 0 < at < len(heads) - 1 else "left"
        table.add_column(head, justify=side, min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(presentable(cell, LONGEST_MESSAGE)) for cell in row))
    with screen.capture() as captured:
        screen.print(table)
    # Its last column is padded as well, for nobody.
    screen.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
