"""OAuth 2.0 client credentials (RFC 6749, 4.4): how a token is asked for and read. Pure: the client asks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlsplit

import requests.auth  # noqa: TID251  its seam; nothing is sent here

from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors.base import Response


@dataclass(frozen=True)
class Token:
    """A bearer token.

    Attributes:
        lifetime_seconds: From when it was asked for; infinite where the server does not say.
    """

    text: str = field(default="", repr=False)
    lifetime_seconds: float = math.inf


class ClientCredentials(requests.auth.AuthBase):
    """A bearer token for the id and the secret of a client, for :meth:`~vendor_assets.vendors.base.Vendor.auth`.

    The client that fetches asks for the token in a slot of the budget, and renews it before it expires, once for all
    threads of a process.

    Args:
        token_url: The token endpoint's address, or a path below the vendor's.
        scope: Scopes with blanks between.
        fields: More form fields, like an ``audience``.
        in_body: Whether id and secret are form fields too; else they are basic authentication (RFC 6749, 2.3.1).

    Raises:
        ConfigurationError: ``token_url`` is neither.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str = "",
        fields: Sequence[tuple[str, str]] = (),
        in_body: bool = False,
    ) -> None:
        _check(token_url)
        self.token_url = token_url
        self.token = Token()
        self._client = (client_id, client_secret)
        self._fields = [("grant_type", "client_credentials"), *([("scope", scope)] if scope else []), *fields]
        self._in_body = in_body

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token.

        Raises:
            ConfigurationError: There is none; only the client of this package asks for one.
        """
        if not self.token.text:
            raise ConfigurationError("there is no token yet; only the client of vendor_assets asks for one")
        prepared.headers["Authorization"] = f"Bearer {self.token.text}"
        return prepared

    def token_request(self, base_url: str) -> requests.PreparedRequest:
        """The request for a token.

        Args:
            base_url: The vendor's address.
        """
        url = base_url + self.token_url if self.token_url.startswith("/") else self.token_url
        if self._in_body:
            secret = [("client_id", self._client[0]), ("client_secret", self._client[1])]
            return requests.Request("POST", url, data=[*self._fields, *secret]).prepare()
        # Both are encoded as in a form first, so that the id may have a colon.
        user, password = map(quote_plus, self._client)
        return requests.Request(
            "POST", url, data=self._fields, auth=requests.auth.HTTPBasicAuth(user, password)
        ).prepare()

    def read_token(self, response: Response) -> Token:
        """The token of an answer with status 200.

        Raises:
            VendorProtocolError: There is none; the message shows nothing of the answer.
        """
        try:
            told = json.loads(response.body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise VendorProtocolError("the answer is not a JSON object")
        text, kind = told.get("access_token"), told.get("token_type", "bearer")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise VendorProtocolError("the token's type is not Bearer")
        if not isinstance(text, str) or not text or any(not "!" <= each <= "~" for each in text):
            raise VendorProtocolError("the answer has no access_token that a header can carry")
        return Token(text, _seconds(told.get("expires_in")))


def _check(token_url: str) -> None:
    try:
        parts = urlsplit(token_url)
        whole = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        whole = None
    path = token_url.startswith("/") and not token_url.startswith("//")
    if not (whole or path) or "#" in token_url or any(not "!" <= each <= "~" for each in token_url):
        raise ConfigurationError(
            "the address of the token endpoint cannot be used; give one like https://login.example.com/oauth2/token"
        )


def _seconds(told: object) -> float:
    """Infinite where nothing usable is told; some servers say 0 for a token that does not expire."""
    try:
        seconds = float(told) if isinstance(told, (int, float, str)) else 0.0
    except (ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf
