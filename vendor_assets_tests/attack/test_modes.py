"""Every mode of a harvest, with the number of calls that it may make; the vendor's log counts them."""

from __future__ import annotations

import dagster as dg
import pytest

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import day_troop_key
from vendor_assets.orchestration.runs.about import FOLLOW_TAG, HARVEST_JOB, TRIGGER_TAG
from vendor_assets_tests.attack.conftest import Note
from vendor_assets_tests.support.trial import Trial
from vendor_assets_tests.support.truth import id_of

WORLD = {"troops": 3, "warriors": 9, "data_groups": 3}


@pytest.mark.parametrize("vendor", [WORLD], indirect=True)
def test_each_mode_makes_the_calls_that_it_may(trial: Trial, note: Note) -> None:
    """Reconcile and rebuild make none, redrive those that are missing, replace all."""
    vendor, troop = trial.vendor, trial.troops[0]
    warriors = len(vendor.world.warriors_on(id_of(troop), trial.day))
    counted: dict[str, int] = {}

    def calls() -> int:
        """Calls since the last time."""
        total: int = vendor.log()["requests"]
        return total - sum(counted.values())

    def mode(name: str, wanted: int, asset: str = "performance_data") -> None:
        assert (name, trial.numbers(asset, troop)["mode"]) == (name, name)
        counted[name] = calls()
        assert (name, counted[name]) == (name, wanted)

    # A refusal that asking for less cannot change, so that nothing is split.
    vendor.faults([{"kind": "status", "status": 405, "match": f"/{id_of(troop)}/.*data.json", "count": 2}])
    assert not all(run.success for run in trial.harvest())
    mode("first", 1 + 3 + 9 + 9)
    # What failed for good is asked again, and only that.
    assert trial.click("performance_data", troop).success
    mode("redrive", 2)
    assert all(run.success for run in trial.harvest())
    mode("reconcile", 0)
    assert trial.click("performance_data", troop).success
    mode("replace", warriors)
    config = harvest_config(
        Names(), [day_troop_key(trial.day, key) for key in trial.troops], list(CHAIN), rebuild=True
    )
    tags = {TRIGGER_TAG: "command", FOLLOW_TAG: "self"}
    assert trial.deployment.run(dg.RunRequest(job_name=HARVEST_JOB, run_config=config, tags=tags)).success
    mode("rebuild", 0)
    shown = ", ".join(f"{name} {number}" for name, number in counted.items())
    note(
        "modes",
        f"calls of each: {shown}; resume and report: see the kills",
        twice=0,
        rows=trial.assert_whole(),
    )
