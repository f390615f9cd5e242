"""Fixtures that every tier may use."""

from __future__ import annotations

from vendor_assets_tests.support.s3 import clean_aws_environment, s3_server

__all__ = ["clean_aws_environment", "s3_server"]
