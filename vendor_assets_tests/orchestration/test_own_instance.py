"""The Dagster instance that the command opens: as little as possible for each event."""

import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.errors import VendorAssetsError
from vendor_assets.orchestration.dagster_private import run_events
from vendor_assets.orchestration.runs.launching import open_instance

_OPENED: Counter[str] = Counter()


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if event == "sqlite3.connect":
        _OPENED[Path(str(arguments[0]).partition("?")[0]).stem] += 1


@dg.asset
def numbers() -> int:
    return 1


def test_a_run_opens_its_file_once_and_others_read_it(tmp_path: Path) -> None:
    """Dagster opens one for every event; another instance finds the same events."""
    sys.addaudithook(_count)
    with open_instance(tmp_path, {}) as instance:
        result = dg.materialize([numbers], instance=instance)
        assert _OPENED[result.run_id] == 1
    with dg.DagsterInstance.local_temp(str(tmp_path / ".dagster")) as other:
        (made,) = run_events(other, result.run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION})
        assert made.asset_key == numbers.key


def test_a_history_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """A full disk, a damaged file: it is said where and what to do, without what Dagster makes of it."""
    with pytest.raises(VendorAssetsError) as raised, open_instance(tmp_path, {}) as instance:
        (file,) = tmp_path.glob(".dagster/**/runs.db")
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DROP TABLE runs")
        instance.get_runs()
    assert f"Dagster's history at {tmp_path} cannot be used: (sqlite3.OperationalError)" in str(raised.value)
    assert "\n" not in str(raised.value)
