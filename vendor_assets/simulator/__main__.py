"""``python -m vendor_assets.simulator``."""

import sys

from vendor_assets.simulator.command import main

sys.exit(main())
