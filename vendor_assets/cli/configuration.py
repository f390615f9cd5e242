"""``init`` and ``config``: make a project, and show which settings are in force in one."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from vendor_assets.cli.project import COMPLETE, open_project
from vendor_assets.cli.terminal import print_table
from vendor_assets.errors import ConfigurationError, VendorAssetsError

PROFILES: Final = {
    "local": "SQLite and tables in the folder",
    "postgresql": "PostgreSQL, on one server",
    "server": "PostgreSQL and S3",
    "cluster": "the same, and runs on Celery's workers",
    "kubernetes": "the same, and each run a pod",
    "ecs": "the same, and each run a task on Amazon ECS",
}
"""How Dagster is kept and where runs are executed."""
_FORMER: Final = {"machines": "server"}
_WORKSPACE: Final = """\
# What `vendor-assets dev` and `dagster dev` load; add the code locations of your own here.
load_from:
  - python_module:
      module_name: vendor_assets.definitions
      location_name: vendor_assets
"""
_IGNORED: Final = """\
# Tables, Dagster's history, and settings with a key
/data/
/demo_data/
/.dagster/
/vendor_assets.env
"""


def add(commands: Any) -> None:
    """Add the commands."""
    init = commands.add_parser(
        "init", help="create a project: a folder with Dagster's configuration and the settings"
    )
    init.add_argument("folder", type=Path, help="a new or empty folder")
    init.add_argument(
        "--profile",
        choices=PROFILES,
        type=lambda text: _FORMER.get(text, text),
        default="local",
        help="where Dagster keeps its history and executes runs (default local): "
        + "; ".join(f"{name}: {what}" for name, what in PROFILES.items()),
    )
    init.set_defaults(run=_init)
    config = commands.add_parser("config", help="show the settings in force, and where each comes from")
    config.add_argument("--json", action="store_true", help="print as JSON")
    config.set_defaults(run=_config)


def _init(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    packaged = files("vendor_assets") / "project"
    of_profile = sorted((packaged / options.profile).iterdir(), key=lambda path: path.name)
    contents = {
        **{path.name: path.read_text(encoding="utf-8") for path in of_profile},
        "workspace.yaml": _WORKSPACE,
        "vendor_assets.env": (packaged / "settings.env").read_text(encoding="utf-8"),
        ".gitignore": _IGNORED,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := sorted(contents.keys() & {path.name for path in folder.iterdir()}):
            raise ConfigurationError(f"{folder} has a {there[0]} already; give another folder, or remove it")
        for name, text in contents.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise VendorAssetsError(f"cannot make a project in {folder}: {error.strerror}") from error
    print(f"made {folder}: {', '.join(contents)}")
    print(f"next:  cd {folder}")
    if "README.md" in contents:
        print("       read README.md          how it is started, stopped, upgraded, backed up and sized")
    print("       vendor-assets demo      try it on the embedded vendor, about a minute")
    print("       edit vendor_assets.env  your own vendor; then vendor-assets doctor")
    print("       vendor-assets dev       the UI on http://127.0.0.1:3000")
    return COMPLETE


def _config(options: argparse.Namespace) -> int:
    from vendor_assets.settings.in_force import settings_in_force

    project = open_project(options.account)
    settings = settings_in_force(project.account, project.root, options.environ, project.environ)
    if options.json:
        print(json.dumps([setting._asdict() for setting in settings], indent=1))
        return COMPLETE
    print(f"project {project.root}")
    print_table([(each.name, each.origin, each.value) for each in settings], "setting", "from", "value")
    return COMPLETE


COMMAND: Final = _config
