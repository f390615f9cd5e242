"""A new or lost Dagster instance learns from the store."""

from __future__ import annotations

import dagster as dg

from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.syncing import sync
from vendor_assets.storage import layout
from vendor_assets_tests.orchestration.test_chain import DAY, follow_roster
from vendor_assets_tests.support.deployment import Deployment
from vendor_assets_tests.support.simulator import RunningSimulator

SHOWN = (
    "dagster/row_count",
    "leaves_planned",
    "leaves_landed",
    "leaves_gone",
    "dead_letters",
    "table_bytes",
    "path",
)


def shown(instance: dg.DagsterInstance, asset: str) -> dict[str, dict[str, object]]:
    """The numbers of each partition's newest materialization."""
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
    found: dict[str, dict[str, object]] = {}
    for record in records:
        materialization = record.asset_materialization
        if materialization is not None and materialization.partition not in found:
            metadata = materialization.metadata
            values = {name: metadata[name].value for name in SHOWN if name in metadata}
            found[str(materialization.partition)] = values
    return found


def test_a_new_instance_shows_what_the_old_one_showed(deployment: Deployment) -> None:
    """Partitions, materializations and their numbers come back from the store alone, and only once."""
    deployment.materialize("troops", partition=DAY.isoformat())
    follow_roster(deployment)
    result, _ = deployment.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    for request in result.run_requests or ():
        assert deployment.run(request).success
    with dg.DagsterInstance.ephemeral() as new:
        sync(deployment.store, new, lambda line: None)
        assert new.get_dynamic_partitions("troop") == deployment.instance.get_dynamic_partitions("troop")
        for asset in ("troops", *CHAIN):
            assert shown(new, asset) == shown(deployment.instance, asset)
        for asset in ("daily_performance", "performance_report"):
            key = dg.AssetKey(asset)
            assert new.get_materialized_partitions(key) == deployment.instance.get_materialized_partitions(
                key
            )
        again = sync(deployment.store, new, lambda line: None)
        assert again.materialized == 0


def test_a_partial_partition_is_not_shown_green(deployment: Deployment, vendor: RunningSimulator) -> None:
    """Dead letters survive the loss of the instance: the partition is not materialized, its check fails."""
    deployment.materialize("troops", partition=DAY.isoformat())
    troop = vendor.world.troops_on(DAY, "UTC")[0]
    data = f"/applications/{troop.id}/hosts/.*data.json"
    vendor.faults([{"kind": "status", "status": 400, "match": data, "count": 1}])
    follow_roster(deployment)
    key = f"{DAY}|{layout.encode_segment(troop.id)}"
    with dg.DagsterInstance.ephemeral() as new:
        done = sync(deployment.store, new, lambda line: None)
        assert done.not_complete == 1
        materialized = new.get_materialized_partitions(dg.AssetKey("performance_data"))
        assert materialized == deployment.instance.get_materialized_partitions(
            dg.AssetKey("performance_data")
        )
        assert key not in materialized
