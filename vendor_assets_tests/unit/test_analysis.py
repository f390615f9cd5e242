"""``vendor_assets.read``: whose store it reads, and which troops a name means."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import vendor_assets
from vendor_assets.days import day_window, parse_time_zone
from vendor_assets.errors import ConfigurationError, VendorAssetsError
from vendor_assets.storage.folder import FolderStore
from vendor_assets_tests.support.analysis import rows_of, slices, write_performance, write_roster

DAY = date(2026, 11, 20)
BEFORE = DAY - timedelta(days=1)
UTC = parse_time_zone("UTC")


def write_day(store: FolderStore, day: date, troops: dict[str, str | None]) -> None:
    """A roster, and for each troop one row of performance data."""
    write_roster(store, day, list(troops.items()))
    for number, troop_id in enumerate(troops):
        rows = slices([float(number)], window=day_window(day, UTC), troop_id=troop_id)
        write_performance(store, day, troop_id, rows_of(rows))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, entered."""
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    (root / "dagster.yaml").touch()
    monkeypatch.chdir(root)
    return root


def ids(**chosen: object) -> list[str]:
    """The troops whose rows are read."""
    frame = vendor_assets.read("performance_data", **chosen)
    return sorted(frame["troop_id"].unique())


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ("", "demo_data"),
        ("VENDOR_URL=https://api.newrelic.com", "data"),
        ("VENDOR_ASSETS_STORE=elsewhere", "elsewhere"),
    ],
)
def test_without_a_store_the_projects_is_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, settings: str, folder: str
) -> None:
    """It is found from a folder below, without a key; nothing of the settings stays in the environment."""
    (project / "vendor_assets.env").write_text(settings)
    write_day(FolderStore(project / folder), DAY, {"1": "one"})
    monkeypatch.chdir(project / "notebooks")
    before = dict(os.environ)
    assert ids() == ["1"]
    assert dict(os.environ) == before


def test_the_environment_goes_before_the_projects_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the command."""
    (project / "vendor_assets.env").write_text("VENDOR_ASSETS_STORE=nowhere")
    write_day(FolderStore(project / "mine"), DAY, {"2": "two"})
    monkeypatch.setenv("VENDOR_ASSETS_STORE", "mine")
    assert ids() == ["2"]


def test_of_several_accounts_one_is_chosen(project: Path) -> None:
    """Each has its store; the variables of their secrets need not be there."""
    (project / "vendor_assets.toml").write_text(
        '[accounts.prod]\nurl = "https://api.newrelic.com"\napi_key_env = "PROD_KEY"\n'
        '[accounts.lab]\nkind = "prometheus"\nurl = "http://lab"\nstore = "lab_data"\n'
    )
    write_day(FolderStore(project / "data" / "prod"), DAY, {"1": "one"})
    write_day(FolderStore(project / "lab_data"), DAY, {"2": "two"})
    assert (ids(account="prod"), ids(account="lab")) == (["1"], ["2"])
    with pytest.raises(ConfigurationError, match="several accounts; choose one with account=: prod, lab"):
        ids()
    with pytest.raises(ConfigurationError, match="no account 'nix'; there are prod, lab"):
        ids(account="nix")


@pytest.mark.parametrize(
    ("settings", "chosen", "said"),
    [
        ("", {}, "there are no tables in {project}/demo_data; harvest a day first, or give"),
        ("", {"store": "nix"}, "there are no tables in {project}/nix; "),
        ("", {"store": "nix", "table": "mine"}, "there are no tables in {project}/nix; "),
        ("", {"store": "nix", "troops": "checkout"}, "there are no tables in {project}/nix; "),
        ("VENDOR_ASSETS_STOR=data", {}, "VENDOR_ASSETS_STOR"),
        ("VENDOR_ASSETS_STORE=http://x", {}, "VENDOR_ASSETS_STORE='http://x' is not accepted"),
        ("", {"account": "prod"}, "there is no account 'prod'; leave account out"),
        ("", {"account": "prod", "store": "nix"}, "cannot be used together"),
    ],
)
def test_a_store_that_is_not_there_is_told_in_one_line(
    project: Path, settings: str, chosen: dict[str, str], said: str
) -> None:
    """No empty frame stands for a wrong setting."""
    (project / "vendor_assets.env").write_text(settings)
    with pytest.raises(VendorAssetsError) as error:
        vendor_assets.read(**{"table": "performance_data", **chosen})
    assert said.format(project=project) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """Two days: a troop is renamed, one is called like another one's id, and two have one name."""
    store = FolderStore(tmp_path / "store")
    write_day(store, BEFORE, {"1": "checkout-eu", "2": "Basket | DE", "3": "1"})
    write_day(store, DAY, {"1": "checkout-west", "4": "checkout-us", "5": "twin", "6": "twin"})
    return store


