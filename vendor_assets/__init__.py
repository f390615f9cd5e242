"""Harvest a hierarchical, rate-limited vendor API into partitioned Parquet, without harming the vendor."""

__version__ = "0.1.0"
