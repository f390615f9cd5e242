"""airbyte-cdk: a declarative source with an API budget, concurrent, its records written by plain pyarrow.

docs.airbyte.com, connector-development/config-based: understanding-the-yaml-file (substreams, request options,
rate-limit-api-budget, concurrency level) and advanced-topics/custom-components (an answer's rows and a list's names are
extracted by components of our own, which also spares it ``AddFields`` for each record). The CDK has no destination of
its own: the messages of the source are taken in its process, without JSON and a pipe between, which is in its favour.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from typing import Any

import requests
from airbyte_cdk.models import (
    AirbyteStream,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteStream,
    DestinationSyncMode,
    SyncMode,
    Type,
)
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource
from airbyte_cdk.sources.declarative.extractors.record_extractor import RecordExtractor
from job import COLUMNS, Job, Writer, rows, table

CONCURRENCY = 20


@dataclass
class NamesExtractor(RecordExtractor):
    """One record of a list of data groups: their names, since one call asks for all of them."""

    parameters: InitVar[Any] = None

    def extract_records(self, response: requests.Response) -> Iterable[Any]:
        """The names of a page."""
        names = [group["name"] for group in response.json()["metrics"]]
        return [{"names": names}] if names else []


@dataclass
class RowsExtractor(RecordExtractor):
    """The rows of an answer; troop and warrior are in its address."""

    parameters: InitVar[Any] = None

    def extract_records(self, response: requests.Response) -> Iterable[Any]:
        """The rows of an answer."""
        parts = str(response.request.path_url).split("/")
        return rows(parts[3], parts[5], response.json())


def stream(
    name: str, path: str, selector: Any, parent: tuple[Any, str, str] | None = None, **params: Any
) -> Any:
    """A stream of the manifest, with the stream, key and partition field of its parent."""
    router = {}
    if parent is not None:
        of, key, field = parent
        router = {
            "partition_router": {
                "type": "SubstreamPartitionRouter",
                "parent_stream_configs": [
                    {"type": "ParentStreamConfig", "stream": of, "parent_key": key, "partition_field": field}
                ],
            }
        }
    backoff = {"type": "WaitTimeFromHeader", "header": "Retry-After"}
    return {
        "type": "DeclarativeStream",
        "name": name,
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {
                "type": "HttpRequester",
                "url_base": "{{ config['url'] }}",
                "path": path,
                "http_method": "GET",
                "request_headers": {"X-Api-Key": "{{ config['key'] }}"},
                "request_parameters": params,
                "error_handler": {
                    "type": "DefaultErrorHandler",
                    "backoff_strategies": [backoff, {"type": "ExponentialBackoffStrategy", "factor": 1}],
                },
            },
            "record_selector": {"type": "RecordSelector", "extractor": selector},
            "paginator": {
                "type": "DefaultPaginator",
                "page_token_option": {"type": "RequestPath"},
                "pagination_strategy": {
                    "type": "CursorPagination",
                    "cursor_value": "{{ headers['link']['next']['url'] }}",
                    "stop_condition": "{{ 'next' not in headers['link'] }}",
                },
            },
            **router,
        },
        "schema_loader": {
            "type": "InlineSchemaLoader",
            "schema": {
                "type": "object",
                "properties": {name: {"type": "number" if name == "value" else "string"} for name in COLUMNS},
            },
        },
    }


def manifest(job: Job) -> dict[str, Any]:
    """The source."""

    def listed(name: str) -> dict[str, Any]:
        return {"type": "DpathExtractor", "field_path": [name]}

    def custom(name: str) -> dict[str, Any]:
        return {"type": "CustomRecordExtractor", "class_name": f"components.{name}"}

    slice_of = "stream_partition['parent_slice']"
    troops = stream("troops", "/v2/applications.json", listed("applications"))
    warriors = stream(
        "warriors",
        "/v2/applications/{{ stream_partition['troop_id'] }}/hosts.json",
        listed("application_hosts"),
        (troops, "id", "troop_id"),
    )
    hosts = "/v2/applications/{{ SLICE['troop_id'] }}/hosts/{{ PARTITION['warrior_id'] }}/metrics"
    data_groups = stream(
        "data_groups",
        hosts.replace("SLICE", slice_of).replace("PARTITION", "stream_partition") + ".json",
        custom("NamesExtractor"),
        (warriors, "id", "warrior_id"),
    )
    data = stream(
        "performance_data",
        hosts.replace("SLICE", f"{slice_of}['parent_slice']").replace("PARTITION", slice_of) + "/data.json",
        custom("RowsExtractor"),
        (data_groups, "names", "names"),
        **job.params([]) | {"names[]": "{{ stream_partition['names'] }}", "period": str(job.period)},
    )
    budget = {}
    if job.rate:
        rate = {"type": "Rate", "limit": job.rate, "interval": "PT1S"}
        policy = {"type": "MovingWindowCallRatePolicy", "rates": [rate], "matchers": []}
        budget = {"api_budget": {"type": "HTTPAPIBudget", "policies": [policy]}}
    return {
        "version": "7.39.1",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["troops"]},
        "concurrency_level": {"type": "ConcurrencyLevel", "default_concurrency": CONCURRENCY},
        "streams": [data],
        **budget,
    }


def main() -> None:
    job = Job.read()
    sys.modules["components"] = sys.modules["__main__"]
    logging.getLogger("airbyte").setLevel(logging.WARNING)
    chosen = AirbyteStream(
        name="performance_data", json_schema={}, supported_sync_modes=[SyncMode.full_refresh]
    )
    catalog = ConfiguredAirbyteCatalog(
        streams=[
            ConfiguredAirbyteStream(
                stream=chosen,
                sync_mode=SyncMode.full_refresh,
                destination_sync_mode=DestinationSyncMode.overwrite,
            )
        ]
    )
    config = {"url": job.url, "key": job.key}
    source = ConcurrentDeclarativeSource(
        catalog=catalog, config=config, state=[], source_config=manifest(job)
    )
    writer = Writer(job.folder)
    batch: list[Any] = []
    for message in source.read(logging.getLogger("airbyte"), config, catalog, []):
        if message.type == Type.RECORD:
            batch.append(message.record.data)
            if len(batch) == 10_000:
                writer.add(table(batch))
                batch = []
    if batch:
        writer.add(table(batch))
    writer.close()


if __name__ == "__main__":
    main()
