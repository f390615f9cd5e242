"""Cases of answers: what a dialect reads is compared with what the author expects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vendor_assets import vendors
from vendor_assets.cli import main
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors.base import Asset, Failure, Parsed, PlannedRequest, Request, Response
from vendor_assets.vendors.cases import check_cases
from vendor_assets.vendors.conformance import CHECKS, VendorConformance
from vendor_assets.vendors.new_relic import NewRelic

CASES = Path(__file__).parents[1] / "cases"
LINK = '<https://api.newrelic.com/v2/applications.json?page=2>; rel="next"'
ONE = {"applications": [{"id": 7, "name": "Checkout"}]}
TWO = {"applications": [{"id": 8, "name": "Search"}]}
PAGED: dict[str, Any] = {
    "asset": "troops",
    "pages": [{"headers": {"Link": LINK}, "body": ONE}, {"body": TWO}],
    "rows": [{"troop_id": "8", "name": "Search"}, {"troop_id": "7", "name": "Checkout"}],
}
SINGLE = {"asset": "troops", "pages": [{"body": TWO}], "rows": [{"troop_id": "8"}]}
SLOW = {"asset": "troops", "pages": [{"status": 429}], "verdict": "throttled"}
DATA = {"asset": "performance_data", "data_groups": {"Apdex": ["score"]}, "pages": [{}], "rows": []}
HTML = {"asset": "troops", "pages": [{"body": "<html>"}], "failure": "not JSON"}


def _found(folder: Path, case: object, vendor: NewRelic | None = None) -> list[str]:
    (folder / "case.json").write_text(case if isinstance(case, str) else json.dumps(case))
    return check_cases(vendor or NewRelic(), folder)


@pytest.mark.parametrize("case", [PAGED, SINGLE, SLOW, HTML])
def test_what_is_read_as_expected_is_no_finding(tmp_path: Path, case: dict[str, Any]) -> None:
    """Rows in any order, by the columns that are named; a failure by a part of its text."""
    assert _found(tmp_path, case) == []


def _reads(change: Callable[[Parsed], Parsed]) -> NewRelic:
    def parse(self: NewRelic, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        return change(NewRelic.parse(self, asset, planned, response))

    broken: NewRelic = type("Broken", (NewRelic,), {"parse": parse})()
    return broken


def _judges(change: Callable[[Parsed], Parsed]) -> NewRelic:
    def judge(self: NewRelic, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        return change(NewRelic.judge(self, asset, planned, response))

    broken: NewRelic = type("Broken", (NewRelic,), {"judge": judge})()
    return broken


def _column(name: str, values: list[object]) -> NewRelic:
    return _reads(lambda parsed: replace(parsed, columns=parsed.columns | {name: values}))


def _raises(error: Exception) -> NewRelic:
    def change(parsed: Parsed) -> Parsed:
        raise error

    return _reads(change)


_COUNTED = iter(range(1_000_000))
BACK = Request("/v2/applications.json", (("page", "2"),), "applications")


@pytest.mark.parametrize(
    ("case", "vendor", "line"),
    [
        (SINGLE | {"rows": [{"troop_id": "9"}]}, NewRelic(), "no row"),
        (SINGLE | {"rows": []}, NewRelic(), "1 more rows"),
        (SINGLE | {"failure": "gone"}, NewRelic(), "expected is a failure"),
        (HTML | {"failure": "too slow"}, NewRelic(), "expected is 'too slow'"),
        (SLOW | {"verdict": "refused"}, NewRelic(), "status 429 is throttled; expected is refused"),
        (PAGED, _reads(lambda parsed: replace(parsed, next=None)), "is taken for the last"),
        (SINGLE, _reads(lambda parsed: replace(parsed, next=BACK)), "leads on"),
        (PAGED, _reads(lambda parsed: replace(parsed, next=BACK)), "leads back"),
        (SINGLE, _reads(lambda parsed: replace(parsed, incomplete="half")), "is not whole: half"),
        (SINGLE, _reads(lambda parsed: replace(parsed, columns={"id": []})), "its columns are id"),
        (
            SINGLE,
            _reads(lambda parsed: Parsed(failures=[Failure(("troops",), "throttled", "slow down")])),
            "`throttled` says no to it",
        ),
        (SINGLE, _column("name", []), "expected is one length"),
        (SINGLE, _column("troop_id", [8]), "expected is string"),
        (SINGLE, _column("troop_id", [None]), "has nulls"),
        (
            SINGLE,
            _reads(lambda parsed: replace(parsed, new_fields=(str(next(_COUNTED)),))),
            "the second time",
        ),
        (SINGLE, _judges(lambda parsed: replace(parsed, incomplete="half")), "is judged otherwise"),
        (SINGLE, _raises(KeyError("applications")), "KeyError is raised"),
        (SINGLE, _raises(VendorProtocolError("no list")), "is refused: no list"),
    ],
)
def test_what_is_read_otherwise_is_a_line(
    tmp_path: Path, case: dict[str, Any], vendor: NewRelic, line: str
) -> None:
    """It names the file, what was found and what is expected."""
    if "failure" in case or "verdict" in case:
        case = {name: value for name, value in case.items() if name != "rows"}
    found = _found(tmp_path, case, vendor)
    assert line in "\n".join(found)
    assert all(each.startswith("case.json: ") and "\n" not in each for each in found)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("{", "it is not JSON"),
        (SINGLE | {"asset": "armies"}, "'asset' is one of"),
        (SINGLE | {"row": []}, "'row' is unknown"),
        (SINGLE | {"pages": []}, "'pages' is a list"),
        (SINGLE | {"failure": "x"}, "give one of"),
        (SINGLE | {"request": 3}, "1 are planned"),
        (SINGLE | {"day": "soon"}, "is not a date"),
        ({"asset": "troops", "pages": [{}], "verdict": "fine"}, "'verdict' is one of"),
        ({"asset": "performance_data", "pages": [{}], "rows": []}, "'data_groups' is an object"),
        ([], "it is no object"),
        ({"asset": ["troops"], "pages": [{}], "rows": []}, "'asset' is one of"),
        ({"asset": "troops", "rows": []}, "'pages' is missing"),
        (SINGLE | {"day": 20261120}, "'day' is a date"),
        (SINGLE | {"time_zone": "Mars/Olympus"}, "is unknown"),
        (SINGLE | {"asked_at": "noon"}, "'asked_at' is a time"),
        (SINGLE | {"asked_at": "9999-12-31T23:59:59-23:00"}, "'asked_at' is a time"),
        (SINGLE | {"asset": "warriors", "troop_id": 7}, "'troop_id' is a text, not 7"),
        (SINGLE | {"request": "0"}, "'request' is a whole number"),
        (SINGLE | {"request": True}, "'request' is a whole number"),
        (SINGLE | {"request": -1}, "'request' is a whole number"),
        (SINGLE | {"more": 1}, "'more' is true or false"),
        (SINGLE | {"pages": [{"status": "200"}]}, "'pages' is a list"),
        (SINGLE | {"pages": [{"status": 2000}]}, "'pages' is a list"),
        (SINGLE | {"pages": [{"headers": ["Link"]}]}, "'pages' is a list"),
        (SINGLE | {"pages": [{"headers": {"Link": None}}]}, "'pages' is a list"),
        (SINGLE | {"pages": [{"body": "\ud800"}]}, "'pages' is a list"),
        (SINGLE | {"pages": [{"bodies": {}}]}, "'pages' is a list"),
        (SINGLE | {"rows": {}}, "'rows' is a list"),
        (SINGLE | {"rows": [{"troop": "8"}]}, "'rows' has 'troop'; accepted are troop_id"),
        (SINGLE | {"rows": [{"troop_id": 8}]}, "'rows' is a list"),
        ({"asset": "troops", "pages": [{}], "failure": None}, "'failure' is a part"),
        ({"asset": "troops", "pages": [{}], "failure": ""}, "'failure' is a part"),
        (DATA | {"data_groups": {}}, "'data_groups' is an object"),
        (DATA | {"data_groups": {"Apdex": "score"}}, "'data_groups' is an object"),
        (DATA | {"resolution_seconds": 0}, "'resolution_seconds' is a whole number"),
        (DATA | {"resolution_seconds": 90}, "resolution 90 s is not available"),
        (DATA | {"rows": [{"timeslice_start": "soon"}]}, "'rows' is a list"),
        (DATA | {"rows": [{"value": "0.5"}]}, "'rows' is a list"),
        (DATA | {"rows": [{"value": 10**400}]}, "'rows' is a list"),
        (DATA | {"data_groups": {"Apdex": []}}, "0 are planned"),
    ],
)
def test_a_file_that_is_no_case_is_refused(tmp_path: Path, case: object, said: str) -> None:
    """In one line that says what is accepted."""
    with pytest.raises(ConfigurationError, match=re.escape(said)) as refused:
        _found(tmp_path, case)
    assert str(refused.value).startswith("case case.json: ")
    assert "\n" not in str(refused.value)


def test_the_command_takes_a_folder_of_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 where they are read as expected, 1 with a line where not, 2 where a file is no case."""
    for case, code, line in (
        (PAGED, 0, f"{len(CHECKS) + 1} of {len(CHECKS) + 1} checks passed"),
        (SINGLE | {"rows": []}, 1, "cases: case.json: 1 more rows"),
        ({"asset": "armies"}, 2, "case case.json: 'asset' is one of"),
    ):
        (tmp_path / "case.json").write_text(json.dumps(case))
        assert main(["vendor", "check", "new_relic", "--cases", str(tmp_path)]) == code
        printed = capsys.readouterr()
        assert line in printed.out + printed.err
        assert "Traceback" not in printed.out + printed.err


