"""Alerts: one message when a problem begins and one when it ends, per cause and not per partition.

Problems are read from Dagster and the budget; what was already reported is kept in a sensor's cursor.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg

from vendor_assets.budget import BudgetState
from vendor_assets.client.network import Network
from vendor_assets.days import duration_text
from vendor_assets.errors import (
    UPSTREAM,
    ConfigurationError,
    Reason,
    VendorAssetsError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.automation.freshness import Freshness
from vendor_assets.orchestration.automation.turn import Turn
from vendor_assets.orchestration.dagster_private import latest_storage_ids, run_events
from vendor_assets.orchestration.metadata import DEAD_LETTERS, STATE
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import split_key
from vendor_assets.orchestration.runs.about import (
    ASSETS,
    RETRY_ASKED_TAG,
    RETRY_SECONDS,
    WILL_RETRY_TAG,
    About,
    runs_of,
    was_retried,
)
from vendor_assets.orchestration.runs.failures import not_complete, reason_of_steps
from vendor_assets.presentable import counted, presentable, presentable_names

BATCH: Final = 200
"""Failed runs that one tick reads."""
MOST_PARTITIONS: Final = 500
"""Partitions of a cause that are watched until they are materialized."""
MOST_CAUSES: Final = 8
"""Causes in one message; further ones are counted."""
MOST_OVER: Final = 20
"""Lines about ended causes in one message; further ones are counted."""
AGAIN: Final = timedelta(hours=6)
"""After this time a cause that has reached more days is reported again."""
LONG_HOLD_SECONDS: Final = 600.0


log = get_logger(__name__)


@dataclass
class Cause:
    """A problem and the partitions that it affects. Times are Unix timestamps.

    Attributes:
        why: What happened, in one line.
        since: When it was first seen.
        partitions: Asset -> partition -> storage id of the event that reported its failure.
        more: Number of partitions beyond those that are watched.
        days: Days that it has affected.
        said: When it was last reported; 0 if never.
        said_days: How many days it had affected then.
        subject: What it is about if it affects no partition.
        next_step: What to do.
    """

    why: str
    since: float
    partitions: dict[str, dict[str, int]] = field(default_factory=dict)
    more: int = 0
    days: list[str] = field(default_factory=list)
    said: float = 0.0
    said_days: int = 0
    subject: str = ""
    next_step: str = ""

    def add(self, asset: str, partition: str, storage_id: int) -> None:
        """Add a partition that failed for this cause."""
        day = partition.partition("|")[0]
        if day and day not in self.days:
            self.days = sorted([*self.days, day])
        if sum(map(len, self.partitions.values())) < MOST_PARTITIONS:
            self.partitions.setdefault(asset, {})[partition] = storage_id
        else:
            self.more += 1

    def title(self) -> str:
        """What is affected, in a few words."""
        if self.subject:
            return self.subject
        if not self.days:
            # A job without partitions.
            return f"{' and '.join(sorted(self.partitions)) or 'a run'} failed"
        days = (
            self.days[0]
            if len(self.days) == 1
            else f"{len(self.days)} days ({self.days[0]} to {self.days[-1]})"
        )
        count = sum(map(len, self.partitions.values())) + self.more
        assets = " and ".join(sorted(self.partitions)) or "partitions"
        keys = {key for partitions in self.partitions.values() for key in partitions}
        # Partitions are called troops only if each of them is a different one.
        troops = len(self.days) == 1 and len(keys) + self.more == count and all("|" in key for key in keys)
        what = "troop" if troops else "partition"
        return f"{assets} of {days}: {count} {what}{'' if count == 1 else 's'} failed"


@dataclass
class Memory:
    """What the sensor remembers between ticks.

    Attributes:
        seen: Storage id of the newest run failure that was read; None before the first tick.
        open: Causes by signature.
        over: Lines about causes that have ended, not reported yet.
        retries: Failed runs that Dagster will retry: id -> (storage id of the failure, when it was read).
    """

    seen: int | None = None
    open: dict[str, Cause] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)
    retries: dict[str, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: str | None) -> "Memory":
        """Read it from a sensor's cursor."""
        document = json.loads(cursor or "{}")
        causes = {key: Cause(**item) for key, item in document.get("open", {}).items()}
        retries = {run_id: (at, since) for run_id, (at, since) in document.get("retries", {}).items()}
        return cls(document.get("seen"), causes, document.get("over", []), retries)

    def dump(self) -> str:
        """Write it for a sensor's cursor."""
        return json.dumps(asdict(self))


def signature(reason: Reason) -> str:
    """What failures of one cause have in common: the kind, and the HTTP status if there is one."""
    return reason.kind if reason.status is None else f"{reason.kind} {reason.status}"


