"""Filters on the command, against the embedded vendor; its log says what was asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.command import Command
from vendor_assets_tests.support.simulator import KEY, RunningSimulator, simulator
from vendor_assets_tests.support.truth import harvested_rows, true_rows

DAY = datetime.now(UTC).date() - timedelta(days=1)
TROOP = "200020000"
WARRIOR = "100000000200000"
FILTERS = {
    "VENDOR_ASSETS_TROOPS": f"!{TROOP}",
    "VENDOR_ASSETS_WARRIORS": f"!{WARRIOR}",
    "VENDOR_ASSETS_DATA_GROUPS": "!Datastore/*",
    "VENDOR_ASSETS_VALUES": "!min_*,!max_*",
}


def asked(vendor: RunningSimulator) -> list[tuple[str, set[str], set[str]]]:
    """Path, data groups and values of every call so far, in order of arrival."""
    found = []
    for _, target, _ in vendor.log(arrivals=True)["arrivals"]:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        found.append((unquote(parts.path), set(query.get("names[]", [])), set(query.get("values[]", []))))
    return found


def is_taken(row: tuple[object, ...]) -> bool:
    troop, warrior, group, value, *_ = map(str, row)
    return (
        troop != TROOP
        and warrior != WARRIOR
        and not group.startswith("Datastore/")
        and not value.startswith(("min_", "max_"))
    )


def test_nothing_that_is_left_out_is_asked_for(tmp_path: Path) -> None:
    """No call for it; without the filters only what is new is asked, with them again nothing."""
    with simulator(world="small", churn=False) as vendor:
        settings = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"}
        harvest = ("harvest", "--no-report", "--day", DAY.isoformat(), "--json")
        filtered = Command(tmp_path, settings | FILTERS)
        store = FolderStore(tmp_path / "data")
        truth = true_rows(vendor.world, DAY)

        first = filtered.run(*harvest)
        assert first.code == 0, first.out + first.err
        calls = asked(vendor)
        assert not [path for path, _, _ in calls if TROOP in path or WARRIOR in path]
        assert not [name for _, groups, _ in calls for name in groups if name.startswith("Datastore/")]
        assert not [name for _, _, values in calls for name in values if name.startswith(("min_", "max_"))]
        assert harvested_rows(store, DAY, left_out=True) == {
            row: value for row, value in truth.items() if is_taken(row)
        }

        whole = Command(tmp_path, settings).run(*harvest)
        assert whole.code == 0, whole.out + whole.err
        added = asked(vendor)[len(calls) :]
        assert added
        assert harvested_rows(store, DAY) == truth
        lists = [path for path, groups, _ in calls + added if not groups]
        assert len(set(lists)) == len(lists)
        of_old_warriors = [
            groups for path, groups, _ in added if groups and TROOP not in path and WARRIOR not in path
        ]
        # All values of this group had been asked; of the others some had not.
        assert of_old_warriors
        assert not [groups for groups in of_old_warriors if "Errors/all" in groups]

        again = filtered.run(*harvest)
        assert again.json["calls_made"] == 0
        assert len(asked(vendor)) == len(calls) + len(added)
        refused = filtered.run("harvest", "--troop", TROOP, "--day", DAY.isoformat())
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"troop '{TROOP}' is left out by VENDOR_ASSETS_TROOPS=!{TROOP}" in refused.err


def test_a_pattern_that_nothing_matches(tmp_path: Path) -> None:
    """A day of which the filters leave all out is not taken for one that is complete."""
    with simulator(world="small", churn=False) as vendor:
        settings = {"VENDOR_URL": vendor.url, "VENDOR_API_KEY": KEY, "VENDOR_RATE": "500/s"}
        mistyped = Command(tmp_path, settings | {"VENDOR_ASSETS_TROOPS": "nothing-*"})
        found = mistyped.run("harvest", "--no-report", "--day", DAY.isoformat())
        assert found.code == 3, found.out + found.err
        assert "VENDOR_ASSETS_TROOPS=nothing-* leaves all " in found.out
        assert "all of it left out" in mistyped.run("plan", "--day", DAY.isoformat()).out
        for name in ("VENDOR_ASSETS_WARRIORS", "VENDOR_ASSETS_DATA_GROUPS"):
            typed = Command(tmp_path / name, settings | {name: "nothing-*"})
            found = typed.run("harvest", "--day", DAY.isoformat(), "--no-report")
            assert found.code == 3, found.out + found.err
            assert f"{name}=nothing-* leaves all data out" in found.out
        parts = {each["part"]: each for each in mistyped.run("doctor", "--json").json}  # type: ignore[call-overload,index]
        assert parts["demand"]["state"] == "warning"
