"""The running vendor: limits, load, faults, and the control endpoints, which do not count as vendor calls.

==========================  ====================================================================
``GET log``                 what was counted (``?arrivals=1`` adds each arrival's time)
``GET state``               clock, world, limit and faults in force
``POST faults``             a JSON list of faults to add; ``DELETE`` removes all
``POST limit``              ``{"limits": ["20/s"], "kind": "sliding", "burst": 1}``
``POST nerdgraph``          ``{"requests_at_once": 2, "queries_per_minute": 10}``: fields of ``Rules``
``POST datadog``            ``{"limits": ["metrics_query=40/5"]}``; other buckets have none then
``POST cloudwatch``         ``{"get_metric_data": 5, "page": 20}``: fields of its ``Rules``
``POST load``               ``{"latency": 0.02, "capacity": 50, "collapse_factor": 3}``
``POST clock``              ``{"now": "2026-11-20T00:00:00Z"}`` or ``{"advance": 3600}``
``POST restate``            ``{"day": "2026-11-20", "factor": 1.1}``: late data for a UTC day
``POST reset``              forget what was counted, remove all faults
==========================  ====================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from vendor_assets.simulator import cloudwatch, datadog, sigv4
from vendor_assets.simulator.cloudwatch import CloudWatch
from vendor_assets.simulator.datadog import Datadog, parse_limits
from vendor_assets.simulator.dialect import Dialect, Headers, Reply, error_reply, link_header, page_of
from vendor_assets.simulator.faults import Fault, Faults, parse_fault, spoil
from vendor_assets.simulator.limits import Buckets, Meter, RateLimit, parse_limit
from vendor_assets.simulator.load import Load
from vendor_assets.simulator.nerdgraph import TARGET, NerdGraph, Rules, refusal, refuse_key
from vendor_assets.simulator.record import Record

CONTROL = "/_control/"
_TARGET_LIMIT = 8190


class Clock:
    """The vendor's wall clock: real, or set to another time and running from there."""

    def __init__(self, now: float | None = None) -> None:
        self._offset = 0.0 if now is None else now - time.time()

    def now(self) -> float:
        """UNIX seconds."""
        return time.time() + self._offset

    def set(self, now: float) -> None:
        """Go on from another time."""
        self._offset = now - time.time()


@dataclass(slots=True)
class Style:
    """How the vendor speaks of its limit.

    Args:
        headers: When it sends rate-limit headers: ``always``, ``limited`` (only on a 429) or ``never``.
        form: ``newrelic`` (Reset is a UNIX timestamp) or ``datadog`` (Reset is seconds until then).
        retry_after: ``seconds``, ``fraction``, ``date``, ``none``, or words that make no sense:
            ``garbage``, ``negative``, ``year``.
        collapse: What callers see of a collapsed vendor: ``503``, ``reset`` or ``refuse``.
    """

    headers: str = "limited"
    form: str = "newrelic"
    retry_after: str = "none"
    collapse: str = "503"


@dataclass(slots=True)
class Call:
    """A request, and when it arrived."""

    arrived: float
    method: str
    target: str
    key: str
    keep_alive: bool
    body: bytes = b""
    application_key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""

    @property
    def request(self) -> str:
        """What tells it from others: the target, with a digest of a document."""
        if endpoint_of(self.target) not in ("graphql", "datadog.timeseries", "cloudwatch"):
            return self.target
        return f"{self.target.partition('?')[0]}?document={hashlib.sha256(self.body).hexdigest()[:16]}"


