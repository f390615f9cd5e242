"""The settings: from the environment or a file to accounts. Nobody else knows the name of a variable."""

from vendor_assets.settings.documents import (
    FILE,
    KEYS,
    REFERENCES,
    account_of,
    beside,
    check_apart,
    read_accounts,
    store_urls,
)
from vendor_assets.settings.environment import (
    NAMES,
    SECRETS,
    SIMULATOR_API_KEY,
    SIMULATOR_PORT_NAME,
    SIMULATOR_URL,
    read,
)
from vendor_assets.settings.project import enter, project_root

__all__ = [
    "FILE",
    "KEYS",
    "NAMES",
    "REFERENCES",
    "SECRETS",
    "SIMULATOR_API_KEY",
    "SIMULATOR_PORT_NAME",
    "SIMULATOR_URL",
    "account_of",
    "beside",
    "check_apart",
    "enter",
    "project_root",
    "read",
    "read_accounts",
    "store_urls",
]
