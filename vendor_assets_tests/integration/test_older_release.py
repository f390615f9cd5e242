"""A project that a release from before accounts had names wrote goes on under this one.

``older_release.tar.xz`` was written by commit 6ae063b: a day was harvested, the next one was killed (SIGKILL) after
nine calls. It holds the store, Dagster's instance on SQLite, the budget, and the vendor's log of all requests.
"""

from __future__ import annotations

import json
import tarfile
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from vendor_assets.storage import layout
from vendor_assets.storage.objects import open_store
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

ARCHIVE = Path(__file__).with_name("older_release.tar.xz")
DONE, KILLED, NEXT = (date(2026, 11, day) for day in (20, 21, 22))
NOW = "2026-11-23T12:00:00+00:00"
CALLS = 9
"""What the second day had been asked when it was killed."""
UNLANDED = 2
"""Of these, calls whose answers the archive does not hold: they came in the last seconds."""


def test_a_project_of_an_older_release_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is made twice, no partition changes its key, on new days either, and Dagster's history stays."""
    with tarfile.open(ARCHIVE) as archive:
        # An argument of its own from Python 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)  # noqa: S202  our own archive
    asked = [json.loads(line)["target"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    of_killed = asked[-CALLS:]
    marker = json.loads((tmp_path / "data" / layout.MARKER_KEY).read_text())
    source = f"new_relic@{marker['address']}#acme"
    with simulator(churn=False, now=NOW, retention_days=100_000) as vendor:
        command = Command(
            tmp_path,
            {
                "VENDOR_URL": vendor.url,
                "VENDOR_API_KEY": "any",
                "VENDOR_ACCOUNT": "acme",
                "VENDOR_RATE": "500/s",
                "VENDOR_ASSETS_RESOLUTION": "3600",
            },
        )
        moved = command.run("store", "move", "--from", source)  # the vendor of a test listens elsewhere
        assert moved.code == 0, moved.out + moved.err
        done = command.run("harvest", "--day", DONE.isoformat(), "--no-report", "--json")
        assert done.code == 0, done.out + done.err
        assert (done.json["calls_made"], done.json["complete"]) == (0, True)
        assert vendor.calls() == 0

        killed = command.run("harvest", "--day", KILLED.isoformat(), "--no-report", "--json")
        assert killed.code == 0, killed.out + killed.err
        assert killed.json["complete"]
        again = [target for _, target, _ in vendor.log(arrivals=True)["arrivals"]]
        assert len(set(again)) == len(again)
        assert len(set(of_killed) & set(again)) <= UNLANDED

        following = command.run("harvest", "--day", NEXT.isoformat(), "--no-report", "--json")
        assert following.code == 0, following.out + following.err
    store = open_store(str(tmp_path / "data"))
    for day in (DONE, KILLED, NEXT):
        # The embedded vendor of that release gave a value that New Relic does not have.
        rows = {row: value for row, value in harvested_rows(store, day).items() if row[3] != "error_rate"}
        assert rows == true_rows(vendor.world, day, resolution_seconds=3600)
    keys = {troop.id for troop in vendor.world.troops_on(DONE, "UTC")}
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert set(instance.get_dynamic_partitions("troop")) == keys
        known = instance.get_materialized_partitions(dg.AssetKey("performance_data"))
        assert known == {f"{day}|{key}" for day in (DONE, KILLED, NEXT) for key in keys}
