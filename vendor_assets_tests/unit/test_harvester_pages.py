"""Lists that come in pages, and answers that are not there yet."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vendor_assets.errors import (
    BudgetDeadlineError,
    StoppedError,
    VendorError,
    VendorRejectedError,
    VendorUnavailableError,
)
from vendor_assets.harvest import fetching
from vendor_assets.harvest.outcome import CHAIN, Outcome
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_table
from vendor_assets.vendors.base import Parsed, PlannedRequest, Request, Response
from vendor_assets_tests.support.toy import (
    DAY,
    ToyClient,
    ToyVendor,
    click,
    noon,
    toy_harvester,
    with_plain_keys,
)

BROKEN = VendorUnavailableError("the vendor failed (status 500)", status=500)
EXPIRED = VendorRejectedError("the cursor has expired", status=400)


class Cursors(ToyClient):
    """Pages of one troop each, by cursors that belong to one listing and expire.

    Attributes:
        listing: Number of the listing; its names are in all that it answers.
        expired: Listings whose cursors are refused.
    """

    listing = 1

    def expire(self, after: str) -> None:
        """Let the cursors of this listing expire once a page was asked for."""

        def judge(request: Request) -> VendorError | None:
            if request.path == after:
                self.listing += 1
            parts = request.path.split("/")
            return EXPIRED if len(parts) == 4 and int(parts[2]) < self.listing else None

        self.judge = judge

    def _answer(self, request: Request) -> dict[str, Any]:
        parts = request.path.split("/")
        page = int(parts[3]) if len(parts) == 4 else 1
        name = f"{self.listing}{page}"
        rows = [{"troop_id": name, "name": name, "attributes": None}]
        return {"rows": rows, "next": f"/troops/{self.listing}/{page + 1}" if page < 4 else None}


def rosters(store: FolderStore, client: ToyClient, run: str, vendor: ToyVendor | None = None) -> Outcome:
    with closing(toy_harvester(store, client, vendor=vendor or ToyVendor())) as harvester:
        return next(iter(harvester.troops([DAY], click(run))))


def names(store: FolderStore) -> list[str]:
    found: list[str] = read_table(store, layout.table_key("troops", DAY))["troop_id"].to_pylist()
    return sorted(found)


def test_a_cursor_that_expires_is_not_the_end(tmp_path: Path) -> None:
    """The list is asked from the start, once; no page of the first listing is taken for one of the second."""
    store = with_plain_keys(FolderStore(tmp_path / "store"))
    client = Cursors({}, noon)
    client.expire(after="/troops/1/3")
    outcome = rosters(store, client, "r1")
    assert outcome.state == "complete"
    assert names(store) == ["21", "22", "23", "24"]
    assert client.calls == {"/troops": 2} | {f"/troops/{at}": 1 for at in ("1/2", "1/3", "2/2", "2/3", "2/4")}


def test_a_cursor_that_expires_after_a_kill(tmp_path: Path) -> None:
    """What was killed goes on; where its cursor is refused, the list is asked from the start."""
    store = with_plain_keys(FolderStore(tmp_path / "store"))
    client = Cursors({}, noon)

    def kill(request: Request) -> None:
        if request.path == "/troops/1/4":
            raise StoppedError("killed")

    client.before = kill
    assert rosters(store, client, "r1").state == "stopped"
    client.before = lambda request: None
    client.listing = 2
    client.expire(after="")
    assert rosters(store, client, "r2").state == "complete"
    assert names(store) == ["21", "22", "23", "24"]


def test_a_list_whose_cursors_are_always_refused(tmp_path: Path) -> None:
    """It is asked from the start once in a run, then it is a dead letter."""
    store = with_plain_keys(FolderStore(tmp_path / "store"))
    client = Cursors({}, noon)
    client.judge = lambda request: EXPIRED if request.path.count("/") == 3 else None
    assert rosters(store, client, "r1").state == "failed"
    assert client.calls["/troops"] == 2


class Paged(ToyVendor):
    """Data comes in two pages, the second of which may not be there yet."""

    def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
        document = json.loads(response.body)
        if "wait" in document:
            return Parsed(wait_seconds=document["wait"])
        parsed = super().parse(asset, planned, response)
        if asset == "performance_data" and response.asked is None:
            return Parsed(next=Request("/more" + planned.request.target))
        return parsed


class Waiting(ToyClient):
    """Answers that are there after some questions.

    Attributes:
        polls: For how many questions they are not there.
    """

    polls = 2

    def _answer(self, request: Request) -> dict[str, Any]:
        if not request.path.startswith("/more"):
            return super()._answer(request)
        if self.calls[request.key] <= self.polls:
            return {"wait": 0.0}
        path, _, query = request.path.removeprefix("/more").partition("?")
        params = tuple(
            tuple(pair.split("=", 1)) for pair in query.replace("%3A", ":").replace("%2B", "+").split("&")
        )
        return super()._answer(Request(path, params))  # type: ignore[arg-type]


def chain(store: FolderStore, client: ToyClient, run: str, now: Callable[[], datetime] = noon) -> Outcome:
    options = {"vendor": Paged(), "now": now, "settling_seconds": 7200}
    with closing(toy_harvester(store, client, **options)) as harvester:
        list(harvester.troops([DAY], click(run)))
        return list(harvester.chain(CHAIN, [(DAY, "1")], click(run)))[-1]


def waiting(tmp_path: Path) -> tuple[FolderStore, Waiting]:
    return with_plain_keys(FolderStore(tmp_path / "store")), Waiting({"1": {"a": ["g"], "b": ["g"]}}, noon)


def test_an_answer_that_is_not_there_yet_is_asked_for_again(tmp_path: Path) -> None:
    """Each query is submitted once, and asked for until it is there."""
    store, client = waiting(tmp_path)
    outcome = chain(store, client, "r1")
    assert (outcome.state, outcome.landed) == ("complete", 2)
    assert read_table(store, layout.table_key("performance_data", DAY, "1")).num_rows == 48
    submitted = {key: count for key, count in client.calls.items() if key.startswith("/data")}
    assert sorted(submitted.values()) == [1, 1]
    assert sorted(count for key, count in client.calls.items() if key.startswith("/more")) == [3, 3]


def test_an_answer_that_never_comes_is_a_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run asks for so long; the next one asks on, and submits nothing again."""
    monkeypatch.setattr(fetching, "PATIENCE_SECONDS", 0.25)
    store, client = waiting(tmp_path)
    client.polls = 1000
    outcome = chain(store, client, "r1")
    assert (outcome.state, outcome.dead) == ("failed", 2)
    client.polls = 0
    assert chain(store, client, "r2").state == "complete"
    assert {count for key, count in client.calls.items() if key.startswith("/data")} == {1}


