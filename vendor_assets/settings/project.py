"""The project's folder, and the environment as its files complete it."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

from vendor_assets.client.network import variables_for_libraries
from vendor_assets.errors import ConfigurationError
from vendor_assets.settings.parse import SHOWN, plain

_FOLDER_OF_DAGSTER: Final = "DAGSTER_HOME"


def project_root(environ: Mapping[str, str], cwd: Path) -> Path:
    """The folder that relative paths are relative to.

    ``DAGSTER_HOME`` where it is set, else the nearest folder upwards with a ``dagster.yaml``, else the present one.

    Raises:
        ConfigurationError: ``DAGSTER_HOME`` is not a folder that can be used.
    """
    text = environ.get(_FOLDER_OF_DAGSTER, "").strip()
    if not text:
        return next((folder for folder in (cwd, *cwd.parents) if (folder / "dagster.yaml").is_file()), cwd)
    home = Path(plain(_FOLDER_OF_DAGSTER, text))
    shown = f"{_FOLDER_OF_DAGSTER}={text[:SHOWN]!r}"
    todo = f"give the absolute path of a folder, or unset {_FOLDER_OF_DAGSTER} to use the project's"
    try:
        home = home.expanduser()
        problem = (
            "is not an absolute path" if not home.is_absolute()
            else "is not there" if not home.exists()
            else "is not a folder" if not home.is_dir()
            else "" if os.access(home, os.R_OK | os.W_OK | os.X_OK) else "cannot be read and written"
        )  # fmt: skip
        if not problem:
            return home.resolve()
    except (OSError, RuntimeError) as error:
        problem = f"cannot be used ({error.strerror if isinstance(error, OSError) else error})"
    raise ConfigurationError(f"{shown} {problem}; {todo}")


def enter(environ: MutableMapping[str, str]) -> Path:
    """Complete an environment by the project's ``vendor_assets.env``, and by what libraries need; the project's root.

    What the environment has already goes before its file.

    Raises:
        ConfigurationError: The folder or its file cannot be used.
    """
    from dotenv import dotenv_values  # noqa: PLC0415  the rest of this module needs no file

    try:
        cwd = Path.cwd()
    except OSError as error:
        raise ConfigurationError("the present folder is gone; change to one that is there") from error
    root = project_root(environ, cwd)
    file = root / "vendor_assets.env"
    try:
        found = dotenv_values(file) if file.exists() else {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(f"{file} cannot be read ({reason}); correct it or remove it") from error
    for name, text in {**found, **environ}.items():
        if name not in environ and text is not None:
            if "\0" in name + text:
                raise ConfigurationError(f"{file} gives {name!r} a value with a zero byte; remove it")
            environ[name] = text
    environ.update(variables_for_libraries(environ))
    return root
