"""Launching runs without the UI, in this process, with the same definitions and storage."""

import fcntl
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.budget import Leases
from vendor_assets.errors import ConfigurationError, ObjectNotFoundError, VendorAssetsError
from vendor_assets.harvest.costs import Costs
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.harvest.sizing import cut
from vendor_assets.orchestration.assets.publishing import is_published
from vendor_assets.orchestration.automation.run_requests import (
    class_tags,
    day_is_decided,
    published_assets_are_shown,
)
from vendor_assets.orchestration.dagster_private import (
    HISTORY_ERRORS,
    belong_to,
    capture_nothing,
    create_tables,
    fail_run,
    instance_from,
    keep_connections,
    read_migrations_once,
    repository_of,
)
from vendor_assets.orchestration.definitions import build_definitions, silence_warnings
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import TROOP, Partitions, day_troop_key
from vendor_assets.orchestration.runs.about import (
    ACCEPT_EMPTY_TAG,
    CALLS_TAG,
    DAY_TAG,
    FOLLOW_TAG,
    GOES_ON_TAG,
    HARVEST_JOB,
    PUBLISH_JOB,
    ROSTER_JOB,
    TITLE_TAG,
    TRIGGER_TAG,
    TROOPS_TAG,
    About,
    runs_of,
    title_of,
)
from vendor_assets.orchestration.runs.summary import Summary
from vendor_assets.presentable import counted
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.storage.roster import Roster
from vendor_assets.work_class import SCHEDULED, WorkClass

_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
RENEWAL_SECONDS: Final = 4.0
"""Time in which a live run renews its lease twice."""