def test_pages_that_were_provisional_are_asked_from_the_start(tmp_path: Path) -> None:
    """What came before the data had settled is no place to go on from."""
    store, client = waiting(tmp_path)
    client.polls = 0
    early, late = (lambda: noon("2026-11-21") - timedelta(hours=11)), (lambda: noon("2026-11-22"))
    client.now = early

    def kill(request: Request) -> None:
        if request.path.startswith("/more/data/b"):
            raise StoppedError("killed")

    client.before = kill
    assert chain(store, client, "r1", early).state == "stopped"
    client.before, client.now = lambda request: None, late
    outcome = chain(store, client, "r2", late)
    assert (outcome.state, outcome.landed) == ("complete", 2)
    assert {count for key, count in client.calls.items() if key.startswith("/data")} == {2}


def test_what_is_not_known_yet_teaches_no_size(tmp_path: Path) -> None:
    """Of requests whose bad part is found later, those after it are asked whole."""
    store = with_plain_keys(FolderStore(tmp_path / "store"))
    client = Waiting({"1": {name: ["g", "h"] for name in "abcd"}}, noon)
    client.judge = lambda request: (
        BROKEN if dict(request.params).get("names") == "g,h" and "/a" in request.path else None
    )
    outcome = chain(store, client, "r1")
    assert (outcome.state, outcome.landed) == ("complete", 8)
    whole = [key for key in client.calls if key.startswith("/data") and "g%2Ch" in key]
    assert len(whole) == 4


def test_a_quota_that_is_used_up_for_long_ends_the_harvest(tmp_path: Path) -> None:
    """What was answered is kept; the next run asks for the rest alone."""
    store, client = waiting(tmp_path)

    def refuse(request: Request) -> None:
        if request.path == "/data/b":
            raise BudgetDeadlineError("would wait 12 d for the budget")

    client.before = refuse
    outcome = chain(store, client, "r1")
    assert outcome.state == "failed"
    assert "would wait 12 d" in outcome.message
    client.before = lambda request: None
    assert chain(store, client, "r2").state == "complete"
    assert {count for key, count in client.calls.items() if key.startswith("/data")} == {1}


class Patient(ToyClient):
    """Warrior ``a``'s data wait for the budget while those of ``b`` would have to wait for too long."""

    told = threading.Event()

    def fetch(self, request: Request, **options: Any) -> Any:
        if request.path == "/data/b":
            self.told.set()
            raise BudgetDeadlineError("would wait 27 h for the budget")
        if request.path == "/data/a":
            assert self.told.wait(60)
            for _ in range(100):
                if options["ended"]():
                    raise StoppedError("nobody waits any more")
                time.sleep(0.005)
        return super().fetch(request, **options)


