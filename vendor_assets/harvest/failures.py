"""Failures: how the newest harvest of a partition ended, where it did not succeed; empty after the next success.

What was published before stays, and dead letters are kept apart; this is for what leaves no other mark: a refused
key, a vendor that is down, a store that is full, a stop, an upstream table that is partial.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime

from vendor_assets.errors import (
    ObjectConflictError,
    ObjectNotFoundError,
    PartitionHeldError,
    RecordError,
    StorageError,
)
from vendor_assets.harvest.outcome import Outcome
from vendor_assets.harvest.ownership import Ownership
from vendor_assets.logs import get_logger
from vendor_assets.storage import layout
from vendor_assets.storage.concurrent import map_concurrently
from vendor_assets.storage.objects import ObjectStore

logger = get_logger(__name__)


@dataclass(frozen=True)
class Failure:
    """One partition's newest harvest, which did not succeed: it is ``failed``, ``partial`` or ``stopped``."""

    asset: str
    day: date
    troop_key: str | None
    state: str
    message: str
    at: datetime


def note(ownership: Ownership, outcome: Outcome, now: datetime) -> None:
    """Keep how a partition's harvest ended; a success forgets the failure before it.

    Whoever has taken the partition since tells how it ends: then nothing is kept. A store that cannot keep it has
    failed the harvest already, most likely: it is logged, and nothing else.
    """
    if outcome.state == "held":
        return
    try:
        _keep(ownership, outcome, now)
    except PartitionHeldError:
        pass
    except StorageError as error:
        logger.warning("How %s of %s ended cannot be kept: %s", outcome.asset, outcome.day, error)


def _keep(ownership: Ownership, outcome: Outcome, now: datetime) -> None:
    store, key = ownership.store, layout.failure_key(outcome.asset, outcome.day, outcome.troop_key)
    failure = Failure(
        outcome.asset, outcome.day, outcome.troop_key, outcome.state, outcome.message[:2000], now
    )
    document = asdict(failure) | {"day": outcome.day.isoformat(), "at": now.isoformat()}
    data = b"" if outcome.succeeded else json.dumps(document).encode()
    while True:
        before = store.head(key)
        if not data and (before is None or not before.size):
            return
        # A later holder writes another version, and this one is refused.
        ownership.confirm()
        try:
            etag = store.put(key, data, if_absent=before is None, if_match=before.etag if before else None)
        except ObjectConflictError:
            continue
        break
    try:
        ownership.confirm()
    except PartitionHeldError:
        with suppress(ObjectConflictError):
            store.put(key, b"", if_match=etag)


def failures_of(store: ObjectStore, asset: str, day: date) -> list[Failure]:
    """The failures of an asset's day.

    Raises:
        RecordError: One is damaged; the message names it.
    """
    keys = [info.key for info in store.list(layout.failures_prefix(asset, day))]
    return [found for found in map_concurrently(lambda key: _read(store, key), keys) if found is not None]


def _read(store: ObjectStore, key: str) -> Failure | None:
    try:
        data = store.get(key)
        if not data:
            return None
        document = json.loads(data)
        times = {"day": date.fromisoformat(document["day"]), "at": datetime.fromisoformat(document["at"])}
        return Failure(**document | times)
    except ObjectNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        message = f"failure {store.uri(key)} cannot be read ({error!r}); delete the object"
        raise RecordError(message) from error
