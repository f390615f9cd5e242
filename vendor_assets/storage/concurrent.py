"""Reading many objects at once: a distant store takes a moment for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vendor_assets.turns import let_others

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_concurrently(
    function: Callable[[_In], _Out], items: Sequence[_In], *, at_once: int = 8
) -> list[_Out]:
    """The function's results for all items, in their order, from at most ``at_once`` threads."""
    if len(items) <= 1:
        return [function(item) for item in items]
    with let_others(), ThreadPoolExecutor(min(at_once, len(items)), thread_name_prefix="store") as pool:
        return list(pool.map(function, items))
