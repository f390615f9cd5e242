"""The configurations in ``deploy/``: Dagster and its launchers take them, and their figures fit each other."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from celery import Celery
from celery.app.defaults import SETTING_KEYS
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.utils import make_new_run_id
from dagster._grpc.client import DagsterGrpcClient
from dagster_celery.cli import get_validated_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job

from vendor_assets.cli.configuration import PROFILES
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.programs import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
ENVIRON = {
    "DAGSTER_PG_URL": "postgresql+psycopg2://nobody@127.0.0.1:1/none",
    "DAGSTER_LOGS_BUCKET": "logs",
    "DAGSTER_CELERY_BROKER": "redis://127.0.0.1:1/0",
    "DAGSTER_RUN_TASK": "vendor-assets-run",
    "VENDOR_ASSETS_DB": "postgresql://nobody@127.0.0.1:1/none",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "none",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def configured(profile: str) -> dict[str, Any]:
    """What a profile's file says."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / profile / "dagster.yaml").read_text())
    return found


@pytest.mark.parametrize("profile", [*PROFILES, "machines"])
def test_a_project_has_all_files_of_its_profile(tmp_path: Path, profile: str) -> None:
    """As the repository ships them, and Dagster accepts its own."""
    made = Command(tmp_path, {"DAGSTER_HOME": ""}).run("init", "--profile", profile, "p")
    assert made.code == 0, made.err
    folder = DEPLOY / ("server" if profile == "machines" else profile)
    for path in folder.iterdir() if folder.is_dir() else ():
        assert (tmp_path / "p" / path.name).read_text() == path.read_text()
    assert (tmp_path / "p" / "vendor_assets.env").is_file()
    if (tmp_path / "p" / "dagster.yaml").is_file():
        InstanceRef.from_dir(str(tmp_path / "p"))


def test_the_extras_of_the_pages_exist() -> None:
    """What a page or an image installs is what the package offers."""
    offered = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    wanted = re.findall(
        r"vendor_assets[^\[\n]*\[([a-z,]+)\]", "".join(map(Path.read_text, DEPLOY.glob("*/*")))
    )
    assert len(wanted) > 4
    assert {extra for some in wanted for extra in some.split(",")} <= offered.keys()


def test_the_work_is_queued_alike_everywhere() -> None:
    """The order of work does not depend on where runs are executed."""
    chart = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())["dagsterDaemon"]
    queue = chart["runCoordinator"]["config"]["queuedRunCoordinator"]
    here = configured("server")
    for profile in ("postgresql", "cluster", "ecs"):
        assert configured(profile)["concurrency"] == here["concurrency"]
        assert configured(profile)["run_retries"] == here["run_retries"]
    assert queue["maxConcurrentRuns"] == here["concurrency"]["runs"]["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == here["concurrency"]["runs"]["tag_concurrency_limits"]
    assert list(chart["runRetries"].values()) == list(here["run_retries"].values())


def test_celerys_launcher_and_worker_agree(tmp_path: Path) -> None:
    """A worker takes no more than it has places for, and nobody forgets a run while it may go on."""
    ref = InstanceRef.from_dir(str(DEPLOY / "cluster"))
    launcher = ref.run_launcher
    app: Celery = launcher._launcher.celery  # type: ignore[union-attr]
    worker = get_validated_config(str(DEPLOY / "cluster" / "worker.yaml"))
    settings = worker["config_source"]
    longest = configured("cluster")["run_monitoring"]["max_runtime_seconds"]
    for visibility, expiry in (
        (app.conf.broker_transport_options, app.conf.result_expires),
        (settings["broker_transport_options"], settings["result_expires"]),
    ):
        assert visibility["visibility_timeout"] > longest
        assert expiry > longest
    assert app.conf.broker_url == worker["broker"] == ENVIRON["DAGSTER_CELERY_BROKER"]
    assert (settings["worker_prefetch_multiplier"], settings["task_acks_late"]) == (1, True)
    assert settings["task_reject_on_worker_lost"] is False
    assert settings.keys() <= SETTING_KEYS
    assert all(map(find_spec, settings["imports"]))


def test_a_pod_of_kubernetes_has_what_a_run_needs(tmp_path: Path) -> None:
    """As the chart hands the values to the launcher: a volume to sort on, no second start behind Dagster's back."""
    values = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
    given = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {}}],"
        " clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}],"
        " contexts: [{name: c, context: {cluster: k, user: u}}]}"
    )
    launcher = K8sRunLauncher(
        dagster_home="/opt/dagster/dagster_home",
        instance_config_map="dagster-instance",
        postgres_password_secret="dagster-postgresql-secret",
        service_account_name="dagster",
        job_image="registry.example/vendor_assets:0.1.0",
        load_incluster_config=False,
        kubeconfig_file=str(kubeconfig),
        run_k8s_config={re.sub("([A-Z])", r"_\1", name).lower(): to for name, to in given.items()},
    )
    context = launcher.get_container_context_for_run(DagsterRun("harvest", run_id=make_new_run_id()))
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(launcher.job_image, launcher),
        ["dagster", "api", "execute_run"],
        "run",
        user_defined_k8s_config=context.run_k8s_config,
    ).to_dict()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert job["spec"]["backoff_limit"] == 0
    assert pod["termination_grace_period_seconds"] == 60
    assert container["resources"]["limits"]["memory"] == "2Gi"
    (scratch,) = [volume for volume in pod["volumes"] if volume["empty_dir"]]
    mounts = {mount["name"]: mount["mount_path"] for mount in container["volume_mounts"]}
    dockerfile = (DEPLOY / "kubernetes" / "Dockerfile").read_text()
    assert f"TMPDIR={mounts[scratch['name']]}" in dockerfile


