"""``doctor``, ``status`` and ``dead-letters`` as an operator meets them; each failure is a real one."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vendor_assets.errors import StorageUnavailableError
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.command import ROOT, Command, Finished
from vendor_assets_tests.support.s3 import RunningS3
from vendor_assets_tests.support.simulator import KEY, simulator

DAY = datetime.now(UTC).date() - timedelta(days=1)
NOWHERE = "127.0.0.1:9"


def findings(finished: Finished) -> dict[str, tuple[str, str]]:
    """Part to state and text."""
    lines = [line.split(maxsplit=2) for line in finished.out.splitlines()]
    return {part: (state, text) for state, part, text in lines}


def test_the_doctor_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    """A wrong key, a wrong clock, a store that cannot be written, a database that is down: a line each."""
    with simulator(world="small", churn=False, api_key=KEY) as vendor:
        good = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY}
        well = Command(tmp_path, good).run("doctor")
        assert well.code == 0, well.out + well.err
        found = findings(well)
        parts = [
            "database",
            "network",
            "vendor",
            "clock",
            "quota",
            "store",
            "disk",
            "demand",
            "dagster",
            "partitions",
        ]
        assert list(found) == parts
        assert {state for state, _ in found.values()} == {"ok", "warning"}
        assert "no daemon is running" in found["dagster"][1]

        vendor.set_clock((datetime.now(UTC) + timedelta(hours=1)).isoformat())
        wrong = {
            "VENDOR_API_KEY": "expired",
            "VENDOR_ASSETS_STORE": "/proc/none",
            "VENDOR_ASSETS_DB": "sqlite:///b.db",
        }
        sick = Command(tmp_path, good | wrong)
        found = findings(sick.run("doctor"))
        assert found["vendor"][0] == found["clock"][0] == found["store"][0] == "failed"
        assert "set VENDOR_API_KEY to a key that is valid" in found["vendor"][1]
        assert "clock is 60 min behind the vendor's" in found["clock"][1]
        assert "expired" not in str(found)

        down = Command(tmp_path, good | {"VENDOR_ASSETS_DB": f"postgresql://u:secret@{NOWHERE}/x"}).run(
            "doctor"
        )
        found = findings(down)
        assert down.code == 1
        assert found["database"][0] == "failed"
        assert "see that it runs, or set VENDOR_ASSETS_DB" in found["database"][1]
        assert "secret" not in down.out + down.err
        assert (found["store"][0], found["partitions"][0]) == ("ok", "ok")

    gone = Command(tmp_path, good).run("doctor")
    assert gone.code == 1
    assert "refuses connections" in findings(gone)["vendor"][1]


def test_the_doctor_misses_a_bucket(tmp_path: Path, s3_server: RunningS3) -> None:
    """A bucket that is not there is named."""
    environ = s3_server.environment | {"VENDOR_ASSETS_STORE": "s3://not-there/x"}
    environ |= {
        "VENDOR_URL": "http://127.0.0.1:9",
        "VENDOR_API_KEY": "any",
        "VENDOR_ASSETS_DB": "sqlite:///budget.db",
    }
    found = findings(Command(tmp_path, environ).run("doctor"))
    assert found["store"][0] == "failed"
    assert "not-there" in found["store"][1]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """What a full disk raises while an object is written is ours, also when the file is closed."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from vendor_assets.storage.folder import FolderStore\n"
        "try: FolderStore(sys.argv[1]).put('a/b', b'1')\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    FolderStore(tmp_path).put("a/a", b"1")
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == StorageUnavailableError.__name__, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status", "--days", "0"), "--days 0 is not accepted; give 1 to 366"),
        (("plan", "--day", "tomorrow"), "'tomorrow'"),
        (("plan", "--to", "2026-11-01"), "--to needs --from"),
        (("dead-letters", "discard"), "discard needs --why"),
        (("dead-letters", "list", "--asset", "troop"), "invalid choice: 'troop'"),
        (("dead-letters", "redrive", "--discarded"), "--discarded is for list and show"),
        (("dead-letters", "list", "--status", "four"), "invalid int value: 'four'"),
        (("hervest",), "invalid choice: 'hervest'"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """What, the value, what is accepted; exit code 2 and no traceback."""
    ended = Command(tmp_path, {}).run(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err


def test_status_and_dead_letters_follow_a_day(tmp_path: Path) -> None:
    """A day with a dead letter is partial; once discarded it is complete, with who and why on record."""
    with simulator(world="small", churn=False) as vendor:
        environ = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s", "USER": "ada"}
        command = Command(tmp_path, environ | {"VENDOR_ASSETS_TROOPS": "!200020000"})
        vendor.faults([{"kind": "400", "match": "100000000100000/metrics/data"}])
        assert command.run("harvest", "--day", DAY.isoformat(), "--json").code == 3
        status = command.run("status", "--days", "2", "--url", f"http://{NOWHERE}", "--json").json
        before, day = status["days"]
        assert not before["roster"]
        counts = {name: day[name] for name in ("complete", "partial", "failed", "missing", "left_out")}
        assert counts == {"complete": 1, "partial": 1, "failed": 0, "missing": 0, "left_out": 1}
        # Each of the four data groups of the warrior that is refused is dead by itself.
        assert day["dead_letters"] == 4
        assert day["report_at"]
        assert status["dagster"] is None
        midnight_came = datetime.now(UTC).date() - DAY > timedelta(days=1)
        assert status["calls_today"] == vendor.calls() or midnight_came
        assert status["filters"] == {"VENDOR_ASSETS_TROOPS": "!200020000"}

        letters = command.run("dead-letters", "show", "--status", "400", "--troop", "200000000").json
        assert [letter["asset"] for letter in letters] == ["performance_data"] * 4
        line, count, hint = command.run("dead-letters", "list", "--status", "400").out.splitlines()
        # All that failed for one reason is one line, and the troop has its name.
        assert line.startswith(
            f"{DAY} Checkout | EU performance_data: 4 permanent, status 400: the vendor rejects"
        )
        assert (count, hint.count("dead-letters show")) == ("4 dead letters in 1 partition", 1)
        assert "0 dead letters" in command.run("dead-letters", "list", "--status", "404").out
        calls = vendor.calls()
        gone = command.run("dead-letters", "discard", "--reason", "400", "--why", "retired", "--json")
        assert gone.code == 0, gone.out + gone.err
        assert vendor.calls() == calls
        kept = command.run("dead-letters", "list", "--discarded").out
        assert "discarded by ada at" in kept
        assert ": retired (" in kept
        said = command.run("status", "--days", "1", "--url", f"http://{NOWHERE}").out
        assert f"{DAY}            2          0" in said
        assert "VENDOR_ASSETS_TROOPS=!200020000" in said
