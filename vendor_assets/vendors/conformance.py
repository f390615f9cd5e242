"""Whether a dialect keeps what every vendor promises, found out without its server.

Each check asks the class alone: it builds requests for hostile names, odd days and every resolution, splits them down,
and reads answers that are garbage. ``vendor-assets vendor check`` runs them; with pytest a package inherits them::

    class TestAcme(VendorConformance):
        vendor = Acme()
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from importlib import import_module
from itertools import pairwise, product
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest.mock import patch

from vendor_assets.days import Window, day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.vendors.base import Asset, DataGroup, Keys, PlannedRequest, Request, Response, Vendor
from vendor_assets.vendors.cases import check_cases
from vendor_assets.vendors.frozen import decode_planned, encode_leaves, encode_request

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
_FOLLOWED: Final = 2
"""Of so many leaves is splitting followed to its end."""
_MOMENT: Final = datetime(2026, 11, 21, 12, tzinfo=UTC)
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PATH: Final = re.compile(r"/[!\"$->@-~]*")
_METHOD: Final = re.compile(r"[A-Z]+")
_HEADER_VALUE: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_OF_THE_TRANSPORT: Final = frozenset(
    ("accept-encoding", "connection", "content-length", "expect", "host", "transfer-encoding")
)
_SECRET_NAME: Final = re.compile(
    r"(.*[-_])?(authorization|api[-_]?key|application[-_]?key|(access|auth|session|security)[-_]?token|token|password"
    r"|(client[-_]?)?secret|cookie)",
    re.IGNORECASE,
)
"""Names of headers and parameters of first requests; a cursor, which may be called so, comes with later pages only."""
_ERROR_PAGES: Final = (
    "<html><head><title>404 Not Found</title></head><body>nginx</body></html>",
    "404 page not found",
    '{"message":"no Route matched with those values"}',
    '{"message":"Not Found"}',
    '{"detail":"Not Found"}',
    '{"timestamp":"2026-11-20T12:00:00.000+00:00","status":404,"error":"Not Found","path":"/"}',
)
"""What servers, gateways (Kong, Amazon's) and frameworks (FastAPI, Spring) say of an address they do not know."""


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
    if not all(isinstance(status, int) and 200 <= status < 300 for status in declared.accepted):
        yield f"accepted is {vendor.accepted!r}; give statuses of success, from 200 to 299"
    if vendor.most_in_flight is not None and vendor.most_in_flight < 1:
        yield f"most_in_flight is {vendor.most_in_flight!r}; give 1 or more, or None"
    if vendor.most_in_flight_of not in {"account", "user"}:
        yield f"most_in_flight_of is {vendor.most_in_flight_of!r}; accepted are 'account' and 'user'"


def _request_forms(vendor: Vendor) -> Iterator[str]:
    for request in _requests(vendor):
        where = f"{request.method} {request.path[:80]!r}"
        if not _PATH.fullmatch(request.path):
            yield f"{where} is not a path; a path begins with a slash and is percent-encoded"
        if not request.endpoint:
            yield f"{where} has no endpoint; name it for limits and counts"
        if request.method == "GET" and request.body:
            yield f"{where} is a GET with a body"
        pairs = (*request.params, *request.headers)
        if not all(isinstance(part, str) for pair in pairs for part in pair):
            yield f"{where} has a parameter or a header that is not a string"
            continue
        if not _METHOD.fullmatch(request.method):
            yield f"{where} has no method; give one in upper-case letters, like POST"
        for name, value in request.headers:
            if name.lower() in _OF_THE_TRANSPORT:
                yield f"{where} sets the header {name}, which only the transport does"
            elif not _HEADER_VALUE.fullmatch(value):
                yield f"{where} has a header {name} that cannot be sent; encode names that stand in it"
        counts: Any = vendor.counts(request)
        if not _can_be_counted(counts):
            yield f"{where} counts {counts!r}; give finite numbers from 0 on, by unit"
        elif vendor.counts(request) != counts:
            yield f"{where} counts {counts!r}, and something else when it is asked again"


def _can_be_counted(counts: Any) -> bool:
    return isinstance(counts, Mapping) and all(
        isinstance(number, int | float) and 0 <= number < inf for number in counts.values()
    )


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
    days = [
        {each.request.key for each in _data(vendor, _day(_DAYS[0][0] + timedelta(days=n)))} for n in (0, 7)
    ]
    if days[0] & days[1]:
        yield f"the data of different days are one question, like {min(days[0] & days[1])[:80]!r}"


def _leaves(vendor: Vendor) -> Iterator[str]:
    names = {group.name for group in _groups()}
    planned = _data(vendor)
    keys = [leaf.key for each in planned for leaf in each.leaves]
    by_key = {leaf.key: leaf for each in planned for leaf in each.leaves}
    asked = {leaf.data_group for leaf in by_key.values()}
    if asked != names:
        yield f"no leaf for {sorted(names - asked)[:3]!r}, or for more than was asked"
    if {leaf.warrior_id for leaf in by_key.values()} - {"8"}:
        yield "a leaf has another warrior's id than the one that was asked for"
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
    if [(leaf.key, leaf.warrior_id) for leaf in vendor.data_groups("7", "8", _day()).leaves] != [("8", "8")]:
        yield "the leaf of data_groups is not the warrior's id, by key and by warrior_id"


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
    waiting, seen, alone = list(_data(vendor)), 0, 0
    while waiting:
        planned = waiting.pop()
        if len(planned.leaves) == 1:
            alone += 1
            if alone <= _FOLLOWED:
                yield from _splits_of_a_leaf(vendor, planned)
            continue
        parts = vendor.split(planned)
        seen += len(parts)
        if seen > _MOST_PARTS:
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
        if sum(len(part.leaves) for part in parts) > len(planned.leaves):
            yield f"a leaf of {planned.request.key[:80]!r} is in several parts; give each to one alone"
            return
        waiting += parts


def _splits_of_a_leaf(vendor: Vendor, planned: PlannedRequest) -> Iterator[str]:
    """By values or by time: each part has the leaf, asks what no other one does, and has parts until there are none."""
    waiting, asked = deque([planned]), {planned.request.key}
    while waiting:
        whole = waiting.popleft()
        parts = vendor.split(whole)
        keys = {part.request.key for part in parts}
        if len(parts) == 1 or len(keys) < len(parts) or keys & asked:
            yield f"a part of a single leaf asks what was asked for before, like {whole.request.key[:80]!r}"
            return
        if any(part.leaves != planned.leaves for part in parts):
            yield f"the parts of {planned.request.key[:80]!r} have other leaves than the whole"
            return
        asked |= keys
        waiting += parts
        if len(asked) > _MOST_PARTS:
            yield f"splitting a single leaf does not end: after {_MOST_PARTS} parts there are still more"
            return


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
            for read, otherwise in ((vendor.parse, ""), (vendor.judge, " by judge")):
                try:
                    parsed = read(asset, planned, response)
                except VendorProtocolError:
                    continue
                except Exception as error:  # noqa: BLE001  whatever a stranger's code raises is what is looked for
                    yield f"{shown} raises {type(error).__name__}{otherwise}; raise VendorProtocolError"
                    break
                if not (parsed.failures or parsed.incomplete):
                    yield f"{shown} is taken for a whole one{otherwise}; raise VendorProtocolError"
                    break


def _counted(vendor: Vendor) -> Iterator[str]:
    for status, body in product((200, 429, 500), _GARBAGE):
        response = Response(
            status, {"content-type": "application/json"}, body, datetime(2026, 11, 21, tzinfo=UTC)
        )
        for request in _requests(vendor):
            counted = vendor.counted(request, response)
            if not _can_be_counted(counted):
                what = f"{request.method} {request.path[:80]!r} counted {dict(counted)!r}"
                yield f"{what}, by an answer of status {status}; give finite numbers from 0 on"


def _throttles(vendor: Vendor) -> Iterator[str]:
    if not vendor.throttled(429, {}, b""):
        yield "status 429 is not taken for a throttle"
    if vendor.throttled(200, {}, b"{}"):
        yield "an answer of status 200 that says nothing is taken for a throttle"
    if vendor.throttled(404, {}, b""):
        yield "status 404 is taken for a throttle"
    for request in _requests(vendor):
        for page in _ERROR_PAGES:
            if vendor.says_gone(request, page):
                yield (
                    f"the error page of a server or gateway, {page[:60]!r}, says that {request.path[:80]!r} is gone; "
                    "look for the vendor's own words"
                )
                return


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
            patch.object(socket, "getaddrinfo", refuse("a socket")),
            patch.object(builtins, "open", refuse("a file")),
            patch.object(io, "open", refuse("a file")),
            patch.object(os, "open", refuse("a file")),
            patch.object(subprocess, "Popen", refuse("a process")),
            patch.object(os, "system", refuse("a process")),
        ):
            yield

    first = _kept(vendor)
    with patch.dict(os.environ, clear=True):  # noqa: TID251  which a dialect does not read
        if _kept(vendor) != first:
            yield "requests change with the environment; take settings by options, in configured"

    with watched():
        try:
            list(_requests(vendor))
            list(_answers(vendor))
        except OSError:
            pass
    for name in dict.fromkeys(touched):
        yield f"{name} is opened while requests are built or answers are read"


