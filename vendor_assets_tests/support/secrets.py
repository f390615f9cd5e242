"""Looks for an API key, and for what a vendor said, in everything that a harvest leaves behind."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

from vendor_assets.settings import SECRETS

SECRET = "s3cr3t+attack/7f4c9e=="
"""A key that occurs nowhere by chance, and that looks different once a URL holds it."""

_BODIES = re.compile(rb'\\*"(timeslices|application_hosts|applications)\\*"\s*:\s*\[\s*\{|<h1>502')
"""What only bodies of the embedded vendor hold, quoted once more or not."""


def forms(secret: str) -> list[bytes]:
    """How a key may be written."""
    return [
        text.encode() for text in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
    ]


def files_with_secret(folder: Path, secret: str = SECRET) -> list[str]:
    """Files below a folder that hold the key, Parquet files unpacked."""
    wanted = forms(secret)
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            # A database's files beside it go when the last process has closed it.
            continue
        if any(form in piece for piece in (data, *_unpacked(data)) for form in wanted):
            found.append(str(path.relative_to(folder)))
    return found


def logs_with_bodies(texts: Iterable[str | bytes]) -> list[str]:
    """The texts of a log that hold a part of a vendor's answer, shortened."""
    found = []
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        if (hit := _BODIES.search(data)) is not None:
            start = max(0, hit.start() - 100)
            found.append(data[start : hit.end() + 100].decode("utf-8", "replace"))
    return found


def _unpacked(data: bytes) -> Iterator[bytes]:
    if not (data[:4] == data[-4:] == b"PAR1"):
        return
    table = pq.read_table(io.BytesIO(data))
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            for value in column.to_pylist():
                if value is not None:
                    yield value.encode() if isinstance(value, str) else value


def every_secret(folder: Path | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Settings in which each that can be or hold a secret does, and the secrets by setting.

    The list of settings is walked, so that a new secret is in it, or this fails.

    Args:
        folder: Secrets are in files there; None puts them into the settings themselves.
    """
    secrets = {
        name: f"zq-{name.rpartition('_')[2].lower()}-5ecr3t/{number:04x}+="
        for number, name in enumerate(SECRETS)
    }
    coded = {name: quote(text, safe="") for name, text in secrets.items()}
    values = {
        "VENDOR_API_KEY": secrets["VENDOR_API_KEY"],
        "VENDOR_APPLICATION_KEY": secrets["VENDOR_APPLICATION_KEY"],
        "VENDOR_PASSWORD": secrets["VENDOR_PASSWORD"],
        "VENDOR_HEADERS": f"X-Scope-OrgID=team-a,X-Gateway-Secret={coded['VENDOR_HEADERS']}",
        "VENDOR_PROXY": f"http://user:{coded['VENDOR_PROXY']}@127.0.0.1:9",
        "VENDOR_ASSETS_DB": f"postgresql://user:{coded['VENDOR_ASSETS_DB']}@127.0.0.1:9/budget",
        "VENDOR_ASSETS_ALERT_URL": f"http://127.0.0.1:9/hook/{coded['VENDOR_ASSETS_ALERT_URL']}",
    }
    # A user and a token exclude each other.
    secrets.pop("VENDOR_TOKEN")
    assert values.keys() == secrets.keys(), "a new secret needs a value here"
    environ = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_USER": "user"}
    for name, text in values.items():
        if folder is None:
            environ[name] = text
        else:
            (folder / name).write_text(f"{text}\n")
            environ[f"{name}_FILE"] = str(folder / name)
    return environ, secrets
