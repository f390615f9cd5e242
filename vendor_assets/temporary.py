"""Temporary folders that do not stay, also after ``kill -9`` of the process that made them.

Each holds a file that its process keeps locked; the kernel lets the lock go when the process ends, however it ends. A
folder whose lock can be taken belongs to nobody any more and is removed when the next one is made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "vendor_assets-"
_LOCK: Final = ".in-use"
_UNLOCKED_SECONDS: Final = 86_400.0
"""A folder without a lock file is one that is just being made, or was left by a process killed in that moment."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for this block alone, in the system's folder for temporary files (``TMPDIR``).

    Raises:
        OSError: It cannot be made.
    """
    _remove_left_behind()
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _LOCK).exists():
            return folder, lock
        # Somebody found it between the making and the locking of its file, and took it for left behind.
        os.close(lock)


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
                _remove_unless_used(folder, time.time() - status.st_mtime)


def _remove_unless_used(folder: Path, age_seconds: float) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if age_seconds > _UNLOCKED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
