"""Safe output: no control sequences from data, no characters that the terminal cannot encode."""

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
    """A stream that escapes control sequences, direction marks and lone surrogates; line ends and tabs stay.

    A second defence: names and messages are made presentable where they are printed.
    """

    def __init__(self, stream: Any) -> None:
        self.plain = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text, escaped."""
        self.plain.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the stream."""
        return getattr(self.plain, name)


@contextmanager
def visible_output() -> Iterator[None]:
    """Escape standard output and standard error."""
    with redirect_stdout(Visible(sys.stdout)), redirect_stderr(Visible(sys.stderr)):
        yield


def console(stream: Any) -> Console:
    """A rich console: colours and cursor movement on a terminal, elsewhere plain lines of any length.

    It bypasses :class:`Visible`, so give it text that is escaped already, as ``Text``, which has no markup.
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
    """Print a table whose first and last columns are text and the others numbers.

    Args:
        least: Minimum width of a column when the output is not a terminal.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=False)
    screen = console(sys.stdout)
    for at, head in enumerate(heads):
        # Columns may be narrow on a terminal, but nothing is cut off.
        width = 12 if at == 0 else 0 if screen.is_terminal else least
        side: Literal["left", "right"] = "right" if 0 < at < len(heads) - 1 else "left"
        table.add_column(head, justify=side, min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*(Text(presentable(cell, LONGEST_MESSAGE)) for cell in row))
    with screen.capture() as captured:
        screen.print(table)
    # Rich pads the last column.
    screen.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
