"""A day harvested by two dialects of the embedded vendor, and compared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.roster import Roster
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, simulator
from vendor_assets_tests.support.truth import differing_rows, harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)
COMPARE = ("compare", "--json", "--day", DAY.isoformat(), "--with", "new_relic", "--with-rate", "500/s")


def _plant(path: Path) -> None:
    """One value off by a tenth, one row fewer, one row more; nothing else."""
    metadata = pq.read_schema(path).metadata
    table = pq.read_table(path)
    rows = table.to_pylist()
    by_value = {
        name: [row for row in rows if row["value_name"] == name] for name in {r["value_name"] for r in rows}
    }
    changed = max(by_value["call_count"], key=lambda row: row["value"])
    changed["value"] *= 1.1
    rows.remove(by_value["used_mb_by_host"][7])
    added = dict(by_value["error_count"][-1])
    added["timeslice_start"], added["timeslice_end"] = (
        added[name] + timedelta(days=300) for name in ("timeslice_start", "timeslice_end")
    )
    rows.append(added)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema).replace_schema_metadata(metadata), path)


def test_equal_days_are_equal_and_planted_differences_are_found(tmp_path: Path) -> None:
    """Neither the tables nor the history of the project change, and a second run costs nothing."""
    with simulator(world="small", churn=False) as vendor:
        running = Command(
            tmp_path,
            {
                "VENDOR_KIND": "nerdgraph",
                "VENDOR_URL": vendor.url,
                "VENDOR_API_KEY": KEY,
                "VENDOR_ACCOUNT": "1234567",
            },
        )
        first = running.run(*COMPARE)
        assert first.code == 0, first.out + first.err
        found = first.json
        assert (found["complete"], found["equal"], found["kinds"]) == (True, True, ["nerdgraph", "new_relic"])
        assert sum(value["equal"] for value in found["values"]) == len(true_rows(vendor.world, DAY))
        kept = {path.name for path in (tmp_path / "data").iterdir()}
        assert {name for name in kept if not name.startswith("budget.db")} == {"compare"}
        calls = vendor.calls()

        path = next((tmp_path / "data/compare/nerdgraph/processed/performance_data").rglob("*.parquet"))
        _plant(path)
        second = running.run(*COMPARE)
        assert second.code == 3, second.out + second.err
        assert vendor.calls() == calls
        odd = {
            value["value_name"]: (value["different"], value["only_one"], value["only_other"])
            for value in second.json["values"]
            if value["different"] or value["only_one"] or value["only_other"]
        }
        assert odd == {"call_count": (1, 0, 0), "used_mb_by_host": (0, 0, 1), "error_count": (0, 1, 0)}
        (off,) = (value for value in second.json["values"] if value["different"])
        assert abs(off["most_off_part"] - 0.1 / 1.1) < 1e-6
        text = running.run(*(each for each in COMPARE if each != "--json"))
        assert "1 only in nerdgraph, 1 only in new_relic, 1 different" in text.out

        for arguments, said in (
            (("--with", "nerdgraph"), "is the configured dialect"),
            (("--with", "newrelic"), "'newrelic' is unknown"),
            (("--with", "new_relic", "--day", "2999-01-01"), "2999-01-01"),
        ):
            wrong = running.run("compare", *arguments)
            assert (wrong.code, wrong.out) == (2, "")
            assert said in wrong.err
            assert len(wrong.err.splitlines()) == 1


def test_one_table_and_one_history_go_on_after_the_switch(tmp_path: Path) -> None:
    """Days of REST v2 stay complete and cost nothing; the next one goes under the same keys."""
    before = DAY - timedelta(days=1)
    with simulator(world="small", churn=False) as vendor:
        settings = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"}
        old = Command(tmp_path, settings)
        assert old.run("harvest", "--no-report", "--day", before.isoformat()).code == 0
        calls = vendor.calls()
        del settings["VENDOR_RATE"]
        new = Command(tmp_path, settings | {"VENDOR_KIND": "nerdgraph", "VENDOR_ACCOUNT": "1234567"})
        refused = new.run("harvest", "--no-report", "--day", DAY.isoformat())
        assert refused.code == 2
        assert f"new_relic@{vendor.url}" in refused.err
        moved = new.run("store", "move", "--from", f"new_relic@{vendor.url}")
        assert moved.code == 0, moved.out + moved.err
        assert new.run("harvest", "--no-report", "--day", before.isoformat(), "--json").json["complete"]
        assert vendor.calls() == calls
        assert new.run("harvest", "--no-report", "--day", DAY.isoformat()).code == 0
    store = FolderStore(tmp_path / "data")
    assert harvested_rows(store, before) == true_rows(vendor.world, before)
    assert differing_rows(harvested_rows(store, DAY), true_rows(vendor.world, DAY)) == {}
    keys = [{troop.id: troop.key for troop in Roster.read(store, day).troops} for day in (before, DAY)]
    assert keys[0] == keys[1]
