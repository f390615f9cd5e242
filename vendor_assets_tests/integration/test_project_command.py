"""A project from nothing: ``init``, the settings in force, days as people say them, ports that are taken."""

from __future__ import annotations

import fcntl
import json
import socket
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from vendor_assets.cli.embedded import _alone, _Started
from vendor_assets.days import parse_day, parse_days
from vendor_assets.errors import ConfigurationError
from vendor_assets.settings import NAMES
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.programs import free_port
from vendor_assets_tests.support.simulator import KEY, simulator

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def test_a_project_is_made_and_works(tmp_path: Path) -> None:
    """Its files are Dagster's configuration and all settings as comments; a second time it is refused."""
    made = Command(tmp_path, {"DAGSTER_HOME": ""}).run("init", "shop")
    assert made.code == 0, made.err
    folder = tmp_path / "shop"
    assert {path.name for path in folder.iterdir()} == {
        ".gitignore", "dagster.yaml", "vendor_assets.env", "workspace.yaml",
    }  # fmt: skip
    assert yaml.safe_load((folder / "dagster.yaml").read_text())["run_retries"]["enabled"]
    settings = (folder / "vendor_assets.env").read_text()
    assert all(f"#{name}=" in settings for name in NAMES)
    again = Command(tmp_path, {"DAGSTER_HOME": ""}).run("init", "shop")
    assert (again.code, len(again.err.splitlines())) == (2, 1)
    assert "shop has a .gitignore already" in again.err
    with simulator(world="small", churn=False) as vendor:
        (folder / "vendor_assets.env").write_text(
            f"VENDOR_URL={vendor.url}\nVENDOR_API_KEY={KEY}\nVENDOR_RATE=500/s\n"
        )
        harvested = Command(folder, {}).run("harvest", "--no-report", "--json", "--day", "-1d")
        assert harvested.code == 0, harvested.err
        assert (folder / "data" / "processed" / "troops" / f"day={YESTERDAY}").is_dir()
        assert (
            Command(folder, {})
            .run("harvest", "--no-report", "--json", "--day", "yesterday")
            .json["calls_made"]
            == 0
        )


@pytest.mark.parametrize("profile", ["local", "postgresql", "machines"])
def test_each_profile_is_a_configuration_of_dagster(tmp_path: Path, profile: str) -> None:
    """What is written is what the repository ships for it."""
    made = Command(tmp_path, {"DAGSTER_HOME": ""}).run("init", "--profile", profile, "p")
    assert made.code == 0, made.err
    found = yaml.safe_load((tmp_path / "p" / "dagster.yaml").read_text())
    assert ("postgres" in found["storage"]) == (profile != "local")


def test_the_settings_in_force(tmp_path: Path) -> None:
    """Each comes with its origin; a secret is set or not."""
    tmp_path.joinpath("vendor_assets.env").write_text("VENDOR_SHARE=0.5\nVENDOR_RATE=7/s\n")
    environ = {
        "VENDOR_URL": "https://vendor.example",
        "VENDOR_API_KEY": "s3cr3t-key-77",
        "VENDOR_SHARE": "0.25",
    }
    shown = Command(tmp_path, environ).run("config", "--json")
    assert shown.code == 0, shown.err
    found = {each["name"]: (each["value"], each["origin"]) for each in shown.json}  # type: ignore[index,call-overload]
    assert found["VENDOR_SHARE"] == ("0.25", "environment")
    assert found["VENDOR_RATE"] == ("7/s", "vendor_assets.env")
    assert found["VENDOR_ASSETS_RESOLUTION"] == ("1800", "default")
    assert found["VENDOR_API_KEY"] == ("set, not shown", "environment")
    assert found["VENDOR_TOKEN"] == ("not set", "default")
    text = Command(tmp_path, environ).run("config")
    assert "s3cr3t" not in text.out + shown.out
    assert {*found} <= {*NAMES}
    wrong = Command(tmp_path, environ | {"VENDOR_SHAER": "1"}).run("config")
    assert (wrong.code, wrong.err) == (
        2,
        "vendor-assets: VENDOR_SHAER is not a setting; did you mean VENDOR_SHARE?\n",
    )


def test_the_settings_of_several_accounts(tmp_path: Path) -> None:
    """Those of each account, from its file."""
    tmp_path.joinpath("vendor_assets.toml").write_text(
        '[accounts.one]\nurl = "https://one.example"\napi_key_env = "ONE_KEY"\n'
        '[accounts.two]\nkind = "prometheus"\nurl = "https://two.example"\nrate = "5/s"\n'
    )
    shown = Command(tmp_path, {"ONE_KEY": "s3cr3t-key-77"}, fixed={}).run("config", "--json")
    assert shown.code == 0, shown.err
    found = {name: {each["name"]: each for each in settings} for name, settings in shown.json.items()}
    assert found["one"]["VENDOR_API_KEY"]["origin"] == "vendor_assets.toml, variable ONE_KEY"
    assert found["two"]["VENDOR_RATE"]["value"] == "5/s"
    assert "s3cr3t" not in shown.out


