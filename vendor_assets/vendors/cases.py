"""Recorded or invented answers of a vendor, and what its dialect is expected to read in them.

A case is a JSON file; docs/vendors.md describes it. No server is needed::

    def test_cases():
        assert check_cases(Acme(), Path("cases")) == []
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import pyarrow as pa

from vendor_assets.days import Window, day_window, parse_day, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.tables import TABLES
from vendor_assets.vendors.base import (
    COLUMNS,
    Asset,
    DataGroup,
    Parsed,
    PlannedRequest,
    Request,
    Response,
    Vendor,
)

_EXPECTED: Final = ("rows", "failure", "verdict")
_VERDICTS: Final = ("throttled", "gone", "refused")
_OPTIONAL: Final = (
    "day",
    "time_zone",
    "troop_id",
    "warrior_id",
    "data_groups",
    "resolution_seconds",
    "request",
)
_FETCHED: Final = datetime(2026, 11, 21, tzinfo=UTC)


def check_cases(vendor: Vendor, folder: Path) -> list[str]:
    """What a dialect reads otherwise than its cases expect, a line each; empty where it reads all of them as expected.

    Raises:
        ConfigurationError: There are no cases, or a file is not one: which, and what is accepted.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ConfigurationError(f"no case in {str(folder)!r}; give a folder of JSON files")
    found: list[str] = []
    for path in paths:
        case = _read(path)
        try:
            found += [f"{path.name}: {what}" for what in _check(vendor, case, path.name)]
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  a stranger's code may raise anything
            said = " ".join(str(error).split())[:200]
            found.append(
                f"{path.name}: {type(error).__name__} is raised: {said}; expected is an answer that is read"
            )
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        case = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"case {path.name}: it is not JSON: {error}") from error
    if not isinstance(case, dict) or case.get("asset") not in get_args(Asset):
        raise ConfigurationError(f"case {path.name}: 'asset' is one of {', '.join(get_args(Asset))}")
    unknown = sorted(case.keys() - {"asset", "pages", *_EXPECTED, *_OPTIONAL})
    if unknown:
        raise ConfigurationError(
            f"case {path.name}: {unknown[0]!r} is unknown; accepted are {', '.join(_OPTIONAL)}"
        )
    pages = case.get("pages")
    if not isinstance(pages, list) or not pages or not all(isinstance(page, dict) for page in pages):
        raise ConfigurationError(
            f"case {path.name}: 'pages' is a list of objects with status, headers and body"
        )
    if len([name for name in _EXPECTED if name in case]) != 1:
        raise ConfigurationError(f"case {path.name}: give one of {', '.join(_EXPECTED)}")
    if "verdict" in case and case["verdict"] not in _VERDICTS:
        raise ConfigurationError(f"case {path.name}: 'verdict' is one of {', '.join(_VERDICTS)}")
    rows = case.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(f"case {path.name}: 'rows' is a list of objects, column to value")
    return case


def _check(vendor: Vendor, case: Mapping[str, Any], name: str) -> Iterator[str]:
    asset: Asset = case["asset"]
    planned = _planned(vendor, case, name)
    pages = [_response(page) for page in case["pages"]]
    if "verdict" in case:
        yield from _verdict(vendor, planned.request, pages[-1], case["verdict"])
        return
    rows: list[dict[str, object]] = []
    asked: list[Request] = [planned.request]
    for number, page in enumerate(pages, 1):
        where = f"page {number} of {asset}"
        answer = Response(
            page.status, page.headers, page.body, _FETCHED, asked[-1] if len(asked) > 1 else None
        )
        try:
            parsed = vendor.parse(asset, planned, answer)
            again = vendor.parse(asset, planned, answer)
        except VendorProtocolError as error:
            if str(case.get("failure", "\0")) not in str(error):
                expected = repr(case["failure"]) if "failure" in case else "an answer that is read"
                yield f"{where} is refused: {' '.join(str(error).split())[:200]}; expected is {expected}"
            return
        if repr(parsed) != repr(again):
            yield f"{where} is read otherwise the second time; expected is the same result"
        if parsed.wait_seconds is not None:
            if parsed.next or parsed.columns or parsed.wait_seconds < 0:
                yield f"{where} is not there yet and brings something; expected is a time to wait, from 0 on, alone"
            if number == len(pages):
                yield f"{where} is not there yet; expected is an answer after it"
            continue
        told = [parsed.incomplete, *(each.reason for each in parsed.failures)]
        if any(told):
            if str(case.get("failure", "\0")) not in "\n".join(told):
                expected = repr(case["failure"]) if "failure" in case else "a whole answer"
                yield f"{where} is not whole: {' '.join(filter(None, told))[:200]}; expected is {expected}"
            return
        wrong = list(_columns(asset, parsed))
        yield from (f"{where}: {each}" for each in wrong)
        if wrong:
            return
        rows += _rows(parsed)
        if parsed.next is None:
            if number < len(pages):
                yield f"{where} is taken for the last; expected are {len(pages)} pages"
            break
        if parsed.next.key in {each.key for each in asked}:
            yield f"{where} leads back to {parsed.next.key[:80]!r}; expected is a page that was not asked for"
            return
        if number == len(pages):
            yield f"{where} leads on to {parsed.next.key[:80]!r}; expected is that it is the last"
        asked.append(parsed.next)
    if "failure" in case:
        yield f"{asset} is read; expected is a failure that says {case['failure']!r}"
    else:
        yield from _compared(rows, case["rows"])


