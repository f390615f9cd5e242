"""Single values of settings: a text becomes an address, a path or a number, or is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from vendor_assets.errors import ConfigurationError
from vendor_assets.secret import Secret

SHOWN: Final = 100
"""How many characters of a value are shown in a message."""
_LONGEST: Final = 10_000
_WHOLE: Final = re.compile("[0-9]{1,12}")
_DECIMAL: Final = re.compile(r"(?=\.?[0-9])[0-9]{0,20}\.?[0-9]{0,20}(e-?[0-9]{1,2})?", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def plain(name: str, text: str) -> str:
    """A value that is one line of text; it is in no message, since it may be a secret."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise ConfigurationError(f"{name} has {len(text):,} characters; give at most {_LONGEST:,}")
    if any(_unprintable(character) for character in text):
        raise ConfigurationError(
            f"{name} has line ends, control characters or bytes that are not text; remove them"
        )
    return text


def _unprintable(character: str) -> bool:
    code = ord(character)
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000


def path(text: str, root: Path) -> str:
    """An absolute path; relative ones are relative to the project's root."""
    if not text:
        return ""
    try:
        return str((root / Path(text).expanduser()).absolute())
    except (OSError, RuntimeError):
        return str(root / text)


def options(text: str) -> dict[str, str]:
    """``name=value`` pairs with commas between; %2C is a comma in a value, %25 a percent sign.

    Raises:
        ConfigurationError: A pair cannot be read, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in filter(str.strip, text.split(",")):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (equals and name):
            raise ConfigurationError(
                f"VENDOR_OPTIONS has {pair.strip()!r}; give name=value; separate several with commas"
            )
        if name in found:
            raise ConfigurationError(f"VENDOR_OPTIONS has {name!r} twice; leave one of them out")
        found[name] = unquote(value)
    return found


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say which setting it was."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def alert(address: Secret) -> Secret:
    """The address of a webhook, which is never shown."""
    if not address:
        return address
    # Whoever reads the message may not know the address.
    message = "VENDOR_ASSETS_ALERT_URL is not an address; give one like https://host/path"
    try:
        parts = urlsplit(address.read())
        host, _ = parts.hostname or "", parts.port
        if ":" not in host:
            host.encode("idna")
    except ValueError as error:
        raise ConfigurationError(message) from error
    if parts.scheme not in ("http", "https") or not host or any(map(str.isspace, address.read())):
        raise ConfigurationError(message)
    return address


def number(
    values: Mapping[str, str],
    name: str,
    default: float,
    *,
    lowest: float,
    highest: float,
    above: bool = False,
    whole: bool = False,
) -> float:
    """A number within bounds."""
    text = values.get(name)
    if text is None:
        return default
    kind = "a whole number" if whole else "a number"
    bounds = f"above {lowest:g}, at most {highest:g}" if above else f"from {lowest:g} to {highest:g}"
    accepted = f"{kind} {bounds}"
    # int() and float() take more than people write: other scripts' digits, 1_000, nan, 1e400.
    form = _WHOLE if whole else _DECIMAL
    number = float(text) if form.fullmatch(text) else lowest - 1
    if not lowest <= number <= highest or (above and number == lowest):
        raise ConfigurationError(f"{name}={text!r} is not accepted; give {accepted}")
    return number


def whole(values: Mapping[str, str], name: str, default: int, *, lowest: int, highest: int) -> int:
    """A whole number within bounds."""
    return int(number(values, name, default, lowest=lowest, highest=highest, whole=True))


def store(text: str, root: Path) -> str:
    """A folder's absolute path, or ``s3://bucket/prefix``."""
    accepted = "give a folder or s3://bucket/prefix"
    if _SCHEME.match(text):
        try:
            parts = urlsplit(text)
            bucket = parts.hostname
        except ValueError:
            bucket = None
        if "@" in text.partition("://")[2].partition("/")[0] or "?" in text:
            raise ConfigurationError(
                "VENDOR_ASSETS_STORE has credentials or a query; give s3://bucket/prefix alone, and credentials as "
                "the standard AWS variables"
            )
        if not text.startswith("s3://") or not bucket or bucket != parts.netloc or "#" in text:
            shown = "" if "@" in text or "#" in text else f"={text!r}"
            raise ConfigurationError(f"VENDOR_ASSETS_STORE{shown} is not accepted; {accepted}")
        return text.rstrip("/")
    try:
        folder = (root / Path(text).expanduser()).resolve()
        a_file = folder.exists() and not folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"VENDOR_ASSETS_STORE={text!r} cannot be used ({reason}); {accepted}"
        ) from error
    if a_file:
        raise ConfigurationError(f"VENDOR_ASSETS_STORE={text!r} is a file; {accepted}")
    return str(folder)
