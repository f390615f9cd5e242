"""The doctor: tries each part that a harvest needs, and says what to do if one fails."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.days import day_window, duration_text, last_complete_day
from vendor_assets.errors import (
    BudgetError,
    ConfigurationError,
    StoppedError,
    VendorAssetsError,
    VendorThrottledError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.harvest.costs import DAY_SECONDS, Costs, quota_warning
from vendor_assets.harvest.outcome import NO_TROOPS
from vendor_assets.harvest.verdict import verdict
from vendor_assets.orchestration.dagster_private import newest_heartbeat
from vendor_assets.orchestration.partitions import Partitions
from vendor_assets.orchestration.resources import StoreResource, VendorApiResource
from vendor_assets.presentable import counted
from vendor_assets.vendors.base import Parsed, Response

DAEMON_SECONDS = 120
"""A daemon with an older heartbeat is not running."""
PATIENCE_SECONDS = 30.0
"""How long a slot for the one call is waited for: a month's quota may give none for hours."""
CLOCK_SECONDS = 60
"""Tolerated difference between clocks; answers take time, and HTTP dates are whole seconds."""
FREE_BYTES = 1 << 30
"""Less free space is worth a warning."""
_SEE_BUDGET = "vendor-assets budget says who waits, and for what"


@dataclass(frozen=True)
class Finding:
    """The state of one part: ``well``, ``warning`` or ``failed``."""

    part: str
    state: str
    text: str


def examine(
    account: Account,
    vendor_api: VendorApiResource,
    store: StoreResource,
    instance: dg.DagsterInstance | ConfigurationError,
) -> Iterator[Finding]:
    """Try every part, also after one has failed.

    Args:
        instance: Dagster's, or why it cannot be opened.
    """
    database = _try("database", lambda: _database(vendor_api))
    yield database
    if database.state == "failed":
        text = "not tried: every call asks the budget's database first"
        yield from (Finding(part, "failed", text) for part in ("network", "vendor", "clock", "quota"))
    elif _is_somebody_elses(store):
        yield Finding("vendor", "failed", "not asked: see the store below")
    else:
        yield _try("network", lambda: _network(account))
        yield from _vendor(account, vendor_api)
        yield _try("quota", lambda: _quota(vendor_api))
    found = _try("store", lambda: _store(store, account.retention_days))
    yield found
    yield _disk(account)
    if found.state != "failed":
        yield _demand(account, store)
    if isinstance(instance, ConfigurationError):
        yield Finding("dagster", "failed", str(instance))
    else:
        yield _dagster(instance)
        yield _partitions(account, instance)


def _is_somebody_elses(store: StoreResource) -> bool:
    try:
        store.open()
    except ConfigurationError:
        return True
    except VendorAssetsError:
        return False
    return False


