"""What every vendor has to keep, and what Nimbus answers."""

from pathlib import Path

from nimbus_vendor import Nimbus

from vendor_assets.vendors.conformance import VendorConformance


class TestNimbus(VendorConformance):
    vendor = Nimbus()
    cases = Path(__file__).parent / "cases"
