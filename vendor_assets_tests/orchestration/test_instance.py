"""The shipped ``dagster.yaml``: what Dagster makes of it."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from vendor_assets.storage.s3 import S3Store
from vendor_assets_tests.support.s3 import RunningS3

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with nothing in it but the configuration; the working directory."""
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def instance(project: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of that project."""
    with dg.DagsterInstance.from_config(str(project)) as opened:
        yield opened


def test_history_stays_in_the_project_and_outlives_the_process(project: Path) -> None:
    """A run, its events, its output and its printed lines are in the project's folder, and are known again later."""

    @dg.asset
    def noted(context: dg.AssetExecutionContext) -> int:
        logging.getLogger("vendor_assets.harvest").info("a line of ours")
        context.log.info("a line of Dagster's")
        return 1

    with dg.DagsterInstance.from_config(str(project)) as first:
        first.add_dynamic_partitions("troop", ["42"])
        run_id = dg.materialize([noted], instance=first).run_id
    with dg.DagsterInstance.from_config(str(project)) as second:
        assert [run.run_id for run in second.get_runs()] == [run_id]
        assert second.get_dynamic_partitions("troop") == ["42"]
        assert second.get_latest_materialization_event(dg.AssetKey("noted")) is not None
        lines = {entry.user_message for entry in second.all_logs(run_id)}
    assert {"a line of ours", "a line of Dagster's"} <= lines
    assert {path.name for path in project.iterdir()} == {"dagster.yaml", ".dagster"}


def test_a_run_that_died_is_retried_and_one_that_failed_is_not(instance: dg.DagsterInstance) -> None:
    """Dagster starts runs again whose process is gone; what the vendor refused stays with the client."""
    assert instance.run_retries_enabled
    assert not instance.get_settings("run_retries")["retry_on_asset_or_op_failure"]
    assert instance.run_monitoring_enabled


def test_many_machines_have_what_one_server_has_and_their_output_on_s3() -> None:
    """The two shipped configurations differ in where the steps' output is kept, and in nothing else."""
    server, machines = (
        yaml.safe_load((ROOT / "deploy" / name / "dagster.yaml").read_text())
        for name in ("postgresql", "server")
    )
    assert machines.pop("compute_logs")["class"] == "S3ComputeLogManager"
    assert machines == server


def test_the_output_of_a_step_leaves_its_machine(
    tmp_path: Path,
    s3_server: RunningS3,
    clean_aws_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the configuration for many machines, what a step prints is in the bucket."""
    bucket = s3_server.make_bucket()
    for name, value in (s3_server.environment | {"DAGSTER_LOGS_BUCKET": bucket}).items():
        monkeypatch.setenv(name, value)
    document = yaml.safe_load((ROOT / "deploy" / "server" / "dagster.yaml").read_text())
    document["storage"] = {"sqlite": {"base_dir": str(tmp_path)}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(document))

    @dg.asset
    def talks() -> int:
        sys.stdout.write("printed by a step\n")
        sys.stdout.flush()
        return 1

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run_id = dg.materialize([talks], instance=instance).run_id
    store = S3Store(s3_server.client(), bucket, "dagster-logs")
    kept = {info.key: store.get(info.key) for info in store.list("")}
    printed = [key for key, data in kept.items() if b"printed by a step" in data]
    assert [run_id in key for key in printed] == [True]


def test_nothing_is_reported_to_anybody(instance: dg.DagsterInstance) -> None:
    """Telemetry is off."""
    assert not instance.telemetry_enabled


def test_dagster_reads_the_settings_file_of_the_project(project: Path) -> None:
    """``vendor_assets.env`` beside ``dagster.yaml`` is read by whatever loads the definitions; the environment wins."""
    (project / "vendor_assets.env").write_text("VENDOR_SHARE=0.5\nVENDOR_MAX_IN_FLIGHT=7\n")
    code = (
        "from vendor_assets.definitions import defs; vendor = defs.resources['vendor_api']; "
        "print(vendor.share, vendor.max_in_flight)"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "VENDOR_SHARE": "0.25"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0.25", "7"]
