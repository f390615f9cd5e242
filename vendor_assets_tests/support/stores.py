"""Stores for tests: the same test runs on a folder and on S3."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.storage.objects import ObjectStore, open_store
from vendor_assets_tests.support.s3 import RunningS3, s3_client


@dataclass(frozen=True)
class Place:
    """Where a store is; another process can open it again."""

    url: str
    endpoint: str | None = None
    key: str = RunningS3.access_key
    secret: str = RunningS3.secret_key

    def open(self) -> ObjectStore:
        """A new store object, as another process would have it."""
        return open_store(self.url, s3_client_factory=self._client)

    def _client(self) -> Any:
        from botocore.config import Config

        return s3_client(
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(
                connect_timeout=2,
                read_timeout=20,
                retries={"mode": "standard", "max_attempts": 2},
                max_pool_connections=32,
            ),
        )


@pytest.fixture(scope="session")
def bucket(s3_server: RunningS3) -> str:
    """A bucket for this module."""
    return s3_server.make_bucket()


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a store."""
    if request.param == "folder":
        return Place(str(tmp_path / "store"))
    server: RunningS3 = request.getfixturevalue("s3_server")
    name = request.getfixturevalue("bucket")
    return Place(f"s3://{name}/{uuid.uuid4().hex}/deep", server.endpoint)


@pytest.fixture
def store(place: Place) -> ObjectStore:
    """An empty store."""
    return place.open()
