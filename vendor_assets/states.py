"""How a partition stands: the words for it, and the rule by which rows and gaps decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

State = Literal["complete", "empty", "partial", "failed", "held", "stopped"]
"""How a harvest ended: ``held`` if another run has the partition, ``stopped`` if the run was told to stop."""

SUCCEEDED: Final = ("complete", "empty")
FINISHED: Final = (*SUCCEEDED, "partial")
"""States of a table, and of a harvest that came to its end."""
COUNTED: Final = ("complete", "partial", "failed", "unfinished", "missing", "left_out")
"""States by which the troops of a day are counted; ``empty`` ones count as complete."""


def state_of(rows: int, *, lacking: bool) -> State:
    """How a table stands that has so many rows, by whether anything is known to be lacking."""
    return "partial" if lacking else "complete" if rows else "empty"


def state_of_table(metadata: Mapping[str, str], rows: int) -> str:
    """How a table in the store stands; those of older versions do not say, and were complete."""
    return metadata.get("state") or state_of(rows, lacking=False)
