"""Failures: how the newest harvest of a partition ended, where it did not succeed; gone with the next success.

What was published before stays, and dead letters are kept apart; this is for what leaves no other mark: a refused
key, a vendor that is down, a store that is full, a stop, an upstream table that is partial.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date, datetime

from vendor_assets.errors import ObjectNotFoundError, RecordError, StorageError
from vendor_assets.harvest.outcome import Outcome
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


def note(store: ObjectStore, outcome: Outcome, now: datetime) -> None:
    """Keep how a partition's harvest ended; a success forgets the failure before it.

    A store that cannot keep it has failed the harvest already, most likely: it is logged, and nothing else.
    """
    key = layout.failure_key(outcome.asset, outcome.day, outcome.troop_key)
    try:
        if outcome.succeeded:
            store.delete(key)
        elif outcome.state != "held":  # whoever holds it tells how it ends
            failure = Failure(
                outcome.asset, outcome.day, outcome.troop_key, outcome.state, outcome.message[:2000], now
            )
            document = asdict(failure) | {"day": outcome.day.isoformat(), "at": now.isoformat()}
            store.put(key, json.dumps(document).encode())
    except StorageError as error:
        logger.warning("How %s of %s ended cannot be kept: %s", outcome.asset, outcome.day, error)


def failures_of(store: ObjectStore, asset: str, day: date) -> list[Failure]:
    """The failures of an asset's day.

    Raises:
        RecordError: One is damaged; the message names it.
    """
    keys = [info.key for info in store.list(layout.failures_prefix(asset, day))]
    return [found for found in map_concurrently(lambda key: _read(store, key), keys) if found is not None]


def _read(store: ObjectStore, key: str) -> Failure | None:
    try:
        document = json.loads(store.get(key))
        times = {"day": date.fromisoformat(document["day"]), "at": datetime.fromisoformat(document["at"])}
        return Failure(**document | times)
    except ObjectNotFoundError:
        return None  # it succeeded meanwhile
    except (ValueError, KeyError, TypeError) as error:
        message = f"failure {store.uri(key)} cannot be read ({error!r}); delete the object"
        raise RecordError(message) from error
