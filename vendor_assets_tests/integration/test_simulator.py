"""The simulator as its own process, asked over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from vendor_assets_tests.support.simulator import RunningSimulator, simulator

NOW = "2026-11-21T10:00:00+00:00"
LIST = "/v2/applications.json"


class _Answer:
    """Status, headers and body of one answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    def json(self) -> Any:
        return json.loads(self.body)


def _get(
    vendor: RunningSimulator, target: str = LIST, key: str = "k", timeout: float = 30, method: str = "GET"
) -> _Answer:
    connection = http.client.HTTPConnection("127.0.0.1", vendor.port, timeout=timeout)
    try:
        connection.request(method, target, headers={"X-Api-Key": key} if key else {})
        return _Answer(connection.getresponse())
    finally:
        connection.close()


def test_a_whole_harvest_by_hand_finds_the_truth() -> None:
    """Walking from the list to the data finds each row of the seeded truth, and nothing else."""
    day = date(2026, 11, 20)
    with simulator(world="small", now=NOW, page_size=2) as vendor:
        found = set()
        troops = _pages(vendor, LIST, "applications")
        for troop in troops:
            base = f"/v2/applications/{troop['id']}/hosts"
            for host in _pages(vendor, base + ".json", "application_hosts"):
                for metric in _pages(vendor, f"{base}/{host['id']}/metrics.json", "metrics"):
                    name = metric["name"].replace(" ", "%20")
                    query = (
                        f"names[]={name}&from=2026-11-20T00:00:00%2B00:00&to=2026-11-21T00:00:00Z&period=1800"
                    )
                    data = _get(vendor, f"{base}/{host['id']}/metrics/data.json?{query}").json()
                    for item in data["metric_data"]["metrics"]:
                        for piece in item["timeslices"]:
                            for value_name, value in piece["values"].items():
                                found.add(
                                    (
                                        str(troop["id"]),
                                        str(host["id"]),
                                        item["name"],
                                        value_name,
                                        piece["from"],
                                        value,
                                    )
                                )
        seen_at = [datetime.fromisoformat(NOW)]
        rows = list(vendor.world.expected_rows(day, 1800, seen_at=seen_at))
        assert len(rows) > 1000
        assert found == {
            (row.troop_id, row.warrior_id, row.data_group, row.value_name, row.start.isoformat(), row.value)
            for row in rows
        }
        log = vendor.log()
        assert log["repeated"]["total"] == 0
        assert log["violations"] == 0
        assert log["requests"] == sum(sum(one.values()) for one in log["by_endpoint"].values())


def _pages(vendor: RunningSimulator, target: str, name: str) -> list[Any]:
    entities: list[Any] = []
    page = 1
    while True:
        answer = _get(vendor, f"{target}?page={page}")
        entities += answer.json()[name]
        if 'rel="next"' not in answer.headers.get("Link", ""):
            return entities
        page += 1


def test_the_key_is_wanted() -> None:
    """No key is a 401, and with --api-key every other key is one as well; none of them uses the limit."""
    with simulator(api_key="right", limit="1/h") as vendor:
        assert [_get(vendor, key=key).status for key in ("", "wrong", "right", "wrong")] == [
            401,
            401,
            200,
            401,
        ]
        assert _get(vendor, key="wrong").json() == {"error": {"title": "The API key provided is invalid"}}


