"""singer-sdk: a tap of four streams, each the child of the one before, piped into a target that writes Parquet.

    python singer_tap.py tap JOB | python singer_tap.py target JOB

sdk.meltano.com: parent_streams (contexts; one bookmark for all), classes/singer_sdk.RESTStream (paginator, retries),
code_samples (waiting as long as Retry-After says), sinks (a batch sink), the faster reader and writer of messages on
msgspec. The SDK asks one call after the other.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from typing import Any, ClassVar

from job import COLUMNS, Job, Writer, rows, table
from requests import Response
from singer_sdk import BatchSink, RESTStream, Tap, Target
from singer_sdk import typing as th
from singer_sdk.contrib.msgspec import MsgSpecReader, MsgSpecWriter
from singer_sdk.pagination import HeaderLinkPaginator

JOB = Job.read()


class Listed(RESTStream[Any]):
    """A list of the vendor."""

    url_base = JOB.url
    selected_by_default = False
    state_partitioning_keys: ClassVar[list[str]] = []
    schema = th.PropertiesList(th.Property("id", th.IntegerType)).to_dict()

    @property
    def http_headers(self) -> dict[str, str]:
        """The key."""
        return JOB.headers

    def get_new_paginator(self) -> HeaderLinkPaginator:
        """Pages by Link headers."""
        return HeaderLinkPaginator()

    def get_url_params(self, context: Any, next_page_token: Any) -> Any:  # noqa: ARG002
        """The query of the next page."""
        return next_page_token.query if next_page_token else {}

    def backoff_wait_generator(self) -> Generator[float, None, None]:
        """As long as the vendor says; doubled each time where it does not."""
        attempt = 0

        def seconds(error: Any) -> float:
            nonlocal attempt
            attempt += 1
            answer = getattr(error, "response", None)
            return float(2**attempt if answer is None else answer.headers.get("Retry-After", 2**attempt))

        return self.backoff_runtime(value=seconds)


class Troops(Listed):
    name = "troops"
    path = "/v2/applications.json"
    records_jsonpath = "$.applications[*]"

    def get_child_context(self, record: Any, context: Any) -> Any:  # noqa: ARG002
        return {"troop_id": record["id"]}


class Warriors(Listed):
    name = "warriors"
    path = "/v2/applications/{troop_id}/hosts.json"
    records_jsonpath = "$.application_hosts[*]"
    parent_stream_type = Troops

    def get_child_context(self, record: Any, context: Any) -> Any:
        return {"troop_id": context["troop_id"], "warrior_id": record["id"]}


class DataGroups(Listed):
    name = "data_groups"
    path = "/v2/applications/{troop_id}/hosts/{warrior_id}/metrics.json"
    parent_stream_type = Warriors

    def parse_response(self, response: Response) -> Iterable[Any]:
        yield {"names": [group["name"] for group in response.json()["metrics"]]}

    def get_child_context(self, record: Any, context: Any) -> Any:
        return {**context, "names": record["names"]}


class PerformanceData(Listed):
    name = "performance_data"
    path = "/v2/applications/{troop_id}/hosts/{warrior_id}/metrics/data.json"
    parent_stream_type = DataGroups
    selected_by_default = True
    schema = th.PropertiesList(
        *(th.Property(name, th.NumberType if name == "value" else th.StringType) for name in COLUMNS),
    ).to_dict()

    def get_url_params(self, context: Any, next_page_token: Any) -> Any:  # noqa: ARG002
        return JOB.params(context["names"])

    def get_records(self, context: Any) -> Iterable[Any]:
        self._which = context["troop_id"], context["warrior_id"]
        return super().get_records(context)

    def parse_response(self, response: Response) -> Iterable[Any]:
        yield from rows(*self._which, response.json())


class TapVendor(Tap):
    name = "tap-vendor"
    message_writer_class = MsgSpecWriter

    def discover_streams(self) -> list[Listed]:
        return [Troops(self), Warriors(self), DataGroups(self), PerformanceData(self)]


class ParquetSink(BatchSink):
    max_size = 10_000

    def setup(self) -> None:
        self._writer = Writer(JOB.folder)

    def process_batch(self, context: Any) -> None:
        # Numbers come as decimals.
        records = [record | {"value": float(record["value"])} for record in context["records"]]
        self._writer.add(table(records))

    def clean_up(self) -> None:
        self._writer.close()


class TargetParquet(Target):
    name = "target-parquet"
    default_sink_class = ParquetSink
    message_reader_class = MsgSpecReader


if __name__ == "__main__":
    role = TapVendor if "tap" in sys.argv else TargetParquet
    role.cli(args=[])
