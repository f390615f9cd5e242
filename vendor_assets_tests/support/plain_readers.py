"""What the dialects' quick readings are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from vendor_assets.errors import VendorProtocolError
from vendor_assets.vendors.base import COLUMNS, Parsed, PlannedRequest, Response, Vendor
from vendor_assets.vendors.datadog import _by_tag, _Document, _number, _Points, _whose


def assert_read_alike(vendor: Vendor, quick: type, planned: PlannedRequest, answer: Response) -> None:
    """The quick reading says what the thorough one says: rows, refusals, and on arrival the verdict.

    Args:
        quick: The class whose ``read`` says None of an answer that is to be read thoroughly.
    """

    def said(read: Callable[..., Parsed], *, rows: bool = True) -> str:
        try:
            parsed = read("performance_data", planned, answer)
        except VendorProtocolError as error:
            return f"refused: {error}"
        if rows:
            return repr(replace(parsed, columns=parsed.lists()))
        return repr((parsed.next, parsed.incomplete, parsed.failures, parsed.wait_seconds))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick, "read", lambda *_: None)
        thorough, verdict = said(vendor.parse), said(vendor.parse, rows=False)
    assert said(vendor.parse) == thorough
    assert said(vendor.judge, rows=False) == verdict


def datadog_points(content: Mapping[str, Any], planned: PlannedRequest) -> Parsed:
    """Points of Datadog; refuses what :meth:`Datadog.parse` refuses."""
    found = _Points.read(content, planned)
    document = _Document.of(planned)
    asked = [
        (unit, f"{how}:{metric}", _by_tag(unit.hosts)) for unit in document.units for how, metric in unit.asks
    ]
    parsed = Parsed({name: [] for name in COLUMNS["performance_data"]}, incomplete=found.misfit)
    seen: set[tuple[int, str]] = set()
    for one, values in zip(found.series, found.values, strict=True):
        index, tag = _whose(one)
        unit, value_name, by_tag = asked[index] if 0 <= index < len(asked) else (None, "", {})
        host = by_tag.get(tag, by_tag.get(tag.lower()))
        if unit is None or host is None:
            parsed.reject("the series is of no query and host that were asked for", one)
        elif (index, host) in seen:
            parsed.reject("the series comes twice", one)
        elif not isinstance(values, list) or len(values) != len(found.times):
            parsed.reject("the series does not have as many values as there are times", one)
        else:
            seen.add((index, host))
            for time, value in zip(found.times, values, strict=True):
                number = _number(value)
                if number is not None:
                    start, end = time * 1_000_000, min(time + found.step, found.end) * 1_000_000
                    row = (host, unit.group, value_name, start, end, number, None)
                    for name, each in zip(COLUMNS["performance_data"], row, strict=True):
                        parsed.columns[name].append(each)
                elif value is not None:
                    record = {"host": host, "value_name": value_name, "time": time * 1000, "value": value}
                    parsed.reject("the value is not a finite number", record)
    return parsed