@pytest.mark.parametrize("kind", ["bucket", "fixed", "sliding"])
def test_too_many_calls_are_refused_and_counted(kind: str) -> None:
    """Of eight calls under a limit of five an hour three get a 429, and the log says so."""
    with simulator(limit="5/h", limit_kind=kind) as vendor:
        answers = [_get(vendor) for _ in range(8)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 3
        assert "X-RateLimit-Limit" not in answers[0].headers
        assert answers[-1].headers["X-RateLimit-Remaining"] == "0"
        assert int(answers[-1].headers["X-RateLimit-Reset"]) > datetime.now(UTC).timestamp()
        log = vendor.log()
        assert (log["violations"], log["worst_minute"]) == (3, 8)


@pytest.mark.parametrize(
    ("style", "present", "value"),
    [
        ("seconds", True, "1800"),
        ("garbage", True, "soon"),
        ("negative", True, "-5"),
        ("date", True, " GMT"),
        ("none", False, ""),
    ],
)
def test_retry_after_as_wished(style: str, present: bool, value: str) -> None:
    """A 429 carries Retry-After in the form that was asked for, or none."""
    with simulator(limit="2/h", retry_after=style, limit_headers="never") as vendor:
        headers = [_get(vendor).headers for _ in range(3)][-1]
        assert ("Retry-After" in headers) is present
        assert headers.get("Retry-After", "").endswith(value)
        assert "X-RateLimit-Limit" not in headers


def test_a_redirect_shows_whether_the_key_came_along() -> None:
    """A redirect leads where it was told to, and the log counts the calls that carried a key."""
    with simulator() as vendor:
        vendor.faults([{"kind": "redirect", "location": "http://127.0.0.1:9/x", "count": 1}])
        answer = _get(vendor)
        assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.1:9/x")
        assert _get(vendor, key="").status == 401
        log = vendor.log()
        assert (log["requests"], log["requests_with_key"]) == (2, 1)


def test_limits_change_at_run_time() -> None:
    """The limit set through the control endpoint holds from the next call on."""
    with simulator() as vendor:
        assert [_get(vendor).status for _ in range(3)] == [200] * 3
        vendor.limit("1/h", kind="fixed")
        assert [_get(vendor).status for _ in range(3)] == [200, 429, 429]
        vendor.limit(kind="none")
        assert _get(vendor).status == 200


@pytest.mark.parametrize("status", [404, 500, 502, 503])
def test_faulty_statuses(status: int) -> None:
    """A fault given as a number is that status, as often as it says."""
    with simulator() as vendor:
        vendor.faults([{"kind": str(status), "count": 2, "match": "applications"}])
        assert [_get(vendor).status for _ in range(3)] == [status, status, 200]
        assert vendor.log()["faults"] == {str(status): 2}
        assert vendor.calls("applications", str(status)) == 2


def test_faults_that_break_the_connection() -> None:
    """Reset ends the connection without an answer, truncated in the middle of one."""
    with simulator(fault=["reset:count=1", "truncated:count=1"]) as vendor:
        with pytest.raises(ConnectionResetError):
            _get(vendor)
        with pytest.raises(http.client.IncompleteRead):
            _get(vendor)
        assert _get(vendor).status == 200
        log = vendor.log()
        assert log["by_endpoint"]["applications"] == {"200": 2, "reset": 1}
        assert log["repeated"]["total"] == 0


@pytest.mark.parametrize(
    ("kind", "content_type", "valid"),
    [
        ("malformed", "application/json", False),
        ("html", "text/html", False),
        ("empty", "application/json", False),
        ("wrong_type", "text/plain", True),
        ("duplicates", "application/json", True),
        ("drift_new", "application/json", True),
    ],
)
def test_faults_that_spoil_the_body(kind: str, content_type: str, valid: bool) -> None:
    """Such an answer has status 200 and a matching length; what is in it is wrong."""
    with simulator() as vendor:
        right = _get(vendor)
        vendor.faults([{"kind": kind}])
        answer = _get(vendor)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(content_type)
        if valid:
            answer.json()
        else:
            with pytest.raises(ValueError, match=r"Expecting|Extra|Unterminated"):
                answer.json()
        vendor.clear_faults()
        assert _get(vendor).body == right.body


def test_a_hanging_call_is_given_up_by_the_caller() -> None:
    """A hang gives no answer; the caller's end is seen, and nothing stays in flight."""
    with simulator(fault=["hang:count=1"]) as vendor:
        with pytest.raises(TimeoutError):
            _get(vendor, timeout=0.3)
        while vendor.log()["in_flight"]:
            pass
        assert vendor.calls("applications", "abandoned") == 1
        assert _get(vendor).status == 200


def test_slow_and_huge_bodies_arrive() -> None:
    """A slow body is the right one in the end, a huge one is as long as it says."""
    with simulator() as vendor:
        right = _get(vendor).body
        vendor.faults(
            [{"kind": "slow_body", "seconds": 0.2, "count": 1}, {"kind": "huge_body", "bytes": 3_000_000}]
        )
        assert _get(vendor).body == right
        assert len(_get(vendor).body) == 3_000_000


def test_paging_that_never_ends() -> None:
    """Endless paging always names a next page, a repeating page is the first one again."""
    with simulator(page_size=1) as vendor:
        first = _get(vendor).body
        vendor.faults([{"kind": "endless_paging", "count": 1}, {"kind": "repeating_page"}])
        beyond = _get(vendor, LIST + "?page=900")
        assert beyond.json() == {"applications": []}
        assert 'page=901>; rel="next"' in beyond.headers["Link"]
        assert _get(vendor, LIST + "?page=2").body == first


def test_an_outage_ends_when_it_is_cleared() -> None:
    """During an outage every call is a 503 that uses no limit; clearing the faults ends it."""
    with simulator(limit="2/h") as vendor:
        vendor.faults([{"kind": "outage", "seconds": 3600}])
        assert [_get(vendor).status for _ in range(4)] == [503] * 4
        vendor.clear_faults()
        assert _get(vendor).status == 200
        assert [outage["kind"] for outage in vendor.log()["outages"]] == ["fault"]


def test_a_refused_connection_and_back() -> None:
    """In mode refuse the port is closed, and opens again by itself."""
    with simulator() as vendor:
        vendor.faults([{"kind": "outage", "seconds": 0.3, "mode": "refuse"}])
        refused = False
        while not refused:
            try:
                _get(vendor)
            except ConnectionRefusedError:
                refused = True
            except OSError:
                continue
        back = False
        while not back:
            try:
                back = _get(vendor).status == 200
            except OSError:
                continue


def test_overload_brings_it_down() -> None:
    """Offered more than three times its capacity in a second, the vendor is down."""
    with simulator(capacity=1, collapse_factor=3, collapse_seconds=600) as vendor, ExitStack() as lines:
        call = f"GET {LIST} HTTP/1.1\r\nX-Api-Key: k\r\n\r\n".encode()
        while not vendor.log()["outages"]:
            for _ in range(4):
                address = ("127.0.0.1", vendor.port)
                lines.enter_context(socket.create_connection(address)).sendall(call)
        assert _get(vendor).status == 503
        log = vendor.log()
        assert [outage["kind"] for outage in log["outages"]] == ["collapse"]
        assert log["peak_in_flight"] > 1


def test_pipelined_calls_are_answered_in_order() -> None:
    """Several requests in one packet get their answers one after another on the same connection."""
    with simulator(latency=0.01) as vendor, socket.create_connection(("127.0.0.1", vendor.port)) as line:
        targets = [LIST, "/nowhere", "/_control/state", LIST]
        head = "X-Api-Key: k\r\nConnection: "
        ends = ["keep-alive", "keep-alive", "keep-alive", "close"]
        pairs = zip(targets, ends, strict=True)
        line.sendall(
            "".join(f"GET {target} HTTP/1.1\r\n{head}{end}\r\n\r\n" for target, end in pairs).encode()
        )
        data = b""
        while piece := line.recv(65_536):
            data += piece
        assert [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 200]
        assert vendor.log()["requests"] == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    """Garbage gets a 4xx and the end of the connection; the server lives on."""
    with simulator() as vendor:
        with socket.create_connection(("127.0.0.1", vendor.port)) as line:
            line.sendall(raw)
            assert line.recv(20).startswith(b"HTTP/1.1 4")
        assert _get(vendor).status == 200


def test_the_clock_moves_the_lists() -> None:
    """Set to another day, the vendor lists those who live then."""
    with simulator(world="demo", now=NOW) as vendor:
        for moment in ("2026-11-20T12:00:00+00:00", "2026-11-24T03:00:00+00:00"):
            vendor.set_clock(moment)
            shown = [str(one["id"]) for one in _get(vendor).json()["applications"]]
            assert shown == [troop.id for troop in vendor.world.troops(datetime.fromisoformat(moment))]


def test_hostile_names_survive_the_wire() -> None:
    """Every hostile name is listed, and a troop whose id is not a number can be asked for."""
    with simulator(hostile=True) as vendor:
        shown = _get(vendor).json()["applications"]
        now = datetime.now(UTC)
        assert [(str(one["id"]), one["name"]) for one in shown] == [
            (troop.id, troop.name) for troop in vendor.world.troops(now)
        ]
        hosts = _get(vendor, "/v2/applications/svc%3Aeu%2Fwest%7C1%20%C3%A9/hosts.json")
        assert len(hosts.json()["application_hosts"]) == 1


def test_wrong_control_requests_say_why() -> None:
    """A control request that cannot be understood is a 400 or 404 with the reason, and changes nothing."""
    with simulator() as vendor:
        connection = http.client.HTTPConnection("127.0.0.1", vendor.port, timeout=30)
        for name, body in (
            ("faults", b'{"kind": "gremlins"}'),
            ("limit", b"[1"),
            ("clock", b"{}"),
            ("x", b"{}"),
        ):
            connection.request("POST", f"/_control/{name}", body)
            answer = connection.getresponse()
            assert answer.status in (400, 404)
            assert json.loads(answer.read())["error"]
        connection.close()
        assert vendor.log()["requests"] == 0


def test_the_log_file_has_a_line_a_call(tmp_path: Path) -> None:
    """Each call is on file the moment it is answered, without its key."""
    path = tmp_path / "calls.jsonl"
    with simulator(log_file=path) as vendor:
        _get(vendor, key="secret-key")
        _get(vendor, "/nowhere", key="secret-key")
        text = path.read_text()
    assert [json.loads(line)["outcome"] for line in text.splitlines()] == ["200", "404"]
    assert "secret-key" not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_quietly(number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end the process with exit 0, a hanging call or not."""
    with simulator(fault=["hang"]) as vendor:
        with pytest.raises(TimeoutError):
            _get(vendor, timeout=0.1)
        vendor.process.send_signal(number)
        assert vendor.process.wait(30) == 0


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """With --parent-pid the vendor ends when that process was killed."""
    port_file = tmp_path / "port"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'vendor_assets.simulator', '--port', '0',\n"
        "    '--port-file', sys.argv[1], '--parent-pid', str(os.getpid())], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(port_file)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    while not port_file.exists():
        assert parent.poll() is None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        os.sched_yield()


def test_a_taken_port_is_one_line() -> None:
    """A port that is in use ends with exit 1 and one line."""
    with simulator() as vendor:
        command = [sys.executable, "-m", "vendor_assets.simulator", "--port", str(vendor.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
