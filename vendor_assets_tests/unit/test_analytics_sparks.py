"""Small pictures: what they show, what they cost, and that no name breaks out of a table."""

from __future__ import annotations

import io
import math

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.analytics import sparks

PAPER, AREA, LINE, GAP = ((255, 255, 255), (213, 233, 239), (31, 111, 139), (243, 217, 209))


def pixels(png: bytes) -> np.ndarray:
    """Rows × columns × RGB, as another program decodes them."""
    found = matplotlib.image.imread(io.BytesIO(png), format="png")
    return np.asarray(np.round(found[:, :, :3] * 255), dtype=int)


def height_of_line(image: np.ndarray, x: int) -> int:
    """Pixels from the ground to the top of the line in a column."""
    rows = [y for y in range(image.shape[0]) if tuple(image[y, x]) == LINE]
    return image.shape[0] - min(rows)


def test_the_line_follows_the_values() -> None:
    """A rise is drawn as a rise, from zero, over the whole width."""
    image = pixels(sparks.line([0.0, 1.0, 2.0, 4.0], width=40, height=24))
    heights = [height_of_line(image, x) for x in (5, 15, 25, 35)]
    assert heights == sorted(heights)
    assert len(set(heights)) == 4


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_is_missing_is_no_zero(missing: float | None) -> None:
    """Where there is no value the picture has a colour of its own, from top to bottom."""
    image = pixels(sparks.line([1.0, missing], width=20, height=10))
    assert {tuple(pixel) for pixel in image[:, 15]} == {GAP}
    assert GAP not in {tuple(pixel) for pixel in image[:, 5]}


@pytest.mark.parametrize(("share", "filled"), [(0.0, 0), (0.5, 48), (1.0, 96), (1.7, 96), (math.nan, 0)])
def test_a_bar_is_as_long_as_its_share(share: float, filled: int) -> None:
    """From empty to full; what is more than all is full."""
    image = pixels(sparks.bar(share))
    assert [tuple(pixel) == LINE for pixel in image[0]].count(True) == filled


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=120))
def test_any_values_give_a_small_picture(values: list[float | None]) -> None:
    """Negative, huge or missing values are drawn in a kilobyte, never an error."""
    png = sparks.line(values)
    assert pixels(png).shape == (sparks.HEIGHT, sparks.WIDTH, 3)
    assert len(png) < 6000


@given(st.text())
def test_no_name_breaks_out_of_its_cell(text: str) -> None:
    """A vendor's name is text in a table: no pipe, no markup, no new line."""
    shown = sparks.cell(text)
    assert not set(shown) & set("|<>`*_[]()!\\\n\r")
    assert len(" ".join(text.split())) > 60 or shown.count("…") == text.count("…")
