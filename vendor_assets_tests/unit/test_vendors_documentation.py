"""The example of docs/vendors.md is a vendor that works."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vendor_assets.client.credentials import Credentials, Login
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import VendorProtocolError
from vendor_assets.secret import Secret
from vendor_assets.tables import TABLES
from vendor_assets.vendors.base import Asset, DataGroup, Parsed, PlannedRequest, Response, Vendor
from vendor_assets.vendors.cases import check_cases

DAY = day_window(date(2026, 11, 20), parse_time_zone("UTC"))
GUIDE = Path(__file__).parents[2] / "docs" / "vendors.md"


@pytest.fixture(scope="module")
def acme() -> Vendor:
    """The vendor of the guide."""
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(compile(code[1], str(GUIDE), "exec"), names)  # noqa: S102  our own guide
    vendor: Vendor = names["Acme"]()
    return vendor


def _planned(vendor: Vendor, asset: Asset) -> PlannedRequest:
    match asset:
        case "troops":
            return vendor.troops(DAY)
        case "warriors":
            return vendor.warriors("a/b", DAY)
        case "data_groups":
            return vendor.data_groups("a/b", "i", DAY)
    groups = [DataGroup(f"series {number}", ("value",)) for number in range(60)]
    planned = vendor.performance_data("a/b", "i", groups, DAY, 1800)
    assert [len(part.leaves) for part in planned] == [50, 10]
    return planned[0]


POINT = {"series": "cpu", "from": "2026-11-20T00:00:00+00:00", "to": "2026-11-20T00:30:00+00:00", "value": 1}


@pytest.mark.parametrize(
    ("asset", "good", "bad"),
    [
        ("troops", {"id": "a/b", "title": "A"}, {"title": "A"}),
        ("warriors", {"id": "i"}, {"id": 7}),
        ("data_groups", {"series": "cpu"}, {}),
        ("performance_data", POINT, POINT | {"value": "high"}),
    ],
)
def test_the_guides_vendor_reads_answers_into_tables(
    acme: Vendor, asset: Asset, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    """Good records fit the table's columns, bad ones are put aside, pages go on."""
    body = json.dumps({"items": [good, bad, None], "next_page": 2}).encode()
    planned = _planned(acme, asset)
    parsed = acme.parse(asset, planned, Response(200, {}, body, datetime(2026, 11, 22, tzinfo=UTC)))
    schema = TABLES[asset].schema
    table = pa.table(
        {name: pa.array(column, schema.field(name).type) for name, column in parsed.columns.items()}
    )
    assert table.num_rows == 1
    assert len(parsed.rejected) == 2
    assert parsed.next is not None
    assert parsed.next.key != planned.request.key


def test_the_guides_vendor_refuses_what_it_cannot_read(acme: Vendor) -> None:
    """Without its list, an answer says nothing."""
    with pytest.raises(VendorProtocolError):
        acme.parse("troops", acme.troops(DAY), Response(200, {}, b"{}", datetime(2026, 11, 22, tzinfo=UTC)))


def test_the_guides_vendor_knows_nothing_partial_and_gone(acme: Vendor) -> None:
    """Null is an empty list, a flag of truncation is told, and only a path with an id can be gone."""

    def parse(content: dict[str, Any]) -> Parsed:
        body = json.dumps(content).encode()
        return acme.parse(
            "troops", acme.troops(DAY), Response(200, {}, body, datetime(2026, 11, 22, tzinfo=UTC))
        )

    assert parse({"items": None}).columns["troop_id"] == []
    assert (parse({"items": []}).incomplete, bool(parse({"items": [], "truncated": True}).incomplete)) == (
        "",
        True,
    )
    said = '{"code": "gone"}'
    assert acme.says_gone(acme.warriors("a", DAY).request, said)
    assert not acme.says_gone(acme.warriors("a", DAY).request, "{}")
    assert not acme.says_gone(acme.troops(DAY).request, said)


def test_the_guides_ways_to_authenticate_are_accepted() -> None:
    """Each class of the guide makes headers or an auth that the client takes."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102  our own guide
    login = Login(
        "user", Secret("VENDOR_PASSWORD", "pass"), application_key=Secret("VENDOR_APPLICATION_KEY", "second")
    )
    key = Secret("VENDOR_API_KEY", "first")
    two = Credentials(key, Login(application_key=login.application_key), names["Two"]()).current()
    assert two.headers == {"DD-API-KEY": "first", "DD-APPLICATION-KEY": "second"}
    on_amazon = Credentials(key, Login(application_key=login.application_key), names["OnAmazon"]()).current()
    signed = on_amazon.sign("POST", "http://a.example/x", {}, b"{}", host="a.example")
    assert "Credential=first/" in signed.headers["Authorization"]
    assert "/eu-central-1/aps/aws4_request" in signed.headers["Authorization"]
    tokens = Credentials(Secret("VENDOR_API_KEY"), login, names["WithTokens"]()).current()
    assert tokens.lacks_token
    assert tokens.headers == {}


def test_its_case_is_read_as_it_says(acme: Vendor, tmp_path: Path) -> None:
    """The guide's case holds for the guide's vendor, and another value would be told."""
    case = re.search(r"```json\n(\{\n  \"asset\".*?)```", GUIDE.read_text(), re.DOTALL)
    assert case is not None
    (tmp_path / "case.json").write_text(case[1])
    assert check_cases(acme, tmp_path) == []
    (tmp_path / "case.json").write_text(case[1].replace('"value": 0.5}]\n}', '"value": 0.7}]\n}'))
    assert "no row" in check_cases(acme, tmp_path)[0]
