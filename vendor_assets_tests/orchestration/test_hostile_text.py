"""Whatever a vendor writes, what is shown of it is bounded, on one line, and nothing that a terminal obeys."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value

from vendor_assets.cli.progress import ProgressLine
from vendor_assets.cli.terminal import Visible, print_table, visible_output
from vendor_assets.errors import VendorRejectedError
from vendor_assets.logs import get_logger
from vendor_assets.storage.troop_keys import TroopKeys
from vendor_assets_tests.support.deployment import deploy, yesterday

DAY = yesterday().isoformat()
EVIL = "\x1b]0;owned\x07\x1b[31m\u202egnp\u200b\nX-Injected: 1\u2028 \x9b2J | `<script>` "
HALF = "half \ud83d pair"
HUGE = "f" * 1_000_000


class Hostile(BaseHTTPRequestHandler):
    """A vendor of one troop, warrior and data group whose names and fields hurt whoever shows them."""

    def do_GET(self) -> None:
        fields = {EVIL: 1, HALF: 2, HUGE: 3} | {f"field {number} {EVIL}": 4 for number in range(300)}
        path = self.path.partition("?")[0]
        status = 200
        if path.endswith("/applications.json"):
            body: Any = {
                "applications": [
                    {"id": 1, "name": EVIL} | fields,
                    {"id": 2, "name": EVIL + HALF + HUGE} | fields,
                ]
            }
        elif path.endswith("/hosts.json"):
            body = {"application_hosts": [{"id": 5, "host": EVIL} | fields, {"id": 6, "host": HALF}]}
        elif path.endswith("/metrics.json"):
            names = (EVIL, "Controller/home")
            body = {"metrics": [{"name": name, "values": [EVIL, "call_count"]} | fields for name in names]}
        else:
            status, body = 400, {"error": {"title": EVIL + HALF + HUGE}}
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hostile() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def texts(value: Any) -> Iterator[str]:
    """Every text in a document, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, held in value.items():
            yield from texts(key)
            yield from texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from texts(held)


def test_hostile_names_stay_out_of_events_and_terminal(
    hostile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Field names of a megabyte and escape sequences at every level leave a small log that is text all through."""
    monkeypatch.setenv("VENDOR_API_KEY", "a-key")
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        deployment = deploy(
            tmp_path, instance, VENDOR_URL=hostile, VENDOR_API_KEY="a-key", VENDOR_RATE="500/s"
        )
        runs = [deployment.materialize("troops", partition=DAY)]
        key = TroopKeys(deployment.store).known()["1"]
        instance.add_dynamic_partitions("troop", [key])
        runs.append(
            deployment.materialize("warriors", "data_groups", "performance_data", partition=f"{DAY}|{key}")
        )
        said = [
            (str(check.asset_key), check.description)
            for run in runs
            for check in run.get_asset_check_evaluations()
        ]
        assert [run.success for run in runs] == [True, False], said
        deployment.sensor("dead_letters_sensor")
        alert = deployment.sensor("alert_sensor", json.dumps({"seen": 1}))[0]
        events = [entry for run in runs for entry in instance.all_logs(run.run_id)]
        known = [text for event in events for text in texts(json.loads(serialize_value(event)))]
        known.append(str(alert))
        for text in known:
            text.encode()
            odd = {letter for letter in text if not letter.isprintable()} - {"\n", "\t", "\r"}
            assert not odd, text[:300]
        assert sum(map(len, known)) < 1_000_000
        fields = [text for text in known if "field 1" in text]
        assert fields
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    assert size < 4_000_000
    out, err = capfd.readouterr()
    for letter in ("\x1b]0", "\x07", "\u202e", "\u200b", "\u2028", "\x9b"):
        assert letter not in out + err


def test_an_error_is_one_line_whatever_it_is_about() -> None:
    """Every error of ours is presentable, since its message may hold what somebody else wrote."""
    said = str(VendorRejectedError(EVIL + HALF + HUGE, status=400))
    assert said.isprintable()
    assert len(said) <= 4000


def test_a_line_of_the_log_shows_what_a_terminal_would_obey(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments are made presentable, and so is the way to an error; numbers stay numbers."""
    log = get_logger("vendor_assets.client")
    with caplog.at_level(logging.WARNING):
        log.warning("%s took %.1f s", EVIL + HALF, 1.25)
        try:
            raise ValueError(EVIL + HALF)
        except ValueError:
            log.exception("%s failed with 100%%", HALF)
    line, traced = (record.getMessage() for record in caplog.records)
    assert line.isprintable()
    assert line.endswith(" took 1.2 s")
    assert "half \\ud83d pair failed with 100%\nTraceback" in traced
    assert "ValueError: " in traced
    assert not {letter for letter in traced if not letter.isprintable()} - {"\n"}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_terminal_is_sent_what_it_can_show(encoding: str) -> None:
    """No sequence that it would obey and no letter that it has not; line ends and tabs are the program's own."""
    raw = io.BytesIO()
    plain = io.TextIOWrapper(raw, encoding=encoding)
    Visible(plain).write("Zürich\t" + EVIL + HALF)
    plain.flush()
    shown = raw.getvalue().decode(encoding)
    assert shown.startswith("Zürich\t\\x1b]0;owned" if encoding == "utf-8" else "Z\\xfcrich\t\\x1b]0;owned")
    assert not {letter for letter in shown if not letter.isprintable()} - {"\n", "\t"}


def test_everything_that_the_command_prints_goes_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output and standard error, for whatever part of the program writes there."""
    with visible_output():
        sys.stdout.write(EVIL)
        sys.stderr.write(EVIL)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert captured.out == captured.err
    assert captured.out.startswith("\\x1b]0;owned")


def test_a_table_in_a_file_is_plain_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is one line of any length, without colours whatever the environment wants, and markup is text."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with visible_output():
        print_table([("[red]x", 1, EVIL), ("y", 20, "long " * 500)], "what", "number", "why")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["what", "number", "why"]
    assert first.startswith("[red]x             1  \\x1b]0;owned")
    assert first.isprintable()
    assert second == "y                 20  " + " ".join(["long"] * 500)


def test_progress_on_a_terminal_sends_nothing_of_what_it_is_told() -> None:
    """The bar moves the cursor; lines above it are text, neither sequences nor markup."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    with ProgressLine(Visible(screen)) as progress:
        progress.say("[bold]" + EVIL)
    assert "[bold]\\x1b]0;owned" in screen.getvalue()
    assert not [evil for evil in ("\x1b]", "\x07", "\u202e") if evil in screen.getvalue()]