def test_the_class_of_tests_takes_a_folder_of_cases(tmp_path: Path) -> None:
    """A case that is read otherwise fails its test."""
    (tmp_path / "case.json").write_text(json.dumps(SINGLE | {"rows": []}))
    suite = type("Suite", (VendorConformance,), {"vendor": NewRelic(), "cases": tmp_path})()
    with pytest.raises(AssertionError, match="1 more rows"):
        suite.test_cases()


@pytest.mark.parametrize("kind", sorted(path.name for path in CASES.iterdir()))
def test_our_own_dialects_read_their_cases(kind: str) -> None:
    """What ``vendor record`` made of the embedded vendor and a real Prometheus, and each kind of failure, invented."""
    assert check_cases(vendors.make(kind, "1234567"), CASES / kind) == []
    paths = list((CASES / kind).iterdir())
    cases = [json.loads(path.read_text()) for path in paths]
    recorded = {path.stem.removeprefix("recorded_") for path in paths}
    assert recorded >= {"troops", "warriors", "data_groups", "performance_data"}
    failures = {"throttled", "refused_key", "refused_request", "too_large", "wrong_address", "other_times"}
    assert recorded >= {*failures, "empty_troops", "null_values"}
    assert {case.get("verdict") for case in cases} >= {"throttled", "refused"}


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    """Nothing would have been checked."""
    with pytest.raises(ConfigurationError, match="no case in"):
        check_cases(NewRelic(), tmp_path)
