"""What ``vendor-assets plan`` says of what calls count."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from vendor_assets.cli.plan import _counts, _print_costs, _print_counts, _state
from vendor_assets.cli.project import Project
from vendor_assets.harvest.costs import DayPlan
from vendor_assets.settings import read

DAY = date(2026, 11, 20)


def test_a_plan_says_what_it_costs_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The price of a call, of a day and of what is to come, and what of the month's money is left."""
    environ = {
        "VENDOR_KIND": "cloudwatch",
        "VENDOR_URL": "https://monitoring.eu-central-1.amazonaws.com",
        "VENDOR_API_KEY": "key",
        "VENDOR_APPLICATION_KEY": "secret",
        "VENDOR_RATE": "600/min,20 usd/month",
        "VENDOR_SHARE": "0.8",
    }
    account = read(environ, root=tmp_path)
    plan = DayPlan(
        DAY,
        roster_from=DAY,
        shape_from=DAY,
        troops=1,
        unknown=0,
        left_out=0,
        calls={"troops": 0, "performance_data": 15_000},
        done={"troops": 0, "performance_data": 6_000},
        saved=0,
        by_troop={},
        whole_by_key={},
        to_come={},
        per_call={"dollars": 0.00005},
    )
    project = Project(tmp_path, environ, account)
    budget = project.budget()
    with budget.slot(counts={"dollars": 4.2}):
        pass
    budget.close()
    _print_costs([plan, plan], account, 60.0, 0)
    _print_counts(plan, _state(project))
    said = capsys.readouterr().out
    assert (
        "30,000 calls to come (1.50 dollars), 12,000 answered already; at 80% of 600/min, 20 dollars/month"
        in said
    )
    assert "a call counts 0.00005 dollars on average, a day 1.05 dollars" in said
    assert "used of 20 dollars/month: 4.20 dollars of 16.00 dollars, 11.80 dollars left" in said
    assert _counts([plan, plan]) == {"dollars": 1.5}