@pytest.mark.parametrize(
    ("troops", "days", "expected"),
    [
        ("Basket | DE", None, ["2"]),
        (["checkout-eu"], None, ["1"]),  # by any name that it had, on all days
        (["checkout-*"], None, ["1", "4"]),
        (["checkout-*"], BEFORE, ["1"]),
        ("*", BEFORE, ["1", "2", "3"]),
        (["checkout-us", "2"], None, ["2", "4"]),
        ("1", None, ["1"]),  # an id goes before a name
        ("checkout-us", BEFORE, []),  # known, but not on that day
        (["5", "6"], None, ["5", "6"]),
    ],
)
def test_troops_are_given_by_name_or_pattern(
    store: FolderStore, troops: str | list[str], days: date | None, expected: list[str]
) -> None:
    """As well as by id and partition key; ids go first, then keys, then names, then patterns."""
    assert ids(troops=troops, days=days, store=store) == expected


def test_a_name_that_several_troops_have_is_refused_with_their_keys(store: FolderStore) -> None:
    """Nobody's rows are mixed with another's unasked; a pattern says that all are meant."""
    with pytest.raises(ConfigurationError, match="'twin' is the name of 2 troops: 5, 6; give one of these"):
        ids(troops="twin", store=store)
    assert ids(troops="twin*", store=store) == ["5", "6"]
    with pytest.raises(ConfigurationError, match=r"troop 'nix-\*' has no performance_data .* on any day"):
        ids(troops="nix-*", store=store)


@pytest.mark.parametrize(
    "days", [("2026-11-19", DAY), pd.date_range(BEFORE, DAY), {BEFORE, DAY}, (day for day in (BEFORE, DAY))]
)
def test_days_are_anything_that_gives_days(store: FolderStore, days: object) -> None:
    """A pair, what pandas makes of a range, a set, a generator."""
    assert ids(days=days, store=store) == ["1", "2", "3", "4", "5", "6"]


def test_what_is_no_day_is_told(store: FolderStore) -> None:
    """Also where it is no text."""
    with pytest.raises(ConfigurationError, match="day '5' is not a date"):
        ids(days=[5], store=store)


def test_ids_and_names_are_categories_that_sort_as_texts(store: FolderStore) -> None:
    """In pandas by their texts' order, in Arrow as dictionaries; on request, and in own tables, texts."""
    write_day(store, BEFORE - timedelta(days=1), {"9": "the first to be read, and the last by its text"})
    frame = vendor_assets.read("performance_data", store=store)
    categories = {"troop_id", "warrior_id", "data_group", "value_name", "troop"}
    assert set(frame.select_dtypes("category")) == categories
    assert frame.sort_values("troop")["troop"].tolist() == sorted(frame["troop"])
    assert frame["troop"].cat.categories.tolist() == ["1", "2", "3", "4", "5", "6", "9"]
    arrow = vendor_assets.read("performance_data", as_="arrow", store=store)
    assert {field.name for field in arrow.schema if pa.types.is_dictionary(field.type)} == categories
    plain = vendor_assets.read("performance_data", categories=False, store=store)
    assert plain.select_dtypes("category").empty
    assert plain.astype(str).equals(frame.astype(str))
