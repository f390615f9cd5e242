"""Column lineage of the assets."""

from typing import Final

import dagster as dg

from vendor_assets.orchestration.names import Names

_VALUE: Final = ("performance_data", "value")
_FROM: Final[dict[str, dict[str, list[tuple[str, str]]]]] = {
    "warriors": {"troop_id": [("troops", "troop_id")]},
    "data_groups": {"troop_id": [("warriors", "troop_id")], "warrior_id": [("warriors", "warrior_id")]},
    "performance_data": {
        "troop_id": [("data_groups", "troop_id")],
        "warrior_id": [("data_groups", "warrior_id")],
        "data_group": [("data_groups", "data_group")],
        "value_name": [("data_groups", "value_names")],
    },
    "daily_performance": {
        "troop_id": [("performance_data", "troop_id")],
        "troop_name": [("troops", "name")],
        "warrior_id": [("performance_data", "warrior_id")],
        "warrior_name": [("warriors", "name")],
        "data_group": [("performance_data", "data_group")],
        "value_name": [("performance_data", "value_name")],
        "timeslices": [_VALUE, ("performance_data", "timeslice_start")],
        **{name: [_VALUE] for name in ("sum", "min", "p50", "p95", "p99", "max")},
        "mean": [_VALUE, ("performance_data", "weight")],
        "calls": [("performance_data", "weight")],
        "covered_share": [
            _VALUE,
            ("performance_data", "timeslice_start"),
            ("performance_data", "timeslice_end"),
        ],
        "troops_missing": [("troops", "troop_key"), ("performance_data", "troop_id")],
    },
}


def column_lineage(asset: str, names: Names) -> dict[str, dg.TableColumnLineage]:
    """The lineage metadata of an asset; empty if all columns come from the vendor."""
    columns = _FROM.get(asset)
    if columns is None:
        return {}
    deps = {
        name: [
            dg.TableColumnDep(asset_key=names.key(upstream), column_name=column) for upstream, column in of
        ]
        for name, of in columns.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}
