"""The summary of a command's runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from vendor_assets.harvest.outcome import KEY_REFUSED, NO_TROOPS
from vendor_assets.orchestration.metadata import (
    CALLS,
    DEAD_LETTERS,
    HTML,
    PACED_SECONDS,
    PATH,
    QUARANTINED_RECORDS,
    REQUESTS_MADE,
    REQUESTS_REUSED,
    RETRIES,
    ROW_COUNT,
    STATE,
    THROTTLED,
)
from vendor_assets.orchestration.runs.failures import reason_of_steps

_LEFT_OUT: Final = ("warriors_left_out", "data_groups_left_out", "values_left_out")


@dataclass
class Summary:
    """The result of a command's runs, added up from their events.

    Attributes:
        states: Number of partitions by state.
        calls_planned: Calls estimated once each day's roster was known; None if a day could not be estimated.
        problems: One line per partition that did not become complete or has records in quarantine.
        hints: One line per success that may mean a mistake.
        objects: Paths of tables.
        reports: Paths of reports.
    """

    days: list[str] = field(default_factory=list)
    rows: int = 0
    calls_made: int = 0
    calls_planned: int | None = None
    requests_made: int = 0
    requests_reused: int = 0
    throttled: int = 0
    retries: int = 0
    dead_letters: int = 0
    quarantined_records: int = 0
    paced_seconds: float = 0.0
    seconds: float = 0.0
    share_of_permitted_rate: float | None = None
    states: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Not a field: commands print all fields.
        self.key_refused = False
        self._harvested = self._emptied = 0

    @property
    def all_left_out(self) -> bool:
        """Whether filters left out all data of every troop: most likely a pattern is mistyped."""
        return 0 < self._harvested == self._emptied

    @property
    def complete(self) -> bool:
        """Whether every partition is complete."""
        return not self.problems

    def add_run(self, title: str, result: dg.ExecuteInProcessResult) -> tuple[int, bool]:
        """Add a run's events; returns its calls and whether everything became complete."""
        calls, problems = self.calls_made, len(self.problems)
        troops = silent = 0
        for event in result.all_events:
            if event.is_step_materialization:
                made = event.step_materialization_data.materialization
                self._add(made.metadata)
                rows = made.metadata.get(ROW_COUNT)
                if made.asset_key.path[-1] == "troops" and rows is not None and rows.value == 0:
                    self.hints.append(f"{made.partition}: the vendor lists no troops; {NO_TROOPS}")
                if made.asset_key.path[-1] == "performance_data":
                    self._harvested += 1
                    empty = rows is not None and rows.value == 0
                    left_out = empty and any(name in made.metadata for name in _LEFT_OUT)
                    self._emptied += left_out
                    troops, silent = troops + 1, silent + (empty and not left_out)
                aside = made.metadata.get(QUARANTINED_RECORDS)
                if aside is not None and aside.value:
                    where = f"{made.asset_key.to_user_string()} {made.partition}"
                    self.problems.append(f"{where}: {made.description}")
            elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
                seen = event.asset_observation_data.asset_observation
                self._add(seen.metadata)
                self.key_refused = self.key_refused or KEY_REFUSED in seen.metadata
                where = f"{seen.asset_key.to_user_string()} {seen.partition}"
                self.problems.append(f"{where}: {seen.metadata[STATE].value}: {seen.description}")
        if troops == silent > 1:
            self.hints.append(f"{title}: no troop has any data; may the key see their warriors and metrics?")
        if not result.success and len(self.problems) == problems:
            self.problems.append(f"{title}: {reason_of_steps(result.all_events)[1]}")
        return self.calls_made - calls, result.success and len(self.problems) == problems

    def _add(self, metadata: Mapping[str, Any]) -> None:
        """Add one event's metadata."""
        value = {name: item.value for name, item in metadata.items()}
        state = value.get(STATE, "complete")
        self.states[state] = self.states.get(state, 0) + 1
        self.rows += value.get(ROW_COUNT, 0) if CALLS in value else 0
        self.calls_made += value.get(CALLS, 0)
        # Fields with the name of their metadata.
        for name in (
            REQUESTS_MADE, REQUESTS_REUSED, THROTTLED, RETRIES, DEAD_LETTERS, QUARANTINED_RECORDS,
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + value.get(name, 0))
        self.paced_seconds += value.get(PACED_SECONDS, 0.0)
        if PATH in value:
            self.objects.append(value[PATH])
        if HTML in value:
            self.reports.append(value[HTML])
