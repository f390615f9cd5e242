"""The doctor's findings, part by part: what is well, what is not, and what to do; nothing here is a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from vendor_assets.errors import (
    BudgetDeadlineError,
    BudgetUnavailableError,
    StoppedError,
    StorageUnavailableError,
    VendorAssetsError,
    VendorNotFoundError,
    VendorThrottledError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.orchestration import doctor
from vendor_assets.orchestration.doctor import examine
from vendor_assets.orchestration.partitions import TROOP
from vendor_assets.settings import read
from vendor_assets.storage.folder import FolderStore


@dataclass
class Vendor:
    """Stands for the vendor and its budget; each part can be ill."""

    error: VendorAssetsError | None = None
    ahead_seconds: float | None = 0.0
    database_error: VendorAssetsError | None = None
    asked: int = 0
    ended: Callable[[], bool] = lambda: False
    leases_alive: list[Any] = field(default_factory=list)

    @contextmanager
    def client(self, **_: Any) -> Iterator[Any]:
        def fetch(*_: Any, ended: Callable[[], bool], **__: Any) -> None:
            self.asked += 1
            self.ended = ended
            if self.error:
                raise self.error

        yield SimpleNamespace(fetch=fetch, vendor_ahead_seconds=self.ahead_seconds)

    def state(self) -> Any:
        return SimpleNamespace(
            limits=("1000/min",), permitted_rate=13.3, share=0.8, why="the limit of 1000/min"
        )

    def leases(self) -> Any:
        def everyone() -> list[Any]:
            if self.database_error:
                raise self.database_error
            return self.leases_alive

        return SimpleNamespace(all=everyone)


def findings(
    folder: Path,
    vendor: Vendor,
    *,
    store: Any = None,
    instance: dg.DagsterInstance | None = None,
    **account: str,
) -> dict[str, tuple[str, str]]:
    read_settings = read({"VENDOR_ASSETS_START": "2026-11-01", **account}, root=folder)
    opened = SimpleNamespace(open=lambda: store or FolderStore(folder / "data"))
    with instance or dg.DagsterInstance.ephemeral() as dagster:
        found = examine(read_settings, vendor, opened, dagster)  # type: ignore[arg-type]
        return {finding.part: (finding.state, finding.text) for finding in found}


def test_a_healthy_deployment_is_well_in_every_part(tmp_path: Path) -> None:
    """Each part has a line; only Dagster's daemon, which does not run here, is worth a look."""
    found = findings(tmp_path, Vendor())
    assert {part: state for part, (state, _) in found.items() if state != "ok"} == {"dagster": "warning"}
    assert {"database", "vendor", "clock", "quota", "store", "disk", "demand", "partitions"} <= found.keys()
    assert "accepts the key" in found["vendor"][1]
    assert "1000/min, our share 80%: 13.3 calls a second" in found["quota"][1]
    assert "not known before the first harvest" in found["demand"][1]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (VendorUnauthorizedError("the key was refused", status=401), "restart the code location"),
        (VendorUnavailableError("refuses connections"), "VENDOR_URL right"),
        (VendorThrottledError("429", status=429), "VENDOR_SHARE"),
        (VendorNotFoundError("404", status=404), "VENDOR_URL"),
    ],
)
def test_what_the_vendor_says_comes_with_what_to_do(
    tmp_path: Path, error: VendorAssetsError, advice: str
) -> None:
    """A vendor that refuses, is away or throttles fails its part, with its own words and a next step."""
    state, text = findings(tmp_path, Vendor(error=error))["vendor"]
    assert state == "failed"
    assert text.startswith(f"{error}; ")
    assert advice in text


@pytest.mark.parametrize(
    "error", [StoppedError("asked to stop"), BudgetDeadlineError("a call would wait 27 h for the budget")]
)
def test_a_budget_that_gives_no_call_is_no_illness_of_the_vendor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: VendorAssetsError
) -> None:
    """A quota that is used up for hours ends the wait, warns, and leads to the budget."""
    vendor = Vendor(error=error)
    state, text = findings(tmp_path, vendor)["vendor"]
    assert state == "warning"
    assert text.startswith("not asked: ")
    assert "vendor-assets budget" in text
    ended = []
    for seconds in (1e9, -1.0):
        monkeypatch.setattr(doctor, "PATIENCE_SECONDS", seconds)
        ended.append(vendor.ended())
    assert ended == [False, True]


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (None, "warning", "sent no date"),
        (59.0, "ok", "agree to 59 s"),
        (-60.0, "ok", "agree to 60 s"),
        (3600.0, "failed", "behind the vendor's"),
        (-7200.0, "failed", "ahead of the vendor's"),
    ],
)
def test_clocks_may_differ_by_a_minute(tmp_path: Path, ahead: float | None, state: str, words: str) -> None:
    """A clock further off than a minute fails, on the side on which it is off: days would be cut wrongly."""
    found = findings(tmp_path, Vendor(ahead_seconds=ahead))["clock"]
    assert found[0] == state
    assert words in found[1]


def test_without_its_database_nothing_is_asked(tmp_path: Path) -> None:
    """Every call asks the budget first: where that is away, the vendor is not called, and the parts say why."""
    vendor = Vendor(database_error=BudgetUnavailableError("the database is away"))
    found = findings(tmp_path, vendor)
    assert found["database"] == ("failed", "the database is away")
    assert {found[part][0] for part in ("vendor", "clock", "quota")} == {"failed"}
    assert vendor.asked == 0


def test_a_store_that_fails_does_not_hide_the_rest(tmp_path: Path) -> None:
    """What the store says is its finding; what needs the store is left out, everything else is there."""

    def check() -> None:
        raise StorageUnavailableError("s3://b ignores If-Match")

    found = findings(tmp_path, Vendor(), store=SimpleNamespace(check=check, url="s3://b"))
    assert found["store"] == ("failed", "s3://b ignores If-Match")
    assert "demand" not in found
    assert found["vendor"][0] == "ok"
    assert {"dagster", "partitions"} <= found.keys()


def test_a_full_disk_and_very_many_partitions_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a GiB, and more than a hundred thousand partitions, are said before they hurt."""
    usage = SimpleNamespace(free=doctor.FREE_BYTES - 1)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(TROOP, [str(number) for number in range(6000)])
    found = findings(tmp_path, Vendor(), instance=instance)
    assert found["disk"][0] == "warning"
    assert found["partitions"][0] == "warning"
    assert "VENDOR_ASSETS_START" in found["partitions"][1]


@pytest.mark.parametrize(("age", "state"), [(10, "ok"), (doctor.DAEMON_SECONDS + 60, "warning")])
def test_a_daemon_is_alive_while_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, state: str
) -> None:
    """A heartbeat of the last two minutes is a running daemon."""
    beat = SimpleNamespace(timestamp=time.time() - age)
    monkeypatch.setattr(dg.DagsterInstance, "get_daemon_heartbeats", lambda _: {"SENSOR": beat})
    assert findings(tmp_path, Vendor())["dagster"][0] == state
