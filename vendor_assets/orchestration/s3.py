"""The store on S3; a module of its own because importing ``dagster_aws`` takes 0.8 seconds of CPU."""

from collections.abc import Callable
from typing import Any

import boto3
import dagster as dg
from botocore import UNSIGNED
from botocore.config import Config
from dagster_aws.s3 import S3Resource

from vendor_assets.orchestration.resources import StoreResource
from vendor_assets.storage.s3 import client_config


class S3StoreResource(StoreResource):
    """The store of an account, on S3 or an S3-compatible server."""

    s3: dg.ResourceDependency[S3Resource]

    def _client_factory(self) -> Callable[[], Any]:
        return lambda: _client(self.s3)


def _client(s3: S3Resource) -> Any:
    """A client by the resource's settings; its own ``get_client`` keeps ten connections, too few for a run."""
    config = client_config(max_attempts=s3.max_attempts)
    if s3.use_unsigned_session:
        config = config.merge(Config(signature_version=UNSIGNED))
    return boto3.session.Session(profile_name=s3.profile_name).client(
        "s3",
        region_name=s3.region_name,
        endpoint_url=s3.endpoint_url,
        use_ssl=s3.use_ssl,
        verify=s3.verify,
        aws_access_key_id=s3.aws_access_key_id,
        aws_secret_access_key=s3.aws_secret_access_key,
        aws_session_token=s3.aws_session_token,
        config=config,
    )
