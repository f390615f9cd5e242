"""The account: what a deployment decides about one vendor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal
from zoneinfo import ZoneInfo

from vendor_assets.budget import Limit, rate_for, seconds_for
from vendor_assets.client.credentials import Login
from vendor_assets.client.network import Network
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.weights import Weights
from vendor_assets.secret import Secret
from vendor_assets.storage.source import EMBEDDED, Source
from vendor_assets.vendors.base import Vendor


def in_flight_of(vendor: Vendor, budget_name: str, url: str, key: Secret) -> str:
    """Under which name calls at once are shared in the budget: the account's, or that of the key's user.

    A user is known by a digest of the key alone, so that nobody has to name it, on any machine. A digest of 128 bits
    tells nothing of a random key. Two keys of one user are two users here, and without a key it is the account.
    """
    if vendor.most_in_flight_of == "account" or not key:
        return budget_name
    address = Source(vendor.kind, url)
    digest = hashlib.blake2b(f"{address}\n{key.read()}".encode(), digest_size=16, person=b"in flight")
    return f"{address} user {digest.hexdigest()}"


@dataclass(frozen=True)
class Account:
    """What a deployment decides about one vendor account; immutable, its secrets are references.

    Attributes:
        vendor_url: Where it is: host in lower case, without the scheme's own port and a trailing slash.
        embedded: Whether the vendor is the embedded simulator, because nothing is configured.
        share: Our part of the quota, above 0 to 1.
        store_url: A folder's absolute path, or ``s3://bucket/prefix``.
        database: Address of the database of the budget, the leases and the backlog.
        settling_seconds: How long after its end a day's data may still change.
        weights: The parts of teams in the pace, where several have work.
        name: The account's name in Dagster, where several are harvested by one deployment; empty for the only one.
        key_prefix: Prefix of its assets' keys in Dagster; None for its name.
        vendor_account: The account at the vendor, where several are harvested at one address; empty: it has no name.
        budget_account: Under which account's name calls are counted; None for ``vendor_account``.
        vendor_options: The vendor's own settings.
        look_back_days: How many days before the newest one the schedule ``look_back`` fetches again; 0 is none.
        retention_days: After how many days the schedule ``landing_retention`` removes the answers of complete
            partitions; None keeps all.
        history_days: After how many days the schedule ``landing_retention`` forgets the logs of runs; None for never.
        alert: Where alerts are posted; not set for the log alone.
        alert_network: How that is reached, by the environment alone.
    """

    vendor: Vendor
    vendor_url: str
    key: Secret
    embedded: bool
    limits: tuple[Limit, ...] | Literal["auto"]
    share: float
    max_in_flight: int
    store_url: str
    database: Secret
    start: date
    zone: ZoneInfo
    resolution_seconds: int
    settling_seconds: int
    filters: Filters
    weights: Weights = field(default_factory=Weights)
    name: str = ""
    key_prefix: tuple[str, ...] | None = None
    vendor_account: str = ""
    budget_account: str | None = None
    vendor_options: Mapping[str, str] = field(default_factory=dict)
    look_back_days: int = 0
    retention_days: int | None = None
    history_days: int | None = None
    login: Login = field(default_factory=Login)
    network: Network = field(default_factory=Network)
    alert: Secret = field(default_factory=lambda: Secret("VENDOR_ASSETS_ALERT_URL"))
    alert_network: Network = field(default_factory=Network)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All of them."""
        return (self.key, *self.login.secrets, self.network.proxy, self.database, self.alert)

    @property
    def api_key(self) -> str:
        """The key; a secret."""
        return self.key.read()

    @property
    def database_url(self) -> str:
        """Of the budget, the leases and the backlog; may hold a password."""
        return self.database.read()

    @property
    def budget_name(self) -> str:
        """Name of the vendor account in the budget: kind and address, and the account's name where it has one.

        Two keys at one address share a budget where the accounts have no names: sharing too much harms nobody.
        """
        name = self.vendor_account if self.budget_account is None else self.budget_account
        return str(Source(self.vendor.kind, self.vendor_url, name))

    @property
    def in_flight_of(self) -> str:
        """Under which name calls at once are shared in the budget."""
        return in_flight_of(self.vendor, self.budget_name, self.vendor_url, self.key)

    @property
    def source(self) -> Source:
        """Whose data the store holds; of the embedded vendor wherever it listens."""
        address = EMBEDDED if self.embedded else self.vendor_url
        return Source(self.vendor.kind, address, self.vendor_account)

    @property
    def permitted_rate(self) -> float | None:
        """Calls per second that the vendor's quota and our share permit, day after day; None where it is not known."""
        return self.rate_for({})

    def rate_for(self, per_call: Mapping[str, float]) -> float | None:
        """The same for calls that count more than one each of other units than requests: unit to number."""
        if self.limits == "auto":
            return None
        rate = rate_for(self.limits, self.share, per_call)
        return rate if math.isfinite(rate) else None

    def seconds_for(self, calls: int, per_call: Mapping[str, float] | None = None) -> float | None:
        """How long so many calls take at least, by quota and share; None where the quota is not known."""
        return None if self.limits == "auto" else seconds_for(calls, self.limits, self.share, per_call or {})
