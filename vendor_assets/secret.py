"""A secret: read where it is needed, and shown nowhere."""

from __future__ import annotations

import os
import stat
import threading
from typing import Any, Final, Self

from vendor_assets.errors import ConfigurationError
from vendor_assets.logs import get_logger

log = get_logger(__name__)

MAX_BYTES: Final = 65_536
"""A file that holds more than this is no secret's."""


class Secret:
    """A text that is never shown, from a setting or from a file that may be renewed. Thread-safe.

    It is its own copy, and leaves the text out where it is pickled: what is written down holds the name alone.

    Attributes:
        variable: Of the environment, that holds it.

    Args:
        path: Of the file that holds it; read anew whenever it has changed.
    """

    def __init__(self, name: str, text: str = "", path: str = "") -> None:
        self.name = name
        self.path = path
        self.variable = name
        self._text = text
        self._stamp: tuple[int, ...] = ()
        self._lock = threading.Lock()

    def read(self) -> str:
        """The secret as it is now; empty where there is none.

        A file that cannot be read while it is renewed leaves the secret as it was.

        Raises:
            ConfigurationError: There is no file, it cannot be read, or it is empty, and that from the beginning.
        """
        if not self.path:
            return self._text
        with self._lock:
            try:
                stamp = _stamp(self.path)
                if stamp != self._stamp:
                    self._text, self._stamp = self._content(), stamp
            except (OSError, ValueError) as error:
                what = error.strerror if isinstance(error, OSError) else str(error)
                if not self._text:
                    raise ConfigurationError(
                        # Whoever gives the secret itself in place of a path shall not read it in a log.
                        f"the file that {self.name}_FILE names cannot be used ({what or type(error).__name__}); "
                        "give the path of a file that can be read and holds the secret alone"
                    ) from None
                log.warning("the file that %s_FILE names cannot be read now: %s", self.name, what)
            return self._text

    def read_anew(self) -> str:
        """As :meth:`read`, even where the file looks unchanged."""
        with self._lock:
            self._stamp = ()
        return self.read()

    def _content(self) -> str:
        # Not blocking, should a pipe have taken the place of the file.
        with open(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - a descriptor
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        try:
            text = data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise ValueError("it is not text in UTF-8") from None
        if not text:
            raise ValueError("it is empty")
        return text

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._text or self.path)

    def __repr__(self) -> str:
        return f"Secret({self.name}{'_FILE' if self.path else ''}{'' if self else ', not set'})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        return type(self), (self.name, "", self.path)

    def _identity(self) -> tuple[str, str, str]:
        return self.name, self.path, "" if self.path else self._text


def _stamp(path: str) -> tuple[int, ...]:
    """Changes when the file does.

    Raises:
        OSError: It cannot be looked at.
        ValueError: It is no file.
    """
    found = os.stat(path)  # noqa: PTH116 - before each call, and half as dear as Path.stat
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
