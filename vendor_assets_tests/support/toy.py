"""A toy vendor in memory, and harvests of it, for tests that need no socket."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest

from vendor_assets.budget import OTHERS, Team
from vendor_assets.client import Fetched, Usage
from vendor_assets.days import Window
from vendor_assets.errors import StoppedError, VendorError, VendorProtocolError
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.harvester import Harvester
from vendor_assets.harvest.outcome import CHAIN, HarvestOptions, Outcome
from vendor_assets.harvest.weights import Weights
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.objects import ObjectStore
from vendor_assets.vendors.base import DataGroup, Leaf, Parsed, PlannedRequest, Request, Response, Vendor

Hierarchy = dict[str, dict[str, list[str]]]
"""Troop id -> warrior id -> names of data groups."""

DAY = date(2026, 11, 20)
HIERARCHY: Hierarchy = {
    "1": {"a": ["cpu", "http", "sql"], "b": ["cpu"]},
    "2": {"c": ["cpu", "http"]},
    "3": {},
}


class ToyVendor(Vendor):
    """Speaks plain JSON; performance data come two data groups a request, one value an hour.

    Attributes:
        batch: Data groups a request.
        halves: Whether a request for one data group can be cut by time.
    """

    kind: ClassVar[str] = "toy"
    title: ClassVar[str] = "the toy vendor"
    needs_api_key: ClassVar[bool] = False
    batch = 2
    halves = False

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {"X-Toy": api_key}

    def probe(self) -> Request:
        return Request("/troops")

    def troops(self, day: Window) -> PlannedRequest:
        return PlannedRequest(Request("/troops"), (Leaf("troops"),))

    def warriors(self, troop_id: str, day: Window) -> PlannedRequest:
        return PlannedRequest(Request(f"/troops/{troop_id}"), (Leaf("warriors"),))

    def data_groups(self, troop_id: str, warrior_id: str, day: Window) -> PlannedRequest:
        return PlannedRequest(Request(f"/groups/{warrior_id}"), (Leaf(warrior_id, warrior_id),))

    def performance_data(
        self,
        troop_id: str,
        warrior_id: str,
        groups: Sequence[DataGroup],
        day: Window,
        resolution_seconds: int,
    ) -> list[PlannedRequest]:
        planned = []
        for first in range(0, len(groups), self.batch):
            batch = groups[first : first + self.batch]
            names = ",".join(group.name for group in batch)
            params = (("names", names), ("from", day.start.isoformat()), ("to", day.end.isoformat()))
            leaves = tuple(Leaf(f"{warrior_id}/{group.name}", warrior_id, group.name, day) for group in batch)
            planned.append(PlannedRequest(Request(f"/data/{warrior_id}", params), leaves))
        return planned

    def split(self, planned: PlannedRequest) -> list[PlannedRequest]:
        told = dict(planned.request.params)
        if "names" not in told:
            return []
        middle = len(planned.leaves) // 2
        parts = []
        if middle:
            for leaves in (planned.leaves[:middle], planned.leaves[middle:]):
                names = ",".join(leaf.data_group for leaf in leaves)
                parts.append(PlannedRequest(_with(planned.request, names=names), leaves))
            return parts
        start, end = (datetime.fromisoformat(told[name]) for name in ("from", "to"))
        if not self.halves or end - start <= timedelta(hours=1):
            return []
        at = (start + (end - start) / 2).isoformat()
        return [
            PlannedRequest(_with(planned.request, **cut), planned.leaves)
            for cut in ({"to": at}, {"from": at})
        ]

    def says_gone(self, request: Request, body: str) -> bool:
        return request.path != "/troops" and not body.startswith("<")

    def parse(self, asset: str, planned: PlannedRequest, response: Response) -> Parsed:
        try:
            document = json.loads(response.body)
            rows = document["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise VendorProtocolError(f"unreadable answer to {planned.request.key}: {error!r}") from error
        names = list(rows[0]) if rows else []
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in names}
        for name in ("timeslice_start", "timeslice_end"):
            if name in columns:
                columns[name] = [datetime.fromisoformat(text) for text in columns[name]]
        following = Request(document["next"]) if document.get("next") else None
        return Parsed(columns=columns, next=following)


def _with(request: Request, **changed: str) -> Request:
    return Request(request.path, tuple((name, changed.get(name, text)) for name, text in request.params))


@dataclass
class ToyClient:
    """Answers for the toy vendor out of a hierarchy; counts every call by request key.

    Attributes:
        hierarchy: What exists.
        faults: Request path -> error to raise, as long as it is there.
        before: Called with each request before it is answered.
        judge: Gives the error to raise for a request, if any.
        page_size: Troops on a page.
        factor: All values come out multiplied.
        answered_at: What its answers say of the time, if anything.
    """

    hierarchy: Hierarchy
    now: Callable[[], datetime]
    faults: dict[str, VendorError] = field(default_factory=dict)
    before: Callable[[Request], None] = lambda request: None
    judge: Callable[[Request], VendorError | None] = lambda request: None
    page_size: int = 100
    factor: float = 1.0
    answered_at: datetime | None = None
    calls: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    teams: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def fetch(
        self,
        request: Request,
        *,
        work_class: str = "scheduled",
        check: Callable[[Response], Any] | None = None,
        ended: Callable[[], bool] | None = None,
        usage: Usage | None = None,
        max_attempts: int | None = None,
        team: Team = OTHERS,
    ) -> Fetched:
        if ended is not None and ended():
            raise StoppedError("asked to stop")
        self.before(request)
        usage = usage or Usage()
        usage.attempts += 1
        usage.calls += 1
        with self._lock:
            self.calls[request.key] += 1
            self.classes[work_class] += 1
            self.teams.append(team.name)
        for path, error in self.faults.items():
            if request.path.startswith(path):
                raise error
        if (error := self.judge(request)) is not None:
            raise error
        body = json.dumps(self._answer(request)).encode()
        response = Response(200, {}, body, self.now())
        usage.bytes += len(body)
        return Fetched(response, check(response) if check else None, usage, self.answered_at)

    def _answer(self, request: Request) -> dict[str, Any]:
        kind, _, rest = request.path.lstrip("/").partition("/")
        if kind == "troops" and not rest.isdigit():
            page = int(rest.removeprefix("page")) if rest else 1
            names = sorted(self.hierarchy)
            first = (page - 1) * self.page_size
            rows = [{"troop_id": name, "name": f"troop {name}", "attributes": None} for name in names]
            following = f"/troops/page{page + 1}" if first + self.page_size < len(names) else None
            return {"rows": rows[first : first + self.page_size], "next": following}
        if kind == "troops":
            warriors = self.hierarchy.get(rest, {})
            return {
                "rows": [{"warrior_id": name, "name": name, "attributes": None} for name in sorted(warriors)]
            }
        groups = next((held[rest] for held in self.hierarchy.values() if rest in held), [])
        if kind == "groups":
            return {
                "rows": [{"warrior_id": rest, "data_group": name, "value_names": ["ms"]} for name in groups]
            }
        params = dict(request.params)
        start, end = (datetime.fromisoformat(params[name]) for name in ("from", "to"))
        rows = []
        for name in params["names"].split(","):
            for hour in range(int((end - start).total_seconds()) // 3600):
                at = start + timedelta(hours=hour)
                rows.append(
                    {
                        "warrior_id": rest,
                        "data_group": name,
                        "value_name": "ms",
                        "timeslice_start": at.isoformat(),
                        "timeslice_end": (at + timedelta(hours=1)).isoformat(),
                        "value": hour * self.factor,
                        "weight": None,
                    }
                )
        return {"rows": rows}


class Alive:
    """Liveness by a set of names."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def watch(self, holder: str, stop: Callable[[], bool] | None = None) -> bool:
        return holder in self.names


