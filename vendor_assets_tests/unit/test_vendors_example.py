"""The vendor of examples/nimbus_vendor keeps what every vendor has to keep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vendor_assets.vendors.cases import check_cases
from vendor_assets.vendors.conformance import check

EXAMPLE = Path(__file__).parents[2] / "examples" / "nimbus_vendor"


def test_it_passes_the_suite_in_under_150_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is all that it takes."""
    monkeypatch.syspath_prepend(EXAMPLE / "src")
    from nimbus_vendor import Nimbus

    monkeypatch.delitem(sys.modules, "nimbus_vendor")
    assert list(map(str, check(Nimbus()))) == []
    assert check_cases(Nimbus(), EXAMPLE / "tests" / "cases") == []
    (file,) = (EXAMPLE / "src").rglob("*.py")
    assert len(file.read_text().splitlines()) < 150
