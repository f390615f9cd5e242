"""Checks Amazon's Signature Version 4 as a service does, written from its description alone. Pure.

Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Codes and statuses of
refusals are those of docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CommonErrors.html; a date that is off by
more than five minutes is worded as Amazon's services word it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from calendar import timegm
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

SKEW_SECONDS = 300
_FORM = "%Y%m%dT%H%M%SZ"
_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[^/,\s]+)/(?P<scope>[^,\s]+), *SignedHeaders=(?P<names>[a-z0-9;-]+),"
    r" *Signature=(?P<signature>[0-9a-f]{64})"
)


class Refused(NamedTuple):
    """Why a request is not believed."""

    status: int
    code: str
    message: str


class Signer(NamedTuple):
    """Who may sign; None accepts any.

    Args:
        secret: Without it a signature is not compared.
    """

    key: str | None
    secret: str | None
    region: str
    service: str


def check(
    method: str, target: str, headers: Mapping[str, str], body: bytes, signer: Signer, now: float
) -> Refused | None:
    """What is wrong with a request's signature; None where it is right.

    Args:
        headers: By names in lower case.
        now: UNIX seconds.
    """
    text = headers.get("authorization", "")
    if not text:
        return Refused(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
    found = _HEADER.fullmatch(text)
    date = headers.get("x-amz-date", "")
    if found is None or not re.fullmatch(r"\d{8}T\d{6}Z", date):
        return Refused(400, "IncompleteSignature", "Authorization header requires existence of its parts.")
    names = found["names"].split(";")
    if signer.key is not None and found["key"] != signer.key:
        return Refused(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
    if found["scope"] != f"{date[:8]}/{signer.region}/{signer.service}/aws4_request":
        message = f"Credential should be scoped to a valid region, {signer.region}, and service."
        return Refused(403, "SignatureDoesNotMatch", message)
    unsigned = {"host", *(name for name in headers if name.startswith("x-amz-"))} - set(names)
    if unsigned or not all(name in headers for name in names):
        message = "The request signature does not cover all headers that it must."
        return Refused(403, "SignatureDoesNotMatch", message)
    if refused := _dated(date, now):
        return refused
    expected = _signature(
        method, target, {name: headers[name] for name in names}, body, found["scope"], signer
    )
    if signer.secret is not None and not hmac.compare_digest(expected, found["signature"]):
        message = (
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
            " Access Key and signing method. Consult the service documentation for details."
        )
        return Refused(403, "SignatureDoesNotMatch", message)
    return None


def _dated(date: str, now: float) -> Refused | None:
    """The refusal of a signature that is too old, or of the future."""
    signed = timegm(time.strptime(date, _FORM))
    here, early, late = (
        time.strftime(_FORM, time.gmtime(now + shift)) for shift in (0, -SKEW_SECONDS, SKEW_SECONDS)
    )
    if signed < now - SKEW_SECONDS:
        message = f"Signature expired: {date} is now earlier than {early} ({here} - 5 min.)"
    elif signed > now + SKEW_SECONDS:
        message = f"Signature not yet current: {date} is still later than {late} ({here} + 5 min.)"
    else:
        return None
    return Refused(403, "SignatureDoesNotMatch", message)


def _signature(
    method: str, target: str, signed: Mapping[str, str], body: bytes, scope: str, signer: Signer
) -> str:
    parts = urlsplit(target)
    pairs = [
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True)
    ]
    canonical = [
        method,
        quote(parts.path or "/", safe="/~"),
        "&".join(f"{name}={value}" for name, value in sorted(pairs)),
        *(f"{name}:{' '.join(value.split())}" for name, value in signed.items()),
        "",
        ";".join(signed),
        hashlib.sha256(body).hexdigest(),
    ]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{signer.secret}".encode()
    for part in (
        *scope.split("/"),
        "\n".join(["AWS4-HMAC-SHA256", signed.get("x-amz-date", ""), scope, digest]),
    ):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()
