"""dlt: transformers on its REST client, calls deferred to its pool, Parquet by its filesystem destination.

    python dlt_pipeline.py [limiter] [arrow] JOB

dlthub.com/docs: general-usage/http/rest-client (client, paginator), general-usage/resource (transformers),
reference/performance (``dlt.defer``, pages in place of rows, workers), dlt-ecosystem/verified-sources/arrow-pandas.
``limiter`` mounts the adapter of requests-ratelimiter on the session that retries; copies share it in SQLite, as that
package's documentation has it for several processes. ``arrow`` yields Arrow tables in place of lists of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import dlt
from dlt.sources.helpers.requests import Client
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import HeaderLinkPaginator
from job import Job, rows, table
from requests_ratelimiter import LimiterAdapter, SQLiteBucket


def session_of(job: Job, *, limiter: bool) -> Any:
    """The session that the client would make itself; with a limiter on it, if wanted."""
    session = Client(raise_for_status=False).session
    if limiter and job.rate:
        shared = {}
        if job.shared:
            path = f"{job.shared}/limiter.db"
            shared = {
                "bucket_class": SQLiteBucket,
                "bucket_kwargs": {"path": path, "use_file_lock": True},
                "bucket_name": "vendor",
            }
        session.mount("http://", LimiterAdapter(per_second=job.rate, pool_maxsize=50, **shared))
    return session


@dlt.source(max_table_nesting=0)
def vendor(job: Job, *, limiter: bool, arrow: bool) -> Any:
    """The four lists, each from the one before."""
    client = RESTClient(
        job.url,
        headers=job.headers,
        paginator=HeaderLinkPaginator(),
        session=session_of(job, limiter=limiter),
    )

    @dlt.resource(selected=False)
    def troops() -> Iterator[Any]:
        yield from client.paginate("/v2/applications.json", data_selector="applications")

    @dlt.transformer(data_from=troops, selected=False)
    def warriors(page: list[Any]) -> Iterator[Any]:
        @dlt.defer
        def of(troop_id: int) -> list[Any]:
            path = f"/v2/applications/{troop_id}/hosts.json"
            pages = client.paginate(path, data_selector="application_hosts")
            return [(troop_id, host["id"]) for page in pages for host in page]

        for troop in page:
            yield of(troop["id"])

    @dlt.transformer(data_from=warriors, selected=False)
    def data_groups(page: list[Any]) -> Iterator[Any]:
        @dlt.defer
        def of(troop_id: int, warrior_id: int) -> list[Any]:
            path = f"/v2/applications/{troop_id}/hosts/{warrior_id}/metrics.json"
            pages = client.paginate(path, data_selector="metrics")
            return [(troop_id, warrior_id, [group["name"] for page in pages for group in page])]

        for which in page:
            yield of(*which)

    @dlt.transformer(data_from=data_groups, write_disposition="replace")
    def performance_data(page: list[Any]) -> Iterator[Any]:
        @dlt.defer
        def of(troop_id: int, warrior_id: int, groups: list[str]) -> Any:
            path = f"/v2/applications/{troop_id}/hosts/{warrior_id}/metrics/data.json"
            answer = client.get(path, params=job.params(groups))
            answer.raise_for_status()
            found = rows(troop_id, warrior_id, answer.json())
            return table(found) if arrow else found

        for which in page:
            yield of(*which)

    return troops, warriors, data_groups, performance_data


def main() -> None:
    job = Job.read()
    pipeline = dlt.pipeline(
        "peer",
        pipelines_dir=f"{job.folder}/.pipelines",
        destination=dlt.destinations.filesystem(bucket_url=job.folder),
        dataset_name="harvest",
    )
    source = vendor(job, limiter="limiter" in sys.argv, arrow="arrow" in sys.argv)
    print(pipeline.run(source, loader_file_format="parquet"))


if __name__ == "__main__":
    main()