def _credentials(vendor: Vendor) -> Iterator[str]:
    auth: Any = vendor.auth(Keys(_KEY, _KEY, _KEY, _KEY))
    if not callable(auth) and not isinstance(auth, Mapping):
        yield f"auth gives a {type(auth).__name__}; give headers or an AuthBase of requests"
    for request in _requests(vendor):
        pairs = (*request.params, *request.headers)
        named = [name for name, _ in pairs if _SECRET_NAME.fullmatch(str(name))]
        if named or _KEY in repr(request):
            what = f" ({named[0]})" if named else ""
            yield f"{request.path[:80]!r} carries a credential{what}; say it by auth or auth_headers"


def _together(vendor: Vendor) -> list[PlannedRequest]:
    """The data of several warriors at once, of which some have other data groups, and one has none."""
    groups = {name: _groups(HOSTILE[number % 3 :]) for number, name in enumerate(HOSTILE)} | {"none": []}
    return vendor.performance_data_of("7", groups, _day(), _resolutions(vendor)[-1])


def _several(vendor: Vendor) -> Iterator[str]:
    lists = vendor.data_groups_of("7", HOSTILE, _day())
    if sorted(leaf.key for each in lists for leaf in each.leaves) != sorted(HOSTILE):
        yield "data_groups_of several warriors has not one leaf for each, whose key is the warrior's id"
    together = _together(vendor)
    singly = {
        leaf
        for number, name in enumerate(HOSTILE)
        for each in vendor.performance_data(
            "7", name, _groups(HOSTILE[number % 3 :]), _day(), _resolutions(vendor)[-1]
        )
        for leaf in each.leaves
    }
    if {leaf for each in together for leaf in each.leaves} != singly:
        yield "performance_data_of several warriors has other leaves than performance_data of each"
    for planned in (lists, together):
        if len({each.request.key for each in planned}) < len(planned):
            yield f"different questions for several warriors have one key, like {planned[0].request.key[:80]!r}"
    before: set[str] = set()
    done: set[str] = set()
    for each in together:
        here = {leaf.key for leaf in each.leaves}
        if here & done:
            yield f"requests that share a leaf do not follow each other: {min(here & done)[:80]!r}"
            return
        done |= before - here
        before = here


