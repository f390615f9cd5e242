"""The command ``vendor-assets``, also as ``python -m vendor_assets``."""

import contextlib
import gc
import os
import signal
import sys
from typing import Final, NoReturn

INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as a shell has it."""
OBJECTS_AT_ONCE: Final = 50_000
"""After so many new objects the collector looks for cycles among them. By default it does after 700, and goes through
all that the imports have made again and again: a fifth of the start's time."""
_SAID: Final = "vendor-assets: stopped; the next run goes on where this one ended\n"


def main() -> int:
    """Run the command; Ctrl-C ends it with one line at any moment, also while it imports."""
    # Raised as an exception it may come where Python can only print it, inside of a library's destructor for instance.
    signal.signal(signal.SIGINT, _end)
    gc.set_threshold(OBJECTS_AT_ONCE)
    from vendor_assets.cli import main as command  # noqa: PLC0415 - takes a while

    try:
        return command()
    except KeyboardInterrupt:
        # From those that have something to end first.
        sys.stderr.write(_SAID)
        return INTERRUPTED
    finally:
        # From here on there is nothing to say.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(_signal: int, _frame: object) -> NoReturn:
    """End at once: whatever is cut off here is found as it would be after a kill."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.write(2, _SAID.encode())
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
