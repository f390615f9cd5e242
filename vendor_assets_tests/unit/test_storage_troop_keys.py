"""The partition keys of troops: readable, unique, stable; what an older release wrote goes on."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_assets.errors import ObjectConflictError
from vendor_assets.storage import layout
from vendor_assets.storage.folder import FolderStore
from vendor_assets.storage.parquet import TableWriter
from vendor_assets.storage.troop_keys import TroopKeys, readable_key
from vendor_assets.tables import TROOPS

DAY = date(2026, 11, 20)
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("troop_id", "name", "key"),
    [
        ("200010000", "Search (green)", "search-green.200010000"),
        ("checkout", "checkout", "checkout"),
        ("checkout", "Checkout", "checkout"),
        ("checkout", None, "checkout"),
        ("42", None, "troop.42"),
        ("42", "42", "troop-42.42"),
        ("2026-11-20", "2026-11-20", "troop-2026-11-20.2026-11-20"),
        ("nan", "NaN", "nan.nan"),
        ("7", "検索", "troop.7"),
        ("7", "Überwachung", "uberwachung.7"),
        ("a/b", "a/b", "a-b.a~2Fb"),
        ("search.200", "search.200", "search-200.search.200"),
        ("", "nameless", "~"),
    ],
)
def test_a_key_can_be_read(troop_id: str, name: str | None, key: str) -> None:
    """The name comes first and the id is in it."""
    assert readable_key(troop_id, name) == key


@given(st.lists(st.tuples(st.text(max_size=200), st.none() | st.text(max_size=60)), max_size=6))
def test_keys_are_safe_and_tell_ids_apart(troops: list[tuple[str, str | None]]) -> None:
    """Each key is a segment of a path, and two ids never have the same."""
    keys = {troop_id: readable_key(troop_id, name) for troop_id, name in troops}
    assert all(layout.is_segment(key) for key in keys.values())
    assert len(set(keys.values())) == len(keys)


@given(st.from_regex(r"[0-9.eEdf+-]{1,12}", fullmatch=True) | st.dates().map(str))
def test_a_key_is_no_number(troop_id: str) -> None:
    """What guesses the type of a folder takes it for text, whatever the id is."""
    is_text = duckdb.execute(
        "SELECT TRY_CAST($key AS DOUBLE) IS NULL AND TRY_CAST($key AS DATE) IS NULL",
        {"key": readable_key(troop_id, None)},
    ).fetchall()
    assert is_text == [(True,)]


def test_a_key_stays_when_the_name_changes(tmp_path: Path) -> None:
    """Also for another process, and whoever comes later."""
    assert TroopKeys(FolderStore(tmp_path)).assign({"1": "search", "2": None}) == {
        "1": "search.1",
        "2": "troop.2",
    }
    assert TroopKeys(FolderStore(tmp_path)).assign({"1": "find", "3": "search"}) == {
        "1": "search.1",
        "3": "search.3",
    }


def test_ids_that_differ_by_case_alone_have_folders_of_their_own(tmp_path: Path) -> None:
    """Also where a file system does not tell case apart, and in whichever order they come."""
    keys = TroopKeys(FolderStore(tmp_path)).assign(
        {"Checkout": None, "checkout": None, "CHECKOUT": "checkout"}
    )
    assert keys["Checkout"] == "Checkout"
    keys |= TroopKeys(FolderStore(tmp_path)).assign({"checkOut": "checkOut"})
    assert len({key.lower() for key in keys.values()}) == 4


def test_two_at_once_agree(tmp_path: Path) -> None:
    """Whoever comes second takes over what the first one has written meanwhile."""

    class Meanwhile(FolderStore):
        raced = False

        def put(self, key: str, data: bytes, **conditions: Any) -> str:
            if not self.raced:
                self.raced = True
                TroopKeys(FolderStore(tmp_path)).assign({"1": "first"})
                with pytest.raises(ObjectConflictError):
                    super().put(key, data, **conditions)
                raise ObjectConflictError("meanwhile")
            return super().put(key, data, **conditions)

    assert TroopKeys(Meanwhile(tmp_path)).assign({"1": "second", "2": "x"}) == {"1": "first.1", "2": "x.2"}


def older_roster(store: FolderStore, *ids: str) -> None:
    """A roster as a release without readable keys wrote it."""
    row = {"attributes": None, "first_observed_at": AT, "last_observed_at": AT, "observed_later": False}
    rows = [{"troop_id": i, "troop_key": layout.encode_segment(i), "name": "search", **row} for i in ids]
    with TableWriter(store, layout.table_key("troops", DAY), TROOPS, metadata={}) as writer:
        writer.write(pa.Table.from_pylist(rows, schema=TROOPS.schema))


def test_a_store_of_an_older_release_keeps_its_keys(tmp_path: Path) -> None:
    """No partition is lost by the change; only new troops have the new form."""
    store = FolderStore(tmp_path)
    older_roster(store, "200", "search.300")
    assert TroopKeys(store).known() == {"200": "200", "search.300": "search.300"}
    assert TroopKeys(store).assign({"200": "search", "300": "search"}) == {"200": "200", "300": "troop-2.300"}


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"keys": {"1": "../x"}}', b"\xff"])
def test_a_damaged_object_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    """From the rosters, with the keys that are on them."""
    store = FolderStore(tmp_path)
    older_roster(store, "200")
    store.put(layout.TROOP_KEYS_KEY, damage)
    assert TroopKeys(store).assign({"200": "x", "1": "y"}) == {"200": "200", "1": "y.1"}
    assert TroopKeys(store).known() == {"1": "y.1", "200": "200"}
