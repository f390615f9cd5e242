"""The layout of the store: the keys of all objects. Pure.

A vendor's names are hostile input, which only :func:`encode_segment` makes safe as a segment of a key. The argument
``troop`` is always a troop's partition key, which is such a segment::

    vendor_assets.json
    troop_keys.json
    processed/<table>/day=2026-11-20/troop=<key>/data.parquet
    raw_data/<asset>/day=2026-11-20/troop=<key>/holder
    raw_data/<asset>/day=2026-11-20/troop=<key>/h-<ulid>/{plan, chunk-<writer>-<n>, finish, removed}
    raw_data/sightings/day=2026-11-20/s-<ulid>.parquet
    dead_letters/<asset>/day=2026-11-20/troop=<key>/dead_letters.json
    failures/<asset>/day=2026-11-20/troop=<key>/failure.json
    quarantine/<asset>/day=2026-11-20/troop=<key>/quarantine.jsonl
    reports/day=2026-11-20/performance_report.{ipynb,html}

Assets of days have no ``troop=`` level.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import date, datetime
from functools import reduce
from typing import Final

from vendor_assets.errors import StorageError

MARKER_KEY: Final = "vendor_assets.json"
"""Key of the store's marker."""
TROOP_KEYS_KEY: Final = "troop_keys.json"
"""Key of the object that holds the partition key of each troop."""
TABLES_PREFIX: Final = "processed/"
"""Prefix of all tables."""
SEGMENT_BYTES: Final = 160
"""Maximum length of a segment."""

_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_DOT: Final = ord(".")
_EMPTY: Final = "~"
_CUT: Final = "~~"
_DIGEST_CHARACTERS: Final = 32
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SEGMENT: Final = re.compile(
    r"~|(?:[A-Za-z0-9_-]|~[0-9A-F]{2})(?:[A-Za-z0-9_.-]|~[0-9A-F]{2})*(?:~~[0-9a-f]{32})?"
)
_HARVEST_FOLDER: Final = re.compile(f"h-[{_CROCKFORD}]{{26}}")
_DAY_FOLDER: Final = re.compile(r"day=\d{4}-\d{2}-\d{2}")
_LETTERS_KEY: Final = re.compile(
    r"dead_letters/(?P<asset>[a-z_]+)/(?P<day>day=[^/]+)/(?:troop=(?P<troop>[^/]+)/)?dead_letters\.json"
)
_TABLE_KEY: Final = re.compile(
    r"processed/(?P<table>\w+(?:/\w+)*)/day=(?P<day>\d{4}-\d{2}-\d{2})/(?:troop=(?P<troop>[^/]+)/)?data\.parquet",
    re.ASCII,
)


def encode_segment(text: str, most_bytes: int = SEGMENT_BYTES) -> str:
    """Make any text safe as a segment of a key, of a Hive path and of a partition key.

    ASCII letters, digits, ``_`` and ``-`` are kept, and so is a single dot between two of them; every other UTF-8 byte
    becomes ``~XX``, and the empty text ``~``. A result longer than ``most_bytes`` is cut and ends with ``~~`` and half
    of the text's SHA-256: it stays unique.
    """
    data = text.encode("utf-8", "surrogatepass")
    if not data:
        return _EMPTY
    encoded = "".join(
        chr(byte) if byte in _PLAIN or (byte == _DOT and _is_inner_dot(data, at)) else f"~{byte:02X}"
        for at, byte in enumerate(data)
    )
    if len(encoded) <= most_bytes:
        return encoded
    kept = encoded[: most_bytes - len(_CUT) - _DIGEST_CHARACTERS]
    # Do not cut in the middle of an escape.
    kept = re.sub(r"~[0-9A-F]?$", "", kept)
    return kept + _CUT + hashlib.sha256(data).hexdigest()[:_DIGEST_CHARACTERS]


def _is_inner_dot(data: bytes, at: int) -> bool:
    return 0 < at < len(data) - 1 and data[at - 1] in _PLAIN and data[at + 1] in _PLAIN


def is_segment(text: str) -> bool:
    """Whether a text is an encoded segment, such as a troop's partition key."""
    return len(text) <= SEGMENT_BYTES and _SEGMENT.fullmatch(text) is not None


def day_of_folder(name: str) -> date | None:
    """The day of a folder ``day=2026-11-20``; None for foreign names."""
    try:
        return date.fromisoformat(name.removeprefix("day=")) if _DAY_FOLDER.fullmatch(name) else None
    except ValueError:
        return None


def troop_of_folder(name: str) -> str | None:
    """The partition key of a folder ``troop=42``; None for foreign names."""
    key = name.removeprefix("troop=")
    return key if name.startswith("troop=") and is_segment(key) else None


def table_key(table: str, day: date | None = None, troop: str | None = None) -> str:
    """Key of a table's Parquet object; day and troop are None for unpartitioned tables."""
    return f"{table_prefix(table)}{_partition(day, troop)}data.parquet"


def is_table(name: str) -> bool:
    """Whether a text may be the name of a table: parts of letters, digits and underscores, with slashes between."""
    return re.fullmatch(r"\w+(?:/\w+)*", name, re.ASCII) is not None


def table_prefix(table: str, day: date | None = None) -> str:
    """Prefix of all objects of a table, or of one of its days."""
    return f"{TABLES_PREFIX}{table}/{_partition(day, None)}"


