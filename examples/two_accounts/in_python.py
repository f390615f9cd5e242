"""The same two accounts without YAML, and an asset of our own on top of each."""

from os import environ
from pathlib import Path

import dagster as dg
import pandas as pd

import vendor_assets


def build(name: str, **settings: str) -> dg.Definitions:
    """An account and the asset on top of it."""
    account = vendor_assets.account_of(name, settings, environ, root=Path(__file__).parent)
    names, days = vendor_assets.Names(name), vendor_assets.Partitions.of(account).day
    key, upstream, writer = names.key("slowest"), names.key("daily_performance"), names.resource("io_manager")

    @dg.asset(key=key, deps=[upstream], partitions_def=days, io_manager_key=writer)
    def slowest(context: dg.AssetExecutionContext) -> pd.DataFrame:
        day = vendor_assets.read("daily_performance", context.partition_key, store=account.store_url)
        return day.nlargest(10, "p99")[["troop_name", "warrior_id", "data_group", "value_name", "p99"]]

    return dg.Definitions.merge(vendor_assets.build_definitions(account), dg.Definitions(assets=[slowest]))


prod = build("newrelic_prod", url=environ["NEWRELIC_URL"], api_key_env="NEWRELIC_PROD_KEY", rate="1000/min")
lab = build("prometheus_lab", kind="prometheus", url=environ["PROMETHEUS_URL"], rate="20/s burst 20")
defs = dg.Definitions.merge(prod, lab)
