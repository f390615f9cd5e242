"""Names of an account's definitions in Dagster, so that several accounts fit in one code location.

An account without a name has ``troops`` and ``roster``; an account ``prod`` has ``prod/troops`` and ``prod_roster``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

ACCOUNT_TAG: Final = "vendor_assets/account"
"""The account of a run; absent if it has no name."""


@dataclass(frozen=True)
class Names:
    """The names of an account's definitions.

    Attributes:
        account: The account's name in Dagster; may be empty if it is the only one.
    """

    account: str = ""

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset."""
        return dg.AssetKey([self.account, asset] if self.account else [asset])

    def asset(self, key: dg.AssetKey) -> str | None:
        """The asset with a key; None if it is not an asset of this account."""
        *prefix, name = key.path
        return name if prefix == ([self.account] if self.account else []) else None

    def step(self, asset: str) -> str:
        """The name of an asset's own step."""
        return self.key(asset).to_python_identifier()

    def thing(self, name: str) -> str:
        """The name of a job, sensor, schedule, op, group or partition set."""
        return f"{self.account}_{name}" if self.account else name

    def resource(self, role: str) -> str:
        """The key of the resource with a role, like ``store`` or ``vendor_api``."""
        return f"{self.account}__{role}" if self.account else role

    def resources(self, *roles: str) -> set[str]:
        """The keys of several resources."""
        return set(map(self.resource, roles))

    def of(self, context: Any, role: str) -> Any:
        """A resource from a context."""
        return getattr(context.resources, self.resource(role))

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of the account's runs."""
        return {ACCOUNT_TAG: self.account} if self.account else {}