def test_what_waits_already_is_answered_though_the_rest_would_wait_for_too_long(tmp_path: Path) -> None:
    """Else a quota by the month that few calls use up would never bring the first of them."""
    store = with_plain_keys(FolderStore(tmp_path / "store"))
    client = Patient({"1": {"a": ["g"], "b": ["g"]}}, noon)
    with closing(toy_harvester(store, client, threads=2)) as harvester:
        list(harvester.troops([DAY], click("r1")))
        outcome = list(harvester.chain(CHAIN, [(DAY, "1")], click("r1")))[-1]
    assert outcome.state == "failed"
    assert "would wait 27 h" in outcome.message
    assert [key.partition("?")[0] for key in client.calls if key.startswith("/data")] == ["/data/a"]


class Shifting(ToyClient):
    """Pages of two troops each, by number, cut from the list as it is when a page is asked for.

    Attributes:
        present: Who is on the list.
        going: Who goes just after so many calls.
        coming: Whether somebody comes with each call.
    """

    present: list[str]
    going: dict[int, str]
    coming = False

    def _answer(self, request: Request) -> dict[str, Any]:
        number = sum(self.calls.values())
        if self.coming:
            self.present.insert(0, f"c{number}")
        first = 2 * (int(dict(request.params).get("page", "1")) - 1)
        rows = [{"troop_id": name, "name": name} for name in self.present[first : first + 2]]
        more = first + 2 < len(self.present)
        self.present = [name for name in self.present if name != self.going.get(number)]
        return {"rows": rows, "page": first // 2 + 2 if more else None}


class Numbered(ToyVendor):
    """Pages by number."""

    def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
        parsed = super().parse(asset, planned, response)
        parsed.columns = dict(parsed.columns) | {"attributes": [None] * parsed.rows}
        if page := json.loads(response.body)["page"]:
            parsed.next = Request("/troops", (("page", str(page)),))
        return parsed


class Snapshot(Numbered):
    """Its pages are those of the list as it was when it was first asked for."""

    pages_move = False


def shifting(
    tmp_path: Path, going: dict[int, str], vendor: ToyVendor, kill: int = 0, *, coming: bool = False
) -> tuple[list[str], Shifting]:
    """Whom the roster has, and the client; the run is killed before the call of a number, and another goes on."""
    store = with_plain_keys(FolderStore(tmp_path / "store"))
    client = Shifting({}, noon)
    client.present, client.going, client.coming = ["a", "b", "c", "d", "e"], going, coming

    def kill_at(request: Request) -> None:
        if sum(client.calls.values()) == kill - 1:
            raise StoppedError("killed")

    client.before = kill_at
    outcomes = []
    for run in ("r1", "r2") if kill else ("r1",):
        outcomes.append(rosters(store, client, run, vendor).state)
        client.before = lambda request: None
    assert outcomes == (["stopped"] if kill else []) + ["complete"]
    return names(store), client


@pytest.mark.parametrize(
    ("going", "vendor", "kill", "calls"),
    [
        pytest.param({1: "a"}, Numbered(), 0, 6, id="one goes"),
        pytest.param({1: "a", 2: "d"}, Numbered(), 0, 6, id="two go"),
        pytest.param({}, Numbered(), 0, 6, id="nobody goes"),
        pytest.param({}, Snapshot(), 0, 3, id="pages do not move"),
        pytest.param({1: "a"}, Numbered(), 2, 6, id="killed in the first reading"),
        pytest.param({1: "a"}, Numbered(), 4, 8, id="killed in the second reading"),
    ],
)
def test_who_moves_onto_a_page_that_was_read_is_found(
    tmp_path: Path, going: dict[int, str], vendor: ToyVendor, kill: int, calls: int
) -> None:
    """Where a troop goes between two pages, the next one moves onto the page before: another reading has it."""
    found, client = shifting(tmp_path, going, vendor, kill)
    assert found == ["a", "b", "c", "d", "e"]
    assert sum(client.calls.values()) == calls


def test_a_roster_that_never_keeps_still_is_taken_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read four times; all who were seen are on it."""
    found, client = shifting(tmp_path, {}, Numbered(), coming=True)
    assert set(found) > {*"abcde", "c1", "c20"}
    assert client.calls["/troops"] == fetching.MAX_READINGS
    assert "changed in each of 4 readings" in caplog.text
