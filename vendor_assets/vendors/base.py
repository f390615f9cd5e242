"""What every vendor says about itself: how its requests are built and its answers read.

A vendor is pure: it builds requests and reads responses, and does no I/O. The hierarchy is the same for all:
troops, the warriors of a troop, the data groups of a warrior, the performance data of a warrior.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypeGuard, TypeVar
from urllib.parse import quote, quote_plus, urlencode

import msgspec

from vendor_assets.days import Window
from vendor_assets.errors import ConfigurationError, VendorProtocolError
from vendor_assets.presentable import presentable
from vendor_assets.vendors.columns import rows_of

if TYPE_CHECKING:
    from requests.auth import AuthBase  # noqa: TID251  the type alone; importing it takes 0.2 s

REJECTED_KEPT: Final = 100
"""Records of one answer that are kept when they do not fit; the others are counted."""

_SHORT: Final = 200
"""Characters of a text whose quoted form is remembered."""

RECORD_CHARACTERS: Final = 2000
"""The part of such a record that is kept."""

FIELDS_NAMED: Final = 100
"""Unknown fields of one answer that are named."""

_ATTRIBUTES: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

_NAME_SHOWN: Final = 100
_DEPTH_SHOWN: Final = 50

_NOT_WHOLE: Final = (
    *(
        "error",
        "errors",
        "errorType",
        "partial",
        "isPartial",
        "is_partial",
        "truncated",
        "isTruncated",
        "is_truncated",
    ),
    *("incomplete", "timedOut", "timed_out"),
)
_FAILED: Final = re.compile(
    r"errors?|fail(ed|ure)?|partial.*|timed?.?out|incomplete|truncated", re.IGNORECASE
)

T = TypeVar("T")
Asset = Literal["troops", "warriors", "data_groups", "performance_data"]

COLUMNS: Final[Mapping[Asset, tuple[str, ...]]] = {
    "troops": ("troop_id", "name", "attributes"),
    "warriors": ("warrior_id", "name", "attributes"),
    "data_groups": ("warrior_id", "data_group", "value_names"),
    "performance_data": (
        "warrior_id", "data_group", "value_name", "timeslice_start", "timeslice_end", "value", "weight",
    ),
}  # fmt: skip
"""What an answer brings of each table; see :class:`Parsed`."""

_THROTTLES: Final = frozenset((420, 429, 509, 529))
"""429, and what some send in its place: Twitter's 420, 509 (bandwidth), 529 (overloaded)."""
_MAY_THROTTLE: Final = frozenset((403, 503))
_USED_UP: Final = re.compile(
    r"\s*(remaining\s*=\s*)?0+(\.0+)?\s*([,;].*)?|.*[;,\s](r|remaining)\s*=\s*0+\s*([,;].*)?"
)
_TOO_FAST: Final = re.compile(
    r"rate.?limit|throttl|too many (requests|calls)|(quota|limit)s? (was |is |has been )?(exceeded|reached)"
    r"|exceeded .{0,40}(quota|rate|limit)|slow down|overloaded",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Request:
    """One question to the vendor, without host and credentials; sending it twice must change nothing there.

    Attributes:
        path: Path below the vendor's URL, already percent-encoded, with a leading slash.
        params: Query parameters in order; names may repeat.
        endpoint: Short name of the endpoint, for limits and counts per endpoint.
        method: ``GET``, or another method that asks.
        body: Sent in UTF-8; see :meth:`json` and :meth:`form`.
        headers: Added to those of the client, like ``Content-Type``; never a credential, since they are kept.
    """

    path: str
    params: tuple[tuple[str, str], ...] = ()
    endpoint: str = ""
    method: str = "GET"
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def json(cls, path: str, document: object, endpoint: str = "") -> Self:
        """A POST of a JSON document, like a GraphQL query or a JSON-RPC call."""
        body = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return cls(path, (), endpoint, "POST", body, (("Content-Type", "application/json"),))

    @classmethod
    def form(cls, path: str, fields: Sequence[tuple[str, str]], endpoint: str = "") -> Self:
        """A POST of form fields, for a query that is too long for a URL."""
        kind = (("Content-Type", "application/x-www-form-urlencoded"),)
        return cls(path, (), endpoint, "POST", urlencode(fields), kind)

    @property
    def target(self) -> str:
        """Path and query as they are sent."""
        query = query_text(self.params)
        return f"{self.path}?{query}" if query else self.path

    @property
    def key(self) -> str:
        """The request key: the same text for the same question, whatever the order of its parameters and headers.

        A body and headers are in it as a digest.
        """
        # Asked for many times over while a request is planned, sent, landed and counted.
        known = self.__dict__.get("_key")
        if known is None:
            known = self.__dict__["_key"] = self._as_key()
        return str(known)

    def _as_key(self) -> str:
        query = query_text(sorted(self.params))
        key = f"{self.path}?{query}" if query else self.path
        if not self.has_more:
            return key
        more = json.dumps([self.body, sorted(self.headers)]).encode("utf-8", "surrogatepass")
        return f"{self.method} {key}#{hashlib.sha256(more).hexdigest()[:32]}"

    @property
    def has_more(self) -> bool:
        """Whether it is more than a GET of path and parameters."""
        return bool(self.method != "GET" or self.body or self.headers)


def _pair(name: str, text: str) -> str:
    return f"{quote_plus(name)}={quote_plus(text)}"


_short_pair = lru_cache(maxsize=4096)(_pair)


@lru_cache(maxsize=1024)
def _short_escaped(text: str) -> str:
    return quote(text, safe="")


def _escaped(text: str) -> str:
    """Any text percent-encoded; ids and names come again with each request of a troop."""
    return _short_escaped(text) if len(text) <= _SHORT else quote(text, safe="")


def query_text(params: Iterable[tuple[str, str]]) -> str:
    """What :func:`~urllib.parse.urlencode` makes of parameters, most of which come again with each request."""
    return "&".join(
        [_short_pair(*pair) if len(pair[0]) + len(pair[1]) <= _SHORT else _pair(*pair) for pair in params]
    )


@dataclass(frozen=True)
class Response:
    """A complete answer as it came.

    Attributes:
        status: HTTP status.
        headers: Only those that reading the answer needs; names in lower case.
        body: The exact bytes, after transfer decoding.
        fetched_at: When the last byte arrived, an aware datetime in UTC.
        asked: What was asked for it, where that is a later page; None where it is the planned request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    fetched_at: datetime
    asked: Request | None = None


@dataclass(frozen=True)
class Leaf:
    """The smallest piece of work that is counted: one list, or one data group of a warrior in a window.

    ``key`` is unique inside a partition's harvest and stays the same however leaves are grouped into requests.
    """

    key: str
    warrior_id: str = ""
    data_group: str = ""
    window: Window | None = None


@dataclass(frozen=True)
class PlannedRequest:
    """A request and the leaves that it answers."""

    request: Request
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class DataGroup:
    """A metric family of a warrior and the names of its values.

    Attributes:
        narrowed: Whether these are not all of its values: the others are not wanted.
    """

    name: str
    value_names: tuple[str, ...]
    narrowed: bool = False


@dataclass(frozen=True)
class Rejected:
    """A record of an answer that does not fit its table; it goes to quarantine."""

    reason: str
    record: str
    """The record as JSON text, its first 2,000 characters."""


Means = Literal["failed", "throttled", "too_large", "refused", "key_refused", "expired"]
"""Why a request, or a part of it, was not answered: it may be another time (``failed``), we were too fast, it asks
for too much, it is refused as it is, the key is, or what an earlier answer led to is there no more: a cursor, or a
submitted query, which also is what failed by itself (``expired``; the first request is sent again)."""


@dataclass(frozen=True)
class Failure:
    """What an accepted answer says of leaves that it does not answer.

    Attributes:
        leaves: Their keys.
        reason: In the vendor's words.
    """

    leaves: tuple[str, ...]
    means: Means
    reason: str


@dataclass
class Parsed:
    """What one answer says.

    Attributes:
        columns: Column name to values, a list or a pyarrow array, all of one length; the columns are the table's,
            without those that every row of a partition shares and the harvest adds (``troop_id`` below troops,
            ``troop_key``, ``observed_at``, ``first_observed_at``, ``last_observed_at``, ``observed_later``):
            troops: ``troop_id, name, attributes``; warriors: ``warrior_id, name, attributes``;
            data_groups: ``warrior_id, data_group, value_names``; performance_data: ``warrior_id, data_group,
            value_name, timeslice_start, timeslice_end`` (aware datetimes or microseconds since the epoch,
            the same in one column), ``value, weight``.
        next: The request of the next page, where there is one.
        not_found: Data groups that were asked for and that the vendor does not know (any more).
        rejected: Records that do not fit the table, the first ones.
        more_rejected: How many more there are; they are counted, not kept.
        new_fields: Names of fields that the vendor's dialect did not have when this was written; kept in
            ``attributes`` where the table has it.
        incomplete: Why this is not all that was asked for, though the vendor calls it a success; empty where it is
            all. Such an answer is asked for again, and is no answer in the end.
        about: What tells this page from the others of its list, where its rows may be the same.
        failures: What was not answered, though the answer has status 200. Where some leaves were, these are kept, and
            :meth:`Vendor.part` asks for the others.
        wait_seconds: What was asked for is not there yet: the same request is sent again after so long, and this answer
            is not kept. None where it is there.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    next: Request | None = None
    not_found: tuple[str, ...] = ()
    rejected: list[Rejected] = field(default_factory=list)
    more_rejected: int = 0
    new_fields: tuple[str, ...] = ()
    incomplete: str = ""
    about: tuple[str, ...] = ()
    failures: list[Failure] = field(default_factory=list)
    wait_seconds: float | None = None

    def reject(self, reason: str, record: object, count: int = 1) -> None:
        """Put a record aside, or some that are alike; beyond the first of an answer they are only counted."""
        if len(self.rejected) < REJECTED_KEPT:
            self.rejected.append(reject(reason, record))
            count -= 1
        self.more_rejected += count

    @property
    def rows(self) -> int:
        """How many rows it says."""
        return rows_of(self.columns)

    def lists(self) -> dict[str, list[Any]]:
        """The columns as lists."""
        return {
            name: column.to_pylist() if hasattr(column, "to_pylist") else list(column)
            for name, column in self.columns.items()
        }


@dataclass(frozen=True)
class Keys:
    """What a deployment was given for the vendor: secrets, but for the user's name; empty where it was given none.

    Attributes:
        user: ``VENDOR_USER``, where the vendor :attr:`~Vendor.needs_login`; the password likewise.
    """

    api_key: str = field(default="", repr=False)
    application_key: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)


