"""The marker: a store holds the data of one source, whatever is configured."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from vendor_assets.errors import ConfigurationError, StorageUnavailableError
from vendor_assets.simulator.world import World
from vendor_assets.storage import layout, marker
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.marker import Claim, Marker, move, open_marked_store
from vendor_assets.storage.objects import ObjectStore, ObjectWriter
from vendor_assets.storage.parquet import write_table
from vendor_assets.storage.source import EMBEDDED, Source
from vendor_assets.tables import TABLES

OURS = Source("new_relic", "https://api.newrelic.com", "7")
OTHERS = [
    Source("prometheus", OURS.address, OURS.account),
    Source(OURS.kind, "https://api.eu.newrelic.com", OURS.account),
    Source(OURS.kind, OURS.address),
    Source(OURS.kind, EMBEDDED),
]
DAY = date(2026, 11, 20)


def opened(folder: Path, source: Source = OURS) -> tuple[ObjectStore, Claim]:
    """As a process opens a store."""
    return open_marked_store(str(folder), source)


def keys(folder: Path) -> list[str]:
    """What a store holds."""
    return [info.key for info in FolderStore(folder).list("")]


def roster(folder: Path, names: dict[str, str], metadata: dict[str, str]) -> None:
    """A roster as some version wrote it, with no marker beside it."""
    rows = [
        dict.fromkeys(TABLES["troops"].schema.names) | {"troop_id": troop, "troop_key": troop, "name": name}
        for troop, name in names.items()
    ]
    schema = pa.schema([field.with_nullable(True) for field in TABLES["troops"].schema])
    spec = TABLES["troops"]
    nullable = type(spec)(spec.name, spec.grain, spec.sort, spec.sort, schema)
    table = pa.Table.from_pylist(rows, schema=schema)
    write_table(FolderStore(folder), layout.table_key("troops", DAY), table, nullable, metadata=metadata)


def test_the_first_object_marks_the_store(tmp_path: Path) -> None:
    """Looking writes nothing; the first write says whose data the store holds, without anything secret."""
    store, claim = opened(tmp_path)
    claim.compare()
    assert keys(tmp_path) == []
    store.put("a", b"1")
    assert keys(tmp_path) == ["a", layout.MARKER_KEY]
    document = json.loads(store.get(layout.MARKER_KEY))
    document.pop("written_at")
    assert document == {"format": 1, "kind": OURS.kind, "address": OURS.address, "account": "7"}


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_somebody_elses_store_is_refused(tmp_path: Path, other: Source) -> None:
    """Kind, address and account are compared; one line names both sides and what to do, and nothing is written."""
    opened(tmp_path)[0].put("a", b"1")
    before = keys(tmp_path)
    store, claim = opened(tmp_path, other)
    for work in (claim.compare, lambda: store.put("b", b"1")):
        with pytest.raises(ConfigurationError) as raised:
            work()
        assert "\n" not in str(raised.value)
        assert str(OURS) in str(raised.value)
        assert (str(other) if other.address != EMBEDDED else "the embedded vendor") in str(raised.value)
    assert keys(tmp_path) == before
    opened(tmp_path)[1].compare()


def test_another_spelling_of_an_older_release_is_the_same_address(tmp_path: Path) -> None:
    """A store that was marked with a dot at the host's end is still this vendor's, and so on."""
    opened(tmp_path, Source(OURS.kind, "https://API.example.com.:443/", OURS.account))[1].settle()
    opened(tmp_path, Source(OURS.kind, "https://api.example.com", OURS.account))[1].settle()
    with pytest.raises(ConfigurationError, match="holds the data of"):
        opened(tmp_path, Source(OURS.kind, "http://api.example.com", OURS.account))[1].settle()


def test_two_first_writers_agree(tmp_path: Path) -> None:
    """Of many that write first at the same time, those of one source go on and the others are refused."""
    sources = [OURS, OTHERS[1]] * 4
    refused: list[Source] = []
    barrier = threading.Barrier(len(sources))

    def write(number: int) -> None:
        store, _ = opened(tmp_path, sources[number])
        barrier.wait()
        try:
            store.put(f"object-{number}", b"1")
        except ConfigurationError:
            refused.append(sources[number])

    with ThreadPoolExecutor(len(sources)) as pool:
        list(pool.map(write, range(len(sources))))
    held = Marker.read(FolderStore(tmp_path))
    assert held is not None
    assert refused == [source for source in (OURS, OTHERS[1]) if source != held.source] * 4
    written = {int(key.removeprefix("object-")) for key in keys(tmp_path) if key.startswith("object-")}
    assert written == {number for number, source in enumerate(sources) if source == held.source}


@pytest.mark.parametrize(
    "garbled",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b'{"format": "x"}',
     b'{"format": 1, "kind": 1, "address": "a", "account": "", "written_at": "2026-11-20"}',
     b'{"format": 1, "kind": "k", "address": "a\\u001b", "account": "", "written_at": "2026-11-20"}',
     b'{"format": 1, "kind": "k", "address": "a", "account": "", "written_at": "soon"}'],
)  # fmt: skip
def test_a_garbled_marker_is_one_line(tmp_path: Path, garbled: bytes) -> None:
    """A marker that says nothing clear is refused with what to do, and never written anew by itself."""
    FolderStore(tmp_path).put(layout.MARKER_KEY, garbled)
    store, claim = opened(tmp_path)
    for work in (claim.compare, lambda: store.put("b", b"1")):
        with pytest.raises(ConfigurationError, match=r"cannot be read; .* store move --from unreadable$"):
            work()
    assert FolderStore(tmp_path).get(layout.MARKER_KEY) == garbled
    move(FolderStore(tmp_path), OURS, "unreadable")
    opened(tmp_path)[0].put("b", b"1")


def test_a_newer_versions_marker_is_one_line(tmp_path: Path) -> None:
    """What a later version wrote is left alone, by the move too."""
    FolderStore(tmp_path).put(layout.MARKER_KEY, b'{"format": 2, "sources": []}')
    with pytest.raises(ConfigurationError, match=r"newer version \(format 2\); update vendor_assets"):
        opened(tmp_path)[1].compare()
    with pytest.raises(ConfigurationError, match="newer version"):
        move(FolderStore(tmp_path), OURS, "unmarked")


def test_a_move_names_what_the_store_holds(tmp_path: Path) -> None:
    """The present source has to be given; with it the store is the new address's, and no longer the old one's."""
    opened(tmp_path)[0].put("a", b"1")
    there = Source(OURS.kind, "https://new.example", "7")
    for wrong in ("unmarked", "unreadable", str(there), ""):
        with pytest.raises(ConfigurationError, match="nothing was changed"):
            move(FolderStore(tmp_path), there, wrong)
    with pytest.raises(ConfigurationError, match="embedded"):
        move(FolderStore(tmp_path), Source(OURS.kind, EMBEDDED), str(OURS))
    opened(tmp_path)[1].compare()
    move(FolderStore(tmp_path), there, str(OURS))
    opened(tmp_path, there)[0].put("b", b"1")
    with pytest.raises(ConfigurationError):
        opened(tmp_path)[1].compare()


def test_a_store_of_an_older_version_is_adopted(tmp_path: Path) -> None:
    """Tables without a source, of the configured kind, are taken for ours, and the next write marks the store."""
    roster(tmp_path, {"42": "payments"}, {"vendor": OURS.kind})
    store, claim = opened(tmp_path)
    claim.compare()
    store.put("a", b"1")
    assert layout.MARKER_KEY in keys(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "held"),
    [
        ({"vendor": "prometheus"}, "a prometheus vendor"),
        ({"vendor": OURS.kind, "source": str(OTHERS[1])}, str(OTHERS[1])),
        ({"vendor": OURS.kind, "source": "new_relic@embedded"}, "the embedded vendor"),
    ],
)
def test_a_lost_marker_is_told_by_the_tables(tmp_path: Path, metadata: dict[str, str], held: str) -> None:
    """Where the marker was deleted, or never was, tables of another kind or source are refused."""
    roster(tmp_path, {"42": "payments"}, metadata)
    store, claim = opened(tmp_path)
    for work in (claim.compare, lambda: store.put("b", b"1")):
        with pytest.raises(ConfigurationError, match=f"holds the data of {held}, but"):
            work()
    assert layout.MARKER_KEY not in keys(tmp_path)


def test_the_embedded_vendors_old_data_are_known(tmp_path: Path) -> None:
    """An older version's demo is no real vendor's store, but goes on as the embedded vendor's."""
    troops = {troop.id: troop.name for troop in World.preset("demo").troops_on(DAY, "UTC")}
    roster(tmp_path, troops, {"vendor": OURS.kind})
    with pytest.raises(ConfigurationError, match="holds the data of the embedded vendor"):
        opened(tmp_path)[1].compare()
    opened(tmp_path, Source(OURS.kind, "http://127.0.0.1:8731"))[1].compare()
    opened(tmp_path, Source(OURS.kind, EMBEDDED))[0].put("a", b"1")


