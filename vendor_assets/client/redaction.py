"""Removing secrets from what was received: a vendor may echo the key, unchanged or escaped."""

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
"""A shorter secret is removed from messages only: in data it would be found where it is not meant."""

_PARAMETER: Final = re.compile(r'[\w-]="?([^",;\s]{16,})')
"""A long value of a parameter, as in ``Signature=…``; a shorter one may be a word."""


class Redaction:
    """Knows the secrets of one client in every form in which a server could write them.

    Each character may be plain or escaped, as in JSON, in a URL or in HTML, in either case; the whole may be in base64,
    as in ``Authorization: Basic``.

    Args:
        secrets: The key and the headers that carry it; their parts count as well.
        base: Knows what else is secret. With one, ``secrets`` live shortly, like signatures and tokens: the expression
            that finds them takes a tenth of a second to compile, so a text without a sign of them is left alone.
    """

    def __init__(self, secrets: Iterable[str], base: Redaction | None = None) -> None:
        self._base = base
        self.secrets = tuple(dict.fromkeys(secrets))
        parts = {part for secret in self.secrets for part in _parts(secret)}
        # The longest first: one may be part of another.
        self._parts = sorted(parts, key=lambda part: (-len(part), part))
        self._long = [part for part in self._parts if len(part) >= SHORTEST]
        self._signs = {sign for part in self._long for sign in (*_signs(part), *_base64(part))}
        self._signs_in_body = [sign.encode() for sign in self._signs]

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
        if self._base is not None:
            hidden = self._in_text.sub(MASK, text) if any(sign in text for sign in self._signs) else text
            return self._base.message(hidden)
        return self._anywhere.sub(MASK, text) if self._anywhere else text

    def body(self, data: bytes) -> bytes:
        """A body without secrets; the same object if nothing looks like one."""
        if any(map(data.__contains__, self._signs_in_body)):
            data = self._in_body.sub(MASK.encode(), data)
        return data if self._base is None else self._base.body(data)

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Headers without secrets."""
        together = "\n".join(headers.values())
        if any(map(together.__contains__, self._signs)):
            headers = {name: self._in_text.sub(MASK, value) for name, value in headers.items()}
        return headers if self._base is None else self._base.headers(headers)


def _parts(secret: str) -> Iterator[str]:
    """A header's value and its secret parts: the token after the scheme, its parameters, the password in base64."""
    if not secret:
        return
    yield secret
    scheme, _, token = secret.partition(" ")
    if token:
        yield token
        yield from _PARAMETER.findall(token)
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from (part for part in (f"{user}:{password}", password) if part.strip(":"))


def _base64(secret: str) -> Iterator[str]:
    """In base64, without the padding: alone, as user or password, and what is the same after any user."""
    whole = secret.encode("utf-8", "surrogatepass")
    forms = [base64.b64encode(form).rstrip(b"=") for form in (whole, whole + b":", b":" + whole)]
    # The characters at both ends hold bits of the neighbours.
    forms += [base64.b64encode(bytes(n) + whole).rstrip(b"=")[n + 1 : -1] for n in (1, 2)]
    # Of a secret of one or two characters little is left, which would be found everywhere.
    for form in sorted((form for form in forms if len(form) >= 4), key=len, reverse=True):
        yield from (form.decode(), form.translate(bytes.maketrans(b"+/", b"-_")).decode())


def _patterns(secrets: Iterable[str]) -> str:
    """Matches each secret with any of its characters escaped, even twice, and in base64."""
    # A backslash at the end may be doubled, as in JSON; elsewhere the next character ends the doubling.
    written = [
        "".join(map(_character, secret)) + (r"\\*" if secret.endswith("\\") else "") for secret in secrets
    ]
    packed = [re.escape(form) + "={0,2}" for secret in secrets for form in _base64(secret)]
    return "|".join([*written, *packed])


def _character(character: str) -> str:
    codes = "".join(f"%(?:25)*{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    code = ord(character)
    # Plain comes last: a backslash, a percent sign and an ampersand begin their own escapes.
    ways = dict.fromkeys((f"\\u{code:04x}", f"&#{code};", f"&#x{code:x};", html.escape(character), character))
    prefix = "" if character.isalnum() else r"\\*?"
    return f"{prefix}(?:{'|'.join([codes, *map(re.escape, ways)])})"


def _signs(secret: str) -> Iterator[str]:
    """Short texts of which every form of the secret holds one.

    Letters and digits are escaped all or none: either the longest run of them is there, or the first one's escape.
    """
    longest = max(re.findall("[0-9A-Za-z]+", secret), key=len, default="")
    yield from (longest, longest.lower(), longest.upper()) if longest else (secret[0],)
    first = longest[:1] or secret[0]
    byte, code = first.encode("utf-8", "surrogatepass")[0], ord(first)
    for x in "xX":
        number = f"{code:{x}}"
        yield from (
            f"\\u{number:0>4}",
            f"&#x{number};",
            f"&#X{number};",
            f"%{byte:02{x}}",
            f"%25{byte:02{x}}",
        )
    yield f"&#{code};"
    if (named := html.escape(first)) != first:
        yield named
