"""How a day stands: one truth, whoever asks, and no failure that looks like a success."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from vendor_assets.errors import VendorUnauthorizedError
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.outcome import CHAIN, Outcome
from vendor_assets.harvest.status import DayStatus, status_of_day
from vendor_assets.orchestration.assets.publishing import troop_states, troops_present
from vendor_assets.storage.folder import FolderStore
from vendor_assets.vendors.base import Parsed, PlannedRequest, Response, reject
from vendor_assets_tests.support.toy import (
    DAY,
    ToyClient,
    ToyVendor,
    click,
    noon,
    toy_harvester,
    with_plain_keys,
)


class Picky(ToyVendor):
    """Puts every row of some assets aside."""

    def __init__(self) -> None:
        self.rejects: set[str] = set()

    def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
        parsed = super().parse(asset, planned, response)
        if asset not in self.rejects:
            return parsed
        count = len(next(iter(parsed.columns.values()), []))
        return Parsed({name: [] for name in parsed.columns}, rejected=[reject("odd", {})] * count)


class Stage:
    """A store and a vendor with two troops."""

    def __init__(self, folder: Path) -> None:
        self.store = with_plain_keys(FolderStore(folder))
        self.client = ToyClient({"1": {"a": ["cpu"]}, "2": {"b": ["cpu"]}}, noon)
        self.vendor = Picky()
        self.runs = 0

    def harvest(self, run: str, *troops: str, **order: object) -> list[Outcome]:
        """Bring troops, or else the roster and all troops, up to date."""
        asked = click(run, **order)
        with closing(toy_harvester(self.store, self.client, vendor=self.vendor)) as harvester:
            found = [] if troops else list(harvester.troops([DAY], asked))
            partitions = [(DAY, troop) for troop in troops or ("1", "2")]
            return found + list(harvester.chain(CHAIN, partitions, asked))

    def roster(self, day: date, **order: object) -> Outcome:
        """Bring a day's roster up to date, by a run of its own."""
        self.runs += 1
        later = {"vendor": self.vendor, "now": lambda: noon("2026-11-22")}
        with closing(toy_harvester(self.store, self.client, **later)) as harvester:
            return next(iter(harvester.troops([day], click(f"roster-{self.runs}", **order))))

    def status(self) -> DayStatus:
        """What the status says."""
        return status_of_day(self.store, DAY, Filters())


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    return Stage(tmp_path / "store")


def test_a_refused_key_is_told_until_a_success(stage: Stage) -> None:
    """Tables from before do not hide that the newest harvest failed: not in the status, nor in the day's check."""
    stage.harvest("r1")
    assert (stage.status().complete, stage.status().problems) == (2, ())
    stage.client.judge = lambda _: VendorUnauthorizedError("the vendor refuses the key", status=401)
    assert {outcome.state for outcome in stage.harvest("r2", "1", "2")} == {"failed"}
    status = stage.status()
    assert (status.complete, status.failed) == (0, 2)
    assert all("refuses the key" in problem for problem in status.problems)
    check = troops_present(troop_states(stage.store, DAY, Filters()))
    assert not check.passed
    assert check.description == "2 failed: 1, 2"
    stage.client.judge = lambda _: None
    stage.harvest("r3", "1", "2")
    assert (stage.status().complete, stage.status().problems) == (2, ())
    assert troops_present(troop_states(stage.store, DAY, Filters())).passed


def test_a_roster_that_failed_is_told(stage: Stage) -> None:
    """Where not even the roster is there, the status still says why."""
    stage.client.judge = lambda _: VendorUnauthorizedError("the vendor refuses the key", status=401)
    stage.harvest("r1")
    status = stage.status()
    assert not status.roster
    assert [problem for problem in status.problems if problem.startswith("troops failed:")]


@pytest.mark.parametrize("asset", CHAIN)
def test_where_no_record_fits_nothing_is_green(stage: Stage, asset: str) -> None:
    """An answer of which every record is put aside leaves a partial partition, not an empty one, and so below it."""
    stage.vendor.rejects = {asset}
    outcomes = {outcome.asset: outcome for outcome in stage.harvest("r1") if outcome.troop_key == "1"}
    bad = outcomes[asset]
    assert (bad.state, bad.rows, bad.quarantined > 0) == ("partial", 0, True)
    assert "in quarantine, and there are no others" in bad.message
    assert outcomes["performance_data"].state == "partial"
    assert stage.status().partial == 2
    assert not troops_present(troop_states(stage.store, DAY, Filters())).passed
    stage.vendor.rejects = set()
    again = {
        outcome.state for outcome in stage.harvest("r2", "1", "2", rebuild=True) if outcome.asset == asset
    }
    assert again == {"complete"}


def test_a_table_is_not_replaced_by_nothing_that_fits(stage: Stage) -> None:
    """The complete table of before stays where all records of a new answer are put aside."""
    stage.harvest("r1")
    stage.vendor.rejects = {"performance_data"}
    outcome = stage.harvest("r2", "1")[-1]
    assert (outcome.state, outcome.rows) == ("partial", 24)


def test_an_empty_roster_after_a_full_one_fails(stage: Stage) -> None:
    """Nothing is published of it, each run reads the list anew, and a person can accept it."""
    stage.client.now = lambda: noon("2026-11-22")
    before, after = DAY, date(2026, 11, 21)
    assert stage.roster(before).state == "complete"
    full, stage.client.hierarchy = stage.client.hierarchy, {}
    first = stage.roster(after)
    assert (first.state, first.rows) == ("failed", 0)
    assert "no troop for 2026-11-21, but on 2026-11-20 there were 2" in first.message
    assert not status_of_day(stage.store, after, Filters()).roster
    calls = stage.client.calls.total()
    assert stage.roster(after).state == "failed"
    assert stage.client.calls.total() == calls + 1
    stage.client.hierarchy = full
    assert (stage.roster(after).state, stage.roster(after).rows) == ("complete", 2)


def test_an_empty_roster_can_be_accepted(stage: Stage) -> None:
    """Where an account really has no troop any more, the day is empty and green; a first one that is empty says so."""
    hierarchy, stage.client.hierarchy = stage.client.hierarchy, {}
    assert "the account has no troop" in stage.roster(date(2026, 11, 18)).message
    stage.client.hierarchy = hierarchy
    assert stage.roster(date(2026, 11, 19)).state == "complete"
    stage.client.hierarchy = {}
    assert stage.roster(DAY).state == "failed"
    assert stage.roster(DAY, accept_empty=True).state == "empty"


def test_a_roster_that_lost_nearly_all_says_so(stage: Stage) -> None:
    """Less than a tenth of the troops of before is worth a word."""
    stage.client.hierarchy = {str(number): {} for number in range(30)}
    assert stage.roster(date(2026, 11, 19)).message == ""
    stage.client.hierarchy = {"1": {}, "2": {}}
    outcome = stage.roster(DAY)
    assert (outcome.state, "2 troops on 2026-11-20, on 2026-11-19 there were 30" in outcome.message) == (
        "complete",
        True,
    )