@contextmanager
def simulated_ecs() -> Iterator[str]:
    """The address of a server that knows the task definition, and nothing else."""
    definition = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
    definition |= {
        "taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/vendor-assets-run:1"
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = asked == {"taskDefinition": definition["family"]}
            body = json.dumps(
                {"taskDefinition": definition} if known else {"__type": "ClientException"}
            ).encode()
            self.send_response(200 if known else 400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_launcher_of_ecs_finds_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names in the configuration, with the container that it starts; the roles are the task's."""
    with simulated_ecs() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        launcher = InstanceRef.from_dir(str(DEPLOY / "ecs")).run_launcher
        inner = launcher._launcher  # type: ignore[union-attr]
        assert inner.task_definition.endswith("task-definition/vendor-assets-run:1")
        assert inner.container_name == "run"
    task = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
    role = json.loads((DEPLOY / "ecs" / "task-role.json").read_text())
    passed = next(each["Resource"] for each in role["Statement"] if each["Action"] == "iam:PassRole")
    assert {task["taskRoleArn"], task["executionRoleArn"]} == set(passed)
    (container,) = task["containerDefinitions"]
    given = {each["name"] for each in (*container["environment"], *container["secrets"])}
    assert {"DAGSTER_PG_URL", "DAGSTER_LOGS_BUCKET", "DAGSTER_RUN_TASK", "VENDOR_ASSETS_DB"} <= given


def test_the_images_command_serves_the_definitions(tmp_path: Path) -> None:
    """In an empty environment and folder, as a container has them; the images have the same one."""
    files = [(DEPLOY / profile / "Dockerfile").read_text() for profile in ("kubernetes", "ecs")]
    (command,) = {re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0] for text in files}
    port = free_port()
    words = {"4000": str(port), "0.0.0.0": "127.0.0.1"}  # noqa: S104
    given = [sys.executable, "-m", *(words.get(word, word) for word in json.loads(command))]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(DEPLOY.parent), "HOME": str(tmp_path)}
    with (tmp_path / "log").open("w") as log:
        serving = subprocess.Popen(
            given, cwd=tmp_path, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        client = DagsterGrpcClient(port=port, host="127.0.0.1")
        while client.health_check_query() != "SERVING":
            assert serving.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        assert "__repository__" in client.list_repositories()
    finally:
        # Asked to end just as it has begun to serve, Dagster's server may miss it; it has a child.
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()