def look(
    memory: Memory,
    instance: dg.DagsterInstance,
    names: Names,
    *,
    now: datetime,
    budget: BudgetState | None,
    stale: Sequence[Freshness],
) -> None:
    """Update the memory: new causes, causes that have spread, causes that have ended."""
    turn = Turn()
    _failed_runs(memory, instance, names, now, turn)
    _unretried_runs(memory, instance, names, now, turn)
    _repaired(memory, instance, names, now)
    conditions = {
        f"{item.asset} is late": (
            item.text,
            "look at the schedule daily_harvest and its last run, then materialize the day",
        )
        for item in stale
        if not item.passed
    }
    if budget is not None and budget.breaker == "open":
        conditions["the vendor is down"] = (
            budget.why,
            "nothing: one probe at a time asks whether it is back",
        )
    if budget is not None and budget.hold_seconds > LONG_HOLD_SECONDS:
        what = f"{budget.hold_reason}, for {duration_text(budget.hold_seconds)} more"
        conditions["nobody calls the vendor"] = (what, "look at: vendor-assets budget")
    # Conditions of a budget that cannot be read are neither new nor over.
    known = budget is not None
    for subject, (why, next_step) in conditions.items():
        if subject not in memory.open:
            memory.open[subject] = Cause(why, now.timestamp(), subject=subject, next_step=next_step)
    for key, cause in list(memory.open.items()):
        if cause.subject and key not in conditions and (known or key.endswith("is late")):
            _end(memory, key, now)


def _failed_runs(
    memory: Memory, instance: dg.DagsterInstance, names: Names, now: datetime, turn: Turn
) -> None:
    newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    if memory.seen is None:
        # Failures before the first tick are history.
        memory.seen = newest[0].storage_id if newest else 0
        return
    wanted = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=memory.seen)
    records = instance.fetch_run_status_changes(wanted, limit=BATCH, ascending=True).records
    for record in turn.pieces(records):
        memory.seen = record.storage_id
        run = instance.get_run_by_id(record.run_id)
        if run is None or (names.account and not About(run, names).ours):
            continue
        if run.tags.get(WILL_RETRY_TAG) == "true":
            memory.retries.setdefault(run.run_id, (record.storage_id, now.timestamp()))
            continue
        for asset, partition, reason, letters in _failures(instance, names, run):
            next_step = _next_step(reason, dead_letters=letters)
            cause = Cause(_why(reason), now.timestamp(), next_step=next_step)
            memory.open.setdefault(signature(reason), cause).add(asset, partition, record.storage_id)


def _unretried_runs(
    memory: Memory, instance: dg.DagsterInstance, names: Names, now: datetime, turn: Turn
) -> None:
    """A run that Dagster should have retried by now is a problem; one that it has retried is none."""
    for run_id, (storage_id, since) in turn.pieces(list(memory.retries.items())):
        run = instance.get_run_by_id(run_id)
        if run is not None and _waits(run) and now.timestamp() - since < RETRY_SECONDS:
            continue
        del memory.retries[run_id]
        if run is None or (was_retried(run) and RETRY_ASKED_TAG not in run.tags):
            continue
        for asset, partition, reason, _ in _failures(instance, names, run):
            why = f"{_why(reason)}; Dagster did not retry the run by itself"
            cause = Cause(why, now.timestamp(), next_step=_UNRETRIED)
            memory.open.setdefault(f"not retried: {signature(reason)}", cause).add(
                asset, partition, storage_id
            )


def _waits(run: dg.DagsterRun) -> bool:
    """Whether Dagster will retry a failed run, has not yet, and was not asked for it a second time."""
    return run.tags.get(WILL_RETRY_TAG) == "true" and RETRY_ASKED_TAG not in run.tags and not was_retried(run)


def _failures(
    instance: dg.DagsterInstance, names: Names, run: dg.DagsterRun
) -> list[tuple[str, str, Reason, bool]]:
    """Asset, partition and reason of each failure of a run, and whether it has dead letters."""
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = run_events(instance, run.run_id, wanted)
    listed = not_complete(events)
    if listed is not None:
        return [
            (str(item["asset"]), str(item["partition"]), Reason.from_json(item), bool(item.get(DEAD_LETTERS)))
            for item in listed
            # Stopped and held partitions are no failures, and those downstream of a failure are not their own cause.
            if item[STATE] in ("failed", "partial") and item.get("kind") != UPSTREAM
        ]
    reason, _ = reason_of_steps(events)
    about = About(run, names)
    failed = {event.step_key for event in events if event.is_step_failure}
    # The asset whose step failed, if steps are named after assets.
    concerned = (
        [name for name in about.assets if names.step(name) in failed] or [*about.assets] or [run.job_name]
    )
    materialized = run_events(instance, run.run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION})
    made = {
        (names.asset(event.asset_key), event.partition or "") for event in materialized if event.asset_key
    }
    # A run that was killed, or in which somebody else's step failed, may have completed some, or all.
    lacking = [
        ([name for name in concerned if (name, key) not in made], key) for key in about.partitions or ("",)
    ]
    return [(assets[0], key, reason, False) for assets, key in lacking if assets]


def _why(reason: Reason) -> str:
    status = "" if reason.status is None else f" (status {reason.status})"
    return presentable(reason.what) + status


