"""A multiprocessing script: a pool of 32 processes, each with a session that retries as urllib3 documents it.

No process knows of the others' calls: what keeps the limit is the vendor's 429 alone.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import requests
from job import Job, Writer, rows, table
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

PROCESSES = 32
RETRY = Retry(total=5, backoff_factor=1, backoff_jitter=1, status_forcelist=(429, 500, 502, 503, 504))

_job: Job
_session: requests.Session


def begin(job: Job) -> None:
    global _job, _session  # noqa: PLW0603 - how a pool's processes are prepared
    _job = job
    _session = requests.Session()
    _session.headers.update(job.headers)
    _session.mount("http://", HTTPAdapter(max_retries=RETRY))


def get(url: str, params: Any = None) -> requests.Response:
    answer = _session.get(url, params=params, timeout=60)
    answer.raise_for_status()
    return answer


def entities(path: str, name: str) -> list[Any]:
    found: list[Any] = []
    url: str | None = _job.url + path
    while url:
        answer = get(url)
        found += answer.json()[name]
        url = answer.links.get("next", {}).get("url")
    return found


def warriors(troop_id: int) -> list[tuple[int, int]]:
    hosts = entities(f"/v2/applications/{troop_id}/hosts.json", "application_hosts")
    return [(troop_id, host["id"]) for host in hosts]


def data(which: tuple[int, int]) -> Any:
    troop_id, warrior_id = which
    path = f"/v2/applications/{troop_id}/hosts/{warrior_id}/metrics"
    groups = entities(f"{path}.json", "metrics")
    answer = get(f"{_job.url}{path}/data.json", _job.params(group["name"] for group in groups))
    return table(rows(troop_id, warrior_id, answer.json()))


def main() -> None:
    job = Job.read()
    begin(job)
    writer = Writer(job.folder)
    with multiprocessing.Pool(PROCESSES, begin, (job,)) as pool:
        troops = [troop["id"] for troop in entities("/v2/applications.json", "applications")]
        every = [each for some in pool.imap_unordered(warriors, troops) for each in some]
        for found in pool.imap_unordered(data, every):
            writer.add(found)
    writer.close()


if __name__ == "__main__":
    main()
