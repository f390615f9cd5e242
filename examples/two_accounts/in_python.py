"""The same two accounts without YAML."""

import os
from pathlib import Path

import dagster as dg

import vendor_assets

here = Path(__file__).parent
prod = vendor_assets.account_of(
    "newrelic_prod",
    {"url": os.environ["NEWRELIC_URL"], "api_key_env": "NEWRELIC_PROD_KEY", "start": "2026-11-01"},
    os.environ,
    root=here,
)
lab = vendor_assets.account_of(
    "prometheus_lab",
    {"kind": "prometheus", "url": os.environ["PROMETHEUS_URL"], "start": "2026-11-01"},
    os.environ,
    root=here,
)
defs = dg.Definitions.merge(vendor_assets.build_definitions(prod), vendor_assets.build_definitions(lab))
