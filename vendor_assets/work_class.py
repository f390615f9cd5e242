"""The class of work: what goes first at the vendor's budget and in Dagster's run queue."""

from __future__ import annotations

from typing import Final, Literal, get_args

WorkClass = Literal["scheduled", "backfill"]
"""Scheduled work goes first; a backfill gives way to it."""

SCHEDULED: Final = "scheduled"
BACKFILL: Final = "backfill"
WORK_CLASSES: Final[tuple[WorkClass, ...]] = get_args(WorkClass)

CLASS_TAG: Final = "vendor_assets/class"
"""Tag of a run: the class of its work."""
PRIORITY_TAG: Final = "dagster/priority"
"""Tag of a run, Dagster's own: the run queue starts higher numbers first."""


def work_class_from(text: str) -> WorkClass:
    """A class as it was stored or tagged; any other text counts as scheduled."""
    return BACKFILL if text == BACKFILL else SCHEDULED


def queue_tags(work_class: WorkClass) -> dict[str, str]:
    """Tags that tell a run's class to the budget and to the run queue; without one it counts as scheduled."""
    return {CLASS_TAG: BACKFILL, PRIORITY_TAG: "0"} if work_class == BACKFILL else {PRIORITY_TAG: "10"}
