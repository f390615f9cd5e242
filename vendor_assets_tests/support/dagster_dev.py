"""Runs ``vendor-assets dev`` in a project folder of its own: webserver, daemon and code location, as users do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from vendor_assets_tests.support.programs import free_port

ROOT = Path(__file__).parents[2]
STATES = {
    "materializedPartitions": "green",
    "failedPartitions": "failed",
    "materializingPartitions": "running",
}
T = TypeVar("T")

_LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
_PARTITIONS = """
query Partitions($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) { ... on AssetNode { assetPartitionStatuses {
    __typename
    ... on DefaultPartitionStatuses { materializedPartitions failedPartitions materializingPartitions }
    ... on TimePartitionStatuses { ranges { status startKey endKey } }
    ... on MultiPartitionStatuses { ranges {
      primaryDimStartKey primaryDimEndKey
      secondaryDim { ... on DefaultPartitionStatuses {
        materializedPartitions failedPartitions materializingPartitions
      } }
    } }
  } partitionKeysByDimension { name partitionKeys } } }
}
"""
_RUNS = """
query Runs($filter: RunsFilter) {
  runsOrError(filter: $filter) { ... on Runs { results { id status jobName tags { key value } } } }
}
"""
_BACKFILLS = """
{ partitionBackfillsOrError { ... on PartitionBackfills { results { id status partitionNames } } } }
"""
_EVENTS = """
query Events($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) { ... on AssetNode { EVENTS(limit: 500) {
    runId partition metadataEntries {
      label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue }
    }
  } } }
}
"""


_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
_ADD = """
mutation Add($selector: RepositorySelector!, $troop: String!) {
  addDynamicPartition(repositorySelector: $selector, partitionsDefName: "troop", partitionKey: $troop) { __typename }
}
"""
_RUN = """
query Run($id: ID!) { runOrError(runId: $id) { ... on Run { id status jobName tags { key value } } } }
"""
_MESSAGES = """
query Messages($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection {
  events { ... on MessageEvent { message } }
} } }
"""
_ERRORS = """
query Errors($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection {
  events { ... on ErrorEvent { error { message errorChain { error { message } } } } }
} } }
"""
_TERMINATE = """
mutation Terminate($id: String!) { terminateRun(runId: $id) { __typename } }
"""


class NotYetError(Exception):
    """What was waited for did not come; the message holds the end of the log."""


class DagsterDev:
    """A running project.

    Args:
        url: Where the UI answers.
        folder: The project's folder, with the store in ``data``.
        log: What its processes wrote.
        environ: The environment of its processes.
        pid: The process that was started; all others are its descendants.
    """

    def __init__(self, url: str, folder: Path, log: Path, environ: Mapping[str, str], pid: int) -> None:
        self.url = url
        self.pid = pid
        self.folder = folder
        self.log = log
        self.environ = environ

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """Ask the webserver what the UI asks it.

        Raises:
            RuntimeError: It refused.
            OSError: It does not answer.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            document = json.load(answer)
        if document.get("errors"):
            raise RuntimeError(document["errors"][0]["message"])
        data: dict[str, Any] = document["data"]
        return data

    def partitions(self, asset: str) -> dict[str, str]:
        """State of each partition that is not missing: ``green``, ``failed`` or ``running``, by its key."""
        node = self.graphql(_PARTITIONS, asset={"path": asset.split("/")})["assetNodeOrError"]
        statuses, found = node["assetPartitionStatuses"], {}
        days = next(
            item["partitionKeys"] for item in node["partitionKeysByDimension"] if item["name"] != "troop"
        )
        words = {"MATERIALIZED": "green", "FAILED": "failed", "MATERIALIZING": "running"}
        for item in statuses.get("ranges", []):
            if "secondaryDim" in item:
                covered = _between(days, item["primaryDimStartKey"], item["primaryDimEndKey"])
                for name, word in STATES.items():
                    for troop in item["secondaryDim"][name]:
                        found.update({f"{day}|{troop}": word for day in covered})
            else:
                found.update(
                    dict.fromkeys(_between(days, item["startKey"], item["endKey"]), words[item["status"]])
                )
        for name, word in STATES.items():
            found.update(dict.fromkeys(statuses.get(name, []), word))
        return found

    def runs(self, **tags: str) -> list[dict[str, Any]]:
        """Runs with these tags (``__`` for ``/`` in a name), newest first: id, status, jobName, tags."""
        wanted = [{"key": name.replace("__", "/"), "value": value} for name, value in tags.items()]
        results = self.graphql(_RUNS, filter={"tags": wanted})["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in results]

    def run(self, run_id: str) -> dict[str, Any]:
        """One run: id, status, jobName, tags."""
        run: dict[str, Any] = self.graphql(_RUN, id=run_id)["runOrError"]
        return run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}}

    def launch(self, job: str, config: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """Launch a run of a job, as the launchpad does; returns its id.

        Raises:
            RuntimeError: It was refused.
        """
        params = {
            "selector": self._repository() | {"jobName": job},
            "runConfigData": dict(config),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = self.graphql(_LAUNCH, params=params)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(str(answer))
        return str(answer["run"]["runId"])

    def add_troop(self, troop: str) -> None:
        """Add a troop's partitions, as the dialog does."""
        self.graphql(_ADD, selector=self._repository(), troop=troop)

    def _repository(self) -> dict[str, str]:
        (loaded,) = self.graphql(_LOADED)["repositoriesOrError"]["nodes"]
        return {"repositoryLocationName": loaded["location"]["name"], "repositoryName": loaded["name"]}

    def terminate(self, run_id: str) -> None:
        """Ask a run to end, as the button does."""
        self.graphql(_TERMINATE, id=run_id)

    def messages(self, run_id: str) -> list[str]:
        """What a run's log says."""
        events = self.graphql(_MESSAGES, id=run_id)["logsForRun"].get("events", [])
        return [event["message"] for event in events if event.get("message")]

    def errors(self, run_id: str) -> list[str]:
        """The exceptions that a run's log tells, with those that caused them."""
        events = self.graphql(_ERRORS, id=run_id)["logsForRun"].get("events", [])
        told = [event["error"] for event in events if event.get("error")]
        chained = [link["error"] for error in told for link in error["errorChain"]]
        return [error["message"] for error in [*told, *chained]]

    def worker(self, run_id: str) -> int | None:
        """The process that executes a run; None while there is none."""
        found = [re.search(r"process for run \(pid: (\d+)\)", message) for message in self.messages(run_id)]
        return next((int(hit[1]) for hit in found if hit), None)

    def processes(self) -> dict[int, str]:
        """All processes that it started, directly or not: command by id."""
        parents: dict[int, int] = {}
        commands: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    commands[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
        found = {self.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return {pid: commands.get(pid, "") for pid in sorted(found)}

    def backfills(self) -> list[dict[str, Any]]:
        """Backfills, newest first: id, status, partitionNames."""
        found: list[dict[str, Any]] = self.graphql(_BACKFILLS)["partitionBackfillsOrError"]["results"]
        return found

    def materializations(self, asset: str, partition: str) -> list[dict[str, Any]]:
        """Materializations of a partition, newest first: its run's id and the texts and numbers of its metadata."""
        return self._events("assetMaterializations", asset, partition)

    def observations(self, asset: str, partition: str) -> list[dict[str, Any]]:
        """Observations of a partition, newest first: as :meth:`materializations`."""
        return self._events("assetObservations", asset, partition)

    def _events(self, kind: str, asset: str, partition: str) -> list[dict[str, Any]]:
        query = _EVENTS.replace("EVENTS", kind)
        node = self.graphql(query, asset={"path": asset.split("/")})["assetNodeOrError"]
        return [
            {"run": item["runId"]}
            | {entry["label"]: entry.get("text", entry.get("intValue")) for entry in item["metadataEntries"]}
            for item in node[kind]
            if item["partition"] == partition
        ]

    def wait(self, what: str, probe: Callable[[], T | bool | None], *, seconds: float = 120) -> T:
        """Ask again until the answer is true, and return it.

        Raises:
            NotYetError: It did not become true; a net against waiting for ever, not a measure.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = probe()
            if found:
                return found  # type: ignore[return-value]  # a probe's True is only looked at
            if time.monotonic() > deadline:
                raise NotYetError(f"not in {seconds:.0f} s: {what}\n{self.log.read_text()[-3000:]}")
            time.sleep(0.5)

    def wait_for(self, asset: str, states: Mapping[str, str], *, seconds: float = 120) -> dict[str, str]:
        """Wait until an asset's partitions have these states; returns the states of all of them."""

        def probe() -> dict[str, str] | None:
            found = self.partitions(asset)
            return found if states.items() <= found.items() else None

        return self.wait(f"{asset} {dict(states)}, but {self.partitions(asset)}", probe, seconds=seconds)


def _between(keys: list[str], first: str, last: str) -> list[str]:
    return keys[keys.index(first) : keys.index(last) + 1]


def project(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Make a project folder with the shipped instance and workspace; returns the environment for its commands.

    Args:
        folder: Where; made if needed.
        environ: Settings by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder / name)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | dict(environ)


def of_session(leader: int) -> list[int]:
    """The living processes of a session, whatever their process groups."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold anything: state, parent, process group, session.
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


@contextmanager
def dagster_dev(folder: Path, environ: Mapping[str, str], *command: str) -> Iterator[DagsterDev]:
    """Run ``vendor-assets dev``, or another command, in a project folder while the block lasts.

    Args:
        folder: A folder that :func:`project` made.
        environ: What :func:`project` returned.
        command: A module and its arguments that takes ``--port``.

    Raises:
        NotYetError: It did not start; the message holds the end of its log.
    """
    port, log = free_port(), folder / "dev.log"
    arguments = [sys.executable, "-m", *(command or ("vendor_assets", "dev")), "--port", str(port)]
    with log.open("w") as sink:
        # In a session of its own all that it starts can be ended, and nothing else.
        process = subprocess.Popen(
            arguments, cwd=folder, env=environ, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    running = DagsterDev(f"http://127.0.0.1:{port}", folder, log, environ, process.pid)

    def loaded() -> bool:
        if process.poll() is not None:
            raise NotYetError(f"dev ended with {process.returncode}\n{log.read_text()[-3000:]}")
        with suppress(urllib.error.URLError, OSError, RuntimeError):
            return bool(running.graphql(_LOADED)["repositoriesOrError"].get("nodes"))
        return False

    try:
        running.wait("the UI answers and has loaded the definitions", loaded, seconds=180)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        for pid in of_session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
