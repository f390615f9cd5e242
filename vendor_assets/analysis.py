"""The composition root of analysis: the tables of the deployment's own store, for a notebook or a script."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from vendor_assets import analytics
from vendor_assets.analytics.warehouse import Days, Kind
from vendor_assets.errors import ConfigurationError
from vendor_assets.settings import enter, store_urls
from vendor_assets.storage.objects import ObjectStore


def read(
    table: str,
    days: Days | None = None,
    troops: Iterable[str] | str | None = None,
    columns: Sequence[str] | None = None,
    as_: Kind = "pandas",
    *,
    categories: bool = True,
    store: ObjectStore | str | None = None,
    account: str | None = None,
) -> Any:
    """Read a table's rows of some days and troops; see ``Warehouse.read``, which is typed by kind.

    Args:
        store: A folder, ``s3://bucket/prefix``, or an open store. By default that of the deployment, as the command
            ``vendor-assets`` finds it from here: by the environment and the project's files.
        account: Whose store, where the project has several accounts.

    Raises:
        ConfigurationError: A setting is wrong, or which store is meant is not clear; else as ``Warehouse.read``.
    """
    if store is None:
        store = _store_of(account)
    elif account is not None:
        raise ConfigurationError(
            f"store and account={account!r} cannot be used together; give only one of them"
        )
    return analytics.read(table, days, troops, columns, as_, categories=categories, store=store)


def _store_of(account: str | None) -> str:
    environ = dict(os.environ)
    stores = store_urls(environ, root=enter(environ))
    if account is None and len(stores) > 1:
        raise ConfigurationError(f"there are several accounts; choose one with account=: {', '.join(stores)}")
    if account is not None and account not in stores:
        known = (
            f"there are {', '.join(stores)}" if "" not in stores else "leave account out: there is only one"
        )
        raise ConfigurationError(f"there is no account {account[:60]!r}; {known}")
    found = stores[account or next(iter(stores))]
    if found.startswith("s3://"):
        # boto3 reads these itself. The rest of the project's file would outlive a change of the project.
        os.environ |= {
            name: text
            for name, text in environ.items()
            if name.startswith("AWS_") or name.lower() == "no_proxy"
        }
    return found
