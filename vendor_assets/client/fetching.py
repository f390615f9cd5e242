"""Fetching one answer: budget, attempts, backoff, redirects, and what it all cost."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Generic, Literal, NoReturn, Protocol, TypeVar
from urllib.parse import quote, quote_plus, urlencode, urljoin, urlsplit

from vendor_assets.budget.headers import answer_time, header
from vendor_assets.client.transport import Answer, Transport
from vendor_assets.errors import (
    ConfigurationError,
    StoppedError,
    VendorError,
    VendorNotFoundError,
    VendorProtocolError,
    VendorRejectedError,
    VendorThrottledError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.vendors.base import Request, Response, Vendor

T = TypeVar("T")
WorkClass = Literal["scheduled", "backfill"]

BACKOFF_FIRST_SECONDS: Final = 0.5
BACKOFF_MOST_SECONDS: Final = 30.0
MAX_REDIRECTS: Final = 3
EXCERPT_CHARACTERS: Final = 2000

_TRANSIENT: Final = frozenset((408, 425))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class Slot(Protocol):
    """Permission for one call."""

    @property
    def waited_seconds(self) -> float:
        """How long the caller waited for it."""
        ...

    def observe(self, *, status: int | None, headers: Mapping[str, str], seconds: float, error: bool) -> None:
        """Tell what became of the call; ``error`` means that no complete answer came."""
        ...


class Budget(Protocol):
    """What the client needs of the shared budget."""

    def slot(
        self, *, endpoint: str, work_class: WorkClass, deadline_seconds: float | None = None
    ) -> AbstractContextManager[Slot]:
        """Wait for permission; the call is in flight while the block lasts."""
        ...


@dataclass
class Fetched(Generic[T]):
    """An answer and what it cost.

    Attributes:
        response: The answer, status 200.
        value: What ``check`` made of it.
        attempts: Calls sent, the first included.
        throttled: Of these, those answered with 429, or with 503 and Retry-After.
        waited_seconds: Time waited for the budget.
        seconds: Time from the first wait to the answer.
        bytes: Bytes of bodies, over all attempts.
    """

    response: Response
    value: T | None
    attempts: int
    throttled: int
    waited_seconds: float
    seconds: float
    bytes: int


@dataclass
class Counts:
    """What a client has spent so far.

    Attributes:
        calls: Attempts sent.
        retries: Of these, those after a request's first.
        throttled: Of these, those answered with 429, or with 503 and Retry-After.
        bytes: Bytes of bodies.
        paced_seconds: Time waited for the budget, summed over threads.
        by_endpoint: Calls per endpoint.
    """

    calls: int = 0
    retries: int = 0
    throttled: int = 0
    bytes: int = 0
    paced_seconds: float = 0.0
    by_endpoint: dict[str, int] = field(default_factory=dict)


@dataclass
class _Spent:
    """What one fetch has spent so far."""

    started: float
    attempts: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    bytes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


class VendorClient:
    """Fetches from one vendor account. Thread-safe; the only owner of retries.

    Args:
        base_url: The vendor's address; the key is sent to this host only.
        api_key: Its key; never shown in an error, a log or a repr.
        vendor: Which headers carry the key, which headers of an answer are kept.
        budget: Asked before every attempt, told after it.
        max_in_flight: How many connections are kept.
        attempt_timeout_seconds: From sending to the last byte, all in all.
        connect_timeout_seconds: For the connection alone.
        max_body_bytes: Largest body that is read, after decoding.
        max_attempts: The first included; one fresh try after an unreadable answer comes on top.
        retry_budget_seconds: After this long, without the time waited for the budget, no more retries.
        ca_bundle: Path of the certificates to trust; empty for those of certifi.
        sleep: Waits between attempts; by default until the time is over or ``stop`` is set.
        clock: Monotonic seconds.
        now: The wall clock, aware.
        jitter: Picks a wait between 0 and the given seconds.
        stop: Once set, no new attempt is sent; those in flight are finished.

    Raises:
        ConfigurationError: The URL or the key cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        vendor: Vendor,
        budget: Budget,
        max_in_flight: int,
        attempt_timeout_seconds: float = 30.0,
        connect_timeout_seconds: float = 5.0,
        max_body_bytes: int = 64 * 1024 * 1024,
        max_attempts: int = 5,
        retry_budget_seconds: float = 300.0,
        ca_bundle: str = "",
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[float], float] = lambda most: random.uniform(0, most),  # noqa: S311
        stop: threading.Event | None = None,
    ) -> None:
        if any(not ("!" <= character <= "~") for character in api_key):
            message = (
                "the API key has characters that a header cannot carry (blanks, line ends, others than ASCII)"
            )
            raise ConfigurationError(message)
        self._transport = Transport(
            base_url,
            vendor.auth_headers(api_key),
            pool_size=max_in_flight,
            attempt_timeout_seconds=attempt_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
            max_body_bytes=max_body_bytes,
            ca_bundle=ca_bundle,
        )
        self.base_url = self._transport.base_url
        self._origin = _origin(self.base_url)
        self._vendor = vendor
        self._budget = budget
        self._max_attempts = max_attempts
        self._retry_budget_seconds = retry_budget_seconds
        self._stop = stop or threading.Event()
        self._sleep = sleep or self._stop.wait
        self._clock = clock
        self._now = now
        self._jitter = jitter
        forms = sorted({api_key, quote(api_key, safe=""), quote_plus(api_key)} - {""}, key=len, reverse=True)
        self._secret = re.compile("|".join(map(re.escape, forms)), re.IGNORECASE) if forms else None
        self._lock = threading.Lock()
        self._counts = Counts()
        self._dated: tuple[str, datetime] | None = None

    def __repr__(self) -> str:
        return f"VendorClient({self.base_url!r}, {self._vendor.kind})"

    @property
    def counts(self) -> Counts:
        """What all fetches together have spent so far: a copy."""
        with self._lock:
            return replace(self._counts, by_endpoint=dict(self._counts.by_endpoint))

    @property
    def vendor_ahead_seconds(self) -> float | None:
        """How far the vendor's clock is ahead of ours by its newest answer (whole seconds); None without a date."""
        if self._dated is None:
            return None
        date, at = self._dated
        return (answer_time({"Date": date}, at) - at).total_seconds()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def fetch(
        self, request: Request, *, work_class: str = "scheduled", check: Callable[[Response], T] | None = None
    ) -> Fetched[T]:
        """Ask until there is an answer, as often and as fast as the budget and the rules of retrying permit.

        Connection failures, timeouts, broken bodies, 408, 425, 429 and 5xx are tried again after a random part of
        a doubling wait; an unreadable answer is tried once more; anything else is final.

        Args:
            request: What to ask.
            work_class: ``backfill`` gives way where the budget is short; anything else counts as ``scheduled``.
            check: Reads the answer; a VendorProtocolError means that it cannot be understood. Called outside of the
                budget's slot.

        Raises:
            VendorError: The subclass says why; status, attempts, throttled, waited_seconds, bytes, first_at, last_at
                and an excerpt without the key are its attributes.
            ConfigurationError: The host's certificate is not trusted.
            BudgetError: The budget gave no slot.
            StoppedError: ``stop`` was set before an attempt could be sent.
        """
        spent = _Spent(self._clock())
        kind: WorkClass = "backfill" if work_class == "backfill" else "scheduled"
        failures = unreadable = 0
        while True:
            excerpt = b""
            try:
                answer = self._ask(request, kind, spent)
                excerpt = answer.body
                if answer.status != 200:
                    raise _error_of(answer)
                response = Response(answer.status, self._kept(answer), answer.body, self._now())
                value = check(response) if check else None
            except VendorError as error:
                failures += 1
                unreadable += isinstance(error, VendorProtocolError)
                again = error.retryable and failures < self._max_attempts
                again = again or (isinstance(error, VendorProtocolError) and unreadable == 1)
                wait = self._jitter(min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** (failures - 1)))
                busy = self._clock() - spent.started - spent.waited_seconds
                if not again or busy + wait > self._retry_budget_seconds:
                    self._fail(request, error, excerpt, spent)
                self._sleep(wait)
            else:
                return Fetched(
                    response,
                    value,
                    attempts=spent.attempts,
                    throttled=spent.throttled,
                    waited_seconds=spent.waited_seconds,
                    seconds=self._clock() - spent.started,
                    bytes=spent.bytes,
                )

    def _ask(self, request: Request, work_class: WorkClass, spent: _Spent) -> Answer:
        """One attempt, with the redirects that stay on the host."""
        query = urlencode(request.params)
        url = f"{self.base_url}{request.path}?{query}" if query else f"{self.base_url}{request.path}"
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._call(url, request.endpoint, work_class, spent)
            location = header(answer.headers, "Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = self._redirected(url, location, answer.status)
        raise VendorRejectedError(
            f"the vendor redirected more than {MAX_REDIRECTS} times", status=answer.status
        )

    def _redirected(self, url: str, location: str, status: int) -> str:
        try:
            target = quote(urljoin(url, location).partition("#")[0], safe="%/:=&?~#+!$,;'@()*[]")
            origin = _origin(target)
        except ValueError as error:
            raise VendorRejectedError(
                "the vendor redirected to something that is no address", status=status
            ) from error
        if origin != self._origin:
            where = "{}://{}:{}".format(*origin)
            message = (
                f"the vendor redirected to another host, {where}, which was not asked; is VENDOR_URL right?"
            )
            raise VendorRejectedError(message[:500], status=status)
        return target

    def _call(self, url: str, endpoint: str, work_class: WorkClass, spent: _Spent) -> Answer:
        """One call: budget, send, observe."""
        self._check_stop(spent)
        with self._budget.slot(endpoint=endpoint, work_class=work_class, deadline_seconds=None) as slot:
            waited = slot.waited_seconds
            spent.waited_seconds += waited
            with self._lock:
                self._counts.paced_seconds += waited
            self._check_stop(spent)
            spent.attempts += 1
            spent.first_at = spent.first_at or self._now()
            started = self._clock()
            answer: Answer | None = None
            status: int | None = None
            headers: Mapping[str, str] = {}
            try:
                answer = self._transport.send(url)
                status, headers = answer.status, answer.headers
            except VendorError as error:
                status, headers = error.status, error.headers
                raise
            finally:
                # An answer of one's own making (too large, wrongly packed) is the vendor's trouble as well.
                seconds = self._clock() - started
                slot.observe(status=status, headers=headers, seconds=seconds, error=answer is None)
                self._count(endpoint, answer, spent)
        return answer

    def _count(self, endpoint: str, answer: Answer | None, spent: _Spent) -> None:
        size = 0 if answer is None else len(answer.body)
        throttled = answer is not None and _throttles(answer)
        spent.last_at = self._now()
        spent.bytes += size
        spent.throttled += throttled
        if answer is not None and (date := header(answer.headers, "Date")):
            self._dated = (date, spent.last_at)
        with self._lock:
            self._counts.calls += 1
            self._counts.retries += spent.attempts > 1
            self._counts.throttled += throttled
            self._counts.bytes += size
            self._counts.by_endpoint[endpoint] = self._counts.by_endpoint.get(endpoint, 0) + 1

    def _check_stop(self, spent: _Spent) -> None:
        if self._stop.is_set():
            raise StoppedError(f"asked to stop; nothing more is sent (after {spent.attempts} attempts)")

    def _kept(self, answer: Answer) -> dict[str, str]:
        return {name: answer.headers[name] for name in self._vendor.page_headers if name in answer.headers}

    def _fail(self, request: Request, error: VendorError, body: bytes, spent: _Spent) -> NoReturn:
        """Raise the error with all that is known, and without the key."""
        times = "1 attempt" if spent.attempts == 1 else f"{spent.attempts} attempts"
        message = self._redacted(f"GET {request.path[:200]}: {error} ({times})")
        excerpt = self._redacted(body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"))
        final = type(error)(
            message,
            status=error.status or (200 if isinstance(error, VendorProtocolError) and body else None),
            attempts=spent.attempts,
            excerpt=excerpt[:EXCERPT_CHARACTERS],
        )
        final.throttled = spent.throttled
        final.waited_seconds = spent.waited_seconds
        final.bytes = spent.bytes
        final.first_at = spent.first_at
        final.last_at = spent.last_at
        raise final from error

    def _redacted(self, text: str) -> str:
        return self._secret.sub("***", text) if self._secret else text


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def _throttles(answer: Answer) -> bool:
    return answer.status == 429 or (
        answer.status == 503 and header(answer.headers, "Retry-After") is not None
    )


def _error_of(answer: Answer) -> VendorError:
    """What a status other than 200 means."""
    status = answer.status
    if _throttles(answer):
        return VendorThrottledError(f"the vendor is throttling (status {status})", status=status)
    if status >= 500 or status in _TRANSIENT:
        return VendorUnavailableError(f"the vendor failed (status {status})", status=status)
    if status in (401, 403):
        return VendorUnauthorizedError(
            f"the vendor refuses the key (status {status}); check VENDOR_API_KEY and what it may read",
            status=status,
        )
    if status in (404, 410):
        return VendorNotFoundError(f"the vendor does not know this (status {status})", status=status)
    if 200 <= status < 300:
        return VendorProtocolError(
            f"the vendor answered status {status}, where data comes with 200", status=status
        )
    return VendorRejectedError(f"the vendor rejects the request (status {status})", status=status)
