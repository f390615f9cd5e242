"""Whether a dialect keeps what every vendor promises, found out without its server.

Each check asks the class alone: it builds requests for hostile names, odd days and every resolution, splits them down,
and reads answers that are garbage. ``vendor-assets vendor check`` runs them; with pytest a package inherits them::

    class TestAcme(VendorConformance):
        vendor = Acme()
"""

from __future__ import annotations

import builtins
import io
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest.mock import patch

from vendor_assets.days import Window, day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors.base import Asset, DataGroup, PlannedRequest, Request, Response, Vendor
from vendor_assets.vendors.cases import check_cases

HOSTILE: Final = (
    "plain", "a b", "it's", 'a"b', "a,b", "a/b", "..", "a\\b", "100%", "a|b", "line\nend", "ümlaut 🎈", "x" * 500,
)  # fmt: skip
_KEY: Final = "conformance-secret-key"
_DAYS: Final = (
    (date(2026, 11, 20), "UTC"),
    (date(2026, 3, 8), "America/New_York"),
    (date(2026, 11, 1), "America/New_York"),
    (date(2026, 11, 20), "Asia/Kathmandu"),
)
_RESOLUTIONS: Final = (60, 600, 1800, 3600)
_GARBAGE: Final = (
    b"", b"<!doctype html><html></html>", b"[]", b"null", b'"x"', b'{"a":', b"\xff\xfe", b"[" * 100_000,
)  # fmt: skip
_ASSETS: Final[tuple[Asset, ...]] = ("troops", "warriors", "data_groups", "performance_data")
_MOST_PARTS: Final = 20_000
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Finding:
    """What a dialect does not keep: which check, where, and what is expected."""

    check: str
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.what}"


def _day(of: date = _DAYS[0][0], zone: str = "UTC") -> Window:
    return day_window(of, parse_time_zone(zone))


def _groups(names: Sequence[str] = HOSTILE) -> list[DataGroup]:
    return [DataGroup(name, ("average_response_time", "call_count", name)) for name in names]


def _resolutions(vendor: Vendor) -> list[int]:
    found = []
    for seconds in _RESOLUTIONS:
        try:
            vendor.check_resolution(seconds)
        except ConfigurationError:
            continue
        found.append(seconds)
    return found or [3600]


def _data(vendor: Vendor, day: Window | None = None, resolution: int = 0) -> list[PlannedRequest]:
    resolution = resolution or _resolutions(vendor)[-1]
    return vendor.performance_data("7", "8", _groups(), day or _day(), resolution)


def _all(vendor: Vendor) -> dict[str, list[PlannedRequest]]:
    """Requests of each asset, for hostile names."""
    day = _day()
    return {
        "troops": [vendor.troops(day)],
        "warriors": [vendor.warriors(name, day) for name in HOSTILE],
        "data_groups": [vendor.data_groups(name, name, day) for name in HOSTILE],
        "performance_data": _data(vendor),
    }


def _requests(vendor: Vendor) -> Iterator[Request]:
    yield vendor.probe()
    for planned in _all(vendor).values():
        for each in planned:
            yield each.request


def _declarations(vendor: Vendor) -> Iterator[str]:
    declared: Any = vendor
    kind, title = getattr(vendor, "kind", None), getattr(vendor, "title", None)
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        yield f"kind is {kind!r}; give a name in lower-case letters, digits and underscores"
    if not isinstance(title, str) or not title.strip():
        yield f"title is {title!r}; give its name for people"
    if not isinstance(declared.documented_limits, tuple):
        yield f"documented_limits is {vendor.documented_limits!r}; give a tuple of texts like '1000/min'"
    if vendor.rosters not in {"current", "historical"}:
        yield f"rosters is {vendor.rosters!r}; accepted are 'current' and 'historical'"
    if any(name != name.lower() for name in vendor.page_headers):
        yield f"page_headers is {vendor.page_headers!r}; names are in lower case"
    if vendor.most_in_flight is not None and vendor.most_in_flight < 1:
        yield f"most_in_flight is {vendor.most_in_flight!r}; give 1 or more, or None"


def _request_forms(vendor: Vendor) -> Iterator[str]:
    for request in _requests(vendor):
        where = f"{request.method} {request.path[:80]!r}"
        if not request.path.startswith("/") or not request.path.isascii() or " " in request.path:
            yield f"{where} is no path; it begins with a slash and is percent-encoded"
        if not request.endpoint:
            yield f"{where} has no endpoint; name it for limits and counts"
        if request.method == "GET" and request.body:
            yield f"{where} is a GET with a body"
        pairs = (*request.params, *request.headers)
        if not all(isinstance(part, str) for pair in pairs for part in pair):
            yield f"{where} has a parameter or a header that is no text"
        counted: Mapping[str, Any] = vendor.counts(request)
        if not all(isinstance(number, int) and number >= 0 for number in counted.values()):
            yield f"{where} counts {dict(counted)!r}; give whole numbers from 0 on"


