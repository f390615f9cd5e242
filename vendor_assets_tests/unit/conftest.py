"""Fixtures of the unit tier."""

from vendor_assets_tests.support.toy import bench

__all__ = ["bench"]
