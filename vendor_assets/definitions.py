"""The composition root: environment -> settings -> Dagster's definitions."""

import os
from pathlib import Path

from vendor_assets.configuration import project_root, read
from vendor_assets.orchestration.deployment import build_definitions

defs = build_definitions(read(os.environ, root=project_root(os.environ, Path.cwd())))
