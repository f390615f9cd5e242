"""The definitions as a whole: they load without any configuration, and hold what they are meant to hold."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from vendor_assets.orchestration.definitions import build_definitions
from vendor_assets.settings import read

SNAPSHOT = Path(__file__).parent / "asset_specs.json"


def definitions(folder: Path, **environ: str) -> dg.Definitions:
    return build_definitions(read({"VENDOR_ASSETS_START": "2026-01-01"} | environ, root=folder))


def specs(defs: dg.Definitions) -> dict[str, object]:
    """What matters of each asset, in a form that a reviewer can read."""
    found: dict[str, object] = {}
    for spec in defs.resolve_all_asset_specs():
        schema = spec.metadata.get("dagster/column_schema")
        columns = schema.columns if isinstance(schema, dg.TableSchema) else []
        found[spec.key.to_user_string()] = {
            "description": (spec.description or "").splitlines()[0],
            "upstream": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "partitions": type(spec.partitions_def).__name__,
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "owners": list(spec.owners),
            "columns": {column.name: f"{column.type}: {column.description}" for column in columns},
        }
    return found


def test_an_empty_environment_loads(tmp_path: Path) -> None:
    """Nothing is needed to load the location: the embedded vendor and a local folder are the default."""
    defs = build_definitions(read({}, root=tmp_path))
    dg.Definitions.validate_loadable(defs)
    assert not list(tmp_path.iterdir())


def test_asset_specs_are_as_reviewed(tmp_path: Path) -> None:
    """What the UI says of each asset changes only on purpose: delete the snapshot to have it written anew."""
    found = specs(definitions(tmp_path))
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        pytest.fail(f"{SNAPSHOT.name} was written; review and commit it")
    assert found == json.loads(SNAPSHOT.read_text())


def test_assets_with_other_partitions_say_how_they_depend(tmp_path: Path) -> None:
    """Where the partitions of two assets differ the dependency names its mapping: none is left to be inferred."""
    found = {spec.key: spec for spec in definitions(tmp_path).resolve_all_asset_specs()}
    differing = {
        (spec.key.to_user_string(), dep.asset_key.to_user_string()): dep.partition_mapping
        for spec in found.values()
        for dep in spec.deps
        if spec.partitions_def != found[dep.asset_key].partitions_def
    }
    by_day = dg.MultiToSingleDimensionPartitionMapping("day")
    assert differing == {
        ("warriors", "troops"): by_day,
        ("daily_performance", "performance_data"): by_day,
        ("dead_letters", "performance_data"): by_day,
        ("backlog", "performance_data"): dg.AllPartitionMapping(),
    }


def test_sensors_are_on_and_schedules_off(tmp_path: Path) -> None:
    """What reacts is on; what spends the vendor's quota by itself waits for a person."""
    defs = definitions(tmp_path)
    assert {sensor.default_status for sensor in defs.sensors or ()} == {dg.DefaultSensorStatus.RUNNING}
    schedules = [item for item in defs.schedules or () if isinstance(item, dg.ScheduleDefinition)]
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.STOPPED}


@pytest.mark.parametrize(
    ("settling", "cron", "at", "day"),
    [
        ("1800", "35 0 * * *", "2026-11-21T00:35", "2026-11-20"),
        ("7200", "5 2 * * *", "2026-11-21T02:05", "2026-11-20"),
        ("172800", "5 0 * * *", "2026-11-23T00:05", "2026-11-20"),
        ("1800", "35 0 * * *", "2026-03-29T00:35", "2026-03-28"),
        ("1800", "35 0 * * *", "2026-03-30T00:35", "2026-03-29"),
    ],
)
def test_the_day_is_harvested_once_it_has_settled(
    tmp_path: Path, settling: str, cron: str, at: str, day: str
) -> None:
    """The daily schedule asks for the newest day whose settling delay has passed, also over a change of clocks."""
    zone = ZoneInfo("Europe/Berlin")
    defs = definitions(tmp_path, VENDOR_ASSETS_SETTLING=settling, VENDOR_ASSETS_TIMEZONE=zone.key)
    schedule = defs.resolve_schedule_def("daily_harvest")
    assert schedule.cron_schedule == cron
    moment = datetime.fromisoformat(at).replace(tzinfo=zone)
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        dg.build_schedule_context(instance, scheduled_execution_time=moment) as context,
    ):
        request = schedule(context)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == day


def test_a_key_is_in_no_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API key is named, not held: no page, launch or snapshot of the definitions can show it."""
    secret = "a-very-secret-key"
    monkeypatch.setenv("VENDOR_API_KEY", secret)
    defs = definitions(tmp_path, VENDOR_URL="https://api.example.com", VENDOR_API_KEY=secret)
    resources = defs.resources or {}
    assert secret not in json.dumps([str(resource) for resource in resources.values()])
    assert secret not in repr(
        read({"VENDOR_URL": "https://x.example", "VENDOR_API_KEY": secret}, root=tmp_path)
    )
