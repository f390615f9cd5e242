"""Whatever the environment holds: settings, or one line that names the setting and shows no secret."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.account import Account
from vendor_assets.errors import ConfigurationError
from vendor_assets.settings import NAMES, SECRETS, enter, project_root, read
from vendor_assets.storage.roster import Troop
from vendor_assets_tests.support.secrets import every_secret, forms

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "Zq7f4c9e-s3cr3t"
REAL = {"VENDOR_URL": "https://api.example.com", "VENDOR_API_KEY": "a-key"}
HOSTILE = (
    "http://[", "http://[::1", "https://h:99999", "http://h:-1", "http://h:٣", f"https://u:{SECRET}@h",
    f"https://h/?key={SECRET}", f"https://h/#{SECRET}", f"https://{SECRET}@", f"u:{SECRET}@h", f"//u:{SECRET}@h",
    f"s3://k:{SECRET}@bucket", f"s3:/k:{SECRET}@bucket/x", f"S3://k:{SECRET}@b", "s3://", "s3://[", "s3:/bucket/x",
    f"gs://b?{SECRET}", f"postgresql://u:{SECRET}@h:99999999999999999999/d", f"postgresql://u:{SECRET}@h:x/d",
    f"postgres://u:{SECRET}@[/d", f"mysql://u:{SECRET}@h/d", f"postgresql+nosuch://u:{SECRET}@h/d",
    f"host=h password={SECRET}",
    "sqlite://", "sqlite:///", "sqlite:////", "sqlite:///../../x", "sqlite:///\x00", "sqlite",
    f"socks5://u:{SECRET}@h:1080", f"http://u:{SECRET}@h:port", f"u:{SECRET}@h:99999", f"https://u:{SECRET}@p:3128",
    f"Authorization=Bearer {SECRET}é", f"Host={SECRET}", f"Content-Length={SECRET}", f"a b={SECRET}", f"={SECRET}",
    f"X-A=1,X-A={SECRET}", f"Proxy-Authorization={SECRET}", f"X-A=%0d%0aX-B={SECRET}", f"X-A={SECRET}%00", ",",
    "1e400", "nan", "-inf", "9" * 5000, "\uff11\uff12", "1_0",
    "0x10", "+5", "٣", "1e-999", " 5", "1" * 13, "0.5.5", ".", "e5",
    "0001-01-01", "9999-12-31", "2026-13-01", "20261101",
    "2026-W01-1", "\uff12\uff10\uff12\uff16-11-01",
    "20/s,", "/", "20/\u017f", "9999999999/s", "٢٠/s", "auto,20/s", "20/s," * 2000,
    "../../etc", "..", ".", "Europe", "posixrules", "/etc/passwd", "Europe/__init__.py", "a" * 9000, "/" * 9000,
    "~nobody-at-all/x", "/dev/null", "/dev/null/x", "/proc/self/mem", "!", "[", "[z-a]", "!!", "a,,b", "**", "\\",
    "\x00", f"a\n{SECRET}", f"\r{SECRET}", "\x1b[31m", "\ud800", f"\udcff{SECRET}", "\u2028", "\u202e", "\x85", "x\ty",
    "é", "日本", "%", "%s", "{}", "$HOME", "none", "None", "true", SECRET,
)  # fmt: skip
"""What people and programs put where it does not belong; SECRET is in some of them."""


def _refused(environ: dict[str, str], root: Path) -> str:
    """The message with which settings are refused; empty where they are accepted."""
    try:
        settings = read(environ, root=root, now=NOW)
    except ConfigurationError as error:
        return str(error)
    settings.filters.takes_troop(Troop("x", "x", None))
    assert not {secret.read() for secret in settings.secrets if len(secret.read()) > 8} & {repr(settings)}
    return ""


def _views(settings: Account) -> list[str]:
    """Settings in each form in which a program would write them down."""
    shown = dataclasses.replace(settings, vendor=None)  # type: ignore[arg-type]  a vendor is no data
    pickled = pickle.dumps(shown)
    return [
        repr(settings),
        str(settings),
        f"{settings}",
        repr(dataclasses.asdict(shown)),
        json.dumps(dataclasses.asdict(shown), default=repr),
        pickled.decode("latin-1"),
        repr(vars(copy.deepcopy(shown))),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_value_is_settings_or_one_line(name: str, tmp_path: Path) -> None:
    """Each setting with each value is accepted, or refused with one line that names a setting and shows no secret."""
    # Looking for the packages that bring vendors takes a while.
    for value in HOSTILE[::8] if name == "VENDOR_KIND" else HOSTILE:
        message = _refused(REAL | {name: value}, tmp_path)
        if not message:
            continue
        assert message.splitlines() == [message], (value, message)
        assert message.isprintable(), (value, message)
        assert any(known in message for known in NAMES), (value, message)
        # A secret without any sign of being one, where none belongs, looks like any other wrong value.
        marked = name.removesuffix("_FILE") in SECRETS or any(
            sign in value for sign in ("@", "?", "#", "password")
        )
        assert not (marked and SECRET in message), (value, message)
        assert len(message) < 2000, (value, message)


@given(
    environ=st.dictionaries(
        st.sampled_from(NAMES), st.text(max_size=40) | st.sampled_from(HOSTILE), max_size=6
    ),
    real=st.booleans(),
)
def test_any_environment_is_settings_or_one_line(environ: dict[str, str], real: bool) -> None:
    """Several hostile values at once end in settings or in a ConfigurationError of one line, never in another one."""
    message = _refused((REAL if real else {}) | environ, Path("/project"))
    assert message.splitlines() in ([], [message])


@pytest.mark.parametrize(
    "name", ["VENDOR_RATE", "VENDOR_KIND", "VENDOR_ASSETS_STORE", "VENDOR_URL", "VENDOR_ACCOUNT"]
)
def test_a_secret_in_the_wrong_setting_is_not_shown(name: str, tmp_path: Path) -> None:
    """A message that refuses one setting shows no secret that another setting holds."""
    message = _refused(REAL | {"VENDOR_API_KEY": SECRET} | {name: f"{SECRET}:9090/%"}, tmp_path)
    assert SECRET not in message


@pytest.mark.parametrize("in_files", [False, True])
def test_settings_hold_no_secret_that_shows(in_files: bool, tmp_path: Path) -> None:
    """Neither repr, asdict, JSON, a pickle nor a copy of settings has a secret; each is read where it is used."""
    environ, secrets = every_secret(tmp_path if in_files else None)
    settings = read(environ, root=tmp_path, now=NOW)
    assert {secret.name for secret in settings.secrets} >= set(SECRETS) - {"VENDOR_TOKEN"}
    for view in _views(settings):
        for secret in secrets.values():
            assert not [form for form in forms(secret) if form.decode() in view]
    assert settings.api_key == secrets["VENDOR_API_KEY"]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    "kind", ["absent", "empty", "folder", "bytes", "large", "device", "loop", "both", "secret itself"]
)
def test_a_file_that_holds_no_secret_is_one_line(name: str, kind: str, tmp_path: Path) -> None:
    """A secret's file that is missing, empty, unreadable or named beside the secret is refused, naming the setting."""
    path = tmp_path / "file"
    given: dict[str, str] = {f"{name}_FILE": str(path)}
    match kind:
        case "empty":
            path.write_text(" \n")
        case "folder":
            path.mkdir()
        case "bytes":
            path.write_bytes(b"\xff\xfe\x00")
        case "large":
            path.write_text("x" * 100_000)
        case "device":
            given = {f"{name}_FILE": "/dev/zero"}
        case "loop":
            path.symlink_to(path)
        case "both":
            path.write_text("x")
            given[name] = "x"
        case "secret itself":
            given = {f"{name}_FILE": SECRET}
    message = _refused({"VENDOR_URL": REAL["VENDOR_URL"]} | given, tmp_path)
    assert f"{name}_FILE" in message
    assert message.splitlines() == [message]
    assert SECRET not in message


