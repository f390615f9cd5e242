"""How many requests a second the embedded vendor answers, by kind of request.

Run as ``python -m benchmarks.simulator``. The vendor runs as its own process; the load generator is
this process: raw sockets with keep-alive, so that its own cost stays small. Wanted: at least 2,000 a
second, so that the vendor is never what is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import quote

from vendor_assets_tests.support.simulator import simulator

_CONNECTIONS = 32
_SECONDS = 3.0
_WANTED = 2000


class _Caller(asyncio.Protocol):
    """One connection that asks for the next target as soon as the last answer is whole."""

    def __init__(self, targets: list[str], offset: int, port: int) -> None:
        self._requests = [
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Api-Key: k\r\n\r\n".encode()
            for target in targets
        ]
        self._next = offset
        self._buffer = b""
        self.answers = 0
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def _ask(self) -> None:
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        start = self._buffer.find(b"Content-Length: ") + 16
        length = int(self._buffer[start : self._buffer.find(b"\r\n", start)])
        if len(self._buffer) < end + 4 + length:
            return
        self.failures += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        self.answers += 1
        self._ask()


async def _rate(port: int, targets: list[str]) -> float:
    loop = asyncio.get_running_loop()
    callers = []
    start = time.perf_counter()
    for number in range(_CONNECTIONS):
        _, caller = await loop.create_connection(
            lambda number=number: _Caller(targets, number * 31, port),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        callers.append(caller)
    await asyncio.sleep(_SECONDS)
    answers = sum(caller.answers for caller in callers)
    if any(caller.failures for caller in callers):
        raise RuntimeError("not every answer was a 200")
    seconds = time.perf_counter() - start
    for caller in callers:
        caller._transport.abort()
    return answers / seconds


async def _get(port: int, target: str) -> dict[str, list[dict[str, object]]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nX-Api-Key: k\r\nConnection: close\r\n\r\n".encode())
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    tree: dict[str, list[dict[str, object]]] = json.loads(body)
    return tree


async def _measure(port: int) -> dict[str, float]:
    found = {}
    troops = (await _get(port, "/v2/applications.json"))["applications"]
    lists = ["/v2/applications.json"] + [f"/v2/applications/{troop['id']}/hosts.json" for troop in troops]
    metrics, hours, days = [], [], []
    for target in lists[1:]:
        for host in (await _get(port, target))["application_hosts"]:
            base = f"{target.removesuffix('.json')}/{host['id']}/metrics"
            metrics.append(base + ".json")
            names = "&".join(
                f"names[]={quote(str(metric['name']))}"
                for metric in (await _get(port, base + ".json"))["metrics"]
            )
            for day in range(14, 21):
                hours += [
                    f"{base}/data.json?{names}&from=2026-11-{day}T{hour:02}:00:00Z"
                    f"&to=2026-11-{day}T{hour + 3:02}:00:00Z&period=1800"
                    for hour in range(0, 21, 3)
                ]
                window = f"from=2026-11-{day}T00:00:00Z&to=2026-11-{day + 1}T00:00:00Z&period=1800"
                days.append(f"{base}/data.json?{names}&{window}")
    single = [target.partition("&")[0] + "&from=" + target.partition("&from=")[2] for target in hours]
    found["lists"] = await _rate(port, lists + metrics)
    found["data: 1 group, 3 h"] = await _rate(port, single)
    found["data: 8 groups, 3 h"] = await _rate(port, hours)
    found["data: 8 groups, 24 h"] = await _rate(port, days)
    return found


def main() -> None:
    """Start the vendor, measure, print."""
    with simulator(world="demo", now="2026-11-21T12:00:00Z", churn=False) as vendor:
        for name, rate in asyncio.run(_measure(vendor.port)).items():
            verdict = "" if name.endswith("24 h") else f" (wanted {_WANTED})"
            print(f"{name:22} {rate:7.0f} requests/s{verdict}")


if __name__ == "__main__":
    main()