def _parts(vendor: Vendor) -> Iterator[str]:
    if type(vendor).part is Vendor.part:
        return
    for planned in (*_together(vendor)[:3], *vendor.data_groups_of("7", HOSTILE, _day())[:3]):
        where = f"of {planned.request.key[:80]!r}"
        for some in (planned.leaves, planned.leaves[:1], planned.leaves[1:], planned.leaves[::2]):
            if not some:
                continue
            part = vendor.part(planned, [leaf.key for leaf in some])
            if part.leaves != some:
                yield f"the part {where} for {len(some)} leaves has others, or in another order"
            elif vendor.part(part, [some[0].key]).leaves != some[:1]:
                yield f"the part of a part {where} for a leaf has not that leaf alone"


def _plans(vendor: Vendor) -> Iterator[PlannedRequest]:
    """Requests of each kind as they are asked at one moment, with the first parts of those that have any."""
    vendor = vendor.at(_MOMENT)
    for planned in (*_all(vendor).values(), vendor.data_groups_of("7", HOSTILE, _day()), _together(vendor)):
        for each in planned:
            yield each
            yield from vendor.split(each)


def _kept(vendor: Vendor) -> list[str]:
    """The same as texts."""
    return [encode_request(each.request) + encode_leaves(each) for each in _plans(vendor)]


def _frozen(vendor: Vendor) -> Iterator[str]:
    for planned in _plans(vendor):
        where = f"{planned.request.key[:80]!r}"
        again = decode_planned(encode_request(planned.request), encode_leaves(planned))
        if again != planned:
            yield f"{where} is another one when it was kept and is read again; use texts, tuples and aware times"
        elif vendor.split(again) != vendor.split(planned):
            yield f"{where} has other parts when it was kept and is read again"


def _processes(vendor: Vendor) -> Iterator[str]:
    """Other processes order sets of texts otherwise. Of a class that they cannot import nothing is found."""
    kind = type(vendor)
    try:
        if attrgetter(kind.__qualname__)(sys.modules[kind.__module__]) is not kind:
            return
    except (AttributeError, KeyError):
        return
    state = {name: value for name, value in vars(vendor).items() if _can_be_pickled(value)}
    told = pickle.dumps((kind.__module__, kind.__qualname__, state))
    command = [sys.executable, "-c", f"import {__name__} as c; c.write_kept()"]
    path = os.pathsep.join(sys.path)
    expected = _kept(vendor)
    others = []
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}  # noqa: TID251  handed on
        # Ctrl-C goes to a whole process group; who checks says it once.
        other = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, process_group=0
        )
        others.append(other)
    for other in others:
        out, _ = other.communicate(told)
        if other.returncode:
            yield "its requests cannot be built in another process"
        elif json.loads(out) != expected:
            yield "another process builds other requests for the same questions; does the order of a set matter?"


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001  objects say it in many ways
        return False
    return True


