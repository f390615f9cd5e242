"""Sensors that only observe: backlog, dead letters, freshness, alerts. They start no runs and call no vendor.

Each reports changes only: events cost storage, and nobody reads what is repeated all day.
"""

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.budget import Backlog, BudgetState, Explanation, Sample, explain, totals
from vendor_assets.errors import VendorAssetsError
from vendor_assets.logs import get_logger
from vendor_assets.orchestration.assets import dead_letters
from vendor_assets.orchestration.assets.backlog import KEEP, observation_of
from vendor_assets.orchestration.automation import alerts
from vendor_assets.orchestration.automation.freshness import freshness
from vendor_assets.orchestration.automation.turn import Turn
from vendor_assets.orchestration.checks import evaluation_of
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.resources import AlertResource, StoreResource, VendorApiResource
from vendor_assets.orchestration.runs.about import ACTIVE, DAY_TAG, About, active_days, runs_of
from vendor_assets.orchestration.runs.events import report
from vendor_assets.presentable import counted

log = get_logger(__name__)

OBSERVE_EVERY: Final = timedelta(minutes=3)
BUSY_SECONDS: Final = 300.0
"""Least time between two observations of the dead letters of a day that is being harvested."""
DAYS_PER_TICK: Final = 25
"""Days whose dead letters one tick observes; the next tick continues."""
QUEUE: Final = "queue"
"""Source of the samples of work that is queued."""
_NOT_BEGUN: Final = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)


def build_observing_sensors(account: Account) -> list[dg.SensorDefinition]:
    """The sensors that only observe; they are on from the start."""
    names = Names.for_account(account)

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
        queued = [run for run in runs if run.status in _NOT_BEGUN]
        observed = datetime.fromtimestamp(cursor.get("observed", 0), UTC)
        try:
            with closing(Backlog(vendor_api.database(), names.account)) as backlog:
                if queued or cursor.get("queued"):
                    backlog.append([_queue(names, queued, now)])
                cursor["queued"] = bool(queued)
                if runs and now - observed < OBSERVE_EVERY:
                    return dg.SensorResult(cursor=json.dumps(cursor))
                samples = backlog.read(now - timedelta(days=1))
                backlog.forget_before(now - KEEP)
        except VendorAssetsError as error:
            return dg.SkipReason(str(error))
        if runs and not cursor.get("waits") and not totals(samples, [now])[0].waits:
            # Runs that have just begun have not recorded their work yet.
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
            why=_why(vendor_api, names),
        )
        cursor |= {"observed": now.timestamp(), "waits": bool(runs)}
        return dg.SensorResult(asset_events=[observation], cursor=json.dumps(cursor))

    @dg.sensor(
        name=names.thing("dead_letters_sensor"),
        required_resource_keys=names.resources("store"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When the dead letters of a day have changed: observe them and evaluate the check none_open.",
    )
    def dead_letters_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        store: StoreResource = names.of(context, "store")
        turn, now = Turn(), datetime.now(UTC)
        # Day -> (version of its dead letters, when it was observed).
        seen: dict[str, tuple[str, float]] = {
            day: tuple(held) for day, held in json.loads(context.cursor or "{}").items()
        }
        opened = store.open()
        versions = dead_letters.versions(opened)
        changed = [
            day
            for day in sorted(seen.keys() | versions.keys())
            if seen.get(day, (None, 0.0))[0] != versions.get(day)
        ]
        if not changed:
            return dg.SkipReason("no dead letters have changed")
        # The dead letters of a day that is being harvested change all the time.
        busy = active_days(context.instance, names)
        due = [
            day
            for day in changed
            if day not in busy or now.timestamp() - seen.get(day, ("", 0.0))[1] >= BUSY_SECONDS
        ]
        observed: list[str] = []
        # One for all days of which no run is known: on SQLite each run id has a database file of its own.
        unknown = str(uuid4())
        for day in turn.pieces(due[:DAYS_PER_TICK]):
            run_id = _latest_run(context.instance, names, day) or unknown
            for event in dead_letters.events_of_day(opened, names, date.fromisoformat(day)):
                report(context.instance, event, run_id=run_id)
            seen.pop(day, None)
            if day in versions:
                seen[day] = (versions[day], now.timestamp())
            observed.append(day)
        context.update_cursor(json.dumps(seen))
        return dg.SkipReason(f"observed the dead letters of {', '.join(observed) or 'no day'}")

    @dg.sensor(
        name=names.thing("freshness_sensor"),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="While the daily schedule is on: evaluate the check fresh whenever its result changes.",
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
        description="One message, to the log and the alert's webhook, when a problem begins or ends.",
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
        return dg.SkipReason(
            text or f"nothing new; {counted(len(memory.open), 'cause is', 'causes are')} open"
        )

    return [backlog_sensor, dead_letters_sensor, freshness_sensor, alert_sensor]


def _names(store: StoreResource, day: str, keys: Sequence[str]) -> list[str]:
    """Display names of a day's troops."""
    known = dead_letters.names_of(store.open(), date.fromisoformat(day))
    return [known.get(key) or key for key in keys]


def _latest_run(instance: dg.DagsterInstance, names: Names, day: str) -> str:
    """Id of the newest run that worked on a day; empty if none is known."""
    runs = runs_of(instance, dg.RunsFilter(tags={DAY_TAG: day, **names.tags}), limit=1)
    runs = runs or [run for run in runs_of(instance, limit=20) if day in About(run, names).days]
    return runs[0].run_id if runs else ""


def _queue(names: Names, queued: Sequence[dg.DagsterRun], now: datetime) -> Sample:
    """The work that waits in the run queue, as it was estimated."""
    waiting = [About(run, names) for run in queued]
    return Sample(
        now,
        QUEUE,
        troops=sum(len(about.partitions) for about in waiting if "warriors" in about.assets),
        calls=sum(about.calls or 0 for about in waiting),
    )


def _why(vendor_api: VendorApiResource, names: Names) -> Explanation | None:
    try:
        return explain(vendor_api.snapshot(), vendor_api.work(names.account))
    except VendorAssetsError:
        return None


def _state(vendor_api: VendorApiResource) -> BudgetState | None:
    try:
        return vendor_api.state()
    except VendorAssetsError:
        return None
