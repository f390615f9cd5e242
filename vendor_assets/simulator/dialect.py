"""The New Relic REST v2 dialect: paths, paging, granularity and JSON.

Pure: a request target and the time go in, an answer comes out. Sources: New Relic's documentation of
the REST API v2 (metric timeslice data, pagination, overload protection, application status).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from vendor_assets.simulator.data_groups import DataGroup
from vendor_assets.simulator.world import Series, Troop, Warrior, World

Query = list[tuple[str, str]]
Headers = tuple[tuple[str, str], ...]

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

GRANULARITY: tuple[tuple[int, int], ...] = (
    (3 * _HOUR, 60), (6 * _HOUR, 120), (14 * _HOUR, 300), (24 * _HOUR, 600), (4 * _DAY, 1800), (7 * _DAY, _HOUR),
    (21 * _DAY, 3 * _HOUR), (42 * _DAY, 6 * _HOUR), (63 * _DAY, 12 * _HOUR),
)  # fmt: skip
"""Longest range in seconds, and the finest timeslice it is answered with, for data up to 8 days old."""
_COARSEST = 3 * _DAY
_FINE_AGE = 8 * _DAY
_OLD_RANGE = 4 * _DAY
_OLD_POINTS = 10


class Reply(NamedTuple):
    """The response to one request, before limits and faults."""

    endpoint: str
    status: int
    body: bytes
    headers: Headers = ()
    leaves: tuple[str, ...] = ()
    """What a data call answered with data: warrior, data group, range and period of each leaf."""
    queries: int = 0
    """NRQL queries in a document of NerdGraph."""
    queries_refused: int = 0
    partial: bool = False
    """Some fields of a document failed; the leaves are those of its siblings."""
    bucket: str = ""
    """The bucket of Datadog's rate limit, whether it has a limit or not."""
    throttled: bool = False
    """CloudWatch refuses what is too fast with a 400."""


