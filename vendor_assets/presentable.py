"""Text that somebody else wrote, made presentable: on one line, bounded, and without anything that a terminal obeys.

A vendor's ids, names, field names and messages are hostile input. Whatever shows one of them (the terminal, a log, an
event, metadata, Markdown, a notebook, a message to people) shows what :func:`presentable` makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

LONGEST: Final = 300
"""Characters of one text, where nothing else is said."""
MOST: Final = 50
"""Items of a list or of a mapping, where nothing else is said."""

_BLANKS: Final = re.compile(r"\s+")
_PLAIN: Final = re.compile(r"[ -~]*")


def presentable(text: object, longest: int = LONGEST) -> str:
    r"""Any text on one line of at most ``longest`` characters; never raises, and looks at no more than it shows.

    Blanks of every kind, line ends among them, become one blank. Control characters (those that begin an escape
    sequence among them), characters without a shape of their own (zero-width, right-to-left overrides, private use)
    and halves of surrogate pairs are shown as ``\x1b`` or ``\u202e``. What is cut off ends in ``…``.
    """
    try:
        whole = text if isinstance(text, str) else str(text)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be shown and not to end the work
        whole = f"<{type(text).__name__} that cannot be shown: {type(error).__name__}>"
    # Of a text of megabytes only the beginning is looked at; blanks that are folded may make it shorter.
    head = whole[: 4 * longest]
    line = _BLANKS.sub(" ", head).strip()
    if not _PLAIN.fullmatch(line):
        line = "".join(letter if letter.isprintable() else _escaped(letter) for letter in line[: 2 * longest])
    cut = len(whole) > len(head) or len(line) > longest
    return line if not cut else f"{line[: max(0, longest - 1)]}…"


def visible(text: str) -> str:
    """Text of any length and of many lines in which everything is seen; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else _escaped(letter) for letter in text
    )


def counted(number: object, one: str, many: str = "") -> str:
    """A number and the word for it: ``1 call``, ``2,000 calls``; ``many`` if adding an ``s`` is not enough."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def presentable_names(names: Iterable[object], most: int = 10) -> str:
    """Names with commas between, the first ``most`` of them, and how many there are beside."""
    every = list(names)
    shown = ", ".join(presentable(name, 60) for name in every[:most])
    more = len(every) - most
    return f"{shown} and {more:,} more" if more > 0 else shown


def presentable_values(value: Any, longest: int = LONGEST, most: int = MOST) -> Any:
    """A value of JSON with every text in it presentable, keys too, and no list or mapping longer than ``most``."""
    if isinstance(value, Mapping):
        shown = {
            presentable(key, 100): presentable_values(held, longest, most)
            for key, held in list(value.items())[:most]
        }
        return shown | ({"…": f"{len(value) - most} more"} if len(value) > most else {})
    if isinstance(value, list | tuple | set | frozenset):
        items = [presentable_values(held, longest, most) for held in list(value)[:most]]
        return items + ([f"… {len(value) - most} more"] if len(value) > most else [])
    return presentable(value, longest) if isinstance(value, str) else value


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
