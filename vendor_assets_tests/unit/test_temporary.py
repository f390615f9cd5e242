"""Temporary folders: gone after the block, and after the death of whoever made them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from vendor_assets.temporary import PREFIX, temporary_folder

ROOT = Path(__file__).parents[2]
HOLD = (
    "import time; from vendor_assets.temporary import temporary_folder\n"
    "with temporary_folder() as folder: print(folder, flush=True); time.sleep(600)"
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_lasts_as_long_as_its_block(temporary: Path) -> None:
    """It is there, empty but for its lock, and gone with all that was put into it, also after an exception."""
    with pytest.raises(KeyError), temporary_folder() as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_folder(temporary: Path) -> None:
    """A folder in use stays, in this process and in others; once its process is killed, the next call removes it."""
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environ
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with temporary_folder() as first, temporary_folder() as second:
            assert first.is_dir()
            assert theirs.is_dir()
            assert len({first, second, theirs}) == 3
        other.send_signal(signal.SIGKILL)
    assert theirs.is_dir()
    with temporary_folder():
        assert not theirs.exists()


def test_only_what_is_ours_and_left_behind_is_removed(temporary: Path) -> None:
    """A folder that is just being made, a link and other names stay; one without a lock goes after a day."""
    young, old, other = (temporary / name for name in (f"{PREFIX}young", f"{PREFIX}old", "other"))
    for folder in (young, old, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (time.time() - 90_000,) * 2)
    (temporary / f"{PREFIX}link").symlink_to(other)
    with temporary_folder():
        pass
    assert sorted(path.name for path in temporary.iterdir()) == ["other", f"{PREFIX}link", f"{PREFIX}young"]
