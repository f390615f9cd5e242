"""Every error that vendor_assets raises on purpose.

The tree::

    VendorAssetsError
    ├── ConfigurationError             a setting, an argument or a file that a person must change
    ├── VendorError                    the vendor answered something else than data, or nothing
    │   ├── VendorUnavailableError     retryable: no connection, a timeout, a 5xx, a broken body
    │   ├── VendorThrottledError       retryable: 429, or what else says that we were too fast
    │   ├── VendorIncompleteError      retryable: a success that is not all that was asked for
    │   ├── VendorRejectedError        a 4xx that asking again cannot change
    │   │   ├── VendorUnauthorizedError    401 or 403: the key
    │   │   ├── VendorNotFoundError        404 or 410: the entity is gone
    │   │   └── VendorExpiredError         a cursor or a submitted query is there no more
    │   └── VendorProtocolError        an answer that cannot be understood
    │       └── VendorTooLargeError        its body is larger than is read
    ├── BudgetError
    │   ├── BudgetDeadlineError        the wait would outlast the caller's deadline; nothing was taken
    │   └── BudgetUnavailableError     retryable: the budget's database cannot be reached
    ├── StorageError
    │   ├── ObjectNotFoundError        no object under this key
    │   ├── ObjectConflictError        a conditional write lost: somebody else wrote first
    │   └── StorageUnavailableError    retryable: the store cannot be reached, or is full
    ├── HarvestError
    │   └── PartitionHeldError         retryable: another live run holds the partition
    ├── MessageError                   retryable: a message to people did not arrive
    ├── StoppedError                   retryable: asked to stop; nothing more is sent
    └── RecordError                    a row that does not fit its table

Exceptions of libraries are translated where the library is imported, with ``raise … from``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from vendor_assets.presentable import presentable

LONGEST_MESSAGE: Final = 4000
"""Characters of a message; what a vendor, a store or a library says may be part of it."""


UPSTREAM: Final = "upstream"
"""Kind of a failure that is another partition's: there is no cause of its own."""
DEAD_LETTER: Final = "dead_letter"
"""Kind of the dead letters that were kept before they had one."""
UNEXPECTED: Final = "unexpected"
"""Kind of a failure that is a bug."""
UNKNOWN: Final = "failed"
"""Kind of a failure of which nothing is known."""


@dataclass(frozen=True)
class Reason:
    """Why something failed, in parts, so that nobody takes a message apart.

    Attributes:
        kind: :attr:`VendorAssetsError.kind`, or one of the kinds above.
        what: What happened, in words that are the same wherever it strikes: without the request and the attempts.
    """

    kind: str
    status: int | None = None
    what: str = ""

    def to_json(self) -> dict[str, Any]:
        """The reason as a document that may be stored and shown."""
        return {"kind": self.kind, "status": self.status, "what": presentable(self.what)}

    @classmethod
    def from_json(cls, document: object, *, kind: str = UNKNOWN, what: str = "the run failed") -> Reason:
        """A reason as it was stored; what it does not say, as in older versions, is ``kind`` and ``what``."""
        known = document if isinstance(document, Mapping) else {}
        said, status = known.get("kind"), known.get("status")
        return cls(
            said if isinstance(said, str) and said else kind,
            status if isinstance(status, int) else None,
            presentable(known.get("what") or known.get("why") or what),
        )


class VendorAssetsError(Exception):
    """Base of every error raised on purpose.

    The message says what happened, with the values, then what to do, on one line.

    Attributes:
        kind: The name of the class in small letters, ``vendor_rejected``; it is stored, so a class keeps its name.
        what: The message without what differs from case to case, where the error knows it.
    """

    retryable: bool = False
    kind: str = UNKNOWN
    what: str = ""

    def __init_subclass__(cls, *, retryable: bool = False) -> None:
        super().__init_subclass__()
        cls.retryable = cls.retryable or retryable
        cls.kind = re.sub(r"\B([A-Z])", r"_\1", cls.__name__.removesuffix("Error")).lower()

    def __init__(self, message: object = "") -> None:
        text = message if isinstance(message, str) else presentable(message, LONGEST_MESSAGE)
        if len(text) > LONGEST_MESSAGE:
            # What to do stands at the end.
            text = f"{text[: LONGEST_MESSAGE // 2]}…{text[1 - LONGEST_MESSAGE // 2 :]}"
        super().__init__(presentable(text, LONGEST_MESSAGE))

    @property
    def reason(self) -> Reason:
        """Why, in parts."""
        return Reason(self.kind, getattr(self, "status", None), self.what or str(self))


