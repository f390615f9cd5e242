"""Alerts: one message for a cause, none while it lasts, one when it is over; judged by what a webhook received."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)

from vendor_assets.client.network import Network
from vendor_assets.client.webhook import post
from vendor_assets.errors import ConfigurationError, MessageError, Reason, VendorRejectedError
from vendor_assets.harvest.dead_letters import DeadLetter, DeadLetters, DeadPartition
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN
from vendor_assets.orchestration.automation import alerts
from vendor_assets.orchestration.automation.freshness import GRACE, Freshness, freshness, scheduled_since
from vendor_assets.orchestration.dagster_private import fail_run
from vendor_assets.orchestration.jobs import harvest_config
from vendor_assets.orchestration.names import Names
from vendor_assets.orchestration.runs.about import TRIGGER_TAG
from vendor_assets.settings import read
from vendor_assets.storage import layout
from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets_tests.support.deployment import Deployment, deploy, yesterday
from vendor_assets_tests.support.simulator import KEY, RunningSimulator
from vendor_assets_tests.support.truth import key_of
from vendor_assets_tests.support.webhook import SECRET, Webhook, webhook

DAY = yesterday()
DEAD = "leaves are dead letters, first GET /v2/applications"
REJECTED = "/metrics/data.json: the vendor rejects the request (status 400)"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@dataclass
class Alerting:
    """A deployment whose alerts go to a webhook."""

    deployment: Deployment
    hook: Webhook
    cursor: str | None = None

    def tick(self) -> list[str]:
        """One tick of the sensor; the messages that came of it."""
        before = len(self.hook.received)
        _, self.cursor = self.deployment.sensor("alert_sensor", self.cursor)
        return self.hook.texts[before:]

    def harvest(self, *keys: str) -> bool:
        """Bring some partitions of the day up to date in one run, as the sensors do."""
        job = self.deployment.definitions.resolve_job_def("harvest")
        result = job.execute_in_process(
            instance=self.deployment.instance,
            run_config=harvest_config(Names(), [f"{DAY}|{key}" for key in keys], list(CHAIN)),
            tags={TRIGGER_TAG: "sensor"},
            raise_on_error=False,
        )
        return bool(result.success)


@pytest.fixture
def alerting(
    tmp_path: Path, vendor: RunningSimulator, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Alerting]:
    monkeypatch.setenv("VENDOR_API_KEY", KEY)
    monkeypatch.setenv("VENDOR_ASSETS_ALERT_URL", hook.url)
    environ = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"}
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = deploy(tmp_path, instance, VENDOR_ASSETS_ALERT_URL=hook.url, **environ)
        assert deployment.materialize("troops", partition=DAY.isoformat()).success
        keys = [key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC")]
        instance.add_dynamic_partitions("troop", keys)
        yield Alerting(deployment, hook)


def test_one_message_for_a_cause_and_one_when_it_is_over(
    alerting: Alerting, vendor: RunningSimulator
) -> None:
    """Several troops and several runs fail for one reason: one message with what to do; repaired: one more."""
    troops = vendor.world.troops_on(DAY, "UTC")
    keys = [key_of(troop) for troop in troops]
    assert alerting.tick() == []
    vendor.faults([{"kind": "status", "status": 400, "match": "/hosts/.*data.json"}])
    assert not alerting.harvest(*keys[:2])
    assert not alerting.harvest(*keys[2:])
    (text,) = alerting.tick()
    assert text.startswith(f"performance_data of {DAY}: {len(keys)} troops failed: ")
    assert "status 400" in text
    assert troops[0].name in text
    assert "next: vendor-assets dead-letters list" in text
    assert alerting.tick() == []
    assert not alerting.harvest(keys[0])
    assert alerting.tick() == []
    vendor.clear_faults()
    assert alerting.harvest(keys[0])
    assert alerting.tick() == []
    assert alerting.harvest(*keys[1:])
    (over,) = alerting.tick()
    assert over.startswith("over after ")
    assert alerting.tick() == []
    assert alerting.hook.types == ["application/json"] * 2


def test_two_causes_are_one_digest(alerting: Alerting, vendor: RunningSimulator) -> None:
    """What goes wrong at the same time is told at the same time, each cause by itself."""
    troops = vendor.world.troops_on(DAY, "UTC")
    alerting.tick()
    vendor.faults(
        [
            {"kind": "status", "status": 400, "match": f"/applications/{troops[0].id}/hosts/.*data.json"},
            {"kind": "status", "status": 422, "match": f"/applications/{troops[1].id}/hosts/.*metrics.json"},
        ]
    )
    assert not alerting.harvest(*map(key_of, troops))
    (text,) = alerting.tick()
    assert f"performance_data of {DAY}: 1 troop failed" in text
    assert f"data_groups of {DAY}: 1 troop failed" in text
    assert text.count("next: ") == 2


def test_a_refused_key_says_what_to_do(alerting: Alerting, vendor: RunningSimulator) -> None:
    """One message names the key, not one for each troop; the key itself is in none."""
    keys = [key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC")]
    alerting.tick()
    vendor.faults([{"kind": "status", "status": 401, "match": "/hosts"}])
    assert not alerting.harvest(*keys)
    (text,) = alerting.tick()
    assert f"warriors of {DAY}: {len(keys)} troops failed" in text
    assert "VENDOR_API_KEY" in text
    assert KEY not in text


def test_what_a_run_completed_before_it_died_has_not_failed(
    alerting: Alerting, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message names what the run left undone; of one that died after its last step there is none."""
    keys = [key_of(troop) for troop in vendor.world.troops_on(DAY, "UTC")]
    chain = Harvester.chain

    def died(harvester: Harvester, assets: Any, partitions: Any, options: Any) -> Any:
        yield from chain(harvester, assets, partitions[:1], options)
        raise RuntimeError("gone")

    alerting.tick()
    with monkeypatch.context() as patch:
        patch.setattr(Harvester, "chain", died)
        assert not alerting.harvest(*keys[:2])
    (text,) = alerting.tick()
    assert text.startswith(f"warriors of {DAY}: 1 troop failed: ")
    assert alerting.harvest(keys[1])
    (over,) = alerting.tick()
    assert over.startswith("over after ")
    instance = alerting.deployment.instance
    fail_run(instance, instance.get_runs(limit=1)[0], "the run's process is gone")
    assert alerting.tick() == []