def test_a_foreign_variable_is_none_of_our_business(tmp_path: Path) -> None:
    """Other programs' VENDOR_ variables are left alone; a misspelt one of ours is refused, naming the right one."""
    foreign = (
        "VENDOR_NAME",
        "VENDOR_ID",
        "VENDOR_HOME",
        "VENDOR_DIR",
        "VENDOR_PATH",
        "VENDOR_X_DEBUG",
        "VENDORS",
        "VENDOR_",
    )
    read(dict.fromkeys(foreign, "x"), root=tmp_path, now=NOW)
    near = {
        "VENDOR_APIKEY": "VENDOR_API_KEY", "VENDOR_RATES": "VENDOR_RATE", "VENDOR_URI": "VENDOR_URL",
        "VENDOR_ASSET_STORE": "VENDOR_ASSETS_STORE", "VENDOR_ASSETS_DATABASE": "VENDOR_ASSETS_",
        "VENDOR_ASSETS_\x1b": "VENDOR_ASSETS_",
    }  # fmt: skip
    for name, right in near.items():
        message = _refused({name: SECRET}, tmp_path)
        assert right in message
        assert message.isprintable()
        assert SECRET not in message


@pytest.mark.parametrize("home", ["absent", "file", "relative", "loop", "\x00", "~nobody-at-all", "a" * 5000])
def test_a_wrong_home_of_dagster_is_one_line(home: str, tmp_path: Path) -> None:
    """DAGSTER_HOME that is no folder is refused with its name, before Dagster stumbles over it."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    text = str(tmp_path / home) if home in ("absent", "file", "loop") else home
    with pytest.raises(ConfigurationError, match=r"^DAGSTER_HOME") as raised:
        project_root({"DAGSTER_HOME": text}, tmp_path)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("content", [b"VENDOR_URL=\xff\xfe", b"VENDOR_RATE=a\x00b\n"])
def test_a_broken_file_of_settings_is_one_line(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor_assets.env that is no text is refused, naming the file."""
    (tmp_path / "vendor_assets.env").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"vendor_assets\.env"):
        enter({})
