"""A run launcher that takes a run for alive while its lease is renewed, whatever another launcher says of it.

Where a launcher asks a broker or a cluster whether a run lives, an answer that is lost (a broker that was restarted
without its memory) has Dagster fail runs that go on. A lease is renewed by the run's own process.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import dagster as dg

from vendor_assets.budget import Leases
from vendor_assets.orchestration.dagster_private import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)


class LeasedRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Launches runs with another launcher; a run whose lease is renewed is healthy.

    Args:
        launcher: The other launcher: its module, class and config, as in ``dagster.yaml``.
        databases: Addresses of the databases in which runs hold leases: one per budget's database.
    """

    def __init__(
        self,
        launcher: Mapping[str, Any],
        databases: Sequence[str],
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inst_data = inst_data
        configured = ConfigurableClassData(
            launcher["module"], launcher["class"], json.dumps(launcher.get("config") or {})
        )
        self._launcher: RunLauncher[dg.DagsterInstance] = configured.rehydrate(as_type=RunLauncher)  # type: ignore[type-abstract]
        self._leases = [Leases(address) for address in databases]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Where it was configured."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        """The fields of its ``config`` in ``dagster.yaml``."""
        inner = {"module": str, "class": str, "config": dg.Field(dg.Permissive(), is_required=False)}
        address = [{"env": "VENDOR_ASSETS_DB"}]
        return {
            "launcher": inner,
            "databases": dg.Field(dg.Array(dg.StringSource), default_value=address),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make one from ``dagster.yaml``."""
        return cls(config_value["launcher"], config_value["databases"], inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Belong to an instance, both of the two."""
        super().register_instance(instance)
        self._launcher.register_instance(instance)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run."""
        self._launcher.launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Stop a run; returns False if it was over."""
        return self._launcher.terminate(run_id)

    def dispose(self) -> None:
        """Let go of what is held."""
        self._launcher.dispose()

    def join(self, timeout: int = 30) -> None:
        """Wait for what was launched."""
        self._launcher.join(timeout)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether the other launcher knows how a run is; leases alone are judged by ``lapsed_runs_sensor``."""
        return self._launcher.supports_check_run_worker_health

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """How a run is.

        Raises:
            BudgetUnavailableError: The other launcher says that it is not well, and nobody can tell whether its lease
                is renewed. Dagster then asks again later.
        """
        found = self._launcher.check_run_worker_health(run)
        if found.status in (WorkerStatus.RUNNING, WorkerStatus.SUCCESS):
            return found
        if any(leases.alive(run.run_id) for leases in self._leases):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"its lease is renewed, though: {found}")
        return found

    def get_run_worker_debug_info(
        self, run: dg.DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """What the other launcher says of a run that failed."""
        return self._launcher.get_run_worker_debug_info(run, include_container_logs)

    @property
    def supports_resume_run(self) -> bool:
        """Whether the other launcher can resume a run."""
        return self._launcher.supports_resume_run

    def resume_run(self, context: ResumeRunContext) -> None:
        """Resume a run."""
        self._launcher.resume_run(context)