def _try(part: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(part, "ok", check())
    except VendorAssetsError as error:
        return Finding(part, "failed", str(error))


def _network(account: Account) -> str:
    """How and as whom the vendor is reached."""
    files = [f"{secret.name}_FILE" for secret in account.secrets if secret.path]
    who = f"; with {given}" if (given := str(account.login)) else ""
    read = f"; {', '.join(files)} {'is' if len(files) == 1 else 'are'} reread when changed" if files else ""
    return f"the vendor is asked {account.network}{who}{read}"


def _vendor(account: Account, vendor_api: VendorApiResource) -> Iterator[Finding]:
    """Whether the vendor takes the key and lists its troops, and whether its clock is ours."""
    now = datetime.now(UTC)
    vendor = account.vendor.at(now)
    planned = vendor.troops(day_window(last_complete_day(now, account.zone), account.zone))
    listed: list[Parsed] = []

    def read(response: Response) -> None:
        listed.append(verdict(vendor, "troops", planned, planned.request, response))

    with vendor_api.client(max_attempts=1) as client:
        started = time.monotonic()
        try:
            # The list that every harvest begins with: a key that is accepted may be another account's.
            client.fetch(
                planned.request, check=read, ended=lambda: time.monotonic() - started > PATIENCE_SECONDS
            )
        except StoppedError:
            text = f"not asked: the budget gave no call within {PATIENCE_SECONDS:.0f} s"
            yield Finding("vendor", "warning", f"{text}; {_SEE_BUDGET}")
        except BudgetError as error:
            yield Finding("vendor", "warning", f"not asked: {error}; {_SEE_BUDGET}")
        except VendorAssetsError as error:
            yield Finding("vendor", "failed", f"{error}; {_what_to_do(error)}")
        else:
            milliseconds = (time.monotonic() - started) * 1000
            needed = "key" if vendor.needs_api_key else "login" if vendor.needs_login else ""
            key = f" and accepts the {needed}" if needed else ""
            text = f"{vendor.title} at {account.vendor_url} answers in {milliseconds:.0f} ms{key}"
            text += f"; {vendor.notice}" if vendor.notice and not account.embedded else ""
            if listed and not _has_troops(listed[-1]):
                yield Finding("vendor", "warning", f"{text}, but lists no troops; {NO_TROOPS}")
            else:
                yield Finding("vendor", "ok", text)
        yield _clock(client.vendor_ahead_seconds)


def _has_troops(page: Parsed) -> bool:
    # What is still waited for, or goes on, is not known to be empty.
    return page.wait_seconds is not None or page.next is not None or any(map(len, page.columns.values()))


def _what_to_do(error: VendorAssetsError) -> str:
    if isinstance(error, VendorUnauthorizedError):
        return "once that is fixed, restart the code location"
    if isinstance(error, VendorUnavailableError):
        return "is VENDOR_URL right, is the vendor up, does a firewall or proxy stand between?"
    if isinstance(error, VendorThrottledError):
        return "others use up the quota: wait, or lower VENDOR_SHARE"
    return "is this the vendor's address (VENDOR_URL) and kind (VENDOR_KIND)?"


def _clock(ahead_seconds: float | None) -> Finding:
    if ahead_seconds is None:
        return Finding("clock", "warning", "the vendor sent no date to compare our clock with")
    if abs(ahead_seconds) <= CLOCK_SECONDS:
        return Finding("clock", "ok", f"ours and the vendor's agree to {abs(ahead_seconds):.0f} s")
    side = "behind" if ahead_seconds > 0 else "ahead of"
    text = (
        f"this machine's clock is {duration_text(abs(ahead_seconds))} {side} the vendor's: days would be harvested "
        "too early or too late; set it, like with timedatectl set-ntp true"
    )
    return Finding("clock", "failed", text)


def _quota(vendor_api: VendorApiResource) -> str:
    state = vendor_api.state()
    limits = ", ".join(state.limits) or "not known"
    rate = state.permitted_rate
    permitted = "found by trying" if rate is None else f"{rate:.3g} calls a second"
    return f"{limits}, our share {state.share:.0%}: {permitted}; {state.why}"


def _store(store: StoreResource, days: int | None) -> str:
    opened = store.open()
    opened.check()
    kept = (
        "forever" if days is None else f"for at least {counted(days, 'day')} (the schedule landing_retention)"
    )
    return f"{opened.url} is written, conditionally overwritten and read; answers are kept {kept}"


def _demand(account: Account, store: StoreResource) -> Finding:
    """Whether the quota suffices for a day's harvest every day."""
    costs = Costs(store.open(), account)
    plan = costs.day(last_complete_day(datetime.now(UTC), account.zone))
    filters = f"; filters: {account.filters}" if account.filters else ""
    if plan.left_out and not plan.troops:
        text = f"{account.filters} leaves all {plan.left_out} troops out, nothing is harvested; check the patterns"
        return Finding("demand", "warning", text)
    if plan.shape_from is None:
        return Finding("demand", "ok", f"not known before the first harvest{filters}")
    warning = quota_warning(plan, account.rate_for(plan.per_call), account.resolution_seconds)
    if warning:
        return Finding("demand", "warning", warning)
    rate = account.rate_for(plan.per_call)
    part = f", {plan.whole / (rate * DAY_SECONDS):.1%} of the quota" if rate else ""
    return Finding("demand", "ok", f"a day needs about {counted(plan.whole, 'call')}{part}{filters}")


def _disk(account: Account) -> Finding:
    if "://" in account.store_url:
        return Finding("disk", "ok", "the store is not on this machine's disk")
    existing = next(
        folder for folder in (Path(account.store_url), *Path(account.store_url).parents) if folder.exists()
    )
    free = shutil.disk_usage(existing).free
    text = f"{free / (1 << 30):.1f} GiB are free at {existing}"
    if free < FREE_BYTES:
        return Finding("disk", "warning", f"{text}; make room, or a harvest will stop with what it has")
    return Finding("disk", "ok", text)


def _database(vendor_api: VendorApiResource) -> str:
    alive = [lease for lease in vendor_api.leases().all() if not lease.lapsed]
    return f"budget and leases are readable; {counted(len(alive), 'run is', 'runs are')} harvesting now"


def _dagster(instance: dg.DagsterInstance) -> Finding:
    if time.time() - newest_heartbeat(instance) > DAEMON_SECONDS:
        text = (
            "no daemon is running: sensors, schedules and queued runs wait; start one with vendor-assets dev"
        )
        return Finding("dagster", "warning", text)
    return Finding("dagster", "ok", "the daemon is alive: sensors, schedules and queued runs work")


def _partitions(account: Account, instance: dg.DagsterInstance) -> Finding:
    days = len(Partitions.of(account).day.get_partition_keys())
    troops = len(Partitions.of(account).troops(instance))
    keys = days * troops
    text = f"{counted(days, 'day')} from {account.start} on, {counted(troops, 'troop')}: "
    text += f"{counted(keys, 'partition')} of each asset"
    if keys > 100_000:
        return Finding("partitions", "warning", f"{text}; the UI grows slow, set a later VENDOR_ASSETS_START")
    return Finding("partitions", "ok", text)
