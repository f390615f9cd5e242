"""One attack on a deployment: harvest, look at what shows, harvest again, compare with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus

from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.partitions import Partitions, day_troop_key
from vendor_assets.orchestration.runs.about import FOLLOW_TAG, HARVEST_JOB, TRIGGER_TAG
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday
from vendor_assets_tests.support.secrets import SECRET, files_with_secret, forms, logs_with_bodies
from vendor_assets_tests.support.simulator import RunningSimulator
from vendor_assets_tests.support.truth import Rows, harvested_rows, key_of, true_rows

_WORDS = {
    AssetPartitionStatus.MATERIALIZED: "green",
    AssetPartitionStatus.FAILED: "failed",
    AssetPartitionStatus.IN_PROGRESS: "running",
}


@dataclass
class Trial:
    """A deployment under attack.

    Attributes:
        folder: Where its store is.
        vendor: Whom it harvests.
        day: Which day.
    """

    folder: Path
    deployment: Deployment
    vendor: RunningSimulator
    logs: pytest.LogCaptureFixture
    day: date

    @classmethod
    def deploy(
        cls,
        folder: Path,
        instance: dg.DagsterInstance,
        vendor: RunningSimulator,
        logs: pytest.LogCaptureFixture,
    ) -> Trial:
        """A deployment with a store in a folder; the key comes from the environment."""
        environ = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": SECRET, "VENDOR_RATE": "500/s"}
        return cls(folder, deploy(folder, instance, **environ), vendor, logs, yesterday())

    @property
    def troops(self) -> list[str]:
        """Partition keys of the day's troops, in the vendor's order."""
        return [key_of(troop) for troop in self.vendor.world.troops_on(self.day, "UTC")]

    def harvest(self, troops: Sequence[str] = ()) -> list[dg.ExecuteInProcessResult]:
        """What the command does: the roster, then the chain of these troops; nothing finished is asked again."""
        tags = {TRIGGER_TAG: "command", FOLLOW_TAG: "self"}
        roster = self.deployment.materialize("troops", partition=self.day.isoformat(), tags=tags)
        if not roster.success:
            return [roster]
        chosen = list(troops) or self.troops
        self.deployment.instance.add_dynamic_partitions("troop", chosen)
        config = harvest_config(Names(), [day_troop_key(self.day, key) for key in chosen], list(CHAIN))
        request = dg.RunRequest(job_name=HARVEST_JOB, run_config=config, tags=tags)
        return [roster, self.deployment.run(request)]

    def click(self, asset: str, troop: str) -> dg.ExecuteInProcessResult:
        """Materialize one partition by hand."""
        return self.deployment.materialize(asset, partition=day_troop_key(self.day, troop))

    def states(self, asset: str = "performance_data") -> dict[str, str]:
        """What the UI shows of each troop's partition: ``green``, ``failed``, ``running`` or ``missing``."""
        keys = [day_troop_key(self.day, troop) for troop in self.troops]
        found = self.deployment.instance.get_status_by_partition(
            dg.AssetKey(asset), keys, Partitions.of(self.deployment.account).day_troop
        )
        shown = found or {}
        return {
            troop: _WORDS[status] if (status := shown.get(key)) else "missing"
            for troop, key in zip(self.troops, keys, strict=True)
        }

    def numbers(self, asset: str, troop: str) -> dict[str, Any]:
        """Metadata of the newest materialization or observation of a partition."""
        records = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[day_troop_key(self.day, troop)])
        instance = self.deployment.instance
        found = [
            *instance.fetch_materializations(records, limit=1).records,
            *instance.fetch_observations(records, limit=1).records,
        ]
        newest = max(found, key=lambda record: record.storage_id)
        data = newest.asset_materialization or newest.event_log_entry.asset_observation
        assert data is not None
        return {name: value.value for name, value in data.metadata.items()} | {"message": data.description}

    def letters(self) -> dict[tuple[str, str | None], tuple[DeadLetter, ...]]:
        """All dead letters, by asset and troop."""
        parts = DeadLetters(self.deployment.store).all()
        return {(part.asset, part.troop_key): part.letters for part in parts if part.letters}

    def rows(self) -> Rows:
        """What was harvested."""
        return harvested_rows(self.deployment.store, self.day)

    def truth(self) -> Rows:
        """What there is to harvest."""
        return true_rows(self.vendor.world, self.day)

    def assert_whole(self) -> str:
        """Nothing is lost and nothing invented; tells how many rows there are."""
        harvested, truth = self.rows(), self.truth()
        assert harvested == truth, (
            f"{len(truth.keys() - harvested.keys())} lost, {len(harvested.keys() - truth.keys())} invented, "
            f"{sum(1 for key in truth.keys() & harvested.keys() if truth[key] != harvested[key])} differ"
        )
        return f"{len(harvested)} of {len(truth)}"

    def assert_discreet(self) -> None:
        """No key in the store, an event or a log; no answer's body in an event or a log."""
        instance = self.deployment.instance
        events = [
            str(entry.to_json()) for run in instance.get_runs() for entry in instance.all_logs(run.run_id)
        ]
        said = [*events, self.logs.text]
        told = [text for text in said if any(form.decode() in text for form in forms(SECRET))]
        kept = files_with_secret(self.folder)
        assert not kept, f"the key is in {kept}"
        assert not told, f"the key is in {told[0][:2000]}"
        bodies = logs_with_bodies(said)
        assert not bodies, f"an answer is in the log: {bodies[0]}"
