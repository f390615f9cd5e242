"""Whatever lies in a store, reading it ends in one of our errors, and other partitions go on."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vendor_assets.errors import RecordError, StorageError, VendorAssetsError, VendorRejectedError
from vendor_assets.harvest.costs import Costs
from vendor_assets.harvest.dead_letters import DeadLetters
from vendor_assets.harvest.filters import Filters
from vendor_assets.harvest.harvests import list_harvests
from vendor_assets.harvest.outcome import CHAIN, recorded
from vendor_assets.harvest.retention import Retention
from vendor_assets.harvest.status import status_of_day
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import read_groups, read_table
from vendor_assets_tests.support.toy import DAY, Bench, ToyVendor, click

GARBLED = {
    "empty": b"",
    "bytes": b"\x00\xff garbage",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "nested deep": b"[" * 200_000,
    "Parquet's ends": b"PAR1" + b"\x00" * 20 + b"PAR1",
}
VALUES: list[Any] = [None, [], {}, "x", 10**400, [{}]]
KINDS = ["holder", "plan", "finish", "chunk-", "dead_letters.json", "s-", "data.parquet"]


class Wanted:
    """What a cost estimate wants to know."""

    vendor, zone, resolution_seconds, filters = ToyVendor(), ZoneInfo("UTC"), 1800, Filters()


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a harvested day, dead letters of one troop, and sightings."""
    folder = tmp_path_factory.mktemp("good") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        with closing(Bench(folder)) as bench:
            bench.client.faults["/data/b"] = VendorRejectedError("the vendor rejects it", status=400)
            bench.now = bench.now.replace(day=20)
            bench.harvester().sight(click("r0"))
            bench.now = bench.now.replace(day=21)
            bench.troops(click("r1"))
            bench.chain(click("r2"))
        yield folder


def harvest(folder: Path, *, rebuild: bool) -> dict[str, str]:
    """State of each troop after another run."""
    order = click("again", finished="reconcile", rebuild=rebuild)
    with closing(Bench(folder)) as bench:
        bench.client.faults["/data/b"] = VendorRejectedError("the vendor rejects it", status=400)
        bench.troops(order)
        outcomes = bench.chain(order)
    for outcome in outcomes.values():
        assert "unexpectedly" not in outcome.message, outcome.message
        assert "\n" not in outcome.message
    return {troop: outcomes["performance_data", troop].state for troop in ("1", "2", "3")}


def _retention(store: FolderStore) -> object:
    bench = Bench(Path(store.url))
    later = bench.now.replace(year=2030)
    return Retention(store, 1, now=later, holder="x", liveness=bench.alive, stop=lambda: False).run()


READERS: dict[str, Callable[[FolderStore], object]] = {
    "status": lambda store: status_of_day(store, DAY, Filters()),
    "plan": lambda store: Costs(store, Wanted()).day(DAY),
    "sync": lambda store: (
        [recorded(store, asset, DAY, "1") for asset in CHAIN]  # type: ignore[arg-type]
        + [recorded(store, "troops", DAY, None)]
    ),
    "dead-letters list": lambda store: DeadLetters(store).all(),
    "retention": _retention,
}


def members(data: bytes) -> Iterator[bytes]:
    """An object of JSON with each member of another type, or without it."""
    document = json.loads(data)
    for name in document:
        yield json.dumps({key: value for key, value in document.items() if key != name}).encode()
        for value in VALUES:
            if (value is not document[name] and type(value) is not type(document[name])) or value == 10**400:
                yield json.dumps(document | {name: value}).encode()


def others(data: bytes) -> Iterator[bytes]:
    """Parquet with each column of another type, or without it; a plan with each member of its header so."""
    table, metadata = pq.read_table(io.BytesIO(data)), pq.read_metadata(io.BytesIO(data)).metadata or {}
    kept = {name.decode(): text.decode() for name, text in metadata.items() if name != b"ARROW:schema"}

    def written(changed: pa.Table, texts: dict[str, str]) -> bytes:
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, changed.schema) as writer:
            writer.write_table(changed)
            writer.add_key_value_metadata(texts)
        return sink.getvalue()

    yield written(pa.table({"x": [1]}), kept)
    yield written(table, {})
    for at, name in enumerate(table.column_names):
        yield written(table.drop_columns([name]), kept)
        yield written(table.set_column(at, name, pa.array(range(table.num_rows), pa.int64())), kept)
        if pa.types.is_string(table.schema.field(at).type):
            yield written(table.set_column(at, name, pa.array(["\x1bjunk[{"] * table.num_rows)), kept)
    for header in members(kept["plan"].encode()) if "plan" in kept else ():
        yield written(table, kept | {"plan": header.decode()})


