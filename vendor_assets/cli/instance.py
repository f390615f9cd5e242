"""``backfill`` and ``sync``: queue work in a running Dagster, and fill a new one from the store."""

from __future__ import annotations

import argparse
import http.client
import json
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from vendor_assets.cli.project import (
    COMPLETE,
    add_class,
    add_days,
    add_url,
    choose_days,
    local_opener,
    open_project,
)
from vendor_assets.errors import VendorAssetsError
from vendor_assets.presentable import counted
from vendor_assets.work_class import BACKFILL, CLASS_TAG, queue_tags


def add(commands: Any) -> None:
    """Add the commands."""
    backfill = commands.add_parser(
        "backfill", help="queue days for Dagster's daemon, in runs sized by the quota"
    )
    add_days(backfill)
    add_class(backfill, BACKFILL)
    add_url(backfill)
    backfill.add_argument("--json", action="store_true", help="print what was queued as JSON")
    backfill.set_defaults(run=_backfill)

    sync = commands.add_parser(
        "sync", help="tell a new Dagster instance, or one that lost its history, what the store holds"
    )
    sync.set_defaults(run=_sync)


_LAUNCH_BACKFILL: Final = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""


def _backfill(options: argparse.Namespace) -> int:
    from vendor_assets.orchestration.names import Names
    from vendor_assets.orchestration.runs.about import TRIGGER_TAG, TROOPS_TAG

    project = open_project(options.account)
    days = choose_days(options, project.account)
    project.store()  # raises if the store holds another vendor's data
    # Dagster's own backfills count as backfills, so that this one says its class even where it is scheduled.
    tags = queue_tags(options.work_class) | {CLASS_TAG: options.work_class, TRIGGER_TAG: "command"}
    if options.troop:
        tags[TROOPS_TAG] = json.dumps(options.troop)
    params = {
        "assetSelection": [{"path": Names.for_account(project.account).key("troops").path}],
        "partitionNames": [day.isoformat() for day in days],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        "title": f"vendor-assets backfill {days[0]} to {days[-1]}",
    }
    answer = ask_dagster(options.url, _LAUNCH_BACKFILL, {"params": params})["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise VendorAssetsError(f"the backfill was refused: {answer.get('message', answer['__typename'])}")
    queued = {
        "backfill": answer["backfillId"],
        "days": [day.isoformat() for day in days],
        "troops": options.troop or "all",
        "url": f"{options.url}/runs/b/{answer['backfillId']}",
    }
    if options.json:
        print(json.dumps(queued, indent=1))
    else:
        print(
            f"queued backfill {queued['backfill']}: rosters of {counted(len(days), 'day')}, {days[0]} to {days[-1]}"
        )
        print("the sensors split each day's troops into runs of about ten minutes of quota, small ones first")
        print(f"see {queued['url']}")
    return COMPLETE


def ask_dagster(
    url: str, query: str, variables: Mapping[str, Any], *, timeout_seconds: float = 60.0
) -> dict[str, Any]:
    """Run a GraphQL query on a Dagster UI.

    Raises:
        VendorAssetsError: No UI answers at the URL, or it refuses the query.
    """
    body = json.dumps({"query": query, "variables": variables}).encode()
    try:
        request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
        with local_opener(url).open(request, timeout=timeout_seconds) as answer:
            document = json.load(answer)
        if not isinstance(document, dict):
            raise ValueError("it does not speak GraphQL")  # noqa: TRY004 - caught below
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        reason = getattr(reason, "strerror", None) or reason
        raise VendorAssetsError(
            f"no Dagster UI answers at {url} ({reason}); start one with vendor-assets dev, give --url, "
            "or harvest in this process with: vendor-assets harvest --class backfill"
        ) from error
    if document.get("errors") or not isinstance(document.get("data"), dict):
        raise VendorAssetsError(f"Dagster at {url} refused: {json.dumps(document)[:500]}")
    data: dict[str, Any] = document["data"]
    return data


def _sync(options: argparse.Namespace) -> int:
    from vendor_assets.orchestration.runs.launching import open_instance
    from vendor_assets.orchestration.syncing import sync

    project = open_project(options.account)
    store = project.store()
    print(f"store {store.url}", flush=True)
    with open_instance(project.root, project.environ) as instance:
        done = sync(store, instance, print, project.account)
    print(
        f"{counted(done.materialized, 'partition')} reported, {done.known_already} known already, "
        f"{done.not_complete} not complete, {counted(done.troops, 'troop')} added"
    )
    return COMPLETE
