"""The store on S3; a module of its own because importing ``dagster_aws`` takes 0.8 seconds of CPU."""

from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from vendor_assets.orchestration.resources import StoreResource


class S3StoreResource(StoreResource):
    """The store of an account, on S3 or an S3-compatible server."""

    s3: dg.ResourceDependency[S3Resource]

    def _client_factory(self) -> Callable[[], Any]:
        client: Callable[[], Any] = self.s3.get_client
        return client
