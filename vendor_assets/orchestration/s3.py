"""The store on S3, apart from the others: ``dagster_aws`` takes 0.8 seconds of CPU, which folders need not pay."""

import dagster as dg
from dagster_aws.s3 import S3Resource

from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.storage.objects import ObjectStore, open_store


class S3StoreResource(StoreResource):
    """Where everything is kept: a bucket on S3, or on a server that speaks S3."""

    s3: dg.ResourceDependency[S3Resource]

    def _open(self) -> ObjectStore:
        return open_store(self.url, s3_client_factory=self.s3.get_client)