def _keys(vendor: Vendor) -> Iterator[str]:
    first = [request.key for request in _requests(vendor)]
    again = [request.key for request in _requests(vendor)]
    if first != again:
        yield "the keys of the same questions differ when they are built again"
    plans = _all(vendor)
    for asset, planned in plans.items():
        keys = [each.request.key for each in planned]
        if len(set(keys)) < len(keys):
            yield f"different questions of {asset} have one key; path, parameters or body must tell them apart"
    if any(_KEY in key for key in first):
        yield "the API key is in a request's key"


def _leaves(vendor: Vendor) -> Iterator[str]:
    names = {group.name for group in _groups()}
    planned = _data(vendor)
    keys = [leaf.key for each in planned for leaf in each.leaves]
    by_key = {leaf.key: leaf for each in planned for leaf in each.leaves}
    asked = {leaf.data_group for leaf in by_key.values()}
    if asked != names:
        yield f"no leaf for {sorted(names - asked)[:3]!r}, or for more than was asked"
    owners = {(leaf.warrior_id, leaf.data_group, leaf.window) for leaf in by_key.values()}
    if len(owners) != len(by_key):
        yield "two leaves with different keys stand for the same data group and window"
    singly = {
        leaf.key
        for group in _groups()
        for each in vendor.performance_data("7", "8", [group], _day(), _resolutions(vendor)[-1])
        for leaf in each.leaves
    }
    if singly != set(keys):
        yield "the keys of leaves change with how data groups are put together"
    for asset, single in (("troops", "troops"), ("warriors", "warriors")):
        found = [leaf.key for each in _all(vendor)[asset][:1] for leaf in each.leaves]
        if found != [single]:
            yield f"the leaves of {asset} are {found!r}; expected is [{single!r}]"
    if [leaf.key for leaf in vendor.data_groups("7", "8", _day()).leaves] != ["8"]:
        yield "the leaf of data_groups is not the warrior's id"


def _days_are_covered(vendor: Vendor) -> Iterator[str]:
    for of, zone in _DAYS:
        for resolution in _resolutions(vendor):
            day = _day(of, zone)
            planned = vendor.performance_data("7", "8", _groups(["m"]), day, resolution)
            windows = sorted(
                {
                    (leaf.window.start, leaf.window.end)
                    for each in planned
                    for leaf in each.leaves
                    if leaf.window
                }
            )
            if not windows:
                yield f"{of} in {zone} at {resolution} s: no leaf has a window"
                continue
            step = timedelta(seconds=resolution)
            gaps = [a for (_, a), (b, _) in pairwise(windows) if a != b]
            if gaps or windows[0][0] >= day.start + step or windows[-1][1] <= day.end - step:
                yield f"{of} in {zone} at {resolution} s: the leaves' windows do not cover the day"


def _splits(vendor: Vendor) -> Iterator[str]:
    waiting, parts_seen = list(_data(vendor)), 0
    while waiting:
        planned = waiting.pop()
        parts = vendor.split(planned)
        parts_seen += len(parts)
        if parts_seen > _MOST_PARTS:
            yield f"splitting does not end: after {_MOST_PARTS} parts there are still more"
            return
        if not parts:
            continue
        keys = {part.request.key for part in parts}
        if len(keys) < len(parts) or planned.request.key in keys:
            yield f"a part of {planned.request.key[:80]!r} has the key of the whole or of another part"
            return
        if {leaf.key for part in parts for leaf in part.leaves} != {leaf.key for leaf in planned.leaves}:
            yield f"the parts of {planned.request.key[:80]!r} have other leaves than the whole"
            return
        if len(planned.leaves) > 1:
            waiting += [part for part in parts if len(part.leaves) > 1]


def _resolution(vendor: Vendor) -> Iterator[str]:
    for seconds in (0, -60):
        try:
            vendor.check_resolution(seconds)
        except ConfigurationError as error:
            if "\n" in str(error):
                yield f"the refusal of {seconds} s has several lines"
        else:
            yield f"a resolution of {seconds} s is accepted"


def _answers(vendor: Vendor) -> Iterator[str]:
    for asset in _ASSETS:
        planned = _all(vendor)[asset][0]
        for body in _GARBAGE:
            response = Response(
                200, {"content-type": "application/json"}, body, datetime(2026, 11, 21, tzinfo=UTC)
            )
            shown = f"{asset}: the answer {body[:30]!r}"
            try:
                parsed = vendor.parse(asset, planned, response)
            except VendorProtocolError:
                continue
            except Exception as error:  # noqa: BLE001  whatever a stranger's code raises is what is looked for
                yield f"{shown} raises {type(error).__name__}; raise VendorProtocolError"
                continue
            if not (parsed.failures or parsed.incomplete):
                yield f"{shown} is taken for a whole one; raise VendorProtocolError"


