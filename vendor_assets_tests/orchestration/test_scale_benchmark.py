"""The benchmark of the sensors, small: it measures ticks that have something to do."""

from __future__ import annotations

import pytest

from benchmarks import sensors


@pytest.mark.usefixtures("postgres_server")
@pytest.mark.parametrize("storage", sensors.STORAGES)
def test_each_sensor_is_ticked_with_work(storage: str) -> None:
    """New troops, materializations, a backfill's rosters and its queue: what follows of each is requested."""
    with sensors.site(storage, 20, 3) as made:
        expected = {sensor.name for sensor in made.deployment.definitions.get_repository_def().sensor_defs}
        found = [what for what, *_ in made.ticks()]
    assert {what.partition(",")[0] for what in found} == expected
    said = "\n".join(found)
    for wanted in (
        "roster_sensor, 50 new troops (longest of 10 ticks, 1 run requested)",
        "roster_sensor, rosters of 3 days (longest of 10 ticks, 3 runs requested)",
        "publish_sensor, 200 materializations (2 runs requested)",
        "report_sensor, 200 materializations (3 runs requested)",
        "roster_sensor, 50 new troops, 3 runs queued (longest of 10 ticks, 1 run requested)",
    ):
        assert wanted in said
