"""One attempt, signed by an auth of ``requests``: what it may add, and what it may not change.

The request is prepared for the auth alone; the transport sends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict

from vendor_assets.client.credentials import RESERVED, is_header
from vendor_assets.errors import ConfigurationError, VendorAssetsError, VendorUnavailableError

_OF_THE_TRANSPORT: Final = ("host", "content-length")


@dataclass(frozen=True, repr=False)
class Additions:
    """A request as an auth left it.

    Attributes:
        added: Names and texts of the headers and query parameters that it added.
        names: Names of the latter.
    """

    url: str
    headers: Mapping[str, str]
    added: tuple[tuple[str, str], ...]
    names: frozenset[str]


def sign(
    auth: AuthBase,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    *,
    host: str,
    hide: Callable[[str], str],
) -> Additions:
    """Let an auth sign a request.

    Args:
        host: What the request's ``Host`` header will say.
        hide: Removes secrets from a message.

    Raises:
        ConfigurationError: It failed, wants to send again by itself, or changes what it may not.
        VendorUnavailableError: It asked somebody in vain.
    """
    who = f"the vendor's auth ({type(auth).__name__})"
    found = _signed(auth, _prepared(method, url, headers, content), who, hide)
    if any(found.hooks.values()):
        raise ConfigurationError(
            f"{who} waits for answers and sends again by itself (a hook, as for digest authentication), which is not "
            "supported; take one that signs each request"
        )
    before, after = urlsplit(url), urlsplit(found.url or "")
    old, new = Counter(_pairs(before)), Counter(_pairs(after))
    sent = {_text(name): _text(value) for name, value in found.headers.items()}
    lower = {name.lower(): value for name, value in sent.items()}
    own = {name.lower(): value for name, value in headers.items()}
    changes = {
        "method": found.method != method,
        "host": (before.scheme, before.netloc.lower()) != (after.scheme, after.netloc.lower())
        or lower.get("host", host).lower() != host.lower(),
        "path": before.path != after.path,
        "query": bool(old - new),
        "body": _bytes(found.body) != content,
        **{f"header {name}": lower.get(name.lower()) != value for name, value in headers.items()},
    }
    for what in (what for what, changed in changes.items() if changed):
        raise ConfigurationError(f"{who} changes the {what}; it may add headers and query parameters only")
    added = {name: value for name, value in sent.items() if name.lower() not in (*own, *_OF_THE_TRANSPORT)}
    for name, value in added.items():
        if RESERVED.fullmatch(name):
            raise ConfigurationError(f"{who} sets the header {name}, which only the transport does")
        if not is_header(name, value):
            raise ConfigurationError(
                f"{who} sets a header that cannot be sent; use printable ASCII characters"
            )
    pairs = tuple(new - old)
    names = frozenset(name for name, _ in pairs)
    return Additions(found.url or "", {**headers, **added}, (*added.items(), *pairs), names)


def _prepared(method: str, url: str, headers: Mapping[str, str], content: bytes) -> PreparedRequest:
    """The request as it is; ``prepare()`` would write the URL anew."""
    prepared = PreparedRequest()
    prepared.method, prepared.url, prepared.body = method, url, content or None
    prepared.headers = CaseInsensitiveDict(headers)
    if content or method != "GET":
        prepared.headers["Content-Length"] = str(len(content))
    return prepared


def _signed(
    auth: AuthBase, prepared: PreparedRequest, who: str, hide: Callable[[str], str]
) -> PreparedRequest:
    try:
        found: object = auth(prepared)
    except VendorAssetsError:
        raise
    except OSError as error:
        unavailable = VendorUnavailableError(hide(f"{who} failed: {type(error).__name__}: {error}"))
        unavailable.calls = 0
        raise unavailable from None
    except Exception as error:  # noqa: BLE001  whatever another package raises; its text may hold the key
        raise ConfigurationError(hide(f"{who} failed: {type(error).__name__}: {error}")) from None
    if not isinstance(found, PreparedRequest):
        raise ConfigurationError(f"{who} returns a {type(found).__name__}; it must return the request")
    return found


def _pairs(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _bytes(body: object) -> object:
    return body.encode() if isinstance(body, str) else body or b""
