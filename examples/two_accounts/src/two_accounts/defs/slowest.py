"""An asset of our own on top of each account: the slowest series of a day."""

import dagster as dg
import pandas as pd

import vendor_assets

ANY_DAY = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())


def slowest_of(account: str) -> dg.AssetsDefinition:
    """The asset for one account; it reads and writes where the account's tables are."""
    names = vendor_assets.Names(account)

    @dg.asset(
        key=names.key("slowest"),
        ins={"day": dg.AssetIn(names.key("daily_performance"))},
        partitions_def=vendor_assets.Partitions.since("2026-11-01", account).day,
        io_manager_key=names.resource("io_manager"),
        group_name=names.thing("analysis"),
        automation_condition=ANY_DAY,
    )
    def slowest(day: pd.DataFrame) -> pd.DataFrame:
        """The ten series of a day with the largest 99th percentile."""
        return day.nlargest(10, "p99")[["troop_name", "warrior_id", "data_group", "value_name", "p99"]]

    return slowest


newrelic_slowest = slowest_of("newrelic_prod")
prometheus_slowest = slowest_of("prometheus_lab")

follow = dg.AutomationConditionSensorDefinition(
    "follow_published_days",
    target=[newrelic_slowest, prometheus_slowest],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=5,
)
