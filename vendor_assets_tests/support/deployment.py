"""A deployment for tests: settings, definitions and an instance of its own, in a temporary folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from vendor_assets.account import Account
from vendor_assets.orchestration.definitions import build_definitions, build_resources
from vendor_assets.orchestration.names import Names
from vendor_assets.settings import read
from vendor_assets.storage.objects import ObjectStore


def yesterday() -> date:
    """The newest day that is over, in UTC."""
    return datetime.now(UTC).date() - timedelta(days=1)


@dataclass
class Deployment:
    """Everything that a Dagster deployment consists of, without its processes."""

    account: Account
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    resources: Mapping[str, Any]

    @property
    def store(self) -> ObjectStore:
        """Its object store."""
        store: ObjectStore = self.resources[Names(self.account.name).resource("store")].open()
        return store

    def sensor(
        self, name: str, cursor: str | None = None
    ) -> tuple[dg.SensorResult | dg.SkipReason, str | None]:
        """One tick of a sensor: what it wants, and its cursor afterwards."""
        sensor = self.definitions.resolve_sensor_def(name)
        wanted = {key: self.resources[key] for key in sensor.required_resource_keys}
        with dg.build_sensor_context(
            instance=self.instance, cursor=cursor, resources=wanted, definitions=self.definitions
        ) as context:
            # Called itself, Dagster hands the resources over as arguments, which a tick does not.
            result = sensor._raw_fn(context)
            after = result.cursor if isinstance(result, dg.SensorResult) else context.cursor
        if isinstance(result, dg.SensorResult):
            for event in result.asset_events:
                self.instance.report_runless_asset_event(event)
        return result, after

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute what a sensor requested."""
        if request.asset_selection:
            return self.materialize(
                *[key.to_user_string() for key in request.asset_selection],
                partition=str(request.partition_key),
                tags=dict(request.tags),
            )
        job = self.definitions.resolve_job_def(str(request.job_name))
        return job.execute_in_process(
            instance=self.instance,
            run_config=request.run_config,
            tags=dict(request.tags),
            partition_key=request.partition_key,
            raise_on_error=False,
        )

    def materialize(
        self,
        *assets: str,
        partition: str | None = None,
        between: tuple[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """What a click in the UI does: one partition, or a range of them in one run."""
        keys = [dg.AssetKey.from_user_string(name) for name in assets]
        ranged = (
            {
                "dagster/asset_partition_range_start": between[0],
                "dagster/asset_partition_range_end": between[1],
            }
            if between
            else {}
        )
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            partition_key=partition,
            tags=ranged | dict(tags or {}),
            run_config=dict(run_config or {}),
            raise_on_error=False,
        )


def deploy(folder: Path, instance: dg.DagsterInstance, **environ: str) -> Deployment:
    """A deployment with its store in a folder; settings by their names in the environment."""
    environ = {"VENDOR_ASSETS_STORE": str(folder / "data"), "VENDOR_ASSETS_SETTLING": "0"} | environ
    account = read(environ, root=folder)
    return Deployment(account, build_definitions(account), instance, build_resources(account))
