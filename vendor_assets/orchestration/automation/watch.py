"""Sensors that only look: backlog, dead letters, freshness, what is wrong. They start no run and call no vendor.

Each says something only when there is something new to say: an event costs, and what is said all day is not read.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.budget import Backlog, BudgetState, Sample, totals
from vendor_assets.errors import VendorAssetsError
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.assets import dead_letters
from vendor_assets.orchestration.assets.backlog import KEEP, observation_of
from vendor_assets.orchestration.automation import alerts
from vendor_assets.orchestration.automation.freshness import freshness
from vendor_assets.orchestration.checks import evaluation_of
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.resources import AlertResource, StoreResource, VendorApiResource
from vendor_assets.orchestration.runs.about import ACTIVE, DAY_TAG, About, active_days, runs_of
from vendor_assets.orchestration.runs.events import report

log = get_logger(__name__)

OBSERVE_EVERY: Final = timedelta(minutes=3)
BUSY_SECONDS: Final = 300.0
"""How often the dead letters of a day that is being harvested are observed at most."""
DAYS_PER_TICK: Final = 25
"""Days whose dead letters one tick looks at; the next one takes the others."""
QUEUE: Final = "queue"
"""Source of the samples of work that no run has begun."""
_NOT_BEGUN: Final = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)


def build_observing_sensors(account: Account) -> list[dg.SensorDefinition]:
    """All sensors that only look; they are on from the start."""
    names = Names(account.name)

    @dg.sensor(
        name=names.thing("backlog_sensor"),
        required_resource_keys=names.resources("vendor_api"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="While harvests are queued or under way: observe the backlog every three minutes, and at the end.",
    )
    def backlog_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        vendor_api: VendorApiResource = names.of(context, "vendor_api")
        now = datetime.now(UTC)
        cursor: dict[str, Any] = json.loads(context.cursor or "{}")
        runs = [
            run
            for run in runs_of(context.instance, dg.RunsFilter(statuses=ACTIVE))
            if About(run, names).harvests
        ]
        if not runs and not cursor.get("waits"):
            return dg.SkipReason("nothing waits")
        backlog = Backlog(vendor_api.database(), names.account)
        try:
            queued = [run for run in runs if run.status in _NOT_BEGUN]
            if queued or cursor.get("queued"):
                backlog.append([_queue(names, queued, now)])
            cursor["queued"] = bool(queued)
            observed = datetime.fromtimestamp(cursor.get("observed", 0), UTC)
            if runs and now - observed < OBSERVE_EVERY:
                return dg.SensorResult(cursor=json.dumps(cursor))
            samples = backlog.read(now - timedelta(days=1))
            backlog.forget_before(now - KEEP)
        except VendorAssetsError as error:
            return dg.SkipReason(str(error))
        finally:
            backlog.close()
        if runs and not cursor.get("waits") and not totals(samples, [now])[0].waits:
            # Runs that have only begun have not said yet what they will do.
            return dg.SensorResult(cursor=json.dumps(cursor))
        observation = observation_of(
            names,
            samples,
            _state(vendor_api),
            now=now,
            zone=account.zone,
            runs=len(runs) - len(queued),
            queued=len(queued),
            days=sorted({day for run in runs for day in About(run, names).days}),
        )
        cursor |= {"observed": now.timestamp(), "waits": bool(runs)}
        return dg.SensorResult(asset_events=[observation], cursor=json.dumps(cursor))

    @dg.sensor(
        name=names.thing("dead_letters_sensor"),
        required_resource_keys=names.resources("store"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When the dead letters of a day changed: observe them, and evaluate the check none_open.",
    )
    def dead_letters_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        now = datetime.now(UTC)
        # Day -> (version of its dead letters, when it was observed).
        seen: dict[str, tuple[str, float]] = {
            day: tuple(held) for day, held in json.loads(context.cursor or "{}").items()
        }
        opened = store.open()
        versions = dead_letters.versions(opened)
        changed = [
            day for day in sorted(seen.keys() | versions.keys()) if _version(seen, day) != versions.get(day)
        ]
        if not changed:
            return dg.SkipReason("the dead letters are as they were")
        # While a day is harvested its dead letters change all the time.
        busy = active_days(context.instance, names)
        due = [
            day
            for day in changed
            if day not in busy or now.timestamp() - _observed(seen, day) >= BUSY_SECONDS
        ]
        for day in due[:DAYS_PER_TICK]:
            run_id = _latest_run(context.instance, names, day)
            for event in dead_letters.events_of_day(opened, names, date.fromisoformat(day)):
                report(context.instance, event, run_id=run_id)
            seen.pop(day, None)
            if day in versions:
                seen[day] = (versions[day], now.timestamp())
        context.update_cursor(json.dumps(seen))
        return dg.SkipReason(f"observed the dead letters of {', '.join(due[:DAYS_PER_TICK]) or 'no day'}")

    @dg.sensor(
        name=names.thing("freshness_sensor"),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="While the daily schedule is on: whether its days arrive; evaluates the check fresh on a change.",
    )
    def freshness_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        found = freshness(context.instance, account, datetime.now(UTC))
        if not found:
            return dg.SkipReason("the schedule daily_harvest is off, or has made no day yet")
        now = json.dumps([[item.asset, item.expected.isoformat(), item.passed] for item in found])
        events = [evaluation_of(names, found)] if now != context.cursor else []
        return dg.SensorResult(asset_events=events, cursor=now)

    @dg.sensor(
        name=names.thing("alert_sensor"),
        required_resource_keys=names.resources("store", "vendor_api", "alert"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="One message, in the log and to the alert's webhook, when something begins to be wrong or is over.",
    )
    def alert_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        vendor_api: VendorApiResource = names.of(context, "vendor_api")
        alert: AlertResource = names.of(context, "alert")
        now = datetime.now(UTC)
        memory = alerts.Memory.load(context.cursor)
        stale = freshness(context.instance, account, now)
        alerts.look(memory, context.instance, names, now=now, budget=_state(vendor_api), stale=stale)
        text = alerts.message(memory, now, lambda day, keys: _names(store, day, keys))
        if text:
            text = f"{names.account}: {text}" if names.account else text
            log.warning("%s", text)
            if alerts.send(alert.address(), text, account.alert_network):
                alerts.told(memory, now)
        context.update_cursor(memory.dump())
        return dg.SkipReason(text or f"nothing new; {len(memory.open)} causes are open")

    return [backlog_sensor, dead_letters_sensor, freshness_sensor, alert_sensor]


def _names(store: StoreResource, day: str, keys: Sequence[str]) -> list[str]:
    """What people call some troops of a day."""
    known = dead_letters.names_of(store.open(), date.fromisoformat(day))
    return [known.get(key) or key for key in keys]


def _version(seen: Mapping[str, tuple[str, float]], day: str) -> str | None:
    return seen[day][0] if day in seen else None


def _observed(seen: Mapping[str, tuple[str, float]], day: str) -> float:
    return seen[day][1] if day in seen else 0.0


def _latest_run(instance: dg.DagsterInstance, names: Names, day: str) -> str:
    """Id of the newest run that worked for a day, as far as its tags tell; empty if there is none."""
    runs = runs_of(instance, dg.RunsFilter(tags={DAY_TAG: day, **names.tags}), limit=1)
    runs = runs or [run for run in runs_of(instance, limit=20) if day in About(run, names).days]
    return runs[0].run_id if runs else ""


def _queue(names: Names, queued: Sequence[dg.DagsterRun], now: datetime) -> Sample:
    """What waits in the run queue: troops by name, calls as they were estimated."""
    waiting = [About(run, names) for run in queued]
    return Sample(
        now,
        QUEUE,
        troops=sum(len(about.partitions) for about in waiting if "warriors" in about.assets),
        calls=sum(about.calls or 0 for about in waiting),
    )


def _state(vendor_api: VendorApiResource) -> BudgetState | None:
    try:
        return vendor_api.state()
    except VendorAssetsError:
        return None
