"""The code location: whatever stands below ``defs``."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Accounts as components, and assets on top of them."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
