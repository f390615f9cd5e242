"""``python -m vendor_assets.simulator``."""

import sys

try:
    from vendor_assets.simulator.command import main

    sys.exit(main())
except KeyboardInterrupt:
    # Before it listens.
    sys.exit(0)
