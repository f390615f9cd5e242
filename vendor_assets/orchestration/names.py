"""Names of an account's definitions in Dagster, so that several accounts fit in one code location.

An account without a name has ``troops`` and ``roster``; an account ``prod`` has ``prod/troops`` and ``prod_roster``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import dagster as dg

from vendor_assets.account import Account

ACCOUNT_TAG: Final = "vendor_assets/account"
"""The account of a run; absent if it has no name."""


@dataclass(frozen=True)
class Names:
    """The names of an account's definitions.

    Attributes:
        account: The account's name in Dagster; may be empty if it is the only one.
        key_prefix: Prefix of the assets' keys; by default the account's name.
    """

    account: str = ""
    key_prefix: tuple[str, ...] | None = None

    @classmethod
    def for_account(cls, account: Account) -> Self:
        """The names of an account's definitions."""
        return cls(account.name, account.key_prefix)

    @property
    def _prefix(self) -> list[str]:
        if self.key_prefix is not None:
            return list(self.key_prefix)
        return [self.account] if self.account else []

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset."""
        return dg.AssetKey([*self._prefix, asset])

    def asset(self, key: dg.AssetKey) -> str | None:
        """The asset with a key; None if it is not an asset of this account."""
        *prefix, name = key.path
        return name if prefix == self._prefix else None

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