def _throttles(vendor: Vendor) -> Iterator[str]:
    if not vendor.throttled(429, {}, b""):
        yield "status 429 is no throttle"
    if vendor.throttled(200, {}, b"{}"):
        yield "an answer of status 200 that says nothing is a throttle"
    if vendor.throttled(404, {}, b""):
        yield "status 404 is a throttle"


def _purity(vendor: Vendor) -> Iterator[str]:
    touched: list[str] = []

    @contextmanager
    def watched() -> Iterator[None]:
        def refuse(name: str) -> Callable[..., Any]:
            def call(*_: object, **__: object) -> Any:
                touched.append(name)
                raise OSError(f"{name} is not for a dialect")

            return call

        with (
            patch.object(socket, "socket", refuse("a socket")),
            patch.object(builtins, "open", refuse("a file")),
            patch.object(io, "open", refuse("a file")),
            patch.object(subprocess, "Popen", refuse("a process")),
        ):
            yield

    with watched():
        try:
            list(_requests(vendor))
            list(_answers(vendor))
        except OSError:
            pass
    for name in dict.fromkeys(touched):
        yield f"{name} is opened while requests are built or answers are read"


def _credentials(vendor: Vendor) -> Iterator[str]:
    for request in _requests(vendor):
        names = {name.lower() for name, _ in request.headers}
        if names & {"authorization", "x-api-key", "api-key", "cookie"}:
            yield f"{request.path[:80]!r} carries a credential among its headers; say it by auth or auth_headers"


CHECKS: Final[Mapping[str, Callable[[Vendor], Iterator[str]]]] = {
    "declarations": _declarations,
    "requests": _request_forms,
    "keys": _keys,
    "leaves": _leaves,
    "days": _days_are_covered,
    "splits": _splits,
    "resolution": _resolution,
    "answers": _answers,
    "throttles": _throttles,
    "purity": _purity,
    "credentials": _credentials,
}
"""Every check, by its name."""


def check(vendor: Vendor, only: str | None = None) -> list[Finding]:
    """Everything that a dialect does not keep; a check that its code breaks off is a finding too."""
    found: list[Finding] = []
    for name, run in CHECKS.items():
        if only in (None, name):
            try:
                found += [Finding(name, what) for what in dict.fromkeys(run(vendor))]
            except Exception as error:  # noqa: BLE001  a stranger's code may raise anything
                found.append(Finding(name, f"it raises {type(error).__name__}: {str(error)[:200]}"))
    return found


class VendorConformance:
    """Every check as a test of pytest; a subclass names its ``vendor``, and its ``cases`` where it has some."""

    vendor: ClassVar[Vendor]
    cases: ClassVar[Path | None] = None
    """A folder of answers and what they mean, where there is one."""

    def _holds(self, name: str) -> None:
        found = check(self.vendor, name)
        assert not found, "\n".join(map(str, found))  # noqa: S101  these are tests

    def test_cases(self) -> None:
        """Answers are read as its cases expect."""
        found = check_cases(self.vendor, self.cases) if self.cases else []
        assert not found, "\n".join(found)  # noqa: S101  these are tests

    def test_declarations(self) -> None:
        """Its kind, title and limits are what they have to be."""
        self._holds("declarations")

    def test_requests(self) -> None:
        """Requests are well-formed, also for hostile names."""
        self._holds("requests")

    def test_keys(self) -> None:
        """The same question has the same key, another one another."""
        self._holds("keys")

    def test_leaves(self) -> None:
        """Each data group that is asked for has its leaf, however they are put together."""
        self._holds("leaves")

    def test_days(self) -> None:
        """Windows cover days of 23, 24 and 25 hours at every resolution."""
        self._holds("days")

    def test_splits(self) -> None:
        """Parts have the leaves of the whole, and splitting ends."""
        self._holds("splits")

    def test_resolution(self) -> None:
        """What is no resolution is refused in one line."""
        self._holds("resolution")

    def test_answers(self) -> None:
        """Garbage is never taken for an answer."""
        self._holds("answers")

    def test_throttles(self) -> None:
        """What says that we were too fast is told from what does not."""
        self._holds("throttles")

    def test_purity(self) -> None:
        """Nothing is opened."""
        self._holds("purity")

    def test_credentials(self) -> None:
        """No credential is in a request."""
        self._holds("credentials")
