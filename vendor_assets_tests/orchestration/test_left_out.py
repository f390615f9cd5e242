"""Troops that a filter leaves out, as Dagster shows them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from vendor_assets.orchestration.partitions import day_troop_key
from vendor_assets.storage.troop_keys import readable_key
from vendor_assets_tests.orchestration.test_chain import DAY, follow_roster
from vendor_assets_tests.support.deployment import Deployment, deploy
from vendor_assets_tests.support.simulator import KEY, RunningSimulator

TROOP = "200020000"


def test_sensors_leave_it_alone_and_a_day_does_not_miss_it(
    tmp_path: Path, deployment: Deployment, vendor: RunningSimulator
) -> None:
    """No run, no partition, no missing troop; a click on its partition says what left it out, one on its id its key."""
    filtered = deploy(
        tmp_path,
        deployment.instance,
        VENDOR_URL=vendor.url,
        VENDOR_API_KEY=KEY,
        VENDOR_RATE="500/s",
        VENDOR_ASSETS_TROOPS=f"!{TROOP}",
    )
    assert filtered.materialize("troops", partition=DAY.isoformat()).success
    assert [run.success for run in follow_roster(filtered)] == [True]
    assert sorted(filtered.instance.get_dynamic_partitions("troop")) == [
        "checkout-eu.200000000",
        "search.200010000",
    ]
    result, _ = filtered.sensor("publish_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert filtered.materialize("daily_performance", partition=request.partition_key).success
    event = filtered.instance.get_latest_materialization_event(dg.AssetKey("daily_performance"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {name: item.value for name, item in event.asset_materialization.metadata.items()}
    assert (metadata["troops"], metadata["troops_missing"], metadata["troops_left_out"]) == (3, 0, 1)
    assert metadata["filters"] == f"VENDOR_ASSETS_TROOPS=!{TROOP}"
    assert not [target for _, target, _ in vendor.log(arrivals=True)["arrivals"] if TROOP in target]

    key = next(
        readable_key(TROOP, each.name) for each in vendor.world.troops_on(DAY, "UTC") if each.id == TROOP
    )
    filtered.instance.add_dynamic_partitions("troop", [key, TROOP])
    calls = vendor.calls()
    mistaken = filtered.materialize("warriors", partition=day_troop_key(DAY, TROOP))
    assert not mistaken.success
    hint = f"troop '{TROOP}' was never on a roster; the key of the troop with that id is '{key}'"
    assert hint in str(mistaken.all_events)
    assert filtered.materialize("warriors", partition=day_troop_key(DAY, key)).success
    clicked = filtered.instance.get_latest_materialization_event(dg.AssetKey("warriors"))
    assert clicked is not None
    assert clicked.asset_materialization is not None
    assert f"left out by VENDOR_ASSETS_TROOPS=!{TROOP}" in str(clicked.asset_materialization.metadata)
    assert vendor.calls() == calls