@dataclass
class Vendor:
    """The state of the running vendor, and the reply to every request."""

    dialect: Dialect
    clock: Clock
    limit: RateLimit
    load: Load
    faults: Faults
    record: Record
    style: Style
    api_key: str | None = None
    application_key: str | None = None
    rules: Rules = field(default_factory=Rules)
    buckets: Buckets = field(default_factory=parse_limits)
    cloudwatch_rules: cloudwatch.Rules = field(default_factory=cloudwatch.Rules)

    def __post_init__(self) -> None:
        self._datadog = Datadog(self.dialect)
        self._cloudwatch = CloudWatch(self.dialect, self.cloudwatch_rules)
        self._nerdgraph = NerdGraph(self.dialect, self.faults, self.rules)
        self._zero = time.monotonic()
        self._down_until = 0.0
        self._down_mode = "503"
        self._date = (0, "")
        self.refuse: Callable[[float], None] = lambda _seconds: None

    def elapsed(self) -> float:
        """Seconds since the start, monotonic."""
        return time.monotonic() - self._zero

    # Vendor calls

    def judge(self, call: Call) -> tuple[Reply, Fault | None, float]:
        """The reply to a vendor call, the fault that hits it, and the seconds until it is ready."""
        arrived, endpoint = call.arrived, endpoint_of(call.target)
        if self.load.offer(arrived):
            self.start_outage("collapse", self.load.collapse_seconds, self.style.collapse)
        if arrived < self._down_until:
            if self._down_mode == "503":
                refuse = _REFUSALS.get(endpoint.partition(".")[0], error_reply)
                return refuse(endpoint, 503, "The service is unavailable."), None, 0.0
            return Reply(endpoint, 503, b""), Fault("reset"), 0.0
        if endpoint == "graphql":
            return self._judge_document(call)
        if endpoint.startswith("datadog"):
            return self._judge_datadog(call, endpoint)
        if endpoint == "cloudwatch" and call.method == "POST":
            return self._judge_cloudwatch(call)
        if not call.key or (self.api_key is not None and call.key != self.api_key):
            return error_reply(endpoint, 401, "The API key provided is invalid"), None, 0.0
        if len(call.target) > _TARGET_LIMIT:
            return error_reply(endpoint, 414, "The request line is too long."), None, 0.0
        if call.method != "GET":
            return error_reply(endpoint, 405, "Only GET is allowed."), None, 0.0
        admitted, meter = self.limit.admit(endpoint, arrived)
        fault = self.faults.pick(call.target, refused=not admitted)
        skew = (fault.seconds or 3600.0) if fault and not admitted else 0.0
        headers = self._limit_headers(meter, arrived, admitted=admitted, skew=skew)
        if not admitted:
            title = "Too many requests: the limit of API calls is exceeded."
            return error_reply(endpoint, 429, title, headers), fault, 0.0
        reply = self._reply(call.target, endpoint, fault)
        return reply._replace(headers=reply.headers + headers), fault, self.load.delay(arrived)

    def _judge_document(self, call: Call) -> tuple[Reply, Fault | None, float]:
        """As :meth:`judge`: NerdGraph limits requests at once, not their rate."""
        if not call.key or (self.api_key is not None and call.key != self.api_key):
            return refuse_key(call.key), None, 0.0
        if call.method != "POST":
            return refusal(405, "Only POST is allowed."), None, 0.0
        admitted = self.record.documents_in_flight <= self.rules.requests_at_once
        subject = f"{call.target} {call.body.decode(errors='replace')}"
        fault = self.faults.pick(subject, refused=not admitted)
        if not admitted:
            return refusal(429, "Too many concurrent requests"), fault, 0.0
        reply = self._faulty("graphql", fault)
        if reply is None:
            kind = fault.kind if fault else ""
            reply = self._nerdgraph.reply(call.body, self.clock.now(), call.arrived, kind)
            self.record.ask(call.arrived, reply.queries, reply.queries_refused)
            if reply.status == 200:
                reply = reply._replace(body=spoil(kind, reply.body))
        return reply, fault, self.load.delay(call.arrived)

    def _judge_datadog(self, call: Call, endpoint: str) -> tuple[Reply, Fault | None, float]:
        """As :meth:`judge`: Datadog limits each bucket of endpoints in windows of the calendar."""
        wrong = self.api_key is not None and call.key != self.api_key
        if endpoint != "datadog.validate":
            wrong |= self.application_key is not None and call.application_key != self.application_key
            wrong |= not call.application_key
        if wrong or not call.key:
            return datadog.refuse_key(endpoint, call.key, call.application_key), None, 0.0
        if len(call.target) > _TARGET_LIMIT:
            return datadog.refuse(endpoint, 414, "Request-URI Too Long"), None, 0.0
        if call.method != ("POST" if endpoint == "datadog.timeseries" else "GET"):
            return datadog.refuse(endpoint, 405, "Method Not Allowed"), None, 0.0
        now, bucket = self.clock.now(), datadog.BUCKETS.get(endpoint, "")
        admitted, headers = self._judge_bucket(bucket, now)
        fault = self.faults.pick(f"{call.target} {call.body.decode(errors='replace')}", refused=not admitted)
        if not admitted:
            reply = datadog.refuse(endpoint, 429, "Too many requests")
            return reply._replace(headers=headers, bucket=bucket), fault, 0.0
        kind = fault.kind if fault else ""
        faulty = self._faulty(endpoint, fault, datadog.refuse)
        reply = faulty or self._datadog.reply(endpoint, call.target, call.body, now, kind)
        if faulty is None and reply.status == 200:
            reply = reply._replace(body=spoil(kind, reply.body))
        reply = reply._replace(headers=reply.headers + headers, bucket=bucket)
        return reply, fault, self.load.delay(call.arrived)

    def _judge_cloudwatch(self, call: Call) -> tuple[Reply, Fault | None, float]:
        """As :meth:`judge`: CloudWatch tells who asks by a signature, and what by a header.

        Dates are judged by the real clock, whatever the vendor's: others sign by it too.
        """
        endpoint = cloudwatch.endpoint_of(call.headers)
        fault = self.faults.pick(f"{endpoint} {call.body.decode(errors='replace')}")
        kind = fault.kind if fault else ""
        skew = (fault.seconds or 3600.0) if fault and kind == "clock_skew" else 0.0
        signer = sigv4.Signer(self.api_key, self.application_key, self.cloudwatch_rules.region, "monitoring")
        refused = sigv4.check(call.method, call.target, call.headers, call.body, signer, time.time() + skew)
        if refused is not None:
            return cloudwatch.refuse(endpoint, refused.status, refused.message, refused.code), fault, 0.0
        reply = self._faulty(endpoint, fault, cloudwatch.refuse)
        if reply is None:
            reply = self._cloudwatch.reply(endpoint, call.body, self.clock.now(), call.arrived, kind)
            if reply.status == 200:
                reply = reply._replace(body=spoil(kind, reply.body))
        return reply, fault, self.load.delay(call.arrived)

    def _judge_bucket(self, bucket: str, now: float) -> tuple[bool, Headers]:
        """Whether a bucket admits a call, and the headers that say so; none where it has no limit."""
        limit = self.buckets.limits.get(bucket)
        if limit is None:
            return True, ()
        admitted, remaining = self.buckets.admit(bucket, now)
        self.record.judge(limit, now, admitted=admitted)
        return admitted, (
            ("X-RateLimit-Limit", str(limit.calls)),
            ("X-RateLimit-Period", str(limit.period)),
            ("X-RateLimit-Remaining", str(remaining)),
            ("X-RateLimit-Reset", str(limit.start_of(now) + limit.period - int(now))),
            ("X-RateLimit-Name", bucket),
        )

    def _faulty(
        self, endpoint: str, fault: Fault | None, refuse: Callable[[str, int, str], Reply] = error_reply
    ) -> Reply | None:
        """The reply of a fault that leaves no room for the right one; None otherwise."""
        if fault and fault.kind == "status":
            return refuse(endpoint, fault.status, phrase_of(fault.status))
        if fault and fault.kind == "redirect":
            return Reply(endpoint, 302, b"", (("Location", fault.location),))
        if fault and fault.kind == "retry_after":
            reply = refuse(endpoint, 503, "The service is unavailable.")
            return reply._replace(headers=(("Retry-After", fault.value),))
        return None

    def _reply(self, target: str, endpoint: str, fault: Fault | None) -> Reply:
        now = self.clock.now()
        kind = fault.kind if fault else ""
        faulty = self._faulty(endpoint, fault)
        if faulty is not None:
            return faulty
        if kind in ("endless_paging", "repeating_page"):
            path, query = urlsplit(target).path, parse_qsl(urlsplit(target).query)
            source = target
            if kind == "repeating_page":
                source = f"{path}?" + "&".join(f"{name}={text}" for name, text in query if name != "page")
            link = link_header(self.dialect.base_url, target, [(page_of(query) + 1, "next")])
            return self.dialect.reply(source, now)._replace(headers=(("Link", link),))
        reply = self.dialect.reply(target, now)
        return reply._replace(body=spoil(kind, reply.body)) if kind and reply.status == 200 else reply

    def _limit_headers(self, meter: Meter | None, now: float, *, admitted: bool, skew: float) -> Headers:
        style = self.style
        if meter is None:
            return ()
        headers: list[tuple[str, str]] = []
        wait = meter.reset_in(now)
        if style.headers == "always" or (style.headers == "limited" and not admitted):
            remaining = str(meter.remaining(now) if admitted else 0)
            headers += [("X-RateLimit-Limit", str(meter.limit.calls)), ("X-RateLimit-Remaining", remaining)]
            if style.form == "newrelic":
                headers.append(("X-RateLimit-Reset", str(math.ceil(self.clock.now() + wait + skew))))
            else:
                headers += [
                    ("X-RateLimit-Reset", str(math.ceil(wait))),
                    ("X-RateLimit-Period", f"{meter.limit.period:g}"),
                    ("X-RateLimit-Name", "api"),
                ]
        if not admitted and style.retry_after != "none":
            texts = {
                "seconds": str(math.ceil(wait)),
                "fraction": f"{wait:.3f}",
                "date": formatdate(math.ceil(self.clock.now() + wait + skew), usegmt=True),
                "garbage": "soon",
                "negative": "-5",
                "year": "31536000",
            }
            headers.append(("Retry-After", texts[style.retry_after]))
        return tuple(headers)

    def start_outage(self, kind: str, seconds: float, mode: str) -> None:
        """Go down for a while."""
        now = self.elapsed()
        self._down_until = now + seconds
        self._down_mode = mode
        self.record.outage(kind, now, seconds)
        if mode == "refuse":
            self.refuse(seconds)

    def date(self, skew: float = 0.0) -> str:
        """The Date header."""
        now = int(self.clock.now() + skew)
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    # Control

    def control(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        """Reply to a control request: status and JSON."""
        parts = urlsplit(target)
        name = parts.path.removeprefix(CONTROL)
        try:
            values = json.loads(body) if body else {}
            match method, name:
                case "GET", "log":
                    return 200, self.log(arrivals="arrivals" in dict(parse_qsl(parts.query)))
                case "GET", "state":
                    return 200, self.state()
                case "POST", "faults":
                    return 200, self._add_faults(values)
                case "DELETE", "faults":
                    self._heal()
                    return 200, {"faults": []}
                case "POST", "limit":
                    self._set_limit(values)
                    return 200, {"limit": str(self.limit)}
                case "POST", "nerdgraph":
                    return 200, _set_rules(self.rules, values)
                case "POST", "cloudwatch":
                    return 200, _set_rules(self.cloudwatch_rules, values)
                case "POST", "datadog":
                    self.buckets = parse_limits(values["limits"])
                    return 200, [limit._asdict() for limit in self.buckets.limits.values()]
                case "POST", "load":
                    self._set_load(values)
                    return 200, self.state()
                case "POST", "clock":
                    return 200, self._set_clock(values)
                case "POST", "restate":
                    self.dialect.world.restate(date.fromisoformat(values["day"]), float(values["factor"]))
                    return 200, {}
                case "POST", "reset":
                    self._heal()
                    self.faults.hits.clear()
                    self.record.clear()
                    return 200, {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return 400, {"error": str(error)}
        return 404, {"error": f"no control endpoint {method} {parts.path}"}

    def log(self, *, arrivals: bool = False) -> dict[str, object]:
        """The vendor's own log."""
        return self.record.summary(self.elapsed(), arrivals=arrivals) | {
            "limit": str(self.limit),
            "faults": dict(self.faults.hits),
            "now": _iso(self.clock.now()),
        }

    def _heal(self) -> None:
        self.faults.clear()
        self._down_until = 0.0

    def state(self) -> dict[str, object]:
        """Clock, limit, load and faults in force."""
        return {
            "now": _iso(self.clock.now()),
            "limit": str(self.limit),
            "latency": self.load.latency_seconds,
            "capacity": self.load.capacity,
            "collapse_factor": self.load.collapse_factor,
            "down": self.elapsed() < self._down_until,
            "faults": [asdict(rule) for rule in self.faults],
            "seed": self.dialect.world.seed,
        }

    def _add_faults(self, values: Any) -> object:
        rules = [parse_fault(item) for item in (values if isinstance(values, list) else [values])]
        self.faults.add(rules)
        for rule in rules:
            if rule.kind == "outage":
                self.faults.hits["outage"] += 1
                self.start_outage("fault", 30.0 if rule.seconds is None else rule.seconds, rule.mode)
        return {"faults": [asdict(rule) for rule in self.faults]}

    def _set_limit(self, values: dict[str, object]) -> None:
        texts = values.get("limits", [values["limit"]] if "limit" in values else [])
        if not isinstance(texts, list):
            raise TypeError("limits is not a list such as ['20/s']")
        kind = values.get("kind", self.limit.kind)
        if kind not in ("bucket", "fixed", "sliding", "none"):
            raise ValueError(f"kind {kind!r} is not bucket, fixed, sliding or none")
        burst = None if values.get("burst") is None else int(str(values["burst"]))
        limits = [parse_limit(str(text)) for text in texts] or self.limit.limits
        self.limit = RateLimit(limits, kind, burst)

    def _set_load(self, values: dict[str, object]) -> None:
        numbers = {name: None if value is None else float(str(value)) for name, value in values.items()}
        old = self.load
        self.load = Load(
            numbers.pop("latency", old.latency_seconds) or 0.0,
            numbers.pop("capacity", old.capacity),
            numbers.pop("collapse_factor", old.collapse_factor),
            numbers.pop("collapse_seconds", old.collapse_seconds) or 0.0,
        )
        if numbers:
            raise ValueError(f"unknown: {', '.join(numbers)}")

    def _set_clock(self, values: dict[str, object]) -> object:
        if "now" in values:
            self.clock.set(parse_iso(str(values["now"])))
        else:
            self.clock.set(self.clock.now() + float(str(values["advance"])))
        return {"now": _iso(self.clock.now())}


_REFUSALS: dict[str, Callable[[str, int, str], Reply]] = {
    "datadog": datadog.refuse,
    "cloudwatch": cloudwatch.refuse,
}


def _set_rules(rules: Rules | cloudwatch.Rules, values: dict[str, object]) -> object:
    known = {one.name for one in fields(rules)}
    if not values.keys() <= known:
        raise ValueError(f"unknown: {', '.join(values.keys() - known)}")
    for name, value in values.items():
        setattr(rules, name, type(getattr(rules, name))(str(value)))
    return asdict(rules)


def parse_iso(text: str) -> float:
    """UNIX seconds of an ISO 8601 time; without an offset it is UTC.

    Raises:
        ValueError: It is no such time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def phrase_of(status: int) -> str:
    """A status in words."""
    with suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unknown"


def key_headers_of(target: str) -> tuple[str, str]:
    """The names of the headers that hold the API key and, for Datadog, the application key."""
    endpoint = endpoint_of(target)
    if endpoint.startswith("datadog"):
        return "dd-api-key", "dd-application-key"
    if endpoint == "cloudwatch":
        return "authorization", ""
    return ("api-key" if endpoint == "graphql" else "x-api-key"), ""


def endpoint_of(target: str) -> str:
    """The endpoint that limits and counts are kept by."""
    path = target.partition("?")[0]
    if path == TARGET:
        return "graphql"
    if path == cloudwatch.PATH:
        return "cloudwatch"
    if path.startswith(datadog.PREFIX):
        return datadog.endpoint_of(path)
    if path.endswith("/metrics/data.json"):
        return "data"
    names = {"applications.json": "applications", "hosts.json": "hosts", "metrics.json": "metrics"}
    return names.get(path.rpartition("/")[2], "unknown")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
