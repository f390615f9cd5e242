"""What the things of one account are called in Dagster, so that several accounts stand in one code location.

The account of a deployment that has only one needs no name: its things are called as they are, ``troops`` and
``roster``. Those of an account ``prod`` are ``prod/troops`` and ``prod_roster``. Everybody who makes or looks up a key,
a job, a sensor, a partition or a resource asks here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

ACCOUNT_TAG: Final = "vendor_assets/account"
"""The account that a run works for; absent where it has no name."""


@dataclass(frozen=True)
class Names:
    """The names of an account's things.

    Attributes:
        account: The account's name in Dagster; empty for the one that needs none.
    """

    account: str = ""

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset."""
        return dg.AssetKey([self.account, asset] if self.account else [asset])

    def asset(self, key: dg.AssetKey) -> str | None:
        """The asset that a key stands for; None where it is none of this account."""
        *prefix, name = key.path
        return name if prefix == ([self.account] if self.account else []) else None

    def step(self, asset: str) -> str:
        """What the step that makes an asset by itself is called."""
        return self.key(asset).to_python_identifier()

    def thing(self, name: str) -> str:
        """What a job, a sensor, a schedule, an operation, a group or a set of partitions is called."""
        return f"{self.account}_{name}" if self.account else name

    def resource(self, role: str) -> str:
        """The key of a resource by its role: ``store``, ``vendor_api``, ``harvester`` and so on."""
        return f"{self.account}__{role}" if self.account else role

    def resources(self, *roles: str) -> set[str]:
        """The keys of several resources."""
        return set(map(self.resource, roles))

    def of(self, context: Any, role: str) -> Any:
        """A resource, from the context of whatever asked for its key."""
        return getattr(context.resources, self.resource(role))

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of the account's runs."""
        return {ACCOUNT_TAG: self.account} if self.account else {}