@dataclass
class Dialect:
    """Replies to requests from a world.

    Args:
        gone_after_seconds: A warrior that has been gone for longer is a 404; None keeps it for ever.
    """

    world: World
    base_url: str = ""
    page_size: int = 200
    data_page_size: int = 100
    link_last: bool = True
    retention_days: float = 395.0
    gone_after_seconds: float | None = None
    settle_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._minute = -1
        self._lists: dict[str, Reply] = {}
        self._rosters: dict[str, list[Warrior]] = {}

    def reply(self, target: str, now: float) -> Reply:
        """Reply to a GET for a request target, such as ``/v2/applications.json?page=2``.

        Lists change on whole minutes only, so their answers are kept for the current minute.
        """
        minute = int(now) // 60
        if minute != self._minute:
            self._minute = minute
            self._lists.clear()
            self._rosters.clear()
        reply = self._lists.get(target)
        if reply is None:
            reply = self._reply(target, now)
            if reply.endpoint != "data" and len(self._lists) < 10_000:
                self._lists[target] = reply
        return reply

    def visible(self, now: float) -> tuple[float, float]:
        """The start of the retention, and until when data is settled."""
        return now - self.retention_days * _DAY, now - self.settle_seconds

    def _reply(self, target: str, now: float) -> Reply:
        parts = urlsplit(target)
        segments = [unquote(segment) for segment in parts.path.split("/")[1:]]
        query = parse_qsl(parts.query, keep_blank_values=True)
        match segments:
            case ["v2", "applications.json"]:
                return self._applications(target, query, now)
            case ["v2", "applications", troop_id, "hosts.json"]:
                return self._hosts(target, query, troop_id, now)
            case ["v2", "applications", troop_id, "hosts", warrior_id, "metrics.json"]:
                return self._metrics(target, query, troop_id, warrior_id, now)
            case ["v2", "applications", troop_id, "hosts", warrior_id, "metrics", "data.json"]:
                return self._data(target, query, troop_id, warrior_id, now)
        return error_reply("unknown", 404, "The requested path was not found.")

    def _applications(self, target: str, query: Query, now: float) -> Reply:
        troops = self.world.troops(now)
        shown, headers = self._page(target, query, len(troops), self.page_size)
        body = {"applications": [self._application(troop, now) for troop in troops[shown]]}
        return Reply("applications", 200, _json(body), headers)

    def _hosts(self, target: str, query: Query, troop_id: str, now: float) -> Reply:
        troop = self.world.troop(troop_id, now)
        if troop is None:
            return error_reply("hosts", 404, f"Application {troop_id} was not found.")
        warriors = self._roster(troop_id, now)
        shown, headers = self._page(target, query, len(warriors), self.page_size)
        body = {"application_hosts": [self._host(troop, warrior, now) for warrior in warriors[shown]]}
        return Reply("hosts", 200, _json(body), headers)

    def _metrics(self, target: str, query: Query, troop_id: str, warrior_id: str, now: float) -> Reply:
        if self._warrior(troop_id, warrior_id, now) is None:
            return error_reply("metrics", 404, f"Host {warrior_id} of application {troop_id} was not found.")
        wanted = dict(query).get("name", "")
        groups = [group for group in self.world.data_groups(warrior_id) if wanted in group.name]
        shown, headers = self._page(target, query, len(groups), self.page_size)
        body = {
            "metrics": [{"name": group.name, "values": list(group.value_names)} for group in groups[shown]]
        }
        return Reply("metrics", 200, _json(body), headers)

    def _data(self, target: str, query: Query, troop_id: str, warrior_id: str, now: float) -> Reply:
        if self._warrior(troop_id, warrior_id, now) is None:
            return error_reply("data", 404, f"Host {warrior_id} of application {troop_id} was not found.")
        names = list(dict.fromkeys(text for key, text in query if key in ("names[]", "names")))
        only = {text for key, text in query if key in ("values[]", "values")}
        single = dict(query)
        if not names:
            return error_reply("data", 422, "At least one metric name is needed: names[].")
        try:
            end = _parse_time(single["to"]) if "to" in single else now
            start = _parse_time(single["from"]) if "from" in single else end - 1800
            period = int(single.get("period") or 0)
        except (ValueError, OverflowError):
            return error_reply("data", 422, "from, to or period could not be read.")
        if end - start < _MINUTE:
            return error_reply("data", 422, "The time range must be at least one minute.")
        first, step = timeslice_grid(start, end, period, now)
        slices = [(begin, begin + step) for begin in range(first, math.ceil(end), step)]
        if len(slices) > 100_000:
            return error_reply("data", 422, "The time range is too long.")
        earliest, visible = self.visible(now)
        if start < earliest:
            visible = 0.0
        shown, headers = self._page(target, query, len(names), self.data_page_size)
        found, missing, pieces, leaves = [], [], [], []
        for name in names[shown]:
            series = self.world.series(warrior_id, name)
            piece = _timeslices(series, slices, only, visible) if series is not None else ""
            if not piece:
                missing.append(name)
            else:
                found.append(name)
                pieces.append(f'{{"name":{json.dumps(name)},"timeslices":[{piece}]}}')
            leaves.append(f"{warrior_id} {name} {start:.0f}-{end:.0f}/{step}")
        body = (
            f'{{"metric_data":{{"from":"{_iso(first)}","to":"{_iso(slices[-1][1])}",'
            f'"metrics_not_found":{json.dumps(missing)},"metrics_found":{json.dumps(found)},'
            f'"metrics":[{",".join(pieces)}]}}}}'
        )
        return Reply("data", 200, body.encode(), headers, tuple(leaves))

    def _roster(self, troop_id: str, now: float) -> list[Warrior]:
        """The warriors alive at this minute; kept, since a large troop's list has many pages."""
        if troop_id not in self._rosters:
            self._rosters[troop_id] = self.world.warriors(troop_id, now)
        return self._rosters[troop_id]

    def _warrior(self, troop_id: str, warrior_id: str, now: float) -> Warrior | None:
        warrior = self.world.warrior(warrior_id)
        if warrior is None or warrior.troop_id != troop_id or warrior.born > now:
            return None
        if self.gone_after_seconds is not None and warrior.died + self.gone_after_seconds <= now:
            return None
        return warrior

    def _page(self, target: str, query: Query, total: int, size: int) -> tuple[slice, Headers]:
        number = page_of(query)
        shown = slice((number - 1) * size, number * size)
        last = max(1, math.ceil(total / size))
        if last == 1:
            return shown, ()
        links = []
        if number > 1:
            links += [(1, "first"), (number - 1, "prev")]
        if number < last:
            links.append((number + 1, "next"))
            if self.link_last:
                links.append((last, "last"))
        return shown, (("Link", link_header(self.base_url, target, links)),)

    def _application(self, troop: Troop, now: float) -> dict[str, object]:
        warriors = self._roster(troop.id, now)
        return {
            "id": _json_id(troop.id),
            "name": troop.name,
            "language": troop.language,
            "health_status": "green" if warriors else "gray",
            "reporting": bool(warriors),
            "last_reported_at": _iso(int(now) // 60 * 60) if warriors else None,
            "application_summary": self._summary(warriors, now)
            | {"apdex_target": 0.5, "host_count": len(warriors), "instance_count": len(warriors)},
            "settings": {
                "app_apdex_threshold": 0.5,
                "end_user_apdex_threshold": 7.0,
                "enable_real_user_monitoring": False,
                "use_server_side_config": False,
            },
            "links": {
                "application_instances": [],
                "servers": [],
                "application_hosts": [_json_id(warrior.id) for warrior in warriors],
            },
        }

    def _host(self, troop: Troop, warrior: Warrior, now: float) -> dict[str, object]:
        return {
            "id": _json_id(warrior.id),
            "application_name": troop.name,
            "host": warrior.host,
            "language": troop.language,
            "health_status": "green",
            "application_summary": self._summary([warrior], now) | {"instance_count": 1},
            "links": {"application": _json_id(troop.id), "application_instances": [], "server": None},
        }

    def _summary(self, warriors: list[Warrior], now: float) -> dict[str, object]:
        """The last five minutes of the first warrior."""
        minute = int(now) // 60 * 60
        slices = [
            piece.values
            for warrior in warriors[:1]
            for piece in self.world.timeslices(warrior.id, "HttpDispatcher", minute - 300, minute, 300)
        ]
        return {
            "response_time": slices[0]["average_response_time"] if slices else 0.0,
            "throughput": slices[0]["calls_per_minute"] if slices else 0.0,
            "error_rate": 0.0,
            "apdex_score": 1.0,
        }


def timeslice_grid(start: float, end: float, period: int, now: float) -> tuple[int, int]:
    """First timeslice and its length, in seconds, for a range asked at ``now``.

    Data at most 8 days old comes in the finest slices that the length of the range allows, aligned in
    UTC. Of older data, ranges up to 4 days come as 10 even slices from the start of the range. A longer
    period is rounded up to a multiple of that.
    """
    length = end - start
    if now - start > _FINE_AGE and length <= _OLD_RANGE:
        finest = max(_MINUTE, int(length) // _OLD_POINTS)
        step = max(1, math.ceil(period / finest)) * finest
        return int(start), step
    finest = next((step for longest, step in GRANULARITY if length <= longest), _COARSEST)
    step = max(1, math.ceil(period / finest)) * finest
    return int(start // step) * step, step


def page_of(query: Query) -> int:
    """The page asked for; 1 where none is, or none that can be read."""
    text = dict(query).get("page", "1")
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 10 else 1


def link_header(base_url: str, target: str, links: list[tuple[int, str]]) -> str:
    """An RFC 5988 ``Link`` to other pages of the same request."""
    parts = urlsplit(target)
    kept = [(key, text) for key, text in parse_qsl(parts.query, keep_blank_values=True) if key != "page"]
    texts = []
    for number, relation in links:
        pairs = [*kept, ("page", str(number))]
        query = "&".join(f"{quote(key, safe='[]')}={quote(text, safe='')}" for key, text in pairs)
        texts.append(f'<{base_url}{parts.path}?{query}>; rel="{relation}"')
    return ", ".join(texts)


def error_reply(endpoint: str, status: int, title: str, headers: Headers = ()) -> Reply:
    """An error as New Relic words it in JSON."""
    return Reply(endpoint, status, _json({"error": {"title": title}}), headers)


def _timeslices(series: Series, slices: list[tuple[int, int]], only: set[str], visible_until: float) -> str:
    shape = _shape(series.group, frozenset(only))
    if shape is None:
        return ""
    template, chosen = shape
    pieces = []
    for start, end in slices:
        values = series.values(start, end, visible_until)
        if values is None:
            continue
        if chosen is not None:
            values = tuple(values[index] for index in chosen)
        pieces.append(_edges(start, end) + template % values)
    return ",".join(pieces)


@lru_cache(maxsize=4096)
def _shape(group: DataGroup, only: frozenset[str]) -> tuple[str, tuple[int, ...] | None] | None:
    """A template for the values of one slice, and which values it shows; None where it shows none."""
    names = group.value_names
    chosen = tuple(index for index, name in enumerate(names) if not only or name in only)
    if not chosen:
        return None
    template = ",".join(f"{json.dumps(names[index]).replace('%', '%%')}:%r" for index in chosen) + "}}"
    return template, None if len(chosen) == len(names) else chosen


@lru_cache(maxsize=65_536)
def _edges(start: int, end: int) -> str:
    return f'{{"from":"{_iso(start)}","to":"{_iso(end)}","values":{{'


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _parse_time(text: str) -> float:
    """UNIX seconds of an ISO 8601 time; without an offset it is UTC, a space stands for a lost plus."""
    moment = datetime.fromisoformat(text.replace(" ", "+"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _json_id(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
