"""Recorded or invented answers of a vendor, and what its dialect is expected to read in them.

A case is a JSON file; docs/vendors.md describes it. No server is needed::

    def test_cases():
        assert check_cases(Acme(), Path("cases")) == []
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast, get_args

import pyarrow as pa

from vendor_assets.days import Window, day_window, parse_day, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.presentable import presentable
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
    is_name,
)

_EXPECTED: Final = ("rows", "failure", "verdict")
_VERDICTS: Final = ("throttled", "gone", "refused")
_GROUPS: Final = "an object, name to a list of value names"


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
        try:
            case = _read(path)
            found += [f"{path.name}: {what}" for what in check_case(vendor, case)]
        except ConfigurationError as error:
            raise ConfigurationError(f"case {path.name}: {' '.join(str(error).split())}") from error
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
        raise ConfigurationError(f"it is not JSON: {error}") from error
    if not isinstance(case, dict) or "asset" not in case:
        raise ConfigurationError("it is no object with 'asset', 'pages' and what is expected")
    for name, value in case.items():
        if name not in _FORMS:
            raise ConfigurationError(
                f"{presentable(name, 40)!r} is unknown; accepted are {', '.join(_FORMS)}"
            )
        fits, accepted = _FORMS[name]
        if not fits(value):
            raise ConfigurationError(f"{name!r} is {accepted}, not {presentable(json.dumps(value), 60)}")
    if "pages" not in case:
        raise ConfigurationError(f"'pages' is missing; it is {_FORMS['pages'][1]}")
    if len([name for name in _EXPECTED if name in case]) != 1:
        raise ConfigurationError(f"give one of {', '.join(_EXPECTED)}")
    if case["asset"] == "performance_data" and "data_groups" not in case:
        raise ConfigurationError(f"'data_groups' is {_GROUPS}, and is missing")
    columns = COLUMNS[case["asset"]]
    if unknown := sorted({name for row in case.get("rows", ()) for name in row} - {*columns}):
        raise ConfigurationError(
            f"'rows' has {presentable(unknown[0], 40)!r}; accepted are {', '.join(columns)}"
        )
    return case


def _is_text(value: object) -> bool:
    return value == "" or is_name(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, float) or (_is_whole(value) and abs(cast("int", value)) < 1e300)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).astimezone(UTC).year > 1
    except (ValueError, OverflowError):
        return False


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_pages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_page, value))


def _is_page(page: object) -> bool:
    if not isinstance(page, dict) or page.keys() - {"status", "headers", "body"}:
        return False
    status, headers, body = page.get("status", 200), page.get("headers", {}), page.get("body", "")
    known = _is_whole(status) and 100 <= status < 600 and isinstance(headers, dict)
    return known and all(map(_is_text, headers.values())) and (not isinstance(body, str) or _is_text(body))


def _is_row(row: object) -> bool:
    if not isinstance(row, dict):
        return False
    forms = {"value": _is_number, "weight": _is_number, "value_names": _are_texts}
    forms |= {"timeslice_start": _is_time, "timeslice_end": _is_time}
    return all(
        forms.get(name, lambda each: each is None or _is_text(each))(value) for name, value in row.items()
    )


_FORMS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "asset": (lambda value: value in get_args(Asset), f"one of {', '.join(get_args(Asset))}"),
    "day": (_is_text, "a date like 2026-11-20"),
    "time_zone": (_is_text, "a time zone's name like UTC"),
    "asked_at": (_is_time, "a time like 2026-11-21T00:00:00Z"),
    "troop_id": (_is_text, "a text"),
    "warrior_id": (_is_text, "a text"),
    "data_groups": (
        lambda value: isinstance(value, dict) and bool(value) and all(map(_are_texts, value.values())),
        _GROUPS,
    ),
    "resolution_seconds": (lambda value: _is_whole(value) and value > 0, "a whole number from 1 on"),
    "request": (lambda value: _is_whole(value) and value >= 0, "a whole number from 0 on"),
    "more": (lambda value: isinstance(value, bool), "true or false"),
    "pages": (_are_pages, "a list of objects with status (a number), headers (texts) and body"),
    "rows": (
        lambda value: isinstance(value, list) and all(map(_is_row, value)),
        "a list of objects, column to value, with times as texts",
    ),
    "failure": (is_name, "a part of the message"),
    "verdict": (lambda value: value in _VERDICTS, f"one of {', '.join(_VERDICTS)}"),
}
"""What a case may hold, whether a value fits, and what is accepted."""


def check_case(vendor: Vendor, case: Mapping[str, Any]) -> Iterator[str]:
    """What of one case is read otherwise than expected."""
    if "verdict" in case:
        planned, pages = _asked(vendor, case)
        yield from _verdict(vendor, planned.request, pages[-1], case["verdict"])
        return
    reading = read_pages(vendor, case)
    failure = case.get("failure")
    yield from reading.wrong
    if reading.refused:
        if failure is None or failure not in reading.said:
            yield f"{reading.refused}; expected is {'an answer that is read' if failure is None else repr(failure)}"
    elif failure is not None:
        yield f"{case['asset']} is read; expected is a failure that says {failure!r}"
    elif not reading.wrong:
        yield from _compared(reading.rows, case["rows"])


@dataclass
class Reading:
    """What a dialect reads in the pages of a case.

    Attributes:
        rows: Of all pages, column to value.
        aside: How many records do not fit the table.
        refused: Which page is no answer, or not a whole one, and why; empty where each is.
        said: The dialect's own words for that.
        wrong: What no dialect may do, a line each.
    """

    rows: list[dict[str, object]] = field(default_factory=list)
    aside: int = 0
    refused: str = ""
    said: str = ""
    wrong: list[str] = field(default_factory=list)

    def refuse(self, what: str, said: str) -> Reading:
        """Note that a page is no whole answer."""
        self.refused, self.said = f"{what}: {' '.join(said.split())[:200]}", said
        return self


def read_pages(vendor: Vendor, case: Mapping[str, Any]) -> Reading:
    """Read the pages of a case, each twice, and the way from one to the next.

    Raises:
        ConfigurationError: The case asks for something that the dialect does not plan.
    """
    asset: Asset = case["asset"]
    planned, pages = _asked(vendor, case)
    reading = Reading()
    asked: list[Request] = [planned.request]
    for number, page in enumerate(pages, 1):
        where = f"page {number} of {asset}"
        answer = replace(page, asked=asked[-1] if len(asked) > 1 else None)
        try:
            parsed = vendor.parse(asset, planned, answer)
            again = vendor.parse(asset, planned, answer)
            judged = vendor.judge(asset, planned, answer)
        except VendorProtocolError as error:
            return reading.refuse(f"{where} is refused", str(error))
        if _shown(parsed) != _shown(again):
            reading.wrong.append(f"{where} is read otherwise the second time; expected is the same result")
        if _verdict_of(judged) != _verdict_of(parsed):
            reading.wrong.append(f"{where} is judged otherwise than it is read; expected is the same verdict")
        if parsed.wait_seconds is not None:
            if parsed.next or parsed.columns or parsed.wait_seconds < 0:
                reading.wrong.append(
                    f"{where} is not there yet and brings something; expected is a time to wait, from 0 on, alone"
                )
            if number == len(pages):
                reading.wrong.append(f"{where} is not there yet; expected is an answer after it")
            continue
        if any(each.means == "throttled" for each in parsed.failures) and not vendor.throttled(
            page.status, page.headers, page.body
        ):
            reading.wrong.append(
                f"{where} has a failure that means throttled, but `throttled` says no to it; expected is yes"
            )
        told = [parsed.incomplete, *(each.reason for each in parsed.failures)]
        if any(told):
            return reading.refuse(f"{where} is not whole", "\n".join(filter(None, told)))
        wrong = [f"{where}: {each}" for each in _columns(asset, parsed)]
        reading.wrong += wrong
        if wrong:
            break
        reading.rows += _rows(parsed)
        reading.aside += len(parsed.rejected) + parsed.more_rejected
        last = number == len(pages)
        if parsed.next is None:
            if not last or case.get("more"):
                expected = "one more" if last else f"{len(pages)} pages"
                reading.wrong.append(f"{where} is taken for the last; expected are {expected}")
            break
        if parsed.next.key in {each.key for each in asked}:
            reading.wrong.append(
                f"{where} leads back to {parsed.next.key[:80]!r}; expected is a page that was not asked for"
            )
            break
        if last and not case.get("more"):
            reading.wrong.append(
                f"{where} leads on to {parsed.next.key[:80]!r}; expected is that it is the last"
            )
        asked.append(parsed.next)
    return reading


def _asked(vendor: Vendor, case: Mapping[str, Any]) -> tuple[PlannedRequest, list[Response]]:
    """The request that the case's first page answers, and its pages."""
    moment = _asked_at(case)
    return planned_request(vendor, case), [_response(page, moment) for page in case["pages"]]


