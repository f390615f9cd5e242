"""The HTTP client of one vendor account: budget, attempts, backoff, redirects, and whether the key is refused."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urljoin, urlsplit

from vendor_assets.budget import OTHERS, Budget, LongestWait, Slot, Team
from vendor_assets.budget.headers import answer_time
from vendor_assets.client.credentials import Credentials, Identity, Login, Signed
from vendor_assets.client.network import Network
from vendor_assets.client.redaction import Redaction
from vendor_assets.client.transport import Transport
from vendor_assets.client.wording import words_of
from vendor_assets.errors import (
    ConfigurationError,
    StoppedError,
    VendorError,
    VendorNotFoundError,
    VendorProtocolError,
    VendorRejectedError,
    VendorThrottledError,
    VendorTooLargeError,
    VendorUnauthorizedError,
    VendorUnavailableError,
)
from vendor_assets.presentable import presentable
from vendor_assets.secret import Secret
from vendor_assets.vendors.base import Request, Response, Vendor
from vendor_assets.work_class import SCHEDULED, WorkClass

if TYPE_CHECKING:
    from vendor_assets.vendors.oauth import ClientCredentials, Token

E = TypeVar("E", bound=VendorError)

BACKOFF_FIRST_SECONDS: Final = 0.5
BACKOFF_MOST_SECONDS: Final = 30.0
LONGEST_WAIT_SECONDS: Final = 26 * 3600.0
"""A call that would have to wait for longer ends the harvest: a month's quota is used up."""
MAX_REDIRECTS: Final = 3
EXCERPT_CHARACTERS: Final = 2000

RESENT_MOST: Final = 3
"""A call is sent again so often because what identifies us was renewed meanwhile."""

TOKEN: Final = "token"  # noqa: S105  a name
"""The endpoint of requests for a token, in the budget."""

TOKENS_MOST: Final = 3
"""So many tokens may expire while a call waits for its slot."""

STREAK: Final = 8
"""After this many 403s in a row the key is checked again."""

CERTAIN: Final = 4
"""Where so many requests in a row are answered with 401, each perhaps several times, it is the key."""

_TRANSIENT: Final = frozenset((408, 425))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_REDIRECTS_OF_ALL: Final = frozenset((307, 308))
"""Those that keep method and body (RFC 9110, 15.4)."""

_AGE: Final = re.compile("[0-9]{1,9}")
_TENANT: Final = re.compile(r"org(ani[sz]ation)?.?id|tenant", re.IGNORECASE)
_REGION: Final = re.compile(r"region|data.?cent(er|re)|wrong site", re.IGNORECASE)
_KEY: Final = re.compile(
    r"key|token|credential|password|authenti|login|log in|signature|expired|authori[sz]ation|unauthori",
    re.IGNORECASE,
)


@dataclass
class Usage:
    """What one fetch has cost so far.

    Attributes:
        attempts: Attempts, redirects included; also those that reached no server.
        calls: Requests sent, as the vendor counts them.
        first_at: When the first attempt began, aware; None if there was none.
    """

    attempts: int = 0
    calls: int = 0
    throttled: int = 0
    waited_seconds: float = 0.0
    bytes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


@dataclass(frozen=True)
class Fetched:
    """A response with status 200, what ``check`` made of it, and what it cost.

    Attributes:
        answered_at: When the vendor gave the response, by its clock or by what a cache says of its age; None where
            neither is told.
    """

    response: Response
    value: Any
    usage: Usage
    answered_at: datetime | None = None


@dataclass
class _Fetch:
    """A fetch under way.

    Attributes:
        identity: What identifies us in the slot that it has.
        signed: What was sent last.
        secrets: What the vendor's auth added to its attempts.
        answered_at: As in :class:`Fetched`, of the last answer.
    """

    request: Request
    work_class: WorkClass
    ended: Callable[[], bool]
    usage: Usage
    identity: Identity
    team: Team = OTHERS
    signed: Signed = field(init=False)
    secrets: list[str] = field(default_factory=list, repr=False)
    answered_at: datetime | None = None


