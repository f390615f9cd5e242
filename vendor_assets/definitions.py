"""The composition root: environment -> settings -> Dagster's definitions."""

import os
from pathlib import Path

from dotenv import load_dotenv

from vendor_assets.configuration import project_root, read
from vendor_assets.orchestration.deployment import build_definitions
from vendor_assets.orchestration.partitions import Partitions

_root = project_root(os.environ, Path.cwd())
load_dotenv(_root / "vendor_assets.env")  # If there is one; what the environment has already goes before it.
_settings = read(os.environ, root=_root)
partitions = Partitions.of(_settings)
"""``partitions.day`` and ``partitions.day_troop``, for assets of one's own on top of ours."""
defs = build_definitions(_settings)