def test_days_as_people_say_them() -> None:
    """Yesterday and so many days ago; what is none names what is accepted."""
    newest = date(2026, 11, 20)
    assert parse_day("yesterday", newest) == parse_day("-1d", newest) == newest
    assert parse_day("-7d", newest) == date(2026, 11, 14)
    for text in ("-0x", "tomorrow", "-99999d d", "2026-13-01"):
        with pytest.raises(ConfigurationError, match="yesterday or -7d"):
            parse_day(text, newest)
    with pytest.raises(ConfigurationError, match=r"2026-11-20$"):
        parse_day("yesterday")


def test_ranges_of_days() -> None:
    """Both ends are included; an open one ends with the last day that is over."""
    newest = date(2026, 11, 20)
    assert parse_days("2026-11-01..2026-11-07", newest) == (date(2026, 11, 1), date(2026, 11, 7))
    assert parse_days("-7d..yesterday", newest) == parse_days("-7d..", newest) == (date(2026, 11, 14), newest)
    assert parse_days("yesterday", newest) == (newest, newest)
    for text in ("yesterday..-7d", "..", "..yesterday", "2026-11-01...2026-11-07", "-7d..x"):
        with pytest.raises(ConfigurationError):
            parse_days(text, newest)


def test_a_range_of_days_on_the_command_line(tmp_path: Path) -> None:
    """What begins with a minus is no option; a command for one day refuses a range."""
    with simulator(world="small", churn=False) as vendor:
        environ = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"}
        planned = Command(tmp_path, environ).run("plan", "--day", "-3d..-2d", "--json")
        assert (planned.code, planned.err) == (0, "")
        assert len(json.loads(planned.out)["days"]) == 2
        one = Command(tmp_path, environ).run("compare", "--with", "nerdgraph", "--day", "-3d..-2d")
    assert one.code == 2


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """It is said before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = Command(tmp_path, {}).run("dev", "--port", str(port))
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert f"port {port} cannot be used" in refused.err
    assert Command(tmp_path, {}).run("dev", "--port", "70000").code == 2


def test_the_embedded_vendors_port_is_tried_first(tmp_path: Path) -> None:
    """One that is taken, or the UI's own, is refused in a line that names the option; so is one for another vendor."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = Command(tmp_path, {}).run("dev", "--port", str(free_port()), "--vendor-port", port)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert f"port {port} cannot be used" in refused.err
    assert "--vendor-port" in refused.err
    both = Command(tmp_path, {}).run("dev", "--port", port, "--vendor-port", port)
    assert (both.code, both.err.count("give two ports")) == (2, 1)
    theirs = {"VENDOR_URL": "http://127.0.0.1:9", "VENDOR_API_KEY": "k"}
    other = Command(tmp_path, theirs).run("dev", "--vendor-port", port)
    assert (other.code, other.err.count("is configured here")) == (2, 1)


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    """Two daemons of one instance would launch each run twice."""
    home = tmp_path / ".dagster"
    home.mkdir()
    ports = ("--port", str(free_port()), "--vendor-port", str(free_port()))
    with (home / "dev.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = Command(tmp_path, {}).run("dev", *ports)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert f"another vendor-assets dev works with {home}" in refused.err


def test_a_daemon_that_outlives_its_command_is_one(tmp_path: Path) -> None:
    """After kill -9 of ``dev`` the daemon that it started goes on, and another one is refused until it has ended."""
    sleep = ["-c", "import time; time.sleep(600)"]
    with _alone(tmp_path) as lock:
        daemon = _Started(sleep, tmp_path, lambda: True, keeps=(lock,))
    try:
        with pytest.raises(ConfigurationError), _alone(tmp_path):
            pass
    finally:
        daemon.process.kill()
        daemon.wait()
        if daemon.process.stdout:
            daemon.process.stdout.close()
    with _alone(tmp_path):
        pass


def test_the_doctor_where_dagster_cannot_be_opened(tmp_path: Path) -> None:
    """That is one finding, and every other part is tried."""
    (tmp_path / ".dagster").touch()
    with simulator(world="small", churn=False) as vendor:
        found = Command(tmp_path, {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY}).run("doctor", "--json")
    states = {each["part"]: each["state"] for each in found.json}  # type: ignore[call-overload,index]
    assert found.code == 1
    assert (states["dagster"], states["vendor"], states["store"]) == ("failed", "ok", "ok")


def test_the_doctor_as_json(tmp_path: Path) -> None:
    """Every finding is an object; the code is as without."""
    with simulator(world="small", churn=False) as vendor:
        running = Command(tmp_path, {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY})
        found = running.run("doctor", "--json")
    assert {"vendor", "store", "database"} <= {each["part"] for each in found.json}  # type: ignore[call-overload,index]
    assert (found.code == 0) == all(each["state"] != "failed" for each in found.json)  # type: ignore[call-overload,index]
