"""The store on S3, apart from the others: ``dagster_aws`` takes 0.8 seconds of CPU, which folders need not pay."""

from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from vendor_assets.orchestration.resources import StoreResource


class S3StoreResource(StoreResource):
    """Where everything is kept: a bucket on S3, or on a server that speaks S3."""

    s3: dg.ResourceDependency[S3Resource]

    def _client_factory(self) -> Callable[[], Any]:
        client: Callable[[], Any] = self.s3.get_client
        return client