@pytest.mark.parametrize("status", [500, 302])
def test_a_webhook_that_fails_is_tried_again(
    alerting: Alerting, vendor: RunningSimulator, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing fails with it; the message comes with a later tick; its address is in no log."""
    key = key_of(vendor.world.troops_on(DAY, "UTC")[0])
    alerting.tick()
    vendor.faults([{"kind": "status", "status": 400, "match": "/hosts/.*data.json"}])
    assert not alerting.harvest(key)
    alerting.hook.status = status
    with caplog.at_level(logging.DEBUG, logger="vendor_assets"):
        (first,) = alerting.tick()
    assert f"the alert's webhook answered {status}" in caplog.text
    assert f"performance_data of {DAY}" in caplog.text
    assert SECRET not in caplog.text
    alerting.hook.status = 200
    assert alerting.tick() == [first]
    assert alerting.tick() == []


def test_what_nobody_listens_to_says_no_address() -> None:
    """The error of a webhook that is away names neither its address nor its cause, which would."""
    with webhook() as gone:
        url = gone.url
    with pytest.raises(MessageError) as failed:
        post(url, {"text": "x"}, network=Network())
    assert SECRET not in repr(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        f"http://{'a' * 300}.example/{SECRET}",
        f"http://[::1/{SECRET}",
        f"http://host:99999999/{SECRET}",
        f"gopher://host/{SECRET}",
        f"http://a..b/{SECRET}",
        f"http://\ud800/{SECRET}",
        f"http:///{SECRET}",
    ],
)
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    """Whatever an address is, the error is ours, on one line, and does not repeat it."""
    with pytest.raises(MessageError) as failed:
        post(url, {"text": "x"}, network=Network())
    assert SECRET not in str(failed.value)
    assert len(str(failed.value)) < 200


def test_a_webhook_that_drips_does_not_hold_up_the_sensor() -> None:
    """A server that sends a byte now and then is given up after the whole time, and is not asked twice at once."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(0.02):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{SECRET}"
        try:
            with pytest.raises(MessageError, match="nothing whole"):
                post(url, {"text": "x"}, network=Network(), whole_seconds=0.2)
            with pytest.raises(MessageError, match="has not finished"):
                post(url, {"text": "x"}, network=Network(), whole_seconds=0.2)
        finally:
            ended.set()
            thread.join()
    for sending in [each for each in threading.enumerate() if each.name == "webhook"]:
        sending.join()


def test_the_address_is_a_secret(tmp_path: Path, hook: Webhook) -> None:
    """It is in no representation of the settings, and a wrong one is not repeated."""
    assert SECRET not in repr(read({"VENDOR_ASSETS_ALERT_URL": hook.url}, root=tmp_path))
    with pytest.raises(ConfigurationError) as refused:
        read({"VENDOR_ASSETS_ALERT_URL": f"ftp://host/{SECRET}"}, root=tmp_path)
    assert SECRET not in str(refused.value)
    assert "VENDOR_ASSETS_ALERT_URL" in str(refused.value)


def test_a_reason_is_the_same_wherever_it_strikes() -> None:
    """What the vendor says, and where, make no other cause; another kind or status does."""
    one = Reason("vendor_rejected", 400, "the vendor rejects the request (status 400)")
    assert alerts.signature(one) == alerts.signature(replace(one, what="another text"))
    others = [replace(one, status=422), replace(one, status=None), replace(one, kind="vendor_unauthorized")]
    assert len({alerts.signature(reason) for reason in [one, *others]}) == 4


@pytest.mark.parametrize("text", ["401", "403", "api key", "is down", "timed out"])
def test_no_text_decides_what_to_do(text: str) -> None:
    """A rejection whose request or answer names another status is a rejection."""
    reason = VendorRejectedError(f"GET /v2/applications/200040140/{text}.json: rejected", status=400).reason
    assert "VENDOR_API_KEY" not in alerts._next_step(reason, dead_letters=False)
    assert "VENDOR_API_KEY" not in alerts._next_step(reason, dead_letters=True)
    assert "dead-letters" in alerts._next_step(reason, dead_letters=True)


def test_a_rejection_of_an_id_that_looks_like_a_status_is_no_matter_of_the_key(
    alerting: Alerting, vendor: RunningSimulator
) -> None:
    """Kind and status of the failure are fields from the client to dead letter, event and alert."""
    troop = vendor.world.troops_on(DAY, "UTC")[0]
    key = key_of(troop)
    alerting.tick()
    vendor.faults([{"kind": "status", "status": 400, "match": "/hosts/.*data.json"}])
    assert not alerting.harvest(key)
    (text,) = alerting.tick()
    assert "VENDOR_API_KEY" not in text
    store = alerting.deployment.store
    (partition,) = DeadLetters(store).of_day(DAY)
    assert {(letter.kind, letter.status) for letter in partition.letters} == {("vendor_rejected", 400)}
    assert all("attempt" not in letter.what and "GET" not in letter.what for letter in partition.letters)
    records = alerting.deployment.instance.fetch_observations(
        dg.AssetRecordsFilter(dg.AssetKey("performance_data")), limit=1
    ).records
    observed = records[0].event_log_entry.dagster_event
    assert observed is not None
    metadata = observed.asset_observation_data.asset_observation.metadata  # type: ignore[attr-defined]
    assert metadata["failure_kind"].value == "vendor_rejected"
    assert metadata["failure_status"].value == 400


def test_dead_letters_of_old_are_read(store: ObjectStore) -> None:
    """One that was kept before dead letters had a kind has none, and its reason still shows."""
    at = datetime(2026, 11, 20, tzinfo=UTC)
    letter = DeadLetter(("a",), "GET /x", "rejected (status 400)", False, 400, 1, at, at)
    partition = DeadPartition("warriors", DAY, "1", (letter,))
    DeadLetters(store).change(partition, lambda _: partition)
    key = layout.dead_letters_key("warriors", DAY, "1")
    document = json.loads(store.get(key))
    for name in ("kind", "what"):
        del document["letters"][0][name]
    store.put(key, json.dumps(document).encode())
    (read_again,) = DeadLetters(store).of_day(DAY)
    assert read_again.letters[0].why == Reason("dead_letter", 400, "rejected (status 400)")


def test_a_cause_that_reaches_further_days_is_told_again_later() -> None:
    """Not at each tick; after six hours, and only where a day has been added."""
    memory = alerts.Memory(seen=1)
    cause = alerts.Cause("why", NOW.timestamp(), next_step="repair")
    memory.open["why"] = cause
    cause.add("performance_data", "2026-11-18|1", 1)
    said = []
    for hours, day in ((0, 18), (1, 19), (5, 19), (7, 19), (14, 19), (15, 20)):
        now = NOW + timedelta(hours=hours)
        cause.add("performance_data", f"2026-11-{day}|1", 1)
        said.append(bool(alerts.message(memory, now, lambda _day, keys: keys)))
        if said[-1]:
            alerts.told(memory, now)
    assert said == [True, False, False, True, False, True]
    assert alerts.Memory.load(memory.dump()) == memory


def test_free_text_is_no_markup() -> None:
    """A troop's name cannot mention everybody or make a link."""
    assert alerts.payload("<!channel> & <http://x|y>")["text"] == "&lt;!channel&gt; &amp; &lt;http://x|y&gt;"


# -- freshness --------------------------------------------------------------------------------------


@pytest.fixture
def scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daily schedule has been on for a month."""
    long_ago = datetime.now(UTC) - timedelta(days=30)
    monkeypatch.setattr(
        "vendor_assets.orchestration.automation.freshness.scheduled_since", lambda instance, names: long_ago
    )


def test_freshness_is_silent_while_the_schedule_is_off(deployment: Deployment) -> None:
    """Nobody expects a day that nobody ordered."""
    assert freshness(deployment.instance, deployment.account, datetime.now(UTC)) == []
    result, _ = deployment.sensor("freshness_sensor")
    assert isinstance(result, dg.SkipReason)


def test_a_schedule_that_is_on_is_seen(tmp_path: Path) -> None:
    """Turning the schedule on, as the UI does, begins the watch; turning it off ends it."""
    place = RegisteredCodeLocationOrigin("here")
    origin = RemoteRepositoryOrigin(place, "__repository__").get_instigator_origin("daily_harvest")
    state = InstigatorState(
        origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, ScheduleInstigatorData("35 0 * * *", 1e9)
    )
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert scheduled_since(instance, Names()) is None
        instance.add_instigator_state(state)
        assert scheduled_since(instance, Names()) == datetime.fromtimestamp(1e9, UTC)
        instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
        assert scheduled_since(instance, Names()) is None


def test_a_day_that_does_not_come_fails_the_check(deployment: Deployment, scheduled: None) -> None:
    """Late is said once; when the day has come it passes; an evaluation is made only when something changed."""
    at = datetime.combine(DAY + timedelta(days=1), datetime.min.time(), UTC)

    def found(hours: float) -> dict[str, Freshness]:
        items = freshness(deployment.instance, deployment.account, at + timedelta(hours=hours))
        return {item.asset: item for item in items}

    assert found(0.5)["troops"].expected == DAY - timedelta(days=1)
    assert found(2)["troops"].expected == DAY
    assert not found(2)["troops"].passed
    deployment.materialize("troops", partition=DAY.isoformat())
    assert found(2)["troops"].passed
    assert not found(7)["daily_performance"].passed
    assert found(7)["daily_performance"].days_behind == 1


def test_a_day_that_nobody_asked_for_is_caught_up(
    deployment: Deployment, scheduled: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a pause Dagster makes the newest tick alone: it asks for the days between too, and they are told of."""
    begun = [datetime.now(UTC) - timedelta(days=30)]
    name = "vendor_assets.orchestration.automation.schedules.scheduled_since"
    monkeypatch.setattr(name, lambda instance, names: begun[-1])
    schedule = deployment.definitions.resolve_schedule_def("daily_harvest")
    over = datetime.combine(DAY + timedelta(days=1), datetime.min.time(), UTC)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def requested() -> list[tuple[str, str]]:
            with dg.build_schedule_context(instance, scheduled_execution_time=over) as context:
                return [
                    (str(each.partition_key), each.tags.get("vendor_assets/class", "scheduled"))
                    for each in schedule(context)
                ]

        for back in (4, 0):
            day = str(DAY - timedelta(days=back))
            instance.report_runless_asset_event(dg.AssetMaterialization("troops", partition=day))
        found = {item.asset: item for item in freshness(instance, deployment.account, over + GRACE["troops"])}
        assert not found["troops"].passed
        missed = [str(DAY - timedelta(days=back)) for back in (3, 2, 1)]
        assert f"missed: {', '.join(missed)}" in found["troops"].text
        newest = (str(DAY), "scheduled")
        assert requested() == [newest, *((day, "backfill") for day in reversed(missed))]
        # What lies before the schedule was turned on is nobody's.
        begun.append(over)
        assert requested() == [newest]


def test_the_check_is_evaluated_when_it_changed(deployment: Deployment, scheduled: None) -> None:
    """By the sensor, as an event without a run; a second tick adds none."""
    result, cursor = deployment.sensor("freshness_sensor")
    assert isinstance(result, dg.SensorResult)
    (event,) = result.asset_events
    assert isinstance(event, dg.AssetCheckEvaluation)
    assert event.asset_key == dg.AssetKey("daily_performance")
    assert not event.passed
    assert "troops: " in str(event.description)
    again, _ = deployment.sensor("freshness_sensor", cursor)
    assert isinstance(again, dg.SensorResult)
    assert not again.asset_events


def test_a_late_day_is_told_once(alerting: Alerting, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert on a day that does not come, one when it has come."""
    late = Freshness("troops", date(2026, 11, 19), date(2026, 11, 18), False, "2026-11-19 should be there")
    found = [late]
    monkeypatch.setattr("vendor_assets.orchestration.automation.watch.freshness", lambda *_: list(found))
    (text,) = alerting.tick()
    assert text.startswith("troops is late: 2026-11-19 should be there\nnext: ")
    assert alerting.tick() == []
    found.clear()
    (over,) = alerting.tick()
    assert over.endswith("troops is late")
