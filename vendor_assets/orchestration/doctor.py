"""The doctor: each part that a harvest needs is tried, with a line each and what to do where one fails."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from vendor_assets import vendors
from vendor_assets.configuration import Settings
from vendor_assets.errors import VendorAssetsError
from vendor_assets.orchestration.partitions import TROOP, Partitions
from vendor_assets.orchestration.resources import StoreResource, VendorApiResource

DAEMON_SECONDS = 120
"""A daemon whose heartbeat is older is not running."""
FREE_BYTES = 1 << 30
"""Less free space than this is worth a warning."""


@dataclass(frozen=True)
class Finding:
    """One part and how it is: ``well``, ``warning`` (works, but look at it) or ``failed``."""

    part: str
    state: str
    text: str


def examine(
    settings: Settings, vendor_api: VendorApiResource, store: StoreResource, instance: dg.DagsterInstance
) -> Iterator[Finding]:
    """Try every part; a failing one does not keep the others from being tried."""
    yield _try("vendor", lambda: _vendor(settings, vendor_api))
    yield _try("quota", lambda: _quota(vendor_api))
    yield _try("store", lambda: _store(store, settings.retention_days))
    yield _disk(settings)
    yield _try("database", lambda: _database(vendor_api))
    yield _dagster(instance)
    yield _partitions(settings, instance)


def _try(part: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(part, "well", check())
    except VendorAssetsError as error:
        return Finding(part, "failed", str(error))


def _vendor(settings: Settings, vendor_api: VendorApiResource) -> str:
    vendor = vendors.load(settings.vendor.kind)()
    with vendor_api.client() as client:
        started = time.monotonic()
        client.fetch(vendor.probe())
    milliseconds = (time.monotonic() - started) * 1000
    return f"{vendor.title} at {settings.vendor_url} answers in {milliseconds:.0f} ms and accepts the key"


def _quota(vendor_api: VendorApiResource) -> str:
    budget = vendor_api.budget()
    try:
        state = budget.state()
    finally:
        budget.close()
    limits = ", ".join(state.limits) or "not known"
    permitted = (
        "found by itself" if state.permitted_rate is None else f"{state.permitted_rate:.3g} calls a second"
    )
    return f"{limits}, our share {state.share:.0%}: {permitted}; {state.why}"


def _store(store: StoreResource, days: int | None) -> str:
    opened = store.open()
    opened.check()
    kept = "for ever" if days is None else f"for {days} days at least (the schedule landing_retention)"
    return f"{opened.url} is written, conditionally overwritten and read; answers are kept {kept}"


def _disk(settings: Settings) -> Finding:
    if "://" in settings.store_url:
        return Finding("disk", "well", "the store is not on this machine's disk")
    existing = next(
        folder for folder in (Path(settings.store_url), *Path(settings.store_url).parents) if folder.exists()
    )
    free = shutil.disk_usage(existing).free
    text = f"{free / (1 << 30):.1f} GiB are free at {existing}"
    if free < FREE_BYTES:
        return Finding("disk", "warning", f"{text}; make room, or a harvest will stop with what it has")
    return Finding("disk", "well", text)


def _database(vendor_api: VendorApiResource) -> str:
    alive = [lease for lease in vendor_api.leases().all() if not lease.lapsed]
    return f"budget and leases are readable; {len(alive)} runs are harvesting now"


def _dagster(instance: dg.DagsterInstance) -> Finding:
    beats = instance.get_daemon_heartbeats()
    newest = max((beat.timestamp for beat in beats.values()), default=0.0)
    if time.time() - newest > DAEMON_SECONDS:
        text = "no daemon is running: sensors, schedules and queued runs wait; start one with make dev or dagster dev"
        return Finding("dagster", "warning", text)
    return Finding("dagster", "well", "the daemon is alive: sensors, schedules and queued runs work")


def _partitions(settings: Settings, instance: dg.DagsterInstance) -> Finding:
    days = len(Partitions.of(settings).day.get_partition_keys())
    troops = len(instance.get_dynamic_partitions(TROOP))
    keys = days * troops
    text = f"{days} days from {settings.start} on, {troops} troops: {keys:,} partitions of each asset"
    if keys > 100_000:
        return Finding("partitions", "warning", f"{text}; the UI grows slow, set a later VENDOR_ASSETS_START")
    return Finding("partitions", "well", text)
