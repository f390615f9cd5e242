"""What identifies us to the vendor: keys, user, token, headers; each read again when its file is renewed."""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from vendor_assets.client.redaction import Redaction
from vendor_assets.errors import ConfigurationError
from vendor_assets.secret import Secret
from vendor_assets.vendors.base import Keys, Vendor

if TYPE_CHECKING:
    from requests.auth import AuthBase

    from vendor_assets.client.renewal import Renewal

RESERVED: Final = re.compile(
    r"accept|accept-encoding|connection|content-(encoding|length|type)|expect|host|keep-alive|te|trailer"
    r"|transfer-encoding|upgrade|(proxy-|if-|range|sec-).*",
    re.IGNORECASE,
)
"""Headers that only the transport sets."""
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_REMEMBERED: Final = 50
"""This many renewed secrets are still hidden."""
_NO_SECRET: Final = re.compile(
    r"x-scope-orgid|.*tenant.*|user-agent|.*region.*|(.*-)?(date|expires|algorithm|signedheaders|timestamp)"
    r"|.*-content-sha256|content-md5|(content-)?digest",
    re.IGNORECASE,
)
"""Headers and query parameters whose values are no secrets, and may well stand in data."""


@dataclass(frozen=True)
class Login:
    """Credentials that the vendor, or a gateway before it, wants besides the key."""

    user: str = ""
    password: Secret = field(default_factory=lambda: Secret("VENDOR_PASSWORD"))
    token: Secret = field(default_factory=lambda: Secret("VENDOR_TOKEN"))
    headers: Secret = field(default_factory=lambda: Secret("VENDOR_HEADERS"))
    application_key: Secret = field(default_factory=lambda: Secret("VENDOR_APPLICATION_KEY"))

    def __bool__(self) -> bool:
        """Whether it may stand in for the key; an application key does not."""
        return bool(self.user or self.password or self.token or self.headers)

    def __str__(self) -> str:
        """A description without values."""
        said = ["an application key"] if self.application_key else []
        said += [f"the user {self.user!r}"] if self.user else ["a token"] if self.token else []
        said += [f"the header {name}" for name in parse_headers(self.headers.read(), self.headers.name)]
        return ", ".join(said)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All of them."""
        return (self.password, self.token, self.headers, self.application_key)

    def read(self, *, basic: bool = True) -> dict[str, str]:
        """The headers to send now.

        Args:
            basic: Whether user and password are sent; else the vendor's own auth takes them.

        Raises:
            ConfigurationError: A part is missing, contradicts another, or cannot be sent; the message holds no value.
        """
        if self.user and self.token:
            raise ConfigurationError("VENDOR_USER and VENDOR_TOKEN are both set; unset one of them")
        if bool(self.user) != bool(self.password):
            missing = "VENDOR_PASSWORD" if self.user else "VENDOR_USER"
            raise ConfigurationError(f"{missing} is not set; VENDOR_USER and VENDOR_PASSWORD belong together")
        own: dict[str, str] = {}
        if self.user and basic:
            if ":" in self.user:
                raise ConfigurationError("VENDOR_USER has a colon, which basic authentication cannot carry")
            login = f"{self.user}:{self.password.read()}"
            own["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        elif self.token:
            own["Authorization"] = f"Bearer {_checked(self.token.read(), 'VENDOR_TOKEN')}"
        found = parse_headers(self.headers.read(), self.headers.name)
        return _merged(own, found, "VENDOR_USER or VENDOR_TOKEN", "VENDOR_HEADERS")


@dataclass(frozen=True, repr=False)
class Signed:
    """A request with what identifies us; all of it is secret.

    Attributes:
        added: The secret texts that the vendor's auth added to this attempt.
        names: Names of the query parameters that it added.
        token: Which token was sent, where one is renewed.
    """

    url: str
    headers: Mapping[str, str]
    by: Identity
    added: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    token: str = ""

    def accept(self) -> None:
        """Note that the vendor took it."""
        if self.by.renewal is not None:
            self.by.renewal.accept(self.token)


class Identity(NamedTuple):
    """What the texts of all sources make.

    Attributes:
        renewal: Of the token, where the vendor's auth needs one.
    """

    texts: tuple[str, ...]
    headers: Mapping[str, str]
    auth: AuthBase | None
    redaction: Redaction
    renewal: Renewal | None = None

    @property
    def lacks_token(self) -> bool:
        """Whether nothing can be sent before a token has been asked for."""
        return self.renewal is not None and self.renewal.over

    def sign(self, method: str, url: str, headers: Mapping[str, str], content: bytes, *, host: str) -> Signed:
        """Add what identifies us to a request.

        Args:
            host: What the request's ``Host`` header will say.

        Raises:
            ConfigurationError: The vendor's auth cannot be used.
            VendorUnavailableError: The vendor's auth asked somebody in vain.
        """
        headers = {**headers, **self.headers}
        if self.auth is None:
            return Signed(url, headers, self)
        from vendor_assets.client.signing import sign  # noqa: PLC0415  requests takes 0.2 s

        token = self.renewal.auth.token.text if self.renewal else ""
        found = sign(self.auth, method, url, headers, content, host=host, hide=self.redaction.message)
        secrets = (text for name, text in found.added if not _NO_SECRET.fullmatch(name))
        known = set(self.redaction.secrets)
        added = tuple(text for text in secrets if text and text not in known)
        return Signed(found.url, found.headers, self, added, found.names, token)


class Credentials:
    """What identifies us, in the way of a vendor. Thread-safe.

    Args:
        clock: By which tokens expire.

    Raises:
        ConfigurationError: A part cannot be sent, or contradicts another.
    """

    def __init__(
        self, api_key: Secret, login: Login, vendor: Vendor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._api_key = api_key
        self._login = login
        self._vendor = vendor
        self._sources = (api_key, login.application_key, login.password, login.token, login.headers)
        self._may_change = any(secret.path for secret in self._sources)
        self._lock = threading.Lock()
        self._made = Identity((), {}, None, Redaction(()))
        self.current()

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def advice(self) -> str:
        """What to do if the vendor refuses them."""
        if self._login.user:
            return "set VENDOR_USER and VENDOR_PASSWORD to a login that is valid and may read this"
        if self._login.token:
            return "set VENDOR_TOKEN to a token that is valid and may read this, or renew its file"
        if self._vendor.needs_application_key:
            return "set VENDOR_API_KEY and VENDOR_APPLICATION_KEY to keys that are valid and may read this"
        if self._api_key or self._vendor.needs_api_key:
            return "set VENDOR_API_KEY to a key that is valid and may read this"
        return "set the credentials that it wants: VENDOR_API_KEY, VENDOR_TOKEN, or VENDOR_USER and VENDOR_PASSWORD"

    @property
    def redaction(self) -> Redaction:
        """Knows the secrets, the headers made of them, and what they were before."""
        return self.current().redaction

    def current(self) -> Identity:
        """What identifies us now.

        Raises:
            ConfigurationError: A renewed secret cannot be sent.
        """
        if self._made.texts and not self._may_change:
            return self._made
        texts = tuple(secret.read() for secret in self._sources)
        if texts == self._made.texts:
            return self._made
        with self._lock:
            if texts != self._made.texts:
                self._made = self._make(texts)
            return self._made

    def outdated(self, signed: Signed) -> bool:
        """Whether a 401 to a request is no refusal: the settings, their files read again, or the token are newer."""
        for secret in self._sources:
            secret.read_anew()
        current = self.current()
        if current.texts != signed.by.texts:
            return True
        return current.renewal is not None and current.renewal.refuse(signed.token)

    def _make(self, texts: tuple[str, ...]) -> Identity:
        vendor, login = self._vendor, self._login
        key = _checked(texts[0], "VENDOR_API_KEY")
        application_key = _checked(texts[1], "VENDOR_APPLICATION_KEY")
        more = login.read(basic=not vendor.needs_login)
        auth: AuthBase | Mapping[str, str] = {}
        if (
            (key or not vendor.needs_api_key)
            and (application_key or not vendor.needs_application_key)
            and (login.user or not vendor.needs_login)
        ):
            user, password = (login.user, texts[2]) if vendor.needs_login else ("", "")
            auth = vendor.auth(Keys(key, application_key, user, password))
            if not auth and (key or user):
                raise ConfigurationError(
                    f"{vendor.title} does not say how a key is sent; its class needs auth_headers or auth"
                )
        own: dict[str, str] = {}
        if isinstance(auth, Mapping):
            own = {name: text for name, text in auth.items() if text}
        elif not callable(auth):
            raise ConfigurationError(
                f"the auth of {vendor.title} is a {type(auth).__name__}; it must be headers or an AuthBase of requests"
            )
        headers = _merged(own, more, "VENDOR_API_KEY", "VENDOR_USER, VENDOR_TOKEN or VENDOR_HEADERS")
        # A tenant's name and the like is no secret, and may stand in what the vendor says.
        whole = (text for name, text in headers.items() if not _NO_SECRET.fullmatch(name))
        secrets = filter(None, (*texts[:4], *whole, *self._made.redaction.secrets[:_REMEMBERED]))
        if isinstance(auth, Mapping):
            return Identity(texts, headers, None, Redaction(secrets))
        return Identity(texts, headers, auth, Redaction(secrets), _renewal(auth, self._clock))


def _renewal(auth: AuthBase, clock: Callable[[], float]) -> Renewal | None:
    from vendor_assets.client.renewal import Renewal  # noqa: PLC0415  requests takes 0.2 s
    from vendor_assets.vendors.oauth import ClientCredentials  # noqa: PLC0415

    return Renewal(auth, clock) if isinstance(auth, ClientCredentials) else None


def parse_headers(text: str, name: str) -> dict[str, str]:
    """Read ``Name=value`` pairs with commas or line ends between; %2C is a comma in a value, %25 a percent sign.

    Raises:
        ConfigurationError: A pair cannot be read, comes twice, or is reserved; the message holds no value.
    """
    accepted = "give Name=value, like X-Scope-OrgID=team-a; separate several with commas"
    found: dict[str, str] = {}
    for pair in filter(str.strip, text.replace("\n", ",").split(",")):
        header, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not _NAME.fullmatch(header):
            raise ConfigurationError(f"{name} has a part that is not a header; {accepted}")
        if RESERVED.fullmatch(header):
            raise ConfigurationError(f"{name} sets {header}, which is not for settings; leave it out")
        if header.lower() in map(str.lower, found):
            raise ConfigurationError(f"{name} sets {header} twice; leave one of them out")
        value = unquote(value)
        if not is_header(header, value):
            raise ConfigurationError(
                f"{name} gives {header} a value that a header cannot carry; use printable ASCII characters"
            )
        found[header] = value
    if text.strip() and not found:
        raise ConfigurationError(f"{name} has no header; {accepted}")
    return found


def is_header(name: str, value: str) -> bool:
    """Whether a header can have this name and this value."""
    printable = all(" " <= character <= "~" for character in value)
    return bool(_NAME.fullmatch(name) and value and printable and value == value.strip())


def _checked(text: str, name: str) -> str:
    if any(not "!" <= character <= "~" for character in text):
        raise ConfigurationError(
            f"{name} has characters that a header cannot carry (blanks, line ends, non-ASCII); set it again"
        )
    return text


def _merged(
    first: Mapping[str, str], second: Mapping[str, str], first_name: str, second_name: str
) -> dict[str, str]:
    known = {name.lower() for name in first}
    if twice := next((name for name in second if name.lower() in known), None):
        raise ConfigurationError(
            f"{first_name} and {second_name} both set the header {twice}; unset one of them"
        )
    return {**first, **second}
