"""Teams that harvest at the same time, in one process and in two: the vendor's log shows each with its part."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest

from vendor_assets.budget import Budget
from vendor_assets.budget.pace import Pace
from vendor_assets.settings import read
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator

DAY = datetime.now(UTC).date() - timedelta(days=1)


def calls_between(vendor: RunningSimulator, one: str, other: str) -> list[int]:
    """How many requests for lists of one troop's metrics came between two of the other's, while both had some left."""
    found = [
        match[1]
        for _, target, _ in vendor.log(arrivals=True)["arrivals"]
        if (match := re.match(r"/v2/applications/(\d+)/hosts/\d+/metrics.json", target))
    ]
    order = "".join("1" if troop == one else "0" for troop in found)
    both = order[max(map(order.index, "01")) : min(map(order.rindex, "01")) + 1]
    return [len(between) for between in both.split("0")[1:-1]]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_vendor_sees_each_team_with_its_part(tmp_path: Path, processes: int) -> None:
    """Three calls of the one for each of the other, which has more to do; ``why`` names them, and there is no 429.

    A hold keeps all calls back until both wait. On a busy machine the part may be off; without weights it is a half.
    Answers are small: a vendor that computes for a second without a look at its door counts what came in time as late.
    """
    with simulator(
        troops=3, warriors=200, data_groups=1, churn=False, limit="20/s", burst=20, limit_kind="bucket"
    ) as vendor:
        world = vendor.world
        sizes = {troop.id: len(world.warriors_on(troop.id, DAY)) for troop in world.troops_on(DAY)}
        small, middle, large = sorted(sizes, key=sizes.__getitem__)
        settings = {
            "VENDOR_URL": vendor.url,
            "VENDOR_API_KEY": KEY,
            "VENDOR_SHARE": "1",
            "VENDOR_RATE": "20/s",
            "VENDOR_ASSETS_RESOLUTION": "3600",
            "VENDOR_ASSETS_WEIGHTS": f"{middle}=3,*=1",
        }
        command = Command(tmp_path, settings)
        harvest = ("harvest", "--day", DAY.isoformat(), "--no-report", "--troop")
        # The roster, which all go by.
        assert command.run(*harvest, small).code == 0
        planned = command.run("plan", "--json", "--day", DAY.isoformat()).json["teams"]
        assert [(each["name"], each["weight"]) for each in planned] == [(middle, 3), ("*", 1)]
        vendor.reset()
        troops = [(large,), (middle,)] if processes == 2 else [(large, "--troop", middle)]
        account = read(settings, root=tmp_path)
        with closing(
            Budget(account.database_url, account.budget_name, limits=account.limits, share=account.share)
        ) as budget:
            budget._document.change(lambda pace, now: pace.hold(now + 3600, "a test", now))
            running = [command.start(*harvest, *each) for each in troops]
            told: list[str] = []
            while len(told) < 2:
                assert all(each.poll() is None for each in running)
                told = command.run("why", "--json").json["now"]["teams"]
            assert vendor.calls() == 0
            budget._document.change(_lift)
        assert re.match(r"team \* \(weight 1, .*\): its part of the pace is 25%", told[0])
        assert re.match(rf"team {middle} \(weight 3, .*\): its part of the pace is 75%", told[1])
        assert [each.wait() for each in running] == [0] * processes
        found = calls_between(vendor, middle, large)
        # A troop that lands what was answered has nothing to ask for meanwhile, and the other has all slots.
        asked = [calls for calls in found if calls]
        assert len(asked) > 5, found
        assert median(asked) >= 2, found
        assert vendor.log()["violations"] == 0


def _lift(pace: Pace, now: float) -> None:
    pace.hold_until = now
    pace.void_all(now)
