"""Harvest a hierarchical, rate-limited vendor API into partitioned Parquet, without harming the vendor."""

import os
from typing import Any

__version__ = "0.1.0"

# Arrow looks here when it is first imported. Its own pool keeps what another thread frees: of a harvest of 20,000
# responses 80 MB more than the system's (benchmarks/memory.py).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # noqa: TID251  must be there before any import

_HOMES = {
    "Names": "vendor_assets.orchestration.names",
    "Partitions": "vendor_assets.orchestration.partitions",
    "VendorAccount": "vendor_assets.orchestration.component",
    "account_of": "vendor_assets.settings",
    "build_definitions": "vendor_assets.orchestration.definitions",
    "read": "vendor_assets.analysis",
    "read_accounts": "vendor_assets.settings",
}
"""What other projects use, and where it is."""


def __getattr__(name: str) -> Any:
    # Dagster costs a second, which the command's help need not pay.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
