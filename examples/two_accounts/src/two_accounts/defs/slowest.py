"""An asset of one's own on top of each account: the slowest series of a day."""

import dagster as dg
import pandas as pd

DAYS = dg.DailyPartitionsDefinition("2026-11-01")


def slowest_of(account: str) -> dg.AssetsDefinition:
    """The asset for one account; it reads and writes where the account's tables are."""

    @dg.asset(
        key=[account, "slowest"],
        ins={"day": dg.AssetIn(key=[account, "daily_performance"])},
        partitions_def=DAYS,
        io_manager_key=f"{account}__io_manager",
    )
    def slowest(day: pd.DataFrame) -> pd.DataFrame:
        """The ten series of a day with the largest 99th percentile."""
        return day.nlargest(10, "p99")[["troop_name", "warrior_id", "data_group", "value_name", "p99"]]

    return slowest


newrelic_slowest = slowest_of("newrelic_prod")
prometheus_slowest = slowest_of("prometheus_lab")
