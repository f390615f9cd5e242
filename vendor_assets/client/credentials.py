"""What identifies us to the vendor: key, user, token, headers; each read again when its file is renewed."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import unquote

from vendor_assets.client.redaction import Redaction
from vendor_assets.errors import ConfigurationError
from vendor_assets.secret import Secret

_RESERVED: Final = re.compile(
    r"accept|accept-encoding|connection|content-(encoding|length|type)|expect|host|keep-alive|te|trailer"
    r"|transfer-encoding|upgrade|(proxy-|if-|range|sec-).*",
    re.IGNORECASE,
)
"""Headers that only the transport sets."""
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_REMEMBERED: Final = 50
"""This many renewed secrets are still hidden."""
_NO_SECRET: Final = re.compile(r"(x-scope-orgid|.*tenant.*|user-agent|.*region.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Login:
    """Credentials that the vendor, or a gateway before it, wants besides the key."""

    user: str = ""
    password: Secret = field(default_factory=lambda: Secret("VENDOR_PASSWORD"))
    token: Secret = field(default_factory=lambda: Secret("VENDOR_TOKEN"))
    headers: Secret = field(default_factory=lambda: Secret("VENDOR_HEADERS"))

    def __bool__(self) -> bool:
        return bool(self.user or self.password or self.token or self.headers)

    def __str__(self) -> str:
        """A description without values."""
        said = [f"the user {self.user!r}"] if self.user else ["a token"] if self.token else []
        said += [f"the header {name}" for name in parse_headers(self.headers.read(), self.headers.name)]
        return ", ".join(said)

    def read(self) -> dict[str, str]:
        """The headers to send now.

        Raises:
            ConfigurationError: A part is missing, contradicts another, or cannot be sent; the message holds no value.
        """
        if self.user and self.token:
            raise ConfigurationError("VENDOR_USER and VENDOR_TOKEN exclude each other; unset one of them")
        if bool(self.user) != bool(self.password):
            missing = "VENDOR_PASSWORD" if self.user else "VENDOR_USER"
            raise ConfigurationError(f"{missing} is not set; VENDOR_USER and VENDOR_PASSWORD belong together")
        if ":" in self.user:
            raise ConfigurationError("VENDOR_USER has a colon, which basic authentication cannot carry")
        own: dict[str, str] = {}
        if self.user:
            login = f"{self.user}:{self.password.read()}"
            own["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        elif self.token:
            own["Authorization"] = f"Bearer {_checked(self.token.read(), 'VENDOR_TOKEN')}"
        found = parse_headers(self.headers.read(), self.headers.name)
        return _merged(own, found, "VENDOR_USER or VENDOR_TOKEN", "VENDOR_HEADERS")


class _Made(NamedTuple):
    """What the texts of all sources make."""

    texts: tuple[str, ...]
    headers: Mapping[str, str]
    redaction: Redaction


class Credentials:
    """The headers that identify us. Thread-safe.

    Args:
        auth_headers: The dialect's: from a key to the headers that carry it.

    Raises:
        ConfigurationError: A part cannot be sent, or contradicts another.
    """

    def __init__(
        self,
        api_key: Secret,
        login: Login,
        auth_headers: Callable[[str], Mapping[str, str]],
        *,
        optional: bool = False,
    ) -> None:
        self._optional = optional
        self._login = login
        self._auth_headers = auth_headers
        self._sources = (api_key, login.password, login.token, login.headers)
        self._made = _Made((), {}, Redaction(()))
        self._current()

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def advice(self) -> str:
        """What to do if the vendor refuses them."""
        if self._login.user:
            return "set VENDOR_USER and VENDOR_PASSWORD to a login that is valid and may read this"
        if self._login.token:
            return "set VENDOR_TOKEN to a token that is valid and may read this, or renew its file"
        if self._sources[0] or not self._optional:
            return "set VENDOR_API_KEY to a key that is valid and may read this"
        return "set the credentials that it wants: VENDOR_API_KEY, VENDOR_TOKEN, or VENDOR_USER and VENDOR_PASSWORD"

    def headers(self) -> Mapping[str, str]:
        """The headers to send now.

        Raises:
            ConfigurationError: A renewed secret cannot be sent.
        """
        return self._current().headers

    @property
    def redaction(self) -> Redaction:
        """Knows the secrets, the headers made of them, and what they were before."""
        return self._current().redaction

    def outdated(self, sent: Mapping[str, str]) -> bool:
        """Whether the headers, their files read again, differ from those of an earlier request."""
        for secret in self._sources:
            secret.read_anew()
        return any(sent.get(name) != text for name, text in self.headers().items())

    def _current(self) -> _Made:
        texts = tuple(secret.read() for secret in self._sources)
        made = self._made
        if texts == made.texts:
            return made
        key = _checked(texts[0], "VENDOR_API_KEY")
        own = {name: text for name, text in self._auth_headers(key).items() if text}
        headers = _merged(
            own, self._login.read(), "VENDOR_API_KEY", "VENDOR_USER, VENDOR_TOKEN or VENDOR_HEADERS"
        )
        # A tenant's name and the like is no secret, and may stand in what the vendor says.
        whole = (text for name, text in headers.items() if not _NO_SECRET.fullmatch(name))
        secrets = filter(None, (*texts[:3], *whole, *made.redaction.secrets[:_REMEMBERED]))
        made = self._made = _Made(texts, headers, Redaction(secrets))
        return made


def parse_headers(text: str, name: str) -> dict[str, str]:
    """Read ``Name=value`` pairs with commas or line ends between; %2C is a comma in a value, %25 a percent sign.

    Raises:
        ConfigurationError: A pair cannot be read, comes twice, or is reserved; the message holds no value.
    """
    accepted = "give Name=value, several with commas between, like X-Scope-OrgID=team-a"
    found: dict[str, str] = {}
    for pair in filter(str.strip, text.replace("\n", ",").split(",")):
        header, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not _NAME.fullmatch(header):
            raise ConfigurationError(f"{name} has a part that is no header; {accepted}")
        if _RESERVED.fullmatch(header):
            raise ConfigurationError(f"{name} sets {header}, which is not for settings; leave it out")
        if header.lower() in map(str.lower, found):
            raise ConfigurationError(f"{name} sets {header} twice; leave one of them out")
        value = unquote(value)
        if not value or any(not " " <= character <= "~" for character in value) or value != value.strip():
            raise ConfigurationError(
                f"{name} gives {header} a value that a header cannot carry; use printable ASCII characters"
            )
        found[header] = value
    if text.strip() and not found:
        raise ConfigurationError(f"{name} has no header; {accepted}")
    return found


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
