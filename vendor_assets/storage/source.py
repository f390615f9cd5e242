"""Where data come from: the vendor's kind and address, and the account there. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from socket import inet_aton, inet_ntoa
from typing import Final, Self
from urllib.parse import urlsplit

EMBEDDED: Final = "embedded"
"""The address of the embedded vendor, on whichever port it listens."""
_NUMBERS: Final = re.compile(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+)){0,3}")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Source:
    """Where data come from; its text is ``kind@address`` or ``kind@address#account``.

    Attributes:
        kind: The vendor's dialect.
        address: Its normal form, or ``embedded``; never with credentials.
        account: The account's name; empty where it has none.
    """

    kind: str
    address: str
    account: str = ""

    def __str__(self) -> str:
        """In one word, as it is configured, shown and compared."""
        return f"{self.kind}@{self.address}" + (f"#{self.account}" if self.account else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source with this text."""
        place, _, account = text.partition("#")
        kind, _, address = place.partition("@")
        return cls(kind, address, account)

    def normal(self) -> Self:
        """The same with its address in the present normal form; an older release had other ones."""
        if "://" not in self.address:
            return self
        with suppress(ValueError, LookupError):
            return replace(self, address=normal_address(self.address))
        return self


def normal_address(url: str) -> str:
    """An address in the one form in which it is compared: two spellings of it must not have a budget each.

    Raises:
        ValueError: It is no address.
    """
    parts = urlsplit(url)
    host = _normal_host(parts.hostname or "")
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}".rstrip("/")


def _normal_host(host: str) -> str:
    """A host as it is asked for: without the root's dot, international names in ASCII, numbers in their usual form."""
    if ":" in host:
        # An interface may follow.
        number, percent, zone = host.partition("%")
        return f"[{IPv6Address(number)}{percent}{zone}]"
    host = host.removesuffix(".")
    if _NUMBERS.fullmatch(host):
        with suppress(OSError):
            # 127.1 and 0x7f000001 are 127.0.0.1 to whoever connects.
            return inet_ntoa(inet_aton(host))
    return host if host.isascii() else host.encode("idna").decode()