def planned_request(vendor: Vendor, case: Mapping[str, Any]) -> PlannedRequest:
    """The request that a case's first page answers.

    Raises:
        ConfigurationError: The dialect plans none for what the case says.
    """
    day, vendor = _day(case), vendor.at(_asked_at(case))
    troop, warrior = case.get("troop_id", "1"), case.get("warrior_id", "1")
    if case["asset"] == "troops":
        planned = [vendor.troops(day)]
    elif case["asset"] == "warriors":
        planned = [vendor.warriors(troop, day)]
    elif case["asset"] == "data_groups":
        planned = vendor.data_groups_of(troop, [warrior], day)
    else:
        groups = [DataGroup(group, tuple(values)) for group, values in case["data_groups"].items()]
        resolution = case.get("resolution_seconds", 3600)
        planned = vendor.performance_data_of(troop, {warrior: groups}, day, resolution)
    number: int = case.get("request", 0)
    if number >= len(planned):
        raise ConfigurationError(f"'request' is {number}; {len(planned)} are planned, counted from 0")
    return planned[number]


def _asked_at(case: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(case["asked_at"]) if "asked_at" in case else _day(case).end


def _day(case: Mapping[str, Any]) -> Window:
    zone = parse_time_zone(case.get("time_zone", "UTC"))
    return day_window(parse_day(case.get("day", "2026-11-20")), zone)


def _response(page: Mapping[str, Any], fetched_at: datetime) -> Response:
    body = page.get("body", "")
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {name.lower(): value for name, value in page.get("headers", {}).items()}
    return Response(page.get("status", 200), headers, text.encode(), fetched_at)


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
    columns = parsed.lists()
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


def _shown(parsed: Parsed) -> str:
    return repr(replace(parsed, columns=parsed.lists()))


def _verdict_of(parsed: Parsed) -> tuple[object, ...]:
    return parsed.next, parsed.incomplete, parsed.failures, parsed.wait_seconds


def _rows(parsed: Parsed) -> list[dict[str, object]]:
    columns = parsed.lists()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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
    return json.dumps({name: plain(name, value) for name, value in row.items()}, sort_keys=True)


def plain(name: str, value: object) -> object:
    """A value in the one form in which both sides are compared: times in UTC, numbers as floats."""
    if name.startswith("timeslice_"):
        if isinstance(value, int):
            return datetime.fromtimestamp(value / 1e6, UTC).isoformat()
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else value
    if name in ("value", "weight") and isinstance(value, int):
        return float(value)
    return list(value) if isinstance(value, tuple) else value
