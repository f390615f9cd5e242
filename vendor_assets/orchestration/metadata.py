"""Names of the Dagster metadata that our code reads back; metadata only shown is named where it is written.

``KEY_REFUSED``, which the harvest writes, is in :mod:`vendor_assets.harvest.outcome`.
"""

from typing import Final

STATE: Final = "state"
"""A partition's state: complete, empty, partial, failed, held or stopped."""
ROW_COUNT: Final = "dagster/row_count"
"""Rows of a table; the name is Dagster's, and its UI knows it."""
CALLS: Final = "calls"
"""Calls that a partition's harvest made; absent on computed assets."""
REQUESTS_MADE: Final = "requests_made"
REQUESTS_REUSED: Final = "requests_reused"
THROTTLED: Final = "throttled"
RETRIES: Final = "retries"
DEAD_LETTERS: Final = "dead_letters"
QUARANTINED_RECORDS: Final = "quarantined_records"
PACED_SECONDS: Final = "paced_seconds"
PATH: Final = "path"
"""Where a table is."""
HTML: Final = "html"
"""Where a report is."""
PLANNED_CALLS: Final = "planned_calls"
"""Calls that a day was expected to cost when its roster was materialized; on ``troops``."""

WHY: Final = "why"
"""On a partition that did not become complete: the sentence that says why, and what to do."""
FAILED_REQUESTS: Final = "failed_requests"
"""On a partition that did not become complete: its dead letters by reason."""
NOT_COMPLETE: Final = "not_complete"
"""On a run's failure: the partitions that did not become complete, each with its reason."""
REASON: Final = "reason"
"""On a run's failure that has a single reason."""
