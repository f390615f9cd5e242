"""Fetching one answer: budget, attempts, backoff, redirects, and what it all cost."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Generic, Literal, NoReturn, Protocol, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

from vendor_assets.budget.headers import answer_time, header
from vendor_assets.client.credentials import Credentials, Login
from vendor_assets.client.network import Network
from vendor_assets.client.redaction import Redaction
from vendor_assets.client.transport import Answer, Transport
from vendor_assets.client.wording import words_of
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
from vendor_assets.presentable import presentable
from vendor_assets.secret import Secret
from vendor_assets.vendors.base import Request, Response, Vendor

T = TypeVar("T")
E = TypeVar("E", bound=VendorError)
WorkClass = Literal["scheduled", "backfill"]

BACKOFF_FIRST_SECONDS: Final = 0.5
BACKOFF_MOST_SECONDS: Final = 30.0
MAX_REDIRECTS: Final = 3
EXCERPT_CHARACTERS: Final = 2000

STREAK: Final = 8
"""After so many answers of 403 without any other one, whether the key is still accepted is asked again."""

_TRANSIENT: Final = frozenset((408, 425))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))

_TENANT: Final = re.compile(r"org(ani[sz]ation)?.?id|tenant", re.IGNORECASE)
_REGION: Final = re.compile(r"region|data.?cent(er|re)|wrong site", re.IGNORECASE)
_KEY: Final = re.compile(
    r"key|token|credential|password|authenti|login|log in|signature|expired|authori[sz]ation|unauthori",
    re.IGNORECASE,
)


class Slot(Protocol):
    """Permission for one call."""

    @property
    def waited_seconds(self) -> float:
        """How long the caller waited for it."""
        ...

    def observe(
        self,
        *,
        status: int | None,
        headers: Mapping[str, str],
        seconds: float,
        error: bool,
        throttled: bool | None = None,
    ) -> None:
        """Tell what became of the call; ``error`` means that no complete answer came."""
        ...


class Budget(Protocol):
    """What the client needs of the shared budget."""

    def slot(
        self,
        *,
        endpoint: str,
        work_class: WorkClass,
        deadline_seconds: float | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> AbstractContextManager[Slot]:
        """Wait for permission, unless ``stopped``; the call is in flight while the block lasts."""
        ...

    def wake(self) -> None:
        """Let those that wait see at once whether they are stopped."""
        ...


@dataclass
class Fetched(Generic[T]):
    """An answer and what it cost.

    Attributes:
        response: The answer, status 200.
        value: What ``check`` made of it.
        attempts: How often it was tried, the first included.
        throttled: Of these, those whose answer said that we were too fast.
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
        calls: Requests sent, as the vendor counts them.
        retries: Of these, those after a request's first.
        throttled: Of these, those whose answer said that we were too fast.
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
class Spent:
    """What one fetch has cost so far; whoever passes it in knows that however the fetch ends.

    Attributes:
        attempts: How often it was tried, redirects included; also what met no server.
        calls: Requests sent, as the vendor counts them.
        throttled: Of these, those whose answer said that we were too fast.
        waited_seconds: Time waited for the budget.
        bytes: Bytes of bodies.
        first_at: When the first attempt began, aware; None where none did.
        last_at: When the last one ended.
        sent: Headers of the last one that say who asks; secrets.
    """

    attempts: int = 0
    calls: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    bytes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    sent: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass
class _Fetch:
    """One fetch on its way."""

    request: Request
    work_class: WorkClass
    ended: Callable[[], bool]
    spent: Spent


