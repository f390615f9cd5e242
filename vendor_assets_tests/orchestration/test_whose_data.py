"""A store holds the data of one vendor: no run, click or command works on somebody else's, or calls the vendor."""

from __future__ import annotations

from pathlib import Path

import boto3
import dagster as dg
import pytest

from vendor_assets.cli import main
from vendor_assets.errors import StorageUnavailableError
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import PUBLISH_JOB, RETENTION_JOB, ROSTER_JOB, SIGHTINGS_JOB
from vendor_assets.storage.marker import open_marked_store
from vendor_assets.storage.source import Source
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.deployment import deploy, yesterday
from vendor_assets_tests.support.ignorant_s3 import ignorant_s3
from vendor_assets_tests.support.simulator import RunningSimulator, simulator

DAY = yesterday().isoformat()
KEY = "whose-key"
SOMEBODY = Source("new_relic", "https://somebody.example")


@pytest.fixture(scope="module")
def asked() -> object:
    """A vendor that is not to be asked."""
    with simulator(world="small", churn=False, api_key=KEY) as running:
        yield running


def taken(folder: Path) -> Path:
    """A store that holds somebody else's data."""
    store, _ = open_marked_store(str(folder / "data"), SOMEBODY)
    store.put("processed/troops/day=2026-11-01/data.parquet", b"theirs")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything in the store but the budget's database."""
    return {
        str(path): path.read_bytes()
        for path in (folder / "data").rglob("*")
        if path.is_file() and not path.name.startswith("budget.db") and ".store" not in path.parts
    }


def test_no_run_works_on_somebody_elses_store(
    tmp_path: Path, asked: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job and each asset fails with one line that names both, without a call and without a write."""
    folder = taken(tmp_path)
    before, calls = snapshot(folder), asked.log()["requests"]
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = deploy(
            folder, instance, VENDOR_URL=asked.url, VENDOR_API_KEY=KEY, VENDOR_ASSETS_RETENTION="1"
        )
        for job in (ROSTER_JOB, SIGHTINGS_JOB, RETENTION_JOB, PUBLISH_JOB, "harvest"):
            config = harvest_config(Names(), [f"{DAY}|1"], ["warriors"]) if job == "harvest" else {}
            partition = DAY if job in (ROSTER_JOB, PUBLISH_JOB) else None
            result = deployment.run(dg.RunRequest(job_name=job, run_config=config, partition_key=partition))
            said = " ".join(str(event) for event in result.all_events)
            assert not result.success, job
            assert f"holds the data of {SOMEBODY}, but" in said, job
        for sensor in ("roster_sensor", "redrive_sensor", "dead_letters_sensor"):
            try:
                outcome, _ = deployment.sensor(sensor)
            except Exception as error:
                assert f"holds the data of {SOMEBODY}" in str(error), sensor  # noqa: PT017  either way is right
            else:
                assert not (isinstance(outcome, dg.SensorResult) and outcome.run_requests), sensor
    assert (snapshot(folder), asked.log()["requests"]) == (before, calls)


@pytest.mark.parametrize(
    "arguments",
    [
        ["harvest"],
        ["harvest", "--rebuild"],
        ["plan"],
        ["status"],
        ["sync"],
        ["backfill"],
        ["dead-letters", "list"],
        ["dead-letters", "redrive"],
        ["demo"],
    ],
    ids=" ".join,
)
def test_no_command_works_on_somebody_elses_store(
    tmp_path: Path,
    asked: RunningSimulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    """Each command says whose data the store holds and what is configured, and asks the vendor nothing."""
    folder = taken(tmp_path)
    before, calls = snapshot(folder), asked.log()["requests"]
    monkeypatch.chdir(folder)
    for name, value in {"VENDOR_URL": asked.url, "VENDOR_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    code = main(arguments)
    said = "".join(capsys.readouterr())
    assert code != 0
    assert "Traceback" not in said
    if arguments == ["demo"]:
        assert f"but new_relic@{asked.url} is configured here" in said
    else:
        assert f"holds the data of {SOMEBODY}, but new_relic@{asked.url} is configured" in said
    assert (snapshot(folder), asked.log()["requests"]) == (before, calls)


def test_the_doctor_does_not_ask_for_somebody_elses_store(tmp_path: Path, asked: RunningSimulator) -> None:
    """It says what is wrong with the store, and asks the vendor nothing."""
    folder = taken(tmp_path)
    before, calls = snapshot(folder), asked.log()["requests"]
    found = Command(folder, {"VENDOR_URL": asked.url, "VENDOR_API_KEY": KEY}).run("doctor")
    assert found.code == 1
    assert "failed   vendor      not asked: see the store below" in found.out
    assert f"failed   store       store {folder}/data holds the data of {SOMEBODY}, but" in found.out
    assert (snapshot(folder), asked.log()["requests"]) == (before, calls)


def test_a_store_that_ignores_conditions_gets_nothing(
    tmp_path: Path, asked: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is refused before its first write and its first call, on a new store and where the server was changed."""
    calls = asked.log()["requests"]
    with ignorant_s3() as server, dg.DagsterInstance.ephemeral() as instance:
        for name, value in (server.environment | {"VENDOR_API_KEY": KEY}).items():
            monkeypatch.setenv(name, value)
        environ = {"VENDOR_ASSETS_STORE": "s3://bucket/lake", "VENDOR_URL": asked.url, "VENDOR_API_KEY": KEY}
        environ |= {"VENDOR_ASSETS_DB": "sqlite:///budget.db"}
        deployment = deploy(tmp_path, instance, **environ)

        def refused() -> str:
            result = deployment.run(dg.RunRequest(job_name=SIGHTINGS_JOB))
            assert not result.success
            return " ".join(str(event) for event in result.all_events)

        assert "ignores If-None-Match, so two writers could mix" in refused()
        assert server.objects == {}
        server.keeps_conditions = True
        store, _ = open_marked_store(environ["VENDOR_ASSETS_STORE"], deployment.account.source)
        store.put("a", b"1")
        before = dict(server.objects)
        assert len(before) == 2
        # The store is known to keep them, and another server has taken its place.
        server.keeps_conditions = False
        assert "ignores If-None-Match, so two writers could mix" in refused()
        assert server.objects == before
    assert asked.log()["requests"] == calls


def test_a_store_whose_listings_lag_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has landed is found by listing: a store that does not list it at once is refused before its first object."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with ignorant_s3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.keeps_conditions, server.lists = True, False
        with pytest.raises(StorageUnavailableError, match="does not list what was just written"):
            open_marked_store("s3://bucket/lake", SOMEBODY)[0].put("a", b"1")
        assert server.objects == {}
        server.lists = True
        open_marked_store("s3://bucket/lake", SOMEBODY)[0].put("a", b"1")
        assert len(server.objects) == 2


def test_a_store_is_moved_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``store`` shows what is held and configured; ``store move`` takes the present value and nothing else."""
    folder = taken(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VENDOR_URL", "https://new.example")
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    assert main(["store"]) == 0
    shown = capsys.readouterr().out
    assert f"holds       {SOMEBODY}, since" in shown
    assert "configured  new_relic@https://new.example" in shown
    assert main(["store", "move", "--from", "new_relic@https://new.example"]) == 2
    assert "nothing was changed" in capsys.readouterr().err
    assert main(["store", "move", "--from", str(SOMEBODY)]) == 0
    assert main(["dead-letters", "list"]) == 0
    assert KEY not in "".join(path.read_text(errors="replace") for path in folder.rglob("*.json"))