def test_a_real_vendors_old_data_are_not_the_embedded_vendors(tmp_path: Path) -> None:
    """Tables that are not recognised as the embedded vendor's are not mixed with its data."""
    roster(tmp_path, {"42": "payments"}, {"vendor": OURS.kind})
    with pytest.raises(ConfigurationError, match="but the embedded vendor is configured"):
        opened(tmp_path, Source(OURS.kind, EMBEDDED))[1].compare()


def test_an_unreadable_table_keeps_nobody_out(tmp_path: Path) -> None:
    """A damaged roster says nothing of whose it is."""
    FolderStore(tmp_path).put(layout.table_key("troops", DAY), b"PAR1 garbage")
    opened(tmp_path)[0].put("a", b"1")


def test_a_long_life_compares_again(tmp_path: Path) -> None:
    """A process that lives on notices within a minute that the store has become somebody else's."""
    clock = [0.0]
    store = FolderStore(tmp_path)
    claim = Claim(store, OURS, monotonic=lambda: clock[0])
    claim.compare()
    opened(tmp_path, OTHERS[0])[0].put("a", b"1")
    clock[0] = marker.COMPARED_SECONDS - 1
    claim.compare()
    clock[0] = marker.COMPARED_SECONDS
    with pytest.raises(ConfigurationError):
        claim.compare()


class Ignoring(FolderStore):
    """A store that keeps conditions for the first few writes only, or never."""

    writes_kept = 0

    def writer(
        self, key: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> AbstractContextManager[ObjectWriter]:
        """As a server that does not know the headers."""
        self.writes_kept -= 1
        kept = self.writes_kept >= 0
        return super().writer(key, if_absent=if_absent and kept, if_match=if_match if kept else None)


def test_a_store_that_ignores_conditions_is_not_written_to(tmp_path: Path) -> None:
    """The first write is refused, and each later one; nothing stays behind."""
    store = Ignoring(tmp_path)
    store.before_first_write(Claim(store, OURS).settle)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError, match="ignores If-None-Match"):
            store.put("a", b"1")
    assert keys(tmp_path) == []
