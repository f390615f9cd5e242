"""The composition root: environment -> settings -> Dagster's definitions."""

import os

from vendor_assets.configuration import enter, read
from vendor_assets.orchestration.deployment import build_definitions
from vendor_assets.orchestration.partitions import Partitions

_root = enter(os.environ)
_settings = read(os.environ, root=_root)
partitions = Partitions.of(_settings)
"""``partitions.day`` and ``partitions.day_troop``, for assets of one's own on top of ours."""
defs = build_definitions(_settings)