def write_kept() -> None:
    """Be the other process: build the requests of the vendor that is told on the standard input."""
    module, name, state = pickle.load(sys.stdin.buffer)  # noqa: S301  written just before by this module
    kind = attrgetter(name)(import_module(module))
    try:
        vendor = kind()
    except TypeError:
        vendor = kind.__new__(kind)
    vars(vendor).update(state)
    sys.stdout.write(json.dumps(_kept(vendor)))


def _clock(vendor: Vendor) -> Iterator[str]:
    found = []
    for moment in (_MOMENT, datetime(2027, 2, 3, 4, 5, tzinfo=UTC)):
        with _wall_clock(vendor, moment):
            found.append(_kept(vendor))
    if found[0] != found[1]:
        yield "requests change with the clock of the computer; override Vendor.at, and build them for that moment"


class _Alike(type):
    """Takes the instances of the class that another stands in for."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


@contextmanager
def _wall_clock(vendor: Vendor, moment: datetime) -> Iterator[None]:
    """Let the modules of a dialect's classes see another time."""

    class Moved(datetime, metaclass=_Alike):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return moment.astimezone(tz) if tz else moment.replace(tzinfo=None)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now()

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    class MovedDate(date, metaclass=_Alike):
        @classmethod
        def today(cls) -> Any:
            return moment.date()

    moved: list[tuple[object, object]] = [
        (datetime, Moved),
        (date, MovedDate),
        (time.time, moment.timestamp),
        (time.time_ns, lambda: int(moment.timestamp() * 1e9)),
    ]
    written = [each for kind in type(vendor).__mro__ for each in (kind, *vars(kind).values())]
    modules = {
        sys.modules[name] for each in written if (name := getattr(each, "__module__", None)) in sys.modules
    }
    with ExitStack() as stack:
        for module in (*modules, sys.modules["datetime"], time):
            for name, value in list(vars(module).items()):
                for old, new in moved:
                    if value is old:
                        stack.enter_context(patch.object(module, name, new))
        yield


def _state(vendor: Vendor) -> Iterator[str]:
    first = _kept(vendor)
    for of, zone in reversed(_DAYS):
        vendor.troops(_day(of, zone))
        vendor.warriors("another", _day(of, zone))
        for resolution in _resolutions(vendor):
            vendor.performance_data("another", "one", _groups(["m"]), _day(of, zone), resolution)
    list(_answers(vendor))
    if _kept(vendor) != first:
        yield "the same questions are other requests after other ones; a dialect remembers nothing"


CHECKS: Final[Mapping[str, Callable[[Vendor], Iterator[str]]]] = {
    "declarations": _declarations,
    "requests": _request_forms,
    "keys": _keys,
    "leaves": _leaves,
    "days": _days_are_covered,
    "splits": _splits,
    "resolution": _resolution,
    "answers": _answers,
    "counted": _counted,
    "throttles": _throttles,
    "purity": _purity,
    "credentials": _credentials,
    "several": _several,
    "parts": _parts,
    "frozen": _frozen,
    "processes": _processes,
    "clock": _clock,
    "state": _state,
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

    def test_counted(self) -> None:
        """What a request really counted is read from any answer, or not at all."""
        self._holds("counted")

    def test_throttles(self) -> None:
        """What says that we were too fast is told from what does not."""
        self._holds("throttles")

    def test_purity(self) -> None:
        """Nothing is opened."""
        self._holds("purity")

    def test_credentials(self) -> None:
        """No credential is in a request."""
        self._holds("credentials")

    def test_several(self) -> None:
        """Several warriors at once have the leaves of each, and requests that share one follow each other."""
        self._holds("several")

    def test_parts(self) -> None:
        """A part has the leaves that it is for; where there are none, nothing is checked."""
        self._holds("parts")

    def test_frozen(self) -> None:
        """A request that was kept and is read again is the same, and so are its parts."""
        self._holds("frozen")

    def test_processes(self) -> None:
        """Another process builds the same requests."""
        self._holds("processes")

    def test_clock(self) -> None:
        """The clock of the computer changes nothing but by ``Vendor.at``."""
        self._holds("clock")

    def test_state(self) -> None:
        """What was asked and read before changes nothing."""
        self._holds("state")