def parse_table_key(key: str) -> tuple[str, date, str | None]:
    """Table, day and troop of a partition's key.

    Raises:
        StorageError: It is not the key of a partition of a table.
    """
    match = _TABLE_KEY.fullmatch(key)
    try:
        if match is None:
            raise ValueError(key)
        return match["table"], date.fromisoformat(match["day"]), match["troop"]
    except ValueError as error:
        message = f"object {key!r} is not a partition of a table; move foreign objects out of processed/"
        raise StorageError(message) from error


def harvest_prefix(asset: str, day: date, troop: str | None = None) -> str:
    """Prefix of a partition's harvests and its holder."""
    return f"raw_data/{asset}/{_partition(day, troop)}"


def harvest_folder(asset: str, day: date, troop: str | None, harvest_id: str) -> str:
    """Folder of one harvest, with a trailing slash."""
    return f"{harvest_prefix(asset, day, troop)}h-{harvest_id}/"


def is_harvest(folder: str) -> bool:
    """Whether a folder of a partition, named without what is above it, is a harvest's; others are foreign."""
    return _HARVEST_FOLDER.fullmatch(folder) is not None


def plan_key(folder: str) -> str:
    """Key of a harvest's frozen plan."""
    return f"{folder}plan"


def chunk_key(folder: str, writer: str, n: int) -> str:
    """Key of a writer's n-th chunk of landed responses; keys sort by ``n`` up to a million."""
    return f"{folder}chunk-{writer}-{n:06d}"


def finish_key(folder: str) -> str:
    """Key of a harvest's finish marker."""
    return f"{folder}finish"


def removed_key(folder: str) -> str:
    """Key of the record that a harvest's landed responses were removed by retention."""
    return f"{folder}removed"


def holder_key(folder: str) -> str:
    """Key of the record of a partition's holder, below its :func:`harvest_prefix`."""
    return f"{folder}holder"


def sightings_prefix(day: date) -> str:
    """Prefix of a day's sightings."""
    return f"raw_data/sightings/day={day.isoformat()}/"


def sighting_key(day: date, ulid: str) -> str:
    """Key of one sighting."""
    return f"{sightings_prefix(day)}s-{ulid}.parquet"


def dead_letters_key(asset: str, day: date, troop: str | None = None) -> str:
    """Key of a partition's dead letters."""
    return f"{dead_letters_prefix(asset, day)}{_partition(None, troop)}dead_letters.json"


def dead_letters_prefix(asset: str | None = None, day: date | None = None) -> str:
    """Prefix of the dead letters of an asset's day, of an asset, or of all."""
    return "dead_letters/" + ("" if asset is None else f"{asset}/{_partition(day, None)}")


def failure_key(asset: str, day: date, troop: str | None = None) -> str:
    """Key of the record of a partition's failed newest harvest."""
    return f"{failures_prefix(asset, day)}{_partition(None, troop)}failure.json"


def failures_prefix(asset: str, day: date) -> str:
    """Prefix of the failures of an asset's day."""
    return f"failures/{asset}/{_partition(day, None)}"


def parse_dead_letters_key(key: str) -> tuple[str, date, str | None] | None:
    """Asset, day and troop of a key of dead letters; None for foreign keys."""
    match = _LETTERS_KEY.fullmatch(key)
    day = day_of_folder(match["day"]) if match else None
    if match is None or day is None or not is_segment(match["troop"] or "-"):
        return None
    return match["asset"], day, match["troop"]


def troops_prefixes(asset: str, day: date) -> tuple[str, ...]:
    """The prefixes below which everything of an asset's day lies, with a folder for each troop."""
    return (
        harvest_prefix(asset, day),
        table_prefix(asset, day),
        dead_letters_prefix(asset, day),
        failures_prefix(asset, day),
        f"quarantine/{asset}/{_partition(day, None)}",
    )


def quarantine_key(asset: str, day: date, troop: str | None = None) -> str:
    """Key of a partition's quarantined rows."""
    return f"quarantine/{asset}/{_partition(day, troop)}quarantine.jsonl"


def report_key(day: date, suffix: str) -> str:
    """Key of a day's report; the suffix is ``ipynb`` or ``html``, with a dot or without."""
    return f"reports/day={day.isoformat()}/performance_report.{suffix.removeprefix('.')}"


def new_ulid(now: datetime, after: str = "") -> str:
    """A new ULID: 26 characters that sort by time in milliseconds, then randomly.

    Args:
        after: A ULID after which it sorts, even if the clock that made that one was ahead.

    Source: the ULID specification, https://github.com/ulid/spec.
    """
    milliseconds = int(now.timestamp() * 1000)
    if after:
        milliseconds = max(milliseconds, _milliseconds(after) + 1)
    number = milliseconds << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def _milliseconds(ulid: str) -> int:
    return reduce(lambda number, letter: number << 5 | _CROCKFORD.index(letter), ulid[:10], 0)


def _partition(day: date | None, troop: str | None) -> str:
    if troop is not None and not _SEGMENT.fullmatch(troop):
        raise StorageError(
            f"troop {troop!r} is not a partition key; keys are like 'checkout-eu.42' (encode_segment makes them)"
        )
    of_day = "" if day is None else f"day={day.isoformat()}/"
    return of_day if troop is None else f"{of_day}troop={troop}/"
