"""Amazon's Signature Version 4, by botocore, for :meth:`~vendor_assets.vendors.base.Vendor.auth`."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import requests.auth  # noqa: TID251  its seam
from botocore.auth import SigV4Auth  # noqa: TID251  signs only
from botocore.awsrequest import AWSRequest  # noqa: TID251
from botocore.credentials import Credentials  # noqa: TID251

from vendor_assets.errors import ConfigurationError

_REGION: Final = re.compile(r"(?:.*\.)?([a-z]{2,3}(?:-[a-z]+)+-\d{1,2})\..*")


class SignatureV4(requests.auth.AuthBase):
    """Signs host, date, ``Content-Type`` and all headers that begin with ``X-Amz-``, like a session's token.

    Args:
        service: The service's name in signatures, like ``monitoring`` or ``aps``.
        region: Empty where the address names it, as ``monitoring.eu-central-1.amazonaws.com`` does.
    """

    def __init__(self, access_key: str, secret_key: str, service: str, region: str = "") -> None:
        self._credentials = Credentials(access_key, secret_key)
        self._service, self._region = service, region

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the signature of this moment; a ConfigurationError where no region is known."""
        # The query is signed as it is written, and Amazon writes a blank as %20.
        request.url = str(request.url).replace("+", "%20")
        region = self._region or _region_of(urlsplit(request.url).hostname or "")
        signed = {
            name: value
            for name, value in request.headers.items()
            if name.lower() == "content-type" or name.lower().startswith("x-amz-")
        }
        copy = AWSRequest(request.method, request.url, signed, request.body)
        SigV4Auth(self._credentials, self._service, region).add_auth(copy)
        request.headers.update(copy.headers)
        return request


def _region_of(host: str) -> str:
    found = _REGION.fullmatch(host)
    if found is None:
        raise ConfigurationError(
            f"VENDOR_URL names no region of Amazon ({host}); set it, like VENDOR_OPTIONS=region=eu-central-1"
        )
    return found[1]
