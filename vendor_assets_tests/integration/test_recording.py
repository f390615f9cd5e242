"""``vendor record``: answers of an account become cases that hold, and tell nobody's name."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest

from vendor_assets import vendors
from vendor_assets.cli import main
from vendor_assets.cli.record import _kept, _vocabulary
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.vendors.base import Asset, Parsed, PlannedRequest, Response
from vendor_assets.vendors.cases import check_cases
from vendor_assets.vendors.disguise import WORD, Disguise
from vendor_assets.vendors.nerdgraph import NerdGraph
from vendor_assets.vendors.new_relic import NewRelic
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.prometheus import prometheus, require_prometheus
from vendor_assets_tests.support.recorder import Answer, Received, recorder
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

ASSETS: Final = ("troops", "warriors", "data_groups", "performance_data")
DAY: Final = datetime.now(UTC).date() - timedelta(days=1)


def _record(folder: Path, environ: dict[str, str], *more: str) -> tuple[int, str]:
    done = Command(folder, environ).run("vendor", "record", "cases", *more)
    assert "Traceback" not in done.err
    return done.code, done.out + done.err


def _written(folder: Path) -> str:
    """All that was written, with escapes undone."""
    return "".join(
        json.dumps(json.loads(path.read_text()), ensure_ascii=False).lower()
        for path in (folder / "cases").iterdir()
    )


def _case(folder: Path, name: str) -> Any:
    return json.loads((folder / "cases" / f"{name}.json").read_text())


def _names(vendor: RunningSimulator) -> set[str]:
    """Ids, names, hosts and instances, as REST v2, Datadog and CloudWatch have them."""
    now = datetime.now(UTC)
    troops = vendor.world.troops(now)
    warriors = [each for troop in troops for each in vendor.world.warriors(troop.id, now)]
    names = {text for troop in troops for text in (troop.id, troop.name)}
    names |= {text for each in warriors for text in (each.id, each.host, f"i-{int(each.id):017x}")}
    headers = {"DD-API-KEY": KEY, "DD-APPLICATION-KEY": KEY}
    request = urllib.request.Request(f"{vendor.url}/api/v1/hosts?count=1000", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        for host in json.load(answer)["host_list"]:
            tags = [tag for tags in host["tags_by_source"].values() for tag in tags]
            names |= {host["name"], *host["aliases"], *(tag.partition(":")[2] for tag in tags)}
    return names


@pytest.mark.parametrize("kind", ["new_relic", "nerdgraph", "datadog", "cloudwatch"])
def test_the_embedded_vendors_answers_become_cases_without_its_names(tmp_path: Path, kind: str) -> None:
    """Few calls, few rows, nothing of its hostile names, and each case holds."""
    with simulator(world="small", hostile=True, churn=False, page_size=9) as vendor:
        account = "1234567" if kind == "nerdgraph" else ""
        environ = {
            "VENDOR_KIND": kind,
            "VENDOR_APPLICATION_KEY": KEY,
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_ACCOUNT": account,
            "VENDOR_OPTIONS": "region=us-east-1" if kind == "cloudwatch" else "",
        }
        code, said = _record(tmp_path, environ)
        assert code == 0, said
        assert f"{vendor.calls()} calls" in said
        assert vendor.calls() <= 8
        names = _names(vendor)
    written = _written(tmp_path)
    # A short name may be a field's too, so it is looked for as a whole text and as a tag's value.
    shown = [
        (name, name.lower() if len(name) > 7 else f'{before}{name.lower()}"')
        for name in names
        for before in '":'
        if WORD.search(name)
    ]
    told = [name for name, text in shown if text in written]
    assert told == []
    assert {path.stem for path in (tmp_path / "cases").iterdir()} == set(ASSETS)
    assert check_cases(vendors.make(kind, account or "1"), tmp_path / "cases") == []
    lists = _case(tmp_path, "troops"), _case(tmp_path, "warriors")
    assert lists[1]["troop_id"] in {row["troop_id"] for row in lists[0]["rows"]}
    assert _case(tmp_path, "performance_data")["warrior_id"] in {
        row["warrior_id"] for row in lists[1]["rows"]
    }
    if kind == "new_relic":
        assert len(lists[0]["pages"]) == 3


def test_words_of_a_dialect_stay_in_whichever_module_it_has_them() -> None:
    """NerdGraph's fields are in one module, the columns that its queries name in another."""
    assert {"beginTimeSeconds", "exclusive"} <= _vocabulary(NerdGraph("1234567"))


