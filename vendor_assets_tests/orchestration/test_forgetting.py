"""Old runs' logs are forgotten, on both storages; what the UI and the sensors go by stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vendor_assets.errors import ConfigurationError
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.dagster_private import materialized_partitions
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions
from vendor_assets.orchestration.runs.about import HARVEST_JOB, RETENTION_JOB
from vendor_assets.orchestration.runs.forgetting import forget
from vendor_assets.storage.roster import Roster
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

DAY = yesterday().isoformat()


@pytest.fixture(scope="module")
def vendor() -> Iterator[RunningSimulator]:
    """A small vendor for all tests here."""
    with simulator(world="small", churn=False, warriors=6) as running:
        yield running


@pytest.fixture
def deployment(
    stored_instance: dg.DagsterInstance,
    tmp_path: Path,
    vendor: RunningSimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> Deployment:
    """A day that was harvested twice, a partition that failed, and a run of somebody else's."""
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    made = deploy(tmp_path, stored_instance, VENDOR_URL=vendor.url, VENDOR_API_KEY=KEY)
    assert made.materialize("troops", partition=DAY).success
    troops = [troop.key for troop in Roster.read(made.store, yesterday()).troops]
    made.instance.add_dynamic_partitions("troop", troops)
    keys = [f"{DAY}|{key}" for key in troops]
    job = made.definitions.resolve_job_def(HARVEST_JOB)
    for asked in (keys, keys, keys[:1]):
        if asked != keys:
            vendor.faults([{"kind": "status", "status": 403, "match": "hosts"}])
        config = harvest_config(Names(), asked, list(CHAIN))
        done = job.execute_in_process(instance=made.instance, run_config=config, raise_on_error=False)
        assert done.success == (asked == keys)
    vendor.clear_faults()
    dg.materialize([theirs], instance=made.instance)
    return made


@dg.asset
def theirs() -> int:
    return 1


def seen(made: Deployment) -> dict[str, Any]:
    """What sensors and the UI go by."""
    instance, partitions = made.instance, Partitions.of(made.account)
    found: dict[str, Any] = {"runs": sorted(run.run_id for run in instance.get_runs())}
    for asset in CHAIN:
        key = dg.AssetKey(asset)
        # Nothing may hang on what Dagster remembers of events that are gone.
        instance.event_log_storage.wipe_asset_cached_status(key)
        found[asset] = materialized_partitions(instance, key)
        keys = sorted(found[asset])
        found[f"{asset} states"] = instance.get_status_by_partition(key, keys, partitions.day_troop)
        records = instance.fetch_materializations(key, limit=100).records
        found[f"{asset} rows"] = [
            record.asset_materialization.metadata["dagster/row_count"].value for record in records
        ]
        checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(key, "complete")]
        )
        found[f"{asset} checks"] = [(check.key, check.run_id, check.status) for check in checks.values()]
    return found


def test_the_log_goes_and_what_is_gone_by_stays(deployment: Deployment) -> None:
    """Each materialization, each state, the newest check, all runs, and the log of others' runs."""
    instance = deployment.instance
    before = seen(deployment)
    assert {status.name for status in before["warriors states"].values()} == {"MATERIALIZED", "FAILED"}
    others = next(run.run_id for run in instance.get_runs() if "__ephemeral" in run.job_name)
    log = len(instance.all_logs(others))
    assert forget(instance, Names(), days=1).runs == 0
    forgotten = forget(instance, Names(), days=0)
    assert forgotten.runs == 4
    assert forgotten.events > 40
    assert seen(deployment) == before
    assert len(instance.all_logs(others)) == log
    for asset in CHAIN:
        for record in instance.fetch_materializations(dg.AssetKey(asset), limit=100).records:
            made = record.asset_materialization
            assert not any(isinstance(value, dg.MarkdownMetadataValue) for value in made.metadata.values())
            assert "state" in made.metadata
    again = forget(instance, Names(), days=0)
    assert (again.runs, again.events) == (0, 0)


@pytest.mark.parametrize(("history", "said"), [("", "is not set"), ("7", "forgot the logs of 0 runs")])
def test_nothing_goes_unless_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: str, said: str
) -> None:
    """The job of retention does it, and says so; a week is the least."""
    monkeypatch.setenv("VENDOR_API_KEY", "k")
    at = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k"}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        made = deploy(tmp_path, instance, **at, VENDOR_ASSETS_HISTORY=history)
        done = made.definitions.resolve_job_def(RETENTION_JOB).execute_in_process(instance=instance)
        assert any(said in entry.user_message for entry in instance.all_logs(done.run_id))
    with pytest.raises(ConfigurationError, match="VENDOR_ASSETS_HISTORY='6'"):
        deploy(tmp_path, instance, **at, VENDOR_ASSETS_HISTORY="6")
