"""An asyncio script: 32 calls at once, one perfect bucket of tokens in its memory, retries with backoff.

What the machine permits where nothing is shared, nothing kept, and nothing survives the process.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import aiohttp
from job import Job, Writer, rows, table

AT_ONCE = 32
ATTEMPTS = 5


class Bucket:
    """Tokens that come at a rate, up to as many as come in a second; the first call takes one at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self) -> None:
        """Wait for a token."""
        if not self._rate:
            return
        now = time.monotonic()
        at = self._free_at = max(self._free_at, now - (self._rate - 1) / self._rate)
        self._free_at += 1 / self._rate
        await asyncio.sleep(max(0.0, at - now))


class Vendor:
    """Asks, and asks again."""

    def __init__(self, session: aiohttp.ClientSession, bucket: Bucket) -> None:
        self._session = session
        self._bucket = bucket
        self._places = asyncio.Semaphore(AT_ONCE)

    async def get(self, path: str, params: Any = None) -> tuple[Any, str | None]:
        """The answer and where its next page is."""
        for attempt in range(1, ATTEMPTS + 1):
            wait = random.uniform(0.5, 1.0) * 2 ** (attempt - 1)
            async with self._places:
                await self._bucket.take()
                try:
                    async with self._session.get(path, params=params) as answer:
                        if answer.status == 200:
                            following = answer.links.get("next", {}).get("url")
                            return await answer.json(), str(following) if following else None
                        if answer.status != 429 and answer.status < 500:
                            answer.raise_for_status()
                        wait = float(answer.headers.get("Retry-After", wait))
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError):
                    pass
            await asyncio.sleep(wait)
        raise RuntimeError(f"{path} failed {ATTEMPTS} times")

    async def entities(self, path: str, name: str) -> list[Any]:
        """All entities of a list."""
        found: list[Any] = []
        following: str | None = path
        while following:
            answer, following = await self.get(following)
            found += answer[name]
        return found


async def main() -> None:
    job = Job.read()
    writer = Writer(job.folder)
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(job.url, headers=job.headers, connector=connector) as session:
        vendor = Vendor(session, Bucket(job.rate))

        async def warrior(troop: Any, host: Any) -> None:
            path = f"/v2/applications/{troop['id']}/hosts/{host['id']}/metrics"
            groups = await vendor.entities(f"{path}.json", "metrics")
            params = job.params(group["name"] for group in groups)
            pairs = [("names[]", name) for name in params.pop("names[]")]
            answer, _ = await vendor.get(f"{path}/data.json", [*pairs, *params.items()])
            writer.add(table(rows(troop["id"], host["id"], answer)))

        async def troop_of(troop: Any) -> None:
            hosts = await vendor.entities(f"/v2/applications/{troop['id']}/hosts.json", "application_hosts")
            await asyncio.gather(*(warrior(troop, host) for host in hosts))

        troops = await vendor.entities("/v2/applications.json", "applications")
        await asyncio.gather(*map(troop_of, troops))
    writer.close()


if __name__ == "__main__":
    asyncio.run(main())