def mutants(key: str, data: bytes) -> Iterator[bytes]:
    """What may lie there instead."""
    yield from GARBLED.values()
    yield data[: len(data) // 2]
    if data[:1] == b"{":
        yield from members(data)
    if data[:4] == b"PAR1":
        yield from others(data)


def keys_of(folder: Path, kind: str) -> list[str]:
    """An object of a kind for each asset of troop 1, and those of the day."""
    return [
        info.key
        for info in FolderStore(folder).list("")
        if info.key.rpartition("/")[2].startswith(kind) and not re.search(r"troop=[23]", info.key)
    ]


def damaged(harvested: Path, folder: Path, key: str, data: bytes) -> FolderStore:
    """A copy of the store in which one object is another."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(harvested, copy, copy_function=os.link)
    (copy / key).unlink()
    (copy / key).write_bytes(data)
    return FolderStore(copy)


def read_all(store: FolderStore) -> None:
    """Read it for everybody who reads; what is raised is ours, on one line."""
    for name, read in READERS.items():
        said = ""
        try:
            read(store)
        except VendorAssetsError as error:
            said = str(error)
        assert "\n" not in said, name
        assert not said or store.url in said, f"{name}: {said}"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_said_on_one_line(
    harvested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, kind: str
) -> None:
    """Each reader of each kind of object names the object that it cannot understand, whatever is in it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    whole = pytestconfig.getoption("--long", default=False)
    for key in keys_of(harvested, kind) if whole else keys_of(harvested, kind)[-1:]:
        found = list(mutants(key, (harvested / key).read_bytes()))
        for data in found if whole else found[:: max(1, len(found) // 6)]:
            read_all(damaged(harvested, tmp_path, key, data))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "s-"])
def test_damage_in_one_partition_stops_no_other(
    harvested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A harvest and a rebuild end for each other troop as ever, and for this one without a traceback."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    key = next(key for key in reversed(keys_of(harvested, kind)) if "troop=1" in key)
    for rebuild in (False, True):
        states = harvest(Path(damaged(harvested, tmp_path, key, b"\x00 garbage").url), rebuild=rebuild)
        assert (states["2"], states["3"]) == ("complete", "empty")


def test_damaged_dead_letters_are_a_dead_letter(harvested: Path, tmp_path: Path) -> None:
    """They are listed as what they are, so that nothing looks green, and do not hide the others."""
    key = keys_of(harvested, "dead_letters.json")[0]
    (found,) = DeadLetters(damaged(harvested, tmp_path, key, b"{")).all()
    assert (found.asset, found.day, found.troop_key) == ("performance_data", DAY, "1")
    assert "cannot be read" in found.letters[0].reason
    assert status_of_day(FolderStore(tmp_path / "copy"), DAY, Filters()).dead_letters == 1


def test_a_rebuild_mends_a_damaged_roster(harvested: Path, tmp_path: Path) -> None:
    """The advice that goes with a damaged roster can be followed: it is made anew from what has landed."""
    key = layout.table_key("troops", DAY)
    store = damaged(harvested, tmp_path, key, b"garbage")
    assert "rebuild" in status_of_day(store, DAY, Filters()).problems[-1]
    harvest(Path(store.url), rebuild=True)
    assert read_table(store, key).num_rows == 3


def test_a_table_of_somebody_elses_making_is_refused(harvested: Path, tmp_path: Path) -> None:
    """Numbers where texts belong, and columns that are missing, are refused where the table is read."""
    key = layout.table_key("troops", DAY)
    for data in others((harvested / key).read_bytes()):
        store = damaged(harvested, tmp_path, key, data)
        columns = ["troop_id", "troop_key", "name"]
        with suppress(StorageError):
            rows = [row for group in read_groups(store, key, columns) for row in group.to_pylist()]
            assert all(isinstance(row["troop_id"], str) for row in rows)


@pytest.mark.parametrize("where", ["", "raw_data", "raw_data/performance_data/day=2026-11-20/troop=1"])
def test_foreign_things_are_not_listed(harvested: Path, tmp_path: Path, where: str) -> None:
    """Loops of links, links to nowhere, names that are no UTF-8 and folders of other names keep nobody from reading."""
    store = damaged(harvested, tmp_path, keys_of(harvested, "holder")[0], b"{}")
    before = [info.key for info in store.list("")]
    place = Path(store.url) / where
    (place / "loop").symlink_to("loop")
    (place / "back").symlink_to(store.url)
    (place / "nowhere").symlink_to("not there")
    (place / "pipe\\n").touch()
    Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe")).touch()
    for name in ("day=soon", "day=2026-02-31", "troop=", "troop=a b", "h-", "h-x"):
        (place / name).mkdir()
        (place / name / "plan").write_text("x")
    seen = [info.key for info in store.list("")]
    assert [key for key in seen if not key.endswith("/plan") or key in before] == before
    read_all(store)
    with pytest.raises(StorageError, match="loop"):
        store.get(f"{where}/loop".lstrip("/"))


def test_a_foreign_folder_is_no_harvest(harvested: Path, tmp_path: Path) -> None:
    """A copy that somebody made by hand is not the newest harvest, and keeps no next one from being begun."""
    store = damaged(harvested, tmp_path, keys_of(harvested, "holder")[0], b"{}")
    before = [harvest.folder for harvest in list_harvests(store, "performance_data", DAY, "1")]
    newest = Path(store.url) / before[-1]
    for name in ("h-x", f"{newest.name} copy"):
        shutil.copytree(newest, newest.parent / name)
    assert [harvest.folder for harvest in list_harvests(store, "performance_data", DAY, "1")] == before


def test_a_damaged_object_names_itself_and_what_to_do(harvested: Path, tmp_path: Path) -> None:
    """The message has the object's address and a way out."""
    key = keys_of(harvested, "finish")[-1]
    store = damaged(harvested, tmp_path, key, b"[]")
    with pytest.raises(RecordError, match=re.escape(f"{store.uri(key)} cannot be read") + ".*; delete it"):
        recorded(store, "warriors", DAY, "1")