def test_a_real_prometheus_answers_become_cases(tmp_path: Path) -> None:
    """Labels' names and values are invented, metrics are kept, times stay."""
    require_prometheus()
    with prometheus(days=1) as server:
        environ = {"VENDOR_KIND": "prometheus", "VENDOR_URL": server.url, "VENDOR_RATE": "100/s"}
        code, said = _record(tmp_path, environ, "--troop", "node", "--day", server.days[0].isoformat())
    assert code == 0, said
    written = _written(tmp_path)
    for name in ("web-1", "9100", "odd|job", "gone-early", "softirq"):
        assert name not in written
    assert "go_gc_duration_seconds" in written
    assert check_cases(vendors.make("prometheus"), tmp_path / "cases") == []
    assert len(_case(tmp_path, "troops")["pages"]) == 2


SECRET: Final = "zq-s3cr3t/7f4c9e+="
SKUNKWORKS: Final = 987654321
LEAKS: Final[dict[str, Any]] = {
    "owner": "Alice Miller <alice.miller@hades-corp.internal>",
    "wiki": "https://wiki.hades-corp.internal/teams/skunkworks?owner=carol#top",
    "addresses": ["10.77.188.199", "fe80::dead:beef:cafe", {"phone": "+49 170 5554443"}],
    "carol_team": {"Jürgen Größe": "born 1984-05-03"},
    "nrql": "FROM Metric SELECT count(*) WHERE appName = 'Skunkworks' AND user = 'dorothea'",
    "echo": f"X-Api-Key: {SECRET}",
    "escaped": "zq-s3cr3t\\/7f4c9e",
    "account": 7654321,
    "tags": ["team:orchid", "host:db-hades-01", "customer:Großkunde GmbH"],
    "revenue": 81726354.5,
    "note": "status of the host: alive, said Ferdinand",
}
METRICS: Final = (
    "HttpDispatcher",
    "Custom/Skunkworks/orders",
    "External/api.partnercorp.com/all",
    "Custom/alice.miller@hades-corp.internal/10.77.188.199/logins",
    "Datastore/instance/MySQL/db-hades-01/3306",
)
NEVER: Final = (
    "alice", "miller", "hades", "carol", "skunkworks", "77.188", "beef", "cafe", "5554443", "jürgen", "größe", "1984",
    "dorothea", "s3cr3t", "7f4c9e", "7654321", "orchid", "großkunde", "gmbh", "81726354", "ferdinand", "987654321",
    "55512345", "partnercorp", "zeus", "apollo", "tenant",
)  # fmt: skip


def _hostile(request: Received) -> Answer:
    """REST v2 with names and secrets where nobody looks for them."""
    query = parse_qsl(urlsplit(request.target).query)
    told = dict(query)
    headers = {
        "Content-Type": "application/json; tenant=apollo",
        "Set-Cookie": "session=zeus",
        "X-Served-By": "db-hades-01",
    }
    body: dict[str, Any] = dict(LEAKS)
    if request.path.endswith("/applications.json"):
        body["applications"] = [{"id": SKUNKWORKS, "name": "Skunkworks", "language": "cobol", **LEAKS}]
        if "page" not in told:
            link = f"https://proxy.hades-corp.internal{request.path}?token={SECRET}&page=2"
            headers["Link"] = f'<{link}>; rel="next"; title="apollo"'
    elif request.path.endswith("/hosts.json"):
        body["application_hosts"] = [{"id": 55512345, "host": "db-hades-01", "links": {"alice": SKUNKWORKS}}]
    elif request.path.endswith("/metrics.json"):
        body["metrics"] = [
            {"name": name, "values": ["call_count", "average_value"], **LEAKS} for name in METRICS
        ]
    else:
        piece = {
            "from": told["from"],
            "to": told["to"],
            "values": {"call_count": 5, "average_value": 81726354.5},
        }
        names = [text for name, text in query if name == "names[]"]
        body["metric_data"] = {
            "metrics_not_found": ["Custom/Skunkworks/gone"],
            "metrics": [{"name": name, "timeslices": [piece], "alice": "carol"} for name in names],
        }
    if "filter[ids]" in told:
        body = {"applications": []}
    return Answer(200, json.dumps(body).encode(), headers)


