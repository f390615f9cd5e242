"""The object store: where every object lies, how it is written whole or not at all, and one Parquet dialect."""
