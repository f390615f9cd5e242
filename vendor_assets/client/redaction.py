"""Taking secrets out of what was received: a vendor may echo the key, as it stands or written otherwise."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final

MASK: Final = "***"

SHORTEST: Final = 8
"""A secret of fewer characters is taken out of messages only: in data it would be found where it is not meant."""


class Redaction:
    """Knows the secrets of one client, in every way in which a server could write them.

    Each character may be written as it is or escaped, as in JSON, in an address or in HTML, in whatever case; the whole
    may be in base64, as in ``Authorization: Basic``.

    Args:
        secrets: The key, the headers that carry it; parts and words of them count as well.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        parts = {part for secret in secrets for part in _parts(secret)}
        # The longest first: one may be part of another.
        self._parts = sorted(parts, key=lambda part: (-len(part), part))
        self._long = [part for part in self._parts if len(part) >= SHORTEST]
        signs = (sign for part in self._long for sign in (*_signs(part), *_packed(part)))
        self._signs = tuple(dict.fromkeys(signs))
        self._signs_in_body = tuple(sign.encode() for sign in self._signs)

    @cached_property
    def _anywhere(self) -> re.Pattern[str] | None:
        return re.compile(_patterns(self._parts), re.IGNORECASE) if self._parts else None

    @cached_property
    def _in_text(self) -> re.Pattern[str]:
        return re.compile(_patterns(self._long), re.IGNORECASE)

    @cached_property
    def _in_body(self) -> re.Pattern[bytes]:
        return re.compile(_patterns(self._long).encode(), re.IGNORECASE)

    def message(self, text: str) -> str:
        """A text for people, without secrets however short."""
        return self._anywhere.sub(MASK, text) if self._anywhere else text

    def body(self, data: bytes) -> bytes:
        """A body without secrets; the very same object where nothing looks like one."""
        if not any(sign in data for sign in self._signs_in_body):
            return data
        return self._in_body.sub(MASK.encode(), data)

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Headers without secrets."""
        together = "\n".join(headers.values())
        if not any(sign in together for sign in self._signs):
            return headers
        return {name: self._in_text.sub(MASK, value) for name, value in headers.items()}


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


def _packed(secret: str) -> Iterator[str]:
    """In base64, without the padding: by itself, as user or password, and what is the same behind any user."""
    whole = secret.encode("utf-8", "surrogatepass")
    forms = [whole, whole + b":", b":" + whole]
    packed = [base64.b64encode(form).rstrip(b"=") for form in forms]
    for shift in (1, 2):
        # The characters at both ends hold bits of the neighbours.
        packed.append(base64.b64encode(bytes(shift) + whole).rstrip(b"=")[shift + 1 : -1])
    # Of a secret of one or two characters little or nothing is left, which would be found everywhere.
    for form in sorted((form for form in packed if len(form) >= 4), key=len, reverse=True):
        yield from (form.decode(), form.translate(bytes.maketrans(b"+/", b"-_")).decode())


def _patterns(secrets: Iterable[str]) -> str:
    """Matches each secret with any of its characters escaped, also twice over, and in base64."""
    # A backslash at the end may be doubled, as in JSON; anywhere else the next character ends the doubling.
    written = [
        "".join(map(_character, secret)) + (r"\\*" if secret.endswith("\\") else "") for secret in secrets
    ]
    packed = [re.escape(form) + "={0,2}" for secret in secrets for form in _packed(secret)]
    return "|".join([*written, *packed])


def _character(character: str) -> str:
    # As it stands comes last: a backslash, a percent sign and an ampersand begin their own escapes.
    codes = "".join(f"%(?:25)*{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    ways = [*_escapes(character), html.escape(character), character]
    prefix = "" if character.isalnum() else r"\\*?"
    return f"{prefix}(?:{'|'.join([codes, *map(re.escape, dict.fromkeys(ways))])})"


def _escapes(character: str) -> Iterator[str]:
    """As JSON and HTML write it by its number."""
    code = ord(character)
    yield f"\\u{code:04x}"
    yield f"&#{code};"
    yield f"&#x{code:x};"


def _signs(secret: str) -> Iterator[str]:
    """Short texts of which one is there wherever the secret is.

    Letters and digits are escaped all or none: the longest run of them is there, or the first one's escape.
    """
    longest = max(re.findall("[0-9A-Za-z]+", secret), key=len, default="")
    yield from (longest, longest.lower(), longest.upper()) if longest else (secret[0],)
    first = longest[:1] or secret[0]
    codes = [f"{each:02x}" for each in first.encode("utf-8", "surrogatepass")]
    code = f"{ord(first):x}"
    for number in (code, code.upper()):
        yield from (f"\\u{number:0>4}", f"&#x{number};", f"&#X{number};")
    yield f"&#{ord(first)};"
    for byte in (codes[0], codes[0].upper()):
        yield from (f"%{byte}", f"%25{byte}")
    if (named := html.escape(first)) != first:
        yield named