@contextmanager
def open_instance(root: Path, environ: Mapping[str, str]) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a project: ``DAGSTER_HOME``, else its ``dagster.yaml``, else its folder ``.dagster``.

    Raises:
        ConfigurationError: The instance cannot be opened.
        VendorAssetsError: Its storage failed within the block.
    """
    home = root / ".dagster"
    read_migrations_once()
    try:
        if environ.get("DAGSTER_HOME"):
            instance = dg.DagsterInstance.get()
        else:
            home.mkdir(parents=True, exist_ok=True)
            with (home / "opening.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if (root / "dagster.yaml").is_file():
                    instance = instance_from(str(root))
                else:
                    instance = dg.DagsterInstance.local_temp(str(home))
                # Dagster creates SQLite's tables at their first use, and two processes at once would fail.
                create_tables(instance)
                instance.get_dynamic_partitions(TROOP)
    except Exception as error:
        # Dagster's configuration, storage and database raise all kinds of errors.
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigurationError(f"Dagster's instance at {root} cannot be opened: {said}") from error
    with instance:
        capture_nothing(instance)
        keep_connections(instance)
        belong_to(instance, repository_of(instance, root))
        try:
            yield instance
        except HISTORY_ERRORS as error:
            said = str(error).partition("\n")[0][:200]
            raise VendorAssetsError(
                f"Dagster's history at {environ.get('DAGSTER_HOME') or root} cannot be used: {said}; see that it can "
                "be written and has room, then run again: what was answered is kept"
            ) from error


class Launcher:
    """Brings days up to date in this process, run after run.

    Attributes:
        store: The account's store.
        summary: The result of the runs so far.
        left_out: A line per day of which the filters leave all troops out.

    Args:
        say: Called with one line after each run.
        stopped: Tells whether the process was asked to stop.
    """

    def __init__(
        self,
        account: Account,
        instance: dg.DagsterInstance,
        say: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        silence_warnings()
        self._definitions = build_definitions(account)
        self._account = account
        self._names = Names.for_account(account)
        resources = self._definitions.resources or {}
        self.store: ObjectStore = resources[self._names.resource("store")].open()
        self._instance = instance
        self._say = say
        self.left_out: list[str] = []
        self._stopped = stopped
        self._partitions = Partitions.of(account)
        self.summary = Summary()
        self._planned: list[int | None] = []
        # What is loaded by now lasts as long as the process: the collector need not look at it again and again.
        gc.freeze()

    def fail_lapsed_runs(self) -> None:
        """Mark runs of killed commands as failed: they are started, and their lease has lapsed."""
        leases = Leases(self._account.database_url)
        started = runs_of(
            self._instance,
            dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.STARTED], tags={FOLLOW_TAG: "self", **self._names.tags}
            ),
        )
        suspects = [run for run in started if About(run, self._names).ours and not leases.alive(run.run_id)]
        if suspects:
            # After an outage of the database all leases are stale for a moment.
            time.sleep(RENEWAL_SECONDS)
        for run in suspects:
            if not leases.alive(run.run_id):
                fail_run(self._instance, run, "the process is gone: its lease has lapsed")

    def harvest_day(
        self,
        day: date,
        *,
        troops: Sequence[str],
        replace: bool,
        work_class: WorkClass,
        report: bool,
        rebuild: bool = False,
        accept_empty: bool = False,
    ) -> None:
        """Bring one day up to date: roster, chain, and its publication once all troops are decided.

        Args:
            day: A day that is over.
            troops: Ids, partition keys or names of troops; empty means all.
            replace: Fetch finished partitions again; otherwise only what is missing.
            report: Whether to make the day's statistics and report.
            rebuild: Rebuild the chain's tables from landed answers, without calls.
            accept_empty: Accept that an account that had troops has none now.

        Raises:
            ConfigurationError: A troop is not on the day's roster.
        """
        self.summary.days.append(day.isoformat())
        tags = class_tags(self._names, work_class) | {FOLLOW_TAG: "self", DAY_TAG: day.isoformat()}
        if not replace:
            tags[TRIGGER_TAG] = "command"
        accepts = {ACCEPT_EMPTY_TAG: "true"} if accept_empty else {}
        goes_on = {} if rebuild else {GOES_ON_TAG: "true"}
        if goes_on and troops:
            goes_on[TROOPS_TAG] = json.dumps(list(troops))
        first = self._run(
            ROSTER_JOB, f"{day} roster", tags | accepts | goes_on, partition_key=day.isoformat()
        )
        # Of one that took troops the roster is there, whatever became of them.
        if first is None or not (first.run.is_success or first.taken):
            return
        chosen = self._choose(day, troops)
        self._partitions.add_troops(self._instance, chosen)
        taken = set(first.taken or ())
        costs = Costs(self.store, self._account)
        calls, foreseen = dict[str, int](), True
        # Where all are taken nothing is left to estimate, which would read some objects of each.
        if not chosen or not taken.issuperset(chosen):
            plan = costs.day(day, troops)
            if plan.left_out and not plan.troops:
                said = f"{day}: {self._account.filters} leaves all {plan.left_out} troops out"
                self._say(said)
                self.left_out.append(said)
            whole = {key: sum(of_troop.values()) for key, of_troop in plan.whole_by_key.items()}
            left = whole if replace else plan.to_come
            calls, foreseen = {key: left[key] for key in left if key not in taken}, plan.foreseen
        if not rebuild:
            told = None if first.calls is None or (calls and not foreseen) else first.calls
            self._planned.append(None if told is None else told + sum(calls.values()))
            known = [count for count in self._planned if count is not None]
            self.summary.calls_planned = sum(known) if len(known) == len(self._planned) else None
        runs = cut(calls, self._account.permitted_rate, costs.teams(day, self._account.weights))
        for number, keys in enumerate(runs, 1):
            part = f" ({number} of {len(runs)})" if len(runs) > 1 else ""
            partitions = [str(day_troop_key(day, key)) for key in keys]
            config = harvest_config(self._names, partitions, list(CHAIN), rebuild=rebuild)
            planned = {CALLS_TAG: str(sum(calls[key] for key in keys))} if foreseen and not rebuild else {}
            planned[TITLE_TAG] = title_of(partitions)
            self._run(
                HARVEST_JOB, f"{day} {counted(len(keys), 'troop')}{part}", tags | planned, run_config=config
            )
        every = self._choose(day, [])
        if report and day_is_decided(self._instance, self._account, day.isoformat(), every):
            self._publish(day, tags)

    def redrive(self, partitions: Sequence[tuple[str, date, str | None]], *, rebuild: bool = False) -> None:
        """Redrive dead letters in one run for all partitions, then publish their days again.

        Args:
            partitions: (asset, day, troop's partition key).
            rebuild: Only rebuild and report the partitions, from landed answers.
        """
        tags = class_tags(self._names, SCHEDULED) | {FOLLOW_TAG: "self", TRIGGER_TAG: "command"}
        for day in sorted({day for asset, day, _ in partitions if asset == "troops"}):
            self._run(
                ROSTER_JOB, f"{day} roster", tags | {DAY_TAG: day.isoformat()}, partition_key=day.isoformat()
            )
        keys = sorted({str(day_troop_key(day, troop)) for _, day, troop in partitions if troop is not None})
        if keys:
            self._run(
                HARVEST_JOB,
                f"{counted(len(keys), 'partition')}",
                tags | {TITLE_TAG: title_of(keys)},
                run_config=harvest_config(self._names, keys, list(CHAIN), rebuild=rebuild),
            )
        for day in sorted({day for _, day, _ in partitions}):
            whole = self._choose(day, [])
            if day_is_decided(self._instance, self._account, day.isoformat(), whole):
                self._publish(day, tags | {DAY_TAG: day.isoformat()})

    def _publish(self, day: date, tags: Mapping[str, str]) -> None:
        """Make a day's statistics and report, unless they are there, shown, and made of what is there now."""
        title = f"{day} statistics and report"
        shown = published_assets_are_shown(self._instance, self._account, day.isoformat())
        if shown and is_published(self.store, day, self._account):
            self.summary.reports.append(self.store.uri(layout.report_key(day, "html")))
            self._say(f"{title}: as they were, nothing has changed")
        else:
            self._run(PUBLISH_JOB, title, tags, partition_key=day.isoformat())

    def _choose(self, day: date, troops: Sequence[str]) -> list[str]:
        try:
            roster = Roster.read(self.store, day)
        except ObjectNotFoundError:
            return []
        return [troop.key for troop in self._account.filters.choose(roster, troops)]

    def _run(
        self,
        job_name: str,
        title: str,
        tags: Mapping[str, str],
        *,
        partition_key: str | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> About | None:
        """Run a job, and tell how it went; returns what its run was about, None if it was not started."""
        if self.summary.key_refused:
            self.summary.problems.append(f"{title}: not started: the vendor refused the key")
            return None
        job = self._definitions.resolve_job_def(self._names.thing(job_name))
        result = job.execute_in_process(
            instance=self._instance,
            partition_key=partition_key,
            run_config={**(run_config or {}), **_QUIET},
            # What a killed command left is up to the next one, which a person starts.
            tags={"user": "vendor-assets", "dagster/max_retries": "0", **tags},
            raise_on_error=False,
        )
        if self._stopped() or _interrupted(result):
            raise KeyboardInterrupt
        about = About(self._instance.get_run_by_id(result.run_id) or result.dagster_run, self._names)
        if about.taken:
            title += f" and {counted(len(about.taken), 'troop')}"
        calls, whole = self.summary.add_run(title, result)
        self._say(
            f"{title}: {'done' if whole else 'NOT COMPLETE'}, {counted(calls, 'call')} (run {result.run_id[:8]})"
        )
        return about


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a signal ended the run; Dagster catches it and fails the step."""
    failures = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return any(
        error is not None and error.cls_name == "DagsterExecutionInterruptedError" for error in failures
    )