class Vendor(ABC):
    """One vendor's dialect. Subclasses live in one file each; other packages bring theirs by entry point."""

    kind: ClassVar[str]
    """The name by which ``VENDOR_KIND`` selects it."""
    title: ClassVar[str]
    """Its name for people."""
    notice: ClassVar[str] = ""
    """What whoever uses it should know beforehand, like that it ends; part of a sentence."""
    documented_limits: ClassVar[tuple[str, ...]] = ()
    """Its documented rates, like ``"1000/min"``; empty where it documents none."""
    rosters: ClassVar[Literal["current", "historical"]] = "current"
    """Whether lists know only the present or can be asked for a past window."""
    needs_api_key: ClassVar[bool] = True
    needs_application_key: ClassVar[bool] = False
    """Whether it wants ``VENDOR_APPLICATION_KEY`` beside the key."""
    needs_login: ClassVar[bool] = False
    """Whether :meth:`auth` takes ``VENDOR_USER`` and ``VENDOR_PASSWORD``, like the id and the secret of a client; else
    they are sent as basic authentication."""
    page_headers: ClassVar[tuple[str, ...]] = ("link", "content-type")
    """Lower-case names of the response headers that ``parse`` needs; they are kept with the body."""
    accepted: ClassVar[tuple[int, ...]] = (200,)
    """Statuses of answers that ``parse`` reads: 201 or 202 too, where a query is submitted and asked for later."""
    most_in_flight: ClassVar[int | None] = None
    """Its documented limit of calls at once, over all machines; None where it documents none."""
    most_in_flight_of: ClassVar[Literal["account", "user"]] = "account"
    """Whose limit that is: each account's, or that of the key's user over all accounts."""
    warriors_at_once: ClassVar[int] = 1
    """For how many warriors at a time :meth:`data_groups_of` and :meth:`performance_data_of` are asked."""
    one_list: ClassVar[bool] = False
    """Whether the list of a troop's warriors names their data groups too, by the same request: it is asked once."""
    pages_move: ClassVar[bool] = True
    """Whether pages of one path are cut anew at each call, by a number or an offset, so that who goes meanwhile moves
    others onto a page that has been read. Such a roster is read until nobody new comes, twice as a rule."""
    options: ClassVar[Mapping[str, str]] = {}
    """Its own settings, as ``VENDOR_OPTIONS`` gives them: name to what is accepted, in a few words."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Where a class reads answers in a way of its own, it also judges them by that."""
        super().__init_subclass__(**more)
        if "parse" in vars(cls) and "judge" not in vars(cls):
            cls.judge = Vendor.judge  # type: ignore[method-assign]

    @classmethod
    def configured(cls, account: str, options: Mapping[str, str]) -> Self:  # noqa: ARG003  needed by some
        """The vendor as a deployment wants it.

        Args:
            account: The account at the vendor, ``VENDOR_ACCOUNT``; empty where it is not set.
            options: Texts by name; all names are among :attr:`options`.

        Raises:
            ConfigurationError: The account or an option cannot be used: its name, the value and what is accepted.
        """
        return cls()

    def at(self, now: datetime) -> Self:  # noqa: ARG002  by default the clock changes nothing
        """The vendor as it builds requests at a certain time; overridden where they depend on the clock."""
        return self

    def auth_headers(self, api_key: str) -> dict[str, str]:  # noqa: ARG002  some have only auth
        """The headers that carry the key, where the key is all that identifies us."""
        return {}

    def auth(self, keys: Keys) -> AuthBase | Mapping[str, str]:
        """What identifies us in each request: headers, or an auth of ``requests``, as other packages have them.

        An auth is called for each attempt, from several threads. It may add headers and query parameters, which are
        secrets from then on, and change nothing else. It is made again when a key is renewed, and only where all that
        the vendor needs is set; else what stands in for that (``VENDOR_TOKEN``, ``VENDOR_HEADERS``) is sent alone.
        """
        return self.auth_headers(keys.api_key)

    def check_resolution(self, resolution_seconds: int) -> None:
        """Refuse a length of timeslices that the vendor never has; whole seconds, where nothing else is said.

        Raises:
            ConfigurationError: What was wanted, and what can be had.
        """
        if resolution_seconds < 1:
            raise ConfigurationError(
                f"resolution {resolution_seconds} s is not available; take 1 or more, like 60"
            )

    def throttled(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether an answer says that we were too fast, so that it is no verdict on the request or the key.

        Asked of every answer, also of one with status 200; ``body`` is all of it.

        Says yes to 420, 429, 509 and 529, and to a 403 or 503 with Retry-After, whose headers say that nothing is left
        of the quota, or whose text says that it is exceeded. A dialect that knows better overrides it. ``headers`` have
        names in lower case.
        """
        if status in _THROTTLES or status not in _MAY_THROTTLE:
            return status in _THROTTLES
        if "retry-after" in headers:
            return True
        left = (text for name, text in headers.items() if _tells_what_is_left(name))
        if any(_USED_UP.fullmatch(text) for text in left):
            return True
        return bool(_TOO_FAST.search(body[:2000].decode("utf-8", "replace")))

    def throttle_seconds(self, headers: Mapping[str, str], body: bytes) -> float | None:  # noqa: ARG002  headers tell
        """How long an answer that is :meth:`throttled` asks to wait, where its body says it; None where it does not.

        What the headers say in one of the usual ways is known without this.
        """
        return None

    def refuses_key(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:  # noqa: ARG002  for some
        """Whether a refusal says that the key is refused whatever is asked: a 401, unless a dialect knows others.

        Asked where :meth:`throttled` says no. A 403 may be about one entity: where this says no, :meth:`probe` tells.
        """
        return status == 401

    def counts(self, request: Request) -> Mapping[str, float]:  # noqa: ARG002  by default each call counts one
        """What a request counts against limits of other units than requests, by unit: ``{"queries": 5}``.

        Money is counted in ``dollars`` or ``euros``, like ``{"dollars": 0.00005}``.
        """
        return {}

    def counted(self, request: Request, response: Response) -> Mapping[str, float]:  # noqa: ARG002  most do not tell
        """What a request really counted, by its answer: units as those of :meth:`counts`.

        Asked of every answer, of any status and content, before it is judged: a refusal may count too. What is not
        named stays as :meth:`counts` said. It raises nothing, and is cheap: headers, or a search in the body.
        """
        return {}

    @abstractmethod
    def probe(self) -> Request:
        """The cheapest request that shows that the vendor is there and the key is accepted."""

    @abstractmethod
    def troops(self, day: Window) -> PlannedRequest:
        """First page of the list of all troops; the single leaf's key is ``troops``."""

    @abstractmethod
    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        """First page of the list of a troop's warriors; the single leaf's key is ``warriors``."""

    @abstractmethod
    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        """First page of the list of a warrior's data groups; one leaf per warrior, its key the warrior's id."""

    @abstractmethod
    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """The fewest requests that bring a warrior's data of a day at the wanted resolution.

        Windows are widened to the vendor's alignment; rows outside the day are dropped later by their
        timeslice's start.
        """

    def data_groups_of(self, troop_id: str, warrior_ids: Sequence[str], day: Window) -> list[PlannedRequest]:
        """The fewest requests that list the data groups of some warriors; by default one for each."""
        return [self.data_groups(troop_id, warrior_id, day) for warrior_id in warrior_ids]

    def performance_data_of(
        self,
        troop_id: str,
        groups: Mapping[str, Sequence[DataGroup]],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        """The fewest requests that bring the data of some warriors; by default as for each of them."""
        return [
            planned
            for warrior_id, of_warrior in groups.items()
            for planned in self.performance_data(troop_id, warrior_id, of_warrior, day, resolution_seconds)
        ]

    def part(self, planned: PlannedRequest, leaves: Collection[str]) -> PlannedRequest:
        """The request for some leaves of a request alone, by their keys.

        Needed where ``parse`` tells of failures; ``parse`` reads the answer to the whole as an answer to the part.
        """
        raise NotImplementedError(
            f"{self.title} does not ask for parts ({len(leaves)} of {planned.request.path})"
        )

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:  # noqa: ARG002  by default nothing is
        """A request for performance data in smaller parts, two at best, for one that always fails as a whole.

        By data groups, each leaf in one part, as long as there are several; then, since what fails may be too large,
        by values or by time: then the parts have the same leaf, which has landed once all of them have. Parts may be
        split again. Leaves are those of ``planned``, unchanged. ``parse`` reads the answer to each part. There are no
        parts where it cannot be split, also for lists.
        """
        return []

    def says_gone(self, request: Request, body: str) -> bool:  # noqa: ARG002  by default no path names an entity
        """Whether a 404 or 410 says that an entity is gone: the path names one, and the body is this vendor's.

        Only then is it an answer. Elsewhere (a fixed path, the error page of a proxy) it tells that the address is
        wrong. An entity is one that an earlier list named; ``body`` is the beginning of the answer.
        """
        return False

    @abstractmethod
    def parse(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """Read one answer, of a status that is :attr:`accepted`.

        ``planned`` is the first page's request with its leaves, also for later pages.

        Raises:
            VendorProtocolError: The answer as a whole cannot be understood.
        """

    def judge(self, asset: Asset, planned: PlannedRequest, response: Response) -> Parsed:
        """What :meth:`parse` says of an answer, perhaps without columns: asked on arrival, when rows are not needed.

        Overridden where telling is much cheaper than reading. Raises as :meth:`parse`, and what it accepts is accepted
        there too, with the same ``next``, ``incomplete``, ``failures`` and ``wait_seconds``; pages of a list that has
        several need their columns (or ``about``), by which a page that comes twice is found.
        """
        return self.parse(asset, planned, response)


def read_object(response: Response) -> dict[str, Any]:
    """The JSON object that an answer's body is.

    Numbers are read as they are written: integers of any size exactly, ``NaN`` and ``Infinity`` (which are not
    JSON, but are sent) as floats. Of a key that comes twice in one object, the last one counts.

    Raises:
        VendorProtocolError: The content type is not JSON, the body is not, or it is something else than an object.
    """
    body = json_body(response)
    try:
        content = _decoded(body)
    except (ValueError, RecursionError) as error:
        raise VendorProtocolError(f"the answer's {len(response.body)} bytes are not JSON: {error}") from error
    if not isinstance(content, dict):
        raise VendorProtocolError(f"the answer is a JSON {type(content).__name__}, not an object")
    return content


def _decoded(body: bytes) -> Any:
    # What msgspec reads, json reads in the same way; it takes some things more, and several times as long.
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(body)
    return json.loads(body)


def complaint(content: Mapping[str, Any]) -> str:
    """What an object says of its own not being whole, in words that many use; empty where it says nothing.

    Warnings are not among them: they may be of anything, like that the API ends.
    """
    for name in _NOT_WHOLE:
        if said := content.get(name):
            return f"it says {name if said is True else presentable(json.dumps(said))}"
    status = content.get("status")
    failed = isinstance(status, str) and _FAILED.fullmatch(status) is not None
    if failed or content.get("success") is False:
        return f"it says {presentable(content.get('message') or (status if failed else 'success: false'))}"
    return ""


def json_body(response: Response) -> bytes:
    """An answer's body, where its content type does not say that it is something else than JSON.

    Raises:
        VendorProtocolError: It does.
    """
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise VendorProtocolError(f"the answer is {kind!r}, not JSON; is this the vendor's address?")
    return response.body


def _tells_what_is_left(name: str) -> bool:
    plain = name.lower().removeprefix("x-").replace("-", "").replace("_", "")
    return plain == "ratelimit" or (plain.startswith("ratelimit") and "remaining" in plain)


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value can name something: text, not empty, that UTF-8 can hold (JSON allows half characters)."""
    if not isinstance(value, str) or not value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def reject(reason: str, record: object) -> Rejected:
    """Put a record aside, with its first 2,000 characters, in time that does not grow with it."""
    kept: list[str] = []
    room = RECORD_CHARACTERS
    for piece in _pieces(record, _DEPTH_SHOWN):
        kept.append(piece)
        room -= len(piece)
        if room <= 0:
            break
    return Rejected(reason, "".join(kept)[:RECORD_CHARACTERS])


def _pieces(value: object, depth: int) -> Iterator[str]:
    """A value's JSON text as ``json.dumps`` writes it, bit by bit; what lies too deep is left out."""
    if isinstance(value, str):
        yield json.dumps(value[:RECORD_CHARACTERS])
    elif depth and isinstance(value, Mapping):
        yield "{"
        for number, (name, inner) in enumerate(value.items()):
            yield f"{', ' if number else ''}{json.dumps(str(name)[:RECORD_CHARACTERS])}: "
            yield from _pieces(inner, depth - 1)
        yield "}"
    elif depth and isinstance(value, list | tuple):
        yield "["
        for number, inner in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(inner, depth - 1)
        yield "]"
    else:
        yield json.dumps(value) if isinstance(value, int | float | None) else '"…"'


def field_names(names: Iterable[object]) -> tuple[str, ...]:
    """Names of unknown fields as they can be shown: sorted, not too many, not too long, each in valid Unicode."""
    return tuple(nsmallest(FIELDS_NAMED, {presentable(name, _NAME_SHOWN) for name in names}))


def as_attributes(fields: Mapping[str, object]) -> str:
    """Fields as the text of a JSON object, keys sorted; what JSON cannot hold (NaN, infinity) becomes null."""
    try:
        return _ATTRIBUTES.encode(fields)
    except ValueError:
        finite = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        return json.dumps(finite, sort_keys=True, separators=(",", ":"))


def data_leaf(warrior_id: str, data_group: str, window: Window) -> Leaf:
    """The leaf of one data group of a warrior in a window."""
    start, end = int(window.start.timestamp()), int(window.end.timestamp())
    key = f"{_escaped(warrior_id)}|{_escaped(data_group)}|{start}-{end}"
    return Leaf(key, warrior_id, data_group, window)


def within_bounds(
    planned: PlannedRequest, most_characters: int, split: Callable[[PlannedRequest], list[PlannedRequest]]
) -> Iterator[PlannedRequest]:
    """A request, or the parts of one whose URL, or body, is longer than it may be."""
    length = max(len(planned.request.key), len(planned.request.body))
    parts = split(planned) if length > most_characters else []
    if not parts:
        yield planned
    for part in parts:
        yield from within_bounds(part, most_characters, split)


def group_columns(warrior_id: str, value_names: Mapping[str, list[str]]) -> dict[str, list[object]]:
    """The columns of a warrior's data groups, from the names of their values."""
    return {
        "warrior_id": [warrior_id] * len(value_names),
        "data_group": list(value_names),
        "value_names": list(value_names.values()),
    }


def instant(seconds: int) -> datetime:
    """A UNIX time as an aware datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def halved(several: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Both halves of a sequence."""
    middle = len(several) // 2
    return tuple(several[:middle]), tuple(several[middle:])


def halved_window(window: Window, step: int) -> list[Window]:
    """Both halves of a window, in whole timeslices of ``step`` seconds; none where it has one alone."""
    start, end = (int(edge.timestamp()) for edge in (window.start, window.end))
    middle = start + (end - start) // step // 2 * step
    return (
        [Window(window.start, instant(middle)), Window(instant(middle), window.end)]
        if start < middle < end
        else []
    )


def iso(microseconds: int) -> str:
    """A time since the epoch as text."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat()


def path_segment(text: str) -> str:
    """Any text as one segment of a path, percent-encoded; also ``a/b`` and ``..``."""
    return _escaped(text).replace(".", "%2E") if text in (".", "..") else _escaped(text)