def _planned(vendor: Vendor, case: Mapping[str, Any], name: str) -> PlannedRequest:
    """The request that the case's first page answers."""
    day = _day(case)
    troop, warrior = str(case.get("troop_id", "1")), str(case.get("warrior_id", "1"))
    if case["asset"] == "troops":
        planned = [vendor.troops(day)]
    elif case["asset"] == "warriors":
        planned = [vendor.warriors(troop, day)]
    elif case["asset"] == "data_groups":
        planned = vendor.data_groups_of(troop, [warrior], day)
    else:
        told = case.get("data_groups")
        if not isinstance(told, dict) or not told:
            raise ConfigurationError(
                f"case {name}: 'data_groups' is an object, name to a list of value names"
            )
        groups = [DataGroup(group, tuple(values)) for group, values in told.items()]
        planned = vendor.performance_data_of(
            troop, {warrior: groups}, day, int(case.get("resolution_seconds", 3600))
        )
    number = case.get("request", 0)
    if not isinstance(number, int) or not 0 <= number < len(planned):
        message = f"case {name}: 'request' is {number!r}; {len(planned)} are planned, counted from 0"
        raise ConfigurationError(message)
    return planned[number]


def _day(case: Mapping[str, Any]) -> Window:
    zone = parse_time_zone(str(case.get("time_zone", "UTC")))
    return day_window(parse_day(str(case.get("day", "2026-11-20"))), zone)


def _response(page: Mapping[str, Any]) -> Response:
    body = page.get("body", "")
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {str(name).lower(): str(value) for name, value in page.get("headers", {}).items()}
    return Response(int(page.get("status", 200)), headers, text.encode(), _FETCHED)


def _verdict(vendor: Vendor, request: Request, page: Response, expected: str) -> Iterator[str]:
    if vendor.throttled(page.status, page.headers, page.body):
        found = "throttled"
    elif page.status in (404, 410) and vendor.says_gone(request, page.body.decode("utf-8", "replace")):
        found = "gone"
    else:
        found = "refused" if page.status >= 400 else "accepted"
    if found != expected:
        yield f"status {page.status} is {found}; expected is {expected}"


def _columns(asset: Asset, parsed: Parsed) -> Iterator[str]:
    """What does not fit the table."""
    columns = parsed.columns
    if not columns:
        return
    if set(columns) != set(COLUMNS[asset]):
        yield f"its columns are {', '.join(sorted(columns))}; expected are {', '.join(COLUMNS[asset])}"
        return
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        yield f"its columns have the lengths {lengths}; expected is one length"
        return
    for name, values in columns.items():
        field = TABLES[asset].schema.field(name)
        if pa.types.is_timestamp(field.type) and any(
            isinstance(value, datetime) and value.tzinfo is None for value in values
        ):
            yield f"column {name!r} has datetimes without a time zone; expected are aware ones"
            continue
        try:
            array = pa.array(values, type=field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            yield f"column {name!r} does not fit: {' '.join(str(error).split())[:120]}; expected is {field.type}"
            continue
        if array.null_count and not field.nullable:
            yield f"column {name!r} has nulls; expected is a value in each row"


def _rows(parsed: Parsed) -> list[dict[str, object]]:
    names = list(parsed.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*parsed.columns.values(), strict=True)]


def _compared(rows: list[dict[str, object]], expected: list[dict[str, object]]) -> Iterator[str]:
    """Differences in the columns that the case names; the order of rows is free."""
    named = {name for row in expected for name in row}
    read = [_text({name: value for name, value in row.items() if name in named}) for row in rows]
    for row in expected:
        text = _text(row)
        if text in read:
            read.remove(text)
        else:
            yield f"no row {text[:200]} is read; expected is one"
    if read and (expected or rows):
        yield f"{len(read)} more rows are read, like {read[0][:200]}; expected are {len(expected)}"


def _text(row: Mapping[str, object]) -> str:
    return json.dumps({name: _plain(name, value) for name, value in row.items()}, sort_keys=True)


def _plain(name: str, value: object) -> object:
    """A value in the one form in which both sides are compared: times in UTC, numbers as floats."""
    if name.startswith("timeslice_"):
        if isinstance(value, int):
            return datetime.fromtimestamp(value / 1e6, UTC).isoformat()
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else value
    if name in ("value", "weight") and isinstance(value, int):
        return float(value)
    return list(value) if isinstance(value, tuple) else value