class VendorClient:
    """Fetches from one vendor account. Thread-safe; the only owner of retries.

    Args:
        base_url: The vendor's address; the key is sent to this host only.
        api_key: Its key; never shown in an error, a log or a repr.
        login: What is wanted besides the key.
        network: The way to the vendor.
        vendor: Which headers carry the key, which headers of an answer are kept.
        budget: Asked before every attempt, told after it.
        max_in_flight: How many connections are kept.
        attempt_timeout_seconds: From sending to the last byte, all in all.
        connect_timeout_seconds: For the connection alone.
        max_body_bytes: Largest body that is read, after decoding.
        max_attempts: The first included; one fresh try after an unreadable answer comes on top.
        retry_budget_seconds: After this long, without the time waited for the budget, no more retries.
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
        api_key: str | Secret,
        login: Login | None = None,
        network: Network | None = None,
        vendor: Vendor,
        budget: Budget,
        max_in_flight: int,
        attempt_timeout_seconds: float = 30.0,
        connect_timeout_seconds: float = 5.0,
        max_body_bytes: int = 64 * 1024 * 1024,
        max_attempts: int = 5,
        retry_budget_seconds: float = 300.0,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[float], float] = lambda most: random.uniform(0, most),  # noqa: S311
        stop: threading.Event | None = None,
    ) -> None:
        key = api_key if isinstance(api_key, Secret) else Secret("VENDOR_API_KEY", api_key)
        self._credentials = Credentials(
            key, login or Login(), vendor.auth_headers, optional=not vendor.needs_api_key
        )
        self._redacting: tuple[tuple[str, ...], Redaction] = ((), Redaction(()))
        self._transport = Transport(
            base_url,
            network=network,
            pool_size=max_in_flight,
            attempt_timeout_seconds=attempt_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
            max_body_bytes=max_body_bytes,
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
        self._lock = threading.Lock()
        self._counts = Counts()
        self._refused: VendorUnauthorizedError | None = None
        self._doubt: VendorUnauthorizedError | None = None
        self._doubt_lock = threading.Lock()
        self._forbidden = self._forbidden_in_a_row = 0
        self._dated: tuple[str, datetime] | None = None

    def __repr__(self) -> str:
        return f"VendorClient({self.base_url!r}, {self._vendor.kind})"

    @property
    def _redaction(self) -> Redaction:
        """Knows the secrets as they are now, and those that were renewed."""
        secrets = self._credentials.secrets()
        known, redaction = self._redacting
        if secrets != known:
            redaction = Redaction(secrets)
            self._redacting = (secrets, redaction)
        return redaction

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
        self,
        request: Request,
        *,
        work_class: str = "scheduled",
        check: Callable[[Response], T] | None = None,
        ended: Callable[[], bool] | None = None,
        spent: Spent | None = None,
        max_attempts: int | None = None,
    ) -> Fetched[T]:
        """Ask until there is an answer, as often and as fast as the budget and the rules of retrying permit.

        Connection failures, timeouts, broken bodies, 408, 425, 5xx and what the vendor calls a throttle are tried
        again after a random part of a doubling wait; an unreadable answer is tried once more; anything else is final.
        A refusal of the key is final for this client: nothing more is sent, by whatever thread.

        Args:
            request: What to ask.
            work_class: ``backfill`` gives way where the budget is short; anything else counts as ``scheduled``.
            check: Reads the answer; a VendorProtocolError means that it cannot be understood. Called outside of the
                budget's slot.
            ended: Whether nobody wants the answer any more: nothing more is sent then.
            spent: Grows by what the fetch costs, also where it raises.
            max_attempts: Fewer than the client's, the first included; an unreadable answer is tried once more only
                where there is more than one.

        Raises:
            VendorError: The subclass says why; status, attempts, calls, throttled, waited_seconds, bytes, first_at,
                last_at and an excerpt without the key are its attributes.
            ConfigurationError: The host's certificate is not trusted.
            BudgetError: The budget gave no slot.
            StoppedError: ``stop`` or ``ended`` before an attempt could be sent.
        """
        kind: WorkClass = "backfill" if work_class == "backfill" else "scheduled"
        fetch = _Fetch(request, kind, ended or _never, spent or Spent())
        spent = fetch.spent
        started = self._clock()
        most = min(max_attempts or self._max_attempts, self._max_attempts)
        failures = unreadable = 0
        crossed = False
        while True:
            excerpt = b""
            try:
                answer = self._ask(fetch)
                excerpt = answer.body
                if answer.status != 200:
                    raise self._error_of(answer, fetch)
                response = Response(answer.status, self._kept(answer), answer.body, self._now())
                value = check(response) if check else None
            except VendorError as error:
                if error.crossed and not crossed:
                    # The server hung up on an idle connection just then, which is no failure of its.
                    crossed = True
                    continue
                failures += 1
                unreadable += isinstance(error, VendorProtocolError)
                again = error.retryable and failures < most
                again = again or (isinstance(error, VendorProtocolError) and unreadable == 1 and most > 1)
                wait = self._jitter(min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** (failures - 1)))
                busy = self._clock() - started - spent.waited_seconds
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
                    seconds=self._clock() - started,
                    bytes=spent.bytes,
                )

    def _ask(self, fetch: _Fetch) -> Answer:
        """One attempt, with the redirects that stay on the host."""
        url = self._url(fetch.request)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._call(url, fetch)
            if answer.status == 401 and self._credentials.outdated(fetch.spent.sent):
                # A token was renewed while this call was under way: that is no refusal.
                answer = self._call(url, fetch)
            location = header(answer.headers, "Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = self._redirected(url, location, answer.status)
        raise VendorRejectedError(
            f"the vendor redirected more than {MAX_REDIRECTS} times", status=answer.status
        )

    def _url(self, request: Request) -> str:
        query = urlencode(request.params)
        return f"{self.base_url}{request.path}?{query}" if query else f"{self.base_url}{request.path}"

    def _redirected(self, url: str, location: str, status: int) -> str:
        try:
            target = quote(urljoin(url, location).partition("#")[0], safe="%/:=&?~#+!$,;'@()*[]")
            origin = _origin(target)
        except ValueError as error:
            raise VendorRejectedError(
                "the vendor redirected to something that is no address", status=status
            ) from error
        if origin != self._origin:
            where = presentable("{}://{}:{}".format(*origin))
            message = (
                f"the vendor redirected to another host, {where}, which was not asked; is VENDOR_URL right?"
            )
            raise VendorRejectedError(message, status=status)
        return target

    def _call(self, url: str, fetch: _Fetch) -> Answer:
        """One call: budget, send, observe."""
        while True:
            self._check_ended(fetch)
            with self._slot(fetch.request.endpoint, fetch) as slot:
                self._check_ended(fetch)
                if self._doubt is None:
                    fetch.spent.attempts += 1
                    fetch.spent.first_at = fetch.spent.first_at or self._now()
                    return self._send(url, fetch.request.endpoint, slot, fetch.spent)
                self._resolve(slot, fetch.spent)

    @contextmanager
    def _slot(
        self, endpoint: str, fetch: _Fetch, unwanted: Callable[[], bool] | None = None
    ) -> Iterator[Slot]:
        """A slot; waiting for it ends as soon as it is of no use.

        Raises:
            VendorUnauthorizedError: The key was refused meanwhile.
            StoppedError: Stopped meanwhile, or ``unwanted``.
        """

        def stopped() -> bool:
            return (
                self._stop.is_set()
                or self._refused is not None
                or fetch.ended()
                or (unwanted is not None and unwanted())
            )

        try:
            waiting = self._budget.slot(
                endpoint=endpoint, work_class=fetch.work_class, deadline_seconds=None, stopped=stopped
            )
            with waiting as slot:
                fetch.spent.waited_seconds += slot.waited_seconds
                with self._lock:
                    self._counts.paced_seconds += slot.waited_seconds
                yield slot
        except StoppedError:
            self._check_ended(fetch)
            raise

    def _send(self, url: str, endpoint: str, slot: Slot, spent: Spent) -> Answer:
        """Send within a slot, and tell the budget and the counts what came of it."""
        started = self._clock()
        answer: Answer | None = None
        status: int | None = None
        headers: Mapping[str, str] = {}
        calls, told = 1, True
        try:
            spent.sent = self._credentials.headers()
            received = self._transport.send(url, spent.sent)
            redaction = self._redaction
            answer = Answer(
                received.status, redaction.headers(received.headers), redaction.body(received.body)
            )
            status, headers = answer.status, answer.headers
        except VendorError as error:
            # An answer of one's own making (too large, wrongly packed) is the vendor's trouble as well.
            calls, status, headers = error.calls, error.status, error.headers
            told = not error.crossed
            raise
        except ConfigurationError:
            calls = 0
            raise
        finally:
            throttled = self._throttles(status, headers, b"" if answer is None else answer.body)
            if told:
                seconds = self._clock() - started
                slot.observe(
                    status=status, headers=headers, seconds=seconds, error=answer is None, throttled=throttled
                )
            self._count(endpoint, calls, answer, spent, throttled=throttled)
        return answer

    def _throttles(self, status: int | None, headers: Mapping[str, str], body: bytes) -> bool:
        if status is None or status == 200:
            return False
        lower = {name.lower(): text for name, text in headers.items()}
        return self._vendor.throttled(status, lower, body)

    def _count(
        self, endpoint: str, calls: int, answer: Answer | None, spent: Spent, *, throttled: bool
    ) -> None:
        size = 0 if answer is None else len(answer.body)
        spent.last_at = self._now()
        spent.bytes += size
        spent.calls += calls
        spent.throttled += throttled
        if answer is not None and (date := header(answer.headers, "Date")):
            self._dated = (date, spent.last_at)
        with self._lock:
            if answer is not None and answer.status != 403:
                self._forbidden_in_a_row = 0
            self._counts.calls += calls
            self._counts.retries += calls if spent.calls > 1 else 0
            self._counts.throttled += throttled
            self._counts.bytes += size
            self._counts.by_endpoint[endpoint] = self._counts.by_endpoint.get(endpoint, 0) + calls

    # The key

    def _check_ended(self, fetch: _Fetch) -> None:
        """Raise where nothing more may be sent: the key was refused, or somebody wants it to end."""
        refused = self._refused
        if refused is not None:
            # It was another request that was refused; this one is not sent.
            error = VendorUnauthorizedError(str(refused), status=refused.status)
            error.key_refused = True
            error.calls = 0
            raise error
        if self._stop.is_set() or fetch.ended():
            raise StoppedError(f"asked to stop; nothing more is sent (after {fetch.spent.attempts} attempts)")

    def _refuse(self, error: VendorUnauthorizedError, request: Request) -> None:
        """From now on nothing is sent; who waits for a slot is told at once, with the request that was refused."""
        error.key_refused = True
        with self._lock:
            self._refused = self._refused or VendorUnauthorizedError(
                self._redaction.message(f"GET {request.path[:200]}: {error}"), status=error.status
            )
        self._budget.wake()

    def _judge(self, error: VendorUnauthorizedError, fetch: _Fetch) -> VendorUnauthorizedError:
        """Find out whether a refusal concerns the key: a 401 does, a 403 may be about one entity.

        At the first 403, and again after twice as many or several in a row, the vendor's cheapest request tells:
        where that one is refused too, it is the key. It goes into the very next slot, whoever got that.
        """
        probe = self._vendor.probe()
        if error.status == 401 or fetch.request.path == probe.path:
            self._refuse(error, fetch.request)
            return error
        with self._lock:
            self._forbidden += 1
            self._forbidden_in_a_row += 1
            often = self._forbidden & (self._forbidden - 1) == 0
            if self._doubt is None and (often or self._forbidden_in_a_row % STREAK == 0):
                self._doubt = error
        while self._doubt is not None and self._refused is None:
            try:
                with self._slot(probe.endpoint, fetch, lambda: self._doubt is None) as slot:
                    self._resolve(slot, fetch.spent)
            except VendorUnauthorizedError:
                break
            except StoppedError:
                if self._doubt is not None:
                    raise
        error.key_refused = self._refused is not None
        return error

    def _resolve(self, slot: Slot, spent: Spent) -> None:
        """Ask whether the key is accepted, unless another thread has."""
        with self._doubt_lock:
            doubt = self._doubt
            if doubt is None or self._refused is not None or self._stop.is_set():
                return
            probe = self._vendor.probe()
            try:
                answer = self._send(self._url(probe), probe.endpoint, slot, spent)
                throttled = self._throttles(answer.status, answer.headers, answer.body)
                if answer.status in (401, 403) and not throttled:
                    self._refuse(doubt, probe)
            except VendorError:
                # That says nothing of the key; the next refusal asks again.
                pass
            finally:
                self._doubt = None
            self._budget.wake()

    def _kept(self, answer: Answer) -> dict[str, str]:
        return {name: answer.headers[name] for name in self._vendor.page_headers if name in answer.headers}

    def _error_of(self, answer: Answer, fetch: _Fetch) -> VendorError:
        """What a status other than 200 means; with what the vendor said of it."""
        status = answer.status
        words = words_of(answer.body)
        if self._throttles(status, answer.headers, answer.body):
            return self._worded(VendorThrottledError, "the vendor is throttling", status, words)
        if status >= 500 or status in _TRANSIENT:
            return self._worded(VendorUnavailableError, "the vendor failed", status, words)
        if status in (401, 403):
            refused, advice = _refusal(words, self._credentials.advice)
            judged = self._judge(self._worded(VendorUnauthorizedError, refused, status, words, advice), fetch)
            if judged.key_refused:
                return judged
            return self._worded(VendorUnauthorizedError, "the vendor forbids this", status, words)
        if status in (404, 410):
            return self._worded(VendorNotFoundError, "the vendor does not know this", status, words)
        if 200 <= status < 300:
            return VendorProtocolError(
                f"the vendor answered status {status}, where data comes with 200", status=status
            )
        return self._worded(VendorRejectedError, "the vendor rejects the request", status, words)

    def _worded(self, kind: type[E], what: str, status: int, words: str, advice: str = "") -> E:
        """An error of this kind: what happened, what the vendor said of it, and what to do where that is known."""
        told = (f": {words}" if words else "") + (f"; {advice}" if advice else "")
        error = kind(f"{what} (status {status}){told}", status=status)
        error.what = self._redaction.message(f"{what}{told}")
        return error

    def _fail(self, request: Request, error: VendorError, body: bytes, spent: Spent) -> NoReturn:
        """Raise the error with all that is known, and without the key."""
        times = "1 attempt" if spent.attempts == 1 else f"{spent.attempts} attempts"
        message = str(error)
        if not (isinstance(error, VendorUnauthorizedError) and error.calls == 0):
            message = self._redaction.message(f"GET {request.path[:200]}: {message} ({times})")
        excerpt = self._redaction.message(body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"))
        final = type(error)(
            message,
            status=error.status or (200 if isinstance(error, VendorProtocolError) and body else None),
            attempts=spent.attempts,
            excerpt=excerpt[:EXCERPT_CHARACTERS],
        )
        if isinstance(error, VendorUnauthorizedError) and isinstance(final, VendorUnauthorizedError):
            final.key_refused = error.key_refused
        final.calls = spent.calls
        final.what = error.what or self._redaction.message(str(error))
        final.throttled = spent.throttled
        final.waited_seconds = spent.waited_seconds
        final.bytes = spent.bytes
        final.first_at = spent.first_at
        final.last_at = spent.last_at
        raise final from error


def _never() -> bool:
    return False


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def _refusal(words: str, advice: str) -> tuple[str, str]:
    """What a refusal means by what the vendor said, and what to do where that is known."""
    refused = "the key" if not words or _KEY.search(words) else "access"
    if _TENANT.search(words):
        advice = "set the tenant, like VENDOR_HEADERS=X-Scope-OrgID=name"
    elif _REGION.search(words):
        advice = "is VENDOR_URL the address of the account's region?"
    elif refused == "access":
        advice = ""
    return f"the vendor refuses {refused}", advice
