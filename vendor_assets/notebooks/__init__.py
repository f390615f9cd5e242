"""Notebooks: thin; they read, compute and plot with ``vendor_assets.analytics``."""
