"""``python -m vendor_assets`` is the command ``vendor-assets``."""

import sys

from vendor_assets.cli import main

sys.exit(main())