_STEPS: Final = {
    VendorUnauthorizedError.kind: (
        "set a key that works (VENDOR_API_KEY), restart the code location, materialize the partitions again"
    ),
    VendorUnavailableError.kind: "once the vendor is back materialize again; what had been answered is kept",
    ConfigurationError.kind: "change the setting that is named, restart the code location, materialize again",
}
_UNRETRIED: Final = (
    "nothing if a run of it is under way, since it was launched anew; otherwise materialize it again"
)


def _next_step(reason: Reason, *, dead_letters: bool) -> str:
    if reason.kind == VendorUnauthorizedError.kind and reason.status == 403:
        return "let the key (VENDOR_API_KEY) read this, or leave it out with a filter; then materialize again"
    if dead_letters and reason.kind != VendorUnauthorizedError.kind:
        return (
            "vendor-assets dead-letters list; transient ones are redriven automatically, for the others fix the "
            "cause and materialize the partitions again"
        )
    return _STEPS.get(reason.kind, "read the run's log, then materialize the partitions again")


def _repaired(memory: Memory, instance: dg.DagsterInstance, names: Names, now: datetime) -> None:
    """Forget partitions materialized since; a cause without partitions is over."""
    for key, cause in list(memory.open.items()):
        if cause.subject:
            continue
        for asset, partitions in list(cause.partitions.items()):
            latest = _latest(instance, names, asset, partitions)
            left = {name: at for name, at in partitions.items() if latest.get(name, 0) < at}
            if left:
                cause.partitions[asset] = left
            else:
                del cause.partitions[asset]
        if not cause.partitions:
            _end(memory, key, now)


def _latest(
    instance: dg.DagsterInstance, names: Names, asset: str, partitions: Mapping[str, int]
) -> Mapping[str, int]:
    """Storage id of each partition's newest materialization.

    A job without assets counts as repaired, with an id above all given ones, once its newest run has succeeded.
    """
    if asset in ASSETS:
        return latest_storage_ids(instance, names.key(asset), partitions)
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    # Not every storage can filter run status changes by job.
    newest = runs_of(instance, dg.RunsFilter(job_name=asset, statuses=ended), limit=1)
    repaired = bool(newest) and newest[0].status == dg.DagsterRunStatus.SUCCESS
    return {key: at + 1 for key, at in partitions.items()} if repaired else {}


def _end(memory: Memory, key: str, now: datetime) -> None:
    cause = memory.open.pop(key)
    if cause.said:
        lasted = duration_text(now.timestamp() - cause.since)
        what = cause.subject or f"{', '.join(cause.days[:3])}: {cause.why}"
        memory.over.append(f"over after {lasted}: {what}")


def message(memory: Memory, now: datetime, names: Callable[[str, Sequence[str]], Sequence[str]]) -> str:
    """The message to send now, as plain text; empty if there is nothing new.

    Args:
        names: Maps a day and partition keys of troops to their names.
    """
    new = _untold(memory, now)
    paragraphs = [_paragraph(cause, names) for cause in new[:MOST_CAUSES]]
    if len(new) > MOST_CAUSES:
        paragraphs.append(f"and {counted(len(new) - MOST_CAUSES, 'more cause')}; see the failed runs")
    over = memory.over[:MOST_OVER]
    if len(memory.over) > MOST_OVER:
        over.append(f"and {len(memory.over) - MOST_OVER} more are over")
    return "\n\n".join([*paragraphs, *over])


def told(memory: Memory, now: datetime) -> None:
    """Remember that the message was delivered."""
    for cause in _untold(memory, now):
        cause.said, cause.said_days = now.timestamp(), len(cause.days)
    memory.over = []


def _untold(memory: Memory, now: datetime) -> list[Cause]:
    return [
        cause
        for cause in memory.open.values()
        if not cause.said
        or (len(cause.days) > cause.said_days and now.timestamp() - cause.said >= AGAIN.total_seconds())
    ]


def _paragraph(cause: Cause, names: Callable[[str, Sequence[str]], Sequence[str]]) -> str:
    lines = [f"{cause.title()}: {cause.why}"]
    troops: list[str] = []
    for partitions in cause.partitions.values():
        by_day: dict[str, list[str]] = {}
        for partition in partitions:
            _, troop = split_key(partition) if partition else (None, None)
            if troop is not None:
                by_day.setdefault(partition.partition("|")[0], []).append(troop)
        for day, keys in by_day.items():
            troops += names(day, keys)
    if troops:
        lines.append(presentable_names(dict.fromkeys(troops), 5))
    lines.append(f"next: {cause.next_step}")
    return "\n".join(lines)


def payload(text: str) -> Mapping[str, Any]:
    """A message for a Slack incoming webhook; names are escaped, so that they are not read as markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": escaped}


def send(url: str, text: str, network: Network | None = None) -> bool:
    """Post a message if an address is set; returns False if it has to be sent again.

    A failing webhook is logged and raises nothing.
    """
    if not url:
        return True
    from vendor_assets.client.webhook import post

    try:
        post(url, payload(text), network=network or Network())
    except VendorAssetsError as error:
        log.warning("an alert was not delivered: %s", error)
        return False
    return True
