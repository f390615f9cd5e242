"""Taking secrets out of what was received: a vendor may echo the key, as it stands or written otherwise."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "***"

SHORTEST: Final = 8
"""A secret of fewer characters is taken out of messages only: in data it would be found where it is not meant."""


class Redaction:
    """Knows the secrets of one client, in every form in which a server could repeat them.

    Args:
        secrets: The key, the headers that carry it; parts and words of them count as well.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        whole = {form for secret in secrets for part in _parts(secret) for form in _forms(part)}
        # The longest first: one may be part of another.
        forms = sorted(whole, key=lambda form: (-len(form), form))
        self._anywhere = re.compile("|".join(map(re.escape, forms)), re.IGNORECASE) if forms else None
        long = [form for form in forms if len(form) >= SHORTEST]
        self._texts = tuple(
            dict.fromkeys(each for form in long for each in (form, form.lower(), form.upper()))
        )
        self._bytes = tuple(form.encode() for form in self._texts)

    def message(self, text: str) -> str:
        """A text for people, without secrets in whatever case."""
        return self._anywhere.sub(MASK, text) if self._anywhere else text

    def body(self, data: bytes) -> bytes:
        """A body without secrets; the very same object where there are none."""
        for form in self._bytes:
            if form in data:
                data = data.replace(form, MASK.encode())
        return data

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Headers without secrets."""
        together = "\n".join(headers.values())
        if not any(form in together for form in self._texts):
            return headers
        return {name: self._text(value) for name, value in headers.items()}

    def _text(self, text: str) -> str:
        for form in self._texts:
            text = text.replace(form, MASK)
        return text


def _parts(secret: str) -> Iterator[str]:
    """A header's value and what of it is secret by itself: the token behind the scheme, what base64 hides."""
    if not secret:
        return
    yield secret
    scheme, _, token = secret.partition(" ")
    if not token:
        return
    yield token
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from (part for part in (f"{user}:{password}", password) if part.strip(":"))


def _forms(secret: str) -> Iterator[str]:
    yield secret
    percent = quote(secret, safe="")
    yield percent
    yield re.sub("%..", lambda code: code[0].lower(), percent)
    yield quote_plus(secret)
    yield html.escape(secret)
    escaped = json.dumps(secret)[1:-1]
    yield escaped
    yield escaped.replace("/", "\\/")
    yield html.escape(escaped)
    for hidden in (secret, f"{secret}:", f":{secret}"):
        packed = base64.b64encode(hidden.encode())
        yield packed.decode()
        yield packed.rstrip(b"=").decode()
        yield base64.urlsafe_b64encode(hidden.encode()).decode()