@dataclass(frozen=True)
class _Place:
    """A slot that has been waited for; the end of a with statement gives it back."""

    slot: Slot
    manager: AbstractContextManager[Slot]

    def __enter__(self) -> Slot:
        return self.slot

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.manager.__exit__(kind, error, trace)


class VendorClient:
    """Fetches from one vendor account. Thread-safe; the only owner of retries.

    Args:
        base_url: The key is sent to this host only.
        attempt_timeout_seconds: From sending to the last byte.
        max_body_bytes: Largest body that is read, after decoding.
        retry_budget_seconds: No retry starts later than this, time waited for the budget not counted.
        sleep: Waits between attempts; the default ends early once ``stop`` is set.
        stop: Once set, no new attempt is sent; those in flight are finished.

    Attributes:
        vendor_ahead_seconds: How far the vendor's clock is ahead of ours by its latest response (whole seconds); None
            without a date.

    Raises:
        ConfigurationError: The URL or the credentials cannot be used.
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
        self._credentials = Credentials(key, Login() if login is None else login, vendor, clock)
        self._connect = partial(
            Transport,
            network=network or Network(),
            pool_size=max_in_flight,
            attempt_timeout_seconds=attempt_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
            max_body_bytes=max_body_bytes,
        )
        self._transport = self._connect(base_url)
        self._others: dict[tuple[str, str, int], Transport] = {}
        self._base_url = self._transport.base_url
        self._origin = _origin(self._base_url)
        self._vendor = vendor
        self._budget = budget
        self._max_attempts = max_attempts
        self._retry_budget_seconds = retry_budget_seconds
        self._stop = stop or threading.Event()
        self._sleep = sleep or self._stop.wait
        self._clock = clock
        self._now = now
        self._jitter = jitter
        self.vendor_ahead_seconds: float | None = None
        self._redaction_with = lru_cache(maxsize=16)(Redaction)
        self._lock = threading.Lock()
        self._refused: VendorUnauthorizedError | None = None
        self._doubt: VendorUnauthorizedError | None = None
        self._doubt_lock = threading.Lock()
        self._forbidden = self._forbidden_in_a_row = 0
        self._accepted: Identity | None = None
        self._refused_since: set[str] = set()

    def __repr__(self) -> str:
        return f"VendorClient({self._base_url!r}, {self._vendor.kind})"

    @property
    def longest_wait(self) -> LongestWait | None:
        """The call that waits longest for its slot; None where none does."""
        return self._budget.longest_wait()

    def close(self) -> None:
        """Close idle connections."""
        for transport in (self._transport, *self._others.values()):
            transport.close()

    def fetch(
        self,
        request: Request,
        *,
        work_class: WorkClass = SCHEDULED,
        check: Callable[[Response], Any] | None = None,
        ended: Callable[[], bool] | None = None,
        usage: Usage | None = None,
        max_attempts: int | None = None,
        team: Team = OTHERS,
    ) -> Fetched:
        """Send a request within the budget, and retry what may pass.

        Connection failures, timeouts, broken bodies, 408, 425, 5xx and throttling are retried after a random part of a
        doubling wait; an unreadable answer is retried once, but not one of which the vendor says that it is too large;
        anything else is final. A refusal of the key is final for this client: no thread sends anything more. One of
        a key that was accepted before is none, if the vendor's cheapest request is answered: it is retried too.

        Args:
            check: Reads the response, outside of the budget's slot; a VendorProtocolError means that it is unreadable.
            ended: Whether the response is no longer wanted: nothing more is sent then.
            usage: A new one; it grows by what the fetch costs, also if the fetch raises.
            max_attempts: Fewer than the client's; with 1, an unreadable answer is not retried either.
            team: Who shares the budget's pace by weight.

        Raises:
            VendorError: The subclass says why.
            ConfigurationError: The host's certificate is not trusted.
            BudgetError: The budget gave no slot, or none within 26 hours.
            StoppedError: ``stop`` or ``ended`` before an attempt could be sent.
        """
        usage = usage or Usage()
        identity = self._credentials.current()
        fetch = _Fetch(request, work_class, ended or (lambda: False), usage, identity, team)
        started = self._clock()
        most = min(max_attempts or self._max_attempts, self._max_attempts)
        failures = unreadable = 0
        crossed = False
        while True:
            body = b""
            try:
                response = self._ask(fetch)
                body = response.body
                if response.status not in self._vendor.accepted:
                    raise self._error_of(response, fetch)
                self._accepted = fetch.signed.by
                if self._refused_since:
                    self._refused_since = set()
                kept = {
                    name: text for name, text in response.headers.items() if name in self._vendor.page_headers
                }
                response = Response(response.status, kept, body, response.fetched_at)
                return Fetched(response, check(response) if check else None, usage, fetch.answered_at)
            except VendorError as error:
                if error.crossed and not crossed:
                    # The server closed an idle connection at that moment, which is no failure.
                    crossed = True
                    continue
                failures += 1
                again = error.retryable and failures < most
                if isinstance(error, VendorProtocolError):
                    unreadable += 1
                    told = isinstance(error, VendorTooLargeError) and error.told
                    again = again or (unreadable == 1 and most > 1 and not told)
                wait = self._jitter(min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** (failures - 1)))
                busy = self._clock() - started - usage.waited_seconds
                if not again or busy + wait > self._retry_budget_seconds:
                    self._fail(fetch, error, body)
                self._sleep(wait)

    # One attempt

    def _ask(self, fetch: _Fetch) -> Response:
        """One attempt, with the redirects that stay on the host."""
        url = first = self._base_url + fetch.request.target
        for _ in range(MAX_REDIRECTS + 1):
            response = self._call(url, fetch)
            for _ in range(RESENT_MOST):
                if response.status != 401 or not self._credentials.outdated(fetch.signed):
                    break
                # The token was renewed during the call: that is no refusal.
                response = self._call(url, fetch)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                elsewhere = url != first and not _leads_to(url, fetch.request)
                if elsewhere and response.status in (404, 410):
                    # That is no word on what was asked for, which may be there.
                    message = (
                        f"the vendor redirected to an address that is not there (status {response.status})"
                    )
                    raise VendorUnavailableError(message, status=response.status)
                if elsewhere and response.status in self._vendor.accepted:
                    # It answers another question, or is the page of a portal.
                    message = (
                        f"the vendor redirected to {presentable(urlsplit(url).path, 200)}, which asks something else; "
                        "is VENDOR_URL right, and nothing between that answers in its place?"
                    )
                    raise VendorProtocolError(message, status=response.status)
                return response
            if fetch.request.method != "GET" and response.status not in _REDIRECTS_OF_ALL:
                # It would become a GET, which asks something else.
                message = "the vendor redirected to an address that takes no body; is VENDOR_URL right?"
                raise VendorRejectedError(message, status=response.status)
            url = self._redirected(url, location, response.status, fetch.signed.names)
        raise VendorRejectedError(
            f"the vendor redirected more than {MAX_REDIRECTS} times", status=response.status
        )

    def _redirected(self, url: str, location: str, status: int, added: Collection[str]) -> str:
        """The address that a redirect leads to, without the query parameters that the vendor's auth adds anew."""
        try:
            target = quote(urljoin(url, location).partition("#")[0], safe="%/:=&?~#+!$,;'@()*[]")
            origin = _origin(target)
        except ValueError as error:
            message = "the vendor redirected to an invalid address"
            raise VendorRejectedError(message, status=status) from error
        if origin != self._origin:
            where = presentable("{}://{}:{}".format(*origin))
            message = (
                f"the vendor redirected to another host, {where}, which was not asked; is VENDOR_URL right?"
            )
            raise VendorRejectedError(message, status=status)
        if not added:
            return target
        path, _, query = target.partition("?")
        kept = [pair for pair in query.split("&") if unquote_plus(pair.partition("=")[0]) not in added]
        return "?".join([path, *filter(None, ["&".join(kept)])])

    def _call(self, url: str, fetch: _Fetch) -> Response:
        """One call within a slot; where the key is in doubt, the slot goes to the check of the key first."""
        while True:
            self._check_ended(fetch)
            with self._slot(fetch.request, fetch) as slot:
                self._check_ended(fetch)
                if self._doubt is None:
                    fetch.usage.attempts += 1
                    fetch.usage.first_at = fetch.usage.first_at or self._now()
                    return self._send(url, fetch.request, slot, fetch)
                self._resolve(slot, fetch)

    def _slot(self, request: Request, fetch: _Fetch, unwanted: Callable[[], bool] = lambda: False) -> _Place:
        """Wait for a slot until it is of no use, and have a token for it where one is needed.

        The token comes first: it needs a slot too, and there may be a single one. What expires while the call waits is
        renewed, and the wait begins again.

        Raises:
            VendorUnauthorizedError: The key was refused meanwhile.
            StoppedError: Stopped meanwhile, or ``unwanted``.
            VendorError: There is no token.
        """

        def useless() -> bool:
            return unwanted() or fetch.identity.lacks_token

        counts = self._vendor.counts(request)
        asked = 0
        while asked <= TOKENS_MOST:
            asked += self._renew(fetch)
            place = self._place(request.endpoint, fetch.work_class, fetch, useless, counts)
            if not fetch.identity.lacks_token:
                if place is None:
                    raise StoppedError("the call was given up")
                return place
            if place is not None:
                with place:
                    pass
        error = VendorUnavailableError(f"{asked} tokens in a row expired before the call had its slot")
        error.calls = 0
        raise error

    def _place(
        self,
        endpoint: str,
        work_class: WorkClass,
        fetch: _Fetch,
        unwanted: Callable[[], bool] = lambda: False,
        counts: Mapping[str, float] | None = None,
    ) -> _Place | None:
        """Wait for a slot; None once it is unwanted."""

        def stopped() -> bool:
            return self._stop.is_set() or self._refused is not None or fetch.ended() or unwanted()

        started = self._clock()
        manager = self._budget.slot(
            endpoint=endpoint,
            work_class=work_class,
            deadline_seconds=LONGEST_WAIT_SECONDS,
            stopped=stopped,
            counts=counts,
            team=fetch.team,
        )
        try:
            slot = manager.__enter__()
        except StoppedError:
            self._check_ended(fetch)
            fetch.usage.waited_seconds += self._clock() - started
            return None
        fetch.usage.waited_seconds += slot.waited_seconds
        return _Place(slot, manager)

    def _send(self, url: str, request: Request, slot: Slot, fetch: _Fetch) -> Response:
        """Send within a slot, with what identifies us; the answer comes without secrets."""
        content = request.body.encode()
        signed = fetch.identity.sign(
            request.method, url, dict(request.headers), content, host=self._transport.host
        )
        fetch.signed = signed
        if signed.added:
            fetch.secrets += (text for text in signed.added if text not in fetch.secrets)
        received = self._exchange(
            self._transport, request.method, signed.url, signed.headers, content, slot, fetch, request
        )
        body = self._redaction(fetch).body(received.body)
        response = received if body is received.body else replace(received, body=body)
        fetch.usage.bytes += len(response.body)
        fetch.answered_at = None
        now = fetch.usage.last_at or self._now()
        if "date" in response.headers:
            fetch.answered_at = answer_time(response.headers, now)
            self.vendor_ahead_seconds = (fetch.answered_at - now).total_seconds()
        if "age" in response.headers and _AGE.fullmatch(age := response.headers["age"].strip()):
            # Of a cache, which may have given the answer a date of its own (RFC 9111, 4.2.3).
            given_at = now - timedelta(seconds=int(age))
            fetch.answered_at = min(fetch.answered_at or given_at, given_at)
        if response.status not in (401, 403) and self._forbidden_in_a_row:
            with self._lock:
                self._forbidden_in_a_row = 0
        if response.status in self._vendor.accepted:
            signed.accept()
        return response

    def _exchange(
        self,
        transport: Transport,
        method: str,
        url: str,
        sent: Mapping[str, str],
        content: bytes,
        slot: Slot,
        fetch: _Fetch,
        request: Request | None = None,
    ) -> Response:
        """Send as it is, and report the outcome to the budget and the usage; secrets are still in the answer's body.

        Args:
            request: What the vendor's dialect asks; None where its answer says nothing of what it counted.
        """
        usage = fetch.usage
        started = self._clock()
        response: Response | None = None
        status: int | None = None
        headers: Mapping[str, str] = {}
        calls, observed = 1, True
        try:
            response = transport.send(url, sent, method=method, content=content)
            headers, status = self._redaction(fetch).headers(response.headers), response.status
            if headers is not response.headers:
                response = replace(response, headers=headers)
            return response
        except VendorError as error:
            # A response that we refuse to read (too large, wrongly encoded) has a status and headers as well.
            calls, status, headers = error.calls, error.status, error.headers
            observed = not error.crossed
            raise
        except ConfigurationError:
            calls = 0
            raise
        finally:
            body = b"" if response is None else response.body
            throttled = self._throttled(status, headers, body)
            if throttled and (wait := self._vendor.throttle_seconds(headers, body)) is not None:
                headers = {**headers, "retry-after": f"{max(wait, 0.0):.3f}"}
            if observed:
                seconds = self._clock() - started
                counted = (
                    None if request is None or response is None else self._vendor.counted(request, response)
                )
                slot.observe(
                    status=status,
                    headers=headers,
                    seconds=seconds,
                    error=response is None,
                    throttled=throttled,
                    counted=counted,
                )
            usage.last_at = self._now()
            usage.calls += calls
            usage.throttled += throttled

    def _throttled(self, status: int | None, headers: Mapping[str, str], body: bytes) -> bool:
        return status is not None and self._vendor.throttled(status, headers, body)

    # The token

    def _renew(self, fetch: _Fetch) -> bool:
        """Have a token that may be sent, where one is needed.

        Returns:
            Whether this thread asked for one.
        """
        fetch.identity = self._credentials.current()
        renewal = fetch.identity.renewal
        if renewal is None:
            return False
        usage, started, own = fetch.usage, self._clock(), False

        def ask() -> Token:
            nonlocal own
            own = True
            return self._token(renewal.auth, fetch)

        try:
            renewal.renew(ask, lambda: self._check_ended(fetch))
        except VendorError as error:
            refused = isinstance(error, VendorUnauthorizedError)
            if error.calls or not refused:
                usage.attempts += 1
                usage.first_at = usage.first_at or self._now()
            if own and isinstance(error, VendorUnauthorizedError):
                self._refuse(error, f"POST {urlsplit(renewal.auth.token_url).path}", fetch)
            raise
        finally:
            if not own:
                usage.waited_seconds += self._clock() - started
        return own

    def _token(self, auth: ClientCredentials, fetch: _Fetch) -> Token:
        """Ask for a token, in a slot of its own.

        Raises:
            VendorUnauthorizedError: The client is refused.
            VendorThrottledError: The token endpoint says that we were too fast.
            VendorUnavailableError: There is no token for any other reason.
        """
        asking = auth.token_request(self._base_url)
        url, headers, body = str(asking.url), asking.headers, asking.body or ""
        content = body if isinstance(body, bytes) else body.encode()
        sent = {name: text for name, text in headers.items() if name != "Content-Length"}
        if "Authorization" in sent:
            fetch.secrets.append(sent["Authorization"])
        place = self._place(TOKEN, SCHEDULED, fetch)
        if place is None:
            raise StoppedError("the token was given up")
        with place as slot:
            self._check_ended(fetch)
            try:
                response = self._exchange(self._transport_to(url), "POST", url, sent, content, slot, fetch)
            except VendorError as error:
                what = self._redaction(fetch).message(f"no token: {error}")
                unavailable = VendorUnavailableError(what, status=error.status)
                unavailable.calls, unavailable.crossed = error.calls, error.crossed
                raise unavailable from error
        status, words = response.status, words_of(response.body)
        if status == 200:
            try:
                return auth.read_token(response)
            except VendorProtocolError as error:
                what = f"no token: {error}; is this the address of a token endpoint?"
                raise VendorUnavailableError(what, status=status) from error
        if self._throttled(status, response.headers, response.body):
            raise self._worded(VendorThrottledError, "no token: throttled", status, words, fetch)
        if status >= 500 or status in _TRANSIENT or b"temporarily_unavailable" in response.body:
            raise self._worded(VendorUnavailableError, "no token: the server failed", status, words, fetch)
        client = status in (401, 403) or b"_client" in response.body
        advice = self._credentials.advice if client else ""
        if 300 <= status < 400 or status in (404, 405):
            advice = "is this the address of a token endpoint?"
        what = "the token endpoint refuses the client"
        refused = self._worded(VendorUnauthorizedError, what, status, words, fetch, advice)
        refused.key_refused = True
        raise refused

    def _transport_to(self, url: str) -> Transport:
        origin = _origin(url)
        if origin == self._origin:
            return self._transport
        with self._lock:
            if origin not in self._others:
                parts = urlsplit(url)
                self._others[origin] = self._connect(f"{parts.scheme}://{parts.netloc}")
            return self._others[origin]

    # The key

    def _check_ended(self, fetch: _Fetch) -> None:
        """Raise if nothing more may be sent: the key was refused, or the fetch is to end."""
        if (refused := self._refused) is not None:
            error = VendorUnauthorizedError(str(refused), status=refused.status)
            error.key_refused = True
            error.calls = 0
            raise error
        if self._stop.is_set() or fetch.ended():
            raise StoppedError(f"asked to stop; nothing more is sent (after {fetch.usage.attempts} attempts)")

    def _redaction(self, fetch: _Fetch) -> Redaction:
        """Knows all secrets that this fetch has sent."""
        redaction = self._credentials.redaction
        return self._redaction_with(tuple(fetch.secrets), redaction) if fetch.secrets else redaction

    def _refuse(self, error: VendorUnauthorizedError, request: str, fetch: _Fetch) -> None:
        """Send nothing more; whoever waits for a slot fails at once, with the request that was refused."""
        error.key_refused = True
        with self._lock:
            self._refused = self._refused or VendorUnauthorizedError(
                self._redaction(fetch).message(f"{request}: {error}"),
                status=error.status,
            )
        self._budget.wake()

    def _key_refused(self, error: VendorUnauthorizedError, fetch: _Fetch, *, certain: bool) -> bool:
        """Whether a refusal concerns the key: it may say so, like a 401; else a 403 may be about one entity.

        At the first 403, and again after twice as many or several in a row, the vendor's cheapest request decides: if
        that is refused too, it is the key. It goes into the next slot, whichever thread has it.
        """
        probe = self._vendor.probe()
        same = fetch.request.key == probe.key if probe.has_more else fetch.request.path == probe.path
        if certain or same:
            self._refuse(error, _shown(fetch.request), fetch)
            return True
        with self._lock:
            self._forbidden += 1
            self._forbidden_in_a_row += 1
            doubled = self._forbidden & (self._forbidden - 1) == 0
            if self._doubt is None and (doubled or self._forbidden_in_a_row % STREAK == 0):
                self._doubt = error
        while self._doubt is not None and self._refused is None:
            try:
                with self._slot(probe, fetch, lambda: self._doubt is None) as slot:
                    self._resolve(slot, fetch)
            except VendorUnauthorizedError:
                break
            except StoppedError:
                if self._doubt is not None:
                    raise
        return self._refused is not None

    def _was_accepted(self, fetch: _Fetch) -> bool:
        """Whether what is refused now was accepted before, and not refused ever since."""
        with self._lock:
            self._refused_since.add(fetch.request.key)
            return self._accepted is fetch.signed.by and len(self._refused_since) < CERTAIN

    def _resolve(self, slot: Slot, fetch: _Fetch) -> None:
        """Check whether the key is accepted, unless another thread has."""
        with self._doubt_lock:
            doubt = self._doubt
            if doubt is None or self._refused is not None or self._stop.is_set():
                return
            probe = self._vendor.probe()
            try:
                response = self._send(self._base_url + probe.target, probe, slot, fetch)
                throttled = self._throttled(response.status, response.headers, response.body)
                renewed = response.status == 401 and self._credentials.outdated(fetch.signed)
                refused = response.status in (401, 403) or self._refuses_key(response)
                if refused and not throttled and not renewed:
                    self._refuse(doubt, _shown(probe), fetch)
            except VendorError:
                # That says nothing about the key; the next 403 checks again.
                pass
            finally:
                self._doubt = None
            self._budget.wake()

    def _refuses_key(self, response: Response) -> bool:
        return self._vendor.refuses_key(response.status, response.headers, response.body)

    # Errors

    def _error_of(self, response: Response, fetch: _Fetch) -> VendorError:
        """What a status other than 200 means, with what the vendor says about it."""
        status = response.status
        words = words_of(response.body)
        kind: type[VendorError]
        if self._throttled(status, response.headers, response.body):
            kind, what = VendorThrottledError, "the vendor is throttling"
        elif status >= 500 or status in _TRANSIENT:
            kind, what = VendorUnavailableError, "the vendor failed"
        elif (certain := self._refuses_key(response)) or status in (401, 403):
            refused, advice = _refusal(words, self._credentials.advice)
            error = self._worded(VendorUnauthorizedError, refused, status, words, fetch, advice)
            error.key_refused = self._key_refused(
                error, fetch, certain=certain and not self._was_accepted(fetch)
            )
            if error.key_refused:
                return error
            kind, what = VendorUnauthorizedError, "the vendor forbids this"
            if certain:
                # One of its servers does not know the key yet, or it says so of a single entity.
                kind, what = (
                    VendorUnavailableError,
                    "the vendor refuses the key here, and accepts it otherwise",
                )
        elif status in (404, 410):
            kind, what = VendorNotFoundError, "the vendor does not know this"
        elif 200 <= status < 300:
            what = f"the vendor answered status {status}, where data comes with 200"
            return VendorProtocolError(what, status=status)
        else:
            kind, what = VendorRejectedError, "the vendor rejects the request"
        return self._worded(kind, what, status, words, fetch)

    def _worded(
        self, kind: type[E], what: str, status: int, words: str, fetch: _Fetch, advice: str = ""
    ) -> E:
        """An error: what happened, what the vendor says about it, and what to do if that is known."""
        rest = (f": {words}" if words else "") + (f"; {advice}" if advice else "")
        redaction = self._redaction(fetch)
        error = kind(redaction.message(f"{what} (status {status}){rest}"), status=status)
        error.what = redaction.message(f"{what}{rest}")
        return error

    def _fail(self, fetch: _Fetch, error: VendorError, body: bytes) -> NoReturn:
        """Raise the error with all that is known, and without the key."""
        request, usage, redaction = fetch.request, fetch.usage, self._redaction(fetch)
        message = str(error)
        if not (isinstance(error, VendorUnauthorizedError) and error.calls == 0):
            times = "1 attempt" if usage.attempts == 1 else f"{usage.attempts} attempts"
            message = redaction.message(f"{_shown(request)}: {message} ({times})")
        excerpt = redaction.message(body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"))
        final = type(error)(
            message,
            status=error.status or (200 if isinstance(error, VendorProtocolError) and body else None),
            attempts=usage.attempts,
            excerpt=excerpt[:EXCERPT_CHARACTERS],
        )
        if isinstance(error, VendorUnauthorizedError) and isinstance(final, VendorUnauthorizedError):
            final.key_refused = error.key_refused
        final.what = error.what or redaction.message(str(error))
        final.calls, final.first_at, final.last_at = usage.calls, usage.first_at, usage.last_at
        raise final from error


def _shown(request: Request) -> str:
    return f"{request.method} {request.path[:200]}"


def _leads_to(url: str, request: Request) -> bool:
    """Whether an address, perhaps after redirects, is that of a request: below a prefix, or with a slash at its end.

    All that the request asks is in its query.
    """
    parts = urlsplit(url)
    lost = Counter(request.params) - Counter(parse_qsl(parts.query, keep_blank_values=True))
    return unquote(parts.path).rstrip("/").endswith(unquote(request.path).rstrip("/")) and not lost


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def _refusal(words: str, advice: str) -> tuple[str, str]:
    """What a refusal concerns according to the vendor, and what to do if that is known."""
    refused = "the key" if not words or _KEY.search(words) else "access"
    if _TENANT.search(words):
        advice = "set the tenant, like VENDOR_HEADERS=X-Scope-OrgID=name"
    elif _REGION.search(words):
        advice = "is VENDOR_URL the address of the account's region?"
    elif refused == "access":
        advice = ""
    return f"the vendor refuses {refused}", advice
