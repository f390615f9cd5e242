"""The token of an account: asked for by one thread at a time, renewed before it expires."""

from __future__ import annotations

import copy
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from vendor_assets.errors import VendorError, VendorUnauthorizedError
from vendor_assets.logs import get_logger
from vendor_assets.vendors.oauth import ClientCredentials, Token

log = get_logger(__name__)

EARLY: Final = (0.7, 0.8)
"""The part of its lifetime after which a token is renewed, by whoever comes by; different for each, so that processes
which began together do not go on together."""

MARGIN: Final = 0.05
MARGIN_MOST_SECONDS: Final = 10.0
"""So long before its end a token is no longer sent: a call is under way for a while."""

_LOOK_SECONDS: Final = 0.5


class Renewal:
    """Keeps one token good. Thread-safe.

    While a token is good, one thread renews it and the others go on with it. They wait only where there is none: for
    that thread, whose failure is theirs too.
    """

    def __init__(self, auth: ClientCredentials, clock: Callable[[], float] = time.monotonic) -> None:
        self.auth = auth
        self._clock = clock
        self._asking = threading.Lock()
        self._state = threading.Lock()
        self._due = self._over = -math.inf
        self._accepted = False
        self._failed: tuple[int, VendorError | None] = (0, None)

    @property
    def over(self) -> bool:
        """Whether there is no token that may be sent."""
        return self._clock() >= self._over

    def renew(self, ask: Callable[[], Token], check: Callable[[], None]) -> None:
        """Have a token that may be sent.

        Args:
            ask: Asks for one.
            check: Called now and then while another thread asks; raises to give up.

        Raises:
            VendorError: There is none, since ``ask`` failed, here or in the thread that was waited for.
        """
        failures, _ = self._failed
        if self._clock() < self._due:
            return
        if not self._asking.acquire(blocking=False):
            if not self.over:
                return
            while not self._asking.acquire(timeout=_LOOK_SECONDS):
                check()
        try:
            if self._clock() < self._due:
                return
            now_failed, failure = self._failed
            # A refusal of the client stands: who comes later than it was told of would ask in vain.
            refused = isinstance(failure, VendorUnauthorizedError)
            if self.over and failure is not None and (refused or now_failed != failures):
                raise _copy(failure)
            self._ask(ask)
        finally:
            self._asking.release()

    def _ask(self, ask: Callable[[], Token]) -> None:
        asked_at = self._clock()
        try:
            token = ask()
        except VendorError as error:
            if self.over:
                self._failed = self._failed[0] + 1, error
                raise
            # The one that there is does for a while.
            self._due = self._clock() + (self._over - self._clock()) / 4
            log.warning("the token could not be renewed yet: %s", error)
            return
        life = token.lifetime_seconds
        with self._state:
            again = token.text == self.auth.token.text
            self.auth.token = token
            self._accepted = False
            self._over = asked_at + life - min(MARGIN_MOST_SECONDS, MARGIN * life)
            # A server that gives the same one until its end is not asked early again.
            early = 1.0 if again else random.uniform(*EARLY)  # noqa: S311  no cryptography
            self._due = min(self._over, asked_at + life * early)

    def accept(self, sent: str) -> None:
        """Note that the vendor took a token."""
        with self._state:
            self._accepted = self._accepted or sent == self.auth.token.text

    def refuse(self, sent: str) -> bool:
        """Note that the vendor answered 401 to a token.

        Returns:
            Whether that is no refusal of the client: there is another token by now, or this one was taken before, so
            that it is over earlier than was said.
        """
        with self._state:
            if sent == self.auth.token.text:
                if not self._accepted:
                    return False
                self._due = self._over = -math.inf
            return True


def _copy(error: VendorError) -> VendorError:
    """The error for another thread, which sent nothing."""
    copied = copy.copy(error)
    copied.calls = 0
    return copied
