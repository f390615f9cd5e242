"""The command with several accounts: one is named, or what only looks, looks at all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from vendor_assets.settings import FILE
from vendor_assets.storage.objects import open_store
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)


def table(name: str, vendor: RunningSimulator) -> str:
    return f"""
[accounts.{name}]
url = "{vendor.url}"
api_key_env = "{name.upper()}_KEY"
rate = "500/s"
settling = 0
"""


def test_each_account_is_harvested_by_its_name(tmp_path: Path) -> None:
    """Two vendors, two stores, one project: nothing mixes, and a command that would spend needs the name."""
    with simulator(world="small", churn=False) as one, simulator(world="small", seed=7, churn=False) as other:
        (tmp_path / FILE).write_text(table("prod", one) + table("lab", other))
        command = Command(tmp_path, {"PROD_KEY": KEY, "LAB_KEY": KEY}, fixed={})
        unnamed = command.run("harvest", "--day", DAY.isoformat(), "--no-report")
        assert unnamed.code == 2
        assert unnamed.err.strip().endswith(
            "there are several accounts; choose one with --account: prod, lab"
        )
        nobody = command.run("harvest", "--account", "nobody")
        assert nobody.code == 2
        assert "there is no account 'nobody'; there are prod, lab" in nobody.err
        for name, vendor in (("prod", one), ("lab", other)):
            vendor.reset()
            done = command.run(
                "harvest", "--day", DAY.isoformat(), "--no-report", "--account", name, "--json"
            )
            assert done.code == 0, done.out + done.err
            assert vendor.calls() == done.json["calls_made"]
            rows = harvested_rows(open_store(str(tmp_path / "data" / name)), DAY)
            assert rows == true_rows(vendor.world, DAY)
        status = command.run("status", "--days", "1", "--json").json
        assert {name: each["days"][0]["complete"] for name, each in status.items()} == {
            "prod": len(one.world.troops_on(DAY, "UTC")),
            "lab": len(other.world.troops_on(DAY, "UTC")),
        }
        for arguments in (("plan",), ("budget",), ("doctor",), ("dead-letters", "list")):
            shown = command.run(*arguments)
            assert shown.code == 0, shown.out + shown.err
            assert [line for line in shown.out.splitlines() if line.startswith("== ")] == [
                "== prod",
                "== lab",
            ]
        unnamed = command.run("budget", "--lift-ceiling")
        assert (unnamed.code, unnamed.out) == (2, "")
        before = (DAY - timedelta(days=1)).isoformat()
        text = (tmp_path / FILE).read_text()
        (tmp_path / FILE).write_text(text.replace("[accounts.prod]", f'[accounts.prod]\nstart = "{DAY}"'))
        broken = command.run("plan", "--day", before, "--json")
        assert broken.code == 2
        assert f"account prod: day {before} is before the first day {DAY}; set start={before}" in broken.err
        assert broken.json["prod"]["problem"].startswith(f"day {before} is before")
        assert broken.json["lab"]["calls"] > 0
        (tmp_path / FILE).write_text(text)
        alone = command.run("budget", "--account", "lab", "--json").json
        assert alone["account"].endswith("#lab")


def test_a_store_without_a_name_goes_on_under_one(tmp_path: Path) -> None:
    """What one account of the environment has harvested is shown under a name, without a call."""
    with simulator(world="small", churn=False) as vendor:
        before = Command(tmp_path, {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"})
        assert before.run("harvest", "--day", DAY.isoformat(), "--no-report").code == 0
        calls = vendor.calls()
        (tmp_path / FILE).write_text(table("prod", vendor) + 'store = "./data"\naccount = ""\n')
        after = Command(tmp_path, {"PROD_KEY": KEY}, fixed={})
        synced = after.run("sync", "--account", "prod")
        assert synced.code == 0, synced.err
        troops = len(vendor.world.troops_on(DAY, "UTC"))
        assert f"{1 + 3 * troops} partitions reported, 0 known already" in synced.out
        again = after.run("harvest", "--day", DAY.isoformat(), "--no-report", "--json").json
        assert (again["calls_made"], again["complete"]) == (0, True)
        assert vendor.calls() == calls
        assert harvested_rows(open_store(str(tmp_path / "data")), DAY) == true_rows(vendor.world, DAY)
