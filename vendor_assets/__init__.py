"""Harvest a hierarchical, rate-limited vendor API into partitioned Parquet, without harming the vendor."""

import os

__version__ = "0.1.0"

# Arrow looks here when it is first imported. Its own pool keeps what another thread frees: of a harvest of 20,000
# responses 80 MB more than the system's (benchmarks/memory.py).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # noqa: TID251  must be there before any import
