"""A run that renews its lease is not failed by Dagster's monitoring, whatever the launcher has lost track of."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pytest
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from vendor_assets.budget import Leases
from vendor_assets_tests.support.clock import FakeClock


class Forgetful(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Like one whose broker was restarted without its memory."""

    says: ClassVar[WorkerStatus] = WorkerStatus.UNKNOWN
    calls: ClassVar[list[str]] = []

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()
        self._inst_data = inst_data

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {"broker": dg.StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> Forgetful:
        cls.calls.append(config_value["broker"])
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        self.calls.append(f"launch {context.dagster_run.run_id}")

    def terminate(self, run_id: str) -> bool:
        self.calls.append(f"terminate {run_id}")
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        return CheckRunHealthResult(self.says, "the task is unknown")


def configured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    """An instance as dagster.yaml has it."""
    monkeypatch.setenv("VENDOR_ASSETS_DB", f"sqlite:///{folder / 'budget.db'}")
    monkeypatch.setenv("BROKER", "redis://somewhere")
    monkeypatch.setattr(Forgetful, "calls", [])
    other = {"module": __name__, "class": "Forgetful", "config": {"broker": {"env": "BROKER"}}}
    launcher = {
        "module": "vendor_assets.orchestration.run_launcher",
        "class": "LeasedRunLauncher",
        "config": {"launcher": other},
    }
    document = {
        "run_launcher": launcher,
        "storage": {"sqlite": {"base_dir": str(folder)}},
        "run_monitoring": {"enabled": True},
        "telemetry": {"enabled": False},
    }
    (folder / "dagster.yaml").write_text(json.dumps(document))
    return dg.DagsterInstance.from_config(str(folder))


def test_a_run_that_renews_its_lease_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster's monitoring leaves it alone; once the lease has lapsed the launcher is believed."""
    with configured(tmp_path, monkeypatch) as instance:
        run = instance.add_run(dg.DagsterRun("roster", status=dg.DagsterRunStatus.STARTING))
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        instance.run_storage.handle_run_event(run.run_id, event, datetime.now(UTC))

        def monitored() -> dg.DagsterRunStatus:
            with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
                errors = list(execute_run_monitoring_iteration(workspace, logging.getLogger("test")))
            assert not any(errors)
            found = instance.get_run_by_id(run.run_id)
            assert found is not None
            return found.status

        with Leases(f"sqlite:///{tmp_path / 'budget.db'}").hold(run.run_id, info={}):
            for says in (WorkerStatus.UNKNOWN, WorkerStatus.NOT_FOUND, WorkerStatus.FAILED):
                monkeypatch.setattr(Forgetful, "says", says)
                assert monitored() == dg.DagsterRunStatus.STARTED
        Leases(f"sqlite:///{tmp_path / 'budget.db'}", clock=FakeClock()).renew(run.run_id, {})
        assert monitored() == dg.DagsterRunStatus.FAILURE


def test_all_else_is_done_by_the_other_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It launches and ends runs, with its own config, and a run that it calls well is well without a lease."""
    monkeypatch.setattr(Forgetful, "says", WorkerStatus.RUNNING)
    with configured(tmp_path, monkeypatch) as instance:
        run, launcher = dg.DagsterRun("roster"), instance.run_launcher
        launcher.launch_run(LaunchRunContext(run, None))
        assert launcher.terminate(run.run_id)
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert (launcher.supports_resume_run, launcher.get_run_worker_debug_info(run)) == (False, None)
        assert Forgetful.calls == ["redis://somewhere", f"launch {run.run_id}", f"terminate {run.run_id}"]
        shown = str(instance.info_dict()["run_launcher"])
        assert "budget.db" not in shown


def test_nobody_is_failed_while_the_leases_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check raises, which Dagster logs and repeats later."""
    with configured(tmp_path, monkeypatch) as instance:
        launcher = instance.run_launcher
        (tmp_path / "budget.db").mkdir()
        with pytest.raises(Exception, match="cannot be used"):
            launcher.check_run_worker_health(dg.DagsterRun("roster"))