def reason_of(error: BaseException) -> Reason:
    """Why an error was raised; one that is not ours is a bug."""
    if isinstance(error, VendorAssetsError):
        return error.reason
    return Reason(UNEXPECTED, what=f"{type(error).__name__} (unexpected)")


class ConfigurationError(VendorAssetsError):
    """A setting or an argument that a person must change: name, value, what is accepted."""


class VendorError(VendorAssetsError):
    """The vendor answered something else than data, or nothing.

    Attributes:
        excerpt: The beginning of the answer's body, without secrets.
        calls: Requests that were sent, which the vendor has counted; without attempts that met no server.
        first_at: When the first attempt was sent, aware; None where none was.
        headers: Of one attempt's answer that broke off, as far as it came.
        crossed: Whether one attempt's request met a server that was about to hang up on an idle connection.
    """

    calls: int = 1
    first_at: datetime | None = None
    last_at: datetime | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    crossed: bool = False

    def __init__(
        self, message: str, *, status: int | None = None, attempts: int = 1, excerpt: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.attempts = attempts
        self.excerpt = excerpt


class VendorUnavailableError(VendorError, retryable=True):
    """No connection, a timeout, a 5xx or a broken body, after all retries."""


class VendorThrottledError(VendorError, retryable=True):
    """The vendor said that we were too fast (429, or another status and a sign of it), after all retries."""


class VendorIncompleteError(VendorError, retryable=True):
    """An answer that the vendor calls a success and that is not all that was asked for, after all retries."""


class VendorRejectedError(VendorError):
    """A 4xx that asking again cannot change."""


class VendorUnauthorizedError(VendorRejectedError):
    """401 or 403: the API key is missing, wrong or not allowed to see this.

    Attributes:
        key_refused: Whether it is the key that is refused, so that no other request would get an answer either;
            otherwise (a 403 alone) it is what was asked for.
    """

    key_refused: bool = False


class VendorNotFoundError(VendorRejectedError):
    """404 or 410: the entity is gone."""


class VendorExpiredError(VendorRejectedError):
    """What an earlier answer led to (a cursor, a submitted query) is there no more: the first request is due again."""


class VendorProtocolError(VendorError):
    """An answer that cannot be understood: wrong type, malformed or missing parts."""


class VendorTooLargeError(VendorProtocolError):
    """An answer whose body is larger than is read; asking again cannot change that, asking for less can.

    Attributes:
        told: Whether the vendor said so itself; what is only larger than is read may be an accident, once.
    """

    told: bool = False


class BudgetError(VendorAssetsError):
    """The shared budget gave no slot."""


class BudgetDeadlineError(BudgetError):
    """The wait would outlast the caller's deadline; nothing was taken."""


class BudgetUnavailableError(BudgetError, retryable=True):
    """The budget's database cannot be reached."""


class StorageError(VendorAssetsError):
    """The object store did not do what was asked."""


class ObjectNotFoundError(StorageError):
    """No object under this key."""


class ObjectConflictError(StorageError):
    """A conditional write lost: somebody else wrote first."""


class StorageUnavailableError(StorageError, retryable=True):
    """The store cannot be reached, refuses the credentials, or is full."""


class HarvestError(VendorAssetsError):
    """A harvest that did not end complete."""


class PartitionHeldError(HarvestError, retryable=True):
    """Another live run holds the partition; the message names it."""


class MessageError(VendorAssetsError, retryable=True):
    """A message to people did not arrive; names no address, which is a secret."""


class StoppedError(VendorAssetsError, retryable=True):
    """The run was asked to stop; what had been answered is kept, nothing more is sent."""


class RecordError(VendorAssetsError):
    """A row that does not fit its table."""
