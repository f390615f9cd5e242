"""Every command with every wrong environment: exit code 2 and one line, never a traceback."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from vendor_assets.cli import main
from vendor_assets.cli.project import local_opener

COMMANDS = (
    ("harvest",), ("backfill", "--troop", "x"), ("sync",), ("plan",), ("status",), ("doctor",), ("budget",), ("store",),
    ("dead-letters", "list"), ("dead-letters", "redrive"), ("dead-letters", "discard", "--why", "x"), ("dev",),
)  # fmt: skip
SECRET = "zq-5ecr3t-77"
REAL = {"VENDOR_URL": "https://api.example.com", "VENDOR_API_KEY": SECRET}
WRONG = (
    {"DAGSTER_HOME": "/not/there"},
    {"DAGSTER_HOME": "relative"},
    {"DAGSTER_HOME": __file__},
    {"VENDOR_URL": "http://["},
    {"VENDOR_API_KEY": SECRET},
    {"VENDOR_APIKEY": SECRET},
    {"VENDOR_SHARE": "nan"},
    {"VENDOR_ASSETS_STORE": f"s3://key:{SECRET}@bucket"},
    {"VENDOR_ASSETS_DB": f"postgresql://u:{SECRET}@h:port/d"},
    REAL | {"VENDOR_PASSWORD_FILE": "/not/there", "VENDOR_USER": "u"},
    REAL | {"VENDOR_CA_BUNDLE": "/not/there"},
    REAL | {"REQUESTS_CA_BUNDLE": __file__},
    REAL | {"VENDOR_CLIENT_CERT": __file__},
    REAL | {"VENDOR_PROXY": f"socks5://u:{SECRET}@proxy:1080"},
    REAL | {"HTTPS_PROXY": f"http://u:{SECRET}@proxy:port"},
    REAL | {"AWS_CA_BUNDLE": "/not/there", "VENDOR_ASSETS_STORE": "s3://bucket"},
)


@pytest.fixture
def unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project folder of its own, whose vendor cannot be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VENDOR_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("VENDOR_API_KEY", "key")


@pytest.mark.parametrize(
    "command", [("harvest",), ("plan",), ("init",), ("store",), ("vendor", "check")], ids=" ".join
)
def test_help_says_what_the_command_does(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the usage stands a sentence, as in the list of commands; the options alone do not tell."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    said = capsys.readouterr().out.split("\n\n")[1]
    assert said[0].isupper()
    assert said.endswith(".")


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "http://", "http://[", "http://host:port", ""])
def test_what_is_no_address_of_a_ui_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A forgotten http:// is not told as a UI that does not answer."""
    with pytest.raises(SystemExit, match="2"):
        main(["status", "--url", url])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "give one like http://127.0.0.1:3000" in said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_wrong_environment_is_one_line(
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The command ends with 2 and one line that names the variable and shows no secret."""
    for environ in WRONG:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name, text in environ.items():
                patch.setenv(name, text)
            code = main(command)
        told = capfd.readouterr()
        assert code == 2, (environ, told)
        assert told.err.count("\n") == 1, (environ, told)
        assert any(name in told.err for name in environ), (environ, told)
        assert SECRET not in told.err + told.out, (environ, told)


@pytest.mark.parametrize(
    ("url", "direct"),
    [("http://127.0.0.1:3000", True), ("http://localhost", True), ("http://[::1]:3000", True),
     ("http://127.9.9.9", True),
     ("http://dagster.example.com", False), ("http://[", False)],
)  # fmt: skip
def test_calls_to_this_machine_take_no_proxy(url: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The UI and the embedded vendor on this machine are asked straight, whatever the environment says."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    proxies = [each for each in local_opener(url).handlers if isinstance(each, urllib.request.ProxyHandler)]
    assert (not any(each.proxies for each in proxies)) is direct  # type: ignore[attr-defined]  typeshed lacks it


@pytest.mark.parametrize(
    "arguments",
    [
        ("harvest", "--day", ""),
        ("harvest", "--troop", " "),
        ("plan", "--day", "9999-12-31"),
        ("plan", "--from", "0001-01-01", "--to", ""),
        ("why", "--day", "9999-12-31"),
        ("dead-letters", "discard", "--troop", "", "--why", "x"),
        ("dead-letters", "redrive", "--day", ""),
        ("init", ""),
        ("vendor", "record", ""),
        ("vendor", "record", "/dev/null/x"),
        ("vendor", "record", "/proc/x"),
    ],
    ids=" ".join,
)
def test_a_text_of_nothing_and_a_day_that_cannot_be(
    arguments: tuple[str, ...],
    unreachable: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An unset variable of a script does not choose everything: it is refused in one line, before anything is done."""
    try:
        code: object = main(arguments)
    except SystemExit as ended:
        code = ended.code
    told = capfd.readouterr()
    assert code == 2, told
    assert told.err.count("\n") == 1, told


@pytest.mark.parametrize(
    "arguments", [("compare", "--with", "datadog"), ("dev", "--port", "1")], ids=" ".join
)
def test_a_folder_that_cannot_be_made(
    arguments: tuple[str, ...],
    unreachable: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What the file system refuses is one line that names the file."""
    monkeypatch.setattr("vendor_assets.cli.embedded._check_port", lambda port, todo: None)
    for name in (".vendor_assets", ".dagster"):
        (tmp_path / name).touch()
    assert main(arguments) == 1
    told = capfd.readouterr()
    assert told.err.count("\n") == 1, told
    assert str(tmp_path) in told.err
