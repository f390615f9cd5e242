"""Sparklines and bars for tables, as PNGs of a few hundred bytes with a palette (ISO/IEC 15948).

Every partition has some, so they must be cheaper than matplotlib, which takes a second to import.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Final

from vendor_assets.presentable import presentable

WIDTH: Final = 192
HEIGHT: Final = 28
_CELL: Final = 60
"""Characters of a cell."""
_PALETTE: Final = bytes.fromhex("ffffffd5e9ef1f6f8bf3d9d1")
_PAPER, _AREA, _LINE, _GAP = range(4)


def line(values: Sequence[float | None], *, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A sparkline as a PNG: a line over its area, from zero; missing values (None, NaN, infinities) are rose."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    # Relative to the largest, so that no number overflows.
    unit = max((abs(value) for value in known), default=0.0) or 1.0
    low, high = min((0.0, *known)) / unit, max((0.0, *known)) / unit
    scale = (height - 3) / (high - low) if high > low else 0.0
    zero = _row(0.0, low, scale, height)
    rows = [bytearray(width) for _ in range(height)]
    before: int | None = None
    for x in range(width):
        value = values[x * len(values) // width] if values else None
        if value is None or not math.isfinite(value):
            before = None
            for row in rows:
                row[x] = _GAP
            continue
        at = _row(value / unit, low, scale, height)
        for y in range(min(at, zero), max(at, zero) + 1):
            rows[y][x] = _AREA
        before = at if before is None else before
        for y in range(min(at, before), max(at, before) + 2):
            rows[min(y, height - 1)][x] = _LINE
        before = at
    return _png(rows)


def bar(share: float) -> bytes:
    """A bar for a share from 0 to 1, as a PNG half as wide and high as a sparkline."""
    width = WIDTH // 2
    filled = round(width * min(1.0, max(0.0, share))) if math.isfinite(share) else 0
    row = bytearray([_LINE] * filled + [_GAP] * (width - filled))
    return _png([row] * (HEIGHT // 2))


def image(png: bytes, text: str) -> str:
    """A PNG inside Markdown; its alternative text is not escaped, so never a vendor's."""
    return f"![{text}](data:image/png;base64,{base64.b64encode(png).decode()})"


def cell(text: str) -> str:
    """Any text as a cell of a Markdown table: one line, shortened and escaped."""
    longest = 10 * _CELL
    flat = " ".join(text[:longest].split())
    # Cut first, because escapes are longer than what they stand for.
    shown = presentable(flat if len(flat) <= _CELL else f"{flat[: _CELL - 1]}…", longest)
    return "".join(
        character if character.isalnum() or character in " …" else f"&#{ord(character)};"
        for character in shown
    )


def _row(value: float, low: float, scale: float, height: int) -> int:
    return height - 2 - round((value - low) * scale)


def _png(rows: Sequence[bytearray]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", _PALETTE), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
