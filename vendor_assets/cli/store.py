"""``store``: show whose data the store holds; ``store move`` changes that to the configured vendor."""

from __future__ import annotations

import argparse
from typing import Any

from vendor_assets.cli.project import COMPLETE, open_project


def add(commands: Any) -> None:
    """Add the command."""
    store = commands.add_parser(
        "store",
        help="show whose data the store holds; move: declare that they belong to the vendor configured now",
    )
    store.set_defaults(run=_show)
    actions = store.add_subparsers(metavar="action")
    moved = actions.add_parser(
        "move",
        help="declare that the store belongs to the vendor configured now",
        description="Declare that the store's data belong to the vendor configured now: the same account under "
        "another address, kind or name. Nothing else in the store changes, and the vendor is not called.",
    )
    moved.add_argument(
        "--from",
        dest="before",
        required=True,
        metavar="SOURCE",
        help="whose data the store holds until now, as `vendor-assets store` shows it, like "
        "new_relic@https://api.newrelic.com, unmarked or unreadable",
    )
    moved.set_defaults(run=_move)


def _show(options: argparse.Namespace) -> int:
    from vendor_assets.storage.marker import Marker
    from vendor_assets.storage.objects import open_store

    account = open_project(options.account).account
    store = open_store(account.store_url)
    marker = Marker.read(store)
    print(f"store       {store.url}")
    print(f"holds       {f'{marker.source}, since {marker.written_at:%Y-%m-%d}' if marker else 'unmarked'}")
    print(f"configured  {account.source}")
    return COMPLETE


def _move(options: argparse.Namespace) -> int:
    from vendor_assets.storage.marker import move
    from vendor_assets.storage.objects import open_store

    account = open_project(options.account).account
    store = open_store(account.store_url)
    move(store, account.source, options.before)
    print(f"store {store.url} holds the data of {account.source} from now on; it was {options.before}")
    return COMPLETE
