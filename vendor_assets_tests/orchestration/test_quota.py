"""VENDOR_RATE as it is documented: each way of writing it opens the budget that it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from vendor_assets.orchestration.definitions import build_resources
from vendor_assets.settings import read


@pytest.mark.parametrize(
    ("text", "limits", "over_a_day"),
    [
        ("", ["1000/min"], 1000 / 60),
        ("auto", ["auto"], None),
        ("20/s", ["20/s"], 20.0),
        ("20/s,1000/min", ["20/s", "1000/min"], 1000 / 60),
        ("20/sec, 1000/minute ,9/hour", ["20/s", "1000/min", "9/h"], 9 / 3600),
        ("20/second,100000/day", ["20/s", "100000/day"], 100_000 / 86_400),
        ("100/h,100000/d", ["100/h", "100000/day"], 100 / 3600),
        ("1/s,60/min,3600/h,1/s", ["1/s", "60/min", "3600/h"], 1.0),
    ],
)
def test_every_documented_rate_opens_the_budget(
    tmp_path: Path, text: str, limits: list[str], over_a_day: float | None
) -> None:
    """What the setting says holds in the budget, in all units, several at once, found by itself, or documented."""
    environ = {
        "VENDOR_URL": "http://127.0.0.1:9",
        "VENDOR_API_KEY": "k",
        "VENDOR_RATE": text,
        "VENDOR_SHARE": "0.5",
        "VENDOR_ASSETS_DB": f"sqlite:///{tmp_path}/budget.db",
    }
    account = read(environ, root=tmp_path)
    state = build_resources(account)["vendor_api"].state()
    assert list(state.limits) == limits
    permitted = None if over_a_day is None else pytest.approx(0.5 * over_a_day)
    assert state.permitted_rate == permitted
    assert account.permitted_rate == permitted