def with_plain_keys(store: ObjectStore) -> ObjectStore:
    """A store in which the toy vendor's troops have their ids as keys, as older releases gave them."""
    keys = {str(number): str(number) for number in range(1, 100)}
    store.put(layout.TROOP_KEYS_KEY, json.dumps({"format": 1, "keys": keys}).encode())
    return store


def noon(day: str = "2026-11-21") -> datetime:
    """Noon UTC of a day."""
    return datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)


def toy_harvester(store: ObjectStore, client: ToyClient, **changes: Any) -> Harvester:
    """A harvester that lands each answer at once; where nothing else is said at noon, with one thread."""
    usual = {
        "vendor": ToyVendor(), "liveness": Alive(), "zone": ZoneInfo("UTC"), "threads": 1, "now": noon,
        "flush_seconds": 0.0,
    }  # fmt: skip
    return Harvester(store=store, client=client, **usual | changes)


def click(run: str, **changes: object) -> HarvestOptions:
    """What a run wants that a person has started."""
    return HarvestOptions(run, run, **changes)  # type: ignore[arg-type]


class Bench:
    """One store and one vendor; each ``harvester()`` is a new run's, and all end with :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = with_plain_keys(FolderStore(folder))
        self.now = noon()
        self.client = ToyClient({troop: dict(held) for troop, held in HIERARCHY.items()}, lambda: self.now)
        self.vendor = ToyVendor()
        self.alive = Alive()
        self.open: list[Harvester] = []
        self.filters = Filters()
        self.weights = Weights()

    def close(self) -> None:
        for harvester in self.open:
            harvester.close()

    def harvester(self, threads: int = 4, **more: Any) -> Harvester:
        harvester = toy_harvester(
            self.store,
            self.client,
            vendor=self.vendor,
            liveness=self.alive,
            threads=threads,
            now=lambda: self.now,
            filters=self.filters,
            weights=self.weights,
            **more,
        )
        self.open.append(harvester)
        return harvester

    def troops(self, order: HarvestOptions) -> Outcome:
        return next(iter(self.harvester().troops([DAY], order)))

    def chain(
        self, order: HarvestOptions, *troops: str, assets: tuple[str, ...] = CHAIN
    ) -> dict[tuple[str, str], Outcome]:
        partitions = [(DAY, troop) for troop in troops or ("1", "2", "3")]
        outcomes = self.harvester().chain(assets, partitions, order)  # type: ignore[arg-type]
        return {(outcome.asset, str(outcome.troop_key)): outcome for outcome in outcomes}

    def calls(self) -> int:
        return self.client.calls.total()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path / "store")) as bench:
        yield bench
