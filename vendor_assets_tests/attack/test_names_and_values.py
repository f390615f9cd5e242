"""Names and values that hurt careless readers: they stay data, wherever they go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.simulator.world import HOSTILE_NAMES
from vendor_assets.storage import layout
from vendor_assets.storage.parquet import duckdb_connection, read_table
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.secrets import SECRET, files_with_secret
from vendor_assets_tests.support.trial import Trial
from vendor_assets_tests.support.truth import id_of

HOSTILE = {"hostile": True, "troops": 2, "warriors": 2, "data_groups": 3}


@pytest.mark.parametrize("vendor", [HOSTILE], indirect=True)
def test_hostile_names_are_only_data(trial: Trial, note: Note) -> None:
    """Every troop is green, every name is what the vendor said, every object is where the layout puts it."""
    assert all(run.success for run in trial.harvest())
    assert {trial.states(asset) == dict.fromkeys(trial.troops, "green") for asset in CHAIN} == {True}
    rows = trial.assert_whole()
    note(
        "hostile names",
        f"{len(HOSTILE_NAMES)} troops, with hostile warriors and data groups",
        twice=0,
        rows=rows,
    )
    roster = read_table(trial.deployment.store, layout.table_key("troops", trial.day)).to_pylist()
    known = {troop.id: troop.name for troop in trial.vendor.world.troops_on(trial.day)}
    assert {row["troop_id"]: row["name"] for row in roster} == known
    assert sorted(known.values()).count("twins") == 2
    # Nothing beside the store, and below it only what the layout names.
    assert {path.name for path in trial.folder.iterdir()} <= {"data", "data.budget.sqlite"} | {
        path.name for path in trial.folder.glob("*sqlite*")
    }
    store = trial.folder / "data"
    odd = [path for path in store.rglob("*") if not path.name.isascii() or not path.name.isprintable()]
    assert not odd
    # A partition key is the id made safe, and leads back to it.
    assert {
        troop_id for troop_id, key in TroopKeys(trial.deployment.store).known().items() if key in trial.troops
    } == set(known)
    # SQL reads them as they are.
    with duckdb_connection(trial.deployment.store) as connection:
        pattern = trial.deployment.store.uri("processed/performance_data/day=*/troop=*/data.parquet")
        (counted,) = connection.sql(f"select count(*) from read_parquet('{pattern}')").fetchall()
    assert counted == (len(trial.truth()),)
    trial.assert_discreet()


@pytest.mark.long
@pytest.mark.parametrize("vendor", [HOSTILE], indirect=True)
def test_hostile_names_do_not_reach_terminal_or_report(
    trial: Trial, tmp_path: Path, note: Note, long: bool
) -> None:
    """Printed names end no line and start no escape; in the report they are text; a troop is found by any of them."""
    settings = {"VENDOR_URL": trial.vendor.url, "VENDOR_API_KEY": SECRET, "VENDOR_RATE": "500/s"}
    command = Command(tmp_path / "project", settings)
    trial.vendor.faults([{"kind": "400", "match": DATA_OF_HOSTILE}])
    finished = command.run("harvest", "--day", trial.day.isoformat(), "--json")
    assert finished.code == 3, finished.out + finished.err
    listed = command.run("dead-letters", "list")
    shown = finished.err + listed.out + listed.err
    assert "Traceback" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("X-Injected")]
    assert all(character.isprintable() or character in "\n\r\t" for character in shown)
    trial.vendor.clear_faults()
    done = command.run("dead-letters", "redrive")
    assert done.code == 0, done.out + done.err
    for name in HOSTILE_NAMES[::3] if long else ():
        again = command.run(
            "harvest", "--day", trial.day.isoformat(), "--troop", name, "--no-report", "--json"
        )
        assert again.code == 0, again.out + again.err
    report = (tmp_path / "project" / "data" / layout.report_key(trial.day, "html")).read_text()
    assert "<script>alert(1)</script>" not in report
    assert 'href="javascript:' not in report
    assert not files_with_secret(tmp_path / "project")
    note("hostile names", "the command's output, dead letters, the report", rows="–")


DATA_OF_HOSTILE = r"/applications/2000[3-9].*data\.json"


ODD = ("weird_values", "weird_times", "drift_missing", "drift_type")


@pytest.mark.parametrize("vendor", [{"troops": 5, "warriors": 5, "data_groups": 4}], indirect=True)
def test_odd_values_go_to_quarantine(trial: Trial, note: Note) -> None:
    """What is no finite number or has no place in time is kept aside with its reason; its neighbours are true."""
    bad = dict(zip(trial.troops, ODD, strict=False))
    ids = {troop: id_of(troop) for troop in trial.troops}
    trial.vendor.faults(
        [{"kind": kind, "match": f"/applications/{ids[troop]}/.*/data.json"} for troop, kind in bad.items()]
    )
    runs = trial.harvest()
    assert runs[0].success
    for troop in bad:
        # Where not one record fits, nothing is green.
        numbers = trial.numbers("performance_data", troop)
        assert (numbers["state"] == "complete") == (numbers["dagster/row_count"] > 0)
    checks = {
        (check.partition or "").partition("|")[2]
        for run in runs
        for check in run.get_asset_check_evaluations()
        if check.check_name == "schema" and not check.passed
    }
    assert checks == set(bad)
    harvested, truth = trial.rows(), trial.truth()
    by_troop = {ids[troop]: kind for troop, kind in bad.items()}
    for key, value in harvested.items():
        kind = by_troop.get(key[0])
        allowed = {None, float(2**63), -1.5} if kind == "weird_values" else set()
        assert value == truth.get(key, "no such row") or value in allowed, (kind, key, value)
    for troop in trial.troops:
        quarantine = trial.folder / "data" / layout.quarantine_key("performance_data", trial.day, troop)
        assert quarantine.exists() == (troop in bad)
        if troop not in bad:
            continue
        records = [json.loads(line) for line in quarantine.read_text().splitlines()]
        # Of very many the first are kept, and all are counted.
        assert 0 < len(records) <= trial.numbers("performance_data", troop)["quarantined_records"]
        assert all(record["reason"] for record in records)
        of_troop = [key for key in truth if key[0] == ids[troop]]
        assert len([key for key in of_troop if key in harvested]) < len(of_troop)
    trial.vendor.clear_faults()
    for troop in bad:
        assert trial.click("performance_data", troop).success
    values = "NaN, infinities, 2^63, null, negative, text"
    times = "before the year 0, backwards, absurd; fields missing or of another type"
    done = f"values: {values}; times: {times}"
    note("odd values", done, rows=trial.assert_whole())
