"""Where data come from: the vendor's kind and address, and the account there. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

EMBEDDED: Final = "embedded"
"""The address of the embedded vendor, on whichever port it listens."""
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


def normal_address(url: str) -> str:
    """An address in the one form in which it is compared: two spellings of it must not have a budget each."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}".rstrip("/")
