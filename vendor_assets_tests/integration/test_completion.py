"""Completion at Tab, as bash itself asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets_tests.support.programs import require

YESTERDAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
ASK = """\
eval "$(vendor-assets completion bash)"
read -ra COMP_WORDS <<< "$COMP_LINE"
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=${#COMP_LINE} COMP_TYPE=9
[[ $(complete -p vendor-assets) =~ -F\\ ([^ ]+) ]] && ${BASH_REMATCH[1]} vendor-assets
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vendor-assets dea", ["dead-letters"]),
        ("vendor-assets dead-letters s", ["show"]),
        ("vendor-assets harvest --acc", ["--account", "--accept-empty-roster"]),
        ("vendor-assets harvest --account ", ["eu", "us"]),
        ("vendor-assets harvest --day y", ["yesterday"]),
        ("vendor-assets plan --account eu --from " + YESTERDAY, [YESTERDAY]),
        ("vendor-assets dead-letters list --asset da", ["data_groups"]),
        ("vendor-assets why --what-if sh", ["share="]),
        ("vendor-assets vendor check n", ["nerdgraph", "new_relic"]),
    ],
)
def test_bash_offers_what_fits(tmp_path: Path, line: str, offered: list[str]) -> None:
    """Commands, options, and names: accounts, days, assets, vendors, what may be supposed."""
    require("bash", packages="bash")
    (tmp_path / "vendor_assets.toml").write_text(
        '[accounts.eu]\nkind = "prometheus"\nurl = "https://eu.example"\nrate = "5/s"\n'
        '[accounts.us]\nkind = "prometheus"\nurl = "https://us.example"\nrate = "5/s"\n'
    )
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    asked = subprocess.run(
        ["bash", "-c", ASK],
        cwd=tmp_path,
        env={"PATH": programs, "HOME": str(tmp_path), "COMP_LINE": line},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stderr == ""
    assert sorted(map(str.strip, asked.stdout.splitlines())) == sorted(offered)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_too(tmp_path: Path, shell: str) -> None:
    """Where the shell is installed it accepts what is printed."""
    program = shutil.which("vendor-assets", path=str(Path(sys.executable).parent))
    assert program
    script = subprocess.run([program, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert "vendor-assets" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
