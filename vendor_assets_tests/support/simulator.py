"""Starts the embedded vendor as its own process for a test, and ends it by its id.

The process is forked like a command's (see ``command.py``): an interpreter for each test costs more than most tests.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vendor_assets.simulator.world import World
from vendor_assets_tests.support.command import ROOT, Running

KEY = "test-key"


class RunningSimulator:
    """A running vendor.

    Args:
        url: Where it listens, without a slash at the end.
        process: Its process.
        world: The same world, to compute what a complete harvest holds.
    """

    def __init__(self, url: str, process: Running, world: World) -> None:
        self.url = url
        self.key = KEY
        self.process = process
        self.world = world

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.url.rpartition(":")[2])

    def log(self, *, arrivals: bool = False) -> dict[str, Any]:
        """The vendor's own log (see ``simulator/record.py``)."""
        found: dict[str, Any] = self.control("GET", "log?arrivals=1" if arrivals else "log")
        return found

    def calls(self, endpoint: str | None = None, outcome: str | None = None) -> int:
        """How many vendor calls were answered so far, of one endpoint, with one outcome."""
        return sum(
            count
            for name, outcomes in self.log()["by_endpoint"].items()
            for label, count in outcomes.items()
            if endpoint in (None, name) and outcome in (None, label)
        )

    def faults(self, rules: Iterable[Mapping[str, object]]) -> None:
        """Put faults in force: ``[{"kind": "500", "match": "hosts", "count": 2}]``."""
        self.control("POST", "faults", list(rules))

    def clear_faults(self) -> None:
        """Take all faults away, an outage included."""
        self.control("DELETE", "faults")

    def limit(self, *limits: str, kind: str | None = None, burst: int | None = None) -> None:
        """Change the rate limit: ``limit("20/s", kind="sliding")``."""
        values: dict[str, object] = {"limits": list(limits)}
        if kind is not None:
            values["kind"] = kind
        if burst is not None:
            values["burst"] = burst
        self.control("POST", "limit", values)

    def load(self, **values: float | None) -> None:
        """Change ``latency``, ``capacity``, ``collapse_factor`` or ``collapse_seconds``."""
        self.control("POST", "load", values)

    def set_clock(self, iso: str) -> None:
        """Let the vendor's clock go on from another time."""
        self.control("POST", "clock", {"now": iso})

    def advance(self, seconds: float) -> None:
        """Move the vendor's clock forward."""
        self.control("POST", "clock", {"advance": seconds})

    def reset(self) -> None:
        """Forget what was counted, take faults away."""
        self.control("POST", "reset")

    def control(self, method: str, name: str, values: object = None) -> Any:
        """Ask a control endpoint.

        Raises:
            urllib.error.HTTPError: It did not understand.
        """
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(f"{self.url}/_control/{name}", body, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def simulator(**flags: object) -> Iterator[RunningSimulator]:
    """Run the simulator on a free port while the block lasts.

    Flags are those of the command with underscores: ``simulator(world="small", limit="20/s",
    hostile=True, churn=False, fault=["500:rate=0.1"])``. True sets a switch, a list repeats a flag,
    None leaves it out. Without others the world is ``small`` and there is no limit.

    Raises:
        RuntimeError: It did not start; the message holds what it wrote.
    """
    flags = {"world": "small", "limit": "none", **flags}
    with tempfile.TemporaryDirectory(prefix="simulator-") as folder:
        port_file = Path(folder) / "port"
        command = ["simulator", "--port", "0", "--port-file", str(port_file)]
        command += ["--parent-pid", str(os.getpid()), *_arguments(flags)]
        process = Running(ROOT, os.environ, command, ("vendor_assets.simulator.command", "main"))
        try:
            while not port_file.exists():
                if process.poll() is not None:
                    said = "".join(process.communicate()).strip()
                    raise RuntimeError(f"the simulator did not start: {said}")
                time.sleep(0.01)
            url = f"http://127.0.0.1:{int(port_file.read_text())}"
            yield RunningSimulator(url, process, world_of(flags))
        finally:
            process.terminate()
            process.wait(30)


def world_of(flags: Mapping[str, Any]) -> World:
    """The world that the simulator builds from these flags."""
    return World.preset(
        flags.get("world", "small"),
        seed=flags.get("seed", 1),
        troops=flags.get("troops"),
        warriors=flags.get("warriors"),
        data_groups=flags.get("data_groups"),
        churn=flags.get("churn", True),
        hostile=flags.get("hostile", False),
        stable_days=flags.get("stable_days", 5),
    )


def _arguments(flags: Mapping[str, object]) -> list[str]:
    arguments: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if name in ("churn", "link_last"):
            arguments += [] if value else ["--no-" + name.replace("_", "-")]
        elif value is True:
            arguments.append(flag)
        elif value is not None and value is not False:
            for item in value if isinstance(value, list | tuple) else [value]:
                arguments.append(f"{flag}={item}")
    return arguments
