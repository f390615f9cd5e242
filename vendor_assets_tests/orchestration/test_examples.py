"""The example project works as it stands: both accounts, and an asset of one's own on top of them."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from vendor_assets.storage.troop_keys import readable_key
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

ROOT = Path(__file__).parents[2]
DAY = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()


@pytest.fixture
def vendor() -> Iterator[RunningSimulator]:
    with simulator(world="small", churn=False) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "two_accounts"
    shutil.copytree(ROOT / "examples" / "two_accounts", folder)
    monkeypatch.setenv("NEWRELIC_URL", vendor.url)
    monkeypatch.setenv("NEWRELIC_PROD_KEY", KEY)
    monkeypatch.setenv("PROMETHEUS_URL", "http://127.0.0.1:9")
    monkeypatch.syspath_prepend(str(folder / "src"))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "two_accounts"]:
        del sys.modules[name]


# Of Dagster's own way to apply what the YAML says of owners.
@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")
def test_the_project_of_components_harvests(project: Path, vendor: RunningSimulator) -> None:
    """The whole chain of one account, and the project's own asset, which reads its tables by their key."""
    defs = dg.load_from_defs_folder(path_within_project=project / "src" / "two_accounts")
    dg.Definitions.validate_loadable(defs)
    keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert {"newrelic_prod/slowest", "prometheus_lab/slowest", "prometheus_lab/troops"} <= keys
    job = defs.resolve_implicit_global_asset_job_def()
    first = vendor.world.troops_on(datetime.fromisoformat(DAY).date(), "UTC")[0]
    troop = readable_key(first.id, first.name)
    with dg.DagsterInstance.ephemeral() as instance:

        def materialize(*assets: str, partition: str) -> bool:
            selected = [dg.AssetKey(["newrelic_prod", asset]) for asset in assets]
            return job.execute_in_process(
                instance=instance, asset_selection=selected, partition_key=partition
            ).success

        assert materialize("troops", partition=DAY)
        instance.add_dynamic_partitions("newrelic_prod_troop", [troop])
        assert materialize("warriors", "data_groups", "performance_data", partition=f"{DAY}|{troop}")
        assert materialize("daily_performance", partition=DAY)
        assert materialize("slowest", partition=DAY)
    tables = project / "data" / "newrelic_prod" / "processed"
    (table,) = (tables / "slowest").rglob("*.parquet")
    assert pq.read_table(table).num_rows
    assert vendor.log()["violations"] == 0


def test_the_same_in_python(project: Path) -> None:
    """Under thirty lines."""
    file = project / "in_python.py"
    found = runpy.run_path(str(file))["defs"]
    dg.Definitions.validate_loadable(found)
    assert len(file.read_text().splitlines()) < 30
