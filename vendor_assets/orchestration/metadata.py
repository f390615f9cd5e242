"""Names of Dagster metadata that we read back: whoever writes or reads one takes its name from here.

Metadata that is only shown is named where it is made. ``KEY_REFUSED``, which the harvest writes, is in
:mod:`vendor_assets.harvest.outcome`.
"""

from typing import Final

STATE: Final = "state"
"""A partition's state: complete, empty, partial, failed, held or stopped."""
ROW_COUNT: Final = "dagster/row_count"
"""Rows of a table; Dagster's own name, which its UI knows."""
CALLS: Final = "calls"
"""Calls that a partition's harvest made; absent on what asks no vendor."""
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
"""Calls that a day was expected to cost when its roster came; on ``troops``."""

NOT_COMPLETE: Final = "not_complete"
"""Of a run's failure: the partitions that did not become complete, each with its reason."""
REASON: Final = "reason"
"""Of a run's failure that has one reason."""