def test_no_name_and_no_secret_of_a_hostile_answer_is_written(tmp_path: Path) -> None:
    """Wherever they are: attributes, names of fields, addresses, queries, headers, names of metrics."""
    with recorder(_hostile) as server:
        environ = {"VENDOR_URL": server.url, "VENDOR_API_KEY": SECRET, "VENDOR_RATE": "100/s"}
        code, said = _record(tmp_path, environ)
        assert code == 0, said
        assert f"{len(server.received)} calls" in said
    written = _written(tmp_path)
    assert [name for name in NEVER if name in written] == []
    assert check_cases(vendors.make("new_relic"), tmp_path / "cases") == []
    data = _case(tmp_path, "performance_data")
    assert "HttpDispatcher" in data["data_groups"]
    assert {row["value"] for row in data["rows"]} >= {5.0}
    assert [list(page["headers"]) for page in _case(tmp_path, "troops")["pages"]] == [
        ["content-type", "link"],
        ["content-type"],
    ]


def _statuses(answers: dict[str, Answer]) -> Callable[[Received], Answer]:
    return lambda request: next(
        (answer for end, answer in answers.items() if request.path.endswith(end)), Answer()
    )


ONE = Answer(body=b'{"applications": [{"id": 987654321, "name": "Skunkworks"}]}')


@pytest.mark.parametrize(
    ("answers", "more", "code", "line"),
    [
        ({"/applications.json": Answer(401)}, (), 1, "refuses the key"),
        (
            {"/applications.json": ONE},
            ("--troop", "nobody"),
            3,
            "not recorded: warriors: there is no troop 'nobody'",
        ),
        ({"/applications.json": ONE, "/hosts.json": Answer(422)}, (), 3, "not recorded: warriors: "),
        ({"/applications.json": ONE, "/hosts.json": Answer(body=b"<p>")}, (), 3, "not recorded: warriors: "),
        ({"/applications.json": Answer(body=b"<html>")}, (), 1, "not recorded: troops: "),
        ({"/applications.json": ONE}, ("--day", "2999-01-01"), 2, "2999-01-01"),
    ],
)
def test_what_cannot_be_recorded_is_a_line(
    tmp_path: Path, answers: dict[str, Answer], more: tuple[str, ...], code: int, line: str
) -> None:
    """And nothing is written for it."""
    with recorder(_statuses(answers)) as server:
        environ = {"VENDOR_URL": server.url, "VENDOR_API_KEY": SECRET, "VENDOR_RATE": "100/s"}
        found, said = _record(tmp_path, environ, *more)
    assert (found, line in said) == (code, True), said
    written = {path.name for path in (tmp_path / "cases").glob("*")}
    assert written == ({"troops.json"} if code == 3 else set())


class Picky(NewRelic):
    """Reads an application of one name alone."""

    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """As New Relic's, for one name."""
        parsed = NewRelic.parse(self, asset, planned, response)
        return parsed if b"Skunkworks" in response.body else replace(parsed, columns={})


def test_what_is_read_otherwise_with_invented_names_is_no_case() -> None:
    """It would not hold, or hold for another reason."""
    day = day_window(DAY, parse_time_zone("UTC"))
    disguise = Disguise(vocabulary=(), metrics=(), names=(), real=(), window=day)
    case = {
        "asset": "troops",
        "day": DAY.isoformat(),
        "pages": [{"headers": {}, "body": json.loads(ONE.body)}],
    }
    assert str(_kept(Picky(), case, disguise)).startswith("with invented names page 1 of troops is refused")
    disguise = Disguise(vocabulary=("applications", "id", "name"), metrics=(), names=(), real=(), window=day)
    assert "0 rows are read with invented names, 1 with the real ones" in _kept(Picky(), case, disguise)
    assert isinstance(_kept(NewRelic(), case, disguise), dict)


def test_a_folder_with_cases_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody's own work is written over; nothing is asked."""
    (tmp_path / "own.json").write_text("{}")
    assert main(["vendor", "record", str(tmp_path)]) == 2
    assert "give a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]


def test_what_is_cut_off_keeps_no_recording_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two of its files: there is no case, and the next recording has them all."""
    monkeypatch.chdir(tmp_path)
    written: list[Any] = []

    def cut_off(case: Any) -> str:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(case)
        return "{}"

    with simulator(world="small", churn=False) as vendor:
        for name, text in {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": vendor.key}.items():
            monkeypatch.setenv(name, text)
        with monkeypatch.context() as patched:
            patched.setattr("vendor_assets.cli.record._text", cut_off)
            with pytest.raises(KeyboardInterrupt):
                main(["vendor", "record", "cases"])
        assert not list(tmp_path.glob("cases/*.json"))
        assert main(["vendor", "record", "cases"]) == 0
    assert {path.name for path in tmp_path.glob("cases/*")} == {f"{asset}.json" for asset in ASSETS}
