"""The assets, and the metadata of their materializations."""
