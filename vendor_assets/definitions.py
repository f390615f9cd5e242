"""The composition root: environment -> settings -> Dagster's definitions."""

import os

import dagster as dg

from vendor_assets.orchestration.definitions import build_definitions, silence_warnings
from vendor_assets.orchestration.partitions import Partitions
from vendor_assets.settings import enter, read_accounts

silence_warnings()
accounts = read_accounts(os.environ, root=enter(os.environ))
partitions = Partitions.of(accounts[0])
"""``partitions.day`` and ``partitions.day_troop`` of the first account, for assets of one's own on top of ours."""
defs = dg.Definitions.merge(*map(build_definitions, accounts))
